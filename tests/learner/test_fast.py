"The fast path and fastai's plain loop: the same training"
from functools import partial

import numpy as np
import pytest
import torch
from fastai.callback.core import Callback
from fastai.callback.fp16 import MixedPrecision
from fastai.callback.training import GradientClip
from fastai.callback.schedule import ParamScheduler, SchedLin
from fastai.data.core import TfmdDL
from fastai.layers import Embedding, sigmoid_range
from fastai.losses import MSELossFlat
from fastai.metrics import mae
from fastai.optimizer import SGD, Adam, OptimWrapper, Optimizer, adam_step, average_grad, average_sqr_grad, step_stat, weight_decay
from fastai.torch_core import params
from torch import nn

from helpers import fit, fit_one_cycle
from recfast.data.datasets import movie_night
from recfast.data.loaders import CollabDataLoaders
from recfast.learner import CollabLearner, collab_learner
from recfast.losses import SoftmaxLoss
from recfast.metrics import RMSE
from recfast.models.dot import DotProductBias
from recfast.models.ncf import EmbeddingNN
from recfast.testing import synth_ratings

FILMS = movie_night()[:4000]


@pytest.fixture(scope='module', autouse=True)
def one_thread():
    "Steps this small only wait for each other in several threads, most of all on a busy machine"
    n = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n)

class Handmade(nn.Module):
    def __init__(self, n_users, n_items, n_factors, y_range):
        super().__init__()
        self.a,self.b,self.bias,self.limits = Embedding(n_users,n_factors),Embedding(n_items,n_factors),nn.Parameter(torch.zeros(1)),y_range
    def forward(self, x): return sigmoid_range((self.a(x[:,0])*self.b(x[:,1])).sum(1)+self.bias, *self.limits)

class NowAndThen(Handmade):
    "Its last parameter gets a gradient only from batches that begin with an odd user, and none at first"
    def __init__(self, **kwargs): super().__init__(**kwargs); self.seen,self.late = 0,nn.Parameter(torch.ones(1))
    def forward(self, x):
        self.seen += self.training
        return super().forward(x)*(self.late if self.seen>20 and x[0,0]%2 else 1.)

ARCH = {'dot': dict(arch=DotProductBias), 'nn': dict(use_nn=True, layers=[20,10], config=dict(ps=.2, embed_p=.1)),
    'handmade': dict(arch=Handmade),
    'now and then': dict(arch=NowAndThen)}
# A relu is not smooth: a rounding bit decides on which side of 0 a unit lies, and two PLAIN fits whose starts differ by 6e-8 end up to
# 1e-2 apart at a rate of 1e-2. At the rate used here for the network they end 1e-6 apart, so a difference of 1e-5 is one of the loops.
RATE = {'dot': 1e-2, 'handmade': 1e-2, 'now and then': 1e-2, 'nn': 1e-3}
slow = partial(pytest.param, marks=pytest.mark.slow)
every_arch = pytest.mark.parametrize('arch', ['dot',slow('nn'),slow('handmade')])

def on_films(arch='dot', df=FILMS, **kwargs):
    dls = CollabDataLoaders.from_df(df, seed=7, bs=32, val_bs=50)
    return collab_learner(dls, n_factors=8, y_range=(0,5.5), **{'metrics': [RMSE(),mae], **ARCH[arch], **kwargs})

def close(a, b, what):
    assert type(a) is type(b) or not isinstance(a, (dict,list,str)), f"{what}: {type(a)} and {type(b)}"
    if isinstance(a, dict):
        assert a.keys()==b.keys(), f"{what}: {a.keys()^b.keys()}"
        for k in a: close(a[k], b[k], f'{what}.{k}')
    elif isinstance(a, (list,tuple)):
        assert len(a)==len(b), f"{what}: {len(a)} and {len(b)}"
        for j,(x,y) in enumerate(zip(a, b)): close(x, y, f'{what}[{j}]')
    elif a is None or isinstance(a, (bool,str)): assert a==b, what
    else: torch.testing.assert_close(torch.as_tensor(a).double(), torch.as_tensor(b).double(), rtol=1e-5, atol=1e-5,
        msg=lambda m: f'{what}: {m}')

def same(fast, plain, steps=100):
    "Everything a program can read off a Learner after training"
    assert fast.fast and not plain.fast and plain.fast.why=='fast=False'
    def state(l):
        rec,opt = l.recorder,l.opt.state_dict()
        res = dict(weights=dict(l.model.state_dict()), grads=[p.grad for p in l.model.parameters()], opt=[dict(o) for o in opt['state']],
                   hypers=[dict(h) for h in opt['hypers']], values=[list(v) for v in rec.values],
                   dl_epoch=l.dls.train.epoch, flag=l.model.training, hps={k: list(v) for k,v in getattr(rec, 'hps', {}).items()},
                   **{k: list(getattr(rec, k)) for k in ('lrs','losses','iters')})
        return {**res, **{k: getattr(l, k) for k in 'epoch n_epoch iter n_iter train_iter pct_train training'.split()},
                **{k: getattr(l, k, None) for k in ('smooth_loss','loss','pred')}} # missing before the first batch is done
    a,b = state(fast),state(plain)
    for k in a: close(a[k], b[k], k)
    assert len(a['losses'])>=steps, "too few steps to show anything"

def both(job, *args, **kwargs):
    "The same job by each loop, each with loaders and Learner of its own"
    out = []
    for fast in ('exact', False): # the compiled loop is within a thousandth, not bit for bit: test_compiled.py
        learn = on_films(*args, **kwargs)
        with learn.no_bar(), learn.no_logging(): job(learn, fast)
        out.append(learn)
    return out


@every_arch
def test_one_cycle(arch): same(*both(lambda l,f: l.fit_one_cycle(3, RATE[arch], wd=.1, fast=f), arch))

@every_arch
def test_two_fits_in_a_row(arch):
    def job(l, f): l.fit_one_cycle(2, RATE[arch], fast=f); l.fit(1, RATE[arch]/3, wd=.01, fast=f)
    same(*both(job, arch))

class Interrupted:
    "Ctrl-C while the loss of a batch is computed"
    def __init__(self, at): self.left,self.loss = at,MSELossFlat()
    def __call__(self, pred, y):
        self.left -= 1
        if self.left==0: raise KeyboardInterrupt
        return self.loss(pred, y)

@every_arch
@pytest.mark.parametrize('at', [1, 60, 105, 160])  # the first batch; within the first epoch, its validation rows, the second epoch
def test_an_interruption(arch, at):
    def job(l, f):
        l.loss_func = Interrupted(at)
        with pytest.raises(KeyboardInterrupt): l.fit_one_cycle(2, RATE[arch], fast=f)
    same(*both(job, arch), steps=0)

@every_arch
def test_training_goes_on_after_an_interruption(arch):
    def job(l, f):
        l.loss_func = Interrupted(150)
        with pytest.raises(KeyboardInterrupt): l.fit_one_cycle(2, RATE[arch], fast=f)
        l.fit_one_cycle(1, RATE[arch], fast=f)
    same(*both(job, arch))

@every_arch
def test_clipped_gradients(arch): same(*both(lambda l,f: l.fit_one_cycle(2, RATE[arch], fast=f, cbs=GradientClip(.02)), arch))

@every_arch
def test_metrics_on_training_batches(arch):
    def job(l, f):
        l.recorder.train_metrics = True
        l.fit(2, RATE[arch]/2, fast=f)
        assert l.recorder.metric_names[1:-1]==['train_loss','train_rmse','train_mae','valid_loss','valid_rmse','valid_mae']
    same(*both(job, arch))

def test_flat_rate_without_a_schedule(): same(*both(lambda l,f: l.fit(2, 3e-3, fast=f)))

def test_a_schedule_of_the_callers_own():
    def job(l, f):
        l.fit(2, 5e-3, fast=f, cbs=ParamScheduler({'lr': SchedLin(1e-2, 1e-3), 'mom': SchedLin(.95, .8), 'wd': SchedLin(.1, 0.)}))
    same(*both(job))

def test_fastai_s_other_schedules():
    def job(l, f):
        l._allow_fast = f
        l.fit_flat_cos(1, 5e-3); l.fit_sgdr(1, 1, 5e-3); l.fine_tune(1, 5e-3)
    same(*both(job))

def test_start_epoch():
    same(*both(lambda l,f: l.fit_one_cycle(3, 5e-3, start_epoch=1, fast=f)))

@pytest.mark.parametrize('kwargs', [dict(wd_bn_bias=True), dict(train_bn=False), dict(wd=.3), dict(moms=(.9,.8,.9)),
    dict(opt_func=partial(Adam, sqr_mom=.95, eps=1e-4))])
@pytest.mark.parametrize('arch', [slow('nn'),'handmade'])
def test_settings_of_the_learner(arch, kwargs): same(*both(lambda l,f: l.fit_one_cycle(1, RATE[arch], fast=f), arch, **kwargs))

@pytest.mark.parametrize('kwargs', [dict(div=10., div_final=50., pct_start=.6), dict(wd=.2, moms=(.9,.7,.9)), dict(reset_opt=True),
    dict(lr_max=slice(1e-2))])
def test_arguments_of_one_cycle(kwargs):
    def job(l, f):
        l.fit_one_cycle(1, 1e-3, fast=f)
        l.fit_one_cycle(1, **{'lr_max': 5e-3, **kwargs}, fast=f)
    same(*both(job))

def test_one_cycle_passes_its_arguments_on():
    learn = on_films()
    fit_one_cycle(learn, 1, 4e-3, div=8., div_final=100., wd=.25, moms=(.9,.6,.8), pct_start=.5)
    lrs,moms = learn.recorder.hps['lr'],learn.recorder.hps['mom']
    assert learn.fast and [lrs[0],lrs[len(lrs)//2],moms[0],moms[len(moms)//2]]==pytest.approx([5e-4,4e-3,.9,.6], rel=1e-3)
    assert lrs[-1]<2e-4 and moms[-1]==pytest.approx(.8, abs=1e-3) and learn.opt.hypers[0]['wd']==.25

def test_frozen_parameters_stay():
    def job(l, f):
        l.model.i_weight.weight.requires_grad_(False)
        l.fit_one_cycle(1, 1e-2, fast=f)
        assert torch.equal(l.model.i_weight.weight, on_films().model.i_weight.weight)
    fast,plain = both(job)
    close(dict(fast.model.state_dict()), dict(plain.model.state_dict()), 'weights')
    assert fast.fast

def test_a_parameter_that_gets_a_gradient_in_some_batches_only(): same(*both(lambda l,f: l.fit_one_cycle(1, 1e-2, fast=f), 'now and then'))

def test_saved_optimizer_state_goes_on_in_either_loop(tmp_path):
    def job(l, f):
        l.path = tmp_path
        l.fit_one_cycle(1, 1e-2, fast=f); l.save('both')
        new = on_films()
        new.path = tmp_path
        new.load('both')
        fit(new, 1, 1e-3, fast='exact' if f is False else False)
        l.new = new
    fast,plain = both(job)
    close(dict(fast.new.model.state_dict()), dict(plain.new.model.state_dict()), 'weights')


def path_taken(learn, *args, **kwargs):
    return fit(learn, 1, 1e-3, *args, **kwargs).fast

class Watches(Callback):
    def before_batch(self): pass

def halves(model): return [params(model.u_weight)+params(model.u_bias), params(model.i_weight)+params(model.i_bias)]

@pytest.mark.parametrize('kwargs,why', [
    (dict(opt_func=SGD), "not fastai's Adam"),
    (dict(opt_func=partial(Adam, decouple_wd=False)), "not fastai's Adam"),
    (dict(opt_func=partial(OptimWrapper, opt=torch.optim.AdamW)), "not fastai's Adam"),
    (dict(opt_func=lambda p,lr: Optimizer(p, [weight_decay,average_grad,average_sqr_grad,step_stat,adam_step], lr=lr, mom=.9, sqr_mom=.99,
        eps=1e-5, wd=.01)),
     "not fastai's Adam"),  # the average without dampening
    (dict(cbs=MixedPrecision), 'MixedPrecision works on every batch'),
    (dict(cbs=Watches), 'Watches works on every batch'),
])
def test_what_the_fast_path_does_not_do_runs_plain(kwargs, why):
    learn = on_films(df=synth_ratings(), **kwargs)
    assert not path_taken(learn) and why in learn.fast.why and why in repr(learn.fast)

def test_groups_of_parameters_keep_their_own_settings():
    "Rates of their own by a slice, and a decay of their own"
    def job(l, f):
        l.create_opt()
        l.fit_one_cycle(1, slice(1e-3, 1e-2), wd=.1, fast=f)
        l.opt.hypers[1]['wd'] = 1.
        l.fit(1, 1e-2, fast=f)
    same(*both(job, 'dot', splitter=halves))

def test_asked_for_the_plain_loop():
    learn = on_films(df=synth_ratings())
    assert not path_taken(learn, fast=False) and learn.fast.why=='fast=False'
    assert path_taken(learn)  # the next fit is fast again

def test_a_callback_of_one_event():
    learn = on_films(df=synth_ratings())
    assert not path_taken(learn, cbs=Callback(before_batch=lambda self: None)) and learn.fast.why=='Callback works on every batch'
    assert path_taken(learn, cbs=Callback(after_epoch=lambda self: None))

def test_half_precision():
    learn = on_films(df=synth_ratings()).to_bf16()
    assert not path_taken(learn) and 'MixedPrecision' in learn.fast.why

def test_a_changed_one_batch():
    class Own(CollabLearner):
        def one_batch(self, i, b): return super().one_batch(i, b)
    dls = CollabDataLoaders.from_df(synth_ratings(), seed=1)
    learn = Own(dls, DotProductBias(dls.n_users, dls.n_items, 3), loss_func=MSELossFlat())
    assert not path_taken(learn) and learn.fast.why=='one_batch was changed'

def test_a_one_batch_put_on_the_object():
    learn = on_films(df=synth_ratings())
    learn.one_batch = partial(CollabLearner.one_batch, learn)
    assert not path_taken(learn) and learn.fast.why=='one_batch was changed'

def test_another_loader():
    learn = on_films(df=synth_ratings())
    rows = [(x,y) for x,y in (learn.dls.train_ds[i] for i in range(200))]
    learn.dls.loaders[0] = TfmdDL(rows, bs=20)
    assert not path_taken(learn) and learn.fast.why=='the loader is a TfmdDL'

def test_before_any_fit_it_says_so():
    assert not on_films(df=synth_ratings()).fast and 'nothing was fitted' in repr(on_films(df=synth_ratings()).fast)

def test_parameters_of_another_type():
    learn = on_films(df=synth_ratings())
    learn.model.double()
    learn.loss_func = lambda p,y: MSELossFlat()(p, y.double())
    assert not path_taken(learn) and 'float32' in learn.fast.why

def test_sparse_gradients():
    learn = on_films(df=synth_ratings())
    learn.model.u_weight.sparse = True
    with pytest.raises(Exception): path_taken(learn)  # fastai's Adam cannot step sparse gradients
    assert not learn.fast and 'sparse' in learn.fast.why


def test_the_learning_rate_finder_leaves_the_weights_and_the_order():
    one,two = on_films(),on_films()
    with one.no_bar(), one.no_logging(), two.no_bar(), two.no_logging():
        before = {k: v.clone() for k,v in one.model.state_dict().items()}
        assert 1e-7<one.lr_find(show_plot=False).valley<1
        close(dict(one.model.state_dict()), before, 'weights')
        for l in (one, two): l.fit_one_cycle(1, 5e-3)
        assert one.fast
        close(dict(one.model.state_dict()), dict(two.model.state_dict()), 'weights')
        after = {k: v.clone() for k,v in one.model.state_dict().items()}
        one.lr_find(show_plot=False)
        close(dict(one.model.state_dict()), after, 'weights')
        one.fit_one_cycle(1, 1e-3)
        assert one.fast

def test_the_callers_random_state_is_untouched():
    learn = on_films('nn')
    torch.manual_seed(5); np.random.seed(5)
    a,b = torch.get_rng_state(),np.random.get_state()[1].copy()
    path_taken(learn)
    assert torch.equal(torch.get_rng_state(), a) and (np.random.get_state()[1]==b).all()

def test_the_progress_bar_shows_the_batches(capsys):
    learn = on_films(df=synth_ratings())
    learn.fit(1, 1e-3)
    assert learn.fast and 'train_loss' in capsys.readouterr().out

def test_use_nn_makes_fastais_network(): assert type(on_films('nn').model) is EmbeddingNN

class Threads(Callback):
    "Notes how many threads each epoch of batches has"
    def before_fit(self): self.seen = set()
    def before_train(self): self.model.register_forward_pre_hook(lambda *_: self.seen.add(torch.get_num_threads()))

@pytest.mark.parametrize('fast', [None, False])
def test_small_batches_run_on_one_thread_and_the_setting_comes_back(fast, two_threads):
    learn,seen = on_films(),Threads()
    with learn.no_bar(), learn.no_logging(): learn.fit(1, cbs=seen, fast=fast)
    assert seen.seen=={1} and torch.get_num_threads()==2

def test_the_setting_comes_back_when_a_fit_breaks_off(two_threads):
    class Stop(Callback):
        def before_train(self): self.model.register_forward_pre_hook(self.fail)
        def fail(self, *_): raise RuntimeError('broken off')
    learn = on_films()
    with learn.no_bar(), learn.no_logging(), pytest.raises(RuntimeError, match='broken off'): learn.fit(1, cbs=Stop())
    assert torch.get_num_threads()==2

@pytest.mark.parametrize('kwargs,loss', [(dict(bs=8193), None), (dict(bs=4096, by_user=True), SoftmaxLoss())], ids=['large','all items'])
def test_batches_that_are_work_for_two_threads_keep_them(kwargs, loss, two_threads):
    build = CollabDataLoaders.from_df if loss is None else partial(CollabDataLoaders.implicit_from_df, n_neg=0)
    learn,seen = collab_learner(build(movie_night(), seed=7, **kwargs), 4, loss_func=loss),Threads()
    with learn.no_bar(), learn.no_logging(): learn.fit(1, cbs=seen)
    assert seen.seen=={2} and torch.get_num_threads()==2
