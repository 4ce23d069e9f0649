"""Twenty-five million ratings: into loaders, through an epoch, and what a rating costs in smaller tables of the same catalogue.

    python benchmarks/ingest.py --part ingest epoch sizes
    python benchmarks/ingest.py --part ingest --sizes 1e6 --repeats 1   # shorter

The table is made: 162,541 users and 59,047 items of log-normal popularity, no pair twice, ids and ratings of 64 bits as pandas
reads them from a csv. Every figure is of a fresh process. ingest: `CollabDataLoaders.from_df`, the count of repeats after it, the
peak of memory, and fastai's `from_df` on the smaller tables. epoch: `from_df` and one epoch of DotProductBias (50 factors) by the
compiled loop, its code compiled on a small table before, by batch size, on one thread and on all; in a process that does nothing
else the peak of memory; beside it what memory could move at best, and a pass of fastai's loader over a smaller table; `busy`
is the time in processor seconds of one thread, for a machine where other work runs. sizes: seconds of an epoch by rating at 1, 5 and 25 million.
mapped: `from_row_groups` on the same tables as parquet files, the peak of memory after it and after an epoch.
"""
import argparse,json,os,statistics,subprocess,sys,tempfile,time,warnings
from pathlib import Path

warnings.filterwarnings('ignore')
import numpy as np
from common import RESULTS,machine,peak_memory_mb,versions,write_json

N_USERS,N_ITEMS,N_FACTORS = 162_541,59_047,50

def drawn(rng, n, sigma, m):
    "[m] of `n` things, by a log-normal popularity, in order"
    p = np.exp(sigma*rng.standard_normal(n))
    return np.repeat(np.arange(n), rng.multinomial(m, p/p.sum()))

def made(n, seed=0):
    "`n` ratings without repeated pairs, in a random order"
    import pandas as pd
    rng = np.random.default_rng(seed)
    users,items = drawn(rng, N_USERS, 1.1, int(1.15*n)),drawn(rng, N_ITEMS, 1.5, int(1.15*n))
    rng.shuffle(items)
    pairs = rng.permutation(np.unique(users*N_ITEMS+items))[:n]
    assert len(pairs)==n
    stars = np.clip(np.rint(2*(3.5+rng.standard_normal(n))), 1, 10)/2
    return pd.DataFrame(dict(user_id=pairs//N_ITEMS+1, item_id=pairs%N_ITEMS+1, rating=stars))

COLUMNS = 'user_id','item_id','rating'

def kept(n, folder):
    "The columns of `made` as files, made where they are not there yet"
    at = Path(folder)/f'{n}'
    if not at.exists():
        df,tmp = made(n),at.with_suffix('.tmp')
        tmp.mkdir()
        for c in COLUMNS: np.save(tmp/f'{c}.npy', df[c].to_numpy())
        tmp.rename(at)
    return at

def read(path):
    import pandas as pd
    return pd.DataFrame({c: np.load(Path(path)/f'{c}.npy') for c in COLUMNS}, copy=False)

def clocks(): return time.perf_counter(),time.process_time(),time.thread_time()

class Clock:
    "Wall seconds, processor seconds of the process and those of the calling thread"
    def __init__(self): self.start = clocks()
    def __call__(self): return dict(zip(('wall_s','cpu_s','caller_cpu_s'), (b-a for a,b in zip(self.start, clocks()))))

# what a fresh process does

def ours_ingest(path, args):
    from recfast.data.loaders import CollabDataLoaders
    CollabDataLoaders.from_df(made(2000), seed=1)
    df = read(path)
    before,clock = peak_memory_mb(),Clock()
    dls = CollabDataLoaders.from_df(df, seed=1, bs=args.bs)
    took = clock()
    report = dls.report
    return dict(from_df=took, with_repeats=clock(), report=report, peak_before_mb=before, peak_mb=peak_memory_mb())

def fastai_ingest(path, args):
    from fastai.collab import CollabDataLoaders
    CollabDataLoaders.from_df(made(2000), seed=1)
    df = read(path)
    before,clock = peak_memory_mb(),Clock()
    CollabDataLoaders.from_df(df, seed=1, bs=args.bs)
    return dict(from_df=clock(), peak_before_mb=before, peak_mb=peak_memory_mb())

def fastai_loader(path, args):
    "A pass over fastai's training loader, which trains nothing"
    from fastai.collab import CollabDataLoaders
    dls = CollabDataLoaders.from_df(read(path), seed=1, bs=args.bs)
    clock,rows = Clock(),0
    for x,_ in dls.train: rows += len(x)
    took = clock()
    return dict(loader=took, rows=rows, million_ratings_s=rows/took['wall_s']/1e6, million_ratings_a_core_s=rows/took['cpu_s']/1e6, peak_mb=peak_memory_mb())

def fitted(dls, n_epoch=1):
    "(learner, clocks of the training steps of each epoch, clocks of epochs) of one fit"
    from fastai.callback.core import Callback
    from recfast.learner import collab_learner
    steps,epochs = [],[]
    class Timed(Callback):
        order = -100
        def before_epoch(self): self.epoch_clock = Clock()
        def before_train(self): self.clock = Clock()
        def after_train(self): steps.append(self.clock())
        def after_epoch(self): epochs.append(self.epoch_clock())
    learn = collab_learner(dls, N_FACTORS, y_range=(0,5.5))
    with learn.no_bar(), learn.no_logging(): learn.fit(n_epoch, 5e-3, wd=.1, cbs=Timed(), fast='compiled')
    return learn,steps,epochs

def busy(took, threads):
    "Processor seconds of the caller and of one of the threads that share the rest: what the wall shows where nothing else runs"
    return took['caller_cpu_s']+(took['cpu_s']-took['caller_cpu_s'])/threads

def ours_epoch(path, args):
    import torch
    from recfast.data.loaders import CollabDataLoaders
    torch.set_num_threads(args.threads)
    if args.warm: fitted(CollabDataLoaders.from_df(made(3*args.bs), seed=1, bs=args.bs))
    dls = CollabDataLoaders.from_df(read(path), seed=1, bs=args.bs)
    learn,steps,epochs = fitted(dls, args.epochs)
    n_train,n = len(dls.train_ds),len(dls.train_ds)+len(dls.valid_ds)
    return dict(bs=args.bs, threads=args.threads, n_train=n_train, steps=steps, epochs=epochs, valid_loss=float(learn.recorder.values[-1][1]),
                million_ratings_s=max(n_train/o['wall_s'] for o in steps)/1e6,
                million_ratings_a_core_s=max(n_train/o['cpu_s'] for o in steps)/1e6,
                million_ratings_busy_s=max(n_train/busy(o, args.threads) for o in steps)/1e6, million_rows_s_with_validation=max(n/o['wall_s'] for o in epochs)/1e6, peak_mb=peak_memory_mb())

def ours_mapped(path, args):
    "From a parquet file through files of codes: the peak is of a process that never holds the table"
    from recfast.data.loaders import CollabDataLoaders
    before,clock = peak_memory_mb(),Clock()
    with tempfile.TemporaryDirectory(dir=Path(path)) as folder:
        dls = CollabDataLoaders.from_row_groups(Path(path)/'rows.parquet', folder, seed=1, bs=args.bs)
        took,peak = clock(),peak_memory_mb()
        learn,steps,epochs = fitted(dls)
    return dict(from_row_groups=took, peak_before_mb=before, peak_mb=peak, steps=steps, peak_with_epoch_mb=peak_memory_mb(), valid_loss=float(learn.recorder.values[-1][1]))

def rows_file(path):
    "The table as a parquet file beside its columns, in row groups of a million"
    if not (path/'rows.parquet').exists(): read(path).to_parquet(path/'rows.parquet', index=False, row_group_size=2**20)
    return path

ONE = dict(ours_ingest=ours_ingest, fastai_ingest=fastai_ingest, fastai_loader=fastai_loader, ours_epoch=ours_epoch, ours_mapped=ours_mapped)

def fresh(what, path, args, **more):
    "One of the functions above in a process of its own"
    words = [f'--{k}={v}' for k,v in {**dict(bs=args.bs[0], threads=args.threads, epochs=1, warm=1), **more}.items()]
    done = subprocess.run([sys.executable,__file__,'--one',what,'--file',str(path),*words], capture_output=True, text=True,
                          cwd=Path(__file__).parent, env={**os.environ, 'OMP_NUM_THREADS': '1'})
    res = json.loads(done.stdout.strip().splitlines()[-1]) if done.returncode==0 else dict(died=done.returncode, said=done.stderr.strip().splitlines()[-1:])
    print(what, path.name, more, res, flush=True)
    return res

# parts

def ingest(files, args):
    rows = []
    for n,path in files.items():
        rows.append(dict(n=n, system='recfast', runs=[fresh('ours_ingest', path, args) for _ in range(args.repeats)]))
        if n<=args.fastai: rows.append(dict(n=n, system='fastai', runs=[fresh('fastai_ingest', path, args)]))
    return dict(rows=rows)

def bandwidth():
    "GB in a processor second that a copy of a large array reads and writes, the best of a few"
    a = np.ones(2**27, np.float32)
    b = np.empty_like(a)
    took = []
    for _ in range(5):
        start = time.process_time()
        np.copyto(b, a)
        took.append(time.process_time()-start)
    return 2*a.nbytes/min(took)/1e9

def floor(path, bs):
    "Bytes that an epoch cannot do without: both vectors of every pair read once, three tables of every distinct row of a batch read and written"
    df,row = read(path),4*(N_FACTORS+1)
    at = np.random.default_rng(0).permutation(len(df))[:10*bs].reshape(10, -1)
    distinct = statistics.mean(len(np.unique(df[c].to_numpy()[o])) for o in at for c in COLUMNS[:2])*2
    return dict(distinct_rows_a_batch=distinct, bytes_a_rating=2*row+distinct*6*row/bs)

def epoch(files, args):
    n,path = max(files.items())
    rows = [fresh('ours_epoch', path, args, threads=t, bs=bs) for bs in args.bs for t in {1,args.threads} for _ in range(args.repeats)]
    alone = fresh('ours_epoch', path, args, warm=0)
    best = max(rows, key=lambda r: r['million_ratings_s'])
    theirs = max((o for o in files.items() if o[0]<=args.fastai), default=None)
    least,gb = floor(path, best['bs']),bandwidth()
    fastai = theirs and dict(n=theirs[0], **fresh('fastai_loader', theirs[1], args))
    busiest = max(r['million_ratings_busy_s'] for r in rows)
    share = {k: v*1e6*least['bytes_a_rating']/(gb*1e9) for k,v in (('share_of_floor',best['million_ratings_s']),('share_of_floor_busy',busiest))}
    return dict(n=n, rows=rows, fastai=fastai, peak_mb=alone['peak_mb'], best=best['million_ratings_s'], best_busy=busiest, bandwidth_gb_s=gb, **least, **share)

def mapped(files, args): return dict(rows=[dict(n=n, **fresh('ours_mapped', rows_file(path), args)) for n,path in files.items()])

def sizes(files, args):
    rows = [dict(n=n, **fresh('ours_epoch', path, args, epochs=args.epochs)) for n,path in files.items() for _ in range(args.repeats)]
    of = dict(wall_s=lambda e: e['wall_s'], cpu_s=lambda e: e['cpu_s'], busy_s=lambda e: busy(e, args.threads))
    cost = {o: {n: min(f(e) for r in rows if r['n']==n for e in r['steps'])/(.8*n)*1e9 for n in files} for o,f in of.items()}
    return dict(rows=rows, ns_a_rating=cost, most_over_least={o: max(v.values())/min(v.values()) for o,v in cost.items()})

if __name__=='__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = dict(ingest=ingest, epoch=epoch, sizes=sizes, mapped=mapped)
    p.add_argument('--part', nargs='+', choices=parts, default=list(parts))
    p.add_argument('--sizes', nargs='+', type=float, default=[1e6,5e6,25e6])
    p.add_argument('--fastai', type=float, default=5e6, help='the largest table that fastai gets')
    p.add_argument('--repeats', type=int, default=3)
    p.add_argument('--bs', type=int, nargs='+', default=[2**18,2**16])
    p.add_argument('--threads', type=int, default=os.cpu_count())
    p.add_argument('--epochs', type=int, default=3, help='of each size')
    p.add_argument('--folder', help='where the tables are kept; None: nowhere')
    p.add_argument('--warm', type=int, help=argparse.SUPPRESS)
    p.add_argument('--note', default='', help='what else ran on the machine, kept with the result')
    p.add_argument('--one', choices=ONE, help=argparse.SUPPRESS)
    p.add_argument('--file', help=argparse.SUPPRESS)
    args = p.parse_args()
    if args.one:
        args.bs = args.bs[0]
        print(json.dumps(ONE[args.one](args.file, args)))
    else:
        with tempfile.TemporaryDirectory() as tmp:
            files = {int(n): kept(int(n), args.folder or tmp) for n in sorted(args.sizes)}
            for o in args.part:
                load = [round(x, 1) for x in os.getloadavg()]
                res = parts[o](files, args)
                write_json(RESULTS/f'ingest__{o}.json', dict(res, note=args.note, load_before=load, load_after=[round(x, 1) for x in os.getloadavg()],
                                                            machine=machine(), versions={**versions(), 'numba': __import__('numba').__version__}))
