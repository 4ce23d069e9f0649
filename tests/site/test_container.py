"The container: what it must not be, and its RUN and CMD lines in an empty folder, as somebody who owns nothing there"
import contextlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import pytest
import yaml

from helpers import fit_one_cycle, free_port
from recfast.data.loaders import CollabDataLoaders
from recfast.learner import collab_learner
from recfast.models.linear import Popularity
from recfast.testing import synth_ratings

ROOT = Path(__file__).parents[2]

def instructions(text):
    "(instruction, argument) of a Dockerfile, comments left out"
    text = re.sub(r'^\s*#.*\n', '', text, flags=re.M).replace('\\\n', ' ')
    return [tuple(o.strip().split(None, 1)) for o in text.splitlines() if o.strip()]

LINES = instructions((ROOT/'Dockerfile').read_text(encoding='utf-8'))

def of(name, lines=LINES): return [arg for o,arg in lines if o==name]

def lint(lines):
    "What is wrong with a Dockerfile"
    if any(o not in ('ARG','FROM','WORKDIR','COPY','RUN','ENV','USER','EXPOSE','HEALTHCHECK','CMD') for o,_ in lines): yield 'an instruction that is not expected'
    users = of('USER', lines)
    if not users or re.match(r'(root|0)\b', users[-1]) or not re.fullmatch(r'[1-9]\d*:[1-9]\d*', users[-1]): yield 'runs as root, or as a name that a cluster cannot check'
    if not of('HEALTHCHECK', lines) or of('HEALTHCHECK', lines)[-1].startswith('NONE'): yield 'no health check'
    for o in of('CMD', lines)+[o.partition('CMD ')[2] for o in of('HEALTHCHECK', lines)]:
        try: json.loads(o)
        except ValueError: yield 'a shell stands between the service and its signals'
    if 'PIP_INDEX_URL' not in of('ARG', lines): yield 'the package index is no build argument'
    hosts = re.findall(r'https?://([\w.-]+)', ' '.join(f'{a} {b}' for a,b in lines))
    if set(hosts)-{'127.0.0.1'}: yield f'names a host: {hosts}'
    bases = [dict(o.split('=', 1) for o in of('ARG', lines) if '=' in o).get(b[2:-1], b) if b.startswith('${') else b for b in (o.split()[0] for o in of('FROM', lines))]
    if any(':' not in o or o.endswith(':latest') for o in bases): yield 'a base without a version'
    if any('pip' in o and '--no-cache-dir' not in o for o in of('RUN', lines)): yield 'keeps a cache of packages'

def test_nothing_is_wrong_with_the_dockerfile(): assert list(lint(LINES))==[]

@pytest.mark.parametrize('old,new,said', [('USER 10001:10001', 'USER root', 'as root'), ('HEALTHCHECK', 'HEALTHCHECK NONE', 'no health check'), ('CMD ["recfast", "serve"', 'CMD recfast serve "', 'a shell'),
    ('ARG PIP_INDEX_URL', 'ARG OTHER', 'no build argument'), ('--no-cache-dir', '', 'a cache'), ('python:3.12-slim', 'python', 'without a version'),
    ('WORKDIR /src', 'RUN curl http://example.org', 'names a host'), ('COPY . .', 'ADD . .', 'not expected')])
def test_what_is_wrong_would_be_seen(old, new, said):
    text = (ROOT/'Dockerfile').read_text(encoding='utf-8')
    assert old in text and any(said in o for o in lint(instructions(text.replace(old, new))))

def test_the_compose_file_keeps_the_service_from_writing_and_asks_for_a_token():
    told = yaml.safe_load((ROOT/'compose.yaml').read_text(encoding='utf-8'))
    for o in told['services'].values():
        assert o['read_only'] and o['cap_drop']==['ALL'] and o['security_opt']==['no-new-privileges:true']
        assert all(p.startswith('127.0.0.1:') for p in o['ports'])
    ours,prometheus = told['services']['recfast'],told['services']['prometheus']
    assert '${RECFAST_TOKEN:?' in ours['environment']['RECFAST_TOKEN'] and './models:/models:ro' in ours['volumes'] and ours['tmpfs']==['/tmp']
    jobs = yaml.safe_load(told['configs']['prometheus']['content'])['scrape_configs']
    assert jobs[0]['static_configs'][0]['targets']==['recfast:8000'] and jobs[0]['authorization']['credentials_file']=='/run/secrets/token'
    assert {o['source'] for o in prometheus['configs']}<=set(told['configs']) and set(prometheus['secrets'])<=set(told['secrets'])
    import typer
    from recfast.cli import app
    known = {o for p in typer.main.get_command(app).commands['serve'].params for o in p.opts}
    for command in (ours['command'],json.loads(of('CMD')[0])):
        assert command[:2]==['recfast','serve'] and {o for o in command if o.startswith('--')}<=known

@pytest.mark.skipif(shutil.which('hadolint') is None, reason='no hadolint on this machine')
def test_hadolint_finds_nothing(): subprocess.run(['hadolint',ROOT/'Dockerfile'], check=True)

def docker_runs():
    with contextlib.suppress(OSError): return subprocess.run(['docker','info'], capture_output=True).returncode==0
    return False

@pytest.mark.weekly
@pytest.mark.skipif(not docker_runs(), reason='`docker info` fails: no daemon to build with')
def test_the_container_is_built(): subprocess.run(['docker','build','-q',ROOT], check=True)

@pytest.fixture
def root(tmp_path):
    "An empty folder in place of /, its owner somebody else where this process may say so"
    home = tmp_path/'root'
    for o in ('src','opt','tmp','models'): (home/o).mkdir(parents=True)
    for o in (ROOT/'.dockerignore').read_text(encoding='utf-8').splitlines():
        if not o.startswith('!'): continue
        copy = shutil.copytree if (ROOT/o[1:]).is_dir() else shutil.copy
        copy(ROOT/o[1:], home/'src'/o[1:], **(dict(ignore=shutil.ignore_patterns('__pycache__')) if copy is shutil.copytree else {}))
    learn = collab_learner(CollabDataLoaders.implicit_from_df(synth_ratings(30, 25, 500), n_neg=0, valid_pct=0), arch=Popularity)
    fit_one_cycle(learn).save_bundle(home/'models'/'a.recfast')
    if os.geteuid()==0:
        subprocess.run(['chmod','a+x',*[str(o) for o in tmp_path.parents if o.owner()=='root' and len(o.parts)>2]], check=True)
        subprocess.run(['chown','-R','10001:10001',tmp_path], check=True)
    return home

@pytest.mark.weekly
@pytest.mark.skipif(os.name!='posix', reason='users are those of a POSIX system')
@pytest.mark.parametrize('other', [False,True], ids=['as oneself','as another user'])
def test_its_lines_run_in_an_empty_folder(root, other):
    if other and os.geteuid()!=0: pytest.skip('only root may be another user')
    who = dict(user=10001, group=10001, extra_groups=[]) if other else {}
    port = free_port()
    def here(text): return re.sub(r'(?<![\w.])/(opt|src|models|events|tmp)\b', lambda m: f'{root}{m[0]}', text).replace('8000', str(port))
    given = dict(o.split('=', 1) for o in here(of('ENV')[0]).replace('$PATH', os.environ['PATH']).split())
    packages = dict(PYTHONPATH=sysconfig.get_paths()['purelib'], PIP_NO_INDEX='1', PIP_NO_DEPS='1', PIP_NO_BUILD_ISOLATION='0', PIP_DISABLE_PIP_VERSION_CHECK='1')
    env = dict(given, **packages, LANG='C.UTF-8')
    def run(command, cwd): return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, **who)
    python = Path(sys.executable).resolve()
    try: may = run([python,'-c','import torch'], root).returncode==0
    except PermissionError: may = False
    if other and not may: pytest.skip('another user may not read the packages of this environment')
    for o in of('RUN'):
        words = [str(python) if w=='python' else w for w in shlex.split(here(o)) if w not in ('-o','-g','10001')]
        res = run(words, root/'src')
        assert res.returncode==0, (o,res.stderr)
    assert run([root/'opt/recfast/bin/python','-c','import recfast; print(recfast.__file__)'], root).stdout.startswith(f'{root}/opt')
    before = {o for o in root.rglob('*') if root/'tmp' not in o.parents}
    server = subprocess.Popen(json.loads(here(of('CMD')[0])), cwd=root, env=env, stderr=subprocess.PIPE, text=True, **who)
    try:
        check = json.loads(here(of('HEALTHCHECK')[0].partition('CMD ')[2]))
        healthy,end = False,time.time()+60
        while not healthy and server.poll() is None and time.time()<end:
            time.sleep(.5)
            healthy = run(check, root).returncode==0
        assert healthy, server.communicate(timeout=5)[1]
        assert {o for o in root.rglob('*') if root/'tmp' not in o.parents and '__pycache__' not in str(o)}<=before # a read-only root is enough
    finally:
        server.terminate()
        server.communicate(timeout=30)
    assert server.returncode==0
