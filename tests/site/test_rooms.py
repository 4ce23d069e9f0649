"The map of rooms is that of the notebooks, and their lessons keep imports apart"
import ast
import json
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NBS = sorted((ROOT/'nbs').glob('[0-7][0-9]_*.ipynb'))
sys.path.insert(0, str(ROOT/'.ci'))
import rooms

def test_the_map_is_that_of_the_notebooks():
    text = (ROOT/'CONTRIBUTING.md').read_text(encoding='utf-8')
    assert rooms.with_map(text, rooms.rooms(ROOT/'nbs'))==text, 'run python .ci/rooms.py'

def test_a_room_that_is_missing_from_the_map_would_be_seen(tmp_path):
    cells = [dict(source=['# dot\n','\n','> A rating as a product']), dict(source=['#| default_exp models.dot'])]
    (tmp_path/'23_models.dot.ipynb').write_text(json.dumps(dict(cells=cells)), encoding='utf-8')
    (tmp_path/'80_tutorial.ipynb').write_text(json.dumps(dict(cells=cells[:1])), encoding='utf-8')
    table = rooms.rooms(tmp_path)
    assert table.splitlines()[2:]==['| [23](nbs/23_models.dot.ipynb) | `models.dot` | A rating as a product |']
    assert rooms.with_map(f'a {rooms.BEGIN}\nold\n{rooms.END} b', table)==f'a {rooms.BEGIN}\n{table}\n{rooms.END} b'

def test_contributing_names_what_is_there():
    text = (ROOT/'CONTRIBUTING.md').read_text(encoding='utf-8')
    assert [o for o in re.findall(r'\]\((nbs/[\w./]+)\)', text) if not (ROOT/o).exists()]==[]
    assert [o for o in re.findall(r'`((?:nbs|tests|docs|benchmarks|recfast|\.ci)/[\w./]+)`', text) if not (ROOT/o).exists()]==[]

SHOWN = {'export','exports','exporti','exec_doc'} # nbdev runs these whole

def mixed(source):
    "Does a lesson import and do something else besides? nbdev would run all of it to build the site"
    directives = {o.split(':')[0].split()[0] for o in re.findall(r'^#\| *(\S.*)', source, re.M)}
    if directives & SHOWN or re.search(r'^#\| *eval: *false', source, re.M) or source[:1] in ('!','%'): return False
    body = ast.parse(source).body
    return any(isinstance(o, (ast.Import,ast.ImportFrom)) for o in body) and any(isinstance(o, (ast.Expr,ast.Assign)) for o in body)

@pytest.mark.parametrize('path', NBS, ids=lambda o: o.stem)
def test_a_lesson_imports_in_a_cell_of_its_own(path):
    cells = json.loads(path.read_text(encoding='utf-8'))['cells']
    assert [''.join(o['source'])[:80] for o in cells if o['cell_type']=='code' and mixed(''.join(o['source']))]==[]

@pytest.mark.parametrize('source,want', [('import a\na.b()',True), ('import a\nx = 1',True), ('import a\ndef f(): a.b()',False), ('import a',False),
    ('#| export\nimport a\nx = 1',False), ('#| hide\nimport a\nx = 1',True)])
def test_a_cell_of_both_would_be_seen(source, want): assert mixed(source)==want

def test_the_design_page_shows_the_rooms_there_are():
    shown = re.findall(r'\]\((\d\d_[\w.]+\.ipynb)\)', (ROOT/'nbs/99_design.ipynb').read_text(encoding='utf-8'))
    assert {o.name for o in NBS}<={*shown}, 'run nbdev-test nbs/99_design.ipynb --save'
    assert [o for o in shown if not (ROOT/'nbs'/o).exists()]==[]
