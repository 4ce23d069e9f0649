"Several trainings of SVD++ side by side in one wide table: each is trained as it would be alone, and their mean answers"
import numpy as np
import pytest
import torch

from helpers import fit_one_cycle
from recfast.bundle import load_bundle
from recfast.data.loaders import CollabDataLoaders
from recfast.learner import collab_learner
from recfast.losses import SoftmaxLoss
from recfast.metrics import rmse
from recfast.models.svdpp import SVDpp
from recfast.ordinal import OrdinalLoss
from recfast.testing import synth_ratings

TABLES = 'u_weight','i_weight','u_told','i_told'
S,K = 3,4

def loaders(**kwargs):
    df = synth_ratings().head(1000)
    df = df.assign(rating=df.rating.round().clip(1, 5), weight=1+df.index.to_numpy()%3)
    return CollabDataLoaders.from_df(df, **{'bs': 64, 'seed': 0, **kwargs})

def of_seed(table, s):
    "[N,K+1] what one training owns of a wide table"
    return torch.cat([table[:,s*K:(s+1)*K],table[:,S*K+s,None]], 1)

@pytest.fixture(scope='module')
def learn(): return fit_one_cycle(collab_learner(loaders(), K, arch=SVDpp, config=dict(n_seeds=S), seed=0), 2, None)

@pytest.mark.parametrize('how', [{}, dict(fast=False), dict(weight_name='weight')], ids=['fast','plain','weights'])
def test_each_is_trained_as_alone(how):
    fast,dls = how.pop('fast', True),loaders(**how)
    how = dict(y_range=(.5,5.5), loss_func=None, arch=SVDpp, seed=0)
    wide = collab_learner(dls, K, config=dict(n_seeds=S), **how)
    alone = [collab_learner(dls, K, **how) for _ in range(S)]
    for s,o in enumerate(alone):
        for name in TABLES: getattr(o.model, name).weight.data = of_seed(getattr(wide.model, name).weight.data, s).clone()
    for o in [wide,*alone]:
        dls.train.epoch = 0
        with o.quiet(): o.fit_one_cycle(2, 1e-2, wd=.1, fast=fast)
    for s,o in enumerate(alone):
        for name in TABLES:
            torch.testing.assert_close(of_seed(getattr(wide.model, name).weight, s), getattr(o.model, name).weight, rtol=1e-4, atol=1e-5)
    x = dls.interactions('train').pairs()[:20]
    with torch.no_grad(): each = torch.stack([o.model.eval()(x) for o in alone])
    assert each.std(0).max()>1e-2 # or the mean would say nothing
    logits = torch.logit((each-.5)/5).mean(0)
    torch.testing.assert_close(wide.model.eval()(x), .5+5*torch.sigmoid(logits), rtol=1e-4, atol=1e-4)

def test_what_is_shown_is_the_mean_of_their_losses():
    learn = collab_learner(loaders(), K, arch=SVDpp, config=dict(n_seeds=S), seed=0, metrics=rmse)
    learn.recorder.train_metrics = True
    with learn.quiet(): learn.fit(1, 0.)
    n = len(learn.recorder.losses)
    alone = collab_learner(loaders(), K, arch=SVDpp, seed=0)
    with alone.quiet(): alone.fit(1, 0.)
    np.testing.assert_allclose(learn.recorder.losses[n-1], alone.recorder.losses[n-1], rtol=.02)
    assert 0<learn.recorder.values[0][1]<3

def test_every_door_gives_the_mean(learn, tmp_path):
    model,rows = learn.model.eval(),learn.dls.interactions('train')
    x = rows.pairs()[:30]
    said = model(x)[:,0]
    every = model.score_items(x[:,0])
    torch.testing.assert_close(every[torch.arange(30),x[:,1]], said, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model.plain()(x)[:,0], said, rtol=1e-4, atol=1e-5)
    u = torch.randn(S*(K+1), generator=torch.Generator().manual_seed(0)).double()
    s,J = model.linearize(u, torch.arange(1, 9))
    torch.testing.assert_close(s.float(), model.score_vectors(u[None].float())[0,1:9], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(J.double()@u, s-model.linearize(0*u, torch.arange(1, 9))[0])
    path = learn.save_bundle(tmp_path/'wide.recfast')
    lists,back = learn.recommend([1,2], k=5),load_bundle(path).recommend([1,2], k=5)
    assert lists.item_id.tolist()==back.item_id.tolist()

def test_somebody_new_is_folded_into_all(learn):
    mine = learn.dls.interactions('train').timed_frame().groupby('user_id').get_group(1)
    told = dict(zip(mine.item_id, mine.rating))
    there = learn.recommend(history=told, k=500, exclude_seen=False).set_index('item_id').score
    known = learn.recommend(1, k=500, exclude_seen=False).set_index('item_id').score
    assert np.corrcoef(there, known[there.index])[0,1]>.8

def test_numbers_of_trainings_that_are_none():
    for n in (0,-1,1.5,'2'):
        with pytest.raises(ValueError, match='n_seeds'): SVDpp(3, 4, 2, n_seeds=n)

def test_levels_and_their_thresholds_are_shared(learn):
    assert isinstance(learn.loss_func, OrdinalLoss) and len(learn.loss_func.cuts)==4

def test_a_loss_of_all_items_has_no_column_for_each():
    df = synth_ratings().head(300)
    dls = CollabDataLoaders.implicit_from_df(df, bs=64, seed=0, by_user=True)
    learn = collab_learner(dls, K, arch=SVDpp, loss_func=SoftmaxLoss(), config=dict(n_seeds=2))
    with pytest.raises(ValueError, match='n_seeds=2: SoftmaxLoss'): learn.fit(1)

def test_a_loss_of_all_items_trains_every_table():
    dls = CollabDataLoaders.implicit_from_df(synth_ratings().head(300), bs=64, seed=0, by_user=True)
    learn = collab_learner(dls, K, arch=SVDpp, loss_func=SoftmaxLoss())
    before = [o.detach().clone() for o in learn.model.parameters()]
    with learn.quiet(): learn.fit(1, 1e-2, wd=0.)
    assert not any(torch.equal(a, b) for a,b in zip(before, learn.model.parameters()))
