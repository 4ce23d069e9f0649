"One room for one decision, small cells, one idea a line: what a stranger relies on when reading the source"
import ast
import importlib
import re
import statistics
import subprocess
import sys

import pytest

from house import MODULES, NOTEBOOKS, ROOT, density, docments, exported_cells, faults, long_lines, median_cell, pairs, parse, read, share
from recfast.core import MOVED, VERBS

EXCEPTIONS = () # ids of exported cells; the list may only shrink

@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda o: o.stem)
def test_a_notebook_is_read_in_small_steps(path): assert [o for o in faults(path) if o.split()[1].rstrip(':') not in EXCEPTIONS]==[]

@pytest.mark.parametrize('path', sorted((ROOT/'nbs').glob('*.ipynb')), ids=lambda o: o.stem)
def test_no_saved_output_carries_a_path_of_the_machine_it_was_made_on(path): assert not re.search(r'site-packages|/tmp/tmp\w|/home/\w', path.read_text(encoding='utf-8'))

def test_the_median_exported_cell_has_ten_lines_or_fewer(): assert median_cell()<=10

def test_there_are_as_many_rooms_as_a_person_can_walk_through():
    sizes = [len(read(p).splitlines()) for p in MODULES]
    assert 45<=len(MODULES)<=188 and max(sizes)<=330 and statistics.median(sizes)<=210

def test_a_line_of_code_holds_one_idea():
    nodes,lines = share(density)
    assert nodes/lines<=5.8

def test_unlike_things_do_not_share_an_assignment():
    two,assigns = share(pairs)
    assert two/assigns<=.06

def test_lines_of_the_library_are_at_most_120_columns_long():
    assert [f'{p.name}:{n}' for p in MODULES for n in long_lines(read(p))]==[]

def test_nine_of_ten_public_parameters_say_what_they_are():
    told,params = share(docments)
    assert told/params>=.9

def test_the_measures_see_what_they_should():
    assert density('"text"\nx = 1\n\ny = f(x)+1 # note')==(8,2)
    assert pairs('a,b = 1,2\nc = 3\nd,e = f()')==(1,3)
    assert docments('def f(a, # what\n    b,\n):\n    def g(c): pass\ndef _h(d): pass')==(1,2)

# caches

CACHES = re.compile(r"hasattr\(self, '_\w+'\)|getattr\(\w+, '_\w+', \(None|__dict__\.setdefault\('_\w+'|WeakKeyDictionary|lru_cache|\bcache\(")

def caches(text): return [o for o in CACHES.findall(re.sub(r'"[^"\n]*"$', '', text, flags=re.M))]

def test_there_is_one_cache():
    assert {p.stem: found for p in MODULES if (found:=caches(read(p)))}=={'core': ["__dict__.setdefault('_kept'"]}

@pytest.mark.parametrize('line', ["if not hasattr(self, '_csr'): self._csr = 1", "if getattr(self, '_cols', (None,))[0]!=key: pass", "d = self.__dict__.setdefault('_events', {})",
    '_truths = weakref.WeakKeyDictionary()', '@lru_cache'])
def test_a_second_cache_is_found(line): assert caches(line)

# lists of models

def models_imported(text, among=False):
    "Modules of models that are imported as such, which only their registration asks for; `among`: by one of them"
    for o in ast.walk(parse(text)):
        if not isinstance(o, ast.ImportFrom): continue
        package = (o.module or '').split('.')[-1]=='models' or (among and o.level==1 and o.module is None)
        if package: yield from (a.name for a in o.names)

def is_list(path): return len(set(models_imported(read(path), path.parent.name=='models'))-{'zoo'})>1

def test_there_is_one_list_of_models(): assert [p.stem for p in MODULES if is_list(p)]==['zoo']

def test_a_second_list_of_models_is_found():
    assert len(list(models_imported('def f():\n    from recfast.models import dot,ncf')))==2
    assert len(list(models_imported('from . import dot,ncf', among=True)))==2

# names that moved

@pytest.mark.parametrize('module,name,home', [(m,n,h) for m,names in MOVED.items() for n,h in names.items()])
def test_a_name_that_moved_is_found_where_it_was(module, name, home):
    assert getattr(importlib.import_module(module), name) is getattr(importlib.import_module(home), name)
    with pytest.raises(AttributeError, match='no_such_name'): importlib.import_module(module).no_such_name

IN_A_FRESH_PROCESS = """
from recfast.learner import collab_learner
from recfast.data.loaders import CollabDataLoaders
from recfast.collab import CollabLearner
from recfast.recommend import Recommender
from recfast.core import Later,VERBS
classes = dict(CollabDataLoaders=CollabDataLoaders, CollabLearner=CollabLearner, Recommender=Recommender)
for name,verbs in VERBS.items():
    for verb in verbs: assert callable(getattr(classes[name], verb)) and not isinstance(vars(classes[name])[verb], Later), (name,verb)
assert all(hasattr(CollabLearner, o) for o in 'recommend predict similar_items explain evaluate fill_wide item_bias plot_factors save_bundle export_onnx'.split())

from recfast.core import MOVED
for module,names in MOVED.items():
    brought = {}
    exec(f'from {module} import *', brought)
    assert names.keys()<=brought.keys(), (module,sorted(brought))
"""

@pytest.mark.slow
def test_the_learner_alone_brings_every_verb_and_a_star_import_of_an_old_place_what_moved():
    res = subprocess.run([sys.executable,'-W','ignore','-c',IN_A_FRESH_PROCESS], capture_output=True, text=True, cwd=ROOT)
    assert res.returncode==0, res.stderr

def test_every_cell_with_code_is_counted(): assert sum(len(list(exported_cells(p))) for p in NOTEBOOKS)>250 and set(VERBS)=={'CollabDataLoaders','Recommender','CollabLearner'}
