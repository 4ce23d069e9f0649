"The softmax over all items in chunks: the numbers and gradients of the plain one, and the losses of next items beside it"
from functools import partial

import pytest
import torch
import torch.nn.functional as F

from recfast.losses import NextItemLoss, loss_spec, make_loss
from recfast.next_losses import GBCELoss
from recfast.softmax import ROWS, multiplies_half, whole_softmax

CLOSE = dict(rtol=5e-3, atol=5e-3) if multiplies_half() else dict(rtol=1e-5, atol=1e-5)

def case(n, n_items=40, k=8, scale=1., seed=0):
    gen = torch.Generator().manual_seed(seed)
    h,table = torch.randn(n, k, generator=gen)*scale,torch.randn(n_items, k, generator=gen)
    return h.requires_grad_(),torch.randint(1, n_items, (n,), generator=gen),table.requires_grad_()

def plain(h, y, table, cold=None):
    s = h@table.T
    if cold is not None: s = s.masked_fill(cold, -1e30).scatter(1, y[:,None], s.gather(1, y[:,None]))
    return F.cross_entropy(s, y, reduction='none')

def agree(n, shares, cold=None, **kwargs):
    h,y,table = case(n, **kwargs)
    mine,want = whole_softmax(h, y, table, cold, half=False),plain(h, y, table, cold)
    torch.testing.assert_close(mine, want, rtol=1e-5, atol=1e-5)
    grads = [torch.autograd.grad((o*shares).sum(), (h,table)) for o in (mine,want)]
    for a,b in zip(*grads): torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)

@pytest.mark.parametrize('n', [0,1,ROWS-1,ROWS,ROWS+1,3*ROWS+5])
def test_it_is_the_plain_loss(n): agree(n, torch.tensor(1/max(1, n)))

def test_places_that_count_differently(): agree(200, torch.rand(200, generator=torch.Generator().manual_seed(1))/200)

def test_scores_that_overflow_an_exponential(): agree(100, torch.tensor(.01), scale=100.)

def test_what_nobody_met_stands_in_no_denominator_unless_it_came():
    agree(150, torch.tensor(1/150), cold=torch.arange(40)>25)

def test_the_loss_of_states_is_that_of_scores():
    h,y,table = case(12)
    h,y = h.view(3, 4, 8),(y*(torch.arange(12)%3>0)).view(3, 4)
    for how in ('mean','sum','none'):
        mine,want = NextItemLoss(how)((h,table,0), y),NextItemLoss(how)(h@table.T, y)
        torch.testing.assert_close(mine, want, **CLOSE)

def test_half_precision_states_are_read_as_they_are():
    h,y,table = case(20)
    mine = whole_softmax(h.bfloat16(), y, table, half=False)
    torch.testing.assert_close(mine, plain(h.bfloat16().float(), y, table), rtol=1e-5, atol=1e-5)

@pytest.mark.parametrize('same', [True,False])
def test_products_of_halves_are_near_and_their_sums_are_not_rounded(same):
    h,y,table = case(2000, n_items=500, k=64, scale=.3)
    shares = torch.full((2000,), 1/2000) if same else torch.rand(2000, generator=torch.Generator().manual_seed(1))/1000
    (mine,got),(want,grads) = ((o,torch.autograd.grad(o, (h,table))) for o in
                               ((f(h, y, table)*shares).sum() for f in (partial(whole_softmax, half=True),plain)))
    assert mine.dtype==torch.float32 and abs(mine-want)<1e-3*want
    for a,b in zip(got, grads): assert a.dtype==torch.float32 and (a-b).norm()<1e-2*b.norm()

def test_halves_are_taken_where_the_processor_has_them(monkeypatch):
    h,y,table = case(50)
    for has in (True,False):
        monkeypatch.setattr('recfast.softmax.multiplies_half', lambda: has)
        assert torch.equal(whole_softmax(h, y, table), whole_softmax(h, y, table, half=has))

# gBCE

def test_without_calibration_it_is_binary_cross_entropy():
    torch.manual_seed(0)
    h,y,table = case(6, n_items=3)
    y = torch.ones(6).long() # two items: every draw is the answer, or the other one
    loss = GBCELoss(0.).of_states(h, y, table, 1)
    hit,miss = F.logsigmoid(h@table[1]),F.logsigmoid(-h@table[2])
    assert any(torch.allclose(loss, o, atol=1e-6) for o in (-hit/2,-(hit+miss)/2))

@pytest.mark.parametrize('t', [0.,.5,1.])
def test_the_power_by_hand(t):
    torch.manual_seed(0)
    h,y,table = case(5, n_items=102)
    zero = torch.zeros_like(table)
    drawn = 20
    beta = 1-t*(1-drawn/100) # 100 others
    loss = GBCELoss(t).of_states(h, y, zero, drawn)
    hits = 20-((loss*21/torch.log(torch.tensor(2.))).round(decimals=3)-beta) # draws of the answer count nothing
    assert ((hits>=-1e-2)&(hits<=3)).all()

def test_it_needs_draws():
    with pytest.raises(ValueError, match=r'config=dict\(n_negatives=256\)'): GBCELoss()((torch.zeros(1, 1, 2),torch.zeros(3, 2),0), torch.tensor([[1]]))
    with pytest.raises(ValueError, match='t=1.5, expected a number from 0 to 1'): GBCELoss(1.5)

def test_it_is_kept_by_name():
    again = make_loss(loss_spec(GBCELoss(.25, 'sum')))
    assert isinstance(again, GBCELoss) and (again.t,again.reduction)==(.25,'sum')
