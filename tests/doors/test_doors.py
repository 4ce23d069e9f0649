"The same people through Python, the command line and parquet: the same lists"
import io
import json
import subprocess
import sys
from datetime import date

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from helpers import fit_one_cycle
from recfast.bundle import cast_ids, load_bundle
from recfast.cli import app
from recfast.core import UnknownIdError
from recfast.data.datasets import movie_night
from recfast.data.loaders import CollabDataLoaders, Vocab
from recfast.learner import collab_learner
from recfast.testing import synth_ratings

K = 10

@pytest.fixture(scope='module')
def doors(tmp_path_factory):
    "A learner, its bundle, 200 users and 50 histories of others"
    df = movie_night()
    learn = collab_learner(CollabDataLoaders.from_df(df, item_name='title', seed=3, bs=256), n_factors=16, y_range=(0,5.5))
    fit_one_cycle(learn, 3, 5e-3, wd=.1)
    path = learn.save_bundle(tmp_path_factory.mktemp('doors')/'b.recfast')
    users = np.random.default_rng(0).permutation(df.user_id.unique())[:200].tolist()
    told = df[df.user_id.isin(np.random.default_rng(1).permutation(df.user_id.unique())[:50])].groupby('user_id').head(8)
    return learn,path,users,told[['user_id','title','rating']]

def run(*args):
    res = CliRunner().invoke(app, [str(o) for o in args])
    assert res.exit_code==0, res.output
    return res.stdout

def csv(text): return pd.read_csv(io.StringIO(text), keep_default_na=False)

def check_same(got, want):
    "Identical lists, save where scores differ by less than the tolerance; scores equal to it"
    assert got[['user_id','rank']].astype(int).to_numpy().tolist()==want[['user_id','rank']].to_numpy().tolist()
    np.testing.assert_allclose(got.score, want.score, rtol=1e-5, atol=1e-6)
    other = np.flatnonzero(got.item_id.to_numpy()!=want.item_id.to_numpy())
    for i in other: # the same item stands elsewhere in the list, where the score is as good as equal
        near = want[(want.user_id==want.user_id[i])&(want.item_id==got.item_id[i])]
        if len(near): np.testing.assert_allclose(near.score, got.score[i], rtol=1e-5, atol=1e-6)
        else: assert want['rank'][i]>K-2, 'an item left the list that is not at its end'
    assert len(other)<len(want)/100

@pytest.fixture(scope='module')
def by_python(doors): return doors[0].recommend(doors[2], k=K)

def test_200_users_through_python_the_bundle_the_command_line_and_parquet(doors, by_python, tmp_path):
    _,path,users,_ = doors
    check_same(load_bundle(path).recommend(users, k=K), by_python)
    check_same(csv(run('recommend', path, *[o for u in users for o in ('--user',u)], '-k', K, '--out', '-')), by_python)
    run('recommend', path, '--all', '-k', K, '--out', tmp_path/'all.parquet')
    everybody = pd.read_parquet(tmp_path/'all.parquet').set_index('user_id').loc[users].reset_index()
    check_same(everybody, by_python)

def test_50_histories_through_python_and_the_command_line(doors, tmp_path):
    learn,path,_,told = doors
    users = told.user_id.unique()
    want = learn.recommend(history=[dict(zip(o.title, o.rating)) for _,o in told.groupby('user_id', sort=False)], k=K)
    want['user_id'] = users[want.user_id]
    for name,write in (('h.csv','to_csv'),('h.parquet','to_parquet')):
        getattr(told, write)(tmp_path/name, index=False)
        check_same(csv(run('recommend', path, '--history', tmp_path/name, '-k', K, '--out', '-')), want)

def test_a_history_on_the_command_line_is_one_in_python(doors):
    learn,path,_,told = doors
    h = dict(zip(told.title[:3], told.rating[:3]))
    got = csv(run('recommend', path, *[o for t,r in h.items() for o in ('--history',f'{t}:{r}')], '-k', K, '--out', '-'))
    check_same(got, learn.recommend(history=h, k=K))

@pytest.mark.slow
def test_a_real_process_gives_the_same_lists(doors, by_python):
    _,path,users,_ = doors
    args = [sys.executable, '-c', 'from recfast.cli import app; app()', 'recommend', str(path), *[o for u in users for o in ('--user',str(u))], '-k', str(K), '--out', '-']
    res = subprocess.run(args, capture_output=True, text=True, encoding='utf-8')
    assert res.returncode==0 and not res.stderr, res.stderr
    check_same(csv(res.stdout), by_python)

def test_neighbours_are_the_same_too(doors):
    learn,path,_,told = doors
    title = told.title.iloc[0]
    got,want = csv(run('similar', path, '--item', title, '-k', 5, '--out', '-')),learn.similar_items(title, k=5)
    assert got.item_id.tolist()==want.item_id.tolist()
    np.testing.assert_allclose(got.score, want.score, rtol=1e-5, atol=1e-6)

def test_metrics_of_the_held_out_rows_are_those_of_the_learner(doors, tmp_path):
    learn,path = doors[:2]
    learn.dls.interactions('valid').frame().to_csv(tmp_path/'valid.csv', index=False)
    run('evaluate', path, tmp_path/'valid.csv', '-k', K, '--out', tmp_path/'m.json')
    got,want = json.loads((tmp_path/'m.json').read_text(encoding='utf-8')),learn.evaluate(k=K)
    assert got['metrics']==pytest.approx(want.summary, rel=1e-5) and got['protocol'].startswith(want.protocol.split('.')[0])

def test_user_196_on_the_command_line_is_196_of_the_int_vocabulary(ml100k_dir, tmp_path):
    from recfast.data.datasets import ml_100k
    learn = collab_learner(CollabDataLoaders.from_df(ml_100k(), item_name='title', seed=1, bs=4096), n_factors=5, y_range=(0,5.5))
    fit_one_cycle(learn)
    got = csv(run('recommend', learn.save_bundle(tmp_path/'b'), '--user', 196, '-k', K, '--out', '-'))
    assert type(cast_ids(learn.dls.classes['user_id'], '196', 'user')[0]) is int
    check_same(got, learn.recommend(196, k=K))

@pytest.mark.parametrize('make,text', [(lambda u: u,'7'), (lambda u: 'u'+u.astype(str),'u7'), (lambda u: pd.to_datetime('2020-01-01')+pd.to_timedelta(u, 'D'),'2020-01-08'),
    (lambda u: u+.5,'7.5')], ids=['int','str','date','float'])
def test_text_becomes_an_id_of_the_vocabulary(make, text, tmp_path):
    df = synth_ratings()
    df['user_id'] = make(df.user_id)
    learn = collab_learner(CollabDataLoaders.from_df(df, seed=1), n_factors=3, y_range=(0,5.5))
    got = csv(run('recommend', learn.save_bundle(tmp_path/'b'), '--user', text, '-k', 3, '--out', '-'))
    want = learn.recommend(cast_ids(learn.dls.classes['user_id'], text), k=3)
    assert got.item_id.tolist()==want.item_id.tolist() and got.score.tolist()==pytest.approx(want.score.tolist(), rel=1e-5)

# text and ids

DAYS = pd.to_datetime(['2021-01-02'])
@pytest.mark.parametrize('ids,given,want', [([196,22],['196',' 22',196.,np.int64(7)],[196,22,196,7]), ([1.5],['2.5',3],[2.5,3.]), (['a'],['a',7,'김치'],['a','7','김치']),
    ([True,False],['true','False',True],[True,False,True]), ([date(2020,1,1)],['2020-01-01',date(2021,1,1)],[date(2020,1,1),date(2021,1,1)]),
    (DAYS,['2021-01-02','2021-01-02T03:04'],[pd.Timestamp('2021-01-02'),pd.Timestamp('2021-01-02T03:04')]),
    (DAYS.tz_localize('UTC'),['2021-01-02','2021-01-02T01:00+01:00'],[pd.Timestamp('2021-01-02', tz='UTC')]*2), (pd.to_timedelta(['1D']),['P1DT0H0M0S'],[pd.Timedelta('1D')])])
def test_values_are_read_as_the_type_of_the_ids(ids, given, want):
    got = cast_ids(Vocab(ids), given)
    assert got==want and [type(o) for o in got]==[type(o) for o in want]

@pytest.mark.parametrize('ids,bad,words', [([196],['1e3','1_9','',True,None,1.5,float('nan'),float('inf'),[1],'9'*5000],'whole number'), ([1.5],['nan','inf','x',True,'1_0'],'a number'),
    (['a'],[None,True,['a'],{}],'text'), ([True],['yes',1],'true or false'), ([date(2020,1,1)],['2020-13-01','today',20200101],'a date such as'),
    (DAYS,['2021-01-02T00:00+01:00','x',5],'a time such as'), (pd.to_timedelta(['1D']),['x',5],'a duration such as')])
def test_a_value_that_is_no_such_id_is_refused(ids, bad, words):
    for o in bad:
        with pytest.raises(UnknownIdError, match=words): cast_ids(Vocab(ids), [o], 'user')
