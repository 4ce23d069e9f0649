import os
from pathlib import Path

import pytest


@pytest.fixture(scope='session')
def ml100k_dir():
    "The folder of MovieLens-100k, or a skip (a failure where RECFAST_REQUIRE_DATA=1)"
    path = Path(os.environ.get('RECFAST_DATA', 'missing'))/'ml-100k'
    if not (path/'u.data').exists():
        msg = "set RECFAST_DATA to the folder that holds ml-100k"
        pytest.fail(msg) if os.environ.get('RECFAST_REQUIRE_DATA')=='1' else pytest.skip(msg)
    return path
