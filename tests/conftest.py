import os
import random
from pathlib import Path
from urllib.parse import urlsplit

os.environ.setdefault('OMP_NUM_THREADS', '1') # before torch: where two files run at a time, threads that spin for each other cost a factor of ten and more

import matplotlib
matplotlib.use('Agg')
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from hypothesis import settings

settings.register_profile('busy', deadline=None) # how long an example takes says how busy the machine is
settings.load_profile('busy')

def pytest_collection_modifyitems(config, items):
    "Tests marked weekly run where they are asked for"
    if 'weekly' in config.option.markexpr: return
    weekly = [o for o in items if o.get_closest_marker('weekly')]
    items[:] = [o for o in items if o not in weekly]
    if weekly: config.hook.pytest_deselected(items=weekly)

def threads(n):
    "A fixture: torch has `n` threads, then as many as before"
    @pytest.fixture
    def fixture():
        before = torch.get_num_threads()
        torch.set_num_threads(n)
        yield
        torch.set_num_threads(before)
    return fixture

one_thread,two_threads = threads(1),threads(2)

@pytest.fixture(scope='session')
def ml100k_dir():
    "The folder of MovieLens-100k, or a skip (a failure where RECFAST_REQUIRE_DATA=1)"
    path = Path(os.environ.get('RECFAST_DATA', 'missing'))/'ml-100k'
    if not (path/'u.data').exists():
        msg = "set RECFAST_DATA to the folder that holds ml-100k"
        pytest.fail(msg) if os.environ.get('RECFAST_REQUIRE_DATA')=='1' else pytest.skip(msg)
    return path

@pytest.fixture(autouse=True)
def _same_start_and_no_figures():
    "Every test starts from the same global random state; figures it leaves open are closed"
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    yield
    plt.close('all')

FLAGS = [f'--{o}' for o in ('no-sandbox','disable-gpu','disable-quic','no-first-run','disable-background-networking',
                            'disable-component-update','disable-sync','in-process-gpu')]

@pytest.fixture(scope='module')
def browser():
    from playwright.sync_api import sync_playwright

    from helpers import CHROMIUM
    with sync_playwright() as p:
        b = p.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield b
        b.close()

@pytest.fixture
def visit(browser):
    "Open a page; at the end nothing was complained of and nothing was asked of anyone else"
    pages,wrong = [],[]
    def _visit(url, expected=(), **kwargs):
        page = browser.new_page(**kwargs)
        pages.append(page)
        page.on('console', lambda m: m.type in ('error','warning') and not any(o in m.text for o in expected) and wrong.append(m.text))
        page.on('pageerror', lambda e: wrong.append(str(e)))
        page.on('request', lambda r: urlsplit(r.url).netloc==urlsplit(url).netloc or wrong.append(r.url))
        page.goto(url)
        return page
    yield _visit
    for p in pages: p.close()
    assert wrong==[]
