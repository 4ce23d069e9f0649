"fastai's surface, one test each: what works on a `Learner` and its `DataLoaders` works on ours"
import pickle
import random
import warnings

import fastai.tabular.all as fastai_tabular # registers show_batch and the like, as a program would
import numpy as np
import pandas as pd
import pytest
import torch
from fastai.callback.core import Callback
from fastai.data.core import TfmdDL
from fastai.interpret import Interpretation
from fastai.learner import Learner, load_learner
from fastai.losses import MSELossFlat

from helpers import FRAME, fit_one_cycle, learner, loaders
from recfast.core import RatingsError, RecfastError
from recfast.data.loaders import CollabDataLoaders, RatingDL
from recfast.learner import CollabLearner, collab_learner
from recfast.metrics import rmse
from recfast.models.dot import DotProductBias
from recfast.models.params import DotProductParams

def weights(learn): return {k: v.clone() for k,v in learn.model.state_dict().items()}

def same(a, b): return a.keys()==b.keys() and all(torch.equal(a[k], b[k]) for k in a)

def by_hand(learn, ds):
    "The predictions of every row, without any loader"
    with torch.no_grad(): return learn.model.eval()(torch.stack([ds.users,ds.items], 1).long())

@pytest.fixture
def learn():
    learn = learner()
    learn.fit_one_cycle(1, 5e-3)
    return learn

# loaders

def test_the_classes_are_fastai_s():
    dls = loaders()
    assert isinstance(dls.train, TfmdDL) and isinstance(dls.valid, RatingDL) and isinstance(dls, fastai_tabular.DataLoaders)
    assert isinstance(learner(dls), CollabLearner) and issubclass(CollabLearner, Learner)

def test_names_that_fastai_s_functions_look_for():
    dls = loaders()
    assert list(dls.cat_names)==['user_id','item_id'] and list(dls.y_names)==['rating'] and dls.n_inp==1
    assert len(dls.train_ds)==800 and len(dls.valid_ds)==200
    assert list(dls.classes)==['user_id','item_id'] and dls.classes['item_id'][0]=='#na#' and len(dls.classes['item_id'])==41
    assert dls.classes['user_id'].o2i[7]==7

def test_get_emb_sz():
    assert fastai_tabular.get_emb_sz(loaders())==[(51,14),(41,13)] # fastai's rule, round(1.6*n**0.56): 14.47 and 12.80
    assert fastai_tabular.get_emb_sz(loaders(), {'item_id':3})[1]==(41,3)

def test_show_batch_shows_raw_ids(capsys):
    dls = loaders()
    dls.show_batch(max_n=3)
    df = dls.train.show_batch(max_n=3, show=False)[0]
    assert len(df)==3 and list(df)==['user_id','item_id','rating']
    assert len(df.merge(FRAME, on=['user_id','item_id','rating']))==3
    assert capsys.readouterr().out.count('HTML')==1

def test_show_batch_does_not_move_the_order():
    a,b = loaders(),loaders()
    a.show_batch(unique=True)
    assert torch.equal(a.one_batch()[0], b.one_batch()[0]) and torch.equal(next(iter(a.train))[0], next(iter(b.train))[0])

def test_pickle_goes_on_with_the_same_batches():
    dls = loaders()
    list(dls.train)
    dls.interactions('all').csr()
    again = pickle.loads(pickle.dumps(dls))
    for _ in range(2):
        for (x,y),(x2,y2) in zip(dls.train, again.train, strict=True): assert torch.equal(x, x2) and torch.equal(y, y2)
    assert again.report==dls.report and again.seed==42 and again.classes['user_id'].o2i[7]==7
    assert (again.interactions('all').csr()!=dls.interactions('all').csr()).nnz==0

def test_a_pickle_does_not_grow_with_what_was_looked_at():
    dls = loaders()
    size = len(pickle.dumps(dls))
    list(dls.train), list(dls.valid), dls.interactions('all'), dls.train_ds.csr()
    assert len(pickle.dumps(dls))==size

def test_new_empty_keeps_the_vocabulary():
    dls = loaders()
    empty = dls.new_empty()
    assert len(empty.train_ds)==len(empty.valid_ds)==len(empty.train)==0 and len(dls.train_ds)==800
    assert list(empty.classes['item_id'])==list(dls.classes['item_id'])
    assert torch.equal(empty.test_dl(FRAME[:9]).one_batch()[0], dls.test_dl(FRAME[:9]).one_batch()[0])

def test_cpu_and_to():
    dls = loaders().cpu()
    assert dls.device==torch.device('cpu') and dls.train.one_batch()[0].device.type=='cpu'
    assert dls.to('cpu') is dls

def test_new_with_another_batch_size_keeps_seed_and_epoch():
    dls = loaders()
    list(dls.train)
    new = dls.train.new(bs=100)
    assert len(new)==8 and torch.equal(torch.cat([x for x,_ in new]), torch.cat([x for x,_ in dls.train]))

def test_a_shuffled_copy_of_the_validation_rows():
    dls = loaders()
    got = torch.cat([x for x,_ in dls.valid.new(shuffle=True)])
    want = torch.cat([x for x,_ in dls.valid])
    assert not torch.equal(got, want) and sorted(got.tolist())==sorted(want.tolist())

# predictions

@pytest.mark.parametrize('ds_idx', [0,1])
def test_get_preds_in_the_order_of_the_dataset(learn, ds_idx):
    ds = learn.dls[ds_idx].dataset
    preds,y = learn.get_preds(ds_idx=ds_idx)
    torch.testing.assert_close(preds, by_hand(learn, ds))
    assert torch.equal(y[:,0], ds.values)

def test_get_preds_with_all_it_can_give(learn):
    ds = learn.dls.valid_ds
    x,preds,y,decoded,losses = learn.get_preds(with_input=True, with_decoded=True, with_loss=True)
    assert torch.equal(x, torch.stack([ds.users,ds.items], 1).long()) and torch.equal(preds, decoded)
    torch.testing.assert_close(losses, (preds-y).square()[:,0])

def test_get_preds_of_a_shuffled_loader_comes_back_in_order(learn):
    preds,y = learn.get_preds(dl=learn.dls.train)
    torch.testing.assert_close(preds, by_hand(learn, learn.dls.train_ds))

@pytest.mark.parametrize('n', [1,2,65,130])
@pytest.mark.parametrize('rating', [True,False])
def test_test_dl_in_the_frame_s_order(learn, n, rating):
    new = FRAME.sample(n, random_state=1)
    preds,y = learn.get_preds(dl=learn.dls.test_dl(new if rating else new.drop(columns='rating')))
    assert preds.shape==(n,1)
    np.testing.assert_allclose(preds[:,0], learn.predict(new.user_id, new.item_id), rtol=1e-5)
    if rating: assert y[:,0].tolist()==new.rating.tolist()
    else: assert y is None

def test_test_dl_without_labels_and_of_tuples(learn):
    assert len(learn.dls.test_dl(FRAME[:3], with_labels=False).one_batch())==1
    x,y = learn.dls.test_dl([(1,2,3.),(3,4,5.)]).one_batch()
    assert x.tolist()==[[1,2],[3,4]] and y.tolist()==[[3.],[5.]]
    assert learn.dls.test_dl([(1,2),(3,4)]).one_batch()[0].tolist()==[[1,2],[3,4]]

def test_validate_is_the_mean_over_the_rows(learn):
    loss,root = learn.validate()
    sq = (by_hand(learn, learn.dls.valid_ds)[:,0]-learn.dls.valid_ds.values).square().mean()
    assert loss==pytest.approx(sq.item(), rel=1e-5) and root==pytest.approx(sq.sqrt().item(), rel=1e-5)

def test_show_results(learn, capsys):
    learn.show_results(max_n=3)
    assert capsys.readouterr().out.count('HTML')==1
    b = learn.dls.valid.one_batch()
    df = learn.dls.valid.show_results(b, (by_hand(learn, learn.dls.valid_ds),), max_n=2, show=False)[1]
    assert df.rating_pred.tolist()==pytest.approx(learn.predict(df.user_id, df.item_id).tolist(), rel=1e-5)

# reading the Learner

@pytest.mark.parametrize('kw', [dict(), dict(arch=DotProductParams), dict(use_nn=True)])
def test_summary(kw):
    text = str(learner(**kw).summary())
    n = sum(p.numel() for p in learner(**kw).model.parameters())
    assert 'Callbacks:' in text and 'Input shape: 64 x 2' in text
    if 'arch' not in kw: assert f'Total params: {n:,}' in text # bare parameters have no layer, so fastai counts none

def test_interpretation(learn, capsys):
    interp = Interpretation.from_learner(learn)
    losses,idx,items = interp.top_losses(3, items=True)
    want = (by_hand(learn, learn.dls.valid_ds)[:,0]-learn.dls.valid_ds.values).square().sort(descending=True)
    torch.testing.assert_close(losses, want.values[:3])
    assert items.reset_index(drop=True).equals(learn.dls.valid_ds.frame().iloc[idx.tolist()].reset_index(drop=True))
    interp.show_results(idx)
    assert capsys.readouterr().out.count('HTML')==1
    interp.plot_top_losses(2)

def test_interpretation_of_rows_that_were_never_trained(capsys):
    cold = pd.DataFrame({'user_id':1, 'item_id':range(900,930), 'rating':1., 'timestamp':0})
    with pytest.warns(UserWarning, match='30 of 30'):
        dls = CollabDataLoaders.from_df(pd.concat([FRAME,cold], ignore_index=True), splits=(range(1000),range(1000,1030)), seed=1)
    interp = Interpretation.from_learner(learner(dls))
    assert set(interp.top_losses(2, items=True)[2].item_id)=={'#na#'}
    interp.plot_top_losses(1)
    interp.show_results([0,1])
    assert capsys.readouterr().out.count('HTML')==1

# saving

def test_export_and_load_learner(learn, tmp_path):
    learn.path = tmp_path
    new = FRAME[:70].drop(columns='rating')
    before,dls = learn.get_preds(dl=learn.dls.test_dl(new))[0],learn.dls
    learn.recommend(1)
    learn.export('exported.pkl')
    assert learn.dls is dls and len(learn.dls.train_ds)==800
    with pytest.warns(UserWarning, match='insecure pickle'): again = load_learner(tmp_path/'exported.pkl')
    assert torch.equal(again.get_preds(dl=again.dls.test_dl(new))[0], before)
    assert again.predict(7, 3)==pytest.approx(learn.predict(7, 3), rel=1e-6)

def test_an_exported_learner_says_that_it_has_no_interactions(learn, tmp_path):
    learn.path = tmp_path
    learn.recommend(7)
    learn.export()
    with pytest.warns(UserWarning, match='insecure pickle'): again = load_learner(tmp_path/'export.pkl')
    with pytest.raises(RecfastError, match='no interactions here'): again.recommend(7)
    with pytest.raises(RatingsError, match='no test rows'): again.evaluate()

def test_save_and_load(learn, tmp_path):
    learn.path = tmp_path
    learn.save('saved')
    again = learner()
    again.path = tmp_path
    assert not same(weights(again), weights(learn))
    again.load('saved')
    assert same(weights(again), weights(learn)) and again.opt.hypers[0]['lr']==learn.opt.hypers[0]['lr']

class SaveAt(Callback):
    "Weights and optimizer state after one epoch"
    order = 61
    def __init__(self, epoch): self.at = epoch
    def after_epoch(self):
        if self.epoch==self.at: self.learn.save('taken up', with_opt=True)

@pytest.mark.parametrize('fast', [True,False])
@pytest.mark.parametrize('kw', [dict(), dict(arch=DotProductParams), dict(use_nn=True, config={'ps':0.2})])
def test_a_run_taken_up_in_a_fresh_learner_ends_bit_equal(tmp_path, kw, fast):
    new = lambda: learner(loaders(path=tmp_path, device='cpu'), **kw)
    whole = new()
    whole.fit_one_cycle(4, 5e-3, wd=0.1, cbs=SaveAt(1), fast=fast)
    again = new().load('taken up')
    assert not same(weights(again), weights(whole))
    again.fit_one_cycle(4, 5e-3, wd=0.1, start_epoch=2, fast=fast)
    assert bool(again.fast)==fast and same(weights(again), weights(whole))
    assert again.recorder.values[-1][1:]==whole.recorder.values[-1][1:] # the smoothed training loss remembers, as fastai's does
    assert again.dls.train.epoch==whole.dls.train.epoch==4

@pytest.mark.parametrize('kw', [dict(), dict(use_nn=True, config={'ps':0.2})])
def test_two_fits_go_on_in_the_sequence(kw):
    once,twice = learner(**kw),learner(**kw)
    once.fit(2, 1e-2)
    for _ in range(2): twice.fit(1, 1e-2)
    assert same(weights(once), weights(twice)) and twice.dls.train.epoch==2

# lr_find

@pytest.mark.parametrize('kw', [dict(), dict(use_nn=True, config={'ps':0.2})])
def test_lr_find_leaves_no_trace(kw, tmp_path):
    a,b = (learner(loaders(path=tmp_path), **kw) for _ in range(2))
    lrs = a.lr_find(show_plot=False)
    assert 1e-7<lrs.valley<1 and same(weights(a), weights(b))
    assert list(tmp_path.glob('**/*.pth'))==[]
    for o in (a,b): o.fit_one_cycle(2, 5e-3)
    assert same(weights(a), weights(b)) and a.recorder.values==b.recorder.values

def test_lr_find_in_the_middle_of_a_run(tmp_path):
    a,b = (learner(loaders(path=tmp_path)) for _ in range(2))
    for o in (a,b): o.fit(1, 1e-2)
    a.lr_find(show_plot=False)
    for o in (a,b): o.fit(1, 1e-2)
    assert same(weights(a), weights(b))

# without validation rows

@pytest.mark.parametrize('bar', [True,False])
def test_no_validation_rows(bar, capsys):
    learn = learner(loaders(valid_pct=0), quiet=not bar)
    learn.fit_one_cycle(2, 5e-3)
    assert learn.recorder.values[-1][0]<learn.recorder.values[0][0] and learn.recorder.values[-1][1:]==[None,None]
    assert learn.get_preds(ds_idx=0)[0].shape==(1000,1) and len(learn.dls.valid)==0
    with pytest.raises(RatingsError, match='no test rows to evaluate on'): learn.evaluate()
    seen = FRAME[FRAME.user_id==7].item_id
    recs = learn.recommend(7, k=100)
    assert len(recs)==40-len(seen) and not recs.item_id.isin(seen).any()

def test_no_validation_rows_in_the_rest_of_the_surface(tmp_path):
    learn = learner(loaders(valid_pct=0, path=tmp_path))
    learn.lr_find(show_plot=False)
    learn.fit(1, 1e-2, fast=False)
    learn.export()
    pickle.loads(pickle.dumps(learn.dls))
    assert learn.get_preds(dl=learn.dls.test_dl(FRAME[:1]))[0].shape==(1,1)
    assert 'DotProductBias' in str(learn.summary()) and len(learn.dls.interactions('all'))==1000

# random state

def states():
    n = np.random.get_state()
    return torch.get_rng_state().tolist(),n[1].tolist(),n[2],random.getstate()

def test_the_caller_s_random_state_is_untouched(tmp_path):
    before,at = states(),{}
    dls = loaders(path=tmp_path)
    at['from_df'] = states()
    learn = learner(dls, use_nn=True, config={'ps':0.2}, seed=1)
    at['collab_learner'] = states()
    for fast in (True,False):
        learn.fit_one_cycle(1, 5e-3, fast=fast)
        at[f'fit {fast=}'] = states()
    for name in ('recommend','get_preds','validate','evaluate','similar_items','predict','show_results'):
        {'similar_items': lambda: learner(dls).similar_items(3), 'predict': lambda: learn.predict(1, 2)}.get(name, lambda: getattr(learn, name)())()
        at[name] = states()
    dls.one_batch(), dls.show_batch(), learn.recommend(history={3:5.})
    at['looking'] = states()
    assert [k for k,v in at.items() if v!=before]==[]

def test_weights_come_from_the_seed_and_not_from_the_caller_s_state():
    a = weights(learner())
    torch.manual_seed(123)
    assert same(a, weights(learner())) and same(a, weights(learner(seed=42))) and not same(a, weights(learner(seed=43)))

def test_without_a_seed_the_caller_s_state_decides():
    def run():
        torch.manual_seed(5)
        learn = learner(CollabDataLoaders.from_df(FRAME))
        learn.fit(1, 1e-2)
        return weights(learn)
    assert same(run(), run())

# a plain Learner

def test_a_plain_learner_trains():
    dls = loaders()
    learn = Learner(dls, DotProductBias(dls.n_users, dls.n_items, 5, (0,5.5)), loss_func=MSELossFlat(), metrics=rmse)
    fit_one_cycle(learn, 4, 5e-2)
    train = [v[0] for v in learn.recorder.values]
    assert train[-1]<train[0]/2 and learn.recorder.values[-1][2]<learn.recorder.values[0][2]

def test_a_plain_learner_and_ours_in_the_plain_loop_see_the_same_batches():
    dls,ours = loaders(),learner()
    plain = Learner(dls, learner().model, loss_func=MSELossFlat(), metrics=rmse)
    fit_one_cycle(plain, 2, 5e-3)
    ours.fit_one_cycle(2, 5e-3, fast=False)
    assert same(weights(plain), weights(ours)) and plain.recorder.values==ours.recorder.values

# a range

@pytest.mark.parametrize('y_range,config', [((0,4.5),None), ((1.5,6),None), (None,dict(y_range=(0,4)))])
def test_a_range_that_does_not_reach_the_ratings_is_said(y_range, config):
    with pytest.warns(UserWarning, match=r'does not reach the ratings, which go from 1 to 5'): collab_learner(loaders(), y_range=y_range, config=config)

@pytest.mark.parametrize('y_range', [None,(1,5),(0,5.5)])
def test_a_range_that_reaches_them_is_not(y_range):
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        collab_learner(loaders(), y_range=y_range)
