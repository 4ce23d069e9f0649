"Histories as people bring them: whose columns count, whose lists come back, what memory it takes, what may not appear"
import warnings

import numpy as np
import pandas as pd
import pytest
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from recfast.bundle import load_bundle
from recfast.cli import app
from recfast.core import RatingsError, UnknownIdError
from recfast.data.datasets import movie_night
from recfast.data.implicit import CollabDataLoaders
from recfast.files import item_list
from recfast.histories import encode_people
from recfast.learner import collab_learner
from recfast.losses import SoftmaxLoss
from recfast.models.autorec import AutoRec
from recfast.models.base import find_model
from recfast.models.dot import DotProduct
from recfast.models.linear import EASE
from recfast.models.sequence import SASRec
from recfast.serve import make_app

FILMS = movie_night()
LOG = FILMS[['user_id','title']]
how = dict(item_name='title', seed=1, bs=256)

def learner(dls, n_epoch=1, **kwargs):
    learn = collab_learner(dls, 8, **kwargs)
    with learn.quiet(): learn.fit(n_epoch)
    return learn

MAKE = {
    'stars': lambda: learner(CollabDataLoaders.from_df(FILMS, valid_pct=0, **how), y_range=(0,5.5)),
    'clicks': lambda: learner(CollabDataLoaders.implicit_from_df(FILMS, valid_pct=0, **how)),
    'softmax': lambda: learner(CollabDataLoaders.implicit_from_df(LOG, n_neg=0, valid_pct=0, **how), arch=DotProduct, loss_func=SoftmaxLoss()),
    'EASE': lambda: learner(CollabDataLoaders.implicit_from_df(FILMS, n_neg=0, valid_pct=0, **how), arch=EASE),
    'rows': lambda: learner(CollabDataLoaders.rows_from_df(FILMS, valid_pct=0, item_name='title', seed=1, bs=64), arch=AutoRec),
    'sequences': lambda: learner(CollabDataLoaders.sequences_from_df(LOG, seq_len=8, item_name='title', seed=1, bs=64), arch=SASRec, config=dict(seq_len=8))}
MADE = {}
def made(kind):
    if kind not in MADE: MADE[kind] = MAKE[kind]()
    return MADE[kind]

kinds = pytest.mark.parametrize('kind', MAKE)
def lists(df): return df.groupby('user_id', sort=False).item_id.agg(list).to_dict()
def same(a, b):
    pd.testing.assert_frame_equal(a.reset_index(drop=True), b.reset_index(drop=True), check_dtype=False, rtol=1e-5, atol=1e-6)


# several people

@kinds
def test_a_frame_of_several_people_is_a_list_for_each(kind):
    learn = made(kind)
    today = FILMS[FILMS.user_id.isin([196,22,7])].sample(frac=1, random_state=0)
    got = learn.recommend(history=today, k=3)
    assert list(lists(got))==list(today.user_id.unique())
    for user,own in today.groupby('user_id'):
        mine = got[got.user_id==user]
        same(mine, learn.recommend(history=own, k=3))
        assert not mine.item_id.isin(own.title).any()

@kinds
def test_the_training_frame_itself_is_everybodys_history(kind):
    learn,some = made(kind),FILMS[FILMS.user_id<40]
    got = learn.recommend(history=some, k=2)
    assert got.user_id.drop_duplicates().tolist()==some.user_id.drop_duplicates().tolist() and len(got)==2*some.user_id.nunique()

@kinds
def test_clicks_without_ratings_are_liked(kind):
    learn = made(kind)
    liked = LOG[LOG.user_id==22].title
    want = learn.recommend(history=liked.tolist(), k=4)
    same(learn.recommend(history=liked.to_frame(), k=4), want)
    same(learn.recommend(history=LOG[LOG.user_id==22], k=4), want.assign(user_id=22))
    same(learn.recommend(history=liked.to_frame('item_id'), k=4), want)

def test_the_frame_of_the_report():
    today = FILMS[FILMS.user_id.isin([196,22])][['user_id','title','rating']]
    first,second = today.user_id.unique()
    assert made('stars').recommend(history=today, k=2).user_id.tolist()==[first]*2+[second]*2

@pytest.mark.parametrize('ids', [
    pd.Categorical(['z','z','a']), pd.to_datetime(['2024-05-02','2024-05-02','2023-01-01']), np.array([-5,-5,7], 'int8'),
    pd.array([9148955329465708066]*2+[9148955329465708065], 'Int64'), ['b','b','ä'], pd.array(['y','y','x'], 'string')])
def test_ids_of_people_of_any_kind(ids):
    df = pd.DataFrame(dict(user_id=ids, title=FILMS.title.unique()[:3], rating=[5,1,3]))
    got = made('stars').recommend(history=df, k=1)
    assert got.user_id.tolist()==[df.user_id[0],df.user_id[2]]

def test_the_index_of_a_frame_does_not_matter():
    df = FILMS[FILMS.user_id.isin([196,22])].sample(frac=1, random_state=1)
    same(made('stars').recommend(history=df, k=3), made('stars').recommend(history=df.reset_index(drop=True), k=3))
    same(made('stars').recommend(history=df, k=3), made('stars').recommend(history=df.set_index(df.index*0), k=3))

def test_a_missing_id_of_a_person():
    df = pd.DataFrame(dict(user_id=['a',None], title=FILMS.title.unique()[:2], rating=[5,4]))
    with pytest.raises(RatingsError, match="'user_id' has missing ids"): made('stars').recommend(history=df)

def test_nobody_is_someone_of_whom_nothing_is_known():
    none = made('stars').recommend(history=FILMS[:0], k=3)
    same(none, made('stars').recommend(history=[], k=3))

def test_a_frame_of_several_people_within_a_list():
    one,two = (FILMS[FILMS.user_id==u] for u in (7,22))
    got = made('stars').recommend(history=[one,two,[FILMS.title[0]]], k=2)
    assert got.user_id.tolist()==[0,0,1,1,2,2]
    same(got[got.user_id==1], made('stars').recommend(history=two, k=2).assign(user_id=1))
    with pytest.raises(RatingsError, match='a frame of 2 people, 7, 22'): made('stars').recommend(history=[pd.concat([one,two]),one])

def test_explain_answers_for_one_person_of_a_frame():
    one,two = (FILMS[FILMS.user_id==u] for u in (7,22))
    want = made('stars').explain(history=dict(zip(one.title, one.rating)), k=2)
    same(made('stars').explain(history=one, k=2), want)
    with pytest.raises(ValueError, match='one person at a time'): made('stars').explain(history=pd.concat([one,two]), item_ids=FILMS.title[:1])

@pytest.mark.parametrize('kind', ['stars','clicks','softmax'])
def test_bundle_shell_and_http_answer_as_python_does(kind, tmp_path):
    today = FILMS[FILMS.user_id.isin([196,22])]
    want = made(kind).recommend(history=today, k=3)
    rec = load_bundle(made(kind).save_bundle(tmp_path/'b'))
    same(rec.recommend(history=today, k=3), want)
    today.to_csv(tmp_path/'today.csv', index=False)
    ran = CliRunner().invoke(app, ['recommend', str(tmp_path/'b'), '--history', str(tmp_path/'today.csv'), '-k', '3', '--out', str(tmp_path/'out.csv')])
    assert ran.exit_code==0, ran.output
    same(pd.read_csv(tmp_path/'out.csv'), want)
    with TestClient(make_app(rec)) as web:
        several = [g.title.tolist() for _,g in today.groupby('user_id', sort=False)]
        rows = web.post('/recommend', json=dict(history=several, k=3)).json()
    assert pd.DataFrame(rows).user_id.tolist()==[0]*3+[1]*3
    same(pd.DataFrame(rows), rec.recommend(history=several, k=3))


# whose columns

def shop():
    rng = np.random.default_rng(0)
    df = pd.DataFrame(dict(user=rng.integers(0, 60, 2000), sku=rng.integers(0, 50, 2000), rating=3.))
    return df.assign(item_id=(df.sku*7+3)%50, stars=np.where((df.user+df.sku)%2==0, 5, 1))

@pytest.fixture(scope='module')
def skus():
    names = dict(user_name='user', item_name='sku', rating_name='stars')
    return learner(CollabDataLoaders.from_df(shop(), seed=1, valid_pct=0, **names), 8, y_range=(0,5.5))

def test_the_names_of_training_before_those_of_recfast(skus):
    mine = shop().query('user==7').drop_duplicates('sku')
    want = skus.recommend(history=dict(zip(mine.sku, mine.stars)), k=4)
    same(skus.recommend(history=mine, k=4), want.assign(user_id=7))
    same(skus.recommend(history=mine.rename(columns=dict(user='user_id')), k=4), want.assign(user_id=7))
    same(skus.recommend(history=mine.drop(columns='user'), k=4), want)

def test_two_columns_of_people(skus):
    df = shop().query('user in (7,9)').assign(user_id='everybody')
    assert set(skus.recommend(history=df, k=2).user_id)=={7,9}

def test_items_that_are_users_elsewhere():
    "Whom to follow: the items of training are called user_id"
    rng = np.random.default_rng(0)
    df = pd.DataFrame(dict(follower=rng.integers(0, 60, 900), user_id=rng.integers(100, 140, 900)))
    dls = CollabDataLoaders.implicit_from_df(df, user_name='follower', item_name='user_id', n_neg=0, seed=1, valid_pct=0, bs=64)
    learn = learner(dls, arch=EASE)
    got = learn.recommend(history=pd.DataFrame(dict(user_id=[101,105])), k=3)
    same(got, learn.recommend(history=[101,105], k=3))

def test_ratings_under_another_name_are_asked_for():
    mine = FILMS[FILMS.user_id==7][['title','rating']].rename(columns=dict(rating='score'))
    with pytest.raises(RatingsError, match="no column 'rating', and 'score' may be it"): made('stars').recommend(history=mine)
    assert len(made('clicks').recommend(history=mine, k=3))==3

def test_sequences_are_in_the_order_of_time():
    df = FILMS[FILMS.user_id==22]
    learn = learner(CollabDataLoaders.sequences_from_df(FILMS, seq_len=8, item_name='title', seed=1, bs=64), arch=SASRec, config=dict(seq_len=8))
    want = learn.recommend(history=df.sort_values('timestamp', kind='stable').title.tolist(), k=5)
    same(learn.recommend(history=df.sample(frac=1, random_state=3), k=5), want.assign(user_id=22))

def test_nothing_given_is_changed():
    df = FILMS[FILMS.user_id.isin([7,22])].sample(frac=1, random_state=3)
    before = df.copy()
    for kind in MAKE: made(kind).recommend(history=df, k=2)
    pd.testing.assert_frame_equal(df, before)


# dislikes where there are clicks only

@pytest.mark.parametrize('kind', ['clicks','softmax','EASE'])
@pytest.mark.parametrize('rating', [0, -1, -.5])
def test_a_dislike_in_a_history_of_clicks(kind, rating):
    film = FILMS.title[0]
    log = pd.DataFrame(dict(user_id=1, title=FILMS.title.unique()[:3], rating=[1,rating,1]))
    for told in ({film: rating}, [dict(item_id=film, rating=rating)], log, pd.Series({film: rating}).rename_axis('title')):
        with pytest.raises(RatingsError, match='trained on clicks: pass a list of item ids'): made(kind).recommend(history=told)

def test_labels_are_no_clicks():
    rows = CollabDataLoaders.implicit_from_df(FILMS, valid_pct=0, **how).interactions('train')
    df = pd.DataFrame(dict(user_id=1, title=FILMS.title.unique()[:3], rating=[1.,0,.5]))
    assert encode_people(rows, df, labels=True)[1][0][1].tolist()==[1,0,.5]


# memory

def test_memory_holds_for_histories():
    n,rng = 60_000,np.random.default_rng(0)
    df = pd.DataFrame(dict(user_id=rng.integers(0, 2_000, n), item_id=rng.integers(0, 20_000, n)))
    dls = CollabDataLoaders.from_df(df.assign(rating=1+df.item_id%5), seed=1, bs=8192, valid_pct=0)
    learn = collab_learner(dls, 4, y_range=(0,5.5))
    rec = learn.recommender
    sizes,score = [],rec.score_history
    rec.score_history = lambda histories: sizes.append(len(histories)) or score(histories)
    item = rec.items.index[5]
    want = rec.recommend(history=[[item]]*7, k=2)
    assert sizes==[7]
    small = rec.recommend(history=[[item]]*7, k=2, memory=2*20_000*4*6+2**16)
    assert sizes[1:]==[2,2,2,1]
    same(small, want)


# what may appear

@pytest.mark.parametrize('deny', [['Sold out, never trained'], [1,2], ['Sold out', FILMS.title[3]], np.array(['x']), pd.Series(['y'])])
def test_an_unknown_id_in_a_deny_list_is_no_matter(deny):
    known = [o for o in deny if o in set(FILMS.title)]
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        for who in (dict(user_ids=[7,22]), dict(history=[FILMS.title[9]])):
            same(made('stars').recommend(**who, exclude_item_ids=deny, k=5), made('stars').recommend(**who, exclude_item_ids=known, k=5))

def test_an_unknown_id_in_an_allow_list_is_counted():
    some = FILMS.title.unique()[:6].tolist()
    for who in (dict(user_ids=[7]), dict(history=[FILMS.title[9]])):
        with pytest.warns(UserWarning, match=r"2 of 8 item_ids are unknown and left out: 'new', 'newer'"):
            got = made('stars').recommend(**who, item_ids=[*some,'new','newer'], k=9, exclude_seen=False)
        same(got, made('stars').recommend(**who, item_ids=some, k=9, exclude_seen=False))

def test_an_allow_list_of_which_nothing_is_known():
    with pytest.raises(UnknownIdError, match='unknown item id'): made('stars').recommend(7, item_ids=[1,2])
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert len(made('stars').recommend(7, item_ids=['new'], on_unknown='drop'))==0

def test_known_people_with_news():
    rec = made('stars').recommender
    new = pd.DataFrame(dict(user_id=7, title=[o for o in FILMS.title.unique() if o not in set(FILMS.title[FILMS.user_id==7])][:2], rating=5.))
    with pytest.raises(TypeError, match=r'history=pd.concat\(\[old, new\]\).*rec.seen.frame\(\)'): rec.recommend([7], history=new)
    old = rec.seen.frame().query('user_id==7')
    got = rec.recommend(history=pd.concat([old,new]), k=5)
    assert set(got.user_id)=={7} and not got.item_id.isin([*old.title,*new.title]).any()
    with TestClient(make_app(rec)) as web:
        answer = web.post('/recommend', json=dict(user_ids=[7], history=new.title.tolist()))
        assert answer.status_code==422 and 'a history of all of it' in answer.json()['detail']

@pytest.fixture(scope='module')
def numbers(tmp_path_factory):
    "A bundle whose ids are numbers"
    rng = np.random.default_rng(0)
    df = pd.DataFrame(dict(user_id=rng.integers(0, 60, 900), item_id=rng.integers(100, 140, 900)))
    learn = learner(CollabDataLoaders.implicit_from_df(df, n_neg=0, seed=1, valid_pct=0, bs=64), arch=EASE)
    return load_bundle(learn.save_bundle(tmp_path_factory.mktemp('numbers')/'b')),tmp_path_factory.mktemp('lists')

@pytest.mark.parametrize('name,text', [('deny.txt','101\nsold out\n\n102\n'), ('deny.csv','item_id,price\n101,3\n999,1\n102,2\n'), ('deny.csv','what\n101\n102\n'),
    ('deny.tsv','item_id\tn\n102\t1\n101\t1\n')])
def test_a_deny_list_from_a_file(numbers, name, text):
    rec,home = numbers
    (home/name).write_text(text, encoding='utf-8')
    bundle = rec.save_bundle(home/'b')
    want = rec.recommend([7], k=40, exclude_item_ids=[101,102])
    asked = ['recommend', str(bundle), '--user', '7', '-k', '40', '--out', str(home/'out.csv')]
    for more in (['--exclude-item', str(home/name)], ['--exclude-item', '101', '--exclude-item', 'abc', '--exclude-item', '102', '--exclude-item', '9999']):
        ran = CliRunner().invoke(app, [*asked, *more])
        assert ran.exit_code==0, ran.output
        same(pd.read_csv(home/'out.csv'), want)
    ran = CliRunner().invoke(app, [*asked, '--item', str(home/name)])
    assert ran.exit_code==0, ran.output
    same(pd.read_csv(home/'out.csv'), rec.recommend([7], k=40, item_ids=[101,102]))

def test_lists_of_items_over_http(numbers):
    rec,_ = numbers
    with TestClient(make_app(rec)) as web:
        def asked(**q): return web.post('/recommend', json=dict(user_ids=[7], k=40, **q))
        same(pd.DataFrame(asked(exclude_item_ids=[101,'abc',12345]).json()), rec.recommend([7], k=40, exclude_item_ids=[101]))
        same(pd.DataFrame(asked(item_ids=[101,103,'abc']).json()), rec.recommend([7], k=40, item_ids=[101,103]))
        assert asked(item_ids=['abc']).status_code==404


# an item that a history names twice

def repeats(n=1500, seed=0):
    rng = np.random.default_rng(seed)
    return pd.DataFrame(dict(user_id=rng.integers(0,40,n), item_id=(rng.random(n)**2*30).astype(int), rating=rng.integers(1,6,n)*1.))

OF_CELLS = dict(EASE={}, SpectralFilter={}, ItemKNN={}, RP3beta={}, SLIM={}, MultVAE={}, Popularity={}) # whose scores are made of a row of pairs

@pytest.fixture(scope='module', params=[*OF_CELLS,'EASE of ratings','AutoRec by user'])
def of_cells(request):
    df = repeats()
    if request.param in OF_CELLS:
        clicks = df[['user_id','item_id']]
        dls = (CollabDataLoaders.rows_from_df(clicks.assign(rating=1.), by='user', valid_pct=0, seed=1, bs=8) if request.param=='MultVAE'
               else CollabDataLoaders.implicit_from_df(clicks, seed=1, n_neg=0, bs=64, valid_pct=0))
        learn = collab_learner(dls, arch=find_model(request.param.lower()))
        return clicks,fitted(learn)
    if request.param=='AutoRec by user':
        return df,fitted(collab_learner(CollabDataLoaders.rows_from_df(df, by='user', valid_pct=0, seed=1, bs=8), 8, arch=AutoRec, y_range=(0,6)))
    dls = CollabDataLoaders.from_df(df, seed=1, bs=64, valid_pct=0)
    return df,fitted(collab_learner(dls, arch=EASE, config=dict(use_ratings=True)))

def fitted(learn):
    with learn.quiet(): learn.fit(1)
    return learn

def by_item(df): return df.set_index('item_id').score.sort_index()

def test_an_item_named_twice_counts_as_it_did_in_training(of_cells, tmp_path):
    df,learn = of_cells
    learn.save_bundle(tmp_path/'b.recfast')
    for user in (7,0,39):
        mine = df[df.user_id==user]
        assert mine.item_id.duplicated().any()
        for rec in (learn,load_bundle(tmp_path/'b.recfast')):
            want = by_item(rec.recommend(user, k=30, exclude_seen=False))
            for told in (mine, mine.sample(frac=1, random_state=1), mine.drop(columns='user_id')):
                pd.testing.assert_series_equal(by_item(rec.recommend(history=told, k=30, exclude_seen=False)), want, rtol=1e-5, atol=1e-6)

def test_what_an_item_named_twice_adds_is_added_up(of_cells):
    df,learn = of_cells
    if not hasattr(learn.model, 'contributions'): return
    told = [3,5,3,9,3] if 'rating' not in df else pd.DataFrame(dict(item_id=[3,5,3,9,3], rating=[1.,5,3,4,5]))
    why = learn.explain(history=told, item_ids=[1])
    score = by_item(learn.recommend(history=told, k=30, exclude_seen=False))[1]
    assert why.contribution.sum()==pytest.approx(score, rel=1e-4) and sorted(why.because_item_id.dropna())==[3,5,9]

def test_trained_people_told_by_their_rows_get_what_they_get(of_cells):
    df,learn = of_cells
    test = df.sample(200, random_state=1).assign(item_id=lambda d: (d.item_id+7)%30)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        ev = learn.evaluate(test, histories=True, k=5)
    assert ev['ndcg@5']==pytest.approx(ev.by_history['ndcg@5'], abs=1e-9)

def test_clicks_told_twice_over_http_and_in_a_shell(tmp_path):
    df = repeats()[['user_id','item_id']]
    learn = fitted(collab_learner(CollabDataLoaders.implicit_from_df(df, seed=1, n_neg=0, bs=64, valid_pct=0), arch=EASE))
    learn.save_bundle(tmp_path/'b.recfast')
    mine = df[df.user_id==7].item_id.tolist()
    want = by_item(learn.recommend(7, k=30, exclude_seen=False))
    with TestClient(make_app(tmp_path/'b.recfast')) as web:
        got = pd.DataFrame(web.post('/recommend', json=dict(history=mine, k=30, exclude_seen=False)).json())
    pd.testing.assert_series_equal(by_item(got), want, rtol=1e-5, atol=1e-6, check_dtype=False)
    pd.DataFrame(dict(item_id=mine)).to_csv(tmp_path/'h.csv', index=False)
    shown = CliRunner().invoke(app, ['recommend',str(tmp_path/'b.recfast'),'--history',str(tmp_path/'h.csv'),'-k','30','--include-seen','--out',str(tmp_path/'l.csv')])
    assert shown.exit_code==0
    pd.testing.assert_series_equal(by_item(pd.read_csv(tmp_path/'l.csv')), want, rtol=1e-4, atol=1e-6, check_dtype=False)


# lists of items in files

NUMBERED = pd.DataFrame(dict(user_id=np.arange(400)%20, item_id=101+np.arange(400)*7%31))
TEXTS = NUMBERED.assign(item_id=[f'i{j}' if j%2 else f'{j}.10' for j in NUMBERED.item_id])

@pytest.fixture(scope='module', params=['numbers','texts'])
def catalogue(request, tmp_path_factory):
    df = NUMBERED if request.param=='numbers' else TEXTS
    learn = fitted(collab_learner(CollabDataLoaders.implicit_from_df(df, seed=1, n_neg=0, bs=64, valid_pct=0), arch=EASE))
    home = tmp_path_factory.mktemp(request.param)
    learn.save_bundle(home/'b.recfast')
    return home,learn

def shell(home, *args): return CliRunner().invoke(app, ['recommend',str(home/'b.recfast'),'--user','3','-k','40','--include-seen','--out',str(home/'l.csv'),*map(str, args)])

@pytest.mark.parametrize('name,text', [('a.csv','{}\n{}\n{}\n'), ('a.tsv','{}\n{}\n{}\n'), ('a.txt','{}\n{}\n{}\n'), ('a','{}\n{}\n{}\n'), ('a.csv','sku\n{}\n{}\n{}\n'), ('a.csv','item_id\n{}\n{}\n{}\n'),
    ('a.csv','\ufeff{}\n{}\n{}'), ('a.csv','item_id,why\n{},x\n{},y\n{},z\n')])
@pytest.mark.parametrize('option', ['--item','--exclude-item'])
def test_a_list_of_items_in_a_file_loses_none(catalogue, name, text, option):
    home,learn = catalogue
    items = learn.recommender.known_ids('item')
    named = [items[0],items[1],items[-1]]
    (home/name).write_text(text.format(*named), encoding='utf-8')
    res = shell(home, option, home/name)
    assert res.exit_code==0, res.output
    want = set(map(str, named)) if option=='--item' else set(map(str, items))-set(map(str, named))
    assert set(pd.read_csv(home/'l.csv', dtype=str).item_id)==want

@pytest.mark.parametrize('option', ['--item','--exclude-item'])
@pytest.mark.parametrize('name', ['denny.csv','deny.TXT','deny.parquet','deny.csv.gz','{home}/deny','{home}/none/deny.tsv'])
def test_a_file_that_is_not_there_is_no_item(catalogue, option, name):
    home,_ = catalogue
    name = name.format(home=home)
    res = shell(home, option, name)
    assert res.exit_code==2 and 'there is no file' in ' '.join(res.output.split())

@pytest.mark.parametrize('text', ['deny','1O1','x'*400])
def test_text_that_can_be_no_item_is_spoken_of(tmp_path, text):
    learn = fitted(collab_learner(CollabDataLoaders.implicit_from_df(NUMBERED, seed=1, n_neg=0, bs=64, valid_pct=0), arch=EASE))
    with pytest.warns(UserWarning, match='cannot be read as a whole number.*there is no file of that name'): assert item_list(learn.dls.interactions('train'), [text,'101'])==[text,101]

@pytest.mark.parametrize('text', ['AC/DC','Face/Off (1997)','9 1/2 Weeks','Vol. 2','x'*400])
def test_titles_that_are_nobodys_are_no_matter(text, recwarn):
    learn = fitted(collab_learner(CollabDataLoaders.implicit_from_df(TEXTS, seed=1, n_neg=0, bs=64, valid_pct=0), arch=EASE))
    assert item_list(learn.dls.interactions('train'), [text])==[text] and not [o for o in recwarn if 'file' in str(o.message)]


# what could be items, or items and their ratings

STARRED = pd.DataFrame(dict(user_id=np.arange(900)%40, item_id=np.arange(900)*7%30, rating=1.+np.arange(900)*3%5))
NAMED = STARRED.assign(item_id=[f'i{j}' for j in STARRED.item_id])

@pytest.fixture(scope='module', params=['numbers','texts','own names','clicks'])
def told_to(request):
    df = NAMED if request.param=='texts' else STARRED
    if request.param=='clicks': dls = CollabDataLoaders.implicit_from_df(df[['user_id','item_id']], seed=1, bs=64, valid_pct=0)
    elif request.param=='own names': dls = CollabDataLoaders.from_df(df.rename(columns=dict(item_id='sku', rating='stars')), item_name='sku', rating_name='stars', seed=1, bs=64, valid_pct=0)
    else: dls = CollabDataLoaders.from_df(df, seed=1, bs=64, valid_pct=0)
    learn = fitted(collab_learner(dls, 8, y_range=None if request.param=='clicks' else (0,5.5)))
    rate = {df.item_id.tolist()[j]: 1. if request.param=='clicks' else float(1+j%5) for j in (1,2,3)}
    return learn,rate

def told(learn, h): return by_item(learn.recommend(history=h, k=40, exclude_seen=False))

@pytest.mark.parametrize('pairs', [lambda r: pd.Series(r), lambda r: pd.Series(r).astype(int), lambda r: pd.Series(r, dtype='Float64'), lambda r: pd.Series(r).rename('stars')])
def test_a_series_whose_index_has_no_name_is_not_guessed(told_to, pairs):
    learn,rate = told_to
    for h in (pairs(rate),[pairs(rate)]):
        with pytest.raises(RatingsError, match=r'index has no name.*\.to_dict\(\) for ratings by item'): learn.recommend(history=h)
    pd.testing.assert_series_equal(told(learn, pairs(rate).to_dict()), told(learn, rate))
    pd.testing.assert_series_equal(told(learn, pairs(rate).rename_axis('item_id')), told(learn, rate))

@pytest.mark.parametrize('pairs', [lambda r: list(r.items()), lambda r: tuple(r.items()), lambda r: [list(o) for o in r.items()], lambda r: [(i,int(x)) for i,x in r.items()]])
def test_a_list_of_pairs_is_not_guessed(told_to, pairs):
    learn,rate = told_to
    with pytest.raises(RatingsError, match=r'list of pairs.*dict\(pairs\)'): learn.recommend(history=pairs(rate))
    pd.testing.assert_series_equal(told(learn, dict(pairs(rate))), told(learn, rate))

def test_series_and_lists_of_items_are_read_as_ever(told_to):
    learn,rate = told_to
    items = list(rate)
    want = told(learn, items)
    name = learn.dls.interactions('train').columns.item
    column = pd.DataFrame({name: items}, index=items)[name] # rows of a frame, whatever their labels
    for h in (pd.Series(items),pd.Series(items, index=[100,200,300]),column,np.array(items)): pd.testing.assert_series_equal(told(learn, h), want)
    assert learn.recommend(history=[items[:2],items[1:]], k=1).user_id.tolist()==[0,1]

def test_rows_of_json_say_what_http_takes(told_to, tmp_path):
    learn,rate = told_to
    cols = learn.dls.interactions('train').columns
    rows = [dict(item_id=i, rating=r) for i,r in rate.items()]
    own = [{cols.item: i, cols.rating: r} for i,r in rate.items()]
    liked = [dict(item_id=i) for i in rate]
    for h in (rows,own): pd.testing.assert_series_equal(told(learn, h), told(learn, rate))
    for h in (liked,[dict(o, rating=None) for o in liked],[{cols.item: i} for i in rate]): pd.testing.assert_series_equal(told(learn, h), told(learn, list(rate)))
    with TestClient(make_app(learn.recommender)) as web:
        for h in (rows,liked):
            got = web.post('/recommend', json=dict(history=h, k=40, exclude_seen=False)).json()
            pd.testing.assert_series_equal(by_item(pd.DataFrame(got)), told(learn, h), check_dtype=False, rtol=1e-5, atol=1e-6)

@pytest.mark.parametrize('history,why', [([None,[1]],'a list stands where an id should'), ([None],'None where an item id'), ([1,[2]],'a list stands'), ([{1: 5.},3],'a dict stands'), (np.ones((2,2)),'expected a mapping')])
def test_what_is_no_item_is_told(told_to, history, why):
    with pytest.raises(RatingsError, match=why): told_to[0].recommend(history=history)

@pytest.mark.parametrize('ids', [[[3]],np.array([[3]]),[{3}],[np.array([3])]])
def test_ids_in_a_list_in_a_list_are_told(told_to, ids):
    learn,rate = told_to
    for f in (learn.recommend,lambda o: learn.predict(o, list(rate)[0]),lambda o: learn.predict(3, o),learn.similar_items,lambda o: learn.recommend(3, item_ids=o)):
        with pytest.raises(RatingsError, match='expected one'): f(ids)

def test_an_array_of_no_dimension_is_one_id(told_to):
    learn,rate = told_to
    item = list(rate)[0]
    assert learn.predict(np.array(3), np.array(item))==learn.predict(3, item) and isinstance(learn.predict(np.array(3), item), float)
    assert learn.recommend(np.array(3), k=2).equals(learn.recommend(3, k=2))
