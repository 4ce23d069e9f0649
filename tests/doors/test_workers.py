"Several processes that serve together: one address, one model, one set of figures, and a log that outlives any of them"
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

httpx = pytest.importorskip('httpx')
pytest.importorskip('fastapi')
from typer.testing import CliRunner

from helpers import fit_one_cycle, free_port, learner_of
from recfast.arms import arm_of
from recfast.bundle import load_bundle
from recfast.cli import app
from recfast.core import BundleError, RecfastError
from recfast.data.loaders import CollabDataLoaders
from recfast.events import EventLog, read_events
from recfast.keys import read_key, user_key
from recfast.learner import collab_learner
from recfast.models.linear import Popularity
from recfast.noted import REQUEST
from recfast.tables import write_text
from recfast.testing import synth_ratings
from recfast.watch import CURRENT, version_of
from recfast.workers import UNFIT, _keep

ROWS = synth_ratings(300, 40, 6000)
USERS = sorted(ROWS.user_id.unique().tolist())
MODEL,ARM = 'x-recfast-model','x-recfast-arm'
SHARES = dict(main=.5, other=.5)
SHELL = 'from recfast.cli import app; app()'
posix = pytest.mark.skipif(os.name!='posix', reason='processes are stopped and killed by signals')

def save(path, n=6000):
    learn = collab_learner(CollabDataLoaders.implicit_from_df(ROWS[:n], n_neg=0, valid_pct=0), arch=Popularity)
    return fit_one_cycle(learn).save_bundle(path)

def until(found, seconds=240):
    "What `found` gives, once it is something"
    end = time.time()+seconds
    while time.time()<end:
        if out := found(): return out
        time.sleep(.05)
    raise AssertionError('it never came')

def pids(folder): return {int(o.stem.split('-')[1]) for o in folder.glob('*.journal')}

def client_of(pid, others, url):
    "A connection that this worker has taken, for the others were stopped"
    client = httpx.Client(base_url=url, timeout=60)
    for o in others: os.kill(o, signal.SIGSTOP)
    try: client.get('/health')
    finally:
        for o in others: os.kill(o, signal.SIGCONT)
    return client

def answers(url):
    try: return httpx.get(f'{url}/health').status_code==200
    except httpx.TransportError: return False

def told(client, said, kind='click'):
    "Tell of a click on the first item; what the log must have"
    event = dict(request_id=said.headers[REQUEST], kind=kind, item_id=said.json()[0]['item_id'])
    assert client.post('/events', json=event).status_code==201
    return event

def swap_seconds(clients, folder, name):
    "How long workers differ about what is served, from the first that changes to the last"
    want = version_of(folder/name).digest[:16]
    write_text(folder/CURRENT, name)
    at = [None]*len(clients)
    def look():
        for j,o in enumerate(clients):
            if at[j] is None and o.get('/health').headers[MODEL]==want: at[j] = time.time()
        return None not in at
    until(look)
    return max(at)-min(at)

@pytest.fixture(scope='module')
def story(tmp_path_factory):
    "Two workers that watch a folder, with arms and events: asked, told, swapped, one killed, all stopped in order"
    home = tmp_path_factory.mktemp('workers')
    models,log,port = home/'models',home/'log',free_port()
    for name,n in (('a',5000),('b',6000)): save(models/name, n)
    save(home/'other.recfast', 4000)
    write_text(models/CURRENT, 'a')
    options = ['--watch','--workers','2','--port',port,'--events',log,'--arm',f"{home/'other.recfast'}=0.5",'--experiment','june']
    command = [sys.executable,'-W','ignore','-c',SHELL,'serve',models,*options]
    out = SimpleNamespace(log=log, arms={}, twice=[], events=[])
    proc = subprocess.Popen([str(o) for o in command], stderr=subprocess.PIPE, text=True)
    try:
        url = f'http://127.0.0.1:{port}'
        until(lambda: proc.poll() is not None or answers(url) and len(pids(log))==2)
        assert proc.poll() is None, proc.stderr.read()
        first,second = sorted(pids(log))
        clients = [client_of(first, [second], url), client_of(second, [first], url)]
        out.maps = [open(f'/proc/{o}/maps').read() for o in (first,second)] if sys.platform=='linux' else None
        for n,user in enumerate(USERS):
            got = [o.post('/recommend', json=dict(user_ids=user, k=2)) for o in (clients if n<30 else clients[n%2:][:1])]
            out.arms[user] = got[0].headers[ARM]
            out.twice += [(o.headers[ARM],o.headers[MODEL],o.text) for o in got] if n<30 else []
            if n%5 in ((0,) if out.arms[user]=='main' else (0,1,2)): out.events.append(told(clients[n%2], got[0]))
        out.metrics = [o.get('/metrics').text for o in clients]
        out.swap = swap_seconds(clients, models, 'b')
        said = clients[0].post('/recommend', json=dict(user_ids=USERS[0], k=1))
        out.events.append(told(clients[0], said, 'buy'))
        os.kill(first, signal.SIGKILL)
        out.events.append(told(clients[1], said, 'buy')) # a list of the one that is gone
        time.sleep(1.5) # it is seen twice a second
        out.after = clients[1].get('/metrics').text
        proc.send_signal(signal.SIGTERM)
        out.said = proc.communicate(timeout=60)[1]
        out.code = proc.returncode
    finally:
        proc.kill()
        proc.wait()
    return out

@posix
def test_they_stop_in_order_and_one_that_is_killed_is_begun_anew(story):
    assert story.code==0 and 'another one begins' in story.said and 'Traceback' not in story.said

@posix
def test_every_worker_gives_a_person_the_same_arm_and_list(story):
    assert story.twice[::2]==story.twice[1::2] and len(story.twice)==60
    key = read_key(story.log/'key')
    assert story.arms=={o: arm_of(user_key(key, o), SHARES, 'june') for o in USERS}

@posix
def test_they_agree_within_two_seconds_about_what_is_served(story): assert story.swap<2

@posix
def test_any_worker_tells_the_figures_of_all(story):
    def count(text): return re.search(r'recfast_requests_total\{path="/recommend",status="200"\} (\d+)', text).group(1)
    assert {count(o) for o in story.metrics}=={str(len(USERS)+30)} and int(count(story.after))==len(USERS)+31
    assert 'recfast_requests_in_progress' in story.after and 'pid=' not in story.after

@posix
def test_what_was_acknowledged_is_in_the_log_of_a_killed_worker_too(story):
    EventLog(story.log).close() # the next process seals what the killed one left
    df = read_events(story.log)
    done = df[df.kind!='impression']
    got = sorted(zip(done.request_id, done.kind, done.item_id))
    assert got==sorted((o['request_id'],o['kind'],o['item_id']) for o in story.events)
    assert {o.suffix for o in story.log.iterdir()}=={'','.parquet'} and df.digest.nunique()>=2

@posix
def test_a_planted_difference_is_seen_in_the_log(story):
    res = CliRunner().invoke(app, ['ab',str(story.log),'--share','main=.5','--share','other=.5'])
    assert res.exit_code==0 and re.search(r'other: more than main', res.output) and 'dealt as was set' in res.output, res.output

@pytest.mark.skipif(sys.platform!='linux', reason='/proc is of Linux')
def test_workers_share_weights_in_memory(story): assert all('weights-' in o for o in story.maps)

def test_a_worker_that_cannot_serve_ends_the_service_and_one_that_broke_is_begun_anew(tmp_path, caplog):
    said = []
    class Ended:
        pid = 1
        def __init__(self, code): self.exitcode = code
        def is_alive(self): return self.exitcode is None
    def begin():
        said.append(1)
        return Ended([-9,None,UNFIT][len(said)-1])
    with pytest.raises(RecfastError, match='cannot serve what was asked for'): _keep([begin(),begin()], begin, threading.Event(), tmp_path)
    assert len(said)==3 and caplog.text.count('another one begins')==1

# the bundle in memory

@pytest.mark.parametrize('name', ['dotproductbias','ials','ease','sasrec'])
def test_a_mapped_bundle_answers_as_one_that_was_read(name, tmp_path):
    learn = learner_of(name)
    with learn.no_bar(), learn.no_logging(): learn.fit(1)
    path = learn.save_bundle(tmp_path/'b')
    read,mapped = load_bundle(path),load_bundle(path, mapped=True)
    for o in path.iterdir(): o.unlink() # replaced by another bundle
    some = read.known_ids('user')[:5].tolist()
    assert mapped.recommend(some, k=5, show=False).equals(read.recommend(some, k=5, show=False))
    assert all(a.equal(b) for a,b in zip(read.model.state_dict().values(), mapped.model.state_dict().values()))

@pytest.mark.skipif(not Path('/proc/self/maps').exists(), reason='the system does not list what is mapped')
def test_weights_and_rows_are_in_memory_that_processes_share(tmp_path):
    learn = learner_of('dotproductbias')
    with learn.no_bar(), learn.no_logging(): learn.fit(1)
    rec = load_bundle(learn.save_bundle(tmp_path/'b'), mapped=True)
    lines = [o.split() for o in Path('/proc/self/maps').read_text().splitlines() if str(tmp_path) in o]
    spans = [(*(int(x, 16) for x in o[0].split('-')), o[-1]) for o in lines]
    def file_of(t): return next((Path(name).name[:4] for a,b,name in spans if a<=t.data_ptr()<b), None)
    assert {file_of(o) for o in rec.model.state_dict().values()}=={'weig'}
    assert {file_of(o) for o in (rec.seen.users,rec.seen.items,rec.seen.values,rec.train.users)}=={'rows'}

@pytest.mark.parametrize('harm', ['truncated','edited'])
def test_a_damaged_file_is_seen_before_it_is_mapped(harm, tmp_path):
    path = save(tmp_path/'b')
    data = next(path.glob('rows-*'))
    whole = data.read_bytes()
    data.write_bytes(whole[:-9] if harm=='truncated' else whole[:-9]+b'012345678')
    with pytest.raises(BundleError, match='truncated or changed'): load_bundle(path, mapped=True)
