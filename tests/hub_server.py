"""A small Hub on the loopback address; hub_client.py has its clients.

The server implements the parts of the Hub that huggingface-hub and datasets use: repositories of models and data sets at commits, ranges,
gates, private repositories, and uploads through git-lfs. It is also the proxy of its clients, so it sees every other host they ask for.
"""

import base64
import contextlib
import fnmatch
import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

TOKEN = "hf_of_a_user"
LARGE = ("*.safetensors", "*.parquet")  # stored by git-lfs


@dataclass
class Repository:
    """commits: (sha, files), the last one is main's head. readers: tokens that may read its files; None lets everybody."""

    private: bool = False
    gated: bool = False
    readers: set[str] | None = None
    commits: list[tuple[str, dict[str, bytes]]] = field(default_factory=list)
    tags: dict[str, str] = field(default_factory=dict)

    def commit(self, files: dict[str, bytes], gone: Sequence[str] = ()) -> str:
        """Add a commit with these files, which are added to the previous ones or replace them, and without those that are gone."""
        whole = {**(self.commits[-1][1] if self.commits else {}), **files}
        for name in gone:
            del whole[name]
        sha = hashlib.sha1(repr((len(self.commits), sorted((name, len(c)) for name, c in whole.items()))).encode()).hexdigest()
        self.commits.append((sha, whole))
        return sha

    @property
    def head(self) -> str:
        return self.commits[-1][0]

    def at(self, revision: str) -> tuple[str, dict[str, bytes]] | None:
        wanted = self.head if revision in {"main", "refs/convert/parquet"} and self.commits else self.tags.get(revision, revision)
        return next((commit for commit in self.commits if commit[0] == wanted), None)


@dataclass(frozen=True)
class Asked:
    """A request to the server. range: the requested bytes, or ''."""

    method: str
    path: str
    range: str
    token: str


@dataclass
class Fault:
    """A fault for requests that match `METHOD PATH`."""

    pattern: str
    status: int | None = None
    """This status instead of an answer, with these `headers`."""
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None
    """The connection is cut after so many bytes."""
    silent: bool = False
    """The request is accepted and never answered."""
    drip: float | None = None
    """The content comes byte by byte, with so many seconds between two."""
    content: bytes | None = None
    """Another content with status 200, and without the Hub's headers for a HEAD request."""
    then: Callable[[], object] | None = None
    """Called after the answer."""
    after: int = 0
    """How many matching requests are answered correctly first."""
    times: float = float("inf")
    """How many requests have the fault."""

    def strikes(self, request: str) -> bool:
        """Whether a request has the fault; counts it."""
        if not fnmatch.fnmatch(request, self.pattern):
            return False
        self.after -= 1
        if self.after >= 0 or self.times <= 0:
            return False
        self.times -= 1
        return True


class HubServer:
    """`hub.repository(...)` makes repositories; `hub.asked` lists all requests, `hub.strangers` the other hosts that clients asked for."""

    def __init__(self) -> None:
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.large: dict[tuple[str, str], bytes] = {}
        """What git-lfs has: (repository, sha256) -> content."""
        self.asked: list[Asked] = []
        self.strangers: list[str] = []
        self.faults: list[Fault] = []
        self.ended = Event()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self.server.daemon_threads = True

    def __enter__(self) -> "HubServer":
        Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self.server.shutdown()
        self.server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def repository(self, name: str, files: dict[str, bytes] | Path, kind: str = "models", **access: Any) -> Repository:
        """Make a repository with one commit. files: by their paths, or a folder."""
        made = self.repositories[kind, name] = Repository(**access)
        if isinstance(files, Path):
            files = {path.relative_to(files).as_posix(): path.read_bytes() for path in files.rglob("*") if path.is_file()}
        made.commit(files)
        return made

    def gets(self, file: str) -> list[Asked]:
        """The requests for a file's content."""
        return [asked for asked in self.asked if asked.method == "GET" and "/resolve/" in asked.path and asked.path.endswith(file)]

    def environment(self, home: Path, **more: str) -> dict[str, str]:
        """The environment of a user of this Hub, with the caches below `home`."""
        here = dict.fromkeys(("HF_ENDPOINT", "HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), self.url)
        quiet = {
            "HF_UPDATE_DOWNLOAD_COUNTS": "0",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_XET": "1",
            "NO_PROXY": "",
            "no_proxy": "",
        }
        offline = {"HF_HUB_OFFLINE": "0", "HF_DATASETS_OFFLINE": "0"}
        return {**here, **quiet, **offline, "HF_HOME": str(home), "GLIMPSEZOO_HOME": str(home / "zoo"), "HF_TOKEN": "", **more}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: HubServer

    def log_message(self, *_: object) -> None:
        """Log nothing: `hub.asked` has every request."""

    def do_CONNECT(self) -> None:
        self.hub.strangers.append(self.path)
        self.answer(403, b"")

    def handle_any(self) -> None:
        target = urlsplit(self.path)
        length = int(self.headers.get("Content-Length") or 0)
        chunked = self.headers.get("Transfer-Encoding") == "chunked"
        body = self._chunks() if chunked else self.rfile.read(length)
        own = urlsplit(self.hub.url).netloc
        if target.netloc not in {"", own, f"datasets-server.{own}"}:  # derived by datasets from HF_ENDPOINT, and not needed
            self.hub.strangers.append(target.netloc)
            return self.answer(403, b"")
        path, token = unquote(target.path), (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        self.hub.asked.append(Asked(self.command, path, self.headers.get("Range") or "", token))
        self.fault = next((fault for fault in self.hub.faults if fault.strikes(f"{self.command} {path}")), Fault(""))
        if self.fault.silent:
            self.hub.ended.wait(60)
            self.close_connection = True
            return None
        if self.fault.status or self.fault.content is not None:
            self.answer(self.fault.status or 200, self.fault.content or b"{}", **self.fault.headers)
        else:
            self.serve(path, token, body, target.query)
        if self.fault.then:
            self.fault.then()
        return None

    def serve(self, path: str, token: str, body: bytes, query: str) -> None:
        for pattern, serve in _ROUTES:
            if found := re.fullmatch(pattern, f"{self.command} {path}"):
                return serve(self, token, body, query, **found.groupdict())
        return self.refuse(404, "EntryNotFound")

    do_GET = do_HEAD = do_POST = do_PUT = handle_any  # noqa: N815 - http.server's names

    def _chunks(self) -> bytes:
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def answer(self, status: int, content: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command == "HEAD":
            return
        fault = getattr(self, "fault", Fault(""))
        with contextlib.suppress(OSError):  # of a client that waits no longer
            if fault.drip is not None:
                for byte in content:
                    self.wfile.write(bytes([byte]))
                    if self.hub.ended.wait(fault.drip):
                        break
            else:
                self.wfile.write(content[: fault.cut])
        if fault.cut is not None and fault.cut < len(content):
            self.close_connection = True

    def json(self, content: Any) -> None:
        self.answer(200, json.dumps(content).encode(), Content_Type="application/json")

    def refuse(self, status: int, code: str, **headers: str) -> None:
        self.answer(status, json.dumps({"error": code}).encode(), X_Error_Code=code, X_Error_Message=code, **headers)

    def found(self, kind: str, name: str, token: str, *, content: bool = False) -> Repository | None:
        """The repository, if this token may see it (`content`: may read it); otherwise None, after sending the error."""
        repository = self.hub.repositories.get((kind, name))
        if repository is None or (repository.private and token != TOKEN):
            self.refuse(404 if token == TOKEN else 401, "RepoNotFound")
        elif content and repository.gated and token not in (repository.readers or ()):
            self.refuse(403 if token else 401, "GatedRepo")
        else:
            return repository
        return None

    def at(self, repository: Repository | None, revision: str) -> tuple[str, dict[str, bytes]] | None:
        """The commit of a repository; None, after sending the error, if there is none or no repository."""
        commit = repository.at(revision) if repository else None
        return commit if commit or not repository else self.refuse(404, "RevisionNotFound")

    def info(self, token: str, body: bytes, query: str, *, kind: str, name: str, revision: str | None = None) -> None:
        repository = self.found(kind, name, token)
        if repository is None:
            return None
        commit = repository.at(revision or "main") or (("", {}) if revision is None else None)
        if commit is None:
            return self.refuse(404, "RevisionNotFound")
        sha, files = commit
        flags = {"private": repository.private, "gated": "manual" if repository.gated else False, "disabled": False}
        return self.json({"id": name, "sha": sha, **flags, "tags": [], "downloads": 0, "siblings": [{"rfilename": file} for file in files]})

    def tree(self, token: str, body: bytes, query: str, *, kind: str, name: str, revision: str, folder: str = "") -> None:
        commit = self.at(self.found(kind, name, token), revision)
        if commit is None:
            return None
        start = f"{folder}/" if folder else ""
        below = {path: content for path, content in commit[1].items() if path.startswith(start)}
        folders = {start + path.removeprefix(start).partition("/")[0] for path in below if "/" in path.removeprefix(start)}
        if folder and not below:
            return self.refuse(404, "EntryNotFound")
        recursive = parse_qs(query).get("recursive", [""])[0].lower() == "true"
        shown = [_entry(path, content) for path, content in below.items() if recursive or "/" not in path.removeprefix(start)]
        return self.json(shown + [{"type": "directory", "oid": "0" * 40, "size": 0, "path": path} for path in sorted(folders)])

    def paths(self, token: str, body: bytes, query: str, *, kind: str, name: str, revision: str) -> None:
        commit = self.at(self.found(kind, name, token), revision)
        if commit is None:
            return None
        wanted = parse_qs(body.decode()).get("paths") or json.loads(body or b"{}").get("paths", [])
        wanted = [wanted] if isinstance(wanted, str) else wanted
        return self.json([_entry(path, commit[1][path]) for path in wanted if path in commit[1]])

    def file(self, token: str, body: bytes, query: str, *, kind: str, name: str, revision: str, path: str) -> None:
        commit = self.at(self.found("datasets" if kind else "models", name, token, content=True), revision)
        if commit is None:
            return None
        sha, files = commit
        if path not in files:
            return self.refuse(404, "EntryNotFound", X_Repo_Commit=sha)
        content = files[path]
        headers = {"X_Repo_Commit": sha, "ETag": f'"{_oid(path, content)}"', "Accept_Ranges": "bytes"}
        if wanted := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or ""):
            start, end = int(wanted[1]), min(int(wanted[2] or len(content)), len(content) - 1)
            headers["Content_Range"] = f"bytes {start}-{end}/{len(content)}"
            return self.answer(206, content[start : end + 1], **headers)
        return self.answer(200, content, **headers)

    def create(self, token: str, body: bytes, query: str) -> None:
        asked = json.loads(body)
        if token != TOKEN:
            return self.refuse(401, "Unauthorized")
        owner = asked.get("organization") or "me"
        name = asked["name"] if "/" in asked["name"] else f"{owner}/{asked['name']}"
        if ("models", name) in self.hub.repositories:
            return self.answer(409, json.dumps({"url": f"{self.hub.url}/{name}"}).encode())
        if not name.startswith("me/"):
            return self.refuse(403, "Forbidden")
        self.hub.repositories["models", name] = Repository(private=asked.get("private") or asked.get("visibility") == "private")
        return self.json({"url": f"{self.hub.url}/{name}", "name": name})

    def valid(self, token: str, body: bytes, query: str) -> None:
        self.json({"errors": [], "warnings": []})

    def preupload(self, token: str, body: bytes, query: str, *, kind: str, name: str, revision: str) -> None:
        if self.writable(kind, name, token):
            files = [file["path"] for file in json.loads(body)["files"]]
            self.json({"files": [{"path": f, "uploadMode": "lfs" if _large(f) else "regular", "shouldIgnore": False} for f in files]})

    def batch(self, token: str, body: bytes, query: str, *, name: str) -> None:
        objects = []
        for wanted in json.loads(body)["objects"]:
            upload = {"actions": {"upload": {"href": f"{self.hub.url}/lfs/{name}/{wanted['oid']}"}}}
            objects.append({**wanted, **({} if (name, wanted["oid"]) in self.hub.large else upload)})
        self.json({"transfer": "basic", "objects": objects})

    def put(self, token: str, body: bytes, query: str, *, name: str, oid: str) -> None:
        if hashlib.sha256(body).hexdigest() != oid:
            return self.refuse(400, "BadHash")
        self.hub.large[name, oid] = body
        return self.answer(200, b"")

    def commit(self, token: str, body: bytes, query: str, *, kind: str, name: str, revision: str) -> None:
        repository = self.writable(kind, name, token)
        if repository is None:
            return
        files, gone = {}, []
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.large[name, value["oid"]]
            elif line["key"] == "deletedFile":
                gone.append(value["path"])
        sha = repository.commit(files, gone)
        self.json({"commitUrl": f"{self.hub.url}/{name}/commit/{sha}", "commitOid": sha, "success": True})

    def writable(self, kind: str, name: str, token: str) -> Repository | None:
        repository = self.found(kind, name, token)
        if repository is not None and (token != TOKEN or not name.startswith("me/")):
            return self.refuse(403, "Forbidden")
        return repository


def _large(path: str) -> bool:
    return any(fnmatch.fnmatch(path, pattern) for pattern in LARGE)


def _oid(path: str, content: bytes) -> str:
    """The object id of git, or of git-lfs for a large file."""
    return hashlib.sha256(content).hexdigest() if _large(path) else hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _entry(path: str, content: bytes) -> dict[str, Any]:
    """A file in the format of a listing."""
    large = {"lfs": {"oid": _oid(path, content), "size": len(content), "pointerSize": 130}} if _large(path) else {}
    return {"type": "file", "oid": _oid("", content), "size": len(content), "path": path, **large}


_API = r"/api/(?P<kind>models|datasets)/(?P<name>[^/]+/[^/]+)"
_REVISION = r"(?P<revision>refs/[^/]+/[^/]+|[^/]+)"
_ROUTES: list[tuple[str, Callable[..., None]]] = [
    (rf"GET {_API}", _Handler.info),
    (rf"GET {_API}/revision/(?P<revision>.+)", _Handler.info),
    (rf"GET {_API}/tree/{_REVISION}/?(?P<folder>.*)", _Handler.tree),
    (rf"POST {_API}/paths-info/(?P<revision>.+)", _Handler.paths),
    (rf"(GET|HEAD) /(?P<kind>datasets/|)(?P<name>[^/]+/[^/]+)/resolve/{_REVISION}/(?P<path>.+)", _Handler.file),
    (r"POST /api/repos/create", _Handler.create),
    (r"POST /api/validate-yaml", _Handler.valid),
    (rf"POST {_API}/preupload/{_REVISION}", _Handler.preupload),
    (r"POST /(?P<name>[^/]+/[^/]+)\.git/info/lfs/objects/batch", _Handler.batch),
    (r"PUT /lfs/(?P<name>[^/]+/[^/]+)/(?P<oid>\w+)", _Handler.put),
    (rf"POST {_API}/commit/{_REVISION}", _Handler.commit),
]
