"""`trl-rewards train`: flags and YAML -> `Seq2SeqPPO` -> `run()`.

A flag is stronger than the YAML file of `--config`, that than the preset, that than the default. Leaves out: the job
itself (`recipes/seq2seq_ppo.py`) and every knob of PPO (`ppo/config.py`).
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from trl_rewards_plugin.cli.arguments import TrainArguments
from trl_rewards_plugin.errors import InputError, suggestion

# What a run writes into its config.yaml for the reader; it is no setting.
NOT_SETTINGS = ("made_of",)
# Names of other libraries, and of TRL's PPO that was -> ours (README.md has the whole table).
_OTHER_NAMES = {
    "batch_size": "per_device_train_batch_size",
    "epochs": "num_train_epochs",
    "init_kl_coef": "kl_coef",
    "lr": "learning_rate",
    "max_new_tokens": "response_length",
    "model_name": "model",
    "model_name_or_path": "model",
    "ppo_epochs": "num_ppo_epochs",
}
_OF_GENERATE = ("do_sample", "length_penalty", "no_repeat_ngram_size", "num_beams")


def main(argv: Sequence[str]) -> int:
    """Trains as the flags say; returns the exit code."""
    _quiet()
    recipe, arguments = build_recipe(argv)
    if arguments.dry_run:
        recipe.dry_run()
    else:
        recipe.run()
    return 0


def build_recipe(argv: Sequence[str]) -> tuple[Any, TrainArguments]:
    """The `Seq2SeqPPO` that `argv` asks for, and the arguments that are not PPO's.

    Raises:
        InputError: an unknown flag, key or preset, or a value of the wrong type.
    """
    from trl_rewards_plugin.recipes.adapters import lora_config
    from trl_rewards_plugin.recipes.run_presets import get_preset
    from trl_rewards_plugin.recipes.seq2seq_ppo import Seq2SeqPPO, default_output_dir

    _check_trl()
    arguments = complete_resume_flag(argv)
    first = _first_look(arguments)
    from_file = {} if first.config is None else read_config(Path(first.config))
    _refuse_objects(first.config, from_file, arguments)
    name = first.preset or from_file.get("preset") or TrainArguments.preset
    preset = get_preset(name)
    seed = first.seed if first.seed is not None else from_file.get("seed", preset.config.get("seed"))
    parser = _parser()
    # The host turns its progress bar off, and prints dictionaries, where the log is as quiet as _quiet makes it.
    settings = {"disable_tqdm": False, **preset.config, "output_dir": default_output_dir(name, seed)}
    _set_defaults(parser, settings, f"the preset {name}")
    settings_of_file = {key: value for key, value in from_file.items() if key not in NOT_SETTINGS}
    _set_defaults(parser, settings_of_file, str(first.config))
    if {"-h", "--help"} & set(arguments):
        parser.print_help()  # after the preset is in, so that the defaults shown are those of this very run
        sys.exit(0)
    train, config, unknown = parser.parse_args_and_config(_without_config(arguments), return_remaining_strings=True)
    _refuse_unknown(unknown, parser)
    if str(config.resume_from_checkpoint).lower() == "true":
        config.resume_from_checkpoint = True
    recipe = Seq2SeqPPO.from_preset(
        name,
        model=train.model,
        reward=train.reward,
        dataset=train.dataset,
        eval_dataset=train.eval_dataset,
        text_column=train.text_column,
        prompt_prefix=train.prompt_prefix,
        push_to=train.push_to,
        overwrite=train.overwrite,
        peft_config=lora_config(train.lora_r, train.lora_alpha, train.lora_target_modules) if train.use_peft else None,
        args=config,
    )
    return recipe, train


def _check_trl() -> None:
    """An older TRL, which pip refuses but an environment may hold, lacks what the flags are read by."""
    from importlib.metadata import version

    found = version("trl")
    if int(found.split(".")[0]) < 1:
        raise InputError("TRL 1.0 or newer", found, 'pip install --upgrade "trl>=1.0"')


def complete_resume_flag(argv: Sequence[str]) -> list[str]:
    """`argv` with "true" after a `--resume_from_checkpoint` that stands alone (the host's field wants a value)."""
    completed = []
    for index, argument in enumerate(argv):
        completed.append(argument)
        alone = index + 1 == len(argv) or argv[index + 1].startswith("--")
        if argument in ("--resume_from_checkpoint", "--resume-from-checkpoint") and alone:
            completed.append("true")
    return completed


def _refuse_objects(config: str | None, from_file: Mapping[str, Any], arguments: Sequence[str]) -> None:
    """A run made of Python objects left no name for them, and a preset's would silently stand in."""
    if "made_of" not in from_file:
        return
    flags = {argument.split("=")[0].lstrip("-").replace("-", "_") for argument in arguments}
    lost = [key for key in ("model", "reward", "dataset") if key not in from_file and key not in flags]
    if lost:
        raise InputError(
            f"a config that names its {', '.join(lost)}",
            f"{config} of a run that was given objects for that",
            f"add {' '.join(f'--{key} NAME' for key in lost)}",
        )


def read_config(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file; its `env`, as TrlParser has it, goes into the environment.

    Raises:
        InputError: no such file, or not a mapping.
    """
    import yaml

    if not path.is_file():
        raise InputError("a YAML file after --config", f"{str(path)!r}, which is no file", "check the path")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise InputError(f"YAML in {path}", " ".join(str(error).split()), "mend the file") from error
    if not isinstance(values, dict):
        step = "write one setting a line, such as learning_rate: 1.0e-5"
        raise InputError(f"a YAML mapping in {path}", type(values).__name__, step)
    os.environ.update({key: str(value) for key, value in (values.pop("env", None) or {}).items()})
    return values


def _first_look(arguments: list[str]) -> argparse.Namespace:
    """The three flags that the other flags' defaults hang on."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for flag in ("--preset", "--config"):
        parser.add_argument(flag)
    parser.add_argument("--seed", type=int)
    try:
        return parser.parse_known_args(arguments)[0]
    except argparse.ArgumentError as error:
        raise InputError("a value that fits its flag", str(error), "see trl-rewards train --help") from error


def _without_config(arguments: list[str]) -> list[str]:
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config")
    return parser.parse_known_args(arguments)[1]


def _parser() -> Any:
    from trl import TrlParser

    from trl_rewards_plugin.ppo.config import Seq2SeqPPOConfig

    class Parser(TrlParser):
        """TrlParser whose errors read like the rest of the package's, without two screens of usage."""

        def error(self, message: str) -> NoReturn:
            raise InputError("a value that fits its flag", message, "see trl-rewards train --help")

    return Parser(
        (TrainArguments, Seq2SeqPPOConfig),
        prog="trl-rewards train",
        usage="trl-rewards train [--preset NAME] [--config FILE.yaml] [options]",
        description="Teaches an encoder-decoder by PPO what text classifiers prefer, and measures what that changed. "
        "The first options choose the run; all others are fields of Seq2SeqPPOConfig, here with the preset's "
        "defaults. FILE.yaml holds any of them, such as `learning_rate: 1.0e-5`; flags are stronger. The config.yaml "
        "of a run folder is such a file.",
        # An abbreviated --preset would be read by this parser and missed by the first look.
        allow_abbrev=False,
    )


def _set_defaults(parser: Any, values: Mapping[str, Any], where: str) -> None:
    known = {action.dest for action in parser._actions}
    for key in values:
        if key not in known:
            raise InputError(f"settings of trl-rewards train in {where}", repr(key), _meant(str(key), known, "'{}'"))
    parser.set_defaults_with_config(**values)


def _refuse_unknown(unknown: Sequence[str], parser: Any) -> None:
    if unknown:
        flags = [flag.removeprefix("--") for action in parser._actions for flag in action.option_strings]
        step = _meant(unknown[0].split("=")[0].removeprefix("--"), flags, "--{}")
        raise InputError("options of trl-rewards train", " ".join(unknown), step)


def _meant(word: str, known: Iterable[str], shown: str) -> str:
    """The next step after a setting that is none.

    Args:
        shown: how a setting is written where it was asked for.
    """
    if word in _OTHER_NAMES:
        return f"here it is called {shown.format(_OTHER_NAMES[word])}"
    if word in _OF_GENERATE:
        return (
            "rollouts are plain samples of --temperature, or KL turns negative; what evaluation decodes by is "
            f"{shown.format('eval_generation_kwargs')}"
        )
    return suggestion(word, known, "see trl-rewards train --help", shown)


def _quiet() -> None:
    """Leaves the screen to the plan, the progress bar and the results. A user's own settings stay in force."""
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    if "TRANSFORMERS_VERBOSITY" not in os.environ:
        from transformers.utils import logging as transformers_logging

        transformers_logging.set_verbosity_error()
        transformers_logging.disable_progress_bar()
    if "DATASETS_VERBOSITY" not in os.environ:
        import datasets

        datasets.utils.logging.set_verbosity_error()
        datasets.disable_progress_bars()
