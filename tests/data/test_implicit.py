"Events as positives with negatives drawn anew each epoch"
import pickle

import numpy as np
import pandas as pd
import pytest
import torch

from helpers import fit_one_cycle
from recfast.core import RatingsError
from recfast.data.datasets import ml_1m, ml_1m_ncf
from recfast.data.implicit import ImplicitDL
from recfast.data.loaders import CollabDataLoaders, RatingDL
from recfast.data.ratings import to_implicit
from recfast.data.sampling import full_grid
from recfast.learner import collab_learner
from recfast.losses import BCE
from recfast.models.dot import DotProductBias
from recfast.testing import block_ratings, synth_ratings

def liked(): return block_ratings().query('rating==5')
def build(df=None, **kwargs): return CollabDataLoaders.implicit_from_df(liked() if df is None else df, **{'bs':32, 'seed':42, **kwargs})
def rows(dl): return tuple(torch.cat(o) for o in zip(*dl))
def pairs(x): return set(map(tuple, x.tolist()))
def seen(ints): return pairs(torch.stack([ints.users,ints.items], 1))
def fitted(dls, n=1, **kwargs): return fit_one_cycle(collab_learner(dls, 4, loss_func=BCE()), n, **kwargs)


def test_every_positive_stands_first_in_its_block_and_comes_once():
    dls = build(n_neg=3)
    x,y = rows(dls.train)
    x,y = x.view(-1, 4, 2),y.view(-1, 4)
    assert (y==torch.tensor([1.,0.,0.,0.])).all() and (x[:,:,0]==x[:,:1,0]).all()
    assert len(x)==len(dls.train_ds) and pairs(x[:,0])==seen(dls.train_ds)

def test_no_training_negative_is_a_training_positive():
    dls = build()
    for _ in range(3):
        x,y = rows(dls.train)
        assert not pairs(x[y[:,0]==0]) & seen(dls.train_ds) and x.min()>0

def test_validation_positives_may_be_training_negatives():  # training cannot know them
    dls = build()
    x,y = rows(dls.train)
    assert pairs(x[y[:,0]==0]) & seen(dls.valid_ds)

def test_no_validation_negative_is_anyones_positive():
    dls = build(n_neg=8)
    x,y = rows(dls.valid)
    assert not pairs(x[y[:,0]==0]) & (seen(dls.train_ds)|seen(dls.valid_ds))

def test_known_positives_are_drawn_when_asked_for():
    dls = build(keep_positives=True)
    x,y = rows(dls.train)
    assert pairs(x[y[:,0]==0]) & seen(dls.train_ds)

def test_another_epoch_draws_other_negatives_and_validation_does_not():
    dls = build()
    (a,_),(b,_) = rows(dls.train),rows(dls.train)
    assert not torch.equal(a, b) and pairs(a)!=pairs(b)
    assert torch.equal(rows(dls.valid)[0], rows(dls.valid)[0])

def test_batches_are_a_function_of_seed_and_epoch():
    a,b = build().train,build().train
    rows(a); b.epoch = 1
    assert torch.equal(rows(a)[0], rows(b)[0])
    assert not torch.equal(rows(build(seed=43).train)[0], rows(build().train)[0])

def test_the_callers_random_state_is_left_alone():
    state,np_state = torch.get_rng_state(),np.random.get_state()[1].copy()
    rows(build().train)
    assert torch.equal(state, torch.get_rng_state()) and (np_state==np.random.get_state()[1]).all()

def test_blocks_do_not_break_batches():  # 32 positives of 5 rows: 6 batches of 160 rows in a block of a thousand
    dl = build().train
    sizes = [len(y) for _,y in dl._blocks(1000)]
    assert sum(sizes)==5*len(dl.dataset) and len(sizes)==len(dl) and set(sizes[:-1])=={160}

def test_a_last_batch_of_one_positive_joins_the_one_before():
    dl = ImplicitDL(build(valid_pct=0).train_ds[:33], bs=16, n_neg=2, shuffle=True)
    assert [len(y) for _,y in dl]==[48,51] and len(dl)==2

def test_drop_last(): assert {len(y) for _,y in build(drop_last=True).train}=={160}

def test_popular_items_are_drawn_more_often_with_alpha():
    df = synth_ratings(n_users=200, density=.3).query('item_id>20 or user_id<=40')
    def share(alpha):
        dls = build(df, alpha=alpha, keep_positives=True, valid_pct=0)
        x,y = rows(dls.train)
        return (dls.classes['item_id'].decode(x[y[:,0]==0,1])>20).mean()
    popular = (df.item_id>20).mean()
    assert abs(share(1.)-popular)<.02 and abs(share(0.)-.5)<.02 and popular>.75

def test_ratings_do_not_matter():
    df = liked()
    want = rows(build(df).train)[0]
    assert all(torch.equal(rows(build(o).train)[0], want) for o in (df.assign(rating=np.arange(len(df))), df.drop(columns='rating')))

def test_the_frame_is_not_changed():
    df = liked()
    before = df.copy()
    build(df)
    pd.testing.assert_frame_equal(df, before)

def test_splits_are_positions_and_a_boolean_column():
    df = liked().reset_index(drop=True)
    cut = df.assign(held=df.index>=700)
    a,b = build(df, splits=(range(700), range(700, len(df)))),build(cut, splits='held')
    assert len(a.valid_ds)==len(df)-700 and seen(a.valid_ds)==seen(b.valid_ds)

def test_other_column_names():
    dls = build(liked().rename(columns=dict(user_id='who', item_id='what')), user_name='who', item_name='what')
    assert list(dls.classes)==['who','what']

def test_ids_that_only_validation_has_stay_row_0():
    df = pd.concat([liked(), liked()[:1].assign(user_id=999)], ignore_index=True)
    dls = build(df, splits=(range(len(df)-1), [len(df)-1]))
    x,y = rows(dls.valid)
    assert dls.report['cold_user_rows']==1 and (x[:,0]==0).all() and (x[:,1]>0).all() and y.sum()==1

def test_an_unknown_keyword_is_named():
    with pytest.raises(TypeError, match="did you mean 'n_neg'"): build(n_negs=3)
    with pytest.raises(TypeError, match='rating_name'): build(rating_name='rating')

def test_no_negatives_are_batches_of_positives():
    dls = build(n_neg=0)
    x,y = rows(dls.train)
    assert x.shape==(len(dls.train_ds),2) and (y==1).all() and pairs(x)==seen(dls.train_ds) and len(rows(dls.valid)[0])==len(dls.valid_ds)

def test_less_than_no_negatives():
    with pytest.raises(RatingsError, match='n_neg=-1'): build(n_neg=-1)

def test_positives_without_negatives_come_in_the_order_of_those_with():
    a,b = (rows(build(n_neg=n).train)[0].view(-1, 1+n, 2)[:,0] for n in (0,3))
    assert torch.equal(a, b)

def test_by_user_the_rows_of_a_user_come_one_after_another():
    dls = build(by_user=True)
    x,y = rows(dls.train)
    users = x[y[:,0]==1,0]
    runs = users.unique_consecutive()
    assert len(runs)==50 and pairs(x[y[:,0]==1])==seen(dls.train_ds) and runs.tolist()!=sorted(runs.tolist())

def test_by_user_another_epoch_has_another_order_and_a_seed_the_same():
    a,b = build(by_user=True).train,build(by_user=True).train
    first,second = rows(a)[0],rows(a)[0]
    b.epoch = 1
    assert not torch.equal(first, second) and torch.equal(rows(b)[0], second)

def test_by_user_validation_keeps_the_order_of_the_table():
    a,b = (rows(build(by_user=o).valid)[0] for o in (True,False))
    assert torch.equal(a, b)

def test_by_user_predictions_are_sorted_back():
    dls = build(by_user=True)
    with (learn := fitted(dls)).no_bar(): targs = learn.get_preds(dl=dls.train)[1]
    assert torch.equal(targs.view(-1, 5), torch.eye(1, 5).repeat(len(dls.train_ds), 1))

def test_a_user_who_has_everything_has_no_negative():
    df = block_ratings(3, 4, hold_out=False)
    with pytest.raises(RatingsError, match='3 of the users have all 4 items: 1, 2, 3'): build(df, bs=4, valid_pct=0)

def grid_dls(**kwargs):
    grid,_,_ = full_grid(liked())
    return build(grid, **{'label_name':'label', 'user_name':'user', 'item_name':'item', 'bs':100, **kwargs})

def test_a_label_column_is_used_as_it_is():
    dls = grid_dls()
    assert type(dls.train) is RatingDL and len(dls.train_ds)+len(dls.valid_ds)==2000 and set(dls.train_ds.values.tolist())=={0.,1.}

def test_what_did_not_happen_is_neither_seen_nor_relevant():
    dls = grid_dls()
    parts = [dls.interactions(o) for o in ('train','valid','all')]
    assert [len(o) for o in parts]==[int((ds.values>0).sum()) for ds in (dls.train_ds,dls.valid_ds)]+[len(liked())]
    assert all(a is dls.interactions(o) for a,o in zip(parts, ('train','valid','all')))
    learn = fitted(dls, 3)
    assert not pairs(torch.from_numpy(learn.recommend(k=3)[['user_id','item_id']].to_numpy()+1)) & seen(parts[2])
    assert f'{len(parts[1])} test rows' in learn.evaluate(k=5).protocol

def test_pickled_label_loaders_hold_the_same_events():
    dls = grid_dls()
    dls.interactions('all')
    assert seen(pickle.loads(pickle.dumps(dls)).interactions('all'))==seen(dls.interactions('all'))

@pytest.mark.parametrize('change,match', [(dict(label=1), "has no 0"), (dict(label=lambda d: -d.label), 'labels below 0: -1'), (dict(label=np.nan), 'no 0')])
def test_labels_that_say_nothing_of_use(change, match):
    grid,_,_ = full_grid(liked())
    with pytest.raises(RatingsError, match=match): CollabDataLoaders.implicit_from_df(grid.assign(**change), label_name='label')

def test_a_label_column_that_is_not_there():
    with pytest.raises(RatingsError, match="no column 'labels'"): build(label_name='labels')

def test_interactions_hold_the_positives_only():
    dls = build()
    assert seen(dls.interactions('all'))==seen(dls.train_ds)|seen(dls.valid_ds) and len(dls.interactions('all'))==len(liked())

def test_the_fast_path_runs_and_ends_where_the_plain_one_does():
    fast,plain = fitted(build(), fast='exact'),fitted(build(), fast=False)
    assert fast.fast and not plain.fast
    for a,b in zip(fast.model.parameters(), plain.model.parameters()): torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    assert list(fast.recorder.values[-1])==pytest.approx(list(plain.recorder.values[-1]), abs=1e-5)

def test_two_fits_draw_what_one_fit_of_both_would():
    dls,seen_x = build(),[]
    learn = collab_learner(dls, 4, loss_func=BCE())
    with learn.no_bar(), learn.no_logging():
        for _ in range(2): learn.fit(1, 0.); seen_x.append(learn.dls.train.epoch)
    assert seen_x==[1,2]

@pytest.mark.parametrize('which', ['train','valid'])
def test_get_preds_comes_in_the_order_of_the_rows(which):
    dls = build()
    learn = fitted(dls)
    dl = getattr(dls, which).new(shuffle=False)
    x,y = rows(dl)
    with learn.no_bar(): preds,targs = learn.get_preds(ds_idx=0 if which=='train' else 1)
    assert torch.equal(targs, y)
    with torch.no_grad(): torch.testing.assert_close(preds, learn.model.eval()(x), rtol=1e-5, atol=1e-6)

def test_get_preds_of_a_shuffled_loader_is_sorted_back():
    dls = build()
    learn = fitted(dls)
    with learn.no_bar(): preds,targs = learn.get_preds(dl=dls.train)
    assert len(preds)==5*len(dls.train_ds) and torch.equal(targs.view(-1, 5), torch.eye(1, 5).repeat(len(dls.train_ds), 1))

def test_rows_of_the_caller_get_no_negatives():
    dls = build()
    learn,df = fitted(dls),liked()[:7]
    with learn.no_bar(): preds = learn.get_preds(dl=dls.test_dl(df))[0]
    assert preds.flatten().tolist()==pytest.approx(learn.predict(df.user_id, df.item_id).tolist(), abs=1e-6)

def test_pickled_loaders_go_on_with_the_same_batches():
    dls = build()
    rows(dls.train)
    again = pickle.loads(pickle.dumps(dls))
    assert isinstance(again.train, ImplicitDL) and torch.equal(rows(again.train)[0], rows(dls.train)[0])

def test_exported_loaders_hold_no_rows():
    empty = build().new_empty()
    assert len(empty.train_ds)==len(empty.valid_ds)==0 and not any(isinstance(dl, ImplicitDL) for dl in empty.loaders)

def test_it_finds_the_item_that_was_left_out():
    dls = build(valid_pct=0)
    learn = collab_learner(dls, 5, arch=DotProductBias, loss_func=BCE())
    fit_one_cycle(learn, 10, 3e-2)
    top = learn.recommend(k=1)
    assert (top.item_id==(top.user_id-1)%40+1).all()

def test_ml_1m_from_the_official_file(tmp_path):
    (tmp_path/'ratings.dat').write_text('1::1193::5::978300760\n1::661::3::978302109\n', encoding='utf-8')
    df = ml_1m(tmp_path)
    assert df.columns.tolist()[:5]==['user_id','item_id','rating','position','timestamp'] and df.iloc[1].tolist()==[1,661,3,1,978302109,False]

def test_ml_1m_where_there_is_nothing(tmp_path):
    with pytest.raises(FileNotFoundError, match='ratings.dat'): ml_1m(tmp_path)

def test_ncf_files_number_users_and_items_by_first_appearance(tmp_path):  # users 7, 3; items 40, 10, 30 are 0, 1, 2
    pd.DataFrame(dict(user_id=[7,7,3,3], item_id=[40,10,10,30])).to_parquet(tmp_path/'interactions.parquet')
    (tmp_path/'ncf.test.rating').write_text('0\t1\t5\t9\n1\t2\t4\t9\n', encoding='utf-8')
    rest = '\t'.join(['2','0']*49+['2'])
    (tmp_path/'ncf.test.negative').write_text(f'(0,1)\t{rest}\n(1,2)\t{rest}\n', encoding='utf-8')
    train,test,cand = ml_1m_ncf(tmp_path)
    assert train.to_numpy().tolist()==[[7,40],[3,10]] and test.to_numpy().tolist()==[[7,10],[3,30]]
    assert cand.to_numpy().tolist()==[[7,10],[7,30],[7,40],[3,30],[3,40]]  # each once, the held-out item too

def test_to_implicit_by_hand():
    df = pd.DataFrame(dict(user_id=[1,1,2], item_id=[1,2,1], rating=[0,3,4]), index=[7,8,9])
    assert to_implicit(df).rating.tolist()==[1,1,1] and df.rating.tolist()==[0,3,4]
    assert to_implicit(df, threshold=3).index.tolist()==[8,9]
    assert to_implicit(df[['user_id','item_id']]).rating.tolist()==[1,1,1]

def test_to_implicit_with_a_threshold_nobody_reaches():
    with pytest.raises(RatingsError, match='threshold=6: they go from 1'): to_implicit(block_ratings(), 6)

def test_to_implicit_without_the_column_it_is_to_compare():
    with pytest.raises(RatingsError, match="no column 'stars'"): to_implicit(block_ratings(), 3, rating_name='stars')

def test_to_implicit_of_a_hole():
    with pytest.raises(RatingsError, match='rating'): to_implicit(block_ratings().assign(rating=np.nan))

def test_clicks_have_no_rating_error():
    summary = collab_learner(build(), n_factors=2).evaluate(k=5).summary
    assert {'ndcg@5','recall@5'}<=set(summary) and not {'rmse','mae'} & set(summary)

def test_validation_rows_of_users_never_trained_have_negatives_too():
    df = pd.DataFrame(dict(user_id=[1,1,1,2,2,9,9,9,9], item_id=[1,2,3,3,4,1,2,3,4]))
    with pytest.warns(UserWarning, match='without a training row'):
        dls = CollabDataLoaders.implicit_from_df(df, splits=([0,1,2,3,4],[5,6,7,8]), bs=2, seed=0)
    assert [len(y) for _,y in dls.valid]==[10,10] and all((x[:,1]>0).all() for x,_ in dls.valid)
