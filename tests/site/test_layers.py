"A module imports only from layers below its own: the numbers of the notebooks are the order"
import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LAYERS = {'recfast.'+name: num for num,name in (p.stem.split('_', 1) for p in (ROOT/'nbs').glob('[0-9][0-9]*_*.ipynb'))}
MODULES = {'.'.join(p.relative_to(ROOT).with_suffix('').parts): p for p in (ROOT/'recfast').rglob('*.py')}
EXEMPT = ('recfast.all', 'recfast._modidx')

def imported(source, module):
    "Every module (or name in one) that `module` imports, inside functions too, relative ones resolved"
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import): yield from (a.name for a in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = '.'.join([*module.split('.')[:-node.level], *filter(None, [node.module])]) if node.level else node.module
            yield from (f'{base}.{a.name}' for a in node.names)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id=='recfast': yield f'recfast.{node.attr}'

def upward(source, module):
    "Imports of an equal or a higher layer; what names no module of ours stands for the package it is taken from"
    below = [m for m,num in LAYERS.items() if num<LAYERS[module]]
    ours = [o for o in imported(source, module) if o.startswith('recfast.') and o!='recfast.__version__']
    return [o for o in ours if not any(o==m or o.startswith(m+'.') for m in below)]

def test_the_package_itself_imports_nothing():
    assert list(imported(MODULES['recfast.__init__'].read_text(encoding='utf-8'), 'recfast.__init__'))==[]

def test_every_module_has_a_notebook():
    assert {m for m in MODULES if m not in EXEMPT and not m.endswith('__init__')} <= set(LAYERS) and len(LAYERS)>15

@pytest.mark.parametrize('module', sorted(m for m in MODULES if m in LAYERS))
def test_imports_point_down(module): assert upward(MODULES[module].read_text(encoding='utf-8'), module)==[]

@pytest.mark.parametrize('line', ['from recfast.learner import collab_learner', 'import recfast.learner', 'from recfast import learner', 'from ..learner import x',
    'def f():\n    from recfast.recommend import Recommender', 'from recfast.all import *', 'import recfast\nrecfast.learner.x', 'from .dot import DotProduct', 'from . import ncf'])
def test_an_upward_import_is_found(line): assert len(upward(line, 'recfast.models.dot'))==1

@pytest.mark.parametrize('line', ['from recfast.core import RatingsError', 'import recfast\nrecfast.__version__', 'from recfast import core', 'from .base import register', 'from . import base',
    'import recfast.core as c', 'import torch', 'from fastai.learner import Learner'])
def test_a_downward_import_passes(line): assert upward(line, 'recfast.models.dot')==[]
