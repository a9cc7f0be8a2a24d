"""The only door to the network that writes: a model with its card, or a metric as a Space, to the Hub.

Everything that can be refused is refused before anything is sent; then one commit. What is interrupted is repeated
whole: each try compares first, so that nothing is sent twice. Leaves out: which files (`files.py`), what the
repository holds (`remote.py`), the words for what goes wrong (`failures.py`).
"""

from __future__ import annotations

import dataclasses
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.hub.card import CARD, render_model_card
from trl_rewards_plugin.hub.failures import explain, is_transient
from trl_rewards_plugin.hub.files import (
    Selection,
    UploadFile,
    check_card,
    check_content,
    format_size,
    is_space,
    select_model,
    select_space,
)
from trl_rewards_plugin.hub.from_run import card_data_from_folder, has_own_texts, is_run_folder
from trl_rewards_plugin.hub.quickstart import with_name
from trl_rewards_plugin.hub.remote import (
    Changes,
    Repository,
    State,
    check_login,
    find_changes,
    open_pull_request,
    patient_client,
    read_state,
    read_text,
)
from trl_rewards_plugin.hub.stamp import is_untouched, stamped

# Seconds before each further try.
WAITS = (1.0, 3.0)


@dataclass(frozen=True)
class Upload:
    """A checked upload, not yet sent.

    Attributes:
        repository: Where to.
        selection: What of the folder.
        card_kept: Whether the card is the user's own edited text, taken as it is.
    """

    repository: Repository
    selection: Selection
    card_kept: bool

    @property
    def size(self) -> int:
        """In bytes."""
        return sum(file.size for file in self.selection.files)

    def format(self) -> str:
        """The list of files for a person, with their sizes and what stays at home."""
        files = self.selection.files
        width = max(len(file.name) for file in files)
        kind = "Space" if self.repository.repo_type == "space" else "model"
        branch = f", branch {self.repository.revision}" if self.repository.revision else ""
        lines = [f"{kind} {self.repository.repo_id}{branch}: {len(files)} files, {format_size(self.size)}"]
        lines += [f"  {file.name:<{width}}  {format_size(file.size):>9}" for file in files]
        if self.card_kept:
            lines.append("The card was edited by hand and goes as it is.")
        if self.selection.left_out:
            lines.append("Stays here:")
            lines += [f"  {name}  ({reason})" for name, reason in self.selection.left_out.items()]
        return "\n".join(lines)


def push_to_hub(
    folder: Path | str,
    repo_id: str,
    *,
    private: bool | None = None,
    token: str | None = None,
    create_pr: bool = False,
    api: Any = None,
    revision: str | None = None,
    include_completions: bool = False,
    overwrite_card: bool = False,
    commit_message: str | None = None,
    echo: Callable[[str], None] | None = None,
) -> str:
    """Uploads a run folder, a saved model or a metric folder in one commit; a second time uploads nothing.

    Safetensors only, never training state. A failed try leaves the repository as it was and can be repeated.

    Args:
        folder: The run folder, the checkpoint, or the metric's folder, which becomes a Space.
        repo_id: `owner/name`, or the name of one of yours; made if it does not exist.
        private: Of a new repository; None: what the owner's settings say.
        token: Of the Hub; None: the one that is logged in.
        create_pr: Open a pull request instead of committing.
        api: A `huggingface_hub.HfApi`, for another endpoint; it brings its own token.
        revision: Branch to commit to, made if it does not exist; None: the main one.
        include_completions: Take along the held-out prompts with their outputs, in a file and, where the prompts are
            your own, in the card. (Those of a public data set are in the card anyway.)
        overwrite_card: Replace a card in the repository that a person edited.
        commit_message: First line of the commit; None: what changed.
        echo: Called with the list of files and its size before anything is sent, and with the outcome.

    Returns:
        The URL of the commit or pull request; where nothing had changed, of the commit that has it all.

    Raises:
        InputError: refused: what the folder holds, who is logged in, where they may write.
        UploadError: the network or the Hub failed, again and again.
    """
    if create_pr and revision is not None:
        step = "leave out revision: a pull request is for the main branch"
        raise InputError("either create_pr or revision", f"create_pr and revision={revision!r}", step)
    upload = plan_upload(folder, repo_id, revision=revision, include_completions=include_completions)
    say = echo or (lambda text: None)
    if api is None:
        from huggingface_hub import HfApi

        api = HfApi(token=token)
    if "/" not in repo_id:  # the card tells the whole name, which only the Hub knows
        repo_id = repeated(lambda: check_login(api, repo_id)[0], repo_id)
        upload = plan_upload(folder, repo_id, revision=revision, include_completions=include_completions)
    check_content(Path(folder), upload.selection.files, _own_token(api))
    say(upload.format())

    def send() -> str:
        return _send(api, upload, private, create_pr, overwrite_card, commit_message, say)

    return repeated(send, upload.repository.repo_id)


def check_access(repo_id: str, *, token: str | None = None) -> None:
    """Refuses early what would fail after hours of training: nobody logged in, or not someone who may write there.

    Raises:
        InputError: see `push_to_hub`.
        UploadError: the Hub cannot be reached.
    """
    from huggingface_hub import HfApi

    _check_name(repo_id)
    api = HfApi(token=token)
    repeated(lambda: check_login(api, repo_id), repo_id)


def plan_upload(
    folder: Path | str, repo_id: str, *, revision: str | None = None, include_completions: bool = False
) -> Upload:
    """Everything that `push_to_hub` checks without the network, secrets of this login aside.

    Raises:
        InputError: what must not or cannot go up.
    """
    folder = Path(folder)
    _check_name(repo_id)
    if is_space(folder):
        return _plan_space(folder, Repository(repo_id, "space", revision))
    selection = select_model(folder, include_completions=include_completions)
    card, kept = _card(folder, repo_id, include_completions)
    check_card(card)
    files = [file for file in selection.files if file.name != CARD] + [UploadFile(CARD, card.encode("utf-8"))]
    ordered = tuple(sorted(files, key=lambda file: file.name))
    upload = Upload(Repository(repo_id, "model", revision), Selection(ordered, selection.left_out), kept)
    check_content(folder, upload.selection.files, None)
    return upload


def _plan_space(folder: Path, repository: Repository) -> Upload:
    selection = select_space(folder)
    # The stamp tells later whether anyone edited it on the Hub.
    files = [
        UploadFile(file.name, stamped(file.read().decode("utf-8")).encode("utf-8")) if file.name == CARD else file
        for file in selection.files
    ]
    check_card(files[0].read().decode("utf-8") if files[0].name == CARD else "")
    check_content(folder, tuple(files), None)
    return Upload(repository, Selection(tuple(files), selection.left_out), False)


def _check_name(repo_id: str) -> None:
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        step = "use letters, digits, '-', '_' and '.', such as me/my-model"
        raise InputError("a repository as owner/name", repr(repo_id), step) from error


def _card(folder: Path, repo_id: str, include_completions: bool) -> tuple[str, bool]:
    """The card as it goes up, and whether it is the user's own edited one."""
    path = folder / CARD
    if path.is_file():
        text = path.read_text(encoding="utf-8")
        if not is_untouched(text):
            return text, True
        if not is_run_folder(folder):
            return stamped(with_name(text, repo_id)), False
    elif not is_run_folder(folder):
        step = "write one, give the output_dir of a run, or call the trainer's create_model_card()"
        raise InputError("a model with its card, README.md", f"none in {folder}", step)
    show = include_completions or not has_own_texts(folder)
    data = card_data_from_folder(folder, show_texts=show)
    return render_model_card(dataclasses.replace(data, model_name=repo_id)), False


def _own_token(api: Any) -> str | None:
    from huggingface_hub import get_token

    token = getattr(api, "token", None)
    return token if isinstance(token, str) else get_token()


def repeated(action: Callable[[], Any], repo_id: str) -> Any:
    """Calls `action` until it works, a few times where the network or the Hub fails; errors come in our words."""
    for wait in (*WAITS, None):
        try:
            with patient_client():
                return action()
        except Exception as error:
            if wait is None or not is_transient(error):
                told = explain(error, repo_id)
                if told is error:
                    raise
                raise told from error
            time.sleep(wait)
    raise AssertionError("the last try returns or raises")


def _send(
    api: Any,
    upload: Upload,
    private: bool | None,
    create_pr: bool,
    overwrite_card: bool,
    commit_message: str | None,
    say: Callable[[str], None],
) -> str:
    """One whole try: who is this, what is there, what is missing; then one commit."""
    repo_id, me = check_login(api, upload.repository.repo_id, create_pr=create_pr)
    repository = Repository(repo_id, upload.repository.repo_type, upload.repository.revision)
    state = read_state(api, repository)
    changes = find_changes(upload.selection.files, state)
    if state.head is not None and not changes and state.has_branch:
        url = commit_url(api, repository, state.head)
        say(f"Nothing to upload: the repository has it all ({url})")
        return url
    _check_remote_card(api, repository, state, changes, overwrite_card or create_pr)
    if create_pr and state.head is not None:
        request = open_pull_request(api, repository, upload.selection.files, me)
        if request is not None:
            say(f"Nothing to upload: a pull request has it all ({request})")
            return request
    head = prepare(api, repository, state, private)
    return _commit(api, repository, head, changes, create_pr, commit_message, say)


def _check_remote_card(api: Any, repository: Repository, state: State, changes: Changes, may: bool) -> None:
    if may or state.head is None or all(file.name != CARD for file in changes.updated):
        return
    if not is_untouched(read_text(api, repository, state.head, CARD)):
        raise InputError(
            f"a card in {repository.repo_id} that nobody has edited",
            "one that a person wrote or changed",
            "replace it with --overwrite-card, propose yours with --create-pr, or put their text into your README.md "
            "and push with --overwrite-card",
        )


def prepare(api: Any, repository: Repository, state: State, private: bool | None) -> str | None:
    """Makes the repository and its branch where they are missing; returns the commit to build on."""
    repo_id, repo_type = repository.repo_id, repository.repo_type
    if state.head is None:
        sdk = "gradio" if repo_type == "space" else None
        api.create_repo(repo_id, private=private, repo_type=repo_type, space_sdk=sdk, exist_ok=True)
    if repository.revision is not None and not state.has_branch and not repository.revision.startswith("refs/"):
        api.create_branch(repo_id, branch=repository.revision, repo_type=repo_type, exist_ok=True)
    return state.head


def _commit(
    api: Any,
    repository: Repository,
    head: str | None,
    changes: Changes,
    create_pr: bool,
    commit_message: str | None,
    say: Callable[[str], None],
) -> str:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    operations: list[Any] = [
        CommitOperationAdd(file.name, file.content) for file in (*changes.added, *changes.updated)
    ] + [CommitOperationDelete(name) for name in changes.removed]
    with warnings.catch_warnings():
        # Outputs in a model's repository are meant to be there, and so is a Space's card without a licence.
        warnings.filterwarnings("ignore", message="It seems that you are about to commit a data file")
        warnings.filterwarnings("ignore", message="Warnings while validating metadata in README.md")
        done = api.create_commit(
            operations=operations,
            commit_message=commit_message or changes.summary(),
            commit_description=changes.summary() if commit_message else "",
            create_pr=create_pr,
            parent_commit=head,
            **repository.place,
        )
    url = str(done.pr_url or done.commit_url)
    say(f"Uploaded: {url}")
    return url


def commit_url(api: Any, repository: Repository, head: str) -> str:
    """The page of a commit."""
    kind = "spaces/" if repository.repo_type == "space" else ""
    return f"{api.endpoint}/{kind}{repository.repo_id}/commit/{head}"
