"""SVD++ on both sides under ordered levels, trained by one line, `collab_learner(dls, arch=SVDpp).fit_one_cycle()`:

    python benchmarks/svdpp.py --part folds --seeds 0 1 2      # the five official folds of MovieLens-100k, and the mean of three seeds
    python benchmarks/svdpp.py --part ml-1m --seeds 0 1 2      # MovieLens-1M, 90/10 at random, three splits
    python benchmarks/svdpp.py --part scales --seeds 0 1 2     # movie_night, half stars, MovieTweetings, beside DotProductBias
    python benchmarks/svdpp.py --part average --seeds 0 1 2    # the same folds: SVDpp and BayesianSVDpp, each alone and the mean of both
    python benchmarks/svdpp.py --part average-1m --seeds 0 1 2 # two SVDpp and one BayesianSVDpp on MovieLens-1M, 90/10 at random, three splits
    python benchmarks/svdpp.py --part features --seeds 0 1 2   # the same mean, BayesianSVDpp with genres and years, age, gender and occupation
    python benchmarks/svdpp.py --part times --seeds 0 1 2      # u1 and a split by time, corrected by what was rated near in time
    python benchmarks/svdpp.py --part wide                     # several SVDpp in one wide table, and as many apart, on the same validation parts
    python benchmarks/svdpp.py --part draws                    # which draws BayesianSVDpp keeps, on validation parts of the first fold's training rows
    python benchmarks/svdpp.py --part draws-1m                 # the same on a million rows, on a validation part of the first split, beside one SVDpp and two

The settings follow from the number of rows (`models.svdpp`); they were chosen on validation parts and are tested here once. One thread.
"""
import argparse,statistics,time,warnings
from types import SimpleNamespace

warnings.filterwarnings('ignore')
import numpy as np,torch
from scipy.special import ndtr
from common import RESULTS,machine,peak_memory_mb,versions,write_json
from recfast.data.catalogues import ml_100k_films,ml_100k_people
from recfast.data.datasets import ml_100k,ml_1m,movie_night,movietweetings
from recfast.data.loaders import CollabDataLoaders
from recfast.data.split import global_time_split,random_split
from recfast.ensemble import Ensemble
from recfast.gibbs import Chain
from recfast.latent import Probit
from recfast.learner import collab_learner
from recfast.models.bayesian import BayesianSVDpp,MeanScores
from recfast.models.dot import DotProductBias
from recfast.models.svdpp import SVDpp
from recfast.near_in_time import GAPS,SCALES,NearInTime

CHAPTER8 = dict(n_epoch=5, lr_max=5e-3, wd=.1)

def loaders(df, seed, splits=None, **kwargs):
    "Loaders of a table, or of one cut at random"
    return CollabDataLoaders.from_df(df, seed=seed, **(dict(valid_pct=.1) if splits is None else dict(splits=splits)), **kwargs)

def timed_fit(learn, **fit):
    "(processor seconds, seconds) of a fit"
    cpu,wall = time.process_time(),time.perf_counter()
    with learn.quiet(): learn.fit_one_cycle(**fit)
    return time.process_time()-cpu,time.perf_counter()-wall

def errors(learn):
    "How far predictions are off on the validation rows, in their order"
    with learn.no_bar(): shown,targets = learn.get_preds()
    return shown.flatten().double()-targets.flatten().double()

def one(dls, seed, arch=SVDpp, **kwargs):
    "One fit, measured on the validation rows"
    fit = kwargs.pop('fit', {})
    learn = collab_learner(dls, arch=arch, seed=seed, **kwargs)
    cpu,wall = timed_fit(learn, **fit)
    off = errors(learn)
    return dict(seed=seed, rmse=off.square().mean().sqrt().item(), mae=off.abs().mean().item(), cpu_seconds=round(cpu, 1), seconds=round(wall, 1),
        n_factors=learn.model.hyper['n_factors']),off,learn

def folds(seeds):
    "Every fold; the mean of the predictions of all seeds beside each"
    rows = []
    for fold in range(1, 6):
        dls = loaders(ml_100k(fold=fold)[['user_id','item_id','rating','is_valid']], 0, 'is_valid')
        runs = [one(dls, s) for s in seeds]
        mean = torch.stack([off for _,off,_ in runs]).mean(0)
        rows.append(dict(fold=fold, runs=[r for r,*_ in runs], rmse=statistics.mean(r['rmse'] for r,*_ in runs),
            sd=statistics.stdev(r['rmse'] for r,*_ in runs), mean_of_seeds=mean.square().mean().sqrt().item()))
        print(f"u{fold}: {rows[-1]['rmse']:.4f} ± {rows[-1]['sd']:.4f}, the seeds together {rows[-1]['mean_of_seeds']:.4f}", flush=True)
    return dict(folds=rows, u1=rows[0]['rmse'], mean=statistics.mean(o['rmse'] for o in rows), mean_of_seeds=dict(u1=rows[0]['mean_of_seeds'],
        mean=statistics.mean(o['mean_of_seeds'] for o in rows)), most_cpu_seconds=max(r['cpu_seconds'] for o in rows for r in o['runs']),
        protocol='official folds u1 to u5 of MovieLens-100k, all test rows; ratings only')

def rmse_of(off): return off.square().mean().sqrt().item()

def pair(dls, seed):
    "Both models and their mean on the validation rows: what came out, and how far the mean is off"
    (one_,_,a),(many,_,b) = (one(dls, seed, arch=arch) for arch in (SVDpp,BayesianSVDpp))
    off = errors(Ensemble([a,b])).detach()
    cpu,wall = (round(one_[k]+many[k], 1) for k in ('cpu_seconds','seconds'))
    return dict(seed=seed, svdpp=one_['rmse'], bayesian=many['rmse'], rmse=rmse_of(off), cpu_seconds=cpu, seconds=wall),off

def fold_of_pairs(fold, pairs):
    "The runs of a fold, and the mean of all of them"
    runs = [r for r,_ in pairs]
    means = {k: statistics.mean(r[k] for r in runs) for k in ('svdpp','bayesian','rmse')}
    together = torch.stack([off for _,off in pairs]).mean(0)
    return dict(fold=fold, runs=runs, **means, sd=statistics.stdev(r['rmse'] for r in runs) if len(runs)>1 else None, all_seeds=rmse_of(together),
        all_cpu_seconds=round(sum(r['cpu_seconds'] for r in runs), 1))

def average(seeds):
    "Seed by seed over the folds: one model of each kind and their mean, and the mean of all seeds; written after every seed"
    dls = {fold: loaders(ml_100k(fold=fold)[['user_id','item_id','rating','is_valid']], 0, 'is_valid') for fold in range(1, 6)}
    pairs = {fold: [] for fold in dls}
    for seed in seeds:
        for fold in dls:
            pairs[fold].append(pair(dls[fold], seed))
            print(f'u{fold}', pairs[fold][-1][0], flush=True)
        rows = [fold_of_pairs(*o) for o in pairs.items()]
        mean = {k: statistics.mean(o[k] for o in rows) for k in ('svdpp','bayesian','rmse','all_seeds')}
        yield dict(folds=rows, u1=rows[0]['rmse'], mean=mean['rmse'], all_seeds=dict(u1=rows[0]['all_seeds'], mean=mean['all_seeds'],
            most_cpu_seconds=max(o['all_cpu_seconds'] for o in rows)), alone=dict(svdpp=mean['svdpp'], bayesian=mean['bayesian']),
            most_cpu_seconds=max(r['cpu_seconds'] for o in rows for r in o['runs']), peak_memory_mb=peak_memory_mb(),
            protocol='official folds u1 to u5 of MovieLens-100k, all test rows; ratings only; the mean of SVDpp and BayesianSVDpp of one seed, and of all seeds')

def gain_interval(base, off):
    "Mean gain in squared error over rows, paired, with 1.96 standard errors"
    gain = base.square()-off.square()
    return [(gain.mean()+z*gain.std()/len(gain)**.5).item() for z in (0,-1.96,1.96)]

def described(dls, seed, ratings_only=False):
    "A pair whose Bayesian part knows what films and people are; beside it, where asked for, the pair that knows ratings only"
    _,own,a = one(dls, seed)
    many,alone,b = one(dls, seed, arch=BayesianSVDpp)
    off = errors(Ensemble([a,b])).detach()
    row = dict(seed=seed, svdpp=rmse_of(own.detach()), bayesian=rmse_of(alone.detach()), rmse=rmse_of(off), cpu_seconds=many['cpu_seconds'])
    if not ratings_only: return row,off,None
    c = one(dls, seed, arch=BayesianSVDpp, config=dict(features=False))[2]
    base = errors(Ensemble([a,c])).detach()
    return dict(row, ratings_only=rmse_of(base), gain_interval=gain_interval(base, off)),off,base

def of_described(rows, offs, bases):
    "Means over the runs so far; of the first seed what features gain, row by row"
    def of(k, some): return statistics.mean(o[k] for o in some)
    u1,first = [o for o in rows if o['fold']==1],rows[:len(bases)]
    gain = dict(zip(('gain','low','high'), gain_interval(torch.cat(bases), torch.cat(offs[:len(bases)]))))
    alone = dict(svdpp=of('svdpp', rows), bayesian=of('bayesian', rows), u1=dict(svdpp=of('svdpp', u1), bayesian=of('bayesian', u1)))
    return dict(runs=rows, u1=of('rmse', u1), mean=of('rmse', rows), alone=alone, first_seed=dict(gain, ratings_only=of('ratings_only', first), rmse=of('rmse', first)))

def features(seeds):
    "Fold by fold; of the first seed beside the pair that draws from ratings only, row by row; written after every fold"
    about = dict(items=ml_100k_films(), users=ml_100k_people())
    dls = {fold: loaders(ml_100k(fold=fold)[['user_id','item_id','rating','is_valid']], 0, 'is_valid', **about) for fold in range(1, 6)}
    rows,offs,bases = [],[],[]
    for seed,fold in ((s,f) for s in seeds for f in dls):
        row,off,base = described(dls[fold], seed, seed==seeds[0])
        rows.append(dict(fold=fold, **row))
        offs.append(off)
        if base is not None: bases.append(base)
        print(rows[-1], flush=True)
        yield dict(**of_described(rows, offs, bases), peak_memory_mb=peak_memory_mb(), protocol='official folds u1 to u5 of MovieLens-100k, all test rows; the '
            'mean of SVDpp (ratings only) and BayesianSVDpp with genres and years of films, age, gender and occupation of people; ratings_only: the same '
            'with features=False, where features still place the films without a training row; gains in squared error by row, paired')

def near_in_time(dls, seed):
    "The mean of both models, and SVDpp alone, corrected by residuals near in time: what each gap leaves"
    cpu = time.process_time()
    a,b = (one(dls, seed, arch=arch)[2] for arch in (SVDpp,BayesianSVDpp))
    near = NearInTime(Ensemble([a,b]), lambda inner: one(inner, seed)[2], seed=seed)
    row = dict(seed=seed, cpu_seconds=round(time.process_time()-cpu, 1), amounts={str(s): a for s,a in zip(SCALES, near.amounts.tolist())}, noise=near.noise)
    row['average'] = near.report({k: o for k,o in GAPS.items() if o<=60}).reset_index().to_dict('records')
    near.learn = a
    return dict(row, svdpp=near.report({'all rows': 0}).reset_index().to_dict('records'))

def times(seeds):
    "The official first fold, a split at random; of the first seed the last fifth of all ratings; written after every run"
    df = ml_100k()[['user_id','item_id','rating','timestamp']]
    cuts = dict(u1=loaders(ml_100k(fold=1)[['user_id','item_id','rating','timestamp','is_valid']], 0, 'is_valid'),
        by_time=loaders(df, 0, global_time_split(df, .2)))
    rows = {name: [] for name in cuts}
    for seed in seeds:
        for name,dls in cuts.items():
            if name=='by_time' and seed!=seeds[0]: continue
            rows[name].append(near_in_time(dls, seed))
            print(name, rows[name][-1], flush=True)
            def mean(name, who): return statistics.mean(r[who][-1]['rmse'] for r in rows[name]) if rows[name] else None
            yield dict(**rows, u1_average=mean('u1', 'average'), u1_svdpp=mean('u1', 'svdpp'), protocol='MovieLens-100k with times; u1: the official fold, a split at '
                'random within people; by_time: the last fifth of all ratings. SVDpp and BayesianSVDpp of ratings only, then the residuals of the same person near '
                'in time, of five models of SVDpp that had not seen their rows; of a test row its time is read. Not a figure of ratings only')

def three(dls, seed):
    "Two SVDpp, a BayesianSVDpp and their mean on the validation rows; of the seconds those of the first SVDpp stand for both"
    (a,_,first),(_,_,second),(b,_,many) = (one(dls, seed+more, arch=arch) for more,arch in ((0,SVDpp),(1,SVDpp),(0,BayesianSVDpp)))
    off = errors(Ensemble([first,second,many])).detach()
    return dict(seed=seed, svdpp=a['rmse'], bayesian=b['rmse'], n_factors=b['n_factors'], rmse=rmse_of(off), lower=a['rmse']-rmse_of(off),
        cpu_seconds=round(2*a['cpu_seconds']+b['cpu_seconds'], 1))

def average1m(seeds):
    "Random tenths of MovieLens-1M; written after every one"
    df,rows = ml_1m()[['user_id','item_id','rating']],[]
    for s in seeds:
        rows.append(three(loaders(df, s), s))
        print(f'split {s}: {rows[-1]}', flush=True)
        yield dict(runs=rows, **{k: statistics.mean(r[k] for r in rows) for k in ('svdpp','bayesian','rmse','lower')}, peak_memory_mb=peak_memory_mb(),
            protocol='MovieLens-1M, 10% of the rows at random (seed of the run) are the test; ratings only; the mean of two SVDpp and a BayesianSVDpp')

def side_by_side(numbers=(1,2,4)):
    "On both validation parts of u1: one table of several trainings, and as many trainings apart"
    rows = []
    for n in numbers:
        for part,dls in enumerate(parts()):
            wide = one(dls, 0, config=dict(n_seeds=n))[0]
            apart = [one(dls, s) for s in range(n)]
            mean = rmse_of(errors(Ensemble([o for *_,o in apart])).detach())
            rows.append(dict(n_seeds=n, part=part, wide=wide['rmse'], cpu_seconds=wide['cpu_seconds'], apart=mean, cpu_seconds_apart=round(sum(r['cpu_seconds'] for r,*_ in apart), 1)))
            print(rows[-1], flush=True)
    return dict(runs=rows, protocol="two random tenths of the training rows of u1; SVDpp(n_seeds=n) beside the mean of n SVDpp of the seeds 0 to n-1; rows of u1's test are never read")

def ml1m(seeds):
    "Three random tenths"
    df,rows = ml_1m()[['user_id','item_id','rating']],[]
    for s in seeds:
        rows.append(one(loaders(df, s), s)[0])
        print(f"split {s}: {rows[-1]}", flush=True)
    return dict(runs=rows, rmse=statistics.mean(r['rmse'] for r in rows), sd=statistics.stdev(r['rmse'] for r in rows), peak_memory_mb=peak_memory_mb(),
        protocol='MovieLens-1M, 10% of the rows at random (seed of the run) are the test; ratings only')

def scales(seeds):
    "Other scales, beside the model of chapter 8"
    films = ml_100k()[['user_id','item_id','rating']]
    noise = np.random.default_rng(0).choice([-.5,0,.5], len(films))
    tables = dict(movie_night=movie_night().rename(columns={'title': 'film'})[['user_id','film','rating']],
        half_stars=films.assign(rating=(films.rating+noise).clip(.5, 5)), movietweetings=movietweetings()[['user_id','item_id','rating']])
    out = {}
    for name,df in tables.items():
        span = df.rating.min(),df.rating.max()
        rows = []
        for s in seeds:
            dls = loaders(df, s, **({'item_name': 'film'} if 'film' in df else {}))
            ours,off,learn = one(dls, s)
            theirs,base,_ = one(dls, s, DotProductBias, y_range=(span[0]-.5,span[1]+.5), n_factors=50, fit=CHAPTER8)
            gain = (base.square()-off.square())
            rows.append(dict(seed=s, rmse=ours['rmse'], dot_product_bias=theirs['rmse'], gain_interval=[(gain.mean()+z*gain.std()/len(gain)**.5).item() for z in (-1.96,1.96)],
                thresholds=learn.loss_func.cuts, cpu_seconds=ours['cpu_seconds']))
            print(name, rows[-1], flush=True)
        out[name] = rows
    return dict(tables=out, protocol='10% of the rows at random (seed of the run) are the test; the interval is of the mean gain in squared error over rows, paired')

def parts(**kwargs):
    "Loaders of two validation parts of the first fold's training rows"
    df = ml_100k(fold=1)
    df = df[~df.is_valid][['user_id','item_id','rating']].reset_index(drop=True)
    return [loaders(df, 0, random_split(df, .1, seed=s), **kwargs) for s in (1,2)]

def blocks(dls, n_factors, n_sweeps=400, every=50, keep=None):
    "[n_sweeps/every,n] what draws expect of the validation rows, each block of sweeps by itself; processor seconds of a sweep; `keep` takes in each draw"
    rows,valid = dls.interactions('train'),dls.interactions('valid')
    levels,c = np.unique(rows.ratings(), return_inverse=True)
    probit = Probit(c, len(levels))
    chain = Chain(*rows.pairs().numpy().T, (rows.n_users,rows.n_items), probit, n_factors, 0)
    out,cpu = np.zeros((n_sweeps//every,len(valid))),0
    for n in range(n_sweeps):
        start = time.process_time()
        chain.sweep()
        cpu += time.process_time()-start
        if keep: keep(n, chain)
        u,i = (side.full[at] for side,at in zip((chain.users,chain.items), valid.pairs().numpy().T))
        s = (u[:,:-1]*i[:,:-1]).sum(1)+u[:,-1]+i[:,-1]
        out[n//every] += (levels[0]+ndtr(s[:,None]-probit.cuts)@np.diff(levels))/every
    return out,cpu/n_sweeps

def draws():
    "The mean of SVDpp and of the draws from `warm_up` to `n_sweeps`, on both parts, one seed"
    spans = [(w,n) for n in (200,250,300,350,400) for w in (50,100)]
    trials = {(k,*o): [] for k in (23,31) for o in spans}
    seconds = {k: [] for k in (23,31)}
    for dls in parts():
        truth = dls.interactions('valid').ratings()
        mate = one(dls, 0)[1].detach().numpy()+truth
        for k in seconds:
            out,cpu = blocks(dls, k)
            seconds[k].append(cpu)
            for w,n in spans:
                mean = out[w//50:n//50].mean(0)
                trials[k,w,n].append([np.sqrt(np.square(o-truth).mean()) for o in (mean,(mean+mate)/2)])
            print(k, {o: np.round(trials[k,*o][-1], 4).tolist() for o in spans}, flush=True)
    rows = [dict(n_factors=k, warm_up=w, n_sweeps=n, alone=statistics.mean(o[0] for o in got), rmse=statistics.mean(o[1] for o in got), parts=[o[1] for o in got])
            for (k,w,n),got in trials.items()]
    return dict(trials=rows, best=min(rows, key=lambda o: o['rmse']), cpu_seconds_of_a_sweep={k: round(statistics.mean(o), 3) for k,o in seconds.items()},
        protocol="two random tenths of the training rows of u1; the mean of SVDpp and of the draws from warm_up to n_sweeps, one seed; rows of u1's test are never read")

def part_of_1m():
    "Loaders of a validation part of the training rows of the first split of MovieLens-1M"
    df = loaders(ml_1m()[['user_id','item_id','rating']], 0).interactions('train').frame()
    return loaders(df, 0, random_split(df, .1, seed=1))

def kept_errors(dls, mean, ranks=(128,256)):
    "{rank: RMSE} of the mean scores as the model keeps them"
    out = {}
    for rank in ranks:
        learn = collab_learner(dls, arch=BayesianSVDpp, seed=0, config=dict(rank=rank))
        learn.model._keep(mean, SimpleNamespace(cuts=mean.cuts))
        out[rank] = rmse_of(errors(learn).detach())
    return out

def draws_of(dls, mates, n_factors, n_sweeps, every=25, warm_up=50):
    "How far off each span of draws is: alone, beside one SVDpp and beside two; what keeping the mean costs"
    rows,truth = dls.interactions('train'),dls.interactions('valid').ratings()
    u,i = (rows.pairs().numpy()[np.random.default_rng(seed).integers(len(rows), size=5_000),seed] for seed in (0,1))
    mean = MeanScores(torch.from_numpy(np.stack([u,i], 1)), (rows.n_users,rows.n_items))
    def keep(n, chain):
        if n>=warm_up: mean.add(*(torch.from_numpy(o.full) for o in (chain.users,chain.items)), chain.ratings.cuts)
    out,cpu = blocks(dls, n_factors, n_sweeps, every, keep)
    def off(*o): return float(np.sqrt(np.square(np.mean(o, 0)-truth).mean()))
    trials = []
    for w in (every,2*every,4*every):
        for n in range(w+every, n_sweeps+1, every):
            got = out[w//every:n//every].mean(0)
            trials.append(dict(n_factors=n_factors, warm_up=w, n_sweeps=n, alone=off(got), with_one=off(got, mates[0]), with_two=off(got, *mates)))
            print({k: round(v, 5) for k,v in trials[-1].items()}, flush=True)
    return trials,dict(cpu_seconds_of_a_sweep=round(cpu, 2), kept=kept_errors(dls, mean))

def draws_1m():
    "Factors on a million rows, one seed; written after each number of them"
    dls = part_of_1m()
    truth = dls.interactions('valid').ratings()
    mates = [one(dls, s)[1].detach().numpy()+truth for s in (0,1)]
    def off(*o): return float(np.sqrt(np.square(np.mean(o, 0)-truth).mean()))
    alone = dict(svdpp=[off(o) for o in mates], both=off(*mates))
    print(alone, flush=True)
    rows,about = [],{}
    for k,n in ((47,200),):
        new,about[k] = draws_of(dls, mates, k, n)
        rows += new
        print(k, about[k], flush=True)
        yield dict(trials=rows, svdpp=alone, about=about, best=min(rows, key=lambda o: o['with_two']), protocol='a random tenth of the training rows of '
            'the first split of MovieLens-1M; draws from warm_up to n_sweeps alone, their mean with one SVDpp and with two; kept: of the draws from 50 '
            'on, by the rank their mean is kept in; no row of the test is read')

if __name__=='__main__':
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument('--part', nargs='+', choices=['folds','average','features','average-1m','ml-1m','scales','times','wide','draws','draws-1m'], required=True)
    p.add_argument('--seeds', nargs='+', type=int, default=[0,1,2])
    args = p.parse_args()
    torch.set_num_threads(1)
    made = {'folds': folds, 'average': average, 'features': features, 'average-1m': average1m, 'ml-1m': ml1m, 'scales': scales, 'times': times, 'wide': lambda seeds: side_by_side(), 'draws': lambda seeds: draws(), 'draws-1m': lambda seeds: draws_1m()}
    for part in args.part:
        found = made[part](args.seeds)
        for o in [found] if isinstance(found, dict) else found:
            write_json(RESULTS/f'svdpp__{part}.json', dict(o, threads=1, machine=machine(), versions=versions()))
        print({k: v for k,v in o.items() if not isinstance(v, (list,dict))})
