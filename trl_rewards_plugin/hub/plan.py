"""What an upload would send, checked as far as possible without the network. Leaves out: sending it (`upload.py`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from huggingface_hub import ModelCard
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.hub.files import Selection, select_space
from trl_rewards_plugin.hub.outgoing import UploadFile
from trl_rewards_plugin.hub.remote import Repository
from trl_rewards_plugin.hub.secrets import check_content
from trl_rewards_plugin.hub.stamp import is_untouched, stamped
from trl_rewards_plugin.runs.layout import CARD
from trl_rewards_plugin.text import one_line


@dataclass(frozen=True)
class UploadPlan:
    """A checked upload, not yet sent.

    Attributes:
        repository: The destination.
        files: By name.
        left_out: What of the folder stays local, each with the reason.
    """

    repository: Repository
    files: Sequence[UploadFile]
    left_out: Mapping[str, str]

    def format(self) -> str:
        """The files with their sizes and what stays local, as text."""
        width = max(len(file.name) for file in self.files)
        kind = "Space" if self.repository.repo_type == "space" else "model"
        branch = f", branch {self.repository.revision}" if self.repository.revision else ""
        total = format_size(sum(file.size for file in self.files))
        lines = [f"{kind} {self.repository.repo_id}{branch}: {len(self.files)} files, {total}"]
        lines += [f"  {file.name:<{width}}  {format_size(file.size):>9}" for file in self.files]
        if not is_untouched(self.card):
            lines.append("The card was edited by hand and is uploaded as it is.")
        if self.left_out:
            lines.append("Stays local:")
            lines += [f"  {one_line(name)}  ({reason})" for name, reason in self.left_out.items()]
        return "\n".join(lines)

    @property
    def card(self) -> str:
        """README.md as it will be in the repository."""
        return next(file.text for file in self.files if file.name == CARD)


def plan_upload(
    folder: Path, repository: Repository, selection: Selection, card: str, own_token: str | None
) -> UploadPlan:
    """The files that `selection` took from `folder`, with `card` as their README.md.

    Raises:
        InputError: the card is invalid, or a file holds what must not become public; `own_token` is this login's.
    """
    check_card(card)
    files = [file for file in selection.files if file.name != CARD] + [UploadFile(CARD, card.encode("utf-8"))]
    files.sort(key=lambda file: file.name)
    check_content(folder, files, own_token)
    return UploadPlan(repository, files, selection.left_out)


def plan_space(folder: Path, repository: Repository, own_token: str | None) -> UploadPlan:
    """A metric's folder as a Space, its card stamped so that edits on the Hub are noticed later.

    Raises:
        InputError: a file is missing; see also `plan_upload`.
    """
    selection = select_space(folder)
    return plan_upload(folder, repository, selection, stamped(selection.text_of(CARD)), own_token)


def check_name(repo_id: str) -> None:
    """Checks that `repo_id` is a name that the Hub accepts.

    Raises:
        InputError: it is not.
    """
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        step = "use letters, digits, '-', '_' and '.', such as me/my-model"
        raise InputError("a repository as owner/name", repr(repo_id), step) from error


def check_card(card: str) -> None:
    """Checks that the card's metadata can be parsed.

    Raises:
        InputError: they cannot.
    """
    try:
        ModelCard(card)
    except (ValueError, TypeError, yaml.YAMLError) as error:
        step = "fix the lines between the two --- in README.md, or render it again with trl-rewards card"
        raise InputError("a card whose metadata can be parsed", " ".join(str(error).split()), step) from error


def format_size(size: int) -> str:
    """`size` bytes as "512 B", "15.6 kB", "3.2 MB", "1.1 GB"."""
    if size < 1000:
        return f"{size} B"
    value, units = size / 1000, ["kB", "MB", "GB", "TB"]
    while value >= 999.95 and len(units) > 1:
        value, units = value / 1000, units[1:]
    return f"{value:.1f} {units[0]}"
