"""The model card: data, a Markdown template, one render function.

A section of the template that has nothing to say is left out, heading and all. Leaves out: uploading, and any look-up
on the network.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from string import Template
from typing import Any

from trl_rewards_plugin.cards import metadata, quickstart
from trl_rewards_plugin.cards.card_data import RewardModelCardData
from trl_rewards_plugin.cards.citations import citations
from trl_rewards_plugin.cards.from_run import card_data_from_folder
from trl_rewards_plugin.cards.from_trainer import card_data_from_trainer
from trl_rewards_plugin.cards.markdown import escape
from trl_rewards_plugin.cards.sections import limits, objective, results, sample_outputs, training
from trl_rewards_plugin.cards.stamp import is_untouched, stamped
from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.runs.layout import CARD, EVAL_RESULTS
from trl_rewards_plugin.runs.read import read_text
from trl_rewards_plugin.runs.writing import write_text

__all__ = ["RewardModelCardData", "generate_model_card", "render_model_card", "write_model_card"]

TEMPLATE = Path(__file__).with_name("card_template.md")


def generate_model_card(run_or_trainer: Any, **changes: Any) -> str:
    """The card of a run folder, a `RunResult` or a trainer, as Markdown.

    A trainer, ours or one of TRL's own (GRPO, RLOO, DPO ...), knows its settings and its log; only a run folder has
    results on held-out prompts.

    Args:
        run_or_trainer: What to tell of.
        **changes: Fields of `RewardModelCardData` to set, such as `model_name`, `license` or `language`.

    Raises:
        InputError: it is no run folder, or `changes` names an unknown field.
    """
    return render_model_card(card_data(run_or_trainer, **changes))


def card_data(run_or_trainer: Any, **changes: Any) -> RewardModelCardData:
    """What `generate_model_card` renders."""
    unknown = [name for name in changes if name not in RewardModelCardData.__dataclass_fields__]
    if unknown:
        raise InputError("fields of RewardModelCardData", ", ".join(unknown), "see help(RewardModelCardData)")
    folder = getattr(run_or_trainer, "folder", run_or_trainer)
    is_folder = isinstance(folder, str | Path)
    data = card_data_from_folder(Path(folder)) if is_folder else card_data_from_trainer(run_or_trainer)
    return dataclasses.replace(data, **changes)


def write_model_card(folder: Path, *, overwrite: bool = True) -> Path:
    """Renders the card of a run folder into it, with the file of `.eval_results/` where there is one.

    Raises:
        InputError: it is no run folder, or `overwrite` is False and a person edited the card.
    """
    data = card_data_from_folder(folder)
    path, card = folder / CARD, render_model_card(data)
    if not overwrite and path.is_file() and not is_untouched(read_text(path), card):
        raise InputError(
            "a card that this package wrote and nobody edited",
            f"{path}, which a person edited",
            "give up the edits with --overwrite-card, or keep the card",
        )
    entries = metadata.eval_results(data)
    if entries is not None:
        (folder / EVAL_RESULTS).parent.mkdir(exist_ok=True)
        write_text(folder / EVAL_RESULTS, entries)
    write_text(path, card)
    return path


def render_model_card(data: RewardModelCardData) -> str:
    """Markdown with YAML front matter; the same data give the same text."""
    fields = {
        "title": escape(data.model_name.rpartition("/")[2] or data.model_name),
        "intro": objective.intro(data),
        "headline": results.headline(data),
        "rewards": objective.rewards(data),
        "quickstart": quickstart.quickstart(data),
        "hosted": quickstart.hosted(data),
        "results": results.results(data),
        "guards": results.guards(data),
        "yardsticks": results.yardsticks(data),
        "curve": training.curve(data),
        "training": training.training(data),
        "settings": training.settings(data),
        "data": training.data_section(data),
        "log": training.log(data),
        "samples": sample_outputs.samples(data),
        "gains": sample_outputs.gains(data),
        "losses": sample_outputs.losses(data),
        "limits": limits.limits(data),
        "reproduce": training.reproduce(data),
        "citations": citations(data),
    }
    head, *parts = re.split(r"(?m)^(?=## )", TEMPLATE.read_text(encoding="utf-8"))
    kept = [head] + [part for part in parts if _says_something(part, fields)]
    body = Template("".join(kept)).substitute(fields, front_matter=metadata.front_matter(data))
    return stamped(re.sub(r"\n{3,}", "\n\n", body).strip() + "\n")


def _says_something(part: str, fields: Mapping[str, str]) -> bool:
    return any(fields[name] for name in re.findall(r"\$(\w+)", part))
