"People who are forgotten: no row, no row of a table and no byte of a bundle is theirs"
import numpy as np
import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from helpers import ALL
from recfast.bundle import load_bundle
from recfast.cli import app
from recfast.core import ArgumentError, UnknownIdError
from recfast.data.loaders import CollabDataLoaders
from recfast.learner import collab_learner
from recfast.models import DotProductBias
from helpers import fit_one_cycle, learner_of
from recfast.testing import synth_ratings

RATINGS = synth_ratings(30, 25, density=.4)
GONE,OTHER = 7,9
SOLVED = 'popularity','ease','itemknn','rp3beta','sequentialrules'

def trained(name, df=RATINGS):
    learn = learner_of(name, df, valid_pct=0, bs=16)
    if name=='bayesiansvdpp': learn.model.n_sweeps,learn.model.warm_up = 6,2
    return fit_one_cycle(learn, 1).recommender

def scores(rec, user=OTHER): return rec.recommend(user, k=100, exclude_seen=False).set_index('item_id').score

@pytest.mark.parametrize('name', [o for o in ALL if o not in ('handmade','embeddingdotbias')])
def test_every_model_forgets(name):
    rec = trained(name)
    new = rec.forget(GONE)
    with pytest.raises(UnknownIdError): new.recommend(GONE)
    assert new.n_users==rec.n_users-1 and len(new.train)==len(rec.train)-(RATINGS.user_id==GONE).sum()
    if name in SOLVED: want = scores(trained(name, RATINGS[RATINGS.user_id!=GONE]))
    elif name in ('autorec','lightgcn','svdpp'): return # what others did is part of their scores
    else: want = scores(rec)
    np.testing.assert_allclose(scores(new)[want.index], want, rtol=1e-3, atol=1e-4)

def test_what_stays_learned_is_said():
    assert trained('ease').forget(GONE).forgotten['learned']=='solved without them'
    assert 'train anew' in trained('dotproductbias').forget([GONE,OTHER]).forgotten['learned']

@pytest.mark.parametrize('door', ['library','shell'])
def test_no_byte_of_a_bundle_names_them(tmp_path, door):
    named = RATINGS.assign(user_id=np.where(RATINGS.user_id==GONE, 'zoe-quux', 'u'+RATINGS.user_id.astype(str)))
    learn = collab_learner(CollabDataLoaders.from_df(named, valid_pct=.1, seed=0), 4, y_range=(0,5.5), arch=DotProductBias)
    before = fit_one_cycle(learn).save_bundle(tmp_path/'before')
    def names(path): return [o.name for o in path.rglob('*') if o.is_file() and b'zoe-quux' in o.read_bytes()]
    assert names(before)
    row = learn.model.u_weight.weight[learn.recommender.users.encode(['zoe-quux'])].detach().numpy().tobytes()
    assert any(row in o.read_bytes() for o in before.rglob('*'))
    if door=='library': load_bundle(before).forget('zoe-quux').save_bundle(tmp_path/'after')
    else:
        res = CliRunner().invoke(app, ['forget',str(before),'zoe-quux','--out',str(tmp_path/'after')])
        assert res.exit_code==0, res.output
    assert names(tmp_path/'after')==[] and not any(row in o.read_bytes() for o in (tmp_path/'after').rglob('*'))
    with pytest.raises(UnknownIdError): load_bundle(tmp_path/'after').recommend('zoe-quux')

def test_the_bundle_itself_can_be_written_over(tmp_path):
    path = learner_of('ease', RATINGS.assign(user_id='u'+RATINGS.user_id.astype(str)), valid_pct=0)
    path = fit_one_cycle(path).save_bundle(tmp_path/'b')
    assert CliRunner().invoke(app, ['forget',str(path),'u7','--out',str(path)]).exit_code==0
    assert not any(b'"u7"' in o.read_bytes() for o in path.rglob('*')) and 'u7' not in load_bundle(path).users.items

def test_what_cannot_be_is_said(tmp_path):
    rec = trained('dotproductbias')
    with pytest.raises(UnknownIdError): rec.forget(999)
    with pytest.raises(ArgumentError, match='nobody would be left'): rec.forget(rec.users.index)
    about = pd.DataFrame(dict(user_id=RATINGS.user_id.unique()))
    about['kind'] = np.where(about.user_id%2, 'a', 'b')
    learn = fit_one_cycle(collab_learner(CollabDataLoaders.from_df(RATINGS, valid_pct=0, users=about), 4, arch=DotProductBias))
    with pytest.raises(ArgumentError, match='features of people'): learn.recommender.forget(GONE)

def test_who_was_folded_in_is_forgotten_too():
    rec = trained('dotproductbias', RATINGS[RATINGS.user_id<28])
    new = rec.add_ratings(RATINGS[RATINGS.user_id>=28].assign(timestamp=10**10)).forget([GONE,29])
    assert new.train.n_fitted==((RATINGS.user_id<28)&(RATINGS.user_id!=GONE)).sum() and new.known('user').sum()==28
    torch.testing.assert_close(new.model.u_weight.weight[6], rec.model.u_weight.weight[6])
