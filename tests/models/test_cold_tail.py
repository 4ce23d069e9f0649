"Scores of items that nobody met, from what they are: behind any model, and nothing of what it says of the others changes"
import copy
import numpy as np
import pandas as pd
import pytest
import torch
from scipy.sparse import csr_matrix
from torch import nn

from helpers import fit_one_cycle
from recfast.core import RatingsError
from recfast.data.catalogues import movie_night_films
from recfast.data.datasets import movie_night
from recfast.data.loaders import CollabDataLoaders
from recfast.ensemble import Blend, Ensemble
from recfast.learner import collab_learner
from recfast.losses import BCE, BPRLoss, SoftmaxLoss
from recfast.models import EASE, IALS, DotProduct, DotProductBias, ItemKNN
from recfast.models.base import score_items, score_pairs
from recfast.models.hybrid import HybridDot
from recfast.models.maps import RidgeMap, found, level, nearness
from recfast.models.tail import cold_items

NIGHT,FILMS = movie_night(),movie_night_films()
COLD = np.arange(5, 300, 10)
IS_COLD = NIGHT.item_id.isin(COLD).to_numpy()
SPLITS = np.flatnonzero(~IS_COLD),np.flatnonzero(IS_COLD)

def stars(**kwargs): return CollabDataLoaders.from_df(NIGHT, bs=512, seed=0, splits=SPLITS, **{'items': FILMS, **kwargs})
def clicks(n_neg=0, **kwargs): return CollabDataLoaders.implicit_from_df(NIGHT, bs=512, seed=0, n_neg=n_neg, splits=SPLITS, **{'items': FILMS, **kwargs})

KINDS = dict(
    softmax=lambda **o: collab_learner(clicks(), 8, arch=DotProduct, loss_func=SoftmaxLoss(), **o),
    bce=lambda **o: collab_learner(clicks(4), 8, arch=DotProductBias, loss_func=BCE(), **o),
    bpr=lambda **o: collab_learner(clicks(4), 8, arch=DotProductBias, loss_func=BPRLoss(), **o),
    stars=lambda **o: collab_learner(stars(), 8, y_range=(0,5.5), **o),
    ease=lambda **o: collab_learner(clicks(), arch=EASE, **o),
    ials=lambda **o: collab_learner(clicks(), 8, arch=IALS, config=dict(l2=.01, alpha=.1), **o),
    knn=lambda **o: collab_learner(clicks(), arch=ItemKNN, **o),
)
every_kind = pytest.mark.parametrize('kind', KINDS)
_TRAINED = {}

def trained(kind):
    if kind not in _TRAINED: _TRAINED[kind] = fit_one_cycle(KINDS[kind](), 2, 1e-2)
    return _TRAINED[kind]

# the arithmetic, against dense references

def test_the_map_is_the_ridge_regression_of_item_rows():
    rng = np.random.default_rng(0)
    F = csr_matrix((rng.random((40,6))<.4).astype(float))
    P,Q = rng.normal(size=(7,3)),rng.normal(size=(30,3))
    F_w,F_c = F[:30].toarray(),F[30:].toarray()
    mu = .7*np.diag(F_w.T@F_w).mean()/2
    B = np.linalg.solve(F_w.T@F_w+mu*np.eye(6), F_w.T@Q)
    np.testing.assert_allclose(RidgeMap(F[:30], F[30:], .7)(P@Q.T), P@(F_c@B).T, rtol=1e-8, atol=1e-10)

def test_nearness_is_the_sum_over_what_was_met():
    rng = np.random.default_rng(0)
    X,D = (rng.random((4,9))<.5).astype(float),rng.normal(size=(12,3))
    want = np.stack([3*X[u]@D[:9]@D[9:].T/np.sqrt(max(X[u].sum(), 1)) for u in range(4)])
    np.testing.assert_allclose(nearness(csr_matrix(X), csr_matrix(D[:9]), csr_matrix(D[9:])), want)

def test_ndcg_is_that_of_a_plain_loop():
    rng = np.random.default_rng(0)
    scores,wanted = rng.normal(size=(20,50)),rng.random((20,50))<.2
    def one(s, w):
        hit = w[np.argsort(-s)[:20]]
        gain = 1/np.log2(np.arange(20)+2)
        return (hit*gain).sum()/gain[:min(20, w.sum())].sum()
    assert found(scores, wanted)==pytest.approx(np.mean([one(s, w) for s,w in zip(scores, wanted) if w.any()]))

def test_at_its_level_the_held_out_have_as_many_places_as_before():
    rng = np.random.default_rng(0)
    own,others = rng.normal(size=(60,40)),rng.normal(size=(60,90))
    raw = .3*own+rng.normal(size=(60,40))-4
    def places(s):
        top = np.argsort(-np.concatenate([s,others], 1), 1)[:,:20]
        return (top<40).sum()
    assert abs(places(raw+level(raw, own, others))-places(own))<=1

# behind a model

@every_kind
def test_every_warm_score_is_the_same_to_the_bit(kind):
    learn = trained(kind)
    n,users = learn.dls.n_items,torch.arange(1, learn.dls.n_users)
    alone,both = score_items(learn.model, users, n, cold=False),score_items(learn.model, users, n)
    cold = cold_items(learn.model)
    assert cold.sum()==len(COLD) and torch.equal(alone[:,~cold], both[:,~cold])
    assert not torch.equal(alone[:,cold], both[:,cold]) and both[:,cold].isfinite().all()

@every_kind
def test_one_number_for_every_verb(kind):
    learn = trained(kind)
    lists = learn.recommend([3,4,5], k=40, item_ids=COLD, exclude_seen=False)
    assert set(lists.item_id)==set(COLD)
    want = learn.predict(lists.user_id.to_numpy(), lists.item_id.to_numpy())
    np.testing.assert_allclose(lists.score, want, rtol=1e-5, atol=1e-6)
    rows = learn.recommender.users.encode([3]),learn.dls.classes['item_id'].encode(COLD)
    table = score_items(learn.model, torch.from_numpy(rows[0]), learn.dls.n_items)[0,rows[1]]
    np.testing.assert_allclose(learn.predict(3, COLD), table, rtol=1e-5, atol=1e-6)

@pytest.mark.parametrize('kind', [o for o in KINDS if o!='stars'])
def test_cold_lists_are_better_than_by_chance_and_evaluate_says_who_stood_in_them(kind):
    ev = trained(kind).evaluate(k=10, candidates='cold')
    rng = np.random.default_rng(0)
    test = NIGHT[IS_COLD].groupby('user_id').item_id.agg(set)
    chance = np.mean([len(set(rng.permutation(COLD)[:10])&o)/10 for o in test for _ in range(5)])
    assert f'the {len(COLD)} items without a training row, scored from features' in ev.protocol
    assert ev['precision@10']>1.1*chance

def test_candidates_are_trained_unless_said_otherwise():
    learn = trained('ease')
    a,b = learn.evaluate(k=10),learn.evaluate(k=10, candidates='trained')
    assert a.summary==b.summary and 'all 270 trained items' in a.protocol
    both = learn.evaluate(k=10, candidates='all')
    assert 'all 270 trained items and 30 scored from features' in both.protocol and both['ndcg@10']>a['ndcg@10']==0

def test_a_model_without_features_scores_no_cold_item():
    learn = collab_learner(clicks(items=None), arch=EASE)
    fit_one_cycle(learn, 1)
    assert cold_items(learn.model) is None
    with pytest.raises(RatingsError, match='scores no item without a training row'): learn.evaluate(candidates='cold')
    one,two = (learn.evaluate(SPLIT_TEST, k=5, candidates=o) for o in ('all','trained'))
    assert one.protocol==two.protocol and one.summary==two.summary

SPLIT_TEST = NIGHT[~IS_COLD].groupby('user_id').tail(1)

def test_lists_have_cold_items_unless_they_are_left_out():
    learn = trained('softmax')
    a,b = learn.recommend(k=300),learn.recommend(k=300, cold_items=False)
    assert set(COLD)<=set(a.item_id) and not set(COLD)&set(b.item_id)
    warm = a[~a.item_id.isin(COLD)].drop(columns='rank').reset_index(drop=True)
    pd.testing.assert_frame_equal(warm, b.drop(columns='rank'))

def test_the_tail_can_be_left_off():
    learn = fit_one_cycle(KINDS['ease'](cold_tail=False), 1)
    assert cold_items(learn.model) is None and not set(COLD)&set(learn.recommend(k=300).item_id)
    fit_one_cycle(learn, 1)
    learn.dls = clicks()
    assert cold_items(learn.model) is None

@pytest.mark.parametrize('kind', ['ease','softmax','stars'])
def test_somebody_told_by_a_history_is_scored_as_the_same_person_known(kind):
    learn = trained(kind)
    mine = NIGHT[(NIGHT.user_id==7)&~IS_COLD]
    told = dict(zip(mine.item_id, mine.rating)) if kind=='stars' else mine.item_id.tolist()
    a = learn.recommend(history=told, k=40, item_ids=COLD).sort_values('item_id').score
    b = learn.recommend(7, k=40, item_ids=COLD, exclude_seen=False).sort_values('item_id').score
    if kind=='ease': np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    assert np.corrcoef(a, b)[0,1]>(.9 if kind!='stars' else .4)

def test_other_weights_have_another_tail_and_the_same_the_same():
    learn = fit_one_cycle(KINDS['bce'](), 1)
    before = learn.predict(3, COLD)
    np.testing.assert_array_equal(before, learn.predict(3, COLD))
    fit_one_cycle(learn, 1)
    assert (before!=learn.predict(3, COLD)).all()

def test_ratings_stay_within_their_range():
    p = trained('stars').predict(np.repeat(np.arange(1, 60), len(COLD)), np.tile(COLD, 59))
    assert p.min()>0 and p.max()<5.5

def test_ratings_of_cold_items_are_nearer_than_those_of_rows_that_never_were_trained():
    learn,test = trained('stars'),NIGHT[IS_COLD]
    error = lambda p: np.sqrt(np.square(p-test.rating.to_numpy()).mean())
    rows = torch.from_numpy(np.stack([learn.dls.classes[o].encode(test[o]) for o in ('user_id','item_id')], 1))
    tail,learn.model.cold_tail = learn.model.cold_tail,None
    alone = error(score_pairs(learn.model, rows).numpy())
    learn.model.cold_tail = tail
    assert error(learn.predict(test.user_id.to_numpy(), test.item_id.to_numpy()))<alone

def test_a_copy_of_a_model_has_no_tail_until_it_meets_loaders():
    learn = trained('ease')
    assert cold_items(copy.deepcopy(learn.model)) is None
    again = collab_learner(learn.dls, arch=copy.deepcopy(learn.model))
    np.testing.assert_allclose(again.predict(3, COLD), learn.predict(3, COLD), rtol=1e-6)

def test_explain_gives_reasons_for_what_was_trained():
    df = trained('ease').explain(3, k=5)
    assert len(df) and not set(COLD)&set(df.item_id)

# models of others

def test_a_rater_with_a_ranker_has_the_tails_of_its_parts():
    from recfast.ensemble import two_part
    ranker,rater = trained('ease'),trained('stars')
    learn = two_part(rater, ranker)
    lists = learn.recommend([3,4], k=10, item_ids=COLD)
    np.testing.assert_allclose(lists.score, ranker.predict(lists.user_id.to_numpy(), lists.item_id.to_numpy()), rtol=1e-5, atol=1e-6)
    assert learn.predict(3, int(COLD[0]))==pytest.approx(rater.predict(3, int(COLD[0])), rel=1e-5)

# models that read features themselves

class Hand(nn.Module):
    def __init__(self, n_users, n_items, n_factors, y_range, item_features=None, user_features=None):
        super().__init__()
        self.item_features = item_features
        self.u = nn.Embedding(n_users, item_features.width)
    def forward(self, x): return (self.u(x[:,0])*self.item_features[x[:,1]]).sum(1)

def test_a_hand_written_model_is_handed_features_by_their_name():
    dls = stars()
    learn = collab_learner(dls, arch=Hand, y_range=(0,5.5))
    assert learn.model.item_features is dls.features('item') and set(learn.model.state_dict())=={'u.weight'}
    fit_one_cycle(learn, 2)
    other = stars()
    learn.dls = other
    assert learn.model.item_features is other.features('item')

def test_features_are_no_table_of_ids_even_where_there_are_as_many():
    from recfast.models.base import id_tables
    dls = stars()
    model = collab_learner(dls, arch=Hand).model
    of_users,of_items = id_tables(model, dls.n_users, dls.n_items)
    assert set(of_users)=={'u.weight'} and of_items=={}

# kept in a bundle

@pytest.mark.parametrize('kind', ['ease','softmax','stars'])
def test_a_bundle_gives_the_same_lists_for_cold_items(kind, tmp_path):
    from recfast.bundle import load_bundle
    learn = trained(kind)
    rec = load_bundle(learn.save_bundle(tmp_path/'b'))
    users = [3,4,5,60]
    pd.testing.assert_frame_equal(rec.recommend(users, k=300), learn.recommend(users, k=300), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(rec.predict(3, COLD), learn.predict(3, COLD), rtol=1e-5, atol=1e-6)
    again = load_bundle(rec.save_bundle(tmp_path/'c.zip'))
    assert again.train.features['item'].report==learn.dls.features('item').report
    np.testing.assert_array_equal(again.predict(3, COLD), rec.predict(3, COLD))

def test_a_bundle_knows_that_the_tail_was_left_off(tmp_path):
    from recfast.bundle import load_bundle
    learn = fit_one_cycle(KINDS['ease'](cold_tail=False), 1)
    assert cold_items(load_bundle(learn.save_bundle(tmp_path/'b')).model) is None

def test_a_damaged_table_of_features_is_an_error_of_ours(tmp_path):
    import json
    from recfast.bundle import _signed, load_bundle
    from recfast.core import BundleError
    path = trained('ease').save_bundle(tmp_path/'b')
    config = json.loads((path/'config.json').read_text(encoding='utf-8'))
    rng = np.random.default_rng(0)
    def broken(o):
        if isinstance(o, dict) and o:
            key = list(o)[rng.integers(len(o))]
            return {**o, key: broken(o[key])}
        return [None,-1,'x',[],{}][rng.integers(5)]
    for _ in range(40):
        (path/'config.json').write_text(json.dumps(_signed({**config, 'features': broken(config['features'])})), encoding='utf-8')
        try: load_bundle(path)
        except BundleError: pass

# training passes them by

def test_cold_items_stand_in_no_denominator_of_rows():
    from recfast.losses import MultinomialLoss
    from recfast.models import AutoRec
    how = dict(bs=64, seed=0, valid_pct=.1)
    warm = NIGHT[~IS_COLD].assign(rating=1.)
    a,b = (CollabDataLoaders.rows_from_df(warm, by='user', items=o, **how) for o in (FILMS,None))
    loss,alone = (collab_learner(o, 8, arch=AutoRec, loss_func=MultinomialLoss()).loss_func for o in (a,b))
    assert alone.cold is None and loss.cold.sum()==len(COLD)
    out,y = torch.randn(3, 301, requires_grad=True),torch.full((3,301), np.nan)
    y[:,1:9] = 1.
    cold = torch.cat([torch.zeros(1, dtype=torch.bool),loss.cold])
    loss(out, y).backward()
    assert out.grad[:,cold].abs().max()==0
    y[:,cold] = np.nan
    torch.testing.assert_close(loss(out, y), alone(out[:,~cold], y[:,~cold]))

@pytest.mark.parametrize('kind', ['softmax','bce','bpr'])
def test_no_gradient_reaches_the_row_of_a_cold_item(kind):
    learn = KINDS[kind]()
    w = learn.model.i_weight.weight
    at = cold_items(learn.model)
    start = w.detach().clone()
    with learn.quiet(): learn.fit(1, 1e-2, wd=0.)
    assert torch.equal(w.detach()[at], start[at]) and not torch.equal(w.detach()[~at], start[~at])

# over HTTP

def test_the_service_gives_the_same_cold_lists():
    from fastapi.testclient import TestClient
    from recfast.serve import make_app
    rec = trained('ease').recommender
    with TestClient(make_app(rec)) as client:
        res = client.post('/recommend', json=dict(user_ids=[3], k=300)).json()
    mine = rec.recommend(3, k=300)
    assert [o['item_id'] for o in res]==mine.item_id.tolist() and set(mine.item_id)&set(COLD)
    np.testing.assert_allclose([o['score'] for o in res], mine.score, rtol=1e-5, atol=1e-6)

# doors where a tail cannot be, or had not been

@every_kind
def test_predictions_of_fastai_are_those_of_predict(kind):
    learn = trained(kind)
    test = NIGHT[IS_COLD].head(40)
    dl = learn.dls.test_dl(pd.concat([test,NIGHT[~IS_COLD].head(5)]))
    preds,y = learn.get_preds(dl=dl)
    if kind in ('bce','bpr'): want = None
    else: want = learn.predict([*test.user_id,*NIGHT[~IS_COLD].user_id[:5]], [*test.item_id,*NIGHT[~IS_COLD].item_id[:5]])
    own = torch.as_tensor(score_pairs(learn.model, torch.stack([dl.dataset.users,dl.dataset.items], 1).long()))
    torch.testing.assert_close(preds.flatten()[:40], own[:40], check_dtype=False)
    if want is not None: np.testing.assert_allclose(preds.flatten(), want, rtol=1e-5)
    x,again,_ = learn.get_preds(dl=dl, with_input=True)
    assert torch.equal(again, preds) and len(x)==len(y)==45

@pytest.mark.parametrize('kind', ['stars','bce'])
def test_an_exported_learner_gives_no_number_for_a_cold_item(kind, tmp_path):
    from fastai.learner import load_learner
    learn = trained(kind)
    learn.export(tmp_path/'l.pkl')
    alone = load_learner(tmp_path/'l.pkl')
    user,warm = NIGHT.user_id[0],NIGHT.item_id[~IS_COLD].iloc[0]
    assert alone.predict(user, warm)==pytest.approx(learn.predict(user, warm), rel=1e-6)
    with pytest.raises(RatingsError, match='Use a bundle'): alone.predict(user, COLD[0])
    assert not alone.recommend(user, k=300, exclude_seen=False).item_id.isin(COLD).any()
    alone.dls = learn.dls
    assert alone.predict(user, COLD[0])==pytest.approx(learn.predict(user, COLD[0]), rel=1e-5)

def test_a_graph_says_that_it_leaves_cold_items_out(tmp_path):
    with pytest.warns(UserWarning, match='30 items without a training row'): trained('stars').export_onnx(tmp_path/'g.onnx', k=5)

def test_levels_of_a_cold_item_are_no_distribution():
    from recfast.ordinal import OrdinalLoss
    learn = fit_one_cycle(collab_learner(stars(), 8, loss_func=OrdinalLoss()), 1, 1e-2)
    user,warm = NIGHT.user_id[0],NIGHT.item_id[~IS_COLD].iloc[0]
    assert learn.predict(user, warm, dist=True).sum()==pytest.approx(1, abs=1e-5)
    with pytest.raises(ValueError, match='no training row'): learn.predict(user, COLD[0], dist=True)
    assert 1<=learn.predict(user, COLD[0])<=5

# reasons

@every_kind
def test_features_that_explain_a_cold_item_sum_to_its_score(kind):
    learn = trained(kind)
    rec = learn.recommender
    for who in (dict(user_id=3),dict(history=[1,2,3])):
        asked = dict(history=who['history']) if 'history' in who else dict(user_ids=3, exclude_seen=False)
        lists = learn.recommend(**asked, k=300, item_ids=COLD).set_index('item_id').score
        why = rec.explain(**who, item_ids=COLD)
        got = why.groupby('item_id').contribution.sum()
        np.testing.assert_allclose(got[lists.index], lists, rtol=1e-4, atol=1e-5)
        assert why.because_feature.notna().sum()>=len(COLD) and why.because_item_id.isna().all()
        own = why[(why.item_id==COLD[0])&why.because_feature.notna()]
        genres = {f'genres: {o}' for o in FILMS.genres[FILMS.item_id==COLD[0]].item().split('|')}
        assert set(own.because_feature)==genres|{'year'}

def test_known_items_keep_their_reasons_and_cold_ones_stand_behind():
    rec = trained('ease').recommender
    both,alone = rec.explain(3, [1,5], top=3),rec.explain(3, [1], top=3)
    pd.testing.assert_frame_equal(both[both.item_id==1][alone.columns], alone, check_dtype=False)
    assert both.attrs['rest']==alone.attrs['rest'] and (both.item_id==5).sum()==4
    assert not (rec.explain(3, [1,5], by='history').item_id==5).any()
    assert set(rec.explain(3, by='features', item_ids=5).item_id)=={5}
    with pytest.raises(NotImplementedError, match='adds up no features'): rec.explain(3, [1], by='features')
    with pytest.raises(ValueError, match="expected 'history'"): rec.explain(3, [1], by='genre')

def test_strongest_first_and_all_else_last():
    why = trained('stars').explain(3, 5, top=2)
    size = why.contribution.abs()
    assert size[0]>=size[1] and why.because_feature.tolist()[2] is None and len(why)==3

@pytest.fixture(scope='module')
def reader():
    return fit_one_cycle(collab_learner(clicks(), 8, arch=HybridDot, loss_func=SoftmaxLoss(), config=dict(wd_features=1.)), 2, 1e-2)

@pytest.mark.parametrize('kind', ['mean','blend','blend of none that reads'])
def test_features_that_explain_a_blend_sum_to_its_score(kind, reader):
    if kind=='mean': learn = Ensemble([reader,reader])
    else: learn = Blend([trained('knn') if kind=='blend of none that reads' else reader,trained('ease')], [.3,.7])
    known = [] if kind=='blend of none that reads' else [1,2,7]
    for who in (dict(user_id=3),dict(history=[1,2,3])):
        asked = dict(history=who['history']) if 'history' in who else dict(user_ids=3, exclude_seen=False)
        lists = learn.recommend(**asked, k=300, item_ids=[*known,*COLD[:3]]).set_index('item_id').score
        why = learn.explain(**who, item_ids=lists.index, by='features')
        np.testing.assert_allclose(why.groupby('item_id').contribution.sum()[lists.index], lists, rtol=1e-4, atol=1e-5)
        assert (why.because_feature.notna().groupby(why.item_id).sum()>=2).all()
    if not known:
        with pytest.raises(NotImplementedError, match='ZBlend adds up no features'): learn.explain(3, [1], by='features')

def test_what_a_feature_adds_to_a_blend_is_its_share_of_the_parts(reader):
    learn = Blend([reader,trained('ease')], [.3,.7])
    rec = learn.recommender
    why = learn.explain(3, COLD[:1]).set_index('because_feature').contribution
    scores = [o.recommender.score_users(torch.tensor([3]))[0][learn.dls.interactions('train').trained('item')] for o in (reader,trained('ease'))]
    parts = [w/float(s.std(correction=0))*o.explain(3, COLD[:1]).set_index('because_feature').contribution for w,s,o in zip((.3,.7), scores, (reader,trained('ease')))]
    want = parts[0].add(parts[1], fill_value=0)
    names = [o for o in why.index if isinstance(o, str)]
    assert 'year' in names
    np.testing.assert_allclose(why[names], want[names], rtol=1e-3, atol=1e-5)
    assert rec.explain(3, COLD[:1]).contribution.sum()==pytest.approx(rec.predict(3, COLD[0]), rel=1e-4)
