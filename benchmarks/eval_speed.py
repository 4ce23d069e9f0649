"Full ranking of synthetic factors: recfast's evaluation beside implicit's recommend and ranking_metrics_at_k, the same threads, side by side"
import argparse, json, os, resource, subprocess, sys, tempfile, time
from pathlib import Path
from statistics import median

HERE = Path(__file__).resolve()
SIZE = dict(n_users=29_858, n_items=40_981, n_factors=64, n_pairs=1_000_000)
THREADS = ('OMP_NUM_THREADS','MKL_NUM_THREADS','OPENBLAS_NUM_THREADS','NUMBA_NUM_THREADS')
PROTOCOL = ('factors drawn from a normal distribution, pairs drawn with popular items more often than rare ones (rank to the power -0.7), a fifth of '
    'them held out; every item less the user\'s own training rows is ranked. recfast: one evaluate_recommender of NDCG@10 and Recall@20. implicit: '
    'recommend of the 20 best to all users with the seen filtered, then ranking_metrics_at_k at 10. '
    'Both warm; runs take turns; seconds are medians; memory is the peak of resident memory above that before the first run, factors and pairs loaded')

def draw(path, n_users, n_items, n_factors, n_pairs, seed=0):
    "Factors and pairs as npz"
    import numpy as np
    rs = np.random.RandomState(seed)
    uf,vf = (rs.randn(n, n_factors).astype('float32') for n in (n_users,n_items))
    p = np.arange(1, n_items+1)**-.7
    users,items = rs.randint(0, n_users, n_pairs),rs.permutation(n_items)[rs.choice(n_items, n_pairs, p=p/p.sum())]
    pairs = np.unique(users.astype('int64')*n_items+items)
    held = rs.rand(len(pairs))<.2
    np.savez(path, users=uf, items=vf, train=pairs[~held], test=pairs[held])

def ours(z, threads):
    "A function that evaluates, and what it returns at the end"
    import numpy as np, torch
    torch.set_num_threads(threads)
    from recfast.data.loaders import Interactions, Vocab
    from recfast.evaluate import evaluate_recommender
    from recfast.models.dot import DotProduct
    (n_users,k),n_items = z['users'].shape,len(z['items'])
    model = DotProduct(n_users+1, n_items+1, k)
    with torch.no_grad():
        for w,o in ((model.u_weight.weight,z['users']),(model.i_weight.weight,z['items'])): w[0],w[1:] = 0,torch.from_numpy(o)
    classes = dict(user_id=Vocab(np.arange(n_users)), item_id=Vocab(np.arange(n_items)))
    train,test = (Interactions(o//n_items+1, o%n_items+1, classes=classes) for o in (z['train'],z['test']))
    trained = train.counts()>0
    def run():
        for o in (train,test):
            for name in ('_kept','_csr'): o.__dict__.pop(name, None)  # nothing is kept from the run before
        ev = evaluate_recommender(model, train, test, metrics=['ndcg@10','recall@20'], progress=False, baseline=False)
        return dict(ev.summary, trained_items=int(trained[1:].sum()))
    return run

def theirs(z, threads):
    "recommend, then the metrics"
    import numpy as np
    from scipy.sparse import csr_matrix
    from implicit.cpu.matrix_factorization_base import MatrixFactorizationBase
    from implicit.evaluation import ranking_metrics_at_k
    class Given(MatrixFactorizationBase):
        def fit(self, *args, **kwargs): pass
        def save(self, *args): pass
    model = Given(num_threads=threads)
    model.user_factors,model.item_factors = z['users'],z['items']
    n_users,n_items = len(z['users']),len(z['items'])
    train,test = (csr_matrix((np.ones(len(o), 'float32'), (o//n_items,o%n_items)), shape=(n_users,n_items)) for o in (z['train'],z['test']))
    def run():
        start = time.perf_counter()
        model.recommend(np.arange(n_users), train, N=20, filter_already_liked_items=True)
        mid = time.perf_counter()
        res = ranking_metrics_at_k(model, train, test, K=10, show_progress=False, num_threads=threads)
        return {**{k: float(v) for k,v in res.items()}, 'recommend_seconds': mid-start, 'metrics_seconds': time.perf_counter()-mid}
    return run

def peak_mb(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/(2**20 if sys.platform=='darwin' else 2**10)

def worker(path, which, threads):
    "Answers 'go' on stdin with one run as a line of JSON"
    import numpy as np
    z = dict(np.load(path))
    run,base = {'ours':ours,'theirs':theirs}[which](z, threads),peak_mb()
    for line in sys.stdin:
        start,cpu = time.perf_counter(),time.process_time()
        res = run()
        print(json.dumps(dict(res, seconds=time.perf_counter()-start, cpu_seconds=time.process_time()-cpu, above_mb=peak_mb()-base)), flush=True)

def start(python, path, which, threads, env):
    return subprocess.Popen([python, str(HERE), '--worker', which, '--npz', str(path), '--threads', str(threads)],
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, encoding='utf-8', env=env)

def ask(proc):
    proc.stdin.write('go\n'); proc.stdin.flush()
    return json.loads(proc.stdout.readline() or sys.exit('a worker died'))

def main(args):
    env = {**os.environ, **{o: str(args.threads) for o in THREADS}}
    with tempfile.TemporaryDirectory() as tmp:
        path = Path(tmp)/'factors.npz'
        draw(path, **{k: max(1, int(v*(1 if k=='n_factors' else args.scale))) for k,v in SIZE.items()})
        procs = {'recfast': start(sys.executable, path, 'ours', args.threads, env)}
        if args.peers_python: procs['implicit'] = start(args.peers_python, path, 'theirs', args.threads, {k: v for k,v in env.items() if k!='PYTHONPATH'})
        runs = {n: [] for n in procs}
        for i in range(args.runs+1):  # the first warms up
            for n,p in procs.items():
                runs[n].append(ask(p))
                print(n, {k: round(v, 4) for k,v in runs[n][-1].items()}, '(warm-up)' if i==0 else '', flush=True)
        for p in procs.values(): p.stdin.close(); p.wait()
    out = dict(size={k: v if k=='n_factors' else int(v*args.scale) for k,v in SIZE.items()}, threads=args.threads, protocol=PROTOCOL)
    for n,rs in runs.items():
        out[n] = {k: median(r[k] for r in rs[1:]) for k in rs[0] if k!='above_mb'}
        out[n].update(above_mb=max(r['above_mb'] for r in rs), all_seconds=[round(r['seconds'], 3) for r in rs[1:]])
    if 'implicit' in out:
        ratios = [a['seconds']/b['seconds'] for a,b in zip(runs['recfast'][1:], runs['implicit'][1:])]
        lone = [a['seconds']/b['metrics_seconds'] for a,b in zip(runs['recfast'][1:], runs['implicit'][1:])]
        out.update(ratio_to_recommend_and_metrics=median(ratios), ratio_to_metrics_alone=median(lone))
        print(f"recfast takes {median(ratios):.2f} of the time of recommend and ranking_metrics_at_k, {median(lone):.2f} of the second alone")
    if args.scale==1:
        from common import RESULTS, machine, versions, write_json
        if args.peers_python: out['peers'] = json.loads(subprocess.check_output([args.peers_python, '-c', "import json,importlib.metadata as m;"
            "print(json.dumps({o: m.version(o) for o in ('implicit','numpy','scipy')}))"], text=True))
        write_json(RESULTS/'eval_speed.json', {**out, 'versions': versions(), 'machine': machine()})

if __name__=='__main__':
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument('--peers-python', help='interpreter that has implicit')
    p.add_argument('--threads', type=int, default=2)
    p.add_argument('--runs', type=int, default=5)
    p.add_argument('--scale', type=float, default=1., help='of users, items and pairs; results are kept at 1 only')
    p.add_argument('--worker', choices=['ours','theirs'], help=argparse.SUPPRESS)
    p.add_argument('--npz', help=argparse.SUPPRESS)
    args = p.parse_args()
    worker(args.npz, args.worker, args.threads) if args.worker else main(args)
