"Collaborative filtering on MovieLens-100k by title: the six models of the tutorial, validation MSE after the last epoch"
from common import Timer, arguments, run_jobs, save_result

SYSTEMS = { # name -> (arguments of collab_learner, arguments of fit_one_cycle)
    'R1a': (dict(arch='DotProduct'), dict(n_epoch=5, lr_max=5e-3)),
    'R1b': (dict(arch='DotProduct', y_range=(0,5.5)), dict(n_epoch=5, lr_max=5e-3)),
    'R1c': (dict(arch='DotProductBias', y_range=(0,5.5)), dict(n_epoch=5, lr_max=5e-3)),
    'R1d': (dict(arch='DotProductBias', y_range=(0,5.5)), dict(n_epoch=5, lr_max=5e-3, wd=0.1)),
    'R1e': (dict(arch='DotProductParams', y_range=(0,5.5)), dict(n_epoch=3, wd=0.1)),
    'R1f': (dict(use_nn=True, layers=[100,50], y_range=(0,5.5)), dict(n_epoch=5, lr_max=5e-3, wd=0.1)),
}
PROTOCOL = ("random 20% of the rows for validation, drawn with the seed; items are titles; vocabulary from the training rows; bs 64; "
            "mean squared error over all validation rows after the last epoch, predictions not clipped")

def run(system, seed):
    "Train one system with one seed and keep its result"
    from recfast.all import CollabDataLoaders,collab_learner,find_model,ml_100k
    model,fit = (dict(o) for o in SYSTEMS[system])
    dls = CollabDataLoaders.from_df(ml_100k(), item_name='title', bs=64, valid_pct=0.2, seed=seed)
    args = {**model, 'arch': find_model(model['arch'])} if 'arch' in model else model
    learn = collab_learner(dls, n_factors=50, **args)
    with Timer() as t, learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(**fit)
    mse = learn.recorder.values[-1][1]
    save_result(system, 'ml-100k', seed, dict(valid_mse=mse, valid_rmse=mse**0.5, train_mse=learn.recorder.values[-1][0]), t, PROTOCOL,
                dict(n_factors=50, bs=64, **model, **fit), fast=repr(learn.fast), valid_mse_by_epoch=[v[1] for v in learn.recorder.values],
                report=dls.report)
    return f'{system} seed {seed}: validation MSE {mse:.4f} in {t.seconds:.1f} s ({learn.fast!r})'

if __name__=='__main__':
    args = arguments(__doc__, system=list(SYSTEMS), seeds=[0,1,2,3,4])
    run_jobs(run, [(o,seed) for o in args.system for seed in args.seeds], args.threads)
