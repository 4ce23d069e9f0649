"What counts as seen is said by the caller, and lists and their measurement mean the same by it"
import json

import numpy as np
import pandas as pd
import pytest
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from recfast.bundle import load_bundle
from recfast.callbacks import RankingMetrics, SaveModelCallback
from recfast.cli import app
from recfast.data.loaders import CollabDataLoaders
from recfast.evaluate import compare, evaluate_recommender, hit_lists
from recfast.learner import collab_learner
from recfast.core import RatingsError
from recfast.models.ials import IALS
from recfast.models.knn import ItemKNN
from recfast.models.linear import EASE, Popularity
from recfast.models.sequence import SASRec
from recfast.serve import make_app
from recfast.testing import synth_ratings
from recfast.tune import tune

pytestmark = pytest.mark.filterwarnings('ignore::recfast.core.LeakageWarning', 'ignore:.*solved in closed form')

def fitted(dls, arch=None, n=1, lr=1e-2, **kwargs):
    learn = collab_learner(dls, 8, arch=arch, seed=0, **kwargs)
    with learn.quiet(): learn.fit(n, lr)
    return learn

def plays(n_users=40, n_items=12, n=25, seed=0):
    "A log in which everybody plays the same few songs again and again"
    rs = np.random.RandomState(seed)
    own = [rs.permutation(n_items)[:5] for _ in range(n_users)]
    rows = [(f'u{u:02}', f's{rs.choice(own[u])}', t) for t in range(n) for u in range(n_users)]
    return pd.DataFrame(rows, columns=['user_id','item_id','timestamp'])

@pytest.fixture(scope='module')
def play_loaders(): return CollabDataLoaders.implicit_from_df(plays(), n_neg=2, bs=64, seed=0)

def hand(learn, k, seen):
    "hit@k and recall@k worked out from `recommend` and the rows"
    train,valid = (learn.dls.interactions(o).frame() for o in ('train','valid'))
    own = train.groupby('user_id').item_id.agg(set)
    want = valid.groupby('user_id').item_id.agg(set)
    hits,found = [],[]
    for u,w in want.items():
        if u not in own: continue
        left = w if seen else w-own[u]
        if not left: continue
        rec = learn.recommend(u, k=len(learn.dls.classes['item_id']), exclude_seen=False).item_id
        if not seen: rec = rec[~rec.isin(own[u])]
        n = len(set(rec[:k])&left)
        hits.append(n>0)
        found.append(n/len(left))
    return np.mean(hits),np.mean(found)

def test_a_model_that_is_always_right_where_items_come_again():
    df = pd.DataFrame([(u,(u+t)%5+1,t) for u in range(60) for t in range(12)], columns=['user_id','item_id','timestamp'])
    dls = CollabDataLoaders.sequences_from_df(df, seq_len=5, bs=16, seed=0)
    learn = collab_learner(dls, 16, arch=SASRec, config=dict(seq_len=5, p=0.), cbs=RankingMetrics('hit@1', exclude_seen=False))
    with learn.quiet(): learn.fit_one_cycle(15, 1e-2, cbs=SaveModelCallback(monitor='hit@1', fname='seen'))
    ev = learn.evaluate(k=1, metrics='hit', exclude_seen=False)
    assert ev['hit@1']==1. and ev.counts['users']==60 and learn.ranking_metrics.evaluation['hit@1']==1.
    assert "the user's own training rows among them" in ev.protocol
    assert learn.evaluate(k=1, metrics='hit').counts['users']==0

@pytest.mark.parametrize('arch', [None,EASE,ItemKNN,IALS,Popularity], ids=str)
@pytest.mark.parametrize('k', [1,4])
def test_the_measurement_is_that_of_the_lists(play_loaders, arch, k):
    learn = fitted(play_loaders, arch)
    for seen in (True,False):
        ev = learn.evaluate(k=k, metrics=['hit','recall'], exclude_seen=not seen)
        assert [ev[f'hit@{k}'],ev[f'recall@{k}']]==pytest.approx(hand(learn, k, seen))

def test_with_half_of_the_tests_repeated_everybody_is_measured():
    df = plays(60, 30, 12)
    splits = [np.arange(600),np.arange(600, 720)]
    learn = fitted(CollabDataLoaders.implicit_from_df(df, n_neg=2, bs=64, seed=0, splits=splits), EASE)
    all_,new = (learn.evaluate(k=5, exclude_seen=o).counts for o in (False,True))
    assert all_['users']==60>new['users'] and all_['relevant_pairs']==df[600:].drop_duplicates(['user_id','item_id']).shape[0]

CANDIDATES = {'ids': ['s1','s2','s3'], 'lists': pd.DataFrame(dict(user_id=np.repeat(['u01','u02','u03'], 4), item_id=['s0','s1','s2','s3']*3)),
    'sampled': {'sampled': 3, 'seed': 1}}

@pytest.mark.parametrize('kind', CANDIDATES)
def test_seen_candidates_stand_in_lists_of_any_kind(play_loaders, kind):
    learn = fitted(play_loaders, EASE)
    how = dict(candidates=CANDIDATES[kind], k=3, metrics=['ndcg','auc'])
    ev,without = learn.evaluate(exclude_seen=False, **how),learn.evaluate(**how)
    assert ev.counts['relevant_pairs']>without.counts['relevant_pairs'] and not np.isnan(ev['ndcg@3'])
    assert 'are training rows of the user' not in ev.protocol and 'in neither part' not in ev.protocol
    pop = fitted(play_loaders, Popularity).evaluate(exclude_seen=False, **how)
    pd.testing.assert_frame_equal(ev.baseline.per_user, pop.per_user)

def test_the_places_of_all_candidates(play_loaders):
    learn = fitted(play_loaders, EASE)
    ev = learn.evaluate(metrics='auc', exclude_seen=False)
    valid = play_loaders.interactions('valid')
    one = ev.per_user.user_id[0]
    rec = learn.recommend(one, k=99, exclude_seen=False).set_index('item_id').score
    rel = set(valid.frame().query('user_id==@one').item_id)
    pairs = [(rec[a]>rec[b])+(rec[a]==rec[b])/2 for a in rel for b in rec.index if b not in rel]
    assert ev.per_user.auc[0]==pytest.approx(np.mean(pairs), abs=1e-6)

def test_hit_lists(play_loaders):
    train,valid = (play_loaders.interactions(o) for o in ('train','valid'))
    model = fitted(play_loaders, EASE).model
    n = hit_lists(model, train, valid, 3, exclude_seen=False)[2].sum()
    assert n==len(valid.frame().drop_duplicates()) and n>hit_lists(model, train, valid, 3)[2].sum()

def test_compare_and_tune_pass_it_on(play_loaders):
    two = {'ease': fitted(play_loaders, EASE), 'pop': fitted(play_loaders, Popularity)}
    c = compare(two, k=3, metric='hit@3', exclude_seen=False)
    assert c.evaluations['ease']['hit@3']==two['ease'].evaluate(k=3, exclude_seen=False)['hit@3'] and 'among them' in c.protocol
    found = tune(lambda l2: fitted(play_loaders, EASE, config=dict(l2=l2)), {'l2': [1.,50.]}, n_trials=1, monitor='hit@3', seed=0,
        evaluate=dict(exclude_seen=False), progress=False)
    assert found.best_value==pytest.approx(fitted(play_loaders, EASE, config=found.best_params).evaluate(k=3, exclude_seen=False)['hit@3'])

def test_stars_are_no_different():
    learn = fitted(CollabDataLoaders.from_df(synth_ratings(), seed=1, bs=64), y_range=(0,5.5))
    ev = learn.evaluate(k=5, exclude_seen=False)
    assert ev['rmse']==learn.evaluate(k=5)['rmse'] and [ev['hit@5'],ev['recall@5']]==pytest.approx(hand(learn, 5, True))

@pytest.mark.parametrize('what', ['', 0, None, [], {'buy': True}])
def test_what_says_nothing_is_refused_at_every_door(play_loaders, what):
    learn = fitted(play_loaders, EASE)
    doors = [lambda: learn.evaluate(exclude_seen=what), lambda: learn.recommend('u01', exclude_seen=what),
        lambda: learn.recommend(history=['s1'], exclude_seen=what), lambda: compare(learn, exclude_seen=what)]
    for door in doors:
        with pytest.raises((TypeError,ValueError), match='exclude_seen='): door()

def test_a_training_in_the_shell(tmp_path):
    plays().to_csv(tmp_path/'p.csv', index=False)
    said = {}
    for flag in ([],['--include-seen']):
        res = CliRunner().invoke(app, ['train', str(tmp_path/'p.csv'), '--out', str(tmp_path/'b'), '--arch', 'ease', '--epochs', '1', *flag])
        assert res.exit_code==0, res.output
        said[bool(flag)] = load_bundle(tmp_path/'b').info['training']
    assert 'among them' in said[True]['protocol'] and 'less the user' in said[False]['protocol']
    assert said[True]['metrics']['ndcg@10']!=said[False]['metrics']['ndcg@10']

def test_the_shell(play_loaders, tmp_path):
    learn = fitted(play_loaders, EASE)
    learn.save_bundle(tmp_path/'b')
    test = plays(seed=9)[:200]
    test.to_csv(tmp_path/'t.csv', index=False)
    res = CliRunner().invoke(app, ['evaluate', str(tmp_path/'b'), str(tmp_path/'t.csv'), '-k', '3', '--include-seen', '--out', str(tmp_path/'m.json')])
    assert res.exit_code==0, res.output
    rec,got = load_bundle(tmp_path/'b'),json.loads((tmp_path/'m.json').read_text(encoding='utf-8'))
    want = evaluate_recommender(rec.model, rec.train, test, k=3, rated=False, exclude_seen=False)
    assert got['metrics']==want.summary and 'among them' in got['protocol']


# events

def shop(seed=0):
    "Views and purchases of 40 people"
    df = plays(seed=seed)
    return df.assign(kind=np.where(np.random.RandomState(seed).rand(len(df))<.3, 'buy', 'view'))

@pytest.fixture(scope='module')
def shop_learn():
    return fitted(CollabDataLoaders.implicit_from_df(shop(), n_neg=0, bs=64, seed=0, event_name='kind'), EASE)

def of_kind(learn, part, kinds):
    rows = learn.dls.interactions(part)
    return (rows if kinds is None else rows.of_events(kinds)).frame().groupby('user_id').item_id.agg(set).to_dict()

@pytest.mark.parametrize('kinds', [{'buy'}, 'buy', ['view'], ('view','buy')])
def test_only_these_events_count_as_seen(shop_learn, kinds):
    seen = of_kind(shop_learn, 'all', kinds)
    full = shop_learn.recommend(k=99, exclude_seen=False).groupby('user_id').item_id.agg(list)
    got = shop_learn.recommend(k=99, exclude_seen=kinds).groupby('user_id').item_id.agg(list)
    for u,items in full.items(): assert got.get(u, [])==[i for i in items if i not in seen.get(u, ())]

@pytest.mark.parametrize('kinds', [{'buy'}, ['view']])
def test_the_measurement_leaves_out_the_same(shop_learn, kinds):
    seen,want = of_kind(shop_learn, 'train', kinds),of_kind(shop_learn, 'valid', None)
    full = shop_learn.recommend(k=99, exclude_seen=False).groupby('user_id').item_id.agg(list)
    recall = {u: len({i for i in full[u] if i not in seen.get(u, ())} & set([i for i in full[u] if i not in seen.get(u, ())][:3]) & (w-seen.get(u, set())))
        /len(w-seen.get(u, set())) for u,w in want.items() if w-seen.get(u, set())}
    ev = shop_learn.evaluate(k=3, metrics='recall', exclude_seen=kinds)
    assert ev.per_user.set_index('user_id')['recall@3'].to_dict()==pytest.approx(recall)
    assert f"less the user's own training rows of {[*kinds][0]!r}" in ev.protocol
    assert compare(shop_learn, k=3, metric='recall@3', exclude_seen=kinds).table['mean'].iloc[0]==pytest.approx(ev['recall@3'])
    pop = fitted(shop_learn.dls, Popularity).evaluate(k=3, metrics='recall', exclude_seen=kinds)
    assert ev.baseline.summary==pop.summary

def test_every_kind_of_candidates_takes_events(shop_learn):
    for c in CANDIDATES.values(): assert 'in neither part' not in shop_learn.evaluate(candidates=c, k=2, exclude_seen={'buy'}).protocol

def test_ranking_metrics_take_events(shop_learn):
    learn = collab_learner(shop_learn.dls, arch=EASE, cbs=RankingMetrics('recall@3', exclude_seen={'buy'}))
    with learn.quiet(): learn.fit(1)
    assert learn.ranking_metrics.vals['recall@3']==shop_learn.evaluate(k=3, metrics='recall', exclude_seen={'buy'})['recall@3']

def test_kinds_that_are_not_there(shop_learn, play_loaders):
    for ask in (lambda: shop_learn.recommend('u01', exclude_seen={'wish'}), lambda: shop_learn.evaluate(exclude_seen={'wish'})):
        with pytest.raises(RatingsError, match="no events of kind 'wish'; there are 'buy', 'view'"): ask()
    with pytest.raises(RatingsError, match='tell no kinds of events apart'): fitted(play_loaders, EASE).recommend('u01', exclude_seen={'buy'})
    with pytest.raises(RatingsError, match='a history names no events'): shop_learn.recommend(history=['s1'], exclude_seen={'buy'})
    with pytest.raises(TypeError, match='exclude_seen='): shop_learn.recommend('u01', exclude_seen=set())

def test_events_in_bundle_shell_and_service(shop_learn, tmp_path):
    shop_learn.save_bundle(tmp_path/'b')
    want = shop_learn.recommend('u01', k=3, exclude_seen={'buy'})
    assert load_bundle(tmp_path/'b').recommend('u01', k=3, exclude_seen={'buy'}).item_id.tolist()==want.item_id.tolist()
    run = lambda *args: CliRunner().invoke(app, [*map(str, args)])
    res = run('recommend', tmp_path/'b', '--user', 'u01', '-k', 3, '--seen-event', 'buy', '--out', '-')
    assert [o.split(',')[1] for o in res.stdout.splitlines()[1:]]==want.item_id.tolist(), res.output
    shop(9)[:200].to_csv(tmp_path/'t.csv', index=False)
    res = run('evaluate', tmp_path/'b', tmp_path/'t.csv', '--seen-event', 'buy')
    assert res.exit_code==0 and "rows of 'buy'" in ' '.join(res.stdout.split()), res.output
    assert run('recommend', tmp_path/'b', '--user', 'u01', '--seen-event', 'buy', '--include-seen').exit_code==2
    with TestClient(make_app(tmp_path/'b')) as web:
        rows = web.post('/recommend', json=dict(user_ids=['u01'], k=3, exclude_seen=['buy'])).json()
        assert [o['item_id'] for o in (rows if isinstance(rows, list) else rows['rows'])]==want.item_id.tolist()
        assert web.post('/recommend', json=dict(user_ids=['u01'], exclude_seen=['wish'])).status_code in (400,422)


# kinds of events that are numbers

@pytest.mark.parametrize('kinds', [[1,2],['1','2'],[1.,2.]], ids=str)
def test_kinds_of_events_are_named_alike_at_every_door(kinds, tmp_path):
    rng = np.random.default_rng(0)
    df = pd.DataFrame(dict(user_id=rng.integers(0,40,900), item_id=rng.integers(0,30,900), kind=rng.choice(np.array(kinds, dtype=object), 900)))
    df['kind'] = df.kind.infer_objects()
    learn = collab_learner(CollabDataLoaders.implicit_from_df(df, seed=1, n_neg=0, bs=64, event_name='kind'), arch=EASE)
    with learn.quiet(): learn.fit(1)
    learn.save_bundle(tmp_path/'b.recfast')
    want = learn.recommend(1, k=99, exclude_seen={kinds[1]})
    assert len(want)!=len(learn.recommend(1, k=99, exclude_seen={kinds[0]}))
    with TestClient(make_app(tmp_path/'b.recfast')) as web:
        for asked in ([2],['2'],[2.]) if kinds!=[1.,2.] else ([2],[2.]):
            if isinstance(kinds[1], str) and asked==[2.]: continue
            assert learn.recommend(1, k=99, exclude_seen=set(asked)).equals(want)
            got = web.post('/recommend', json=dict(user_ids=[1], k=99, exclude_seen=asked)).json()
            assert [o['item_id'] for o in got]==want.item_id.tolist()
        answer = web.post('/recommend', json=dict(user_ids=[1], exclude_seen=[3]))
        assert answer.status_code==422 and 'no events of kind 3' in answer.json()['detail']
