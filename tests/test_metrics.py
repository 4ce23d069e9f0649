"Metrics by hand, and against scikit-learn where the definitions agree"
import numpy as np
import pytest
import torch
from fastai.basics import Learner
from fastai.metrics import mae, mse
from hypothesis import given, settings, strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import mean_squared_error, ndcg_score

from recfast.data.loaders import CollabDataLoaders
from recfast.learner import collab_learner
from recfast.metrics import RMSE, metric_comp, ndcg_at_k, recall_at_k, rmse
from recfast.testing import synth_ratings

D2,D3 = 1/np.log2(3),.5  # the discounts of places 2 and 3


@pytest.mark.parametrize('hits,n_rel,want', [
    ([1,0,0], 1, 1.), ([0,1,0], 1, D2), ([0,0,1], 1, D3), ([0,0,0], 1, 0.),
    ([1,0,1], 2, (1+D3)/(1+D2)), ([0,1,1], 2, (D2+D3)/(1+D2)), ([1,1,1], 3, 1.),
    ([1,1,1], 9, 1.),                      # a perfect list is perfect though nine cannot fit
    ([1,0,0], 9, 1/(1+D2+D3)),
])
def test_ndcg_by_hand(hits, n_rel, want): assert ndcg_at_k([hits], [n_rel]).tolist()==pytest.approx([want])

@pytest.mark.parametrize('hits,n_rel,want', [([1,0,0], 1, 1.), ([0,1,1], 4, .5), ([0,0,0], 2, 0.), ([1,1,1], 9, 1/3)])
def test_recall_by_hand(hits, n_rel, want): assert recall_at_k([hits], [n_rel]).tolist()==pytest.approx([want])

def test_a_user_without_relevant_items_has_no_value():
    for f in (ndcg_at_k, recall_at_k):
        got = f([[0,0],[1,0]], [0,1])
        assert np.isnan(got[0]) and got[1]==1

def test_metrics_of_nobody():
    for f in (ndcg_at_k, recall_at_k): assert f(np.zeros((0,5), bool), np.zeros(0, int)).shape==(0,)

def test_hits_may_be_booleans_or_lists():
    assert ndcg_at_k(np.array([[True,False]]), np.array([1], np.int32))==ndcg_at_k([[1,0]], [1])

@settings(max_examples=100, deadline=None)
@given(arrays(bool, (4,12)), st.integers(1,12), st.integers(0,999))
def test_ndcg_is_that_of_scikit_learn(relevant, k, seed):
    scores = np.random.RandomState(seed).permutation(48).reshape(4,12)  # no ties: it averages over them
    hits = np.take_along_axis(relevant, np.argsort(-scores, 1), 1)[:,:k]
    some = relevant.any(1)  # it gives 0 to a user without relevant items
    got = ndcg_at_k(hits, relevant.sum(1))[some]
    assert got.tolist()==pytest.approx([ndcg_score(r[None], s[None], k=k) for r,s in zip(relevant[some], scores[some])])

@settings(max_examples=50, deadline=None)
@given(arrays(bool, (6,8)), arrays(int, 6, elements=st.integers(0,20)))
def test_metrics_lie_between_0_and_1(hits, more):
    n_rel = hits.sum(1)+more
    for f in (ndcg_at_k, recall_at_k):
        v = f(hits, n_rel)
        assert (np.isnan(v)==(n_rel==0)).all() and ((v[n_rel>0]>=0) & (v[n_rel>0]<=1+1e-12)).all()


def trained(metrics):
    dls = CollabDataLoaders.from_df(synth_ratings(), seed=1, bs=32, val_bs=7)
    learn = collab_learner(dls, n_factors=3, metrics=metrics)
    with learn.no_bar(), learn.no_logging(): learn.fit(1, 1e-2)
    return learn

def test_rmse_is_taken_once_over_all_rows():
    learn = trained(rmse)
    logged = learn.recorder.values[-1][1:]
    with learn.no_bar(): preds,targs = learn.get_preds()
    want = mean_squared_error(targs.flatten(), preds.flatten())
    assert list(logged)==pytest.approx([want, want**.5], rel=1e-5)

def test_cells_that_were_not_rated_have_no_error():
    class Batch:
        pred,y = torch.tensor([[1.,4.,9.]]),torch.tensor([[2.,float('nan'),9.]])
        def to_detach(self, x): return x
    m = RMSE()
    m.reset()
    m.accumulate(Batch())
    assert m.value.item()==pytest.approx(0.5**0.5)

def test_rmse_is_called_rmse_in_the_table_of_an_epoch():
    assert trained([rmse, mae]).recorder.metric_names[3:5]==['rmse','mae']

def test_two_learners_do_not_share_what_they_accumulate():
    a,b = RMSE(),RMSE()
    a.reset(); a.accumulate(type('B', (), dict(pred=torch.zeros(2,1), y=torch.ones(2,1), to_detach=lambda self,x: x))())
    b.reset()
    assert a.value==1 and a.name==b.name=='rmse' and b.value is None


@pytest.mark.parametrize('name', ['train_loss','valid_loss','rmse','_rmse','mae','mse','msle','error_rate','my_mae'])
def test_errors_are_better_when_lower(name): assert metric_comp(name) is np.less

@pytest.mark.parametrize('name', ['accuracy','ndcg@10','recall@10','f1_score','remaerk','glossy'])
def test_anything_else_is_better_when_higher(name): assert metric_comp(name) is np.greater

def test_a_metric_may_say_otherwise():
    up = RMSE(); up.comp = np.greater
    assert metric_comp('rmse', [mse_metric(), up]) is np.greater and metric_comp('mae', [up]) is np.less

def mse_metric():
    from fastai.learner import AvgMetric
    return AvgMetric(mse)

def test_fastai_names_of_metrics_of_a_learner():
    learn = trained([mse, rmse])
    assert isinstance(learn, Learner) and [metric_comp(m.name, learn.metrics) for m in learn.metrics]==[np.less]*2
