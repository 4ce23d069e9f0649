"Tables of features as they come: damaged by hand, by a spreadsheet, by an export. An error of ours or a counted report, never a wrong row"
import datetime as dt
import decimal
import warnings

import numpy as np
import pandas as pd
import pytest

from recfast.core import RecfastError
from recfast.data.catalogues import movie_night_films
from recfast.data.features import Features
from recfast.data.loaders import CollabDataLoaders
from recfast.data.made import movie_night

FILMS = movie_night_films().assign(country=lambda d: np.array(['FR','DE','IT'])[d.item_id%3], price=lambda d: d.item_id%17+.5, new=lambda d: d.item_id%2==0,
                                   vec=lambda d: [np.array([i,i%5,1.]) for i in d.item_id], tags=lambda d: [[f't{i%4}',f'u{i%6}'] for i in d.item_id])
NIGHT = movie_night()
ROWS = NIGHT[NIGHT.item_id<290].groupby('item_id').head(4)
KINDS = dict(multi={'genres': '|', 'tags': None}, cont=['year','price'], cat=['country','new'], vec='vec', show='title')

# what comes instead of a value
VALUES = [None, np.nan, '', ' ', '|', 'nan', 'None', 0, -1, 1e308, np.inf, -np.inf, '1e5', 2**63, True, b'x', [], [1], ['a',None], {'a': 1}, {1}, (1,2), object(), dt.date(2020,1,1),
          pd.Timestamp('2020-01-01'), pd.NaT, pd.NA, decimal.Decimal('1.5'), decimal.Decimal('NaN'), 'x'*10_000, '\ud800', '\x00', 'é', np.array([1.,2.]), np.array([1.,2.,np.nan]), np.array([[1.]]), 1+2j, '2020', float, 10**400]

def column(rng, df, names=None): return df.columns[rng.integers(len(df.columns))] if names is None else names[rng.integers(len(names))]
def cells(rng, df):
    c = column(rng, df)
    col = df[c].astype(object).copy()
    for i in rng.integers(0, len(df), rng.integers(1, 40)): col.iloc[i] = VALUES[rng.integers(len(VALUES))]
    df = df.copy()
    df[c] = col
    return df
def whole_column(rng, df):
    c,v = column(rng, df),VALUES[rng.integers(len(VALUES))]
    return df.assign(**{c: pd.Series([v]*len(df), dtype=object, index=df.index)})
def dtype(rng, df):
    c,to = column(rng, df),['object','str','category','float32','Int64','boolean','bool','int8','datetime64[ns]','complex','float16','string','Float64','timedelta64[ns]'][rng.integers(14)]
    try: return df.astype({c: to})
    except Exception: return df
def dropped(rng, df): return df.drop(columns=column(rng, df))
def renamed(rng, df): return df.rename(columns={column(rng, df): [3,('a','b'),None,'item_id','title','',np.nan,'a=b','\ud800'][rng.integers(9)]})
def doubled_column(rng, df): return pd.concat([df,df[[column(rng, df)]]], axis=1)
def doubled_rows(rng, df): return pd.concat([df,df.sample(rng.integers(1, 9), random_state=int(rng.integers(99)))])
def fewer(rng, df): return df[:int(rng.integers(0, len(df)))]
def shuffled(rng, df): return df.sample(frac=1, random_state=int(rng.integers(99)))
def index(rng, df): return df.set_index(column(rng, df), drop=bool(rng.integers(2)))
def cold_only(rng, df): return df[df.item_id>=290] if 'item_id' in df and df.item_id.dtype.kind in 'iuf' else df
def other_ids(rng, df): return df.assign(item_id=df.item_id.astype(str)+'x') if 'item_id' in df else df
def to_arrow(rng, df):
    import pyarrow as pa
    try: return pa.Table.from_pandas(df, preserve_index=False)
    except Exception: return df
DAMAGES = [cells,cells,cells,whole_column,dtype,dtype,dropped,renamed,doubled_column,doubled_rows,fewer,shuffled,index,cold_only,other_ids]

def damaged(rng):
    df = FILMS[[*rng.permutation(FILMS.columns)]]
    if rng.random()<.3: df = df.drop(columns=[o for o in ('vec','tags') if rng.random()<.7])
    for _ in range(rng.integers(1, 4)):
        try: df = DAMAGES[rng.integers(len(DAMAGES))](rng, df)
        except Exception: pass # pandas has no such table
    return to_arrow(rng, df) if rng.random()<.1 else df

def described(rng, df):
    if rng.random()<.4: return df
    some = {k: v for k,v in KINDS.items() if rng.random()<.7}
    procs = [o for o in ('Categorify','FillMissing','Normalize') if rng.random()<.9]
    return lambda: Features(df, **some, **({} if rng.random()<.7 else dict(text='title')), procs=[getattr(__import__('fastai.tabular.core', fromlist=[o]), o) for o in procs])

def check(dls, given):
    "What must be true of any table that was taken"
    table,vocab = dls.features('item'),dls.interactions('train').item_vocab
    assert len(table)==len(vocab) and not table.has[0] and table.csr[0].nnz==0 and not table.dense[0].any()
    assert np.isfinite(table.csr.data).all() and np.isfinite(table.dense.numpy()).all() and np.isfinite(table.linear.data).all() and np.isfinite(table.directions.data).all()
    assert table.csr[~table.has.numpy()].nnz==0
    df = given.df if isinstance(given, Features) else given
    if not isinstance(df, pd.DataFrame) or 'item_id' not in df.columns or df.item_id.dtype==np.float16: return
    once = df.drop_duplicates('item_id').set_index('item_id')
    rows = {i: vocab.encode([i], 'zero')[0] for i in list(once.index[:40]) if isinstance(i, (int,np.integer))}
    clean = FILMS.set_index('item_id')
    shelf = table.catalogue
    assert all(table.has[row] for row in rows.values() if row)
    for c in ('title','country'): # values that stand in the table stand at their id
        if c not in shelf.names or c not in once: continue
        same = {i: row for i,row in rows.items() if row and isinstance(once[c][i], str) and i in clean.index and once[c][i]==clean[c][i]}
        if same: assert shelf.frame(np.array([*same.values()]), [c])[c].tolist()==[clean[c][i] for i in same]
    flags = {str(n): j for j,n in enumerate(f"{o['name']}={k}" for o in table.spec['columns'] for k in o.get('classes', []))}
    for i,row in rows.items():
        for c in ('FR','DE','IT'):
            if row and f'country={c}' in flags and 'country' in once and isinstance(once.country[i], str):
                assert (table.csr[row,flags[f'country={c}']]>0)==(once.country[i]==c), (i,c)

def one(seed):
    rng = np.random.default_rng(seed)
    given = damaged(rng)
    make = described(rng, given)
    try:
        made = make() if callable(make) else make
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            dls = CollabDataLoaders.implicit_from_df(ROWS, n_neg=0, valid_pct=0, items=made)
    except RecfastError as e:
        assert len(str(e))<2000 and str(e)
        return 'refused'
    check(dls, made)
    return 'taken'

def run(seeds):
    found,odd = {'refused': 0, 'taken': 0},[]
    for s in seeds:
        try: found[one(s)] += 1
        except Exception as e: odd.append(f'{s}: {type(e).__name__}: {str(e)[:150]}')
    return found,odd

def check_all(seeds):
    found,odd = run(seeds)
    assert odd==[] and min(found.values())>len(seeds)/10, (found,odd)

def test_sixty_damaged_tables(): check_all(range(60))

@pytest.mark.slow
def test_five_hundred_damaged_tables(): check_all(range(60, 560))

@pytest.mark.weekly
def test_five_thousand_damaged_tables(): check_all(range(1000, 6000))
