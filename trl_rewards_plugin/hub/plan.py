"""What an upload would send, with everything checked that needs no network. Leaves out: sending it (`upload.py`)."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from trl_rewards_plugin.cards.from_run import card_data_from_folder, has_own_texts
from trl_rewards_plugin.cards.model_card import render_model_card
from trl_rewards_plugin.cards.quickstart import with_name
from trl_rewards_plugin.cards.stamp import is_untouched, stamped
from trl_rewards_plugin.errors import InputError
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
from trl_rewards_plugin.hub.own_texts import check_own_texts
from trl_rewards_plugin.hub.remote import Repository
from trl_rewards_plugin.runs.layout import CARD, is_finished_run
from trl_rewards_plugin.runs.read import read_text


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


def plan_upload(
    folder: Path | str, repo_id: str, *, revision: str | None = None, include_completions: bool = False
) -> Upload:
    """Everything that `push_to_hub` checks without the network, secrets of this login aside.

    Raises:
        InputError: what must not or cannot go up.
    """
    folder = Path(folder)
    check_name(repo_id)
    if is_space(folder):
        return _plan_space(folder, Repository(repo_id, "space", revision))
    selection = select_model(folder, include_completions=include_completions)
    card, kept = _card(folder, repo_id, include_completions)
    check_card(card)
    if kept and not include_completions:
        check_own_texts(card, folder)
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


def check_name(repo_id: str) -> None:
    """Whether the Hub takes it.

    Raises:
        InputError: it does not.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        step = "use letters, digits, '-', '_' and '.', such as me/my-model"
        raise InputError("a repository as owner/name", repr(repo_id), step) from error


def _card(folder: Path, repo_id: str, include_completions: bool) -> tuple[str, bool]:
    """The card as it goes up, and whether it is the user's own edited one."""
    text = read_text(folder / CARD) if (folder / CARD).is_file() else ""
    if not is_finished_run(folder):
        if not text:
            step = "write one, give the output_dir of a run, or call the trainer's create_model_card()"
            raise InputError(f"a model with its card, {CARD}", f"none in {folder}", step)
        return (stamped(with_name(text, repo_id)), False) if is_untouched(text) else (text, True)
    if not is_untouched(text, render_model_card(card_data_from_folder(folder))):
        return text, True
    show = include_completions or not has_own_texts(folder)
    data = card_data_from_folder(folder, show_texts=show)
    return render_model_card(dataclasses.replace(data, model_name=repo_id)), False
