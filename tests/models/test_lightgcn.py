"LightGCN beside a dense one, batch by batch; its graph, what it keeps, somebody new, bundles"
import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from fastai.callback.core import Callback
from fastai.optimizer import SGD

from helpers import fit_one_cycle, taste_clicks
from recfast.bundle import load_bundle
from recfast.core import RecfastError
from recfast.data.loaders import CollabDataLoaders
from recfast.learner import collab_learner
from recfast.models.graph import LightGCN, graph_matrix

def clicks(n_users=60, n_items=30, n=8):
    "Choices by three tastes"
    return taste_clicks(n_users, n_items, n, tastes=3, strength=1.5, popular=0)

DF = clicks()

def learner(df=DF, n_factors=6, cbs=None, config=None, **kwargs):
    dls = CollabDataLoaders.implicit_from_df(df, **{'n_neg': 3, 'bs': 64, 'seed': 1, 'valid_pct': 0})
    return collab_learner(dls, n_factors, arch=LightGCN, seed=2, cbs=cbs, config=config, **kwargs)

class Batches(Callback):
    "Remembers what was trained on"
    def before_fit(self): self.seen = []
    def before_batch(self): self.seen.append(self.x.clone())

def dense_graph(df, n_users, n_items):
    A = np.zeros((n_users+n_items, n_users+n_items))
    for u,i in zip(df.user_id, df.item_id): A[u,n_users+i] = A[n_users+i,u] = 1
    d = A.sum(1)
    return torch.tensor(A/np.sqrt(np.outer(d, d).clip(1))).double()

@pytest.mark.parametrize('n_layers', [0,1,3])
def test_two_epochs_equal_a_dense_reference(n_layers):
    learn = learner(cbs=(batches := Batches()), config=dict(n_layers=n_layers), opt_func=SGD)
    n_users,n_items = learn.dls.n_users,learn.dls.n_items
    E = torch.cat([learn.model.u_weight.weight,learn.model.i_weight.weight]).detach().double().requires_grad_(True)
    start,A = E.detach().clone(),dense_graph(DF, n_users, n_items)  # the ids are the rows
    with learn.no_bar(), learn.no_logging(): learn.fit(2, 40., wd=0.)
    for x in batches.seen:
        layers = [E]
        for _ in range(n_layers): layers.append(A@layers[-1])
        out = sum(layers)/len(layers)
        s = (out[x[:,0]]*out[n_users+x[:,1]]).sum(1).view(-1, 4)
        loss = -F.logsigmoid(s[:,:1]-s[:,1:]).mean()
        g, = torch.autograd.grad(loss, E)
        E = (E-40*g).detach().requires_grad_(True)
    got = torch.cat([learn.model.u_weight.weight,learn.model.i_weight.weight]).detach().double()
    assert len(batches.seen)==2*len(learn.dls.train) and (got-start).abs().max()>.1
    torch.testing.assert_close(got, E.detach(), rtol=1e-5, atol=1e-5)

def test_the_graph_is_normalised_on_both_sides():
    rows = learner().dls.interactions('train')
    A = graph_matrix(rows.csr()).to_dense()
    torch.testing.assert_close(A.double(), dense_graph(DF, rows.n_users, rows.n_items), rtol=1e-5, atol=1e-7)
    assert torch.linalg.eigvalsh(A).max()<=1+1e-5

def test_the_fast_path_ends_where_the_plain_loop_does():
    a,b = (fit_one_cycle(learner(), 2, 1e-2, fast=o) for o in ('exact',False))
    for p,q in zip(a.model.parameters(), b.model.parameters()): torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-5)

def test_tables_are_kept_while_weights_are_the_same():
    model = learner().model
    with torch.no_grad():
        was = model.tables()
        assert model.tables() is was
        model.u_weight.weight[1] += 1
        assert model.tables() is not was
    assert model.tables()[0].requires_grad

def test_it_says_that_there_is_no_graph():
    with pytest.raises(RecfastError, match='model.attach'): LightGCN(4, 5).score_items(torch.tensor([1]))
    with pytest.raises(ValueError, match='n_layers=-1'): LightGCN(4, 5, n_layers=-1)

def test_it_finds_tastes():
    learn = fit_one_cycle(learner(n_factors=8), 20, 5e-2)
    new = clicks()  # the same people
    for u in (3,30,50):
        own = learn.recommend([u], k=30, exclude_seen=False).set_index('item_id').score
        folded = learn.recommend(history=new[new.user_id==u].item_id.tolist(), k=30, exclude_seen=False).set_index('item_id').score
        assert own.corr(folded[own.index], method='spearman')>.7
    mine = [learn.recommend([u], k=8, exclude_seen=False).item_id.isin(DF[DF.user_id==u].item_id).mean() for u in range(1, 61)]
    assert np.mean(mine)>.5  # of 30 items a list by chance holds 8/30

def test_a_bundle_answers_as_before(tmp_path):
    learn = fit_one_cycle(learner(), 2)
    rec = load_bundle(learn.save_bundle(tmp_path/'b'))
    pd.testing.assert_frame_equal(rec.recommend([1,2], k=5), learn.recommend([1,2], k=5))
    pd.testing.assert_frame_equal(rec.recommend(history=[3,9,20], k=5), learn.recommend(history=[3,9,20], k=5))
