"Drift: what chance would do is no drift, and later months are"
import numpy as np
import pandas as pd
import pytest

from recfast.core import RatingsError, UnknownIdError
from recfast.data.datasets import movietweetings
from recfast.data.loaders import CollabDataLoaders
from recfast.drift import _as_many, _beside_chance
from recfast.learner import collab_learner
from recfast.models.linear import Popularity
from recfast.models.ials import IALS
from recfast.testing import synth_ratings

def told(df, arch=Popularity, valid_pct=.2, **kwargs):
    learn = collab_learner(CollabDataLoaders.implicit_from_df(df, n_neg=0, valid_pct=valid_pct, seed=0), arch=arch, seed=0, **kwargs)
    with learn.quiet(): learn.fit(4 if arch is IALS else 1)
    return learn.recommender

@pytest.fixture(scope='module')
def rec(): return told(synth_ratings(40, 30, 700))

def test_drift_is_flagged_on_later_months_and_not_on_a_random_split():
    df = movietweetings().sort_values('timestamp', kind='stable')[['user_id','item_id']].reset_index(drop=True)
    early,late = df[:50_000],df[70_000:80_000]
    how = dict(arch=IALS, n_factors=16, config=dict(alpha=.3, l2=.02, nu=1.))
    found = told(early, **how).drift(late)
    assert found.retrain and found.lists.high['difference']<0
    assert found.shares.share['rows']-found.shares.chance['rows']>.05
    apart = np.random.default_rng(0).permutation(len(early))
    same = told(early.iloc[apart[10_000:]], **how).drift(early.iloc[apart[:10_000]])
    assert not same.retrain, same
    assert (abs(same.shares.share-same.shares.chance)<.02).all()

def test_random_splits_are_seldom_flagged():
    df = synth_ratings(60, 40, 1500)[['user_id','item_id']]
    flagged = 0
    for seed in range(12):
        apart = np.random.default_rng(seed).permutation(len(df))
        flagged += told(df.iloc[apart[300:]]).drift(df.iloc[apart[:300]], draws=5).retrain
    assert flagged<=2

def test_ids_of_other_types_are_refused(rec):
    with pytest.raises((RatingsError,UnknownIdError)): rec.drift(pd.DataFrame(dict(user_id=['a'], item_id=['b'])))

def test_strangers_alone_leave_no_lists_to_compare(rec):
    found = rec.drift(pd.DataFrame(dict(user_id=range(1000, 1100), item_id=range(2000, 2100))))
    assert found.retrain and not len(found.lists) and found.shares.share['rows']==1
    assert 'without a training row' in found.advice

def test_without_validation_rows_only_shares_are_told():
    df = synth_ratings(40, 30, 700)
    found = told(df[100:], valid_pct=0).drift(df[:100])
    assert not len(found.lists) and not found.retrain

def test_unknown_ids_that_come_again_are_one(rec):
    old,new = np.array([[1,1],[2,2]]),np.array([[3,3],[3,4],[1,1]])
    assert _beside_chance(old, new, 3, 0).share['people']==.5

def test_as_many_rows_of_each_person(rec):
    rows = rec.train
    a,b = _as_many((rows[:200],rows[150:]), 1)
    assert (a.counts('user')==b.counts('user')).all() and len(a)
    least = np.minimum(rows[:200].counts('user'), rows[150:].counts('user'))
    assert (a.counts('user')==least).all()

def test_nothing_given_is_changed(rec):
    df = synth_ratings(40, 30, 700)[:50]
    before = df.copy()
    rec.drift(df)
    pd.testing.assert_frame_equal(df, before)
