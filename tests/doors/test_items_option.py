"`recfast train --items`: lists for items that the table of ratings does not have"
import pytest
from typer.testing import CliRunner

from recfast.bundle import load_bundle
from recfast.cli import app
from recfast.data.catalogues import movie_night_films
from recfast.data.made import movie_night

@pytest.fixture
def files(tmp_path):
    night = movie_night()
    night[night.item_id<290][['user_id','item_id']].to_csv(tmp_path/'clicks.csv', index=False)
    movie_night_films().to_csv(tmp_path/'films.csv', index=False)
    return tmp_path

def train(files, *more): return CliRunner().invoke(app, ['train', str(files/'clicks.csv'), '--out', str(files/'b'), '--arch', 'ease', *more])

def test_films_of_a_file_get_lists_without_a_rating(files):
    res = train(files, '--items', str(files/'films.csv'), '--item-multi', 'genres', '--item-cont', 'year')
    assert res.exit_code==0, res.output
    rec = load_bundle(files/'b')
    assert rec.train.features['item'].report['cold']==11 and set(range(290, 301))<=set(rec.recommend(3, k=300).item_id)
    assert rec.train.features['item'].report['multi']==['genres']

def test_columns_of_no_file_are_refused(files):
    res = train(files, '--item-cat', 'country')
    assert res.exit_code!=0 and 'name that file too' in res.output.replace('\n', ' ')

def test_a_hybrid_is_trained_from_files(files):
    res = train(files, '--items', str(files/'films.csv'), '--item-multi', 'genres', '--item-cont', 'year', '--arch', 'hybriddot', '--epochs', '1')
    assert res.exit_code==0, res.output
    rec = load_bundle(files/'b')
    assert type(rec.model).__name__=='HybridDot' and set(range(290, 301))<=set(rec.recommend(3, k=300).item_id)

def test_models_that_read_features_are_compared(files):
    args = ['compare', str(files/'clicks.csv'), '--arch', 'ease,hybriddot', '--out', str(files/'c.html'), '--valid-pct', '0.1']
    res = CliRunner().invoke(app, [*args, '--items', str(files/'films.csv'), '--item-multi', 'genres', '--item-cont', 'year'])
    assert res.exit_code==0 and 'wd_features' in res.output, res.output
