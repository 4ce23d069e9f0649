"Rows that came after the training, for every model: the scores of a training on all rows, those of a history, or a sentence"
import numpy as np
import pandas as pd
import pytest
import torch

from helpers import ALL, fit_one_cycle, learner_of
from recfast.bundle import load_bundle
from recfast.core import ArgumentError, RatingsError, UnknownIdError
from recfast.data.loaders import CollabDataLoaders
from recfast.learner import collab_learner
from recfast.models import EASE, IALS, TwoPart, ZBlend
from recfast.models.parts import Part
from recfast.models.update import way_of
from recfast.testing import synth_ratings

EVERY = synth_ratings(50, 40, density=.4)
NEW_PEOPLE,KNOWN,NEW_ITEM = (48,49,50),(1,2,3),40
IS_LATER = EVERY.user_id.isin(NEW_PEOPLE)|(EVERY.user_id.isin(KNOWN)&(EVERY.timestamp>EVERY.timestamp.quantile(.7)))
LATER = EVERY[IS_LATER].assign(timestamp=lambda o: o.timestamp+10**6)
OLD = EVERY[~IS_LATER&(EVERY.item_id!=NEW_ITEM)]
LATER = LATER[LATER.item_id!=NEW_ITEM]
WITH_ITEM = pd.concat([LATER,pd.DataFrame(dict(user_id=[48,1], item_id=NEW_ITEM, rating=4., timestamp=LATER.timestamp.max()+1))])
ALL_ROWS = pd.concat([OLD,LATER])

_MADE = {}
def trained(name, df=OLD, n_epoch=2):
    if (name,len(df)) not in _MADE:
        learn = learner_of(name, df, valid_pct=0)
        if name=='bayesiansvdpp': learn.model.n_sweeps,learn.model.warm_up = 6,2
        _MADE[name,len(df)] = fit_one_cycle(learn, n_epoch)
    return _MADE[name,len(df)]

def way(name):
    learn = trained(name)
    try: return way_of(learn.model, learn.dls.n_users, learn.dls.n_items)
    except NotImplementedError as e: return str(e)

def scores(rec, user): return rec.recommend(user, k=100, exclude_seen=False).set_index('item_id').score

def by_history(rec, rows):
    "What somebody with these rows is told by a recommender that does not know him"
    told = rows.sort_values('timestamp')
    clicks = rec.rating_range in (None,(1,1))
    told = told.item_id.tolist() if clicks else told[['item_id','rating']]
    return rec.recommend(history=told, k=100, exclude_seen=False).set_index('item_id').score

REFUSED = dict(autorec='learned of all people at once', lightgcn='learned of all people at once', twotower='through layers', handmade='cannot be built for more ids',
    embeddingdotbias='cannot be built for more ids')
WAYS = dict(popularity='solved', ease='solved', itemknn='solved', rp3beta='solved', sequentialrules='solved', ials='swept',
    **dict.fromkeys(['slim','spectralfilter','twospeedridge','nextitem','sasrec','gru4rec','bert4rec','multvae'], 'read'))

@pytest.mark.parametrize('name', ALL)
def test_every_model_takes_rows_in_its_way_or_says_why_not(name, tmp_path):
    rec = trained(name).recommender
    before = {k: v.clone() for k,v in rec.model.state_dict().items()}
    if name in REFUSED:
        with pytest.raises(NotImplementedError, match=REFUSED[name]): rec.add_ratings(LATER)
        return
    new = rec.add_ratings(LATER)
    assert way(name)==WAYS.get(name, 'folded')
    learned = WAYS.get(name) in ('solved','swept')
    assert (new.train.n_fitted is None)==learned and len(new.train)==len(ALL_ROWS) and new.n_users==rec.n_users+3
    assert new.added['rows']==len(LATER) and new.added['people']==6 and new.added['new_users']==3
    for user in (49,2):
        got = scores(new, user)
        if WAYS.get(name)=='solved': want = scores(trained(name, ALL_ROWS).recommender, user)
        else: want = by_history(new if WAYS.get(name)=='swept' else rec, ALL_ROWS[ALL_ROWS.user_id==user])
        tol = .05 if name=='ials' else 1e-3 # two steps of conjugate gradients
        np.testing.assert_allclose(got[want.index], want, rtol=tol, atol=tol*np.abs(want).max())
    if not learned:
        pd.testing.assert_series_equal(scores(new, 20), scores(rec, 20), rtol=1e-5, atol=1e-6)
    seen = set(LATER.item_id[LATER.user_id==49])
    assert not seen&set(new.recommend(49, k=100).item_id)
    assert all(torch.equal(v, before[k]) for k,v in rec.model.state_dict().items()) and len(rec.train)==len(OLD)
    back = load_bundle(new.save_bundle(tmp_path/'b'))
    for user in (49,2,20): pd.testing.assert_series_equal(scores(back, user), scores(new, user), rtol=1e-5, atol=1e-6)
    assert back.train.n_fitted==new.train.n_fitted

@pytest.mark.parametrize('name', ['dotproductbias','ease','sasrec','multvae','ials','svdpp','popularity'])
def test_a_new_item_is_listed_where_it_was_learned_and_waits_where_not(name):
    rec = trained(name).recommender
    new,without = rec.add_ratings(WITH_ITEM),rec.add_ratings(LATER)
    learned = WAYS.get(name) in ('solved','swept')
    assert (NEW_ITEM in new.recommend(20, k=100, exclude_seen=False).item_id.tolist())==learned
    assert new.added.get('items_that_wait_for_a_training', 0)==(0 if learned else 1) and new.n_items==rec.n_items+1
    if learned: return
    pd.testing.assert_series_equal(scores(new, 1), scores(without, 1), rtol=1e-4, atol=1e-5) # nothing is read of it
    with pytest.raises(UnknownIdError): new.recommend(20, item_ids=[NEW_ITEM])

@pytest.mark.parametrize('config', [dict(l2=20.), dict(l2=20., item_power=.3), {}, dict(l2=20., user_power=.5), dict(l2=20., use_ratings=True)])
@pytest.mark.parametrize('later', [LATER[LATER.user_id==49],WITH_ITEM], ids=['one person','half'])
def test_ease_is_that_of_a_training_on_all_rows(config, later):
    def solved(df):
        learn = collab_learner(CollabDataLoaders.from_df(df, valid_pct=0), arch=EASE, config=config)
        return fit_one_cycle(learn).recommender
    new,want = solved(OLD).add_ratings(later),solved(pd.concat([OLD,later]))
    rows = [torch.from_numpy(o.items.encode(want.items.index)) for o in (new,want)]
    a,b = (o.model.weight[i][:,i] for o,i in zip((new,want), rows))
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4*b.abs().max().item())

def test_a_few_people_change_ease_by_a_low_rank(monkeypatch):
    rec = fit_one_cycle(collab_learner(CollabDataLoaders.from_df(OLD, valid_pct=0), arch=EASE, config=dict(l2=20.))).recommender
    monkeypatch.setattr(EASE, 'solve', lambda *o: pytest.fail('solved from the start'))
    assert len(rec.add_ratings(LATER[LATER.user_id==49]).recommend(49, k=3))==3

def test_half_sweeps_end_at_the_answer_to_the_items():
    learn = collab_learner(CollabDataLoaders.implicit_from_df(OLD, n_neg=0, valid_pct=0), 6, arch=IALS, config=dict(cg_steps=None))
    new = fit_one_cycle(learn, 3).recommender.add_ratings(WITH_ITEM)
    want = new.recommend(history=WITH_ITEM.item_id[WITH_ITEM.user_id==48].tolist(), k=50, exclude_seen=False).set_index('item_id').score
    np.testing.assert_allclose(scores(new, 48)[want.index], want, rtol=1e-3, atol=1e-4)

def test_parts_take_rows_each_in_its_way(tmp_path):
    rater,ranker = trained('dotproductbias'),trained('ease')
    parts = [Part(o.model, o.loss_func, None, {}, False) for o in (rater,ranker)]
    whole = fit_of(TwoPart(*parts), rater.dls)
    new = whole.add_ratings(LATER)
    assert new.train.n_fitted==len(OLD)
    alone = trained('dotproductbias').recommender.add_ratings(LATER),trained('ease').recommender.add_ratings(LATER)
    np.testing.assert_allclose(new.predict(49, [3,4]), alone[0].predict(49, [3,4]), rtol=1e-5)
    pd.testing.assert_series_equal(new.recommend(49, k=9).set_index('item_id').score, alone[1].recommend(49, k=9).set_index('item_id').score)
    back = load_bundle(new.save_bundle(tmp_path/'b'))
    pd.testing.assert_frame_equal(back.recommend([49,2], k=5), new.recommend([49,2], k=5))
    again = back.add_ratings(WITH_ITEM) # what was added before is there already
    assert again.added['already_there']==len(LATER) and again.added['rows']==2

def fit_of(model, dls):
    from recfast.combined import recommender_of
    from recfast.models.ids import meet
    rows = dls.interactions('train')
    meet(model, rows)
    return recommender_of(model, rows, rows)

def test_a_blend_takes_rows():
    parts = [Part(trained(o).model, trained(o).loss_func) for o in ('ease','itemknn')]
    new = fit_of(ZBlend(parts, [.5,.5]), trained('ease').dls).add_ratings(WITH_ITEM)
    assert new.train.n_fitted is None and NEW_ITEM in new.recommend(20, k=100).item_id.tolist()

# which rows are new

def test_overlapping_rows_are_left_out_and_counted():
    rec = trained('dotproductbias').recommender
    new = rec.add_ratings(pd.concat([OLD[-100:],LATER]))
    assert new.added['already_there']==100 and new.added['rows']==len(LATER)
    same = rec.add_ratings(LATER)
    np.testing.assert_allclose(scores(new, 49), scores(same, 49))
    assert new.add_ratings(LATER).added['rows']==0

def test_a_row_that_comes_again_later_is_another_one():
    again = OLD[:1].assign(timestamp=LATER.timestamp.max())
    new = trained('dotproductbias').recommender.add_ratings(again)
    assert new.added['rows']==1 and new.added['already_there']==0

def test_older_rows_are_refused_or_left_out():
    rec = trained('dotproductbias').recommender
    older = LATER.assign(timestamp=OLD.timestamp.min())
    with pytest.raises(RatingsError, match=f"{len(LATER)} of {len(LATER)} rows are not there yet and not later than"): rec.add_ratings(older)
    new = rec.add_ratings(pd.concat([older,WITH_ITEM[-1:]]), older='skip')
    assert new.added['older_left_out']==len(LATER) and new.added['rows']==1
    with pytest.raises(ValueError, match="older='keep'"): rec.add_ratings(LATER, older='keep')

def test_a_bundle_knows_how_late_it_is(tmp_path):
    dated = OLD.assign(timestamp=pd.to_datetime(OLD.timestamp, unit='s'))
    rec = fit_one_cycle(collab_learner(CollabDataLoaders.from_df(dated, valid_pct=0), 4, y_range=(0,5.5))).recommender
    back = load_bundle(rec.save_bundle(tmp_path/'b'))
    early = LATER.assign(timestamp=dated.timestamp.min())
    for o in (rec,back):
        with pytest.raises(RatingsError, match='not later than'): o.add_ratings(early)
        with pytest.raises(RatingsError, match='expected the kind that training had'): o.add_ratings(LATER)
        assert o.add_ratings(LATER.assign(timestamp=pd.to_datetime(LATER.timestamp, unit='s'))).added['rows']==len(LATER)

@pytest.mark.parametrize('how', ['raise','last','mean'])
def test_a_pair_that_comes_again_is_refused_where_training_had_each_once(how):
    rec = fit_one_cycle(collab_learner(CollabDataLoaders.from_df(OLD, valid_pct=0, duplicates=how), 4, y_range=(0,5.5))).recommender
    with pytest.raises(RatingsError, match=f"duplicates='{how}'"): rec.add_ratings(OLD[:1].assign(rating=1., timestamp=10**10))
    assert rec.add_ratings(LATER).added['rows']==len(LATER)

# what cannot be

def test_what_is_refused_says_why():
    rec = trained('dotproductbias').recommender
    with pytest.raises(RatingsError, match='expected user_id and item_id and rating'): rec.add_ratings(LATER.drop(columns='rating'))
    with pytest.raises(UnknownIdError, match='cannot be read as'): rec.add_ratings(LATER.assign(user_id='somebody'))
    with pytest.raises(RatingsError, match='has ratings outside'): rec.add_ratings(LATER.assign(rating=50.))
    dls = CollabDataLoaders.implicit_from_df(OLD, n_neg=0, valid_pct=0, time_name='timestamp', half_life='90d')
    with pytest.raises(ArgumentError, match='half_life'): fit_one_cycle(collab_learner(dls, arch=EASE)).recommender.add_ratings(LATER)
    about = pd.DataFrame(dict(item_id=np.arange(1, 40), kind=np.arange(39)%2)).astype(dict(kind=str))
    dls = CollabDataLoaders.implicit_from_df(OLD, n_neg=0, valid_pct=0, items=about)
    rec = fit_one_cycle(collab_learner(dls, arch=EASE)).recommender
    with pytest.raises(ArgumentError, match=r'rec.add_items\(features=\)'): rec.add_ratings(WITH_ITEM)
    assert rec.add_ratings(LATER).added['rows']==len(LATER)

def test_rows_weigh_as_they_did():
    weighed = ALL_ROWS.assign(kind=np.where(ALL_ROWS.item_id%2, 'view', 'buy'))
    def solved(df):
        dls = CollabDataLoaders.implicit_from_df(df, n_neg=0, valid_pct=0, event_name='kind', event_weights=dict(view=1, buy=8))
        return fit_one_cycle(collab_learner(dls, arch=EASE, config=dict(l2=30.))).recommender
    new,want = solved(weighed[:len(OLD)]).add_ratings(weighed[len(OLD):]),solved(weighed)
    np.testing.assert_allclose(scores(new, 49).sort_index(), scores(want, 49).sort_index(), rtol=1e-3, atol=1e-4)
    bought = set(weighed.item_id[(weighed.user_id==49)&(weighed.kind=='buy')])
    listed = set(new.recommend(49, k=100, exclude_seen={'buy'}).item_id)
    assert not bought&listed and listed==set(want.recommend(49, k=100, exclude_seen={'buy'}).item_id)
    with pytest.raises(RatingsError, match="'gift'"): solved(weighed[:len(OLD)]).add_ratings(weighed[len(OLD):].assign(kind='gift'))

def test_a_threshold_says_which_rows_are_likes():
    def solved(df): return fit_one_cycle(collab_learner(CollabDataLoaders.implicit_from_df(df, n_neg=0, valid_pct=0, threshold=3.), arch=EASE)).recommender
    new,want = solved(OLD).add_ratings(LATER),solved(ALL_ROWS)
    np.testing.assert_allclose(scores(new, 49).sort_index(), scores(want, 49).sort_index(), rtol=1e-3, atol=1e-4)
    assert new.recommend(49, k=100).item_id.tolist()==want.recommend(49, k=100).item_id.tolist()
    assert new.added['only_seen']==(LATER.rating<3).sum()

def test_held_out_rows_stay_held_out():
    learn = fit_one_cycle(collab_learner(CollabDataLoaders.from_df(OLD, valid_pct=.2, seed=1), 4, y_range=(0,5.5)))
    rec = learn.recommender
    new = rec.add_ratings(LATER)
    n = len(learn.dls.interactions('valid'))
    assert len(new.seen)-len(new.train)==n and len(new.train)==len(rec.train)+len(LATER)

def test_the_protocol_says_how_many_were_folded_in():
    from recfast.evaluate import evaluate_recommender
    new = trained('dotproductbias').recommender.add_ratings(LATER)
    test = EVERY[EVERY.user_id.isin([20,21])].assign(rating=5.)
    ev = evaluate_recommender(new.model, new.train, test, exclude_seen=False, progress=False)
    assert '6 people folded in' in ev.protocol
    old = evaluate_recommender(trained('dotproductbias').model, trained('dotproductbias').recommender.train, test, exclude_seen=False, progress=False)
    assert 'folded' not in old.protocol and old['ndcg@10']==ev['ndcg@10']
