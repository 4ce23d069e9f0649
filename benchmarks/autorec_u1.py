"AutoRec on fold u1 of MovieLens-100k: settings chosen on a part of the base rows, refit on all of them, tested once"
import json

from common import RESULTS, Timer, arguments, load_results, machine, run_jobs, save_result, versions

CLIP = (1,5)
FIT = dict(n_epoch=30, lr_max=1e-2)
# system -> (what it is, architecture, training, the weight decays to choose from)
SYSTEMS = {
    'I-AutoRec': ('item rows, sigmoid output, denoising', dict(by='item', n_factors=100, dropout=.3, y_range=(0,5.5)), FIT, (2.,4.,8.)),
    'I-AutoRec-plain': ('item rows as in the paper: sigmoid hidden, linear output', dict(by='item', n_factors=300), FIT, (1.,2.,4.)),
    'I-AutoRec-bias': ('item rows less user and item bias', dict(by='item', n_factors=100, center=True, dropout=.5), FIT, (2.,4.,8.)),
    'I-AutoRec-classes': ('item rows, softmax over five classes, expected rating',
        dict(by='item', n_factors=200, n_classes=5, dropout=.3), {**FIT, 'n_epoch':20}, (1.,2.,4.)),
    'U-AutoRec': ('user rows less user and item bias',
        dict(by='user', n_factors=100, center=True, dropout=.5), {**FIT, 'n_epoch':50}, (2.,4.,8.)),
    'U-AutoRec-document': ('user rows as in the document: Linear(512)-ReLU-Linear',
        dict(by='user', n_factors=512, act='relu'), dict(n_epoch=20, lr_max=5e-3), (.01,1.,4.)),
}

def train(system, wd, seed, ratings, **split):
    "A trained Learner and the time it took"
    from recfast.all import AutoRec,CollabDataLoaders,collab_learner
    _,arch,fit,_ = SYSTEMS[system]
    config = {k: v for k,v in arch.items() if k not in ('n_factors','y_range')}
    dls = CollabDataLoaders.rows_from_df(ratings, arch['by'], bs=128, item_name='item_id', seed=seed, **split)
    learn = collab_learner(dls, n_factors=arch['n_factors'], y_range=arch.get('y_range'), arch=AutoRec, config=config)
    with Timer() as t, learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(**fit, wd=wd)
    return learn,t

def choose(system, seed=100):
    "RMSE of every weight decay on a fifth of the base rows; the test rows are not there"
    from recfast.all import ml_100k
    base,res = ml_100k(fold=1).query('~is_valid').drop(columns='is_valid').reset_index(drop=True),{}
    with Timer() as t:
        for wd in SYSTEMS[system][3]:
            learn,_ = train(system, wd, seed, base, valid_pct=0.2)
            res[str(wd)] = learn.evaluate(k=10, clip=CLIP)['rmse']
    best = min(res, key=res.get)
    out = dict(system=system, dataset='ml-100k', split_seed=seed, rmse_by_wd=res, wd=float(best), seconds=round(t.seconds, 1),
               protocol='u1 base rows only: a random fifth held out, predictions clipped to [1, 5]', versions=versions(), machine=machine())
    (RESULTS/f'{system}-u1__choose.json').write_text(json.dumps(out, indent=1)+'\n', encoding='utf-8')
    return f'{system}: ' + ', '.join(f'wd {k} {v:.4f}' for k,v in res.items()) + f' in {t.seconds:.0f} s'

def run(system, seed):
    "Refit on all base rows with the chosen setting, measure once on the test rows"
    from recfast.all import ml_100k
    what,arch,fit,_ = SYSTEMS[system]
    wd = load_results(f'{system}-u1__choose.json')[0]['wd']
    learn,t = train(system, wd, seed, ml_100k(fold=1), splits='is_valid')
    ev = learn.evaluate(k=10, clip=CLIP)
    protocol = (f'official fold u1, ratings only; {what}; settings chosen on a fifth of the base rows, refit on all of them, tested once. '
                f'{ev.protocol}')
    save_result(f'{system}-u1', 'ml-100k', seed, ev.summary, t, protocol, dict(bs=128, clip=CLIP, wd=wd, **arch, **fit), fold=1,
                fast=repr(learn.fast), report=learn.dls.report)
    return f"{system} seed {seed}, wd {wd}: RMSE {ev['rmse']:.4f}, MAE {ev['mae']:.4f} in {t.seconds:.1f} s ({learn.fast!r})"

if __name__=='__main__':
    args = arguments(__doc__, systems=list(SYSTEMS), seeds=[0,1,2])
    run_jobs(choose, [(o,) for o in args.systems], args.threads)
    run_jobs(run, [(o,seed) for o in args.systems for seed in args.seeds], args.threads)
