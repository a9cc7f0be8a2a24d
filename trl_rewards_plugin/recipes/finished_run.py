"""What a finished run leaves in its folder beside the model: completions, settings, metrics and card.

Leaves out: how files are written (`runs/writing.py`) and what the card says (`cards/`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trl_rewards_plugin.cards.model_card import write_model_card
from trl_rewards_plugin.ppo.trainer import Seq2SeqPPOTrainer
from trl_rewards_plugin.recipes.before_after import Evaluation, RunFacts
from trl_rewards_plugin.recipes.run_inputs import RunInputs
from trl_rewards_plugin.recipes.run_presets import PRESETS
from trl_rewards_plugin.runs import layout
from trl_rewards_plugin.runs.environment import energy, hardware, precision
from trl_rewards_plugin.runs.record import configuration
from trl_rewards_plugin.runs.reward_description import reward_record
from trl_rewards_plugin.runs.writing import write_json, write_rows, write_yaml


def run_facts(trainer: Seq2SeqPPOTrainer, after: Evaluation) -> RunFacts:
    """KL of the trained policy, episodes, seconds and seed."""
    log_ratio = after.sampled.log_ratio
    episodes = [row["episode"] for row in trainer.state.log_history if "episode" in row]
    return RunFacts(
        kl=None if log_ratio is None else float(log_ratio.mean()),
        episodes=int(episodes[-1]) if episodes else trainer.state.global_step * trainer.args.rollout_batch_size,
        seconds=trainer.train_seconds,
        seed=trainer.args.seed,
    )


def write_run(
    folder: Path,
    trainer: Seq2SeqPPOTrainer,
    config: Mapping[str, Any],
    metrics: Mapping[str, Any],
    completions: Sequence[Mapping[str, Any]],
) -> None:
    """Writes everything but the model.

    The card reads the other files. Of these the metrics come last: a folder that has them is complete.
    """
    write_rows(folder / layout.HELD_OUT, completions)
    write_yaml(folder / layout.CONFIG, config)
    write_json(folder / layout.METRICS, metrics)
    write_model_card(folder)


def run_config(
    given: Mapping[str, Any], trainer: Seq2SeqPPOTrainer, inputs: RunInputs, known: Mapping[str, Any]
) -> dict[str, Any]:
    """The contents of `config.yaml`.

    Args:
        given: Arguments of the recipe, by name.
        known: What only the recipe knows of how the run was made.
    """
    made_of = {
        **reward_record(inputs.reward),
        **known,
        "train_rows": len(inputs.data.train),
        "held_out_rows": len(inputs.data.held_out),
        "held_out": inputs.data.eval_name,
        "epoch_rewards": [row["epoch_reward"] for row in trainer.state.log_history if "epoch_reward" in row],
        "hardware": hardware(trainer.args.device, trainer.args.world_size),
        "precision": precision(trainer.args, trainer.state.log_history),
        "energy": energy(trainer.callback_handler.callbacks),
    }
    # The file is read on top of a preset, so what any preset sets is written even at its default.
    always = {key for preset in PRESETS.values() for key in preset.config}
    return configuration(given, trainer.args, made_of, always)
