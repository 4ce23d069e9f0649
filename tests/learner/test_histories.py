"One history of someone, from every form, under the names of training"
import numpy as np
import pandas as pd
import pytest
import torch

from recfast.core import RatingsError, UnknownIdError
from recfast.data.datasets import movie_night
from recfast.data.loaders import CollabDataLoaders
from recfast.files import parse_history as of_files, read_histories
from recfast.histories import encode_histories, encode_history, parse_history
from recfast.learner import collab_learner
from recfast.testing import synth_ratings

@pytest.fixture(scope='module')
def films():
    "A learner over titles whose table has a column `item_id` too"
    dls = CollabDataLoaders.from_df(movie_night(), item_name='title', bs=256, seed=1)
    learn = collab_learner(dls, n_factors=6, y_range=(0,5.5))
    with learn.quiet(): learn.fit_one_cycle(1, 5e-3)
    return learn

def shop():
    "Items are `sku`, ratings `stars`; `item_id` and `rating` are other things"
    rng = np.random.default_rng(0)
    df = pd.DataFrame(dict(user=rng.integers(0, 60, 2000), sku=rng.integers(0, 50, 2000), rating=3.))
    df['item_id'] = (df.sku*7+3)%50
    df['stars'] = np.where((df.user+df.sku)%2==0, 5, 1)
    return df

@pytest.fixture(scope='module')
def skus():
    dls = CollabDataLoaders.from_df(shop(), user_name='user', item_name='sku', rating_name='stars', seed=1, valid_pct=0)
    learn = collab_learner(dls, 8, y_range=(0,5.5))
    with learn.quiet(): learn.fit(2)
    return learn

def test_rows_of_the_training_frame_are_a_history(films):
    df = movie_night()
    mine = df[df.user_id==7]
    want = films.recommend(history=dict(zip(mine.title, mine.rating)), k=5)
    pd.testing.assert_frame_equal(films.recommend(history=mine, k=5), want.assign(user_id=7))

def test_they_are_explained_too(films):
    df = movie_night()
    mine = df[df.user_id==7]
    want = films.explain(history=dict(zip(mine.title, mine.rating)), k=2)
    pd.testing.assert_frame_equal(films.explain(history=mine, k=2), want)

def test_the_names_of_training_win_over_those_of_recfast(skus):
    mine = shop().query('user==7').drop_duplicates('sku')
    want = skus.recommend(history=dict(zip(mine.sku, mine.stars)), k=4)
    pd.testing.assert_frame_equal(skus.recommend(history=mine, k=4), want.assign(user_id=7))

def test_one_name_of_training_and_one_of_recfast(skus):
    mine = shop().query('user==7').drop_duplicates('sku')
    told = mine[['sku','stars']].rename(columns=dict(stars='rating'))
    pd.testing.assert_frame_equal(skus.recommend(history=told, k=4).assign(user_id=7), skus.recommend(history=mine, k=4))

def test_rows_of_json_have_their_own_names(skus):
    told = [dict(item_id=4, rating=5), dict(item_id=7, rating=1)]
    pd.testing.assert_frame_equal(skus.recommend(history=told, k=4), skus.recommend(history={4: 5, 7: 1}, k=4))

def test_a_file_and_its_frame_are_one_history(skus, tmp_path):
    mine = shop().query('user==7').drop_duplicates('sku')
    mine.to_csv(tmp_path/'mine.csv', index=False)
    who,histories = read_histories(skus.recommender, tmp_path/'mine.csv')
    assert list(who)==[7] and histories==[dict(zip(mine.sku, mine.stars))]

def test_texts_for_a_recommender_or_its_rows(films):
    rec = films.recommender
    texts = [f'{rec.items.index[3]}:4', rec.items.index[5]]
    assert of_files(rec, texts)==parse_history(rec.train, texts)=={rec.items.index[3]: 4., rec.items.index[5]: 5.}

ROWS = CollabDataLoaders.from_df(synth_ratings(), seed=1).interactions('train')

@pytest.mark.parametrize('h', [
    {4: 5, 7: 1}, pd.Series({4: 5, 7: 1}).rename_axis('item_id'), pd.DataFrame(dict(item_id=[4,7], rating=[5,1])),
    [dict(item_id=4, rating=5), dict(item_id=7, rating='1')], pd.DataFrame(dict(item_id=pd.Categorical([4,7]), rating=['5','1']))])
def test_one_history_in_every_form(h):
    items,stars = encode_history(ROWS, h)
    assert ROWS.item_vocab.decode(items).tolist()==[4,7] and stars.tolist()==[5,1]
    assert items.dtype==torch.int64 and stars.dtype==torch.float64

@pytest.mark.parametrize('h', [[4,7], (4,7), np.array([4,7]), pd.Series([4,7]), {4: None, 7: None}.keys()])
def test_what_is_liked_counts_as_the_best(h):
    items,stars = encode_history(ROWS, h)
    assert ROWS.item_vocab.decode(items).tolist()==[4,7] and stars.tolist()==[ROWS.best_rating]*2

def test_several_of_several_forms():
    got = encode_histories(ROWS, [{4: 5}, [4,7], pd.DataFrame(dict(item_id=[7], rating=[2])), []])
    assert [stars.tolist() for _,stars in got]==[[5],[5,5],[2],[]]

def test_unknown_items_of_a_history():
    with pytest.raises(UnknownIdError, match='unknown item id: 999'): encode_history(ROWS, {999: 5, 4: 3})
    items,stars = encode_history(ROWS, {999: 5, 4: 3}, 'drop')
    assert ROWS.item_vocab.decode(items).tolist()==[4] and stars.tolist()==[3]

@pytest.mark.parametrize('h,said', [({4: 50}, "'4: 50'"), ({4: float('nan')}, "'4: nan'"), ({4: 'good'}, "'4: nan'")])
def test_a_rating_that_training_could_not_have_had(h, said):
    with pytest.raises(RatingsError, match=f"outside the training data's .* {said}"): encode_history(ROWS, h)

def test_a_frame_without_a_needed_column():
    with pytest.raises(RatingsError, match=r"history has columns 'film', 'rating', expected 'item_id' and 'rating'"):
        encode_history(ROWS, pd.DataFrame(dict(film=[4], rating=[5])))
