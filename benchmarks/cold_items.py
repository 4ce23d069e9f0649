"""Items that nobody met: MovieLens-1M with a tenth of its films held out, by seeds, and lists of warm films beside the tail.

    python benchmarks/cold_items.py            # seeds 0 1 2, writes benchmarks/results/cold_items.json
    python benchmarks/cold_items.py --seeds 0
    python benchmarks/cold_items.py --choose   # the level of the tail, on rows of no test; writes cold_items__choose.json

Every rating is a positive. Held out are the films of np.random.default_rng(s).choice(np.sort(ids), len(ids)//10, replace=False);
candidates are these films, NDCG@20 is a mean over the users with one of them. EASE (l2 500) with the tail it gets from genres and
years against: cosines of genres and of the year in 20 hats as they are (knn), the same with the rare counting more (knn_idf, what
the tail itself uses), popularity by ridge on features, and the scores of EASE regressed on the same features at a fixed ridge
(reference: lambda 50). Seconds are those of the whole model: loaders, fit, tail. A last part holds out a fifth of the other rows
too (all films are candidates), with and without the tail. Chosen on training rows only; the test is read once. Two threads, of which `cpu_seconds` is the sum.

The level at which cold items stand in lists (`doubt`, deviations below that of the model) is chosen for solved and for other models
on rows that stand in no test of seeds 0 to 2: neither of their films nor of their fifths. Of these a tenth of the films and a fifth
of the other rows are held out by seeds of their own, 10 and 11, and the gain in NDCG@20 of lists of all films but those of
the tests is measured.
"""
import argparse,os,sys,time,warnings

warnings.filterwarnings('ignore')
import numpy as np,torch
from scipy.sparse import hstack
from common import RESULTS,machine,versions,write_json
from recfast.data.catalogues import ml_1m_films
from recfast.data.datasets import ml_1m
from recfast.data.encoding import unit_rows
from recfast.data.loaders import CollabDataLoaders
from recfast.data.new_items import held_out_items
from recfast.learner import collab_learner
from recfast.losses import SoftmaxLoss
from recfast.models.base import score_items
from recfast.models.dot import DotProduct
from recfast.models.ease import EASE
from recfast.models.maps import found,nearness
from recfast.models.tail import tail_of

def held_out(df, s): return np.sort(df.item_id.iloc[held_out_items(df, seed=s)[1]].unique())

def fitted(df, films, train, valid, **kwargs):
    "A solved learner with its seconds"
    start = time.perf_counter(),time.process_time()
    dls = CollabDataLoaders.implicit_from_df(df, n_neg=0, splits=(train,valid), items=films)
    learn = collab_learner(dls, arch=EASE, config=dict(l2=500), **kwargs)
    with learn.quiet(): learn.fit(1)
    return learn,start

def since(start): return [round(b-a, 2) for a,b in zip(start, (time.perf_counter(),time.process_time()))]

def ridge(F_w, F_c, Y, mu=50):
    "Y [.,n] regressed on features of the known, for the others"
    G = (F_w.T@F_w).toarray()+mu*np.eye(F_w.shape[1])
    return (F_w.T@Y.T).T@np.linalg.solve(G, F_c.T.toarray())

def one(df, films, s):
    "NDCG@20 of every way, and the seconds of ours"
    cold = df.item_id.isin(held_out(df, s)).to_numpy()
    learn,start = fitted(df, films, np.flatnonzero(~cold), np.flatnonzero(cold))
    ids = held_out(df, s)
    ev = learn.evaluate(k=20, candidates=ids, metrics='ndcg', baseline=False)
    took = since(start)
    train = learn.dls.interactions('train')
    table,rows = learn.dls.features('item'),learn.dls.classes['item_id'].encode(ids)
    warm,X = np.flatnonzero(train.trained('item')),train.csr()
    users = np.flatnonzero(learn.dls.interactions('valid').counts('user'))
    wanted = learn.dls.interactions('valid').csr()[users][:,rows].toarray()>0
    plain = unit_rows(hstack([table.csr,table.hats[0]]))
    near = lambda d: found(nearness(X[users], d, d[rows]), wanted)
    F_w,F_c = table.linear[warm],table.linear[rows]
    popular = ridge(F_w, F_c, np.log1p(train.counts('item')[warm])[None])
    own = score_items(learn.model, torch.from_numpy(users), train.n_items, cold=False).double().numpy()
    both = score_items(learn.model, torch.from_numpy(users), train.n_items).double().numpy()
    same = bool((own[:,warm]==both[:,warm]).all())
    ndcg = dict(tail=ev['ndcg@20'], tail_by_hand=found(both[:,rows], wanted), knn=near(plain), knn_idf=near(table.directions),
                popularity=found(np.repeat(popular, len(users), 0), wanted), reference=found(ridge(F_w, F_c, own[:,warm]), wanted))
    how = list(learn.model.cold_tail._kept['choice'])[1]
    return dict(seed=s, ndcg={k: round(float(v), 4) for k,v in ndcg.items()}, over_knn=round(ndcg['tail']/ndcg['knn'], 3),
                below_reference=round(ndcg['reference']-ndcg['tail'], 4), wall_seconds=took[0], cpu_seconds=took[1], warm_scores_equal=same,
                choice={k: round(float(v), 4) for k,v in how._asdict().items()})

def everything(df, films, s):
    "A fifth of the other rows held out too: lists of all films with the tail and without, per user"
    cold = df.item_id.isin(held_out(df, s)).to_numpy()
    more = np.random.default_rng(100+s).random(len(df))<.2
    learn,_ = fitted(df, films, np.flatnonzero(~cold&~more), np.flatnonzero(cold|more))
    how = dict(k=20, metrics='ndcg', baseline=False)
    ids = learn.recommender.known_ids('item')
    alone,both = learn.evaluate(candidates='trained', **how),learn.evaluate(candidates='all', **how)
    diff = both.per_user['ndcg@20']-alone.per_user['ndcg@20']
    half = 1.96*float(diff.std())/len(diff)**.5
    warm = df[~cold&more]
    lists = [learn.evaluate(warm, candidates=o, **how)['ndcg@20'] for o in ('trained',ids)]
    return dict(seed=s, ids_only=round(alone['ndcg@20'], 4), with_tail=round(both['ndcg@20'], 4), gain=round(float(diff.mean()), 4),
                interval=[round(float(diff.mean())-half, 4),round(float(diff.mean())+half, 4)], warm_only=[round(o, 4) for o in lists])

DOUBTS = -.5,0.,.5,1.,1.5,2.

def no_test(df):
    "The rows that stand in no test"
    cold = np.concatenate([held_out(df, s) for s in (0,1,2)])
    fifths = np.any([np.random.default_rng(100+s).random(len(df))<.2 for s in (0,1,2)], 0)
    return df[~df.item_id.isin(cold).to_numpy()&~fifths].reset_index(drop=True)

def gains(learn):
    "What the tail brings to lists of all films at each level, and how much of it is beyond chance"
    how = dict(k=20, metrics='ndcg', baseline=False)
    alone,tail,out = learn.evaluate(candidates='trained', **how).per_user['ndcg@20'],learn.model.cold_tail,{}
    for d in DOUBTS:
        learn.model.cold_tail = tail_of(learn.model, learn.dls.interactions('train'), tail.rated, tail.y_range, d)
        diff = learn.evaluate(candidates='all', **how).per_user['ndcg@20']-alone
        out[f'{d:g}'] = [round(float(o), 5) for o in (diff.mean(),diff.sem())]
    return out

def choose(df, films, s):
    "Gains by level of a solved model and of one trained under a softmax"
    ids,df = df.item_id.unique(),no_test(df)
    films = films[films.item_id.isin(df.item_id)|~films.item_id.isin(ids)] # those of a test are nobody's candidates here
    cold = df.item_id.isin(held_out(df, s)).to_numpy()
    more = np.random.default_rng(100+s).random(len(df))<.2
    splits = np.flatnonzero(~cold&~more),np.flatnonzero(cold|more)
    solved = fitted(df, films, *splits)[0]
    dls = CollabDataLoaders.implicit_from_df(df, n_neg=0, by_user=True, bs=8192, seed=s, splits=splits, items=films)
    trained = collab_learner(dls, 64, arch=DotProduct, loss_func=SoftmaxLoss())
    with trained.quiet(): trained.fit_one_cycle(12, 2e-2, wd=.3)
    return dict(seed=s, rows=len(df), solved=gains(solved), trained=gains(trained))

if __name__=='__main__':
    parser = argparse.ArgumentParser()
    parser.add_argument('--seeds', type=int, nargs='*', default=[0,1,2])
    parser.add_argument('--choose', action='store_true')
    parser.add_argument('--threads', type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    df,films = ml_1m(),ml_1m_films()
    if args.choose:
        found = [choose(df, films, s) for s in (10,11)]
        for o in found: print(o, flush=True)
        write_json(RESULTS/'cold_items__choose.json', dict(found=found, protocol=__doc__.strip(), versions=versions(), machine=machine()))
        sys.exit()
    cold,all_ = [],[]
    for s in args.seeds:
        cold.append(one(df, films, s))
        print(cold[-1], flush=True)
        all_.append(everything(df, films, s))
        print(all_[-1], flush=True)
    load = [round(o, 1) for o in os.getloadavg()]
    res = dict(threads=args.threads, cold=cold, all_items=all_, protocol=__doc__.strip(), load=load, note='the machine was shared with other work',
               versions=versions(), machine=machine())
    if args.seeds==[0,1,2]: write_json(RESULTS/'cold_items.json', res)
