"HTTP: what comes next in a visit, of somebody without a name and of a known user; what a call costs"
import time

import numpy as np
import pandas as pd
import pytest
from fastapi.testclient import TestClient

from helpers import fit
from recfast.data.loaders import CollabDataLoaders
from recfast.learner import collab_learner
from recfast.models.linear import Popularity
from recfast.models.rules import SequentialRules
from recfast.serve import make_app

pytestmark = pytest.mark.filterwarnings('ignore')

def log(n_users=30, n_items=12, length=6):
    "Everybody walks round a circle from a place of their own, in two visits"
    rows = [(f'u{u}',f'i{(5*u+t)%n_items}',100*t+10_000*(t>3)) for u in range(n_users) for t in range(length)]
    return pd.DataFrame(rows, columns=['user_id','item_id','timestamp'])

def rules(**kwargs):
    dls = CollabDataLoaders.sequences_from_df(log(), seed=0, bs=8, hold_out=False, **kwargs)
    return fit(collab_learner(dls, arch=SequentialRules), 1)

@pytest.fixture(scope='module')
def learn(): return rules()

@pytest.fixture(scope='module')
def client(learn):
    with TestClient(make_app(learn.recommender)) as client: yield client

def ask(client, status=200, **body):
    out = client.post('/recommend', json=body)
    assert out.status_code==status, out.text
    return [o['item_id'] for o in out.json()] if status==200 else out.json()['detail']

def test_a_visitor_without_a_name_is_their_session(learn, client):
    for items in (['i3','i4'],['i4','i3'],['i4','i3','i4']):
        assert ask(client, session=items, k=4)==learn.recommend(history=items, k=4).item_id.tolist()
    assert ask(client, session=['i3','i4'], k=1)==['i5'] and ask(client, session='i7', k=1)==['i8']
    assert ask(client, session=['i3','i4'], k=1, exclude_seen=False, exclude_item_ids=['i5'])==['i6']

def test_a_known_user_goes_on_from_what_was_trained_on(learn, client):
    own = log().query('user_id=="u2"').item_id.tolist()
    want = learn.recommend(history=[*own,'i9'], k=3, exclude_seen=False).item_id.tolist()
    assert ask(client, user_ids=['u2'], session=['i9'], k=3, exclude_seen=False)==want
    assert not set(ask(client, user_ids='u2', session=['i9'], k=9))&{*own,'i9'}

def test_a_model_of_sessions_reads_this_one_alone():
    learn = rules(session_gap=1000)
    own = log().query('user_id=="u2"').item_id.tolist()
    with TestClient(make_app(learn.recommender)) as client:
        kept = dict(session=['i9','i8'], k=4, exclude_seen=False)
        assert ask(client, user_ids='u2', **kept)==ask(client, **kept)
        assert not set(ask(client, user_ids='u2', session=['i9'], k=9))&{*own,'i9'}

@pytest.mark.parametrize('body,says', [(dict(session=['i1'], history=['i2']),'all of them tell who is asking'),
    (dict(session=['i1'], user_ids=['u1','u2']),'2 user_ids, expected one at most')])
def test_a_session_beside_others(client, body, says): assert says in ask(client, 422, **body)

def test_ids_of_a_session_that_nobody_knows(client):
    assert 'no such' in ask(client, 404, session=['nothing']).lower() or 'unknown' in ask(client, 404, session=['nothing']).lower()
    ask(client, 404, user_ids=['nobody'], session=['i1'])

def test_a_model_that_reads_no_order_is_asked_by_history():
    learn = fit(collab_learner(CollabDataLoaders.implicit_from_df(log(), n_neg=0, seed=0, bs=8), arch=Popularity), 1)
    with TestClient(make_app(learn.recommender)) as client: assert 'reads no order, pass history' in ask(client, 422, session=['i1'])

def test_one_call_takes_less_than_ten_milliseconds_at_ten_thousand_items():
    rng = np.random.default_rng(0)
    at = rng.integers(0, 10_000, (2000,1))+np.cumsum(rng.integers(1, 30, (2000,20)), 1)
    df = pd.DataFrame(dict(user_id=np.repeat(np.arange(2000), 20), item_id=at.ravel()%10_000))
    df = pd.concat([df,pd.DataFrame(dict(user_id=2000, item_id=np.arange(10_000)))])
    dls = CollabDataLoaders.sequences_from_df(df, seed=0, bs=8, hold_out=False)
    rec = fit(collab_learner(dls, arch=SequentialRules), 1).recommender
    def took():
        start = time.process_time()
        rec.recommend(history=[5,17,40,77,120], k=10)
        return 1000*(time.process_time()-start)
    rec.recommend(history=[1,2], k=10)
    assert rec.n_items-1==10_000 and min(took() for _ in range(20))<10 # ms of a processor
