"The traps of fastai.collab, one by one: each is an error or a counted report here, never a wrong number"
import os

import numpy as np
import pandas as pd
import pytest
import torch
from fastai.torch_core import Module
from torch import nn

from helpers import FRAME, learner, loaders
from recfast.callbacks import EarlyStoppingCallback, ReduceLROnPlateau, SaveModelCallback
from recfast.core import RatingsError, RecfastError, UnknownIdError
from recfast.data.loaders import CollabDataLoaders
from recfast.metrics import metric_comp, rmse
from recfast.models.dot import DotProductBias
from recfast.models.params import DotProductParams
from recfast.testing import synth_ratings

def rows(dl): return torch.cat([torch.cat([x.float(),y], 1) for x,y in dl])

# 1. rows drawn with replacement

@pytest.mark.parametrize('bs', [1,7,64,800])
def test_1_an_epoch_holds_every_training_row_once(bs):
    dls = loaders(bs=bs)
    want = torch.stack([dls.train_ds.users,dls.train_ds.items], 1).tolist()
    assert sorted(rows(dls.train)[:,:2].int().tolist())==sorted(want)

def test_1_the_order_is_another_each_epoch_and_the_same_for_one_seed():
    a,b = loaders(),loaders()
    first,second = rows(a.train),rows(a.train)
    assert not torch.equal(first, second)
    assert torch.equal(first, rows(b.train)) and torch.equal(second, rows(b.train))
    assert not torch.equal(first, rows(loaders(seed=43).train))

def test_1_what_the_model_is_trained_on_is_every_row_once():
    dls = loaders(valid_pct=0, bs=100)
    learn,seen = learner(dls),[]
    hook = learn.model.register_forward_pre_hook(lambda m,x: seen.append(x[0].clone()))
    learn.fit(1, 0.)
    hook.remove()
    want = FRAME[['user_id','item_id']].to_numpy() # ids 1.. are their own rows
    assert sorted(torch.cat(seen).tolist())==sorted(want.tolist())

# 2. ids that only validation rows have

def test_2_cold_validation_rows_are_counted_at_build_time():
    df = pd.DataFrame({'user_id':[1,1,2,2,3,1], 'item_id':['a','b','a','b','a','z'], 'rating':4.})
    with pytest.warns(UserWarning, match='2 of 2 validation rows have a user or item without a training row'):
        dls = CollabDataLoaders.from_df(df, splits=([0,1,2,3],[4,5]), bs=2)
    assert dls.report['cold_rows']==2 and dls.report['cold_user_rows']==1 and dls.report['cold_item_rows']==1
    assert dls.valid_ds.users.tolist()==[0,1] and dls.valid_ds.items.tolist()==[1,0]

def test_2_a_sparse_table_reports_as_many_cold_rows_as_pandas_counts():
    df = synth_ratings(200, 200, density=0.01)
    with pytest.warns(UserWarning, match='see dls.report'): dls = CollabDataLoaders.from_df(df, seed=42)
    tr,va = (dls.interactions(o).frame() for o in ('train','valid'))
    valid = df[~df.set_index(['user_id','item_id']).index.isin(tr.set_index(['user_id','item_id']).index)]
    cold = ~valid.user_id.isin(tr.user_id) | ~valid.item_id.isin(tr.item_id)
    assert len(valid)==len(va) and dls.report['cold_rows']==cold.sum()>0

def test_2_row_0_is_no_candidate_and_no_user():
    dls = CollabDataLoaders.from_df(FRAME, splits=(np.flatnonzero(FRAME.item_id>5),np.flatnonzero(FRAME.item_id<=5)[:20]), seed=1)
    learn = learner(dls)
    learn.fit(1, 1e-2)
    recs = learn.recommend(k=100)
    assert recs.item_id.between(6,40).all() and set(recs.user_id)<=set(FRAME.user_id)
    with pytest.raises(UnknownIdError, match='unknown item id: 3'): learn.predict(1, 3)

# 3. int8 ratings and [B,1] against [B]

@pytest.mark.parametrize('dtype', ['int8','int64','float64','Int64','bool','object'])
def test_3_any_number_becomes_float32_of_shape_b_1(dtype):
    df = FRAME.assign(rating=FRAME.rating.round().astype(int).clip(0, 1 if dtype=='bool' else 5).astype(dtype))
    x,y = CollabDataLoaders.from_df(df, seed=42).one_batch()
    assert x.dtype==torch.int64 and x.shape==(64,2)
    assert y.dtype==torch.float32 and y.shape==(64,1)

class Flat(Module):
    "A user's model that returns [B]"
    def __init__(self, n_users, n_items, n_factors, y_range): self.m = DotProductBias(n_users, n_items, n_factors, y_range)
    def forward(self, x): return self.m(x)[:,0]

def test_3_a_model_that_returns_b_trains_as_one_that_returns_b_1():
    a,b = learner(arch=Flat, metrics=rmse),learner(arch=DotProductBias, metrics=rmse)
    for o in (a,b): o.fit(2, 1e-2, fast='exact') # a class of one's own has no compiled form
    assert torch.equal(a.model.m.i_weight.weight, b.model.i_weight.weight)
    assert a.recorder.values==b.recorder.values
    assert a.loss_func(torch.tensor([1.,2.]), torch.tensor([[1.],[4.]]))==2. # (0+4)/2; broadcast to [2,2] it were 3.5

def test_3_rmse_flattens_both_sides():
    learn = learner(arch=Flat, metrics=rmse)
    value = learn.validate()[1]
    preds,y = learn.get_preds()
    assert preds.ndim==1 and y.shape==(200,1)
    assert value==pytest.approx((preds-y[:,0]).square().mean().sqrt().item(), rel=1e-6)

# 4. fewer rows than bs

def test_4_fewer_training_rows_than_bs_is_an_error_that_names_both():
    with pytest.raises(RatingsError, match='bs=64, but only 32 training rows'): CollabDataLoaders.from_df(FRAME[:40], seed=1)
    assert len(CollabDataLoaders.from_df(FRAME[:40], seed=1, bs=32).train)==1

@pytest.mark.parametrize('kw', [dict(bs=0), dict(bs=-1), dict(val_bs=-1)])
def test_4_a_batch_size_below_one(kw):
    with pytest.raises(RatingsError, match='expected 1 or more'): loaders(**kw)

# 5. NaN ratings

@pytest.mark.parametrize('bad,what', [(np.nan,'missing ratings'), (np.inf,'not finite'), (1e39,'beyond float32')])
def test_5_a_rating_that_is_no_number(bad, what):
    df = FRAME.astype({'rating':'float64'})
    df.loc[7,'rating'] = bad
    with pytest.raises(RatingsError, match=what): CollabDataLoaders.from_df(df, seed=1)
    with pytest.raises(RatingsError, match=what): loaders().test_dl(df)

def test_5_a_model_whose_weights_are_nan_recommends_nothing():
    learn = learner()
    with torch.no_grad(): learn.model.i_weight.weight.fill_(float('nan'))
    with pytest.raises(RecfastError, match='the model scored NaN'): learn.recommend(1)

# 6. ids of another type, categories in another order

@pytest.mark.parametrize('train,ask', [(str,int), (int,str)])
def test_6_ids_of_another_type_are_unknown(train, ask):
    df = FRAME.assign(user_id=FRAME.user_id.map(train))
    learn = learner(CollabDataLoaders.from_df(df, seed=1))
    for verb in (lambda: learn.predict(ask(7), 3), lambda: learn.recommend(ask(7)), lambda: learn.dls.test_dl(df.assign(user_id=df.user_id.map(ask)))):
        with pytest.raises(UnknownIdError, match=f"unknown user id.*of type {'str' if train is str else 'int'}"): verb()

def test_6_a_categorical_column_of_other_categories_finds_the_right_rows():
    df = FRAME.assign(item_id=('film '+FRAME.item_id.astype(str)).astype('category'))
    dls = CollabDataLoaders.from_df(df, seed=1)
    few = df[df.item_id.isin(['film 9','film 30'])][:6]
    few = few.assign(item_id=few.item_id.cat.set_categories(['film 30','film 9']))
    got = dls.test_dl(few).one_batch()[0][:,1].tolist()
    assert got==[dls.classes['item_id'].o2i[o] for o in few.item_id]
    assert set(got)=={dls.classes['item_id'].o2i['film 9'], dls.classes['item_id'].o2i['film 30']}

def test_6_some_unknown_ids_are_named_in_a_warning():
    few = FRAME[:3].assign(user_id=[1,999,2])
    with pytest.warns(UserWarning, match='unknown user id: 999'): dl = loaders().test_dl(few)
    assert (dl.one_batch()[0][:,0]==0).tolist()==[False,True,False]
    with pytest.raises(UnknownIdError, match='999'): loaders().test_dl(few, on_unknown='raise')

def test_6_a_vocabulary_without_a_training_id():
    with pytest.raises(UnknownIdError, match='unknown user ids?:.*Add them to vocab='): loaders(vocab={'user_id':[1,2,3]})

# 7. predict, one row

def test_7_predict_gives_a_float_and_an_array_in_the_given_order():
    learn = learner()
    learn.fit(1, 1e-2)
    one = learn.predict(7, 3)
    assert isinstance(one, float)
    assert learn.predict([9,7], [4,3]).shape==(2,) and learn.predict([9,7], [4,3])[1]==pytest.approx(one, rel=1e-5)

def test_7_get_preds_of_one_row():
    learn = learner()
    preds,y = learn.get_preds(dl=learn.dls.test_dl(FRAME[:1]))
    assert preds.shape==(1,1) and y.item()==FRAME.rating[0]
    assert preds.item()==pytest.approx(learn.predict(FRAME.user_id[0], FRAME.item_id[0]), rel=1e-5)

# 8. the metric's name, direction and mean

def test_8_rmse_has_its_name_and_stands_in_the_log():
    learn = learner(metrics=rmse)
    learn.fit(1, 1e-2)
    assert list(learn.recorder.metric_names)==['epoch','train_loss','valid_loss','rmse','time']

def test_8_the_rmse_of_an_epoch_is_the_root_of_one_mean():
    learn = learner(loaders(val_bs=7), metrics=rmse) # 28 batches of 7 and one of 4
    learn.fit(1, 1e-2)
    value = learn.recorder.values[-1][2]
    preds,y = learn.get_preds()
    sq = (preds-y).square()[:,0]
    batchwise = torch.stack([b.mean().sqrt() for b in sq.split(7)]).mean().item()
    assert value==pytest.approx(sq.mean().sqrt().item(), rel=1e-6) and abs(value-batchwise)>1e-3

class Worse(Module):
    "Predicts 3, 4, 5, ...: one more after every training epoch, whatever it is taught"
    def __init__(self, n_users, n_items, n_factors, y_range):
        self.w = nn.Parameter(torch.zeros(1))
        self.register_buffer('level', torch.tensor(2.))
    def forward(self, x): return self.level + 0*self.w.expand(len(x))
    def train(self, mode=True):
        if mode and hasattr(self, 'level') and not self.training: self.level += 1
        return super().train(mode)

def worse(cbs):
    learn = learner(arch=Worse, metrics=rmse)
    learn.model.eval()
    learn.fit(6, 1e-2, cbs=cbs)
    return learn

def test_8_early_stopping_stops_when_the_rmse_rises(capsys):
    learn = worse(EarlyStoppingCallback(monitor='rmse', patience=2))
    values = [v[2] for v in learn.recorder.values]
    assert values==sorted(values) and len(values)==3 # the first was best, then two of patience

def test_8_save_model_keeps_the_lowest_rmse(tmp_path, capsys):
    learn = learner(loaders(path=tmp_path), arch=Worse, metrics=rmse)
    learn.model.eval()
    learn.fit(3, 1e-2, cbs=SaveModelCallback(monitor='rmse'))
    assert learn.model.level==3 and 'epoch 0 with rmse' in capsys.readouterr().out

def test_8_reduce_lr_divides_when_the_rmse_rises():
    learn = learner(arch=Worse, metrics=rmse)
    learn.model.eval()
    learn.fit(3, 1e-2, cbs=ReduceLROnPlateau(monitor='rmse', patience=1))
    assert learn.opt.hypers[-1]['lr']==pytest.approx(1e-4)

def test_8_a_direction_given_by_the_caller_stands():
    learn = worse(EarlyStoppingCallback(monitor='rmse', comp=np.greater, patience=1))
    assert len(learn.recorder.values)==6

@pytest.mark.parametrize('name,comp', [('rmse',np.less), ('mae',np.less), ('valid_loss',np.less), ('train_loss',np.less), ('ndcg@10',np.greater), ('recall@5',np.greater)])
def test_8_direction_by_name(name, comp): assert metric_comp(name) is comp

# 9. the name of a parameter decides about weight decay

def zero(pred, y): return 0*pred.sum()

@pytest.mark.parametrize('fast', [True,False])
@pytest.mark.parametrize('arch', [DotProductBias,DotProductParams])
def test_9_every_table_is_decayed_in_both_models(arch, fast):
    learn = learner(arch=arch, loss_func=zero, y_range=None)
    before = {k: v.clone() for k,v in learn.model.state_dict().items()}
    learn.fit(1, 0.1, wd=0.1, fast=fast) # no gradient: 13 steps of w *= 1-0.1*0.1
    assert bool(learn.fast)==fast and len(learn.dls.train)==13
    for k,v in learn.model.state_dict().items(): torch.testing.assert_close(v, before[k]*0.99**13, rtol=1e-5, atol=1e-8)

def test_9_both_models_have_the_same_names():
    names = [{n.removesuffix('.weight') for n,_ in arch(3, 4, 2).named_parameters()} for arch in (DotProductBias,DotProductParams)]
    assert names[0]==names[1]=={'u_weight','i_weight','u_bias','i_bias'}

# 10. what is given is not changed

def test_10_config_and_layers_are_not_written_into():
    config,layers,emb = {'ps':0.1},[10],{'item_id':3}
    learn = learner(use_nn=True, config=config, layers=layers, emb_szs=emb)
    assert config=={'ps':0.1} and layers==[10] and emb=={'item_id':3}
    assert learn.model.embeds[1].weight.shape==(41,3)

@pytest.mark.parametrize('training', [True,False])
def test_10_bias_and_weight_leave_the_model_as_it_was(training):
    learn = learner()
    learn.model.train(training)
    before = learn.model.i_bias.weight.clone()
    b,w = learn.model.bias([3,4]),learn.model.weight([3,4])
    b += 1
    w += 1
    assert all(m.training==training for m in learn.model.modules()) and torch.equal(learn.model.i_bias.weight, before)
    assert b.device.type=='cpu' and not b.requires_grad and next(learn.model.parameters()).device==learn.dls.device

@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
def test_10_bias_and_weight_leave_the_model_on_the_gpu():
    model = DotProductBias(5, 6, 3).cuda().set_classes(loaders().classes)
    assert model.bias([1]).device.type==model.weight([1]).device.type=='cpu' and next(model.parameters()).is_cuda

# 11. loading a file runs nothing in it

class Touch:
    "Unpickled, it makes a file"
    def __init__(self, path): self.path = path
    def __reduce__(self): return os.mkdir,(str(self.path),)

@pytest.mark.parametrize('wrap', [lambda t: t, lambda t: {'model':t,'opt':t}, lambda t: {'i_weight.weight':t}])
def test_11_load_executes_nothing_from_a_file(tmp_path, wrap):
    learn = learner(loaders(path=tmp_path))
    (tmp_path/'models').mkdir()
    torch.save(wrap(Touch(tmp_path/'touched')), tmp_path/'models'/'evil.pth')
    with pytest.raises(Exception, match='(?i)weights.only'): learn.load('evil')
    assert not (tmp_path/'touched').exists()

def test_11_the_file_above_would_have_done_harm(tmp_path):
    torch.save(Touch(tmp_path/'touched'), tmp_path/'evil.pth')
    torch.load(tmp_path/'evil.pth', weights_only=False)
    assert (tmp_path/'touched').exists()

class Swap(SaveModelCallback):
    "Saves like its parent; then somebody swaps the file"
    def _save(self, name):
        super()._save(name)
        torch.save(Touch(self.learn.path/'touched'), self.last_saved_path)

def test_11_save_model_callback_executes_nothing_when_it_reads_back(tmp_path, capsys):
    learn = learner(loaders(path=tmp_path), metrics=rmse)
    with pytest.raises(Exception, match='(?i)weights.only'): learn.fit(1, 1e-2, cbs=Swap(monitor='rmse'))
    assert not (tmp_path/'touched').exists()

@pytest.mark.parametrize('with_opt', [True,False])
def test_11_save_model_callback_reads_back_what_it_saved(tmp_path, capsys, with_opt):
    learn = learner(loaders(path=tmp_path), metrics=rmse)
    learn.fit(2, 1e-2, cbs=SaveModelCallback(monitor='rmse', with_opt=with_opt))
    best = min(v[2] for v in learn.recorder.values)
    preds,y = learn.get_preds()
    assert (preds-y).square().mean().sqrt().item()==pytest.approx(best, rel=1e-6)

# 12. keywords that nobody reads

@pytest.mark.parametrize('wrong,near', [('splitter','splits'), ('val_batch_size','val_bs'), ('rating','rating_name'), ('valid_pc','valid_pct')])
def test_12_an_unknown_keyword_names_the_nearest(wrong, near):
    with pytest.raises(TypeError, match=f"unexpected keyword '{wrong}'.*did you mean '{near}'"): loaders(**{wrong:1})

def test_12_a_keyword_like_no_other_is_refused_all_the_same():
    with pytest.raises(TypeError, match="unexpected keyword 'zzz'$"): loaders(zzz=1)

def test_12_use_nn_together_with_arch():
    with pytest.raises(TypeError, match='use_nn=True or arch='): learner(use_nn=True, arch=DotProductBias)

@pytest.mark.parametrize('name,says', [('ease', 'Pass arch=EASE, from recfast.models.ease'), ('DotProductBais', 'Pass arch=DotProductBias, from recfast.models.dot'),
                                       ('xgboost', 'Registered are .*DotProductBias.*EASE')])
def test_a_name_where_a_class_is_expected(name, says):
    with pytest.raises(TypeError, match=f"arch='{name}' is text, expected a class. {says}"): learner(arch=name)

def test_12_collab_learner_refuses_what_the_learner_does_not_know():
    with pytest.raises(TypeError, match='metric_'): learner(metric_=rmse)
