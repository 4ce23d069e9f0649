"Columns of the rows themselves: kept beside their rows through every cut, read alike at every door, and nothing where no model reads them"
import numpy as np
import pandas as pd
import pytest
import torch

from described import FILMS, IS_COLD, NIGHT, PEOPLE, SPLITS
from helpers import fit_one_cycle
from recfast.bundle import load_bundle
from recfast.core import ArgumentError, RatingsError
from recfast.data.context import Context, context_of
from recfast.data.loaders import CollabDataLoaders
from recfast.learner import collab_learner
from recfast.models.base import score_items, score_pairs
from recfast.models.dot import DotProductBias
from recfast.models.ease import EASE
from recfast.models.fm import FM
from recfast.models.knn import ItemKNN

HOUR = np.where(np.arange(len(NIGHT))%4==0, 20, 23)
MOOD = np.where(np.random.default_rng(0).random(len(NIGHT))<.5, 'low', 'high')
ROWS = NIGHT.assign(hour=HOUR, mood=MOOD, rating=NIGHT.rating.where(MOOD=='high', (NIGHT.rating-1.5).clip(lower=.5))) # moods count
NAMES = ['hour','mood']
FEW = ROWS.iloc[[5,0,77]].reset_index(drop=True)

def loaders(names=NAMES, df=ROWS, **kwargs): return CollabDataLoaders.from_df(df, **{**dict(bs=512, seed=0, splits=SPLITS, context_names=names), **kwargs})
def machine(dls, **kwargs): return fit_one_cycle(collab_learner(dls, 8, arch=FM, y_range=(0,5.5), config=dict(wd_features=1.), **kwargs), 2, 1e-2)

@pytest.fixture(scope='module')
def learn(): return machine(loaders(items=FILMS, users=PEOPLE))

def as_told(dls, rows):
    "[n] dicts of the context of rows"
    table = dls.train_ds.context_table
    return [{o['name']: (o.get('classes') or [20,23])[c-f-1] for o,c,f in zip(table.spec['columns'], line, table.first.tolist())} for line in rows]

def test_batches_hold_the_context_of_their_rows_in_every_order():
    dls = loaders(duplicates='last')
    hours = {(u,i): (h,m) for u,i,h,m in zip(ROWS.user_id, ROWS.item_id, HOUR, MOOD)}
    users,items = (np.array(dls.classes[o], dtype=object) for o in ('user_id','item_id'))
    for dl in (dls.train,dls.valid):
        x = torch.cat([b[0] for b in dl])
        known = (x[:,:2]>0).all(1).numpy()
        told = as_told(dls, x[:,2:].tolist())
        assert len(x)==len(dl.dataset) and x.shape[1]==4
        for u,i,t,ok in zip(users[x[:,0]], items[x[:,1]], told, known): assert not ok or hours[u,i]==(t['hour'],t['mood'])

def test_an_inner_cut_keeps_it(learn):
    rows = learn.dls.interactions('train')
    inner = CollabDataLoaders.from_interactions(rows, splits=(np.arange(1, len(rows)),np.arange(1)))
    np.testing.assert_array_equal(inner.train_ds.context, rows.context[1:])
    assert inner.train.one_batch()[0].shape[1]==4 and inner.train_ds.context_table is rows.context_table
    clicks = CollabDataLoaders.from_interactions(rows, 'implicit', splits=(np.arange(1, len(rows)),np.arange(1)), n_neg=2)
    assert clicks.train.one_batch()[0].shape[1]==2 # drawn pairs have none

def test_training_get_preds_predict_and_evaluate_read_the_row(learn):
    dl = learn.dls.test_dl(FEW)
    preds = learn.get_preds(dl=dl)[0].flatten()
    said = learn.predict(FEW.user_id, FEW.item_id, context=FEW[NAMES])
    np.testing.assert_allclose(said, preds, rtol=1e-5)
    one = learn.predict(FEW.user_id[0], FEW.item_id[0], context=FEW.loc[0,NAMES].to_dict())
    assert one==pytest.approx(preds[0].item(), rel=1e-5)
    low,high = (learn.predict(FEW.user_id, FEW.item_id, context=dict(hour=20, mood=o)) for o in ('low','high'))
    assert (high-low>.5).all() # 1.5 stars lie between them
    rows = ROWS.iloc[SPLITS[0][:3000]]
    with_it = learn.evaluate(rows, metrics='rmse', baseline=False)['rmse']
    with pytest.warns(UserWarning, match="no column 'hour', 'mood'.* takes the mean of training"):
        without = learn.evaluate(rows.drop(columns=NAMES), metrics='rmse', baseline=False)['rmse']
    assert with_it<.95*without

def test_of_all_loops_the_plain_one_and_the_fast_one_train_alike():
    a,b = (collab_learner(loaders(df=ROWS[:4000], splits=None), 8, arch=FM, y_range=(0,5.5)) for _ in '12')
    for o,fast in ((a,None),(b,False)): fit_one_cycle(o, 1, 1e-2, fast=fast)
    assert a.fast and not b.fast
    for p,q in zip(a.model.parameters(), b.model.parameters()): torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-5)

def test_what_is_not_told_is_the_mean_in_lists_and_in_pairs(learn):
    m = learn.model.eval()
    x = torch.tensor([[3,7],[60,8]])
    first = m.context_features.first
    raw = lambda x: torch.special.logit(score_pairs(m, x).double()/5.5)
    torch.testing.assert_close(raw(x), raw(torch.cat([x,first.expand(2, 2)], 1)), rtol=1e-4, atol=1e-4)
    shares = m.context_features.shares
    every = [(h,o) for h in (1,2) for o in (4,5)]
    mean = sum(shares[0,h]*shares[1,o]*raw(torch.cat([x,torch.tensor([[h,o]]*2)], 1)) for h,o in every)
    torch.testing.assert_close(raw(x), mean, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(score_items(m, x[:,0], learn.dls.n_items)[[0,1],x[:,1]], score_pairs(m, x), rtol=1e-5, atol=1e-5)

def test_a_bundle_reads_it_too(learn, tmp_path):
    rec = load_bundle(learn.save_bundle(tmp_path/'b'))
    told = dict(hour=23, mood='low')
    np.testing.assert_allclose(rec.predict(3, [1,2,3], context=told), learn.predict(3, [1,2,3], context=told), rtol=1e-5)
    pd.testing.assert_frame_equal(rec.recommend([3,4]), learn.recommend([3,4]), rtol=1e-5)
    more = rec.add_items(features=pd.DataFrame(dict(item_id=[901], title=['x'], year=[1990.], genres=['Drama'])))
    np.testing.assert_allclose(more.predict(3, [1,2], context=told), rec.predict(3, [1,2], context=told), rtol=1e-5)

def test_people_told_by_features_and_by_a_history_stand_in_the_mean_context(learn):
    lists = learn.recommend(user_features=dict(age=30, kind='a'), k=5)
    assert lists.score.between(0, 5.5).all() and len(lists)==5
    mine = NIGHT[(NIGHT.user_id==7)&~IS_COLD]
    a = learn.recommend(history=dict(zip(mine.item_id, mine.rating)), k=300).set_index('item_id').score
    b = learn.recommend(7, k=300).set_index('item_id').score
    both = a.index.intersection(b.index)
    assert np.corrcoef(a[both], b[both])[0,1]>.5

@pytest.mark.parametrize('arch', [DotProductBias,EASE,ItemKNN])
def test_a_model_that_reads_none_is_as_without(arch):
    a,b = (collab_learner(loaders(o, df=ROWS[:4000], splits=None), 8, arch=arch) for o in (NAMES,None))
    for o in (a,b): fit_one_cycle(o, 1, fast=False)
    np.testing.assert_array_equal(*(o.get_preds()[0] for o in (a,b)))
    with pytest.raises(ArgumentError, match='reads no context'): a.predict(17, 7, context=dict(hour=20, mood='low'))

def test_values_nobody_trained_on_are_counted_and_taken_for_the_mean(learn):
    with pytest.warns(UserWarning, match="'mood': 2"): learn.dls.test_dl(FEW.assign(mood=['odd','low','odder']))
    with pytest.warns(UserWarning, match='mean'): odd = learn.predict(3, 7, context=dict(hour=None, mood='odd'))
    assert odd==pytest.approx(learn.predict(3, 7), rel=1e-5)

@pytest.mark.parametrize('kwargs,said', [(dict(names='when'),'no column'),(dict(df=ROWS.assign(hour=pd.Timestamp('2024-05-17'))),'weekday'),
    (dict(df=ROWS.assign(mood=[['a']]*len(ROWS))),'lists'),(dict(df=ROWS.assign(hour=np.nan)),'empty'),(dict(duplicates='mean'),'makes one row of several'),
    (dict(df=ROWS.assign(hour=np.inf)),'infinity')])
def test_what_is_no_context_is_refused(kwargs, said):
    with pytest.raises(RatingsError, match=said): loaders(**kwargs)

def test_tables_without_the_columns_are_refused(learn):
    with pytest.raises(RatingsError, match='no column'): learn.dls.test_dl(NIGHT.iloc[:3])
    with pytest.raises(ArgumentError, match='2 rows for 3 pairs'): learn.predict(3, [1,2,3], context=FEW[NAMES].iloc[:2])

def test_loaders_of_another_context_are_refused(learn):
    for names in ('hour',None):
        with pytest.raises(RatingsError, match='context of rows'): learn.model.attach(loaders(names, items=FILMS, users=PEOPLE).interactions('train'))

def test_numbers_of_many_values_are_cut_and_later_ones_fall_into_the_nearest():
    df = pd.DataFrame(dict(load=np.arange(1000.), few=np.arange(1000)%3))
    table = context_of(df, ['load','few'])
    codes = table.encode(pd.DataFrame(dict(load=[-5.,0,999,1e9,np.nan], few=[0,1,2,7,None])))
    assert codes[:,0].tolist()==[1,1,20,20,0] and (codes[:,1]-codes[4,1]).tolist()==[1,2,3,3,0]
    assert table.report=={'load': 20, 'few': 3} and len(table)==25
    torch.testing.assert_close(table.shares.sum(1), torch.ones(2))
    assert Context(table.spec).encode(df).tolist()==table.encode(df).tolist()

def test_the_report_says_what_it_holds(learn): assert learn.dls.report['context']=={'hour': 2, 'mood': 2}
