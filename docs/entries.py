"An entry of the API: what nbdev's `show_doc` says of a name, with an anchor, a line in the index of objects, and the source"
import ast,inspect,re
from functools import cache,cached_property
from importlib import import_module
from pathlib import Path
from textwrap import dedent
from nbdev.doclinks import NbdevLookup
from recfast.core import homes

root = Path(__file__).resolve().parent.parent
repo = 'https://github.com/recfast/recfast'

def md_cell(source): return dict(cell_type='markdown', metadata={}, source=source)

def find(name, module):
    "What a dotted name of a module is; a method as the function that was written"
    obj = import_module(module)
    for o in name.split('.'): obj = getattr(obj, o)
    if isinstance(obj, cached_property): return obj.func
    return inspect.unwrap(getattr(obj, '__func__', getattr(obj, 'fget', None)) or obj)

@cache
def source(name, module):
    "(code, first line) of a function, a class, a method or a constant"
    obj = find(name, module)
    if inspect.isfunction(obj) or isinstance(obj, type):
        lines,line = inspect.getsourcelines(obj)
        return dedent(''.join(lines)).rstrip(),line
    text = Path(import_module(module).__file__).read_text(encoding='utf-8')
    node = next(o for o in ast.parse(text).body if isinstance(o, ast.Assign) and name in {n.id for n in ast.walk(o) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)})
    return ast.get_source_segment(text, node),node.lineno

def kind(name, module):
    obj = find(name, module)
    return 'class' if isinstance(obj, type) else 'data' if not inspect.isfunction(obj) else 'method' if '.' in name else 'function'

def entry(name, module, level, signature, doc='', anchor=None):
    "Anchor and index entry, heading (none where level is 0: the one above says it), signature, description, source"
    code,line = source(name, module)
    path = module.replace('.', '/')+'.py'
    heading = f"{'#'*level} `{name}`" if level else ''
    return md_cell(f"""```{{symbol}} {module}.{name}
:kind: {kind(name, module)}
:anchor: {anchor or name.lower()}
```

{heading}

```python
{signature}
```

{doc}

````{{dropdown}} Source
:class-container: recfast-source

[{path}, line {line}]({repo}/blob/main/{path}#L{line})

```python
{code}
```
````""")

def head_of(code):
    "A definition without decorators and body"
    node = ast.parse(code).body[0]
    return '\n'.join(code.splitlines()[node.lineno-1:max(node.lineno, node.body[0].lineno-1)])

def signature(name, module, shown):
    "The signature that nbdev shows; as it is written in the source where nbdev's says nothing"
    code,obj = source(name, module)[0],find(name, module)
    if isinstance(obj, type) and '__init__' not in vars(obj): # an error, a schema: its bases and fields
        node = ast.parse(code).body[0]
        return '\n'.join([code.splitlines()[node.lineno-1], *('    '+ast.get_source_segment(code, o) for o in node.body if isinstance(o, ast.AnnAssign))])
    if isinstance(obj, type): shown = re.sub(r'\Adef ', 'class ', shown)
    elif '<lambda>' in shown: return head_of(code)
    shown = re.sub(r"<class '(?:\w+\.)*(\w+)'>", r'\1', shown) # a class as a default
    return re.sub(r':(NoneType|function)=', '=', shown).replace('__main__.', '')

def command(name):
    "Usage and options of a command of the shell, as Typer has them; None where `name` is none"
    from recfast.cli import app
    from typer.main import get_command
    cmd = get_command(app).commands.get(name)
    if cmd is None: return
    rows = [' or '.join(f'`{x}`' for x in o.opts)+' | '+('required' if o.required else '' if o.default in (None,[],()) else f'`{o.default}`')+f" | {o.help or ''}"
            if o.param_type_name=='option' else f"`{o.name}` | {'required' if o.required else ''} | {o.help or ''}" for o in cmd.params]
    return '\n'.join(['| option | default | what it does |','|---|---|---|',*(f'| {o} |' for o in rows)])

def shown_name(cell):
    "The name that a `show_doc` cell is about, or None"
    m = re.search(r'^show_doc\(([\w.]+)', cell['source'], re.M) if cell['cell_type']=='code' else None
    return m and m[1]

def show_doc(cell, module, level, heading):
    "A `show_doc` cell as an entry below `heading`, and one for each method in the body of a class (those patched on have cells of their own)"
    name = shown_name(cell)
    shown,doc = re.search(r'```python\n(.*?)\n```\s*(.*)', ''.join(cell['outputs'][0]['data']['text/markdown']), re.S).groups()
    doc = re.sub(r'\A\*(.+?)\*$', r'\1', doc, flags=re.M)
    sig,options = signature(name, module, shown),command(name) if module=='recfast.cli' else None
    if options: sig,doc = f'recfast {name}',f'{doc}\n\n{options}'
    named = heading in (name,name.split('.')[-1]) # by the heading above
    yield entry(name, module, 0 if named else level, sig, doc)
    body = ast.parse(source(name, module)[0]).body[0].body if kind(name, module)=='class' else []
    for o in body:
        if isinstance(o, (ast.FunctionDef,ast.AsyncFunctionDef)) and o.name[0]!='_' and (doc:=ast.get_docstring(o)):
            method = f'{name}.{o.name}'
            yield entry(method, module, level+(not named), head_of(source(method, module)[0]), NbdevLookup().linkify(doc))

def comment(code, line, module):
    "What stands beside or above an assignment"
    lines = Path(import_module(module).__file__).read_text(encoding='utf-8').splitlines()
    last = lines[line-1+code.count('\n')].partition(' # ')[2]
    return last or (lines[line-2][2:] if lines[line-2].startswith('# ') and not lines[line-2].startswith('# %%') else '')

def moved(names, module):
    "A line on names that a module offers and another one has: the anchors they had here, and where they live now"
    by_home = {}
    for o in names: by_home.setdefault(homes('recfast')[o], []).append(o)
    if not names: return
    anchors = ''.join(f'<span id="{o.lower()}"></span>' for o in names)
    homes_of = '; '.join(f"{', '.join(f'`{o}`' for o in found)} in `{home}`" for home,found in by_home.items())
    yield md_cell(f'{anchors}\n\nAlso offered here, and described where they live now: {homes_of}.')

def constants(names, module, shown):
    "Public names without an entry yet (`shown` have one): what is no function and no class, then what lives elsewhere"
    elsewhere = [o for o in names if homes('recfast').get(o, module)!=module]
    names = [o for o in names if o not in elsewhere]
    yield from moved(elsewhere, module)
    if names: yield md_cell('## Constants')
    for o in names:
        code,line = source(o, module)
        yield entry(o, module, 3, code, comment(code, line, module), anchor=o if o.lower() in {n.lower() for n in shown} else None)
