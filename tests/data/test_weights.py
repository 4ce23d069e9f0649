"What a row weighs: numbers, kinds of events, half-lives, sums, and what each builder makes of them"
import warnings

import numpy as np
import pandas as pd
import pytest
import torch

from recfast.core import RatingsError
from recfast.data.columns import Columns
from recfast.data.loaders import CollabDataLoaders
from recfast.data.weights import half_life_seconds

DAY = 86400
WORTH = {'view': 1, 'cart': 3, 'buy': 8}

def log(n=600, seed=0):
    rng = np.random.default_rng(seed)
    return pd.DataFrame(dict(user_id=rng.integers(0, 30, n), item_id=rng.integers(0, 20, n), kind=rng.choice(list(WORTH), n),
        timestamp=rng.integers(0, 200, n)*DAY, w=rng.random(n).round(2)))

LOG = log()

def clicks(df=LOG, **kwargs): return CollabDataLoaders.implicit_from_df(df, **{'seed': 1, 'bs': 32, **kwargs})

def by_hand(df, train, half_life=None, worth=None, column=None):
    "{(user, item): sum of the weights of its training rows}"
    now,total = df.timestamp.iloc[train].max(),{}
    for o in df.iloc[train].itertuples():
        w = 1. if column is None else getattr(o, column)
        if worth: w *= worth[o.kind]
        if half_life: w *= .5**((now-o.timestamp)/half_life)
        total[o.user_id,o.item_id] = total.get((o.user_id,o.item_id), 0)+w
    return total

def pairs(rows):
    m = rows.csr('weights').tocoo()
    users,items = rows.user_vocab.decode(m.row),rows.item_vocab.decode(m.col)
    return {(int(u),int(i)): w for u,i,w in zip(users, items, m.data)}

@pytest.mark.parametrize('duplicates', ['keep','sum'])
@pytest.mark.parametrize('given,hand', [
    (dict(weight_name='w'), dict(column='w')),
    (dict(event_name='kind', event_weights=WORTH), dict(worth=WORTH)),
    (dict(half_life='30d'), dict(half_life=30*DAY)),
    (dict(half_life=10*DAY), dict(half_life=10*DAY)),
    (dict(event_name='kind', event_weights=WORTH, half_life='45 days', weight_name='w'), dict(worth=WORTH, half_life=45*DAY, column='w')),
])
def test_a_pair_weighs_the_sum_of_its_rows(given, hand, duplicates):
    splits = np.arange(100,600),np.arange(100)
    rows = clicks(splits=splits, duplicates=duplicates, **given).train_ds
    want = by_hand(LOG, splits[0], **hand)
    assert pairs(rows)==pytest.approx(want, rel=1e-5) and (duplicates=='keep' or len(rows)==len(want))

def test_the_clock_is_the_latest_training_row_and_what_comes_later_is_as_new():
    df = pd.DataFrame(dict(user_id=[1,1,1,1], item_id=list('abcd'), timestamp=[0,90*DAY,180*DAY,900*DAY]))
    dls = clicks(df, splits=([0,1,2],[3]), half_life='90d', bs=1, vocab='all', n_neg=0)
    assert dls.train_ds.weights.tolist()==[.25,.5,1] and dls.valid_ds.weights.tolist()==[1]

@pytest.mark.parametrize('unit', ['s','ms','us','ns'])
def test_dates_of_every_resolution_and_zone_are_seconds(unit):
    times = pd.Series(pd.to_datetime(['2024-01-01','2024-01-31','2024-03-01'])).astype(f'datetime64[{unit}]')
    for t in (times,times.dt.tz_localize('Europe/Berlin')):
        df = pd.DataFrame(dict(user_id=[1,1,1], item_id=[1,2,3], timestamp=t))
        assert clicks(df, valid_pct=0, half_life='30d', bs=1, n_neg=0).train_ds.weights.sort().values.tolist()==pytest.approx([.25,.5,1])

@pytest.mark.parametrize('half_life,seconds', [('90d',90*DAY), ('90D',90*DAY), (' 12 hours ',12*3600), ('2w',14*DAY), ('1.5 h',5400), ('45min',2700), ('30s',30),
    (pd.Timedelta('36h'),129600), (np.timedelta64(2, 'D'),2*DAY)])
def test_a_half_life_is_read_without_a_warning(half_life, seconds):
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert half_life_seconds(half_life)==seconds

@pytest.mark.parametrize('half_life', ['90','1M','3 months','2y','0d','-5d','soon','',pd.NaT,None,[90]])
def test_what_is_no_half_life_is_refused(half_life):
    with pytest.raises(RatingsError, match="such as '90d'"): half_life_seconds(half_life)

@pytest.mark.parametrize('half_life', [0,-3,np.inf,np.nan])
def test_a_number_that_is_no_half_life(half_life):
    with pytest.raises(RatingsError, match='above 0'): clicks(half_life=half_life)

def test_milliseconds_are_not_taken_for_seconds():
    ms = LOG.assign(timestamp=1_700_000_000_000+LOG.timestamp*1000)
    with pytest.raises(RatingsError, match='no seconds since 1970'): clicks(ms, half_life='30d')
    own = clicks(ms, half_life=30*DAY*1000).train_ds.weights
    torch.testing.assert_close(own, clicks(half_life='30d').train_ds.weights)

def test_a_half_life_needs_times_and_dates_need_a_unit():
    with pytest.raises(RatingsError, match='time_name='): clicks(LOG.drop(columns='timestamp'), half_life='90d')
    dated = LOG.assign(timestamp=pd.to_datetime(LOG.timestamp, unit='s'))
    with pytest.raises(RatingsError, match='times that are dates'): clicks(dated, half_life=90)
    assert clicks(dated, half_life='90d').train_ds.weights.tolist()==clicks(half_life='90d').train_ds.weights.tolist()

# numbers that are no weights, kinds that have none

@pytest.mark.parametrize('bad,said', [([-1,-2],r'below 0 \(2 of them\): -1.0, -2.0'), ([np.nan,.5],'missing weights: nan at row position 3'),
    ([np.inf,1],r'beyond float32 \(1 of them\)'), ([1e39,1],'beyond float32')])
@pytest.mark.parametrize('build', ['from_df','implicit_from_df','rows_from_df'])
def test_an_error_says_how_many_and_where(bad, said, build):
    df = LOG.assign(rating=1.+LOG.index%5)
    df.loc[[3,7],'w'] = bad
    with pytest.raises(RatingsError, match=said): getattr(CollabDataLoaders, build)(df, weight_name='w')

@pytest.mark.parametrize('col', [pd.to_datetime(LOG.timestamp, unit='s'), pd.Series(['much']*600), pd.Series([1+2j]*600)])
def test_what_is_no_number_is_no_weight(col):
    with pytest.raises(RatingsError, match='are not numbers'): clicks(LOG.assign(w=col), weight_name='w')

@pytest.mark.parametrize('dtype', ['float32','Int64','int8','object','category','bool','Float32'])
def test_weights_of_any_kind_of_number(dtype):
    w = (LOG.index%2).to_series(index=LOG.index).astype(dtype)
    assert clicks(LOG.assign(w=w), weight_name='w', valid_pct=0, shuffle=False).train_ds.weights.sum()==300

def test_every_kind_needs_a_weight_and_the_error_counts():
    few = LOG.assign(kind=['wish']*12+['share']*3+list(LOG.kind[15:]))
    with pytest.raises(RatingsError, match=r"2 kinds of events without a weight: 'share' \(3 rows\), 'wish' \(12 rows\)"):
        clicks(few, event_name='kind', event_weights=WORTH)
    with pytest.raises(RatingsError, match='missing events'):
        clicks(LOG.assign(kind=LOG.kind.mask(LOG.index==5)), event_name='kind', event_weights=WORTH)

@pytest.mark.parametrize('worth,error', [({'view': -1, 'cart': 3, 'buy': 8},RatingsError), ({**WORTH, 'buy': np.nan},RatingsError),
    ({**WORTH, 'buy': '8'},RatingsError), ({**WORTH, 'buy': np.inf},RatingsError), (['view'],TypeError), (8,TypeError)])
def test_what_is_no_weight_of_a_kind(worth, error):
    with pytest.raises(error, match='event_weights'): clicks(event_name='kind', event_weights=worth)

def test_event_weights_need_their_column_and_a_column_has_one_role():
    with pytest.raises(RatingsError, match='event_name='): clicks(event_weights=WORTH)
    with pytest.raises(RatingsError, match='two roles'): clicks(event_name='kind', weight_name='kind')
    with pytest.raises(RatingsError, match="no column 'weigth'"): clicks(weight_name='weigth')
    with pytest.raises(RatingsError, match='is it the column of events'): clicks(LOG.assign(kind=np.arange(600)), event_name='kind')

@pytest.mark.parametrize('kinds,worth', [([0,1,2],{0: 1, 1: 3, 2: 8}), ([0,1,2],{'0': 1, '1': 3, '2': 8}), (['a','b','c'],pd.Series([1,3,8], list('abc')))])
def test_kinds_of_any_type(kinds, worth):
    names = dict(zip(WORTH, kinds))
    other = LOG.assign(kind=LOG.kind.map(names).astype('category'))
    want = clicks(event_name='kind', event_weights=WORTH).train_ds.weights
    assert clicks(other, event_name='kind', event_weights=worth).train_ds.weights.tolist()==want.tolist()

def test_nothing_given_is_changed():
    df,worth = LOG.copy(),dict(WORTH)
    clicks(df, weight_name='w', event_name='kind', event_weights=worth, half_life='9d', duplicates='sum')
    pd.testing.assert_frame_equal(df, LOG)
    assert worth==WORTH

def test_a_column_called_weight_is_not_taken_unasked():
    df = LOG.rename(columns={'w': 'weight', 'kind': 'event'})
    assert clicks(df).train_ds.weights is None and Columns.find(df)[4:]==(None,None)

def test_weights_may_be_called_rating():
    rows = clicks(LOG.rename(columns={'w': 'rating'}), weight_name='rating').train_ds
    assert rows.weights.tolist()==clicks(weight_name='w').train_ds.weights.tolist() and set(rows.values.tolist())=={1.}

# sums

def test_stars_have_no_sum_and_weights_no_mean():
    stars = LOG.assign(rating=1.+LOG.index%5)
    with pytest.raises(RatingsError, match='are no 6'): CollabDataLoaders.from_df(stars, duplicates='sum')
    with pytest.raises(RatingsError, match='are no 6'): CollabDataLoaders.from_df(stars, duplicates='sum', weight_name='w')
    with pytest.raises(RatingsError, match="duplicates='mean' of rows with weights"): clicks(duplicates='mean', weight_name='w')
    with pytest.raises(RatingsError, match="expected one of"): clicks(duplicates='add')

def test_a_sum_without_weights_counts():
    rows = clicks(duplicates='sum', valid_pct=0).train_ds
    assert pairs(rows)==LOG.groupby(['user_id','item_id']).size().to_dict()

def test_the_last_repeat_weighs_for_itself():
    df = pd.DataFrame(dict(user_id=[1,1,1], item_id=[7,7,8], w=[5.,2.,1.], timestamp=[9,3,1]))
    assert pairs(clicks(df, duplicates='last', weight_name='w', valid_pct=0, bs=1, n_neg=0).train_ds)=={(1,7): 5, (1,8): 1}

# events

def test_rows_of_some_kinds():
    rows = clicks(event_name='kind', valid_pct=0).train_ds
    assert rows.weights is None and {k: len(rows.of_events(k)) for k in WORTH}==LOG.kind.value_counts().to_dict()
    assert len(rows.of_events({'view','buy'}))==LOG.kind.isin(['view','buy']).sum()
    with pytest.raises(RatingsError, match="no events of kind 'wish'; there are 'buy', 'cart', 'view'"): rows.of_events(['wish'])
    with pytest.raises(RatingsError, match='tell no kinds of events apart'): clicks().train_ds.of_events('buy')

def test_a_summed_row_has_the_kinds_of_all_its_repeats():
    rows = clicks(event_name='kind', event_weights=WORTH, duplicates='sum', valid_pct=0).train_ds
    bought = rows.of_events('buy').frame()[['user_id','item_id']]
    want = LOG[LOG.kind=='buy'][['user_id','item_id']].drop_duplicates()
    assert set(map(tuple, bought.to_numpy()))==set(map(tuple, want.to_numpy()))

def test_parts_know_the_same_kinds():
    dls = clicks(LOG.sort_values('kind'), event_name='kind', splits=(np.arange(400),np.arange(400,500)))
    both = dls.interactions('all')
    assert len(both)==600 and {k: len(both.of_events(k)) for k in WORTH}==LOG.kind.value_counts().to_dict()

# zero

def test_zero_is_seen_and_not_trained_on():
    dls = clicks(event_name='kind', event_weights={'view': 0, 'cart': 0, 'buy': 8}, valid_pct=0, n_neg=2)
    rows = dls.train_ds
    n = (LOG.kind=='buy').sum()
    seen = sum(len(x) for x,*_ in dls.train)
    assert len(rows)==600 and seen==n*3 and dls.report['zero_weights']==600-n
    assert rows.csr().nnz==len(LOG.drop_duplicates(['user_id','item_id']))
    bought = set(map(tuple, rows.of_events('buy').pairs().tolist()))
    assert {tuple(o) for x,*_ in dls.train for o in x.view(-1, 3, 2)[:,0].tolist()}==bought

def test_who_has_only_zeros_is_not_trained():
    df = LOG.assign(w=np.where(LOG.user_id==3, 0, 1.))
    rows = clicks(df, weight_name='w', valid_pct=0).train_ds
    user = rows.user_vocab.encode([3])[0]
    assert not rows.trained('user')[user] and rows.trained('user').sum()==29 and len(rows.of_user(int(user)))==(LOG.user_id==3).sum()

def test_all_zero_is_an_error():
    with pytest.raises(RatingsError, match='training rows weigh 0'): clicks(LOG.assign(w=0), weight_name='w')

def test_bs_is_held_against_the_rows_that_weigh():
    df = LOG.assign(w=(LOG.index<20)*1.)
    with pytest.raises(RatingsError, match='only 20 training rows'): clicks(df, weight_name='w', valid_pct=0)

# batches

@pytest.mark.parametrize('n_neg', [0,3])
@pytest.mark.parametrize('by_user', [False,True])
def test_a_block_weighs_what_its_positive_does(n_neg, by_user):
    dls = clicks(LOG.drop_duplicates(['user_id','item_id']), weight_name='w', n_neg=n_neg, by_user=by_user, valid_pct=0)
    of = dict(zip(map(tuple, dls.train_ds.pairs().tolist()), dls.train_ds.weights.tolist()))
    for x,y,w in dls.train:
        x,w = x.view(-1, 1+n_neg, 2),w.view(-1, 1+n_neg)
        assert y.shape==(x.shape[0]*(1+n_neg),1) and (w==w[:,:1]).all()
        assert w[:,0].tolist()==[of[tuple(o)] for o in x[:,0].tolist()]

def test_batches_have_two_parts_unless_rows_weigh():
    assert len(clicks().one_batch())==2 and len(clicks(event_name='kind').one_batch())==2 and len(clicks(weight_name='w').one_batch())==3
    assert len(clicks(weight_name='w').test_dl(LOG[:5].assign(rating=1.)).one_batch())==2

def test_what_is_shown_has_the_weights():
    df = clicks(weight_name='w').show_batch(show=False)[0]
    assert list(df)[-1]=='weight'

def test_sequences_say_why_not():
    for given in (dict(weight_name='w'), dict(event_name='kind', event_weights=WORTH), dict(half_life='9d'), dict(duplicates='sum')):
        with pytest.raises(RatingsError, match='next-item model asks for every row'): CollabDataLoaders.sequences_from_df(LOG, **given)

@pytest.mark.parametrize('kind', ['csv','parquet'])
def test_files(tmp_path, kind):
    path = tmp_path/f'log.{kind}'
    dated = LOG.assign(timestamp=pd.to_datetime(LOG.timestamp, unit='s'), rating=1.)
    dated.to_csv(path, index=False) if kind=='csv' else dated.to_parquet(path)
    dls = getattr(CollabDataLoaders, f'from_{kind}')(path, seed=1, event_name='kind', event_weights=WORTH, half_life='30d', duplicates='sum')
    assert pairs(dls.train_ds)==pytest.approx(pairs(clicks(event_name='kind', event_weights=WORTH, half_life='30d', duplicates='sum').train_ds))
