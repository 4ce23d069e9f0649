"The two notebooks in which fastai shows its collaborative filtering, in our own words: only the import differs"
import operator
from types import SimpleNamespace

import fastai.collab
import fastai.tabular.all
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from fastai.tabular.model import get_emb_sz
from fastcore.test import test_eq as check_eq

import recfast.all
from helpers import fit_one_cycle
from recfast.data.datasets import movie_night

BOTH = dict(fastai=fastai.collab, recfast=recfast.all)
RATINGS = movie_night()[['user_id','title','rating','timestamp']].query('user_id<150').reset_index(drop=True).rename(columns={'user_id': 'user'})

def each(f): return {name: f(lib) for name,lib in BOTH.items()}

def same(found, *args):
    "What both libraries gave is the same"
    assert found['recfast']==found['fastai'], (args, found)
    return found['recfast']

def loaders(lib, **kwargs): return lib.CollabDataLoaders.from_df(RATINGS, item_name='title', **{'seed': 42, 'bs': 64, **kwargs})


# the library's page: loaders

def test_columns_by_place_and_what_the_loaders_say():
    own = RATINGS.set_axis(['who','what','stars','when'], axis=1)
    def run(lib):
        dls = lib.CollabDataLoaders.from_df(own, bs=64, seed=1)
        x,y = dls.one_batch()
        return dict(classes={k: list(map(str, v)) for k,v in dls.classes.items()}, x=tuple(x.shape), y=tuple(y.shape), n=len(dls.valid_ds),
            names=(list(dls.cat_names),list(dls.y_names)), kinds=(x.dtype,y.dtype))
    same(each(run))

def test_a_file(tmp_path):
    RATINGS.to_csv(tmp_path/'ratings.csv', index=False)
    def run(lib):
        dls = lib.CollabDataLoaders.from_csv(tmp_path/'ratings.csv', bs=64, seed=1, valid_pct=.1)
        return len(dls.train_ds),len(dls.valid_ds),list(dls.classes)
    same(each(run))

KEYWORDS = [dict(bs=32), dict(val_bs=128), dict(val_shuffle=True), dict(val_shuffle=True, val_bs=16), dict(shuffle_train=False), dict(shuffle=False), dict(shuffle_train=True),
    dict(dl_kwargs=[{'bs': 16},{'bs': 8}]), dict(dl_kwargs=[{},{'shuffle': True}]), dict(drop_last=True), dict(device='cpu'), dict(path='models'), dict(num_workers=0), dict(pin_memory=False)]

@pytest.mark.parametrize('kw', KEYWORDS, ids=str)
@pytest.mark.filterwarnings('ignore:.*shuffle_train. is deprecated')
def test_every_keyword_of_the_builder(kw):
    def run(lib):
        dls = loaders(lib, **kw)
        return dict(bs=(dls.train.bs,dls.valid.bs), shuffle=(dls.train.shuffle,dls.valid.shuffle), path=str(dls.path), batches=len(dls.valid))
    same(each(run), kw)

@pytest.mark.parametrize('kw', [dict(val_shuffle=True), dict(dl_kwargs=[{},{'shuffle': True}])])
def test_validation_rows_in_another_order_are_the_same_rows(kw):
    plain,mixed = loaders(recfast.all),loaders(recfast.all, **kw)
    a,b = (torch.cat([x for x,_ in dls.valid]) for dls in (plain,mixed))
    assert not torch.equal(a, b) and sorted(a.tolist())==sorted(b.tolist())
    learn = recfast.all.collab_learner(mixed, 5)
    with learn.no_bar(): preds,_ = learn.get_preds()
    rows = mixed.valid_ds.frame()
    assert learn.predict(rows.user, rows.title)==pytest.approx(preds[:,0].double().numpy(), abs=1e-5)

def test_show_batch(capsys):
    each(lambda lib: loaders(lib).show_batch())
    assert capsys.readouterr().out.count('HTML object')==2

@pytest.mark.parametrize('kw', [dict(n=10), dict(dl_type=None), dict(splitter=None)])
def test_what_is_not_taken_is_named(kw):
    with pytest.raises(TypeError, match=next(iter(kw))): loaders(recfast.all, **kw)


# the library's page: models

@pytest.fixture(scope='module')
def learners():
    def run(lib):
        learn = lib.collab_learner(loaders(lib), n_factors=12, y_range=(0, 5.5))
        return fit_one_cycle(learn, 1, 5e-3, wd=0.1)
    return each(run)

def test_the_model_s_parts_and_output(learners):
    def run(learn):
        m = learn.model
        x = torch.tensor([[1,2],[3,4],[0,0]])
        return dict(parts={k: tuple(v.shape) for k,v in m.state_dict().items()}, numel=m(x).numel(), y_range=tuple(m.y_range), classes=list(m.classes),
            names=(m.user,m.item), loss=type(learn.loss_func).__name__)
    same({k: run(v) for k,v in learners.items()})

@pytest.mark.parametrize('n', [1,2,7])
@pytest.mark.parametrize('is_item', [True,False])
def test_biases_and_weights_have_fastai_s_shapes(learners, n, is_item):
    ids = list((RATINGS.title if is_item else RATINGS.user).unique()[:n])
    learners['recfast'].model.load_state_dict(learners['fastai'].model.state_dict())
    got = {k: (v.model.bias(ids, is_item=is_item),v.model.weight(ids, is_item=is_item)) for k,v in learners.items()}
    shapes = same({k: [tuple(o.shape) for o in v] for k,v in got.items()})
    assert shapes==[() if n==1 else (n,), (n,12)]
    for a,b in zip(*got.values()): torch.testing.assert_close(torch.as_tensor(a), torch.as_tensor(b), rtol=0, atol=0)

def test_one_bias_is_a_number(learners):
    def run(learn):
        b = learn.model.bias([RATINGS.title[0]])
        return b.ndim,isinstance(b.item(), float),f'{b:.0f}'.lstrip('-').isdigit()
    assert same({k: run(v) for k,v in learners.items()})==(0,True,True)

def test_an_id_that_was_not_in_training_is_a_key_error(learners):
    for learn in learners.values():
        with pytest.raises(KeyError): learn.model.bias(['nobody filmed this'])

def test_a_model_from_classes(learners):
    def run(lib):
        dls = loaders(lib)
        m = lib.EmbeddingDotBias.from_classes(6, dls.classes, y_range=(0,5))
        return {k: tuple(v.shape) for k,v in m.state_dict().items()},tuple(m.bias([RATINGS.title[0]]).shape)
    same(each(run))

def test_the_network():
    def run(lib):
        dls = loaders(lib)
        learn = fit_one_cycle(lib.collab_learner(dls, use_nn=True, emb_szs={'user': 8, 'title': 9}, layers=[16,8], y_range=(0,5.5)), 1)
        return {k: tuple(v.shape) for k,v in learn.model.state_dict().items()},get_emb_sz(dls, {'user': 8})
    same(each(run))

def test_a_configuration_of_the_network():
    def run(lib):
        config = fastai.tabular.all.tabular_config(ps=[.1], embed_p=.05)
        return [type(o).__name__ for o in lib.collab_learner(loaders(lib), use_nn=True, layers=[16], config=config).model.layers.modules()]
    same(each(run))

def test_the_page_s_checks_of_both_models():
    def run(lib):
        dls = loaders(lib)
        x,_ = dls.one_batch()
        dot = lib.EmbeddingDotBias(50, len(dls.classes['user']), len(dls.classes['title']), y_range=(0,5))
        named = lib.EmbeddingDotBias.from_classes(50, dls.classes, y_range=(0,5))
        net = lib.EmbeddingNN(get_emb_sz(dls.train_ds, {}), [50], y_range=(0,5))
        for m in (dot,named,net): assert (0<=m(x)).all() and (m(x)<=5).all() and m(x).numel()==64
        row = torch.tensor([42])
        film = [dls.classes['title'][42]]
        check_eq(named.weight(film), named.i_weight(row))
        check_eq(named.bias(film), named.i_bias(row))
        with pytest.raises((AssertionError,AttributeError)): dot.bias(film) # which was not told the names
        return get_emb_sz(dls.train_ds, {}),{k: tuple(v.shape) for k,v in net.state_dict().items()}
    same(each(run))

def test_the_page_s_learner_trains_with_its_defaults():
    def run(lib):
        learn = lib.collab_learner(loaders(lib), y_range=(0,5))
        fit_one_cycle(learn, 1, lr=None)
        return learn.recorder.metric_names[:3],len(learn.recorder.values),learn.lr,tuple(learn.model.u_weight.weight.shape)
    same(each(run))

STARS = ('pd np plt torch tensor itemgetter untar_data URLs Path tabular_config TabularModel TabularCollab MSELossFlat get_emb_sz CollabDataLoaders '
         'collab_learner EmbeddingDotBias EmbeddingNN range_of RandomSplitter').split()

@pytest.mark.parametrize('name', STARS)
def test_names_that_the_two_stars_bring(name):
    theirs = {**vars(fastai.tabular.all), **vars(fastai.collab)}
    assert name in theirs and hasattr(recfast.all, name)


# the tutorial

def test_its_two_files_make_its_table(tmp_path):
    RATINGS.assign(movie=RATINGS.title.factorize()[0]+1, rating=RATINGS.rating.round().astype(int))[['user','movie','rating','timestamp']].to_csv(tmp_path/'u.data', sep='\t', header=False, index=False)
    pd.DataFrame(dict(movie=range(1, 1+RATINGS.title.nunique()), title=RATINGS.title.unique(), x='01-Jan-1995')).to_csv(tmp_path/'u.item', sep='|', header=False, index=False, encoding='latin-1', errors='replace')
    def run(lib):
        df = pd.read_csv(tmp_path/'u.data', delimiter='\t', header=None, usecols=(0,1,2), names=['user','movie','rating'])
        movies = pd.read_csv(tmp_path/'u.item', delimiter='|', encoding='latin-1', usecols=(0,1), names=('movie','title'), header=None)
        df = df.merge(movies)
        dls = lib.CollabDataLoaders.from_df(df, item_name='title', bs=64, seed=3)
        dls.show_batch()
        x,y = dls.one_batch()
        return list(df),len(df),[o.dtype for o in (x,)],{k: len(v) for k,v in dls.classes.items()},tuple(y.shape)
    same(each(run))

def test_its_picture(tutorials, tmp_path):
    for name,t in tutorials.items():
        fac0,_,fac2 = t.pca.t()
        idxs = list(range(50))
        fig = plt.figure(figsize=(15,15))
        plt.scatter(fac0[idxs], fac2[idxs])
        for i,x,y in zip(RATINGS.title.unique()[idxs], fac0[idxs], fac2[idxs]): plt.text(x, y, i, color=np.random.rand(3)*.7, fontsize=11)
        assert len(fig.axes[0].texts)==50
        plt.close(fig)

def tutorial(lib):
    "What the tutorial looks at, after its training"
    dls = lib.CollabDataLoaders.from_df(RATINGS, item_name='title', bs=64)
    learn = lib.collab_learner(dls, n_factors=50, y_range=(0, 5.5))
    fit_one_cycle(learn, 1, 5e-3, wd=0.1)
    g = RATINGS.groupby('title')['rating'].count()
    top = g.sort_values(ascending=False).index.values[:100]
    bias = learn.model.bias(top, is_item=True)
    mean = RATINGS.groupby('title')['rating'].mean()
    rated = [(b, i, mean.loc[i]) for i,b in zip(top, bias)]
    worst,best = (sorted(rated, key=operator.itemgetter(0), reverse=o)[:15] for o in (False,True))
    w = learn.model.weight(top, is_item=True)
    pca = w.pca(3)
    fac0,fac1,_ = pca.t()
    comp = sorted(((f, i) for f,i in zip(fac0, top)), key=operator.itemgetter(0), reverse=True)[:10]
    xy = [(o.item(),p.item()) for o,p in zip(fac0.cpu().detach().numpy(), fac1.cpu().detach().numpy())]
    return SimpleNamespace(learn=learn, bias=bias, w=w, pca=pca, comp=comp, xy=xy, worst=worst, best=best)

@pytest.fixture(scope='module')
def tutorials(): return each(tutorial)

def test_the_tutorial_sees_the_same_shapes(tutorials):
    shapes = same({k: (tuple(t.bias.shape),tuple(t.w.shape),tuple(t.pca.shape),len(t.comp),len(t.xy)) for k,t in tutorials.items()})
    assert shapes==((100,),(100,50),(100,3),10,100)

@pytest.mark.parametrize('name', BOTH)
def test_its_rankings_are_rankings(tutorials, name):
    t = tutorials[name]
    assert [o[0].item() for o in t.best]==sorted((o[0].item() for o in t.best), reverse=True)
    assert np.mean([o[2] for o in t.best])>np.mean([o[2] for o in t.worst])+.5

def test_its_training_ends_where_fastai_s_does(tutorials):
    a,b = (tutorials[k].learn.recorder.values[-1][1] for k in ('fastai','recfast'))
    assert b<a+.05

def test_the_rest_of_a_learner_is_there(tutorials, tmp_path):
    def run(t):
        learn = t.learn
        learn.path = tmp_path
        with learn.no_bar(), learn.no_logging():
            found = dict(preds=len(learn.get_preds()[0]), lr=type(learn.lr_find(show_plot=False, num_it=5)).__name__, loss=len(learn.validate()))
            learn.save('here')
            learn.load('here')
            test = learn.dls.test_dl(RATINGS[:20])
            found['test'] = len(learn.get_preds(dl=test)[0])
        return found
    same({k: run(v) for k,v in tutorials.items()})
