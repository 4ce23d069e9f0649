"A run broken off and taken up again ends at the weights of one that was not"
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from helpers import learner, loaders

FIT = dict(one_cycle=lambda l,**kw: l.fit_one_cycle(4, 1e-2, wd=.1, **kw), flat=lambda l,**kw: l.fit(4, 1e-2, wd=.1, **kw))

def resumable(path, **kwargs):
    "A learner whose epochs are the same each time, and which saves under `path`"
    return learner(loaders(seed=7, bs=64, path=path), path=path, metrics=None, **kwargs)

def same(a, b): return all(torch.equal(v, b.model.state_dict()[k]) for k,v in a.model.state_dict().items())
def same_opt(a, b):
    "Are the averages and step counts of two optimizers the same?"
    return all(torch.equal(x[k], y[k]) if torch.is_tensor(x[k]) else x[k]==y[k]
               for x,y in zip(a.opt.state_dict()['state'], b.opt.state_dict()['state'], strict=True) for k in y)

class Stop(Exception): pass
def stop_after(n):
    "A callback that breaks off a fit before epoch `n`"
    from fastai.callback.core import Callback
    class StopAt(Callback):
        def before_epoch(self):
            if self.epoch==n: raise Stop('here')
    return StopAt()

@pytest.mark.parametrize('fast', [None,False], ids=['fast','plain'])
@pytest.mark.parametrize('how', FIT)
@pytest.mark.parametrize('at', [1,3])
def test_a_learner_loaded_after_a_crash_ends_bit_equal(tmp_path, how, fast, at):
    whole,first,second = (resumable(tmp_path) for _ in range(3))
    FIT[how](whole, fast=fast)
    with pytest.raises(Stop): FIT[how](first, fast=fast, cbs=stop_after(at))
    first.save('here')
    second.load('here')
    FIT[how](second, fast=fast, start_epoch=at)
    assert bool(second.fast)==(fast is None)
    assert same(whole, second) and same_opt(whole, second)

def test_a_run_broken_off_on_the_fast_loop_goes_on_in_the_plain_one(tmp_path):
    whole,first,second = (resumable(tmp_path) for _ in range(3))
    FIT['one_cycle'](whole)
    with pytest.raises(Stop): FIT['one_cycle'](first, cbs=stop_after(2))
    first.save('here')
    second.load('here')
    FIT['one_cycle'](second, fast=False, start_epoch=2)
    for k,v in whole.model.state_dict().items(): torch.testing.assert_close(v, second.model.state_dict()[k], rtol=1e-5, atol=1e-5)

def test_without_the_optimizer_it_is_another_run(tmp_path):
    whole,first,second = (resumable(tmp_path) for _ in range(3))
    FIT['flat'](whole)
    with pytest.raises(Stop): FIT['flat'](first, cbs=stop_after(2))
    first.save('here', with_opt=False)
    second.load('here', with_opt=False)
    assert same(first, second)
    FIT['flat'](second, start_epoch=2)
    assert not same(whole, second)

@pytest.mark.parametrize('name', ['neumf','embeddingnn'])
def test_dropout_is_drawn_as_it_would_have_been(tmp_path, name):
    from recfast.models.base import find_model
    config = dict(p=.3) if name=='neumf' else dict(ps=.3, embed_p=.1)
    whole,first,second = (resumable(tmp_path, arch=find_model(name), config=config) for _ in range(3))
    FIT['one_cycle'](whole)
    with pytest.raises(Stop): FIT['one_cycle'](first, cbs=stop_after(2))
    first.save('here')
    torch.manual_seed(99) # the caller's generator has no part in it
    second.load('here')
    FIT['one_cycle'](second, start_epoch=2)
    assert same(whole, second)

SCRIPT = '''
import sys; sys.path[:0] = sys.argv[2:]
from test_checkpoints import FIT,resumable
learn = resumable(sys.argv[1])
learn.load('here')
FIT['one_cycle'](learn, start_epoch=2)
learn.save('done')
'''

@pytest.mark.slow
def test_a_fresh_process_ends_bit_equal(tmp_path):
    here = Path(__file__).parent
    whole,first = resumable(tmp_path),resumable(tmp_path)
    FIT['one_cycle'](whole)
    with pytest.raises(Stop): FIT['one_cycle'](first, cbs=stop_after(2))
    first.save('here')
    run = subprocess.run([sys.executable, '-W', 'ignore', '-c', SCRIPT, str(tmp_path), str(here), str(here.parent)], capture_output=True, text=True)
    assert run.returncode==0, run.stderr
    back = resumable(tmp_path)
    back.load('done')
    assert same(whole, back) and same_opt(whole, back)

@pytest.mark.parametrize('fast', [None,False], ids=['fast','plain'])
def test_two_fits_in_one_sitting_are_two_with_a_checkpoint_between(tmp_path, fast):
    "A second fit takes the orders of the epochs after the first; a loaded learner is told by start_epoch which those are"
    together,first,second = (resumable(tmp_path) for _ in range(3))
    for _ in range(2): together.fit(2, 1e-2, fast=fast)
    first.fit(2, 1e-2, fast=fast)
    first.save('here')
    second.load('here')
    second.fit(4, 1e-2, start_epoch=2, fast=fast)
    assert same(together, second)
