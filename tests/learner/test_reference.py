"The figures of the reference systems: the dating table and the training loop, to the printed digit"
import pytest
import torch
from fastai.losses import MSELossFlat
from fastai.optimizer import SGD, OptimWrapper
from fastai.data.core import DataLoaders
from fastai.data.load import DataLoader
from fastai.learner import Learner
from fastcore.basics import partialler
from torch import nn

from helpers import fit, fit_one_cycle
from recfast.data.datasets import solo
from recfast.data.loaders import CollabDataLoaders
from recfast.data.ratings import wide_to_long
from recfast.learner import collab_learner
from recfast.models.dot import DotProductBias


def digits(*ts, n=4): return ' '.join(f'{v:.{n}f}' for t in ts for v in torch.as_tensor(t).detach().flatten().tolist())

def seeded(f):
    torch.manual_seed(43052)
    return f()

def descend(opt, loss_of, n, read=lambda: ()):
    "`n` steps of a hand-written loop; the last loss and what `read` gave after each step"
    out = []
    for _ in range(n):
        loss = loss_of()
        loss.backward()
        opt.step()
        opt.zero_grad()
        out.append(read())
    return loss.item(),out


# the loop from the ground up

@pytest.fixture
def line():
    "x, y and the matrix [1,x] of a hundred noisy points on 2.5+4x"
    torch.manual_seed(43052)
    x,eps = torch.randn(100).sort()[0],torch.randn(100)*0.5
    return x,4*x+2.5+eps,torch.stack([torch.ones(100), x], 1)

def start(net):
    net.bias.data,net.weight.data = torch.tensor([-5.]),torch.tensor([[10.]])
    return net

def test_the_line_starts_where_the_document_says(line): assert digits(line[0][0], line[1][0])=='-2.4821 -8.5420'

@pytest.mark.parametrize('lr,total', [(1/1000, torch.sum), (1/10, torch.mean)])
def test_sum_and_mean_of_squares_end_at_the_same_line(line, lr, total):
    _,y,X = line
    W = torch.tensor([-5.,10.], requires_grad=True)
    for _ in range(30):
        total((y-X@W)**2).backward()
        W.data,W.grad = W.data-lr*W.grad,None
    assert digits(W)=='2.4290 4.0144'

def test_every_way_of_writing_the_line_takes_the_same_steps(line):
    x,y,X = line
    one,two,W = start(nn.Linear(1, 1)),nn.Linear(2, 1, bias=False),torch.tensor([-5.,10.], requires_grad=True)
    b,w = torch.tensor([-5.], requires_grad=True),torch.tensor([[10.]], requires_grad=True)
    two.weight.data = torch.tensor([[-5.,10.]])
    ways = [(one.parameters(), lambda: one(x[:,None]), lambda: (one.bias.item(), one.weight.item())),
        (two.parameters(), lambda: two(X), lambda: tuple(two.weight[0].tolist())),
        ([W], lambda: (X@W)[:,None], lambda: tuple(W.tolist())),
        ([b,w], lambda: b+x[:,None]@w, lambda: (b.item(), w.item()))]
    paths = [descend(torch.optim.SGD(ps, lr=0.1), lambda: ((y[:,None]-f())**2).mean(), 30, read)[1] for ps,f,read in ways]
    for path in paths:
        assert digits(path[0])=='-3.6577 8.8111' and digits(path[-1])=='2.4290 4.0144'
        torch.testing.assert_close(torch.tensor(path), torch.tensor(paths[0]), rtol=0, atol=1e-5)

def test_fresh_linear_layers_hold_the_numbers_of_the_document():
    assert digits(seeded(lambda: nn.Linear(2, 1, bias=False)).weight)=='-0.2451 -0.5989'
    assert digits(*seeded(lambda: nn.Linear(2, 1)).parameters())=='-0.2451 -0.5989 0.2549'
    assert digits(seeded(lambda: nn.Linear(3, 1, bias=False)).weight)=='-0.2002 -0.4890 0.2081'

def test_a_learner_is_the_same_loop(line):
    x,y,_ = line
    dl = DataLoader(list(zip(x[:,None], y[:,None])), bs=100, device='cpu')
    learn = Learner(DataLoaders(dl, dl, device='cpu'), start(nn.Linear(1, 1)), loss_func=MSELossFlat(), opt_func=SGD)
    fit(learn, 30, 0.1)
    assert digits(learn.model.bias, learn.model.weight)=='2.4290 4.0144'


# the dating table

WIDE = solo()
EMPTY = [('옥순(IN)','영식(IN)'), ('보람(ES)','다호(ES)'), ('하니(I)','영호(IS)'), ('영자(IN)','다호(ES)')]
FITTED = '4.1083 0.9388 4.0483 0.9707 4.2264 0.9518 0.5124 1.1198 4.0588 1.0596 3.9666 0.9472 3.9194 1.0346 4.8851 4.5387'

def rows(pairs): return torch.tensor([[WIDE.index.get_loc(a),WIDE.columns.get_loc(b)] for a,b in pairs])

def marks():
    "x:[63,2] rows in the order of the table, y:[63,1]"
    long = wide_to_long(WIDE, 'W', 'M', 'y')
    return rows(zip(long.W, long.M)),torch.tensor(long.y.tolist())[:,None]

class Factors(nn.Module):
    def __init__(self):
        super().__init__()
        self.wf,self.wb,self.mf,self.mb = nn.Embedding(9, 2),nn.Embedding(9, 1),nn.Embedding(8, 2),nn.Embedding(8, 1)
    def forward(self, x):
        w,m = x[:,0],x[:,1]
        return torch.sigmoid((self.wf(w)*self.mf(m)).sum(1, keepdim=True)+self.wb(w)+self.mb(m))*5

class Concat(nn.Module):
    def __init__(self, *sizes):
        super().__init__()
        self.wf,self.mf,self.wb,self.mb = nn.Embedding(9, 2),nn.Embedding(8, 2),nn.Embedding(9, 1),nn.Embedding(8, 1)
        layers = [o for a,b in zip(sizes, sizes[1:]) for o in (nn.Linear(a, b),nn.ReLU())]
        self.head = nn.Sequential(*layers[:-1], nn.Sigmoid())
    def forward(self, x):
        w,m = x[:,0],x[:,1]
        return 5*self.head(torch.cat([self.wf(w),self.mf(m),self.wb(w),self.mb(m)], 1))

def descended(net, n):
    "(predictions of the last step [63,1], its loss)"
    (x,y),last = marks(),{}
    def loss_of():
        last['yhat'] = net(x)
        return ((y-last['yhat'])**2).mean()
    loss,_ = descend(torch.optim.Adam(net.parameters(), lr=0.1), loss_of, n)
    return last['yhat'].detach(),loss

def test_the_table_has_63_marks_and_9_empty_cells():
    assert WIDE.shape==(9,8) and len(marks()[1])==63 and WIDE.isna().sum().sum()==9

def test_one_hot_times_linear_is_an_embedding():
    lin,emb,ids = seeded(lambda: nn.Linear(3, 1, bias=False)),nn.Embedding(3, 1),torch.tensor([0,1,2,0,1])
    emb.weight.data = lin.weight.data.T.clone()
    assert torch.equal(lin(nn.functional.one_hot(ids, 3).float()), emb(ids))
    assert digits(emb(ids))=='-0.2002 -0.4890 0.2081 -0.2002 -0.4890'

def test_factorisation_fits_the_marks_and_fills_the_empty_cells():
    net = seeded(Factors)
    yhat,_ = descended(net, 100)
    assert digits(yhat[::4])==FITTED
    assert digits(net(rows(EMPTY)), n=3)=='3.985 4.153 4.901 0.660'

def test_collab_learner_from_the_same_start_fills_them_alike():
    dls = CollabDataLoaders.from_wide(WIDE, valid_pct=0, bs=63, seed=42, shuffle=False, device='cpu')
    net,model = seeded(Factors),DotProductBias(10, 9, n_factors=2, y_range=(0,5))
    at = {'wf':WIDE.index.get_indexer(dls.classes['W'].index), 'mf':WIDE.columns.get_indexer(dls.classes['M'].index)}
    for ours,theirs,r in (('u_weight','wf','wf'), ('u_bias','wb','wf'), ('i_weight','mf','mf'), ('i_bias','mb','mf')):
        getattr(model, ours).weight.data[1:] = getattr(net, theirs).weight.data[at[r]]
    learn = collab_learner(dls, arch=model, opt_func=partialler(OptimWrapper, opt=torch.optim.Adam))
    fit(learn, 100, 0.1)
    assert digits(learn.predict(*zip(*EMPTY)), n=3)=='3.985 4.153 4.901 0.660'

def test_one_linear_layer_on_concatenated_factors_fails():
    assert descended(seeded(lambda: Concat(6, 1)), 1000)[1]==pytest.approx(2.00, abs=0.02)

def test_two_hidden_layers_fit_and_fill_as_the_document_does():
    net = seeded(lambda: Concat(6, 15, 15, 1))
    assert descended(net, 1000)[1]<0.001
    got = net(rows([('옥순(IN)','영철(IN)'), ('영자(IN)','다호(ES)'), ('하니(I)','영호(IS)')])).flatten().tolist()
    assert got==pytest.approx([4.0098, 0.5043, 4.9727], abs=0.2)

def test_fill_wide_keeps_what_is_known_and_finds_the_letters():
    learn = collab_learner(CollabDataLoaders.from_wide(WIDE, valid_pct=0, bs=63, seed=42), n_factors=2, y_range=(0,5))
    fit_one_cycle(learn, 200, 0.1)
    full,known = learn.fill_wide().loc[WIDE.index,WIDE.columns],WIDE.notna().to_numpy()
    assert (full.to_numpy()[known].astype('float32')==WIDE.to_numpy()[known].astype('float32')).all()
    assert min(full.loc[o] for o in EMPTY[:3])>3 and full.loc[EMPTY[3]]<1.5
