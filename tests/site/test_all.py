import subprocess
import sys

import fastai.collab
import fastai.tabular.all
import pytest

import recfast.all

SHADOWED = {'CollabDataLoaders', 'collab_learner', 'EmbeddingDotBias', 'EmbeddingNN', 'rmse', 'EarlyStoppingCallback', 'SaveModelCallback',
            'ReduceLROnPlateau'}

def public(module): return {k: v for k,v in vars(module).items() if not k.startswith('_')}

def test_the_names_of_fastai_that_recfast_shadows():
    theirs = {**public(fastai.tabular.all), **{k: getattr(fastai.collab, k) for k in fastai.collab.__all__}}
    ours = public(recfast.all)
    assert {k for k in ours if k in theirs and ours[k] is not theirs[k]}==SHADOWED
    assert recfast.all.TabularCollab is fastai.collab.TabularCollab

def test_every_name_of_fastai_is_there(): assert set(public(fastai.tabular.all)) <= set(vars(recfast.all))

def test_every_public_name_of_every_module_is_there():
    mods = [m for n,m in sys.modules.items() if n.startswith('recfast.') and hasattr(m, '__all__')]
    lost = [(m.__name__,n) for m in mods if m.__name__ not in ('recfast.cli','recfast.serve','recfast.api','recfast.worker') for n in m.__all__ if getattr(recfast.all, n, None) is not getattr(m, n)]
    assert lost==[] and len(mods)>10

SNAPSHOT = """
import warnings; warnings.simplefilter('ignore')
import sys
from fastai.tabular.all import *
import fastai.collab
CLASSES = [Learner, Recorder, DataLoaders, DataLoader, TfmdDL, Callback, Metric, Optimizer, CategoryMap, TabularModel, fastai.collab.CollabDataLoaders]
def snapshot(): return {c.__name__: {k: v for k,v in vars(c).items() if k!='__annotations_cache__'} for c in CLASSES}
def modules(): return {n: {k: id(v) for k,v in vars(m).items() if callable(v)} for n,m in list(sys.modules.items()) if n.startswith('fastai.') and m}
before,mods = snapshot(),modules()
sys.modules['optuna'] = None
import recfast.all
print([(c,k) for c,now in snapshot().items() for k in {**now,**before[c]} if now.get(k) is not before[c].get(k)])
print([(n,k) for n,now in modules().items() if n in mods for k in mods[n] if now.get(k)!=mods[n][k]])
print(recfast.all.tune.__name__)
"""

@pytest.fixture(scope='module')
def fresh():
    "What a process prints that imports recfast.all for the first time, without optuna"
    return subprocess.run([sys.executable,'-c',SNAPSHOT], capture_output=True, text=True, check=True, encoding='utf-8').stdout.split('\n')

def test_nothing_of_fastai_is_patched(fresh): assert fresh[:2]==['[]','[]']

def test_recfast_is_imported_without_optuna(fresh): assert fresh[2:]==['tune','']
