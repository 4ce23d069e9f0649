"What tests of several rooms share: small loaders and learners, every model by its name, a server, a browser"
import contextlib
import shutil
import socket
import threading
import time

import numpy as np
import pandas as pd
import pytest
from fastai.layers import Embedding, sigmoid_range
from torch import nn

import recfast.all  # noqa: F401 (registers every model)
from recfast.data.loaders import CollabDataLoaders
from recfast.learner import collab_learner
from recfast.metrics import METRICS, rmse
from recfast.models.base import MODELS
from recfast.models.dot import EmbeddingDotBias
from recfast.models.ncf import init_xavier
from recfast.testing import synth_ratings

FRAME = synth_ratings()

def taste_clicks(n_users=200, n_items=60, n=12, seed=0, tastes=4, strength=1.2, popular=.7):
    "`n` choices of each person by tastes and popularity"
    rs = np.random.RandomState(seed)
    logits = strength*rs.randn(n_users, tastes)@rs.randn(tastes, n_items)
    if popular: logits += popular*rs.randn(n_items)
    picks = (logits+rs.gumbel(size=logits.shape)).argsort(1)[:,-n:]
    return pd.DataFrame(dict(user_id=np.repeat(np.arange(1, n_users+1), n), item_id=picks.ravel()+1)).sample(frac=1, random_state=0)

@pytest.fixture(autouse=True)
def registry():
    "What a test registers is gone after it; for the files that import it"
    before = dict(METRICS)
    yield
    METRICS.clear()
    METRICS.update(before)

# loaders, learners, training

def loaders(df=FRAME, **kwargs):
    "Loaders of ratings, split with seed 42"
    return CollabDataLoaders.from_df(df, **{'seed': 42, **kwargs})

def without_progress(learn):
    "A learner that shows neither bar nor table"
    learn.remove_cb(learn.progress)
    learn.logger = lambda *o: None
    return learn

def learner(dls=None, quiet=True, **kwargs):
    "A DotProductBias of five factors on `loaders()`"
    learn = collab_learner(dls or loaders(), **{'n_factors': 5, 'y_range': (0,5.5), 'metrics': rmse, **kwargs})
    return without_progress(learn) if quiet else learn

def fit(learn, *args, **kwargs):
    "`learn` after a fit of which nothing is shown"
    with learn.no_bar(), learn.no_logging(): learn.fit(*args, **kwargs)
    return learn

def fit_one_cycle(learn, n_epoch=1, lr=1e-2, **kwargs):
    "`learn` after one cycle of which nothing is shown"
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(n_epoch, lr, **kwargs)
    return learn

# every model by its name

class Handmade(nn.Module):
    "No base class, no y_range attribute, [B] out, names of its own"
    def __init__(self, n_users, n_items, n_factors, y_range):
        super().__init__()
        self.people,self.films,self.limits = Embedding(n_users,n_factors),Embedding(n_items,n_factors),y_range
    def forward(self, x): return sigmoid_range((self.people(x[:,0])*self.films(x[:,1])).sum(1), *self.limits)

ALL = {**MODELS, 'handmade': (Handmade,dict(MODELS['dotproduct'][1])),
    'embeddingdotbias': (EmbeddingDotBias,dict(MODELS['dotproductbias'][1]))}

def item_rows(df, bs, item_name='item_id', **kwargs):
    "Batches of item rows that hold about `bs` ratings"
    return CollabDataLoaders.rows_from_df(df, 'item', bs=max(1, bs*df[item_name].nunique()//len(df)), item_name=item_name, **kwargs)

def item_sequences(df, **kwargs): return CollabDataLoaders.sequences_from_df(df, **kwargs)

SEQUENCES = 'nextitem','sasrec','gru4rec','bert4rec','sequentialrules','twospeedridge' # their scores are no ratings: what they should find is in test_sequence.py
RANKERS = 'lightgcn','multvae' # trained on clicks
def drawn_clicks(df, **kwargs): return CollabDataLoaders.implicit_from_df(df, n_neg=4, **kwargs)

def user_rows(df, bs, **kwargs):
    "Batches of user rows that hold about `bs` clicks"
    return CollabDataLoaders.rows_from_df(df.assign(rating=1.), 'user', bs=max(1, bs*df.user_id.nunique()//len(df)), **kwargs)

LOADERS = dict(autorec=item_rows, lightgcn=drawn_clicks, multvae=user_rows, **dict.fromkeys(SEQUENCES, item_sequences)) # of models that do not train on pairs
CONFIG = dict(mlp=dict(init=init_xavier)) # from N(0, .01) it stays on the saddle of the blocks for longer than the few epochs here

def learner_of(name, df=FRAME, n_factors=5, **kwargs):
    "A learner of the model `name`, on loaders of the kind that it reads"
    dls = LOADERS.get(name, CollabDataLoaders.from_df)(df, **{'seed':42, 'bs':32, **kwargs})
    metrics = None if name in (*SEQUENCES,*RANKERS) else rmse
    y_range = None if name in RANKERS else (0,5.5)
    return collab_learner(dls, n_factors=n_factors, y_range=y_range, arch=ALL[name][0], metrics=metrics, config=CONFIG.get(name))

# a service

def served(df, y_range=(0,5.5), **kwargs):
    "A learner with something to recommend over HTTP"
    dls = CollabDataLoaders.from_df(df, bs=512, seed=42, **kwargs)
    return fit_one_cycle(collab_learner(dls, n_factors=20, y_range=y_range), 2, wd=0.1)

def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]

@contextlib.contextmanager
def thread_server(app, **config):
    "A real server on a free port of this machine"
    import uvicorn
    server = uvicorn.Server(uvicorn.Config(app, port=free_port(), log_level='warning', **config))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started: time.sleep(0.01)
    try: yield f'http://127.0.0.1:{server.config.port}'
    finally:
        server.should_exit = True
        thread.join(10)

# a browser; the fixtures `browser` and `visit` are in conftest.py

CHROMIUM = next(filter(None, map(shutil.which, ('chromium','chromium-browser','google-chrome','chrome'))), None)
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason='no Chromium on this machine (Debian: apt-get install chromium)')
DESKTOP = dict(width=1200, height=900)
PHONE = dict(width=375, height=800)
