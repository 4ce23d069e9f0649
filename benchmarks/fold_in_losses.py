"""Fold-in under every loss on MovieLens-100k: 200 held-out people, half of their rows told, NDCG@10 on the other half.

    python benchmarks/fold_in_losses.py --seeds 0 1 2
    python benchmarks/fold_in_losses.py --seeds 0 1 2 --times 1

Beside it: the same people trained with what they told, a list of popularity, whether liking one of the 200 most popular items ever makes it
less likely, whether bundle and service give the same lists, and the processor time of one call and of 1,000 histories (`--times 1`: these again, and all else as
it was kept).
"""
import json,os,statistics,tempfile,time,warnings

warnings.filterwarnings('ignore', category=FutureWarning)
import numpy as np,pandas as pd,torch
from common import RESULTS,arguments,machine,versions,write_json
from fastapi.testclient import TestClient
from recfast.bundle import load_bundle
from recfast.data.datasets import ml_100k
from recfast.data.implicit import CollabDataLoaders
from recfast.learner import collab_learner
from recfast.losses import BCE,BPRLoss,ClassLoss,CosineContrastiveLoss,SampledSoftmaxLoss,SoftmaxLoss
from recfast.models.base import evaluating
from recfast.models.dot import DotProduct,DotProductBias
from recfast.models.foldin import _read,fold_in,linearize
from recfast.models.ncf import NeuMF
from recfast.serve import make_app

DOT,BIAS = dict(arch=DotProduct),dict(arch=DotProductBias)
CASES = { # loss, negatives (None: stars), model, epochs, rate, weight decay, share of the trained NDCG that is wanted
    'softmax': (SoftmaxLoss(), 0, DOT, 12, 1e-2, .2, .95), 'sampled softmax': (SampledSoftmaxLoss(), 16, DOT, 10, 1e-2, .2, .93),
    'BPR': (BPRLoss(), 4, BIAS, 8, 1e-2, .2, .93), 'BCE': (BCE(), 4, BIAS, 8, 1e-2, .2, .95),
    'contrastive': (CosineContrastiveLoss(), 16, dict(arch=DotProduct, config=dict(cosine=True)), 10, 1e-2, .1, .93),
    'stars': (None, None, dict(arch=DotProductBias, y_range=(0,5.5)), 5, 5e-3, .1, .95),
    'classes of stars': (ClassLoss(1), None, dict(arch=NeuMF, config=dict(n_out=5)), 5, 5e-3, .1, None),
    'network, BCE': (BCE(), 4, dict(arch=NeuMF), 4, 2e-3, .1, None)}
GAIN,PATH = 1/np.log2(np.arange(2, 12)),RESULTS/'fold_in_losses.json'

def fit(df, case, seed):
    "A learner of 32 factors"
    loss,n_neg,how,n_epoch,lr,wd,_ = CASES[case]
    own = dict(valid_pct=0, seed=seed, bs=512 if n_neg is not None else 64)
    if n_neg is None: dls = CollabDataLoaders.from_df(df, **own)
    else: dls = CollabDataLoaders.implicit_from_df(df[['user_id','item_id']], n_neg=n_neg, **own)
    learn = collab_learner(dls, 32, loss_func=loss, **how)
    with learn.quiet(): learn.fit_one_cycle(n_epoch, lr, wd=wd)
    return learn

def draw(seed, n=200):
    "(table, who is new, which of their rows are told, {user: what is told}, {user: what is to be found})"
    df,rs = ml_100k()[['user_id','item_id','rating','timestamp']],np.random.RandomState(11+seed)
    new = df.user_id.isin(rs.permutation(df.user_id.unique())[:n]).to_numpy()
    half = rs.rand(len(df))<.5
    known = df.item_id.isin(df.item_id[~new]).to_numpy()
    told = {u: g for u,g in df[new&half&known].groupby('user_id')}
    want = {u: set(g) for u,g in df[new&~half].groupby('user_id').item_id if u in told}
    return df,new,half,{u: told[u] for u in want},want

def ndcg(lists, want):
    "[people]"
    return np.array([sum(g for g,i in zip(GAIN, lists[u]) if i in w)/GAIN[:min(10, len(w))].sum() for u,w in want.items()])

def by_user(df): return df.groupby('user_id').item_id.agg(list)
def share(a, b): return float(a.mean()/b.mean())
def error(a, b): return float((a-b).std(ddof=1)/len(a)**.5)

def history(case, rows): return dict(zip(rows.item_id, rows.rating)) if CASES[case][1] is None else rows.item_id.tolist()

def lowered(rec, items):
    "How many of some items are less likely (their score lower, where scores are of single items) for who liked them"
    prior,noise = rec._prior()
    count = 0
    for row in torch.from_numpy(rec.items.encode(items)):
        likelihood = rec._likelihood([(row[None], torch.tensor([rec.train.best_rating]).double())], noise)
        u = fold_in(rec.model, prior, row[None], None, likelihood=likelihood)
        with evaluating(rec.model): s = [linearize(rec.model, prior, o, row[None])[0].sum() for o in (prior.mean,u)]
        with evaluating(rec.model): cost = [likelihood.cost(_read(rec.model, prior, likelihood, o[None])[0]) for o in (prior.mean,u)]
        count += bool(cost[1]>cost[0] or s[1]<s[0] and type(likelihood).__name__=='Pointwise')
    return count

def seconds(rec, histories, many):
    "Processor seconds, the least of three: the median of a call for one person after the other; all of them until there are 1,000"
    def call(h):
        start = time.process_time()
        rec.recommend(history=h, k=10)
        return time.process_time()-start
    def least(h): return min(call(h) for _ in range(3))
    return float(np.median([least(h) for h in histories[:50]])),least((histories*(1000//len(histories)+1))[:1000]) if many else None

def same_lists(rec, histories, want):
    "Do a bundle and a service give these lists?"
    with tempfile.TemporaryDirectory() as tmp:
        again = load_bundle(rec.save_bundle(f'{tmp}/b'))
        if not by_user(again.recommend(history=histories, k=10)).equals(want): return False
    several = [[dict(item_id=i, rating=r) for i,r in h.items()] if isinstance(h, dict) else h for h in histories]
    with TestClient(make_app(again)) as web: rows = web.post('/recommend', json=dict(history=several, k=10)).json()
    return by_user(pd.DataFrame(rows)).equals(want)

def run(case, seed):
    "One draw of people"
    df,new,half,told,want = draw(seed)
    histories = [history(case, told[u]) for u in want]
    rec = fit(df[~new], case, seed).recommender
    lists = by_user(rec.recommend(history=histories, k=10))
    folded = ndcg(dict(zip(want, lists)), want)
    trained = ndcg(by_user(fit(df[~new|half], case, seed).recommend(list(want), k=10)), want)
    popular = df.item_id[~new].value_counts().index
    top = ndcg({u: [i for i in popular if i not in set(told[u].item_id)][:10] for u in want}, want)
    return dict(seed=seed, people=len(want), folded=float(folded.mean()), trained=float(trained.mean()), popularity=float(top.mean()), share=share(folded, trained),
        share_error=error(folded, trained)/float(trained.mean()), above_popularity=float((folded-top).mean()/error(folded, top)), lowered_of_200=lowered(rec, popular[:200]),
        same_in_bundle_and_service=same_lists(rec, histories, lists), **timed(case, rec, histories))

def timed(case, rec, histories):
    one,thousand = seconds(rec, histories, CASES[case][-1] is not None)
    return dict(call_cpu_ms=1e3*one, thousand_histories_cpu_s=thousand, load=os.getloadavg()[0])

def time_again(case, seed):
    "The draw as it was kept, with the times of now"
    df,new,_,told,want = draw(seed)
    now = timed(case, fit(df[~new], case, seed).recommender, [history(case, told[u]) for u in want])
    return next(o for o in stored()[case]['runs'] if o['seed']==seed)|now

def stored(): return json.loads(PATH.read_text(encoding='utf-8'))['cases'] if PATH.exists() else {}

def keep(case, run, threads):
    "Add one draw to the file of results"
    cases = stored()
    runs = [o for o in cases.get(case, {}).get('runs', []) if o['seed']!=run['seed']]+[run]
    mean = {k: statistics.mean(o[k] for o in runs) for k in ('folded','trained','popularity','share')}
    mean['share_interval'] = [mean['share']+z*statistics.mean(o['share_error'] for o in runs)/len(runs)**.5 for z in (-1.96,1.96)]
    mean['above_popularity'] = all(o['above_popularity']>1.96 for o in runs)
    for k in ('call_cpu_ms','thousand_histories_cpu_s'): mean[k] = min((o[k] for o in runs if o[k] is not None), default=None) # on a shared machine
    cases[case] = dict(runs=sorted(runs, key=lambda o: o['seed']), mean=mean, wanted=CASES[case][-1])
    write_json(PATH, dict(cases=cases, threads=threads, machine=machine(), versions=versions(),
        protocol='200 held-out people, half of their rows at random told, NDCG@10 on the other half among all trained items less what was told; 32 factors'))

if __name__=='__main__':
    args = arguments(__doc__, seeds=list(range(3)), cases=list(CASES), times=[0])
    torch.set_num_threads(args.threads)
    for seed in args.seeds:
        for case in args.cases: # a draw that is finished is kept
            r = (time_again if args.times[0] else run)(case, seed)
            print(case, r, flush=True)
            keep(case, r, args.threads)
