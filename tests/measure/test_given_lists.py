"Lists of anybody are measured as plain loops say, and those of a model as its own evaluation does"
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st

from recfast.core import RatingsError, UnknownIdError
from recfast.data.loaders import CollabDataLoaders
from recfast.evaluate import compare
from recfast.given_lists import evaluate_lists
from recfast.learner import collab_learner
from recfast.models.linear import EASE, Popularity
from recfast.testing import synth_ratings

pytestmark = pytest.mark.filterwarnings('ignore::recfast.core.LeakageWarning', 'ignore:.*solved in closed form')

def frame(pairs, **more): return pd.DataFrame(list(pairs), columns=['user_id','item_id']).assign(**more)

TEST = frame([('a','x'),('a','y'),('b','x'),('c','z'),('d','w')])
LISTS = frame([('a','x'),('a','q'),('b','q'),('b','x'),('c','z')])

def dcg(hits, n_rel, k):
    best = sum(1/np.log2(j+2) for j in range(min(n_rel, k)))
    return sum(h/np.log2(j+2) for j,h in enumerate(hits[:k]))/best

def by_hand(lists, test, train, k, exclude_seen=True):
    "{user: (ndcg, recall)} of {user: [items]} and sets of pairs"
    seen = train if exclude_seen and train is not None else set()
    trained = None if train is None else {u for u,_ in train}
    out = {}
    for u in sorted({u for u,_ in test}):
        rel = {i for v,i in test if v==u and (v,i) not in seen}
        if not rel or (trained is not None and u not in trained): continue
        hits = [i in rel for i in lists.get(u, []) if (u,i) not in seen][:k]
        out[u] = dcg(hits, len(rel), k),sum(hits)/len(rel)
    return out

def test_the_figures_by_hand():
    ev = evaluate_lists(LISTS, TEST, k=2)
    assert ev.per_user.set_index('user_id')['ndcg@2'].to_dict()==pytest.approx({'a': dcg([1,0], 2, 2), 'b': dcg([0,1], 1, 2), 'c': 1., 'd': 0.})
    assert ev['hit@2']==.75 and ev['recall@2']==pytest.approx((.5+1+1)/4) and ev['mrr@2']==pytest.approx((1+.5+1)/4) and ev.baseline is None

def test_a_user_without_a_list_counts_nothing_and_is_counted():
    ev = evaluate_lists(LISTS, TEST, k=2)
    assert ev.counts['users_without_list']==1 and '1 users without a list count 0' in ev.protocol and len(ev.per_user)==4
    assert evaluate_lists(LISTS[:0], TEST)['ndcg@10']==0.

def test_without_train_nothing_is_left_out_and_that_is_said():
    assert 'with nothing left out (no train=)' in evaluate_lists(LISTS, TEST).protocol

pairs = st.lists(st.tuples(st.integers(1,6), st.integers(1,8)), min_size=1, max_size=40)

@settings(max_examples=80, deadline=None)
@given(pairs, pairs, st.one_of(st.none(), pairs), st.integers(1,9), st.booleans(), st.booleans())
def test_any_lists_are_those_of_a_plain_loop(lists, test, train, k, exclude_seen, texts):
    lists = list(dict.fromkeys(lists))
    if not {u for u,_ in lists} & {u for u,_ in test+(train or [])}: return
    df,want = frame(lists),{}
    for u,i in lists: want.setdefault(u, []).append(i)
    want = by_hand(want, set(test), None if train is None else set(train), k, exclude_seen)
    parts = [df,frame(test),None if train is None else frame(train)]
    if texts: parts = [o if o is None else o.astype({'item_id': str}) for o in parts]
    ev = evaluate_lists(*parts, k=k, metrics=['ndcg','recall'], exclude_seen=exclude_seen)
    assert ev.per_user.user_id.tolist()==list(want)
    np.testing.assert_allclose(ev.per_user[[f'ndcg@{k}',f'recall@{k}']].to_numpy(float).reshape(-1,2), np.array(list(want.values())).reshape(-1,2))

# the order of a list

@pytest.mark.parametrize('column,values', [('rank',[2,1,4,3,1]), ('rank',[20,10,9,3,1.5]), ('score',[.1,.2,-9,4,0]), ('rank',['2','1','4','3','1'])])
def test_rank_or_score_is_the_order(column, values):
    ev = evaluate_lists(LISTS.assign(**{column: values}), TEST, k=1)
    assert ev.per_user.set_index('user_id')['hit@1'].to_dict()=={'a': 0, 'b': 1, 'c': 1, 'd': 0}

def test_rank_comes_before_score_and_rows_come_last():
    assert evaluate_lists(LISTS.assign(rank=[1,2,2,1,1], score=[1,2,2,1,1]), TEST, k=1)['hit@1']==.75
    assert evaluate_lists(LISTS.assign(score=1.), TEST, k=1)['hit@1']==evaluate_lists(LISTS, TEST, k=1)['hit@1']==.5

def test_rows_of_several_users_may_be_mixed():
    mixed = LISTS.iloc[[4,2,0,3,1]]
    assert evaluate_lists(mixed, TEST, k=2).summary==evaluate_lists(LISTS, TEST, k=2).summary

@pytest.mark.parametrize('bad', [np.nan, 'first', None])
def test_an_order_that_is_none(bad):
    with pytest.raises(RatingsError, match='that is no number'): evaluate_lists(LISTS.assign(rank=[1,2,3,bad,1]), TEST)

def test_repeats_are_refused():
    with pytest.raises(RatingsError, match="2 rows of the lists repeat an item.*item 'x' of user 'a'"): evaluate_lists(pd.concat([LISTS,LISTS[:2]]), TEST)

def test_columns_that_are_missing_or_empty():
    with pytest.raises(RatingsError, match='expected'): evaluate_lists(LISTS.rename(columns={'item_id': 'thing'}), TEST)
    with pytest.raises(RatingsError): evaluate_lists(LISTS.assign(user_id=[None,*'abcd']), TEST)
    with pytest.raises(RatingsError): evaluate_lists([1,2], TEST)
    with pytest.raises(RatingsError, match='no test rows'): evaluate_lists(LISTS, TEST[:0])

def test_ids_of_another_type():
    numbers = frame([(1,1),(2,2)])
    with pytest.raises(UnknownIdError, match='of type int'): evaluate_lists(numbers.astype(str), numbers)
    with pytest.raises(UnknownIdError, match='of type int'): evaluate_lists(numbers.astype({'item_id': str}), numbers)
    assert evaluate_lists(numbers.assign(item_id=[7,8]), numbers)['hit@10']==0. # items of its own kind that nobody wanted

# beside a model

@pytest.fixture(scope='module')
def learn():
    learn = collab_learner(CollabDataLoaders.from_df(synth_ratings(), seed=1, bs=64), 5, y_range=(0,5.5), seed=0)
    with learn.quiet(): learn.fit(2, 1e-2)
    return learn

def parts(learn): return [learn.dls.interactions(o) for o in ('valid','train')]

@pytest.mark.parametrize('as_frames', [True,False])
@pytest.mark.parametrize('exclude_seen', [True,False])
@pytest.mark.parametrize('relevant', [None,4])
def test_the_lists_of_a_model_are_worth_what_its_evaluation_says(learn, as_frames, exclude_seen, relevant):
    test,train = (o.frame() if as_frames else o for o in parts(learn))
    lists = learn.recommend(exclude_seen=False, k=999).sample(frac=1, random_state=0)
    ev = evaluate_lists(lists, test, train, k=(3,10), relevant=relevant, exclude_seen=exclude_seen)
    want = learn.evaluate(k=(3,10), relevant=relevant, exclude_seen=exclude_seen)
    assert {k: v for k,v in want.summary.items() if '@' in k}==pytest.approx(ev.summary)
    assert want.baseline.summary==pytest.approx(ev.baseline.summary)
    assert ev.per_user.user_id.tolist()==want.per_user.user_id.tolist() and ev.per_user.n_test.tolist()==want.per_user.n_test.tolist()

def test_groups(learn):
    test,train = parts(learn)
    lists = learn.recommend(exclude_seen=False, k=99)
    for by in ('user','item'):
        got = evaluate_lists(lists, test, train, by=by).by
        pd.testing.assert_frame_equal(got, learn.evaluate(k=10, by=by).by[got.columns])

def test_an_item_that_was_never_trained_can_be_found():
    train,test = frame([('a','x'),('b','x'),('b','y')]),frame([('a','new'),('b','new')])
    ev = evaluate_lists(frame([('a','new'),('b','x')]), test, train, k=1)
    assert ev['hit@1']==.5 and ev.counts['cold_item_rows']==2

def test_a_user_who_was_never_trained_is_skipped_and_counted():
    ev = evaluate_lists(frame([('a','y'),('n','y')]), frame([('a','y'),('n','y')]), frame([('a','x'),('b','y')]))
    assert ev.per_user.user_id.tolist()==['a'] and 'users never trained are skipped (1)' in ev.protocol

def test_what_lists_do_not_tell():
    with pytest.raises(ValueError, match="'auc' needs more than lists.*learn.evaluate"): evaluate_lists(LISTS, TEST, TEST, metrics=['auc'])
    with pytest.raises(ValueError, match="'novelty' needs more than lists.*pass train="): evaluate_lists(LISTS, TEST, metrics=['novelty'])
    with pytest.raises(ValueError, match="'rmse'"): evaluate_lists(LISTS, TEST, TEST, metrics='rmse')
    assert 'novelty@10' in evaluate_lists(LISTS, TEST, LISTS.assign(item_id=list('vwvwv'))).summary

def test_nothing_given_is_changed():
    given = LISTS.assign(rank=[2,1,2,1,1]),TEST.copy(),TEST.assign(item_id=list('vwvwv'))
    copies = [o.copy() for o in given]
    evaluate_lists(*given)
    for a,b in zip(given, copies): pd.testing.assert_frame_equal(a, b)

def test_columns_of_training_come_first():
    learn = collab_learner(CollabDataLoaders.from_df(synth_ratings().rename(columns={'user_id': 'who', 'item_id': 'film'}), user_name='who',
        item_name='film', seed=1, bs=64), arch=Popularity)
    with learn.quiet(): learn.fit(1)
    lists = learn.recommend(exclude_seen=False, k=99)
    test,train = parts(learn)
    own = evaluate_lists(lists.rename(columns={'user_id': 'who', 'item_id': 'film'}), test, train)
    assert own.summary==evaluate_lists(lists, test, train).summary and own['ndcg@10']==pytest.approx(own.baseline['ndcg@10'])

def test_a_list_backwards_is_another_list(learn):
    ease = collab_learner(learn.dls, arch=EASE)
    with ease.quiet(): ease.fit(1)
    test,train = parts(learn)
    lists = ease.recommend(k=99, exclude_seen=False)
    a,b = (evaluate_lists(lists.assign(rank=lists['rank']*o), test, train)['ndcg@10'] for o in (1,-1))
    assert a==pytest.approx(ease.evaluate(k=10)['ndcg@10'])!=b

@pytest.mark.parametrize('kind', ['polars','pyarrow'])
def test_frames_of_other_kinds(kind):
    if kind=='polars':
        pl = pytest.importorskip('polars')
        other = pl.from_pandas
    else:
        pa = pytest.importorskip('pyarrow')
        other = pa.Table.from_pandas
    want = evaluate_lists(LISTS, TEST, TEST.assign(item_id=list('vwvwv')))
    got = evaluate_lists(other(LISTS), other(TEST), other(TEST.assign(item_id=list('vwvwv'))))
    assert got.summary==want.summary and got.per_user.user_id.tolist()==want.per_user.user_id.tolist()
    c = compare({'mine': other(LISTS), 'half': other(LISTS[:3])}, TEST)
    assert c['mine']['mean']==pytest.approx(evaluate_lists(LISTS, TEST)['ndcg@10'])

# rows that say that nothing happened, and rows that weigh

def labelled(low, seed=0):
    rng = np.random.default_rng(seed)
    test = pd.DataFrame([(u,i,(u+i)%2) for u in range(40) for i in rng.permutation(30)[:6]], columns=['user_id','item_id','rating'])
    lists = frame((u,i) for u in range(40) for i in rng.permutation(30)[:10])
    return test.assign(rating=test.rating.where(test.rating>0, low)),lists

@pytest.mark.parametrize('low', [0,-1,0.,False])
@pytest.mark.parametrize('train', [None,'clicks','labels'])
def test_a_label_of_no_is_nothing_to_be_found(low, train):
    test,lists = labelled(low)
    train = None if train is None else frame([(u,40+u%3) for u in range(40)], **({} if train=='clicks' else dict(rating=[u%2 for u in range(40)])))
    with pytest.warns(UserWarning, match='rated 0 or below'): ev = evaluate_lists(lists, test, train, k=5)
    yes = evaluate_lists(lists, test[test.rating==1], train, k=5)
    pd.testing.assert_frame_equal(ev.per_user, yes.per_user)
    assert 'every test row above 0 relevant' in ev.protocol and ev.counts['unliked_rows']==(test.rating<=0).sum()

@pytest.mark.parametrize('low', [0,-1])
def test_labels_that_are_all_no_leave_nobody_to_measure(low):
    test,lists = labelled(low)
    with pytest.warns(UserWarning, match='rated 0 or below'): ev = evaluate_lists(lists, test.assign(rating=low), k=5)
    assert np.isnan(ev['ndcg@5']) and len(ev.per_user)==0

@pytest.mark.parametrize('values', [(1,5),(-10.,10.),(0,.5,1),(-1,0,1,2)])
def test_ratings_on_a_scale_are_all_to_be_found(values, recwarn):
    test,lists = labelled(0)
    test['rating'] = [values[j%len(values)] for j in range(len(test))]
    assert evaluate_lists(lists, test, k=5)['ndcg@5']==evaluate_lists(lists, test.drop(columns='rating'), k=5)['ndcg@5']

def of_events(**how):
    rng = np.random.default_rng(0)
    df = pd.DataFrame(dict(user_id=rng.integers(0,40,1100), item_id=rng.integers(0,60,1100), kind=rng.choice(['view','buy'],1100), w=rng.choice([0,1,20.],1100)))
    test = frame((u,(u*7+j)%60) for u in range(40) for j in range(5))
    learn = collab_learner(CollabDataLoaders.implicit_from_df(df, seed=1, n_neg=0, bs=64, valid_pct=0, event_name='kind', **how), arch=EASE)
    with learn.quiet(): learn.fit(1)
    return learn,test

@pytest.mark.parametrize('how', [dict(weight_name='w'), dict(event_weights={'view': 1, 'buy': 8}), dict(weight_name='w', duplicates='sum'), {}])
@pytest.mark.parametrize('exclude_seen', [True,False,{'buy'},{'view','buy'}])
def test_lists_are_measured_on_training_rows_as_they_weigh(how, exclude_seen):
    learn,test = of_events(**how)
    lists = learn.recommend(list(range(40)), k=60, exclude_seen=exclude_seen)
    of = learn.evaluate(test, k=10, exclude_seen=exclude_seen)
    ev = evaluate_lists(lists, test, learn.dls.interactions('train'), k=10, exclude_seen=exclude_seen)
    for name in ('ndcg@10','novelty@10'): assert ev[name]==pytest.approx(of[name])
    assert ev.baseline['ndcg@10']==pytest.approx(of.baseline['ndcg@10'])
    both = compare({'model': learn, 'lists': lists}, test, k=10, exclude_seen=exclude_seen)
    assert both.table['mean'].nunique()==1
