"What stands between nbdev and Sphinx: a notebook as nbdev processed it becomes a page of MyST"
import ast,re,textwrap
from functools import cache
from pathlib import Path
from nbdev.doclinks import NbdevLookup

root = Path(__file__).resolve().parent.parent
site,raw,repo = 'https://recfast.github.io/recfast/','https://raw.githubusercontent.com/recfast/recfast/main/nbs/','https://github.com/recfast/recfast'
colab = 'https://colab.research.google.com/assets/colab-badge.svg'

def page_name(nb_name):
    "The name on the site of a notebook: '21_models.dot.ipynb' is 'models.dot', as nbdev has it"
    return re.sub(r'^\d+[a-zA-Z0-9]*_', '', Path(nb_name).stem)

def md_cell(source): return dict(cell_type='markdown', metadata={}, source=source)

OWNERS = {'learn': ('CollabLearner','Recommender'), 'rec': ('Recommender',), 'dls': ('CollabDataLoaders',)}

def verb(name, owners=('CollabLearner','Recommender')):
    "Where a verb is described: that of the learner, else the one it passes on to"
    return next((o for o in (NbdevLookup().doc(f'{c}.{name}') for c in owners) if o), None)

def link(m, name):
    "A linked name; not to a command of the shell where the verb is meant, nor to what only shares its name"
    code,to = m.groups()
    if to.startswith(f'{site}cli.html') and name!='cli': to = verb(code.removesuffix('()'))
    return f'`{code}`' if to is None or code[0]=='_' or '/vision.' in to else f'[`{code}`]({to})'

@cache
def left_out():
    "Entries of a page that nbdev leaves out of its index: it skips every notebook with 'auto' in its name"
    return {o: f'{site}models.autorec.html#{o.lower()}' for o in public_names('recfast.models.autorec')}

def verb_link(m):
    code,owner,name = m.groups()
    to = verb(name, OWNERS[owner])
    return f'[`{code}`]({to})' if to else m[0]

def local_links(md, name):
    "Links and pictures of page `name`: names to their entries, pages and pictures to the files that Sphinx has"
    lines,fence = md.splitlines(),False
    for i,o in enumerate(lines):
        fence ^= o.lstrip().startswith('```')
        if fence: continue
        o = re.sub(r'\[\[(`[^`]+`)\]\([^)]+\)\]\(([^)]+)\)', r'[\1](\2)', o) # nbdev links inside of links too
        o = re.sub(r'\[`([^`]+)`\]\(([^)]+)\)', lambda m: link(m, name), o)
        o = re.sub(r'(?<!\[)`(\w+)(?:\(\))?`', lambda m: f'[{m[0]}]({left_out()[m[1]]})' if m[1] in left_out() else m[0], o)
        o = re.sub(r'(?<!\[)`((learn|rec|dls)\.(\w+)(?:\([^`]*\))?)`', verb_link, o)
        o = o.replace(colab, 'images/colab.svg').replace(raw, '')
        o = re.sub(rf'\]\({re.escape(site)}([\w.]+\.html#[^)]+)', r'](page:\1', o)
        o = re.sub(rf'\]\({re.escape(site)}(?:([\w.]+)\.html)?\)', lambda m: f'](<{m[1] or "index"}.ipynb>)', o)
        lines[i] = re.sub(r'\]\((?![a-z]+:)([\w.]+\.ipynb)', lambda m: f']({page_name(m[1])}.ipynb', o)
    return '\n'.join(lines)

@cache
def definitions(module):
    "Source text of what a module of recfast defines, by name: functions, classes, methods (patched ones too), constants"
    path = root/(module.replace('.', '/')+'.py')
    text = path.read_text(encoding='utf-8')
    lines,found = text.splitlines(),{}
    def note(name, node):
        first = min([node.lineno, *(o.lineno for o in getattr(node, 'decorator_list', []))])
        found[name] = ('\n'.join(lines[first-1:node.end_lineno]), first)
    for node in ast.parse(text).body:
        if isinstance(node, ast.Assign):
            for target in node.targets:
                for o in target.elts if isinstance(target, ast.Tuple) else [target]:
                    if isinstance(o, ast.Name): note(o.id, node)
        elif isinstance(node, ast.ClassDef):
            note(node.name, node)
            for o in node.body:
                if isinstance(o, (ast.FunctionDef,ast.AsyncFunctionDef)): note(f'{node.name}.{o.name}', o)
        elif isinstance(node, (ast.FunctionDef,ast.AsyncFunctionDef)):
            patched = any('patch' in ast.unparse(o) for o in node.decorator_list)
            owners = [node.args.args[0].annotation] if patched else [None]
            if isinstance(owners[0], (ast.Tuple,ast.BinOp)): owners = [o for o in ast.walk(owners[0]) if isinstance(o, ast.Name)]
            for o in owners: note(f'{ast.unparse(o)}.{node.name}' if o else node.name, node)
    return found

def public_names(module):
    "`__all__` of a module, read, not imported"
    for node in ast.parse((root/(module.replace('.', '/')+'.py')).read_text(encoding='utf-8')).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], 'id', '')=='__all__': return ast.literal_eval(node.value)
    return []

def entry(name, module, level=3, text=''):
    "An API entry: anchor and index entry, heading, signature, description, source"
    code,line = definitions(module)[name]
    code = textwrap.dedent(code)
    kind = 'class' if re.search(r'^class ', code, re.M) else 'data' if not re.search(r"^ *(async )?def ", code, re.M) else 'method' if '.' in name else 'function'
    path = module.replace('.', '/')+'.py'
    return f"""```{{symbol}} {module}.{name}
:kind: {kind}
:anchor: {name.lower()}
```

{'#'*level} `{name}`

{text}

````{{dropdown}} Source
:class-container: recfast-source

[{path}, line {line}]({repo}/blob/main/{path}#L{line})

```python
{code}
```
````"""

def signature(name, module, text):
    "The signature of a `show_doc` cell; as it is written in the source where nbdev's says nothing"
    code = definitions(module)[name][0]
    node = ast.parse(code).body[0]
    lines = code.splitlines()
    if isinstance(node, ast.ClassDef) and f'{name}.__init__' not in definitions(module):
        fields = [lines[n-1] for o in node.body if isinstance(o, ast.AnnAssign) for n in range(o.lineno, o.end_lineno+1)]
        return '\n'.join([lines[node.lineno-1],*fields])
    if ' object at 0x' in text: return '\n'.join(lines[node.lineno-1:node.body[0].lineno-1])
    if isinstance(node, ast.ClassDef): text = re.sub(r'\Adef ', 'class ', text)
    return text.replace(':NoneType=None', '=None').replace('__main__.', '')

def show_doc(cell, module, level):
    "The markdown of a `show_doc` cell, as an entry"
    name = re.search(r'show_doc\(([\w.]+)', cell['source'])[1]
    md = ''.join(cell['outputs'][0]['data']['text/markdown'])
    sig,doc = re.search(r'```python\n(.*?)\n```\s*(.*)', md, re.S).groups()
    doc = re.sub(r'\A\*(.+?)\*$', r'\1', doc, flags=re.M)
    return md_cell(entry(name, module, level, f'```python\n{signature(name, module, sig)}\n```\n\n{doc}'))

def methods(name, module, level):
    "Entries of the methods that a class has in its body; those patched on have cells of their own"
    node = ast.parse(definitions(module)[name][0]).body[0]
    for o in node.body if isinstance(node, ast.ClassDef) else []:
        if not isinstance(o, (ast.FunctionDef,ast.AsyncFunctionDef)) or o.name[0]=='_' or not (doc:=ast.get_docstring(o)): continue
        lines = definitions(module)[f'{name}.{o.name}'][0].splitlines()
        sig = textwrap.dedent('\n'.join(lines[len(o.decorator_list):len(o.decorator_list)+max(1, o.body[0].lineno-o.lineno)]))
        yield md_cell(entry(f'{name}.{o.name}', module, level, f'```python\n{sig}\n```\n\n{NbdevLookup().linkify(doc)}'))

def tags(directives):
    "The tags that MyST-NB understands for nbdev's and Quarto's directives"
    return [tag for key,tag in {'echo: false': 'remove-input', 'output: false': 'remove-output', 'code-fold': 'hide-input'}.items()
            if any(key in o for o in directives)]

def below_title(cell):
    "What stands in the first cell of a notebook under title and subtitle; nbdev leaves it out"
    return re.sub(r'\A# .*\n+(> .*\n*)*', '', ''.join(cell['source'])).strip()

def page(nb, name, module=None, first=None):
    "A processed notebook as a notebook for MyST-NB; `module` is what it exports, `first` its first cell as it was written"
    front,*cells = nb['cells']
    head = dict(re.findall(r'^(title|description): *((?:.*\n)(?:  .*\n)*)', ''.join(front['source']), re.M))
    head = {k: ' '.join(v.split()).strip('\'"').replace("''", "'") for k,v in head.items()}
    out,shown,level = [md_cell(f"# {name if module else head['title']}\n\n{{.lead}}\n{NbdevLookup().linkify(head.get('description', ''))}")],set(),1
    if first and below_title(first): out.append(md_cell(below_title(first)))
    for cell in cells:
        cell['source'] = ''.join(cell['source'])
        if cell['source'].startswith('<!-- WARNING'): continue
        if cell['cell_type']=='markdown' and cell['source'].startswith('#|'):
            if re.match(r'(#\|.*\n)*#\| *hide', cell['source']): continue
            cell['source'] = re.sub(r'\A(#\|.*\n)+', '', cell['source'])
        if cell['cell_type']=='code' and cell['source'].rstrip().rsplit('\n', 1)[-1].startswith('show_doc('):
            shown.add(symbol:=re.search(r'show_doc\(([\w.]+)', cell['source'])[1])
            out += [show_doc(cell, module, here:=min(level+1, 3)),*methods(symbol, module, here+1)]
            continue
        elif cell['cell_type']=='code':
            lines = cell['source'].splitlines()
            directives = [o for o in lines if o.startswith('#|')]
            cell['source'] = '\n'.join(o for o in lines if not o.startswith('#|')).strip()
            cell['metadata'] = dict(tags=tags(directives))
        else: level = ([level]+[len(o) for o in re.findall(r'^(#+) ', cell['source'], re.M)])[-1]
        out.append(cell)
    rest = [o for o in public_names(module) if o not in shown] if module else []
    if rest: out.append(md_cell('## Constants\n\n'+'\n\n'.join(entry(o, module, text=f'```python\n{definitions(module)[o][0]}\n```') for o in rest)))
    for i,cell in enumerate(out):
        cell['id'] = f'cell-{i}'
        if cell['cell_type']=='markdown': cell['source'] = local_links(cell['source'], name)
        for o in cell.get('outputs', []):
            if 'text/markdown' in o.get('data', {}): o['data']['text/markdown'] = local_links(''.join(o['data']['text/markdown']), name)
    return dict(nbformat=4, nbformat_minor=5, cells=out, metadata=dict(language_info=dict(name='python', pygments_lexer='ipython3'), kernelspec=dict(name='python3', display_name='python3', language='python')))

def exported_module(path):
    "The module that a notebook exports, or None"
    m = re.search(r'"#\| *default_exp +([\w.]+)', Path(path).read_text(encoding='utf-8'))
    return m and f'recfast.{m[1]}'

def markdown(nb):
    "A page as plain markdown, for readers that are programs"
    parts = []
    for c in nb['cells']:
        if c['cell_type']=='markdown': parts.append(c['source'])
        elif c['cell_type']=='code':
            if 'remove-input' not in c['metadata'].get('tags', []): parts.append(f"```python\n{c['source']}\n```")
            for o in c['outputs']:
                text = o.get('text') or o.get('data', {}).get('text/markdown') or o.get('data', {}).get('text/plain')
                if text: parts.append(f"```text\n{''.join(text).rstrip()}\n```")
    return '\n\n'.join(o for o in parts if o.strip())+'\n'
