"""The contents of a card, as data. Leaves out: where they come from (`from_run.py`, `from_trainer.py`)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from trl_rewards_plugin.runs.reward_description import WEIGHTED_SUM

# Algorithm, as a card calls it -> its paper.
OUR_PAPERS: Mapping[str, Mapping[str, str]] = {
    "PPO": {"title": "Proximal Policy Optimization Algorithms", "id": "1707.06347"},
    "RAFT": {"title": "RAFT: Reward rAnked FineTuning for Generative Foundation Model Alignment", "id": "2304.06767"},
    "DPO (online)": {"title": "Direct Preference Optimization", "id": "2305.18290"},
}
_BY_OBJECTIVE = {"raft": "RAFT", "dpo": "DPO (online)"}


def our_algorithm(objective: str | None) -> str:
    """What a card calls the objective of a run; PPO where a run does not say."""
    return _BY_OBJECTIVE.get(objective or "", "PPO")


@dataclass(frozen=True)
class RewardModelCardData:
    """The contents of a card. What is empty or None is not mentioned.

    Attributes:
        model_name: Title, and the name in the quickstart.
        base_model: The model that was fine-tuned, without paths of this machine; linked if it is a Hub id.
        encoder_decoder: False for a decoder, which continues its prompt.
        chat: Whether the tokenizer has a chat template and the prompts are conversations.
        adapter: Whether the folder holds a PEFT adapter, not a full model.
        algorithm: Such as "PPO", "GRPO" or "DPO"; ours are the keys of `OUR_PAPERS`.
        paper: The algorithm's: `title`, `id` (arXiv) and `citation` (BibTeX), each where known.
        rewards: As `reward.describe()` returns them: name, model, label, weight, score_type, revision, pair ...
        held_out_rewards: Likewise, what judged the outputs without being trained on: `held_out_reward` in `metrics`.
        aggregation, disagreement_coef: How they are combined; see `MultiClassifierReward`.
        evaluation_scales: Name of a running z-score -> mean and standard deviation that the evaluations used.
        dataset: Where the prompts come from; linked if it is a Hub id.
        prompts: A few prompts, as the model reads them. Only what may be public.
        prompt_prefix: Prepended to every prompt.
        held_out: Description of the rows that the numbers, `metrics.json`, are from.
        samples: Rows with `source`, `before`, `after`, `before_reward`, `after_reward`: the first of the held-out set.
        gains: Likewise, where the reward rose most.
        losses: Likewise, where it fell most.
        rows_better, rows_worse: Number of held-out outputs whose reward rose, and fell.
        log: Rows of the training log: `step`, and heading -> number; for a run without a curve.
        curve, reward_kl: File names of the reward curve, and of reward against KL, beside the card.
        settings: Non-default fields of the config.
        config_file: File name beside the card that `trl-rewards train --config` reads.
        precision: What it was computed in, with the gap between sampling and scoring that was measured.
        seconds: How long training took, unless `metrics` says.
        energy: `kwh` and `co2_grams`, as measured.
        license: SPDX id in lower case, if known.
        language: Code of the texts' language.
        tags: In addition to those that every card has.
    """

    model_name: str
    base_model: str | None = None
    encoder_decoder: bool = True
    chat: bool = False
    adapter: bool = False
    algorithm: str = "PPO"
    paper: Mapping[str, str] = field(default_factory=dict)
    rewards: Sequence[Mapping[str, Any]] = ()
    held_out_rewards: Sequence[Mapping[str, Any]] = ()
    aggregation: str = WEIGHTED_SUM
    disagreement_coef: float | None = None
    evaluation_scales: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    dataset: str | None = None
    train_rows: int | None = None
    prompts: Sequence[str] = ()
    prompt_prefix: str = ""
    held_out: str | None = None
    metrics: Mapping[str, Any] | None = None
    samples: Sequence[Mapping[str, Any]] = ()
    gains: Sequence[Mapping[str, Any]] = ()
    losses: Sequence[Mapping[str, Any]] = ()
    rows_better: int | None = None
    rows_worse: int | None = None
    epoch_rewards: Sequence[float] = ()
    log: Sequence[Mapping[str, Any]] = ()
    curve: str | None = None
    reward_kl: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    max_new_tokens: int | None = None
    seed: int | None = None
    config_file: str | None = None
    hardware: str | None = None
    precision: str | None = None
    seconds: float | None = None
    energy: Mapping[str, float] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    commit: str | None = None
    license: str | None = None
    language: str | None = None
    pipeline_tag: str | None = None
    tags: Sequence[str] = ()
