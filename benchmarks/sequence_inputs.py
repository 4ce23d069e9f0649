"""What SASRec gains by reading times and ratings, and by another attention: tried on validation, not in the package

Leave-two-out in the order of the table; fitted without both, measured on the row before the last only, all items ranked, seen items left out. The recipe of
minutes of `sasrec.py` on MovieLens-1M, a smaller one on MovieLens-100k. `gaps` adds to each event the vector of its time since the one before
(powers of two of a second), `ratings` that of its rating, to vectors of item and place; `hstu` puts in the place of each block a gated one whose attention
is a SiLU over relative places instead of a softmax (Zhai et al., 2024). MovieLens-1M: four of five times are estimates between known ones, so there gaps say
little; MovieLens-100k has real times. Seconds are of one thread of a processor.
"""
import json
import warnings
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from common import RESULTS,Timer,arguments,machine,peak_memory_mb,versions,write_json
from sasrec import RECIPES
from sequences import loaders,measured
from torch import nn

from recfast.all import SASRec,collab_learner,ml_1m,ml_100k
from recfast.data.sequences import Histories
from recfast.data.windows import WindowDL,random_windows

RECIPE = {'ml-1m': {k: v for k,v in RECIPES['ml-1m'].items() if k!='beside'},
    'ml-100k': dict(n_factors=64, seq_len=50, bs=20, targets=1/3, config=dict(n_layers=2, n_heads=2, p=.2), n_epoch=9, lr=3e-3, wd=.01)}
ITEM,GAP,RATING = (1<<20)-1,20,28 # where a number holds what an event was

def rows_of(data):
    "The table in order, how many rows of its user follow each, and [N] numbers of gap and rating"
    if data=='ml-1m': df = ml_1m().dropna(subset=['position']).sort_values(['user_id','position'], kind='stable')
    else: df = ml_100k().sort_values(['user_id','timestamp'], kind='stable')
    df = df.reset_index(drop=True)
    by = df.groupby('user_id')
    df['position'] = by.cumcount()
    gap = by.timestamp.diff()
    bucket = np.where(gap.isna(), 0, 1+np.floor(np.log2(1+gap.fillna(0)))).astype(np.int64)
    codes = torch.from_numpy(bucket<<GAP | df.rating.to_numpy(np.int64)<<RATING)
    return df[['user_id','item_id','position']],by.cumcount(ascending=False).to_numpy(),codes

class Coded(WindowDL):
    "Windows whose x tells gap and rating too"
    def _windows_at(self, begin, n, gen):
        x,y = super()._windows_at(begin, n, gen)
        return x,y&ITEM

class Reads(SASRec):
    "SASRec of such windows"
    codes = None # [N] of the rows of training, in order
    def __init__(self, gaps=False, ratings=False, **kwargs):
        super().__init__(**kwargs)
        K = self.i_weight.embedding_dim
        self.gap,self.rating = nn.Embedding(40, K) if gaps else None,nn.Embedding(6, K) if ratings else None
        for o in (self.gap,self.rating):
            if o is not None: nn.init.normal_(o.weight, std=.02)

    def attach(self, rows):
        h = coded(rows, self.codes)
        self._last = h.last(torch.arange(len(h.stops)), self.seq_len)

    def _states(self, x, places=None, mask=None):
        there = (x>0)[...,None]
        h = self.i_weight(x&ITEM)+self.place[:x.shape[1]]
        if self.gap is not None: h = h+self.gap((x>>GAP)&255)*there
        if self.rating is not None: h = h+self.rating(x>>RATING)*there
        h = self.drop(h)
        for block in self.blocks: h = block(h)
        return self.norm(h)

def coded(rows, codes):
    h = Histories(rows)
    h.items = h.items|codes
    return h

class Gated(nn.Module):
    "A block of HSTU"
    def __init__(self, K, n_heads, L, drop):
        super().__init__()
        self.norm1,self.norm2,self.n_heads,self.drop = nn.LayerNorm(K),nn.LayerNorm(K),n_heads,drop
        self.inner,self.out = nn.Linear(K, 4*K, bias=False),nn.Linear(K, K)
        self.back = nn.Parameter(torch.zeros(n_heads, L))
        nn.init.normal_(self.inner.weight, std=.5*K**-.5)
        nn.init.normal_(self.out.weight, std=.02)
        nn.init.zeros_(self.out.bias)

    def forward(self, h, mask=None):
        B,L,K = h.shape
        u,v,q,k = F.silu(self.inner(self.norm1(h))).chunk(4, -1)
        v,q,k = (o.view(B, L, self.n_heads, -1).transpose(1, 2) for o in (v,q,k))
        i = torch.arange(L)
        apart = i[:,None]-i
        a = F.silu(q@k.transpose(-1, -2)+self.back[:,apart.clamp(min=0)])*(apart>=0)
        read = ((a@v)/(1+i[:,None])).transpose(1, 2).reshape(B, L, K)
        return h+self.drop(self.out(self.norm2(read)*u))

class HSTU(SASRec):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        K,n = self.i_weight.embedding_dim,kwargs['n_heads']
        self.blocks = nn.ModuleList(Gated(K, n, self.seq_len, self.drop) for _ in self.blocks)

def trained(r, df, left, codes, what, seed):
    "Figures on the row before the last, and what the training took"
    from fastai.optimizer import Adam
    dls = random_windows(loaders(df, left>1, seq_len=r['seq_len'], bs=r['bs'], seed=seed), r['targets'])
    reads = [o for o in ('gaps','ratings') if o in what.split('+')]
    with Timer() as t:
        if reads:
            Reads.codes = codes[torch.from_numpy(left>1)]
            dls.train.__class__ = Coded
            dls.train.hist = coded(dls.interactions('train'), Reads.codes)
        arch = Reads if reads else HSTU if what=='hstu' else SASRec
        config = dict(r['config'], seq_len=r['seq_len'], align='left', **dict.fromkeys(reads, True))
        opt = partial(Adam, sqr_mom=.98, eps=1e-8)
        learn = collab_learner(dls, r['n_factors'], arch=arch, config=config, init='svd', opt_func=opt, seed=seed)
        with learn.no_bar(), learn.no_logging():
            learn.fit_one_cycle(r['n_epoch'], r['lr'], wd=r['wd'], pct_start=.1, div=100., div_final=200., moms=(.9,.9,.9))
    return dict(cpu_seconds=round(t.cpu_seconds, 1), **measured(learn.model, df, left, 1)[0])

def main(data, inputs, seeds):
    torch.set_num_threads(1)
    warnings.simplefilter('ignore')
    for name in data:
        r,path = RECIPE[name],RESULTS/f'sequence_inputs__{name}.json'
        found = json.loads(path.read_text(encoding='utf-8'))['valid'] if path.exists() else {}
        table = rows_of(name)
        for seed in seeds:
            for what in inputs:
                found.setdefault(what, {})[str(seed)] = trained(r, *table, what, seed)
                print(name, what, seed, json.dumps(found[what][str(seed)]), flush=True)
                write_json(path, dict(dataset=name, recipe=r, valid=found, protocol=__doc__.strip(), peak_memory_mb=peak_memory_mb(), threads=1,
                                      versions=versions(), machine=machine()))

if __name__=='__main__':
    args = arguments(__doc__, data=list(RECIPE), inputs=['plain','gaps','ratings','hstu'], seeds=[0])
    main(args.data, args.inputs, args.seeds)
