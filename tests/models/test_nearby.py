"EASE that counts what was met near in time for more, against a dense float64 reference"
import numpy as np
import pandas as pd
import pytest
import torch

from recfast.bundle import load_bundle
from recfast.core import ArgumentError
from recfast.data.interactions import Interactions
from recfast.data.loaders import CollabDataLoaders
from recfast.data.vocab import Vocab
from recfast.learner import collab_learner
from recfast.models.ease import EASE
from recfast.models.nearby import moments, near_counts

CLASSES = dict(user=Vocab(np.arange(1, 31)), item=Vocab(np.arange(1, 21)))

def table(seed=0, kind=None):
    rs = np.random.RandomState(seed)
    u,i = np.nonzero(rs.rand(29, 19)<.4) # the last user and the last item have no row
    order = rs.permutation(len(u))
    u,i = u[order]+1,i[order]+1
    extra = dict(weights=rs.choice([0.,.5,4.], len(u))) if kind=='weights' else dict(values=rs.choice([1.,3.,5.], len(u)))
    return Interactions(u, i, times=rs.randint(0, 60, len(u)), classes=CLASSES, **extra)

def reference(ints, X, w, l2, near, span):
    "The formula, user by user"
    n = X.shape[1]
    N = np.zeros((n,n))
    for u in range(1, 31):
        at = np.flatnonzero(ints.users==u)
        m = np.unique(ints.times[at], return_inverse=True)[1]
        x = X[u,ints.items[at]]
        N[np.ix_(ints.items[at],ints.items[at])] += w[u]*np.outer(x, x)*np.exp(-abs(m[:,None]-m)/span)
    P = np.linalg.inv((1-near)*X.T@(w[:,None]*X)+near*N+l2*np.eye(n))
    B = -P/np.diag(P)
    np.fill_diagonal(B, 0)
    return B

def solved(ints, **config):
    model = EASE(ints.n_users, ints.n_items, **config)
    model.solve(ints)
    return model

@pytest.mark.parametrize('kind', [None,'weights','ratings'])
@pytest.mark.parametrize('near,span', [(.6,4.),(1.,1.)])
@pytest.mark.parametrize('double', [True,False])
def test_the_weights_are_those_of_the_formula(kind, near, span, double):
    ints = table(kind=kind)
    X = np.zeros((31,21))
    X[ints.users,ints.items] = dict(weights=ints.weights, ratings=ints.values).get(kind, 1)
    n = X.sum(1) if kind=='weights' else (X>0).sum(1)
    w = np.where(n>0, np.where(n>0, n, 1)/n[n>0].mean(), 1)**-.5
    model = solved(ints, l2=3., user_power=.5, near=near, span=span, double=double, use_ratings=kind=='ratings')
    B = reference(ints, X, w, 3., near, span)
    np.testing.assert_allclose(model.weight, B, rtol=1e-4, atol=1e-5*abs(B).max())
    np.testing.assert_allclose(model.score_items(torch.arange(31)), X@model.weight.numpy(), rtol=1e-4, atol=1e-4)

def test_no_share_and_an_endless_span_are_the_model_without_times():
    ints = table()
    plain = solved(ints, l2=3.).weight
    assert torch.equal(solved(ints, l2=3., near=0.).weight, plain)
    torch.testing.assert_close(solved(ints, l2=3., near=1., span=1e6).weight, plain, rtol=1e-4, atol=1e-5)

def test_moments_follow_the_order_of_times_alone():
    ints = table()
    other = ints[:]
    other.times = np.sqrt(ints.times)*1e6+7
    for a,b in zip(moments(ints), moments(other)): np.testing.assert_array_equal(a, b)

def test_of_a_repeated_pair_the_last_row_stands():
    ints = Interactions([1,1,1], [2,3,2], times=[1,5,9], classes=CLASSES)
    users,items,moment = moments(ints)
    assert list(items)==[3,2] and list(np.diff(moment))==[1] and not near_counts(ints, ints.csr()).diagonal().any()

def test_it_says_what_it_lacks():
    ints = table()
    ints.times = None
    with pytest.raises(ArgumentError, match='no times here to be near in'): solved(ints, l2=1., near=.5)
    with pytest.raises(ArgumentError, match='span=0'): solved(table(), l2=1., near=.5, span=0)
    with pytest.raises(ValueError, match='near=1.5, expected a number from 0 to 1'): EASE(31, 21, near=1.5)

def test_a_bundle_answers_alike_and_takes_rows_in_the_same_moments(tmp_path):
    df = table().timed_frame()
    learn = collab_learner(CollabDataLoaders.implicit_from_df(df, valid_pct=0, user_name='user', item_name='item', time_name='timestamp'), arch=EASE, config=dict(l2=3., near=.5))
    learn.fit(1)
    rec = load_bundle(learn.save_bundle(tmp_path/'near.recfast'))
    assert rec.recommend(k=5).equals(learn.recommend(k=5))
    assert rec.recommend(history=[3,4], k=5).equals(learn.recommend(history=[3,4], k=5))
    later = pd.DataFrame(dict(user=[1,30], item=[20,7], timestamp=[99,99]))
    both = CollabDataLoaders.implicit_from_df(pd.concat([df[[*later]],later]), valid_pct=0, user_name='user', item_name='item', time_name='timestamp')
    anew = collab_learner(both, arch=EASE, config=dict(l2=3., near=.5))
    anew.fit(1)
    lists = [o.recommend([1,2,30], k=5, exclude_seen=False) for o in (learn.recommender.add_ratings(later),anew)]
    pd.testing.assert_frame_equal(*lists, rtol=1e-4)
