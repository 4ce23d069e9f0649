"""Tomorrow's rows: what a model that was trained once is worth on later rows, left as it is, told of what came since, or trained on it.

    python benchmarks/growing.py --choose                 # settings on the first five slices; writes growing__choose.json
    python benchmarks/growing.py                          # both tables with what was chosen; writes growing.json
    python benchmarks/growing.py --tables movietweetings

A table in the order of time is cut into ten slices of as many rows. A model is trained on the first five. Then one slice after the other
comes, and lists are measured on the slice behind it (so on slices 7 to 10): by the model of the first five (stale), by the same after
`add_ratings` of all slices that came, by `collab_learner(dls, like=)` of the day before with one epoch, and by a model trained from the start
on all rows so far (retrained). Every row is relevant, all of a person's rows before are left out as far as the model knows them.
MovieTweetings: lists of `recommend` for everybody with a row before and in the slice; whom a model does not know gets its fallback. An item
that a model does not know is a miss. MovieLens-1M, where nearly everybody comes once: `evaluate_by_history` of people told by all of their
rows so far, which are those of slices before and the earlier half of those in the slice, and measured on the later half.
IALS and EASE learn by `add_ratings`; a dot product under a softmax would fold people in and leave its items as they are, so of it the one
epoch is measured.
NDCG@10, means over people and slices; intervals of paired differences by 1,000 bootstrap draws of people. CPU seconds of one thread: of
loaders and fit, or of add_ratings, each slice's own. Settings are chosen with slices 1 to 4 as training and slice 5 as test, the rate of the
one epoch from a model of slices 1 to 3.
"""
import argparse,os,time,warnings

warnings.filterwarnings('ignore')
import numpy as np,pandas as pd,torch
from common import RESULTS,load_results,machine,versions,write_json
from recfast.by_history import evaluate_by_history
from recfast.data.datasets import ml_1m,movietweetings
from recfast.data.loaders import CollabDataLoaders
from recfast.given_lists import evaluate_lists
from recfast.learner import collab_learner
from recfast.losses import SoftmaxLoss
from recfast.models.dot import DotProduct
from recfast.models.ease import EASE
from recfast.models.ials import IALS
import recfast.more_ratings # noqa: F401 (add_ratings)

START,SLICES = 5,10
TABLES = dict(movietweetings=movietweetings, **{'ml-1m': ml_1m})

def slices(name):
    "Ten frames of user_id and item_id in the order of time"
    df = TABLES[name]()
    by = ['timestamp','position'] if 'position' in df else ['timestamp']
    df = df.sort_values(by, kind='stable')[['user_id','item_id']].reset_index(drop=True)
    return [df.iloc[o].reset_index(drop=True) for o in np.array_split(np.arange(len(df)), SLICES)]

def table(parts): return pd.concat(parts, ignore_index=True)

def timed(f, *args, **kwargs):
    "(what f gives, CPU seconds)"
    start = time.process_time()
    out = f(*args, **kwargs)
    return out,time.process_time()-start

def fit(system, how, parts, like=None, epochs=None, lr=None):
    "A learner of all parts"
    df = table(parts)
    if system=='softmax':
        dls = CollabDataLoaders.implicit_from_df(df, n_neg=0, by_user=True, bs=how['bs'], valid_pct=0, seed=0)
        kwargs = dict(like=like) if like else dict(n_factors=how['n_factors'], arch=DotProduct, loss_func=SoftmaxLoss())
        learn = collab_learner(dls, seed=0, **kwargs)
        with learn.quiet(): learn.fit_one_cycle(epochs or how['epochs'], lr or how['lr'], wd=how['wd'])
        return learn
    dls = CollabDataLoaders.implicit_from_df(df, n_neg=0, valid_pct=0, seed=0)
    arch = dict(EASE=EASE, IALS=IALS)[system]
    learn = collab_learner(dls, how.get('n_factors'), arch=arch, seed=0, config=how['config'])
    with learn.quiet(): learn.fit(how.get('epochs', 1))
    return learn

def by_lists(rec, before, test):
    "Series of NDCG@10 by person, lists of `recommend`"
    people = np.intersect1d(table(before).user_id.unique(), test.user_id.unique())
    lists = rec.recommend(people.tolist(), 10, on_unknown='fallback', progress=False, show=False)
    ev = evaluate_lists(lists, test[test.user_id.isin(people)], k=10, metrics='ndcg')
    return ev.per_user.set_index('user_id')['ndcg@10']

def by_history(rec, before, test):
    "The same of people told by their rows so far"
    later = test.groupby('user_id').cumcount()>=test.groupby('user_id').item_id.transform('size')//2
    told = table([*before,test[~later]])
    told = told[told.user_id.isin(test.user_id[later])]
    ev = evaluate_by_history(rec, test[later], told, k=10, metrics='ndcg', baseline=False, progress=False)
    return ev.per_user.set_index('user_id')['ndcg@10']

MEASURE = {'movietweetings': by_lists, 'ml-1m': by_history}

GRID = { # table and system -> settings to choose among
    ('movietweetings','IALS'): [dict(n_factors=k, epochs=12, config=dict(alpha=a, l2=l2, nu=1.)) for k in (32,128) for a in (.1,.3) for l2 in (.02,.06,.2)],
    ('movietweetings','softmax'): [dict(n_factors=32, bs=1024, epochs=10, lr=lr, wd=wd) for lr in (1e-2,2e-2) for wd in (.1,.3)],
    ('ml-1m','EASE'): [dict(config=dict(l2=l2)) for l2 in (200,500,1000)],
    ('ml-1m','softmax'): [dict(n_factors=64, bs=8192, epochs=n, lr=2e-2, wd=wd) for n in (10,20) for wd in (.1,.3)],
}
RATES = 1e-3,2e-3,5e-3,1e-2,2e-2,5e-2,1e-1

def choose(name, system):
    "What is best on slice 5 when slices 1 to 4 were trained on"
    parts,measure,tried = slices(name),MEASURE[name],[]
    for how in GRID[name,system]:
        learn,cpu = timed(fit, system, how, parts[:START-1])
        tried.append(dict(setting=how, ndcg=float(measure(learn.recommender, parts[:START-1], parts[START-1]).mean()), cpu_seconds=round(cpu, 2)))
        print(name, system, tried[-1], flush=True)
    how = max(tried, key=lambda o: o['ndcg'])['setting']
    if system!='softmax': return dict(table=name, system=system, tried=tried, best=how)
    old,rates = fit(system, how, parts[:START-2]),{}
    for lr in RATES:
        learn = fit(system, how, parts[:START-1], like=old, epochs=1, lr=lr)
        rates[f'{lr:g}'] = float(measure(learn.recommender, parts[:START-1], parts[START-1]).mean())
    print(name, 'one epoch', rates, flush=True)
    return dict(table=name, system=system, tried=tried, rates=rates, best=dict(how, rate=float(max(rates, key=rates.get))))

def ways(system, how, parts, cpu):
    "For every slice that comes: (its number, {way: recommender}); `cpu` gets the seconds of each"
    first,cpu['first'] = timed(fit, system, how, parts[:START])
    old,told = first,first.recommender
    for j in range(START, SLICES-1):
        recs = dict(stale=first.recommender)
        if system!='softmax': # it folds people in and leaves items as they are
            told,s = timed(told.add_ratings, parts[j])
            cpu.setdefault('add_ratings', []).append(s)
            recs['add_ratings'] = told
        else:
            old,s = timed(fit, system, how, parts[:j+1], like=old, epochs=1, lr=how['rate'])
            cpu.setdefault('like', []).append(s)
            recs['like'] = old.recommender
        anew,s = timed(fit, system, how, parts[:j+1])
        cpu.setdefault('retrained', []).append(s)
        recs['retrained'] = anew.recommender
        yield j,recs

def paired(rows, a, b, draws=1000):
    "Mean difference of two ways over people and slices, with its interval"
    by = rows.assign(d=rows[a]-rows[b]).groupby('user_id').d.agg(['sum','size']).to_numpy()
    at = np.random.default_rng(0).integers(0, len(by), (draws,len(by)))
    sums = by[at].sum(1)
    low,high = np.quantile(sums[:,0]/sums[:,1], [.025,.975])
    return dict(difference=round(float((rows[a]-rows[b]).mean()), 5), interval=[round(float(o), 5) for o in (low,high)])

def one(name, system, how):
    "Every way on every slice"
    parts,cpu,rows = slices(name),{},[]
    for j,recs in ways(system, how, parts, cpu):
        of = {way: MEASURE[name](rec, parts[:j+1], parts[j+1]) for way,rec in recs.items()}
        both = pd.DataFrame(of)
        left = int(both.isna().any(axis=1).sum())
        both = both.dropna().reset_index(names='user_id')
        known = both.user_id.isin(table(parts[:START]).user_id)
        rows.append(both.assign(slice=j+2, known=known, left_out=left))
    rows = pd.concat(rows, ignore_index=True)
    names = list(of)
    def means(df): return {k: round(float(v), 4) for k,v in df[names].mean().items()}
    by_slice = [dict(slice=int(n), people=len(o), of_the_first_five=int(o.known.sum()), left_out=int(o.left_out.iloc[0]), ndcg=means(o))
                for n,o in rows.groupby('slice')]
    out = dict(table=name, system=system, setting=how, people=int(rows.user_id.nunique()), people_and_slices=len(rows), ndcg=means(rows),
               ndcg_of_known=means(rows[rows.known]), known=int(rows.known.sum()), by_slice=by_slice)
    new = 'like' if system=='softmax' else 'add_ratings'
    out['differences'] = {f'{new} - stale': paired(rows, new, 'stale'), f'{new} - stale, of known': paired(rows[rows.known], new, 'stale'),
                          f'{new} - retrained': paired(rows, new, 'retrained')}
    out['cpu_seconds'] = {k: [round(o, 2) for o in v] if isinstance(v, list) else round(v, 2) for k,v in cpu.items()}
    total = {k: sum(v) for k,v in cpu.items() if isinstance(v, list)}
    out['share_of_retraining'] = {k: round(v/total['retrained'], 3) for k,v in total.items()}
    return out

if __name__=='__main__':
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--choose', action='store_true')
    parser.add_argument('--tables', nargs='*', default=[])
    args = parser.parse_args()
    torch.set_num_threads(1)
    start = time.process_time()
    asked = [o for o in GRID if not args.tables or o[0] in args.tables]
    if args.choose: found = [choose(*o) for o in asked]
    else:
        chosen = {(o['table'],o['system']): o['best'] for o in load_results('growing__choose.json')[0]['found']}
        found = []
        for o in asked:
            found.append(one(*o, chosen[o]))
            print(found[-1], flush=True)
    facts = dict(seed=0, threads=1, load=[round(o, 1) for o in os.getloadavg()], cpu_seconds=round(time.process_time()-start))
    facts.update(note='the machine was shared with other work', versions=versions(), machine=machine())
    name = 'growing__choose.json' if args.choose else 'growing.json'
    if not args.tables: write_json(RESULTS/name, dict(found=found, protocol=__doc__.strip(), **facts))
