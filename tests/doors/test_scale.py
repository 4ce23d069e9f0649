"Lists on Ray: those of `rec.recommend`, also where a worker or the run is killed"
import os
import signal
from pathlib import Path

import pandas as pd
import pytest
from torch import nn

pytest.importorskip('ray')

from recfast.bundle import load_bundle
from recfast.core import RecfastError, UnknownIdError
from recfast.data.loaders import CollabDataLoaders
from recfast.data.ratings import RatingsError
from recfast.learner import collab_learner
from recfast.scale import ListWorker, Manifest, blocks_of, ray_session, read_users, recommend_dataset
from recfast.testing import synth_ratings

class Deadly(nn.Module):
    "A model that ends its process the first time it scores in another than the one named, unless a file is there already"
    def __init__(self, n_users, n_items, n_factors, y_range=None):
        super().__init__()
        self.u_weight,self.i_weight = nn.Embedding(n_users, n_factors),nn.Embedding(n_items, n_factors)
    def forward(self, x): return (self.u_weight(x[:,0])*self.i_weight(x[:,1])).sum(1, keepdim=True)
    def score_items(self, users):
        mark = Path(os.environ.get('RECFAST_DEADLY', '/'))
        if not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return self.u_weight(users)@self.i_weight.weight.T

@pytest.fixture(scope='module')
def session(made):
    "Workers find the name of the file in the environment that Ray was started in; this process does not"
    with pytest.MonkeyPatch.context() as m:
        m.setenv('RECFAST_DEADLY', str(made[0]/'killed'))
        m.setenv('PYTHONPATH', os.pathsep.join([str(Path(__file__).parent),os.environ.get('PYTHONPATH', '')])) # where `Deadly` is
        session = ray_session(1)
        ray = session.__enter__()
    yield ray
    session.__exit__(None, None, None)

@pytest.fixture(scope='module')
def made(tmp_path_factory):
    "(folder, recommender) of a bundle of texts as ids, and a folder of users in two files of several row groups"
    home = tmp_path_factory.mktemp('scale')
    df = synth_ratings().assign(user_id=lambda o: 'u'+o.user_id.astype(str))
    learn = collab_learner(CollabDataLoaders.from_df(df, seed=42), n_factors=5, arch=Deadly, y_range=(0,5.5))
    with learn.quiet(): learn.fit(1, 1e-2)
    learn.save_bundle(home/'b.recfast')
    ids = learn.recommender.known_ids()
    (home/'users').mkdir()
    pd.DataFrame({'other': 1, 'user_id': ids[:30]}).to_parquet(home/'users'/'1.parquet', row_group_size=7)
    pd.DataFrame({'user_id': ids[30:]}).to_parquet(home/'users'/'2.parquet')
    return home,load_bundle(home/'b.recfast', Deadly)

def lists_of(out, files): return pd.concat([pd.read_parquet(out/o) for o in files.file], ignore_index=True)

def test_blocks_cover_every_row_once(made):
    home,rec = made
    for size in (1,7,10,1000):
        blocks = blocks_of(home/'users', size)
        assert sum((read_users(o, 'user_id') for o in blocks), [])==rec.known_ids().tolist()
        assert all(o['stop']-o['start']<=size for o in blocks)

def test_a_path_without_users_is_an_error(tmp_path, made):
    with pytest.raises(FileNotFoundError): blocks_of(tmp_path/'nothing')
    with pytest.raises(RatingsError, match='no .parquet'): blocks_of(tmp_path)
    with pytest.raises(RatingsError, match='user_name='): read_users(blocks_of(made[0]/'users')[0], 'who')

@pytest.mark.slow # every run starts processes that import torch
def test_a_worker_that_is_killed_is_replaced(made, session, tmp_path):
    home,rec = made
    files = recommend_dataset(home/'b.recfast', home/'users', tmp_path/'out', k=3, size=10, model=Deadly)
    assert (home/'killed').exists() # one was
    assert lists_of(tmp_path/'out', files).equals(rec.recommend(k=3))
    assert {o.name for o in (tmp_path/'out').iterdir()}=={'_manifest.jsonl',*files.file}

@pytest.mark.slow
def test_a_run_that_is_stopped_goes_on(made, session, tmp_path):
    (home,rec),n = made,[]
    def stop(users):
        n.append(users)
        if len(n)==2: raise RuntimeError('stopped')
    how = dict(k=4, size=10, exclude_seen=False, item_ids=[*range(1, 30)], model=Deadly)
    with pytest.raises(RuntimeError, match='stopped'): recommend_dataset(home/'b.recfast', home/'users', tmp_path, progress=stop, **how)
    with open(tmp_path/'_manifest.jsonl', 'a') as f: f.write('{"block": 4, "fi') # a line that was cut off
    (tmp_path/'part-00009.parquet.17.tmp').touch()
    again = []
    files = recommend_dataset(home/'b.recfast', home/'users', tmp_path, progress=again.append, **how)
    assert len(n)==2 and len(again)==len(files)-2==3
    assert lists_of(tmp_path, files).equals(rec.recommend(k=4, exclude_seen=False, item_ids=[*range(1, 30)]))
    assert len(pd.read_parquet(tmp_path))==files.rows.sum()

@pytest.mark.slow
def test_errors_of_workers_are_told_as_ours(made, session, tmp_path):
    home,_ = made
    pd.DataFrame({'user_id': ['u1','nobody']}).to_parquet(tmp_path/'odd.parquet')
    with pytest.raises(UnknownIdError, match='nobody'): recommend_dataset(home/'b.recfast', tmp_path/'odd.parquet', tmp_path/'a', model=Deadly)

def test_a_worker_writes_what_recommend_gives(made, tmp_path):
    home,rec = made
    work,(block,*_) = ListWorker(home/'b.recfast', Deadly, tmp_path, None, dict(k=5, on_unknown='drop')),blocks_of(home/'users', 20)
    name,users,rows = work.write(block)
    assert (users,rows)==(20,100) and pd.read_parquet(tmp_path/name).equals(rec.recommend(rec.known_ids()[:20], k=5))

def test_lists_of_another_run_are_not_mixed(made, tmp_path):
    home,_ = made
    job = dict(bundle='x', size=3)
    m = Manifest(tmp_path/'out', job)
    m.add(dict(block=0, file='part-00000.parquet', users=3, rows=9))
    assert Manifest(tmp_path/'out', job).done==m.done
    with pytest.raises(RecfastError, match="another run \\('size' differ"): Manifest(tmp_path/'out', dict(job, size=4))
    with pytest.raises(RecfastError, match='other files'): Manifest(home, job)
