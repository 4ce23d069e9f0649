"Trackers that know which way is better, and that run nothing from a file"
import numpy as np
import pytest
import torch
from fastai.callback.core import Callback
from fastai.callback.tracker import EarlyStoppingCallback as TheirEarlyStopping
from fastai.learner import ValueMetric

from recfast.callbacks import EarlyStoppingCallback, ReduceLROnPlateau, SaveModelCallback
from recfast.data.loaders import CollabDataLoaders
from recfast.learner import collab_learner
from recfast.metrics import rmse
from recfast.testing import synth_ratings


class Script:
    "A metric whose value in epoch e is values[e]"
    def __init__(self, name, *values): self.values,self.at,self.metric = values,-1,ValueMetric(self.next, name)
    def next(self): self.at += 1; return self.values[self.at]

def learner(tmp_path, *metrics):
    dls = CollabDataLoaders.from_df(synth_ratings(), seed=1, bs=128, path=tmp_path)
    return collab_learner(dls, n_factors=3, metrics=metrics)

def run(learn, n_epoch, *cbs, lr=1e-2):
    with learn.no_bar(), learn.no_logging(): learn.fit(n_epoch, lr, cbs=list(cbs))
    return len(learn.recorder.values)

def script(tmp_path, name, *values, cls=EarlyStoppingCallback, **kwargs):
    "How many epochs the callback lets pass"
    cb = cls(monitor=name, **kwargs)
    return run(learner(tmp_path, Script(name, *values).metric), len(values), cb),cb


def test_a_rising_rmse_stops_training(tmp_path): assert script(tmp_path, 'rmse', 1.,1.1,1.2,1.3,1.4, patience=2)[0]==3

def test_a_falling_rmse_does_not(tmp_path): assert script(tmp_path, 'rmse', 1.,.9,.8,.7,.6, patience=1)[0]==5

def test_fastais_own_tracker_has_it_the_wrong_way_round(tmp_path):
    assert script(tmp_path, 'rmse', 1.,1.1,1.2,1.3,1.4, cls=TheirEarlyStopping)[0]==5

def test_a_falling_ndcg_stops_training(tmp_path): assert script(tmp_path, 'ndcg@10', .5,.4,.3,.2, patience=2)[0]==3

def test_a_rising_ndcg_does_not(tmp_path): assert script(tmp_path, 'ndcg@10', .1,.2,.3,.4)[0]==4

def test_a_metric_s_own_direction_decides(tmp_path):
    s = Script('surprise', 1.,.9,.8,.7)
    s.metric.comp = np.less
    assert run(learner(tmp_path, s.metric), 4, EarlyStoppingCallback(monitor='surprise'))==4

def test_a_direction_given_by_the_caller_wins(tmp_path): assert script(tmp_path, 'rmse', 1.,1.1,1.2, comp=np.greater)[0]==3

@pytest.mark.parametrize('min_delta', [.05, -.05])
@pytest.mark.parametrize('name,sign', [('rmse',-1), ('ndcg@10',1)])
def test_an_improvement_below_min_delta_is_none(tmp_path, name, sign, min_delta):
    small,large = [1+sign*.04*e for e in range(4)],[1+sign*.06*e for e in range(4)]
    assert script(tmp_path, name, *small, min_delta=min_delta, patience=1)[0]==2
    assert script(tmp_path, name, *large, min_delta=min_delta, patience=1)[0]==4

def test_the_direction_follows_the_learner_of_each_fit(tmp_path):
    up,down = Script('x', 1.,2.,3.),Script('x', 3.,2.,1.)
    down.metric.comp,cb = np.less,EarlyStoppingCallback(monitor='x')
    assert run(learner(tmp_path, down.metric), 3, cb)==3 and run(learner(tmp_path, up.metric), 3, cb)==3

def test_a_metric_that_is_not_there(tmp_path):
    with pytest.raises(ValueError, match="monitor='rmse' is not measured here; there are 'train_loss', 'valid_loss', 'x'"):
        run(learner(tmp_path, Script('x', 1.).metric), 1, EarlyStoppingCallback(monitor='rmse'))

def test_the_rmse_of_a_learner_is_monitored_by_its_name(tmp_path):
    assert run(learner(tmp_path, rmse), 6, EarlyStoppingCallback(monitor='rmse', patience=2), lr=0.)==3  # nothing is learnt

@pytest.mark.parametrize('name,values,times', [('rmse', (1.,1.1,1.2,1.1), 3), ('rmse', (1.,.9,.8,.7), 0), ('ndcg@10', (.4,.3,.2,.1), 3),
    ('ndcg@10', (.1,.2,.3,.4), 0)])
def test_a_plateau_divides_the_rate(tmp_path, name, values, times):
    learn = learner(tmp_path, Script(name, *values).metric)
    run(learn, 4, ReduceLROnPlateau(monitor=name, factor=2., patience=1), lr=8e-3)
    assert learn.opt.hypers[-1]['lr']==pytest.approx(8e-3/2**times)


class Weights(Callback):
    "The item table after each epoch"
    def before_fit(self): self.seen = []
    def after_epoch(self): self.seen.append(self.learn.model.i_weight.weight.detach().clone())

@pytest.mark.parametrize('name,values,best', [('rmse', (1.,.8,.9,1.), 1), ('ndcg@10', (.1,.2,.4,.3), 2), ('rmse', (1.,.9,.8,.7), 3)])
@pytest.mark.parametrize('with_opt', [False, True])
def test_the_best_epoch_is_kept(tmp_path, name, values, best, with_opt):
    learn,weights = learner(tmp_path, Script(name, *values).metric),Weights()
    run(learn, 4, weights, SaveModelCallback(monitor=name, with_opt=with_opt))
    assert learn.fast and len(weights.seen)==4
    assert [torch.equal(learn.model.i_weight.weight, w) for w in weights.seen]==[e==best for e in range(4)]

def test_every_epoch_and_the_end_can_be_saved(tmp_path):
    learn = learner(tmp_path, rmse)
    run(learn, 3, SaveModelCallback(monitor='rmse', every_epoch=True), SaveModelCallback(monitor='rmse', fname='last', at_end=True))
    assert sorted(o.name for o in (tmp_path/'models').iterdir())==['last.pth','model_0.pth','model_1.pth','model_2.pth']

def test_without_an_improvement_no_other_file_is_loaded(tmp_path):
    learn,weights = learner(tmp_path, Script('rmse', float('nan'), float('nan')).metric),Weights()
    learn.save('model')
    run(learn, 2, weights, SaveModelCallback(monitor='rmse'))
    assert torch.equal(learn.model.i_weight.weight, weights.seen[-1])

def test_a_learning_rate_search_saves_nothing(tmp_path):
    learn = learner(tmp_path, rmse)
    learn.add_cb(SaveModelCallback(monitor='rmse'))
    with learn.no_bar(), learn.no_logging(): learn.lr_find(show_plot=False, num_it=5)
    assert not (tmp_path/'models'/'model.pth').exists()


class Bomb:
    def __init__(self, path): self.path = path
    def __reduce__(self): return open,(str(self.path),'w')

class Swap(Callback):
    "Puts another file in the place of the saved model before it is loaded"
    order,path = 61.5,None
    def after_epoch(self): torch.save({'model': Bomb(self.path/'it_ran')}, self.path/'models'/'model.pth')

def test_nothing_in_the_file_is_executed(tmp_path):
    learn,swap = learner(tmp_path, rmse),Swap()
    swap.path = tmp_path
    with pytest.raises(Exception, match='[Ww]eights.only'): run(learn, 1, SaveModelCallback(monitor='rmse'), swap)
    assert not (tmp_path/'it_ran').exists()
    torch.load(tmp_path/'models'/'model.pth', weights_only=False)['model'].close()
    assert (tmp_path/'it_ran').exists()  # the bomb works

