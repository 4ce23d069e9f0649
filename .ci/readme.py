"Write README.md from nbs/index.ipynb and its saved outputs; with --check only say whether it is up to date"
import json,re,sys
from pathlib import Path

root = Path(__file__).resolve().parent.parent

def output(o):
    "One cell output as markdown"
    if o['output_type']=='stream': return ''
    data = {k: ''.join(v) for k,v in o.get('data', {}).items()}
    if 'text/markdown' in data: return data['text/markdown']
    if 'text/html' in data: return re.sub(r'<style.*?</style>|^\s+', '', data['text/html'], flags=re.S|re.M) if '<table' in data['text/html'] else ''
    return f"```text\n{data['text/plain']}\n```" if 'text/plain' in data else ''

def readme():
    "The notebook as text"
    parts = []
    for c in json.loads((root/'nbs/index.ipynb').read_text(encoding='utf-8'))['cells']:
        src = ''.join(c['source'])
        if src.startswith('#| hide'): continue
        if c['cell_type']=='markdown': parts.append(re.sub(r'^(#\|.*\n)+', '', src))
        else:
            code = re.sub(r'^#\|.*\n', '', src, flags=re.M)
            parts += [*([] if '#| echo: false' in src else [f'```python\n{code}\n```']), *map(output, c['outputs'])]
    note = '<!-- made from nbs/index.ipynb by .ci/readme.py -->'
    return '\n\n'.join([note, *(p.strip() for p in parts if p.strip())])+'\n'

if __name__=='__main__':
    path,text = root/'README.md',readme()
    if '--check' not in sys.argv: path.write_text(text, encoding='utf-8')
    elif not path.exists() or path.read_text(encoding='utf-8')!=text: sys.exit('README.md differs from nbs/index.ipynb: run python .ci/readme.py')
