"""Keeps the user's own prompts at home: a card that a person edited still shows those that it was written with.

A card of ours is rendered again without them instead (`plan.py`). Leaves out: outputs without their prompt.
"""

from __future__ import annotations

from pathlib import Path

from trl_rewards_plugin.cards.from_run import card_data_from_folder, has_own_texts
from trl_rewards_plugin.cards.markdown import cell, quote
from trl_rewards_plugin.cards.quickstart import prompt_literal
from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.runs.layout import is_finished_run
from trl_rewards_plugin.text import one_line


def check_own_texts(card: str, folder: Path) -> None:
    """Looks for prompts of the run in an edited `card`, wherever a card of ours shows them.

    Raises:
        InputError: the prompts are the user's own, and some stand in the card.
    """
    if not is_finished_run(folder) or not has_own_texts(folder):
        return
    data = card_data_from_folder(folder)
    rows = [*data.samples, *data.gains, *data.losses]
    shown = {f"| {cell(row['source'])} |" for row in rows} | {quote(prompt) for prompt in data.prompts}
    if data.prompts:
        shown.add(prompt_literal(data))
    found = sum(form in card for form in shown)
    prompts = {one_line(row.get("prompt") or data.prompt_prefix + row["source"]) for row in rows}
    found += sum(text in prompts for text in _widget_texts(card))
    if found:
        raise InputError(
            "a card without prompts of your own",
            f"them in {found} places of README.md, which was edited by hand",
            "take them out, write the card anew with trl-rewards card --overwrite-card, or show them to everyone with "
            "--include-completions",
        )


def _widget_texts(card: str) -> list[str]:
    from huggingface_hub import ModelCard

    examples = ModelCard(card).data.get("widget") or []
    return [str(example["text"]) for example in examples if isinstance(example, dict) and "text" in example]
