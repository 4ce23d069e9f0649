"Which rows train and which test: positions, shares, seeds and the order of time"
import numpy as np
import pandas as pd
import pytest
import torch
from fastai.data.transforms import RandomSplitter
from hypothesis import given, settings, strategies as st

from helpers import fit_one_cycle
from recfast.core import RatingsError
from recfast.data.datasets import ml_100k
from recfast.data.loaders import CollabDataLoaders, resolve_splits
from recfast.data.split import (global_time_split, held_out_users, item_split, k_fold, last_rows, leakage, leave_last_out, leaking_rows,
                                random_split, user_split)
from recfast.learner import collab_learner
from recfast.testing import block_ratings, synth_ratings

rows = st.lists(st.tuples(st.integers(0,5), st.integers(0,7), st.integers(0,9)), min_size=1, max_size=60)
pcts,seeds = st.floats(0, 0.95),st.integers(0, 2**31)

def frame(rows, index=None):
    "Users as text, an index that is no position"
    df = pd.DataFrame(rows, columns=['user_id','item_id','timestamp'])
    return df.assign(user_id='u'+df.user_id.astype(str)).set_axis(np.arange(len(df))[::-1]*7 if index is None else index)

def covers(n, *parts): return sorted(np.concatenate(parts))==list(range(n))

SPLITS = {'random': lambda df,p,s: random_split(df, p, s), 'user': lambda df,p,s: user_split(df, p, s), 'item': lambda df,p,s: item_split(df, p, s),
          'last': lambda df,p,s: leave_last_out(df, 1+s%3), 'fold': lambda df,p,s: k_fold(df, 2, s)[0],
          'held_out': lambda df,p,s: held_out_users(df, n=min(1, (df.user_id.value_counts()>1).sum()), history_pct=0.01+p, seed=s),
          'time': lambda df,p,s: global_time_split(df, p)}

@pytest.mark.parametrize('name', SPLITS)
@given(rows, pcts, seeds)
@settings(max_examples=40, deadline=None)
def test_parts_are_disjoint_and_cover_the_table(name, rows, pct, seed):
    df = frame(rows)
    if name=='time' and df.timestamp.nunique()<2 or name=='fold' and len(df)<2: return
    before = df.copy()
    parts = SPLITS[name](df, pct, seed)
    assert covers(len(df), *parts) and all(p.dtype==np.int64 for p in parts)
    assert all((a==b).all() for a,b in zip(parts, SPLITS[name](df, pct, seed)))
    pd.testing.assert_frame_equal(df, before)

@pytest.mark.parametrize('split,column', [(user_split,'user_id'), (item_split,'item_id')])
@given(rows, pcts, seeds)
@settings(max_examples=60, deadline=None)
def test_everyone_gives_the_same_share(split, column, rows, pct, seed):
    df = frame(rows)
    train,_ = split(df, pct, seed)
    kept = df[column].iloc[train].value_counts()
    for key,n in df[column].value_counts().items(): assert kept[key]==max(1, round((1-pct)*n))

@given(rows, st.integers(1,4))
@settings(max_examples=60, deadline=None)
def test_the_last_rows_are_those_of_a_plain_loop(rows, n):
    df,want = frame(rows),[]
    for u in df.user_id.unique():
        at = sorted((t,i) for i,(v,t) in enumerate(zip(df.user_id, df.timestamp)) if v==u)
        want += [i for _,i in at[max(1, len(at)-n):]]
    assert leave_last_out(df, n)[1].tolist()==sorted(want)

@given(rows, st.floats(0.01, 0.95))
@settings(max_examples=60, deadline=None)
def test_a_cut_through_time_has_nothing_late_in_training(rows, pct):
    df = frame(rows)
    if df.timestamp.nunique()<2: return
    train,test = global_time_split(df, pct)
    assert df.timestamp.iloc[train].max()<df.timestamp.iloc[test].min()
    sizes = [(df.timestamp>=t).sum() for t in sorted(df.timestamp.unique())[1:]]
    assert abs(len(test)-pct*len(df))==min(abs(s-pct*len(df)) for s in sizes)

@given(rows, st.floats(0.01, 0.99), seeds, st.booleans())
@settings(max_examples=60, deadline=None)
def test_held_out_users_are_wholly_out(rows, share, seed, timed):
    df = frame(rows)
    if not timed: df = df.drop(columns='timestamp')
    n = (df.user_id.value_counts()>1).sum()
    train,history,test = (df.iloc[o] for o in held_out_users(df, n=n, history_pct=share, seed=seed))
    assert set(history.user_id)==set(test.user_id) and not set(train.user_id)&set(test.user_id) and test.user_id.nunique()==n
    for u,part in test.groupby('user_id'):
        m = (df.user_id==u).sum()
        assert len(part)==m-min(max(round(share*m), 1), m-1)
        if timed: assert history[history.user_id==u].timestamp.max()<=part.timestamp.min()

@given(rows, st.integers(2,6), seeds)
@settings(max_examples=40, deadline=None)
def test_folds_hold_out_every_row_once(rows, n_folds, seed):
    df = frame(rows)
    if len(df)<n_folds: return
    folds = k_fold(df, n_folds, seed)
    assert covers(len(df), *(v for _,v in folds)) and all(covers(len(df), *f) for f in folds)
    assert max(len(v) for _,v in folds)-min(len(v) for _,v in folds)<=1

@given(st.lists(st.tuples(st.integers(0,3), st.integers(0,9)), max_size=12), st.lists(st.tuples(st.integers(0,3), st.integers(0,9)), max_size=12))
@settings(max_examples=100, deadline=None)
def test_leaking_rows_equal_the_double_loop(train, test):
    cols = lambda o: [[x[j] for x in o] for j in (0,1)]
    (u0,t0),(u1,t1) = cols(train),cols(test)
    assert leaking_rows(t0, t1).tolist()==[any(t<s for s in t0) for t in t1]
    assert leaking_rows(t0, t1, u0, u1).tolist()==[any(t<s and u==v for v,s in train) for u,t in test]


@pytest.mark.parametrize('seed', [0,42])
def test_random_rows_are_those_of_fastai_and_of_from_df(seed):
    df = synth_ratings()
    train,valid = random_split(df, 0.25, seed)
    assert [list(train),list(valid)]==[list(o) for o in RandomSplitter(0.25, seed=seed)(range(len(df)))]
    assert all((a==b).all() for a,b in zip((train,valid), resolve_splits(df, valid_pct=0.25, seed=seed)))

def test_the_split_of_the_recommenders_table(ml100k_dir):
    df = ml_100k(ml100k_dir)
    np.random.seed(42) # as published
    d = df.reset_index(drop=True).assign(r=np.random.rand(len(df))).sort_values(['item_id','r'])
    by_item = d.groupby('item_id')
    want = d.index[by_item.cumcount()+1<=(0.75*by_item.item_id.transform('count')).round()]
    train,test = item_split(df, 0.25, seed=42)
    assert train.tolist()==sorted(want) and (len(train),len(test))==(75_066,24_934)
    assert set(df.item_id.iloc[test])<=set(df.item_id.iloc[train])

def test_half_a_row_goes_to_the_even_number(): # 3 of 4 rows, round(1.5)=2 of 2 rows, round(4.5)=4 of 6 rows train
    df = frame([(u,0,0) for u,n in enumerate([4,2,6]) for _ in range(n)])
    train,_ = user_split(df, 0.25, seed=0)
    assert df.user_id.iloc[train].value_counts(sort=False).to_dict()=={'u0':3,'u1':2,'u2':4}

def test_someone_with_one_row_is_trained_on():
    assert 0 in user_split(frame([(1,1,1),(2,1,1),(2,2,2)]), 0.9, seed=0)[0]
    assert leave_last_out(frame([(1,1,1),(2,1,1)]), 5)[1].tolist()==[]

@pytest.mark.parametrize('draw', [lambda df,s: user_split(df, 0.5, s)[1], lambda df,s: k_fold(df, 2, s)[0][1], lambda df,s: held_out_users(df, 0.5, seed=s)[0]])
def test_another_seed_is_another_draw(draw):
    df = synth_ratings()
    assert draw(df, 1).tolist()==draw(df, 1).tolist()!=draw(df, 2).tolist()

def test_global_random_states_are_left_alone():
    df,before = synth_ratings(),(np.random.get_state()[1].copy(), torch.get_rng_state())
    for f in (user_split,item_split,random_split): f(df, seed=1)
    k_fold(df, seed=1), held_out_users(df, seed=1)
    assert (np.random.get_state()[1]==before[0]).all() and (torch.get_rng_state()==before[1]).all()

def test_without_a_seed_torch_s_state_decides():
    draws = []
    for s in (5,5,6):
        torch.manual_seed(s)
        draws.append(item_split(synth_ratings())[1].tolist())
    assert draws[0]==draws[1]!=draws[2]

@pytest.mark.parametrize('dtype', ['category','string'])
def test_ids_of_other_types_are_split_alike(dtype):
    df = frame([(u,u%3,u) for u in [0,1,2,0,1,0,0]*3])
    cast = df.astype({'user_id': dtype})
    for f in (lambda d: user_split(d, 0.4, 1), leave_last_out, lambda d: held_out_users(d, n=1, seed=2)):
        assert [o.tolist() for o in f(df)]==[o.tolist() for o in f(cast)]

def test_an_index_that_repeats():
    df = frame([(1,1,1),(1,2,9),(1,3,3)], index=[0,0,0])
    assert [o.tolist() for o in leave_last_out(df)]==[[0,2],[1]] and [o.tolist() for o in global_time_split(df, 0.3)]==[[0,2],[1]]

def test_columns_under_other_names():
    df = frame([(1,1,1),(1,2,9),(1,3,3)]).set_axis(['who','what','when'], axis=1)
    assert leave_last_out(df, user_name='who', time_name='when')[1].tolist()==[1]
    assert leave_last_out(df, user_name='who')[1].tolist()==[2] # no time: the order of the rows
    assert global_time_split(df, cutoff=3, time_name='when')[0].tolist()==[0]

@pytest.mark.parametrize('tz', [None,'UTC'])
def test_times_as_dates(tz):
    df = frame([(1,1,1),(1,2,9),(1,3,3)])
    df = df.assign(timestamp=pd.to_datetime(df.timestamp, unit='D', utc=tz is not None))
    assert leave_last_out(df)[1].tolist()==[1]
    assert global_time_split(df, cutoff='1970-01-04')[1].tolist()==[1,2]
    assert leakage(df, ([1],[0,2]))==dict(test=2, same_user=2, anyone=2)

def test_rows_of_one_time_stay_together(): # a third of 6 rows is 2, the last time has 3
    assert global_time_split(frame([(1,i,t) for i,t in enumerate([1,2,3,5,5,5])]), 1/3)[1].tolist()==[3,4,5]

def test_large_times_keep_their_last_digit():
    t = 1_700_000_000_000_000_000
    assert leaking_rows([t], [t-1,t], ['a'], ['a','b']).tolist()==[True,False]

@pytest.mark.parametrize('at', [[], [0,1,2]])
def test_no_test_or_no_training_rows_leak_nothing(at):
    df = frame([(1,1,3),(1,2,2),(2,1,1)])
    assert leakage(df, ([],at))==dict(test=len(at), same_user=0, anyone=0)
    assert leakage(df, ([0,1,2],[]))==dict(test=0, same_user=0, anyone=0)

def test_leakage_by_hand(): # rows 1 and 2 are before row 0; only row 1 is of the same user
    assert leakage(frame([(1,1,5),(1,2,4),(2,1,3),(2,1,6)]), ([0],[1,2,3]))==dict(test=3, same_user=1, anyone=2)

DF = frame([(1,1,1),(1,2,2),(2,1,3)])

@pytest.mark.parametrize('split', [random_split,user_split,item_split,k_fold,leave_last_out,global_time_split,held_out_users])
def test_an_empty_table(split):
    with pytest.raises(RatingsError, match='0 rows'): split(DF[:0])

@pytest.mark.parametrize('split', [lambda p: random_split(DF, p), lambda p: user_split(DF, p), lambda p: item_split(DF, p),
                                   lambda p: global_time_split(DF, p), lambda p: held_out_users(DF, p)])
@pytest.mark.parametrize('pct', [1,-0.1,20])
def test_a_share_that_is_none(split, pct):
    with pytest.raises(RatingsError, match=f'valid_pct={pct}'): split(pct)

@pytest.mark.parametrize('split', [leave_last_out,global_time_split,held_out_users])
@pytest.mark.parametrize('hole', [np.nan,pd.NaT])
def test_a_time_that_is_missing(split, hole):
    t = pd.Series([0,1,hole], index=DF.index) if hole is np.nan else pd.Series(pd.to_datetime(['2020','2021',hole]), index=DF.index)
    with pytest.raises(RatingsError, match="'timestamp' has missing times"): split(DF.assign(timestamp=t))

@pytest.mark.parametrize('call,message', [
    (lambda: global_time_split(DF.drop(columns='timestamp')), "no column 'timestamp'.*time_name="),
    (lambda: leave_last_out(DF, time_name='when'), "no column 'when'"),
    (lambda: user_split(DF, user_name='user'), "Did you mean user_name='user_id'"),
    (lambda: leave_last_out(DF, 0), 'n=0, expected 1 or more'),
    (lambda: global_time_split(DF.assign(timestamp=list('123'))), 'Expected numbers or text such as 2024-05-17'),
    (lambda: global_time_split(DF.assign(timestamp=7)), "all 3 rows of column 'timestamp' have the time 7"),
    (lambda: global_time_split(DF, cutoff=1), 'leaves no training rows.*goes from 1 to 3'),
    (lambda: global_time_split(DF, cutoff='1998-04-01'), "cutoff='1998-04-01' cannot be compared with column 'timestamp'"),
    (lambda: k_fold(DF, 1), 'n_folds=1 of 3 rows'),
    (lambda: held_out_users(DF, n=2), '2 users to hold out, but 1 of 2'),
    (lambda: held_out_users(DF, n=1, history_pct=1), 'history_pct=1'),
    (lambda: user_split(DF.assign(user_id=['a',None,'b'])), 'missing ids'),
    (lambda: leaking_rows([1,2], [np.nan]), '1 test rows have no time'),
    (lambda: leaking_rows([1,2], pd.to_datetime(['2020-01-01'])), 'cannot be compared'),
    (lambda: last_rows([1,1], [1,None]), '1 rows have no time')])
def test_what_cannot_be_split(call, message):
    with pytest.raises(RatingsError, match=message): call()

@pytest.mark.parametrize('call', [lambda: global_time_split(DF, 0.2, cutoff=2), lambda: held_out_users(DF, 0.2, n=1)])
def test_two_ways_to_say_how_much(call):
    with pytest.raises(TypeError, match='not both'): call()

def test_no_validation_rows_at_all():
    for f in (random_split,user_split,item_split,global_time_split): assert [len(o) for o in f(DF, 0)]==[3,0]

def test_the_names_are_where_they_were():
    from recfast.data import sequences, split
    assert sequences.last_rows is last_rows is split.last_rows and sequences.time_order is split.time_order

def test_held_out_users_are_answered_by_their_history():
    df = block_ratings()
    train,history,test = held_out_users(df, n=10, seed=1)
    learn = collab_learner(CollabDataLoaders.from_df(df, splits=(train,[]), seed=1), n_factors=5, y_range=(0,5.5))
    fit_one_cycle(learn, 8, 2e-2, wd=0.01)
    shown = [(u,g) for u,g in df.iloc[history].groupby('user_id')]
    recs = learn.recommend(history=[g for _,g in shown], k=3)
    recs['user_id'] = recs.user_id.map(dict(enumerate(u for u,_ in shown)))
    assert len(recs)==30 and (recs.user_id%2==recs.item_id%2).mean()>0.95 # of the kind the user likes
