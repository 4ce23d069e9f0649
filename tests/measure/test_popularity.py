"What popularity reaches stands beside every evaluation, and is what a model of popularity reaches"
import json
import time
import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st
from fastapi.testclient import TestClient
from typer.testing import CliRunner

import recfast.ranked as evaluate_module
from recfast.bundle import load_bundle, save_bundle
from recfast.callbacks import RankingMetrics
from recfast.cli import app, describe_bundle, run_quickstart
from recfast.data.loaders import CollabDataLoaders, Interactions, Vocab
from recfast.evaluate import Evaluation, compare, evaluate_recommender
from recfast.learner import collab_learner
from recfast.models.linear import Popularity
from recfast.serve import make_app
from recfast.tune import tune

pytestmark = pytest.mark.filterwarnings('ignore::recfast.core.LeakageWarning', 'ignore:.*solved in closed form')


def skewed(n=1500, seed=0):
    "Ratings of 60 users for 40 items, some of which are met much more often; a few pairs repeat"
    rs = np.random.RandomState(seed)
    items = rs.choice(40, n, p=np.arange(1, 41)/820)
    df = pd.DataFrame({'user_id': rs.randint(0, 60, n), 'item_id': [f'i{o:02}' for o in items], 'rating': rs.randint(1, 6, n)})
    return df.assign(group=df.user_id%3)

@pytest.fixture(scope='module')
def learners():
    "(any learner, one of popularity) on the same loaders"
    dls = CollabDataLoaders.from_df(skewed(), seed=1, bs=64)
    popular = collab_learner(dls, arch=Popularity)
    with popular.no_bar(), popular.no_logging(): popular.fit(1)
    return collab_learner(dls, n_factors=3, seed=2),popular

def assert_same(got, want):
    "Two evaluations, to the bit"
    pd.testing.assert_frame_equal(got.per_user, want.per_user, check_exact=True)
    assert got.summary.keys()==want.summary.keys()
    np.testing.assert_array_equal(list(got.summary.values()), list(want.summary.values()))
    assert (got.protocol,got.counts)==(want.protocol,want.counts)
    if want.by is None: assert got.by is None
    else: pd.testing.assert_frame_equal(got.by, want.by, check_exact=True)

LISTS = pd.DataFrame({'user_id': np.repeat(np.arange(0, 60, 2), 9), 'item_id': [f'i{o:02}' for o in np.random.RandomState(3).randint(0, 44, 270)]})
CANDIDATES = {'all': 'all', 'ids': [f'i{o:02}' for o in range(0, 40, 3)], 'lists': LISTS, 'sampled': {'sampled': 7, 'seed': 3}}

@pytest.mark.parametrize('relevant', [None,4])
@pytest.mark.parametrize('kind', CANDIDATES)
def test_it_is_what_a_model_of_popularity_reaches(learners, kind, relevant):
    args = dict(k=(1,5,50), candidates=CANDIDATES[kind], relevant=relevant, time_name=None)
    learn,popular = learners
    for metrics in (None,['auc','ndcg@3','gini@2','diversity','novelty','coverage@60']):
        ev,want = learn.evaluate(metrics=metrics, **args),popular.evaluate(metrics=metrics, **args)
        assert_same(ev.baseline, want)
        assert_same(want.baseline, want)

@pytest.mark.parametrize('by', ['user','item','group'])
@pytest.mark.parametrize('kind', CANDIDATES)
def test_groups_are_those_of_a_model_of_popularity(learners, kind, by):
    test = skewed(400, 5)
    test.loc[test.index%17==0, 'item_id'] = 'nowhere'
    args = dict(test=test, by=by, k=5, candidates=CANDIDATES[kind])
    assert_same(learners[0].evaluate(**args).baseline, learners[1].evaluate(**args))

pairs = st.lists(st.tuples(st.integers(1,7), st.integers(1,9)), min_size=1, max_size=60)
some = st.sampled_from(['all',[1,4,5],{'sampled': 2, 'seed': 1}])

@settings(max_examples=150, deadline=None)
@given(pairs, pairs, st.integers(1,15), some)
def test_small_tables_with_many_ties(train, test, k, candidates):
    classes = {'user': Vocab(range(1,8)), 'item': Vocab(range(1,10))}
    train,test = (Interactions(*np.array(o).T, np.ones(len(o)), classes=classes) for o in (train,test))
    model = Popularity(8, 10)
    model.solve(train)
    ev = evaluate_recommender(model, train, test, k, candidates, metrics=['ndcg','auc','coverage','popularity'])
    assert_same(ev.baseline, ev)

def test_users_in_several_slices(learners, monkeypatch):
    want = learners[0].evaluate(metrics=['ndcg','auc'], k=5).baseline
    slices = evaluate_module._rank_popular
    monkeypatch.setattr(evaluate_module, '_rank_popular', lambda *args: slices(*args, step=7))
    assert_same(learners[0].evaluate(metrics=['ndcg','auc'], k=5).baseline, want)

def test_the_evaluation_itself_is_unchanged(learners):
    with_,without = learners[0].evaluate(k=5),learners[0].evaluate(k=5, baseline=False)
    assert without.baseline is None and with_.summary==without.summary and with_.protocol==without.protocol
    pd.testing.assert_frame_equal(with_.per_user, without.per_user)
    pd.testing.assert_frame_equal(with_.table(), without.table())
    assert with_.baseline.baseline is None and not {'rmse','mae'} & with_.baseline.summary.keys()

def test_of_rating_errors_alone_there_is_no_baseline(learners):
    assert learners[0].evaluate(metrics=['rmse','mae']).baseline is None


# the verdict

def against(diff, name='ndcg@10', n=300):
    "The verdict where a model is ahead by `diff`:[U]"
    df = pd.DataFrame({'user_id': range(n), 'n_test': 1, name: np.random.RandomState(0).rand(n)})
    popular = df.assign(**{name: df[name]-diff})
    ev,base = (Evaluation({'novelty@20': 1., name: o[name].mean()}, o, 'by hand.') for o in (df,popular))
    ev.baseline = base
    return ev

@pytest.mark.parametrize('diff,says', [(-.01,'ranks below popularity'), (.01,'ranks above popularity'), (0,'is no better than popularity'),
    (np.where(np.arange(300)%2, .1, -.101), 'is no better than popularity'), (np.where(np.arange(300)%2, .101, -.1), 'is no better than popularity'),
    (np.where(np.arange(300)%2, .1, -.05), 'ranks above popularity'), (np.where(np.arange(300)%2, .05, -.1), 'ranks below popularity')])
def test_the_verdict_is_that_of_the_paired_interval(diff, says):
    ev = against(diff)
    assert f'By ndcg@10 the model {says}: {ev["ndcg@10"]:.4f} against {ev.baseline["ndcg@10"]:.4f}' in ev.verdict
    assert str(ev).endswith('by hand.\n'+ev.verdict) and ev._repr_markdown_().endswith(f'*by hand.*\n\n*{ev.verdict}*')

def test_the_interval_is_that_of_compare():
    ev = against(np.random.RandomState(1).rand(300)-.4)
    row = compare({'model': ev, 'popularity': ev.baseline}, base='popularity')['model']
    assert f'({row.diff_low:.4f} to {row.diff_high:.4f})' in ev.verdict.replace('95% interval of the difference: ', '')

@pytest.mark.parametrize('metrics,name', [(None,'ndcg@20'), (['recall','ndcg'],'recall@20'), (['novelty','mrr@3','ndcg@5','mrr@2'],'mrr@3'), (['auc','hit@4'],'hit@4')])
def test_it_is_about_the_first_ranking_metric_at_its_longest_list(learners, metrics, name):
    assert learners[0].evaluate(metrics=metrics).verdict.startswith(f'By {name} the model ')

def test_without_anything_to_say_it_is_silent(learners):
    assert learners[0].evaluate(metrics=['novelty','auc']).verdict=='' and learners[0].evaluate(metrics=['rmse']).verdict==''
    nobody = learners[0].evaluate(relevant=99)
    assert nobody.verdict=='' and nobody.words==nobody.protocol and len(nobody.baseline.per_user)==0

def test_nothing_is_warned_of(learners):
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        str(learners[0].evaluate())


# where it is seen

def test_popularity_is_a_second_column_under_each_k(learners):
    ev = learners[0].evaluate(k=(5,10), metrics=['rmse','ndcg','auc'])
    head,*lines = str(ev).splitlines()
    assert head.split()==['popularity','@5','popularity','@10','popularity']
    assert [len(o.split()) for o in lines[:3]]==[2,5,3] and lines[0].split()==['rmse',f"{ev['rmse']:.4f}"]
    assert lines[1].split()==['ndcg', *(f'{o:.4f}' for k in (5,10) for o in (ev[f'ndcg@{k}'],ev.baseline[f'ndcg@{k}']))]
    assert lines[2].split()==['auc', f"{ev['auc']:.4f}", f"{ev.baseline['auc']:.4f}"]

def test_there_is_no_blank_column_of_popularity(learners):
    assert str(learners[0].evaluate(k=5)).splitlines()[0].split()==['@5','popularity']
    lines = learners[0].evaluate(k=5)._repr_markdown_().splitlines()
    assert lines[0]=='|  |  | @5 | popularity |' and lines[2].endswith('|  |  |')

def test_compare_prints_one_row_of_it(learners, monkeypatch):
    asked,plain = [],evaluate_module._rank_popular
    monkeypatch.setattr(evaluate_module, '_rank_popular', lambda *args: asked.append(1) or plain(*args))
    learn = learners[0]
    c = compare({'a': learn, 'b': collab_learner(learn.dls, n_factors=2)}, k=5)
    assert len(asked)==1 and set(c.table.index)=={'a','b'} and str(c).count('popularity')==1
    assert c._repr_markdown_().splitlines()[-3].startswith('| popularity |')
    row = compare({'a': learn, 'popularity': learners[1]}, k=5, base='a').table.loc['popularity']
    single = compare({'a': learn}, k=5)
    pd.testing.assert_series_equal(single.popularity.loc['popularity'], row, check_exact=True)
    assert [o.get_text() for o in single.plot().get_yticklabels()]==['popularity','a']

def test_a_row_of_it_changes_no_other(learners):
    two = {'a': learners[0], 'b': collab_learner(learners[0].dls, n_factors=2)}
    pd.testing.assert_frame_equal(compare(two).table, compare(two, baseline=False).table, check_exact=True)
    assert 'popularity' not in str(compare(two, baseline=False))

def test_where_popularity_is_compared_there_is_no_second_row(learners):
    for c in compare(learners),compare({'a': learners[0], 'mine': learners[1].evaluate()}):
        assert c.popularity is None and len(c.table)==2 and 'popularity' not in str(c)

def test_evaluations_bring_theirs(learners):
    evs = [learners[0].evaluate(baseline=False),collab_learner(learners[0].dls, n_factors=2).evaluate()]
    assert compare(dict(zip('ab', evs))).popularity.loc['popularity','mean']==pytest.approx(evs[1].baseline['ndcg@10'])
    assert compare({'a': evs[0]}).popularity is None

def test_it_is_not_measured_where_nobody_looks(learners, monkeypatch):
    def never(*args): raise AssertionError('measured')
    monkeypatch.setattr(evaluate_module, '_rank_popular', never)
    learn = collab_learner(learners[0].dls, n_factors=2, cbs=RankingMetrics('ndcg@5'))
    with learn.no_bar(), learn.no_logging(): learn.fit(1)
    assert learn.ranking_metrics.evaluation.baseline is None
    def make(n_factors):
        learn = collab_learner(learners[0].dls, n_factors=n_factors)
        with learn.no_bar(), learn.no_logging(): learn.fit(1)
        return learn
    tune(make, {'n_factors': [2,3]}, n_trials=2, progress=False)
    with pytest.raises(AssertionError, match='measured'): learn.evaluate()

@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    "(folder with a bundle trained in the shell, what the shell said)"
    d = tmp_path_factory.mktemp('popular')
    skewed().drop(columns='group').to_csv(d/'r.csv', index=False)
    res = CliRunner().invoke(app, ['train', str(d/'r.csv'), '--out', str(d/'b'), '--arch', 'dotproductbias', '--epochs', '1', '--n-factors', '2'])
    assert res.exit_code==0, res.output
    return d,res.stdout

def test_the_shell_shows_it(trained):
    d,said = trained
    assert 'popularity' in said.split('ndcg@10')[0] and 'popularity:' in ' '.join(said.split())
    said = CliRunner().invoke(app, ['evaluate', str(d/'b'), str(d/'r.csv')]).stdout
    assert 'popularity' in said.split('ndcg@10')[0]

def test_the_json_has_it(trained):
    d = trained[0]
    skewed(300, 8).to_csv(d/'t.csv', index=False)
    assert CliRunner().invoke(app, ['evaluate', str(d/'b'), str(d/'t.csv'), '-k', '3', '--out', str(d/'m.json')]).exit_code==0
    got = json.loads((d/'m.json').read_text(encoding='utf-8'))
    assert got['metrics'].keys()-got['baseline'].keys()=={'rmse','mae'} and 'popularity' in got['verdict'] and 'popularity' not in got['protocol']
    rec = load_bundle(d/'b')
    want = evaluate_recommender(rec.model, rec.train, skewed(300, 8), k=3)
    assert got['baseline']==want.baseline.summary and got['verdict']==want.verdict

def test_the_report_shows_it(trained):
    page = (trained[0]/'b.html').read_text(encoding='utf-8')
    assert '<th>popularity</th>' in page and 'popularity: 0.' in page and 'NaN' not in page

def test_the_quick_start_shows_it(tmp_path):
    df = run_quickstart(out=tmp_path/'r.html', arch='dotproductbias', epochs=1)['metrics'].set_index('metric')
    assert df.popularity.notna().to_dict()=={n: '@' in n for n in df.index}
    assert '<th>popularity</th>' in (tmp_path/'r.html').read_text(encoding='utf-8')

def test_a_bundle_keeps_it_and_info_shows_it(trained, tmp_path):
    path = trained[0]/'b'
    facts = load_bundle(path).info['training']
    assert facts['baseline'].keys()==facts['metrics'].keys()-{'rmse','mae'}
    shown = describe_bundle(path).set_index('what').value
    assert shown['ndcg@10']==f"{facts['metrics']['ndcg@10']:.4f} (popularity {facts['baseline']['ndcg@10']:.4f})"
    assert shown['rmse']==f"{facts['metrics']['rmse']:.4f}" and 'baseline' not in shown.index

def test_the_page_of_the_service_shows_it(trained, tmp_path):
    facts = load_bundle(trained[0]/'b').info['training']
    with TestClient(make_app(trained[0]/'b')) as web: page = web.get('/').text
    assert f"ndcg@10 {facts['metrics']['ndcg@10']:.3f}, popularity {facts['baseline']['ndcg@10']:.3f}" in page
    old = {k: v for k,v in facts.items() if k!='baseline'}
    for training in (old,None):
        with TestClient(make_app(save_bundle(load_bundle(trained[0]/'b'), tmp_path/'old', training))) as web:
            assert 'popularity' not in web.get('/').text and '{measured}' not in web.get('/').text

def test_a_bundle_without_it_is_read(trained, tmp_path):
    rec = load_bundle(trained[0]/'b')
    old = {k: v for k,v in rec.info['training'].items() if k!='baseline'}
    path = save_bundle(rec, tmp_path/'old', old)
    assert load_bundle(path).info['training']==old
    shown = describe_bundle(path).set_index('what').value
    assert shown['ndcg@10']==f"{old['metrics']['ndcg@10']:.4f}"

def test_a_bundle_of_an_evaluation_without_it(learners, tmp_path):
    path = learners[0].save_bundle(tmp_path/'b', learners[0].evaluate(baseline=False))
    assert 'baseline' not in load_bundle(path).info['training']

def test_it_costs_little():
    "CPU time, the best of five: at most 10% or 50 ms more"
    rs = np.random.RandomState(0)
    df = pd.DataFrame({'user_id': rs.randint(0, 4000, 200_000), 'item_id': rs.zipf(1.3, 200_000)%3000, 'rating': 1.})
    learn = collab_learner(CollabDataLoaders.from_df(df, seed=0, bs=4096), 10)
    def cost(**how):
        start = time.process_time()
        learn.evaluate(progress=False, **how)
        return time.process_time()-start
    for how in (dict(), dict(metrics='ndcg', k=10)):
        learn.evaluate(progress=False, **how)
        without,with_ = (min(cost(baseline=o, **how) for _ in range(5)) for o in (False,True))
        assert with_<max(1.1*without, without+.05)
