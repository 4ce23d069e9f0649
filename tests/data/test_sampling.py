"The full grid, stratified splits and negatives"
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings, strategies as st
from sklearn.model_selection import train_test_split

from recfast.core import RatingsError
from recfast.data.sampling import NegativeSampler, PairSet, full_grid, stratified_split

pairs = st.lists(st.tuples(st.integers(1,6), st.integers(1,7)), min_size=1, max_size=30)

@settings(deadline=None)
@given(pairs)
def test_grid_equals_the_double_loop(rows):
    df = pd.DataFrame(rows, columns=['user_id','item_id'])
    grid,users,items = full_grid(df)
    slow = [(a,b,int((u,i) in rows)) for a,u in enumerate(sorted({u for u,_ in rows})) for b,i in enumerate(sorted({i for _,i in rows}))]
    assert list(grid.itertuples(index=False, name=None))==slow
    assert list(users)==sorted(df.user_id.unique()) and list(items)==sorted(df.item_id.unique())

def test_grid_of_string_ids_under_other_names():
    grid,users,items = full_grid(pd.DataFrame(dict(who=['b','a'], what=['x','x'])), 'who', 'what')
    assert list(users)==['a','b'] and list(items)==['x'] and list(grid.label)==[1,1]

def test_grid_counts_a_repeated_pair_and_a_rating_of_zero_once():
    grid,_,_ = full_grid(pd.DataFrame(dict(user_id=[1,1], item_id=[2,2], rating=[0,3])))
    assert grid.label.tolist()==[1]

def test_grid_of_a_missing_column():
    with pytest.raises(RatingsError, match="no column 'item_id'"): full_grid(pd.DataFrame(dict(user_id=[1])))

def test_grid_of_a_missing_id():
    with pytest.raises(RatingsError, match="1 missing ids"): full_grid(pd.DataFrame(dict(user_id=[1,np.nan], item_id=[1,2])))

def test_stratified_split_holds_the_shares_that_scikit_learn_holds():
    label = np.repeat([0,1,2], [700,250,50])
    ours,theirs = stratified_split(label, 0.2, seed=3),train_test_split(np.arange(1000), test_size=0.2, stratify=label, random_state=3)
    for a,b in zip(ours, theirs): assert np.bincount(label[a]).tolist()==np.bincount(label[b]).tolist()
    assert sorted(np.concatenate(ours))==list(range(1000))

def test_stratified_split_of_a_seed():
    a,b,c = (stratified_split([0,1]*50, seed=s)[1].tolist() for s in (1,1,2))
    assert a==b!=c

def test_stratified_split_of_all_rows():
    with pytest.raises(RatingsError, match='valid_pct=1'): stratified_split([0,1], 1)

@settings(deadline=None)
@given(pairs, pairs, st.sampled_from([0,2**26]))
def test_pair_set_equals_a_python_set(known, asked, room):
    has = PairSet(*torch.tensor(known).T, 8, room=room).has(*torch.tensor(asked).T)
    assert has.tolist()==[o in set(known) for o in asked]

@pytest.mark.parametrize('room', [0,2**26])
def test_pair_set_of_no_pairs(room):
    assert PairSet([], [], 5, room=room).has(torch.tensor([1,2]), torch.tensor([3,4])).tolist()==[False,False]

def test_pair_set_asked_for_users_beyond_the_known():  # row 3 of 2 users by 5 items would be cell 15 of 10
    assert PairSet([1], [4], 5).has(torch.tensor([3,1,0]), torch.tensor([0,4,4])).tolist()==[False,True,False]

@settings(deadline=None)
@given(pairs, st.sampled_from([0.,.75,1.]), st.integers(0,99))
def test_no_known_pair_and_no_item_without_a_rating_is_drawn(rows, alpha, seed):
    users,items = torch.tensor(rows).T
    counts = torch.bincount(items, minlength=9)
    free = [u for u in users.unique().tolist() if len({i for v,i in rows if v==u})<(counts>0).sum()]
    sampler = NegativeSampler(counts, PairSet(users, items, 9), alpha)
    out = sampler.draw(torch.tensor(free, dtype=torch.long), 20, torch.Generator().manual_seed(seed))
    assert out.shape==(len(free),20) and all((u,i) not in rows and counts[i]>0 for u,row in zip(free, out.tolist()) for i in row)

@pytest.mark.parametrize('alpha,shares', [(0.,[.25,.25,.25,.25]), (1.,[.5,.25,.125,.125]), (.5,[8**.5,2,2**.5,2**.5])])
def test_share_of_an_item_is_its_popularity_to_the_power_alpha(alpha, shares):
    out = NegativeSampler([0,8,4,2,2], alpha=alpha).draw(torch.tensor([1]), 40_000, torch.Generator().manual_seed(0))
    want = torch.tensor([0.]+shares)/sum(shares)
    assert (torch.bincount(out[0], minlength=5)/40_000 - want).abs().max()<.01  # four standard deviations of a share of one half

def test_a_user_who_has_rated_all_but_one_popular_item_gets_that_one():
    n = 2000
    known = PairSet([1]*(n-1), range(1,n), n+1)
    assert NegativeSampler([0]+[1]*n, known).draw(torch.tensor([1]), 50, torch.Generator().manual_seed(0)).unique().tolist()==[n]

def test_a_user_who_has_rated_everything_is_named():
    with pytest.raises(RatingsError, match='user row 3 has all 2 items'):
        NegativeSampler([0,1,1], PairSet([3,3], [1,2], 3)).draw(torch.tensor([3]), 1)

def test_no_item_with_a_rating():
    with pytest.raises(RatingsError, match='nothing to draw'): NegativeSampler([0,0])

def test_draws_are_a_function_of_the_generator():
    s,u = NegativeSampler([0,3,2,1], alpha=.5),torch.arange(50)
    a,b = (s.draw(u, 4, torch.Generator().manual_seed(7)) for _ in range(2))
    assert torch.equal(a, b) and not torch.equal(a, s.draw(u, 4, torch.Generator().manual_seed(8)))

@settings(deadline=None)
@given(pairs, st.sampled_from([0,2**26]))
def test_known_pairs_come_back_once(known, room):
    assert sorted(zip(*(o.tolist() for o in PairSet(*torch.tensor(known).T, 8, room=room).pairs())))==sorted(set(known))

@settings(deadline=None)
@given(pairs, st.sampled_from([0.,.75,1.]), st.sampled_from([0,2**26]))
def test_log_shares_are_the_weights_of_what_a_user_does_not_have(rows, alpha, room):
    users,items = torch.tensor(rows).T
    counts = torch.bincount(items, minlength=9)
    item_t,user_t = NegativeSampler(counts, PairSet(users, items, 9, room=room), alpha).log_shares(8, 9)
    w = torch.where(counts>0, counts.double()**alpha, 0.)
    for u in range(8):
        left = w[[i for i in range(9) if (u,i) not in rows]].sum()
        torch.testing.assert_close(user_t[u].exp().double(), left, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(item_t.exp().double(), w, atol=1e-5, rtol=1e-5)

def test_log_shares_when_any_pair_may_be_drawn():  # every user draws from all: 8+2
    item_t,user_t = NegativeSampler([0,8,2], alpha=1.).log_shares(3, 3)
    assert item_t.exp().tolist()==pytest.approx([0,8,2]) and user_t.exp().tolist()==pytest.approx([10]*3)

@pytest.mark.parametrize('alpha', [0.,1.])
def test_log_shares_are_the_shares_of_draws(alpha):  # user 1 does not have items 3, 4: weights 2 and 6
    sampler = NegativeSampler([0,8,4,2,6], PairSet([1,1], [1,2], 5), alpha)
    item_t,user_t = sampler.log_shares(2, 5)
    share = (sampler.draw(torch.tensor([1]), 40_000, torch.Generator().manual_seed(1))==4).double().mean()
    assert abs(share-(item_t[4]-user_t[1]).exp())<.01 and (item_t[4]-user_t[1]).exp().item()==pytest.approx([.5,.75][int(alpha)])

def test_no_negatives_for_anyone():
    assert NegativeSampler([0,3,2], PairSet([1], [1], 3)).draw(torch.tensor([1,1]), 0).shape==(2,0)

def test_tables_lie_where_they_are_asked_for():
    dev = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    sampler = NegativeSampler([0,3,2,1], PairSet([1], [1], 4, device=dev), alpha=.5, device=dev)
    out = sampler.draw(torch.tensor([1,2], device=dev), 3, torch.Generator(dev).manual_seed(0))
    assert {o.device.type for o in (out,sampler.w,sampler.known.keys,*sampler.log_shares(3, 4))}=={dev.type}
