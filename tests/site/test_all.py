import ast
import importlib
import json
import re
import subprocess
import sys
import warnings
from functools import cache
from pathlib import Path

import fastai.collab
import fastai.tabular.all
import pytest

import recfast.all
from recfast.core import homes

NBS = Path(__file__).parents[2]/'nbs'

SHADOWED = {'CollabDataLoaders', 'collab_learner', 'EmbeddingDotBias', 'EmbeddingNN', 'rmse', 'EarlyStoppingCallback', 'SaveModelCallback',
            'ReduceLROnPlateau'}

ERRORS = {'RecfastError', 'RatingsError', 'UnknownIdError', 'BundleError', 'NeedsMemoryError', 'LeakageWarning'}
BASES = {'FlatLoss', 'BlockLoss', 'PairLoss', 'ClosedForm', 'HistoryModel', 'PairNet', 'SequenceModel', 'RatingDL', 'CollabLearner', 'Recommender'}
DOORS = ('recfast.cli', 'recfast.routes', 'recfast.serve', 'recfast.shell', 'recfast.worker') # asked for by module, then as now
RUNS = ('run_quickstart', 'run_train') # of recfast.report, and asked for like those
OURS = [k for k,home in homes('recfast').items() if k in vars(recfast.all) and vars(recfast.all)[k] is getattr(importlib.import_module(home), k)]

def examples(cell):
    "The Python of a cell, or between fences"
    text = ''.join(cell['source'])
    found = [text] if cell['cell_type']=='code' else re.findall(r'```python\n(.*?)```', text, re.S)
    return ['\n'.join(o for o in code.splitlines() if o[:1] not in ('!','%')) for code in found]

@cache
def met():
    "Names that code of nbs 80 to 99 or the index reads, and those that its prose sets as code"
    names = set()
    for path in [*NBS.glob('[89]*.ipynb'),NBS/'index.ipynb']:
        for cell in json.loads(path.read_text(encoding='utf-8'))['cells']:
            if cell['cell_type']=='markdown': names |= set(re.findall(r'`([A-Za-z_]\w*)', ''.join(cell['source'])))
            for code in examples(cell): names |= {o.id for o in ast.walk(ast.parse(code)) if isinstance(o, ast.Name) and isinstance(o.ctx, ast.Load)}
    return names

def public(module): return {k: v for k,v in vars(module).items() if not k.startswith('_')}

def test_the_names_of_fastai_that_recfast_shadows():
    theirs = {**public(fastai.tabular.all), **{k: getattr(fastai.collab, k) for k in fastai.collab.__all__}}
    ours = public(recfast.all)
    assert {k for k in ours if k in theirs and ours[k] is not theirs[k]}==SHADOWED
    assert recfast.all.TabularCollab is fastai.collab.TabularCollab

def test_every_name_of_fastai_is_there(): assert set(public(fastai.tabular.all)) <= set(vars(recfast.all))

def test_a_name_is_on_the_surface_because_a_reader_meets_it():
    unmet = [o for o in OURS if o not in met() and o not in (*ERRORS,*BASES,*SHADOWED)]
    assert unmet==[] and 80<len(OURS)<=120

def test_what_a_reader_meets_is_told_from_what_only_sounds_like_it():
    assert {'EASE','collab_learner','mmr'}<=met()
    assert not {'precision','seen_pairs','draw_params'} & met()

def asked(name):
    "What the surface gives for a name that left it, with what it says"
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter('always')
        return getattr(recfast.all, name), [(o.category,str(o.message)) for o in said]

def test_a_name_that_left_is_still_found_and_says_where_it_lives():
    left = {k: v for k,v in homes('recfast').items() if k not in (*vars(recfast.all),*RUNS) and v not in DOORS} # what fastai has too is fastai's
    assert len(left)>100
    for name,home in left.items():
        found,said = asked(name)
        assert found is getattr(importlib.import_module(home), name)
        assert said==[(DeprecationWarning, f'{name} is no longer among the names of recfast.all: from {home} import {name}')]

def test_what_a_door_has_was_never_there():
    assert not any(hasattr(recfast.all, o) for o in ('make_app',*RUNS))
    assert homes('recfast')['make_app'] in DOORS and {homes('recfast')[o] for o in RUNS}=={'recfast.report'}

def test_the_warning_points_at_the_line_that_asked():
    with pytest.warns(DeprecationWarning) as said: exec('from recfast.all import precision_at_k', {'__name__': 'somebody'})
    assert said[0].filename=='<string>'

def test_a_name_that_never_was_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"): recfast.all.nothing

def test_every_public_name_has_a_home():
    mods = [m for n,m in sys.modules.items() if n.startswith('recfast.') and hasattr(m, '__all__') and not hasattr(m, '__path__')]
    assert [(m.__name__,n) for m in mods for n in m.__all__ if n not in homes('recfast')]==[] and len(mods)>30

# the packages
PACKAGES = """
from recfast.models import EASE
assert 'recfast.models.sequence' not in sys.modules, 'one room was asked for'
from recfast.data import CollabDataLoaders
assert CollabDataLoaders.rows_from_df and CollabDataLoaders.implicit_from_df and CollabDataLoaders.sequences_from_df
from recfast.models import autorec,base
assert autorec.AutoRec
from recfast.models import *
from recfast.data import *
print(EASE.__name__, SASRec.__name__, global_time_split.__name__)
"""

def test_what_is_a_name_and_a_room_is_the_room_whatever_came_first(monkeypatch, tmp_path):
    (tmp_path/'lodge').mkdir()
    for name,text in {'__init__': 'from recfast.core import offer_rooms\n__getattr__ = offer_rooms(__name__)', 'door': "__all__ = ['door', 'bell']\ndef door(): pass\ndef bell(): pass"}.items():
        (tmp_path/'lodge'/f'{name}.py').write_text(text, encoding='utf-8')
    monkeypatch.syspath_prepend(tmp_path)
    lodge = importlib.import_module('lodge')
    assert lodge.__all__==['bell'] and not hasattr(lodge, 'door')
    from lodge import bell,door
    assert bell.__name__=='bell' and door.__name__=='lodge.door'

SNAPSHOT = f"""
import warnings; warnings.simplefilter('ignore')
import sys
from fastai.tabular.all import *
import fastai.collab
CLASSES = [Learner, Recorder, DataLoaders, DataLoader, TfmdDL, Callback, Metric, Optimizer, CategoryMap, TabularModel, fastai.collab.CollabDataLoaders]
def snapshot(): return {{c.__name__: {{k: v for k,v in vars(c).items() if k!='__annotations_cache__'}} for c in CLASSES}}
def modules(): return {{n: {{k: id(v) for k,v in vars(m).items() if callable(v)}} for n,m in list(sys.modules.items()) if n.startswith('fastai.') and m}}
before,mods = snapshot(),modules()
sys.modules['optuna'] = None
exec({PACKAGES!r}, {{'sys': sys}})
import recfast.all
print([(c,k) for c,now in snapshot().items() for k in {{**now,**before[c]}} if now.get(k) is not before[c].get(k)])
print([(n,k) for n,now in modules().items() if n in mods for k in mods[n] if now.get(k)!=mods[n][k]])
print(recfast.all.tune.__name__)
"""

@pytest.fixture(scope='module')
def fresh():
    "What a process prints that imports recfast for the first time, first its packages, then recfast.all, without optuna"
    return subprocess.run([sys.executable,'-c',SNAPSHOT], capture_output=True, text=True, check=True, encoding='utf-8').stdout.split('\n')

@pytest.mark.slow
def test_the_packages_offer_what_their_rooms_have(fresh): assert fresh[0].split()==['EASE','SASRec','global_time_split']

@pytest.mark.slow
def test_nothing_of_fastai_is_patched(fresh): assert fresh[1:3]==['[]','[]']

@pytest.mark.slow
def test_recfast_is_imported_without_optuna(fresh): assert fresh[3:]==['tune','']
