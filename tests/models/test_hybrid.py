"A dot product with features: what it adds up, who may move which row, how features are held back, and the same at every door"
import numpy as np
import pandas as pd
import pytest
import torch

from described import COLD, FILMS, NIGHT, clicks, near_the_same_person_known, same_for_all_items, same_from_a_bundle, stars, trainer
from helpers import fit_one_cycle
from recfast.bundle import load_bundle
from recfast.core import RatingsError
from recfast.data.features import Features
from recfast.data.loaders import CollabDataLoaders
from recfast.guard import best_decay, inner_loaders
from recfast.learner import collab_learner
from recfast.losses import BCE, BPRLoss, SampledSoftmaxLoss, SoftmaxLoss, WARPLoss
from recfast.models.base import id_tables
from recfast.models.dot import DotProductBias
from recfast.models.hybrid import HybridDot
from recfast.models.ids import meet
from recfast.ordinal import OrdinalLoss
from recfast.testing import check_model, synth_ratings

def hybrid(dls, loss=None, wd_features=1., **kwargs):
    return collab_learner(dls, 8, arch=HybridDot, config=dict(wd_features=wd_features, **kwargs.pop('config', {})), loss_func=loss, **kwargs)

KINDS = dict(
    softmax=lambda **o: hybrid(clicks(), SoftmaxLoss(), **o),
    sampled=lambda **o: hybrid(clicks(8), SampledSoftmaxLoss(), **o),
    bce=lambda **o: hybrid(clicks(4), BCE(), **o),
    bpr=lambda **o: hybrid(clicks(4), BPRLoss(), **o),
    warp=lambda **o: hybrid(clicks(8), WARPLoss(), **o),
    stars=lambda **o: hybrid(stars(), y_range=(0,5.5), **o),
    levels=lambda **o: hybrid(stars(), OrdinalLoss(), **o),
)
every_kind = pytest.mark.parametrize('kind', KINDS)
trained = trainer(KINDS)

# the sum

@every_kind
def test_scores_are_those_of_the_formula(kind):
    m = trained(kind).model
    full = {}
    for side,w,b in (('user',m.u_weight,m.u_bias),('item',m.i_weight,m.i_bias)):
        F = getattr(m, f'{side}_features').directions.toarray()
        own = torch.cat([w.weight,b.weight], 1).detach().numpy()*getattr(m, f'{side}_trained').numpy()
        full[side] = own+F@getattr(m, f'{side}_map').detach().numpy()
    users,items = np.array([3,7,7,600]),np.array([1,5,300,12])
    u,i = full['user'][users],full['item'][items]
    want = torch.from_numpy((u[:,:-1]*i[:,:-1]).sum(1)+u[:,-1]+i[:,-1])
    if m.y_range: want = 5.5*want.sigmoid()
    x = torch.from_numpy(np.stack([users,items], 1))
    with torch.no_grad(): torch.testing.assert_close(m.eval()(x)[:,0], want.float(), rtol=1e-5, atol=1e-5)

@every_kind
def test_scores_of_all_items_are_those_of_its_forward(kind):
    learn = trained(kind)
    same_for_all_items(learn)
    tail,learn.model.cold_tail = learn.model.cold_tail,None
    try: same_for_all_items(learn)
    finally: learn.model.cold_tail = tail

def test_gradients_are_those_of_a_dense_model():
    dls = stars()
    model = hybrid(dls).model.double()
    D = {side: torch.from_numpy(dls.features(side).directions.toarray()).double() for side in ('item','user')}
    x = torch.tensor([[3,7],[3,5],[9,7]])
    model.item_features.directions.data = model.item_features.directions.data.astype(np.float64)
    model.user_features.directions.data = model.user_features.directions.data.astype(np.float64)
    model(x).sum().backward()
    got = [model.item_map.grad.clone(),model.user_map.grad.clone()]
    W,V = (o.detach().clone().requires_grad_() for o in (model.item_map,model.user_map))
    own = lambda w,b,t: (torch.cat([w.weight,b.weight], 1)*t).detach()
    q = own(model.i_weight, model.i_bias, model.item_trained)+D['item']@W
    p = own(model.u_weight, model.u_bias, model.user_trained)+D['user']@V
    u,i = p[x[:,0]],q[x[:,1]]
    (5.5*0+(u[:,:-1]*i[:,:-1]).sum()+u[:,-1].sum()+i[:,-1].sum()).backward()
    for a,b in zip(got, (W.grad,V.grad)): torch.testing.assert_close(a, b)

def test_without_features_it_is_the_plain_dot_product():
    dls = stars(items=None, users=None)
    a,b = (collab_learner(dls, 8, arch=o, y_range=(0,5.5)) for o in (HybridDot,DotProductBias))
    for o in (a,b): fit_one_cycle(o, 1, 1e-2, fast='exact')
    assert [k for k,_ in a.model.named_parameters()]==[k for k,_ in b.model.named_parameters()]
    for p,q in zip(a.model.parameters(), b.model.parameters()): torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-5)

def test_with_features_it_keeps_the_contract():
    df = synth_ratings()
    items = pd.DataFrame(dict(item_id=np.arange(1, 41), odd=np.tile(['a','b'], 20), size=np.arange(40.)))
    users = pd.DataFrame(dict(user_id=np.arange(1, 51), kind=np.tile(list('abcde'), 10)))
    def make():
        dls = CollabDataLoaders.from_df(df, bs=32, seed=42, items=items, users=users)
        return collab_learner(dls, 5, arch=HybridDot, y_range=(0,5.5), config=dict(wd_features=1.))
    check_model(make, dict(similar_items=True, history=True, item_bias=True, user_bias=True, gradient=True))

# whose row is whose

def test_features_are_no_table_of_ids_even_where_there_are_as_many():
    n = NIGHT.item_id.nunique()
    one = pd.DataFrame(dict(item_id=np.arange(1, n+1), all=[f'z|v{i}' for i in range(n)])) # n+1 columns: as many as there are rows
    dls = CollabDataLoaders.from_df(NIGHT, bs=512, seed=0, valid_pct=0, items=Features(one, multi={'all': '|'}))
    learn = collab_learner(dls, 4, arch=HybridDot, config=dict(wd_features=1.))
    assert len(learn.model.item_map)==dls.n_items
    sides = id_tables(learn.model, dls.n_users, dls.n_items)
    assert [list(o) for o in sides]==[['u_weight.weight','u_bias.weight'],['i_weight.weight','i_bias.weight']]

@every_kind
def test_no_training_moves_what_is_said_of_a_cold_item_but_by_its_features(kind):
    learn = KINDS[kind]()
    fit_one_cycle(learn, 1, 1e-2, wd=.5)
    m,rows = learn.model,torch.from_numpy(learn.dls.classes['item_id'].encode(COLD))
    want = m.item_features.directions[rows.numpy()]@m.item_map.detach().numpy()
    np.testing.assert_allclose(m.complete('item', rows).detach(), want, rtol=1e-6)
    with torch.no_grad(): m.i_weight.weight[rows] += 100. # whatever stands in the row of an item that was never trained
    np.testing.assert_allclose(m.complete('item', rows).detach(), want, rtol=1e-6)

def test_features_of_other_columns_are_refused():
    learn = trained('stars')
    with pytest.raises(RatingsError, match='features of other columns'): meet(learn.model, stars(items=FILMS.drop(columns='year')).interactions('train'))
    meet(learn.model, stars().interactions('train'))

# held back

def test_features_have_a_weight_decay_of_their_own():
    learn = hybrid(stars(), wd_features=7.)
    fit_one_cycle(learn, 1, 1e-2, wd=.1)
    assert [h['wd'] for h in learn.opt.hypers]==[.1,7.] and len(learn.opt.param_lists[1])==2
    loose = fit_one_cycle(hybrid(stars(), wd_features=.01), 1, 1e-2, wd=.1)
    assert learn.model.item_map.norm()<.7*loose.model.item_map.norm()

def test_the_guard_leaves_out_features_that_say_nothing():
    shuffled = FILMS.assign(item_id=np.random.default_rng(0).permutation(FILMS.item_id))
    dls = CollabDataLoaders.implicit_from_df(NIGHT, n_neg=0, bs=2048, by_user=True, seed=0, items=shuffled)
    learn,alone = (collab_learner(dls, 16, arch=HybridDot, config=config) for config in ({},dict(wd_features=0)))
    for o in (learn,alone): fit_one_cycle(o, 6, 1e-2, wd=.3)
    assert learn.model.wd_features==0 and set(learn.guarded.index)=={0,3.} and not hasattr(alone, 'guarded')
    for p,q in zip(learn.model.parameters(), alone.model.parameters()): torch.testing.assert_close(p, q, rtol=1e-3, atol=1e-4)
    fit_one_cycle(learn, 1, 1e-3)
    assert learn.model.hyper['wd_features']==0

def test_the_guard_can_be_left_off():
    learn = collab_learner(stars(), 8, arch=HybridDot, config=dict(guard=False))
    fit_one_cycle(learn, 1, 1e-2)
    assert not hasattr(learn, 'guarded') and learn.opt.hypers[1]['wd']==3.

def test_finding_a_learning_rate_chooses_nothing():
    learn = collab_learner(stars(), 8, arch=HybridDot)
    with learn.quiet(): learn.lr_find(num_it=5, show_plot=False)
    assert not hasattr(learn, 'guarded') and learn.model.wd_features is None

def test_a_decay_is_taken_that_is_better_beyond_chance():
    flat = pd.Series([.1,.2,.3,.4])
    assert best_decay({0: flat, 3.: flat+.1, 10.: flat+.2})==10.
    assert best_decay({0: flat, 3.: flat+[.3,-.3,.1,-.05]})==0
    assert best_decay({0: flat, 3.: flat-.1})==0

@pytest.mark.parametrize('make,has', [(stars,{}),(clicks,dict(n_neg=0)),(lambda: clicks(4, alpha=.5),dict(n_neg=4, alpha=.5)),
    (lambda: clicks(by_user=True),dict(by_user=True))])
def test_rows_to_look_at_come_in_loaders_of_the_same_kind(make, has):
    dls = make()
    inner = inner_loaders(dls)
    assert type(inner) is type(dls) and getattr(inner, 'rated', True)==getattr(dls, 'rated', True)
    assert {k: getattr(inner.train, k) for k in has}==has and inner.features('item') is dls.features('item')
    assert len(inner.train_ds)+len(inner.valid_ds)==len(dls.train_ds)

# at every door

@every_kind
def test_a_bundle_gives_the_same_answers(kind, tmp_path):
    learn = trained(kind)
    assert same_from_a_bundle(learn, kind, tmp_path/'b').model.wd_features==learn.model.wd_features

@every_kind
def test_somebody_told_by_a_history_is_scored_near_the_same_person_known(kind): near_the_same_person_known(trained(kind), kind)

def test_reasons_sum_to_the_score():
    learn = trained('stars')
    why = learn.explain(7, k=3)
    total = why.groupby('item_id').contribution.sum()
    np.testing.assert_allclose(total, learn.predict(7, total.index.to_numpy()), rtol=1e-4)

def test_a_part_of_two_comes_back_from_a_bundle(tmp_path):
    from recfast.ensemble import two_part
    learn = two_part(trained('stars'), trained('softmax'))
    rec = load_bundle(learn.save_bundle(tmp_path/'b'))
    pd.testing.assert_frame_equal(rec.recommend([3,4], k=300), learn.recommend([3,4], k=300), rtol=1e-5, atol=1e-5)

def test_a_program_without_python_gets_the_dot_product_it_comes_to(tmp_path):
    learn = trained('softmax')
    path = learn.export_program(tmp_path/'rank.pt2', k=5)
    items,scores = torch.export.load(path).module()(torch.tensor([3,4,5]), torch.zeros(3, 1, dtype=torch.int64))
    want = learn.recommend(learn.dls.classes['user_id'].decode([3,4,5]), k=5, exclude_seen=False, cold_items=False)
    np.testing.assert_array_equal(learn.dls.classes['item_id'].decode(items.numpy().ravel()), want.item_id)
    np.testing.assert_allclose(scores.detach().numpy().ravel(), want.score, rtol=1e-4, atol=1e-5)
