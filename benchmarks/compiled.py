"""The compiled epoch on MovieLens-100k: its speed against fastai's, its quality against the exact loop, and both on a busy machine.

    python benchmarks/compiled.py --part epoch reach cold quality busy
    python benchmarks/compiled.py --part epoch --repeats 3   # shorter

epoch: training steps and a whole epoch (with validation) of fastai, of the exact loop and of the compiled one, in turn in one
process, medians of wall and processor seconds and the median of the ratios of runs side by side. reach: the training steps of
5 epochs to fastai's quality. cold: whole fits in fresh processes, with the compiled code kept and without. quality: 10 splits, both loops; each table after one
epoch; the models of r1.py and the five folds against the results stored beside; BPR and BCE by NDCG@10. busy: an epoch beside
two processes that do nothing but count. One thread. Processor seconds tell more than wall seconds where the machine is shared.
"""
import argparse,contextlib,json,multiprocessing,os,statistics,subprocess,sys,tempfile,time,warnings

warnings.filterwarnings('ignore')
from common import RESULTS,load_results,machine,versions,write_json
from train_speed import CHOSEN,REFERENCE,fastai_dls,quiet,recfast_dls

LOOPS = 'compiled','exact'

def clock(): return time.perf_counter(),time.process_time()
def since(start): return [b-a for a,b in zip(start, clock())]

def timed_fit(learn, n_epoch, lr, **kwargs):
    "{part: [wall, processor seconds]} of a fit: training steps, validation, both"
    from fastai.callback.core import Callback
    took = dict(train=[0.,0.], valid=[0.,0.])
    class Timed(Callback):
        order = -100
        def before_train(self): self.start = clock()
        def after_train(self): took['train'] = [a+b for a,b in zip(took['train'], since(self.start))]
        def before_validate(self): self.start = clock()
        def after_validate(self): took['valid'] = [a+b for a,b in zip(took['valid'], since(self.start))]
    quiet(learn, n_epoch, lr, wd=.1, cbs=Timed(), **kwargs)
    return dict(took, epoch=[a+b for a,b in zip(took['train'], took['valid'])])

def ours(dls, **kwargs):
    from recfast.learner import collab_learner
    from recfast.models.dot import DotProductBias
    return collab_learner(dls, **{'n_factors': 50, 'y_range': (0,5.5), 'arch': DotProductBias, **kwargs})

def fitted(dls, fast, n_epoch=5, lr=5e-3, wd=.1, **kwargs):
    learn = ours(dls, **kwargs)
    quiet(learn, n_epoch, lr, wd=wd, fast=fast)
    assert learn.fast.loop==dict(compiled='compiled', exact='fast')[fast], learn.fast
    return learn

# speed

def epochs(repeats):
    "Epochs of the three systems in turn"
    import fastai.collab as theirs
    from recfast.data.datasets import ml_100k
    df = ml_100k()
    a,b = fastai_dls(df, 0, False),recfast_dls(df, 0)
    systems = dict(fastai=lambda: timed_fit(theirs.collab_learner(a, n_factors=50, y_range=(0,5.5)), 1, 5e-3),
                   **{o: lambda o=o: timed_fit(ours(b), 1, 5e-3, fast=o) for o in LOOPS})
    runs = {k: [] for k in systems}
    for i in range(repeats+1):
        for k,f in systems.items():
            took = f()
            if i: runs[k].append(took) # the first is a warm-up, and the compilation
            print(f"run {i}, {k}: {took['train'][0]:.3f} s of steps, {took['epoch'][0]:.3f} s an epoch", flush=True)
    return dict(runs=runs, **compared(runs))

def compared(runs):
    "Medians, and the median of fastai's time over ours run by run"
    parts = [(part,j,kind) for part in ('train','epoch') for j,kind in enumerate(('wall','cpu'))]
    med = {k: {f'{p}_{kind}_s': statistics.median(o[p][j] for o in v) for p,j,kind in parts} for k,v in runs.items()}
    over = {k: {f'{p}_{kind}': statistics.median(x[p][j]/y[p][j] for x,y in zip(runs['fastai'], runs[k])) for p,j,kind in parts} for k in LOOPS}
    return dict(medians=med, fastai_over=over)

def to_quality(repeats):
    "Training steps of a whole fit: fastai's own, permuted, and the compiled loop with the settings of train_speed.py"
    import fastai.collab as theirs
    from recfast.data.datasets import ml_100k
    df,rows = ml_100k(),[]
    for seed in range(repeats):
        row = dict(seed=seed)
        for name,dls,make,c,kw in (('fastai',fastai_dls(df, seed, True),theirs.collab_learner,REFERENCE,{}),
                                   ('compiled',recfast_dls(df, seed, CHOSEN['bs']),ours,CHOSEN,dict(fast='compiled'))):
            learn = make(dls, n_factors=50, y_range=(0,5.5))
            row[name] = timed_fit(learn, c['epochs'], c['lr'], **kw)['train']
            row[f'{name}_mse'] = float(learn.recorder.values[-1][1])
        print(row, flush=True)
        rows.append(row)
    mse = {o: statistics.mean(r[f'{o}_mse'] for r in rows) for o in ('fastai','compiled')}
    ratio = {kind: statistics.median(r['fastai'][j]/r['compiled'][j] for r in rows) for j,kind in enumerate(('wall','cpu'))}
    return dict(rows=rows, mean_valid_mse=mse, reached=mse['compiled']<=mse['fastai']+.003, fastai_over_compiled=ratio)

def one_fit(system):
    "A whole fit, the first thing of a process"
    from recfast.data.datasets import ml_100k
    df = ml_100k()
    if system=='fastai':
        import fastai.collab as theirs
        learn,kw = theirs.collab_learner(fastai_dls(df, 0, False), n_factors=50, y_range=(0,5.5)),{}
    else: learn,kw = ours(recfast_dls(df, 0)),dict(fast=system)
    start = clock()
    quiet(learn, 5, 5e-3, wd=.1, **kw)
    return since(start)

def fresh(system, folder):
    "`one_fit` in a process of its own, numba keeping its code in `folder`"
    out = subprocess.run([sys.executable,__file__,'--one',system], capture_output=True, text=True, check=True,
                         cwd=os.path.dirname(os.path.abspath(__file__)), env={**os.environ, 'NUMBA_CACHE_DIR': folder})
    return json.loads(out.stdout.strip().splitlines()[-1])

def cold(repeats):
    "Whole fits in fresh processes, with and without compiled code from before"
    rows = []
    with tempfile.TemporaryDirectory() as kept:
        fresh('compiled', kept)
        for _ in range(repeats):
            with tempfile.TemporaryDirectory() as empty:
                rows.append(dict(fastai=fresh('fastai', kept), kept=fresh('compiled', kept), none=fresh('compiled', empty), exact=fresh('exact', kept)))
            print(rows[-1], flush=True)
    over = {k: {kind: statistics.median(r['fastai'][j]/r[k][j] for r in rows) for j,kind in enumerate(('wall','cpu'))} for k in ('kept','none','exact')}
    return dict(rows=rows, fastai_over=over)

# quality

def apart(a, b):
    from recfast.compiled import tables_of
    names = 'u_weight','i_weight','u_bias','i_bias'
    return {n: float((x-y).norm()/y.norm()) for n,x,y in zip(names, tables_of(a.model), tables_of(b.model))}

def splits(n):
    "Both loops on the same splits"
    from recfast.data.datasets import ml_100k
    df,rows = ml_100k(),[]
    for seed in range(n):
        both = {o: fitted(recfast_dls(df, seed), o) for o in LOOPS}
        one = {o: fitted(recfast_dls(df, seed), o, 1) for o in LOOPS}
        rows.append(dict(seed=seed, **{o: float(l.recorder.values[-1][1]) for o,l in both.items()}, after_one_epoch=apart(*one.values()), at_the_end=apart(*both.values())))
        print(rows[-1], flush=True)
    gaps = [r['compiled']-r['exact'] for r in rows]
    most = {n: max(r['after_one_epoch'][n] for r in rows) for n in rows[0]['after_one_epoch']}
    return dict(rows=rows, mean={o: statistics.mean(r[o] for r in rows) for o in LOOPS}, mean_gap=statistics.mean(gaps), largest_gap=max(map(abs, gaps)), most_apart_after_one_epoch=most)

def stored(name): # mean of the results kept beside
    res = [(r['metrics'].get('valid_mse', r['metrics'].get('rmse')),r['fast']) for r in load_results(f'{name}__ml-100k__seed*.json')]
    assert all(f=='fast' for _,f in res), f'{name}: results of another loop'
    return statistics.mean(v for v,_ in res)

def r1(seeds):
    from r1 import SYSTEMS
    from recfast.all import find_model,ml_100k
    df,rows = ml_100k(),{}
    for name in ('R1a','R1b','R1c','R1d'):
        model,fit = (dict(o) for o in SYSTEMS[name])
        how = dict(y_range=model.get('y_range'), arch=find_model(model['arch']), wd=fit.get('wd'))
        got = [float(fitted(recfast_dls(df, s), 'compiled', **how).recorder.values[-1][1]) for s in seeds]
        rows[name] = dict(compiled=statistics.mean(got), stored=stored(name), runs=got)
        print(name, rows[name], flush=True)
    return rows

def folds(seeds):
    from recfast.all import CollabDataLoaders,DotProductBias,collab_learner,ml_100k # noqa: F401
    rows = {}
    for fold in range(1, 6):
        got = []
        for seed in seeds:
            dls = CollabDataLoaders.from_df(ml_100k(fold=fold), item_name='item_id', splits='is_valid', bs=64, seed=seed)
            learn = collab_learner(dls, n_factors=50, y_range=(0,5.5))
            quiet(learn, 5, 5e-3, wd=.1, fast='compiled')
            got.append(learn.evaluate(k=10, clip=(1,5))['rmse'])
        rows[f'u{fold}'] = dict(compiled=statistics.mean(got), stored=stored(f'DotProductBias-u{fold}'), runs=got)
        print(fold, rows[f'u{fold}'], flush=True)
    return rows

def ranked(seeds):
    "NDCG@10 of both loops under losses of clicks, with the bootstrap interval of the difference"
    from recfast.all import BCE,BPRLoss,CollabDataLoaders,ml_100k
    from recfast.compare import compare
    df,rows = ml_100k(),[]
    for name,make,kw in (('BPR',BPRLoss,{}),('BCE',BCE,{})):
        for seed in seeds:
            dls = lambda: CollabDataLoaders.implicit_from_df(df, item_name='title', bs=256, n_neg=4, seed=seed)
            evs = {o: fitted(dls(), o, 5, 1e-2, y_range=None, loss_func=make(), **kw).evaluate(k=10) for o in LOOPS}
            rows.append(dict(loss=name, seed=seed, **{o: ev['ndcg@10'] for o,ev in evs.items()}, compared=json.loads(compare(evs, base='exact').table.to_json(orient='index'))))
            print({k: v for k,v in rows[-1].items() if k!='compared'}, flush=True)
    return rows

def quality(args): return dict(splits=splits(args.splits), r1=r1(range(5)), folds=folds(range(3)), clicks=ranked(range(3)))

# beside other work

def count():
    while True: sum(range(10**6))

@contextlib.contextmanager
def two_busy():
    "Two processes that count, inside"
    ps = [multiprocessing.get_context('spawn').Process(target=count, daemon=True) for _ in range(2)]
    for p in ps: p.start()
    time.sleep(2)
    try: yield
    finally:
        for p in ps: p.terminate()
        for p in ps: p.join()

def busy(args):
    "An epoch alone and beside two busy processes, in turn"
    from recfast.data.datasets import ml_100k
    dls,rows = recfast_dls(ml_100k(), 0),{o: dict(alone=[], beside=[]) for o in LOOPS}
    for o in LOOPS: fitted(dls, o, 1)
    for _ in range(args.repeats):
        for where,how in (('alone',contextlib.nullcontext),('beside',two_busy)):
            with how():
                for o in LOOPS: rows[o][where].append(timed_fit(ours(dls), 1, 5e-3, fast=o)['epoch'])
        print({o: {k: round(v[-1][0], 3) for k,v in r.items()} for o,r in rows.items()}, flush=True)
    times = {o: statistics.median(b[0] for b in r['beside'])/statistics.median(a[0] for a in r['alone']) for o,r in rows.items()}
    return dict(rows=rows, beside_over_alone=times)

if __name__=='__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = dict(epoch=lambda a: epochs(a.repeats), reach=lambda a: to_quality(a.repeats), cold=lambda a: cold(a.repeats), quality=quality, busy=busy)
    p.add_argument('--part', nargs='+', choices=parts, default=list(parts))
    p.add_argument('--repeats', type=int, default=5)
    p.add_argument('--splits', type=int, default=10)
    p.add_argument('--note', default='', help='what else ran on the machine, kept with the result')
    p.add_argument('--one', help=argparse.SUPPRESS)
    args = p.parse_args()
    import torch
    torch.set_num_threads(1)
    if args.one: print(json.dumps(one_fit(args.one)))
    else:
        for o in args.part:
            load = [round(x, 1) for x in os.getloadavg()]
            res = parts[o](args)
            write_json(RESULTS/f'compiled__{o}.json', dict(res, note=args.note, load_before=load, load_after=[round(x, 1) for x in os.getloadavg()],
                                                          threads=1, machine=machine(), versions={**versions(), 'numba': __import__('numba').__version__}))
