"Histories in the order of time, windows of them, and the row that is held out"
import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recfast.core import RatingsError
from recfast.data.datasets import ml_100k
from recfast.data.loaders import CollabDataLoaders, Interactions, Vocab
from recfast.data.ratings import last_rows, time_order
from recfast.data.sequences import Histories, SequenceDL
from recfast.testing import synth_ratings

CLASSES = {'user': Vocab([1,2,3]), 'film': Vocab(list('abcdefgh'))}

def frame(**users):
    "One row per letter, in this order; user names as given"
    rows = [(u,c) for u,cs in users.items() for c in cs]
    return pd.DataFrame(rows, columns=['user_id','item_id'])

def build(df, **kwargs): return CollabDataLoaders.sequences_from_df(df, **{'bs':1, 'seed':0, 'seq_len':3, **kwargs})

def letters(dls, x): return [''.join('.' if not i else dls.classes['item_id'][i] for i in r) for r in x.tolist()]

def train_windows(dls):
    dl = dls.train
    return list(zip(*(letters(dls, o) for o in dl.batch_at(torch.arange(dl.n)))))


def test_equal_times_keep_the_order_of_the_rows():
    assert time_order([1,1,2,1], [5,5,0,4]).tolist()==[3,0,1,2]

def test_times_as_dates():
    assert time_order(['u']*3, pd.to_datetime(['2020-03-01','2019-01-01','2021-01-01'])).tolist()==[1,0,2]

def test_dates_with_a_time_zone():
    assert time_order(['u']*2, pd.to_datetime(['2020-03-01','2019-01-01'], utc=True)).tolist()==[1,0]

def test_a_time_that_is_missing():
    with pytest.raises(RatingsError, match='1 rows have no time, the first at position 1'): time_order([1,1], [1.,np.nan])

def test_a_user_of_one_row_is_trained_on():
    assert [o.tolist() for o in last_rows([5,6,6])]==[[0,1],[2]]

@given(st.lists(st.tuples(st.integers(0,5), st.integers(0,4)), min_size=1, max_size=40))
@settings(max_examples=60, deadline=None)
def test_the_held_out_rows_are_those_of_a_plain_loop(rows):
    users,times = zip(*rows)
    want = []
    for u in set(users):
        at = sorted((t,i) for i,(v,t) in enumerate(rows) if v==u)
        if len(at)>1: want.append(at[-1][1])
    train,valid = last_rows(users, times)
    assert valid.tolist()==sorted(want) and sorted([*train,*valid])==list(range(len(rows)))


def test_windows_of_a_history_by_hand():
    dls = build(frame(u='abcdefg'), hold_out=False, bs=2)
    assert train_windows(dls)==[('def','efg'),('abc','bcd')]

def test_the_first_window_is_padded_on_the_left():
    dls = build(frame(u='abcde'), hold_out=False, bs=2)
    assert train_windows(dls)==[('bcd','cde'),('..a','..b')]

def test_only_the_last_window():
    assert train_windows(build(frame(u='abcdefg'), hold_out=False, windows=False))==[('def','efg')]

def test_users_are_not_mixed():
    dls = build(frame(u='abc', v='de', w='f'), hold_out=False, bs=2)
    assert train_windows(dls)==[('.ab','.bc'),('..d','..e')]  # w has nothing to ask

def test_interleaved_users_and_times():
    df = pd.DataFrame(dict(user_id=list('uvuvu'), item_id=list('cbaed'), timestamp=[3,1,1,2,2]))
    assert train_windows(build(df, hold_out=False, bs=2))==[('.ad','.dc'),('..b','..e')]

def test_the_validation_batch_is_the_training_history_and_what_came_last():
    dls = build(frame(u='abcde', v='bcac'), bs=2)
    x,y = dls.valid.one_batch()
    assert letters(dls, x)==['bcd','bca'] and letters(dls, y)==['...','..c']  # e has no training row: row 0, which the loss leaves out
    assert dls.report['cold_item_rows']==1

@given(st.lists(st.integers(1,12), min_size=1, max_size=6), st.integers(1,5))
@settings(max_examples=40, deadline=None)
def test_every_training_row_but_the_first_is_asked_for_once(sizes, seq_len):
    users = np.repeat(np.arange(1, len(sizes)+1), sizes)
    ints = Interactions(users, np.arange(len(users))+1, classes={'u': Vocab(range(len(sizes))), 'i': Vocab(range(len(users)))})
    dl = SequenceDL(ints, bs=4, seq_len=seq_len)
    pairs = [(int(a),int(b)) for x,y in (dl if dl.n else []) for a,b in zip(x.flatten(), y.flatten()) if b]
    assert sorted(pairs)==[(i,i+1) for i in range(1, len(users)) if users[i]==users[i-1]]

def test_the_order_depends_on_seed_and_epoch_only():
    df = synth_ratings()
    a,b = (build(df, bs=7, seed=3) for _ in range(2))
    first,second = ([x.clone() for x,_ in a.train] for _ in range(2))
    assert not torch.equal(torch.cat(first), torch.cat(second))
    b.train.epoch = 1
    assert all(torch.equal(p, q) for p,(q,_) in zip(second, b.train))

def test_a_last_window_joins_the_batch_before():
    dls = build(frame(**{f'u{i}': 'abc' for i in range(5)}), hold_out=False, bs=2)
    assert [len(x) for x,_ in dls.train]==[2,3] and len(dls.train)==2

def test_interactions_are_all_but_the_last_and_the_last():
    df = synth_ratings()
    dls = build(df)
    train,valid,every = (dls.interactions(o) for o in ('train','valid','all'))
    assert (len(train),len(valid),len(every))==(len(df)-50, 50, len(df))
    back = pd.DataFrame({n: v.decode(o) for n,v,o in zip(valid.cat_names, valid.classes.values(), (valid.users,valid.items))})
    assert back.sort_values('user_id').item_id.tolist()==df.sort_values('timestamp').groupby('user_id').item_id.last().tolist()

def test_clicks_without_ratings():
    dls = build(frame(u='abcd', v='abdc'))
    assert dls.interactions('train').values.tolist()==[1.]*6 and dls.interactions('valid').values is None

def test_nothing_given_is_changed():
    df = synth_ratings()
    before = df.copy()
    build(df)
    assert df.equals(before)

def test_loaders_survive_pickle():
    dls = build(synth_ratings(), bs=5)
    again = pickle.loads(pickle.dumps(dls))
    assert all(torch.equal(x, z) for (x,_),(z,_) in zip(dls.valid, again.valid))

def test_loaders_without_rows():
    dls = build(synth_ratings(), bs=5).new_empty()
    assert len(dls.interactions('all'))==0

def test_new_rows_are_pairs():
    dls = build(frame(u='abcd', v='abdc'), bs=2)
    x, = dls.test_dl(pd.DataFrame(dict(user_id=['v','u'], item_id=['a','d']))).one_batch()
    assert x.tolist()==[[[2,1]],[[1,4]]]

def test_more_windows_asked_for_than_there_are():
    with pytest.raises(RatingsError, match='bs=9, but only 2 training windows'): build(frame(u='abc', v='abd'), bs=9)

def test_a_keyword_nobody_reads():
    with pytest.raises(TypeError, match="did you mean 'hold_out'"): build(frame(u='abc'), holdout=True)

def test_a_column_that_is_not_there():
    with pytest.raises(RatingsError, match="no column 'film'"): build(frame(u='abc'), item_name='film')

def test_a_sequence_of_no_places():
    with pytest.raises(RatingsError, match='seq_len=0'): build(frame(u='abc'), seq_len=0)


def test_tokens_are_the_pairs_of_neighbours():
    dls = CollabDataLoaders.sequences_from_tokens(list('abc')*100, bs=299, shuffle=False)
    x,y = dls.train.batch_at(torch.arange(299))
    ids = np.array(['']+list('abc'))
    assert sorted(zip(ids[x[:,0]], ids[y[:,0]]))==sorted(zip(list('abc')*100, list('bca')*100))[:-1]

def test_several_texts_do_not_run_into_each_other():
    dls = CollabDataLoaders.sequences_from_tokens('ab', 'cd', bs=2)
    assert sorted(zip(*(o.flatten().tolist() for o in dls.train.one_batch())))==[(1,2),(3,4)]

def test_no_text_at_all():
    with pytest.raises(RatingsError, match='no sequences given'): CollabDataLoaders.sequences_from_tokens()

def test_histories_of_rows_without_a_user_or_item():
    h = Histories(Interactions([1,0,1,2], [3,4,0,5], classes=CLASSES))
    assert h.last(torch.arange(4), 2).tolist()==[[0,0],[0,3],[0,5],[0,0]]

def test_movielens_in_order(ml100k_dir):
    r = ml_100k(ml100k_dir)
    dls = CollabDataLoaders.sequences_from_df(r, seed=0)
    assert (dls.report['n_train'],dls.report['n_valid'])==(99_057,943)
    assert sum(int((y>0).sum()) for _,y in dls.train)==99_057-943
