"Two towers: what they add up, whose rows enter, cold items and people by what they are, and the same at every door"
import copy

import numpy as np
import pandas as pd
import pytest
import torch

from described import COLD, FILMS, PEOPLE, clicks, near_the_same_person_known, reasons_that_sum_to_scores, same_for_all_items, same_from_a_bundle, stars, trainer
from helpers import fit_one_cycle
from recfast.core import RatingsError
from recfast.data.features import Features
from recfast.data.loaders import CollabDataLoaders
from recfast.learner import collab_learner
from recfast.losses import BCE, BPRLoss, SampledSoftmaxLoss, SoftmaxLoss
from recfast.models.base import score_items
from recfast.models.ids import meet
from recfast.models.tail import OwnScores, cold_items
from recfast.models.towers import TwoTower
from recfast.ordinal import OrdinalLoss
from recfast.testing import check_model, synth_ratings

def towers(dls, loss=None, config=None, **kwargs): return collab_learner(dls, 8, arch=TwoTower, config=config or dict(layers=[12]), loss_func=loss, **kwargs)

KINDS = dict(
    softmax=lambda: towers(clicks(), SoftmaxLoss()),
    linear=lambda: towers(clicks(), SoftmaxLoss(), dict(ids_p=0.)),
    features_only=lambda: towers(clicks(), SoftmaxLoss(), dict(ids=False)),
    norm=lambda: towers(clicks(8), SampledSoftmaxLoss(), dict(layers=[12,10], use_bn=True, ps=.1)),
    bce=lambda: towers(clicks(4), BCE()),
    bpr=lambda: towers(clicks(4), BPRLoss()),
    stars=lambda: towers(stars(), y_range=(0,5.5)),
    levels=lambda: towers(stars(), OrdinalLoss()),
)
every_kind = pytest.mark.parametrize('kind', KINDS)
trained = trainer(KINDS)

def tower_by_hand(m, side):
    "[n,K] the formula, with dense matrices"
    table,tower,w = getattr(m, f'{side}_features'),getattr(m, f'{side}_tower'),m.u_weight if side=='user' else m.i_weight
    parts = [] if w is None else [w.weight*getattr(m, f'{side}_trained')]
    parts.append(torch.from_numpy(table.directions.toarray())@tower.bag)
    past,bn = sum(parts),tower.bn_cont
    if tower.layers is None: return past
    parts.append((table.dense-bn.running_mean)/(bn.running_var+bn.eps).sqrt()*bn.weight+bn.bias)
    h = torch.cat(parts, 1)
    for layer in tower.layers: h = layer(h)
    return past+h

@every_kind
def test_scores_are_those_of_the_formula(kind):
    m = trained(kind).model.eval()
    with torch.no_grad(): want = (tower_by_hand(m, 'user')[[3,7,7,600]]*tower_by_hand(m, 'item')[[1,5,300,12]]).sum(1)
    if m.y_range: want = 5.5*want.sigmoid()
    x = torch.tensor([[3,1],[7,5],[7,300],[600,12]])
    with torch.no_grad(): torch.testing.assert_close(m(x)[:,0], want, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(m(x)[:,0].detach(), want, rtol=1e-4, atol=1e-5) # with gradients on, by rows

@every_kind
def test_scores_of_all_items_are_those_of_its_forward(kind): same_for_all_items(trained(kind))

def test_with_features_it_keeps_the_contract():
    df = synth_ratings()
    items = pd.DataFrame(dict(item_id=np.arange(1, 41), odd=np.tile(['a','b'], 20), size=np.arange(40.)))
    users = pd.DataFrame(dict(user_id=np.arange(1, 51), kind=np.tile(list('abcde'), 10)))
    def make():
        dls = CollabDataLoaders.from_df(df, bs=32, seed=42, items=items, users=users)
        return collab_learner(dls, 5, arch=TwoTower, y_range=(0,5.5), config=dict(layers=[8]))
    check_model(make, dict(similar_items=True, history=True, item_bias=False, user_bias=False, gradient=True))

# whose row is whose

@every_kind
def test_no_row_that_was_never_trained_enters_a_score(kind):
    learn = trained(kind)
    m,rows = copy.deepcopy(learn.model),learn.dls.classes['item_id'].encode(COLD)
    before = score_items(m, torch.tensor([3,4]), learn.dls.n_items).clone()
    if m.i_weight is not None:
        with torch.no_grad(): m.i_weight.weight[rows] += 100.
    torch.testing.assert_close(score_items(m, torch.tensor([3,4]), learn.dls.n_items), before, rtol=0, atol=0)
    assert before[:,rows].std(1).min()>0 # and films without a row differ

def test_ids_are_hidden_in_training_only_and_only_where_something_is_known():
    m = towers(clicks(users=None), SoftmaxLoss(), dict(ids_p=.5)).model
    m.train()
    with torch.no_grad():
        assert .3<float((m._own('item', None)[1:].abs().sum(1)==0).float().mean()-(~m.item_trained[1:,0].bool()).float().mean())<.6
        assert (m._own('user', None)[1:].abs().sum(1)>0).all() # nothing is known of people
        m.eval()
        assert ((m._own('item', None).abs().sum(1)>0)==m.item_trained[:,0].bool()).all()

def test_without_ids_and_features_nothing_is_left():
    with pytest.raises(RatingsError, match='nothing is known of items'): towers(clicks(items=None), config=dict(ids=False))

def test_features_of_other_columns_are_refused():
    learn = trained('stars')
    with pytest.raises(RatingsError, match='features of other columns'): meet(learn.model, stars(items=FILMS.drop(columns='year')).interactions('train'))
    meet(learn.model, stars().interactions('train'))

# cold items and new people

@every_kind
def test_cold_items_are_scored_by_the_tower_itself(kind):
    learn = trained(kind)
    assert isinstance(learn.model.cold_tail, OwnScores) and cold_items(learn.model).nonzero()[:,0].tolist()==learn.dls.classes['item_id'].encode(COLD).tolist()
    df = learn.recommend([3,4], k=300, exclude_seen=False)
    assert set(COLD)<=set(df.item_id)
    np.testing.assert_allclose(learn.predict(df.user_id.tolist(), df.item_id.tolist()), df.score, rtol=1e-4, atol=1e-4)
    told = learn.recommend(history={7: 5.} if kind in ('stars','levels') else [7], k=300)
    assert set(COLD)<=set(told.item_id)
    assert learn.evaluate(k=10, candidates='cold', metrics='ndcg', baseline=False)['ndcg@10']>0

def test_a_tower_finds_who_likes_a_film_that_nobody_has_seen():
    learn = fit_one_cycle(towers(clicks(bs=2048, by_user=True, users=None), SoftmaxLoss(), dict(ids_p=.3)), 8, 2e-2, wd=.1)
    how = dict(k=10, candidates='cold', metrics='ndcg', baseline=False)
    found = learn.evaluate(**how)['ndcg@10']
    shuffled = FILMS.assign(item_id=np.random.default_rng(0).permutation(FILMS.item_id))
    other = fit_one_cycle(towers(clicks(bs=2048, by_user=True, users=None, items=shuffled), SoftmaxLoss(), dict(ids_p=.3)), 8, 2e-2, wd=.1)
    assert found>1.3*other.evaluate(**how)['ndcg@10']

@pytest.mark.parametrize('kind', ['softmax','stars'])
def test_people_known_by_features_only_are_the_mean_of_what_is_personal_and_what_features_say(kind):
    learn = trained(kind)
    m = learn.model.eval()
    said = dict(age=30., kind='b')
    like = int(PEOPLE[(PEOPLE.age==30)&(PEOPLE.kind=='b')].user_id.iloc[0])
    row = int(learn.dls.classes['user_id'].encode([like])[0])
    with torch.no_grad():
        alone = m.user_tower(torch.zeros_like(m.u_weight.weight), m.user_features)
        want = m.score_vectors((m.outputs('user')-alone)[1:].mean(0)+alone[row])
    df = learn.recommend(user_features=said, k=300)
    assert len(df)==300
    np.testing.assert_allclose(df.score, want[learn.dls.classes['item_id'].encode(df.item_id.to_numpy())], rtol=1e-4, atol=1e-4)
    with_history = learn.recommend(history=[7,8] if kind=='softmax' else {7: 5., 8: 4.}, user_features=said, k=5)
    assert len(with_history)==5

# at every door

@every_kind
def test_a_bundle_gives_the_same_answers(kind, tmp_path):
    learn,said = trained(kind),dict(age=30., kind='b')
    rec = same_from_a_bundle(learn, kind, tmp_path/'b')
    pd.testing.assert_frame_equal(rec.recommend(user_features=said, k=20), learn.recommend(user_features=said, k=20), rtol=1e-4, atol=1e-4)

def test_an_exported_learner_scores_cold_items_as_before(tmp_path):
    from fastai.learner import load_learner
    learn = trained('softmax')
    want = learn.predict(3, int(COLD[0]))
    learn.export(tmp_path/'towers.pkl')
    assert abs(load_learner(tmp_path/'towers.pkl').predict(3, int(COLD[0]))-want)<1e-5

def test_somebody_told_by_a_history_is_scored_near_the_same_person_known():
    near_the_same_person_known(fit_one_cycle(towers(clicks(users=None), SoftmaxLoss()), 4, 1e-2), 'softmax')

def test_a_program_without_python_gets_the_dot_product_it_comes_to(tmp_path):
    learn = trained('softmax')
    path = learn.export_program(tmp_path/'rank.pt2', k=5)
    items,scores = torch.export.load(path).module()(torch.tensor([3,4,5]), torch.zeros(3, 1, dtype=torch.int64))
    want = learn.recommend(learn.dls.classes['user_id'].decode([3,4,5]), k=5, exclude_seen=False, cold_items=False)
    np.testing.assert_array_equal(learn.dls.classes['item_id'].decode(items.numpy().ravel()), want.item_id)
    np.testing.assert_allclose(scores.detach().numpy().ravel(), want.score, rtol=1e-4, atol=1e-5)

def test_a_single_multi_column_is_enough():
    one = Features(FILMS[['item_id','genres']], multi={'genres': '|'})
    learn = fit_one_cycle(towers(clicks(items=one, users=None), SoftmaxLoss()), 1, 1e-2)
    assert learn.model.item_tower.bn_cont is None and len(learn.recommend(3, k=5))==5

# reasons

@every_kind
def test_features_that_explain_sum_to_the_score(kind):
    learn = trained(kind)
    for why in reasons_that_sum_to_scores(learn):
        assert {'year'}<set(why.because_feature.dropna()) and why.because_item_id.isna().all()
    assert (learn.explain(3, COLD[:2]).because_feature.notna()).any() # new films have them without being asked

@every_kind
def test_what_is_left_is_the_score_without_features(kind):
    m,items = trained(kind).model.eval(),np.array([7,8,COLD[0]])
    u = m.outputs('user', torch.tensor([3]))[0].detach()
    columns,rest = m.feature_terms(u, items, steps=256)
    own = m._own('item', torch.from_numpy(items))
    bn = m.item_tower.bn_cont
    nothing = m.item_tower.join(own, torch.zeros(3, 8), None if bn is None else bn(torch.zeros(3, m.item_features.dense.shape[1])))
    left = (nothing@u).detach().numpy()
    np.testing.assert_allclose(rest, left, atol=1e-5 if not m.hyper.get('layers') else .02*np.abs(columns).sum(1).max()+1e-4)
