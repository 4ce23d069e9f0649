"New rows into a bundle from a shell: the answers of the library, counts, and a bundle that is whole or as it was"
import json

import pandas as pd
import pytest
from typer.testing import CliRunner

from helpers import fit_one_cycle
from recfast.bundle import load_bundle
from recfast.cli import app, describe_bundle
from recfast.data.loaders import CollabDataLoaders
from recfast.learner import collab_learner
from recfast.testing import synth_ratings

ROWS = synth_ratings(30, 25, density=.4).rename(columns=dict(user_id='person', item_id='film'))
OLD,NEW = ROWS[ROWS.person<28],ROWS[ROWS.person>=28].assign(timestamp=lambda o: o.timestamp+10**7)

def run(*args): return CliRunner().invoke(app, ['update',*map(str, args)])

@pytest.fixture(scope='module')
def bundle(tmp_path_factory):
    dls = CollabDataLoaders.from_df(OLD, valid_pct=.1, seed=0, user_name='person', item_name='film')
    return fit_one_cycle(collab_learner(dls, 4, y_range=(0,5.5))).save_bundle(tmp_path_factory.mktemp('old')/'b')

@pytest.mark.parametrize('end', ['.csv','.parquet'])
@pytest.mark.parametrize('out', ['b2','b2.zip'])
def test_a_file_is_taken_as_the_library_takes_a_frame(bundle, tmp_path, end, out):
    file = tmp_path/f'new{end}'
    both = pd.concat([OLD[-20:],NEW])
    both.to_csv(file, index=False) if end=='.csv' else both.to_parquet(file)
    res = run(bundle, file, '--out', tmp_path/out)
    assert res.exit_code==0 and 'already there' in res.output and '20' in res.output, res.output
    got,want = load_bundle(tmp_path/out),load_bundle(bundle).add_ratings(NEW)
    pd.testing.assert_frame_equal(got.recommend([29,3], k=5), want.recommend([29,3], k=5))
    facts = describe_bundle(tmp_path/out).set_index('what').value
    assert facts['rows folded in']==str(len(NEW)) and int(facts['training rows'])==len(load_bundle(bundle).train)

def test_columns_can_be_named(bundle, tmp_path):
    NEW.rename(columns=dict(person='who', film='what', rating='stars', timestamp='when')).to_csv(tmp_path/'n.csv', index=False)
    named = '--user-name','who','--item-name','what','--rating-name','stars','--time-name','when'
    assert run(bundle, tmp_path/'n.csv', '--out', tmp_path/'b2', *named).exit_code==0
    assert load_bundle(tmp_path/'b2').info['training']['added'][0]['rows']==len(NEW)
    res = run(bundle, tmp_path/'n.csv', '--out', tmp_path/'b3')
    assert res.exit_code==2 and 'expected person and film' in ' '.join(res.output.split()) and not (tmp_path/'b3').exists()

def test_older_rows_are_refused_or_left_out(bundle, tmp_path):
    pd.concat([NEW,NEW[:3].assign(film=99, timestamp=5)]).to_csv(tmp_path/'n.csv', index=False)
    res = run(bundle, tmp_path/'n.csv', '--out', tmp_path/'b2')
    assert res.exit_code==2 and f'3 of {len(NEW)+3} rows are not there yet' in ' '.join(res.output.split()) and not (tmp_path/'b2').exists()
    assert run(bundle, tmp_path/'n.csv', '--out', tmp_path/'b2', '--skip-older').exit_code==0
    assert load_bundle(tmp_path/'b2').info['training']['added'][0]['older_left_out']==3

def test_what_is_no_bundle_is_not_written_over(bundle, tmp_path):
    NEW.to_csv(tmp_path/'n.csv', index=False)
    (tmp_path/'mine').mkdir()
    (tmp_path/'mine/letter.txt').write_text('dear')
    assert run(bundle, tmp_path/'n.csv', '--out', tmp_path/'mine').exit_code==2 and (tmp_path/'mine/letter.txt').read_text()=='dear'

def test_drift_from_a_shell_is_that_of_the_library(bundle, tmp_path):
    NEW.to_csv(tmp_path/'n.csv', index=False)
    res = CliRunner().invoke(app, ['drift',*map(str, (bundle,tmp_path/'n.csv','-k',5,'--out',tmp_path/'d.json'))])
    want = load_bundle(bundle).drift(NEW, 5)
    assert res.exit_code==0 and ' '.join(want.advice.split()) in ' '.join(res.output.split()), res.output
    found = json.loads((tmp_path/'d.json').read_text(encoding='utf-8'))
    assert found['retrain'] and found['shares']['people']['share']==1
    assert CliRunner().invoke(app, ['drift',str(bundle),str(tmp_path/'none.csv')]).exit_code==2
