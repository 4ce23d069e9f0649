"""What an index of items (recfast.ann) finds of the exact lists, and what it takes, on real data and on catalogues made larger.

    python benchmarks/ann.py                  # both parts
    python benchmarks/ann.py --part real

real: MovieLens-1M and MovieTweetings-100k, a dot product trained on ratings and one trained on clicks under BPR, iALS; lists of ten
without what was seen, for 1,000 users at once and for one at a time (medians), exactly and by the index at two efforts. made: the
trained vectors of MovieLens-1M with noise of half their spread, as many as there are items; nothing was seen. One thread; seconds are the processor's.
"""
import argparse,statistics,time,warnings

warnings.filterwarnings('ignore')
import numpy as np,pandas as pd,torch
from common import RESULTS,machine,versions,write_json
from recfast.data.datasets import ml_1m,movietweetings
from recfast.data.loaders import CollabDataLoaders
from recfast.learner import collab_learner
from recfast.losses import BPRLoss
from recfast.models.dot import DotProductBias
from recfast.models.ials import IALS
from recfast.recommend import Recommender

EFFORTS = 32,128
K = 10

def trained(df, kind):
    "A recommender"
    if kind=='ratings':
        dls,how = CollabDataLoaders.from_df(df, bs=1024, seed=42),dict(y_range=(0,float(df.rating.max())*1.1))
    else:
        dls = CollabDataLoaders.implicit_from_df(df.drop(columns='rating'), n_neg=4, bs=1024, seed=42)
        how = dict(loss_func=BPRLoss()) if kind=='bpr' else dict(arch=IALS)
    learn = collab_learner(dls, n_factors=50, **how)
    with learn.quiet():
        if kind=='ials': learn.fit(5)
        else: learn.fit_one_cycle(5, 5e-3, wd=.1 if kind=='ratings' else .01)
    return learn.recommender

def seconds(f, *args, repeats=3):
    "Median of some calls, of processor time: it hardly depends on what else the machine does"
    took = []
    for _ in range(repeats):
        start = time.process_time()
        f(*args)
        took.append(time.process_time()-start)
    return statistics.median(took)

def measured(rec, exclude_seen=True, efforts=EFFORTS):
    "Exact lists and those by an index"
    users = np.random.default_rng(0).permutation(np.flatnonzero(rec.known('user')))[:1000]
    one = users[:50]
    def each(r):
        for u in one: r.lists(np.array([u]), K, exclude_seen=exclude_seen)
    exact = dict(ms_per_user=seconds(lambda: rec.lists(users, K, exclude_seen=exclude_seen))*1e3/len(users), ms_alone=seconds(lambda: each(rec), repeats=3)*1e3/len(one))
    rows = []
    for effort in efforts:
        start = time.process_time()
        indexed = rec.with_index(effort=effort)
        built = time.process_time()-start
        fast = dict(ms_per_user=seconds(lambda: indexed.lists(users, K, exclude_seen=exclude_seen))*1e3/len(users), ms_alone=seconds(lambda: each(indexed), repeats=3)*1e3/len(one))
        rows.append(dict(effort=effort, built_s=round(built, 2), recall=round(indexed.recall(K), 4), **{k: round(v, 4) for k,v in fast.items()}))
        print(rows[-1], flush=True)
    return dict(users=rec.n_users-1, items=rec.n_items-1, exact={k: round(v, 4) for k,v in exact.items()}, index=rows)

def real():
    out = {}
    for name,df in (('ml-1m',ml_1m()),('movietweetings-100k',movietweetings())):
        df = df[['user_id','item_id','rating']]
        for kind in ('ratings','bpr','ials'):
            print(name, kind, flush=True)
            out[f'{name} {kind}'] = measured(trained(df, kind))
    return out

def larger(rec, n, seed=0):
    "A recommender of `n` items, whose vectors are those of trained ones with noise"
    gen = torch.Generator().manual_seed(seed)
    users = rec.n_users-1
    df = pd.DataFrame({'user_id': np.arange(max(n, users))%users, 'item_id': np.arange(max(n, users))%n, 'rating': 1.})
    dls = CollabDataLoaders.from_df(df, seed=0, valid_pct=0, bs=1024)
    model = DotProductBias(n_users=users+1, n_items=n+1, n_factors=50)
    old = rec.model
    with torch.no_grad():
        model.u_weight.weight.copy_(old.u_weight.weight)
        at = torch.randint(1, rec.n_items, (n+1,), generator=gen)
        for name in ('i_weight','i_bias'):
            table = getattr(old, name).weight
            getattr(model, name).weight.copy_(table[at]+.5*table[1:].std(0)*torch.randn(n+1, table.shape[1], generator=gen))
    return Recommender(model, dls.interactions('all'))

def made():
    rec,out = trained(ml_1m()[['user_id','item_id','rating']], 'bpr'),{}
    for n in (20_000,60_000):
        print(f'{n:,} items', flush=True)
        out[f'{n} items'] = measured(larger(rec, n), exclude_seen=False, efforts=EFFORTS[1:])
    return out

if __name__=='__main__':
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument('--part', nargs='+', choices=['real','made'], default=['real','made'])
    parts = p.parse_args().part
    torch.set_num_threads(1)
    import usearch
    for part in parts:
        found = real() if part=='real' else made()
        res = dict(part=part, k=K, threads=1, load='the machine was shared with other work; times are those of the processor',
                   protocol='recall: mean share of the items of the exact list of 1,000 users that the list by the index holds', found=found,
                   versions={**versions(),'usearch': usearch.__version__}, machine=machine())
        print(write_json(RESULTS/f'ann__{part}.json', res))
