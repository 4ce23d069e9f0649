"A parquet file in pieces: the rows of `from_df`, from files, and nothing half-written"
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from pyarrow import parquet

from helpers import fit, without_progress
from recfast.bundle import load_bundle
from recfast.core import RatingsError
from recfast.data.datasets import movie_night
from recfast.data.loaders import CollabDataLoaders
from recfast.learner import collab_learner

NIGHT = movie_night()[['user_id','title','rating']]
NAMES = dict(item_name='title', rating_name='rating', seed=7)

def written(df, path, **kwargs):
    table = df if isinstance(df, pa.Table) else pa.Table.from_pandas(df, preserve_index=False)
    parquet.write_table(table, path/'r.parquet', row_group_size=700, **kwargs)
    return path/'r.parquet'

def mapped(df, path, **kwargs): return CollabDataLoaders.from_row_groups(written(df, path), path/'codes', **{**NAMES, 'bs': 64, 'rows': 999, **kwargs})

def in_order(rows): return rows.frame().sort_values(list(rows.frame())).reset_index(drop=True)

@pytest.mark.parametrize('valid_pct', [.2,0])
def test_both_parts_hold_the_rows_that_from_df_holds(tmp_path, valid_pct):
    dls,own = mapped(NIGHT, tmp_path, valid_pct=valid_pct),CollabDataLoaders.from_df(NIGHT, valid_pct=valid_pct, **NAMES)
    for a,b in ((dls.train_ds,own.train_ds),(dls.valid_ds,own.valid_ds)):
        assert len(a)==len(b) and list(a.user_vocab)==list(b.user_vocab) and list(a.item_vocab)==list(b.item_vocab)
        if len(b): pd.testing.assert_frame_equal(in_order(a), in_order(b), check_dtype=False)
    counts = {k: v for k,v in own.report.items() if k!='duplicates'}
    assert {k: v for k,v in dls.report.items() if k!='duplicates'}==counts

@pytest.mark.parametrize('ids', [lambda o: o, lambda o: o.astype(str).str.zfill(7), lambda o: o*2**53+1, lambda o: pd.Categorical(o)], ids=['int','text','large','categories'])
def test_ids_of_any_kind_keep_their_values(ids, tmp_path):
    df = NIGHT.assign(user_id=ids(NIGHT.user_id))
    assert list(mapped(df, tmp_path).train_ds.user_vocab)==list(CollabDataLoaders.from_df(df, **NAMES).train_ds.user_vocab)

def test_a_dictionary_of_arrow_is_read(tmp_path):
    table = pa.Table.from_pandas(NIGHT, preserve_index=False)
    table = table.set_column(1, 'title', table['title'].dictionary_encode())
    assert mapped(table, tmp_path).train_ds.frame().title.isin(NIGHT.title).all()

def test_a_model_trains_on_it_ranks_and_goes_into_a_bundle(tmp_path):
    learns = []
    for dls in (mapped(NIGHT, tmp_path), CollabDataLoaders.from_df(NIGHT, bs=64, **NAMES)):
        learns.append(fit(without_progress(collab_learner(dls, 8, y_range=(0,5.5))), 3, 5e-3, wd=.1))
    a,b = learns
    assert a.fast.loop==b.fast.loop=='compiled'
    assert a.recorder.values[-1][1]==pytest.approx(b.recorder.values[-1][1], rel=.03)
    lists = a.recommend([1,2], k=5)
    pd.testing.assert_frame_equal(load_bundle(a.save_bundle(tmp_path/'b')).recommend([1,2], k=5), lists, check_dtype=False, rtol=1e-5)
    assert a.evaluate()['rmse']==pytest.approx(b.evaluate()['rmse'], rel=.03)

def test_the_numbers_are_those_of_the_files_and_training_does_not_write_there(tmp_path):
    dls = mapped(NIGHT, tmp_path)
    before = {o.name: o.read_bytes() for o in (tmp_path/'codes').iterdir()}
    assert np.array_equal(np.fromfile(tmp_path/'codes'/'train.users', np.int32), dls.train_ds.users.numpy())
    dls.train_ds.users[0] = 3
    fit(without_progress(collab_learner(dls, 4, y_range=(0,5.5))), 1)
    assert {o.name: o.read_bytes() for o in (tmp_path/'codes').iterdir()}==before

@pytest.mark.parametrize('change,said', [(dict(rating=np.nan),'missing ratings'), (dict(user_id=None),'missing ids'), (dict(rating=np.inf),'not finite')])
def test_a_bad_row_is_named_and_nothing_is_left(change, said, tmp_path):
    df = NIGHT.astype({'user_id': 'Int64'})
    for name,v in change.items(): df.loc[2345,name] = v
    with pytest.raises(RatingsError, match=f'in the rows from 1998 on.*{said}.*row position 347'): mapped(df, tmp_path)
    assert not list((tmp_path/'codes').glob('*'))

@pytest.mark.parametrize('kwargs,said', [(dict(valid_pct=1.),'expected a share'), (dict(bs=10**6),'no full batch'), (dict(item_name='film'),"no column 'film'")])
def test_arguments_are_checked_before_anything_is_read(kwargs, said, tmp_path):
    with pytest.raises(RatingsError, match=said): mapped(NIGHT, tmp_path, **kwargs)
    assert not (tmp_path/'codes').exists()

def test_a_second_time_replaces_the_first(tmp_path):
    mapped(NIGHT, tmp_path)
    dls = mapped(NIGHT[:2000], tmp_path)
    assert len(dls.train_ds)+len(dls.valid_ds)==2000 and torch.equal(dls.train_ds.users, mapped(NIGHT[:2000], tmp_path).train_ds.users)
