"The compiled loop and the exact one: the same training to within a hundredth, and when which of them runs"
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from fastai.callback.core import Callback, CancelFitException
from fastai.callback.schedule import ParamScheduler, SchedLin
from fastai.callback.training import GradientClip
from fastai.losses import L1LossFlat, MSELossFlat
from fastai.metrics import mae
from fastai.optimizer import SGD
from fasttransform import Pipeline, Transform
from torch import nn

from helpers import fit, fit_one_cycle, taste_clicks
import recfast
from recfast import compiled, kernels, threads
from recfast import fast as fast_room
from recfast.bundle import load_bundle
from recfast.callbacks import SaveModelCallback
from recfast.compiled import HEADS, tables_of
from recfast.core import RatingsError, RecfastError
from recfast.data.datasets import movie_night
from recfast.data.loaders import CollabDataLoaders
from recfast.learner import collab_learner
from recfast.models.base import MODELS
from recfast.losses import BCE, BPRLoss
from recfast.metrics import RMSE
from recfast.models.dot import DotProduct, DotProductBias
from recfast.models.ncf import EmbeddingNN
from recfast.ordinal import OrdinalLoss
from recfast.kernels import machine
from recfast.steps import SLOPES, Slope, find_slope, register_slope, squared
from recfast.testing import synth_ratings

FILMS,CLICKS = movie_night()[:4000],taste_clicks(120, 40, 10)

def stars(df=FILMS, **kwargs): return CollabDataLoaders.from_df(df, **{'seed': 7, 'bs': 32, 'val_bs': 50, **kwargs})
def clicks(**kwargs): return CollabDataLoaders.implicit_from_df(CLICKS, **{'n_neg': 3, 'seed': 7, 'bs': 16, **kwargs})

def rater(dls=None, **kwargs):
    return collab_learner(dls or stars(), **{'n_factors': 8, 'y_range': (0,5.5), 'metrics': [RMSE(),mae], **kwargs})

def leveller(dls=None, **kwargs): return collab_learner(dls or stars(), **{'n_factors': 8, 'metrics': [RMSE(),mae], 'loss_func': OrdinalLoss(), **kwargs})

LOSSES = dict(
    mse=lambda arch: rater(arch=arch),
    raw=lambda arch: rater(arch=arch, y_range=None),
    bce=lambda arch: collab_learner(clicks(), 8, arch=arch, y_range=(0,1), loss_func=BCE((0,1))),
    logits=lambda arch: collab_learner(clicks(), 8, arch=arch, loss_func=BCE()),
    bpr=lambda arch: collab_learner(clicks(), 8, arch=arch, loss_func=BPRLoss()),
    ordinal=lambda arch: leveller(arch=arch),
)

def weights(learn): return {k: v.clone() for k,v in learn.model.state_dict().items()}
def apart(a, b): return {k: float((a[k]-b[k]).norm()/b[k].norm()) for k in b}
def equal(a, b): return all(torch.equal(a[k], b[k]) for k in b)

def both(make, job=lambda l,f: l.fit_one_cycle(1, 1e-2, wd=.1, fast=f)):
    "A learner trained by each loop"
    out = []
    for fast in ('compiled', 'exact'):
        learn = make()
        with learn.no_bar(), learn.no_logging(): job(learn, fast)
        assert learn.fast.loop==dict(compiled='compiled', exact='fast')[fast]
        out.append(learn)
    return out

def close(one, exact, most=.01):
    "Tables, averages, settings and everything that is recorded"
    assert max(apart(weights(one), weights(exact)).values())<most
    for p,q in zip(one.model.parameters(), exact.model.parameters(), strict=True):
        a,b = one.opt.state[p],exact.opt.state[q]
        assert a['step']==b['step'] and p.grad is not None and not p.grad.any()
        for k in ('grad_avg','sqr_avg'): assert float((a[k]-b[k]).norm())<3*most*float(b[k].norm())+1e-7
    a,b = one.recorder,exact.recorder
    for k in ('lrs','losses','iters'): np.testing.assert_allclose(getattr(a, k), getattr(b, k), rtol=most)
    for k,v in getattr(b, 'hps', {}).items(): np.testing.assert_allclose(a.hps[k], v, rtol=1e-6)
    np.testing.assert_allclose(np.array(a.values), np.array(b.values), rtol=most)
    for k in 'epoch n_epoch iter n_iter train_iter pct_train training'.split(): assert getattr(one, k)==pytest.approx(getattr(exact, k)), k
    assert float(one.smooth_loss)==pytest.approx(float(exact.smooth_loss), rel=most) and dict(one.opt.hypers[0])==pytest.approx(dict(exact.opt.hypers[0]))
    assert one.dls.train.epoch==exact.dls.train.epoch

@pytest.mark.parametrize('arch', HEADS, ids=lambda o: o.__name__)
@pytest.mark.parametrize('loss', LOSSES)
def test_an_epoch_ends_where_the_exact_loop_does(loss, arch): close(*both(lambda: LOSSES[loss](arch)))

def test_three_epochs_and_a_second_fit():
    def job(l, f):
        l.fit_one_cycle(3, 1e-2, wd=.1, fast=f)
        l.fit(1, 3e-3, wd=.01, fast=f)
    close(*both(rater, job))

@pytest.mark.parametrize('kwargs', [dict(lr=3e-3), dict(lr=3e-3, wd=0.),
    dict(lr=3e-3, cbs=ParamScheduler({'lr': SchedLin(1e-2, 1e-3), 'mom': SchedLin(.95, .8), 'wd': SchedLin(.1, 0.)})),
    dict(lr=3e-3, cbs=ParamScheduler({'lr': lambda at: 1e-2*(1-at)}))], ids=['flat','no decay','three schedules','a function'])
def test_settings_of_a_fit(kwargs): close(*both(rater, lambda l,f: l.fit(1, fast=f, **kwargs)))

@pytest.mark.parametrize('bs', [1, 7, 999, 3200], ids=str)
def test_batches_of_any_size(bs): close(*both(lambda: rater(stars(bs=bs))), most=.02 if bs==1 else .01)

def test_a_last_batch_of_one_row_and_one_that_is_dropped():
    for kwargs in (dict(bs=31), dict(bs=33, drop_last=True)): close(*both(lambda: rater(stars(**kwargs))))

def test_rows_with_weights():
    df = FILMS.assign(weight=np.random.RandomState(0).choice([0,.5,1,4.], len(FILMS)))
    close(*both(lambda: rater(stars(df, weight_name='weight'))))
    heavy = CLICKS.assign(weight=np.random.RandomState(0).choice([.5,1,4.], len(CLICKS)))
    make = lambda: collab_learner(CollabDataLoaders.implicit_from_df(heavy, n_neg=2, seed=7, bs=16, weight_name='weight'), 8, loss_func=BPRLoss())
    close(*both(make))

@pytest.mark.parametrize('plain', [('u_bias',), ('u_weight','i_bias'), ('u_bias','i_bias')], ids='+'.join)
def test_each_table_has_its_own_flag_of_weight_decay(plain):
    def job(l, f):
        l.create_opt()
        for o in plain: l.opt.state[getattr(l.model, o).weight]['do_wd'] = False
        l.fit(2, 1e-2, wd=.5, fast=f)
    close(*both(rater, job))

def test_tables_that_get_no_gradient_decay_alone():
    df = FILMS.assign(weight=0.)
    df.loc[df.index[:64], 'weight'] = 1.
    one,exact = both(lambda: rater(stars(df, weight_name='weight')), lambda l,f: l.fit(3, .1, wd=.1, fast=f))
    close(one, exact)

# what is asked of the validation rows

def test_loss_and_metrics_of_large_pieces_are_those_of_batches():
    learn = fit(rater(), 1, 1e-2, fast='compiled')
    with learn.no_bar(), learn._fast_is('exact'): batches = learn.validate()
    with learn.no_bar(), learn._fast_is('compiled'):
        learn.dl,learn.training = learn.dls.valid,False
        assert learn._why_not_large()==''
        pieces = learn.validate()
    assert list(pieces)==pytest.approx(list(batches), rel=1e-6) and learn.iter==len(learn.dls.valid)-1

@pytest.mark.parametrize('name', ['ease','ials','itemknn','popularity','rp3beta','slim','spectralfilter'])
@pytest.mark.parametrize('rows', [stars,lambda: clicks(n_neg=2)], ids=['stars','clicks'])
def test_solved_models_are_measured_in_large_pieces_as_in_batches(name, rows):
    learn = fit(collab_learner(rows(), arch=MODELS[name][0], metrics=mae), 1)
    with learn.no_bar(), learn._fast_is('exact'): batches = learn.validate()
    learn.dl,learn.training = learn.dls.valid,False
    assert learn._why_not_large()==''
    with learn.no_bar(): pieces = learn.validate()
    assert list(pieces)==pytest.approx(list(batches), rel=1e-6) and learn.iter==len(learn.dls.valid)-1

def test_a_metric_of_batches_sees_the_batches_of_the_loader():
    seen = []
    def widest(pred, y): seen.append(len(y)); return pred.max()
    fit(rater(metrics=[widest]), 1, 1e-2, fast='compiled')
    assert max(seen)==50

# when

def asked(learn, **kwargs): return fit(learn, 1, 1e-3, **kwargs).fast
def plain_hook(module, *_): pass

class Own(DotProductBias): pass

def frozen(l): l.model.u_bias.weight.requires_grad_(False)
def hooked(l): l.model.i_weight.register_forward_hook(plain_hook)
def more(l): l.model.extra = nn.Parameter(torch.zeros(1)); l.create_opt()
def padded(l): l.model.i_weight.padding_idx = 0
def changed(l): l.dls.train.after_batch = Pipeline([Transform(lambda b: b)])
def forward(l): l.model.forward = lambda x: DotProductBias.forward(l.model, x)

NOT = [
    (dict(arch=Own), None, {}, 'Own has no compiled form'),
    (dict(arch=DotProduct, config=dict(cosine=True), y_range=None), None, {}, 'cosines'),
    (dict(use_nn=True), None, {}, 'EmbeddingNN has no compiled form'),
    (dict(loss_func=L1LossFlat()), None, {}, 'L1Loss has no compiled derivative'),
    (dict(opt_func=SGD), None, {}, "not fastai's Adam"),
    (dict(moms=(.999,.999,.999)), None, {}, 'no closed form'),
    ({}, frozen, {}, 'frozen'),
    ({}, hooked, {}, 'hooks'),
    ({}, forward, {}, 'hooks'),
    ({}, more, {}, 'other parameters'),
    ({}, padded, {}, 'options'),
    ({}, changed, {}, 'changes its batches'),
    ({}, None, dict(cbs=GradientClip(.1)), 'clipped'),
    ({}, None, dict(cbs=ParamScheduler({'sqr_mom': SchedLin(.99, .9)})), 'schedule of sqr_mom'),
    ({}, None, dict(cbs=Callback(before_batch=lambda self: None)), 'works on every batch'),
    ({}, None, dict(fast='exact'), "fast='exact'"),
    ({}, None, dict(fast=False), 'fast=False'),
]

@pytest.mark.parametrize('kwargs,change,how,why', NOT, ids=[o[-1] for o in NOT])
def test_what_has_no_compiled_form_says_so(kwargs, change, how, why):
    moms = kwargs.pop('moms', None)
    learn = rater(stars(synth_ratings()), **kwargs)
    if moms: learn.moms,learn.model.hyper = moms,learn.model.hyper
    if change: change(learn)
    if moms: how = dict(cbs=ParamScheduler({'mom': SchedLin(.999, .999)}))
    if 'fast' not in how:
        before = weights(learn)
        with pytest.raises(RecfastError, match="fast='compiled' cannot be") as e: asked(learn, fast='compiled', **how)
        assert why in str(e.value) and equal(weights(learn), before)
    ran = asked(learn, **how)
    assert ran.loop!='compiled' and why in ran.why and why in repr(ran)

def test_metrics_of_training_need_predictions():
    learn = rater(stars(synth_ratings()))
    learn.recorder.train_metrics = True
    assert 'need predictions' in asked(learn).why

def test_bpr_needs_negatives():
    labels = CLICKS.assign(label=1).iloc[:600]
    labels.loc[labels.index[::3], 'label'] = 0
    learn = collab_learner(CollabDataLoaders.implicit_from_df(labels, label_name='label', seed=1), 4, loss_func=MSELossFlat())
    learn.loss_func = BPRLoss()
    with pytest.raises(RecfastError, match='needs negatives'): asked(learn, fast='compiled')

def test_another_word_for_fast_is_an_error():
    with pytest.raises(ValueError, match="fast='compile', expected one of"): fit(rater(), 1, fast='compile')

def test_the_learning_rate_finder_takes_another_loop():
    learn = rater(stars(synth_ratings()))
    before = weights(learn)
    with learn.no_bar(), learn.no_logging(): learn.lr_find(show_plot=False)
    assert learn.fast.loop=='plain' and equal(weights(learn), before)
    assert asked(learn, fast='compiled') and repr(learn.fast)=='compiled' and bool(learn.fast)

def test_a_network_tells_why(): assert asked(collab_learner(stars(synth_ratings()), arch=None, use_nn=True)).why=='EmbeddingNN has no compiled form' and EmbeddingNN

# losses of others

def test_a_loss_of_ones_own_with_its_derivative():
    class Cubes:
        reduction = 'mean'
        def __call__(self, pred, y): return (pred.reshape(-1)-y.reshape(-1)).abs().pow(3).mean()
    def cubes(out, y, slopes, args):
        d = out[0]-y[0]
        slopes[0] = args[0]*d*abs(d)
        return abs(d)*d*d
    make = lambda: rater(loss_func=Cubes())
    with pytest.raises(RecfastError, match='Cubes has no compiled derivative'): fit(make(), 1, fast='compiled')
    try:
        register_slope(Cubes)(lambda loss: Slope(cubes, args=(3.,)))
        close(*both(make))
    finally: del SLOPES[Cubes]

def test_a_sum_in_place_of_a_mean_has_no_slope():
    assert find_slope(nn.MSELoss(reduction='sum')) is None and find_slope(MSELossFlat(reduction='sum')) is None and find_slope(MSELossFlat()) is not None
    class Mine(BPRLoss): pass
    assert find_slope(Mine()) is None

# callbacks, breaking off

def test_the_best_epoch_is_kept(tmp_path):
    def job(l, f):
        l.path = tmp_path/f
        l.fit_one_cycle(4, 5e-2, wd=.01, fast=f, cbs=SaveModelCallback(monitor='rmse'))
    one,exact = both(lambda: rater(metrics=[RMSE()]), job)
    assert max(apart(weights(one), weights(exact)).values())<.02
    assert min(v[2] for v in one.recorder.values)==pytest.approx(one.validate()[1], rel=1e-4)

class Stop(Callback):
    def __init__(self, error, at=1): self.error,self.at = error,at
    def before_epoch(self):
        if self.epoch==self.at: raise self.error

def test_a_fit_that_is_cancelled():
    close(*both(rater, lambda l,f: l.fit_one_cycle(3, 1e-2, fast=f, cbs=Stop(CancelFitException()))))

def test_ctrl_c_between_slices_leaves_every_row_at_the_same_step(monkeypatch):
    noted,calls = compiled._SliceLog.add_slice,[]
    def broken(self, *args):
        calls.append(1)
        if len(calls)==1: raise KeyboardInterrupt # before anything of the slice is noted
        noted(self, *args)
    learn = rater()
    monkeypatch.setattr(compiled.CompiledLoop, '_slices', lambda self, sizes: iter([(0,40),(40,100)]))
    with monkeypatch.context() as m:
        m.setattr(compiled._SliceLog, 'add_slice', broken)
        with pytest.raises(KeyboardInterrupt): fit(learn, 2, 1e-2, wd=.1, fast='compiled')
    assert {o['step'] for o in learn.opt.state_dict()['state']}=={40}
    assert len(learn.recorder.losses)==40 and learn.train_iter==40
    exact = rater()
    class After(Callback):
        order = 100
        def after_batch(self):
            if self.train_iter==40: raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt): fit(exact, 2, 1e-2, wd=.1, cbs=After(), fast=False)
    assert max(apart(weights(learn), weights(exact)).values())<.01
    fit(learn, 1, 1e-3, fast='compiled')

def test_slices_change_nothing(monkeypatch):
    whole = fit_one_cycle(rater(), 2, fast='compiled')
    monkeypatch.setattr(compiled.CompiledLoop, '_slices', lambda self, sizes: ((a, min(a+3, len(sizes))) for a in range(0, len(sizes), 3)))
    parts = fit_one_cycle(rater(), 2, fast='compiled')
    assert equal(weights(whole), weights(parts)) and list(whole.recorder.losses)==list(parts.recorder.losses)

def test_the_bar_moves(capsys):
    learn = rater(stars(synth_ratings()))
    learn.fit(1, 1e-3, fast='compiled')
    assert 'train_loss' in capsys.readouterr().out

# bits

def test_the_same_seeds_give_the_same_bits_whatever_the_threads(monkeypatch):
    monkeypatch.setattr(kernels, 'CHUNK', 8)
    before,ends = torch.get_num_threads(),[]
    try:
        for n in (1,2,3):
            torch.set_num_threads(n)
            ends.append(weights(fit_one_cycle(rater(), 2, fast='compiled')))
    finally: torch.set_num_threads(before)
    assert equal(ends[0], ends[1]) and equal(ends[0], ends[2])

WIDE = dict(mse=lambda: rater(stars(bs=700)), bpr=lambda: LOSSES['bpr'](DotProduct),
    weights=lambda: rater(stars(FILMS.assign(weight=np.random.RandomState(0).choice([0,.5,1,4.], len(FILMS))), bs=300, weight_name='weight')))

@pytest.mark.parametrize('make', WIDE.values(), ids=WIDE)
def test_large_batches_end_as_small_ones_and_with_the_same_bits_whatever_the_threads(make, monkeypatch):
    narrow = fit_one_cycle(make(), 2, fast='compiled')
    monkeypatch.setattr(threads, 'PIECE', 7)
    monkeypatch.setattr(fast_room, 'SMALL_BATCH', 8)
    before,ends = torch.get_num_threads(),[]
    try:
        for n in (1,2,3):
            torch.set_num_threads(n)
            ends.append(fit_one_cycle(make(), 2, fast='compiled'))
    finally: torch.set_num_threads(before)
    assert all(equal(weights(ends[0]), weights(o)) and list(ends[0].recorder.losses)==list(o.recorder.losses) for o in ends[1:])
    assert max(apart(weights(ends[0]), weights(narrow)).values())<1e-4
    np.testing.assert_allclose(ends[0].recorder.losses, narrow.recorder.losses, rtol=1e-5)

def test_two_fits_in_two_threads():
    alone = [weights(fit_one_cycle(rater(seed=s), 2, fast='compiled')) for s in (1,2)]
    learns = [rater(seed=s) for s in (1,2)]
    for l in learns:
        l.remove_cb(l.progress)
        l.logger = lambda *o: None
        l.create_opt()
    jobs = [threading.Thread(target=lambda l=l: l.fit_one_cycle(2, 1e-2, fast='compiled')) for l in learns]
    for o in jobs: o.start()
    for o in jobs: o.join(60)
    assert all(max(apart(weights(l), w).values())<1e-6 for l,w in zip(learns, alone))

FORK = '''
import multiprocessing,sys
sys.path[:0] = sys.argv[1:]
import torch
torch.set_num_threads(1)
from test_compiled import rater,fit
def sums(): return [float(p.sum()) for p in fit(rater(), 1, 1e-2, fast='compiled').model.parameters()]
def child(q): q.put(sums())
if __name__=='__main__':
    first,ctx = sums(),multiprocessing.get_context('fork')
    q = ctx.Queue()
    p = ctx.Process(target=child, args=(q,))
    p.start()
    second = q.get(timeout=60)
    p.join(60)
    assert first==second and p.exitcode==0
'''

@pytest.mark.slow
@pytest.mark.skipif(sys.platform=='win32', reason='there is no fork')
def test_a_fork_after_a_fit():
    here = __file__.rsplit('/', 1)[0]
    done = subprocess.run([sys.executable,'-W','ignore','-c',FORK,here,here.rsplit('/', 1)[0]], capture_output=True, text=True, timeout=180)
    assert done.returncode==0, done.stderr

# numba

@pytest.mark.slow
def test_importing_and_serving_leave_numba_alone(tmp_path):
    fit(rater(stars(synth_ratings())), 1, fast='exact').save_bundle(tmp_path/'b')
    code = ('import sys\nfrom recfast.all import *\nrec = load_bundle(sys.argv[1])\nrec.recommend([1], k=3)\n'
            'import recfast.serve,recfast.cli\nassert "numba" not in sys.modules')
    done = subprocess.run([sys.executable,'-W','ignore','-c',code,str(tmp_path/'b')], capture_output=True, text=True)
    assert done.returncode==0, done.stderr

def test_without_numba_there_is_one_warning_and_the_exact_loop(monkeypatch):
    monkeypatch.setitem(sys.modules, 'numba', None)
    monkeypatch.setattr(compiled, '_said', type(compiled._said)())
    learn = rater(stars(synth_ratings()))
    with pytest.warns(UserWarning, match='pip install numba'): ran = asked(learn, fast=True)
    assert ran.loop=='fast' and ran.why=='numba is not installed'
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert asked(learn, fast=True).loop=='fast'
    with pytest.raises(RecfastError, match='numba is not installed'): asked(learn, fast='compiled')

NO_FOLDER = '''
import sys,warnings
sys.path[:0] = sys.argv[1:]
from numba.core import caching
caching.CacheImpl._locator_classes = []
from test_compiled import rater,fit
with warnings.catch_warnings(record=True) as seen:
    warnings.simplefilter('always')
    for _ in range(2): learn = fit(rater(), 1, 1e-2, fast='compiled')
said = [o for o in seen if 'NUMBA_CACHE_DIR' in str(o.message)]
assert len(said)==1 and repr(learn.fast)=='compiled', [str(o.message) for o in seen]
'''

@pytest.mark.slow
def test_without_a_folder_for_compiled_code_it_says_so_once():
    here = __file__.rsplit('/', 1)[0]
    done = subprocess.run([sys.executable,'-W','ignore','-c',NO_FOLDER,here,here.rsplit('/', 1)[0]], capture_output=True, text=True, timeout=180)
    assert done.returncode==0, done.stderr

def test_machine_code_is_not_kept_beside_the_package():
    "pip leaves what it did not install, and a folder without __init__ hides an editable install"
    package = Path(recfast.__file__).parent
    for f in machine(squared): assert package not in Path(f._cache.cache_path).parents

# what is kept

def test_the_bundle_says_which_loop_trained_it(tmp_path):
    fit(rater(stars(synth_ratings())), 1, fast='compiled').save_bundle(tmp_path/'b')
    assert load_bundle(tmp_path/'b').info["training"]["fast"]=='compiled'

def test_a_fit_that_is_taken_up_again_keeps_its_loop(tmp_path):
    def make():
        learn = rater(stars(path=tmp_path), path=tmp_path)
        return learn
    whole,first,second = make(),make(),make()
    fit_one_cycle(whole, 3, fast='compiled')
    with pytest.raises(ZeroDivisionError): fit_one_cycle(first, 3, fast='compiled', cbs=Stop(ZeroDivisionError('here'), 2))
    first.save('here')
    second.load('here')
    assert second.fast.why=='nothing was fitted yet'
    fit_one_cycle(second, 3, start_epoch=2)
    assert second.fast.loop=='compiled' and equal(weights(whole), weights(second))
    third = make().load('here')
    with pytest.warns(UserWarning, match='ran compiled'): fit_one_cycle(third, 3, start_epoch=2, fast='exact')
    fourth = make()
    with pytest.raises(ZeroDivisionError): fit_one_cycle(fourth, 3, fast='exact', cbs=Stop(ZeroDivisionError('here'), 2))
    fourth.save('there')
    fifth = make().load('there')
    fit_one_cycle(fifth, 3, start_epoch=2)
    assert fifth.fast.loop=='fast' and 'before' in fifth.fast.why

def test_the_tables_of_each_head(): assert [len(tables_of(o(n_users=3, n_items=4, n_factors=2))) for o in HEADS]==[2,4,4,4]

# levels

def test_thresholds_of_half_stars_and_rows_with_weights_move_as_in_the_exact_loop():
    df = FILMS.assign(rating=(FILMS.rating*2-(np.arange(len(FILMS))%2)).clip(1, 10)/2, w=np.arange(len(FILMS))%4/2)
    close(*both(lambda: leveller(stars(df, weight_name='w'), metrics=[RMSE()]), lambda l,f: l.fit_one_cycle(2, 1e-2, fast=f)))

def test_thresholds_that_cross_keep_their_averages():
    def job(l, f):
        l.model.finish.bias.data[:] = torch.linspace(.08, -.08, 9)  # out of order from the first batch on
        l.fit(1, 3e-2, fast=f)
    one,exact = both(leveller, job)
    a,b = (o.model.finish.bias.detach().sort() for o in (one,exact))
    assert torch.allclose(a.values, b.values, rtol=.01, atol=1e-3) and (b.values.diff()>.1).all()
    for k in ('grad_avg','sqr_avg'):
        own,want = (o.opt.state[o.model.finish.bias][k][at.indices] for o,at in ((one,a),(exact,b)))
        assert torch.allclose(own, want, rtol=.05, atol=1e-4)

def test_a_rating_that_is_no_level_is_refused_by_the_compiled_loop_too():
    for fast in ('compiled','exact'):
        learn = leveller(loss_func=OrdinalLoss([1,2,4,5]))
        with pytest.raises(RatingsError, match='are none of the levels 1.0, 2.0, 4.0, 5.0'), learn.quiet(): learn.fit(1, fast=fast)

def test_thresholds_that_decay_have_no_compiled_form():
    learn = leveller(wd_bn_bias=True)
    with learn.quiet(): learn.fit(1)
    assert learn.fast.why=='thresholds decay'

def test_a_large_batch_of_levels_trains_too(): close(*both(lambda: leveller(stars(bs=3200)), lambda l,f: l.fit(2, 1e-2, fast=f)))
