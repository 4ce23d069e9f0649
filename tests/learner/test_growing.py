"A learner on tomorrow's table: what was known stays, bit by bit, wherever its ids stand now"
import numpy as np
import pandas as pd
import pytest
import torch

from recfast.bundle import load_bundle
from recfast.core import RatingsError
from recfast.data.implicit import CollabDataLoaders
from recfast.learner import collab_learner
from recfast.losses import BPRLoss
from recfast.models.autorec import AutoRec
from recfast.models.dot import DotProduct, DotProductBias
from recfast.models.ease import EASE
from recfast.models.fm import FM
from recfast.models.hybrid import HybridDot
from recfast.models.ncf import MLP, NeuMF
from recfast.models.params import DotProductParams
from recfast.models.sequence import SASRec
from recfast.models.svdpp import SVDpp
from recfast.models.towers import TwoTower
from recfast.testing import synth_ratings

OLD = synth_ratings(40, 30, 900)
def tomorrow(df, text=False):
    "More rows of known people and of new ones; other ids come first, so every row moves; as text, in another order too"
    more = pd.concat([df.assign(user_id=df.user_id-1000).iloc[:200],df.assign(item_id=df.item_id-500).iloc[200:300]])
    out = pd.concat([more,df]).reset_index(drop=True)
    return out.assign(user_id=out.user_id.astype(str), item_id=out.item_id.astype(str)) if text else out

PAIRS = {'dot': (DotProduct,{}), 'bias': (DotProductBias,{}), 'range': (DotProductBias,dict(y_range=(0,5.5))), 'params': (DotProductParams,{}), 'mlp': (MLP,{}),
    'neumf': (NeuMF,{}), 'svd++': (SVDpp,{}), 'other loss': (DotProductBias,dict(loss_func=BPRLoss()))}

def loaders(df, case, **kwargs):
    if case=='other loss': return CollabDataLoaders.implicit_from_df(df, n_neg=1, valid_pct=0, seed=1, bs=64, **kwargs)
    return CollabDataLoaders.from_df(df, valid_pct=0, seed=1, bs=64, **kwargs)

def trained(case, df, **fit):
    arch,how = PAIRS[case]
    learn = collab_learner(loaders(df, case), 6, arch=arch, **how)
    with learn.quiet(): learn.fit_one_cycle(2, 1e-2, **fit)
    return learn

def by_side(learn):
    "{name: [rows,...]} of what has a row for each person, and for each item"
    users,items = (dict() for _ in 'ui')
    n,m = learn.dls.n_users,learn.dls.n_items
    for k,p in learn.model.named_parameters(): (users if len(p)==n else items if len(p)==m else {})[k] = p
    assert n!=m
    return users,items

def now(old, new, side):
    "Rows of the same ids, before and now"
    a,b = ((o.dls.interactions('train').user_vocab,o.dls.interactions('train').item_vocab)[side] for o in (old,new))
    ids = a.index
    return np.arange(1, len(a)),b.encode(ids.astype(b.index.dtype), 'zero')

@pytest.mark.parametrize('case', PAIRS)
def test_every_row_and_moment_of_who_was_known_stays_bit_by_bit(case):
    old = trained(case, OLD)
    new = collab_learner(loaders(tomorrow(OLD), case), like=old)
    assert type(new.model) is type(old.model) and type(new.loss_func) is type(old.loss_func) and new.grown['moments']
    for side,(before,after) in enumerate(zip(by_side(old), by_side(new))):
        rows,here = now(old, new, side)
        assert before and set(before)==set(after) and (here!=rows).any() and here.all()
        for k in before:
            assert torch.equal(before[k][rows], after[k][here]), k
            a,b = old.opt.state[before[k]],new.opt.state[after[k]]
            for m in ('grad_avg','sqr_avg'):
                assert torch.equal(a[m][rows], b[m][here]) and not b[m][np.setdiff1d(np.arange(1, len(b[m])), here)].any()
            assert a['step']==b['step']
    rest = {k: p for k,p in new.model.named_parameters() if k not in by_side(new)[0] and k not in by_side(new)[1]}
    for k,p in old.model.named_parameters():
        if k in rest: assert torch.equal(p, rest[k]), k
    pairs = OLD[['user_id','item_id']].iloc[:50]
    same = [o.predict(pairs.user_id, pairs.item_id) for o in (new,old)]
    if case!='svd++': np.testing.assert_allclose(*same, rtol=1e-5, atol=1e-5) # its sums over sets change with the rows
    assert np.isfinite(new.predict([int(OLD.user_id[0])-1000,int(OLD.user_id[0])], [int(OLD.item_id[200])-500]*2)).all()

@pytest.mark.parametrize('case', PAIRS)
def test_one_epoch_lowers_the_error(case):
    new = collab_learner(loaders(tomorrow(OLD), case), like=trained(case, OLD))
    def loss(): return float(new.validate(dl=new.dls.train)[0])
    with new.no_bar(): before = loss()
    with new.quiet(): new.fit_one_cycle(1, 5e-3)
    with new.no_bar(): assert loss()<before

def test_new_rows_begin_at_the_mean_of_those_who_were_trained():
    old = trained('bias', OLD)
    new = collab_learner(loaders(tomorrow(OLD), 'bias'), like=old)
    row = new.dls.interactions('train').user_vocab.encode([int(OLD.user_id[0])-1000])[0]
    w = old.model.u_weight.weight.detach()
    assert torch.allclose(new.model.u_weight.weight[row], w[1:].mean(0), atol=1e-7) and torch.equal(new.model.u_weight.weight[0], w[0])

def test_a_bundle_will_do_and_has_no_moments(tmp_path):
    old = trained('range', OLD)
    rec = load_bundle(old.save_bundle(tmp_path/'b'))
    new,want = (collab_learner(loaders(tomorrow(OLD), 'range'), like=o) for o in (rec,old))
    assert not new.grown['moments'] and want.grown['moments']
    assert all(torch.equal(a, b) for a,b in zip(new.model.parameters(), want.model.parameters()))
    assert new.model.y_range==old.model.y_range==(0,5.5)

def test_ids_of_another_type_are_said():
    with pytest.raises(RatingsError, match='user ids of the old one is in the new table'):
        collab_learner(loaders(tomorrow(OLD, text=True), 'bias'), like=trained('bias', OLD))

def test_text_ids_in_any_order():
    df = OLD.assign(user_id='u'+OLD.user_id.astype(str), item_id='i'+OLD.item_id.astype(str))
    old = trained('bias', df)
    later = df.sample(frac=1, random_state=0)
    new = collab_learner(loaders(pd.concat([later.assign(user_id='a'+later.user_id).iloc[:50],later]), 'bias'), like=old)
    assert np.allclose(new.predict(df.user_id[:40], df.item_id[:40]), old.predict(df.user_id[:40], df.item_id[:40]))

def test_what_is_given_again_has_to_be_the_same():
    old = trained('range', OLD)
    dls = loaders(tomorrow(OLD), 'range')
    assert collab_learner(dls, 6, y_range=(0,5.5), arch=DotProductBias, like=old).model.y_range==(0,5.5)
    for wrong in (dict(n_factors=7), dict(y_range=(0,5)), dict(arch=DotProduct), dict(loss_func=BPRLoss()), dict(init='svd'), dict(budget=9.), dict(use_nn=True), dict(emb_szs={'a': 3})):
        with pytest.raises(ValueError, match=f"the old one has {next(iter(wrong))}"): collab_learner(dls, like=old, **wrong)
    with pytest.raises(TypeError, match='expected a learner, or what load_bundle'): collab_learner(dls, like='old.recfast')

def test_nothing_of_the_old_one_changes():
    old = trained('bias', OLD)
    before = {k: v.clone() for k,v in old.model.state_dict().items()}
    new = collab_learner(loaders(tomorrow(OLD), 'bias'), like=old)
    with new.quiet(): new.fit_one_cycle(1)
    assert all(torch.equal(v, before[k]) for k,v in old.model.state_dict().items())
    assert old.predict(OLD.user_id[:3], OLD.item_id[:3]).shape==(3,)

def test_models_of_histories_grow_along_their_items():
    def rows(df): return CollabDataLoaders.rows_from_df(df, valid_pct=0, seed=1, bs=16)
    old = collab_learner(rows(OLD), 6, arch=AutoRec)
    with old.quiet(): old.fit_one_cycle(2, 1e-2)
    new = collab_learner(rows(tomorrow(OLD)), like=old)
    told = {int(i): 4. for i in OLD.item_id[:5]}
    a,b = (o.recommend(history=told, k=500).set_index('item_id').score for o in (old,new))
    assert len(b)>len(a)
    np.testing.assert_allclose(b[a.index], a, rtol=1e-4, atol=1e-4)

def test_sequences_grow():
    def seqs(df): return CollabDataLoaders.sequences_from_df(df.assign(timestamp=np.arange(len(df))), seq_len=8, bs=16, seed=1)
    old = collab_learner(seqs(OLD), 8, arch=SASRec)
    with old.quiet(): old.fit_one_cycle(1, 1e-3)
    new = collab_learner(seqs(tomorrow(OLD)), like=old)
    told = [int(i) for i in OLD.item_id[:5]]
    a,b = (o.recommend(history=told, k=500).set_index('item_id').score for o in (old,new))
    np.testing.assert_allclose(b[a.index], a, rtol=1e-4, atol=1e-4)

def test_what_is_solved_is_solved_again():
    old = collab_learner(loaders(OLD, 'bias'), arch=EASE, config=dict(l2=50.))
    with old.quiet(): old.fit(1)
    new = collab_learner(loaders(tomorrow(OLD), 'bias'), like=old)
    assert new.model.hyper['l2']==50. and new.grown['made_anew']
    with new.quiet(): new.fit(1)
    assert len(new.recommend(int(OLD.user_id[0]), k=3))==3

def test_a_choice_is_followed_again():
    old = collab_learner(loaders(OLD, 'bias'), arch='auto', budget=5)
    with old.quiet(): old.fit(1)
    new = collab_learner(loaders(tomorrow(OLD), 'bias'), like=old)
    with new.quiet(): new.fit(1)
    assert new.choice.recipe.tolist()==old.choice.recipe.tolist()
    with pytest.raises(ValueError, match='leave out n_factors'): collab_learner(loaders(OLD, 'bias'), 5, like=old)

ABOUT = pd.DataFrame(dict(item_id=np.unique(tomorrow(OLD).item_id)))
ABOUT['kind'] = np.where(ABOUT.item_id%2, 'odd', 'even')
ABOUT['year'] = 1950.+np.arange(len(ABOUT))
def told(df, about=ABOUT): return CollabDataLoaders.from_df(df, valid_pct=0, seed=1, bs=64, items=about)

MORE_PEOPLE = pd.concat([OLD.assign(user_id=OLD.user_id-1000).iloc[:200],OLD]).reset_index(drop=True)

@pytest.mark.parametrize('arch', [HybridDot,FM,TwoTower])
@pytest.mark.parametrize('later,about', [(tomorrow(OLD),ABOUT[['item_id','kind']]),(MORE_PEOPLE,ABOUT)], ids=['new items','quantities'])
def test_known_features_speak_for_new_rows(arch, later, about):
    old = collab_learner(told(OLD, about), 6, arch=arch)
    with old.quiet(): old.fit_one_cycle(2, 1e-2)
    new = collab_learner(told(later, about), like=old)
    pairs = OLD[['user_id','item_id']].iloc[:50]
    np.testing.assert_allclose(new.predict(pairs.user_id, pairs.item_id), old.predict(pairs.user_id, pairs.item_id), rtol=1e-4, atol=1e-4)
    assert np.isfinite(new.predict(later.user_id[:5], later.item_id[:5])).all() and new.grown['moments']

@pytest.mark.parametrize('other', [ABOUT.assign(kind=ABOUT.kind.replace('odd', 'uneven')),ABOUT.assign(year=ABOUT.year+1)], ids=['values','means'])
def test_features_that_mean_something_else_are_refused(other):
    old = collab_learner(told(OLD), 6, arch=HybridDot)
    with old.quiet(): old.fit_one_cycle(1, 1e-2)
    with pytest.raises(NotImplementedError, match='item features have other values or means'): collab_learner(told(tomorrow(OLD), other), like=old)
