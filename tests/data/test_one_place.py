"One room decides which column is which, one makes rows of a table, and only loaders and models read the tensors of `Interactions`"
import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = {'.'.join(p.relative_to(ROOT).with_suffix('').parts): p.read_text(encoding='utf-8') for p in sorted((ROOT/'recfast').rglob('*.py'))}

OWN_NAMES = {'user_id','item_id','rating','timestamp'}
TENSORS = {'users','items','values','times'}
MAKERS = {'interactions','as_interactions','from_frame','known','at_least','of_user','positive_rows','read_rows','Interactions'}
CALLED = {'train','valid','seen','train_ds','valid_ds','ints','interactions','ds','dataset','part'} # what rows are called in recfast
LOADERS = {f'recfast.data.{o}' for o in 'interactions stored batches loaders implicit rows sequences recut'.split()}

# Rooms that their owners have not come to yet: (module, function). These lists only shrink.
DECIDE = set()
MAKE = set()
READ = {
    ('recfast.testing','__init__'),
}

def functions(source):
    "(name, node) of every function and of the module, each with the nodes that are its own"
    def own(node):
        for o in ast.iter_child_nodes(node):
            if not isinstance(o, (ast.FunctionDef,ast.AsyncFunctionDef)):
                yield o
                yield from own(o)
    for o in ast.walk(ast.parse(source)):
        if isinstance(o, (ast.Module,ast.FunctionDef,ast.AsyncFunctionDef)): yield getattr(o, 'name', '<module>'),o,list(own(o))

def last_name(node):
    "`b` of `b` and of `a.b`; of a call that of what is called"
    if isinstance(node, ast.Call): return last_name(node.func)
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else None

def deciding(source):
    "(function, line): a neutral column name is looked for, by itself or as one of several candidates"
    for name,_,nodes in functions(source):
        spoken = {o.value for o in nodes if isinstance(o, ast.Constant) and isinstance(o.value, str)} & OWN_NAMES
        for o in nodes:
            if not (isinstance(o, ast.Compare) and isinstance(o.ops[0], (ast.In,ast.NotIn))): continue
            asked,where = o.left,o.comparators[0]
            literal = isinstance(asked, ast.Constant) and asked.value in OWN_NAMES
            own = isinstance(asked, ast.Attribute) and last_name(asked.value)=='OWN'
            if literal or own or spoken and last_name(where)=='columns': yield name,o.lineno

def making(source):
    "(function, line): `Interactions(...)` is called"
    for name,_,nodes in functions(source):
        yield from ((name,o.lineno) for o in nodes if isinstance(o, ast.Call) and last_name(o.func)=='Interactions')

def bound(function, nodes):
    "Names of a function that hold `Interactions`, by annotation or by what they are made with"
    found = set(CALLED)
    if not isinstance(function, ast.Module):
        args = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
        found |= {a.arg for a in args if a.annotation is not None and last_name(a.annotation)=='Interactions'}
    for o in nodes:
        if isinstance(o, ast.Assign) and isinstance(o.value, ast.Call) and last_name(o.value.func) in MAKERS:
            found |= {t.id for t in o.targets if isinstance(t, ast.Name)}
    return found

def reading(source):
    "(function, line): a tensor of a name bound to `Interactions` is read; `d.items()` is no tensor"
    for name,function,nodes in functions(source):
        names = bound(function, nodes)
        called = {id(o.func) for o in nodes if isinstance(o, ast.Call)}
        for o in nodes:
            tensor = isinstance(o, ast.Attribute) and o.attr in TENSORS and id(o) not in called
            if tensor and last_name(o.value) in names: yield name,o.lineno

def listed(find, skip):
    "What `find` says of every module that is not skipped, as 'module: function, line'"
    return {(m,f): f'{m}: {f}, line {n}' for m,source in SOURCES.items() if not skip(m) for f,n in find(source)}

def beyond(found, exceptions): return [said for key,said in found.items() if key not in exceptions]

DECIDED = listed(deciding, lambda m: m=='recfast.data.columns')
MADE = listed(making, lambda m: m in ('recfast.data.interactions','recfast.data.rows'))
READS = listed(reading, lambda m: m in LOADERS or m.startswith('recfast.models.'))

def test_only_columns_decides_which_column_is_which(): assert beyond(DECIDED, DECIDE)==[]
def test_only_from_frame_makes_rows(): assert beyond(MADE, MAKE)==[]
def test_only_loaders_and_models_read_the_tensors(): assert beyond(READS, READ)==[]

@pytest.mark.parametrize('found,exceptions', [(DECIDED,DECIDE), (MADE,MAKE), (READS,READ)])
def test_no_exception_is_left_over(found, exceptions): assert exceptions-set(found)==set() # take them off the list

@pytest.mark.parametrize('line', ["time = 'timestamp' if 'timestamp' in df else None", "if 'rating' not in df.columns: pass", "if OWN.user in df: pass",
    "def f(df):\n    names = 'film','item_id'\n    return next(o for o in names if o in df.columns)"])
def test_a_second_place_that_decides_is_found(line): assert len(list(deciding(line)))==1

@pytest.mark.parametrize('line', ["df.rename(columns={'user_id': 'who'})", "if name in df.columns: pass", "df['rating']"])
def test_a_place_that_decides_nothing_passes(line): assert list(deciding(line))==[]

@pytest.mark.parametrize('line', ['train.users[0]', 'rec.seen.values', 'dls.train_ds.items', 'def f(who:Interactions): return who.times',
    'new = Interactions.from_frame(df, columns, classes)\nnew.users', 'rows = learn.dls.interactions()\nrows.items'])
def test_a_reader_of_tensors_is_found(line): assert len(list(reading(line)))==1

@pytest.mark.parametrize('line', ['for k,v in train.items(): pass', 'df.values', 'rec.users', 'rows = {}\nrows.items', 'train.counts()'])
def test_a_reader_of_other_things_passes(line): assert list(reading(line))==[]

@pytest.mark.parametrize('line', ['Interactions(u, i, classes=c)', 'data.Interactions(u, i)'])
def test_a_second_maker_is_found(line): assert len(list(making(line)))==1
