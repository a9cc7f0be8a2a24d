"""What a repository on the Hub holds, and what an upload would change. Leaves out: changing it (`upload.py`)."""

import dataclasses
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, constants, get_session
from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

from trl_rewards_plugin.errors import InputError, is_unreached
from trl_rewards_plugin.hub.failures import not_allowed, not_logged_in, not_reached, too_many_requests, wait_of
from trl_rewards_plugin.hub.files import UploadFile
from trl_rewards_plugin.runs.layout import CARD

TIMEOUT = 120.0  # seconds without a byte after which a request fails; the client itself would wait forever
SILENCE = 300.0  # seconds without any response after which no request is repeated
TURN = 120.0  # seconds that the Hub may ask to wait in all, with 429
# Weights of an earlier upload that a loader would find beside the new ones, or prefer to them.
_WEIGHTS = (
    "model*.safetensors", "model.safetensors.index.json", "adapter_model.safetensors", "pytorch_model*.bin",
    "pytorch_model.bin.index.json", "adapter_model.bin",
)  # fmt: skip


@dataclass(frozen=True)
class Repository:
    """A repository, or one that could be created: `owner/name`, "model" or "space", and the branch if not main."""

    repo_id: str
    repo_type: str = "model"
    revision: str | None = None

    @property
    def arguments(self) -> dict[str, Any]:
        """As the client's methods take it."""
        return {"repo_id": self.repo_id, "repo_type": self.repo_type, "revision": self.revision}


def lookup_failure(repo_id: str, repo_type: str) -> Exception | None:
    """Why nothing can be loaded from there: the Hub has no such repository, or is not reached; else None."""
    try:
        HfApi().repo_info(repo_id, repo_type=repo_type, timeout=constants.HF_HUB_ETAG_TIMEOUT)
    except Exception as error:  # the client's own vary
        return error if isinstance(error, RepositoryNotFoundError) or is_unreached(error) else None
    return None


@dataclass(frozen=True)
class State:
    """What a repository holds: latest commit, file -> digest; `head` and `private` are None where there is none."""

    head: str | None
    has_branch: bool
    digests: Mapping[str, str]
    private: bool | None = None


@dataclass(frozen=True)
class Changes:
    """What a commit would do."""

    added: Sequence[UploadFile]
    updated: Sequence[UploadFile]
    removed: Sequence[str]

    def __bool__(self) -> bool:
        return bool(self.added or self.updated or self.removed)

    def summary(self) -> str:
        """`Add config.json; update README.md and 2 more`."""
        added, updated = ([file.name for file in files] for files in (self.added, self.updated))
        text = "; ".join(
            f"{verb} {', '.join(names[:3])}" + (f" and {len(names) - 3} more" if names[3:] else "")
            for verb, names in {"add": added, "update": updated, "remove": self.removed}.items()
            if names
        )
        return text[:1].upper() + text[1:]


@dataclass
class Watch:
    """Ends waiting that has become pointless, over all attempts of one upload."""

    waiting_since: float | None = None
    asked_to_wait: float = 0.0

    def on_request(self, request: Any) -> None:
        # Not since the last response: in between, weights may be hashed for long.
        if self.waiting_since is None:
            self.waiting_since = time.monotonic()
        elif time.monotonic() - self.waiting_since > SILENCE:
            raise not_reached()

    def on_response(self, response: Any) -> None:
        self.waiting_since = None
        if response.status_code == 429:
            seconds = wait_of(response)
            self.asked_to_wait += seconds
            if self.asked_to_wait > TURN:
                raise too_many_requests(seconds)


@contextmanager
def patient_client(watch: Watch) -> Iterator[None]:
    """Bounds how long the client waits, which by itself repeats most requests and obeys whatever the Hub asks for.

    `SILENCE` seconds without a response, or `TURN` seconds in all of waiting for its turn, end in an `UploadError`.
    """
    client = get_session()
    timeout, hooks = client.timeout, client.event_hooks
    if timeout.read is None:
        client.timeout = TIMEOUT
    ours = {"request": watch.on_request, "response": watch.on_response}
    client.event_hooks = {when: [*hooks[when], hook] for when, hook in ours.items()}
    try:
        yield
    finally:
        client.timeout, client.event_hooks = timeout, hooks


def check_login(api: Any, repo_id: str, *, create_pr: bool = False) -> tuple[str, str]:
    """The full id of the repository and the user's name; refuses who may not write there."""
    me = api.whoami()
    if me.get("auth", {}).get("accessToken", {}).get("role") == "read":
        raise not_logged_in("a read-only token")
    owner, _, name = repo_id.rpartition("/")
    owner = owner or me["name"]
    own = {me["name"], *(organisation["name"] for organisation in me.get("orgs", ()))}
    if owner not in own and not create_pr:
        raise not_allowed(f"{owner}/{name}", f"the login of {me['name']}, who is not {owner} and not a member")
    return f"{owner}/{name}", me["name"]


def read_state(api: Any, repository: Repository) -> State:
    """What the repository holds now; of a branch that is missing, what it would start from."""
    try:
        info = api.repo_info(**repository.arguments)
        tree = list(api.list_repo_tree(**{**repository.arguments, "revision": info.sha}, recursive=True))
    except RepositoryNotFoundError:
        return State(None, False, {})
    except RevisionNotFoundError:
        if repository.revision is None:
            return State(None, False, {})
        main = read_state(api, dataclasses.replace(repository, revision=None))
        return dataclasses.replace(main, has_branch=False)
    files = [entry for entry in tree if hasattr(entry, "blob_id")]
    digests = {file.path: file.lfs.sha256 if file.lfs else file.blob_id for file in files}
    return State(info.sha, True, digests, info.private)


def check_private(repository: Repository, state: State, private: bool | None) -> None:
    """Refuses to write to a public repository what was meant for a private one."""
    if private and state.private is False:
        step = "make it private in its settings on the Hub, choose another name, or leave out --private"
        raise InputError("a private repository", f"{repository.repo_id}, which exists and is public", step)


def find_changes(files: Sequence[UploadFile], state: State) -> Changes:
    """What of `files` the repository lacks, and which older weights would get in their way."""
    added = [file for file in files if file.name not in state.digests]
    updated = [file for file in files if file.name in state.digests and not file.has_digest(state.digests[file.name])]
    names = {file.name for file in files}
    weights = {name for name in names | state.digests.keys() if any(fnmatch(name, pattern) for pattern in _WEIGHTS)}
    removed = [name for name in state.digests if name in weights - names] if weights & names else []
    return Changes(added, updated, removed)


def read_card(api: Any, repository: Repository, head: str) -> str:
    """README.md of the repository, downloaded outside of the cache."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = {**repository.arguments, "revision": head, "local_dir": folder}
        return Path(api.hf_hub_download(filename=CARD, **arguments)).read_text(encoding="utf-8")


def open_pull_request(api: Any, repository: Repository, files: Sequence[UploadFile], me: str) -> str | None:
    """The URL of an open pull request of `me` that already holds `files`; None if there is none."""
    wanted = {"author": me, "discussion_type": "pull_request", "discussion_status": "open"}
    for request in api.get_repo_discussions(repository.repo_id, repo_type=repository.repo_type, **wanted):
        branch = dataclasses.replace(repository, revision=request.git_reference)
        if not find_changes(files, read_state(api, branch)):
            return str(request.url)
    return None
