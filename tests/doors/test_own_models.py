"A model of one's own in a bundle: its class, a function that makes it or itself, in Python, in the shell and in the service"
import importlib
import re
import sys

import pandas as pd
import pytest
import torch
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from helpers import fit, without_progress
from recfast.bundle import bundle_config, load_bundle
from recfast.cli import app
from recfast.core import BundleError
from recfast.data.loaders import CollabDataLoaders
from recfast.learner import collab_learner
from recfast.models.base import MODELS
from recfast.serve import make_app
from recfast.testing import synth_ratings

FRAME = synth_ratings(n_users=30, n_items=20)
CODE = '''
import torch
from torch import nn
from recfast.models.base import register

class Plain(nn.Module):
    def __init__(self, n_users, n_items, n_factors=3, y_range=None, scale=1.):
        super().__init__()
        self.u,self.i,self.scale = nn.Embedding(n_users, n_factors),nn.Embedding(n_items, n_factors),scale
    def forward(self, x): return self.scale*(self.u(x[:,0])*self.i(x[:,1])).sum(1)

class Genres(Plain):
    def __init__(self, n_users, n_items, n_factors=3, y_range=None, genres=None):
        super().__init__(n_users, n_items, n_factors)
        self.register_buffer('genres', genres)
        self.of = nn.Linear(genres.shape[1], n_factors)
    def forward(self, x): return super().forward(x)+(self.u(x[:,0])*self.of(self.genres[x[:,1]])).sum(1)

def blank(n_users, n_items): return Genres(n_users, n_items, 5, genres=torch.zeros(n_items, 4))

@register()
class Listed(Plain): pass

taken = Plain(31, 21, 5)
'''

@pytest.fixture
def own(tmp_path, monkeypatch):
    "A module of somebody's own, where they stand"
    (tmp_path/'ownmodels.py').write_text(CODE, encoding='utf-8')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, 'path', [str(tmp_path), *sys.path])
    yield importlib.import_module('ownmodels')
    del sys.modules['ownmodels']
    MODELS.pop('listed', None)

def saved(arch, path, config=None):
    dls = CollabDataLoaders.from_df(FRAME, bs=32, seed=1)
    learn = fit(without_progress(collab_learner(dls, 5, arch=arch, config=config)), 1, 1e-2)
    return learn,learn.save_bundle(path)

def run(*args):
    got = CliRunner().invoke(app, [str(o) for o in args])
    return got.exit_code,got.output

@pytest.mark.parametrize('how', ['class','function','itself'])
def test_a_class_a_function_or_the_model_itself(own, tmp_path, how):
    learn,path = saved(own.Plain, tmp_path/'b', dict(scale=2.))
    assert bundle_config(path)['model']['config']==dict(n_users=31, n_items=21, n_factors=5, y_range=None, scale=2.)
    make = dict(function=lambda n_users, n_items: own.Plain(n_users, n_items, 5, scale=2.), itself=own.Plain(31, 21, 5, scale=2.))
    rec = load_bundle(path, model=make.get(how, own.Plain))
    assert rec.predict([1,2], [3,4]).tolist()==learn.predict([1,2], [3,4]).tolist()
    again = load_bundle(rec.save_bundle(tmp_path/'again'), model=own.Plain) if how=='class' else rec
    pd.testing.assert_frame_equal(again.recommend([1,2], k=3), learn.recommend([1,2], k=3))

def test_settings_without_a_form_in_json_are_not_shown_whole(own, tmp_path):
    learn,path = saved(own.Genres, tmp_path/'b', dict(genres=torch.eye(21)[:,:4]))
    with pytest.raises(BundleError, match=r'Genres cannot be built by name .*model=Genres\(\.\.\.\).*--model package.module:Genres') as e: load_bundle(path)
    assert len(str(e.value))<400
    with pytest.raises(BundleError, match='cannot be called with|do not fit'): load_bundle(path, model=own.Genres)
    assert load_bundle(path, model=own.blank).predict(1, 2)==learn.predict(1, 2)

def test_every_command_of_the_shell(own, tmp_path):
    learn,path = saved(own.Plain, tmp_path/'b')
    FRAME[:40].to_csv('test.csv', index=False)
    code,said = run('recommend', path, '--user', 1)
    assert code==2 and '--model package.module:Plain' in said
    for args in (['recommend', path, '--user', 1, '-k', 2], ['similar', path, '--item', 4], ['evaluate', path, 'test.csv']):
        code,said = run(*args, '--model', 'ownmodels:Plain')
        assert code==0, said
    code,said = run('recommend', path, '--user', 1, '-k', 2, '--out', '-', '--model', 'ownmodels:Plain')
    assert str(learn.recommend(1, k=2).item_id[0]) in said

@pytest.mark.slow
def test_its_graph_is_exported(own, tmp_path):
    _,path = saved(own.Plain, tmp_path/'b')
    assert run('export', path, '--out', 'g.pt2', '--model', 'ownmodels:Plain')[0]==0 and (tmp_path/'g.pt2').exists()

def test_a_registered_model_is_found_once_its_module_is_named(own, tmp_path):
    learn,path = saved(own.Listed, tmp_path/'b')
    MODELS.pop('listed')
    with pytest.raises(BundleError, match="no model 'listed'.*--model package.module:Class"): load_bundle(path)
    assert load_bundle(path, model=own.Listed).predict(1, 2)==learn.predict(1, 2)

@pytest.mark.parametrize('text,match', [('ownmodels', 'expected package.module:Class'), ('nomodels:Plain', "No module named 'nomodels'"),
    ('ownmodels:Plane', "no attribute 'Plane'"), ('ownmodels:', 'expected package.module:Class'), ('ownmodels:Genres', 'cannot be called with|do not fit together')])
def test_what_is_not_there_is_a_sentence(own, tmp_path, text, match):
    _,path = saved(own.Plain, tmp_path/'b')
    code,said = run('recommend', path, '--user', 1, '--model', text)
    assert code==2 and re.search(match, said.replace('\n', ' ')), said

def test_the_service_answers_for_it(own, tmp_path, monkeypatch):
    learn,path = saved(own.Plain, tmp_path/'b')
    served = []
    monkeypatch.setattr('recfast.workers.answer', lambda service, *args: served.append(service.load(service.bundle)))
    assert run('serve', path, '--model', 'ownmodels:Plain')[0]==0
    with TestClient(make_app(served[0])) as web:
        got = web.post('/recommend', json=dict(user_ids=[1], k=3))
    assert [o['item_id'] for o in got.json()]==learn.recommend(1, k=3).item_id.tolist()
