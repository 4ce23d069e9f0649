"Windows cut anew: each question once, hardly any padding, the same for the same seed and epoch"
import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings

from recfast.data.loaders import CollabDataLoaders
from recfast.data.windows import WindowDL, by_length, random_cuts, random_windows
from recfast.testing import synth_ratings

@given(st.lists(st.integers(0, 40), min_size=1, max_size=12), st.integers(1, 9), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_each_question_stands_in_one_window(n_asked, L, seed):
    of,start,n = random_cuts(torch.tensor(n_asked), L, torch.Generator().manual_seed(seed))
    found = sorted((u,q) for u,a,k in zip(of.tolist(), start.tolist(), n.tolist()) for q in range(a, a+k))
    assert found==[(u,q) for u,m in enumerate(n_asked) for q in range(m)] and (n<=L).all() and (n>0).all()

@given(st.lists(st.integers(1, 30), min_size=1, max_size=60), st.integers(30, 90), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_each_window_stands_in_one_batch_of_bounded_size(n, places, seed):
    n = torch.tensor(n)
    batches = by_length(n, places, torch.Generator().manual_seed(seed))
    assert sorted(torch.cat(batches).tolist())==list(range(len(n))) and all(len(o)*n[o].max()<=places for o in batches)

def logs(n_users=60, seed=0):
    "Histories of very different lengths, items in the order of their numbers"
    lengths = np.random.RandomState(seed).randint(2, 90, n_users)
    return pd.DataFrame([(u,1+j) for u,n in enumerate(lengths) for j in range(n)], columns=['user_id','item_id'])

def loaders(targets=1., seed=0, **kwargs):
    return random_windows(CollabDataLoaders.sequences_from_df(logs(), **{'seq_len':20, 'bs':8, 'seed':seed, **kwargs}), targets)

def batches(dl): return [tuple(o.clone() for o in b) for b in dl]

def test_what_comes_next_stands_one_place_on_and_padding_behind():
    for x,y in batches(loaders().train):
        assert (x[:,0]>0).all() and ((x[:,1:]>0)<=(x[:,:-1]>0)).all()
        assert torch.equal(y>0, x>0) and (y[y>0]==x[y>0]+1).all()

def test_every_question_is_asked_once_an_epoch():
    dls = loaders()
    asked = torch.cat([y[y>0] for _,y in batches(dls.train)])
    train = dls.interactions('train')
    assert len(asked)==len(train)-(train.counts('user')>0).sum()

def test_little_of_a_batch_is_padding():
    x = [x for x,_ in batches(random_windows(CollabDataLoaders.sequences_from_df(logs(900), seq_len=20, bs=8, seed=0)).train)]
    assert sum((o>0).sum() for o in x)/sum(o.numel() for o in x)>.95

def test_an_epoch_is_that_of_its_seed_and_its_number():
    a,b = loaders(.5).train,loaders(.5).train
    first,second = batches(a),batches(a)
    b.epoch = 1
    assert all(torch.equal(p, q) for o,r in zip(second, batches(b), strict=True) for p,q in zip(o, r))
    assert [o[0].shape for o in first]!=[o[0].shape for o in second] and len(loaders(seed=1).train)>0

def test_a_look_at_a_batch_changes_no_order():
    a,b = loaders(.5).train,loaders(.5).train
    a.one_batch()
    a.show_batch(show=False)
    assert torch.equal(a.one_batch()[0], next(iter(b))[0])

def test_a_share_of_the_places_is_asked():
    dl = loaders(.3).train
    x,y = (torch.cat([o.flatten() for o in part]) for part in zip(*batches(dl)))
    assert abs((y>0).sum()/(x>0).sum()-.3)<.03 and (y[y>0]==x[y>0]+1).all()

@pytest.mark.parametrize('targets', [0,-.5,1.5])
def test_no_share(targets):
    with pytest.raises(ValueError, match=f'targets={targets}, expected a share above 0'): loaders(targets)

def test_loaders_of_pairs_have_no_windows():
    with pytest.raises(TypeError, match='random_windows got a RatingDL'): random_windows(CollabDataLoaders.from_df(synth_ratings(), bs=32))

def test_a_pass_in_order_is_that_of_the_windows_from_the_end():
    dls = CollabDataLoaders.sequences_from_df(logs(), seq_len=20, bs=8, seed=0)
    mine,theirs = (o.train.new(shuffle=False) for o in (random_windows(dls, .5),dls))
    assert isinstance(mine, WindowDL) and mine.targets==.5 and len(mine)==len(theirs)
    assert all(torch.equal(p, q) for o,r in zip(batches(mine), batches(theirs), strict=True) for p,q in zip(o, r))

def test_a_batch_is_shown_with_its_last_question():
    df = loaders(.4).train.decode((torch.tensor([[1,2,0]]),torch.tensor([[2,0,0]])))
    assert df.history.tolist()==['1 | 2'] and df.next.tolist()==[2]

def test_no_window_crosses_a_gap():
    rows = [(u,10*s+j,pd.Timestamp('2024-01-01')+pd.Timedelta(hours=5*s, minutes=j)) for u in range(9) for s in range(1, 4) for j in range(4)]
    df = pd.DataFrame(rows, columns=['user_id','item_id','timestamp'])
    dls = random_windows(CollabDataLoaders.sequences_from_df(df, seq_len=20, bs=2, seed=0, hold_out=False, session_gap='30min'))
    ids = dls.train.dataset.item_vocab.items
    asked = [(ids[a],ids[b]) for x,y in batches(dls.train) for a,b in zip(x[y>0].tolist(), y[y>0].tolist())]
    assert len(asked)==9*3*3 and all(b==a+1 and a//10==b//10 for a,b in asked)
