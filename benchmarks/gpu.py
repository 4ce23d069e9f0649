"""Twenty-five million ratings on an accelerator: the dot product of chapter 8 by the batches of the loader, all of it on the device.

    python benchmarks/gpu.py                                   # an accelerator
    python benchmarks/gpu.py --device cpu --n 2e5 --bs 16384   # the same steps, to see that they run

The table is that of ingest.py. Each row is of one fit of DotProductBias (50 factors) after one on a small table, timed between the
events of the device, by batch size: ratings a second of the training steps, the peak of the memory of the device, the validation loss. `ranked` times
the lists of all users.
"""
import argparse,time,warnings
from pathlib import Path

warnings.filterwarnings('ignore')
from common import RESULTS,machine,versions,write_json
from ingest import N_FACTORS,kept,made,read

def synced(device):
    "The time when the device has done all it was given"
    import torch
    if device.type=='cuda': torch.cuda.synchronize(device)
    return time.perf_counter()

def fitted(dls, n_epoch, device):
    "(learner, seconds of the training steps of each epoch) of one fit"
    from fastai.callback.core import Callback
    from recfast.learner import collab_learner
    steps = []
    class Timed(Callback):
        order = -100
        def before_train(self): self.start = synced(device)
        def after_train(self): steps.append(synced(device)-self.start)
    learn = collab_learner(dls, N_FACTORS, y_range=(0,5.5))
    with learn.no_bar(), learn.no_logging(): learn.fit(n_epoch, 5e-3, wd=.1, cbs=Timed())
    return learn,steps

def one(df, bs, n_epoch, device):
    "One row of the result"
    import torch
    from recfast.data.loaders import CollabDataLoaders
    fitted(CollabDataLoaders.from_df(made(3*bs), seed=1, bs=bs, device=device), 1, device)
    start = time.perf_counter()
    dls = CollabDataLoaders.from_df(df, seed=1, bs=bs, device=device)
    built = time.perf_counter()-start
    learn,steps = fitted(dls, n_epoch, device)
    peak = torch.cuda.max_memory_allocated(device)/2**20 if device.type=='cuda' else None
    return dict(bs=bs, built_s=built, steps_s=steps, million_ratings_s=len(dls.train_ds)/min(steps)/1e6, loop=str(learn.fast.loop),
                why=learn.fast.why, peak_mb=peak, valid_loss=float(learn.recorder.values[-1][1])),learn

def ranked(learn, device, k=10):
    "Seconds of the lists of all users"
    start = synced(device)
    n = len(learn.recommend(k=k, progress=False))
    return dict(users=n//k, seconds=synced(device)-start)

if __name__=='__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--n', type=float, default=25e6, help='ratings')
    p.add_argument('--bs', type=int, nargs='+', default=[2**14,2**16,2**18,2**20])
    p.add_argument('--epochs', type=int, default=3)
    p.add_argument('--device', default='cuda')
    p.add_argument('--folder', type=Path, help='where the table is kept; None: nowhere')
    args = p.parse_args()
    import torch
    device = torch.device(args.device)
    df = read(kept(int(args.n), args.folder)) if args.folder else made(int(args.n))
    rows = []
    for bs in args.bs:
        row,learn = one(df, bs, args.epochs, device)
        rows.append(row)
        print(row, flush=True)
    name = torch.cuda.get_device_name(device) if device.type=='cuda' else 'cpu'
    res = dict(n=int(args.n), device=name, factors=N_FACTORS, rows=rows, best=max(o['million_ratings_s'] for o in rows), ranked=ranked(learn, device),
               versions=versions(), machine=machine())
    print({k: res[k] for k in ('device','best','ranked')})
    if device.type=='cuda': print(write_json(RESULTS/'gpu.json', res))
