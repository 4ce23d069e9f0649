"Bootstrap intervals, of one evaluation and of the difference of two"
import warnings

import numpy as np
import pandas as pd
import pytest

from recfast.core import LeakageWarning, RatingsError
from recfast.data.loaders import CollabDataLoaders
from recfast.evaluate import Evaluation, compare
from recfast.learner import collab_learner
from recfast.testing import synth_ratings


def made(vals, users=None, **more):
    "An evaluation with given values per user"
    df = pd.DataFrame({'user_id': np.arange(len(vals)) if users is None else users, 'n_test': 1, 'ndcg@10': np.asarray(vals, float), **more})
    return Evaluation({'ndcg@10': df['ndcg@10'].mean()}, df, 'by hand.')

RS = np.random.RandomState(0)
BASE = RS.rand(400)

def test_the_interval_of_a_mean_is_that_of_its_standard_error():
    low,high = made(BASE).interval('ndcg@10', n_boot=4000)
    se = BASE.std()/400**.5
    assert low==pytest.approx(BASE.mean()-1.96*se, abs=.1*se) and high==pytest.approx(BASE.mean()+1.96*se, abs=.1*se)

def test_a_wider_level_is_a_wider_interval():
    narrow,wide = (made(BASE).interval('ndcg@10', level=o) for o in (.5,.99))
    assert wide[0]<narrow[0]<narrow[1]<wide[1]

def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    inside = 0
    for s in range(200):
        low,high = made(np.random.RandomState(s).rand(100)).interval('ndcg@10', n_boot=300)
        inside += low<.5<high
    assert 180<=inside<=198  # 190 expected

def test_a_small_difference_that_every_user_shows_is_certain():
    c = compare({'one': made(BASE), 'other': made(BASE+.01)})
    assert list(c.table.index)==['other','one'] and c['one'].diff_low==pytest.approx(-.01)==c['one'].diff_high
    assert c['one'].high>c['other'].low  # though the intervals themselves overlap

def test_a_difference_that_is_noise_is_not():
    c = compare({'one': made(BASE), 'other': made(RS.permutation(BASE)+.001)})
    assert c['one'].diff_low<0<c['one'].diff_high

def test_draws_are_those_of_a_plain_bootstrap():
    other,rng = BASE**2,np.random.default_rng(7)
    means = np.array([(other-BASE)[rng.integers(0, 400, 400)].mean() for _ in range(500)])
    got = compare({'a': made(BASE), 'b': made(other)}, n_boot=500, seed=7)['b']
    assert [got.diff_low,got.diff_high]==pytest.approx(np.quantile(means, [.025,.975]))

def test_memory_is_bounded_and_changes_nothing():
    from recfast.evaluation import boot_means as _boot_means
    vals = np.random.RandomState(0).rand(2**21,1)  # two draws fit into a chunk
    rng = np.random.default_rng(0)
    assert _boot_means(vals, 3, 0)[:,0]==pytest.approx([vals[rng.integers(0, 2**21, 2**21),0].mean() for _ in range(3)])

def test_differences_to_a_chosen_base():
    c = compare({'a': made(BASE), 'b': made(BASE+.1), 'c': made(BASE-.1)}, base='a')
    assert list(c.table.index)==['a','b','c'] and c['b']['diff']==pytest.approx(.1) and c['a']['diff']==0
    with pytest.raises(RatingsError, match='expected one of'): compare({'a': made(BASE)}, base='x')

def test_other_users_are_an_error():
    with pytest.raises(RatingsError, match="'b' was measured on other users"): compare({'a': made(BASE), 'b': made(BASE, users=np.arange(400)[::-1])})
    with pytest.raises(RatingsError, match='other users'): compare({'a': made(BASE), 'b': made(BASE[:300])})

def test_a_metric_that_users_do_not_have():
    with pytest.raises(RatingsError, match="there are 'ndcg@10'"): compare({'a': made(BASE)}, metric='recall@10')
    with pytest.raises(ValueError, match='did you mean'): compare({'a': made(BASE)}, metric='ndgc@10')

def test_nothing_to_compare():
    with pytest.raises(RatingsError, match='nothing to compare'): compare([])

def test_users_without_a_value_are_left_out_of_all():
    some = np.where(np.arange(400)<200, BASE, np.nan)
    c = compare({'a': made(some), 'b': made(BASE)})
    assert c['b']['mean']==pytest.approx(BASE[:200].mean()) and c['a']['diff']==0

def learners(n, **kw):
    dls = CollabDataLoaders.from_df(synth_ratings(), seed=1, **kw)
    return [collab_learner(dls, n_factors=2, seed=s) for s in range(n)]

def test_learners_are_measured_and_named_by_their_models():
    a,b = learners(2)
    with pytest.warns(LeakageWarning) as w: c = compare([a,b], k=5, metric='recall@3')
    assert set(c.table.index)=={'DotProductBias','DotProductBias 2'} and [o.category for o in w].count(LeakageWarning)==1 and w[-1].filename==__file__
    assert c['DotProductBias']['mean']==pytest.approx(c.evaluations['DotProductBias']['recall@3']) and 'recall@5' in c.evaluations['DotProductBias'].summary

def test_learners_on_a_test_frame_under_a_protocol():
    df = synth_ratings()
    test = df[df.index%7==0].drop(columns='timestamp', errors='ignore')
    c = compare(dict(zip('ab', learners(2, splits=(df.index[df.index%7>0],[])))), test, metric='auc', candidates={'sampled': 9})
    assert 'SAMPLED' in c.protocol and c.protocol.count('test rows')==1 and 0<c['a']['mean']<1

def test_evaluations_that_are_there_already_do_not_warn_again():
    with warnings.catch_warnings():
        warnings.simplefilter('ignore'); evs = {i: o.evaluate(k=10) for i,o in enumerate(learners(2))}
    with warnings.catch_warnings(): warnings.simplefilter('error'); compare(evs)

def test_it_prints_its_protocol_and_plots():
    c = compare({'one': made(BASE), 'other': made(BASE+.01)})
    assert str(c).startswith('ndcg@10') and str(c).endswith('by hand.') and '| other |' in c._repr_markdown_()
    ax = c.plot()
    assert [o.get_text() for o in ax.get_yticklabels()]==['one','other'] and 'ndcg@10' in ax.get_xlabel()

def test_nobody_has_anything_to_find():
    learn = collab_learner(CollabDataLoaders.from_df(synth_ratings(), seed=1), n_factors=3)
    with pytest.raises(RatingsError, match='no user has a value of ndcg@10'): compare([learn], relevant=99)

def test_one_learner_is_a_list_of_one():
    learn = collab_learner(CollabDataLoaders.from_df(synth_ratings(), seed=1), n_factors=3)
    assert list(compare(learn).table.index)==['DotProductBias']
