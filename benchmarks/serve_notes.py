"""What noting lists and dealing people among models cost: requests a second of the service without either, with a log of events, and with both.

    python benchmarks/serve_notes.py --runs 5 --seconds 10
    python benchmarks/serve_notes.py --before CHECKOUT               # also the service of another checkout, of before there was a log

Bundles of MovieLens-100k (R1d's model) are served by `recfast serve`: `plain` without options, `events` with --events, `both` with --events and
--arm other=0.1 (the same model once more). 16 connections ask for the top 10 unseen of random users, each when its last answer has come. All
servers of a kind are running at once and are asked by turns, each --runs times for --seconds; medians over the runs, and each run's ratio to the
plain run of its turn. Client and servers on one machine; the processor time of a server for each request is beside what the clock says, since it hardly
depends on what else the machine does.
"""
import argparse,asyncio,contextlib,json,os,random,sys,tempfile,warnings
from pathlib import Path

warnings.filterwarnings('ignore', category=FutureWarning)
import numpy as np
from common import RESULTS,machine,versions,write_json
from serve_load import facts,free_port,load,recfast_bundle,recfast_request,running

SHELL = "import warnings; warnings.simplefilter('ignore'); from recfast.cli import app; app()"
KINDS = dict(plain=[], events=['--events','{log}'], both=['--events','{log}','--arm','{other}=0.1'])

def cpu_seconds(pid):
    "Processor time of a process so far"
    import psutil
    o = psutil.Process(pid).cpu_times()
    return o.user+o.system

def noted(folder):
    "(lists, events, rows) that a log holds"
    from recfast.events import read_events
    df = read_events(folder)
    return dict(lists=int(df.request_id.nunique()), rows=len(df), arms=df.arm.value_counts().to_dict(),
                bytes=sum(o.stat().st_size for o in Path(folder).iterdir()))

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--seconds', type=float, default=10)
    p.add_argument('--runs', type=int, default=5)
    p.add_argument('--connections', type=int, default=16)
    p.add_argument('--before', help='another checkout of recfast, whose service is asked too')
    args = p.parse_args()
    from recfast.data.datasets import ml_100k
    df = ml_100k()
    users = [int(o) for o in df.user_id.unique()]
    with tempfile.TemporaryDirectory() as tmp, contextlib.ExitStack() as stack:
        bundle = recfast_bundle(df, Path(tmp)/'main.recfast')
        other = recfast_bundle(df, Path(tmp)/'other.recfast')
        servers,runs = {},{}
        kinds = {**KINDS, **(dict(before=[]) if args.before else {})}
        for kind,options in kinds.items():
            port,env = free_port(),dict(OMP_NUM_THREADS='1')
            if kind=='before': env['PYTHONPATH'] = args.before
            options = [o.format(log=f'{tmp}/{kind}', other=other) for o in options]
            command = [sys.executable,'-c',SHELL,'serve',str(bundle),'--port',str(port),*options]
            servers[kind] = port,stack.enter_context(running(command, env, port, recfast_request(users[0])))
            asyncio.run(load(port, recfast_request, users, 3, args.connections, servers[kind][1].pid))
        order = list(servers)
        for j in range(args.runs):
            random.Random(j).shuffle(order)
            for kind in order:
                port,proc = servers[kind]
                start = cpu_seconds(proc.pid)
                got = facts(*asyncio.run(load(port, recfast_request, users, args.seconds, args.connections, proc.pid)))
                got['cpu_ms_per_request'] = round(1e3*(cpu_seconds(proc.pid)-start)/got['requests'], 4)
                del got['memory']
                runs.setdefault(kind, []).append(got)
                print(kind, got, flush=True)
        stack.close()
        logs = {kind: noted(f'{tmp}/{kind}') for kind in ('events','both')}
    def median(kind, what): return float(np.median([o[what] for o in runs[kind]]))
    def ratio(kind, to, what): return round(float(np.median([a[what]/b[what] for a,b in zip(runs[kind], runs[to])])), 4)
    pairs = [('events','plain'),('both','plain')]+([('plain','before'),('both','before')] if args.before else [])
    ratios = {f'{a}/{b}': {o: ratio(a, b, o) for o in ('requests_per_second','cpu_ms_per_request')} for a,b in pairs}
    medians = {kind: {o: round(median(kind, o), 3) for o in ('requests_per_second','p50_ms','p99_ms','cpu_ms_per_request')} for kind in runs}
    res = dict(medians=medians, ratios=ratios, logs=logs, errors=sum(o['errors'] for of in runs.values() for o in of), runs=runs,
               asked={k: v for k,v in vars(args).items() if k!='before'}, load=[round(o, 1) for o in os.getloadavg()], protocol=__doc__.strip(),
               machine=machine(), versions=versions())
    print(json.dumps(dict(medians=medians, ratios=ratios, logs=logs)), flush=True)
    write_json(RESULTS/'serve_notes.json', res)

if __name__=='__main__': main()
