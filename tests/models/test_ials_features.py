"IALS with features of items as a prior: against a dense solution, cold items by the prior, and the same at every door"
import numpy as np
import pandas as pd
import pytest
import torch

from helpers import fit_one_cycle
from recfast.bundle import load_bundle
from recfast.data.catalogues import movie_night_films
from recfast.data.datasets import movie_night
from recfast.data.loaders import CollabDataLoaders
from recfast.learner import collab_learner
from recfast.models.ials import IALS
from recfast.models.maps import row_map
from recfast.models.tail import ColdTail, OwnScores
from recfast.reasons import ials_reasons

NIGHT,FILMS = movie_night(),movie_night_films()
COLD = np.arange(5, 300, 10)
IS_COLD = NIGHT.item_id.isin(COLD).to_numpy()
SPLITS = np.flatnonzero(~IS_COLD),np.flatnonzero(IS_COLD)

def loaders(df=NIGHT, **kwargs): return CollabDataLoaders.implicit_from_df(df, n_neg=0, seed=0, **{'items': FILMS, 'splits': SPLITS, **kwargs})
def learner(dls=None, k=8, **config): return collab_learner(dls or loaders(), k, arch=IALS, config={**dict(feature_l2=.3, l2=.003, alpha=.1), **config})

def dense_items(m, rows, B):
    "[I,K] the solution of the formula, an item at a time"
    met = torch.from_numpy(rows.csr().toarray()).double()
    P,F = m.user_factors.double(),torch.from_numpy(m.item_features.directions.toarray()).double()
    n_users = int((met.sum(1)>0).sum())
    out = torch.zeros(met.shape[1], P.shape[1]).double()
    for i in range(1, met.shape[1]):
        if not met[:,i].any(): continue
        c = torch.where(met[:,i]>0, 1., .1)
        weight = .003*(met[:,i].sum()+.1*(n_users-met[:,i].sum()))
        A = (P.T*c)@P+weight*torch.eye(P.shape[1])
        out[i] = torch.linalg.solve(A, P.T@met[:,i]+weight*(F@B)[i])
    return out

def test_items_are_those_of_a_dense_solution():
    learn = fit_one_cycle(learner(cg_steps=None), 2)
    m,rows = learn.model,learn.dls.interactions('train')
    items = m._sides(rows)[1]
    before,some = m.item_factors,np.flatnonzero(rows.trained('item'))
    F,w,Q = m.item_features.directions[some].toarray().astype(float),items[1].double().numpy()[some],before[some].double().numpy()
    B = np.linalg.solve(F.T@(w[:,None]*F)+.3*w.mean()*np.eye(F.shape[1]), F.T@(w[:,None]*Q))
    np.testing.assert_allclose(m._prior(items[1])[0], m.item_features.directions@B, atol=1e-5)
    got = m._half(*items, before, m.user_factors, *m._prior(items[1]))
    torch.testing.assert_close(got.double(), dense_items(m, rows, torch.from_numpy(B)), rtol=1e-3, atol=1e-4)
    heavy = torch.tensor(np.abs((m.item_features.directions@B))).max()
    assert heavy>.01 # there is something to be drawn to

def test_a_few_steps_come_near_to_the_exact_solution():
    a,b = (fit_one_cycle(learner(cg_steps=o), 8).model for o in (None,3))
    s,t = (m.score_items(torch.arange(1, 60)) for m in (a,b))
    assert np.corrcoef(s.flatten(), t.flatten())[0,1]>.99

def test_what_is_minimised_falls_with_every_sweep():
    learn = learner(cg_steps=None)
    m,rows = learn.model,learn.dls.interactions('train')
    m.solve(rows)
    def goal():
        w = m._sides(rows)[1][1]
        said = m._prior(w)[0].double()
        some = (m.item_factors!=0).any(1)
        F,Q,ww = m.item_features.directions[some.numpy()],m.item_factors[some].double().numpy(),w[some].double().numpy()
        B = row_map(F, Q, ww, .3, 400)
        assert np.abs(F@B-said[some].numpy()).max()<1e-4
        return m.loss(rows)+.003*.3*ww.mean()*(B**2).sum()
    goals = [goal()]
    for _ in range(4):
        m.solve(rows)
        goals.append(goal())
    assert all(b<a+1e-6 for a,b in zip(goals, goals[1:])) and goals[-1]<goals[0]

def test_a_strong_ridge_is_the_model_without_features():
    a = fit_one_cycle(learner(feature_l2=1e9, cg_steps=None), 3).model
    b = fit_one_cycle(learner(feature_l2=None, cg_steps=None), 3).model
    torch.testing.assert_close(a.item_factors, b.item_factors, rtol=1e-3, atol=1e-4)
    assert not any(k=='said' for k in b.state_dict()) and a.said.abs().max()<1e-5

def test_without_the_option_nothing_changes_and_the_tail_scores():
    learn = fit_one_cycle(learner(feature_l2=None), 2)
    assert isinstance(learn.model.cold_tail, ColdTail) and learn.model.cold_by=='map'

def test_cold_items_are_no_negatives_and_are_scored_by_what_they_are():
    learn = fit_one_cycle(learner(), 5)
    m,cold = learn.model,learn.dls.classes['item_id'].encode(COLD)
    assert isinstance(m.cold_tail, OwnScores) and (m.item_factors[cold]==0).all() and (m.said[cold]!=0).any(1).all()
    assert (m.said[learn.dls.interactions('train').trained('item')]==0).all()
    want = m.user_factors[[3,4]]@m.said[cold].T
    torch.testing.assert_close(m.score_items(torch.tensor([3,4]))[:,cold], want)
    df = learn.recommend(3, k=300, exclude_seen=False)
    assert set(COLD)<=set(df.item_id)
    np.testing.assert_allclose(learn.predict([3]*len(df), df.item_id.tolist()), df.score, rtol=1e-4, atol=1e-5)

def test_it_finds_who_likes_a_film_that_nobody_has_seen():
    how = dict(k=10, candidates='cold', metrics='ndcg', baseline=False)
    shuffled = FILMS.assign(item_id=np.random.default_rng(0).permutation(FILMS.item_id))
    real,noise = (fit_one_cycle(learner(loaders(items=o)), 6).evaluate(**how)['ndcg@10'] for o in (FILMS,shuffled))
    assert real>1.5*noise

def test_a_history_scores_cold_items_too_and_its_parts_sum_up():
    m = fit_one_cycle(learner(), 5).model
    told = torch.tensor([7,8,9])
    scores = m.score_history(told)
    torch.testing.assert_close(m.contributions(told).sum(0), scores, rtol=1e-4, atol=1e-5)
    assert (scores[[5,15]]!=0).all()
    Q = m.item_factors.double()
    n = int((Q!=0).any(1).sum())
    C,weight = torch.full((len(Q),), .1).double(),.003*(3+.1*(n-3))
    C[told] = 1.
    u = torch.linalg.solve((Q.T*C)@Q+weight*torch.eye(8).double(), Q[told].sum(0))
    torch.testing.assert_close(scores.double(), (Q+m.said.double())@u, rtol=1e-4, atol=1e-5)

def test_rows_with_weights_have_the_prior_too():
    df = NIGHT.assign(w=np.where(NIGHT.rating>3, 2., .5))
    learn = fit_one_cycle(learner(loaders(df, weight_name='w')), 4)
    cold = learn.dls.classes['item_id'].encode(COLD)
    assert (learn.model.said[cold]!=0).any(1).all()

def test_a_bundle_gives_the_same_answers(tmp_path):
    learn = fit_one_cycle(learner(), 4)
    rec = load_bundle(learn.save_bundle(tmp_path/'b'))
    pd.testing.assert_frame_equal(rec.recommend([3,4], k=300), learn.recommend([3,4], k=300), rtol=1e-5, atol=1e-6)
    pd.testing.assert_frame_equal(rec.recommend(history=[7,8], k=300), learn.recommend(history=[7,8], k=300), rtol=1e-5, atol=1e-6)

def test_a_setting_that_means_nothing_is_refused():
    with pytest.raises(ValueError, match='feature_l2=0, expected a number above 0'): learner(feature_l2=0)

def test_the_option_without_features_is_the_plain_model():
    learn = fit_one_cycle(learner(loaders(items=None)), 3)
    plain = fit_one_cycle(learner(loaders(items=None), feature_l2=None), 3)
    torch.testing.assert_close(learn.model.item_vectors(), plain.model.item_vectors())

# reasons

@pytest.mark.parametrize('weights', [False,True])
def test_features_that_explain_sum_to_the_score(weights):
    df = NIGHT.assign(w=np.where(NIGHT.user_id%2, 2., 1.))
    learn = fit_one_cycle(learner(loaders(df, **(dict(weight_name='w') if weights else {}))), 4)
    items = [1,2,7,*COLD[:3]]
    for who in (dict(user_id=3),dict(history=[1,2,3])):
        asked = dict(history=who['history']) if 'history' in who else dict(user_ids=3, exclude_seen=False)
        lists = learn.recommend(**asked, k=300, item_ids=items).set_index('item_id').score
        why = learn.explain(**who, item_ids=lists.index, by='features')
        np.testing.assert_allclose(why.groupby('item_id').contribution.sum()[lists.index], lists, rtol=1e-4, atol=1e-5)
        left = why[why.because_feature.isna()].set_index('item_id').contribution
        assert left[COLD[:3]].abs().max()<1e-4 and left.drop(COLD[:3], errors='ignore').abs().min()>1e-4 # a new film is nothing else
    assert learn.explain(3, COLD[:1]).because_feature.notna().any()

def test_what_features_add_to_known_films_is_the_pull_of_the_formula():
    learn = fit_one_cycle(learner(cg_steps=None), 2)
    m,rows,items = learn.model,learn.dls.interactions('train'),np.array([1,2,7])
    _,(_,w) = m._sides(rows)
    some = np.flatnonzero(rows.trained('item'))
    D,w = m.item_features.directions.toarray().astype(float),w.double().numpy()[some]
    B = np.linalg.solve(D[some].T@(w[:,None]*D[some])+.3*w.mean()*np.eye(D.shape[1]), D[some].T@(w[:,None]*m.item_factors.double().numpy()[some]))
    both,none = (dense_items(m, rows, torch.from_numpy(o)) for o in (B,0*B))
    u = m.user_factors[3].double()
    want = ((both-none)[items]@u).numpy()
    np.testing.assert_allclose(ials_reasons(m, rows, u.numpy(), items)[1].sum(0), want, rtol=1e-4, atol=1e-6)
