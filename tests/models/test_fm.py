"A factorisation machine: every two numbers of a row together, who may move which row, and the same at every door"
import numpy as np
import pandas as pd
import pytest
import torch

from described import COLD, FILMS, NIGHT, PEOPLE, clicks, near_the_same_person_known, reasons_that_sum_to_scores, same_for_all_items, same_from_a_bundle, stars, trainer
from helpers import fit_one_cycle
from recfast.data.loaders import CollabDataLoaders
from recfast.learner import collab_learner
from recfast.losses import BCE, BPRLoss, SoftmaxLoss
from recfast.models.dot import DotProductBias
from recfast.models.fm import FM
from recfast.ordinal import OrdinalLoss
from recfast.testing import check_model, synth_ratings

def machine(dls, loss=None, config=None, **kwargs):
    return collab_learner(dls, 8, arch=FM, config={'wd_features': 1., **(config or {})}, loss_func=loss, **kwargs)

KINDS = dict(softmax=lambda: machine(clicks(), SoftmaxLoss()), bce=lambda: machine(clicks(4), BCE()), bpr=lambda: machine(clicks(4), BPRLoss()),
    stars=lambda: machine(stars(), y_range=(0,5.5)), levels=lambda: machine(stars(), OrdinalLoss()))
every_kind = pytest.mark.parametrize('kind', KINDS)
trained = trainer(KINDS)

def dense(model, side):
    "([N,1+M] numbers of every row, [N,1+M,K+1] their vectors), in float64"
    X = getattr(model, f'{side}_features').directions.toarray()
    t = getattr(model, f'{side}_trained').numpy()
    w,b = (model.u_weight,model.u_bias) if side=='user' else (model.i_weight,model.i_bias)
    own = torch.cat([w.weight,b.weight], 1).detach().numpy()
    W = getattr(model, f'{side}_map').detach().numpy()
    return np.concatenate([t,X], 1).astype(float),np.concatenate([own[:,None],np.broadcast_to(W, (len(own),*W.shape))], 1).astype(float)

def score_by_pairs(model, u, i):
    "Rendle's first formula: every two numbers of a row"
    (x,V),(y,Z) = ((a[row],b[row]) for row,(a,b) in zip((u,i), (dense(model, 'user'),dense(model, 'item'))))
    x,V = np.concatenate([x,y]),np.concatenate([V,Z])
    return x@V[:,-1]+sum(V[j,:-1]@V[l,:-1]*x[j]*x[l] for j in range(len(x)) for l in range(j+1, len(x)))

@every_kind
def test_scores_are_those_of_all_pairs_of_numbers(kind):
    m,x = trained(kind).model,torch.tensor([[3,7],[7,5],[600,12]])
    want = torch.tensor([score_by_pairs(m, u, i) for u,i in x.tolist()])
    if m.y_range: want = 5.5*want.sigmoid()
    with torch.no_grad(): torch.testing.assert_close(m.eval()(x)[:,0].double(), want, rtol=1e-4, atol=1e-5)

def test_gradients_are_those_of_the_sums_written_out():
    m = machine(stars()).model
    with torch.no_grad():
        for p in m.parameters(): p.normal_(std=.3)
    x = torch.tensor([[3,7],[3,5],[9,7]])
    m.double()(x).sum().backward()
    got,eps = m.item_map.grad.clone(),1e-6
    for j,k in ((0,0),(3,8),(20,2)):
        ends = []
        for step in (eps,-eps):
            with torch.no_grad(): m.item_map[j,k] += step
            with torch.no_grad(): ends.append(m(x).sum().item())
            with torch.no_grad(): m.item_map[j,k] -= step
        assert got[j,k].item()==pytest.approx((ends[0]-ends[1])/2/eps, rel=1e-4, abs=1e-6)

@every_kind
def test_scores_of_all_items_are_those_of_its_forward(kind): same_for_all_items(trained(kind))

def test_without_features_it_is_the_plain_dot_product():
    dls = stars(items=None, users=None)
    a,b = (collab_learner(dls, 8, arch=o, y_range=(0,5.5)) for o in (FM,DotProductBias))
    for o in (a,b): fit_one_cycle(o, 1, 1e-2, wd=.1, fast='exact')
    for p,q in zip(a.model.parameters(), b.model.parameters()): torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-5)

def test_with_features_it_keeps_the_contract():
    df = synth_ratings()
    items = pd.DataFrame(dict(item_id=np.arange(1, 41), odd=np.tile(['a','b'], 20), size=np.arange(40.)))
    users = pd.DataFrame(dict(user_id=np.arange(1, 51), kind=np.tile(list('abcde'), 10)))
    def make():
        dls = CollabDataLoaders.from_df(df, bs=32, seed=42, items=items, users=users)
        return collab_learner(dls, 5, arch=FM, y_range=(0,5.5), config=dict(wd_features=1.))
    check_model(make, dict(similar_items=True, history=True, item_bias=True, user_bias=True, gradient=True))

@every_kind
def test_of_a_cold_item_only_its_features_speak(kind):
    learn = KINDS[kind]()
    fit_one_cycle(learn, 1, 1e-2, wd=.5)
    m,rows = learn.model,torch.from_numpy(learn.dls.classes['item_id'].encode(COLD))
    before = m.complete('item', rows).detach()
    W,X = m.item_map.detach().numpy(),m.item_features.directions[rows.numpy()].toarray()
    v = X@W
    pairs = (v[:,:-1]**2).sum(1)-X**2@(W[:,:-1]**2).sum(1)
    np.testing.assert_allclose(before, np.concatenate([v[:,:-1],v[:,-1:]+pairs[:,None]/2], 1), rtol=1e-4, atol=1e-6)
    with torch.no_grad(): m.i_weight.weight[rows] += 100. # whatever stands in the row of an item that was never trained
    torch.testing.assert_close(m.complete('item', rows).detach(), before)

def test_people_known_by_features_alone_are_the_mean_person_with_them():
    learn = trained('stars')
    m,n = learn.model,learn.dls.n_users
    got = learn.recommend(user_features=PEOPLE[['age','kind']].iloc[:2].to_dict('records'), k=300).set_index(['user_id','item_id']).score
    own = m._own('user').detach()[1:].mean(0, keepdim=True)
    with torch.no_grad():
        u = m.joined(own.repeat(2, 1), m.user_map, m.user_features.directions[[1,2]])
        want = m.score_vectors(u)
    warm = [o for o in FILMS.item_id if o not in COLD]
    items = learn.dls.classes['item_id'].encode(np.array(warm))
    for p in (0,1): np.testing.assert_allclose(got.loc[p].loc[warm], want[p,items], rtol=1e-4)
    assert n==601

@every_kind
def test_a_bundle_gives_the_same_answers(kind, tmp_path): same_from_a_bundle(trained(kind), kind, tmp_path/'b')

@every_kind
def test_somebody_told_by_a_history_is_scored_near_the_same_person_known(kind): near_the_same_person_known(trained(kind), kind)

def test_the_guard_leaves_out_features_that_say_nothing():
    shuffled = FILMS.assign(item_id=np.random.default_rng(0).permutation(FILMS.item_id))
    dls = CollabDataLoaders.implicit_from_df(NIGHT, n_neg=0, bs=2048, by_user=True, seed=0, items=shuffled)
    learn = fit_one_cycle(collab_learner(dls, 16, arch=FM), 6, 1e-2, wd=.3)
    assert learn.model.wd_features==0 and set(learn.guarded.index)=={0,3.}

def test_a_program_without_python_gets_the_dot_product_it_comes_to():
    m,x = trained('stars').model,torch.tensor([[3,7],[7,5]])
    with torch.no_grad(): torch.testing.assert_close(m.plain()(x), m.eval()(x), rtol=1e-5, atol=1e-5)

# reasons

@every_kind
def test_features_that_explain_sum_to_the_score(kind):
    learn = trained(kind)
    assert len([*reasons_that_sum_to_scores(learn)])==2

def test_what_pairs_add_is_shared_out_as_the_terms_are():
    m = trained('softmax').model
    u,items = m.complete('user')[3].detach(),np.array([7,8])
    columns,rest = m.feature_terms(u, items)
    x,V = dense(m, 'item')
    own,W = V[7,0],V[7,1:]
    want = [x[7,1+j]*(W[j,:-1]@u[:-1].numpy()+W[j,-1]+W[j,:-1]@own[:-1]+W[j,:-1]@sum(x[7,1+l]*W[l,:-1] for l in range(len(W)) if l!=j)/2) for j in range(len(W))]
    np.testing.assert_allclose(columns[0].toarray()[0], want, rtol=1e-3, atol=1e-5)
    assert rest[0]==pytest.approx(own[:-1]@u[:-1].numpy()+own[-1]+u[-1].item(), rel=1e-3, abs=1e-5)
