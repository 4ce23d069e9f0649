"After scoring: variety, balance and blends, against slow versions and by hand"
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st

from helpers import fit_one_cycle
from recfast.core import RatingsError, UnknownIdError
from recfast.data.loaders import CollabDataLoaders
from recfast.learner import collab_learner
from recfast.rerank import Lists, blend, calibrate, miscalibration, mmr
from recfast.testing import block_ratings

COLS = ['user_id','item_id','score','rank']

def listed(scores, user=1, items=None): # falling scores
    ids = list(items or 'ABCDEFGHIJ'[:len(scores)])
    return pd.DataFrame(dict(user_id=user, item_id=ids, score=np.array(scores, float), rank=range(1, len(scores)+1)))

def some_lists(seed, n_users=5, n_items=12, longest=9):
    "Lists of different lengths, with ties"
    rs,parts = np.random.RandomState(seed),[]
    for u in rs.permutation(n_users):
        n = rs.randint(1, longest+1)
        parts.append(listed(np.sort(rs.randint(0, 6, n))[::-1], u, rs.permutation(n_items)[:n].tolist()))
    return pd.concat(parts, ignore_index=True)

def places(df): return {u: g.item_id.tolist() for u,g in df.groupby('user_id', sort=False)}

def relevance(g):
    s = g.score.to_numpy()
    return (s-s.min())/(s.max()-s.min() or 1)

def slow(recs, k, worth):
    "One user and one candidate at a time; `worth(user, item, relevance, chosen items)`"
    out = {}
    for u,g in recs.groupby('user_id', sort=False):
        left,chosen = dict(zip(g.item_id, relevance(g))),[]
        while left and len(chosen)<k:
            best = max(left, key=lambda i: round(worth(u, i, left[i], chosen), 10)) # max takes the first of equals
            chosen.append(best)
            del left[best]
        out[u] = chosen
    return out

VECS = pd.DataFrame(np.random.RandomState(0).randn(12,3), index=range(12))
FLAGS = pd.DataFrame(np.random.RandomState(1).rand(12,4)<.4, index=range(12)).astype(int)
cos = lambda a,b: a@b/np.linalg.norm(a)/np.linalg.norm(b)


class TestMMR:
    five,two = listed([5,4.5,4,2.5,0]),pd.DataFrame([[1,0],[1,0],[2,0],[0,1],[0,3]], index=list('ABCDE'))

    @pytest.mark.parametrize('diversity,want', [(0,'ABCDE'), (.2,'ABCDE'), (.5,'ADBCE'), (1,'ADBCE')])
    def test_five_films_by_hand(self, diversity, want):
        # .2: B .72-.2, C .64-.2, D .4: B; then C .64-.2=.44 above D .4.  .5: B .45-.5, D .25: D; then B -.05, C -.1, E -.5
        assert ''.join(mmr(self.five, self.two, k=5, diversity=diversity).item_id)==want

    @settings(max_examples=40, deadline=None)
    @given(seed=st.integers(0,9999), k=st.integers(1,10), diversity=st.sampled_from([0,.1,.3,.5,.9,1]))
    def test_as_one_by_one(self, seed, k, diversity):
        recs,v = some_lists(seed),VECS.to_numpy()
        def worth(u, i, rel, chosen): return (1-diversity)*rel - diversity*max((cos(v[i],v[j]) for j in chosen), default=0)
        assert places(mmr(recs, VECS, k, diversity))==slow(recs, k, worth)

    @settings(max_examples=20, deadline=None)
    @given(seed=st.integers(0,9999), diversity=st.floats(0,1))
    def test_the_same_items_and_scores_in_another_order(self, seed, diversity):
        recs = some_lists(seed)
        df = mmr(recs, VECS, 99, diversity)
        assert list(df)==COLS and df.user_id.tolist()==recs.user_id.tolist() and df['rank'].tolist()==recs['rank'].tolist()
        assert df.merge(recs, on=['user_id','item_id','score']).shape[0]==len(recs)
        assert df[df['rank']==1].item_id.tolist()==recs[recs['rank']==1].item_id.tolist() # the best stays, whatever lambda

    @settings(max_examples=20, deadline=None)
    @given(seed=st.integers(0,9999), k=st.integers(1,12))
    def test_no_diversity_is_the_list_as_it_was(self, seed, k):
        recs = some_lists(seed)
        assert mmr(recs, VECS, k, 0).equals(recs[recs['rank']<=k].reset_index(drop=True))

    def test_equal_scores_and_equal_vectors_keep_the_order(self):
        recs = listed([2,2,2,2])
        for d in (0,.3,1): assert mmr(recs, self.two[:4]*0+1, 4, d).equals(recs)

    def test_an_item_of_no_direction_is_like_nothing(self):
        vecs = pd.DataFrame([[1.,0],[1,0],[0,0]], index=list('ABC'))
        assert mmr(listed([3,2,1]), vecs, 3, 1).item_id.tolist()==['A','C','B']

    def test_opposites_attract(self):
        vecs = pd.DataFrame([[1.,0],[0,1],[-1,0]], index=list('ABC'))
        assert mmr(listed([3,2,1]), vecs, 3, 1).item_id.tolist()==['A','C','B']

    def test_users_in_small_chunks(self):
        recs = some_lists(3, n_users=40)
        assert mmr(recs, VECS, 5, .5, memory=1).equals(mmr(recs, VECS, 5, .5))

    def test_rows_in_any_order_and_users_as_they_come(self):
        recs = some_lists(5)
        mixed = recs.sample(frac=1, random_state=0)
        assert places(mmr(mixed, VECS, 4, .5))=={u: places(mmr(recs, VECS, 4, .5))[u] for u in mixed.user_id.unique()}

    def test_nothing_given_is_changed(self):
        recs,vecs = some_lists(1),VECS.copy()
        before = recs.copy()
        mmr(recs, vecs, 3, .7)
        assert recs.equals(before) and vecs.equals(VECS)

    def test_no_lists(self): assert mmr(some_lists(0)[:0], VECS).shape==(0,4)

    @pytest.mark.parametrize('kw,match', [(dict(diversity=1.1), 'diversity=1.1, expected 0 to 1'), (dict(diversity=-.1), 'diversity'),
        (dict(k=0), 'k=0, expected 1')])
    def test_bad_arguments(self, kw, match):
        with pytest.raises(ValueError, match=match): mmr(self.five, self.two, **kw)

    def test_an_item_without_a_vector(self):
        with pytest.raises(UnknownIdError, match="unknown item ids: 'C', 'D', 'E'"): mmr(self.five, self.two[:2])

    def test_an_item_with_two_vectors(self):
        with pytest.raises(RatingsError, match="item 'A' stands there twice"): mmr(self.five, pd.concat([self.two,self.two]))

    def test_the_lists_and_vectors_of_a_learner(self):
        learn = collab_learner(CollabDataLoaders.from_df(block_ratings(), seed=1), n_factors=4, y_range=(0,5.5))
        fit_one_cycle(learn, 3, 5e-2)
        recs = learn.recommend([1,2,3], k=40, exclude_seen=False)
        df = mmr(recs, learn.item_factors(), k=4, diversity=.9)
        kinds = df.item_id.mod(2).groupby(df.user_id).nunique()
        assert len(df)==12 and (kinds==2).all() and (recs[recs['rank']<=4].item_id.mod(2).groupby(recs.user_id).nunique()==1).all()


class TestCalibrate:
    five = listed([5,4.5,4,2.5,0])
    kinds = pd.Series(dict(A='Comedy', B='Comedy', C='Drama', D='Comedy|Drama', E='Drama', x='Comedy', y='Drama'))
    past = pd.DataFrame(dict(user_id=1, item_id=['x','y']))

    @pytest.mark.parametrize('weight,k,want', [(0,5,'ABCDE'), (.2,3,'ACB'), (1,1,'D'), (1,3,'DAC')])
    def test_five_films_by_hand(self, weight, k, want):
        # p = (.5,.5); KL of one kind alone: .5 log(.5/.995)+.5 log(.5/.005) = 1.959; of 2:1: about .057; balanced: 0
        # .2: A .8-.39, B .72-.39, D .4-0: A by .01; then B .72-.39, C .64-0, D .4-.14: C; then B .72-.01
        # 1: D; then A and everything else 3:1; then after D, A (3:1): C makes it 2:2
        assert ''.join(calibrate(self.five, self.past, self.kinds, k, weight).item_id)==want

    @settings(max_examples=40, deadline=None)
    @given(seed=st.integers(0,9999), k=st.integers(1,10), weight=st.sampled_from([0,.1,.5,.9,1]), alpha=st.sampled_from([.01,.3]))
    def test_as_one_by_one(self, seed, k, weight, alpha):
        recs,x = some_lists(seed),FLAGS.to_numpy()/np.maximum(FLAGS.sum(axis=1).to_numpy(), 1)[:,None]
        past = some_lists(seed+1)[['user_id','item_id']].query('user_id!=2')
        def taste(u):
            p = x[past.item_id[past.user_id==u]].sum(0)
            return p/(p.sum() or 1)
        def worth(u, i, rel, chosen):
            p,q = taste(u),x[[*chosen,i]].sum(0)
            q = (1-alpha)*q/(q.sum() or 1)+alpha*p
            return (1-weight)*rel - weight*sum(a*np.log(a/b) for a,b in zip(p, q) if a>0)
        assert places(calibrate(recs, past, FLAGS, k, weight, alpha))==slow(recs, k, worth)

    @settings(max_examples=20, deadline=None)
    @given(seed=st.integers(0,9999), k=st.integers(1,12))
    def test_no_weight_is_the_list_as_it_was(self, seed, k):
        recs = some_lists(seed)
        assert calibrate(recs, recs, FLAGS, k, 0).equals(recs[recs['rank']<=k].reset_index(drop=True))

    def test_someone_without_a_history_keeps_the_order(self):
        assert calibrate(self.five, self.past.assign(user_id=9), self.kinds, 5, 1).equals(self.five)

    def test_columns_of_other_names_and_users_who_are_not_asked_for(self):
        past = pd.DataFrame(dict(who=[1,1,2], film=['x','y','not a film']))
        df = calibrate(self.five, past, self.kinds, 3, .2, user_name='who', item_name='film')
        assert ''.join(df.item_id)=='ACB'

    def test_texts_and_flags_are_the_same(self):
        flags = self.kinds.str.get_dummies()
        assert calibrate(self.five, self.past, flags, 3, .4).equals(calibrate(self.five, self.past, self.kinds, 3, .4))

    def test_an_item_of_no_category_counts_for_nothing(self):
        kinds = pd.Series(dict(A='', B='Comedy', x='Comedy'))
        df = calibrate(listed([2,1]), self.past[:1], kinds, 2, 1)
        assert df.item_id.tolist()==['B','A'] and miscalibration(df, self.past[:1], kinds).tolist()==pytest.approx([0], abs=1e-12)

    def test_users_in_small_chunks(self):
        recs = some_lists(3, n_users=40)
        assert calibrate(recs, recs, FLAGS, 5, .5, memory=1).equals(calibrate(recs, recs, FLAGS, 5, .5))

    def test_divergence_by_hand(self):
        three = self.five[:3] # comedy, comedy, drama against half and half
        q = .99*np.array([2/3,1/3])+.005
        assert miscalibration(three, self.past, self.kinds).to_dict()=={1: pytest.approx((.5*np.log(.5/q)).sum())}

    def test_more_weight_less_divergence(self):
        recs = pd.concat([some_lists(s).assign(user_id=lambda o: o.user_id+10*s) for s in range(20)], ignore_index=True)
        past = recs.assign(item_id=(recs.item_id*5)%12)
        err = [miscalibration(calibrate(recs, past, FLAGS, 3, w), past, FLAGS).mean() for w in (0,.3,.6,1)]
        assert (np.diff(err)<0).all()

    def test_no_lists(self): assert calibrate(self.five[:0], self.past, self.kinds).shape==(0,4)

    @pytest.mark.parametrize('kw,match', [(dict(weight=2), 'weight=2, expected 0 to 1'), (dict(alpha=0), 'alpha=0, expected above 0'),
        (dict(alpha=1), 'alpha=1'), (dict(k=0), 'k=0')])
    def test_bad_arguments(self, kw, match):
        with pytest.raises(ValueError, match=match): calibrate(self.five, self.past, self.kinds, **kw)

    def test_missing_columns_items_and_numbers(self):
        with pytest.raises(RatingsError, match="'title' missing: name yours by user_name=, item_name="):
            calibrate(self.five, self.past, self.kinds, item_name='title')
        with pytest.raises(UnknownIdError, match="unknown item id: 'y'"): calibrate(self.five, self.past, self.kinds.drop('y'))
        with pytest.raises(UnknownIdError, match="unknown item id: 'E'"): calibrate(self.five, self.past, self.kinds.drop('E'))
        with pytest.raises(RatingsError, match='missing or negative'): calibrate(self.five, self.past, -self.kinds.str.get_dummies())


class TestBlend:
    one,other = listed([9,8,1], 7, 'ABC'),listed([.9,.8], 7, 'CA')

    @pytest.mark.parametrize('how,want', [('rank',dict(A=3/4, C=2/3, B=1/3)), ('rrf',dict(A=(1/61+1/62)/2, C=(1/61+1/63)/2, B=1/62/2)),
        ('zscore',dict(A=((9-6)/(38/3)**.5-1)/2, C=((1-6)/(38/3)**.5+1)/2, B=((8-6)/(38/3)**.5-1)/2))])
    def test_two_lists_by_hand(self, how, want):
        # z-scores: 9, 8, 1 have the mean 6 and the variance (9+4+25)/3; of two, -1 and 1; B counts as the lowest of the other list
        df = blend([self.one,self.other], how=how)
        assert list(df)==COLS and dict(zip(df.item_id, df.score))==pytest.approx(want)
        assert df['rank'].tolist()==[1,2,3] and df.score.is_monotonic_decreasing

    @pytest.mark.parametrize('how', ['zscore','rank','rrf'])
    @settings(max_examples=20, deadline=None)
    @given(seed=st.integers(0,9999), k=st.integers(1,10))
    def test_one_list_alone_keeps_its_order(self, how, seed, k):
        recs = some_lists(seed)
        for df in (blend([recs], k=k, how=how),blend([recs,recs], [.3,.7], k, how)):
            if how!='zscore' or not recs.duplicated(['user_id','score']).any(): assert places(df)==places(recs[recs['rank']<=k])
            assert len(df)==(recs['rank']<=k).sum()

    def test_all_the_weight_on_one(self):
        assert ''.join(blend([self.one,self.other], [1,0]).item_id)=='ABC' and ''.join(blend([self.one,self.other], [0,1]).item_id)[0]=='C'

    def test_ties_go_by_the_first_list(self):
        a,b = listed([2,1], 7, 'AB'),listed([2,1], 7, 'BA')
        assert ''.join(blend([a,b], how='rank').item_id)=='AB' and ''.join(blend([b,a], how='rank').item_id)=='BA'

    def test_scale_and_origin_do_not_matter(self):
        recs,others = some_lists(1),some_lists(2)
        a,b = blend([recs,others]),blend([recs.assign(score=100*recs.score-7),others])
        assert a.item_id.equals(b.item_id) and np.allclose(a.score, b.score)

    def test_equal_scores_say_nothing(self):
        flat = listed([.1,.1,.1], 7, 'CBA')
        assert ''.join(blend([self.one,flat], [.5,.5]).item_id)=='ABC'

    def test_users_of_one_list_only(self):
        df = blend([self.one.assign(user_id=1),self.other.assign(user_id=2)], k=2, how='rank')
        assert places(df)=={1: ['A','B'], 2: ['C','A']}

    def test_rows_in_any_order(self):
        recs,others = some_lists(1),some_lists(2)
        mixed = blend([recs.sample(frac=1, random_state=0),others.sample(frac=1, random_state=1)], how='rank')
        assert places(mixed)=={u: places(blend([recs,others], how='rank'))[u] for u in mixed.user_id.unique()}

    def test_whole_number_scores(self):
        counts = self.one.astype({'score':int})
        assert blend([counts,self.other]).score.tolist()==blend([self.one,self.other]).score.tolist()

    @pytest.mark.parametrize('args,kw,err,match', [
        (([],), {}, TypeError, 'a list of frames'), ((listed([1]),), {}, TypeError, 'a list of frames'),
        (([listed([1])],[1,2]), {}, ValueError, '2 weights for 1 recommenders'), (([listed([1])],), dict(k=0), ValueError, 'k=0'),
        (([listed([1])],), dict(how='max'), ValueError, "how='max', expected one of")])
    def test_bad_arguments(self, args, kw, err, match):
        with pytest.raises(err, match=match): blend(*args, **kw)


@pytest.mark.parametrize('broken,match', [(lambda o: o.drop(columns='rank'), "'rank' missing"),
    (lambda o: o.assign(score=[1,np.nan]), 'missing ids, ranks or scores'), (lambda o: o.assign(score=[1,-np.inf]), 'missing ids'),
    (lambda o: o.assign(item_id='A'), 'user 1 has an item or a rank twice'), (lambda o: o.assign(rank=1), 'twice')])
@pytest.mark.parametrize('f', [lambda o: mmr(o, pd.DataFrame([[1],[2]], index=['A','B'])), lambda o: blend([o]),
    lambda o: calibrate(o, o, pd.Series(dict(A='x', B='y')))])
def test_frames_that_are_no_lists(f, broken, match):
    with pytest.raises(RatingsError, match=match): f(broken(listed([2,1])))

def test_relevance_is_scaled_by_list():
    lists = Lists(pd.concat([listed([30,20,10], 1),listed([5,5], 2)]))
    assert lists.relevance()[0].tolist()==[1,.5,0] and lists.relevance()[1].tolist()[:2]==[0,0]
