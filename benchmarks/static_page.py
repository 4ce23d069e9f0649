"""A recommender in one page beside the same in Python: MovieLens-100k, 50 histories, a headless Chromium that opens the page from the disk.

    python benchmarks/static_page.py

Models are trained on all rows but a random fifth (seed 42). The histories are those of 50 people drawn by a seed, up to 20 of their training
rows each, in the order of time for the model that reads one. The page answers by `answer('recommend', ...)`, the function that its own
lists come from. overlap@10 is the share of Python's ten best that are among the page's, a mean over people. Requests count everything that the
browser asked for besides the file.
"""
import shutil,tempfile,warnings

warnings.filterwarnings('ignore')
import numpy as np
from common import RESULTS,Timer,machine,versions,write_json

def learners():
    "(name, learner, are ratings told?, is an order told?)"
    from recfast.data.datasets import ml_100k
    from recfast.data.loaders import CollabDataLoaders
    from recfast.learner import collab_learner
    from recfast.losses import SoftmaxLoss
    from recfast.models.dot import DotProductBias
    from recfast.models.ease import EASE
    from recfast.models.ials import IALS
    from recfast.models.knn import ItemKNN
    from recfast.models.rules import SequentialRules
    df = ml_100k()
    rated = CollabDataLoaders.from_df(df, item_name='title', bs=256, seed=42)
    clicks = CollabDataLoaders.implicit_from_df(df.drop(columns='rating'), n_neg=0, item_name='title', bs=1024, seed=42)
    order = CollabDataLoaders.sequences_from_df(df, item_name='title', seed=42)
    yield 'DotProductBias',collab_learner(rated, 50, y_range=(0,5.5)),True,False
    for arch in (EASE,ItemKNN,IALS): yield arch.__name__,collab_learner(clicks, arch=arch),False,False
    yield 'DotProductBias, softmax',collab_learner(clicks, 32, arch=DotProductBias, loss_func=SoftmaxLoss()),False,False
    yield 'SequentialRules',collab_learner(order, arch=SequentialRules),False,True

def histories(learn, n=50, most=20, seed=0):
    "Item rows and ratings of n people"
    rows = learn.dls.interactions('train').frame()
    user,item = rows.columns[:2]
    people = np.random.default_rng(seed).choice(rows[user].unique(), n, replace=False)
    rows = rows.sort_values('timestamp', kind='stable') if 'timestamp' in rows else rows
    return [rows[rows[user]==p].tail(most) for p in people],item

def measure(browser, learn, rated, ordered, folder):
    from recfast.static_page import write_page
    with Timer() as t: path = write_page(learn, folder, word='film')
    page,asked = browser.new_page(),[]
    page.on('request', lambda r: asked.append(r.url))
    page.goto(path.as_uri())
    people,item = histories(learn)
    told = [dict(zip(o[item], o.rating)) if rated else o[item].tolist() for o in people]
    bodies = [dict(k=10, session=o) if ordered else dict(k=10, history=[dict(item_id=i, rating=o[i] if rated else 1) for i in o]) for o in told]
    script = "async all => { const t = performance.now(), out = []; for (const o of all) out.push(await answer('recommend', o)); return [out, (performance.now() - t) / all.length] }"
    lists,ms = page.evaluate(script, bodies)
    want = [learn.recommend(history=o, k=10).item_id.tolist() for o in told]
    same = [len({r['item_id'] for r in got}&set(w))/len(w) for got,w in zip(lists, want)]
    others = [o for o in asked if o!=path.as_uri() and not o.startswith('data:')]
    page.close()
    return dict(overlap_at_10=round(float(np.mean(same)), 4), lowest=round(min(same), 2), people=len(same), megabytes=round(path.stat().st_size/1e6, 2),
                ms_a_list=round(ms, 2), requests=len(others), cpu_seconds_to_write=round(t.cpu_seconds, 2))

def main():
    from playwright.sync_api import sync_playwright
    chromium = next(filter(None, map(shutil.which, ('chromium','chromium-browser','google-chrome','chrome'))))
    found = {}
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=['--no-sandbox','--disable-gpu'])
        for name,learn,rated,ordered in learners():
            with learn.quiet(): learn.fit_one_cycle(5, 5e-3 if rated else 2e-2, wd=.1)
            with tempfile.TemporaryDirectory() as d: found[name] = measure(browser, learn, rated, ordered, d)
            print(name, found[name], flush=True)
        browser.close()
    write_json(RESULTS/'static_page.json', dict(dataset='ml-100k', seed=42, pages=found, protocol=' '.join(__doc__.split('\n\n')[2].split()),
                                                versions=versions(), machine=machine()))

if __name__=='__main__': main()
