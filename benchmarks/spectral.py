"""SpectralFilter on a catalogue where EASE has no room: about a million interactions of 29,858 users with 40,981 items, power laws on both sides and tastes;
seconds of `fit`, of lists for all users, and the peak memory of the process, data and libraries included"""
import os
from common import RESULTS, Timer, arguments, machine, peak_memory_mb, run_jobs, versions, write_json

def clicks(n_users=29_858, n_items=40_981, n_rows=1_000_000, n_tastes=64, seed=0):
    "A frame of user_id and item_id: three tastes a person, three of four items from one of them, the rest by popularity"
    import numpy as np, pandas as pd
    rng = np.random.default_rng(seed)
    liked = rng.permutation((np.arange(n_items)+20.)**-.8)
    active = rng.permutation((np.arange(n_users)+30.)**-.7)
    n = np.maximum(5, np.round(active/active.sum()*n_rows*1.17)).astype(int) # pairs repeat: about a million stay
    users = np.repeat(np.arange(n_users), n)
    taste = rng.integers(n_tastes, size=n_items)
    mine = rng.integers(n_tastes, size=(n_users,3))[users,rng.integers(3, size=len(users))]
    order = np.argsort(taste, kind='stable')
    ends = np.concatenate([[0],np.cumsum(liked[order])])
    first = np.searchsorted(taste[order], np.arange(n_tastes+1))
    at = ends[first[mine]]+rng.random(len(users))*(ends[first[mine+1]]-ends[first[mine]])
    at = np.where(rng.random(len(users))<.75, at, rng.random(len(users))*ends[-1])
    items = order[(np.searchsorted(ends, at, side='right')-1).clip(0, n_items-1)]
    return pd.DataFrame(dict(user_id=users, item_id=items)).drop_duplicates().sample(frac=1, random_state=seed).reset_index(drop=True)

def run(threads):
    import torch, warnings
    warnings.simplefilter('ignore')
    torch.set_num_threads(threads)
    from recfast import all as R
    from recfast.models.spectral import SpectralFilter
    df = clicks()
    test = df.iloc[:len(df)//50]
    train = df.iloc[len(df)//50:]
    dls = R.CollabDataLoaders.implicit_from_df(train, n_neg=0, valid_pct=0, seed=0, bs=4096)
    before = peak_memory_mb()
    learn = R.collab_learner(dls, arch=SpectralFilter)
    with Timer() as fit, learn.no_bar(), learn.no_logging(): learn.fit(1)
    after = peak_memory_mb()
    with Timer() as rank: lists = learn.recommend(k=20)
    ev = learn.evaluate(test, metrics=['ndcg@10'])
    r = dict(load=[round(o, 1) for o in os.getloadavg()], rows=len(train), users=int(train.user_id.nunique()), items=int(train.item_id.nunique()), threads=threads, chosen=learn.model.chosen,
        tried=[[round(v, 5),o] for v,o in learn.model.tried], fit=dict(seconds=round(fit.seconds, 1), cpu_seconds=round(fit.cpu_seconds, 1)),
        rank=dict(seconds=round(rank.seconds, 1), cpu_seconds=round(rank.cpu_seconds, 1), lists=int(lists.user_id.nunique()), k=20),
        peak_memory_mb=dict(before=before, fit=after, end=peak_memory_mb()), metrics=ev.summary, baseline=getattr(ev, 'baseline', None) and ev.baseline.summary,
        protocol=ev.protocol, versions=versions(), machine=machine())
    write_json(RESULTS/'spectral.json', r)
    return str({k: r[k] for k in ('rows','fit','rank','peak_memory_mb','metrics','chosen')})

if __name__=='__main__':
    args = arguments(__doc__)
    run_jobs(run, [(args.threads,)], args.threads)
