"A training written down: every store gives back what the Recorder had, and the loop stays compiled"
import math
import warnings

import pytest
from fastai.callback.core import Callback
from fastai.callback.tracker import TerminateOnNaNCallback

from helpers import learner, loaders
from recfast.callbacks import EarlyStoppingCallback, RankingMetrics, SaveModelCallback
from recfast.bundle import load_bundle
from recfast.core import RecfastError
from recfast.models.linear import EASE
from recfast.track import Track, compare_runs, read_runs

NEEDS = dict(json=None, tensorboard='tensorboard', mlflow='mlflow', wandb='wandb')

def recorded(learn):
    "Rows of the Recorder by name, NaN as None"
    names = [o for o in learn.recorder.metric_names[1:] if o!='time']
    return [{k: None if math.isnan(v) else v for k,v in zip(names, row)} for row in learn.recorder.values]

def written(to, where):
    (events,) = read_runs(to, where).values()
    return events

def of(events, kind): return [o for o in events if o['event']==kind]

@pytest.fixture(params=NEEDS)
def store(request, tmp_path, monkeypatch):
    "A store by name and where it is"
    if NEEDS[request.param]: pytest.importorskip(NEEDS[request.param])
    monkeypatch.setenv('WANDB_MODE', 'offline')
    return request.param,tmp_path/('runs.jsonl' if request.param=='json' else 'runs')

def test_a_store_gives_back_what_the_recorder_had(store, tmp_path):
    learn = learner()
    learn.fit_one_cycle(3, 5e-3, wd=.1, cbs=[RankingMetrics('ndcg@5', every=2), Track(*store, name='dot', evaluate=dict(k=5), bundle=True, who='me')])
    assert str(learn.fast)=='compiled'
    events = written(*store)
    assert [o['event'] for o in events if o['event']!='bundle']==['start',*['epoch']*3,'evaluation','end'] and len(of(events, 'bundle'))==1
    names = list(of(events, 'epoch')[0]['values'])
    assert names==['train_loss','valid_loss','rmse','ndcg@5']
    rows = [[None if math.isnan(v) else v for v in row] for row in learn.recorder.values]
    assert [[o['values'][k] for k in names] for o in of(events, 'epoch')]==rows and rows[0][3] is None and rows[1][3] is not None
    start,ev = events[0],of(events, 'evaluation')[0]
    assert start['settings']['lr']==5e-3 and start['settings']['wd']==.1 and start['settings']['who']=='me' and start['name']=='dot'
    assert start['report']==learn.dls.report
    assert ev['metrics']==learn.last_evaluation.as_json()['metrics'] and ev['protocol']==learn.last_evaluation.protocol
    row = compare_runs(*store).iloc[0]
    assert row.ended and row.fast=='compiled' and row['ndcg@5']==learn.last_evaluation['ndcg@5'] and row.protocol==ev['protocol']

def test_a_fit_after_an_interrupted_one_is_a_run_of_its_own(tmp_path):
    class Stops(Callback):
        def after_epoch(self):
            if self.epoch==1: raise KeyboardInterrupt
    learn,track = learner(),Track(tmp_path/'runs.jsonl', evaluate=False)
    with pytest.raises(KeyboardInterrupt): learn.fit(3, cbs=[Stops(),track])
    learn.fit(2, cbs=track)
    first,second = read_runs(tmp_path/'runs.jsonl').values()
    assert not of(first, 'end') and [o['event'] for o in second]==['start','epoch','epoch','end']

def test_a_bundle_of_a_run_answers_as_the_learner(tmp_path):
    learn = learner()
    learn.fit(1, cbs=Track(tmp_path/'runs.jsonl', bundle=True))
    bundle = of(written(tmp_path/'runs.jsonl', None), 'bundle')[0]
    rec = load_bundle(bundle['path'])
    assert rec.info['checksum']==bundle['checksum'] and rec.predict(1, 2)==learn.predict(1, 2)
    assert rec.info['training']['metrics']['ndcg@5']==learn.last_evaluation['ndcg@5']

def test_the_last_epoch_before_an_early_stop_is_told_and_the_best_model_measured(tmp_path):
    learn = learner(path=tmp_path)
    stop = [SaveModelCallback(monitor='valid_loss'), EarlyStoppingCallback(monitor='valid_loss', patience=1)]
    learn.fit(9, 1., cbs=[*stop, Track(tmp_path/'runs.jsonl', evaluate=dict(k=5))])
    events = written(tmp_path/'runs.jsonl', None)
    assert [o['values'] for o in of(events, 'epoch')]==recorded(learn) and 1<len(of(events, 'epoch'))<9
    assert of(events, 'evaluation')[0]['metrics']['rmse']==learn.evaluate(k=5)['rmse']

def test_what_is_no_training_writes_nothing(tmp_path):
    learn = learner(cbs=Track(tmp_path/'runs.jsonl', evaluate=False))
    learn.validate()
    learn.get_preds()
    learn.lr_find(num_it=5, show_plot=False)
    assert not (tmp_path/'runs.jsonl').exists()
    learn.fit(1)
    learn.fit(2)
    assert [len(of(o, 'epoch')) for o in read_runs(tmp_path/'runs.jsonl').values()]==[1,2]

def test_epochs_that_were_trained_before_are_not_told_again(tmp_path):
    learn = learner()
    learn.fit(1)
    learn.fit(3, start_epoch=1, cbs=Track(tmp_path/'runs.jsonl', evaluate=False))
    assert [o['epoch'] for o in of(written(tmp_path/'runs.jsonl', None), 'epoch')]==[1,2]

def test_a_run_that_broke_off_is_there_and_says_so(tmp_path):
    class Breaks(TerminateOnNaNCallback):
        order = 95
        def after_batch(self): pass
        def after_epoch(self):
            if self.epoch==1: raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt): learner().fit(3, cbs=[Track(tmp_path/'runs.jsonl'), Breaks()])
    row = compare_runs(tmp_path/'runs.jsonl').iloc[0]
    assert not row.ended and row.epochs==2 and row.protocol is None

def test_a_solved_model_has_no_learning_rate_and_no_training_loss(tmp_path):
    learn = learner(arch=EASE, y_range=None, metrics=None)
    learn.fit(1, cbs=Track(tmp_path/'runs.jsonl'))
    events = written(tmp_path/'runs.jsonl', None)
    assert 'lr' not in events[0]['settings'] and of(events, 'epoch')[0]['values']['train_loss'] is None

def test_other_protocols_are_not_compared_in_silence(tmp_path):
    path = tmp_path/'runs.jsonl'
    for k in (5,5,7): learner().fit(1, cbs=Track(path, evaluate=dict(k=k)))
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert len(compare_runs(path, by='rmse'))==3 # another list length is no other protocol
    learner(loaders(seed=1)).fit(1, cbs=Track(path))
    with pytest.warns(UserWarning, match='not comparable'): compare_runs(path)

def test_a_store_that_is_not_known(tmp_path):
    with pytest.raises(RecfastError, match="'comet'"): Track('comet')
    with pytest.raises(FileNotFoundError): compare_runs(tmp_path/'none.jsonl')
