"What IALS finds where nothing is named, and when it stops"
import numpy as np
import pytest
import torch

from helpers import fit
from recfast.bundle import load_bundle
from recfast.core import RecfastError
from recfast.data.datasets import movie_night
from recfast.data.loaders import CollabDataLoaders
from recfast.learner import collab_learner
from recfast.models.ials import IALS, RULE, PARTS, default_alpha, default_factors

@pytest.fixture(scope='module')
def dls(): return CollabDataLoaders.implicit_from_df(movie_night()[['user_id','title','timestamp']], item_name='title', valid_pct=.2, seed=1, bs=512)

@pytest.fixture(scope='module')
def learn(dls): return fit(collab_learner(dls, arch=IALS), 1)

def test_sizes_follow_the_smaller_side():
    assert [default_factors(n, 10**6) for n in (2,130,944,5000,10**6)]==[8,8,56,256,256]

def test_what_is_not_named_follows_from_the_rows(learn, dls):
    rows = dls.interactions('train').csr()
    met = rows.toarray()[1:,1:]>0
    alpha = met.mean()**.5  # everybody and everything has rows here
    n = [met.sum(a)+alpha*(met.shape[a]-met.sum(a)) for a in (1,0)]
    sigma = np.linalg.svd(met/np.sqrt(np.outer(*n)))[1][0]
    l2,found = learn.model.found.tolist()
    assert found==pytest.approx(default_alpha(rows)) and found==pytest.approx(alpha)
    assert min(abs(l2/sigma/RULE-o) for o in PARTS)<1e-2

def test_the_first_fit_of_one_goes_to_its_stop_and_later_ones_a_sweep(dls):
    one,many = (collab_learner(dls, arch=IALS, seed=3) for _ in range(2))
    fit(one, 1)
    l2,ndcg = max(one.model.tried, key=lambda o: len(o[1]))
    many.model.l2 = one.model.found[0].item()
    fit(many, max(2, int(np.argmax(ndcg))+1))
    assert len(one.recorder.values)==1 and one.model.found[0].item()==pytest.approx(l2)
    torch.testing.assert_close(one.model.item_factors, many.model.item_factors, rtol=1e-3, atol=1e-4)
    fit(one, 1), fit(many, 1)
    torch.testing.assert_close(one.model.item_factors, many.model.item_factors, rtol=1e-3, atol=1e-4)

def test_what_is_named_is_used(dls):
    learn = fit(collab_learner(dls, n_factors=12, arch=IALS, config=dict(l2=.02, alpha=.3)), 1)
    assert learn.model.item_factors.shape[1]==12 and learn.model.found.tolist()==pytest.approx([.02,.3]) and len(learn.model.tried)==1

def test_a_bundle_and_saved_weights_know_what_was_found(learn, dls, tmp_path):
    history = dls.classes['title'].items[1:4]
    want = learn.recommend(history=history, k=5)
    got = load_bundle(learn.save_bundle(tmp_path/'b')).recommend(history=history, k=5)
    assert got.item_id.tolist()==want.item_id.tolist() and np.allclose(got.score, want.score, rtol=1e-5)
    learn.save(tmp_path/'w', with_opt=False)
    other = collab_learner(dls, arch=IALS)
    other.load(tmp_path/'w', with_opt=False)
    assert other.recommend(history=history, k=5).item_id.tolist()==want.item_id.tolist()

def test_factors_of_an_earlier_recfast_have_its_settings(learn):
    state = {k: v for k,v in learn.model.state_dict().items() if k!='found'}
    old = IALS(learn.model.n_users, learn.model.n_items)
    old.load_state_dict(state)
    assert old.found.tolist()==pytest.approx([.003,.1])

def test_before_there_are_settings_a_history_is_not_scored():
    with pytest.raises(RecfastError, match='this IALS is not solved yet'): IALS(4, 5).score_history(torch.tensor([1]))

def test_it_ranks_above_popularity_and_near_what_is_best(learn): assert learn.evaluate(k=10)['ndcg@10']>1.5*.18

def test_nothing_to_hide_is_no_error():
    df = movie_night().groupby('user_id').head(1)
    assert np.isfinite(fit(collab_learner(CollabDataLoaders.from_df(df, valid_pct=0, bs=64), arch=IALS), 1).model.item_factors).all()
