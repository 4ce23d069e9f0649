"""Is this tree as fast as another one? Training, evaluation and HTTP requests, by turns with a second installation.

    pip install --target OTHER --no-deps git+...@COMMIT
    OMP_NUM_THREADS=1 python benchmarks/house_speed.py --other OTHER --name COMMIT

Each figure is the rate of this tree over the rate of the other: the median of the pairs of runs that stand beside each other, and a bootstrap interval of that median.
"""
import argparse,asyncio,json,os,subprocess,sys,tempfile,time,warnings
from pathlib import Path

warnings.filterwarnings('ignore')
import numpy as np
from common import RESULTS,machine,versions,write_json

ROOT = Path(__file__).resolve().parent.parent
SERVE = "import sys,warnings; warnings.simplefilter('ignore'); from recfast.serve import serve; serve(sys.argv[1], port=int(sys.argv[2]))"

def films(bs=64):
    "A learner of chapter 8 on the bundled films"
    from recfast.data.datasets import movie_night
    from recfast.data.loaders import CollabDataLoaders
    from recfast.learner import collab_learner
    return collab_learner(CollabDataLoaders.from_df(movie_night(), item_name='title', bs=bs, seed=42), 50, y_range=(0,5.5))

def fit(learn, n_epoch):
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(n_epoch, 5e-3, wd=.1)

def train():
    "Epochs a second"
    fit(films(), 1)
    learn,start = films(),time.perf_counter()
    fit(learn, 3)
    return 3/(time.perf_counter()-start)

def evaluate():
    "Evaluations a second of the lists of 6,000 users among 3,000 items, without the baseline"
    import inspect,torch
    from recfast.data.loaders import Interactions,Vocab
    from recfast.evaluate import evaluate_recommender
    from recfast.models.dot import DotProduct
    rng,classes = np.random.default_rng(0),dict(user_id=Vocab(np.arange(6000)), item_id=Vocab(np.arange(3000)))
    def some(n): return rng.integers(1, 6001, n),rng.integers(1, 3001, n)
    torch.manual_seed(0)
    model,alone = DotProduct(6001, 3001, 50),dict(baseline=False) if 'baseline' in inspect.signature(evaluate_recommender).parameters else {}
    def once(): # fresh rows: nothing is kept from the run before
        train,test = (Interactions(*some(n), np.ones(n, np.float32), classes=classes) for n in (300_000,60_000))
        start = time.perf_counter()
        evaluate_recommender(model, train, test, k=10, rated=False, progress=False, **alone)
        return time.perf_counter()-start
    once()
    return 1/np.mean([once() for _ in range(3)])

def requests(seconds=6, connections=8):
    "Lists of ten a second over HTTP"
    from serve_load import free_port,load,recfast_request,running
    with tempfile.TemporaryDirectory() as tmp:
        learn,port = films(1024),free_port()
        fit(learn, 1)
        import recfast.bundle # noqa: F401 (save_bundle)
        path = learn.save_bundle(Path(tmp)/'b.recfast')
        with running([sys.executable,'-c',SERVE,str(path),str(port)], {}, port, recfast_request(1)) as proc:
            def ask(s): return asyncio.run(load(port, recfast_request, list(range(1, 601)), s, connections, proc.pid))
            ask(1)
            ms,errors,_,took = ask(seconds)
    if errors: raise SystemExit(errors[:3])
    return len(ms)/took

WHAT = dict(train=train, evaluate=evaluate, requests=requests)

def rate(what, tree):
    "The rate of one run in a process that imports recfast from `tree`"
    env = {**os.environ, 'PYTHONPATH': str(tree), 'OMP_NUM_THREADS': '1'}
    res = subprocess.run([sys.executable,'-W','ignore',__file__,'--one',what], env=env, capture_output=True, text=True)
    if res.returncode: raise SystemExit(res.stderr)
    return json.loads(res.stdout.splitlines()[-1])

def ratio(pairs, n_boot=10_000):
    "(median, low, high) of ours over theirs: a bootstrap over the pairs"
    r = np.array([a/b for a,b in pairs])
    boot = np.median(np.random.default_rng(0).choice(r, (n_boot,len(r))), axis=1)
    return dict(median=float(np.median(r)), low=float(np.quantile(boot, .025)), high=float(np.quantile(boot, .975)))

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--one', choices=WHAT, help='one run in this process')
    p.add_argument('--other', type=Path, help='folder with the other recfast')
    p.add_argument('--name', default='', help='what the other is called in the result')
    p.add_argument('--runs', type=int, default=9)
    p.add_argument('--what', nargs='+', choices=WHAT, default=list(WHAT))
    args = p.parse_args()
    if args.one: print(json.dumps(WHAT[args.one]())); return
    res = {}
    for what in args.what:
        runs = [[rate(what, o) for o in ((ROOT,args.other) if n%2 else (args.other,ROOT))] for n in range(args.runs)]
        pairs = [o if n%2 else o[::-1] for n,o in enumerate(runs)] # ours first
        res[what] = dict(ratio(pairs), ours=[round(a, 4) for a,_ in pairs], other=[round(b, 4) for _,b in pairs])
        print(what, json.dumps(res[what]), flush=True)
    protocol = f'{args.runs} runs of each by turns, each in a process of its own, one thread; rates of this tree over those of the other'
    write_json(RESULTS/'house_speed.json', dict(res, other=args.name, protocol=protocol, machine=machine(), versions=versions()))

if __name__=='__main__': main()
