"MovieLens-1M, every rating a click: MultVAE beside EASE and popularity, settings chosen on a validation part, refitted, tested once, seeds where random"
import json, warnings
from common import RESULTS, Timer, arguments, machine, peak_memory_mb, versions, write_json

NAMES = ['ndcg@20','ndcg@10','recall@20']
PROTOCOL = ("10% of each user's rows at random (seed 42) are the test, a ninth of the others (seed 42 again) the validation: 80/10/10; every rating is a click; settings "
    'chosen by ndcg@20 on the validation rows, fitted again on the other 90%, tested once; all trained items less the own ones are candidates')
VAE = dict(arch='MultVAE', n_factors=200, config=dict(hidden=600), bs=200, n_epoch=40, lr_max=4e-3, wd=.3, loss=dict(beta=.2, anneal=20))

def ease(l2): return dict(arch='EASE', config=dict(l2=l2, user_power=0, ridge_power=0, item_power=0))

GRID = {
    'Popularity': [dict(arch='Popularity')],
    'EASE, as it comes': [dict(arch='EASE')],
    'EASE, l2 tuned': [ease(o) for o in (200,500,1000,2000)],
    'MultVAE': [{**VAE, 'wd': w, 'loss': dict(beta=b, anneal=20), 'config': dict(hidden=h, dropout=d)} for w,b,d,h in ((.3,.2,.5,600),(.3,.2,.7,600),(.3,.5,.5,600),(.3,.2,.7,1000))]}

def parts():
    "(80% of the rows, validation rows, the 90% of both, test rows)"
    from recfast.all import ml_1m,user_split
    df = ml_1m().assign(rating=1.)
    rest,test = (df.iloc[o].reset_index(drop=True) for o in user_split(df, .1, seed=42))
    train,valid = (rest.iloc[o].reset_index(drop=True) for o in user_split(rest, 1/9, seed=42))
    return train,valid,rest,test

def fit(train, seed, arch, n_factors=50, config=None, bs=500, loss=None, **fit):
    "A fitted learner and what it took"
    from recfast import all as R
    from recfast.models.vae import MultVAELoss
    dls = R.CollabDataLoaders.rows_from_df(train, by='user', bs=bs, valid_pct=0, seed=seed)
    learn = R.collab_learner(dls, n_factors, arch=R.find_model(arch), config=config, loss_func=loss and MultVAELoss(**loss))
    with Timer() as t, learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(**{'n_epoch': 1, **fit})
    return learn,t

def measured(learn, rows):
    "Metrics and protocol"
    ev = learn.evaluate(rows, k=(10,20), metrics=NAMES, baseline=False)
    return {o: ev.summary[o] for o in NAMES},ev.protocol

def choose(name, train, valid, known=()):
    "Every setting on the validation rows; trials that are known are kept"
    trials = [o for o in known if o['setting'] in GRID[name]]
    for s in GRID[name]:
        if s in [o['setting'] for o in trials]: continue
        learn,t = fit(train, 0, **s)
        trials.append(dict(setting=s, metrics=measured(learn, valid)[0], cpu_seconds=round(t.cpu_seconds, 1)))
        print(name, s, round(trials[-1]['metrics']['ndcg@20'], 4), f'{t.cpu_seconds:.0f} s', flush=True)
    return trials

def test(name, setting, train, rows, seeds):
    "The chosen setting, fitted for each seed, on the test rows"
    runs = []
    for seed in seeds if name=='MultVAE' else [0]:
        learn,t = fit(train, seed, **setting)
        metrics,words = measured(learn, rows)
        runs.append(dict(seed=seed, metrics=metrics, seconds=round(t.seconds, 1), cpu_seconds=round(t.cpu_seconds, 1)))
        print(name, seed, {k: round(v, 4) for k,v in metrics.items()}, f'{t.cpu_seconds:.0f} s', flush=True)
    if name=='EASE, as it comes': setting = {**setting, 'config': learn.model.settings(learn.dls.interactions('train').csr())}
    return runs,setting,words

def main(models, seeds):
    import torch
    torch.set_num_threads(1)
    warnings.simplefilter('ignore')
    path = RESULTS/'multvae.json'
    found = json.loads(path.read_text(encoding='utf-8'))['models'] if path.exists() else {}
    train,valid,rest,held = parts()
    sizes = dict(train=len(train), valid=len(valid), test=len(held))
    for name in models:
        trials = choose(name, train, valid, found.get(name, {}).get('trials', ()))
        best = max(trials, key=lambda o: o['metrics']['ndcg@20'])['setting']
        runs,used,words = test(name, best, rest, held, seeds)
        found[name] = dict(trials=trials, best=best, used=used, runs=runs)
        write_json(path, dict(dataset='ml-1m', rows=sizes, models=found, protocol=f'{PROTOCOL}. {words}', peak_memory_mb=peak_memory_mb(), threads=1,
                              versions=versions(), machine=machine()))

if __name__=='__main__':
    args = arguments(__doc__, models=list(GRID), seeds=[0,1,2])
    main(args.models, args.seeds)
