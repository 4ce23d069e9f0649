"Means and blends of learners: what they say, whose rows they take, how weights are chosen"
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import FRAME, fit, fit_one_cycle, learner, loaders
from recfast.bundle import load_bundle
from recfast.core import RatingsError, RecfastError
from recfast.data.loaders import CollabDataLoaders
from recfast.ensemble import Blend, Ensemble, _select, inner_loaders, inner_weights, part_of, two_part
from recfast.learner import collab_learner
from recfast.losses import BPRLoss
from recfast.models.base import score_items
from recfast.models.dot import DotProduct
from recfast.models.ensemble import MeanOf, ZBlend, z_scores
from recfast.models.knn import ItemKNN
from recfast.models.linear import EASE, Popularity
from recfast.models.parts import TwoPart, parts_spec

TOLD = {3: 5., 8: 1., 11: 4.}

@pytest.fixture(scope='module')
def dls(): return loaders()

@pytest.fixture(scope='module')
def dots(dls): return [fit_one_cycle(learner(dls, n_factors=5, seed=s), 3, 5e-2) for s in range(3)]

@pytest.fixture(scope='module')
def solved(dls): return [fit(collab_learner(dls, arch=a), 1) for a in (EASE,ItemKNN)]

# standard scores

scores = st.lists(st.lists(st.one_of(st.floats(-1e4, 1e4, width=32), st.just(-np.inf)), min_size=6, max_size=6), min_size=1, max_size=4)

@settings(max_examples=100, deadline=None)
@given(scores, st.lists(st.booleans(), min_size=6, max_size=6))
def test_standard_scores_have_mean_zero_and_deviation_one(s, ok):
    s,ok = torch.tensor(s),torch.tensor(ok)
    z = z_scores(s, ok)
    assert z.isfinite().all()
    for row,out in zip(s.double(), z):
        read = ok&row.isfinite()
        mine = row[read].numpy()
        flat = not len(mine) or mine.std()<=1e-9*abs(mine.mean())
        want = np.zeros(len(mine)) if flat else (mine-mine.mean())/mine.std()
        assert np.allclose(out[read], want, rtol=1e-6, atol=1e-6)
        never = out[row==-torch.inf]
        assert (never==(out[read].min() if read.any() else 0)).all()

def test_a_blend_is_the_weighted_sum(solved):
    models = [o.model for o in solved]
    rows = solved[0].dls.interactions('train')
    blend = ZBlend(models, [.7,.3])
    with pytest.raises(RecfastError, match='knows no trained items'): blend.score_items(torch.tensor([1]))
    blend.attach(rows)
    users = torch.arange(1, 5)
    ok = torch.from_numpy(rows.trained('item'))
    want = sum(w*z_scores(score_items(o, users, rows.n_items), ok) for w,o in zip([.7,.3], models))
    assert torch.allclose(blend.score_items(users), want.float(), atol=1e-6)
    assert torch.allclose(blend(torch.tensor([[3,5],[1,2]]))[:,0], want[[2,0],[5,2]].float(), atol=1e-6)
    assert parts_spec(blend)[1]['model']['name']=='itemknn' and set(blend.state_dict())>={'weights','ok','0.weight'}

def test_constant_scores_say_nothing(dls, solved):
    rows = dls.interactions('train')
    flat = torch.nn.Module()
    flat.score_items = lambda users: torch.full((len(users),rows.n_items), 3.3)
    blend = ZBlend([solved[0].model,flat], [1,5], rows.n_users, rows.n_items)
    blend.attach(rows)
    alone = ZBlend([solved[0].model])
    alone.attach(rows)
    assert torch.equal(blend.score_items(torch.tensor([1,2])), alone.score_items(torch.tensor([1,2])))

# the mean

def test_a_mean_says_the_mean_of_what_predict_gives(dots):
    mean = Ensemble(dots)
    users,items = [1,2,3],[3,5,8]
    want = np.mean([o.predict(users, items) for o in dots], 0)
    assert np.allclose(mean.predict(users, items), want, rtol=1e-5)
    with mean.no_bar(): assert np.allclose(mean.get_preds()[0].mean(), np.mean([p.get_preds()[0].mean() for p in dots]), rtol=1e-5)
    rmse = [o.evaluate(metrics='rmse', progress=False).summary['rmse'] for o in (*dots,mean)]
    assert rmse[3]<np.mean(rmse[:3]) and mean.model.rated
    bias = [o.item_bias().set_index('item_id').bias.sort_index() for o in (*dots,mean)]
    assert np.allclose(bias[3], np.mean(bias[:3], 0), atol=1e-5)
    told = [o.recommend(history=TOLD, k=100).set_index('item_id').score.sort_index() for o in (*dots,mean)]
    assert np.allclose(told[3], np.mean(told[:3], 0), rtol=1e-4)
    one = dots[0].explain(1, item_ids=[3], top=3)
    assert len(mean.explain(1, item_ids=[3], top=3))==len(one) and len(mean.similar_items(3))==5

def test_a_mean_needs_one_unit(dots, solved):
    with pytest.raises(ValueError, match=r'EASE.*Blend\(learners\)'): Ensemble([dots[0],solved[0]])

# the blend

@pytest.mark.parametrize('who', [dict(user_id=1), dict(history=TOLD)], ids=['known','new'])
@pytest.mark.parametrize('kind', ['solved','dot','mean'])
def test_reasons_sum_to_the_score(dots, solved, who, kind):
    learn = dict(solved=lambda: Blend(solved, [.6,.4]), dot=lambda: Blend([solved[0],dots[0]], None), mean=lambda: Ensemble(dots))[kind]()
    asked = dict(who)
    user = asked.pop('user_id', None)
    why,best = learn.explain(user, k=3, **asked),learn.recommend(user, k=3, **asked)
    assert np.allclose(why.groupby('item_id', sort=False).contribution.sum(), best.score, rtol=1e-4, atol=1e-5)
    own = why[why.because_item_id.notna()]
    if kind=='solved' and user is None: assert np.allclose(own.groupby('item_id', sort=False).contribution.sum(), best.score, rtol=1e-4, atol=1e-5)

def test_a_part_that_was_trained_on_clicks_reads_clicks(dls, solved):
    rows = CollabDataLoaders.implicit_from_df(FRAME, seed=42, n_neg=2)
    bpr = fit_one_cycle(collab_learner(rows, arch=DotProduct, n_factors=4, loss_func=BPRLoss()), 2, 1e-1)
    blend = Blend([solved[0],bpr], None)
    stars,ones = blend.recommend(history=TOLD, k=4),blend.recommend(history=dict.fromkeys(TOLD, 5.), k=4)
    assert stars.item_id.tolist()==ones.item_id.tolist() and np.allclose(stars.score, ones.score)

def test_other_rows_are_refused(dots, solved):
    other = fit(collab_learner(loaders(seed=7), arch=EASE), 1)
    for make in (Blend,Ensemble):
        with pytest.raises(RatingsError, match='trained on other rows'): make([solved[0],other])
    with pytest.raises(ValueError, match='3 weights for 2 models'): Blend(solved, [1,2,3])

# weights

def test_inner_weights_are_chosen_without_the_validation_rows(solved):
    first = inner_weights(solved)
    assert np.isclose(sum(first), 1) and min(first)>=0
    inner = inner_loaders(solved[0])
    train = set(map(tuple, solved[0].dls.interactions('train').pairs().tolist()))
    for part in ('train','valid'): assert set(map(tuple, inner.interactions(part).pairs().tolist()))<=train
    assert len(inner.interactions('train'))+len(inner.interactions('valid'))==len(solved[0].dls.interactions('train'))

def test_the_better_model_gets_the_weight(dls):
    pop = fit(collab_learner(dls, arch=Popularity), 1)
    class Noise(Popularity):
        def score_items(self, users): return torch.rand(len(users), self.n_items, generator=torch.Generator().manual_seed(int(users.sum())))
    noise = fit(collab_learner(dls, arch=Noise), 1)
    weights = inner_weights([pop,noise], refit=lambda learn, inner: learn)
    assert weights[0]>=.8

def test_ensemble_selection_by_hand():
    assert _select(lambda o: -abs(o[0]-.7)-abs(o[2]), 3)==[.7,.3,0]
    assert _select(lambda o: o[1], 3)==[0,1,0]

def test_a_model_of_batches_is_refitted_by_the_caller(dots, solved):
    with pytest.raises(RecfastError, match='how dotproductbias was trained is not written down'): Blend([solved[0],dots[0]])
    seen = []
    def refit(learn, inner):
        seen.append(len(inner.interactions('train')))
        return fit(collab_learner(inner, arch=EASE), 1)
    assert len(Blend([solved[0],dots[0]], refit=refit).model.weights)==2 and len(set(seen))==1

# kept

def test_bundles_of_blends(dots, solved, tmp_path):
    wholes = dict(mean=Ensemble(dots), blend=Blend(solved, [.6,.4]), both=two_part(Ensemble(dots), Blend([solved[0],dots[0]], [.8,.2])))
    for name,learn in wholes.items():
        rec = load_bundle(learn.save_bundle(tmp_path/name))
        for how in (dict(user_ids=[1,2]), dict(history=TOLD)): pd.testing.assert_frame_equal(rec.recommend(**how), learn.recommend(**how), rtol=1e-5)
        assert rec.predict(1, 3)==pytest.approx(learn.predict(1, 3)) and rec.rated==(name!='blend')
        pd.testing.assert_frame_equal(rec.explain(1, k=2), learn.explain(1, k=2), rtol=1e-4, atol=1e-6)

def test_weights_of_a_nested_model_come_back(dots, solved, tmp_path):
    both = two_part(Ensemble(dots), Blend(solved, [.6,.4]))
    empty = collab_learner(both.dls, arch=TwoPart)
    both.path = empty.path = tmp_path
    both.save('w', with_opt=False)
    empty.load('w', with_opt=False)
    pd.testing.assert_frame_equal(empty.recommend([1,2]), both.recommend([1,2]))
    assert isinstance(empty.model.rater, MeanOf) and isinstance(part_of(both).model, TwoPart)
