"Walks over the graph of who met what, beside the same walks written out"
import numpy as np
import pandas as pd
import pytest
import torch

from helpers import fit
from recfast.data.interactions import Interactions
from recfast.data.loaders import CollabDataLoaders
from recfast.data.vocab import Vocab
from recfast.learner import collab_learner
from recfast.models.graph import RP3beta, degree_power, walk_weight

def table(n_users=30, n_items=20, density=.3, seed=0, weights=None):
    rs = np.random.RandomState(seed)
    u,i = np.nonzero(rs.rand(n_users, n_items)<density)
    classes = dict(user=Vocab(np.arange(1, n_users+1)), item=Vocab(np.arange(1, n_items+1)))
    return Interactions(u+1, i+1, classes=classes, weights=None if weights is None else rs.choice(weights, len(u)))

def solved(ints, **config):
    model = RP3beta(n_users=ints.n_users, n_items=ints.n_items, **config)
    model.solve(ints)
    return model

def walked(X, alpha, beta, k):
    "w_ij as the papers have it: two matrices of transition probabilities, and the k largest of each column"
    with np.errstate(divide='ignore', invalid='ignore'):
        P_ui = np.nan_to_num(X/X.sum(1, keepdims=True))
        P_iu = np.nan_to_num(X.T/X.T.sum(1, keepdims=True))
        W = np.nan_to_num((P_iu**alpha*(X.T>0))@(P_ui**alpha*(X>0))/X.sum(0)**beta)
    np.fill_diagonal(W, 0)
    down = np.sort(W, 0)[::-1]
    tied = np.isclose(down[k-1], down[k]) & (down[k]>0) # either of two equal neighbours will do
    return np.where(W>=down[k-1], W, 0),~tied

@pytest.mark.parametrize('alpha,beta,k', [(1.,0.,19), (.6,.4,19), (1.3,.8,19), (0.,1.,19), (.6,.4,6)])
@pytest.mark.parametrize('weights', [None, [.5,1.,4.]])
def test_it_is_the_walk_of_the_papers(alpha, beta, k, weights):
    ints = table(weights=weights)
    X = ints.csr('weights' if weights else False).toarray().astype(float)
    W,clear = walked(X, alpha, beta, k)
    model = solved(ints, alpha=alpha, beta=beta, n_neighbors=k)
    np.testing.assert_allclose(model.score_items(torch.arange(31))[:,clear], (X@W)[:,clear], rtol=1e-4, atol=1e-6)
    assert clear.sum()>=(21 if k==19 else 15)

def test_a_walk_arrives_somewhere():
    M,of_item = walk_weight(table().csr())
    np.testing.assert_allclose(np.asarray((M.T@M).sum(1)).ravel(), of_item, rtol=1e-5)

def test_an_item_that_nobody_met_is_never_reached():
    ints = Interactions([1,1,2], [1,2,1], classes=dict(user=Vocab([1,2]), item=Vocab([1,2,3])))
    model = solved(ints)
    assert torch.isfinite(model.weight).all() and not model.score_items(torch.tensor([1,2]))[:,[0,3]].any()
    assert degree_power(np.array([0.,4.]), .5).tolist()==[0,.5]

def test_what_weighs_nothing_is_no_step():
    rows = dict(users=[1,1,2,2,1], items=[1,2,1,2,3])
    classes = dict(user=Vocab([1,2]), item=Vocab([1,2,3]))
    with_nothing = Interactions(**rows, classes=classes, weights=[1,1,1,1,0])
    without = Interactions(*(o[:4] for o in rows.values()), classes=classes)
    a,b = (solved(o, alpha=0.) for o in (with_nothing,without))
    torch.testing.assert_close(a.score_items(torch.tensor([1,2])), b.score_items(torch.tensor([1,2])))

def test_beta_holds_back_what_everybody_met():
    ints = table(60, 20, .2, seed=3)
    ints = Interactions(np.r_[ints.users, np.arange(1, 61)], np.r_[ints.items, np.full(60, 20)], classes=ints.classes)
    scores = [solved(ints, beta=b).score_history(torch.tensor([1,2,3]), None) for b in (0.,1.)]
    assert scores[0].argmax()==20 and scores[1].argmax()!=20

@pytest.mark.parametrize('config', [dict(alpha=-1.), dict(beta=-.1)])
def test_settings_that_mean_nothing(config):
    with pytest.raises(ValueError, match='expected numbers of 0 or more'): solved(table(), **config)

def test_reasons_sum_to_the_score():
    df = pd.DataFrame(dict(user_id=[1,1,2,2,3,3,4], item_id=list('ababbcc')))
    learn = fit(collab_learner(CollabDataLoaders.implicit_from_df(df, valid_pct=0, bs=4), arch=RP3beta), 1)
    why = learn.explain(3, 'a')
    assert why.contribution.sum()==pytest.approx(learn.predict(3, 'a'), rel=1e-5)
