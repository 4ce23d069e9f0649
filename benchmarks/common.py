"One model x data set x seed -> one JSON file in benchmarks/results"
import argparse, json, os, platform, sys, time
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path

RESULTS = Path(__file__).parent/'results'

def versions()->dict: # package -> version
    "What ran"
    return {'python': platform.python_version(), **{o: version(o) for o in ('torch','fastai','pandas','numpy')}, 'recfast': _recfast()}

def _recfast():
    import recfast
    return recfast.__version__

def _cpu():
    "The processor's model as the system names it"
    try: lines = Path('/proc/cpuinfo').read_text(encoding='utf-8').splitlines()
    except OSError: lines = []
    return next((o.split(':', 1)[1].strip() for o in lines if o.startswith('model name')), platform.processor() or platform.machine())

def machine()->dict: # cores, cpu and system; no host name, no path
    "What it ran on"
    return dict(cores=os.cpu_count(), cpu=_cpu(), system=platform.system())

def peak_memory_mb()->float: # of this process so far
    "Largest resident size, in MB"
    import resource # not on Windows
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss # bytes on macOS, KiB elsewhere
    return round(peak/2**20 if sys.platform=='darwin' else peak/2**10, 1)

class Timer:
    "Wall and processor seconds of a `with` block; the second hardly depends on what else the machine does"
    def __enter__(self): self.start = time.perf_counter(),time.process_time(); return self
    def __exit__(self, *args): self.seconds,self.cpu_seconds = (o-s for o,s in zip((time.perf_counter(),time.process_time()), self.start))

def save_result(
    system:str, # e.g. 'R1d'
    dataset:str, # e.g. 'ml-100k'
    seed:int, # of split, order and weights
    metrics:dict, # name -> number
    t:Timer, # of training, validation after each epoch included
    protocol:str, # how it was measured, in words
    config:dict, # what was passed
    **extra # further facts
)->Path: # the file
    "Write one result, all of it or nothing"
    import torch
    res = dict(system=system, dataset=dataset, seed=seed, metrics=metrics, seconds=round(t.seconds, 3), cpu_seconds=round(t.cpu_seconds, 3),
               peak_memory_mb=peak_memory_mb(), threads=torch.get_num_threads(), protocol=protocol, config=config, **extra,
               versions=versions(), machine=machine())
    return write_json(RESULTS/f'{system}__{dataset}__seed{seed}.json', res)

def write_json(path, res:dict)->Path: # the file
    "A result as text, all of it or nothing"
    path.parent.mkdir(exist_ok=True)
    tmp = path.with_name(f'{path.name}.{os.getpid()}.tmp')
    tmp.write_text(json.dumps(res, indent=1, ensure_ascii=False)+'\n', encoding='utf-8')
    os.replace(tmp, path)
    return path

def load_results(
    pattern:str='*__seed*.json', # of file names
    folder=RESULTS, # where the files lie
)->list: # of dicts, by file name
    "The results that match"
    return [json.loads(o.read_text(encoding='utf-8')) for o in sorted(Path(folder).glob(pattern))]

def run_jobs(
    f, # called with each job's arguments in a fresh process, so that peak memory is its own
    jobs, # tuples
    threads:int=1, # of torch; at bs=64 a second one gains nothing and loses much on a busy machine
):
    "Run the jobs one after another and print what each returns"
    with ProcessPoolExecutor(1, mp_context=get_context('spawn'), max_tasks_per_child=1) as ex:
        for job in jobs: print(ex.submit(_job, f, threads, job).result(), flush=True)

def _job(f, threads, job):
    import torch
    torch.set_num_threads(threads)
    return f(*job)

def arguments(doc:str, **lists): # a parser with --threads and one option per list, its default the whole list
    "Parse the command line"
    p = argparse.ArgumentParser(description=doc)
    for name,vals in lists.items():
        p.add_argument(f'--{name}', nargs='+', type=type(vals[0]), choices=vals if isinstance(vals[0], str) else None, default=vals)
    p.add_argument('--threads', type=int, default=1)
    return p.parse_args()
