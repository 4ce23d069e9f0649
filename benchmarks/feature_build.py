"""How long a large table of features takes to become loaders, how much memory above the input, and what a pass and a step cost after that.

    python benchmarks/feature_build.py                   # 1,000,000 items, writes benchmarks/results/feature_build.json
    python benchmarks/feature_build.py --part steps      # the same table, writes benchmarks/results/feature_steps.json
    python benchmarks/feature_build.py --items 100000    # prints only

Each item has 50 different values of 2,000 (lists of an Arrow table), drawn with the seed; the ratings are 500,000 clicks of 20,000
users on half of the items, so the other half is cold. Measured is CollabDataLoaders.implicit_from_df(n_neg=0, valid_pct=0) with
items= and without: CPU seconds of the process (one thread), and the peak of its resident memory from there on, above what it held with the
input (Linux).
Each runs in a process of its own. The goal: 30 s and 2 GB above the input.

Steps: loaders of the same clicks with the table and without. `pass`: every batch of an epoch is drawn (bs 4096, 4 negatives each), and,
for a model that ignores features (DotProductBias, 16 factors), an epoch is fitted as `fit` does it. `step`: an epoch of HybridDot
(16 factors, BPR) with the table and without it, both in the loop that HybridDot trains in, divided by its steps; beside it the epoch of
DotProductBias, which the compiled loop trains. At 20,000 items the tables of ids are small, so that features have the largest part in a
step; `--items` is the other size. Runs of both take turns in one process; figures are medians of CPU seconds of one thread, `ratio` with over without.
The goal: a pass at most 1.05 times that of ids only, a step at most 4 times.
"""
import argparse,json,os,subprocess,sys,time,warnings

warnings.filterwarnings('ignore')
import numpy as np,pandas as pd,pyarrow as pa
from common import RESULTS,machine,versions,write_json

VALUES,EACH,SEED = 2000,50,0

def made(n):
    "(table of items, clicks)"
    rng = np.random.default_rng(SEED)
    names = pa.array([f'value {i}' for i in range(VALUES)])
    first,step = rng.integers(0, VALUES, (n,1)),rng.integers(0, VALUES//EACH, (n,EACH)) # 50 different ones: one in each stretch
    codes = ((first+np.arange(EACH)*(VALUES//EACH)+step)%VALUES).ravel()
    lists = pa.ListArray.from_arrays(pa.array(np.arange(n+1)*EACH, pa.int32()), names.take(pa.array(codes)))
    items = pa.table(dict(item_id=pa.array(np.arange(1, n+1)), tags=lists))
    clicks = pd.DataFrame(dict(user_id=rng.integers(1, 20_001, 500_000), item_id=rng.integers(1, n//2+1, 500_000)))
    return items,clicks

def kept(what): # 'VmRSS' now, 'VmHWM' at most since `forget`
    "Bytes of resident memory"
    with open('/proc/self/status') as f: return next(int(o.split()[1])*1024 for o in f if o.startswith(what))

def forget():
    "What was kept before no longer counts as the peak"
    with open('/proc/self/clear_refs', 'w') as f: f.write('5')

def one(n, with_items):
    "Figures of one build"
    from recfast.data.features import Features
    from recfast.data.loaders import CollabDataLoaders
    items,clicks = made(n)
    pa.default_memory_pool().release_unused()
    forget()
    held,start = kept('VmRSS'),time.process_time()
    more = dict(items=Features(items, multi='tags')) if with_items else {}
    dls = CollabDataLoaders.implicit_from_df(clicks, n_neg=0, valid_pct=0, bs=512, **more)
    took,above = time.process_time()-start,kept('VmHWM')-held
    table = dls.features('item') if with_items else None
    shape = [int(o) for o in table.csr.shape]+[int(table.csr.nnz)] if with_items else None
    return dict(items=n, with_items=with_items, cpu_seconds=round(took, 1), gb_above_input=round(above/1e9, 2), csr=shape, input_gb=round(items.nbytes/1e9, 2))

def seconds(f):
    start = time.process_time()
    f()
    return time.process_time()-start

def in_turn(fs, n):
    "Medians of CPU seconds of functions that take turns; the first turn is left out"
    runs = [[seconds(f) for f in fs] for _ in range(n+1)][1:]
    ids,both = map(float, np.median(runs, 0))
    return dict(ids=round(ids, 4), features=round(both, 4), ratio=round(both/ids, 3), turns=n)

def one_pass(dls):
    for _ in dls.train: pass

def steps(n, repeats):
    "Figures of a size"
    from recfast.data.features import Features
    from recfast.data.loaders import CollabDataLoaders
    from recfast.learner import collab_learner
    from recfast.losses import BPRLoss
    from recfast.models.dot import DotProductBias
    from recfast.models.hybrid import HybridDot
    items,clicks = made(n)
    how = dict(n_neg=4, valid_pct=0, bs=4096, seed=SEED)
    both = [CollabDataLoaders.implicit_from_df(clicks, **how, **o) for o in ({},dict(items=Features(items, multi='tags')))]
    def learner(dls, arch, **config):
        learn = collab_learner(dls, 16, arch=arch, loss_func=BPRLoss(), config=config, seed=SEED, cold_tail=False)
        def fit():
            with learn.quiet(): learn.fit(1, 1e-3)
            learner.loop = learn.fast
        return fit
    out = dict(items=n, steps=len(both[0].train), passes=in_turn([lambda o=o: one_pass(o) for o in both], repeats))
    out['ignoring'] = in_turn([learner(o, DotProductBias) for o in both], repeats) | dict(loop=str(learner.loop))
    out['hybrid'] = in_turn([learner(both[0], HybridDot),learner(both[1], HybridDot, wd_features=3.)], max(1, repeats//2)) | dict(loop=str(learner.loop))
    return out

if __name__=='__main__':
    parser = argparse.ArgumentParser()
    parser.add_argument('--items', type=int, default=1_000_000)
    parser.add_argument('--part', choices=['build','steps'], default='build')
    parser.add_argument('--repeats', type=int, default=5)
    parser.add_argument('--one', choices=['with','without'])
    args = parser.parse_args()
    if args.one: print(json.dumps(one(args.items, args.one=='with'))); sys.exit()
    about = dict(seed=SEED, protocol=__doc__.strip(), load=[round(o, 1) for o in os.getloadavg()], note='the machine was shared with other work',
                 versions=versions(), machine=machine())
    if args.part=='steps':
        import torch
        torch.set_num_threads(1)
        runs = []
        for n in (20_000,args.items):
            runs.append(steps(n, args.repeats))
            print(runs[-1], flush=True)
        if args.items==1_000_000: write_json(RESULTS/'feature_steps.json', dict(runs=runs, **about))
        sys.exit()
    runs = []
    for o in ('without','with'):
        out = subprocess.run([sys.executable,'-W','ignore',__file__,'--items',str(args.items),'--one',o], capture_output=True, text=True, check=True).stdout
        runs.append(json.loads(out.splitlines()[-1]))
        print(runs[-1], flush=True)
    if args.items==1_000_000: write_json(RESULTS/'feature_build.json', dict(runs=runs, **about))
