"A frame of any kind goes in where pandas does, a stream is read once, and comes out as the kind that was asked for"
import uuid
import warnings

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import scipy.sparse as sp
import torch

pl = pytest.importorskip('polars')
duckdb = pytest.importorskip('duckdb')

from helpers import fit, without_progress
from recfast.core import RatingsError
from recfast.data.columns import Columns
from recfast.data.datasets import movie_night
from recfast.data.frames import as_frame, as_ids, frame_to
from recfast.data.loaders import CollabDataLoaders
from recfast.data.ratings import count_duplicates, full_grid, k_core, leakage, to_implicit, validate_ratings, wide_to_long
from recfast.data.split import global_time_split, held_out_users, item_split, k_fold, leave_last_out, random_split, user_split
from recfast.compare import compare
from recfast.files import write_lists
from recfast.learner import collab_learner
from recfast.losses import SoftmaxLoss
from recfast.models.dot import DotProduct
from recfast.models.linear import EASE
from recfast.rerank import blend, calibrate, mmr
from recfast.tables import read_csv, write_frames
from recfast.train import side_by_side, table_learner

FRAME = movie_night()[:4000]
BIG = 9_148_955_329_465_708_066

class Stream:
    "A frame that can be read once, and is nothing else"
    def __init__(self, table): self.table = table
    def __arrow_c_stream__(self, requested_schema=None):
        table,self.table = self.table,None
        return table.__arrow_c_stream__(requested_schema)

def arrow(df): return pa.Table.from_pandas(df, preserve_index=False)
def parts(df): return pa.RecordBatchReader.from_batches(arrow(df).schema, arrow(df).to_batches(max_chunksize=999))

KINDS = dict(polars=pl.from_pandas, reader=parts, duckdb=lambda df: duckdb.from_arrow(arrow(df)), stream=lambda df: Stream(arrow(df)))

def of_hugging_face(df):
    "A dataset in memory, as their library makes it of a frame"
    datasets = pytest.importorskip('datasets')
    return datasets.Dataset.from_pandas(df, preserve_index=False)

KINDS['datasets'] = of_hugging_face
MORE = dict(KINDS, arrow=arrow, batch=lambda df: arrow(df).combine_chunks().to_batches()[0], pandas=lambda df: df)

@pytest.fixture(params=KINDS)
def kind(request): return KINDS[request.param]

BUILDERS = dict(from_df=dict(bs=64), implicit_from_df=dict(bs=64), rows_from_df=dict(bs=16), sequences_from_df=dict(bs=8))

def weights(learn): return [o.detach().clone() for o in learn.model.state_dict().values()]
def made(df, builder='from_df', **kwargs):
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        return getattr(CollabDataLoaders, builder)(df, item_name='title', seed=1, **BUILDERS[builder], **kwargs)

def trained(dls): return fit(without_progress(collab_learner(dls, 4, y_range=(0,5.5))), 1)

@pytest.fixture(scope='module')
def learn(): return trained(made(FRAME))

@pytest.mark.parametrize('builder', BUILDERS)
def test_every_builder_takes_every_kind(kind, builder):
    want,got = made(FRAME, builder),made(kind(FRAME), builder)
    for which in ('train','valid'):
        a,b = want.interactions(which),got.interactions(which)
        assert torch.equal(a.pairs(), b.pairs()) and np.array_equal(a.ratings(), b.ratings()) and list(a.item_vocab)==list(b.item_vocab)

def test_the_model_has_the_bits_of_pandas(kind, learn):
    for a,b in zip(weights(learn), weights(trained(made(kind(FRAME))))): assert torch.equal(a, b)

def test_a_split_by_a_function_sees_the_frame(kind):
    want,got = (made(f(FRAME), splits=leave_last_out) for f in (MORE['pandas'],kind))
    assert torch.equal(want.interactions('valid').pairs(), got.interactions('valid').pairs())

SPLITS = [lambda d: random_split(d, seed=1), lambda d: user_split(d, seed=1), lambda d: item_split(d, seed=1, item_name='title'), leave_last_out, global_time_split,
    lambda d: sum(k_fold(d, 3, seed=1), ()), lambda d: held_out_users(d, seed=1)]

@pytest.mark.parametrize('split', SPLITS)
def test_every_split_takes_every_kind(kind, split):
    for a,b in zip(split(FRAME), split(kind(FRAME))): assert np.array_equal(a, b)

CHECKS = [lambda d: validate_ratings(d, item_name='title').rating.sum(), lambda d: count_duplicates(d, item_name='title'), lambda d: len(k_core(d, 3, item_name='title')),
    lambda d: len(to_implicit(d, 4)), lambda d: full_grid(d, item_name='title')[0].label.sum(), lambda d: leakage(d, (range(2000),range(2000,4000)))]

@pytest.mark.parametrize('check', CHECKS)
def test_every_check_takes_every_kind(kind, check): assert check(kind(FRAME))==check(FRAME)

@pytest.mark.parametrize('kind', [KINDS['polars'],KINDS['stream']])
def test_every_verb_takes_every_kind(kind, learn):
    mine = FRAME[FRAME.user_id==FRAME.user_id.iloc[0]][['title','rating']]
    for h in (kind(mine), [kind(mine)]): assert learn.recommend(history=h, k=3).equals(learn.recommend(history=mine, k=3))
    assert learn.explain(history=kind(mine), k=2).equals(learn.explain(history=mine, k=2))
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        for kwargs in ({}, dict(by='user')): assert learn.evaluate(kind(FRAME[:300]), k=5, **kwargs).summary==learn.evaluate(FRAME[:300], k=5, **kwargs).summary
        lists = FRAME[:900][['user_id','title']]
        assert learn.evaluate(FRAME[:300], k=5, candidates=kind(lists)).summary==learn.evaluate(FRAME[:300], k=5, candidates=lists).summary
        assert compare([learn,learn], kind(FRAME[:300]), k=10).table.equals(compare([learn,learn], FRAME[:300], k=10).table)
    rows = learn.dls.test_dl(kind(FRAME[:50])).dataset
    assert torch.equal(rows.pairs(), learn.dls.test_dl(FRAME[:50]).dataset.pairs())
    assert side_by_side(learn, kind(FRAME), FRAME.user_id.iloc[0]).equals(side_by_side(learn, FRAME, FRAME.user_id.iloc[0]))

def test_a_table_is_trained_whatever_it_is(kind): assert len(table_learner(kind(FRAME), item_name='title').dls.train_ds)==3200

COLUMNS = [pl.Series, pa.array, lambda o: pa.chunked_array([o]), pd.Series, pd.Index, np.array, tuple]

@pytest.mark.parametrize('column', COLUMNS)
def test_every_verb_takes_ids_in_every_column(column, learn):
    users,titles = FRAME.user_id.unique()[:3].tolist(),FRAME.title.unique()[:3].tolist()
    assert learn.recommend(column(users), k=2).equals(learn.recommend(users, k=2))
    assert np.array_equal(learn.predict(column(users), column(titles)), learn.predict(users, titles))
    assert learn.similar_items(column(titles), k=2).equals(learn.similar_items(titles, k=2))
    assert learn.recommend(users, k=2, item_ids=column(titles)).equals(learn.recommend(users, k=2, item_ids=titles))
    assert learn.recommend(history=column(titles), k=2).equals(learn.recommend(history=titles, k=2))
    assert learn.evaluate(FRAME[:200], k=2, candidates=column(titles)).summary==learn.evaluate(FRAME[:200], k=2, candidates=titles).summary

@pytest.mark.parametrize('kind', MORE.values(), ids=MORE)
def test_whole_numbers_beside_a_hole_keep_their_digits(kind):
    df = pd.DataFrame(dict(user_id=pd.array([BIG,None,BIG+1], 'Int64'), item_id=[1,2,3]))
    assert as_frame(kind(df)).user_id.tolist()[::2]==[BIG,BIG+1]

def test_sums_of_duckdb_are_whole_numbers():
    df = as_frame(duckdb.sql(f"select {BIG}::HUGEINT user_id, 3.5::DECIMAL(3,1) rating, 'a'::ENUM('b','a') item_id"))
    assert df.user_id.tolist()==[BIG] and df.user_id.dtype=='int64' and df.item_id.tolist()==['a']

def test_categories_of_any_kind_are_ids():
    df = pd.DataFrame(dict(user_id=np.arange(60)%9, item_id=pd.Categorical([f's{k%7}' for k in range(60)], categories=[f's{k}' for k in range(7)]), rating=np.arange(60)%5+1.))
    lists = [trained(CollabDataLoaders.from_df(o, seed=1, bs=8)).recommend([1,2], k=3, exclude_seen=False) for o in (df,pl.from_pandas(df),arrow(df))]
    assert lists[0].equals(lists[1]) and lists[0].equals(lists[2])

def test_pandas_is_not_copied():
    assert as_frame(FRAME) is FRAME
    column = pd.Series([1,2])
    assert as_frame(column) is column and as_ids(column).equals(column)

# out again

@pytest.mark.parametrize('to,type_', [('polars',pl.DataFrame),('arrow',pa.Table),('pandas',pd.DataFrame),(None,pd.DataFrame)])
def test_answers_come_as_the_kind_that_was_asked_for(to, type_, learn):
    user,title = FRAME.user_id.iloc[0],FRAME.title.iloc[0]
    asks = [lambda **o: learn.recommend(user, k=3, **o), lambda **o: learn.recommend(history=[title], k=3, **o), lambda **o: learn.recommender.recommend(k=2, **o),
        lambda **o: learn.similar_items(title, k=3, **o), lambda **o: learn.explain(user, k=2, **o), lambda **o: learn.evaluate(FRAME[:200], k=5, **o).per_user,
        lambda **o: learn.evaluate(FRAME[:200], k=5, by='user', **o).by]
    for ask in asks:
        got = ask(to=to)
        assert isinstance(got, type_)
        pd.testing.assert_frame_equal(as_frame(got), ask(), check_dtype=False)

def test_an_evaluation_of_any_kind_is_compared(learn):
    a,b = (learn.evaluate(FRAME[:300], k=10, to=to) for to in ('polars',None))
    assert a.interval('ndcg@10')==b.interval('ndcg@10') and compare([a,a]).table.equals(compare([b,b]).table)

@pytest.mark.parametrize('ask', [lambda l: l.recommend(k=1, to='spark'), lambda l: l.similar_items(FRAME.title.iloc[0], to='spark'), lambda l: l.evaluate(to='spark')])
def test_a_kind_there_is_none_of(ask, learn):
    with pytest.raises(ValueError, match="to='spark', expected 'pandas', 'polars' or 'arrow'"): ask(learn)

def test_ids_that_arrow_has_no_type_for_go_out_as_text():
    assert frame_to(pd.DataFrame(dict(user_id=[uuid.UUID(int=1),None])), 'arrow')['user_id'].to_pylist()[1] is None

# sparse matrices

MATRIX = sp.random(50, 40, density=.2, format='csr', random_state=0)

@pytest.mark.parametrize('form', ['csr','csc','coo','lil','dok'])
@pytest.mark.parametrize('array', [False,True])
def test_a_sparse_matrix_has_a_door(form, array):
    m = (sp.csr_array(MATRIX) if array else MATRIX).asformat(form)
    coo = m.tocoo()
    df = pd.DataFrame(dict(user_id=coo.row, item_id=coo.col, rating=coo.data)).sort_values('user_id', kind='stable')
    for kwargs,want in ((dict(rated=True),CollabDataLoaders.from_df(df, seed=1)), (dict(),CollabDataLoaders.implicit_from_df(df.drop(columns='rating'), seed=1))):
        got = CollabDataLoaders.from_csr(m, seed=1, **kwargs)
        for which in ('train','valid'): assert torch.equal(want.interactions(which).pairs(), got.interactions(which).pairs())
        assert np.array_equal(got.train_ds.ratings(), want.train_ds.ratings())

def test_the_model_of_a_matrix_has_the_bits_of_pandas():
    coo = MATRIX.tocoo()
    df = pd.DataFrame(dict(user_id=coo.row, item_id=coo.col)).astype('int64')
    dls = [CollabDataLoaders.implicit_from_df(df, seed=1, n_neg=0),CollabDataLoaders.from_csr(MATRIX, seed=1, n_neg=0)]
    for arch,kwargs in ((EASE,{}), (DotProduct,dict(loss_func=SoftmaxLoss()))):
        a,b = (fit(without_progress(collab_learner(o, arch=arch, **kwargs)), 1) for o in dls)
        assert all(torch.equal(x, y) for x,y in zip(weights(a), weights(b))) and a.recommend([1,2], k=3).equals(b.recommend([1,2], k=3))

def test_the_ids_of_a_matrix_are_those_given():
    users,items = [f'u{k}' for k in range(50)],pl.Series(range(BIG, BIG+40))
    learn = fit(without_progress(collab_learner(CollabDataLoaders.from_csr(MATRIX, users, items, seed=1), arch=EASE)), 1)
    assert learn.recommend('u3', k=1).item_id[0]>=BIG

@pytest.mark.parametrize('kwargs,match', [(dict(user_ids=['a']),'1 user_ids for 50 users'), (dict(item_ids=[1]*40),'item_ids stand more than once')])
def test_ids_that_do_not_fit_a_matrix(kwargs, match):
    with pytest.raises(RatingsError, match=match): CollabDataLoaders.from_csr(MATRIX, **kwargs)

def test_a_cell_that_is_stored_twice_is_two_rows():
    m = sp.coo_matrix(([5.,4.,3.], ([0,0,1],[0,0,1])))
    assert CollabDataLoaders.from_csr(m, rated=True, valid_pct=0, bs=1, seed=1).report['duplicates']==1
    assert sorted(CollabDataLoaders.from_csr(m, rated=True, valid_pct=0, bs=1).train_ds.ratings())==[3,4,5]

def test_zeros_are_ratings_and_no_events():
    m = sp.csr_matrix(([0.,1.,3.], [0,1,1], [0,2,3]), shape=(2,2))
    assert len(CollabDataLoaders.from_csr(m, rated=True, valid_pct=0, bs=1).train_ds)==3
    assert len(CollabDataLoaders.from_csr(m, valid_pct=0, bs=1, n_neg=0).train_ds)==2
    with pytest.raises(RatingsError, match='pass rated=True'): CollabDataLoaders.from_csr(-m)

def test_what_a_sparse_frame_does_not_store_is_no_rating():
    for frame in (pd.DataFrame.sparse.from_spmatrix(MATRIX), pd.DataFrame.sparse.from_spmatrix(MATRIX).iloc[:,:3].assign(dense=np.nan)):
        n = sum(o.array.sp_index.npoints for _,o in frame.items() if isinstance(o.dtype, pd.SparseDtype))
        assert len(wide_to_long(frame))==n
    assert CollabDataLoaders.from_wide(pd.DataFrame.sparse.from_spmatrix(MATRIX), bs=16).report['n_train']==MATRIX.nnz*8//10

@pytest.mark.parametrize('kind', MORE.values(), ids=MORE)
def test_a_wide_frame_without_an_index_has_its_users_first(kind):
    wide = pd.DataFrame(dict(who=['ann','bo'], x=[1.,np.nan], y=[2.,3.]))
    if kind is MORE['pandas']: wide = wide.set_index('who')
    rows = CollabDataLoaders.from_wide(kind(wide), valid_pct=0, bs=1, seed=1).interactions().frame()
    assert sorted(rows.itertuples(index=False, name=None))==[('ann','x',1.),('ann','y',2.),('bo','y',3.)] and list(rows.columns)[0]=='who'

# what is no frame

OTHERS = [MATRIX, np.ones((3,3)), [1,2], [dict(user_id=1,item_id=2,rating=3)], dict(user_id=[1]), 'ratings.csv', None, 7, pl.DataFrame(dict(a=[1])).lazy(), pd.Series([1])]
DOORS = [CollabDataLoaders.from_df, CollabDataLoaders.implicit_from_df, CollabDataLoaders.rows_from_df, CollabDataLoaders.sequences_from_df, CollabDataLoaders.from_wide,
    validate_ratings, count_duplicates, k_core, random_split, leave_last_out, global_time_split, wide_to_long, table_learner, Columns.find]

@pytest.mark.parametrize('o', OTHERS, ids=lambda o: type(o).__name__)
@pytest.mark.parametrize('door', DOORS, ids=lambda o: o.__name__)
def test_what_is_no_frame_is_told_so(o, door):
    with pytest.raises(RatingsError, match=rf'is a {type(o).__name__}, expected a pandas DataFrame.*\.to_pandas\(\)'): door(o)

def test_the_way_is_told():
    for o,way in ((MATRIX,'from_csr'), (pl.DataFrame(dict(a=[1])).lazy(),r'\.collect\(\)'), (np.ones((2,3)),'columns=')):
        with pytest.raises(RatingsError, match=way): CollabDataLoaders.from_df(o)

@pytest.mark.parametrize('o', [MATRIX, np.ones((3,3)), 'ratings.csv', 7, pl.DataFrame(dict(a=[1])).lazy()], ids=lambda o: type(o).__name__)
def test_verbs_tell_what_is_no_frame(o, learn):
    for ask in (lambda: learn.evaluate(o), lambda: learn.recommend(history=o), lambda: learn.explain(history=o)):
        with pytest.raises(RatingsError, match='expected a'): ask()

def test_a_type_that_arrow_cannot_pass_is_told():
    with pytest.raises(RatingsError, match='cannot be read through Arrow'): CollabDataLoaders.from_df(pl.DataFrame(dict(user_id=pl.Series([2**70,1], dtype=pl.Int128))))

def test_lists_of_any_kind_are_reranked_and_written(learn, tmp_path):
    users = FRAME.user_id.unique()[:4]
    recs = {to: learn.recommend(users, k=8, to=to) for to in (None,'polars','arrow')}
    vectors = learn.item_factors()
    kinds = pd.Series(['even' if k%2 else 'odd' for k in range(len(vectors))], vectors.index)
    for to in ('polars','arrow'):
        assert mmr(recs[to], vectors, k=3).equals(mmr(recs[None], vectors, k=3))
        assert calibrate(recs[to], as_kind(FRAME, to), kinds, k=3, item_name='title').equals(calibrate(recs[None], FRAME, kinds, k=3, item_name='title'))
        assert blend([recs[to],recs[None]], k=3).equals(blend([recs[None]]*2, k=3))
        assert write_frames(tmp_path/'lists.csv', [recs[to]])==len(recs[None]) and len(read_csv(tmp_path/'lists.csv'))==len(recs[None])
        assert write_lists(learn.recommender, tmp_path/'all.parquet', as_ids(users) if to=='arrow' else pl.Series(users.tolist()), k=2)==8

def as_kind(df, to): return pl.from_pandas(df) if to=='polars' else arrow(df)
