import time
from hashlib import sha256

import numpy as np
import pandas as pd
import pytest

from recfast.data import datasets
from recfast.data.datasets import MOVIE_NIGHT_SHA256, MOVIE_NIGHT_SIGMA, ml_100k, movie_night, solo


def test_solo_is_the_table_of_the_lesson():
    wide = solo()
    assert wide.shape==(9,8) and wide.notna().sum().sum()==63 and (wide.dtypes=='float64').all()
    assert (wide.index.name, wide.columns.name)==('W','M')
    assert wide.loc['옥순(IN)','영철(IN)']==4.02 and wide.loc['하니(I)','다호(ES)']==4.52 and wide.loc['보람(ES)','영수(EN)']==4.

def test_solo_empty_cells():
    empty = solo().isna().stack()
    assert set(empty[empty].index)=={('옥순(IN)','영식(IN)'),('영자(IN)','다호(ES)'),('정숙(IS)','영수(EN)'),('영숙(IS)','영호(IS)'),('순자(EN)','영철(IN)'),
                                     ('현숙(EN)','규빈(ES)'),('보람(ES)','광수(IS)'),('보람(ES)','다호(ES)'),('하니(I)','영호(IS)')}

def test_solo_is_a_new_frame_each_time():
    wide = solo()
    wide.iloc[0,1] = 99
    assert solo().iloc[0,1]==4.02

@pytest.fixture(scope='module')
def films(): return movie_night(truth=True)

def test_movie_night_stream_is_frozen():
    assert sha256(movie_night().to_csv(index=False, lineterminator='\n').encode('utf-8')).hexdigest()==MOVIE_NIGHT_SHA256

def test_movie_night_ignores_and_keeps_the_global_seed():
    np.random.seed(5); a = np.random.rand()
    np.random.seed(5); movie_night()
    assert np.random.rand()==a

def test_movie_night_columns_and_sizes(films):
    assert list(films)==['user_id','item_id','rating','timestamp','title','genres','expected']
    assert (films.user_id.min(), films.user_id.max(), films.item_id.min(), films.item_id.max())==(1,600,1,300)
    assert films.rating.dtype=='float32' and films.user_id.dtype==films.item_id.dtype==films.timestamp.dtype=='int64'
    assert 30_000<=len(films)<=45_000 and films.user_id.value_counts().min()>=20

def test_movie_night_half_stars(films): assert set(films.rating)=={.5,1.,1.5,2.,2.5,3.,3.5,4.,4.5,5.}

def test_movie_night_one_title_and_genre_list_per_film(films):
    assert (films.groupby('item_id')[['title','genres']].nunique()==1).all(axis=None) and films.title.nunique()==300
    assert films.genres.str.split('|').map(len).isin([1,2,3]).all() and films.title.str.fullmatch(r'The \w+ \w+ \(\d{4}\)').all()

def test_movie_night_floor(films):
    "sigma 0.6 and rounding to halves: sqrt(0.36 + 0.25/12) = 0.617, less what clipping at 5 takes off"
    floor = ((films.rating-films.expected)**2).mean()**.5
    assert MOVIE_NIGHT_SIGMA==.6 and 0.57<floor<0.617 and films.rating.std()>1.5*floor

def test_movie_night_time_rises(films): assert films.timestamp.is_monotonic_increasing

def test_movie_night_popularity_is_skewed(films):
    n = films.item_id.value_counts()
    assert n.iloc[:30].sum()>2*n.sum()/10 and n.iloc[-30:].sum()<n.sum()/20

def test_movie_night_is_quick():
    t = time.perf_counter(); movie_night()
    assert time.perf_counter()-t<2

def write(folder, base=False):
    folder.mkdir(parents=True, exist_ok=True)
    (folder/'u.item').write_text('7|Kolya (1996)|x\n3|Cité (1995)|y\n', encoding='latin-1')
    for name in ['u1.base','u1.test'] if base else ['u.data']: (folder/name).write_text('2\t7\t5\t10\n1\t3\t4\t9\n', encoding='utf-8')
    return folder

def test_ml_100k_reads_latin_titles_in_file_order(tmp_path):
    assert ml_100k(write(tmp_path)).values.tolist()==[[2,7,5,10,'Kolya (1996)'],[1,3,4,9,'Cité (1995)']]

def test_ml_100k_fold_is_base_then_test(tmp_path):
    assert ml_100k(write(tmp_path, base=True), fold=1).is_valid.tolist()==[False,False,True,True]

@pytest.mark.parametrize('fold', [0, 6, '1', 1.5])
def test_ml_100k_fold_that_does_not_exist(fold):
    with pytest.raises(ValueError, match='expected 1, 2, 3, 4, 5'): ml_100k(fold=fold)

def test_ml_100k_path_without_the_files(tmp_path, monkeypatch):
    monkeypatch.setenv('RECFAST_DATA', str(write(tmp_path/'env'/'ml-100k').parent))
    write(tmp_path/'here').joinpath('u.item').unlink()
    with pytest.raises(FileNotFoundError, match='u.item not in .*here'): ml_100k(tmp_path/'here')

def test_ml_100k_looks_in_the_environment_first(tmp_path, monkeypatch):
    monkeypatch.setenv('RECFAST_DATA', str(write(tmp_path/'ml-100k').parent))
    monkeypatch.setattr(datasets, 'fastai_path', lambda o: tmp_path/'elsewhere')
    assert len(ml_100k())==2

def test_ml_100k_then_in_fastais_folder(tmp_path, monkeypatch):
    monkeypatch.delenv('RECFAST_DATA', raising=False)
    monkeypatch.setattr(datasets, 'fastai_path', lambda o: write(tmp_path/'ml-100k').parent)
    assert len(ml_100k())==2

def test_ml_100k_downloads_last(tmp_path, monkeypatch):
    monkeypatch.setenv('RECFAST_DATA', str(tmp_path))
    monkeypatch.setattr(datasets, 'fastai_path', lambda o: tmp_path/'elsewhere')
    monkeypatch.setattr(datasets, 'untar_data', lambda url: write(tmp_path/'downloaded'))
    assert len(ml_100k())==2

def test_ml_100k_official_files(ml100k_dir):
    df = ml_100k(ml100k_dir)
    assert df.shape==(100_000,5) and df.iloc[0].tolist()==[196,242,3,881250949,'Kolya (1996)'] and df.title.notna().all()
    assert df.title.nunique()==1664

@pytest.mark.parametrize('fold', [1,2,3,4,5])
def test_ml_100k_official_folds(ml100k_dir, fold):
    df = ml_100k(ml100k_dir, fold=fold)
    assert df.is_valid.sum()==20_000 and not df.is_valid[:80_000].any()
    assert not df.duplicated(['user_id','item_id']).any() and df.title.notna().all()

def test_folds_hold_every_row_once_as_test(ml100k_dir):
    tests = pd.concat([ml_100k(ml100k_dir, fold=f).query('is_valid') for f in range(1,6)])
    assert len(tests)==100_000 and not tests.duplicated(['user_id','item_id']).any()
