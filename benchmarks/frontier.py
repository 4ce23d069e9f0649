"""Quality over time: models of recfast, implicit and Cornac on the same rows, each once with its defaults, on one thread and in a process of its own; lists of ten
measured by `evaluate_lists`. Peers: `pip install implicit==0.7.3 cornac==3.0.1` (they are no dependency of recfast, and are left out where they are not installed)"""
import argparse, json, os, resource, subprocess, sys
from importlib.util import find_spec
from common import RESULTS, Timer, machine, peak_memory_mb, versions, write_json

SOFTMAX = dict(arch='DotProduct', n_factors=64, loss='SoftmaxLoss', loaders=dict(n_neg=0, by_user=True, bs=4096), fit=dict(n_epoch=40, lr_max=2e-2, wd=1.)) # as in recfast.recipes
SYSTEMS = { # settings that differ from the defaults
    'recfast': {'Popularity': dict(arch='Popularity'), 'ItemKNN': dict(arch='ItemKNN'), 'RP3beta': dict(arch='RP3beta'), 'EASE': dict(arch='EASE'),
        'SpectralFilter': dict(arch='SpectralFilter'), 'IALS': dict(arch='IALS', n_factors=64, fit=dict(n_epoch=10)), 'SLIM': dict(arch='SLIM'),
        'DotProduct, softmax': SOFTMAX, 'auto': dict(arch='auto')},
    'implicit': {'ALS': 'AlternatingLeastSquares', 'BPR': 'BayesianPersonalizedRanking', 'cosine': 'CosineRecommender', 'BM25': 'BM25Recommender'},
    'Cornac': {'MF': {}, 'BPR': {}, 'EASE': {}, 'VAECF': {}, 'ItemKNN': {}}}
DATASETS = {'ml-100k': 'ml_100k', 'movietweetings': 'movietweetings', 'beauty': 'amazon_beauty'}
LIMIT = 150 # processor seconds of a process, libraries and lists included

def parts(dataset):
    "(train, test) frames of ids: a random fifth of the rows is held out, seed 42"
    from recfast import all as R
    from recfast.data import datasets
    df = getattr(datasets, DATASETS[dataset])()
    df = df.assign(rating=df.rating.astype(float) if 'rating' in df else 1.)[['user_id','item_id','rating']]
    train,test = R.random_split(df, .2, seed=42)
    return df.iloc[train].reset_index(drop=True),df.iloc[test].reset_index(drop=True)

def codes(train):
    "(user codes, item codes, user ids, item ids) of the trained rows"
    import pandas as pd
    users,user_ids = pd.factorize(train.user_id, sort=True)
    items,item_ids = pd.factorize(train.item_id, sort=True)
    return users,items,user_ids,item_ids

def lists_of(users, items):
    "A frame of ranked lists"
    import numpy as np, pandas as pd
    n,k = items.shape
    return pd.DataFrame(dict(user_id=np.repeat(users, k), item_id=items.ravel(), rank=np.tile(np.arange(1, k+1), n)))

def recfast(train, who, arch, n_factors=50, loss=None, loaders=None, fit=None):
    from recfast import all as R, losses
    dls = R.CollabDataLoaders.implicit_from_df(train.drop(columns='rating'), valid_pct=0, seed=42, **{'bs': 512, **(loaders or {})})
    learn = R.collab_learner(dls, n_factors=n_factors, arch=arch if arch=='auto' else R.find_model(arch), loss_func=loss and getattr(losses, loss)())
    with Timer() as f, learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(**(fit or {'n_epoch': 1}))
    with Timer() as r: lists = learn.recommend(who, k=10, progress=False)
    return lists,f,r

def implicit(train, who, name):
    import numpy as np, implicit as lib
    from scipy.sparse import csr_matrix
    users,items,user_ids,item_ids = codes(train)
    X = csr_matrix((np.ones(len(users), np.float32),(users,items)), (len(user_ids),len(item_ids)))
    X.data[:] = 1
    of = {'A': lib.als, 'B': lib.bpr}.get(name[0]) if 'Recommender' not in name else lib.nearest_neighbours
    more = {} if 'Recommender' in name else dict(random_state=42)
    model = getattr(of, name)(num_threads=1, **more)
    with Timer() as f: model.fit(X, show_progress=False)
    at = user_ids.get_indexer(who)
    with Timer() as r: best,_ = model.recommend(at, X[at], N=10, filter_already_liked_items=True)
    lists = lists_of(who, np.where(best<0, 0, best)).assign(found=best.ravel()>=0) # neighbours may run out
    return lists[lists.found].drop(columns='found').assign(item_id=lambda o: item_ids[o.item_id]),f,r

def cornac(train, who, name, **settings):
    import numpy as np, cornac as lib
    users,items,user_ids,item_ids = codes(train)
    stars = train.rating if name in ('MF','ItemKNN') else train.rating.clip(1, 1) # models of ratings get them
    data = lib.data.Dataset.from_uir(list(zip(train.user_id, train.item_id, stars.astype(float))), seed=42)
    of = getattr(lib.models, name)
    seeded = 'seed' in of.__init__.__code__.co_varnames
    one = 'num_threads' in of.__init__.__code__.co_varnames
    model = of(verbose=False, **({'seed': 42} if seeded else {}), **({'num_threads': 1} if one else {}), **settings)
    with Timer() as f: model.fit(data)
    seen,names = data.csr_matrix,np.array(list(data.item_ids), dtype=object)
    def best(user):
        row = data.uid_map[user]
        s = np.array(model.score(row), dtype=np.float64).ravel() # EASE gives a matrix of one line
        s[seen[row].indices] = -np.inf
        top = np.argpartition(-s, 10)[:10]
        return names[top[np.argsort(-s[top], kind='stable')]]
    with Timer() as r: lists = lists_of(who, np.stack([best(o) for o in who]))
    return lists.assign(item_id=lists.item_id.astype(train.item_id.dtype)),f,r

def one(dataset, library, system):
    "Fit, rank, measure"
    import torch, warnings
    warnings.simplefilter('ignore')
    torch.set_num_threads(1)
    from recfast.given_lists import evaluate_lists
    train,test = parts(dataset)
    who = train.user_id[train.user_id.isin(test.user_id)].drop_duplicates().sort_values().to_numpy()
    before,s = peak_memory_mb(),SYSTEMS[library][system]
    lists,f,r = (dict(recfast=recfast, implicit=implicit)[library](train, who, **s if library=='recfast' else {'name': s}) if library!='Cornac' else cornac(train, who, system, **s))
    peak = peak_memory_mb()
    ev = evaluate_lists(lists, test, train, k=10, metrics=['ndcg@10','recall@10'], baseline=False)
    return dict(dataset=dataset, library=library, system=system, settings=s, metrics=ev.summary, fit_seconds=round(f.seconds, 2), fit_cpu_seconds=round(f.cpu_seconds, 2),
        rank_cpu_seconds=round(r.cpu_seconds, 2), before_mb=before, peak_memory_mb=peak, above_mb=round(peak-before, 1), users=len(who), rows=len(train), protocol=ev.protocol)

def limited(): resource.setrlimit(resource.RLIMIT_CPU, (LIMIT,LIMIT))

def start(*job):
    "A run in a process of its own; what went wrong is kept"
    env = {**os.environ, **{o: '1' for o in ('OMP_NUM_THREADS','OPENBLAS_NUM_THREADS','MKL_NUM_THREADS','NUMBA_NUM_THREADS')}}
    p = subprocess.run([sys.executable,__file__,'--one',*job], capture_output=True, text=True, env=env, preexec_fn=limited)
    if p.returncode==0: return json.loads(p.stdout.splitlines()[-1])
    why = f'more than {LIMIT} processor seconds' if p.returncode in (-9,-24) else p.stderr.strip().splitlines()[-1][:200]
    return dict(zip(('dataset','library','system'), job), failed=why)

if __name__=='__main__':
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument('--one', nargs=3)
    p.add_argument('--datasets', nargs='+', choices=list(DATASETS), default=list(DATASETS))
    p.add_argument('--libraries', nargs='+', choices=list(SYSTEMS), default=list(SYSTEMS))
    p.add_argument('--systems', nargs='+')
    args = p.parse_args()
    if args.one: print(json.dumps(one(*args.one))); sys.exit()
    path = RESULTS/'frontier.json'
    old = json.loads(path.read_text(encoding='utf-8'))['runs'] if path.exists() else []
    libraries = [o for o in args.libraries if find_spec(o.lower())]
    for job in [(d,l,s) for d in args.datasets for l in libraries for s in SYSTEMS[l] if not args.systems or s in args.systems]:
        r = start(*job)
        print(job, r.get('failed') or f"ndcg@10 {r['metrics']['ndcg@10']:.4f}, fit {r['fit_cpu_seconds']} s cpu, lists {r['rank_cpu_seconds']} s, {r['peak_memory_mb']:.0f} MB", flush=True)
        old = [o for o in old if (o['dataset'],o['library'],o['system'])!=job]+[r]
        peers = {o: __import__('importlib.metadata').metadata.version(o) for o in ('implicit','cornac') if find_spec(o)}
        write_json(path, dict(limit_cpu_seconds=LIMIT, threads=1, split='random fifth of the rows, seed 42', runs=old, versions={**versions(), **peers}, machine=machine()))
