"Training as people ran it: what would have been a wrong number without a word is right, or a sentence"
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import numpy as np
import pytest
import torch
from torch import nn

from helpers import FRAME, fit, learner
from recfast.callbacks import RankingMetrics
from recfast.compare import compare
from recfast.core import BrokenModelError, RecfastError
from recfast.models.base import evaluating
from recfast.models.linear import EASE
from recfast.models.ncf import NeuMF
from recfast.tune import tune


# several threads ask one model

def test_threads_do_not_toggle_the_training_mode():
    learn = learner(use_nn=True, layers=[64,32], config=dict(ps=[.5,.5]))
    users = FRAME.user_id.unique().tolist()*4
    want = {u: learn.recommend(u, k=5).item_id.tolist() for u in set(users)}
    learn.model.train() # as after `learn.load` in another process
    with ThreadPoolExecutor(8) as pool: got = list(pool.map(lambda u: learn.recommend(u, k=5).item_id.tolist(), users))
    assert got==[want[u] for u in users]
    assert all(m.training for m in learn.model.modules())

def test_flags_come_back_as_they_were_when_the_last_one_leaves():
    net = nn.Sequential(nn.Linear(1, 1), nn.Dropout(.5), nn.Sequential(nn.Dropout(.5)))
    net[1].eval()
    came,may_go = Event(),Event()
    def read_a_part():
        with evaluating(net[2]):
            came.set()
            may_go.wait(5)
            return [m.training for m in net[2].modules()]
    with ThreadPoolExecutor(1) as pool:
        part = pool.submit(read_a_part)
        came.wait(5)
        with evaluating(net), evaluating(net): assert not any(m.training for m in net.modules())
        assert [m.training for m in net.modules()]==[True,True,False,False,False]
        may_go.set()
        assert part.result()==[False,False]
    assert [m.training for m in net.modules()]==[True,True,False,True,True]

def test_a_failing_reader_gives_the_mode_back():
    net = nn.Dropout(.5)
    with pytest.raises(KeyError), evaluating(net): raise KeyError
    assert net.training


# a model of NaN answers nothing

def break_weights(learn, value=float('nan')):
    for o in (*learn.model.parameters(),*learn.model.buffers()):
        if o.is_floating_point(): o.detach().fill_(value)

DOORS = dict(
    predict=lambda learn, path: learn.predict(1, 2),
    predict_many=lambda learn, path: learn.predict([1,2], 2, on_unknown='drop'),
    recommend=lambda learn, path: learn.recommend(1),
    history=lambda learn, path: learn.recommend(history={1: 5., 2: 3.}),
    nobody=lambda learn, path: learn.recommend(history={}),
    fallback=lambda learn, path: learn.predict('who', 1, on_unknown='fallback'),
    similar_items=lambda learn, path: learn.similar_items(1),
    explain=lambda learn, path: learn.explain(1, [2]),
    explain_history=lambda learn, path: learn.explain(history={1: 5.}, item_ids=[2]),
    evaluate=lambda learn, path: learn.evaluate(k=5),
    rmse=lambda learn, path: learn.evaluate(metrics=['rmse']),
    item_bias=lambda learn, path: learn.item_bias(),
    user_bias=lambda learn, path: learn.user_bias(),
    plot_bias=lambda learn, path: learn.plot_bias(),
    item_factors=lambda learn, path: learn.item_factors(),
    plot_factors=lambda learn, path: learn.plot_factors(),
    fill_wide=lambda learn, path: learn.fill_wide(),
    compare=lambda learn, path: compare(dict(a=learn, b=learn)),
    save_bundle=lambda learn, path: learn.save_bundle(path/'b.recfast'),
    zipped=lambda learn, path: learn.save_bundle(path/'b.zip'),
    export_program=lambda learn, path: learn.export_program(path/'g.pt2'),
    ranking_metrics=lambda learn, path: fit(learn, 1, 0., cbs=RankingMetrics('ndcg@5')),
)

@pytest.mark.parametrize('door', DOORS)
def test_no_door_answers_for_a_model_of_nan(tmp_path, door):
    learn = fit(learner(), 1, 1e-2)
    break_weights(learn)
    with pytest.raises(BrokenModelError, match='its weights are broken'): DOORS[door](learn, tmp_path)
    assert not list(tmp_path.iterdir())

@pytest.mark.parametrize('arch', [NeuMF,EASE])
@pytest.mark.parametrize('door,value', [*((o,np.nan) for o in ('predict','recommend','explain','similar_items','fill_wide','save_bundle')),
    *((o,np.inf) for o in ('predict','fill_wide','save_bundle'))])
def test_other_models(tmp_path, arch, door, value):
    learn = fit(learner(arch=arch, y_range=None, metrics=None), 1)
    break_weights(learn, value)
    with pytest.raises(BrokenModelError): DOORS[door](learn, tmp_path)

def test_one_broken_row_is_enough_for_a_bundle_and_no_matter_to_others(tmp_path):
    learn = fit(learner(), 1, 1e-2)
    row = int(learn.dls.classes['user_id'].o2i[3])
    with torch.no_grad(): learn.model.u_weight.weight[row] = np.nan
    assert np.isfinite(learn.predict(4, 2))
    with pytest.raises(BrokenModelError): learn.predict(3, 2)
    with pytest.raises(BrokenModelError, match='u_weight.weight of this DotProductBias holds NaN'): learn.save_bundle(tmp_path/'b')

@pytest.mark.parametrize('catch', [ValueError,RecfastError,BrokenModelError])
@pytest.mark.parametrize('monitor,value', [('rmse',np.nan), ('rmse',np.inf), ('ndcg@5',np.nan)])
def test_a_search_goes_on_after_a_training_that_diverged(catch, monitor, value):
    def make(lr):
        learn = fit(learner(y_range=None), 1, 1e-2)
        if lr>1: break_weights(learn, value)
        return learn
    with pytest.warns(UserWarning, match='ended in BrokenModelError'):
        best = tune(make, {'lr': [1e-2,9.]}, n_trials=4, monitor=monitor, seed=0, catch=catch, progress=False)
    assert best.best_params=={'lr': 1e-2}
