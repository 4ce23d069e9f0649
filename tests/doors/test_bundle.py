"Bundles: every registered model comes back in a new process, damage is found, and a crash loses nothing"
import json
import multiprocessing
import os
import pickle
import random
import shutil
import subprocess
import sys
import time
import zipfile
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings, strategies as st

from helpers import fit, fit_one_cycle, learner_of
from recfast.bundle import bundle_config, load_bundle, read_vocab, save_bundle, write_vocab
from recfast.core import BundleError, RecfastError
from recfast.data.loaders import CollabDataLoaders, Vocab
from recfast.learner import collab_learner
from recfast.models.base import MODELS, register
from recfast.models.dot import DotProduct
from recfast.recommend import Recommender
from recfast.testing import synth_ratings

SCRIPT = '''
import json, sys
import pandas as pd
from recfast.bundle import load_bundle
from recfast.models.base import MODELS
res = {}
for name in sys.argv[1:]:
    rec,caps = load_bundle(name),MODELS[name][1]
    out = dict(top=rec.recommend([1,2,3], k=5), pred=pd.DataFrame(dict(score=rec.predict([1,2,3], [4,5,6]))))
    if caps['history']: out['new'] = rec.recommend(history=[4,7] if rec.train.rating_range in (None,(1,1)) else {4: 5, 7: 4}, k=5)
    if caps['similar_items']: out['near'] = rec.similar_items([4,5], k=3)
    res[name] = {k: v.to_dict('list') for k,v in out.items()}
print(json.dumps(res))
'''

def answers(learn, caps):
    out = dict(top=learn.recommend([1,2,3], k=5), pred=pd.DataFrame(dict(score=learn.predict([1,2,3], [4,5,6]))))
    if caps['history']: out['new'] = learn.recommend(history=[4,7] if learn.dls.interactions('train').rating_range in (None,(1,1)) else {4: 5, 7: 4}, k=5)
    if caps['similar_items']: out['near'] = learn.similar_items([4,5], k=3)
    return out

@pytest.mark.slow
def test_every_registered_model_answers_the_same_in_a_process_without_its_data(tmp_path):
    want = {}
    for name,(_,caps) in MODELS.items():
        learn = fit_one_cycle(learner_of(name))
        learn.save_bundle(tmp_path/name)
        want[name] = answers(learn, caps)
    run = subprocess.run([sys.executable, '-W', 'ignore', '-c', SCRIPT, *want], capture_output=True, text=True, cwd=tmp_path)
    assert run.returncode==0, run.stderr
    got = json.loads(run.stdout.splitlines()[-1])
    assert list(got)==list(want)
    for name in want:
        for k,frame in want[name].items():
            pd.testing.assert_frame_equal(pd.DataFrame(got[name][k]), frame, check_dtype=False, rtol=1e-5, atol=1e-6, obj=f'{name} {k}')

def test_a_class_of_the_same_name_leaves_a_model_of_recfast_its_bundles(tmp_path):
    mine = type('DotProduct', (DotProduct,), {})
    with pytest.warns(UserWarning, match='recfast has a DotProduct of its own.*Call it something else'): assert register()(mine) is mine
    assert MODELS['dotproduct'][0] is DotProduct
    learner_of('dotproduct').save_bundle(tmp_path/'b')
    assert type(load_bundle(tmp_path/'b').model) is DotProduct

def test_a_class_of_your_own_may_be_defined_again(monkeypatch):
    first,second = [type('Mine', (DotProduct,), {}) for _ in range(2)]
    monkeypatch.setitem(MODELS, 'mine', None)
    del MODELS['mine'] # is put back to that at the end
    for cls in (first,second):
        register()(cls)
        assert MODELS['mine'][0] is cls

# ids

@pytest.mark.parametrize('ids', [[196,22], ['b','a','김치','#na'], [1.5,-2.], [True,False], np.array([3,1], 'int16'), np.array([2**63], 'uint64'), [2**62,-1],
    pd.to_datetime(['2021-01-02','2020-01-01']), pd.to_datetime(['2021-01-02 03:04:05.000001']).tz_localize('UTC'), [date(2020,1,1),date(1999,1,1)],
    pd.Categorical(['b','a'])])
def test_ids_keep_their_type(ids):
    voc = Vocab(ids)
    back = read_vocab(json.loads(json.dumps(write_vocab(voc))))
    assert list(back.items)==list(voc.items) and [type(o) for o in back.items]==[type(o) for o in voc.items] and back.index.dtype==voc.index.dtype

@settings(max_examples=100, deadline=None)
@given(st.one_of(st.lists(st.integers(-2**63, 2**63-1), min_size=1), st.lists(st.text(), min_size=1), st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1),
    st.lists(st.dates(), min_size=1)))
def test_any_ids_come_back(ids):
    voc = Vocab(ids)
    assert list(read_vocab(json.loads(json.dumps(write_vocab(voc)))).items)==list(voc.items)

def test_ids_of_another_type_cannot_be_written():
    with pytest.raises(BundleError, match='ids of type tuple cannot be written'): write_vocab(Vocab(pd.Series([(1,2),(3,4)])))

# what is wrong with a bundle

@pytest.fixture(scope='module')
def saved(tmp_path_factory):
    "A small bundle and its recommendations"
    learn = collab_learner(CollabDataLoaders.from_df(synth_ratings(n_users=20, n_items=15), seed=1, bs=32), n_factors=3, y_range=(0,5.5))
    path = learn.save_bundle(tmp_path_factory.mktemp('b')/'good')
    return path,learn.recommend(k=5)

def copy(saved, tmp_path):
    path = tmp_path/'b'
    shutil.rmtree(path, ignore_errors=True)
    return shutil.copytree(saved[0], path)

def edit(path, sign=True, **change):
    "Change `config.json`, with or without the checksum that goes with it"
    from recfast.bundle import _signed
    config = {**json.loads((path/'config.json').read_text(encoding='utf-8')), **change}
    (path/'config.json').write_text(json.dumps(_signed(config) if sign else config), encoding='utf-8')

@pytest.mark.parametrize('change,match', [
    (dict(schema=99), 'pip install -U recfast'), (dict(format='other'), 'not one of a recfast bundle'), (dict(schema='1'), 'damaged'), (dict(n_train='x'), 'do not fit together'),
    (dict(model=dict(name='netflix', config={}, why='')), "has no model 'netflix'"), (dict(model=dict(name='dotproduct', config=dict(n_users=7, n_items=16), why='')), 'the model says'),
    (dict(files={}), 'do not fit together'), (dict(files=dict(weights='../../x', rows='y', ids='z')), 'no name of a data file')])
def test_a_config_that_says_something_else(saved, tmp_path, change, match):
    path = copy(saved, tmp_path)
    edit(path, **change)
    with pytest.raises(BundleError, match=match): load_bundle(path)

def test_an_edited_config_does_not_match_its_checksum(saved, tmp_path):
    path = copy(saved, tmp_path)
    edit(path, sign=False, n_train=3)
    with pytest.raises(BundleError, match='does not match its checksum'): load_bundle(path)

def test_what_is_no_bundle(tmp_path):
    with pytest.raises(BundleError, match='there is no'): load_bundle(tmp_path/'nowhere')
    with pytest.raises(BundleError, match='it is no bundle'): load_bundle(tmp_path)
    (tmp_path/'a.zip').write_bytes(b'PK nothing')
    with pytest.raises(BundleError, match='neither a folder nor a zip'): load_bundle(tmp_path/'a.zip')

def test_a_pickle_is_not_run(tmp_path):
    import pickle
    class Evil:
        def __reduce__(self): return os.system, (f'touch {tmp_path}/ran',)
    for name in ('config.json','x.zip'): (tmp_path/name).write_bytes(pickle.dumps(Evil()))
    for p in (tmp_path, tmp_path/'x.zip'):
        with pytest.raises(BundleError): load_bundle(p)
    assert not (tmp_path/'ran').exists()

def test_a_compressed_zip_is_refused(saved, tmp_path):
    with zipfile.ZipFile(tmp_path/'b.zip', 'w', zipfile.ZIP_DEFLATED) as z:
        for o in saved[0].iterdir(): z.write(o, o.name)
    with pytest.raises(BundleError, match='compressed'): load_bundle(tmp_path/'b.zip')

def test_saving_does_not_mix_with_other_files(saved, tmp_path):
    (tmp_path/'thesis.txt').write_text('mine')
    rec = load_bundle(saved[0])
    with pytest.raises(BundleError, match='thesis.txt'): save_bundle(rec, tmp_path)
    with pytest.raises(BundleError, match='is a file'): save_bundle(rec, tmp_path/'thesis.txt')
    assert [o.name for o in tmp_path.iterdir()]==['thesis.txt']

def test_saving_again_leaves_one_bundle(saved, tmp_path):
    rec = load_bundle(saved[0])
    path = save_bundle(rec, tmp_path/'b')
    with torch.no_grad(): next(rec.model.parameters()).add_(1)
    save_bundle(rec, path)
    assert len(list(path.iterdir()))==4
    pd.testing.assert_frame_equal(load_bundle(path).recommend(k=3), rec.recommend(k=3))

def test_a_zip_is_the_same_bundle(saved, tmp_path):
    path = save_bundle(load_bundle(saved[0]), tmp_path/'b.zip')
    pd.testing.assert_frame_equal(load_bundle(path).recommend(k=5), saved[1])
    assert bundle_config(path)['files']==bundle_config(saved[0])['files']

def test_only_training_items_are_candidates_after_loading(tmp_path):
    df = synth_ratings()
    learn = collab_learner(CollabDataLoaders.from_df(df, splits=(np.flatnonzero(df.item_id!=7),np.flatnonzero(df.item_id==7)), vocab='all', seed=1), n_factors=3)
    rec = load_bundle(learn.save_bundle(tmp_path/'b'))
    pd.testing.assert_frame_equal(rec.recommend(k=40), learn.recommend(k=40))
    assert not (rec.recommend(k=40, exclude_seen=False).item_id==7).any()

def test_a_recommender_whose_training_rows_are_elsewhere_is_refused(saved, tmp_path):
    rec = load_bundle(saved[0])
    odd = Recommender(rec.model, rec.seen, rec.seen[5:])
    with pytest.raises(BundleError, match='not the first'): save_bundle(odd, tmp_path/'b')

def test_loading_leaves_the_random_state_alone(saved):
    state = torch.get_rng_state()
    load_bundle(saved[0])
    assert torch.equal(state, torch.get_rng_state())

def test_a_model_of_ones_own_is_strict(tmp_path):
    class Mine(DotProduct): pass
    learn = collab_learner(CollabDataLoaders.from_df(synth_ratings(), seed=1), n_factors=3, arch=Mine)
    path = learn.save_bundle(tmp_path/'b')
    with pytest.raises(BundleError, match=r'model=Mine\(\.\.\.\)'): load_bundle(path)
    back = load_bundle(path, model=Mine(51, 41, 3))
    assert back.predict(1, 2)==learn.predict(1, 2)
    with pytest.raises(BundleError, match='size mismatch'): load_bundle(path, model=Mine(51, 41, 4))

def test_the_last_evaluation_of_these_weights_goes_along(tmp_path):
    learn = collab_learner(CollabDataLoaders.from_df(synth_ratings(), seed=1, bs=32), n_factors=3)
    fit(learn, 1)
    ev = learn.evaluate(k=5)
    rec = load_bundle(learn.save_bundle(tmp_path/'a'))
    assert rec.info['training']['metrics']['ndcg@5']==ev['ndcg@5'] and rec.info['training']['protocol']==ev.protocol
    assert load_bundle(rec.save_bundle(tmp_path/'b')).info['training']==rec.info['training']
    assert learn.last_evaluation is ev and pickle.loads(pickle.dumps(learn)).last_evaluation is None
    fit(learn, 1)
    assert 'metrics' not in load_bundle(learn.save_bundle(tmp_path/'c')).info['training']

def test_folders_on_the_way_are_made(saved, tmp_path):
    rec = load_bundle(saved[0])
    pd.testing.assert_frame_equal(load_bundle(rec.save_bundle(tmp_path/'x'/'y'/'B.ZIP')).recommend(k=5), saved[1])
    assert (tmp_path/'x'/'y'/'B.ZIP').is_file()

# bundles of before: recfast 0.1.0 wrote these, and `answers.json` is what its learners said

SCHEMA_1 = Path(__file__).parent/'schema1'
ANSWERS_OF_THEN = json.loads((SCHEMA_1/'answers.json').read_text(encoding='utf-8'))

@pytest.mark.parametrize('name', ANSWERS_OF_THEN)
def test_a_bundle_of_schema_1_answers_as_it_did(name):
    then,rec = ANSWERS_OF_THEN[name],load_bundle(SCHEMA_1/f'{name}.zip')
    film = then['similar']['query_id'][0]
    now = dict(recommend=rec.recommend([1,2], k=3), similar=rec.similar_items(film, k=3),
               history=rec.recommend(history={film: 4}, k=3),
               predict=pd.DataFrame(dict(score=[rec.predict(1, film)])))
    assert bundle_config(SCHEMA_1/f'{name}.zip')['schema']==1 and set(now)==set(then)
    for verb,frame in now.items():
        want = pd.DataFrame(then[verb])
        pd.testing.assert_frame_equal(frame, want, check_dtype=False, rtol=1e-5, atol=1e-6, obj=f'{name} {verb}')

def test_a_bundle_of_schema_1_is_saved_as_one_of_today(tmp_path):
    rec = load_bundle(SCHEMA_1/'dotproductbias.zip')
    again = load_bundle(rec.save_bundle(tmp_path/'b'))
    pd.testing.assert_frame_equal(again.recommend(k=3), rec.recommend(k=3))
    assert again.info['training']==rec.info['training'] and again.info['training']['metrics']['ndcg@5']>0

# damage

def corrupt(path, rng, which=None, how=None):
    "One damage to a bundle: bits (0), a shorter file (1), two files swapped (2), one gone (3), bytes at the end (4) or put in (5); random where not given"
    files = sorted(path.iterdir())
    f = rng.choice(files) if which is None else files[which]
    if how is None: how = rng.randrange(6)
    data = bytearray(f.read_bytes())
    if how==0:
        for _ in range(rng.choice([1,1,8])): data[rng.randrange(len(data))] ^= 1<<rng.randrange(8)
    elif how==1: data = data[:rng.randrange(len(data))]
    elif how==2:
        g = rng.choice([o for o in files if o!=f])
        other = g.read_bytes()
        g.write_bytes(bytes(data)); data = other
    elif how==3: return f.unlink()
    elif how==4: data = bytes(data)+rng.randbytes(rng.randrange(1, 9))
    else:
        at = rng.randrange(len(data))
        data[at:at] = rng.randbytes(3)
    f.write_bytes(bytes(data))

def found_or_harmless(saved, tmp_path, damages):
    "How many of these damages are found; the others change no list"
    rng,found = random.Random(0),0
    for which,how in damages:
        path = copy(saved, tmp_path)
        corrupt(path, rng, which, how)
        try: rec = load_bundle(path)
        except BundleError: found += 1; continue
        pd.testing.assert_frame_equal(rec.recommend(k=5), saved[1])
    return found

@pytest.mark.slow
def test_every_kind_of_corruption_of_every_file_is_found_or_harmless(saved, tmp_path):
    n_files = len(list(saved[0].iterdir()))
    every = [(which,how) for which in range(n_files) for how in range(6)]
    assert n_files==4 and len(every*21)==504
    assert found_or_harmless(saved, tmp_path, every*21)>454

@pytest.mark.weekly
def test_five_thousand_corruptions_are_found_or_harmless(saved, tmp_path):
    assert found_or_harmless(saved, tmp_path, [(None,None)]*5000)>4500

@pytest.mark.slow
def test_corrupted_zips_are_found_or_harmless(saved, tmp_path):
    rng,path = random.Random(1),tmp_path/'b.zip'
    good = save_bundle(load_bundle(saved[0]), tmp_path/'good.zip').read_bytes()
    for _ in range(500):
        data = bytearray(good)
        if rng.random()<.7: data[rng.randrange(len(data))] ^= 1<<rng.randrange(8)
        else: data = data[:rng.randrange(len(data))]
        path.write_bytes(bytes(data))
        try: rec = load_bundle(path)
        except BundleError: continue
        pd.testing.assert_frame_equal(rec.recommend(k=5), saved[1])

# crashes

def two_of(good):
    "What `good` holds, and the same with other weights"
    recs = [load_bundle(good) for _ in range(2)]
    with torch.no_grad(): next(recs[1].model.parameters()).add_(1)
    return recs

def save_forever(good, path):
    torch.set_num_threads(1)
    recs = two_of(good)
    while True:
        for rec in recs: save_bundle(rec, path)

def saver(good, path):
    "A process that saves until it is killed, forked from a small one: this one holds threads and much memory"
    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload(['recfast.all','hypothesis.strategies','pytest'])
    process = context.Process(target=save_forever, args=(good,path), daemon=True)
    process.start()
    return process

def kill(process):
    assert process.is_alive() # it did not end by itself
    process.kill()
    process.join()

def time_of_a_save(good, path):
    "Seconds until such a process has written its first bundle"
    process,start = saver(good, path),time.perf_counter()
    while not (path/'config.json').exists():
        assert process.is_alive() and time.perf_counter()-start<120
        time.sleep(.01)
    wall = time.perf_counter()-start
    kill(process)
    return wall

@pytest.mark.slow
@pytest.mark.skipif('forkserver' not in multiprocessing.get_all_start_methods(), reason='needs fork')
def test_killed_at_any_moment_it_leaves_a_bundle(saved, tmp_path):
    good,path,lists = saved[0],tmp_path/'b',[o.recommend(k=5) for o in two_of(saved[0])]
    rng,seen,wall = random.Random(2),0,time_of_a_save(good, tmp_path/'once')
    for _ in range(30):
        process = saver(good, path)
        time.sleep(rng.uniform(0, 2*wall))
        kill(process)
        if not (path/'config.json').exists(): continue
        got = load_bundle(path).recommend(k=5)
        assert any(got.equals(o) for o in lists)
        seen += 1
    assert seen>10

def test_errors_are_those_of_the_package(): assert issubclass(BundleError, RecfastError)
