"""Weights of rows on a shop log whose preferences are known: what is bought later, with and without weights.

    python benchmarks/shop_weights.py --seeds 0 1 2

5,000 people and 3,000 articles. What people buy follows their taste, which changes halfway through the year; most of what they view follows
what the shop puts on its front page. Purchases of the last 60 days are to be found, by models that saw the days before.
"""
import contextlib,io,warnings

import numpy as np,pandas as pd
from common import RESULTS,Timer,arguments,machine,versions,write_json
from recfast.data.loaders import CollabDataLoaders
from recfast.data.split import global_time_split
from recfast.learner import collab_learner
from recfast.losses import SoftmaxLoss
from recfast.models.dot import DotProduct
from recfast.models.ials import IALS
from recfast.models.knn import ItemKNN
from recfast.models.linear import EASE

KINDS = dict(view=(24,.4,1.5), cart=(4,1.5,.7), buy=(8,2.5,.5)) # events of a person in half a year, pull of taste, pull of the front page
WORTH = {'view': 1, 'cart': 3, 'buy': 8}
DAY,HALF = 86400,180

def draw(scores, n, rng):
    "[U,n] different articles of each person, by their scores"
    return np.argpartition(-(scores+rng.gumbel(size=scores.shape)), n, axis=1)[:,:n]

def shop_log(seed=0, n_users=5000, n_items=3000, n_tastes=12):
    "A frame user_id, item_id, kind, timestamp"
    rng = np.random.default_rng(seed)
    users,items = rng.normal(size=(n_users,n_tastes)),rng.normal(size=(n_items,n_tastes))/n_tastes**.5
    parts = []
    for half in range(2):
        front = rng.normal(size=n_items)
        for kind,(n,taste,page) in KINDS.items():
            bought = draw(taste*users@items.T+page*front, n, rng)
            times = HALF*half+rng.uniform(0, HALF, bought.shape)
            who = np.repeat(np.arange(n_users), n)
            parts.append(pd.DataFrame(dict(user_id=who, item_id=bought.ravel(), kind=kind, timestamp=(times.ravel()*DAY).astype(np.int64))))
        users = .6*users+.8*rng.normal(size=users.shape) # taste moves on
    return pd.concat(parts, ignore_index=True).sort_values('timestamp', kind='stable', ignore_index=True)

MODELS = {
    'EASE': dict(arch=EASE, config=dict(l2=200.)),
    'ItemKNN': dict(arch=ItemKNN),
    'IALS': dict(arch=IALS, n_factors=64),
    'softmax': dict(arch=DotProduct, n_factors=64, loss_func=SoftmaxLoss()),
}
VARIANTS = {
    'plain': dict(),
    'weights': dict(event_name='kind', event_weights=WORTH),
    'weights and half-life': dict(event_name='kind', event_weights=WORTH, half_life='120d'),
}

def fitted(log, splits, name, how, seed):
    "A learner of `name` on the training part, its rows weighed as `how` says"
    n_neg = dict(n_neg=0, by_user=True, bs=1024) if name=='softmax' else {}
    dls = CollabDataLoaders.implicit_from_df(log, splits=splits, seed=seed, duplicates='sum' if how else 'last', **n_neg, **how)
    learn = collab_learner(dls, seed=seed, **MODELS[name])
    with learn.no_bar(), learn.no_logging(), contextlib.redirect_stdout(io.StringIO()):
        if name=='softmax': learn.fit_one_cycle(12, 1e-2, wd=.1)
        else: learn.fit(10 if name=='IALS' else 1)
    return learn

def run(seed):
    "{model: {variant: ndcg@10 of later purchases, and its gain over the plain rows with the paired interval}}"
    log = shop_log(seed)
    train,later = global_time_split(log, cutoff=300*DAY)
    test = log.iloc[later]
    bought = test[test.kind=='buy'].drop_duplicates(['user_id','item_id'])
    out = {}
    for name in MODELS:
        learners = {v: fitted(log, (train,[]), name, how, seed) for v,how in VARIANTS.items()}
        evs = {v: o.evaluate(bought, k=10, metrics=['ndcg','recall']) for v,o in learners.items()}
        out[name] = {v: dict(ev.summary, interval=list(ev.interval('ndcg@10'))) for v,ev in evs.items()}
        for v in list(VARIANTS)[1:]: out[name][v]['gain'] = paired(evs[v], evs['plain'])
        out[name]['plain']['popularity'] = evs['plain'].baseline['ndcg@10']
        print(seed, name, {v: round(ev['ndcg@10'], 4) for v,ev in evs.items()}, out[name]['weights']['gain'], flush=True)
    return dict(seed=seed, rows=len(log), train=len(train), purchases=len(bought), users=int(bought.user_id.nunique()), models=out)

def paired(ev, other, metric='ndcg@10', n_boot=1000):
    "[mean difference over users, 2.5% and 97.5% of it over users drawn again]"
    both = ev.per_user.set_index('user_id')[metric]-other.per_user.set_index('user_id')[metric]
    v = both.dropna().to_numpy()
    rng = np.random.default_rng(0)
    means = [v[rng.integers(0, len(v), len(v))].mean() for _ in range(n_boot)]
    return [float(v.mean()), *map(float, np.quantile(means, [.025,.975]))]

if __name__=='__main__':
    args = arguments(__doc__, seeds=[0,1,2])
    warnings.filterwarnings('ignore')
    with Timer() as t: runs = [run(seed) for seed in args.seeds]
    protocol = "purchases of the last 60 days, articles the person has not met before, all trained articles ranked"
    write_json(RESULTS/'shop_weights.json', dict(protocol=protocol, weights=WORTH, half_life='120d', runs=runs, seconds=round(t.seconds, 1),
        versions=versions(), machine=machine()))
