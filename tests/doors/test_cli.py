"Commands: what they write, what they say when they cannot, and what a kill leaves"
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, given, settings, strategies as st
from typer.testing import CliRunner

from helpers import fit_one_cycle
from recfast.bundle import load_bundle
from recfast.choice import read_choice
from recfast.cli import app, describe_bundle, parse_config, parse_range, run_quickstart, run_train, write_report
from recfast.core import RatingsError
from recfast.data.loaders import CollabDataLoaders
from recfast.data.split import global_time_split
from recfast.data.windows import random_windows
from recfast.files import read_table, write_frames
from recfast.learner import collab_learner
from recfast.models.sequence import SASRec
from recfast.shell import as_options
from recfast.testing import synth_ratings

def run(*args): return CliRunner().invoke(app, list(args))

@pytest.fixture(scope='module')
def quick(tmp_path_factory):
    out = tmp_path_factory.mktemp('quick')/'report.html'
    return run('quickstart', '--out', str(out)),out

def test_the_quick_start_shows_and_writes_everything(quick):
    res,out = quick
    assert res.exit_code==0, res.output
    for part in ('at most 10 s','rmse','ndcg@10','own training rows','recommended','predicted','why','liked','Nearest to','Report:'): assert part in ' '.join(res.output.split())
    page = out.read_text(encoding='utf-8')
    assert page.count('<svg')==3 and page.count('<table')==4 and 'src=' not in page and '<link' not in page
    assert re.findall('<h2>(.*?)</h2>', page)==['Metrics','Lists against popularity','For user 305: recommended','What user 305 rated highest',
                                                'Nearest to The Paper Railway (1991)','Choice','Map']

def test_the_lists_of_the_quick_start_are_better_than_popularity(quick):
    own,popular = map(float, re.search(r'ndcg@10\s*│\s*([\d.]+)\s*│\s*([\d.]+)', quick[0].output).groups())
    assert own>1.3*popular

def test_a_model_that_is_named_is_trained_by_the_quick_start(tmp_path):
    res = run('quickstart', '--arch', 'ease', '--out', str(tmp_path/'r.html'))
    page = (tmp_path/'r.html').read_text(encoding='utf-8')
    assert res.exit_code==0 and 'rmse' not in page and 'Training EASE' in res.output
    assert re.findall('<h2>(.*?)</h2>', page)[:2]==['Metrics','Lists against popularity'] and page.count('<svg')==2 # bars and what is nearest

def test_epochs_are_of_a_model_that_is_named(tmp_path):
    res = run('quickstart', '--epochs', '2', '--out', str(tmp_path/'r.html'))
    assert res.exit_code==2 and '--arch' in res.output and list(tmp_path.iterdir())==[]

def test_the_model_is_nearer_the_noise_floor_than_the_mean_rating(quick):
    rmse,mean,noise = (float(re.search(rf'{name}\s*│\s*([\d.]+)', quick[0].output)[1]) for name in ('rmse','rmse of the mean rating','rmse of the noise alone'))
    assert noise<rmse<(noise+mean)/2

@pytest.mark.parametrize('args,says', [(['--data','netflix'], "expected 'movie-night'"), (['--user','abc'], 'abc'), (['--item','No Such Film'], 'No Such Film'),
                                       (['--out','no/such/folder/r.html'], 'no/such/folder')])
def test_bad_input_is_a_sentence_and_exit_code_2(args, says):
    res = run('quickstart', '--arch', 'dotproductbias', '--epochs', '1', *args)
    assert res.exit_code==2 and says in ' '.join(res.output.split()) and 'Traceback' not in res.output

def test_a_report_that_cannot_be_written_leaves_nothing(tmp_path):
    with pytest.raises(UnicodeEncodeError): write_report(tmp_path/'r.html', '\ud800', [])
    assert list(tmp_path.iterdir())==[]

def test_the_report_replaces_an_older_one(tmp_path):
    for i in (1,2): path = write_report(tmp_path/'r.html', f'number {i}', [('T', '', pd.DataFrame({'a<b': ['x&y']}))])
    text = path.read_text(encoding='utf-8')
    assert 'number 2' in text and 'a&lt;b' in text and 'x&amp;y' in text and [o.name for o in tmp_path.iterdir()]==['r.html']

def test_a_table_of_the_report_keeps_the_names_of_its_rows(tmp_path):
    table = pd.DataFrame({'ndcg': [.3,.2]}, index=pd.Index(['EASE','Popularity'], name='model'))
    text = write_report(tmp_path/'r.html', 'two', [('Named', '', table),('Numbered', '', table.reset_index(drop=True))]).read_text(encoding='utf-8')
    assert '<th>EASE</th>' in text and 'model' in text and '<th>0</th>' not in text

def test_quick_start_on_movielens(ml100k_dir, tmp_path):
    got = run_quickstart('ml-100k', tmp_path/'r.html', user=196, epochs=1, arch='dotproductbias')
    assert got['metrics'].metric.tolist()==['rmse','mae','ndcg@10','recall@10','rmse of the mean rating'] and Path(got['report']).exists()

@pytest.mark.parametrize('said,want', [
    ("Did you mean user_name='user'?", "Did you mean --user-name 'user'?"),
    ('Pass user_name= with the name of your column.', 'Pass --user-name with the name of your column.'),
    ('name it by time_name=.', 'name it by --time-name.'),
    ('bs=9, but only 5 training rows. Use bs=5 or less.', '--bs 9, but only 5 training rows. Use --bs 5 or less.'),
    ('expected numbers. Read others with pd.to_datetime(ratings[\'when\'], format=...).', 'expected numbers.'),
    ('Split along time (splits=global_time_split, in a shell --split time) to prevent it; ev.protocol has the details', 'Split along time (--split time) to prevent it'),
    ("unknown user id: 'bs=9'", "unknown user id: 'bs=9'"), ("jobs=3", "jobs=3"), ("y_range: expected two numbers", "--y-range: expected two numbers")])
def test_python_is_said_in_the_words_of_the_shell(said, want): assert as_options(said)==want

# train

@pytest.fixture(scope='module')
def ratings(tmp_path_factory):
    "A folder with one table in every form, under column names of its own"
    d = tmp_path_factory.mktemp('ratings')
    df = synth_ratings().rename(columns={'user_id': 'userId', 'item_id': 'movieId'})
    df.to_csv(d/'r.csv', index=False); df.to_csv(d/'r.tsv', sep='\t', index=False); df.to_csv(d/'r.csv.gz', index=False); df.to_parquet(d/'r.parquet')
    df[['userId','movieId']].to_csv(d/'clicks.csv', index=False)
    return d

NAMES = ['--user-name','userId','--item-name','movieId']
ARCH = '--arch','dotproductbias'

def train(file, out, *args): return run('train', str(file), *NAMES, *ARCH[len(ARCH)*('--arch' in args):], '--out', str(out), '--epochs', '1', '--n-factors', '4', '--bs', '32', *args)

@pytest.mark.parametrize('name', ['r.csv','r.tsv','r.csv.gz','r.parquet'])
def test_a_bundle_from_the_command_line_is_that_of_python(ratings, tmp_path, name):
    res = train(ratings/name, tmp_path/'b.recfast', '--rating-name', 'rating', '--arch', 'dotproductbias', '--seed', '1', '--y-range', '0,5.5')
    assert res.exit_code==0, res.output
    df = synth_ratings()
    learn = collab_learner(CollabDataLoaders.from_df(df, seed=1, bs=32), n_factors=4, y_range=(0,5.5))
    fit_one_cycle(learn, 1, 5e-3, wd=.1)
    assert np.array_equal(load_bundle(tmp_path/'b.recfast').predict(df.user_id, df.item_id), learn.predict(df.user_id, df.item_id))
    assert {o.name for o in tmp_path.iterdir()}=={'b.recfast','b.html'} and '</html>' in (tmp_path/'b.html').read_text(encoding='utf-8')

@pytest.mark.parametrize('args', [('r.csv','--arch','neumf','--config','layers=[8]'), ('r.csv','--arch','AutoRec','--config','by=user'), ('r.csv','--arch','nextitem'),
    ('clicks.csv',), ('clicks.csv','--arch','gmf','--valid-pct','0'), ('r.csv','--valid-pct','0'), ('clicks.csv','--arch','sasrec','--config','seq_len=5','--valid-pct','0')],
    ids=lambda a: ' '.join(a))
def test_every_kind_of_model_and_table_trains_and_recommends(ratings, tmp_path, args):
    res = train(ratings/args[0], tmp_path/'b.zip', *args[1:])
    assert res.exit_code==0, res.output
    out = run('recommend', str(tmp_path/'b.zip'), '--user', '3', '-k', '2', '--out', '-')
    assert out.exit_code==0 and [o.split(',')[0] for o in out.stdout.splitlines()]==['user_id','3','3']
    assert run('evaluate', str(tmp_path/'b.zip'), str(ratings/args[0])).exit_code==0
    assert ('rmse' in run('info', str(tmp_path/'b.zip')).stdout)==(args[0]=='r.csv' and '0' not in args and 'nextitem' not in args)

def test_training_runs_on_the_fast_path(ratings, tmp_path):
    assert run_train(ratings/'r.csv', tmp_path/'b', user_name='userId', item_name='movieId', arch='dotproductbias', epochs=1)['learn'].fast

@pytest.mark.parametrize('arch', ['dotproductbias','autorec','ease'])
def test_the_latest_rows_may_be_held_out(ratings, tmp_path, arch):
    args = dict(arch=arch, user_name='userId', item_name='movieId', epochs=1, n_factors=2)
    late = run_train(ratings/'r.csv', tmp_path/'b', split='time', **args)['learn'].dls
    assert late.interactions('train').times.max()<late.interactions('valid').times.min() and len(late.interactions('valid'))==pytest.approx(200, abs=20)
    last = run_train(ratings/'r.csv', tmp_path/'b', split='last', **args)['learn'].dls
    assert last.interactions('valid').counts('user')[1:].tolist()==[1]*50

def test_a_split_along_time_needs_times(ratings, tmp_path):
    says(train(ratings/'clicks.csv', tmp_path/'b', '--split', 'time'), 'there is no column of times', '--time-name')

@pytest.mark.parametrize('args,n_valid', [(('--split','time'),None), (('--valid-pct','.5'),25), ((),50)])
def test_a_next_item_model_holds_out_what_is_asked_for(tmp_path, args, n_valid):
    df = synth_ratings().rename(columns={'user_id': 'userId', 'item_id': 'movieId'})
    df.to_csv(tmp_path/'r.csv', index=False)
    res = train(tmp_path/'r.csv', tmp_path/'b', '--arch', 'sasrec', '--config', 'align=left', '--init', 'svd', '--seed', '1', *args)
    assert res.exit_code==0, res.output
    how = dict(splits=partial(global_time_split, valid_pct=None)) if 'time' in args else dict(valid_pct=.5 if args else None)
    dls = CollabDataLoaders.sequences_from_df(df, user_name='userId', item_name='movieId', seed=1, bs=32, **how)
    valid,rec = dls.interactions('valid'),load_bundle(tmp_path/'b')
    assert rec.info['n_train']==len(dls.train_ds) and len(valid)==(n_valid or len(valid))>0
    learn = collab_learner(random_windows(dls), 4, arch=SASRec, config=dict(align='left'), init='svd', seed=1)
    fit_one_cycle(learn, 1, 5e-3, wd=.1)
    assert rec.recommend([1,2], k=5).item_id.tolist()==learn.recommend([1,2], k=5).item_id.tolist()

def test_ids_keep_their_leading_zeros(tmp_path):
    synth_ratings().assign(user_id=lambda d: d.user_id.map('{:03}'.format), item_id=lambda d: d.item_id.map('{:04}'.format)).to_csv(tmp_path/'r.csv', index=False)
    assert run('train', str(tmp_path/'r.csv'), *ARCH, '--out', str(tmp_path/'b'), '--epochs', '1', '--n-factors', '2').exit_code==0
    out = run('recommend', str(tmp_path/'b'), '--user', '007', '-k', '2', '--out', '-').stdout.splitlines()[1:]
    assert [re.fullmatch(r'007,00\d\d,.*', o) is not None for o in out]==[True,True]
    assert 'unknown user id' in run('recommend', str(tmp_path/'b'), '--user', '7').stderr
    assert run('evaluate', str(tmp_path/'b'), str(tmp_path/'r.csv')).exit_code==0

def test_training_again_replaces_bundle_and_report(ratings, tmp_path):
    for seed in '1','2': assert train(ratings/'r.csv', tmp_path/'b', '--seed', seed).exit_code==0
    assert load_bundle(tmp_path/'b').info['training']['seed']==2 and len(list((tmp_path/'b').iterdir()))==4

def test_text_times_are_read(ratings, tmp_path):
    df = read_table(ratings/'r.csv').assign(timestamp='2020-01-02T03:04:05')
    df.to_csv(tmp_path/'t.csv', index=False)
    assert train(tmp_path/'t.csv', tmp_path/'b', '--arch', 'nextitem').exit_code==0
    df.assign(timestamp='yesterday').to_csv(tmp_path/'t.csv', index=False)
    res = train(tmp_path/'t.csv', tmp_path/'b', '--split', 'time')
    says(res, "recfast train: column 'timestamp' has times that cannot be read: 'yesterday'")
    res = train(tmp_path/'t.csv', tmp_path/'b')
    assert res.exit_code==0 and res.stderr.count('Note: times are left out')==1 and '--time-name asks for them' in res.stderr

def test_a_file_is_read_as_from_csv_reads_it(tmp_path):
    df = synth_ratings().assign(item_id=lambda d: d.item_id.map({1: 'NA', 2: 'null'}).fillna(d.item_id.astype(str)), timestamp=lambda d: pd.to_datetime(d.timestamp, unit='s').astype(str))
    df.to_csv(tmp_path/'r.csv', index=False, encoding='utf-8-sig')
    dls = CollabDataLoaders.from_csv(tmp_path/'r.csv', seed=1)
    ours = run_train(tmp_path/'r.csv', tmp_path/'b', arch='dotproductbias', epochs=1, n_factors=2, seed=1)['learn'].dls
    assert [*dls.classes['item_id']]==[*ours.classes['item_id']] and {'NA','null'}<={*dls.classes['item_id']}
    assert (dls.train_ds.times==ours.train_ds.times).all() and dls.train_ds.times.dtype==ours.train_ds.times.dtype

def test_a_table_taken_for_clicks_is_said(ratings, tmp_path):
    stars = read_table(ratings/'r.csv').rename(columns=dict(rating='stars'))
    stars.to_csv(tmp_path/'s.csv', index=False)
    res = train(tmp_path/'s.csv', tmp_path/'b')
    said = "no column 'rating', so every row counts as a click. Where ratings have another name pass --rating-name; the columns are 'userId', 'movieId', 'stars'"
    assert res.exit_code==0 and f'Note: {said}' in res.stderr
    assert 'click' not in train(tmp_path/'s.csv', tmp_path/'b', '--rating-name', 'stars').stderr
    says(train(tmp_path/'s.csv', tmp_path/'c', '--y-range', '0,5.5'), f'recfast train: --y-range: {said}')
    assert train(tmp_path/'s.csv', tmp_path/'b', '--y-range', '0,1').exit_code==0

# sentences

def says(res, *parts):
    assert res.exit_code==2, res.output
    assert 'Traceback' not in res.output and not isinstance(res.exception, (KeyError,TypeError,AttributeError))
    for p in parts: assert p in res.output

@pytest.mark.parametrize('args,parts', [
    (('--user-name','user'), ("no column 'user'","'userId', 'movieId', 'rating'")), (('--rating-name','[/stars]'), ("no column '[/stars]'",)),
    (('--arch','netflix'), ("'netflix'","dotproductbias")), (('--config','layers'), ("'layers'","key=value")), (('--config','depth=3'), ("depth","n_factors")),
    (('--y-range','5,1'), ("'5,1'","the lower first")), (('--y-range','x'), ("'x'","low,high")), (('--epochs','0'), ("epochs",)), (('--bs','100000'), ("--bs 100000","training rows")),
    (('--lr','fast'), ("--lr",)), (('--time-name','when'), ("no column 'when'",)),
    (('--split','half'), ("'half'","random, time, last")), (('--split','last','--valid-pct','.5'), ("--valid-pct","one row of each user")),
    (('--init','pca','--arch','sasrec'), ("init='pca', expected 'svd'",)),
    (('--init','svd','--arch','ease'), ("EASE is solved and begins nowhere",)), (('--report','no/such/place.html'), ("there is no folder",))], ids=lambda o: ' '.join(o))
def test_an_argument_of_train_that_cannot_be_used(ratings, tmp_path, args, parts):
    says(train(ratings/'r.csv', tmp_path/'b', *args), *parts)
    assert list(tmp_path.iterdir())==[]

@pytest.mark.parametrize('name,data,part', [('e.csv',b'','e.csv is empty'), ('e.csv',b'userId,movieId,rating\n','0 rows'), ('e.csv',b'\xff\xfe\x00','not utf-8'),
    ('e.parquet',b'PAR1 no','cannot be read as parquet'), ('e.xlsx',b'x','ends in .csv'), ('e.csv',b'userId,movieId,rating\n1,2,3,4\n2,2,3,4\n','more cells than the header'),
    ('e.csv',b'userId,movieId,rating\n1,2,good\n',"'rating'"),
    ('e.csv',b'userId,movieId,rating\n1,2,3\n1,3,"4,5"\n2,2,n/a\n',"column 'rating' has ratings that are not numbers: '4,5', 'n/a' at row positions 1, 2"), ('e.csv',b'userId,movieId,rating\n1,,3\n','missing ids'), ('e.csv.gz',b'no gzip','cannot be read'),
    ('e.csv',b'userId,movieId,rating\n"1,2,3\n','cannot be read')])
def test_a_file_that_is_no_table_of_ratings(tmp_path, name, data, part):
    (tmp_path/name).write_bytes(data)
    says(train(tmp_path/name, tmp_path/'b'), part)

def test_files_that_are_not_there_and_folders(ratings, tmp_path):
    says(train(tmp_path/'no.csv', tmp_path/'b'), 'there is no file')
    says(train(ratings/'r.csv', tmp_path/'no'/'b'), 'there is no folder')
    (tmp_path/'d.csv').mkdir()
    says(train(tmp_path/'d.csv', tmp_path/'b'), 'is a folder')
    says(train(ratings/'r.csv', ratings), 'which is no bundle')
    says(train(ratings/'r.csv', ratings/'r.csv'), 'is a file')

@pytest.fixture(scope='module')
def bundle(ratings, tmp_path_factory):
    path = tmp_path_factory.mktemp('b')/'b.recfast'
    assert train(ratings/'r.csv', path).exit_code==0
    return path

@pytest.mark.parametrize('args,parts', [
    (('recommend','--user','999'), ("unknown user id: 999",)), (('recommend','--user','Ann'), ("'Ann'","a whole number")), (('recommend',), ("--user, --history or --all",)),
    (('recommend','--user','1','--all'), ("one of",)), (('recommend','--all'), ("--out FILE",)), (('recommend','--all','--out','x.doc'), ("ends in .csv",)),
    (('recommend','--user','1','-k','0'), ("-k",)), (('recommend','--user','1','--item','x'), ("'x'",)), (('recommend','--history','3:99'), ("outside the training data",)),
    (('recommend','--history','x:1'), ("'x'",)), (('recommend','--history','nowhere.csv'), ("nowhere.csv",)), (('similar','--item','12345'), ("unknown item id: 12345",)),
    (('evaluate','nowhere.csv'), ("there is no file",)), (('export','--out','x.txt'), (".onnx",)), (('export','--out','no/x.onnx'), ("there is no folder",))], ids=lambda o: ' '.join(o))
def test_an_argument_of_the_other_commands_that_cannot_be_used(bundle, args, parts):
    says(run(args[0], str(bundle), *args[1:]), *parts)

def test_what_is_no_bundle_is_a_sentence_for_every_command(bundle, ratings, tmp_path):
    import shutil
    bad = shutil.copytree(bundle, tmp_path/'bad')
    next(bad.glob('weights-*')).write_bytes(b'damaged')
    for args in (['recommend','--user','1'],['similar','--item','1'],['info'],['export','--out',str(tmp_path/'x.onnx')],['evaluate',str(ratings/'r.csv')],['serve']):
        says(run(args[0], str(bad), *args[1:]), 'does not match its checksum')
        says(run(args[0], str(tmp_path/'nowhere'), *args[1:]), 'there is no')

def test_an_evaluation_names_the_columns_there_are(bundle, ratings):
    says(run('evaluate', str(bundle), str(ratings/'r.csv'), '--item-name', 'film'), "no column 'film'", "'movieId'")

@pytest.mark.parametrize('name,what', [('userId','user'),('movieId','item')])
def test_an_evaluation_on_strangers_says_so(bundle, ratings, tmp_path, name, what):
    df = read_table(ratings/'r.csv')
    df.assign(**{name: df[name]+10**6}).to_csv(tmp_path/'strangers.csv', index=False)
    says(run('evaluate', str(bundle), str(tmp_path/'strangers.csv')), f'unknown {what} ids: 10000')

def test_serving_without_its_packages_says_what_to_install(bundle, monkeypatch):
    monkeypatch.setitem(sys.modules, 'recfast.workers', None)
    says(run('serve', str(bundle)), 'pip install recfast[serve]')

def test_ctrl_c_is_130(bundle, monkeypatch):
    import recfast.bundle
    def stop(path, model=None): raise KeyboardInterrupt
    monkeypatch.setattr(recfast.bundle, 'load_bundle', stop)
    res = run('recommend', str(bundle), '--user', '1')
    assert res.exit_code==130 and res.output.strip()=='recfast recommend: stopped'

@pytest.mark.slow
@pytest.mark.skipif(sys.platform=='win32', reason='signals')
def test_ctrl_c_on_a_real_process_leaves_nothing(ratings, tmp_path):
    args = [sys.executable, '-c', 'from recfast.cli import app; app()', 'train', str(ratings/'r.csv'), *NAMES, *ARCH, '--out', str(tmp_path/'b'), '--epochs', '100000']
    heeds = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL) # a parent in the background may have passed on that it does not
    with subprocess.Popen(args, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heeds) as p:
        p.stdout.readline() # the line before training
        time.sleep(1)
        p.send_signal(signal.SIGINT)
        try: _,err = p.communicate(timeout=60)
        finally: p.kill()
    assert p.returncode==130 and 'Traceback' not in err and list(tmp_path.iterdir())==[]

def test_a_warning_is_a_note_without_a_line_of_code(tmp_path):
    synth_ratings().assign(rating=lambda d: d.rating-1).to_csv(tmp_path/'r.csv', index=False)
    res = run('train', str(tmp_path/'r.csv'), '--arch', 'autorec', '--bs', '8', '--epochs', '1', '--out', str(tmp_path/'b'))
    assert res.exit_code==0 and 'Note: ' in res.stderr and '.py' not in res.stderr

# answers

def test_info_says_what_a_bundle_is(bundle):
    text = run('info', str(bundle)).stdout
    for part in ('dotproductbias','n_factors','training rows','ndcg@10','seed','torch'): assert part in text
    assert json.loads(run('info', str(bundle), '--json').stdout)==load_bundle(bundle).info

def test_info_counts_ids_and_rounds(bundle):
    facts,config = describe_bundle(bundle).set_index('what').value,load_bundle(bundle).info
    assert (facts['users'],facts['items'])==('50','40') and 'n_users' not in facts
    assert config['model']['config']['n_users']==51 # row 0 is nobody
    last = config['training']['last_epoch']
    assert facts['last_epoch']==f"train_loss {last['train_loss']:.4g}, valid_loss {last['valid_loss']:.4g}"
    assert facts['y_range']=='[0, 5.5]'

def test_a_model_without_a_table_of_users_has_users_too(ratings, tmp_path):
    assert train(ratings/'r.csv', tmp_path/'b', '--arch', 'ease', '--config', 'l2=0.00001').exit_code==0
    facts = describe_bundle(tmp_path/'b').set_index('what').value
    assert (facts['users'],facts['items'],facts['l2'])==('50','40','1e-05')

def test_an_unknown_user_at_the_shell_is_shown_the_way_of_the_shell(bundle):
    res = run('recommend', str(bundle), '--user', '999')
    says(res, 'unknown user id: 999. The model knows 50 users', '--history item:rating')
    assert 'history={' not in res.output

def test_items_can_be_named_and_left_out(bundle):
    out = run('recommend', str(bundle), '--user', '1', '--item', '3', '--item', '4', '--exclude-item', '4', '--include-seen', '--out', '-').stdout
    assert [o.split(',')[1] for o in out.splitlines()[1:]]==['3']

@pytest.mark.parametrize('name', ['r.parquet','r.csv','r.tsv'])
def test_lists_of_everybody_come_whole_in_any_chunks(bundle, tmp_path, name):
    from recfast.files import write_lists
    rec = load_bundle(bundle)
    for users in (1,7,1000):
        assert write_lists(rec, tmp_path/name, k=3, users=users)==150
        pd.testing.assert_frame_equal(read_table(tmp_path/name), rec.recommend(k=3), check_dtype=False, rtol=1e-5, atol=1e-6)

def test_a_batch_broken_off_leaves_the_file_that_was_there(tmp_path):
    def frames():
        yield pd.DataFrame({'a': [1]})
        raise RatingsError('no more')
    for name in ('x.parquet','x.csv'):
        (tmp_path/name).write_text('old')
        with pytest.raises(RatingsError, match='no more'): write_frames(tmp_path/name, frames())
        assert (tmp_path/name).read_text()=='old'
    assert len(list(tmp_path.iterdir()))==2

def test_brackets_in_titles_are_no_markup(capsys):
    from recfast.cli import show_table
    show_table(pd.DataFrame({'[b]': ['[/red] Movie','[link]']}), '[/x]')
    out = capsys.readouterr().out
    assert '[/red] Movie' in out and '[/x]' in out and '[b]' in out

def test_ids_that_look_like_nothing_are_ids(tmp_path):
    (tmp_path/'r.csv').write_text('user_id,item_id\nNA,null\nNA,b\nNone,null\n'*20, encoding='utf-8')
    assert read_table(tmp_path/'r.csv').iloc[2].tolist()==['None','null']

def test_settings_from_text():
    assert parse_config(['l2=500','by=user','layers=[1,2]','x=a=b','n=null'])==dict(l2=500, by='user', layers=[1,2], x='a=b', n=None)
    assert parse_range('0,5.5')==(0,5.5) and parse_range(None) is None

# any bytes, any table

CELL = st.one_of(st.integers(-3, 5).map(str), st.sampled_from(['','NaN','inf','1e400','a','김','"','1.5','-0','true','2020-01-01','\x00']))
TABLE = st.tuples(st.sampled_from(['user_id,item_id,rating','user_id,item_id','user_id,item_id,rating,timestamp','rating,user_id,item_id,rating','a,b','user_id;item_id','']),
    st.lists(st.lists(CELL, min_size=1, max_size=5).map(','.join), max_size=70)).map(lambda o: '\n'.join([o[0],*o[1]]).encode())
GOOD = st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 5)).map(lambda o: '{},{},{}'.format(*o)), min_size=5, max_size=70).map(
    lambda o: '\n'.join(['user_id,item_id,rating',*o]).encode())

@pytest.mark.slow
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.one_of(st.binary(max_size=200), TABLE, GOOD, st.binary(max_size=60).map(lambda b: b'user_id,item_id,rating\n1,2,3\n'+b)), name=st.sampled_from(['r.csv','r.tsv','r.parquet','r.csv.gz']),
       bs=st.sampled_from(['1','8']))
def test_any_file_gives_a_sentence_or_a_bundle(data, name, bs, tmp_path_factory):
    d = tmp_path_factory.mktemp('any')
    (d/name).write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        res = run('train', str(d/name), *ARCH, '--out', str(d/'b'), '--epochs', '1', '--n-factors', '2', '--bs', bs)
    assert res.exit_code in (0,2), (data,res.output,res.exception)
    if res.exit_code==0: assert len(load_bundle(d/'b').recommend(k=1, exclude_seen=False))
    else: assert res.stderr.startswith('recfast train: ') and not (d/'b').exists() and not (d/'b.html').exists()

# crashes

@pytest.fixture(scope='module')
def warm(ratings, tmp_path_factory):
    "Whatever a first training does once only is done"
    run_train(ratings/'r.csv', tmp_path_factory.mktemp('warm')/'b', **SMALL)

SMALL = dict(arch='dotproductbias', user_name='userId', item_name='movieId', epochs=1, n_factors=3, bs=200)

def train_forever(file, path, **kwargs):
    "A process of its own that trains again and again"
    pid = os.fork()
    if pid: return pid
    try:
        torch.set_num_threads(1) # the pool of threads stays in the parent, and who waits for it waits forever
        sys.stdout = sys.stderr = open(os.devnull, 'w')
        while True: run_train(file, path, **SMALL, **kwargs)
    finally: os._exit(1)

def kill(pid):
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)

def time_of_a_run(file, path):
    "Seconds that a training takes in such a process"
    start,pid = time.perf_counter(),train_forever(file, path)
    while not path.with_suffix('.html').exists():
        assert os.waitpid(pid, os.WNOHANG)==(0,0) and time.perf_counter()-start<120 # it is alive and gets on
        time.sleep(.01)
    wall = time.perf_counter()-start
    kill(pid)
    return wall

def killed_after(moments, file, tmp_path):
    "Trainings killed at these shares of a run, one after the other into one place: a whole bundle lies there or none; how often one did"
    out,seen,wall = tmp_path/'b',0,time_of_a_run(file, tmp_path/'first')
    for i,share in enumerate(moments):
        pid = train_forever(file, out, seed=i)
        time.sleep(share*wall)
        kill(pid)
        if (tmp_path/'b.html').exists(): assert (tmp_path/'b.html').read_text(encoding='utf-8').endswith('</html>')
        if not (out/'config.json').exists(): continue
        assert len(load_bundle(out).recommend(k=2))==100
        seen += 1
    return seen

needs_fork = pytest.mark.skipif(not hasattr(os, 'fork'), reason='needs fork')

@pytest.mark.slow
@needs_fork
def test_killed_at_every_stage_training_leaves_a_bundle_or_none(ratings, warm, tmp_path):
    stages = np.linspace(.2, 1.5, 12) # upwards where no bundle lies yet, then where one does
    assert killed_after([*stages,*stages[::3]], ratings/'r.csv', tmp_path)>6

@pytest.mark.weekly
@needs_fork
def test_killed_at_any_moment_training_leaves_a_bundle_or_none(ratings, warm, tmp_path):
    rng = random.Random(5)
    assert killed_after([rng.uniform(.2, 1.5) for _ in range(50)], ratings/'r.csv', tmp_path)>10

@pytest.mark.parametrize('arch', ['autorec','sasrec','dotproduct','ease'])
def test_small_tables_train_too(arch, tmp_path):
    synth_ratings(30, 20).to_csv(tmp_path/'r.csv', index=False)
    res = run('train', str(tmp_path/'r.csv'), '--arch', arch, '--epochs', '1', '--out', str(tmp_path/'b'))
    assert res.exit_code==0, res.output
    assert len(load_bundle(tmp_path/'b').recommend(k=3))

# without --arch

@pytest.mark.parametrize('named', [['--lr','0.01'], ['--wd','0.1'], ['--epochs','3'], ['--loss','softmax'], ['--n-factors','8'], ['--by-user'], ['--config','l2=5']])
def test_what_belongs_to_a_named_model_needs_arch(ratings, tmp_path, named):
    res = run('train', str(ratings/'r.csv'), *NAMES, '--out', str(tmp_path/'b'), *named)
    assert res.exit_code==2 and named[0] in res.output and '--arch' in res.output and not (tmp_path/'b').exists()

def test_without_arch_a_rater_and_a_ranker_are_chosen(ratings, tmp_path):
    res = run('train', str(ratings/'r.csv'), *NAMES, '--out', str(tmp_path/'b'), '--budget', '5')
    assert res.exit_code==0 and 'popularity' in res.output
    rec = load_bundle(tmp_path/'b')
    assert set(read_choice(rec).part)=={'rater','ranker'} and rec.recommend(k=2).predicted.notna().all()

def test_without_arch_clicks_get_a_ranker_a_report_and_a_map(tmp_path):
    synth_ratings(40, 20, 400)[['user_id','item_id']].drop_duplicates().to_csv(tmp_path/'clicks.csv', index=False)
    res = run('train', str(tmp_path/'clicks.csv'), '--out', str(tmp_path/'b'), '--budget', '3', '--report', str(tmp_path/'report.html'))
    assert res.exit_code==0 and 'not used' not in res.output and 'learn.choice' not in res.output, res.output
    assert set(read_choice(load_bundle(tmp_path/'b')).part)=={'ranker'} and 'Choice' in (tmp_path/'report.html').read_text(encoding='utf-8')
    res = run('train', str(tmp_path/'clicks.csv'), '--out', str(tmp_path/'c'), '--arch', 'ials', '--epochs', '1')
    item = str(load_bundle(tmp_path/'c').items.index[0])
    res = run('explore', str(tmp_path/'c'), '--out', str(tmp_path/'map.html'), '--history', item, '--by', 'pca', '--word', 'film', '--heading', 'Here')
    assert res.exit_code==0, res.output
    page = (tmp_path/'map.html').read_text(encoding='utf-8')
    assert '<h1>Here</h1>' in page and 'films by the first two principal components' in page and '"history":[0]' in page

def test_a_loss_and_batches_of_users_are_options(ratings, tmp_path):
    res = run('train', str(ratings/'r.csv'), *NAMES, '--out', str(tmp_path/'b'), '--arch', 'dotproduct', '--loss', 'softmax', '--by-user', '--epochs', '1')
    assert res.exit_code==0 and load_bundle(tmp_path/'b').info['loss']['name']=='SoftmaxLoss'
    res = run('train', str(ratings/'r.csv'), *NAMES, '--out', str(tmp_path/'c'), '--arch', 'dotproduct', '--budget', '5')
    assert res.exit_code==2 and '--budget' in res.output

# compare

def test_models_are_compared_in_one_table_and_one_report(tmp_path):
    rows = [(u,i,f'film {i}') for u in range(40) for i in 2*np.random.RandomState(u).choice(20, 10, replace=False)+u%2]
    pd.DataFrame(rows, columns=['user_id','item_id','title']).to_csv(tmp_path/'r.csv', index=False)
    page = tmp_path/'compare.html'
    res = run('compare', str(tmp_path/'r.csv'), '--arch', 'itemknn,rp3beta', '--out', str(page), '-k', '5', '--split', 'last', '--budget', '600')
    assert res.exit_code==0, res.output
    assert all(o in res.output for o in ('ndcg@5','itemknn','rp3beta','popularity','Chosen','test rows'))
    text = page.read_text(encoding='utf-8')
    assert text.count('<svg')==1 and text.count('<table')==5 and 'film ' in text and 'src=' not in text and text.endswith('</html>')
    assert all(f'<h2>{o}' in text for o in ('Lists beside popularity','Figures','For user 0','What was tried','Protocol'))

@pytest.mark.parametrize('args,says', [(['--arch','netflix'], 'there are auto, popularity, ease'), (['--arch','ease,ease'], 'named twice'),
    (['--item-name','film'], 'film'), (['--out','no/such/folder/c.html'], 'no/such/folder')])
def test_what_cannot_be_compared_is_a_sentence(tmp_path, args, says):
    synth_ratings(30, 20).to_csv(tmp_path/'r.csv', index=False)
    res = run('compare', str(tmp_path/'r.csv'), *args)
    assert res.exit_code==2 and says in ' '.join(res.output.split()) and 'Traceback' not in res.output
