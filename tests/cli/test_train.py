import json
import shlex
import shutil
import sys
from pathlib import Path

import pytest
import yaml

from tests.recipes.tiny_run import SHORT
from tests.tiny_models import tiny_bart
from trl_rewards_plugin import terminal
from trl_rewards_plugin.cli import main as cli
from trl_rewards_plugin.cli import train
from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.ppo.trainer import Seq2SeqPPOTrainer
from trl_rewards_plugin.recipes.seq2seq_ppo import Seq2SeqPPO


@pytest.fixture(autouse=True)
def _loud(monkeypatch):
    """The command turns warnings and logs down for its process, which is pytest's own here."""
    monkeypatch.setattr(terminal, "silence_libraries", lambda: None)


def build(*argv):
    return train.build_recipe([*argv, "--use_cpu"])


def flags(**settings):
    return [part for name, value in settings.items() for part in (f"--{name}", str(value))]


def test_a_flag_beats_the_file_beats_the_preset_beats_the_default(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("preset: article\nlearning_rate: 3e-4\nresponse_length: 20\ntext_column: body\n", encoding="utf-8")
    recipe, _ = build("--config", str(path), "--response-length", "10")
    assert recipe.preset == "article"
    assert recipe.args.response_length == 10
    assert recipe.args.learning_rate == 3e-4
    assert recipe.args.max_prompt_length == 512
    assert recipe.args.gamma == 1.0
    assert (recipe.text_column, recipe.prompt_prefix) == ("body", "summarize: ")
    assert build("--preset", "tiny", f"--config={path}")[0].preset == "tiny"


def test_the_output_folder_is_named_after_preset_and_seed(tmp_path):
    assert build()[0].args.output_dir == "runs/tiny-seed0"
    assert build("--seed=3")[0].args.output_dir == "runs/tiny-seed3"
    assert build("--output-dir", "x")[0].args.output_dir == "x"
    path = tmp_path / "run.yaml"
    path.write_text("seed: 8\npreset: article\n", encoding="utf-8")
    assert build("--config", str(path))[0].args.output_dir == "runs/article-seed8"


def test_a_model_that_is_given_gets_settings_made_for_real_models(tiny_run, tmp_path):
    tiny_bart(tmp_path / "bart")
    recipe, _ = build("--model", str(tmp_path / "bart"))
    assert (recipe.preset, recipe.args.learning_rate, recipe.args.critic_learning_rate) == (None, 2e-5, None)
    assert (recipe.args.save_steps, recipe.args.save_total_limit, recipe.prompt_prefix) == (0.1, 2, "")
    assert recipe.args.output_dir == "runs/bart-seed0"
    assert recipe.args.per_device_train_batch_size == 8
    assert recipe.args.max_prompt_length == 128  # BART's positions
    assert build("--model", tiny_run.model)[0].args.max_prompt_length == 512  # T5 has none
    assert build("--model", tiny_run.model, "--learning_rate", "1e-3")[0].args.learning_rate == 1e-3
    named, _ = build("--model", tiny_run.model, "--preset", "tiny")
    assert (named.args.learning_rate, named.args.max_prompt_length) == (1.5e-4, 128)
    path = tmp_path / "run.yaml"
    path.write_text(f"preset: tiny\nmodel: {tiny_run.model}\n", encoding="utf-8")
    assert build("--config", str(path))[0].args.learning_rate == 1.5e-4


def test_both_spellings_and_the_runs_own_options():
    recipe, arguments = build("--text-column", "body", "--prompt_prefix", "say: ", "--overwrite", "--dry-run")
    assert (recipe.text_column, recipe.prompt_prefix, recipe.overwrite) == ("body", "say: ", True)
    assert arguments.dry_run
    assert recipe.args.disable_tqdm is False


def test_a_held_out_reward_goes_by_name_or_file_and_a_config_may_name_it(tmp_path):
    assert build("--held-out-reward", "second.yaml")[0].held_out_reward == "second.yaml"
    config = tmp_path / "config.yaml"
    config.write_text("held_out_reward: polite\n", encoding="utf-8")
    assert build("--config", str(config))[0].held_out_reward == "polite"
    assert build()[0].held_out_reward is None


def test_resume_may_stand_alone():
    assert build("--resume_from_checkpoint")[0].args.resume_from_checkpoint is True
    assert build("--resume-from-checkpoint", "--seed", "1")[0].args.resume_from_checkpoint is True
    assert build("--resume_from_checkpoint", "a/checkpoint-3")[0].args.resume_from_checkpoint == "a/checkpoint-3"


@pytest.mark.parametrize(
    ("argv", "found", "step"),
    [
        (["--preset", "tinny"], "'tinny'", "did you mean 'tiny'?"),
        (["--learning_rat", "1"], "--learning_rat", "did you mean --learning_rate?"),
        (["--ppo_epochs", "4"], "--ppo_epochs", "here it is called --num_ppo_epochs"),
        (["--num_beams=4"], "--num_beams", "--eval_generation_kwargs"),
        (["--config", "OTHER"], "'batch_size'", "here it is called per_device_train_batch_size"),
        (["--zzzzzz"], "--zzzzzz", "see trl-rewards train --help"),
        (["--response_length", "many"], "many", "see trl-rewards train --help"),
        (["--seed", "many"], "many", "see trl-rewards train --help"),
        (["--fp16"], "fp16", "bf16"),
        (["--top_p", "0.9"], "top_p", "top_p"),
        (["--config", "no-such.yaml"], "no-such.yaml", "check the path"),
        (["--config", "LIST"], "list", "one setting per line"),
        (["--config", "BROKEN"], "", "fix the file"),
        (["--config", "TYPO"], "'respons_length'", "did you mean 'response_length'?"),
        (["--config", "STRANGE"], "'qqq'", "see trl-rewards train --help"),
        (["--dataset", "no-such.jsonl"], "no such file", "check the path"),
        (["--model", "EMPTY"], "config.json", "folder"),
        (["--reward_weights", "2.0"], "reward_weights=[2.0]", "in the reward file"),
        (["--push_to_hub"], "push_to_hub=True", "--push_to"),
        (["--per_device_train_batch_size", "0"], "per_device_train_batch_size=0", "change per_device"),
    ],
)
def test_refusals_have_three_parts_and_exit_code_2(tiny_run, tmp_path, capsys, argv, found, step):
    files = {
        "LIST": "- a\n",
        "BROKEN": "a: [\n",
        "TYPO": "respons_length: 3\n",
        "STRANGE": "qqq: 3\n",
        "OTHER": "batch_size: 3\n",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    (tmp_path / "EMPTY").mkdir()
    argv = [str(tmp_path / part) if part in (*files, "EMPTY") else part for part in argv]
    common = ["--use_cpu", "--output_dir", str(tmp_path / "run"), "--model", tiny_run.model]
    assert cli.main(["train", *common, *argv]) == 2
    err = capsys.readouterr().err
    expected_line, found_line, next_line = err.strip().splitlines()[-3:]
    assert expected_line.startswith("Expected: ")
    assert found_line.startswith("Found:    ")
    assert found in found_line
    assert step in next_line
    assert "Traceback" not in err


def test_help_says_what_the_run_is_first(capsys):
    with pytest.raises(SystemExit) as caught:
        train.build_recipe(["--preset", "article", "--help"])
    assert caught.value.code == 0
    out = capsys.readouterr().out
    assert out.index("--prompt_prefix") < out.index("--output_dir")
    assert "--kl_coef" in out
    assert "(default: 2e-05)" in out


def test_help_shows_the_folder_of_this_very_run(tiny_run, capsys):
    with pytest.raises(SystemExit):
        train.build_recipe(["--model", tiny_run.model, "--help"])
    assert "(default: runs/t5-seed0)" in " ".join(capsys.readouterr().out.split())


def test_a_run_that_is_interrupted_says_how_to_resume(tiny_run, tmp_path, capsys, monkeypatch):
    folder = tmp_path / "a run"
    argv = flags(model=tiny_run.model, reward=tiny_run.reward, dataset=tiny_run.dataset, output_dir=folder)

    def interrupted(recipe):
        raise KeyboardInterrupt

    monkeypatch.setattr(Seq2SeqPPO, "run", interrupted)
    assert cli.main(["train", *argv, "--use_cpu"]) == 130
    err = capsys.readouterr().err
    assert "No checkpoint yet, nothing to resume. To start again: trl-rewards train --model" in err
    assert "--overwrite" not in err
    folder.mkdir()
    (folder / "log.jsonl").touch()
    assert cli.main(["train", *argv, "--overwrite", "--use_cpu"]) == 130
    assert capsys.readouterr().err.splitlines()[1].endswith(" --use_cpu --overwrite")  # else it would be refused
    (folder / "checkpoint-3").mkdir(parents=True)
    assert cli.main(["train", *argv, "--overwrite", "--use_cpu"]) == 130
    line = next(line for line in capsys.readouterr().err.splitlines() if line.startswith("To resume: "))
    again = shlex.split(line.removeprefix("To resume: trl-rewards train "))
    assert again == [*argv, "--use_cpu", "--resume_from_checkpoint"]
    assert train.build_recipe(again)[0].args.resume_from_checkpoint is True


@pytest.fixture
def trained(tiny_run, tmp_path, monkeypatch):
    """The folder of a run of one rollout on relative names, `reward.yaml` among them, in the current folder."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(Path(tiny_run.model).parent, "inputs")
    content = yaml.safe_load(Path(tiny_run.reward).read_text(encoding="utf-8"))
    for entry in content["rewards"]:
        entry["model"] = Path(entry["model"]).name
    content["rewards"].append({"function": "words_of_mine.py:words", "weight": 0.1})
    source = "def words(completions):\n    return [float(len(text.split())) for text in completions]\n"
    Path("inputs/words_of_mine.py").write_text(source, encoding="utf-8")
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "words_of_mine", raising=False)
    Path("inputs/reward.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    named = flags(model="inputs/t5", reward="inputs/reward.yaml", dataset="inputs/prompts.jsonl")
    short = flags(**{name: value for name, value in SHORT.items() if name != "use_cpu"})
    argv = [*named, *short, "--use_cpu", "--max_steps", "1", "--output_dir", "runs/first"]
    assert cli.main(["train", *argv]) == 0
    return Path("runs/first")


def metrics_of(folder):
    return json.loads((folder / "metrics.json").read_text(encoding="utf-8")) | {"seconds": 0}


def config_of(folder):
    return {key: value for key, value in train.read_config(folder / "config.yaml").items() if key != "made_of"}


def test_the_command_trains_and_its_config_trains_the_same_again_from_anywhere(capsys, trained, monkeypatch):
    out = capsys.readouterr().out
    assert "ROUGE-L to the source" in out
    assert out.count("source: ") == 4
    first, config = metrics_of(trained), (trained / "config.yaml").read_text(encoding="utf-8")
    Path("inputs/reward.yaml").unlink()  # the run has its own copy
    Path("elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    assert cli.main(["train", "--config", "../runs/first/config.yaml", "--output_dir", "../runs/second"]) == 0
    second = Path("../runs/second")
    assert metrics_of(second) == first, "config.yaml leaves out something that counts"
    settings, _, _ = config.partition("made_of:")
    assert (second / "config.yaml").read_text(encoding="utf-8").startswith(settings)
    assert (second / "run_reward.yaml").read_text() == Path("../runs/first/run_reward.yaml").read_text()
    assert "preset" not in yaml.safe_load(settings)
    assert "null" not in settings
    assert "dataset: ../../inputs/prompts.jsonl\n" in settings
    capsys.readouterr()
    assert cli.main(["push", str(second), "me/model", "--dry-run"]) == 0
    assert "run_reward.yaml" in capsys.readouterr().out


def test_the_command_on_a_card_works_in_the_run_folder(trained, monkeypatch, capsys):
    monkeypatch.chdir(trained)
    assert cli.main(["train", "--config", "config.yaml", "--dry_run"]) == 0
    assert "Folder     runs/t5-seed0" in capsys.readouterr().out
    assert not Path("runs").exists()


def test_a_resume_of_another_run_is_refused_before_anything_is_loaded(trained, monkeypatch, capsys):
    def loaded(*given):
        raise AssertionError

    monkeypatch.setattr(Seq2SeqPPO, "_trainer", loaded)
    resume = ["--output_dir", "runs/first", "--resume_from_checkpoint", "--use_cpu"]
    assert cli.main(["train", *resume, "--dataset", "inputs/prompts.jsonl"]) == 2
    *_, found, step = capsys.readouterr().err.strip().splitlines()
    assert "model 'bundled:tiny-t5' instead of 't5'; rewards ['acceptability', 'neutrality'] instead of" in found
    assert "dataset" not in found
    assert step.startswith("Next:     trl-rewards train --config runs/first/config.yaml --resume_from_checkpoint;")
    own = flags(model="inputs/t5", reward="inputs/reward.yaml", dataset="inputs/prompts.jsonl")
    assert cli.main(["train", *resume, *own, "--prompt_prefix", "say: "]) == 2
    assert "Found:    prompt_prefix 'say: ' instead of ''\n" in capsys.readouterr().err
    changed = Path("inputs/reward.yaml")
    changed.write_text(changed.read_text().replace("weight: 0.5", "weight: 0.25"))
    assert cli.main(["train", *resume, *own]) == 2
    assert "Found:    rewards[1] neutrality: weight 0.25 instead of 0.5\n" in capsys.readouterr().err
    changed.write_text(changed.read_text().replace("weight: 0.25", "weight: 0.5"))
    with pytest.raises(AssertionError):
        cli.main(["train", *resume, *own])


def test_a_runs_own_config_is_enough_to_resume_it(trained):
    assert (
        cli.main(["train", "--config", "runs/first/config.yaml", "--resume_from_checkpoint", "--max_steps", "2"]) == 0
    )
    assert metrics_of(trained)["episodes"] == 16
    assert (trained / "checkpoint-2").is_dir()


def test_a_folder_with_the_name_of_a_flag_keeps_it(monkeypatch):
    def refused(argv):
        raise InputError("", "", "train --config output_dir/config.yaml in ./overwrite, or choose another output_dir")

    monkeypatch.setattr(train, "_train", refused)
    with pytest.raises(InputError) as caught:
        train.train([])
    shown = "train --config output_dir/config.yaml in ./overwrite, or choose another --output_dir"
    assert caught.value.next_step == shown


def test_a_run_that_was_judged_on_its_training_prompts_resumes(trained, monkeypatch):
    class Checked(Exception):
        pass

    def loaded(*given):
        raise Checked

    monkeypatch.setattr(Seq2SeqPPO, "_trainer", loaded)
    config = trained / "config.yaml"
    dataset = f"eval_dataset: {config_of(trained)['dataset']}\n"
    config.write_text(dataset + config.read_text(encoding="utf-8"), encoding="utf-8")
    argv = ["train", "--config", str(config), "--max_steps", "2"]
    with pytest.raises(Checked):
        cli.main([*argv, "--resume_from_checkpoint"])
    assert cli.main([*argv, "--output_dir", "runs/new"]) == 2


def test_a_run_that_was_interrupted_has_the_config_to_resume_it(tiny_run, tmp_path, monkeypatch):
    def interrupted(*given, **settings):
        raise KeyboardInterrupt

    monkeypatch.setattr(Seq2SeqPPOTrainer, "train", interrupted)
    argv = flags(model=tiny_run.model, reward=tiny_run.reward, dataset=tiny_run.dataset, output_dir=tmp_path / "run")
    assert cli.main(["train", *argv, "--use_cpu", "--response_length", "8"]) == 130
    assert config_of(tmp_path / "run")["reward"] == str(tmp_path / "run" / "run_reward.yaml")


def test_the_config_of_a_run_on_python_objects_needs_names_for_them(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("model: bundled:tiny-t5\ndataset: prompts.jsonl\nmade_of: {}\n", encoding="utf-8")
    with pytest.raises(InputError, match="--reward NAME"):
        build("--config", str(path))
    assert build("--config", str(path), "--reward", "tiny")[0].reward == "tiny"


def test_a_malformed_file_is_refused_with_its_reason(tmp_path):
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"prompt": "a"}\n{"prompt": \n', encoding="utf-8")
    recipe, _ = build("--dataset", str(path), "--output_dir", str(tmp_path / "run"))
    with pytest.raises(InputError, match=r"JSON in line 2 of .*prompts\.jsonl"):
        recipe.run()


def dry_run(tiny_run, folder):
    """The exit code of a dry run with `folder` as its output."""
    argv = flags(model=tiny_run.model, reward=tiny_run.reward, dataset=tiny_run.dataset, response_length=8)
    small = ["--dry_run", "--use_cpu", "--per_device_train_batch_size", "4", "--output_dir", str(folder)]
    return cli.main(["train", *argv, *small])


def test_a_dry_run_may_look_beside_a_finished_run(tiny_run, tmp_path, capsys):
    (tmp_path / "metrics.json").write_text("{}")
    assert dry_run(tiny_run, tmp_path) == 0
    assert (tmp_path / "metrics.json").read_text() == "{}"
    plan = " ".join(capsys.readouterr().out.split())
    assert f"Folder {tmp_path}, which holds a run: add --overwrite or --resume_from_checkpoint" in plan


def test_a_dry_run_trains_nothing(tiny_run, tmp_path, capsys):
    assert dry_run(tiny_run, tmp_path / "runs" / "run") == 0
    assert "Dry run: nothing was trained or written." in capsys.readouterr().out
    assert not (tmp_path / "runs").exists()


def test_an_old_trl_is_refused_with_the_command_that_upgrades_it(monkeypatch, capsys):
    monkeypatch.setattr("importlib.metadata.version", lambda name: "0.29.1")
    assert cli.main(["train", "--dry_run"]) == 2
    assert 'Found:    0.29.1\nNext:     pip install --upgrade "trl>=1.0"' in capsys.readouterr().err


def test_input_errors_of_the_reward_pass_through(tiny_run, tmp_path):
    path = tmp_path / "reward.yaml"
    path.write_text("rewards: []\n", encoding="utf-8")
    recipe, _ = build("--model", tiny_run.model, "--reward", str(path), "--output_dir", str(tmp_path / "run"))
    with pytest.raises(InputError):
        recipe.run()


@pytest.mark.parametrize("flag", [["--lora_r", "16"], ["--lora_alpha", "8"], ["--lora_target_modules", "q", "v"]])
def test_settings_of_an_adapter_without_one_are_refused(flag):
    with pytest.raises(InputError, match="--use_peft") as caught:
        build(*flag)
    assert caught.value.found.startswith(flag[0])
