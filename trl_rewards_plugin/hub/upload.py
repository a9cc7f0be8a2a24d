"""The only door to the network that writes: a model with its card, or a metric as a Space, to the Hub.

Everything that can be refused is refused before anything is sent; then one commit. What is interrupted is repeated
whole: each try compares first, so that nothing is sent twice. Leaves out: what is sent (`plan.py`), what the
repository holds (`remote.py`), the words for what goes wrong (`failures.py`).
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trl_rewards_plugin.cards.stamp import is_untouched
from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.hub.failures import explain, is_transient
from trl_rewards_plugin.hub.files import check_content
from trl_rewards_plugin.hub.plan import Upload, check_name, plan_upload
from trl_rewards_plugin.hub.remote import (
    Changes,
    Repository,
    State,
    check_login,
    check_private,
    find_changes,
    open_pull_request,
    patient_client,
    read_state,
    read_text,
)
from trl_rewards_plugin.runs.layout import CARD

# Seconds before each further try.
WAITS = (1.0, 3.0)


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
        private: Of a new repository; None: what the owner's settings say. One that is there already stays as it is,
            and a public one is refused where this is True.
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

    address: str = repeated(send, upload.repository.repo_id)
    return address


def check_access(repo_id: str, *, token: str | None = None) -> None:
    """Refuses early what would fail after hours of training: nobody logged in, or not someone who may write there.

    Raises:
        InputError: see `push_to_hub`.
        UploadError: the Hub cannot be reached.
    """
    from huggingface_hub import HfApi

    check_name(repo_id)
    api = HfApi(token=token)
    repeated(lambda: check_login(api, repo_id), repo_id)


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
    check_private(repository, state, private)
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
