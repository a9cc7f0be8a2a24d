"""Renders the card's template, `model_card.md.jinja`. Leaves out: where the data come from.

Every value in the template is escaped, because names, settings and model outputs are data of unknown origin; only
what a function below returned as `_Markdown` is inserted unchanged.
"""

import functools
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment

from trl_rewards_plugin.cards import metadata
from trl_rewards_plugin.cards.card_data import OUR_PAPERS, RewardModelCardData
from trl_rewards_plugin.cards.markdown import cell, code, escape, link, quote, table
from trl_rewards_plugin.cards.reward_table import evaluation_scale, rewards_as_formula, rewards_as_table
from trl_rewards_plugin.charts.svg import environment_of
from trl_rewards_plugin.hub.stamp import stamped
from trl_rewards_plugin.runs.reward_description import targets_in_words
from trl_rewards_plugin.text import counted, cut_prompts, duration, interval, listed, number, one_line

MAX_NEW_TOKENS = 64
PROMPT_LENGTH = 500
GUARD_NAMES = {
    "rouge_l_source": "ROUGE-L F1 against the source",
    "output_length": "Length in words",
    "distinct": "Share of distinct outputs",
    "distinct_greedy": "Share of distinct outputs, greedy",
    "not_whole_input": "Share of outputs that do not copy the whole input",
}

# What each way of combining several rewards lets a policy get away with.
TRADE_OFFS = {
    "weighted_sum": "The rewards are summed, so a high score on one can make up for a low score on another.",
    "weighted_mean": "The rewards are averaged, so a high score on one can make up for a low score on another.",
    "mean_minus_std": "Where the judges agree on a mistake, their disagreement does not show it.",
    "minimum": "Only the lowest weighted score of each output counts: where one judge is hard to satisfy, the others "
    "have no influence.",
    "geometric_mean": "The rewards are multiplied, so a high score on one can make up for a low score on another "
    "unless that is near 0.",
}


class _Markdown(str):
    """Text that is Markdown already. Any operation on it gives a plain `str`, which is escaped again."""


def render_model_card(data: RewardModelCardData) -> str:
    """Markdown with YAML front matter; the same data give the same text."""
    metrics = data.metrics
    lower, higher = _wrong_moves(data)
    paper = data.paper or OUR_PAPERS.get(data.algorithm, {})
    text = _environment().get_template("model_card.md.jinja").render(
        data=data,
        metrics={"kl": None, **metrics} if metrics else None,
        front_matter=_Markdown(metadata.front_matter(data)),
        ours=data.algorithm in OUR_PAPERS,
        title=data.model_name.rpartition("/")[2] or data.model_name,
        has_judges=any(part.get("model") for part in data.rewards),
        max_new_tokens=data.max_new_tokens or MAX_NEW_TOKENS,
        gains={"reward": metrics["reward_gain"], **metrics["component_gain"]} if metrics else {},
        comparisons=_comparisons(metrics or {}),
        paper={"title": "", "id": "", "citation": "", **paper},
        cuts=cut_prompts(metrics["prompt_cuts"]) if metrics and metrics.get("prompt_cuts", {}).get("cut") else "",
        log_headings=list(dict.fromkeys(key for row in data.log for key in row if key != "step")),
        # These score an output without its prompt.
        output_only=[part["name"] for part in data.rewards if part.get("model") and not part.get("pair")],
        lower=lower,
        higher=higher,
        length_change=_length_change(data),
        targets=targets_in_words((metrics or {}).get("targets", {})),
    )  # fmt: skip
    text = re.sub(r"(?m)^## .*\n\s*(?=^## |\Z)", "", text)
    return stamped(re.sub(r"\n{3,}", "\n\n", text).strip() + "\n")


@functools.cache
def _environment() -> Environment:
    environment = environment_of(Path(__file__).parent, autoescape=False)
    environment.finalize = lambda value: value if isinstance(value, _Markdown) else escape(value)
    markdown_filters: dict[str, Callable[..., str]] = {
        "code": code, "link": link, "quote": quote, "literal": python_literal, "outputs_table": _outputs_table,
        "verbatim": lambda text: text.strip().replace("```", ""),  # a fence would end the code block
    }  # fmt: skip
    markdown_functions: dict[str, Callable[..., str]] = {
        "prompt_literal": prompt_literal, "reward_table": rewards_as_table, "reward_formula": rewards_as_formula,
        "evaluation_scale": evaluation_scale,
    }  # fmt: skip
    environment.filters |= {name: _trusted(function) for name, function in markdown_filters.items()}
    environment.filters |= {function.__name__: function for function in (counted, duration, interval, listed, number)}
    environment.globals |= {name: _trusted(function) for name, function in markdown_functions.items()}
    environment.globals |= {"change": _change, "guard_names": GUARD_NAMES, "trade_offs": TRADE_OFFS}
    return environment


def _trusted(function: Callable[..., str]) -> Callable[..., _Markdown]:
    """`function`, whose result is Markdown."""
    return lambda *args: _Markdown(function(*args))


def _wrong_moves(data: RewardModelCardData) -> tuple[list[str], list[str]]:
    """Components that fell, and penalties that rose, each with the change of its mean."""
    gains: Mapping[str, Any] = data.metrics["component_gain"] if data.metrics else {}
    ends = {part["name"]: set(part.get("constraints") or ()) for part in data.rewards}
    penalties = {part["name"] for part in data.rewards if part["weight"] < 0 or ends[part["name"]] == {"max"}}
    lower, higher = [], []
    for name, mean in ((name, gain["mean"]) for name, gain in gains.items()):
        if mean is None or ends.get(name) == {"min", "max"}:
            continue
        if name not in penalties and round(mean, 3) < 0:
            lower.append(f"{name} ({number(mean, '+.3f')})")
        if name in penalties and round(mean, 3) > 0:
            higher.append(f"{name} ({number(mean, '+.3f')})")
    return lower, higher


def _length_change(data: RewardModelCardData) -> float | None:
    """Change of the outputs' mean length in percent, if it is at least 10."""
    length = data.metrics["guard"].get("output_length") if data.metrics else None
    if not length or not length["before"]:
        return None
    change: float = 100 * (length["after"] / length["before"] - 1)
    return change if abs(change) >= 10 else None


def _comparisons(metrics: Mapping[str, Any]) -> list[str]:
    """Rewards to compare the gain with."""
    best = "best-of-16 sampling from the starting model scores"
    names = {"sources": "the source sentences score", "best_of_16": best}
    rewards = {name: metrics.get(key, {}).get("reward") for key, name in names.items()}
    return [f"{name} {number(reward)}" for name, reward in rewards.items() if reward is not None]


def _outputs_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Outputs before and after training side by side, each with its reward."""
    cells = []
    for row in rows:
        sides = [f"{cell(row[side])} ({number(row[f'{side}_reward'], '+.2f')})" for side in ("before", "after")]
        cells.append([cell(row["source"]), *sides, number(_change(row["before_reward"], row["after_reward"]), "+.2f")])
    return table(["Source", "Before", "After", "Change"], cells, {3})


def _change(before: float | None, after: float | None) -> float | None:
    return None if before is None or after is None else after - before


def prompt_literal(data: RewardModelCardData) -> str:
    """The first prompt as the code blocks show it, a long one over several lines, or a placeholder."""
    first = data.prompts[0] if data.prompts else f"{data.prompt_prefix}Your text here."
    text = one_line(first, PROMPT_LENGTH)
    *lines, last = textwrap.wrap(text, 90, break_long_words=False, break_on_hyphens=False) or [""]
    if not lines:
        return python_literal(text)
    pieces = [python_literal(line)[:-1] + ' "' for line in lines]
    return "\n    ".join(["(", *pieces, python_literal(last)]) + "\n)"


def python_literal(text: str) -> str:
    """`text` as a Python string in double quotes on one line."""
    return '"' + one_line(text).replace("\\", "\\\\").replace('"', '\\"') + '"'


def with_name(card: str, name: str) -> str:
    """A rendered card with another name in its title and its code."""
    title, literal = escape(name.rpartition("/")[2]), python_literal(name)
    card = re.sub(r"(?m)^# .*$", lambda found: f"# {title}", card, count=1)
    in_code = r'(?m)^(name = |pipe = text2text_pipeline\()"(?:[^"\\]|\\.)*"'
    return re.sub(in_code, lambda found: found[1] + literal, card)
