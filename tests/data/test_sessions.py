"Sessions: where they end, that nothing is read or counted across a gap, what is held out, every door keeps them"
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings, strategies as st

from helpers import ALL, SEQUENCES, fit
from recfast.bundle import load_bundle
from recfast.by_history import TrainedHistories
from recfast.core import RatingsError
from recfast.data.loaders import CollabDataLoaders
from recfast.data.sequences import Histories
from recfast.data.sessions import leave_two_out, session_numbers
from recfast.learner import collab_learner
from recfast.models.rules import lag_counts
from recfast.models.two_speed import decayed_counts

pytestmark = pytest.mark.filterwarnings('ignore')

def frame(**visits):
    "Users by name: words are sessions, letters items, an hour between sessions, a minute between items"
    rows,t = [],0
    for user,words in visits.items():
        for word in words.split():
            for c in word: rows.append((user,c,t := t+60))
            t += 3600
    return pd.DataFrame(rows, columns=['user_id','item_id','timestamp'])

def shop(n_users=40, n_items=10, seed=0):
    "Each session walks a circle from a place of its own"
    rng = np.random.default_rng(seed)
    walks = {f'u{u}': ' '.join(''.join(chr(97+(s+j)%n_items) for j in range(rng.integers(1, 5))) for s in rng.integers(0, n_items, 4))
             for u in range(n_users)}
    return frame(**walks)

def build(df, **kwargs): return CollabDataLoaders.sequences_from_df(df, **{'bs':1, 'seed':0, 'seq_len':4, 'session_gap':'30min', **kwargs})
def letters(dls, x): return [''.join('.' if not i else dls.classes['item_id'][i] for i in r) for r in x.tolist()]
def windows(dls):
    dl = dls.train
    return sorted(zip(*(letters(dls, o) for o in dl.batch_at(torch.arange(dl.n)))))

@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0,3), st.integers(0,99)), min_size=1, max_size=30), st.integers(1,40))
def test_sessions_are_those_of_a_plain_loop(rows, gap):
    users,times = (np.array(o) for o in zip(*rows))
    want = np.zeros(len(rows), int)
    for u in set(users):
        at = [i for i in np.argsort(times, kind='stable') if users[i]==u]
        for a,b in zip(at, at[1:]): want[b] = want[a]+(times[b]-times[a]>gap)
    assert session_numbers(users, pd.Series(times), gap).tolist()==want.tolist()

@pytest.mark.parametrize('gap', ['30min',1800,pd.Timedelta('30min')])
@pytest.mark.parametrize('dates', [False,True])
def test_a_gap_in_words_numbers_and_of_dates(gap, dates):
    df = frame(a='xy z', b='yx')
    if dates: df['timestamp'] = pd.to_datetime(df.timestamp, unit='s')
    if dates and gap==1800:
        with pytest.raises(RatingsError, match="such as '30min'"): build(df, session_gap=gap)
    else:
        dls = build(df, session_gap=gap)
        assert dls.report['sessions']==3 and dls.train_ds.session_gap==(gap if gap in ('30min',1800) else '1800s')

@pytest.mark.parametrize('kwargs,says', [(dict(session_gap='soon'),"session_gap='soon': expected text"), (dict(session_gap=0),'session_gap=0, expected a number above 0'),
    (dict(context='visit'),"context='visit', expected 'session' or 'all'"), (dict(valid_pct='20%'),'valid_pct')])
def test_words_that_are_none(kwargs, says):
    with pytest.raises(RatingsError, match=says): build(frame(a='xyz xy', b='xy'), **kwargs)

def test_sessions_need_times():
    with pytest.raises(RatingsError, match='needs times: name their column by time_name='): build(frame(a='xyz')[['user_id','item_id']])

def test_milliseconds_are_no_seconds():
    df = frame(a='xyz').assign(timestamp=lambda o: o.timestamp*1000+1_700_000_000_000)
    with pytest.raises(RatingsError, match='no seconds since 1970'): build(df)

def test_windows_do_not_cross_a_gap():
    df = frame(a='abc de', b='xy')
    assert windows(build(df, hold_out=False))==[('...d','...e'),('...x','...y'),('..ab','..bc')]
    assert windows(build(df, hold_out=False, context='all'))==windows(build(df, hold_out=False, session_gap=None))==[('...x','...y'),('abcd','bcde')]
    assert windows(build(df, hold_out=False, seq_len=1))==sorted(zip('abdx','bcey'))

def test_users_stay_users():
    dls = build(frame(a='abc de', b='xy'), hold_out=False)
    assert dls.report['users']==2 and dls.interactions('all').of_user(1).frame().item_id.tolist()==list('abcde')

def test_the_last_session_is_asked_about():
    dls = build(frame(a='abc def', b='xyz', c='ab d'))
    x,y = dls.valid.batch_at(torch.arange(dls.valid.n))
    assert sorted(zip(letters(dls, x), letters(dls, y)))==[('..de','....'),('..xy','....')] # f and z were never trained on
    assert dls.report['opens_session']==1 and dls.report['n_valid']==2 # of c nothing is held out
    both = build(frame(a='abc def', b='xyz', c='ab d'), context='all')
    assert both.interactions('valid').frame().equals(dls.interactions('valid').frame())
    assert letters(both, both.valid.batch_at(torch.tensor([0]))[0])==['bcde']

def test_counts_of_rules_and_ridge_do_not_cross_a_gap():
    df = shop()
    one = build(df, hold_out=False).interactions('train')
    parts = build(df.assign(user_id=df.user_id+'/'+(df.timestamp.diff()>1800).cumsum().astype(str)), hold_out=False, session_gap=None).interactions('train')
    for lag in (1,3): assert (lag_counts(Histories(one), lag, 11)!=lag_counts(Histories(parts), lag, 11)).nnz==0
    np.testing.assert_allclose(*(decayed_counts(Histories(o), .7, 11) for o in (one,parts)), rtol=1e-5, atol=1e-6)

def test_an_inner_cut_keeps_company():
    dls = build(frame(a='abcd ef', b='xyzw', c='ab d'))
    inner = CollabDataLoaders.from_interactions(dls.interactions('train'), 'sequences', seed=0, bs=1, seq_len=4)
    x,y = inner.valid.batch_at(torch.arange(inner.valid.n))
    assert sorted(zip(letters(inner, x), letters(inner, y)))==[('..xy','...z')] # of a only e is left of its last session

@pytest.mark.parametrize('name', SEQUENCES)
def test_every_door_reads_the_last_session(name, tmp_path):
    df = shop(12)
    dls = build(df, hold_out=False, bs=4, seq_len=4)
    learn = fit(collab_learner(dls, n_factors=4, arch=ALL[name][0], config=dict(seq_len=4) if name in ('sasrec','gru4rec','bert4rec') else {}), 1)
    user = next(u for u,own in df.groupby('user_id') if session_numbers(own.user_id, own.timestamp, 1800).max()>0)
    own = df[df.user_id==user]
    last = own[session_numbers(own.user_id, own.timestamp, 1800)==session_numbers(own.user_id, own.timestamp, 1800).max()]
    learn.save_bundle(tmp_path/'b')
    rec = load_bundle(tmp_path/'b')
    assert rec.train.session_gap==rec.seen.session_gap=='30min' and rec.info['session_gap']=='30min'
    again = load_bundle(rec.save_bundle(tmp_path/'again'))
    want = learn.recommend(history=last.item_id.tolist(), k=3, exclude_seen=False)
    for o in (learn.recommender,rec,again):
        got = [o.recommend(user, k=3, exclude_seen=False), o.recommend(history=last, k=3, exclude_seen=False)]
        for g in got:
            assert g.item_id.tolist()==want.item_id.tolist()
            np.testing.assert_allclose(g.score, want.score, rtol=1e-5)
        items,_ = TrainedHistories(o)(o.users.encode([user]))[0]
        assert o.items.decode(items.numpy()).tolist()==last.item_id.tolist()
        with pytest.raises(RatingsError, match='history spans 4 sessions .*pass the rows of the last'): o.recommend(history=own)
        assert not set(o.recommend(user, k=10).item_id)&set(own.item_id) # seen is what was met in any session
    why = learn.explain(user, item_ids=want.item_id[:1])
    assert why.contribution.sum()==pytest.approx(want.score[0], rel=1e-4) and set(why.because_item_id.dropna())<=set(last.item_id)

# what is held out

def test_no_share_and_a_share_of_users():
    df = frame(**{f'u{i:02}': 'abcd' for i in range(20)}, lonely='a')
    how = dict(session_gap=None)
    for none in (dict(valid_pct=0),dict(hold_out=False)): assert build(df, **how, **none).report['n_valid']==0
    dls = build(df, valid_pct=.25, **how)
    valid = dls.interactions('valid').frame()
    assert len(valid)==5 and (valid.item_id=='d').all() and valid.user_id.nunique()==5 and dls.report['n_train']==len(df)-5
    assert valid.equals(build(df, valid_pct=.25, **how).interactions('valid').frame())
    assert not valid.equals(build(df, valid_pct=.25, seed=1, **how).interactions('valid').frame())
    with pytest.raises(TypeError, match='hold_out=False and valid_pct=0.25'): build(df, valid_pct=.25, hold_out=False)

def test_splits_take_the_place_of_the_last_rows():
    df = frame(a='abcd', b='dcba').assign(late=[False,False,True,True]*2)
    dls = build(df.sample(frac=1, random_state=0), session_gap=None, splits='late')
    assert windows(dls)==[('...a','...b'),('...d','...c')]
    assert dls.interactions('valid').frame().sort_values(['user_id','item_id']).item_id.tolist()==['c','d','a','b']
    pos = build(df, session_gap=None, splits=([0,1,4,5],[2,6]))
    assert len(pos.interactions('all'))==8 and pos.report['n_valid']==2 and len(pos.rest)==2
    with pytest.raises(TypeError, match='splits= or valid_pct='): build(df, session_gap=None, splits='late', valid_pct=.5)
    with pytest.raises(RatingsError, match='both train and valid'): build(df, session_gap=None, splits=([0,1],[1]))

def test_splits_name_rows_before_a_threshold_left_some_out():
    df = frame(a='abcd', b='dcba').assign(rating=[5,1,5,5,5,5,1,5])
    dls = build(df, session_gap=None, splits=([0,1,2,4,5],[3,6,7]), threshold=4)
    assert windows(dls)==[('...a','...c'),('...d','...c')] and dls.interactions('valid').frame().item_id.tolist()==['d','a']

def test_the_report_says_what_put_rows_in_order():
    df = frame(a='abcd', b='dcba')
    assert build(df[['user_id','item_id']], session_gap=None).report['order']=='rows'
    df.loc[1,'timestamp'] = df.timestamp[0]
    report = build(df, session_gap=None).report
    assert report['order']=='timestamp' and report['equal_times']==2
    df.loc[1,'timestamp'] = np.nan
    with pytest.raises(RatingsError, match='time'): build(df, session_gap=None, hold_out=False)

# how well, by what is read and by protocol

def test_two_out_are_the_last_two_of_a_plain_loop():
    df = shop(15).sample(frac=1, random_state=0)
    train,valid,test = leave_two_out(df)
    for u,own in df.reset_index(drop=True).groupby('user_id'):
        order = own.sort_values('timestamp', kind='stable').index.tolist()
        assert set(order[-1:])<=set(test) and (len(order)<3 or order[-2] in valid)
        assert set(order[:max(1, len(order)-2)])<=set(train)
    assert len(train)+len(valid)+len(test)==len(df)

def test_figures_by_what_is_read_and_the_question_of_two_out():
    df = shop(60, seed=3)
    train,valid,test = leave_two_out(df)
    how = dict(metrics='recall', k=3, exclude_seen=False)
    dls = build(df, bs=4, splits=(train,valid))
    learn = fit(collab_learner(dls, arch=ALL['sequentialrules'][0]), 1)
    ev = learn.evaluate(by='history', **how)
    sizes = session_numbers(df.user_id, df.timestamp, 1800)
    read = df.iloc[train].assign(s=sizes[train])
    last = read[read.s==read.groupby('user_id').s.transform('max')].user_id.value_counts()
    groups = {g: o.user_id.map(last) for g,o in ev.of_groups.items()}
    for g,n in groups.items():
        low,high = (int(o) for o in g.split(' training')[0].split(' to '))
        assert n.between(low, high).all()
    assert len(groups)>1 and 'exclude_seen=False' in ev.protocol and 'exclude_seen' not in learn.evaluate(metrics='recall', k=3).protocol
    whole = build(df, bs=4, splits=(train,valid), context='all')
    asked = fit(collab_learner(whole, arch=ALL['sequentialrules'][0]), 1)
    told = df.iloc[np.append(train, valid)]
    got = asked.evaluate(df.iloc[test], histories=told, **how).by_history
    hits = [df.item_id.iloc[t] in asked.recommend(history=told[told.user_id==df.user_id.iloc[t]], k=3, exclude_seen=False).item_id.tolist() for t in test]
    assert got['recall@3']==pytest.approx(np.mean(hits))
