"The service over real HTTP: the answers of Python, a reason for every refusal, a stop in order"
import contextlib
import html
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import date

import numpy as np
import pandas as pd
import pytest
import torch

httpx = pytest.importorskip('httpx')
pytest.importorskip('fastapi')
from fastapi.testclient import TestClient

from helpers import free_port, served, thread_server
from recfast.bundle import load_bundle
from recfast.core import BundleError, RecfastError
from recfast.data.datasets import movie_night
from recfast.data.loaders import CollabDataLoaders
from recfast.learner import collab_learner
from recfast.page_items import words_for
from recfast.serve import RequestError, TitleSearch, make_app, serve

TOL = dict(rtol=1e-5, atol=1e-6)

CODE = "import sys; from recfast.serve import serve; serve(sys.argv[1], port=int(sys.argv[2]))"

@contextlib.contextmanager
def process_server(bundle):
    "`serve` in a process of its own: (process, address)"
    port = free_port()
    proc = subprocess.Popen([sys.executable, '-W', 'ignore', '-c', CODE, str(bundle), str(port)], stderr=subprocess.PIPE, text=True)
    try:
        for _ in range(600):
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f'http://127.0.0.1:{port}/health').status_code==200: break
            assert proc.poll() is None, proc.stderr.read()
            time.sleep(0.1)
        yield proc,f'http://127.0.0.1:{port}'
    finally:
        proc.kill()
        proc.wait()

@pytest.fixture(scope='module')
def bundle(tmp_path_factory): return served(movie_night(), item_name='title', valid_pct=0.1).save_bundle(tmp_path_factory.mktemp('serve')/'b.recfast')

@pytest.fixture(scope='module')
def rec(bundle): return load_bundle(bundle)

@pytest.fixture(scope='module')
def url(bundle):
    with thread_server(make_app(bundle, max_k=100, max_users=300, max_bytes=1_000_000)) as at: yield at

@pytest.fixture(scope='module')
def raw_servers(bundle):
    "Ports of the service behind either parser of HTTP"
    with contextlib.ExitStack() as stack:
        yield {o: int(stack.enter_context(thread_server(make_app(bundle), http=o)).rsplit(':', 1)[1]) for o in ('h11','httptools')}

@pytest.fixture(scope='module')
def web(url):
    with httpx.Client(base_url=url, timeout=60) as c: yield c

def same(rows, frame):
    assert isinstance(rows, list), rows
    pd.testing.assert_frame_equal(pd.DataFrame(rows, columns=frame.columns), frame, check_dtype=False, **TOL)

def histories(df, n, by='title'):
    "Ratings of n people as HTTP and as Python take them"
    people = [g for _,g in df.groupby('user_id')][:n]
    return ([[dict(item_id=i, rating=float(r)) for i,r in zip(g[by], g.rating)] for g in people], [dict(zip(g[by], g.rating)) for g in people])

# the same answers

@pytest.mark.parametrize('asked', [dict(), dict(k=3), dict(exclude_seen=False), dict(k=5, exclude_item_ids=True), dict(k=5, item_ids=True)])
def test_200_users_get_the_lists_of_python(web, rec, asked):
    users = [int(o) for o in rec.users.index[:200]]
    asked = {k: [str(o) for o in rec.items.index[:20]] if k.endswith('item_ids') else v for k,v in asked.items()}
    same(web.post('/recommend', json=dict(user_ids=users, **asked)).json(), rec.recommend(users, **asked))

def test_200_users_one_at_a_time_and_at_the_same_time(url, rec):
    users = [int(o) for o in rec.users.index[:200]]
    with httpx.Client(base_url=url, timeout=60) as c, ThreadPoolExecutor(20) as ex:
        rows = list(ex.map(lambda u: c.post('/recommend', json=dict(user_ids=u, k=1+u%10)).json(), users))
    for u,got in zip(users, rows): same(got, rec.recommend(u, k=1+u%10))

def test_50_histories_get_the_lists_of_python(web, rec):
    given,known = histories(movie_night(), 50)
    same(web.post('/recommend', json=dict(history=given)).json(), rec.recommend(history=known))
    same(web.post('/recommend', json=dict(history=given[0], k=4)).json(), rec.recommend(history=known[0], k=4))

def test_bare_ids_and_entries_without_a_rating_are_liked(web, rec):
    a,b = (str(o) for o in rec.items.index[:2])
    want = rec.recommend(history=[a,b])
    for given in ([a,b], [dict(item_id=a),dict(item_id=b)], [a,dict(item_id=b, rating=5)]):
        same(web.post('/recommend', json=dict(history=given)).json(), want)

def test_text_is_the_id_it_says(web, rec): same(web.post('/recommend', json=dict(user_ids='7')).json(), rec.recommend(7))

def test_similar_and_predict(web, rec):
    a,b = (str(o) for o in rec.items.index[:2])
    same(web.post('/similar', json=dict(item_ids=[a,b], k=3)).json(), rec.similar_items([a,b], k=3))
    assert web.post('/predict', json=dict(user_ids=7, item_ids=a)).json()==pytest.approx(rec.predict(7, a), rel=1e-5)
    np.testing.assert_allclose(web.post('/predict', json=dict(user_ids=['7',8], item_ids=[a,b])).json(), rec.predict([7,8], [a,b]), **TOL)
    assert web.post('/predict', json=dict(user_ids=[7,999], item_ids=a, on_unknown='drop')).json()[1] is None

DAYS = pd.to_datetime(['2020-01-01','2021-02-03'])
IDS = {'2021-02-03': [date(2020,1,1),date(2021,2,3)], '2021-02-03T00:00:00': DAYS, '2021-02-03T00:00:00+00:00': DAYS.tz_localize('UTC'),
       'P0DT2H0M0S': pd.to_timedelta([1,2], unit='h'), '2.5': [1.5,2.5], 'true': [False,True], '김치': ['7','김치'], '-5': [9,-5]}

@pytest.mark.parametrize('text', IDS)
def test_text_becomes_an_id_of_any_type(text):
    ids = pd.Series(list(IDS[text]))
    df = pd.DataFrame(dict(user_id=ids.repeat(3).reset_index(drop=True), item_id=[1,2,3]*2, rating=[1.,2,5]*2))
    learn = collab_learner(CollabDataLoaders.from_df(df, bs=2, valid_pct=0), n_factors=3)
    ask = dict(exclude_seen=False, k=2)
    with TestClient(make_app(learn.recommender)) as web:
        got = web.post('/recommend', json=dict(user_ids=text, **ask)).json()
        assert web.post('/recommend', json=dict(user_ids=got[0]['user_id'], **ask)).json()==got # what goes out may come in
        refused = web.post('/recommend', json=dict(user_ids=[[]], **ask))
    assert [o['item_id'] for o in got]==learn.recommend(ids[1], **ask).item_id.tolist() and refused.status_code==422

def test_explain(web, rec):
    given,known = histories(movie_night(), 1)
    films = rec.recommend(history=known[0], k=3).item_id.tolist()
    same(web.post('/explain', json=dict(history=given[0], item_ids=films, top=3)).json(), rec.explain(history=known[0], item_ids=films, top=3))
    same(web.post('/explain', json=dict(user_id='7', k=2)).json(), rec.explain(7, k=2))

class Pairs(torch.nn.Module):
    "Neither vectors nor tables: the score is a function of the rows"
    def forward(self, x): return (x[:,0]*7+x[:,1]*3).remainder(11).float()

def test_the_map_is_of_those_who_may_ask_and_of_models_with_vectors(monkeypatch):
    learn = served(movie_night(), item_name='title', valid_pct=0.1)
    with TestClient(make_app(learn.recommender)) as web:
        got = web.get('/map')
        told = [v.decode() for k,v in got.headers.raw if k==b'content-security-policy']
        assert got.status_code==200 and len(told)==1 and told[0].count('sha256-')==2 and 'unsafe' not in told[0]
        assert got.headers['x-content-type-options']=='nosniff' and got.text==web.get('/map').text
    with TestClient(make_app(learn.recommender, token='open sesame')) as web:
        assert web.get('/map').status_code==401 and ' map' not in re.search('data-can="(.*?)"', web.get('/').text)[1]
        assert web.get('/map', headers=dict(authorization='Bearer open sesame')).status_code==200
    monkeypatch.setattr('recfast.worker.MAP_ITEMS', 10)
    with TestClient(make_app(learn.recommender)) as web: assert web.get('/map').status_code==404

def test_what_a_model_cannot_do_is_said_and_no_error_of_the_server():
    learn = collab_learner(CollabDataLoaders.from_df(movie_night(), item_name='title', bs=512, seed=42), arch=Pairs())
    film = learn.dls.classes['title'][1]
    with TestClient(make_app(learn.recommender)) as web:
        assert web.get('/health').json()['can']==dict(history=False, similar=False, explain=False, session=False, map=False)
        asked = [('/similar', dict(item_ids=film)), ('/recommend', dict(history=[film])), ('/explain', dict(history=[film]))]
        got = [web.post(path, json=body) for path,body in asked]
        same(web.post('/recommend', json=dict(user_ids=[1,2])).json(), learn.recommend([1,2]))
    assert [o.status_code for o in got]==[422]*3 and 'Pairs has no item vectors' in got[0].json()['detail']

def test_search_finds_words_anywhere_best_first(web, rec):
    word = max((w for o in rec.items.index for w in str(o).split() if w.isalpha()), key=len)
    rows = web.get('/items', params=dict(q=word.upper(), limit=50)).json()
    assert {o['item_id'] for o in rows}=={o for o in rec.items.index if word.lower() in o.lower()}
    top = web.get('/items', params=dict(limit=3)).json()
    assert [o['n_ratings'] for o in top]==sorted(rec.train.counts('item')[1:], reverse=True)[:3]

def test_search_does_not_mind_accents_and_puts_the_beginning_first():
    films = ['Amélie','The Amelie Story','Melies']
    df = pd.DataFrame(dict(user_id=[1,1,1,2,2,2,2], title=[*films,*films,'Melies'], rating=[1.,2,3,4,5,4,4]))
    dls = CollabDataLoaders.from_df(df, item_name='title', bs=2, valid_pct=0)
    search = TitleSearch(collab_learner(dls, n_factors=3).recommender)
    assert [o['item_id'] for o in search('amelie')]==['Amélie','The Amelie Story']
    assert [o['item_id'] for o in search('story AM')]==['The Amelie Story']
    assert search('melie')[0]['item_id']=='Melies' and search('zzz')==[]

# what is refused

def rec_(status, why, **body): return 'recommend',body,status,why

REFUSED = [
    rec_(404, 'unknown user id: 999999', user_ids=999_999), rec_(404, 'unknown user id', user_ids=[1,2**70]),
    rec_(404, "unknown item id: 'no'", user_ids=1, item_ids='no'),
    rec_(404, "unknown user id: 'anna'. This cannot be read as a whole number", user_ids='anna'), rec_(404, 'whole number', user_ids=1.5),
    rec_(404, 'whole number', user_ids=True), rec_(404, "unknown item id: '7'", user_ids=1, item_ids=7),
    rec_(404, "unknown item id: 'x'", history=[dict(item_id='x', rating=5)]), rec_(422, 'user_ids or history'),
    rec_(422, 'user_ids or history', user_ids=1, history=[]), rec_(422, 'at most 300', user_ids=[1]*301),
    rec_(422, 'at most 300', history=[[]]*301), rec_(422, 'k: ', user_ids=1, k=0), rec_(422, 'k: ', user_ids=1, k=101),
    rec_(422, 'exclude_seen', user_ids=1, exclude_seen=[]), rec_(422, 'k: ', user_ids=1, k='ten'), rec_(422, 'user: ', user=1), rec_(422, 'on_unknown: ', user_ids=1, on_unknown='ignore'),
    rec_(422, 'history', history=[dict(rating=5)]), rec_(422, 'outside the training data', history=[dict(item_id='FILM', rating=50)]),
    rec_(422, 'rating: ', history=[dict(item_id='FILM', rating='good')]), rec_(422, 'history', history=['FILM',['FILM']]),
    ('recommend', [1], 422, ''), ('similar', {}, 422, 'item_ids: '), ('similar', dict(item_ids='x'), 404, 'unknown item id'),
    ('predict', dict(user_ids=[1,2], item_ids=['FILM']*3), 422, 'as many'),
    ('predict', dict(user_ids=1, item_ids='x'), 404, 'unknown item id'), ('explain', {}, 422, 'user_id or history')]

@pytest.mark.parametrize('path, body, status, why', REFUSED)
def test_bad_input_is_refused_with_a_reason(web, rec, path, body, status, why):
    got = web.post(f'/{path}', content=json.dumps(body).replace('FILM', str(rec.items.index[0])), headers={'content-type': 'application/json'})
    assert got.status_code==status and why in got.json()['detail']

@pytest.mark.parametrize('path, body', [('recommend', dict(user_ids=999_999)), ('recommend', dict(user_ids=999_999, item_ids=['FILM'])),
                                        ('predict', dict(user_ids=999_999, item_ids='FILM')), ('explain', dict(user_id=999_999, item_ids='FILM'))])
def test_an_unknown_user_is_shown_the_way_of_http(web, rec, path, body):
    film = str(rec.items.index[0])
    said = web.post(f'/{path}', json={k: json.loads(json.dumps(v).replace('FILM', film)) for k,v in body.items()}).json()['detail']
    assert said.endswith('send "history": [{"item_id": ..., "rating": ...}] to /recommend.') and 'history={' not in said
    assert 'history={' in rec.new_user_hint # what was given is as it was

def test_nobody_is_told_who_else_is_there():
    df = movie_night().assign(user_id=lambda d: 'p'+d.user_id.astype(str)+'@example.org')
    rec = served(df).recommender
    with TestClient(make_app(rec)) as web:
        said = [web.post('/recommend', json=dict(user_ids=o)).text for o in ('p9@example.com',True,[['p9']])]
        assert 'The model knows 600 users of type str.' in said[0] and 'which the user ids of this model are.' in said[1]
        for text in (*said, *(web.get(o).text for o in ('/','/docs','/openapi.json','/health','/metrics'))): assert '@example.org' not in text
        assert 'such as' in web.post('/similar', json=dict(item_ids='x')).text # items are no secret
    assert ' such as ' in str(pytest.raises(RecfastError, rec.recommend, 'p9').value)

NINES = '9'*4000
STRANGE = {'{': 400, '['*10_000: 400, b'\xff\xfe{': 400, '{"user_ids": 9%s%s}'%(NINES, NINES): 400, '': 422, 'null': 422, '"x"': 422,
    '{"user_ids": NaN}': 404, '{"user_ids": Infinity}': 404, '{"user_ids": 1e400}': 404, '{"user_ids": "%s"}'%NINES: 404,
    '{"user_ids": 1, "k": %s}'%NINES: 422, '{"\\ud800": 1}': 422, '{"history": [{"item_id": "\\ud800"}]}': 422,
    '{"history": [{"item_id": "a", "rating": NaN}]}': 422, '{"history": [{"item_id": "a", "rating": %s}]}'%NINES[:400]: 422}

@pytest.mark.parametrize('body, status', STRANGE.items(), ids=range(len(STRANGE)))
def test_strange_bodies_are_refused(web, body, status):
    got = web.post('/recommend', content=body, headers={'content-type': 'application/json'})
    assert got.status_code==status and got.json()['detail'] and len(got.content)<2000

def test_no_user_and_no_rating(web, rec):
    assert web.post('/recommend', json=dict(user_ids=[])).json()==[]
    same(web.post('/recommend', json=dict(history=[])).json(), rec.recommend(history=[])) # one person of whom nothing is known

def test_a_body_that_is_too_large_is_refused_while_it_comes(web):
    assert web.post('/recommend', content=b' '*1_000_001).status_code==413
    def parts():
        for _ in range(11): yield b' '*100_000
    got = web.post('/recommend', content=parts(), headers={'content-type': 'application/json'}) # no content-length
    assert got.status_code==413 and 'larger than 1000000 bytes' in got.json()['detail']

def test_unknown_policies(web, rec):
    ask = dict(user_ids=[7,999], k=3)
    same(web.post('/recommend', json=dict(**ask, on_unknown='drop')).json(), rec.recommend(7, k=3))
    same(web.post('/recommend', json=dict(**ask, on_unknown='fallback')).json(), rec.recommend([7,999], k=3, on_unknown='fallback'))
    assert web.post('/recommend', json=dict(**ask, on_unknown='warn')).json()==web.post('/recommend', json=dict(**ask, on_unknown='fallback')).json()

# the door

def test_a_token_opens_everything_and_only_pages_without_data_are_open():
    learn = collab_learner(CollabDataLoaders.from_df(movie_night(), item_name='title', bs=512, seed=42), n_factors=5)
    with TestClient(make_app(learn.recommender, token='open sesame')) as web:
        closed = [web.post(f'/{o}', json={}) for o in ('recommend','similar','predict','explain','nowhere')]+[web.get('/items'), web.get('/metrics')]
        assert {o.status_code for o in closed}=={401} and closed[0].headers['www-authenticate']=='Bearer' and 'token' in closed[0].json()['detail']
        assert {web.get(o).status_code for o in ('/','/health','/docs','/openapi.json','/page.js')}=={200}
        for given in ('Bearer open sesam', 'Bearer open sesame2', 'open sesame', 'Basic open sesame', 'Bearer', ''):
            assert web.get('/metrics', headers={'authorization': given}).status_code==401
        for given in ('Bearer open sesame', 'bearer open sesame'): assert web.get('/items', headers={'authorization': given}).status_code==200
        assert 'HTTPBearer' in web.get('/openapi.json').json()['components']['securitySchemes']

def test_health_and_metrics(web, rec):
    said = web.get('/health').json()
    assert said=={**said, 'status': 'ok', 'model': 'DotProductBias', 'n_users': rec.n_users-1, 'n_items': rec.n_items-1}
    assert said['can']['history'] and said['can']['similar']
    read = lambda: {o.rsplit(' ', 1)[0]: float(o.rsplit(' ', 1)[1]) for o in web.get('/metrics').text.splitlines() if not o.startswith('#')}
    before = read()
    web.post('/recommend', json=dict(user_ids=[1,2,3]))
    web.post('/recommend', json=dict(user_ids=999_999))
    web.get('/made-up/by/a/client')
    after = read()
    rise = lambda k: after[k]-before.get(k, 0)
    assert [rise('recfast_requests_total{path="/recommend",status="%d"}'%o) for o in (200,404)]==[1,1]
    assert rise('recfast_requests_total{path="other",status="404"}')==1 and not any('made-up' in k for k in after)
    assert rise('recfast_batch_users_sum')==3 and rise('recfast_request_seconds_count{path="/recommend"}')==2

def test_no_cookie_and_nothing_from_elsewhere(web):
    for path in ('/','/docs','/health','/page.js','/docs.js','/page.css','/nowhere'):
        got = web.get(path)
        assert 'set-cookie' not in got.headers and got.headers['x-content-type-options']=='nosniff'
        assert "default-src 'none'" in got.headers['content-security-policy'] and 'unsafe' not in got.headers['content-security-policy']
        assert not [o for o in ('http://','https://','//cdn') if o in got.text.replace('http://www.w3.org/2000/svg', '')]

def test_answers_stay_apart_under_load(url, rec):
    rnd = random.Random(0)
    def some():
        yield dict(user_ids=rnd.randrange(1, 300), k=rnd.randrange(1, 20))
        yield from (dict(user_ids=999_999), dict(user_ids='x'), dict(user_ids=[5,6], exclude_seen=False))
        yield dict(history=[str(rec.items.index[rnd.randrange(200)])])
    asks = [rnd.choice(list(some())) for _ in range(150)]
    with httpx.Client(base_url=url, timeout=60) as c, ThreadPoolExecutor(16) as ex: got = list(ex.map(lambda a: c.post('/recommend', json=a), asks))
    for a,o in zip(asks, got):
        if a.get('user_ids') in ('x',999_999): assert o.status_code==404
        else: same(o.json(), rec.recommend(**a))

def test_a_client_that_leaves_hurts_nobody(url, rec):
    with httpx.Client(base_url=url) as c, pytest.raises(httpx.ReadTimeout):
        c.post('/recommend', json=dict(user_ids=list(range(1, 301)), k=100), timeout=0.001)
    same(httpx.post(f'{url}/recommend', json=dict(user_ids=3)).json(), rec.recommend(3))

@pytest.mark.slow
@pytest.mark.skipif(os.name=='nt', reason='signals of POSIX')
def test_it_listens_on_this_machine_only_and_a_stop_answers_who_asked_before(bundle, rec):
    known = [str(o) for o in rec.items.index]
    given = [known[j%100:j%100+100] for j in range(600)] # seconds of work, so that all three are still asked when the stop comes
    with process_server(bundle) as (proc,at), ThreadPoolExecutor(3) as ex:
        with socket.socket() as s: s.bind(('127.0.0.2', int(at.rsplit(':', 1)[1]))) # the port is free on any other address
        asked = [ex.submit(httpx.post, f'{at}/recommend', json=dict(history=given, k=50+j), timeout=60) for j in range(3)]
        while 'recfast_requests_in_progress 4.0' not in httpx.get(f'{at}/metrics').text: assert not any(o.done() for o in asked) # 3, and this one
        proc.send_signal(signal.SIGTERM)
        rows = [o.result() for o in asked]
        assert [o.status_code for o in rows]==[200]*3 and len(rows[0].json())==len(rec.recommend(history=given, k=50))
        assert 'Traceback' not in proc.communicate(timeout=30)[1] and proc.returncode==0
        with pytest.raises(httpx.ConnectError): httpx.get(f'{at}/health')

def test_a_wrong_bundle_is_a_bundle_error(tmp_path):
    with pytest.raises(BundleError, match='there is no'): make_app(tmp_path/'none')

@pytest.mark.parametrize('token', ['',' ','ключ','a\nb'])
def test_a_token_that_no_header_can_carry_is_refused(bundle, token):
    with pytest.raises(RequestError, match='printable ASCII'): make_app(bundle, token=token)

RAW = [b'POST /recommend HTTP/1.1\r\nhost: x\r\ncontent-length: abc\r\n\r\n', b'POST /recommend HTTP/1.1\r\nhost: x\r\ncontent-length: -5\r\n\r\n',
       b'GET /items?q=%ff%fe%00 HTTP/1.1\r\nhost: x\r\n\r\n', b'GET /\xff%c0%af..%2f..%2fetc HTTP/1.1\r\nhost: x\r\n\r\n', b'GET /../../setup.cfg HTTP/1.1\r\nhost: x\r\n\r\n',
       b'GET /metrics HTTP/1.1\r\nhost: x\r\nauthorization: \xff\xfe\r\n\r\n', b'\x00\x01\r\n\r\n']

@pytest.mark.parametrize('http', ['h11','httptools'])
@pytest.mark.parametrize('raw', RAW, ids=range(len(RAW)))
def test_raw_bytes_are_no_error_of_the_server(raw_servers, raw, http):
    with socket.create_connection(('127.0.0.1', raw_servers[http])) as s:
        s.settimeout(10)
        s.sendall(raw)
        got = s.recv(65536)
    assert got==b'' or re.match(rb'HTTP/1.1 [24]', got), got[:200]

# fuzzing by the description

@pytest.mark.slow
def test_nothing_that_the_description_allows_or_forbids_is_a_500(bundle, tmp_path):
    checks = 'not_a_server_error,status_code_conformance,response_schema_conformance,content_type_conformance'
    with thread_server(make_app(bundle)) as at:
        command = [sys.executable, '-c', 'from schemathesis.cli import schemathesis; schemathesis()', 'run', f'{at}/openapi.json']
        run = subprocess.run([*command, '--checks', checks, '--max-examples', '12', '--seed', '1'], capture_output=True, cwd=tmp_path, env={**os.environ, 'PYTHONIOENCODING': 'utf-8'})
    said = run.stdout.decode('utf-8')
    assert run.returncode==0 and int(re.search(r'(\d+) generated', said)[1])>150, said[-3000:]

def test_a_port_that_is_taken_is_named():
    with socket.create_server(('127.0.0.1', 0)) as s, pytest.raises(RecfastError, match=f'cannot listen at 127.0.0.1, port {s.getsockname()[1]}'):
        serve(served(movie_night(), item_name='title').recommender, port=s.getsockname()[1])

WORDS = {'film': ('film','films'), 'films': ('film','films'), 'story': ('story','stories'), 'goose/geese': ('goose','geese'), ' board game ': ('board game','board games'),
    '<b>&"': ('<b>&"','<b>&"s'), '영화/영화': ('영화','영화')}

@pytest.mark.parametrize('word', WORDS)
def test_a_word_of_one_s_own(word, rec):
    one,many = WORDS[word]
    assert words_for(rec, word)==(one,many)
    with TestClient(make_app(rec, word=word)) as web: text = web.get('/').text
    assert f'data-word="{html.escape(one)}" data-words="{html.escape(many)}"' in text
    assert f'Search by {html.escape(one)}</label>' in text and f'{html.escape(many)} you know' in text

@pytest.mark.parametrize('word', ['',' ','/films','a\nb'])
def test_no_word_at_all(word, rec):
    with pytest.raises(RecfastError, match='what an item is called'): make_app(rec, word=word)
