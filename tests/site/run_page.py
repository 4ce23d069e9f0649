"usage: run_page.py NOTEBOOK [--cells]: run the fenced examples of a page in the current folder from top to bottom, with --cells the cells between them too"
import json
import re
import shlex
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from execnb.shell import CaptureShell
from typer.testing import CliRunner

FENCE = re.compile(r'^```(sh|bash|python)\n(.*?)^```', re.M|re.S)
COMMAND = re.compile(r'(?:#\| eval: false\n)?! (recfast .*)') # of some nbdev-test leaves the fresh process to this
SETUP = re.compile(r'^(python -m )?(pip install|pytest)|^nbdev-test') # CI runs these
NO_FILE = {'Six lines'} # sections on which no example builds: but for imports they are nbdev-test's alone

def examples(cell):
    "(language, code) of what a reader of a markdown cell is meant to run"
    return FENCE.findall(''.join(cell['source'])) if cell['cell_type']=='markdown' else []

def start(line):
    "A server stays until the page ends, and answers before the page goes on"
    proc = subprocess.Popen(['bash','-c',f'exec {line}'])
    for _ in range(1200): # 2 minutes: a machine may be busy
        if proc.poll() is not None: sys.exit(f'{line}: left with {proc.returncode}')
        try:
            urllib.request.urlopen('http://localhost:8000/health', timeout=5).close()
            return proc
        except OSError: time.sleep(0.1)
    proc.kill()
    sys.exit(f'{line}: no answer')

def command(line):
    "What a line of a shell prints; `recfast` runs in this process, which has imported it, the rest in a shell"
    if not line.startswith('recfast '): return subprocess.run(['bash','-ec',line], check=True, capture_output=True, text=True).stdout
    from recfast.cli import app
    res = CliRunner().invoke(app, shlex.split(line)[1:])
    if res.exit_code: sys.exit(f'{line}: left with {res.exit_code}\n{res.output}')
    return res.output

def until_the_last_example(path):
    "The cells of a notebook that an example builds on: those behind the last, and of sections that write no file, are run by nbdev-test alone"
    cells,section = json.loads(path.read_text(encoding='utf-8'))['cells'],''
    for cell in cells[:max(i for i,o in enumerate(cells) if examples(o))+1]:
        source = ''.join(cell['source'])
        if cell['cell_type']=='markdown': section = (re.findall(r'^## (.+)', source, re.M) or [section])[-1]
        elif section in NO_FILE and not source.startswith('from recfast.all import'): continue
        yield cell

def run(path, cells):
    "Every example, and the cells that nbdev-test runs before the last of them; leaves with an error at the first that fails"
    shell,servers = CaptureShell(),[]
    try:
        for cell in until_the_last_example(path):
            source = ''.join(cell['source'])
            if cells and cell['cell_type']=='code' and (asked := COMMAND.match(source)): print(command(asked[1]), flush=True)
            elif cells and cell['cell_type']=='code' and '#| eval: false' not in source:
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
                    else: print(f'$ {line}', command(line), sep='\n', flush=True)
    finally:
        for o in servers: o.kill(); o.wait()

if __name__=='__main__': run(Path(sys.argv[1]), '--cells' in sys.argv)
