"What the store answers, what it keeps, and ids that it does not know"
import copy
import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import FRAME, loaders
from recfast.core import RatingsError
from recfast.data.columns import Columns
from recfast.data.interactions import Interactions, rating_csr
from recfast.data.loaders import CollabDataLoaders
from recfast.data.vocab import Vocab

CLASSES = {'user': Vocab([1,2,3]), 'film': Vocab(list('abcd'))}

def rows(users, items, values=None): return Interactions(users, items, values, classes=CLASSES)

@given(st.lists(st.tuples(st.integers(0,3), st.integers(0,4), st.integers(0,5)), max_size=30), st.sampled_from(['user','item']))
@settings(max_examples=80, deadline=None)
def test_both_matrices_are_those_of_a_plain_loop(cells, by):
    users,items,values = ([o[j] for o in cells] for j in range(3))
    table = {}
    for u,i,v in cells:
        if u and i: table.setdefault((u,i) if by=='user' else (i,u), []).append(v)
    ints = rows(users, items, values)
    seen,rated = ints.csr(by=by),ints.csr(values=True, by=by)
    assert seen.shape==rated.shape==((4,5) if by=='user' else (5,4))
    assert seen.nnz==rated.nnz==len(table) # a rating of 0 is a rating
    for at,vs in table.items():
        assert seen[at]==1 and np.isclose(rated[at], np.mean(vs))

def test_the_short_form_is_the_matrix_of_ratings():
    ints = rows([1,1,2], [1,1,3], [5,2,4])
    assert (rating_csr(ints, 'item')!=ints.csr(values=True, by='item')).nnz==0

def test_no_ratings_no_matrix_of_them():
    with pytest.raises(RatingsError, match='no ratings'): rows([1], [1]).csr(values=True)
    assert rows([1], [1]).csr().nnz==1

def test_by_something_else():
    with pytest.raises(ValueError, match="by='film'"): rows([1], [1]).csr(by='film')

def test_what_is_seen_is_kept_and_what_is_rated_is_not():
    ints = rows([1,1], [1,2], [5,2])
    assert ints.csr() is ints.csr() is not ints.csr(by='item') and ints.csr(values=True) is not ints.csr(values=True)

@pytest.mark.parametrize('again', [copy.copy, copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))])
def test_what_is_kept_does_not_outlive_its_rows(again):
    ints = rows([1,1], [1,2], [5,2])
    ints.csr(),ints.rating_range
    new = again(ints)
    new.users,new.items,new.values = torch.tensor([2], dtype=torch.int32),torch.tensor([4], dtype=torch.int32),torch.tensor([3.])
    assert new.csr().nnz==1 and new.csr()[2,4]==1 and new.rating_range==(3.,3.)

def test_pickled_loaders_hold_nothing_that_was_worked_out():
    dls = loaders()
    fresh = len(pickle.dumps(dls))
    list(dls.train),dls.interactions('all').csr(),dls.interactions('train').csr(by='item'),dls.interactions('train').rating_range
    assert len(pickle.dumps(dls))<=fresh+200

@pytest.mark.parametrize('policy', ['zero','drop','fallback'])
def test_an_unknown_id_is_row_0_without_a_word(policy, recwarn):
    assert Vocab([1,2]).encode([2,9], policy).tolist()==[2,0] and not recwarn.list

def test_rows_of_a_table_under_any_names():
    df = pd.DataFrame(dict(who=[3,1,9], what=list('axa'), stars=[1,2,3]))
    ints = Interactions.from_frame(df, Columns('who','what','stars'), CLASSES, rating_name='rating')
    assert ints.users.tolist()==[3,1,0] and ints.items.tolist()==[1,0,1] and list(ints.frame())==['user','film','rating'] and ints.times is None

def test_new_rows_under_the_names_everyone_uses():
    dls = CollabDataLoaders.from_df(FRAME.rename(columns=dict(item_id='film', rating='stars')), item_name='film', rating_name='stars', seed=1)
    x,y = dls.test_dl(FRAME[:9], bs=9).one_batch()
    assert x.tolist()==FRAME[['user_id','item_id']][:9].to_numpy().tolist() and torch.allclose(y[:,0], torch.tensor(FRAME.rating[:9].to_numpy()))

def test_training_s_own_name_goes_before_the_name_everyone_uses():
    df = FRAME.assign(film=FRAME.item_id.map('film {}'.format))
    dls = CollabDataLoaders.from_df(df, item_name='film', seed=1)
    assert torch.equal(dls.test_dl(df[:9], bs=9).one_batch()[0], dls.test_dl(df[:9].drop(columns='item_id'), bs=9).one_batch()[0])

@pytest.mark.parametrize('df,order', [(FRAME,'timestamp'), (FRAME.drop(columns='timestamp'),'rows')])
def test_the_report_says_what_put_histories_in_order(df, order):
    assert CollabDataLoaders.sequences_from_df(df, bs=8, seed=0).report['order']==order
