"The page in a real browser: search, rate, read why; by mouse, by keyboard, at the width of a phone"
import re

import numpy as np
import pandas as pd
import pytest
import torch

pytest.importorskip('fastapi')
pytest.importorskip('playwright')
from playwright.sync_api import expect

from helpers import DESKTOP, PHONE, fit, needs_browser, served, thread_server, without_progress
from recfast.data.catalogues import movie_night_films
from recfast.data.datasets import movie_night
from recfast.data.features import Features
from recfast.data.loaders import CollabDataLoaders
from recfast.learner import collab_learner
from recfast.models.linear import EASE
from recfast.models.rules import SequentialRules
from recfast.models.svdpp import SVDpp
from recfast.ordinal import likely_ranges
from recfast.page_items import words_for
from recfast.serve import make_app

pytestmark = [needs_browser, pytest.mark.slow]
@pytest.fixture(scope='module')
def learn(): return served(movie_night(), item_name='title', valid_pct=0.1)

@pytest.fixture(scope='module')
def url(learn):
    with thread_server(make_app(learn.recommender)) as at: yield at

def pick(page, title):
    page.get_by_role('combobox', name=re.compile('^Search by')).fill(title)
    page.get_by_role('option', name=title).first.click()

def titles(page, where='#recs'): return [o.strip() for o in page.locator(f'{where} .title').all_inner_texts()]
def shown(page, n): expect(page.locator('#status')).to_contain_text(f'{n} titles, from')
def lists(page, want): expect(page.locator('#recs .title')).to_have_text(want) # waits for it

def liked(learn, n=3): return learn.recommender.train.frame().groupby('title').rating.mean().sort_values().index[-n:].tolist()
def stars(page, title, n): page.get_by_role('group', name=f'Your rating of {title}').get_by_label(f'{n} of 5').check()
def wanted(learn, history): return learn.recommend(history=history, k=10).item_id.tolist()

@pytest.mark.parametrize('viewport, scheme', [(DESKTOP,'light'),(PHONE,'dark')])
def test_search_rate_three_and_see_ten(visit, url, learn, viewport, scheme):
    page,films = visit(url, viewport=viewport, color_scheme=scheme),liked(learn)
    for f in films: pick(page, f)
    stars(page, films[0], 2)
    want = wanted(learn, {films[0]: 2, films[1]: 5, films[2]: 5})
    lists(page, want)
    assert titles(page, '#rated')==films[::-1] and titles(page)==want
    assert page.evaluate('document.documentElement.scrollWidth<=innerWidth')
    page.get_by_role('button', name=f'Titles similar to {want[0]}').click()
    page.locator('.near button').first.wait_for()
    assert page.locator('.near button').all_inner_texts()==learn.similar_items(want[0], k=6).item_id.tolist()

def test_the_map_of_the_page(visit, url, learn):
    page,title = visit(url),liked(learn)[-1]
    page.locator('#map a').click()
    page.wait_for_function('map.frames>0')
    page.locator('#q').fill(title)
    page.keyboard.press('ArrowDown')
    page.keyboard.press('Enter')
    expect(page.locator('#about h2')).to_have_text(title)
    assert page.locator('#about li').all_inner_texts()==learn.similar_items(title, k=8).item_id.tolist()

def test_the_page_says_why(visit, url, learn):
    page,films = visit(url),liked(learn)
    for f in films: pick(page, f)
    stars(page, films[0], 1)
    page.locator('.why', has_text='because you').first.wait_for()
    shown(page, 10)
    why = page.locator('.why').all_inner_texts()
    assert len(why)>5 and all(re.match('because you (liked|did not like) ', o) and any(f in o for f in films) for o in why)

def test_by_keyboard_alone(visit, url, learn):
    page,(film,*_) = visit(url),liked(learn, 1)
    press = page.keyboard.press
    for _ in range(10):
        press('Tab')
        if page.evaluate("document.activeElement.id=='q'"): break
    page.keyboard.type(film[:-7], delay=5)
    page.get_by_role('option', name=film).first.wait_for()
    press('ArrowDown')
    assert page.get_by_role('option').first.get_attribute('aria-selected')=='true'
    assert page.locator('#q').get_attribute('aria-activedescendant')=='hit0'
    press('Enter')
    shown(page, 10)
    assert titles(page, '#rated')==[film] and titles(page)==wanted(learn, {film: 5})
    press('Tab') # the stars
    press('ArrowLeft')
    lists(page, wanted(learn, {film: 4}))
    press('Tab')
    press('Enter') # the cross
    page.locator('#recs > li').first.wait_for(state='detached')
    assert titles(page, '#rated')==[] and page.evaluate("document.activeElement.id=='q'")

def test_search_finds_nothing_and_escape_closes(visit, url):
    page = visit(url)
    page.get_by_role('combobox').fill('no such title anywhere')
    page.get_by_text('No title has these words').wait_for()
    page.keyboard.press('Escape')
    assert page.locator('#found').is_hidden() and page.get_by_role('combobox').get_attribute('aria-expanded')=='false'

EVIL = '<img src=x onerror="document.title=1"><script>document.title=2</script> & {model}'
def test_titles_are_text_and_never_markup(visit):
    df = movie_night()
    df['title'] = df.title.where(df.title!=df.title.value_counts().index[0], EVIL)
    with thread_server(make_app(served(df, item_name='title', valid_pct=0).recommender)) as at:
        page = visit(at)
        pick(page, EVIL)
        shown(page, 10)
        assert titles(page, '#rated')==[EVIL] and page.title()=='recfast: what next?' and page.locator('#rated img, #rated script').count()==0
        page.get_by_role('button', name=f'Remove {EVIL}').click()

def test_a_token_is_asked_for_and_kept_by_the_page(visit, learn):
    with thread_server(make_app(learn.recommender, token='open sesame')) as at:
        page,(film,*_) = visit(at, expected=('401',)),liked(learn, 1)
        page.get_by_role('combobox').fill(film)
        page.get_by_label('This server asks for a token').fill('open sesame')
        page.keyboard.press('Enter')
        page.locator('#door').wait_for(state='hidden')
        pick(page, film)
        shown(page, 10)
        assert page.context.cookies()==[] and page.evaluate('localStorage.length+sessionStorage.length')==0

def test_a_scale_without_stars(visit):
    df = movie_night()
    df['rating'] = df.rating*10.-30 # -20 to 20
    learn = served(df, item_name='title', y_range=(-21,21))
    film = liked(learn, 1)[0]
    with thread_server(make_app(learn.recommender)) as at:
        page = visit(at)
        pick(page, film)
        shown(page, 10)
        page.get_by_role('slider', name=f'Your rating of {film}').fill('-25')
        score = learn.recommend(history={film: -25}, k=1).score[0]
        expect(page.locator('#recs .score').first).to_have_text(f'{score:.2f}')
        assert abs(score-learn.recommend(history={film: 20}, k=1).score[0])>0.1

def test_the_description_can_be_tried(visit, url, learn):
    page = visit(url+'/docs', viewport=PHONE)
    page.locator('summary').first.click()
    page.get_by_label('Body of /recommend').fill('{"user_ids": 7, "k": 1}')
    page.get_by_role('button', name='Send').first.click()
    page.get_by_text('200 OK').wait_for()
    assert learn.recommend(7, k=1).item_id[0] in page.locator('pre').first.inner_text()
    assert page.evaluate('document.documentElement.scrollWidth<=innerWidth')

def test_there_is_something_to_begin_with(visit, url, learn):
    page = visit(url)
    counts = learn.recommender.train.frame().title.value_counts()
    buttons = page.locator('#start button')
    expect(buttons).to_have_count(12)
    assert set(buttons.all_inner_texts())<=set(counts.index[counts>=counts.iloc[11]])
    film = buttons.first.inner_text()
    buttons.first.click()
    shown(page, 10)
    assert titles(page, '#rated')==[film] and titles(page)==wanted(learn, {film: 5}) and page.locator('#start').is_hidden()
    page.get_by_role('button', name=f'Remove {film}').click()
    page.locator('#start').wait_for(state='visible')

def test_stars_stay_within_the_scale(visit):
    learn = served(movie_night(), item_name='title', y_range=(0,7))
    with torch.no_grad(): learn.model.i_bias.weight += 6
    film = liked(learn, 1)[0]
    top = learn.recommend(history={film: 5}, k=1).score[0]
    with thread_server(make_app(learn.recommender)) as at:
        page = visit(at)
        pick(page, film)
        shown(page, 10)
        assert top>5.5 and {o for o in page.locator('#recs .score').all_inner_texts()}=={'5.00'}
        expect(page.locator('#status')).to_contain_text('the rating the model expects')

def test_a_model_of_levels_says_where_a_rating_likely_lies(visit):
    dls = CollabDataLoaders.from_df(movie_night(), item_name='title', seed=42)
    learn = without_progress(collab_learner(dls, arch=SVDpp))
    with learn.quiet(): learn.fit_one_cycle(1)
    with thread_server(make_app(learn.recommender)) as at:
        page,film = visit(at),liked(learn, 1)[0]
        pick(page, film)
        shown(page, 10)
        said = page.locator('#recs .score').all_inner_texts()
        assert page.evaluate('document.documentElement.scrollWidth<=innerWidth')
    found = [re.fullmatch(r'(\d\.\d\d), likely (\d\.\d) to (\d\.\d)', o) for o in said]
    ranges,want = likely_ranges(learn.model.finish),learn.recommend(history={film: 5}, k=10).score
    for o,score in zip(found, want):
        expected,low,high = map(float, o.groups())
        assert expected==pytest.approx(score, abs=.006) and low<expected<high
        assert [low,high]==pytest.approx([np.interp(score, ranges[:,0], ranges[:,i]) for i in (1,2)], abs=.07)

@pytest.mark.parametrize('column,words', [('movie_id',('movie','movies')), ('sku',('sku','skus')), ('itemId',('item','items')), ('id',('item','items')),
    ('category',('category','categories')), ('series',('series','series')), ('7',('item','items'))])
def test_items_go_by_the_name_of_their_column(column, words):
    learn = served(movie_night()[:4000].rename(columns=dict(title=column)), item_name=column)
    assert words_for(learn.recommender)==words

def test_a_shop_speaks_of_its_own_things(visit):
    clicks = CollabDataLoaders.implicit_from_df(movie_night().rename(columns=dict(title='product_id')), item_name='product_id', bs=512, seed=1)
    learn = fit(collab_learner(clicks, arch=EASE), 1)
    film = clicks.train_ds.frame().product_id.value_counts().index[0]
    with thread_server(make_app(learn.recommender)) as at:
        page = visit(at)
        assert 'Search by product' in page.locator('label').all_inner_texts() and 'products' in page.locator('header p').inner_text()
        pick(page, film)
        expect(page.locator('#status')).to_contain_text('10 products, from 1 rating; on the right, the score of the model')
        score = learn.recommend(history=[film], k=1).score[0]
        expect(page.locator('#recs .score').first).to_have_text(f'{score:.2f}')

NEW = list(range(281, 301))

@pytest.fixture(scope='module')
def films_with_genres():
    night = movie_night()
    what = Features(movie_night_films().assign(in_stock=lambda d: d.item_id%5>0), multi={'genres': '|'}, cont='year')
    dls = CollabDataLoaders.implicit_from_df(night[~night.item_id.isin(NEW)], n_neg=0, valid_pct=0, seed=0, items=what)
    return fit(without_progress(collab_learner(dls, arch=EASE)), 1)

@pytest.mark.parametrize('viewport', [DESKTOP,PHONE])
def test_only_what_is_of_a_kind(visit, films_with_genres, viewport):
    learn = films_with_genres
    with thread_server(make_app(learn.recommender)) as at:
        page = visit(at, viewport=viewport)
        page.get_by_label('genres').select_option('Comedy')
        pick(page, '7')
        of_page = int(titles(page, '#rated')[0])
        best = lambda **where: [str(o) for o in learn.recommend(history=[of_page], k=10, where=where or None).item_id]
        lists(page, best(genres='Comedy'))
        page.get_by_label('in stock').select_option('no')
        lists(page, best(genres='Comedy', in_stock=False))
        for name in ('genres','in stock'): page.get_by_label(name).select_option('any')
        lists(page, best())
        assert page.evaluate('document.documentElement.scrollWidth<=innerWidth')

def test_a_new_film_says_what_it_is(visit, films_with_genres):
    learn = films_with_genres
    with thread_server(make_app(learn.recommender)) as at:
        page = visit(at)
        pick(page, '70')
        rows = learn.recommend(history=[int(titles(page, '#rated')[0])], k=10).item_id
        lists(page, [str(o) for o in rows])
        assert np.isin(rows, NEW).any()
        expect(page.locator('.why', has_text='new, because of genres: ')).to_have_count(int(np.isin(rows, NEW).sum()))

# what comes next

@pytest.mark.parametrize('viewport', [DESKTOP,PHONE])
def test_what_is_taken_in_order_says_what_comes_next(visit, viewport):
    walk = pd.DataFrame([(u,f'stop {(5*u+t)%12}') for u in range(30) for t in range(6)], columns=['user_id','stop']) # round a circle of twelve
    learn = fit(collab_learner(CollabDataLoaders.sequences_from_df(walk, item_name='stop', seed=0, bs=8), arch=SequentialRules), 1)
    taken,best = [],lambda: learn.recommend(history=taken, k=10).item_id.tolist()
    def take(page, name): taken.append(name); pick(page, name)
    with thread_server(make_app(learn.recommender)) as at:
        page = visit(at, viewport=viewport)
        expect(page.locator('#status')).to_have_text('Nothing yet: take something first.')
        for name in ('stop 3','stop 4','stop 7'): take(page, name)
        lists(page, best())
        assert titles(page)[0]=='stop 8' and titles(page, '#rated')==taken and page.locator('#rated fieldset').count()==0
        expect(page.locator('#status')).to_contain_text('from 3 in order; on the right, the score of the model')
        expect(page.locator('.why').first).to_have_text(re.compile('^because of stop 7'))
        page.get_by_role('button', name='Remove stop 7').click()
        taken.pop()
        lists(page, best())
        page.get_by_role('button', name='Take stop 5', exact=True).click()
        take(page, 'stop 3') # again
        lists(page, learn.recommend(history=['stop 3','stop 4','stop 5','stop 3'], k=10).item_id.tolist())
        assert titles(page, '#rated')==['stop 3','stop 4','stop 5','stop 3'] and page.evaluate('document.documentElement.scrollWidth<=innerWidth')
        page.close() # before the server: it asks for matches while one types
