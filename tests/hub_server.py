"A small service that speaks as the Hugging Face Hub does: repositories, commits, large files beside them, and files at a revision"
import base64
import contextlib
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

def sha256(data): return hashlib.sha256(data).hexdigest()
def git_oid(data): return hashlib.sha1(b'blob %d\0'%len(data)+data).hexdigest()

class Repo:
    "Commits of {name: (bytes, is it a large file?)}, the newest last"
    def __init__(self, private): self.private,self.commits = private,[(hashlib.sha1(b'first').hexdigest(),{'.gitattributes': (b'', False)})]
    def at(self, revision):
        if revision in ('main',None): return self.commits[-1]
        return next((o for o in self.commits if o[0]==revision), None)

class Hub:
    "What a service holds, and what came in"
    def __init__(self): self.repos,self.large,self.log,self.sent,self.sizes,self.token,self.told_cdn = {},{},[],[],{},None,[]
    def commit(self, repo, files, gone=()):
        old = self.repos[repo].commits[-1][1]
        new = {k: v for k,v in old.items() if k not in gone} | files
        oid = hashlib.sha1(json.dumps([len(self.repos[repo].commits),*sorted((k,sha256(v[0])) for k,v in new.items())]).encode()).hexdigest()
        self.repos[repo].commits.append((oid,new))
        return oid
    def put(self, repo, files, private=True):
        "A repository as somebody else may have made it; the hash of its commit"
        self.repos.setdefault(repo, Repo(private))
        return self.commit(repo, {name: (data,name.endswith(('.safetensors','.parquet'))) for name,data in files.items()}, tuple(self.repos[repo].commits[-1][1]))

class Handler(BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def log_message(self, *args): pass
    @property
    def hub(self): return self.server.hub

    def answer(self, status=200, body=b'', head=None, **headers):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for k,v in {'Content-Length': str(len(data)), **(head or {}), **headers}.items(): self.send_header(k.replace('_', '-'), v)
        self.end_headers()
        if self.command!='HEAD': self.wfile.write(data)

    def body(self):
        data = self.rfile.read(int(self.headers.get('Content-Length') or 0))
        self.hub.sent.append(data)
        return data

    def repo(self, name):
        "The repository, or None after an answer as the Hub gives it for one that is not there or not open"
        repo = self.hub.repos.get(name)
        allowed = repo and (not repo.private or self.hub.token is None or self.headers.get('authorization')==f'Bearer {self.hub.token}')
        if not allowed: self.answer(404, {'error': 'Repository not found'}, X_Error_Code='RepoNotFound', X_Error_Message='Repository not found')
        return repo if allowed else None

    def route(self):
        path = urlsplit(self.path).path
        self.hub.log.append((self.command,path))
        return [unquote(o) for o in path.strip('/').split('/')]

    def do_HEAD(self): self.files(self.route())
    def do_GET(self):
        parts = self.route()
        if parts[0]=='cdn':
            self.hub.told_cdn.append(self.headers.get('authorization'))
            return self.answer(200, self.hub.large[parts[1]], ETag=f'"{parts[1]}"')
        if parts[:2]==['api','models']: return self.info(parts)
        self.files(parts)

    def info(self, parts):
        repo = self.repo('/'.join(parts[2:4]))
        if repo is None: return
        oid,files = repo.commits[-1]
        self.answer(200, dict(id='/'.join(parts[2:4]), modelId='/'.join(parts[2:4]), sha=oid, private=repo.private, tags=[], siblings=[dict(rfilename=o) for o in files]))

    def files(self, parts):
        "owner/name/resolve/revision/file"
        repo = self.repo('/'.join(parts[:2]))
        if repo is None: return
        found = repo.at(parts[3])
        if found is None: return self.answer(404, {'error': 'Invalid rev id'}, X_Error_Code='RevisionNotFound', X_Error_Message='Invalid rev id')
        oid,files = found
        name = '/'.join(parts[4:])
        if name not in files: return self.answer(404, {'error': 'Entry not found'}, X_Error_Code='EntryNotFound', X_Error_Message='Entry not found', X_Repo_Commit=oid)
        data,large = files[name]
        size = self.hub.sizes.get(name, len(data))
        if large:
            self.hub.large[sha256(data)] = data
            where = f'http://localhost:{self.server.server_address[1]}/cdn/{sha256(data)}' # another host, which gets no token
            return self.answer(302, b'', X_Repo_Commit=oid, X_Linked_Size=str(size), X_Linked_Etag=f'"{sha256(data)}"', Location=where, ETag=f'"{git_oid(data)}"')
        self.answer(200, data, {'Content-Length': str(size)} if self.command=='HEAD' else None, X_Repo_Commit=oid, ETag=f'"{git_oid(data)}"')

    def do_PUT(self):
        parts = self.route()
        data = self.body()
        if sha256(data)!=parts[1]: return self.answer(422, {'error': 'other bytes'})
        self.hub.large[parts[1]] = data
        self.answer()

    def do_POST(self):
        parts = self.route()
        data = self.body()
        if parts[:3]==['api','repos','create']: return self.create(json.loads(data))
        if parts[:2]==['api','validate-yaml']: return self.answer(200, self.yaml(json.loads(data)['content']))
        if parts[-1]=='batch': return self.batch('/'.join(parts[:2]).removesuffix('.git'), json.loads(data))
        if parts[0]=='verify': return self.answer(200 if json.loads(data)['oid'] in self.hub.large else 404)
        repo = self.repo('/'.join(parts[2:4]))
        if repo is None: return
        if parts[4]=='preupload':
            files = [dict(path=o['path'], uploadMode='lfs' if o['path'].endswith(('.safetensors','.parquet')) else 'regular', shouldIgnore=False) for o in json.loads(data)['files']]
            return self.answer(200, dict(files=files))
        self.commit('/'.join(parts[2:4]), [json.loads(o) for o in data.splitlines()])

    def create(self, o):
        name = f"{o['organization']}/{o['name']}"
        there = name in self.hub.repos
        if not there: self.hub.repos[name] = Repo(o.get('visibility')=='private' or bool(o.get('private')))
        self.answer(409 if there else 200, dict(url=f'http://{self.headers["Host"]}/{name}', error='You already created this model repo'))

    def yaml(self, text):
        import yaml
        try: told = yaml.safe_load(text.split('---')[1])
        except Exception as e: return dict(errors=[dict(message=str(e))])
        return dict(errors=[], warnings=[] if isinstance(told, dict) else [dict(message='no metadata')])

    def batch(self, repo, o):
        if self.repo(repo) is None: return
        here = f'http://{self.headers["Host"]}'
        def asked(oid): return dict(upload=dict(href=f'{here}/put/{oid}'), verify=dict(href=f'{here}/verify'))
        objects = [dict(oid=f['oid'], size=f['size'], **({} if f['oid'] in self.hub.large else dict(actions=asked(f['oid'])))) for f in o['objects']]
        self.answer(200, dict(transfer='basic', objects=objects), Content_Type='application/vnd.git-lfs+json')

    def commit(self, repo, steps):
        files,gone = {},[]
        for o in steps:
            v = o['value']
            if o['key']=='file': files[v['path']] = base64.b64decode(v['content']),False
            elif o['key']=='lfsFile': files[v['path']] = self.hub.large[v['oid']],True
            elif o['key']=='deletedFile': gone.append(v['path'])
        oid = self.hub.commit(repo, files, gone)
        self.answer(200, dict(commitUrl=f'http://{self.headers["Host"]}/{repo}/commit/{oid}', commitOid=oid, success=True))

@contextlib.contextmanager
def hub_server():
    "(a `Hub`, its address)"
    server = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    server.hub,server.daemon_threads = Hub(),True
    thread = threading.Thread(target=server.serve_forever, kwargs=dict(poll_interval=.02), daemon=True)
    thread.start()
    try: yield server.hub,f'http://127.0.0.1:{server.server_address[1]}'
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
