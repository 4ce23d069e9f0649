"What is expected of somebody by which items they tell of"
import numpy as np
import pytest
import torch
from fastai.torch_core import Module
from scipy.sparse import csr_matrix
from torch import nn

from recfast.core import quiet
from recfast.data.loaders import CollabDataLoaders
from recfast.learner import collab_learner
from recfast.likelihood import History, Pointwise, logistic, of_people, squared
from recfast.losses import BCE, BPRLoss, ClassLoss, CosineContrastiveLoss, RMSELoss, SoftmaxLoss
from recfast.models.base import id_tables
from recfast.models.foldin import fold_in, fold_in_steps
from recfast.models.prior import ToldItems, UserPrior, expected, slope_left_out
from recfast.testing import block_ratings

def random(*shape, seed=0): return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()
def seen(n=60, m=30, seed=0): return csr_matrix(np.random.RandomState(seed).rand(n, m)<.3).astype(np.float32)

def test_a_set_by_hand():
    sets = ToldItems({'a': random(30, 3), 'b': random(30, 1, seed=1)}, seen())
    q = torch.cat([random(30, 3),random(30, 1, seed=1)], 1)
    own = torch.tensor([4,7])
    want = (q[own].sum(0)-2*sets.middle)/(2+sets.doubt)
    torch.testing.assert_close(sets.each(own, torch.ones(2).double()).sum(0), want)
    padded = sets.each(torch.tensor([4,7,4]), torch.tensor([1.,1,0]).double())
    torch.testing.assert_close(padded.sum(0), want)

def test_tastes_that_differ_are_believed_sooner():
    "Rows of two kinds that nobody mixes, and rows that everybody mixes"
    kinds = np.arange(60)[:,None]%2==np.arange(30)%2
    q = {'a': random(30, 3)+4*(torch.arange(30)[:,None]%2)}
    apart,mixed = (ToldItems(q, csr_matrix(o*(np.random.RandomState(1).rand(60, 30)<.5)).astype(np.float32)).doubt for o in (kinds,np.ones((60,30))))
    assert apart<2 and mixed==torch.inf

def test_everybody_with_the_same_items_says_nothing():
    sets = ToldItems({'a': random(30, 3)}, csr_matrix(np.ones((60,30), np.float32)))
    prior = UserPrior({'u': random(61, 2)}, torch.arange(1, 61), sets)
    assert torch.isfinite(sets.trained).all() and prior.slope is None
    torch.testing.assert_close(prior.precision, UserPrior({'u': random(61, 2)}, torch.arange(1, 61)).precision)

@pytest.mark.parametrize('n', [1,2,3])
def test_a_handful_of_people_is_no_error(n):
    sets = ToldItems({'a': random(30, 3)}, seen(n))
    prior = UserPrior({'u': random(4, 2)}, torch.arange(1, n+1), sets)
    assert prior.slope is None and torch.isfinite(prior.precision).all()

def test_who_is_left_out_is_predicted_by_the_others():
    "The formula against one fit for each person"
    from recfast.models.prior import _left_out
    z,y = random(12, 2),random(12, 2, seed=1)
    z,y,ridge = z-z.mean(0),y-y.mean(0),.7
    A = torch.linalg.inv(z.T@z+ridge*torch.eye(2))
    errors = _left_out(y, z@A@z.T@y, (z@A*z).sum(1))
    for i in range(12):
        rest = torch.arange(12)!=i
        zi,yi = z[rest]-z[rest].mean(0),y[rest]-y[rest].mean(0)
        fit = torch.linalg.solve(zi.T@zi+ridge*torch.eye(2), zi.T@yi)
        assert errors[i].item()==pytest.approx((y[i]-y[rest].mean(0)-(z[i]-z[rest].mean(0))@fit).square().sum().item(), rel=.05)

def test_a_slope_is_found_and_noise_is_none():
    z = random(300, 4)
    z,truth = z-z.mean(0),random(4, 3, seed=2)
    torch.testing.assert_close(slope_left_out(z, z@truth+.1*random(300, 3, seed=1)), truth, atol=.1, rtol=0)
    for seed in range(10):
        noise = random(300, 3, seed=seed+3)
        assert slope_left_out(z, noise-noise.mean(0)).abs().max()==0

@pytest.mark.parametrize('loss,n_neg,chooses', [(RMSELoss(),0,False), (ClassLoss(1),0,False), (BCE(),0,False), (BCE(),4,True), (RMSELoss(),4,True), (BPRLoss(),4,True),
    (SoftmaxLoss(),0,True), (CosineContrastiveLoss(),4,True)])
def test_only_likelihoods_of_values_ask_which_items_there_are(loss, n_neg, chooses):
    likelihood = loss.likelihood(History(torch.tensor([1,2]), torch.ones(2), counts=torch.ones(5), n_neg=n_neg))
    assert likelihood.chooses==chooses

class Linear(Module):
    def __init__(self): self.u,self.i = nn.Embedding(61, 3),nn.Embedding(30, 3)
    def forward(self, x): return (self.u(x[:,0])*self.i(x[:,1])).sum(1)

def taught():
    "A model whose users follow from what they told of, its prior, a history"
    torch.manual_seed(0)
    model = Linear()
    model.i.weight.data[1::2] += 3 # two kinds, of which everybody sees mostly one
    kinds = csr_matrix(np.random.RandomState(1).rand(60, 30)<.1+.5*(np.arange(60)[:,None]%2==np.arange(30)%2)).astype(np.float32)
    sets = ToldItems({'i': model.i.weight}, kinds)
    model.u.weight.data[1:] = (sets.trained@random(3, 3, seed=5)*3).float()+.2*torch.randn(60, 3)
    prior = UserPrior(id_tables(model, 61, 30)[0], torch.arange(1, 61), sets)
    assert prior.slope.abs().max()>.3
    return model,prior,torch.tensor([2,9,11,5]),torch.tensor([1.,-2.,3.,.5]).double()

def test_the_most_probable_user_the_long_way():
    model,prior,items,r = taught()
    V = model.i.weight[items].detach().double()
    mean = prior.mean+prior.sets.each(items, torch.ones(4).double()).sum(0)@prior.slope
    w = 4/(4+prior.sets.doubt)/prior.sets.usual
    P = torch.linalg.inv(prior.left+(1-w)*prior.said)
    want = torch.linalg.solve(V.T@V/.4+P, V.T@r/.4+P@mean)
    assert w<1
    torch.testing.assert_close(fold_in(model, prior, items, r, noise=.4), want, rtol=1e-4, atol=1e-5)
    u,steps = fold_in_steps(model, prior, items, r, noise=.4)
    torch.testing.assert_close(prior.mean+steps.sum(1), u, rtol=1e-5, atol=1e-5)

def test_of_several_people_each_by_their_own():
    model,prior,items,r = taught()
    told = of_people([(items,r),(items[:1],r[:1])])
    moves,precision = expected(prior, Pointwise(told, squared(1.)))
    assert moves.shape==(2,4,3) and moves[1,1:].abs().max()==0
    torch.testing.assert_close(moves[1,0], prior.sets.each(items[:1], torch.ones(1).double())[0]@prior.slope)
    moves,same = expected(prior, Pointwise(of_people([(items,r)], counts=torch.ones(30), n_neg=2), logistic))
    assert moves.abs().max()==0 and same is prior.precision
    sizes = [torch.linalg.inv(o).trace() for o in precision]
    assert prior.left.trace()<sizes[0]<sizes[1]<1.2*torch.linalg.inv(prior.precision).trace()

def test_learners_of_stars_ask_and_learners_of_clicks_do_not():
    stars = collab_learner(CollabDataLoaders.from_df(block_ratings(), seed=1), 4, y_range=(0,5.5))
    clicks = collab_learner(CollabDataLoaders.implicit_from_df(block_ratings(), seed=1), 4, loss_func=BPRLoss())
    for learn in (stars,clicks):
        with quiet(learn): learn.fit(1, 1e-2)
    counted = []
    for rec in (stars.recommender,clicks.recommender): counted.append(rec._sets(id_tables(rec.model, rec.n_users, rec.n_items)[1], rec._trained_users()))
    assert isinstance(counted[0], ToldItems) and counted[1] is None
