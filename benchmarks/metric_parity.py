"""Ranking metrics beside implicit's, Cornac's and scikit-learn's, on random cases.

    python benchmarks/metric_parity.py --peers-python PATH/TO/python

PATH is the interpreter of an environment with implicit, cornac and scikit-learn; the script runs itself there for their answers. Where
definitions agree the largest difference is kept; where they do not, an example small enough to follow by hand, with both numbers.
"""
import argparse,json,os,subprocess,sys,tempfile
from pathlib import Path
import numpy as np

N_USERS,N_ITEMS,TOL = 3,60,1e-6

def make_cases(n, seed):
    "[n,U,I] scores without ties, seen, relevant; [n] items and list lengths; every user has a relevant candidate and one that is not"
    rs = np.random.RandomState(seed)
    shape = n,N_USERS,N_ITEMS
    n_items = rs.randint(8, N_ITEMS+1, n)
    scores = np.stack([rs.permutation(N_USERS*N_ITEMS).reshape(N_USERS, N_ITEMS) for _ in range(n)]).astype(np.float32)
    exists = np.broadcast_to(np.arange(N_ITEMS)<n_items[:,None,None], shape)
    seen = exists & (rs.rand(*shape)<rs.rand(n, N_USERS, 1)*.4)
    relevant = exists & ~seen & (rs.rand(*shape)<rs.rand(n, N_USERS, 1)**2)
    for i,col in ((0,True),(1,False)): seen[...,i],relevant[...,i] = False,col
    k = 1+rs.randint(0, np.minimum((exists & ~seen).sum(2).min(1), 20))
    pred,true = rs.rand(n, 20)*5,rs.randint(1, 6, (n,20)).astype(float)
    return dict(scores=scores, seen=seen, relevant=relevant, n_items=n_items, k=k, pred=pred, true=true)

def each(c):
    "scores, seen, relevant [U,I] and k of every case"
    for s,t,r,n,k in zip(c['scores'], c['seen'], c['relevant'], c['n_items'], c['k']): yield s[:,:n],t[:,:n],r[:,:n],int(k)

# the peers' side; nothing of recfast is imported

def _implicit(scores, seen, relevant, k):
    "implicit's four metrics, its model a matrix factorisation whose user vectors are the scores"
    from implicit.cpu.matrix_factorization_base import MatrixFactorizationBase
    from implicit.evaluation import ranking_metrics_at_k
    from scipy.sparse import csr_matrix
    class Given(MatrixFactorizationBase):
        def fit(self, *args, **kwargs): pass
        def save(self, *args): pass
    model = Given(num_threads=1)
    model.user_factors,model.item_factors = np.asarray(scores, np.float32),np.eye(np.shape(scores)[1], dtype=np.float32)
    return ranking_metrics_at_k(model, *(csr_matrix(np.asarray(o, np.float32)) for o in (seen,relevant)), K=k, show_progress=False)

def ask_implicit(c):
    out = {o: [] for o in ('ndcg','map','precision, pooled','precision, one user','auc, K = all items')}
    for s,t,r,k in each(c):
        m = _implicit(s, t, r, k)
        for name,v in zip(out, (m['ndcg'],m['map'],m['precision'],_implicit(s[:1], t[:1], r[:1], k)['precision'],
                                _implicit(s, t&False, r, s.shape[1])['auc'])): out[name].append(float(v))
    return out

def ask_cornac(c):
    from cornac import metrics as cm
    per_user = {o: [] for o in ('NDCG','Recall','Precision','HitRatio','FMeasure','MRR','MAP','AUC')}
    for s,t,r,k in each(c):
        for su,tu,ru in zip(s, t, r):
            items = np.flatnonzero(~tu)
            a = dict(item_indices=items, pd_scores=su[items], pd_rank=items[np.argsort(-su[items])], gt_pos=np.flatnonzero(ru))
            ms = cm.NDCG(k),cm.Recall(k),cm.Precision(k),cm.HitRatio(k),cm.FMeasure(k),cm.MRR(),cm.MAP(),cm.AUC()
            for name,m in zip(per_user, ms): per_user[name].append(float(m.compute(**a)))
    rating = {m.__name__: [float(m().compute(gt_ratings=t, pd_ratings=p)) for p,t in zip(c['pred'], c['true'])] for m in (cm.RMSE,cm.MAE)}
    return {**per_user,**rating}

def ask_sklearn(c):
    from sklearn import metrics as sm
    out = {o: [] for o in ('ndcg_score','precision_score','recall_score','average_precision_score','roc_auc_score')}
    for s,t,r,k in each(c):
        for su,tu,ru in zip(s, t, r):
            y,p = ru[~tu],su[~tu]
            top = np.isin(np.arange(len(p)), np.argsort(-p)[:k])
            vals = (sm.ndcg_score(y[None], p[None], k=k),sm.precision_score(y, top, zero_division=0),sm.recall_score(y, top),
                    sm.average_precision_score(y, p),sm.roc_auc_score(y, p))
            for name,v in zip(out, vals): out[name].append(float(v))
    for f in (sm.root_mean_squared_error,sm.mean_absolute_error): out[f.__name__] = [float(f(t, p)) for p,t in zip(c['pred'], c['true'])]
    return out

# examples where the definitions differ: scores, seen and relevant items by user, list length
EXAMPLES = dict(
    two_users=dict(scores=[[6,5,4,3,2,1],[6,5,4,3,2,1]], seen=[[0]*6,[0]*6], relevant=[[1,0,0,0,0,0],[0,1,0,1,1,0]], k=2),
    one_user=dict(scores=[[6,5,4,3,2,1]], seen=[[0]*6], relevant=[[0,1,0,0,1,0]], k=2),
    one_seen=dict(scores=[[6,5,4,3]], seen=[[0,0,0,1]], relevant=[[0,1,0,0]], k=4),
    late=dict(scores=[[6,5,4,3,2,1]], seen=[[0]*6], relevant=[[0,0,1,0,0,0]], k=2),
    tied=dict(scores=[[2,1,1,0]], seen=[[0]*4], relevant=[[0,1,0,0]], k=4),
)

def ask_examples():
    "The peers' numbers for the examples"
    from cornac import metrics as cm
    from sklearn import metrics as sm
    def of(name):
        e = EXAMPLES[name]
        s,r = np.array(e['scores'], float),np.array(e['relevant'], bool)
        rank = np.argsort(-s[0], kind='stable')
        return s,r,dict(item_indices=np.arange(s.shape[1]), pd_scores=s[0], pd_rank=rank, gt_pos=np.flatnonzero(r[0]))
    _implicit_of = lambda name: _implicit(*(np.array(EXAMPLES[name][o]) for o in ('scores','seen','relevant')), EXAMPLES[name]['k'])
    tied,rel,args = of('tied')
    return [float(o) for o in (
        _implicit_of('two_users')['precision'], _implicit_of('one_user')['auc'], _implicit_of('one_seen')['auc'],
        cm.MRR().compute(**of('late')[2]), cm.MAP().compute(**of('one_user')[2]), cm.AUC().compute(**args), cm.MAP().compute(**args),
        sm.ndcg_score(rel, tied), sm.average_precision_score(rel[0], tied[0]))]

def answer(folder):
    "Run by the peers' interpreter: read the cases, write their answers"
    from importlib.metadata import version
    c = dict(np.load(folder/'cases.npz'))
    res = dict(implicit=ask_implicit(c), cornac=ask_cornac(c), sklearn=ask_sklearn(c), examples=ask_examples(),
               versions={o: version(o) for o in ('implicit','cornac','scikit-learn')})
    (folder/'answers.json').write_text(json.dumps(res), encoding='utf-8')

# our side

def our_lists(scores, seen, relevant, k):
    "(hits, n_rel) as an evaluation makes them: masked and ranked by recfast.ranking, row 0 in front"
    import torch
    from recfast.ranking import mask_scores,top_k
    pad = lambda o: np.pad(np.asarray(o), ((0,0),(1,0)))
    vals,rows = top_k(mask_scores(torch.tensor(pad(scores), dtype=torch.float32), seen=pad(seen).nonzero()), k)
    return np.take_along_axis(pad(relevant), rows.numpy(), 1)*(vals>-torch.inf).numpy(),np.asarray(relevant).sum(1)

def ours(c):
    "Every metric that a peer has, per user; by case for what implicit gives by case only"
    import torch
    from fastai.metrics import mae
    from recfast import metrics as m
    out = {}
    def add(name, v): out.setdefault(name, []).extend(np.atleast_1d(v).tolist())
    for s,t,r,k in each(c):
        hits,n = our_lists(s, t, r, s.shape[1])
        for name,f in m.RANKING_METRICS.items(): add(f'{name}@k', f(hits, n, k))
        fit = m.recall_at_k(hits, n, k, denominator='min')
        add("recall@k, denominator='min', one user", fit[0])
        add("recall@k, denominator='min', users weighted by min(rel,k)", np.average(fit, weights=np.minimum(n, k)))
        p,q = m.precision_at_k(hits, n, k),m.recall_at_k(hits, n, k)
        add('2pr/(p+r) of precision@k and recall@k', 2*p*q/np.where(p+q>0, p+q, 1))
        add('mrr@k, k = all', m.mrr_at_k(hits, n))
        add("map@k, denominator='rel', k = all", m.average_precision_at_k(hits, n, denominator='rel'))
        add('auc', m.auc(s, r, ~t))
        add('auc, nothing seen', m.auc(s, r).mean())
        for name in ('ndcg','map'): add(f'mean of {name}@k', m.RANKING_METRICS[name](hits, n, k).mean())
    rating = [(torch.tensor(p)[:,None],torch.tensor(t)[:,None]) for p,t in zip(c['pred'], c['true'])]
    for p,t in rating: add('rmse', _root(m.RMSE(), p, t)); add('mae', mae(p, t).item())
    return out

def _root(metric, p, t):
    "The value of recfast's `rmse` after two batches"
    from types import SimpleNamespace
    metric.reset()
    for a in (slice(0,7),slice(7,None)): metric.accumulate(SimpleNamespace(pred=p[a], y=t[a], to_detach=lambda o: o))
    return metric.value.item()

PAIRS = dict(
    implicit=[('mean of ndcg@k','ndcg'), ('mean of map@k','map'), ("recall@k, denominator='min', one user",'precision, one user'),
        ("recall@k, denominator='min', users weighted by min(rel,k)",'precision, pooled'), ('auc, nothing seen','auc, K = all items')],
    cornac=[('ndcg@k','NDCG'), ('recall@k','Recall'), ('precision@k','Precision'), ('hit@k','HitRatio'),
        ('2pr/(p+r) of precision@k and recall@k','FMeasure'),
        ('mrr@k, k = all','MRR'), ("map@k, denominator='rel', k = all",'MAP'), ('auc','AUC'), ('rmse','RMSE'), ('mae','MAE')],
    sklearn=[('ndcg@k','ndcg_score'), ('precision@k','precision_score'), ('recall@k','recall_score'),
        ("map@k, denominator='rel', k = all",'average_precision_score'),
        ('auc','roc_auc_score'), ('rmse','root_mean_squared_error'), ('mae','mean_absolute_error')])

def compare(c, theirs):
    "One row per metric and peer: cases, numbers compared, largest difference"
    mine,rows = ours(c),[]
    for peer,pairs in PAIRS.items():
        for a,b in pairs:
            x,y = np.array(mine[a]),np.array(theirs[peer][b])
            assert x.shape==y.shape and np.isfinite(x).all() and np.isfinite(y).all(), (peer,a)
            rows.append(dict(peer=peer, ours=a, theirs=b, cases=len(c['k']), numbers=len(x), max_abs_difference=float(np.abs(x-y).max())))
    return rows

def worked(theirs):
    "The examples with both numbers"
    from recfast import metrics as m
    def lists(name): e = EXAMPLES[name]; return our_lists(e['scores'], e['seen'], e['relevant'], e['k'])
    def area(name): e = EXAMPLES[name]; return m.auc(e['scores'], e['relevant'], ~np.array(e['seen'], bool))
    say = [('implicit','precision@2','precision','two_users',m.precision_at_k(*lists('two_users')),
            "implicit adds the hits of all users (1+1) and divides by the sum of min(k,rel) (1+2); "
            "precision@k divides each user's hits by k and takes the mean (1/2+1/2)/2"),
        ('implicit','auc','auc, K=2','one_user',area('one_user'),
            "implicit ranks K items only and takes the rest to lie evenly: (0 + (1+2)/2 * 3)/8; "
            "ours reads the whole ranking: of 8 pairs the item at place 2 wins 3 and the one at place 5 wins 1"),
        ('implicit','auc','auc, K=4','one_seen',area('one_seen'),
            "implicit counts the seen item, which it never ranks, among the irrelevant ones and gives it to the relevant one: "
            "2 of 3 pairs; ours compares with candidates only: 1 of 2"),
        ('cornac','mrr@2','MRR','late',m.mrr_at_k(*lists('late')),
            "Cornac reads the whole ranking (first hit at place 3) and raises an error without a hit; "
            "mrr@k is 0 when the hit is not in the list"),
        ('cornac','map@2','MAP','one_user',m.average_precision_at_k(*lists('one_user')),
            "Cornac reads the whole ranking and divides by rel: (1/2 + 2/5)/2; map@k stops at k and divides by min(rel,k): (1/2)/2"),
        ('cornac','auc','AUC','tied',area('tied'),
            "a tie between a relevant and an irrelevant item counts 0 in Cornac (1 of 3 pairs) and a half here (1.5 of 3)"),
        ('cornac',"map@4, denominator='rel'",'MAP','tied',m.average_precision_at_k(*lists('tied'), denominator='rel'),
            "Cornac gives tied items the last of their places (3); here the lower item comes first (place 2)"),
        ('sklearn','ndcg@4','ndcg_score','tied',m.ndcg_at_k(*lists('tied')),
            "scikit-learn gives tied items the mean of their gains, (1/log2(3) + 1/log2(4))/2; here the lower item comes first: 1/log2(3)"),
        ('sklearn',"map@4, denominator='rel'",'average_precision_score','tied',m.average_precision_at_k(*lists('tied'), denominator='rel'),
            "scikit-learn sets one threshold for tied items: 1 relevant of 3; here the lower item comes first: 1 of 2")]
    return [dict(peer=p, ours=a, theirs=b, example=EXAMPLES[e], our_value=float(np.mean(v)), their_value=t, why=why)
            for (p,a,b,e,v,why),t in zip(say, theirs, strict=True)]

def ask(python, cases):
    "Their answers, from a run of this script in the peers' environment"
    with tempfile.TemporaryDirectory() as d:
        np.savez(Path(d)/'cases.npz', **cases)
        env = {k:v for k,v in os.environ.items() if k!='PYTHONPATH'}
        subprocess.run([python,__file__,'--answer',d], check=True, env=env)
        return json.loads((Path(d)/'answers.json').read_text(encoding='utf-8'))

def main(args):
    from common import RESULTS,versions, write_json
    cases = make_cases(args.cases, args.seed)
    theirs = ask(args.peers_python, cases)
    rows,diffs = compare(cases, theirs),worked(theirs['examples'])
    for r in rows: print(f"{r['peer']:>9}  {r['max_abs_difference']:.1e}  {r['ours']}  =  {r['theirs']}")
    for d in diffs: print(f"{d['peer']:>9}  {d['our_value']:.4f} here, {d['their_value']:.4f} there  {d['ours']} / {d['theirs']}")
    res = dict(system='metric_parity', cases=args.cases, seed=args.seed, tolerance=TOL, rows=rows, differences=diffs,
        protocol=f'random scores without ties, {N_USERS} users x 8 to {N_ITEMS} items a case, 0 to 40% of them seen '
                 'and left out, lists of 1 to 20 by recfast.ranking',
        versions={**versions(),**theirs['versions']})
    write_json(RESULTS/'metric_parity.json', res)
    return max(r['max_abs_difference'] for r in rows)<=TOL

if __name__=='__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--peers-python', help='interpreter of an environment with implicit, cornac and scikit-learn')
    p.add_argument('--cases', type=int, default=1000)
    p.add_argument('--seed', type=int, default=0)
    p.add_argument('--answer', help=argparse.SUPPRESS)
    args = p.parse_args()
    if args.answer: answer(Path(args.answer))
    elif args.peers_python: sys.exit(not main(args))
    else: p.error('--peers-python is needed')
