"MovieLens-1M, the NCF protocol: GMF, MLP and NeuMF; settings chosen on a validation part of train, refitted, tested once"
import argparse
from functools import partial
import numpy as np, pandas as pd, torch
from common import Timer, save_result

K,BS,N_NEG,LAYERS = 32,2048,4,(64,32,16)
GRID = dict(GMF=[dict(n_epoch=8, lr_max=lr, wd=.1) for lr in (1e-2,2e-2)],
            MLP=[dict(n_epoch=8, lr_max=lr, wd=.1, init=f'init_{o}') for lr,o in ((1e-2,'normal'),(1e-2,'xavier'),(2e-2,'xavier'))],
            NeuMF=[dict(n_epoch=3, lr_max=lr, wd=.1) for lr in (2e-3,1e-2)])
PROTOCOL = ('leave-one-out of He et al. 2017: each of 6040 users has one held-out item among its own 99 stored negatives (an item that '
    'stands twice counts once); HR@10 and NDCG@10 over all users, ties by lower row. Settings chosen by NDCG@10 on one random event per '
    'user of train against 99 drawn negatives (seed 1), then fitted on all of train and tested once. hr@10_full and ndcg@10_full: the same '
    'events, full ranking of all trained items less the user\'s own')

def leave_one_out(train, seed):
    "(fit positions, held-out frame, candidates): one random event of each user among 99 items the user has no event with"
    rng = np.random.default_rng(seed)
    (u,users),(i,items) = (pd.factorize(train[o]) for o in ('user_id','item_id'))
    order = np.lexsort((rng.random(len(train)), u))
    held = order[np.r_[0, np.flatnonzero(np.diff(u[order]))+1]] # users 0, 1, 2 ...
    score = rng.random((len(users),len(items)), dtype=np.float32)
    score[u,i] = 2
    rows = np.column_stack([i[held], score.argpartition(99, axis=1)[:,:99]])
    cand = pd.DataFrame(dict(user_id=np.repeat(users, 100), item_id=items[rows.ravel()]))
    return np.setdiff1d(np.arange(len(train)), held),train.iloc[held],cand

def hit_and_ndcg(score, user, is_held, item, k=10):
    "HR@k and NDCG@k of one held-out item per user among its candidates; ties by lower item row"
    n = user.max()+1
    own,own_item = np.zeros(n),np.zeros(n, dtype=np.int64)
    own[user[is_held]],own_item[user[is_held]] = score[is_held],item[is_held]
    ahead = (score>own[user]) | ((score==own[user]) & (item<own_item[user]))
    rank = np.bincount(user, ahead, minlength=n)
    return {f'hr@{k}': float((rank<k).mean()), f'ndcg@{k}': float(np.where(rank<k, 1/np.log2(rank+2), 0).mean())}

def sampled(learn, held, cand):
    "Metrics among the candidates; an item without a training row scores as row 0 and stays in"
    from recfast.models.base import score_pairs
    ds = learn.dls.train_ds
    user,item = ds.user_vocab.encode(cand.user_id),ds.item_vocab.encode(cand.item_id, 'drop')
    score = score_pairs(learn.model, torch.from_numpy(np.stack([user,item], 1))).numpy()
    is_held = cand.item_id.to_numpy()==held.set_index('user_id').item_id.loc[cand.user_id].to_numpy()
    return hit_and_ndcg(score, user-1, is_held, item)

def full(learn, held):
    "The same events against every trained item less the user's own"
    from recfast.evaluate import hit_lists
    from recfast.data.loaders import Interactions
    from recfast.metrics import ndcg_at_k
    ds = learn.dls.train_ds
    test = Interactions(ds.user_vocab.encode(held.user_id), ds.item_vocab.encode(held.item_id, 'drop'), classes=ds.classes)
    _,hits,n_rel = hit_lists(learn.model, ds, test, 10)
    return {'hr@10_full': float(hits.any(1).mean()), 'ndcg@10_full': float(ndcg_at_k(hits, n_rel).mean())}

def train_one(name, train, fit, cfg, seed, parts=None):
    "A fitted learner; NeuMF starts from `parts`, a trained GMF and MLP"
    from recfast.all import Adam,BCE,CollabDataLoaders,GMF,MLP,NeuMF,collab_learner
    from recfast.models import ncf
    cfg = dict(cfg)
    config = dict(layers=LAYERS, init=getattr(ncf, cfg.pop('init'))) if name=='MLP' else None
    dls = CollabDataLoaders.implicit_from_df(train, n_neg=N_NEG, splits=(fit,[]), bs=BS, seed=seed)
    arch = NeuMF.from_pretrained(*(o.model for o in parts)) if parts else dict(GMF=GMF, MLP=MLP)[name]
    learn = collab_learner(dls, n_factors=K, arch=arch, config=config, loss_func=BCE(), opt_func=partial(Adam, eps=1e-8))
    with Timer() as t, learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(**cfg)
    assert learn.fast, learn.fast
    return learn,t

def choose(train, seed):
    "{model: (settings, every trial)} by NDCG@10 on the validation part"
    fit,held,cand = leave_one_out(train, seed)
    best,trials = {},{}
    for name,grid in GRID.items():
        done = []
        for cfg in grid:
            learn,t = train_one(name, train, fit, cfg, seed, (best['GMF'][1],best['MLP'][1]) if name=='NeuMF' else None)
            done.append((cfg,learn,{**sampled(learn, held, cand), 'seconds': round(t.seconds, 1), 'cpu_seconds': round(t.cpu_seconds, 1)}))
            print('choose', name, cfg, done[-1][2], flush=True)
        best[name] = max(done, key=lambda o: o[2]['ndcg@10'])
        trials[name] = [dict(**cfg, **m) for cfg,_,m in done]
    return {name: (best[name][0],trials[name]) for name in GRID}

def main(seeds, choose_seed=1):
    from recfast.all import ml_1m_ncf
    train,held,cand = ml_1m_ncf()
    with Timer() as t: chosen = choose(train, choose_seed)
    for seed in seeds:
        learns = {}
        for name,(cfg,trials) in chosen.items():
            learns[name],fit_t = train_one(name, train, np.arange(len(train)), cfg, seed, [*learns.values()] if name=='NeuMF' else None)
            m = {**sampled(learns[name], held, cand), **full(learns[name], held)}
            save_result(name, 'ml-1m-ncf', seed, m, fit_t, PROTOCOL, dict(n_factors=K, bs=BS, n_neg=N_NEG, eps=1e-8, layers=LAYERS, **cfg),
                        fast=repr(learns[name].fast), pretrained=name=='NeuMF', trials=trials,
                        choose_seconds=round(t.seconds, 1), choose_cpu_seconds=round(t.cpu_seconds, 1))
            print(f"{name} seed {seed}:", {k: round(v, 4) for k,v in m.items()}, f"in {fit_t.seconds:.0f} s "
                  f"({fit_t.cpu_seconds:.0f} s of processor)", flush=True)

if __name__=='__main__':
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument('--seeds', nargs='+', type=int, default=[0,1,2])
    p.add_argument('--threads', type=int, default=1)
    args = p.parse_args()
    torch.set_num_threads(args.threads)
    main(args.seeds)
