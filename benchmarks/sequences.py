"""The next item in closed form: MovieLens-1M, -100k and Beauty, two rows of each user held out, all items ranked, seen left out.

    python benchmarks/sequences.py                     # settings on validation, then the test, all data sets
    python benchmarks/sequences.py --datasets ml-100k  # one of them
    python benchmarks/sequences.py --steps run         # the test only

Of each user the last row is the test, the one before it the validation. Models are fitted without both; settings are chosen by
NDCG@10 on the validation rows, then tested once: the question is all but the last row, the row before it included. `refitted` is
fitted again on all but the last. All trained items are ranked but those that the user has met; one relevant item per user, so recall
is the hit rate. ML-1M: the stable order of `position`, 3,416 items of people with five rows or more; Beauty: the order of its file;
MovieLens-100k: by time, equal times by row, with the interval of the hit rate (bootstrap over users).
What comes by default is tested too where
validation chose otherwise. Nothing is drawn, so there are no seeds. Seconds are of one thread of the processor (time.process_time); scoring is not counted.
"""
import warnings

from common import RESULTS,Timer,arguments,machine,peak_memory_mb,versions,write_json

NAMES = ['ndcg@10','recall@10']
GRID = dict(
    SequentialRules=[{}, *(dict(item_power=p, recency=r) for p,r in ((.3,5.),(0.,5.),(0.,3.),(.1,5.),(.1,2.),(.2,4.)))], # {}: .1 and 3
    TwoSpeedRidge=[{}], MarkovChain=[dict(lags=1)], Popularity=[{}])
SMALL = dict(GRID, TwoSpeedRidge=[dict(slow=w, item_power=p, **l2) for w in (.93,.97) for p in (.1,.3) for l2 in ({},dict(l2=500.),dict(l2=1500.))],
    SequentialRules=[dict(item_power=p, recency=r) for p in (0.,.1,.3,.5) for r in (3.,8.,20.)]) # 100k rows take a moment each
DATA = {'ml-1m': list(GRID), 'beauty': ['SequentialRules','MarkovChain','Popularity'], # 12,101 items are no size for the ridge
    'ml-100k': list(SMALL)}

def rows_of(data):
    "The table in order, and how many rows of its user follow each"
    from recfast.data.datasets import amazon_beauty,ml_100k,ml_1m
    if data=='ml-100k':
        df = ml_100k().sort_values(['user_id','timestamp'], kind='stable').reset_index(drop=True)
        df = df.assign(position=df.groupby('user_id').cumcount())[['user_id','item_id','position']]
        return df,df.groupby('user_id').cumcount(ascending=False).to_numpy()
    df = (ml_1m().dropna(subset=['position']) if data=='ml-1m' else amazon_beauty())[['user_id','item_id','position']]
    df = df.sort_values(['user_id','position'], kind='stable').reset_index(drop=True)
    return df,df.groupby('user_id').cumcount(ascending=False).to_numpy()

def loaders(df, rows, seed=0, **kwargs):
    "Loaders of some rows, with a row for every id there is"
    from recfast.all import CollabDataLoaders
    ids = {o: df[o].unique() for o in ('user_id','item_id')}
    return CollabDataLoaders.sequences_from_df(df[rows], time_name='position', hold_out=False, seed=seed, vocab=ids, **kwargs)

def fit(name, config, dls):
    "A solved model and what it took"
    from recfast.all import find_model
    arch = find_model({'MarkovChain': 'SequentialRules'}.get(name, name))
    model = arch(n_users=dls.n_users, n_items=dls.n_items, **config)
    with Timer() as t: model.solve(dls.interactions('train'), 1)
    return model,t

def measured(model, df, left, last):
    "Metrics of the row that `last` others follow, asked from all before it"
    from recfast.evaluate import evaluate_recommender
    train = loaders(df, left>last).interactions('train')
    if hasattr(model, 'attach'): model.attach(train)
    ev = evaluate_recommender(model, train, df[left==last], k=10, metrics=NAMES, baseline=False, progress=False)
    interval = dict(zip(('low','high'), (round(o, 5) for o in ev.interval('recall@10'))))
    return dict({o: round(ev.summary[o], 5) for o in NAMES}, **{'recall@10 interval': interval}),ev.protocol

def trials(name, df, left, grid):
    "Every setting on the validation rows"
    out = []
    for config in grid[name]:
        model,t = fit(name, config, loaders(df, left>1))
        out.append(dict(config=config, cpu_seconds=round(t.cpu_seconds, 1), **measured(model, df, left, 1)[0]))
        print(' ', name, out[-1], flush=True)
    return out

def tested(name, config, df, left):
    "One setting on the test rows, fitted without both held-out rows and without the last only"
    out = {}
    for column,least in dict(test=1, refitted=0).items():
        model,t = fit(name, config, loaders(df, left>least))
        metrics,words = measured(model, df, left, 0)
        out[column] = dict(cpu_seconds=round(t.cpu_seconds, 1), **metrics)
    print(' ', name, config, out, flush=True)
    return dict(config=config, protocol=words, **out)

def main(datasets, steps):
    import json,torch
    torch.set_num_threads(1)
    warnings.simplefilter('ignore')
    for data in datasets:
        path = RESULTS/f'sequences__{data}.json'
        found = json.loads(path.read_text(encoding='utf-8'))['models'] if path.exists() else {}
        df,left = rows_of(data)
        for name in DATA[data]:
            mine = found.setdefault(name, {})
            if 'choose' in steps: mine['trials'] = trials(name, df, left, SMALL if data=='ml-100k' else GRID)
            if 'run' not in steps: continue
            best = max(mine['trials'], key=lambda o: o['ndcg@10'])['config']
            mine['tests'] = [tested(name, o, df, left) for o in (best, {})[:1+bool(best and len(mine['trials'])>1)]]
        sizes = dict(rows=len(df), users=df.user_id.nunique(), items=df.item_id.nunique())
        write_json(path, dict(dataset=data, sizes=sizes, models=found, protocol=__doc__.strip(), peak_memory_mb=peak_memory_mb(), threads=1,
                              versions=versions(), machine=machine()))

if __name__=='__main__':
    args = arguments(__doc__, datasets=list(DATA), steps=['choose','run'])
    main(args.datasets, args.steps)
