"A program with the steps of fastbook's chapter 8 runs with only its import line changed"
import contextlib, io

import pytest
import torch

pytestmark = pytest.mark.slow

FASTAI = 'from fastai.collab import *; from fastai.tabular.all import *'
RECFAST = 'from recfast.all import *'

PROGRAM = '''
# the data, by title
ratings = pd.read_csv(path/'u.data', delimiter='\\t', header=None, names=['user','movie','rating','timestamp'], nrows=10_000)
movies = pd.read_csv(path/'u.item', delimiter='|', encoding='latin-1', usecols=(0,1), names=('movie','title'), header=None)
ratings = ratings.merge(movies)
dls = CollabDataLoaders.from_df(ratings, item_name='title', bs=64, seed=42)
dls.show_batch()
n_users,n_movies = len(dls.classes['user']),len(dls.classes['title'])
x,y = dls.one_batch()

# a look-up is a product with a one-hot vector
table = torch.randn(n_users, 5)
picked,looked_up = table.t() @ one_hot(3, n_users).float(),table[3]

def train(model, n_epoch=2, **kwargs):
    learn = Learner(dls, model, loss_func=MSELossFlat())
    learn.fit_one_cycle(n_epoch, 5e-3, **kwargs)
    return learn

# dot product, then with a range, then with biases
class DotProduct(Module):
    def __init__(self, n_users, n_movies, n_factors, y_range=None):
        self.users,self.movies,self.y_range = Embedding(n_users, n_factors),Embedding(n_movies, n_factors),y_range
    def forward(self, x):
        score = (self.users(x[:,0])*self.movies(x[:,1])).sum(dim=1)
        return score if self.y_range is None else sigmoid_range(score, *self.y_range)

class DotProductBias(Module):
    def __init__(self, n_users, n_movies, n_factors, y_range=(0,5.5)):
        self.users,self.user_bias = Embedding(n_users, n_factors),Embedding(n_users, 1)
        self.movies,self.movie_bias,self.y_range = Embedding(n_movies, n_factors),Embedding(n_movies, 1),y_range
    def forward(self, x):
        users,movies = x[:,0],x[:,1]
        score = (self.users(users)*self.movies(movies)).sum(dim=1, keepdim=True) + self.user_bias(users) + self.movie_bias(movies)
        return sigmoid_range(score, *self.y_range)

dot = train(DotProduct(n_users, n_movies, 50), 5) # without a range it starts at 0 stars and leaves slowly
ranged = train(DotProduct(n_users, n_movies, 50, (0,5.5)))
biased = train(DotProductBias(n_users, n_movies, 50))
decayed = train(DotProductBias(n_users, n_movies, 50), wd=0.1)

# what a module calls a parameter
class Plain(Module):
    def __init__(self): self.a = torch.ones(3)
class Marked(Module):
    def __init__(self): self.a = nn.Parameter(torch.ones(3))
class Layer(Module):
    def __init__(self): self.a = nn.Linear(1, 3, bias=False)
found = [L(o().parameters()) for o in (Plain,Marked,Layer)]

# the same model without Embedding
def create_params(size): return nn.Parameter(torch.zeros(*size).normal_(0, 0.01))

class ByHand(Module):
    def __init__(self, n_users, n_movies, n_factors, y_range=(0,5.5)):
        self.users,self.user_bias = create_params([n_users, n_factors]),create_params([n_users])
        self.movies,self.movie_bias,self.y_range = create_params([n_movies, n_factors]),create_params([n_movies]),y_range
    def forward(self, x):
        users,movies = x[:,0],x[:,1]
        score = (self.users[users]*self.movies[movies]).sum(dim=1) + self.user_bias[users] + self.movie_bias[movies]
        return sigmoid_range(score, *self.y_range)

hand = train(ByHand(n_users, n_movies, 50), wd=0.1)
bias = hand.model.movie_bias.squeeze()
worst,best = ([dls.classes['title'][i] for i in bias.argsort(descending=d)[:5]] for d in (False,True))

# the map of the best known films
counts = ratings.groupby('title')['rating'].count()
top_movies = counts.sort_values(ascending=False).index.values[:1000]
top_idxs = tensor([hand.dls.classes['title'].o2i[m] for m in top_movies if m in hand.dls.classes['title'].o2i])
pcs = hand.model.movies[top_idxs].cpu().detach().pca(3)
fac0,fac1,fac2 = pcs.t()
idxs = list(range(50))
plt.figure(figsize=(12,12))
plt.scatter(fac0[idxs], fac2[idxs])
for name,a,b in zip(top_movies[idxs], fac0[idxs], fac2[idxs]): plt.text(a, b, name, color=np.random.rand(3)*0.7, fontsize=11)

# the library's own learner
learn = collab_learner(dls, n_factors=50, y_range=(0,5.5))
learn.fit_one_cycle(2, 5e-3, wd=0.1)
print(learn.model)
lib_bias = learn.model.i_bias.weight.squeeze()
lib_best = [dls.classes['title'][i] for i in lib_bias.argsort(descending=True)[:5]]
known = dls.classes['title'].o2i
lib_weight = learn.model.weight([m for m in top_movies if m in known], is_item=True)
lib_pcs = lib_weight.pca(3)
by_name = learn.model.bias(lib_best, is_item=True)

# nearest neighbour
factors = learn.model.i_weight.weight
idx = dls.classes['title'].o2i[top_movies[0]]
closeness = nn.CosineSimilarity(dim=1)(factors, factors[idx][None])
order = closeness.argsort(descending=True)
neighbour = dls.classes['title'][order[1]]

# networks
embs = get_emb_sz(dls)

class CollabNN(Module):
    def __init__(self, user_sz, item_sz, y_range=(0,5.5), n_act=100):
        self.users,self.movies = Embedding(*user_sz),Embedding(*item_sz)
        self.layers = nn.Sequential(nn.Linear(user_sz[1]+item_sz[1], n_act), nn.ReLU(), nn.Linear(n_act, 1))
        self.y_range = y_range
    def forward(self, x):
        both = self.users(x[:,0]),self.movies(x[:,1])
        return sigmoid_range(self.layers(torch.cat(both, dim=1)), *self.y_range)

network = train(CollabNN(*embs), wd=0.01)
lib_network = collab_learner(dls, use_nn=True, y_range=(0,5.5), layers=[100,50])
lib_network.fit_one_cycle(2, 5e-3, wd=0.1)
'''

def run(imports, path):
    "Everything the program leaves behind"
    left,out = dict(path=path),io.StringIO()
    torch.manual_seed(0) # the program, like the chapter, draws its weights from the global stream
    with contextlib.redirect_stdout(out): exec(f'{imports}\n{PROGRAM}', left)
    left['plt'].close('all')
    return left | dict(printed=out.getvalue())

@pytest.fixture(scope='module')
def ours(ml100k_dir):
    with pytest.warns(UserWarning, match="taken by position: user_name='user'"): return run(RECFAST, ml100k_dir)

@pytest.fixture(scope='module')
def theirs(ml100k_dir): return run(FASTAI, ml100k_dir)

TRAINED = 'dot ranged biased decayed hand learn network lib_network'.split()

@pytest.mark.parametrize('name', TRAINED)
def test_every_model_of_the_chapter_trains(ours, name):
    rec = ours[name].recorder
    start = 0. if name=='dot' else 2.75 # stars an untrained model gives: nothing, or the middle of the range
    untrained = (ours['dls'].valid_ds.values-start).square().mean().item()
    assert len(rec.losses)==125*len(rec.values) # 8,000 training rows in batches of 64
    assert torch.stack(list(rec.losses)).isfinite().all()
    assert rec.values[-1][1]<0.75*untrained

def test_a_lookup_is_a_one_hot_product(ours): assert torch.allclose(ours['picked'], ours['looked_up'])

def test_batches_hold_pairs_of_rows_and_a_rating(ours):
    assert tuple(ours['x'].shape)==(64,2) and tuple(ours['y'].shape)==(64,1)

def test_only_a_marked_tensor_is_a_parameter(ours): assert [len(o) for o in ours['found']]==[0,1,1]

@pytest.mark.parametrize('lib', ['','lib_'])
def test_titles_of_the_bias_ranking_come_in_order(ours, lib):
    bias,o2i = ours['lib_bias' if lib else 'bias'].detach(),ours['dls'].classes['title'].o2i
    rows = [o2i[o] for o in ours[f'{lib}best']]
    assert bias[rows[0]]==bias.max() and bias[rows].tolist()==sorted(bias.tolist(), reverse=True)[:5]

def test_bias_by_title_equals_bias_by_row(ours):
    o2i,bias = ours['dls'].classes['title'].o2i,ours['lib_bias'].detach()
    assert ours['by_name'].tolist()==bias[[o2i[o] for o in ours['lib_best']]].tolist()

def test_worst_titles_differ_from_best(ours): assert not set(ours['worst']) & set(ours['best'])

def test_principal_components_are_three_and_uncorrelated(ours):
    n = len(ours['top_idxs'])
    for pcs in (ours['pcs'],ours['lib_pcs']):
        assert pcs.shape==(n,3)
        gram = pcs.T@pcs
        assert (gram-gram.diag().diag()).abs().max()<1e-3*gram.max()

def test_nearest_to_an_item_is_itself_and_then_its_neighbour(ours):
    assert ours['order'][0]==ours['idx'] and ours['closeness'][ours['idx']].item()==pytest.approx(1., abs=1e-5)
    assert ours['neighbour'] in ours['dls'].classes['title'].o2i and ours['neighbour']!=ours['top_movies'][0]

def test_library_network_is_an_embedding_nn_and_a_tabular_model(ours):
    assert isinstance(ours['lib_network'].model, ours['EmbeddingNN']) and isinstance(ours['lib_network'].model, ours['TabularModel'])
    assert [o.embedding_dim for o in ours['lib_network'].model.embeds]==[b for _,b in ours['embs']]

def test_library_model_prints_the_four_tables_of_the_chapter(ours):
    u,i = ours['n_users'],ours['n_movies']
    for line in (f'(u_weight): Embedding({u}, 50)',f'(i_weight): Embedding({i}, 50)',f'(u_bias): Embedding({u}, 1)',f'(i_bias): Embedding({i}, 1)'):
        assert line in ours['printed']

def test_fastai_runs_the_same_program_with_the_other_import_line(ours, theirs):
    assert ours['CollabDataLoaders'].__module__.startswith('recfast') and theirs['CollabDataLoaders'].__module__=='fastai.collab'
    assert [len(ours[o].recorder.losses) for o in TRAINED]==[len(theirs[o].recorder.losses) for o in TRAINED]

def test_parameters_have_the_names_of_fastai(ours, theirs):
    for o in TRAINED: assert [n for n,_ in ours[o].model.named_parameters()]==[n for n,_ in theirs[o].model.named_parameters()]

def test_vocabulary_is_that_of_fastai_which_keeps_titles_without_a_training_row(ours, theirs):
    full = ours['CollabDataLoaders'].from_df(ours['ratings'], user_name='user', item_name='title', bs=64, seed=42, vocab='all')
    assert list(ours['dls'].classes['user'])==list(theirs['dls'].classes['user'])
    assert list(full.classes['title'])==list(theirs['dls'].classes['title'])
    assert ours['get_emb_sz'](full)==theirs['embs']

def test_validation_rows_are_those_of_fastai(ours, theirs):
    mine,its = ours['dls'].valid_ds.frame(),theirs['dls'].valid_ds.items
    titles = [theirs['dls'].classes['title'][o] for o in its.title]
    assert ours['dls'].valid_ds.users.tolist()==its.user.tolist() and mine.rating.tolist()==its.rating.tolist()
    assert mine.title[mine.title!='#na#'].tolist()==[b for a,b in zip(mine.title, titles) if a!='#na#']

# What the chapter prints without drawing a random number

def test_worked_dot_products_of_the_chapter():
    import numpy as np
    taste,modern,old = np.array([0.9,0.8,-0.6]),np.array([0.98,0.9,-0.9]),np.array([-0.99,-0.3,0.8])
    assert (taste*modern).sum()==pytest.approx(2.142) # .882 + .72 + .54
    assert (taste*old).sum()==pytest.approx(-1.611) # -.891 - .24 - .48

def test_sizes_of_the_whole_table(ml100k_dir):
    left = {}
    exec(RECFAST, left)
    ratings = left['ml_100k'](ml100k_dir)
    dls = left['CollabDataLoaders'].from_df(ratings, item_name='title', bs=64, valid_pct=0)
    assert {k:len(v) for k,v in dls.classes.items()}=={'user_id':944, 'title':1665} # 943 users, 1664 titles and a row 0 each
    assert left['get_emb_sz'](dls)==[(944,74),(1665,102)]
    assert left['emb_sz_rule'](944)==round(1.6*944**0.56)
