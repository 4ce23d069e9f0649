"""What arch='auto' comes to with features, with the same shuffled among the items, and without.

    python benchmarks/auto_features.py                           # both data sets, seeds 0 1 2
    python benchmarks/auto_features.py --data ml-1m --seeds 0    # one of them

Each run takes its place in benchmarks/results/auto_features.json as it ends; those that are there stay.

Every row is a positive. A twentieth of the items is held out with all rows (np.random.default_rng(seed).choice(np.sort(ids), len(ids)//20,
replace=False)), and a fifth of the other rows (the same generator, .random(rows) < .2). Warm: NDCG@20 of the held-out rows of known
items, candidates all trained items, the own ones left out, a mean over users with such a row. Cold: NDCG@20 of the held-out items among
themselves. The budget of the choice is counted in processor seconds of one thread, as all seconds here. Films: genres and year; products
of Beauty: their attributes. `share` is the warm mean over that without features, less 1; gains are per user, with 1.96 standard errors.
The seed draws the split, the shuffle, the orders and the weights. Nothing was chosen on these rows. The machine was shared.
"""
import argparse,json,time,warnings
from types import SimpleNamespace

warnings.filterwarnings('ignore')
import numpy as np,torch
from common import RESULTS,machine,versions,write_json
from hybrid import DATA,gain
from recfast import choice as room
from recfast.data.features import Features
from recfast.data.loaders import CollabDataLoaders
from recfast.evaluate import evaluate_recommender
from recfast.learner import collab_learner

BUDGET = 60

def split(df, seed):
    "(positions of train, of warm test rows, of cold ones)"
    rng = np.random.default_rng(seed)
    ids = np.sort(df.item_id.unique())
    cold = df.item_id.isin(rng.choice(ids, len(ids)//20, replace=False)).to_numpy()
    warm = ~cold&(rng.random(len(df))<.2)
    return [np.flatnonzero(o) for o in (~cold&~warm,warm,cold)]

def one(df, items, parts, seed):
    "NDCG@20 by user of warm rows, the mean of cold ones (None without features), the choice, seconds"
    start = time.process_time()
    train,warm,cold = parts
    dls = CollabDataLoaders.implicit_from_df(df, n_neg=0, seed=seed, items=items, splits=(train,np.concatenate([warm,cold])))
    learn = collab_learner(dls, arch='auto', budget=BUDGET, seed=seed)
    with learn.quiet(): learn.fit(1)
    took = time.process_time()-start
    rows,held = dls.interactions('train'),dls.interactions('valid')
    how = dict(k=20, metrics=['ndcg@20'], rated=False, baseline=False, progress=False)
    def value(some, candidates): return evaluate_recommender(learn.model, rows, some, candidates=candidates, **how)
    of_user = value(held[:len(warm)], 'trained').per_user.set_index('user_id')['ndcg@20']
    new = None if items is None else round(float(value(held[len(warm):], 'cold')['ndcg@20']), 4)
    choice = learn.choice.drop(columns=['recipe','metric','part']).round(4)
    return of_user,new,choice.astype(object).where(choice.notna(), None).to_dict('records'),round(took, 1)

def run(name, seed):
    "All three of a seed"
    how = DATA[name]
    df,table = how['rows']().reset_index(drop=True),how['items']()
    parts = split(df, seed)
    shuffled = table.assign(item_id=np.random.default_rng(seed).permutation(table.item_id))
    out = dict(data=name, seed=seed, n_rows=[len(o) for o in parts])
    for kind,t in dict(none=None, real=table, shuffled=shuffled).items():
        of_user,cold,choice,s = one(df, None if t is None else Features(t, **how['about']), parts, seed)
        if t is None: ids = of_user
        taken = next(o['model'] for o in choice if o['chosen'])
        out[kind] = dict(warm=round(float(of_user.mean()), 4), cold=cold, taken=taken, seconds=s, choice=choice)
        if t is not None: out[kind] |= dict(share=round(float(of_user.mean()/ids.mean()-1), 4), gain=gain(of_user, ids.reindex(of_user.index)))
        print(name, seed, kind, {k: v for k,v in out[kind].items() if k!='choice'}, flush=True)
    return out

if __name__=='__main__':
    parser = argparse.ArgumentParser()
    parser.add_argument('--data', nargs='*', choices=list(DATA), default=['beauty','ml-1m'])
    parser.add_argument('--seeds', type=int, nargs='*', default=[0,1,2])
    args = parser.parse_args()
    torch.set_num_threads(1)
    room.time = SimpleNamespace(monotonic=time.process_time)
    about = dict(budget=BUDGET, protocol=__doc__.strip(), versions=versions(), machine=machine())
    path = RESULTS/'auto_features.json'
    for seed in args.seeds:
        for name in args.data:
            new = run(name, seed)
            done = json.loads(path.read_text(encoding='utf-8'))['runs'] if path.exists() else []
            runs = [o for o in done if (o['data'],o['seed'])!=(name,seed)]+[new]
            write_json(path, dict(runs=runs, **about))
