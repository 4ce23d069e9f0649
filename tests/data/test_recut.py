"Loaders of rows that are there: the builders' batches, the outer vocabulary, and a split of the same kind"
import pickle

import numpy as np
import pandas as pd
import pytest
import torch

from recfast.core import RatingsError
from recfast.data.loaders import CollabDataLoaders
from recfast.data.recut import KINDS, Cut
from recfast.data.split import global_time_split, leave_last_out, user_split
from recfast.testing import synth_ratings

make = CollabDataLoaders.from_interactions

def table():
    "1,000 ratings, each at a time of its own, with weights and kinds of events"
    df = synth_ratings()
    rng = np.random.RandomState(1)
    return df.assign(timestamp=rng.permutation(len(df)), w=rng.randint(0, 3, len(df)), event=rng.choice(['see','buy'], len(df)))

DF = table()
BUILDERS = dict(ratings='from_df', implicit='implicit_from_df', rows='rows_from_df', sequences='sequences_from_df')
OWN = dict(ratings={}, implicit=dict(n_neg=3, alpha=.5, by_user=True), rows=dict(by='item', bs=8), sequences=dict(seq_len=6, windows=False, bs=16))

def same(a, b):
    for x,y in ((a.train,b.train), (a.valid,b.valid)):
        xs,ys = list(x),list(y)
        assert len(xs)==len(ys)
        assert all(torch.equal(*o) or torch.equal(*(e.nan_to_num(-9) for e in o)) for p,q in zip(xs, ys) for o in zip(p, q))

@pytest.mark.parametrize('kind', KINDS)
def test_batches_are_those_of_the_builder(kind):
    rows = CollabDataLoaders.from_df(DF, valid_pct=0, seed=0).interactions('train')
    ours = make(rows, kind, seed=3, **OWN[kind])
    frame = rows.timed_frame()
    if kind in ('implicit','sequences'): frame = frame.drop(columns='rating')
    theirs = getattr(CollabDataLoaders, BUILDERS[kind])(frame, seed=3, vocab=rows.classes, **OWN[kind])
    same(ours, theirs)
    assert ours.report==theirs.report or kind=='sequences' # which says where the order is from
    assert (ours.rated,ours.random_split,ours.seed)==(theirs.rated,theirs.random_split,theirs.seed)
    assert len(ours.interactions('all'))==len(rows)

@pytest.mark.parametrize('kind', KINDS)
def test_rows_keep_their_numbers(kind):
    outer = CollabDataLoaders.from_df(DF, seed=0)
    rows = outer.interactions('train')
    some = rows[:200] # most items have no row here
    inner = make(some, kind, seed=0, bs=4, valid_pct=.3)
    assert inner.classes is rows.classes or inner.classes==rows.classes
    assert (inner.train_ds.n_users,inner.train_ds.n_items)==(rows.n_users,rows.n_items)
    pairs = torch.cat([inner.train_ds.pairs(),inner.valid_ds.pairs()])
    assert sorted(map(tuple, pairs.tolist()))==sorted(map(tuple, some.pairs().tolist()))

@pytest.mark.parametrize('kind', ['ratings','implicit','rows'])
def test_weights_events_and_times_go_along(kind):
    outer = CollabDataLoaders.from_df(DF, seed=0, weight_name='w', event_name='event', event_weights=dict(see=1, buy=4), half_life=300)
    rows = outer.interactions('train')
    inner = make(rows, kind, seed=0, bs=8)
    train,valid = (inner.interactions(o) for o in ('train','valid'))
    assert train.weighing==rows.weighing and train.time_name=='timestamp' and inner.time_name=='timestamp'
    for name in ('weights','events','times'):
        both = np.concatenate([np.asarray(getattr(o, name)) for o in (train,valid)])
        assert sorted(both.tolist())==sorted(np.asarray(getattr(rows, name)).tolist())
    assert len(train.of_events('buy'))+len(valid.of_events('buy'))==len(rows.of_events('buy'))
    w = inner.one_batch()[2]
    assert len(inner.one_batch())==3 and (w>0).any()

def test_sequences_have_no_weights():
    rows = CollabDataLoaders.from_df(DF, seed=0, weight_name='w').interactions('train')
    with pytest.raises(RatingsError, match='no weights'): make(rows, 'sequences')

@pytest.mark.parametrize('kind', KINDS)
def test_no_validation_rows(kind):
    rows = CollabDataLoaders.from_df(DF, seed=0).interactions('train')
    dls = make(rows, kind, valid_pct=0, seed=0, bs=4)
    assert len(dls.interactions('train'))==len(rows) and len(dls.interactions('valid'))==0 and len(list(dls.valid))==0
    assert dls.how_cut()==Cut('none')

def test_given_positions_leave_the_rest_aside():
    rows = CollabDataLoaders.from_df(DF, valid_pct=0, seed=0).interactions('train')
    for kind in KINDS:
        dls = make(rows, kind, splits=(range(500),range(600,700)), bs=4)
        assert [len(dls.interactions(o)) for o in ('train','valid','all')]==[500,100,1000]
        assert not dls.random_split

def test_what_was_given_stays_as_it_was():
    rows = CollabDataLoaders.from_df(DF, seed=0).interactions('train')
    before = rows.timed_frame()
    for kind in KINDS: make(rows, kind, seed=0, bs=4)
    pd.testing.assert_frame_equal(rows.timed_frame(), before)
    assert rows.y_names==['rating']

def test_labels_are_read_as_such():
    df = DF.assign(hit=(DF.rating>3).astype(int))[['user_id','item_id','hit','timestamp']]
    outer = CollabDataLoaders.implicit_from_df(df, label_name='hit', seed=0)
    inner = make(outer.train_ds, 'implicit', labels=True, seed=1)
    assert set(inner.train_ds.values.tolist())=={0,1} and (inner.interactions('train').values>0).all() and not inner.rated
    blocks = make(outer.train_ds, 'implicit', labels=True, blocks=True, n_neg=2, seed=1)
    x,y = blocks.one_batch()
    assert x.shape==(64*3,2) and y[::3].eq(1).all() and y.sum()==64
    with pytest.raises(TypeError, match='labels=True'): make(outer.train_ds, 'implicit', blocks=True)

# how they were cut

def of_users(df): return user_split(df, .3, seed=1)

@pytest.mark.parametrize('splits,how', [(None,'random'), (lambda df: leave_last_out(df, 3),'last'), (global_time_split,'time'), (of_users,'given')])
@pytest.mark.parametrize('build', ['from_df','implicit_from_df','rows_from_df'])
def test_how_loaders_were_cut(build, splits, how):
    dls = getattr(CollabDataLoaders, build)(DF, splits=splits, seed=0, bs=16)
    cut = dls.how_cut()
    n_valid = len(dls.interactions('valid'))
    per_user = dls.interactions('valid').frame().user_id.value_counts()
    assert cut.how==how and cut.n==(int(per_user.median()) if how in ('last','time') else 1) and cut.pct==n_valid/len(DF)
    assert pickle.loads(pickle.dumps(dls)).how_cut()==cut
    inner = make(dls.interactions('train'), splits=cut, bs=16)
    assert inner.how_cut().how==('given' if how=='random' else how)
    assert abs(inner.how_cut().pct-cut.pct)<.05

def test_positions_say_it_as_well():
    for splits,how in ((leave_last_out(DF, 1),'last'), (global_time_split(DF),'time'), (user_split(DF, seed=0),'given')):
        assert CollabDataLoaders.from_df(DF, splits=splits).how_cut().how==how

def test_sequences_hold_out_the_last_row_with_and_without_times():
    for df in (DF,DF[['user_id','item_id']]):
        dls = CollabDataLoaders.sequences_from_df(df, seq_len=5, bs=8, seed=0)
        assert dls.how_cut()[::2]==('last',1)
        inner = make(dls.interactions('train'), 'sequences', splits=dls.how_cut(), seq_len=5, bs=8)
        last = dls.interactions('train')
        last = last.frame() if last.times is None else last.timed_frame().sort_values('timestamp', kind='stable')
        want = last.groupby('user_id').item_id.last()
        got = inner.interactions('valid').frame().set_index('user_id').item_id
        assert got.sort_index().equals(want)

def test_rows_of_one_time_are_not_taken_for_the_last():
    df = DF.assign(timestamp=DF.user_id) # everything a user did was at one moment
    assert CollabDataLoaders.from_df(df, splits=user_split(df, seed=0)).how_cut().how=='given'
    df = DF.assign(timestamp=5)
    assert CollabDataLoaders.from_df(df, splits=user_split(df, seed=0)).how_cut().how=='given'

def test_without_times_a_split_is_given():
    df = DF[['user_id','item_id','rating']]
    dls = CollabDataLoaders.from_df(df, splits=user_split(df, seed=0))
    assert dls.how_cut().how=='given'

def test_a_cut_splits_a_table_of_any_names():
    df = DF.rename(columns=dict(user_id='who', item_id='what', timestamp='when'))
    for how in ('random','last','time','given','none'):
        dls = CollabDataLoaders.from_df(df, user_name='who', item_name='what', time_name='when', splits=Cut(how, .25, 2))
        assert len(dls.interactions('valid'))>0

# what does not fit

@pytest.mark.parametrize('error,what,args,how', [
    (TypeError,'expected Interactions',(DF,),{}),
    (ValueError,"kind='pairs'",(None,'pairs'),{}),
    (TypeError,'n_neg',(None,'rows'),dict(n_neg=4)),
    (TypeError,'both',(None,),dict(splits=(range(9),range(9,12)), valid_pct=.2)),
    (RatingsError,'no full batch',(None,),dict(bs=5000)),
    (RatingsError,'out of range',(None,),dict(splits=(range(900),range(990,1010)))),
])
def test_what_does_not_fit_is_said(error, what, args, how):
    rows = CollabDataLoaders.from_df(DF, valid_pct=0, seed=0).interactions('train')
    args = tuple(rows if o is None else o for o in args)
    with pytest.raises(error, match=what): make(*args, **how)

def test_unknown_rows_are_no_training_rows():
    dls = CollabDataLoaders.from_df(DF, splits=(np.flatnonzero(DF.item_id<=20),np.flatnonzero(DF.item_id>20)))
    with pytest.raises(RatingsError, match='not in the vocabulary'): make(dls.interactions('all'), valid_pct=0)
    assert len(make(dls.interactions('all').known(), valid_pct=0).interactions('train'))==(DF.item_id<=20).sum()

def test_rows_without_ratings_are_clicks():
    rows = CollabDataLoaders.sequences_from_df(DF, seed=0, bs=16).interactions('valid')
    with pytest.raises(RatingsError, match='without ratings'): make(rows)
    dls = make(rows, 'implicit', valid_pct=0, bs=8, n_neg=1)
    assert dls.interactions('train').values.eq(1).all()
