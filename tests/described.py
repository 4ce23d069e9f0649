"Clicks and stars of films and people of whom something is known, a tenth of the films new; what every model of features is asked"
import numpy as np
import pandas as pd
import torch

from helpers import fit_one_cycle
from recfast.bundle import load_bundle
from recfast.data.catalogues import movie_night_films
from recfast.data.datasets import movie_night
from recfast.data.loaders import CollabDataLoaders
from recfast.models.base import score_items, score_pairs

NIGHT,FILMS = movie_night(),movie_night_films()
PEOPLE = pd.DataFrame(dict(user_id=np.arange(1, 601), age=20.+np.arange(600)%50, kind=np.tile(['a','b','c'], 200)))
COLD = np.arange(5, 300, 10)
IS_COLD = NIGHT.item_id.isin(COLD).to_numpy()
SPLITS = np.flatnonzero(~IS_COLD),np.flatnonzero(IS_COLD)
HOW = dict(bs=512, seed=0, splits=SPLITS, items=FILMS, users=PEOPLE)

def stars(**kwargs): return CollabDataLoaders.from_df(NIGHT, **{**HOW, **kwargs})
def clicks(n_neg=0, **kwargs): return CollabDataLoaders.implicit_from_df(NIGHT, n_neg=n_neg, **{**HOW, **kwargs})

def trainer(kinds):
    "A function that trains a learner of a kind once"
    trained = {}
    def of(kind):
        if kind not in trained: trained[kind] = fit_one_cycle(kinds[kind](), 2, 1e-2)
        return trained[kind]
    return of

def tells(kind): return kind in ('stars','levels')

def same_for_all_items(learn):
    "Scores of all items are those of its forward"
    users,n = torch.tensor([3,1,50,3]),learn.dls.n_items
    pairs = torch.stack([users.repeat_interleave(n),torch.arange(n).repeat(4)], 1)
    torch.testing.assert_close(score_items(learn.model, users, n).cpu(), score_pairs(learn.model, pairs).view(4, n), rtol=1e-5, atol=1e-5)

def same_from_a_bundle(learn, kind, path):
    "Lists of known people and of somebody new come back; the loaded recommender"
    rec = load_bundle(learn.save_bundle(path))
    users = [3,4,5,60]
    pd.testing.assert_frame_equal(rec.recommend(users, k=300), learn.recommend(users, k=300), rtol=1e-5, atol=1e-5)
    told = {7: 4.,8: 2.} if tells(kind) else [7,8]
    pd.testing.assert_frame_equal(rec.recommend(history=told, k=20), learn.recommend(history=told, k=20), rtol=1e-4, atol=1e-4)
    return rec

def near_the_same_person_known(learn, kind):
    "Somebody told by a history is scored near the same person known"
    mine = NIGHT[(NIGHT.user_id==7)&~IS_COLD]
    told = dict(zip(mine.item_id, mine.rating)) if tells(kind) else mine.item_id.tolist()
    a = learn.recommend(history=told, k=300).set_index('item_id').score
    b = learn.recommend(7, k=300).set_index('item_id').score
    both = a.index.intersection(b.index) # own rows stand in neither
    assert len(both)>100 and np.corrcoef(a[both], b[both])[0,1]>.6

def reasons_that_sum_to_scores(learn):
    "What features add, of known and of new films, for someone known and for a history; the frames of `explain`"
    known = np.setdiff1d(np.arange(1, 20), COLD)
    for who in (dict(user_id=3),dict(history=[1,2,3])):
        asked = dict(history=who['history']) if 'history' in who else dict(user_ids=3, exclude_seen=False)
        lists = learn.recommend(**asked, k=300, item_ids=[*known,*COLD[:3]]).set_index('item_id').score
        why = learn.explain(**who, item_ids=lists.index, by='features')
        np.testing.assert_allclose(why.groupby('item_id').contribution.sum()[lists.index], lists, rtol=1e-4, atol=1e-4)
        yield why
