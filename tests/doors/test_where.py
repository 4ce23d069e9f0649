"Conditions on what items are, and names beside ids: the same answers from a learner, a bundle, the shell, HTTP and files of lists"
import io
import json

import numpy as np
import pandas as pd
import pytest
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from recfast.bundle import load_bundle
from recfast.cli import app
from recfast.core import ArgumentError, RecfastError
from recfast.data.catalogues import movie_night_films
from recfast.data.features import Features
from recfast.data.loaders import CollabDataLoaders
from recfast.data.made import movie_night
from recfast.files import write_lists
from recfast.learner import collab_learner
from recfast.models import EASE
from recfast.serve import make_app

NIGHT = movie_night()
FILMS = movie_night_films().assign(in_stock=lambda d: d.item_id%3>0, price=lambda d: (d.item_id%40).astype('float32')+.99,
                                   day=lambda d: pd.Timestamp('2024-01-01')+pd.to_timedelta(d.item_id, 'D'), n=lambda d: d.item_id%7)
WARM = NIGHT[NIGHT.item_id<290]
ALL = dict(k=300, exclude_seen=False)

@pytest.fixture(scope='module')
def learn():
    what = Features(FILMS, multi={'genres': '|'}, cont='year', show=['title','price'])
    dls = CollabDataLoaders.implicit_from_df(WARM, n_neg=0, items=what, valid_pct=0)
    learn = collab_learner(dls, arch=EASE)
    with learn.quiet(): learn.fit(1)
    return learn

@pytest.fixture(scope='module')
def path(learn, tmp_path_factory): return learn.save_bundle(tmp_path_factory.mktemp('b')/'b')

@pytest.fixture(scope='module')
def rec(path): return load_bundle(path)

@pytest.fixture(scope='module')
def client(rec):
    with TestClient(make_app(rec)) as client: yield client

# what is asked: in Python, in JSON, in the shell, and what it means in pandas
ASKED = [
    ({'genres': 'Comedy'}, None, ['genres=Comedy'], lambda d: d.genres.str.contains('Comedy')),
    ({'genres': ['Comedy','Drama']}, None, ['genres=Comedy','genres=Drama'], lambda d: d.genres.str.contains('Comedy|Drama')),
    ({'year': [1990,1991]}, None, ['year=1990','year=1991'], lambda d: d.year.isin([1990,1991])),
    ({'year': (1990,1999)}, {'year': {'from': 1990, 'to': 1999}}, ['year=1990..1999'], lambda d: d.year.between(1990, 1999)),
    ({'price': (None,19.99)}, {'price': {'to': 19.99}}, ['price=..19.99'], lambda d: d.item_id%40<=19),
    ({'price': 19.99}, None, ['price=19.99'], lambda d: d.item_id%40==19),
    ({'in_stock': True}, None, ['in_stock=true'], lambda d: d.in_stock),
    ({'in_stock': False, 'n': 3}, None, ['in_stock=FALSE','n=3'], lambda d: ~d.in_stock&(d.n==3)),
    ({'day': ('2024-05-01',None)}, {'day': {'from': '2024-05-01', 'to': None}}, ['day=2024-05-01..'], lambda d: d.day>='2024-05-01'),
    ({'title': FILMS.title[294]}, None, [f'title={FILMS.title[294]}'], lambda d: d.title==FILMS.title[294]), # a cold one
]
each = pytest.mark.parametrize('where,asked,shell,means', ASKED, ids=[str(o[0]) for o in ASKED])

def wanted(means): return set(FILMS.item_id[means(FILMS)])

@each
def test_lists_hold_all_that_is_asked_for_and_nothing_else(learn, rec, where, asked, shell, means):
    mine = learn.recommend(3, where=where, **ALL)
    assert set(mine.item_id)==wanted(means)
    pd.testing.assert_frame_equal(rec.recommend(3, where=where, **ALL), mine, rtol=1e-5, atol=1e-6)
    every = learn.recommend(3, **ALL)
    assert mine.item_id.tolist()==every.item_id[every.item_id.isin(wanted(means))].tolist()

@each
def test_over_http(rec, client, where, asked, shell, means):
    res = client.post('/recommend', json=dict(user_ids=[3], k=300, exclude_seen=False, where=where if asked is None else asked))
    assert res.status_code==200 and [o['item_id'] for o in res.json()]==rec.recommend(3, where=where, **ALL).item_id.tolist()
    assert set(res.json()[0])=={'user_id','item_id','score','rank'}

@each
def test_from_the_shell(rec, path, where, asked, shell, means):
    options = [o for text in shell for o in ('--where',text)]
    res = CliRunner().invoke(app, ['recommend', str(path), '--user', '3', '-k', '300', '--include-seen', '--out', '-', *options])
    assert res.exit_code==0, res.output
    assert pd.read_csv(io.StringIO(res.stdout)).item_id.tolist()==rec.recommend(3, where=where, **ALL).item_id.tolist()

def test_histories_and_other_lists_go_with_conditions(learn):
    where = {'genres': 'Comedy'}
    told = learn.recommend(history=[5,6,7], k=300, where=where)
    assert set(told.item_id)==wanted(lambda d: d.genres.str.contains('Comedy')&~d.item_id.isin([5,6,7]))
    some = learn.recommend(3, where=where, item_ids=[1,2,3,4,295], exclude_item_ids=[4], **ALL)
    assert set(some.item_id)==wanted(lambda d: d.genres.str.contains('Comedy')&d.item_id.isin([1,2,3,295]))
    warm = learn.recommend(3, where=where, cold_items=False, **ALL)
    assert set(warm.item_id)==wanted(lambda d: d.genres.str.contains('Comedy')&(d.item_id<290))
    seen = set(WARM[WARM.user_id==3].item_id)
    assert not set(learn.recommend(3, k=300, where=where).item_id)&seen

BAD = [
    ({'genre': 'Comedy'}, "no column 'genre'; there are"), ({'year': 'old'}, "'year' holds numbers, and 'old' came"),
    ({'in_stock': 1}, "'in_stock' holds true or false, and 1 came"), ({'genres': 'Western'}, "no item has 'genres' 'Western'; there are"),
    ({'year': 1800}, "no item has 'year' 1800; there are"), ({'year': [1990,'x']}, "'year' holds numbers, and 'x' came"),
    ({'day': 'soon'}, "'day' holds times, and 'soon' came"), ({'year': True}, "'year' holds numbers, and True came"),
    ({'genres': 'Comedy', 'title': 'The Amber Almanac (1995)', 'year': 1951}, 'no item'), ({'title': '\ud800'}, "'title' holds text"),
    ({'year': None}, "'year' holds numbers, and None came"),
]

@pytest.mark.parametrize('where,says', BAD, ids=[ascii(o[0]) for o in BAD])
def test_what_cannot_be_asked_is_a_sentence_at_every_door(learn, client, where, says):
    with pytest.raises(ArgumentError, match='^where: ') as e: learn.recommend(3, where=where)
    assert says in str(e.value)
    res = client.post('/recommend', content=json.dumps(dict(user_ids=[3], where=where)), headers={'content-type': 'application/json'})
    assert res.status_code==422 and 'where' in res.json()['detail'] and len(res.json()['detail'])<500

def test_more_slips_of_python(learn):
    for where in ({'genres': ('Comedy','Drama')}, {'year': (1999,1990)}, {'year': (1,2,3)}, {'year': {'min': 3}}, [('year',1990)], {3: 4}, {'year': []}, {'year': 10**40}, {'year': float('nan')}):
        with pytest.raises(ArgumentError, match='^where'): learn.recommend(3, where=where)

def test_the_words_of_the_shell(path, learn, tmp_path):
    run = lambda *o: CliRunner().invoke(app, ['recommend', str(path), '--user', '3', *o])
    said = lambda *o: ' '.join(run(*o).stderr.split())
    assert "--where: 'year' holds numbers, and 'old' came" in said('--where', 'year=old')
    assert 'expected column=value' in said('--where', 'year')
    assert 'several values, or one range' in said('--where', 'year=1990..', '--where', 'year=3')
    other = collab_learner(CollabDataLoaders.implicit_from_df(WARM, n_neg=0, valid_pct=0), arch=EASE)
    with other.quiet(): other.fit(1)
    bare = other.save_bundle(tmp_path/'bare')
    res = CliRunner().invoke(app, ['recommend', str(bare), '--user', '3', '--where', 'year=1990'])
    assert res.exit_code==2 and 'train with --items' in ' '.join(res.stderr.split())
    with pytest.raises(ArgumentError, match='train with items='): other.recommend(3, where={'year': 1990})

def test_two_conditions_that_no_item_that_can_be_scored_meets(tmp_path):
    what = Features(FILMS, multi={'genres': '|'}, cont='year')
    learn = collab_learner(CollabDataLoaders.implicit_from_df(WARM, n_neg=0, items=what, valid_pct=0), arch=EASE, cold_tail=False)
    with learn.quiet(): learn.fit(1)
    with pytest.raises(ArgumentError, match='1 items are .* none of them can be scored here'): learn.recommend(3, where={'title': FILMS.title[294]})

# names beside ids

def test_names_that_were_named_stand_in_lists_reasons_and_neighbours(learn):
    lists = learn.recommend(3, k=3)
    assert lists.columns.tolist()==['user_id','item_id','score','rank','title','price']
    assert lists.title.tolist()==FILMS.set_index('item_id').title[lists.item_id].tolist()
    assert learn.recommend(3, k=3, show=False).columns.tolist()==['user_id','item_id','score','rank']
    assert learn.recommend(3, k=3, show='year').columns.tolist()[-1]=='year'
    assert learn.recommend(3, k=3, to='arrow').column_names[-1]=='price'
    near = learn.similar_items(5, k=2)
    assert near.title.tolist()==FILMS.set_index('item_id').title[near.item_id].tolist()
    why = learn.explain(3, item_ids=[20,21], top=2)
    assert why.because_title[0]==FILMS.set_index('item_id').title[why.because_item_id[0]]
    with pytest.raises(ArgumentError, match="show: no column 'cast'"): learn.recommend(3, show='cast')

def test_a_plain_frame_names_none_and_true_asks_for_what_models_do_not_read():
    dls = CollabDataLoaders.implicit_from_df(WARM, n_neg=0, items=movie_night_films(), valid_pct=0)
    learn = collab_learner(dls, arch=EASE)
    with learn.quiet(): learn.fit(1)
    assert learn.recommend(3).columns.tolist()==['user_id','item_id','score','rank']
    assert learn.recommend(3, show=True).columns.tolist()==['user_id','item_id','score','rank','title']

def test_a_column_called_as_one_of_lists(tmp_path):
    what = Features(FILMS.assign(score=FILMS.price, rank='a'), multi={'genres': '|'}, cont='year', show=['score','rank'])
    learn = collab_learner(CollabDataLoaders.implicit_from_df(WARM, n_neg=0, items=what, valid_pct=0), arch=EASE)
    with learn.quiet(): learn.fit(1)
    rec = load_bundle(learn.save_bundle(tmp_path/'b'))
    for o in (learn,rec): assert o.recommend(3, k=2).columns.tolist()==['user_id','item_id','score','rank','item_score','item_rank']

def test_http_shows_them_on_request(rec, client):
    res = client.post('/recommend', json=dict(user_ids=[3], k=3, show=True)).json()
    assert [o['title'] for o in res]==rec.recommend(3, k=3).title.tolist() and res[0]['price']==rec.recommend(3, k=1).price[0]
    assert 'title' in client.post('/similar', json=dict(item_ids=5, k=3, show=True)).json()[0]
    assert 'because_title' in client.post('/explain', json=dict(user_id=3, item_ids=[20], show=True)).json()[0]
    assert 'title' not in client.post('/recommend', json=dict(history=[5], k=3)).json()[0]

def test_the_screen_shows_them_and_files_do_where_asked(path, rec, tmp_path):
    run = lambda *o: CliRunner().invoke(app, ['recommend', str(path), '--user', '3', '-k', '2', *o])
    assert 'title' in run().stdout and 'title' not in run('--no-show').stdout
    assert 'title' not in run('--out', '-').stdout and 'title' in run('--out', '-', '--show').stdout

def test_empty_cells_reach_json_and_frames(tmp_path):
    films = FILMS.assign(stars=pd.array([None,3]*150, dtype='Int64'), day=pd.Series([pd.NaT,pd.Timestamp('2024-01-01')]*150))
    what = Features(films, multi={'genres': '|'}, cont='year', show=['stars','day'])
    learn = collab_learner(CollabDataLoaders.implicit_from_df(WARM, n_neg=0, items=what, valid_pct=0), arch=EASE)
    with learn.quiet(): learn.fit(1)
    with TestClient(make_app(learn.recommender)) as client:
        res = client.post('/recommend', json=dict(user_ids=[3], k=300, exclude_seen=False, show=True)).json()
    assert {o['stars'] for o in res}=={None,3} and {o['day'] for o in res}=={None,'2024-01-01T00:00:00'}
    assert set(learn.recommend(3, where={'stars': 3}, **ALL).item_id)==set(range(2, 301, 2))

def test_everybodys_lists(rec, path, tmp_path):
    where = {'genres': 'Comedy', 'year': (1990,None)}
    write_lists(rec, tmp_path/'all.parquet', k=5, where=where, show=False)
    mine = rec.recommend(k=5, where=where, show=False)
    assert pd.read_parquet(tmp_path/'all.parquet').item_id.tolist()==mine.item_id.tolist()
    res = CliRunner().invoke(app, ['recommend', str(path), '--all', '-k', '5', '--where', 'genres=Comedy', '--where', 'year=1990..', '--out', str(tmp_path/'b.parquet')])
    assert res.exit_code==0, res.output
    assert pd.read_parquet(tmp_path/'b.parquet').columns.tolist()==['user_id','item_id','score','rank']

def test_two_jobs_of_lists_are_told_apart(path, tmp_path):
    pytest.importorskip('ray')
    from recfast.scale import _job, blocks_of
    pd.DataFrame(dict(user_id=[1,2,3])).to_parquet(tmp_path/'u.parquet')
    job = lambda where: _job(path, blocks_of(tmp_path/'u.parquet'), 10, None, dict(k=3, where=where))['asked']
    assert job({'year': (1990,1999)})!=job({'year': [1990,1999]})==job({'year': [1990,1999]})

def test_a_two_part_model_answers_too():
    learn = collab_learner(CollabDataLoaders.from_df(WARM, items=Features(FILMS, multi={'genres': '|'}, cont='year', show='title'), bs=512, valid_pct=0, seed=0), arch='auto', budget=2)
    with learn.quiet(): learn.fit(1)
    lists = learn.recommend(3, k=5, where={'genres': 'Comedy'})
    assert set(lists.item_id)<=wanted(lambda d: d.genres.str.contains('Comedy')) and {'title','predicted'}<=set(lists)

def test_a_catalogue_in_a_bundle_is_held_against_its_checksum(path, tmp_path):
    import shutil
    shutil.copytree(path, tmp_path/'c')
    file, = (tmp_path/'c').glob('catalogue-*.parquet')
    data = bytearray(file.read_bytes())
    data[len(data)//2] ^= 1
    file.write_bytes(data)
    with pytest.raises(RecfastError, match='does not match its checksum'): load_bundle(tmp_path/'c')
    assert not b'pickle' in b''.join(o.read_bytes() for o in path.iterdir())

def test_times_of_a_zone_and_ids_without_a_row():
    films = FILMS.assign(at=pd.Series(pd.date_range('2024-01-01', periods=300, tz='Europe/Paris')))
    learn = collab_learner(CollabDataLoaders.implicit_from_df(WARM, n_neg=0, items=Features(films[:200], multi={'genres': '|'}), cold_items='ignore', valid_pct=0), arch=EASE)
    with learn.quiet(): learn.fit(1)
    got = learn.recommend(3, where={'at': ('2024-01-02',None)}, **ALL)
    assert set(got.item_id)==set(range(2, 201))
    assert set(learn.recommend(3, where={'at': '2023-12-31T23:00+00:00'}, **ALL).item_id)=={1}
    assert np.isin(201, learn.recommend(3, **ALL).item_id) and learn.recommend(3, show='title', **ALL).set_index('item_id').title.isna()[201]

def test_categories_of_few_values_can_be_chosen_among(rec, client):
    want = {'genres': sorted(set('|'.join(FILMS.genres).split('|'))), 'in_stock': [False,True]}
    assert rec.catalogue.choices()==want and client.get('/choices').json()==want

def test_choices_are_told_to_whoever_has_the_token(rec):
    with TestClient(make_app(rec, token='sesame')) as client:
        assert client.get('/choices').status_code==401
        assert 'Comedy' not in client.get('/').text
        assert 'genres' in client.get('/choices', headers={'authorization': 'Bearer sesame'}).json()

def test_reasons_of_new_items_over_http(rec, client):
    got = client.post('/explain', json=dict(user_id=3, item_ids=[295], top=2)).json()
    want = rec.explain(3, 295, top=2)
    assert [o['because_feature'] for o in got]==want.because_feature.tolist() and got[-1]['because_feature'] is None
    assert sum(o['contribution'] for o in got)==pytest.approx(rec.predict(3, 295), abs=1e-4)
    assert client.post('/explain', json=dict(user_id=3, item_ids=[1], by='features')).status_code==422
    assert client.post('/explain', json=dict(user_id=3, item_ids=[1], by='genres')).status_code==422
