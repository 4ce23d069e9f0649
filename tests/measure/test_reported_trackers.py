"Trackers count measurements, and no direction is guessed"
import inspect
import warnings

import fastai.metrics as theirs
import numpy as np
import pytest
from fastai.callback.core import Callback, CancelEpochException, CancelValidException
from fastai.callback.schedule import ParamScheduler  # noqa: F401, and with it fit_one_cycle
from fastai.callback.training import ShortEpochCallback
from fastai.learner import Metric, Recorder, ValueMetric, mk_metric

from helpers import fit, loaders
from recfast.callbacks import EarlyStoppingCallback, RankingMetrics, ReduceLROnPlateau, SaveModelCallback, last_values
from recfast.learner import collab_learner
from recfast.metrics import metric_comp, rmse
from recfast.testing import synth_ratings


def rated(tmp_path, *cbs, metrics=rmse, **kwargs):
    return collab_learner(loaders(bs=128, path=tmp_path), 3, y_range=(0,5.5), metrics=metrics, cbs=list(cbs), **kwargs)

class Values(Metric):
    "A metric that has another value each epoch"
    def __init__(self, name, *values): self._name,self.values,self.at = name,values,-1
    def reset(self): self.at += 1
    def accumulate(self, learn): pass
    @property
    def value(self): return self.values[self.at]
    @property
    def name(self): return self._name

class EveryOther(Callback):
    "Validates in epochs 1, 3, 5 ... only"
    order = 40
    def before_validate(self):
        if self.epoch%2==0: raise CancelValidException

def epochs(learn): return len(learn.recorder.values)
def rate(learn): return learn.opt.hypers[0]['lr']


# an epoch that measures nothing

@pytest.mark.parametrize('every', [2,5])
def test_patience_counts_measurements(tmp_path, every):
    learn = rated(tmp_path, RankingMetrics('ndcg@10', every=every), EarlyStoppingCallback(monitor='ndcg@10', patience=2))
    fit(learn, 4*every, 0.) # nothing is learnt: the first measurement is the best
    assert epochs(learn)==3*every

def test_the_rate_stays_between_measurements(tmp_path):
    learn = rated(tmp_path, RankingMetrics('ndcg@10', every=5), ReduceLROnPlateau(monitor='ndcg@10', patience=1))
    fit(learn, 9, 1e-2)
    assert rate(learn)==1e-2
    fit(learn, 10, 1e-12) # measured in epochs 4 and 9, the second time without progress
    assert rate(learn)==pytest.approx(1e-13)

def test_the_message_names_an_epoch_that_measured(tmp_path, capsys):
    learn = rated(tmp_path, RankingMetrics('ndcg@10', every=3), EarlyStoppingCallback(monitor='ndcg@10', patience=2))
    fit(learn, 12, 0.)
    assert 'No improvement since epoch 2: early stopping' in capsys.readouterr().out

@pytest.mark.parametrize('monitor', ['valid_loss','rmse'])
def test_an_epoch_whose_validation_is_left_out(tmp_path, monitor):
    learn = rated(tmp_path, EveryOther(), EarlyStoppingCallback(monitor=monitor, patience=2), SaveModelCallback(monitor=monitor))
    fit(learn, 8, 0.)
    assert epochs(learn)==6

def test_an_epoch_that_is_cut_short_is_read_by_name(tmp_path):
    learn = rated(tmp_path, ShortEpochCallback(.5, short_valid=False), SaveModelCallback(monitor='rmse'), EarlyStoppingCallback(monitor='valid_loss'))
    fit(learn, 3, 1e-2)
    rows = learn.recorder.values
    assert epochs(learn)==3 and all(len(o)==2 for o in rows) # no training loss
    assert last_values(learn.recorder)=={'valid_loss': rows[-1][0], 'rmse': rows[-1][1]}
    assert learn.save_model.best==min(o[1] for o in rows) and learn.early_stopping.best==min(o[0] for o in rows)
    assert learn.training_facts()['last_epoch']['rmse']==pytest.approx(rows[-1][1])

def test_an_epoch_that_is_left_out(tmp_path):
    class Skip(Callback):
        def before_epoch(self):
            if self.epoch==1: raise CancelEpochException
    learn = rated(tmp_path, Skip(), EarlyStoppingCallback(monitor='rmse', patience=2))
    fit(learn, 6, 0.)
    assert epochs(learn)==4 # the best, one left out, two of patience

@pytest.mark.parametrize('valid', [True,False])
def test_metrics_of_training(tmp_path, valid):
    learn = rated(tmp_path)
    learn.remove_cb(Recorder)
    learn.add_cb(Recorder(train_metrics=True, valid_metrics=valid))
    name = 'train_rmse' if valid else 'rmse'
    fit(learn, 4, 1e-2, cbs=SaveModelCallback(monitor=name))
    assert last_values(learn.recorder)[name]==learn.recorder.values[-1][1] # after the training loss

def test_every_epoch_is_saved_measured_or_not(tmp_path):
    fit(rated(tmp_path, RankingMetrics('ndcg@10', every=3), SaveModelCallback(monitor='ndcg@10', every_epoch=True)), 3, 1e-2)
    assert sorted(o.name for o in (tmp_path/'models').iterdir())==['model_0.pth','model_1.pth','model_2.pth']

def test_a_measured_nan_is_spoken_of_once(tmp_path):
    learn = rated(tmp_path, metrics=Values('ndcg', .1, *[np.nan]*4))
    with pytest.warns(UserWarning, match='ndcg is NaN in epoch 1, which counts as no improvement') as said:
        fit(learn, 5, 1e-2, cbs=EarlyStoppingCallback(monitor='ndcg', patience=3))
    assert epochs(learn)==4 and len(said)==1

def test_a_nan_between_measurements_is_not(tmp_path):
    learn = rated(tmp_path, RankingMetrics('ndcg@10', every=2), SaveModelCallback(monitor='ndcg@10'))
    with warnings.catch_warnings():
        warnings.simplefilter('error', UserWarning)
        fit(learn, 4, 1e-2)


# the way a metric goes

LOWER = ('exp_rmspe','rmse','mse','mae','msle','error_rate','perplexity','Perplexity','BrierScore','BrierScoreMulti',
         'HammingLoss','HammingLossMulti','LossMetric')
WITH = dict(FBeta=dict(beta=1), FBetaMulti=dict(beta=1), LossMetric=dict(attr='kld'), Dice={}, CorpusBLEUMetric={})
NO_METRICS = {'AccumMetric','skm_to_fastai','optim_metric','LossMetrics'} # they make others

@pytest.mark.parametrize('name', sorted(set(theirs.__all__)-NO_METRICS))
def test_the_direction_of_every_metric_of_fastai(name):
    make = getattr(theirs, name)
    wants_data = not inspect.isclass(make) and {'targ','targs','inp'} & set(inspect.signature(make).parameters) if callable(make) else True
    metric = mk_metric(make if wants_data or isinstance(make, Metric) else make(**WITH.get(name, {})))
    assert metric_comp(metric.name, [metric]) is (np.less if name in LOWER else np.greater), metric.name

@pytest.mark.parametrize('name', '''mape smape rmsle logloss log_loss nll bce cross_entropy binary_cross_entropy MAPE LogLoss
    mean_absolute_error median_absolute_error max_error zero_one_loss mean_poisson_deviance neg_log_likelihood
    my_rmse valid_mape train_loss hinge_loss'''.split())
def test_lower_is_better(name): assert metric_comp(name) is np.less

@pytest.mark.parametrize('name', '''r2_score R2Score accuracy_score neg_mean_squared_error explained_variance_score hit_rate my_ndcg
    log_likelihood f1_score auroc train_accuracy ndcg@20 matthews_corrcoef'''.split())
def test_higher_is_better(name): assert metric_comp(name) is np.greater

@pytest.mark.parametrize('cls', [SaveModelCallback,EarlyStoppingCallback,ReduceLROnPlateau])
@pytest.mark.parametrize('name', ['surprise','quality_of_life','false_negative_rate','rate','rmse_improvement','one_minus_rmse','inverse_mae','error_reduction',
    'rmse_over_baseline','relative_loss','lossless','recall_loss','ndcg_drop','accuracy_error','minus_rmse','RMSEImprovement','valid_rmse_skill'])
def test_an_unknown_direction_is_asked_for(tmp_path, cls, name):
    learn = rated(tmp_path, metrics=ValueMetric(lambda: 1., name))
    with pytest.raises(ValueError, match=f"monitor='{name}': which way is better is not known. Pass comp=np.less"):
        fit(learn, 1, cbs=cls(monitor=name))
    fit(learn, 1, cbs=cls(monitor=name, comp=np.less))

def mape(p, t): return ((p-t).abs()/t).mean()

@pytest.mark.parametrize('metric,name', [(theirs.exp_rmspe,'_exp_rmspe'), (mape,'mape')])
def test_the_best_epoch_of_an_error_is_kept(tmp_path, metric, name):
    dls = loaders(synth_ratings(), path=tmp_path)
    learn = collab_learner(dls, 5, y_range=(0,5.5), metrics=metric, cbs=SaveModelCallback(monitor=name))
    with learn.quiet():
        learn.fit_one_cycle(5, 5e-2)
        was = [o[-1] for o in learn.recorder.values]
        assert was[0]>min(was) and learn.validate()[1]==pytest.approx(min(was), rel=1e-6)

def test_a_metric_that_is_not_measured_is_told_the_nearest(tmp_path):
    learn = rated(tmp_path, RankingMetrics(['ndcg@5','recall@5']))
    learn.remove_cb(Recorder)
    learn.add_cb(Recorder(train_metrics=True))
    with pytest.raises(ValueError, match="'valid_ndcg@5', 'valid_recall@5'. Did you mean 'valid_ndcg@5'"):
        fit(learn, 1, cbs=SaveModelCallback(monitor='ndcg@5'))
