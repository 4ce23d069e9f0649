"Models that are solved: known answers, formulas the long way, and the Learner around them"
import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from fastai.callback.progress import CSVLogger
from fastai.learner import load_learner
from fastai.losses import MSELossFlat

from helpers import fit, fit_one_cycle
from recfast.callbacks import SaveModelCallback
from recfast.core import RatingsError, RecfastError
from recfast.data.loaders import CollabDataLoaders, Interactions, Vocab
from recfast.learner import collab_learner
from recfast.models.base import score_items
from recfast.models.linear import EASE, HistoryModel, IALS, ItemKNN, NeedsMemoryError, Popularity, free_memory, gram_blocks, row_blocks
from recfast.testing import block_ratings, synth_ratings

SOLVED = [Popularity, ItemKNN, EASE, IALS]
every_solved = pytest.mark.parametrize('arch', SOLVED)
every_reader = pytest.mark.parametrize('arch', [ItemKNN, EASE])

def table(n_users=30, n_items=20, density=.3, seed=0, values=None):
    "Random clicks as interactions; users and items have ids 1, 2, ..."
    rs = np.random.RandomState(seed)
    u,i = np.nonzero(rs.rand(n_users, n_items)<density)
    classes = dict(user=Vocab(np.arange(1, n_users+1)), item=Vocab(np.arange(1, n_items+1)))
    return Interactions(u+1, i+1, None if values is None else rs.choice(values, len(u)), classes=classes)

def solved(arch, ints, n_epoch=1, n_factors=8, **config):
    torch.manual_seed(0)
    model = arch(n_users=ints.n_users, n_items=ints.n_items, n_factors=n_factors, **config)
    model.solve(ints, n_epoch)
    return model

def solver(arch, df=None, cbs=None, config=None, path='.', **kwargs):
    df = synth_ratings() if df is None else df
    return collab_learner(CollabDataLoaders.from_df(df, seed=42, bs=min(64, len(df)//2), path=path, **kwargs), n_factors=8, arch=arch, config=config, cbs=cbs)


# Popularity

def test_popularity_counts_users_and_a_repeated_pair_once():
    classes = dict(user=Vocab([1,2]), item=Vocab(list('abc')))
    pop = solved(Popularity, Interactions([1,1,1,2], [1,2,2,1], classes=classes))
    assert pop.counts.tolist()==[0,2,1,0]

def test_popularity_gives_ties_by_lower_row():
    df = pd.DataFrame(dict(user_id=[1,1,1,2,2,2,3], item_id=['d','b','a','d','b','a','c'], rating=1.))
    rec = fit(solver(Popularity, df, valid_pct=0), 1).recommend([3], k=3)
    assert rec.item_id.tolist()==['a','b','d'] and rec.score.tolist()==[2.,2.,2.]

def test_popularity_has_no_similar_items():
    with pytest.raises(NotImplementedError, match='Popularity has no item vectors'): fit(solver(Popularity), 1).similar_items(3)


# EASE

def dense_ease(X, l2):
    P = np.linalg.inv(X.T@X+l2*np.eye(X.shape[1]))
    B = -P/np.diag(P)
    np.fill_diagonal(B, 0)
    return B

@pytest.mark.parametrize('l2', [.5, 10., 500.])
def test_ease_is_the_closed_form(l2):
    ints = table()
    X = ints.csr().toarray().astype(float)
    ease = solved(EASE, ints, l2=l2)
    np.testing.assert_allclose(ease.weight, dense_ease(X, l2), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(ease.score_items(torch.arange(31)), X@dense_ease(X, l2), rtol=1e-5, atol=1e-6)

def test_ease_in_float32_is_nearly_the_same():
    torch.testing.assert_close(solved(EASE, table(), double=False).weight, solved(EASE, table()).weight, rtol=1e-4, atol=1e-6)

def test_ease_on_ratings_reads_them():
    ints = table(values=[1.,3.,5.])
    X = np.zeros((31,21))
    X[ints.users,ints.items] = ints.values
    ease = solved(EASE, ints, l2=20., use_ratings=True)
    np.testing.assert_allclose(ease.weight, dense_ease(X, 20.), rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(ease.score_items(torch.tensor([3])), X[[3]]@dense_ease(X, 20.), rtol=1e-4, atol=1e-6)
    assert not np.allclose(ease.weight, solved(EASE, ints, l2=20.).weight)

def test_ease_of_an_item_that_nobody_met_is_zero():
    ints = Interactions([1,1,2], [1,2,1], classes=dict(user=Vocab([1,2]), item=Vocab([1,2,3])))
    ease = solved(EASE, ints, l2=1.)
    assert not ease.weight[[0,3]].any() and not ease.weight[:,[0,3]].any() and ease.weight[1,2]>0

@pytest.mark.parametrize('config', [{}, dict(double=False), dict(near=.5)])
@pytest.mark.parametrize('n_users', [30, 5]) # solved by items; by users
def test_ease_of_a_catalogue_that_few_have_met_is_that_of_what_was_met(n_users, config):
    df = synth_ratings(n_users, 20, 60).assign(timestamp=lambda o: range(len(o)))
    def of(**kwargs): return CollabDataLoaders.from_df(df, valid_pct=0, bs=16, seed=0, **kwargs)
    small,wide = of(),of(vocab={'item_id': np.arange(1, 301)})
    at = wide.classes['item_id'].encode(small.classes['item_id'].items[1:])
    a,b = (solved(EASE, o.interactions('train'), **config).weight for o in (small,wide))
    torch.testing.assert_close(b[np.ix_(at, at)], a[1:,1:], rtol=1e-4, atol=1e-6)
    other = np.setdiff1d(np.arange(len(b)), at)
    assert len(b)==301 and not b[other].any() and not b[:,other].any() and a.any()

def test_ease_refuses_before_it_begins_and_says_how_much_it_needs():
    big = CollabDataLoaders.from_df(synth_ratings(), vocab={'item_id': np.arange(1, 2_000_001)}, valid_pct=0, bs=64, seed=0)
    learn = collab_learner(big, arch=EASE)
    with pytest.raises(NeedsMemoryError, match=r'EASE of 2,000,001 items needs 1\d,\d+\.\d+ GB of memory.*ItemKNN or IALS'): fit(learn, 1)

def test_ease_with_a_limit_of_its_own():
    with pytest.raises(MemoryError, match='needs 0.000 GB.*double=False'): solved(EASE, table(), memory=100)
    assert len(solved(EASE, table(), memory=10**6).weight)==21

def test_free_memory_is_a_number_of_bytes(): assert free_memory() is None or 10**7<free_memory()<10**14

@pytest.mark.parametrize('cells', [1, 50, 10**6])
def test_a_gram_matrix_does_not_depend_on_its_slices(cells):
    X = table().csr()
    assert (np.concatenate([o for _,o in gram_blocks(X, cells)])==(X.T@X).toarray()).all()

def test_ease_says_which_l2_it_takes():
    with pytest.raises(ValueError, match='l2=0, expected a number above 0'): solved(EASE, table(), l2=0)


# ItemKNN

def tiny():
    "Users met ab, ab, bc, c; rows 1 to 4 and items 1 to 3"
    return Interactions([1,1,2,2,3,3,4], [1,2,1,2,2,3,3], classes=dict(user=Vocab([1,2,3,4]), item=Vocab(list('abc'))))

def test_cosine_by_hand():
    s = solved(ItemKNN, tiny(), n_neighbors=2).similar(torch.tensor([2]))[0]
    assert s[1]==pytest.approx(2/(2*3)**.5) and s[3]==pytest.approx(1/(3*2)**.5)  # two users in common of 2 and 3; one of 3 and 2

def test_bm25_by_hand():
    # idf: users of two items log(3/3)=0, the last user log(3/2); only c has a weight
    s = solved(ItemKNN, tiny(), weighting='bm25').similar(torch.tensor([1,2,3]))
    assert torch.isinf(s).all()
    ints = Interactions([1,1,2,2,2], [1,2,1,2,3], classes=dict(user=Vocab([1,2]), item=Vocab(list('abcd'))))  # d has no row
    s = solved(ItemKNN, ints, weighting='bm25', k1=2., b=.5).similar(torch.tensor([1]))[0]
    idf,norm = np.log([3/3, 3/4]),.5+.5*2/(5/3)  # a and b: both users, mean length 5/3
    assert s[2]==pytest.approx((idf**2).sum()*(3/(2*norm+1))**2, rel=1e-5)

def test_shrink_counts_the_users_in_common():
    s = solved(ItemKNN, tiny(), shrink=3.).similar(torch.tensor([2]))[0]
    assert s[1]==pytest.approx(2/5*2/6**.5) and s[3]==pytest.approx(1/4*1/6**.5)

def test_a_score_is_the_sum_over_neighbours_in_the_history():
    ints = table()
    X = ints.csr().toarray().astype(float)
    S = X.T@X/np.sqrt(np.outer(X.sum(0), X.sum(0)).clip(1))
    np.fill_diagonal(S, 0)
    keep = np.argsort(-S, 1, kind='stable')[:,:5]
    W = np.zeros_like(S)
    np.put_along_axis(W, keep, np.take_along_axis(S, keep, 1), 1)
    knn = solved(ItemKNN, ints, n_neighbors=5)
    ties = np.isclose(np.sort(S, 1)[:,-5], np.sort(S, 1)[:,-6])  # either of two equal neighbours will do
    np.testing.assert_allclose(knn.score_items(torch.arange(31))[:,~ties], (X@W.T)[:,~ties], rtol=1e-5, atol=1e-6)
    assert ties.sum()<8

def test_more_neighbours_than_items(): assert solved(ItemKNN, tiny(), n_neighbors=1000).neighbors.shape==(4,2)

def test_neighbours_on_ratings_read_them():
    ints = table(values=[1.,5.])
    a,b = (solved(ItemKNN, ints, use_ratings=o) for o in (True,False))
    assert not torch.allclose(a.weight, b.weight)
    assert not torch.allclose(a.score_history(torch.tensor([3]), torch.tensor([1.])), a.score_history(torch.tensor([3]), torch.tensor([5.])))

def test_similar_items_of_neighbours_are_the_similarities():
    df = pd.DataFrame(dict(user_id=[1,1,2,2,3,3,4], item_id=list('ababbcc'), rating=1.))
    near = fit(solver(ItemKNN, df, valid_pct=0), 1).similar_items('a', k=5)
    assert near.item_id.tolist()==['b'] and near.score[0]==pytest.approx(2/6**.5)  # nobody met a and c

def test_an_unknown_weighting():
    with pytest.raises(ValueError, match="weighting='tfidf', expected 'cosine' or 'bm25'"): solved(ItemKNN, tiny(), weighting='tfidf')


# IALS

def exact_half(X, Y, l2, alpha, nu):
    "Rows of users given items, one dense weighted ridge regression at a time"
    out = np.zeros((len(X),Y.shape[1]))
    for u in range(len(X)):
        C = np.where(X[u]>0, 1., alpha)
        out[u] = np.linalg.solve(Y.T@(C[:,None]*Y)+l2*C.sum()**nu*np.eye(Y.shape[1]), Y.T@(C*X[u]))
    return out

@pytest.mark.parametrize('nu', [0., .5, 1.])
@pytest.mark.parametrize('cg_steps', [None, 30])
def test_sweeps_are_those_of_dense_alternating_least_squares(nu, cg_steps):
    ints = table()
    X,how = ints.csr().toarray()[1:,1:].astype(float),dict(l2=.1, alpha=.2, nu=nu)
    model = solved(IALS, ints, 0, n_factors=4, cg_steps=cg_steps, **how)
    P,Q = (o[1:].double().numpy() for o in (model.user_factors,model.item_factors))
    for _ in range(3):
        P = exact_half(X, Q, **how)
        Q = exact_half(X.T, P, **how)
    model.solve(ints, 3)
    np.testing.assert_allclose(model.score_items(torch.arange(1,31))[:,1:], P@Q.T, rtol=1e-3, atol=1e-4)

@pytest.mark.parametrize('nu', [0., 1.])
def test_the_loss_is_its_formula(nu):
    ints = table()
    model,X = solved(IALS, ints, 2, l2=.1, alpha=.2, nu=nu),ints.csr().toarray()[1:,1:].astype(float)
    P,Q = (o[1:].double().numpy() for o in (model.user_factors,model.item_factors))
    C = np.where(X>0, 1., .2)
    reg = .1*((C.sum(1)**nu*(P**2).sum(1)).sum()+(C.sum(0)**nu*(Q**2).sum(1)).sum())
    assert model.loss(ints)==pytest.approx((C*(X-P@Q.T)**2).sum()+reg, rel=1e-6)

@pytest.mark.parametrize('cg_steps', [1, 3, None])
def test_the_loss_falls_with_every_sweep(cg_steps):
    ints = table(60, 40)
    model = solved(IALS, ints, 0, cg_steps=cg_steps)
    losses = [model.loss(ints)]
    for _ in range(8): model.solve(ints); losses.append(model.loss(ints))
    assert all(b<a for a,b in zip(losses, losses[1:]))

def test_a_few_steps_come_to_the_loss_of_exact_solutions():
    ints = table(60, 40)
    a,b = (solved(IALS, ints, 15, cg_steps=o).loss(ints) for o in (3,None))
    assert a==pytest.approx(b, rel=1e-2)

def test_factors_do_not_depend_on_blocks_and_padding(monkeypatch):
    ints = table()
    a = solved(IALS, ints, 3).score_items(torch.arange(31))
    monkeypatch.setattr('recfast.models.ials.row_blocks', lambda csr, cells: row_blocks(csr, 1))
    torch.testing.assert_close(solved(IALS, ints, 3).score_items(torch.arange(31)), a, rtol=1e-4, atol=1e-5)

@pytest.mark.parametrize('cells', [1, 7, 60, 10**6])
def test_blocks_hold_every_pair_once(cells):
    X = table(density=.1).csr()
    pairs = [(r,c) for rows,cols in row_blocks(X, cells) for r,cs in zip(rows.tolist(), cols.tolist()) for c in cs if c]
    assert sorted(pairs)==sorted(zip(*(o.tolist() for o in X.nonzero())))
    assert all(r.numel()==1 or c.numel()<=cells for r,c in row_blocks(X, cells))

def test_rows_and_items_without_a_pair_are_zero():
    ints = Interactions([1,1,2], [1,2,1], classes=dict(user=Vocab([1,2,3]), item=Vocab([1,2,3])))
    model = solved(IALS, ints, 2)
    assert not model.user_factors[[0,3]].any() and not model.item_factors[[0,3]].any() and model.user_factors[1].any()

def test_a_history_is_solved_like_a_trained_user():
    ints = table()
    model = solved(IALS, ints, 200, cg_steps=None, l2=.05)  # until nothing moves
    items = ints.items[ints.users==4].long()
    torch.testing.assert_close(model.score_history(items.repeat(2)), model.score_items(torch.tensor([4]))[0], rtol=1e-3, atol=1e-4)

def test_no_history_scores_zero(): assert not solved(IALS, table(), 2).score_history(torch.zeros(0, dtype=torch.int64)).any()

@pytest.mark.parametrize('config,says', [(dict(alpha=0), 'alpha=0'), (dict(alpha=40), 'alpha=40'), (dict(l2=-1), 'l2=-1'), (dict(cg_steps=0), 'cg_steps=0')])
def test_settings_that_mean_nothing(config, says):
    with pytest.raises(ValueError, match=says): solved(IALS, table(), **config)


# In a Learner

@every_solved
def test_the_model_is_buffers(arch):
    model = fit(solver(arch), 2).model
    assert list(model.parameters())==[] and all(o.numel() for o in model.state_dict().values()) and model.state_dict()

@every_solved
def test_an_epoch_is_recorded_as_ever_but_for_the_training_loss(arch, tmp_path):
    learn = fit(solver(arch, cbs=CSVLogger(), path=tmp_path), 3)
    assert np.isnan([o[0] for o in learn.recorder.values]).all() and np.isfinite([o[1] for o in learn.recorder.values]).all()
    log = pd.read_csv(tmp_path/'history.csv')
    assert list(log.columns)==['epoch','train_loss','valid_loss','time'] and len(log)==3 and log.valid_loss.notna().all()

@every_solved
def test_one_cycle_is_fit(arch):
    a,b = solver(arch),solver(arch)
    fit(a, 3)
    fit_one_cycle(b, 3)
    assert all(torch.equal(v, b.model.state_dict()[k]) for k,v in a.model.state_dict().items())

@pytest.mark.parametrize('call,says', [(lambda l: l.fit(1, 1e-2), 'lr not used'), (lambda l: l.fit(1, wd=.1), 'wd not used'),
    (lambda l: l.fit_one_cycle(1, 1e-2), 'lr_max not used'), (lambda l: l.fit_one_cycle(1, wd=.1), 'wd not used')])
def test_what_is_not_used_is_reported(call, says):
    learn = solver(EASE)
    with pytest.warns(UserWarning, match=f'EASE is solved in closed form: {says}'), learn.no_bar(), learn.no_logging(): call(learn)

def test_nothing_is_reported_where_nothing_was_given():
    with warnings.catch_warnings():
        warnings.simplefilter('error', UserWarning)
        fit(solver(EASE), 1)

def test_there_is_no_learning_rate_to_find():
    learn = solver(IALS)
    before = learn.model.user_factors.clone()
    with pytest.raises(RecfastError, match='IALS is solved in closed form: there is no learning rate'), learn.no_bar(): learn.lr_find(show_plot=False)
    assert torch.equal(learn.model.user_factors, before)

def test_two_fits_go_on_where_sweeps_ended():
    a,b = fit(fit(solver(IALS), 2), 3),fit(solver(IALS), 5)
    assert torch.equal(a.model.user_factors, b.model.user_factors)

def test_a_solution_is_worked_out_once_in_a_fit():
    learn,calls = solver(EASE),[]
    solve = EASE.solve
    learn.model.solve = lambda rows, n_epoch: (calls.append(n_epoch), solve(learn.model, rows, n_epoch))
    assert calls==[] and len(fit(learn, 3).recorder.values)==3 and calls==[3]

def test_the_best_sweep_is_kept(tmp_path):
    learn = fit(solver(IALS, path=tmp_path, cbs=SaveModelCallback(monitor='valid_loss')), 4)
    losses = [o[1] for o in learn.recorder.values]
    assert learn.validate()[0]==pytest.approx(min(losses), rel=1e-5)

def test_the_valid_loss_is_that_of_the_pairs():
    learn = fit(solver(EASE), 1)
    valid = learn.dls.interactions('valid')
    scores = score_items(learn.model, valid.users.long(), valid.n_items).gather(1, valid.items[:,None].long())
    assert learn.recorder.values[0][1]==pytest.approx(MSELossFlat()(scores, valid.values[:,None]).item(), rel=1e-4)

@every_solved
def test_weights_come_back_from_a_file(arch, tmp_path):
    a,b = fit(solver(arch, path=tmp_path), 2),solver(arch, path=tmp_path)
    a.save('m')
    b.load('m')
    assert np.array_equal(a.predict([3,7], [5,6]), b.predict([3,7], [5,6]))

def test_a_file_of_another_catalogue_is_refused(tmp_path):
    fit(solver(EASE, path=tmp_path), 1).save('m')
    other = solver(EASE, synth_ratings(n_items=30), path=tmp_path)
    with pytest.raises(RatingsError, match="'m' has rows for other item ids"): other.load('m')
    assert not other.model.weight.numel()

@every_reader
def test_attached_rows_are_in_no_pickle(arch):
    learn = fit(solver(arch), 1)
    again = pickle.loads(pickle.dumps(learn.model))
    assert set(learn.model.state_dict()) <= {'weight','neighbors'}
    with pytest.raises(RecfastError, match=r"model.attach\(dls.interactions\('train'\)\)"): again.score_items(torch.tensor([1]))
    again.attach(learn.dls.interactions('train'))
    assert torch.equal(again.score_items(torch.tensor([1,2])), learn.model.score_items(torch.tensor([1,2])))

@pytest.mark.filterwarnings('ignore')
@every_solved
def test_export_and_load_learner(arch, tmp_path):
    learn = fit(solver(arch, path=tmp_path), 1)
    learn.export('e.pkl')
    again = load_learner(tmp_path/'e.pkl')
    a,b = learn.model.state_dict(),again.model.state_dict()
    assert a.keys()==b.keys() and all(torch.equal(a[k], b[k]) for k in a)

@pytest.mark.parametrize('arch', [ItemKNN, EASE])
def test_before_a_fit_there_is_no_answer(arch):
    with pytest.raises(RecfastError, match='not solved yet'): solver(arch).predict(3, 5)

@every_reader
def test_a_history_scores_like_the_user_who_has_it(arch):
    learn = fit(solver(arch, block_ratings(), valid_pct=0), 1)
    rows = learn.dls.interactions('train')
    items = rows.items[rows.users==7].long()
    torch.testing.assert_close(learn.model.score_history(items, torch.ones(len(items))), learn.model.score_items(torch.tensor([7]))[0])

@pytest.mark.parametrize('arch,config', [(ItemKNN, None), (EASE, None), (IALS, dict(l2=.1))])
def test_someone_new_of_a_known_taste(arch, config):
    learn = fit(solver(arch, block_ratings().query('rating==5'), valid_pct=0, config=config), 5)
    assert (learn.recommend(history=[2,4,6], k=10).item_id%2==0).all()

@every_solved
def test_clicks_with_drawn_negatives_do_as_well(arch):
    df = block_ratings().query('rating==5')
    dls = CollabDataLoaders.implicit_from_df(df, seed=42, bs=64)
    learn = fit(collab_learner(dls, n_factors=8, arch=arch), 2)
    plain = fit(solver(arch, df), 2)
    assert np.isfinite(learn.recorder.values[-1][1])
    assert learn.recommend([3], k=5).item_id.tolist()==plain.recommend([3], k=5).item_id.tolist()

def test_get_preds_of_a_model_without_parameters():
    learn = fit(solver(EASE), 1)
    with learn.no_bar(): preds,y = learn.get_preds()
    frame = learn.dls.interactions('valid').frame()
    np.testing.assert_allclose(preds[:,0], learn.predict(frame.user_id, frame.item_id), rtol=1e-5, atol=1e-6)

def test_a_second_fit_on_other_rows_answers_anew():
    learn = fit(solver(EASE), 1)
    a = learn.recommender.predict(999, 5, on_unknown='fallback')
    learn.model.l2 = 5.
    fit(learn, 1)
    assert learn.recommender.predict(999, 5, on_unknown='fallback')!=pytest.approx(a)

def test_popularity_does_not_answer_before_it_has_counted():
    learn = collab_learner(CollabDataLoaders.from_df(synth_ratings(), seed=1), arch=Popularity)
    with pytest.raises(RecfastError, match='not solved yet'): learn.recommend(1)

def test_a_setting_that_does_not_exist_names_those_that_do():
    with pytest.raises(TypeError, match="EASE: .*'lam'; it takes .*l2"): collab_learner(CollabDataLoaders.from_df(synth_ratings(), seed=1), arch=EASE, config=dict(lam=1))

def test_scores_of_solved_models_are_no_ratings():
    learn = collab_learner(CollabDataLoaders.from_df(synth_ratings(), seed=1), arch=EASE)
    fit(learn, 1)
    assert not {'rmse','mae'} & set(learn.evaluate(k=5).summary)

class Again(HistoryModel):
    "A model of one's own: what was met is scored by how often"
    def _spread(self, items, n, values):
        at = torch.repeat_interleave(n),items
        return torch.zeros(len(n), self.n_items).index_put(at, values, accumulate=True)

@pytest.mark.parametrize('use_ratings', [False, True])
def test_a_model_that_says_what_histories_come_to_gets_the_rest(use_ratings):
    ints = table(values=[1.,3.,5.])
    model = Again(ints.n_users, ints.n_items)
    model.use_ratings = use_ratings
    model.attach(ints)
    want = ints.csr(values=use_ratings).toarray()
    assert np.array_equal(model.score_items(torch.arange(31)), want)
    mine = ints.users==4
    items,values = ints.items[mine].long(),ints.values[mine]
    assert np.array_equal(model.score_history(items, values), want[4])
    assert torch.equal(model.contributions(items, values).sum(0), model.score_history(items, values))

def test_rows_attached_anew_are_read_anew():
    a,b = table(seed=0),table(seed=1)
    model = Again(a.n_users, a.n_items)
    for ints in (a,b,a):
        model.attach(ints)
        assert np.array_equal(model.score_items(torch.arange(31)), ints.csr().toarray())
