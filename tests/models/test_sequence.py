"Next-item models: the figures of the letters, a loss by hand, causality, and lists that follow the order"
import pickle

import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from fastai.losses import CrossEntropyLossFlat
from torch import nn

from helpers import fit_one_cycle, without_progress
from recfast.core import RecfastError
from recfast.data.catalogues import movie_night_films
from recfast.data.datasets import movie_night
from recfast.bundle import load_bundle
from recfast.data.loaders import CollabDataLoaders
from recfast.data.windows import WindowDL, random_windows
from recfast.learner import collab_learner
from recfast.models.base import score_items
from recfast.models.bert import BERT4Rec, cloze
from recfast.models.gru import GRU4Rec
from recfast.models.sequence import NextItem, NextItemLoss, PooledDropout, SASRec, causal_mask
from recfast.models.spec import model_from_spec
from recfast.next_losses import GBCELoss
from recfast.softmax import multiplies_half
from recfast.testing import synth_ratings
from recfast.train import train_table

both = pytest.mark.parametrize('arch', [NextItem, SASRec])

def rounded(t): return [round(o, 4) for o in t.flatten().tolist()]

def sequencer(arch, df=None, n_factors=16, **kwargs):
    dls = CollabDataLoaders.sequences_from_df(synth_ratings() if df is None else df, **{'seed':42, 'bs':16, **kwargs})
    return collab_learner(dls, n_factors=n_factors, arch=arch)


def test_the_embedding_of_the_document():
    torch.manual_seed(43052)
    assert rounded(nn.Embedding(3, 1).weight)==[-.8178,-.7052,-.5843]

def test_the_linear_layer_of_the_document():
    torch.manual_seed(43052)
    lin = nn.Linear(1, 1)
    assert rounded(lin.weight)==[-.3467] and rounded(lin.bias)==[-.8470]

@pytest.mark.parametrize('letters', ['ab', 'abc'])
def test_plain_torch_learns_the_letters(letters):
    n = len(letters)
    x = torch.arange(n).repeat(100)[:3*n] # the mean over 100 rounds is that over 3
    y = (x+1)%n
    torch.manual_seed(43052)
    net = nn.Sequential(nn.Embedding(n, 1), nn.Tanh(), nn.Linear(1, n))
    opt = torch.optim.Adam(net.parameters(), .05)
    for _ in range(600): F.cross_entropy(net(x), y).backward(); opt.step(); opt.zero_grad()
    assert (net(x).argmax(1)==y).all()

@pytest.mark.parametrize('letters', ['ab', 'abc'])
@pytest.mark.parametrize('seed', range(3))
def test_next_item_learns_the_letters(letters, seed):
    dls = CollabDataLoaders.sequences_from_tokens(list(letters)*100, bs=64, seed=seed)
    learn = fit_one_cycle(collab_learner(dls, n_factors=1, arch=NextItem), 60, .1)
    x,y = dls.train.batch_at(torch.arange(dls.train.n))
    assert (learn.model(x).argmax(-1)==y).all() and learn.fast


def test_the_loss_by_hand():
    scores = torch.tensor([[[0.,0.,0.],[0.,1.,2.]]])
    want = torch.tensor(1+2.718281828+7.389056099).log()-2  # second place, item 2
    torch.testing.assert_close(NextItemLoss()(scores, torch.tensor([[0,2]])), want)

def test_the_loss_of_every_place():
    scores,y = torch.randn(2,3,5),torch.tensor([[0,1,2],[0,0,4]])
    each = NextItemLoss('none')(scores, y)
    assert each.shape==y.shape and (each[y==0]==0).all() and (each[y>0]>0).all()
    torch.testing.assert_close(each.sum()/3, NextItemLoss()(scores, y))

def test_a_batch_without_any_answer_costs_nothing():
    assert NextItemLoss()(torch.randn(1,2,5), torch.zeros(1,2, dtype=torch.int64))==0

def test_the_sampled_loss_is_right_on_average():
    torch.manual_seed(0)
    h,table,y = torch.randn(1,4,6),torch.randn(40,6),torch.tensor([[3,9,0,30]])
    full = F.cross_entropy((h@table[1:].T)[y>0], y[y>0]-1)
    draws = torch.stack([NextItemLoss()((h,table,2000), y) for _ in range(30)])
    assert abs(draws.mean()-full)<4*draws.std()/30**.5+1e-3

def test_a_drawn_answer_is_no_negative():
    h,table = torch.randn(1,1,4),torch.randn(2,4)  # one item: every draw is the answer
    assert NextItemLoss()((h,table,7), torch.tensor([[1]]))==0


@pytest.mark.parametrize('arch', [NextItem,SASRec])
def test_items_that_nobody_met_learn_nothing(arch):
    films = movie_night_films()
    dls = CollabDataLoaders.sequences_from_df(movie_night().query('item_id<280'), bs=64, seed=0, items=films)
    learn = collab_learner(dls, 8, arch=arch)
    cold = ~torch.from_numpy(dls.interactions('train').trained('item'))
    assert cold[1:].sum()==21
    start = {k: v.clone() for k,v in learn.model.state_dict().items()}
    with learn.no_bar(), learn.no_logging(): learn.fit(1, wd=0.)
    for k,v in learn.model.state_dict().items():
        if len(v)!=len(cold): continue
        assert torch.equal(v[cold], start[k][cold]) and not torch.equal(v[~cold], start[k][~cold]), k

def test_what_nobody_met_stands_in_no_denominator_unless_it_came():
    loss,scores = NextItemLoss(),torch.randn(1,3,6)
    loss.cold = torch.tensor([True,False,False,True,False,True])
    y = torch.tensor([[1,3,0]])
    met = scores[0,0,[1,2,4]].logsumexp(0)-scores[0,0,1]
    came = scores[0,1,[1,2,3,4]].logsumexp(0)-scores[0,1,3]
    torch.testing.assert_close(loss(scores, y), (met+came)/2)

def test_the_sampled_loss_never_draws_what_nobody_met():
    torch.manual_seed(0)
    h,table,y = torch.randn(1,4,6),torch.randn(40,6),torch.tensor([[3,9,0,11]])
    loss = NextItemLoss()
    loss.cold = torch.arange(40)>19
    full = F.cross_entropy((h@table[1:20].T)[y>0], y[y>0]-1)
    draws = torch.stack([loss((h,table,2000), y) for _ in range(30)])
    assert abs(draws.mean()-full)<4*draws.std()/30**.5+1e-3

def test_activations_by_name():
    assert isinstance(NextItem(n_items=3, act='ReLU').act[0], nn.ReLU) and isinstance(NextItem(n_items=3, act='none').act[0], nn.Identity)
    with pytest.raises(ValueError, match="act='swoosh', expected one of"): NextItem(n_items=3, act='swoosh')

def test_next_item_reads_the_last_item_only():
    net = NextItem(n_items=9, n_factors=4)
    torch.testing.assert_close(net(torch.tensor([[1,2,3]]))[0,-1], net(torch.tensor([[3]]))[0,-1])

def test_no_place_sees_a_later_one():
    net = SASRec(n_items=30, n_factors=8, seq_len=6, n_heads=2).eval()
    x = torch.randint(1, 30, (4,6))
    changed = x.clone()
    changed[:,4:] = torch.randint(1, 30, (4,2))
    torch.testing.assert_close(net(x)[:,:4], net(changed)[:,:4])

def test_padding_is_not_looked_at():
    net = SASRec(n_items=30, n_factors=8, seq_len=6).eval()
    net.i_weight.weight.data[0] = 100.  # as if row 0 had a say
    x = torch.tensor([[0,0,5,6]])
    padded = net(x)[0,2:]
    net.i_weight.weight.data[0] = 0.
    torch.testing.assert_close(padded[:,1:], net(x)[0,2:,1:])

def test_a_place_of_padding_looks_at_itself(): assert causal_mask(torch.tensor([[0,3]]))[0,0].tolist()==[[True,False],[False,True]]

def test_heads_that_do_not_divide():
    with pytest.raises(ValueError, match='n_heads=3'): SASRec(n_items=5, n_factors=8, n_heads=3)

def test_a_window_longer_than_the_model():
    net,x = SASRec(n_items=5, n_factors=8, seq_len=4),torch.ones(1, 9, dtype=torch.int64)
    with pytest.raises(ValueError, match='x has 9 places, the model 4'): net(x)

@both
def test_scores_are_those_of_the_last_place(arch):
    learn = sequencer(arch)
    hist = learn.dls.valid.hist.last(torch.tensor([3,7]), 50)
    learn.model.eval()
    torch.testing.assert_close(score_items(learn.model, torch.tensor([3,7]), learn.dls.n_items), learn.model(hist)[:,-1])

@both
def test_a_history_gets_the_list_of_the_user_who_has_it(arch):
    learn = fit_one_cycle(sequencer(arch), 2, 1e-2)
    train = learn.dls.interactions('train')
    ids = train.item_vocab.decode(learn.dls.valid.hist.last(train.user_vocab.encode([5])[:1], 50)[0].numpy())
    mine = learn.recommend(5, k=5, exclude_seen=False)
    new = learn.recommend(history=[o for o in ids if o!='#na#'], k=5, exclude_seen=False)
    assert new.item_id.tolist()==mine.item_id.tolist()

@both
def test_without_histories(arch):
    with pytest.raises(RecfastError, match='call model.attach'): score_items(arch(n_items=5, n_factors=4), torch.tensor([1]), 5)

@both
def test_what_is_attached_is_in_no_file(arch):
    model = sequencer(arch).model
    assert not any('last' in k for k in model.state_dict())
    again = pickle.loads(pickle.dumps(model))
    assert again._last is None and all(torch.equal(a, b) for a,b in zip(model.parameters(), again.parameters()))

def rounds(n_users=60, length=12, n_items=20):
    "Every user walks round a circle of items from a place of their own: the next one is known"
    rows = [(u,(u*7+j)%n_items,j) for u in range(n_users) for j in range(length)]
    return pd.DataFrame(rows, columns=['user_id','item_id','timestamp'])

@both
def test_a_walk_round_a_circle_is_continued(arch):
    learn = fit_one_cycle(sequencer(arch, rounds(), seq_len=11), 30, 1e-2)
    assert learn.evaluate(k=1)['recall@1']==1
    assert learn.recommend(history=[3,4,5], k=1).item_id.tolist()==[6]

def test_the_order_before_the_last_matters_to_sasrec_only():
    rows = [(u,c) for u in range(80) for c in ('xmp' if u%2 else 'ymq')]
    df = pd.DataFrame(rows, columns=['user_id','item_id'])
    lists = {a: fit_one_cycle(sequencer(a, df, seq_len=3, hold_out=False), 30, 1e-2).recommend(history=[['x','m'],['y','m']], k=1).item_id.tolist()
             for a in (NextItem,SASRec)}
    assert lists[SASRec]==['p','q'] and len(set(lists[NextItem]))==1

def test_sampled_softmax_trains():
    df = rounds()
    dls = CollabDataLoaders.sequences_from_df(df, seed=0, bs=16, seq_len=11)
    learn = fit_one_cycle(collab_learner(dls, n_factors=16, arch=SASRec, config=dict(n_negatives=8)), 30, 1e-2)
    assert learn.fast and learn.evaluate(k=1)['recall@1']>.9

@both
def test_export_and_back(arch, tmp_path):
    from fastai.learner import load_learner
    learn = sequencer(arch)
    learn.path = tmp_path
    learn.export()
    again = load_learner(tmp_path/'export.pkl')
    again.model.attach(learn.dls.interactions('train'))
    torch.testing.assert_close(score_items(again.model, torch.tensor([3]), 41), score_items(learn.model, torch.tensor([3]), 41))

def test_evaluate_prints_no_error_in_stars(): assert not {'rmse','mae'} & set(sequencer(NextItem).evaluate(k=3).summary)

# left-aligned

def left(**kwargs): return SASRec(**{'n_items':30, 'n_factors':8, 'seq_len':6, 'n_heads':2, 'align':'left', **kwargs}).eval()

def test_a_left_aligned_window_needs_no_mask_and_is_read_wherever_its_padding_stands():
    net = left()
    x = torch.tensor([[7,8,9,0,0,0],[5,6,0,0,0,0],[1,2,3,4,5,6]])
    moved = torch.tensor([[0,0,0,7,8,9],[0,0,0,0,5,6],[1,2,3,4,5,6]])
    a,b = net(x),net(moved)
    for i,n in enumerate([3,2,6]): torch.testing.assert_close(a[i,:n], b[i,6-n:])

def test_left_aligned_places_count_from_the_start():
    net = left()
    torch.testing.assert_close(net(torch.tensor([[7,8]]))[0], net(torch.tensor([[7,8,9,1]]))[0,:2])
    assert not torch.allclose(left().states(torch.tensor([[7,7]]))[0,0], left().states(torch.tensor([[7,7]]))[0,1])

def test_no_left_aligned_place_sees_a_later_one():
    net,x = left(),torch.randint(1, 30, (4,6))
    changed = x.clone()
    changed[:,4:] = torch.randint(1, 30, (4,2))
    torch.testing.assert_close(net(x)[:,:4], net(changed)[:,:4])

def test_a_history_of_any_length_is_scored_as_in_the_table():
    learn = collab_learner(CollabDataLoaders.sequences_from_df(synth_ratings(), seed=42, bs=16), n_factors=16, arch=SASRec, config=dict(align='left'))
    learn.model.eval()
    scores = score_items(learn.model, torch.tensor([3,7]), learn.dls.n_items)
    for row,u in zip(scores, (3,7)):
        items = learn.model._last[u][learn.model._last[u]>0]
        torch.testing.assert_close(learn.model.score_history(items), row, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(learn.model(items[None])[0,-1], row, rtol=1e-5, atol=1e-5)

def test_an_empty_history_is_scored_the_same_in_any_window():
    net = left()
    torch.testing.assert_close(net(torch.zeros(1, 6).long())[0,-1], net(torch.zeros(1, 2).long())[0,-1])

def test_no_third_alignment():
    with pytest.raises(ValueError, match="align='middle', expected 'left' or 'right'"): SASRec(n_items=5, n_factors=8, align='middle')

def test_what_is_dropped_comes_from_a_pool_and_from_the_seed():
    drop,h = PooledDropout(.3),torch.ones(400, 50)
    torch.manual_seed(1)
    a = drop(h)
    torch.manual_seed(1)
    assert torch.equal(a, drop(h)) and not torch.equal(a, drop(h)) and abs((a==0).float().mean()-.3)<.02
    torch.testing.assert_close(a[a>0], torch.full_like(a[a>0], 1/.7))

@pytest.mark.parametrize('p', [0.,1.])
def test_nothing_and_everything_is_dropped(p): assert (PooledDropout(p)(torch.ones(3, 3))==1-p).all()

def left_learner(n_negatives=0, loss=None, p=.2, arch=SASRec, **kwargs):
    dls = random_windows(CollabDataLoaders.sequences_from_df(rounds(), seed=0, bs=16, seq_len=11), .7)
    config = dict(seq_len=11, n_negatives=n_negatives, p=p, **dict(align='left') if arch is SASRec else {})
    return without_progress(collab_learner(dls, 16, arch=arch, config=config, loss_func=loss, init='svd', **kwargs))

@pytest.mark.parametrize('n,loss,n_epoch,lr,least', [(0,None,12,2e-2,1), (8,None,20,2e-2,.95), (8,GBCELoss(),30,1e-2,.85)],
    ids=['all items','sampled softmax','gBCE'])
def test_a_walk_round_a_circle_is_continued_from_random_windows(n, loss, n_epoch, lr, least):
    for arch in (SASRec,) if n else (SASRec,GRU4Rec):
        learn = fit_one_cycle(left_learner(n, loss, 0., arch), n_epoch, lr)
        assert learn.fast and learn.evaluate(k=1)['recall@1']>=least
        assert learn.recommend(history=[3,4,5], k=1).item_id.tolist()==[6]

@pytest.mark.parametrize('letters', ['ab','abc'])
def test_left_aligned_it_learns_the_letters(letters):
    dls = random_windows(CollabDataLoaders.sequences_from_tokens(list(letters)*40, seq_len=5, bs=8, seed=0))
    learn = fit_one_cycle(collab_learner(dls, n_factors=8, arch=SASRec, config=dict(align='left', seq_len=5, p=0.)), 50, 2e-2)
    x = torch.arange(1, len(letters)+1).repeat(3)[None,:5]
    assert (learn.model.eval()(x).argmax(-1)[0]==x[0]%len(letters)+1).all()

RESUMED = {'NextItem': (NextItem,{},False), 'SASRec': (SASRec,dict(seq_len=11),False), 'SASRec, cut anew': (SASRec,dict(seq_len=11),True),
    'left-aligned': (SASRec,dict(seq_len=11, align='left'),True), 'left-aligned, few drawn': (SASRec,dict(seq_len=11, align='left', n_negatives=4),True),
    'GRU4Rec': (GRU4Rec,dict(seq_len=11),False), 'GRU4Rec, cut anew, few drawn': (GRU4Rec,dict(seq_len=11, n_negatives=4),True),
    'BERT4Rec': (BERT4Rec,dict(seq_len=11),False), 'BERT4Rec, cut anew': (BERT4Rec,dict(seq_len=11),True)}

def resumable(name, path):
    arch,config,anew = RESUMED[name]
    dls = CollabDataLoaders.sequences_from_df(rounds(), seed=0, bs=16, seq_len=11)
    return without_progress(collab_learner(random_windows(dls, .7) if anew else dls, 16, arch=arch, config=config, path=path))

@pytest.mark.parametrize('name', RESUMED)
def test_a_training_goes_on_in_a_fresh_learner(tmp_path, name):
    whole,first,second = (resumable(name, tmp_path) for _ in range(3))
    whole.fit(4, 1e-2)
    first.fit(2, 1e-2)
    first.save('half')
    second.load('half')
    second.fit(4, 1e-2, start_epoch=2)
    assert all(torch.equal(a, b) for a,b in zip(whole.model.state_dict().values(), second.model.state_dict().values()))

def test_a_bundle_gives_the_same_lists(tmp_path):
    learn = fit_one_cycle(left_learner(), 2, 1e-2)
    rec = load_bundle(learn.save_bundle(tmp_path/'b'))
    asked = dict(k=5), dict(k=5, history=[[3,4],[7],list(range(12))])
    for how in asked: pd.testing.assert_frame_equal(rec.recommend(**how), learn.recommend(**how))
    assert rec.model.align=='left'

def test_models_of_before_stay_right_aligned():
    spec = dict(name='sasrec', config=dict(n_users=3, n_items=9, n_factors=4, seq_len=5), why='')
    assert model_from_spec(spec, {}).align=='right'

def test_shell_service_and_bundle_give_the_same_lists(tmp_path):
    from fastapi.testclient import TestClient
    from recfast.serve import make_app
    trained = train_table(rounds(), 'sasrec', n_epoch=1, n_factors=8, config=dict(align='left', seq_len=11), seed=3) # what the shell calls
    learn = trained.learn
    assert isinstance(learn.dls.train, WindowDL)
    path = learn.save_bundle(tmp_path/'b')
    want = learn.recommend(history=[3,4,5], k=5).item_id.tolist()
    with TestClient(make_app(path)) as web: rows = web.post('/recommend', json=dict(history=[3,4,5], k=5)).json()
    assert want==load_bundle(path).recommend(history=[3,4,5], k=5).item_id.tolist()==[o['item_id'] for o in rows]

# a loss that scores

@pytest.mark.parametrize('config', [dict(align='left'),dict(n_negatives=4)])
def test_states_are_not_handed_to_a_loss_of_scores(config):
    dls = CollabDataLoaders.sequences_from_tokens('abab'*9, bs=4)
    for loss in (CrossEntropyLossFlat(),nn.CrossEntropyLoss(),lambda pred,y: pred.mean()):
        with pytest.raises(TypeError, match='gives states and its item table in training, expected a loss that scores by them: NextItemLoss'):
            collab_learner(dls, n_factors=4, arch=SASRec, config=config, loss_func=loss)
    for loss in (NextItemLoss(),NextItemLoss): assert collab_learner(dls, n_factors=4, arch=SASRec, config=config, loss_func=loss).model.gives_states
    assert collab_learner(dls, n_factors=4, arch=SASRec, loss_func=CrossEntropyLossFlat()).model.gives_states is False

# gaps

def bert(**kwargs): return BERT4Rec(**{'n_items':30, 'n_factors':8, 'seq_len':6, 'n_heads':2, **kwargs}).eval()

@pytest.mark.parametrize('side', ['front','behind'])
def test_gaps_are_answered_by_the_places_before_them(side):
    torch.manual_seed(0)
    x = torch.randint(1, 30, (200,9))
    pad = torch.arange(9)<torch.randint(0, 8, (200,1))
    x[pad if side=='front' else pad.flip(1)] = 0
    told,asked = cloze(x, .3)
    there,gaps = x>0,told<0
    assert (asked[:,:-1] & there[:,1:]).eq(gaps[:,1:]).all() and not gaps[:,0].any() and not asked[~there].any()
    assert (asked.sum(1)==gaps.sum(1)+1).all() and torch.equal(told[~gaps], x[~gaps]) # the end is always asked
    first = there & (there.cumsum(1)==1)
    assert not gaps[first].any() and abs(gaps[there&~first].float().mean()-.3)<.03

def test_a_gap_is_guessed_from_both_sides_and_no_answer_is_read():
    net = bert()
    x = torch.tensor([[5,6,-1,8,9]])
    state = net._read(x)[:,1]
    assert not torch.allclose(state, net._read(torch.tensor([[5,6,-1,8,7]]))[:,1]) # the far side is read
    torch.testing.assert_close(net._read(F.pad(x, (0,1)))[:,1], state) # padding is not
    net.i_weight.weight.data[0] = 100.
    torch.testing.assert_close(net._read(x)[:,1], state)

def test_only_gaps_cost():
    net,loss = bert(p=0.).train(),NextItemLoss()
    x,y = torch.tensor([[5,6,7,8,0]]),torch.tensor([[6,7,8,9,0]])
    torch.manual_seed(3)
    out = net(x)
    asked = out[3]
    assert 1<asked.sum()<4
    near = dict(rtol=5e-3, atol=5e-3) if multiplies_half() else {}
    torch.testing.assert_close(loss(out, y), F.cross_entropy(net.logits(out[0][asked]), y[asked]), **near)
    torch.testing.assert_close(NextItemLoss('none')(out, y)>0, asked)

def test_outside_of_training_the_end_alone_is_scored_and_asked():
    net = bert()
    x = torch.tensor([[0,0,5,6],[5,6,0,0],[0,0,0,0]])
    out = net(x)
    assert out.shape==(3,1,30)
    torch.testing.assert_close(out[0], out[1])
    torch.testing.assert_close(out[2,0], net.score_history(torch.zeros(0)))
    torch.testing.assert_close(out[0,0], net.score_history(torch.tensor([5,6])))
    y = torch.tensor([[0,5,6,7]])
    torch.testing.assert_close(NextItemLoss()(out[:1], y), F.cross_entropy(out[0], torch.tensor([7])))

def test_no_gaps_at_all_and_nothing_but_gaps():
    assert cloze(torch.tensor([[5,6,7]]), 0.)[1].tolist()==[[False,False,True]]
    with pytest.raises(ValueError, match='hidden=1.0, expected a share from 0 and below 1'): bert(hidden=1.)

def test_bert4rec_continues_a_walk_round_a_circle():
    dls = random_windows(CollabDataLoaders.sequences_from_df(rounds(), seed=0, bs=16, seq_len=11))
    learn = fit_one_cycle(without_progress(collab_learner(dls, 16, arch=BERT4Rec, config=dict(seq_len=11, p=0.), init='svd')), 40, 2e-2)
    assert learn.fast and learn.evaluate(k=1)['recall@1']>=.95
    for o in (0,1): learn.show_results(ds_idx=o)

# what an event adds

@pytest.mark.parametrize('make', [left,bert,lambda: GRU4Rec(n_items=30, n_factors=8, seq_len=6).eval(),lambda: NextItem(n_items=30, n_factors=8).eval()],
    ids=['SASRec','BERT4Rec','GRU4Rec','NextItem'])
@pytest.mark.parametrize('n', [0,1,4,9])
def test_an_event_adds_what_its_absence_takes(make, n):
    net,items = make(),torch.randint(1, 30, (n,))
    parts = net.contributions(items)
    assert parts.shape==(n,30)
    for i in range(n):
        without = torch.cat([items[:i],items[i+1:]])
        torch.testing.assert_close(parts[i], net.score_history(items)-net.score_history(without), rtol=1e-4, atol=1e-5)
