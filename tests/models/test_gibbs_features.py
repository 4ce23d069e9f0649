"Features as rows of a chain: exact answers, who moves with them, and what the Bayesian model makes of loaders that know its items"
import numpy as np
import pandas as pd
import pytest
import torch
from scipy.sparse import csr_matrix

from helpers import fit
from recfast.bundle import load_bundle
from recfast.data.loaders import CollabDataLoaders
from recfast.gibbs import Chain, gather
from recfast.gibbs_features import FeatureChain, draw_features, feature_loop, feature_rows
from recfast.latent import Noisy
from recfast.learner import collab_learner
from recfast.models.bayesian import BayesianSVDpp

RNG = np.random.default_rng(0)
U,I = np.nonzero(RNG.random((30,20))<.4)
Y = RNG.normal(3, 1, len(U))
X = csr_matrix(RNG.random((20,4))*(RNG.random((20,4))<.5), dtype=np.float32)

def chain(n=3, **about):
    out = FeatureChain(U, I, (30,20), Noisy(Y), 2, seed=1, **about)
    for _ in range(n): out.sweep()
    return out

def test_without_features_it_is_the_chain_of_before():
    a,b = Chain(U, I, (30,20), Noisy(Y), 2, seed=1),chain()
    for _ in range(3): a.sweep()
    np.testing.assert_array_equal(a.users.full, b.users.full)

@pytest.mark.parametrize('loop', [draw_features,lambda *args: feature_loop()(*args)])
def test_a_row_without_noise_is_the_mean_given_all_others(loop):
    c,z = chain(),Noisy(Y).z
    gather(c.items, c.users.full, z, np.float32(2))
    start,one = c.items.full.astype(float),feature_rows(X[:,:1], 3)
    loop(c.items, one, np.zeros(3), np.full(3, 1.5), np.zeros((1,3), np.float32))
    x = X[:,0].toarray()[:,0][I][:,None]*np.c_[c.users.full[U,:2],np.ones(len(U))] # what the feature's row is multiplied by, cell by cell
    left = z-(start[I,:2]*c.users.full[U,:2]).sum(1)-start[I,2]-c.users.full[U,2]
    want = np.linalg.solve(2*x.T@x+1.5*np.eye(3), 2*x.T@left)
    np.testing.assert_allclose(one.table[0], want, rtol=1e-3, atol=1e-4)

def test_draws_have_the_spread_they_should_have():
    c = chain()
    gather(c.items, c.users.full, Noisy(Y).z, np.float32(2))
    one,drawn = feature_rows(X[:,:1], 3),[]
    for _ in range(4000):
        feature_loop()(c.items, one, np.zeros(3), np.full(3, 1.5), RNG.standard_normal((1,3), dtype=np.float32))
        drawn.append(one.table[0].copy())
    x = X[:,0].toarray()[:,0][I][:,None]*np.c_[c.users.full[U,:2],np.ones(len(U))]
    np.testing.assert_allclose(np.cov(np.array(drawn).T), np.linalg.inv(2*x.T@x+1.5*np.eye(3)), atol=.02)

def test_complete_vectors_are_all_sums():
    c = chain(8, about=dict(item=X, user=csr_matrix(np.eye(30, 3, dtype=np.float32))))
    for side,name,pairs in ((c.users,'user',c.users.pairs),(c.items,'item',c.items.pairs)):
        want = side.own.astype(float)
        for j in range(len(side.told)):
            here = pairs.other[pairs.start[j]:pairs.start[j+1]]
            want[here] += side.scale[here,None]*side.told[j]
        of = {'user': csr_matrix(np.eye(30, 3)),'item': X}[name]
        np.testing.assert_allclose(side.full, want+of@c.features[name].table, atol=1e-4)

# the model

def described(seed=0):
    "(ratings by kinds of films that few people rated, films)"
    rng = np.random.default_rng(seed)
    kind = np.arange(150)%3
    P,Q = rng.standard_normal((80,2)),1.5*rng.standard_normal((3,2))[kind]
    u,i = np.nonzero(rng.random((80,150))<.1)
    r = (3+(P[u]*Q[i]).sum(1)/2+.3*rng.standard_normal(len(u))).round().clip(1, 5)
    return pd.DataFrame(dict(user_id=u+1, item_id=i+1, rating=r)),pd.DataFrame(dict(item_id=np.arange(1, 151), kind=np.array(list('abc'))[kind]))

def sampled(items, config=None, **kwargs):
    df,films = described()
    dls = CollabDataLoaders.from_df(df, bs=64, seed=0, valid_pct=.2, **(dict(items=films) if items else {}))
    return fit(collab_learner(dls, 3, arch=BayesianSVDpp, seed=0, config={'n_sweeps': 80, 'warm_up': 30, **(config or {})}, **kwargs), 1)

def error(learn):
    with learn.no_bar(): shown,y = learn.get_preds()
    return (shown.flatten()-y.flatten()).square().mean().sqrt().item()

def test_what_is_known_of_films_lowers_the_error():
    known,unknown,off = sampled(True),sampled(False),sampled(True, dict(features=False))
    assert error(known)<error(unknown)-.03
    assert error(off)==pytest.approx(error(unknown), abs=1e-6)

def test_a_bundle_gives_the_same_answers(tmp_path):
    learn = sampled(True)
    rec = load_bundle(learn.save_bundle(tmp_path/'b'))
    pd.testing.assert_frame_equal(rec.recommend([3,4], k=20), learn.recommend([3,4], k=20), rtol=1e-5, atol=1e-5)

def test_a_new_film_is_where_its_kind_is():
    df,films = described()
    new = df.item_id<=9
    dls = CollabDataLoaders.from_df(df, bs=64, seed=0, splits=(np.flatnonzero(~new),np.flatnonzero(new)), items=films)
    learn = fit(collab_learner(dls, 3, arch=BayesianSVDpp, seed=0, cold_tail=False, config=dict(n_sweeps=80, warm_up=30)), 1)
    w = learn.model.i_weight.weight.detach()
    rows = torch.from_numpy(dls.classes['item_id'].encode(np.arange(1, 151)))
    cos = torch.nn.functional.cosine_similarity(w[rows[:9],None], w[rows[9:]][None], dim=-1)
    same = torch.from_numpy((np.arange(9)%3)[:,None]==(np.arange(9, 150)%3)[None])
    assert cos[same].mean()>cos[~same].mean()+.4
