"Read-outs: tables, principal components and maps"
from itertools import combinations

import matplotlib
matplotlib.use('Agg')
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings, strategies as st
from matplotlib.text import Text

from helpers import fit
from recfast.data.datasets import movie_night
from recfast.data.loaders import CollabDataLoaders, Interactions, Vocab
from recfast.explain import short_names
from recfast.interpret import bias_table, item_factors, pca, plot_bias, plot_factors
from recfast.learner import collab_learner
from recfast.models.dot import DotProduct, DotProductBias
from recfast.models.ncf import EmbeddingNN
from recfast.models.params import DotProductParams
from recfast.testing import synth_ratings


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close('all')

CLASSES = {'user': Vocab([7,8,9]), 'film': Vocab(['Brazil','Fargo','Heat','Ran'])}
TRAIN = Interactions([1,1,2,2,2], [1,2,2,3,2], [5,4,3,2,1], classes=CLASSES)  # Brazil 1 rating, Fargo 3, Heat 1, Ran 0

def model(cls=DotProductBias):
    torch.manual_seed(0)
    m = cls(n_users=4, n_items=5, n_factors=3)
    if hasattr(m, 'i_bias'):
        for p,v in ((m.i_bias,[9.,.1,.3,-.2,.3]), (m.u_bias,[9.,-.5,.5,0.])):
            (p.weight if hasattr(p, 'weight') else p).data.reshape(-1).copy_(torch.tensor(v))
    return m


@pytest.mark.parametrize('cls', [DotProductBias,DotProductParams])
def test_item_biases_from_the_highest_ties_in_row_order(cls):
    df = bias_table(model(cls), TRAIN)
    assert list(df)==['item_id','bias','n_ratings'] and df.item_id.tolist()==['Fargo','Ran','Brazil','Heat']
    assert df.bias.tolist()==pytest.approx([.3,.3,.1,-.2]) and df.n_ratings.tolist()==[3,0,1,1]

def test_user_biases():
    df = bias_table(model(), TRAIN, 'user')
    assert list(df)==['user_id','bias','n_ratings'] and df.user_id.tolist()==[8,9,7] and df.n_ratings.tolist()==[3,0,2]
    assert df.bias.tolist()==[.5,0.,-.5]

@pytest.mark.parametrize('cls', [DotProduct,EmbeddingNN])
@pytest.mark.parametrize('what', ['item','user'])
def test_a_model_without_biases_says_so(cls, what):
    with pytest.raises(NotImplementedError, match=f'{cls.__name__} has no {what} bias'): bias_table(model(cls), TRAIN, what)

def test_factors_under_their_ids():
    m = model()
    f = item_factors(m, TRAIN)
    assert f.index.tolist()==['Brazil','Fargo','Heat','Ran'] and f.index.name=='item_id'
    assert np.array_equal(f.to_numpy(), m.i_weight.weight[1:].detach())

def test_factors_of_a_model_without_any():
    class Pair(torch.nn.Module):
        def __init__(self): super().__init__(); self.w = torch.nn.Parameter(torch.ones(5,1))
        def forward(self, x): return self.w[x[:,1]]
    with pytest.raises(NotImplementedError, match='Pair has no item vectors'): item_factors(Pair(), TRAIN)

@pytest.mark.parametrize('flag', [True, False])
def test_reading_changes_nothing(flag):
    m = model().train(flag)
    before = {k: v.clone() for k,v in m.state_dict().items()}
    f = item_factors(m, TRAIN)
    f.iloc[:] = 0.
    bias_table(m, TRAIN); plot_factors(m, TRAIN); plot_bias(m, TRAIN, min_ratings=0)
    assert all(torch.equal(v, before[k]) for k,v in m.state_dict().items()) and all(o.training==flag for o in m.modules())


@settings(max_examples=40, deadline=None)
@given(st.integers(3,40), st.integers(1,8), st.integers(0,9999))
def test_components_are_those_of_a_svd(n, d, seed):
    x = np.random.RandomState(seed).randn(n, d)
    u,s,v = np.linalg.svd(x-x.mean(0), full_matrices=False)
    k = min(2, d, n-1)
    want,got = u[:,:k]*s[:k],pca(torch.tensor(x), k).numpy()
    flip = np.sign((want*got).sum(0))
    assert np.allclose(got, want*flip, atol=1e-3)

def test_the_largest_weight_of_a_component_is_positive():
    x = torch.tensor([[1.,-9.],[2.,-18.],[3.,-27.]])  # one direction, (1,-9): its largest weight is the second
    assert pca(x, 1).flatten().tolist()==pytest.approx([82**.5,0.,-82**.5], abs=1e-4)
    assert torch.allclose(pca(-x, 1), -pca(x, 1), atol=1e-4)

def test_components_do_not_depend_on_where_the_origin_is():
    x = torch.randn(20, 4, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(pca(x+100), pca(x), atol=1e-3)


@pytest.fixture(scope='module')
def learn():
    return fit(collab_learner(CollabDataLoaders.from_df(synth_ratings(), seed=1), n_factors=4, y_range=(0,5.5)), 1, 1e-2)

@pytest.mark.parametrize('n,labels', [(1,1), (7,7), (40,40), (99,40)])
def test_a_map_labels_the_most_rated_items(learn, n, labels):
    ax,counts = learn.plot_factors(n=n),learn.dls.interactions('train').frame().item_id.value_counts()
    assert len(ax.texts)==labels==len(ax.collections[0].get_offsets()) and f'{labels} most rated' in ax.get_title()
    drawn = counts[[int(t.get_text()) for t in ax.texts]]
    assert drawn.min()>=counts.drop(drawn.index).max() if labels<40 else set(drawn.index)==set(counts.index)

def test_a_label_stands_at_its_item(learn):
    ax,xy = learn.plot_factors(n=5),pca(torch.tensor(learn.item_factors().to_numpy())).numpy()
    for t in ax.texts: assert t.xy==pytest.approx(xy[int(t.get_text())-1], abs=1e-4)

@pytest.mark.parametrize('n,bars', [(1,2), (10,20), (30,40)])
def test_bars_of_the_ends_without_one_drawn_twice(learn, n, bars):
    ax = learn.plot_bias(n=n, min_ratings=0)
    names = [t.get_text() for t in ax.get_yticklabels()]
    assert len(ax.patches)==len(names)==len(set(names))==bars

def test_the_highest_bias_stands_on_top(learn):
    ax,df = learn.plot_bias(n=3, min_ratings=0),learn.item_bias()
    assert [t.get_text() for t in ax.get_yticklabels()]==[str(o) for o in [*df.item_id[-3:][::-1],*df.item_id[:3][::-1]]]
    assert ax.patches[-1].get_width()==pytest.approx(df.bias[0])

def test_items_with_few_ratings_are_left_out(learn):
    df = learn.item_bias()
    ax = learn.plot_bias(n=99, min_ratings=22)
    assert 0<len(ax.patches)==(df.n_ratings>=22).sum()<40 and 'at least 22' in ax.get_title()

def test_a_plot_can_be_drawn_into_given_axes(learn):
    _,(a,b) = plt.subplots(1, 2)
    assert learn.plot_factors(n=3, ax=a) is a and learn.plot_bias(n=3, ax=b) is b and len(plt.get_fignums())==1

def test_long_titles_are_cut_and_any_id_can_be_drawn():
    classes = {'user': CLASSES['user'], 'film': Vocab(pd.Series(['x'*90,'영화 (2019)','$9_$','d']))}
    train = Interactions([1,1,2,2], [1,2,3,4], [5,4,3,2], classes=classes)
    ax = plot_factors(model(), train)
    ax.figure.canvas.draw()
    assert sorted(len(t.get_text()) for t in ax.texts)[-1]<=40 and len(ax.texts)==4
    plot_bias(model(), train, min_ratings=0).figure.canvas.draw()

def test_no_item_has_enough_ratings():
    ax = plot_bias(model(), TRAIN, min_ratings=1000)
    assert len(ax.patches)==0

def test_the_verbs_of_a_learner_are_these(learn):
    train = learn.dls.interactions('train')
    assert learn.item_bias().equals(bias_table(learn.model, train)) and learn.user_bias().equals(bias_table(learn.model, train, 'user'))
    assert learn.item_factors().equals(item_factors(learn.model, train))

def boxes(texts): return [Text.get_window_extent(o).extents for o in texts if o.get_text()]
def shared(a, b): return max(0, min(a[2],b[2])-max(a[0],b[0]))*max(0, min(a[3],b[3])-max(a[1],b[1]))

@pytest.mark.parametrize('dpi', [60,100,200])
def test_labels_of_a_saved_map_stand_apart_and_within(dpi, tmp_path):
    dls = CollabDataLoaders.from_df(movie_night(), item_name='title', seed=42, bs=512)
    learn = collab_learner(dls, 10, y_range=(0,5.5))
    with learn.quiet(): learn.fit(1, 1e-2)
    ax = learn.plot_factors(n=50)
    ax.figure.savefig(tmp_path/'map.png', dpi=dpi)
    ax.figure.set_dpi(dpi)
    ax.figure.canvas.draw() # as it was saved
    found = boxes(ax.texts)
    assert len(found)==50 and max(shared(a, b) for a,b in combinations(found, 2))<1
    low,high = ax.bbox.extents[:2],ax.bbox.extents[2:]
    assert all((o[:2]>=low-1).all() and (o[2:]<=high+1).all() for o in found)

def test_no_name_of_a_saved_plot_is_cut(tmp_path):
    names = ['Lawnmower Man 2: Beyond Cyberspace (1996)','The Good, the Bad and the Ugly (1966)','c','d']
    train = Interactions([1,1,2,2], [1,2,3,4], [5,4,3,2], classes={'user': CLASSES['user'], 'film': Vocab(pd.Series(names))})
    ax = plot_bias(model(), train, min_ratings=0)
    ax.figure.savefig(tmp_path/'bias.png')
    assert {o.get_text() for o in ax.get_yticklabels()}==set(names)
    assert min(o[0] for o in boxes([*ax.get_yticklabels(),ax.title,ax.xaxis.label]))>=0

@pytest.mark.parametrize('verb', ['plot_bias','plot_factors'])
def test_a_curve_after_a_picture_has_axes_of_its_own(verb, tmp_path):
    from helpers import fit, learner
    from matplotlib import pyplot as plt
    plt.close('all')
    learn = fit(learner(), 2, 1e-3)
    ax = getattr(learn, verb)()
    before = len(ax.lines),ax.get_title(),ax.get_ylabel()
    loss = learn.recorder.plot_loss()
    assert loss.figure is not ax.figure and (len(ax.lines),ax.get_title(),ax.get_ylabel())==before and loss.get_title()=='learning curve' and len(loss.lines)==2
    for name,o in dict(a=ax, b=loss).items(): o.figure.savefig(tmp_path/f'{name}.png')
    a,b = (plt.imread(tmp_path/f'{o}.png') for o in 'ab')
    assert a.shape!=b.shape and a[...,:3].min()<.5 and b[...,:3].min()<.5
    assert learn.recorder.plot_loss() is loss # one's own axes are drawn into, as fastai does
    own = plt.figure().gca()
    assert learn.recorder.plot_loss() is own and learn.recorder.plot_loss(ax=loss) is loss
    plt.close('all')

def test_the_recorder_is_fastai_s_in_name_and_kind():
    import pickle

    from fastai.learner import Recorder
    from helpers import fit, learner
    learn = fit(learner(), 1, 1e-3)
    assert isinstance(learn.recorder, Recorder) and learn.recorder.name=='recorder' and learn.fast and [type(o).__name__ for o in learn.cbs].count('Recorder')==1
    assert pickle.loads(pickle.dumps(type(learn.recorder))) is type(learn.recorder)

def test_names_that_begin_alike_have_labels_of_their_own_and_the_title_is_whole(tmp_path):
    names = ['x'*70+end for end in ('one','two')]+['y'*50,'z']
    train = Interactions([1,1,2,2], [1,2,3,4], [5,4,3,2], classes={'user': CLASSES['user'], 'film': Vocab(pd.Series(names))})
    ax = plot_bias(model(), train, min_ratings=0)
    ax.figure.savefig(tmp_path/'bias.png')
    labels = [o.get_text() for o in ax.get_yticklabels()]
    assert len(set(labels))==4 and max(map(len, labels))<=60
    low,high = np.array([o for o in boxes([ax.title,*ax.get_yticklabels()])])[:,[0,2]].T
    assert low.min()>=0 and high.max()<=ax.figure.bbox.x1
    assert len({o.get_text() for o in plot_factors(model(), train).texts})==4

@given(st.lists(st.text('ab', max_size=12), max_size=8), st.integers(6, 10))
def test_short_names_are_as_many_and_short(names, n):
    short = short_names(names, n)
    assert len(short)==len(names) and all(len(o)<=n for o in short)
    assert all(a==b for a,b in zip(short, names) if len(b)<=n)
