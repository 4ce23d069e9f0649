"""Two stages on MovieLens-1M: candidates of four models, ranked by fastai's tabular model; full ranking, seen items left out

    python benchmarks/two_stage.py                        # settings on validation rows, then the test, three seeds
    python benchmarks/two_stage.py --steps test --seeds 0 # the test only

Leave-last-out in the stable order of `position`: of each user the last row is the test, the one before it the validation; 3,416 items. First stages:
SASRec of the recipe of `sasrec.py` that takes three minutes, TwoSpeedRidge, SequentialRules and EASE, with their defaults. The second stage learns from
the third last row of each user, which is held out from training once more: its first stages are trained without the last three rows. Then the first
stages that were trained without the last two propose. Settings of the second stage, and which first stage counts as the best, are chosen by NDCG@10 on
the validation rows; the test is asked from all rows before it, once. `features` gives the loaders genres and years of films, and age, gender and
occupation of people. Differences are per user, with bootstrap intervals over users. Seconds are of one thread of the
processor: of both transformers, the inner one and the one that serves, and of everything else that is fitted, scored for lists and learned.
"""
import json
import warnings
from functools import partial

from common import RESULTS,Timer,arguments,machine,peak_memory_mb,versions,write_json
from sasrec import RECIPES
from sequences import loaders,rows_of

PATH = RESULTS/'two_stage__ml-1m.json'
R = RECIPES['ml-1m']
K,METRIC = 100,'ndcg@10'
TRIALS = dict(default={}, binary=dict(loss='BCE'), bpr=dict(loss='BPRLoss'), features=dict(features=True))

def table(df, left, least, features, seed):
    "Loaders of sequences of the rows that more than `least` others follow"
    from recfast.data.catalogues import ml_1m_films,ml_1m_people
    more = dict(items=ml_1m_films().drop(columns='title'), users=ml_1m_people()) if features else {}
    return loaders(df, left>least, seed=seed, seq_len=R['seq_len'], bs=R['bs'], **more)

def transformer(dls, seed):
    "SASRec on loaders of sequences"
    from fastai.optimizer import Adam
    from recfast.all import SASRec,collab_learner
    from recfast.data.windows import random_windows
    config = dict(R['config'], seq_len=R['seq_len'], align='left')
    opt = partial(Adam, sqr_mom=.98, eps=1e-8)
    learn = collab_learner(random_windows(dls, R['targets']), R['n_factors'], arch=SASRec, config=config, init='svd', opt_func=opt, seed=seed, cold_tail=False)
    with learn.no_bar(), learn.no_logging():
        learn.fit_one_cycle(R['n_epoch'], R['lr'], wd=R['wd'], pct_start=.1, div=100., div_final=200., moms=(.9,.9,.9))
    return learn

def solved(dls, name):
    "A first stage in closed form"
    from recfast.all import CollabDataLoaders,collab_learner,find_model
    if name=='EASE': dls = CollabDataLoaders.from_interactions(dls.interactions('train'), 'implicit', valid_pct=0, n_neg=0, bs=64)
    learn = collab_learner(dls, arch=find_model(name), cold_tail=False)
    with learn.no_bar(), learn.no_logging(): learn.fit(1)
    return learn

class Stages:
    "First stages of a seed; a transformer is trained once on the same rows"
    def __init__(self, df, left, seed): self.df,self.left,self.seed,self.made,self.cpu_seconds = df,left,seed,{},0.

    def sasrec(self, dls):
        n = len(dls.interactions('train'))
        if n in self.made: return self.made[n]
        with Timer() as t: self.made[n] = transformer(dls, self.seed)
        self.cpu_seconds += t.cpu_seconds
        return self.made[n]

    def inner(self, learn, inner):
        "`refit` of two_stage"
        from recfast.all import CollabDataLoaders
        rows = inner.interactions('train')
        how = dict(seq_len=R['seq_len'], bs=R['bs'], valid_pct=0, seed=self.seed)
        return self.sasrec(CollabDataLoaders.from_interactions(rows, 'sequences', **how))

    def all(self, least, features=False):
        "Learners on the rows that more than `least` others follow"
        dls = table(self.df, self.left, least, features, self.seed)
        with Timer() as t: closed = [solved(dls, o) for o in ('TwoSpeedRidge','SequentialRules','EASE')]
        self.solving = t.cpu_seconds
        return [*closed,self.sasrec(dls)]

def each(model, df, left, last, dls):
    "NDCG@10 and Recall@10 of every user at the row that `last` others follow, asked from all before it"
    from recfast.evaluate import evaluate_recommender
    from recfast.models.ids import meet
    rows = dls.interactions('train')
    asked = loaders(df, left>last).interactions('train')
    asked.features = rows.features
    meet(model, asked)
    ev = evaluate_recommender(model, asked, df[left==last], k=10, metrics=[METRIC,'recall@10'], baseline=False, progress=False)
    meet(model, rows)
    return ev.per_user.set_index('user_id')[[METRIC,'recall@10']],ev.protocol

def second(stages, learners, features=False, loss=None, **how):
    "The two stages and what the second took"
    from recfast import losses
    from recfast.two_stage import two_stage
    loss,before = loss and getattr(losses, loss)(),stages.cpu_seconds
    with Timer() as t: learn = two_stage(learners[0], learners[1:], k=K, refit=stages.inner, loss=loss, seed=stages.seed, **how)
    learn.took = t.cpu_seconds-(stages.cpu_seconds-before)
    return learn

def choose(stages, df, left):
    "Every setting on the validation rows"
    out,learners = {},stages.all(1)
    for name,how in TRIALS.items():
        if how.get('features'): learners = stages.all(1, True)
        learn = second(stages, learners, **how)
        value,_ = each(learn.model, df, left, 1, learners[0].dls)
        out[name] = dict(settings=how, lists=len(learn.second.asked), **{METRIC: round(value[METRIC].mean(), 5)})
        print(' ', name, out[name], flush=True)
    return out

def interval(values):
    "Mean and bootstrap interval"
    from recfast.resampling import mean_interval
    return dict(mean=round(float(values.mean()), 5), **dict(zip(('low','high'), (round(o, 5) for o in mean_interval(values)))))

def tested(stages, df, left, how):
    "First stages, the blend of the recipe, and two stages: validation and test"
    from recfast.models.ensemble import ZBlend
    seed = stages.seed
    learners = stages.all(1, how.get('features', False))
    learn = second(stages, learners, **how)
    blend = ZBlend([learners[-1].model,learners[0].model], [1,R['beside'][1]])
    models = {**{type(o.model).__name__: o.model for o in learners}, 'Blend': blend, 'TwoStage': learn.model}
    found,words = {},''
    for name,model in models.items():
        found[name] = {part: each(model, df, left, last, learners[0].dls) for part,last in dict(valid=1, test=0).items()}
        words = found[name]['test'][1] if name=='TwoStage' else words
        print(' ', seed, name, {k: round(v[METRIC].mean(), 4) for k,(v,_) in found[name].items()}, flush=True)
    single = [type(o.model).__name__ for o in learners]
    best = max(single, key=lambda o: found[o]['valid'][0][METRIC].mean())
    two = found['TwoStage']['test'][0]
    gain = {o: interval(two[METRIC]-found[o]['test'][0][METRIC].reindex(two.index)) for o in (best,'Blend')}
    figures = {name: {part: {m: interval(v[m]) for m in v} for part,(v,_) in o.items()} for name,o in found.items()}
    seconds = dict(transformers=round(stages.cpu_seconds, 1), everything_else=round(stages.solving+learn.took, 1))
    return dict(best_first_stage=best, figures=figures, gain_over=gain, lists=len(learn.second.asked), seconds=seconds, protocol=words)

def main(steps, seeds):
    import torch
    torch.set_num_threads(1)
    warnings.simplefilter('ignore')
    found = json.loads(PATH.read_text(encoding='utf-8')) if PATH.exists() else dict(trials={}, seeds={})
    df,left = rows_of('ml-1m')
    def write(): write_json(PATH, dict(dataset='ml-1m', k=K, recipe=R, trials=found['trials'], chosen=found.get('chosen'), seeds=found['seeds'],
                                       protocol=__doc__.strip(), peak_memory_mb=peak_memory_mb(), threads=1, versions=versions(), machine=machine()))
    stages = Stages(df, left, seeds[0])
    if 'choose' in steps:
        found['trials'] = choose(stages, df, left)
        found['chosen'] = max(found['trials'], key=lambda o: found['trials'][o][METRIC])
        write()
    if 'test' not in steps: return
    for seed in seeds:
        if seed!=stages.seed: stages = Stages(df, left, seed)
        found['seeds'][str(seed)] = tested(stages, df, left, found['trials'][found['chosen']]['settings'])
        print(seed, json.dumps(found['seeds'][str(seed)]['gain_over']), flush=True)
        write()

if __name__=='__main__':
    args = arguments(__doc__, steps=['choose','test'], seeds=[0,1,2])
    main(args.steps, args.seeds)
