"""The YAML in front of a card, and the file of `.eval_results/`, as the Hub's model card specification has them.

Our values are put on one line, edits are quoted and indented, so that nothing in them can end the block.
"""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

import yaml

from trl_rewards_plugin.cards.card_data import RewardModelCardData
from trl_rewards_plugin.text import is_hub_id, mapped, one_line

WIDGET_EXAMPLES = 2
_ASKED = {"license": "apache-2.0", "base_model": "owner/name"}


def front_matter(data: RewardModelCardData, edits: Mapping[str, Any] = MappingProxyType({})) -> str:
    """The YAML block between its `---` lines, with `edits`: other values by key, None for a key to leave out."""
    has_base = is_hub_id(data.base_model)
    widget = [
        {
            "text": row.get("prompt") or data.prompt_prefix + row["source"],
            "example_title": f"Held-out prompt {index}",
            # A hosted model decodes greedily by default.
            "output": {"text": row.get("after_greedy") or row["after"]},
        }
        for index, row in enumerate(data.samples[:WIDGET_EXAMPLES], start=1)
    ]
    names = ["reward", *data.metrics["component_gain"]] if data.metrics else []
    names += ["rouge"] if data.metrics and "rouge_l_source" in data.metrics["guard"] else []
    values: dict[str, Any] = {
        "library_name": "peft" if data.adapter else "transformers",
        "license": data.license,
        "language": data.language,
        "base_model": data.base_model if has_base else None,
        "base_model_relation": ("adapter" if data.adapter else "finetune") if has_base else None,
        "datasets": [name for name in (data.dataset or "").split(", ") if is_hub_id(name)],
        "pipeline_tag": data.pipeline_tag,
        "tags": _tags(data),
        "metrics": list(dict.fromkeys(names)),
        "widget": widget,
        "co2_eq_emissions": _emissions(data),
        "model-index": _model_index(data) if data.metrics else None,
    }
    values = {key: _on_one_line(value) or None for key, value in values.items()} | dict(edits)
    kept = {key: value for key, value in values.items() if value is not None}
    # What only the author knows is asked for where it belongs; the Hub skips comments.
    asked = [f"# {key}: {example} (unknown here: fill in)\n" for key, example in _ASKED.items() if key not in kept]
    return f"---\n{_yaml(kept, width=110)}{''.join(asked)}---\n"


def eval_results(data: RewardModelCardData) -> str | None:
    """Contents of `.eval_results/trl_rewards_plugin.yaml`; None if the prompts are not a data set of the Hub."""
    if not data.metrics or not is_hub_id(data.dataset):
        return None
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

    entries = [
        EvalResultEntry(dataset_id=str(data.dataset), task_id=kind, value=value, notes=name)
        for kind, name, value in _measured(data)
    ]
    return _yaml(_on_one_line(eval_result_entries_to_yaml(entries)))


def _on_one_line(values: Any) -> Any:
    return mapped(values, lambda item: one_line(item) if isinstance(item, str) else item)


def _yaml(values: Any, **settings: Any) -> str:
    return str(yaml.safe_dump(values, sort_keys=False, allow_unicode=True, **settings))


def _tags(data: RewardModelCardData) -> list[str]:
    models = [part.get("model") for part in data.rewards]
    tags = ["trl", data.algorithm.split()[0].lower(), "reinforcement-learning"]
    tags += ["seq2seq"] if data.encoder_decoder else []
    tags += ["classifier-reward"] if any(models) else []
    judges = [one if is_hub_id(one) else part["name"] for one, part in zip(models, data.rewards, strict=True)]
    return list(dict.fromkeys([*tags, *(f"reward-model:{judge}" for judge in judges), *data.tags]))


def _emissions(data: RewardModelCardData) -> dict[str, Any] | None:
    if "co2_grams" not in data.energy:
        return None
    grams, hardware = round(data.energy["co2_grams"], 3), {"hardware_used": data.hardware} if data.hardware else {}
    return {"emissions": grams, "source": "CodeCarbon", "training_type": "fine-tuning", **hardware}


def _measured(data: RewardModelCardData) -> Iterable[tuple[str, str, float]]:
    """(type, name, value) of each number measured after training, its value before in the name."""
    metrics = data.metrics or {}
    count = metrics["reward_gain"]["n"]
    for way, suffix in (("sampled", ""), ("greedy", "_greedy")):
        for name, after in metrics[f"after{suffix}"].items():
            before = metrics[f"before{suffix}"][name]
            if after is not None and before is not None:
                what = name if name == "reward" else f"{name} score"
                title = f"Mean {what} of {count} held-out prompts, {way} (before training {before:.4f})"
                yield f"{name}{suffix}", title, round(after, 4)
    for name, pair in metrics["guard"].items():
        yield name, f"{name} (before training {pair['before']:.4f})", round(pair["after"], 4)


def _model_index(data: RewardModelCardData) -> Any:
    from huggingface_hub import EvalResult
    from huggingface_hub.repocard_data import eval_results_to_model_index

    shared: dict[str, Any] = {
        # text2text-generation is deprecated on the Hub; results still have to name a task.
        "task_type": data.pipeline_tag or "text-generation",
        "task_name": f"{data.algorithm} from text classifier rewards",
        "dataset_type": str(data.dataset) if is_hub_id(data.dataset) else "custom",
        # A run of an earlier version has its warning in the same text.
        "dataset_name": one_line((data.held_out or "held-out prompts").partition("; warning: ")[0]),
    }
    results = [
        EvalResult(metric_type=kind, metric_name=name, metric_value=value, **shared)
        for kind, name, value in _measured(data)
    ]
    return eval_results_to_model_index(one_line(data.model_name), results)
