import io
from decimal import Decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings, strategies as st

from recfast.core import RatingsError
from recfast.data.datasets import ml_100k
from recfast.data.ratings import count_duplicates, k_core, long_to_wide, parse_times, read_csv, validate_ratings, wide_to_long


def frame(**kw): return pd.DataFrame({'user_id':[1,2,3], 'item_id':['a','b','c'], 'rating':[4.,5.,1.], **kw})

def test_a_good_frame_is_returned_as_it_is():
    df = frame()
    assert validate_ratings(df, rating_range=(1,5)) is df

@pytest.mark.parametrize('bad', [[1,2], {'user_id':[1]}, pd.Series([1]), None, 'ratings.csv'])
def test_something_other_than_a_frame(bad):
    with pytest.raises(RatingsError, match='expected a pandas DataFrame'): validate_ratings(bad)

@given(st.lists(st.from_regex(r'-?[0-9]{1,6}', fullmatch=True), min_size=1), st.booleans())
def test_digits_come_from_a_csv_as_they_went_in(cells, packed):
    data = '\n'.join(['n,x', *(f'{o},1' for o in cells)])
    got = read_csv(io.BytesIO(data.encode()) if packed else io.StringIO(data))
    led = any(len(o.lstrip('-'))>1 and o.lstrip('-')[0]=='0' for o in cells)
    assert got.n.tolist()==(cells if led else [int(o) for o in cells]) and got.x.tolist()==[1]*len(cells)

def test_two_columns_of_one_name_keep_their_zeros_apart():
    assert read_csv(io.StringIO('a,b,a\n01,2,3\n')).values.tolist()==[['01',2,3]]

@pytest.mark.parametrize('data,why', [('u;i;r\n1;2;5,0\n', r"more cells than the header has names \('u;i;r'\).*sep=';', decimal=','"), ('u,i\nJürgen,1\n'.encode('cp1252'), "not utf-8 text.*encoding='cp1252'")])
def test_a_csv_of_another_form_is_for_pandas(data, why):
    with pytest.raises(RatingsError, match=why): read_csv(io.StringIO(data) if isinstance(data, str) else io.BytesIO(data))

@pytest.mark.parametrize('data', [b'\x00\n,,', b'a,b\n1,2,3\n'])
def test_rows_longer_than_any_header_are_refused(data):
    with pytest.raises(RatingsError, match='more cells than the header'): read_csv(io.BytesIO(data))

@pytest.mark.parametrize('stars', [pd.array([Decimal('4.5'),Decimal(5),Decimal(1)], dtype=pd.ArrowDtype(pa.decimal128(5, 2))), [Decimal('4.5'),5,1.]], ids=['arrow','objects'])
def test_decimals_are_numbers(stars): assert validate_ratings(frame(stars=stars), rating_name='stars').stars.astype(float).tolist()==[4.5,5,1]

@pytest.mark.parametrize('stars', [pd.period_range('2020', periods=3, freq='D'), pd.interval_range(0, 3)])
def test_columns_of_another_kind_are_no_ratings(stars):
    with pytest.raises(RatingsError, match="column 'stars' is of type (period|interval).*Expected numbers"): validate_ratings(frame(stars=stars), rating_name='stars')

def test_a_decimal_comma_is_seen():
    with pytest.raises(RatingsError, match=r"'5,0', '4,5'.*decimal=','"): validate_ratings(frame().assign(rating=['5,0','4,5','3']))

def test_a_missing_column_names_the_nearest_and_lists_the_rest():
    with pytest.raises(RatingsError, match="no column 'user_id'.*'userId', 'item_id'.*Did you mean user_name='userId'"):
        validate_ratings(frame().rename(columns={'user_id':'userId'}))

def test_a_column_that_is_not_near_is_not_suggested():
    df = frame().rename(columns={'user_id':'cooked on'})
    with pytest.raises(RatingsError, match='Pass user_name= with the name of your column'): validate_ratings(df, user_name='Cook e-mail')

def test_an_integer_column_label_can_be_named():
    df = pd.DataFrame({0:[1], 1:[2], 2:[3.]})
    assert validate_ratings(df, 0, 1, 2) is df

def test_duplicated_column_labels():
    df = frame()
    with pytest.raises(RatingsError, match="stand more than once: 'rating'"): validate_ratings(pd.concat([df, df[['rating']]], axis=1))

def test_two_levels_of_columns():
    with pytest.raises(RatingsError, match='2 levels'): validate_ratings(pd.concat({'x': frame()}, axis=1))

def test_one_column_in_two_roles():
    with pytest.raises(RatingsError, match='two roles'): validate_ratings(frame(), item_name='user_id')

def test_an_empty_frame():
    with pytest.raises(RatingsError, match='0 rows'): validate_ratings(frame()[:0])

@pytest.mark.parametrize('col,value', [('user_id',None), ('item_id',None), ('rating',np.nan), ('rating',None), ('timestamp',pd.NaT)])
def test_a_hole_names_its_position_not_its_index(col, value):
    df = frame(timestamp=pd.to_datetime(['2020','2021','2022'])).set_index(pd.Index([70,80,90]))
    df[col] = [*df[col][:2], value]
    with pytest.raises(RatingsError, match=f"column '{col}' has missing .* at row position 2, of 3 rows"):
        validate_ratings(df, time_name='timestamp')

def test_only_the_first_five_offenders_are_listed():
    df = pd.DataFrame({'user_id':range(9), 'item_id':range(9), 'rating':[np.inf]*9})
    with pytest.raises(RatingsError, match=r'inf, inf, inf, inf, inf at row positions 0, 1, 2, 3, 4 \.\.\. \(9 in all\)'): validate_ratings(df)

@pytest.mark.parametrize('inf', [np.inf, -np.inf])
def test_infinite_ratings_and_ids(inf):
    with pytest.raises(RatingsError, match='not finite'): validate_ratings(frame(rating=[1.,inf,2.]))
    with pytest.raises(RatingsError, match='infinite ids'): validate_ratings(frame(user_id=[1.,inf,2.]))
    with pytest.raises(RatingsError, match='infinite ids'): validate_ratings(frame(user_id=pd.Series([1,inf,2], dtype=object)))

@pytest.mark.parametrize('dtype', ['str', object, 'string', 'category'])
def test_ratings_that_are_strings(dtype):
    with pytest.raises(RatingsError, match=r"pd.to_numeric\(ratings\['rating'\]\)"): validate_ratings(frame(rating=pd.Series(['5','4','1'], dtype=dtype)))

@pytest.mark.parametrize('dtype', ['str', object, 'string', 'category'])
def test_ratings_of_which_some_are_no_numbers(dtype):
    with pytest.raises(RatingsError, match="column 'rating' has ratings that are not numbers: '4,5', 'n/a' at row positions 1, 2, of 3 rows"):
        validate_ratings(frame(rating=pd.Series(['3','4,5','n/a'], dtype=dtype)))

def test_complex_ratings():
    with pytest.raises(RatingsError, match='complex'): validate_ratings(frame(rating=[1j,2,3]))

def test_dates_are_no_ratings():
    with pytest.raises(RatingsError, match='datetime64'): validate_ratings(frame(rating=pd.to_datetime(['2020']*3)))

def test_a_number_too_large_for_a_float():
    with pytest.raises(RatingsError, match='float64'): validate_ratings(frame(rating=pd.Series([1,2,10**400], dtype=object)))

def test_a_container_in_a_cell():
    with pytest.raises(RatingsError, match='<list>'): validate_ratings(frame(rating=[1,[2],3]))
    with pytest.raises(RatingsError, match='cannot be looked up'): validate_ratings(frame(user_id=[[1],[2],[3]]))

@pytest.mark.parametrize('ids', [[1,'1',2], [True,1,2], ['a',('a',),'b']])
def test_ids_of_mixed_types(ids):
    df = frame(user_id=pd.Series(ids, dtype=object))
    with pytest.raises(RatingsError, match="column 'user_id' mixes ids of type .* at row position"): validate_ratings(df)

def test_mixed_categories_are_mixed_ids():
    with pytest.raises(RatingsError, match='mixes'): validate_ratings(frame(user_id=pd.Categorical([1,'1',2])))

def test_integers_and_whole_floats_are_one_kind():
    validate_ratings(frame(user_id=pd.Series([1, 2., np.int64(3)], dtype=object)))

def test_boolean_ratings_are_one_and_zero():
    df = frame(rating=[True,False,True])
    out = validate_ratings(df)
    assert out.rating.tolist()==[1.,0.,1.] and out.rating.dtype.kind=='f' and df.rating.dtype=='bool'

@pytest.mark.parametrize('dtype', ['Int64','Float64','Int8','UInt16','float32','int64[pyarrow]','double[pyarrow]','category',object])
def test_rating_column_types_of_pandas(dtype):
    out = validate_ratings(frame(rating=pd.Series([4,5,1]).astype(dtype)), rating_range=(1,5))
    assert out.rating.astype(float).tolist()==[4.,5.,1.]

@pytest.mark.parametrize('dtype', ['string[pyarrow]','string[python]','str','category',object])
def test_id_column_types_of_pandas(dtype):
    df = frame(item_id=pd.Series(['a','b','c']).astype(dtype))
    assert validate_ratings(df) is df

def test_a_hole_in_a_nullable_column():
    with pytest.raises(RatingsError, match='missing ratings'): validate_ratings(frame(rating=pd.array([1,None,2], dtype='Int64')))

def test_ratings_outside_their_range():
    with pytest.raises(RatingsError, match=r'outside \[1, 4.5\]: 5.0 at row position 1'): validate_ratings(frame(), rating_range=(1,4.5))

@pytest.mark.parametrize('bad', [(5,1), (1,2,3), (np.nan,5)])
def test_a_range_that_is_none(bad):
    with pytest.raises(RatingsError, match='expected \\(low, high\\)'): validate_ratings(frame(), rating_range=bad)

def test_times_as_text():
    with pytest.raises(RatingsError, match='pd.to_datetime'): validate_ratings(frame(t=['9','10','11']), time_name='t')

@pytest.mark.parametrize('dtype', ['str', object, 'string', 'category', 'string[pyarrow]'])
def test_text_times_become_datetimes(dtype):
    df = frame(t=pd.Series(['2024-05-17','2024-05-17T18:30','2024-05-17T18:30:00+02:00'], dtype=dtype))
    times = parse_times(df, 't').t
    assert times.tolist()==[pd.Timestamp('2024-05-17'),pd.Timestamp('2024-05-17 18:30'),pd.Timestamp('2024-05-17 16:30')]
    assert times.dtype.kind=='M' and df.t.dtype!=times.dtype

@pytest.mark.parametrize('t,named', [(['2024-05-17','yesterday','17/05/2024'],"'yesterday', '17/05/2024' at row positions 1, 2"),
                                     (['881250949','n/a','881250950'],"'n/a' at row position 1,"), (['9','10','11'],"'9', '10', '11' at row")])
def test_text_that_is_no_time(t, named):
    with pytest.raises(RatingsError, match=f"column 't' has times that cannot be read: {named}"): parse_times(frame(t=t), 't')

def test_a_hole_among_text_times_stays_one():
    df = parse_times(frame(t=['2024-05-17',None,'2024-05-18']), 't')
    with pytest.raises(RatingsError, match="column 't' has missing times"): validate_ratings(df, time_name='t')

@pytest.mark.parametrize('t', [[1,2,3], pd.to_datetime(['2020']*3), pd.to_datetime(['2020']*3, utc=True)])
def test_times_that_are_no_text_stay(t):
    df = frame(t=t)
    assert parse_times(df, 't') is df

@pytest.mark.parametrize('t', [[1,2,3], [1.,2.,3.], pd.to_datetime(['2020']*3), pd.to_datetime(['2020']*3, utc=True), pd.array([1,2,3], dtype='Int64')])
def test_times_that_have_an_order(t):
    validate_ratings(frame(t=t), time_name='t', duplicates='last')

def test_no_rating_column_for_clicks():
    df = frame()[['user_id','item_id']]
    assert validate_ratings(df, rating_name=None) is df
    with pytest.raises(RatingsError, match='rating_name=None'): validate_ratings(df, rating_name=None, duplicates='mean')

# the pair (1, a) stands at positions 0 (time 9, rating 3), 2 (time 4, rating 1) and 3 (time 4, rating 5)
@pytest.fixture
def twice():
    return pd.DataFrame({'user_id':[1,2,1,1], 'item_id':list('abaa'), 'rating':[3.,4.,1.,5.], 't':[9,5,4,4], 'note':list('wxyz')}, index=[5,5,6,7])

def test_duplicates_kept(twice): assert validate_ratings(twice) is twice

def test_duplicates_raised(twice):
    with pytest.raises(RatingsError, match=r"2 rows repeat .*\(1, 'a'\), \(1, 'a'\) at row positions 2, 3"): validate_ratings(twice, duplicates='raise')

def test_duplicates_last_in_the_frame(twice): assert validate_ratings(twice, duplicates='last').note.tolist()==['x','z']

def test_duplicates_last_in_time(twice): assert validate_ratings(twice, duplicates='last', time_name='t').note.tolist()==['w','x']

def test_duplicates_last_of_equal_times(twice):
    assert validate_ratings(twice[1:], duplicates='last', time_name='t').note.tolist()==['x','z']

def test_duplicates_mean(twice):
    before = twice.copy()
    out = validate_ratings(twice, duplicates='mean')
    assert out.rating.tolist()==[3.,4.] and out.note.tolist()==['w','x']  # (3+1+5)/3
    pd.testing.assert_frame_equal(twice, before)

def test_duplicates_of_clicks(twice):
    assert len(validate_ratings(twice.drop(columns='rating'), rating_name=None, duplicates='last'))==2

def test_duplicates_policy_unknown():
    with pytest.raises(RatingsError, match="'keep', 'raise', 'last', 'mean'"): validate_ratings(frame(), duplicates='first')

def test_repeats_are_counted_beyond_the_first(twice): assert count_duplicates(twice)==2

def test_repeated_titles_of_movielens(ml100k_dir): assert count_duplicates(ml_100k(ml100k_dir), item_name='title')==307

def test_movielens_is_valid_and_fast(ml100k_dir):
    df = ml_100k(ml100k_dir)
    assert validate_ratings(df, time_name='timestamp', rating_range=(1,5), duplicates='raise') is df

def test_wide_table_in_reading_order():
    wide = pd.DataFrame([[np.nan,1.],[2.,3.]], index=['u','v'], columns=['b','a'])
    assert wide_to_long(wide).values.tolist()==[['u','a',1.],['v','b',2.],['v','a',3.]]

def test_wide_table_with_users_in_a_column():
    with pytest.raises(RatingsError, match="columns without numbers: 'name'"): wide_to_long(pd.DataFrame({'name':['u'], 'a':[1.]}))

@pytest.mark.parametrize('kw', [dict(index=['u','u'], columns=['a','b']), dict(index=['u','v'], columns=['a','a'])])
def test_wide_table_with_a_label_twice(kw):
    with pytest.raises(RatingsError, match='more than once'): wide_to_long(pd.DataFrame(np.ones((2,2)), **kw))

def test_wide_table_without_ratings():
    with pytest.raises(RatingsError, match='0 rows'): wide_to_long(pd.DataFrame(np.full((2,2), np.nan)))

def test_wide_table_of_nullable_numbers():
    wide = pd.DataFrame({'a':pd.array([1,None], dtype='Int64'), 'b':pd.array([None,2.5], dtype='Float64')})
    assert wide_to_long(wide).rating.tolist()==[1.,2.5]

def test_long_table_with_a_pair_twice(twice):
    with pytest.raises(RatingsError, match='repeat'): long_to_wide(twice)

def test_long_table_by_first_appearance_or_sorted():
    df = frame(user_id=[9,3,9])
    assert list(long_to_wide(df).index)==[9,3] and list(long_to_wide(df, sort=True).index)==[3,9]

cells = st.one_of(st.none(), st.floats(-5, 5, width=32))
labels = st.one_of(st.lists(st.integers(-9, 99), min_size=1, max_size=5, unique=True), st.lists(st.text(max_size=3), min_size=1, max_size=5, unique=True))

@settings(max_examples=60, deadline=None)
@given(st.data(), labels, labels)
def test_wide_and_back(data, users, items):
    rows = [[data.draw(cells) for _ in items] for _ in users]
    wide = pd.DataFrame(rows, index=users, columns=items, dtype='float64')
    if wide.isna().all(axis=None): return
    back = long_to_wide(wide_to_long(wide)).reindex(index=wide.index, columns=wide.columns)
    pd.testing.assert_frame_equal(back, wide, check_names=False, check_index_type=False, check_column_type=False)

@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.tuples(st.integers(0,9), st.sampled_from('abcde')), st.floats(-5,5), min_size=1, max_size=20))
def test_long_and_back(pairs):
    long = pd.DataFrame([(*k,v) for k,v in pairs.items()], columns=['user_id','item_id','rating'])
    back = wide_to_long(long_to_wide(long))
    key = ['user_id','item_id']
    pd.testing.assert_frame_equal(back.sort_values(key, ignore_index=True), long.sort_values(key, ignore_index=True))

junk = st.one_of(st.none(), st.integers(), st.floats(), st.text(max_size=3), st.booleans(), st.complex_numbers(), st.datetimes(), st.decimals(), st.fractions(),
                 st.lists(st.integers(), max_size=2), st.tuples(st.integers()), st.binary(max_size=2), st.dates(), st.timedeltas(), st.just(pd.NA), st.just(np.array([1,2])))
column = st.integers(0,3).flatmap(lambda n: st.tuples(*[st.lists(o, min_size=n, max_size=n) for o in (junk, junk, junk, st.integers(0,2))]))
tidy = st.sampled_from([lambda xs: xs, lambda xs: list(range(len(xs))), lambda xs: [1]*len(xs)])

@settings(max_examples=120, deadline=None)
@given(column, st.tuples(*[tidy]*3), st.sampled_from(['keep','raise','last','mean']), st.sampled_from([None,'t']), st.sampled_from([None,(0,5)]))
def test_junk_is_a_frame_or_a_ratings_error(cols, fs, duplicates, time, rng):
    df = pd.DataFrame({n: pd.Series(f(c), dtype=None if len(c) else object) for n,f,c in zip(['user_id','item_id','rating','t'], [*fs, list], cols)})
    try: out = validate_ratings(df, time_name=time, duplicates=duplicates, rating_range=rng)
    except RatingsError: return
    assert isinstance(out, pd.DataFrame) and 0<len(out)<=len(df) and np.isfinite(out.rating.to_numpy(dtype=float)).all()

@settings(max_examples=80, deadline=None)
@given(column)
def test_junk_in_a_wide_table(cols):
    wide = pd.DataFrame({n: pd.Series(c) for n,c in zip('abcd', cols)})
    try: assert len(wide_to_long(wide))
    except RatingsError: pass

# 2-core by hand: c has one row; without it w has one; without that d has one, and x with it. What is left: u and v, a and b.
@pytest.fixture
def chain():
    return pd.DataFrame({'user_id': list('uuvvwwxu'), 'item_id': list('abbacdda'), 'note': range(8)}, index=[9,9,8,7,6,5,4,3])

def test_what_falls_with_a_rare_item(chain):
    before = chain.copy()
    out = k_core(chain, 2)
    pd.testing.assert_frame_equal(out, before.iloc[[0,1,2,3,7]])
    pd.testing.assert_frame_equal(chain, before)

def test_a_pair_that_stands_twice_is_two_rows(chain):
    assert k_core(chain, 3).empty and k_core(chain.iloc[[0,7,0]], 3).note.tolist()==[0,7,0]

def test_every_row_has_a_core_of_one(chain): pd.testing.assert_frame_equal(k_core(chain, 1), chain)

def test_columns_by_other_names(chain):
    out = k_core(chain.rename(columns={'user_id': 0, 'item_id': 'title'}), 2, user_name=0, item_name='title')
    assert out.note.tolist()==[0,1,2,3,7]

@pytest.mark.parametrize('bad,kw,match', [([1], {}, 'expected a pandas DataFrame'), (frame(), dict(item_name='item'), "Did you mean item_name='item_id'"),
    (frame(user_id=[1,None,2]), {}, "'user_id' has missing ids"), (frame()[:0], {}, '0 rows'), (frame(), dict(k=0), 'k=0, expected 1 or more')])
def test_what_has_no_core(bad, kw, match):
    with pytest.raises(RatingsError, match=match): k_core(bad, **kw)

@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0,6), st.sampled_from('abcdef')), min_size=1, max_size=60), st.integers(1,6))
def test_the_core_is_the_largest_part_with_k_rows_each(pairs, k):
    df = pd.DataFrame(pairs, columns=['user_id','item_id'])
    out,want = k_core(df, k),df
    while len(few := want[(want.groupby('user_id').item_id.transform('size')<k)|(want.groupby('item_id').user_id.transform('size')<k)]):
        want = want.drop(few.index[0]) # one row at a time
    pd.testing.assert_frame_equal(out, want)
    if len(out):
        assert min(out[o].value_counts().min() for o in out)>=k
        pd.testing.assert_frame_equal(k_core(out, k), out)
