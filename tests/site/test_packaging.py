import configparser
import json
import os
import shutil
import subprocess
import sys
import zipfile
from email import message_from_string
from importlib.util import find_spec
from pathlib import Path

import pytest

if sys.version_info>=(3,11): import tomllib
else: import tomli as tomllib

ROOT = Path(__file__).parents[2]
# a field of [project] -> (section, key) of setup.cfg; key None: the section itself
WHERE = {'version': ('metadata','version'), 'description': ('metadata','description'), 'readme': ('metadata','long_description'),
    'license': ('metadata','license'), 'authors': ('metadata','author'), 'keywords': ('metadata','keywords'), 'classifiers': ('metadata','classifiers'),
    'name': ('metadata','name'), 'urls': ('metadata','project_urls'), 'requires-python': ('options','python_requires'),
    'dependencies': ('options','install_requires'), 'optional-dependencies': ('options.extras_require',None),
    'scripts': ('options.entry_points','console_scripts'), 'entry-points': ('options.entry_points','nbdev')}

@pytest.fixture(scope='module')
def configs():
    cfg = configparser.ConfigParser()
    cfg.read(ROOT/'setup.cfg', encoding='utf-8')
    return tomllib.loads((ROOT/'pyproject.toml').read_text(encoding='utf-8')),cfg

def stands_in(cfg, field):
    section,key = WHERE[field]
    return cfg.has_section(section) if key is None else cfg.has_option(section, key)

def test_no_fact_stands_in_both_files(configs):
    toml,cfg = configs
    assert [k for k in toml['project'] if k!='dynamic' and stands_in(cfg, k)]==[]

def test_every_dynamic_field_stands_in_setup_cfg(configs):
    toml,cfg = configs
    assert [k for k in toml['project']['dynamic'] if not stands_in(cfg, k)]==[]

def test_every_fact_of_setup_cfg_is_declared_dynamic(configs):
    toml,cfg = configs
    assert {k for k in WHERE if stands_in(cfg, k)}==set(toml['project']['dynamic'])

@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
    "The wheel, built from a copy so that the checkout stays clean"
    tmp = tmp_path_factory.mktemp('wheel')
    (tmp/'src').mkdir()
    shutil.copytree(ROOT/'recfast', tmp/'src'/'recfast', ignore=shutil.ignore_patterns('__pycache__'))
    for name in ('pyproject.toml','setup.cfg','README.md','LICENSE'):
        if (ROOT/name).exists(): shutil.copy(ROOT/name, tmp/'src'/name)
    isolation = ['--no-build-isolation'] if find_spec('setuptools') and find_spec('wheel') else []
    res = subprocess.run([sys.executable,'-m','pip','wheel','-q','--no-deps',*isolation,'-w',str(tmp),str(tmp/'src')], capture_output=True, text=True)
    assert res.returncode==0, res.stderr
    return next(tmp.glob('recfast-*.whl'))

@pytest.mark.slow
def test_the_wheel_says_what_it_needs(wheel):
    with zipfile.ZipFile(wheel) as z:
        names = z.namelist()
        meta = message_from_string(z.read(next(n for n in names if n.endswith('METADATA'))).decode('utf-8'))
        points = z.read(next(n for n in names if n.endswith('entry_points.txt'))).decode('utf-8')
    needs = ' '.join(meta.get_all('Requires-Dist'))
    assert all(o in needs for o in ('fastai','pandas','pyarrow','typer','rich')) and 'dev' in meta.get_all('Provides-Extra')
    assert meta['Requires-Python']=='>=3.10' and meta['License-Expression' if meta['License-Expression'] else 'License']=='Apache-2.0'
    assert 'recfast = recfast.cli:app' in points and 'recfast = recfast._modidx:d' in points
    assert {'recfast/models/dot.py','recfast/data/loaders.py','recfast/data/solo.csv'}<=set(names)
    assert not [n for n in names if not n.startswith(('recfast/','recfast-'))]

TRY = """
import warnings; warnings.simplefilter('ignore')
import json,recfast,recfast.models.dot
from recfast.all import *
print(json.dumps([recfast.__file__, recfast.models.dot.__file__, recfast.__version__, solo().shape]))
"""

@pytest.mark.slow
def test_the_wheel_works_outside_the_checkout(wheel, tmp_path):
    subprocess.run([sys.executable,'-m','pip','install','-q','--no-deps','--target',str(tmp_path),str(wheel)], check=True, capture_output=True)
    env = {**os.environ, 'PYTHONPATH': str(tmp_path)}
    res = subprocess.run([sys.executable,'-c',TRY], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert res.returncode==0, res.stderr
    package,dot,version,shape = json.loads(res.stdout.splitlines()[-1])
    assert Path(package)==tmp_path/'recfast'/'__init__.py' and Path(dot)==tmp_path/'recfast'/'models'/'dot.py'
    assert version==wheel.name.split('-')[1] and len(shape)==2 and shape[0]>5
