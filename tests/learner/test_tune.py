"Settings chosen on validation rows, resumed, reproduced, and refused where they cannot be"
import sys
import warnings

import numpy as np
import optuna
import pytest
import torch
from optuna.trial import FixedTrial

from helpers import fit
from recfast.core import RecfastError
from recfast.data.loaders import CollabDataLoaders
from recfast.data.split import user_split
from recfast.learner import collab_learner
from recfast.models.dot import DotProduct, DotProductBias
from recfast.testing import synth_ratings
from recfast.tune import draw_params, tune

RATINGS = synth_ratings(noise=0.5).drop(columns='timestamp')
REST,TEST = user_split(RATINGS, 0.2, seed=0)
DLS = CollabDataLoaders.from_df(RATINGS.iloc[REST], splits=user_split(RATINGS.iloc[REST], 0.2, seed=1), seed=1)
SPACE = {'lr': (1e-4,1e-1,'log'), 'n_factors': [2,4]}

def make_learn(lr=5e-3, n_factors=2, dls=DLS, n_epoch=1, **kwargs):
    learn = collab_learner(dls, n_factors=n_factors, y_range=(0,5.5), **kwargs)
    fit(learn, n_epoch, lr)
    return learn

def search(n_trials=3, monitor='rmse', make_learn=make_learn, space=SPACE, seed=1, **kwargs):
    return tune(make_learn, space, n_trials, monitor, seed=seed, progress=False, **kwargs)

def history(tuned, monitor='rmse'): return tuned.trials[[monitor,'lr','n_factors']].values.tolist()


def test_the_whole_order_of_work():
    best = search(8, make_learn=lambda **p: make_learn(n_epoch=5, **p)).best_params
    full = CollabDataLoaders.from_df(RATINGS, splits=(REST,TEST), seed=1)
    tuned,plain = (make_learn(dls=full, n_epoch=5, **p).evaluate() for p in (best,{'lr': 1e-3}))
    assert tuned['rmse']<plain['rmse'] and f'{len(TEST)} test rows' in tuned.protocol

@pytest.mark.parametrize('monitor,pick', [('rmse',min), ('mae',min), ('ndcg@10',max), ('recall@3',max)])
def test_the_better_direction_by_the_metric(monitor, pick):
    found = search(4, monitor)
    assert found.best_value==pick(found.trials[monitor])
    assert make_learn(**found.best_params).evaluate(k=int(monitor.split('@')[-1]) if '@' in monitor else 10)[monitor]==found.best_value

def test_a_direction_given_by_hand(): # the worst model, asked for
    found = search(4, 'rmse', comp=np.greater)
    assert found.best_value==found.trials.rmse.max()

def test_a_trial_is_measured_on_the_validation_rows():
    found = search(1)
    assert found.trials.rmse[0]==make_learn(**found.best_params).evaluate()['rmse'] and 'no test result' in repr(found)

def test_a_seed_reproduces_the_search_and_another_does_not():
    a,b,c = (history(search(seed=s)) for s in (1,1,2))
    assert a==b!=c

def test_a_seed_reproduces_loaders_without_one_and_leaves_global_states_alone():
    def unseeded(**p): return make_learn(dls=CollabDataLoaders.from_df(RATINGS), **p)
    a = history(search(2, make_learn=unseeded))
    before = torch.get_rng_state(),np.random.get_state()[1].copy()
    assert history(search(2, make_learn=unseeded))==a
    assert (torch.get_rng_state()==before[0]).all() and (np.random.get_state()[1]==before[1]).all()

@pytest.mark.parametrize('name', ['study.log','deep/er/study.db'])
def test_a_study_goes_on_to_the_number_in_all(tmp_path, name):
    whole,file = search(12),tmp_path/name # beyond the ten random trials
    assert len(search(5, storage=file).trials)==5
    assert history(search(12, storage=str(file)))==history(whole)
    called = []
    assert history(search(12, storage=file, make_learn=lambda **p: called.append(p)))==history(whole) and called==[]

@pytest.mark.parametrize('error', [ZeroDivisionError,KeyboardInterrupt])
def test_an_interrupted_study_ends_where_it_would_have_ended(tmp_path, error):
    calls = []
    def breaks_off(**p):
        calls.append(p)
        if len(calls)==3: raise error('broken off')
        return make_learn(**p)
    with pytest.raises(error, match='broken off'): search(4, storage=tmp_path/'s', make_learn=breaks_off)
    found = search(4, storage=tmp_path/'s')
    done = found.trials[found.trials.error==''].drop(columns=['seconds','trial','error'])
    assert done.values.tolist()==search(4).trials.drop(columns=['seconds','trial','error']).values.tolist()
    if error is ZeroDivisionError: assert found.trials.error.tolist()==['','','ZeroDivisionError: broken off','','']

@pytest.mark.parametrize('other', [dict(monitor='ndcg@10'), dict(comp=np.greater), dict(space={'lr': (1e-4,1e-1,'log')}), dict(evaluate={'clip': (1,5)})])
def test_a_study_that_asked_another_question(tmp_path, other):
    search(1, storage=tmp_path/'s')
    with pytest.raises(ValueError, match="the study 'recfast' in .* was made with .*'rmse'.*Pass another study_name="): search(2, storage=tmp_path/'s', **other)
    assert len(search(1, storage=tmp_path/'s', study_name='second', **other).trials)==1

def fails_above(limit):
    def f(lr, n_factors):
        if lr>limit: raise FloatingPointError('too steep')
        return make_learn(lr, n_factors)
    return f

def test_an_exception_is_the_callers_with_the_parameters_that_led_to_it():
    with pytest.raises(FloatingPointError, match='too steep') as e: search(8, make_learn=fails_above(1e-3))
    if sys.version_info>=(3,11): assert "in trial " in e.value.__notes__[0] and "'lr': 0." in e.value.__notes__[0]

def test_expected_failures_are_counted_warned_of_and_listed():
    with pytest.warns(UserWarning, match='trial . with .*ended in FloatingPointError: too steep'): found = search(6, make_learn=fails_above(5e-3), catch=FloatingPointError)
    failed = found.trials.lr>5e-3
    assert 0<failed.sum()<6==len(found.trials) and found.best_params['lr']<=5e-3
    assert (found.trials.error==failed.map({True: 'FloatingPointError: too steep', False: ''})).all() and (found.trials.rmse.isna()==failed).all()

def test_no_trial_came_to_a_value():
    with pytest.warns(UserWarning), pytest.raises(ValueError, match='none of 2 trials .* FloatingPointError: too steep'):
        search(2, make_learn=fails_above(0), catch=[FloatingPointError])

def test_time_is_up(): assert len(search(50, timeout=0).trials)==1

def test_optuna_is_quiet_and_as_loud_as_before_afterwards(capfd):
    level = optuna.logging.get_verbosity()
    search(2)
    with pytest.raises(FloatingPointError): search(1, make_learn=fails_above(0))
    assert capfd.readouterr()==('','') and optuna.logging.get_verbosity()==level

def test_a_bar_with_the_best_so_far(capfd):
    tune(make_learn, SPACE, 2, 'rmse', seed=1)
    assert 'trial 2 of 2, best rmse' in capfd.readouterr().out

def test_without_optuna(monkeypatch):
    monkeypatch.setitem(sys.modules, 'optuna', None)
    with pytest.raises(ImportError, match=r'pip install recfast\[tune\]'): search()

def test_classes_lists_and_functions_in_a_space():
    space = {'arch': [DotProduct,DotProductBias], 'shape': [[8,4],[8]], 'twice': lambda t: [t.suggest_int('width', 3, 5)]*2, 'n': range(2,4)}
    seen = []
    def make(arch, **p):
        seen.append(dict(arch=arch, **p))
        return make_learn(arch=arch)
    found = search(5, make_learn=make, space=space)
    assert found.best_params in seen and found.best_params['arch'] in space['arch'] and type(found.best_params['shape']) is list
    assert set(found.trials.arch)<={'DotProduct','DotProductBias'} and set(found.trials.width)<={3,4,5}

def test_ranges_of_each_kind():
    space = {'i': (1,9), 'f': (0,.5), 'step': (10,50,10), 'log': (np.int64(1),np.int64(100),'log'), 'c': [np.int64(7),None]}
    study = optuna.create_study()
    draws = [draw_params(study.ask(), space) for _ in range(60)]
    assert {type(d['i']) for d in draws}=={int} and {type(d['f']) for d in draws}=={float} and {d['step'] for d in draws}=={10,20,30,40,50}
    assert min(d['log'] for d in draws)>=1 and np.median([d['log'] for d in draws])<40 and {d['c'] for d in draws}=={7,None}
    assert draw_params(FixedTrial({'i': 3}), {'i': (1,9)})=={'i': 3}

@pytest.mark.parametrize('space,message', [({}, 'expected a dict such as'), (['lr'], 'expected a dict such as'), ({'k': (1,2,3,4)}, 'choices stand in a list'),
    ({'k': ('a','b')}, 'choices stand in a list'), ({'k': (0.,1.,'log')}, "above 0 for 'log'"), ({'k': (2,1)}, 'expected low <= high'), ({'k': []}, 'one at least'),
    ({'k': [1,1]}, 'choices that differ'), ({'k': 5}, r"space\['k'\]=5: expected"), ({'k': (0,1,'lin')}, 'choices stand in a list'), ({'k': (False,True)}, 'choices stand in a list')])
def test_a_space_that_nothing_can_be_drawn_from(space, message):
    with pytest.raises((TypeError,ValueError), match=message): search(space=space, make_learn=lambda **p: pytest.fail('a trial began'))

@pytest.mark.parametrize('kwargs,message', [(dict(monitor='ndcg@x'), "monitor='ndcg@x'"), (dict(monitor='ndcg@0'), "monitor='ndcg@0'"), (dict(n_trials=0), 'n_trials=0'),
    (dict(make_learn=DLS), 'make_learn is a CollabDataLoaders'), (dict(evaluate={'test': RATINGS}), 'would choose on the test rows')])
def test_arguments_that_cannot_be_meant(kwargs, message):
    with pytest.raises((TypeError,ValueError), match=message): search(**kwargs)

def test_make_learn_forgot_to_return():
    with pytest.raises(TypeError, match='NoneType, expected a fitted CollabLearner; does it end in `return learn`'): search(make_learn=lambda **p: None)

def test_a_learner_that_was_never_fitted():
    with pytest.warns(UserWarning, match='never fitted'): search(1, make_learn=lambda **p: collab_learner(DLS, y_range=(0,5.5)))

def test_a_fitted_learner_is_nothing_to_warn_of():
    with warnings.catch_warnings():
        warnings.filterwarnings('error', message='.*never fitted')
        search(1)

def test_a_metric_that_is_not_measured():
    with pytest.raises(ValueError, match="no metric 'nodcg@5'; did you mean 'ndcg@5'"): search(1, 'nodcg@5')

def test_a_training_that_diverged():
    def diverges(**p):
        learn = make_learn(**p)
        with torch.no_grad(): learn.model.i_weight.weight.fill_(np.nan)
        return learn
    with pytest.raises((RecfastError,ValueError), match='(?i)nan'): search(1, make_learn=diverges)

def test_nobody_to_measure_on(): # every validation row is of a user without training rows
    known = RATINGS.user_id.to_numpy()<40
    with pytest.warns(UserWarning, match='without a training row'): dls = CollabDataLoaders.from_df(RATINGS, splits=(np.flatnonzero(known),np.flatnonzero(~known)), seed=1)
    with pytest.raises(ValueError, match='ndcg@10 is nan.*nothing to measure'): search(1, 'ndcg@10', make_learn=lambda **p: make_learn(dls=dls, **p))

def test_further_arguments_reach_evaluate():
    found = search(1, evaluate={'clip': (1,2)})
    assert found.best_value==make_learn(**found.best_params).evaluate(clip=(1,2))['rmse']!=search(1).best_value

@pytest.mark.parametrize('monitor,better', [('rmse',np.minimum), ('ndcg@5',np.maximum)])
def test_the_plot_shows_every_trial_and_the_best_so_far(monitor, better):
    found = search(5, monitor)
    ax = found.plot()
    dots,line = (o.get_ydata().tolist() for o in ax.lines)
    assert dots==found.trials[monitor].tolist() and line==better.accumulate(dots).tolist()
    assert ax.get_xlabel()=='trial' and monitor in ax.get_ylabel()

def test_a_sampler_of_ones_own():
    found = search(2, sampler=optuna.samplers.GridSampler({'lr': [1e-3], 'n_factors': [4,2]}, seed=0))
    assert sorted(found.trials.n_factors)==[2,4] and set(found.trials.lr)=={1e-3}
