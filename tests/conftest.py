import os
import random
from pathlib import Path

import matplotlib
matplotlib.use('Agg')
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch


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
