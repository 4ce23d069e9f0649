"Groups of people and providers: gaps, ratios and exposure worked by hand, intervals, and what they refuse"
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st

from recfast.core import RatingsError
from recfast.costs import Costs, energy_meter, held_mb
from recfast.fairness import as_groups, exposure_of_lists, exposure_table, group_gap, group_means, memberships, shares_of

def test_gap_and_ratio_by_hand():
    found = group_gap([.1,.3,.8,.4,.5,np.nan], ['f','f','m','m','d','d'])
    assert found['highest']=='m' and found['lowest']=='f' # .6, .2; d has .5
    assert found['gap']==pytest.approx(.4) and found['ratio']==pytest.approx(1/3)
    assert found['gap_low']==pytest.approx(.1) and found['gap_high']==pytest.approx(.7) # of two people each: .8 or .4 less .1 or .3 at the ends

def test_people_without_a_group_or_a_value_are_left_out():
    assert group_means([1.,2.,3.,np.nan], ['a',None,'b','b']).to_dict('index')=={'a': {'n_users': 1, 'mean': 1.}, 'b': {'n_users': 1, 'mean': 3.}}

def test_one_group_is_refused():
    with pytest.raises(RatingsError, match="'a' alone"): group_gap([1.,2.], ['a','a'])

def test_a_group_without_any_quality_has_no_share_of_nothing():
    assert np.isnan(group_gap([0.,0.,0.], ['a','a','b'])['ratio']) and group_gap([0.,0.,.5], ['a','a','b'])['ratio']==0

def test_the_interval_of_a_gap_holds_it_as_often_as_it_says():
    rs,held = np.random.RandomState(0),0
    for seed in range(200):
        values = np.r_[rs.beta(2, 3, 80),rs.beta(2, 2, 80)] # means of .4 and .5
        found = group_gap(values, ['a']*80+['b']*80, n_boot=300, seed=seed)
        held += found['gap_low']<=.1<=found['gap_high']
    assert 180<=held<=199

def test_quantities_are_cut_at_their_quartiles_and_words_are_not():
    years = pd.Series(np.arange(1900, 2000), np.arange(100))
    assert as_groups(years).value_counts().to_dict()=={'1900 to 1924': 25, '1925 to 1949': 25, '1950 to 1974': 25, '1975 to 1999': 25}
    assert as_groups(pd.Series([1,2,1])).tolist()==['1','2','1'] and as_groups(pd.Series(list('abcdefghijklmn'))).nunique()==14

def test_an_item_of_several_groups_is_a_part_of_each():
    found = memberships(pd.Series(['A|B',None,'B'], [1,2,3]))
    assert found.sort_values(['item_id','group']).to_numpy().tolist()==[[1,'A',.5],[1,'B',.5],[3,'B',1.]]
    assert memberships(pd.Series([['A','B'],['B']], [1,3])).part.tolist()==[.5,.5,1.]

def test_exposure_by_hand():
    members = memberships(pd.Series(['A','B','A|B'], [1,2,3]))
    lists = pd.DataFrame(dict(user=[0,0,0,1], item_id=[1,3,9,2], rank=[1,2,3,1]))
    second,third = 1/np.log2(3),1/np.log2(4)
    given = exposure_of_lists(lists, members)
    assert given.loc[0].to_dict()=={'(none)': pytest.approx(third), 'A': pytest.approx(1+second/2), 'B': pytest.approx(second/2)}
    table = exposure_table(given, shares_of([1,2,3], members), shares_of([1,1,1,2], members))
    whole = 2+second+third
    assert table.exposure['A']==pytest.approx((1+second/2)/whole) and table.exposure['B']==pytest.approx((1+second/2)/whole)
    assert table.of_catalogue.to_dict()=={'(none)': 0, 'A': .5, 'B': .5} and table.of_train['A']==.75
    assert table.ratio['A']==pytest.approx(table.exposure['A']/.75) and np.isnan(table.ratio['(none)'])

@settings(max_examples=30, deadline=None)
@given(st.data())
def test_shares_of_exposure_add_up_and_lie_in_their_intervals(data):
    n = data.draw(st.integers(2, 30))
    rs = np.random.RandomState(data.draw(st.integers(0, 99)))
    lists = pd.DataFrame([(u,i,r+1) for u in range(n) for r,i in enumerate(rs.choice(20, 5, replace=False))], columns=['user','item_id','rank'])
    members = memberships(pd.Series(rs.choice(['A','B','A|C'], 15), range(15))) # five items are of no group
    table = exposure_table(exposure_of_lists(lists, members), shares_of(range(20), members), shares_of(lists.item_id, members), n_boot=200)
    assert table[['exposure','of_catalogue','of_train']].sum().round(9).tolist()==[1,1,1]
    assert table.exposure_low.le(table.exposure+1e-12).all() and table.exposure_high.ge(table.exposure-1e-12).all()

# costs

@pytest.mark.skipif(held_mb() is None, reason='this system does not tell what a process holds')
def test_each_block_answers_for_its_own_memory():
    with Costs() as large:
        kept = np.ones(2**24) # 134 MB
        del kept
    with Costs() as small: kept = np.ones(2**20)
    assert large.peak_mb>120 and small.peak_mb<30 and len(kept)

def test_seconds_of_the_clock_and_of_the_processor_are_two_things():
    import time
    with Costs() as c: time.sleep(.2)
    assert c.seconds>=.2 and c.cpu_seconds<.1 and c.as_json()['kwh'] is None

def test_energy_is_measured_where_codecarbon_is():
    pytest.importorskip('codecarbon')
    with Costs(energy_meter()) as c: sum(range(10**6))
    assert 0<=c.kwh<.01
