"A map that is one file: by mouse, by keyboard, on a phone; its neighbours are the model's, and it asks nobody"
import json
import re
from importlib.util import find_spec

import numpy as np
import pytest

pytest.importorskip('playwright')
from playwright.sync_api import expect

from helpers import DESKTOP, PHONE, fit_one_cycle, needs_browser
from recfast.core import RecfastError
from recfast.data.catalogues import movie_night_films
from recfast.data.datasets import movie_night
from recfast.data.features import Features
from recfast.data.loaders import CollabDataLoaders
from recfast.explore import map_places
from recfast.learner import collab_learner

NAMES = dict(zip(movie_night_films().item_id, movie_night_films().title))

@pytest.fixture(scope='module')
def learn():
    "A learner that knows what films are, and has no row of one of them"
    df = movie_night()
    what = Features(movie_night_films(), multi={'genres': '|'}, cont='year', show=['title'])
    dls = CollabDataLoaders.from_df(df[df.item_id!=7], items=what, bs=512, seed=42)
    return fit_one_cycle(collab_learner(dls, n_factors=8, y_range=(0,5.5)), 2, wd=.1)

def inside(path): return json.loads(re.search('<script type="application/json" id="data">(.*?)</script>', path.read_text(encoding='utf-8'), re.S)[1])

@pytest.fixture(scope='module')
def path(learn, tmp_path_factory): return learn.explore(tmp_path_factory.mktemp('map')/'map.html', history=learn.recommender.items.index[:3].tolist(), by='pca', word='film')

def test_what_is_drawn(learn, path):
    data = inside(path)
    trained = learn.recommender.known('item')[1:]
    ids = learn.recommender.items.index[trained]
    assert data['titles']==[NAMES[o] for o in ids] and NAMES[7] not in data['titles']
    assert [data['titles'][i] for i in data['history']]==[NAMES[o] for o in learn.recommender.items.index[:3]]
    lists = learn.recommend(history=learn.recommender.items.index[:3].tolist(), k=10, cold_items=False, show=False)
    assert {data['titles'][i] for i in data['next']}<={NAMES[o] for o in lists.item_id} and len(data['next'])>=9
    assert [o['name'] for o in data['colours']][:2]==['how often met','bias'] and {'genres','year'}<={o['name'] for o in data['colours']}

@needs_browser
@pytest.mark.slow
@pytest.mark.parametrize('viewport,scheme', [(DESKTOP,'light'),(PHONE,'dark')])
def test_walking(visit, learn, path, viewport, scheme):
    page = visit(path.as_uri(), viewport=viewport, color_scheme=scheme)
    page.wait_for_function('map.frames>0')
    film = learn.recommender.items.index[4]
    page.locator('#q').fill(NAMES[film])
    page.keyboard.press('ArrowDown')
    page.keyboard.press('Enter')
    expect(page.locator('#about h2')).to_have_text(NAMES[film])
    near = [NAMES[o] for o in learn.similar_items(film, k=8, show=False).item_id]
    assert page.locator('#about li').all_inner_texts()==near
    before = page.evaluate('({...map.view})')
    assert before['zoom']>=6
    page.locator('#top').focus()
    for key in ('ArrowLeft','+'): page.keyboard.press(key)
    page.mouse.move(viewport['width']/2, viewport['height']/2)
    page.mouse.wheel(0, -200)
    page.wait_for_function(f"map.view.zoom>{before['zoom']*1.5}")
    assert page.evaluate('map.view.x')!=before['x']
    page.keyboard.press('Home')
    page.wait_for_function('map.view.zoom==1')
    page.keyboard.press('Escape')
    assert page.locator('#about').is_hidden()
    page.locator('#colour').select_option(label='genres')
    assert page.locator('#key span').count()>3
    assert page.evaluate('document.documentElement.scrollWidth<=innerWidth')

def test_places_do_not_depend_on_units():
    x = np.random.default_rng(0).normal(size=(200,4)).astype(np.float32)
    assert np.allclose(map_places(x), map_places(100*x+3), atol=1e-3) and map_places(x[:,:1]).shape==(200,2)

@pytest.mark.skipif(find_spec('umap') is not None, reason='umap-learn is there')
def test_umap_where_it_is_not_installed():
    with pytest.raises(RecfastError, match='pip install umap-learn'): map_places(np.eye(4), 'umap')
