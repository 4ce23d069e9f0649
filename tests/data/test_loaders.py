import inspect
import io
import re
import warnings
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from fastai.data.transforms import ColSplitter, EndSplitter, IndexSplitter, MaskSplitter, RandomSplitter, TrainTestSplitter
from hypothesis import given, settings, strategies as st

from helpers import FRAME, loaders
from recfast.core import RatingsError, UnknownIdError
from recfast.data.datasets import ml_100k
from recfast.data.loaders import CollabDataLoaders, Interactions, RatingDL, Vocab, find_columns, resolve_splits
from recfast.data.split import global_time_split, leave_last_out, user_split
from recfast.testing import synth_ratings

FEW = pd.DataFrame({'user_id':[1,1,2,2,1], 'item_id':list('abaca'), 'rating':[3.,4.,5.,1.,1.], 'timestamp':[9,5,5,6,2]})

def numbers(n): return Interactions(np.ones(n), np.ones(n), np.arange(n), classes={'u':Vocab([1]), 'i':Vocab([1])})

def values(dl): return [y[:,0].int().tolist() for _,y in dl]

# Vocab

def test_vocab_rows_start_at_one_and_decode_gives_the_ids_back():
    voc = Vocab(['b','a','c','a'])
    assert list(voc)==['#na#','a','b','c'] and list(voc.encode(['c','a']))==[3,1] and list(voc.decode([3,1]))==['c','a']

def test_vocab_of_a_vocab_is_the_same():
    voc = Vocab([5,3,9])
    assert list(Vocab(voc))==list(voc) and list(Vocab(voc).encode([9]))==[3]

@pytest.mark.parametrize('known,ask', [([196],['196']), (['196'],[196]), ([1.5],['1.5']), ([0,1],[True]), (['a'],[None])])
def test_vocab_never_takes_one_type_for_another(known, ask):
    assert list(Vocab(known).encode(ask, 'drop'))==[0]
    with pytest.raises(UnknownIdError, match='unknown user id:'): Vocab(known).encode(ask, what='user')

def test_vocab_of_whole_floats_finds_integers():
    assert list(Vocab([1.,2.]).encode([2]))==[2] and list(Vocab([1,2]).encode([2.]))==[2]

def test_vocab_warns_once_per_id():
    with pytest.warns(UserWarning, match=r"unknown item ids: 7, 8\. The model knows 2 items of type int.* such as 1, 2"):
        assert list(Vocab([1,2]).encode([7,1,8,7], 'warn', 'item'))==[0,1,0,0]
    with pytest.raises(ValueError, match="on_unknown='ignore'"): Vocab([1]).encode([1], 'ignore')

def test_decode_of_row_0():
    assert Vocab([3,4]).decode([0,2]).tolist()==['#na#',4]
    assert Vocab([3,4]).decode([1,2]).dtype.kind=='i'

# Interactions

@pytest.mark.parametrize('pick', [[True,False,True], np.array([True,False,True]), torch.tensor([True,False,True]), pd.Series([True,False,True]),
                                  [0,2], np.array([0,2]), torch.tensor([0,2]), range(0,3,2), slice(None,None,2)])
def test_rows_by_mask_positions_or_slice(pick):
    ints = Interactions([1,2,1], [1,1,2], [5,3,4], [7,8,9], {'u':Vocab([1,2]), 'i':Vocab([1,2])})[pick]
    assert ints.values.tolist()==[5,4] and ints.items.tolist()==[1,2] and ints.times.tolist()==[7,9]

@pytest.mark.parametrize('pick', [[], np.array([], int), slice(0,0)])
def test_no_rows(pick): assert len(numbers(3)[pick])==0

@pytest.mark.parametrize('i', [2, -1, np.int64(2), torch.tensor(2)])
def test_one_row_is_a_sample(i):
    x,y = numbers(3)[i]
    assert x.tolist()==[1,1] and x.dtype==torch.int64 and y.tolist()==[2.]

def test_interactions_do_not_share_the_caller_s_memory():
    users,rating = np.array([1,1], 'int32'),np.array([4.,5.], 'float32')
    ints = Interactions(users, users, rating, classes={'u':Vocab([1]), 'i':Vocab([1])})
    users[:],rating[:] = 0,0
    assert ints.users.tolist()==[1,1] and ints.values.tolist()==[4,5]

def test_sum_counts_csr():
    ints = Interactions([1,2,1,0], [1,1,1,2], [5,3,0,4], classes={'u':Vocab([1,2]), 'i':Vocab([1,2])})
    assert ints.csr().toarray().tolist()==[[0,0,0],[0,1,0],[0,1,0]] # a pair once, a zero counts, row 0 marks nothing
    assert ints.counts('item').tolist()==[0,3,1] and ints.counts('user').tolist()==[1,2,1]
    assert len(ints+ints[:2])==6 and (ints+ints).values.tolist()==[5,3,0,4]*2

def test_times_stay_with_their_rows():
    dls = loaders()
    for which in ('train','valid','all'):
        part = dls.interactions(which)
        want = FRAME.set_index(['user_id','item_id']).timestamp
        assert part.times.tolist()==[want[u,i] for u,i in zip(part.frame().user_id, part.frame().item_id)]

def test_times_that_are_dates():
    dls = loaders(FRAME.assign(timestamp=pd.to_datetime(FRAME.timestamp, unit='s')), splits=(range(900),range(900,1000)))
    assert (dls.interactions('valid').times==pd.to_datetime(FRAME.timestamp[900:], unit='s').to_numpy()).all()

def test_interactions_all_is_train_then_valid_then_the_rest():
    dls = loaders(splits=([4,*range(100,200)],[3,2]))
    tr,va,every = (dls.interactions(o) for o in ('train','valid','all'))
    assert every.values.tolist()[:103]==tr.values.tolist()+va.values.tolist() and len(every)==len(FRAME)
    assert dls.interactions() is every and np.isclose(tr.values[0], FRAME.rating[4])
    with pytest.raises(ValueError, match="which='test'"): dls.interactions('test')

# RatingDL

@settings(max_examples=150, deadline=None)
@given(n=st.integers(0,60), bs=st.integers(1,20), shuffle=st.booleans(), drop_last=st.booleans(), seed=st.integers(0,2**40))
def test_an_epoch_holds_each_row_once(n, bs, shuffle, drop_last, seed):
    dl = RatingDL(numbers(n), bs=bs, shuffle=shuffle, drop_last=drop_last, seed=seed)
    batches = values(dl)
    got = sum(batches, [])
    assert len(batches)==len(dl) and len(set(got))==len(got)==(n-n%bs if drop_last else n)
    assert all(len(b)==bs for b in batches[:-1])
    if not shuffle: assert got==list(range(len(got)))

@settings(max_examples=60, deadline=None)
@given(n=st.integers(1,60), bs=st.integers(1,20), rows=st.integers(1,50), shuffle=st.booleans(), drop_last=st.booleans())
def test_in_small_blocks_as_in_one(n, bs, rows, shuffle, drop_last):
    dl = RatingDL(numbers(n), bs=bs, shuffle=shuffle, drop_last=drop_last, seed=3)
    assert values(dl._blocks(rows=rows))==values(dl._blocks())

@pytest.mark.parametrize('n,sizes', [(13,[4,4,5]), (12,[4,4,4]), (14,[4,4,4,2]), (1,[1]), (5,[5])])
def test_a_last_training_batch_of_one_row_joins_the_one_before(n, sizes):
    assert [len(b) for b in values(RatingDL(numbers(n), bs=4, shuffle=True))]==sizes

def test_a_last_validation_batch_of_one_row_stays():
    assert [len(b) for b in values(RatingDL(numbers(13), bs=4))]==[4,4,4,1]
    assert [len(b) for b in values(RatingDL(numbers(13), bs=4, shuffle=True, drop_last=True))]==[4,4,4]

def test_drop_last_from_the_builder():
    assert len(loaders(bs=300, drop_last=True).train)==2 and len(loaders(bs=300).train)==3

def test_the_order_is_a_function_of_seed_and_epoch_alone():
    a,b = (RatingDL(numbers(30), bs=7, shuffle=True, seed=s, epoch=e) for s,e in ((5,0),(5,2)))
    epochs = [values(a) for _ in range(4)]
    assert values(b)==epochs[2] and values(b)==epochs[3]
    assert len({str(o) for o in epochs})==4 and values(RatingDL(numbers(30), bs=7, shuffle=True, seed=6))!=epochs[0]
    a.epoch = 1
    assert values(a)==epochs[1]

def test_the_order_does_not_depend_on_the_batch_size():
    a,b = (RatingDL(numbers(30), bs=bs, shuffle=True, seed=5) for bs in (4,11))
    assert sum(values(a), [])==sum(values(b), [])

def test_one_batch_does_not_disturb():
    a,b = (RatingDL(numbers(30), bs=7, shuffle=True, seed=5) for _ in range(2))
    first = a.one_batch()[1][:,0].tolist()
    assert first==a.one_batch()[1][:,0].tolist() and values(a)==values(b)
    it = iter(a)
    next(it)
    a.one_batch()
    assert [y[:,0].int().tolist() for _,y in it]==values(b)[1:]

def test_one_batch_of_nothing():
    with pytest.raises(ValueError, match='does not contain any batches'): RatingDL(numbers(0)).one_batch()

def test_without_shuffle_the_epoch_stays():
    dl = RatingDL(numbers(9), bs=4)
    assert values(dl)==values(dl)==[[0,1,2,3],[4,5,6,7],[8]]

# columns

def test_columns_are_found_by_name_in_any_order():
    df = FRAME[['timestamp','rating','item_id','user_id']]
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        dls = loaders(df)
    assert torch.equal(dls.train_ds.users, loaders().train_ds.users) and list(dls.cat_names)==['user_id','item_id']

def test_columns_by_position_are_said():
    df = FRAME.rename(columns={'user_id':'who', 'rating':'stars'})
    with pytest.warns(UserWarning, match=r"taken by position: user_name='who', rating_name='stars'$") as w: dls = CollabDataLoaders.from_df(df, seed=42)
    assert torch.equal(dls.train_ds.values, loaders().train_ds.values) and dls.train_ds.rating_name=='stars'
    assert w[0].filename==__file__.replace('.pyc', '.py') and len(w)==1

def test_columns_named_by_the_caller():
    df = FRAME.rename(columns=dict(user_id='u', item_id='i', rating='r', timestamp='t'))[['t','r','i','u']]
    dls = loaders(df, user_name='u', item_name='i', rating_name='r', time_name='t')
    assert torch.equal(dls.train_ds.items, loaders().train_ds.items) and (dls.train_ds.times==loaders().train_ds.times).all()

def test_column_labels_that_are_numbers():
    assert find_columns(pd.DataFrame(columns=[0,1,2,3]), 2, 0, 3, 1)[:4]==(2,0,3,1)
    df = FRAME.set_axis([0,1,2,3], axis=1)[[2,0,1,3]]
    assert torch.equal(loaders(df, user_name=0, item_name=1, rating_name=2).train_ds.users, loaders().train_ds.users)

def test_too_few_columns():
    with pytest.raises(RatingsError, match="no rating_name was given and there is no column 'rating'.*Pass rating_name=.*implicit_from_df"): loaders(FRAME[['user_id','item_id']])
    with pytest.raises(RatingsError, match="no item_name was given and there is no column 'item_id'; the columns are 'user_id'"): loaders(FRAME[['user_id']])

def test_a_position_that_is_taken_already():
    with pytest.raises(RatingsError, match="no user_name was given and there is no column 'user_id'"):
        loaders(FRAME[['rating','user_id','item_id']].rename(columns={'user_id':'u'}))

@pytest.mark.parametrize('cols,kw', [(['cooked on','cook','dish'], {}), (['cook','dish','cooked on'], dict(time_name='cooked on')), (['cook','dish','timestamp'], {})])
def test_a_table_without_a_rating_column(cols, kw):
    df = FEW[['user_id','item_id','timestamp']].set_axis(['cook','dish',({*cols}-{'cook','dish'}).pop()], axis=1)[cols]
    with pytest.raises(RatingsError, match="no rating_name was given and there is no column 'rating'.*implicit_from_df"):
        loaders(df, user_name='cook', item_name='dish', **kw)

# splits

@pytest.mark.parametrize('pct,seed', [(0.2,42), (0.1,0), (0.333,7), (None,42)])
def test_a_random_split_is_fastai_s(pct, seed):
    tr,va = resolve_splits(FRAME, valid_pct=pct, seed=seed)
    state = torch.get_rng_state()
    want = RandomSplitter(0.2 if pct is None else pct, seed=seed)(range(len(FRAME)))
    torch.set_rng_state(state)
    assert [tr.tolist(),va.tolist()]==[list(map(int, o)) for o in want]

@pytest.mark.parametrize('kind', [list, np.array, torch.tensor, pd.Series, tuple, iter])
def test_positions_in_any_container(kind):
    dls = loaders(splits=(kind(list(range(500,900))),kind([3,1])))
    assert dls.valid_ds.values.tolist()==FRAME.rating.iloc[[3,1]].tolist() and len(dls.train_ds)==400

def test_positions_are_not_index_labels():
    df = FRAME.set_index(pd.Index(range(5000,4000,-1)))
    assert loaders(df, splits=(range(100),[999])).valid_ds.values.item()==FRAME.rating.iloc[-1]

@pytest.mark.parametrize('splitter', [IndexSplitter(range(30)), RandomSplitter(0.3, seed=1), EndSplitter(0.1), TrainTestSplitter(0.1, random_state=1),
                                      MaskSplitter([True]*30+[False]*970), ColSplitter('is_valid')])
def test_a_fastai_splitter(splitter):
    df = FRAME.assign(is_valid=np.arange(1000)%7==0)
    tr,va = splitter(df)
    dls = loaders(df, splits=splitter)
    assert dls.valid_ds.values.tolist()==df.rating.iloc[list(va)].tolist() and len(dls.train_ds)==len(tr)

@pytest.mark.parametrize('split', [global_time_split, leave_last_out, user_split, partial(global_time_split, valid_pct=.3)])
def test_a_split_function_is_told_the_columns(split):
    df = FRAME.rename(columns=dict(user_id='cook', item_id='dish', timestamp='cooked on'))
    kw = dict(seed=0) if split is user_split else {}
    want = FRAME.rating.iloc[split(FRAME, **kw)[1]].tolist()
    assert loaders(df, user_name='cook', item_name='dish', time_name='cooked on', splits=partial(split, **kw)).valid_ds.values.tolist()==want

def test_a_split_function_keeps_what_partial_bound():
    df = FRAME.assign(backwards=-FRAME.timestamp)
    dls = loaders(df, time_name='timestamp', splits=partial(global_time_split, time_name='backwards'))
    assert dls.train_ds.times.min()>dls.valid_ds.times.max()

@pytest.mark.parametrize('dtype', ['bool','boolean','bool[pyarrow]'])
def test_a_boolean_column(dtype):
    df = FRAME.assign(is_valid=pd.Series(np.arange(1000)>=900).astype(dtype))
    dls = loaders(df, splits='is_valid')
    assert dls.valid_ds.values.tolist()==FRAME.rating[900:].tolist() and len(dls.train_ds)==900

@pytest.mark.parametrize('splits,what', [
    (([0,1,2],[2,3]), 'positions in both train and valid: 2'), ((range(100),[1000]), 'valid positions out of range: 1000; the frame has 1000 rows'),
    ((range(100),[-1]), 'valid positions out of range: -1'), (([0.5],[1]), 'train list holds float64'), (([True]*1000,[1]), 'train list holds bool'),
    (([0],[1],[2]), 'got 3'), (5, 'got 5'), ([0,1], 'the train list is 0'), ('is_test', "splits='is_test' is no column"), ('rating', 'column of float32, expected bool')])
def test_splits_that_make_no_sense(splits, what):
    with pytest.raises(RatingsError, match=what): loaders(splits=splits)

def test_a_boolean_column_with_a_hole():
    df = FRAME.assign(v=pd.Series([None]+[True]*999, dtype='boolean'))
    with pytest.raises(RatingsError, match='without holes'): loaders(df, splits='v')

def test_splits_together_with_valid_pct():
    with pytest.raises(TypeError, match='splits= or valid_pct=, not both'): loaders(splits=(range(900),range(900,1000)), valid_pct=0.1)

@pytest.mark.parametrize('pct', [1, -0.1, 1.5])
def test_a_share_that_is_none(pct):
    with pytest.raises(RatingsError, match='valid_pct='): loaders(valid_pct=pct)

def test_an_empty_training_split():
    with pytest.raises(RatingsError, match='no training rows: the split leaves none'): loaders(splits=([],range(10)))

def test_an_empty_validation_list_is_no_validation_rows():
    dls = loaders(splits=(range(1000),[]))
    assert len(dls.valid_ds)==len(dls.valid)==0 and dls.report['n_train']==1000

# vocab

HALF = (range(2,5),[0,1])

def test_vocab_of_training_rows():
    with pytest.warns(UserWarning, match='1 of 2'): dls = loaders(FEW, splits=HALF, bs=2)
    assert list(dls.classes['item_id'])==['#na#','a','c'] and dls.valid_ds.items.tolist()==[1,0] and dls.report['cold_item_rows']==1

def test_vocab_of_all_rows():
    dls = loaders(FEW, splits=HALF, bs=2, vocab='all')
    assert list(dls.classes['item_id'])==['#na#','a','b','c'] and dls.valid_ds.items.tolist()==[1,2] and dls.report['cold_rows']==dls.report['untrained_items']==1
    assert dls.train_ds.counts('item').tolist()==[0,2,0,1] # 'b' has a row, but no training rating

def test_vocab_given():
    dls = loaders(FEW, splits=HALF, bs=2, vocab={'item_id':['z','a','b','c']})
    assert list(dls.classes['item_id'])==['#na#','a','b','c','z'] and list(dls.classes['user_id'])==['#na#',1,2]

def test_vocab_of_another_loaders():
    old = loaders()
    new = loaders(FRAME[FRAME.user_id<30], vocab=old.classes)
    assert new.n_users==51 and torch.equal(new.train_ds[:5].users.long(), torch.from_numpy(old.classes['user_id'].encode(new.train_ds[:5].frame().user_id)))

@pytest.mark.parametrize('vocab,what', [('test', "vocab='test', expected 'train', 'all' or a dict"), ({'user':[1]}, "vocab names 'user', expected among")])
def test_vocab_that_makes_no_sense(vocab, what):
    with pytest.raises(RatingsError, match=what): loaders(vocab=vocab)

def test_vocab_without_some_training_ids():
    with pytest.raises(UnknownIdError, match="unknown item id: 'c'.*Add them to vocab="): loaders(FEW, splits=HALF, bs=2, vocab={'item_id':['a','b']})

# duplicates

def test_duplicates_are_kept_and_counted():
    dls = loaders(FEW, valid_pct=0, bs=2)
    assert len(dls.train_ds)==5 and dls.report['duplicates']==1

def test_movielens_by_title_repeats_307_pairs(ml100k_dir):
    dls = loaders(ml_100k(ml100k_dir), item_name='title')
    assert dls.report['duplicates']==307 and dls.report['n_train']==80_000 and dls.report['n_valid']==20_000

def test_duplicates_raise():
    with pytest.raises(RatingsError, match=r"1 rows repeat an earlier \(user, item\) pair: \(1, 'a'\)"): loaders(FEW, valid_pct=0, bs=2, duplicates='raise')

@pytest.mark.parametrize('how,want,times', [('last',[3.,4.,5.,1.],[9,5,5,6]), ('mean',[2.,4.,5.,1.],[9,5,5,6])])
def test_duplicates_last_and_mean(how, want, times): # user 1 rated 'a' 3 at time 9 and 1 at time 2
    ints = loaders(FEW, splits=(range(5),[]), bs=2, duplicates=how).interactions('all')
    assert ints.values.tolist()==want and ints.times.tolist()==times and ints.frame().item_id.tolist()==list('abac')

@pytest.mark.parametrize('order', [[0,1,2,3,4], [4,3,2,1,0], [1,4,3,0,2]])
def test_without_times_the_last_row_is_the_frame_s_last_however_the_split_is_ordered(order):
    ints = loaders(FEW.drop(columns='timestamp'), splits=(order,[]), bs=2, duplicates='last').interactions('all')
    want = FEW.iloc[[i for i in order if i!=0]] # row 4 repeats the pair of row 0
    assert ints.values.tolist()==want.rating.tolist() and ints.frame().item_id.tolist()==want.item_id.tolist()

def test_positions_are_taken_before_rows_are_dropped():
    dls = loaders(FEW, splits=([0,1,4],[2,3]), bs=2, duplicates='mean', vocab='all')
    assert dls.train_ds.values.tolist()==[2.,4.] and dls.valid_ds.values.tolist()==[5.,1.]

def test_a_pair_in_both_splits_stays_in_both():
    dls = loaders(FEW, splits=([0,1,2,3],[4]), bs=2, duplicates='last')
    assert len(dls.train_ds)==4 and dls.valid_ds.values.tolist()==[1.] and dls.report['duplicates']==1

def test_duplicates_of_another_kind():
    with pytest.raises(RatingsError, match="duplicates='first'"): loaders(duplicates='first')

# other sources

def test_from_csv_is_utf_8(tmp_path):
    FEW.assign(item_id=['노래','Amélie','노래','Fargo','노래']).to_csv(tmp_path/'r.csv', index=False, encoding='utf-8')
    dls = CollabDataLoaders.from_csv(tmp_path/'r.csv', valid_pct=0, bs=2)
    assert list(dls.classes['item_id'])==['#na#','Amélie','Fargo','노래'] and dls.report['n_train']==5

def test_from_csv_of_a_buffer():
    assert CollabDataLoaders.from_csv(io.StringIO(FRAME.to_csv(index=False)), seed=42).report==loaders().report

@pytest.mark.parametrize('rows', ['1,2,3,4\n2,3,4,5\n', '0,2,3,4\n1,3,4,5\n', '7,2,3,4\n7,3,4\n', '7,2,3\n7,3,4,5\n']) # pandas takes some of these for an index
def test_from_csv_refuses_rows_longer_than_the_header(rows):
    with pytest.raises(ValueError, match='more cells than the header|Expected 3 fields in line 3, saw 4'):
        CollabDataLoaders.from_csv(io.StringIO(f'user_id,item_id,rating\n{rows}'), valid_pct=0, bs=1)

def test_from_csv_takes_only_an_empty_cell_for_missing():
    dls = CollabDataLoaders.from_csv(io.StringIO('user_id,item_id,rating\nNA,null,3\nNone,NA,4\n'), valid_pct=0, bs=2)
    assert list(dls.classes['item_id'])==['#na#','NA','null'] and list(dls.classes['user_id'])==['#na#','NA','None']
    with pytest.raises(RatingsError, match="column 'item_id' has missing ids: nan at row position 1"):
        CollabDataLoaders.from_csv(io.StringIO('user_id,item_id,rating\n1,NA,3\n1,,4\n'), valid_pct=0, bs=1)

def test_from_csv_of_a_file_with_a_byte_order_mark(tmp_path):
    FEW.to_csv(tmp_path/'r.csv', index=False, encoding='utf-8-sig')
    assert list(CollabDataLoaders.from_csv(tmp_path/'r.csv', valid_pct=0, bs=2).classes)==['user_id','item_id']

@pytest.mark.parametrize('name', ['timestamp','cooked on'])
@pytest.mark.parametrize('form', ['csv','parquet'])
def test_text_times_of_a_file_are_read(tmp_path, name, form):
    df = FEW.assign(timestamp=[f'2024-05-0{d}' for d in FEW.timestamp]).rename(columns=dict(timestamp=name))
    getattr(df, f'to_{form}')(tmp_path/'r', index=False)
    dls = getattr(CollabDataLoaders, f'from_{form}')(tmp_path/'r', valid_pct=0, bs=2, time_name=name)
    assert sorted(pd.Series(dls.train_ds.times).dt.day)==[2,5,5,6,9]
    assert sorted(loaders(df, time_name=name, valid_pct=0, bs=2).train_ds.times)==sorted(dls.train_ds.times)

ISO = FRAME.assign(timestamp=(pd.Timestamp('2024-05-01')+pd.to_timedelta(FRAME.timestamp-FRAME.timestamp.min(), unit='h')).dt.strftime('%Y-%m-%dT%H:%M'))

@pytest.mark.parametrize('build', [loaders, CollabDataLoaders.implicit_from_df, CollabDataLoaders.rows_from_df, CollabDataLoaders.sequences_from_df], ids=lambda o: o.__name__)
def test_text_times_are_read_by_every_builder(build):
    from recfast.data import implicit,rows,sequences # noqa: F401
    times = [build(o, bs=16, seed=1).interactions().times for o in (ISO, ISO.assign(timestamp=pd.to_datetime(ISO.timestamp)))]
    assert (times[0]==times[1]).all() and times[0].dtype.kind=='M'

@pytest.mark.parametrize('split', [global_time_split, leave_last_out])
def test_text_times_are_read_by_splits(split):
    want = split(ISO.assign(timestamp=pd.to_datetime(ISO.timestamp)))
    assert all(np.array_equal(a, b) for a,b in zip(split(ISO), want)) and ISO.timestamp.dtype.kind not in 'M'

@pytest.mark.parametrize('times', [lambda n: ['17/05/2024 18:30']*n, lambda n: ['yesterday']*n, lambda n: [None,*range(n-1)], lambda n: [float('inf'),*range(n-1)]], ids=['day first','word','hole','no number'])
def test_times_nobody_asked_for_are_left_out_and_said(tmp_path, times):
    df = FRAME.assign(timestamp=times(len(FRAME)))
    with pytest.warns(UserWarning, match="times are left out: column 'timestamp' .* time_name= asks for them"): dls = loaders(df)
    assert dls.interactions().times is None and len(dls.train_ds)==len(loaders(FRAME).train_ds)
    df.to_csv(tmp_path/'r.csv', index=False)
    with pytest.warns(UserWarning, match='times are left out'): CollabDataLoaders.from_csv(tmp_path/'r.csv')
    for asked in (dict(time_name='timestamp'), dict(splits=global_time_split), dict(duplicates='last')):
        with pytest.raises(RatingsError, match="column 'timestamp'"): loaders(df, **asked)
    with pytest.raises(RatingsError, match="column 'timestamp'"): CollabDataLoaders.sequences_from_df(df)

def test_ids_of_a_file_may_look_like_times():
    csv = io.StringIO('timestamp,who,rating\nmonday,1,3\ntuesday,1,4\n')
    assert list(CollabDataLoaders.from_csv(csv, user_name='who', item_name='timestamp', valid_pct=0, bs=1).classes['timestamp'])==['#na#','monday','tuesday']

def test_from_parquet_is_the_frame(tmp_path):
    FRAME.to_parquet(tmp_path/'r.parquet')
    assert torch.equal(CollabDataLoaders.from_parquet(tmp_path/'r.parquet', seed=42).one_batch()[1], loaders().one_batch()[1])

def test_from_wide_has_a_row_per_filled_cell():
    wide = pd.DataFrame({'Fargo':[4.,None], 'Heat':[0.,5.]}, index=pd.Index(['Ann','Bob'], name='person')).rename_axis(columns='film')
    frame = CollabDataLoaders.from_wide(wide, valid_pct=0, bs=2, seed=1).interactions('all').frame()
    assert list(frame)==['person','film','rating']
    assert sorted(frame.itertuples(index=False, name=None))==[('Ann','Fargo',4.),('Ann','Heat',0.),('Bob','Heat',5.)]

@pytest.mark.parametrize('door', ['from_csv','from_parquet','from_wide'])
def test_every_door_refuses_unknown_keywords(door, tmp_path):
    FRAME.to_csv(tmp_path/'csv', index=False)
    FRAME.to_parquet(tmp_path/'parquet')
    source = FRAME.pivot(index='user_id', columns='item_id', values='rating') if door=='from_wide' else tmp_path/door[5:]
    with pytest.raises(TypeError, match="did you mean 'splits'"): getattr(CollabDataLoaders, door)(source, split=1)

# keywords, ids, what is given

def test_every_keyword_of_fastai_is_accepted(tmp_path):
    dls = loaders(num_workers=2, pin_memory=True, val_bs=50, shuffle=False, drop_last=True, device='cpu', path=tmp_path, verbose=False, bs=32)
    assert dls.path==tmp_path and len(dls.valid)==4 and len(dls.train)==25 and dls.device==torch.device('cpu')
    assert torch.equal(torch.cat([y for _,y in dls.train])[:,0], dls.train_ds.values)

def test_fastai_s_arguments_come_first_and_in_its_order():
    ours,theirs = (list(inspect.signature(o).parameters) for o in (CollabDataLoaders.from_df, _fastai().from_df))
    assert ours[:7]==theirs[:7]==['ratings','valid_pct','user_name','item_name','rating_name','seed','path']

def _fastai():
    from fastai.collab import CollabDataLoaders
    return CollabDataLoaders

def test_verbose_prints_the_report(capsys):
    loaders(verbose=True)
    assert 'n_train' in capsys.readouterr().out

@pytest.mark.parametrize('kw', [dict(), dict(duplicates='mean'), dict(duplicates='last', vocab='all'), dict(splits='is_valid')])
def test_the_frame_given_is_unchanged(kw):
    df = pd.concat([FRAME,FRAME[:5]], ignore_index=True).assign(is_valid=lambda d: d.index%9==0, item_id=lambda d: d.item_id.astype('category'))
    before = df.copy(deep=True)
    dls = loaders(df, **kw)
    dls.test_dl(df[:9])
    pd.testing.assert_frame_equal(df, before)
    dls.train_ds.values.zero_()
    pd.testing.assert_frame_equal(df, before)

KINDS = {'categorical': lambda s: s.astype(str).astype('category'), 'string': lambda s: s.astype('string'), 'object': lambda s: s.astype(str).astype(object),
         'nullable int': lambda s: s.astype('Int64'), 'arrow int': lambda s: s.astype('int64[pyarrow]'), 'arrow string': lambda s: s.astype(str).astype('string[pyarrow]'),
         'datetime': lambda s: pd.to_datetime(s, unit='D'), 'datetime with zone': lambda s: pd.to_datetime(s, unit='D', utc=True),
         'categorical datetime': lambda s: pd.to_datetime(s, unit='D', utc=True).astype('category'), 'float': lambda s: s+.5, 'int8': lambda s: s.astype('int8')}

@pytest.mark.parametrize('kind', KINDS)
def test_ids_of_every_type(kind):
    df = FRAME.assign(item_id=KINDS[kind](FRAME.item_id))
    dls = loaders(df)
    assert dls.report==loaders().report
    want = pd.Series(df.item_id.tolist()).iloc[RandomSplitter(0.2, seed=42)(df)[0]]
    assert dls.train_ds.frame().item_id.tolist()==want.tolist()
    assert torch.equal(dls.test_dl(df[:20]).one_batch()[0], dls.test_dl(df[:20].assign(item_id=df.item_id[:20].tolist())).one_batch()[0])
    assert dls.n_items==41 and (dls.test_dl(df).one_batch()[0]>0).all()

def test_unused_categories_get_no_row():
    df = FRAME.assign(item_id=FRAME.item_id.astype('category').cat.add_categories([98,99]))
    assert loaders(df).n_items==41

# test_dl

def test_test_dl_policies():
    dls,new = loaders(),FRAME[:3].assign(item_id=[1,777,2])
    with pytest.warns(UserWarning, match='unknown item id: 777'): dls.test_dl(new)
    with pytest.raises(UnknownIdError, match='777'): dls.test_dl(new, on_unknown='raise')
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert dls.test_dl(new, on_unknown='drop').one_batch()[0][:,1].tolist()==[1,0,2]

def test_test_dl_where_nothing_is_known_is_an_error():
    with pytest.raises(UnknownIdError, match='unknown user ids: 777, 778'): loaders().test_dl(FRAME[:2].assign(user_id=[777,778]))

def test_test_dl_of_a_frame_of_ours_knows_row_0():
    with pytest.warns(UserWarning, match='of 2 validation'): dls = loaders(FEW, splits=HALF, bs=2)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        x = dls.test_dl(dls.valid_ds.frame()).one_batch()[0]
    assert x.tolist()==[[1,1],[1,0]]

def test_test_dl_without_a_column():
    with pytest.raises(RatingsError, match="no column 'item_id'"): loaders().test_dl(FRAME[['user_id']])
    with pytest.raises(RatingsError, match='0 rows'): loaders().test_dl(FRAME[:0])

def test_test_dl_takes_a_batch_size():
    assert [len(y) for _,y in loaders().test_dl(FRAME[:10], bs=4)]==[4,4,2]

@pytest.mark.parametrize('rows', [FRAME[:3].to_dict('records'), [FRAME.iloc[i] for i in range(3)], list(FRAME[:3].itertuples(index=False, name=None))])
def test_test_dl_of_a_list_of_rows(rows):
    rows = [r[:3] if isinstance(r, tuple) else r for r in rows]
    x,y = loaders().test_dl(rows).one_batch()
    assert x.tolist()==FRAME[['user_id','item_id']][:3].to_numpy().tolist() and torch.allclose(y[:,0], torch.tensor(FRAME.rating[:3].to_numpy()))

@settings(max_examples=30, deadline=None)
@given(st.data())
def test_rows_that_a_split_leaves_out_are_the_rest_in_their_order(data):
    n = len(few := synth_ratings(20, 15))
    order = data.draw(st.permutations(range(n)))
    a,b = sorted(data.draw(st.tuples(st.integers(64, n), st.integers(64, n))))
    dls = CollabDataLoaders.from_df(few, splits=(order[:a],order[a:b]), seed=0, vocab="all")
    left = sorted(order[b:])
    if not left: assert dls.rest is None
    else: pd.testing.assert_frame_equal(dls.rest.frame(), few.iloc[left][['user_id','item_id','rating']].reset_index(drop=True))

def test_no_sort_of_positions_where_a_mask_does():
    source = inspect.getsource(CollabDataLoaders.from_df)+inspect.getsource(resolve_splits)
    assert not re.search(r'np\.(setdiff1d|intersect1d|isin)', source)

ELSEWHERE = dict(threshold='implicit_from_df and sequences_from_df', label_name='implicit_from_df', n_neg='implicit_from_df', by_user='implicit_from_df',
    seq_len='sequences_from_df', by='rows_from_df', hold_out='sequences_from_df')

@pytest.mark.parametrize('name', ELSEWHERE)
@pytest.mark.parametrize('builder', ['from_df','rows_from_df','sequences_from_df','implicit_from_df'])
def test_a_keyword_of_another_builder_is_sent_there(builder, name):
    if builder in ELSEWHERE[name]: return
    with pytest.raises(TypeError, match=f"takes no '{name}': that is for {ELSEWHERE[name]}$"): getattr(CollabDataLoaders, builder)(FRAME, **{name: 1})
