"""RMSE over time: recfast, Surprise and Cornac on the stars of MovieLens-100k and 1M, from a frame in memory to a model that predicts.

    python benchmarks/stars_speed.py --peers-python PYTHON [--data ml-100k ml-1m] [--runs 5]

PYTHON has Surprise and Cornac (`pip install scikit-surprise cornac`). A random fifth of the rows is the test (seed 42), a random fifth of the rest
chooses: of each system's settings those that nothing of its own is both quicker and better than are trained again on all but the test, --runs times
with other seeds, and measured there once; the mean of their RMSE, the median of their time. Processor seconds of one thread, of two clocks: `whole`
from a frame in memory, with what each library makes of it first, and `fit` of the training alone. Each process has trained once before (machine code
is ready). A pair whose user or item was never trained gets what the library says of it. implicit has no model of stars, so it is not here; `frontier.py`
has its lists.
"""
import argparse,itertools,json,os,subprocess,sys,tempfile,time,warnings
from pathlib import Path

import numpy as np
import pandas as pd

SYSTEMS = { # settings that are tried
    'recfast': dict(n_factors=[5,10,20,50], bs=[512,2048], epochs=[1,2,3,5,8], lr=[1e-2,2e-2,4e-2], wd=[.1,.2,.4]),
    'Cornac': dict(k=[5,10,20,50], max_iter=[2,3,5,8,12,20,40], learning_rate=[.01,.02,.03], lambda_reg=[.02,.05]),
    'Surprise': dict(n_factors=[5,20,50], n_epochs=[2,5,10,20], lr_all=[.005,.01], reg_all=[.02,.05]),
}
FEWER = { # of the table of a million
    'recfast': dict(n_factors=[10,20,50], bs=[2048], epochs=[1,2,3,5], lr=[1e-2,2e-2], wd=[.1,.2]),
    'Cornac': dict(k=[10,20,50], max_iter=[3,5,8,12,20], learning_rate=[.01,.02], lambda_reg=[.02,.05]),
    'Surprise': dict(n_factors=[5,50], n_epochs=[2,5,10,20], lr_all=[.005,.01], reg_all=[.02]),
}
OF = dict(recfast='DotProductBias', Cornac='MF', Surprise='SVD')

def recfast(train, seed, n_factors, bs, epochs, lr, wd):
    from recfast import all as R
    t = [time.process_time()]
    dls = R.CollabDataLoaders.from_df(train, bs=bs, valid_pct=0, seed=seed)
    t.append(time.process_time())
    learn = R.collab_learner(dls, n_factors=n_factors, y_range=(.5,5.5))
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(epochs, lr, wd=wd)
    t.append(time.process_time())
    if str(learn.fast)!='compiled': raise SystemExit(f'not compiled: {learn.fast!r}')
    return t,lambda test: learn.recommender.predict(test.user_id, test.item_id, on_unknown='fallback')

def Cornac(train, seed, **settings):
    import cornac
    t = [time.process_time()]
    data = cornac.data.Dataset.from_uir(list(zip(train.user_id.tolist(), train.item_id.tolist(), train.rating.tolist())), seed=seed)
    t.append(time.process_time())
    model = cornac.models.MF(early_stop=False, num_threads=1, seed=seed, verbose=False, **settings).fit(data)
    t.append(time.process_time())
    def predict(test):
        users,items = (test[c].map(o).fillna(-1).astype(int).to_numpy() for c,o in (('user_id',data.uid_map),('item_id',data.iid_map)))
        out = model.global_mean+np.where(users<0, 0, model.u_biases[users])+np.where(items<0, 0, model.i_biases[items])
        return out+np.where((users<0)|(items<0), 0, (model.u_factors[users]*model.i_factors[items]).sum(1))
    return t,predict

def Surprise(train, seed, **settings):
    import surprise
    t = [time.process_time()]
    data = surprise.Dataset.load_from_df(train, surprise.Reader(rating_scale=(1,5))).build_full_trainset()
    t.append(time.process_time())
    model = surprise.SVD(random_state=seed, **settings).fit(data)
    t.append(time.process_time())
    return t,lambda test: np.array([model.predict(u, i).est for u,i in zip(test.user_id, test.item_id)])

def work(system, train, test, settings, seeds):
    "A line for each run: settings, seed, RMSE, seconds"
    warnings.simplefilter('ignore')
    f = globals()[system]
    f(train.iloc[:5000], 0, **settings[0])
    for how in settings:
        for seed in range(seeds):
            (a,b,c),predict = f(train, seed, **how)
            error = np.clip(predict(test), 1, 5)-test.rating.to_numpy()
            print(json.dumps(dict(settings=how, seed=seed, rmse=float(np.sqrt((error**2).mean())), whole=c-a, fit=c-b)), flush=True)

def best(runs, clock):
    "Of runs by time those that nothing is both quicker and better than"
    runs = sorted(runs, key=lambda o: (o[clock],o['rmse']))
    low = np.minimum.accumulate([o['rmse'] for o in runs])
    return [o for o,before in zip(runs, [np.inf,*low]) if o['rmse']<before]

def asked(system, python, folder, part, settings, seeds):
    "The runs of a process of its own"
    env = {**os.environ, **{o: '1' for o in ('OMP_NUM_THREADS','OPENBLAS_NUM_THREADS','MKL_NUM_THREADS')}}
    if system!='recfast': env.pop('PYTHONPATH', None)
    command = [python, __file__, '--work', system, str(folder/part), json.dumps(settings), str(seeds)]
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    if done.returncode: raise SystemExit(done.stderr)
    return [json.loads(o) for o in done.stdout.splitlines() if o.startswith('{"settings"')]

def grid(tried): return [dict(zip(tried, o)) for o in itertools.product(*tried.values())]

def averaged(runs):
    "One for each settings: the mean RMSE, the median times"
    out = []
    for _,of in itertools.groupby(runs, key=lambda o: json.dumps(o['settings'])):
        of = list(of)
        rmse = [o['rmse'] for o in of]
        out.append(dict(settings=of[0]['settings'], rmse=float(np.mean(rmse)), sd=float(np.std(rmse)), **{c: float(np.median([o[c] for o in of])) for c in ('whole','fit')}))
    return out

def above(ours, theirs, clock):
    "The points of theirs that none of ours, as quick, is as good as"
    return [dict(seconds=o[clock], rmse=o['rmse'], ours=min([x['rmse'] for x in ours if x[clock]<=o[clock]], default=None))
            for o in best(theirs, clock) if not any(x[clock]<=o[clock] and x['rmse']<=o['rmse'] for x in ours)]

def compare(name, df, args):
    "Choose on the inner part, measure on the test"
    from recfast.data.split import random_split
    df = df[['user_id','item_id','rating']].assign(rating=lambda o: o.rating.astype(float))
    train,test = (df.iloc[o].reset_index(drop=True) for o in random_split(df, .2, seed=42))
    inner,valid = (train.iloc[o].reset_index(drop=True) for o in random_split(train, .2, seed=42))
    out = {}
    with tempfile.TemporaryDirectory() as tmp:
        for part,frames in dict(inner=(inner,valid), outer=(train,test)).items():
            for kind,o in zip(('train','test'), frames): o.to_csv(Path(tmp)/f'{part}-{kind}.csv', index=False)
        for system in SYSTEMS:
            python = sys.executable if system=='recfast' else args.peers_python
            settings = grid((FEWER if name=='ml-1m' else SYSTEMS)[system])
            tried = asked(system, python, Path(tmp), 'inner', settings, 1)
            chosen = {json.dumps(o['settings']): o['settings'] for clock in ('whole','fit') for o in best(tried, clock)}
            out[system] = averaged(asked(system, python, Path(tmp), 'outer', list(chosen.values()), args.runs))
            for o in best(out[system], 'whole'): print(name, system, o, flush=True)
    behind = {clock: {o: above(out['recfast'], out[o], clock) for o in SYSTEMS if o!='recfast'} for clock in ('whole','fit')}
    print(name, 'behind', json.dumps(behind), flush=True)
    return dict(rows=len(train), test_rows=len(test), seeds=args.runs, runs=out, behind=behind)

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--peers-python', required=True)
    p.add_argument('--data', nargs='+', default=['ml-100k','ml-1m'])
    p.add_argument('--runs', type=int, default=5)
    args = p.parse_args()
    from common import RESULTS
    from recfast.data.datasets import ml_100k,ml_1m
    path = RESULTS/'stars_speed.json'
    old = json.loads(path.read_text(encoding='utf-8'))['data'] if path.exists() else {}
    for name in args.data:
        old[name] = dict(compare(name, {'ml-100k': ml_100k, 'ml-1m': ml_1m}[name](), args), load=[round(o, 1) for o in os.getloadavg()])
        save(path, old, args)

def save(path, data, args):
    "What was measured so far, with versions"
    from common import machine,versions,write_json
    asks = "from importlib.metadata import version; print(version('scikit-surprise'), version('cornac'))"
    peers = subprocess.run([args.peers_python,'-c',asks], capture_output=True, text=True).stdout.split()
    write_json(path, dict(data=data, models=OF, tried={'ml-100k': SYSTEMS, 'ml-1m': FEWER}, threads=1, protocol=__doc__.strip(), machine=machine(),
                          versions={**versions(), **dict(zip(('surprise','cornac'), peers))}))

if __name__=='__main__':
    if sys.argv[1:2]==['--work']:
        system,where,settings,seeds = sys.argv[2:]
        work(system, *(pd.read_csv(f'{where}-{o}.csv') for o in ('train','test')), json.loads(settings), int(seeds))
    else: main()
