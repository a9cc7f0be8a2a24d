"""`trl-rewards train`: flags and YAML -> `Seq2SeqPPO` -> `run()`. Leaves out: the job, and the settings of PPO.

A flag overrides the YAML file of `--config`, which overrides the preset, which overrides the default.
"""

# ruff: noqa: RUF009  (`option` returns a dataclass field)
import dataclasses
import importlib.metadata
import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from trl_rewards_plugin import terminal
from trl_rewards_plugin.assets import resolve
from trl_rewards_plugin.cli.config_source import Declared, declared_settings, known_trackers
from trl_rewards_plugin.cli.flags import Parser, read_config, settings_parser, switch_hints, without_help
from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.options import option
from trl_rewards_plugin.places import check_model_name, check_tokenizer_files
from trl_rewards_plugin.ppo import config_rules
from trl_rewards_plugin.ppo.checks.inherited_settings import check_inherited, check_prepared
from trl_rewards_plugin.recipes.run_presets import Preset, default_output_dir, get_preset, neutral_settings
from trl_rewards_plugin.recipes.run_rules import (
    check_decided,
    check_enough_prompts,
    check_installed,
    check_model_folder,
    check_peft,
    held_out_rows,
    lora_config,
)
from trl_rewards_plugin.rewards.files.file_content import check_servers, preset_content, reward_names
from trl_rewards_plugin.rows import check_held_out, column_texts, data_file, missing_option, prompt_columns
from trl_rewards_plugin.runs.checkpoints import checkpoints, resumed_run
from trl_rewards_plugin.runs.layout import check_saved_model, holds_run, refuse_run
from trl_rewards_plugin.runs.public_names import recorded_name
from trl_rewards_plugin.runs.record import check_same_run

if TYPE_CHECKING:
    from trl_rewards_plugin.recipes.seq2seq_ppo import Seq2SeqPPO

# Trackers that need the package of their own name; one has two.
_BY_PACKAGE = (
    "clearml", "codecarbon", "comet_ml", "dagshub", "dvclive", "mlflow", "neptune", "swanlab", "tensorboard",
    "trackio", "wandb",
)  # fmt: skip
_ALSO_BY = {"tensorboard": "tensorboardX"}
_ONLY_RECORDED = ("made_of",)  # keys of a run's config.yaml that are for its reader


@dataclass
class TrainArguments:
    """Which run to do: the flags of `trl-rewards train` that are not fields of `Seq2SeqPPOConfig`."""

    preset: str | None = option(
        None,
        "Named run: 'tiny' (bundled models, offline) or 'article' (FLAN-T5-small, from the Hub). "
        "The options below replace parts of it. Unset: tiny; with --model, the article's settings but for its prefix, "
        "prompts as long as the model has positions for, and tiny's reward and prompts unless others are given.",
    )
    model: str | None = option(None, "Encoder-decoder to train: Hub id or folder. Unset: the preset's.")
    reward: str | None = option(
        None, "Reward: a preset's name, or a YAML file, trusted like a script: it may name code. Unset: the preset's."
    )
    held_out_reward: str | None = option(
        None, "A second reward, given likewise; every evaluation measures it, training never sees it."
    )
    dataset: str | None = option(
        None,
        "Prompts: Hub id, or a JSONL, JSON, CSV, TSV, parquet or text file. Unset: the preset's. If set, the "
        "preset's eval_dataset no longer applies.",
    )
    eval_dataset: str | None = option(
        None,
        "Held-out prompts, given the same way. Unset: the preset's if its dataset is used too; otherwise the "
        "validation or test split (first 100 rows), or a tenth of the rows. The plan says which.",
    )
    text_column: str | None = option(None, "Column of the texts. Unset: the preset's; with --model alone, 'prompt'.")
    prompt_prefix: str | None = option(None, "Prepended to every text. Unset: the preset's; with --model alone, none.")
    missing: str = missing_option()
    dry_run: bool = option(False, "Load everything, score four prompts, print the plan and stop.")
    use_peft: bool = option(False, "Train a LoRA adapter and freeze the model's own weights.")
    lora_r: config_rules.CountOrNone = option(None, "Rank of the LoRA adapter. Unset: 16.")
    lora_alpha: config_rules.CountOrNone = option(
        None, "LoRA: updates are multiplied by lora_alpha / lora_r. Unset: 32."
    )
    lora_target_modules: list[str] | None = option(None, "Modules that get an adapter. Unset: peft's default.")
    overwrite: bool = option(False, "Overwrite the run in output_dir.")
    push_to: str | None = option(None, "Hub repository (owner/name) to upload the finished run to.")

    def __post_init__(self) -> None:
        config_rules.check_fields(self, TrainArguments)
        for name, value in vars(self).items():
            # Without an adapter the whole model would be trained.
            if name.startswith("lora_") and value is not None and not self.use_peft:
                found = f"--{name} {value} alone"
                raise InputError(f"--use_peft with --{name}", found, "add --use_peft, or leave it out")


def train(argv: Sequence[str]) -> int:
    """Trains as the flags say; returns the exit code."""
    try:
        return _train(argv)
    except InputError as error:  # it may name these as in Python
        names = r"(?<![\w./-])(output_dir|overwrite|resume_from_checkpoint)(?![\w=./]| \()"
        raise InputError(error.expected, error.found, re.sub(names, r"--\1", error.next_step)) from error


def _train(argv: Sequence[str]) -> int:
    check_quickly(argv)
    terminal.silence_libraries()
    recipe, asked = build_recipe(argv)
    if asked.dry_run:
        recipe.dry_run()
        return 0
    try:
        recipe.run()
    except KeyboardInterrupt:
        again = [argument for argument in argv if argument != "--overwrite"]
        said = "To resume" if checkpoints(recipe.folder) else "No checkpoint yet, nothing to resume. To start again"
        if not checkpoints(recipe.folder):
            again += ["--overwrite"] if holds_run(recipe.folder) else []
        elif not any("--resume" in argument for argument in argv):
            again.append("--resume_from_checkpoint")
        print(f"\n{said}: trl-rewards train {shlex.join(again)}", file=sys.stderr)
        raise
    return 0


def check_quickly(argv: Sequence[str]) -> None:
    """Refuses before torch is loaded what flags, keys and files say wrong, by themselves and together."""
    if without_help(argv) != list(argv):
        return
    own = {one.name: one for one in dataclasses.fields(TrainArguments)}
    types = TrainArguments.__annotations__  # transformers' parser overwrites the fields' own types
    declared = declared_settings()
    settings = {
        name: Declared(types[name], one.default, one.metadata.get("choices", ())) for name, one in own.items()
    } | declared
    values = _given_values(argv, settings)
    asked = TrainArguments(**{key: value for key, value in values.items() if key in own})
    preset = get_preset(asked.preset or "tiny")
    objective = values.get("objective")
    base = get_preset("article").config if _has_own_model(asked, preset) else preset.settings_for(objective)
    defaults = {name: one.default for name, one in declared.items()}
    config = config_rules.DerivedSettings()  # in place of Seq2SeqPPOConfig, which would load torch
    vars(config).update({**defaults, **base, **values, "world_size": 1})
    check_inherited(SimpleNamespace(**{"optim": None, **values, "optim_args": None}))
    check_prepared(config)
    config_rules.check_together(config, SimpleNamespace(**defaults))
    check_decided(config)
    config_rules.check_held_out_asked(config, asked.held_out_reward)
    if asked.use_peft:
        check_peft()
    trackers = values.get("report_to") or []
    trackers = [trackers] if isinstance(trackers, str) else trackers
    if trackers not in (["all"], ["none"], []) and (known := known_trackers()):
        # As transformers finds most of them; of the others it is asked later.
        absent = {name for name in _BY_PACKAGE if not (find_spec(name) or find_spec(_ALSO_BY.get(name, name)))}
        check_installed(trackers, known, {*known} - absent)
    _check_files(asked, preset, config)
    everything = SimpleNamespace(**{"seed": None, "resume_from_checkpoint": None, **vars(asked), **values})
    folder = Path(values.get("output_dir") or _default_folder(everything, preset)).expanduser()
    if (run := resumed_run(folder, values.get("resume_from_checkpoint"))) is not None:
        _check_resumed(run, folder, values, preset)
    elif not asked.dry_run:
        refuse_run(folder, overwrite=asked.overwrite)
    if asked.push_to is not None:
        from trl_rewards_plugin.hub.plan import check_name

        check_name(asked.push_to)
    check_servers(filter(None, (asked.reward, asked.held_out_reward)))


def _given_values(argv: Sequence[str], settings: dict[str, Declared]) -> dict[str, Any]:
    """Setting -> what it is given by its flag, or else by the file of `--config`; and "config", that file."""
    parser = Parser("trl-rewards train")
    switches = [name for name, one in settings.items() if one.kinds == {"bool"}]
    on = [name for name in switches if settings[name].default is True]
    parser.hints, parser.types = switch_hints(switches) | config_rules.HINTS, settings
    for name in ("config", *settings, *(f"no_{name}" for name in on)):
        parser.add_argument(*dict.fromkeys((f"--{name}", f"--{name.replace('_', '-')}")), nargs="*")
    flags = {key: value for key, value in vars(parser.parse(argv)).items() if value is not None}
    for key, value in flags.items():
        is_switch = "bool" in settings[key].kinds if key in settings else key != "config"  # or --no_SETTING
        if not value and not is_switch and key != "resume_from_checkpoint":
            raise InputError(f"a value after --{key}", "none", f"for example --{key} VALUE")
    path = flags.get("config", [None])[-1]
    content = {} if path is None else read_config(path)
    parser.check_keys(content, str(path), _ONLY_RECORDED)
    content |= {name: False for name in on if f"no_{name}" in flags}
    for key in flags.keys() & settings.keys():
        content[key] = flags[key] if "list" in settings[key].kinds else [True, *flags[key]][-1]
    values = {key: settings[key].read(key, given) for key, given in content.items() if key in settings}
    return {**values, "config": path}


def _check_files(asked: TrainArguments, preset: Preset, config: Any) -> None:
    for reward in filter(None, (asked.reward, asked.held_out_reward)):
        preset_content(reward)
    if asked.model is not None:
        model = resolve(asked.model)
        check_model_name(model, "a folder with a model, or the id of one on the Hub")
        check_saved_model(Path(model))
        check_model_folder(asked.model, config.response_length)
        check_tokenizer_files(model)
    column, dataset = asked.text_column or preset.text_column, asked.dataset or preset.dataset
    has_held_out = asked.eval_dataset or (preset.eval_dataset and not asked.dataset)
    read = []
    for given in filter(None, (dataset, asked.eval_dataset)):
        if (path := data_file(resolve(given))) is not None:
            texts = column_texts(prompt_columns(path, given, column)[column], column, asked.missing, given)
            read.append((given, [*texts.values()]))
    if len(read) == 2 and not config.resume_from_checkpoint:
        check_held_out(read[0][1], read[1][1], read[0][0])
    if read and read[0][0] == dataset and not config.resume_from_checkpoint:  # then the folder is compared first
        rows = len(read[0][1])
        check_enough_prompts(rows if has_held_out else rows - held_out_rows(rows, dataset), config, dataset)


def _check_resumed(run: Path, folder: Path, values: dict[str, Any], preset: Preset) -> None:
    """Refuses to resume `run` in `folder` if it began with something else, as far as names show it."""
    keys = ("model", "reward", "dataset", "text_column", "prompt_prefix")
    given = {key: values.get(key, getattr(preset, key)) for key in keys}
    given |= {key: recorded_name(given[key], folder) for key in ("model", "dataset")}
    if reward := given.pop("reward"):
        content = preset_content(reward)
        names = [{"name": name} for name in reward_names(content)]
        given |= {"rewards": names} if len(names) == len(content["rewards"]) else {}
    check_same_run(run, given, names_only=True)


def _has_own_model(asked: Any, preset: Preset) -> bool:
    """Whether a model is given that no preset has settings for."""
    return asked.preset is None and asked.model not in (None, preset.model)


def _default_folder(asked: Any, preset: Preset) -> str:
    """Where a run goes that names no output_dir: to resume by its own config.yaml, the folder of that."""
    if asked.config and asked.resume_from_checkpoint and holds_run(Path(asked.config).parent):
        return str(Path(asked.config).parent)
    name = asked.model if _has_own_model(asked, preset) else preset.name
    return default_output_dir(name, preset.config["seed"] if asked.seed is None else asked.seed)


def build_recipe(argv: Sequence[str]) -> "tuple[Seq2SeqPPO, TrainArguments]":
    """The recipe that `argv` asks for, and the arguments that are not PPO's; what does not fit is refused."""
    from trl_rewards_plugin.ppo.config import Seq2SeqPPOConfig
    from trl_rewards_plugin.recipes.seq2seq_ppo import Seq2SeqPPO

    installed = importlib.metadata.version("trl")  # pip refuses an older one, but an environment may hold it
    if int(installed.split(".")[0]) < 1:
        raise InputError("TRL 1.0 or newer", installed, 'pip install --upgrade "trl>=1.0"')
    parser = _parser(Seq2SeqPPOConfig)
    from_file = parser.load_config(argv, ignored=_ONLY_RECORDED)
    first = parser.parse(without_help(argv))
    missing = [key for key in ("model", "reward", "dataset") if getattr(first, key) is None]
    if "made_of" in from_file and missing:  # the preset's would silently take their place
        expected, step = f"a config that names its {', '.join(missing)}", " ".join(f"--{key} NAME" for key in missing)
        raise InputError(expected, f"{first.config} of a run that was given Python objects instead", f"add {step}")
    preset = get_preset(first.preset or "tiny")
    own_model = _has_own_model(first, preset)
    config = neutral_settings(resolve(first.model)) if own_model else preset.settings_for(first.objective)
    # The Trainer turns its progress bar off, and prints dictionaries, when the log is as quiet as ours.
    settings = {"disable_tqdm": False, **config, "output_dir": _default_folder(first, preset)}
    parser.set_defaults(**{key: value for key, value in settings.items() if key not in from_file})
    values = vars(parser.parse(argv))  # --help shows the defaults of this very run
    own = {argument.name: values.pop(argument.name) for argument in dataclasses.fields(TrainArguments)}
    del values["config"]
    if str(values["resume_from_checkpoint"]).lower() == "true":
        values["resume_from_checkpoint"] = True
    asked = TrainArguments(**own)
    shared = {argument.name: own[argument.name] for argument in dataclasses.fields(Seq2SeqPPO) if argument.name in own}
    if asked.use_peft:
        shared["peft_config"] = lora_config(asked.lora_r or 16, asked.lora_alpha or 32, asked.lora_target_modules)
    try:
        args = Seq2SeqPPOConfig(**values)
    except InputError:
        raise
    except ValueError as error:  # of the Trainer's own settings
        expected, found = "settings that transformers' Trainer accepts", " ".join(str(error).split())
        raise InputError(expected, found, "change what it names, or leave it out") from error
    recipe = Seq2SeqPPO.from_preset(preset.name, args=args, **shared)
    recipe.preset = None if own_model else preset.name
    return recipe, asked


def _parser(config: type) -> Any:
    parser = settings_parser(
        TrainArguments,
        config,
        hints=config_rules.HINTS,
        usage="trl-rewards train [--preset NAME] [--config FILE.yaml] [options]",
        description="Trains an encoder-decoder with PPO on the scores of text classifiers, and measures the gain. The "
        "first options choose the run; the others are the fields of Seq2SeqPPOConfig, shown with the preset's "
        "defaults. FILE.yaml sets any of them, one per line, such as `learning_rate: 1.0e-5`; the config.yaml of a "
        "run folder is such a file.",
    )
    parser.set_defaults(seed=None)  # so that the preset's seed applies where none is given
    resume = next(action for action in parser._actions if action.dest == "resume_from_checkpoint")
    resume.nargs, resume.const = "?", "true"  # alone: from the last checkpoint
    return parser
