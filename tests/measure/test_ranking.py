"Masks, the best k, ties and chunks, against a stable sort of everything"
import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy.sparse import csr_matrix

from recfast.core import RecfastError
from recfast.ranking import mask_scores, masked_top_k, rank_items, seen_pairs, top_k

def by_sorting(scores, k):
    order = np.argsort(-scores, axis=1, kind='stable')[:,:k]
    return np.take_along_axis(scores, order, 1),order

values = st.sampled_from([-np.inf,-1.,0.,.5,1.,1.,2.])

@settings(max_examples=300, deadline=None)
@given(arrays('float32', array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=25), elements=values), st.integers(1,30))
def test_the_best_k_are_those_of_a_stable_sort(scores, k):
    got,want = top_k(torch.tensor(scores), k),by_sorting(scores, k)
    for a,b in zip(got, want): assert np.array_equal(a.numpy(), b)

@pytest.mark.parametrize('scores', [torch.zeros(3,500), torch.full((3,500), -torch.inf), torch.arange(1500).reshape(3,500)//7*1.,
    torch.randint(-3, 3, (3,500), generator=torch.Generator().manual_seed(0)),
    torch.randn(3,500, generator=torch.Generator().manual_seed(0))])
@pytest.mark.parametrize('k', [1, 10, 499, 500, 900])
def test_ties_over_a_long_list(scores, k):
    got,want = top_k(scores, k),by_sorting(scores.numpy(), k)
    for a,b in zip(got, want): assert np.array_equal(a.numpy(), b)

def test_ties_at_the_cut_go_to_the_lower_row():
    vals,rows = top_k(torch.tensor([[0.,5.,3.,3.,3.,9.]]), 3)
    assert rows.tolist()==[[5,1,2]] and vals.tolist()==[[9.,5.,3.]]

def test_the_scores_given_are_not_changed():
    s = torch.tensor([[1.,2.,3.]])
    top_k(s, 2); mask_scores(s, torch.tensor([True,True,False]), ([0],[1]))
    assert s.tolist()==[[1.,2.,3.]]


def test_row_0_is_masked_without_being_asked(): assert mask_scores(torch.zeros(2,3)).tolist()==[[-torch.inf,0.,0.]]*2

def test_only_candidates_and_nothing_seen():
    out = mask_scores(torch.zeros(2,4), torch.tensor([True,True,True,False]), (torch.tensor([0,1]),torch.tensor([1,2])))
    assert (out==0).nonzero().tolist()==[[0,2],[1,1]]

def test_an_item_the_model_gave_minus_infinity_stays_above_the_masked():
    out = mask_scores(torch.tensor([[1.,-torch.inf,2.]]), seen=([0],[2]))
    assert top_k(out, 3)[1].tolist()==[[1,0,2]] and out[0,1]>-torch.inf

def test_plus_infinity_ranks_first(): assert top_k(mask_scores(torch.tensor([[0.,1.,torch.inf]])), 2)[1].tolist()==[[2,1]]

def test_integers_and_half_precision_are_scores_too():
    for dtype in (torch.int64, torch.float16, torch.bfloat16, torch.float64): assert mask_scores(torch.ones(1,2, dtype=dtype))[0,1]==1

def test_nan_is_an_error():
    with pytest.raises(RecfastError, match='NaN'): mask_scores(torch.tensor([[0.,float('nan')]]))

def test_seen_pairs_of_a_user_asked_for_twice():
    m = csr_matrix(np.array([[0,0,0],[0,1,1],[0,0,1]]))
    at,items = seen_pairs(m, np.array([1,2,1]))
    assert at.tolist()==[0,0,1,2,2] and items.tolist()==[1,2,2,1,2]

def test_seen_pairs_of_nobody(): assert [len(o) for o in seen_pairs(csr_matrix((3,4)), np.array([0,2]))]==[0,0]


TABLE = torch.randint(0, 5, (50,40), generator=torch.Generator().manual_seed(0)).float()
SEEN = csr_matrix((TABLE==2).numpy())
ONLY = torch.arange(40)%3>0

@pytest.mark.parametrize('memory', [1, 5000, 50_000])
def test_chunks_give_what_the_whole_gives(memory):
    f = lambda **kw: rank_items(lambda u: TABLE[u], np.arange(50), 12, 40, ONLY, SEEN, **kw)
    for a,b in zip(f(memory=memory, progress=False), f()): assert torch.equal(a, b)

def test_a_chunk_asks_for_no_more_users_than_fit():
    asked = []
    rank_items(lambda u: asked.append(len(u)) or TABLE[u], np.arange(50), 5, 40, memory=40*4*6*8)
    assert asked==[8,8,8,8,8,8,2]

def test_the_whole_against_a_sort_of_the_masked_table():
    vals,rows = rank_items(lambda u: TABLE[u], np.arange(50), 7, 40, ONLY, SEEN)
    dense = np.where((SEEN.toarray()>0)|~ONLY.numpy(), -np.inf, TABLE.numpy()); dense[:,0] = -np.inf
    for a,b in zip((vals,rows), by_sorting(dense, 7)): assert np.array_equal(a.numpy(), b)

def test_users_in_the_order_given():
    users = np.array([7,3,3,49])
    vals,rows = rank_items(lambda u: TABLE[u], users, 5, 40, seen=SEEN)
    whole = rank_items(lambda u: TABLE[u], np.arange(50), 5, 40, seen=SEEN)
    assert torch.equal(rows, whole[1][users]) and torch.equal(vals, whole[0][users])

def test_fewer_candidates_than_k_end_in_minus_infinity():
    two = torch.zeros(40, dtype=torch.bool); two[[4,9]] = True
    vals,rows = rank_items(lambda u: TABLE[u], np.array([1]), 5, 40, two)
    assert sorted(rows[0,:2].tolist())==[4,9] and (vals[0,:2]>-torch.inf).all() and (vals[0,2:]==-torch.inf).all()

def test_k_beyond_the_catalogue():
    vals,rows = rank_items(lambda u: TABLE[u], np.array([1]), 100, 40)
    assert rows.shape==(1,40) and (vals>-torch.inf).sum()==39  # row 0 is no candidate

def test_nobody_to_rank_for():
    vals,rows = rank_items(lambda u: TABLE[u], np.zeros(0, int), 5, 40)
    assert vals.shape==rows.shape==(0,5)

def test_nan_in_the_last_chunk_is_an_error():
    bad = TABLE.clone(); bad[49,3] = float('nan')
    with pytest.raises(RecfastError, match='NaN'): rank_items(lambda u: bad[u], np.arange(50), 5, 40, memory=10_000)


# one pass over the scores

@settings(max_examples=300, deadline=None)
@given(arrays('float32', array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=60), elements=st.sampled_from([-np.inf,-1.,0.,.5,1.,1.,2.,np.inf])),
       st.integers(1,5), st.integers(0,9999), st.sampled_from([0.,.1,.6,1.]), st.sampled_from([1,2,4]))
def test_blocks_give_what_a_sort_of_the_masked_scores_gives(scores, k, seed, closed, block):
    rs,(n,m) = np.random.RandomState(seed),scores.shape
    only,seen = torch.tensor(rs.rand(m)>=closed),tuple(torch.tensor(rs.randint(0, o, rs.randint(0, 2*m))) for o in (n,m)) if seed%3 else None
    if seen is not None: seen = tuple(o[:min(map(len, seen))] for o in seen)
    got,want = (masked_top_k(torch.tensor(scores), k, only, seen, block), by_sorting(mask_scores(torch.tensor(scores), only, seen).numpy(), k))
    assert np.array_equal(got[0].numpy(), want[0])
    taken = want[0]>-np.inf
    assert np.array_equal(got[1].numpy()[taken], want[1][taken])

MANY = torch.randint(0, 50, (7,3001), generator=torch.Generator().manual_seed(1)).float()

@pytest.mark.parametrize('scores', [MANY, torch.zeros(7,3001), torch.full((7,3001), -torch.inf), MANY.int(), MANY.half(), MANY.double(), MANY[:1].expand(7,-1), MANY.T.contiguous().T])
def test_many_columns_of_any_kind(scores):
    before,seen = scores.clone(),(torch.arange(7).repeat_interleave(400),MANY[:,:400].argsort(1).flatten())
    got,want = masked_top_k(scores, 9, None, seen),top_k(mask_scores(scores, None, seen), 9)
    for a,b in zip(got, want): assert torch.equal(a, b)
    assert torch.equal(scores, before)

@pytest.mark.parametrize('at', [0, 5, 130, 2999, 3000])
def test_nan_anywhere_is_an_error_masked_or_not(at):
    bad = MANY.clone(); bad[3,at] = float('nan')
    for only,seen in ((None,None), (torch.arange(3001)!=at,None), (torch.arange(3001)==7,None), (None,([3],[at]))):
        with pytest.raises(RecfastError, match='NaN'): masked_top_k(bad, 3, only, seen)

def test_a_user_who_has_seen_nearly_everything():
    seen = torch.zeros(2995, dtype=torch.int64),torch.arange(3,2998)
    vals,rows = masked_top_k(MANY[:1], 9, None, seen)
    assert sorted(rows[0,:5].tolist())==[1,2,2998,2999,3000] and (vals[0,5:]==-torch.inf).all()
