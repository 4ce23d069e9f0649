"Vectors that begin at near co-occurrences: as the exact decomposition says, and what the start is worth"
import numpy as np
import pandas as pd
import pytest
import torch

from helpers import without_progress
from recfast.data.loaders import CollabDataLoaders
from recfast.data.sequences import Histories
from recfast.learner import collab_learner
from recfast.models.dot import DotProductBias
from recfast.models.ease import EASE
from recfast.models.autorec import AutoRec
from recfast.models.sequence import NextItem, SASRec
from recfast.models.start import left_vectors, nearness
from recfast.testing import synth_ratings

def stories(n_users=200, n_items=40, seed=0):
    "Two worlds of items; each user walks in one of them"
    rs = np.random.RandomState(seed)
    rows = [(u,1+(u%2)*n_items//2+rs.randint(n_items//2)) for u in range(n_users) for _ in range(12)]
    return pd.DataFrame(rows, columns=['user_id','item_id'])

def loaders(**kwargs): return CollabDataLoaders.sequences_from_df(stories(), **{'seq_len':12, 'bs':16, 'seed':0, **kwargs})

def test_the_nearness_by_hand():
    dls = CollabDataLoaders.sequences_from_tokens(list('abc'), bs=1, seed=0)
    M = nearness(Histories(dls.interactions('train')), 4, lags=2, decay=.5).toarray()
    C = np.array([[0,1,.5],[1,0,1],[.5,1,0]]) # a and b meet, b and c; a and c two apart
    r = C.sum(1)
    np.testing.assert_allclose(M[1:,1:], np.log(1+C*r.sum()/np.outer(r, r)), rtol=1e-5)
    assert not M[0].any() and not M[:,0].any()

def test_the_vectors_are_those_of_the_exact_decomposition():
    M = nearness(Histories(loaders().interactions('train')), 41)
    U,s,V = np.linalg.svd(M.toarray())
    E = left_vectors(M, 2) # values that stand apart
    np.testing.assert_allclose(E@E.T, (U[:,:2]*s[:2])@U[:,:2].T, atol=2e-2*s[0]/41)

@pytest.mark.parametrize('arch,build', [(SASRec,loaders),(NextItem,loaders),(DotProductBias,lambda: CollabDataLoaders.from_df(synth_ratings(), seed=0, bs=32))])
def test_every_model_with_item_rows_can_begin_there(arch, build):
    dls = build()
    plain,begun = (collab_learner(dls, 8, arch=arch, init=o).model for o in (None,'svd'))
    again = collab_learner(dls, 8, arch=arch, init='svd').model
    a,b,c = (o.i_weight.weight for o in (plain,begun,again))
    assert not torch.equal(a, b) and torch.equal(b, c) and torch.equal(a[0], b[0])
    others = [k for k in plain.state_dict() if k!='i_weight.weight']
    assert all(torch.equal(plain.state_dict()[k], begun.state_dict()[k]) for k in others)
    assert .8<b[1:].norm(dim=1).mean()<1.2

def test_two_worlds_are_apart_before_the_first_epoch():
    vectors = collab_learner(loaders(), 8, arch=SASRec, init='svd').model.item_vectors()[1:]
    near = torch.nn.functional.normalize(vectors, dim=1)@torch.nn.functional.normalize(vectors, dim=1).T
    ids = torch.arange(40)<20
    same = ids[:,None]==ids
    assert near[same&~torch.eye(40).bool()].mean()>near[~same].mean()+.2

def test_items_that_nobody_met_keep_what_they_had():
    df = stories()
    dls = CollabDataLoaders.sequences_from_df(df, seq_len=12, bs=16, seed=0, vocab={'item_id': range(1, 60), 'user_id': range(200)})
    plain,begun = (collab_learner(dls, 8, arch=SASRec, init=o).model.i_weight.weight for o in (None,'svd'))
    cold = ~torch.from_numpy(dls.interactions('train').trained('item'))
    assert cold.sum()==20 and torch.equal(plain[cold], begun[cold]) and not (plain[~cold]==begun[~cold]).any(1).all()

def test_more_factors_than_items_begin_too():
    dls = CollabDataLoaders.sequences_from_tokens(list('abc')*9, seq_len=3, bs=4, seed=0)
    assert collab_learner(dls, 30, arch=SASRec, init='svd').model.i_weight.weight.isfinite().all()

@pytest.mark.parametrize('how,error,text', [
    (dict(init='pca', arch=SASRec),ValueError,"init='pca', expected 'svd'"),
    (dict(init='svd', arch='auto'),TypeError,'leave out init')])
def test_what_is_no_start(how, error, text):
    with pytest.raises(error, match=text): collab_learner(CollabDataLoaders.from_df(synth_ratings(), seed=0, bs=32) if how['arch']=='auto' else loaders(), **how)

def test_models_without_a_table_to_begin_with():
    pairs = CollabDataLoaders.from_df(synth_ratings(), seed=0, bs=32)
    with pytest.raises(TypeError, match="init='svd': EASE is solved"): collab_learner(pairs, arch=EASE, init='svd')
    rows = CollabDataLoaders.rows_from_df(synth_ratings(), 'item', seed=0, bs=8)
    with pytest.raises(TypeError, match='AutoRec has no item table'): collab_learner(rows, arch=AutoRec, init='svd')

def test_a_short_training_goes_further_from_there():
    df = stories(seed=1)
    def loss(init):
        learn = without_progress(collab_learner(loaders(hold_out=False), 8, arch=SASRec, init=init, config=dict(p=0., seq_len=12)))
        learn.fit(1, 1e-3)
        return float(learn.recorder.losses[-1])
    assert loss('svd')<loss(None) and len(df)
