"""Guard metrics: what breaks in the texts when a policy hacks its reward. Pure functions on texts.

Leaves out: rewards. None of these numbers is trained on; each is held against the same number before training.
"""

from collections.abc import Sequence

import numpy as np

from trl_rewards_plugin.text import counted


def guard_metrics(
    texts: Sequence[str], sources: Sequence[str], prompts: Sequence[str] | None = None
) -> dict[str, float]:
    """What a reward hacker would break, over N >= 1 outputs and the texts that they were made from.

    `rouge_l_source` (F1 against the source), `output_length` (words), `distinct` (share of different outputs),
    `not_whole_input` (share that give back neither the whole source nor, where `prompts` are given, the whole
    prompt, white space aside).
    """
    return {
        "rouge_l_source": float(rouge_l(texts, sources).mean()),
        "output_length": float(word_count(texts).mean()),
        "distinct": distinct_share(texts),
        "not_whole_input": not_whole_input_share(texts, sources, prompts or sources),
    }


def without_instruction(prompts: Sequence[str]) -> list[str]:
    """Prompts without the words that all of them begin with, such as "summarize: ".

    Else an output that gives back the whole source would never equal its prompt. Prompts that are all the same text
    stay as they are; an instruction behind the source stays too.
    """
    if len(set(prompts)) == 1:
        return list(prompts)
    first, last = min(prompts), max(prompts)  # in alphabetical order all between them share what these two share
    pairs = enumerate(zip(first, last, strict=False))
    shared = first[: next((place for place, (one, other) in pairs if one != other), len(first))]
    words = max(shared.rfind(" "), shared.rfind("\n")) + 1  # whole words only
    return [prompt[words:] for prompt in prompts]


def rouge_l(texts: Sequence[str], sources: Sequence[str]) -> np.ndarray:
    """(N,) ROUGE-L F1 of each text against its own source (package `rouge_score`, no stemming)."""
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rougeL"])
    pairs = zip(texts, sources, strict=True)
    return np.array([scorer.score(source, text)["rougeL"].fmeasure for text, source in pairs])


def word_count(texts: Sequence[str]) -> np.ndarray:
    """(N,) words in each text, split at white space."""
    return np.array([len(text.split()) for text in texts], dtype=np.float64)


def distinct_share(texts: Sequence[str]) -> float:
    """Different texts / all texts, white space normalised."""
    return len({normalise_space(text) for text in texts}) / len(texts)


def collapse_warning(before: Sequence[str], after: Sequence[str], sources: Sequence[str]) -> list[str]:
    """A line where N outputs `after` training for ten or more different sources are nearly all the same, else none."""
    old, new, asked = (len(set(map(normalise_space, texts))) for texts in (before, after, sources))
    if asked < 10 or new > asked / 10:
        return []
    text = f"Nearly all greedy outputs are the same: {counted(new, 'different text')} for {asked} different sources"
    return [f"{text} ({old} before training). The reward does not count that."]


def not_whole_input_share(texts: Sequence[str], *inputs: Sequence[str]) -> float:
    """Share of N texts that differ from their own in every list of N inputs, white space normalised."""
    rows = zip(texts, zip(*inputs, strict=True), strict=True)
    return sum(normalise_space(text) not in map(normalise_space, own) for text, own in rows) / len(texts)


def normalise_space(text: str) -> str:
    """`text` with every run of white space as one space, none at the ends."""
    return " ".join(text.split())
