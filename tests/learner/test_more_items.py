"Items that come after the training: the old ones stay as they are, the new ones are scored by what they are"
import numpy as np
import pandas as pd
import pytest
import torch
from fastapi.testclient import TestClient
from torch import nn

from helpers import fit_one_cycle
from recfast.bundle import load_bundle
from recfast.core import ArgumentError, RatingsError, UnknownIdError
from recfast.data.catalogues import movie_night_films
from recfast.data.features import Features
from recfast.data.loaders import CollabDataLoaders
from recfast.data.made import movie_night
from recfast.learner import collab_learner
from recfast.losses import BPRLoss, SoftmaxLoss
from recfast.models import EASE, IALS, SLIM, AutoRec, DotProduct, DotProductBias, GMF, ItemKNN, MultVAE, NextItem, SpectralFilter, SVDpp
from recfast.models.graph import RP3beta
from recfast.models.fm import FM
from recfast.models.hybrid import HybridDot
from recfast.models.towers import TwoTower
from recfast.ordinal import OrdinalLoss
from recfast.serve import make_app

NIGHT,FILMS = movie_night(),movie_night_films()
WARM,OLD,NEW = NIGHT[NIGHT.item_id<280],FILMS[:290],FILMS[290:]
PEOPLE = pd.DataFrame(dict(user_id=np.arange(1, 601), age=20.+np.arange(600)%50, kind=np.tile(['a','b','c'], 200)))
GENRES = dict(multi={'genres': '|'}, cont='year', show='title')

def clicks(n_neg=0, items=OLD, **kwargs): return CollabDataLoaders.implicit_from_df(WARM, bs=512, seed=0, n_neg=n_neg, valid_pct=.1, items=items, **kwargs)
def stars(items=OLD, **kwargs): return CollabDataLoaders.from_df(WARM, bs=512, seed=0, valid_pct=.1, items=items, **kwargs)

KINDS = dict(
    ease=lambda **o: collab_learner(clicks(**o), arch=EASE), knn=lambda **o: collab_learner(clicks(**o), arch=ItemKNN),
    ials=lambda **o: collab_learner(clicks(**o), 8, arch=IALS), prior=lambda **o: collab_learner(clicks(**o), 8, arch=IALS, config=dict(feature_l2=.1)), slim=lambda **o: collab_learner(clicks(**o), arch=SLIM),
    rp3=lambda **o: collab_learner(clicks(**o), arch=RP3beta), spectral=lambda **o: collab_learner(clicks(**o), arch=SpectralFilter),
    softmax=lambda **o: collab_learner(clicks(**o), 8, arch=DotProduct, loss_func=SoftmaxLoss()),
    bpr=lambda **o: collab_learner(clicks(4, **o), 8, arch=DotProductBias, loss_func=BPRLoss()), gmf=lambda **o: collab_learner(clicks(4, **o), 8, arch=GMF),
    stars=lambda **o: collab_learner(stars(**o), 8, y_range=(0,5.5)), svdpp=lambda **o: collab_learner(stars(**o), 8, arch=SVDpp, y_range=(0,5.5)),
    ordinal=lambda **o: collab_learner(stars(**o), 8, loss_func=OrdinalLoss()),
    vae=lambda **o: collab_learner(CollabDataLoaders.rows_from_df(WARM, by='user', bs=64, seed=0, valid_pct=.1, **{'items': OLD, **o}), arch=MultVAE),
    autorec=lambda **o: collab_learner(CollabDataLoaders.rows_from_df(WARM, by='user', bs=64, seed=0, valid_pct=.1, **{'items': OLD, **o}), 8, arch=AutoRec),
    next=lambda **o: collab_learner(CollabDataLoaders.sequences_from_df(WARM, bs=64, seed=0, **{'items': OLD, **o}), 8, arch=NextItem),
)
READERS = dict(
    hybrid=lambda **o: collab_learner(clicks(users=PEOPLE, **o), 8, arch=HybridDot, loss_func=SoftmaxLoss(), config=dict(wd_features=1.)),
    fm=lambda **o: collab_learner(stars(users=PEOPLE, **o), 8, arch=FM, loss_func=OrdinalLoss(), config=dict(wd_features=1.)),
    towers=lambda **o: collab_learner(clicks(users=PEOPLE, **o), 8, arch=TwoTower, loss_func=SoftmaxLoss(), config=dict(layers=[12])),
)
KINDS |= READERS
every_kind = pytest.mark.parametrize('kind', KINDS)
_TRAINED = {}

def trained(kind):
    if kind not in _TRAINED: _TRAINED[kind] = fit_one_cycle(KINDS[kind](items=Features(OLD, **GENRES)), 1, 1e-2)
    return _TRAINED[kind].recommender

def scores(rec, user=3): return rec.recommend(user, k=400, exclude_seen=False).set_index('item_id').score

@every_kind
def test_old_scores_stay_and_new_items_have_some(kind):
    rec = trained(kind)
    before = scores(rec)
    new = rec.add_items(features=NEW)
    after = scores(new)
    np.testing.assert_allclose(after[before.index], before, rtol=1e-5, atol=1e-6)
    assert set(after.index)-set(before.index)==set(NEW.item_id) and after[NEW.item_id].nunique()>1
    assert new.items.items[-10:]==list(NEW.item_id) and rec.n_items==291
    pd.testing.assert_series_equal(scores(rec), before)
    history = new.recommend(history=[5,6,7], k=400).item_id
    assert set(NEW.item_id)<=set(history)

@every_kind
def test_they_go_through_a_bundle(kind, tmp_path):
    new = trained(kind).add_items(features=NEW)
    again = load_bundle(new.save_bundle(tmp_path/'b'))
    pd.testing.assert_frame_equal(again.recommend([3,4], k=300), new.recommend([3,4], k=300), rtol=1e-5, atol=1e-6)
    assert again.recommend(3, k=5, item_ids=NEW.item_id).title.notna().all()
    more = again.add_items(features=NEW.assign(item_id=NEW.item_id+100))
    assert more.n_items==311 and more.train.features['item'].report['added']==20
    np.testing.assert_allclose(scores(more)[NEW.item_id+100], scores(more)[NEW.item_id], rtol=1e-5, atol=1e-6) # the same films

def test_the_tail_scores_them_as_if_they_had_been_there():
    "The map is that of training; what was fitted on the table (classes, medians) has not changed either"
    rec = trained('ease')
    both = fit_one_cycle(KINDS['ease'](items=Features(FILMS, **GENRES)), 1).recommender
    a,b = scores(rec.add_items(features=NEW))[NEW.item_id],scores(both)[NEW.item_id]
    assert np.corrcoef(a, b)[0,1]>.99 # what is rare is counted on other rows

def test_over_http_and_with_conditions():
    new = trained('ease').add_items(features=NEW)
    with TestClient(make_app(new)) as client:
        got = client.post('/recommend', json=dict(user_ids=[3], k=300, where={'genres': 'Comedy'})).json()
        one = client.post('/predict', json=dict(user_ids=3, item_ids=295)).json()
    assert [o['item_id'] for o in got]==new.recommend(3, k=300, where={'genres': 'Comedy'}).item_id.tolist()
    assert set(NEW.item_id[NEW.genres.str.contains('Comedy')])<={o['item_id'] for o in got}
    assert one==pytest.approx(new.predict(3, 295), rel=1e-5)

def test_what_was_seen_is_left_out_and_learned_from_never():
    rec = trained('stars')
    told = rec.add_items(pd.DataFrame(dict(user_id=[3,4], item_id=[295,296], rating=[5.,1.])), features=NEW)
    plain = rec.add_items(features=NEW)
    assert 295 not in told.recommend(3, k=400).item_id.tolist() and 295 in plain.recommend(3, k=400).item_id.tolist()
    np.testing.assert_array_equal(scores(told), scores(plain))
    assert len(told.train)==len(rec.train) and len(told.seen)==len(rec.seen)+2

def test_they_are_seen_after_a_bundle_too(tmp_path):
    for kind in ('ease','next','stars'):
        rec = load_bundle(trained(kind).save_bundle(tmp_path/kind))
        told = rec.add_items(pd.DataFrame(dict(user_id=[3], item_id=[295])), features=NEW)
        again = load_bundle(told.save_bundle(tmp_path/f'{kind}2'))
        assert 295 not in again.recommend(3, k=400).item_id.tolist() and len(again.train)==len(rec.train)
        pd.testing.assert_frame_equal(again.recommend([3,4], k=50), told.recommend([3,4], k=50), rtol=1e-5, atol=1e-6)

BAD = [
    (FILMS[280:], RatingsError, '10 of 20 items have a row already: 281'), (NEW.astype({'item_id': str}).assign(item_id='x'), RatingsError, 'differ for one id'),
    (NEW[:1].assign(item_id='x'), UnknownIdError, 'cannot be read as a whole number'), (NEW.drop(columns='year'), RatingsError, "no column 'year'"),
    (NEW.drop(columns='item_id'), RatingsError, "no column 'item_id' of ids"), (NEW[:0], RatingsError, 'a table without rows'),
    (NEW.assign(year='soon'), RatingsError, "'year' is no quantity"), (None, ArgumentError, 'pass a table'), ([1,2], RatingsError, 'expected a pandas DataFrame'),
]

@pytest.mark.parametrize('features,error,says', BAD, ids=range(len(BAD)))
def test_what_cannot_be_added_is_a_sentence(features, error, says):
    with pytest.raises(error, match=says): trained('ease').add_items(features=features)

def test_unknown_values_are_counted():
    odd = NEW.assign(genres='Opera|Comedy', year=[np.nan]+[1999.]*9)
    with pytest.warns(UserWarning, match='not there in training say nothing'): report = trained('ease').add_items(features=odd).train.features['item'].report
    assert report['added']==10 and report['added_unknown']=={'genres': 10, 'year': 1}

def test_other_models_are_refused_with_what_to_do():
    with pytest.raises(ArgumentError, match='train with items='): fit_one_cycle(KINDS['ease'](items=None), 1).recommender.add_items(features=NEW)
    class Mine(nn.Module):
        def __init__(self, n_users, n_items):
            super().__init__()
            self.u,self.i = nn.Embedding(n_users, 4),nn.Embedding(n_items, 4)
        def forward(self, x): return (self.u(x[:,0])*self.i(x[:,1])).sum(1)
    dls = clicks(4)
    learn = fit_one_cycle(collab_learner(dls, arch=Mine(dls.n_users, dls.n_items), loss_func=BPRLoss()), 1)
    with pytest.raises(NotImplementedError, match='Mine cannot be built for more items'): learn.recommender.add_items(features=NEW)
    off = fit_one_cycle(collab_learner(clicks(), arch=EASE, cold_tail=False), 1).recommender
    with pytest.raises(ArgumentError, match='cold_tail=False'): off.add_items(features=NEW)
    with pytest.raises(UnknownIdError): trained('ease').add_items(pd.DataFrame(dict(user_id=[99999], item_id=[295])), features=NEW)

def test_all_items_may_have_been_trained_on():
    "A tail that had nothing to do has something to do now"
    learn = fit_one_cycle(collab_learner(CollabDataLoaders.implicit_from_df(NIGHT, n_neg=0, items=FILMS, valid_pct=0), arch=EASE), 1)
    assert not learn.model.cold_tail
    new = learn.recommender.add_items(features=NEW.assign(item_id=NEW.item_id+100))
    assert set(NEW.item_id+100)<=set(new.recommend(3, k=400).item_id)

def test_ids_that_are_text_and_parts_of_a_model():
    text = lambda d: d.assign(item_id='f'+d.item_id.astype(str))
    dls = CollabDataLoaders.from_df(text(WARM), items=text(OLD), bs=512, valid_pct=.1, seed=0)
    learn = collab_learner(dls, arch='auto', budget=2)
    with learn.quiet(): learn.fit(1)
    rec = learn.recommender
    new = rec.add_items(features=text(NEW))
    lists = new.recommend(3, k=400)
    assert set(text(NEW).item_id)<=set(lists.item_id) and lists.predicted.notna().all()
    old = rec.recommend(3, k=400).set_index('item_id')
    np.testing.assert_allclose(lists.set_index('item_id').score[old.index], old.score, rtol=1e-5, atol=1e-6)

def test_neither_the_frame_nor_the_model_is_changed():
    rec,given = trained('bpr'),NEW.copy()
    state = {k: v.clone() for k,v in rec.model.state_dict().items()}
    rec.add_items(features=given)
    pd.testing.assert_frame_equal(given, NEW)
    assert all(torch.equal(v, state[k]) for k,v in rec.model.state_dict().items())

every_reader = pytest.mark.parametrize('kind', READERS)

def finite(df, col='score'): return len(df)>0 and bool(np.isfinite(df[col]).all())

@every_reader
def test_what_has_learned_from_features_answers_in_every_verb(kind):
    rec = trained(kind)
    new = rec.add_items(features=NEW)
    ids = NEW.item_id.tolist()
    lists = [new.recommend([3,4], k=5, item_ids=ids), new.recommend(history=[5,6,7], k=5, item_ids=ids),
             new.recommend(user_features=dict(kind='a', age=30), k=5, item_ids=ids)]
    assert all(finite(o) and set(o.item_id)<=set(ids) for o in lists)
    np.testing.assert_allclose(new.predict(3, lists[0].item_id[:5]), lists[0].score[:5], rtol=1e-5, atol=1e-6)
    near = new.similar_items(ids, k=4)
    assert finite(near) and len(near)==40 and set(near.item_id)<=set(WARM.item_id)
    assert near.score.between(-1.001, 1.001).all() and near.groupby('query_id').score.std().gt(0).all()
    pd.testing.assert_frame_equal(new.similar_items([5,6], k=3), rec.similar_items([5,6], k=3), rtol=1e-5)
    why = new.explain(3, ids, by='features')
    np.testing.assert_allclose(why.groupby('item_id').contribution.sum()[ids], new.predict(3, ids), rtol=1e-4, atol=1e-4)
    assert (why.because_feature.notna().groupby(why.item_id).sum()>0).all()

@pytest.mark.parametrize('kind', [*READERS,'prior'])
def test_a_film_added_scores_as_the_same_film_that_was_there(kind):
    "Film 285 was in the table of training without a row; told anew under another number it is the same film"
    new = trained(kind).add_items(features=OLD[284:285].assign(item_id=999))
    s = scores(new)
    assert s[999]==pytest.approx(s[285], rel=1e-4)
    pd.testing.assert_frame_equal(new.similar_items(999, k=3).drop(columns='query_id'), new.similar_items(285, k=3).drop(columns='query_id'), rtol=1e-5)

@every_reader
def test_nothing_given_is_changed_where_features_were_learned(kind):
    rec,given = trained(kind),NEW.copy()
    state,table = {k: v.clone() for k,v in rec.model.state_dict().items()},rec.model.item_features
    before = rec.recommend([3,4], k=20)
    with pytest.warns(UserWarning, match=r"say nothing .*'genres': 10"): new = rec.add_items(features=given.assign(genres='Opera'))
    assert new.train.features['item'].report['added_unknown']=={'genres': 10} and np.isfinite(scores(new)[NEW.item_id]).all()
    pd.testing.assert_frame_equal(given, NEW)
    pd.testing.assert_frame_equal(rec.recommend([3,4], k=20), before)
    assert all(torch.equal(v, state[k]) for k,v in rec.model.state_dict().items()) and rec.model.item_features is table
    assert len(new.model.item_features)==301 and len(table)==291

def test_what_was_solved_with_features_says_what_it_would_have_said():
    "The map is found again from the items there are; of those that were there nothing changes"
    rec = trained('prior')
    new = rec.add_items(features=NEW)
    assert torch.equal(new.model.said[:291], rec.model.said) and (new.model.said[291:]!=0).any(1).all()
    both = fit_one_cycle(KINDS['prior'](items=Features(FILMS, **GENRES)), 1).recommender # the new ones were there, without a pair
    assert np.corrcoef(scores(new)[NEW.item_id], scores(both)[NEW.item_id])[0,1]>.98 # what is rare is counted on other rows

@pytest.mark.parametrize('kind', ['ease','stars'])
def test_neighbours_of_a_film_without_a_vector_are_those_by_features(kind):
    new = trained(kind).add_items(features=NEW)
    D = new.train.features['item'].directions.toarray()
    row = new.items.encode([295], 'raise')[0]
    near = new.similar_items(295, k=5)
    known = np.flatnonzero(new.known('item'))
    np.testing.assert_allclose(near.score, np.sort(D[known]@D[row])[::-1][:5], rtol=1e-5)
    assert set(near.item_id)<=set(WARM.item_id)
