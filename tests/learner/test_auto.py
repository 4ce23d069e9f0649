"arch='auto': chosen on rows held out from training, trained on all of them, written down and followed again"
import subprocess
import sys
import warnings
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from helpers import FRAME, fit, without_progress
from recfast.bundle import load_bundle
from recfast.choice import Choice, Search, read_choice
from recfast.core import RecfastError
from recfast.data.loaders import CollabDataLoaders
from recfast.data.recut import inner_cut
from recfast.data.split import global_time_split, leave_last_out
from recfast.learner import collab_learner
from recfast.models.parts import TwoPart
from recfast.recipes import Recipe, Shape, rankers, raters

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
    alone = np.random.default_rng(0).random(50)
    gain = np.random.default_rng(1).normal(size=50)
    values = {'A': alone, 'A + B': alone+.01+noise*(gain-gain.mean())}
    search = Search.__new__(Search)
    search.found = {('ranker',k): SimpleNamespace(per_user=pd.DataFrame({'ndcg@10': v})) for k,v in values.items()}
    trials = [dict(model='A + B', recipe=dict(blend=[]), note=''), dict(model='A', recipe={}, note='')]
    assert search.plain(trials)['model']==chosen
    assert ('standard error' in trials[0]['note'])==(chosen=='A')
