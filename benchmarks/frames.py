"""What a frame of another kind costs: processor seconds of `CollabDataLoaders.from_df` (and `from_csr`) of five million rows, over those of pandas.

    OMP_NUM_THREADS=1 python benchmarks/frames.py

Every run stands beside one of pandas; the ratio is the median over the pairs, and processor seconds hardly depend on what else the machine does. Reading the frame is part of it, making it is not.
"""
import argparse,gc,statistics,warnings

warnings.filterwarnings('ignore')
import duckdb,numpy as np,pandas as pd,polars as pl,pyarrow as pa
from scipy.sparse import csr_matrix
from common import RESULTS,Timer,machine,peak_memory_mb,versions,write_json
from recfast.data.loaders import CollabDataLoaders

def table(n, n_users, n_items, text):
    "n different pairs, in the order of users, as a sparse matrix has them"
    rng = np.random.default_rng(0)
    at = np.unique(rng.integers(0, n_users*n_items, int(n*1.02)))
    at = np.sort(rng.choice(at, n, replace=False))
    df = pd.DataFrame(dict(user_id=at//n_items, item_id=at%n_items, rating=rng.integers(1, 11, n)/2))
    return df.astype(dict(user_id=str, item_id=str)) if text else df

def arrow(df): return pa.Table.from_pandas(df, preserve_index=False)
def csr(df): return csr_matrix((df.rating, (df.user_id,df.item_id)))
KINDS = dict(arrow=arrow, polars=lambda df: pl.from_arrow(arrow(df)), duckdb=lambda df: duckdb.from_arrow(arrow(df)), csr=csr)

def build(data, kind):
    "Processor seconds to loaders, and those of the clock"
    gc.collect()
    with Timer() as t:
        if kind=='csr': CollabDataLoaders.from_csr(data, rated=True, bs=8192, seed=1)
        else: CollabDataLoaders.from_df(data, bs=8192, seed=1)
    return t.cpu_seconds,t.seconds

def measure(df, kind, repeats):
    "A row of the result: a kind beside pandas"
    data = KINDS[kind](df)
    build(data, kind)
    pairs = [(build(df, 'pandas'),build(data, kind)) for _ in range(repeats)]
    def median(of, unit): return round(statistics.median(o[of][unit] for o in pairs), 3)
    ratios = [round(b[0]/a[0], 3) for a,b in pairs]
    return dict(kind=kind, pandas_cpu_s=median(0, 0), cpu_s=median(1, 0), pandas_s=median(0, 1), seconds=median(1, 1),
                ratio=statistics.median(ratios), ratios=ratios)

if __name__=='__main__':
    p = argparse.ArgumentParser()
    p.add_argument('--rows', type=int, default=5_000_000)
    p.add_argument('--repeats', type=int, default=5)
    args = p.parse_args()
    rows = []
    for ids in ('int','text'):
        df = table(args.rows, 100_000, 20_000, ids=='text')
        for kind in KINDS:
            if kind=='csr' and ids=='text': continue # a matrix has numbers
            rows.append(dict(ids=ids, **measure(df, kind, args.repeats)))
            print(rows[-1], flush=True)
    res = dict(n_rows=args.rows, users=100_000, items=20_000, repeats=args.repeats, rows=rows, peak_memory_mb=peak_memory_mb(),
               versions=versions()|{o.__name__: o.__version__ for o in (pl,duckdb,pa)}, machine=machine())
    print(write_json(RESULTS/'frames.json', res).name)
