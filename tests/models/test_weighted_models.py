"Every model and every loss on rows with weights, against the formula written out densely"
import copy
import pickle

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from fastai.learner import Learner
from fastai.losses import BCEWithLogitsLossFlat, L1LossFlat, MSELossFlat
from torch import nn

from helpers import fit, without_progress
from recfast.bundle import load_bundle
from recfast.core import RatingsError
from recfast.data.loaders import CollabDataLoaders
from recfast.learner import collab_learner
from recfast.losses import BCE, BPRLoss, ClassLoss, CosineContrastiveLoss, MultinomialLoss, RMSELoss, SampledSoftmaxLoss, SoftmaxLoss
from recfast.metrics import rmse
from recfast.models.autorec import AutoRec
from recfast.models.dot import DotProduct, DotProductBias
from recfast.models.ials import IALS
from recfast.models.knn import ItemKNN
from recfast.models.linear import EASE, Popularity

rng = np.random.default_rng(0)
N = 500
LOG = pd.DataFrame(dict(user_id=rng.integers(0, 25, N), item_id=rng.integers(0, 15, N), kind=rng.choice(['view','cart','buy'], N),
    rating=rng.integers(1, 6, N)*1., w=np.where(rng.random(N)<.1, 0, rng.random(N)*4)))
ONCE = LOG.drop_duplicates(['user_id','item_id'], ignore_index=True)
WORTH = dict(view=0, cart=3, buy=8)

def clicks(df=LOG, **kwargs): return CollabDataLoaders.implicit_from_df(df, **{'seed': 3, 'bs': 32, 'weight_name': 'w', **kwargs})
def stars(df=LOG, **kwargs): return CollabDataLoaders.from_df(df, **{'seed': 3, 'bs': 32, 'weight_name': 'w', **kwargs})

def dense(rows):
    "(sum of weights, was the pair there) [U,I] float64"
    X,there = np.zeros((rows.n_users,rows.n_items)),np.zeros((rows.n_users,rows.n_items), bool)
    for (u,i),w in zip(rows.pairs().tolist(), rows.weights.double().tolist()):
        X[u,i] += w
        there[u,i] = True
    return torch.from_numpy(X),torch.from_numpy(there)

def solved(arch, dls, n=1, **config):
    torch.manual_seed(0)
    model = arch(n_users=dls.train_ds.n_users, n_items=dls.train_ds.n_items, n_factors=4, **config)
    model.solve(dls.train_ds, n)
    return model

# models that are solved

BUILDS = [dict(), dict(duplicates='sum'), dict(event_name='kind', event_weights=WORTH), dict(valid_pct=0)]

@pytest.mark.parametrize('how', BUILDS)
def test_popularity_is_the_sum_of_weights(how):
    dls = clicks(**how)
    X,_ = dense(dls.train_ds)
    torch.testing.assert_close(solved(Popularity, dls).counts.double(), X.sum(0), rtol=1e-5, atol=1e-5)

@pytest.mark.parametrize('how', BUILDS)
def test_ease_of_weights(how):
    dls = clicks(**how)
    X,_ = dense(dls.train_ds)
    P = torch.linalg.inv(X.T@X+20*torch.eye(X.shape[1]).double())
    B = -P/P.diagonal()
    B.fill_diagonal_(0)
    model = solved(EASE, dls, l2=20.)
    users = torch.arange(len(X))
    torch.testing.assert_close(model.score_items(users).double(), X@B, rtol=1e-5, atol=1e-5)
    pairs = torch.cartesian_prod(users, torch.arange(X.shape[1]))
    torch.testing.assert_close(model(pairs).view(X.shape).double(), X@B, rtol=1e-5, atol=1e-5)

@pytest.mark.parametrize('shrink', [0.,3.])
@pytest.mark.parametrize('how', BUILDS)
def test_neighbours_of_weights(how, shrink):
    dls = clicks(**how)
    X,_ = dense(dls.train_ds)
    length = X.square().sum(0).sqrt()
    S = (X.T@X)/torch.outer(length, length).clamp(min=1e-30)
    if shrink:
        met = (X>0).double()
        together = met.T@met
        S = S*together/(together+shrink)
    S.fill_diagonal_(0)
    model = solved(ItemKNN, dls, shrink=shrink)
    torch.testing.assert_close(model.score_items(torch.arange(len(X))).double(), X@S, rtol=1e-5, atol=1e-5)

def test_bm25_of_weights():
    dls = clicks()
    X,_ = dense(dls.train_ds)
    met = X>0
    n_items = int(met.any(0).sum())
    idf = torch.log(n_items/(1.+met.sum(1)))
    norm = .25+.75*X.sum(0)/(X.sum()/n_items)
    W = torch.where(met, X*2.2/(1.2*norm+X)*idf[:,None], 0)
    S = W.T@W
    S.fill_diagonal_(0)
    model = solved(ItemKNN, dls, weighting='bm25')
    torch.testing.assert_close(model.score_items(torch.arange(len(X))).double(), X@S.clamp(min=0), rtol=1e-4, atol=1e-4)

def ials_loss(P, Q, X, there, alpha, l2, nu):
    "The formula over all cells: an observed pair weighs w, another alpha"
    some = there.any(1),there.any(0)
    C = torch.where(there, X, alpha)
    cells = C[some[0]][:,some[1]]
    gap = there[some[0]][:,some[1]].double()-P[some[0]]@Q[some[1]].T
    reg = sum((C[:,some[1]].sum(1)[some[0]]**nu*P[some[0]].square().sum(1)).sum() if side==0 else
        (C[some[0]].sum(0)[some[1]]**nu*Q[some[1]].square().sum(1)).sum() for side in (0,1))
    return (cells*gap**2).sum()+l2*reg

@pytest.mark.parametrize('cg_steps', [None,25])
@pytest.mark.parametrize('nu', [0.,1.])
@pytest.mark.parametrize('how', BUILDS)
def test_ials_of_weights_is_at_the_minimum_of_its_formula(how, nu, cg_steps):
    dls = clicks(**how)
    X,there = dense(dls.train_ds)
    model = solved(IALS, dls, 3, nu=nu, cg_steps=cg_steps, l2=.05, alpha=.1)
    P,Q = (o.double().requires_grad_() for o in (model.user_factors,model.item_factors))
    loss = ials_loss(P, Q, X, there, .1, .05, nu)
    assert model.loss(dls.train_ds)==pytest.approx(loss.item(), rel=1e-5)
    grad, = torch.autograd.grad(loss, Q) # items were solved for last, given the users
    assert grad.abs().max()<1e-4*max(1, X.sum(0).max())
    before,_ = torch.autograd.grad(ials_loss(P, Q*1.1, X, there, .1, .05, nu), (P,Q), allow_unused=True)
    assert before.abs().max()>1e-2

def test_ials_of_ones_is_ials():
    a,b = (solved(IALS, clicks(ONCE.assign(w=1.), **how), 4) for how in (dict(),dict(weight_name=None)))
    torch.testing.assert_close(a.score_items(torch.arange(20)), b.score_items(torch.arange(20)), rtol=1e-4, atol=1e-5)

@pytest.mark.parametrize('arch', [EASE,ItemKNN])
def test_ratings_and_weights_are_two_things(arch):
    with pytest.raises(ValueError, match='X is one of both'): collab_learner(stars(), arch=arch, config=dict(use_ratings=True))
    assert collab_learner(stars(), arch=arch).model._seen.sum()==pytest.approx(float(stars().train_ds.weights.sum()), rel=1e-4)

# losses: the value and the gradient of the weighted mean of what each row costs

def mean_by_hand(rows, w): return (w*rows).sum()/w.sum()

FLAT = { # loss, what a row costs under it
    'mse': (MSELossFlat(),lambda p,y: (p-y)**2),
    'l1': (L1LossFlat(),lambda p,y: (p-y).abs()),
    'torch': (nn.SmoothL1Loss(),lambda p,y: F.smooth_l1_loss(p, y, reduction='none')),
    'function': (F.mse_loss,lambda p,y: (p-y)**2),
    'bce': (BCE(),lambda p,y: -torch.where(y>.5, F.logsigmoid(p), F.logsigmoid(-p))),
    'bce of fastai': (BCEWithLogitsLossFlat(),lambda p,y: -torch.where(y>.5, F.logsigmoid(p), F.logsigmoid(-p))),
}

def first_gradient(learn):
    "(loss, gradient of the first parameter) of the first batch, in fastai's own loop, and that batch"
    learn.dl = learn.dls.train
    b = learn.dls.train.one_batch()
    learn.create_opt()
    learn._split(b)
    learn.training = True
    learn.pred = learn.model(*learn.xb)
    loss = learn._batch_loss()
    grad, = torch.autograd.grad(loss, [next(learn.model.parameters())])
    return loss,grad,b

@pytest.mark.parametrize('name', FLAT)
def test_flat_losses(name):
    loss,row = FLAT[name]
    dls = clicks() if 'bce' in name else stars()
    learn = collab_learner(dls, 4, loss_func=loss)
    got,grad,(x,y,w) = first_gradient(learn)
    want = mean_by_hand(row(learn.model(x).view(-1), y.view(-1)), w.view(-1))
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(grad, torch.autograd.grad(want, [next(learn.model.parameters())])[0])
    assert got!=loss(learn.model(x), y)

def test_the_root_is_taken_of_the_weighted_mean():
    learn = collab_learner(stars(), 4, y_range=(0,5.5), loss_func=RMSELoss())
    got,_,(x,y,w) = first_gradient(learn)
    torch.testing.assert_close(got, mean_by_hand((learn.model(x)-y)**2, w).sqrt())

def test_classes():
    from recfast.models.ncf import NeuMF
    learn = collab_learner(stars(), 4, arch=NeuMF, config=dict(n_out=5), loss_func=ClassLoss(low=1))
    got,_,(x,y,w) = first_gradient(learn)
    logp = learn.model(x).view(len(x), 5).log_softmax(1)
    torch.testing.assert_close(got, mean_by_hand(-logp.gather(1, y.long()-1)[:,0], w.view(-1)))

def each(s): return s[:,:1],s[:,1:]

BLOCKS = {
    'bpr': (BPRLoss(),4,lambda s,x,m: -F.logsigmoid(each(s)[0]-each(s)[1]).mean(1)),
    'contrastive': (CosineContrastiveLoss(),4,lambda s,x,m: 1-s[:,0]+10*F.relu(s[:,1:]-.4).mean(1)),
    'sampled': (SampledSoftmaxLoss(log_q=False),4,
        lambda s,x,m: -torch.where(x[...,1]==x[:,:1,1], s.new_tensor([0.]+[-torch.inf]*4), 0).add(s).log_softmax(1)[:,0]),
    'softmax': (SoftmaxLoss(),0,lambda s,x,m: -m.score_items(x[:,0,0])[:,1:].log_softmax(1).gather(1, x[:,0,1:]-1)[:,0]),
}

@pytest.mark.parametrize('name', BLOCKS)
def test_a_block_counts_by_the_weight_of_its_positive(name):
    loss,n_neg,block = BLOCKS[name]
    df = LOG.assign(w=LOG.w+.01) # every item has a row that weighs
    dls = clicks(df, n_neg=n_neg, valid_pct=0)
    learn = collab_learner(dls, 4, arch=DotProduct, config=dict(cosine=name=='contrastive'), loss_func=loss)
    got,grad,(x,y,w) = first_gradient(learn)
    x,w = x.view(-1, 1+n_neg, 2),w.view(-1, 1+n_neg)[:,0]
    s = learn.model(x.view(-1, 2)).view(-1, 1+n_neg)
    want = mean_by_hand(block(s, x, learn.model), w)
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(grad, torch.autograd.grad(want, [next(learn.model.parameters())])[0], rtol=1e-4, atol=1e-6)

def test_untrained_items_of_a_softmax_are_those_that_weigh_nothing():
    dls = clicks(LOG.assign(w=(LOG.item_id!=4)*1.), n_neg=0, valid_pct=0)
    learn = collab_learner(dls, 4, arch=DotProduct, loss_func=SoftmaxLoss())
    assert not learn.loss_func.trained[dls.train_ds.item_vocab.encode([4])[0]] and learn.loss_func.trained.sum()==14

def test_an_item_that_weighs_nothing_is_no_negative():
    dls = clicks(LOG.assign(w=(LOG.item_id!=4)*1.), n_neg=3, valid_pct=0)
    row = dls.train_ds.item_vocab.encode([4])[0]
    assert all((x[:,1]!=row).all() for x,*_ in dls.train)

def test_whole_rows_weigh_by_cell():
    df = ONCE.assign(w=ONCE.w+.1)
    dls = CollabDataLoaders.rows_from_df(df, 'user', bs=8, seed=0, weight_name='w', valid_pct=0)
    learn = collab_learner(dls, 4, arch=AutoRec)
    got,_,(x,y,w) = first_gradient(learn)
    pred,known = learn.model(x),~y.isnan()
    assert w.shape==y.shape and ((w>0)==known).all()
    torch.testing.assert_close(got, mean_by_hand((pred-y)[known]**2, w[known]))

@pytest.mark.parametrize('by', ['user','item'])
@pytest.mark.parametrize('n_classes', [None,5])
def test_a_pass_over_whole_rows_has_each_once(by, n_classes):
    dls = CollabDataLoaders.rows_from_df(LOG, by, bs=4, seed=0, weight_name='w')
    n = [len(x) for x,y,w in dls.train]
    assert sum(n)==LOG[f'{by}_id'].nunique() and all(((w>0)<=~y.isnan()).all() for _,y,w in dls.train)
    learn = fit(collab_learner(dls, 4, arch=AutoRec, config=dict(n_classes=n_classes) if n_classes else None), 1)
    assert np.isfinite(list(learn.recorder.values[-1])).all()

def test_a_multinomial_counts_a_click_by_its_weight():
    df = ONCE.assign(w=ONCE.w+.1, rating=1.)
    dls = CollabDataLoaders.rows_from_df(df, 'user', bs=8, seed=0, weight_name='w', valid_pct=0)
    learn = collab_learner(dls, 4, arch=AutoRec, loss_func=MultinomialLoss())
    got,_,(x,y,w) = first_gradient(learn)
    logp = learn.model(x)[:,1:].log_softmax(1)
    torch.testing.assert_close(got, -(w[:,1:]*logp).sum(1).mean())

def test_a_loss_of_one_number_says_what_it_lacks():
    def mine(pred, y): return (pred-y).abs().mean()
    learn = collab_learner(stars(), 4, loss_func=mine)
    with pytest.raises(TypeError, match='mine gives one number for a batch'): fit(learn, 1)
    assert fit(collab_learner(stars(weight_name=None), 4, loss_func=mine), 1).recorder.values

def test_nothing_that_weighs_is_no_loss():
    learn = collab_learner(stars(), 4)
    pred = torch.ones(3, 1, requires_grad=True)
    learn.pred,learn.yb,learn.wb = pred,(torch.zeros(3, 1),),(torch.zeros(3, 1),)
    learn._batch_loss().backward()
    assert not pred.grad.any()

# training

@pytest.mark.parametrize('loss,n_neg', [(None,3), (BPRLoss(),3), (SoftmaxLoss(),0)])
def test_both_loops_are_one(loss, n_neg):
    a,b = (without_progress(collab_learner(clicks(n_neg=n_neg), 4, arch=DotProduct, loss_func=copy.copy(loss), seed=0)) for _ in range(2))
    a.fit(2, 1e-2, fast=False)
    b.fit(2, 1e-2, fast='exact')
    assert b.fast and not a.fast
    for p,q in zip(a.model.parameters(), b.model.parameters()): torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-5)
    assert list(a.recorder.values[-1])==pytest.approx(list(b.recorder.values[-1]), rel=1e-4)

@pytest.mark.parametrize('w', [1.,.25,7.])
def test_equal_weights_train_as_none_do(w):
    a,b = (fit(collab_learner(stars(LOG.assign(w=w), **how), 4, y_range=(0,5.5), seed=0), 2, 1e-2) for how in (dict(),dict(weight_name=None)))
    for p,q in zip(a.model.parameters(), b.model.parameters()): torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-5)

def test_a_weight_of_two_is_a_row_that_stands_twice():
    "Of a whole table as one batch"
    two = LOG.assign(w=1.+LOG.index%2)
    often = two.loc[two.index.repeat(two.w.astype(int))]
    a = fit(collab_learner(stars(two, bs=N, valid_pct=0, vocab='all'), 4, y_range=(0,5.5), seed=0), 3, 1e-2)
    b = fit(collab_learner(stars(often, bs=len(often), valid_pct=0, weight_name=None), 4, y_range=(0,5.5), seed=0), 3, 1e-2)
    for p,q in zip(a.model.parameters(), b.model.parameters()): torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-5)

def test_what_weighs_nothing_teaches_nothing():
    wrong = LOG.assign(w=(LOG.index%3>0)*1., rating=np.where(LOG.index%3>0, LOG.rating, 1))
    dls = [stars(df, valid_pct=0, shuffle=False, bs=32, vocab='all') for df in (wrong,wrong.assign(rating=np.where(wrong.w>0, wrong.rating, 5)))]
    a,b = (fit(collab_learner(o, 4, y_range=(0,5.5), seed=0), 2, 1e-2) for o in dls)
    assert all(torch.equal(p, q) for p,q in zip(a.model.parameters(), b.model.parameters()))

@pytest.mark.parametrize('bs', [32,1000])
def test_the_validation_loss_is_the_mean_by_weight_and_metrics_count_rows(bs):
    learn = fit(collab_learner(stars(val_bs=bs), 4, y_range=(0,5.5), metrics=rmse), 1)
    rows = learn.dls.valid_ds
    pred,y = learn.get_preds()
    assert pred.shape==y.shape==(len(rows),1) and torch.equal(y.view(-1), rows.values)
    square = (pred-y).view(-1)**2
    assert list(learn.recorder.values[-1])==pytest.approx([mean_by_hand(square, rows.weights).item(),square.mean().sqrt().item()], rel=1e-5)
    assert learn.get_preds(with_loss=True)[2].tolist()==pytest.approx(square.tolist(), rel=1e-4, abs=1e-6)
    assert learn.get_preds(ds_idx=0)[0].shape==(len(learn.dls.train_ds),1)

def test_fastais_own_learner_takes_no_weights_in_silence():
    with pytest.raises(TypeError):
        learn = Learner(stars(), DotProductBias(26, 16, 4), loss_func=MSELossFlat())
        fit(learn, 1)

def test_callbacks_that_work_on_batches_run_the_plain_loop():
    from fastai.callback.core import Callback
    class Look(Callback):
        n = 0
        def after_loss(self): self.n += len(self.learn.wb)
    look = Look()
    learn = fit(collab_learner(stars(), 4, cbs=look), 1)
    assert look.n==len(learn.dls.train)+len(learn.dls.valid) and not learn.fast

def test_loaders_can_be_exchanged():
    learn = fit(collab_learner(stars(), 4, y_range=(0,5.5)), 1)
    learn.dls = stars(weight_name=None)
    assert fit(learn, 1).wb==()

# what goes along

@pytest.mark.parametrize('arch', [None,EASE,ItemKNN,IALS,Popularity])
def test_a_bundle_keeps_weights_and_kinds(arch, tmp_path):
    learn = fit(collab_learner(clicks(event_name='kind', event_weights=WORTH, half_life=None, duplicates='sum'), 4, arch=arch), 1)
    learn.save_bundle(tmp_path/'b')
    rec = load_bundle(tmp_path/'b')
    rows,own = rec.train,learn.dls.train_ds
    assert torch.equal(rows.weights, own.weights) and rows.weighing.words==own.weighing.words
    assert len(rec.seen.of_events('buy'))==len(learn.dls.interactions().of_events('buy'))
    a,b = (o.recommend([1,2,3], k=5) for o in (learn,rec))
    assert a.item_id.tolist()==b.item_id.tolist() and a.score.tolist()==pytest.approx(b.score.tolist(), rel=1e-5, abs=1e-6)
    rec.save_bundle(tmp_path/'again')
    assert load_bundle(tmp_path/'again').train.weighing==rows.weighing

def test_loaders_and_learners_are_pickled(tmp_path):
    dls = pickle.loads(pickle.dumps(clicks(event_name='kind', event_weights=WORTH)))
    assert len(dls.one_batch())==3 and dls.train_ds.weighing.words=='rows weighed by w, by kind (view 0, cart 3, buy 8)'
    learn = fit(collab_learner(dls, 4), 1)
    learn.export(tmp_path/'learn.pkl')

def test_the_protocol_names_them():
    learn = fit(collab_learner(clicks(event_name='kind', event_weights=WORTH), 4, arch=EASE), 1)
    ev = learn.evaluate(k=5)
    assert 'trained on rows weighed by w, by kind (view 0, cart 3, buy 8); test rows count alike' in ev.protocol
    assert 'weighed' not in fit(collab_learner(clicks(weight_name=None), arch=EASE), 1).evaluate(k=5).protocol

def test_who_is_skipped_is_counted_whatever_test_rows_weigh():
    "People whose rows weigh nothing anywhere are unknown, and their test rows are rows"
    dls = clicks(LOG.assign(w=(LOG.user_id>4)*1.))
    ev = fit(collab_learner(dls, arch=EASE), 1).evaluate(k=5)
    rows = dls.valid_ds.frame()
    assert ev.counts['skipped_users']==rows.user_id[rows.user_id<5].nunique()>0 and ev.counts['cold_user_rows']==(rows.user_id<5).sum()

def test_the_popularity_beside_an_evaluation_is_that_of_the_model():
    dls = clicks()
    a = fit(collab_learner(dls, arch=EASE), 1).evaluate(k=5)
    b = fit(collab_learner(dls, arch=Popularity), 1).evaluate(k=5)
    assert a.baseline.summary==pytest.approx(b.summary)

def test_seen_is_every_row_whatever_it_weighs():
    dls = clicks(event_name='kind', event_weights=WORTH, valid_pct=0)
    learn = fit(collab_learner(dls, arch=EASE), 1)
    user = LOG.user_id[0]
    met = set(LOG[LOG.user_id==user].item_id)
    assert not met & set(learn.recommend(user, k=15).item_id)

def test_a_batch_size_beyond_what_weighs():
    with pytest.raises(RatingsError, match='training rows: no full batch'): stars(LOG.assign(w=(LOG.index<10)*1.))

@pytest.mark.parametrize('arch', [EASE,ItemKNN])
def test_explanations_add_up_by_weight(arch, tmp_path):
    learn = fit(collab_learner(clicks(event_name='kind', event_weights=dict(view=1, cart=3, buy=8)), arch=arch), 1)
    learn.save_bundle(tmp_path/'b')
    for who in (learn,load_bundle(tmp_path/'b')):
        top = who.recommend(LOG.user_id[0], k=3)
        why = who.explain(LOG.user_id[0], top.item_id)
        assert why.because_item_id.notna().all() # nothing is left over
        assert why.groupby('item_id').contribution.sum()[top.item_id].tolist()==pytest.approx(top.score.tolist(), rel=1e-4)

def test_explanations_of_ials_go_by_weight(tmp_path):
    "The row of who is asked about, solved for densely, with what their rows weigh"
    dls = clicks(event_name='kind', event_weights=dict(view=1, cart=3, buy=8))
    learn = fit(collab_learner(dls, 4, arch=IALS, config=dict(cg_steps=None, l2=.05, alpha=.1)), 3)
    learn.save_bundle(tmp_path/'b')
    user,(X,there) = LOG.user_id[0],dense(dls.train_ds)
    row,Q = int(dls.train_ds.user_vocab.encode([user])[0]),learn.model.item_factors.double()
    w,met = X[row],there[row]
    n_items = int(there.any(0).sum())
    A = Q.T@((torch.where(met, w, .1))[:,None]*Q)+.05*(w.sum()+.1*(n_items-met.sum()))*torch.eye(4).double()
    scores = Q@torch.linalg.solve(A, Q.T@w)
    for who in (learn,load_bundle(tmp_path/'b')):
        top = who.recommend(user, k=3)
        why = who.explain(user, top.item_id)
        told = why[why.because_item_id.notna()].groupby('item_id').contribution.sum()[top.item_id]
        assert told.tolist()==pytest.approx(scores[dls.train_ds.item_vocab.encode(top.item_id)].tolist(), rel=1e-4)
        assert why.groupby('item_id').contribution.sum()[top.item_id].tolist()==pytest.approx(top.score.tolist(), rel=1e-4)
    rows = torch.from_numpy(dls.train_ds.item_vocab.encode([1,2]))
    twice = learn.model.contributions(rows[[0,1,0]], torch.tensor([1.,2.,3.]))
    torch.testing.assert_close(twice.sum(0), learn.model.score_history(rows, torch.tensor([4.,2.])), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(twice[2], 3*twice[0])

@pytest.mark.parametrize('arch', [EASE,ItemKNN,IALS,Popularity,None])
def test_somebody_new_is_answered_by_what_was_learned(arch):
    learn = fit(collab_learner(clicks(), 4, arch=arch), 1)
    lists = [learn.recommend(history=h, k=5) for h in ([1,2],pd.DataFrame(dict(item_id=[1,2])),{1: 1, 2: 1})]
    assert all(o.score.tolist()==lists[0].score.tolist() and np.isfinite(o.score).all() for o in lists)

# neighbours

def test_counts_of_a_sparse_matrix_are_weights_when_asked():
    import scipy.sparse as sp
    m = sp.random(30, 20, density=.4, format='csr', random_state=0)
    m.data = np.ceil(m.data*9)
    rows = CollabDataLoaders.from_csr(m, weight_name='rating', valid_pct=0, bs=16).train_ds
    assert rows.weights.sum()==m.sum() and set(rows.values.tolist())=={1.}
    assert CollabDataLoaders.from_csr(m, valid_pct=0, bs=16).train_ds.weights is None

@pytest.mark.parametrize('n_neg', [0,2])
def test_labels_have_weights(n_neg):
    df = ONCE.assign(y=(ONCE.index%2)*1., w=ONCE.w+.1)
    blocks = dict(blocks=True, n_neg=n_neg) if n_neg else {}
    dls = CollabDataLoaders.implicit_from_df(df, label_name='y', weight_name='w', valid_pct=0, seed=0, bs=16, **blocks)
    of = {tuple(o): w for o,w in zip(dls.interactions('all').pairs().tolist(), dls.interactions('all').weights.tolist())}
    for x,y,w in dls.train:
        for pair,label,weight in zip(x.tolist(), y.view(-1).tolist(), w.view(-1).tolist()):
            if label: assert of[tuple(pair)]==weight
    assert np.isfinite(list(fit(collab_learner(dls, 4), 1).recorder.values[-1])[0])

def test_ratings_below_a_threshold_are_seen_and_weigh_nothing_in_training():
    dls = clicks(ONCE.assign(w=ONCE.w+.1), threshold=4, valid_pct=0)
    assert len(dls.train_ds)==(ONCE.rating>=4).sum() and len(dls.interactions())==len(ONCE)
    assert dls.train_ds.weights.sum()==pytest.approx((ONCE.w+.1)[ONCE.rating>=4].sum(), rel=1e-5)

def test_only_some_kinds_count_as_seen():
    learn = fit(collab_learner(clicks(event_name='kind', event_weights=dict(view=1, cart=3, buy=8), valid_pct=0), arch=EASE), 1)
    user = LOG.user_id[0]
    own = LOG[LOG.user_id==user]
    bought,met = set(own[own.kind=='buy'].item_id),set(own.item_id)
    listed = set(learn.recommend(user, k=15, exclude_seen={'buy'}).item_id)
    assert not listed & bought and listed & (met-bought)

@pytest.mark.parametrize('frame', ['polars','pyarrow'])
def test_frames_of_others(frame):
    other = pytest.importorskip(frame)
    df = other.from_pandas(LOG) if frame=='polars' else other.Table.from_pandas(LOG)
    args = dict(event_name='kind', event_weights=WORTH, duplicates='sum')
    assert clicks(df, **args).train_ds.weights.tolist()==clicks(**args).train_ds.weights.tolist()

def test_fastai_asks_for_results_rates_and_losses():
    from fastai.interpret import Interpretation
    learn = fit(collab_learner(stars(), 4, y_range=(0,5.5)), 1)
    learn.show_results(max_n=2)
    with learn.no_bar():
        learn.lr_find(show_plot=False)
        assert len(Interpretation.from_learner(learn).top_losses(3)[0])==3

# the shell

def test_the_shell_weighs_as_python_does(tmp_path):
    from typer.testing import CliRunner

    from recfast.cli import app
    dated = LOG.drop(columns='rating').assign(timestamp=pd.Timestamp('2024-01-01')+pd.to_timedelta(LOG.index, 'h'))
    dated.to_csv(tmp_path/'log.csv', index=False)
    args = ['train', tmp_path/'log.csv', '--out', tmp_path/'b', '--arch', 'ease', '--weight-name', 'w', '--event-name', 'kind']
    args += ['--event-weights', 'view=0,cart=3,buy=8', '--half-life', '5d']
    res = CliRunner().invoke(app, [str(o) for o in args])
    assert res.exit_code==0 and 'rows weighed by w, by kind (view 0, cart 3, buy 8), half-life 5d' in ' '.join(res.output.split())
    told = CliRunner().invoke(app, ['info', str(tmp_path/'b')]).output
    assert 'rows weighed by w' in ' '.join(told.split())
    own = clicks(dated, seed=42, event_name='kind', event_weights=WORTH, half_life='5d')
    assert load_bundle(tmp_path/'b').train.weights.tolist()==own.train_ds.weights.tolist()
    for flag,said in (('view=1','without a weight'), ('view','expected kind=weight'), ('view=1,view=2','each once')):
        res = CliRunner().invoke(app, [str(o) for o in [*args[:10], '--event-weights', flag]])
        assert res.exit_code and said in ' '.join(res.output.split()), res.output
