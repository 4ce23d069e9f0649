"Ranking losses in the learner: both loops, finder, pickles, loaders that do not fit, and what is learned"
import copy
import math
import pickle

import pandas as pd
import pytest
import torch
from fastai.interpret import Interpretation
from fastai.layers import Embedding
from fastai.learner import Learner, load_learner
from torch import nn

from helpers import fit_one_cycle
import recfast.all  # noqa: F401 (every builder)
from recfast.core import RatingsError, RecfastError
from recfast.data.loaders import CollabDataLoaders
from recfast.data.ratings import to_implicit
from recfast.learner import collab_learner
from recfast.losses import (BCE, BlockLoss, BPRLoss, CosineContrastiveLoss, LastInput, MultinomialLoss, SampledSoftmaxLoss, SoftmaxLoss,
    all_scores)
from recfast.models.autorec import AutoRec
from recfast.models.dot import DotProduct, DotProductBias
from recfast.models.ncf import MLP, EmbeddingNN
from recfast.models.sequence import NextItem
from recfast.testing import block_ratings, synth_ratings

LIKED = block_ratings().query('rating==5')
COSINE = dict(arch=DotProduct, config=dict(cosine=True))
AUTO = dict(arch=AutoRec, config=dict(by='user', dropout=.3, act='tanh'))
# A user's bias cancels out of a softmax: its gradient is rounding error, which Adam makes steps of. So a dot product without biases there.
CASES = {'bpr': (BPRLoss,4,dict(arch=DotProductBias)), 'bce': (BCE,4,dict(arch=DotProductBias)), 'softmax': (SoftmaxLoss,0,dict(arch=DotProduct)),
    'sampled': (SampledSoftmaxLoss,4,dict(arch=DotProduct)), 'cosine': (CosineContrastiveLoss,8,COSINE), 'multinomial': (MultinomialLoss,None,AUTO),
    'softmax by expansion': (SoftmaxLoss,0,dict(arch=MLP, config=dict(init=None))), 'bpr of a network': (BPRLoss,4,dict(arch=MLP, config=dict(init=None)))}
RATE = {'softmax by expansion': 3e-3, 'bpr of a network': 3e-3}  # a relu is not smooth, see test_fast.py
def with_slow(*names): return [pytest.param(o, marks=pytest.mark.slow) if o in names else o for o in CASES]
every_case = pytest.mark.parametrize('case', with_slow('softmax by expansion','bpr of a network'))
every_kind = pytest.mark.parametrize('case', with_slow(*set(CASES)-{'bpr','softmax','multinomial'})) # one of each kind of loss is quick to try
blocks = pytest.mark.parametrize('case', ['bpr','bce','sampled','cosine'])

def clicks(n_neg, df=LIKED, **kwargs):
    kwargs = {'bs':32, 'seed':7, **kwargs}
    if n_neg is None: return CollabDataLoaders.rows_from_df(to_implicit(df), 'user', **{**kwargs, 'bs':8})
    return CollabDataLoaders.implicit_from_df(df, n_neg=n_neg, **kwargs)

def ranker(case='bpr', dls_kw=None, **kwargs):
    loss,n_neg,how = CASES[case]
    return collab_learner(clicks(n_neg, **(dls_kw or {})), n_factors=6, loss_func=loss(), **{**how, **kwargs})

def close(a, b): torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@every_case
def test_the_fast_path_ends_where_the_plain_loop_does(case):
    fast,plain = (fit_one_cycle(ranker(case), 2, RATE.get(case, 1e-2), wd=.1, **kw) for kw in (dict(fast='exact'), dict(fast=False)))
    assert fast.fast and not plain.fast and len(fast.recorder.losses)>=10
    for a,b in zip(fast.model.parameters(), plain.model.parameters()): close(a, b)
    for a,b in zip(fast.recorder.values, plain.recorder.values): close(torch.tensor(a), torch.tensor(b))
    close(torch.stack(fast.recorder.losses), torch.stack(plain.recorder.losses))

@every_kind
def test_the_learning_rate_finder(case):
    learn = ranker(case)
    before = copy.deepcopy(learn.model.state_dict())
    with learn.no_bar(), learn.no_logging(): assert 1e-7<learn.lr_find(show_plot=False).valley<=1
    for a,b in zip(learn.model.state_dict().values(), before.values()): assert torch.equal(a, b)

@every_case
def test_training_makes_it_smaller_in_both_parts(case):
    learn = fit_one_cycle(ranker(case), 5, RATE.get(case, 3e-2))
    train,valid = zip(*[v[:2] for v in learn.recorder.values])
    assert train[-1]<train[0] and valid[-1]<valid[0] and all(map(math.isfinite, (*train, *valid)))

@every_kind
def test_weight_decay_reaches_the_weights(case):
    size = [sum(p.square().sum() for p in fit_one_cycle(ranker(case), 2, wd=wd).model.parameters()) for wd in (0., 5.)]
    assert size[1]<size[0]

@pytest.mark.parametrize('case', ['bpr','bce','softmax','sampled','cosine','multinomial'])
def test_it_finds_the_item_that_was_left_out(case):
    learn = fit_one_cycle(ranker(case, dls_kw=dict(valid_pct=0)), 20 if case=='multinomial' else 10, 3e-2)
    top = learn.recommend(k=1)
    assert (top.item_id==(top.user_id-1)%40+1).all()

@every_case
def test_a_pickled_learner_scores_and_trains_on(case, tmp_path):
    learn = fit_one_cycle(ranker(case))
    learn.path = tmp_path
    learn.export()
    loaded = load_learner(tmp_path/'export.pkl')
    new = pickle.loads(pickle.dumps(learn))
    for o in (loaded, new): assert type(o.loss_func) is type(learn.loss_func)
    assert fit_one_cycle(new).fast and math.isfinite(new.recorder.values[-1][0])

@every_case
def test_a_copy_learns_by_itself(case):
    learn = ranker(case)
    both = copy.deepcopy(learn)
    start = [p.clone() for p in learn.model.parameters()]
    fit_one_cycle(both)
    assert all(torch.equal(a, b) for a,b in zip(learn.model.parameters(), start))
    fit_one_cycle(learn)
    for a,b in zip(learn.model.parameters(), both.model.parameters()): close(a, b)

def test_one_loss_for_two_learners():
    loss = SoftmaxLoss()
    a,b = (collab_learner(clicks(0), 6, arch=DotProduct, loss_func=loss) for _ in range(2))
    assert a.loss_func is not b.loss_func and loss.last is None
    fit_one_cycle(b), fit_one_cycle(a)
    close(a.model.u_weight.weight, b.model.u_weight.weight)

def test_two_losses_on_one_model_leave_one_hook():
    model = DotProduct(51, 41, 4)
    for loss in (SoftmaxLoss, SampledSoftmaxLoss): fit_one_cycle(collab_learner(clicks(4), arch=model, loss_func=loss()))
    assert [type(h) for h in model._forward_pre_hooks.values()]==[LastInput]

def test_what_the_hook_remembers_is_neither_pickled_nor_a_weight():
    learn = fit_one_cycle(ranker('softmax'))
    assert learn.loss_func.last.x is not None and set(learn.model.state_dict())=={'u_weight.weight','i_weight.weight'}
    model = pickle.loads(pickle.dumps(learn.model))
    hook, = model._forward_pre_hooks.values()
    assert hook.x is None and hook.model is None

def test_a_class_is_taken_as_an_instance(): assert isinstance(collab_learner(clicks(4), loss_func=BPRLoss).loss_func, BPRLoss)

def test_a_plain_learner_finds_the_blocks_by_itself():
    dls = clicks(4)
    learn = fit_one_cycle(Learner(dls, DotProduct(dls.n_users, dls.n_items, 4), loss_func=BPRLoss()))
    assert learn.recorder.values[-1][0]<math.log(2)+1e-3

def test_a_plain_learner_with_a_loss_that_was_not_attached():
    dls = clicks(4)
    with pytest.raises(RecfastError, match=r'call loss.attach\(model, dls\)'):
        fit_one_cycle(Learner(dls, DotProduct(dls.n_users, dls.n_items, 4), loss_func=SoftmaxLoss()))


@blocks
def test_loaders_of_positives_alone(case):
    with pytest.raises(RatingsError, match='n_neg=0|draw none'): collab_learner(clicks(0), loss_func=CASES[case][0](), **CASES[case][2])

@pytest.mark.parametrize('case,hint', [('bpr','n_neg=4'), ('softmax','n_neg=0'), ('sampled','n_neg=4'), ('cosine','n_neg=4')])
def test_a_table_of_ratings(case, hint):
    with pytest.raises(RatingsError, match=fr'draw nothing: build the loaders with CollabDataLoaders.implicit_from_df\({hint}'):
        collab_learner(CollabDataLoaders.from_df(synth_ratings()), loss_func=CASES[case][0](), **CASES[case][2])

def test_a_table_of_ratings_in_a_plain_learner():
    dls = CollabDataLoaders.from_df(synth_ratings())
    with pytest.raises(RatingsError, match='the targets of this batch are'): fit_one_cycle(Learner(dls, DotProduct(51, 41, 4), loss_func=BPRLoss()))

def test_cosines_are_asked_of_a_dot_product():
    with pytest.raises(ValueError, match='cosine=True'): collab_learner(clicks(4), arch=DotProduct, loss_func=CosineContrastiveLoss())

@pytest.mark.parametrize('loss', [SoftmaxLoss, SampledSoftmaxLoss])
@pytest.mark.parametrize('arch', [AutoRec, NextItem])
def test_a_model_that_does_not_take_pairs(arch, loss):
    with pytest.raises(TypeError, match='is trained on (rows|sequences), these loaders hold pairs'): collab_learner(clicks(4), arch=arch, loss_func=loss())

@pytest.mark.parametrize('loss', [SoftmaxLoss, SampledSoftmaxLoss])
def test_a_loss_of_pairs_is_none_of_rows(loss):
    rows = CollabDataLoaders.rows_from_df(to_implicit(LIKED), 'user', bs=8)
    with pytest.raises(TypeError, match='MultinomialLoss for rows, NextItemLoss for sequences'): collab_learner(rows, arch=AutoRec, config=dict(by='user'), loss_func=loss())

@pytest.mark.parametrize('dls,how', [(lambda: clicks(4), AUTO), (lambda: clicks(None), dict(arch=AutoRec, config=dict(by='item'))),
    (lambda: CollabDataLoaders.rows_from_df(to_implicit(LIKED), 'item', bs=8), AUTO)])
def test_multinomial_without_rows_of_users(dls, how):
    with pytest.raises((RatingsError,TypeError), match='needs rows of users|is trained on rows'): collab_learner(dls(), loss_func=MultinomialLoss(), **how)

def test_scores_without_gradients_are_an_error():
    class Frozen(DotProduct):
        @torch.no_grad()
        def score_items(self, users): return super().score_items(users)
    with pytest.raises(RecfastError, match='score_items of Frozen has no gradients'): fit_one_cycle(collab_learner(clicks(0), arch=Frozen, loss_func=SoftmaxLoss()))


@every_case
def test_loss_per_row_comes_in_order_and_means_the_loss(case):
    learn = fit_one_cycle(ranker(case))
    with learn.no_bar():
        preds,y,loss = learn.get_preds(with_loss=True)
        mean = learn.validate()[0]
    assert len(preds)==len(y)==len(loss) and loss.ndim==1
    if case!='multinomial' and CASES[case][1] and case!='bce': assert torch.equal(loss, loss.view(-1, 1+CASES[case][1])[:,:1].expand(-1, 1+CASES[case][1]).flatten())
    assert loss.mean().item()==pytest.approx(mean, abs=1e-4)

@every_case
def test_get_preds_are_scores_of_pairs_as_predict_gives_them(case):
    learn = fit_one_cycle(ranker(case))
    dl = learn.dls.test_dl(LIKED[:7].drop(columns='rating'))
    with learn.no_bar(): preds = learn.get_preds(dl=dl)[0]
    assert preds.flatten().tolist()==pytest.approx(learn.predict(LIKED.user_id[:7], LIKED.item_id[:7]).tolist(), abs=1e-5)

@pytest.mark.parametrize('case', ['bpr','softmax','sampled'])
def test_rows_of_the_caller_have_scores_and_no_loss(case):
    learn = fit_one_cycle(ranker(case))
    dl = learn.dls.test_dl(LIKED[:7])  # with a rating column: targets, but no blocks
    with learn.no_bar():
        preds,y,loss = learn.get_preds(dl=dl, with_loss=True)
        assert preds.shape==(7,1) and y.shape==(7,1) and loss.isnan().all() and math.isnan(learn.validate(dl=dl)[0])

@pytest.mark.parametrize('case', ['bpr','softmax'])
def test_interpretation_of_the_worst_rows(case):
    learn = fit_one_cycle(ranker(case))
    with learn.no_bar(): vals,at = Interpretation.from_learner(learn).top_losses(5)
    assert len(vals)==len(at)==5 and (vals.diff()<=0).all()

@pytest.mark.parametrize('case', ['bpr','softmax','sampled'])
def test_a_last_batch_of_another_size(case):
    learn = fit_one_cycle(ranker(case, dls_kw=dict(bs=50, valid_pct=.1)))
    n = len(learn.dls.train_ds)
    assert n%50 and len(learn.recorder.losses)==-(-n//50)

def test_validation_items_that_were_never_trained_have_a_finite_softmax():
    df = pd.concat([LIKED[['user_id','item_id']], pd.DataFrame(dict(user_id=[1,999], item_id=[999,1]))], ignore_index=True)
    learn = fit_one_cycle(ranker('softmax', dls_kw=dict(df=df, splits=(range(len(LIKED)), [len(LIKED),len(LIKED)+1]))))
    assert math.isfinite(learn.recorder.values[-1][1])

@pytest.mark.parametrize('arch', [MLP, EmbeddingNN, DotProduct])
def test_scores_by_expansion_have_the_gradients_of_all_pairs(arch):
    torch.manual_seed(0)
    model = (EmbeddingNN([(6,3),(9,4)], [5]) if arch is EmbeddingNN else arch(6, 9, 4)).eval()
    class Outside(nn.Module):
        def __init__(self): super().__init__(); self.m = model
        def forward(self, x): return self.m(x)
    users,weight,grads = torch.tensor([1,5,5,2]),torch.randn(4, 9),[]
    for scores in (all_scores(Outside(), users, 9, rows=20), model(torch.cartesian_prod(users, torch.arange(9))).view(4, 9)):
        model.zero_grad()
        (scores*weight).sum().backward()
        grads.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    for a,b in zip(*grads): close(a, b)

def test_a_handmade_model_under_every_loss_of_pairs():
    class Handmade(nn.Module):
        def __init__(self, n_users, n_items, n_factors, y_range): super().__init__(); self.a,self.b = Embedding(n_users, n_factors),Embedding(n_items, n_factors)
        def forward(self, x): return (self.a(x[:,0])*self.b(x[:,1])).sum(1)
    for loss in (BPRLoss, SoftmaxLoss, SampledSoftmaxLoss, CosineContrastiveLoss, BCE): assert fit_one_cycle(collab_learner(clicks(4), 6, arch=Handmade, loss_func=loss())).fast

def test_a_loss_that_says_nothing():
    with pytest.raises(NotImplementedError): BlockLoss()(torch.zeros(2), torch.tensor([1.,0.]))

def test_rows_of_ones_are_clicks_and_have_no_rating_error():
    learn = ranker('multinomial')
    assert not learn.dls.rated and not {'rmse','mae'} & set(learn.evaluate(k=5).summary)
    assert CollabDataLoaders.rows_from_df(LIKED.assign(rating=range(len(LIKED))).assign(rating=lambda d: d.rating+1), bs=8).rated

def test_cross_entropy_asks_the_model_what_it_gives():
    dls = CollabDataLoaders.implicit_from_df(block_ratings().query('rating==5'), seed=1)
    learn = collab_learner(dls, 3, arch=DotProduct, y_range=(0,1), loss_func=BCE)
    x,y = dls.one_batch()
    p = learn.model(x)
    assert learn.loss_func(p, y).item()==pytest.approx(nn.functional.binary_cross_entropy(p, y).item())
    with pytest.raises(ValueError, match='raw scores'): collab_learner(dls, 3, arch=DotProduct, loss_func=BCE((0,1)))
    with pytest.raises(ValueError, match='needs probabilities'): collab_learner(dls, 3, arch=DotProduct, y_range=(0,5.5), loss_func=BCE())

def test_cross_entropy_of_stars_is_refused():
    with pytest.raises(RatingsError, match='labels from 0 to 1, the targets go from 1 to 5'): collab_learner(CollabDataLoaders.from_df(synth_ratings()), loss_func=BCE())
