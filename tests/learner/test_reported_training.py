"Training as people ran it: what would have been a wrong number without a word is right, or a sentence"
import datetime
import enum
import warnings
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import numpy as np
import pandas as pd
import pytest
import torch
from fastai.callback import tracker
from fastai.callback.schedule import ParamScheduler  # noqa: F401, and with it lr_find
from fastai.learner import load_learner
from fastai.losses import BCEWithLogitsLossFlat
from fastai.metrics import accuracy, error_rate, top_k_accuracy
from torch import nn
from typer.testing import CliRunner

from helpers import FRAME, fit, fit_one_cycle, learner, loaders, registry  # noqa: F401 (a fixture)
from recfast.callbacks import RankingMetrics
from recfast.cli import app
from recfast.compare import compare
from recfast.bundle import load_bundle
from recfast.core import BrokenModelError, RatingsError, RecfastError
from recfast.data.loaders import CollabDataLoaders
from recfast.data.split import leave_last_out
from recfast.given_lists import evaluate_lists
from recfast.learner import _reads, collab_learner
from recfast.losses import BCE, BPRLoss, ClassLoss, CosineContrastiveLoss, MaskedCrossEntropy, MaskedMSE, RMSELoss
from recfast.losses import SampledSoftmaxLoss, SoftmaxLoss
from recfast.metrics import rmse
from recfast.models.autorec import AutoRec
from recfast.models.base import evaluating
from recfast.models.dot import DotProduct
from recfast.models.linear import EASE
from recfast.models.ncf import GMF, MLP, NeuMF
from recfast.models.sequence import NextItem, SASRec
from recfast.models.zoo import MODELS
from recfast.trackers import EarlyStoppingCallback, ReduceLROnPlateau, SaveModelCallback
from recfast.train import table_learner
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


# one number from every door, whatever the arguments of the loss

def stars(low=0, n=6): return FRAME.assign(rating=lambda d: d.rating.round().clip(0, n-1)+low)
def labels(): return FRAME.assign(rating=lambda d: (d.rating>3)*1.)

LOSSES = dict(
    classes=(lambda: stars(0), ClassLoss(), dict(n_out=6), None),
    one=(lambda: stars(1, 5), ClassLoss(low=1), dict(n_out=5), None),
    minus=(lambda: stars(-2, 5), ClassLoss(low=-2), dict(n_out=5), None),
    by_model=(lambda: stars(1, 5), ClassLoss(), dict(n_out=5, low=1), None),
    both=(lambda: stars(3, 4), ClassLoss(3), dict(n_out=4, low=3), None),
    logits=(labels, BCE(), {}, None),
    probabilities=(labels, BCE((0,1)), {}, (0,1)),
    root=(lambda: FRAME, RMSELoss(), {}, (0,5.5)),
)

def head(name, arch=GMF, **kwargs):
    df,loss,config,y_range = LOSSES[name]
    dls = CollabDataLoaders.from_df(df(), bs=64, seed=1)
    more = dict(layers=(8,)) if arch is not GMF else {}
    return fit(collab_learner(dls, 4, y_range=y_range, arch=arch, config={'init': None, **more, **config}, loss_func=loss, **kwargs), 2, 1e-2)

def shown(learn):
    with learn.no_bar(): preds,y = learn.get_preds()
    return preds.double().numpy().reshape(y.shape),y.double().numpy()

@pytest.mark.filterwarnings('ignore:rmse compares raw logits')
@pytest.mark.parametrize('arch', [GMF,MLP,NeuMF])
@pytest.mark.parametrize('name', LOSSES)
def test_get_preds_predict_recommend_and_metrics_are_one_number(tmp_path, name, arch):
    learn = head(name, arch, metrics=rmse)
    measured = learn.recorder.values[-1][2]
    preds,y = shown(learn)
    rows = learn.dls.valid_ds.frame()
    root = np.sqrt(((preds-y)**2).mean())
    assert learn.predict(rows.user_id, rows.item_id)==pytest.approx(preds[:,0], rel=1e-5, abs=1e-6)
    assert measured==pytest.approx(root, rel=1e-5)
    assert learn.evaluate(metrics=['rmse'])['rmse']==pytest.approx(root, rel=1e-5)
    best = learn.recommend(1, k=3)
    assert best.score.to_numpy()==pytest.approx(learn.predict(1, best.item_id), rel=1e-5, abs=1e-6)
    back = load_bundle(learn.save_bundle(tmp_path/'b.recfast'))
    assert back.predict(rows.user_id, rows.item_id)==pytest.approx(preds[:,0], rel=1e-5, abs=1e-6)

def test_two_first_classes_are_one_too_many():
    with pytest.raises(ValueError, match=r'ClassLoss\(low=1\), but the model has low=2'):
        collab_learner(CollabDataLoaders.from_df(stars(1, 5), seed=1), arch=GMF, config=dict(n_out=5, low=2), loss_func=ClassLoss(low=1))

def test_a_history_of_stars_from_one_is_in_stars():
    learn = head('one')
    best = learn.recommend(history={1: 5., 2: 2., 3: 4.}, k=40, exclude_seen=False)
    assert best.score.between(1, 5).all() and best.score.mean()>2

def row_learner(df, **kwargs):
    dls = CollabDataLoaders.rows_from_df(df, bs=16, seed=1)
    return fit(collab_learner(dls, 8, arch=AutoRec, **kwargs), 2, 1e-2)

@pytest.mark.parametrize('low', [1,3])
def test_rows_of_classes(low):
    learn = row_learner(stars(low, 5), config=dict(n_classes=4), metrics=[rmse,accuracy])
    measured = learn.recorder.values[-1][2:]
    preds,y = shown(learn)
    known = ~np.isnan(y)
    assert measured[0]==pytest.approx(np.sqrt(((preds-y)[known]**2).mean()), rel=1e-5)
    logits = torch.cat([learn.model.eval()(x) for x,_ in learn.dls.valid]).argmax(-1).numpy()
    assert measured[1]==pytest.approx((logits+low+1==y)[known].mean(), rel=1e-5)

def test_rows_of_numbers(): # as before
    learn = row_learner(FRAME, metrics=rmse, loss_func=MaskedMSE())
    measured = learn.recorder.values[-1][2]
    preds,y = shown(learn)
    assert measured==pytest.approx(np.sqrt(np.nanmean((preds-y)**2)), rel=1e-5)

def test_levels_of_a_loss_that_are_not_the_model_s():
    with pytest.raises(ValueError, match=r'levels=\[1.0, 2.0, 3.0, 4.0\], but the model has \[2.0, 3.0'):
        row_learner(stars(1, 5), config=dict(n_classes=4), loss_func=MaskedCrossEntropy([1,2,3,4]))

@pytest.mark.parametrize('name', ['one','classes','minus','by_model'])
@pytest.mark.parametrize('fast', [True,False])
def test_accuracy_counts_stars_by_their_class(name, fast):
    df,loss,config,_ = LOSSES[name]
    learn = collab_learner(CollabDataLoaders.from_df(df(), bs=64, seed=1), 4, arch=GMF, config=config, loss_func=loss,
        metrics=[accuracy,error_rate,top_k_accuracy])
    fit(learn, 2, 1e-2, fast=fast)
    logits,y = (torch.cat(o) for o in zip(*((learn.model.eval()(x),y) for x,y in learn.dls.valid)))
    low = learn.loss_func.low
    right = (logits.argmax(1)+low==y[:,0]).float().mean().item()
    top = (logits.topk(5).indices+low==y).any(1).float().mean().item()
    assert learn.recorder.metric_names[3:6]==['accuracy','error_rate','top_k_accuracy']
    assert list(map(float, learn.recorder.values[-1][2:]))==pytest.approx([right,1-right,top], abs=1e-6)

def test_accuracy_of_what_comes_next_leaves_padding_out():
    df = FRAME.assign(timestamp=range(len(FRAME)))
    dls = CollabDataLoaders.sequences_from_df(df, seq_len=5, bs=16, seed=0)
    learn = fit(collab_learner(dls, 8, arch=SASRec, config=dict(seq_len=5, p=0.), metrics=accuracy), 2, 1e-2)
    x,y = (torch.cat(o) for o in zip(*dls.valid))
    best = learn.model.eval()(x)[:,-1].argmax(-1)
    assert learn.recorder.values[-1][2]==pytest.approx((best==y[:,-1]).float().mean().item(), abs=1e-6)

def test_logits_beside_labels_get_a_word_and_probabilities_none():
    with pytest.warns(UserWarning, match=r'rmse compares raw logits with labels: pass y_range=\(0,1\)'): head('logits', metrics=rmse)
    learn = head('logits')
    learn.loss_func,learn.metrics = BCEWithLogitsLossFlat(),rmse
    preds,y = shown(learn)
    assert ((preds>0)&(preds<1)).all() and learn.validate()[1]==pytest.approx(np.sqrt(((preds-y)**2).mean()), rel=1e-5)

@pytest.mark.parametrize('arch', [NextItem,SASRec])
def test_scores_of_items_are_no_ratings(arch):
    dls = CollabDataLoaders.sequences_from_df(FRAME.assign(timestamp=range(len(FRAME))), seq_len=5, bs=16, seed=0)
    learn = collab_learner(dls, 8, arch=arch, config=dict(seq_len=5) if arch is SASRec else {}, metrics=rmse)
    with pytest.raises(TypeError, match='rmse compares a number with a rating.*RankingMetrics'): fit(learn, 1)


# what the optimizer does not have is not trained

UNTRAINED = 'not in the optimizer, so not trained.*reset_opt=True'

def let_go(learn): return learn.model.i_weight.weight.requires_grad_(True)

def test_a_table_unfrozen_after_a_fit_is_named():
    learn = learner()
    w = learn.model.i_weight.weight.requires_grad_(False)
    fit(learn, 1, 1e-2)
    before = let_go(learn).detach().clone()
    with pytest.warns(UserWarning, match=f"'i_weight.weight': {UNTRAINED}"): fit(learn, 1, 1e-2)
    assert torch.equal(before, w)
    with warnings.catch_warnings():
        warnings.simplefilter('error', UserWarning)
        fit(learn, 1, 1e-2, reset_opt=True)
    assert not torch.equal(before, w)

@pytest.mark.parametrize('start', ['fit','lr_find','one_cycle','freeze'])
def test_a_new_layer_is_named_after_whatever_made_the_optimizer(start):
    learn = learner()
    with learn.quiet():
        if start=='fit': learn.fit(1, 1e-2)
        elif start=='lr_find': learn.lr_find(show_plot=False, num_it=5)
        elif start=='one_cycle': learn.fit_one_cycle(1, 1e-2)
        else: learn.create_opt(); learn.unfreeze()
    learn.model.i_weight = nn.Embedding.from_pretrained(torch.randn(learn.model.i_weight.weight.shape), freeze=False)
    with pytest.warns(UserWarning, match=f"'i_weight.weight': {UNTRAINED}"): fit_one_cycle(learn, 1)

def test_what_is_frozen_on_purpose_is_no_matter():
    learn = learner(splitter=lambda m: [[m.u_weight.weight,m.u_bias.weight], [m.i_weight.weight,m.i_bias.weight]])
    with warnings.catch_warnings():
        warnings.simplefilter('error', UserWarning)
        learn.freeze()
        fit(learn, 1, 1e-2)
        learn.unfreeze()
        fit(learn, 1, slice(1e-3,1e-2))
        learn.model.u_bias.weight.requires_grad_(False)
        fit(learn, 1, 1e-2)
        fit(learner(arch=EASE, y_range=None, metrics=None), 1)


# fastai's trackers, imported after recfast's

THEIRS = dict(stop=tracker.EarlyStoppingCallback, keep=tracker.SaveModelCallback, slow=tracker.ReduceLROnPlateau)

@pytest.mark.parametrize('name', THEIRS)
def test_a_tracker_of_fastai_that_keeps_the_worst_is_named(tmp_path, name):
    cls = THEIRS[name]
    learn = learner(loaders(path=tmp_path))
    with pytest.warns(UserWarning, match=f'{cls.__name__} of fastai has rmse the wrong way round: import {cls.__name__}'):
        fit(learn, 1, 1e-2, cbs=cls(monitor='rmse'))
    with warnings.catch_warnings():
        warnings.simplefilter('error', UserWarning)
        fit(learn, 1, 1e-2, cbs=cls(monitor='valid_loss'))
        fit(learn, 1, 1e-2, cbs=cls(monitor='rmse', comp=np.less))
        fit(learn, 1, 1e-2, cbs=[RankingMetrics('ndcg@5'),cls(monitor='ndcg@5')])


# what stands in the table is said when the loaders are built, in ids

FULL = pd.DataFrame([(f'u{u}',f'i{(u+j)%10}',j) for u in range(40) for j in range(10 if u==0 else 4)],
    columns=['user_id','item_id','timestamp'])
build = CollabDataLoaders.implicit_from_df

@pytest.mark.parametrize('kw', [dict(splits=leave_last_out), dict(valid_pct=0), dict(valid_pct=0, alpha=1.), dict(splits=leave_last_out, vocab='all')])
def test_somebody_who_has_everything_is_named(kw):
    with pytest.raises(RatingsError, match=r"have all 10 items: 'u0'. There is no negative.*keep_positives=True or n_neg=0"):
        build(FULL, n_neg=2, bs=16, seed=0, **kw)

def test_repeats_are_no_other_items():
    twice = pd.concat([FULL[FULL.user_id!='u0'], *[FULL[FULL.user_id=='u1']]*5])
    fit(collab_learner(build(twice, n_neg=2, bs=16, seed=0), 5, loss_func=BPRLoss()), 1)

@pytest.mark.parametrize('kw', [dict(keep_positives=True), dict(n_neg=0)])
def test_the_two_ways_out_and_the_third(kw):
    assert len(build(FULL, bs=16, seed=0, splits=leave_last_out, **kw).train)
    fit(collab_learner(build(FULL[FULL.user_id!='u0'], bs=16, seed=0, splits=leave_last_out), 5, loss_func=BPRLoss()), 2)

@pytest.mark.parametrize('bs', [1,64])
def test_nobody_with_two_rows_has_nothing_that_comes_next(bs):
    one = FULL.groupby('user_id').head(2)
    with pytest.raises(RatingsError, match='no user has two training rows.*hold_out=False'):
        CollabDataLoaders.sequences_from_df(one, bs=bs)
    assert CollabDataLoaders.sequences_from_df(one, bs=1, hold_out=False).report['n_windows']==40

@pytest.mark.parametrize('builder', ['from_df','implicit_from_df','rows_from_df'])
def test_an_empty_training_part(builder):
    with pytest.raises(RatingsError, match='no training rows: the split leaves none'):
        getattr(CollabDataLoaders, builder)(FRAME, splits=([],range(len(FRAME))))

def test_the_order_of_rows_has_a_word_where_times_are_there():
    df = FULL.rename(columns={'timestamp': 'date'})
    with pytest.warns(UserWarning, match="column 'date' is not read: pass time_name='date'"):
        dls = CollabDataLoaders.sequences_from_df(df, bs=8)
    assert dls.report['order']=='rows'
    with warnings.catch_warnings():
        warnings.simplefilter('error', UserWarning)
        assert CollabDataLoaders.sequences_from_df(df, bs=8, time_name='date').report['order']=='date'
        CollabDataLoaders.sequences_from_df(FULL.drop(columns='timestamp').assign(update=1), bs=8)


# rows that say no

SAID_NO = FRAME.assign(rating=lambda d: (d.rating>=3)*1)
NO = r"column 'rating' has \d+ ratings of 0 or below, and every row counts as an event"

@pytest.mark.parametrize('df', [SAID_NO, SAID_NO.assign(rating=SAID_NO.rating*2-1), SAID_NO.assign(rating=SAID_NO.rating>0),
    SAID_NO.astype({'rating': 'Int64'}), SAID_NO.assign(rating=SAID_NO.rating-.5)], ids=['0/1','-1/1','bool','Int64','floats'])
@pytest.mark.parametrize('builder', ['implicit_from_df','sequences_from_df'])
def test_rows_of_0_and_below_are_warned_of(df, builder):
    with pytest.warns(UserWarning, match=NO): getattr(CollabDataLoaders, builder)(df, bs=16)

def test_stars_as_events_are_the_documented_use():
    with warnings.catch_warnings():
        warnings.simplefilter('error', UserWarning)
        build(FRAME, bs=16)
        build(FRAME.drop(columns='rating'), bs=16)
        build(SAID_NO, label_name='rating', bs=16)
        build(SAID_NO.assign(rating='none'), bs=16)

@pytest.mark.parametrize('name', ['rating','stars'])
def test_a_threshold_counts_likes_and_knows_the_others_as_seen(name):
    df = FRAME.rename(columns={'rating': name})
    high = df[name]>=3
    dls = build(df, threshold=3, rating_name=None if name=='rating' else name, bs=64, seed=1, n_neg=0)
    assert len(dls.train_ds)+len(dls.valid_ds)==high.sum() and dls.random_split
    assert len(dls.interactions('all'))==len(df) and not dls.rated
    want = build(df[high], bs=64, seed=1, n_neg=0)
    assert dls.train_ds.frame()[['user_id','item_id']].equals(want.train_ds.frame()[['user_id','item_id']])
    learn = fit(collab_learner(dls, arch=EASE), 1)
    met = df[df.user_id==1].item_id
    assert not learn.recommend(1, k=40).item_id.isin(met).any()

def test_positions_count_in_the_frame_as_given():
    at = np.arange(len(FRAME))
    dls = build(FRAME, threshold=3, splits=(at[:600],at[600:800]), bs=64, n_neg=0)
    for part,rows in ((dls.train_ds,FRAME[:600]),(dls.valid_ds,FRAME[600:800])):
        assert part.frame()[['user_id','item_id']].values.tolist()==rows[rows.rating>=3][['user_id','item_id']].values.tolist()
    last = build(FRAME.assign(timestamp=at), threshold=3, splits=leave_last_out, bs=64)
    assert len(last.valid_ds)==FRAME[FRAME.rating>=3].user_id.nunique()

def test_what_a_threshold_needs():
    with pytest.raises(RatingsError, match='reaches threshold=9'): build(FRAME, threshold=9)
    with pytest.raises(RatingsError, match="no column 'rating'"): build(FULL, threshold=3)
    with pytest.raises(TypeError, match='threshold= goes without it'): build(SAID_NO, threshold=1, label_name='rating')
    with pytest.raises(TypeError, match='blocks=True needs label_name='): build(FRAME, blocks=True)
    assert len(CollabDataLoaders.sequences_from_df(FRAME, threshold=3, bs=8, hold_out=False).train_ds)==(FRAME.rating>=3).sum()

@pytest.mark.parametrize('loss', [BPRLoss(),SampledSoftmaxLoss(),SoftmaxLoss(),CosineContrastiveLoss()])
def test_given_negatives_train_ranking_losses(loss):
    df = SAID_NO.copy()
    df.loc[df.user_id==1,'rating'] = 1 # nothing was given, so something is drawn
    dls = build(df, n_neg=3, label_name='rating', blocks=True, bs=32, seed=0)
    zero = set(df[df.rating==0][['user_id','item_id']].itertuples(index=False, name=None))
    one = set(df[df.rating==1][['user_id','item_id']].itertuples(index=False, name=None))
    for dl in dls:
        rows = dl.items
        yes,no = (set(o.iloc[:,:2].itertuples(index=False, name=None)) for _,o in sorted(rows.groupby(rows.columns[2]), reverse=True))
        assert yes<=one and {o for o in no if o[0]!=1}<=zero and not {o for o in no if o[0]==1}&yes
        assert len(rows)==4*len(dl.dataset)
    config = dict(cosine=True) if isinstance(loss, CosineContrastiveLoss) else {}
    learn = fit(collab_learner(dls, 5, arch=DotProduct, config=config, loss_func=loss), 3, 1e-2)
    losses = [o[0] for o in learn.recorder.values]
    assert losses[-1]<losses[0] and np.isfinite(losses).all() and len(learn.recommend(2, k=3))==3

def test_the_shares_of_given_negatives_are_those_of_the_draws():
    dls = build(SAID_NO, n_neg=3, label_name='rating', blocks=True, bs=32, seed=0)
    shares,left = dls.train.sampler.log_shares(dls.n_users, dls.n_items)
    given = dls.train.given.counts('user')
    assert torch.allclose((shares[1]-left)[given>0].exp(), 1/torch.from_numpy(given[given>0]).float())


# loaders without rows, or of another library

def test_an_exported_learner_says_what_it_lacks(tmp_path):
    learn = fit(learner(loaders(path=tmp_path)), 1, 1e-2)
    learn.export()
    again = load_learner(tmp_path/'export.pkl')
    with pytest.raises(RecfastError, match='an exported Learner keeps none'): fit(again, 1)
    with pytest.raises(RecfastError, match='an exported Learner keeps none'): again.fit_one_cycle(1)
    with pytest.raises(RecfastError, match='an exported Learner keeps none'): again.evaluate(FRAME[:50])
    again.dls = learn.dls
    assert np.isfinite(fit(again, 1, 1e-2).recorder.values[-1][:2]).all()

@pytest.mark.parametrize('kw', [{}, dict(use_nn=True), dict(arch=EASE)])
def test_fastai_s_loaders_are_named(kw):
    from fastai.collab import CollabDataLoaders as Theirs
    with pytest.raises(TypeError, match='fastai.*DataLoaders, which has no interactions: build the loaders with CollabDataLoaders.from_df of recfast'):
        collab_learner(Theirs.from_df(FRAME, bs=64), 5, **kw)


# the last of several is the last in time, whatever the split

TWICE = pd.DataFrame(dict(user_id=[1,1,1,2,2,3,3,1], item_id=list('aababbaa'), rating=[1.,2,3,4,5,3,2,5], timestamp=range(8)))

@pytest.mark.parametrize('seed', range(4))
@pytest.mark.parametrize('times', [range(8), pd.date_range('2024-05-01', periods=8), np.arange(8)/2], ids=['int','date','float'])
@pytest.mark.parametrize('valid_pct', [0,.4])
def test_a_filled_table_shows_the_latest_rating(seed, times, valid_pct):
    df = TWICE.assign(timestamp=times)
    learn = fit(collab_learner(CollabDataLoaders.from_df(df, valid_pct=valid_pct, seed=seed, bs=2, vocab='all'), 2, y_range=(0,6)), 1)
    wide = learn.fill_wide()
    for (user,item),want in df.groupby(['user_id','item_id']).rating.last().items(): assert wide.loc[user,item]==want
    turned = df.iloc[::-1].reset_index(drop=True) # the latest row stands first
    learn = fit(collab_learner(CollabDataLoaders.from_df(turned, valid_pct=valid_pct, seed=seed, bs=2, vocab='all'), 2, y_range=(0,6)), 1)
    assert learn.fill_wide().loc[1,'a']==5

@pytest.mark.parametrize('arch', ['popularity','dotproductbias','sasrec'])
def test_a_threshold_in_the_shell(tmp_path, arch):
    FRAME.assign(timestamp=range(len(FRAME))).to_csv(tmp_path/'r.csv', index=False)
    args = ['train', str(tmp_path/'r.csv'), '--out', str(tmp_path/'b.recfast'), '--arch', arch, '--epochs', '1', '--threshold', '4']
    res = CliRunner().invoke(app, args)
    assert res.exit_code==0, res.output
    rec = load_bundle(tmp_path/'b.recfast')
    assert len(rec.train)<(FRAME.rating>=4).sum() and (arch=='sasrec' or set(rec.train.ratings().tolist())=={1.})
    if arch=='popularity': assert rec.recommend(1, k=1).score.iloc[0]<=(FRAME.rating>=4).groupby(FRAME.item_id).sum().max()

def test_stars_that_a_solved_model_does_not_read_get_a_word():
    with pytest.warns(UserWarning, match='Popularity reads no ratings.*Pass threshold='): table_learner(FRAME, 'popularity')
    with warnings.catch_warnings():
        warnings.filterwarnings('error', '.*reads no ratings')
        table_learner(FRAME, 'popularity', threshold=4)
        table_learner(FRAME, 'ease', config=dict(use_ratings=True))
        table_learner(FRAME)


# what is said of arguments that are none

T = pd.DataFrame(dict(user_id=np.arange(600)%40, item_id=np.arange(600)*7%31, rating=1., timestamp=pd.Timestamp('2024')+pd.to_timedelta(np.arange(600), unit='D')))
KINDS = dict(
    pairs=lambda: CollabDataLoaders.from_df(T, seed=1, bs=64), clicks=lambda: CollabDataLoaders.implicit_from_df(T, seed=1, n_neg=2, bs=64),
    rows=lambda: CollabDataLoaders.rows_from_df(T, seed=1, bs=8), sequences=lambda: CollabDataLoaders.sequences_from_df(T, seq_len=8, bs=8))

@pytest.mark.parametrize('kind', KINDS)
def test_a_model_is_trained_on_what_it_reads_or_says_so(kind):
    dls = KINDS[kind]()
    there = 'pairs' if kind=='clicks' else kind
    for cls,caps in list(MODELS.values()):
        if not cls.__module__.startswith('recfast.models') or cls.__module__.endswith(('parts','ensemble')): continue
        reads = 'pairs' if caps['reads']=='histories' else caps['reads']
        if reads==there: continue
        with pytest.raises(TypeError, match=f'{cls.__name__} is trained on {reads}, these loaders hold {there}: build them with CollabDataLoaders'): collab_learner(dls, 8, arch=cls)

class OfPairs(DotProduct): pass

def test_a_model_of_ones_own_is_asked_where_its_base_is_known():
    with pytest.raises(TypeError, match='OfPairs is trained on pairs'): collab_learner(KINDS['rows'](), 8, arch=OfPairs)
    assert _reads(nn.Linear(2, 2)) is None

@pytest.fixture(scope='module')
def clicked():
    learn = collab_learner(KINDS['clicks'](), arch=EASE)
    with learn.quiet(): learn.fit(1)
    return learn

@pytest.mark.parametrize('k', [2.5,'5',None,0,-1,5.])
def test_a_list_length_is_a_whole_number(clicked, k):
    for f in (lambda: clicked.recommend(3, k=k),lambda: clicked.recommend(history=[1], k=k),lambda: clicked.similar_items(3, k=k)):
        with pytest.raises(ValueError, match='k=.*expected.* 1 or more'): f()

@pytest.mark.parametrize('k', [2.5,'5',0,[5,'6'],[],float('inf'),float('nan')])
def test_so_is_that_of_an_evaluation(clicked, k):
    with pytest.raises(ValueError, match='expected a list length of 1 or more'): clicked.evaluate(k=k)
    with pytest.raises(ValueError, match='expected a list length of 1 or more'): evaluate_lists(clicked.recommend(k=5), T, k=k)

def test_whole_numbers_of_other_types_are_lengths(clicked):
    assert clicked.evaluate(k=5.).summary.keys()==clicked.evaluate(k=np.int64(5)).summary.keys()==clicked.evaluate(k=5).summary.keys()
    assert len(clicked.recommend(3, k=np.int32(4)))==4

@pytest.mark.parametrize('relevant', ['4',[4],None.__class__])
def test_relevant_is_a_number(clicked, relevant):
    with pytest.raises(RatingsError, match='relevant=.*expected a number'): clicked.evaluate(T.assign(rating=3.), relevant=relevant)

@pytest.mark.parametrize('n_boot', [0,-5])
def test_a_bootstrap_draws(clicked, n_boot):
    with pytest.raises(ValueError, match=f'n_boot={n_boot}, expected 1 or more'): compare({'a': clicked, 'b': clicked}, n_boot=n_boot)

@pytest.mark.parametrize('half_life', [np.timedelta64(90,'D'),pd.Timedelta('90d'),datetime.timedelta(days=90),np.timedelta64(90*86400,'s')])
def test_a_half_life_of_any_kind_is_the_same(half_life):
    a,b = (CollabDataLoaders.implicit_from_df(T, seed=1, n_neg=0, bs=64, half_life=o).interactions('train').weights for o in (half_life,'90d'))
    torch.testing.assert_close(a, b)

class Colour(enum.Enum): red,green = 1,2

@pytest.mark.parametrize('name', ['user_id','item_id'])
@pytest.mark.parametrize('ids,why', [(lambda n: np.arange(n, dtype='float16')%9, 'float16'), (lambda n: [list(Colour)[j%2] for j in range(n)], 'have no order.*Enum')])
def test_ids_that_no_table_can_have_are_told(name, ids, why):
    for build in (CollabDataLoaders.from_df,CollabDataLoaders.implicit_from_df):
        with pytest.raises(RatingsError, match=why): build(T.assign(**{name: ids(len(T))}), bs=64)

@pytest.mark.parametrize('cls', [SaveModelCallback,EarlyStoppingCallback,ReduceLROnPlateau])
@pytest.mark.parametrize('comp', ['min','less',-1])
def test_a_direction_is_a_function(cls, comp):
    with pytest.raises(TypeError, match='pass np.less where lower is better'): cls(comp=comp)

def test_what_a_metric_of_ones_own_gives(clicked):
    def nothing(hits): return None
    def words(hits): return 'good'
    def as_tensor(hits): return torch.tensor(hits).float().mean(1)
    def as_number(hits): return torch.tensor(.5)
    for f in (nothing,words):
        with pytest.raises(ValueError, match=f"metric '{f.__name__}' gave .*expected one value for each user"): clicked.evaluate(metrics=f, k=5)
    ev = clicked.evaluate(metrics=[as_tensor,as_number,'precision@5'], k=5)
    assert ev['as_tensor@5']==pytest.approx(ev['precision@5']) and ev['as_number@5']==.5

def test_a_metric_of_ones_own_changes_no_other(clicked):
    def writes(hits):
        hits[:] = False
        return hits.mean(1)
    def writes_items(items):
        items[:] = 0
        return 0.
    for f in (writes,writes_items):
        with pytest.raises(ValueError, match='read-only'): clicked.evaluate(metrics=[f,'ndcg@5'], k=5)
