"Trackers that know which way is better, and that run nothing from a file"
import pickle
import random
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from fastai.callback.core import Callback
from fastai.callback.progress import CSVLogger
from fastai.callback.schedule import ParamScheduler  # noqa: F401, and with it lr_find
from fastai.callback.tracker import EarlyStoppingCallback as TheirEarlyStopping
from fastai.learner import Learner, ValueMetric
from fastai.losses import BCEWithLogitsLossFlat
from fastai.test_utils import synth_learner

import recfast.data.implicit, recfast.data.rows, recfast.data.sequences  # noqa: F401, the builders
from helpers import fit
from recfast.callbacks import EarlyStoppingCallback, RankingMetrics, ReduceLROnPlateau, SaveModelCallback
from recfast.core import RatingsError
from recfast.data.loaders import CollabDataLoaders
from recfast.evaluate import evaluate_recommender
from recfast.learner import collab_learner
from recfast.metrics import LIST_METRICS, RANKING_METRICS, rmse
from recfast.models.autorec import AutoRec
from recfast.models.dot import DotProductBias
from recfast.models.sequence import SASRec
from recfast.testing import block_ratings, synth_ratings


class Script:
    "A metric whose value in epoch e is values[e]"
    def __init__(self, name, *values): self.values,self.at,self.metric = values,-1,ValueMetric(self.next, name)
    def next(self): self.at += 1; return self.values[self.at]

def rated(tmp_path, *metrics):
    dls = CollabDataLoaders.from_df(synth_ratings(), seed=1, bs=128, path=tmp_path)
    return collab_learner(dls, n_factors=3, metrics=metrics)

def run(learn, n_epoch, *cbs, lr=1e-2):
    return len(fit(learn, n_epoch, lr, cbs=list(cbs)).recorder.values)

def script(tmp_path, name, *values, cls=EarlyStoppingCallback, **kwargs):
    "How many epochs the callback lets pass"
    cb = cls(monitor=name, **kwargs)
    return run(rated(tmp_path, Script(name, *values).metric), len(values), cb),cb


def test_a_rising_rmse_stops_training(tmp_path): assert script(tmp_path, 'rmse', 1.,1.1,1.2,1.3,1.4, patience=2)[0]==3

def test_a_falling_rmse_does_not(tmp_path): assert script(tmp_path, 'rmse', 1.,.9,.8,.7,.6, patience=1)[0]==5

def test_fastais_own_tracker_has_it_the_wrong_way_round(tmp_path):
    assert script(tmp_path, 'rmse', 1.,1.1,1.2,1.3,1.4, cls=TheirEarlyStopping)[0]==5

def test_a_falling_ndcg_stops_training(tmp_path): assert script(tmp_path, 'ndcg@10', .5,.4,.3,.2, patience=2)[0]==3

def test_a_rising_ndcg_does_not(tmp_path): assert script(tmp_path, 'ndcg@10', .1,.2,.3,.4)[0]==4

def test_a_metric_s_own_direction_decides(tmp_path):
    s = Script('surprise', 1.,.9,.8,.7)
    s.metric.comp = np.less
    assert run(rated(tmp_path, s.metric), 4, EarlyStoppingCallback(monitor='surprise'))==4

def test_a_direction_given_by_the_caller_wins(tmp_path): assert script(tmp_path, 'rmse', 1.,1.1,1.2, comp=np.greater)[0]==3

@pytest.mark.parametrize('min_delta', [.05, -.05])
@pytest.mark.parametrize('name,sign', [('rmse',-1), ('ndcg@10',1)])
def test_an_improvement_below_min_delta_is_none(tmp_path, name, sign, min_delta):
    small,large = [1+sign*.04*e for e in range(4)],[1+sign*.06*e for e in range(4)]
    assert script(tmp_path, name, *small, min_delta=min_delta, patience=1)[0]==2
    assert script(tmp_path, name, *large, min_delta=min_delta, patience=1)[0]==4

def test_the_direction_follows_the_learner_of_each_fit(tmp_path):
    up,down = Script('x', 1.,2.,3.),Script('x', 3.,2.,1.)
    up.metric.comp,down.metric.comp,cb = np.greater,np.less,EarlyStoppingCallback(monitor='x')
    assert run(rated(tmp_path, down.metric), 3, cb)==3 and run(rated(tmp_path, up.metric), 3, cb)==3

def test_a_metric_that_is_not_there(tmp_path):
    with pytest.raises(ValueError, match="monitor='rmse' is not measured here; there are 'train_loss', 'valid_loss', 'x'"):
        run(rated(tmp_path, Script('x', 1.).metric), 1, EarlyStoppingCallback(monitor='rmse'))

def test_the_rmse_of_a_learner_is_monitored_by_its_name(tmp_path):
    assert run(rated(tmp_path, rmse), 6, EarlyStoppingCallback(monitor='rmse', patience=2), lr=0.)==3  # nothing is learnt

@pytest.mark.parametrize('name,values,times', [('rmse', (1.,1.1,1.2,1.1), 3), ('rmse', (1.,.9,.8,.7), 0), ('ndcg@10', (.4,.3,.2,.1), 3),
    ('ndcg@10', (.1,.2,.3,.4), 0)])
def test_a_plateau_divides_the_rate(tmp_path, name, values, times):
    learn = rated(tmp_path, Script(name, *values).metric)
    run(learn, 4, ReduceLROnPlateau(monitor=name, factor=2., patience=1), lr=8e-3)
    assert learn.opt.hypers[-1]['lr']==pytest.approx(8e-3/2**times)


class Weights(Callback):
    "The item table after each epoch"
    def before_fit(self): self.seen = []
    def after_epoch(self): self.seen.append(self.learn.model.i_weight.weight.detach().clone())

@pytest.mark.parametrize('name,values,best', [('rmse', (1.,.8,.9,1.), 1), ('ndcg@10', (.1,.2,.4,.3), 2), ('rmse', (1.,.9,.8,.7), 3)])
@pytest.mark.parametrize('with_opt', [False, True])
def test_the_best_epoch_is_kept(tmp_path, name, values, best, with_opt):
    learn,weights = rated(tmp_path, Script(name, *values).metric),Weights()
    run(learn, 4, weights, SaveModelCallback(monitor=name, with_opt=with_opt))
    assert learn.fast and len(weights.seen)==4
    assert [torch.equal(learn.model.i_weight.weight, w) for w in weights.seen]==[e==best for e in range(4)]

def test_every_epoch_and_the_end_can_be_saved(tmp_path):
    learn = rated(tmp_path, rmse)
    run(learn, 3, SaveModelCallback(monitor='rmse', every_epoch=True), SaveModelCallback(monitor='rmse', fname='last', at_end=True))
    assert sorted(o.name for o in (tmp_path/'models').iterdir())==['last.pth','model_0.pth','model_1.pth','model_2.pth']

def test_without_an_improvement_no_other_file_is_loaded(tmp_path):
    learn,weights = rated(tmp_path, Script('rmse', float('nan'), float('nan')).metric),Weights()
    learn.save('model')
    run(learn, 2, weights, SaveModelCallback(monitor='rmse'))
    assert torch.equal(learn.model.i_weight.weight, weights.seen[-1])

def test_a_learning_rate_search_saves_nothing(tmp_path):
    learn = rated(tmp_path, rmse)
    learn.add_cb(SaveModelCallback(monitor='rmse'))
    with learn.no_bar(), learn.no_logging(): learn.lr_find(show_plot=False, num_it=5)
    assert not (tmp_path/'models'/'model.pth').exists()


# RankingMetrics, and what issue C asks of it and the trackers

NAMES = ['ndcg@10','recall@5']

class Rates(Callback):
    "A learning rate per epoch"
    def __init__(self, *lrs): self.lrs = lrs
    def before_train(self): self.opt.set_hypers(lr=self.lrs[self.epoch])

def clicks(tmp_path, **kwargs): return CollabDataLoaders.implicit_from_df(block_ratings().query('rating==5'), bs=256, path=tmp_path, **{'seed': 42, **kwargs})

def ranker(tmp_path, *cbs, dls=None, **kwargs):
    dls = clicks(tmp_path) if dls is None else dls
    return collab_learner(dls, n_factors=5, loss_func=BCEWithLogitsLossFlat(), cbs=list(cbs), **kwargs)

def values_of(learn, n_epoch=1, *cbs, lr=3e-2, **kwargs):
    return [list(o) for o in fit(learn, n_epoch, lr, cbs=list(cbs), **kwargs).recorder.values]

def direct(learn, name='ndcg@10', **kwargs):
    "The metric without the callback"
    ints = learn.dls.interactions
    return evaluate_recommender(learn.model, ints('train'), ints('valid'), metrics=[name], rated=False, progress=False, **kwargs)[name]

def test_the_best_epoch_by_ndcg_is_kept(tmp_path):
    learn,weights = ranker(tmp_path, RankingMetrics(NAMES)),Weights()
    ndcgs = [o[2] for o in values_of(learn, 5, weights, SaveModelCallback(monitor='ndcg@10'), Rates(1e-2,3e-2,3e-2,50.,50.))]
    best = int(np.argmax(ndcgs))
    assert best in (1,2) and max(ndcgs)>ndcgs[0]+.2 and max(ndcgs)>max(ndcgs[3:])+.1  # it learns, then it is destroyed
    assert [torch.equal(learn.model.i_weight.weight, w) for w in weights.seen]==[e==best for e in range(5)]
    assert direct(learn)==ndcgs[best]

def test_training_stops_when_the_rmse_rises(tmp_path):
    learn = rated(tmp_path, rmse)
    run(learn, 8, Rates(1e-2,1e-2,*[2.]*6), EarlyStoppingCallback(monitor='rmse', patience=2))
    errors = [o[2] for o in learn.recorder.values]
    assert len(errors)==4 and errors[1]<errors[0] and min(errors[2:])>errors[1]

def test_an_ndcg_that_stands_still_stops_training_and_divides_the_rate(tmp_path):
    learn = ranker(tmp_path, RankingMetrics('ndcg@10'))
    cbs = EarlyStoppingCallback(monitor='ndcg@10', patience=3),ReduceLROnPlateau(monitor='ndcg@10', patience=1, factor=2.)
    assert len(values_of(learn, 9, *cbs, lr=1e-12))==4 and learn.opt.hypers[-1]['lr']==pytest.approx(1e-12/8)  # nothing is learnt

def test_each_epoch_records_what_evaluation_says(tmp_path):
    learn,seen = ranker(tmp_path, RankingMetrics(NAMES)),[]
    class Ask(Callback):
        def after_epoch(self): seen.append([direct(self.learn, o) for o in NAMES])
    values = values_of(learn, 3, Ask())
    assert [o[2:] for o in values]==seen and learn.recorder.metric_names[3:5]==NAMES and learn.fast

def test_every_name_there_is_can_be_recorded(tmp_path):
    names = [*(f'{o}@3' for o in (*RANKING_METRICS,*LIST_METRICS)),'auc']
    learn = ranker(tmp_path, RankingMetrics(names))
    assert values_of(learn, 1)[-1][2:]==[direct(learn, o) for o in names] and learn.recorder.metric_names[3:-1]==names

def test_they_stand_after_the_learner_s_own_metrics(tmp_path):
    learn = ranker(tmp_path, RankingMetrics(['ndcg@10']), metrics=[rmse])
    values = values_of(learn, 1)
    assert learn.recorder.metric_names[1:]==['train_loss','valid_loss','rmse','ndcg@10','time'] and len(values[0])==4 and list(learn.metrics)==[rmse]

def test_the_csv_log_has_them(tmp_path):
    learn = ranker(tmp_path, RankingMetrics(['ndcg@10']))
    values = values_of(learn, 2, CSVLogger(fname='log.csv'))
    log = pd.read_csv(tmp_path/'log.csv')
    assert log['ndcg@10'].tolist()==pytest.approx([o[2] for o in values])

def test_training_is_as_it_would_be_without(tmp_path):
    fits = []
    for cbs in ([],[RankingMetrics(NAMES, n_users=7)]):
        learn = ranker(tmp_path, *cbs)
        torch.manual_seed(3), np.random.seed(3), random.seed(3)
        values = values_of(learn, 2)
        fits.append((learn, [o[:2] for o in values], torch.rand(2).tolist(), np.random.rand(), random.random()))
    assert fits[0][1:]==fits[1][1:] and torch.equal(fits[0][0].model.i_weight.weight, fits[1][0].model.i_weight.weight)

def test_it_works_for_a_plain_learner_and_the_plain_loop(tmp_path):
    dls = clicks(tmp_path)
    learn = Learner(dls, DotProductBias(dls.n_users, dls.n_items, 5), loss_func=BCEWithLogitsLossFlat(), cbs=RankingMetrics(NAMES))
    values = values_of(learn, 2)
    assert values[-1][2]==direct(learn)
    plain = ranker(tmp_path, RankingMetrics(NAMES))
    assert values_of(plain, 1, fast=False)[-1][2]==direct(plain)

def rating_pairs(tmp_path): return CollabDataLoaders.from_df(synth_ratings(), seed=1, path=tmp_path),{}
def whole_rows(tmp_path): return CollabDataLoaders.rows_from_df(synth_ratings(), by='item', seed=1, bs=16, path=tmp_path),{'arch': AutoRec}
def sequences(tmp_path): return CollabDataLoaders.sequences_from_df(synth_ratings(), seed=1, bs=16, path=tmp_path),{'arch': SASRec}

@pytest.mark.parametrize('build', [rating_pairs, whole_rows, sequences])
def test_it_reads_interactions_whatever_the_batches_hold(tmp_path, build):
    dls,kwargs = build(tmp_path)
    learn = collab_learner(dls, n_factors=8, cbs=RankingMetrics(NAMES), **kwargs)
    assert values_of(learn, 1, lr=1e-3)[-1][-2:]==[direct(learn, o) for o in NAMES]

def counted(monkeypatch):
    "RankingMetrics in whose list every measurement leaves its mark"
    calls,measure = [],RankingMetrics.measure
    monkeypatch.setattr(RankingMetrics, 'measure', lambda self: calls.append(1) or measure(self))
    return RankingMetrics(NAMES),calls

def test_nothing_is_measured_outside_its_own_validation(tmp_path, monkeypatch):
    cb,calls = counted(monkeypatch)
    learn = ranker(tmp_path, cb)
    with learn.no_bar(), learn.no_logging():
        learn.lr_find(show_plot=False, num_it=6)
        for ds in (0,1): learn.get_preds(ds)
        learn.get_preds(dl=learn.dls.valid)
        learn.show_results()
        learn.validate(dl=learn.dls.valid.new()), learn.validate(0)
        learn.validate(dl=learn.dls.train)
    assert not calls and not learn.metrics

def test_validate_measures_its_own_rows_and_leaves_no_old_number_for_others(tmp_path, monkeypatch):
    cb,calls = counted(monkeypatch)
    learn = ranker(tmp_path, cb, metrics=rmse)
    values_of(learn, 1)
    with learn.no_bar():
        own = learn.validate()
        assert list(own[2:])==[direct(learn, o) for o in NAMES] and len(calls)==2
        assert len(learn.validate(dl=learn.dls.train))==2 and learn.recorder.metric_names==['epoch','train_loss','valid_loss','rmse','time']
        assert list(learn.validate())==list(own)

def test_predictions_are_those_of_a_learner_without_it(tmp_path):
    a,b = ranker(tmp_path),ranker(tmp_path, RankingMetrics(NAMES))
    with a.no_bar(), b.no_bar(): assert torch.equal(a.get_preds()[0], b.get_preds()[0])

def test_predictions_taken_inside_an_epoch_do_not_disturb_it(tmp_path):
    class Ask(Callback):
        order = 70
        def after_epoch(self): self.learn.get_preds(dl=self.learn.dls.train, inner=True)
    learn = ranker(tmp_path, RankingMetrics(NAMES))
    assert [len(o) for o in values_of(learn, 2, Ask())]==[4,4] and learn.recorder.metric_names[3:5]==NAMES

def test_a_tracker_that_stays_on_the_learner(tmp_path):
    learn = ranker(tmp_path, RankingMetrics(NAMES), SaveModelCallback(monitor='ndcg@10'))
    values_of(learn, 3, Rates(3e-2,9.,9.))
    best = direct(learn)
    with learn.no_bar(), learn.no_logging():
        with torch.no_grad(): learn.model.i_weight.weight.zero_()
        learn.validate(), learn.get_preds(), learn.validate(dl=learn.dls.train)
        assert not learn.model.i_weight.weight.any()  # none of them puts the saved weights back
        learn.lr_find(show_plot=False, num_it=6)
    learn.load('model')
    assert direct(learn)==best

@pytest.mark.parametrize('every,n_epoch,measured', [(2,5,[1,3,4]), (3,3,[2]), (9,2,[1])])
def test_it_may_measure_every_few_epochs_and_at_the_end(tmp_path, every, n_epoch, measured):
    values = values_of(ranker(tmp_path, RankingMetrics(NAMES, every=every)), n_epoch)
    assert [e for e,o in enumerate(values) if not np.isnan(o[2])]==measured

def test_it_may_measure_a_fixed_sample_of_users(tmp_path):
    cb = RankingMetrics('recall@5', n_users=9)
    learn = ranker(tmp_path, cb)
    values_of(learn, 1)
    first = cb.evaluation
    values_of(learn, 1)
    assert len(first.per_user)==9 and list(first.per_user.user_id)==list(cb.evaluation.per_user.user_id) and 'a sample of 9 of' in first.protocol

def test_a_sample_larger_than_there_are_users_is_all_of_them(tmp_path):
    cb = RankingMetrics('recall@5', n_users=999)
    assert values_of(learn := ranker(tmp_path, cb), 1)[-1][2]==direct(learn, 'recall@5') and 'sample' not in cb.evaluation.protocol

def test_it_hides_nothing_of_the_learner(tmp_path):
    with warnings.catch_warnings():
        warnings.filterwarnings('error', 'You are shadowing an attribute')
        run(collab_learner(clicks(tmp_path), n_factors=3, cbs=RankingMetrics()), 1)

def test_metrics_of_training_have_no_ranking(tmp_path):
    learn = ranker(tmp_path, RankingMetrics('ndcg@10'))
    learn.recorder.train_metrics = True
    values = values_of(learn, 2)
    got = dict(zip(learn.recorder.metric_names[1:], values[-1]))
    assert np.isnan(got['train_ndcg@10']) and got['valid_ndcg@10']==direct(learn)

@pytest.mark.parametrize('cbs', [[], [SaveModelCallback(monitor='ndcg@10')]])
def test_without_validation_rows_it_says_so(tmp_path, cbs):
    learn = ranker(tmp_path, RankingMetrics('ndcg@10'), dls=clicks(tmp_path, valid_pct=0))
    with pytest.raises(RatingsError, match='need.? validation rows and there are none.*valid_pct above 0'): values_of(learn, 1, *cbs)
    assert not [o for o in learn.metrics if o.name=='ndcg@10'] or cbs

def test_loaders_that_keep_no_interactions(tmp_path):
    learn = synth_learner(cbs=RankingMetrics('ndcg@10'), path=tmp_path)
    with pytest.raises(RatingsError, match='dls.interactions.*CollabDataLoaders'): values_of(learn, 1)

@pytest.mark.parametrize('names,match', [('ndgc@10',"did you mean 'ndcg@10'"), (['ndcg@10','rmse'],'pass them to the learner as metrics='), ('ndcg','there are ndcg@k')])
def test_a_name_it_does_not_know(names, match):
    with pytest.raises(ValueError, match=match): RankingMetrics(names)

def test_a_learner_with_it_can_be_exported(tmp_path):
    learn = ranker(tmp_path, RankingMetrics(NAMES))
    values_of(learn, 1)
    again = pickle.loads(pickle.dumps(learn))
    assert values_of(again, 1)[-1][2]==direct(again)

def test_its_bar_is_not_shown_inside_that_of_the_epoch(tmp_path, monkeypatch):
    bars = []
    monkeypatch.setattr('recfast.ranking.progress_bar', lambda *args, **kwargs: bars.append(1) or args[0])
    values_of(learn := ranker(tmp_path, RankingMetrics(NAMES, memory=1000)), 1)
    assert not bars
    direct_with_bar = evaluate_recommender(learn.model, learn.dls.interactions('train'), learn.dls.interactions('valid'), k=10, rated=False, memory=1000)
    assert bars and direct_with_bar['ndcg@10']==direct(learn)


class Bomb:
    def __init__(self, path): self.path = path
    def __reduce__(self): return open,(str(self.path),'w')

class Swap(Callback):
    "Puts another file in the place of the saved model before it is loaded"
    order,path = 61.5,None
    def after_epoch(self): torch.save({'model': Bomb(self.path/'it_ran')}, self.path/'models'/'model.pth')

def test_nothing_in_the_file_is_executed(tmp_path):
    learn,swap = rated(tmp_path, rmse),Swap()
    swap.path = tmp_path
    with pytest.raises(Exception, match='[Ww]eights.only'): run(learn, 1, SaveModelCallback(monitor='rmse'), swap)
    assert not (tmp_path/'it_ran').exists()
    torch.load(tmp_path/'models'/'model.pth', weights_only=False)['model'].close()
    assert (tmp_path/'it_ran').exists()  # the bomb works


def test_metrics_of_training_batches_are_said_to_be_empty():
    learn = collab_learner(CollabDataLoaders.from_df(block_ratings(), seed=0, bs=256), 4, cbs=RankingMetrics('ndcg@5'))
    learn.recorder.train_metrics = True
    with pytest.warns(UserWarning, match='ndcg@5.*train_metrics=True'): fit(learn, 1)
    row = dict(zip(learn.recorder.metric_names[1:], learn.recorder.values[-1]))
    assert np.isnan(row['train_ndcg@5']) and 0<=row['valid_ndcg@5']<=1
    learn.recorder.train_metrics = False
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        fit(learn, 1)
