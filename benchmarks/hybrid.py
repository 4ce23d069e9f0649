"""Features beside ids, of things that are known: HybridDot with real features, with the same shuffled among the items, and without.

    python benchmarks/hybrid.py --data ml-1m             # seeds 0 1 2, writes benchmarks/results/hybrid__ml-1m.json after each
    python benchmarks/hybrid.py --data ml-1m --seeds 0   # one seed, printed only

Every row is a positive. A fifth of the rows is held out at random (np.random.default_rng(seed).random(rows) < .2); candidates are all
trained items, the own ones left out; NDCG@20 is a mean over the users with a test row. Softmax over all items; the same settings for
all three, chosen with ids alone on a tenth of the training rows of seed 0. `guarded` has the weight decay of features chosen by the
learner on a tenth of its training rows (guard=True, the default), where 0 leaves them out. Films: genres and year; products of Beauty:
their attributes. The seed draws the split, the weights, the orders and the shuffle. Gains are per user, with 1.96 standard errors.
Seconds are of one thread of the processor (time.process_time), the two trials of the guard included. The machine was shared.
"""
import argparse,time,warnings

warnings.filterwarnings('ignore')
import numpy as np,torch
from common import RESULTS,machine,versions,write_json
from recfast.data.catalogues import amazon_beauty_items,ml_1m_films
from recfast.data.datasets import amazon_beauty,ml_1m
from recfast.data.features import Features
from recfast.data.loaders import CollabDataLoaders
from recfast.learner import collab_learner
from recfast.losses import SoftmaxLoss
from recfast.models.hybrid import HybridDot

def films(): return ml_1m_films().drop(columns='title')
def products(): return amazon_beauty_items().drop(columns='text')

DATA = {
    'ml-1m': dict(rows=ml_1m, items=films, about=dict(multi={'genres': '|'}, cont='year'), k=64, bs=8192, n_epoch=8, lr=2e-2, wd=.3),
    'beauty': dict(rows=amazon_beauty, items=products, about=dict(multi='attributes'), k=32, bs=4096, n_epoch=6, lr=3e-2, wd=.3),
}

def one(df, items, how, test, seed, config):
    "NDCG@20 of every user, what was chosen, and the seconds"
    start = time.process_time()
    dls = CollabDataLoaders.implicit_from_df(df[~test], n_neg=0, by_user=True, bs=how['bs'], seed=seed, valid_pct=0, items=items, cold_items='ignore')
    learn = collab_learner(dls, how['k'], arch=HybridDot, config=config, loss_func=SoftmaxLoss(), cold_tail=False)
    with learn.quiet(): learn.fit_one_cycle(how['n_epoch'], how['lr'], wd=how['wd'])
    took = time.process_time()-start
    ev = learn.evaluate(df[test], k=20, metrics='ndcg', baseline=False)
    found = {f'{wd:g}': round(float(v), 4) for wd,v in getattr(learn, 'guarded', {}).items()}
    return ev.per_user['ndcg@20'],learn.model.wd_features,found,round(took, 1)

def gain(a, b):
    "Mean of a-b, with its interval"
    diff = a-b
    half = 1.96*float(diff.std())/len(diff)**.5
    mean = float(diff.mean())
    return [round(o, 5) for o in (mean,mean-half,mean+half)]

def seed_of(name, seed):
    "All three of a seed"
    how = DATA[name]
    df,table = how['rows'](),how['items']()
    rng = np.random.default_rng(seed)
    test = rng.random(len(df))<.2
    shuffled = table.assign(item_id=rng.permutation(table.item_id))
    ids,_,_,s = one(df, None, how, test, seed, {})
    out = dict(data=name, seed=seed, users=len(ids), ids=round(float(ids.mean()), 4), seconds=dict(ids=s))
    for kind,t in dict(real=table, shuffled=shuffled).items():
        ndcg,wd,found,s = one(df, Features(t, **how['about']), how, test, seed, {})
        out[kind] = dict(ndcg=round(float(ndcg.mean()), 4), gain=gain(ndcg, ids), share=round(float(ndcg.mean()/ids.mean()-1), 4), wd_features=wd, held_out=found)
        out['seconds'][kind] = s
        print(name, seed, kind, out[kind], s, 'ids', out['ids'], out['seconds']['ids'], flush=True)
    return out

if __name__=='__main__':
    parser = argparse.ArgumentParser()
    parser.add_argument('--data', choices=list(DATA), default='ml-1m')
    parser.add_argument('--seeds', type=int, nargs='*', default=[0,1,2])
    args = parser.parse_args()
    torch.set_num_threads(1)
    settings = {o: v for o,v in DATA[args.data].items() if o not in ('rows','items')}
    about = dict(settings=settings, protocol=__doc__.strip(), versions=versions(), machine=machine())
    runs = []
    for s in args.seeds:
        runs.append(seed_of(args.data, s))
        if args.seeds==[0,1,2]: write_json(RESULTS/f'hybrid__{args.data}.json', dict(runs=runs, **about))
