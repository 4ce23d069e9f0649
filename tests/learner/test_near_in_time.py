"Residuals near in time: what is read of a row, what is refused, what two rows come to by hand"
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st

from recfast.core import ArgumentError, RatingsError, UnknownIdError
from recfast.data.loaders import CollabDataLoaders
from recfast.learner import collab_learner
from recfast.near_in_time import NearInTime, _pairs, amounts, as_seconds, covariances, left_out, nearness

DAY = 86_400

def evenings(seed=0, n=1500):
    "Thirty people on ten evenings, each with a mood"
    rng = np.random.default_rng(seed)
    user,item,evening = (rng.integers(k, size=n) for k in (30,20,10))
    mood = .6*rng.standard_normal((30,10))
    mood -= mood.mean(1, keepdims=True)
    rating = 3+mood[user,evening]+.3*rng.standard_normal(n)
    return pd.DataFrame(dict(user_id=user, item_id=item, rating=rating.round(2), timestamp=DAY*evening+rng.integers(600, size=n)))

def cut(df): return list(range(len(df)//5, len(df))),list(range(len(df)//5))
def loaders(df, **kwargs): return CollabDataLoaders.from_df(df, splits=cut(df), seed=0, vocab='all', **kwargs)
def untrained(dls): return collab_learner(dls, n_factors=2, y_range=(0,6), seed=0)
def near_of(df, **kwargs):
    learn = untrained(loaders(df, **kwargs))
    return NearInTime(learn, untrained, 2)

@pytest.fixture(scope='module')
def near(): return near_of(evenings())

def asked(df): return df.user_id.to_numpy(),df.item_id.to_numpy(),df.timestamp.to_numpy()

def test_moods_are_found_and_only_near(near):
    rmse,gain = (near.report()[k] for k in ('rmse','gain'))
    assert rmse['all rows']<.8*rmse['ratings only'] and near.report().low['all rows']>0
    assert abs(gain['an hour or more apart'])<.02

def test_times_that_say_nothing_gain_nothing():
    df = evenings()
    report = near_of(df.assign(timestamp=np.random.default_rng(1).permutation(df.timestamp))).report({'all rows': 0})
    assert abs(report.gain['all rows'])<.02

def test_no_rating_of_a_held_out_row_is_read(near):
    df = evenings()
    other = df.assign(rating=df.rating.where(df.index>=len(df)//5, 3.))
    assert (near_of(other).predict(*asked(df[:99]))==near.predict(*asked(df[:99]))).all()

def test_a_training_rating_counts_for_its_person_alone(near):
    df = evenings()
    last = df.index[-1]
    moved = near_of(df.assign(rating=df.rating.where(df.index!=last, 3.)))
    moved.amounts,moved.noise = near.amounts,near.noise
    same = moved.predict(*asked(df[:300]))==near.predict(*asked(df[:300]))
    theirs = (df.user_id[:300]==df.user_id[last]).to_numpy()
    assert same[~theirs].all() and not same[theirs].all()

def by_hand(seconds, off, amounts, noise):
    near = NearInTime.__new__(NearInTime)
    near.seconds,near.off,near.amounts,near.noise = np.array(seconds, float),np.array(off, float),np.array(amounts, float),noise
    near.people = [np.zeros(0, int),np.arange(len(off)),np.zeros(0, int)]
    return near

def test_two_rows_by_hand():
    near = by_hand([5,5], [1,1], [1,0,0,0,0,0,0], 1.)
    assert np.allclose(near.corrections(np.array([1,1,2,0]), np.array([5.,6,5,5])), [2/3,0,0,0])
    near = by_hand([0], [1], [0,1,0,0,0,0,0], 1.)
    assert np.allclose(near.corrections(np.array([1]), np.array([60.])), np.exp(-1)/2)

def test_a_gap_leaves_out_what_is_nearer():
    near = by_hand([0,100], [1,3], [0,0,0,0,0,0,1], 1.)
    one = np.array([1])
    assert np.allclose([near.corrections(one, np.array([0.]), gap)[0] for gap in (0,1,101)], [4/3,3/2,0])

@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 10**7),st.floats(-2, 2)), min_size=2, max_size=12), st.randoms())
def test_the_order_of_rows_says_nothing(rows, random):
    seconds,off = map(np.array, zip(*[(float(s),e) for s,e in rows]))
    at = np.array(random.sample(range(len(off)), len(off)))
    assert np.allclose(_pairs(seconds, off), _pairs(seconds[at], off[at]))
    table = covariances(seconds, off, [np.arange(len(off))])
    assert np.isclose((table.covariance*table.weight).sum(), (off.sum()**2-(off**2).sum())/2/len(off))
    assert (amounts(table)>=0).all()

@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 10**8), min_size=1, max_size=8))
def test_the_law_is_the_covariance_of_something(moments):
    s = np.array(moments, float)
    for k in nearness(s[:,None]-s): assert np.linalg.eigvalsh(k).min()>-1e-8

@pytest.mark.parametrize('write', [lambda o: pd.to_datetime(o, unit='s'), lambda o: pd.to_datetime(o, unit='s').astype(str),
    lambda o: pd.to_datetime(o, unit='s', utc=True).dt.tz_convert('Asia/Seoul')], ids=['datetimes','text','zone'])
def test_times_may_be_written_in_other_ways(near, write):
    df = evenings()
    assert np.allclose(as_seconds(write(df.timestamp)), df.timestamp)
    other = near_of(df.assign(timestamp=write(df.timestamp)))
    assert np.allclose(other.seconds, near.seconds) and np.allclose(other.off, near.off)

def test_one_time_goes_with_many_items(near):
    here = pd.Series([pd.Timestamp('1970-01-02T09:00', tz='Asia/Seoul')])
    assert near.predict([3], [1], here)==near.predict(3, 1, DAY)
    assert (near.predict(3, [1,2], DAY)==near.predict([3,3], [1,2], [DAY,DAY])).all()

def test_residuals_come_from_models_that_did_not_see_the_row(near):
    met = []
    def refit(dls):
        met.append((dls.interactions('train').pairs().tolist(),dls.interactions('valid').pairs().tolist()))
        return untrained(dls)
    rows = near.learn.dls.interactions('train')
    left_out(rows, refit, 4)
    assert [len(a)+len(b) for a,b in met]==[len(rows)]*4 and sum(len(b) for _,b in met)==len(rows)

def test_what_is_refused(near):
    df = evenings(n=300)
    with pytest.raises(ArgumentError, match='no times here'): near_of(df.drop(columns='timestamp'))
    clicks = CollabDataLoaders.implicit_from_df(df, n_neg=0, valid_pct=.2, seed=0)
    with pytest.raises(ArgumentError, match='scores are none'): NearInTime(collab_learner(clicks, n_factors=2), untrained)
    with pytest.raises(ArgumentError, match='these rows weigh'): near_of(df.assign(w=1.), weight_name='w')
    with pytest.raises(UnknownIdError): near.predict(999, 1, 0)
    with pytest.raises(RatingsError, match='times that cannot be read'): near.predict(1, 1, 'tea')
    with pytest.raises(RatingsError): near.predict(1, 1, None)
    with pytest.raises(RatingsError, match='no seconds since 1970'): near_of(df.assign(timestamp=df.timestamp*10**7))
    with pytest.raises(ArgumentError, match='nobody has two rows'): near_of(df.assign(user_id=df.index))
    whole = untrained(CollabDataLoaders.from_df(df, valid_pct=0, seed=0))
    with pytest.raises(ArgumentError, match='nothing is held out'): NearInTime(whole, untrained, 2).report()
