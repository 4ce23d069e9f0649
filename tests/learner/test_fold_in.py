"Someone new, under the loss of training: as good as someone trained, the same at every door"
import json

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from fastai.losses import BCEWithLogitsLossFlat, CrossEntropyLossFlat, FocalLossFlat, L1LossFlat, LabelSmoothingCrossEntropyFlat, MSELossFlat
from fastapi.testclient import TestClient
from torch import nn

from helpers import taste_clicks
from recfast.bundle import _signed, load_bundle
from recfast.choices import nodes
from recfast.core import RatingsError
from recfast.data.datasets import ml_100k
from recfast.data.implicit import CollabDataLoaders

from recfast.learner import collab_learner
from recfast.likelihood import Pointwise, of_people
from recfast.losses import (BCE, BPRLoss, ClassLoss, CosineContrastiveLoss, FlatLoss, History, RMSELoss, SampledSoftmaxLoss, SoftmaxLoss, known_loss,
    loss_spec, make_loss)
from recfast.models.base import evaluating
from recfast.models.foldin import fold_in, linearize, score_vector
from recfast.models.dot import DotProduct, DotProductBias
from recfast.models.ncf import MLP, NeuMF
from recfast.recommend import Recommender
from recfast.serve import make_app

COSINE = dict(arch=DotProduct, config=dict(cosine=True))
CASES = {'bpr': (BPRLoss(),4,{}), 'bpr by popularity': (BPRLoss(),4,dict(alpha=.5)), 'bpr keeping positives': (BPRLoss(),4,dict(keep_positives=True)),
    'bce': (BCE(),4,{}), 'probabilities': (BCE(),4,dict(y_range=(0,1))), "fastai's bce": (BCEWithLogitsLossFlat(),4,{}),
    'softmax': (SoftmaxLoss(),0,dict(arch=DotProduct)), 'cold softmax': (SoftmaxLoss(.5),0,dict(arch=DotProduct)),
    'sampled': (SampledSoftmaxLoss(),8,dict(arch=DotProduct)), 'sampled, not corrected': (SampledSoftmaxLoss(log_q=False),8,dict(arch=DotProduct)),
    'sampled keeping positives': (SampledSoftmaxLoss(),8,dict(arch=DotProduct, keep_positives=True)), 'squares': (MSELossFlat(),4,{}),
    'cosine': (CosineContrastiveLoss(),8,COSINE), 'bpr of a network': (BPRLoss(),4,dict(arch=MLP, config=dict(init=None))),
    'softmax of a network': (SoftmaxLoss(),0,dict(arch=NeuMF, config=dict(init=None)))}
NETS = 'bpr of a network','softmax of a network'
every_case = pytest.mark.parametrize('case', CASES)

DF = taste_clicks(300, 80, 14)
NEW = DF.user_id>240  # sixty people; of each, seven clicks are told and seven are to be found
TOLD = NEW & (DF.groupby('user_id').cumcount()<7)
GIVEN,WANTED = ({u: g.item_id.tolist() for u,g in DF[o].groupby('user_id')} for o in (TOLD,NEW&~TOLD))
HISTORY = GIVEN[250]

def trained(case, df, n_epoch=12):
    (loss,n_neg,how),dl = CASES[case],{}
    how = dict(how)
    for k in ('alpha','keep_positives'):
        if k in how: dl[k] = how.pop(k)
    dls = CollabDataLoaders.implicit_from_df(df, n_neg=n_neg, bs=64, seed=1, valid_pct=0, **dl)
    learn = collab_learner(dls, 8, loss_func=loss, **{'arch': DotProductBias, **how})
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(n_epoch, 2e-2 if case not in NETS else 5e-3, wd=.1)
    return learn

LEARNERS = {}
def cold(case):
    "Without the new people; trained once"
    if case not in LEARNERS: LEARNERS[case] = trained(case, DF[~NEW])
    return LEARNERS[case]

def ndcg(lists, k=10):
    gain = 1/np.log2(np.arange(2, k+2))
    return np.array([sum(gain[j] for j,i in enumerate(lists[u]) if i in WANTED[u])/gain[:min(k, len(WANTED[u]))].sum() for u in WANTED])

def by_user(df): return df.groupby('user_id').item_id.agg(list)
def folded(rec): return dict(zip(GIVEN, by_user(rec.recommend(history=list(GIVEN.values()), k=10))))


@every_case
def test_as_good_as_those_who_were_trained_and_better_than_popularity(case):
    new,known = ndcg(folded(cold(case))),ndcg(by_user(trained(case, DF[~NEW|TOLD]).recommend(list(WANTED), k=10)))
    inside = (new-known).mean()>-2*(new-known).std()/len(new)**.5
    popular = DF[~NEW].item_id.value_counts().index
    pop = ndcg({u: [i for i in popular if i not in GIVEN[u]][:10] for u in WANTED})
    assert new.mean()>=.93*known.mean() or case in NETS and inside
    assert (new-pop).mean()>2*(new-pop).std()/len(pop)**.5

def _scores(rec, u, likelihood):
    with evaluating(rec.model): return linearize(rec.model, rec._prior()[0], u, likelihood.rows, wide=likelihood.wide)[0]

@every_case
def test_nothing_is_drawn(case):
    a = cold(case).recommend(history=HISTORY, k=20)
    torch.manual_seed(3)
    assert a.equals(cold(case).recommend(history=HISTORY, k=20))

@every_case
def test_what_each_item_adds_sums_to_the_score(case):
    learn = cold(case)
    df,want = learn.explain(history=HISTORY, k=5),learn.recommend(history=HISTORY, k=5)
    sums = df.groupby('item_id', sort=False).contribution.sum()
    assert sums.index.tolist()==want.item_id.tolist() and sums.tolist()==pytest.approx(want.score.tolist(), rel=1e-4)
    assert set(df.because_item_id.dropna())==set(HISTORY)
    base = df[df.because_item_id.isna()].set_index('item_id').contribution
    average = _average(learn.recommender)[learn.recommender.items.encode(base.index)]
    off = .1 if case in NETS else .02 # the way of a network has kinks
    assert base.tolist()==pytest.approx(average.tolist(), abs=off*float(want.score.abs().max()))

def _average(rec): return score_vector(rec.model, rec._prior()[0], rec._prior()[0].mean, rec.n_items)

@every_case
def test_a_bundle_of_a_bundle_gives_the_same(case, tmp_path):
    learn = cold(case)
    want = learn.recommend(history=HISTORY, k=9)
    why = learn.explain(history=HISTORY, k=2)
    rec = load_bundle(learn.save_bundle(tmp_path/'b'))
    assert rec.save_bundle(tmp_path/'again') and rec.info['schema']==2
    for o in (rec,load_bundle(tmp_path/'again')):
        pd.testing.assert_frame_equal(o.recommend(history=HISTORY, k=9), want, rtol=1e-5, atol=1e-6)
        pd.testing.assert_frame_equal(o.explain(history=HISTORY, k=2), why, rtol=1e-4, atol=1e-5)


# several at once

def starred(**kwargs):
    dls = CollabDataLoaders.from_df(STARS, bs=64, seed=1, valid_pct=0)
    learn = collab_learner(dls, 8, **kwargs)
    with learn.quiet(): learn.fit_one_cycle(3, 1e-2)
    return learn

def labelled(**kwargs):
    rs = np.random.RandomState(0)
    df = pd.concat([DF[~NEW].assign(label=1), DF[~NEW].assign(item_id=rs.permutation(DF[~NEW].item_id), label=0)]).drop_duplicates(['user_id','item_id'])
    learn = collab_learner(CollabDataLoaders.implicit_from_df(df, label_name='label', bs=64, seed=1, valid_pct=0), 8, **kwargs)
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(5, 2e-2, wd=.1)
    return learn

def weighted(**kwargs):
    df = DF[~NEW].assign(w=1+DF[~NEW].item_id%3)
    learn = collab_learner(CollabDataLoaders.implicit_from_df(df, weight_name='w', n_neg=4, bs=64, seed=1, valid_pct=0), 8, **kwargs)
    with learn.quiet(): learn.fit_one_cycle(3, 2e-2, wd=.1)
    return learn

STARS = DF.assign(rating=np.random.RandomState(0).randint(1, 6, len(DF)))
RATED = {'stars': lambda: starred(y_range=(.5,5.5)), 'classes': lambda: starred(arch=NeuMF, config=dict(n_out=5), loss_func=ClassLoss(1)),
    'labels': lambda: labelled(loss_func=BCE()), 'probabilities of labels': lambda: labelled(loss_func=BCE(), y_range=(0,1)), 'rows that weigh': lambda: weighted(loss_func=BPRLoss())}
every_kind = pytest.mark.parametrize('kind', [*CASES, *RATED])

def trained_once(kind):
    if kind not in LEARNERS and kind in RATED: LEARNERS[kind] = RATED[kind]()
    return LEARNERS[kind] if kind in RATED else cold(kind)

def rated(kind, items):
    "A history of some items as this kind of learner takes it"
    if kind in ('stars','classes'): return {i: 1+i%5 for i in items}
    return {i: i%2 for i in items} if 'labels' in kind else items

@every_kind
def test_people_solved_for_together_are_those_solved_for_alone(kind):
    "Histories of one item, of nearly all, of none"
    rec = trained_once(kind).recommender
    rs = np.random.RandomState(3)
    told = [rated(kind, rs.permutation(DF.item_id.unique())[:n].tolist()) for n in (1,5,60,2,75,30,1,12)]
    histories = [*rec._histories(told, 'raise'),(torch.zeros(0).long(),torch.zeros(0).double())]
    alone = torch.cat([rec.score_history([h]) for h in histories])
    for cells in (2**20,4000,1): torch.testing.assert_close(rec.score_history(histories, cells), alone, rtol=1e-5, atol=1e-5)

@every_kind
def test_liking_an_item_never_makes_it_less_likely(kind):
    "Nor lowers its score, where a score stands for itself"
    rec = trained_once(kind).recommender
    prior,noise = rec._prior()
    best = torch.tensor([rec.train.best_rating]).double()
    for row in torch.from_numpy(rec.items.encode(DF.item_id.unique())):
        likelihood = rec._likelihood([(row[None],best)], noise)
        us = torch.stack([prior.mean,fold_in(rec.model, prior, row[None], best, likelihood=likelihood)])
        before,after = (likelihood.cost(_scores(rec, o[None], likelihood)) for o in us)
        assert after<before
        low,high = score_vector(rec.model, prior, us, rec.n_items)[:,row]
        assert high>low or type(likelihood) is not Pointwise

@every_kind
def test_a_bundle_and_http_give_the_same_lists(kind, tmp_path):
    learn = trained_once(kind)
    told = [rated(kind, HISTORY),rated(kind, HISTORY[:1])]
    want = learn.recommend(history=told, k=9)
    rec = load_bundle(learn.save_bundle(tmp_path/'b'))
    pd.testing.assert_frame_equal(rec.recommend(history=told, k=9), want, rtol=1e-5, atol=1e-6)
    sent = [[dict(item_id=i, rating=r) for i,r in h.items()] if isinstance(h, dict) else h for h in told]
    with TestClient(make_app(rec)) as web: rows = web.post('/recommend', json=dict(history=sent, k=9)).json()
    pd.testing.assert_frame_equal(pd.DataFrame(rows), want, check_dtype=False, rtol=1e-5, atol=1e-6)

@pytest.mark.parametrize('kind', ['bpr','softmax','stars'])
def test_no_more_derivatives_are_written_out_than_are_asked_for(kind, monkeypatch):
    import recfast.scorer
    rec,sizes = trained_once(kind).recommender,[]
    def solve(model, prior, likelihood):
        sizes.append((len(likelihood.rows),likelihood.rows.numel()*len(prior.mean)))
        return fold_in_many(model, prior, likelihood)
    fold_in_many = recfast.scorer.most_probable
    monkeypatch.setattr(recfast.scorer, 'most_probable', solve)
    rec.score_history(rec._histories([rated(kind, h) for h in GIVEN.values()], 'raise'), 4000)
    assert sum(n for n,_ in sizes)==len(GIVEN) and all(cells<=4000 or n==1 for n,cells in sizes) and max(n for n,_ in sizes)>1

def test_a_history_longer_than_its_neighbours_changes_nothing():
    for loss in (*LOSSES.values(),CosineContrastiveLoss()):
        counts,items = torch.ones(9),[torch.tensor([3]),torch.tensor([1,5,2,7])]
        both = loss.likelihood(of_people([(o,torch.ones(len(o))) for o in items], counts=counts, n_neg=3))
        s = torch.randn(9, generator=torch.Generator().manual_seed(0)).double()
        for j,o in enumerate(items):
            own = loss.likelihood(History(o, torch.ones(len(o)), counts=counts, n_neg=3))
            assert both.cost(s[both.rows])[j].item()==pytest.approx(own.cost(s[own.rows]).item())

def test_a_smooth_function_from_its_nodes():
    for width in (.5,8.,40.):
        x = width*torch.rand(2, 300, generator=torch.Generator().manual_seed(0)).double()
        points,phi = nodes(x)
        assert points.shape[1]<(200 if width<40 else 301)
        for f in (torch.sigmoid,lambda o: F.softplus(-o)): torch.testing.assert_close((phi@f(points-3)[...,None])[...,0], f(x-3), rtol=0, atol=2e-6)
    few = torch.tensor([0.,50.]).double()
    assert nodes(few)[0] is few # where the items are fewer than the points


# the formulas

def told(loss, s, n=2, **kwargs):
    "The likelihood of the first `n` of 6 items with scores `s`"
    counts = torch.tensor([9,4,1,2,8,5,0]) # row 0 is nobody, row 6 was never trained
    return loss.likelihood(History(torch.arange(1, n+1), torch.ones(n), counts=counts, **kwargs)),s

S = torch.tensor([7.,.3,-1.,2.,.5,-.2,4.]).double()

def test_bpr_by_hand():
    likelihood,s = told(BPRLoss(), S, alpha=1.)
    want = -sum(q*F.logsigmoid(S[i]-S[k]) for i in (1,2) for k,q in ((3,2/15),(4,8/15),(5,5/15)))
    assert likelihood.cost(s[likelihood.rows]).item()==pytest.approx(want.item())

def test_cross_entropy_by_hand():
    likelihood,s = told(BCE(), S, n_neg=3)
    want = sum(F.softplus(-S[i])+3*sum(F.softplus(S[k])/3 for k in (3,4,5)) for i in (1,2))
    assert likelihood.cost(s[likelihood.rows]).item()==pytest.approx(want.item())
    probable,_ = told(BCE((0,1)), S, n_neg=3)
    assert probable.cost(torch.sigmoid(s[likelihood.rows])).item()==pytest.approx(want.item())

def test_softmax_by_hand():
    likelihood,s = told(SoftmaxLoss(.5), S)
    want = -(S[1:6]/.5).log_softmax(0)[:2].sum()
    assert likelihood.cost(s[likelihood.rows]).item()==pytest.approx(want.item())

def test_softmax_of_an_item_that_was_never_trained():
    likelihood = SoftmaxLoss().likelihood(History(torch.tensor([3]), torch.ones(1), counts=[0,1,1,0]))
    s = torch.tensor([0.,1.,2.,.5]).double()
    assert likelihood.cost(s[likelihood.rows]).item()==pytest.approx(-s[1:].log_softmax(0)[2].item())

@pytest.mark.parametrize('log_q,weights', [(True,[1.,1.,1.]), (False,[4*2/15,4*8/15,4*5/15])])
def test_sampled_softmax_by_hand(log_q, weights):
    likelihood,s = told(SampledSoftmaxLoss(.5, log_q), S, alpha=1., n_neg=4)
    others = (torch.tensor(weights).double()*(S[3:6]/.5).exp()).sum()
    want = sum(torch.log(1+others/(S[i]/.5).exp()) for i in (1,2))
    assert likelihood.cost(s[likelihood.rows]).item()==pytest.approx(want.item())

def test_squares_by_hand():
    likelihood,s = told(RMSELoss(), S, noise=2., n_neg=3, alpha=1.)
    want = sum(((S[i]-1)**2+3*(2*S[3]**2+8*S[4]**2+5*S[5]**2)/15)/4 for i in (1,2))
    assert likelihood.cost(s[likelihood.rows]).item()==pytest.approx(want.item())

def test_cosine_contrastive_by_hand():
    "The hinge, but for its corner, which is round"
    likelihood,s = told(CosineContrastiveLoss(.4, 6.), S/10, alpha=1.)
    want = sum(1-s[i]+6*sum(q*F.relu(s[k]-.4) for k,q in ((3,2/15),(4,8/15),(5,5/15))) for i in (1,2))
    assert likelihood.cost(s[likelihood.rows]).item()==pytest.approx(want.item(), abs=2*6*.05*np.log(2))
    s[3:6] = torch.tensor([.9,-.1,.8]).double() # away from the corner nothing is round
    want = sum(1-s[i]+6*sum(q*F.relu(s[k]-.4) for k,q in ((3,2/15),(4,8/15),(5,5/15))) for i in (1,2))
    assert likelihood.cost(s[likelihood.rows]).item()==pytest.approx(want.item(), abs=1e-3)
    J = torch.randn(len(likelihood.rows), 3, generator=torch.Generator().manual_seed(0)).double()
    u = torch.tensor([.1,.2,-.1]).double()
    torch.testing.assert_close(likelihood.expand(J@u, J)[1], torch.autograd.functional.jacobian(lambda u: likelihood.cost(J@u), u))

LOSSES = {'bpr': BPRLoss(), 'bce': BCE(), 'softmax': SoftmaxLoss(.7), 'sampled': SampledSoftmaxLoss(.7), 'not corrected': SampledSoftmaxLoss(.7, False), 'squares': RMSELoss()}

@pytest.mark.parametrize('loss', LOSSES)
def test_gradient_and_curvature_are_those_of_the_cost(loss):
    likelihood,_ = told(LOSSES[loss], S, n_neg=3, alpha=.5, noise=.7)
    g = torch.Generator().manual_seed(0)
    J,u,d = (torch.randn(*o, generator=g).double() for o in ((len(likelihood.rows),3),(3,),(3,)))
    cost = lambda u: likelihood.cost(J@u)
    price,grad,curve = likelihood.expand(J@u, J)
    assert price.item()==pytest.approx(likelihood.cost(J@u).item())
    hessian = torch.autograd.functional.hessian(cost, u)
    torch.testing.assert_close(grad, torch.autograd.functional.jacobian(cost, u))
    torch.testing.assert_close(curve, hessian)
    torch.testing.assert_close(likelihood.parts(J@u, J, d).sum(0), hessian@d-grad)

@pytest.mark.parametrize('loss', ['bpr','bce','sampled','not corrected'])
def test_the_loss_in_training_is_the_likelihood_where_every_negative_comes_once(loss):
    "One click, uniform draws, as many negatives as there are: nothing is left to the draw"
    likelihood = LOSSES[loss].likelihood(History(torch.tensor([1]), torch.ones(1), counts=[0,1,1,1,1], n_neg=3))
    s = torch.tensor([.5,-1.,2.,0.]).double()
    if loss=='bpr': want = LOSSES[loss].blocks(s[None]).item()
    elif loss=='bce': want = LOSSES[loss].rows(s, torch.tensor([1.,0,0,0]).double()).sum().item()
    else: want = -(s/.7).log_softmax(0)[0].item()
    assert likelihood.cost(s[likelihood.rows-1]).item()==pytest.approx(want)

def test_someone_who_has_everything_has_no_negatives():
    for loss in LOSSES.values():
        likelihood = loss.likelihood(History(torch.arange(1, 4), torch.ones(3), counts=[0,1,1,1], n_neg=3))
        s,J = torch.zeros(len(likelihood.rows)).double(),torch.ones(len(likelihood.rows), 2).double()
        assert likelihood.cost(s).isfinite() and all(o.isfinite().all() for o in likelihood.expand(s, J))
        assert likelihood.parts(s, J, torch.ones(2).double()).isfinite().all()

def test_a_table_of_pairs_is_made_in_slices():
    likelihood,s = told(BPRLoss(), S)
    J = torch.randn(len(likelihood.rows), 3).double()
    whole,sliced = [],[]
    for likelihood.cells,out in ((2**20,whole),(1,sliced)):
        out += [likelihood.cost(s[likelihood.rows]),*likelihood.expand(s[likelihood.rows], J),likelihood.parts(s[likelihood.rows], J, J[0])]
    for a,b in zip(whole, sliced): torch.testing.assert_close(a, b)


# losses that say nothing, losses of others

class Mine(FlatLoss):
    def rows(self, out, y): return (out-y).abs()**1.5

def mine(out, y): return (out.view(-1)-y.view(-1)).abs().mean()

@pytest.mark.parametrize('loss,name', [(Mine(),'Mine'), (mine,'mine')])
def test_a_loss_that_does_not_say_is_not_taken_for_another(loss, name, tmp_path):
    dls = CollabDataLoaders.from_df(DF.assign(rating=1+DF.item_id%5), bs=64, seed=1)
    learn = collab_learner(dls, 4, loss_func=loss)
    rec = load_bundle(learn.save_bundle(tmp_path/'b'))
    for o in (learn,rec):
        for ask in (o.recommend,o.explain):
            with pytest.raises(NotImplementedError, match=rf'{name} does not say.*likelihood\(history\)'): ask(history=[1,2])
        assert len(o.recommend([1], k=3))==3
    with TestClient(make_app(rec)) as web:
        answer = web.post('/recommend', json=dict(history=[1]))
        assert answer.status_code==422 and name in answer.json()['detail'] and not web.get('/health').json()['can']['history']
    again = load_bundle(tmp_path/'b', loss=RMSELoss())
    assert len(again.recommend(history=[1,2], k=3))==3

def test_a_loss_of_ones_own_that_says():
    class Told(Mine):
        def likelihood(self, history): return RMSELoss().likelihood(history)
    dls = CollabDataLoaders.from_df(DF.assign(rating=1+DF.item_id%5), bs=64, seed=1)
    assert len(collab_learner(dls, 4, loss_func=Told()).recommend(history=[1,2], k=3))==3

@pytest.mark.parametrize('loss,cls', [(MSELossFlat(),RMSELoss), (L1LossFlat(),RMSELoss), (nn.SmoothL1Loss(),RMSELoss), (nn.HuberLoss(),RMSELoss), (F.mse_loss,RMSELoss),
    (BCEWithLogitsLossFlat(),BCE), (nn.BCELoss(),BCE), (nn.CrossEntropyLoss(),ClassLoss)])
def test_losses_of_torch_and_fastai(loss, cls): assert type(known_loss(loss)) is cls and type(make_loss(loss_spec(loss))) is cls

def test_cross_entropy_of_probabilities(): assert known_loss(nn.BCELoss()).y_range==(0,1)==make_loss(loss_spec(nn.BCELoss())).y_range

@pytest.mark.parametrize('loss', [BCE((0,1)), BPRLoss(), ClassLoss(1), CosineContrastiveLoss(.2, 5.), SoftmaxLoss(.3), SampledSoftmaxLoss(.4, False)])
def test_arguments_come_back_from_json(loss):
    again = make_loss(json.loads(json.dumps(loss_spec(loss))))
    assert type(again) is type(loss) and loss_spec(again)['args'].keys()==loss_spec(loss)['args'].keys()
    for k,v in loss_spec(loss)['args'].items(): assert np.array_equal(getattr(again, k), v)

def test_clicks_with_a_loss_that_nobody_named():
    learn = cold('bpr')
    rec = Recommender(learn.model, learn.dls.interactions('all'))
    with pytest.raises(NotImplementedError, match=r'loss=BPRLoss\(\)'): rec.recommend(history=[1])
    named = Recommender(learn.model, learn.dls.interactions('all'), loss=BPRLoss())
    assert named.recommend(history=HISTORY).equals(learn.recommend(history=HISTORY)) # draws as implicit_from_df has them by default

def test_another_loss_of_a_learner_is_noticed():
    learn = trained('bpr', DF[~NEW], 1)
    before = learn.recommend(history=HISTORY, k=5)
    learn.loss_func = SoftmaxLoss()
    assert not np.allclose(before.score, learn.recommend(history=HISTORY, k=5).score)

@pytest.mark.parametrize('case', ['bpr','bce','probabilities','softmax','sampled',"fastai's bce"])
def test_a_bundle_of_before_is_read_by_the_name_of_its_loss(case, tmp_path):
    learn = cold(case)
    path = learn.save_bundle(tmp_path/'b')
    config = json.loads((path/'config.json').read_text(encoding='utf-8'))
    for k in ('loss','draws'): del config[k]
    if config['training']['loss']=='BCE': config['training']['loss'] = 'function' # what it was called
    (path/'config.json').write_text(json.dumps(_signed(config)), encoding='utf-8')
    rec = load_bundle(path)
    want = learn.recommend(history=HISTORY, k=5)
    assert rec.draws['n_neg']==4
    pd.testing.assert_frame_equal(rec.recommend(history=HISTORY, k=5), want, rtol=1e-5, atol=1e-6)

@pytest.mark.parametrize('loss,name', [(FocalLossFlat(),'FocalLoss'), (LabelSmoothingCrossEntropyFlat(),'LabelSmoothingCrossEntropy'),
    (BCEWithLogitsLossFlat(pos_weight=torch.tensor(3.)),r'BCEWithLogitsLoss\(pos_weight\)'), (nn.BCELoss(weight=torch.ones(1)),r'BCELoss\(weight\)'),
    (nn.CrossEntropyLoss(label_smoothing=.1),r'CrossEntropyLoss\(label_smoothing\)'), (CrossEntropyLossFlat(weight=torch.ones(5)),r'CrossEntropyLoss\(weight\)'),
    (nn.PoissonNLLLoss(),'PoissonNLLLoss'), (nn.SoftMarginLoss(),'SoftMarginLoss')])
def test_a_loss_that_is_nearly_a_known_one_is_not_taken_for_it(loss, name):
    history = History(torch.tensor([1]), torch.ones(1), counts=[0,1,1])
    with pytest.raises(NotImplementedError, match=rf'{name} does not say.*likelihood\(history\)'): known_loss(loss).likelihood(history)
    spec = json.loads(json.dumps(loss_spec(loss))) # as a bundle has it
    with pytest.raises(NotImplementedError, match=name): known_loss(make_loss(spec)).likelihood(history)


# stars as classes

def test_classes_by_hand():
    s = torch.randn(3, 5, generator=torch.Generator().manual_seed(0)).double()
    likelihood = ClassLoss(1).likelihood(History(torch.tensor([4,2,7]), torch.tensor([5.,1.,3.])))
    assert likelihood.rows.tolist()==[4,2,7]
    assert likelihood.cost(s).item()==pytest.approx(-(s[0].log_softmax(0)[4]+s[1].log_softmax(0)[0]+s[2].log_softmax(0)[2]).item())

def test_classes_of_clicks_have_their_negatives():
    likelihood = known_loss(CrossEntropyLossFlat()).likelihood(History(torch.tensor([2]), torch.ones(1), counts=[0,1,3,1], n_neg=4, alpha=1.))
    s = torch.randn(3, 2, generator=torch.Generator().manual_seed(0)).double()
    want = -s[0].log_softmax(0)[1]-4*(s[1].log_softmax(0)[0]+s[2].log_softmax(0)[0])/2
    assert likelihood.rows.tolist()==[2,1,2,3] and likelihood.cost(s[[0,1,0,2]]).item()==pytest.approx(want.item()) # what was told has no share

def test_someone_new_under_a_class_head(tmp_path):
    learn = trained_once('classes')
    rec = learn.recommender
    items,stars = torch.tensor([3,9,4]),torch.tensor([5.,1.,4.])
    prior,noise = rec._prior()
    likelihood = rec._likelihood([(items,stars)], noise)
    u = fold_in(rec.model, prior, items, stars, likelihood=likelihood)
    def logits(params): return torch.func.functional_call(rec.model, params, (torch.stack([torch.zeros_like(items),items], 1),))
    def cost(flat):
        own = {k: flat[a:b].view(1, -1).expand(1, -1) for k,(a,b) in _places(prior).items()}
        d = flat.double()-prior.mean
        return F.cross_entropy(logits(own), (stars-1).long(), reduction='sum').double()+d@prior.precision@d/2
    with evaluating(rec.model):
        assert cost(u.float())<cost(prior.mean.float())
        for _ in range(20): assert cost(u.float())<=cost((u+.05*torch.randn(len(u), generator=torch.Generator().manual_seed(_))*prior.mean.std()).float())+1e-3
    why = learn.explain(history={3: 5, 9: 1}, k=2)
    want = learn.recommend(history={3: 5, 9: 1}, k=2)
    assert why.groupby('item_id', sort=False).contribution.sum().tolist()==pytest.approx(want.score.tolist(), rel=1e-4)
    pd.testing.assert_frame_equal(load_bundle(learn.save_bundle(tmp_path/'b')).recommend(history={3: 5, 9: 1}, k=2), want, rtol=1e-5)

def _places(prior):
    "Where each user table lies in a user vector"
    ends = np.cumsum([max(1, s.numel()) for s in prior.shapes.values()])
    return {k: (e-max(1, s.numel()),e) for (k,s),e in zip(prior.shapes.items(), ends)}


# labels

def test_labels_count_as_they_are_given():
    learn = trained_once('labels')
    assert learn.recommender._likelihood([(torch.tensor([1,2]),torch.tensor([1.,0.]))], 1.).rows.tolist()==[[1,2]]
    score = lambda h: learn.recommend(history=h, item_ids=[3], exclude_seen=False).score[0]
    assert score({3: 0})<score({3: 1})

def test_a_dislike_where_there_are_clicks_only():
    for case in ('bpr','bce','softmax'):
        with pytest.raises(RatingsError, match='trained on clicks'): cold(case).recommend(history={3: 0})


def test_new_people_on_movielens(ml100k_dir):
    r = ml_100k()[['user_id','item_id']]
    rs = np.random.RandomState(11)
    new = r.user_id.isin(rs.permutation(r.user_id.unique())[:200]).to_numpy()
    half = rs.rand(len(r))<.5
    known = set(r.item_id[~new])
    given,want = ({u: [i for i in g.item_id if i in known] for u,g in r[o].groupby('user_id')} for o in (new&half,new&~half))
    users = [u for u in want if given.get(u)]
    def fit(d):
        dls = CollabDataLoaders.implicit_from_df(d, bs=512, seed=1, valid_pct=0)
        learn = collab_learner(dls, 32, loss_func=BPRLoss())
        with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(8, 1e-2, wd=.2)
        return learn
    def quality(lists):
        gain = 1/np.log2(np.arange(2, 12))
        return np.array([sum(g for g,i in zip(gain, lists[u]) if i in set(want[u]))/gain[:min(10, len(want[u]))].sum() for u in users])
    cold = fit(r[~new])
    lists = by_user(cold.recommend(history=[given[u] for u in users], k=10))
    popular = r.item_id[~new].value_counts(sort=True).index
    folded,trained = quality(dict(zip(users, lists))),quality(by_user(fit(r[~new|half]).recommend(users, k=10)))
    pop = quality({u: [i for i in popular if i not in set(given[u])][:10] for u in users})
    assert folded.mean()>=.93*trained.mean() and (folded-pop).mean()>3*(folded-pop).std()/len(pop)**.5
    for item in popular[:20]: assert cold.explain(history=[item], item_ids=[item]).contribution.iloc[0]>0


# many numbers: single precision, one logarithm for four

@pytest.mark.parametrize('alpha', [0.,.5])
@pytest.mark.parametrize('loss', ['bpr','softmax','sampled','bce'])
def test_a_long_history_against_a_large_catalogue_by_hand(loss, alpha):
    g = torch.Generator().manual_seed(0)
    counts = torch.randint(1, 50, (2003,), generator=g)
    likelihood = LOSSES[loss].likelihood(History(torch.arange(1, 61), torch.ones(60), counts=counts, n_neg=3, alpha=alpha))
    J,u = torch.randn(len(likelihood.rows), 20, generator=g).double(),torch.randn(20, generator=g).double()
    s,q = J@u,counts[1:].double()**alpha
    q[:60] = 0.
    by_pairs = lambda u: -(F.logsigmoid((J@u)[:60,None]-(J@u)[None,60:])@(q/q.sum())).sum()
    cost = by_pairs if loss=='bpr' else lambda u: likelihood.cost(J@u)
    _,grad,curve = likelihood.expand(s, J)
    slope,bend = (o(cost, u) for o in (torch.autograd.functional.jacobian,torch.autograd.functional.hessian))
    assert likelihood.cost(s).item()==pytest.approx(cost(u).item(), rel=1e-5)
    torch.testing.assert_close(grad, slope, rtol=1e-4, atol=1e-5*float(slope.abs().max()))
    torch.testing.assert_close(curve, bend, rtol=1e-4, atol=1e-5*float(bend.abs().max()))

@pytest.mark.parametrize('spread', [1.,30.,500.,1e4])
def test_scores_of_any_size(spread):
    "Differences of hundreds neither overflow nor vanish"
    s = spread*torch.linspace(-1, 1, 400).double()
    likelihood = BPRLoss().likelihood(History(torch.arange(1, 101), torch.ones(100), counts=torch.ones(401)))
    want = -F.logsigmoid(s[:100,None]-s[None,100:]).mean(1).sum()
    s = s[likelihood.rows-1]
    if spread<1e4: assert likelihood.cost(s).item()==pytest.approx(want.item(), rel=1e-5)
    assert all(o.isfinite().all() for o in likelihood.expand(s, torch.ones(500, 2).double()))
