"`recfast train --items`: lists for items that the table of ratings does not have"
import pytest
from typer.testing import CliRunner

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

def test_columns_of_no_file_are_refused(files):
    res = train(files, '--item-cat', 'country')
    assert res.exit_code!=0 and 'name that file too' in res.output.replace('\n', ' ')
