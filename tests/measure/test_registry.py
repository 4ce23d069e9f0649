"A metric of one's own needs one place, and works wherever metrics do"
from functools import partial

import numpy as np
import pytest

from helpers import registry  # noqa: F401 (a fixture)
from recfast.callbacks import EarlyStoppingCallback, RankingMetrics
from recfast.compare import compare
from recfast.data.loaders import CollabDataLoaders
from recfast.evaluate import evaluate_recommender
from recfast.learner import collab_learner
from recfast.metrics import CHEAP_METRICS, FACTS, LIST_METRICS, LOWER_IS_BETTER, METRICS, RANKING_METRICS, WHOLE_METRICS, metric, metric_comp, parse_metric, recall_at_k
from recfast.testing import block_ratings
from recfast.tune import tune

pytestmark = pytest.mark.filterwarnings('ignore::recfast.core.LeakageWarning')


@pytest.fixture(scope='module')
def learn():
    dls = CollabDataLoaders.from_df(block_ratings().query('rating==5'), seed=42)
    learn = collab_learner(dls, n_factors=4, seed=1)
    with learn.quiet(): learn.fit(1)
    return learn

def parts(learn): return learn.model,learn.dls.interactions('train'),learn.dls.interactions('valid')

def test_the_views_are_those_of_before():
    assert list(RANKING_METRICS)==['ndcg','recall','precision','hit','map','mrr'] and list(LIST_METRICS)==['coverage','gini','novelty','diversity','popularity']
    assert list(WHOLE_METRICS)==['auc','rmse','mae'] and set(LOWER_IS_BETTER)=={'gini','popularity','rmse','mae'}
    assert list(CHEAP_METRICS)==['ndcg','recall','precision','hit','map','mrr','coverage','novelty','popularity']

def test_a_view_sees_what_comes_later_and_only_its_kind():
    assert 'own' not in RANKING_METRICS and len(RANKING_METRICS)==6
    f = metric('own', lower=True)(lambda hits: hits.sum(1))
    assert RANKING_METRICS['own'] is f and 'own' in LOWER_IS_BETTER and 'own' not in LIST_METRICS and len(RANKING_METRICS)==7
    with pytest.raises(KeyError): LIST_METRICS['own']

def test_every_fact_is_handed_over(learn):
    got = {}
    @metric('spy')
    def spy(hits, n_rel, gains, best_gains, items, k, counts, n_users, n_candidates, vectors, rank_sum, n_ranked, n_listed, other=7):
        got.update(locals())
        return n_rel
    metric('spy_errors')(lambda errors: got.update(errors=errors) or 0.)
    ev = evaluate_recommender(*parts(learn), metrics=['spy@3','spy_errors'], baseline=False)
    model,train,test = parts(learn)
    n = len(ev.per_user)
    assert set(FACTS)<=set(got) and got['other']==7 and got['k']==3 and got['hits'].shape==got['items'].shape==(n,3)
    assert got['n_rel'].tolist()==ev.per_user.n_test.tolist() and got['n_candidates']==train.trained().sum() and got['n_users']==train.trained('user').sum()
    assert got['counts'].tolist()==train.csr().getnnz(0).tolist() and len(got['vectors'])==train.n_items and len(got['errors'])==len(test)
    auc = METRICS['auc'].f(*(got[o] for o in ('rank_sum','n_ranked','n_listed','n_rel')))
    assert auc.tolist()==evaluate_recommender(*parts(learn), metrics='auc').per_user.auc.tolist()

def test_what_nobody_asked_for_is_not_worked_out(learn, monkeypatch):
    def never(*args): raise AssertionError('worked out')
    monkeypatch.setattr('recfast.evaluate.item_vectors', never)
    evaluate_recommender(*parts(learn), k=5)
    with pytest.raises(AssertionError, match='worked out'): evaluate_recommender(*parts(learn), metrics='diversity@5')

def test_it_is_measured_for_the_model_and_for_popularity(learn):
    metric('twice')(lambda hits: 2*hits.mean(1))
    metric('spread')(lambda items, n_candidates: len(np.unique(items))/n_candidates)
    ev = learn.evaluate(metrics=['twice','precision','spread@5'], k=(5,10))
    for o in (ev,ev.baseline):
        for k in (5,10): assert o[f'twice@{k}']==pytest.approx(2*o[f'precision@{k}'])
        assert list(o.per_user)[2:]==['twice@5','twice@10','precision@5','precision@10'] and o['spread@5']>0

def test_a_cheap_one_is_measured_without_being_named(learn):
    metric('twice', cheap=True)(lambda hits: 2*hits.mean(1))
    assert 'twice@5' in learn.evaluate(k=5).summary

def test_groups_of_items_have_it(learn):
    metric('twice')(lambda hits: 2*hits.mean(1))
    by = learn.evaluate(k=5, metrics=['precision','twice'], by='item').by
    assert by['twice@5'].tolist()==pytest.approx((2*by['precision@5']).tolist())

def test_a_metric_of_rating_errors(learn):
    metric('far', lower=True)(lambda errors: float((np.abs(errors)>1).mean()))
    ev = learn.evaluate(metrics=['far','ndcg@5'], by='user')
    assert 0<=ev['far']<=1 and 'far' in ev.by and list(ev.summary)==['far','ndcg@5'] and 'far' not in ev.baseline.summary
    with pytest.raises(ValueError, match='measured on batches'): RankingMetrics('far')

def test_compare_knows_which_way_is_better(learn):
    metric('misses', lower=True)(lambda hits: (~hits).mean(1))
    other = collab_learner(learn.dls, n_factors=2, seed=3)
    up,down = (compare({'a': learn, 'b': other}, metric=o) for o in ('precision@5','misses@5'))
    assert list(up.table.index)==list(down.table.index) and down.table['mean'].tolist()==pytest.approx((1-up.table['mean']).tolist())

def test_it_is_recorded_in_training_and_trackers_follow_it(learn):
    metric('misses', lower=True)(lambda hits: (~hits).mean(1))
    cbs = [RankingMetrics('misses@5'),EarlyStoppingCallback(monitor='misses@5', patience=1)]
    own = collab_learner(learn.dls, n_factors=4, cbs=cbs)
    with own.quiet(): own.fit(4, 0.)  # nothing is learnt
    assert own.recorder.metric_names[3]=='misses@5' and len(own.recorder.values)==2 and cbs[1].comp is np.less

def test_tune_takes_it(learn):
    pytest.importorskip('optuna')
    metric('misses', lower=True)(lambda hits: (~hits).mean(1))
    def make(n_factors):
        own = collab_learner(learn.dls, n_factors=n_factors, seed=1)
        with own.quiet(): own.fit(1)
        return own
    res = tune(make, {'n_factors': [2,3]}, n_trials=2, monitor='misses@5', progress=False)
    assert res.best_value==res.trials['misses@5'].min()

def test_the_verdict_is_about_one_that_should_grow(learn):
    metric('misses', lower=True)(lambda hits: (~hits).mean(1))
    metric('all_hits')(lambda hits: int(hits.sum()))
    assert learn.evaluate(metrics=['misses@5','all_hits@5','recall@5']).verdict.startswith('By recall@5')

def test_a_registered_function_goes_by_its_name(learn):
    @metric('twice')
    def twice(hits): return 2*hits.mean(1)
    assert list(learn.evaluate(metrics=[twice,'auc'], k=5).summary)==['twice@5','auc']

@pytest.mark.parametrize('own,error,says', [(lambda hits: 1, ValueError, 'has no name to go by: put @metric'), (max, TypeError, 'does not say what it asks for'),
    (type('F', (), {'__call__': lambda self, hits: 1})(), ValueError, 'has no name to go by')])
def test_a_function_that_cannot_be_registered_is_told_why(learn, own, error, says):
    for ask in (lambda: learn.evaluate(metrics=[own]), lambda: RankingMetrics([own])):
        with pytest.raises(error, match=says): ask()

def own_misses(hits, k): return k-hits.sum(1)

def test_a_function_is_measured_under_its_own_name_at_every_door(learn):
    want = 5*(1-learn.evaluate(metrics='precision', k=5).per_user['precision@5'])
    ev = learn.evaluate(metrics=[own_misses], k=5)
    assert list(ev.summary)==['own_misses@5'] and ev.per_user['own_misses@5'].tolist()==pytest.approx(want.tolist()) and 'own_misses@5' in ev.baseline.summary
    assert compare({'a': learn}, k=5, metric='own_misses@5')['a']['mean']==pytest.approx(ev['own_misses@5'])
    assert RankingMetrics('own_misses@5').names==['own_misses@5']

def test_a_metric_with_other_settings(learn):
    ev = learn.evaluate(metrics=[partial(recall_at_k, denominator='min'),'recall'], k=5)
    assert list(ev.summary)==['recall_min@5','recall@5'] and ev['recall_min@5']>=ev['recall@5']
    assert learn.evaluate(metrics=[partial(recall_at_k, denominator='min')], k=5)['recall_min@5']==ev['recall_min@5']

def test_two_functions_of_one_name(learn):
    def one():
        def f(hits): return hits.sum(1)
        return f
    with pytest.raises(ValueError, match="two functions are called 'f'"): learn.evaluate(metrics=[one(),one()])

def test_a_function_cannot_take_the_name_of_another(learn):
    def ndcg(hits): return hits.sum(1)
    with pytest.raises(ValueError, match="recfast has a metric 'ndcg' of its own"): learn.evaluate(metrics=[ndcg])

def test_a_parameter_that_nobody_can_fill():
    with pytest.raises(TypeError, match="metric 'x' asks for age, size; it can ask for hits, n_rel"): metric('x')(lambda hits, age, size: 0)
    with pytest.raises(TypeError, match='asks for nothing'): metric('x')(lambda other=1: 0)
    assert 'x' not in METRICS
    metric('x')(lambda hits, *args, age=1, **kwargs: 0)

@pytest.mark.parametrize('name', ['', 'x@3'])
def test_a_name_that_is_none(name):
    with pytest.raises(ValueError, match="without '@'"): metric(name)(lambda hits: 0)

def test_the_names_of_recfast_are_taken():
    with pytest.raises(ValueError, match="recfast has a metric 'ndcg' of its own"): metric('ndcg')(lambda hits: 0)
    for _ in range(2): metric('mine')(lambda hits: 0)  # a cell that is run again

def test_an_array_of_another_length(learn):
    metric('short')(lambda hits: hits[:2].mean(1))
    with pytest.raises(ValueError, match=r"metric 'short' gave an array of shape \(2,\), expected one value for each"): learn.evaluate(metrics='short@5')

def test_the_direction_of_names_with_words_in_them():
    metric('error_free')(lambda hits: 0.)
    metric('long_tail', lower=True)(lambda items: 0.)
    assert metric_comp('error_free@5') is np.greater and metric_comp('error_rate') is np.less
    assert metric_comp('long_tail@5') is metric_comp('valid_long_tail@5') is np.less

def test_messages_name_it():
    metric('long_tail')(lambda items: 0.)
    with pytest.raises(ValueError, match="did you mean 'long_tail@3'.*long_tail@k"): parse_metric('longtail@3')
