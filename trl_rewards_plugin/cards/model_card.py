"""The model card of a run folder or a trainer, by the template `model_card.md.jinja`.

Every value in the template is escaped, because names, settings and model outputs are data of unknown origin; only
what a function below returned as `_Markdown` is inserted unchanged.
"""

import dataclasses
import functools
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard
from jinja2 import Environment

from trl_rewards_plugin.atomic import write_text
from trl_rewards_plugin.cards.card_data import RewardModelCardData, card_data_from_folder, card_data_from_trainer
from trl_rewards_plugin.cards.markdown import cell, code, escape, link, quote, table
from trl_rewards_plugin.cards.metadata import eval_results, front_matter
from trl_rewards_plugin.charts.svg import environment_of
from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.hub.plan import check_card
from trl_rewards_plugin.hub.stamp import has_untouched_text, header_of, is_untouched, stamped, with_header
from trl_rewards_plugin.runs.layout import CARD, EVAL_RESULTS
from trl_rewards_plugin.runs.read import read_text
from trl_rewards_plugin.runs.reward_description import reward_formula, targets_in_words
from trl_rewards_plugin.text import MINUS, counted, cut_prompts, duration, interval, listed, number, one_line

# Algorithm, as a card calls it -> its paper.
OUR_PAPERS: Mapping[str, Mapping[str, str]] = {
    "PPO": {"title": "Proximal Policy Optimization Algorithms", "id": "1707.06347"},
    "RAFT": {"title": "RAFT: Reward rAnked FineTuning for Generative Foundation Model Alignment", "id": "2304.06767"},
    "DPO (online)": {"title": "Direct Preference Optimization", "id": "2305.18290"},
}
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
TIMES = "\N{MULTIPLICATION SIGN}"
# Keys of a card's header that are computed from the run each time: a value that differs is stale, nobody's edit.
_COMPUTED = ("library_name", "metrics", "widget", "co2_eq_emissions", "model-index")
# Keys of a described reward that have a column of their own, or mean nothing to a reader.
_NOT_SETTINGS = (
    "name", "weight", "function", "metric", "label", "score_type", "revision", "pair", "normalization", "clip",
    "weight_schedule", "constraints",
)  # fmt: skip


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
    """Renders the card of a run folder into it, and `.eval_results/`; one with an edited text only if `overwrite`.

    Edits of its header are kept unless `overwrite`.
    """
    data, path = card_data_from_folder(folder), folder / CARD
    edits = {} if overwrite or not path.is_file() else header_edits(read_text(path), data)
    if edits is None:
        step = "discard the edits with --overwrite-card, or keep the card"
        raise InputError("a card whose text nobody edited", f"{path}, which was edited by hand", step)
    entries = eval_results(data)
    if entries is not None:
        (folder / EVAL_RESULTS).parent.mkdir(exist_ok=True)
        write_text(folder / EVAL_RESULTS, entries)
    write_text(path, render_with_edits(data, edits))
    return path


def header_edits(existing: str, data: RewardModelCardData) -> dict[str, Any] | None:
    """What a person changed in the header of the card of `data`, by key; None where its text was edited too."""
    rendered = render_model_card(data)
    if is_untouched(existing, rendered):
        return {}
    if not has_untouched_text(existing):
        return None
    check_card(existing)
    theirs, ours = (ModelCard(card).data.to_dict() for card in (existing, rendered))  # type: ignore[no-untyped-call]
    keys = [key for key in {**ours, **theirs} if key not in _COMPUTED]
    return {key: theirs.get(key) for key in keys if theirs.get(key) != ours.get(key)}


def render_with_edits(data: RewardModelCardData, edits: Mapping[str, Any]) -> str:
    """The card of `data` with `header_edits`, which its stamp does not take for this package's."""
    return with_header(render_model_card(data), front_matter(data, edits)) if edits else render_model_card(data)


class _Markdown(str):
    """Text that is Markdown already. Any operation on it gives a plain `str`, which is escaped again."""


def _trusted(function: Callable[..., str]) -> Callable[..., _Markdown]:
    return lambda *args: _Markdown(function(*args))


def render_model_card(data: RewardModelCardData) -> str:
    """Markdown with YAML front matter; the same data give the same text."""
    metrics: dict[str, Any] = {"kl": None, **data.metrics} if data.metrics else {}
    best = "best-of-16 sampling from the starting model scores"
    compared = {"sources": "the source sentences score", "best_of_16": best}
    rewards = {name: metrics.get(key, {}).get("reward") for key, name in compared.items()}
    length = metrics["guard"].get("output_length") if metrics else None
    lower, higher = _wrong_moves(data)
    text = _environment().get_template("model_card.md.jinja").render(
        data=data,
        metrics=metrics,
        ours=data.algorithm in OUR_PAPERS,
        place=data.model_name if "/" in data.model_name else ".",
        title=data.model_name.rpartition("/")[2] or data.model_name,
        has_judges=any(part.get("model") for part in data.rewards),
        max_new_tokens=data.max_new_tokens or 64,
        gains={"reward": metrics["reward_gain"], **metrics["component_gain"]} if metrics else {},
        comparisons=[f"{name} {number(reward)}" for name, reward in rewards.items() if reward is not None],
        paper={"title": "", "id": "", "citation": "", **(data.paper or OUR_PAPERS.get(data.algorithm, {}))},
        cuts=cut_prompts(metrics["prompt_cuts"]) if metrics.get("prompt_cuts", {}).get("cut") else "",
        log_headings=list(dict.fromkeys(key for row in data.log for key in row if key != "step")),
        # These score an output without its prompt.
        output_only=[part["name"] for part in data.rewards if part.get("model") and not part.get("pair")],
        lower=lower,
        higher=higher,
        length_change=100 * (length["after"] / length["before"] - 1) if length and length["before"] else 0.0,
        targets=targets_in_words(metrics.get("targets", {})),
    )  # fmt: skip
    text = re.sub(r"(?m)^## .*\n\s*(?=^## |\Z)", "", text)
    return stamped(re.sub(r"\n{3,}", "\n\n", text).strip() + "\n")


@functools.cache
def _environment() -> Environment:
    environment = environment_of(Path(__file__).parent, autoescape=False)
    environment.finalize = lambda value: value if isinstance(value, _Markdown) else escape(value)
    markdown = (
        code, link, quote, literal, verbatim, outputs_table, prompt_literal, front_matter, evaluation_scale,
        rewards_as_formula, rewards_as_table,
    )  # fmt: skip
    functions: dict[str, Callable[..., Any]] = {
        function.__name__: function for function in (counted, duration, interval, listed, number, change)
    }
    functions |= {function.__name__: _trusted(function) for function in markdown}
    environment.filters |= functions
    environment.globals |= {**functions, "guard_names": GUARD_NAMES, "trade_offs": TRADE_OFFS}
    return environment


def _wrong_moves(data: RewardModelCardData) -> tuple[list[str], list[str]]:
    """Components that fell, and penalties that rose, each with the change of its mean."""
    gains: Mapping[str, Any] = data.metrics["component_gain"] if data.metrics else {}
    ends = {part["name"]: set(part.get("constraints") or ()) for part in data.rewards}
    penalties = {part["name"] for part in data.rewards if part["weight"] < 0 or ends[part["name"]] == {"max"}}
    means = {name: gain["mean"] for name, gain in gains.items() if ends.get(name) != {"min", "max"}}
    told = {name: f"{name} ({number(mean, '+.3f')})" for name, mean in means.items() if mean is not None}
    lower = [text for name, text in told.items() if round(means[name], 3) < 0 and name not in penalties]
    return lower, [text for name, text in told.items() if round(means[name], 3) > 0 and name in penalties]


def outputs_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Outputs before and after training side by side, each with its reward."""
    cells = []
    for row in rows:
        sides = [f"{cell(row[side])} ({number(row[f'{side}_reward'], '+.2f')})" for side in ("before", "after")]
        cells.append([cell(row["source"]), *sides, number(change(row["before_reward"], row["after_reward"]), "+.2f")])
    return table(["Source", "Before", "After", "Change"], cells, (3,))


def change(before: float | None, after: float | None) -> float | None:
    """From `before` to `after`; None where one of them was not measured."""
    return None if before is None or after is None else after - before


def prompt_literal(data: RewardModelCardData) -> str:
    """The first prompt as the code blocks show it, a long one over several lines, or a placeholder."""
    first = data.prompts[0] if data.prompts else f"{data.prompt_prefix}Your text here."
    text = one_line(first, 500)
    *lines, last = textwrap.wrap(text, 90, break_long_words=False, break_on_hyphens=False) or [""]
    if not lines:
        return literal(text)
    return "\n    ".join(["(", *(literal(line)[:-1] + ' "' for line in lines), literal(last)]) + "\n)"


def literal(text: str) -> str:
    """`text` as a Python string in double quotes on one line."""
    return '"' + one_line(text).replace("\\", "\\\\").replace('"', '\\"') + '"'


def verbatim(text: str) -> str:
    """`text` for a code block, which a fence in it would end."""
    return text.strip().replace("```", "")


def with_name(card: str, name: str) -> str:
    """A rendered card with another name in its title and its code; the header, with its comments, stays."""
    header = header_of(card)
    title, in_code = escape(name.rpartition("/")[2]), r'(?m)^(name = |pipe = text2text_pipeline\()"(?:[^"\\]|\\.)*"'
    text = re.sub(r"(?m)^# .*$", lambda found: f"# {title}", card.removeprefix(header), count=1)
    return header + re.sub(in_code, lambda found: found[1] + literal(name), text)


def rewards_as_table(rewards: Sequence[Mapping[str, Any]]) -> str:
    """Each reward with its judge, label, weight and revision; columns without content are left out."""
    rows = []
    for part in rewards:
        label = code(part["label"]) if part.get("label") is not None else ""
        score = escape(part.get("score_type") or "") + (" of prompt and output" if part.get("pair") else "")
        weight = "learnt" if part.get("constraints") else f"{part['weight']:g}"
        rows.append([escape(part["name"]), weight, _judge(part), label, score, "; ".join(_adjustments(part))])
    head = ["Reward", "Weight", "Judge", "Label", "Score", "Adjusted"]
    kept = [index for index in range(len(head)) if index < 3 or any(row[index] for row in rows)]
    return table([head[index] for index in kept], [[row[index] for index in kept] for row in rows], (1,))


def rewards_as_formula(data: RewardModelCardData) -> str:
    """How the rewards become one number."""
    named = [{**part, "name": escape(part["name"])} for part in data.rewards]
    adjusted = ", of the adjusted scores" if any(map(_adjustments, data.rewards)) else ""
    return reward_formula(named, data.aggregation, TIMES, data.disagreement_coef) + adjusted


def evaluation_scale(data: RewardModelCardData) -> str:
    """By what evaluations during training measured, where scale or weights moved meanwhile; else ""."""
    used = []
    if any(part.get("normalization") == "zscore" for part in data.rewards):
        scales = [
            f"{escape(name)} mean {number(mean)}, standard deviation {number(std)}"
            for name, (mean, std) in data.evaluation_scales.items()
        ]
        used.append("the scale of the first one" + (f" ({'; '.join(scales)})" if scales else ""))
    if any(part.get("weight_schedule") for part in data.rewards):
        used.append("the weights above without their schedule")
    return f" Evaluations during training used {' and '.join(used)}, so that they can be compared." if used else ""


def _judge(part: Mapping[str, Any]) -> str:
    """What gives the score: a model with its revision, or a function with its settings."""
    if part.get("model"):
        return link(str(part["model"])) + (f" at {code(part['revision'])}" if part.get("revision") else "")
    source = part.get("function") or part.get("metric")
    if source is None:
        return "a function"
    given = {key: value for key, value in part.items() if key not in _NOT_SETTINGS and value is not None}
    settings = ", ".join(f"{escape(key)} {escape(value)}" for key, value in given.items())
    return code(source) + (f" ({settings})" if settings else "")


def _adjustments(part: Mapping[str, Any]) -> list[str]:
    """What is done to a score before it is weighted, and to the weight during training."""
    steps = []
    scale = part.get("normalization")
    if isinstance(scale, Mapping):
        steps.append(f"(score {MINUS} {number(scale['mean'], 'g')}) / {number(scale['scale'], 'g')}")
    elif scale:
        steps.append("running z-score")
    if part.get("clip"):
        steps.append("clipped to " + " ... ".join(number(end, "g") for end in part["clip"]))
    if part.get("weight_schedule"):
        points = (f"{factor:g} at {100 * place:g} %" for place, factor in part["weight_schedule"].items())
        steps.append(f"weight {TIMES} {', '.join(points)} of training")
    return steps
