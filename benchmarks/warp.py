"MovieLens-100k: the same model under BPR and under WARP, settings of both chosen on a validation part, tested once, three seeds, one interval of the difference"
import warnings
from common import RESULTS, Timer, arguments, machine, save_result, versions, write_json
from ranking import PROTOCOL, _each, fit, measure, parts

BASE = dict(arch='DotProductBias', n_factors=64, n_epoch=20, lr_max=5e-3)
LOSSES = {'BPR': 'BPRLoss', 'WARP': 'WARPLoss'}

def grid(loss): return _each({**BASE, 'loss': [LOSSES[loss],{}]}, **{'loaders.n_neg': [8,24], 'wd': [.1,.2,.4,.8]})

def choose(loss):
    "(the best setting, every trial) by NDCG@10 on the validation part"
    train,test,cand = parts('ml-100k', True)
    trials = []
    for s in grid(loss):
        learn,t = fit(train, 0, **s)
        trials.append(dict(setting=s, metrics=measure('ml-100k', learn, test, cand)[0], cpu_seconds=round(t.cpu_seconds, 2)))
        print(loss, s['loaders'], s['wd'], round(trials[-1]['metrics']['ndcg@10'], 4), f'{t.cpu_seconds:.1f} s', flush=True)
    return max(trials, key=lambda o: o['metrics']['ndcg@10'])['setting'],trials

def tested(loss, setting, seeds):
    "Fit the chosen setting on all of train and measure it once for each seed: evaluations, and the metrics of the table"
    train,test,cand = parts('ml-100k', False)
    evs,rows = [],[]
    for seed in seeds:
        learn,t = fit(train, seed, **setting)
        metrics,words = measure('ml-100k', learn, test, cand)
        evs.append(learn.evaluate(test, metrics=['ndcg@10','recall@10']))
        rows.append(dict(seed=seed, **metrics, cpu_seconds=round(t.cpu_seconds, 2)))
        if loss=='WARP': save_result('ranking-DotProductBias-WARP', 'ml-100k', seed, metrics, t, f"{PROTOCOL['ml-100k']}. {words}", setting,
                                     fast=repr(learn.fast))
        print(loss, seed, {k: round(v, 4) for k,v in metrics.items()}, flush=True)
    return evs,rows

def main(seeds):
    from recfast.all import compare
    import torch
    torch.set_num_threads(1)
    warnings.simplefilter('ignore')
    with Timer() as t:
        chosen = {o: choose(o) for o in LOSSES}
        evs = {o: tested(o, chosen[o][0], seeds) for o in LOSSES}
    found = compare({o: many for o,(many,_) in evs.items()}, metric='ndcg@10', base='BPR', baseline=False)
    print(found)
    rows = found.table.reset_index(names='model').to_dict('records')
    write_json(RESULTS/'warp.json', dict(dataset='ml-100k', seeds=seeds, chosen={o: s for o,(s,_) in chosen.items()}, trials={o: ts for o,(_,ts) in chosen.items()},
        runs={o: runs for o,(_,runs) in evs.items()}, rows=rows, protocol=PROTOCOL['ml-100k'],
        interval='2.5% to 97.5% of 1000 bootstrap draws of users, of the mean over the seeds; diff: to BPR, on the same users',
        seconds=round(t.seconds, 1), cpu_seconds=round(t.cpu_seconds, 1), threads=1, versions=versions(), machine=machine()))

if __name__=='__main__':
    args = arguments(__doc__, seeds=[0,1,2])
    main(args.seeds)
