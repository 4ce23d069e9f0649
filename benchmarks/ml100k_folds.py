"The five official folds of MovieLens-100k: DotProductBias, RMSE and MAE of clipped predictions"
from common import Timer, arguments, run_jobs, save_result

FIT = dict(n_epoch=5, lr_max=5e-3, wd=0.1)

def run(fold, seed):
    "Train on a fold's base rows, measure once on its test rows"
    from recfast.all import CollabDataLoaders,DotProductBias,collab_learner,ml_100k
    dls = CollabDataLoaders.from_df(ml_100k(fold=fold), splits='is_valid', item_name='item_id', bs=64, seed=seed)
    learn = collab_learner(dls, n_factors=50, y_range=(0,5.5), arch=DotProductBias)
    with Timer() as t, learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(**FIT)
    ev = learn.evaluate(k=10, clip=(1,5))
    save_result(f'DotProductBias-u{fold}', 'ml-100k', seed, ev.summary, t, f'official fold u{fold}, ratings only; settings and number of epochs '
                f'fixed beforehand, nothing selected on the test rows. {ev.protocol}', dict(n_factors=50, bs=64, y_range=(0,5.5), clip=(1,5), **FIT),
                fold=fold, fast=repr(learn.fast), report=dls.report)
    return f"u{fold} seed {seed}: RMSE {ev['rmse']:.4f}, MAE {ev['mae']:.4f} in {t.seconds:.1f} s ({learn.fast!r})"

if __name__=='__main__':
    args = arguments(__doc__, folds=[1,2,3,4,5], seeds=[0,1,2])
    run_jobs(run, [(o,seed) for o in args.folds for seed in args.seeds], args.threads)
