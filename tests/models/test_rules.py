"Rules and the ridge on two memories: dense float64 references, order, bundles, HTTP, explanations, refusals"
import math

import numpy as np
import pandas as pd
import pytest
import torch
from fastapi.testclient import TestClient
from hypothesis import given, settings, strategies as st

from helpers import fit
from recfast.bundle import load_bundle
from recfast.core import NeedsMemoryError, RecfastError
from recfast.data.loaders import CollabDataLoaders
from recfast.data.sequences import Histories
from recfast.learner import collab_learner
from recfast.models.base import score_items
from recfast.models.rules import SequentialRules, lag_counts, reach
from recfast.models.two_speed import TwoSpeedRidge, decayed_counts
from recfast.serve import make_app

ARCHS = [SequentialRules,TwoSpeedRidge]
both = pytest.mark.parametrize('arch', ARCHS)

def walks(n_users=40, n_items=15, seed=0):
    "Histories of 1 to 20 items: mostly one on, sometimes two on, sometimes anywhere"
    rng = np.random.default_rng(seed)
    rows = []
    for u in range(n_users):
        at = rng.integers(n_items)
        for t in range(rng.integers(1, 21)):
            rows.append((f'u{u}',f'i{at}',t))
            at = (at+rng.choice([1,2]))%n_items if rng.random()<.8 else rng.integers(n_items)
    return pd.DataFrame(rows, columns=['user_id','item_id','timestamp'])

DF = walks()

def solved(arch, df=DF, config=None, **kwargs):
    dls = CollabDataLoaders.sequences_from_df(df, **{'seed': 1, 'bs': 16, 'hold_out': False, **kwargs})
    return fit(collab_learner(dls, arch=arch, config=config), 1)

def written(learn):
    "[(item rows of a history)] of every user row"
    h = Histories(learn.dls.interactions('train'))
    return [h.items[a:b].tolist() for a,b in zip(h.starts, h.stops)]

def faded(hist, speed, n, places=None):
    "[I] float64 features of a history"
    f = np.zeros(n)
    for k,i in enumerate(hist[::-1][:places or reach(speed)]): f[i] += speed**k
    return f

def dense_rules(hists, n, lags, decay, recency, shrink, item_power):
    "The formula of the page, item by item"
    W,met = np.zeros((n,n)),np.zeros(n)
    for h in hists:
        for t,i in enumerate(h):
            met[i] += 1
            for l in range(1, lags+1):
                if t>=l: W[h[t-l],i] += math.exp(-(l-1)/decay)
    if shrink is None: shrink = .07*met[met>0].mean()
    B = W/(W.sum(1, keepdims=True)+shrink)/(met+shrink)**item_power
    speed = math.exp(-1/recency) if lags>1 else 0.
    return np.stack([faded(h, speed, n)@B for h in hists])

def dense_ridge(hists, n, fast, slow, l2, item_power):
    "Least squares of the normal equations of the page, in float64"
    met = np.bincount([i for h in hists for i in h], minlength=n)
    speeds,D = (fast,slow),[]
    for w in speeds:
        d = np.zeros((n,n))
        for h in hists:
            for t,i in enumerate(h):
                for l in range(1, min(t, reach(w))+1): d[h[t-l],i] += w**l
        D.append(d)
    if l2 is None: l2 = 1.75*met[met>0].mean()
    G = np.block([[(D[a]+D[b].T+np.diag(met))/(1-speeds[a]*speeds[b]) for b in (0,1)] for a in (0,1)])+l2*np.eye(2*n)
    B = np.linalg.solve(G, np.concatenate([D[a]/speeds[a] for a in (0,1)]))
    F = np.stack([np.concatenate([faded(h, w, n, reach(slow)) for w in speeds]) for h in hists])
    return F@B/(met+20)**item_power

@pytest.mark.parametrize('config', [{}, dict(lags=1), dict(lags=4, decay=1., recency=9., shrink=0.5, item_power=.7), dict(item_power=0.)])
def test_rules_are_those_of_a_loop(config):
    learn = solved(SequentialRules, config=config)
    n = learn.dls.n_items
    want = dense_rules(written(learn), n, **{**dict(lags=15, decay=3., recency=3., shrink=None, item_power=.1), **config})
    got = score_items(learn.model, torch.arange(learn.dls.n_users), n)
    np.testing.assert_allclose(got.numpy(), want, rtol=1e-4, atol=1e-6)

@pytest.mark.parametrize('config', [{}, dict(l2=.5), dict(fast=.2, slow=.8, l2=3., item_power=0.)])
def test_the_ridge_is_a_dense_one(config):
    learn = solved(TwoSpeedRidge, config=config)
    n = learn.dls.n_items
    want = dense_ridge(written(learn), n, **{**dict(fast=.5, slow=.93, l2=None, item_power=.1), **config})
    got = score_items(learn.model, torch.arange(learn.dls.n_users), n)
    np.testing.assert_allclose(got.numpy(), want, rtol=1e-3, atol=1e-4)

@settings(max_examples=15)
@given(st.integers(0, 10**6), st.integers(3, 6))
def test_counts_of_lags_add_up_to_the_decayed_ones(seed, n_items):
    dls = CollabDataLoaders.sequences_from_df(walks(9, n_items, seed), hold_out=False, seed=0, bs=1)
    h = Histories(dls.interactions('train'))
    want = sum(.6**l*lag_counts(h, l, dls.n_items).toarray() for l in range(1, reach(.6)+1))
    np.testing.assert_allclose(decayed_counts(h, .6, dls.n_items), want, rtol=1e-5, atol=1e-6)

@pytest.mark.parametrize('letters', ['ab','abc'])
def test_the_chain_of_the_letters(letters):
    dls = CollabDataLoaders.sequences_from_tokens(list(letters)*50, seed=0)
    learn = fit(collab_learner(dls, arch=SequentialRules, config=dict(lags=1)), 1)
    after = {a: learn.recommend(history=[a], k=1, exclude_seen=False).item_id[0] for a in letters}
    assert after=={a: b for a,b in zip(letters, letters[1:]+letters[0])}

@both
def test_scores_are_those_of_the_last_place(arch):
    model = solved(arch).model
    x = torch.tensor([[0,0,3,4,4],[1,2,3,2,9]])
    torch.testing.assert_close(model(x)[:,-1], torch.stack([model.score_history(o[o>0]) for o in x]), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(model(x)[:,2], model(x[:,:3])[:,-1])

@both
def test_a_history_gets_the_list_of_the_user_who_has_it(arch):
    learn = solved(arch)
    for user in ('u1','u7','u30'):
        mine = learn.recommend(user, k=5)
        new = learn.recommend(history=DF.item_id[DF.user_id==user].tolist(), k=5)
        assert new.item_id.tolist()==mine.item_id.tolist()
        np.testing.assert_allclose(new.score, mine.score, rtol=1e-5)

@both
def test_another_order_is_another_question(arch):
    learn = solved(arch)
    one,other = (learn.recommend(history=h, k=3).item_id.tolist() for h in (['i2','i9'],['i9','i2']))
    assert one[0] in ('i10','i11') and other[0] in ('i3','i4')

@both
def test_what_each_event_adds_sums_to_the_score(arch):
    learn = solved(arch)
    items = learn.dls.interactions('train').item_vocab.encode(['i2','i3','i2','i9'])
    items = torch.as_tensor(items)
    parts = learn.model.contributions(items)
    torch.testing.assert_close(parts.sum(0), learn.model.score_history(items), rtol=1e-5, atol=1e-6)
    why = learn.explain('u3', learn.recommend('u3', k=1).item_id[0])
    assert set(why.because_item_id)<=set(DF.item_id[DF.user_id=='u3']) # its 'i5' comes three times
    assert why.contribution.sum()==pytest.approx(learn.recommend('u3', k=1).score[0], rel=1e-5)

@both
def test_a_bundle_and_http_give_the_same_lists(arch, tmp_path):
    learn = solved(arch)
    learn.save_bundle(tmp_path/'b')
    rec = load_bundle(tmp_path/'b')
    want = learn.recommend(['u1','u2'], k=4)
    pd.testing.assert_frame_equal(rec.recommend(['u1','u2'], k=4), want, rtol=1e-5)
    with TestClient(make_app(tmp_path/'b')) as client:
        got = client.post('/recommend', json=dict(history=['i2','i3'], k=4)).json()
    assert [o['item_id'] for o in got]==learn.recommend(history=['i2','i3'], k=4).item_id.tolist()

def test_rules_of_a_damaged_file_are_refused(tmp_path):
    learn = solved(SequentialRules)
    state = learn.model.state_dict()
    state['later'] = state['later'].clone()
    state['later'][3] = 10**6
    other = SequentialRules(n_items=learn.dls.n_items)
    other.load_state_dict(state)
    with pytest.raises(ValueError): other.score_history(torch.tensor([1,2]))

@both
def test_before_solving_it_says_so(arch):
    model = arch(n_items=5)
    with pytest.raises(RecfastError, match='not solved yet'): model.score_history(torch.tensor([1]))

@both
def test_same_rows_same_bits(arch):
    a,b = (solved(arch).model.state_dict() for _ in range(2))
    assert all(torch.equal(a[k], b[k]) for k in a)

def test_a_catalogue_too_large_for_the_ridge_names_the_rules():
    dls = CollabDataLoaders.sequences_from_df(DF, seed=0, bs=16)
    with pytest.raises(NeedsMemoryError, match='SequentialRules'): fit(collab_learner(dls, arch=TwoSpeedRidge, config=dict(memory=1000)), 1)

@pytest.mark.parametrize('arch,config,says', [(SequentialRules,dict(lags=0),'lags=0'), (SequentialRules,dict(decay=0),'places above 0'),
    (SequentialRules,dict(recency=-1),'places above 0'), (TwoSpeedRidge,dict(fast=.9, slow=.2),'fast < slow'), (TwoSpeedRidge,dict(l2=0),'above 0'),
    (TwoSpeedRidge,dict(slow=1.),'slow < 1')])
def test_settings_that_cannot_be(arch, config, says):
    with pytest.raises(ValueError, match=says): arch(n_items=5, **config)

def test_it_trains_from_ordered_rows_only():
    with pytest.raises(TypeError, match='sequences_from_df'): collab_learner(CollabDataLoaders.implicit_from_df(DF, n_neg=1, seed=0), arch=SequentialRules)

@both
def test_it_is_measured_as_any_model(arch):
    learn = solved(arch, walks(300, seed=3), hold_out=True)
    ev = learn.evaluate(k=3)
    assert ev['ndcg@3']>2*ev.baseline['ndcg@3'] and np.isnan(learn.recorder.values[-1][0]) and np.isfinite(learn.recorder.values[-1][1])
