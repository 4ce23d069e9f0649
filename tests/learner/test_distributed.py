"Two processes train as one does: the same losses, the same scores, files of the first"
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from helpers import free_port
from recfast.bundle import load_bundle
from recfast.core import process_rank
from recfast.testing import synth_ratings
from two_processes import LEARNERS, learner, pairs, trained

PROGRAM = Path(__file__).parents[1]/'two_processes.py'

def environment(rank, n, port):
    return dict(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(n), MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port), OMP_NUM_THREADS='1')

@pytest.fixture(scope='module')
def both(tmp_path_factory):
    "(folder, what each of two processes wrote of every training)"
    out,port = tmp_path_factory.mktemp('two'),free_port()
    started = [subprocess.Popen([sys.executable,'-W','ignore',PROGRAM,out], env={**os.environ,**environment(r, 2, port)}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT) for r in (0,1)]
    said = [o.communicate(timeout=300)[0] for o in started]
    assert [o.returncode for o in started]==[0,0], '\n'.join(said)[-4000:]
    return out,*(json.loads((out/f'{r}.json').read_text()) for r in (0,1))

def close(a, b, atol): np.testing.assert_allclose(a, b, rtol=0, atol=atol)

@pytest.mark.parametrize('name', LEARNERS)
def test_the_losses_are_those_of_one_process(name, both, tmp_path):
    _,first,second = both
    alone,two = trained(name, tmp_path),first[name]
    close(two['losses'], alone['losses'], 1e-5) # asked for: 1e-4
    close([v[:2] for v in two['values']], [v[:2] for v in alone['values']], 1e-5)
    close(two['scores'], alone['scores'], 1e-5)
    for key in ('losses','scores'): assert two[key]==second[name][key] # the processes agree to the bit

def test_lists_inside_and_after_are_the_same(both):
    for name in ('mse','shard'): close(both[1][name]['inside'], both[1][name]['scores'], 1e-6)

def test_the_learner_says_which_loop_and_why(both):
    fast = {name: o['fast'] for name,o in both[1].items() if name!='refused'}
    assert fast.pop('plain')=='plain: NoEvents works on every batch' and fast.pop('shard')=='plain: tables are dealt out to 2 processes'
    assert {*fast.values()}=={'fast: 2 processes share every batch'}

def test_a_checkpoint_of_tables_dealt_out_is_read_by_one(both):
    learn = learner(pairs())
    learn.path = both[0]
    learn.load('shard', with_opt=True)
    close(learn.recommend([1,2], k=5, exclude_seen=False).score, both[1]['shard']['scores'], 1e-6)
    assert [o['grad_avg'].shape for o in learn.opt.state.values()]==[o.shape for o in learn.model.parameters()]

@pytest.mark.parametrize('name', ['mse','shard'])
def test_the_bundle_answers_as_they_do(name, both):
    rec = load_bundle(both[0]/f'{name}.recfast')
    close(rec.recommend([1,2], k=5, exclude_seen=False).score, both[1][name]['scores'], 1e-6)
    assert rec.info['training']['fast']==both[1][name]['fast']

def test_what_cannot_be_shared_is_a_sentence(both):
    _,first,second = both
    assert first['refused']==second['refused']
    words = 'EASE is solved, not trained','chooses by the clock','RMSELoss is no mean over rows',"differ in 'seed'",'lr_find runs in one process','EmbeddingNN is another'
    assert all(w in said for w,said in zip(words, first['refused'], strict=True))

def test_alone_the_context_does_nothing():
    learn = learner(pairs())
    with learn.distrib_ctx(shard=True), learn.quiet(): learn.fit(1)
    assert learn.fast.loop=='compiled' and learn.joint is None

def test_half_an_environment_is_none(monkeypatch):
    monkeypatch.setenv('RANK', '3') # some schedulers set it for other ends
    assert process_rank()==(0,1)

@pytest.mark.slow
def test_the_shell_trains_under_torchrun(tmp_path):
    synth_ratings().to_csv(tmp_path/'ratings.csv', index=False)
    launch = [sys.executable,'-W','ignore','-m','torch.distributed.run','--nproc-per-node','2','--master-addr','127.0.0.1','--master-port',str(free_port())]
    train = ['-m','recfast.cli','train',tmp_path/'ratings.csv','--out',tmp_path/'b.recfast','--epochs','1']
    run = lambda *more: subprocess.run([*launch,*train,*more], capture_output=True, text=True, env={**os.environ,'OMP_NUM_THREADS':'1'})
    res = run('--arch','dotproductbias')
    assert res.returncode==0 and res.stdout.count('Bundle:')==1, res.stdout+res.stderr
    assert load_bundle(tmp_path/'b.recfast').info['training']['fast']=='fast: 2 processes share every batch'
    assert (tmp_path/'b.html').exists()
