"What is told later is read as training read it: thresholds of likes, rows of JSON, half-lives, lists"
import warnings

import numpy as np
import pandas as pd
import pytest
from fastai.collab import CollabDataLoaders as Fastai
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from helpers import without_progress
from recfast.bundle import load_bundle
from recfast.callbacks import RankingMetrics
from recfast.cli import app
from recfast.core import RatingsError
from recfast.data.loaders import CollabDataLoaders
from recfast.given_lists import evaluate_lists
from recfast.learner import collab_learner
from recfast.losses import SoftmaxLoss
from recfast.models.dot import DotProduct
from recfast.models.linear import EASE, ItemKNN, Popularity
from recfast.models.sequence import SASRec
from recfast.models.svdpp import SVDpp
from recfast.serve import make_app

R = np.random.default_rng(0)
D = pd.DataFrame(dict(user_id=R.integers(0, 20, 400), item_id=R.integers(0, 15, 400), rating=R.integers(1, 6, 400).astype(float))).drop_duplicates(['user_id','item_id']).reset_index(drop=True)

def fitted(dls, **kwargs):
    learn = without_progress(collab_learner(dls, **{'n_factors': 4, **kwargs}))
    with learn.quiet(): learn.fit(1)
    return learn

def liked(name='rating', **kwargs):
    df = D.rename(columns={'rating': name})
    return df,fitted(CollabDataLoaders.implicit_from_df(df, n_neg=0, seed=1, bs=64, threshold=4, rating_name=name, **{'valid_pct': 0, **kwargs}), **MODEL)

MODEL = dict(arch=EASE)
def scores(rec, history): return rec.recommend(history=history, k=15, exclude_seen=False).sort_values('item_id').score.to_numpy()

# a threshold of likes

@pytest.mark.parametrize('model', [dict(arch=EASE), dict(arch=ItemKNN), dict(arch=DotProduct, loss_func=SoftmaxLoss())], ids=['ease','knn','softmax'])
@pytest.mark.parametrize('name', ['rating','stars'])
def test_a_history_is_cut_where_training_was(name, model, tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), 'MODEL', model)
    df,learn = liked(name)
    own = df[df.user_id==3]
    likes = own[own[name]>=4]
    forms = own,own[['item_id',name]],dict(zip(own.item_id, own[name])),likes,likes.assign(**{name: 1.}),own.to_dict('records')
    for rec in (learn, load_bundle(learn.save_bundle(tmp_path/'b'))):
        want = scores(rec, likes.item_id.tolist())
        for form in forms: np.testing.assert_allclose(scores(rec, form), want, rtol=1e-5, atol=1e-6)
        assert not rec.recommend(history=own, k=15).item_id.isin(own.item_id).any()  # what was only seen is seen
        why = rec.explain(history=own, k=2)
        assert set(why.because_item_id.dropna())<=set(likes.item_id)

def test_the_doors_agree_about_a_threshold(tmp_path):
    df,learn = liked()
    path = learn.save_bundle(tmp_path/'b')
    own = df[df.user_id==3]
    want = learn.recommend(history=own, k=3).item_id.tolist()
    rows = [dict(item_id=int(i), rating=r) for i,r in zip(own.item_id, own.rating)]
    assert [o['item_id'] for o in TestClient(make_app(load_bundle(path))).post('/recommend', json=dict(history=rows, k=3)).json()]==want
    own[['item_id','rating']].to_csv(tmp_path/'h.csv', index=False)
    for told in ([str(tmp_path/'h.csv')],[f'{i}:{r:g}' for i,r in zip(own.item_id, own.rating)]):
        args = [o for t in told for o in ('--history',t)]
        assert CliRunner().invoke(app, ['recommend',str(path),*args,'-k','3','--out',str(tmp_path/'l.csv')]).exit_code==0
        assert pd.read_csv(tmp_path/'l.csv').item_id.tolist()==want

def test_test_rows_are_cut_where_training_was(tmp_path):
    at = np.random.default_rng(0).permutation(len(D))
    df,learn = liked(valid_pct=None, splits=(np.sort(at[:160]),np.sort(at[160:])))
    test = df.iloc[np.sort(at[160:])]
    want = learn.evaluate(k=5)['ndcg@5']
    assert learn.evaluate(test, k=5)['ndcg@5']==learn.evaluate(test, k=5, relevant=4)['ndcg@5']==pytest.approx(want)
    assert 'rated 4 or more as likes' in learn.evaluate().protocol
    test.to_csv(tmp_path/'t.csv', index=False)
    res = CliRunner().invoke(app, ['evaluate',str(learn.save_bundle(tmp_path/'b')),str(tmp_path/'t.csv'),'-k','5','--out',str(tmp_path/'m.json')])
    assert res.exit_code==0 and pd.read_json(tmp_path/'m.json', typ='series').metrics['ndcg@5']==pytest.approx(want)
    told = df.iloc[np.sort(at[:160])]
    by = learn.evaluate(histories=told[told.rating>=4], k=5).by_history
    assert by['ndcg@5']==pytest.approx(learn.evaluate(histories=True, k=5).by_history['ndcg@5'])

# rows of a table

def test_rows_of_a_table_are_one_history_whatever_else_they_hold():
    learn = fitted(CollabDataLoaders.from_df(D, seed=1, valid_pct=0, bs=16), y_range=(0,5.5))
    rows = [dict(item_id=3, rating=5, timestamp=3), dict(item_id=4, rating=1, timestamp=4)]
    want = learn.recommend(history={3: 5, 4: 1}, k=4)
    for on_unknown in ('raise','drop'):
        for form in (rows, tuple(rows), [o|{'kind': 'view'} for o in rows]):
            pd.testing.assert_frame_equal(learn.recommend(history=form, k=4, on_unknown=on_unknown), want)
    two = learn.recommend(history=[o|{'user_id': 7+i} for i,o in enumerate(rows)], k=4)
    assert two.user_id.unique().tolist()==[7,8]
    with pytest.raises(RatingsError, match='one row of a table'): learn.recommend(history=rows[0], on_unknown='drop')
    with pytest.raises(RatingsError, match='star'): learn.recommend(history=[dict(item_id=3, star=5)], on_unknown='drop')
    with pytest.raises(RatingsError, match='True where an item id'): learn.recommend(history={True: 5., 3: 2.})

# times

@pytest.mark.parametrize('times', [np.arange(len(D))%400+45000, 2000+np.arange(len(D))%25])
def test_a_half_life_that_does_nothing_is_said(times):
    with pytest.warns(UserWarning, match='all rows weigh alike'):
        CollabDataLoaders.implicit_from_df(D.assign(timestamp=times), n_neg=0, half_life='90d', bs=16)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        CollabDataLoaders.implicit_from_df(D.assign(timestamp=times*86400), n_neg=0, half_life='90d', bs=16)
        CollabDataLoaders.implicit_from_df(D.assign(timestamp=times), n_neg=0, half_life=90, bs=16)

@pytest.mark.parametrize('zone', ['Europe/Berlin','America/New_York','UTC'])
@pytest.mark.parametrize('start', ['2020-03-28','2020-10-24'])
def test_ids_across_a_change_of_clocks_come_back_from_a_bundle(zone, start, tmp_path):
    ids = pd.date_range(start, periods=15, freq='12h', tz=zone)
    learn = fitted(CollabDataLoaders.from_df(D.assign(item_id=ids[D.item_id]), seed=1, bs=16, valid_pct=0), y_range=(0,5.5))
    again = load_bundle(learn.save_bundle(tmp_path/'b'))
    pd.testing.assert_frame_equal(again.recommend(3, k=5), learn.recommend(3, k=5), check_dtype=False, rtol=1e-5)
    assert str(again.items.index.dtype)==str(learn.recommender.items.index.dtype)

# lists

def test_lists_of_who_knew_the_test_rows_are_warned_of():
    learn = fitted(CollabDataLoaders.implicit_from_df(D, n_neg=0, seed=1, bs=64), arch=EASE)
    test = learn.dls.valid_ds.frame()
    with pytest.warns(UserWarning, match='no list holds anything of the test rows'): evaluate_lists(learn.recommend(k=5), test, k=5)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        evaluate_lists(learn.recommend(k=15, exclude_seen=False), test, learn.dls.train_ds, k=5)

# arguments

@pytest.mark.parametrize('call,said', [
    (lambda l: l.evaluate(candidates=20), "'sampled': 20"), (lambda l: RankingMetrics(every=0), 'every=0'), (lambda l: RankingMetrics(every=1.5), 'every=1.5'),
    (lambda l: collab_learner(l.dls, 0), 'n_factors=0'), (lambda l: collab_learner(l.dls, 4, y_range=(5,0)), 'the lower first'),
    (lambda l: collab_learner(l.dls, 4, y_range=(0,np.nan)), 'the lower first'), (lambda l: collab_learner(l.dls, 4, y_range=5), 'two numbers'),
    (lambda l: CollabDataLoaders.from_df(D, bs=1.5), 'a whole number')])
def test_arguments_that_are_none_are_sentences(call, said):
    learn = fitted(CollabDataLoaders.from_df(D, seed=1, bs=16), y_range=(0,5.5))
    with pytest.raises(ValueError, match=said): call(learn)

def test_loaders_of_fastai_are_refused_with_a_sentence():
    learn = fitted(CollabDataLoaders.from_df(D, seed=1, bs=16), y_range=(0,5.5))
    with pytest.raises(TypeError, match="loader of fastai's own"): learn.dls = Fastai.from_df(D, seed=1, bs=16)
    assert Popularity and learn.predict(3, 4)

def test_a_set_has_no_order_for_a_model_that_reads_one():
    from recfast.models.sequence import SASRec
    learn = fitted(CollabDataLoaders.sequences_from_df(D.assign(timestamp=np.arange(len(D))), seq_len=5, seed=1, bs=8), arch=SASRec, config=dict(seq_len=5))
    with pytest.raises(RatingsError, match='has no order'): learn.recommend(history={3,4,5})
    assert len(learn.recommend(history=[3,4,5], k=2))==2==len(fitted(CollabDataLoaders.implicit_from_df(D, n_neg=0, seed=1, bs=64), arch=EASE).recommend(history={3,4}, k=2))

def test_two_parts_that_were_swapped_are_told_apart():
    from recfast.models.ncf import GMF, MLP, NeuMF
    gmf,mlp = (cls(n_users=5, n_items=6, n_factors=3) for cls in (GMF,MLP))
    with pytest.raises(TypeError, match='gmf is a MLP, expected a trained GMF'): NeuMF.from_pretrained(mlp, gmf)

# repeats of an item

TWICE = pd.DataFrame(dict(item_id=[3,5,3,7,5], rating=[5.,1.,2.,4.,4.]))
ONCE = dict(last=pd.DataFrame(dict(item_id=[3,7,5], rating=[2.,4.,4.])), mean=pd.DataFrame(dict(item_id=[3,5,7], rating=[3.5,2.5,4.])))

@pytest.mark.parametrize('how', ['last','mean'])
@pytest.mark.parametrize('arch', [DotProduct,EASE,ItemKNN,SVDpp], ids=lambda o: o.__name__)
def test_repeats_in_a_history_are_what_the_builder_made_of_those_of_training(arch, how, tmp_path):
    learn = fitted(CollabDataLoaders.from_df(D, seed=1, bs=64, valid_pct=0, duplicates=how), arch=arch)
    path = learn.save_bundle(tmp_path/'b')
    want = scores(learn, ONCE[how])
    for rec in (learn, load_bundle(path)):
        for told in (TWICE,TWICE.to_dict('records')): np.testing.assert_allclose(scores(rec, told), want, rtol=1e-6)
        two = rec.recommend(history=pd.concat([TWICE.assign(user_id=o) for o in 'ab']), k=15, exclude_seen=False)
        for person in 'ab': np.testing.assert_allclose(two[two.user_id==person].sort_values('item_id').score, want, rtol=1e-5)
    with TestClient(make_app(path)) as web:
        got = web.post('/recommend', json=dict(history=TWICE.to_dict('records'), k=15, exclude_seen=False)).json()
    np.testing.assert_allclose(pd.DataFrame(got).sort_values('item_id').score, want, rtol=1e-5)

def test_the_later_of_two_ratings_is_the_later_in_time():
    learn = fitted(CollabDataLoaders.from_df(D.assign(timestamp=range(len(D))), seed=1, bs=64, valid_pct=0, duplicates='last'), arch=DotProduct)
    told = TWICE.assign(timestamp=[9,2,1,4,3]) # item 3 was rated 5 last
    np.testing.assert_allclose(scores(learn, told), scores(learn, pd.DataFrame(dict(item_id=[5,7,3], rating=[4.,4.,5.]))), rtol=1e-6)

def test_where_training_refused_repeats_a_history_may_have_none():
    learn = fitted(CollabDataLoaders.from_df(D, seed=1, bs=64, valid_pct=0, duplicates='raise'), arch=DotProduct)
    with pytest.raises(RatingsError, match='items more than once: 3, 5'): learn.recommend(history=TWICE)
    assert len(learn.recommend(history=ONCE['last'], k=3))==3

def test_kept_repeats_count_each():
    learn = fitted(CollabDataLoaders.from_df(D, seed=1, bs=64, valid_pct=0), arch=DotProduct)
    with learn.quiet(): learn.fit(20, .05)
    assert not np.allclose(scores(learn, TWICE), scores(learn, ONCE['last']), rtol=.01)

# a series of items by the times they came

def test_a_series_is_read_in_the_order_of_its_times():
    df = D.assign(timestamp=np.arange(len(D)))
    learn = fitted(CollabDataLoaders.sequences_from_df(df, seq_len=5, seed=1, bs=8), arch=SASRec)
    days = pd.to_datetime(['2024-01-03','2024-01-01','2024-01-02'])
    np.testing.assert_array_equal(scores(learn, pd.Series([3,5,7], index=days)), scores(learn, [5,7,3]))

# names

@pytest.mark.parametrize('named', ['weight_name','event_name'])
def test_a_column_named_for_one_role_is_not_found_for_another(named, tmp_path):
    df = D.assign(kind=D.rating, timestamp=range(len(D)))
    rows = CollabDataLoaders.implicit_from_df(df, n_neg=0, seed=1, bs=64, **{named: 'rating'}).train_ds
    assert rows.columns.rating!='rating' and getattr(rows.columns, named[:-5])=='rating'
    df.to_csv(tmp_path/'r.csv', index=False)
    res = CliRunner().invoke(app, ['train', str(tmp_path/'r.csv'), '--arch', 'ease', '--out', str(tmp_path/'b'), f"--{named.replace('_','-')}", 'rating'])
    assert res.exit_code==0, res.output
    assert load_bundle(tmp_path/'b').train.columns.rating!='rating'

def test_labels_that_are_numbers_stay_numbers_in_a_bundle(tmp_path):
    df = D.set_axis([0,1,2], axis=1)
    learn = fitted(CollabDataLoaders.from_df(df, user_name=0, item_name=1, rating_name=2, seed=1, bs=64))
    path = learn.save_bundle(tmp_path/'b')
    told = pd.DataFrame({1: [3,4], 2: [5.,4.]})
    np.testing.assert_allclose(scores(load_bundle(path), told), scores(learn, told), rtol=1e-6)
    with TestClient(make_app(path)) as web: assert web.post('/recommend', json=dict(user_ids=3)).status_code==200

def test_items_in_the_index_of_a_history_are_pointed_at():
    learn = fitted(CollabDataLoaders.from_df(D, seed=1, bs=64))
    with pytest.raises(RatingsError, match=r"The index has 'item_id': pass the frame with .reset_index\(\)"):
        learn.recommend(history=D[:3].set_index('item_id'))
