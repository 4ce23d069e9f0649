"""SASRec as the field has it, and its blend with a closed form: full ranking, seen items left out

Leave-last-out in the stable order of the table. One recipe for each dataset, looked at on each user's row before the last; tested on the last row,
asked from all rows before it, by what was fitted without the last two (`test`), and where asked for by what was fitted without the last only
(`refitted`). The item table begins at the singular vectors of near co-occurrences, windows are cut anew each epoch, the softmax is over all items.
The blend is of standard scores, the closed form with the weight that the recipe names. Seconds are of one thread of a processor, of all that is fitted.
"""
import json
import warnings
from functools import partial

from common import RESULTS,Timer,arguments,machine,peak_memory_mb,versions,write_json
from sequences import loaders,measured,rows_of

RECIPES = {
    'ml-1m': dict(n_factors=64, seq_len=100, bs=40, targets=1/3, config=dict(n_layers=2, n_heads=2, p=.1), n_epoch=9, lr=3e-3, wd=.01,
                  beside=('TwoSpeedRidge',.1)),
    'ml-1m-big': dict(n_factors=128, seq_len=100, bs=40, targets=.4, config=dict(n_layers=2, n_heads=2, p=.2), n_epoch=14, lr=2e-3, wd=.05,
                      beside=('TwoSpeedRidge',.1)),
    'beauty': dict(n_factors=64, seq_len=50, bs=41, targets=1., config=dict(n_layers=1, n_heads=1, p=.4), n_epoch=10, lr=4e-3, wd=.01,
                   beside=('SequentialRules',.05)),
}

def transformer(r, df, rows, seed, init='svd', ends=None):
    "A trained learner, and what it took; `ends(learn)` is called after each epoch"
    from fastai.callback.core import Callback
    from fastai.optimizer import Adam
    from recfast.all import SASRec,collab_learner
    from recfast.data.windows import random_windows
    dls = loaders(df, rows, seq_len=r['seq_len'], bs=r['bs'], seed=seed)
    class Ends(Callback):
        def after_epoch(self): ends(self.learn)
    with Timer() as t:
        config = dict(r['config'], seq_len=r['seq_len'], align='left')
        opt = partial(Adam, sqr_mom=.98, eps=1e-8)
        learn = collab_learner(random_windows(dls, r['targets']), r['n_factors'], arch=SASRec, config=config, init=init, opt_func=opt, seed=seed)
        with learn.no_bar(), learn.no_logging():
            learn.fit_one_cycle(r['n_epoch'], r['lr'], wd=r['wd'], pct_start=.1, div=100., div_final=200., moms=(.9,.9,.9), cbs=[Ends()] if ends else [])
    assert learn.fast, learn.fast
    return learn,t

def closed(r, dls):
    "The closed form of the recipe as a learner, and what it took"
    from recfast.all import collab_learner,find_model
    with Timer() as t:
        learn = collab_learner(dls, arch=find_model(r['beside'][0]))
        with learn.no_bar(), learn.no_logging(): learn.fit(1)
    return learn,t

def figures(learn, df, left, last, t):
    return dict(cpu_seconds=round(t, 1), **measured(learn.model, df, left, last)[0])

def trained(r, df, left, least, seed, asked):
    "The recipe fitted on the rows that more than `least` others follow: its figures on the rows `asked` = {name: how many others follow}"
    from recfast.ensemble import Blend
    learn,t = transformer(r, df, left>least, seed)
    solo = {k: figures(learn, df, left, last, t.cpu_seconds) for k,last in asked.items()}
    other,s = closed(r, loaders(df, left>least))
    other.dls = learn.dls
    both = Blend([learn,other], [1,r['beside'][1]])
    blend = {k: figures(both, df, left, last, t.cpu_seconds+s.cpu_seconds) for k,last in asked.items()}
    return {k: dict(SASRec=solo[k], Blend=blend[k]) for k in asked}

def main(recipes, seeds, columns):
    import torch
    torch.set_num_threads(1)
    warnings.simplefilter('ignore')
    for name in recipes:
        r,path = RECIPES[name],RESULTS/f'sasrec__{name}.json'
        found = json.loads(path.read_text(encoding='utf-8'))['seeds'] if path.exists() else {}
        df,left = rows_of(name.removesuffix('-big'))
        for seed in seeds:
            mine = found.setdefault(str(seed), {})
            if 'test' in columns: mine.update(trained(r, df, left, 1, seed, dict(valid=1, test=0)))
            if 'refitted' in columns: mine['refitted'] = trained(r, df, left, 0, seed, dict(test=0))['test']
            print(name, seed, json.dumps(mine), flush=True)
            write_json(path, dict(dataset=name, recipe=r, seeds=found, protocol=__doc__.strip(), peak_memory_mb=peak_memory_mb(), threads=1,
                                  versions=versions(), machine=machine()))

if __name__=='__main__':
    args = arguments(__doc__, recipes=list(RECIPES), seeds=[0,1,2], columns=['test','refitted'])
    main(args.recipes, args.seeds, args.columns)
