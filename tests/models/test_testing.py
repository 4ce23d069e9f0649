"The contract, held against a stand-in that keeps it and against ones that break one clause each"
from contextlib import nullcontext
from types import SimpleNamespace as NS

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from recfast.testing import block_ratings, check_model, synth_ratings


def test_synth_ratings_sizes_and_types():
    df = synth_ratings(20, 10, density=.25)
    assert len(df)==50 and list(df)==['user_id','item_id','rating','timestamp'] and df.rating.dtype=='float32'
    assert df.user_id.between(1,20).all() and df.item_id.between(1,10).all() and not df.duplicated(['user_id','item_id']).any()

def test_synth_ratings_same_seed_same_frame():
    assert synth_ratings(seed=3).equals(synth_ratings(seed=3)) and not synth_ratings(seed=3).equals(synth_ratings(seed=4))

def test_synth_ratings_stay_in_their_range():
    assert synth_ratings(low=0., high=1., noise=2.).rating.between(0,1).all()

def test_synth_ratings_are_of_low_rank():
    table = synth_ratings(density=1., noise=0., low=-4., high=4.).pivot(index='user_id', columns='item_id', values='rating').to_numpy()
    energy = np.linalg.svd(table, compute_uv=False)**2
    assert energy[:2].sum()>.9*energy.sum()  # centred on 0, so n_factors=2 directions hold all but what clipping bends

def test_block_ratings_leave_the_answer_out():
    df = block_ratings(6, 4)
    assert len(df)==6*4-6
    seen = set(zip(df.user_id-1, df.item_id-1))
    assert all((u,u%4) not in seen for u in range(6))

def test_block_ratings_checkerboard():
    df = block_ratings(4, 4, hold_out=False)
    assert len(df)==16 and ((df.rating==5)==(df.user_id%2==df.item_id%2)).all()


class Dot(nn.Module):
    def __init__(self, n_users, n_items, seed):
        super().__init__()
        g = torch.Generator().manual_seed(seed)
        self.y_range = (0.,6.)
        self.u_weight,self.i_weight = (nn.Parameter(torch.randn(n,4,generator=g)*.3) for n in (n_users,n_items))
    def forward(self, x): return torch.sigmoid((self.u_weight[x[:,0]]*self.i_weight[x[:,1]]).sum(1, keepdim=True))*6

class Stub:
    "The smallest Learner that keeps the contract"
    def __init__(self, seed=0):
        df = block_ratings(8, 10).query('(user_id+item_id)%7!=0')
        self.x = torch.as_tensor(df[['user_id','item_id']].to_numpy().copy())
        self.y = torch.as_tensor(df[['rating']].to_numpy().copy())
        seen = NS(users=self.x[:,0], items=self.x[:,1])
        classes = {'user_id':['#na#',*range(1,9)], 'item_id':['#na#',*range(1,11)]}
        self.dls = NS(classes=classes, interactions=lambda split: seen, test_dl=lambda df: df[['user_id','item_id']].to_numpy())
        self.model,self.recorder = Dot(9, 11, seed),NS(values=[])
    def no_bar(self): return nullcontext()
    no_logging = no_bar
    def fit_one_cycle(self, n_epoch, lr):
        opt = torch.optim.Adam(self.model.parameters(), lr)
        for _ in range(n_epoch):
            for _ in range(5): loss = ((self.model(self.x)-self.y)**2).mean(); opt.zero_grad(); loss.backward(); opt.step()
            self.recorder.values.append([loss.item(), loss.item()])
    def lr_find(self, show_plot=True): pass
    def get_preds(self, dl):
        with torch.no_grad(): return self.model(torch.as_tensor(dl)),None
    def _rows(self, ids, n):
        for o in ids:
            if o not in range(1, n): raise KeyError(o)
        return list(ids)
    def predict(self, users, items):
        if np.isscalar(users): return float(self.predict([users], [items])[0])
        x = np.stack([self._rows(users, 9), self._rows(items, 11)], 1)
        return self.get_preds(x)[0].numpy()[:,0]
    def recommend(self, user_ids=None, k=10, *, history=None, exclude_seen=True):
        if history: return self._list(0, np.arange(11.), set(history)|{0}, k)
        seen = lambda u: set(self.x[self.x[:,0]==u,1].tolist()) if exclude_seen else set()
        self._rows(user_ids, 9)
        return pd.concat([self._list(u, np.array([-1,*self.predict([u]*10, range(1,11))]), seen(u)|{0}, k) for u in user_ids])
    def _list(self, u, scores, drop, k):
        top = [o for o in np.argsort(-scores, kind='stable') if o not in drop][:k]
        return pd.DataFrame(dict(user_id=u, item_id=top, score=scores[top], rank=range(1, len(top)+1)))
    def similar_items(self, item, k): return self._list(item, np.arange(11.), {0,item}, k).rename(columns={'user_id':'query_id'})
    def evaluate(self, k): return {}
    def save(self, name): torch.save(self.model.state_dict(), self.path/name)
    def load(self, name): self.model.load_state_dict(torch.load(self.path/name))


def test_a_learner_that_keeps_the_contract(): check_model(Stub)

class Refuses(Stub):
    def similar_items(self, item, k): raise NotImplementedError("no item vectors")

def test_a_declared_gap_that_refuses(): check_model(Refuses, caps={'similar_items': False})

def test_a_gap_that_was_not_declared():
    with pytest.raises(NotImplementedError, match='no item vectors'): check_model(Refuses)

def test_a_declared_gap_that_answers():
    with pytest.raises(AssertionError, match='declared False but gave an answer'): check_model(Stub, caps={'similar_items': False})

def test_a_crash_is_no_refusal():
    class Crash(Stub):
        def similar_items(self, item, k): return 1/0
    with pytest.raises(ZeroDivisionError): check_model(Crash, caps={'similar_items': False})

def test_a_capability_that_does_not_exist():
    with pytest.raises(ValueError, match="did you mean 'item_bias'"): check_model(Stub, caps={'item_biases': True})

class Solved(Stub):
    def fit_one_cycle(self, n_epoch, lr): self.recorder.values = [[float('nan'), 1.]]
    def lr_find(self, show_plot=True): raise RuntimeError("nothing to find")

def test_a_closed_form_model(): check_model(Solved, caps={'gradient': False})

def test_a_closed_form_model_that_was_not_declared():
    with pytest.raises(AssertionError, match='training loss went nan'): check_model(Solved)

def test_a_learner_that_may_rank_but_not_look_for_a_rate():
    with pytest.raises(AssertionError, match='expected NaN'): check_model(Stub, caps={'gradient': False})


def edit(name, f):
    "A Stub whose method `name` gives `f(result)`"
    return type('Broken', (Stub,), {name: lambda self, *a, **kw: f(getattr(Stub, name)(self, *a, **kw))})

def batch_only(f): return lambda p: p if isinstance(p, float) else f(p)

class Noisy(Stub):
    def recommend(self, *a, **kw): self.model.eval(); return super().recommend(*a, **kw)

class Forgets(Stub):
    def load(self, name): pass

class Learns(Stub):
    def evaluate(self, k): self.fit_one_cycle(1, .1)

class Welcomes(Stub):
    def _rows(self, ids, n): return [o if o in range(1, n) else 0 for o in ids]

class Unseeded(Stub):
    n = 0
    def __init__(self): Unseeded.n += 1; super().__init__(Unseeded.n)

class Still(Stub):
    def fit_one_cycle(self, n_epoch, lr): self.recorder.values = [[1.,1.]]*n_epoch

class Seen(Stub):
    def recommend(self, user_ids=None, k=10, *, history=None, exclude_seen=True): return super().recommend(user_ids, k, history=history, exclude_seen=False)

@pytest.mark.parametrize('broken,message', [
    (edit('predict', batch_only(lambda p: p[:,None])), 'expected \\(36,\\)'),
    (edit('predict', batch_only(lambda p: p*np.nan)), 'not finite'),
    (edit('predict', batch_only(lambda p: p+6)), 'left y_range'),
    (edit('predict', lambda p: p+.01 if isinstance(p, float) else p), 'batch against one by one'),
    (edit('predict', lambda p: np.float32(p) if isinstance(p, float) else p), 'expected a float'),
    (edit('get_preds', lambda r: (r[0]+torch.arange(len(r[0]))[:,None]*1e-3, None)), 'one by one'),
    (edit('recommend', lambda r: r.iloc[1:]), 'rows of'),
    (edit('recommend', lambda r: r.rename(columns={'score':'pred'})), 'gave the columns'),
    (edit('recommend', lambda r: r.assign(score=-r.score)), 'scores rise'),
    (edit('recommend', lambda r: r.assign(score=r.score*.99)), 'against predict'),
    (edit('recommend', lambda r: r.assign(rank=r['rank']-1)), 'ranks or items repeat'),
    (edit('recommend', lambda r: r.assign(item_id='#na#')), "'#na#'"),
    (edit('similar_items', lambda r: r[:0]), 'gave no rows'),
    (Seen, 'seen, unknown'), (Noisy, 'recommend changed the training flag from True'), (Forgets, 'save and load'), (Learns, 'weights before and after evaluate'),
    (Welcomes, 'unknown user 9'), (Unseeded, 'two new learners of one seed'), (Still, 'training loss went 1.0000'),
])
def test_a_learner_that_breaks_one_clause(broken, message):
    with pytest.raises(AssertionError, match=message): check_model(broken)
