"""A Hub on loopback: the endpoints that `huggingface_hub` uses to write and read a repository, over real HTTP.

Kept in memory. `Hub.fail` makes it answer with an error, stall or drop the connection. As the real one, it makes
`.gitattributes` with a repository, keeps weights as large files (LFS), commits all or nothing, and refuses metadata
that the model card specification does not know. Leaves out: Xet (tests turn it off), datasets, web pages.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

LICENSES = {"apache-2.0", "mit", "cc-by-sa-4.0", "other"}
TASKS = {"summarization", "translation", "text-generation", "text-classification"}
_FILE = re.compile(r"/(spaces/)?([^/]+/[^/]+)/resolve/(refs/pr/\d+|[^/]+)/(.+)")
_CALL = re.compile(
    r"/api/(model|space)s/([^/]+/[^/]+?)(?:/(revision|tree|preupload|commit|branch|discussions)(?:/(.*))?)?"
)
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
# What the model card specification names; TRL's `licence` is none of it.
FIELDS = {
    "library_name", "license", "language", "base_model", "base_model_relation", "datasets", "pipeline_tag", "tags",
    "metrics", "widget", "co2_eq_emissions", "model-index", "title", "emoji", "colorFrom", "colorTo", "sdk",
    "sdk_version", "python_version", "app_file", "pinned", "description", "short_description",
}  # fmt: skip


@dataclass
class Repo:
    """Branch or pull request -> commits, each with all its files; large files are marked by name."""

    private: bool
    refs: dict[str, list[tuple[str, str, dict[str, bytes]]]] = field(default_factory=dict)
    requests: list[dict[str, Any]] = field(default_factory=list)

    def commits(self, ref: str) -> list[tuple[str, str, dict[str, bytes]]] | None:
        if ref in self.refs:
            return self.refs[ref]
        for commits in self.refs.values():
            for index, (oid, _, _) in enumerate(commits):
                if oid == ref:
                    return commits[: index + 1]
        return None


@dataclass
class Fault:
    """What to do instead of (or, with `after`, in addition to) answering requests that match."""

    pattern: str
    what: int | str
    times: int
    after: bool = False
    headers: dict[str, str] = field(default_factory=dict)
    answer: Any = None


class Hub:
    """The server. `users` maps tokens to names; `requests` remembers (method, path, body size)."""

    def __init__(self) -> None:
        self.users = {
            "hf_" + "a" * 34: {"name": "me", "role": "write"},
            "hf_" + "r" * 34: {"name": "me", "role": "read"},
            "hf_" + "o" * 34: {"name": "someone", "role": "write"},
        }
        self.token, self.read_token, self.other_token = self.users
        self.orgs = {"me": ["our-team"]}
        self.repos: dict[tuple[str, str], Repo] = {}
        self.large: dict[str, bytes] = {}
        self.requests: list[tuple[str, str, int]] = []
        self.faults: list[Fault] = []
        self.released = threading.Event()
        self.lock = threading.RLock()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.released.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def fail(self, pattern: str, what: int | str, times: int = 10**6, *, after: bool = False, **headers: str) -> None:
        """Requests whose "METHOD /path" matches `pattern` get a status, or "stall" or "drop", `times` times.

        `after`: the request is carried out first, and only its answer is lost.
        """
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.faults.append(Fault(pattern, what, times, after, named))

    def answer(self, pattern: str, value: Any) -> None:
        """Requests that match get a JSON `value` with status 200, as from a proxy that knows no Hub."""
        self.faults.append(Fault(pattern, 200, 10**6, answer=value))

    def files(self, repo_id: str, ref: str = "main", kind: str = "model") -> dict[str, bytes]:
        """Name -> content at the tip of a branch, without `.gitattributes`."""
        commits = self.repos[kind, repo_id].refs[ref]
        return {name: content for name, content in commits[-1][2].items() if name != ".gitattributes"}

    def titles(self, repo_id: str, ref: str = "main", kind: str = "model") -> list[str]:
        return [title for _, title, _ in self.repos[kind, repo_id].refs[ref]][1:]

    def put(self, repo_id: str, name: str, content: bytes, title: str = "Edit", kind: str = "model") -> None:
        """A commit as by the web page."""
        repo = self.repos[kind, repo_id]
        self.commit(repo, "main", title, {**repo.refs["main"][-1][2], name: content})

    def create(self, kind: str, repo_id: str, private: bool) -> None:
        repo = self.repos[kind, repo_id] = Repo(private)
        repo.refs["main"] = []
        self.commit(repo, "main", "initial commit", {".gitattributes": b"*.safetensors filter=lfs\n"})

    def commit(self, repo: Repo, ref: str, title: str, files: dict[str, bytes]) -> str:
        history = repo.refs.setdefault(ref, [])
        text = f"{title}{len(history)}{ref}".encode() + b"".join(name.encode() + files[name] for name in sorted(files))
        oid = hashlib.sha1(text).hexdigest()
        history.append((oid, title, files))
        return oid


def is_large(name: str) -> bool:
    return name.endswith((".safetensors", ".parquet"))


def blob_id(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def check_metadata(content: str, kind: str) -> list[str]:
    """What the Hub would complain about in a card's YAML."""
    found = re.match(r"---\n(.*?)\n---(\n|$)", content, re.DOTALL)
    try:
        values = yaml.safe_load(found[1]) if found else {}
    except yaml.YAMLError as error:
        return [f"bad YAML: {error}"]
    if not isinstance(values, dict):
        return ["metadata must be a mapping"]
    bases = values.get("base_model", [])
    checks = {
        f"unknown fields {sorted(set(values) - FIELDS)}": set(values) <= FIELDS,
        "unknown license": values.get("license") in LICENSES | {None},
        "unknown pipeline_tag": values.get("pipeline_tag") in TASKS | {None},
        "base_model must be an id": all(_HUB_ID.fullmatch(b) for b in ([bases] if isinstance(bases, str) else bases)),
        "datasets must be ids": all(_HUB_ID.fullmatch(name) for name in values.get("datasets", [])),
        "tags must be texts": all(isinstance(tag, str) for tag in values.get("tags", [])),
        "a Space needs an sdk": kind != "space" or values.get("sdk") == "gradio",
    }
    return [message for message, fine in checks.items() if not fine]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *args: Any) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        self._serve()

    do_POST = do_PUT = do_HEAD = do_GET

    def _serve(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self._chunks() if self.headers.get("Transfer-Encoding") == "chunked" else self.rfile.read(length)
        url = urlsplit(self.path)
        path = unquote(url.path)
        self.query = {key: values[0] for key, values in parse_qs(url.query).items()}
        with self.hub.lock:
            self.hub.requests.append((self.command, path, len(body)))
            fault = self._fault(f"{self.command} {path}")
        if fault is not None:
            if fault.after:
                with self.hub.lock:
                    self._route(path, body)
            if fault.what == "stall":
                self.hub.released.wait()
            if isinstance(fault.what, str):
                self.close_connection = True
                return
            told = {"error": f"as told: {fault.what}"} if fault.answer is None else fault.answer
            self._answer(fault.what, told, **fault.headers)
            return
        with self.hub.lock:
            status, value, headers = self._route(path, body)
        self._answer(status, value, **headers)

    def _chunks(self) -> bytes:
        parts = []
        while size := int(self.rfile.readline().strip(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _fault(self, request: str) -> Fault | None:
        for fault in self.hub.faults:
            if fault.times > 0 and re.search(fault.pattern, request):
                fault.times -= 1
                return fault
        return None

    def _answer(self, status: int, value: Any, **headers: str) -> None:
        content = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        length = headers.pop("Content-Length", str(len(content)))
        for name, text in {"Content-Length": length, **headers}.items():
            self.send_header(name, text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    # ---- Routes: each returns status, value and headers ----

    def _route(self, path: str, body: bytes) -> tuple[int, Any, dict[str, str]]:
        if path.startswith("/large/"):  # storage: its addresses are secret enough, no token comes along
            return self._store(path.rpartition("/")[2], body)
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        self.user = self.hub.users.get(token)
        if token and self.user is None:
            return (
                401,
                {"error": "Invalid credentials"},
                {"X-Error-Message": "Invalid credentials in Authorization header"},
            )
        if path == "/api/whoami-v2":
            return self._whoami()
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        if path == "/api/validate-yaml":
            asked = json.loads(body)
            errors = [{"message": text} for text in check_metadata(asked["content"], asked["repoType"])]
            return 400 if errors else 200, {"errors": errors, "warnings": []}, {}
        large = re.fullmatch(r"/(spaces/)?([^/]+/[^/]+)\.git/info/lfs/objects/batch", path)
        if large:
            return self._batch(json.loads(body))
        if file := _FILE.fullmatch(path):
            kind = "space" if file[1] else "model"
            return self._in_repo(kind, file[2], lambda repo: self._resolve(repo, file[3], file[4]))
        if call := _CALL.fullmatch(path):
            action = getattr(self, f"_{call[3] or 'revision'}")
            return self._in_repo(call[1], call[2], lambda repo: action(repo, call[4] or "main", body))
        return 404, {"error": f"no route {path}"}, {}

    def _whoami(self) -> tuple[int, Any, dict[str, str]]:
        if self.user is None:
            return 401, {"error": "no token"}, {}
        name, role = self.user["name"], self.user["role"]
        orgs = [{"name": org, "roleInOrg": "write"} for org in self.hub.orgs.get(name, [])]
        return 200, {"type": "user", "name": name, "orgs": orgs, "auth": {"accessToken": {"role": role}}}, {}

    def _may_write(self, owner: str) -> bool:
        name = self.user["name"] if self.user else None
        return self.user is not None and self.user["role"] == "write" and owner in (name, *self.hub.orgs.get(name, ()))

    def _create(self, asked: dict[str, Any]) -> tuple[int, Any, dict[str, str]]:
        owner = asked.get("organization") or (self.user or {}).get("name")
        kind, repo_id = asked.get("type", "model"), f"{owner}/{asked['name']}"
        if not self._may_write(owner):
            return 403, {"error": "no"}, {"X-Error-Message": "you may not create here"}
        if (kind, repo_id) in self.hub.repos:
            return 409, {"error": "You already created this repo"}, {}
        if kind == "space" and asked.get("sdk") != "gradio":
            return 400, {"error": "sdk"}, {}
        self.hub.create(kind, repo_id, asked.get("visibility") == "private" or bool(asked.get("private")))
        prefix = "spaces/" if kind == "space" else ""
        return 200, {"url": f"{self.hub.url}/{prefix}{repo_id}", "id": repo_id, "name": repo_id}, {}

    def _in_repo(self, kind: str, repo_id: str, action: Any) -> tuple[int, Any, dict[str, str]]:
        repo = self.hub.repos.get((kind, repo_id))
        self.repo_id, self.kind = repo_id, kind
        if repo is None or (repo.private and not self._may_write(repo_id.split("/")[0])):
            return 404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"}
        return action(repo)

    def _missing(self, code: str) -> tuple[int, Any, dict[str, str]]:
        return 404, {"error": code}, {"X-Error-Code": code}

    def _revision(self, repo: Repo, ref: str, body: bytes) -> tuple[int, Any, dict[str, str]]:
        commits = repo.commits(ref)
        if commits is None:
            return self._missing("RevisionNotFound")
        oid, _, files = commits[-1]
        siblings = [{"rfilename": name} for name in files]
        return 200, {"id": self.repo_id, "sha": oid, "private": repo.private, "tags": [], "siblings": siblings}, {}

    def _tree(self, repo: Repo, rest: str, body: bytes) -> tuple[int, Any, dict[str, str]]:
        ref, _, inside = (rest, "", "") if rest.startswith("refs/") else rest.partition("/")
        commits = repo.commits(ref)
        if commits is None:
            return self._missing("RevisionNotFound")
        files = {name: content for name, content in commits[-1][2].items() if name.startswith(inside)}
        if inside and not files:
            return self._missing("EntryNotFound")
        return 200, [self._entry(name, content) for name, content in files.items()], {}

    def _entry(self, name: str, content: bytes) -> dict[str, Any]:
        entry: dict[str, Any] = {"type": "file", "path": name, "size": len(content), "oid": blob_id(content)}
        if is_large(name):
            oid = hashlib.sha256(content).hexdigest()
            entry["lfs"] = {"oid": oid, "size": len(content), "pointerSize": 134}
        return entry

    def _preupload(self, repo: Repo, ref: str, body: bytes) -> tuple[int, Any, dict[str, str]]:
        commits = repo.commits(ref)
        if commits is None:
            return self._missing("RevisionNotFound")
        files = [
            {"path": file["path"], "uploadMode": "lfs" if is_large(file["path"]) else "regular", "shouldIgnore": False}
            for file in json.loads(body)["files"]
        ]
        return 200, {"files": files}, {}

    def _batch(self, asked: dict[str, Any]) -> tuple[int, Any, dict[str, str]]:
        objects = []
        for thing in asked["objects"]:
            address = {"href": f"{self.hub.url}/large/{thing['oid']}", "header": {}}
            objects.append(thing if thing["oid"] in self.hub.large else {**thing, "actions": {"upload": address}})
        return 200, {"transfer": "basic", "objects": objects}, {}

    def _store(self, oid: str, body: bytes) -> tuple[int, Any, dict[str, str]]:
        if hashlib.sha256(body).hexdigest() != oid:
            return 400, {"error": "not the content that was announced"}, {}
        self.hub.large[oid] = body
        return 200, {}, {}

    def _commit(self, repo: Repo, ref: str, body: bytes) -> tuple[int, Any, dict[str, str]]:
        asks_review = self.query.get("create_pr") == "1"
        if not asks_review and not self._may_write(self.repo_id.split("/")[0]):
            return 403, {"error": "no"}, {"X-Error-Message": "you may not write here"}
        commits = repo.commits(ref)
        if commits is None or ref not in repo.refs:
            return self._missing("RevisionNotFound")
        oid, _, files = commits[-1]
        files, title = dict(files), ""
        for line in body.decode().splitlines():
            item = json.loads(line)
            key, value = item["key"], item["value"]
            if key == "header":
                title = value["summary"]
                if value.get("parentCommit", oid) != oid:
                    return 412, {"error": "A commit has happened since."}, {}
            elif key == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif key == "lfsFile":
                if value["oid"] not in self.hub.large:
                    return 400, {"error": "large file was never uploaded"}, {}
                files[value["path"]] = self.hub.large[value["oid"]]
            elif key == "deletedFile":
                files.pop(value["path"])
        return 200, self._landed(repo, ref, title, files, asks_review), {}

    def _landed(self, repo: Repo, ref: str, title: str, files: dict[str, bytes], asks_review: bool) -> dict[str, Any]:
        prefix = "spaces/" if self.kind == "space" else ""
        page, request = f"{self.hub.url}/{prefix}{self.repo_id}", None
        if asks_review:
            number = len(repo.requests) + 1
            ref, request = f"refs/pr/{number}", f"{page}/discussions/{number}"
            repo.requests.append({"num": number, "title": title, "author": self.user["name"]})
        oid = self.hub.commit(repo, ref, title, files)
        return {"success": True, "commitOid": oid, "commitUrl": f"{page}/commit/{oid}", "pullRequestUrl": request}

    def _branch(self, repo: Repo, name: str, body: bytes) -> tuple[int, Any, dict[str, str]]:
        if not self._may_write(self.repo_id.split("/")[0]):
            return 403, {"error": "no"}, {}
        repo.refs.setdefault(name, list(repo.refs["main"]))
        return 200, {}, {}

    def _discussions(self, repo: Repo, rest: str, body: bytes) -> tuple[int, Any, dict[str, str]]:
        about = {"name": self.repo_id, "type": self.kind}
        known = [
            {
                **request, "author": {"name": request["author"]}, "createdAt": "2026-01-01T00:00:00.000Z",
                "status": "open", "repo": about, "isPullRequest": True,
            }
            for request in repo.requests if self.query.get("author") in (None, request["author"])
        ]  # fmt: skip
        return 200, {"discussions": known, "count": len(known), "start": 0}, {}

    def _resolve(self, repo: Repo, ref: str, name: str) -> tuple[int, Any, dict[str, str]]:
        commits = repo.commits(ref)
        if commits is None:
            return self._missing("RevisionNotFound")
        oid, _, files = commits[-1]
        if name not in files:
            return 404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": oid}
        tag = hashlib.sha256(files[name]).hexdigest() if is_large(name) else blob_id(files[name])
        told = {"X-Repo-Commit": oid, "ETag": f'"{tag}"', "X-Linked-Etag": f'"{tag}"'}
        return 200, files[name], told | {"X-Linked-Size": str(len(files[name]))}
