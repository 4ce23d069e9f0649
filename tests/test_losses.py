"Losses by hand, flat whatever the shape, and the number that get_preds shows"
import math

import pytest
import torch
import torch.nn.functional as F
from fastai.learner import Learner

from recfast.data.loaders import CollabDataLoaders
from recfast.learner import collab_learner
from recfast.losses import BCE, ClassLoss, FlatLoss, RMSELoss, expected_rating
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
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(1, 1e-2); preds = learn.get_preds()[0].flatten()
    valid = dls.valid_ds.frame()
    torch.testing.assert_close(preds.double(), torch.from_numpy(learn.predict(valid.user_id, valid.item_id)), rtol=1e-5, atol=1e-6)

def test_loss_per_row_through_get_preds():
    learn = Learner(CollabDataLoaders.from_df(stars(), bs=64, seed=1), GMF(51, 41, 4, n_out=6), loss_func=ClassLoss())
    with learn.no_bar(): preds,y,loss = learn.get_preds(with_loss=True)
    assert loss.shape==(200,) and loss.mean().item()==pytest.approx(F.cross_entropy(torch.zeros(1,6), torch.tensor([0])).item(), abs=1e-3)

def test_a_loss_that_says_nothing():
    with pytest.raises(NotImplementedError): FlatLoss()(OUT, Y)
