"What tests/learner/test_distributed.py runs twice at a time, and imports: trains, and writes what came of it; `python two_processes.py folder`"
import json
import sys
import warnings
from pathlib import Path

warnings.filterwarnings('ignore')
import torch
from fastai.callback.core import Callback
from fastai.callback.tracker import SaveModelCallback
from torch import nn

from recfast import joint
from recfast.core import RecfastError, process_rank
from recfast.data.loaders import CollabDataLoaders
from recfast.learner import collab_learner
from recfast.losses import BPRLoss, MaskedMSE, RMSELoss, SoftmaxLoss
from recfast.models.autorec import AutoRec
from recfast.models.ease import EASE
from recfast.models.ncf import EmbeddingNN
from recfast.testing import synth_ratings

DF = synth_ratings()[:500].assign(w=lambda o: 1.+o.user_id%3)
rank,n = process_rank()

class Sometimes(nn.Module):
    "A model whose last parameter gets a gradient from the rows of one user"
    def __init__(self, n_users, n_items, n_factors, y_range):
        super().__init__()
        self.u,self.i,self.late = nn.Embedding(n_users, n_factors),nn.Embedding(n_items, n_factors),nn.Parameter(torch.ones(1))
    def forward(self, x):
        s = (self.u(x[:,0])*self.i(x[:,1])).sum(1, keepdim=True)
        mine = x[:,:1]==1
        return torch.where(mine, s*self.late, s) if mine.any() else s

class NoEvents(Callback):
    "Asks for fastai's plain loop"
    def after_batch(self): pass

def pairs(**kwargs): return CollabDataLoaders.from_df(DF, bs=63, seed=42, **kwargs)
def clicks(**kwargs): return CollabDataLoaders.implicit_from_df(DF.drop(columns='w'), threshold=3, bs=62, seed=1, **kwargs)
def learner(dls, loss=None, **kwargs): return collab_learner(dls, loss_func=loss, **{'n_factors': 5, 'y_range': (0,5.5), **kwargs})
def raw(dls, loss): return learner(dls, loss, y_range=None)

LEARNERS = { # name -> (a learner, arguments of its fit, of distrib_ctx)
    'mse': (lambda: learner(pairs()), {}, {}),
    'large': (lambda: learner(pairs()), {}, {}), # gradients that are sent one by one
    'plain': (lambda: learner(pairs()), dict(cbs=[NoEvents()]), {}),
    'weights': (lambda: learner(pairs(weight_name='w')), {}, {}),
    'bpr': (lambda: raw(clicks(n_neg=3), BPRLoss()), {}, {}),
    'softmax': (lambda: raw(clicks(n_neg=0), SoftmaxLoss()), {}, {}),
    'rows': (lambda: learner(CollabDataLoaders.rows_from_df(DF, 'item', bs=7, seed=42), MaskedMSE(), arch=AutoRec), {}, {}),
    'own': (lambda: learner(pairs(), arch=Sometimes), {}, {}),
    'shard': (lambda: learner(pairs()), dict(cbs=[SaveModelCallback(monitor='valid_loss', with_opt=True)]), dict(shard=True)),
}

def trained(name, out):
    make,fitting,how = LEARNERS[name]
    joint.PACKED = 10 if name=='large' else 2**20
    learn = make()
    learn.path = out
    exact = {} if n>1 or 'cbs' in fitting else dict(fast='exact')
    with learn.distrib_ctx(**how):
        with learn.quiet(): learn.fit_one_cycle(2, 1e-2, wd=.1, **fitting, **exact)
        inside = learn.recommend([1,2], k=5, exclude_seen=False).score.tolist() if name in ('mse','shard') else []
        learn.save(name)
    scores = learn.recommend([1,2], k=5, exclude_seen=False).score.tolist()
    learn.save_bundle(out/f'{name}.recfast')
    losses = [o.item() for o in learn.recorder.losses]
    return dict(losses=losses, values=[[*map(float, v)] for v in learn.recorder.values], scores=scores, inside=inside, fast=repr(learn.fast))

def refused(make, fit=lambda learn: None, **how):
    learn = make()
    try:
        with learn.distrib_ctx(**how), learn.quiet(): fit(learn)
    except RecfastError as e: return str(e)

def refusals():
    "What several processes cannot share says so"
    yield refused(lambda: learner(clicks(), arch=EASE, y_range=None))
    yield refused(lambda: learner(pairs(), arch='auto', n_factors=None))
    yield refused(lambda: learner(pairs(), RMSELoss()))
    yield refused(lambda: learner(CollabDataLoaders.from_df(DF, bs=63, seed=rank)))
    yield refused(lambda: learner(pairs()), lambda o: o.lr_find())
    yield refused(lambda: learner(pairs(), arch=EmbeddingNN), shard=True)

if __name__=='__main__':
    out = Path(sys.argv[1])
    res = {name: trained(name, out) for name in LEARNERS}
    (out/f'{rank}.json').write_text(json.dumps(dict(res, refused=[*refusals()])))
