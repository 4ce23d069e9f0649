"Ids are exact: no float stands for a whole number it cannot hold, files keep theirs, and what is written is read back"
import io
import json
import uuid
from decimal import Decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from fastapi.testclient import TestClient
from pyarrow import parquet
from typer.testing import CliRunner

from helpers import fit, learner, without_progress
from recfast.bundle import ids_json, load_bundle
from recfast.cli import app
from recfast.core import BundleError, RatingsError, UnknownIdError
from recfast.data.columns import check_ids
from recfast.data.frames import as_ids, inexact, shown_id
from recfast.data.loaders import CollabDataLoaders
from recfast.data.ratings import validate_ratings
from recfast.data.vocab import Vocab, cast_ids, json_ids, read_vocab, write_vocab
from recfast.learner import collab_learner
from recfast.serve import make_app
from recfast.tables import read_csv, read_table

BIG = 9_148_955_329_465_708_066

def table(users, items, n=400):
    "A table in which every user meets items in turn"
    k = np.arange(n)
    return pd.DataFrame(dict(user_id=[users[i%len(users)] for i in k], item_id=[items[i*7%len(items)] for i in k], rating=k*3%5+1.))

def trained(df, **kwargs): return fit(without_progress(collab_learner(CollabDataLoaders.from_df(df, seed=1, valid_pct=0, bs=64, **kwargs), 4, y_range=(0,5.5))), 1)

# a float of 2**53 or more

@pytest.mark.parametrize('ids', [[2.**53,1.], [-2.**53,1.], [1e300,1.], pd.array([2.**60,1.], 'Float64'), np.array([2.**24,1.], 'float32'),
    pd.Series([2.**53,1], dtype=object), [float(BIG),float(BIG+1)], pd.Categorical([2.**53,1.]), [2.**53+0j,1]])
def test_no_table_is_read_whose_ids_are_floats_too_large(ids):
    df = pd.DataFrame(dict(user_id=ids, item_id=[1,2], rating=[1.,2.]))
    for name in ('user_id','item_id'):
        with pytest.raises(RatingsError, match='floats of 9007199254740992 or more for ids.*at row position'):
            validate_ratings(df.rename(columns={'user_id': name, name: 'user_id'}))

@pytest.mark.parametrize('ids', [[2.**53-1,-2.**53+1], [BIG,5], np.array([2.**24-1,3], 'float32'), [Decimal(2)**60,Decimal(1)], [2**70,5], [2**63+1,5]])
def test_ids_that_hold_their_digits_are_read(ids): check_ids(pd.DataFrame(dict(user_id=ids)), 'user_id')

def test_infinite_ids_are_called_so():
    with pytest.raises(RatingsError, match='infinite ids: inf at row position 1'): check_ids(pd.DataFrame(dict(user_id=[2.**60,np.inf])), 'user_id')

@pytest.mark.parametrize('asked', [float(BIG), np.float64(BIG), [float(BIG)], [BIG,float(BIG)], pd.Series([float(BIG)]), np.array([float(BIG)]),
    pd.Series([float(BIG)], dtype=object), pd.Categorical([float(BIG)])])
def test_no_vocabulary_answers_a_float_too_large(asked):
    for vocab in (Vocab([BIG,5]), Vocab(pd.Series([float(BIG),5], dtype=object)), Vocab([int(float(BIG)),5])):
        with pytest.raises(UnknownIdError, match='the last digits of a whole number so large are gone'): vocab.encode(asked)
        assert vocab.encode(asked, 'drop')[-1]==0

def test_a_whole_number_beside_a_float_keeps_its_digits():
    vocab = Vocab([BIG,BIG+1,5])
    assert vocab.encode([BIG+1,5.]).tolist()==[3,1]
    assert vocab.encode([BIG,np.nan,None], 'drop').tolist()==[2,0,0]
    assert vocab.encode(pd.Series([5.,5.5,np.nan]), 'drop').tolist()==[1,0,0]

def test_neighbours_beyond_the_limit_do_not_answer_for_each_other():
    vocab = Vocab([2**53,2**53+1,7])
    assert vocab.encode([2**53+1,7]).tolist()==[3,1]
    assert vocab.encode(np.array([7.,8.]), 'drop').tolist()==[1,0]
    assert Vocab([1.5,2.]).encode([2,2**53+1], 'drop').tolist()==[2,0]

@pytest.fixture(scope='module')
def large(): return trained(table([BIG+k for k in range(40)], [1_700_000_000_000_000_000+k for k in range(30)]))

def test_every_verb_refuses_an_id_that_went_through_a_float(large):
    user,item = BIG+3,1_700_000_000_000_000_005
    row = pd.DataFrame(dict(user_id=[user], item_id=[item], rating=[2.])).iloc[0] # a row of numbers is a row of floats
    asks = [lambda: large.predict(row.user_id, item), lambda: large.predict(user, row.item_id), lambda: large.recommend(row.user_id),
        lambda: large.recommend([user,row.user_id]), lambda: large.recommend(history=[row.item_id]), lambda: large.recommend(history={row.item_id: 5}),
        lambda: large.explain(row.user_id), lambda: large.explain(user, item_ids=row.item_id), lambda: large.similar_items(row.item_id)]
    for ask in asks:
        with pytest.raises(UnknownIdError, match='keep it as int or text'): ask()
    frame = pd.DataFrame(dict(user_id=[user]*3, item_id=[item]*3, rating=2.))
    with pytest.raises(RatingsError, match='floats of'): large.evaluate(frame.astype({'user_id': float}))
    with pytest.raises(RatingsError, match='floats of'): large.dls.test_dl(frame.astype({'item_id': float}))

def test_a_vocabulary_that_was_given_is_held_to_it_too():
    df = table([1,2,3], [1,2])
    with pytest.raises(RatingsError, match='lost digits'): CollabDataLoaders.from_df(df, vocab={'user_id': [1,2,3,2.**53]}, bs=8)

# files

def test_files_keep_whole_numbers_beside_a_hole(tmp_path):
    ids = [None,*(BIG+k%40 for k in range(1,800))]
    rows = dict(user_id=pd.array(ids, 'Int64'), item_id=[k%30 for k in range(800)], rating=[1+k%5 for k in range(800)])
    pd.DataFrame(rows).to_csv(tmp_path/'log.csv', index=False)
    pd.DataFrame(rows).to_csv(tmp_path/'log.tsv', index=False, sep='\t')
    parquet.write_table(pa.table({k: pa.array(list(v) if k!='user_id' else ids, pa.int64()) for k,v in rows.items()}), tmp_path/'log.parquet')
    for name in ('log.csv','log.tsv','log.parquet'):
        df = read_table(tmp_path/name)
        assert df.user_id.dtype=='Int64' and df.user_id[1]==BIG+1
        with pytest.raises(RatingsError, match='missing ids'): CollabDataLoaders.from_df(df, seed=1)
        assert CollabDataLoaders.from_df(df.dropna(), seed=1).report['users']==40
    with pytest.raises(RatingsError, match='missing ids'): CollabDataLoaders.from_parquet(tmp_path/'log.parquet')

@pytest.mark.parametrize('cells,dtype', [(['5','','7'],'Int64'), ([' 5','','+7'],'Int64'), (['-5','',str(BIG)],'Int64'), ([str(2**63+1),'','5'],'UInt64'),
    (['5.0','','7.0'],'float64'), (['5.5','','7'],'float64'), (['','',''],'float64'), (['5','6','7'],'int64'), (['inf','','7'],'float64')])
def test_a_column_of_a_csv_is_what_its_cells_say(cells, dtype):
    col = read_csv(io.StringIO('id,x\n'+''.join(f'{o},1\n' for o in cells))).id
    assert col.dtype==dtype
    if 'nt' in dtype: assert [int(o) for o in col.dropna()]==[int(o) for o in cells if o]

def test_a_hole_among_numbers_beyond_64_bits_is_a_hole():
    assert read_csv(io.StringIO(f'id,x\n{2**63+1},1\n,2\n-5,3\n')).id.isna().tolist()==[False,True,False]

@pytest.mark.parametrize('cells', [['9.14896E+10','91489612345'], ['9.14896E+10','9.14897E+10'], ['1E+12','5'], ['-9.1E+18','7']])
def test_ids_that_a_spreadsheet_has_shortened_are_refused(cells):
    csv = 'user_id,item_id,rating\n'+''.join(f'{o},{k},3\n' for k,o in enumerate(cells*20))
    with pytest.raises(RatingsError, match="column 'user_id' has ids that lost digits"): CollabDataLoaders.from_csv(io.StringIO(csv), bs=4)

@pytest.mark.parametrize('cells', [['1.960000000000000000e+02','3e+00'], ['9.148955329465708E+15','1E+00'], ['1.5E+12','2.5']])
def test_numbers_with_all_their_digits_stay_numbers(cells): assert read_csv(io.StringIO('x\n'+'\n'.join(cells))).x.dtype==float

# names that are not there

def test_levels_of_the_index_are_told(recwarn):
    df = table([1,2], [3,4]).set_index(['user_id','item_id'])
    for index in (df, df.reset_index('item_id'), df.reset_index('user_id')):
        for names in ({}, dict(user_name='user_id', item_name='item_id')):
            with pytest.raises(RatingsError, match=r'reset_index\(\)'): CollabDataLoaders.from_df(index, **names)
    with pytest.raises(RatingsError, match=r'reset_index\(\)'): CollabDataLoaders.implicit_from_df(df)
    with pytest.raises(RatingsError, match=r'reset_index\(\)'): learner().evaluate(df)

@pytest.mark.parametrize('csv', ['196,242,3,881250949\n186,302,3,891717742\n', '1,1,5\n1,2,3\n', '-1,2.5,3\n4,5,6\n'])
def test_a_file_without_a_header_is_told(csv, recwarn):
    with pytest.raises(RatingsError, match='look like a row of data'): CollabDataLoaders.from_csv(io.StringIO(csv))
    with pytest.raises(RatingsError, match='look like a row of data'): CollabDataLoaders.from_csv(io.StringIO(csv), user_name='user_id', item_name='item_id')

def test_labels_that_are_numbers_and_no_text_are_taken_by_position():
    with pytest.warns(UserWarning, match='taken by position'): CollabDataLoaders.from_df(table([1,2],[3,4]).set_axis([0,1,2], axis=1))

# vocabularies and bundles

IDS = [[BIG,5], [2**63+1,7], [2**70,-5], [1.5,2.], ['b','a','김치'], [True,False], [uuid.UUID(int=9),uuid.UUID(int=3)], [Decimal('1.50'),Decimal('7')],
    [b'\x00\xff',b'a'], list(pd.period_range('2020-01', periods=2, freq='M')), list(pd.to_datetime(['2021-01-02','2020-01-01'])),
    list(pd.to_datetime(['2021-01-02','2020-01-01']).tz_localize('Asia/Seoul')), list(pd.to_timedelta(['1h','2D'])),
    list(pd.to_datetime(['2021-01-02','2020-01-01']).date), pd.Categorical(['s2','s10'], categories=['s10','s2','none']), pd.Categorical([7,3], categories=[7,3], ordered=True)]

@pytest.mark.parametrize('ids', IDS, ids=lambda o: str(o[0])[:20])
def test_a_vocabulary_comes_back_with_order_and_type(ids):
    vocab = Vocab(pd.Series(ids))
    for portable in (False,True):
        back = read_vocab(json.loads(json.dumps(write_vocab(vocab, portable))))
        assert list(back.items)==list(vocab.items) and back.index.dtype==vocab.index.dtype and type(back.index[0])==type(vocab.index[0])
    told = json.loads(json.dumps(json_ids(vocab, vocab.index.tolist())), parse_int=lambda o: int(float(o))) # as a browser reads numbers
    assert vocab.encode(cast_ids(vocab, told)).tolist()==list(range(1, len(vocab)))

@pytest.mark.parametrize('ids', IDS, ids=lambda o: str(o[0])[:20])
def test_a_bundle_gives_the_same_lists(ids, tmp_path):
    ids = pd.Series(ids)
    k = np.arange(120)
    df = pd.DataFrame(dict(user_id=k%30, item_id=ids.take(k*7%len(ids)).array, rating=k%5+1.))
    learn = trained(df)
    rec = load_bundle(learn.save_bundle(tmp_path/'b.recfast'))
    assert rec.recommend([3,4], k=2, exclude_seen=False).equals(learn.recommend([3,4], k=2, exclude_seen=False))
    assert len(rec.recommend(history=[ids.iloc[0]], k=1))==1

def test_a_vocabulary_of_another_keeps_its_rows():
    first = Vocab(pd.Categorical(['b','a'], categories=['b','a']))
    assert list(Vocab(first).items)==list(first.items)==['#na#','b','a']

def test_repeats_are_no_vocabulary():
    with pytest.raises(BundleError, match='some repeat'): read_vocab(dict(kind='number', dtype='int64', values=[2,2]))

def test_a_type_that_no_bundle_holds_is_told_before_the_training():
    with pytest.warns(UserWarning, match='ids of type complex cannot be written'): CollabDataLoaders.from_df(table([1+2j,3j], [1,2]), bs=8)

def test_text_that_is_none_is_told_by_the_bundle():
    with pytest.raises(BundleError, match='is no text'): ids_json({'item_id': Vocab(pd.Series(['\ud800','a'], dtype=object))})

@pytest.mark.parametrize('v,text', [(1_000_003., '1000003'), (1.5, '1.5'), (1234567.25, '1234567.25'), (BIG, str(BIG)), ('a', 'a'), (b'\x01', '01'), (uuid.UUID(int=1), str(uuid.UUID(int=1)))])
def test_an_id_is_shown_with_all_its_digits(v, text): assert shown_id(v)==text

def test_ids_of_any_column_are_ids():
    assert as_ids(pa.array([BIG,None])).tolist()[0]==BIG
    assert not inexact(as_ids([BIG,1.])).any()

def test_ids_of_a_type_no_bundle_holds_are_answered_all_the_same():
    with pytest.warns(UserWarning, match='ids of type tuple cannot be written'): learn = trained(table([(1,2),(3,4),(5,6)], [1,2,3]))
    assert learn.recommend([(3,4)], k=1, exclude_seen=False).user_id.tolist()==[(3,4)]
    with pytest.raises(BundleError, match='ids of type tuple'): learn.save_bundle('nowhere.recfast')

def test_numbers_beyond_64_bits_go_out_as_text_through_arrow():
    learn = trained(table([2**70,2**64,2**65], [1,2,3]))
    assert learn.recommend([2**64], k=1, exclude_seen=False, to='arrow')['user_id'].to_pylist()==[str(2**64)]

# cells of a file that are one number, and two ids

MERGED = [['1.1','1.10','1e2','100'], ['1','1.0'], ['01.5','1.5'], ['+1','1'], ['True','true','TRUE'], ['0.1234567890123456789','0.1234567890123456788'],
    ['1.','1'], ['.5','0.5'], ['1E5','1e5','100000.0'], ['0','-0'], ['0.0','-0.0'], ['2.50','2.5'], ['9007199254740992.0','9007199254740993.0']]

@pytest.mark.parametrize('cells', MERGED, ids=' '.join)
@pytest.mark.parametrize('name', ['item_id','sku','movieId','id','artikel'])
def test_cells_that_are_one_number_stay_the_ids_they_are(tmp_path, cells, name):
    csv = f'user_id,{name},rating\n'+'\n'.join(f'{j%20},{cells[j%len(cells)]},{1+j%5}' for j in range(200))
    dls = CollabDataLoaders.from_csv(io.StringIO(csv), item_name=name, valid_pct=0, bs=16)
    assert sorted(dls.classes[name].items[1:])==sorted(cells) and dls.classes['user_id'].index.dtype.kind=='i'
    (tmp_path/'sku.csv').write_text(csv)
    for df in (read_table(tmp_path/'sku.csv', ids=[name]), *([read_table(tmp_path/'sku.csv')] if name!='artikel' else [])):
        assert sorted(df[name].unique())==sorted(cells)

@pytest.mark.parametrize('cells', [['1.10','1.20'], ['true','false'], ['1e2','2e2'], ['0.50','1.25']])
def test_ids_come_out_of_a_file_as_they_stand_in_it(cells):
    df = read_csv(io.StringIO('user_id,item_id,rating\n'+''.join(f'{k},{o},1\n' for k,o in enumerate(cells))))
    assert df.item_id.tolist()==cells

@pytest.mark.parametrize('cells', [['1.0','2.0'], ['1.5','2.5'], ['1.960000000000000000e+02','3.000000000000000000e+00'], ['5.5','7']])
def test_ids_that_are_numbers_however_they_are_read_are_numbers(cells):
    assert read_csv(io.StringIO('item_id\n'+'\n'.join(cells))).item_id.tolist()==[float(o) for o in cells]

@pytest.mark.parametrize('name', ['rating','stars'])
@pytest.mark.parametrize('cells', [['5','5.0','4.50'], ['+1','1'], ['1e0','1.0']])
def test_ratings_are_numbers_however_they_are_written(name, cells):
    csv = f'user_id,item_id,{name}\n'+'\n'.join(f'{j%20},{j%7},{cells[j%len(cells)]}' for j in range(60))
    dls = CollabDataLoaders.from_csv(io.StringIO(csv), rating_name=name, valid_pct=0, bs=16)
    assert sorted(dls.interactions('train').values.tolist())==sorted(float(cells[j%len(cells)]) for j in range(60))

def test_other_columns_stay_numbers():
    df = read_csv(io.StringIO('user_id,price,ok,change\n1,2.50,true,0.0\n2,3.25,false,-0.0\n'))
    assert df.price.tolist()==[2.5,3.25] and df.ok.tolist()==[True,False] and df.change.dtype==float

@pytest.mark.parametrize('cells', [['007','','7'], ['007','','8'], ['07.0','','7']])
def test_zeros_in_front_are_kept_beside_a_hole(cells): assert read_csv(io.StringIO('x,y\n'+''.join(f'{o},1\n' for o in cells))).x.fillna('').tolist()==cells

def test_the_shell_keeps_ids_that_are_one_number(tmp_path):
    (tmp_path/'r.csv').write_text('who,sku,stars\n'+'\n'.join(f'{j%20},{["1.1","1.10","1e2","100"][j%4]},{1+j%5}' for j in range(200)))
    args = 'train r.csv --arch dotproductbias --user-name who --item-name sku --rating-name stars --epochs 1 --out b.recfast'.split()
    names = [str(tmp_path/o) if '.' in o else o for o in args]
    res = CliRunner().invoke(app, names)
    assert res.exit_code==0, res.output
    rec = load_bundle(tmp_path/'b.recfast')
    assert rec.items.items[1:]==['1.1','1.10','100','1e2']
    assert CliRunner().invoke(app, ['recommend',names[-1],'--user','3','--include-seen','--exclude-item','1.1','--out',str(tmp_path/'l.csv')]).exit_code==0
    assert sorted(read_table(tmp_path/'l.csv').item_id)==['1.10','100','1e2']

# times and periods as text

NS = ['2020-01-01T00:00:00.123456000','2020-01-01T00:00:00.123456789']

@pytest.mark.parametrize('zone', [None,'UTC','Europe/Berlin'])
def test_nanoseconds_of_a_text_are_those_of_the_id(zone):
    vocab = Vocab(pd.Series(pd.to_datetime(NS)).dt.tz_localize(zone))
    texts = [*NS,'2020-01-01T00:00:00.123456','20200101T000000,123456789','2020-01-01T00:00:00.1234567890','2020-01-01T00:00:00.12345678','2020-01-01T00:00:00.123457']
    assert vocab.encode(cast_ids(vocab, texts), 'zero').tolist()==[1,2,1,2,2,0,0]
    assert vocab.encode(cast_ids(vocab, json_ids(vocab, vocab.index.tolist()))).tolist()==[1,2]
    with pytest.raises(UnknownIdError, match='cannot be read as a time'): cast_ids(vocab, ['2020-01-01T00:00:00.1234567891'])

@pytest.mark.parametrize('unit', ['s','ms','us'])
def test_a_time_finer_than_the_ids_is_none_of_them(unit):
    vocab = Vocab(pd.Series(pd.to_datetime(['2020-01-01','3020-01-01'], format='ISO8601').astype(f'datetime64[{unit}]')))
    texts = ['2020-01-01','3020-01-01T00:00:00','3020-01-01T00:00:00.000000000','2020-01-01T00:00:00.000000001','2020-01-01T00:00:00.5']
    assert vocab.encode(cast_ids(vocab, texts), 'zero').tolist()==[1,2,2,0,0]

@pytest.mark.parametrize('freq,there,not_there', [('M',['2021-12','2021-12-01'],['2021-12-31',pd.Period('2021-12-05','D')]), ('Y',['2021'],['2021-06']), ('D',['2021-12-31'],['2021-12-31T12:00'])])
def test_a_part_of_a_period_is_not_the_period(freq, there, not_there):
    vocab = Vocab(pd.Series(pd.PeriodIndex([there[0]], freq=freq)))
    assert vocab.encode(cast_ids(vocab, there)).tolist()==[1]*len(there)
    for o in not_there:
        with pytest.raises(UnknownIdError, match='cannot be read as a period'): cast_ids(vocab, [o])

@pytest.mark.parametrize('freq', ['W','Q','h','M'])
def test_periods_are_read_as_they_are_written(freq):
    vocab = Vocab(pd.Series(pd.period_range('2021-11-29', periods=3, freq=freq)))
    assert vocab.encode(cast_ids(vocab, json_ids(vocab, vocab.index.tolist()))).tolist()==[1,2,3]

def test_nanoseconds_go_through_every_door(tmp_path):
    t = pd.to_datetime(NS)
    df = pd.DataFrame(dict(user_id=t[np.arange(20)%2], item_id=[f'i{(j*7+j%2*3)%23}' for j in range(20)], rating=np.tile([1.,5.],10)))
    learn = fit(without_progress(collab_learner(CollabDataLoaders.from_df(df, seed=1, bs=4, valid_pct=0), 4, y_range=(0,6))), 5)
    learn.save_bundle(tmp_path/'b.recfast')
    want = [learn.predict(o, 'i1') for o in t]
    assert want[0]!=want[1]
    with TestClient(make_app(tmp_path/'b.recfast')) as web:
        assert [web.post('/predict', json=dict(user_ids=o, item_ids='i1')).json() for o in NS]==pytest.approx(want)
        lists = [web.post('/recommend', json=dict(user_ids=[o], k=3)).json() for o in NS]
        assert [o[0]['user_id'] for o in lists]==[pd.Timestamp(o).isoformat() for o in NS]
    for text,rows in zip(NS, lists):
        assert CliRunner().invoke(app, ['recommend',str(tmp_path/'b.recfast'),'--user',text,'-k','3','--out',str(tmp_path/'l.csv')]).exit_code==0
        assert read_table(tmp_path/'l.csv').item_id.tolist()==[o['item_id'] for o in rows]
