"""Lists for everybody: `recfast recommend --all` on a synthetic bundle to parquet, with the peak memory of the process.
usage: batch_all.py [--users 160000 --items 59000 --rows 25000000 --factors 64] [--k 10] [--keep DIR]"""
import argparse, json, os, resource, subprocess, sys, tempfile, time
from pathlib import Path

MAKE = '''
import sys
import numpy as np,torch
from recfast.bundle import save_bundle
from recfast.data.loaders import Interactions,Vocab
from recfast.models.dot import DotProduct
from recfast.recommend import Recommender
n_users,n_items,n_rows,n_factors = map(int, sys.argv[2:6])
rng = np.random.default_rng(0)
torch.manual_seed(0)
users = rng.integers(1, n_users+1, n_rows, dtype=np.int32)
items = (1+n_items*rng.random(n_rows)**3).astype(np.int32) # a few are met by many
classes = {'user_id': Vocab(np.arange(1, n_users+1)), 'item_id': Vocab(np.arange(1, n_items+1))}
ints = Interactions(users, items, rng.integers(1, 11, n_rows)/2, None, classes)
save_bundle(Recommender(DotProduct(n_users+1, n_items+1, n_factors, (0,5.5)).eval(), ints), sys.argv[1])
'''
COMMAND = [sys.executable, '-W', 'ignore', '-c', 'from recfast.cli import app; app()']

def run(args):
    "(seconds, processor seconds, peak MB) of a command; this process stays small, for a child starts with the peak of its parent"
    start,p = time.perf_counter(),subprocess.Popen(args)
    _,status,use = os.wait4(p.pid, 0)
    if status: raise SystemExit(f"{args[-6:]} ended with {os.waitstatus_to_exitcode(status)}")
    return time.perf_counter()-start,use.ru_utime+use.ru_stime,use.ru_maxrss/(2**20 if sys.platform=='darwin' else 2**10)

def main():
    p = argparse.ArgumentParser()
    for n,v in dict(users=160_000, items=59_000, rows=25_000_000, factors=64, k=10).items(): p.add_argument(f'--{n}', type=int, default=v)
    p.add_argument('--keep', help='a folder to keep bundle and lists in')
    a = p.parse_args()
    with tempfile.TemporaryDirectory() as tmp:
        folder = Path(a.keep or tmp)
        bundle,out = folder/'synthetic.recfast',folder/'recs.parquet'
        if not (bundle/'config.json').exists(): run([sys.executable, '-W', 'ignore', '-c', MAKE, str(bundle), *(str(o) for o in (a.users,a.items,a.rows,a.factors))])
        seconds,cpu,peak = run([*COMMAND, 'recommend', str(bundle), '--all', '-k', str(a.k), '--out', str(out)])
        size = sum(o.stat().st_size for o in bundle.iterdir())
        own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        from pyarrow import parquet
        from common import RESULTS, machine, versions, write_json
        n = parquet.read_metadata(out).num_rows
        res = dict(system='recommend --all', users=a.users, items=a.items, training_rows=a.rows, factors=a.factors, k=a.k, lists_rows=n, seconds=round(seconds, 1),
                   cpu_seconds=round(cpu, 1), peak_memory_mb=round(peak, 1), users_per_second=round(a.users/seconds, 1), bundle_mb=round(size/2**20, 1),
                   file_mb=round(out.stat().st_size/2**20, 1), threads=os.environ.get('OMP_NUM_THREADS', 'default'),
                   protocol='wall time and largest resident size of the whole process, loading the bundle and its checksums included',
                   versions=versions(), machine=machine())
        assert own < resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    print(json.dumps(res, indent=1))
    name = 'batch_all.json' if (a.users,a.items)==(160_000,59_000) else f'batch_all__{a.users}x{a.items}.json'
    write_json(RESULTS/name, res)

if __name__=='__main__': main()
