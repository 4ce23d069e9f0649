"""Fold-in of new users on MovieLens-100k: 100 held-out users, half of their ratings given, RMSE on the other half.

    python benchmarks/fold_in.py --seeds 0 1 2

Beside it: the model trained with those histories, and a user vector that is the mean of the liked items' vectors.
"""
import contextlib,io,statistics,time,warnings

warnings.filterwarnings('ignore', category=FutureWarning)
import numpy as np,torch
from common import RESULTS,arguments,machine,versions, write_json
from recfast.data.datasets import ml_100k
from recfast.data.loaders import CollabDataLoaders
from recfast.learner import collab_learner

def fit(df, rows, seed):
    "DotProductBias as in R1d"
    dls = CollabDataLoaders.from_df(df, item_name='title', bs=64, seed=seed, splits=(np.flatnonzero(rows),[]))
    learn = collab_learner(dls, n_factors=50, y_range=(0,5.5))
    with learn.no_bar(), learn.no_logging(), contextlib.redirect_stdout(io.StringIO()): learn.fit_one_cycle(5, 5e-3, wd=0.1)
    return learn

def rmse(pairs):
    "Of (predictions, ratings) arrays"
    p,r = (np.concatenate(o) for o in zip(*pairs))
    return float(np.sqrt(np.mean((p-r)**2)))

def liked_mean(rec, rows, ratings):
    "[I] scores of a user whose vector is the mean of the vectors of items rated 4 or more, with the mean user bias"
    m,(low,high) = rec.model,rec.model.y_range
    with torch.no_grad():
        liked = rows[ratings>=4]
        u = m.i_weight.weight[liked].mean(0) if len(liked) else torch.zeros(m.i_weight.weight.shape[1])
        return (low+(high-low)*torch.sigmoid(m.i_weight.weight@u + m.i_bias.weight[:,0] + m.u_bias.weight[1:].mean())).numpy()

def run(seed, n_users=100):
    "One seed: RMSE of the three, and milliseconds of a `recommend(history=)` call"
    df,rs = ml_100k(),np.random.RandomState(seed)
    held = df.user_id.isin(rs.permutation(df.user_id.unique())[:n_users]).to_numpy()
    given = held & (rs.rand(len(df))<0.5)
    asked = held & ~given
    without,with_ = (fit(df, rows, seed) for rows in (~held,~asked))
    rec,item = without.recommender,with_.dls.item_vocab
    parts = {'fold_in': [], 'liked_mean': [], 'retrained': []}
    histories,ms = [],[]
    for user in df.user_id[held].unique():
        h,t = df[given&(df.user_id==user)],df[asked&(df.user_id==user)]
        h,t = h[h.title.isin(rec.items.index)],t[t.title.isin(rec.items.index)&t.title.isin(item.index)]
        if not len(t): continue
        history,rows,r = dict(zip(h.title, h.rating)),torch.from_numpy(rec.items.encode(t.title)),t.rating.to_numpy(float)
        histories.append(history)
        parts['fold_in'].append((rec.score_history(rec._histories(history, 'raise'))[0].detach().numpy()[rows], r))
        known = torch.from_numpy(rec.items.encode(h.title))
        parts['liked_mean'].append((liked_mean(rec, known, h.rating.to_numpy(float))[rows], r))
        parts['retrained'].append((with_.predict(user, list(t.title)) if len(h) else np.full(len(t), df.rating[~held].mean()), r))
    for history in histories: # one after the other, as a service would answer
        start,cpu = time.perf_counter(),time.process_time()
        without.recommend(history=history, k=10)
        ms.append((1e3*(time.perf_counter()-start),1e3*(time.process_time()-cpu)))
    return dict(seed=seed, users=len(ms), **{k: rmse(v) for k,v in parts.items()}, **{f"{n}_median": float(np.median(o)) for n,o in zip(("ms","cpu_ms"), zip(*ms))})

if __name__=='__main__':
    args = arguments(__doc__, seeds=list(range(3)))
    torch.set_num_threads(args.threads)
    runs = [run(s) for s in args.seeds]
    for r in runs: print(r)
    mean = {k: statistics.mean(r[k] for r in runs) for k in ('fold_in','retrained','liked_mean','ms_median','cpu_ms_median')}
    res = dict(runs=runs, mean=mean, above_retrained=mean['fold_in']-mean['retrained'], threads=args.threads, machine=machine(), versions=versions(),
               protocol='100 held-out users; half of their ratings at random given, RMSE on the other half, items known to both models; DotProductBias as R1d')
    print(mean)
    write_json(RESULTS/'fold_in.json', res)
