"What stands between nbdev and Sphinx: a notebook as nbdev processed it becomes a page of MyST"
import ast,inspect,re,yaml
from importlib import import_module
from itertools import count,groupby
from nbdev.doclinks import NbdevLookup
from entries import constants,find,md_cell,show_doc,shown_name
from links import local_links,site

TAGS = {'echo: false': 'remove-input', 'output: false': 'remove-output', 'code-fold': 'hide-input'} # of MyST-NB, for the directives of nbdev and Quarto
METADATA = dict(language_info=dict(name='python', pygments_lexer='ipython3'), kernelspec=dict(name='python3', display_name='python3', language='python'))

def without_directives(cell):
    "A cell without its lines of directives, which are tags now; None where it is hidden"
    lines = cell['source'].splitlines()
    directives = [o for o in lines if o.startswith('#|')]
    if any(re.match(r'#\| *hide\b', o) for o in directives): return
    source = '\n'.join(o for o in lines if not o.startswith('#|')).strip()
    return dict(cell, source=source, metadata=dict(tags=[tag for o,tag in TAGS.items() if any(o in d for d in directives)]))

def below_title(cell):
    "What stands in the first cell of a notebook under title and subtitle; nbdev leaves it out"
    text = re.sub(r'\A# .*\n+(> .*\n*)*', '', ''.join(cell['source'])).strip()
    return [md_cell(NbdevLookup().linkify(text))] if text else []

def title_cell(front, name, module):
    "Title and subtitle, from the front matter that nbdev made of them"
    head = yaml.safe_load(''.join(front['source']).strip().strip('-'))
    return md_cell(f"# {module or head['title']}\n\n{{.lead}}\n{NbdevLookup().linkify(head.get('description', ''))}")

NUMBER = re.compile(r'\s*([-+]?[\d.,]+(e[-+]?\d+)?%?|nan|None|)\s*', re.I)

def align_text(html):
    "A frame's columns of text get the class `text`, to stand to the left; numbers stay to the right"
    rows = [re.findall(r'<t[hd]\b[^>]*>.*?</t[hd]>', o, re.S) for o in re.findall(r'<tr.*?</tr>', html, re.S)]
    text = {j for row in rows for j,o in enumerate(row) if o.startswith('<td') and not NUMBER.fullmatch(re.sub('<[^>]+>', '', o))}
    def mark(row):
        place = count()
        return re.sub(r'<t[hd]\b', lambda m: f'{m[0]} class="text"' if next(place) in text else m[0], row[0])
    return re.sub(r'<tr.*?</tr>', mark, html, flags=re.S)

def as_on_a_screen(text):
    "What a terminal shows in the end: of a line written over and over only the last, and no bar that was left behind"
    lines = [o.rstrip('\r').rsplit('\r', 1)[-1] for o in text.split('\n')]
    return '\n'.join(o for o in lines if o.strip()!='█').strip('\n')

def mend_outputs(cell, name, heading):
    "Links and tables of what a cell shows, and a text for its figures; what was said on stderr is left out"
    for o in cell['outputs']:
        if o['output_type']=='stream': o['text'] = as_on_a_screen(''.join(o['text']))
    cell['outputs'] = [o for o in cell['outputs'] if o.get('name')!='stderr' and o.get('text')!='']
    cell['metadata']['mystnb'] = dict(image=dict(alt=f'Figure: {heading}'))
    for data in (o['data'] for o in cell['outputs'] if 'data' in o):
        if 'text/markdown' in data: data['text/markdown'] = local_links(''.join(data['text/markdown']), name)
        if 'text/html' in data: data['text/html'] = align_text(''.join(data['text/html']))

def is_private(symbol): return any(o[:1]=='_' for o in symbol.split('.'))

def defined(code):
    "Names that a cell defines: functions, classes, constants, methods by their class"
    for o in ast.parse(re.sub('^[!%].*', '', code, flags=re.M)).body:
        if isinstance(o, ast.Assign): yield from (n.id for n in ast.walk(o) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store))
        elif isinstance(o, (ast.FunctionDef,ast.AsyncFunctionDef,ast.ClassDef)):
            args = o.args.args if not isinstance(o, ast.ClassDef) else []
            owner = ast.unparse(args[0].annotation)+'.' if args and args[0].arg=='self' and args[0].annotation else ''
            yield owner+o.name

def exported(cell):
    "The code that a cell exports, or nothing"
    source = ''.join(cell['source'])
    return source if cell['cell_type']=='code' and re.match(r'#\| *export\b', source) else ''

def inside(cells):
    "Ids of the cells of a notebook, as it was written, that only tell of private names: the text before them, them, what they show"
    ids,private = set(),False
    for cell,after in zip(cells, [*cells[1:],cells[-1]]):
        is_text = cell['cell_type']=='markdown'
        is_heading = is_text and re.match('#+ ', ''.join(cell['source']))
        names = list(defined(exported(after if is_text else cell)))
        if is_heading: private = False
        elif names: private = all(map(is_private, names))
        if private: ids.add(cell['id'])
    return ids

def fold(cells, ids):
    "Runs of cells that are only of the inside, each behind one line to open it"
    for closed,run in groupby(cells, lambda o: o.get('id') in ids):
        if closed: yield md_cell('```{raw} html\n<details class="recfast-inside"><summary>Inside</summary>\n```')
        yield from run
        if closed: yield md_cell('```{raw} html\n</details>\n```')

def what_one_calls(symbols, module, name):
    "A table of the public names of a page, those of `recfast.all` first, each with its first line"
    import recfast.all
    first = lambda o: o.split('.')[0] not in vars(recfast.all)
    rows = [f'| [`{o}`](page:{name}.html#{o.lower()}) | {(inspect.getdoc(find(o, module)) or "").splitlines()[0]} |'.replace('\n', ' ')
            for o in sorted(symbols, key=first) if inspect.getdoc(find(o, module))]
    return [md_cell('\n'.join(['{.recfast-calls}','| what one calls | what it does |','|---|---|',*rows]))] if rows else []

def page(nb, name, module, written):
    "A processed notebook as one for MyST-NB; `module` is what it exports, or None; `written` are its cells as they were written"
    front,*cells = nb['cells']
    out,shown,level,heading = [title_cell(front, name, module), *below_title(written[0])],[],1,name
    for cell in cells:
        cell['source'] = ''.join(cell['source'])
        if cell['source'].startswith('<!-- WARNING'): continue
        if symbol:=shown_name(cell):
            if is_private(symbol): continue
            shown.append(symbol)
            out += show_doc(cell, module, min(level+1, 3), heading)
            heading = None
        elif cell:=without_directives(cell):
            if cell['cell_type']=='code': mend_outputs(cell, name, heading)
            for marks,text in re.findall(r'^(#+) (.+)', cell['source'], re.M) if cell['cell_type']=='markdown' else []: level,heading = len(marks),text.strip('`')
            out.append(cell)
    if module:
        out = list(fold(out, inside(written)))
        at = next((i for i,o in enumerate(out) if o['cell_type']=='code' or re.match('##|```', o['source'])), len(out))
        out[at:at] = what_one_calls(shown, module, name)
        out += constants([o for o in import_module(module).__all__ if o not in shown], module, shown)
    for i,cell in enumerate(out):
        cell['id'] = f'cell-{i}'
        if cell['cell_type']=='markdown': cell['source'] = local_links(cell['source'], name)
    return dict(nbformat=4, nbformat_minor=5, cells=out, metadata=METADATA)

def exported_module(nb):
    "The module that a notebook exports, or None"
    found = (re.match(r'#\| *default_exp +([\w.]+)', ''.join(o['source'])) for o in nb['cells'])
    return next((f'recfast.{m[1]}' for m in found if m), None)

def markdown(nb):
    "A page as plain markdown, for readers that are programs"
    parts = []
    for c in nb['cells']:
        if c['cell_type']=='markdown': parts.append(c['source'])
        else:
            if 'remove-input' not in c['metadata']['tags']: parts.append(f"```python\n{c['source']}\n```")
            texts = [o.get('text') or o.get('data', {}).get('text/markdown') or o.get('data', {}).get('text/plain') for o in c['outputs']]
            parts += [f"```text\n{''.join(o).rstrip()}\n```" for o in texts if o and not ''.join(o).startswith('<IPython')]
    text = '\n\n'.join(o for o in parts if o.strip())+'\n'
    return re.sub(r'```\{(symbol|raw)\}.*?```\n+|^\{\.[\w-]+\}\n', '', text, flags=re.S|re.M).replace('](page:', f']({site}')
