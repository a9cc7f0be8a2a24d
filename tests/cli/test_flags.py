"""Dataclass -> flags, the same for every subcommand."""

import dataclasses
import enum
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from trl_rewards_plugin.cli.config_source import Declared
from trl_rewards_plugin.cli.flags import parse_settings, read_config, settings_parser
from trl_rewards_plugin.cli.serve import ServeSettings
from trl_rewards_plugin.cli.train import TrainArguments, check_quickly
from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.ppo.config import Seq2SeqPPOConfig
from trl_rewards_plugin.recipes.evaluate.evaluation_settings import EvaluationSettings
from trl_rewards_plugin.scoring.score_job import ScoreSettings


@dataclass(frozen=True)
class Settings:
    input: str = field(default="-", metadata={"help": "What to read."})
    batch_size: int = field(default=16, metadata={"help": "Rows at once."})
    skipped: int = field(default=0, metadata={"help": "Rows to skip."})
    threshold: float | None = field(default=None, metadata={"help": "Least score, 100 %% at most."})
    names: list[str] = field(default_factory=lambda: ["a", "b"], metadata={"help": "Names."})
    extra: dict[str, Any] | None = field(default=None, metadata={"help": "Further arguments."})
    overwrite: bool = field(default=False, metadata={"help": "Overwrite."})


def parse(*argv):
    return parse_settings(Settings, argv, positional="input", metavar="FILE", usage="tool", description="A tool.")


@pytest.fixture
def config(tmp_path):
    """`config(text)`: flags that name a file of this text."""

    def write(text):
        path = tmp_path / "config.yaml"
        path.write_text(text, encoding="utf-8")
        return ["--config", str(path)]

    return write


def test_without_flags_the_defaults_apply():
    assert parse() == Settings()


def test_both_spellings_lists_and_json():
    assert parse("--batch-size", "3") == parse("--batch_size=3") == Settings(batch_size=3)
    assert parse("--names", "x", "y", "--extra", '{"k": [1]}') == Settings(names=["x", "y"], extra={"k": [1]})


def test_the_positional_argument_may_follow_a_switch():
    for argv in (["file", "--overwrite"], ["--overwrite", "file"], ["--overwrite", "true", "file"]):
        assert parse(*argv) == Settings(input="file", overwrite=True)
    assert parse("--overwrite", "false", "file") == Settings(input="file")


def test_the_positional_argument_overrides_the_file_but_not_its_own_flag(config):
    assert parse(*config("input: other"), "file").input == "file"
    with pytest.raises(InputError, match="file and --input other"):
        parse("file", "--input", "other")


def test_flags_override_the_file_which_overrides_the_defaults(config):
    argv = config("batch_size: 4\nthreshold: 1e-3\nnames: [c]\noverwrite: true\nextra: {k: 1}\n")
    expected = Settings(batch_size=5, threshold=0.001, names=["c"], overwrite=True, extra={"k": 1})
    assert parse(*argv, "--batch_size", "5") == expected


def test_one_value_in_the_file_is_a_list_of_one_as_after_a_flag(config, tmp_path):
    assert parse(*config("names: c")).names == ["c"]
    kinds = (Seq2SeqPPOConfig, TrainArguments, EvaluationSettings)
    types = {name: hint for kind in kinds for name, hint in get_type_hints(kind).items()}
    one = {name: Declared(hint).read(name, "1") for name, hint in types.items() if Declared(hint).kinds >= {"list"}}
    assert one["reward_weights"] == [1.0]
    assert Declared(types["suppress_tokens"]).read("suppress_tokens", "none") is None
    assert Declared(types["lora_target_modules"]).read("lora_target_modules", "None") is None
    assert Declared(types["metrics"]).read("metrics", "none") == ["none"]  # never unset
    assert one["stop_on"] == one["metrics"] == one["lora_target_modules"] == ["1"]


def test_numbers_in_the_file_mean_what_they_mean_after_a_flag(config):
    assert parse(*config("input: 7\nthreshold: 1\n")) == Settings(input="7", threshold=1.0)


@pytest.mark.parametrize(
    "text", ["batch_size: two", "batch_size: 2.5", "batch_size: true", "names: {a: 1}", "input: [a]", "extra: [1]"]
)
def test_a_value_of_the_wrong_type_in_the_file_is_refused(config, text):
    with pytest.raises(InputError, match=rf"Expected: {text.split(':')[0]} in .+ as "):
        parse(*config(text))


@pytest.mark.parametrize(
    ("argv", "found", "step"),
    [
        (["--batchsize=3"], "--batchsize", "did you mean --batch_size?"),
        (["--batch_size", "many"], "'many'", "see tool --help"),
        (["--extra", "{bad"], "invalid JSON", "see tool --help"),
        (["--extra", "[1]"], "expected a JSON object", "see tool --help"),
        (["--config", "nowhere.yaml"], "no file 'nowhere.yaml'", "check the path"),
        (["--batch=3"], "--batch", "did you mean --batch_size?"),
        (["one", "two"], "two", "see tool --help"),
    ],
)
def test_refusals_name_the_next_step(argv, found, step):
    with pytest.raises(InputError) as caught:
        parse(*argv)
    assert found in caught.value.found
    assert step in caught.value.next_step


def test_an_unknown_key_in_the_file_is_refused_with_the_nearest_field(config):
    with pytest.raises(InputError, match="did you mean 'batch_size'"):
        parse(*config("batchsize: 3"))


def test_help_shows_the_defaults_of_the_file(config, capsys):
    with pytest.raises(SystemExit):
        parse(*config("batch_size: 4"), "--help")
    out = capsys.readouterr().out
    assert "Rows at once. (default: 4)" in out
    assert "Rows to skip. (default: 0)" in out
    assert "100 % at most.\n" in out


def test_a_config_file_may_set_the_environment(config, monkeypatch):
    monkeypatch.setenv("A_VARIABLE_OF_THE_TEST", "old")
    path = config("env:\n  A_VARIABLE_OF_THE_TEST: 1\nseed: 3\n")[1]
    assert read_config(Path(path)) == {"seed": 3}
    assert os.environ["A_VARIABLE_OF_THE_TEST"] == "1"


def test_missing_is_one_option_of_three_commands():
    kinds = (TrainArguments, ScoreSettings, EvaluationSettings)
    found = [field for kind in kinds for field in dataclasses.fields(kind) if field.name == "missing"]
    assert len(found) == 3
    assert len({(field.default, field.metadata["help"]) for field in found}) == 1


def test_a_flag_that_takes_several_values_gathers_those_of_each_time_and_drops_the_default(config):
    assert parse("--names", "x", "--batch_size", "2", "--names", "y", "z").names == ["x", "y", "z"]
    assert parse(*config("names: [c]"), "--names=x", "--names", "y").names == ["x", "y"]
    assert parse("file", "--names", "x").names == ["x"]


@pytest.mark.parametrize(
    "kinds", [(TrainArguments, Seq2SeqPPOConfig), (ScoreSettings,), (EvaluationSettings,), (ServeSettings,)]
)
def test_every_list_of_every_command_gathers(kinds):
    parser = settings_parser(*kinds, usage="tool", description="A tool.")
    lists = [action for action in parser._actions if action.nargs in ("+", "*")]
    assert lists or kinds[0] in (ScoreSettings, ServeSettings)
    for action in lists:
        listed = [one.value for one in action.type] if isinstance(action.type, enum.EnumMeta) else action.choices
        first, second = list(listed or ("1", "2"))[:2]
        for flag in action.option_strings:
            found = getattr(parser.parse([flag, first, flag, second]), action.dest)
            assert found == [action.type(first), action.type(second)], flag


def test_the_first_check_of_a_training_reads_every_value_of_a_repeated_list():
    with pytest.raises(InputError, match="'x'"):
        check_quickly(["--suppress_tokens", "x", "--suppress_tokens", "1"])
