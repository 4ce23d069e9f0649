"Bootstrap intervals, of one evaluation and of the difference of two"
import warnings

import numpy as np
import pandas as pd
import pytest

from recfast.core import LeakageWarning, RatingsError
from recfast.data.loaders import CollabDataLoaders
from recfast.evaluate import Evaluation, compare
from recfast.evaluation import holm, sign_flip_p
from recfast.learner import collab_learner
from recfast.testing import synth_ratings


def made(vals, users=None, **more):
    "An evaluation with given values per user"
    df = pd.DataFrame({'user_id': np.arange(len(vals)) if users is None else users, 'n_test': 1, 'ndcg@10': np.asarray(vals, float), **more})
    return Evaluation({'ndcg@10': df['ndcg@10'].mean()}, df, 'by hand.')

RS = np.random.RandomState(0)
BASE = RS.rand(400)

def test_the_interval_of_a_mean_is_that_of_its_standard_error():
    low,high = made(BASE).interval('ndcg@10', n_boot=4000)
    se = BASE.std()/400**.5
    assert low==pytest.approx(BASE.mean()-1.96*se, abs=.1*se) and high==pytest.approx(BASE.mean()+1.96*se, abs=.1*se)

def test_a_wider_level_is_a_wider_interval():
    narrow,wide = (made(BASE).interval('ndcg@10', level=o) for o in (.5,.99))
    assert wide[0]<narrow[0]<narrow[1]<wide[1]

def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    inside = 0
    for s in range(200):
        low,high = made(np.random.RandomState(s).rand(100)).interval('ndcg@10', n_boot=300)
        inside += low<.5<high
    assert 180<=inside<=198  # 190 expected

def test_a_small_difference_that_every_user_shows_is_certain():
    c = compare({'one': made(BASE), 'other': made(BASE+.01)})
    assert list(c.table.index)==['other','one'] and c['one'].diff_low==pytest.approx(-.01)==c['one'].diff_high
    assert c['one'].high>c['other'].low  # though the intervals themselves overlap

def test_a_difference_that_is_noise_is_not():
    c = compare({'one': made(BASE), 'other': made(RS.permutation(BASE)+.001)})
    assert c['one'].diff_low<0<c['one'].diff_high

def test_draws_are_those_of_a_plain_bootstrap():
    other,rng = BASE**2,np.random.default_rng(7)
    means = np.array([(other-BASE)[rng.integers(0, 400, 400)].mean() for _ in range(500)])
    got = compare({'a': made(BASE), 'b': made(other)}, n_boot=500, seed=7)['b']
    assert [got.diff_low,got.diff_high]==pytest.approx(np.quantile(means, [.025,.975]))

def test_memory_is_bounded_and_changes_nothing():
    from recfast.evaluation import boot_means as _boot_means
    vals = np.random.RandomState(0).rand(2**21,1)  # two draws fit into a chunk
    rng = np.random.default_rng(0)
    assert _boot_means(vals, 3, 0)[:,0]==pytest.approx([vals[rng.integers(0, 2**21, 2**21),0].mean() for _ in range(3)])

def test_differences_to_a_chosen_base():
    c = compare({'a': made(BASE), 'b': made(BASE+.1), 'c': made(BASE-.1)}, base='a')
    assert list(c.table.index)==['a','b','c'] and c['b']['diff']==pytest.approx(.1) and c['a']['diff']==0
    with pytest.raises(RatingsError, match='expected one of'): compare({'a': made(BASE)}, base='x')

def test_other_users_are_an_error():
    with pytest.raises(RatingsError, match="'b' was measured on other users"): compare({'a': made(BASE), 'b': made(BASE, users=np.arange(400)[::-1])})
    with pytest.raises(RatingsError, match='other users'): compare({'a': made(BASE), 'b': made(BASE[:300])})

def test_a_metric_that_users_do_not_have():
    with pytest.raises(RatingsError, match="there are 'ndcg@10'"): compare({'a': made(BASE)}, metric='recall@10')
    with pytest.raises(ValueError, match='did you mean'): compare({'a': made(BASE)}, metric='ndgc@10')

def test_nothing_to_compare():
    with pytest.raises(RatingsError, match='nothing to compare'): compare([])

def test_users_without_a_value_are_left_out_of_all():
    some = np.where(np.arange(400)<200, BASE, np.nan)
    c = compare({'a': made(some), 'b': made(BASE)})
    assert c['b']['mean']==pytest.approx(BASE[:200].mean()) and c['a']['diff']==0

def learners(n, **kw):
    dls = CollabDataLoaders.from_df(synth_ratings(), seed=1, **kw)
    return [collab_learner(dls, n_factors=2, seed=s) for s in range(n)]

def test_learners_are_measured_and_named_by_their_models():
    a,b = learners(2)
    with pytest.warns(LeakageWarning) as w: c = compare([a,b], k=5, metric='recall@3')
    assert set(c.table.index)=={'DotProductBias','DotProductBias 2'} and [o.category for o in w].count(LeakageWarning)==1 and w[-1].filename==__file__
    assert c['DotProductBias']['mean']==pytest.approx(c.evaluations['DotProductBias']['recall@3']) and 'recall@5' in c.evaluations['DotProductBias'].summary

def test_learners_on_a_test_frame_under_a_protocol():
    df = synth_ratings()
    test = df[df.index%7==0].drop(columns='timestamp', errors='ignore')
    c = compare(dict(zip('ab', learners(2, splits=(df.index[df.index%7>0],[])))), test, metric='auc', candidates={'sampled': 9})
    assert 'SAMPLED' in c.protocol and c.protocol.count('test rows')==1 and 0<c['a']['mean']<1

def test_evaluations_that_are_there_already_do_not_warn_again():
    with warnings.catch_warnings():
        warnings.simplefilter('ignore'); evs = {i: o.evaluate(k=10) for i,o in enumerate(learners(2))}
    with warnings.catch_warnings(): warnings.simplefilter('error'); compare(evs)

def test_it_prints_its_protocol_and_plots():
    c = compare({'one': made(BASE), 'other': made(BASE+.01)})
    assert str(c).startswith('ndcg@10') and str(c).endswith('by hand.') and '| other |' in c._repr_markdown_()
    ax = c.plot()
    assert [o.get_text() for o in ax.get_yticklabels()]==['one','other'] and 'ndcg@10' in ax.get_xlabel()

def test_nobody_has_anything_to_find():
    learn = collab_learner(CollabDataLoaders.from_df(synth_ratings(), seed=1), n_factors=3)
    with pytest.raises(RatingsError, match='no user has a value of ndcg@10'): compare([learn], relevant=99)

def test_one_learner_is_a_list_of_one():
    learn = collab_learner(CollabDataLoaders.from_df(synth_ratings(), seed=1), n_factors=3)
    assert list(compare(learn).table.index)==['DotProductBias']


# seeds

def seeds_of(n=3, shift=0., spread=.02):
    return [made((BASE+shift+spread*np.random.RandomState(s).randn(400)).clip(0, 2)) for s in range(n)]

def test_several_seeds_of_one_model():
    many = seeds_of()
    c = compare({'m': many, 'one': made(BASE-.05)})
    means = [o['ndcg@10'] for o in many]
    assert c['m']['mean']==pytest.approx(np.mean(means)) and c['m'].sd==pytest.approx(np.std(means, ddof=1)) and c['m'].seeds==3
    assert np.isnan(c['one'].sd) and c['one'].seeds==1 and c.evaluations['m']==many
    of_users = np.mean([o.per_user['ndcg@10'] for o in many], 0)
    want = compare({'m': made(of_users), 'one': made(BASE-.05)})
    pd.testing.assert_frame_equal(c.table[want.table.columns], want.table)
    assert 'sd' not in want.table

def test_learners_of_several_seeds_are_measured():
    a,b,c = learners(3)
    found = compare({'two': [a,b], 'third': c}, k=5, metric='recall@5')
    want = [o.evaluate(k=5)['recall@5'] for o in (a,b)]
    assert found['two']['mean']==pytest.approx(np.mean(want)) and found['two'].sd==pytest.approx(np.std(want, ddof=1))
    assert list(compare([[a,b],c], k=5, metric='recall@5').evaluations)==['DotProductBias','DotProductBias 2']

def test_one_seed_on_other_users_is_an_error():
    with pytest.raises(RatingsError, match="'m' was measured on other users"): compare({'m': [made(BASE),made(BASE[:300])]})


# p

def plain_p(diff, n=10_000, seed=1):
    rng,seen,beyond = np.random.RandomState(seed),abs(diff.mean()),1
    for _ in range(n): beyond += abs((diff*rng.choice([-1,1], len(diff))).mean())>=seen-1e-12
    return beyond/(n+1)

def exact_p(diff):
    signs = 1-2*((np.arange(2**len(diff))[:,None]>>np.arange(len(diff)))&1)
    return (np.abs(signs@diff)>=abs(diff.sum())-1e-12).mean()

@pytest.mark.parametrize('shift', [0,.004,.01,.1])
def test_p_is_that_of_a_plain_loop(shift):
    diff = shift+.1*np.random.RandomState(5).randn(200)
    c = compare({'a': made(np.ones(200)), 'b': made(np.ones(200)-diff)}, base='a')
    p = plain_p(diff)
    assert c['b'].p==pytest.approx(p, abs=4*(p*(1-p)/5000)**.5+2e-4) and np.isnan(c['a'].p)

@pytest.mark.parametrize('seed', range(5))
def test_p_of_few_users_is_that_of_all_signs(seed):
    diff = np.random.RandomState(seed).randint(-3, 6, (9,2))/10
    got = sign_flip_p(diff)
    for j in range(2): assert got[j]==pytest.approx(exact_p(diff[:,j]), abs=.02)

def test_p_of_models_that_are_the_same_is_one():
    assert compare({'a': made(BASE), 'b': made(BASE.copy())})['b'].p==1. and sign_flip_p(np.zeros((5,1)))[0]==1.

def test_p_does_not_depend_on_who_else_is_compared_and_is_drawn_in_chunks():
    many = np.random.RandomState(0).randn(2**19, 2)*.1+.0002
    assert sign_flip_p(many, n=30)[0]==sign_flip_p(many[:,:1], n=30)[0]

def test_p_under_no_difference_is_uniform():
    p = [sign_flip_p(np.random.RandomState(s).randn(40,1), n=400, seed=s)[0] for s in range(300)]
    assert np.mean(np.array(p)<.05)==pytest.approx(.05, abs=.04) and np.mean(p)==pytest.approx(.5, abs=.06)

def test_holm_by_hand():
    assert holm([.01,.04,.03,.005]).tolist()==pytest.approx([.03,.06,.06,.02])
    assert holm([.6,.9]).tolist()==[1.,1.] and holm([]).tolist()==[] and holm([.5]).tolist()==[.5]

def test_holm_is_over_the_models_and_not_over_popularity():
    a,b,c = learners(3)
    t = compare(dict(zip('abc', (a,b,c))), k=5, metric='recall@5')
    own = t.table.iloc[1:]
    assert own.p_holm.tolist()==pytest.approx(holm(own.p).tolist()) and t.popularity.p_holm.iloc[0]==t.popularity.p.iloc[0]


# lists from elsewhere

def test_frames_stand_beside_learners():
    a,_ = learners(2)
    lists = a.recommend(exclude_seen=False, k=99)
    c = compare({'learner': a, 'its lists': lists, 'backwards': lists.assign(rank=-lists['rank'])}, k=5)
    assert c['its lists']['mean']==pytest.approx(c['learner']['mean']) and c['backwards']['mean']!=c['learner']['mean']
    assert compare({'its lists': lists, 'learner': a}, k=5)['its lists']['mean']==pytest.approx(c['learner']['mean'])

def test_a_user_without_a_list_counts_nothing_in_a_comparison():
    a,_ = learners(2)
    lists = a.recommend(exclude_seen=False, k=99)
    some = lists[lists.user_id!=a.evaluate(k=10).per_user.user_id[0]]
    assert (compare({'a': a, 'some': some}).evaluations['some'].per_user['ndcg@10'][0]==0).all()

def test_frames_alone_need_rows():
    test = pd.DataFrame(dict(user_id=[1,1,2], item_id=[5,6,5]))
    mine,yours = test[:1],test[:2]
    with pytest.raises(RatingsError, match='pass test='): compare({'mine': mine})
    c = compare({'mine': mine, 'yours': yours}, test)
    assert list(c.table.index)==['yours','mine'] and c.popularity is None
    c = compare({'mine': mine, 'yours': yours}, test, train=pd.DataFrame(dict(user_id=[1,2], item_id=[7,7])))
    assert c.popularity is not None

def test_what_cannot_be_compared():
    with pytest.raises(RatingsError, match='a str cannot be compared'): compare({'a': 'EASE'})
    with pytest.raises(RatingsError, match='nothing to compare'): compare({'a': []})


# groups

def test_groups_stand_side_by_side():
    a,b,c = learners(3)
    found = compare({'ab': [a,b], 'c': c}, k=5, metric='recall@5', by='user')
    evs = [o.evaluate(k=5, by='user') for o in (a,b,c)]
    assert found.by.columns.tolist()==['group','n_users','n_rows','ab','c','popularity'] and found.by.group.tolist()==evs[0].by.group.tolist()
    assert found.by.ab.tolist()==pytest.approx(((evs[0].by['recall@5']+evs[1].by['recall@5'])/2).tolist())
    assert found.by.c.tolist()==pytest.approx(evs[2].by['recall@5'].tolist()) and found.by.popularity.tolist()==pytest.approx(evs[0].baseline.by['recall@5'].tolist())
    assert found.by.group[0] in str(found) and f'| {found.by.group[0]} |' in found._repr_markdown_()
    assert compare({'c': c}).by is None

def test_a_metric_without_a_value_by_group():
    with pytest.raises(RatingsError, match='no value by group'): compare(learners(1), k=5, metric='novelty@5', by='item')


# on paper

NASTY = {'A & B_1 50%': made(BASE), 'best {x} $y$ ~^\\': made(BASE+.01)}

def test_latex():
    text = compare(NASTY).to_latex(digits=3)
    assert text.startswith(r'\begin{tabular}{lrlrr}') and text.endswith('\\end{tabular}\n') and r'\textbf{best \{x\} \$y\$ \textasciitilde{}\textasciicircum{}\textbackslash{}}' in text
    assert r'A \& B\_1 50\%' in text and all(o.count(' & ')==4 for o in text.splitlines() if o.endswith(r'\\'))
    c = compare({'m': seeds_of(), 'x': made(BASE-.2)}, base='x')
    assert r'\textbf{m} & \textbf{' in c.to_latex() and rf"$\pm$ {c['m'].sd:.4f}" in c.to_latex()

def test_csv_has_every_figure_under_its_name(tmp_path):
    c = compare(NASTY)
    assert c.to_csv(tmp_path/'c.csv') is None
    got = pd.read_csv(tmp_path/'c.csv', index_col='model')
    pd.testing.assert_frame_equal(got, c.table, check_names=False)
    assert (tmp_path/'c.csv').read_text(encoding='utf-8')==c.to_csv()

def test_save_goes_by_the_ending(tmp_path):
    c = compare(NASTY)
    for end in ('csv','tex','md','png','svg','pdf','PNG'): assert c.save(tmp_path/f'c.{end}').stat().st_size>100
    assert (tmp_path/'c.tex').read_text(encoding='utf-8')==c.to_latex() and 'A & B_1' in (tmp_path/'c.md').read_text(encoding='utf-8')
    with pytest.raises(ValueError, match='xlsx: expected a name that ends in'): c.save(tmp_path/'c.xlsx')

@pytest.mark.parametrize('names', [['a','b'], ['ItemKNN','Popularity over the last thirty days, by region'], ['x'*90,'y']])
def test_a_saved_picture_keeps_every_name(tmp_path, names):
    c = compare({n: made(BASE+.01*j) for j,n in enumerate(names)})
    ax = c.plot()
    ax.figure.savefig(tmp_path/'c.png')
    box = ax.figure.bbox
    for o in (*ax.get_yticklabels(),ax.xaxis.label):
        b = o.get_window_extent()
        assert b.x0>=box.x0 and b.x1<=box.x1 and b.y0>=box.y0 and b.y1<=box.y1
    assert ax.get_window_extent().width>.2*box.width

# groups with intervals

def grouped(vals, groups, users=None):
    "An evaluation whose users are in groups"
    ev = made(vals, users)
    ev.of_groups = {g: ev.per_user[groups==g].reset_index(drop=True) for g in sorted(set(groups))}
    rows = [dict(group=g, n_users=len(o), n_rows=len(o), **{'ndcg@10': o['ndcg@10'].mean()}) for g,o in ev.of_groups.items()]
    ev.by = pd.DataFrame(rows)
    return ev

def test_each_group_is_compared_as_everybody_is():
    groups = np.where(np.arange(400)<100, 'few', 'many')
    noise = .05*np.random.RandomState(1).randn(400)
    evs = dict(a=BASE+.1, b=np.where(groups=='few', BASE+.2, BASE)+noise, c=BASE)
    found = compare({k: grouped(v, groups) for k,v in evs.items()})
    base = found.table.index[0]
    for g in ('few','many'):
        alone = compare({k: made(v[groups==g]) for k,v in evs.items()}, base=base)
        part = found.by_group.loc[g]
        pd.testing.assert_frame_equal(part.drop(columns='n_users'), alone.table, check_names=False)
        assert (part.n_users==(groups==g).sum()).all() and part.index[0]==base
    assert found.by_group.loc[('few','b'),'diff_low']>0>found.by_group.loc[('many','b'),'diff_high']
    assert 'p_holm: among the models of a group' in str(found) and 'ndcg@10 by group' in found._repr_markdown_()

def test_groups_of_learners_have_intervals_with_popularity_beside():
    a,b = learners(2)
    for by in ('user','item'):
        found = compare({'a': a, 'b': b}, k=5, metric='recall@5', by=by)
        means = found.by.set_index('group')
        for g in means.index:
            part = found.by_group.loc[g]
            assert list(part.index[:1])==[found.table.index[0]] and part.index[-1]=='popularity'
            assert part['mean'].to_dict()==pytest.approx(means.loc[g,['a','b','popularity']].to_dict())
            assert (part.low<=part['mean']).all() and (part['mean']<=part.high).all() and np.isnan(part.p.iloc[0])

def test_evaluations_without_values_per_group_have_means_only():
    ev = grouped(BASE, np.where(np.arange(400)<9, 'x', 'y'))
    ev.of_groups = None
    found = compare({'a': ev})
    assert found.by_group is None and found.by is not None and 'x' in str(found)
