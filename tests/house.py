"The house measured: cells, density, docments, rooms; `python tests/house.py` prints the tables that tests/site/test_house.py holds"
import ast
import io
import json
import re
import statistics
import tokenize
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT/'nbs').glob('[0-7][0-9]_*.ipynb'))
MODULES = sorted(p for p in (ROOT/'recfast').rglob('*.py') if p.name not in ('_modidx.py','__init__.py','all.py'))
MAX_LINES,MAX_DEFS,MAX_COLUMNS = 30,2,120

def source(cell): return ''.join(cell['source'])

@cache
def cells_of(path): return json.loads(path.read_text(encoding='utf-8'))['cells']

parse = cache(ast.parse)

def is_plumbing(node):
    "Imports, the guard of an extra, and the names a module still offers are no code of a reader's"
    if isinstance(node, (ast.Import,ast.ImportFrom,ast.Try)): return True
    targets = node.targets if isinstance(node, ast.Assign) else ()
    return any(isinstance(o, ast.Name) and o.id in ('_all_','__getattr__') for o in targets)

def exported_cells(path):
    "(position, id, code lines, number of top-level definitions) of the exported cells with code of a notebook"
    for at,cell in enumerate(cells_of(path)):
        text = source(cell)
        if cell['cell_type']!='code' or not re.search(r'^#\| *export\b', text, re.M): continue
        code = re.sub(r'^#\|.*$', '', text, flags=re.M)
        nodes = [o for o in parse(code).body if not is_plumbing(o)]
        defs = sum(isinstance(o, (ast.FunctionDef,ast.AsyncFunctionDef,ast.ClassDef)) for o in nodes)
        if nodes: yield at,cell['id'],[o for o in code.splitlines() if o.strip()],defs

def faults(path):
    "What a reader of one notebook would stumble over: long cells, many definitions, code without prose before or a value after"
    cells = cells_of(path)
    for at,name,lines,defs in exported_cells(path):
        if len(lines)>MAX_LINES: yield f'{path.stem} {name}: {len(lines)} lines'
        if defs>MAX_DEFS: yield f'{path.stem} {name}: {defs} definitions'
        if any(len(o)>MAX_COLUMNS for o in lines): yield f'{path.stem} {name}: a line over {MAX_COLUMNS} columns'
        if at==0 or cells[at-1]['cell_type']!='markdown': yield f'{path.stem} {name}: no text before'
        if not any(o.get('outputs') for o in cells[at+1:at+5]): yield f'{path.stem} {name}: no value shown after'

def median_cell(): return statistics.median(len(lines) for p in NOTEBOOKS for _,_,lines,_ in exported_cells(p))

def docstrings(tree):
    "The numbers of the lines of docstrings"
    for o in ast.walk(tree):
        if not isinstance(o, (ast.Module,ast.ClassDef,ast.FunctionDef,ast.AsyncFunctionDef)) or not o.body: continue
        first = o.body[0]
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
            yield from range(first.lineno, first.end_lineno+1)

SPACE = (tokenize.COMMENT,tokenize.NL,tokenize.NEWLINE,tokenize.INDENT,tokenize.DEDENT,tokenize.ENDMARKER)

def density(text):
    "(expression nodes, code lines) of a module, docstrings left out"
    tree = parse(text)
    left_out = set(docstrings(tree))
    tokens = (o for o in tokenize.generate_tokens(io.StringIO(text).readline) if o.type not in SPACE)
    lines = {n for o in tokens for n in range(o.start[0], o.end[0]+1)}-left_out
    nodes = sum(isinstance(o, ast.expr) and o.lineno not in left_out for o in ast.walk(tree))
    return nodes,len(lines)

def long_lines(text):
    "The numbers of lines of code that are too long to read"
    tree = parse(text)
    prose = {*docstrings(tree),*generated(tree)}
    return [n for n,line in enumerate(text.splitlines(), 1) if len(line)>MAX_COLUMNS and n not in prose]

def generated(tree):
    "The numbers of the lines of `__all__`, which nbdev writes"
    for o in tree.body:
        if isinstance(o, ast.Assign) and ast.unparse(o.targets[0])=='__all__': yield from range(o.lineno, o.end_lineno+1)

def pairs(text):
    "(assignments of the form a,b = x,y; all assignments)"
    assigns = [o for o in ast.walk(parse(text)) if isinstance(o, ast.Assign)]
    return sum(isinstance(o.value, ast.Tuple) and isinstance(o.targets[0], ast.Tuple) for o in assigns),len(assigns)

def public_functions(tree):
    "Functions of a module and methods of its public classes; typer's commands bring their own help"
    for o in tree.body:
        inner = o.body if isinstance(o, ast.ClassDef) and not o.name.startswith('_') else [o]
        for f in inner:
            if not isinstance(f, (ast.FunctionDef,ast.AsyncFunctionDef)): continue
            if f.name.startswith('_') and f.name!='__init__': continue
            if not any('command' in ast.unparse(d) for d in f.decorator_list): yield f

def docments(text):
    "(parameters with a comment, parameters) of the public functions and methods of a module"
    lines,told,all_ = text.splitlines(),0,0
    for f in public_functions(parse(text)):
        for a in [*f.args.posonlyargs,*f.args.args,*f.args.kwonlyargs]:
            if a.arg in ('self','cls'): continue
            all_ += 1
            told += '#' in lines[a.end_lineno-1].split(a.arg, 1)[-1]
    return told,all_

@cache
def read(path): return path.read_text(encoding='utf-8')
def share(count): return [sum(o) for o in zip(*(count(read(p)) for p in MODULES))]

if __name__=='__main__':
    for p in MODULES:
        nodes,lines = density(read(p))
        print(f'{str(p.relative_to(ROOT)):34} {len(read(p).splitlines()):4} lines, {nodes/max(1, lines):.2f} nodes a line')
    for p in NOTEBOOKS: print(f'{p.stem:24} {len(list(exported_cells(p))):3} exported cells, {len(list(faults(p))):3} faults')
    (nodes,lines),(two,assigns),(told,params) = share(density),share(pairs),share(docments)
    sizes = [len(read(p).splitlines()) for p in MODULES]
    print(f'{len(MODULES)} modules, median {statistics.median(sizes):.0f}, longest {max(sizes)} lines; {nodes/lines:.2f} nodes a line; '
          f'{two/assigns:.1%} a,b = x,y; docments {told/params:.1%} of {params}; median cell {median_cell():.0f} lines')
