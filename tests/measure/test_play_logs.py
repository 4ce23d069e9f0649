"Logs where items come again, with a known answer: the model that knows it is measured as right, and others are not"
import numpy as np
import pandas as pd
import pytest

from helpers import fit
from recfast.data.loaders import CollabDataLoaders
from recfast.learner import collab_learner
from recfast.models.ease import EASE
from recfast.models.linear import Popularity
from recfast.models.rules import SequentialRules

pytestmark = pytest.mark.filterwarnings('ignore')

def plays(n_users=60, n_lists=8, length=14):
    "Each person plays one of a few lists of three songs over and over: the next song is known, and always met before"
    rows = [(u,f'{u%n_lists}{"abc"[(u//n_lists+t)%3]}',t) for u in range(n_users) for t in range(length)]
    return pd.DataFrame(rows, columns=['user_id','item_id','timestamp'])

def ranked(arch, loaders, **config):
    learn = fit(collab_learner(loaders, arch=arch, config=config), 1)
    return learn.evaluate(k=1, metrics=['recall','ndcg'], exclude_seen=False, baseline=False)

SEQUENCES = CollabDataLoaders.sequences_from_df(plays(), seed=0, bs=16)

@pytest.mark.parametrize('lags', [1,15])
def test_the_model_that_knows_what_follows_is_right_every_time(lags):
    ev = ranked(SequentialRules, SEQUENCES, lags=lags)
    assert ev['recall@1']==ev['ndcg@1']==1 and len(ev.per_user)==60
    assert '60 users' in ev.protocol and 'exclude_seen=False' in ev.protocol

def test_models_of_sets_know_the_list_and_not_the_song():
    from recfast.data.split import leave_last_out
    dls = CollabDataLoaders.implicit_from_df(plays(), n_neg=0, seed=0, bs=64, splits=leave_last_out)
    three = fit(collab_learner(dls, arch=EASE), 1).evaluate(k=3, metrics='recall', exclude_seen=False, baseline=False)
    one = ranked(EASE, dls)
    assert three['recall@3']==1 and one['recall@1']<.6 and ranked(Popularity, dls)['recall@1']<.2

def test_with_seen_songs_left_out_nothing_is_left_to_find_and_that_is_said():
    learn = fit(collab_learner(SEQUENCES, arch=SequentialRules), 1)
    ev = learn.evaluate(k=1, metrics='recall', baseline=False)
    assert len(ev.per_user)==0 and np.isnan(ev['recall@1'])
    assert '0 users' in ev.protocol and '60 test rows repeat a pair and count once or, left out as seen, not at all' in ev.protocol
