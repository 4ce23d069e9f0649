"Experiments: alike is called alike, a lift is found, and who is dealt otherwise than set is noticed"
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, strategies as st

from recfast.arms import arm_of, check_shares, compare_arms, lifts, ratio_p, rates
from recfast.core import RecfastError

HALVES = dict(a=.5, b=.5)

def values(rng, n, lift=0.):
    "Clicks of ten lists for people of different tastes"
    taste = rng.beta(2, 8, (2,n))
    return list(rng.binomial(10, taste*[[1],[1+lift]])/10)

def beyond(df): return df.lift_low[1]>0 or df.lift_high[1]<0

def test_alike_is_called_different_in_one_of_twenty():
    rng = np.random.default_rng(0)
    wrong = np.mean([beyond(lifts(values(rng, 250), 250, seed)) for seed in range(500)])
    assert .03<=wrong<=.07

def test_a_lift_of_a_tenth_is_found():
    rng = np.random.default_rng(0)
    found = lifts(values(rng, 10_000, .1))
    assert found.lift_low[1]>0 and found.lift_low[1]<.1<found.lift_high[1]

def test_dealt_otherwise_than_set_is_noticed_and_as_set_is_not():
    rng = np.random.default_rng(0)
    p = [ratio_p(dict(zip('ab', np.bincount(rng.random(2000)<.5, minlength=2))), HALVES) for _ in range(500)]
    assert np.mean(np.array(p)<.001)<=.006 and ratio_p(dict(a=1100, b=900), HALVES)<.001

@given(st.lists(st.floats(.05, 1.), min_size=2, max_size=6), st.text(max_size=20))
def test_shares_are_kept_and_a_person_stays(parts, experiment):
    shares = check_shares({str(n): o/sum(parts) for n,o in enumerate(parts)})
    dealt = [arm_of(str(u), shares, experiment) for u in range(600)]
    assert dealt==[arm_of(str(u), shares, experiment) for u in range(600)]
    for arm,share in shares.items(): assert abs(dealt.count(arm)/600-share)<6*(share*(1-share)/600)**.5

@pytest.mark.parametrize('shares', [dict(a=1.), dict(a=.5, b=.6), dict(a=-.5, b=1.5), dict(a=0., b=1.), {}, dict(a=np.nan, b=.5)])
def test_shares_that_leave_somebody_out_are_refused(shares):
    with pytest.raises(RecfastError, match='sum to 1'): check_shares(shares)

def rows(*of): return pd.DataFrame(of, columns=['request_id','kind','user_key','arm','digest'])

def test_a_person_counts_once_and_one_of_both_arms_not_at_all():
    df = rows(*[('1','impression','u','a','x')]*3, ('2','impression','u','a','x'), ('2','click','u','a','x'),
              ('3','impression','v','b','y'), ('4','impression','w','a','x'), ('5','impression','w','b','y'),
              ('6','impression','s','b','z'), ('6','click','s','b','z'), ('7','impression',None,'a','x'))
    assert rates(df).query('user_key=="u"')[['lists','events','rate']].values.tolist()==[[2,1.,.5]]
    out = compare_arms(df)
    assert out[['arm','digest','people','lists','events']].values.tolist()==[['a','x',1,2,1],['b','y',1,1,0],['b','z',1,1,1]]
    assert out.attrs['mixed']==1 and np.isnan(out.attrs['ratio_p'])

def test_what_cannot_be_compared_is_said():
    with pytest.raises(RecfastError, match='note lists by EventLog'): rates(rows(('1','impression','u',None,None)))
    with pytest.raises(RecfastError, match="no such event of a known person, there are 'click'"):
        rates(rows(('1','impression','u','a','x'), ('1','click','u','a','x')), 'buy')
    with pytest.raises(RecfastError, match="the log has arms 'a', 'b'"): ratio_p(dict(a=1, b=2), dict(a=.5, c=.5))
