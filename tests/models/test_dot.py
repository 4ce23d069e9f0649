"Dot products: numbers worked out by hand, fastai's own model, and the tables read by name"
import pytest
import torch
from fastai.collab import EmbeddingDotBias as Theirs

from recfast.core import UnknownIdError
from recfast.data.loaders import Vocab
from recfast.models.dot import DotProduct, DotProductBias, EmbeddingDotBias

CLASSES = {'user': Vocab([7,8,9]), 'film': Vocab(['Fargo','Heat'])}

def hand_made(cls=DotProductBias, **kwargs):
    "User 1 is (1,2), item 2 is (3,-1): their dot product is 1"
    model = cls(n_users=4, n_items=3, n_factors=2, **kwargs)
    for p in model.parameters(): p.data.zero_()
    model.u_weight.weight.data[1],model.i_weight.weight.data[2] = torch.tensor([1.,2.]),torch.tensor([3.,-1.])
    return model

X = torch.tensor([[1,2],[2,2]])


def test_a_dot_product_by_hand(): assert hand_made(DotProduct)(X).tolist()==[[1.],[0.]]

def test_biases_are_added():
    model = hand_made()
    model.u_bias.weight.data[1],model.i_bias.weight.data[2] = .25,.5
    assert model(X).tolist()==[[1.75],[.5]]

def test_a_range_is_the_sigmoid_between_its_ends():
    assert hand_made(y_range=(1,5))(X).flatten().tolist()==pytest.approx([1+4*.7310586, 3.])  # sigmoid(1), sigmoid(0)

def test_all_items_at_once_are_the_pairs():
    for cls in (DotProduct, DotProductBias):
        model = cls(4, 3, 2, (0,5.5))
        pairs = torch.cartesian_prod(torch.tensor([3,1]), torch.arange(3))
        torch.testing.assert_close(model.score_items(torch.tensor([3,1])), model(pairs).reshape(2,3))

def test_from_one_seed_it_starts_where_fastai_does():
    torch.manual_seed(3); ours = EmbeddingDotBias(5, 4, 3, y_range=(0,5.5))
    torch.manual_seed(3); theirs = Theirs(5, 4, 3, y_range=(0,5.5))
    assert [n for n,_ in ours.named_parameters()]==[n for n,_ in theirs.named_parameters()]
    assert torch.equal(ours(X)[:,0], theirs(X))

def test_a_state_dict_of_fastai_loads():
    theirs,ours = Theirs(5, 4, 3),EmbeddingDotBias(5, 4, 3)
    ours.load_state_dict(theirs.state_dict())
    assert torch.equal(ours(X)[:,0], theirs(X))


def named():
    model = EmbeddingDotBias.from_classes(3, CLASSES, y_range=(0,5.5))
    model.train()
    return model

def test_read_outs_are_in_the_order_asked_for():
    model = named()
    assert torch.equal(model.weight(['Heat','Fargo']), model.i_weight.weight[[2,1]])
    assert torch.equal(model.bias(['Heat']), model.i_bias.weight[2,0])
    assert torch.equal(model.weight([9], is_item=False), model.u_weight.weight[[3]])
    assert torch.equal(model.bias([9,7], False), model.u_bias.weight[[3,1],0])

def test_read_outs_agree_with_fastai():
    theirs,ours = Theirs.from_classes(3, {k: list(v) for k,v in CLASSES.items()}),EmbeddingDotBias.from_classes(3, CLASSES)
    theirs.classes = CLASSES
    theirs.load_state_dict(ours.state_dict())
    films = ['Heat','Fargo']  # of one film fastai's gives a number without a dimension
    assert torch.equal(ours.bias(films), theirs.bias(films)) and torch.equal(ours.weight(films), theirs.weight(films))

def test_read_outs_are_copies_and_leave_the_mode():
    model = named()
    for o in (model.weight(['Heat']), model.bias(['Heat'])): assert not o.requires_grad; o.fill_(9.)
    assert not (model.i_weight.weight==9).any() and not (model.i_bias.weight==9).any() and all(m.training for m in model.modules())

@pytest.mark.parametrize('ids', [['Brazil'], ['Heat','#na#'], ['heat']])
def test_a_title_that_was_never_trained(ids):
    with pytest.raises(UnknownIdError, match='unknown item id'): named().weight(ids)

def test_a_user_that_was_never_trained():
    with pytest.raises(UnknownIdError, match="unknown user id: '7'"): named().bias(['7'], is_item=False)

def test_a_model_without_a_vocabulary_says_so():
    with pytest.raises(AttributeError, match='from_classes'): DotProductBias(4, 3).bias(['Heat'])

def test_columns_may_be_named():
    model = EmbeddingDotBias.from_classes(3, {'film': CLASSES['film'], 'user': CLASSES['user']}, user='user', item='film')
    assert model.u_weight.weight.shape==(4,3) and model.i_weight.weight.shape==(3,3) and len(model.weight(['Heat']))==1
