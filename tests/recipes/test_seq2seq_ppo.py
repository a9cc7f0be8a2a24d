import json
import math
import re
from pathlib import Path

import pyarrow.parquet
import pytest
import yaml
from peft import LoraConfig
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer
from transformers.utils import logging

from tests.recipes.tiny_run import SHORT, sentences
from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.metrics.text_metrics import rouge_l
from trl_rewards_plugin.ppo.config import Seq2SeqPPOConfig
from trl_rewards_plugin.ppo.monitoring.callbacks import answers_bar
from trl_rewards_plugin.ppo.trainer import Seq2SeqPPOTrainer
from trl_rewards_plugin.recipes import seq2seq_ppo
from trl_rewards_plugin.recipes.seq2seq_ppo import Seq2SeqPPO
from trl_rewards_plugin.rewards import LengthReward, MultiClassifierReward


def words_reward(completions, **kwargs):
    """One point a word."""
    return [float(len(text.split())) for text in completions]


@pytest.fixture
def make(tiny_run, tmp_path):
    """`make(**changes)`: the tiny run as a recipe, and what it has said, in `recipe.said`."""

    def build(**changes):
        settings = {key: value for key, value in changes.items() if key in Seq2SeqPPOConfig.__dataclass_fields__}
        arguments = {key: value for key, value in changes.items() if key not in settings}
        said = []
        given = {"model": tiny_run.model, "reward": tiny_run.reward, "dataset": tiny_run.dataset, "echo": said.append}
        settings = {**SHORT, "output_dir": str(tmp_path / "run"), "seed": 0, **settings}
        recipe = Seq2SeqPPO(**{**given, **arguments}, args=Seq2SeqPPOConfig(**settings))
        recipe.said = said
        return recipe

    return build


@pytest.fixture
def no_models(monkeypatch):
    """Fails a test in which a trainer, and so a model, is asked for."""

    def refuse(*args, **kwargs):
        pytest.fail("a model was loaded before the input was refused")

    monkeypatch.setattr(seq2seq_ppo, "Seq2SeqPPOTrainer", refuse)


def test_a_run_leaves_the_folder_of_the_design(make, tmp_path):
    recipe = make()
    result = recipe.run()
    folder = tmp_path / "run"
    names = {path.name for path in folder.iterdir()}
    expected = {"config.json", "model.safetensors", "tokenizer.json", "README.md", "reward_curve.png"}
    assert expected | {"completions.parquet", "config.yaml", "metrics.json"} <= names
    assert (result.folder, result.url) == (folder, None)
    shown = rf"RunResult in {folder}\nreward .* before, .* after: gain .*, 95% CI none: .*\nKL to .* [\d.]+ nats"
    assert re.fullmatch(shown, repr(result))
    assert json.loads((folder / "metrics.json").read_text(encoding="utf-8")) == result.metrics
    assert result.metrics["episodes"] == 16
    assert result.metrics["reward_gain"]["n"] == 4
    assert set(result.metrics["before"]) == {"reward", "acceptability", "neutrality"}
    rows = pyarrow.parquet.read_table(folder / "completions.parquet").to_pylist()
    gain = sum(row["after_reward"] - row["before_reward"] for row in rows) / len(rows)
    assert math.isclose(gain, result.metrics["reward_gain"]["mean"], abs_tol=1e-9)
    config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    assert (config["seed"], config["max_steps"], config["made_of"]["held_out_rows"]) == (0, 2, 4)
    assert config["made_of"]["rollouts"] == 2
    assert (folder / "reward_kl.png").read_bytes().startswith(b"\x89PNG")
    assert "](reward_kl.png)" in (folder / "README.md").read_text(encoding="utf-8")
    best = result.metrics["reward_at_kl"]["best_of_n"]
    assert best[0][0] == 0.0
    # The mean of 16 samples of each prompt, and the best of all 16.
    assert best[-1][1] == pytest.approx(result.metrics["best_of_16"]["reward"])
    AutoTokenizer.from_pretrained(folder)
    AutoModelForSeq2SeqLM.from_pretrained(folder)
    text = "\n".join(recipe.said)
    assert "1 x acceptability + 0.5 x neutrality" in text
    assert "4 of 40 rows of prompts.jsonl, held out at random with seed 0" in text
    assert "best of 16" in text
    for name in ("README.md", "config.yaml", "metrics.json"):
        assert str(tmp_path.parent) not in (folder / name).read_text(encoding="utf-8"), name


@pytest.mark.parametrize("start", [Seq2SeqPPO.run, Seq2SeqPPO.dry_run])
def test_models_are_loaded_without_bars_as_by_the_command(make, monkeypatch, start):
    def seen(self, *args, **kwargs):
        raise InputError("", f"bars: {logging.is_progress_bar_enabled()}", "")

    monkeypatch.setattr(logging, "_tqdm_active", True)
    monkeypatch.delenv("TRANSFORMERS_VERBOSITY", raising=False)
    monkeypatch.setattr(Seq2SeqPPO, "_check", seen)
    with pytest.raises(InputError, match="bars: False"):
        start(make())
    assert logging.is_progress_bar_enabled()


def test_a_run_resumes_and_is_not_overwritten_unasked(make):
    first = make(save_steps=1).run()
    saved = (first.folder / "checkpoint-2" / "ppo_state.json").read_text(encoding="utf-8")
    with pytest.raises(InputError, match="resume_from_checkpoint"):
        make().run()
    recipe = make(max_steps=3)
    second = recipe.run(resume_from_checkpoint=True)
    assert second.trainer.state.global_step == 3
    assert second.metrics["episodes"] == 24
    assert second.metrics["before"] == first.metrics["before"]
    assert "checkpoint-2" in recipe.said[0]
    assert "held-out prompts again, so that" in recipe.said[1]
    assert second.metrics["seconds"] > json.loads(saved)["seconds"] > 0  # those up to the checkpoint are among them
    third = make(overwrite=True, max_steps=1, save_strategy="no").run()
    assert not list(third.folder.glob("checkpoint-*"))


def test_the_bar_of_a_measurement_says_when_it_scores(make, monkeypatch):
    bars, seen = [], []

    def remembered(*args, **settings):
        bars.append(answers_bar(*args, **settings))
        return bars[-1]

    def judge(completions, **kwargs):
        seen.append(bars[-1].desc)
        return words_reward(completions)

    monkeypatch.setattr(seq2seq_ppo, "answers_bar", remembered)
    monkeypatch.setattr(Seq2SeqPPOTrainer, "train", lambda trainer, **settings: None)
    monkeypatch.setattr(Seq2SeqPPO, "_finish", lambda *given: None)
    make(reward=judge, disable_tqdm=False).run()
    assert len(seen) == 6  # sampled, greedy, 16 of each, and the sources; then sampled and greedy
    assert {text.rstrip(": ") for text in seen} == {"Scoring"}


def test_plain_callables_and_texts_will_do(make, tmp_path):
    recipe = make(reward=words_reward, dataset=sentences(20), eval_dataset=sentences(3, seed=9), prompt_prefix="say: ")
    metrics = recipe.run().metrics
    assert set(metrics["before"]) == {"reward", "words_reward"}
    assert metrics["before"]["words_reward"] == metrics["guard"]["output_length"]["before"]
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text(encoding="utf-8"))
    assert "dataset" not in config
    assert "trl-rewards train" not in (tmp_path / "run" / "README.md").read_text(encoding="utf-8")


def test_a_run_with_targets_trains_for_them_measures_the_objective_and_says_what_was_missed(make, tmp_path):
    def short(completions, **kwargs):
        return [-float(len(text.split())) for text in completions]

    targets = {"words_reward": {"min": 1e4}, "length": {"max": 1e6}}
    reward = MultiClassifierReward([short, words_reward, LengthReward()], constraints=targets)
    recipe = make(reward=reward, eval_strategy="steps", eval_steps=1)
    result = recipe.run()
    after, log = result.metrics["after"], result.trainer.state.log_history
    assert after["reward"] == after["short"]
    assert result.metrics["targets"] == {
        "words_reward": {"min": 1e4, "mean": after["words_reward"], "slack": after["words_reward"] - 1e4},
        "length": {"max": 1e6, "mean": after["length"], "slack": 1e6 - after["length"]},
    }
    assert json.loads((tmp_path / "run" / "metrics.json").read_text(encoding="utf-8")) == result.metrics
    rollouts = [row for row in log if "objective/scores" in row]
    assert [row["multiplier/words_reward/min"] for row in rollouts] == [10.0, 10.0]
    assert [row["multiplier/length/max"] for row in rollouts] == [0.0, 0.0]
    for row in (row for row in log if "eval_reward" in row):
        assert row["eval_reward"] == pytest.approx(row["eval_rewards/short/mean"])
    card = (tmp_path / "run" / "README.md").read_text(encoding="utf-8")
    for text in ("\n".join(recipe.said), card):
        assert re.search(r"words_reward\W+at least 10000: mean [\d.]+, missed by 99\d\d\.", text.replace("\\", ""))
        assert re.search(r"length at most 1e\+06: mean [\d.]+, met by 9999\d\d\.", text.replace("\\", ""))
    assert "1 x short, with mean words_reward at least 10000 and mean length at most 1e+06" in " ".join(
        recipe.said[0].split()
    )


def test_a_dry_run_scores_four_prompts_and_leaves_nothing(make, tmp_path):
    recipe = make(max_steps=-1, num_train_epochs=2)
    recipe.dry_run()
    text = "\n".join(recipe.said)
    assert text.count("prompt: ") == 4
    # 36 prompts twice in rollouts of 8: 9 rollouts of 2 updates.
    assert "9 rollouts of 8 responses" in text
    assert "18 updates" in " ".join(text.split())
    assert "is assumed to take as long" in " ".join(text.split())
    assert not (tmp_path / "run").exists()


def test_cut_prompts_are_told_everywhere_and_held_against_what_was_read(make):
    from trl_rewards_plugin.report.page import write_report

    recipe = make(max_prompt_length=4, max_steps=1, reward=words_reward, prompt_prefix="cat ")
    recipe.dry_run()
    # Of "cat " and twelve tokens three words and the end are left: the model reads two of the source.
    assert all(len(block.splitlines()[0].split()) == 1 + 3 for block in recipe.said if block.startswith("prompt: "))
    result = recipe.run()
    cuts = result.metrics["prompt_cuts"]
    assert (cuts["prompts"], cuts["cut"], cuts["limit"]) == (40, 40, 4)
    assert cuts["kept"] == pytest.approx(4 / 13)
    said = " ".join("\n".join(recipe.said).split())
    assert said.count("40 of 40 prompts (100%) are cut to 4 tokens") == 3  # dry run, plan, table
    assert "100% of the prompts are cut: raise max_prompt_length to 13, which cuts at most 10%, or" in said
    card = (result.folder / "README.md").read_text(encoding="utf-8")
    assert "- 40 of 40 prompts (100%) are cut to 4 tokens" in card.split("## Limitations")[1]
    assert "40 of 40 prompts" in write_report([result.folder]).read_text(encoding="utf-8")
    rows = pyarrow.parquet.read_table(result.folder / "completions.parquet").to_pylist()
    read = [" ".join(row["source"].split()[:2]) for row in rows]
    by_hand = rouge_l([row["after"] for row in rows], read).mean()
    assert result.metrics["guard"]["rouge_l_source"]["after"] == pytest.approx(by_hand)


def test_the_finished_run_is_uploaded_and_a_missing_login_is_refused_before_training(make, tmp_path, hub, monkeypatch):
    result = make(push_to="me/model", max_steps=1).run()
    assert result.url.startswith(f"{hub.url}/me/model/commit/")
    assert {"README.md", "metrics.json", "model.safetensors"} <= set(hub.files("me/model"))
    assert 'name = "me/model"' in (tmp_path / "run" / "README.md").read_text(encoding="utf-8")
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(InputError, match="hf auth login"):
        make(push_to="me/model", output_dir=str(tmp_path / "other")).run()
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"dataset": ["one", "two"], "eval_dataset": ["three"]}, "2 in the given texts"),
        ({"dataset": "missing.jsonl"}, "no such file"),
        ({"text_column": "prmpt"}, "prompt"),
        ({"model": "."}, "config.json"),
        ({"reward": "no-such-preset"}, "no-such-preset"),
        ({"resume_from_checkpoint": "true"}, "none in"),
    ],
)
def test_bad_input_is_refused_before_any_model_is_loaded(make, no_models, changes, found, tmp_path):
    with pytest.raises(InputError) as caught:
        make(**changes).run()
    assert found in caught.value.found
    assert caught.value.next_step
    assert not (tmp_path / "run").exists()


def test_a_run_that_is_refused_once_its_model_is_loaded_leaves_no_folder(make, tmp_path):
    with pytest.raises(InputError, match="Found:    qq\n"):
        make(peft_config=LoraConfig("SEQ_2_SEQ_LM", target_modules=["qq"])).run()
    assert not (tmp_path / "run").exists()


def test_a_component_may_not_take_the_name_of_the_total(make, no_models):
    def reward(completions, **kwargs):
        return [0.0] * len(completions)

    with pytest.raises(InputError, match="another name"):
        make(reward=reward).run()


def test_from_preset_takes_arguments_and_settings(tmp_path):
    recipe = Seq2SeqPPO.from_preset("article", learning_rate=1e-3, seed=5, use_cpu=True, text_column="body")
    assert recipe.args.learning_rate == 1e-3
    assert recipe.args.response_length == 64
    assert recipe.args.output_dir == "runs/article-seed5"
    assert (recipe.text_column, recipe.prompt_prefix) == ("body", "summarize: ")


def test_another_data_set_does_not_keep_the_presets_held_out_prompts():
    assert Seq2SeqPPO.from_preset("tiny", use_cpu=True).eval_dataset == "bundled:prompts/heldout.jsonl"
    assert Seq2SeqPPO.from_preset("tiny", dataset="mine.jsonl", use_cpu=True).eval_dataset is None
    own = Seq2SeqPPO.from_preset("tiny", dataset="mine.jsonl", eval_dataset="held.jsonl", use_cpu=True)
    assert own.eval_dataset == "held.jsonl"


def test_from_preset_refuses_what_it_does_not_know(tmp_path):
    with pytest.raises(InputError, match="did you mean 'learning_rate'"):
        Seq2SeqPPO.from_preset("tiny", learning_rat=1.0)
    with pytest.raises(InputError, match=r"see help\(Seq2SeqPPO\)"):
        Seq2SeqPPO.from_preset("tiny", zzzz=1.0)
    with pytest.raises(InputError, match="Found:    'hub_tokn'\n") as caught:
        Seq2SeqPPO(hub_tokn="hf_secret", zzzz=1.0)
    assert "hf_secret" not in str(caught.value)
    args = Seq2SeqPPOConfig(output_dir=str(tmp_path), use_cpu=True)
    with pytest.raises(InputError, match="put the settings into args"):
        Seq2SeqPPO.from_preset("tiny", args=args, learning_rate=1.0)


@pytest.mark.parametrize(
    ("given", "step"),
    [
        ({"learning_rate": 1e-4}, r"put it into args=Seq2SeqPPOConfig\(learning_rate=...\)"),
        ({"text_colum": "body"}, "did you mean 'text_column'"),
        ({"lr": 1e-4}, "here it is called learning_rate"),
    ],
)
def test_an_unknown_argument_is_refused_with_the_way_to_give_it(given, step):
    with pytest.raises(InputError, match=f"an argument of Seq2SeqPPO\n[\\s\\S]*{step}"):
        Seq2SeqPPO("m", words_reward, ["x"], **given)


def test_without_args_the_folder_is_named_after_the_model():
    assert Seq2SeqPPO("google/flan-t5-small", words_reward, ["x"]).args.output_dir == "runs/flan-t5-small"


def test_an_unknown_label_is_refused_before_the_policy_is_loaded(make, no_models, tiny_run, tmp_path):
    parts = yaml.safe_load(Path(tiny_run.reward).read_text(encoding="utf-8"))["rewards"]
    parts[0]["label"] = "acceptible"
    path = tmp_path / "typo.yaml"
    path.write_text(yaml.safe_dump({"rewards": parts}), encoding="utf-8")
    with pytest.raises(InputError, match="did you mean 'acceptable'"):
        make(reward=str(path)).run()


@pytest.fixture
def second_judge(tmp_path):
    """A reward file of two functions that the tiny run's reward knows nothing of."""
    parts = [{"function": "length", "min_length": 2, "max_length": 4}, {"function": "repetition", "weight": 0.5}]
    path = tmp_path / "second.yaml"
    path.write_text(yaml.safe_dump({"rewards": parts}), encoding="utf-8")
    return str(path)


def test_a_held_out_reward_judges_before_and_after_and_every_evaluation_and_is_on_the_card(make, second_judge):
    recipe = make(held_out_reward=second_judge, eval_strategy="steps", eval_steps=1)
    result = recipe.run()
    names = {"held_out_reward", "held_out_length", "held_out_distinct"}
    assert names <= result.metrics["before"].keys() == result.metrics["best_of_16"].keys()
    rows = pyarrow.parquet.read_table(result.folder / "completions.parquet").to_pylist()
    judge = MultiClassifierReward.from_preset(second_judge)
    for side in ("before", "after", "after_greedy"):
        expected = judge.score([row[side] for row in rows], prompts=[row["prompt"] for row in rows])
        assert [row[f"{side}_held_out_reward"] for row in rows] == pytest.approx(expected.total.tolist())
        assert result.metrics[side]["held_out_reward"] == pytest.approx(expected.total.mean().item())
    # No total has it.
    total = rows[0]["after_acceptability"] + 0.5 * rows[0]["after_neutrality"]
    assert rows[0]["after_reward"] == pytest.approx(total, abs=1e-5)
    gain = result.metrics["component_gain"]["held_out_reward"]["mean"]
    assert gain == pytest.approx(
        result.metrics["after"]["held_out_reward"] - result.metrics["before"]["held_out_reward"]
    )
    evaluated = [row for row in result.trainer.state.log_history if "eval_held_out_reward" in row]
    assert len(evaluated) == 2
    assert "eval_held_out_rewards/distinct/mean" in evaluated[0]
    card = (result.folder / "README.md").read_text(encoding="utf-8")
    assert "| held_out_reward |" in card
    assert "`held_out_reward` is a second opinion" in card
    assert "| distinct | 0.5 | `repetition` |" in card
    config = yaml.safe_load((result.folder / "config.yaml").read_text(encoding="utf-8"))
    assert config["held_out_reward"] == "run_held_out_reward.yaml"
    assert [part["name"] for part in config["made_of"]["held_out_rewards"]] == ["length", "distinct"]
    assert "Held-out reward  1 x length + 0.5 x distinct" in "\n".join(recipe.said)


def test_a_held_out_reward_changes_nothing_of_the_run(make, second_judge, tmp_path):
    folders = {None: tmp_path / "plain", second_judge: tmp_path / "beside"}
    plain, beside = (make(output_dir=str(folder), held_out_reward=judge).run() for judge, folder in folders.items())
    for name in ("before", "after", "after_greedy", "sources", "best_of_16"):
        shared = {key: value for key, value in beside.metrics[name].items() if not key.startswith("held_out")}
        assert shared == plain.metrics[name]
    assert plain.metrics["reward_gain"] == beside.metrics["reward_gain"]


@pytest.mark.parametrize(
    ("held_out", "expected"),
    [
        ("same", "a held_out_reward that training does not see"),
        ("owner/judge", "preset"),
        ("no.yaml", "no.yaml"),
        ("zscore", "scale stays as it is"),
    ],
)
def test_a_held_out_reward_that_cannot_work_is_refused_before_a_model_is_loaded(
    make, tiny_run, tmp_path, no_models, held_out, expected
):
    if held_out == "zscore":
        held_out = tmp_path / "moving.yaml"
        held_out.write_text("rewards: [{function: length, max_length: 4, normalization: zscore}]", encoding="utf-8")
    with pytest.raises(InputError, match=expected):
        make(held_out_reward=tiny_run.reward if held_out == "same" else str(held_out)).run()
