"Names and links of a page: from what nbdev and the notebooks write to what Sphinx has"
import re
from pathlib import Path
from nbdev.doclinks import NbdevLookup
from recfast.core import homes

site,raw = 'https://recfast.github.io/recfast/','https://raw.githubusercontent.com/recfast/recfast/main/nbs/'
colab = 'https://colab.research.google.com/assets/colab-badge.svg'
OWNERS = {'learn': ('CollabLearner','Recommender','Learner'), 'rec': ('Recommender',), 'dls': ('CollabDataLoaders',), 'pd': ('pandas',), 'nn': ('torch.nn',)}

def page_name(notebook):
    "The name on the site of a notebook: '23_models.dot.ipynb' is 'models.dot', as nbdev has it"
    return re.sub(r'^\d+[a-zA-Z0-9]*_', '', Path(notebook).stem)

PAGES = {page_name(o) for o in Path(__file__).resolve().parent.parent.glob('nbs/*.ipynb')}

def first_doc(name, prefixes):
    "Where the first of several names with `name` at the end is described; None where none is"
    return next((o for p in prefixes if (o:=NbdevLookup().doc(f'{p}.{name}'))), None)

def where(code):
    "Where a name is described that nbdev has not linked, such as `learn.recommend(k=3)`, `DataFrame`, `pd.Series`"
    name = code.split('(')[0]
    if m := re.match(r'recfast (\w+)', code): return NbdevLookup().doc(f'recfast.cli.{m[1]}') # a command of the shell
    owner,_,method = name.rpartition('.')
    if owner in OWNERS: return first_doc(method, OWNERS[owner])
    if name.startswith('recfast.') and name[8:] in PAGES: return f'{site}{name[8:]}.html'
    if re.search('(^|_)from_(df|csv|wide|parquet)$', name): return first_doc(name, OWNERS['dls'])
    if home := homes('recfast').get(name): # a constant, or of a notebook with 'auto' in its name: nbdev's index has neither
        return f'{site}{home.removeprefix("recfast.")}.html#{name.lower()}'
    if re.fullmatch('[A-Z][a-z]+[A-Za-z]+', name): return first_doc(name, ('pandas','torch','torch.nn'))

def linked(code, url, page):
    "A name that nbdev linked; not to a command of the shell where the verb is meant, nor to what only shares its name"
    if url.startswith(f'{site}cli.html') and page!='cli': url = first_doc(code.removesuffix('()'), OWNERS['learn'][:2])
    return f'`{code}`' if url is None or code[0]=='_' or re.search('fast.ai/(vision|text|metrics)', url) else f'[`{code}`]({url})'

def name_or_link(m, page):
    text,url,code = m.groups()
    if text is None: return f'[`{code}`]({url})' if (url:=where(code)) else m[0]
    return linked(text.strip('`'), url, page) if re.fullmatch('`[^`]+`', text) and url.startswith('http') else m[0]

def rewrite(line, page):
    "One line of prose"
    line = re.sub(r'\[([^\[\]]*)\[(`[^`]+`)\]\([^)]+\)([^\[\]]*)\]\(([^)]+)\)', r'[\1\2\3](\4)', line) # nbdev links inside of links too
    line = re.sub(r'\[([^\]]*)\]\(([^)]+)\)|`([^`]+)`', lambda m: name_or_link(m, page), line)
    line = line.replace(colab, 'images/colab.svg').replace(raw, '')
    line = re.sub(rf'\]\({re.escape(site)}([\w.]+\.html#[^)]+)', r'](page:\1', line) # `page:` is an address that Sphinx leaves as it is
    line = re.sub(rf'\]\({re.escape(site)}(?:([\w.]+)\.html)?\)', lambda m: f'](<{m[1] or "index"}.ipynb>)', line)
    return re.sub(r'\]\((?![a-z]+:)([\w.]+\.ipynb)', lambda m: f']({page_name(m[1])}.ipynb', line)

def local_links(md, page):
    "Links and pictures of a page of the site; code between fences stays as it is"
    lines,fence = md.splitlines(),False
    for i,o in enumerate(lines):
        fence ^= o.lstrip().startswith('```')
        if not fence: lines[i] = rewrite(o, page)
    return '\n'.join(lines)
