"Draws of SVD++ on both sides: against exact answers, at every door"
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from fastai.callback.core import Callback
from scipy.special import ndtr

from helpers import fit
from recfast.bundle import load_bundle
from recfast.core import NeedsMemoryError, RatingsError
from recfast.data.loaders import CollabDataLoaders
from recfast.ensemble import Ensemble
from recfast.gibbs import Cells, Chain, Side, cells_of, draw_own, draw_prior, draw_told, gather, loops, normal, side_of
from recfast.latent import Noisy, Probit, between, truncated
from recfast.learner import collab_learner
from recfast.losses import RMSELoss
from recfast.models.base import score_items, score_pairs
from recfast.models.bayesian import BayesianSVDpp, MeanScores, first_directions
from recfast.models.svdpp import SVDpp
from recfast.ordinal import OrdinalLoss
from recfast.testing import block_ratings, synth_ratings

SHORT = dict(n_sweeps=60, warm_up=20)

def stars():
    "Whole stars"
    df = synth_ratings(noise=.4)
    return df.assign(rating=df.rating.round().clip(1, 5))

def loaders(df, **kwargs): return CollabDataLoaders.from_df(df, **{'bs': 64, 'seed': 0, 'valid_pct': .2, **kwargs})
def sampled(df, seed=0, n_factors=7, config=SHORT, **kwargs):
    return fit(collab_learner(loaders(df, **kwargs), n_factors, arch=BayesianSVDpp, seed=seed, config=config), 1)

@pytest.fixture(scope='module')
def learn(): return sampled(stars())

# numbers between ends

@pytest.mark.parametrize('low,high', [(-1,1),(3,3.5),(-9,-8),(12,13),(-np.inf,-5),(6,np.inf),(-.1,.1)])
def test_truncated_numbers_are_those_of_a_normal_number_that_was_seen_between_ends(low, high):
    v = (np.arange(20_000)+.5)/20_000
    z = truncated(between(*(torch.full((len(v),), float(o)).double() for o in (low,high))), v).numpy()
    assert (z>=low).all() and (z<=high).all()
    grid = np.linspace(max(low, -14), min(high, 14), 200_001)
    w = np.exp(-grid**2/2-(-grid**2/2).max())
    assert z.mean()==pytest.approx((w*grid).sum()/w.sum(), abs=1e-3)

def test_thresholds_of_a_known_probit_are_found():
    rng = np.random.default_rng(0)
    s,cuts = rng.standard_normal(8000),np.array([-1.5,-.2,.9])
    p = Probit((s[:,None]+rng.standard_normal((8000,1))>cuts).sum(1), 4)
    drawn = []
    for n in range(300):
        z,_ = p.draw(s, rng)
        drawn.append(p.cuts)
        assert ((z[:,None]>p.cuts).sum(1)==p.c).all()
    assert np.abs(np.mean(drawn[100:], 0)-cuts).max()<.06

def test_the_noise_of_numbers_is_found():
    rng = np.random.default_rng(0)
    s = rng.standard_normal(20_000)
    y = 3+s+.5*rng.standard_normal(20_000)
    assert np.mean([Noisy(y).draw(s, rng)[1] for _ in range(50)])==pytest.approx(4, rel=.05)

# draws

def test_a_draw_has_the_mean_and_the_covariance_of_its_system():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((9,4))
    A,b,out = X.T@X+np.eye(4),rng.standard_normal(4),np.zeros((20_000,4))
    for o,e in zip(out, rng.standard_normal(out.shape)): normal(A.copy(), b.copy(), e, o)
    np.testing.assert_allclose(out.mean(0), np.linalg.solve(A, b), atol=.02)
    np.testing.assert_allclose(np.cov(out.T), np.linalg.inv(A), atol=.03)

def small(seed=0):
    "Both sides of five users and four items"
    u,i = np.array([0,0,1,2,2,2,4]),np.array([0,1,1,0,2,3,3])
    rng = np.random.default_rng(seed)
    users = side_of(cells_of(u, i, 5), cells_of(i, u, 4), 3, rng)
    return u,i,users,side_of(cells_of(i, u, 4), cells_of(u, i, 5), 3, rng),rng.standard_normal(len(u)).astype(np.float32)

def one_told():
    "Users of whom item 1 alone has anybody; the system of its told row: precision of the data, pull at 0"
    u,i,users,items,z = small()
    gather(users, items.full, z, np.float32(2))
    users = users._replace(pairs=Cells(np.array([0,0,2,2,2]), np.array([0,1], np.int32), np.array([0,1], np.int32)))
    X,y = [],[]
    for c in range(len(u)):
        if u[c] not in (0,1): continue
        x = np.append(items.full[i[c],:2], 1)
        f = users.scale[u[c]]
        X.append(f*x)
        y.append(z[c]-items.full[i[c],2]-x@users.full[u[c]]+f*x@users.told[1])
    X,y = np.array(X),np.array(y)
    return users,2*X.T@X,2*X.T@y

def test_told_rows_without_noise_go_to_the_solution_of_least_squares():
    "Column by column again and again, all else held: the ridge solution over the cells of everybody who has item 1"
    users,A,b = one_told()
    prior = np.array([1.,2.,3.])
    for _ in range(30): draw_told(users, np.array([.5,0.,-.5]), prior, np.zeros((4,3)))
    np.testing.assert_allclose(users.told[1], np.linalg.solve(A+np.diag(prior), b+prior*[.5,0,-.5]), rtol=1e-4, atol=1e-5)

def test_told_rows_are_drawn_from_their_distribution():
    users,A,b = one_told()
    rng,draw,prior = np.random.default_rng(0),loops()[2],np.array([.5,.5,.5])
    drawn = []
    for noise in rng.standard_normal((40_000,4,3)):
        draw(users, np.zeros(3), prior, noise)
        drawn.append(users.told[1].copy())
    A = A+np.diag(prior)
    np.testing.assert_allclose(np.mean(drawn, 0), np.linalg.solve(A, b), atol=.03)
    np.testing.assert_allclose(np.cov(np.array(drawn).T), np.linalg.inv(A), atol=.04)

def test_complete_vectors_stay_the_sum_of_their_parts():
    u,i,users,items,z = small()
    R = np.zeros((5,4))
    R[u,i] = 1
    rng = np.random.default_rng(1)
    for _ in range(3):
        gather(users, items.full, z, np.float32(1))
        draw_own(users, *draw_prior(users.own, rng), rng.standard_normal((5,3)))
        draw_told(users, *draw_prior(users.told, rng, True), rng.standard_normal((4,3)))
        n = R.sum(1, keepdims=True).clip(1)**-.5
        np.testing.assert_allclose(users.full, users.own+n*(R@users.told), atol=1e-5)
    assert users.full[3].any() # a row without a cell is drawn from the prior

def test_machine_code_draws_what_python_draws():
    u,i,users,items,z = small()
    fast = Side(*(o.copy() if isinstance(o, np.ndarray) else o for o in users))
    gathers,owns,tolds,_ = loops()
    args = np.zeros(3),np.ones(3),np.random.default_rng(2).standard_normal((5,3))
    for side,(a,b,c) in ((users,(gather,draw_own,draw_told)),(fast,(gathers,owns,tolds))):
        a(side, items.full, z, np.float32(1))
        b(side, *args)
        c(side, *args)
    for one,other in zip(users[3:], fast[3:]): np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)

def test_two_columns_of_biases_alone_come_out_as_ridge_says():
    "Without factors, told rows aside, the mean of the draws of a model of biases is near the mean of its posterior"
    rng = np.random.default_rng(0)
    u,i = np.nonzero(rng.random((40,30))<.6)
    a,b = rng.standard_normal(40),rng.standard_normal(30)
    y = a[u]+b[i]+.1*rng.standard_normal(len(u))
    chain = Chain(u, i, (40,30), Noisy(y), 0)
    total = 0
    for n in range(80):
        chain.sweep()
        if n>=30: total = total+chain.users.full[:,:1]+chain.items.full[:,0]
    assert np.abs(total/50+y.mean()-(a[:,None]+b)).mean()<.06

# the mean that is kept

def test_the_directions_of_a_table_are_those_of_its_singular_values():
    table = torch.randn(60, 40, generator=torch.Generator().manual_seed(0))@torch.diag(.8**torch.arange(40.))
    U,d,V = torch.linalg.svd(table)
    best = (U[:,:10]*d[:10])@V[:10]
    u,i = first_directions(table, 10)
    assert (u@i.T-table).norm()<1.01*(best-table).norm()

def test_mean_and_variance_are_those_of_the_draws():
    gen = torch.Generator().manual_seed(0)
    pairs = torch.tensor([[0,0],[2,1],[1,3]])
    mean,draws = MeanScores(pairs, (3,4)),[]
    for _ in range(30):
        u,i = torch.randn(3, 4, generator=gen),torch.randn(4, 4, generator=gen)
        mean.add(u, i, 0.)
        draws.append(u[:,:3]@i[:,:3].T+u[:,3:]+i[:,3])
    got = mean.table/30+(mean.biases[0][:,None]+mean.biases[1])/30
    torch.testing.assert_close(got.float(), torch.stack(draws).mean(0), rtol=1e-4, atol=1e-5)
    assert mean.variance()==pytest.approx(torch.stack(draws)[:,pairs[:,0],pairs[:,1]].var(0, correction=0).mean().item(), rel=1e-4)

def test_logistic_levels_are_near_those_of_the_probit(learn):
    head = learn.model.finish
    s = torch.linspace(-4, 4, 33)
    below = ndtr((head.cuts().detach()-s[:,None]).numpy()/1.702)
    assert np.abs(head.probabilities(s).detach().cumsum(-1)[:,:-1].numpy()-below).max()<.01
    assert head.cuts().diff().min()>0

# a learner

def test_it_is_better_than_guessing_and_as_good_as_training(learn):
    rows = learn.dls.interactions('valid')
    off = learn.get_preds()[0].flatten()-rows.values
    assert off.square().mean().sqrt()<.65*rows.values.std()

def test_numbers_that_are_no_levels_are_sampled_too():
    df = synth_ratings()
    learn = sampled(df)
    assert not isinstance(learn.loss_func, OrdinalLoss) and getattr(learn.model, 'finish', None) is None
    off = learn.get_preds()[0].flatten()-learn.dls.interactions('valid').values
    assert off.square().mean().sqrt()<.5

def test_the_answer_of_the_blocks():
    df = block_ratings()
    u,i = df.user_id-1,df.item_id-1
    learn = sampled(df[i!=(u+1)%40], valid_pct=0, config=dict(n_sweeps=100, warm_up=40))
    top = learn.recommend(k=2).query('rank==1')
    assert len(top)==50 and (top.item_id==(top.user_id-1)%40+1).all() and top.score.min()>4

def test_a_seed_says_everything_and_the_global_state_nothing():
    torch.manual_seed(1)
    np.random.seed(1)
    a = sampled(stars())
    torch.manual_seed(2)
    np.random.seed(2)
    b,c = sampled(stars()),sampled(stars(), seed=5)
    for x,y,z in zip(*(o.model.parameters() for o in (a,b,c))): assert torch.equal(x, y) and not torch.equal(x, z)

def test_no_test_rating_moves_a_prediction():
    df = stars()
    held = df.index%5==0
    other = df.assign(rating=np.where(held, 6-df.rating, df.rating))
    def scores(df):
        learn = sampled(df.assign(is_valid=held), splits='is_valid', valid_pct=None)
        return learn.predict(df.user_id[held].to_numpy(), df.item_id[held].to_numpy(), on_unknown='fallback')
    assert (scores(df)==scores(other)).all()

def test_scores_of_pairs_and_of_all_items_are_the_same(learn):
    n = learn.dls.n_items
    users = torch.tensor([0,3,1])
    pairs = torch.stack([users.repeat_interleave(n),torch.arange(n).repeat(3)], 1)
    torch.testing.assert_close(score_items(learn.model, users, n), score_pairs(learn.model, pairs).reshape(3, n), rtol=1e-5, atol=1e-6)

def test_the_same_answers_from_a_bundle(learn, tmp_path):
    rec = load_bundle(learn.save_bundle(tmp_path/'b'))
    told = {1: 5, 2: 1}
    pd.testing.assert_frame_equal(rec.recommend(history=told, k=5), learn.recommend(history=told, k=5))
    pd.testing.assert_frame_equal(rec.recommend([1,2], k=5), learn.recommend([1,2], k=5))
    np.testing.assert_array_equal(rec.predict([1,2], [3,4], dist=True), learn.predict([1,2], [3,4], dist=True))

def test_somebody_new_with_a_known_persons_ratings_gets_scores_near_theirs(learn):
    df = learn.dls.interactions('train').frame()
    near = []
    for u in range(1, 21):
        told = df[df.user_id==u].set_index('item_id').rating.to_dict()
        mine,new = (o.set_index('item_id').score for o in (learn.recommend([u], k=50),learn.recommend(history=told, k=50)))
        near.append(np.corrcoef(mine, new.reindex(mine.index))[0,1])
    assert np.mean(near)>.9

def test_its_mean_with_another_model_is_the_mean(learn):
    other = fit(collab_learner(learn.dls, 5, arch=SVDpp, seed=0), 1, 1e-2)
    both = Ensemble([learn,other])
    u,i = [1,2,3],[4,5,6]
    np.testing.assert_allclose(both.predict(u, i), (learn.predict(u, i)+other.predict(u, i))/2, rtol=1e-5)
    with learn.no_bar(), other.no_bar(), both.no_bar(): one,two,mean = (o.get_preds()[0].flatten() for o in (learn,other,both))
    torch.testing.assert_close(mean, (one+two)/2) # levels are not made of what is a rating already

# a minute may be long

class Bar(Callback):
    "In place of a progress bar"
    name = 'progress'
    def __init__(self, stop_at=None): self.stop_at,self.at = stop_at,[]
    def before_train(self): self.pbar = self
    def before_validate(self): self.pbar = SimpleNamespace(update=lambda n: None)
    def update(self, n):
        self.at.append(n)
        if len(self.at)==self.stop_at: raise KeyboardInterrupt

def test_sweeps_move_the_bar_of_the_epoch(learn):
    again,bar = collab_learner(learn.dls, 7, arch=BayesianSVDpp, seed=0, config=SHORT),Bar()
    with again.quiet(): again.fit(1, cbs=bar)
    assert len(bar.at)==60 and bar.at==sorted(bar.at) and bar.at[-1]==len(learn.dls.train)
    assert torch.equal(again.model.u_weight.weight, learn.model.u_weight.weight)

@pytest.mark.parametrize('n', [1,30,60])
def test_ctrl_c_leaves_the_model_as_it_was(learn, n):
    again = collab_learner(learn.dls, 7, arch=BayesianSVDpp, seed=0, config=SHORT)
    before = {k: v.clone() for k,v in again.model.state_dict().items()}
    with pytest.raises(KeyboardInterrupt), again.quiet(): again.fit(1, cbs=Bar(n))
    for k,v in again.model.state_dict().items(): assert torch.equal(v, before[k])
    fit(again, 1) # and it can be fitted as if nothing had been
    for k,v in again.model.state_dict().items(): assert torch.equal(v, learn.model.state_dict()[k])

# what cannot be

@pytest.mark.parametrize('config,message', [(dict(n_sweeps=10, warm_up=10),'none would be kept'),(dict(n_sweeps=10, warm_up=-1),'none would be kept')])
def test_without_a_draw_to_keep(config, message):
    with pytest.raises(ValueError, match=message): BayesianSVDpp(5, 5, **config)

def test_rows_that_it_cannot_read():
    df = stars()
    clicks = CollabDataLoaders.implicit_from_df(df, n_neg=0, seed=0)
    with pytest.raises(RatingsError, match='these rows are clicks'): fit(collab_learner(clicks, arch=BayesianSVDpp, config=SHORT), 1)
    weighed = loaders(df.assign(w=2.), weight_name='w')
    with pytest.raises(RatingsError, match='leave their weights out'): fit(collab_learner(weighed, arch=BayesianSVDpp, config=SHORT), 1)
    with pytest.raises(NeedsMemoryError, match='GB of memory'): sampled(df, config=dict(memory=1000))
    assert collab_learner(loaders(df), arch=BayesianSVDpp, loss_func=RMSELoss()).loss_func.__class__ is RMSELoss

def test_a_pair_that_was_rated_twice_counts_once_among_what_is_told():
    u,i = np.array([0,0,0,1]),np.array([0,0,1,1])
    chain = Chain(u, i, (2,2), Noisy(np.array([1.,2.,3.,4.])), 2)
    assert chain.users.scale[0]==np.float32(2**-.5) and len(chain.users.cells.other)==4 and len(chain.users.pairs.other)==3
