"arch='auto' where rows have an order: judged by what comes last, sequence parts only where they win, said where they are not tried"
import warnings

import numpy as np
import pandas as pd
import pytest

from helpers import fit, without_progress
from recfast.bundle import load_bundle
from recfast.choice import ChooseModel, Search
from recfast.data.loaders import CollabDataLoaders
from recfast.data.recut import choosing_cut, cut_rows, order_asked
from recfast.data.split import global_time_split, leave_last_out
from recfast.learner import collab_learner
from recfast.models.base import find_model
from recfast.recipes import Shape, in_order, rankers
from recfast.report import _doing

ORDERED = {'SequentialRules','TwoSpeedRidge'}

def walks(ordered=True, n_users=80, n_items=20, length=10, seed=0):
    "Circles that are walked one or two on; else the same with the items of each user in a drawn order"
    rng = np.random.default_rng(seed)
    rows = []
    for u in range(n_users):
        at = rng.integers(n_items)+np.cumsum(np.append(0, rng.choice([1,1,2], length-1)))
        rows += [(u,i%n_items,t) for t,i in enumerate(at if ordered else rng.permutation(at))]
    return pd.DataFrame(rows, columns=['user_id','item_id','timestamp'])

@pytest.fixture(scope='module', autouse=True)
def without_softmax():
    "It takes seconds and is not what is tested"
    mp = pytest.MonkeyPatch()
    mp.setattr('recfast.choice.rankers', lambda shape: [o for o in rankers(shape) if 'softmax' not in o.name])
    yield
    mp.undo()

def auto(dls, **kwargs):
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        return fit(without_progress(collab_learner(dls, arch='auto', seed=1, **kwargs)), 1)

def sequences(df, **kwargs): return CollabDataLoaders.sequences_from_df(df, **{'seed': 1, 'bs': 16, **kwargs})
def clicks(df, **kwargs): return CollabDataLoaders.implicit_from_df(df, **{'seed': 1, 'bs': 64, 'n_neg': 0, **kwargs})

@pytest.fixture(scope='module')
def chosen(): return auto(sequences(walks()))

def test_loaders_of_sequences_are_judged_by_what_comes_next(chosen, tmp_path):
    choice = chosen.choice
    assert set(choice.part)=={'ranker'} and ORDERED<set(choice.model) and choice.note.eq('').all()
    taken = choice.model[choice.chosen].item()
    assert ORDERED&set(taken.split(' + ')) and choice.value[choice.chosen].item()>2*choice.value[choice.model=='EASE'].item()
    assert chosen.evaluate(k=5)['recall@5']>.9 and chosen.recommend(history=[3,4,5], k=2).item_id.isin([6,7]).all()
    chosen.save_bundle(tmp_path/'b')
    again = load_bundle(tmp_path/'b')
    for who in (dict(user_ids=[3,7]),dict(history=[[3,4,5],[5,4,3]])):
        pd.testing.assert_frame_equal(again.recommend(**who, k=4), chosen.recommend(**who, k=4), rtol=1e-5)

def test_a_choice_is_made_anew_from_seeds(chosen):
    twin = auto(sequences(walks()))
    pd.testing.assert_series_equal(twin.choice.value, chosen.choice.value)
    pd.testing.assert_frame_equal(twin.recommend(k=3), chosen.recommend(k=3))

def test_where_order_says_nothing_no_sequence_part_is_taken():
    choice = auto(sequences(walks(ordered=False, seed=2))).choice
    assert ORDERED<set(choice.model) and not ORDERED&set(choice.model[choice.chosen].item().split(' + '))

@pytest.mark.parametrize('how,asked,cut', [(dict(),False,'random'), (dict(valid_pct=0),True,'last'), (dict(splits=leave_last_out),True,'last'),
    (dict(splits=global_time_split),True,'time'), (dict(splits=(range(1, 800),[0])),False,'random')])
def test_an_order_is_asked_where_rows_are_cut_along_it(how, asked, cut):
    df = walks()
    if cut!='time': df['timestamp'] += 100*df.user_id # else the last rows of all are the latest of all
    dls = clicks(df, **{'bs': 4, **how})
    assert (order_asked(dls),choosing_cut(dls).how)==(asked,cut)
    found = Search(dls, collab_learner, budget=0)
    assert found.shape.ordered==asked

@pytest.mark.parametrize('n,asked', [(2,True),(5,True),(6,False),(30,False)])
def test_after_a_point_in_time_what_comes_next_is_asked_of_a_few_rows(n, asked):
    old = pd.DataFrame([(u,i,i) for u in range(20) for i in range(12)], columns=['user_id','item_id','timestamp'])
    new = pd.DataFrame([(u,i,100+i) for u in range(20) for i in range(n)], columns=['user_id','item_id','timestamp'])
    df,split = pd.concat([old,new], ignore_index=True),(range(len(old)),range(len(old), len(old)+len(new)))
    dls = CollabDataLoaders.implicit_from_df(df, splits=split, bs=4, n_neg=0)
    assert (dls.how_cut().how,dls.how_cut().n,order_asked(dls))==('time',n,asked)

def test_inner_rows_are_each_users_last(chosen):
    train,valid = cut_rows(chosen.dls)
    assert len(valid)==80 and (pd.Series(valid.times).to_numpy()==8).all() and train.times.max()==7

def test_validation_rows_of_all_times_are_said():
    choice = auto(clicks(walks())).choice
    row, = choice[choice.model=='SequentialRules'].itertuples()
    assert row.note.startswith('not tried: rows have times') and 'leave_last_out' in row.note and not row.chosen and not ORDERED&set(choice.model[choice.chosen])
    assert order_asked(clicks(walks().drop(columns='timestamp'))) is None

def test_rows_with_weights_have_no_order_that_is_read():
    dls = clicks(walks().assign(w=2.), weight_name='w', splits=leave_last_out)
    assert order_asked(dls) is None

def test_the_ridge_is_for_catalogues_it_can_hold():
    assert [[o.name for o in in_order(Shape(9, n, 99))] for n in (8000,8001)]==[['SequentialRules','TwoSpeedRidge'],['SequentialRules']]
    assert all(find_model(o.arch) and o.kind=='sequences' for o in in_order(Shape(9, 9, 99)))

def test_the_time_that_is_given():
    df = walks(n_users=20)
    assert Search(sequences(df, bs=4), collab_learner).budget==240 and Search(clicks(df), collab_learner).budget==60
    assert Search(sequences(df, bs=4), collab_learner, budget=7).budget==7 and ChooseModel(collab_learner).budget is None
    for dls,most in ((sequences(df, bs=4),240),(clicks(df),60)): assert _doing(collab_learner(dls, arch='auto'))==f'Choosing a model, at most {most} s'

def test_order_without_times_is_that_of_the_table():
    df = walks()
    dls = sequences(df.drop(columns='timestamp'))
    assert order_asked(dls) and cut_rows(dls)[1].place.tolist()==[10*u+8 for u in range(80)]
    assert ORDERED&set(auto(dls).choice.query('chosen').model.item().split(' + '))
