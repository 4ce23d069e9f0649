"A bundle on the Hub and back: the real client against a service of the tests' own. Nobody in it, damage found, settings held against the weights"
import copy
import json
import os
import pickle
import random
import re
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from helpers import ALL, fit_one_cycle, learner_of
from hub_server import hub_server
from recfast.bundle import _signed, bundle_config, load_bundle, save_bundle
from recfast.core import ArgumentError, BundleError, RecfastError, UnknownIdError
from recfast.data.datasets import ml_100k
from recfast.data.loaders import CollabDataLoaders
from recfast.data.made import movie_night
from recfast.hub import given_away
from recfast.keys import user_key
from recfast.learner import collab_learner
from recfast.models.base import MODELS
from recfast.shared import told_by, without_users_of
from recfast.testing import synth_ratings
from recfast.train import train_table

constants = pytest.importorskip('huggingface_hub.constants')

@pytest.fixture(scope='module')
def server():
    with hub_server() as found: yield found

@pytest.fixture
def hub(server, monkeypatch, tmp_path):
    "The service, and a client that knows no other: as HF_ENDPOINT, HF_HUB_CACHE and HF_HUB_DISABLE_XET have it"
    hub,url = server
    hub.log.clear(), hub.sent.clear(), hub.sizes.clear(), hub.told_cdn.clear()
    hub.token = None
    for name,value in dict(ENDPOINT=url, HUGGINGFACE_CO_URL_TEMPLATE=url+'/{repo_id}/resolve/{revision}/{filename}', HF_HUB_CACHE=str(tmp_path/'cache'),
                           HF_HUB_DISABLE_XET=True, HF_HUB_DISABLE_PROGRESS_BARS=True).items(): monkeypatch.setattr(constants, name, value)
    monkeypatch.setenv('HF_TOKEN', 'hf_of_me')
    return hub

def people(df): return df.assign(user_id='person-'+df.user_id.astype(str)+'-x')
RATINGS = people(synth_ratings())

def trained(df=RATINGS, n_factors=4, y_range=(0,5.5), **kwargs):
    return fit_one_cycle(collab_learner(CollabDataLoaders.from_df(df, seed=1, bs=64, **kwargs), n_factors=n_factors, y_range=y_range), 2)

@pytest.fixture(scope='module')
def learn():
    learn = trained()
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        learn.evaluate(k=10)
    return learn

def same_lists(a, b):
    told = told_by(a)
    x,y = (o.recommend(history=told, k=10, progress=False) for o in (a,b))
    assert x.item_id.tolist()==y.item_id.tolist() and np.allclose(x.score, y.score, rtol=1e-5, atol=1e-6)

# there and back

def test_there_and_back_without_people(hub, learn):
    where = learn.push_to_hub('me/round', license='cc-by-4.0')
    assert re.fullmatch('hf://me/round@[0-9a-f]{40}', where) and hub.repos['me/round'].private
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        rec = load_bundle(where)
    same_lists(learn.recommender, rec)
    assert rec.n_users==1 and len(rec.seen)==0 and rec.info['training']['people']=='none'
    with pytest.raises(RecfastError, match='shared without its people'): rec.recommend()
    with pytest.raises(UnknownIdError, match='knows 0 users'): rec.recommend('person-1-x')
    assert set(hub.told_cdn)=={None} # whoever keeps large files is told no token

def user_rows(learn):
    "Bytes that tell of people: the columns of rows, and each person's vector"
    rows = learn.dls.interactions('all')
    columns = [rows.users.numpy(),rows.items.numpy(),rows.values.numpy()]
    tables = [p.detach().numpy() for k,p in learn.model.named_parameters() if k.startswith('u_')]
    return [o[:8].tobytes() for o in columns]+[row.tobytes() for t in tables if t.shape[1]>1 for row in t[1:]]

def test_no_byte_that_was_sent_is_of_anybody(hub, learn):
    ids = [o.encode() for o in RATINGS.user_id.unique()]
    learn.push_to_hub('me/bytes', license='cc-by-4.0')
    sent = b'\0'.join([*hub.sent,*(data for files in hub.repos['me/bytes'].commits for data,_ in files[1].values())])
    assert len(sent)>1000 and [o for o in ids if o in sent]==[] and [o for o in user_rows(learn) if o in sent]==[]
    learn.push_to_hub('me/bytes-all', license='cc-by-4.0', interactions='all', i_may_publish_this=True) # what the search finds where there is something
    sent = b'\0'.join(data for data,_ in hub.repos['me/bytes-all'].commits[-1][1].values())
    assert all(o in sent for o in ids) and all(o in sent for o in user_rows(learn))

def test_what_was_done_to_people_before_is_not_told_of(hub, learn):
    rec = copy.copy(learn.recommender)
    rec.info = dict(training=dict(learn.training_facts(), added=[dict(who='person-3-x')], data=dict(rows=3, first=['person-4-x'])))
    rec.push_to_hub('me/facts', license='mit')
    assert b'person-' not in b''.join(hub.sent)

def test_a_second_push_leaves_one_bundle_and_a_first_commit_that_still_answers(hub, learn):
    first = learn.push_to_hub('me/twice', license='mit')
    other = trained(n_factors=3)
    second = other.push_to_hub('me/twice', license='mit')
    assert first!=second and sorted(o.split('-')[0] for o in hub.repos['me/twice'].commits[-1][1])==['.gitattributes','README.md','config.json','ids','rows','weights']
    same_lists(learn.recommender, load_bundle(first))
    same_lists(other.recommender, load_bundle(second))

def test_only_what_config_names_is_fetched(hub, learn, tmp_path):
    path = save_bundle(given_away(learn.recommender), tmp_path/'b')
    files = {o.name: o.read_bytes() for o in path.iterdir()}
    commit = hub.put('me/more', {**files, 'model.pkl': b'evil', 'README.md': b'hello', 'weights-'+'0'*64+'.safetensors': b'others'})
    hub.log.clear()
    load_bundle(f'hf://me/more@{commit}')
    assert {p.split('/')[-1] for how,p in hub.log if how=='HEAD'}==set(files)

def test_without_a_commit_there_is_a_warning_and_with_one_nothing_is_asked_twice(hub, learn):
    where = learn.push_to_hub('me/pinned', license='mit')
    with pytest.warns(UserWarning, match='names no commit: its owner may change what it loads'): load_bundle('hf://me/pinned')
    with pytest.warns(UserWarning, match="names 'main', which is no hash"): load_bundle('hf://me/pinned@main')
    hub.log.clear()
    same_lists(learn.recommender, load_bundle(Path(where))) # a shell makes a path of it
    assert hub.log==[]

def test_what_is_not_there_is_said(hub, learn):
    where = learn.push_to_hub('me/said', license='mit')
    hub.token = 'hf_of_somebody'
    with pytest.raises(BundleError, match='is not there, or is private: `hf auth login`'): load_bundle('hf://me/said@'+'1'*40)
    hub.token = None
    with pytest.raises(BundleError, match="has no '1111"): load_bundle('hf://me/said@'+'1'*40)
    commit = hub.put('me/other', {'model.safetensors': b'x'})
    with pytest.raises(BundleError, match='holds no config.json'): load_bundle(f'hf://me/other@{commit}')
    with pytest.raises(BundleError, match='expected hf://owner/name'): load_bundle('hf://movies')
    assert load_bundle(where)

def test_sizes_are_looked_at_before_anything_is_read(hub, learn, tmp_path):
    path = save_bundle(given_away(learn.recommender), tmp_path/'b')
    names = {o.name: o.read_bytes() for o in path.iterdir()}
    weights = next(o for o in names if o.startswith('weights'))
    for name in (weights,'config.json'):
        commit = hub.put('me/large', {**names, 'README.md': name.encode()})
        hub.sizes = {name: 2**40}
        hub.log.clear()
        with pytest.raises(BundleError, match='1,099,511,627,776 bytes'): load_bundle(f'hf://me/large@{commit}')
        assert not any(how=='GET' and name in p for how,p in hub.log) and not any('cdn' in p for _,p in hub.log)

OFFLINE = '''
import os,sys
from recfast.bundle import load_bundle
rec = load_bundle(sys.argv[1])
print(rec.recommend(history={4: 5., 7: 4.}, k=5).item_id.tolist())
try: load_bundle('hf://me/never@'+'2'*40)
except Exception as e: print(type(e).__name__, e)
'''

@pytest.mark.slow
def test_a_new_process_reads_by_the_variables_of_the_client_and_offline_from_the_cache(server, hub, learn, tmp_path):
    where = learn.push_to_hub('me/offline', license='mit')
    told = learn.recommend(history={4: 5., 7: 4.}, k=5).item_id.tolist()
    env = {**os.environ, 'HF_HUB_DISABLE_XET': '1', 'HF_HUB_CACHE': str(tmp_path/'own'), 'HF_ENDPOINT': server[1]}
    for more in ({}, {'HF_HUB_OFFLINE': '1', 'HF_ENDPOINT': 'http://127.0.0.1:9'}):
        hub.log.clear()
        run = subprocess.run([sys.executable,'-W','ignore','-c',OFFLINE,where], capture_output=True, text=True, env={**env, **more})
        assert run.returncode==0, run.stderr
        lines = run.stdout.splitlines()
        assert lines[0]==str(told) and lines[1].startswith('BundleError hf://me/never')
        assert bool(hub.log)==(not more)
    assert 'not in the cache of this machine' in lines[1]

# who may

def test_an_open_repository_stays_what_it_is(hub, learn):
    hub.put('me/open', {'README.md': b'mine'}, private=False)
    with pytest.raises(ArgumentError, match='is there and open to everybody'): learn.push_to_hub('me/open', license='mit')
    assert len(hub.repos['me/open'].commits)==2
    hub.put('me/thesis', {'thesis.txt': b'mine'})
    with pytest.raises(BundleError, match="'thesis.txt', which is no bundle"): learn.push_to_hub('me/thesis', license='mit')
    with pytest.raises(ArgumentError, match='without a licence'): learn.push_to_hub('me/x', private=False)
    with pytest.warns(UserWarning, match='no licence is given'): learn.push_to_hub('me/unlicensed')
    assert 'me/x' not in hub.repos and 'No licence is given' in hub.repos['me/unlicensed'].commits[-1][1]['README.md'][0].decode()

def test_all_and_hashed_say_what_they_are(hub, learn):
    with pytest.raises(ArgumentError, match='i_may_publish_this=True'): learn.push_to_hub('me/all', license='mit', interactions='all')
    rec = load_bundle(learn.push_to_hub('me/all', license='mit', interactions='all', i_may_publish_this=True))
    pd.testing.assert_frame_equal(rec.recommend(k=3), learn.recommend(k=3))
    key = b'sixteen or more bytes'
    rec = load_bundle(learn.push_to_hub('me/hashed', license='mit', interactions='hashed', key=key))
    a,b = learn.recommend('person-7-x', k=5),rec.recommend(user_key(key, 'person-7-x'), k=5)
    assert a.item_id.tolist()==b.item_id.tolist() and np.allclose(a.score, b.score)
    same_lists(learn.recommender, rec)
    sent = b'\0'.join(data for data,_ in hub.repos['me/hashed'].commits[-1][1].values())
    assert b'person-' not in sent and key not in sent and b'no anonymity' in sent
    with pytest.raises(ArgumentError, match='people were left out'): given_away(load_bundle(learn.push_to_hub('me/none', license='mit')), 'hashed')

def test_under_hashes_neither_tables_nor_rows_are_in_the_order_of_the_ids():
    learn = trained(synth_ratings(n_users=40)) # ids 1 to 40, which a row number would tell
    new = given_away(learn.recommender, 'hashed')
    old = [new.users.encode([user_key(b'k'*16, i)], 'zero')[0] for i in range(1, 41)]
    assert old==[0]*40 and list(new.users.index)==sorted(new.users.index)
    kept = (new.model.u_weight.weight[1:].detach().numpy()==learn.model.u_weight.weight[1:].detach().numpy()).all(1)
    assert kept.mean()<.3 and (np.diff(new.train.rows_of('user'))>=0).all()

@pytest.mark.slow
@pytest.mark.parametrize('name', MODELS)
def test_every_model_deals_its_people_anew_or_says_no(name):
    rec = fit_one_cycle(learner_of(name)).recommender
    new = given_away(rec, 'hashed', key=b'k'*16)
    a,b = rec.recommend([1,2,3], k=4),new.recommend([user_key(b'k'*16, o) for o in (1,2,3)], k=4)
    assert np.allclose(a.score, b.score, rtol=1e-4, atol=1e-5)

def test_rows_of_movielens_stay(hub, tmp_path, ml100k_dir):
    df = ml_100k(ml100k_dir)
    learn = trained(df, item_name='title')
    for how in ('hashed','all'):
        with pytest.raises(ArgumentError, match='these are rows of MovieLens-100k, and the licence'): learn.push_to_hub('me/ml', license='mit', interactions=how, i_may_publish_this=True)
    rec = load_bundle(learn.save_bundle(tmp_path/'b')) # a bundle knows it too
    assert rec.train.data_set['name']=='MovieLens-100k' and rec.forget(3).train.data_set==rec.train.data_set
    with pytest.raises(ArgumentError, match='MovieLens-100k'): rec.push_to_hub('me/ml', license='mit', interactions='all', i_may_publish_this=True)
    plain = pd.read_csv(ml100k_dir/'u.data', # as chapter 8 of the book reads it
                        sep='\t', names=['user_id','item_id','rating','timestamp'])
    with pytest.raises(ArgumentError, match='its ids are those of that set'): trained(plain).push_to_hub('me/ml', license='mit', interactions='all', i_may_publish_this=True)
    assert 'me/ml' not in hub.repos
    same_lists(learn.recommender, load_bundle(learn.push_to_hub('me/ml', license='other')))

@pytest.mark.parametrize('make', [lambda df: df, lambda df: df[df.rating>2], lambda df: df.assign(x=1).sort_values('timestamp').reset_index(drop=True), lambda df: df.merge(df[['item_id']].drop_duplicates()),
    lambda df: df.groupby('user_id').head(20)])
def test_a_table_goes_on_to_say_whose_it_is(make, ml100k_dir):
    df = make(ml_100k(ml100k_dir, fold=1))
    builders = CollabDataLoaders.from_df,CollabDataLoaders.implicit_from_df,CollabDataLoaders.sequences_from_df
    for build in builders: assert build(df, seed=0).interactions('train').data_set['name']=='MovieLens-100k', build

def test_made_up_films_are_no_movielens():
    assert given_away(trained(movie_night()).recommender, 'all', i_may_publish_this=True)

# every model

@pytest.mark.parametrize('name', MODELS)
def test_every_model_answers_histories_alike_or_is_kept_back(name, tmp_path):
    rec = fit_one_cycle(learner_of(name)).recommender
    if name=='autorec':
        with pytest.raises(RecfastError, match='reads the rows of its people whenever it answers'): without_users_of(rec)
        return
    back = load_bundle(without_users_of(rec).save_bundle(tmp_path/'b'))
    same_lists(rec, back)
    if not MODELS[name][1]['similar_items']: return
    pd.testing.assert_frame_equal(back.similar_items([4,5], k=3), rec.similar_items([4,5], k=3), rtol=1e-5, atol=1e-6)
    again = load_bundle(back.save_bundle(tmp_path/'again')) # what was given away is a bundle like any
    same_lists(rec, again)

def test_rows_of_autorec_by_user_are_its_own(tmp_path):
    dls = CollabDataLoaders.rows_from_df(RATINGS, 'user', seed=1, bs=16)
    rec = fit_one_cycle(collab_learner(dls, n_factors=4, arch=ALL['autorec'][0], config=dict(by='user', center=True), y_range=(0,5.5))).recommender
    same_lists(rec, load_bundle(without_users_of(rec).save_bundle(tmp_path/'b')))

def test_what_auto_chooses_is_given_away_part_by_part(tmp_path):
    rec = train_table(RATINGS, budget=3).learn.recommender
    back = load_bundle(without_users_of(rec).save_bundle(tmp_path/'b'))
    same_lists(rec, back)
    told = told_by(rec)
    a,b = (o.recommend(history=told, k=5) for o in (rec,back))
    assert np.allclose(a.predicted, b.predicted, rtol=1e-4, equal_nan=True)
    assert not any('person-' in o.read_text(encoding='utf-8', errors='ignore') for o in (tmp_path/'b').iterdir())

@pytest.mark.parametrize('how', [dict(kind='clicks'), dict(kind='items'), dict(kind='users'), dict(kind='threshold'), dict(kind='weights'), dict(kind='times')])
def test_tables_of_every_kind(how, tmp_path):
    df,kind = RATINGS,how['kind']
    films = pd.DataFrame(dict(item_id=range(1, 61), genre=['a','b','c']*20, year=range(1960, 2020)))
    who = pd.DataFrame(dict(user_id=RATINGS.user_id.unique(), town=[f'town{i%3}' for i in range(RATINGS.user_id.nunique())]))
    if kind=='clicks': learn = trained_on(CollabDataLoaders.implicit_from_df(df[['user_id','item_id']], seed=1, bs=64), y_range=None)
    elif kind=='items': learn = trained(df, items=films)
    elif kind=='users': learn = trained(df, users=who)
    elif kind=='threshold': learn = trained_on(CollabDataLoaders.implicit_from_df(df, threshold=3., seed=1, bs=64), y_range=None)
    elif kind=='weights': learn = trained(df.assign(w=np.arange(len(df))%3), weight_name='w')
    else: learn = trained(df, time_name='timestamp')
    back = load_bundle(given_away(learn.recommender).save_bundle(tmp_path/'b'))
    same_lists(learn.recommender, back)
    assert not any(b'town' in o.read_bytes() or b'person-' in o.read_bytes() for o in (tmp_path/'b').iterdir())
    if kind=='items': assert back.recommend(history=told_by(learn.recommender), k=60).item_id.max()>40 # items that nobody met are scored as before
    if kind=='users': assert 'user' not in given_away(learn.recommender, 'all', True).train.features and 'user' in given_away(learn.recommender, 'all', True, user_features=True).train.features

def trained_on(dls, **kwargs): return fit_one_cycle(collab_learner(dls, n_factors=4, **kwargs))

# damage

def damaged(files, rng):
    "One damage to a repository: bits, a shorter file, two swapped, one gone, bytes put in, a file of another repository's kind"
    files,name = dict(files),rng.choice(sorted(files))
    data,how = bytearray(files[name]),rng.randrange(7)
    if how==0:
        for _ in range(rng.choice([1,1,8])): data[rng.randrange(len(data))] ^= 1<<rng.randrange(8)
    elif how==1: data = data[:rng.randrange(len(data))]
    elif how==2:
        other = rng.choice([o for o in files if o!=name])
        files[other],data = bytes(data),files[other]
    elif how==3: return {k: v for k,v in files.items() if k!=name}
    elif how==4: data[rng.randrange(len(data)):0] = rng.randbytes(3)
    elif how==5: data = pickle.dumps([name])
    else: data = b'version https://git-lfs.github.com/spec/v1\noid sha256:'+b'0'*64+b'\nsize 12345\n'
    files[name] = bytes(data)
    return files

def found_or_harmless(hub, learn, tmp_path, n, seed=0):
    rec = given_away(learn.recommender)
    files = {o.name: o.read_bytes() for o in save_bundle(rec, tmp_path/'b').iterdir()}
    told,rng,found = told_by(learn.recommender, 3),random.Random(seed),0
    want = rec.recommend(history=told, k=5, progress=False)
    for _ in range(n):
        commit = hub.put('me/damaged', damaged(files, rng))
        try: back = load_bundle(f'hf://me/damaged@{commit}')
        except BundleError: found += 1; continue
        pd.testing.assert_frame_equal(back.recommend(history=told, k=5, progress=False), want)
    return found

def test_forty_damaged_repositories(hub, learn, tmp_path): assert found_or_harmless(hub, learn, tmp_path, 40)>30

@pytest.mark.slow
def test_five_hundred_damaged_repositories_are_found_or_harmless(hub, learn, tmp_path): assert found_or_harmless(hub, learn, tmp_path, 500, 1)>400

# settings

def numbers(o, at=()):
    "Where numbers stand"
    if isinstance(o, bool): return
    if isinstance(o, (int,float)): yield at
    for k,v in o.items() if isinstance(o, dict) else enumerate(o) if isinstance(o, list) else (): yield from numbers(v, (*at,k))

def with_number(o, at, v):
    o = x = copy.deepcopy(o)
    for k in at[:-1]: x = x[k]
    x[at[-1]] = v
    return o

HUGE = '''
import json,resource,sys
from pathlib import Path
import numpy as np
from recfast.bundle import _signed,load_bundle
sys.path.insert(0, sys.argv[2])
from test_hub import numbers,with_number
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss*(1 if sys.platform=='darwin' else 1024)
tried = 0
for path in sorted(Path(sys.argv[1]).iterdir()):
    config = json.loads((path/'config.json').read_text())
    history = json.loads(config['training']['told'])
    want = load_bundle(path).recommend(history=history, k=5, progress=False)
    before = peak()
    for at in numbers({k: config.get(k) for k in ('model','loss','draws','parts','weighing','session_gap','n_train')}):
        for v in (10**9, 1e9, -1, 10**18):
            (path/'config.json').write_text(json.dumps(_signed(with_number(config, at, v))))
            tried += 1
            try: load_bundle(path).recommend(history=history, k=5, progress=False)
            except Exception as e:
                if type(e).__name__ not in ('BundleError','RatingsError'): print(path.name, at, v, type(e).__name__, str(e)[:100])
            if peak()-before>64*2**20: print(path.name, at, v, (peak()-before)>>20, 'MB'); before = peak()
print('tried', tried)
'''

@pytest.mark.slow
def test_no_number_in_a_config_allocates_what_the_weights_do_not_hold(tmp_path):
    (tmp_path/'bundles').mkdir()
    for name in MODELS:
        learn = fit_one_cycle(learner_of(name))
        rec = learn.recommender
        clicks = rec.train.rating_range in (None,(1,1))
        told = json.dumps([4,7] if clicks else [dict(item_id=4, rating=5.), dict(item_id=7, rating=4.)])
        save_bundle(rec, tmp_path/'bundles'/name, dict(told=told))
    run = subprocess.run([sys.executable,'-W','ignore','-c',HUGE,str(tmp_path/'bundles'),str(Path(__file__).parent)], capture_output=True, text=True, env={**os.environ, 'PYTHONPATH': os.pathsep.join(sys.path)})
    assert run.returncode==0, run.stderr
    *odd,last = run.stdout.splitlines()
    assert odd==[] and int(last.split()[1])>500

def test_a_thousand_million_factors_allocate_nothing(hub, learn, tmp_path):
    import tracemalloc
    path = learn.save_bundle(tmp_path/'b')
    config = bundle_config(path)
    config['model']['config']['n_factors'] = 10**9
    (path/'config.json').write_text(json.dumps(_signed(config)))
    commit = hub.put('me/huge', {o.name: o.read_bytes() for o in path.iterdir()})
    for where in (path,f'hf://me/huge@{commit}'):
        tracemalloc.start()
        with pytest.raises(BundleError, match='does not fit its weights: its settings ask for a tensor of [0-9,]*,000,000,000 numbers'): load_bundle(where)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak<2**24

def test_tables_of_features_are_no_wider_than_what_is_said_of_them(tmp_path):
    films = pd.DataFrame(dict(item_id=range(1, 61), genre=['a','b','c']*20, year=range(1960, 2020), title=[f'film {i}' for i in range(60)]))
    path = trained(items=films).save_bundle(tmp_path/'b')
    assert load_bundle(path)
    config = bundle_config(path)
    widths = [at for at in numbers(config['features']) if 'widths' in at]
    for at in widths:
        (path/'config.json').write_text(json.dumps(_signed(dict(config, features=with_number(config['features'], at, 10**12)))))
        with pytest.raises(BundleError, match='characters tell'): load_bundle(path)
    assert len(widths)==3

# fastai's own

def test_what_the_client_has_for_fastai_works_and_gives_everybody_away(hub, learn, tmp_path):
    from huggingface_hub import push_to_hub_fastai
    plain = trained()
    push_to_hub_fastai(learner=plain, repo_id='me/pickled')
    files = hub.repos['me/pickled'].commits[-1][1]
    assert 'model.pkl' in files and b'person-7-x' in files['model.pkl'][0] # a pickle, with ids of people
    with pytest.raises(BundleError, match='no config.json'): load_bundle(f"hf://me/pickled@{hub.repos['me/pickled'].commits[-1][0]}")

# the shell

def test_a_shell_pushes_and_reads(hub, learn, tmp_path):
    from typer.testing import CliRunner
    from recfast.cli import app
    path = learn.save_bundle(tmp_path/'b')
    run = CliRunner().invoke(app, ['push',str(path),'me/shell','--license','mit'])
    assert run.exit_code==0, run.output
    where = re.search('hf://me/shell@[0-9a-f]{40}', run.output.replace('\n', ''))[0]
    out = tmp_path/'lists.csv'
    for command in (['recommend',where,'--history','4:5','--history','7:4','-k','3','--out',str(out)], ['info',where], ['page',where,'--out',str(tmp_path/'site')]):
        run = CliRunner().invoke(app, command)
        assert run.exit_code==0, (command,run.output)
    assert pd.read_csv(out).item_id.tolist()==learn.recommend(history={4: 5., 7: 4.}, k=3).item_id.tolist() and (tmp_path/'site'/'index.html').exists()
    run = CliRunner().invoke(app, ['recommend',where,'--user','person-1-x'])
    assert run.exit_code==2 and 'knows 0 users' in run.output

def test_a_service_answers_from_it(hub, learn):
    from fastapi.testclient import TestClient
    from recfast.serve import make_app
    where = learn.push_to_hub('me/served', license='mit')
    with TestClient(make_app(where)) as client:
        got = client.post('/recommend', json=dict(history=[dict(item_id=4, rating=5.), dict(item_id=7, rating=4.)], k=3))
        assert got.status_code==200, got.text
        assert [o['item_id'] for o in got.json()]==learn.recommend(history={4: 5., 7: 4.}, k=3).item_id.tolist()
        assert client.get('/').status_code==200 and client.post('/recommend', json=dict(user_ids=['person-1-x'])).status_code==404

def test_without_the_extra_it_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, 'huggingface_hub', None)
    with pytest.raises(RecfastError, match=r'pip install recfast\[hub\]'): load_bundle('hf://me/movies@'+'a'*40)
