"Write the map of rooms in CONTRIBUTING.md from the subtitles of the notebooks; with --check only say whether it is up to date"
import json,re,sys
from pathlib import Path

root = Path(__file__).resolve().parent.parent
BEGIN,END = '<!-- made from nbs/ by .ci/rooms.py -->','<!-- end of the map -->'

def room(path):
    "A line of the table, None for a notebook that exports no module"
    cells = [''.join(o['source']) for o in json.loads(path.read_text(encoding='utf-8'))['cells']]
    module = re.search(r'^#\| *default_exp +(\S+)', '\n'.join(cells), re.M)
    if module is None: return
    subtitle = re.search(r'^> (.+)', cells[0], re.M)[1]
    return f"| [{path.name[:2]}](nbs/{path.name}) | `{module[1]}` | {subtitle} |"

def rooms(
    folder, # of notebooks
)->str: # markdown
    "The table"
    lines = [room(o) for o in sorted(Path(folder).glob('[0-9]*.ipynb'))]
    return '\n'.join(['| nbs/ | module | what lives there |', '|---|---|---|', *(o for o in lines if o)])

def with_map(
    text, # of CONTRIBUTING.md
    table, # from `rooms`
)->str:
    "The text with this table between the two marks"
    before,rest = text.split(BEGIN)
    return f'{before}{BEGIN}\n{table}\n{END}{rest.split(END)[1]}'

if __name__=='__main__':
    path = root/'CONTRIBUTING.md'
    old = path.read_text(encoding='utf-8')
    new = with_map(old, rooms(root/'nbs'))
    if '--check' not in sys.argv: path.write_text(new, encoding='utf-8')
    elif old!=new: sys.exit('the map in CONTRIBUTING.md differs from the notebooks: run python .ci/rooms.py')
