"""New models under load: lists of MovieLens-1M asked over HTTP by 16 connections while the served bundle changes.

    python benchmarks/serve_swaps.py                               # three times 60 s without and with swaps, then 100 swaps
    python benchmarks/serve_swaps.py --seconds 12 --swaps 30       # shorter; writes the same file and says so

`recfast serve FOLDER --watch` over two bundles of IALS (64 factors, 2 and 3 sweeps) on MovieLens-1M. CURRENT is rewritten every --every
seconds; top-10 lists of random users out of 300 are asked for by each connection when its last answer has come. An answer counts as right
when its status is 200, its header x-recfast-model names one of the two and its items are those that this bundle gives that user. p99 is the
median of three runs without swaps and of three with, by turns. The last run swaps as fast as the service follows, --swaps times, under one
connection; its memory is read after every swap. Client and server on one machine.
"""
import argparse,asyncio,json,os,random,subprocess,sys,tempfile,time,warnings
from pathlib import Path

warnings.filterwarnings('ignore')
import numpy as np
from common import RESULTS,machine,versions,write_json
from serve_load import Client,free_port,recfast_request,rss_mb,running

SERVE = "import sys,warnings; warnings.simplefilter('ignore'); from recfast.watch import serve_folder; serve_folder(sys.argv[1], port=int(sys.argv[2]))"
MAKE = '''
import sys,warnings; warnings.filterwarnings('ignore')
from recfast.data.datasets import ml_1m
from recfast.data.loaders import CollabDataLoaders
from recfast.learner import collab_learner
from recfast.models.ials import IALS
import recfast.bundle
dls = CollabDataLoaders.implicit_from_df(ml_1m()[['user_id','item_id']], n_neg=0, valid_pct=0)
for name,n in (('a',2),('b',3)):
    learn = collab_learner(dls, 64, arch=IALS, seed=0)
    with learn.quiet(): learn.fit(n)
    learn.save_bundle(f'{sys.argv[1]}/{name}')
'''

class Told(Client):
    "A connection that reads the model of an answer too"
    async def ask(self, request):
        status,body = await super().ask(request)
        return status,body,self.head.split('x-recfast-model:')[1].split('\r\n')[0].strip()

def expected(folder, n_users=300):
    "(users, {digest: {user: items}})"
    from recfast.bundle import load_bundle
    recs = [load_bundle(folder/o) for o in 'ab']
    users = random.Random(0).sample(recs[0].users.index.tolist(), n_users)
    out = {}
    for rec in recs:
        lists = rec.recommend(users, k=10, progress=False)
        out[rec.info['checksum'][:16]] = lists.groupby('user_id').item_id.agg(list).to_dict()
    return users,out

def name(folder, which):
    tmp = folder/'CURRENT.new'
    tmp.write_text(which)
    os.replace(tmp, folder/'CURRENT')

async def load(port, folder, users, want, seconds, connections, every=None):
    "(latencies in ms, failures, swaps seen)"
    ms,failed,models,start = [],[],[],time.perf_counter()
    async def one(seed):
        rnd,client = random.Random(seed),Told(port)
        while time.perf_counter()-start<seconds:
            user,t = rnd.choice(users),time.perf_counter()
            try:
                status,body,model = await asyncio.wait_for(client.ask(recfast_request(user)), 30)
                if status!=200 or [o['item_id'] for o in json.loads(body)]!=want[model][user]: failed.append(f'{status} {model} {body[:100]!r}')
                if not models or models[-1]!=model: models.append(model)
            except Exception as e: failed.append(repr(e)); client.streams = None
            ms.append(1e3*(time.perf_counter()-t))
    async def swap():
        j = 0
        while True:
            await asyncio.sleep(every)
            name(folder, 'ba'[j%2])
            j += 1
    swapping = asyncio.create_task(swap()) if every else None
    await asyncio.gather(*(one(j) for j in range(connections)))
    if swapping: swapping.cancel()
    return np.array(ms),failed,len(set(models))

def facts(ms, failed, n_models, seconds):
    p = {f'p{q}_ms': round(float(np.percentile(ms, q)), 1) for q in (50,99,100)}
    return dict(requests=len(ms), failed=len(failed), first_failures=failed[:3], models_seen=n_models, requests_per_second=round(len(ms)/seconds), **p)

async def many(port, folder, users, want, pid, swaps):
    "(MB after each swap, failures)"
    client,mb,failed = Told(port),[],[]
    _,_,now = await client.ask(recfast_request(users[0]))
    for j in range(swaps):
        name(folder, 'ba'[j%2])
        end = time.perf_counter()+60
        while time.perf_counter()<end:
            user = random.choice(users)
            status,body,model = await client.ask(recfast_request(user))
            if status!=200 or [o['item_id'] for o in json.loads(body)]!=want[model][user]: failed.append(f'{status} {model}')
            if model!=now: now = model; break
            await asyncio.sleep(.02)
        else: failed.append('no swap within 60 s')
        await asyncio.sleep(.2)
        mb.append(round(rss_mb(pid), 1))
    return mb,failed

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--seconds', type=float, default=60)
    p.add_argument('--every', type=float, default=5)
    p.add_argument('--connections', type=int, default=16)
    p.add_argument('--swaps', type=int, default=100)
    p.add_argument('--runs', type=int, default=3)
    args = p.parse_args()
    with tempfile.TemporaryDirectory() as tmp:
        folder = Path(tmp)
        subprocess.run([sys.executable, '-c', MAKE, tmp], check=True)
        users,want = expected(folder)
        name(folder, 'a')
        port = free_port()
        runs = dict(without=[], swapped=[])
        with running([sys.executable, '-c', SERVE, tmp, str(port)], dict(OMP_NUM_THREADS='1'), port, recfast_request(users[0])) as proc:
            asyncio.run(load(port, folder, users, want, min(5, args.seconds), args.connections))
            for _ in range(args.runs):
                for kind,every in (('without',None),('swapped',args.every)):
                    runs[kind].append(facts(*asyncio.run(load(port, folder, users, want, args.seconds, args.connections, every)), args.seconds))
                    print(kind, runs[kind][-1], flush=True)
            name(folder, 'a')
            time.sleep(10)
            mb,failed = asyncio.run(many(port, folder, users, want, proc.pid, args.swaps))
    p99 = {kind: float(np.median([o['p99_ms'] for o in of])) for kind,of in runs.items()}
    half = mb[len(mb)//2:]
    memory = dict(swaps=len(mb), failed=failed[:3], first_mb=mb[0], middle_mb=half[0], last_mb=mb[-1], largest_mb=max(mb),
                  mb_per_swap_of_second_half=round(float(np.polyfit(range(len(half)), half, 1)[0]), 3))
    bound = max(1.5*p99['without'], p99['without']+20)
    res = dict(runs=runs, p99_ms=p99, bound_ms=round(bound, 1), within=p99['swapped']<=bound, many=memory, asked=vars(args), exit_code=proc.returncode,
               load=[round(o, 1) for o in os.getloadavg()], note='the machine was shared with other work', protocol=__doc__.strip(),
               machine=machine(), versions=versions())
    print(json.dumps({k: res[k] for k in ('p99_ms','bound_ms','within','many')}), flush=True)
    write_json(RESULTS/'serve_swaps.json', res)

if __name__=='__main__': main()
