"Gains by rating: scikit-learn's ndcg_score, a plain loop, and every way into an evaluation"
from functools import partial

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import ndcg_score

from recfast.core import RatingsError
from recfast.data.loaders import CollabDataLoaders
from recfast.evaluate import compare
from recfast.given_lists import evaluate_lists
from recfast.learner import collab_learner
from recfast.metrics import METRICS, ndcg_gain_at_k
from recfast.testing import synth_ratings

pytestmark = pytest.mark.filterwarnings('ignore::recfast.core.LeakageWarning')

@pytest.mark.parametrize('k', [1,3,10,40])
@pytest.mark.parametrize('gain,worth', [('linear',lambda r: r), ('exponential',lambda r: 2**r-1)])
def test_it_is_that_of_scikit_learn(k, gain, worth):
    rs = np.random.RandomState(k)
    for _ in range(20):
        true,scores = rs.randint(0, 6, (7,30)).astype(float),rs.rand(7,30)
        if (true.sum(1)==0).any(): continue
        gains = np.take_along_axis(true, np.argsort(-scores, 1)[:,:k], 1)
        best = -np.sort(-true, 1)[:,:k]
        got = ndcg_gain_at_k(gains, best, k, gain=gain)
        assert got==pytest.approx([ndcg_score(worth(true[[j]]), scores[[j]], k=k) for j in range(7)], abs=1e-12)

def test_nothing_to_gain_is_no_value(): assert np.isnan(ndcg_gain_at_k([[0,0]], [[0,0]])).all()
def test_a_gain_of_another_name():
    with pytest.raises(ValueError, match="gain='square', expected 'linear' or 'exponential'"): ndcg_gain_at_k([[1]], [[1]], gain='square')

@pytest.fixture(scope='module')
def learn():
    learn = collab_learner(CollabDataLoaders.from_df(synth_ratings(), seed=1, bs=64), 5, y_range=(0,5.5), seed=0)
    with learn.quiet(): learn.fit(2, 1e-2)
    return learn

def by_hand(learn, test, k, worth=lambda r: r, relevant=None, lists=None):
    "{user: nDCG} from frames"
    train = learn.dls.interactions('train').frame()
    seen = set(zip(train.user_id, train.item_id))
    if relevant is not None: test = test[test.rating>=relevant]
    stars,out = test.groupby(['user_id','item_id']).rating.mean(),{}
    for u,own in stars.groupby(level=0):
        own = {i: r for (_,i),r in own.items() if (u,i) not in seen}
        if not own or u not in set(train.user_id): continue
        items = [i for i in learn.recommend(u, k=999, exclude_seen=False).item_id if (u,i) not in seen][:k]
        gains = [worth(own.get(i, 0)) for i in items]
        best = sorted(map(worth, own.values()), reverse=True)[:k]
        dcg = lambda r: sum(o/np.log2(j+2) for j,o in enumerate(r))
        out[u] = dcg(gains)/dcg(best) if dcg(best) else np.nan
    return out

@pytest.mark.parametrize('relevant', [None,4])
@pytest.mark.parametrize('k', [3,20])
def test_an_evaluation_is_that_of_a_plain_loop(learn, relevant, k):
    test = learn.dls.interactions('valid').frame()
    ev = learn.evaluate(metrics=['ndcg_gain',partial(ndcg_gain_at_k, gain='exponential')], k=k, relevant=relevant)
    for name,worth in (('ndcg_gain',lambda r: r),('ndcg_gain_exponential',lambda r: 2**r-1)):
        want = by_hand(learn, test, k, worth, relevant)
        assert ev.per_user.set_index('user_id')[f'{name}@{k}'].to_dict()==pytest.approx(want, nan_ok=True)
        assert ev[f'{name}@{k}']==pytest.approx(np.nanmean(list(want.values())))

def test_repeats_and_items_that_nobody_knows(learn):
    valid = learn.dls.interactions('valid').frame()
    u = valid.user_id.iloc[0]
    test = pd.concat([valid,valid[:40].assign(rating=1.),pd.DataFrame(dict(user_id=[u,u], item_id=[-1,-2] if valid.item_id.dtype.kind in 'iu' else ['none','nil'], rating=[5.,2.]))])
    ev = learn.evaluate(test, metrics='ndcg_gain', k=10)
    assert ev.per_user.set_index('user_id')['ndcg_gain@10'].to_dict()==pytest.approx(by_hand(learn, test, 10), nan_ok=True)

def test_lists_from_elsewhere_and_groups_and_comparisons(learn):
    test,train = (learn.dls.interactions(o) for o in ('valid','train'))
    lists = learn.recommend(exclude_seen=False, k=999)
    want = learn.evaluate(metrics='ndcg_gain', k=10)
    assert evaluate_lists(lists, test, train, metrics='ndcg_gain')['ndcg_gain@10']==pytest.approx(want['ndcg_gain@10'])
    assert compare({'a': learn}, metric='ndcg_gain@10')['a']['mean']==pytest.approx(want['ndcg_gain@10'])
    by = learn.evaluate(metrics='ndcg_gain', k=10, by='user').by
    assert (by['ndcg_gain@10']*by.n_users).sum()/by.n_users.sum()==pytest.approx(want['ndcg_gain@10'])
    assert 'ndcg_gain@10' in want.baseline.summary

def test_without_ratings_it_is_ndcg():
    df = synth_ratings().drop(columns='rating')
    learn = collab_learner(CollabDataLoaders.implicit_from_df(df, n_neg=2, bs=64, seed=0), 5)
    ev = learn.evaluate(metrics=['ndcg','ndcg_gain'], k=(3,10))
    assert [ev['ndcg_gain@3'],ev['ndcg_gain@10']]==pytest.approx([ev['ndcg@3'],ev['ndcg@10']])

def test_ratings_below_nothing_are_refused():
    df = synth_ratings()
    df['rating'] -= 3
    learn = collab_learner(CollabDataLoaders.from_df(df, seed=1, bs=64), 3)
    with pytest.raises(RatingsError, match='gains are ratings of 0 or more'): learn.evaluate(metrics='ndcg_gain', k=5)

def test_it_is_not_measured_unasked(learn): assert not METRICS['ndcg_gain'].cheap and 'ndcg_gain@10' not in learn.evaluate(k=10).summary
