"The order of a history, at every door, for every model that reads one: oldest first, repeats kept, sets refused"
import numpy as np
import pandas as pd
import pytest
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from helpers import ALL, SEQUENCES, fit
from recfast.bundle import load_bundle
from recfast.by_history import TrainedHistories
from recfast.cli import app
from recfast.core import RatingsError
from recfast.data.loaders import CollabDataLoaders
from recfast.ensemble import Blend
from recfast.files import parse_history, read_histories
from recfast.learner import collab_learner
from recfast.models.knn import ItemKNN
from recfast.models.linear import EASE
from recfast.serve import make_app

pytestmark = pytest.mark.filterwarnings('ignore')
LAST = ['nextitem'] # read the last item alone
NAMES = [*SEQUENCES,'blend']

def log(n_users=60, n_items=12, length=9, seed=0):
    "Walks round a circle that sometimes jump, so that items come again; times grow, rows lie in any order"
    rng = np.random.default_rng(seed)
    rows = []
    for u in range(n_users):
        at = rng.integers(n_items)
        for t in range(length):
            rows.append((f'u{u}',f'i{at}',1000*u+t))
            at = (at+1)%n_items if rng.random()<.7 else rng.integers(n_items)
    return pd.DataFrame(rows, columns=['user_id','item_id','timestamp']).sample(frac=1, random_state=seed).reset_index(drop=True)

LOG = log()
TOLD = ['i3','i7','i3','i1','i9'] # oldest first; i3 comes again

def made_of(name):
    if name=='blend': return Blend([made_of('sequentialrules'),set_model()], [.7,.3])
    dls = CollabDataLoaders.sequences_from_df(LOG, seq_len=8, seed=1, bs=16, hold_out=False)
    config = dict(seq_len=8) if name in ('sasrec','gru4rec','bert4rec') else {}
    return fit(collab_learner(dls, n_factors=8, arch=ALL[name][0], config=config, seed=3), 1)

def set_model(arch=EASE): return fit(collab_learner(CollabDataLoaders.implicit_from_df(LOG, n_neg=0, valid_pct=0, seed=1, bs=64), arch=arch), 1)

@pytest.fixture(scope='module', params=NAMES)
def model(request, tmp_path_factory):
    "(name, learner, bundle, lists)"
    learn = made_of(request.param)
    path = tmp_path_factory.mktemp(request.param)/'b'
    learn.save_bundle(path)
    return request.param,learn,load_bundle(path),path

def frame(items=TOLD, **more): return pd.DataFrame(dict(item_id=items, timestamp=range(50, 50+len(items)), **more))
def shuffled(df): return df.iloc[[3,0,4,2,1]]
def pairs(df): return [(i,round(s, 4)) for i,s in zip(df.item_id, df.score)]
def ask(rec, history, **kwargs): return pairs(rec.recommend(history=history, k=4, exclude_seen=False, **kwargs))

def test_every_form_is_oldest_first(model):
    name,learn,rec,_ = model
    want = ask(learn, TOLD)
    for o in (learn,rec):
        for h in (TOLD, tuple(TOLD), np.array(TOLD), pd.Series(TOLD), frame(), shuffled(frame()), [dict(item_id=i) for i in TOLD],
                  [TOLD], shuffled(frame(user_id='x')).to_dict('records')):
            assert ask(o, h)==want, (name,type(h))
    once = ['i7','i3','i1','i9']
    assert ask(learn, dict.fromkeys(once, 1))==ask(rec, once)

def test_another_order_is_another_question(model):
    name,learn,rec,_ = model
    other = ['i1','i7','i3','i3','i9']
    for o in (learn,rec): assert (ask(o, TOLD)==ask(o, other))==(name in LAST)

def test_what_comes_again_is_kept(model):
    name,learn,_,_ = model
    assert (ask(learn, TOLD)==ask(learn, ['i7','i3','i1','i9']))==(name in LAST)

@pytest.mark.parametrize('told', [set(TOLD), frozenset(TOLD), [TOLD,set(TOLD)]])
def test_a_set_has_no_order(model, told):
    for o in model[1:3]:
        with pytest.raises(RatingsError, match='history is a set.* pass a list, the latest last'): o.recommend(history=told)

def test_explanations_and_evaluations_read_the_same_order(model):
    name,learn,rec,_ = model
    test = pd.DataFrame(dict(user_id=['x'], item_id=['i2']))
    told = pd.concat([frame(user_id='x'),frame(TOLD[::-1], user_id='y')])
    how = dict(k=3, metrics='mrr', exclude_seen=False)
    got = [learn.evaluate(test, histories=told.sample(frac=1, random_state=s), **how).by_history.summary['mrr@3'] for s in (0,1)]
    top = [i for i,_ in ask(learn, TOLD)][:3]
    assert got==[1/(top.index('i2')+1) if 'i2' in top else 0.]*2
    why = [o.explain(history=h, item_ids='i2') for o in (learn,rec) for h in (TOLD,shuffled(frame()))]
    for o in why[1:]: pd.testing.assert_frame_equal(o, why[0], rtol=1e-4)
    known = learn.explain('u3', item_ids='i2')
    score = learn.recommend('u3', item_ids=['i2'], exclude_seen=False).score[0]
    summed = name in ('sequentialrules','twospeedridge','blend') # the others leave an event out, which gives no terms of a sum
    assert known.contribution.sum()==pytest.approx(score, rel=1e-4, abs=1e-6) and known.because_item_id.notna().all()==summed

def test_trained_people_tell_their_rows_in_order(model):
    _,learn,rec,_ = model
    own = LOG[LOG.user_id=='u3'].sort_values('timestamp').item_id.tolist()
    for o in (learn.recommender,rec):
        items,_ = TrainedHistories(o)(o.users.encode(['u3']))[0]
        assert sorted(o.items.decode(items.numpy()))==sorted(own)
        assert ask(o, own)==pairs(o.recommend('u3', k=4, exclude_seen=False))

def test_the_shell_and_http(model, tmp_path):
    name,learn,_,path = model
    want = learn.recommend(history=TOLD, k=4)
    with TestClient(make_app(path)) as client:
        for h in (TOLD, [dict(item_id=i) for i in TOLD]):
            got = client.post('/recommend', json=dict(history=h, k=4)).json()
            assert [o['item_id'] for o in got]==want.item_id.tolist()
            np.testing.assert_allclose([o['score'] for o in got], want.score, rtol=1e-4)
    shuffled(frame()).to_csv(tmp_path/'told.csv', index=False)
    for told in ([a for i in TOLD for a in ('--history',i)], ['--history',str(tmp_path/'told.csv')]):
        out = CliRunner().invoke(app, ['recommend',str(path),*told,'-k','4','--out',str(tmp_path/'lists.csv')])
        assert out.exit_code==0, out.output
        assert pd.read_csv(tmp_path/'lists.csv').item_id.tolist()==want.item_id.tolist()

def test_items_that_come_again_stay_rows_of_text_and_of_files(tmp_path):
    train = CollabDataLoaders.sequences_from_df(LOG, seed=1, bs=1).interactions('train')
    assert [o['item_id'] for o in parse_history(train, TOLD)]==TOLD
    assert parse_history(train, TOLD[1:])==dict.fromkeys(TOLD[1:], 1.)
    shuffled(frame()).to_csv(tmp_path/'told.csv', index=False)
    _,(told,) = read_histories(train, tmp_path/'told.csv')
    assert [o['item_id'] for o in told]==TOLD

@pytest.mark.parametrize('arch', [EASE,ItemKNN])
def test_models_of_sets_count_what_comes_again_once(arch):
    learn = set_model(arch)
    assert ask(learn, TOLD)==ask(learn, list(dict.fromkeys(TOLD)))==ask(learn, set(TOLD))
