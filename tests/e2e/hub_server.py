"""A Hub on loopback: the parts of the API that fetching and pushing a model use, with faults.

Content-addressed storage, branches, pull requests, tokens and gates, as far as the client
library can see them. A `Fault` is taken once for each time it is listed.
"""

import base64
import hashlib
import json
import re
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

TOKEN = "hf_LoopbackSecretToken0123456789"
CHUNK = 1 << 16


@dataclass
class Fault:
    """`action`: a status; `drop` before the answer; `drop-after` the work was done; a
    number of bytes after which a request's body is cut off."""

    method: str
    path: str
    action: int | str
    after_bytes: int = 0


@dataclass
class Repository:
    private: bool
    gated: bool = False
    commits: list = field(default_factory=list)  # (sha, files: path -> (oid, size, lfs))
    branches: dict = field(default_factory=dict)
    pulls: list = field(default_factory=list)


class Hub:
    def __init__(self):
        self.repositories, self.objects, self.faults = {}, {}, []
        self.log, self.lock, self.sent = [], threading.Lock(), {}
        self.keep_objects = True
        self.url = ""

    def add(self, name, files, *, private=False, gated=False):
        """A repository that is there from the start."""
        repository = self.repositories[name] = Repository(private, gated)
        self.commit(repository, "main", {path: self.store(data) for path, data in files.items()})
        return repository

    def store(self, data, lfs=False):
        oid = hashlib.sha256(data).hexdigest() if lfs else git_oid(data)
        self.objects[oid] = data
        return oid, len(data), lfs

    def commit(self, repository, branch, files):
        before = self.tree(repository, branch)
        sha = hashlib.sha1(f"{len(repository.commits)}{sorted(files)}".encode()).hexdigest()
        repository.commits.append((sha, {**before, **files}))
        repository.branches[branch] = sha
        return sha

    def tree(self, repository, revision):
        sha = repository.branches.get(revision, revision)
        return next((files for each, files in repository.commits if each == sha), {})

    def fault(self, method, path):
        with self.lock:
            for fault in self.faults:
                if fault.method == method and re.search(fault.path, path):
                    self.faults.remove(fault)
                    return fault
        return None

    def count(self, method, path):
        return sum(m == method and bool(re.search(path, p)) for m, p in self.log)


def git_oid(data):
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *args):
        pass

    def do_GET(self):
        self.handle_one("GET")

    def do_HEAD(self):
        self.handle_one("HEAD")

    def do_POST(self):
        self.handle_one("POST")

    def do_PUT(self):
        self.handle_one("PUT")

    def handle_one(self, method):
        path = unquote(urlsplit(self.path).path)
        self.hub.log.append((method, path))
        fault = self.hub.fault(method, path)
        self.read = 0
        self.drop_after = fault is not None and fault.action == "drop-after"
        if fault and fault.after_bytes:
            self.rfile.read(fault.after_bytes)
            return self.drop()
        if fault and fault.action == "drop":
            return self.drop()
        if fault and not self.drop_after:
            self.body()
            echo = self.headers.get("Authorization", "")
            return self.answer(fault.action, {"error": f"fault for {echo}"})
        for kind, pattern, action in ROUTES:
            found = re.fullmatch(pattern, path)
            if kind == method and found:
                return action(self, *found.groups())
        self.body()
        return self.answer(404, {"error": f"no route {method} {path}"})

    def drop(self):
        self.close_connection = True
        self.connection.close()

    def body(self):
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def json(self):
        return json.loads(self.body() or b"{}")

    def answer(self, status, value, headers=()):
        if self.drop_after:
            return self.drop()
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        for key, text in headers:
            self.send_header(key, text)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)
        return None

    def known(self):
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def refused(self, name=None):
        """Answer and return True unless the token fits what is asked for."""
        repository = self.hub.repositories.get(name)
        if self.headers.get("Authorization") and not self.known():
            self.answer(401, {"error": "Invalid username or password."})
        elif repository is None and name is not None:
            self.answer(404, {"error": "Repository not found"}, [("X-Error-Code", "RepoNotFound")])
        elif repository and repository.gated:
            self.answer(403, {"error": "gated"}, [("X-Error-Code", "GatedRepo")])
        elif repository and repository.private and not self.known():
            self.answer(401, {"error": "Repository not found"}, [("X-Error-Code", "RepoNotFound")])
        else:
            return False
        return True

    # -- writing -------------------------------------------------------------------------

    def create(self):
        asked = self.json()
        if not self.known():
            return self.answer(401, {"error": "Invalid username or password."})
        if asked["organization"] == "strangers":
            return self.answer(403, {"error": "You don't have the rights"})
        name = f"{asked['organization']}/{asked['name']}"
        if name in self.hub.repositories:
            return self.answer(409, {"error": "already there", "url": f"{self.hub.url}/{name}"})
        self.hub.repositories[name] = repository = Repository(asked.get("visibility") == "private")
        attributes = b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"
        self.hub.commit(repository, "main", {".gitattributes": self.hub.store(attributes)})
        return self.answer(200, {"url": f"{self.hub.url}/{name}"})

    def branch(self, name, revision):
        self.body()
        repository = self.hub.repositories[name]
        if revision in repository.branches:
            return self.answer(409, {"error": "branch exists"})
        repository.branches[revision] = repository.branches["main"]
        return self.answer(200, {})

    def check_card(self):
        content = self.json()["content"]
        bad = not content.startswith("---")
        errors = [{"message": "no metadata"}] if bad else []
        return self.answer(400 if bad else 200, {"errors": errors, "warnings": []})

    def preupload(self, name, revision):
        files = self.json()["files"]
        if self.refused(name):
            return None
        tree = self.hub.tree(self.hub.repositories[name], revision)
        answer = []
        for each in files:
            lfs = each["path"].endswith(".safetensors") or each["size"] > 10_000_000
            answer.append(
                {
                    "path": each["path"],
                    "uploadMode": "lfs" if lfs else "regular",
                    "shouldIgnore": False,
                    "oid": tree.get(each["path"], (None,))[0],
                }
            )
        return self.answer(200, {"files": answer})

    def batch(self, name):
        objects = []
        for each in self.json()["objects"]:
            entry = {"oid": each["oid"], "size": each["size"]}
            if each["oid"] not in self.hub.objects:
                upload = {"href": f"{self.hub.url}/lfs/{each['oid']}"}
                verify = {"href": f"{self.hub.url}/lfs-verify"}
                entry["actions"] = {"upload": upload, "verify": verify}
            objects.append(entry)
        return self.answer(200, {"transfer": "basic", "objects": objects})

    def put_object(self, oid):
        digest, kept, size = hashlib.sha256(), [], 0
        for chunk in self.chunks():
            digest.update(chunk)
            size += len(chunk)
            if self.hub.keep_objects:
                kept.append(chunk)
        if digest.hexdigest() != oid:
            return self.answer(400, {"error": "digest differs"})
        self.hub.objects[oid] = b"".join(kept)
        self.hub.sent[oid] = size
        return self.answer(200, {})

    def chunks(self):
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            while size := int(self.rfile.readline().strip() or b"0", 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            left = int(self.headers.get("Content-Length") or 0)
            while left and (chunk := self.rfile.read(min(CHUNK, left))):
                left -= len(chunk)
                yield chunk

    def verify_object(self):
        asked = self.json()
        there = asked["oid"] in self.hub.objects
        return self.answer(200 if there else 404, {})

    def make_commit(self, name, revision):
        lines = [json.loads(line) for line in self.body().splitlines() if line]
        if self.refused(name):
            return None
        repository, files = self.hub.repositories[name], {}
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = self.hub.store(base64.b64decode(value["content"]))
            elif line["key"] == "lfsFile":
                if value["oid"] not in self.hub.objects:
                    return self.answer(400, {"error": f"{value['path']} was not uploaded"})
                files[value["path"]] = (value["oid"], value["size"], True)
        sha = self.hub.commit(repository, revision, files)
        url = f"{self.hub.url}/{name}/commit/{sha}"
        return self.answer(200, {"commitUrl": url, "commitOid": sha, "success": True})

    def open_pull(self, name):
        repository, asked = self.hub.repositories[name], self.json()
        number = len(repository.pulls) + 1
        repository.pulls.append({"title": asked["title"], "status": "draft"})
        repository.branches[f"refs/pr/{number}"] = repository.branches["main"]
        return self.answer(200, {"num": number})

    def pull(self, name, number):
        made = self.hub.repositories[name].pulls[int(number) - 1]
        return self.answer(
            200,
            {
                "title": made["title"], "status": made["status"], "num": int(number),
                "author": {"name": "someone"}, "createdAt": "2026-01-01T00:00:00.000Z",
                "repo": {"name": name, "type": "model"}, "isPullRequest": True,
                "changes": {"base": "refs/heads/main"}, "filesWithConflicts": [], "events": [],
            },
        )  # fmt: skip

    def pull_status(self, name, number):
        self.hub.repositories[name].pulls[int(number) - 1]["status"] = self.json()["status"]
        event = {
            "id": "1", "type": "status-change", "createdAt": "2026-01-01T00:00:00.000Z",
            "author": {"name": "someone"}, "data": {"status": "open"},
        }  # fmt: skip
        return self.answer(200, {"newStatus": event})

    # -- reading -------------------------------------------------------------------------

    def info(self, name, revision="main"):
        if self.refused(name):
            return None
        repository = self.hub.repositories[name]
        sha = repository.branches.get(revision, revision)
        if sha not in {each for each, _ in repository.commits}:
            headers = [("X-Error-Code", "RevisionNotFound")]
            return self.answer(404, {"error": "Invalid rev id"}, headers)
        siblings = [
            {"rfilename": path, "size": size, "blobId": oid}
            for path, (oid, size, _) in self.hub.tree(repository, sha).items()
        ]
        value = {"id": name, "sha": sha, "siblings": siblings, "private": repository.private}
        return self.answer(200, value)

    def list_tree(self, name, revision):
        if self.refused(name):
            return None
        entries = []
        for path, (oid, size, lfs) in self.hub.tree(self.hub.repositories[name], revision).items():
            entry = {"type": "file", "path": path, "size": size, "oid": oid}
            if lfs:
                entry["lfs"] = {"oid": oid, "size": size, "pointerSize": 130}
            entries.append(entry)
        return self.answer(200, entries)

    def resolve(self, name, revision, path):
        if self.refused(name):
            return None
        repository = self.hub.repositories[name]
        found = self.hub.tree(repository, revision).get(path)
        if found is None:
            return self.answer(404, {}, [("X-Error-Code", "EntryNotFound")])
        sha = repository.branches.get(revision, revision)
        return self.answer(
            200, self.hub.objects[found[0]], [("ETag", f'"{found[0]}"'), ("X-Repo-Commit", sha)]
        )


NAME = r"([\w.\-]+/[\w.\-]+)"
ROUTES = [
    ("POST", r"/api/repos/create", Handler.create),
    ("POST", r"/api/validate-yaml", Handler.check_card),
    ("POST", rf"/api/models/{NAME}/branch/(.+)", Handler.branch),
    ("POST", rf"/api/models/{NAME}/preupload/(.+)", Handler.preupload),
    ("POST", rf"/{NAME}\.git/info/lfs/objects/batch", Handler.batch),
    ("PUT", r"/lfs/(\w+)", Handler.put_object),
    ("POST", r"/lfs-verify", Handler.verify_object),
    ("POST", rf"/api/models/{NAME}/commit/(.+)", Handler.make_commit),
    ("POST", rf"/api/models/{NAME}/discussions", Handler.open_pull),
    ("GET", rf"/api/models/{NAME}/discussions/(\d+)", Handler.pull),
    ("POST", rf"/api/models/{NAME}/discussions/(\d+)/status", Handler.pull_status),
    ("GET", rf"/api/models/{NAME}", Handler.info),
    ("GET", rf"/api/models/{NAME}/revision/(.+)", Handler.info),
    ("GET", rf"/api/models/{NAME}/tree/(.+)", Handler.list_tree),
    ("HEAD", rf"/{NAME}/resolve/([^/]+|refs/pr/\d+)/(.+)", Handler.resolve),
    ("GET", rf"/{NAME}/resolve/([^/]+|refs/pr/\d+)/(.+)", Handler.resolve),
]


@contextmanager
def serving():
    """A running Hub; its `url` is the endpoint."""
    hub = Hub()
    handler = type("BoundHandler", (Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
