"Evaluation against a slow dense reference, and the words of its protocol"
import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import nn

from recfast.core import LeakageWarning, RatingsError, RecfastError, UnknownIdError
from recfast.data.loaders import CollabDataLoaders, Interactions, Vocab
from recfast.data.implicit import LabelDataLoaders
from recfast.evaluate import evaluate_recommender, find_candidates, hit_lists, rating_errors, truth
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
    assert 'users never trained are skipped (1)' in ev.protocol and ev.counts['skipped_users']==1

def test_more_relevant_items_than_the_catalogue_holds():
    ev = evaluate_recommender(UPWARD, rows([(1,1),(2,3)], 4, 5), rows([(1,3)]+[(1,0)]*9, 4, 5), 10)
    assert ev['recall@10']==.1 and ev['ndcg@10']==pytest.approx(1/(1/np.log2(np.arange(10)+2)).sum())


def test_the_protocol_counts():
    train = rows([(1,1),(1,2),(2,1),(2,3),(3,2)], 4, 6)
    test = rows([(1,3),(1,3),(1,1),(2,2),(2,0),(2,5),(0,1),(0,0)], 4, 6)
    ev = evaluate_recommender(Table(np.ones((4,6))), train, test, 2, note='by hand')
    assert "8 test rows (2 of users and 3 of items never trained)" in ev.protocol     # users 0,0; items 0,5,0
    assert "ranking: 2 users, all 3 trained items less the user's own training rows" in ev.protocol
    assert "2 test rows repeat a pair and count once or, left out as seen, not at all" in ev.protocol  # (1,3) again, (1,1)
    assert ev.protocol.endswith('by hand.') and ev.per_user.n_test.tolist()==[1,3]

def test_the_protocol_does_not_speak_of_what_did_not_happen():
    ev = evaluate_recommender(UPWARD, rows([(1,1),(2,3)], 4, 5), rows([(1,3)], 4, 5), 1)
    assert not any(o in ev.protocol for o in ('repeat','clipped','skipped','leakage','not among'))

def test_a_clip_is_in_the_protocol():
    ev = evaluate_recommender(UPWARD, rows([(1,1),(2,3)], 4, 5), rows([(1,3)], 4, 5), 1, clip=(1,5))
    assert 'predictions clipped to (1, 5)' in ev.protocol

def test_the_per_user_frame():
    ev = evaluate_recommender(UPWARD, rows([(1,1),(2,3),(3,4)], 4, 5), rows([(1,4),(3,1),(3,3)], 4, 5), k=(1,2))
    bases = ['ndcg','recall','precision','hit','map','mrr','novelty','popularity']
    assert list(ev.per_user)==['user_id','n_test',*(f'{b}@{k}' for k in (1,2) for b in bases)]
    assert ev.per_user.set_index('user_id')['recall@2'].to_dict()=={101: 1., 103: 1.}
    assert ev.per_user.set_index('user_id')['recall@1'].to_dict()=={101: 1., 103: .5}

def test_several_k_agree_with_one():
    df = synth_ratings()
    dls = CollabDataLoaders.from_df(df, seed=1)
    args = Table(np.random.RandomState(0).rand(51,41)),dls.interactions('train'),dls.interactions('valid')
    whole = evaluate_recommender(*args, k=[10,3,3]).summary
    bases = ['ndcg','recall','precision','hit','map','mrr','coverage','novelty','popularity']
    assert list(whole)==['rmse','mae',*(f'{b}@{k}' for k in (3,10) for b in bases)]
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
    want = evaluate_recommender(learn.model, dls.interactions('train'), dls.interactions('valid'), 5, clip=(1,5))
    with pytest.warns(LeakageWarning): got = learn.evaluate(k=5, clip=(1,5))
    assert got.summary==want.summary and got.protocol==want.protocol[:-1]+'. random split; a time column was there.'


# candidates

def listed_reference(scores, train, test, lists, k):
    "{user row: (hits, n_rel)} among given lists, the plain way"
    seen,warm,out = set(train),{i for _,i in train},{}
    for u in sorted({u for u,_ in test if u in {v for v,_ in train} and u in lists}):
        rel = {i for v,i in test if v==u and i>0 and (u,i) not in seen}
        n_rel = len(rel)+sum(1 for v,i in test if v==u and i==0)
        best = sorted({i for i in lists[u] if i in warm and (u,i) not in seen}, key=lambda i: (-scores[u][i], i))[:k]
        if n_rel: out[u] = [i in rel for i in best]+[False]*(k-len(best)),n_rel
    return out

ids = lambda pairs: pd.DataFrame([(100+u,f'i{i:02}') for u,i in pairs], columns=['user_id','item_id'])

def check(got, want):
    users,hits,n_rel = got
    assert users.tolist()==list(want) and n_rel.tolist()==[n for _,n in want.values()] and hits.tolist()==[h for h,_ in want.values()]

@settings(max_examples=100, deadline=None)
@given(pair_lists(1), pair_lists(0), pair_lists(1), st.integers(1,12), st.integers(0,999))
def test_given_lists_are_those_of_a_plain_loop(train, test, lists, k, seed):
    scores = np.random.RandomState(seed).randint(0, 4, (8,10)).astype(float)
    want = listed_reference(scores, train, test, {u: [i for v,i in lists if v==u] for u,_ in lists}, k)
    check(hit_lists(Table(scores), rows(train, 8, 10), rows(test, 8, 10), k, ids(lists)), want)

@settings(max_examples=100, deadline=None)
@given(pair_lists(1), pair_lists(0), st.lists(st.integers(1,9), min_size=1, max_size=9), st.integers(1,12), st.integers(0,999))
def test_a_part_of_the_catalogue_is_the_same_list_for_all(train, test, items, k, seed):
    scores = np.random.RandomState(seed).randint(0, 4, (8,10)).astype(float)
    want = listed_reference(scores, train, test, {u: items for u in range(1,8)}, k)
    check(hit_lists(Table(scores), rows(train, 8, 10), rows(test, 8, 10), k, [f'i{i:02}' for i in items]), want)

TRAIN,HELD = [(1,1),(2,2),(2,3),(2,4),(3,1)],[(1,3),(2,1)]

def test_a_relevant_item_outside_its_list_is_a_miss_and_is_counted():
    ev = evaluate_recommender(UPWARD, rows(TRAIN, 4, 5), rows(HELD, 4, 5), 1, ids([(1,2),(1,4),(2,1)]))
    assert ev.per_user['hit@1'].tolist()==[0,1] and ev.counts['unranked_pairs']==1
    assert '1 relevant items are not among the candidates and count as misses' in ev.protocol

def test_an_item_that_stands_twice_in_a_list_is_one_candidate():
    for twice in ([], [(1,3)]*5, [(1,4)]*5):
        ev = evaluate_recommender(UPWARD, rows(TRAIN, 4, 5), rows(HELD, 4, 5), 2, ids([(1,3),(1,4),(2,1)]+twice))
        assert ev.per_user['mrr@2'].tolist()==[.5,1]
    assert '5 of its rows repeat a pair' in ev.protocol

def test_a_training_row_in_a_list_stays_masked():
    ev = evaluate_recommender(UPWARD, rows(TRAIN, 4, 5), rows(HELD, 4, 5), 1, ids([(2,4),(2,1),(1,3)]))
    assert ev['hit@1']==1 and '1 of its rows are training rows of the user' in ev.protocol

def test_users_without_a_list_are_skipped():
    ev = evaluate_recommender(UPWARD, rows(TRAIN, 4, 5), rows(HELD, 4, 5), 1, ids([(2,1)]))
    assert ev.per_user.user_id.tolist()==[102] and '1 users without a list are skipped' in ev.protocol

@pytest.mark.parametrize('bad,match', [('some', "expected 'all'"), ({'sampled': 0}, 'sampled'), ({'n': 9}, 'sampled'), ([], 'nothing to rank')])
def test_candidates_that_say_nothing(bad, match):
    with pytest.raises(RatingsError, match=match): evaluate_recommender(UPWARD, rows(TRAIN, 4, 5), rows(HELD, 4, 5), 1, bad)

def test_candidates_of_another_type():
    with pytest.raises(UnknownIdError, match='of type str'): evaluate_recommender(UPWARD, rows(TRAIN, 4, 5), rows(HELD, 4, 5), 1, [3,4])
    with pytest.raises(RatingsError, match='user_id and item_id'): evaluate_recommender(UPWARD, rows(TRAIN, 4, 5), rows(HELD, 4, 5), 1, pd.DataFrame({'item_id': ['i01']}))

def sampled(n, seed=0, n_users=30, n_items=60):
    rs = np.random.RandomState(5)
    pairs = [*zip(rs.randint(1, n_users, 300).tolist(), rs.randint(1, n_items-5, 300).tolist())]  # the last items are never trained
    train,test = rows(pairs[:200], n_users, n_items),rows(pairs[200:], n_users, n_items)
    t = truth(train, test)
    c = find_candidates({'sampled': n, 'seed': seed}, train, test, t)
    pos,items = c.lists(t.users, 0)
    return train,test,t,[set(items[pos==j].tolist()) for j in range(len(t.users))],len(items)

def test_what_is_drawn_was_trained_and_is_in_neither_part():
    train,test,t,lists,n = sampled(7)
    for u,own in zip(t.users, lists):
        rel = set(t.rel[u].indices)
        drawn = own-rel
        assert len(drawn)==7 and (train.counts()[[*drawn]]>0).all() and not drawn & set((train.csr()+test.csr())[u].indices)
    assert n==sum(map(len, lists))

def test_where_fewer_are_left_all_of_them_are_candidates():
    train,test,t,lists,_ = sampled(1000)
    warm = set(np.flatnonzero(train.counts()[1:])+1)
    for u,own in zip(t.users, lists): assert own==warm-set(train.csr()[u].indices)-(set(test.csr()[u].indices)-set(t.rel[u].indices))

def test_draws_follow_the_seed(): assert sampled(7)[3]==sampled(7)[3]!=sampled(7, seed=1)[3]

def test_draws_are_uniform():
    train,test = rows([(1,1),(2,2),(2,3),(2,4),(2,5),(2,6)], 3, 7),rows([(1,4)], 3, 7)  # 2, 3, 5 and 6 are left for user 1
    t = truth(train, test)
    seen = np.zeros(7)
    for s in range(2000): seen[find_candidates({'sampled': 2, 'seed': s}, train, test, t).lists(t.users, 0)[1]] += 1
    assert seen[[0,1]].sum()==0 and seen[4]==2000 and abs(seen[[2,3,5,6]]-1000).max()<120  # 5 standard deviations

def test_sampled_is_called_sampled():
    ev = evaluate_recommender(UPWARD, rows(TRAIN, 4, 5), rows(HELD, 4, 5), 1, {'sampled': 2})
    assert 'SAMPLED' in ev.protocol and 'seed 0' in ev.protocol and 'all 4 trained' not in ev.protocol


# what is relevant, what is tested

def test_a_threshold_of_relevance():
    train,test = rows(TRAIN, 4, 5),rows([(1,2),(1,3),(2,1)], 4, 5, [3,4,2])
    ev = evaluate_recommender(UPWARD, train, test, 1, relevant=4)
    assert ev.per_user[['user_id','n_test']].values.tolist()==[[101,1]] and 'the 1 test rows of 4 or more relevant' in ev.protocol
    assert ev.counts['test_rows']==3 and ev['rmse']==evaluate_recommender(UPWARD, train, test, 1)['rmse']

def test_a_threshold_without_ratings():
    test = rows(HELD, 4, 5); test.values = None
    with pytest.raises(RatingsError, match='no ratings'): evaluate_recommender(UPWARD, rows(TRAIN, 4, 5), test, 1, relevant=4)

def test_a_frame_of_raw_ids_is_what_its_rows_are():
    df = ids(HELD).assign(rating=[4.,2.])
    want = evaluate_recommender(UPWARD, rows(TRAIN, 4, 5), rows(HELD, 4, 5, [4,2]), 2)
    for test in (df, df.rename(columns={'user_id':'user','item_id':'item'}), rows(HELD, 4, 9, [4,2])):  # the last: another vocabulary
        got = evaluate_recommender(UPWARD, rows(TRAIN, 4, 5), test, 2)
        assert got.summary==want.summary and got.protocol==want.protocol

def test_unknown_ids_of_a_frame_are_counted():
    df = pd.DataFrame(dict(user_id=[101,101,777,777,888], item_id=['i03','new','i01','i02','i01']))
    ev = evaluate_recommender(UPWARD, rows(TRAIN, 4, 5), df, 2)
    assert ev.per_user.n_test.tolist()==[2] and ev['recall@2']==.5
    assert {k: ev.counts[k] for k in ('cold_user_rows','cold_item_rows','skipped_users')}==dict(cold_user_rows=3, cold_item_rows=1, skipped_users=2)
    assert '5 test rows (3 of users and 1 of items never trained)' in ev.protocol and 'skipped (2)' in ev.protocol

def test_a_frame_of_another_type_of_ids():
    with pytest.raises(UnknownIdError, match='of type int'): evaluate_recommender(UPWARD, rows(TRAIN, 4, 5), pd.DataFrame(dict(user_id=['101'], item_id=['i01'])))

@pytest.mark.parametrize('test,match', [(pd.DataFrame({'a': [1]}), 'expected .* user_id and item_id'), ([1,2], 'expected a frame')])
def test_what_is_no_table(test, match):
    with pytest.raises(RatingsError, match=match): evaluate_recommender(UPWARD, rows(TRAIN, 4, 5), test)

def test_what_was_worked_out_for_other_training_rows_is_not_taken():
    test = rows([(1,3),(3,4)], 4, 5)
    assert [truth(rows(t, 4, 5), test).users.tolist() for t in ([(1,1)], [(3,1)], [(1,3),(3,1)])]==[[1],[3],[3]]
    assert truth(t := rows([(1,1)], 4, 5), test) is truth(t, test) is not truth(t, test, .5)

def test_nobody_to_ask():
    ev = evaluate_recommender(UPWARD, rows([(1,1)], 4, 5), rows([(3,1)], 4, 5), 2, metrics=['ndcg@2','auc','coverage@2'])
    assert len(ev.per_user)==0 and all(np.isnan(v) for v in ev.summary.values())


# metrics

def test_auc_is_that_of_scikit_learn():
    roc = pytest.importorskip('sklearn.metrics').roc_auc_score
    rs = np.random.RandomState(3)
    scores,seen,held = rs.randint(0, 6, (20,50)).astype(float),rs.rand(20,50)<.1,rs.rand(20,50)<.1
    seen[:,0] = seen[0] = held[:,0] = held[0] = held[0] = False
    seen[1,1:] = True; held[1] = False; held &= ~seen  # user 1 has everything, so every item is trained
    train,test = (rows([*zip(*o.nonzero())], 20, 50) for o in (seen,held))
    args = Table(scores),train,test
    for kw in ({}, {'memory': 50*4*6*3}, {'candidates': ids([(u,i) for u in range(20) for i in range(1,50)])}):
        got = evaluate_recommender(*args, metrics='auc', **kw).per_user.set_index('user_id').auc
        for u in got.index-100: assert got[u+100]==pytest.approx(roc(held[u,1:][~seen[u,1:]], scores[u,1:][~seen[u,1:]]))
    assert len(got)==held.any(1).sum()>10

def test_an_item_never_trained_loses_against_all():
    ev = evaluate_recommender(UPWARD, rows([(1,1),(2,2),(2,3)], 4, 5), rows([(1,3),(1,0)], 4, 5), metrics='auc')
    assert ev['auc']==.5  # 3 stands above 2, the unknown one below

def test_only_what_was_named_is_measured():
    args = Table(np.random.RandomState(0).rand(8,10)),rows([(u,i) for u in range(1,8) for i in range(1,10) if (u+i)%3], 8, 10),rows([(1,2),(2,4)], 8, 10)
    names = ['recall@3','ndcg@1','gini@2','diversity@2','auc']
    ev,whole = evaluate_recommender(*args, metrics=names),evaluate_recommender(*args, k=(1,2,3))
    assert list(ev.summary)==names and list(ev.per_user)==['user_id','n_test','recall@3','ndcg@1','diversity@2','auc']
    assert ev['recall@3']==whole['recall@3'] and ev['ndcg@1']==whole['ndcg@1']
    assert list(evaluate_recommender(*args, k=(1,2), metrics=['map','rmse']).summary)==['rmse','map@1','map@2']

def test_a_metric_that_does_not_exist():
    with pytest.raises(ValueError, match='ndcg@k'): evaluate_recommender(UPWARD, rows(TRAIN, 4, 5), rows(HELD, 4, 5), metrics='nice@3')

def test_what_the_lists_hold():
    ev = evaluate_recommender(UPWARD, rows(TRAIN, 4, 5), rows(HELD, 4, 5), 2)  # user 1: items 4, 3; user 2: item 1 alone is left
    assert ev['coverage@2']==3/4 and ev.per_user['popularity@2'].tolist()==[1,2]
    assert ev.per_user['novelty@2'].tolist()==pytest.approx([-np.log2(1/3),-np.log2(2/3)])

def test_nan_in_a_given_list_is_an_error():
    with pytest.raises(RecfastError, match='NaN'): evaluate_recommender(Table(np.full((4,5), np.nan)), rows(TRAIN, 4, 5), rows(HELD, 4, 5), 1, ids([(1,3)]))


# groups

def test_groups_of_users_are_means_of_their_rows():
    dls = CollabDataLoaders.from_df(synth_ratings(), seed=1)
    ev = evaluate_recommender(Table(np.random.RandomState(0).rand(51,41)), dls.interactions('train'), dls.interactions('valid'), k=5, by='user')
    n = dls.interactions('train').counts('user')[dls.interactions('train').user_vocab.encode(ev.per_user.user_id)]
    assert ev.by.n_users.sum()==len(ev.per_user) and ev.by.n_rows.sum()==ev.per_user.n_test.sum() and len(ev.by)==4
    for r in ev.by.itertuples():
        low,high = map(int, r.group.split(' training')[0].split(' to '))
        part = ev.per_user[(n>=low)&(n<=high)]
        assert len(part)==r.n_users and ev.by.loc[r.Index, 'ndcg@5']==pytest.approx(part['ndcg@5'].mean())

def test_groups_of_items_ask_for_their_own_items():
    test = rows([(1,3),(1,4),(1,0),(3,4)], 4, 5)
    by = pd.Series({'i03': 'odd', 'i04': 'even', 'i01': 'odd'}).rename_axis('item_id')
    ev = evaluate_recommender(UPWARD, rows(TRAIN, 4, 5), test, 1, by=by)
    assert ev.by[['group','n_users','n_rows','recall@1']].values.tolist()==[['even',2,2,1.],['odd',1,1,0.],['(none)',1,1,0.]]

def test_items_by_popularity_with_those_never_trained():
    ev = evaluate_recommender(Table(np.ones((4,6))), rows(TRAIN, 4, 6), rows([(1,3),(1,5),(2,1)], 4, 6), 1, by='item')
    assert ev.by[['group','n_rows']].values.tolist()==[['1 to 1 training rows',1],['2 to 2 training rows',1],['never trained',1]]

def test_the_errors_of_a_group():
    by = pd.Series(['a','b'], index=pd.Index([101,102], name='user_id'))
    ev = evaluate_recommender(UPWARD, rows(TRAIN, 4, 5), rows(HELD, 4, 5, [1,4]), 1, by=by)
    assert ev.by.mae.tolist()==[2,3]  # item 3 scored 3, item 1 scored 1

def test_a_column_of_the_test_frame():
    df = ids(HELD+[(1,2)]).assign(age=[30,40,30], kind=['x','y','x'])
    for col,n in (('age',[1,1]),('kind',[1,1])):
        assert evaluate_recommender(UPWARD, rows(TRAIN, 4, 5), df, 1, by=col).by.n_users.tolist()==n
    with pytest.raises(RatingsError, match='several values'): evaluate_recommender(UPWARD, rows(TRAIN, 4, 5), ids([(1,2),(1,3),(2,2),(2,3)]).assign(o=[1,2,3,4]), 1, by='o')

def test_groups_that_cannot_be_told_apart():
    df = pd.DataFrame(dict(user_id=[1,2,3,1], item_id=[1,2,3,2]))
    classes = {'user_id': Vocab([1,2,3]), 'item_id': Vocab([1,2,3])}
    train,test = (Interactions(o.user_id, o.item_id, classes=classes) for o in (df[:3],df[3:]))
    with pytest.raises(RatingsError, match="call it 'user_id' or 'item_id'"): evaluate_recommender(UPWARD, train, test, 1, by={1: 'a', 2: 'b'})
    with pytest.raises(RatingsError, match='no user and no item'): evaluate_recommender(UPWARD, train, test, 1, by={'x': 'a'})
    with pytest.raises(RatingsError, match="expected 'user', 'item'"): evaluate_recommender(UPWARD, train, test, 1, by='age')


# the verb

TIMED = pd.DataFrame(dict(user_id=[1,1,2,2,1,2], item_id=list('abcdcb'), rating=[5,4,3,2,1,5], timestamp=[1,2,3,4,5,6]))
learner_of = lambda df, **kw: collab_learner(CollabDataLoaders.from_df(df, bs=2, seed=1, **kw), n_factors=2)

def test_later_events_in_training_are_a_warning():
    learn = learner_of(TIMED, splits=([0,2,5],[1,3,4]))
    with pytest.warns(LeakageWarning, match='3 test rows') as w: ev = learn.evaluate(k=2)
    assert [o.category for o in w].count(LeakageWarning)==1 and w[-1].filename==__file__
    assert 'leakage: 3 test rows are earlier than the latest training event, 1 of them than one of the same user' in ev.protocol

@pytest.mark.parametrize('df', [TIMED, TIMED.drop(columns='timestamp')[::-1].reset_index(drop=True)])
def test_no_warning_without_a_leak(df, recwarn):
    ev = learner_of(df, splits=([0,1,2,3],[4,5])).evaluate(k=2)
    assert 'leakage' not in ev.protocol and not [o for o in recwarn if o.category is LeakageWarning]

def test_times_in_another_column():
    df = TIMED.rename(columns={'timestamp': 'at'})
    learn = learner_of(df[2:], time_name='at', valid_pct=0)
    with pytest.warns(LeakageWarning): assert '1 test rows are earlier' in learn.evaluate(df[3:4].assign(at=0), k=2, time_name='at').protocol

def test_a_test_frame_in_place_of_the_validation_rows():
    learn = learner_of(TIMED[:5], splits=([0,1,2],[3]))
    ev = learn.evaluate(TIMED[4:].drop(columns='timestamp'), k=2)
    assert ev.counts['test_rows']==2 and 'the 1 validation rows are candidates like any other' in ev.protocol
    assert set(ev.per_user.user_id)=={1,2} and {'rmse','ndcg@2'}<=set(ev.summary)

def test_labels_of_zero_are_nothing_to_find():
    df = TIMED.assign(rating=[1,1,1,1,1,1]).drop(columns='timestamp')
    learn = collab_learner(CollabDataLoaders.implicit_from_df(df, valid_pct=0, bs=2, seed=1), n_factors=2)
    ev = learn.evaluate(pd.DataFrame(dict(user_id=[1,2], item_id=['d','a'])), k=2)
    assert 'rmse' not in ev.summary and ev.counts['relevant_pairs']==2
    grid = LabelDataLoaders.from_df(df.assign(rating=[1,0,1,0,1,1]), bs=2, valid_pct=0)
    assert collab_learner(grid, n_factors=2).evaluate(pd.DataFrame(dict(user_id=[1,2], item_id=['d','a'], rating=[0,1])), k=2).counts['test_rows']==1

def test_the_sentence_and_the_table_of_an_evaluation():
    ev = evaluate_recommender(UPWARD, rows(TRAIN, 4, 5), rows(HELD, 4, 5), (1,2), metrics=['rmse','ndcg','auc'], baseline=False)
    assert list(ev.table().columns)==['','@1','@2'] and list(ev.table().index)==['rmse','ndcg','auc']
    assert str(ev).endswith(ev.protocol) and 'nan' not in str(ev) and ev._repr_markdown_().count('\n')==6


# as large as it gets

PEAK = """
import resource, sys, numpy as np, torch
sys.path.insert(0, sys.argv[1])
from eval_speed import draw, ours, peak_mb
draw(sys.argv[2], 7465, 10245, 64, 250_000)
z = dict(np.load(sys.argv[2]))
ours({'users': z['users'][:50], 'items': z['items'], 'train': z['train'][z['train']<50*10245], 'test': z['test'][z['test']<50*10245]}, 1)()
run,before = ours(z, 1),peak_mb()
print(run()['ndcg@10'], peak_mb()-before)
"""

@pytest.mark.slow
@pytest.mark.skipif(sys.platform=='win32', reason='no resource module')
def test_memory_above_the_factors_at_a_quarter_of_the_size(tmp_path):
    cmd = [sys.executable, '-c', PEAK, str(Path(__file__).parents[2]/'benchmarks'), str(tmp_path/'f.npz')]
    out = subprocess.run(cmd, capture_output=True, text=True, env={**os.environ, 'OMP_NUM_THREADS': '1'})
    assert out.returncode==0, out.stderr
    ndcg,above = map(float, out.stdout.split())
    assert 0<ndcg<.01 and above<250  # MB; one dense float32 matrix of these users and items is 306

def dense(scores, train, test):
    "NDCG@10 and Recall@20 by matrices of users and items"
    s = np.where(train, -np.inf, scores)
    s[:,~train.any(0)] = -np.inf
    rel = test & ~train
    keep = rel.any(1) & train.any(1)
    order = np.argsort(-s[keep], axis=1, kind='stable')[:,:20]
    hits,n = np.take_along_axis(rel[keep], order, 1),rel[keep].sum(1)
    disc = 1/np.log2(np.arange(10)+2)
    ideal = [disc[:m].sum() for m in np.minimum(n, 10)]
    return {'ndcg@10': ((hits[:,:10]*disc).sum(1)/ideal).mean(), 'recall@20': (hits.sum(1)/n).mean()}

@pytest.mark.parametrize('ties', [1, 8, 100])
def test_a_large_catalogue_is_that_of_a_dense_reference(ties):
    rs,(U,I) = np.random.RandomState(ties),(40,6000)
    train,test = (rs.rand(U,I)<o for o in (.01,.05))
    train[:,0] = train[0] = test[:,0] = test[0] = False
    scores = np.floor(rs.randn(U,I)*ties)+3*ties*test
    got = evaluate_recommender(Table(scores), *(rows(np.argwhere(o), U, I) for o in (train,test)), metrics=['ndcg@10','recall@20'], rated=False, memory=I*4*6*7)
    assert got.summary==pytest.approx(dense(scores, train, test)) and 0<got['recall@20']<1

@pytest.mark.parametrize('zones', [('UTC',None),(None,'Asia/Kolkata'),('UTC','Europe/Berlin')])
def test_times_of_any_zone_compare(zones):
    df = synth_ratings(40, 30, seed=1).assign(timestamp=lambda d: pd.Timestamp('2024-01-01')+pd.to_timedelta(np.arange(len(d)), 'h'))
    old,new = (df.assign(timestamp=df.timestamp.dt.tz_localize('UTC').dt.tz_convert(z)) for z in zones)
    learn = collab_learner(CollabDataLoaders.from_df(old.iloc[:-40], valid_pct=0, bs=8), 4)
    with warnings.catch_warnings():
        warnings.simplefilter('error', LeakageWarning)
        learn.evaluate(new.iloc[-40:], k=3)
    with pytest.warns(LeakageWarning): assert 'leakage: 20 test rows' in learn.evaluate(new.iloc[-61:-41], k=3).protocol

@pytest.mark.parametrize('name', ['timestamp','read on'])
def test_a_frame_of_dates_as_text_is_tested_like_the_file_it_came_from(tmp_path, name):
    df = synth_ratings(40, 30, seed=1).drop(columns='timestamp', errors='ignore')
    df[name] = pd.Timestamp('2024-01-01')+pd.to_timedelta(np.arange(len(df)), 'D')
    df.to_csv(tmp_path/'r.csv', index=False)
    dls = CollabDataLoaders.from_csv(tmp_path/'r.csv', user_name='user_id', item_name='item_id', rating_name='rating', time_name=name, valid_pct=0, bs=8)
    learn = collab_learner(dls, 4)
    early = pd.read_csv(tmp_path/'r.csv').head(20)
    with pytest.warns(LeakageWarning): said = learn.evaluate(early, k=3).protocol
    assert 'leakage: 20 test rows' in said and isinstance(early[name].iloc[0], str)
