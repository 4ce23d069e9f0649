"Every link inside the built site leads somewhere"
import sys
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote,urlsplit

class Page(HTMLParser):
    "The ids of a page, and what it points to"
    def __init__(self, text):
        super().__init__()
        self.ids,self.refs = set(),set()
        self.feed(text)
    def handle_starttag(self, tag, attrs):
        for k,v in attrs:
            if k in ('id','name') and v: self.ids.add(v)
            elif k in ('href','src') and v: self.refs.add(v)

@cache
def read(path): return Page(path.read_text(encoding='utf-8'))

@cache
def target(folder, path):
    "The file that a path means, or None"
    to = (folder/unquote(path)).resolve()
    return to if to.is_file() else None

def dead(
    out, # folder of the site
)->list: # 'page: link', sorted
    "Links and pictures inside the site that lead nowhere"
    found = []
    for path in sorted(Path(out).glob('*.html')):
        for ref in read(path).refs:
            url = urlsplit(ref)
            if url.scheme or url.netloc: continue
            to = target(path.parent, url.path) if url.path else path
            if not to or url.fragment and to.suffix=='.html' and unquote(url.fragment) not in read(to).ids: found.append(f'{path.name}: {ref}')
    return sorted(found)

if __name__=='__main__':
    found = dead(sys.argv[1])
    print('\n'.join(found) or 'every link leads somewhere')
    sys.exit(bool(found))
