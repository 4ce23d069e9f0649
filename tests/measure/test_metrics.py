"Metrics by hand, and against scikit-learn where the definitions agree"
from itertools import combinations

import numpy as np
import pytest
import torch
from fastai.basics import Learner
from fastai.metrics import mae, mse
from hypothesis import given, settings, strategies as st
from hypothesis.extra.numpy import arrays
from scipy.sparse import csr_matrix
from sklearn.metrics import average_precision_score, mean_squared_error, ndcg_score, precision_score, recall_score, roc_auc_score

from helpers import fit
from recfast.data.loaders import CollabDataLoaders
from recfast.learner import collab_learner
from recfast.metrics import (RANKING_METRICS, RMSE, auc, auc_from_ranks, average_precision_at_k, coverage_at_k, diversity_at_k, gini_at_k, hit_rate_at_k,
    metric_comp, mrr_at_k, ndcg_at_k, novelty_at_k, parse_metric, popularity_at_k, precision_at_k, recall_at_k, rmse)
from recfast.testing import synth_ratings

D2,D3 = 1/np.log2(3),.5  # the discounts of places 2 and 3
ALL = list(RANKING_METRICS.values())


@pytest.mark.parametrize('hits,n_rel,want', [
    ([1,0,0], 1, 1.), ([0,1,0], 1, D2), ([0,0,1], 1, D3), ([0,0,0], 1, 0.),
    ([1,0,1], 2, (1+D3)/(1+D2)), ([0,1,1], 2, (D2+D3)/(1+D2)), ([1,1,1], 3, 1.),
    ([1,1,1], 9, 1.),                      # a perfect list is perfect though nine cannot fit
    ([1,0,0], 9, 1/(1+D2+D3)),
])
def test_ndcg_by_hand(hits, n_rel, want): assert ndcg_at_k([hits], [n_rel]).tolist()==pytest.approx([want])

def test_ndcg_against_an_ideal_list_of_all_relevant_items():
    assert ndcg_at_k([[1,1]], [3], ideal='rel').tolist()==pytest.approx([(1+D2)/(1+D2+D3)])
    assert ndcg_at_k([[1,1]], [1], ideal='rel')==ndcg_at_k([[1,1]], [1])

@pytest.mark.parametrize('hits,n_rel,want', [([1,0,0], 1, 1.), ([0,1,1], 4, .5), ([0,0,0], 2, 0.), ([1,1,1], 9, 1/3)])
def test_recall_by_hand(hits, n_rel, want): assert recall_at_k([hits], [n_rel]).tolist()==pytest.approx([want])

def test_recall_of_what_fits_into_the_list():
    assert recall_at_k([[1,1,0],[1,0,0]], [9,1], denominator='min').tolist()==pytest.approx([2/3,1.])

def test_precision_divides_by_k_or_by_what_was_returned():
    hits,n = [[1,0,1,0],[1,0,0,0],[0,0,0,0]],[2,9,1]
    assert precision_at_k(hits, n).tolist()==[.5,.25,0.]
    assert precision_at_k(hits, n, returned=[4,1,0]).tolist()==[.5,1.,0.]  # a list that returned nothing found nothing

def test_hit_rate_by_hand(): assert hit_rate_at_k([[0,1,1],[0,0,0]], [2,1]).tolist()==[1,0]

@pytest.mark.parametrize('hits,n_rel,want', [([1,0,1], 2, (1+2/3)/2), ([0,1,1], 9, (1/2+2/3)/3), ([0,0,0], 1, 0.), ([1,1,1], 9, 1.)])
def test_average_precision_by_hand(hits, n_rel, want): assert average_precision_at_k([hits], [n_rel]).tolist()==pytest.approx([want])

def test_average_precision_over_all_relevant_items():
    assert average_precision_at_k([[0,1,1]], [9], denominator='rel').tolist()==pytest.approx([(1/2+2/3)/9])

@pytest.mark.parametrize('hits,want', [([1,1,0], 1.), ([0,1,1], 1/2), ([0,0,1], 1/3), ([0,0,0], 0.)])
def test_reciprocal_rank_is_that_of_the_first_hit(hits, want): assert mrr_at_k([hits], [2]).tolist()==[want]

@pytest.mark.parametrize('f', ALL)
def test_a_user_without_relevant_items_has_no_value(f):
    got = f([[0],[1]], [0,1])
    assert np.isnan(got[0]) and got[1]==1

@pytest.mark.parametrize('f', ALL)
def test_metrics_of_nobody(f): assert f(np.zeros((0,5), bool), np.zeros(0, int)).shape==(0,)

@pytest.mark.parametrize('f', ALL)
def test_hits_may_be_booleans_numbers_or_lists(f):
    want = f([[0,1,1]], [2])
    for hits in (np.array([[False,True,True]]), np.array([[0.,1.,1.]], np.float32)): assert f(hits, np.array([2], np.int32))==want

@pytest.mark.parametrize('f', ALL)
def test_a_shorter_k_cuts_the_lists(f): assert f([[0,1,1,0]], [3], k=2)==f([[0,1]], [3])

@pytest.mark.parametrize('f', ALL)
def test_places_beyond_the_list_are_misses(f): assert f([[0,1]], [3], k=4)==f([[0,1,0,0]], [3])

@pytest.mark.parametrize('hits,n_rel', [([1,0], [1]), ([[1,0]], [1,2]), ([[1,0]], 1)])
def test_one_row_per_user(hits, n_rel):
    with pytest.raises(ValueError, match=r'expected \[U,k\] and \[U\]'): ndcg_at_k(hits, n_rel)

@pytest.mark.parametrize('f,arg', [(recall_at_k,'denominator'), (average_precision_at_k,'denominator'), (ndcg_at_k,'ideal')])
def test_a_dialect_that_is_not_there(f, arg):
    with pytest.raises(ValueError, match=f"{arg}='all', expected '(rel' or 'min|min' or 'rel)'"): f([[1]], [1], **{arg: 'all'})

def ranked(seed, n_users=4, n_items=12, ties=False):
    "Scores, relevant items (some, not all, of every user's), and the hits of the whole ranking"
    rs = np.random.RandomState(seed)
    scores = rs.randint(0, 4, (n_users,n_items)) if ties else rs.permutation(n_users*n_items).reshape(n_users,n_items)
    relevant = rs.rand(n_users, n_items)<rs.rand()
    relevant[:,0],relevant[:,1] = True,False
    return scores.astype(float),relevant,np.take_along_axis(relevant, np.argsort(-scores, 1, kind='stable'), 1)

@pytest.mark.parametrize('seed', range(50))
def test_metrics_are_those_of_scikit_learn(seed):
    s,r,hits = ranked(seed)
    n,k = r.sum(1),1+seed%12
    each = lambda f, **kw: pytest.approx([f(a, b, **kw) for a,b in zip(r, s)], abs=1e-12)
    top = lambda f: [f(a, np.isin(np.arange(12), np.argsort(-b)[:k]), zero_division=0) for a,b in zip(r, s)]
    assert ndcg_at_k(hits, n, k).tolist()==pytest.approx([ndcg_score(a[None], b[None], k=k) for a,b in zip(r, s)])
    assert average_precision_at_k(hits, n, denominator='rel').tolist()==each(average_precision_score)
    assert auc(s, r).tolist()==each(roc_auc_score)
    assert recall_at_k(hits, n, k).tolist()==pytest.approx(top(recall_score))
    assert precision_at_k(hits, n, k).tolist()==pytest.approx(top(precision_score))

@pytest.mark.parametrize('seed', range(20))
def test_tied_scores_count_half_in_auc_as_in_scikit_learn(seed):
    s,r,_ = ranked(seed, ties=True)
    assert auc(s, r).tolist()==pytest.approx([roc_auc_score(a, b) for a,b in zip(r, s)])

@settings(max_examples=100, deadline=None)
@given(arrays(bool, (6,8)), arrays(int, 6, elements=st.integers(0,20)), st.integers(1,12))
def test_metrics_keep_their_bounds_and_order(hits, more, k):
    n_rel = hits.sum(1)+more
    some,v = n_rel>0,{n: f(hits, n_rel, k) for n,f in RANKING_METRICS.items()}
    for o in v.values(): assert (np.isnan(o)==~some).all() and ((o[some]>=0) & (o[some]<=1+1e-12)).all()
    for name in v: assert (v[name]<=v['hit']+1e-12)[some].all()  # nothing without a hit

@settings(max_examples=50, deadline=None)
@given(arrays(bool, (5,7)), arrays(int, 5, elements=st.integers(0,9)))
def test_lists_are_what_loops_over_places_make_of_them(hits, more):
    n_rel = hits.sum(1)+more
    def loop(h, n):
        places = [j for j,o in enumerate(h, 1) if o]
        ap = sum(sum(h[:j])/j for j in places)
        gain = lambda js: sum(1/np.log2(j+1) for j in js)
        return [gain(places)/gain(range(1, min(n,7)+1)), len(places)/n, len(places)/7, float(bool(places)), ap/min(n, 7), 1/places[0] if places else 0.]
    for u in np.flatnonzero(n_rel): assert [f(hits, n_rel)[u] for f in ALL]==pytest.approx(loop(hits[u], n_rel[u]))


def test_auc_by_hand():
    assert auc([[4,3,2,1]], [[1,0,0,1]]).tolist()==[.5]
    assert auc([[4,3,3,1]], [[0,1,0,0]]).tolist()==pytest.approx([1.5/3])  # below one, level with one, above one

def test_auc_of_ranks_is_auc_of_scores():
    s,r,_ = ranked(0, ties=True)
    ranks = np.array([[1+(o>x).sum()+((o==x).sum()-1)/2 for x in o] for o in s])
    assert auc_from_ranks((ranks*r).sum(1), r.sum(1), 12).tolist()==pytest.approx(auc(s, r).tolist())

def test_auc_without_a_pair_to_compare(): assert np.isnan(auc([[1,2],[1,2]], [[0,0],[1,1]])).all()

def test_auc_looks_at_candidates_and_counts_a_relevant_item_that_is_none_as_lost():
    s,cand = [[9,4,3,2]],[False,True,True,True]
    assert auc(s, [[0,1,0,0]], cand).tolist()==[1.]
    assert auc(s, [[1,1,0,0]], cand).tolist()==[.5]  # 2 of 4 pairs, though its score is the highest
    assert auc([[9,1,1,1]], [[0,1,0,0]], cand).tolist()==[.5]

def test_auc_of_nobody(): assert auc(np.zeros((0,4)), np.zeros((0,4), bool)).shape==(0,)


LISTS = np.array([[1,2,3],[1,4,0],[0,0,0]])

def test_coverage_does_not_count_empty_places():
    assert coverage_at_k(LISTS, 8)==.5 and coverage_at_k(np.zeros((2,3), int), 8)==0 and np.isnan(coverage_at_k(LISTS, 0))

def test_gini_by_hand():
    assert gini_at_k(LISTS, 4)==pytest.approx(((-3)+(-1)+1+3*2)/(4*5))  # 1, 1, 1, 2 times
    assert gini_at_k([[7]]*9, 100)==pytest.approx(.99) and gini_at_k([[1],[2]], 2)==0 and np.isnan(gini_at_k([[0]], 5))

def test_novelty_is_in_bits():
    got = novelty_at_k(LISTS, [99,8,4,2,0], 8)  # 0, 1, 2 bits; an item nobody has is known to one: 3 bits
    assert got[:2].tolist()==pytest.approx([1.,1.5]) and np.isnan(got[2])

def test_popularity_and_its_lift():
    counts = [99,8,4,3,0]
    assert popularity_at_k(LISTS, counts)[:2].tolist()==[5,4]
    assert popularity_at_k(LISTS, counts, profile=[2.5,4,1])[:2].tolist()==[1,0] and np.isnan(popularity_at_k(LISTS, counts)[2])

def test_diversity_by_hand():
    vecs = np.array([[9,9],[2,0],[0,3],[1,1],[0,0]])
    got = diversity_at_k([[1,2,0],[1,3,0],[1,2,3],[1,4,0],[1,0,0]], vecs)
    c = np.sqrt(.5)  # the cosine at 45 degrees; a zero vector is like nothing else; one item is no list
    assert got[:4].tolist()==pytest.approx([1,1-c,1-2*c/3,1]) and np.isnan(got[4])

@settings(max_examples=50, deadline=None)
@given(st.integers(0,999), st.integers(1,5), st.booleans())
def test_diversity_is_the_mean_over_pairs(seed, chunk, sparse):
    rs = np.random.RandomState(seed)
    vecs,items = rs.randn(9,3)*(rs.rand(9,3)<.6),np.array([rs.permutation(9)[:4] for _ in range(7)])
    cos = lambda a,b: a@b/np.sqrt((a@a)*(b@b)) if a.any() and b.any() else 0
    def loop(row):
        pairs = [cos(vecs[i], vecs[j]) for i,j in combinations(row[row>0], 2)]
        return 1-np.mean(pairs)
    got = diversity_at_k(items, csr_matrix(vecs) if sparse else vecs, chunk)
    assert got.tolist()==pytest.approx([loop(o) for o in items])

def test_lists_of_nobody():
    none = np.zeros((0,3), int)
    assert diversity_at_k(none, np.eye(4)).shape==novelty_at_k(none, [0,1], 2).shape==popularity_at_k(none, [0,1]).shape==(0,)
    assert coverage_at_k(none, 4)==0


@pytest.mark.parametrize('name,want', [('ndcg@10', ('ndcg',10)), ('hit@1', ('hit',1)), ('coverage@20', ('coverage',20)), ('auc', ('auc',None)),
    ('rmse', ('rmse',None))])
def test_the_name_of_a_metric(name, want): assert parse_metric(name)==want

@pytest.mark.parametrize('name', ['ndcg','ndcg@','ndcg@0','ndcg@-1','ndcg@ten','ndcg@1.5','NDCG@10','auc@10','auc@','accuracy','','@10',7])
def test_a_name_that_is_none(name):
    with pytest.raises(ValueError, match=f"no metric {name!r}; .*there are ndcg@k, recall@k.* auc, rmse, mae"): parse_metric(name)

@pytest.mark.parametrize('name,near', [('NDCG@5','ndcg@5'), ('recal@20','recall@20'), ('presision@3','precision@3'), ('ndcg','ndcg@10'), ('auc@10','auc')])
def test_the_nearest_name_is_suggested(name, near):
    with pytest.raises(ValueError, match=f"did you mean '{near}'"): parse_metric(name)


def trained(metrics):
    dls = CollabDataLoaders.from_df(synth_ratings(), seed=1, bs=32, val_bs=7)
    return fit(collab_learner(dls, n_factors=3, metrics=metrics), 1, 1e-2)

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


@pytest.mark.parametrize('name', ['train_loss','valid_loss','rmse','_rmse','mae','mse','msle','error_rate','my_mae','gini@10','popularity@5'])
def test_errors_are_better_when_lower(name): assert metric_comp(name) is np.less

@pytest.mark.parametrize('name', ['accuracy','ndcg@10','recall@10','precision@5','hit@10','map@10','mrr@10','auc','coverage@10','novelty@5',
    'diversity@10','f1_score'])
def test_these_are_better_when_higher(name): assert metric_comp(name) is np.greater

@pytest.mark.parametrize('name', ['remaerk','glossy'])
def test_of_anything_else_the_direction_is_asked_for(name):
    with pytest.raises(ValueError, match='Pass comp=np.less where lower is better'): metric_comp(name)

def test_a_metric_may_say_otherwise():
    up = RMSE(); up.comp = np.greater
    assert metric_comp('rmse', [mse_metric(), up]) is np.greater and metric_comp('mae', [up]) is np.less

def mse_metric():
    from fastai.learner import AvgMetric
    return AvgMetric(mse)

def test_fastai_names_of_metrics_of_a_learner():
    learn = trained([mse, rmse])
    assert isinstance(learn, Learner) and [metric_comp(m.name, learn.metrics) for m in learn.metrics]==[np.less]*2
