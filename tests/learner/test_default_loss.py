"The loss where none is named: ratings, clicks, labels, models with a wish of their own"
import subprocess
import sys
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from fastai.layers import Embedding
from fastai.losses import MSELossFlat
from torch import nn

from recfast import learner
from recfast.data.implicit import ImplicitDL  # noqa: F401 (and with it implicit_from_df)
from recfast.data.loaders import CollabDataLoaders
from recfast.learner import collab_learner, default_loss
from recfast.losses import BCE, BPRLoss, NextItemLoss, SampledSoftmaxLoss, SoftmaxLoss
from recfast.models.autorec import AutoRec
from recfast.models.linear import EASE
from recfast.models.ncf import EmbeddingNN, NeuMF
from recfast.models.sequence import SASRec
from recfast.testing import block_ratings, synth_ratings

LIKED = block_ratings().query('rating==5').drop(columns='rating')
LABELS = pd.concat([LIKED.assign(label=1), LIKED.assign(item_id=LIKED.item_id%40+1, label=0)], ignore_index=True)
IMPLICIT = CollabDataLoaders.implicit_from_df

def clicks(n_neg=4, **kwargs): return IMPLICIT(LIKED, n_neg=n_neg, seed=1, **kwargs)
def labels(): return IMPLICIT(LABELS, label_name='label', seed=1)

@pytest.mark.parametrize('make,loss', [
    (lambda: CollabDataLoaders.from_df(synth_ratings(), seed=1), MSELossFlat), (clicks, BCE), (labels, BCE), (lambda: clicks(n_neg=0), SoftmaxLoss),
    (lambda: CollabDataLoaders.from_df(LIKED.assign(rating=1.), seed=1), MSELossFlat)])
@pytest.mark.parametrize('arch', [None, NeuMF, EmbeddingNN])
def test_loaders_decide(make, loss, arch):
    got = collab_learner(make(), 4, arch=arch).loss_func
    assert type(got) is type(loss())

@pytest.mark.parametrize('make', [clicks, labels])
def test_what_is_solved_is_measured_as_ever(make):
    learn = collab_learner(make(), arch=EASE)
    assert type(learn.loss_func) is type(MSELossFlat())
    with learn.quiet(): learn.fit(1)

def test_a_model_with_a_loss_of_its_own():
    rows = CollabDataLoaders.rows_from_df(synth_ratings(), bs=16, seed=1)
    assert type(collab_learner(rows, 4, arch=AutoRec).loss_func).__name__=='MaskedMSE'
    sequences = CollabDataLoaders.sequences_from_df(LIKED, bs=16, seed=1)
    assert isinstance(collab_learner(sequences, 4, arch=SASRec).loss_func, NextItemLoss)

def test_a_loss_that_is_named_is_taken():
    assert type(collab_learner(clicks(), 4, loss_func=MSELossFlat()).loss_func) is type(MSELossFlat())

def test_probabilities_are_trained_as_such():
    learn = collab_learner(clicks(), 4, y_range=(0,1))
    assert learn.loss_func.y_range==(0,1)
    with learn.quiet(): learn.fit(1)
    assert np.isfinite(learn.recorder.values[-1]).all()

@pytest.mark.parametrize('make', [clicks, labels, lambda: clicks(n_neg=0)])
@pytest.mark.parametrize('given', [dict(y_range=(0,5.5)), dict(arch=NeuMF, config=dict(y_range=(0,2)))])
def test_a_range_of_ratings_for_clicks(make, given):
    with pytest.raises(ValueError, match=r'y_range=\(0, .*clicks have no ratings: leave it out'): collab_learner(make(), 4, **given)

class Head(nn.Module):
    "A dot product under a function; keeps no y_range"
    def __init__(self, n_users, n_items, n_factors, y_range=None, head=torch.sigmoid):
        super().__init__()
        self.u,self.i,self.head = Embedding(n_users,n_factors),Embedding(n_items,n_factors),head
    def forward(self, x): return self.head((self.u(x[:,0])*self.i(x[:,1])).sum(1))

def test_a_model_that_may_end_in_probabilities_is_asked_for():
    with pytest.raises(ValueError, match=r'all scores of Head lie from 0 to 1: they may be probabilities already.*loss_func=BCE\(y_range=\(0,1\)\)'):
        collab_learner(clicks(), 4, arch=Head)
    given = BCE(y_range=(0,1))
    learn = collab_learner(clicks(), 4, arch=Head, loss_func=given)
    with learn.quiet(): learn.fit(1)
    assert learn.loss_func.y_range==(0,1) and np.isfinite(learn.recorder.values[-1]).all()

@pytest.mark.parametrize('head', [lambda s: s, torch.tanh, torch.zeros_like, lambda s: s.sigmoid()-.5])
def test_raw_scores_are_logits(head):
    learn = collab_learner(clicks(), 4, arch=Head, config=dict(head=head))
    assert isinstance(learn.loss_func, BCE) and learn.loss_func.y_range is None

def test_all_items_at_once_need_no_probabilities():
    assert isinstance(collab_learner(clicks(n_neg=0), 4, arch=Head).loss_func, SoftmaxLoss)

def test_looking_at_a_model_changes_nothing():
    dls = clicks()
    model = Head(dls.n_users, dls.n_items, 4, head=lambda s: s).train()
    state = torch.get_rng_state()
    weights = [p.clone() for p in model.parameters()]
    default_loss(model, dls)
    assert model.training and torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a, b) for a,b in zip(weights, model.parameters()))

def test_clicks_are_learned_without_a_word():
    learn = collab_learner(clicks(), 8)
    with learn.quiet(): learn.fit_one_cycle(10, 3e-2)
    assert learn.evaluate(k=5)['hit@5']>.9

VERBS = '''
from recfast.learner import collab_learner
from recfast.data.loaders import CollabDataLoaders
from recfast.testing import synth_ratings
import recfast.collab, sys
for name in ('rows_from_df','implicit_from_df','sequences_from_df'): assert callable(getattr(CollabDataLoaders, name)), name
learn = collab_learner(CollabDataLoaders.from_df(synth_ratings(), seed=1), 3, y_range=(0,5.5))
with learn.quiet(): learn.fit(1)
learn.save_bundle(sys.argv[1])
print(len(learn.explain(1, k=1)), callable(learn.export_onnx), callable(learn.export_program), callable(learn.recommender.save_bundle))
'''

@pytest.mark.slow
def test_collab_learner_alone_brings_every_verb(tmp_path):
    out = subprocess.run([sys.executable, '-c', VERBS, str(tmp_path/'one.recfast')], capture_output=True, text=True, encoding='utf-8')
    assert out.returncode==0, out.stderr
    assert out.stdout.split()[-3:]==['True']*3 and (tmp_path/'one.recfast').exists()


# a full softmax over rows in random order

def hints(dls, loss=None):
    "What is said of `by_user=`"
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter('always')
        collab_learner(dls, 4, loss_func=loss)
    return [str(o.message) for o in said if 'by_user=True' in str(o.message)]

MANY = pd.DataFrame([(u,i) for u in range(20) for i in range(u%5, 60, 3)], columns=['user_id','item_id'])

@pytest.mark.parametrize('loss,how,said', [(None, dict(n_neg=0), 1), (None, dict(n_neg=0, by_user=True), 0), (BPRLoss(), dict(n_neg=2), 0), (SampledSoftmaxLoss(), dict(n_neg=4), 0)])
def test_a_full_softmax_that_scores_users_again_and_again_says_so(loss, how, said, monkeypatch):
    dls = IMPLICIT(MANY, bs=16, seed=1, **how)
    assert hints(dls, loss)==[] # little work
    monkeypatch.setattr(learner._hint_by_user, '__defaults__', (1e4,))
    words = hints(dls, loss)
    assert len(words)==said and all('60 items' in o and 'SampledSoftmaxLoss' in o for o in words)

def test_few_rows_of_each_user_are_no_reason_for_it(monkeypatch):
    df = pd.DataFrame([(u,(u+j)%50) for u in range(100) for j in range(4)], columns=['user_id','item_id'])
    monkeypatch.setattr(learner._hint_by_user, '__defaults__', (1e3,))
    assert hints(IMPLICIT(df, bs=16, n_neg=0, valid_pct=0))==[]
