"usage: run_page.py NOTEBOOK [--cells]: run the fenced examples of a page in the current folder from top to bottom, with --cells the cells between them too"
import json
import re
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from execnb.shell import CaptureShell

FENCE = re.compile(r'^```(sh|bash|python)\n(.*?)^```', re.M|re.S)
SETUP = re.compile(r'^(python -m )?(pip install|pytest)|^nbdev-test') # CI runs these

def examples(cell):
    "(language, code) of what a reader of a markdown cell is meant to run"
    return FENCE.findall(''.join(cell['source'])) if cell['cell_type']=='markdown' else []

def start(line):
    "A server stays until the page ends, and answers before the page goes on"
    proc = subprocess.Popen(['bash','-c',f'exec {line}'])
    for _ in range(300):
        if proc.poll() is not None: sys.exit(f'{line}: left with {proc.returncode}')
        try:
            urllib.request.urlopen('http://localhost:8000/health', timeout=5).close()
            return proc
        except OSError: time.sleep(0.1)
    proc.kill()
    sys.exit(f'{line}: no answer')

def run(path, cells):
    "Every example, and every cell that nbdev-test runs; leaves with an error at the first that fails"
    shell,servers = CaptureShell(),[]
    try:
        for cell in json.loads(path.read_text(encoding='utf-8'))['cells']:
            source = ''.join(cell['source'])
            if cells and cell['cell_type']=='code' and '#| eval: false' not in source:
                shell.run(source)
                if shell.exc: sys.exit(f'{path.name}: {shell.exc!r} in\n{source}')
            for lang,code in examples(cell):
                if lang=='python':
                    shell.run(code)
                    if shell.exc: sys.exit(f'{path.name}: {shell.exc!r} in\n{code}')
                    continue
                for line in [o.strip() for part in code.replace('\\\n', ' ').splitlines() for o in part.split('&&') if o.strip()]:
                    if SETUP.search(line): continue
                    if line.startswith('recfast serve'): servers.append(start(line))
                    else: print(f'$ {line}', subprocess.run(['bash','-ec',line], check=True, capture_output=True, text=True).stdout, sep='\n', flush=True)
    finally:
        for o in servers: o.kill(); o.wait()

if __name__=='__main__': run(Path(sys.argv[1]), '--cells' in sys.argv)
