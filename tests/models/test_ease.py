"EASE with its powers against a dense float64 reference, in both spaces, and what reads its weights"
import warnings

import numpy as np
import pytest
import torch

from helpers import fit
from recfast.bundle import load_bundle
from recfast.core import NeedsMemoryError
from recfast.data.interactions import Interactions
from recfast.data.loaders import CollabDataLoaders
from recfast.data.vocab import Vocab
from recfast.learner import collab_learner
from recfast.models.ease import EASE, POWERS, gram_ridge, relative, residual
from recfast.testing import synth_ratings

SHAPES = pytest.mark.parametrize('n_users,n_items', [(60,25),(12,40)], ids=['items','users'])
POWER = pytest.mark.parametrize('c,e,s', [(0,0,0),(.5,0,0),(0,.7,0),(0,0,.3),(.4,.8,.2),(1,1,1)])

def table(n_users, n_items, kind=None, seed=0, density=.3):
    "Random clicks; the last user and the last item have no row"
    rs = np.random.RandomState(seed)
    u,i = np.nonzero(rs.rand(n_users-1, n_items-1)<density*(1.5-np.arange(n_items-1)/n_items))
    classes = dict(user=Vocab(np.arange(1, n_users+1)), item=Vocab(np.arange(1, n_items+1)))
    values = rs.choice([1.,3.,5.], len(u)) if kind=='ratings' else None
    weights = rs.choice([0.,.5,1.,4.], len(u)) if kind=='weights' else None
    return Interactions(u+1, i+1, values, classes=classes, weights=weights)

def dense(ints, kind=None):
    X = np.zeros((ints.n_users,ints.n_items))
    what = dict(ratings=ints.values, weights=ints.weights).get(kind)
    X[ints.users,ints.items] = 1 if what is None else what
    return X

def over_mean(n): return np.where(n>0, n/n[n>0].mean(), 1)

def reference(X, N, l2, c, e, s):
    "The formula; `N` is what is counted"
    w,n = over_mean(N.sum(1))**-c,over_mean(N.sum(0))
    P = np.linalg.inv(X.T@(w[:,None]*X)+np.diag(l2*n**e))
    B = -P/np.diag(P)
    np.fill_diagonal(B, 0)
    return B/n**s

def solved(ints, **config):
    model = EASE(ints.n_users, ints.n_items, **config)
    model.solve(ints)
    return model

@SHAPES
@POWER
@pytest.mark.parametrize('kind', [None,'weights','ratings'])
@pytest.mark.parametrize('double', [True,False])
def test_the_weights_are_those_of_the_formula(n_users, n_items, c, e, s, kind, double):
    ints = table(n_users, n_items, kind)
    X = dense(ints, kind)
    B = reference(X, dense(ints, kind if kind=='weights' else None), 3., c, e, s)
    model = solved(ints, l2=3., user_power=c, ridge_power=e, item_power=s, use_ratings=kind=='ratings', double=double)
    np.testing.assert_allclose(model.weight, B, rtol=1e-4, atol=1e-5*abs(B).max())
    np.testing.assert_allclose(model.score_items(torch.arange(n_users+1)), X@B, rtol=1e-4, atol=1e-5*abs(X@B).max())

@pytest.mark.parametrize('l2', [1e-3,.1,50.,1e5])
def test_the_two_spaces_agree(l2):
    ints = table(30, 40, seed=3)
    model = solved(ints, l2=l2, user_power=.5, ridge_power=.5, item_power=.2)
    X,ridge,scale = model._terms(ints)
    a,b = model._by_users(X, ridge, scale),model._by_items(X, ridge, scale, True)
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6*float(b.abs().max()))

def test_powers_of_zero_are_the_published_model_to_the_bit():
    ints = table(60, 25)
    G = torch.from_numpy(dense(ints).T@dense(ints))
    G.diagonal().add_(20.)
    P = torch.cholesky_inverse(torch.linalg.cholesky(G))
    P.div_(-P.diagonal().clone()).fill_diagonal_(0)
    zero = solved(ints, l2=20., user_power=0., ridge_power=0., item_power=0.).weight
    assert torch.equal(zero, P.float()) and torch.equal(zero, solved(ints, l2=20.).weight)

def test_whoever_names_l2_has_the_published_model_and_whoever_names_nothing_the_defaults():
    csr = table(60, 25).csr()
    assert EASE(61, 26, l2=20.).settings(csr)==dict(l2=20., user_power=0., ridge_power=0., item_power=0.)
    assert EASE(61, 26, l2=20., ridge_power=.3).settings(csr)['ridge_power']==.3
    free = EASE(61, 26).settings(csr)
    assert {k: free[k] for k in POWERS}==POWERS and free['l2']>0
    assert EASE(61, 26, item_power=.4).settings(csr)=={**free, 'item_power': .4}

@SHAPES
def test_defaults_are_what_their_settings_say(n_users, n_items):
    ints = table(n_users, n_items)
    model = EASE(ints.n_users, ints.n_items)
    assert torch.equal(solved(ints).weight, solved(ints, **model.settings(ints.csr())).weight)

def terms(ints, **config):
    model = EASE(ints.n_users, ints.n_items, **config)
    model.attach(ints)
    return model._terms(ints)

def test_float32_that_is_not_enough_is_solved_in_float64():
    ints = table(30, 40)
    X,ridge,scale = terms(ints, l2=1e-3)
    G = gram_ridge(X, ridge)
    assert residual(G, torch.eye(len(G)).double())>1
    assert EASE(ints.n_users, ints.n_items)._by_items(X, ridge, scale, double=False) is None
    assert torch.equal(*(solved(ints, l2=1e-3, double=o).weight for o in (True,False)))

def test_where_there_is_no_room_for_float64_either_it_says_so():
    ints = table(30, 40)
    with pytest.raises(NeedsMemoryError, match='EASE of 41 items needs'): solved(ints, l2=1e-3, double=False, memory=41*41*20)

def test_few_users_take_little_memory():
    ints = table(5, 3000, density=.01)
    assert len(solved(ints, memory=3001**2*4+3*10**8).weight)==3001  # in the space of items: 3001**2*28
    with pytest.raises(NeedsMemoryError, match='EASE of 3,001 items'): solved(ints, memory=3001**2*4)

def test_no_rows_at_all():
    classes = dict(user=Vocab([1,2]), item=Vocab([1,2,3]))
    assert not solved(Interactions([], [], classes=classes)).weight.any()

def test_counts_over_their_mean():
    m = table(12, 9).csr()
    got = relative(m, 1)
    assert got[0]==1 and got[-1]==1 and got[1:-1].mean()==pytest.approx(1, rel=.1)
    n = np.asarray(m.sum(1)).ravel()
    np.testing.assert_allclose(got[n>0], n[n>0]/n[n>0].mean())

@pytest.fixture(scope='module')
def learn():
    dls = CollabDataLoaders.implicit_from_df(synth_ratings(), n_neg=0, valid_pct=0, seed=1, bs=64)
    return fit(collab_learner(dls, arch=EASE, config=dict(l2=30., user_power=.5, ridge_power=.5, item_power=.3)), 1)

def test_reasons_add_up_to_the_score(learn):
    user = learn.dls.classes['user_id'][3]
    seen = learn.dls.interactions('train').of_user(3)
    model = learn.model
    parts = model.contributions(seen.items.long(), None)
    torch.testing.assert_close(parts.sum(0), model.score_items(torch.tensor([3]))[0], rtol=1e-4, atol=1e-6)
    rec = learn.recommend([user], k=1)
    why = learn.explain(user, rec.item_id[0], k=1000)
    assert why.contribution.sum()==pytest.approx(rec.score[0], rel=1e-4)

def test_a_bundle_answers_the_same(learn, tmp_path):
    rec = load_bundle(learn.save_bundle(tmp_path/'e.recfast'))
    assert rec.recommend(k=5).equals(learn.recommend(k=5))
    assert {k: getattr(rec.model, k) for k in ('l2',*POWERS)}==dict(l2=30., user_power=.5, ridge_power=.5, item_power=.3)

def test_the_settings_of_an_earlier_bundle_are_the_published_model():
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        model = EASE(n_users=61, n_items=26, n_factors=None, y_range=None, l2=500., use_ratings=False, double=True, memory=None)
    assert model.settings(table(60, 25).csr())==dict(l2=500., user_power=0., ridge_power=0., item_power=0.)

@pytest.mark.parametrize('times', [1, 3])
def test_the_ridge_follows_the_squares_of_a_column(times):
    X = table(60, 25).csr().astype(np.float64)*times
    found = EASE(61, 26).settings(X)
    assert found==dict(l2=pytest.approx(8*times**2*X.getnnz()/(X.getnnz(0)>0).sum()), user_power=.5, ridge_power=0., item_power=.1)

@pytest.mark.parametrize('named,powers', [(dict(l2=3.), (0,0,0)), (dict(l2=3., user_power=.2), (.2,0,0)), (dict(item_power=0.), (.5,0,0)), (dict(ridge_power=.3), (.5,.3,.1))])
def test_whoever_names_the_ridge_has_the_published_powers(named, powers):
    found = EASE(61, 26, **named).settings(table(60, 25).csr())
    assert tuple(found[k] for k in POWERS)==powers and ('l2' not in named or found['l2']==3)
