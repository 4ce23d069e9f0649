"Two arms of an experiment: one number a person, few false alarms, and a lift that is there is found"
import json

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from recfast.ab import ab, by_person, one_arm, ratio_p
from recfast.cli import app
from recfast.core import RatingsError

def events(rates, n, seed, share=.5):
    "A view of everybody, and clicks: people click at rates of their own, times that of their arm"
    rng = np.random.default_rng(seed)
    arm = (rng.random(n)<share).astype(int)
    clicks = rng.poisson(np.array(rates)[arm]*rng.gamma(4, .25, n))
    user = np.repeat(np.arange(n), clicks+1)
    kind = np.where(np.r_[True,user[1:]!=user[:-1]], 'view', 'click')
    return pd.DataFrame(dict(user_key=user, arm=np.array(['old','new'])[arm[user]], kind=kind))

def test_one_run_in_twenty_is_a_false_alarm():
    rows = [ab(events([2,2], 300, s), base='old', n_boot=300, seed=s).table.loc['new'] for s in range(500)]
    alarms = np.mean([not o.lift_low<0<o.lift_high for o in rows])
    assert .03<=alarms<=.07, alarms

def test_a_lift_of_a_tenth_is_found():
    found = [ab(events([2,2.2], 6000, s), base='old', n_boot=500) for s in range(5)]
    assert all(o.table.lift_low['new']>0 and 'beyond chance' in o.verdict for o in found)
    assert all(o.table.lift_low['new']<.1<o.table.lift_high['new'] for o in found)

def test_clicks_of_one_person_are_one_number():
    df = pd.DataFrame(dict(user_key=[1,1,1,2,3], arm=list('aaaab'), kind=['click']*3+['view']*2, value=[2,None,1,None,5]))
    assert by_person(df).total.tolist()==[4,0,0]

def test_people_of_two_arms_are_left_out_and_counted():
    df = events([2,2], 200, 0)
    found = ab(pd.concat([df,df[:1].assign(arm='old'),df[:1].assign(arm='new')]))
    assert found.left_out==1 and found.table.people.sum()==199

def test_lost_people_are_noticed_before_the_lift_is_told():
    df = events([2,3], 2000, 0)
    lost = df[(df.arm=='old')|(df.user_key%4>0)]
    found = ab(lost, base='old')
    assert found.ratio_p<.001 and 'not dealt out' in found.verdict
    assert ab(events([2,2], 2000, 1, share=.1), shares=dict(old=.9, new=.1)).ratio_p>.001

def test_each_model_of_an_arm_has_a_row():
    df = events([2,2], 100, 0)
    found = ab(df.assign(digest=np.where(df.user_key<50, 'x', 'y')))
    assert found.by_digest.people.sum()==100 and len(found.by_digest)==4

@pytest.mark.parametrize('change,kwargs,said', [(lambda o: o.drop(columns='arm'),{},'no column'), (lambda o: o.assign(arm='a'),{},'expected two at least'),
    (lambda o: o,dict(metric='buy'),"no event is of kind 'buy'"), (lambda o: o,dict(base='best'),"arms 'best'"), (lambda o: o,dict(shares=dict(old=1.)),"arms 'new'"),
    (lambda o: o[(o.kind=='view')|(o.arm=='new')],dict(base='old'),'nobody of arm')])
def test_what_cannot_be_compared_is_said(change, kwargs, said):
    with pytest.raises(RatingsError, match=said): ab(change(events([2,2], 50, 0)), **kwargs)

def test_nothing_given_is_changed():
    df = events([2,2], 50, 0)
    before = df.copy()
    ab(df)
    pd.testing.assert_frame_equal(df, before)

def test_a_shell_says_what_the_library_says(tmp_path):
    df = events([2,2.6], 400, 0)
    df.to_parquet(tmp_path/'e.parquet')
    res = CliRunner().invoke(app, ['ab',str(tmp_path/'e.parquet'),'--base','old','--share','old=.5','--share','new=.5','--out',str(tmp_path/'x.json')])
    want = ab(df, base='old')
    assert res.exit_code==0, res.output
    told = json.loads((tmp_path/'x.json').read_text(encoding='utf-8'))
    assert told['verdict']==want.verdict and told['arms']['new']['lift']==pytest.approx(want.table.lift['new'])
    assert CliRunner().invoke(app, ['ab',str(tmp_path/'e.parquet'),'--share','new']).exit_code==2

def test_two_arms_as_they_should_be_are_no_alarm(): assert ratio_p([500,500])==1 and one_arm(by_person(events([2,2], 20, 0)))[1]==0
