"The model by hand is the model"
import pytest
import torch
from fastai.losses import MSELossFlat
from hypothesis import given, settings, strategies as st

from recfast.models.dot import DotProductBias
from recfast.models.params import DotProductParams, create_params


def test_a_parameter_of_the_given_shape_and_spread():
    torch.manual_seed(0)
    p = create_params([400,50], std=.5)
    assert p.requires_grad and p.shape==(400,50) and abs(p.std().item()-.5)<.01 and abs(p.mean().item())<.01

def twins(n_users, n_items, n_factors, y_range, seed):
    torch.manual_seed(seed)
    a,b = (cls(n_users, n_items, n_factors, y_range) for cls in (DotProductBias,DotProductParams))
    for p in a.parameters(): p.data.normal_()
    b.load_state_dict({k[:-len('.weight')]: v[:,0] if 'bias' in k else v for k,v in a.state_dict().items()})
    return a,b

@settings(max_examples=30, deadline=None)
@given(st.integers(2,20), st.integers(2,20), st.integers(1,8), st.sampled_from([None,(0,5.5),(1,5)]), st.integers(0,9999))
def test_equal_weights_give_equal_outputs_and_gradients(n_users, n_items, n_factors, y_range, seed):
    a,b = twins(n_users, n_items, n_factors, y_range, seed)
    x,y = torch.stack([torch.randint(n_users,(40,)),torch.randint(n_items,(40,))], 1),torch.rand(40,1)*5
    for m in (a,b): MSELossFlat()(m(x), y).backward()
    torch.testing.assert_close(a(x), b(x), rtol=1e-5, atol=1e-6)
    for n,p in b.named_parameters(): torch.testing.assert_close(getattr(a,n).weight.grad.reshape(p.shape), p.grad, rtol=1e-5, atol=1e-6)

def test_the_names_are_those_of_the_other_model():
    a,b = twins(3, 4, 2, None, 0)
    assert {n.removesuffix('.weight') for n,_ in a.named_parameters()}=={n for n,_ in b.named_parameters()}

@pytest.mark.parametrize('y_range,low,high', [((0,5.5),0,5.5), ((1,5),1,5)])
def test_scores_stay_within_the_range(y_range, low, high):
    out = twins(20, 20, 8, y_range, 1)[1](torch.cartesian_prod(torch.arange(20), torch.arange(20)))
    assert out.shape==(400,1) and out.min()>=low and out.max()<=high
