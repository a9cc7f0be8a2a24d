"""Before and after: decode the held-out prompts, score the texts, and turn both into `metrics.json`.

Leaves out: training, printing and files. Decoding is passed in as a function, so that tests can bring their own texts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from trl_rewards_plugin.metrics.paired_gain import paired_gain
from trl_rewards_plugin.metrics.text_metrics import guard_metrics

if TYPE_CHECKING:
    from trl_rewards_plugin.ppo.decoding import Decoded

BEST_OF = 16
# A sentence ends at . ! or ?, with closing quotes or brackets, before white space.
_SENTENCE_END = re.compile(r"(?<=[.!?])[\"'\u201d\u2019)\]]*\s+")


class Scorer(Protocol):
    """What evaluation needs of a reward: totals and components of texts (see `RewardScores`)."""

    def score(self, texts: Sequence[str], prompts: Sequence[str] | None = None, **columns: Any) -> Any:
        """`.total` (N,) and `.components`, a dict of name -> (N,)."""


@dataclass(frozen=True)
class Scored:
    """Texts with their scores.

    Attributes:
        texts: N outputs.
        total: (N,) what the reward makes of its components.
        components: Name -> (N,).
        log_ratio: (N,) summed log-ratio to the reference, in nats, where it was asked for.
    """

    texts: list[str]
    total: np.ndarray
    components: dict[str, np.ndarray]
    log_ratio: np.ndarray | None = None

    def means(self) -> dict[str, float | None]:
        """`{"reward": mean total, "<component>": mean}`, over the texts that were scored; None if none were."""
        return {name: mean_scored(values) for name, values in self.by_name().items()}

    def by_name(self) -> dict[str, np.ndarray]:
        """`{"reward": (N,) totals, "<component>": (N,)}`."""
        return {"reward": self.total, **self.components}

    def take(self, indices: np.ndarray) -> Scored:
        """The outputs at `indices`, in that order."""
        return Scored(
            texts=[self.texts[index] for index in indices],
            total=self.total[indices],
            components={name: values[indices] for name, values in self.components.items()},
        )


@dataclass(frozen=True)
class HeldOut:
    """The prompts to evaluate on.

    Attributes:
        prompts: What the model reads, prefix included.
        sources: The same texts without the prefix.
        columns: The data set's other columns, for rewards that read them.
    """

    prompts: list[str]
    sources: list[str]
    columns: Mapping[str, list[Any]] = field(default_factory=dict)

    def columns_at(self, indices: Sequence[int]) -> dict[str, list[Any]]:
        """The other columns' values of the prompts at `indices`."""
        return {name: [values[index] for index in indices] for name, values in self.columns.items()}


@dataclass(frozen=True)
class Evaluation:
    """One model on the held-out prompts: sampled at the training temperature (the headline) and greedy."""

    sampled: Scored
    greedy: Scored


@dataclass(frozen=True)
class Yardsticks:
    """What to compare a gain with: the sources' own sentences, and the best of 16 samples of the starting model."""

    sources: dict[str, float | None]
    best_of: dict[str, float | None]


@dataclass(frozen=True)
class RunFacts:
    """What training itself reports.

    Attributes:
        kl: Mean over responses of the summed log-ratio to the reference, in nats; None without a reference.
        episodes: Responses sampled in training.
        seconds: Of training alone; a resumed run includes those up to its checkpoint.
        seed: Of the run.
    """

    kl: float | None
    episodes: int
    seconds: float
    seed: int


@dataclass(frozen=True)
class Evaluator:
    """Decodes and scores the held-out prompts, always with the same settings and seed.

    Attributes:
        decode: `decode(prompts, *, greedy, num_samples, seed, with_reference) -> Decoded`.
        reward: What judges the texts.
        held_out: The prompts.
        seed: Of the sampling; before and after use the same one.
    """

    decode: Callable[..., Decoded]
    reward: Scorer
    held_out: HeldOut
    seed: int = 0
    best_of: int = field(default=BEST_OF)

    def evaluate(self, *, with_reference: bool = False) -> Evaluation:
        """Sampled and greedy outputs of the model as it is now."""
        sampled = self._decode_and_score(with_reference=with_reference)
        return Evaluation(sampled=sampled, greedy=self._decode_and_score(greedy=True))

    def yardsticks(self) -> Yardsticks:
        """Scores of the sources' own sentences, and of the best of `best_of` samples of the model as it is now."""
        held_out = self.held_out
        decode = partial(self.decode, greedy=False, seed=self.seed, with_reference=False)
        best = best_of_samples(decode, self.reward, held_out.prompts, self.best_of, held_out.columns)
        return Yardsticks(sources=self._score_sources().means(), best_of=best.means())

    def _decode_and_score(self, *, greedy: bool = False, with_reference: bool = False) -> Scored:
        held_out = self.held_out
        decoded = self.decode(
            held_out.prompts, greedy=greedy, num_samples=1, seed=self.seed, with_reference=with_reference
        )
        scored = score_texts(self.reward, decoded.texts, held_out.prompts, held_out.columns)
        if decoded.log_ratio is None:
            return scored
        return replace(scored, log_ratio=np.asarray(decoded.log_ratio, dtype=np.float64))

    def _score_sources(self) -> Scored:
        pairs = [
            (sentence, index)
            for index, source in enumerate(self.held_out.sources)
            for sentence in split_sentences(source)
        ]
        owners = [index for _, index in pairs]
        prompts = [self.held_out.prompts[index] for index in owners]
        return score_texts(self.reward, [sentence for sentence, _ in pairs], prompts, self.held_out.columns_at(owners))


def best_of_samples(
    decode: Callable[..., Decoded],
    reward: Scorer,
    prompts: Sequence[Any],
    n: int,
    columns: Mapping[str, Sequence[Any]] | None = None,
) -> Scored:
    """The response with the highest total among `n` samples for each of B prompts; the first of equals.

    Args:
        decode: `decode(prompts, num_samples=n)`, the samples of a prompt side by side.
        columns: B values of each further column of the prompts.
    """
    repeated = [prompt for prompt in prompts for _ in range(n)]
    beside = {name: [value for value in values for _ in range(n)] for name, values in (columns or {}).items()}
    many = score_texts(reward, decode(prompts, num_samples=n).texts, repeated, beside)
    return many.take(best_of(many.total, n))


def score_texts(
    reward: Scorer, texts: Sequence[str], prompts: Sequence[Any], columns: Mapping[str, list[Any]] | None = None
) -> Scored:
    """Scores N responses to N prompts, with N values of each further column."""
    scores = reward.score(list(texts), prompts=list(prompts), **(columns or {}))
    components = {name: np.asarray(values, dtype=np.float64) for name, values in scores.components.items()}
    return Scored(list(texts), np.asarray(scores.total, dtype=np.float64), components)


def gain(before: np.ndarray, after: np.ndarray) -> dict[str, Any]:
    """`{"mean", "ci95", "n"}` of the paired difference, over the n prompts that were scored both times.

    See `paired_gain`. A plain callable may leave a text unscored (NaN).
    """
    found = paired_gain(before.tolist(), after.tolist())
    return {"mean": found["reward_gain"], "ci95": found["ci95"], "n": found["n"]}


def completion_rows(held_out: HeldOut, before: Evaluation, after: Evaluation) -> list[dict[str, Any]]:
    """One row a held-out prompt: texts before and after, sampled and greedy, each with total and components."""
    sides = {
        "before": before.sampled,
        "after": after.sampled,
        "before_greedy": before.greedy,
        "after_greedy": after.greedy,
    }
    rows = []
    for index, (prompt, source) in enumerate(zip(held_out.prompts, held_out.sources, strict=True)):
        row: dict[str, Any] = {"prompt": prompt, "source": source}
        row |= {side: scored.texts[index] for side, scored in sides.items()}
        for side, scored in sides.items():
            row[f"{side}_reward"] = float(scored.total[index])
            row |= {f"{side}_{name}": float(values[index]) for name, values in scored.components.items()}
        rows.append(row)
    return rows


def build_metrics(
    before: Evaluation, after: Evaluation, yardsticks: Yardsticks, sources: Sequence[str], facts: RunFacts
) -> dict[str, Any]:
    """The contents of `metrics.json`. Gains and guards are those of the sampled outputs.

    `before_std`: standard deviation over prompts (N - 1 in the denominator) of the sampled outputs before training.
    """
    pairs = {name: (values, after.sampled.by_name()[name]) for name, values in before.sampled.by_name().items()}
    gains = {name: gain(*pair) for name, pair in pairs.items()}
    guard_before, guard_after = (guard_metrics(each.sampled.texts, sources) for each in (before, after))
    return {
        "before": before.sampled.means(),
        "after": after.sampled.means(),
        "before_greedy": before.greedy.means(),
        "after_greedy": after.greedy.means(),
        "before_std": {name: spread_scored(values) for name, (values, _) in pairs.items()},
        "sources": yardsticks.sources,
        "best_of_16": yardsticks.best_of,
        "reward_gain": gains.pop("reward"),
        "component_gain": gains,
        "guard": {name: {"before": guard_before[name], "after": guard_after[name]} for name in guard_before},
        "kl": facts.kl,
        "episodes": facts.episodes,
        "seconds": facts.seconds,
        "seed": facts.seed,
    }


def mean_scored(values: np.ndarray) -> float | None:
    """Mean of (N,) without its NaNs, which stand for texts that were not scored; None if nothing is left."""
    scored = values[~np.isnan(values)]
    return float(scored.mean()) if len(scored) else None


def spread_scored(values: np.ndarray) -> float | None:
    """Standard deviation (N - 1 in the denominator) of (N,) without its NaNs; None for fewer than two."""
    scored = values[~np.isnan(values)]
    return float(scored.std(ddof=1)) if len(scored) > 1 else None


def split_sentences(text: str) -> list[str]:
    """The sentences of `text`: cut after . ! or ? (and closing quotes or brackets) where white space follows.

    Line breaks end a sentence too. A simple rule: it also cuts after "Mr." and never inside "e.g.this".
    """
    sentences = []
    for line in text.splitlines():
        start = 0
        for match in _SENTENCE_END.finditer(line):
            sentences.append(line[start : match.end()].strip())
            start = match.end()
        sentences.append(line[start:].strip())
    return [sentence for sentence in sentences if sentence]


def best_of(totals: np.ndarray, num_samples: int) -> np.ndarray:
    """(B,) index into `totals` (B * num_samples,), prompt by prompt, of each prompt's highest total."""
    totals = np.asarray(totals, dtype=np.float64)
    if totals.ndim != 1 or len(totals) % num_samples:
        raise ValueError(f"totals must be (B * {num_samples},), got {totals.shape}")
    grouped = totals.reshape(-1, num_samples)
    # An unscored sample (NaN) is never the best one.
    best: np.ndarray = np.where(np.isnan(grouped), -np.inf, grouped).argmax(axis=1)
    return best + np.arange(len(grouped)) * num_samples
