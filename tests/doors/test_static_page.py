"A page that is one file: the lists of Python, no request, no row of anybody; by keyboard, at the width of a phone"
import base64
import re

import numpy as np
import pytest

pytest.importorskip('playwright')
from playwright.sync_api import expect

from helpers import DESKTOP, PHONE, fit, fit_one_cycle, needs_browser, taste_clicks
from recfast.core import RecfastError
from recfast.data.catalogues import movie_night_films
from recfast.data.datasets import movie_night
from recfast.data.features import Features
from recfast.data.loaders import CollabDataLoaders
from recfast.learner import collab_learner
from recfast.losses import BPRLoss, SoftmaxLoss
from recfast.models.dot import DotProduct, DotProductBias
from recfast.models.ials import IALS
from recfast.models.knn import ItemKNN
from recfast.models.linear import EASE, Popularity
from recfast.models.rules import SequentialRules
from recfast.models.two_speed import TwoSpeedRidge
from recfast.static_page import page_model, write_page

SECRET = 'person-{:04d}-of-nobodys-business'
NIGHT = movie_night().assign(user_id=lambda d: d.user_id.map(SECRET.format))

def clicks(**kwargs): return CollabDataLoaders.implicit_from_df(NIGHT, **{'n_neg': 0, 'item_name': 'title', 'seed': 42, 'bs': 512, **kwargs})
def rated(): return CollabDataLoaders.from_df(NIGHT, item_name='title', seed=42, bs=512)
def ordered(): return CollabDataLoaders.sequences_from_df(taste_clicks().assign(timestamp=range(2400)).sort_values('user_id'), seed=42, time_name='timestamp')
def solved(dls, arch, **kwargs): return fit(collab_learner(dls, arch=arch, **kwargs), 1)

MODELS = dict(
    ease=lambda: solved(clicks(), EASE),
    knn=lambda: solved(clicks(), ItemKNN),
    rules=lambda: solved(ordered(), SequentialRules),
    two_speed=lambda: solved(ordered(), TwoSpeedRidge),
    dot=lambda: fit_one_cycle(collab_learner(rated(), n_factors=8, y_range=(0,5.5)), 3, wd=.1),
    no_bias=lambda: fit_one_cycle(collab_learner(rated(), n_factors=8, arch=DotProduct), 3, wd=.1),
    softmax=lambda: fit_one_cycle(collab_learner(clicks(), n_factors=8, arch=DotProductBias, loss_func=SoftmaxLoss()), 3, wd=.1),
    ials=lambda: solved(clicks(), IALS, n_factors=8),
)

def histories(rec, n=50):
    "What n trained people met, up to twelve items each, in the order they met them"
    users = rec.known_ids()[:n].tolist()
    rows = rec.train.frame()
    user,item = rec.train.columns[:2]
    found = []
    for _,mine in rows[rows[user].isin(users)].groupby(user, sort=False): found.append(mine.iloc[:12])
    return found,item

def overlap(a, b): return len(set(a)&set(b))/max(1, len(b))

@needs_browser
@pytest.mark.slow
@pytest.mark.parametrize('name', MODELS)
def test_the_lists_are_those_of_python(visit, tmp_path, name):
    rec = MODELS[name]().recommender
    page = visit(write_page(rec, tmp_path).as_uri())
    people,item = histories(rec)
    scale = name in ('dot','no_bias')
    told = [dict(zip(o[item], o.rating)) if scale else o[item].tolist() for o in people]
    asked = [{'k': 10, **({'history': [{'item_id': str(i), 'rating': r} for i,r in o.items()]} if scale else
        {'session': [str(i) for i in o]} if name in ('rules','two_speed') else {'history': [{'item_id': str(i), 'rating': 1} for i in o]})} for o in told]
    here = page.evaluate("async all => Promise.all(all.map(o => answer('recommend', o)))", asked)
    wanted = [rec.recommend(history=o, k=10) for o in told]
    shares = [overlap([r['item_id'] for r in got], want.item_id.astype(str).tolist()) for got,want in zip(here, wanted)]
    assert len(shares)==50 and np.mean(shares)>=.95
    if name in ('ease','knn'): return # of fewer neighbours than there are items
    scores = [dict(zip(w.item_id.astype(str), w.score)) for w in wanted]
    off = [abs(r['score']-s[r['item_id']])/(1+abs(s[r['item_id']])) for got,s in zip(here, scores) for r in got if r['item_id'] in s]
    assert max(off)<2e-3

def test_nothing_of_anybody_is_inside(tmp_path):
    learn = MODELS['dot']()
    text = write_page(learn, tmp_path).read_text(encoding='utf-8')
    assert 'nobodys-business' not in text and 'nobodys-business' in str(learn.dls.classes['user_id'][1])
    table = learn.model.u_weight.weight.detach().numpy().astype('<f4')
    inside = [base64.b64decode(o) for o in re.findall(r'"data":"([^"]*)"', text)]
    assert len(inside)>5 and not any(row.tobytes() in o or row.astype('<f8').tobytes() in o for o in inside for row in table[1:])

@pytest.mark.parametrize('learn,said', [
    (lambda: solved(clicks(), Popularity), 'cannot hold Popularity'),
    (lambda: collab_learner(clicks(n_neg=2), n_factors=4, arch=DotProductBias, loss_func=BPRLoss()), 'DotProductBias under BPRLoss'),
    (lambda: collab_learner(rated(), n_factors=4, arch=DotProduct, config=dict(cosine=True)), 'with cosines')])
def test_what_a_page_cannot_hold_is_said(learn, said):
    with pytest.raises(RecfastError, match=said): page_model(learn().recommender)

def test_a_page_too_large_is_refused(tmp_path, monkeypatch):
    learn = MODELS['ease']()
    monkeypatch.setattr('recfast.static_page.MOST_BYTES', 50_000)
    with pytest.raises(RecfastError, match='0 MB is the most'): write_page(learn, tmp_path)
    assert list(tmp_path.iterdir())==[]

EVIL = '</script><img src=x onerror="document.title=1">{data}'
def test_lists_far_from_those_of_the_model_are_said(tmp_path, monkeypatch):
    learn = solved(clicks(), EASE)
    monkeypatch.setattr('recfast.static_page._most_neighbours', lambda *_: 3)
    with pytest.warns(UserWarning, match=r'of this page share \d+% of their ten best with those of the model'): write_page(learn, tmp_path)

@pytest.fixture(scope='module')
def shop():
    "Films with names, one of which is markup, and a picture"
    films = movie_night_films()
    films['title'] = films.title.where(films.item_id!=films.item_id.iloc[3], EVIL)
    films['poster'] = 'data:image/gif;base64,R0lGODlhAQABAAAAACw='
    what = Features(films, multi={'genres': '|'}, show=['title','poster'])
    dls = CollabDataLoaders.implicit_from_df(movie_night(), n_neg=0, items=what, seed=42)
    return solved(dls, EASE).recommender

@needs_browser
@pytest.mark.slow
@pytest.mark.parametrize('viewport,scheme', [(DESKTOP,'light'),(PHONE,'dark')])
def test_by_keyboard_and_on_a_phone(visit, tmp_path, shop, viewport, scheme):
    page = visit(write_page(shop, tmp_path, picture='poster', word='film').as_uri(), viewport=viewport, color_scheme=scheme)
    asked = []
    page.on('request', lambda r: asked.append(r.url))
    expect(page.locator('#start button')).to_have_count(12)
    for _ in range(4):
        if page.evaluate("document.activeElement.id=='q'"): break
        page.keyboard.press('Tab')
    page.keyboard.type('onerror')
    page.get_by_role('option').first.wait_for()
    page.keyboard.press('ArrowDown')
    page.keyboard.press('Enter')
    expect(page.locator('#recs > li')).to_have_count(10)
    assert page.locator('#rated .title').inner_text()==EVIL and page.locator('#rated img').count()==1
    item = shop.items.index[3]
    names = dict(zip(movie_night_films().item_id, movie_night_films().title))
    want = [names[o] for o in shop.recommend(history=[item], k=10, cold_items=False, show=False).item_id]
    assert overlap(page.locator('#recs .title').all_inner_texts(), want)>=.9
    page.get_by_role('button', name=re.compile('^Films similar')).first.click()
    page.locator('.near button').first.wait_for()
    page.locator('#only select').first.select_option(index=1)
    page.locator('.why').first.wait_for()
    assert page.evaluate('document.documentElement.scrollWidth<=innerWidth') and page.title()=='What next?'
    assert [o for o in asked if not o.startswith('data:')]==[]
