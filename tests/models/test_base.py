"What recfast works out from a forward alone: tables, scores, someone new"
import numpy as np
import pytest
import torch
from torch import nn

import recfast.all  # noqa: F401 (registers every model)
from recfast.models.base import (MODELS, UserPrior, evaluating, find_model, fold_in, id_tables, item_vectors, model_device, score_items,
    score_pairs, score_vector, split_tables)
from recfast.models.dot import DotProductBias
from recfast.models.params import DotProductParams

every_size = pytest.mark.parametrize('n_users,n_items', [(30,40), (40,30), (35,35), (500,300), (3,3), (2,30), (30,2)])
NAMES = {'embeddingnn': (['embeds.0.weight'], ['embeds.1.weight']), 'dotproduct': (['u_weight.weight'], ['i_weight.weight']),
         **dict.fromkeys(('dotproductbias','hybriddot','fm','bayesiansvdpp'), (['u_weight.weight','u_bias.weight'], ['i_weight.weight','i_bias.weight'])),
         'dotproductparams': (['u_weight','u_bias'], ['i_weight','i_bias']), 'gmf': (['u_weight.weight'], ['i_weight.weight']), 'mlp': (['u_weight.weight'], ['i_weight.weight']),
         'neumf': (['gmf.u_weight.weight','mlp.u_weight.weight'], ['gmf.i_weight.weight','mlp.i_weight.weight']), 'autorec': ([],[]), 'nextitem': ([],[]),
         'sasrec': ([],[]), 'gru4rec': ([],[]), 'bert4rec': ([],[]), **dict.fromkeys(('svdpp','twotower'), (['u_weight.weight'], ['i_weight.weight'])), **{n: ([],[]) for n in ('popularity','ease','itemknn','ials','rp3beta','slim','lightgcn','spectralfilter','multvae','sequentialrules','twospeedridge')}} # what is solved has buffers
FOLDED = [n for n,(cls,caps) in MODELS.items() if caps['history'] and getattr(cls, 'pairs', True) and not hasattr(cls, 'score_history') and not hasattr(cls, 'moves')] # the others fold in by themselves, or around what was told

def build(name, n_users, n_items, n_factors=4, y_range=(0,5.5)):
    torch.manual_seed(0)
    return MODELS[name][0](n_users=n_users, n_items=n_items, n_factors=n_factors, y_range=y_range)

def names(tables): return tuple(list(o) for o in tables)


@every_size
@pytest.mark.parametrize('name', MODELS)
def test_tables_of_every_model(name, n_users, n_items):
    assert names(id_tables(build(name, n_users, n_items), n_users, n_items))==NAMES[name]

@pytest.mark.parametrize('name', [n for n in MODELS if not hasattr(MODELS[n][0], 'solve')])
def test_tables_of_a_model_with_a_frozen_parameter(name):
    model = build(name, 9, 12)
    frozen = next(model.parameters())
    frozen.requires_grad_(False)
    assert names(id_tables(model, 9, 12))==NAMES[name]
    assert not frozen.requires_grad and all(p.grad is None for p in model.parameters())

class Padded(nn.Module):
    def __init__(self):
        super().__init__()
        self.u,self.i = nn.Embedding(9, 3, padding_idx=0),nn.Embedding(12, 3, padding_idx=0)
    def forward(self, x): return (self.u(x[:,0])*self.i(x[:,1])).sum(1)

def test_tables_with_a_padding_row(): assert names(id_tables(Padded(), 9, 12))==(['u.weight'],['i.weight'])

def test_a_hidden_layer_as_wide_as_the_user_table_is_no_table():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.u,self.i,self.hidden,self.out = nn.Embedding(9, 5),nn.Embedding(12, 4),nn.Linear(9, 12),nn.Linear(12, 1)
        def forward(self, x): return self.out(self.hidden(torch.cat([self.u(x[:,0]), self.i(x[:,1])], 1)))
    torch.manual_seed(0)
    assert names(id_tables(Net(), 9, 12))==(['u.weight'],['i.weight'])

def test_a_table_that_forward_does_not_read_is_nobodys():
    model = DotProductBias(9, 12, 3)
    model.spare = nn.Embedding(9, 3)
    assert 'spare.weight' not in id_tables(model, 9, 12)[0]

def test_no_tables_in_a_model_without_any():
    class Constant(nn.Module):
        def __init__(self): super().__init__(); self.c = nn.Parameter(torch.ones(1))
        def forward(self, x): return self.c.expand(len(x))
    model = Constant()
    assert names(id_tables(model, 9, 12))==([],[])
    with pytest.raises(NotImplementedError, match='Constant has no item vectors'): item_vectors(model, 9, 12)
    with pytest.raises(NotImplementedError, match='no user table'): UserPrior({}, torch.arange(1,9))


def test_split_tables_of_two_vectors_and_two_biases():
    a,b,c,d = torch.ones(3,2),torch.full((3,1), 2.),torch.full((3,4), 3.),torch.full((3,), 4.)
    vecs,bias = split_tables(dict(a=a, b=b, c=c, d=d))
    assert vecs.tolist()==[[1.,1.,3.,3.,3.,3.]]*3 and bias.tolist()==[6.]*3  # 2+4

def test_split_tables_of_nothing(): assert split_tables({})==(None,None)

def test_split_tables_gives_copies():
    p = {'a': nn.Parameter(torch.ones(3,2)), 'b': nn.Parameter(torch.ones(3,1))}
    for o in split_tables(p): o.mul_(7.); assert not o.requires_grad
    assert all((o==1).all() for o in p.values())


def test_evaluating_gives_every_submodule_its_own_flag_back():
    model = nn.Sequential(nn.Linear(2,2), nn.BatchNorm1d(2), nn.Dropout())
    model[1].eval()
    with evaluating(model):
        assert not any(m.training for m in model.modules()) and not torch.is_grad_enabled()
    assert [m.training for m in model]==[True,False,True] and model.training and torch.is_grad_enabled()

def test_evaluating_restores_after_an_error():
    model = nn.Dropout()
    with pytest.raises(ZeroDivisionError):
        with evaluating(model): 1/0
    assert model.training

def test_the_device_of_a_model_with_buffers_only():
    model = nn.BatchNorm1d(2, affine=False)
    assert model_device(model)==torch.device('cpu')==model_device(nn.ReLU())


def test_scores_of_all_items_do_not_depend_on_the_slices():
    model,users = Padded(),torch.arange(9)
    whole = score_items(model, users, 12)
    for rows in (1, 12, 25, 10_000): assert torch.equal(score_items(model, users, 12, rows=rows), whole)

def test_scores_of_nobody():
    assert score_items(Padded(), torch.zeros(0, dtype=torch.int64), 12).shape==(0,12)
    assert score_pairs(Padded(), torch.zeros(0, 2, dtype=torch.int64)).shape==(0,)

def test_scores_of_pairs_do_not_depend_on_the_slices():
    model,x = Padded(),torch.cartesian_prod(torch.arange(9), torch.arange(12))
    assert torch.equal(score_pairs(model, x, rows=7), score_pairs(model, x))

def test_scores_come_from_eval_mode():
    class Dropped(Padded):
        def forward(self, x): return nn.functional.dropout(super().forward(x), .9, self.training)
    model = Dropped().train()
    x = torch.tensor([[1,2],[3,4]])
    assert torch.equal(score_pairs(model, x), score_pairs(model, x)) and model.training


def new_user(y_range=None, n=12, noise=.5):
    "A DotProductBias, its prior, n items and ratings that a user of its kind gives"
    torch.manual_seed(1)
    model = DotProductBias(40, 30, 3, y_range)
    for p in model.parameters(): p.data.normal_(0, .7)
    prior = UserPrior(id_tables(model, 40, 30)[0], torch.arange(1,40))
    items = torch.randperm(29)[:n]+1
    return model,prior,items,score_vector(model, prior, prior.mean+torch.randn(4), 30)[items]+noise*torch.randn(n)

def test_fold_in_of_a_linear_model_is_ridge():
    model,prior,items,r = new_user()
    u = fold_in(model, prior, items, r, noise=.3)
    A = torch.cat([model.i_weight.weight[items], torch.ones(len(items), 1)], 1).detach().double()  # the user's bias is the last number
    y = (r-model.i_bias.weight[items,0]).detach().double()
    want = torch.linalg.solve(A.T@A/.3+prior.precision, A.T@y/.3+prior.precision@prior.mean)
    torch.testing.assert_close(u, want, rtol=1e-4, atol=1e-5)

@pytest.mark.parametrize('name', FOLDED)
def test_fold_in_of_an_empty_history_is_the_prior_mean(name):
    model = build(name, 40, 30)
    prior = UserPrior(id_tables(model, 40, 30)[0], torch.arange(1,40))
    u = fold_in(model, prior, torch.zeros(0, dtype=torch.int64), torch.zeros(0))
    users = torch.cat([p.detach().reshape(40,-1) for p in id_tables(model, 40, 30)[0].values()], 1)
    torch.testing.assert_close(u.float(), users[1:].mean(0), rtol=1e-4, atol=1e-6)

def objective(model, prior, u, items, r, noise):
    f,off = score_vector(model, prior, u, 30)[items].double(),u-prior.mean
    return float(((r-f)**2).sum()/noise+off@prior.precision@off)

@pytest.mark.parametrize('name', FOLDED)
@pytest.mark.parametrize('scale', [.1, 1., 5.])
def test_fold_in_is_never_worse_than_its_start(name, scale):
    model = build(name, 40, 30)
    for p in model.parameters(): p.data.mul_(scale)
    prior = UserPrior(id_tables(model, 40, 30)[0], torch.arange(1,40))
    for seed in range(5):
        g = torch.Generator().manual_seed(seed)
        items,r = torch.randperm(29, generator=g)[:8]+1,torch.randint(0, 6, (8,), generator=g).double()
        before,after = (objective(model, prior, u, items, r, .2) for u in (prior.mean, fold_in(model, prior, items, r, .2)))
        assert after<=before*(1+1e-6)

def test_fold_in_of_a_sigmoid_model_finds_the_minimum():
    model,prior,items,r = new_user((0,5.5))
    u = fold_in(model, prior, items, r, noise=.3, n_iter=50)
    best = objective(model, prior, u, items, r, .3)
    for step in torch.randn(200, 4, generator=torch.Generator().manual_seed(0)).double()*.1:
        assert objective(model, prior, u+step, items, r, .3)>best*(1-1e-3)

def test_fold_in_changes_nothing_in_the_model():
    model,prior,items,r = new_user((0,5.5))
    before = {k: v.clone() for k,v in model.state_dict().items()}
    model.train()
    fold_in(model, prior, items, r)
    assert all(torch.equal(v, before[k]) for k,v in model.state_dict().items())
    assert model.training and all(p.grad is None for p in model.parameters())

def test_a_prior_of_fewer_users_than_numbers_can_be_inverted():
    model = DotProductBias(4, 30, 50)
    prior = UserPrior(id_tables(model, 4, 30)[0], torch.arange(1,4))
    assert torch.isfinite(prior.precision).all() and (torch.linalg.eigvalsh(prior.precision)>0).all()

def test_a_prior_of_one_user():
    prior = UserPrior({'u': torch.ones(4,3)}, torch.tensor([2]))
    assert prior.mean.tolist()==[1.,1.,1.] and torch.isfinite(prior.precision).all()


def test_models_are_found_by_name_in_any_case():
    assert find_model('DotProductParams') is DotProductParams is MODELS['dotproductparams'][0]

def test_a_name_that_is_no_model():
    with pytest.raises(KeyError, match='dotproductbias'): find_model('svd')

def test_every_row_of_the_registry_says_the_same_things():
    keys = {'predict','recommend','save','similar_items','history','bias','reads','paper'}
    assert all(set(caps)==keys and caps['paper'] and issubclass(cls, nn.Module) for cls,caps in MODELS.values())
    assert np.all([n==cls.__name__.lower() for n,(cls,_) in MODELS.items()])
