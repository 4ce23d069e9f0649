"What came first and what came last is asked of the caller's table, whichever part a split put a row in"
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recfast.bundle import load_bundle, save_bundle
from recfast.data.loaders import CollabDataLoaders
from recfast.data.sequences import Histories, in_table_order, in_time
from recfast.learner import collab_learner

def table(n=400, seed=0, times=None):
    rng = np.random.default_rng(seed)
    df = pd.DataFrame(dict(user_id=rng.integers(0, 12, n), item_id=rng.integers(0, 9, n), rating=rng.integers(1, 11, n)/2))
    return df if times is None else df.assign(timestamp=rng.integers(0, times, n))

def last_of(df, order):
    "The last rating of each pair as pandas has it"
    return df.iloc[order].groupby(['user_id','item_id']).rating.last()

def filled(rec, pairs): return rec.fill_wide().stack().loc[list(pairs)]

SPLITS = dict(
    drawn=dict(valid_pct=.4),
    turned=dict(splits=(np.arange(399, 150, -1), np.arange(100))), # and 51 rows in neither part
    none=dict(valid_pct=0),
    column=dict(splits='is_valid'),
)

@pytest.mark.parametrize('times', [None, 3])
@pytest.mark.parametrize('how', SPLITS)
def test_the_last_of_a_pair_is_the_caller_s(how, times, tmp_path):
    df = table(times=times).assign(is_valid=np.arange(400)%3==0)
    order = np.arange(400) if times is None else df.timestamp.argsort(kind='stable')
    want = last_of(df, order)
    dls = CollabDataLoaders.from_df(df.set_index(np.arange(400)[::-1]), seed=0, bs=64, **SPLITS[how])
    learn = collab_learner(dls, 2, y_range=(0,6))
    again = load_bundle(learn.save_bundle(tmp_path/'rows.recfast'))
    twice = load_bundle(save_bundle(again, tmp_path/'rows.zip'))
    for rec in (learn,again,twice): assert np.allclose(filled(rec, want.index), want)

@given(st.integers(0, 10**6), st.sampled_from([None,1,5]), st.floats(.05, .9))
@settings(max_examples=25, deadline=None)
@pytest.mark.filterwarnings('ignore:.*validation rows have')
def test_all_rows_in_time_are_the_table_in_time(seed, times, pct):
    df = table(60, seed, times)
    dls = CollabDataLoaders.from_df(df, seed=seed, valid_pct=pct, bs=1, vocab='all')
    rows = dls.interactions('all')
    in_order = df if times is None else df.iloc[df.timestamp.argsort(kind='stable')]
    assert in_table_order(rows).timed_frame().equals(df.astype(dict(rating='float32')))
    assert in_time(rows).timed_frame().equals(in_order.astype(dict(rating='float32')).reset_index(drop=True))
    some = np.arange(0, 60, 7)
    assert in_table_order(rows[some]).frame().equals(rows[some].frame().iloc[np.argsort(rows.place[some])].reset_index(drop=True))

@pytest.mark.parametrize('how', ['last','mean'])
def test_what_repeats_leave_stands_where_it_stood(how):
    df = table()
    dls = CollabDataLoaders.from_df(df, seed=3, bs=8, vocab='all', duplicates=how)
    for part in (dls.train_ds,dls.valid_ds):
        at = part.place
        assert (df.user_id.to_numpy()[at]==part.frame().user_id).all() and (df.item_id.to_numpy()[at]==part.frame().item_id).all()
        if how=='last': assert np.allclose(df.rating.to_numpy()[at], part.ratings())

@pytest.mark.parametrize('builder', ['from_df','implicit_from_df','rows_from_df'])
def test_histories_of_all_rows_follow_the_table(builder):
    df = table().drop_duplicates(['user_id','item_id']).query('item_id!=user_id%9')
    hist = Histories(getattr(CollabDataLoaders, builder)(df, seed=0, bs=4, vocab='all').interactions('all'))
    for u in (0,7): assert (hist.items[hist.starts[u+1]:hist.stops[u+1]]-1).tolist()==df.item_id[df.user_id==u].tolist()

def test_histories_of_next_item_loaders_follow_the_table():
    df = table().sample(frac=1, random_state=1) # the index is not the place
    hist = Histories(CollabDataLoaders.sequences_from_df(df, bs=4, vocab='all').interactions('all'))
    assert (hist.items[hist.starts[3]:hist.stops[3]]-1).tolist()==df.item_id[df.user_id==2].tolist()

def test_reasons_are_read_in_the_order_of_the_table():
    df = table()
    learn = collab_learner(CollabDataLoaders.from_df(df, seed=0, bs=64, valid_pct=.1), 2, y_range=(0,6))
    own = learn.recommender._own_history(3)[1].tolist()
    train = learn.dls.interactions('train')
    at = np.sort(train.place[train.rows_of('user')==3])
    assert own==df.rating.to_numpy()[at].tolist()
