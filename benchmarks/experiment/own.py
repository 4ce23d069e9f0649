"A model and a metric of one's own, for exp.toml"
import numpy as np
import torch
from fastai.layers import Embedding
from fastai.torch_core import Module
from recfast.registry import metric

class Distance(Module):
    "People and items as points: what is near is liked, and what is popular has a head start (after Hsieh et al., 2017)"
    def __init__(self, n_users, n_items, n_factors=32, y_range=None):
        self.u_weight,self.i_weight,self.i_bias = Embedding(n_users, n_factors),Embedding(n_items, n_factors),Embedding(n_items, 1)

    def forward(self, x):
        users,items = x[:,0],x[:,1]
        apart = (self.u_weight(users)-self.i_weight(items)).pow(2).sum(1, keepdim=True)
        return self.i_bias(items)-apart

    def score_items(self, users):
        u,v = self.u_weight(users),self.i_weight.weight
        return self.i_bias.weight.T-torch.cdist(u, v).pow(2)

@metric('tail_hits')
def tail_hits(items, hits, counts, k):
    "Hits that are not among the tenth of the items that most people have, per list"
    top = np.quantile(counts[counts>0], .9)
    return (hits&(counts[items]<top)).sum(1)/k
