"""The service under load: top-10 lists for random users of MovieLens-100k, asked over HTTP by several connections at once.

    python benchmarks/serve_load.py --seconds 60 --minutes 10 --peers-python PATH

--minutes asks again for that long and says whether memory grows; --peers-python names the interpreter of an environment with Cornac and Flask,
whose server is then asked for the same lists, served as its documentation says (`flask run`).
"""
import argparse,asyncio,contextlib,io,json,os,random,signal,socket,subprocess,sys,tempfile,time,warnings
from pathlib import Path

warnings.filterwarnings('ignore', category=FutureWarning)
import numpy as np
from common import RESULTS,machine,versions,write_json

SERVE = "import sys,warnings; warnings.simplefilter('ignore'); from recfast.serve import serve; serve(sys.argv[1], port=int(sys.argv[2]))"
PEER = '''
import sys,cornac,pandas as pd
rows = pd.read_csv(sys.argv[1]).astype(dict(user_id=str)) # ids are text in its requests
data = cornac.data.Dataset.from_uir(rows.itertuples(index=False), seed=1)
model = cornac.models.MF(k=50, max_iter=20, learning_rate=0.01, lambda_reg=0.02, use_bias=True, seed=1, verbose=False).fit(data)
print(cornac.__version__, model.save(sys.argv[2], save_trainset=True))
'''

def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]

def rss_mb(pid):
    "Resident size of a process and its children, in MB"
    import psutil
    p = psutil.Process(pid)
    return sum(o.memory_info().rss for o in [p,*p.children(recursive=True)])/2**20

class Client:
    "One connection of a bare HTTP/1.1 client: the two cores are for the server"
    def __init__(self, port): self.port,self.streams = port,None

    async def ask(self, request):
        "(status, body)"
        if self.streams is None: self.streams = await asyncio.open_connection('127.0.0.1', self.port)
        read,write = self.streams
        write.write(request)
        self.head = head = (await read.readuntil(b'\r\n\r\n')).decode('latin-1').lower()
        length = int(head.split('content-length:')[1].split('\r\n')[0])
        body = await read.readexactly(length)
        if 'connection: close' in head or head.startswith('http/1.0'): write.close(); self.streams = None
        return int(head.split()[1]),body

def recfast_request(user, k=10):
    body = json.dumps(dict(user_ids=user, k=k)).encode()
    return b'POST /recommend HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s'%(len(body), body)

def cornac_request(user, k=10): return f'GET /recommend?uid={user}&k={k}&remove_seen=true HTTP/1.1\r\nhost: x\r\n\r\n'.encode()

def n_items(body):
    "How many items an answer of either server lists"
    o = json.loads(body)
    return len(o['recommendations'] if isinstance(o, dict) else o)

async def load(port, request, users, seconds, connections, pid, every=5.):
    "Ask for `seconds`; latencies in ms, errors, and (second, MB) of the server"
    ms,errors,memory,start = [],[],[],time.perf_counter()
    async def one(seed):
        rnd,client = random.Random(seed),Client(port)
        while time.perf_counter()-start<seconds:
            t = time.perf_counter()
            try:
                status,body = await asyncio.wait_for(client.ask(request(rnd.choice(users))), 30)
                if status!=200 or n_items(body)!=10: errors.append(f'{status}: {body[:200]!r}')
            except (OSError,asyncio.TimeoutError,asyncio.IncompleteReadError) as e: errors.append(repr(e)); client.streams = None
            ms.append(1e3*(time.perf_counter()-t))
    async def watch():
        while True:
            memory.append((time.perf_counter()-start, rss_mb(pid)))
            await asyncio.sleep(every)
    watcher = asyncio.create_task(watch())
    await asyncio.gather(*(one(j) for j in range(connections)))
    watcher.cancel()
    return np.array(ms),errors,memory,time.perf_counter()-start

def memory_facts(memory):
    "After the first fifth, in which pools and caches fill"
    t,mb = np.array(memory[len(memory)//5:]).T
    slope = float(np.polyfit(t/60, mb, 1)[0]) if len(t)>2 else None
    sizes = {k: round(float(v), 1) for k,v in dict(start_mb=mb[0], end_mb=mb[-1], largest_mb=mb.max()).items()}
    return dict(sizes, mb_per_minute=None if slope is None else round(slope, 3), samples=len(t))

def facts(ms, errors, memory, took):
    p = {f'p{q}_ms': round(float(np.percentile(ms, q)), 2) for q in (50,90,99,100)}
    return dict(requests=len(ms), errors=len(errors), first_errors=errors[:3], seconds=round(took, 1), requests_per_second=round(len(ms)/took, 1), **p,
                memory=memory_facts(memory))

@contextlib.contextmanager
def running(command, env, port, request):
    "A server as a process that answers"
    proc = subprocess.Popen(command, env={**os.environ, **env}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(3000):
            if proc.poll() is not None: raise SystemExit(f'the server ended with {proc.returncode}: {command}')
            try:
                if asyncio.run(Client(port).ask(request))[0]==200: break
            except OSError: time.sleep(0.1)
        yield proc
    finally:
        proc.send_signal(signal.SIGTERM)
        try: proc.wait(30)
        except subprocess.TimeoutExpired: proc.kill(); proc.wait()

def measure(name, command, env, port, request, users, args, seconds=None):
    "Load one server and print what came of it"
    seconds = seconds or args.seconds
    with running(command, env, port, request(users[0])) as proc:
        asyncio.run(load(port, request, users, min(5, seconds), args.connections, proc.pid)) # warm up
        out = facts(*asyncio.run(load(port, request, users, seconds, args.connections, proc.pid)))
    print(name, json.dumps(out), flush=True)
    return dict(out, exit_code=proc.returncode)

def recfast_bundle(df, path):
    "R1d's model in a bundle"
    from recfast.data.loaders import CollabDataLoaders
    from recfast.learner import collab_learner
    import recfast.bundle # noqa: F401 (save_bundle)
    learn = collab_learner(CollabDataLoaders.from_df(df, item_name='title', bs=1024, seed=42, valid_pct=0), n_factors=50, y_range=(0,5.5))
    with learn.no_bar(), learn.no_logging(), contextlib.redirect_stdout(io.StringIO()): learn.fit_one_cycle(5, 5e-3, wd=0.1)
    return learn.save_bundle(path)

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--seconds', type=float, default=60)
    p.add_argument('--minutes', type=float, default=0, help='then another run this long, for memory')
    p.add_argument('--connections', type=int, default=16)
    p.add_argument('--threads', type=int, default=1, help='OMP_NUM_THREADS of the servers')
    p.add_argument('--peers-python', help='interpreter with Cornac and Flask')
    p.add_argument('--out', default=RESULTS/'serve_load.json', type=Path)
    args = p.parse_args()
    from recfast.data.datasets import ml_100k
    df = ml_100k()
    users,env,res = [int(o) for o in df.user_id.unique()],dict(OMP_NUM_THREADS=str(args.threads)),{}
    with tempfile.TemporaryDirectory() as tmp:
        port = free_port()
        command = [sys.executable, '-c', SERVE, str(recfast_bundle(df, Path(tmp)/'b.recfast')), str(port)]
        res['recfast'],again = measure('recfast', command, env, port, recfast_request, users, args),(command, env, port)
        if args.peers_python:
            df.drop_duplicates(['user_id','title'])[['user_id','title','rating']].to_csv(f'{tmp}/rows.csv', index=False)
            made = subprocess.run([args.peers_python, '-c', PEER, f'{tmp}/rows.csv', f'{tmp}/peer'], capture_output=True, text=True)
            if made.returncode: raise SystemExit(made.stderr)
            version,path = made.stdout.split('\n')[-2].split(' ', 1)
            port = free_port()
            env = dict(env, FLASK_APP='cornac.serving.app', MODEL_PATH=path.strip(), MODEL_CLASS='cornac.models.MF', PYTHONPATH='')
            command = [args.peers_python, '-m', 'flask', 'run', '--host', '127.0.0.1', '--port', str(port)]
            res['cornac'] = dict(measure('cornac', command, env, port, cornac_request, users, args), version=version)
        if args.minutes: res['recfast_long'] = measure('recfast', *again, recfast_request, users, args, 60*args.minutes)
    protocol = (f'{args.connections} connections ask for the top 10 unseen of random MovieLens-100k users, each when its last answer has come; '
                'client and server on one machine; Cornac by flask run, as its documentation shows')
    facts = dict(protocol=protocol, connections=args.connections, threads=args.threads, machine=machine(), versions=versions())
    write_json(args.out, {**res, **facts})

if __name__=='__main__': main()
