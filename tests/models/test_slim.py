"SLIM beside the elastic net of scikit-learn, column by column, and the conditions of a minimum"
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.linear_model import ElasticNet

from helpers import fit
from recfast.data.interactions import Interactions
from recfast.data.loaders import CollabDataLoaders
from recfast.data.vocab import Vocab
from recfast.learner import collab_learner
from recfast.core import NeedsMemoryError
from recfast.models.ease import EASE
from recfast.models.slim import SLIM, elastic_net, soft_threshold, sweep

def table(n_users=80, n_items=15, density=.3, seed=0, weights=None):
    rs = np.random.RandomState(seed)
    u,i = np.nonzero(rs.rand(n_users, n_items)<density)
    classes = dict(user=Vocab(np.arange(1, n_users+1)), item=Vocab(np.arange(1, n_items+1)))
    return Interactions(u+1, i+1, classes=classes, weights=None if weights is None else rs.choice(weights, len(u)))

def solved(ints, arch=SLIM, **config):
    model = arch(n_users=ints.n_users, n_items=ints.n_items, **config)
    model.solve(ints)
    return model

def by_sklearn(X, l1, l2, positive):
    n,B = len(X),np.zeros((X.shape[1],X.shape[1]))
    for j in range(X.shape[1]):
        others = X.copy()
        others[:,j] = 0
        net = ElasticNet(alpha=(l1+l2)/n, l1_ratio=l1/(l1+l2), positive=positive, fit_intercept=False, tol=1e-10, max_iter=100_000)
        B[:,j] = net.fit(others, X[:,j]).coef_
    return B

@pytest.mark.parametrize('l1,l2,positive', [(3.,5.,True), (.2,1.,False), (1.,0.,True), (8.,1.,False)])
@pytest.mark.parametrize('weights', [None, [.5,1.,3.]])
def test_it_is_the_elastic_net_of_scikit_learn(l1, l2, positive, weights):
    ints = table(weights=weights)
    X = ints.csr('weights' if weights else False).toarray().astype(float)
    B = by_sklearn(X, l1, l2, positive)
    model = solved(ints, l1=l1, l2=l2, positive=positive, tol=1e-7, n_sweeps=500)
    np.testing.assert_allclose(model.score_items(torch.arange(len(X))), X@B, atol=2e-4)
    assert l1!=.2 or (B<0).any()

def test_without_a_threshold_it_is_ease():
    ints = table()
    slim = solved(ints, l1=0, l2=20., positive=False, tol=1e-7, n_sweeps=500)
    torch.testing.assert_close(slim.score_items(torch.arange(81)), solved(ints, EASE, l2=20.).score_items(torch.arange(81)), rtol=1e-4, atol=1e-4)

def test_only_the_largest_weights_are_kept():
    ints = table()
    all_,few = (solved(ints, l1=1., n_neighbors=n) for n in (None,3))
    assert all_.weight.shape[1]>3 and few.weight.shape==(16,3)
    torch.testing.assert_close(few.weight, all_.weight[:,:3])

@pytest.mark.parametrize('step', [1,4,7,64])
def test_a_sweep_does_not_depend_on_its_blocks(step):
    X = torch.from_numpy(table().csr().toarray())
    G,columns = X.T@X,torch.tensor([3,1,8])
    B = [torch.zeros(16, 3) for _ in range(2)]
    for _ in range(3):
        sweep(G, B[0], columns, 2., 3., False, step=step)
        sweep(G, B[1], columns, 2., 3., False, step=5)
    torch.testing.assert_close(*B)
    assert all(B[0][c,n]==0 for n,c in enumerate(columns))

def test_a_finished_column_is_left_alone():
    G = torch.block_diag(torch.tensor([[4.,2.],[2.,4.]]), torch.full((4,4), 9.)+torch.eye(4))
    B,n = elastic_net(G, 1., 1., tol=1e-6)
    assert n>3 and B[0,1]==pytest.approx(1/5, abs=1e-6) and not B[:2,2:].any()

def test_the_soft_threshold(): assert soft_threshold(torch.tensor([-3.,-1.,.5,2.]), 1.).tolist()==[-2.,0.,0.,1.]

def test_an_item_that_nobody_met_has_no_neighbours():
    ints = Interactions([1,1,2], [1,2,1], classes=dict(user=Vocab([1,2]), item=Vocab([1,2,3])))
    slim = solved(ints, l1=.1, l2=0)
    assert torch.isfinite(slim.weight).all() and not slim.weight[[0,3]].any()

def test_nothing_above_the_threshold_is_no_neighbour_at_all():
    slim = solved(table(), l1=1000.)
    assert not slim.score_items(torch.arange(81)).any()

def test_it_refuses_before_it_begins():
    with pytest.raises(NeedsMemoryError, match='SLIM of 16 items needs 0.000 GB.*ItemKNN or RP3beta'): solved(table(), memory=100)

@pytest.mark.parametrize('config', [dict(l1=-1.), dict(l2=-1.), dict(l1=0, l2=0)])
def test_settings_that_mean_nothing(config):
    with pytest.raises(ValueError, match='expected 0 or more, and not 0 both'): solved(table(), **config)

def test_reasons_sum_to_the_score():
    df = pd.DataFrame(dict(user_id=[1,1,2,2,3,3,4], item_id=list('ababbcc')))
    learn = fit(collab_learner(CollabDataLoaders.implicit_from_df(df, valid_pct=0, bs=4), arch=SLIM, config=dict(l1=.1, l2=1)), 1)
    assert learn.explain(3, 'a').contribution.sum()==pytest.approx(learn.predict(3, 'a'), rel=1e-5)
