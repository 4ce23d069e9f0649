"Batches of whole rows: what a batch holds, in which order, and what stays sparse"
import pickle

import numpy as np
import pandas as pd
import pytest
import torch

from helpers import fit
from recfast.core import RatingsError
from recfast.data.loaders import CollabDataLoaders, RatingDL
from recfast.data.ratings import long_to_wide
from recfast.data.rows import RowDL, SparseRows, rating_csr
from recfast.learner import collab_learner
from recfast.models.autorec import AutoRec
from recfast.testing import synth_ratings

by_both = pytest.mark.parametrize('by', ['user','item'])

def rows(df=None, by='user', bs=16, **kwargs):
    return CollabDataLoaders.rows_from_df(synth_ratings() if df is None else df, by, bs=bs, **{'seed':42, **kwargs})

def small(): return pd.DataFrame(dict(user_id=[1,1,2,2,3], item_id=[1,2,1,3,3], rating=[5.,4.,3.,2.,1.]))


@by_both
def test_an_epoch_holds_every_rating_once(by):
    dls = rows(by=by)
    y = torch.cat([o for _,o in dls.train])
    assert sorted(y[~y.isnan()].tolist())==sorted(dls.train_ds.values.tolist())

def test_rows_are_those_of_the_pivot():
    dls = rows(small(), valid_pct=0, bs=3, shuffle=False)
    wide = torch.tensor(long_to_wide(small(), sort=True).to_numpy(), dtype=torch.float32)
    x,y = dls.train.one_batch()
    assert torch.equal(x[:,1:], wide.nan_to_num()) and torch.equal(y[:,1:].isnan(), wide.isnan())

def test_item_rows_are_the_transpose():
    u,i = (rows(small(), by, valid_pct=0, bs=3, shuffle=False).train.one_batch()[0] for by in ('user','item'))
    assert torch.equal(u[:,1:], i[:,1:].T)

@by_both
def test_validation_reads_the_training_row_and_asks_for_the_rest(by):
    dls = rows(by=by)
    n = 0
    for x,y in dls.valid:
        assert not ((x!=0)&~y.isnan()).any() and (x!=0).any(1).all()
        n += int((~y.isnan()).sum())
    assert n==len(dls.valid_ds)

def test_the_column_of_the_unknown_id_is_empty():
    df = small()
    dls = rows(df, splits=([0,1,2],[3,4]), bs=2) # item 3 and user 3 are new
    assert dls.report['cold_rows']==2 and dls.valid.n==0 and len(dls.valid)==0
    x,y = dls.train.one_batch()
    assert (x[:,0]==0).all() and y[:,0].isnan().all()

def test_with_a_given_vocabulary_a_row_without_input_is_still_asked_for():
    x,y = rows(small(), splits=([0,1,2],[3,4]), bs=2, vocab='all').valid.one_batch()
    assert x.tolist()==[[0.,3.,0.,0.],[0.,0.,0.,0.]] and y[:,3].tolist()==[2.,1.]

def test_repeated_pairs_share_a_cell():
    df = pd.concat([small(), pd.DataFrame(dict(user_id=[1], item_id=[1], rating=[2.]))])
    dls = rows(df, valid_pct=0, bs=3, shuffle=False)
    assert dls.train.one_batch()[0][0].tolist()==[0.,3.5,4.,0.] and len(dls.train_ds)==6 and dls.report['duplicates']==1

def test_the_order_depends_on_seed_and_epoch_alone():
    a,b,c = rows(),rows(),rows(seed=43)
    first,second = ([x for x,_ in a.train] for _ in range(2))
    assert not torch.equal(first[0], second[0]) and not torch.equal(first[0], c.train.one_batch()[0])
    b.train.epoch = 1
    assert torch.equal(b.train.one_batch()[0], second[0])

def test_the_callers_random_state_is_left_alone():
    state,np_state = torch.get_rng_state(),np.random.get_state()[1].copy()
    for _ in rows().train: pass
    assert torch.equal(torch.get_rng_state(), state) and (np.random.get_state()[1]==np_state).all()

def test_the_last_batch():
    assert [len(x) for x,_ in rows(bs=7).train]==[7]*6+[8] # 50 users: a batch of one joins the one before
    assert [len(x) for x,_ in rows(bs=16).train]==[16,16,16,2]==[*map(len, (x for x,_ in rows(bs=16).train))]
    dls = rows(bs=16, drop_last=True)
    assert len(dls.train)==3==len(list(dls.train))

def test_interactions_are_those_of_from_df():
    a,b = rows(),CollabDataLoaders.from_df(synth_ratings(), seed=42)
    for o in ('train','valid','all'): assert torch.equal(a.interactions(o).users, b.interactions(o).users)
    assert {k: a.report[k] for k in b.report}==b.report and a.random_split

def test_splits_that_leave_rows_out():
    dls = rows(small(), splits=([0,1,2],[4]), bs=1, vocab='all')
    assert len(dls.interactions('all'))==5

def test_new_pairs_come_as_pairs():
    dl = rows().test_dl(synth_ratings()[:5])
    assert type(dl) is RatingDL and dl.one_batch()[0].shape==(5,2)

def test_a_loader_like_this_one():
    dls = rows(by='item')
    new = dls.valid.new(bs=3)
    assert type(new) is RowDL and new.bs==3 and new.by=='item' and new.inputs is dls.train_ds
    assert torch.equal(new.one_batch()[0], dls.valid.one_batch()[0][:3])

def test_pickled_loaders_go_on_as_they_would_have():
    dls = rows()
    list(dls.train)
    again = pickle.loads(pickle.dumps(dls))
    assert dls.train._kept and not again.train.__dict__.get('_kept') # the copies on the device are made anew
    assert torch.equal(again.train.one_batch()[0], dls.train.one_batch()[0])

def test_an_exported_pair_of_loaders_is_empty_and_takes_pairs():
    empty = rows().new_empty()
    assert len(empty.train_ds)==0 and empty.test_dl(synth_ratings()[:5]).one_batch()[0].shape==(5,2)

@pytest.mark.parametrize('kwargs,match', [(dict(bs=51), 'only 50 users have training ratings'), (dict(by='users'), "expected one of"),
    (dict(bs=0), 'expected 1 or more'), (dict(val_bs=-1), 'expected 1 or more'), (dict(by='item', bs=41), 'only 40 items')])
def test_arguments_that_make_no_sense(kwargs, match):
    with pytest.raises(ValueError, match=match): rows(**kwargs)

def test_an_unknown_keyword():
    with pytest.raises(TypeError, match='splits'): rows(splitter=None)

def test_ratings_of_zero_are_counted_and_warned_about():
    with pytest.warns(UserWarning, match='1 training ratings are 0'): dls = rows(small().assign(rating=[5,4,3,2,0]), valid_pct=0, bs=3)
    assert dls.report['zero_ratings']==1 and sum((~y.isnan()).sum() for _,y in dls.train)==5

def test_no_matrix_of_interactions_without_ratings():
    dls = CollabDataLoaders.from_df(small(), valid_pct=0, bs=1, seed=0)
    ints = dls.train_ds._new(dls.train_ds.users, dls.train_ds.items)
    with pytest.raises(RatingsError, match='no ratings'): rating_csr(ints)

def test_a_table_far_larger_than_memory_has_a_first_batch():
    n = 100_000 # x 100,000 float32 would be 40 GB
    df = pd.DataFrame(dict(user_id=np.arange(n), item_id=np.arange(n), rating=np.ones(n)))
    x,y = rows(df, valid_pct=0, bs=4).train.one_batch()
    assert x.shape==(4,n+1) and x.sum()==4 and (~y.isnan()).sum()==4

def test_shown_batches_and_results_name_ids():
    dl = rows(small(), valid_pct=0, bs=3, shuffle=False).train
    df = dl.show_batch(show=False)[0]
    assert df.input.tolist()==['1: 5, 2: 4','1: 3, 3: 2','3: 1'] and df.n_rating.tolist()==[2,2,1]
    x,y = dl.one_batch()
    assert dl.show_results((x,y), (x+1,), show=False)[1].mean_pred.tolist()==[5.5,3.5,2.]

def test_sparse_rows_in_any_order_and_none():
    df = small()
    t = SparseRows(rating_csr(rows(df, valid_pct=0, bs=1).train_ds))
    assert t.dense(torch.tensor([3,1,3])).sum(1).tolist()==[1.,9.,1.] and t.dense(torch.zeros(0, dtype=torch.int64)).shape==(0,4)

@pytest.mark.parametrize('by', ['user','item'])
def test_a_model_of_rows_reads_the_rows_of_its_loaders(by):
    learn = collab_learner(CollabDataLoaders.rows_from_df(synth_ratings(), by, bs=8, seed=1), n_factors=4, arch=AutoRec)
    fit(learn, 1)
    assert learn.model.by==by
