"Ranking on MovieLens: settings chosen on a validation part of train, fitted on all of train, tested once; prints both tables"
import json
from common import RESULTS, Timer, arguments, load_results, run_jobs, save_result, write_json

# what is chosen among
def _each(first, **lists): # {'config.l2': [..], 'wd': [..]} -> every combination
    out = [first]
    for name,vals in lists.items(): out = [_with(o, name.split('.'), v) for o in out for v in vals]
    return out

def _with(d, path, v): return {**d, path[0]: v if len(path)==1 else _with(d.get(path[0], {}), path[1:], v)}

SOFTMAX = dict(arch='DotProduct', loss=['SoftmaxLoss',{}], loaders=dict(n_neg=0))
GRID = {
    'ml-100k': {
        'DotProductBias-ratings': _each(dict(arch='DotProductBias', build='from_df', y_range=[0,5.5], loaders=dict(bs=64), n_epoch=5, lr_max=5e-3, wd=.1)),
        'Popularity': _each(dict(arch='Popularity')),
        'ItemKNN': _each(dict(arch='ItemKNN'), **{'config.weighting': ['cosine','bm25'], 'config.n_neighbors': [50,100,200], 'config.shrink': [0,20,50]}),
        'RP3beta': _each(dict(arch='RP3beta'), **{'config.alpha': [.6,.8,1.], 'config.beta': [.2,.3,.4,.5,.6], 'config.n_neighbors': [200,400]}),
        'EASE': _each(dict(arch='EASE'), **{'config.l2': [100,200,300,500,700,1000]}),
        'SLIM': _each(dict(arch='SLIM'), **{'config.l1': [1,2,5], 'config.l2': [50,100,200,400]}),
        'EASE-powers': _each(dict(arch='EASE'), **{'config.l2': [300,500,800], 'config.user_power': [.25,.5], 'config.ridge_power': [.5,.75], 'config.item_power': [.2,.25,.3]}),
        'EASE-near': _each(dict(arch='EASE', config=dict(user_power=.25, ridge_power=.75, span=5)), **{'config.near': [.5,.65,.8], 'config.l2': [200,300,400], 'config.item_power': [.2,.25]}),
        'IALS': _each(dict(arch='IALS', n_epoch=15), **{'n_factors': [32,64,128], 'config.alpha': [.05,.1,.2], 'config.l2': [.01,.02,.03,.05]}),
        'DotProductBias-BPR': _each(dict(arch='DotProductBias', n_factors=64, loss=['BPRLoss',{}], loaders=dict(n_neg=8), n_epoch=20, lr_max=5e-3), wd=[.1,.2,.4]),
        'LightGCN': [dict(arch='LightGCN', n_factors=64, loss=['BPRLoss',{}], loaders=dict(n_neg=4, bs=2048), n_epoch=40, lr_max=lr, wd=wd, config=dict(n_layers=n)) for n,lr,wd in
            ((2,1e-2,.01),(2,3e-2,.1),(3,3e-2,.1),(2,3e-2,.3))],
        'DotProduct-softmax': _each({**SOFTMAX, 'n_epoch': 10, 'lr_max': 1e-2}, n_factors=[64,100], wd=[.3,.45,.6]),
        'AutoRec-multinomial': _each(dict(arch='AutoRec', build='rows_from_df', loss=['MultinomialLoss',{}], loaders=dict(by='user', bs=64), n_factors=200, lr_max=1e-3, wd=.3,
            config=dict(by='user', act='tanh')), **{'n_epoch': [20,50], 'config.dropout': [.5,.7]})},
    'ml-1m': {
        'Popularity': _each(dict(arch='Popularity')),
        'RP3beta': _each(dict(arch='RP3beta'), **{'config.alpha': [.6,.8,1.], 'config.beta': [.3,.4,.5,.6], 'config.n_neighbors': [300]}),
        'EASE': _each(dict(arch='EASE'), **{'config.l2': [200,500,1000,2000]}),
        'EASE-powers': _each(dict(arch='EASE'), **{'config.l2': [500,1000], 'config.user_power': [.25,.5], 'config.ridge_power': [0.,.5], 'config.item_power': [0.,.1,.2]}),
        'SLIM': [*_each(dict(arch='SLIM', config=dict(tol=2e-3)), **{'config.l1': [2,5], 'config.l2': [200,500,1000]}),
            dict(arch='SLIM', config=dict(tol=2e-3, l1=2, l2=500, positive=False))],
        'IALS': _each(dict(arch='IALS', n_epoch=16, n_factors=192), **{'config.alpha': [.1,.2], 'config.l2': [.02,.03], 'config.nu': [.85,1.]}),
        'DotProduct-softmax': [{**SOFTMAX, 'n_factors': k, 'loaders': dict(n_neg=0, by_user=True, bs=8192), 'n_epoch': n, 'lr_max': lr, 'wd': wd} for k,n,lr,wd in
            ((64,30,1e-2,.1),(64,30,2e-2,.2),(64,40,1e-2,.12),(64,40,1e-2,.15),(64,40,1e-2,.2),(80,40,1e-2,.18),(64,60,5e-3,.1))]}}

CUTS = {'EASE-near': (1,2,3)} # what is chosen on several validation parts

# weighted standard scores of parts, each with its own chosen setting; seeds: members of every part that has one, its weight shared out among them
def _alike(*names, seeds=1): return dict(parts=dict.fromkeys(names, 1.), seeds=seeds)
def _shares(seeds, **weights): return dict(parts={k.replace('_', '-'): v for k,v in weights.items()}, seeds=seeds)

BLENDS = {
    'ml-100k': {'Blend': [
        *[_shares(3, DotProduct_softmax=1-w, **{k: w}) for k in ('EASE-powers','EASE-near') for w in (.2,.35,.5,.65)],
        *[_shares(3, DotProduct_softmax=(1-w)/2, EASE_near=w, IALS=(1-w)/2) for w in (.2,.35,.5)]]},
    'ml-1m': {'Blend': [_alike('EASE', 'IALS', 'DotProduct-softmax'), _alike('EASE-powers', 'IALS', 'DotProduct-softmax'),
        _alike('IALS', 'DotProduct-softmax'), _alike('EASE', 'IALS')]}}
GROWN = {'ml-100k': ['DotProduct-softmax','EASE-powers','EASE-near','IALS','RP3beta']} # and what greedy additions of these come to
TENTHS = {'ml-100k'} # validation parts of a tenth, so that nearly as many rows are trained on as for the test; one member of each part there
PROTOCOL = {
    'ml-100k': ('ratings sorted by item and a random number (seed 42), the first 75% of each item train; every test row is relevant; all trained items less the '
        "user's own are candidates, ties by lower item id; NDCG with the ideal list over min(10, relevant), MAP = sum of precision at each hit / relevant, recall / "
        'relevant, precision / 10. Settings chosen by ndcg@10 on a validation part of train cut by the same rule (seed 1; of EASE-near, which reads the times of training rows, on three; of blends on three that hold out a tenth, with one member of each part)'),
    'ml-1m': ('leave-one-out of He et al. 2017: one held-out item of each of 6040 users among its own 99 stored negatives (an item that stands twice counts once), ties by '
        'lower row; _full: the same events, all trained items less the own ones. Settings chosen by ndcg@10 on one random event of each user of train among 99 drawn '
        'negatives (seed 1)')}

def parts(dataset, choose, cut=1, share=.25):
    "(train frame, test frame, candidates): the benchmark's, or the validation part `cut` of its train, a `share` of each item"
    from recfast.all import item_split,ml_100k,ml_1m_ncf,np
    if dataset=='ml-100k':
        df = ml_100k()
        for seed,held in ((42,.25),(cut,share))[:1+choose]:
            train,test = (df.iloc[o].reset_index(drop=True) for o in item_split(df, held, seed=seed))
            df = train
        return train,test,'all'
    train,test,cand = ml_1m_ncf()
    if choose:
        order = np.random.default_rng(cut).permutation(len(train))
        held = np.sort(order[~train.user_id.iloc[order].duplicated().to_numpy()])
        test,train,cand = train.iloc[held].reset_index(drop=True),train.drop(index=held).reset_index(drop=True),{'sampled': 99, 'seed': cut}
    return train,test,cand

def fit(train, seed, arch, n_factors=50, config=None, loaders=None, loss=None, y_range=None, build='implicit_from_df', **fit):
    "A fitted learner and what it took"
    from recfast import all as R, losses
    if build=='rows_from_df': train = train.assign(rating=1.) # clicks
    dls = getattr(R.CollabDataLoaders, build)(train, valid_pct=0, seed=seed, **{'bs': 512, **(loaders or {})})
    loss = loss and getattr(losses, loss[0])(**loss[1])
    learn = R.collab_learner(dls, n_factors=n_factors, arch=R.find_model(arch), config=config, loss_func=loss, y_range=y_range and tuple(y_range))
    with Timer() as t, learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(**{'n_epoch': 1, **fit})
    return learn,t

def measure(dataset, learn, test, cand):
    "Metrics of a protocol and its sentence"
    from recfast.evaluate import as_interactions,hit_lists
    from recfast.metrics import average_precision_at_k
    train = learn.dls.interactions('train')
    if dataset=='ml-100k':
        ev = learn.evaluate(test, metrics=['ndcg@10','precision@10','recall@10'])
        _,hits,n_rel = hit_lists(learn.model, train, as_interactions(test, train), 10)
        return {'map': float(average_precision_at_k(hits, n_rel, denominator='rel').mean()), **ev.summary},ev.protocol
    names = ['hit@10','ndcg@10']
    ev,full = learn.evaluate(test, candidates=cand, metrics=names),learn.evaluate(test, metrics=names)
    return {**ev.summary, **{f'{k}_full': v for k,v in full.summary.items()}},ev.protocol

def choose(dataset, system):
    "Measure every setting on the validation part and keep all that was tried"
    import warnings
    warnings.simplefilter('ignore')
    cuts = [parts(dataset, True, o) for o in CUTS.get(system, (1,))]
    trials = []
    for s in GRID[dataset][system]:
        found = []
        for train,test,cand in cuts:
            learn,t = fit(train, 0, **s)
            found.append(measure(dataset, learn, test, cand)[0])
        metrics = {k: sum(o[k] for o in found)/len(found) for k in found[0]}
        trials.append(dict(setting=s, metrics=metrics, cpu_seconds=round(t.cpu_seconds, 2)))
        print(f"  {dataset} {system} {s}: ndcg@10 {trials[-1]['metrics']['ndcg@10']:.4f}, cpu {t.cpu_seconds:.1f} s", flush=True)
    best = max(trials, key=lambda o: o['metrics']['ndcg@10'])
    write_json(RESULTS/f'ranking-{system}__{dataset}__choose.json', dict(system=system, dataset=dataset, trials=trials, best=best['setting']))
    return f"{dataset} {system}: {len(trials)} settings, chosen {best['setting']}"

def chosen(dataset, system): return json.loads((RESULTS/f'ranking-{system}__{dataset}__choose.json').read_text(encoding='utf-8'))['best']

def members(dataset, train, seed, names, seeds):
    "{part: fitted learners} and what all of them took together"
    with Timer() as t:
        fitted = {o: [fit(train, seed*100+i if i else seed, **chosen(dataset, o))[0] for i in range(1 if solved(dataset, o) else seeds)] for o in names}
    return fitted,t

def blend(fitted, parts, seeds):
    "One learner of fitted members"
    from recfast.ensemble import Blend
    flat = [(o,w/len(fitted[k][:seeds])) for k,w in parts.items() for o in fitted[k][:seeds]]
    learns,weights = zip(*flat)
    return Blend(learns, [w/sum(weights) for w in weights])

def standard(fitted):
    "{part: [members,U,I]}: standard scores of every user"
    import torch
    from recfast.models.base import score_items
    from recfast.models.ensemble import z_scores
    rows = next(iter(fitted.values()))[0].dls.interactions('train')
    users,ok = torch.arange(rows.n_users),torch.from_numpy(rows.trained('item'))
    with torch.no_grad(): return {k: torch.stack([z_scores(score_items(o.model.eval(), users, rows.n_items), ok).float() for o in v]) for k,v in fitted.items()},rows

def tried(setting, cuts):
    "A blend on every validation part, from scores that are there"
    import torch
    from recfast.ensemble import _Scored
    from recfast.evaluate import as_interactions,evaluate_recommender
    def value(z, rows, test, cand):
        mixed = sum(w*z[k][:setting['seeds']].mean(0) for k,w in setting['parts'].items())/sum(setting['parts'].values())
        how = dict(candidates=cand, metrics=['ndcg@10'], rated=False, baseline=False, progress=False)
        return evaluate_recommender(_Scored(mixed, torch.arange(rows.n_users)), rows, as_interactions(test, rows), **how).summary['ndcg@10']
    by = [value(*o) for o in cuts]
    return dict(setting=setting, metrics={'ndcg@10': sum(by)/len(by)}, by_cut=by)

def grown(names, seeds, cuts, rounds=8):
    "Trials of greedy additions: in each round one share more for the part that gains most by it"
    counts,trials = {},[]
    for _ in range(rounds):
        now = [tried(dict(parts={**counts, o: counts.get(o, 0)+1}, seeds=seeds), cuts) for o in names]
        counts = max(now, key=lambda o: o['metrics']['ndcg@10'])['setting']['parts']
        trials += now
    return trials

def choose_blend(dataset, system):
    "Measure every blend on validation parts (three where one is small) and keep all that was tried; the parts are fitted once on each"
    import warnings
    warnings.simplefilter('ignore')
    grid = BLENDS[dataset][system]
    names,seeds = list(dict.fromkeys([k for s in grid for k in s['parts']]+GROWN.get(dataset, []))),max(s['seeds'] for s in grid)
    tenths = dataset in TENTHS
    numbers = (1,2,3) if tenths else (1,)
    cuts = []
    for cut in numbers:
        train,test,cand = parts(dataset, True, cut, .1 if tenths else .25)
        fitted,t = members(dataset, train, 0, names, 1 if tenths else seeds)
        cuts.append((*standard(fitted),test,cand))
        print(f"  {dataset} cut {cut}: {len(names)} parts, cpu {t.cpu_seconds:.1f} s", flush=True)
    trials = [tried(s, cuts) for s in grid]
    if dataset in GROWN: trials += grown(GROWN[dataset], seeds, cuts)
    for o in trials: print(f"  {dataset} {system} {o['setting']}: ndcg@10 {o['metrics']['ndcg@10']:.4f}", flush=True)
    best = max(trials, key=lambda o: o['metrics']['ndcg@10'])
    write_json(RESULTS/f'ranking-{system}__{dataset}__choose.json', dict(system=system, dataset=dataset, cuts=list(numbers), trials=trials, best=best['setting']))
    return f"{dataset} {system}: {len(trials)} blends, chosen {best['setting']}"

def run(dataset, system, seed):
    "Fit the chosen setting on all of train and test it once"
    import warnings
    warnings.simplefilter('ignore')
    s = chosen(dataset, system)
    train,test,cand = parts(dataset, False)
    if system in BLENDS[dataset]:
        fitted,t = members(dataset, train, seed, s['parts'], s['seeds'])
        learn,more = blend(fitted, **s),dict(settings={o: chosen(dataset, o) for o in s['parts']})
    else: (learn,t),more = fit(train, seed, **s),{}
    metrics,words = measure(dataset, learn, test, cand)
    save_result(f'ranking-{system}', dataset, seed, metrics, t, f'{PROTOCOL[dataset]}. {words}', s, fast=repr(learn.fast), **more)
    return f"{dataset} {system} seed {seed}: {', '.join(f'{k} {v:.4f}' for k,v in metrics.items())}; cpu {t.cpu_seconds:.1f} s"

def table(dataset):
    "Mean over the seeds of each system"
    import pandas as pd
    runs = pd.DataFrame([dict(system=r['system'][8:], **r['metrics']) for r in load_results(f'ranking-*__{dataset}__seed*.json')]).groupby('system')
    return runs.mean().assign(seeds=runs.size()).sort_values('ndcg@10').round(4)

def solved(dataset, system): return system in ('Popularity','ItemKNN','RP3beta','SLIM','EASE','EASE-powers','EASE-near') # no seed in them

if __name__=='__main__':
    args = arguments(__doc__, datasets=list(GRID), systems=sorted({s for g in (*GRID.values(),*BLENDS.values()) for s in g}), seeds=[0,1,2,3,4], steps=['choose','run'])
    todo = [(d,s) for d in args.datasets for s in args.systems if s in GRID[d]]
    blends = [(d,s) for d in args.datasets for s in args.systems if s in BLENDS[d]]
    if 'choose' in args.steps: run_jobs(choose, todo, args.threads); run_jobs(choose_blend, blends, args.threads)
    if 'run' in args.steps: run_jobs(run, [(d,s,seed) for d,s in todo+blends for seed in (args.seeds if not solved(d, s) else args.seeds[:1])], args.threads)
    for d in args.datasets: print(d, table(d).to_string(), sep='\n')
