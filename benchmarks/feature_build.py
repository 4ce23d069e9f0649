"""How long a large table of features takes to become loaders, and how much memory above the input.

    python benchmarks/feature_build.py                   # 1,000,000 items, writes benchmarks/results/feature_build.json
    python benchmarks/feature_build.py --items 100000    # prints only

Each item has 50 different values of 2,000 (lists of an Arrow table), drawn with the seed; the ratings are 500,000 clicks of 20,000
users on half of the items, so the other half is cold. Measured is CollabDataLoaders.implicit_from_df(n_neg=0, valid_pct=0) with
items= and without: CPU seconds of the process (one thread), and the peak of its resident memory from there on, above what it held with the
input (Linux).
Each runs in a process of its own. The goal: 30 s and 2 GB above the input.
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

if __name__=='__main__':
    parser = argparse.ArgumentParser()
    parser.add_argument('--items', type=int, default=1_000_000)
    parser.add_argument('--one', choices=['with','without'])
    args = parser.parse_args()
    if args.one: print(json.dumps(one(args.items, args.one=='with'))); sys.exit()
    runs = []
    for o in ('without','with'):
        out = subprocess.run([sys.executable,'-W','ignore',__file__,'--items',str(args.items),'--one',o], capture_output=True, text=True, check=True).stdout
        runs.append(json.loads(out.splitlines()[-1]))
        print(runs[-1], flush=True)
    res = dict(runs=runs, seed=SEED, protocol=__doc__.strip(), load=[round(o, 1) for o in os.getloadavg()], note='the machine was shared with other work',
               versions=versions(), machine=machine())
    if args.items==1_000_000: write_json(RESULTS/'feature_build.json', res)
