"""The page benchmarks/experiment/exp.toml run as a whole, and again killed twice on its way: seconds, and whether the tables are the same. Lists of implicit (ALS, of
eight settings the best by validation rows) stand beside the models; they are made by a Python of its own, which --peer names (pip install implicit pandas pyarrow)"""
import argparse, json, os, shutil, subprocess, sys, tempfile, time
from pathlib import Path
from common import RESULTS, machine, versions, write_json

PAGE = Path(__file__).parent/'experiment'
KILLED_AT = 20,50 # runs that lie there when the process is killed
FILES = 'results.csv','results.tex','groups.csv','fairness.csv','exposure.csv' # what has to be the same; trials.csv and costs.csv have seconds

def start(folder, *args):
    "`recfast run` in a process of its own"
    return subprocess.Popen([sys.executable,'-W','ignore','-m','recfast.cli','run',str(folder/'exp.toml'),*args], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={**os.environ, 'COLUMNS': '160'})

def finish(p):
    said,_ = p.communicate()
    if p.returncode: raise SystemExit(said)
    return said

def children():
    "Processor seconds of all processes that have ended"
    t = os.times()
    return t.children_user+t.children_system

def timed(f):
    "(what came, wall and processor seconds)"
    since,cpu = time.perf_counter(),children()
    out = f()
    return out,round(time.perf_counter()-since, 1),round(children()-cpu, 1)

def killed(folder, out):
    "The same, killed by SIGKILL on the way and called again; how many runs lay there each time"
    lay = []
    for n in KILLED_AT:
        p = start(folder, '--out', str(out))
        while len(list((out/'runs').glob('*.json')))<n and p.poll() is None: time.sleep(.02)
        if p.poll() is not None: raise SystemExit('the run ended before it could be killed')
        p.kill()
        p.wait()
        lay.append(len(list((out/'runs').glob('*.json'))))
    return lay,finish(start(folder, '--out', str(out)))

def table(path):
    import pandas as pd
    return json.loads(pd.read_csv(path).to_json(orient='records', double_precision=6))

def main(peer, threads):
    os.environ.update({o: str(threads) for o in ('OMP_NUM_THREADS','MKL_NUM_THREADS','OPENBLAS_NUM_THREADS','NUMBA_NUM_THREADS')})
    with tempfile.TemporaryDirectory() as d:
        folder = Path(d)/'experiment'
        shutil.copytree(PAGE, folder, ignore=shutil.ignore_patterns('rows','exp','__pycache__'))
        finish(start(folder, '--write-split', str(folder/'rows')))
        made = subprocess.run([peer,str(folder/'peer.py'),str(folder/'rows')], capture_output=True, text=True, check=True).stdout.strip().splitlines()[-1]
        whole,parts = Path(d)/'whole',Path(d)/'parts'
        said,seconds,cpu = timed(lambda: finish(start(folder, '--out', str(whole))))
        print(said, f'{seconds} s, {cpu} s of the processor')
        (lay,last),_,cpu_killed = timed(lambda: killed(folder, parts))
        same = {o: (whole/o).read_bytes()==(parts/o).read_bytes() for o in FILES}
        runs = len(list((whole/'runs').glob('*.json')))
        costs = table(whole/'costs.csv')
        res = dict(page=(PAGE/'exp.toml').read_text(encoding='utf-8'), seconds=seconds, cpu_seconds=cpu, threads=threads, runs=runs, killed_at=lay, cpu_seconds_killed=cpu_killed,
            after_the_kills=next(o for o in last.splitlines() if 'runs made' in o).split('.')[0], same=same, peer=made, results=table(whole/'results.csv'),
            fairness=table(whole/'fairness.csv'), exposure=[o for o in table(whole/'exposure.csv') if o['column']=='popularity'], costs=costs,
            chosen=[o for o in table(whole/'trials.csv') if o['chosen']], protocol=(whole/'results.md').read_text(encoding='utf-8').split('\n\n')[2:5], versions=versions(), machine=machine())
        print(json.dumps({k: res[k] for k in ('seconds','cpu_seconds','runs','killed_at','after_the_kills','same','peer')}, indent=1))
        write_json(RESULTS/'experiment.json', res)

if __name__=='__main__':
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument('--peer', required=True, help='a Python that has implicit')
    p.add_argument('--threads', type=int, default=1)
    args = p.parse_args()
    main(args.peer, args.threads)
