"Refusals in the words of their door: what a message names can be done there"
import io

import numpy as np
import pandas as pd
import polars
import pytest
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from helpers import without_progress
from recfast.bundle import load_bundle
from recfast.cli import app, describe_bundle
from recfast.core import RatingsError, RecfastError, UnknownIdError, first_few
from recfast.data.datasets import movie_night
from recfast.data.loaders import CollabDataLoaders
from recfast.data.split import global_time_split, stratified_split
from recfast.given_lists import evaluate_lists
from recfast.learner import collab_learner
from recfast.models.linear import EASE
from recfast.serve import make_app
from recfast.shell import as_options
from recfast.tables import read_csv

FILMS = movie_night()

@pytest.fixture(scope='module')
def learn():
    dls = CollabDataLoaders.from_df(FILMS[['user_id','item_id','rating']], valid_pct=0, seed=1, bs=256)
    learn = without_progress(collab_learner(dls, 8, y_range=(0,5.5)))
    with learn.quiet(): learn.fit(1)
    return learn

@pytest.fixture(scope='module')
def bundle(learn, tmp_path_factory): return learn.save_bundle(tmp_path_factory.mktemp('words')/'b')

def shell(*args):
    res = CliRunner().invoke(app, list(map(str, args)))
    assert res.exit_code==2, res.output
    return ' '.join(res.output.split())

def asked(bundle, verb, body):
    res = TestClient(make_app(load_bundle(bundle))).post(f'/{verb}', json=body)
    assert res.status_code in (404,422), res.text
    return res.json()['detail']

# kinds of events, where none are told apart

def test_kinds_of_events_are_refused_without_an_argument_that_is_not_there(learn, bundle):
    want = "no events of kind 'buy': the training rows tell no kinds of events apart"
    with pytest.raises(RatingsError, match=want): learn.recommend(FILMS.user_id[0], exclude_seen={'buy'})
    for said in (shell('recommend', bundle, '--user', FILMS.user_id[0], '--seen-event', 'buy'),
                 asked(bundle, 'recommend', dict(user_ids=[int(FILMS.user_id[0])], exclude_seen=['buy']))):
        assert want in said and 'event_name' not in said and 'event-name' not in said

# files of a bundle

@pytest.mark.parametrize('option', ['--history','--item','--exclude-item'])
def test_a_file_without_items_says_which_column_it_wants(bundle, tmp_path, option):
    path = tmp_path/'w.csv'
    pd.DataFrame(dict(film=[1,2], stars=[5.,4.])).to_csv(path, index=False)
    who = [] if option=='--history' else ['--user',FILMS.user_id[0]]
    said = shell('recommend', bundle, *who, option, path)
    assert "'film', 'stars'" in said and "'item_id'" in said and '--item-name' not in said and 'w.csv' in said

@pytest.mark.parametrize('said,want', [
    ("event_weights has 1 that are no weights: ('buy', -1.0).", "--event-weights has 1 that are no weights: ('buy', -1.0)."),
    ("half_life is no age", "--half-life is no age"), ("weights has none", "weights has none")])
def test_an_argument_that_begins_a_sentence_is_an_option(said, want): assert as_options(said)==want

def test_a_protocol_names_no_function_of_python(tmp_path):
    df = FILMS.assign(timestamp=np.arange(len(FILMS))[::-1])
    learn = without_progress(collab_learner(CollabDataLoaders.implicit_from_df(df, n_neg=0, seed=1, bs=64), arch=EASE))
    with learn.quiet(): learn.fit(1)
    with pytest.warns(UserWarning): protocol = learn.evaluate().protocol
    assert 'a split along time prevents it' in protocol and 'global_time_split' not in protocol

def test_a_loss_without_arguments_ends_without_a_comma(bundle):
    facts = describe_bundle(bundle).set_index('what').value
    assert facts.loss.isidentifier()

# ids that are times

@pytest.mark.parametrize('ids,want', [
    (np.array(['2021-01-02','2021-01-03T04:05'], 'datetime64[ns]'), "'2021-01-02T00:00:00.000000000'"),
    (np.array([90], 'timedelta64[s]'), "'90 seconds'")])
def test_times_are_shown_as_times(ids, want):
    assert first_few(ids).startswith(want)
    with pytest.raises(UnknownIdError) as e: raise UnknownIdError(ids, 'user')
    assert want in str(e.value)

# frames that are not there yet

def lazy(): return polars.DataFrame(dict(user_id=[1], item_id=[1])).lazy()
def several():
    import datasets
    return datasets.DatasetDict(train=datasets.Dataset.from_dict(dict(user_id=[1], item_id=[1])))

@pytest.mark.parametrize('frame,want', [(lazy,r'Call its .collect\(\) first'), (several,r"pass one split that is loaded, such as d\['train'\]")])
def test_what_becomes_a_frame_is_told_how(learn, frame, want):
    doors = (CollabDataLoaders.from_df, lambda o: learn.recommend(history=o), lambda o: learn.recommend(history=[o]),
             lambda o: evaluate_lists(o, FILMS), lambda o: evaluate_lists(FILMS[['user_id','item_id']].drop_duplicates(), o))
    for door in doors:
        with pytest.raises(RatingsError, match=want): door(frame())

@pytest.mark.parametrize('given,name', [((None,FILMS),'lists'), (([1,2],FILMS),'lists'), ((FILMS[['user_id','item_id']].drop_duplicates(),None),'test'),
    ((FILMS[['user_id','item_id']].drop_duplicates(),FILMS,3),'train')])
def test_lists_that_are_none_are_called_so(given, name):
    with pytest.raises(RatingsError, match=f'^{name} is a'): evaluate_lists(*given)

# JSON

@pytest.mark.parametrize('body', [dict(user_ids=[1], item_ids=[None]), dict(user_ids=[None]), dict(history=[None]), dict(user_ids=[1], k=None),
                                  dict(history=[dict(item_id=None)])])
def test_null_is_called_null(bundle, body):
    said = asked(bundle, 'recommend', body)
    assert 'null' in said and 'boolean' not in said and said.split(':')[0].split('.')[0] in body

def test_pairs_of_item_and_rating_are_no_two_people(bundle):
    items = FILMS.item_id.unique()[:2].tolist()
    said = asked(bundle, 'recommend', dict(history=[[items[0],5.0],[items[1],4.0]]))
    assert '{"item_id": item, "rating": rating}' in said
    rows = TestClient(make_app(load_bundle(bundle))).post('/recommend', json=dict(history=[items,items[:1]])).json()
    assert {o['user_id'] for o in rows}=={0,1}

# signs

@pytest.mark.parametrize('name', ['x','sku'])
def test_a_sign_makes_another_id_in_the_first_columns(name):
    text = f'who,{name},rating\n1,+1,5\n2,1,+4\n3,-0,3\n'
    df = read_csv(io.StringIO(text))
    assert df[name].tolist()==['+1','1','-0'] and df.rating.tolist()==[5,4,3]

def test_a_sign_that_makes_no_other_id_leaves_numbers(): assert read_csv(io.StringIO('who,x,rating\n1,+7,5\n2,1,+4\n')).x.tolist()==[7,1]

# numbers that are none

@pytest.mark.parametrize('k', [2.5,0,'3',None])
def test_explain_checks_how_many_it_explains(learn, k):
    with pytest.raises(ValueError, match='^k='): learn.explain(FILMS.user_id[0], k=k)
    assert len(learn.explain(FILMS.user_id[0], FILMS.item_id[0], k=k)) # which is not asked for then

# weights of a history

def test_weights_that_a_history_has_and_nobody_reads_are_said():
    df = FILMS[['user_id','item_id']].assign(w=2.)
    learn = without_progress(collab_learner(CollabDataLoaders.implicit_from_df(df, n_neg=0, weight_name='w', seed=1, bs=64), arch=EASE))
    with learn.quiet(): learn.fit(1)
    told = df[:3].drop(columns='user_id')
    with pytest.warns(UserWarning, match="history: 'w' is not read"): got = learn.recommend(history=told, k=3)
    pd.testing.assert_frame_equal(got, learn.recommend(history=told.item_id.tolist(), k=3))

def test_a_column_that_is_called_as_ours_is_named_once(learn):
    with pytest.raises(RatingsError, match="with a column of users, 'user_id'$"): learn.evaluate(FILMS[:50], histories=FILMS[['item_id','rating']])

def test_as_many_users_as_items_are_asked_for(learn):
    with pytest.raises(ValueError, match='3 user_ids and 2 item_ids: pass as many of both'): learn.predict(FILMS.user_id[:3], FILMS.item_id[:2])

@pytest.mark.parametrize('content,said', [(b'', 'the body is empty'), (b'{', 'the body is no JSON'), (b'{"user_ids": [[1]]}', 'expected a number, text, true or false')])
def test_a_body_that_is_none_is_told_so(bundle, content, said):
    res = TestClient(make_app(load_bundle(bundle))).post('/recommend', content=content, headers={'content-type': 'application/json'})
    assert res.status_code in (400,422) and said in res.json()['detail']

# sizes that are none

@pytest.mark.parametrize('call', [lambda o: o.recommend(memory='1GB'), lambda o: o.evaluate(FILMS[:50], memory='1GB'), lambda o: o.evaluate(FILMS[:50], histories=True, memory='1GB'), lambda o: o.recommend(memory=-1)])
def test_memory_is_a_number_of_bytes(learn, call):
    with pytest.raises(ValueError, match='memory=.*, expected a number of bytes'): call(learn)

def test_memory_may_be_a_float(learn): assert learn.recommend(k=3, memory=1e9).equals(learn.recommend(k=3))

@pytest.mark.parametrize('pct', ['20%',[.2],-.1,1,float('nan')])
@pytest.mark.parametrize('split', [lambda df,pct: CollabDataLoaders.from_df(df, valid_pct=pct), lambda df,pct: CollabDataLoaders.implicit_from_df(df, valid_pct=pct),
                                   lambda df,pct: stratified_split(df.user_id, pct), lambda df,pct: global_time_split(df, pct, time_name='user_id')])
def test_a_share_is_a_number_below_one(pct, split):
    with pytest.raises(RatingsError, match='valid_pct=.*expected a share'): split(FILMS[['user_id','item_id','rating']].drop_duplicates(), pct)

@pytest.mark.parametrize('n', ['50',2.5,0,-1])
def test_factors_are_a_whole_number(learn, n):
    with pytest.raises(ValueError, match='n_factors=.*expected .*1 or more'): collab_learner(learn.dls, n_factors=n)

# a file that something else than commas parts

@pytest.mark.parametrize('sep', ';|\t')
def test_what_parts_the_cells_of_a_file_is_asked_for(sep, tmp_path):
    file = tmp_path/'r.csv'
    file.write_text('\n'.join(sep.join(o) for o in (('user_id','item_id','rating'),('1','2','4'))))
    with pytest.raises(RatingsError, match='its one column is called'): read_csv(file)
    with pytest.raises(RatingsError, match='its one column is called'): CollabDataLoaders.from_csv(file)
    res = CliRunner().invoke(app, ['train', str(file), '--out', str(tmp_path/'b')])
    assert res.exit_code==2 and "sep=';'" in res.stderr and not (tmp_path/'b').exists()

# an address

@pytest.mark.parametrize('verb,at,said', [('get','/items?query=a','/items takes limit, q'), ('get','/items?q=a&page=2','?page='),
                                          ('post','/recommend?k=3','/recommend takes its arguments as JSON in the body'), ('post','/similar?item_ids=3','?item_ids=')])
def test_names_in_an_address_that_nobody_reads_are_refused(bundle, verb, at, said):
    with TestClient(make_app(bundle)) as web:
        res = getattr(web, verb)(at, **(dict(json=dict(user_ids=[1])) if verb=='post' else {}))
        assert res.status_code==422 and said in res.json()['detail']
        assert web.get('/items?q=a&limit=2').status_code==web.get('/health?now=1').status_code==web.get('/?from=mail').status_code==200

def test_one_id_that_is_a_tuple_stands_in_a_list():
    df = FILMS[['user_id','item_id','rating']].drop_duplicates().assign(item_id=lambda o: [(a,a+1) for a in o.item_id])
    learn = collab_learner(CollabDataLoaders.from_df(df, seed=1, bs=16), n_factors=2)
    one = df.item_id.iloc[0]
    with pytest.raises(RecfastError, match='tuple stands in a list'): learn.similar_items(one)
    assert len(learn.similar_items([one], k=2))==2
