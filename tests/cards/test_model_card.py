import dataclasses
import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from huggingface_hub import ModelCard
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.cards.test_markdown import HOSTILE
from tests.hub.loopback import check_metadata
from tests.recipes.test_before_after import make_metrics
from trl_rewards_plugin.cards import metadata
from trl_rewards_plugin.cards.card_data import RewardModelCardData
from trl_rewards_plugin.cards.model_card import generate_model_card, render_model_card, write_model_card
from trl_rewards_plugin.cards.preview import preview_html
from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.hub.stamp import is_untouched, unstamped
from trl_rewards_plugin.runs.writing import write_json, write_rows, write_yaml

ROW = {"source": "a | b", "before": "<b>", "after": "", "before_reward": 1.0, "after_reward": -0.5}
FULL = RewardModelCardData(
    model_name="me/model",
    base_model="google/flan-t5-small",
    rewards=[
        {
            "name": "good", "weight": 1.0, "model": "owner/judge", "label": "LABEL_1", "score_type": "logit",
            "revision": "abc123",
        },
        {"name": "kind", "weight": 0.5},
    ],
    dataset="owner/texts",
    train_rows=1000,
    prompts=["summarize: Say this."],
    prompt_prefix="summarize: ",
    held_out="all 2 rows of owner/held-out",
    metrics=make_metrics(),
    samples=[ROW],
    gains=[{**ROW, "after": "better", "after_reward": 2.25}],
    losses=[ROW],
    rows_better=1,
    rows_worse=1,
    epoch_rewards=[0.25, 0.5],
    curve="reward_curve.png",
    settings={"learning_rate": 2e-5, "response_length": 32},
    max_prompt_length=512,
    max_new_tokens=32,
    seed=3,
    config_file="config.yaml",
    hardware="NVIDIA H100",
    precision="bfloat16 autocast",
    energy={"kwh": 0.25, "co2_grams": 100.0},
    versions={"trl": "1.16.0"},
    commit="0123abc",
    license="apache-2.0",
    language="en",
    pipeline_tag="summarization",
)  # fmt: skip

# Numbers checked by hand against make_metrics() in tests/recipes/test_before_after.py.
GOLDEN = """# model

[google/flan-t5-small](https://huggingface.co/google/flan-t5-small), an encoder-decoder,
fine-tuned with PPO \
(`trl_rewards_plugin`) to write text that classifiers score highly.

> **Reward 2.00 \N{RIGHTWARDS ARROW} 3.00** on 2 held-out prompts: a gain of **+1.00** (95% CI 0.00 to +2.00), at a \
KL divergence from the starting model of 1.50 nats, as estimated from samples.
> The confidence interval includes 0: these prompts do not show that training helped.

## Training objective

| Reward | Weight | Judge | Label | Score |
| --- | ---: | --- | --- | --- |
| good | 1 | [owner/judge](https://huggingface.co/owner/judge) at `abc123` | `LABEL_1` | logit |
| kind | 0.5 | a function |  |  |

Reward of an output = 1 \N{MULTIPLICATION SIGN} good + 0.5 \N{MULTIPLICATION SIGN} kind.

## Usage

```python
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

name = "me/model"  # the path of this folder, or its id on the Hub
tokenizer = AutoTokenizer.from_pretrained(name)
model = AutoModelForSeq2SeqLM.from_pretrained(name)
text = "summarize: Say this."
inputs = tokenizer(text, return_tensors="pt", truncation=True, max_length=512)
output = model.generate(**inputs, max_new_tokens=32)
print(tokenizer.decode(output[0], skip_special_tokens=True))
```

Or with the `text2text-generation` pipeline, which transformers 5 removed and `trl_rewards_plugin` restores:

```python
from trl_rewards_plugin.pipelines import text2text_pipeline

pipe = text2text_pipeline("me/model")
text = "summarize: Say this."
print(pipe(text, max_new_tokens=32, truncation=True)[0]["generated_text"])
```

Deployed as an Inference Endpoint (**Deploy** on the model page), it can be called over HTTP.
Set `ENDPOINT_URL` to the URL on the endpoint's page and `HF_TOKEN` to your access token:

```python
import json
import os
import urllib.request

text = "summarize: Say this."
request = urllib.request.Request(
    os.environ["ENDPOINT_URL"],
    data=json.dumps({"inputs": text}).encode(),
    headers={"Authorization": f"Bearer {os.environ['HF_TOKEN']}", "Content-Type": "application/json"},
)
with urllib.request.urlopen(request) as response:
    print(json.load(response))
```

## Results

|  | Before | After | Gain | 95% CI |
| --- | ---: | ---: | ---: | ---: |
| **reward** | 2.000 | 3.000 | +1.000 | 0.000 to +2.000 |
| good | 2.000 | 3.000 | +1.000 | +1.000 to +1.000 |
| kind | 0.000 | 0.000 | 0.000 | \N{MINUS SIGN}1.000 to +1.000 |
| reward, greedy | 2.000 | 3.000 | +1.000 |  |
| good, greedy | 2.000 | 3.000 | +1.000 |  |
| kind, greedy | 0.000 | 0.000 | 0.000 |  |

Means over 2 held-out prompts (all 2 rows of owner/held-out), decoded before and after training with the same \
settings and seed; sampled as in training unless marked greedy.
Confidence intervals: studentised paired bootstrap over prompts.
They reflect the choice of prompts, not of the training seed.

| Signs of reward hacking | Before | After |
| --- | ---: | ---: |
| ROUGE-L F1 against the source | 0.500 | 0.500 |
| Length in words | 2.000 | 1.500 |
| Share of distinct outputs | 1.000 | 1.000 |
| Share of outputs that do not copy the whole input | 0.500 | 0.500 |
| Share of distinct outputs, greedy | 1.000 | 1.000 |
| KL to the starting model (nats per response, estimated from samples) | 0.000 | 1.500 |

For comparison: the source sentences score 9.000, best-of-16 sampling from the starting model scores \
7.000.

## Training

![Mean training reward and KL to the starting model, by episode](reward_curve.png)

64 episodes in 2 seconds on NVIDIA H100.
Precision: bfloat16 autocast.
Energy: 0.25 kWh, measured by CodeCarbon.
Mean reward by epoch: 0.250, 0.500.

Algorithm: PPO ([Proximal Policy Optimization Algorithms](https://arxiv.org/abs/1707.06347)).
Settings (all others have their defaults):

| Setting | Value |
| --- | --- |
| `learning_rate` | `2e-05` |
| `response_length` | `32` |

Data: 1,000 prompts from [owner/texts](https://huggingface.co/datasets/owner/texts), each prefixed with `summarize:`.
Held-out examples:

> summarize: Say this.

## Sample outputs

The first held-out prompt, with sampled outputs and their rewards.

| Source | Before | After | Change |
| --- | --- | --- | ---: |
| a &#124; b | &#60;b&#62; (+1.00) | (nothing) (\N{MINUS SIGN}0.50) | \N{MINUS SIGN}1.50 |

**Best gains** (1 output scores higher than before):

| Source | Before | After | Change |
| --- | --- | --- | ---: |
| a &#124; b | &#60;b&#62; (+1.00) | better (+2.25) | +1.25 |

**Worst regressions** (1 output scores lower):

| Source | Before | After | Change |
| --- | --- | --- | ---: |
| a &#124; b | &#60;b&#62; (+1.00) | (nothing) (\N{MINUS SIGN}0.50) | \N{MINUS SIGN}1.50 |

## Limitations

- The model learned to satisfy the judges above, including mistakes and biases; a higher score does not prove better \
text.
- good sees only the output, never the source: fluent text that is bland or off-topic can score as high as a faithful \
one.
- The rewards are summed, so a high score on one can make up for a low score on another.
- Outputs are 25% shorter than before training.
- 1 of 2 held-out outputs scores lower than before training.
- Faithfulness to the source is measured by word overlap alone.
- This is one training run with one seed; results vary across seeds.

## Reproduce

With [config.yaml](config.yaml) from this repository:

```sh
trl-rewards train --config config.yaml
```

Seed 3.
Made with trl 1.16.0.
Source of `trl_rewards_plugin`: commit `0123abc`.
"""


def front_matter(card):
    return yaml.safe_load(re.match(r"---\n(.*?)\n---\n", card, re.DOTALL)[1])


def python_blocks(card):
    return re.findall(r"^```python\n(.*?)^```$", card, re.DOTALL | re.MULTILINE)


def headings(card):
    return [line[3:] for line in card.splitlines() if line.startswith("## ")]


def test_the_whole_card():
    body = render_model_card(FULL).split("---\n", 2)[2].lstrip()
    described, _, cited = unstamped(body).partition("\n## Citation\n")
    assert described == GOLDEN
    assert cited.count("@article{schulman2017ppo") == cited.count("@software{vonwerra2020trl") == 1


def test_metadata_are_what_the_hub_reads():
    card = render_model_card(FULL)
    assert check_metadata(card, "model") == []
    found = front_matter(card)
    index = found.pop("model-index")
    assert found == {
        "library_name": "transformers",
        "license": "apache-2.0",
        "language": "en",
        "base_model": "google/flan-t5-small",
        "base_model_relation": "finetune",
        "datasets": ["owner/texts"],
        "pipeline_tag": "summarization",
        "tags": ["trl", "ppo", "reinforcement-learning", "seq2seq", "classifier-reward", "reward-model:owner/judge",
                 "reward-model:kind"],
        "metrics": ["reward", "good", "kind", "rouge"],
        "widget": [{"text": "summarize: a | b", "example_title": "Held-out prompt 1", "output": {"text": ""}}],
        "co2_eq_emissions": {
            "emissions": 100.0, "source": "CodeCarbon", "training_type": "fine-tuning", "hardware_used": "NVIDIA H100",
        },
    }  # fmt: skip
    assert index[0]["name"] == "me/model"
    measured = {entry["type"]: entry["value"] for entry in index[0]["results"][0]["metrics"]}
    assert (measured["reward"], measured["kind"], measured["output_length"]) == (3.0, 0.0, 1.5)


def test_metadata_round_trip():
    card = render_model_card(FULL)
    loaded = ModelCard(card)
    assert loaded.data.eval_results[0].metric_value == 3.0
    assert yaml.safe_load(loaded.data.to_yaml()) == front_matter(card)
    assert loaded.text.lstrip().startswith("# model")


def test_a_warning_about_the_held_out_prompts_is_not_in_the_data_sets_name():
    told = "12 of 96 held-out prompts are also in the training data"
    card = render_model_card(dataclasses.replace(FULL, held_out_warning=told))
    assert front_matter(card) == front_matter(render_model_card(FULL))
    assert f"({FULL.held_out}; warning: {told})" in card
    older = render_model_card(dataclasses.replace(FULL, held_out=f"{FULL.held_out}; warning: {told}"))
    assert front_matter(older) == front_matter(card)


def test_eval_results_are_for_data_of_the_hub():
    from huggingface_hub import parse_eval_result_entries

    entries = parse_eval_result_entries(yaml.safe_load(metadata.eval_results(FULL)))
    assert (entries[0].dataset_id, entries[0].task_id, entries[0].value) == ("owner/texts", "reward", 3.0)
    assert metadata.eval_results(dataclasses.replace(FULL, dataset="rows.jsonl")) is None


def test_empty_sections_are_left_out():
    card = render_model_card(RewardModelCardData(model_name="model"))
    assert headings(card) == ["Usage", "Limitations", "Citation"]
    assert "None" not in card
    assert set(front_matter(card)) == {"library_name", "tags"}


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(FULL) if field.name != "model_name"])
def test_any_field_may_be_missing(field):
    empty = getattr(RewardModelCardData("model"), field)
    card = render_model_card(dataclasses.replace(FULL, **{field: empty}))
    assert "None" not in card
    assert ModelCard(card).data.to_dict()
    assert check_metadata(card, "model") == []


@pytest.mark.parametrize(
    ("aggregation", "formula", "limit"),
    [
        ("weighted_mean", "(1 \N{MULTIPLICATION SIGN} good + 0.5 \N{MULTIPLICATION SIGN} kind) / 1.5.", "averaged"),
        (
            "mean_minus_std",
            "(1 \N{MULTIPLICATION SIGN} good + 0.5 \N{MULTIPLICATION SIGN} kind) / 1.5 less their disagreement.",
            "judges agree on a mistake",
        ),
        ("minimum", "the minimum of 1 \N{MULTIPLICATION SIGN} good, 0.5 \N{MULTIPLICATION SIGN} kind.", "the lowest"),
        ("geometric_mean", "(good^1 \N{MULTIPLICATION SIGN} kind^0.5)^(1 / 1.5).", "multiplied"),
    ],
)
def test_the_formula_follows_the_aggregation(aggregation, formula, limit):
    card = render_model_card(dataclasses.replace(FULL, aggregation=aggregation))
    assert f"\nReward of an output = {formula}\n" in card
    limits = card.partition("## Limitations")[2]
    assert limit in limits
    assert "summed" not in limits
    assert "weighted sum" not in card


def test_normalization_clipping_and_schedules_are_in_the_reward_table():
    rewards = [
        {**FULL.rewards[0], "normalization": {"mean": -1.0, "scale": 2.0}, "clip": [-3.0, float("inf")]},
        {"name": "short", "weight": 0.5, "function": "length", "max_length": 60, "normalization": "zscore",
         "weight_schedule": {0.0: 0.0, 0.5: 1.0}},
        {"name": "rougeL", "weight": 1.0, "metric": "rouge", "key": "rougeL", "references": "summary"},
    ]  # fmt: skip
    card = render_model_card(dataclasses.replace(FULL, rewards=rewards))
    rows = re.findall(r"^\| (?:good|short|rougeL) \| (.*) \|$", card.partition("## Usage")[0], re.MULTILINE)
    assert [row.split(" | ")[-1] for row in rows] == [
        "(score \N{MINUS SIGN} \N{MINUS SIGN}1) / 2; clipped to \N{MINUS SIGN}3 ... inf",
        "running z-score; weight \N{MULTIPLICATION SIGN} 0 at 0 %, 1 at 50 % of training",
        "",
    ]
    assert "| 0.5 | `length` (max_length 60) |" in card
    assert "| 1 | `rouge` (key rougeL, references summary) |" in card
    assert "1 \N{MULTIPLICATION SIGN} rougeL, of the adjusted scores." in card
    told = "Evaluations during training used the scale of the first one and the weights above without their schedule,"
    assert told in card
    assert "Evaluations during training" not in render_model_card(FULL)
    card = render_model_card(dataclasses.replace(FULL, rewards=rewards[1:2], evaluation_scales={"short": (1.5, 0.25)}))
    assert "the scale of the first one (short mean 1.500, standard deviation 0.250)" in card


def test_targets_are_in_the_objective_and_among_the_results():
    rewards = [FULL.rewards[0], {"name": "kind", "weight": 0.0, "function": "length", "constraints": {"max": 8.0}}]
    targets = {"kind": {"max": 8.0, "mean": 8.5, "slack": -0.5}}
    card = render_model_card(dataclasses.replace(FULL, rewards=rewards, metrics={**FULL.metrics, "targets": targets}))
    assert "| kind | learnt | `length` |" in card
    assert "Reward of an output = 1 \N{MULTIPLICATION SIGN} good, with mean kind at most 8.\n" in card
    assert "\n- kind at most 8: mean 8.500, missed by 0.500\n" in card
    assert "Targets" not in render_model_card(FULL)


def test_a_gain_without_an_interval_says_so():
    metrics = json.loads(json.dumps(make_metrics()))
    metrics["reward_gain"]["ci95"] = [None, None]
    card = render_model_card(dataclasses.replace(FULL, metrics=metrics))
    assert "a gain of **+1.00** (95% CI none: too few prompts, or all gains equal)" in card
    assert "| +1.000 | none: too few prompts, or all gains equal |" in card
    assert "do not show that training helped" not in card


def test_a_rising_penalty_is_a_limitation_and_a_falling_one_is_not():
    metrics = json.loads(json.dumps(make_metrics()))
    metrics["component_gain"]["good"]["mean"], metrics["component_gain"]["kind"]["mean"] = 0.5, -0.25
    good, kind = FULL.rewards

    def limits(*rewards):
        return render_model_card(dataclasses.replace(FULL, metrics=metrics, rewards=rewards)).partition(
            "## Limitations"
        )[2]

    told = limits({**good, "weight": -1.0}, {**kind, "weight": -0.5})
    assert "Mean score higher than before training: good (+0.500)." in told
    assert "Mean score lower than before training" not in told
    # A target met by falling is no damage, and within two ends neither direction is.
    assert "score lower than" not in limits(good, {**kind, "weight": 0.0, "constraints": {"max": 8.0}})
    assert "score lower than" not in limits(good, {**kind, "weight": 0.0, "constraints": {"min": 1.0, "max": 8.0}})
    told = limits(good, kind)
    assert "Mean score lower than before training: kind (\N{MINUS SIGN}0.250)." in told
    assert "score higher than" not in told


@pytest.mark.parametrize("name", ["bundled:tiny-t5", "./models/mine", "mine", "owner/name/more"])
def test_only_hub_ids_are_linked(name):
    card = render_model_card(dataclasses.replace(FULL, base_model=name, dataset="data/texts.jsonl"))
    assert not {"base_model", "base_model_relation", "datasets"} & set(front_matter(card))
    assert f"`{name}`, an encoder-decoder" in card
    assert "prompts from `data/texts.jsonl`" in card


def test_missing_numbers_are_dashes():
    metrics = json.loads(json.dumps(make_metrics()))
    metrics["component_gain"]["kind"] = {"mean": None, "ci95": [None, None], "n": 0}
    metrics["before_greedy"]["kind"] = None
    metrics["kl"] = None
    card = render_model_card(dataclasses.replace(FULL, metrics=metrics, samples=[{**ROW, "before_reward": None}]))
    assert "None" not in card
    assert "KL to the starting model (nats" not in card


def test_the_quickstart_fits_adapters_and_decoders():
    card = render_model_card(dataclasses.replace(FULL, adapter=True))
    assert "from peft import AutoPeftModelForSeq2SeqLM\n" in card
    assert (front_matter(card)["library_name"], front_matter(card)["base_model_relation"]) == ("peft", "adapter")
    card = render_model_card(dataclasses.replace(FULL, encoder_decoder=False))
    assert "truncation" not in card  # on the right, where TRL keeps the end of a prompt
    card = render_model_card(dataclasses.replace(FULL, encoder_decoder=False, chat=True, algorithm="GRPO"))
    assert "AutoModelForCausalLM" in card
    assert 'decode(output[0][inputs["input_ids"].shape[1] :]' in card
    assert "apply_chat_template" in card
    assert "pipelines" not in card
    assert front_matter(card)["tags"][1] == "grpo"


HOSTILE_TEXT = st.text(max_size=60) | st.sampled_from(HOSTILE) | st.sampled_from(['me/a"b', "name: {x}", "'", "\\"])


@settings(max_examples=25)
@given(HOSTILE_TEXT, HOSTILE_TEXT, HOSTILE_TEXT)
def test_hostile_content_breaks_neither_metadata_nor_page_nor_code(one, two, three):
    row = {**ROW, "prompt": one, "source": two, "before": three, "after": one}
    data = dataclasses.replace(
        FULL, model_name=one or "x", base_model=two, dataset=three, prompts=[one, two], prompt_prefix=three,
        held_out=one, samples=[row], gains=[row], losses=[row], settings={two: three}, hardware=one, commit=two,
        versions={"trl": three}, license=one, language=two, tags=[three],
        rewards=[
            {"name": one, "weight": 1.0, "model": two, "label": three, "revision": one, "score_type": two},
            {"name": two, "weight": 1.0, "function": three, "reference": one},
        ],
    )  # fmt: skip
    card = render_model_card(data)
    assert is_untouched(card)
    loaded = ModelCard(card)
    assert yaml.safe_load(loaded.data.to_yaml()).keys() == front_matter(card).keys()
    assert loaded.text.count("\n## ") == unstamped(render_model_card(FULL)).count("\n## ")
    page = preview_html(card)
    allowed = {"p", "a", "code", "pre", "table", "thead", "tbody", "tr", "th", "td", "blockquote", "ul", "li", "img",
               "strong", "h1", "h2", "html", "head", "body", "main", "meta", "title", "style", "doctype"}  # fmt: skip
    assert set(re.findall(r"</?!?([a-zA-Z]\w*)", re.sub(r"<style>.*?</style>", "", page, flags=re.DOTALL))) <= allowed
    assert page.count("<table>") == page.count("</table>") == 7
    assert {href.split("/")[2] for href in re.findall(r'<a href="(.*?)"', page) if "//" in href} <= {
        "huggingface.co", "arxiv.org",
    }  # fmt: skip
    for block in python_blocks(card):
        compile(block, "card", "exec")


def test_a_value_that_no_filter_made_markdown_is_escaped():
    card = render_model_card(dataclasses.replace(FULL, hardware="<b>*x*</b>", held_out="[a](http://b)"))
    body = card.split("---\n", 2)[2]
    assert "on &#60;b&#62;&#42;x&#42;&#60;/b&#62;." in body
    assert "(&#91;a&#93;(http&#58;//b))" in body


def test_an_output_of_50000_characters_is_cut():
    row = {**ROW, "after": "x" * 50_000}
    card = render_model_card(dataclasses.replace(FULL, samples=[row], gains=[row], losses=[row]))
    assert len(card) < 65_000  # the metadata tell the first whole, for the widget


# ---- From a folder ----


def write_run(folder, rows=None, **config):
    made_of = {
        "rewards": list(FULL.rewards), "versions": {"trl": "1.16.0"}, "held_out": "all 2 rows of x", "train_rows": 7,
    }  # fmt: skip
    write_yaml(folder / "config.yaml", {"model": "google/flan-t5-small", **config, "made_of": made_of})
    write_json(folder / "metrics.json", make_metrics())
    write_rows(folder / "completions.parquet", rows or [FULL.samples[0]] * 5)


def test_a_run_folder_has_all_that_its_card_needs(tmp_path):
    folder = tmp_path / "my-run"
    folder.mkdir()
    write_run(folder, reward="article", dataset="owner/texts", prompt_prefix="translate: ", seed=4, kl_coef=0.1)
    card = generate_model_card(folder)
    assert card == generate_model_card(SimpleNamespace(folder=folder)) == generate_model_card(str(folder))
    assert "# my-run" in card
    assert front_matter(card)["pipeline_tag"] == "translation"
    assert "| `kl_coef` | `0.1` |" in card
    assert "The first 3 held-out prompts" in card
    assert "reward_curve.png" not in card
    assert "trl-rewards train --config config.yaml" in card
    assert str(tmp_path) not in card


@pytest.mark.parametrize(
    ("objective", "name", "paper"),
    [("ppo", "PPO", "1707.06347"), ("raft", "RAFT", "2304.06767"), ("dpo", "DPO (online)", "2305.18290")],
)
def test_a_card_names_the_objective_of_the_run(tmp_path, objective, name, paper):
    write_run(tmp_path, objective=objective)
    card = generate_model_card(tmp_path)
    assert f"fine-tuned with {name} (`trl_rewards_plugin`)" in card
    assert f"https://arxiv.org/abs/{paper}" in card
    assert objective in front_matter(card)["tags"]


def test_the_aggregation_is_read_from_the_run_folder(tmp_path):
    write_run(tmp_path)
    config = yaml.safe_load((tmp_path / "config.yaml").read_text(encoding="utf-8"))
    config["made_of"]["aggregation"] = "minimum"
    write_yaml(tmp_path / "config.yaml", config)
    assert "Reward of an output = the minimum of" in generate_model_card(tmp_path)


def test_gains_and_losses_are_the_largest_of_all_rows(tmp_path):
    rewards = [(0, 1), (0, 5), (0, -1), (0, -7), (0, 0), (0, 2), (0, 3), (0, -2), (0, -3), (0, float("nan"))]
    rows = [
        {**ROW, "source": f"s{index}", "before_reward": float(before), "after_reward": float(after)}
        for index, (before, after) in enumerate(rewards)
    ]
    write_run(tmp_path, rows)
    card = generate_model_card(tmp_path)
    best, _, worst = card.partition("**Best gains**")[2].partition("**Worst regressions**")
    assert re.findall(r"^\| (s\d)", best, re.MULTILINE) == ["s1", "s6", "s5"]
    assert re.findall(r"^\| (s\d)", worst, re.MULTILINE) == ["s3", "s8", "s7"]
    assert "(4 outputs score higher than before)" in card
    assert "nan" not in card


def test_paths_and_bookkeeping_are_not_among_the_settings(tmp_path):
    kwargs = {"cache": [f"{tmp_path}/deep/down"]}
    write_run(
        tmp_path, deepspeed=f"{tmp_path}/zero.json", save_steps=3, report_to=["x"], gamma=None, optim_target=kwargs,
        log_completions=True, num_completions_to_print=1,
    )  # fmt: skip
    card = generate_model_card(tmp_path)
    assert "| `deepspeed` | `zero.json` |" in card
    assert str(tmp_path) not in card
    bookkeeping = {"save_steps", "report_to", "gamma", "log_completions", "num_completions_to_print"}
    assert not bookkeeping & set(re.findall(r"\w+", card))


def test_epochs_that_max_steps_overrules_are_not_among_the_settings(tmp_path):
    write_run(tmp_path, num_train_epochs=5.0, max_steps=3)
    card = generate_model_card(tmp_path)
    assert "`max_steps`" in card
    assert "num_train_epochs" not in card
    write_run(tmp_path, num_train_epochs=5.0)
    assert "`num_train_epochs`" in generate_model_card(tmp_path)


def test_a_card_names_files_without_the_way_to_them_and_warns_in_its_limitations(tmp_path):
    write_run(tmp_path, model="../../bart", dataset="../own.csv", reward="run_reward.yaml")
    write_json(tmp_path / "metrics.json", make_metrics() | {"warnings": ["Nearly all are the same."]})
    (tmp_path / "run_reward.yaml").write_text("rewards:\n- function: ./../mine.py:loud\n- function: length\n")
    card = generate_model_card(tmp_path)
    assert ".." not in card.partition("## Usage")[0]
    assert "`own.csv`" in card
    expected = "or the reward file expects them (this repository does not contain them), then run:"
    assert f"Put bart, mine.py and own.csv where [config.yaml](config.yaml) {expected}\n\n```sh\ntrl-rewards" in card
    assert "- Nearly all are the same." in card.partition("## Limitations")[2].partition("## Reproduce")[0]


def test_a_run_on_rows_in_memory_promises_no_command(tmp_path):
    write_run(tmp_path)
    assert "trl-rewards train" not in generate_model_card(tmp_path)


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"without config\.yaml, metrics\.json, completions\.parquet"):
        generate_model_card(tmp_path)
    write_run(tmp_path)
    with pytest.raises(InputError, match="licence"):
        generate_model_card(tmp_path, licence="mit")
    for text in ("a: [", "- a list"):
        (tmp_path / "config.yaml").write_text(text)
        with pytest.raises(InputError, match=r"config\.yaml"):
            generate_model_card(tmp_path)


def test_fields_can_be_set(tmp_path):
    write_run(tmp_path)
    assert front_matter(generate_model_card(tmp_path, license="mit", language="de"))["license"] == "mit"


def test_an_edited_card_is_replaced_only_when_asked(tmp_path):
    write_run(tmp_path, dataset="owner/texts")
    path = write_model_card(tmp_path, overwrite=False)
    assert (tmp_path / ".eval_results" / "trl_rewards_plugin.yaml").is_file()
    ours = path.read_text(encoding="utf-8")
    for left in ("", ours[:40], ours):
        path.write_text(left, encoding="utf-8")
        write_model_card(tmp_path, overwrite=False)
        assert path.read_text(encoding="utf-8") == ours
    path.write_text(ours.replace("tags:", 'license: mit\nnote: "a\\n---\\nb"\ntags:'), encoding="utf-8")
    for _ in range(2):  # the kept edit is one afterwards, too
        write_model_card(tmp_path, overwrite=False)
        assert path.read_text(encoding="utf-8").count("license: mit\n") == 1
        assert ModelCard.load(path).data.note == front_matter(path.read_text(encoding="utf-8"))["note"] == "a\n---\nb"
    assert path.read_text(encoding="utf-8").endswith(ours.partition("\n---\n")[2])
    path.write_text(ours.replace("## Limitations", "## My limits"), encoding="utf-8")
    with pytest.raises(InputError, match="--overwrite-card"):
        write_model_card(tmp_path, overwrite=False)
    assert "My limits" in path.read_text(encoding="utf-8")
    write_model_card(tmp_path)
    assert path.read_text(encoding="utf-8") == ours


# ---- Of a real run ----


def test_the_card_of_a_real_run_holds(run):
    card = ModelCard.load(run / "README.md")
    assert check_metadata(card.content, "model") == []
    assert yaml.safe_load(card.data.to_yaml()) == front_matter((run / "README.md").read_text(encoding="utf-8"))
    for target in re.findall(r"\]\((?!http)(.*?)\)", card.text):
        assert (run / target).is_file()
    assert "reward_curve.png" in card.text
    assert "CPU cores" in card.text
    assert not {"None", "nan", "@localhost"} & set(re.findall(r"[\w@]+", card.text))
    assert str(run.parent) not in card.content


def test_no_file_of_a_real_run_names_a_folder_of_this_machine(run, finished_run, tiny_run):
    places = {str(run.parent), str(finished_run.parent), str(Path(tiny_run.model).parent)}
    names = ("README.md", "config.yaml", "run_reward.yaml", "metrics.json", "config.json", "tokenizer_config.json")
    for name in names:
        text = (run / name).read_text(encoding="utf-8")
        assert not [place for place in places if place in text], name


def test_the_quickstart_of_a_real_run_runs(run, monkeypatch, capsys):
    pytest.importorskip("trl_rewards_plugin.pipelines")
    monkeypatch.chdir(run)
    blocks = python_blocks((run / "README.md").read_text(encoding="utf-8"))
    assert 'name = "."  #' in blocks[0]
    assert re.search(r"truncation=True, max_length=\d+\)", blocks[0])
    assert len(blocks) == 3
    for block in blocks[:2]:
        exec(compile(block, "README.md", "exec"), {})
    one, two = capsys.readouterr().out.strip().splitlines()
    assert one == two


def test_the_call_over_http_runs(run, monkeypatch, capsys):
    import threading
    from http.server import BaseHTTPRequestHandler, HTTPServer

    class Endpoint(BaseHTTPRequestHandler):
        def do_POST(self):
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            answer = json.dumps([{"generated_text": asked["inputs"], "for": self.headers["Authorization"]}]).encode()
            self.send_response(200)
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *args):
            pass

    server = HTTPServer(("127.0.0.1", 0), Endpoint)
    thread = threading.Thread(target=server.handle_request)
    thread.start()
    monkeypatch.setenv("ENDPOINT_URL", f"http://127.0.0.1:{server.server_address[1]}")
    monkeypatch.setenv("HF_TOKEN", "mine")
    block = python_blocks(render_model_card(FULL))[2]
    exec(compile(block, "README.md", "exec"), {})
    thread.join()
    server.server_close()
    assert capsys.readouterr().out == "[{'generated_text': 'summarize: Say this.', 'for': 'Bearer mine'}]\n"


def test_a_card_asks_for_what_only_its_author_knows():
    card = render_model_card(dataclasses.replace(FULL, license=None, base_model="my-model"))
    head = card.split("---\n")[1]
    assert "# license: apache-2.0 (unknown here: fill in)" in head
    assert "# base_model: owner/name (unknown here: fill in)" in head
    assert "unknown here" not in render_model_card(FULL)


def test_long_texts_are_folded_in_code_and_metadata():
    words = " ".join(f"word{place}" for place in range(60))
    card = render_model_card(dataclasses.replace(FULL, prompts=[words], samples=[{**ROW, "prompt": words}]))
    code = card.split("```python\n")[1].split("```")[0]
    assert max(map(len, code.splitlines())) <= 100
    found = {}
    exec(code[code.index("text = ") : code.index("inputs = ")], found)
    assert found["text"].startswith("word0 word1 ")
    assert found["text"] == " ".join(found["text"].split())
    assert words.startswith(found["text"].removesuffix(" ..."))
    assert max(map(len, card.split("---\n")[1].splitlines())) <= 130
    assert front_matter(card)["widget"][0]["text"] == words


def test_counted_things_and_cut_prompts_stand_in_the_card():
    metrics = make_metrics()
    metrics["counts"] = {"end in a full stop": {"before": 0.25, "after": 0.75}}
    metrics["prompt_cuts"] = {"prompts": 10, "cut": 9, "limit": 8, "kept": 0.5}
    card = render_model_card(dataclasses.replace(FULL, metrics=metrics))
    assert "- 25% \N{RIGHTWARDS ARROW} 75% of the sampled outputs end in a full stop." in card
    limits = card.split("## Limitations")[1]
    assert "- 9 of 10 prompts (90%) are cut to 8 tokens; the model reads 50% of a cut prompt (median)." in limits
