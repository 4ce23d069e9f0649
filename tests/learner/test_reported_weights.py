"Weights never part from the ids they belong to, whichever way they come to other rows"
import io
import pickle
import warnings
from copy import deepcopy
from functools import cache

import numpy as np
import pandas as pd
import pytest
import torch
from fastai.callback.tracker import SaveModelCallback as FastaiSaves
from fastai.data.core import DataLoaders
from fastai.interpret import Interpretation
from fastai.learner import Learner, load_learner
from fastai.losses import MSELossFlat
from torch import nn

from helpers import ALL, fit, learner_of, without_progress
from recfast.bundle import load_bundle
from recfast.callbacks import SaveModelCallback
from recfast.core import RatingsError
from recfast.data.datasets import movie_night
from recfast.data.loaders import CollabDataLoaders
from recfast.evaluate import evaluate_recommender
from recfast.interpret import bias_table, item_factors, plot_bias, plot_factors
from recfast.learner import collab_learner
from recfast.losses import BCE, SampledSoftmaxLoss, SoftmaxLoss
from recfast.models.base import MODELS
from recfast.models.dot import DotProductBias, EmbeddingDotBias
from recfast.models.ials import IALS
from recfast.models.ids import ids_of
from recfast.models.linear import EASE
from recfast.models.ncf import GMF, MLP, NeuMF
from recfast.models.sequence import SASRec
from recfast.recommend import Recommender
from recfast.testing import synth_ratings

FRAME = synth_ratings(n_users=30, n_items=20)
CATEGORIES = [f'f{k}' for k in range(20,0,-1)] # not the order of the alphabet

def named(df=FRAME, categories=None):
    "The frame with films for items, in the order of `categories`"
    films = 'f'+df.item_id.astype(str)
    return df.assign(item_id=films if categories is None else pd.Categorical(films, categories=categories, ordered=True))

OTHERS = { # what may have happened to the table since
    'a user gone and another come': FRAME.assign(user_id=FRAME.user_id.replace(3, 600)),
    'a user more': pd.concat([FRAME, FRAME[:4].assign(user_id=600)], ignore_index=True),
    'fewer users': FRAME[FRAME.user_id>10],
    'an item more': pd.concat([FRAME, FRAME[:4].assign(item_id=600)], ignore_index=True),
    'fewer items': FRAME[FRAME.item_id>5],
    'ids as text': FRAME.astype({'user_id': str, 'item_id': str}),
    'users and items exchanged': FRAME.rename(columns=dict(user_id='item_id', item_id='user_id')),
}
other = pytest.mark.parametrize('df', OTHERS)

@cache
def changed(name): return loaders(OTHERS[name])

def loaders(df=FRAME, **kwargs):
    "Loaders of a frame, or of one of `OTHERS` by its name"
    if isinstance(df, str): return changed(df)
    return CollabDataLoaders.from_df(df, **{'bs': 32, 'seed': 1, 'valid_pct': .1, **kwargs})
def learner(df=FRAME, n_factors=4, **kwargs):
    dls = df if isinstance(df, CollabDataLoaders) else loaders(df)
    return without_progress(collab_learner(dls, n_factors, y_range=(0,5.5), **kwargs))

OLD = fit(learner(), 2, 1e-2)
SAVED = io.BytesIO()
OLD.save(SAVED)

def load(learn, **kwargs):
    SAVED.seek(0)
    return learn.load(SAVED, **kwargs)

def untouched(learn, door):
    "`door` is refused and changes no weight"
    before = {k: v.clone() for k,v in learn.model.state_dict().items()}
    with pytest.raises(RatingsError, match='ids than|was made with n_'): door()
    assert all(torch.equal(v, before[k]) for k,v in learn.model.state_dict().items())

# every door, every change

@other
def test_a_file_of_other_ids_is_not_read(df):
    learn = learner(df)
    untouched(learn, lambda: load(learn))
    untouched(learn, lambda: load(learn, with_opt=False))
    untouched(learn, lambda: load(learn, strict=False))

@other
def test_a_built_model_is_not_put_on_other_ids(df): untouched(OLD, lambda: learner(df, arch=OLD.model))

@other
def test_other_loaders_are_no_loaders_of_a_learner(df):
    dls = OLD.dls
    untouched(OLD, lambda: setattr(OLD, 'dls', loaders(df)))
    untouched(OLD, lambda: setattr(OLD, 'dls', DataLoaders(*loaders(df).loaders)))
    assert OLD.dls is dls and OLD.predict(1, 2)==OLD.predict(1, 2)

@other
def test_a_model_of_other_ids_is_no_model_of_a_learner(df):
    learn = learner(df)
    model = learn.model
    untouched(learn, lambda: setattr(learn, 'model', OLD.model))
    assert learn.model is model

@other
def test_a_loader_of_other_ids_is_not_predicted(df):
    dls = loaders(df)
    untouched(OLD, lambda: OLD.get_preds(dl=dls.valid))
    untouched(OLD, lambda: OLD.validate(dl=dls.valid))
    untouched(OLD, lambda: OLD.show_results(dl=dls.valid))
    untouched(OLD, lambda: OLD.get_preds(dl=dls.test_dl(dls.valid_ds.frame()[:3])))
    untouched(OLD, lambda: Interpretation.from_learner(OLD, dl=dls.valid))

@other
def test_a_recommender_and_an_evaluation_are_of_one_table(df):
    train,valid = (loaders(df).interactions(o) for o in ('train','valid'))
    untouched(OLD, lambda: Recommender(OLD.model, train, train))
    untouched(OLD, lambda: evaluate_recommender(OLD.model, train, valid))
    for table in (bias_table,item_factors,plot_bias,plot_factors): untouched(OLD, lambda: table(OLD.model, train))

@other
def test_parts_of_other_ids_make_no_neumf(df):
    gmf,mlp = learner(arch=GMF).model,learner(df, arch=MLP).model
    with pytest.raises(ValueError, match='ids than the GMF|train both on the same loaders'): NeuMF.from_pretrained(gmf, mlp)

@other
def test_the_model_of_a_bundle_is_that_of_its_ids(df, tmp_path):
    rec = load_bundle(OLD.save_bundle(tmp_path/'b'))
    with pytest.raises(RatingsError, match='ids than these loaders'): learner(df, arch=rec.model)
    assert learner(arch=rec.model).predict(1, 2)==pytest.approx(OLD.predict(1, 2))

def test_trackers_read_their_own_file(tmp_path):
    for tracker in (SaveModelCallback,FastaiSaves):
        learn = fit(learner(), 2, 1e-2, cbs=tracker(monitor='valid_loss'))
        best = min(o[1] for o in learn.recorder.values)
        assert learn.validate()[0]==pytest.approx(best, abs=1e-6)

@pytest.mark.parametrize('tracker', [SaveModelCallback,FastaiSaves])
def test_a_tracker_does_not_load_what_another_learner_wrote(tracker, tmp_path):
    learn = learner(path=tmp_path)
    cb = tracker(monitor='valid_loss', fname='best')
    cb._save = lambda name: setattr(cb, 'last_saved_path', name)
    learner(OTHERS['a user gone and another come'], path=tmp_path).save('best')
    with pytest.raises(RatingsError, match="'best' has rows for other user ids"): fit(learn, 1, cbs=cb)

# what was reported

def film_learner(df, **kwargs):
    dls = CollabDataLoaders.from_df(df, item_name='title', seed=1, bs=256, valid_pct=0)
    return without_progress(collab_learner(dls, 20, y_range=(0,5.5), **kwargs))

def test_a_table_without_user_3_and_with_user_600(tmp_path):
    r = movie_night()
    old,new = film_learner(r[r.user_id!=600], path=tmp_path),film_learner(r[r.user_id!=3], path=tmp_path)
    fit(old, 1, 1e-2)
    old.save('yesterday')
    with pytest.raises(RatingsError, match="'yesterday' has rows for other user ids .*3 not in these loaders.* 600 only in these loaders"): new.load('yesterday')

def test_the_model_of_all_users_on_a_part_of_them():
    df = movie_night()
    with pytest.raises(RatingsError, match='1, 2, 3, 4, 5 .* not in these loaders.*vocab='):
        film_learner(df[df.user_id>100], arch=film_learner(df).model)

# what is right goes through

def test_the_ids_of_then_are_those_of_the_next_loaders():
    part = FRAME[FRAME.user_id>10]
    dls = loaders(part, vocab=OLD.dls.classes)
    for learn in (learner(dls, arch=OLD.model),load(learner(dls))):
        assert np.array_equal(learn.predict(part.user_id, part.item_id), OLD.predict(part.user_id, part.item_id))
    moved = fit(load(learner()), 1, 1e-2)
    moved.dls = dls
    assert len(fit(moved, 1, 1e-2).recorder.values)==1 and set(moved.recommend(20, k=30, exclude_seen=False).item_id)<=set(part.item_id)

@pytest.mark.parametrize('dtype', ['int32','uint8','float64','Int64'])
def test_the_same_ids_in_another_type_are_the_same(dtype):
    df = FRAME.astype({'user_id': dtype, 'item_id': dtype})
    assert load(learner(df)).predict(3, 4)==OLD.predict(3, 4)==learner(df, arch=OLD.model).predict(3, 4)

def test_rows_in_another_order_make_the_same_ids():
    shuffled = FRAME.sample(frac=1, random_state=0).reset_index(drop=True)
    assert load(learner(loaders(shuffled, vocab='all'))).predict(3, 4)==OLD.predict(3, 4)

MOVED = 'dotproductbias','dotproduct','embeddingnn','gmf','mlp','neumf','dotproductparams'
def in_order(name, categories):
    return without_progress(collab_learner(loaders(named(categories=categories)), 4, y_range=(0,5.5), arch=ALL[name][0]))

@pytest.mark.parametrize('name', MOVED)
def test_rows_in_another_order_are_moved_with_their_optimizer(name, tmp_path):
    old,new = in_order(name, None),in_order(name, CATEGORIES)
    assert list(old.dls.classes['item_id'])!=list(new.dls.classes['item_id'])
    fit(old, 2, 1e-2)
    old.save(tmp_path/'then')
    new.load(tmp_path/'then')
    df = named()
    assert np.allclose(new.predict(df.user_id, df.item_id), old.predict(df.user_id, df.item_id), atol=1e-6)
    opt = [torch.cat([s['grad_avg'].abs().sum()[None] for s in o.opt.state_dict()['state'] if 'grad_avg' in s]) for o in (old,new)]
    assert torch.allclose(*opt)
    new.save(tmp_path/'back')
    back = in_order(name, None).load(tmp_path/'back')
    for a,b in zip(old.opt.state_dict()['state'], back.opt.state_dict()['state']): assert all(torch.equal(torch.as_tensor(a[k]), torch.as_tensor(b[k])) for k in a)
    assert all(torch.equal(v, back.model.state_dict()[k]) for k,v in old.model.state_dict().items())

def test_ids_in_an_order_of_their_own_stay_in_it():
    old = in_order('dotproductbias', CATEGORIES)
    part = named()[FRAME.user_id>10].reset_index(drop=True)
    dls = loaders(part, vocab=old.dls.classes)
    for learn in (learner(dls, arch=old.model),learner(dls)):
        if learn.model is not old.model: learn.model = deepcopy(old.model)
        assert np.array_equal(learn.predict(part.user_id, part.item_id), old.predict(part.user_id, part.item_id))

@pytest.mark.parametrize('name', ['ease','ials','itemknn','popularity'])
def test_rows_that_cannot_be_moved_are_refused(name, tmp_path):
    old,new = in_order(name, None),in_order(name, CATEGORIES)
    fit(old, 1)
    old.save(file:=tmp_path/'then', with_opt=False)
    with pytest.raises(RatingsError, match='same item ids in another order.*cannot be moved'): new.load(file, with_opt=False)
    assert all(not b.numel() or torch.isfinite(b.float()).all() for b in new.model.buffers())
    with pytest.raises(RatingsError, match='same item ids in another order'): collab_learner(new.dls, arch=old.model)

# models that have rows of one side only

@pytest.mark.parametrize('name', ['ease','itemknn','popularity','nextitem','sasrec'])
def test_a_model_without_rows_of_users_goes_on_with_other_people(name, tmp_path):
    old = learner_of(name, FRAME, bs=16)
    fit(old, 1)
    people = FRAME.assign(user_id=FRAME.user_id+100)
    fresh = learner_of(name, people, bs=16)
    assert fresh.dls.n_items==old.dls.n_items
    old.save(tmp_path/'w')
    fresh.load(tmp_path/'w')
    rec = [o.recommend(o.dls.classes['user_id'][5], k=5).item_id.tolist() for o in (old,fresh)]
    assert rec[0]==rec[1]==learner_of(name, FRAME, bs=16).load(tmp_path/'w').recommend(5, k=5).item_id.tolist()
    old.dls = fresh.dls
    assert old.recommend(105, k=5).item_id.tolist()==rec[0]
    with pytest.raises(RatingsError, match='other item ids'): old.dls = learner_of(name, FRAME.assign(item_id=FRAME.item_id+100), bs=16).dls

def test_rows_are_read_anew_from_new_loaders():
    "What scores from the rows of training gets those of now"
    learn = fit(learner(arch=EASE), 1)
    half = loaders(FRAME[::2].reset_index(drop=True), vocab=learn.dls.classes)
    learn.dls = half
    fresh = learner(half, arch=deepcopy(learn.model))
    pd.testing.assert_frame_equal(learn.recommend([1,2], k=4), fresh.recommend([1,2], k=4))

def test_a_loss_looks_at_new_loaders_too():
    clicks = [CollabDataLoaders.implicit_from_df(df, bs=16, seed=1, n_neg=0, valid_pct=0, vocab={'item_id': range(1,21), 'user_id': range(1,31)})
              for df in (FRAME, FRAME[FRAME.item_id>5].reset_index(drop=True))]
    learn = collab_learner(clicks[0], 4, loss_func=SoftmaxLoss(.5))
    learn.dls = clicks[1]
    assert learn.loss_func.trained.tolist()==[False]*6+[True]*15 and learn.loss_func.temperature==.5

# fastai's surface

def test_fastai_reads_the_file_and_the_learner_reads_fastai(tmp_path):
    plain = Learner(OLD.dls, deepcopy(OLD.model), loss_func=MSELossFlat(), path=tmp_path)
    with torch.no_grad(): plain.model.u_weight.weight.zero_()
    SAVED.seek(0)
    plain.load(SAVED)
    assert torch.equal(plain.model.u_weight.weight, OLD.model.u_weight.weight)
    plain.save('plain')
    learn = learner(path=tmp_path)
    with pytest.warns(UserWarning, match="'plain' does not say whose rows it holds") as said: assert learn.load('plain') is learn
    assert len([o for o in said if 'whose rows' in str(o.message)])==1 and learn.predict(1, 2)==OLD.predict(1, 2)
    with warnings.catch_warnings():
        warnings.simplefilter('error', UserWarning)
        learn.load('plain') # said once

def test_raw_weights_are_those_of_torch():
    "`load_state_dict` compares sizes only, as the page says"
    state = OLD.model.state_dict()
    assert 'ids' not in state._metadata[''] and not OLD.model._state_dict_hooks and not OLD.model._load_state_dict_pre_hooks
    learner(OTHERS['a user gone and another come']).model.load_state_dict(state)

@pytest.mark.parametrize('kwargs', [dict(), dict(with_opt=False), dict(_use_new_zipfile_serialization=False)], ids=str)
def test_arguments_of_save_and_load(kwargs, tmp_path):
    path = OLD.save(tmp_path/'w', **kwargs)
    with_opt = kwargs.get('with_opt', True)
    learn = learner()
    assert path==tmp_path/'w.pth' and learn.load(tmp_path/'w', device='cpu', with_opt=with_opt, strict=True, weights_only=True) is learn
    assert learn.predict(1, 2)==OLD.predict(1, 2)
    with pytest.raises(RatingsError, match='other user ids'): learner(OTHERS['fewer users']).load(tmp_path/'w')

def test_an_exported_learner_knows_its_ids(tmp_path):
    learn = collab_learner(loaders(), 4, y_range=(0,5.5), path=tmp_path)
    fit(learn, 1)
    before = learn.evaluate(k=3)
    learn.export('e.pkl')
    assert learn.last_evaluation is before
    back = load_learner(tmp_path/'e.pkl')
    assert ids_of(back.model)[0] is back.dls.classes['user_id']
    untouched(back, lambda: setattr(back, 'dls', loaders(OTHERS['a user gone and another come'])))
    back.dls = loaders()
    assert back.recommend(1, k=3).item_id.tolist()==learn.recommend(1, k=3).item_id.tolist()
    again = pickle.loads(pickle.dumps(learn))
    assert again.predict(1, 2)==learn.predict(1, 2) and again.dls.classes==learn.dls.classes

def test_a_learner_pickled_before_models_knew_their_ids():
    learn = learner()
    del vars(learn.model)['_ids'], learn.model.classes
    untouched(learn, lambda: setattr(learn, 'dls', loaders(OTHERS['a user gone and another come'])))
    learn.dls = loaders(vocab=learn.dls.classes)

# neighbours

def test_a_model_made_for_another_number_of_rows():
    for n_users,n_items in ((10,21),(31,10),(40,21)):
        with pytest.raises(RatingsError, match='was made with n_(user|item)s=.*dls.n_users'): learner(arch=DotProductBias(n_users, n_items, 3))
    assert len(fit(learner(arch=DotProductBias(31, 21, 3)), 1).recorder.values)==1

def test_fastai_models_made_from_classes():
    theirs = EmbeddingDotBias.from_classes(4, loaders(OTHERS['fewer users']).classes)
    with pytest.raises(RatingsError, match='other user ids'): learner(arch=theirs)
    assert learner(arch=EmbeddingDotBias.from_classes(4, loaders().classes)).predict(1, 2)

class Both(nn.Module):
    "Two trained models in one"
    def __init__(self, *models):
        super().__init__()
        self.models = nn.ModuleList(models)
    def forward(self, x): return sum(m(x) for m in self.models)/len(self.models)

@other
def test_a_model_made_of_trained_ones(df):
    assert learner(arch=Both(OLD.model, learner().model)).predict(1, 2)
    with pytest.raises(RatingsError, match='ids than these loaders'): learner(arch=Both(OLD.model, learner(df).model))

def test_handmade_models_remember_too():
    class Mine(nn.Module):
        def __init__(self, n_users, n_items, n_factors, y_range):
            super().__init__()
            self.u,self.i = nn.Embedding(n_users, n_factors),nn.Embedding(n_items, n_factors)
        def forward(self, x): return (self.u(x[:,0])*self.i(x[:,1])).sum(1)
    learn = fit(learner(arch=Mine), 1)
    untouched(learn, lambda: learner(OTHERS['a user gone and another come'], arch=learn.model))
    untouched(learn, lambda: learner(OTHERS['a user gone and another come'], arch=deepcopy(learn.model)))

def test_neumf_of_parts_comes_back_from_a_bundle(tmp_path):
    dls = CollabDataLoaders.implicit_from_df(FRAME, bs=32, seed=1)
    gmf,mlp = (fit(without_progress(collab_learner(dls, k, arch=a, loss_func=BCE())), 1) for a,k in ((GMF,3),(MLP,5)))
    both = without_progress(collab_learner(dls, arch=NeuMF.from_pretrained(gmf.model, mlp.model), loss_func=BCE()))
    back = load_bundle(both.save_bundle(tmp_path/'b'))
    assert back.predict([1,2], [3,4]).tolist()==pytest.approx(both.predict([1,2], [3,4]).tolist())

@pytest.mark.parametrize('name', MODELS)
def test_every_model_is_saved_and_loaded_by_its_ids(name, tmp_path):
    old = fit(learner_of(name, FRAME, bs=16), 1)
    old.save(file:=tmp_path/'w', with_opt=False)
    with warnings.catch_warnings():
        warnings.simplefilter('error', UserWarning)
        assert learner_of(name, FRAME, bs=16).load(file, with_opt=False).predict(3, 4)==pytest.approx(old.predict(3, 4), abs=1e-6)
    side = 'item_id' if name!='autorec' else 'user_id'
    with pytest.raises(RatingsError, match='other (item|user) ids'): learner_of(name, FRAME.assign(**{side: FRAME[side]+100}), bs=16).load(file, with_opt=False)

def test_sampled_losses_keep_their_shares():
    clicks = CollabDataLoaders.implicit_from_df(FRAME, bs=32, seed=1, n_neg=2, alpha=1.)
    learn = collab_learner(clicks, 4, loss_func=SampledSoftmaxLoss())
    shares = learn.loss_func.item_t
    learn.dls = CollabDataLoaders.implicit_from_df(FRAME[::2].reset_index(drop=True), bs=32, seed=1, n_neg=2, alpha=1., vocab=clicks.classes)
    assert not torch.equal(shares, learn.loss_func.item_t)

def test_ids_of_ials_stay_on_both_sides(tmp_path):
    old = fit(learner(arch=IALS), 1)
    old.save(file:=tmp_path/'w', with_opt=False)
    with pytest.raises(RatingsError, match='other user ids'): learner(OTHERS['a user gone and another come'], arch=IALS).load(file)

def test_sasrec_meets_other_items():
    old = learner_of('sasrec', FRAME, bs=16)
    assert isinstance(old.model, SASRec)
    with pytest.raises(RatingsError, match='other item ids'): collab_learner(learner_of('sasrec', OTHERS['an item more'], bs=16).dls, arch=old.model)
