"A service that notes its lists and deals people among models: what is in the log is what was answered, and nothing else"
import json
from functools import partial

import pytest

pytest.importorskip('fastapi')
from starlette.testclient import TestClient
from typer.testing import CliRunner

from helpers import FRAME, fit, fit_one_cycle, learner_of
from recfast.arms import arm_of, compare_arms
from recfast.bundle import load_bundle
from recfast.cli import app
from recfast.core import RecfastError
from recfast.data.loaders import CollabDataLoaders
from recfast.dealt import Arms, who_asks
from recfast.events import EventLog, read_events
from recfast.keys import visit_name
from recfast.learner import collab_learner
from recfast.models.knn import ItemKNN
from recfast.models.linear import Popularity
from recfast.noted import REQUEST, NotedAnswers
from recfast.serve import make_app
from recfast.tables import write_text
from recfast.testing import synth_ratings
from recfast.watch import CURRENT, Watch
from recfast.workers import Service, arm_shares, built

ROWS = synth_ratings(30, 25, 500)
USERS = sorted(ROWS.user_id.unique().tolist())
MODEL,ARM = 'x-recfast-model','x-recfast-arm'

def save(path, arch=Popularity, df=ROWS):
    return fit_one_cycle(collab_learner(CollabDataLoaders.implicit_from_df(df, n_neg=0, valid_pct=0), arch=arch)).save_bundle(path)

@pytest.fixture(scope='module')
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp('noted')
    save(home/'main.recfast')
    save(home/'near.recfast', ItemKNN, ROWS.assign(item_id=ROWS.item_id+(ROWS.index%50==0)*1000)) # some items are its own
    return home

@pytest.fixture
def log(tmp_path):
    log = EventLog(tmp_path/'log')
    yield log
    if not log.stop.is_set(): log.close()

def noting(log): return partial(make_app, answers=partial(NotedAnswers, log=log))

def ask(web, status=200, **body):
    got = web.post('/recommend', json=body)
    assert got.status_code==status, got.text
    return got

def digest(path): return load_bundle(path).info['checksum'][:16]

def test_without_a_log_nothing_is_written_and_nothing_is_promised(home, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = {o: o.stat().st_mtime_ns for o in home.rglob('*')}
    with TestClient(make_app(home/'main.recfast')) as web:
        assert REQUEST not in ask(web, user_ids=USERS[0]).headers
        assert web.post('/events', json={}).status_code==404 and '/events' not in web.get('/openapi.json').json()['paths']
    assert list(tmp_path.iterdir())==[] and before=={o: o.stat().st_mtime_ns for o in home.rglob('*')}

def test_what_is_noted_is_what_was_answered(home, log):
    a,b = USERS[:2]
    with TestClient(noting(log)(home/'main.recfast')) as web:
        told = {o.headers[REQUEST]: o.json() for o in (ask(web, user_ids=a, k=3), ask(web, user_ids=str(a), k=2), ask(web, user_ids=[a,b], k=4),
                                                       ask(web, user_ids=a, k=5, item_ids=ROWS.item_id[:9].tolist()))}
    log.close()
    df = read_events(log.folder)
    assert set(df.kind)=={'impression'} and set(df.digest)=={digest(home/'main.recfast')} and df.arm.isna().all()
    for asked,rows in told.items():
        of = df[df.request_id==asked]
        assert of.item_id.tolist()==[o['item_id'] for o in rows] and of['rank'].tolist()==[o['rank'] for o in rows]
        assert of.user_key.tolist()==[log.name_of(o['user_id']) for o in rows]
    assert df.k.value_counts().to_dict()=={3: 3, 2: 2, 4: 8, 5: 5}

def test_people_of_a_history_have_no_name(home, log):
    some = ROWS.item_id[:3].tolist()
    with TestClient(noting(log)(home/'near.recfast')) as web:
        ask(web, history=some, k=2)
        ask(web, history=[some,some[:1]], k=2)
    log.close()
    df = read_events(log.folder)
    assert len(df)==6 and df.user_key.isna().all() # the lists are numbered from 0, which is nobody's id

def test_a_session_of_a_known_user_is_theirs(tmp_path, log):
    df = FRAME
    learn = fit(learner_of('sequentialrules'), 1)
    with TestClient(noting(log)(learn.save_bundle(tmp_path/'b'))) as web:
        ask(web, session=df.item_id[:2].tolist(), k=2)
        ask(web, session=df.item_id[:2].tolist(), user_ids=df.user_id[0].item(), k=3)
    log.close()
    df = read_events(log.folder)
    assert df.user_key.isna().tolist()==[True]*2+[False]*3 and df.user_key[2]==log.name_of(FRAME.user_id[0].item())

@pytest.mark.parametrize('change,status,said', [
    (dict(request_id='made up'), 422, 'no request of this service'), (dict(request_id='a-b-c'), 422, 'no request'), (dict(item_id=999), 404, 'unknown item id: 999'),
    (dict(item_id='film'), 404, 'unknown item id'), (dict(kind='impression'), 422, 'noted as they are returned'), (dict(kind=''), 422, 'kind'),
    (dict(user_id=USERS[1]), 422, 'somebody else'), (dict(user_id='Ann'), 404, 'unknown user id'), (dict(value='much'), 422, 'value'),
    (dict(time=5), 422, 'time: Extra inputs'), (dict(item_id=None), 422, 'item_id'), (dict(item_id=[1]), 422, 'item_id'), (dict(kind='\ud800'), 422, 'kind'),
    (dict(request_id='\ud800'), 422, 'request'), (dict(item_id='\ud800'), 422, 'no text')])
def test_what_is_no_event_is_refused_with_a_sentence(home, log, change, status, said):
    with TestClient(noting(log)(home/'main.recfast')) as web:
        got = ask(web, user_ids=USERS[0], k=1)
        event = dict(request_id=got.headers[REQUEST], kind='click', item_id=got.json()[0]['item_id'])
        refused = web.post('/events', content=json.dumps(event|change), headers={'content-type': 'application/json'})
        assert refused.status_code==status and said in refused.json()['detail'], refused.text
        assert log.journal.size==0
        assert web.post('/events', json=event).status_code==201

def test_nan_is_no_value(home, log):
    with TestClient(noting(log)(home/'main.recfast')) as web:
        got = ask(web, user_ids=USERS[0], k=1)
        text = json.dumps(dict(request_id=got.headers[REQUEST], kind='buy', item_id=got.json()[0]['item_id'], value=float('nan')))
        assert web.post('/events', content=text, headers={'content-type': 'application/json'}).status_code==422 and log.journal.size==0

def test_what_is_not_written_is_not_acknowledged(home, log, monkeypatch):
    with TestClient(noting(log)(home/'main.recfast')) as web:
        got = ask(web, user_ids=USERS[0], k=1)
        event = dict(request_id=got.headers[REQUEST], kind='click', item_id=got.json()[0]['item_id'], value=2.5, user_id=USERS[0])
        with monkeypatch.context() as m:
            def full(data): raise OSError(28, 'No space left on device')
            m.setattr(log.journal, 'write', full)
            said = web.post('/events', json=event)
            assert said.status_code==503 and 'No space left on device' in said.json()['detail']
        assert web.post('/events', json=event).json()==dict(status='noted')
    log.close()
    clicks = read_events(log.folder).query('kind=="click"')
    assert len(clicks)==1 and clicks.value.item()==2.5 and clicks.digest.item()==digest(home/'main.recfast')

def test_the_description_tells_of_events_and_a_token_guards_them(home, log):
    with TestClient(noting(log)(home/'main.recfast', token='open sesame')) as web:
        assert web.post('/events', json={}).status_code==401
        told = web.get('/openapi.json').json()['paths']
        assert {'201','401','404','422','503'}-{'401'} <= set(told['/events']['post']['responses'])
        assert REQUEST in told['/recommend']['post']['responses']['200']['headers']

def test_swapped_models_go_on_noting_with_their_digest(home, tmp_path, log):
    folder = tmp_path/'models'
    save(folder/'a')
    save(folder/'b', df=ROWS[:400])
    write_text(folder/CURRENT, 'a')
    watch = Watch(folder, noting(log))
    with TestClient(watch) as web:
        first = ask(web, user_ids=USERS[0], k=2)
        write_text(folder/CURRENT, 'b')
        watch.swap(watch.newer())
        second = ask(web, user_ids=USERS[0], k=2)
        for o in (first,second): # a click on a list of before the swap counts too
            assert web.post('/events', json=dict(request_id=o.headers[REQUEST], kind='click', item_id=o.json()[0]['item_id'])).status_code==201
    log.close()
    df = read_events(log.folder)
    for o,name in ((first,'a'),(second,'b')):
        of = df[df.request_id==o.headers[REQUEST]]
        assert len(of)==3 and set(of.digest)=={digest(folder/name)}=={o.headers[MODEL]}

# arms

@pytest.fixture
def dealt(home, log):
    with TestClient(built(Service(home/'main.recfast', arms={home/'near.recfast': .4}, experiment='june', events=log.folder), log)) as web: yield web

def test_a_person_is_answered_by_the_model_of_their_arm(home, dealt, log):
    lists = {name: load_bundle(home/f'{name}.recfast').recommend(USERS, k=3, show=False, progress=False) for name in ('main','near')}
    arms = {}
    for user in USERS:
        got = ask(dealt, user_ids=user, k=3)
        arm = arms[user] = got.headers[ARM]
        assert arm==arm_of(log.name_of(user), dict(main=.6, near=.4), 'june') and got.headers[MODEL]==digest(home/f'{arm}.recfast')
        of = lists[arm]
        assert [o['item_id'] for o in got.json()]==of[of.user_id==user].item_id.tolist()
        assert ask(dealt, user_ids=[str(user)], k=1).headers[ARM]==arm
    assert set(arms.values())=={'main','near'}
    for path,body in (('/predict',dict(user_ids=user, item_ids=ROWS.item_id[0].item())),('/explain',dict(user_id=user, k=1))):
        assert dealt.post(path, json=body).headers[ARM]==arms[user]
    log.close()
    df = read_events(log.folder)
    assert len(df)==4*len(USERS) and (df.arm==df.user_key.map({log.name_of(u): a for u,a in arms.items()})).all()

def test_what_is_about_nobody_is_in_no_arm(home, dealt, log):
    some = ROWS.item_id[:3].tolist()
    for body in (dict(user_ids=USERS[:2]),dict(history=some)):
        got = ask(dealt, **body)
        assert ARM not in got.headers and got.headers[MODEL]==digest(home/'main.recfast')
    assert ARM not in dealt.get('/health').headers and ARM not in dealt.post('/similar', json=dict(item_ids=some[0])).headers
    log.close()
    assert read_events(log.folder).arm.isna().all()

def test_errors_are_those_of_the_arm(home, dealt):
    strangers = [ask(dealt, 404, user_ids=10_000+n) for n in range(20)]
    assert {o.headers[ARM] for o in strangers}=={'main','near'}
    assert all(o.headers[MODEL]==digest(home/f'{o.headers[ARM]}.recfast') for o in strangers)
    as_json = {'content-type': 'application/json'}
    assert dealt.post('/recommend', content='{', headers=as_json).status_code==400 and ask(dealt, 422, user_ids={}).status_code==422
    assert ask(dealt, 422, user_ids=None).status_code==422 and ask(dealt, 404, user_ids='Ann').status_code==404
    assert dealt.post('/recommend', content=b'['*2**20+b' '*2**22, headers=as_json).status_code==413

def test_an_item_of_either_model_may_be_clicked(dealt):
    own = next(i for i in range(1000, 1030) if dealt.post('/events', json=dict(request_id='', kind='click', item_id=i)).status_code==422)
    asked = ask(dealt, user_ids=USERS[0]).headers[REQUEST]
    assert dealt.post('/events', json=dict(request_id=asked, kind='click', item_id=own)).status_code==201
    assert dealt.post('/events', json=dict(request_id=asked, kind='click', item_id=5000)).status_code==404

def test_a_visit_stays_in_the_arm_in_which_it_began():
    first = [who_asks(dict(session=[7,*range(n)])) for n in range(5)]
    assert set(first)=={('session',7)} and who_asks(dict(session=7))==('session',7)
    arms = Arms(None, dict(near=None), dict(near=.5))
    assert {arms.arm(dict(session=[7,*range(n)])) for n in range(5)}=={arm_of('session 7', dict(main=.5, near=.5))}

def test_visits_that_have_names_are_compared_as_people_are(tmp_path, log):
    for name in 'ab': fit(learner_of('sequentialrules'), 1).save_bundle(tmp_path/f'{name}.recfast')
    items,visits,shares = FRAME.item_id[:2].tolist(),[f'visit {n}' for n in range(30)],dict(main=.5, b=.5)
    with TestClient(built(Service(tmp_path/'a.recfast', arms={tmp_path/'b.recfast': .5}, experiment='june', events=log.folder), log)) as web:
        for visit in visits:
            first,second = (ask(web, session=items[:n], session_id=visit, k=2) for n in (1,2))
            assert first.headers[ARM]==second.headers[ARM]==arm_of(log.name_of(visit_name(visit)), shares, 'june')
            event = dict(request_id=second.headers[REQUEST], kind='click', item_id=second.json()[0]['item_id'])
            assert web.post('/events', json=event).status_code==201
        ask(web, session=items, k=2) # one without a name
        for body,said in ((dict(session_id='x'),'pass session'),(dict(session_id='x', session=items, user_ids=FRAME.user_id[0].item()),'or session_id')):
            assert said in ask(web, 422, **body).json()['detail']
        assert ask(web, 422, session=items, session_id='').status_code==422
    log.close()
    df = compare_arms(read_events(log.folder), 'click', shares)
    assert df.people.sum()==30 and df.events.sum()==30 and df.lists.sum()==60 and df.attrs['mixed']==0 and (df['mean']==.5).all()

def test_another_experiment_deals_anew(home):
    def of(**kwargs):
        with TestClient(built(Service(home/'main.recfast', arms={home/'near.recfast': .5}, **kwargs))) as web:
            return [ask(web, user_ids=o, k=1).headers[ARM] for o in USERS[:20]]
    assert of()==of(experiment='near')!=of(experiment='july')

def test_arms_that_do_not_go_together_are_refused(home, tmp_path):
    other = save(tmp_path/'other.zip', df=ROWS.assign(user_id='u'+ROWS.user_id.astype(str)))
    with pytest.raises(RecfastError, match="arm 'other' knows none of"): built(Service(home/'main.recfast', arms={other: .1}))
    with pytest.raises(RecfastError, match='called alike'): arm_shares(Service(None, arms={home/'a.recfast': .1, tmp_path/'a.zip': .1}))
    for share in (0,1,1.5,-.1):
        with pytest.raises(RecfastError, match='sum to 1'): built(Service(home/'main.recfast', arms={home/'near.recfast': share}))

@pytest.mark.parametrize('args,said', [(['--arm','x'], 'expected bundle=share'), (['--arm','x=much'], 'expected bundle=share'), (['--keep-days','3'], 'of --events'),
    (['--raw-ids'], 'of --events'), (['--arm','none.recfast=.1'], 'there is no')])
def test_the_shell_says_what_is_wrong(home, args, said):
    res = CliRunner().invoke(app, ['serve', str(home/'main.recfast'), *args])
    assert res.exit_code==2 and said in res.output
