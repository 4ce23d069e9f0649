"Filters over the spectrum against a dense float64 reference, in both forms, and what is chosen on hidden rows"
import numpy as np
import pytest
import torch

from helpers import fit
from recfast.bundle import load_bundle
from recfast.data.interactions import Interactions
from recfast.data.loaders import CollabDataLoaders
from recfast.data.vocab import Vocab
from recfast.learner import collab_learner
from recfast.models import spectral
from recfast.models.linear import eigenpairs, normalised
from recfast.models.spectral import FILTERS, START, SpectralFilter, gains, hide, ndcg
from recfast.testing import synth_ratings

def table(n_users=70, n_items=40, kind=None, seed=0):
    "Clicks of two tastes; the last user and the last item have no row"
    rs = np.random.RandomState(seed)
    alike = (np.arange(n_users-1)%2)[:,None]==(np.arange(n_items-1)%2)[None]
    u,i = np.nonzero(rs.rand(n_users-1, n_items-1)<np.where(alike, .4, .1)*(1.4-np.arange(n_items-1)/n_items))
    classes = dict(user=Vocab(np.arange(1, n_users+1)), item=Vocab(np.arange(1, n_items+1)))
    return Interactions(u+1, i+1, classes=classes, weights=rs.choice([0.,.5,1.,4.], len(u)) if kind=='weights' else None)

def dense(ints):
    X = np.zeros((ints.n_users,ints.n_items))
    X[ints.users,ints.items] = 1 if ints.weights is None else ints.weights
    return X

H = dict(gfcf=lambda l: l, ideal=np.ones_like, ridge=lambda l: l/(l+.2),
         plateau=lambda l: np.where(l>.5, .5+.5*abs(2*l-1)**3, .5-.5*abs(2*l-1)**3))

def reference(X, name, k, alpha, b, exact):
    "[I,I] filter by the formula"
    n_u,n_i = (np.where(o>0, o, 1) for o in (X.sum(1),X.sum(0)))
    S = X.T@(X/n_u[:,None])/np.sqrt(np.outer(n_i, n_i))
    l,V = (o[...,::-1] for o in np.linalg.eigh(S))
    if exact: F = V*H[name](l.clip(0))@V.T+alpha*V[:,:k]@V[:,:k].T
    else:
        h,s = H[name](l[:k]),H[name](l[:k])[-1]/l[k-1]
        F = V[:,:k]*(h+alpha-s*l[:k])@V[:,:k].T+s*S
    return F/n_i[:,None]**b*n_i**b

def model_of(ints, **config):
    model = SpectralFilter(ints.n_users, ints.n_items, **{'n_vectors': 6, 'alpha': .3, 'degree_power': .4, 'flatness': 3., 'l2': .2, **config})
    model.solve(ints)
    return model

@pytest.fixture(params=['small','large'])
def size(request, monkeypatch):
    "The two forms a filter is kept in"
    if request.param=='large': monkeypatch.setattr(spectral, 'SMALL', 0)
    return request.param

@pytest.mark.parametrize('name', list(FILTERS))
@pytest.mark.parametrize('b', [0.,.4])
@pytest.mark.parametrize('kind', [None,'weights'])
def test_scores_are_those_of_the_formula(size, name, b, kind):
    ints = table(kind=kind)
    X = dense(ints)
    model = model_of(ints, filter=name, degree_power=b)
    F = reference(X, name, 6, .3, b, exact=size=='small' and name=='ridge')
    np.testing.assert_allclose(model.score_items(torch.arange(ints.n_users)), X@F, rtol=1e-4, atol=1e-4*abs(X@F).max())
    assert len(model.weight)==(0 if size=='large' else ints.n_items)

def test_what_is_asked_of_a_history(size):
    ints = table()
    model = model_of(ints, filter='plateau')
    items = ints.of_user(5).items.long()
    scores = model.score_items(torch.tensor([5]))[0]
    torch.testing.assert_close(model.score_history(items, None), scores, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model.contributions(items, None).sum(0), scores, rtol=1e-4, atol=1e-5)
    F = reference(dense(ints), 'plateau', 6, .3, .4, False)
    np.testing.assert_allclose(model.similar(torch.tensor([3,4])), F[[3,4]], rtol=1e-3, atol=1e-4*abs(F).max())

def test_pairs_are_picked_out_of_rows(size):
    model = model_of(table(400, 30), filter='plateau')
    x = torch.cartesian_prod(torch.arange(401), torch.arange(31))[torch.randperm(401*31, generator=torch.Generator().manual_seed(0))[:2000]]
    torch.testing.assert_close(model(x)[:,0], model.score_items(torch.arange(401))[x[:,0],x[:,1]], rtol=1e-4, atol=1e-5)

def test_eigenpairs_are_eigenpairs():
    R = normalised(table().csr())
    l,V = eigenpairs(R, 8)
    want = np.linalg.eigvalsh((R.T@R).toarray().astype(float))[::-1]
    np.testing.assert_allclose(l, want[:8], rtol=1e-4)
    np.testing.assert_allclose(R.T@(R@V.numpy()), (V*l).numpy(), atol=1e-4)
    assert l[0]==pytest.approx(1, abs=1e-5) and torch.equal(eigenpairs(R, 8)[1], V)

@pytest.mark.parametrize('name', list(FILTERS))
def test_the_line_meets_the_filter_at_the_last_eigenvalue(name):
    l = torch.tensor([1.,.7,.3,.1])
    got,s = gains(l, dict(filter=name, alpha=0., flatness=2., l2=.1))
    assert float(got[-1])==pytest.approx(0, abs=1e-6) and s>0

def test_settings_are_chosen_the_same_way_twice_and_named_ones_are_kept(size):
    ints = table()
    a,b = (SpectralFilter(ints.n_users, ints.n_items, alpha=.7) for _ in 'ab')
    for o in (a,b): o.solve(ints)
    assert a.chosen==b.chosen and a.chosen['alpha']==.7 and all(torch.equal(x, y) for x,y in zip(a.buffers(), b.buffers()))
    assert a.chosen==max(a.tried, key=lambda o: o[0])[1] and len(a.tried)>15
    torch.testing.assert_close(a.score_items(torch.arange(9)), model_of(ints, **a.chosen).score_items(torch.arange(9)))

def test_nothing_is_tried_where_all_is_named():
    assert model_of(table(), filter='gfcf').tried==[]

def test_what_is_chosen_is_scored_as_it_would_be_solved(size):
    ints = table()
    model = SpectralFilter(ints.n_users, ints.n_items, filter='plateau')
    trial = spectral.Trial(model, ints.csr(), 8)
    rest,hidden = hide(ints.csr(), 0)
    there = rest.tocoo()
    part = Interactions(there.row, there.col, classes=ints.classes)
    o = {**START, 'n_vectors': 8}
    again = model_of(part, **o)
    users = np.flatnonzero((rest.getnnz(1)>0)&(hidden.getnnz(1)>0))
    scores = again.score_items(torch.from_numpy(users))
    out = torch.from_numpy((rest[users].toarray()>0)|(rest.getnnz(0)==0))
    assert trial(o)==pytest.approx(ndcg(scores.masked_fill(out, -torch.inf), hidden[users].toarray()>0), abs=.02)

def test_hidden_cells_are_a_fifth_and_the_rest_the_rest():
    csr = table(400, 50).csr()
    rest,hidden = hide(csr, 3)
    assert ((rest+hidden)!=csr).nnz==0 and not rest.multiply(hidden).nnz and .15<hidden.nnz/csr.nnz<.25

@pytest.mark.parametrize('rows', [([],[]), ([1,2],[1,1]), ([1,1],[1,2])])
def test_tables_with_nothing_to_choose_on(rows):
    ints = Interactions(*rows, classes=dict(user=Vocab([1,2]), item=Vocab([1,2,3])))
    model = SpectralFilter(3, 4)
    model.solve(ints)
    assert model.score_items(torch.arange(3)).isfinite().all()

def test_the_other_taste_ranks_below():
    ints = table()
    scores = SpectralFilter(ints.n_users, ints.n_items)
    scores.solve(ints)
    s = scores.score_history(torch.tensor([1,3,5]), None)[1:39]
    assert s[::2].mean()>2*s[1::2].mean()

@pytest.mark.parametrize('bad', ['band','',None])
def test_a_filter_that_does_not_exist(bad):
    with pytest.raises(ValueError, match="expected 'auto' or one of .*'plateau'"): SpectralFilter(4, 5, filter=bad)

def test_a_learner_and_its_bundle(size, tmp_path):
    dls = CollabDataLoaders.implicit_from_df(synth_ratings(), n_neg=0, valid_pct=0, seed=1, bs=64)
    learn = fit(collab_learner(dls, arch=SpectralFilter, path=tmp_path), 1)
    rec = load_bundle(learn.save_bundle(tmp_path/'s.recfast'))
    assert rec.recommend(k=5).equals(learn.recommend(k=5))
    learn.save('m')
    other = collab_learner(dls, arch=SpectralFilter, path=tmp_path)
    other.load('m')
    assert other.recommend(k=5).equals(learn.recommend(k=5))
