"""EASE without settings beside the published model, on four data sets: lambda and powers are looked at on a validation part of train, each row is tested once
on all of train; one JSON a data set"""
import warnings
from common import RESULTS, Timer, arguments, machine, run_jobs, versions, write_json

PUBLISHED = [dict(l2=o) for o in (60.,200.,500.,1000.)]
RULES = [dict(times=t, user_power=c, ridge_power=0., item_power=s) for t in (4.,8.,16.) for c,s in ((0.,0.),(.5,.1),(.5,.2))] # l2 = times * users of a mean item
SETTINGS = {'ml-100k': PUBLISHED+RULES, 'ml-1m': PUBLISHED+RULES, 'movietweetings': PUBLISHED[:3]+RULES, 'beauty': PUBLISHED[:3]+RULES[3:5]}
PROTOCOL = ('a random fifth of the rows is tested on (seed 42), a random fifth of what is left is the validation part (seed 1); every row is relevant, stars are not read; all '
    'trained items less the own ones are candidates; NDCG with the ideal list over min(10, relevant)')

def table(name):
    from recfast import all as R
    from recfast.data import datasets
    make = {'ml-100k': R.ml_100k, 'ml-1m': datasets.ml_1m, 'movietweetings': datasets.movietweetings, 'beauty': datasets.amazon_beauty}[name]
    return make()[['user_id','item_id']].drop_duplicates().reset_index(drop=True)

def parts(df, choose):
    "(train, test), or the validation part of train"
    import numpy as np
    for seed in (42,1)[:1+choose]:
        order = np.random.default_rng(seed).permutation(len(df))
        n = len(df)//5
        df,test = (df.iloc[np.sort(o)].reset_index(drop=True) for o in (order[n:],order[:n]))
    return df,test

def one(train, test, arch='EASE', n_epoch=1, n_factors=50, **config):
    "({metric: value}, seconds, what was used)"
    from recfast import all as R
    dls = R.CollabDataLoaders.implicit_from_df(train, n_neg=0, valid_pct=0, seed=0, bs=512)
    if arch=='EASE': config['double'] = False
    if 'times' in config: config['l2'] = config.pop('times')*len(train)/train.item_id.nunique()
    learn = R.collab_learner(dls, n_factors=n_factors, arch=R.find_model(arch), config=config)
    with Timer() as t, learn.no_bar(), learn.no_logging(): learn.fit(n_epoch)
    ev = learn.evaluate(test, metrics=['ndcg@10','recall@10'], baseline=False)
    return ev.summary,t,learn

def run(name):
    "All rows of a data set"
    warnings.simplefilter('ignore')
    df = table(name)
    tried = []
    for s in [*SETTINGS[name],{}]:
        metrics,t,_ = one(*parts(df, True), **s)
        tried.append(dict(setting=s, metrics=metrics, cpu_seconds=round(t.cpu_seconds, 2)))
        print(name, s, round(metrics['ndcg@10'], 4), round(t.cpu_seconds, 1), flush=True)
    best = max((o for o in tried if o['setting'] in PUBLISHED), key=lambda o: o['metrics']['ndcg@10'])['setting']
    tested = {}
    for row,s in dict(popularity=dict(arch='Popularity'), published=best, defaults={}).items():
        metrics,t,learn = one(*parts(df, False), **s)
        tested[row] = dict(setting=s, metrics=metrics, cpu_seconds=round(t.cpu_seconds, 2), seconds=round(t.seconds, 2))
        if row=='defaults': tested[row]['used'] = learn.model.settings(learn.dls.interactions('train').csr())
    write_json(RESULTS/f'ease-defaults__{name}.json', dict(dataset=name, rows=len(df), users=int(df.user_id.nunique()), items=int(df.item_id.nunique()),
        protocol=PROTOCOL, tried=tried, tested=tested, versions=versions(), machine=machine()))
    return f"{name}: "+', '.join(f"{k} {o['metrics']['ndcg@10']:.4f}" for k,o in tested.items())

if __name__=='__main__':
    args = arguments(__doc__, datasets=list(SETTINGS))
    run_jobs(run, [(o,) for o in args.datasets], args.threads)
