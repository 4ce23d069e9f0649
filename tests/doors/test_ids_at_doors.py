"Ids of any type through every door: builder, predict, recommend, history, bundle, shell, HTTP give equal lists, or an error of ours"
import contextlib
import datetime
import json
import uuid
import warnings
from decimal import Decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip('fastapi')
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from recfast.bundle import ids_json, load_bundle
from recfast.cli import app
from recfast.core import RatingsError
from recfast.data.frames import shown_id
from recfast.data.loaders import CollabDataLoaders
from recfast.data.vocab import Vocab, cast_ids, read_vocab
from recfast.learner import collab_learner
from recfast.models.linear import EASE
from recfast.serve import make_app
from recfast.tables import read_csv

NEAR = 2**63-1
words = st.text(st.characters(codec='utf-8', exclude_categories=('Cc','Cs','Zl','Zp')), min_size=1, max_size=8).filter(lambda o: o.strip()==o and o!='#na#')
TYPES = dict(
    int=st.integers(-50, 50), large=st.integers(NEAR-40, NEAR), negative=st.integers(-NEAR, -NEAR+40), limit=st.integers(2**53-6, 2**53+6),
    unsigned=st.integers(2**63, 2**64-1), beyond=st.integers(2**64, 2**70), float=st.floats(-1e6, 1e6, width=32).map(lambda o: float(round(o*2))/2+0.),
    lossy=st.floats(2.**52, 2.**60), str=words, digits=st.integers(0, 10**12).map(str), uuid=st.uuids(), decimal=st.decimals(-99, 99, places=2, allow_nan=False),
    day=st.dates(datetime.date(2000,1,1), datetime.date(2030,1,1)), moment=st.datetimes(datetime.datetime(2000,1,1), datetime.datetime(2030,1,1)).map(lambda o: pd.Timestamp(o.replace(microsecond=0))))

def unordered(col): return pd.Categorical(col, categories=list(reversed(sorted(set(col)))))
FORMS = dict(series=lambda c: c, categorical=unordered, object=lambda c: c.astype(object), dictionary=lambda c: pa.array(c).dictionary_encode().to_pandas())

def column(values, n, step, form): # of a table of n rows
    col = pd.Series([values[k*step%len(values)] for k in range(n)])
    return FORMS[form](col)

def trained(df):
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        learn = collab_learner(CollabDataLoaders.implicit_from_df(df, seed=1, valid_pct=0, n_neg=0, bs=8), arch=EASE)
        with learn.quiet(): learn.fit(1)
    return learn

def rows(df): return list(zip(df.item_id.tolist(), df.score.astype(float).round(4).tolist()))

def as_a_browser(text): # its numbers are floats
    return json.loads(text, parse_int=lambda o: int(float(o)))

def check_python(learn, rec, user, items):
    want = rows(learn.recommend(user, k=3, exclude_seen=False))
    assert rows(rec.recommend(user, k=3, exclude_seen=False))==want
    told = learn.recommend(history=items[:2], k=3, exclude_seen=False)
    assert rows(rec.recommend(history=items[:2], k=3, exclude_seen=False))==rows(told)
    for form in (list, tuple, pd.Series, pd.Index, lambda o: pd.Series(o, dtype=object)): assert rows(rec.recommend(form([user]), k=3, exclude_seen=False))==want
    return want

def check_http(bundle, want):
    with TestClient(make_app(bundle)) as web:
        sent = [o['item_id'] for o in as_a_browser(web.get('/items?limit=50').text)]
        near = web.post('/similar', json=dict(item_ids=sent, k=1))
        assert near.status_code==200 and {o['query_id'] for o in as_a_browser(near.text)}<=set(sent)
        new = web.post('/recommend', json=dict(history=sent[:1], k=3, exclude_seen=False))
        assert new.status_code==200 and len(as_a_browser(new.text))==len(want) and all(o['item_id'] in sent for o in as_a_browser(new.text))

def check_shell(bundle, user, want, tmp):
    shown = user.isoformat() if hasattr(user, 'isoformat') else shown_id(user)
    out = CliRunner().invoke(app, ['recommend', str(bundle), f'--user={shown}', '-k', '3', '--include-seen', '--out', '-'])
    assert out.exit_code==0, out.stderr
    with open(tmp/'lists.csv', 'w', encoding='utf-8', newline='') as f: f.write(out.stdout)
    lists = read_csv(tmp/'lists.csv', text=['item_id'])
    assert np.allclose(lists.score, [o for _,o in want], atol=1e-4)
    assert lists['rank'].tolist()==[1,2,3][:len(want)]

@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(data=st.data())
def test_ids_of_any_type_give_equal_lists_or_an_error_of_ours(data, tmp_path_factory):
    kind = data.draw(st.sampled_from(sorted(TYPES)))
    form = data.draw(st.sampled_from(sorted(FORMS)))
    users,items = (data.draw(st.lists(TYPES[kind], min_size=3, max_size=6, unique=True)) for _ in range(2))
    tmp = tmp_path_factory.mktemp('ids')
    if form=='dictionary' and kind in ('beyond','uuid'): form = 'object' # of which Arrow has none
    df = pd.DataFrame(dict(user_id=column(users, 60, 1, form), item_id=column(items, 60, 7, form)))
    lost = kind=='lossy' and max(map(abs, users+items))>=2**53
    with pytest.raises(RatingsError, match='floats of') if lost else contextlib.nullcontext():
        learn = trained(df)
        bundle = learn.save_bundle(tmp/'b.recfast')
        rec = load_bundle(bundle)
        want = check_python(learn, rec, rec.users.index[0], rec.items.index.tolist())
        check_http(bundle, want)
        check_shell(bundle, rec.users.index[0], want, tmp)

CASES = dict(int=[3,1,2], large=[NEAR,NEAR-1,NEAR-7], limit=[2**53,2**53+1,2**53-1], unsigned=[2**64-1,2**63,2**63+1], beyond=[2**70,2**64,2**65],
    float=[1_000_003.,5_000_022.,7.5], str=['b','a','196'], uuid=[uuid.UUID(int=o) for o in (9,3,4)], decimal=[Decimal('1.50'),Decimal('7'),Decimal('-2.25')],
    day=[datetime.date(2020,1,o) for o in (3,1,2)], bytes=[b'\xff',b'a',b'\x00'])

@pytest.mark.parametrize('kind', CASES)
def test_lists_over_http_are_those_of_python(kind, tmp_path):
    ids = CASES[kind]
    learn = trained(pd.DataFrame(dict(user_id=column(ids, 60, 1, 'series'), item_id=column(ids, 60, 7, 'series'))))
    rec = load_bundle(learn.save_bundle(tmp_path/'b.recfast'))
    users,items = rec.users,rec.items
    want = rec.recommend(k=3, exclude_seen=False)
    with TestClient(make_app(rec)) as web:
        told = as_a_browser(web.get('/items?limit=9').text)
        sent = [o['item_id'] for o in told] # the same ids on both sides of this table
        got = as_a_browser(web.post('/recommend', json=dict(user_ids=sent, k=3, exclude_seen=False)).text)
        back = pd.DataFrame(dict(user_id=cast_ids(users, [o['user_id'] for o in got]), item_id=cast_ids(items, [o['item_id'] for o in got]), score=[o['score'] for o in got]))
        order = {u: k for k,u in enumerate(users.index)}
        back = back.assign(at=[order[u] for u in back.user_id]).sort_values('at', kind='stable')
        assert back.item_id.tolist()==want.item_id.tolist() and np.allclose(back.score, want.score, rtol=1e-5, atol=1e-6)
        for name,body in (('similar',dict(item_ids=sent)), ('predict',dict(user_ids=sent, item_ids=sent)), ('explain',dict(history=sent[:1])), ('recommend',dict(history=sent[:1], exclude_item_ids=sent[1:2], exclude_seen=False))):
            assert web.post(f'/{name}', json=body).status_code==200, name
        types = {o: p.get('type') for o,p in web.get('/openapi.json').json()['components']['schemas']['Near']['properties'].items()}
        if all(isinstance(o, str) for o in sent): assert types['item_id']==types['query_id']=='string'
        else: assert types['item_id'] is None

def test_a_number_that_went_through_a_float_is_no_id_over_http(tmp_path):
    learn = trained(pd.DataFrame(dict(user_id=column(CASES['large'], 60, 1, 'series'), item_id=column(CASES['large'], 60, 7, 'series'))))
    with TestClient(make_app(learn.save_bundle(tmp_path/'b.recfast'))) as web:
        for body in (b'{"user_ids": 9223372036854775807.0}', b'{"user_ids": 9.223372036854775e18}'):
            assert web.post('/recommend', content=body, headers={'content-type': 'application/json'}).status_code==404

@pytest.mark.parametrize('kind', ['float','large','uuid','decimal'])
def test_the_shell_shows_ids_as_they_are(kind, tmp_path, monkeypatch):
    monkeypatch.setattr('recfast.shell.console.width', 200)
    ids = CASES[kind]
    learn = trained(pd.DataFrame(dict(user_id=column(ids, 60, 1, 'series'), item_id=column(ids, 60, 7, 'series'))))
    bundle,user = learn.save_bundle(tmp_path/'b.recfast'),shown_id(ids[0])
    for args in (['recommend', str(bundle), f'--user={user}', '-k', '3', '--include-seen'], ['similar', str(bundle), f'--item={user}', '-k', '2']):
        for out in ([], ['--out','-']):
            said = CliRunner().invoke(app, [*args, *out])
            assert said.exit_code==0 and user in said.stdout and 'e+' not in said.stdout
            assert all(shown_id(o) in said.stdout for o in ids)

@pytest.mark.parametrize('kind', ['int','limit','large','negative'])
def test_the_ids_beside_a_graph_are_read_by_any_program(kind, tmp_path):
    ids = CASES.get(kind) or [-NEAR,-5]
    told = as_a_browser(ids_json(dict(item_id=Vocab(ids)), portable=True).decode())[0]
    assert read_vocab(told).index.tolist()==sorted(ids) and (told['kind']=='int')==(max(map(abs, ids))>2**53-1)
