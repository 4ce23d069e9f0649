"Build the documentation site into _docs: nbdev processes the notebooks, `pages` makes them MyST, Sphinx renders them, links are checked"
import json,os,re,shutil,sys,warnings
from pathlib import Path
warnings.filterwarnings("ignore", category=FutureWarning, module="torch") # of fastai's imports
from nbdev.doclinks import NbdevLookup
from nbdev.serve import proc_nbs
from sphinx.cmd.build import main as sphinx
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import check,pages
from entries import root
from links import local_links,page_name

proc,src,out = root/'_proc',root/'_proc/.pages',root/'_docs'
LAYERS = {0: 'Conventions and tables', 3: 'Data', 20: 'Models and losses', 40: 'Ranking and evaluation', 50: 'Learner and recommendations',
          60: 'Bundles and services', 70: 'Command line'} # the number of a notebook from which on
TOP = {'start': 'Start', 'tutorials': 'Tutorials', 'guides': 'Guides', 'api': 'API', 'benchmarks': 'Results', 'gallery': 'Gallery',
       'design': 'Design', 'changelog': 'Changelog'}

def write(path, text):
    "Only what is new, so that Sphinx reads only that again"
    if path.exists() and path.read_text(encoding='utf-8')==text: return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding='utf-8')

def head(nb):
    "Title and subtitle of a page"
    lines = nb['cells'][0]['source'].splitlines()
    title = re.sub('^(Tutorial|Guide): ', '', lines[0][2:])
    return title.removeprefix('recfast.') if title.startswith('recfast.') else title[0].upper()+title[1:],lines[-1]

def contents(names, nbs, hidden=False, caption=''):
    "A table of contents, and where it is not hidden, cards for its pages"
    toc = '\n'.join(f'{head(nbs[o])[0]} <{o}>' for o in names)
    text = '```{toctree}\n:hidden:\n'+(f':caption: {caption}\n' if caption else '')+f'\n{toc}\n```'
    if hidden: return text
    cards = '\n'.join(f':::{{grid-item-card}} {head(nbs[o])[0]}\n:link: {o}\n:link-type: doc\n{head(nbs[o])[1]}\n:::' for o in names)
    return f'{text}\n\n::::{{grid}} 1 1 2 2\n:gutter: 3\n\n{cards}\n::::'

def changelog(nbs):
    "CHANGELOG.md, and below it in the menu the page that tells of the last one"
    text = NbdevLookup().linkify((root/'CHANGELOG.md').read_text(encoding='utf-8'))
    return f"{local_links(text, 'changelog')}\n\n{contents(['changes'], nbs)}"

def layer(file):
    "The title under which a notebook stands by its number"
    return LAYERS[max(o for o in LAYERS if o<=int(file[:2]))]

def sections(nbs, files):
    "The pages that list others"
    by = lambda pattern: [name for name,file in files.items() if re.match(pattern, file)]
    of_layer = lambda title: [name for name in by('[0-7]') if layer(files[name])==title]
    api = '\n\n'.join(f'## {o}\n\n{contents(of_layer(o), nbs, caption=o)}' for o in LAYERS.values())
    return {'tutorials': f'# Tutorials\n\n{contents(by("8"), nbs)}', 'guides': f'# Guides\n\n{contents(by("9.*guide"), nbs)}',
            'api': f'# API\n\n{{.lead}}\nEvery public name, by layer: a module imports only from those above it\n\n{api}',
            'changelog': changelog(nbs)}

def read(path): return json.loads(path.read_text(encoding='utf-8'))

def main():
    os.chdir(root)
    proc_nbs(n_workers=2)
    files = {page_name(p): p.name for p in sorted(proc.glob('*.ipynb'))}
    written = {name: read(root/'nbs'/file) for name,file in files.items()}
    nbs = {name: pages.page(read(proc/file), name, pages.exported_module(written[name]), written[name]['cells']) for name,file in files.items()}
    lists = sections(nbs, files)
    nbs['start']['cells'].append(dict(pages.md_cell(contents([o for o in nbs if o.startswith('from_')], nbs, hidden=True)), id='contents'))
    toc = '\n'.join(f'{title} <{o}>' for o,title in TOP.items())
    nbs['index']['cells'].append(dict(pages.md_cell(f'```{{toctree}}\n:hidden:\n\n{toc}\n```'), id='contents'))
    for name,nb in nbs.items(): write(src/f'{name}.ipynb', json.dumps(nb, ensure_ascii=False, indent=1))
    for name,text in lists.items(): write(src/f'{name}.md', text)
    write(src/'sources.json', json.dumps(files))
    for o in [*src.glob('*.ipynb'),*out.glob('*.html')]: # pages that are no more
        if o.stem not in (*nbs,*lists,'search','genindex'): o.unlink()
    for o in ('docs/images','nbs/images'): shutil.copytree(root/o, src/'images', dirs_exist_ok=True)
    if failed := sphinx(['-W','--keep-going','-q','-c',str(root/'docs'),'-d',str(src/'.doctrees'),str(src),str(out)]):
        shutil.rmtree(src/'.doctrees') # else the next build would not warn again
        return failed
    for name,nb in nbs.items(): write(out/f'{name}.html.md', pages.markdown(nb))
    for o in check.dead(out): print('dead link:', o, file=sys.stderr); failed = 1
    if not failed: (src/'built').touch()
    return failed

if __name__=='__main__': sys.exit(main())
