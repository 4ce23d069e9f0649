"""Training speed on MovieLens-100k: fastai, recfast and the bare torch loop side by side.

    python benchmarks/train_speed.py            # seconds an epoch, then time to quality
    python benchmarks/train_speed.py --choose   # the settings of time to quality, on other seeds

An epoch: the same model (50 factors, biases, y_range), the same one-cycle schedule, batch size 64, the three systems in turn
within one process, medians; training steps and validation timed apart. Time to quality: the wall time of one whole
`fit_one_cycle` in a fresh process; the reference is fastai's own loop with a loader that permutes its rows.
"""
import argparse,contextlib,io,json,os,statistics,subprocess,sys,time,warnings

warnings.filterwarnings('ignore', category=FutureWarning)
from common import RESULTS,machine,versions, write_json

SEEDS,CHOOSE_SEEDS = range(5),range(100,103)
REFERENCE = dict(bs=64, lr=5e-3, epochs=5, wd=0.1)
CHOSEN = dict(bs=256, lr=5e-3, epochs=5, wd=0.1)  # the lowest validation MSE of --choose, well inside the time (train_speed__choose.json)

def fastai_dls(df, seed, permute):
    "fastai's loaders; with `permute` its plain tabular loader, which draws a true permutation"
    from fastai.collab import CollabDataLoaders
    from fastai.tabular.core import TabDataLoader
    from fastai.tabular.all import set_seed
    set_seed(seed)
    return CollabDataLoaders.from_df(df, item_name='title', rating_name='rating', user_name='user_id', bs=64, seed=seed,
                                     **({'dl_type': TabDataLoader} if permute else {}))

def recfast_dls(df, seed, bs=64):
    from recfast.data.loaders import CollabDataLoaders
    return CollabDataLoaders.from_df(df, item_name='title', bs=bs, seed=seed)

def timer():
    "A callback that times training and validation apart"
    from fastai.callback.core import Callback
    class Timed(Callback):
        order = -100
        def before_train(self): self.start = time.perf_counter()
        def after_train(self): self.train_s = time.perf_counter()-self.start
        def before_validate(self): self.start = time.perf_counter()
        def after_validate(self): self.valid_s = time.perf_counter()-self.start
    return Timed()

def quiet(learn, *args, **kwargs):
    with learn.no_bar(), learn.no_logging(), contextlib.redirect_stdout(io.StringIO()): learn.fit_one_cycle(*args, **kwargs)

def epoch_of(make):
    "Seconds of training and validation of one epoch"
    learn,cb = make(),timer()
    quiet(learn, 1, 5e-3, wd=0.1, cbs=cb)
    if hasattr(learn, 'fast'): assert learn.fast, learn.fast
    return cb.train_s,cb.valid_s

def bare_epoch(dls):
    "The limit: forward, loss, backward and a fused AdamW, nothing else"
    import torch, torch.nn.functional as F
    from recfast.models.dot import DotProductBias
    torch.manual_seed(0)
    model = DotProductBias(dls.n_users, dls.n_items, 50, (0,5.5))
    opt = torch.optim.AdamW(model.parameters(), lr=5e-3, weight_decay=0.1, eps=1e-5, fused=True)
    start = time.perf_counter()
    for x,y in dls.train:
        F.mse_loss(model(x), y).backward()
        opt.step()
        opt.zero_grad()
    train_s,start = time.perf_counter()-start,time.perf_counter()
    with torch.no_grad(): sum(F.mse_loss(model(x), y, reduction='sum') for x,y in dls.valid)
    return train_s,time.perf_counter()-start

def per_epoch(threads, repeats=5):
    "Medians of the three systems, one warm-up each, then in turn"
    import torch
    import fastai.collab as theirs
    from recfast.data.datasets import ml_100k
    from recfast.learner import collab_learner
    torch.set_num_threads(threads)
    df = ml_100k()
    a,b = fastai_dls(df, 0, False),recfast_dls(df, 0)
    systems = {'fastai': lambda: epoch_of(lambda: theirs.collab_learner(a, n_factors=50, y_range=(0,5.5))),
               'recfast': lambda: epoch_of(lambda: collab_learner(b, n_factors=50, y_range=(0,5.5))), 'bare': lambda: bare_epoch(b)}
    times = {k: [] for k in systems}
    for i in range(repeats+1):
        for k,f in systems.items():
            t = f()
            if i: times[k].append(t)
            print(f'{threads} threads, run {i}, {k}: train {t[0]:.3f} s, valid {t[1]:.3f} s', flush=True)
    med = {k: dict(train_s=statistics.median(t for t,_ in v), valid_s=statistics.median(t for _,t in v),
                   epoch_s=statistics.median(sum(o) for o in v), runs=v) for k,v in times.items()}
    ratio = statistics.median(sum(x)/sum(y) for x,y in zip(times['fastai'], times['recfast']))
    return dict(threads=threads, bs=64, repeats=repeats, medians=med, fastai_over_recfast=ratio)

def one_fit(system, seed, config):
    "One whole fit, alone in this process: wall seconds and final validation MSE"
    from recfast.data.datasets import ml_100k
    df = ml_100k()
    if system=='fastai':
        from fastai.collab import collab_learner
        dls = fastai_dls(df, seed, True)
        learn = collab_learner(dls, n_factors=50, y_range=(0,5.5))
    else:
        from recfast.learner import collab_learner
        dls = recfast_dls(df, seed, config['bs'])
        learn = collab_learner(dls, n_factors=50, y_range=(0,5.5))
    start = time.perf_counter()
    quiet(learn, config['epochs'], config['lr'], wd=config['wd'])
    seconds = time.perf_counter()-start
    if system=='recfast': assert learn.fast, learn.fast
    return dict(system=system, seed=seed, seconds=seconds, valid_mse=float(learn.recorder.values[-1][1]), config=config, fast=repr(getattr(learn, 'fast', '')))

def fresh(system, seed, config, threads):
    "`one_fit` in a fresh process"
    out = subprocess.run([sys.executable, __file__, '--one', json.dumps([system,seed,config]), '--threads', str(threads)], capture_output=True, text=True, check=True,
                         cwd=os.path.dirname(os.path.abspath(__file__)))
    res = json.loads(out.stdout.strip().splitlines()[-1])
    print(f"{system} seed {seed}: {res['seconds']:.2f} s, validation MSE {res['valid_mse']:.4f}", flush=True)
    return res

def time_to_quality(threads):
    "Reference and recfast on the same split seeds, in turn"
    runs = [fresh(system, seed, config, threads) for seed in SEEDS for system,config in (('fastai',REFERENCE),('recfast',CHOSEN))]
    part = {s: [r for r in runs if r['system']==s] for s in ('fastai','recfast')}
    mse,sec = ({s: statistics.mean(r[k] for r in v) for s,v in part.items()} for k in ('valid_mse','seconds'))
    return dict(threads=threads, reference=REFERENCE, chosen=CHOSEN, mean_valid_mse=mse, mean_seconds=sec, margin=0.003,
                reached=mse['recfast']<=mse['fastai']+0.003, time_ratio=sec['recfast']/sec['fastai'], runs=runs)

def choose():
    "Grid on seeds that time to quality does not use; one process, so only quality is read from it"
    import itertools
    rows = []
    for bs,lr,epochs in itertools.product((256,512,1024), (5e-3,7.5e-3,1e-2), (3,4,5)):
        res = [one_fit('recfast', s, dict(bs=bs, lr=lr, epochs=epochs, wd=0.1)) for s in CHOOSE_SEEDS]
        rows.append(dict(bs=bs, lr=lr, epochs=epochs, valid_mse=statistics.mean(r['valid_mse'] for r in res), seconds=statistics.mean(r['seconds'] for r in res)))
        print(rows[-1], flush=True)
    ref = [one_fit('recfast', s, REFERENCE)['valid_mse'] for s in CHOOSE_SEEDS]
    return dict(seeds=list(CHOOSE_SEEDS), bs64_valid_mse=statistics.mean(ref), grid=rows)

def save(name, res):
    write_json(RESULTS/f'{name}.json', dict(res, machine=machine(), versions=versions()))

if __name__=='__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--choose', action='store_true', help='search the settings of time to quality')
    p.add_argument('--one', help=argparse.SUPPRESS)
    p.add_argument('--repeats', type=int, default=5)
    p.add_argument('--threads', type=int, default=1, help='of torch, for all systems alike; at batch size 64 a second one gains nothing')
    args = p.parse_args()
    import torch
    torch.set_num_threads(args.threads)
    if args.one: print(json.dumps(one_fit(*json.loads(args.one))))
    elif args.choose: save('train_speed__choose', choose())
    else:
        save('train_speed__epoch', dict(rows=[per_epoch(args.threads, args.repeats)]))
        save('train_speed__quality', time_to_quality(args.threads))
