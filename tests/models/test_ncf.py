"GMF, MLP and NeuMF by hand, their configuration, six classes, and NeuMF from trained parts"
import pytest
import torch
from torch import nn

from helpers import fit_one_cycle
from recfast.data.loaders import CollabDataLoaders
from recfast.learner import collab_learner
from recfast.losses import BCE, ClassLoss
from recfast.models.base import score_items
from recfast.models.ncf import ACTS, GMF, MLP, NeuMF, init_kaiming, init_normal, init_xavier
from recfast.testing import block_ratings, synth_ratings

X = torch.tensor([[1,2],[3,4],[8,11]])
every_arch = pytest.mark.parametrize('arch', [GMF,MLP,NeuMF])

def make(arch, **kwargs):
    torch.manual_seed(0)
    return arch(n_users=9, n_items=12, n_factors=4, **kwargs)


def test_gmf_by_hand():  # 2*3*.5 + (-1)*4*2 + .25
    model = GMF(2, 2, 2)
    with torch.no_grad():
        for p,v in zip((model.u_weight.weight,model.i_weight.weight,model.head.weight,model.head.bias), ([2.,-1.],[3.,4.],[.5,2.],[.25])):
            p.copy_(torch.tensor(v))
    assert model(torch.tensor([[1,1]])).item()==-4.75

def test_mlp_by_hand():
    model = make(MLP, layers=[5,3], act='tanh', init=None)
    z = torch.cat([model.u_weight.weight[X[:,0]],model.i_weight.weight[X[:,1]]], 1)
    for l in (model.hidden[1],model.hidden[4]): z = torch.tanh(z@l.weight.T+l.bias)
    torch.testing.assert_close(model(X), z@model.head.weight.T+model.head.bias)

def test_neumf_reads_both_ends():
    model = make(NeuMF, layers=[5,3], mlp_factors=6, init=None)
    both = torch.cat([model.gmf.u_weight.weight[X[:,0]]*model.gmf.i_weight.weight[X[:,1]], model.mlp.features(X[:,0], X[:,1])], 1)
    torch.testing.assert_close(model(X), model.head(both))
    assert model.head.in_features==4+3 and model.mlp.u_weight.embedding_dim==6

@every_arch
@pytest.mark.parametrize('n_out,y_range', [(1,None), (1,(0,1)), (6,None)])
def test_scores_of_all_items(arch, n_out, y_range):
    model = make(arch, n_out=n_out, y_range=y_range, init=None).eval()
    pairs = torch.stack([torch.tensor([1,8]).repeat_interleave(12), torch.arange(12).repeat(2)], 1)
    want = model.to_score(model(pairs)).view(2, 12)
    torch.testing.assert_close(score_items(model, torch.tensor([1,8]), 12), want, rtol=1e-5, atol=1e-6)
    assert model(X).shape==(3,n_out) and (y_range is None or ((want>0)&(want<1)).all())

@every_arch
def test_weights_begin_as_in_the_paper(arch):
    torch.manual_seed(0)
    model = arch(500, 700, 32)
    for m in model.modules():
        if isinstance(m, (nn.Embedding,nn.Linear)) and m.weight.numel()>1000: assert abs(m.weight.std().item()-.01)<5e-4
        if isinstance(m, nn.Linear): assert (m.bias==0).all()

@pytest.mark.parametrize('init,std', [(init_normal,.01), (init_xavier,(2/(64+64))**.5), (init_kaiming,(2/64)**.5)])
def test_scale_of_a_hidden_layer(init, std):  # 64 in, 64 out
    torch.manual_seed(0)
    model = MLP(50, 60, 32, layers=[64], init=init)
    assert model.hidden[1].weight.std().item()==pytest.approx(std, rel=.05) and model.u_weight.weight.std().item()==pytest.approx(.01, rel=.05)

def test_dropout_stands_before_each_hidden_layer():
    kinds = [type(o) for o in make(MLP, layers=[5,3], p=.3).hidden]
    assert kinds==[nn.Dropout,nn.Linear,nn.ReLU]*2

@pytest.mark.parametrize('act', [*ACTS,nn.Softplus])
def test_activations_by_name_and_by_class(act): assert torch.isfinite(make(NeuMF, act=act)(X)).all()

def test_an_activation_nobody_knows():
    with pytest.raises(ValueError, match="act='rleu', expected one of"): make(MLP, act='rleu')

@every_arch
def test_classes_with_a_range(arch):
    with pytest.raises(ValueError, match='logits of classes'): make(arch, n_out=6, y_range=(0,5.5))

def test_an_mlp_without_hidden_layers_is_linear_in_its_tables():
    model = make(MLP, layers=[])
    assert model.head.in_features==8 and torch.isfinite(model(X)).all()

@every_arch
def test_six_classes_recommend_by_the_expected_rating(arch):
    df = synth_ratings().assign(rating=lambda d: d.rating.round())
    dls = CollabDataLoaders.from_df(df, bs=64, seed=1)
    learn = fit_one_cycle(collab_learner(dls, 4, arch=arch, config=dict(n_out=6), loss_func=ClassLoss()), 3, 3e-2)
    top = learn.recommend(1, k=3)
    assert top.score.tolist()==pytest.approx(learn.predict([1]*3, top.item_id).tolist(), abs=1e-5) and top.score.between(0,5).all()
    assert learn.evaluate(k=10)['rmse']<1.3 and len(learn.recommend(history={1:5, 2:1}, k=3))==3

def test_layers_dropout_and_activation_through_collab_learner():
    dls = CollabDataLoaders.from_df(synth_ratings(), bs=64, seed=1)
    config = dict(p=.1, act='elu')
    learn = collab_learner(dls, 6, arch=MLP, layers=[7,3], config=config)
    assert [o.out_features for o in learn.model.hidden if isinstance(o, nn.Linear)]==[7,3] and config==dict(p=.1, act='elu')

def parts(**kwargs): return make(GMF, init=None, **kwargs),make(MLP, layers=[6,3], p=.2, init=None, **kwargs)

@pytest.mark.parametrize('alpha', [0.,.3,1.])
def test_neumf_from_parts_scores_their_weighted_mean(alpha):
    gmf,mlp = (o.eval() for o in parts())
    torch.testing.assert_close(NeuMF.from_pretrained(gmf, mlp, alpha).eval()(X), alpha*gmf(X)+(1-alpha)*mlp(X))

def test_neumf_from_parts_shares_nothing_with_them():
    gmf,mlp = parts()
    before = [p.clone() for p in (*gmf.parameters(),*mlp.parameters())]
    state,both = torch.get_rng_state(),NeuMF.from_pretrained(gmf, mlp)
    with torch.no_grad():
        for p in both.parameters(): p.zero_()
    assert torch.equal(state, torch.get_rng_state()) and all(map(torch.equal, before, (*gmf.parameters(),*mlp.parameters())))

def test_neumf_from_parts_with_six_classes_keeps_its_configuration():
    both = NeuMF.from_pretrained(*parts(n_out=6))
    assert both(X).shape==(3,6) and [o.p for o in both.mlp.hidden if isinstance(o, nn.Dropout)]==[.2,.2]
    assert all(p.requires_grad for p in both.parameters())

def test_parts_of_other_sizes_do_not_fit():
    with pytest.raises(ValueError, match='train both on the same loaders'): NeuMF.from_pretrained(GMF(9, 12), MLP(9, 13))

def test_neumf_from_parts_trains_recommends_and_loads(tmp_path):
    dls = CollabDataLoaders.implicit_from_df(block_ratings().query('rating==5'), bs=32, seed=1, valid_pct=0)
    one = [fit_one_cycle(collab_learner(dls, 5, arch=a, config=dict(init=None), loss_func=BCE()), 8, 3e-2) for a in (GMF,MLP)]
    def learner(): return collab_learner(dls, arch=NeuMF.from_pretrained(*(o.model for o in one)), loss_func=BCE(), path=tmp_path)
    learn = fit_one_cycle(learner(), 4, 1e-2)
    top = learn.recommend(k=1)
    assert learn.fast and (top.item_id==(top.user_id-1)%40+1).mean()>.9
    learn.save('both')
    assert learner().load('both').recommend(k=1).score.tolist()==pytest.approx(top.score.tolist())
