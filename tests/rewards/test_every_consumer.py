"""One reward file, unchanged, in everything that takes a reward: the same texts get the same numbers everywhere.

The file has a judge, a gate behind it, an ensemble and a judge that reads the prompt. TRL's GRPO and RLOO and our
trainer sample; what they gave their samples must be what the server, its client, OpenRLHF's request, `score` and
`evaluate` give them too. Leaves out: constraints, whose multipliers are each run's own (test_trl_trainers.py).
"""

import evaluate
import pandas
import pytest
import yaml
from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

from tests.rewards.judges import judge, sentiment
from tests.rewards.test_trl_trainers import Tables, settings
from tests.rewards.tiny_causal import PROMPTS, prompts, tiny_causal
from tests.serving.test_reward_server import post, served
from tests.tiny_models import tiny_t5
from trl_rewards_plugin import Seq2SeqPPOConfig, Seq2SeqPPOTrainer, terminal
from trl_rewards_plugin.cli.main import main
from trl_rewards_plugin.rewards import ClassifierReward, LengthReward, MultiClassifierReward, RemoteReward

CLOSE = {"rel": 0, "abs": 1e-5}  # in other batches float32 rounds otherwise
GATE = {"quality": 1.0}  # about half of the samples are behind it
DOUBT = {"first": 3, "second": 4}  # name and seed of each judge of the ensemble
# TRL uses names that the newest transformers deprecates.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.* is deprecated:FutureWarning"),
    pytest.mark.usefixtures("evaluate_cache"),
]


def write_files(folder):
    """The path of the reward file, whose ensemble is a file beside it."""
    doubt = [{"model": str(judge(name, seed=seed)), "label": "good", "name": name} for name, seed in DOUBT.items()]
    ensemble = {"aggregation": "mean_minus_std", "disagreement_coef": 0.5, "rewards": doubt}
    (folder / "doubt.yaml").write_text(yaml.safe_dump(ensemble), encoding="utf-8")
    quality = {"model": str(judge()), "label": "good", "name": "quality", "weight": 1.0}
    neutral = {"model": str(sentiment()), "label": "neutral", "name": "neutrality", "pair": "prompt", "weight": 0.5}
    words = {
        "function": "length",
        "unit": "characters",
        "name": "length",
        "weight": 0.1,
        "only_if": GATE,
        "floor": -1.0,
    }
    content = {"rewards": [quality, neutral, words, {"combination": "doubt.yaml", "name": "doubt", "weight": 0.25}]}
    (folder / "everywhere.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    return folder / "everywhere.yaml"


def in_python():
    """The file's reward, with weights by name."""
    doubt = [ClassifierReward(judge(name, seed=seed), label="good", name=name) for name, seed in DOUBT.items()]
    parts = [
        ClassifierReward(judge(), label="good", name="quality"),
        ClassifierReward(sentiment(), label="neutral", name="neutrality", pair="prompt"),
        LengthReward(unit="characters", name="length"),
        MultiClassifierReward(doubt, aggregation="mean_minus_std", disagreement_coef=0.5, name="doubt"),
    ]
    weights = {"length": 0.1, "doubt": 0.25, "quality": 1.0, "neutrality": 0.5}
    return MultiClassifierReward(parts, weights, only_if={"length": GATE}, floor={"length": -1.0})


def sampled_by_grpo(reward, folder):
    model = str(tiny_causal(folder / "causal"))
    args = GRPOConfig(**{
        **settings(folder, num_generations=4, log_completions=True, num_completions_to_print=0), "max_steps": 1
    })  # fmt: skip
    GRPOTrainer(model, reward, args=args, train_dataset=prompts()).train()
    return pandas.read_parquet(folder / "completions" / "completions_00001.parquet")


def sampled_by_rloo(reward, folder):
    model, tables = str(tiny_causal(folder / "causal")), Tables()
    args = RLOOConfig(**{**settings(folder, num_generations=4), "max_steps": 1})
    tables.trainer = RLOOTrainer(model, reward, args=args, train_dataset=prompts(), callbacks=[tables])
    tables.trainer.train()
    return pandas.DataFrame(tables.tables[0])


def sampled_by_ppo(reward, folder):
    args = Seq2SeqPPOConfig(
        output_dir=str(folder), max_steps=1, per_device_train_batch_size=8, num_mini_batches=1, num_ppo_epochs=1,
        response_length=6, log_completions=True, num_completions_to_print=0, report_to="none", save_strategy="no",
        use_cpu=True, disable_tqdm=True,
    )  # fmt: skip
    data = Dataset.from_dict({"prompt": PROMPTS})
    Seq2SeqPPOTrainer(str(tiny_t5(folder / "t5")), reward, args, train_dataset=data).train()
    return pandas.read_parquet(folder / "completions" / "completions_00001.parquet")


def by_score(file, table, folder):
    table.to_json(folder / "in.jsonl", orient="records", lines=True)
    argv = ["score", str(folder / "in.jsonl"), "--reward", str(file), "--output", str(folder / "out.jsonl")]
    assert main([*argv, "--text-column", "completion", "--prompt-column", "prompt"]) == 0
    return pandas.read_json(folder / "out.jsonl", lines=True, dtype={"prompt": str, "completion": str})


def by_evaluate(file, table, folder):
    data = folder / "data.jsonl"
    table.to_json(data, orient="records", lines=True)
    argv = ["evaluate", str(data), "--output_column", "completion", "--dataset", str(data), "--text_column", "prompt"]
    assert main([*argv, "--metrics", str(file), "--output_dir", str(folder / "evaluation")]) == 0
    found = pandas.read_parquet(folder / "evaluation" / "outputs.parquet")
    return found.rename(columns=lambda name: name.replace("after everywhere ", "").replace("reward", "total"))


def test_the_same_texts_get_the_same_numbers_everywhere(tmp_path, monkeypatch):
    # The commands turn warnings down for their process, which is pytest's own here.
    monkeypatch.setattr(terminal, "silence_libraries", lambda: None)
    monkeypatch.setattr(evaluate.config, "HF_EVALUATE_OFFLINE", True)
    file = write_files(tmp_path)
    reward = MultiClassifierReward.from_preset(file)  # this one object goes through all that take an object
    samplers = {"grpo": sampled_by_grpo, "rloo": sampled_by_rloo, "ppo": sampled_by_ppo}
    tables = [sample(reward, tmp_path / name).assign(trainer=name) for name, sample in samplers.items()]
    sampled = pandas.concat(tables, ignore_index=True).rename(columns={"everywhere": "total"})
    texts, asked = sampled["completion"].tolist(), sampled["prompt"].tolist()
    local = reward.score(texts, asked)
    expected = pandas.DataFrame({"total": local.total} | local.components)
    assert 0 < (expected["quality"] >= GATE["quality"]).sum() < len(texts) == 24

    found = {"trainers": sampled, "in Python": {"total": in_python().score(texts, asked).total}}
    with served(reward) as url:
        _, answer = post(f"{url}/score", {"texts": texts, "prompts": asked})
        found["server"] = {"total": answer["total"], **answer["components"]}
        found["client"] = {"total": RemoteReward(url, name="remote").score(texts, asked).total}
        # As OpenRLHF's client posts it.
        queries = [prompt + text for prompt, text in zip(asked, texts, strict=True)]
        _, answer = post(f"{url}/get_reward", {"query": queries, "prompts": asked, "labels": [""] * len(texts)})
        found["OpenRLHF"] = {"total": answer["rewards"], **answer["extra_logs"]}
    found["score"] = by_score(file, sampled[["prompt", "completion"]], tmp_path)
    found["evaluate"] = by_evaluate(file, sampled[["prompt", "completion"]], tmp_path)
    for consumer, columns in found.items():
        for name in expected if len(columns) > 1 else ["total"]:
            values = pandas.Series(columns[name]).astype(float)
            # Of components RLOO keeps the means alone.
            kept = (sampled["trainer"] != "rloo") | (consumer != "trainers") | (name == "total")
            assert values[kept].tolist() == pytest.approx(expected[name][kept].tolist(), **CLOSE), (consumer, name)
