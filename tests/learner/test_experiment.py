"An experiment from a page: equal budgets, one test, the same table after any interruption, lists of other programs under the same measurement"
import json
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from fastai.layers import Embedding
from fastai.torch_core import Module

from helpers import registry, taste_clicks  # noqa: F401
from recfast.core import ArgumentError, RatingsError, RecfastError, UnknownIdError
from recfast.experiment import Experiment, candidates, run_experiment
from recfast.experiment_runs import evaluation_of, train_entry
from recfast.experiment_settings import read_plan
from recfast.given_lists import evaluate_lists
from recfast.resampling import sign_flip_p
from recfast.tune import check_space

CLICKS = taste_clicks()
EASE = dict(arch='ease', space=dict(config=dict(l2=[5.,50.,500.])))
PEOPLE = pd.DataFrame(dict(user_id=np.arange(1, 201), club=['a','b','c','a']*50))
KNN = dict(arch='itemknn', space=dict(config=dict(n_neighbors=(3,40), shrink=(0.,9.))))

def page(data=CLICKS, **more):
    "A small experiment"
    models = {'ease': EASE, 'knn': KNN}
    return {'data': dict(path=data, users=PEOPLE), 'models': models, 'search': dict(trials=3), 'seeds': [0], 'split': dict(seed=1), **more}

def quiet_run(page, out=None, **kwargs):
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        return run_experiment(page, out, **kwargs)

@pytest.fixture(scope='module')
def found(): return quiet_run(page(evaluate=dict(metrics=['ndcg@10','recall@5','coverage@10']), seeds=[0,1]))

class Pairs(Module):
    "A hand-written model"
    def __init__(self, n_users, n_items, n_factors=4, y_range=None): self.u_weight,self.i_weight = Embedding(n_users, n_factors),Embedding(n_items, n_factors)
    def forward(self, x): return (self.u_weight(x[:,0])*self.i_weight(x[:,1])).sum(1, keepdim=True)

class Broken(Pairs):
    "One whose scores are no numbers"
    def forward(self, x): return super().forward(x)*float('nan')

def first_place(hits): return hits[:,0].astype(float)

# what is found

def test_models_that_can_know_are_above_popularity(found):
    t = found['ndcg@10'].table
    assert t.index[-1]=='popularity' and t['mean'].iloc[1]>1.3*t['mean'].iloc[2]>0 and found.trials.groupby('model').chosen.sum().eq(1).all()

def test_means_and_spread_are_those_of_the_runs(found):
    for model,runs in found.tests.items():
        values = [np.mean(o['per_user']['ndcg@10']) for o in runs]
        row = found.table.loc['ndcg@10',model]
        assert row['mean']==pytest.approx(np.mean(values)) and row.sd==pytest.approx(np.std(values, ddof=1)) and row.seeds==2
    whole = found.table.loc['coverage@10','ease']
    assert whole['mean']==found.tests['ease'][0]['summary']['coverage@10'] and np.isnan(whole.p)

def test_p_is_paired_by_person_and_corrected_by_holm(found):
    t = found['ndcg@10'].table
    each = {k: np.mean([o['per_user']['ndcg@10'] for o in runs], 0) for k,runs in found.tests.items()}
    p = sign_flip_p(np.stack([each[k]-each[t.index[0]] for k in t.index[1:]], 1))
    assert t.p.iloc[1:].to_numpy()==pytest.approx(p, abs=.01)
    by_hand,most = {},0
    for at,(name,value) in enumerate(sorted(t.p.dropna().items(), key=lambda o: o[1])): # Holm, 1979: the smallest p times m, the next times m-1 ...
        most = by_hand[name] = max(most, min(1, (len(t)-1-at)*value))
    assert t.p_holm.dropna().to_dict()==pytest.approx(by_hand)

def test_differences_are_taken_to_the_model_that_the_page_names():
    t = quiet_run(page(evaluate=dict(metrics=['ndcg@10'], base='popularity')))['ndcg@10'].table
    assert t.index[0]=='popularity' and t['diff'].iloc[1:].gt(0).all()

def test_the_winner_is_the_best_of_its_trials(found):
    for _,tried in found.trials.groupby('model'): assert tried.value[tried.chosen].item()==tried.value.max()

def test_everybody_gets_as_many_trials_and_a_small_grid_is_tried_whole(found):
    assert found.trials.model.value_counts().to_dict()=={'ease': 3, 'knn': 3, 'popularity': 1} and found.trials[found.trials.model=='ease'].settings.nunique()==3

def test_the_figures_are_those_of_the_learner_itself(found):
    exp = Experiment(page(evaluate=dict(metrics=['ndcg@10'])))
    chosen = found.tests['ease'][0]['key']['model']['settings']
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        ev = train_entry(exp.plan.models['ease'], chosen, exp.rows.train, 0).evaluate(exp.rows.test, metrics=['ndcg@10','recall@5'])
    assert found.tests['ease'][0]['summary']['ndcg@10']==pytest.approx(ev['ndcg@10']) and found.tests['ease'][0]['summary']['recall@5']==pytest.approx(ev['recall@5'])

def test_lists_and_metrics_of_a_run_say_the_same(found):
    run,rows = found.tests['ease'][0],found.rows
    lists = [(rows.users[u],rows.items[i],r+1) for u,mine in zip(run['per_user']['user'], run['lists']) for r,i in enumerate(mine)]
    ev = evaluate_lists(pd.DataFrame(lists, columns=['user_id','item_id','rank']), rows.test, rows.train, metrics=['ndcg@10'])
    assert ev['ndcg@10']==pytest.approx(run['summary']['ndcg@10'])

# choosing

def test_the_test_rows_choose_nothing():
    exp = Experiment(page())
    other = exp.rows.test.assign(item_id=np.random.RandomState(3).permutation(exp.rows.test.item_id.to_numpy()))
    a,b = (pd.concat([exp.rows.train.assign(held=False),o.assign(held=True)]).drop_duplicates(['user_id','item_id']) for o in (exp.rows.test,other))
    one,two = (quiet_run(page(o, split=dict(column='held', valid='user'))) for o in (a,b))
    pd.testing.assert_frame_equal(one.trials.drop(columns='seconds'), two.trials.drop(columns='seconds'))
    assert not one.table.equals(two.table)

@pytest.mark.parametrize('kind', ['user','random','last','time'])
def test_parts_share_no_row_and_follow_their_rule(kind):
    df = CLICKS.assign(timestamp=np.arange(len(CLICKS)))
    rows = Experiment(page(df, split=dict(test=kind))).rows
    pairs = [set(map(tuple, o[['user_id','item_id']].to_numpy())) for o in (rows.learn,rows.valid,rows.test)]
    assert sum(map(len, pairs))==len(df) and not pairs[0]&pairs[1] and not (pairs[0]|pairs[1])&pairs[2]
    if kind=='time': assert rows.learn.timestamp.max()<rows.valid.timestamp.min() and rows.train.timestamp.max()<rows.test.timestamp.min()
    if kind=='last': assert len(rows.test)==len(rows.valid)==df.user_id.nunique() and (rows.test.groupby('user_id').timestamp.min()>rows.train.groupby('user_id').timestamp.max()).all()
    if kind=='user': assert rows.test.user_id.value_counts().between(1, 3).all()

def test_a_budget_of_seconds_is_the_same_for_all_and_one_trial_always_runs():
    tried = quiet_run(page(search=dict(seconds=1e-6))).trials
    assert tried.model.value_counts().to_dict()=={'ease': 1, 'knn': 1, 'popularity': 1}
    tried = quiet_run(page(search=dict(seconds=.5), models={'knn': KNN})).trials.query("model=='knn'")
    assert len(tried)>1 and tried.seconds.iloc[:-1].sum()<.5

def test_draws_lie_in_their_space_and_do_not_repeat():
    space = {'lr': (1e-3,.1,'log'), 'n': (4,64,4), 'k': (1,1000,'log'), 'w': [.1,.2], 'x': (0.,1.,.25)}
    check_space(space)
    drawn = pd.DataFrame(candidates(space, 7, 'a', 200))
    assert len(drawn)==200 and not drawn.duplicated().any() and drawn.lr.between(1e-3, .1).all() and set(drawn.n)==set(range(4, 65, 4)) and set(drawn.x)=={0,.25,.5,.75,1}
    assert .3<(drawn.lr<.01).mean()<.7 and drawn.k.between(1, 1000).all() and .2<(drawn.k<32).mean()<.8
    assert drawn.equals(pd.DataFrame(candidates(space, 7, 'a', 200))) and len(list(candidates({'a': (1,4)}, 0, n=50)))==4
    assert list(candidates(space, 7, 'a', 5))==drawn.head(5).to_dict('records')

def test_a_lower_error_is_better():
    df = CLICKS.assign(rating=1+(CLICKS.item_id%5))
    dot = dict(arch='dotproductbias', n_factors=4, n_epoch=8, space=dict(lr=[1e-5,3e-2]))
    res = quiet_run(page(df, models={'dot': dot}, search=dict(metric='rmse', trials=2), seeds=[0], evaluate=dict(metrics=['rmse','ndcg@10'])))
    tried = res.trials.query("model=='dot'")
    assert tried.value[tried.chosen].item()==tried.value.min() and 0<res.table.loc['rmse','dot']['mean']<1.5

# models and metrics of one's own

def test_a_model_and_a_metric_of_ones_own():
    own = dict(arch=Pairs, loss='bpr', bs=64, n_epoch=4, lr=2e-2, space=dict(n_factors=[4,8]))
    made = dict(own, arch=lambda n_users, n_items, n_factors, y_range=None: Pairs(n_users, n_items, n_factors))
    res = quiet_run(page(models={'class': own, 'function': made}, evaluate=dict(metrics=[first_place,'ndcg@10']), seeds=[0,1]))
    assert res.leading=='first_place@10' and res.table.loc['ndcg@10'].loc[['class','function'],'sd'].gt(0).all()
    pd.testing.assert_series_equal(res.table.loc['ndcg@10','class'].iloc[:3], res.table.loc['ndcg@10','function'].iloc[:3], check_names=False)

def test_a_built_model_is_refused():
    with pytest.raises(ArgumentError, match=r'\[models.own\] arch: got a Pairs that is built'): Experiment(page(models={'own': dict(arch=Pairs(3, 3))}))

def test_a_trial_that_diverges_is_written_down_and_counts():
    res = quiet_run(page(models={'own': dict(arch=lambda n_users, n_items, n_factors, y_range=None, bad=0: (Broken if bad else Pairs)(n_users, n_items, n_factors),
        loss='bpr', bs=64, n_epoch=1, n_factors=4, space=dict(config=dict(bad=[1,0])))}, seeds=[0]))
    tried = res.trials.query("model=='own'")
    assert tried.chosen.tolist()==[False,True] and np.isnan(tried.value.iloc[0]) and 'NaN' in tried.error.iloc[0]

def test_a_model_of_which_no_trial_comes_to_a_value_is_an_error():
    with pytest.raises(RecfastError, match=r'\[models.own\]: none of 1 trials came to a value.*NaN'): quiet_run(page(models={'own': dict(arch=Broken, loss='bpr', bs=64, n_epoch=1)}))

TIMED = CLICKS.assign(timestamp=np.arange(len(CLICKS)))
KINDS = {'sequences': (dict(arch='twospeedridge'), TIMED, dict(split=dict(test='last'))), 'trained sequences': (dict(arch='sasrec', n_epoch=1), TIMED, dict(split=dict(test='last'))),
    'rows of clicks': (dict(arch='multvae', n_epoch=1), CLICKS, {}), 'rows': (dict(arch='autorec', n_epoch=1, n_factors=4), CLICKS.assign(rating=1+(CLICKS.item_id%5)), {}),
    'auto': (dict(arch='auto', budget=2), CLICKS, {}), 'softmax': (dict(arch='dotproduct', loss='softmax', by_user=True, bs=512, n_epoch=2), CLICKS, {})}

@pytest.mark.parametrize('kind', KINDS)
def test_models_of_every_kind_are_run(kind):
    model,df,more = KINDS[kind]
    row = quiet_run(page(df, models={'it': model}, **more)).table.loc['ndcg@10','it']
    assert 0<row['mean']<=1 and row.low<=row['mean']<=row.high

def test_rating_errors_are_of_models_that_score_ratings():
    df = CLICKS.assign(rating=1+(CLICKS.item_id%5))
    dot = dict(arch='dotproductbias', n_factors=4, n_epoch=2)
    res = quiet_run(page(df, models={'dot': dot, 'ease': dict(arch='ease')}, search=dict(metric='rmse', trials=2), evaluate=dict(metrics=['rmse','ndcg@10'])))
    mean = res.table.loc['rmse']['mean']
    assert mean['dot']>0 and mean[['ease','popularity']].isna().all() and res.table.loc['ndcg@10']['mean'].notna().all()
    with pytest.raises(RecfastError, match=r'\[models.ease\]: none of 3 trials came to a value; the last error: rmse has no value here'):
        quiet_run(page(df, models={'ease': EASE}, search=dict(metric='rmse', trials=3)))

# going on

def runs_in(folder): return sorted(o.name for o in (Path(folder)/'runs').iterdir())

def tables(folder): return {o.name: o.read_bytes() for o in Path(folder).iterdir() if o.suffix in ('.csv','.tex') and o.stem not in ('costs','trials')}

@pytest.mark.parametrize('after', [1,2,5])
def test_what_was_interrupted_goes_on_to_the_same_tables(tmp_path, after):
    groups = dict(groups=dict(user=['club'], item=['popularity']))
    quiet_run(page(**groups), tmp_path/'whole')
    exp,n = Experiment(page(**groups), tmp_path/'parts'),[]
    def stop(name, share):
        n.append(name)
        if len(n)>after: raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt): exp.run(stop)
    again = Experiment(page(**groups), tmp_path/'parts')
    again.run()
    assert again.store.n_read==exp.store.n_made and exp.store.n_made+again.store.n_made==len(runs_in(tmp_path/'whole'))
    assert tables(tmp_path/'whole')==tables(tmp_path/'parts') and len(tables(tmp_path/'whole'))==5

def made_by(page, out):
    exp = Experiment(page, out)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        exp.run()
    return exp.store.n_made,exp.store.n_read

def test_a_page_that_was_changed_makes_anew_what_the_change_concerns(tmp_path):
    assert made_by(page(), tmp_path)==(10,0) # 3+3+1 trials, a test of each
    assert made_by(page(), tmp_path)==(0,10)
    assert made_by(page(seeds=[0,1]), tmp_path)==(3,10) # a seed more
    assert made_by(page(models={'ease': EASE}), tmp_path)==(0,6) # a model less
    assert made_by(page(models={'ease': EASE}, evaluate=dict(metrics=['recall@5'])), tmp_path)==(2,4) # other metrics: the trials stay
    made,read = made_by(page(search=dict(trials=4)), tmp_path)
    assert made in (1,2) and made+read==11 # another trial of knn, and its test where that one is the best
    assert made_by(page(models={'ease': EASE}, search=dict(trials=3, seed=5)), tmp_path)==(4,2) # trained with another seed
    assert made_by(page(models={'ease': EASE}, split=dict(seed=2)), tmp_path)==(6,0) # other rows

def test_another_table_or_one_cell_of_it_is_another_experiment(tmp_path):
    rows = Experiment(page()).rows.digests
    other = CLICKS.copy()
    other.iloc[0,1] = 61
    changed = Experiment(page(other)).rows.digests
    assert sum(rows[o]!=changed[o] for o in ('train','test'))==1 and Experiment(page(CLICKS.iloc[::-1])).rows.digests['train']!=rows['train']

def test_a_run_that_is_damaged_is_named(tmp_path):
    made_by(page(), tmp_path)
    file = next((tmp_path/'runs').glob('knn-trial-*'))
    file.write_text(file.read_text(encoding='utf-8')[:50], encoding='utf-8')
    with pytest.raises(RecfastError, match=f'{file.name} is not the run.*delete it'): quiet_run(page(), tmp_path)
    file.unlink()
    assert made_by(page(), tmp_path)==(1,9)

def test_a_run_of_another_key_is_not_taken(tmp_path):
    made_by(page(models={'ease': EASE}), tmp_path)
    file = next((tmp_path/'runs').glob('ease-test-*'))
    run = json.loads(file.read_text(encoding='utf-8'))
    run['key']['model']['settings'] = {'config.l2': 1.}
    file.write_text(json.dumps(run), encoding='utf-8')
    with pytest.raises(RecfastError, match='is not the run'): quiet_run(page(models={'ease': EASE}), tmp_path)

def test_what_is_kept_comes_back_as_it_was(found):
    run = found.tests['ease'][0]
    back = evaluation_of(json.loads(json.dumps(run)))
    assert back.summary==run['summary'] and back.per_user['ndcg@10'].tolist()==run['per_user']['ndcg@10']

def test_without_a_folder_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    quiet_run(page(models={'ease': EASE}))
    assert list(tmp_path.iterdir())==[]

def test_nothing_given_is_changed():
    given = page()
    Experiment(given)._trial(Experiment(given).plan.models['ease'], {'config.l2': 5.})
    assert given['models']=={'ease': EASE, 'knn': KNN} and set(EASE)=={'arch','space'} and given['search']==dict(trials=3)
    pd.testing.assert_frame_equal(given['data']['path'], CLICKS)

# lists of other programs

def lists_of(rows, l2=50., k=10):
    "What somebody else's EASE recommends"
    plan = read_plan(page())
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        return train_entry(plan.models['ease'], {'config.l2': l2}, rows.train, 0).recommend(k=k, progress=False)

ROWS = Experiment(page()).rows
THEIRS = lists_of(ROWS)

def with_lists(lists, **more): return page(models={'peer': dict(lists=lists, **more), 'ease': dict(arch='ease', config=dict(l2=50.))}, seeds=[0])

def test_lists_of_a_model_are_worth_what_the_model_is():
    t = quiet_run(with_lists(THEIRS)).table.loc['ndcg@10']
    assert t.loc['peer','mean']==pytest.approx(t.loc['ease','mean'], abs=1e-12) and t.loc['peer','diff']==0

@pytest.mark.parametrize('end', ['csv','parquet'])
def test_lists_from_files_one_for_each_seed(tmp_path, end):
    for seed,l2 in ((0,50.),(1,5000.)):
        df = lists_of(ROWS, l2).drop(columns='score').sample(frac=1, random_state=seed)
        df.to_csv(tmp_path/f'peer-{seed}.csv', index=False) if end=='csv' else df.to_parquet(tmp_path/f'peer-{seed}.parquet')
    res = quiet_run(page(models={'peer': dict(lists=str(tmp_path/f'peer-{{seed}}.{end}'))}, seeds=[0,1]))
    row = res.table.loc['ndcg@10','peer']
    assert row.seeds==2 and row.sd>0 and 'Lists of other programs, tuned there' in res.words and 'peer' not in set(res.trials.model)
    assert np.isnan(res.costs().loc['peer','seconds'])

def test_what_lists_do_not_tell_stays_empty():
    res = quiet_run(dict(with_lists(THEIRS), evaluate=dict(metrics=['ndcg@10','auc'])))
    assert np.isnan(res.table.loc['auc']['mean'].get('peer', np.nan)) and res.table.loc['auc','ease']['mean']>.5
    assert pd.isna(res.summary().loc['peer','auc'])

def test_people_without_a_list_and_short_lists_are_counted():
    few = THEIRS[THEIRS.user_id!=THEIRS.user_id.iloc[0]]
    few = few[few['rank']<=4]
    said = '\n'.join(quiet_run(with_lists(few)).notes)
    assert '1 users without a list count 0' in said and '199 lists have fewer than 10 rows' in said

REFUSED = [
    (lambda o: o.assign(user_id=o.user_id.replace(5, 999)), UnknownIdError, r'unknown user id: 999.*200 users.*\[models.peer\] lists was made from other rows'),
    (lambda o: o.assign(item_id=o.item_id.replace(5, 999)), UnknownIdError, 'unknown item id: 999'),
    (lambda o: o.assign(user_id=o.user_id.astype(str)), UnknownIdError, 'unknown user ids'),
    (lambda o: pd.concat([o,ROWS.train[['user_id','item_id']].head(3).assign(rank=11)]), RatingsError, r'\[models.peer\] lists shows 3 training rows, in the lists of \d people.*seen = "drop"'),
    (lambda o: o.drop(columns=['rank','score']), RatingsError, r"\[models.peer\] lists: the columns are 'user_id', 'item_id', expected rank or score"),
    (lambda o: o.drop(columns='item_id'), RatingsError, r"\[models.peer\] lists: columns"),
    (lambda o: pd.concat([o,o.head(1)]), RatingsError, 'repeat an item of the same list')]

@pytest.mark.parametrize('spoil,error,says', REFUSED)
def test_lists_that_cannot_be_measured_are_refused_before_anything_is_trained(spoil, error, says):
    trained = []
    with pytest.raises(error, match=says): quiet_run(with_lists(spoil(THEIRS)), progress=lambda name, share: trained.append(name))
    assert 'ease' not in trained

def test_training_rows_may_be_left_out_here():
    shown = pd.concat([ROWS.train[['user_id','item_id']].drop_duplicates('user_id').assign(rank=0),THEIRS[['user_id','item_id','rank']]])
    res = quiet_run(with_lists(shown, seen='drop'))
    t = res.table.loc['ndcg@10']
    assert t.loc['peer','mean']==pytest.approx(t.loc['ease','mean'], abs=1e-12) and any('200 of their rows' in o for o in res.notes)

def test_an_item_without_a_training_row_is_refused():
    rows = pd.concat([ROWS.train.assign(held=False),ROWS.test.assign(held=True),pd.DataFrame(dict(user_id=[1], item_id=[777], held=[True]))])
    new = pd.concat([THEIRS,pd.DataFrame(dict(user_id=[1], item_id=[777], score=[9.], rank=[11]))])
    with pytest.raises(RatingsError, match='shows 1 items that no training row has, the first are 777'):
        quiet_run(dict(with_lists(new), data=dict(path=rows), split=dict(column='held')))

def test_a_missing_file_of_lists_is_named():
    with pytest.raises(RatingsError, match=r'\[models.peer\] lists: there is no file nowhere.csv'): quiet_run(with_lists('nowhere.csv'))

# groups and pages

def test_fairness_is_that_of_the_means_by_group():
    res = quiet_run(page(groups=dict(user=['club']), models={'ease': EASE}))
    each = pd.Series(np.mean([o['per_user']['ndcg@10'] for o in res.tests['ease']], 0), res.rows.users[res.tests['ease'][0]['per_user']['user']])
    means = each.groupby(PEOPLE.set_index('user_id').club.reindex(each.index).to_numpy()).mean()
    row = res.fairness().loc['club','ease']
    assert row.gap==pytest.approx(means.max()-means.min()) and row.ratio==pytest.approx(means.min()/means.max()) and (row.highest,row.lowest)==(means.idxmax(),means.idxmin())
    assert res.by_group().loc['club','ease']['mean'].to_dict()==pytest.approx(means.to_dict()) and row.gap_low<=row.gap<=row.gap_high

def test_exposure_of_popularity_goes_to_the_popular():
    res = quiet_run(page(groups=dict(item=['popularity']), models={'ease': dict(arch='ease')}))
    shown = res.exposure().loc['popularity']
    assert shown.exposure.groupby('model').sum().round(9).eq(1).all() and shown.of_train.groupby('model').sum().round(9).eq(1).all()
    def top(model): return shown.loc[model].loc[shown.loc[model].of_train.idxmax()]
    assert top('popularity').ratio_low>1.2 and top('popularity').exposure>top('ease').exposure

@pytest.mark.parametrize('groups,says', [(dict(user=['clubs']), r"\[groups\] user: no column 'clubs'"), (dict(user=['activity']), r"by 'activity' everybody who is tested is in one group, '10'"), (dict(item=['colour']), r'\[groups\] item: there is no table of items')])
def test_groups_that_nobody_can_know_are_refused(groups, says):
    with pytest.raises(ArgumentError, match=says): Experiment(page(groups=groups))

def test_every_page_is_written(tmp_path):
    res = quiet_run(page(name='A & B_c', groups=dict(user=['club'], item=['popularity']), seeds=[0,1]), tmp_path/'out')
    assert {'results.md','results.csv','results.tex','trials.csv','costs.csv','groups.csv','fairness.csv','exposure.csv','quality.png','quality.pdf','runs'}=={o.name for o in (tmp_path/'out').iterdir()}
    back = pd.read_csv(tmp_path/'out'/'results.csv').set_index(['metric','model'])
    assert back['mean'].tolist()==res.table['mean'].tolist() and back.p_holm.dropna().tolist()==res.table.p_holm.dropna().tolist()
    text = (tmp_path/'out'/'results.md').read_text(encoding='utf-8')
    assert all(o in text for o in ('# A & B_c','Mean and spread over seeds','p_holm','People: ndcg@10 by group','Providers','Costs','Settings that were chosen','test rows'))
    tex = (tmp_path/'out'/'results.tex').read_text(encoding='utf-8')
    assert tex.count(r'\begin{tabular}')==2 and r'$\pm$' in tex and 'p$ (Holm)' in tex
    assert (tmp_path/'out'/'quality.png').read_bytes()[:4]==b'\x89PNG'

def test_costs_are_of_every_model(found):
    c = found.costs()
    assert c.seconds.gt(0).all() and c.trials.to_dict()=={'ease': 3, 'knn': 3, 'popularity': 1} and c.seconds_of_trials.gt(0).all()
    assert c.kwh.notna().all() or 'Energy was not measured' in found.cost_words

def test_a_threshold_of_relevance_holds_for_models_and_lists():
    df = CLICKS.assign(rating=1+(CLICKS.item_id%5))
    settings = dict(data=dict(path=df), evaluate=dict(metrics=['ndcg@10'], relevant=4))
    res = quiet_run(dict(with_lists(THEIRS), **settings))
    n = {k: o[0]['per_user']['n_test'] for k,o in res.tests.items()}
    assert n['peer']==n['ease'] and sum(n['ease'])==(res.rows.test.rating>=4).sum()

def test_ratings_below_a_mark_and_rare_ids_may_be_left_out():
    df = CLICKS.assign(rating=1+(CLICKS.item_id%5))
    rows = Experiment(page() | {'data': dict(path=df, min_rating=3, k_core=5, implicit=True)}).rows
    whole = pd.concat([rows.train,rows.test])
    assert 'rating' not in whole and len(whole)<(df.rating>=3).sum() and whole.item_id.value_counts().min()>=5

def test_seeds_are_of_torch_and_nothing_else_moves(found):
    before = torch.random.get_rng_state()
    quiet_run(page(models={'own': dict(arch=Pairs, loss='bpr', bs=64, n_epoch=1)}, seeds=[3]))
    assert torch.equal(before, torch.random.get_rng_state())
