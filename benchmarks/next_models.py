"""Models of the next item beside SASRec as the field has it, at about its budget: full ranking, seen items left out

Leave-last-out in the stable order of MovieLens-1M, as in `sasrec.py`, whose figures of the recipe of minutes stand beside these: fitted without the last
two rows of each user, looked at on the row before the last, tested on the last, asked from all rows before it. One recipe for each model, none tuned:
`SASRec, right-aligned` is the model as it comes by default, with the recipe of MovieLens-100k (`next_item.py`) but for three epochs in place of ten: windows of 50
cut once, a cold start, a softmax over all items at every place. The others take windows cut anew each epoch and begin at the singular vectors of near co-occurrences, as SASRec
does there. Seconds are of one thread of a processor, of all that is fitted.
"""
import json
import warnings
from functools import partial

from common import RESULTS,Timer,arguments,machine,peak_memory_mb,versions,write_json
from sequences import loaders,measured,rows_of

RECIPES = {
    'SASRec, right-aligned': dict(arch='SASRec', n_factors=64, seq_len=50, bs=32, config=dict(p=.2), n_epoch=3, lr=3e-3, wd=.01),
    'BERT4Rec': dict(arch='BERT4Rec', n_factors=64, seq_len=100, bs=40, targets=1., config=dict(n_layers=2, n_heads=2, p=.1, hidden=.2), n_epoch=9, lr=3e-3,
                     wd=.01),
    'GRU4Rec': dict(arch='GRU4Rec', n_factors=64, seq_len=100, bs=40, targets=1/3, config=dict(n_hidden=128, p=.1), n_epoch=9, lr=3e-3, wd=.01),
}

def fitted(r, df, rows, seed):
    "A trained learner, and what it took"
    from fastai.optimizer import Adam
    from recfast.all import collab_learner,find_model
    from recfast.data.windows import random_windows
    dls = loaders(df, rows, seq_len=r['seq_len'], bs=r['bs'], seed=seed)
    anew = 'targets' in r
    with Timer() as t:
        how = dict(init='svd', opt_func=partial(Adam, sqr_mom=.98, eps=1e-8)) if anew else {}
        config = dict(r['config'], seq_len=r['seq_len'])
        learn = collab_learner(random_windows(dls, r['targets']) if anew else dls, r['n_factors'], arch=find_model(r['arch']), config=config, seed=seed, **how)
        steps = dict(pct_start=.1, div=100., div_final=200., moms=(.9,.9,.9)) if anew else {}
        with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(r['n_epoch'], r['lr'], wd=r['wd'], **steps)
    assert learn.fast, learn.fast
    return learn,t

def main(models, seeds):
    import torch
    torch.set_num_threads(1)
    warnings.simplefilter('ignore')
    df,left = rows_of('ml-1m')
    for name in models:
        path = RESULTS/f"next-models-{name.replace(', ','-')}__ml-1m.json"
        found = json.loads(path.read_text(encoding='utf-8'))['seeds'] if path.exists() else {}
        for seed in seeds:
            learn,t = fitted(RECIPES[name], df, left>1, seed)
            found[str(seed)] = {k: dict(cpu_seconds=round(t.cpu_seconds, 1), **measured(learn.model, df, left, last)[0])
                                for k,last in dict(valid=1, test=0).items()}
            print(name, seed, json.dumps(found[str(seed)]), flush=True)
            write_json(path, dict(dataset='ml-1m', model=name, recipe=RECIPES[name], seeds=found, protocol=__doc__.strip(), peak_memory_mb=peak_memory_mb(),
                                  threads=1, versions=versions(), machine=machine()))

if __name__=='__main__':
    args = arguments(__doc__, models=list(RECIPES), seeds=[0])
    main(args.models, args.seeds)
