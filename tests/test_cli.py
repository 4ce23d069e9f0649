import re
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from recfast.cli import app, run_quickstart, write_report

def run(*args): return CliRunner().invoke(app, list(args))

@pytest.fixture(scope='module')
def quick(tmp_path_factory):
    out = tmp_path_factory.mktemp('quick')/'report.html'
    return run('quickstart', '--out', str(out), '--epochs', '3'),out

def test_the_quick_start_shows_and_writes_everything(quick):
    res,out = quick
    assert res.exit_code==0, res.output
    for part in ('rmse','ndcg@10','own training rows','recommended','liked','Nearest to','Report:'): assert part in ' '.join(res.output.split())
    page = out.read_text(encoding='utf-8')
    assert page.count('<svg')==2 and page.count('<table')==3 and 'src=' not in page and '<link' not in page

def test_the_model_is_nearer_the_noise_floor_than_the_mean_rating(quick):
    rmse,mean,noise = (float(re.search(rf'{name}\s*│\s*([\d.]+)', quick[0].output)[1]) for name in ('rmse','rmse of the mean rating','rmse of the noise alone'))
    assert noise<rmse<(noise+mean)/2

@pytest.mark.parametrize('args,says', [(['--data','netflix'], "expected 'movie-night'"), (['--user','abc'], 'abc'), (['--item','No Such Film'], 'No Such Film'),
                                       (['--out','no/such/folder/r.html'], 'no/such/folder')])
def test_bad_input_is_a_sentence_and_exit_code_2(args, says):
    res = run('quickstart', '--epochs', '1', *args)
    assert res.exit_code==2 and says in ' '.join(res.output.split()) and 'Traceback' not in res.output

def test_a_report_that_cannot_be_written_leaves_nothing(tmp_path):
    with pytest.raises(UnicodeEncodeError): write_report(tmp_path/'r.html', '\ud800', [])
    assert list(tmp_path.iterdir())==[]

def test_the_report_replaces_an_older_one(tmp_path):
    for i in (1,2): path = write_report(tmp_path/'r.html', f'number {i}', [('T', '', pd.DataFrame({'a<b': ['x&y']}))])
    text = path.read_text(encoding='utf-8')
    assert 'number 2' in text and 'a&lt;b' in text and 'x&amp;y' in text and [o.name for o in tmp_path.iterdir()]==['r.html']

def test_quick_start_on_movielens(ml100k_dir, tmp_path):
    got = run_quickstart('ml-100k', tmp_path/'r.html', user=196, epochs=1)
    assert got['metrics'].metric.tolist()==['rmse','mae','ndcg@10','recall@10','rmse of the mean rating'] and Path(got['report']).exists()
