"""Lists of another library on the rows of the experiment, for an environment of its own (pip install implicit pandas pyarrow; nothing of recfast is imported):
python peer.py FOLDER, after `recfast run exp.toml --write-split FOLDER`. Eight settings (around the best of some thirty that were looked at before, on the same rows) are tried on the rows marked is_valid, the best is trained on all rows of
train.parquet with three seeds, and lists of ten go to FOLDER/implicit-SEED.parquet"""
import sys, time
from itertools import product
from pathlib import Path
import implicit
import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix

def matrix(df, users, items): # [U,I] of ones
    X = csr_matrix((np.ones(len(df), np.float32), (users.get_indexer(df.user_id),items.get_indexer(df.item_id))), (len(users),len(items)))
    X.data[:] = 1
    return X

def best_ten(X, seed, factors, regularization, alpha):
    model = implicit.als.AlternatingLeastSquares(factors, regularization=regularization, alpha=alpha, iterations=15, random_state=seed, num_threads=1)
    model.fit(X, show_progress=False)
    return model.recommend(np.arange(X.shape[0]), X, N=10, filter_already_liked_items=True)[0]

def ndcg(lists, truth):
    "NDCG@10 over those who have something to find"
    gain,values = 1/np.log2(np.arange(10)+2),[]
    for u in np.flatnonzero(np.diff(truth.indptr)):
        mine = truth.indices[truth.indptr[u]:truth.indptr[u+1]]
        values.append(np.isin(lists[u], mine)@gain/gain[:min(10, len(mine))].sum())
    return float(np.mean(values))

if __name__=='__main__':
    folder = Path(sys.argv[1])
    df = pd.read_parquet(folder/'train.parquet')
    users,items = pd.Index(df.user_id.unique()),pd.Index(df.item_id.unique())
    learn,valid,whole = (matrix(o, users, items) for o in (df[~df.is_valid],df[df.is_valid],df))
    start,tried = time.perf_counter(),{}
    for setting in product((16,24), (1.,5.), (.5,1.)): tried[setting] = ndcg(best_ten(learn, 0, *setting), valid)
    best = max(tried, key=tried.get)
    for seed in (0,1,2):
        lists = best_ten(whole, seed, *best)
        rows = dict(user_id=np.repeat(users, 10), item_id=items[lists.ravel()], rank=np.tile(np.arange(1, 11), len(users)))
        pd.DataFrame(rows).to_parquet(folder/f'implicit-{seed}.parquet', index=False)
    print(f'implicit {implicit.__version__}, ALS: factors {best[0]}, regularization {best[1]}, alpha {best[2]}, of {len(tried)} tried; {time.perf_counter()-start:.0f} s')
