"What people get who are told about as if they were new, beside what trained people get"
import functools
import json

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from helpers import ALL, fit, learner, learner_of, loaders
from recfast.bundle import load_bundle
from recfast.by_history import evaluate_by_history
from recfast.cli import app
from recfast.compare import compare
from recfast.core import RatingsError, UnknownIdError
from recfast.data.datasets import movie_night
from recfast.data.loaders import CollabDataLoaders
from recfast.learner import collab_learner
from recfast.losses import BCE, BPRLoss, SampledSoftmaxLoss, SoftmaxLoss
from recfast.models.ials import IALS
from recfast.models.linear import EASE, Popularity
from recfast.models.knn import ItemKNN
from recfast.models.sequence import SASRec

pytestmark = pytest.mark.filterwarnings('ignore')
FILMS = movie_night(version=1).query('user_id<=150').reset_index(drop=True)
LIKED = FILMS[FILMS.rating>=4].reset_index(drop=True)

def clicks(**kwargs): return CollabDataLoaders.implicit_from_df(LIKED, **{'item_name': 'title', 'seed': 0, 'bs': 256, 'n_neg': 0, **kwargs})

def trained(dls, n=1, **kwargs):
    learn = collab_learner(dls, 8, **kwargs)
    return fit(learn, n, 1e-2)

def values(ev): return ev.per_user.set_index('user_id').iloc[:,1:]

# the same figures by hand: ask for lists of histories, measure them

def by_hand(learn, test, told, k=5):
    "NDCG of `recommend(history=)`, person by person"
    lists = learn.recommend(history=told, k=k).groupby('user_id').item_id.apply(list)
    out = {}
    user,item = learn.dls.cat_names
    seen = told.groupby(user)[item].apply(set)
    for person,rows in test.groupby(user):
        if person not in seen.index: continue
        found = set(rows[item])-seen[person]
        if not found: continue
        gain = sum(1/np.log2(j+2) for j,o in enumerate(lists.get(person, [])) if o in found)
        out[person] = gain/sum(1/np.log2(j+2) for j in range(min(k, len(found))))
    return pd.Series(out).sort_index()

KINDS = dict(
    stars=lambda: fit(learner(loaders(bs=32)), 3, 2e-2),
    bce=lambda: trained(clicks(n_neg=2), loss_func=BCE()),
    bpr=lambda: trained(clicks(n_neg=2), loss_func=BPRLoss()),
    sampled=lambda: trained(clicks(n_neg=4), loss_func=SampledSoftmaxLoss()),
    softmax=lambda: trained(clicks(), loss_func=SoftmaxLoss()),
    ease=lambda: trained(clicks(), arch=EASE), knn=lambda: trained(clicks(), arch=ItemKNN),
    ials=lambda: trained(clicks(), 3, arch=IALS), popularity=lambda: trained(clicks(), arch=Popularity),
    sasrec=lambda: trained(CollabDataLoaders.sequences_from_df(FILMS, item_name='title', seed=0, bs=64), arch=SASRec))

@functools.cache
def learner_of_kind(kind): return KINDS[kind]()

@pytest.mark.parametrize('kind', KINDS)
def test_it_is_what_recommend_gives_for_the_training_rows(kind):
    learn = learner_of_kind(kind)
    told = learn.evaluate(k=5, metrics='ndcg', histories=True).by_history
    train,valid = (learn.dls.interactions(o) for o in ('train','valid'))
    want = by_hand(learn, valid.frame(), train.timed_frame())
    got = values(told)['ndcg@5']
    assert got.index.tolist()==want.index.tolist()
    np.testing.assert_allclose(got, want, atol=1e-12)

@pytest.mark.parametrize('kind', ['ease','knn','popularity','sasrec'])
def test_a_model_that_reads_histories_anyway_gives_the_same(kind):
    ev = learner_of_kind(kind).evaluate(k=(5,10), metrics=['ndcg','recall','mrr','auc','diversity','novelty'], histories=True)
    assert ev.same_users(ev.by_history)
    np.testing.assert_allclose(values(ev.by_history), values(ev), rtol=0, atol=1e-6)
    assert [*ev.by_history.summary.values()]==pytest.approx([*ev.summary.values()], abs=1e-6)

@pytest.mark.parametrize('name', sorted(ALL))
def test_every_model_answers_or_says_why_not(name):
    learn = fit(learner_of(name), 1)
    if not ALL[name][1]['history']:
        with pytest.raises(NotImplementedError) as told: learn.evaluate(k=3, histories=True)
        with pytest.raises(NotImplementedError) as asked: learn.recommend(history=learn.dls.interactions('train').frame()[:3])
        assert str(told.value)==str(asked.value)
        return
    ev = learn.evaluate(k=3, histories=True)
    assert ev.same_users(ev.by_history) and 0<=ev.by_history['ndcg@3']<=1
    assert ev.by_history.baseline is ev.baseline

# protocols, candidates, groups, memory

def test_it_is_measured_under_the_same_protocol():
    learn = learner_of_kind('ease')
    some = LIKED.title.unique()[:150].tolist()
    for how in (dict(candidates=some), dict(candidates={'sampled': 20, 'seed': 0}), dict(exclude_seen=False), dict(by='user'), dict(by='item')):
        ev = learn.evaluate(k=5, histories=True, **how)
        np.testing.assert_allclose(values(ev.by_history), values(ev), rtol=0, atol=1e-6)
        assert ev.by_history.counts==ev.counts
        if 'by' in how: pd.testing.assert_frame_equal(ev.by_history.by, ev.by)

def test_small_chunks_and_no_bar_make_no_difference():
    learn = learner_of_kind('bpr')
    whole,parts = (learn.evaluate(k=5, histories=True, progress=False, **how).by_history for how in ({}, dict(memory=2**15)))
    pd.testing.assert_frame_equal(whole.per_user, parts.per_user)

def test_it_stands_in_everything_that_is_shown():
    learn = learner_of_kind('ease')
    ev = learn.evaluate(k=5, histories=True)
    assert list(ev.beside_popularity())==['@5','by history','popularity']
    assert f'{len(ev.per_user)} people are told by their training rows' in str(ev) and 'by history' in ev._repr_markdown_()
    assert 'people get' in ev.words and 'told by a history' in ev.words
    assert ev.as_json()['by_history']['metrics']==ev.by_history.summary
    assert ev.as_kind('arrow').by_history.per_user.num_rows==len(ev.per_user)
    assert learn.training_facts(ev)['by_history']['ndcg@5']==pytest.approx(ev['ndcg@5'])

def test_without_histories_nothing_is_there():
    ev = learner().evaluate(k=5)
    assert ev.by_history is None and 'histor' not in str(ev) and 'by_history' not in ev.as_json()
    assert learner().evaluate(k=5, histories=False).by_history is None

def test_rmse_is_measured_when_it_is_named():
    learn = learner_of_kind('stars')
    train,test = (learn.dls.interactions(o) for o in ('train','valid'))
    scores = {u: learn.recommend(history=train.of_user(u).frame(), k=1000, exclude_seen=False).set_index('item_id').score for u in np.unique(test.users)}
    off = [scores[int(u)][i]-r for u,i,r in zip(test.users, test.frame().item_id, test.ratings())]
    assert learn.evaluate(metrics=['rmse','ndcg@5'], histories=True).by_history['rmse']==pytest.approx(np.square(off).mean()**.5, abs=1e-5)
    assert 'rmse' not in learn.evaluate(k=5, histories=True).by_history.summary

# people who were held out whole

def held_out(n=40):
    "(rows to train on, histories, test rows) of people of whom `n` are in no training"
    people = LIKED.user_id.unique()
    new = np.isin(LIKED.user_id, people[-n:])
    rows = LIKED[new & LIKED.title.isin(LIKED.title[~new])]
    last = rows.groupby('user_id').cumcount(ascending=False)<2
    return LIKED[~new],rows[~last],rows[last]

OLD,TOLD,TEST = held_out()

def of_old(arch=EASE, **kwargs):
    dls = CollabDataLoaders.implicit_from_df(OLD, item_name='title', seed=0, bs=256, n_neg=kwargs.pop('n_neg', 0), valid_pct=0)
    return trained(dls, arch=arch, **kwargs)

def test_people_who_were_held_out_are_told_by_a_frame():
    learn = of_old()
    ev = learn.evaluate(TEST, k=5, metrics='ndcg', histories=TOLD)
    told = ev.by_history
    want = by_hand(learn, TEST, TOLD)
    np.testing.assert_allclose(values(told)['ndcg@5'], want.loc[values(told).index], atol=1e-12)
    assert set(values(told).index)==set(want.index) and len(ev.per_user)==0 and np.isnan(ev['ndcg@5'])
    assert told.baseline is not None and 'By history: 40 people are told by histories they gave' in told.protocol
    assert 'less the own history' in told.protocol and str(told) in str(ev)

def test_popularity_is_that_of_training_whoever_asks():
    popular = of_old(Popularity)
    told = popular.evaluate(TEST, k=5, histories=TOLD).by_history
    np.testing.assert_allclose(values(told), values(told.baseline), atol=1e-12)

def test_who_tells_nothing_is_skipped_and_counted():
    some = TOLD[TOLD.user_id!=TOLD.user_id.iloc[0]]
    told = of_old().evaluate(TEST, k=5, histories=some).by_history
    assert len(told.per_user)==39 and told.counts['skipped_users']==1 and 'others are skipped (1)' in told.protocol

def test_rows_of_unknown_items_are_left_out_and_counted():
    more = pd.concat([TOLD, TOLD[:2].assign(title=['never','heard']), TOLD[:1].assign(user_id=10**6, title='nothing')])
    told,plain = (of_old().evaluate(TEST, k=5, histories=o).by_history for o in (more,TOLD))
    pd.testing.assert_frame_equal(told.per_user, plain.per_user)
    assert '(3 rows of items never trained left out)' in told.protocol

def test_trained_and_held_out_people_at_once():
    learn = of_old()
    some = OLD.user_id.unique()[:20]
    mine = OLD[np.isin(OLD.user_id, some)]
    test = pd.concat([TEST, mine.groupby('user_id').tail(1).assign(title=TEST.title.iloc[0])])
    ev = learn.evaluate(test, k=5, histories=pd.concat([TOLD,mine]))
    trained = values(ev)
    assert 0<len(trained)<=20 and len(ev.by_history.per_user)==40+len(trained)
    np.testing.assert_allclose(values(ev.by_history).loc[trained.index], trained, atol=1e-6)

@pytest.mark.parametrize('how', [dict(by='user'), dict(by='item'), dict(candidates={'sampled': 20, 'seed': 0}), dict(exclude_seen=False)], ids=str)
def test_other_protocols_for_people_who_were_held_out(how):
    told = of_old().evaluate(TEST, k=5, histories=TOLD, **how).by_history
    assert len(told.per_user)==40 and (told.by is None)==('by' not in how)
    if 'by' in how: assert told.by.n_users.sum()>=40

def test_lists_of_candidates_are_theirs():
    lists = pd.concat([TEST,TOLD])[['user_id','title']]
    told = of_old().evaluate(TEST, k=5, histories=TOLD, candidates=lists).by_history
    assert told['recall@5']==1 # what they may find is all there is

def test_leakage_is_counted_as_of_training():
    learn = of_old()
    ev = learn.evaluate(TEST, k=5, histories=TOLD)
    assert ev.by_history.counts['earlier_than_train']==ev.counts['earlier_than_train']>0
    assert ev.by_history.counts['earlier_than_own_train']==0

@pytest.mark.parametrize('histories,error,words', [
    ([['a film']], RatingsError, 'expected True'), ({'a film': 1}, RatingsError, 'expected True'), (TOLD[['title']], RatingsError, 'a column of users'),
    (TOLD.assign(title=1), UnknownIdError, 'unknown item'), (TOLD.assign(user_id=TOLD.user_id+10**6), UnknownIdError, 'unknown user')], ids=str)
def test_what_is_no_history_is_refused(histories, error, words):
    with pytest.raises(error, match=words): of_old().evaluate(TEST, k=5, histories=histories)

def test_events_of_histories_are_refused():
    with pytest.raises(RatingsError, match='event'): of_old().evaluate(TEST, k=5, histories=TOLD, exclude_seen={'buy'})

# weights: what weighs nothing was seen, and is not told

def test_rows_that_weigh_nothing_are_seen_and_not_told():
    df = LIKED.assign(w=np.where(np.arange(len(LIKED))%3==0, 0., 1.))
    dls = CollabDataLoaders.implicit_from_df(df, item_name='title', seed=0, bs=256, n_neg=0, weight_name='w')
    ev = trained(dls, arch=EASE).evaluate(k=5, histories=True)
    np.testing.assert_allclose(values(ev.by_history), values(ev), atol=1e-6)

# other doors

def test_compare_takes_it_as_further_rows():
    table = compare({'bpr': learner_of_kind('bpr'), 'ease': learner_of_kind('ease')}, k=5, metric='ndcg@5', histories=True)
    assert set(table.table.index)=={'bpr','bpr, by history','ease','ease, by history'} and 'ease, by history' in table.to_csv()
    assert table['ease, by history']['mean']==pytest.approx(table['ease']['mean'])

def test_the_shell_shows_both(tmp_path):
    learn = of_old()
    path = learn.save_bundle(tmp_path/'b')
    for name,df in dict(test=TEST, told=TOLD, own=OLD.groupby('user_id').tail(2).assign(title=TEST.title.iloc[0])).items():
        df[['user_id','title']].to_csv(tmp_path/f'{name}.csv', index=False)
    run = lambda *o: CliRunner().invoke(app, ['evaluate', str(path), *map(str, o), '--out', str(tmp_path/'m.json'), '-k', '5'])
    res = run(tmp_path/'test.csv', '--histories', tmp_path/'told.csv')
    assert res.exit_code==0, res.output
    told = learn.evaluate(TEST, k=5, histories=TOLD).by_history
    assert json.loads((tmp_path/'m.json').read_text(encoding='utf-8'))['by_history']['metrics']==pytest.approx(told.summary)
    assert 'By history: 40 people' in res.output.replace('\n', ' ')
    assert run(tmp_path/'own.csv', '--by-history').exit_code==0 and 'by_history' in (tmp_path/'m.json').read_text(encoding='utf-8')
    assert 'name one of them' in run(tmp_path/'own.csv', '--by-history', '--histories', tmp_path/'told.csv').output.replace('\n', ' ')
    rec = load_bundle(path)
    assert evaluate_by_history(rec, TEST, TOLD, k=5).summary==pytest.approx(told.summary)
