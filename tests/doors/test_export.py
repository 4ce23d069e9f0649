"One graph of score, mask and top-k: the same lists as recommend, in onnxruntime and torch.export"
import json

import numpy as np
import pytest
import torch
from torch import nn

from helpers import fit_one_cycle, learner_of, loaders
from recfast.bundle import export_onnx, export_program, load_bundle
from recfast.core import RecfastError
from recfast.data.loaders import CollabDataLoaders
from recfast.learner import collab_learner
from recfast.models.base import MODELS
from recfast.recommend import Recommender
from recfast.testing import synth_ratings

ort = pytest.importorskip('onnxruntime')
pytest.importorskip('onnxscript')
pytestmark = pytest.mark.slow
READ_HISTORIES = [n for n,(c,_) in MODELS.items() if getattr(c, 'pairs', True) is False]
PAIRS = [n for n in MODELS if n not in READ_HISTORIES]

def padded(rec, users):
    "[U,M] rows seen by each user, filled up with 0"
    rows = [rec.seen.csr()[u].indices for u in users]
    out = np.zeros((len(rows), max(map(len, rows), default=0)), np.int64)
    for o,r in zip(out, rows): o[:len(r)] = r
    return out

def by_onnx(path, users, seen):
    items,scores = ort.InferenceSession(path).run(None, dict(users=np.asarray(users, np.int64), seen=np.asarray(seen, np.int64)))
    return items,scores

def by_program(path, users, seen):
    with torch.no_grad(): out = torch.export.load(path).module()(torch.as_tensor(users).long(), torch.as_tensor(seen).long())
    return tuple(o.numpy() for o in out)

BOTH = pytest.mark.parametrize('export,run', [(export_onnx,by_onnx),(export_program,by_program)], ids=['onnx','program'])

def check(rec, users, k, items, scores, **kwargs):
    "The lists of a graph are those of `recommend`, save where scores are as good as equal"
    want = rec.recommend(rec.users.decode(np.asarray(users)), k=k, **kwargs)
    filled = items>0
    assert filled.sum()==len(want) and (np.isneginf(scores)==~filled).all()
    np.testing.assert_allclose(scores[filled], want.score, rtol=1e-5, atol=1e-6)
    for i,j in zip(items[filled], np.flatnonzero(rec.items.decode(items[filled])!=want.item_id.to_numpy())):
        assert np.isclose(scores[filled][j], want.score[j], rtol=1e-5, atol=1e-6)
    assert (rec.items.decode(items[filled])==want.item_id.to_numpy()).mean()>.95

@BOTH
@pytest.mark.parametrize('name', PAIRS)
def test_a_graph_gives_the_lists_of_recommend_for_any_number_of_users(name, export, run, tmp_path):
    rec = fit_one_cycle(learner_of(name)).recommender
    path = export(rec, tmp_path/'g', k=7)
    for users in ([1], [3,1,50,3,8], range(1, 51)): # repeated, and every user
        check(rec, users, 7, *run(path, list(users), padded(rec, users)))

@BOTH
def test_several_outputs_are_one_score(export, run, tmp_path):
    rec = collab_learner(loaders(bs=32), n_factors=5, arch=MODELS['gmf'][0], config=dict(n_out=6)).recommender # its score_items walks over users, so the graph is traced pair by pair
    torch.manual_seed(1)
    for o in rec.model.parameters(): nn.init.normal_(o) # as it is made, scores differ by less than their rounding
    check(rec, [4,9], 5, *run(export(rec, tmp_path/'g', k=5), [4,9], padded(rec, [4,9])))

@pytest.mark.parametrize('name', READ_HISTORIES)
def test_a_model_that_reads_histories_says_that_it_has_no_graph(name, tmp_path):
    with pytest.raises(NotImplementedError, match='serve it from a bundle'): learner_of(name).export_onnx(tmp_path/'g.onnx')
    assert list(tmp_path.iterdir())==[]

# ties, masks, edges

class Table(nn.Module):
    "Scores by a table that is given"
    def __init__(self, table): super().__init__(); self.table = nn.Parameter(torch.as_tensor(table).float())
    def forward(self, x): return self.table[x[:,0],x[:,1]]

def table_rec(table, df=None):
    dls = CollabDataLoaders.from_df(synth_ratings() if df is None else df, valid_pct=0, seed=1)
    return Recommender(Table(table), dls.interactions('all'))

@BOTH
def test_ties_go_to_the_lower_row(export, run, tmp_path):
    "Ten users each: all equal, few integers, all as low as can be, zeros of both signs, integers again"
    g = torch.Generator().manual_seed(3)
    few = torch.randint(-1, 3, (51,41), generator=g).float()
    table = torch.cat([torch.ones(11,41), few[:10], torch.full((10,41), torch.finfo(torch.float32).min), few[:10]*0., few[10:20]])
    rec = table_rec(table)
    items,scores = run(export(rec, tmp_path/'g', k=8), range(1,51), padded(rec, range(1,51)))
    want = rec.recommend(k=8)
    assert rec.items.decode(items.flatten()).tolist()==want.item_id.tolist() and scores.flatten().tolist()==want.score.tolist()

@BOTH
def test_row_0_never_trained_items_and_seen_rows_do_not_appear(export, run, tmp_path):
    df = synth_ratings()
    dls = CollabDataLoaders.from_df(df, splits=(np.flatnonzero(df.item_id!=7),np.flatnonzero(df.item_id==7)), vocab='all', seed=1)
    rec = Recommender(Table(torch.arange(41.).flip(0).repeat(51,1)), dls.interactions('all'), dls.interactions('train'))
    items,_ = run(export(rec, tmp_path/'g', k=41), [2,0], [[1,2,0],[0,0,0]])
    assert items[0].tolist()==[i for i in range(3,41) if i!=7]+[0]*4  # by falling score, then places without a candidate
    assert not items[1].any()  # row 0 is nobody

@BOTH
def test_nobody_and_nothing_seen_are_inputs_too(export, run, tmp_path):
    rec = table_rec(torch.arange(41.).repeat(51,1))
    path = export(rec, tmp_path/'g', k=2)
    assert run(path, [5,6], np.zeros((2,0), np.int64))[0].tolist()==[[40,39]]*2
    assert run(path, np.zeros(0, np.int64), np.zeros((0,3), np.int64))[0].shape==(0,2)

@BOTH
def test_a_list_longer_than_the_items_is_filled_up(export, run, tmp_path):
    items,scores = run(export(table_rec(torch.arange(41.).repeat(51,1)), tmp_path/'g', k=45), [1], [[0]])
    assert items.tolist()==[[*range(40,0,-1)]+[0]*5] and np.isneginf(scores[0,40:]).all()

# what is written

def test_the_ids_lie_beside_the_graph_and_the_facts_in_it(tmp_path):
    import onnx
    from recfast import __version__
    learn = fit_one_cycle(learner_of('dotproductbias'))
    learn.export_onnx(tmp_path/'g.onnx', k=4)
    meta = {o.key: o.value for o in onnx.load(tmp_path/'g.onnx').metadata_props}
    assert meta=={'recfast': __version__, 'model': 'DotProductBias', 'k': '4', 'ids': 'g.ids.json'}
    users,items = json.loads((tmp_path/'g.ids.json').read_text(encoding='utf-8'))
    assert users['values']==list(learn.dls.classes['user_id'].items)[1:] and items['column']=='item_id'

def test_a_bundle_exports_what_its_learner_exports(tmp_path):
    learn = fit_one_cycle(learner_of('dotproduct'))
    a,b = learn.export_onnx(tmp_path/'a.onnx', k=3),load_bundle(learn.save_bundle(tmp_path/'b')).export_onnx(tmp_path/'b.onnx', k=3)
    assert np.array_equal(by_onnx(a, [1,2], [[0],[0]])[1], by_onnx(b, [1,2], [[0],[0]])[1])

def test_exporting_leaves_the_model_as_it_was(tmp_path):
    learn = fit_one_cycle(learner_of('neumf'))
    learn.model.train()
    before = {k: v.clone() for k,v in learn.model.state_dict().items()}
    learn.export_program(tmp_path/'g.pt2')
    assert learn.model.training and all(torch.equal(v, before[k]) for k,v in learn.model.state_dict().items())

def test_broken_weights_and_bad_k_are_refused(tmp_path):
    rec = table_rec(torch.full((51,41), torch.nan))
    with pytest.raises(RecfastError, match='its weights are broken'): rec.export_onnx(tmp_path/'g.onnx')
    with pytest.raises(ValueError, match='k=0'): rec.export_onnx(tmp_path/'g.onnx', k=0)

def test_a_forward_that_cannot_be_traced_is_named(tmp_path):
    class Odd(Table):
        def forward(self, x): return torch.tensor([float(self.table[u,i]) for u,i in x.tolist()])
    dls = CollabDataLoaders.from_df(synth_ratings(), seed=1)
    with pytest.raises(NotImplementedError, match='cannot trace Odd'): Recommender(Odd(torch.zeros(51,41)), dls.interactions('all')).export_program(tmp_path/'g')
