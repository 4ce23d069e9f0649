"What a service notes: nothing acknowledged is lost, nothing torn is read, nobody is named"
import multiprocessing as mp
import os
import signal
import threading
import time

import pytest
from hypothesis import given, settings, strategies as st
from typer.testing import CliRunner

from recfast import events
from recfast.arms import arm_of
from recfast.cli import app
from recfast.core import RecfastError
from recfast.events import EventLog, forget_events, new_request, read_events, read_key, was_issued
from recfast.journal import Journal, framed, left_behind, whole_records

ROWS = [dict(user_id=7, item_id=i, rank=r) for r,i in enumerate((3,5,9), 1)]

def shown(log, rows=ROWS, **kwargs):
    people = {o['user_id'] for o in rows}
    asked = new_request(log.key, log.name_of(people.pop()) if len(people)==1 else None)
    log.show(asked, rows, len(rows), several=len({o['user_id'] for o in rows})>1, **kwargs)
    return asked

# the journal

values = st.one_of(st.none(), st.booleans(), st.integers(-2**53, 2**53), st.text(), st.floats(allow_nan=False, allow_infinity=False))
records = st.lists(st.dictionaries(st.text(min_size=1), values, max_size=4), max_size=5)

@settings(max_examples=30, deadline=None)
@given(records, st.integers(0, 300))
def test_of_any_cut_the_whole_records_are_read(some, cut):
    data = b''.join(map(framed, some))
    found,n = whole_records(data[:max(0, len(data)-cut)])
    assert found==some[:len(found)] and n==len(b''.join(map(framed, found)))
    assert cut or found==some

@settings(max_examples=30, deadline=None)
@given(records.filter(bool), st.data())
def test_a_changed_byte_ends_what_is_read(some, data):
    whole = b''.join(map(framed, some))
    at = data.draw(st.integers(0, len(whole)-1))
    found,_ = whole_records(whole[:at]+bytes([whole[at]^1])+whole[at+1:])
    assert found==some[:len(found)] and len(found)<len(some)

def test_a_full_disk_leaves_the_file_as_it_was(tmp_path):
    log = Journal(tmp_path/'a.journal')
    log.add([dict(a=1)])
    class Full:
        def __init__(self, file): self.file = file
        def __getattr__(self, name): return getattr(self.file, name)
        def write(self, data):
            if len(data)<12: raise OSError(28, 'No space left on device')
            return self.file.write(data[:6])
    log.file = Full(log.file)
    with pytest.raises(OSError, match='No space'): log.add([dict(b=2)])
    assert whole_records(log.path.read_bytes())==([dict(a=1)],log.size)
    log.file = log.file.file
    log.add([dict(c=3)])
    assert whole_records(log.path.read_bytes())[0]==[dict(a=1),dict(c=3)]

def test_killed_between_table_and_journal_nothing_counts_twice(tmp_path):
    log = EventLog(tmp_path/'log')
    shown(log)
    log.flush()
    log.journal.file.close()
    copy = log.journal.path.read_bytes()
    log._seal(log.journal.path)
    log.journal.path.write_bytes(copy) # the journal had not gone yet
    assert len(read_events(tmp_path/'log'))==3
    again = EventLog(tmp_path/'log')
    assert again.recovered[0]['records']==1 and len(read_events(tmp_path/'log'))==3
    again.close()

# killed

def tell(folder, pipe):
    log = EventLog(folder)
    log.start()
    asked = shown(log)
    for n in range(10_000):
        log.add(asked, 'click', n)
        pipe.send(n) # acknowledged
        if n%7==0: shown(log)

def test_killed_fifty_times_every_acknowledged_event_is_read(tmp_path):
    context,folder,said = mp.get_context('fork'),tmp_path/'log',0
    for n in range(50):
        here,there = context.Pipe(False)
        child = context.Process(target=tell, args=(folder,there))
        child.start()
        there.close()
        assert here.poll(60)
        time.sleep(.002*(n%10))
        child.kill()
        child.join()
        assert child.exitcode==-signal.SIGKILL
        try:
            while True:
                here.recv()
                said += 1
        except (EOFError,OSError): pass
        here.close()
    EventLog(folder).close()
    df = read_events(folder)
    clicks = df[df.kind=='click']
    assert 50<=said<=len(clicks)<=said+50 # of each child one may have been written and not yet said
    for _,o in clicks.groupby('request_id'): assert o.item_id.tolist()==list(range(len(o)))
    assert {o.suffix for o in folder.iterdir()}=={'','.parquet'}

def test_a_torn_tail_is_cut_and_counted(tmp_path):
    folder = tmp_path/'log'
    log = EventLog(folder)
    log.add(shown(log), 'click', 3)
    log.flush()
    log.journal.file.write(framed(dict(kind='torn'))[:-2])
    log.journal.file.close()
    again = EventLog(folder)
    assert again.recovered==[dict(records=2, cut_bytes=len(framed(dict(kind='torn')))-2)]
    assert sorted(read_events(folder).kind)==['click','impression','impression','impression']
    again.close()

# several at once

def test_several_processes_and_threads_write_one_folder(tmp_path):
    logs = [EventLog(tmp_path/'log') for _ in range(2)]
    assert list(left_behind(tmp_path/'log'))==[] # both are held
    def work(log):
        for _ in range(20): log.add(shown(log), 'click', 5)
    threads = [threading.Thread(target=work, args=(o,)) for o in logs for _ in range(3)]
    for o in threads: o.start()
    for o in threads: o.join()
    for o in logs: o.close()
    df = read_events(tmp_path/'log')
    assert df.kind.value_counts().to_dict()=={'impression': 360, 'click': 120}

def test_impressions_in_memory_are_bounded_and_what_is_lost_is_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(events, 'WAITING', 5)
    log = EventLog(tmp_path/'log')
    shown(log)
    shown(log)
    assert (log.n_waiting,log.lost)==(3,3) # a list is noted whole or not at all
    log.close()
    assert len(read_events(tmp_path/'log'))==3

def test_a_journal_is_sealed_when_it_is_large_and_old_tables_go(tmp_path):
    log = EventLog(tmp_path/'log', seal_mb=1e-6, keep_days=1)
    old = tmp_path/'log'/f'{int((time.time()-2*86400)*1e9)}-1.parquet'
    shown(log)
    log.care()
    old.write_bytes(next((tmp_path/'log').glob('*.parquet')).read_bytes())
    assert len(read_events(tmp_path/'log'))==6
    shown(log)
    log.care()
    assert not old.exists() and len(read_events(tmp_path/'log'))==6
    log.close()

def test_a_journal_that_is_new_is_left_to_its_process_until_it_is_old(tmp_path):
    new = tmp_path/'1-1.journal'
    new.write_bytes(b'') # its process has not got hold of it yet
    assert list(left_behind(tmp_path))==[]
    os.utime(new, (0,0))
    assert list(left_behind(tmp_path))==[new]

def test_of_two_that_start_together_one_seals_what_was_left(tmp_path):
    (tmp_path/'1-1.journal').write_bytes(framed(dict(a=1)))
    assert [list(left_behind(tmp_path)) for _ in left_behind(tmp_path)]==[[]] # held while it is looked at

def test_a_journal_that_becomes_a_table_while_one_reads_is_read_once(tmp_path, monkeypatch):
    log = EventLog(tmp_path/'log')
    log.add(shown(log), 'click', 3)
    found = events._journals
    def then_sealed(folder):
        out = found(folder)
        log.turn()
        return out
    monkeypatch.setattr(events, '_journals', then_sealed)
    log.flush()
    assert len(read_events(tmp_path/'log'))==4
    log.close()

# names

def test_no_id_of_a_person_is_in_the_folder(tmp_path):
    log = EventLog(tmp_path/'log')
    log.add(shown(log, [dict(user_id='Ann Unique', item_id='Alien', rank=1)]), 'click', 'Alien', user_id='Ann Unique')
    log.close()
    forget_events(tmp_path/'log', 'Somebody Else')
    data = b''.join(o.read_bytes() for o in (tmp_path/'log').iterdir())
    assert b'Unique' not in data and b'Somebody' not in data and b'Alien' in data
    assert os.name!='posix' or oct((tmp_path/'log'/'key').stat().st_mode)[-3:]=='600'

@pytest.mark.parametrize('raw', [False,True])
def test_who_is_forgotten_is_gone_from_tables_and_from_a_journal(tmp_path, raw):
    folder = tmp_path/'log'
    log = EventLog(folder, raw_ids=raw)
    mine,theirs = shown(log),shown(log, [dict(user_id='other', item_id=3, rank=1)])
    log.add(mine, 'click', 3)
    log.flush()
    log.turn()
    log.add(mine, 'buy', 5) # its list is in another table
    log.add(theirs, 'click', 3)
    assert forget_events(folder, 7, raw_ids=raw)==dict(removed=4, in_journals=1)
    assert read_events(folder).request_id.unique().tolist()==[theirs]
    later = shown(log) # who comes again is noted again
    log.close()
    df = read_events(folder)
    assert set(df.request_id)=={theirs,later} and set(df.user_key)=={log.name_of('other'),log.name_of(7)}

def test_an_event_of_a_list_for_several_people_needs_its_person(tmp_path):
    log = EventLog(tmp_path/'log')
    asked = shown(log, [dict(user_id=o, item_id=3, rank=1) for o in (1,2)])
    log.add(asked, 'click', 3)
    log.add(asked, 'click', 3, user_id=2)
    log.close()
    clicks = read_events(tmp_path/'log').query('kind=="click"')
    assert clicks.user_key.isna().tolist()==[True,False] and clicks.user_key.iloc[1]==log.name_of(2)

@given(st.text(max_size=60))
def test_a_request_carries_whose_it_was_and_stands_in_a_header(name):
    asked = new_request(b'0'*32, name)
    assert asked.isascii() and asked.isprintable() and was_issued(b'0'*32, asked)
    assert not was_issued(b'0'*32, asked+'x') and not was_issued(b'1'*32, asked)

@given(st.text(max_size=60))
def test_no_made_up_request_was_issued(text): assert not was_issued(b'0'*32, text)

def test_a_key_is_made_once_and_short_ones_are_refused(tmp_path):
    assert read_key(tmp_path/'key')==read_key(tmp_path/'key')
    (tmp_path/'other').write_text('\n')
    with pytest.raises(RecfastError, match='expected a key of 16'): EventLog(tmp_path/'log', key_file=tmp_path/'other')

def test_what_is_no_log_is_said(tmp_path):
    with pytest.raises(RecfastError, match='no events'): read_events(tmp_path)
    with pytest.raises(RecfastError, match='no such folder'): forget_events(tmp_path/'none', 7)

# the shell

def run(*args): return CliRunner().invoke(app, [str(o) for o in args])

def test_a_shell_compares_arms_makes_a_table_that_trains_and_forgets(tmp_path):
    log = EventLog(tmp_path/'log')
    shares = dict(main=.5, other=.5)
    for n in range(300):
        arm = arm_of(log.name_of(n), shares)
        asked = shown(log, [dict(user_id=n, item_id=i, rank=r) for r,i in enumerate((n%7,7+n%5), 1)], arm=arm)
        for i in (n%7,7+n%5)[:1+(n%4==0)]*(2 if arm=='other' else 1): log.add(asked, 'click', i)
    log.close()
    res = run('ab', tmp_path/'log', '--share', 'main=.5', '--share', 'other=.5')
    assert res.exit_code==0 and 'other: more than main' in res.output and 'dealt as was set' in res.output
    assert 'was not checked' in run('ab', tmp_path/'log').output
    assert run('ab', tmp_path/'log', '--share', 'main').exit_code==2 and run('ab', tmp_path/'none').exit_code==2
    assert run('events', 'table', tmp_path/'log', '--out', tmp_path/'done.csv').exit_code==0
    res = run('train', tmp_path/'done.csv', '--event-name', 'event', '--event-weights', 'click=1', '--arch', 'popularity', '--out', tmp_path/'b.recfast')
    assert res.exit_code==0, res.output
    n = len(read_events(tmp_path/'log'))
    assert run('events', 'forget', tmp_path/'log', 5).exit_code==0 and len(read_events(tmp_path/'log'))<n
