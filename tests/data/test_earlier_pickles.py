"What an earlier recfast pickled, exported and bundled still loads, and answers as it did"
import gzip
import json
import os
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from fastai.learner import load_learner

from recfast.bundle import load_bundle
from recfast.testing import synth_ratings

HERE = Path(__file__).parent/'fixtures' # written by recfast 0.1.0 from synth_ratings(20, 15)
FACTS = json.loads((HERE/'facts.json').read_text(encoding='utf-8'))
pytestmark = pytest.mark.skipif(os.name=='nt', reason='pickles of a system with other paths')
KINDS = ('ratings','clicks','rows','sequences')

@pytest.fixture(scope='module')
def loaders(): return pickle.loads(gzip.decompress((HERE/'loaders.pkl.gz').read_bytes()))

@pytest.fixture
def rec(tmp_path):
    with zipfile.ZipFile(HERE/'bundle.zip') as z: z.extractall(tmp_path)
    return load_bundle(tmp_path/'synth.recfast')

@pytest.mark.parametrize('kind', KINDS)
def test_pickled_loaders_make_the_batches_they_made(loaders, kind):
    got = [float(o.nan_to_num().double().sum()) for o in loaders[kind].one_batch()]
    assert got==pytest.approx(FACTS['batch'][kind]) and loaders[kind].report==FACTS['report'][kind]

@pytest.mark.parametrize('kind', KINDS)
def test_pickled_loaders_hold_their_rows(loaders, kind):
    rows = loaders[kind].interactions('all')
    assert len(rows)==150 and rows.csr().nnz==150 and rows.columns[:2]==('user_id','item_id')
    assert len(rows[:5]+rows[5:])==150 and len(rows.of_user(3))==rows.counts('user')[3]

@pytest.mark.parametrize('kind', KINDS)
def test_pickled_loaders_take_new_rows(loaders, kind):
    x = loaders[kind].test_dl(synth_ratings(20, 15)[:4], bs=4).one_batch()[0]
    assert len(x)==4 and (x>0).all()

def test_pickled_loaders_go_on_without_what_was_worked_out(loaders):
    again = pickle.loads(pickle.dumps(loaders['ratings']))
    assert all(torch.equal(a, b) for a,b in zip(again.one_batch(), loaders['ratings'].one_batch()))

def test_an_exported_learner_predicts_as_it_did():
    learn,asked = load_learner(HERE/'learner.pkl'),synth_ratings(20, 15)[:4]
    preds = learn.get_preds(dl=learn.dls.test_dl(asked))[0].flatten().tolist()
    assert preds==pytest.approx(FACTS['predict'], rel=1e-5) and len(learn.dls.interactions('all'))==0

def test_a_bundle_recommends_as_it_did(rec):
    assert rec.recommend([1,2], k=3).item_id.tolist()==FACTS['recommend']
    asked = synth_ratings(20, 15)[:4]
    assert rec.predict(asked.user_id, asked.item_id).tolist()==pytest.approx(FACTS['predict'], rel=1e-5)
