"Unknown is what has no training row, at every door that makes or measures lists, whatever the vocabulary holds"
import json

import numpy as np
import pandas as pd
import pytest
import torch
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from recfast.bundle import load_bundle
from recfast.cli import app
from recfast.core import UnknownIdError
from recfast.data.datasets import movie_night
from recfast.data.loaders import CollabDataLoaders
from recfast.ensemble import two_part
from recfast.export import RankGraph
from recfast.learner import collab_learner
from recfast.losses import BCE, BPRLoss, SoftmaxLoss
from recfast.models.dot import DotProductBias
from recfast.models.ials import IALS
from recfast.models.knn import ItemKNN
from recfast.models.linear import EASE, Popularity
from recfast.recommend import Recommender
from recfast.serve import make_app
from recfast.tables import read_table
from recfast.testing import synth_ratings

pytestmark = pytest.mark.filterwarnings('ignore::recfast.core.LeakageWarning', 'ignore:.*solved in closed form', 'ignore:.*validation rows have')

FRAME = synth_ratings()
USER,ITEM = FRAME.user_id.iloc[0],FRAME.item_id.iloc[1]

def fitted(dls, arch=DotProductBias, **kwargs):
    learn = collab_learner(dls, 6, arch=arch, seed=0, **kwargs)
    with learn.quiet(): learn.fit(1, 1e-2)
    return learn

def held_out(df=FRAME, user=USER, item=ITEM):
    "Positions: all rows of a user and of an item are held out"
    new = (df.user_id==user)|(df.item_id==item)
    return np.flatnonzero(~new),np.flatnonzero(new)

@pytest.fixture(scope='module', params=[DotProductBias,EASE,ItemKNN,IALS,Popularity], ids=lambda o: o.__name__)
def learn(request):
    return fitted(CollabDataLoaders.implicit_from_df(FRAME, n_neg=0, bs=64, seed=0, vocab='all', splits=held_out()), request.param)

def test_a_film_night_without_its_seventh_user():
    df = movie_night()
    new = df.user_id==7
    dls = CollabDataLoaders.implicit_from_df(df, item_name='title', n_neg=0, bs=256, seed=0, vocab='all', splits=(np.flatnonzero(~new),np.flatnonzero(new)))
    learn = fitted(dls, EASE)
    assert dls.report['cold_user_rows']==learn.evaluate(k=5).counts['cold_user_rows']==new.sum()==71 and dls.report['untrained_users']==1
    with pytest.raises(UnknownIdError, match='unknown user id: 7. The model knows 599 users'): learn.recommend(7, k=3, exclude_seen=False)

def test_lists_for_a_user_who_was_never_trained(learn):
    for how in (dict(), dict(exclude_seen=False), dict(k=2)):
        with pytest.raises(UnknownIdError, match='unknown user id') as e: learn.recommend(USER, **how)
        assert e.value.ids==[USER]
    assert len(learn.recommend([USER], on_unknown='drop'))==0
    known = learn.recommender.known_ids()[:1]
    pd.testing.assert_frame_equal(learn.recommend([USER,known[0]], on_unknown='drop', k=3), learn.recommend(known, k=3))
    with pytest.warns(UserWarning, match='unknown user id'): got = learn.recommend(USER, on_unknown='warn', k=3)
    stranger = learn.recommend('nobody of this name' if isinstance(USER, str) else -77, on_unknown='fallback', k=3)
    assert got.item_id.tolist()==stranger.item_id.tolist()==learn.recommend(USER, on_unknown='fallback', k=3).item_id.tolist()

def test_everybody_is_everybody_who_was_trained(learn):
    users = learn.recommend(k=1).user_id
    assert USER not in users.values and set(users)==set(learn.dls.interactions('train').frame().user_id)

def test_items_that_were_never_trained(learn):
    if not isinstance(learn.model, Popularity):
        with pytest.raises(UnknownIdError, match='unknown item id'): learn.similar_items(ITEM)
    with pytest.raises(UnknownIdError, match='unknown item id'): learn.recommend(learn.recommender.known_ids()[0], item_ids=[ITEM])
    assert ITEM not in learn.recommend(k=99, exclude_seen=False).item_id.values
    learn.recommend(learn.recommender.known_ids()[0], exclude_item_ids=[ITEM], on_unknown='drop')

def test_an_explanation(learn):
    try: learn.explain(learn.recommender.known_ids()[0], k=1)
    except NotImplementedError: pytest.skip('no explanations')
    with pytest.raises(UnknownIdError, match='unknown user id'): learn.explain(USER)
    with pytest.raises(UnknownIdError, match='unknown item id'): learn.explain(learn.recommender.known_ids()[0], [ITEM])

def test_the_evaluation_skips_and_counts(learn):
    ev,report = learn.evaluate(k=5),learn.dls.report
    assert USER not in ev.per_user.user_id.values and ev.counts['skipped_users']==1
    assert [report[f'cold_{o}_rows'] for o in ('user','item')]==[ev.counts[f'cold_{o}_rows'] for o in ('user','item')]==[(FRAME.user_id==USER).sum(),(FRAME.item_id==ITEM).sum()]
    assert report['untrained_users']==report['untrained_items']==1

def test_a_prediction_comes_from_the_tables_of_the_model():
    dls = CollabDataLoaders.from_df(FRAME, seed=0, vocab='all', splits=held_out(), bs=64)
    learn = fitted(dls, y_range=(0,5.5))
    x = torch.tensor([[dls.classes['user_id'].o2i[USER],dls.classes['item_id'].o2i[FRAME.item_id.iloc[0]]]])
    assert learn.predict(USER, FRAME.item_id.iloc[0])==pytest.approx(float(learn.model.eval()(x)), abs=1e-6)
    assert dls.report['untrained_users']==1

@pytest.mark.parametrize('which', ['user','item'])
def test_a_vocabulary_that_was_given(which):
    "Ids that no row has at all"
    vocab = {'user_id': list(FRAME.user_id.unique()), 'item_id': list(FRAME.item_id.unique())}
    new = max(vocab[f'{which}_id'])+'x' if isinstance(vocab[f'{which}_id'][0], str) else max(vocab[f'{which}_id'])+1000
    vocab[f'{which}_id'].append(new)
    dls = CollabDataLoaders.from_df(FRAME, seed=0, vocab=vocab, bs=64)
    learn = fitted(dls, y_range=(0,5.5))
    assert dls.report[f'untrained_{which}s']>=1 and isinstance(learn.predict(*((new,ITEM) if which=='user' else (USER,new))), float)
    with pytest.raises(UnknownIdError): learn.recommend(new) if which=='user' else learn.similar_items(new)

def test_with_training_rows_for_all_the_report_is_as_it_was():
    assert 'untrained_users' not in CollabDataLoaders.from_df(FRAME, seed=0, bs=64, valid_pct=0).report

def test_candidates_that_were_never_trained(learn):
    assert learn.evaluate(candidates=[ITEM]).counts['candidates']==0
    some = [ITEM,*learn.recommender.known_ids('item')[:3]]
    assert learn.evaluate(candidates=some, k=2).counts['candidates']==3

def test_bundle_shell_service_and_graph(tmp_path):
    learn = fitted(CollabDataLoaders.implicit_from_df(FRAME, n_neg=0, bs=64, seed=0, vocab='all', splits=held_out()))
    learn.save_bundle(tmp_path/'b')
    rec,path = load_bundle(tmp_path/'b'),str(tmp_path/'b')
    with pytest.raises(UnknownIdError): rec.recommend(USER)
    said = CliRunner().invoke(app, ['recommend', path, '--user', str(USER)])
    assert said.exit_code==2 and 'unknown user id' in said.stderr
    assert CliRunner().invoke(app, ['recommend', path, '--all', '--out', str(tmp_path/'l.csv'), '-k', '2']).exit_code==0
    assert str(USER) not in set(read_table(tmp_path/'l.csv').user_id.astype(str))
    known = rec.known_ids()
    with TestClient(make_app(path)) as web:
        assert web.post('/recommend', json=dict(user_ids=[json.loads(json.dumps(USER, default=int))])).status_code==404
        assert web.post('/recommend', json=dict(user_ids=[json.loads(json.dumps(known[0], default=int))])).status_code==200
    users = torch.tensor([rec.users.o2i[o] for o in (USER,known[0])])
    items,scores = RankGraph(rec, 3)(users, torch.zeros(2, 1, dtype=torch.int64))
    assert (items[0]==0).all() and (items[1]>0).all()


# what stands in for an item that nobody knows

SCORES = {
    'bpr': dict(loss_func=BPRLoss()), 'bce': dict(loss_func=BCE()), 'softmax': dict(loss_func=SoftmaxLoss()), 'EASE': dict(arch=EASE), 'Popularity': dict(arch=Popularity)}

@pytest.mark.parametrize('kind', SCORES)
def test_an_item_nobody_knows_scores_as_the_mean_of_those_there_are(kind, tmp_path):
    df = movie_night()[['user_id','title']]
    dls = CollabDataLoaders.implicit_from_df(df, item_name='title', n_neg=0 if kind in ('softmax','EASE','Popularity') else 4, bs=512, seed=0, valid_pct=0)
    learn = collab_learner(dls, 8, **SCORES[kind])
    with learn.quiet(): learn.fit(1, 1e-2)
    rec = learn.recommender
    want = np.mean([learn.recommend(99_999, k=9999, on_unknown='fallback').score.mean()])
    ask = lambda o: [o.predict(7, 'never heard of', on_unknown='fallback'),o.predict(99_999, 'never heard of', on_unknown='fallback')]
    learn.save_bundle(tmp_path/'b.recfast')
    for o in (learn,load_bundle(tmp_path/'b.recfast'),Recommender(learn.model, rec.seen, rec.train, rec.loss, rec.draws)):
        assert ask(o)==pytest.approx([want]*2, rel=1e-4)
    assert np.isnan(learn.predict(7, 'never heard of', on_unknown='drop'))
    with TestClient(make_app(tmp_path/'b.recfast')) as web:
        got = web.post('/predict', json=dict(user_ids=7, item_ids='never heard of', on_unknown='fallback')).json()
        assert got==pytest.approx(want, rel=1e-4)

@pytest.mark.parametrize('y_range', [(0,5.5),None])
def test_where_scores_are_ratings_it_is_the_mean_rating(y_range, tmp_path):
    df = movie_night()
    learn = collab_learner(CollabDataLoaders.from_df(df, item_name='title', bs=512, seed=0, valid_pct=0), 8, y_range=y_range)
    with learn.quiet(): learn.fit(1, 1e-2)
    learn.save_bundle(tmp_path/'b.recfast')
    for o in (learn,load_bundle(tmp_path/'b.recfast')): assert o.predict(7, 'never heard of', on_unknown='fallback')==pytest.approx(df.rating.mean(), rel=1e-5)

def test_a_two_part_model_falls_back_on_stars():
    df = movie_night()
    how = dict(item_name='title', bs=512, seed=0, valid_pct=0)
    rater,ranker = collab_learner(CollabDataLoaders.from_df(df, **how), 8, y_range=(0,5.5)),collab_learner(CollabDataLoaders.from_df(df, **how), arch=EASE)
    for o in (rater,ranker):
        with o.quiet(): o.fit(1, 1e-2)
    assert two_part(rater, ranker).predict(7, 'never heard of', on_unknown='fallback')==pytest.approx(df.rating.mean(), rel=1e-5)
    want = ranker.recommender.mean_scores()[ranker.recommender.known()].mean()
    assert ranker.predict(7, 'never heard of', on_unknown='fallback')==pytest.approx(want, rel=1e-5)
