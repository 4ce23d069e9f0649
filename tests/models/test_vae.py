"MultVAE beside its formulas; the weight that rises, what is kept, somebody new, bundles"
import copy

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F

from helpers import fit, taste_clicks
from recfast.bundle import load_bundle
from recfast.core import RatingsError, RecfastError
from recfast.data.loaders import CollabDataLoaders
from recfast.learner import collab_learner
from recfast.losses import MultinomialLoss, loss_spec, make_loss
from recfast.models.autorec import AutoRec
from recfast.models.base import evaluating
from recfast.models.vae import MultVAE, MultVAELoss
from recfast.train import train_table

def clicks(n_users=60, n_items=30, n=8):
    "Choices by three tastes"
    return taste_clicks(n_users, n_items, n, tastes=3, strength=1.5, popular=0).sort_index().assign(rating=1.)

DF = clicks()

def learner(df=DF, by='user', bs=16, valid_pct=0, config=None, **kwargs):
    dls = CollabDataLoaders.rows_from_df(df, by, bs=bs, seed=1, valid_pct=valid_pct)
    return collab_learner(dls, 6, arch=MultVAE, seed=2, config={'hidden': 12, **(config or {})}, **kwargs)

def of_ones(items, n_items):
    x = torch.zeros(1, n_items)
    x[0,items] = 1
    return x

def test_scores_and_loss_are_those_of_the_formulas():
    learn = fit(learner(), 2, 1e-2)
    model,loss = learn.model,learn.loss_func
    a,b,c,d = model.encoder[0],model.encoder[2],model.decoder[0],model.decoder[2]
    x = model._rows().dense(torch.arange(1, 9)).double()
    W = lambda layer, h: h@layer.weight.double().T+layer.bias.double()
    mean,logvar = W(b, torch.tanh(W(a, x/x.square().sum(1, keepdim=True).sqrt()))).chunk(2, 1)
    s = W(d, torch.tanh(W(c, mean)))
    with evaluating(model):
        torch.testing.assert_close(model.score_items(torch.arange(1, 9)).double(), s, rtol=1e-4, atol=1e-5)
        got = loss(model(x.float()), torch.where(x>0, x, torch.nan).float())
    kl = torch.distributions.kl_divergence(torch.distributions.Normal(mean, (logvar/2).exp()), torch.distributions.Normal(0., 1.)).sum(1)
    nll = -(x[:,1:]*s[:,1:].log_softmax(1)).sum(1)
    beta = .2*8/(20*4) # two epochs of four batches; it rises over twenty epochs
    torch.testing.assert_close(got.double(), (nll+beta*kl).mean(), rtol=1e-4, atol=1e-5)

def test_the_weight_rises_by_batch_to_its_cap_and_is_saved(tmp_path):
    learn = learner(loss_func=MultVAELoss(beta=.4, anneal=3))
    assert learn.loss_func.beta_now()==0
    seen = []
    for _ in range(4): seen.append(fit(learn, 1).loss_func.beta_now())
    assert seen==pytest.approx([.4/3,.8/3,.4,.4]) and learn.model.steps.item()==16
    learn.validate(dl=learn.dls.train)
    learn.recommend(k=3)
    assert learn.model.steps.item()==16 # what is asked is no training
    learn.path = tmp_path
    learn.save('m')
    other = learner(loss_func=MultVAELoss(beta=.4, anneal=3))
    other.path = tmp_path
    assert other.load('m').loss_func.beta_now()==pytest.approx(.4)

def test_without_annealing_the_weight_is_there_from_the_start():
    assert learner(loss_func=MultVAELoss(beta=.3, anneal=0)).loss_func.beta_now()==pytest.approx(.3)

def test_a_step_of_training_draws_a_point_and_takes_clicks_away():
    model = learner(config=dict(dropout=.5)).model
    x = model._rows().dense(torch.arange(1, 40))
    torch.manual_seed(0)
    assert not torch.equal(model.train()(x), model(x))
    assert torch.equal(model.eval()(x), model(x))
    torch.manual_seed(0)
    kept = model.drop.train()(F.normalize(x))
    assert 0<(kept>0).sum()<(x>0).sum()

def test_it_beats_popularity_on_tastes():
    learn = fit(learner(clicks(300, 30, 8), valid_pct=.2, bs=32), 30, 5e-3)
    ev = learn.evaluate(k=5, metrics='ndcg@5')
    assert ev.summary['ndcg@5']>1.2*ev.baseline.summary['ndcg@5']

def test_a_history_of_a_trained_user_gets_the_scores_of_that_user():
    learn = fit(learner(), 2, 1e-2)
    mine = DF[DF.user_id==7].item_id.tolist()
    a,b = learn.recommend(7, k=5),learn.recommend(history=mine, k=5)
    assert a.item_id.tolist()==b.item_id.tolist()
    np.testing.assert_allclose(a.score, b.score, rtol=1e-5)
    assert (learn.recommend(history=mine[::-1], k=5).item_id==b.item_id).all()

def test_a_bundle_answers_as_the_learner(tmp_path):
    learn = fit(learner(), 2, 1e-2)
    rec = load_bundle(learn.save_bundle(tmp_path/'b'))
    for kw in (dict(user_ids=[3,9]), dict(history=[1,2])):
        pd.testing.assert_frame_equal(learn.recommend(k=5, **kw), rec.recommend(k=5, **kw))
    assert rec.similar_items(3, k=3).item_id.tolist()==learn.similar_items(3, k=3).item_id.tolist()

def test_the_loss_is_kept_by_its_name():
    again = make_loss(loss_spec(MultVAELoss(beta=.1, anneal=5)))
    assert type(again) is MultVAELoss and (again.beta,again.anneal)==(.1,5)

def test_rows_and_clouds_are_in_no_copy():
    model = fit(learner(), 1).model
    assert model.kl is not None and copy.deepcopy(model).seen is None and copy.deepcopy(model).kl is None

def test_it_trains_under_the_loss_of_clicks_alone_too():
    learn = fit(learner(loss_func=MultinomialLoss()), 3, 1e-2)
    assert learn.recorder.values[-1][0]<learn.recorder.values[0][0]

def test_what_does_not_fit_is_refused():
    with pytest.raises(RatingsError, match='needs rows of users'): learner(by='item')
    with pytest.raises(TypeError, match='MultVAELoss is for MultVAE, got a AutoRec'):
        collab_learner(CollabDataLoaders.rows_from_df(DF, 'user', bs=16), 4, arch=AutoRec, loss_func=MultVAELoss())
    with pytest.raises(RecfastError, match='score the batch first'): MultVAELoss()(torch.zeros(2,4), torch.ones(2,4))
    with pytest.raises(ValueError, match='anneal=-1'): MultVAELoss(anneal=-1)

def test_a_table_trains_it_by_users(): assert train_table(DF, arch='multvae', n_epoch=1).learn.dls.train.by=='user'
