"""IALS without settings beside IALS tuned on a validation part of train, on four data sets, each tested once on all of train; one JSON"""
import warnings
from common import RESULTS, arguments, load_results, machine, run_jobs, versions, write_json
from ease_defaults import PROTOCOL, one, parts, table

FILE = RESULTS/'ials_defaults.json'
SWEEPS = 12
GRIDS = { # n_factors, alpha, l2, nu
    'ml-100k': [(k,a,l2,1.) for k in (64,128) for a,l2 in ((.05,.03),(.1,.02),(.1,.03),(.2,.015),(.2,.02),(.3,.015))],
    'ml-1m': [(128,.1,.02,1.),(128,.2,.012,1.),(128,.1,.012,1.),(128,.2,.008,1.),(192,.2,.012,1.),(192,.2,.03,.85)],
    'beauty': [(128,a,l2,1.) for a,l2 in ((.003,.03),(.006,.018),(.008,.013),(.01,.008),(.02,.008))]+[(192,.008,.013,1.)],
    'movietweetings': [(k,a,l2,1.) for k in (64,128) for a,l2 in ((.006,.04),(.01,.03),(.01,.04),(.017,.023),(.024,.018),(.1,.01))],
}

def shown(o): return dict(zip(('n_factors','alpha','l2','nu'), o), n_epoch=SWEEPS)

def run(name):
    "All rows of a data set"
    warnings.simplefilter('ignore')
    df = table(name)
    tried = []
    for s in [*map(shown, GRIDS[name]),{'n_factors': None}]:
        metrics,t,_ = one(*parts(df, True), arch='IALS', **s)
        tried.append(dict(setting=s, metrics=metrics, cpu_seconds=round(t.cpu_seconds, 2)))
        print(name, s, round(metrics['ndcg@10'], 4), round(t.cpu_seconds, 1), flush=True)
    best = max(tried[:-1], key=lambda o: o['metrics']['ndcg@10'])['setting']
    tested = {}
    for row,s in dict(popularity=dict(arch='Popularity'), tuned=dict(arch='IALS', **best), defaults=dict(arch='IALS', n_factors=None)).items():
        metrics,t,learn = one(*parts(df, False), **s)
        tested[row] = dict(setting=s, metrics=metrics, cpu_seconds=round(t.cpu_seconds, 2), seconds=round(t.seconds, 2))
    l2,alpha = learn.model.found.tolist()
    tested['defaults']['used'] = dict(n_factors=learn.model.item_factors.shape[1], alpha=alpha, l2=l2, tried=learn.model.tried)
    ratio = tested['defaults']['metrics']['ndcg@10']/tested['tuned']['metrics']['ndcg@10']
    o = dict(rows=len(df), users=int(df.user_id.nunique()), items=int(df.item_id.nunique()), tried=tried, tested=tested, ratio=ratio)
    keep(name, o)
    return f"{name}: "+', '.join(f"{k} {o['metrics']['ndcg@10']:.4f}" for k,o in tested.items())+f', ratio {ratio:.3f}'

def keep(name, o):
    "Put a data set beside the others of the file"
    old = load_results(FILE.name)
    write_json(FILE, dict(protocol=PROTOCOL, sets={**(old[0]['sets'] if old else {}), name: o}, versions=versions(), machine=machine()))

if __name__=='__main__':
    args = arguments(__doc__, datasets=list(GRIDS))
    run_jobs(run, [(o,) for o in args.datasets], args.threads)
