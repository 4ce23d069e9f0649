"Ids as codes: the same rows and vocabularies as without, and repeats that are counted when somebody asks"
import pickle

import numpy as np
import pandas as pd
import pytest

from recfast.data import coded as room
from recfast.data.coded import coded
from recfast.data.found import Repeats, counted
from recfast.data.loaders import CollabDataLoaders
from recfast.data.ratings import count_duplicates
from recfast.data.vocab import Vocab

RNG = np.random.RandomState(0)
N = 400
KINDS = dict(int64=RNG.randint(-5, 40, N), int8=RNG.randint(-128, 128, N).astype(np.int8), uint64=RNG.randint(0, 9, N).astype(np.uint64)+np.uint64(2**63),
    far=RNG.choice([-2**62,0,7,2**62], N), int32=RNG.randint(0, 9, N).astype(np.int32), float64=RNG.randint(0, 9, N)/2, float32=RNG.randint(0, 9, N).astype(np.float32),
    float16=RNG.randint(0, 9, N).astype(np.float16), swapped=RNG.randint(0, 9, N).astype('>i8'), bool=RNG.rand(N)>.5, text=RNG.choice(['b','a','노래'], N), objects=pd.Series(RNG.choice(['b','a'], N), dtype=object),
    Int64=pd.array(RNG.randint(0, 9, N), dtype='Int64'), dates=pd.to_datetime('2024-01-01')+pd.to_timedelta(RNG.randint(0, 9, N), 'D'),
    categories=pd.Categorical(RNG.choice(['b','a'], N), categories=['b','never','a']), numbers=pd.Categorical(RNG.choice([3,1], N), categories=[3,2,1]))

@pytest.mark.parametrize('kind', KINDS)
def test_codes_stand_for_the_ids(kind):
    ids = pd.Series(KINDS[kind], name='x')
    got = coded(ids)
    assert got.tolist()==ids.tolist() and got.name=='x'
    assert isinstance(got.dtype, pd.CategoricalDtype) or kind in ('float16','swapped','bool','objects','Int64','dates')

@pytest.mark.parametrize('kind', [o for o in KINDS if o not in ('float16','swapped')]) # which pandas has no index for
@pytest.mark.parametrize('vocab', ['train','all'])
def test_loaders_are_those_of_the_ids_themselves(kind, vocab, monkeypatch):
    df = pd.DataFrame(dict(user_id=KINDS[kind], item_id=KINDS['int64'], rating=1.+np.arange(N)%5))
    build = lambda: CollabDataLoaders.from_df(df, seed=3, bs=8, vocab=vocab)
    one = build()
    monkeypatch.setattr(room, '_codable', lambda kind: False)
    other = build()
    for o in ('user_id','item_id'):
        a,b = one.classes[o],other.classes[o]
        assert list(a)==list(b) and list(map(type, a.items))==list(map(type, b.items)) and a.index.dtype==b.index.dtype
    for which in ('train','valid'):
        a,b = one.interactions(which),other.interactions(which)
        assert a.users.tolist()==b.users.tolist() and a.items.tolist()==b.items.tolist() and a.values.tolist()==b.values.tolist() and a.place.tolist()==b.place.tolist()
        assert a.users.dtype==b.users.dtype
    assert one.report==other.report and one.report['duplicates']==count_duplicates(df)

def test_in_small_blocks_as_in_one(monkeypatch):
    ids = pd.Series(KINDS['int64'])
    whole = coded(ids)
    monkeypatch.setattr(room, 'BLOCK', 7)
    assert coded(ids).equals(whole)

def test_nothing_given_is_changed():
    df = pd.DataFrame(dict(user_id=KINDS['int64'], item_id=KINDS['text'], rating=1.))
    before = df.copy(deep=True)
    CollabDataLoaders.from_df(df, seed=0, bs=8)
    pd.testing.assert_frame_equal(df, before)

TWICE = pd.DataFrame(dict(user_id=[1,1,2,9,9,9,1], item_id=['a','a','b','z','z','a','a'], rating=1.))

@pytest.mark.parametrize('splits', [([0,2],[1,3,4,5,6]), ([0,1,2],[5]), ([0,0,2],[3,4]), ([0,1,2,3,4,5,6],[])], ids=str)
@pytest.mark.parametrize('duplicates', ['keep','last','mean'])
@pytest.mark.filterwarnings('ignore:.*without a training row')
def test_repeats_are_those_of_the_table_whoever_is_unknown(splits, duplicates):
    assert CollabDataLoaders.from_df(TWICE, splits=splits, bs=1, duplicates=duplicates).report['duplicates']==count_duplicates(TWICE)==3

@pytest.mark.filterwarnings('ignore:.*without a training row')
def test_repeats_wait_until_the_report_is_read(monkeypatch):
    counts = []
    monkeypatch.setattr(Repeats, 'count', lambda self: counts.append(1) or 7)
    dls = CollabDataLoaders.from_df(TWICE, splits=([0,1,2],[3]), bs=1)
    assert not counts
    again = pickle.loads(pickle.dumps(dls))
    assert dls.report['duplicates']==dls.report['duplicates']==7 and len(counts)==1 and list(dls.report)[:5]==['n_train','n_valid','users','items','duplicates']
    assert again.report==dls.report and len(counts)==2
    dls.report = {'mine': 1}
    assert dls.report=={'mine': 1} and counted(None) is None

def test_a_vocabulary_knows_rows_of_either_width():
    vocab = Vocab(['a','b'])
    for ids in (['b','x'], pd.Categorical(['b','x'])):
        assert vocab.encode(ids, 'zero').dtype==np.int64
        assert vocab.encode(ids, 'zero', kind=np.int32).dtype==np.int32
