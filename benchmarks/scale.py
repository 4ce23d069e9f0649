"""Several processes and a cluster against one process: the same losses, scores and lists, and what each takes.

    python benchmarks/scale.py                     # both parts
    python benchmarks/scale.py --part processes

processes: MovieLens-100k, five epochs of `DotProductBias` at three batch sizes: the exact loop alone, two processes that share batches
(gloo), two that share tables (from 1,024 rows on); and BPR with four negatives; largest differences of the losses of all batches, of validation losses and of scores.
ray: everybody's lists of MovieLens-1M from one process, and on Ray with one worker and with two; the start of Ray and of the workers counts.
One thread in each process.
"""
import argparse,json,os,socket,subprocess,sys,tempfile,time,warnings
from pathlib import Path

warnings.filterwarnings('ignore')
os.environ.setdefault('OMP_NUM_THREADS', '1')
import pandas as pd,torch
from common import RESULTS,machine,versions,write_json
from recfast.bundle import load_bundle
from recfast.data.datasets import ml_1m,ml_100k
from recfast.data.loaders import CollabDataLoaders
from recfast.learner import collab_learner
from recfast.losses import BPRLoss

CASES = dict([(f'mse bs={bs}', dict(bs=bs)) for bs in (64,1024,8192)], **{'bpr bs=1024': dict(bs=1024, bpr=True)})
LOAD = 'the machine was shared with other work; ratios tell more than times'

def learner(bs, bpr=False):
    df = ml_100k()
    if bpr: return collab_learner(CollabDataLoaders.implicit_from_df(df.drop(columns='rating'), item_name='title', bs=bs, seed=0), loss_func=BPRLoss())
    return collab_learner(CollabDataLoaders.from_df(df, item_name='title', bs=bs, seed=0), y_range=(0,5.5))

def fitted(case, shard=False, fast=None):
    "Losses of all batches and of validation, scores of two hundred users, seconds of the fit"
    learn = learner(**CASES[case])
    with learn.distrib_ctx(shard=shard), learn.quiet():
        start = time.perf_counter()
        learn.fit_one_cycle(5, 5e-3, wd=.1, fast=fast)
        took = time.perf_counter()-start
    scores = learn.model.score_items(torch.arange(1, 201)).flatten().tolist()
    return dict(losses=[o.item() for o in learn.recorder.losses], valid=[float(o[1]) for o in learn.recorder.values], scores=scores,
                seconds=took, loop=repr(learn.fast))

def two(case, shard, folder):
    "What two processes come to; the first tells"
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        port = s.getsockname()[1]
    env = dict(os.environ, WORLD_SIZE='2', MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port))
    args = [sys.executable,'-W','ignore',__file__,'--worker',case,str(int(shard)),str(folder)]
    started = [subprocess.Popen(args, env=dict(env, RANK=str(r), LOCAL_RANK=str(r))) for r in (0,1)]
    assert [o.wait() for o in started]==[0,0]
    return json.loads((folder/'0.json').read_text())

def largest(a, b): return max(abs(x-y) for x,y in zip(a, b, strict=True))

def processes():
    out = {}
    for case in CASES:
        alone = fitted(case, fast='exact')
        out[case] = dict(alone=dict(seconds=round(alone['seconds'], 3), loop=alone['loop']))
        for name,shard in (('batches',False),('tables',True)):
            if shard and CASES[case]['bs']<1024: continue # minutes
            with tempfile.TemporaryDirectory() as d: both = two(case, shard, Path(d))
            diff = {f'{k}_differ_by': largest(alone[k], both[k]) for k in ('losses','valid','scores')}
            out[case][name] = dict(diff, batches=len(both['losses']), seconds=round(both['seconds'], 3), loop=both['loop'])
            print(case, name, out[case][name], flush=True)
    return out

def on_ray():
    from recfast.scale import recommend_dataset
    df = ml_1m()[['user_id','item_id','rating']]
    learn = collab_learner(CollabDataLoaders.from_df(df, bs=1024, seed=0), y_range=(0,5.5))
    with learn.quiet(): learn.fit_one_cycle(1, 5e-3, wd=.1)
    out = {}
    with tempfile.TemporaryDirectory() as d:
        d = Path(d)
        bundle = learn.save_bundle(d/'b.recfast')
        rec = load_bundle(bundle)
        pd.DataFrame({'user_id': rec.known_ids()}).to_parquet(d/'users.parquet')
        start = time.perf_counter()
        lists = rec.recommend(k=10, progress=False)
        out['one process'] = dict(seconds=round(time.perf_counter()-start, 2), users=int(lists.user_id.nunique()))
        for n in (1,2):
            start = time.perf_counter()
            files = recommend_dataset(bundle, d/'users.parquet', d/f'out{n}', k=10, size=1000, workers=n)
            took = time.perf_counter()-start
            again = pd.concat([pd.read_parquet(d/f'out{n}'/o) for o in files.file], ignore_index=True)
            out[f'{n} workers'] = dict(seconds=round(took, 2), blocks=len(files), same_lists=bool(again.equals(lists)))
            print(n, out[f'{n} workers'], flush=True)
    return out

if __name__=='__main__':
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument('--part', nargs='+', choices=['processes','ray'], default=['processes','ray'])
    p.add_argument('--worker', nargs=3, help='for this script itself')
    args = p.parse_args()
    if args.worker:
        case,shard,folder = args.worker
        res = fitted(case, shard=shard=='1')
        (Path(folder)/f"{os.environ['RANK']}.json").write_text(json.dumps(res))
        sys.exit()
    torch.set_num_threads(1)
    for part in args.part:
        found = processes() if part=='processes' else on_ray()
        res = dict(part=part, load=LOAD, found=found, versions=versions(), machine=machine())
        print(write_json(RESULTS/f'scale__{part}.json', res))
