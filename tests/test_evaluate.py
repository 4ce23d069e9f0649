"Evaluation against a slow dense reference, and the words of its protocol"
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import nn

from recfast.core import RatingsError
from recfast.data.loaders import CollabDataLoaders, Interactions, Vocab
from recfast.evaluate import evaluate_recommender, hit_lists, rating_errors
from recfast.learner import collab_learner
from recfast.metrics import ndcg_at_k, recall_at_k
from recfast.testing import block_ratings, synth_ratings


class Table(nn.Module):
    "Scores looked up in a table"
    def __init__(self, scores): super().__init__(); self.scores = nn.Parameter(torch.as_tensor(scores, dtype=torch.float32))
    def forward(self, x): return self.scores[x[:,0],x[:,1]]

def rows(pairs, n_users, n_items, values=None):
    "Interactions of (user row, item row) pairs; ids are 100+row and 'i<row>'"
    u,i = np.array(pairs, int).reshape(-1,2).T
    classes = {'user': Vocab([100+r for r in range(1,n_users)]), 'item': Vocab([f'i{r:02}' for r in range(1,n_items)])}
    return Interactions(u, i, np.ones(len(u)) if values is None else values, classes=classes)

def reference(scores, train, test, k):
    "{user row: (hits, n_rel)}, the plain way"
    seen,cand = set(map(tuple, train)),sorted({i for _,i in train if i>0})
    known,out = {u for u,_ in train},{}
    for u in sorted({u for u,_ in test if u>0 and u in known}):
        warm = {i for v,i in test if v==u and i>0 and (u,i) not in seen}
        n_rel = len(warm)+sum(1 for v,i in test if v==u and i==0)
        best = sorted((i for i in cand if (u,i) not in seen), key=lambda i: (-scores[u][i], i))[:k]
        if n_rel: out[u] = [i in warm for i in best]+[False]*(k-len(best)),n_rel
    return out

pair_lists = lambda lo: st.lists(st.tuples(st.integers(lo,7), st.integers(lo,9)), min_size=1, max_size=60)

@settings(max_examples=150, deadline=None)
@given(pair_lists(1), pair_lists(0), st.integers(1,15), st.integers(0,999))
def test_hits_are_those_of_a_plain_loop(train, test, k, seed):
    scores = np.random.RandomState(seed).randint(0, 4, (8,10)).astype(float)  # many ties
    users,hits,n_rel = hit_lists(Table(scores), rows(train, 8, 10), rows(test, 8, 10), k)
    want = reference(scores, train, test, k)
    assert users.tolist()==list(want) and n_rel.tolist()==[n for _,n in want.values()]
    assert hits.tolist()==[h for h,_ in want.values()]

@settings(max_examples=30, deadline=None)
@given(pair_lists(1), pair_lists(0), st.integers(0,999))
def test_the_summary_is_the_mean_over_users_of_the_reference(train, test, seed):
    scores = np.random.RandomState(seed).rand(8,10)
    ev = evaluate_recommender(Table(scores), rows(train, 8, 10), rows(test, 8, 10), k=(3,5))
    want = reference(scores, train, test, 5)
    assert ev.per_user.user_id.tolist()==[100+u for u in want] and ev.per_user.n_test.tolist()==[n for _,n in want.values()]
    for k in (3,5):
        for name,f in (('ndcg',ndcg_at_k), ('recall',recall_at_k)):
            vals = [f([h[:k]], [n])[0] for h,n in want.values()]
            assert ev[f'{name}@{k}']==pytest.approx(np.mean(vals) if vals else np.nan, nan_ok=True)

@settings(max_examples=30, deadline=None)
@given(pair_lists(0), st.integers(0,999))
def test_rating_errors_count_every_row(test, seed):
    rs = np.random.RandomState(seed)
    scores,values = rs.rand(8,10)*6,rs.randint(1, 6, len(test)).astype('float32')
    err = np.array([scores[u,i] for u,i in test])-values
    got = rating_errors(Table(scores), rows(test, 8, 10, values))
    assert got==pytest.approx({'rmse': (err**2).mean()**.5, 'mae': np.abs(err).mean()}, rel=1e-5, abs=1e-6)  # scores are float32

def test_predictions_are_clipped_only_when_asked_to():
    model,test = Table(np.full((3,3), 9.)),rows([(1,1),(2,2)], 3, 3, [5,4])
    assert rating_errors(model, test)=={'rmse': pytest.approx(((16+25)/2)**.5), 'mae': 4.5}
    assert rating_errors(model, test, (1,5))=={'rmse': pytest.approx(.5**.5), 'mae': .5}


UPWARD = Table(np.arange(5.)*np.ones((4,1)))  # everyone's best item is item 4, then 3, 2, 1

def test_training_rows_are_masked():
    users,hits,n_rel = hit_lists(UPWARD, rows([(1,4),(2,3),(2,2),(2,1)], 4, 5), rows([(1,3)], 4, 5), 1)
    assert users.tolist()==[1] and hits.tolist()==[[True]]

def test_validation_rows_are_not_masked():
    train,test = rows([(1,1),(2,4),(3,3)], 4, 5),rows([(1,4),(1,3)], 4, 5)
    assert hit_lists(UPWARD, train, test, 2)[1].tolist()==[[True,True]]

def test_an_untrained_item_is_no_candidate_and_stays_in_the_denominator():
    train,test = rows([(1,1),(2,3)], 4, 5),rows([(1,4),(1,3)], 4, 5)
    users,hits,n_rel = hit_lists(UPWARD, train, test, 3)
    assert hits.tolist()==[[True,False,False]] and n_rel.tolist()==[2]

def test_a_user_without_a_training_row_is_skipped_though_the_vocabulary_knows_it():
    ev = evaluate_recommender(UPWARD, rows([(1,1),(2,3)], 4, 5), rows([(1,3),(3,1)], 4, 5), 1)
    assert ev.per_user.user_id.tolist()==[101] and '(1 of users and 0 of items never trained)' in ev.protocol

def test_more_relevant_items_than_the_catalogue_holds():
    ev = evaluate_recommender(UPWARD, rows([(1,1),(2,3)], 4, 5), rows([(1,3)]+[(1,0)]*9, 4, 5), 10)
    assert ev['recall@10']==.1 and ev['ndcg@10']==pytest.approx(1/(1/np.log2(np.arange(10)+2)).sum())


def test_the_protocol_counts():
    train = rows([(1,1),(1,2),(2,1),(2,3),(3,2)], 4, 6)
    test = rows([(1,3),(1,3),(1,1),(2,2),(2,0),(2,5),(0,1),(0,0)], 4, 6)
    ev = evaluate_recommender(Table(np.ones((4,6))), train, test, 2, note='by hand')
    assert "8 test rows (2 of users and 3 of items never trained)" in ev.protocol     # users 0,0; items 0,5,0
    assert "ranking: 2 users, all 3 trained items less the user's own training rows" in ev.protocol
    assert "2 test rows repeat a pair and count once or, seen in training, not at all" in ev.protocol  # (1,3) again, (1,1)
    assert ev.protocol.endswith('by hand.') and ev.per_user.n_test.tolist()==[1,3]

def test_the_protocol_does_not_speak_of_what_did_not_happen():
    ev = evaluate_recommender(UPWARD, rows([(1,1),(2,3)], 4, 5), rows([(1,3)], 4, 5), 1)
    assert 'repeat' not in ev.protocol and 'clipped' not in ev.protocol and str(ev).count('\n')==4

def test_a_clip_is_in_the_protocol():
    ev = evaluate_recommender(UPWARD, rows([(1,1),(2,3)], 4, 5), rows([(1,3)], 4, 5), 1, clip=(1,5))
    assert 'predictions clipped to (1, 5)' in ev.protocol

def test_the_per_user_frame():
    ev = evaluate_recommender(UPWARD, rows([(1,1),(2,3),(3,4)], 4, 5), rows([(1,4),(3,1),(3,3)], 4, 5), k=(1,2))
    assert list(ev.per_user)==['user_id','n_test','ndcg@1','recall@1','ndcg@2','recall@2']
    assert ev.per_user.set_index('user_id')['recall@2'].to_dict()=={101: 1., 103: 1.}
    assert ev.per_user.set_index('user_id')['recall@1'].to_dict()=={101: 1., 103: .5}

def test_several_k_agree_with_one():
    df = synth_ratings()
    dls = CollabDataLoaders.from_df(df, seed=1)
    args = Table(np.random.RandomState(0).rand(51,41)),dls.interactions('train'),dls.interactions('valid')
    whole = evaluate_recommender(*args, k=[10,3,3]).summary
    assert list(whole)==['rmse','mae','ndcg@3','recall@3','ndcg@10','recall@10']
    assert {**evaluate_recommender(*args, k=3).summary, **evaluate_recommender(*args, k=np.int64(10)).summary}==whole

def test_the_memory_budget_changes_nothing():
    dls = CollabDataLoaders.from_df(synth_ratings(), seed=1)
    args = Table(np.random.RandomState(0).rand(51,41)),dls.interactions('train'),dls.interactions('valid')
    pd.testing.assert_frame_equal(evaluate_recommender(*args).per_user, evaluate_recommender(*args, memory=1, progress=False).per_user)

def test_nothing_to_measure_on():
    dls = CollabDataLoaders.from_df(block_ratings(), valid_pct=0, seed=1)
    with pytest.raises(RatingsError, match='valid_pct above 0'):
        evaluate_recommender(UPWARD, dls.interactions('train'), dls.interactions('valid'))

@pytest.mark.parametrize('k', [0, -1, (5,0)])
def test_a_list_of_no_length(k):
    with pytest.raises(ValueError, match='1 or more'): evaluate_recommender(UPWARD, rows([(1,1)], 4, 5), rows([(1,3)], 4, 5), k)

def test_the_verb_of_a_learner_measures_its_validation_rows():
    dls = CollabDataLoaders.from_df(synth_ratings(), seed=1)
    learn = collab_learner(dls, n_factors=3)
    want = evaluate_recommender(learn.model, dls.interactions('train'), dls.interactions('valid'), 5, (1,5))
    got = learn.evaluate(k=5, clip=(1,5))
    assert got.summary==want.summary and got.protocol==want.protocol[:-1]+'. random split; a time column was there.'
