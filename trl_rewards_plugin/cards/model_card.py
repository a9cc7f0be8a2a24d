"""The model card of a run folder or a trainer. Leaves out: uploading, and any look-up on the network."""

import dataclasses
from pathlib import Path
from typing import Any

from trl_rewards_plugin.atomic import write_text
from trl_rewards_plugin.cards.card_data import RewardModelCardData
from trl_rewards_plugin.cards.from_run import card_data_from_folder
from trl_rewards_plugin.cards.from_trainer import card_data_from_trainer
from trl_rewards_plugin.cards.metadata import eval_results
from trl_rewards_plugin.cards.render import render_model_card
from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.hub.stamp import is_untouched
from trl_rewards_plugin.runs.layout import CARD, EVAL_RESULTS
from trl_rewards_plugin.runs.read import read_text


def generate_model_card(run_or_trainer: Any, **changes: Any) -> str:
    """The card, as Markdown, of a run folder, a `RunResult`, or a trainer: ours or one of TRL's own (GRPO, DPO ...).

    Args:
        run_or_trainer: What to describe; only a run folder has results on held-out prompts.
        **changes: Fields of `RewardModelCardData` to set, such as `model_name`, `license` or `language`.

    Raises:
        InputError: it is not a run folder, or `changes` names an unknown field.
    """
    unknown = [name for name in changes if name not in RewardModelCardData.__dataclass_fields__]
    if unknown:
        raise InputError("fields of RewardModelCardData", ", ".join(unknown), "see help(RewardModelCardData)")
    folder = getattr(run_or_trainer, "folder", run_or_trainer)
    is_folder = isinstance(folder, str | Path)
    data = card_data_from_folder(Path(folder)) if is_folder else card_data_from_trainer(run_or_trainer)
    return render_model_card(dataclasses.replace(data, **changes))


def write_model_card(folder: Path, *, overwrite: bool = True) -> Path:
    """Renders the card of a run folder into it, and `.eval_results/`; an edited one only if `overwrite`."""
    data = card_data_from_folder(folder)
    path, card = folder / CARD, render_model_card(data)
    if not overwrite and path.is_file() and not is_untouched(read_text(path), card):
        step = "discard the edits with --overwrite-card, or keep the card"
        raise InputError("a card that this package wrote and nobody edited", f"{path}, which was edited by hand", step)
    entries = eval_results(data)
    if entries is not None:
        (folder / EVAL_RESULTS).parent.mkdir(exist_ok=True)
        write_text(folder / EVAL_RESULTS, entries)
    write_text(path, card)
    return path
