"What arch='auto' chooses, beside every row it could have chosen: six data sets, random and global time splits, each row fitted on all of train and tested once"
import time
import warnings
from types import SimpleNamespace
from common import RESULTS, Timer, arguments, machine, versions, write_json

MORE = 'softmax','ease','ials','rp3beta','itemknn','slim','spectral'
DATA = 'movie-night','sparse','ml-100k','movietweetings','beauty','ml-1m'

def sparse(n_users=8000, n_items=5000, k=3, n_rows=60_000, seed=0):
    "Clicks of people whose taste has three sides: 7 a person, popularity by a power law"
    import numpy as np
    import pandas as pd
    gen = np.random.default_rng(seed)
    people,films = gen.normal(size=(n_users,k)),gen.normal(size=(n_items,k))
    popular = np.log(gen.permutation(np.arange(1, n_items+1)**-.9))
    n = gen.pareto(1.5, n_users)+1
    n = np.maximum(3, n/n.sum()*n_rows).astype(int)
    def liked(u): return np.argsort(-(popular+2.5*films@people[u]/k**.5+gen.gumbel(size=n_items)))[:n[u]]
    met = [liked(u) for u in range(n_users)]
    return pd.DataFrame(dict(user_id=np.repeat(np.arange(n_users), n), item_id=np.concatenate(met)))

def table(name):
    "(frame, does it have times)"
    from recfast import data as D
    made = {'movie-night': D.movie_night, 'sparse': sparse, 'ml-100k': D.ml_100k, 'ml-1m': D.ml_1m, 'movietweetings': D.movietweetings, 'beauty': D.amazon_beauty}
    df = made[name]().rename(columns={'position': 'timestamp'} if name=='beauty' else {})
    keep = [o for o in ('user_id','item_id','rating','timestamp') if o in df]
    return df[keep],name in ('movie-night','ml-100k','ml-1m','movietweetings')

def loaders(df, split, seed):
    "Ratings where there are any, else clicks"
    from recfast.all import CollabDataLoaders
    from recfast.data.split import global_time_split
    how = dict(splits=global_time_split) if split=='time' else dict(valid_pct=.2)
    if 'rating' in df: return CollabDataLoaders.from_df(df, seed=seed, **how)
    return CollabDataLoaders.implicit_from_df(df, seed=seed, **how)

def measure(model, part, dls):
    from recfast.choice import METRIC
    from recfast.evaluate import evaluate_recommender
    train,valid = (dls.interactions(o) for o in ('train','valid'))
    return evaluate_recommender(model, train, valid, k=10, metrics=[METRIC[part]], rated=part=='rater', progress=False, baseline=False)[METRIC[part]]

def rows(learn, seed, known=(), longest=15):
    "Every recipe, and settings of further models, on all of train, measured on the held-out rows; those that are known are kept"
    from recfast.all import collab_learner
    from recfast.choice import cook
    from recfast.recipes import grid, rankers, raters, rating_span, shape_of
    train = learn.dls.interactions('train')
    shape = shape_of(train)
    todo = [('ranker',o) for o in rankers(shape)]+[('rater',o) for o in raters(shape)]*learn.dls.rated
    more = [o for word in MORE for o in grid(word, shape) if o.name not in {r.name for _,r in todo} and o.seconds<longest]
    todo += [('ranker',o) for o in more]
    of = {(o['part'],o['model']): o for o in known}
    found = [of[part,o.name] for part,o in todo if (part,o.name) in of]
    for part,recipe in [(part,o) for part,o in todo if (part,o.name) not in of]:
        with Timer() as t: made = cook(recipe, train, collab_learner, y_range=rating_span(*(train.rating_range or (0,0))), seed=seed)
        found.append(dict(part=part, model=recipe.name, value=float(measure(made.model, part, learn.dls)), seconds=round(t.seconds, 2), cpu_seconds=round(t.cpu_seconds, 2), expected=round(recipe.seconds, 2)))
        print('   ', found[-1], flush=True)
    return found

def run(name, split, budget, known=(), seed=42):
    from torch import get_num_threads
    from recfast import choice as room
    from recfast.all import collab_learner
    warnings.simplefilter('ignore')
    if get_num_threads()==1: room.time = SimpleNamespace(monotonic=time.process_time) # the machine may be shared
    df,_ = table(name)
    dls = loaders(df, split, seed)
    learn = collab_learner(dls, arch='auto', budget=budget, seed=seed)
    with Timer() as t, learn.quiet(): learn.fit(1)
    ours = dict(ranker=float(measure(learn.model, 'ranker', dls)))
    if dls.rated: ours['rater'] = float(measure(learn.model, 'rater', dls))
    choice = learn.choice.drop(columns='recipe').round(5)
    print(name, split, {k: round(v, 4) for k,v in ours.items()}, f'{t.seconds:.0f} s', f'cpu {t.cpu_seconds:.0f} s', '\n', choice.to_string(), flush=True)
    return dict(data=name, split=split, threads=get_num_threads(), budget=budget, seed=seed, auto=ours, seconds=round(t.seconds, 2), cpu_seconds=round(t.cpu_seconds, 2),
        n_users=dls.n_users-1, n_items=dls.n_items-1, n_train=len(dls.interactions('train')), choice=choice.astype(object).where(choice.notna(), None).to_dict('records'), rows=rows(learn, seed, known))

PROTOCOL = ("20% of the rows held out at random (seed 42), or those after the time of the 80th percentile; NDCG@10 of all trained items less the user's own "
    'training rows, every held-out row relevant, untrained items count as misses; RMSE in rating units. auto chooses on a further cut of the training rows; its budget is counted in processor seconds of one thread, with two threads by the clock')

if __name__=='__main__':
    args = arguments(__doc__, datasets=list(DATA), splits=['random','time'], budget=[60], again=[0])
    # --again 1: rows are measured anew, else those of an earlier run are kept
    path = RESULTS/'auto.json'
    import json
    done = json.loads(path.read_text(encoding='utf-8'))['runs'] if path.exists() else []
    for name in args.datasets:
        for split in args.splits:
            if split=='time' and not table(name)[1]: continue
            old = [o for o in done if (o['data'],o['split'])==(name,split)]
            new = run(name, split, args.budget[0], old[0]['rows'] if old and not args.again[0] else ())
            done = [o for o in done if o not in old]+[new]
            write_json(path, dict(protocol=PROTOCOL, runs=done, machine=machine(), versions=versions()))
