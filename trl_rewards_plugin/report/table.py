"""Runs side by side: their numbers, and the settings in which they differ. Leaves out: drawing."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from statistics import mean, stdev
from typing import Any

from trl_rewards_plugin.charts.series import SCORES
from trl_rewards_plugin.recipes.console import GUARD_NAMES, direction
from trl_rewards_plugin.rewards.files.dotted_paths import READY_MADE
from trl_rewards_plugin.runs.layout import LOG
from trl_rewards_plugin.runs.public_names import shown_name
from trl_rewards_plugin.runs.read import Run
from trl_rewards_plugin.runs.reward_description import WEIGHTED_SUM, reward_formula
from trl_rewards_plugin.text import DASH, counted, cut_prompts, interval, listed, number

NOT_YET = "not yet"
UNSET = "default"
# Of a run's record of itself, what would make it another run.
_RECORDED = ("train_rows", "held_out_rows", "held_out", "held_out_warning", "hardware", "commit")
_SCALES = {
    "logit": "logits, raw scores without a fixed range", "probability": "probabilities, 0 to 1",
    "log_probability": "log-probabilities, at most 0",
}  # fmt: skip
# What trainers of TRL log under names of their own. Their "kl" is another quantity: a mean over tokens.
_TRL_NAMES = {
    "reward": SCORES, "entropy": "objective/entropy", "completions/mean_length": "tokens/responses_len_mean"
}  # fmt: skip


def with_trl_names(run: Run) -> Run:
    """A run of one of TRL's trainers (GRPO, RLOO ...) with its log under our names; any other as it is."""
    if not any("reward" in row for row in run.log) or any(SCORES in row for row in run.log):
        return run
    return replace(run, log=[{_TRL_NAMES.get(key, key): value for key, value in row.items()} for row in run.log])


def number_rows(runs: Sequence[Run]) -> dict[str, list[str]]:
    """What was measured -> a cell for each run; empty while no run has finished."""
    names = _names([run.metrics for run in runs if run.metrics is not None])
    columns: list[Mapping[str, str]] = []
    for run in runs:
        numbers = _figures([run.metrics], names) | _facts(run.metrics) if run.metrics else {}
        columns.append(_evaluated(run.evaluation) if run.evaluation else numbers)
    return _side_by_side(runs, columns, DASH)


def _evaluated(result: Mapping[str, Any]) -> dict[str, str]:
    """An evaluation's metrics before and after, with the gain where there is one."""
    return {
        name: _change([row.get("before")], [row.get("after")])
        + (f", {_gain([{'mean': row['gain']['reward_gain'], **row['gain']}])}" if row.get("gain") else "")
        for name, row in result["metrics"].items()
    }


def seed_spread(runs: Sequence[Run]) -> dict[str, str]:
    """The figures of `number_rows` over runs that differ in their seed alone; empty of any others."""
    settings = [{key: value for key, value in run.settings.items() if key not in ("seed", "made_of")} for run in runs]
    measured = [run.metrics for run in runs if run.metrics is not None]
    seeds = {metrics["seed"] for metrics in measured}
    if len(runs) < 2 or len(seeds) < len(runs) or any(one != settings[0] for one in settings):
        return {}
    return _figures(measured, _names(measured))


def verdicts(runs: Sequence[Run]) -> str:
    """In how many runs each component became better or worse, as far as the interval of its gain tells."""
    measured = [run.metrics for run in runs if run.metrics is not None]
    texts = []
    for name in _names(measured)["component_gain"]:
        moved = [direction(gain) for metrics in measured if (gain := metrics["component_gain"].get(name))]
        words = {1: "better", -1: "worse", 0: "no clear change"}
        counts = [f"{words[way]} in {moved.count(way)}" for way in words if way in moved]
        texts.append(f"{name}: {', '.join(counts)} of {counted(len(moved), 'run')}")
    return "; ".join(texts)


def _names(measured: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """What the rows are of: all components, counts and guards of any run."""
    return {
        key: _distinct(metrics.get(key, {}) for metrics in measured) for key in ("component_gain", "counts", "guard")
    }


def _figures(measured: Sequence[Mapping[str, Any]], names: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """What one run measured, or the mean and standard deviation of several."""

    def each(*keys: str) -> list[Any]:
        return [_under(keys, metrics) for metrics in measured]

    rows = {
        "Reward": _change(each("before", "reward"), each("after", "reward")),
        "Gain in reward": _gain(each("reward_gain")),
    }
    for name in names["component_gain"]:
        rows[f"{name} score"] = _change(each("before", name), each("after", name))
        rows[f"Gain in {name} score"] = _gain(each("component_gain", name))
    rows |= {
        "Reward, greedy": _change(each("before_greedy", "reward"), each("after_greedy", "reward")),
        "Best of 16 at the start": _spread(each("best_of_16", "reward")),
        "The sources' own sentences": _spread(each("sources", "reward")),
        "KL to the reference, nats": _spread(each("kl")),
    }
    for name in names["counts"]:
        before, after = (each("counts", name, side) for side in ("before", "after"))
        rows[f"Sampled outputs that {name}"] = _change(before, after, ".0%")
    for name in names["guard"]:
        title = GUARD_NAMES.get(name, name)
        rows[title[:1].upper() + title[1:]] = _change(each("guard", name, "before"), each("guard", name, "after"))
    return rows


def _under(keys: Sequence[str], values: Any) -> Any:
    """The value under nested keys; None where one is missing."""
    for key in keys:
        values = (values or {}).get(key)
    return values


def _facts(metrics: Mapping[str, Any]) -> dict[str, str]:
    """What was not measured on outputs."""
    return {
        "Held-out prompts": f"{metrics['reward_gain']['n']:,}",
        "Length of prompts": cut_prompts(metrics["prompt_cuts"]) if metrics.get("prompt_cuts") else DASH,
        "Responses trained on": f"{metrics['episodes']:,}",
        "Seconds of training": f"{metrics['seconds']:,.0f}",
        "Seed": str(metrics["seed"]),
    }


def setting_rows(runs: Sequence[Run], *, differing: bool) -> dict[str, list[str]]:
    """Setting -> a cell for each run; `differing`: only those in which finished runs differ."""
    rows = _side_by_side(runs, [_flat(run.settings) for run in runs], UNSET)
    return {key: cells for key, cells in rows.items() if not differing or len({*cells} - {NOT_YET, DASH}) > 1}


def _side_by_side(runs: Sequence[Run], columns: Sequence[Mapping[str, str]], missing: str) -> dict[str, list[str]]:
    """Label of any column -> its cells, `missing` where a column has none; a run without any has not finished."""
    empty = [NOT_YET if _is_of_recipe(run) else DASH for run in runs]
    return {
        label: [column.get(label, missing) if column else none for column, none in zip(columns, empty, strict=True)]
        for label in _distinct(columns)
    }


def _is_of_recipe(run: Run) -> bool:
    """Whether an unfinished run will be measured: a trainer without the recipe leaves its checkpoints alone."""
    return (run.folder / LOG).is_file()


def _distinct(keys: Iterable[Iterable[str]]) -> list[str]:
    """All keys, in the order of their first place."""
    return list(dict.fromkeys(key for some in keys for key in some))


def why_not_comparable(runs: Sequence[Run]) -> str | None:
    """Why gains of these runs say nothing about each other; None where they do."""
    finished = [run for run in runs if run.metrics is not None]
    if any(_differ(*map(_reward, pair)) for pair in combinations(finished, 2)):
        return "These runs have different rewards: their rewards and gains have no common scale."
    if len({tuple(row.get("prompt") for row in run.held_out) for run in finished}) > 1:
        return "These runs were measured on different held-out prompts: part of the difference comes from the prompts."
    return None


def _reward(run: Run) -> tuple[Any, list[list[str]]]:
    """All that is recorded of a run's reward but its functions, and these."""
    made_of = run.settings.get("made_of", {})
    how = [made_of.get("aggregation"), made_of.get("disagreement_coef")]
    if "rewards" not in made_of:
        return [run.settings.get("reward"), how], []
    parts = [
        {key: shown_name(value) for key, value in part.items() if key != "function"} for part in made_of["rewards"]
    ]
    return [parts, how], [_module_and_name(part) for part in made_of["rewards"]]


def _module_and_name(part: Mapping[str, Any]) -> list[str]:
    """Where a part's function stands: of a file its name alone, since folders move; nothing where none is recorded."""
    recorded = str(part.get("function") or "")
    path = READY_MADE.get(recorded, recorded).rpartition("/")[2]
    return path.replace(".py:", ".").replace(":", ".").split(".")


def _differ(one: tuple[Any, list[list[str]]], other: tuple[Any, list[list[str]]]) -> bool:
    """Whether two runs' rewards surely differ: `my_rewards.py:polite` may be `mine.my_rewards.polite`."""
    pairs = zip(one[1], other[1], strict=False)
    ends = ((a[-len(b) :], b[-len(a) :]) for a, b in pairs)
    return one[0] != other[0] or any(a != b for a, b in ends)


def reward_in_words(run: Run) -> str | None:
    """What the reward is made of, by whom it is given, on what scale; None where the run did not record it."""
    made_of = run.settings.get("made_of", {})
    parts = made_of.get("rewards")
    if not parts:
        return None
    combined = made_of.get("aggregation") or WEIGHTED_SUM
    formula = reward_formula(parts, combined, disagreement_coef=made_of.get("disagreement_coef"))
    scales = dict.fromkeys(_SCALES[part["score_type"]] for part in parts if part.get("score_type") in _SCALES)
    classifiers = "classifiers" + (f" (in {'; '.join(scales)})" if scales else "")
    judges = dict.fromkeys(classifiers if part.get("model") else _judge(part, run) for part in parts)
    return f"{formula}, as {listed([*judges])} score each output; higher is better"


def _judge(part: Mapping[str, Any], run: Run) -> str:
    """What gives the scores of a part that is no classifier; of a combination only the log says what it is."""
    if _module_and_name(part) == READY_MADE["remote"].split("."):
        return "servers"
    own, within = {f"rewards/{part['name']}/{what}" for what in ("mean", "std")}, f"rewards/{part['name']}/"
    if any(key.startswith(within) and key not in own for row in run.log for key in row):
        return "combinations of rewards"
    return "metrics" if part.get("metric") else "functions"


def title(runs: Sequence[Run]) -> str:
    """What the page shows."""
    evaluations = sum(run.evaluation is not None for run in runs)
    if len(runs) == 1:
        before, after = runs[0].compared
        if runs[0].evaluation is None:
            return f"Run {runs[0].name}"
        return f"{after} compared with {before}" if runs[0].evaluation["before"] else f"Evaluation of {after}"
    kinds = {"run": len(runs) - evaluations, "evaluation": evaluations}
    return f"{' and '.join(counted(count, kind) for kind, count in kinds.items() if count)} compared"


def headline(run: Run) -> str:
    """The run in one sentence."""
    metrics = run.metrics
    if run.evaluation is not None:
        against = f", compared with {run.compared[0]}" if run.evaluation["before"] else ""
        references = f" References: {run.evaluation['references']}." if run.evaluation.get("references") else ""
        references += f" Metrics: {run.evaluation['measured_by']}." if run.evaluation.get("metric_kwargs") else ""
        outputs = counted(run.evaluation["n"], "output")
        measured = _evaluated(run.evaluation)
        result = f" {run.ranked_by}: {measured[run.ranked_by]}." if run.ranked_by in measured else ""
        return f"{_outcome(run.evaluation)}{outputs}: {run.compared[1]}{against}.{result}{references}"
    if metrics is None:
        if any(SCORES in row and "episode" not in row for row in run.log):
            return f"A TRL run, {counted(run.last_step, 'step')}: curves and outputs only."
        planned = run.settings.get("made_of", {}).get("rollouts")
        done = f"{counted(run.last_step, 'rollout')} so far"
        if not _is_of_recipe(run):
            return f"A run of a trainer without the recipe, {done}: curves and outputs only."
        done = f"{run.last_step:,} of {counted(planned, 'rollout')}" if planned else done
        return f"Not finished: {done}; numbers on held-out prompts come at the end."
    kl = "" if metrics["kl"] is None else f"; KL {number(metrics['kl'])} nats to the reference"
    change = _change([metrics["before"]["reward"]], [metrics["after"]["reward"]])
    gain = metrics["reward_gain"]
    result = f"Reward {change} on {gain['n']} held-out prompts: a gain of {_gain([gain])}{kl}."
    return " ".join([result, *metrics.get("warnings", ())])


def _outcome(result: Mapping[str, Any]) -> str:
    """Whether an evaluation met its bars; empty where it had none."""
    if not result.get("failed"):
        return f"Passed: {', '.join(result['bars'])}. " if "bars" in result else ""
    return f"Failed: {'; '.join(result['failed'])}. "


def _spread(values: Sequence[float | None], form: str = ".3f") -> str:
    """The one value, or the mean and standard deviation (N - 1) of several."""
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return DASH
    deviation = f" \N{PLUS-MINUS SIGN} {number(stdev(known), form.lstrip('+'))}" if len(known) > 1 else ""
    return number(mean(known), form) + deviation


def _change(before: Sequence[float | None], after: Sequence[float | None], form: str = ".3f") -> str:
    sides = [before, after] if any(value is not None for value in before) else [after]
    return " \N{RIGHTWARDS ARROW} ".join(_spread(values, form) for values in sides)


def _gain(gains: Sequence[Any]) -> str:
    """With its interval, which several do not have."""
    mean_gain = _spread([gain and gain["mean"] for gain in gains], "+.3f")
    return mean_gain if mean_gain == DASH or len(gains) > 1 else f"{mean_gain} (95% CI {interval(gains[0]['ci95'])})"


def _flat(settings: Mapping[str, Any]) -> dict[str, str]:
    """One text per setting, what the run was made of among them."""
    made_of = settings.get("made_of", {})
    values = {key: value for key, value in settings.items() if key != "made_of"}
    for part in made_of.get("rewards", ()):
        values |= {f"reward {part.get('name')}: {key}": value for key, value in part.items() if key != "name"}
    values |= {key.replace("_", " "): made_of[key] for key in _RECORDED if key in made_of}
    values |= {f"version of {name}": version for name, version in made_of.get("versions", {}).items()}
    listed = {key: value if isinstance(value, list) else [value] for key, value in values.items()}
    return {key: ", ".join(map(str, parts)) or "(empty)" for key, parts in listed.items()}
