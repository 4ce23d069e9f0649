"What each item of a history adds to a score"
import numpy as np
import pandas as pd
import pytest
import torch
from fastai.torch_core import Module
from hypothesis import given, settings, strategies as st

from helpers import fit_one_cycle
from recfast.core import RatingsError, UnknownIdError
from recfast.data.loaders import CollabDataLoaders, Interactions, Vocab
from recfast.interpret import fold_in_steps, path_gradient, plot_explain
from recfast.learner import collab_learner
from recfast.models.autorec import AutoRec
from recfast.models.base import id_tables, score_vector
from recfast.models.dot import DotProduct, DotProductBias
from recfast.models.ncf import EmbeddingNN, MLP, NeuMF
from recfast.models.linear import EASE, IALS, ItemKNN
from recfast.models.params import DotProductParams
from recfast.recommend import Recommender
from recfast.testing import block_ratings, synth_ratings

COLS = ['item_id','because_item_id','contribution']
HISTORY = {3: 5., 8: 1., 20: 4., 31: 3.}

class Mine(Module):
    "A reader's own model, with names of its own"
    def __init__(self, n_users, n_items, n_factors, y_range):
        self.people,self.films = (torch.nn.Parameter(torch.randn(n, n_factors)*.1) for n in (n_users,n_items))
    def forward(self, x): return (self.people[x[:,0]]*self.films[x[:,1]]).sum(1)+3

def trained(arch=DotProductBias, y_range=None, df=None, **kwargs):
    dls = CollabDataLoaders.from_df(synth_ratings() if df is None else df, seed=1, bs=32)
    return fit_one_cycle(collab_learner(dls, n_factors=4, arch=arch, y_range=y_range, **kwargs), 3)

@pytest.fixture(scope='module')
def linear(): return trained()

@pytest.fixture(scope='module')
def sigmoid(): return trained(y_range=(0,5.5))

def sums(df): return df.groupby('item_id', sort=False).contribution.sum()
def left(df): return df[df.because_item_id.isna()].set_index('item_id').contribution
def own(df): return df[df.because_item_id.notna()]


class Numbers:
    "A prior with mean and precision chosen by hand"
    def __init__(self, model, mean, precision):
        self.shapes = {n: p.shape[1:] for n,p in id_tables(model, 3, 4)[0].items()}
        self.mean,self.precision = torch.tensor(mean).double(),torch.tensor(precision).double()

def one_factor(*items, y_range=None):
    model = DotProduct(3, 4, 1, y_range)
    model.i_weight.weight.data[:,0] = torch.tensor([9.,*items])
    return model

def test_two_ratings_by_hand():
    # mu 2, precision 1, noise 1, factors 1 and 2: A = 1+4+1 = 6, expected 2 and 4, rated 5 and 1
    model = one_factor(1., 2., 3.)
    u,steps = fold_in_steps(model, Numbers(model, [2.], [[1.]]), torch.tensor([1,2]), torch.tensor([5.,1.]), 1.)
    assert steps[0].tolist()==pytest.approx([3/6, 2*-3/6]) and u.item()==pytest.approx(1.5)

def test_a_rating_as_expected_adds_nothing():
    model = one_factor(1., 2., 3.)
    _,steps = fold_in_steps(model, Numbers(model, [2.], [[1.]]), torch.tensor([1,2]), torch.tensor([2.,5.]), 1.)
    assert steps[0].tolist()==pytest.approx([0., 2/6], abs=1e-6) # scores are float32

def test_no_ratings_no_steps():
    model = one_factor(1., 2., 3.)
    u,steps = fold_in_steps(model, Numbers(model, [2.], [[1.]]), torch.zeros(0).long(), torch.zeros(0), 1.)
    assert u.tolist()==[2.] and steps.shape==(1,0)

def test_mean_slope_of_a_sigmoid_by_hand():
    model = one_factor(1., 2., 3., y_range=(0,4))  # from u=0 to u=1: 4*sigmoid(q) - 4*sigmoid(0)
    grad = path_gradient(model, Numbers(model, [0.], [[1.]]), torch.tensor([1.]).double(), torch.tensor([1,2,3]))
    assert grad[:,0].tolist()==pytest.approx([4/(1+np.exp(-q))-2 for q in (1,2,3)], abs=1e-6)


def test_the_ridge_solution_the_long_way(linear):
    rec = linear.recommender
    (prior,noise),m = rec._prior(),linear.model
    rows = rec.items.encode(list(HISTORY))
    Q = torch.cat([m.i_weight.weight,torch.ones(rec.n_items,1)], 1).detach().double()
    b,mu = m.i_bias.weight[:,0].detach().double(),torch.cat([m.u_bias.weight,m.u_weight.weight], 1)
    names = list(id_tables(m, rec.n_users, rec.n_items)[0])
    assert names==['u_weight.weight','u_bias.weight'] and mu.shape[1]==5  # the order of Q's columns
    A = Q[rows].T@Q[rows]/noise+prior.precision
    C = Q@torch.linalg.solve(A, Q[rows].T)*(torch.tensor(list(HISTORY.values())).double()-b[rows]-Q[rows]@prior.mean)/noise  # [I,n]
    df = own(rec.explain(history=HISTORY, item_ids=[1,2]))
    want = {(i,j): C[rec.items.o2i[i],n].item() for i in (1,2) for n,j in enumerate(HISTORY)}
    assert {(i,j): c for i,j,c in df.itertuples(index=False)}==pytest.approx(want, rel=1e-4, abs=1e-6)
    base = left(rec.explain(history=HISTORY, item_ids=[1,2]))
    assert base.tolist()==pytest.approx((Q@prior.mean+b)[rec.items.encode([1,2])].tolist(), rel=1e-5)

@settings(max_examples=30, deadline=None)
@given(history=st.dictionaries(st.integers(1,40), st.integers(1,5), max_size=12),
    items=st.lists(st.integers(1,40), min_size=1, max_size=5, unique=True))
def test_any_history_sums_to_the_score(linear, sigmoid, history, items):
    for learn in (linear,sigmoid):
        df = learn.explain(history=history, item_ids=items)
        scores = learn.recommend(history=history, item_ids=items, exclude_seen=False).set_index('item_id').score
        assert list(df)==COLS and sums(df).index.tolist()==items and set(own(df).because_item_id)==set(history)
        assert sums(df).tolist()==pytest.approx(scores[items].tolist(), rel=1e-5)

@pytest.mark.parametrize('y_range,tol', [(None,1e-5), ((0,5.5),5e-3)])
def test_what_is_left_of_a_history_is_the_average_user(y_range, tol):
    rec = trained(y_range=y_range).recommender
    average = score_vector(rec.model, rec._prior()[0], rec._prior()[0].mean, rec.n_items)
    base = left(rec.explain(history=HISTORY, k=20))  # Gauss-Newton stops at 1e-4 of the loss
    assert base.tolist()==pytest.approx(average[rec.items.encode(base.index)].tolist(), abs=tol) and len(base)==20

def test_a_sigmoid_shares_out_in_proportion_to_what_is_before_it(sigmoid):
    rec = sigmoid.recommender
    prior,noise = rec._prior()
    rows,r = torch.from_numpy(rec.items.encode(list(HISTORY))),torch.tensor(list(HISTORY.values()))
    u,steps = fold_in_steps(rec.model, prior, rows, r, noise)
    q = torch.cat([rec.model.i_weight.weight[rec.items.o2i[5]].detach(),torch.ones(1)]).double()
    df = own(rec.explain(history=HISTORY, item_ids=5)).set_index('because_item_id').contribution
    ratio = df[list(HISTORY)].to_numpy()/(q@steps).numpy()
    assert ratio==pytest.approx(ratio[0], rel=1e-6) and ratio[0]>0

@pytest.mark.parametrize('arch,y_range', [(DotProduct,(0,5.5)), (DotProductParams,None), (DotProductParams,(0,5.5)), (EmbeddingNN,(0,5.5)),
    (MLP,None), (NeuMF,(0,5.5)), (Mine,None)])
def test_other_pair_models(arch, y_range):
    kw = dict(use_nn=True, arch=None) if arch is EmbeddingNN else dict(arch=arch)
    learn = trained(y_range=y_range, **kw)
    rec = learn.recommender
    prior,_ = rec._prior()
    df = rec.explain(history=HISTORY, k=5)
    assert sums(df).tolist()==pytest.approx(rec.recommend(history=HISTORY, k=5).score.tolist(), rel=1e-5)
    average = score_vector(rec.model, prior, prior.mean, rec.n_items)[rec.items.encode(sums(df).index)]
    assert left(df).tolist()==pytest.approx(average.tolist(), abs=.02) and len(own(df))==20

@pytest.mark.parametrize('arch', [DotProductBias,NeuMF])
def test_the_mean_gradient_spans_the_way(arch):
    rec = trained(arch, (0,5.5)).recommender
    prior,_ = rec._prior()
    u,items = prior.mean+.3,torch.arange(1, 9)
    rise = [score_vector(rec.model, prior, o, rec.n_items)[items].double() for o in (prior.mean,u)]
    shared = path_gradient(rec.model, prior, u, items)@(u-prior.mean)
    assert shared.tolist()==pytest.approx((rise[1]-rise[0]).tolist(), abs=1e-3 if arch is NeuMF else 2e-6) # a ReLU has kinks


@pytest.mark.parametrize('y_range', [None,(0,5.5)])
def test_a_user_of_the_training_data_by_their_training_rows(y_range):
    learn = trained(y_range=y_range)
    df,train = learn.explain(7, k=3),learn.dls.interactions('train').frame()
    assert sums(df).index.tolist()==learn.recommend(7, k=3).item_id.tolist()
    assert sums(df).tolist()==pytest.approx(learn.predict(7, sums(df).index).tolist(), rel=1e-5)
    mine = train[train.user_id==7]
    for _,part in own(df).groupby('item_id'): assert sorted(part.because_item_id)==sorted(mine.item_id)
    folded = learn.explain(history=mine, item_ids=sums(df).index)
    assert own(df).contribution.tolist()==pytest.approx(own(folded).contribution.tolist(), rel=1e-5)
    for i,rest in df.attrs['rest'].items(): assert left(df)[i]-left(folded)[i]==pytest.approx(rest, abs=1e-5)

def test_a_history_leaves_no_rest(sigmoid):
    assert sigmoid.explain(history=HISTORY, k=2).attrs['rest']==dict.fromkeys(sigmoid.recommend(history=HISTORY, k=2).item_id, 0.)

def test_validation_rows_explain_nothing(linear):
    valid,train = (linear.dls.interactions(o).frame().query('user_id==7').item_id for o in ('valid','train'))
    assert len(set(valid)-set(train)) and set(own(linear.explain(7, k=1)).because_item_id)==set(train)

def test_the_strongest_come_first_and_all_else_last(linear):
    df = linear.explain(7, k=3)
    for _,part in df.groupby('item_id'):
        size = part.contribution.abs().to_numpy()[:-1]
        assert (np.diff(size)<=0).all() and part.because_item_id.isna().tolist()==[False]*len(size)+[True]

@pytest.mark.parametrize('top', [0,1,3])
def test_only_the_strongest_and_still_the_score(linear, top):
    df,whole = linear.explain(7, 5, top=top),linear.explain(7, 5)
    assert own(df).equals(own(whole)[:top]) and len(df)==top+1
    assert df.contribution.sum()==pytest.approx(linear.predict(7, 5), rel=1e-5)

def test_more_than_there_is(linear): assert linear.explain(7, 5, top=999).equals(linear.explain(7, 5))

def test_those_who_like_the_same_are_the_reason():
    learn = trained(y_range=(0,5.5), df=block_ratings())
    df = own(learn.explain(history={2: 5, 4: 5, 3: 1}, item_ids=[6,7]))
    by = df.pivot(index='item_id', columns='because_item_id', values='contribution')
    assert (by.loc[6]>0).all() and (by.loc[7]<0).all()

def test_a_history_without_ratings_is_liked_and_none_is_the_average(linear):
    assert linear.explain(history=[3,8], k=2).equals(linear.explain(history={3: 5., 8: 5.}, k=2))
    df = linear.explain(history={}, k=3)
    assert df.because_item_id.isna().all() and df.contribution.tolist()==pytest.approx(linear.recommend(history={}, k=3).score.tolist())

def test_an_item_rated_twice_is_named_once(linear):
    twice = pd.DataFrame(dict(item_id=[3,8,3], rating=[5.,1.,5.]))
    df = linear.explain(history=twice, item_ids=[1])
    assert sorted(own(df).because_item_id)==[3,8]
    assert df.contribution.sum()==pytest.approx(linear.recommend(history=twice, item_ids=[1]).score[0], rel=1e-5)

@pytest.mark.parametrize('ids', [list('abcd'), [10,20,30,40], list(pd.date_range('2020', periods=4)), [1.5,2.5,3.5,4.5]])
def test_ids_of_any_type_come_back_as_they_were(ids):
    df = pd.DataFrame(dict(user_id=[1,1,1,2,2,2,3,3,3]*8, item_id=[ids[i] for i in (0,1,2,1,2,3,0,2,3)]*8, rating=[5.,1,3,2,4,5,4,3,1]*8))
    why = trained(df=df).explain(1, ids[3])
    assert set(own(why).because_item_id.map(type(ids[0])))==set(ids[:3]) and set(why.item_id)=={ids[3]}
    assert type(own(why).because_item_id.iloc[0]) in (int,str,float,pd.Timestamp,np.int64)

def test_reading_changes_nothing(sigmoid):
    before,model = {k: v.clone() for k,v in sigmoid.model.state_dict().items()},sigmoid.model
    for flag in (True,False):
        model.train(flag)
        sigmoid.explain(7, k=2); sigmoid.explain(history=HISTORY)
        assert all(m.training==flag for m in model.modules())
    assert all(torch.equal(v, before[k]) for k,v in model.state_dict().items())


class Sum(Module):
    "Scores by a table; what is added to a history is a tensor of its own"
    pairs = False
    def __init__(self, table, base=None): self.table,self.base = table,base
    def attach(self, interactions): self.seen = interactions
    def contributions(self, items, ratings):
        c = self.table[items]*ratings.float()[:,None]
        return c if self.base is None else (c,self.base)
    def score_history(self, items, ratings):
        return (self.table[items]*ratings.float()[:,None]).sum(0) + (0 if self.base is None else self.base)
    def score_items(self, users):
        own = [self.seen[(self.seen.users==int(u)).numpy()] for u in users]
        return torch.stack([self.score_history(o.items.long(), o.values) for o in own])

CLASSES = {'user': Vocab([7,8]), 'film': Vocab(['Brazil','Fargo','Heat'])}
TRAIN = Interactions([1,1,2], [1,2,3], [2.,3.,1.], classes=CLASSES)
TABLE = torch.tensor([[0.,0,0,0],[0,0,10,20],[0,10,0,-4],[0,1,2,0]])

def summing(base=None):
    model = Sum(TABLE, base)
    model.attach(TRAIN)
    return Recommender(model, TRAIN)

def test_a_linear_model_by_hand():
    df = summing().explain(7)  # Heat: Brazil 2*20, Fargo 3*-4
    assert df.values.tolist()==[['Heat','Brazil',40.],['Heat','Fargo',-12.]] and df.attrs['rest']=={'Heat': 0.}

def test_what_a_model_adds_without_a_history():
    df = summing(torch.tensor([0.,1,2,3])).explain(history={'Brazil': 3}, item_ids=['Heat','Fargo'])
    assert df.contribution.tolist()==[60.,3.,30.,2.] and df.because_item_id.isna().tolist()==[False,True]*2

def test_all_else_of_a_linear_model_is_what_top_leaves_out():
    df = summing().explain(7, top=1)
    assert df.contribution.tolist()==[40.,-12.] and df.because_item_id.isna().tolist()==[False,True]

def test_scores_that_the_contributions_do_not_make_up_are_shown_as_a_rest():
    rec = summing()
    rec.model.score_items = lambda users: torch.full((len(users),4), 100.)
    df = rec.explain(7, 'Heat')
    assert df.contribution.tolist()==[40.,-12.,72.] and df.attrs['rest']=={'Heat': 72.}

def test_a_pair_that_stands_twice_is_one_pair_with_its_mean():
    rec = summing()
    rec.train = Interactions([1,1,1,0], [1,1,2,3], [1.,3.,3.,3.], classes=CLASSES)
    assert own(rec.explain(7, 'Heat')).contribution.tolist()==[40.,-12.]

@pytest.mark.parametrize('cls', [EASE,ItemKNN,IALS])
def test_registered_models_that_offer_contributions(cls):
    learn = collab_learner(CollabDataLoaders.from_df(synth_ratings(), seed=1), arch=cls)
    with learn.no_bar(), learn.no_logging(): learn.fit(3)
    rec = learn.recommender
    history = [3,8,20]
    items,ratings = rec._histories(history, 'raise')[0]
    c = learn.model.contributions(items, ratings)
    total = c[0].sum(0)+c[1] if isinstance(c, tuple) else c.sum(0)
    assert total.tolist()==pytest.approx(learn.model.score_history(items, ratings).tolist(), rel=1e-4, abs=1e-5)
    known = learn.explain(7, k=3)
    assert sums(known).tolist()==pytest.approx(learn.recommend(7, k=3).score.tolist(), rel=1e-4, abs=1e-5)


def test_models_that_cannot_say():
    dls = CollabDataLoaders.rows_from_df(synth_ratings(), bs=16, seed=1)
    learn = collab_learner(dls, arch=AutoRec)
    with pytest.raises(NotImplementedError, match='AutoRec cannot be explained.*EASE.*dot products'): learn.explain(history={3: 5})

@pytest.mark.parametrize('kw', [{}, dict(user_id=7, history={3: 5})])
def test_one_of_the_two(linear, kw):
    with pytest.raises(TypeError, match='user_id or history=, one of the two'): linear.explain(**kw)

@pytest.mark.parametrize('kw', [dict(user_id=[7,8]), dict(history=[{3: 5},{8: 1}])])
def test_one_person_at_a_time(linear, kw):
    with pytest.raises(ValueError, match='2 (users|histories): explain answers for one person'): linear.explain(**kw, item_ids=[1])

@pytest.mark.parametrize('kw', [dict(user_id=[7,8]), dict(history=[{3: 5},{8: 1}]),
    dict(history=pd.DataFrame(dict(user_id=[1,1,2], item_id=[3,8,3], rating=[5,4,1])))])
def test_several_people_are_refused_before_any_list_is_made(linear, kw, monkeypatch):
    monkeypatch.setattr(Recommender, 'recommend', lambda *args, **kwargs: pytest.fail('a list was made'))
    with pytest.raises(ValueError, match='2 (users|histories): explain answers for one person'): linear.recommender.explain(**kw)

@pytest.mark.parametrize('kw,err,match', [(dict(user_id=999), UnknownIdError, 'unknown user id: 999'),
    (dict(user_id=7, item_ids=[1,999]), UnknownIdError, 'unknown item id: 999'), (dict(history={999: 5}), UnknownIdError, 'unknown item'),
    (dict(history={3: 50}), RatingsError, 'outside'), (dict(user_id=7, top=-1), ValueError, 'top=-1'),
    (dict(user_id=7, k=0), ValueError, 'k=0'), (dict(user_id=7, on_unknown='x'), ValueError, 'expected one of')])
def test_bad_arguments(linear, kw, err, match):
    with pytest.raises(err, match=match): linear.explain(**kw)

def test_unknown_items_can_be_left_out(linear):
    df = linear.explain(7, [999,5], on_unknown='drop')
    assert df.equals(linear.explain(7, 5)) and len(linear.explain(7, [999], on_unknown='drop'))==0


def test_a_chart_of_the_strongest_and_the_sum_of_the_others(linear):
    why = linear.explain(7, [5,6])
    part = own(why[why.item_id==6])
    ax = plot_explain(why, 6, n=4)
    widths,names = [o.get_width() for o in ax.patches],[o.get_text() for o in ax.get_yticklabels()]
    assert widths==pytest.approx([*part.contribution[:4],part.contribution[4:].sum()])
    assert names==[*map(str, part.because_item_id[:4]),f'{len(part)-4} others']
    assert ax.get_title()==f'6: {linear.predict(7, 6):.2f} = {left(why)[6]:.2f} + the bars' and ax.get_xlabel()=='adds to the score'

def test_a_chart_of_all(linear):
    ax = plot_explain(linear.explain(history=HISTORY, k=2), n=10)
    assert len(ax.patches)==4 and 'others' not in [o.get_text() for o in ax.get_yticklabels()]

def test_a_chart_into_given_axes_and_an_item_that_is_not_there(linear):
    import matplotlib.pyplot as plt
    why,(_,ax) = linear.explain(history=HISTORY, item_ids=[1]),plt.subplots()
    assert plot_explain(why, ax=ax) is ax
    with pytest.raises(ValueError, match='999 is not among'): plot_explain(why, 999)
