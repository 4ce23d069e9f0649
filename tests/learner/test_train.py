"From a table to a learner: what is decided, what is refused"
import warnings

import numpy as np
import pandas as pd
import pytest

from helpers import Handmade
from recfast.core import RatingsError, RecfastError
from recfast.data.implicit import ImplicitDL
from recfast.data.rows import RowDL
from recfast.data.sequences import SequenceDL
from recfast.losses import BCE
from recfast.models.base import MODELS
from recfast.models.linear import EASE
from recfast.models.parts import TwoPart
from recfast.testing import synth_ratings
from recfast.train import LOSSES, ArgumentError, ClicksWarning, Trained, table_learner, train_table

FRAME = synth_ratings()
CLICKS = FRAME[['user_id','item_id']]

def quiet_fit(learn, n_epoch, lr, wd):
    with learn.quiet(): learn.fit_one_cycle(n_epoch, lr, wd=wd)

@pytest.mark.parametrize('name', MODELS)
def test_every_registered_model_gets_the_loaders_it_reads(name):
    kinds = dict(rows=RowDL, sequences=SequenceDL)
    learn = table_learner(FRAME, name, n_factors=4)
    assert type(learn.dls.train) is (ImplicitDL if name=='lightgcn' else kinds.get(MODELS[name][1]['reads'], type(table_learner(FRAME).dls.train)))
    assert type(learn.model) is MODELS[name][0]

def test_a_class_of_ones_own_reads_pairs():
    learn = table_learner(FRAME, Handmade, n_factors=4)
    assert type(learn.model) is Handmade and learn.model.limits==(0,5.5)

def test_clicks_are_said_and_trained_under_their_loss():
    with pytest.warns(ClicksWarning, match="rating_name=; the columns are 'user_id', 'item_id'"): learn = table_learner(CLICKS, 'dotproductbias', n_factors=4)
    assert isinstance(learn.dls.train, ImplicitDL) and isinstance(learn.loss_func, BCE) and learn.model.y_range is None

def test_ratings_are_not_taken_for_clicks():
    with warnings.catch_warnings():
        warnings.simplefilter('error', ClicksWarning)
        assert table_learner(FRAME.rename(columns={'rating': 'stars'}), rating_name='stars').dls.rated

@pytest.mark.parametrize('kwargs,says', [(dict(arch='netflix'), 'dotproductbias'), (dict(split='half'), 'random, time, last'), (dict(split='last', valid_pct=.5), 'valid_pct: split='),
    (dict(arch='dotproductbias', config=dict(depth=3)), 'depth'),
    (dict(arch='dotproduct', loss='hinge'), 'there are mse'), (dict(arch='ease', loss='softmax'), 'has its own'), (dict(loss='softmax'), 'loss: goes with a model'),
    (dict(n_factors=8), 'n_factors: goes with a model'), (dict(arch='auto', by_user=True), 'by_user: goes with'), (dict(arch='ease', budget=5), 'budget')])
def test_arguments_that_do_not_go_together(kwargs, says):
    with pytest.raises(ArgumentError, match=says): table_learner(FRAME, **kwargs)

@pytest.mark.parametrize('kwargs,n', [({}, FRAME.user_id.nunique()), (dict(valid_pct=.5), round(.5*FRAME.user_id.nunique())), (dict(split='time'), len(FRAME)//5)], ids=['last','some','time'])
def test_what_a_next_item_model_is_asked_for(kwargs, n): # the last row of each user, of a share of them, or all rows after a time
    assert len(table_learner(FRAME, 'sasrec', **kwargs).dls.interactions('valid'))==n

def test_a_refusal_is_an_error_of_recfast_and_a_value_error(): assert issubclass(ArgumentError, RecfastError) and issubclass(ArgumentError, ValueError)

def test_clicks_have_no_range_and_without_times_no_future():
    with pytest.raises(ArgumentError, match='y_range: no column'): table_learner(CLICKS, y_range=(0,5.5))
    with pytest.raises(ArgumentError, match='time_name='): table_learner(FRAME.drop(columns='timestamp'), split='time')

def test_a_column_that_is_not_there_is_named():
    with pytest.raises(RatingsError, match="no column 'film'"): table_learner(FRAME, item_name='film')

def test_the_frame_is_left_alone():
    df = FRAME.assign(timestamp='2020-01-02T03:04:05')
    before = df.copy()
    table_learner(df)
    pd.testing.assert_frame_equal(df, before)

@pytest.mark.parametrize('n', [1,2,5])
@pytest.mark.parametrize('arch', ['dotproductbias','autorec','ease'])
def test_few_rows_are_enough(arch, n):
    rows = FRAME[:n].assign(rating=np.arange(n)%5+1)
    assert len(table_learner(rows, arch, n_factors=2, valid_pct=0).dls.train_ds)==n

def test_what_is_passed_is_not_decided():
    learn = table_learner(FRAME, 'dotproductbias', bs=7, y_range=(-1,9), seed=3, valid_pct=.5)
    assert learn.dls.bs==7 and learn.model.y_range==(-1,9) and learn.seed==3 and len(learn.dls.valid_ds)==len(FRAME)//2

def test_nothing_held_out_is_not_evaluated():
    made = train_table(FRAME, 'dotproductbias', valid_pct=0, n_epoch=1, n_factors=2, fit=quiet_fit)
    assert made.evaluation is None and [head for head,_,_ in made.parts()]==['For the first three users','Loss','Map']

def test_the_one_who_fits_gets_what_was_passed():
    got = []
    def fit(learn, *args):
        got.append((type(learn.model),*args))
        quiet_fit(learn, *args)
    made = train_table(FRAME, EASE, n_epoch=1, k=3, metrics=['ndcg'], fit=fit)
    assert isinstance(made, Trained) and got==[(EASE,1,None,None)] and list(made.evaluation.summary)==['ndcg@3']
    *heads,near = [head for head,_,_ in made.parts()]
    assert heads==['Metrics','Lists against popularity','For the first three users'] and near.startswith('Nearest to') # no batches, no vectors

@pytest.mark.parametrize('named', [dict(n_epoch=3), dict(lr=1e-3), dict(wd=.1), dict(config={'l2': 1}), dict(n_factors=8), dict(bs=8)])
@pytest.mark.parametrize('arch', [None, 'auto', 'AUTO'])
def test_what_belongs_to_a_named_model_is_refused_without_one(arch, named):
    with pytest.raises(ArgumentError, match=f'{[*named][0]}: goes with a model that is named'): train_table(FRAME, arch, **named)

@pytest.mark.parametrize('loss', LOSSES)
def test_a_loss_is_a_word(loss):
    config = dict(cosine=True) if loss=='contrastive' else None
    df = FRAME.assign(rating=FRAME.rating.round()) if loss=='ordinal' else FRAME
    learn = table_learner(df, 'dotproduct', n_factors=4, loss=loss.upper() if loss=='mse' else loss, config=config)
    stars = loss in ('mse','ordinal','classes')
    assert learn.dls.rated==stars and isinstance(learn.dls.train, ImplicitDL)!=stars
    assert getattr(learn.dls.train, 'n_neg', None)==(None if stars else 0 if loss=='softmax' else 4)

def test_batches_of_few_users():
    learn = table_learner(CLICKS, 'dotproduct', n_factors=4, loss='softmax', by_user=True)
    assert learn.dls.train.by_user
    with pytest.raises(ArgumentError, match='by_user: for losses of clicks'): table_learner(FRAME, 'dotproduct', loss='mse', by_user=True)

def test_a_table_alone_is_trained_by_a_choice():
    made = train_table(FRAME, budget=5, fit=quiet_fit)
    assert type(made.learn.model) is TwoPart and made.evaluation.baseline is not None
    assert set(made.learn.choice.part)=={'rater','ranker'}
