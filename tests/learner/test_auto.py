"arch='auto': chosen on rows held out from training, trained on all of them, written down and followed again"
import subprocess
import sys
import warnings

import numpy as np
import pandas as pd
import pytest
import torch

from helpers import FRAME, fit, without_progress
from recfast.bundle import load_bundle
from recfast.choice import Choice, Search, read_choice
from recfast.core import RatingsError, RecfastError
from recfast.data.catalogues import movie_night_films
from recfast.data.datasets import movie_night
from recfast.data.loaders import CollabDataLoaders
from recfast.data.recut import inner_cut
from recfast.data.split import global_time_split, leave_last_out
from recfast.judged import Judged, hold_out_new, plainest
from recfast.learner import collab_learner
from recfast.models.parts import TwoPart
from recfast.recipes import Recipe, Shape, rankers, raters, reads_features

CLICKS = FRAME[['user_id','item_id']]
TIMED = FRAME.assign(timestamp=np.arange(len(FRAME)))

def auto(dls, **kwargs):
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        return fit(without_progress(collab_learner(dls, arch='auto', budget=600, **kwargs)), 1)

@pytest.fixture(scope='module')
def chosen(): return auto(CollabDataLoaders.from_df(FRAME, seed=42), y_range=(0,5.5))

def same_lists(a, b): pd.testing.assert_frame_equal(a, b, rtol=1e-5, atol=1e-6)

def test_a_rater_and_a_ranker_are_chosen_by_their_own_metric(chosen):
    choice = chosen.choice
    assert isinstance(choice, Choice) and isinstance(chosen.model, TwoPart)
    for part,best in (('rater','min'),('ranker','max')):
        mine = choice[choice.part==part]
        assert mine.chosen.sum()==1 and mine.value[mine.chosen].item()==getattr(mine.value, best)()
    assert set(choice.metric)=={'rmse','ndcg@10'} and 'Popularity' in set(choice.model)
    assert not choice.note.str.startswith('skipped').any()

def test_the_validation_rows_are_not_looked_at(chosen):
    dls = CollabDataLoaders.from_df(FRAME, seed=42)
    valid = dls.interactions('valid')
    valid.values = 6-valid.values # other ratings, which would give another choice
    same_lists(auto(dls, y_range=(0,5.5)).recommend(k=5), chosen.recommend(k=5))

def test_verbs_before_fit_say_what_to_call():
    learn = collab_learner(CollabDataLoaders.from_df(FRAME, seed=42), arch='auto')
    for verb in (lambda: learn.recommend(), lambda: learn.predict(1, 1), lambda: learn.evaluate(), lambda: learn.similar_items(1),
            lambda: learn.choice, lambda: learn.item_bias(), lambda: learn.recommend(history=[1])):
        with pytest.raises(RecfastError, match=r'call learn.fit\(1\)'): verb()

def test_lr_find_has_nothing_to_find():
    learn = without_progress(collab_learner(CollabDataLoaders.from_df(FRAME, seed=42), arch='auto'))
    with pytest.raises(RecfastError, match='no learning rate'): learn.lr_find(show_plot=False)

@pytest.mark.parametrize('more,match', [(dict(config={'l2': 1}),'leave out config'), (dict(loss_func=lambda *o: 0),'leave out loss_func'),
    (dict(use_nn=True),'not both')])
def test_what_auto_chooses_is_not_named_beside_it(more, match):
    with pytest.raises(TypeError, match=match): collab_learner(CollabDataLoaders.from_df(FRAME), arch='auto', **more)

def test_a_budget_belongs_to_auto():
    with pytest.raises(TypeError, match='pass both'): collab_learner(CollabDataLoaders.from_df(FRAME), budget=5)

def test_the_same_seed_chooses_and_trains_the_same(chosen):
    again = auto(CollabDataLoaders.from_df(FRAME, seed=42), y_range=(0,5.5))
    for a,b in zip(chosen.model.state_dict().values(), again.model.state_dict().values()): assert torch.equal(a, b)
    pd.testing.assert_frame_equal(chosen.choice.drop(columns='seconds'), again.choice.drop(columns='seconds'))

def test_a_choice_is_followed_without_a_search(chosen, monkeypatch):
    monkeypatch.setattr(Search, 'run', None)
    dls = CollabDataLoaders.from_df(FRAME, seed=42)
    learn = fit(without_progress(collab_learner(dls, arch=chosen.choice, y_range=(0,5.5))), 1)
    same_lists(learn.recommend(k=5), chosen.recommend(k=5))

def test_a_second_fit_trains_the_same_choice_and_rechoose_searches(chosen, monkeypatch):
    learn = auto(CollabDataLoaders.from_df(FRAME, seed=42), y_range=(0,5.5))
    searches = []
    run = Search.run
    monkeypatch.setattr(Search, 'run', lambda self, *o: searches.append(1) or run(self, *o))
    fit(learn, 1)
    assert not searches
    same_lists(learn.recommend(k=5), chosen.recommend(k=5))
    with learn.quiet(): learn.fit_one_cycle(1, rechoose=True)
    assert searches==[1]

def test_a_file_of_weights_holds_the_choice(chosen, tmp_path):
    chosen.path = tmp_path
    chosen.save('auto')
    learn = collab_learner(chosen.dls, arch='auto', path=tmp_path)
    learn.load('auto')
    same_lists(learn.recommend(k=5), chosen.recommend(k=5))
    assert learn.choice.model.tolist()==chosen.choice.model.tolist()

def test_a_bundle_answers_and_replays(chosen, tmp_path):
    path = chosen.save_bundle(tmp_path/'b')
    code = f"from recfast.bundle import load_bundle; load_bundle({str(path)!r}).recommend(k=5).to_parquet({str(tmp_path/'l.parquet')!r})"
    subprocess.run([sys.executable, '-c', code], check=True)
    same_lists(pd.read_parquet(tmp_path/'l.parquet'), chosen.recommend(k=5))
    choice = read_choice(load_bundle(path))
    assert choice.recipe.tolist()==chosen.choice.recipe.tolist()
    with pytest.raises(TypeError, match='holds no choice'): read_choice(chosen.model.rater)

def test_clicks_have_a_ranker_only():
    learn = auto(CollabDataLoaders.implicit_from_df(CLICKS, seed=42))
    assert set(learn.choice.part)=={'ranker'}
    assert learn.recommend(k=3).predicted.isna().all()

def test_named_settings_are_used_where_the_choice_has_them():
    dls = CollabDataLoaders.from_df(FRAME, seed=42)
    learn = without_progress(collab_learner(dls, n_factors=7, arch='auto', y_range=(0,5.5)))
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        fit(learn, 1, lr=1e-2, wd=.3)
    rater = learn.choice.recipe_of('rater')
    assert rater['n_factors']==7 and rater['fit']['wd']==.3 and rater['fit']['lr_max']==1e-2

def test_what_no_part_has_is_said_to_be_unused(monkeypatch):
    learn = without_progress(collab_learner(CollabDataLoaders.implicit_from_df(CLICKS, seed=42), arch='auto'))
    monkeypatch.setattr('recfast.choice.rankers', lambda shape: [Recipe('Popularity', 'popularity')])
    with pytest.warns(UserWarning, match="'wd' not used"): fit(learn, 1, wd=.3)

def test_a_clock_that_has_run_out_skips_and_says_so():
    learn = without_progress(collab_learner(CollabDataLoaders.from_df(FRAME, seed=42), arch='auto', budget=0))
    with pytest.warns(UserWarning, match='skipped'): fit(learn, 1)
    assert learn.choice.note.str.startswith('skipped').any()
    assert len(learn.recommend(k=2)) and learn.choice.chosen.sum()==2

@pytest.mark.parametrize('split,how', [(None,'random'), (leave_last_out,'last'), (global_time_split,'time')])
def test_the_inner_cut_is_as_the_outer_one_was(split, how):
    dls = CollabDataLoaders.from_df(TIMED, seed=42, **({} if split is None else dict(splits=split)))
    assert inner_cut(dls).how==how

@pytest.mark.parametrize('shape', [Shape(5, 8, 20), Shape(943, 1682, 80_000), Shape(30_000, 41_000, 10**6), Shape(10**6, 10**5, 10**7)])
def test_every_shape_has_recipes_and_each_names_its_cost(shape):
    for o in (*rankers(shape), *raters(shape)): assert isinstance(o, Recipe) and o.seconds>=0
    assert rankers(shape)[0].arch=='popularity' and len(rankers(shape))>1

@pytest.mark.parametrize('noise,chosen', [(1e-4,'A + B'), (.5,'A')])
def test_a_blend_that_is_better_by_luck_is_not_chosen(noise, chosen):
    alone = pd.Series(np.random.default_rng(0).random(50))
    gain = np.random.default_rng(1).normal(size=50)
    found = {'A': Judged(each=alone), 'A + B': Judged(each=alone+.01+noise*(gain-gain.mean()))}
    trials = [dict(model='A + B', recipe=dict(blend=[]), note=''), dict(model='A', recipe={}, note='')]
    assert plainest(trials, found)['model']==chosen
    assert ('standard error' in trials[0]['note'])==(chosen=='A')

# features

NIGHT,FILMS = movie_night(),movie_night_films()
NEW = np.arange(5, 300, 10)
IS_NEW = NIGHT.item_id.isin(NEW).to_numpy()
SOME = NIGHT[NIGHT.user_id<=150].reset_index(drop=True)

def films(items=FILMS, df=SOME, **kwargs):
    new = df.item_id.isin(NEW).to_numpy()
    return CollabDataLoaders.implicit_from_df(df, bs=512, seed=0, items=items, splits=(np.flatnonzero(~new),np.flatnonzero(new)), **kwargs)

def few(shape): return [o for o in rankers(shape) if o.arch in ('popularity','ease','ials') or reads_features(o._asdict())]

@pytest.fixture(scope='module')
def known():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('recfast.choice.rankers', few)
        return auto(films())

def test_models_that_read_features_are_tried_and_all_are_measured_on_new_items(known):
    choice = known.choice
    assert {'IALS, features','HybridDot, softmax','TwoTower, softmax'}<=set(choice.model)
    assert choice.cold[choice.value.notna()].notna().all() and choice.chosen.sum()==1

def test_new_items_are_ranked_whatever_is_chosen(known):
    report = known.feature_report(k=10).set_index('part')
    assert set(NEW)<=set(known.recommend(3, k=300, exclude_seen=False).item_id)
    assert report.loc['cold among cold','diff_low']>0

def test_a_choice_with_features_is_replayed_from_a_bundle(known, tmp_path):
    rec = load_bundle(known.save_bundle(tmp_path/'b'))
    same_lists(rec.recommend([1,2], k=300), known.recommend([1,2], k=300))
    again = fit(without_progress(collab_learner(films(), arch=read_choice(rec))), 1)
    same_lists(again.recommend([1,2], k=300), known.recommend([1,2], k=300))

@pytest.mark.parametrize('arch,config', [('ials',dict(feature_l2=1.)), ('hybriddot',dict(wd_features=3., guard=False)), ('twotower',{})])
def test_a_recipe_that_reads_features_scores_new_items_and_survives_a_bundle(arch, config, tmp_path):
    recipe = Recipe('it', arch, config, 8, fit=dict(n_epoch=1))._asdict()
    blend = dict(name='both', blend=[recipe,Recipe('EASE', 'ease')._asdict()])
    for o in (recipe,blend):
        row = dict(part='ranker', model='it', metric='ndcg@10', value=.1, cold=.1, seconds=1., chosen=True, note='', recipe=o)
        learn = fit(without_progress(collab_learner(films(), arch=Choice([row]))), 1)
        lists = learn.recommend([1,2], k=300, exclude_seen=False)
        assert set(NEW)<=set(lists.item_id)
        same_lists(load_bundle(learn.save_bundle(tmp_path/o['name'])).recommend([1,2], k=300, exclude_seen=False), lists)
        with pytest.raises(RatingsError, match='build them with the same items='): fit(collab_learner(films(items=None), arch=Choice([row])), 1)

def test_features_that_say_nothing_choose_no_model_that_reads_them(monkeypatch):
    monkeypatch.setattr('recfast.choice.rankers', few)
    shuffled = FILMS.assign(item_id=np.random.default_rng(0).permutation(FILMS.item_id))
    recipe = auto(films(shuffled)).choice.recipe_of('ranker')
    assert not reads_features(recipe)

def test_without_a_tail_no_part_scores_what_is_new(tmp_path):
    row = dict(part='ranker', model='EASE', metric='ndcg@10', value=.1, cold=.1, seconds=1., chosen=True, note='', recipe=Recipe('EASE', 'ease')._asdict())
    learn = fit(without_progress(collab_learner(films(), arch=Choice([row]), cold_tail=False)), 1)
    for rec in (learn,load_bundle(learn.save_bundle(tmp_path/'b'))): assert not set(NEW)&set(rec.recommend(3, k=300, exclude_seen=False).item_id)

def test_a_choice_of_before_new_items_were_measured_is_read(chosen):
    told = [{k: v for k,v in o.items() if k!='cold'} for o in chosen.choice.records()]
    assert read_choice(told).cold.isna().all()

def test_nothing_is_held_out_where_no_item_is_new():
    dls = CollabDataLoaders.from_df(FRAME, seed=42, items=pd.DataFrame(dict(item_id=FRAME.item_id.unique(), kind=FRAME.item_id.unique()%3)))
    rows = dls.interactions('train')
    assert hold_out_new(rows, rows, rows)[2] is None

def test_held_out_items_have_no_row_left():
    rows = films().interactions('train')
    train,valid,new = hold_out_new(rows, rows[::2], rows[1::2])
    left = [set(o.rows_of('item')) for o in (train,valid,new)]
    assert not left[2]&(left[0]|left[1]) and len(left[2])==27 and sum(map(len, (train,valid,new)))==len(rows)

def test_people_known_by_features_alone_get_the_lists_of_the_ranker(tmp_path):
    users = pd.DataFrame(dict(user_id=SOME.user_id.unique(), kind=SOME.user_id.unique()%2))
    recipe = Recipe('it', 'hybriddot', dict(wd_features=1., guard=False), 8, fit=dict(n_epoch=1))._asdict()
    row = dict(part='ranker', model='it', metric='ndcg@10', value=.1, cold=.1, seconds=1., chosen=True, note='', recipe=recipe)
    learn = fit(without_progress(collab_learner(films(users=users), arch=Choice([row]))), 1)
    lists = [o.recommend(user_features=[dict(kind=0),dict(kind=1)], k=5) for o in (learn,load_bundle(learn.save_bundle(tmp_path/'b')))]
    same_lists(*lists)
    assert len(lists[0])==10 and lists[0].predicted.isna().all()
    with pytest.raises(NotImplementedError, match='knows no features of people'):
        fit(without_progress(collab_learner(films(), arch=Choice([row]))), 1).recommend(user_features=dict(kind=0))
