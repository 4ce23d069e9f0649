"""IALS beside implicit's AlternatingLeastSquares: the same clicks, factors, sweeps, confidence, regularisation and threads, by turns in fresh
processes, each timed from the sparse matrix to the factors; the loss of both is computed by the same formula

python benchmarks/ials_speed.py --peers-python PYTHON [--runs 5] [--threads 2]"""
import argparse, json, os, statistics, subprocess, sys, tempfile, time
from pathlib import Path

import numpy as np
from scipy.sparse import csr_matrix, load_npz, save_npz

def clicks(n_users, n_items, n, seed=0, n_tastes=20):
    "Seeded clicks: users and items of skewed popularity, six in ten within a user's taste"
    rs = np.random.RandomState(seed)
    share = lambda size,power: np.arange(1, size+1)**-power/(np.arange(1, size+1)**-power).sum()
    p_user,p_item = share(n_users, .6),share(n_items, .8)
    of_user,of_item = (rs.randint(n_tastes, size=o) for o in (n_users,n_items))
    cells = np.zeros(0, np.int64)
    while len(cells)<n:
        m = int((n-len(cells))*1.3)+1000
        u,i = rs.choice(n_users, m, p=p_user),rs.choice(n_items, m, p=p_item)
        own = rs.rand(m)<.6
        for t in range(n_tastes):
            at,items = np.flatnonzero(own & (of_user[u]==t)),np.flatnonzero(of_item==t)
            i[at] = rs.choice(items, len(at), p=p_item[items]/p_item[items].sum())
        cells = np.unique(np.concatenate([cells, u*n_items+i]))
    cells = rs.permutation(cells)[:n]
    u,i = rs.permutation(n_users)[cells//n_items],rs.permutation(n_items)[cells%n_items]
    return csr_matrix((np.ones(n, np.float32), (u,i)), shape=(n_users,n_items))

def interactions(X):
    "The matrix as `Interactions`; its rows and columns come after row 0"
    from recfast.data.loaders import Interactions, Vocab
    m = X.tocoo()
    return Interactions(m.row+1, m.col+1, classes=dict(user=Vocab(np.arange(X.shape[0])), item=Vocab(np.arange(X.shape[1]))))

def run_recfast(X, a):
    import torch
    from recfast.models.linear import IALS
    torch.set_num_threads(a.threads)
    torch.manual_seed(a.seed)
    ints = interactions(X)
    ints.csr() # as implicit is given one
    model = IALS(ints.n_users, ints.n_items, a.factors, alpha=1/a.confidence, l2=a.l2/a.confidence, nu=0.)
    t = time.perf_counter()
    model.solve(ints, a.sweeps)
    seconds = time.perf_counter()-t
    return seconds,model.user_factors[1:].numpy(),model.item_factors[1:].numpy()

def run_implicit(X, a):
    from implicit.als import AlternatingLeastSquares
    model = AlternatingLeastSquares(factors=a.factors, regularization=a.l2, alpha=a.confidence, iterations=a.sweeps, num_threads=a.threads,
        random_state=a.seed)
    t = time.perf_counter()
    model.fit(X, show_progress=False)
    return time.perf_counter()-t,model.user_factors,model.item_factors

def worker(a):
    "One run; its time and factors go to a file"
    seconds,users,items = (run_recfast if a.worker=='recfast' else run_implicit)(load_npz(a.clicks), a)
    np.savez(a.out, seconds=seconds, users=users, items=items)

def run(python, name, a, folder, seed):
    "One run in a fresh process: seconds and factors"
    keep = {k: v for k,v in os.environ.items() if k not in ('OMP_NUM_THREADS','MKL_NUM_THREADS')}
    out,how = Path(folder)/'out.npz',dict(threads=a.threads, factors=a.factors, sweeps=a.sweeps, confidence=a.confidence, l2=a.l2)
    cmd = [python, __file__, '--worker', name, '--clicks', str(Path(folder)/'clicks.npz'), '--out', str(out), '--seed', str(seed)]
    subprocess.run(cmd+[o for k,v in how.items() for o in (f'--{k}', str(v))], check=True, env={**keep, 'OPENBLAS_NUM_THREADS': '1'})
    res = np.load(out)
    return float(res['seconds']),res['users'],res['items']

def loss(ints, users, items, a):
    "The objective per interaction, by `IALS.loss` whoever found the factors"
    import torch
    from recfast.models.linear import IALS
    model = IALS(ints.n_users, ints.n_items, a.factors, alpha=1/a.confidence, l2=a.l2/a.confidence, nu=0.)
    for n,v in dict(user_factors=users, item_factors=items).items(): getattr(model, n)[1:] = torch.from_numpy(v)
    return model.loss(ints)/len(ints)

def main(a):
    from common import RESULTS, machine, versions, write_json
    X = clicks(a.users, a.items, a.interactions)
    pythons,ints = dict(recfast=sys.executable, implicit=a.peers_python),interactions(X)
    seconds,losses = {n: [] for n in pythons},{n: [] for n in pythons}
    with tempfile.TemporaryDirectory() as folder:
        save_npz(Path(folder)/'clicks.npz', X)
        for r in range(a.runs):
            for name,python in list(pythons.items())[::1 if r%2==0 else -1]:
                s,u,i = run(python, name, a, folder, r)
                seconds[name].append(round(s, 3))
                losses[name].append(round(loss(ints, u, i, a), 6))
                print(name, seconds[name][-1], losses[name][-1], flush=True)
    peer = subprocess.run([a.peers_python, '-c', 'from importlib.metadata import version; print(version("implicit"))'], capture_output=True, text=True, check=True)
    med = {n: statistics.median(v) for n,v in seconds.items()}
    res = dict(config={k: getattr(a, k) for k in ('users','items','interactions','factors','sweeps','confidence','l2','threads','runs')},
        seconds=seconds, losses=losses, median=med, ratio=round(med['recfast']/med['implicit'], 3),
        ratios=[round(o/p, 3) for o,p in zip(seconds['recfast'], seconds['implicit'])],
        loss_ratio=round(statistics.median(losses['recfast'])/statistics.median(losses['implicit']), 5),
        versions={**versions(), 'implicit': peer.stdout.strip()}, machine=machine())
    print(json.dumps({k: res[k] for k in ('median','ratio','ratios','loss_ratio')}))
    if a.save: write_json(RESULTS/'ials_speed.json', res)

if __name__=='__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--peers-python', help='an interpreter that has implicit')
    for n,v in dict(users=29_858, items=40_981, interactions=1_000_000, factors=64, sweeps=15, confidence=10., l2=.1, threads=2, runs=5, seed=0).items():
        p.add_argument(f'--{n}', type=type(v), default=v)
    p.add_argument('--no-save', dest='save', action='store_false', help='print only')
    for n in ('worker','clicks','out'): p.add_argument(f'--{n}', help=argparse.SUPPRESS)
    a = p.parse_args()
    worker(a) if a.worker else main(a)
