"""The only door to the network that writes: a planned upload becomes one commit on the Hub.

What can be refused is refused (InputError) before anything is sent. A failed attempt is repeated from the start, each
compares with the repository first, so that nothing is sent twice; then it ends in an UploadError.
"""

import time
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

from huggingface_hub import CommitOperationDelete, HfApi

from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.hub import remote
from trl_rewards_plugin.hub.failures import explain, is_transient, wait_after
from trl_rewards_plugin.hub.plan import UploadPlan, check_name
from trl_rewards_plugin.hub.remote import Changes, Repository, State
from trl_rewards_plugin.hub.stamp import is_untouched
from trl_rewards_plugin.runs.layout import CARD

_Result = TypeVar("_Result")
_WAITS = (1.0, 3.0)  # seconds before each further attempt


def upload(
    api: Any,
    plan: UploadPlan,
    *,
    private: bool | None = None,
    create_pr: bool = False,
    overwrite_card: bool = False,
    commit_message: str | None = None,
    echo: Callable[[str], None],
) -> str:
    """Sends what `plan` lists and the repository lacks, in one commit; returns its URL. Settings: `push_to_hub`."""
    repository = plan.repository

    def attempt() -> str:
        _, me = remote.check_login(api, repository.repo_id, create_pr=create_pr)
        state = remote.read_state(api, repository)
        remote.check_private(repository, state, private)
        changes = remote.find_changes(plan.files, state)
        if state.head is not None and not changes:
            if not create_pr:
                _create_missing(api, repository, state, private)  # a branch that begins with the same files
            kind = "spaces/" if repository.repo_type == "space" else ""
            url = f"{api.endpoint}/{kind}{repository.repo_id}/commit/{state.head}"
            echo(f"Nothing to upload: the repository is up to date ({url})")
            return url
        if not create_pr and not overwrite_card and any(file.name == CARD for file in changes.updated):
            _check_remote_card(api, repository, str(state.head))
        request = remote.open_pull_request(api, repository, plan.files, me) if create_pr and state.head else None
        if request is not None:
            echo(f"Nothing to upload: a pull request already holds it all ({request})")
            return request
        _create_missing(api, repository, state, private)
        url = _commit(api, repository, state, changes, create_pr, commit_message)
        echo(f"Uploaded: {url}")
        return url

    echo(plan.format())
    return with_retries(attempt, repository.repo_id)


def full_name(api: Any, repo_id: str) -> str:
    """`owner/name` of a repository that may lack its owner, whom only the Hub knows."""
    check_name(repo_id)
    return repo_id if "/" in repo_id else with_retries(lambda: remote.check_login(api, repo_id)[0], repo_id)


def check_access(repo_id: str, *, token: str | None = None) -> None:
    """Refuses early what would fail after hours of training: nobody logged in, or no permission to write there."""
    check_name(repo_id)
    api = HfApi(token=token)
    with_retries(lambda: remote.check_login(api, repo_id), repo_id)


def open_repository(api: Any, repo_id: str, *, revision: str | None = None, private: bool | None = None) -> str:
    """Creates a model repository and its branch where they are missing; returns its full id."""

    def attempt() -> str:
        repository = Repository(remote.check_login(api, repo_id)[0], "model", revision)
        state = remote.read_state(api, repository)
        remote.check_private(repository, state, private)
        _create_missing(api, repository, state, private)
        return repository.repo_id

    return with_retries(attempt, repo_id)


def with_retries(action: Callable[[], _Result], repo_id: str) -> _Result:
    """Calls `action`, a few times if the network or the Hub fails; raises errors with messages of ours."""
    watch = remote.Watch()
    for wait in (*_WAITS, None):
        try:
            with remote.patient_client(watch):
                return action()
        except Exception as error:
            if wait is None or not is_transient(error):
                explained = explain(error, repo_id)
                if explained is error:
                    raise
                raise explained from error
            time.sleep(max(wait, wait_after(error)))
    raise AssertionError("the last attempt returns or raises")


def _check_remote_card(api: Any, repository: Repository, head: str) -> None:
    """Refuses to replace a card that was edited on the Hub."""
    if not is_untouched(remote.read_card(api, repository, head)):
        copied = "copy the edits into your README.md and push with --overwrite-card"
        step = f"replace it with --overwrite-card, propose yours with --create-pr, or {copied}"
        expected = f"a card in {repository.repo_id} that nobody has edited"
        raise InputError(expected, "one that a person wrote or changed", step)


def _create_missing(api: Any, repository: Repository, state: State, private: bool | None) -> None:
    """Creates the repository and its branch where they are missing."""
    repo_id, repo_type, revision = repository.repo_id, repository.repo_type, repository.revision
    if state.head is None:
        sdk = "gradio" if repo_type == "space" else None
        api.create_repo(repo_id, private=private, repo_type=repo_type, space_sdk=sdk, exist_ok=True)
    if revision is not None and not state.has_branch and not revision.startswith("refs/"):
        api.create_branch(repo_id, branch=revision, repo_type=repo_type, exist_ok=True)


def _commit(
    api: Any, repository: Repository, state: State, changes: Changes, create_pr: bool, commit_message: str | None
) -> str:
    """One commit on top of what was compared with; returns its URL or that of the pull request."""
    new = (*changes.added, *changes.updated)
    with warnings.catch_warnings():
        # Outputs in a model's repository are intended, and so is a Space's card without a license.
        warnings.filterwarnings("ignore", message="It seems that you are about to commit a data file")
        warnings.filterwarnings("ignore", message="Warnings while validating metadata in README.md")
        operations = [*(file.operation for file in new), *map(CommitOperationDelete, changes.removed)]
        try:
            commit = api.create_commit(
                operations=operations,
                commit_message=commit_message or changes.summary(),
                commit_description=changes.summary() if commit_message else "",
                create_pr=create_pr,
                parent_commit=state.head,
                **repository.arguments,
            )
        except Exception:
            for file in new:
                file.check_unchanged()  # the Hub refuses content that does not have its digest
            raise
    return str(commit.pr_url or commit.commit_url)
