"A folder of bundles, served: what is named, else the newest that is whole; swapped between requests, and back"
import gc
import json
import os
import threading
import time
import weakref

import pytest
from starlette.testclient import TestClient

from helpers import fit_one_cycle
from recfast.bundle import load_bundle
from recfast.core import BundleError
from recfast.data.loaders import CollabDataLoaders
from recfast.learner import collab_learner
from recfast.models.linear import Popularity
from recfast.tables import write_text
from recfast.testing import synth_ratings
from recfast.watch import CURRENT, Watch, go_back, load_steady, version_of, versions, wanted

ROWS = synth_ratings(30, 25, 500)
HEADER = 'x-recfast-model'

def save(path, n=500):
    learn = collab_learner(CollabDataLoaders.implicit_from_df(ROWS[:n], n_neg=0, valid_pct=0), arch=Popularity)
    return fit_one_cycle(learn).save_bundle(path)

@pytest.fixture
def folder(tmp_path):
    save(tmp_path/'a', 300)
    save(tmp_path/'b.zip', 400)
    return tmp_path

def wait_for(web, digest, seconds=20):
    end = time.time()+seconds
    while time.time()<end:
        if web.get('/health').headers[HEADER]==digest[:16]: return
        time.sleep(.02)
    raise AssertionError('the model was not swapped')

def digest(path): return version_of(path).digest

def test_the_newest_is_served_and_each_that_comes_and_what_is_named(folder):
    with TestClient(Watch(folder, every=.02)) as web:
        assert web.get('/health').headers[HEADER]==digest(folder/'b.zip')[:16]
        save(folder/'c', 450)
        wait_for(web, digest(folder/'c'))
        write_text(folder/CURRENT, 'a\n')
        wait_for(web, digest(folder/'a'))
        assert web.get('/health').json()['n_users']==load_bundle(folder/'a').n_users-1

def test_an_answer_is_that_of_the_model_it_names(folder):
    lists = {digest(p)[:16]: load_bundle(p).recommend(ROWS.user_id[0].item(), k=5).item_id.tolist() for p in (folder/'a',folder/'b.zip')}
    stop,odd,n = threading.Event(),[],0
    with TestClient(Watch(folder, every=.01)) as web:
        def flip():
            for j in range(10**6):
                if stop.is_set(): return
                write_text(folder/CURRENT, ('a','b.zip')[j%2])
                time.sleep(.1)
        flipping = threading.Thread(target=flip)
        flipping.start()
        end = time.time()+20
        seen = set()
        while time.time()<end and (n<20 or len(seen)<2):
            got = web.post('/recommend', json=dict(user_ids=ROWS.user_id[0].item(), k=5))
            n += 1
            seen.add(got.headers[HEADER])
            if got.status_code!=200 or [o['item_id'] for o in got.json()]!=lists[got.headers[HEADER]]: odd.append(got.text)
        stop.set()
        flipping.join()
    assert n>=20 and len(seen)==2 and odd==[]

@pytest.mark.parametrize('harm', ['truncated','edited','config','no app'])
def test_a_damaged_bundle_is_refused_once_and_the_old_one_goes_on(folder, harm, caplog):
    watch = Watch(folder)
    path = save(folder/'c', 450)
    data = next(path.glob('rows-*'))
    if harm=='truncated': data.write_bytes(data.read_bytes()[:-9])
    if harm=='edited': data.write_bytes(data.read_bytes()[:-9]+b'012345678')
    if harm=='config': (path/'config.json').write_text('{')
    if harm=='no app': watch.make = lambda rec: 1/0
    assert watch.newer() is None and watch.newer() is None and watch.now.version.name=='b.zip'
    assert caplog.text.count('not served: c')==(harm!='config') # without a whole config nobody knows that it is one
    if harm=='no app': return
    save(path, 460) # mended
    assert watch.newer().version.name=='c'

def test_a_damaged_bundle_that_is_named_is_refused(folder, caplog):
    watch = Watch(folder)
    (folder/'c.zip').write_bytes(b'PK')
    write_text(folder/CURRENT, 'c.zip')
    assert watch.newer() is None and watch.newer() is None and caplog.text.count('not served')==1
    with pytest.raises(BundleError, match='no bundle that can be served'): Watch(folder)

def test_where_the_newest_is_damaged_the_one_before_is_served_from_the_start(folder):
    data = next(save(folder/'c', 450).glob('rows-*'))
    data.write_bytes(data.read_bytes()[:-9])
    assert Watch(folder).now.version.name=='b.zip'

@pytest.mark.parametrize('name', ['','..','none','a/config.json','/etc'])
def test_current_names_something_in_the_folder(folder, name):
    write_text(folder/CURRENT, name)
    with pytest.raises(BundleError, match='expected the name of a bundle in'): wanted(folder)

def test_one_goes_back_step_by_step(folder):
    save(folder/'c', 450)
    assert [go_back(folder),go_back(folder)]==['b.zip','a']
    assert (folder/CURRENT).read_text(encoding='utf-8')=='a\n'
    with pytest.raises(BundleError, match='no bundle is older than a'): go_back(folder)
    with pytest.raises(BundleError, match='holds no bundle'): go_back(folder/'a')

def test_a_bundle_that_is_written_while_it_is_read_is_read_again(folder):
    tries = []
    def load(path):
        tries.append(path)
        if len(tries)<3: save(path, 300+len(tries)); raise FileNotFoundError('rows')
        return load_bundle(path)
    assert load_steady(folder/'a', load).info['checksum']==digest(folder/'a') and len(tries)==3
    with pytest.raises(FileNotFoundError): load_steady(folder/'a', lambda path: open(path/'none'))

def test_a_bundle_written_over_and_over_is_always_read(folder):
    stop = threading.Event()
    def write():
        n = 300
        while not stop.is_set(): save(folder/'a', n := n+1 if n<480 else 300)
    writing = threading.Thread(target=write)
    writing.start()
    try:
        for _ in range(20): load_steady(folder/'a', tries=5)
    finally:
        stop.set()
        writing.join()

def test_a_model_that_was_replaced_ends_with_its_last_request_and_leaves_memory(folder):
    watch = Watch(folder)
    old = watch.now
    rec = weakref.ref(old.app.state.worker.rec)
    write_text(folder/CURRENT, 'a')
    old.busy = 1
    watch.swap(watch.newer())
    assert not old.app.state.worker.pool._shutdown
    old.busy = 0
    old.end_if_idle()
    gc.collect()
    assert rec() is None and watch.swaps==1

def test_what_is_no_bundle_is_none(folder):
    (folder/'notes').mkdir()
    (folder/'x.zip').write_text('no zip')
    os.mkdir(folder/'half')
    (folder/'half'/'config.json').write_text(json.dumps(dict(format='other')))
    assert [o.name for o in versions(folder)]==['b.zip','a']
