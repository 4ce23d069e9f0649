"Rows that are no positives, rows that repeat a pair: counted once, at every door, and said"
import warnings

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from helpers import fit
from recfast.bundle import load_bundle
from recfast.callbacks import RankingMetrics
from recfast.cli import app
from recfast.compare import compare
from recfast.core import RatingsError
from recfast.data.datasets import movie_night
from recfast.data.loaders import CollabDataLoaders
from recfast.evaluate import evaluate_recommender, hit_lists
from recfast.given_lists import evaluate_lists
from recfast.learner import collab_learner
from recfast.models.linear import EASE

FILMS = movie_night().query('user_id<=150')[['user_id','title','rating']].rename(columns={'title': 'item_id'}).reset_index(drop=True)
LAST = FILMS.groupby('user_id').cumcount(ascending=False)<6
TRAIN,TEST = FILMS[~LAST & (FILMS.rating>=4)],FILMS[LAST]
LABELS = TEST.assign(rating=(TEST.rating>=4).astype(int))
YES = LABELS[LABELS.rating>0]

def learner(df=TRAIN, builder='implicit_from_df', **kwargs):
    dls = getattr(CollabDataLoaders, builder)(df, seed=0, bs=256, valid_pct=0, **kwargs)
    return fit(collab_learner(dls, arch=EASE), 1)

CLICKS = learner(n_neg=0)
def same(a, b): pd.testing.assert_frame_equal(a.per_user.reset_index(drop=True), b.per_user.reset_index(drop=True))

# labels of what did not happen

@pytest.mark.parametrize('no', [0, -1, -3.5])
def test_of_clicks_what_did_not_happen_is_not_to_be_found(no):
    with pytest.warns(UserWarning, match='test rows are rated 0 or below') as said: ev = CLICKS.evaluate(LABELS.assign(rating=LABELS.rating.where(LABELS.rating>0, no)), k=5)
    same(ev, CLICKS.evaluate(YES, k=5))
    n = int((LABELS.rating==0).sum())
    assert f'{n} of {len(LABELS)}' in str(said[0].message) and ev.counts['unliked_rows']==n
    assert f'{n} test rows are rated 0 or below' in ev.protocol and 'every test row above 0 relevant' in ev.protocol
    assert ev.counts['test_rows']==len(LABELS) and ev.counts['relevant_rows']==len(YES)

def test_the_values_of_gains_are_those_of_what_happened():
    with pytest.warns(UserWarning): ev = CLICKS.evaluate(LABELS, metrics='ndcg_gain@5')
    assert ev['ndcg_gain@5']==pytest.approx(CLICKS.evaluate(YES, metrics='ndcg@5')['ndcg@5'])

def test_a_threshold_is_the_callers_own():
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        same(CLICKS.evaluate(LABELS, k=5, relevant=1), CLICKS.evaluate(YES, k=5))
        assert CLICKS.evaluate(LABELS, k=5, relevant=0).counts['relevant_rows']==len(LABELS)

def test_clicks_alone_are_not_warned_of():
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert CLICKS.evaluate(YES, k=5).counts['unliked_rows']==0

def test_of_stars_a_zero_is_a_rating():
    stars = learner(FILMS[~LAST], 'from_df')
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert stars.evaluate(TEST.assign(rating=0.), k=5).counts['relevant_rows']==len(TEST)

def test_compare_lists_and_hits_say_the_same():
    with pytest.warns(UserWarning, match='rated 0 or below'): both = compare({'a': CLICKS}, test=LABELS, k=5, metric='ndcg@5')
    want = CLICKS.evaluate(YES, k=5)
    assert both['a']['mean']==pytest.approx(want['ndcg@5'])
    lists = CLICKS.recommend(k=5)
    with pytest.warns(UserWarning, match='rated 0 or below'): given = evaluate_lists(lists, LABELS, TRAIN.assign(rating=1), k=5)
    assert given['ndcg@5']==pytest.approx(want['ndcg@5']) and 'rated 0 or below' in given.protocol
    rows = CLICKS.dls.interactions('train')
    with pytest.warns(UserWarning):
        found = hit_lists(CLICKS.model, rows, evaluate_rows(LABELS), 5)
    assert found[1].tolist()==hit_lists(CLICKS.model, rows, evaluate_rows(YES), 5)[1].tolist()

def evaluate_rows(df):
    from recfast.relevance import as_interactions
    return as_interactions(df, CLICKS.dls.interactions('train'))

def test_the_shell_says_it(tmp_path):
    CLICKS.save_bundle(tmp_path/'b')
    LABELS.to_csv(tmp_path/'t.csv', index=False)
    res = CliRunner().invoke(app, ['evaluate', str(tmp_path/'b'), str(tmp_path/'t.csv'), '-k', '5'])
    said = ' '.join(res.output.split())
    assert res.exit_code==0 and 'Note:' in said and 'rated 0 or below' in said
    rec = load_bundle(tmp_path/'b')
    with pytest.warns(UserWarning): ev = evaluate_recommender(rec.model, rec.train, LABELS, k=5)
    same(ev, CLICKS.evaluate(YES, k=5))

def test_histories_too():
    with pytest.warns(UserWarning): ev = CLICKS.evaluate(LABELS, k=5, histories=True)
    same(ev.by_history, CLICKS.evaluate(YES, k=5))

def test_labels_are_as_they_were():
    labelled = FILMS[~LAST].assign(rating=lambda o: (o.rating>=4).astype(int))
    learn = learner(labelled, label_name='rating')
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        same(learn.evaluate(LABELS, k=5), learn.evaluate(YES, k=5))

def test_metrics_in_training_measure_what_happened():
    dls = CollabDataLoaders.implicit_from_df(FILMS.assign(rating=(FILMS.rating>=4).astype(int)), seed=0, bs=256, label_name='rating')
    learn = collab_learner(dls, arch=EASE, cbs=RankingMetrics('ndcg@5'))
    assert fit(learn, 1).recorder.values[-1][-1]==pytest.approx(learn.evaluate(k=5)['ndcg@5'])

# pairs that repeat

OTHERS = pd.DataFrame(dict(user_id=[1,1,1,2,2,3], item_id=['new','new','newer','new','new','new'], rating=[5.,3.,4.,2.,2.,5.]))

@pytest.mark.parametrize('relevant', [None, 3, 4])
def test_a_pair_of_an_unknown_item_counts_once(relevant):
    known = TEST[TEST.user_id<=3]
    test = pd.concat([known, OTHERS, known[:3]])
    learn = learner(FILMS[~LAST], 'from_df')
    ev = learn.evaluate(test, metrics=['ndcg@5','recall@5','map@5','ndcg_gain@5'], relevant=relevant)
    lists = learn.recommend([1,2,3], k=5)
    given = evaluate_lists(lists, test, FILMS[~LAST], metrics=['ndcg@5','recall@5','map@5','ndcg_gain@5'], relevant=relevant)
    same(ev, given)
    assert ev.summary==pytest.approx(given.summary) and ev.counts['repeated_rows']==given.counts['repeated_rows']>0
    high = test if relevant is None else test[test.rating>=relevant]
    assert ev.per_user.n_test.tolist()==high.drop_duplicates(['user_id','item_id']).groupby('user_id').item_id.size().tolist()

def test_validation_rows_count_pairs_too():
    df = pd.concat([FILMS[~LAST],OTHERS], ignore_index=True)
    valid = np.arange(len(df)-len(OTHERS), len(df))
    dls = CollabDataLoaders.from_df(df, bs=256, splits=(np.arange(valid[0]),valid))
    ev = fit(collab_learner(dls, arch=EASE), 1).evaluate(k=5)
    assert ev.per_user.n_test.tolist()==[2,1,1] and ev.counts['repeated_rows']==2
    sample = fit(collab_learner(dls, arch=EASE, cbs=RankingMetrics('ndcg@5', n_users=2)), 1).ranking_metrics.evaluation
    assert set(sample.per_user.n_test)<={1,2} and len(sample.per_user)==2

def test_groups_of_unknown_items_count_pairs():
    ev = learner(FILMS[~LAST], 'from_df').evaluate(pd.concat([TEST[TEST.user_id<=3],OTHERS]), k=5, by='item')
    assert ev.by.set_index('group').n_rows['never trained']==4


# somebody in two groups

@pytest.mark.parametrize('name', ['user_id','item_id',None])
def test_somebody_in_two_groups_is_named(name):
    first = FILMS.user_id.iloc[0] if name!='item_id' else TEST.item_id.iloc[0]
    by = pd.Series(['a','b','a'], index=pd.Index([first,first,TEST.user_id.iloc[-1] if name!='item_id' else TEST.item_id.iloc[-1]], name=name))
    for o in (by,by[::-1]):
        with pytest.raises(RatingsError, match='by: 1 ids of the index have several values, the first is'): CLICKS.evaluate(TEST, k=5, by=o)
        with pytest.raises(RatingsError, match='the first is'): compare({'a': CLICKS}, TEST, k=5, by=o)
        with pytest.raises(RatingsError, match='the first is'): evaluate_lists(CLICKS.recommend(k=5), TEST, k=5, by=o)

def test_somebody_twice_in_one_group_counts_once():
    by = FILMS.drop_duplicates('user_id').set_index('user_id').item_id.str.len().gt(15)
    a,b = (CLICKS.evaluate(TEST, k=5, by=o).by for o in (by,pd.concat([by,by])))
    pd.testing.assert_frame_equal(a, b)
