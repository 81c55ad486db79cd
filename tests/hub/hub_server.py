"""A small local server with the protocol of the Hugging Face Hub, for tests.

It keeps everything in memory and has two accounts. The unmodified `huggingface_hub` uses it if
`HF_ENDPOINT` is set to `HubServer().url`.
"""

import base64
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from time import sleep  # tests may patch time.sleep
from urllib.parse import parse_qs, unquote, urlsplit

ACCOUNTS = {"hf_me": "me", "hf_other": "other"}  # token -> name
LFS_FROM = 2000  # files of at least this many bytes are uploaded separately


@dataclass
class Repository:
    private: bool
    refs: dict[str, str]
    commits: dict[str, dict[str, bytes]]
    pull_requests: int = 0

    def commit(self, revision: str) -> str | None:
        return self.refs.get(revision) or (revision if revision in self.commits else None)


@dataclass
class Fault:
    """A fault in the next requests with a matching method and path."""

    pattern: str
    status: int = 0  # status to answer with
    cut_after: int = -1  # close the connection after this many bytes of a file
    delay: float = 0.0  # seconds before answering
    times: int = 1


@dataclass
class HubServer:
    repositories: dict[str, Repository] = field(default_factory=dict)
    uploaded: dict[str, bytes] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def __post_init__(self):
        hub = self

        class Handler(_Handler):
            server_state = hub

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self):
        self._server.shutdown()
        self._server.server_close()

    def files(self, repo_id: str, revision: str = "main") -> dict[str, bytes]:
        repository = self.repositories[repo_id]
        return repository.commits[repository.commit(revision)]

    def add_files(self, repo_id: str, files: dict[str, bytes | None], private=False) -> str:
        """Commit files to the main branch; None deletes a file."""
        repository = self.repositories.setdefault(
            repo_id, Repository(private, {"main": "0" * 40}, {"0" * 40: {}})
        )
        return self.commit(repository, "main", files)

    def commit(self, repository: Repository, ref: str, files: dict[str, bytes | None]) -> str:
        now = {**repository.commits[repository.refs.get(ref, repository.refs["main"])], **files}
        oid = hashlib.sha1(f"{id(repository)} {len(repository.commits)}".encode()).hexdigest()
        repository.commits[oid] = {path: data for path, data in now.items() if data is not None}
        repository.refs[ref] = oid
        return oid


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_state: HubServer

    def log_message(self, *_):
        pass

    def do_GET(self):
        self._answer()

    do_HEAD = do_POST = do_PUT = do_GET  # noqa: N815

    def _answer(self):
        hub = self.server_state
        url = urlsplit(self.path)
        self.query = parse_qs(url.query)
        path = unquote(url.path)
        length = int(self.headers.get("Content-Length") or 0)
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            self.body = self._read_chunks()
        else:
            self.body = self.rfile.read(length)
        request = f"{self.command} {path}"
        hub.requests.append(
            request + (f" {self.headers['Range']}" if self.headers["Range"] else "")
        )
        self.cut_after = -1
        for fault in list(hub.faults):
            if re.search(fault.pattern, request):
                fault.times -= 1
                if not fault.times:
                    hub.faults.remove(fault)
                sleep(fault.delay)
                if fault.status:
                    return self._error(fault.status, "", "this is a test")
                self.cut_after = fault.cut_after
        for pattern, method in ROUTES:
            found = re.fullmatch(pattern, request)
            if found:
                return method(self, **found.groupdict())
        return self._error(404, "EntryNotFound", f"no route for {request}")

    def _read_chunks(self):
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    @property
    def account(self):
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        return ACCOUNTS.get(token)

    def _json(self, content, status=200):
        self._send(status, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def _error(self, status, code, message):
        headers = {"X-Error-Message": message, **({"X-Error-Code": code} if code else {})}
        self._send(status, json.dumps({"error": message}).encode(), headers)

    def _send(self, status, body, headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if self.cut_after >= 0:
            self.wfile.write(body[: self.cut_after])
            self.wfile.flush()
            self.close_connection = True
            self.connection.close()
        else:
            self.wfile.write(body)

    def _repository(self, repo, *, write=False):
        """Return the repository if the account has access; else send an error and return None."""
        repository = self.server_state.repositories.get(repo)
        mine = self.account == repo.split("/")[0]
        if repository is None or (repository.private and not mine):
            status = 404 if self.account else 401
            self._error(status, "RepoNotFound", "Repository not found")
        elif write and not self.account:
            self._error(401, "", "Invalid username or password.")
        elif write and not mine and "create_pr" not in self.query:
            self._error(403, "", "Forbidden: you must use a write token of the owner")
        else:
            return repository
        return None

    def _commit(self, repository, revision):
        commit = repository.commit(revision)
        if commit is None:
            self._error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return commit

    def create(self):
        if not self.account:
            return self._error(401, "", "Invalid username or password.")
        body = json.loads(self.body)
        owner = body.get("organization") or self.account
        repo = f"{owner}/{body['name']}"
        if owner != self.account:
            return self._error(403, "", f"you have no right to create a repository of {owner}")
        if repo in self.server_state.repositories:
            return self._json({"url": f"{self.server_state.url}/{repo}"}, status=409)
        private = body.get("visibility") == "private" or bool(body.get("private"))
        self.server_state.repositories[repo] = Repository(
            private, {"main": "0" * 40}, {"0" * 40: {".gitattributes": b"*.safetensors lfs\n"}}
        )
        return self._json({"url": f"{self.server_state.url}/{repo}", "name": repo})

    def who(self):
        if not self.account:
            return self._error(401, "", "Invalid username or password.")
        return self._json({"type": "user", "name": self.account, "orgs": []})

    def validate(self):
        content = json.loads(self.body)["content"]
        errors = [] if content.startswith("---\n") else [{"message": "no front matter"}]
        return self._json({"errors": errors, "warnings": []}, status=400 if errors else 200)

    def info(self, repo, revision="main"):
        repository = self._repository(repo)
        commit = repository and self._commit(repository, revision)
        if commit:
            files = [{"rfilename": path} for path in repository.commits[commit]]
            found = {"id": repo, "modelId": repo, "sha": commit, "siblings": files, "tags": []}
            self._json({**found, "private": repository.private, "downloads": 0, "likes": 0})

    def tree(self, repo, revision, folder=None):
        repository = self._repository(repo)
        commit = repository and self._commit(repository, revision)
        if commit:
            files = repository.commits[commit].items()
            self._json(
                [
                    {"type": "file", "path": path, "size": len(data), "oid": _sha1(data)}
                    for path, data in files
                    if path.startswith(folder or "")
                ]
            )

    def branch(self, repo, branch):
        repository = self._repository(repo, write=True)
        if repository is None:
            return
        if branch in repository.refs:
            self._error(409, "", "Reference already exists")
        else:
            repository.refs[branch] = repository.refs["main"]
            self._json({})

    def preupload(self, repo, revision):
        repository = self._repository(repo, write=True)
        if repository is not None and self._commit(repository, revision):
            files = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["size"] >= LFS_FROM else "regular",
                    "shouldIgnore": False,
                }
                for file in json.loads(self.body)["files"]
            ]
            self._json({"files": files})

    def batch(self, repo):
        objects = [
            {
                **wanted,
                "actions": {"upload": {"href": f"{self.server_state.url}/lfs/{wanted['oid']}"}},
            }
            for wanted in json.loads(self.body)["objects"]
        ]
        self._json({"transfer": "basic", "objects": objects})

    def upload(self, oid):
        assert hashlib.sha256(self.body).hexdigest() == oid
        self.server_state.uploaded[oid] = self.body
        self._json({})

    def commit(self, repo, revision):
        repository = self._repository(repo, write=True)
        if repository is None or not self._commit(repository, revision):
            return
        changes = {}
        for line in self.body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                changes[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                changes[value["path"]] = self.server_state.uploaded[value["oid"]]
            elif entry["key"] == "deletedFile":
                changes[value["path"]] = None
        url = f"{self.server_state.url}/{repo}"
        if "create_pr" in self.query:
            repository.pull_requests += 1
            revision = f"refs/pr/{repository.pull_requests}"
        oid = self.server_state.commit(repository, revision, changes)
        answer = {"success": True, "commitOid": oid, "commitUrl": f"{url}/commit/{oid}"}
        if revision.startswith("refs/pr/"):
            answer["pullRequestUrl"] = f"{url}/discussions/{repository.pull_requests}"
        self._json(answer)

    def resolve(self, repo, revision, path):
        repository = self._repository(repo)
        commit = repository and self._commit(repository, revision)
        if not commit:
            return
        data = repository.commits[commit].get(path)
        if data is None:
            return self._error(404, "EntryNotFound", f"Entry not found: {path}")
        headers = {
            "ETag": f'"{hashlib.sha256(data).hexdigest()}"',
            "X-Repo-Commit": commit,
            "Accept-Ranges": "bytes",
        }
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if wanted is None:
            return self._send(200, data, headers)
        start, end = int(wanted[1]), int(wanted[2] or len(data) - 1)
        headers["Content-Range"] = f"bytes {start}-{end}/{len(data)}"
        return self._send(206, data[start : end + 1], headers)


def _sha1(data):
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


REPO = r"(?P<repo>[^/]+/[^/]+)"
REVISION = r"(?P<revision>refs/pr/\d+|[^/]+)"
ROUTES = (
    (r"POST /api/repos/create", _Handler.create),
    (r"GET /api/whoami-v2", _Handler.who),
    (r"POST /api/validate-yaml", _Handler.validate),
    (rf"GET /api/models/{REPO}", _Handler.info),
    (rf"GET /api/models/{REPO}/revision/{REVISION}", _Handler.info),
    (rf"GET /api/models/{REPO}/tree/{REVISION}(/(?P<folder>.*))?", _Handler.tree),
    (rf"POST /api/models/{REPO}/branch/(?P<branch>.+)", _Handler.branch),
    (rf"POST /api/models/{REPO}/preupload/{REVISION}", _Handler.preupload),
    (rf"POST /api/models/{REPO}/commit/{REVISION}", _Handler.commit),
    (rf"POST /{REPO}\.git/info/lfs/objects/batch", _Handler.batch),
    (r"PUT /lfs/(?P<oid>\w+)", _Handler.upload),
    (rf"(GET|HEAD) /{REPO}/resolve/{REVISION}/(?P<path>.+)", _Handler.resolve),
)
