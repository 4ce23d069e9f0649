"AutoRec: losses with holes, scores that are its forward's, someone new, what is kept and what is not"
import copy
import pickle

import numpy as np
import pytest
import torch
from torch import nn

from helpers import fit_one_cycle
from recfast.core import RatingsError, RecfastError
from recfast.data.datasets import movie_night
from recfast.data.loaders import CollabDataLoaders
from recfast.learner import collab_learner
from recfast.models.autorec import AutoRec, MaskedCrossEntropy, MaskedMSE
from recfast.models.base import score_items
from recfast.testing import block_ratings, check_model, synth_ratings

nan = float('nan')
KINDS = {'item': dict(by='item'), 'user': dict(by='user'),
         'item centered': dict(by='item', center=True), 'user centered': dict(by='user', center=True),
         'item classes': dict(by='item', n_classes=5), 'user classes': dict(by='user', n_classes=5, center=True)}
every_kind = pytest.mark.parametrize('kind', KINDS)

def stars(df=None):
    df = synth_ratings() if df is None else df
    return df.assign(rating=df.rating.round())

def autorec(kind='item', df=None, n_factors=6, y_range=(0,5.5), bs=4, **kwargs):
    config = {**KINDS.get(kind, {}), **kwargs}
    dls = CollabDataLoaders.rows_from_df(stars() if df is None else df, config.get('by','item'), bs=bs, seed=42)
    return collab_learner(dls, n_factors=n_factors, y_range=y_range, arch=AutoRec, config=config)


def test_masked_mse_of_rows():
    pred,y = torch.tensor([[1.,2.],[3.,4.]]),torch.tensor([[nan,4.],[2.,nan]])
    assert MaskedMSE()(pred, y)==2.5  # (4+1)/2

def test_masked_mse_without_a_hole_is_the_mse():
    pred,y = torch.randn(3,4),torch.randn(3,4)
    torch.testing.assert_close(MaskedMSE()(pred, y), nn.functional.mse_loss(pred, y))

@pytest.mark.parametrize('loss,pred', [(MaskedMSE(), torch.randn(2,3)), (MaskedCrossEntropy([1,2,3,4,5]), torch.randn(2,3,5))])
def test_a_loss_of_holes_alone_is_zero_and_so_is_its_gradient(loss, pred):
    pred = pred.requires_grad_(True)
    val = loss(pred, torch.full((2,3), nan))
    val.backward()
    assert val==0 and (pred.grad==0).all()

def test_masked_mse_of_each_row():
    loss = MaskedMSE()
    loss.reduction = 'none'
    assert loss(torch.zeros(2,2), torch.tensor([[nan,4.],[1.,3.]])).tolist()==[16.,5.]  # 16/1, (1+9)/2

def test_masked_cross_entropy_of_known_cells():
    logits,y = torch.randn(2,3,5),torch.tensor([[nan,4.,nan],[1.,nan,nan]])
    want = -(logits[0,1].log_softmax(0)[3]+logits[1,0].log_softmax(0)[0])/2
    torch.testing.assert_close(MaskedCrossEntropy([1,2,3,4,5])(logits, y), want)

def test_classes_are_levels_whatever_they_are():
    loss = MaskedCrossEntropy([0.5,3.,10.])
    logits = torch.tensor([[[0.,0.,50.]]])
    assert loss(logits, torch.tensor([[10.]]))<1e-6 and loss(logits, torch.tensor([[3.]]))>49 and loss.activation(logits).item()==10


@every_kind
def test_it_keeps_the_contract(kind): check_model(lambda: autorec(kind), dict(item_bias=False, user_bias=False))

@every_kind
def test_scores_are_what_training_sees(kind):
    learn = autorec(kind, n_factors=3)
    model,users = learn.model.eval(),torch.tensor([3,1,50])
    rows = model._rows().dense(torch.arange(51 if model.by=='user' else 41))
    with torch.no_grad(): out = model.to_score(model(rows))
    want = (out if model.by=='user' else out.T)[users]
    torch.testing.assert_close(score_items(model, users, 41), want, rtol=1e-5, atol=1e-5)

def test_the_model_names_its_loss():
    assert isinstance(autorec().loss_func, MaskedMSE)
    loss = autorec('item classes').loss_func
    assert isinstance(loss, MaskedCrossEntropy) and loss.levels.tolist()==[1.,2.,3.,4.,5.]

def test_a_loss_that_is_given_is_used():
    dls = CollabDataLoaders.rows_from_df(stars(), 'item', bs=4, seed=42)
    mine = MaskedMSE()
    assert collab_learner(dls, arch=AutoRec, loss_func=mine).loss_func is mine

def test_training_runs_on_the_fast_path_and_ends_where_the_plain_loop_does():
    fast,plain = (fit_one_cycle(autorec('item', dropout=.3), 3, 1e-2, wd=.1, fast=o) for o in (None,False))
    assert fast.fast and not plain.fast
    torch.testing.assert_close(fast.model.encoder.weight, plain.model.encoder.weight, rtol=1e-5, atol=1e-5)

def test_what_is_dropped_from_the_input_is_dropped_in_training_only():
    model,x = AutoRec(9, 12, 4, dropout=.5),torch.rand(3,9)
    assert not torch.equal(model(x), model(x))
    model.eval()
    assert torch.equal(model(x), model(x))

def test_scores_asked_for_in_training_mode_are_without_dropout():
    learn = autorec('item', dropout=.5)
    users = torch.tensor([1,2])
    assert torch.equal(learn.model.train().score_items(users), learn.model.eval().score_items(users))

@every_kind
def test_scores_follow_the_weights(kind):
    model,users = autorec(kind).model,torch.tensor([1,2])
    before = score_items(model, users, 41)
    model.encoder.weight.data.mul_(3.)
    assert not torch.allclose(score_items(model, users, 41), before)

def test_scores_do_not_depend_on_the_slices():
    for by in ('item','user'):
        model = autorec(by).model.eval()
        few,all_at_once = model.score_items(torch.arange(51), cells=100),model.score_items(torch.arange(51))
        torch.testing.assert_close(few, all_at_once, rtol=1e-5, atol=1e-6)

def test_a_row_of_the_wrong_width_says_what_to_do():
    with pytest.raises(RecfastError, match=r"rows of 12 numbers, expected 9: .*by='item'"): AutoRec(9, 12, 4)(torch.zeros(1,12))

def test_without_rows_it_says_what_to_do():
    with pytest.raises(RecfastError, match='model.attach'): AutoRec(9, 12, 4).score_items(torch.tensor([1]))

@pytest.mark.parametrize('kwargs,match', [(dict(by='film'), 'expected one of'), (dict(act='rleu'), 'rleu'), (dict(out_act='soft'), 'soft')])
def test_settings_that_do_not_exist(kwargs, match):
    with pytest.raises(ValueError, match=match): AutoRec(9, 12, 4, **kwargs)

def test_levels_that_are_not_n_classes():
    with pytest.raises(RatingsError, match='n_classes=4, but the training ratings have 5 levels: 1.0, 2.0'): autorec(n_classes=4)

def test_activations_by_name():
    model = AutoRec(9, 12, 4, act='relu', out_act='tanh')
    assert isinstance(model.act, nn.ReLU) and (model(torch.rand(3,9)*9).abs()<=1).all()

def test_rows_are_no_part_of_what_is_saved():
    model = autorec('item centered').model
    assert set(model.state_dict())=={'encoder.weight','encoder.bias','decoder.weight','decoder.bias','mean','noise','col_bias','levels'}
    again = pickle.loads(pickle.dumps(model))
    assert again.seen is None and copy.deepcopy(model).seen is None and model.seen is not None
    again.attach(autorec().dls.interactions('train'))
    assert torch.equal(score_items(again, torch.tensor([1]), 41), score_items(model, torch.tensor([1]), 41))

def test_biases_solve_their_normal_equations():
    df = block_ratings(6, 4).assign(rating=lambda d: d.rating+d.item_id/10)
    dls = CollabDataLoaders.rows_from_df(df, 'item', bs=2, valid_pct=0, seed=0)
    learn = collab_learner(dls, n_factors=2, arch=AutoRec, config=dict(center=True))
    model,m = learn.model,learn.model._rows().dense(torch.arange(5), nan)
    b_i = model.eval().encode(m.nan_to_num())[1] # the rows' own
    left = (m-model.mean-b_i).nan_to_num()
    n = (~m.isnan()).sum(0)
    torch.testing.assert_close(model.col_bias, left.sum(0)/(n+15), rtol=1e-3, atol=1e-3)

@every_kind
def test_someone_new_who_is_someone_known(kind):
    learn = fit_one_cycle(autorec(kind, movie(), n_factors=10, bs=16), 6, 1e-2, wd=.1)
    ints = learn.dls.interactions('train')
    gaps = []
    for u in range(1, 40):
        at = ints.users==u
        new = learn.recommender.score_history([(ints.items[at].long(), ints.values[at].double())])[0]
        gaps.append((new-score_items(learn.model, torch.tensor([u]), ints.n_items)[0])[1:].square().mean().sqrt().item())
    assert np.mean(gaps)<(1e-5 if learn.model.by=='user' else .25) # a row read again; a column solved for

def movie(): return movie_night()[['user_id','item_id','rating']].assign(rating=lambda d: d.rating.round().clip(1,5))

def test_an_item_that_stands_twice_in_a_history_counts_with_its_mean():
    model,at = autorec('user').model.eval(),lambda *o: torch.tensor(o)
    assert torch.equal(model.score_history(at(1,2,1), at(5.,2.,4.)), model.score_history(at(1,2), at(4.5,2.)))

@every_kind
def test_someone_new_without_a_history_gets_finite_scores(kind):
    learn = autorec(kind)
    none = torch.zeros(0, dtype=torch.int64),torch.zeros(0, dtype=torch.float64)
    assert torch.isfinite(learn.recommender.score_history([none])).all()

@pytest.mark.parametrize('kind', [k for k,v in KINDS.items() if v['by']=='item'])
@pytest.mark.parametrize('y_range', [None,(0,5.5)])
def test_the_solution_is_a_minimum(kind, y_range):
    model = fit_one_cycle(autorec(kind, y_range=y_range), 2, 1e-2).model.eval()
    m,dev,noise = model._user_prior()
    h,row_bias = (o.double() for o in model._encoded())
    items,r = torch.tensor([1,5,9,20,33]),torch.tensor([5.,1.,4.,2.,3.]).double()
    base = (model.mean+row_bias[:,0])[items] if model.center else torch.zeros(5).double()
    d = len(m)
    w = d/(len(dev)+d)
    prec = torch.linalg.inv((1-w)/(len(dev)-1)*dev.T@dev+(w+1e-3)*dev.square().mean()*torch.eye(d).double())
    cost = lambda v: ((r-model._new_column(v, h[items], base)).square().sum()/noise+(v-m)@prec@(v-m)).item()
    with torch.no_grad():
        v = model._solve_column(h[items], base, r, n_iter=50)
        near = [cost(v+s) for s in torch.randn(100, d, generator=torch.Generator().manual_seed(0)).double()*dev.std()*.1]
    assert min(near)>cost(v)*(1-1e-3) and cost(v)<cost(m)

@every_kind
def test_reading_a_history_changes_nothing(kind):
    learn = autorec(kind)
    before = {k: v.clone() for k,v in learn.model.state_dict().items()}
    learn.model.train()
    learn.recommend(history={1: 5, 2: 1}, k=3)
    assert all(torch.equal(v, before[k]) for k,v in learn.model.state_dict().items()) and learn.model.training
    assert all(p.grad is None for p in learn.model.parameters())

def test_item_vectors_are_hidden_vectors_or_columns():
    assert autorec('item').model.item_vectors().shape==(41,6) and autorec('user').model.item_vectors().shape==(41,6)
    assert autorec('user classes').model.item_vectors().shape==(41,30)

@pytest.mark.parametrize('kind', ['item','item classes'])
def test_get_preds_of_rows(kind):
    learn = autorec(kind)
    with learn.no_bar(): preds,y = learn.get_preds()
    dl = learn.dls.valid
    scores = score_items(learn.model, torch.arange(51), 41)
    torch.testing.assert_close(preds, scores[:,dl.rows].T, rtol=1e-5, atol=1e-5)
    assert int((~y.isnan()).sum())==len(learn.dls.valid_ds)

@pytest.mark.parametrize('kind', ['item','user classes'])
def test_results_are_shown_as_rows(kind):
    learn = autorec(kind)
    b = learn.dls.valid.one_batch()
    with learn.no_bar(): learn.show_results(max_n=2); preds = learn.get_preds(dl=[b])[0]
    df = learn.dls.valid.show_results(b, (preds,), max_n=2, show=False)[1]
    assert len(df)==2 and df.mean_pred.between(0, 5.5).all()

def test_validation_loss_is_the_error_of_evaluate():
    learn = fit_one_cycle(autorec('user', bs=50), 1, 1e-3) # one batch, so that the mean of the batches is the mean of the cells
    assert learn.recorder.values[-1][1]==pytest.approx(learn.evaluate(k=3)['rmse']**2, rel=1e-5)

@pytest.mark.skipif(not torch.cuda.is_available(), reason='no GPU')
@every_kind
def test_it_trains_and_answers_on_a_gpu(kind):
    config = KINDS[kind]
    dls = CollabDataLoaders.rows_from_df(stars(), config['by'], bs=4, seed=42, device='cuda')
    learn = fit_one_cycle(collab_learner(dls, n_factors=6, arch=AutoRec, config=config), 2, 1e-2)
    assert learn.model.decoder.weight.is_cuda and len(learn.recommend([1,2], k=3))==6 and len(learn.recommend(history={1: 5}, k=3))==3
