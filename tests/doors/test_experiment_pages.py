"The page of an experiment: what is refused and in which words, files beside it, the command, and a process that is killed"
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from helpers import registry, taste_clicks  # noqa: F401
from recfast.cli import app
from recfast.core import ArgumentError, RatingsError
from recfast.experiment import Experiment
from recfast.experiment_settings import full_metric, read_plan

PAGE = """
name = "two models"
seeds = [0, 1]
[data]
path = "clicks.csv"
users = "people.parquet"
[search]
trials = 2
[evaluate]
metrics = ["ndcg@10", "own:second_place@5"]
[groups]
user = ["club"]
item = ["popularity"]
[models.ease]
arch = "ease"
space.config.l2 = { low = 1.0, high = 500.0, log = true }
[models.mine]
arch = "own:Mine"
loss = "bpr"
bs = 64
space.n_epoch = [1, 3]
"""
OWN = """
from fastai.layers import Embedding
from fastai.torch_core import Module
from recfast.registry import metric
class Mine(Module):
    def __init__(self, n_users, n_items, n_factors=4, y_range=None): self.u_weight,self.i_weight = Embedding(n_users, n_factors),Embedding(n_items, n_factors)
    def forward(self, x): return (self.u_weight(x[:,0])*self.i_weight(x[:,1])).sum(1, keepdim=True)
@metric('second_place')
def second_place(hits, k): return hits[:,1]*1.
"""

def folder(path, page=PAGE, own=OWN):
    "A page, the files beside it"
    path.mkdir(exist_ok=True)
    taste_clicks().to_csv(path/'clicks.csv', index=False)
    pd.DataFrame(dict(user_id=np.arange(1, 201), club=list('abca')*50)).to_parquet(path/'people.parquet')
    (path/'own.py').write_text(own, encoding='utf-8')
    (path/'exp.toml').write_text(page, encoding='utf-8')
    return path/'exp.toml'

# words

MODELS = dict(ease=dict(arch='ease'))
NIGHT = dict(name='movie_night')
REFUSED = [
    (dict(modles=MODELS), r"above the sections modles: no such key; did you mean 'models'\?"),
    (dict(seeds=[]), r'above the sections seeds = \[\]: expected a list of whole numbers'),
    (dict(seeds=[0,'a']), 'seeds'),
    (dict(data=dict(name='ml-100k')), r"\[data\] name = 'ml-100k': expected one of ml_100k"),
    (dict(data={}), r'\[data\]: expected name .* or path'),
    (dict(data=dict(NIGHT, path='a.csv')), r'\[data\]: expected name .* not both'),
    (dict(data=dict(NIGHT, usr_name='who')), r"\[data\] usr_name: no such key; did you mean 'user_name'\?"),
    (dict(split=dict(test='users')), r"\[split\] test = 'users': expected one of user, random, last, time"),
    (dict(split=dict(test_pct=20)), r'\[split\] test_pct = 20: expected a share between 0 and 1'),
    (dict(split=dict(test='last', test_pct=.2)), r"\[split\] test_pct: 'last' holds out one row of each user"),
    (dict(split=dict(column='held', test='user')), r'\[split\] column says which rows are the test'),
    (dict(split='user'), r"\[split\]: expected keys with values, got 'user'"),
    (dict(search=dict(trials=0)), r'\[search\] trials = 0: expected a whole number of 1 or more'),
    (dict(search=dict(trials=3, seconds=9)), r'\[search\]: every model gets trials or seconds, not both'),
    (dict(search=dict(metric='ngdc@10')), r"\[search\] metric: no metric 'ngdc@10'; did you mean 'ndcg@10'\?"),
    (dict(evaluate=dict(metrics=['ndcg@10','nope'])), r"\[evaluate\] metrics: no metric 'nope'"),
    (dict(evaluate=dict(metrics=['no_such_module_here:f'])), r"\[evaluate\] metrics 'no_such_module_here:f': No module named"),
    (dict(evaluate=dict(base='slim')), r"\[evaluate\] base = 'slim': no such model; there are 'ease', 'popularity'"),
    (dict(evaluate=dict(exclude_seen='yes')), r"\[evaluate\] exclude_seen = 'yes': expected true or false"),
    (dict(groups=dict(users=['age'])), r"\[groups\] users: no such key; did you mean 'user'\?"),
    (dict(models={}), r'\[models\]: expected one or more'),
    (dict(models=dict(a={})), r'\[models.a\]: expected arch'),
    (dict(models=dict(a=dict(arch='eese'))), r"\[models.a\] arch = 'eese': no such model; did you mean 'ease'\?"),
    (dict(models=dict(a=dict(arch='no_such_module_here:M'))), r"\[models.a\] arch 'no_such_module_here:M'"),
    (dict(models=dict(a=dict(arch='ease', l2=5))), r'\[models.a\] l2: no such key'),
    (dict(models=dict(a=dict(arch='ease', config=dict(l_2=5)))), r"\[models.a.config\] l_2: no such key; did you mean 'l2'\?"),
    (dict(models=dict(a=dict(arch='ease', space=dict(config=dict(l2=5))))), r"\[models.a.space\] space\['config.l2'\]=5"),
    (dict(models=dict(a=dict(arch='ease', space=dict(config=dict(l2=dict(low=9, high=1)))))), 'expected low <= high'),
    (dict(models=dict(a=dict(arch='ease', space=dict(config=dict(l2=dict(low=1)))))), r'\[models.a.space.config.l2\]: a range has low and high'),
    (dict(models=dict(a=dict(arch='ease', space=dict(config=dict(l2=dict(low=1, hihg=2)))))), r"\[models.a.space.config.l2\] hihg: no such key; did you mean 'high'\?"),
    (dict(models=dict(a=dict(arch='ease', lr=1, space=dict(lr=[1,2])))), r'\[models.a\] lr stands among its settings and in its space'),
    (dict(models=dict(a=dict(arch='ease', loss='bprr'))), r"\[models.a\] loss = 'bprr': expected one of mse"),
    (dict(models=dict(a=dict(arch='ease', lists='a.csv'))), 'not both'),
    (dict(models=dict(a=dict(lists='a.csv', lr=1))), r'\[models.a\] lr: lists that another program made take no settings'),
    (dict(models=dict(a=dict(lists='a.csv', seen='keep'))), r"\[models.a\] seen = 'keep': expected 'drop'")]

@pytest.mark.parametrize('more,says', REFUSED, ids=[says[:40] for _,says in REFUSED])
def test_what_is_not_understood_is_said_in_the_words_of_the_page(more, says):
    with pytest.raises(ArgumentError, match=says): read_plan({**dict(data=NIGHT, models=MODELS), **more})

def test_a_column_that_is_not_there_is_said_in_the_words_of_the_page(tmp_path):
    page = folder(tmp_path, PAGE.replace('users =', 'user_name = "userid"\nusers ='))
    with pytest.raises(RatingsError, match=r"\[data\] no column 'userid'.*Did you mean user_name = 'user_id'\?"): Experiment(page)

def test_files_are_named_from_the_folder_of_the_page(tmp_path, monkeypatch):
    page = folder(tmp_path/'a')
    monkeypatch.chdir(tmp_path)
    exp = Experiment(page)
    assert len(exp.rows.train)+len(exp.rows.test)==2400 and exp.plan.models['mine'].arch.__name__=='Mine' and exp.plan.evaluate['metrics']==['ndcg@10','second_place@5']

def test_two_folders_may_call_their_modules_the_same(tmp_path):
    one = Experiment(folder(tmp_path/'a'))
    two = Experiment(folder(tmp_path/'b', own=OWN.replace('n_factors=4', 'n_factors=8')))
    assert one.plan.models['mine'].arch is not two.plan.models['mine'].arch

def test_whoever_edits_a_model_of_their_own_gets_new_runs_of_it(tmp_path):
    def key(exp, name):
        found = []
        exp.store.get = lambda label, key, make: found.append(key)
        exp._trial(exp.plan.models[name], {})
        return found[0]
    before,after = (Experiment(folder(tmp_path/o, own=own)) for o,own in (('a',OWN),('b',OWN+'# a word more\n')))
    assert key(before, 'mine')['model']['source']!=key(after, 'mine')['model']['source'] and key(before, 'ease')==key(after, 'ease')

@pytest.mark.parametrize('name,full', [('ndcg','ndcg@7'), ('ndcg@3','ndcg@3'), ('rmse','rmse'), ('auc','auc')])
def test_a_metric_without_a_list_length_gets_that_of_the_page(name, full): assert full_metric(name, k=7)==full

# the command

def run(*args): return CliRunner().invoke(app, ['run',*map(str, args)])

def test_the_command_runs_reads_and_says_where_everything_is(tmp_path):
    page = folder(tmp_path/'a', PAGE.replace('trials = 2', 'trials = 1').replace('[0, 1]', '[0]'))
    res = run(page)
    assert res.exit_code==0, res.output
    said = ' '.join(res.output.split())
    assert all(o in said for o in ('two models','ease','mine','popularity','±') if o!='±') and '6 runs made, 0 read' in said and 'test rows' in said
    assert '0 runs made, 6 read' in ' '.join(run(page).output.split()) and (page.with_suffix('')/'results.md').exists()

def test_the_rows_are_written_for_a_peer_whose_lists_are_then_measured(tmp_path):
    page = folder(tmp_path/'a', '[data]\npath = "clicks.csv"\n[models.peer]\nlists = "rows/lists.csv"\n')
    assert run(page, '--write-split', tmp_path/'a'/'rows').exit_code==0 and not page.with_suffix('').exists()
    train,test = (pd.read_parquet(tmp_path/'a'/'rows'/f'{o}.parquet') for o in ('train','test'))
    assert len(train)+len(test)==2400 and .05<train.is_valid.mean()<.2
    assert 'there is no file' in ' '.join(run(page).output.split())
    best = train.item_id.value_counts().index
    lists = [(u,i,r) for u,mine in train.groupby('user_id').item_id for r,i in enumerate([o for o in best if o not in set(mine)][:10])]
    pd.DataFrame(lists, columns=['user_id','item_id','rank']).to_csv(tmp_path/'a'/'rows'/'lists.csv', index=False)
    res = run(page)
    assert res.exit_code==0, res.output
    t = pd.read_csv(page.with_suffix('')/'results.csv').query("metric=='ndcg@10'").set_index('model')
    assert t.loc['peer','mean']==pytest.approx(t.loc['popularity','mean'], rel=.02) # ties apart

@pytest.mark.parametrize('page,says', [('seeds = [0', 'is no TOML'), ('[data]\nname = "netflix"\n[models.a]\narch="ease"', "[data] name = 'netflix': expected one of"),
    ('[data]\npath = "no.csv"\n[models.a]\narch="ease"', 'there is no file')])
def test_a_page_that_cannot_be_run_is_a_sentence_and_exit_code_2(tmp_path, page, says):
    (tmp_path/'exp.toml').write_text(page, encoding='utf-8')
    res = run(tmp_path/'exp.toml')
    assert res.exit_code==2 and says in ' '.join(res.output.split()) and 'Traceback' not in res.output and not (tmp_path/'exp').exists()

def test_a_page_that_is_not_there_is_a_sentence():
    res = run('nowhere.toml')
    assert res.exit_code==2 and 'there is no file nowhere.toml' in ' '.join(res.output.split())

# killed

def start(page, out): return subprocess.Popen([sys.executable,'-W','ignore','-m','recfast.cli','run',str(page),'--out',str(out)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

def runs(out): return len(list((out/'runs').glob('*.json')))

@pytest.mark.slow
@pytest.mark.skipif(sys.platform=='win32', reason='there is no SIGKILL')
def test_a_killed_process_is_gone_on_with_to_the_same_tables(tmp_path):
    page = folder(tmp_path/'a')
    whole = start(page, tmp_path/'whole')
    said,_ = whole.communicate(timeout=300)
    assert whole.returncode==0, said
    p = start(page, tmp_path/'parts')
    while runs(tmp_path/'parts')<3 and p.poll() is None: time.sleep(.005)
    os.kill(p.pid, signal.SIGKILL)
    p.communicate()
    left = runs(tmp_path/'parts')
    assert p.returncode==-signal.SIGKILL and 3<=left<runs(tmp_path/'whole') and not (tmp_path/'parts'/'results.csv').exists()
    again = start(page, tmp_path/'parts')
    said,_ = again.communicate(timeout=300)
    assert again.returncode==0 and f'{left} read' in ' '.join(said.split()), said
    names = 'results.csv','results.tex','groups.csv','fairness.csv','exposure.csv'
    assert {o: (tmp_path/'parts'/o).read_bytes() for o in names}=={o: (tmp_path/'whole'/o).read_bytes() for o in names}
    def chosen(out): return pd.read_csv(Path(out)/'trials.csv').drop(columns='seconds')
    pd.testing.assert_frame_equal(chosen(tmp_path/'parts'), chosen(tmp_path/'whole'))
