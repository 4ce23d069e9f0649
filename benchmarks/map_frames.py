"""How smoothly a map of 50,000 items moves: frames drawn over five seconds of a scripted pan in a headless Chromium.

    python benchmarks/map_frames.py                    # three runs of all items, three of a part
    python benchmarks/map_frames.py --look folder      # pictures of the map too, light and dark, wide and of a phone

The items are made: 5,000 people of 40 tastes choose 300,000 times among 50,000 items, more often the more popular one is, and implicit ALS with
16 factors learns from that. `learn.explore` writes the map, a browser without a graphics card opens it from the disk (1200 x 900 pixels),
and a circle is panned along: with everything in view (zoom 1), and with a part of it (zoom 6). A frame counts when dots, names and lines were
drawn. Requests for anything else than the file itself are counted too.
"""
import argparse,shutil,statistics,tempfile,time,warnings
from pathlib import Path

warnings.filterwarnings('ignore')
import numpy as np
import pandas as pd
from common import RESULTS,Timer,machine,versions,write_json

PAN = """async ([seconds, zoom]) => {
  const begin = performance.now(), before = map.frames
  await new Promise(done => {
    const step = () => {
      const t = (performance.now() - begin) / 1000
      if (t >= seconds) return done()
      map.move(.6 / zoom * Math.cos(t), .6 / zoom * Math.sin(t), zoom)
      requestAnimationFrame(step)
    }
    step()
  })
  return (map.frames - before) / ((performance.now() - begin) / 1000)
}"""

def made(n_users=5000, n_items=50_000, n_rows=300_000, seed=0):
    "Choices among many items, each item chosen at least once"
    rng = np.random.default_rng(seed)
    taste = np.arange(n_users)%40
    kind = rng.integers(0, 40, n_items)
    user = rng.integers(0, n_users, n_rows)
    popular = np.minimum((rng.pareto(1., n_rows)*200).astype(int), n_items-1)
    by_kind = [np.flatnonzero(kind==o) for o in range(40)]
    own = np.array([by_kind[taste[u]][p%len(by_kind[taste[u]])] for u,p in zip(user, popular)])
    item = np.where(rng.random(n_rows)<.7, own, popular)
    item[:n_items] = np.arange(n_items)
    user[:n_items] = [rng.integers(0, n_users//40)*40+k for k in kind]
    return pd.DataFrame(dict(user_id=user+1, item_id=[f'Item {i:05d} of kind {kind[i]}' for i in item])).drop_duplicates()

def write_map(folder):
    "(the map, seconds of training, of writing)"
    from recfast.data.loaders import CollabDataLoaders
    from recfast.learner import collab_learner
    from recfast.models.ials import IALS
    df = made()
    learn = collab_learner(CollabDataLoaders.implicit_from_df(df, n_neg=0, valid_pct=0), 16, arch=IALS, seed=0)
    with learn.quiet(),Timer() as fit: learn.fit(5)
    told = df.item_id[df.user_id==df.user_id.iloc[-1]].tolist()[:6]
    with Timer() as write: path = learn.explore(Path(folder)/'map.html', history=told, by='pca', word='item')
    return path,len(learn.dls.classes['item_id'])-1,fit,write

def look(browser, path, folder):
    "Pictures to look at"
    for scheme in ('light','dark'):
        for name,size in (('wide',dict(width=1200, height=900)),('phone',dict(width=390, height=800))):
            page = browser.new_page(viewport=size, color_scheme=scheme)
            page.goto(path.as_uri())
            page.mouse.move(size['width']*.5, size['height']*.55)
            page.wait_for_timeout(400)
            page.screenshot(path=Path(folder)/f'map-{name}-{scheme}.png')
            page.close()

def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument('--seconds', type=float, default=5)
    p.add_argument('--look')
    args = p.parse_args()
    from playwright.sync_api import sync_playwright
    chromium = next(filter(None, map(shutil.which, ('chromium','chromium-browser','google-chrome','chrome'))))
    with tempfile.TemporaryDirectory() as d, sync_playwright() as play:
        path,n_items,fit,write = write_map(d)
        browser = play.chromium.launch(executable_path=chromium, args=['--no-sandbox','--disable-gpu'])
        page,asked = browser.new_page(viewport=dict(width=1200, height=900)),[]
        page.on('request', lambda r: asked.append(r.url))
        start = time.perf_counter()
        page.goto(path.as_uri())
        page.wait_for_function('map.frames>0')
        opened = time.perf_counter()-start
        runs = {f'zoom {z}': [round(page.evaluate(PAN, [args.seconds, z]), 1) for _ in range(3)] for z in (1,6)}
        if args.look: look(browser, path, args.look)
        others = [o for o in asked if o!=path.as_uri() and not o.startswith('data:')]
        facts = dict(n_items=n_items, megabytes=round(path.stat().st_size/1e6, 2), seconds_to_open=round(opened, 2), browser=browser.version)
        browser.close()
    res = dict(seconds=args.seconds, frames_per_second={k: dict(runs=v, median=statistics.median(v)) for k,v in runs.items()},
               requests=len(others), **facts, cpu_seconds=dict(fit=round(fit.cpu_seconds, 1), write=round(write.cpu_seconds, 1)),
               protocol=' '.join(__doc__.split('\n\n')[2].split()), versions=versions(), machine=machine())
    print(res['frames_per_second'], facts, res['cpu_seconds'], others[:2])
    write_json(RESULTS/'map_frames.json', res)

if __name__=='__main__': main()
