import os
import time
from hashlib import sha256
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from helpers import fit
from recfast.data import datasets
from recfast.data.datasets import MOVIE_NIGHT_1_SHA256, MOVIE_NIGHT_SHA256, MOVIE_NIGHT_SIGMA, ml_100k, movie_night, solo
from recfast.data.loaders import CollabDataLoaders
from recfast.learner import collab_learner
from recfast.models import EASE, Popularity


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

def digest(df): return sha256(df.to_csv(index=False, lineterminator='\n').encode('utf-8')).hexdigest()

def test_movie_night_stream_is_frozen():
    assert digest(movie_night())==MOVIE_NIGHT_SHA256=='5aaa018ebbdb72af5c2361666dd78c1c4fabc1f267ebbb650c3a542d6f8830c1'
    assert digest(movie_night(version=1))==MOVIE_NIGHT_1_SHA256=='b8c0560fc0272ba7e2e7175744c6670fa89bc4629180813d24bfaf1415b70441'

def test_movie_night_has_the_films_and_the_size_of_before(films):
    first = movie_night(version=1, truth=True)
    assert first.dtypes.to_dict()==films.dtypes.to_dict() and len(first)==len(films)
    for o in (films,first): assert o.user_id.nunique()==600 and o.item_id.nunique()==300 and set(o.rating)==set(first.rating)
    a,b = (o.groupby('item_id')[['title','genres']].first() for o in (films,first))
    assert a.equals(b)

@pytest.mark.parametrize('version', [0, 3, '2', None])
def test_movie_night_version_that_does_not_exist(version):
    with pytest.raises(ValueError, match=r'expected one of \[1, 2\]'): movie_night(version=version)

def ndcg(df, arch, seed):
    dls = CollabDataLoaders.implicit_from_df(df[['user_id','item_id']], n_neg=0, seed=seed)
    return fit(collab_learner(dls, arch=arch), 1).evaluate(k=10, metrics=['ndcg'])['ndcg@10']

@pytest.mark.parametrize('seed', [0, 1, 2])
def test_people_of_movie_night_have_tastes(films, seed): assert ndcg(films, EASE, seed)>1.7*ndcg(films, Popularity, seed)

def test_people_of_the_first_version_watched_what_was_famous():
    df = movie_night(version=1)
    assert ndcg(df, EASE, 0)<1.05*ndcg(df, Popularity, 0)

def test_genres_explain_part_of_the_tastes(films):
    "Item vectors of the clicks alone, popularity taken out, regressed on genres"
    flags = films.groupby('item_id').genres.first().str.get_dummies('|').to_numpy()
    m = np.zeros((600,300))
    m[films.user_id-1,films.item_id-1] = 1
    m = (m-m.mean(0))/m.std(0)
    vectors = np.linalg.svd(m-m.mean(1, keepdims=True), full_matrices=False)[2][:5].T
    x = np.column_stack([np.ones(300),flags])
    left = vectors-x@np.linalg.lstsq(x, vectors, rcond=None)[0]
    share = 1-(left**2).sum()/((vectors-vectors.mean(0))**2).sum()
    assert .3<share<.6

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

# MovieLens-1M: the official file, the table put together by others, pairs alone

def present(file):
    "Skip where this file of `$RECFAST_DATA` is not there (fail where RECFAST_REQUIRE_DATA=1)"
    if (Path(os.environ.get('RECFAST_DATA', 'missing'))/file).is_file(): return
    (pytest.fail if os.environ.get('RECFAST_REQUIRE_DATA')=='1' else pytest.skip)(f"set RECFAST_DATA to the folder that holds {file}")

ROW = ['user_id','item_id','rating','position','timestamp','time_is_estimated']

def write_estimated(folder):
    "Two users; the first has a known, an estimated and a missing time, the second none that is known"
    df = pd.DataFrame(dict(user_id=[7,7,7,3], item_id=[10,20,30,10], rating=[5,3,4,1]), dtype='int16')
    holes = dict(position=[1,0,None,0], timestamp=[100,None,None,None], time_low=[100,None,None,None], time_est=[100,100,None,90])
    df.assign(**{k: pd.array(v, 'Int32') for k,v in holes.items()}).to_parquet(folder/'ratings.parquet')
    return folder

def test_ml_1m_with_estimated_times(tmp_path):
    df = datasets.ml_1m(write_estimated(tmp_path))
    assert list(df)==ROW and df.item_id.tolist()==[10,20,30,10] and df.rating.tolist()==[5,3,4,1]
    assert df.time_is_estimated.tolist()==[False,True,True,True] and df.position.isna().tolist()==[False,False,True,False]
    assert df.timestamp.tolist()==[100,100,100,90] # the third is the median of the user's

def test_ml_1m_takes_the_official_file_first(tmp_path):
    write_estimated(tmp_path)
    pd.DataFrame(dict(user_id=[1], item_id=[1])).to_parquet(tmp_path/'interactions.parquet')
    assert len(datasets.ml_1m(tmp_path))==4
    (tmp_path/'ratings.dat').write_text('2::10::5::30\n1::20::3::9\n2::30::4::20\n2::40::4::30\n', encoding='latin-1')
    df = datasets.ml_1m(tmp_path)
    assert list(df)==ROW and not df.time_is_estimated.any() and df.position.tolist()==[1,0,0,2]

def test_ml_1m_of_either_file_has_the_same_types(tmp_path):
    (tmp_path/'a').mkdir()
    timed = datasets.ml_1m(write_estimated(tmp_path/'a'))
    (tmp_path/'ratings.dat').write_text('2::10::5::30\n', encoding='latin-1')
    assert timed.dtypes.to_dict()==datasets.ml_1m(tmp_path).dtypes.to_dict()
    assert timed.dtypes.astype(str).to_dict()==dict(user_id='int64', item_id='int64', rating='int64', position='Int64', timestamp='int64', time_is_estimated='bool')

def test_ml_1m_as_it_lies_here():
    present('ml-1m/ratings.parquet')
    df = datasets.ml_1m()
    assert list(df)==ROW and len(df)==1_000_209 and (df.user_id.nunique(),df.item_id.nunique())==(6_040,3_706)
    assert df.iloc[0,:3].tolist()==[1,1193,5] and set(df.rating)=={1,2,3,4,5} and not df.duplicated(['user_id','item_id']).any()
    known = df.dropna(subset=['position'])
    assert len(known)==999_611 or not df.time_is_estimated.any()
    assert (known.groupby('user_id').position.agg(lambda o: o.max()+1)==known.groupby('user_id').size()).all()
    assert df.timestamp.between(956_703_932, 1_046_454_590).all()
    assert (known.sort_values(['user_id','position']).groupby('user_id').timestamp.diff().dropna()>=0).all()

# the others

def test_movietweetings_keeps_leading_zeros():
    present('movietweetings-100k/ratings.dat')
    df = datasets.movietweetings()
    assert list(df)==['user_id','item_id','rating','timestamp','title']
    assert df.iloc[2].tolist()==[2,'0104257',8,1364690142,'A Few Good Men (1992)'] and df.item_id.str.fullmatch(r'\d{7}').all()
    assert (len(df),df.user_id.nunique(),df.item_id.nunique())==(100_000,16_554,10_506) and set(df.rating)==set(range(11))
    assert df.notna().all(axis=None) and df[['user_id','rating','timestamp']].dtypes.eq('int64').all()

def test_amazon_beauty_is_in_order():
    present('beauty/beauty-sequences.parquet')
    df = datasets.amazon_beauty()
    assert list(df)==['user_id','item_id','position'] and (len(df),df.user_id.nunique(),df.item_id.nunique())==(198_502,22_363,12_101)
    assert df.position.equals(df.groupby('user_id').cumcount()) and df.user_id.value_counts().min()>=5 and df.item_id.value_counts().min()>=5

def write_small(folder):
    folder.mkdir(parents=True, exist_ok=True)
    (folder/'ratings.csv').write_text('userId,movieId,rating,timestamp\n1,3,4.5,964982703\n2,1,0.5,964982224\n', encoding='utf-8')
    (folder/'movies.csv').write_text('movieId,title,genres\n1,Amélie (2001),Comedy\n3,"City, The (1998)",Drama\n', encoding='utf-8')
    return folder

def test_ml_latest_small_under_our_names(tmp_path):
    df = datasets.ml_latest_small(write_small(tmp_path))
    assert list(df)==['user_id','item_id','rating','timestamp','title'] and df.rating.dtype=='float64'
    assert df.values.tolist()==[[1,3,4.5,964982703,'City, The (1998)'],[2,1,.5,964982224,'Amélie (2001)']]

# found, downloaded, or said

OTHERS = [('ml_latest_small','ml-latest-small',write_small), ('movietweetings','movietweetings-100k',lambda folder: write_tweets(folder))]

def write_tweets(folder):
    folder.mkdir(parents=True, exist_ok=True)
    (folder/'ratings.dat').write_text('1::0012345::0::5\n', encoding='utf-8')
    (folder/'movies.dat').write_text("0012345::À l'ombre (1913)::Drama\n0012346::B (1915)::\n", encoding='utf-8')
    return folder

@pytest.mark.parametrize('name,folder,write', OTHERS)
def test_a_data_set_is_looked_for_and_then_downloaded(name, folder, write, tmp_path, monkeypatch):
    get = getattr(datasets, name)
    monkeypatch.setenv('RECFAST_DATA', str(tmp_path/'own'))
    monkeypatch.setattr(datasets, 'fastai_path', lambda o: tmp_path/'fastai')
    asked = []
    def untar(url):
        asked.append(url)
        write(tmp_path/'down'/('snapshots/100K' if name=='movietweetings' else ''))
        return tmp_path/'down'
    monkeypatch.setattr(datasets, 'untar_data', untar)
    downloaded = get()
    assert len(asked)==1 and asked[0].startswith('https://')
    write(tmp_path/'fastai'/folder)
    assert get().equals(downloaded) and len(asked)==1
    write(tmp_path/'own'/folder)
    (tmp_path/'fastai'/folder/'ratings.csv').unlink(missing_ok=True)
    assert get().equals(downloaded) and len(asked)==1

@pytest.mark.parametrize('name', ['ml_100k','ml_1m','ml_latest_small','movietweetings'])
def test_a_download_that_fails_says_what_to_do(name, tmp_path, monkeypatch):
    monkeypatch.setenv('RECFAST_DATA', str(tmp_path))
    monkeypatch.setattr(datasets, 'fastai_path', lambda o: tmp_path/'elsewhere')
    def untar(url): raise OSError('no route to host')
    monkeypatch.setattr(datasets, 'untar_data', untar)
    with pytest.raises(FileNotFoundError, match='set RECFAST_DATA.*download from https://.*no route'): getattr(datasets, name)()

def test_a_data_set_that_is_not_downloaded_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv('RECFAST_DATA', str(tmp_path))
    monkeypatch.setattr(datasets, 'fastai_path', lambda o: tmp_path/'elsewhere')
    with pytest.raises(FileNotFoundError, match='beauty-sequences.parquet not in .*set RECFAST_DATA'): datasets.amazon_beauty()

def test_made_up_tables_are_offered_where_they_were():
    from recfast.data import made
    for name in ('solo','movie_night','GENRES','MOVIE_NIGHT_SHA256','MOVIE_NIGHT_SIGMA'): assert getattr(datasets, name) is getattr(made, name)
