"Next item on MovieLens-100k, leave-last-out, full ranking: popularity, NextItem and SASRec"
from common import Timer, arguments, run_jobs, save_result

# chosen by NDCG@10 on the film before the last (`--systems choose`, seed 0), the last one set aside; the last epoch's model counts
SETTINGS = dict(
    NextItem=dict(n_factors=100, config={}, n_epoch=10, lr_max=5e-3, wd=0.1),
    SASRec=dict(n_factors=64, config=dict(p=0.2), n_epoch=10, lr_max=3e-3, wd=0.01))
TRIED = [('NextItem',dict(n_factors=50, config={}, n_epoch=5, lr_max=1e-2, wd=0.01)),
    ('NextItem',dict(n_factors=50, config={}, n_epoch=10, lr_max=1e-2, wd=0.1)),
    ('NextItem',SETTINGS['NextItem']), ('SASRec',dict(n_factors=64, config=dict(p=0.2, n_negatives=256), n_epoch=10, lr_max=3e-3, wd=0.01)),
    ('SASRec',SETTINGS['SASRec'])]
LOADERS = dict(seq_len=50, bs=32)
PROTOCOL = ("leave-last-out by time (ties by row), item_id, one relevant item per user, so hit rate = recall; items of the user's training rows "
    "are masked (no user rates an item_id twice, so no answer is among them). Settings chosen on the row before the last, number of epochs "
    "fixed.")

def loaders(seed, choose=False):
    "The table in windows; to choose settings, without each user's last row"
    from recfast.all import CollabDataLoaders,ml_100k
    from recfast.data.split import last_rows
    ratings = ml_100k()
    if choose: ratings = ratings.iloc[last_rows(ratings.user_id, ratings.timestamp)[0]].reset_index(drop=True)
    return CollabDataLoaders.sequences_from_df(ratings, seed=seed, **LOADERS)

def fit(dls, system, n_factors, config, n_epoch, lr_max, wd):
    from recfast.all import collab_learner,find_model
    learn = collab_learner(dls, arch=find_model(system), n_factors=n_factors, config=config)
    with Timer() as t, learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(n_epoch, lr_max, wd=wd)
    return learn,t

def popularity(dls):
    "Every user gets the items with most training rows"
    import torch
    from recfast.all import Module,evaluate_recommender
    train,valid = dls.interactions('train'),dls.interactions('valid')
    class Popularity(Module):
        def __init__(self): self.counts = torch.from_numpy(train.counts('item')).float()
        def forward(self, x): return self.counts[x[:,1]]
    with Timer() as t: ev = evaluate_recommender(Popularity(), train, valid, k=10, baseline=False)
    return ev,t

def run(system, seed):
    "Train on all but each user's last row, measure once on the last rows"
    dls,setting,extra = loaders(seed),SETTINGS.get(system, {}),{}
    if system=='Popularity': ev,t = popularity(dls)
    else:
        learn,t = fit(dls, system, **setting)
        ev,extra = learn.evaluate(k=10),dict(fast=repr(learn.fast))
    metrics = {'hr@10': ev['recall@10'], 'ndcg@10': ev['ndcg@10']}
    path = save_result(f'next-item-{system}', 'ml-100k', seed, metrics, t, f"{PROTOCOL} {ev.protocol}", {**LOADERS, **setting}, **extra,
                       report=dls.report)
    if system=='Popularity': path.replace(path.with_name(f'next-item-{system}__ml-100k.json')) # nothing in it depends on a seed
    return f"{system} seed {seed}: HR@10 {ev['recall@10']:.4f}, NDCG@10 {ev['ndcg@10']:.4f} in {t.seconds:.1f} s, cpu {t.cpu_seconds:.1f} s"

def choose(system, setting):
    "One setting, measured on the row before the last"
    learn,t = fit(loaders(0, choose=True), system, **setting)
    ev = learn.evaluate(k=10)
    return f"{system} {setting}: HR@10 {ev['recall@10']:.4f}, NDCG@10 {ev['ndcg@10']:.4f}, cpu {t.cpu_seconds:.1f} s"

if __name__=='__main__':
    args = arguments(__doc__, systems=['Popularity','NextItem','SASRec','choose'], seeds=[0,1,2])
    chosen = args.systems==['choose']
    seeds = lambda o: args.seeds if o in SETTINGS else args.seeds[:1]
    jobs = TRIED if chosen else [(o,seed) for o in args.systems if o!='choose' for seed in seeds(o)]
    run_jobs(choose if chosen else run, jobs, args.threads)
