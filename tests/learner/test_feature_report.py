"What features are worth, and what each value does"
import numpy as np
import pandas as pd
import pytest

from helpers import fit_one_cycle
from recfast.core import ArgumentError
from recfast.data.catalogues import movie_night_films
from recfast.data.features import Features
from recfast.data.loaders import CollabDataLoaders
from recfast.data.made import movie_night
from recfast.data.new_items import held_out_items
from recfast.feature_report import _chance, _flag_effects, plot_effects
from recfast.learner import collab_learner
from recfast.models import EASE

NIGHT,FILMS = movie_night(),movie_night_films()
TRAIN,COLD = held_out_items(NIGHT, seed=0)
SOME = np.random.default_rng(0).random(len(TRAIN))<.2
SPLITS = TRAIN[~SOME],np.concatenate([TRAIN[SOME],COLD])

def learner(items=FILMS, splits=SPLITS, arch=EASE, **kwargs):
    return fit_one_cycle(collab_learner(CollabDataLoaders.implicit_from_df(NIGHT, n_neg=0, items=items, splits=splits), arch=arch, **kwargs), 1)

@pytest.fixture(scope='module')
def learn(): return learner()

def test_the_figures_are_those_of_evaluate(learn):
    df = learn.feature_report(k=10).set_index('part')
    how = dict(k=10, metrics='ndcg', baseline=False)
    assert df.without['all']==pytest.approx(learn.evaluate(**how)['ndcg@10']) and df['with']['all']==pytest.approx(learn.evaluate(candidates='all', **how)['ndcg@10'])
    warm,cold = NIGHT.iloc[TRAIN[SOME]],NIGHT.iloc[COLD]
    assert df.without['warm']==pytest.approx(learn.evaluate(warm, **how)['ndcg@10']) and df['with']['warm']==pytest.approx(learn.evaluate(warm, candidates='all', **how)['ndcg@10'])
    assert df['with']['cold among cold']==pytest.approx(learn.evaluate(cold, candidates='cold', **how)['ndcg@10']) and df.without['cold']==0
    assert df.n_rows.tolist()==[len(SPLITS[1]),len(warm),len(cold),len(cold)]
    np.testing.assert_allclose(df['diff'], df['with']-df.without, atol=1e-12)
    assert ((df.diff_low<=df['diff'])&(df['diff']<=df.diff_high)).all()

def test_chance_is_what_a_random_order_finds():
    rng = np.random.default_rng(0)
    m,k,r = 12,5,3
    d = 1/np.log2(np.arange(k)+2)
    drawn = [(rng.permutation(m)[:k]<r)@d/d[:3].sum() for _ in range(20_000)]
    assert _chance(np.array([r]), m, k)[0]==pytest.approx(np.mean(drawn), abs=4*np.std(drawn)/20_000**.5)

def test_without_cold_rows_there_are_two_parts_and_without_features_a_sentence():
    rows = learner(splits=(TRAIN[~SOME],TRAIN[SOME])).feature_report()
    assert rows.part.tolist()==['all','warm'] and rows.without.nunique()==1
    with pytest.raises(ArgumentError, match='build the loaders with items='): learner(items=None).feature_report()
    with pytest.raises(ArgumentError, match='build the loaders with items='): learner(items=None).feature_effects()
    with pytest.raises(ArgumentError, match='nothing is held out'): learner(splits=(np.arange(len(NIGHT)),[])).feature_report()

def test_an_effect_is_what_falls_away_without_the_value(learn):
    table = learn.dls.features('item')
    n = learn.dls.interactions('train').trained('item')
    w = np.random.default_rng(0).normal(size=table.linear.shape[1])
    got = {o['value']: o['effect'] for o in _flag_effects(table, w, n)}
    F,parts,flags = table.linear[n].toarray(),table.parts_of_flags().toarray(),table.csr[n].toarray()>0
    for j,(value,effect) in enumerate(got.items()):
        gone = F.copy()
        gone[:,parts[:,j]>0] = 0 # the columns that the value has a part in
        assert effect==pytest.approx(((F-gone)@w)[flags[:,j]].mean())
    assert parts.sum(1).max()==2 and (parts[0]==0).all() # a constant is of no value

def test_a_value_that_everybody_likes_comes_first():
    rng = np.random.default_rng(0)
    items = pd.DataFrame(dict(item_id=np.arange(1, 121), brand=rng.choice(['good','b','c','d'], 120), size=rng.random(120)))
    good = items.item_id[items.brand=='good'].to_numpy()
    rows = [dict(user_id=u, item_id=i, rating=5. if i in good else 2.) for u in range(60) for i in rng.choice(np.arange(1, 121), 30, replace=False)]
    dls = CollabDataLoaders.from_df(pd.DataFrame(rows), items=items, bs=128, seed=0, valid_pct=0)
    learn = fit_one_cycle(collab_learner(dls, 8, y_range=(0,5.5)), 10, 1e-2)
    top = learn.feature_effects(top=1)
    assert top.value[0]=='good' and top.effect[0]>.3 and top.n_items[0]==len(good)

def test_scores_and_the_tail_are_as_before(learn):
    before = learn.recommend(3, k=300)
    plot_effects(learn.feature_effects())
    pd.testing.assert_frame_equal(learn.recommend(3, k=300), before)

def test_text_vectors_and_parts():
    films = FILMS.assign(vec=list(np.random.default_rng(0).normal(size=(300,3))))
    learn = learner(items=Features(films, text='title', vec='vec', multi={'genres': '|'}, cont='year'))
    df = learn.feature_effects()
    assert set(df.feature)=={'title','genres','year'} and np.isfinite(df.effect).all()
    two = collab_learner(CollabDataLoaders.from_df(NIGHT, items=FILMS, bs=512, splits=SPLITS, seed=0), arch='auto', budget=2)
    with two.quiet(): two.fit(1)
    assert len(two.feature_effects()) and len(two.feature_report())==4
