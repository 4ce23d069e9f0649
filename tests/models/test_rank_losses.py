"WARP in batches: its weights, its gradients, somebody new under it, and bundles"
import json

import pandas as pd
import pytest
import torch

from helpers import fit_one_cycle, taste_clicks
from recfast.bundle import load_bundle
from recfast.core import RatingsError, RecfastError
from recfast.data.loaders import CollabDataLoaders
from recfast.learner import collab_learner
from recfast.likelihood import History
from recfast.losses import WARPLoss, loss_spec, make_loss
from recfast.models.dot import DotProduct, DotProductBias
from recfast.rank_losses import RankedPairs, rank_cost

def known(n_others=100, **kwargs):
    loss = WARPLoss(**kwargs)
    loss.n_others = n_others
    return loss

def harmonic(n): return sum(1/k for k in range(1, n+1))

DF = taste_clicks()

def ranker(n_epoch=6, fast=None, **kwargs):
    dls = CollabDataLoaders.implicit_from_df(DF, n_neg=8, bs=128, seed=1, valid_pct=0)
    learn = collab_learner(dls, 6, loss_func=WARPLoss(), seed=3, **{'arch': DotProductBias, **kwargs})
    return fit_one_cycle(learn, n_epoch, 2e-2, wd=.1, **({} if fast is None else dict(fast=fast)))


def test_a_rank_costs_a_harmonic_sum():
    got = rank_cost(torch.tensor([0,1,2,7,50])/50, 50)
    torch.testing.assert_close(got, torch.tensor([harmonic(o) for o in (0,1,2,7,50)]), rtol=1e-5, atol=1e-6)

def test_by_hand():
    s = torch.tensor([[1.,.5,-3.,1.5,.2],[5.,0.,0.,0.,0.]])
    want = harmonic(75)*((.5+1.5+.2)/3)  # three of four violate the margin: rank 75, the mean of the three
    torch.testing.assert_close(known().blocks(s), torch.tensor([want,0.]), rtol=1e-4, atol=1e-6)

def test_a_violator_is_pushed_by_the_rank():
    s = torch.tensor([[1.,.5,-3.,1.5,.2]], requires_grad=True)
    known().blocks(s).sum().backward()
    h = harmonic(75)
    torch.testing.assert_close(s.grad, torch.tensor([[-h,h/3,0,h/3,h/3]]), rtol=1e-4, atol=1e-5)

def test_the_margin_is_the_scale_of_the_scores():
    s = torch.randn(5, 9)
    torch.testing.assert_close(known(margin=3.).blocks(3*s), 3*known().blocks(s))
    with pytest.raises(ValueError, match='margin=0, expected a number above 0'): WARPLoss(margin=0)

def test_it_asks_how_many_items_there_are():
    with pytest.raises(RecfastError, match='call loss.attach'): WARPLoss()(torch.zeros(2), torch.tensor([1.,0.]))
    dls = CollabDataLoaders.implicit_from_df(DF, n_neg=0, valid_pct=0, bs=64)
    with pytest.raises(RatingsError, match='WARPLoss needs each positive followed by its negatives'): WARPLoss().attach(None, dls)
    assert ranker(1).loss_func.n_others==59

@pytest.mark.parametrize('fast', ['exact'])
def test_the_fast_path_ends_where_the_plain_loop_does(fast):
    a,b = ranker(2, fast),ranker(2, False)
    for p,q in zip(a.model.parameters(), b.model.parameters()): torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-5)

# somebody new

def told(n=3, n_items=12, **kwargs):
    counts = torch.arange(n_items+1).flip(0)+1
    return known(margin=.7).likelihood(History(torch.arange(1, n+1), torch.ones(n), counts=counts, **kwargs))

@pytest.mark.parametrize('alpha', [0.,.7])
def test_the_gradient_is_that_of_the_cost(alpha):
    likelihood = told(alpha=alpha)
    g = torch.Generator().manual_seed(0)
    J,u,d = (torch.randn(*o, generator=g).double() for o in ((len(likelihood.rows),4),(4,),(4,)))
    price,grad,curve = likelihood.expand(J@u, J)
    assert price.item()==pytest.approx(likelihood.cost(J@u).item())
    torch.testing.assert_close(grad, torch.autograd.functional.jacobian(lambda u: likelihood.cost(J@u), u))
    assert torch.linalg.eigvalsh(curve).min()>-1e-9
    torch.testing.assert_close(likelihood.parts(J@u, J, d).sum(0), curve@d-grad)
    likelihood.cells = 1
    sliced = likelihood.expand(J@u, J)
    torch.testing.assert_close(sliced[1], grad)
    torch.testing.assert_close(sliced[2], curve)

def test_the_loss_in_training_is_the_likelihood_where_every_negative_comes_once():
    s = torch.randn(12).double()
    likelihood = told(1)
    loss = known(11, margin=.7)
    assert likelihood.cost(s[likelihood.rows-1]).item()==pytest.approx(loss.blocks(s[None].float()).item(), rel=1e-4)

def test_someone_who_has_everything_has_no_negatives():
    likelihood = WARPLoss().likelihood(History(torch.arange(1, 4), torch.ones(3), counts=[0,1,1,1]))
    s,J = torch.zeros(len(likelihood.rows)).double(),torch.ones(len(likelihood.rows), 2).double()
    assert likelihood.cost(s)==0 and all(not o.any() for o in likelihood.expand(s, J)) and likelihood.parts(s, J, J[0]).shape==(3,2)
    assert isinstance(likelihood, RankedPairs)

@pytest.mark.parametrize('arch', [DotProduct,DotProductBias])
def test_a_trained_users_rows_fold_in_near_that_user(arch):
    learn = ranker(12, arch=arch)
    people = [3,50,111,180]
    for u in people:
        own = learn.recommend([u], k=60, exclude_seen=False).set_index('item_id').score
        new = learn.recommend(history=DF[DF.user_id==u].item_id.tolist(), k=60, exclude_seen=False).set_index('item_id').score
        assert own.corr(new[own.index], method='spearman')>.8

def test_reasons_sum_to_the_score():
    learn = ranker(8)
    why = learn.explain(history=[3,9,20], k=2)
    score = learn.recommend(history=[3,9,20], k=2).set_index('item_id').score
    for item,rows in why.groupby('item_id'): assert rows.contribution.sum()==pytest.approx(score[item], rel=1e-3)

# bundles

def test_arguments_come_back_from_json():
    again = make_loss(json.loads(json.dumps(loss_spec(WARPLoss(.4)))))
    assert type(again) is WARPLoss and again.margin==.4

def test_a_bundle_answers_as_before(tmp_path):
    learn = ranker(3)
    rec = load_bundle(learn.save_bundle(tmp_path/'b'))
    pd.testing.assert_frame_equal(rec.recommend(history=[3,9,20], k=5), learn.recommend(history=[3,9,20], k=5))
