"SVD++ on both sides and ordered levels: against hand-made numbers, at every door"
import numpy as np
import pandas as pd
import pytest
import torch
from fastapi.testclient import TestClient

from helpers import fit_one_cycle, without_progress
from recfast.bundle import load_bundle
from recfast.core import RatingsError
from recfast.data.datasets import movie_night
from recfast.data.loaders import CollabDataLoaders
from recfast.learner import collab_learner
from recfast.losses import loss_name, loss_spec, make_loss
from recfast.models.dot import DotProduct, DotProductBias
from recfast.models.ncf import NeuMF
from recfast.models.svdpp import SVDpp
from recfast.ordinal import OrdinalHead, OrdinalLoss, likely_ranges, ordinal_cost
from recfast.serve import make_app
from recfast.testing import synth_ratings

def stars(n=1200):
    "Whole stars"
    df = synth_ratings().head(n)
    return df.assign(rating=df.rating.round().clip(1, 5))

def loaders(df, **kwargs): return CollabDataLoaders.from_df(df, **{'bs': 64, 'seed': 0, 'valid_pct': 0, **kwargs})

@pytest.fixture(scope='module')
def learn(): return fit_one_cycle(collab_learner(loaders(stars()), 6, arch=SVDpp), None, None)

def dense(model, train, u, i):
    "A score by the formula, with loops; in training without the pair's own part"
    p,q,y,x = (getattr(model, o).weight.detach().double() for o in ('u_weight','i_weight','i_told','u_told'))
    R = model.seen.toarray()
    mine,theirs = np.flatnonzero(R[u]),np.flatnonzero(R[:,i])
    own = train and R[u,i]
    a = p[u]+sum((y[j] for j in mine if not (own and j==i)), torch.zeros_like(p[u]))/max(1, len(mine))**.5
    b = q[i]+sum((x[v] for v in theirs if not (own and v==u)), torch.zeros_like(p[u]))/max(1, len(theirs))**.5
    return (a[:-1]@b[:-1]+a[-1]+b[-1]).item()

@pytest.mark.parametrize('train', [True,False])
def test_scores_are_those_of_the_formula(learn, train):
    model = learn.model.train(train)
    rows = learn.dls.interactions('train')
    x = torch.cat([rows.pairs()[:10],torch.tensor([[1,0],[0,1],[3,7]])])
    out = model(x)[:,0].tolist()
    model.eval()
    np.testing.assert_allclose(out, [dense(model, train, *o) for o in x.tolist()], rtol=1e-4, atol=1e-5)

def test_the_gradient_of_the_sums_is_that_of_autograd():
    dls = loaders(stars())
    model = collab_learner(dls, 3, arch=SVDpp).model.train()
    x = dls.interactions('train').pairs()[:50]
    model(x).square().sum().backward()
    R = torch.from_numpy(model.seen.toarray())
    free = {k: p.detach().double().requires_grad_() for k,p in model.named_parameters() if p.ndim==2}
    p,q,y,t = (free[f'{o}.weight'] for o in ('u_weight','i_weight','i_told','u_told'))
    u,i = x.T
    n,m = R.sum(1).clamp(min=1).double()[u,None]**-.5,R.sum(0).clamp(min=1).double()[i,None]**-.5
    a,b = p[u]+n*((R.double()@y)[u]-y[i]),q[i]+m*((R.T.double()@t)[i]-t[u])
    ((a[:,:-1]*b[:,:-1]).sum(1)+a[:,-1]+b[:,-1]).square().sum().backward()
    for k,o in free.items(): torch.testing.assert_close(model.get_parameter(k).grad.double(), o.grad, rtol=1e-3, atol=1e-4)

def test_repeats_count_once():
    df = stars()
    twice = collab_learner(loaders(pd.concat([df,df.head(20)])), 3, arch=SVDpp).model
    assert twice.seen.max()==1 and twice.seen.nnz==df.drop_duplicates(['user_id','item_id']).shape[0]

def test_no_test_rating_moves_a_prediction():
    "The ratings that are held out may be anything"
    df = stars()
    held = df.index%5==0
    other = df.assign(rating=np.where(held, 6-df.rating, df.rating))
    def scores(df):
        dls = CollabDataLoaders.from_df(df.assign(is_valid=held), splits='is_valid', bs=64, seed=0)
        learn = fit_one_cycle(collab_learner(dls, 6, arch=SVDpp), 2, 1e-2)
        return learn.predict(df.user_id[held].to_numpy(), df.item_id[held].to_numpy(), on_unknown='fallback')
    assert (scores(df)==scores(other)).all()

def test_without_a_row_scores_in_training_are_those_left_out(learn):
    "What leave-one-out takes away is what the same model without that row never had, but for the full count"
    model,rows = learn.model,learn.dls.interactions('train')
    u,i = rows.pairs()[0].tolist()
    with torch.no_grad():
        model.train()
        out = model(torch.tensor([[u,i]])).item()
        model.eval()
        a,b = (o.clone() for o in model._told(torch.tensor([u]), torch.tensor([i])))
        a,b = a-model.of_user[u]*model.i_told.weight[i],b-model.of_item[i]*model.u_told.weight[u]
        a,b = a+model.u_weight.weight[u],b+model.i_weight.weight[i]
    assert out==pytest.approx((a[:,:-1]*b[:,:-1]).sum().item()+a[0,-1].item()+b[0,-1].item(), abs=1e-5)

def test_the_same_answers_from_a_bundle_and_over_http(learn, tmp_path):
    told = {1: 5, 2: 1, 3: 4}
    want = learn.recommend(history=told, k=5)
    rec = load_bundle(learn.save_bundle(tmp_path/'b'))
    pd.testing.assert_frame_equal(rec.recommend(history=told, k=5), want)
    pd.testing.assert_frame_equal(rec.recommend([1,2], k=5), learn.recommend([1,2], k=5))
    np.testing.assert_array_equal(rec.predict([1,2], [3,4], dist=True), learn.predict([1,2], [3,4], dist=True))
    with TestClient(make_app(rec)) as web:
        rows = web.post('/recommend', json=dict(history=[dict(item_id=k, rating=v) for k,v in told.items()], k=5)).json()
    assert [o['item_id'] for o in rows]==want.item_id.tolist()

def test_liking_an_item_raises_its_score(learn):
    items = learn.dls.interactions('train').item_vocab.decode(np.arange(1, 20)).tolist()
    def score(told, item): return dict(learn.recommend(history=told, k=100, exclude_seen=False)[['item_id','score']].to_numpy())[item]
    for item in items[:8]: assert score({item: 5}, item)>=score({item: 1}, item)

def test_somebody_new_with_a_known_persons_ratings_gets_scores_near_theirs():
    dls = loaders(movie_night(), item_name='title', bs=256)
    learn = fit_one_cycle(collab_learner(dls, arch=SVDpp), None, None)
    df = movie_night()
    near = []
    for u in df.user_id.unique()[:20]:
        told = df[df.user_id==u].drop_duplicates('title').set_index('title').rating.to_dict()
        mine,new = (o.set_index('item_id').score for o in (learn.recommend([u], k=300), learn.recommend(history=told, k=300)))
        near.append(np.corrcoef(mine, new.reindex(mine.index))[0,1])
    assert np.mean(near)>.9

# levels

@pytest.mark.parametrize('levels', [[1,2,3,4,5],[.5,1,1.5,2],[0,10]])
def test_a_cost_is_the_negative_log_of_its_probability(levels):
    n = len(levels)-1
    head = OrdinalHead(levels, torch.linspace(-2, 2, n)).double()
    s = torch.linspace(-6, 6, 25).double()
    p = head.probabilities(s)
    torch.testing.assert_close(p.sum(-1), torch.ones(25).double())
    for c in range(n+1): torch.testing.assert_close(ordinal_cost(s, head.cuts(), torch.full((25,), c)), -p[:,c].log(), rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(head(s), p@head.levels)
    far = ordinal_cost(torch.tensor([-80.,80.]), head.cuts().float(), torch.tensor([n,0]))
    assert far.isfinite().all() and (far>60).all()

@pytest.mark.parametrize('arch', [DotProduct,DotProductBias,NeuMF,SVDpp])
def test_every_pair_model_trains_under_it_and_answers_in_ratings(arch):
    df = stars()
    learn = fit_one_cycle(collab_learner(loaders(df, valid_pct=.2), 6, arch=arch, loss_func=OrdinalLoss()), 5, 1e-2)
    cuts = learn.loss_func.cuts
    assert cuts==sorted(cuts)
    p = learn.predict(df.user_id[:50].to_numpy(), df.item_id[:50].to_numpy())
    dist = learn.predict(df.user_id[:50].to_numpy(), df.item_id[:50].to_numpy(), dist=True)
    assert ((p>1)&(p<5)).all() and list(dist.columns)==[1,2,3,4,5]
    np.testing.assert_allclose(dist.sum(1), 1, atol=1e-5)
    np.testing.assert_allclose(dist.to_numpy()@np.arange(1, 6), p, atol=1e-4)
    got = learn.recommend([1], k=3, exclude_seen=False)
    np.testing.assert_allclose(got.score, learn.predict(1, got.item_id.to_numpy()), rtol=1e-5, atol=1e-5)
    shown,targets = learn.get_preds()
    assert learn.evaluate(metrics=['rmse'])['rmse']==pytest.approx((shown.flatten()-targets.flatten()).square().mean().sqrt().item(), abs=1e-5)
    assert 1<=learn.recommend(history={1: 5}, k=1).score[0]<=5

def test_half_stars_are_levels_of_their_own():
    df = stars().assign(rating=lambda d: d.rating/2)
    learn = fit_one_cycle(collab_learner(loaders(df), 6, arch=SVDpp), 2, 1e-2)
    assert learn.loss_func.levels==[.5,1,1.5,2,2.5]
    assert list(learn.predict(1, 1, dist=True).index)==[.5,1,1.5,2,2.5]

def test_its_settings_go_through_json():
    loss = OrdinalLoss([1,2,3], [-1.,2.])
    again = make_loss(loss_spec(loss))
    assert again.levels==[1,2,3] and again.cuts==[-1,2]

def test_what_has_no_levels_is_refused():
    df = stars()
    clicks = CollabDataLoaders.implicit_from_df(df[['user_id','item_id']], bs=64)
    with pytest.raises(RatingsError, match='these rows are clicks|from 2 to 100'): collab_learner(clicks, arch=SVDpp, loss_func=OrdinalLoss())
    with pytest.raises(TypeError, match='leave y_range out'): collab_learner(loaders(df), arch=SVDpp, y_range=(0,5.5), loss_func=OrdinalLoss())
    noise = df.assign(rating=np.random.default_rng(0).normal(size=len(df)))
    with pytest.raises(RatingsError, match='from 2 to 100'): collab_learner(loaders(noise), arch=SVDpp, loss_func=OrdinalLoss())
    assert loss_name(collab_learner(loaders(noise), arch=SVDpp).loss_func)=='MSELoss'
    dls = loaders(df.assign(rating=df.rating.clip(1, 4).where(df.index>20, 4.5), is_valid=df.index<=20), valid_pct=None, splits='is_valid')
    learn = collab_learner(dls, arch=SVDpp)
    with pytest.raises(RatingsError, match='none of the levels'): fit_one_cycle(learn, 1, 1e-2)
    plain = collab_learner(loaders(df), y_range=(0,5.5))
    with pytest.raises(ValueError, match='train it with loss_func=OrdinalLoss'): plain.predict(1, 1, dist=True)
    with pytest.raises(ValueError, match='no distribution'): learn.predict(1, 1, on_unknown='fallback', dist=True)

def test_one_line_trains_it_as_it_likes(capsys):
    learn = collab_learner(loaders(movie_night(), item_name='title'), arch=SVDpp)
    assert learn.model.hyper['n_factors']==24
    with learn.no_bar(): learn.fit_one_cycle()
    assert 'SVDpp: ' in capsys.readouterr().out
    assert learn.dls.train.bs==64 and learn.n_trained==7

# where a rating likely lies

def within(expected, ratings, levels, ranges, rng):
    "The share of ratings in the range of their expectation, each level taken as wide as it reaches halfway to the next"
    ends = np.concatenate([levels[:1],(levels[1:]+levels[:-1])/2,levels[-1:]])
    c = np.abs(ratings[:,None]-levels).argmin(1)
    spread = rng.uniform(ends[c], ends[c+1])
    low,high = (np.interp(expected, ranges[:,0], ranges[:,i]) for i in (1,2))
    return ((low<=spread)&(spread<=high)).mean()

@pytest.mark.parametrize('levels,cuts', [([1,2,3,4,5],[-3,-1.5,0,1.5]), (np.arange(1,11)/2,np.linspace(-4,3,9)), ([0,1,10],[-1,1]), ([1,2],[0])], ids=['stars','halves','uneven','two'])
@pytest.mark.parametrize('share', [.5,2/3,.9])
def test_ranges_hold_the_share_they_say(levels, cuts, share):
    head,rng = OrdinalHead(levels, cuts),np.random.default_rng(0)
    s = torch.from_numpy(rng.normal(0, 2, 40_000))
    with torch.no_grad(): expected,p = (o(s).numpy() for o in (head,head.probabilities))
    levels = np.asarray(levels, float)
    ratings = levels[(rng.random(len(p))[:,None]>p.cumsum(1)[:,:-1]).sum(1)]
    ranges = likely_ranges(head, 400, share)
    assert within(expected, ratings, levels, ranges, rng)==pytest.approx(share, abs=.01)
    assert (ranges[:,1]>=levels[0]).all() and (ranges[:,2]<=levels[-1]).all()

def test_ranges_hold_that_share_of_ratings_that_were_held_out():
    dls = CollabDataLoaders.from_df(movie_night(), item_name='title', seed=42)
    learn = without_progress(collab_learner(dls, arch=SVDpp))
    with learn.quiet(): learn.fit_one_cycle()
    expected,y = learn.get_preds()
    assert not expected.requires_grad
    levels = learn.model.finish.levels.numpy().astype(float)
    assert within(expected.flatten().numpy(), y.flatten().numpy(), levels, likely_ranges(learn.model.finish), np.random.default_rng(0))==pytest.approx(2/3, abs=.04)
