"Two stages: what the second learned from, what it was told, and that every verb answers the same everywhere"
import json
import subprocess
import sys
import warnings

import numpy as np
import pandas as pd
import pytest
import torch

from helpers import fit, fit_one_cycle, taste_clicks
from recfast.bundle import load_bundle
from recfast.combined import TwoStageRecommender
from recfast.core import RatingsError, RecfastError
from recfast.data.loaders import CollabDataLoaders
from recfast.data.recut import Cut
from recfast.data.split import leave_last_out
from recfast.ensemble import Blend, inner_loaders, two_part
from recfast.learner import collab_learner
from recfast.losses import BPRLoss
from recfast.models.base import score_items
from recfast.models.dot import DotProductBias
from recfast.models.linear import EASE, Popularity
from recfast.models.pair_facts import PairFacts, fact_names, told_of
from recfast.models.rules import SequentialRules
from recfast.models.two_stage import TwoStage, places_of
from recfast.shared import without_users_of
from recfast.two_stage import inner_cut_of, inner_part, list_frame, steps_of, two_stage

def clicks():
    df = taste_clicks(n_users=150, n_items=40, n=14).reset_index(drop=True)
    return df.assign(timestamp=np.random.RandomState(1).permutation(len(df)), rating=1.)

FRAME = clicks()
ITEMS = pd.DataFrame(dict(item_id=range(1, 41))).assign(kind=lambda o: np.where(o.item_id%3, 'a', 'b'), size=lambda o: o.item_id*1.37)
PEOPLE = pd.DataFrame(dict(user_id=range(1, 151))).assign(town=lambda o: np.where(o.user_id%2, 'Ulm', 'Bonn'))
QUICK = dict(k=10, n_neg=8, n_epoch=3)

def loaders(df=FRAME, n=1, **kwargs): return CollabDataLoaders.from_df(df, splits=leave_last_out(df, n), seed=42, bs=128, **kwargs)
def in_order(df=FRAME, **kwargs): return CollabDataLoaders.sequences_from_df(df, seed=42, vocab='all', **kwargs)
def learners(**kwargs):
    dls = in_order(**kwargs)
    pairs = CollabDataLoaders.from_df(FRAME, splits=leave_last_out(FRAME, 1), seed=42, bs=128, vocab=dls.classes, **kwargs)
    return [fit(collab_learner(pairs, arch=EASE), 1),fit(collab_learner(dls, arch=SequentialRules), 1)]

@pytest.fixture(scope='module')
def stages(): return learners()

@pytest.fixture(scope='module')
def two(stages): return two_stage(stages[0], stages[1:], **QUICK)

@pytest.fixture(scope='module')
def rich():
    ease,rules = learners(items=ITEMS, users=PEOPLE)
    return two_stage(ease, [rules], **QUICK)

def ids(rows): return set(map(tuple, rows.frame().iloc[:,:2].to_numpy().tolist()))

# what was learned from

def test_rows_learned_from_are_known_to_no_first_stage_and_none_is_a_validation_row(stages, two):
    cut = inner_cut_of(stages[0])
    inner = inner_loaders(stages[0], cut)
    asked = set(map(tuple, two.second.asked.to_numpy().tolist()))
    train,valid = (ids(two.dls.interactions(o)) for o in ('train','valid'))
    known = ids(inner.interactions('train'))
    assert cut.how=='last' and len(asked)>50
    assert asked<=ids(inner.interactions('valid')) and not asked&known
    assert asked<=train and not asked&valid and not known&valid

def test_what_the_first_stages_say_of_them_is_what_models_without_these_rows_say(stages):
    cut = inner_cut_of(stages[0])
    inner = inner_loaders(stages[0], cut)
    part = inner_part(stages[0], inner)
    alone = EASE(inner.n_users, inner.n_items)
    alone.solve(inner.interactions('train'))
    assert torch.equal(part.model.weight, alone.weight) and not torch.equal(part.model.weight, stages[0].model.weight)
    stage = TwoStage([part], inner.n_users, inner.n_items, k=10)
    frame = list_frame(stage, steps_of(inner, cut), n_neg=8)
    rows = inner.interactions('train')
    users,items = rows.user_vocab.encode(frame.user_id, 'raise'),rows.item_vocab.encode(frame.item_id, 'raise')
    assert np.allclose(frame.EASE_score, score_items(alone, torch.from_numpy(users), rows.n_items)[np.arange(len(items)),items], atol=1e-5)
    assert not set(map(tuple, frame[['user_id','item_id']].to_numpy().tolist()))&ids(rows)

def test_validation_rows_change_nothing(stages, two):
    last = leave_last_out(FRAME, 1)[1]
    other = FRAME.copy()
    other.loc[last,'item_id'] = np.random.RandomState(0).permutation(other.loc[last,'item_id'])
    dls = CollabDataLoaders.from_df(other, splits=leave_last_out(other, 1), seed=42, bs=128, vocab=stages[0].dls.classes)
    again = two_stage(fit(collab_learner(dls, arch=EASE), 1), stages[1:], **QUICK)
    assert len(ids(dls.interactions('valid'))^ids(two.dls.interactions('valid')))>50
    assert all(torch.equal(a, b) for a,b in zip(again.model.second.state_dict().values(), two.model.second.state_dict().values()))

def test_each_of_the_last_rows_is_asked_for_by_somebody_who_met_those_before(stages):
    cut = Cut('last', n=3)
    inner = inner_loaders(stages[0], cut)
    steps = steps_of(inner, cut)
    held = inner.interactions('valid')
    assert len(steps)==3 and sum(len(o) for _,o in steps)==len(held)
    for known,asked in steps:
        times = pd.Series(known.times).groupby(known.rows_of('user')).max()
        assert (times[asked.rows_of('user')].to_numpy()<asked.times).all() and not ids(known)&ids(asked)
    more = two_stage(stages[0], stages[1:], last=3, **QUICK)
    assert len(more.second.asked)>1.5*len(two_stage(stages[0], stages[1:], **QUICK).second.asked)

def test_a_random_split_is_cut_at_random(stages):
    dls = CollabDataLoaders.from_df(FRAME, valid_pct=.2, seed=1, bs=128)
    learn = fit(collab_learner(dls, arch=EASE), 1)
    assert inner_cut_of(learn).how=='random'
    out = two_stage(learn, **QUICK)
    assert not set(map(tuple, out.second.asked.to_numpy().tolist()))&ids(dls.interactions('valid'))

# answers

def test_a_second_stage_finds_more_than_chance_and_says_its_protocol(stages, two):
    ev = two.evaluate(k=10, metrics='ndcg', progress=False)
    assert 'the best 10 of EASE, SequentialRules, ranked by a tabular model' in ev.protocol
    pop = fit(collab_learner(stages[0].dls, arch=Popularity), 1).evaluate(k=10, metrics='ndcg', progress=False)
    assert ev.summary['ndcg@10']>pop.summary['ndcg@10']

def test_what_was_seen_is_left_out_and_candidates_stand_first(two):
    df = two.recommend([1,2,3], k=8)
    assert df.groupby('user_id').size().eq(8).all() and not set(map(tuple, df[['user_id','item_id']].to_numpy().tolist()))&ids(two.dls.interactions('all'))
    users = torch.arange(1, 9)
    scores = two.model.score_items(users)
    found = two.model.candidates(*two.model.asked(users))
    for s,ok in zip(scores, found.ok): assert s[ok].min()>s[~ok].max() and 10<=ok.sum()<=20

def test_scores_do_not_depend_on_who_is_asked_for_beside(two):
    users = torch.arange(1, 30)
    assert torch.allclose(two.model.score_items(users), torch.cat([two.model.score_items(o) for o in users.split(4)]), rtol=1e-4, atol=1e-5)

def test_equal_scores_are_candidates_together():
    place,ok = places_of(torch.tensor([[1.,2.,2.,2.,0.]]), 2)
    assert ok.tolist()==[[False,True,True,True,False]] and place.exp().round().tolist()==[[4,1,1,1,5]]

@pytest.mark.parametrize('which', ['two','rich'])
def test_a_history_gets_what_its_person_gets(which, request):
    learn = request.getfixturevalue(which)
    rows = learn.dls.interactions('train')
    own = rows.of_user(7)
    told = rows.item_vocab.decode(own.rows_of('item')[np.argsort(own.times)]).tolist()
    if which=='two':
        mine,new = learn.recommender.score_users(torch.tensor([7])),learn.recommender.score_history(learn.recommender._histories([told], 'raise'))
        assert torch.allclose(mine, new, rtol=1e-3, atol=1e-4)
    assert isinstance(learn.recommender, TwoStageRecommender)
    lists = learn.recommend(history=[told[:3],[],told], k=5)
    assert lists.groupby('user_id').size().tolist()==[5,5,5] and np.isfinite(lists.score).all()
    assert not set(lists[lists.user_id==2].item_id)&set(told)

def test_other_verbs(stages, two):
    pd.testing.assert_frame_equal(two.similar_items(3, k=4), stages[0].similar_items(3, k=4))
    assert np.isfinite(two.predict([1,2], [3,4])).all()
    with pytest.raises(NotImplementedError, match='TwoStage cannot be explained.*EASE, SequentialRules'): two.explain(1)
    with pytest.raises(NotImplementedError, match='TwoStage cannot be explained'): two.explain(history=[1,2])
    with pytest.raises(RecfastError, match='in learners of their own'): two.fit(1)
    with pytest.raises(NotImplementedError, match='serve it from a bundle'):
        from recfast.export import export_onnx
        export_onnx(two, 'never.onnx')

def test_features_are_read(rich):
    second = rich.model.second
    assert {'alike','alike_kind','item_size'}<=set(second.conts) and {o[0] for o in second.cats}=={'item_kind','user_town'}
    other = learners()[0].dls.interactions('train')
    with pytest.raises(RatingsError, match='trained on other facts.*alike'): rich.model.attach(other)

def test_what_is_the_same_everywhere_in_training_says_nothing_later(two):
    second = two.model.second
    assert second.std[second.conts.index('n_met')]==1e9 # everybody has as many rows
    scores = two.recommender.score_history([(torch.tensor([3,4,5]),torch.ones(3))])
    assert scores.abs().max()<100

# how many

def test_one_model_only(stages):
    one = two_stage(stages[0], **QUICK)
    assert list(one.model.parts())==['0'] and len(one.recommend(3, k=5))==5

def test_k_beyond_the_catalogue(stages):
    whole = two_stage(stages[0], stages[1:], **{**QUICK, 'k': 10_000})
    rows = whole.dls.interactions('train')
    found = whole.model.candidates(*whole.model.asked(torch.tensor([1,2])))
    assert (found.ok.sum(1).numpy()==rows.trained('item').sum()-rows.csr()[[1,2]].getnnz(1)).all()
    assert len(whole.recommend(1, k=1000))==40-len(set(FRAME[FRAME.user_id==1].item_id))

def test_two_of_a_kind_have_names_of_their_own(stages):
    both = two_stage(stages[0], [fit(collab_learner(stages[0].dls, arch=EASE, config=dict(l2=5.)), 1)], **QUICK)
    assert both.model.stage_names()==['EASE','EASE_2'] and len(set(both.model.second.conts))==len(both.model.second.conts)

# refused

def test_a_set_has_no_order(stages):
    one = two_stage(stages[0], **QUICK)
    with pytest.raises(RatingsError, match='history is a set'): one.recommend(history={3,8}, k=3)

def test_other_rows_and_ids_are_refused(stages):
    other = fit(collab_learner(loaders(n=2), arch=EASE), 1)
    with pytest.raises(RatingsError, match='trained on other rows'): two_stage(other, [fit(collab_learner(loaders(), arch=EASE), 1)])
    few = FRAME[FRAME.item_id<30]
    with pytest.raises(RatingsError, match='other ids'): two_stage(stages[0], [fit(collab_learner(loaders(few), arch=EASE), 1)])
    with pytest.raises(ValueError, match='k=0'): two_stage(stages[0], k=0)
    with pytest.raises(ValueError, match='last=0'): two_stage(stages[0], last=0)

def test_a_model_of_batches_is_refitted_by_the_caller_and_a_solved_one_by_itself(stages):
    dot = fit_one_cycle(collab_learner(stages[0].dls, n_factors=4), 1, 5e-2)
    with pytest.raises(RecfastError, match='how dotproductbias was trained is not written down: pass refit='): two_stage(stages[0], [dot], **QUICK)
    asked = []
    def refit(learn, inner):
        asked.append((type(learn.model),len(inner.interactions('train'))))
        return fit_one_cycle(collab_learner(inner, n_factors=4), 1, 5e-2)
    out = two_stage(stages[0], [dot], refit=refit, **QUICK)
    assert asked==[(DotProductBias,len(stages[0].dls.interactions('train'))-150)]
    assert out.model.models[1] is dot.model and len(out.recommend(history={3: 1., 8: 1.}, k=4))==4

def test_nothing_to_learn_from_is_said():
    df = FRAME.groupby('user_id').head(2)
    dls = CollabDataLoaders.from_df(df, valid_pct=0, seed=1, bs=64)
    learn = fit(collab_learner(dls, arch=Popularity), 1)
    gone = learn.dls.interactions('train')
    with pytest.raises(RatingsError, match='0 of 20 held-out rows are among the best 1 of some first stage.*pass a larger k='):
        list_frame(TwoStage([learn.model], dls.n_users, dls.n_items, k=1), [(gone,gone[:20])], n_neg=3)

# kept

ASK = '''import sys,json
from recfast.bundle import load_bundle
out = []
for rec in map(load_bundle, sys.argv[1:]):
    lists = rec.recommend([1,2,3], k=6, progress=False),rec.recommend(history=[[3,8,11],[5]], k=6)
    out.append([[o.item_id.tolist(),o.score.tolist()] for o in lists])
print(json.dumps(out))'''

def test_bundles_give_the_same_lists_in_a_new_process(two, rich, tmp_path):
    paths = [o.save_bundle(tmp_path/str(i)) for i,o in enumerate((two,rich))]
    assert not [o for path in paths for o in path.iterdir() if o.suffix not in ('.json','.safetensors','.parquet')]
    told = subprocess.run([sys.executable,'-W','ignore','-c',ASK,*map(str, paths)], capture_output=True, text=True, check=True).stdout
    for learn,lists in zip((two,rich), json.loads(told)):
        for (items,scores),df in zip(lists, (learn.recommend([1,2,3], k=6),learn.recommend(history=[[3,8,11],[5]], k=6))):
            assert items==df.item_id.tolist() and np.allclose(scores, df.score, rtol=1e-4, atol=1e-5)

def test_two_stages_rank_beside_a_rater(stages, two, tmp_path):
    rater = fit_one_cycle(collab_learner(stages[0].dls, n_factors=4), 1, 5e-2)
    both = two_part(rater, two)
    path = both.save_bundle(tmp_path/'b')
    mine,back = both.recommend([1,2], k=4),load_bundle(path).recommend([1,2], k=4)
    assert mine.item_id.tolist()==two.recommend([1,2], k=4).item_id.tolist()==back.item_id.tolist()
    assert both.recommend(history=[3,8], k=3).item_id.tolist()==two.recommend(history=[3,8], k=3).item_id.tolist()

def test_more_rows_keep_the_second_stage(two, tmp_path):
    rec = load_bundle(two.save_bundle(tmp_path/'b'))
    more = pd.DataFrame(dict(user_id=[1,1,999,999], item_id=[2,3,4,5], rating=1., timestamp=range(10_000, 10_004)))
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        new = rec.add_ratings(more)
    old = two.model.second.state_dict()
    assert all(torch.equal(v, old[k]) for k,v in new.model.second.state_dict().items())
    assert len(new.recommend(999, k=3))==3

@pytest.mark.parametrize('which', ['two','rich'])
def test_facts_come_from_rows_so_nobody_can_be_left_out(which, request):
    learn = request.getfixturevalue(which)
    with pytest.raises(RecfastError, match='TwoStage cannot be given away without its people.*(other lists by history|on other facts)'): without_users_of(learn.recommender)
    assert len(learn.recommend(1, k=4))==4

def test_the_same_seed_gives_the_same_second_stage(stages, two):
    before = torch.random.get_rng_state()
    again = two_stage(stages[0], stages[1:], **QUICK)
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(a, b) for a,b in zip(again.model.second.state_dict().values(), two.model.second.state_dict().values()))
    other = two_stage(stages[0], stages[1:], seed=5, **QUICK)
    assert not torch.equal(other.model.second.net.layers[0][0].weight, two.model.second.net.layers[0][0].weight)

def test_a_loss_of_pairs_is_taken(stages):
    assert np.isfinite(two_stage(stages[0], loss=BPRLoss(), **QUICK).second.recorder.values[-1]).all()

# facts

def test_facts_by_hand():
    df = pd.DataFrame(dict(user_id=[1,1,1,2,2], item_id=['a','b','c','a','b'], timestamp=range(5), rating=1.))
    rows = CollabDataLoaders.from_df(df, valid_pct=0, bs=2, seed=0).interactions('train')
    facts = PairFacts(rows)
    a,b,c = rows.item_vocab.encode(['a','b','c'], 'raise')
    conts,codes = facts(told_of([[a],[a,b]]), np.zeros(2, int), np.array([0,1,1]), np.array([b,c,a]))
    found = pd.DataFrame(conts, columns=fact_names(rows))
    assert np.allclose(found.popular, np.log1p([2,1,2])) and np.allclose(found.n_met, np.log1p([1,2,2])) and codes.shape==(3,0)
    assert np.allclose(found.place, [np.log(2),np.log(3),0]) # b comes second twice, c third, a first
    assert np.allclose(found.after_1[0], np.log((2+1)/(2*.4+1))) # b follows a twice, of two that followed, and is 2 of 5 rows
    assert np.allclose(found.after_2[1], np.log((1+1)/(1*.2+1))) # c comes two places after a once
    assert (found.after_2[[0]]==0).all() # nothing was met before

def test_a_blend_of_two_stages_is_no_surprise(stages, two):
    blend = Blend([two,stages[0]], [.5,.5])
    assert len(blend.recommend(1, k=4))==4
