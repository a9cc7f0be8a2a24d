"""`best_of_n`: what sampling alone reaches, the baseline for a trained model; as pairs, best against worst."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import compress
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset

from trl_rewards_plugin.assets import resolve
from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.ppo.architectures.families import make_deterministic
from trl_rewards_plugin.ppo.architectures.limits import check_architecture
from trl_rewards_plugin.ppo.config import Seq2SeqPPOConfig
from trl_rewards_plugin.ppo.decoding import decode_prompts, rules_for
from trl_rewards_plugin.ppo.input_checks import check_seq2seq_model
from trl_rewards_plugin.ppo.policy.load_policy import load_policy
from trl_rewards_plugin.ppo.policy.policy import bare_model
from trl_rewards_plugin.ppo.scoring import as_completions
from trl_rewards_plugin.recipes.before_after import best_of, score_samples
from trl_rewards_plugin.rewards import MultiClassifierReward, RewardScores


@dataclass(frozen=True)
class BestOfN:
    """The best responses to B prompts, special tokens left out, with their scores, (B,) each, and the worst ones."""

    texts: list[str]
    scores: RewardScores
    prompts: list[Any] = field(default_factory=list)
    worst: list[str] = field(default_factory=list)
    differ: list[bool] = field(default_factory=list)

    @property
    def ties(self) -> int:
        """Prompts whose samples have one reward."""
        return self.differ.count(False)

    def to_preference_dataset(self) -> Dataset:
        """TRL's columns prompt, chosen (the best) and rejected (the worst), without ties; all ties are refused."""
        if not any(self.differ):
            raise InputError("samples of different rewards", f"{self.ties} ties", "raise n, or give more prompts")
        chosen, rejected = (as_completions(texts, self.prompts) for texts in (self.texts, self.worst))
        columns = {"prompt": self.prompts, "chosen": chosen, "rejected": rejected}
        return Dataset.from_dict({name: list(compress(values, self.differ)) for name, values in columns.items()})


def best_of_n(
    model: Any,
    reward: Any,
    prompts: Sequence[Any],
    n: int = 16,
    *,
    processing_class: Any = None,
    args: Seq2SeqPPOConfig | None = None,
    columns: Mapping[str, Sequence[Any]] | None = None,
    seed: int = 0,
) -> BestOfN:
    """Samples `n` responses to each prompt as training does, and keeps the one with the highest reward.

    At inference it costs `n` generations where a trained model needs one, and it stays close to the model: its KL to
    plain sampling is at most log n - (n - 1) / n nats, 1.8 for n = 16 (Beirami et al., arXiv 2401.01879). Training
    that ends with a lower reward at a larger KL was not worth its cost.

    Args:
        model: Hub id, folder, "bundled:tiny-t5", or a loaded encoder-decoder, such as `trainer.policy_model`.
        reward: What `Seq2SeqPPO` takes: a reward, a callable, a list of them, or the name of a preset or file.
        prompts: B texts or conversations, as the model reads them.
        n: Samples per prompt; 1 is plain sampling.
        processing_class: The tokenizer; loaded by the model's name if left out.
        args: Temperature, lengths, suppressed tokens, batch size and device; the defaults if left out.
        columns: B values of each further column that a reward reads.
        seed: Of the sampling alone.

    Raises:
        InputError: no prompts, `n` below 1, columns of another length, or a model that cannot be sampled this way.
    """
    columns = columns or {}
    _check(prompts, n, columns)
    args = args or Seq2SeqPPOConfig(output_dir="trainer_output", report_to="none")
    named = isinstance(model, str | Path)
    model = resolve(str(model)) if named else model
    check_seq2seq_model(model)
    scorer = as_scorer(reward)
    policy, processing_class = load_policy(model, processing_class)
    check_architecture(bare_model(policy), args, rules_for(policy, args, processing_class))
    if named:  # a loaded model stays as it is, where it is
        make_deterministic(policy)
        policy.to(args.device)
    decode = partial(decode_prompts, policy, processing_class, args=args, seed=seed)
    many = score_samples(decode, scorer, prompts, n, columns, args.missing_eos_penalty)
    best, worst = (many.take(best_of(totals, n)) for totals in (many.total, -many.total))
    scores = {name: torch.tensor(values, dtype=torch.float32) for name, values in best.by_name().items()}
    differ = (best.total > worst.total).tolist()
    return BestOfN(best.texts, RewardScores(scores.pop("reward"), scores), list(prompts), worst.texts, differ)


def as_scorer(reward: Any) -> Any:
    """A reward with `.score`: itself, a preset's or a file's by name, or callables added up."""
    if isinstance(reward, str | Path):
        return MultiClassifierReward.from_preset(str(reward))
    if hasattr(reward, "score") and not hasattr(reward, "predict_proba"):  # scikit-learn's models have both
        return reward
    return MultiClassifierReward(list(reward) if isinstance(reward, list | tuple) else [reward])


def _check(prompts: Any, n: int, columns: Mapping[str, Sequence[Any]]) -> None:
    if isinstance(prompts, str) or not len(prompts):
        step = "pass [prompt], or the column dataset['prompt']"
        raise InputError("a list of at least one prompt", repr(prompts), step)
    if n < 1:
        raise InputError("n of at least 1 sample per prompt", f"n={n}", "16 is what a run compares with")
    for name, values in columns.items():
        if len(values) != len(prompts):
            expected = f"{len(prompts)} values in every column, one per prompt"
            raise InputError(expected, f"{len(values)} in {name!r}", "pass the rows of the same prompts")
