"Every callback of fastai's callback package on every kind of learner: it works, or a sentence says why not before anything is trained"
import importlib
import inspect
import json
import pkgutil

import fastai.callback
import numpy as np
import pytest
import torch
from fastai.callback import mixup, progress, rnn, schedule, tracker, training
from fastai.callback.channelslast import ChannelsLast
from fastai.callback.core import Callback, FetchPredsCallback, GatherPredsCallback, TrainEvalCallback
from fastai.callback.data import CollectDataCallback
from fastai.callback.fp16 import MixedPrecision, ModelToHalf, NonNativeMixedPrecision
from fastai.callback.hook import ActivationStats, HookCallback
from fastai.callback.preds import MCDropoutCallback

from helpers import FRAME, fit
from recfast.core import RecfastError
from recfast.data.loaders import CollabDataLoaders
from recfast.learner import collab_learner
from recfast.losses import BPRLoss
from recfast.metrics import rmse
from recfast.models.autorec import AutoRec
from recfast.models.linear import EASE
from recfast.models.sequence import SASRec
from recfast.trackers import NOT_HERE

SMALL = FRAME[:500].assign(timestamp=range(500))

def build(name, path, **kwargs): return getattr(CollabDataLoaders, name)(SMALL, **{'seed': 1, 'bs': 64, 'path': path, **kwargs})

KINDS = dict(
    stars=lambda path: collab_learner(build('from_df', path), 5, y_range=(0,5.5), metrics=rmse),
    net=lambda path: collab_learner(build('from_df', path), 5, use_nn=True, layers=[8]),
    clicks=lambda path: collab_learner(build('implicit_from_df', path), 5, loss_func=BPRLoss()),
    rows=lambda path: collab_learner(build('rows_from_df', path, bs=8), 5, arch=AutoRec),
    sequences=lambda path: collab_learner(build('sequences_from_df', path, seq_len=5, bs=8), 8, arch=SASRec, config=dict(seq_len=5)),
    solved=lambda path: collab_learner(build('implicit_from_df', path), arch=EASE),
)
WORK = dict(
    TerminateOnNaNCallback=tracker.TerminateOnNaNCallback, EarlyStoppingCallback=tracker.EarlyStoppingCallback,
    SaveModelCallback=tracker.SaveModelCallback, ReduceLROnPlateau=tracker.ReduceLROnPlateau, TrackerCallback=tracker.TrackerCallback,
    ShortEpochCallback=lambda: training.ShortEpochCallback(.5), GradientAccumulation=lambda: training.GradientAccumulation(128),
    GradientClip=training.GradientClip, BnFreeze=training.BnFreeze, CSVLogger=progress.CSVLogger, RNNRegularizer=rnn.RNNRegularizer,
    MCDropoutCallback=MCDropoutCallback, CollectDataCallback=CollectDataCallback, ChannelsLast=ChannelsLast, ActivationStats=ActivationStats,
    MixedPrecision=MixedPrecision, FetchPredsCallback=FetchPredsCallback, ParamScheduler=lambda: schedule.ParamScheduler({'lr': schedule.SchedCos(1e-3, 1e-4)}),
)
REFUSED = dict(ModelResetter=rnn.ModelResetter, RNNCallback=rnn.RNNCallback, MixUp=mixup.MixUp, CutMix=mixup.CutMix,
    GatherPredsCallback=GatherPredsCallback, ModelToHalf=ModelToHalf)
ELSEWHERE = { # what has a test of its own, is a base or fastai's own part of every learner, or needs a package
    'ShowGraphCallback','NonNativeMixedPrecision','LRFinder','MixHandler','HookCallback','TrainEvalCallback','ProgressCallback','Callback',
    'TensorBoardBaseCallback','TensorBoardCallback','TensorBoardProjectorCallback','WandbCallback','CometCallback','AzureMLCallback'}

@pytest.mark.parametrize('kind', [pytest.param(o, marks=pytest.mark.slow) if o in ('net','rows') else o for o in KINDS])
@pytest.mark.parametrize('name', WORK)
def test_it_works(tmp_path, monkeypatch, name, kind):
    monkeypatch.chdir(tmp_path)
    learn = KINDS[kind](tmp_path)
    learn = fit(learn, 1, cbs=WORK[name]()) if kind=='solved' else fit(learn, 1, 1e-3, cbs=WORK[name]())
    assert len(learn.recommend(int(SMALL.user_id.iloc[0]), k=2))==2 and learn.n_trained==1

@pytest.mark.parametrize('kind', ['stars','sequences','solved'])
@pytest.mark.parametrize('name', REFUSED)
def test_a_sentence_says_why_not(tmp_path, name, kind):
    learn = KINDS[kind](tmp_path)
    before = [p.clone() for p in learn.model.parameters()]
    with pytest.raises(RecfastError, match=f'{name} {NOT_HERE[name][:12]}'): fit(learn, 1, cbs=REFUSED[name]())
    assert all(torch.equal(a, b) for a,b in zip(before, learn.model.parameters())) and learn.n_trained==0

@pytest.mark.parametrize('kind', KINDS)
def test_a_graph_needs_batches_and_the_bar(tmp_path, capsys, kind):
    learn = KINDS[kind](tmp_path)
    with pytest.raises(RecfastError, match='ShowGraphCallback (draws beside the progress bar|shows the loss of every batch)'): fit(learn, 1, cbs=progress.ShowGraphCallback())
    assert learn.n_trained==0
    if kind=='solved':
        with pytest.raises(RecfastError, match='a model that is solved has no batches'): learn.fit(1, cbs=progress.ShowGraphCallback())
        return
    learn.fit(2, 1e-3, cbs=progress.ShowGraphCallback())
    assert learn.n_trained==2

@pytest.mark.parametrize('kind', KINDS)
def test_weights_and_biases(tmp_path, kind, capsys, monkeypatch):
    wandb = pytest.importorskip('wandb')
    from fastai.callback.wandb import WandbCallback
    for k,v in dict(WANDB_MODE='offline', WANDB_SILENT='true', WANDB_DIR=str(tmp_path)).items(): monkeypatch.setenv(k, v)
    run = wandb.init(project='recfast', dir=str(tmp_path))
    logged,log = set(),wandb.log
    monkeypatch.setattr(wandb, 'log', lambda d, *args, **kwargs: (logged.update(d),log(d, *args, **kwargs)))
    learn = fit(KINDS[kind](tmp_path), 1, cbs=WandbCallback())
    assert run.config['model']==type(learn.model).__name__ and run.config['n_train']==str(learn.dls.report['n_train'])
    run.finish()
    assert 'valid_loss' in logged and (kind=='solved' or 'train_loss' in logged)
    assert 'not able to prepare' in capsys.readouterr().out # no samples

@pytest.mark.parametrize('kind', KINDS)
def test_what_a_tracker_of_experiments_is_told(tmp_path, kind):
    learn = KINDS[kind](tmp_path)
    told = learn.gather_args()
    assert told['model']==type(learn.model).__name__ and int(told['users'])==learn.dls.report['users']
    assert all(vars(o)=={} for o in told.values()) # which fastai asks each of them for
    json.dumps(told)

@pytest.mark.skipif(torch.cuda.is_available(), reason='says so where there is no GPU')
def test_half_precision_by_hand_needs_a_gpu(tmp_path):
    with pytest.raises(AssertionError, match='requires a GPU'): fit(KINDS['stars'](tmp_path), 1, cbs=NonNativeMixedPrecision())

@pytest.mark.parametrize('kind', [o for o in KINDS if o!='solved'])
def test_the_rate_finder(tmp_path, kind):
    learn = KINDS[kind](tmp_path)
    with learn.quiet(): assert np.isfinite(learn.lr_find(show_plot=False, num_it=5).valley)

def test_no_callback_of_fastai_is_forgotten():
    known = {*WORK, *REFUSED, *ELSEWHERE}
    for m in pkgutil.iter_modules(fastai.callback.__path__):
        try: module = importlib.import_module(f'fastai.callback.{m.name}')
        except ImportError: continue # a package of its own, not installed here
        own = [n for n,o in vars(module).items() if inspect.isclass(o) and issubclass(o, Callback) and o.__module__==module.__name__]
        assert set(own)<=known, (m.name, set(own)-known)
    assert {Callback,HookCallback,TrainEvalCallback} and set(NOT_HERE)<=known

@pytest.mark.parametrize('kind', KINDS)
def test_tensorboard(tmp_path, kind):
    pytest.importorskip('tensorboard')
    from fastai.callback.tensorboard import TensorBoardCallback
    with pytest.raises(RecfastError, match='TensorBoardCallback draws samples.*log_preds=False'):
        fit(KINDS[kind](tmp_path), 1, cbs=TensorBoardCallback(log_dir=tmp_path))
    cb = TensorBoardCallback(log_dir=tmp_path/'log', log_preds=False)
    if kind=='solved':
        with pytest.raises(RecfastError, match='a model that is solved has no batches'): fit(KINDS[kind](tmp_path), 1, cbs=cb)
        return
    fit(KINDS[kind](tmp_path), 1, 1e-3, cbs=cb)
    assert list((tmp_path/'log').iterdir())

@pytest.mark.parametrize('kind', ['stars','rows','sequences','clicks'])
def test_results_that_are_not_shown_come_in_four_parts(tmp_path, kind):
    learn = KINDS[kind](tmp_path)
    b = learn.dls.valid.one_batch()
    with torch.no_grad(): out = learn.loss_func.activation(learn.model.eval()(b[0])) if hasattr(learn.loss_func, 'activation') else learn.model.eval()(b[0])
    x,y,its,outs = learn.dls.valid.show_results(b, out, max_n=3, show=False)
    assert its is outs is None and len(x)==len(y)==min(3, len(b[0])) and set(y.columns)-set(x.columns) and set(x.columns)<=set(y.columns)
