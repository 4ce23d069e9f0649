"Somebody new by what they are, alone or with what they met: the features are the prior, and what nobody can read is refused"
import numpy as np
import pandas as pd
import pytest
import torch

from helpers import fit_one_cycle
from recfast.bundle import load_bundle
from recfast.core import RatingsError
from recfast.data.loaders import CollabDataLoaders
from recfast.learner import collab_learner
from recfast.losses import SoftmaxLoss
from recfast.models.hybrid import HybridDot

N_USERS,N_ITEMS = 120,40
rng = np.random.default_rng(0)
TASTE = np.arange(N_USERS)%2
PEOPLE = pd.DataFrame(dict(user_id=np.arange(1, N_USERS+1), kind=np.where(TASTE, 'odd', 'even'), age=rng.integers(20, 60, N_USERS).astype(float)))
LIKES = np.where(TASTE[:,None]==np.arange(N_ITEMS)%2, .6, .05)
USER,ITEM = np.nonzero(rng.random((N_USERS,N_ITEMS))<LIKES)
CLICKS = pd.DataFrame(dict(user_id=USER+1, item_id=ITEM+1))
STARS = pd.DataFrame(dict(user_id=np.repeat(np.arange(1, N_USERS+1), 20), item_id=np.concatenate([rng.permutation(N_ITEMS)[:20]+1 for _ in range(N_USERS)])))
STARS['rating'] = np.where((STARS.user_id-1)%2==(STARS.item_id-1)%2, 5., 2.)

def clicks(**kwargs): return CollabDataLoaders.implicit_from_df(CLICKS, n_neg=0, bs=512, seed=0, valid_pct=0, **{'users': PEOPLE, **kwargs})
def stars(**kwargs): return CollabDataLoaders.from_df(STARS, bs=256, seed=0, valid_pct=0, **{'users': PEOPLE, **kwargs})
KINDS = dict(
    softmax=lambda: collab_learner(clicks(), 8, arch=HybridDot, loss_func=SoftmaxLoss(), config=dict(wd_features=.1)),
    stars=lambda: collab_learner(stars(), 8, arch=HybridDot, y_range=(0,5.5), config=dict(wd_features=.1)))
every_kind = pytest.mark.parametrize('kind', KINDS)
_TRAINED = {}

def trained(kind):
    if kind not in _TRAINED: _TRAINED[kind] = fit_one_cycle(KINDS[kind](), 12, 3e-2, wd=.1)
    return _TRAINED[kind]

def share(df, odd): return (df.item_id%2==(0 if odd else 1)).mean() # items 2, 4, ... are what the odd ones like

@every_kind
def test_people_known_by_features_only_get_what_their_like_like(kind):
    learn = trained(kind)
    for name,odd in dict(odd=True, even=False).items():
        df = learn.recommend(user_features=dict(kind=name, age=30), k=10)
        assert df.user_id.tolist()==[0]*10 and share(df, odd)>.9

@every_kind
def test_a_history_outweighs_what_was_expected(kind):
    learn = trained(kind)
    told = [1,3,5,7,9,11,13,15] if kind=='softmax' else {i: 5. if i%2 else 2. for i in range(1, 17)}
    both = learn.recommend(history=told, user_features=dict(kind='odd'), k=10)
    assert share(both, False)>share(learn.recommend(user_features=dict(kind='odd'), k=10), False)
    one = {1: 5.} if kind=='stars' else [1]
    a,b = (learn.recommend(history=one, user_features=dict(kind=o), k=40).set_index('item_id').score for o in ('odd','even'))
    assert (a-b.loc[a.index]).abs().max()>1e-3 # after one item it still matters who tells it

@every_kind
def test_the_expectation_is_the_mean_of_what_is_personal_and_the_features(kind):
    learn = trained(kind)
    m = learn.model
    own = torch.cat([m.u_weight.weight,m.u_bias.weight], 1).detach()[1:].double()
    ids,u = learn.recommender.expect(PEOPLE.drop(columns='user_id'))
    F = m.user_features.directions[1:].toarray()
    torch.testing.assert_close(u, own.mean(0)+torch.from_numpy(F@m.user_map.detach().numpy()).double(), rtol=1e-4, atol=1e-5)
    lists = learn.recommend(user_features=PEOPLE.drop(columns='user_id')[:3], k=40).sort_values(['user_id','item_id']).score.to_numpy().reshape(3, 40)
    with torch.no_grad(): want = m.score_vectors(u[:3])[:,1:]
    np.testing.assert_allclose(lists, want, rtol=1e-4, atol=1e-5)

@every_kind
def test_what_somebody_does_not_say_is_unknown(kind):
    learn = trained(kind)
    a,b = (learn.recommend(user_features=o, k=40) for o in (dict(kind='odd'),dict(kind='odd', age=None)))
    pd.testing.assert_frame_equal(a, b)

def test_several_people_in_any_form():
    learn = trained('softmax')
    two = learn.recommend(user_features=[dict(kind='odd', age=30),dict(kind='even', age=30)], k=5)
    assert two.user_id.tolist()==[0]*5+[1]*5
    named = pd.DataFrame(dict(user_id=[901,907], kind=['odd','even'], age=[30,30]))
    assert learn.recommend(user_features=named, k=5).user_id.tolist()==[901]*5+[907]*5
    told = pd.DataFrame(dict(user_id=[907,907,901], item_id=[1,3,2]))
    both = learn.recommend(history=told, user_features=named, k=5)
    assert both.user_id.unique().tolist()==[907,901] and share(both[both.user_id==901], True)>.7

def test_the_matrix_of_features_is_no_table_of_ids_even_where_both_have_as_many_rows():
    n = N_USERS
    tags = pd.DataFrame(dict(user_id=PEOPLE.user_id, tags=[['all',f't{i}'] for i in range(n)])) # n+1 columns: as many as there are rows
    learn = collab_learner(clicks(users=tags), 8, arch=HybridDot, loss_func=SoftmaxLoss(), config=dict(wd_features=.1))
    fit_one_cycle(learn, 2, 3e-2)
    assert len(learn.model.user_map)==learn.dls.n_users
    prior,_ = learn.recommender._prior()
    assert list(prior.shapes)==['u_weight.weight','u_bias.weight']
    assert len(learn.recommend(history=[1,3], user_features=dict(tags=['all','t3']), k=5))==5

@every_kind
def test_a_bundle_answers_alike(kind, tmp_path):
    learn = trained(kind)
    rec = load_bundle(learn.save_bundle(tmp_path/'b'))
    told = [1,3] if kind=='softmax' else {1: 5., 2: 2.}
    for how in (dict(user_features=dict(kind='odd', age=30)), dict(user_features=dict(kind='even'), history=told)):
        pd.testing.assert_frame_equal(rec.recommend(k=40, **how), learn.recommend(k=40, **how), rtol=1e-5, atol=1e-5)

def test_what_cannot_be_read_is_refused():
    learn = trained('softmax')
    with pytest.raises(RatingsError, match="the model reads"): learn.recommend(user_features=dict(hat='red'))
    with pytest.raises(RatingsError, match='expected {column: value}'): learn.recommend(user_features='odd')
    with pytest.raises(RatingsError, match='expected the same'): learn.recommend(history=[[1],[2]], user_features=dict(kind='odd'))
    with pytest.raises(TypeError, match='not both'): learn.recommend(3, user_features=dict(kind='odd'))
    with pytest.warns(UserWarning, match='no trained user had'): learn.recommend(user_features=dict(kind='prime'))
    plain = fit_one_cycle(collab_learner(stars(), 4), 1)
    with pytest.raises(NotImplementedError, match='knows no features of people'): plain.recommend(user_features=dict(kind='odd'))
    out = fit_one_cycle(collab_learner(stars(), 4, arch=HybridDot, config=dict(wd_features=0)), 1)
    with pytest.raises(NotImplementedError, match='left out when this model was trained'): out.recommend(user_features=dict(kind='odd'))

def test_two_parts_answer_by_the_ranker():
    from recfast.ensemble import two_part
    from recfast.models.linear import EASE
    ranker,odd = collab_learner(stars(), 4, arch=HybridDot),dict(kind='odd')
    lists = two_part(trained('stars'), ranker).recommend(user_features=odd, k=5)
    assert lists.item_id.tolist()==ranker.recommend(user_features=odd, k=5).item_id.tolist() and lists.predicted.isna().all()
    other = two_part(trained('stars'), fit_one_cycle(collab_learner(stars(), arch=EASE), 1))
    with pytest.raises(NotImplementedError, match='knows no features of people'): other.recommend(user_features=odd)

def test_the_service_and_the_shell_give_the_same_lists(tmp_path):
    pytest.importorskip('fastapi')
    from fastapi.testclient import TestClient
    from typer.testing import CliRunner
    from recfast.cli import app
    from recfast.serve import make_app
    learn = trained('softmax')
    path = learn.save_bundle(tmp_path/'b')
    rec = load_bundle(path)
    with TestClient(make_app(rec)) as client:
        for how in (dict(user_features=dict(kind='odd', age=30)), dict(user_features=[dict(kind='odd'),dict(kind='even')]),
                    dict(user_features=dict(kind='odd'), history=[1,3])):
            res = client.post('/recommend', json=dict(k=7, **how))
            mine = rec.recommend(k=7, **how)
            assert res.status_code==200 and [(o['user_id'],o['item_id']) for o in res.json()]==list(zip(mine.user_id, mine.item_id))
        bad = client.post('/recommend', json=dict(user_features=dict(hat='red')))
        assert bad.status_code==422 and 'the model reads' in bad.json()['detail']
        assert client.post('/recommend', json=dict(user_ids=[3], user_features=dict(kind='odd'))).status_code==422
    out = tmp_path/'lists.csv'
    res = CliRunner().invoke(app, ['recommend', str(path), '--user-feature', 'kind=odd', '--user-feature', 'age=30', '-k', '7', '--out', str(out)])
    assert res.exit_code==0, res.output
    want = rec.recommend(user_features=dict(kind='odd', age=30), k=7)
    assert pd.read_csv(out).item_id.tolist()==want.item_id.tolist()
    res = CliRunner().invoke(app, ['recommend', str(path), '--user-feature', 'kind'])
    assert res.exit_code!=0 and 'expected column=value' in res.output.replace('\n', ' ')
