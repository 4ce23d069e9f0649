"The documentation site: built without a warning, every public name in it, every link alive, every page at home in a browser"
import contextlib
import functools
import http.server
import importlib
import json
import os
import pkgutil
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pandas as pd
import pytest

pytest.importorskip('sphinx')
pytest.importorskip('playwright')
import recfast
from recfast.data.datasets import movie_night
from helpers import DESKTOP, PHONE, needs_browser

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
URL = 'https://recfast.github.io/recfast/'
OUT = ROOT/'_docs'
sys.path.insert(0, str(ROOT/'docs'))
import build
import check
import pages
from links import local_links, page_name
from run_page import examples

NOTEBOOKS = sorted((ROOT/'nbs').glob('*.ipynb'))
TUTORIALS = [o for o in NOTEBOOKS if o.name.startswith('8')]
MODULES = [o.name for o in pkgutil.walk_packages(recfast.__path__, 'recfast.') if not o.ispkg and o.name.split('.')[-1] not in ('_modidx','all')]

def cells(path): return json.loads(path.read_text(encoding='utf-8'))['cells']
def make(): return subprocess.run([sys.executable, str(ROOT/'docs/build.py')], capture_output=True, text=True, encoding='utf-8', cwd=ROOT)

def changed(path): return path.stat().st_mtime
def made_of(): return [o for folder in ('nbs','recfast','docs') for o in (ROOT/folder).rglob('*.*') if '__pycache__' not in o.parts]+[ROOT/'CHANGELOG.md']

@pytest.fixture(scope='session')
def site():
    "The folder of the site, built where it is older than what it is made of"
    built = ROOT/'_proc/.pages/built'
    if OUT.exists() and built.exists() and max(map(changed, made_of()))<changed(built): return OUT
    res = make()
    assert res.returncode==0 and not re.search('warn', res.stderr, re.I), res.stderr
    return OUT

@pytest.fixture(scope='session')
def html(site): return {o.stem: check.read(o) for o in site.glob('*.html')}

@pytest.fixture
def at(site):
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args): pass
    server = http.server.ThreadingHTTPServer(('127.0.0.1',0), functools.partial(Quiet, directory=site))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f'http://127.0.0.1:{server.server_address[1]}'
    server.shutdown()
    server.server_close()

# the build
def test_a_second_build_writes_nothing_again(site):
    stamps = lambda: {o.name: o.stat().st_mtime_ns for o in site.glob('*.html')}
    before = stamps()
    assert make().returncode==0
    after = stamps()
    assert {k for k in before if before[k]!=after[k]}<={'genindex','search.html','genindex.html'}

def test_a_frame_has_its_text_to_the_left():
    html = pages.align_text(pd.DataFrame(dict(title=['Fargo','Heat'], score=[1.5,-2e-7])).to_html())
    assert html.count('class="text"')==3 and '<td class="text">Fargo</td>' in html and '<td>1.5' in html and '<th>score' in html

@pytest.mark.parametrize('text,shown', [('a\nb\n','a\nb'), ('█\repoch  loss\n█\r\rEpoch 1/2 |--\r0  0.5\n█\r','epoch  loss\n0  0.5'), ('█\r',''), ('50%\r100%','100%')])
def test_an_output_is_what_a_terminal_shows_in_the_end(text, shown): assert pages.as_on_a_screen(text)==shown

def test_every_notebook_is_a_page(html):
    assert {page_name(o) for o in NOTEBOOKS}<=set(html)

ADDRESSES = """core testing data.datasets data.ratings data.split data.sampling data.loaders data.implicit data.rows data.sequences models.base models.dot
    models.params models.ncf models.autorec models.sequence models.linear losses ranking metrics evaluate callbacks recommend interpret rerank learner
    tune bundle serve files report cli tutorial.movielens tutorial.scratch tutorial.dating tutorial.neural_cf tutorial.autorec tutorial.next_item
    tutorial.own_model tutorial.evaluation benchmarks start from_fastai from_implicit from_surprise guide.model guide.evaluation guide.cold_start
    guide.service gallery design index tutorials guides api changelog""".split()

def test_every_address_of_the_first_release_is_a_page(html): assert [o for o in ADDRESSES if o not in html]==[]

def test_a_room_stands_in_the_layer_of_its_number():
    assert [build.layer(o) for o in ('02_tables.ipynb','03_data.made.ipynb','30_models.knn.ipynb','58_learner.ipynb','71_cli.ipynb')]==[
        'Conventions and tables','Data','Models and losses','Learner and recommendations','Command line']

def test_every_room_is_listed_once(site):
    listed = re.findall(r'reference internal" href="([\w.]+).html"', (site/'api.html').read_text(encoding='utf-8').split('<article')[1].split('</article')[0])
    rooms = [page_name(o) for o in NOTEBOOKS if o.name[0] in '01234567']
    assert sorted(o for o in listed if o in rooms)==sorted(rooms) and len(rooms)>45

# names
def public(module):
    "What a module offers: the names of `__all__`, and the public methods that recfast defines on its classes"
    mod = importlib.import_module(module)
    yield from mod.__all__
    for name in mod.__all__:
        cls = getattr(mod, name)
        if isinstance(cls, type) and cls.__module__==module:
            for k,v in vars(cls).items():
                f = getattr(v, '__func__', getattr(v, 'fget', v))
                handed_over = getattr(f, '__qualname__', '').startswith('_as_verb') # to a method of the Recommender, which has the entry
                if k[0]!='_' and callable(f) and not isinstance(f, type) and getattr(f, '__module__', '').startswith('recfast') and f.__doc__: yield f'{"Recommender" if handed_over else name}.{k}'

def missing(module, html):
    "Public names of a module without an entry: its own on its page, methods on any (patches stand where they are made)"
    anywhere,here = set().union(*(o.ids for o in html.values())),html[module.removeprefix('recfast.')].ids
    return [o for o in public(module) if o.lower() not in (anywhere if '.' in o else here)]

@pytest.mark.parametrize('module', MODULES)
def test_every_public_name_has_an_entry(module, html): assert list(public(module)) and not missing(module, html)

def test_a_missing_entry_would_be_seen(html):
    gone = check.Page('')
    gone.ids = html['models.dot'].ids-{'dotproductbias','dotproduct.weight'}
    assert missing('recfast.models.dot', {**html, 'models.dot': gone})==['DotProductBias','DotProduct.weight']

def test_a_name_that_moved_has_its_entry_where_it_lives_and_a_line_where_it_was(site, html):
    text = (site/'models.linear.html').read_text(encoding='utf-8')
    assert 'href="models.knn.html#itemknn"' in text and 'class ItemKNN' not in re.sub('<[^>]+>', '', text)
    assert 'itemknn' in html['models.linear'].ids and 'class ItemKNN' in re.sub('<[^>]+>', '', (site/'models.knn.html').read_text(encoding='utf-8'))

def test_an_entry_says_what_goes_in_and_what_comes_out(site):
    text = re.sub('<[^>]+>', '', (site/'recommend.html').read_text(encoding='utf-8'))
    for o in ('# list length','raises UnknownIdError','Source','line'): assert o in text

def test_an_api_page_begins_with_what_one_calls(site):
    text = (site/'evaluate.html').read_text(encoding='utf-8').split('<article')[1]
    assert 'evaluate.html#evaluate_recommender' in text[:text.index('recfast-inside')]
    text = (site/'learner.html').read_text(encoding='utf-8').split('<article')[1]
    assert 'learner.html#collab_learner' in text[:text.index('<h2>')]

def test_what_tells_of_private_names_stands_below_a_fold(site):
    text = (site/'evaluate.html').read_text(encoding='utf-8').split('<article')[1]
    code = re.sub('<[^>]+>', '', text)
    assert '_full_names(' in code and '_Facts' in code and '_full_names(' not in re.sub('<[^>]+>', '', re.sub(r'(?s)<details.*?</details>', '', text))

@pytest.mark.parametrize('cells,want', [
    ([('m','## A'),('m','text'),('c','#| export\ndef _f(): pass'),('c','_f()'),('m','## B'),('c','x')], [1,2,3]),
    ([('m','text'),('c','#| export\ndef f(): pass'),('c','f()')], []),
    ([('m','why'),('c','#| export\n@patch\ndef _g(self:A): pass'),('c','1'),('m','more'),('c','#| export\n@patch\ndef g(self:A): pass')], [0,1,2]),
    ([('m','why'),('c','#| export\n@patch\ndef ask(self:_Facts): pass'),('m','that is it')], [0,1,2]),
    ([('m','both'),('c','#| export\n_A = 1\ndef f(): pass'),('c','f()')], []),
    ([('m','why'),('c','#| export\nimport os'),('c','x')], [])])
def test_the_inside_is_told_from_what_one_calls(cells, want):
    kinds = dict(m='markdown', c='code')
    assert pages.inside([dict(id=i, cell_type=kinds[k], source=o) for i,(k,o) in enumerate(cells)])==set(want)

def test_the_index_of_objects_can_be_linked_from_other_sites(site):
    from sphinx.util.inventory import InventoryFile
    inv = InventoryFile.loads((site/'objects.inv').read_bytes(), uri='').data
    assert 'recfast.models.dot.DotProductBias' in inv['py:class'] and 'recfast.collab.CollabLearner.evaluate' in inv['py:method']

# links
def test_no_link_is_dead(site): assert check.dead(site)==[]

def test_a_dead_link_would_be_seen(tmp_path):
    (tmp_path/'b.html').write_text('<h1 id="there">b</h1>', encoding='utf-8')
    (tmp_path/'a.html').write_text('<a href="b.html#there">1</a><a href="b.html#gone">2</a><a href="c.html">3</a><img src="p.png"><a href="https://x.org">4</a>', encoding='utf-8')
    assert check.dead(tmp_path)==['a.html: b.html#gone','a.html: c.html','a.html: p.png']

def test_no_id_stands_twice(site):
    for o in site.glob('*.html'):
        ids = re.findall(r'\sid="([^"]+)"', o.read_text(encoding='utf-8'))
        assert len(ids)==len(set(ids)), (o.name, [i for i in ids if ids.count(i)>1][:3])

def test_the_docstrings_and_llms_txt_point_to_pages_that_are_there(site):
    for module in MODULES:
        last = importlib.import_module(module).__doc__.strip().splitlines()[-1]
        assert (site/last.removeprefix('Docs: https://recfast.github.io/recfast/')).is_file(), last
    llms = (site/'llms.txt').read_text(encoding='utf-8')
    for url in re.findall(r'\((https://recfast[^)]+)\)', llms): assert (site/url.removeprefix('https://recfast.github.io/recfast/')).is_file(), url
    assert all(o in llms for o in MODULES) and 'collab_learner' in llms

@pytest.mark.parametrize('md,want', [
    ('see [models](23_models.dot.ipynb#dotproduct)', 'see [models](models.dot.ipynb#dotproduct)'),
    (f'[`EASE`]({URL}models.ease.html#ease)', '[`EASE`](page:models.ease.html#ease)'),
    (f'[`_put`]({URL}bundle.html#_put)', '`_put`'), # private: it has no entry
    (f'[`recommend`]({URL}cli.html#recommend)', '[`recommend`](page:recommend.html#recommender.recommend)'), # the verb, not the command
    ('[`solve`](https://docs.fast.ai/vision.augment.html#solve)', '`solve`'), # of another trade
    (f'[[`tune`]({URL}tune.html#tune)](57_tune.ipynb)', '[`tune`](tune.ipynb)'),
    ('`learn.evaluate(k=10)`', '[`learn.evaluate(k=10)`](page:collab.html#collablearner.evaluate)'),
    ('`recfast train --help`', '[`recfast train --help`](page:cli.html#train)'),
    ('`CollabDataLoaders.rows_from_df`, `implicit_from_df`, `recfast.metrics`', '`CollabDataLoaders.rows_from_df`, [`implicit_from_df`](page:data.implicit.html#collabdataloaders.implicit_from_df), [`recfast.metrics`](<metrics.ipynb>)'),
    ('`HOOKS`', '[`HOOKS`](page:models.base.html#hooks)'), # a constant
    ('`AutoRec`, `pd.Series`', '[`AutoRec`](page:models.autorec.html#autorec), [`pd.Series`](https://pandas.pydata.org/docs/reference/api/pandas.Series.html#pandas.Series)'),
    ('`ratings` and [the `x` of y](z.ipynb)', '`ratings` and [the `x` of y](z.ipynb)'),
    ('```python\nlearn.fit(1) # a `Learner`, `AutoRec`\n```', '```python\nlearn.fit(1) # a `Learner`, `AutoRec`\n```'),
    ('![p](https://raw.githubusercontent.com/recfast/recfast/main/nbs/images/p.png)', '![p](images/p.png)')], ids=lambda o: o[:20])
def test_a_link_of_a_notebook_becomes_one_of_the_site(md, want): assert local_links(md, 'start')==want

def test_no_page_shows_what_only_its_author_saw(site):
    for o in site.glob('*.html'):
        text = o.read_text(encoding='utf-8')
        for junk in ('site-packages','ipython-input','Traceback','IPython.core.display', str(ROOT)): assert junk not in text, (o.name, junk)

def test_names_lead_to_where_they_are_described(site):
    text = ''.join((site/f'{o}.html').read_text(encoding='utf-8') for o in ('start','guide.model','guide.service','callbacks','bundle','export'))
    for o in ('models.ease.html#ease','models.autorec.html#autorec','recommend.html#recommender.recommend','collab.html#collablearner.evaluate',
              'https://docs.fast.ai/learner.html#learner','https://pytorch.org/docs/'): assert f'href="{o}' in text, o

# Start and tutorials
@pytest.mark.parametrize('path', TUTORIALS, ids=lambda o: o.stem)
def test_a_tutorial_opens_in_colab_and_installs_recfast(path):
    first,code = cells(path)[0],next(c for c in cells(path) if c['cell_type']=='code')
    assert f'https://colab.research.google.com/github/recfast/recfast/blob/main/nbs/{path.name}' in ''.join(first['source'])
    assert ''.join(code['source']).startswith('#| eval: false') and 'pip install' in ''.join(code['source'])

def fenced(path):
    return [o for c in cells(path) for o in examples(c)]

@pytest.mark.parametrize('path', [o for o in NOTEBOOKS if fenced(o) and (o.stem[0] in '8i' or o.stem=='91_start')], ids=lambda o: o.stem)
def test_every_example_between_fences_runs(path, tmp_path): # cells are run by nbdev-test; here where the examples build on them
    here = tmp_path/'nbs'
    here.mkdir()
    if path.stem=='index': movie_night().query('user_id%4==0').rename(columns=dict(user_id='userId', item_id='movieId')).to_csv(here/'ratings.csv', index=False)
    env = dict(os.environ, PATH=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", MPLBACKEND='Agg')
    with open(tmp_path/'said.txt', 'w', encoding='utf-8') as said:
        proc = subprocess.Popen([sys.executable, str(ROOT/'tests/site/run_page.py'), str(path), *(['--cells'] if path.stem=='91_start' else [])], cwd=here, env=env, stdout=said, stderr=said, start_new_session=True)
        try: failed = proc.wait(300)
        finally: end_group(proc.pid) # and with it a server that a broken page has left
    assert not failed, (tmp_path/'said.txt').read_text(encoding='utf-8')[-3000:]

def end_group(pid):
    with contextlib.suppress(ProcessLookupError): os.killpg(pid, signal.SIGKILL)

def test_the_readme_has_only_absolute_links_and_one_picture():
    text = (ROOT/'README.md').read_text(encoding='utf-8')
    assert all(o.startswith('https://') for o in re.findall(r'\]\(([^)]+)\)', text))
    assert len(re.findall(r'!\[', text))==1

# in a browser
PAGES = [*(page_name(o) for o in NOTEBOOKS),'tutorials','guides','api','changelog','search','genindex']

CUT = "[...document.querySelectorAll('.bd-article div.highlight pre')].filter(o => !o.closest('.cell_output') && o.scrollWidth>o.clientWidth+1).map(o => o.innerText)"

@needs_browser
def test_every_page_loads_whole_fits_and_asks_nobody_else(at, visit):
    phone,desktop = (dict(o, height=100) for o in (PHONE,DESKTOP)) # what is asked is how wide a page is; what is not seen is not painted
    page = visit(f'{at}/index.html', viewport=phone)
    for name in PAGES:
        page.goto('about:blank') # else the page before is laid out once more
        page.set_viewport_size(phone)
        page.goto(f'{at}/{name}.html')
        page.evaluate('window.MathJax && MathJax.startup.promise')
        for size in (phone,desktop): # drawn at the width of a phone, then made wider
            if size is desktop: page.set_viewport_size(size)
            assert page.locator('h1').first.is_visible() or name=='genindex'
            wide = page.evaluate('document.documentElement.scrollWidth-document.documentElement.clientWidth')
            assert wide<=0, f'{name}: {wide} pixels too wide at {size["width"]}'
        assert page.evaluate(CUT)==[], f'{name}: code is cut at {DESKTOP["width"]}'
        assert page.evaluate('[...document.images].filter(o => !o.complete || !o.naturalWidth).map(o => o.src)')==[]

@needs_browser
@pytest.mark.parametrize('word,page_of_it', [('DotProductBias','models.dot.html'),('recommend','recommend.html'),('NDCG','metrics.html')])
def test_the_search_box_finds(at, visit, word, page_of_it):
    page = visit(f'{at}/index.html', viewport=DESKTOP)
    page.keyboard.press('Control+k')
    page.locator('dialog input[type=search], .search-button__search-container input[type=search]').first.fill(word)
    page.keyboard.press('Enter')
    page.wait_for_url('**/search.html*')
    page.wait_for_function("document.querySelector('#search-results p.search-summary')?.textContent.match(/found/)")
    found = page.locator('#search-results ul.search li a').evaluate_all('os => os.map(o => o.getAttribute("href"))')
    assert any(page_of_it in o for o in found[:5]), found[:5]
    page.wait_for_function("document.querySelectorAll('#search-results p.context').length>=5")
    excerpts = ' '.join(page.locator('#search-results p.context').all_inner_texts())
    assert '\\(' not in excerpts and '\\frac' not in excerpts # words, no source of formulas

@needs_browser
def test_dark_mode_follows_the_reader(at, visit):
    shade = lambda scheme: visit(f'{at}/start.html', color_scheme=scheme).evaluate('getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)[0]')
    assert shade('light')>200>60>shade('dark')

@needs_browser
def test_a_button_changes_the_shade(at, visit):
    page = visit(f'{at}/start.html', viewport=DESKTOP, color_scheme='light')
    page.locator('.theme-switch-button').first.click()
    page.get_by_text('Dark', exact=True).first.click()
    assert page.evaluate('document.documentElement.dataset.theme')=='dark'

@needs_browser
def test_formulas_are_drawn_and_code_can_be_copied(at, visit):
    page = visit(f'{at}/metrics.html', viewport=DESKTOP)
    page.wait_for_selector('mjx-container svg, mjx-container mjx-math')
    assert page.locator('mjx-merror').count()==0 and page.locator('button.copybtn').count()>10

@needs_browser
def test_the_menu_opens_on_a_phone(at, visit):
    page = visit(f'{at}/models.dot.html', viewport=PHONE)
    page.locator('button.primary-toggle').click()
    page.get_by_role('link', name='Tutorials').last.wait_for(state='visible')

def test_the_page_says_where_to_mend_it(site):
    assert 'github.com/recfast/recfast/edit/main/nbs/23_models.dot.ipynb' in (site/'models.dot.html').read_text(encoding='utf-8')
