import dataclasses
import json
from types import SimpleNamespace

import pytest
import yaml

from tests.recipes.test_evaluation import make_metrics
from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.hub.card import RewardModelCardData, generate_model_card, render_model_card
from trl_rewards_plugin.recipes import run_folder

FULL = RewardModelCardData(
    model_name="me/model",
    base_model="google/flan-t5-small",
    rewards=[
        {"name": "good", "weight": 1.0, "model": "owner/judge", "label": "LABEL_1", "score_type": "logit"},
        {"name": "kind", "weight": 0.5},
    ],
    dataset="owner/texts",
    prompt_prefix="summarize: ",
    held_out="all 2 rows of owner/held-out",
    metrics=make_metrics(),
    samples=[{"source": "a | b", "before": "<b>", "after": "", "before_reward": 1.0, "after_reward": -0.5}],
    epoch_rewards=[0.25, 0.5],
    curve="reward_curve.png",
    settings={"learning_rate": 2e-5, "response_length": 32},
    seed=3,
    config_file="config.yaml",
    versions={"trl": "1.16.0"},
    license="apache-2.0",
    pipeline_tag="summarization",
)

# Numbers checked by hand against make_metrics() in tests/recipes/test_evaluation.py.
GOLDEN = """---
library_name: transformers
license: apache-2.0
base_model: google/flan-t5-small
datasets:
- owner/texts
pipeline_tag: summarization
tags:
- trl
- ppo
- reinforcement-learning
- seq2seq
- classifier-reward
---

# me/model

[google/flan-t5-small](https://huggingface.co/google/flan-t5-small), an encoder-decoder, trained further by PPO for \
what text classifiers judge, with `trl_rewards_plugin`. Prompts: \
[owner/texts](https://huggingface.co/datasets/owner/texts), each behind "summarize: ".

## What it was taught to prefer

| Reward | Weight | Judge | Label | Score |
| --- | ---: | --- | --- | --- |
| good | 1 | [owner/judge](https://huggingface.co/owner/judge) | `LABEL_1` | logit |
| kind | 0.5 | a function |  |  |

The reward of an output is the weighted sum of these scores.

## What training changed

| | Before | After | Gain | 95 % interval |
| --- | ---: | ---: | ---: | --- |
| reward | 2.000 | 3.000 | +1.000 | +0.000 to +2.000 |
| good | 2.000 | 3.000 | +1.000 | +1.000 to +1.000 |
| kind | 0.000 | 0.000 | +0.000 | -1.000 to +1.000 |
| reward, greedy | 2.000 | 3.000 | +1.000 | |
| good, greedy | 2.000 | 3.000 | +1.000 | |
| kind, greedy | 0.000 | 0.000 | +0.000 | |

Means over 2 held-out prompts (all 2 rows of owner/held-out), decoded before and after with the same settings and \
seed; sampled as in training unless it says greedy. Intervals: paired bootstrap over prompts. They cover the choice \
of prompts, not the choice of training seed.

| What a reward hacker would break | Before | After |
| --- | ---: | ---: |
| ROUGE-L against the source (F1) | 0.500 | 0.500 |
| Length in words | 2.000 | 1.500 |
| Share of distinct outputs | 1.000 | 1.000 |
| Share that are not a copy of the whole input | 0.500 | 0.500 |
| KL to the starting model (nats a response) | 0.000 | 1.500 |

For scale: the sources' own sentences score 9.000, and the best of 16 samples of the starting model 7.000.

## Training

![Mean training reward and KL by episode](reward_curve.png)

64 episodes in 0.0 minutes. Mean reward by epoch: 0.250, 0.500. Settings: `learning_rate=2e-05`, `response_length=32`.

## Outputs

Held-out prompts 1 to 1, sampled, with their reward.

| Source | Before | After |
| --- | --- | --- |
| a \\| b | &lt;b> (+1.00) | (nothing) (-0.50) |

## Use

```python
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

name = "me/model"  # this folder, or its id on the Hub
tokenizer = AutoTokenizer.from_pretrained(name)
model = AutoModelForSeq2SeqLM.from_pretrained(name)
inputs = tokenizer("summarize: Your text here.", return_tensors="pt")
output = model.generate(**inputs, max_new_tokens=32)
print(tokenizer.decode(output[0], skip_special_tokens=True))
```

## Make it again

With [config.yaml](config.yaml):

```
trl-rewards train --config config.yaml
```

Seed 3. Made with trl 1.16.0.

## Limits

- It was taught what the judges above prefer, mistakes and biases of theirs included; a higher score is not proof of \
better text.
- Nothing here measures whether an output is true to its source beyond shared words.
- One training run with one seed; other seeds end elsewhere.
"""


def front_matter(card):
    return yaml.safe_load(card.split("---\n")[1])


def headings(card):
    return [line[3:] for line in card.splitlines() if line.startswith("## ")]


def test_the_whole_card():
    assert render_model_card(FULL) == GOLDEN


def test_a_section_with_nothing_to_say_is_left_out():
    card = render_model_card(RewardModelCardData(model_name="model"))
    assert headings(card) == ["Use", "Limits"]
    assert "None" not in card
    assert set(front_matter(card)) == {"library_name", "tags"}


@pytest.mark.parametrize("name", ["bundled:tiny-t5", "./models/mine", "mine", "owner/name/more"])
def test_what_is_no_hub_id_is_not_linked(name):
    card = render_model_card(dataclasses.replace(FULL, base_model=name, dataset="data/texts.jsonl"))
    assert not {"base_model", "datasets"} & set(front_matter(card))
    assert f"`{name}`, an encoder-decoder" in card
    assert "Prompts: `data/texts.jsonl`" in card


def test_numbers_that_are_not_there_are_dashes():
    metrics = json.loads(json.dumps(make_metrics()))
    metrics["component_gain"]["kind"] = {"mean": None, "ci95": [None, None], "n": 0}
    metrics["before_greedy"]["kind"] = None
    metrics["kl"] = None
    card = render_model_card(dataclasses.replace(FULL, metrics=metrics))
    assert "None" not in card
    assert "KL to the starting model" not in card


def write_run(folder, **config):
    made_of = {"rewards": list(FULL.rewards), "versions": {"trl": "1.16.0"}, "held_out": "all 2 rows of x"}
    run_folder.write_yaml(folder / "config.yaml", {"model": "google/flan-t5-small", **config, "made_of": made_of})
    run_folder.write_json(folder / "metrics.json", make_metrics())
    run_folder.write_completions(folder / "completions.parquet", list(FULL.samples) * 5)


def test_a_run_folder_tells_its_own_card(tmp_path):
    folder = tmp_path / "my-run"
    folder.mkdir()
    write_run(folder, reward="article", dataset="owner/texts", prompt_prefix="translate: ", seed=4, kl_coef=0.1)
    card = generate_model_card(folder)
    assert card == generate_model_card(SimpleNamespace(folder=folder)) == generate_model_card(str(folder))
    assert "# my-run" in card
    assert front_matter(card)["pipeline_tag"] == "translation"
    assert "`kl_coef=0.1`" in card
    assert "Held-out prompts 1 to 3" in card
    assert "reward_curve.png" not in card
    assert "trl-rewards train --config config.yaml" in card
    assert str(tmp_path) not in card


def test_a_run_on_rows_in_memory_promises_no_command(tmp_path):
    write_run(tmp_path)
    assert "trl-rewards train" not in generate_model_card(tmp_path)


def test_what_is_no_run_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"without config\.yaml, metrics\.json, completions\.parquet"):
        generate_model_card(tmp_path)


def test_a_trainer_tells_what_it_knows(tmp_path):
    trainer = SimpleNamespace(
        policy_model=SimpleNamespace(config=SimpleNamespace(_name_or_path="google/flan-t5-small")),
        args=SimpleNamespace(output_dir=str(tmp_path / "run"), seed=9),
        state=SimpleNamespace(log_history=[{"epoch_reward": 0.5}, {"loss": 1.0}]),
    )
    card = generate_model_card(trainer)
    assert front_matter(card)["base_model"] == "google/flan-t5-small"
    assert "Mean reward by epoch: 0.500." in card
    assert headings(card) == ["Training", "Use", "Make it again", "Limits"]
    trainer.policy_model.config._name_or_path = str(tmp_path)
    assert "base_model" not in front_matter(generate_model_card(trainer))
