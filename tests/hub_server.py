"""A server that speaks the interface of the Hugging Face Hub, as far as models need it."""

import base64
import contextlib
import hashlib
import http.server
import json
import re
import threading
from urllib.parse import unquote, urlsplit

import yaml

LARGE = (".h5", ".keras", ".onnx", ".pb", "data-00000-of-00001")


class Hub:
    """Repositories with their commits, and the requests that came.

    Attributes:
        commits: files by name of each commit, in order, of each repository.
        faults: paths of files whose download fails.
        refuse: status of the answer to a commit, or 0.
        requests: method and path of each request.
    """

    def __init__(self):
        self.commits = {}
        self.blobs = {}
        self.faults = set()
        self.refuse = 0
        self.requests = []

    def put(self, repo, files):
        """Adds a commit, as a user with git would, and returns its hash."""
        commits = self.commits.setdefault(repo, {})
        name = hashlib.sha1(f"{repo}{len(commits)}".encode()).hexdigest()
        commits[name] = dict(files)
        return name

    def head(self, repo):
        """Returns the newest commit and its files."""
        return list(self.commits[repo].items())[-1]

    def at(self, repo, revision):
        """Returns the commit of a revision and its files; None if there is none."""
        if revision in ("main", None):
            return self.head(repo)
        files = self.commits[repo].get(revision)
        return None if files is None else (revision, files)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        """Logs nothing."""

    @property
    def hub(self):
        return self.server.hub

    def body(self):
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            found = b""
            while size := int(self.rfile.readline(), 16):
                found += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return found
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def answer(self, status, content=b"", **headers):
        if not isinstance(content, bytes):
            content = json.dumps(content).encode()
            headers["Content-Type"] = "application/json"
        self.send_response(status)
        for name, value in {"Content-Length": len(content), **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def missing(self, what):
        self.answer(404, {"error": what}, X_Error_Code=what)

    def found(self, repo, revision):
        """Returns what a revision of a repository holds, or answers that there is none."""
        if repo not in self.hub.commits:
            self.missing("RepoNotFound")
            return None
        at = self.hub.at(repo, revision)
        if at is None:
            self.missing("RevisionNotFound")
        return at

    def handle_one(self):
        path = unquote(urlsplit(self.path).path)
        body = self.body()
        self.hub.requests.append(f"{self.command} {path}")
        for method, pattern, action in ROUTES:
            if (match := re.fullmatch(pattern, path)) and self.command in method:
                action(self, body, *match.groups())
                return
        self.missing("NotFound")

    do_GET = do_HEAD = do_POST = do_PUT = handle_one  # noqa: N815

    def create(self, body):
        about = json.loads(body)
        repo = f"{about['organization']}/{about['name']}"
        url = f"{self.server.address}/{repo}"
        if repo in self.hub.commits:
            self.answer(409, {"error": "You already created this model repo", "url": url})
            return
        self.hub.put(repo, {".gitattributes": b""})
        self.answer(200, {"url": url, "name": repo, "id": repo})

    def validate(self, body):
        text = json.loads(body)["content"]
        yaml.safe_load(text.split("---\n")[1])
        self.answer(200, {"errors": [], "warnings": []})

    def info(self, body, repo, revision=None):
        if at := self.found(repo, revision):
            siblings = [{"rfilename": name} for name in at[1]]
            self.answer(200, {"id": repo, "sha": at[0], "private": False, "siblings": siblings})

    def tree(self, body, repo, revision):
        if at := self.found(repo, revision):
            entries = []
            for name, content in at[1].items():
                blob = hashlib.sha1(content).hexdigest()
                entry = {"type": "file", "path": name, "size": len(content), "oid": blob}
                if name.endswith(LARGE):
                    sha = hashlib.sha256(content).hexdigest()
                    entry["lfs"] = {"oid": sha, "size": len(content), "pointerSize": 134}
                entries.append(entry)
            self.answer(200, entries)

    def preupload(self, body, repo, revision):
        files = [
            {
                "path": each["path"],
                "uploadMode": "lfs" if each["path"].endswith(LARGE) else "regular",
                "shouldIgnore": False,
                "oid": None,
            }
            for each in json.loads(body)["files"]
        ]
        self.answer(200, {"files": files})

    def batch(self, body, repo):
        objects = [
            {
                **each,
                "actions": {"upload": {"href": f"{self.server.address}/lfs/{each['oid']}"}},
            }
            for each in json.loads(body)["objects"]
        ]
        self.answer(200, {"transfer": "basic", "objects": objects})

    def upload(self, body, oid):
        matches = hashlib.sha256(body).hexdigest() == oid
        if matches:
            self.hub.blobs[oid] = body
        self.answer(200 if matches else 400)

    def commit(self, body, repo, revision):
        if self.hub.refuse:
            self.answer(self.hub.refuse, {"error": "refused"})
            return
        parent, files = self.hub.head(repo)
        files = dict(files)
        for line in body.decode().splitlines():
            entry = json.loads(line)
            value = entry["value"]
            match entry["key"]:
                case "header":
                    if value.get("parentCommit", parent) != parent:
                        self.answer(412, {"error": "the branch moved"})
                        return
                case "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                case "lfsFile":
                    files[value["path"]] = self.hub.blobs[value["oid"]]
                case "deletedFile":
                    del files[value["path"]]
        name = self.hub.put(repo, files)
        self.answer(
            200, {"commitUrl": f"{self.server.address}/{repo}/commit/{name}", "commitOid": name}
        )

    def resolve(self, body, repo, revision, name):
        at = self.found(repo, revision)
        if at is None:
            return
        if name not in at[1]:
            self.missing("EntryNotFound")
        elif name in self.hub.faults and self.command == "GET":
            self.answer(500, {"error": "a fault that the test asked for"})
        else:
            content = at[1][name]
            etag = hashlib.sha256(content).hexdigest()
            self.answer(200, content, ETag=f'"{etag}"', X_Repo_Commit=at[0])


REPO = r"([\w.-]+/[\w.-]+)"
ROUTES = [
    ("POST", "/api/repos/create", Handler.create),
    ("POST", "/api/validate-yaml", Handler.validate),
    ("GET", rf"/api/models/{REPO}/revision/(.+)", Handler.info),
    ("GET", rf"/api/models/{REPO}/tree/([^/]+)", Handler.tree),
    ("POST", rf"/api/models/{REPO}/preupload/([^/]+)", Handler.preupload),
    ("POST", rf"/api/models/{REPO}/commit/([^/]+)", Handler.commit),
    ("GET", rf"/api/models/{REPO}", Handler.info),
    ("POST", rf"/{REPO}\.git/info/lfs/objects/batch", Handler.batch),
    ("PUT", "/lfs/([0-9a-f]{64})", Handler.upload),
    ("GET HEAD", rf"/{REPO}/resolve/([^/]+)/(.+)", Handler.resolve),
]


@contextlib.contextmanager
def serving():
    """Runs the server in a thread and yields the `Hub`, whose `address` is its own."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.hub = Hub()
    server.hub.address = server.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server.hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
