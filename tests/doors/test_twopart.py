"A rater and a ranker in one model: who answers for what, and a bundle that a new process reads"
import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from helpers import FRAME, fit, fit_one_cycle, learner, loaders
from recfast.bundle import _signed, bundle_config, load_bundle
from recfast.callbacks import RankingMetrics
from recfast.combined import TwoPartRecommender, recommender_of
from recfast.core import BundleError, RatingsError, RecfastError
from recfast.data.datasets import ml_100k
from recfast.data.loaders import CollabDataLoaders
from recfast.ensemble import Blend, Ensemble, part_of, two_part
from recfast.learner import collab_learner
from recfast.losses import BPRLoss
from recfast.models.autorec import AutoRec
from recfast.models.dot import DotProduct, DotProductBias
from recfast.models.ials import IALS
from recfast.models.linear import EASE
from recfast.models.spec import COMPOSED, compose, find_class
from recfast.models.parts import TwoPart, parts_spec

TOLD = {3: 5., 8: 1., 11: 4.}

@pytest.fixture(scope='module')
def parts():
    dls = loaders()
    return fit_one_cycle(learner(dls, n_factors=5), 3, 5e-2), fit(collab_learner(dls, arch=EASE, config=dict(l2=20)), 1)

@pytest.fixture(scope='module')
def two(parts): return two_part(*parts)

def clicks_ranker(dls, **kwargs):
    "A dot product under BPR, on the same rows as clicks"
    rows = CollabDataLoaders.implicit_from_df(FRAME, seed=42, n_neg=2, **kwargs)
    return fit_one_cycle(collab_learner(rows, arch=DotProduct, n_factors=4, loss_func=BPRLoss()), 2, 1e-1)

# who answers

def test_ratings_are_the_raters_and_lists_the_rankers(parts, two):
    rater,ranker = parts
    ev,a,b = (o.evaluate(k=5, progress=False) for o in (two,rater,ranker))
    assert ev.summary['rmse']==a.summary['rmse'] and ev.summary['mae']==a.summary['mae'] and 'rmse' not in b.summary
    assert {k: v for k,v in ev.summary.items() if k not in ('rmse','mae')}==b.summary
    assert 'ratings by DotProductBias, lists by EASE' in ev.protocol and 'lists by' not in a.protocol
    assert two.predict([1,2], 3).tolist()==rater.predict([1,2], 3).tolist()
    with two.no_bar(), rater.no_bar():
        assert list(two.validate())==pytest.approx(list(rater.validate()), rel=1e-6) # a rater alone is measured in larger pieces
        assert torch.equal(two.get_preds()[0], rater.get_preds()[0])
    pd.testing.assert_frame_equal(two.item_bias(), rater.item_bias())
    pd.testing.assert_frame_equal(two.user_bias(), rater.user_bias())
    assert two.model.bias([3]).tolist()==rater.model.bias([3]).tolist()
    assert two.model.weight([3], is_item=True).tolist()==rater.model.weight([3]).tolist()
    pd.testing.assert_frame_equal(two.similar_items([3,5]), ranker.similar_items([3,5]))
    pd.testing.assert_frame_equal(two.explain(1, k=2), ranker.explain(1, k=2))
    pd.testing.assert_frame_equal(two.fill_wide(), rater.fill_wide())

def test_lists_have_stars(parts, two):
    rater,ranker = parts
    lists = two.recommend(k=4)
    assert list(lists.columns)==['user_id','item_id','score','rank','predicted']
    pd.testing.assert_frame_equal(lists.drop(columns='predicted'), ranker.recommend(k=4))
    assert np.allclose(lists.predicted, rater.predict(lists.user_id, lists.item_id), rtol=1e-5, atol=1e-6)
    assert two.recommend([1], to='arrow').column_names==list(lists.columns)

@pytest.mark.parametrize('history', [TOLD, list(TOLD), [TOLD,{5: 2.}], pd.DataFrame(dict(user_id=['b','b','a'], item_id=[3,8,5], rating=[5.,1.,2.]))], ids=['one','liked','two','frame'])
def test_a_history_is_folded_into_each_part(parts, two, history):
    rater,ranker = parts
    lists = two.recommend(history=history, k=3)
    pd.testing.assert_frame_equal(lists.drop(columns='predicted'), ranker.recommend(history=history, k=3))
    every = rater.recommend(history=history, k=10_000)
    both = lists.merge(every, on=['user_id','item_id'])
    assert len(both)==len(lists) and np.allclose(both.predicted, both.score_y, rtol=1e-4, atol=1e-5)

def test_a_history_of_nothing_known_and_unknown_users(parts, two):
    rater,ranker = parts
    with pytest.raises(KeyError): two.recommend(['nobody'])
    with pytest.warns(UserWarning): lists = two.recommend(['nobody'], k=3, on_unknown='warn')
    mean = rater.recommender.mean_scores()[rater.dls.interactions('train').item_vocab.encode(lists.item_id.to_numpy())]
    assert np.allclose(lists.predicted, mean, rtol=1e-5)
    assert len(two.recommend(history={'nothing': 5}, k=2, on_unknown='drop'))==2
    assert len(two.recommend([], k=2))==0

def test_on_clicks_there_is_a_ranker_only(parts):
    dls = CollabDataLoaders.implicit_from_df(FRAME, seed=42, n_neg=0)
    ranker = fit(collab_learner(dls, arch=EASE), 1)
    rows = dls.interactions('train')
    model = TwoPart(None, part_of(ranker))
    model.attach(rows)
    rec = recommender_of(model, dls.interactions('all'), rows)
    lists = rec.recommend([1], k=3)
    assert lists.predicted.isna().all() and not model.rated and model.note()==''
    assert rec.predict(1, 3)==pytest.approx(ranker.predict(1, 3))
    assert rec.recommend(history=[3,8]).item_id.tolist()==ranker.recommend(history=[3,8]).item_id.tolist()

def test_a_ranker_that_was_trained_on_clicks_is_asked_in_clicks(parts):
    "Each history is folded in under the part's own loss: the ranker's with ones, whatever the stars"
    ranker = clicks_ranker(parts[0].dls)
    two = two_part(parts[0], ranker)
    assert part_of(ranker).clicks and not part_of(parts[0]).clicks
    lists = two.recommend(history=TOLD, k=4)
    alone = ranker.recommend(history=list(TOLD), k=4)
    assert lists.item_id.tolist()==alone.item_id.tolist() and np.allclose(lists.score, alone.score, rtol=1e-4, atol=1e-5)
    why,own = two.explain(history=TOLD, k=2),ranker.explain(history=list(TOLD), k=2)
    assert np.allclose(why.contribution, own.contribution, rtol=1e-3, atol=1e-5)
    stars = parts[0].recommend(history=TOLD, item_ids=lists.item_id.tolist()).set_index('item_id').score
    assert np.allclose(lists.predicted, stars[lists.item_id], rtol=1e-4, atol=1e-5)
    assert np.allclose(two.explain(1, k=2).contribution, ranker.explain(1, k=2).contribution, rtol=1e-3, atol=1e-5)

def test_a_rater_that_reads_whole_rows(parts):
    rows = CollabDataLoaders.rows_from_df(FRAME, 'item', seed=42, bs=8)
    rater = fit(collab_learner(rows, arch=AutoRec, n_factors=4, y_range=(0,5.5)), 1)
    two = two_part(rater, parts[1])
    assert np.allclose(two.predict([1,2,3], 3), rater.predict([1,2,3], 3), rtol=1e-5)
    assert np.allclose(two.evaluate(k=5, progress=False).summary['rmse'], rater.evaluate(k=5, progress=False).summary['rmse'], rtol=1e-6)
    lists = two.recommend([1], k=3)
    assert np.allclose(lists.predicted, rater.predict(1, lists.item_id), rtol=1e-5)

def test_ranking_metrics_in_training_are_the_rankers(parts, two):
    cb = RankingMetrics(['ndcg@5'])
    cb.learn = two
    assert cb.measure().summary['ndcg@5']==parts[1].evaluate(k=5, progress=False).summary['ndcg@5']

def test_maps_are_of_the_part_that_has_vectors(parts, two):
    pd.testing.assert_frame_equal(two.item_factors(), parts[0].item_factors())
    assert 'by DotProductBias' in two.plot_factors(n=5).get_title()
    ials = fit(collab_learner(parts[0].dls, arch=IALS, n_factors=3), 2)
    other = two_part(parts[0], ials)
    pd.testing.assert_frame_equal(other.item_factors(), ials.item_factors())
    assert 'by IALS' in other.plot_factors(n=5).get_title()

# empty

@pytest.fixture
def empty(parts):
    dls = parts[0].dls
    return collab_learner(dls, arch=TwoPart)

@pytest.mark.parametrize('ask', ['recommend','evaluate','item_bias','save_bundle','predict','explain','similar_items','item_factors','validate','get_preds'])
def test_before_something_is_chosen_every_verb_says_so(empty, ask, tmp_path):
    args = dict(predict=(1,3), explain=(1,), similar_items=(3,), save_bundle=(tmp_path/'b',)).get(ask, ())
    with empty.no_bar(), pytest.raises(RecfastError, match=r'call learn.fit\(1\)'): getattr(empty, ask)(*args)

def test_taken_parts_answer(empty, parts):
    empty.model.take(*map(part_of, parts))
    assert empty.recommend([1], k=3).predicted.notna().all()
    first = empty.recommend([1], k=3)
    ials = fit(collab_learner(parts[0].dls, arch=IALS, n_factors=3), 1)
    empty.model.take(ranker=part_of(ials))
    assert empty.recommend([1], k=3).predicted.isna().all() and empty.recommend([1], k=3).score.tolist()!=first.score.tolist()
    with pytest.raises(TypeError, match='needs a ranker'): empty.model.take(rater=parts[0].model)

def test_a_fit_has_nothing_to_train(two):
    with two.no_bar(), two.no_logging(), pytest.raises(RecfastError, match='train them in learners of their own'): two.fit(1)
    with pytest.raises(RecfastError, match='no learning rate to find'): two.lr_find(show_plot=False)

# other people, other rows

def test_parts_know_the_same_people_and_rows(parts):
    rater,_ = parts
    other = collab_learner(loaders(seed=7), arch=EASE)
    with pytest.raises(RatingsError, match='was trained on other rows than learner 0'): two_part(rater, other)
    fewer = collab_learner(loaders(FRAME[FRAME.item_id!=3]), arch=EASE)
    with pytest.raises(RatingsError, match='other ids than learner 0'): two_part(rater, fewer)
    with pytest.raises(RatingsError): TwoPart(rater.model, rater.model).attach(fewer.dls.interactions('train'))

# kept

FRESH = '''
import sys,json
from recfast.bundle import load_bundle
told = {int(k): v for k,v in json.loads(sys.argv[1]).items()}
def answers(path):
    rec = load_bundle(path)
    frames = rec.recommend(k=5),rec.recommend(history=told, k=5),rec.similar_items(3),rec.explain(history=told, k=2)
    return [o.to_dict('list') for o in frames]+[rec.predict([1,2,3], 3).tolist()]
print(json.dumps(list(map(answers, sys.argv[2:]))))
'''

def in_a_new_process(*paths):
    res = subprocess.run([sys.executable,'-W','ignore','-c',FRESH,json.dumps(TOLD),*map(str, paths)], capture_output=True, text=True)
    assert res.returncode==0, res.stderr
    return json.loads(res.stdout.splitlines()[-1])

def same(got, want):
    "Lists of another process against a frame of this one"
    for k in want:
        if want[k].dtype.kind=='f': assert np.allclose(np.array(got[k], float), want[k], rtol=1e-5, atol=1e-6, equal_nan=True), k
        else: assert got[k]==want[k].tolist(), k

def test_a_bundle_answers_the_same_in_a_new_process(parts, tmp_path):
    rankers = parts[1],clicks_ranker(parts[0].dls)
    blend = Blend([parts[1],parts[0]], [.8,.2])
    wholes = [*(two_part(parts[0], o) for o in rankers),two_part(Ensemble([parts[0]]*2), blend),two_part(parts[0], parts[0])]
    paths = [o.save_bundle(tmp_path/str(i)) for i,o in enumerate(wholes)]
    for two,got in zip(wholes, in_a_new_process(*paths)):
        want = two.recommend(k=5),two.recommend(history=TOLD, k=5),two.similar_items(3),two.explain(history=TOLD, k=2)
        for a,b in zip(got, want): same(a, b)
        assert np.allclose(got[4], two.predict([1,2,3], 3))

def test_what_a_bundle_says_of_its_parts(parts, two, tmp_path):
    config = bundle_config(two.save_bundle(tmp_path/'b'))
    rater,ranker = config['parts']
    assert [o['name'] for o in config['parts']]==['rater','ranker'] and config['model']['name']=='twopart'
    assert rater['model']['name']=='dotproductbias' and ranker['model']['config']['l2']==20 and rater['loss']['name']=='MSELoss'
    assert rater['training']['n_epoch']==3 and ranker['draws']['n_neg']==0 and not rater['clicks']
    again = load_bundle(load_bundle(tmp_path/'b').save_bundle(tmp_path/'c'))
    pd.testing.assert_frame_equal(again.recommend([1,2]), two.recommend([1,2]))
    assert isinstance(again, TwoPartRecommender) and again.rated

def test_parts_of_ones_own_are_handed_over(parts, tmp_path):
    class Own(nn.Module):
        def __init__(self): super().__init__(); self.q = nn.Parameter(torch.rand(parts[0].dls.n_items))
        def forward(self, x): return self.q[x[:,1]]
    dls = parts[0].dls
    two = two_part(parts[0], collab_learner(dls, arch=Own()))
    path = two.save_bundle(tmp_path/'b')
    with pytest.raises(BundleError, match='Own cannot be built by name'): load_bundle(path)
    rec = load_bundle(path, model=TwoPart(DotProductBias(dls.n_users, dls.n_items, 5, (0,5.5)), Own()))
    pd.testing.assert_frame_equal(rec.recommend([1,2]), two.recommend([1,2]))

@pytest.mark.parametrize('parts_', [[dict(name='third')], ['rater'], [dict(name='rater', model={})]])
def test_parts_that_cannot_be_read_are_an_error(two, parts_, tmp_path):
    path = two.save_bundle(tmp_path/'b')
    config = json.loads((path/'config.json').read_text(encoding='utf-8'))
    (path/'config.json').write_text(json.dumps(_signed(config|dict(parts=parts_))), encoding='utf-8')
    with pytest.raises(BundleError, match="'parts' came after recfast"): load_bundle(path)

def test_weights_bring_their_parts_back(two, empty, parts, tmp_path):
    two.path = empty.path = tmp_path
    two.save('w', with_opt=False)
    empty.load('w', with_opt=False)
    pd.testing.assert_frame_equal(empty.recommend([1,2]), two.recommend([1,2]))
    pd.testing.assert_frame_equal(empty.recommend(history=TOLD), two.recommend(history=TOLD))
    other = collab_learner(loaders(FRAME[FRAME.user_id>3]), arch=TwoPart)
    other.path = tmp_path
    with pytest.raises(RatingsError, match='other user ids'): other.load('w', with_opt=False)

def test_parts_spec_of_a_plain_model_is_empty(parts): assert parts_spec(parts[0].model)==[] and parts_spec(None)==[]

# doors

def test_over_http_stars_are_added(two):
    fastapi = pytest.importorskip('fastapi.testclient')
    from recfast.serve import make_app
    with fastapi.TestClient(make_app(two.recommender)) as client:
        for body in (dict(user_ids=[1,2], k=3), dict(history=[dict(item_id=3, rating=5), dict(item_id=8, rating=1)], k=3)):
            got = client.post('/recommend', json=body).json()
            want = two.recommend(**body) if 'user_ids' in body else two.recommend(history={3: 5, 8: 1}, k=3)
            assert list(got[0])==['user_id','item_id','score','rank','predicted']
            assert [o['item_id'] for o in got]==want.item_id.tolist() and np.allclose([o['predicted'] for o in got], want.predicted, rtol=1e-5)
        assert client.post('/predict', json=dict(user_ids=1, item_ids=3)).json()==pytest.approx(two.predict(1, 3))
        assert 'predicted' in client.get('/openapi.json').json()['components']['schemas']['Listed']['properties']
    with fastapi.TestClient(make_app(fit(collab_learner(two.dls, arch=EASE), 1).recommender)) as client:
        assert 'predicted' not in client.get('/openapi.json').json()['components']['schemas']['Listed']['properties']

def test_the_shell_writes_the_column_and_names_the_parts(two, tmp_path):
    from typer.testing import CliRunner
    from recfast.cli import app, describe_bundle
    path = two.save_bundle(tmp_path/'b')
    facts = describe_bundle(path).set_index('what').value
    assert (facts['model'],facts['rater'],facts['ranker'])==('twopart','dotproductbias','ease')
    for how in (['--user','1'], ['--history','3:5','--history','8:1'], ['--all']):
        res = CliRunner().invoke(app, ['recommend', str(path), *how, '-k', '3', '--out', str(tmp_path/'l.csv')])
        assert res.exit_code==0, res.output
        lists = pd.read_csv(tmp_path/'l.csv')
        assert list(lists.columns)==['user_id','item_id','score','rank','predicted'] and lists.predicted.notna().all()

def test_a_graph_ranks_and_says_stars(parts, tmp_path):
    dot = fit_one_cycle(learner(parts[0].dls, arch=DotProduct, n_factors=4), 1, 5e-2)
    users,seen = torch.tensor([1,2]),torch.zeros(2, 1, dtype=torch.long)
    ids = parts[0].dls.interactions('train').classes['user_id']
    for two in (two_part(parts[0], dot),two_part(parts[0], Blend([dot,parts[0]], [.3,.7])),two_part(Ensemble([parts[0],dot]), dot)):
        program = torch.export.load(two.export_program(tmp_path/'g.pt2', k=4)).module()
        items,scores,stars = program(users, seen)
        want = two.recommend(ids.decode([1,2]), k=4, exclude_seen=False)
        assert np.allclose(scores.detach().flatten(), want.score, rtol=1e-4, atol=1e-5)
        assert np.allclose(stars.detach().flatten(), want.predicted, rtol=1e-4, atol=1e-5)
    with pytest.raises(NotImplementedError, match='EASE scores from the histories'): two_part(*parts).export_program(tmp_path/'h.pt2')

@pytest.mark.slow
def test_an_onnx_graph_has_a_third_output(parts, tmp_path):
    ort = pytest.importorskip('onnxruntime')
    pytest.importorskip('onnxscript')
    dot = fit_one_cycle(learner(parts[0].dls, arch=DotProduct, n_factors=4), 1, 5e-2)
    two = two_part(parts[0], dot)
    graph = ort.InferenceSession(str(two.export_onnx(tmp_path/'g.onnx', k=4)))
    assert [o.name for o in graph.get_outputs()]==['items','scores','predicted']
    stars = graph.run(None, dict(users=np.array([1]), seen=np.zeros((1,1), np.int64)))[2]
    user = parts[0].dls.interactions('train').classes['user_id'].decode([1])
    assert np.allclose(stars[0], two.recommend(user, k=4, exclude_seen=False).predicted, rtol=1e-4)

# must-show 5

@pytest.mark.slow
def test_on_movielens_each_part_is_as_good_as_alone():
    dls = CollabDataLoaders.from_df(ml_100k(), item_name='title', bs=64, seed=42)
    rater = fit_one_cycle(collab_learner(dls, n_factors=50, y_range=(0,5.5)), 5, 5e-3, wd=.1)
    ranker = fit(collab_learner(dls, arch=EASE), 1)
    ev,a,b = (o.evaluate(k=10, progress=False).summary for o in (two_part(rater, ranker),rater,ranker))
    assert abs(ev['rmse']-a['rmse'])<=.002 and abs(ev['ndcg@10']-b['ndcg@10'])<=.002
    assert (ev['rmse'],ev['ndcg@10'])==(a['rmse'],b['ndcg@10']) and b['ndcg@10']>2*a['ndcg@10']

def test_a_class_of_one_s_own_does_not_take_the_name_of_one_of_recfast():
    ours = find_class('twopart')
    compose(type('TwoPart', (), {}))
    assert find_class('twopart') is ours is TwoPart
    mine = type('MyParts', (), {})
    compose(mine)
    assert COMPOSED.pop('myparts') is mine

def test_a_ranker_is_asked_once_for_each_user_of_a_validation_pass(monkeypatch):
    clicks = CollabDataLoaders.implicit_from_df(FRAME, n_neg=1, seed=42, bs=8)
    ranker = fit(collab_learner(clicks, arch=EASE), 1)
    two = collab_learner(clicks, arch=TwoPart(None, part_of(ranker)))
    asked,own = [],EASE.score_items
    monkeypatch.setattr(EASE, 'score_items', lambda self, users: asked.extend(users.tolist()) or own(self, users))
    with two.no_bar(): quick = two.validate()
    assert len(asked)==len(set(asked))>5 and len(two.dls.valid)>5
    two._allow_fast = False
    with two.no_bar(): assert list(two.validate())==pytest.approx(list(quick), rel=1e-5)
