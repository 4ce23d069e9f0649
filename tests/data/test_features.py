"What items and people are: columns as numbers, rows beside ids, and loaders that know of both"
import numpy as np
import pandas as pd
import pickle
import pyarrow as pa
import pytest
import torch

from recfast.core import RatingsError
from recfast.data.catalogues import ml_100k_films, ml_1m_films, movie_night_films
from recfast.data.datasets import ml_100k, movie_night
from recfast.data.encoding import encoder_of
from recfast.data.feature_table import more_rows
from recfast.data.features import Features
from recfast.data.frames import are_arrow_lists
from recfast.data.guessing import kind_of
from recfast.data.loaders import CollabDataLoaders
from recfast.data.quantities import ContEncoder, hats
from recfast.data.vocab import Vocab

NIGHT,FILMS = movie_night(),movie_night_films()
WARM = NIGHT[NIGHT.item_id<290]

def loaders(items=FILMS, df=WARM, **kwargs): return CollabDataLoaders.from_df(df, bs=512, seed=0, items=items, **kwargs)

# numbers

def test_a_category_is_a_one_and_an_unknown_one_is_none():
    films = FILMS.assign(colour=np.where(FILMS.item_id%2, 'red', 'blue'))
    films.loc[films.item_id==300, 'colour'] = 'green' # cold: nobody trained on green
    t = loaders(Features(films, cat='colour')).features('item')
    want = np.zeros((301,2))
    want[1:,0],want[1:,1] = films.colour=='blue',films.colour=='red'
    assert (t.csr.toarray()==want).all() and t.report['filled_or_unknown']==dict(colour=1)

def test_several_values_are_the_flags_of_a_pivot():
    t = loaders(Features(FILMS, multi='genres')).features('item')
    want = FILMS.genres.str.get_dummies('|')
    assert (t.csr[1:].toarray()==want.to_numpy()).all() and t.csr[0].nnz==0

def test_lists_and_text_are_the_same():
    lists = FILMS.assign(genres=FILMS.genres.str.split('|'))
    a,b = (loaders(Features(o, multi='genres')).features('item').csr for o in (FILMS,lists))
    assert (a!=b).nnz==0

def test_a_quantity_is_normalised_over_trained_rows_and_filled_by_their_median():
    films = FILMS.assign(year=FILMS.year.where(FILMS.item_id!=299))
    t = loaders(Features(films, cont='year'), valid_pct=0).features('item')
    warm = films.year[:289]
    want = ((films.year.fillna(warm.median())-warm.mean())/warm.std(ddof=0)).to_numpy()
    np.testing.assert_allclose(t.dense[1:,0], want, rtol=1e-5, atol=1e-6)
    assert t.dense[0,0]==0 and t.report['filled_or_unknown']==dict(year=1)

def test_without_fill_missing_a_hole_is_an_error_and_without_normalize_numbers_stay():
    from fastai.tabular.core import Categorify, FillMissing
    holes = FILMS.assign(year=FILMS.year.where(FILMS.item_id!=5))
    with pytest.raises(RatingsError, match='1 holes'): loaders(Features(holes, cont='year', procs=[Categorify]))
    raw = loaders(Features(FILMS, cont='year', procs=[Categorify,FillMissing])).features('item')
    assert (raw.dense[1:,0].numpy()==FILMS.year).all()

def test_hats_are_the_dense_formula():
    knots,x = [1.,2,4,8],np.random.default_rng(0).uniform(0, 10, 50)
    eye = np.eye(4)
    want = np.stack([np.interp(x, knots, eye[j]) for j in range(4)], 1)
    np.testing.assert_allclose(hats(x, knots).toarray(), want, atol=1e-6)

def test_a_map_of_hats_bends_where_a_line_does_not():
    year = ContEncoder.fit('year', pd.Series(np.arange(100.)))
    H = year.hats(pd.Series(np.arange(100.))).toarray()
    y = np.abs(np.arange(100.)-50)
    left = y-H@np.linalg.lstsq(H, y, rcond=None)[0]
    assert H.shape==(100,20) and np.abs(left).max()<2.5

def test_words_are_those_of_scikit_learn():
    from sklearn.feature_extraction.text import TfidfVectorizer
    t = loaders(Features(FILMS, text='title'), valid_pct=0).features('item')
    want = TfidfVectorizer(min_df=2).fit(FILMS.title[:289]).transform(FILMS.title)
    np.testing.assert_allclose(t.csr[1:].toarray(), want.toarray(), atol=1e-6)

def test_vectors_stand_in_the_dense_part():
    v = np.random.default_rng(0).normal(size=(300,3))
    t = loaders(Features(FILMS.assign(v=list(v)), vec='v', cont='year')).features('item')
    assert t.dense.shape==(301,4) and t.linear.shape[1]==1+20+3
    np.testing.assert_allclose(t.dense[1:290,1:].numpy().std(0), 1, rtol=1e-4)

@pytest.mark.parametrize('kind,given', [('multi','genres'),('cont','year'),('text','title'),('cat','genres')])
def test_an_encoder_is_read_back_from_json(kind, given):
    import json
    t = loaders(Features(FILMS, **{kind: given})).features('item')
    again = encoder_of(json.loads(json.dumps(t.spec['columns'][0])))
    assert (again.sparse(FILMS[given])!=t.csr[1:]).nnz==0
    np.testing.assert_array_equal(again.dense(FILMS[given]), t.dense[1:])

# pairs

def test_pairs_are_products_of_flags_on_ten_trained_items():
    t = loaders(Features(FILMS, multi='genres'), valid_pct=0).features('item')
    flags = FILMS.genres.str.get_dummies('|').to_numpy()
    both = flags[:289].T@flags[:289]
    want = [[a,b] for a in range(6) for b in range(a+1, 6) if both[a,b]>=10]
    assert t.spec['pairs']==want
    np.testing.assert_array_equal(t.linear[1:,7:].toarray(), np.stack([flags[:,a]*flags[:,b] for a,b in want], 1))

def test_no_pairs_where_none_are_wanted():
    t = loaders(Features(FILMS, multi='genres', cont='year', cross=False)).features('item')
    assert t.spec['pairs']==[] and t.linear.shape[1]==1+6+20

# guessing and errors

def test_a_plain_frame_is_guessed_and_what_was_guessed_is_reported():
    dls = loaders(FILMS.assign(day=pd.Timestamp('2020-01-01'), good=FILMS.item_id%2==0, imdb_id=range(300)))
    assert dls.report['item_features']['guessed']==dict(show=['title','day','imdb_id'], cont=['year'], multi=['genres'], cat=['good'])

def test_a_constant_column_is_left_out():
    assert loaders(FILMS.assign(medium='film')).report['item_features']['constant']==['medium']

def test_polars_and_an_index_of_ids_are_taken():
    import polars
    a = loaders(polars.from_pandas(FILMS)).features('item')
    b = loaders(FILMS.set_index('item_id')).features('item')
    assert (a.csr!=b.csr).nnz==0 and (a.dense==b.dense).all()

def test_another_column_of_ids_is_named(): assert loaders(Features(FILMS.rename(columns={'item_id': 'film'}), id_name='film')).features('item').has.sum()==300

@pytest.mark.parametrize('items,says', [
    (FILMS.rename(columns={'item_id': 'film'}), "no column 'item_id' of ids; there are 'film'"),
    (FILMS.assign(item_id=FILMS.item_id%100), 'differ for one id: '),
    (FILMS.assign(item_id=FILMS.item_id+1000), 'are these the same ids'),
    (FILMS[['item_id','title']], 'no column that tells items apart'),
    (FILMS.assign(item_id=None), 'missing ids'),
    (3, 'expected a pandas DataFrame'),
], ids=['no ids','contradiction','other ids','nothing to learn','holes','no table'])
def test_a_table_that_cannot_be_used_is_refused(items, says):
    with pytest.raises(RatingsError, match=says): loaders(items)

def test_rows_that_repeat_are_counted(): assert loaders(pd.concat([FILMS,FILMS[:3]])).report['item_features']['merged']==3

def test_nothing_given_is_changed():
    films = FILMS.copy()
    loaders(films)
    pd.testing.assert_frame_equal(films, FILMS)

def test_unknown_sides_are_named():
    with pytest.raises(RatingsError, match='build them with users='): loaders().features('user')
    with pytest.raises(RatingsError, match="cold_items='maybe'"): loaders(cold_items='maybe')

# the seam

def test_cold_items_get_rows_and_nothing_is_learned_of_them():
    dls = loaders()
    train = dls.interactions('train')
    assert dls.n_items==301 and dls.report['untrained_items']==11
    cold = ~train.trained('item')
    assert cold[290:].all() and train.counts('item')[290:].sum()==0 and dls.features('item').has[290:].all()

def test_cold_items_can_be_ignored():
    dls = loaders(cold_items='ignore')
    assert dls.n_items==290 and dls.report['item_features']['no_row']==11
    assert (dls.features('item').csr!=loaders().features('item').csr[:290]).nnz==0

def test_ids_and_rows_are_the_same_where_no_item_is_cold():
    a,b = (CollabDataLoaders.from_df(NIGHT, bs=512, seed=0, **o) for o in ({},dict(items=FILMS)))
    assert list(a.classes['item_id'])==list(b.classes['item_id'])
    assert all(torch.equal(x, y) for p,q in zip(a.train, b.train) for x,y in zip(p, q))

@pytest.mark.parametrize('build', ['implicit_from_df','rows_from_df','sequences_from_df'])
def test_every_builder_takes_them(build):
    more = {} if build=='sequences_from_df' else dict(valid_pct=.1)
    dls = getattr(CollabDataLoaders, build)(WARM, items=FILMS, users=pd.DataFrame(dict(user_id=range(1, 602), age=np.arange(601)%7)), bs=64, **more)
    assert dls.features('item').has.sum()==300 and dls.n_users==602 and dls.features('user').csr.shape==(602,7)
    assert dls.interactions('all').features is dls.interactions('train').features

def test_negatives_are_never_cold():
    dls = CollabDataLoaders.implicit_from_df(WARM, items=FILMS, bs=512, seed=0)
    assert max(int(x[:,1].max()) for x,_ in dls.train)<290

def test_ids_of_another_dtype_join(): assert loaders(FILMS.astype({'item_id': 'float64'})).n_items==301

def test_they_travel_with_a_pickle_and_with_rows_that_are_cut_again():
    dls = loaders()
    again = pickle.loads(pickle.dumps(dls))
    assert (again.features('item').csr!=dls.features('item').csr).nnz==0
    cut = CollabDataLoaders.from_interactions(dls.interactions('train'), 'implicit', bs=64, seed=0)
    assert cut.features('item') is dls.features('item')

def test_rows_are_written_out_as_a_model_reads_them():
    t = loaders().features('item')
    rows = torch.tensor([[0,5],[290,7]])
    want = np.concatenate([t.csr.toarray(), t.dense.numpy()], 1)[rows]
    assert t[rows].shape==(2,2,t.width) and (t[rows].numpy()==want).all()

# data that others compare on

def test_films_of_movielens():
    films = ml_100k_films()
    toy = films.iloc[0]
    assert (toy.title, toy.year, toy.genres)==('Toy Story (1995)', 1995, "Animation|Children's|Comedy")
    dls = CollabDataLoaders.from_df(ml_100k(), bs=512, seed=0, items=films)
    assert dls.features('item').csr.shape==(1683,18) and dls.report['item_features']['guessed']['multi']==['genres']
    assert set(ml_1m_films().genres.str.split('|').explode())==set(films.genres.dropna().str.split('|').explode())

# items held out

def test_the_items_held_out_are_those_of_the_plain_draw():
    from recfast.data.new_items import held_out_items
    train,valid = held_out_items(NIGHT, seed=2)
    ids = np.sort(NIGHT.item_id.unique())
    assert set(NIGHT.item_id.iloc[valid])==set(np.random.default_rng(2).choice(ids, len(ids)//10, replace=False))
    assert sorted([*train,*valid])==list(range(len(NIGHT))) and not set(NIGHT.item_id.iloc[train])&set(NIGHT.item_id.iloc[valid])
    a = CollabDataLoaders.from_df(NIGHT, bs=64, splits=lambda df: held_out_items(df, seed=2))
    assert a.report['cold_item_rows']==len(valid)

# lists of Arrow

def as_lists(cells, of=None): return pa.table(dict(item_id=list(range(1, len(cells)+1)), tags=pa.array(cells, pa.list_(of or pa.string()))))

CELLS = [['a','b'],['b','b',' c '],None,[],['a',None,''],['d','a']]

@pytest.mark.parametrize('cells,of', [(CELLS,None), ([[1,2],[2],None,[3,3],[1],[]],pa.int64()), (CELLS[:2]+CELLS[3:4]+CELLS[5:],pa.large_string())])
def test_lists_of_arrow_are_read_as_lists_of_python(cells, of):
    table = as_lists(cells, of)
    frame = pd.DataFrame(dict(item_id=table['item_id'].to_pylist(), tags=pd.Series(table['tags'].to_pylist(), dtype=object)))
    trained = np.array([False,*[True]*(len(cells)-1),False])
    made = [Features(o, multi='tags').table('item', 'item_id', Vocab(frame.item_id), trained) for o in (table,frame)]
    a,b = made
    assert (a.csr!=b.csr).nnz==0 and a.spec==b.spec and a.report==b.report
    assert a.catalogue.table['tags'].to_pylist()==b.catalogue.table['tags'].to_pylist()
    more = [more_rows(o, pd.DataFrame(dict(tags=[['a','zz'],['b']]))) for o in made]
    assert (more[0].csr!=more[1].csr).nnz==0

def test_lists_of_arrow_are_guessed_and_stay_in_arrow():
    table = as_lists([['a','b']]*3)
    what = Features(table)
    assert are_arrow_lists(what.df.tags) and kind_of(what.df.tags)==('multi',None)
    assert what.once('item', 'item_id')[1].tags.tolist()==[['a','b']]*3

def test_chunks_and_slices_of_arrow_are_read_whole():
    whole = as_lists(CELLS*3)
    parts = pa.concat_tables([whole[:5],whole[5:6],whole[6:]])
    trained = np.ones(19, bool)
    a,b = (Features(o, multi='tags').table('item', 'item_id', Vocab(whole['item_id'].to_pandas()), trained) for o in (whole,parts))
    assert (a.csr!=b.csr).nnz==0 and a.spec==b.spec

def test_rows_in_any_order_stand_where_their_ids_do():
    rng = np.random.default_rng(0)
    ids = rng.permutation(np.arange(1, 31))
    cells = [[f'v{o}' for o in rng.choice(6, 3, replace=False)] for _ in ids]
    table = pa.table(dict(item_id=ids, tags=cells))
    made = Features(table, multi='tags').table('item', 'item_id', Vocab(pd.Series(range(1, 31))), np.ones(31, bool))
    classes = made.spec['columns'][0]['classes']
    for i,cell in zip(ids, cells): assert {classes[j] for j in made.csr[i].indices}=={*cell}

NESTED = dict(ragged=lambda i: [['a','b'],['c']] if i%2 else [['a']], even=lambda i: [['a','b'],['c','d']], records=lambda i: [dict(w=i)], record=lambda i: dict(w=i),
              square=lambda i: np.eye(2), holes=lambda i: None if i%3 else [['a']])

@pytest.mark.parametrize('kind', NESTED)
@pytest.mark.parametrize('form', ['pandas','arrow'])
def test_what_is_nested_is_for_people_and_the_rest_is_read(kind, form):
    films = FILMS.assign(odd=[NESTED[kind](i) for i in FILMS.item_id])
    if kind=='square' and form=='arrow': films['odd'] = [o.tolist() for o in films.odd]
    if form=='arrow': films = pa.Table.from_pandas(films)
    dls = loaders(films)
    assert dls.report['item_features']['guessed']['show']==['title','odd'] and dls.report['item_features']['guessed']['multi']==['genres']
    shown = dls.features('item').catalogue.frame(np.array([1,3]), ['odd']).odd
    assert shown.notna().any() and not shown.dropna().str.contains('array').any()
    if kind=='record': return # one, not several
    with pytest.raises(RatingsError, match='odd'): loaders(Features(films, multi='odd'))

def test_arrow_lists_of_lists_in_a_frame_are_nested_too():
    col = pd.Series(pd.arrays.ArrowExtensionArray(pa.array([[['a'],['b','c']]]*3)))
    assert kind_of(col)==('show',None)
