"Losses by hand, flat whatever the shape, and the number that get_preds shows"
import math

import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from fastai.learner import Learner
from hypothesis import given, settings, strategies as st

from helpers import fit_one_cycle
from recfast.core import RatingsError, RecfastError
from recfast.data.implicit import ImplicitDL  # noqa: F401 (patches implicit_from_df)
from recfast.data.loaders import CollabDataLoaders
from recfast.learner import collab_learner
from recfast.losses import (BCE, BPRLoss, ClassLoss, CosineContrastiveLoss, FlatLoss, MultinomialLoss, RMSELoss, SampledSoftmaxLoss, SoftmaxLoss,
    block_width, expected_rating)
from recfast.models.dot import DotProduct
from recfast.models.ncf import GMF
from recfast.testing import synth_ratings

every_flat = pytest.mark.parametrize('loss', [BCE(), BCE((0,1)), RMSELoss()], ids=['logits','probabilities','rmse'])
OUT,Y = torch.tensor([.2,.9,.4]),torch.tensor([0.,1.,1.])

@every_flat
@pytest.mark.parametrize('shape', [(3,),(3,1)])
def test_a_target_of_b_by_1_meets_predictions_of_either_shape(loss, shape):
    torch.testing.assert_close(loss(OUT.view(shape), Y[:,None]), loss(OUT, Y))

@every_flat
def test_one_number_per_row(loss):
    rows = loss(OUT, Y)
    loss.reduction = 'none'
    try: assert loss(OUT, Y[:,None]).shape==(3,) and rows.ndim==0
    finally: loss.reduction = 'mean'

def test_cross_entropy_of_probabilities_by_hand():  # -(log .8 + log .9 + log .4)/3
    assert BCE(y_range=(0,1))(OUT, Y).item()==pytest.approx(-(math.log(.8)+math.log(.9)+math.log(.4))/3, abs=1e-6)

def test_cross_entropy_of_logits_is_that_of_their_sigmoid():
    torch.testing.assert_close(BCE()(OUT, Y), BCE(y_range=(0,1))(torch.sigmoid(OUT), Y))

def test_cross_entropy_of_large_logits_is_exact(): assert BCE()(torch.tensor([-200.]), torch.tensor([1.])).item()==200

def test_cross_entropy_of_stars():
    with pytest.raises(ValueError, match=r'y_range=\(0, 5.5\): cross-entropy needs probabilities'): BCE((0,5.5))

def test_rmse_by_hand():  # sqrt((.04+.01+.36)/3)
    assert RMSELoss()(OUT, Y).item()==pytest.approx(math.sqrt(.41/3), abs=1e-6)

def test_rmse_of_a_perfect_fit_has_a_finite_gradient():
    out = torch.ones(4, 1, requires_grad=True)
    RMSELoss()(out, torch.ones(4, 1)).backward()
    assert torch.equal(out.grad, torch.zeros(4, 1))

def test_six_classes_by_hand():  # uniform logits: log 6, and a mean of 2.5
    out = torch.zeros(2, 6)
    assert ClassLoss()(out, torch.tensor([[0.],[5.]])).item()==pytest.approx(math.log(6), abs=1e-6)
    assert ClassLoss().activation(out).tolist()==[[2.5],[2.5]]

def test_classes_that_start_at_one_star():
    logits = torch.tensor([[0.,0.,0.,0.,50.]])
    assert ClassLoss(low=1)(logits, torch.tensor([5.])).item()<1e-6 and expected_rating(logits, 1).item()==pytest.approx(5)

def test_a_rating_that_is_no_class():
    with pytest.raises(ValueError, match='5.5'): ClassLoss()(torch.zeros(2, 6), torch.tensor([1.,5.5]))

def test_a_rating_above_the_classes():
    with pytest.raises(ValueError, match='0 to 4'): ClassLoss()(torch.zeros(2, 5), torch.tensor([1.,5.]))

def stars(): return synth_ratings().assign(rating=lambda d: d.rating.round())

@pytest.mark.parametrize('loss,y_range,n_out', [(BCE(),None,1), (BCE((0,1)),(0,1),1), (RMSELoss(),(0,5.5),1), (ClassLoss(),None,6)])
def test_get_preds_equals_predict(loss, y_range, n_out):
    df = stars() if n_out==6 else stars().assign(rating=lambda d: (d.rating>3)*1.)
    dls = CollabDataLoaders.from_df(df, bs=64, seed=1)
    learn = collab_learner(dls, 4, y_range=y_range, arch=GMF, config=dict(n_out=n_out, init=None), loss_func=loss)
    fit_one_cycle(learn)
    with learn.no_bar(): preds = learn.get_preds()[0].flatten()
    valid = dls.valid_ds.frame()
    torch.testing.assert_close(preds.double(), torch.from_numpy(learn.predict(valid.user_id, valid.item_id)), rtol=1e-5, atol=1e-6)

def test_loss_per_row_through_get_preds():
    learn = Learner(CollabDataLoaders.from_df(stars(), bs=64, seed=1), GMF(51, 41, 4, n_out=6), loss_func=ClassLoss())
    with learn.no_bar(): preds,y,loss = learn.get_preds(with_loss=True)
    assert loss.shape==(200,) and loss.mean().item()==pytest.approx(F.cross_entropy(torch.zeros(1,6), torch.tensor([0])).item(), abs=1e-3)

def test_a_loss_that_says_nothing():
    with pytest.raises(NotImplementedError): FlatLoss()(OUT, Y)


def block_y(b, n): return torch.eye(1, 1+n).repeat(b, 1).view(-1, 1)
def blocks(b, n, seed=0): return torch.randn(b*(1+n), 1, generator=torch.Generator().manual_seed(seed)),block_y(b, n)
every_block = pytest.mark.parametrize('loss', [BPRLoss(), CosineContrastiveLoss(margin=-.5)], ids=['bpr','cosine'])

def test_bpr_by_hand():  # -log sigmoid(1), -log sigmoid(-2) for the first positive, -log sigmoid(0) twice for the second
    out = torch.tensor([1.,0.,3.,5.,5.,5.])
    want = (math.log(1+math.exp(-1))+math.log(1+math.exp(2)))/2,math.log(2)
    assert BPRLoss()(out, block_y(2, 2)).item()==pytest.approx(sum(want)/2, abs=1e-6)

@settings(deadline=None)
@given(st.integers(1,5), st.integers(1,6), st.integers(0,99))
def test_bpr_is_the_log_sigmoid_of_every_difference(b, n, seed):
    s,y = blocks(b, n, seed)
    slow = [-math.log(1/(1+math.exp(-(s[i*(1+n)]-s[i*(1+n)+j]).item()))) for i in range(b) for j in range(1, n+1)]
    assert BPRLoss()(s, y).item()==pytest.approx(sum(slow)/len(slow), rel=1e-5)

def test_bpr_of_scores_far_apart_is_finite():
    out = torch.tensor([-500.,500.], requires_grad=True)
    (loss := BPRLoss()(out, block_y(1, 1))).backward()
    assert loss.item()==1000 and out.grad.tolist()==[-1,1]

def test_bpr_does_not_see_what_all_items_of_a_user_share():
    s,y = blocks(3, 4)
    torch.testing.assert_close(BPRLoss()(s+torch.arange(3.).repeat_interleave(5)[:,None], y), BPRLoss()(s, y))

def test_cosine_contrastive_by_hand():  # .1 short of 1; negatives .3 and .1 above a margin of .4, one below: 6*(.3+.1)/3
    out = torch.tensor([.9,.7,.5,-.2])
    assert CosineContrastiveLoss(margin=.4, neg_weight=6)(out, block_y(1, 3)).item()==pytest.approx(.1+6*.4/3, abs=1e-6)

def test_an_easy_negative_has_no_gradient():
    out = torch.tensor([.9,.7,.3], requires_grad=True)
    CosineContrastiveLoss(margin=.4, neg_weight=6)(out, block_y(1, 2)).backward()
    assert out.grad.tolist()==pytest.approx([-1,3,0])

@every_block
def test_every_row_of_a_block_has_the_loss_of_its_block(loss):
    s,y = blocks(3, 4)
    mean,loss.reduction = loss(s, y),'none'
    try: rows = loss(s, y)
    finally: loss.reduction = 'mean'
    assert rows.shape==(15,) and torch.equal(rows, rows.view(3, 5)[:,:1].expand(3, 5).flatten())
    torch.testing.assert_close(rows.mean(), mean)

@every_block
def test_predictions_of_either_shape_and_of_half_precision(loss):
    s,y = blocks(3, 4)
    torch.testing.assert_close(loss(s[:,0], y[:,0]), loss(s, y))
    assert loss(s.bfloat16(), y).dtype==torch.float32

@pytest.mark.parametrize('y,width', [([1,0,0,1,0,0],3), ([1,1],1), ([1],1), ([0,1],0), ([1,0,1,1],0), ([1,0,1,0,0],0), ([1,0,0,1],0), ([4,3],0), ([1,.5],0),
    ([0,0],0), ([1,0,0,0,0,1],0)])
def test_width_of_blocks(y, width): assert block_width(torch.tensor(y).float())==width

@every_block
def test_ratings_are_no_blocks(loss):
    with pytest.raises(RatingsError, match='targets of this batch are 4.0, 3.0: build the loaders with .*n_neg=4'): loss(torch.zeros(2), torch.tensor([4.,3.]))
    with torch.no_grad(): assert loss(torch.zeros(2), torch.tensor([4.,3.])).isnan()

@every_block
def test_several_numbers_per_pair(loss):
    with pytest.raises(ValueError, match='30 predictions for 5 rows'): loss(torch.zeros(5, 6), block_y(1, 4))

def attached(loss, df=None, n_neg=4, **kwargs):
    "A loss, a model with scores of size 1 and its loaders"
    df = pd.DataFrame(dict(user_id=range(5), item_id=range(5))) if df is None else df
    dls = CollabDataLoaders.implicit_from_df(df, n_neg=n_neg, bs=2, valid_pct=0, seed=0, **kwargs)
    torch.manual_seed(0)
    model = DotProduct(dls.n_users, dls.n_items, 4)
    for p in model.parameters(): p.data.normal_()
    loss.attach(model, dls)
    return loss,model,dls

def test_full_softmax_by_hand():  # scores 1, 2 and 3 of the items 1 to 3, and the second chosen
    loss,model,_ = attached(SoftmaxLoss(), pd.DataFrame(dict(user_id=[1,1,1], item_id=[1,2,3])), n_neg=0)
    model.u_weight.weight.data[1],model.i_weight.weight.data = torch.tensor([1.,0,0,0]),torch.tensor([[9.,0,0,0],[1.,0,0,0],[2.,0,0,0],[3.,0,0,0]])
    assert loss(model(torch.tensor([[1,2]])), torch.ones(1, 1)).item()==pytest.approx(math.log(math.e**-1+1+math.e), abs=1e-5)

def test_full_softmax_is_the_cross_entropy_of_all_items():
    loss,model,dls = attached(SoftmaxLoss(temperature=.5), n_neg=0)
    x = torch.stack([dls.train_ds.users,dls.train_ds.items], 1).long()[[0,3,3,1]]
    torch.testing.assert_close(loss(model(x), torch.ones(4, 1)), F.cross_entropy(2*model.score_items(x[:,0])[:,1:], x[:,1]-1))

def test_full_softmax_looks_at_no_negatives():
    (with_neg,model,dls),full = attached(SoftmaxLoss()),SoftmaxLoss()
    x,y = dls.one_batch()
    a = with_neg(model(x), y)
    full.last,full.trained = with_neg.last,with_neg.trained
    torch.testing.assert_close(full(model(x[::5]), torch.ones(2, 1)), a)

def test_an_item_without_a_training_row_takes_no_share():
    loss,model,dls = attached(SoftmaxLoss(), n_neg=0, vocab=dict(item_id=range(9)))
    assert loss.trained.tolist()==[False]+[True]*5+[False]*4
    out = loss(model(x := torch.tensor([[1,1]])), torch.ones(1, 1))
    torch.testing.assert_close(out, F.cross_entropy(model.score_items(x[:,0])[:,1:6], torch.tensor([0])))

def test_an_untrained_positive_comes_beside_the_trained_items():
    loss,model,dls = attached(SoftmaxLoss(), n_neg=0, vocab=dict(item_id=range(9)))
    out = loss(model(x := torch.tensor([[1,7]])), torch.ones(1, 1))
    torch.testing.assert_close(out, F.cross_entropy(model.score_items(x[:,0])[:,[1,2,3,4,5,7]], torch.tensor([5])))

@pytest.mark.parametrize('temperature', [1.,.3])
def test_sampled_softmax_with_every_other_item_is_the_full_one(temperature):
    (sampled,model,dls),full = attached(SampledSoftmaxLoss(temperature)),SoftmaxLoss(temperature)
    full.attach(model, dls)
    users,others = dls.train_ds.users.long(),torch.stack([torch.tensor([i]+[j for j in range(1, 6) if j!=i]) for i in dls.train_ds.items.tolist()])
    out,y = model(torch.stack([users[:,None].expand(5, 5),others], 2).view(-1, 2)),block_y(5, 4)
    torch.testing.assert_close(sampled(out, y), full(out, y))

def test_sampled_softmax_by_hand():  # item weights 2, 1, 1; user 3 has item 1: q is 1/2 for the items 2 and 3, so 2 draws of them stand as they are
    df = pd.DataFrame(dict(user_id=[1,2,2,3], item_id=[1,2,3,1]))
    loss,model,_ = attached(SampledSoftmaxLoss(), df, n_neg=2, alpha=1.)
    out = model(torch.tensor([[3,1],[3,2],[3,3]]))
    assert loss(out, block_y(1, 2)).item()==pytest.approx((out.exp().sum().log()-out[0]).item(), abs=1e-6)
    out = model(torch.tensor([[2,2],[2,1],[2,1]]))  # user 2 has 2 and 3: every draw is item 1, and two of them are one item
    assert loss(out, block_y(1, 2)).item()==pytest.approx((out[:2].exp().sum().log()-out[0]).item(), abs=1e-6)

def test_a_draw_that_hits_the_positive_is_left_out():
    loss,model,_ = attached(SampledSoftmaxLoss(), keep_positives=True, n_neg=2)
    out = model(torch.tensor([[1,1],[1,1],[1,3]]))  # 2 draws of 5 items: each stands for 5/2
    assert loss(out, block_y(1, 2)).item()==pytest.approx((out[0].exp()+2.5*out[2].exp()).log().sub(out[0]).item(), abs=1e-5)

def popular():
    "60 users; item j has about 60/j of them"
    rng = torch.Generator().manual_seed(3)
    rows = [(u,j) for j in range(1, 21) for u in range(60) if torch.rand((), generator=rng)<1/j]
    return pd.DataFrame(rows, columns=['user_id','item_id'])

@pytest.mark.parametrize('alpha', [0.,1.])
def test_the_correction_makes_the_gradient_that_of_all_items(alpha):
    "Mean gradient over many draws of 1000 negatives, against the softmax over the positive and what the user does not have"
    loss,model,dls = attached(SampledSoftmaxLoss(), popular(), n_neg=1000, alpha=alpha)
    x = torch.stack([dls.train_ds.users,dls.train_ds.items], 1).long()[::29]
    seen = torch.from_numpy(dls.train_ds.csr().toarray()).bool()
    seen[:,0] = True
    scores = model.score_items(x[:,0])
    full = scores.masked_fill(seen[x[:,0]].scatter(1, x[:,1:], False), -torch.inf)
    want = torch.autograd.grad(F.cross_entropy(full, x[:,1]), model.i_weight.weight)[0]
    def sampled(log_q):
        loss.log_q,total,gen = log_q,0,torch.Generator().manual_seed(0)
        for _ in range(20):
            items = torch.cat([x[:,1:],dls.train.sampler.draw(x[:,0], 1000, gen)], 1)
            out = model(torch.stack([x[:,:1].expand_as(items),items], 2).view(-1, 2))
            total = total+torch.autograd.grad(loss(out, block_y(len(x), 1000)), model.i_weight.weight)[0]/20
        return (total-want).norm()/want.norm()
    assert (error := sampled(True))<.02 and sampled(False)>4*error

@pytest.mark.parametrize('loss', [SoftmaxLoss(), SampledSoftmaxLoss()])
def test_a_loss_that_was_not_attached_says_what_to_call(loss):
    with pytest.raises(RecfastError, match=r'call loss.attach\(model, dls\)'): loss(*blocks(2, 4))

def test_multinomial_by_hand():  # softmax of (0, log 2, log 5) is 1/8, 2/8, 5/8; the second user has clicked nothing
    nan,s = math.nan,torch.log(torch.tensor([7.,1.,2.,5.]))
    out,y = torch.stack([s,s]),torch.tensor([[nan,1.,nan,1.],[nan,nan,nan,nan]])
    assert MultinomialLoss()(out, y).item()==pytest.approx((math.log(8)+math.log(8/5))/2, abs=1e-6)

def test_multinomial_per_row():
    loss = MultinomialLoss()
    loss.reduction = 'none'
    assert loss(torch.zeros(2, 5), torch.tensor([[math.nan,1,1,math.nan,math.nan],[math.nan,2.,math.nan,math.nan,math.nan]])).tolist()==pytest.approx([2*math.log(4)]*2)

def test_multinomial_gradient_of_an_item_is_its_probability_less_its_share():
    out = torch.zeros(1, 5, requires_grad=True)
    MultinomialLoss()(out, torch.tensor([[math.nan,1,1,math.nan,math.nan]])).backward()
    assert out.grad.tolist()[0]==pytest.approx([0,-.5,-.5,.5,.5])

def test_multinomial_of_pairs():
    with pytest.raises(ValueError, match=r'expected \[B,I\]'): MultinomialLoss()(torch.zeros(5, 1), torch.ones(5, 1))
