"A contest: each model at its best, chosen on training rows only, all measured once on the same rows"
import functools
import warnings

import numpy as np
import pandas as pd
import pytest

from recfast import choice
from recfast.contest import contest, contestants
from recfast.core import NeedsMemoryError, RecfastError
from recfast.data.datasets import movie_night
from recfast.recipes import Shape, grid, words
from recfast.train import ArgumentError

def blocks(n_users=60, n_items=40, n_rows=10, seed=0):
    "Clicks of two kinds of people, each with a half of the items: who has neighbours knows which"
    rs = np.random.RandomState(seed)
    rows = [(u,i) for u in range(n_users) for i in 2*rs.choice(n_items//2, n_rows, replace=False)+u%2]
    return pd.DataFrame(rows, columns=['user_id','item_id'])

def quiet_contest(*args, **kwargs):
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        return contest(*args, **{'budget': 600, **kwargs})

@pytest.fixture(scope='module')
def films(): return quiet_contest(movie_night(), ['ease','popularity'], item_name='title', k=5)

def test_a_model_that_can_know_wins():
    found = quiet_contest(blocks(), ['popularity','itemknn','ease'], k=5)
    t = found.comparison.table['mean']
    assert t.index[-1]=='popularity' and t.iloc[0]>1.5*t['popularity'] and set(found.learners)=={'popularity','itemknn','ease'}

def test_ease_is_above_popularity_beyond_its_interval(films):
    t = films.comparison.table
    assert t.index.tolist()==['ease','popularity'] and t.loc['ease','low']>t.loc['popularity','high'] and films.comparison.metric=='ndcg@5'
    assert 'test rows' in films.comparison.protocol and films.learners['ease'].recommend(k=1).item_id.notna().all()

def test_what_was_tried_says_settings_seconds_and_choice(films):
    tried = films.tried
    assert list(tried)==['model','settings','ndcg@10','seconds','chosen','note'] and tried.groupby('model').chosen.sum().eq(1).all()
    ease = tried[tried.model=='ease']
    assert len(ease)>1 and ease['ndcg@10'][ease.chosen].item()==ease['ndcg@10'].max() and ease.seconds.gt(0).all()

def test_the_held_out_rows_choose_nothing():
    df = blocks()
    same = quiet_contest(df, ['itemknn','ease'], split='last')
    other = df.copy()
    last = other.groupby('user_id').tail(1).index
    other.loc[last,'item_id'] = np.random.RandomState(1).permutation(other.item_id[last].to_numpy()) # other rows to be found
    moved = quiet_contest(other, ['itemknn','ease'], split='last')
    pd.testing.assert_frame_equal(same.tried.drop(columns='seconds'), moved.tried.drop(columns='seconds'))
    pd.testing.assert_frame_equal(same.learners['ease'].recommend(k=3), moved.learners['ease'].recommend(k=3))
    assert not same.comparison.table.equals(moved.comparison.table)

def test_the_same_seed_gives_the_same_table():
    a,b = (quiet_contest(blocks(), 'softmax,bpr', seed=3).comparison.table for _ in range(2))
    pd.testing.assert_frame_equal(a, b)

def test_auto_is_a_contestant():
    found = quiet_contest(blocks(), ['auto','itemknn'])
    assert set(found.comparison.table.index)=={'auto','itemknn'} and len(found.learners['auto'].choice)
    assert {'EASE','Popularity'}<=set(found.tried.settings[found.tried.model=='auto'])

@pytest.mark.parametrize('archs,says', [('ease,netflix', "'netflix': there are auto, popularity, ease"), ([], 'there are auto'), (['sasrec'], 'there are auto'),
    ('ease,EASE', "'ease' is named twice"), ('spectral,spectralfilter', "'spectral' is named twice")])
def test_what_is_no_contestant_is_refused(archs, says):
    with pytest.raises(ArgumentError, match=says): contestants(archs)

def test_nothing_held_out_is_refused():
    with pytest.raises(ArgumentError, match='nothing is held out'): quiet_contest(blocks(), ['ease'], valid_pct=0)

def refuses(arch):
    "`cook` of a machine that has no memory for a model"
    @functools.wraps(choice.cook)
    def cook(recipe, *args, _cook=choice.cook, **kwargs):
        if recipe.arch==arch: raise NeedsMemoryError(f'{arch} needs 9 GB')
        return _cook(recipe, *args, **kwargs)
    return cook

def test_a_model_without_memory_is_left_out_and_the_others_go_on(monkeypatch):
    monkeypatch.setattr(choice, 'cook', refuses('ease'))
    found = quiet_contest(blocks(), ['ease','itemknn'])
    assert list(found.learners)==['itemknn'] and '9 GB' in found.left_out['ease'] and 'left out: ease' in repr(found)
    with pytest.raises(RecfastError, match='no model could be trained.*9 GB'): quiet_contest(blocks(), ['ease'])

def test_progress_tells_who_is_tried():
    seen = []
    quiet_contest(blocks(), ['popularity','itemknn'], progress=lambda word, share: seen.append((word,round(share, 3))))
    assert seen[0]==('popularity',0) and seen[-1]==('itemknn',1) and [o for _,o in seen]==sorted(o for _,o in seen)

def test_lists_go_by_title_and_mark_what_was_held_out():
    df = blocks()
    df['title'] = [f'film {o}' for o in df.item_id]
    found = quiet_contest(df, ['ease','itemknn'])
    shown = found.lists(0, k=4)
    assert list(shown)==['rank',*found.comparison.table.index,'known'] and shown.known.str.match(r'film \d+$').all()
    train,valid = (set(o.frame().query('user_id==0').item_id) for o in found.rows)
    for o in shown['ease']:
        item = int(o.split()[1])
        assert item not in train and o.endswith('*')==(item in valid)

def test_nothing_given_is_changed():
    df = blocks()
    before = df.copy()
    quiet_contest(df, ['itemknn'])
    pd.testing.assert_frame_equal(df, before)

@pytest.mark.parametrize('word', words())
def test_a_grid_has_names_of_its_own(word):
    recipes = grid(word, Shape(100, 50, 2000))
    assert recipes and len({o.name for o in recipes})==len(recipes) and all(o.name.startswith(word) for o in recipes)

@pytest.mark.slow
@pytest.mark.parametrize('word', words())
def test_every_word_can_be_compared(word):
    found = quiet_contest(blocks(), [word])
    assert list(found.comparison.table.index)==[word] and 0<=found.comparison.table['mean'].item()<=1
