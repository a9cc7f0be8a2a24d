"""What an upload would send, checked as far as possible without the network. Leaves out: sending it (`upload.py`)."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import yaml
from huggingface_hub import ModelCard
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.hub.files import UploadFile
from trl_rewards_plugin.hub.remote import Repository
from trl_rewards_plugin.hub.secret_search import find_secret, forms, without_secrets
from trl_rewards_plugin.hub.stamp import has_untouched_text
from trl_rewards_plugin.runs.layout import CARD, METRICS
from trl_rewards_plugin.text import counted, one_line
from trl_rewards_plugin.yaml_text import reason

_OWN_METRICS = Path(__file__).parents[1] / "metrics"
# Files that could hold a path of this machine; not vocabularies, where "/root/" may be a token.
_MAY_HOLD_PATHS = (
    CARD, METRICS, "*.yaml", "config.json", "generation_config.json", "adapter_config.json", "tokenizer_config.json",
)  # fmt: skip


@dataclass(frozen=True)
class UploadPlan:
    """A checked upload, not yet sent: where to, the files by name, and what stays local, each with the reason."""

    repository: Repository
    files: Sequence[UploadFile]
    left_out: Mapping[str, str]

    @property
    def card(self) -> str:
        """README.md as it will be in the repository."""
        return next(file.text for file in self.files if file.name == CARD)

    def format(self) -> str:
        """The files with their sizes and what stays local, as text."""
        width = max(len(file.name) for file in self.files)
        kind = "Space" if self.repository.repo_type == "space" else "model"
        branch = f", branch {self.repository.revision}" if self.repository.revision else ""
        total = format_size(sum(file.size for file in self.files))
        lines = [f"{kind} {self.repository.repo_id}{branch}: {len(self.files)} files, {total}"]
        lines += [f"  {file.name:<{width}}  {format_size(file.size):>9}" for file in self.files]
        if not has_untouched_text(self.card):
            lines.append("The card was edited by hand and is uploaded as it is.")
        unknown = [key for key in ("license", "base_model") if not ModelCard(self.card).data.get(key)]
        if unknown and kind == "model":
            this = "it" if len(unknown) == 1 else "them"
            lines.append(f"The card names no {' and no '.join(unknown)}: fill {this} in at the top of README.md.")
        lines += self._copied() if kind == "Space" else []
        if self.left_out:
            lines.append("Stays local:")
            lines += [f"  {one_line(without_secrets(name))}  ({reason})" for name, reason in self.left_out.items()]
        return "\n".join(lines)

    def _copied(self) -> list[str]:
        """A warning for each line by which a Space still is the metric it was copied from, and one for its prose."""
        names, found = {file.name.removesuffix(".py") for file in self.files}, []
        for metric in sorted({"grammaticality", "neutrality", "reward_gain"} - names):
            words = metric.replace("_", " ")
            places = (
                rf"^(?i:title|# Metric): *(?i:{words})\s*$", rf"\bclass {words.title().replace(' ', '')}\b",
                rf"(?<!\w)(['\"]){metric}\1", rf"^[-\s]*`?{metric}`? \(float\)", rf"\b{metric} = evaluate\.load\(",
                rf"\b{metric.upper()}\b",
            )  # fmt: skip
            named = re.compile(rf"^.*?(?:{'|'.join(places)}).*$", re.MULTILINE)
            for file in (file for file in self.files if file.name.endswith((".md", ".py"))):
                lines = [one_line(without_secrets(match[0])) for match in named.finditer(file.text)]
                found += [f"{file.name} still names {metric}, as before it was copied: {line}" for line in lines]
            own = _own_prose(metric)
            if kept := [line for line in self.card.splitlines() if line in own]:
                number = counted(len(kept), "line")
                found.append(f"README.md still has {number} copied from {metric}'s, such as: {kept[0].strip()}")
        return found


def _own_prose(metric: str) -> set[str]:
    """The long lines that no other metric's README has."""
    texts = {path.parent.name: path.read_text(encoding="utf-8") for path in _OWN_METRICS.glob("*/README.md")}
    lines = {name: {line for line in text.splitlines() if len(line) > 60} for name, text in texts.items()}
    return lines.pop(metric).difference(*lines.values())


def check_name(repo_id: str, revision: str | None = None) -> None:
    """Refuses a repository or a branch that the Hub would not accept."""
    if revision is not None and not re.fullmatch(r"(?!.*\.\.)\w[\w./-]{0,199}", revision, re.ASCII):
        step = "use letters, digits, '-', '_', '.' and '/', such as experiment-2"
        raise InputError("the name of a branch", repr(revision), step)
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        step = "use letters, digits, '-', '_' and '.', such as me/my-model"
        raise InputError("a repository as owner/name", repr(repo_id), step) from error


def check_card(card: str) -> None:
    """Refuses a card whose metadata cannot be parsed."""
    try:
        ModelCard(card)
    except (ValueError, TypeError, yaml.YAMLError, RecursionError) as error:
        step = "fix the lines between the two --- in README.md, or render it again with trl-rewards card"
        raise InputError("a card whose metadata can be parsed", f"metadata{reason(error)}", step) from error


def check_content(folder: Path, files: Sequence[UploadFile], own_token: str | None) -> None:
    """Refuses secrets, `own_token` among them, and paths of this machine in `files` of `folder`."""
    places = {f"{path}/" for path in (Path.home(), folder.resolve().parent) if len(path.parts) > 1}
    for file in files:
        contents = [file.name.encode("utf-8", "surrogatepass"), *forms(file)]
        kind = next((kind for content in contents if (kind := find_secret(content, own_token))), None)
        if kind is not None:
            step = "remove it from the file, and revoke it if anyone else may have seen it"
            raise InputError("files without secrets", f"{kind} in {without_secrets(file.name)}", step)
        if any(fnmatch(file.name, pattern) for pattern in _MAY_HOLD_PATHS):
            for place in places:
                if any(place.encode() in content for content in contents):
                    found, step = f"{place} in {file.name}", "replace it with a name that others know"
                    raise InputError("files without paths of this machine", found, step)


def format_size(size: int) -> str:
    """`size` bytes as "512 B", "15.6 kB", "3.2 MB", "1.1 GB"."""
    if size < 1000:
        return f"{size} B"
    value, units = size / 1000, ["kB", "MB", "GB", "TB"]
    while value >= 999.95 and len(units) > 1:
        value, units = value / 1000, units[1:]
    return f"{value:.1f} {units[0]}"
