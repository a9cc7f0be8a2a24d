"""Before and after: decode the held-out prompts, score the texts, and make the contents of `metrics.json` of both."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from trl_rewards_plugin.metrics.paired_gain import paired_gain
from trl_rewards_plugin.metrics.reward_at_kl import reward_at_kl
from trl_rewards_plugin.metrics.text_metrics import collapse_warning, distinct_share, guard_metrics
from trl_rewards_plugin.ppo.decoding import Decoded
from trl_rewards_plugin.recipes.data import Columns, HeldOut
from trl_rewards_plugin.rewards.base import RewardScores

BEST_OF = 16
_SENTENCE_END = re.compile(r"(?<=[.!?])[\"'\u201d\u2019)\]]*\s+")


@dataclass(frozen=True)
class Scored:
    """N texts with their scores, (N,) each: the total, its components, and the log-ratio where it was asked for."""

    texts: list[str]
    total: np.ndarray
    components: dict[str, np.ndarray]
    log_ratio: np.ndarray | None = None  # to the reference, summed over a response, in nats

    def means(self) -> dict[str, float | None]:
        """`{"reward": mean total, "<component>": mean}`, see `mean_scored`."""
        return {name: mean_scored(values) for name, values in self.by_name().items()}

    def by_name(self) -> dict[str, np.ndarray]:
        """`{"reward": (N,) totals, "<component>": (N,)}`."""
        return {"reward": self.total, **self.components}

    def take(self, rows: np.ndarray) -> "Scored":
        """These rows alone, without their log-ratios."""
        components = {name: values[rows] for name, values in self.components.items()}
        return Scored([self.texts[row] for row in rows], self.total[rows], components)


@dataclass(frozen=True)
class WithHeldOutReward:
    """Scores as `reward` does; beside its components, in no total, stand `held_out_reward` and that one's parts."""

    reward: Any
    held_out_reward: Any

    def score(self, texts: list[str], **columns: Any) -> RewardScores:
        scores, judged = (each.score(texts, **columns) for each in (self.reward, self.held_out_reward))
        parts = judged.components if len(judged.components) > 1 else {}
        beside = {"held_out_reward": judged.total, **{f"held_out_{name}": values for name, values in parts.items()}}
        return RewardScores(scores.total, {**scores.components, **beside})


@dataclass(frozen=True)
class Evaluation:
    """One model on the held-out prompts: sampled at the training temperature (the headline) and greedy."""

    sampled: Scored
    greedy: Scored


@dataclass(frozen=True)
class Evaluator:
    """Decodes and scores the held-out prompts, always with the same settings and seed."""

    decode: Callable[..., Decoded]  # decode(prompts, *, greedy, num_samples, seed, with_reference)
    reward: Any  # what judges the texts, with `.score` (see `RewardScores`)
    encode: Callable[[list[str]], list[list[int]]]  # texts -> token ids, EOS included, for rewards that read those
    held_out: HeldOut
    seed: int = 0  # of the sampling, before and after
    missing_eos_penalty: float | None = None  # as in training
    best_of: int = BEST_OF

    def evaluate(self, *, with_reference: bool = False) -> Evaluation:
        score = partial(self.sample_and_score, self.held_out.prompts, self.held_out.columns)
        return Evaluation(score(with_reference=with_reference), score(greedy=True))

    def yardsticks(self) -> dict[str, Any]:
        """What to compare a gain with: the sources' own sentences, the best of 16 samples, and `reward_at_kl`."""
        held_out = self.held_out
        many = self.sample_and_score(held_out.prompts, held_out.columns, self.best_of)
        best, rewards = many.take(best_of(many.total, self.best_of)), many.total.reshape(-1, self.best_of)
        owned = [(owner, text) for owner, source in enumerate(held_out.sources) for text in split_sentences(source)]
        texts = [text for _, text in owned]
        columns = {name: [values[owner] for owner, _ in owned] for name, values in held_out.columns.items()}
        columns["completion_ids"] = self.encode(texts)
        sources = score_texts(self.reward, texts, [held_out.prompts[owner] for owner, _ in owned], columns)
        return {"sources": sources.means(), "best_of_16": best.means(), "reward_at_kl": reward_at_kl(rewards)}

    def sample_and_score(self, prompts: Sequence[str], columns: Columns, n: int = 1, **settings: bool) -> Scored:
        """`n` responses to each of B prompts, as in `score_samples`; `settings`: `greedy`, `with_reference`."""
        how = {"greedy": False, "with_reference": False, "seed": self.seed, **settings}
        return score_samples(partial(self.decode, **how), self.reward, prompts, n, columns, self.missing_eos_penalty)


def score_samples(
    decode: Callable[..., Decoded],
    reward: Any,
    prompts: Sequence[Any],
    n: int,
    columns: Columns,
    missing_eos_penalty: float | None,
) -> Scored:
    """`n` samples for each of B prompts, side by side; columns have B values.

    Scored as in training: with the ids that were drawn, less the penalty for a missing EOS.
    """
    repeated = [prompt for prompt in prompts for _ in range(n)]
    beside = {name: [value for value in values for _ in range(n)] for name, values in columns.items()}
    decoded = decode(prompts, num_samples=n)
    beside["completion_ids"] = decoded.ids
    scored = score_texts(reward, decoded.texts, repeated, beside, decoded.log_ratio)
    return replace(scored, total=scored.total - (missing_eos_penalty or 0.0) * ~np.asarray(decoded.ended))


def score_texts(reward: Any, texts: list[str], prompts: list[Any], columns: Columns, log_ratio: Any = None) -> Scored:
    """Scores N responses to N prompts, with N values of each further column."""
    scores = reward.score(texts, prompts=prompts, **columns)
    components = {name: np.asarray(values, dtype=np.float64) for name, values in scores.components.items()}
    ratio = None if log_ratio is None else np.asarray(log_ratio, dtype=np.float64)
    return Scored(texts, np.asarray(scores.total, dtype=np.float64), components, ratio)


def gain(before: np.ndarray, after: np.ndarray) -> dict[str, Any]:
    """`{"mean", "ci95", "n"}` of `paired_gain`, over the n prompts that were scored (not NaN) both times."""
    found = paired_gain(before.tolist(), after.tolist())
    return {"mean": found["reward_gain"], "ci95": found["ci95"], "n": found["n"]}


def _sides(before: Evaluation, after: Evaluation) -> dict[str, Scored]:
    """What was measured, by its name in a run's files."""
    sampled = {"before": before.sampled, "after": after.sampled}
    return {**sampled, "before_greedy": before.greedy, "after_greedy": after.greedy}


def completion_rows(held_out: HeldOut, before: Evaluation, after: Evaluation) -> list[dict[str, Any]]:
    """One row a held-out prompt: texts before and after, sampled and greedy, each with total and components."""
    sides = _sides(before, after)
    columns: dict[str, list[Any]] = {"prompt": held_out.prompts, "source": held_out.sources}
    columns |= {side: scored.texts for side, scored in sides.items()}
    for side, scored in sides.items():
        columns |= {f"{side}_{name}": values.tolist() for name, values in scored.by_name().items()}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def build_metrics(
    before: Evaluation, after: Evaluation, sources: Sequence[str], yardsticks: dict[str, Any], facts: dict[str, Any]
) -> dict[str, Any]:
    """The contents of `metrics.json`. Gains and guards are those of the sampled outputs, but for `distinct_greedy`.

    `before_std`: standard deviation over prompts (N - 1 in the denominator) of the sampled outputs before training.
    `sources` are what the model read of the prompts, without their prefix. `facts` are what training itself reports,
    such as `kl`, the mean over responses of the summed log-ratio to the reference, in nats.
    """
    after_by_name = after.sampled.by_name()
    gains = {name: gain(values, after_by_name[name]) for name, values in before.sampled.by_name().items()}
    guard_before, guard_after = (
        guard_metrics(each.sampled.texts, sources) | {"distinct_greedy": distinct_share(each.greedy.texts)}
        for each in (before, after)
    )
    return {
        **{side: scored.means() for side, scored in _sides(before, after).items()},
        "before_std": {name: spread_scored(values) for name, values in before.sampled.by_name().items()},
        **yardsticks,
        "reward_gain": gains.pop("reward"),
        "component_gain": gains,
        "guard": {name: {"before": guard_before[name], "after": guard_after[name]} for name in guard_before},
        "warnings": collapse_warning(before.greedy.texts, after.greedy.texts, sources),
        **facts,
    }


def count_texts(patterns: Mapping[str, str], before: Sequence[str], after: Sequence[str]) -> dict[str, Any]:
    """What is counted -> the share of texts `before` and `after` in which its regular expression is found."""

    def share(pattern: str, texts: Sequence[str]) -> float:
        return sum(re.search(pattern, text.strip()) is not None for text in texts) / len(texts)

    return {what: {"before": share(form, before), "after": share(form, after)} for what, form in patterns.items()}


def mean_scored(values: np.ndarray) -> float | None:
    """Mean of (N,) without its NaNs, which stand for texts that were not scored; None if nothing is left."""
    scored = values[~np.isnan(values)]
    return float(scored.mean()) if len(scored) else None


def spread_scored(values: np.ndarray) -> float | None:
    """Standard deviation (N - 1 in the denominator) of (N,) without its NaNs; None for fewer than two."""
    scored = values[~np.isnan(values)]
    return float(scored.std(ddof=1)) if len(scored) > 1 else None


def split_sentences(text: str) -> list[str]:
    """The sentences of `text`: cut at line breaks, and after . ! or ? with closing quotes where white space follows.

    A simple rule: it also cuts after "Mr." and never inside "e.g.this".
    """
    marked = _SENTENCE_END.sub(lambda end: f"{end[0]}\n", text)
    return [line.strip() for line in marked.splitlines() if line.strip()]


def best_of(totals: np.ndarray, num_samples: int) -> np.ndarray:
    """(B,) index into `totals` (B * num_samples,) of each prompt's highest total, the first of equals."""
    if totals.ndim != 1 or len(totals) % num_samples:
        raise ValueError(f"totals must be (B * {num_samples},), got {totals.shape}")
    grouped = totals.reshape(-1, num_samples)
    # An unscored sample (NaN) is never the best one.
    best: np.ndarray = np.where(np.isnan(grouped), -np.inf, grouped).argmax(axis=1)
    return best + np.arange(len(grouped)) * num_samples
