"Lists by an index of items: nothing that was seen, the model's scores, and the items of the exact list"
import numpy as np
import pandas as pd
import pytest
import torch

pytest.importorskip('usearch')

from helpers import FRAME, fit, taste_clicks
from recfast.bundle import load_bundle
from recfast.core import RecfastError
from recfast.data.loaders import CollabDataLoaders
from recfast.learner import collab_learner
from recfast.losses import BPRLoss
from recfast.models.dot import DotProduct, DotProductBias
from recfast.models.ials import IALS
from recfast.models.ncf import GMF
from recfast.models.params import DotProductParams

def ratings(arch, **config): return fit(collab_learner(CollabDataLoaders.from_df(FRAME, seed=42), n_factors=5, y_range=(0,5.5), arch=arch, config=config), 2, 1e-2)
def clicks(arch, loss=None): return fit(collab_learner(CollabDataLoaders.implicit_from_df(taste_clicks(), seed=1), n_factors=8, arch=arch, loss_func=loss), 2)

MADE = {
    'bias': lambda: ratings(DotProductBias),
    'params': lambda: ratings(DotProductParams),
    'cosine': lambda: ratings(DotProduct, cosine=True),
    'bpr': lambda: clicks(DotProductBias, BPRLoss()),
    'ials': lambda: clicks(IALS),
}

@pytest.fixture(scope='module', params=MADE)
def both(request):
    rec = MADE[request.param]().recommender
    return rec,rec.with_index(effort=256)

def same(a, b):
    names = [o for o in a if o!='score']
    pd.testing.assert_frame_equal(a[names], b[names])
    np.testing.assert_allclose(a.score, b.score, rtol=1e-5, atol=1e-6)

def test_on_a_small_catalogue_the_index_finds_everything(both):
    rec,indexed = both
    same(indexed.recommend(k=5), rec.recommend(k=5))
    same(indexed.recommend(k=5, exclude_seen=False), rec.recommend(k=5, exclude_seen=False))
    assert indexed.recall(k=5)==1.

def test_neighbours_are_the_same(both):
    rec,indexed = both
    ids = rec.known_ids('item')[:9]
    same(indexed.similar_items(ids, k=4), rec.similar_items(ids, k=4))
    same(indexed.similar_items(ids, k=10**4), rec.similar_items(ids, k=10**4))

def test_scores_are_those_of_predict(both):
    _,indexed = both
    top = indexed.recommend(k=3)
    np.testing.assert_allclose(top.score, indexed.predict(top.user_id, top.item_id), rtol=1e-5, atol=1e-6)

def test_what_an_index_cannot_answer_is_answered_exactly(both):
    rec,indexed = both
    items = rec.known_ids('item')
    same(indexed.recommend(k=5, item_ids=items[:7]), rec.recommend(k=5, item_ids=items[:7]))
    same(indexed.recommend(k=5, exclude_item_ids=items[:7]), rec.recommend(k=5, exclude_item_ids=items[:7]))
    same(indexed.recommend(['nobody'], k=4, on_unknown='fallback'), rec.recommend(['nobody'], k=4, on_unknown='fallback'))
    same(indexed.recommend(k=1000), rec.recommend(k=1000)) # longer than the catalogue
    same(indexed.recommend(history=[items[3]], k=3), rec.recommend(history=[items[3]], k=3))

def test_a_walk_that_ends_early_gives_whole_lists():
    "With an effort of 1 the index misses items; lists are as long as they should be and in falling order"
    g = torch.Generator().manual_seed(0)
    df = pd.DataFrame({'user_id': torch.randint(0, 50, (4000,), generator=g).numpy(), 'item_id': np.arange(4000)%2000, 'rating': 1.+np.arange(4000)%5})
    rec = collab_learner(CollabDataLoaders.from_df(df, seed=0, valid_pct=0), n_factors=8, y_range=(0,5.5)).recommender
    torch.nn.init.normal_(rec.model.i_weight.weight, generator=g)
    torch.nn.init.normal_(rec.model.u_weight.weight, generator=g)
    hasty = rec.with_index(links=2, effort=1)
    top,exact = hasty.recommend(k=10),rec.recommend(k=10)
    assert 0<hasty.recall(k=10)<1 and len(top)==len(exact)
    assert (top.groupby('user_id').score.diff().dropna()<=0).all()
    seen = set(zip(df.user_id, df.item_id))
    assert not seen.intersection(zip(top.user_id, top.item_id))
    assert (top.score.to_numpy()<=exact.score.to_numpy()+1e-5).all() # none is better than exact
    assert rec.with_index(effort=400).recall(k=10)>hasty.recall(k=10)

def test_the_same_index_every_time(both):
    rec,indexed = both
    assert rec.with_index(effort=256).recommend(k=5).equals(indexed.recommend(k=5))

def test_a_bundle_can_have_one(tmp_path):
    learn = MADE['bias']()
    rec = load_bundle(learn.save_bundle(tmp_path/'b.recfast')).with_index()
    same(rec.recommend(k=5), learn.recommend(k=5))

def test_another_model_is_refused():
    learn = fit(collab_learner(CollabDataLoaders.from_df(FRAME, seed=42), n_factors=5, y_range=(0,5.5), arch=GMF), 1)
    with pytest.raises(RecfastError, match='GMF is another model'): learn.recommender.with_index()
