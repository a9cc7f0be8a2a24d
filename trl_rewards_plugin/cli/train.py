"""`trl-rewards train`: flags and YAML -> `Seq2SeqPPO` -> `run()`. Leaves out: the job, and the settings of PPO.

A flag overrides the YAML file of `--config`, which overrides the preset, which overrides the default.
"""

import ast
import dataclasses
import importlib.metadata
import importlib.util
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trl_rewards_plugin import terminal
from trl_rewards_plugin.assets import is_bundled
from trl_rewards_plugin.cli.flags import Parser, read_config, settings_parser, without_help
from trl_rewards_plugin.errors import InputError, check_hub_name
from trl_rewards_plugin.options import option
from trl_rewards_plugin.rewards.files.file_content import preset_content
from trl_rewards_plugin.rows import data_file, first_row, format_of, missing_option, no_rows
from trl_rewards_plugin.runs.checkpoints import checkpoints

if TYPE_CHECKING:
    from trl_rewards_plugin.recipes.seq2seq_ppo import Seq2SeqPPO

# Names in other libraries and in TRL's PPO -> ours (README.md has the whole table).
_RENAMED = {
    "batch_size": "per_device_train_batch_size", "epochs": "num_train_epochs", "init_kl_coef": "kl_coef",
    "lr": "learning_rate", "max_new_tokens": "response_length", "model_name": "model", "model_name_or_path": "model",
    "ppo_epochs": "num_ppo_epochs",
}  # fmt: skip
_ONLY_RECORDED = ("made_of",)
"""Keys of a run's config.yaml that are for its reader."""
_CONFIG_CLASSES = ("TrainingArguments", "Seq2SeqPPOConfig")
_OF_GENERATE = ("do_sample", "length_penalty", "no_repeat_ngram_size", "num_beams")
_HINTS = {old: f"here it is called {{}}{new}" for old, new in _RENAMED.items()} | dict.fromkeys(
    _OF_GENERATE,
    "rollouts are sampled at {}temperature, otherwise the KL estimate turns negative; "
    "set how evaluation decodes with {}eval_generation_kwargs",
)


@dataclass
class TrainArguments:
    """Which run to do: the flags of `trl-rewards train` that are not fields of `Seq2SeqPPOConfig`."""

    preset: str | None = option(
        None,
        "Named run: 'tiny' (bundled models, offline) or 'article' (FLAN-T5-small, from the Hub). "
        "The options below replace parts of it. Unset: tiny; with --model, the article's settings instead, "
        "and prompts as long as the model has positions for.",
    )
    model: str | None = option(None, "Encoder-decoder to train: Hub id or folder. Unset: the preset's.")
    reward: str | None = option(
        None,
        "Reward: name of a reward preset, or a YAML file, to be trusted like a script, since the functions and "
        "metrics that it names are run. Unset: the preset's.",
    )
    held_out_reward: str | None = option(
        None,
        "A second reward, given the same way, that training never sees; every evaluation measures it.",
    )
    dataset: str | None = option(
        None,
        "Prompts: Hub id, or a JSONL, JSON, CSV, TSV, parquet or text file. Unset: the preset's. If set, the preset's "
        "eval_dataset no longer applies.",
    )
    eval_dataset: str | None = option(
        None,
        "Held-out prompts, given the same way. Unset: the preset's if its dataset is used too; otherwise the "
        "validation or test split (first 100 rows), or a tenth of the rows. The plan says which.",
    )
    text_column: str | None = option(None, "Column of the texts. Unset: the preset's.")
    prompt_prefix: str | None = option(None, "Prepended to every text. Unset: the preset's.")
    missing: str = missing_option()
    dry_run: bool = option(False, "Load everything, score four prompts, print the plan and stop.")
    use_peft: bool = option(False, "Train a LoRA adapter and freeze the model's own weights.")
    lora_r: int | None = option(None, "Rank of the LoRA adapter. Unset: 16.")
    lora_alpha: int | None = option(
        None, "Scale of the LoRA adapter: its updates are multiplied by lora_alpha / lora_r. Unset: 32."
    )
    lora_target_modules: list[str] | None = field(
        default=None, metadata={"help": "Modules that get an adapter. Unset: peft's default for the architecture."}
    )
    overwrite: bool = option(False, "Overwrite the run in output_dir.")
    push_to: str | None = option(None, "Hub repository (owner/name) to upload the finished run to.")


def main(argv: Sequence[str]) -> int:
    """Trains as the flags say; returns the exit code."""
    check_quickly(argv)
    terminal.silence_libraries()
    recipe, arguments = build_recipe(argv)
    if arguments.dry_run:
        recipe.dry_run()
        return 0
    try:
        recipe.run()
    except KeyboardInterrupt:
        if checkpoints(recipe.folder):
            again = [argument for argument in argv if argument != "--overwrite"]
            again += [] if any("--resume" in argument for argument in argv) else ["--resume_from_checkpoint"]
            print(f"\nTo resume: trl-rewards train {shlex.join(again)}", file=sys.stderr)
        raise
    return 0


def check_quickly(argv: Sequence[str]) -> None:
    """Refuses unknown flags, keys and presets, missing files and words for numbers before torch is loaded."""
    if without_help(argv) != list(argv):
        return
    from trl_rewards_plugin.recipes.run_presets import get_preset

    parser = Parser("trl-rewards train")
    parser.hints = _HINTS
    own = {argument.name: str(argument.type) for argument in dataclasses.fields(TrainArguments)}
    parser.types = own | config_fields()
    for name in ("config", *parser.types, *(f"no_{name}" for name in parser.types)):
        parser.add_argument(*dict.fromkeys((f"--{name}", f"--{name.replace('_', '-')}")), nargs="*")
    flags = {key: value for key, value in vars(parser.parse(argv)).items() if value is not None}
    for key, value in flags.items():
        if not value and key != "resume_from_checkpoint" and "bool" not in parser.types.get(key, "bool"):
            raise InputError(f"a value after --{key}", "none", f"for example --{key} VALUE")
    values = {key: value[-1] for key, value in flags.items() if value}
    if "config" in values:
        content = read_config(values["config"])
        parser.check_keys(content, values["config"], _ONLY_RECORDED)
        values = {**content, **values}
    _check_numbers(values, parser.types)
    for key, check in (("preset", get_preset), ("reward", preset_content), ("held_out_reward", preset_content)):
        if values.get(key) is not None:
            check(str(values[key]))
    given = {key: str(values[key]) for key in ("dataset", "eval_dataset", "model") if values.get(key) is not None}
    given = {key: name for key, name in given.items() if not is_bundled(name)}
    if "model" in given:
        check_hub_name(given.pop("model"), "a folder with a model, or the id of one on the Hub")
    column = str(values.get("text_column") or get_preset(str(values.get("preset") or "tiny")).text_column)
    for path in map(str, filter(None, map(data_file, given.values()))):
        if first_row(path, format_of(path), column, str(values.get("missing", "error"))) is None:
            raise no_rows(path)


def _check_numbers(values: Mapping[str, Any], types: Mapping[str, str]) -> None:
    """Refuses what is no number for a setting that takes nothing else, by the text of its annotation."""
    for key, value in values.items():
        kinds = set(re.findall(r"\w+", types.get(key, ""))) - {"None", "Optional"}
        if not kinds or not kinds <= {"int", "float"} or str(value).lower() == "none":
            continue
        try:
            (float if "float" in kinds else int)(str(value))
        except ValueError as error:
            kind = "a number, such as 1e-5" if "float" in kinds else "a whole number, such as 4"
            raise InputError(
                f"{key} as {kind}", repr(value), f"correct {key}; see trl-rewards train --help"
            ) from error


def config_fields() -> dict[str, str]:
    """Field of `Seq2SeqPPOConfig` -> its type, read in its source and the Trainer's, which import torch."""
    spec = importlib.util.find_spec("transformers")
    host = Path(str(spec and spec.origin)).parent / "training_args.py"
    own = Path(__file__).parents[1] / "ppo" / "config.py"
    nodes = [node for path in (host, own) for node in ast.parse(path.read_text(encoding="utf-8")).body]
    classes = [node for node in nodes if isinstance(node, ast.ClassDef) and node.name in _CONFIG_CLASSES]
    lines = [line for node in classes for line in node.body if isinstance(line, ast.AnnAssign)]
    types = {line.target.id: ast.unparse(line.annotation) for line in lines if isinstance(line.target, ast.Name)}
    return {name: kind for name, kind in types.items() if not name.startswith("_")}


def build_recipe(argv: Sequence[str]) -> "tuple[Seq2SeqPPO, TrainArguments]":
    """The recipe that `argv` asks for, and the arguments that are not PPO's; what does not fit is refused."""
    from trl_rewards_plugin.assets import resolve
    from trl_rewards_plugin.ppo.config import Seq2SeqPPOConfig
    from trl_rewards_plugin.recipes.adapters import lora_config
    from trl_rewards_plugin.recipes.run_presets import get_preset, neutral_settings
    from trl_rewards_plugin.recipes.seq2seq_ppo import Seq2SeqPPO, default_output_dir

    installed = importlib.metadata.version("trl")  # pip refuses an older one, but an environment may hold it
    if int(installed.split(".")[0]) < 1:
        raise InputError("TRL 1.0 or newer", installed, 'pip install --upgrade "trl>=1.0"')
    parser = _parser(Seq2SeqPPOConfig)
    parser.set_defaults(seed=None)  # so that the preset's seed applies where none is given
    from_file = parser.load_config(argv, ignored=_ONLY_RECORDED)
    first = parser.parse(without_help(argv))
    missing = [key for key in ("model", "reward", "dataset") if getattr(first, key) is None]
    if "made_of" in from_file and missing:  # the preset's would silently take their place
        expected, step = f"a config that names its {', '.join(missing)}", " ".join(f"--{key} NAME" for key in missing)
        raise InputError(expected, f"{first.config} of a run that was given Python objects instead", f"add {step}")
    preset = get_preset(first.preset or "tiny")
    own_model = first.preset is None and first.model not in (None, preset.model)
    config = neutral_settings(resolve(first.model)) if own_model else preset.settings_for(first.objective)
    seed = preset.config["seed"] if first.seed is None else first.seed
    # The Trainer turns its progress bar off, and prints dictionaries, when the log is as quiet as ours.
    settings = {"disable_tqdm": False, **config, "output_dir": default_output_dir(preset.name, seed)}
    parser.set_defaults(**{key: value for key, value in settings.items() if key not in from_file})
    values = vars(parser.parse(argv))  # --help shows the defaults of this very run
    own = {argument.name: values.pop(argument.name) for argument in dataclasses.fields(TrainArguments)}
    del values["config"]
    if str(values["resume_from_checkpoint"]).lower() == "true":
        values["resume_from_checkpoint"] = True
    train = TrainArguments(**own)
    shared = {argument.name: own[argument.name] for argument in dataclasses.fields(Seq2SeqPPO) if argument.name in own}
    if train.use_peft:
        shared["peft_config"] = lora_config(train.lora_r or 16, train.lora_alpha or 32, train.lora_target_modules)
    for name, value in own.items():
        if name.startswith("lora_") and value is not None and not train.use_peft:  # the whole model would be trained
            raise InputError(f"--use_peft with --{name}", f"--{name} {value} alone", "add --use_peft, or leave it out")
    try:
        args = Seq2SeqPPOConfig(**values)
    except InputError:
        raise
    except ValueError as error:  # of the Trainer's own settings
        found = " ".join(str(error).split())
        raise InputError("settings that go together", found, "change what it names, or leave it out") from error
    return Seq2SeqPPO.from_preset(preset.name, args=args, **shared), train


def _parser(config: type) -> Any:
    parser = settings_parser(
        TrainArguments,
        config,
        hints=_HINTS,
        usage="trl-rewards train [--preset NAME] [--config FILE.yaml] [options]",
        description="Trains an encoder-decoder with PPO on the scores of text classifiers, and measures the gain. The "
        "first options choose the run; the others are the fields of Seq2SeqPPOConfig, shown with the preset's "
        "defaults. FILE.yaml sets any of them, one per line, such as `learning_rate: 1.0e-5`; the config.yaml of a "
        "run folder is such a file.",
    )
    resume = next(action for action in parser._actions if action.dest == "resume_from_checkpoint")
    resume.nargs, resume.const = "?", "true"  # alone: from the last checkpoint
    return parser
