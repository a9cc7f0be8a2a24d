"""The whole job in one object: check, load, measure, train, measure again, write the run folder.

Leaves out: the training loop (`ppo/`), scoring (`rewards/`), and how the files are written (`runs/`, `cards/`).
"""

import dataclasses
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any

from transformers import set_seed

from trl_rewards_plugin.assets import resolve
from trl_rewards_plugin.atomic import is_full_disk
from trl_rewards_plugin.cards.folder_push import push_to_hub
from trl_rewards_plugin.cards.model_card import write_model_card
from trl_rewards_plugin.charts.reward_kl import reward_kl_series, save_reward_kl
from trl_rewards_plugin.errors import InputError, causes, did_you_mean, is_out_of_memory, refusing_unknown
from trl_rewards_plugin.hub.upload import check_access
from trl_rewards_plugin.ppo.architectures.limits import positions
from trl_rewards_plugin.ppo.config import Seq2SeqPPOConfig, instead_of
from trl_rewards_plugin.ppo.decoding import decode_prompts, prompt_limit
from trl_rewards_plugin.ppo.input_checks import check_held_out_reward, check_seq2seq_model
from trl_rewards_plugin.ppo.monitoring.callbacks import LogFileCallback, answers_bar
from trl_rewards_plugin.ppo.monitoring.out_of_memory import TooLittleMemoryError, memory_advice
from trl_rewards_plugin.ppo.policy.policy import bare_model
from trl_rewards_plugin.ppo.policy.prompts import as_read
from trl_rewards_plugin.ppo.trainer import Seq2SeqPPOTrainer
from trl_rewards_plugin.recipes import before_after, console, run_inputs
from trl_rewards_plugin.recipes.before_after import Evaluation, Evaluator
from trl_rewards_plugin.recipes.data import further_columns, load_run_data
from trl_rewards_plugin.recipes.run_inputs import RunInputs
from trl_rewards_plugin.recipes.run_presets import PRESETS, default_output_dir, get_preset
from trl_rewards_plugin.recipes.run_rules import check_decided, check_enough_prompts, lora_settings
from trl_rewards_plugin.runs import layout
from trl_rewards_plugin.runs.checkpoints import find_checkpoint
from trl_rewards_plugin.runs.lock import writing_run
from trl_rewards_plugin.runs.public_names import GIVEN_BY_NAME, public_name, recorded_name
from trl_rewards_plugin.runs.record import check_same_run, configuration, energy, epoch_rewards, hardware, precision
from trl_rewards_plugin.runs.reward_description import reward_record
from trl_rewards_plugin.runs.writing import write_json, write_rows, write_yaml
from trl_rewards_plugin.terminal import loading_quietly, say
from trl_rewards_plugin.text import interval, number

DRY_RUN_PROMPTS = 4


@dataclass(frozen=True, repr=False)
class RunResult:
    """A finished run: what `metrics.json` holds, its folder, its trainer with the trained `policy_model`, its URL."""

    metrics: dict[str, Any]
    folder: Path
    trainer: Seq2SeqPPOTrainer
    url: str | None = None

    def __repr__(self) -> str:
        before, after = (number(self.metrics[side]["reward"]) for side in ("before", "after"))
        gain = self.metrics["reward_gain"]
        gain_line = f"gain {number(gain['mean'], '+.3f')}, 95% CI {interval(gain['ci95'])}"
        kl = f"KL to the reference {number(self.metrics['kl'])} nats"
        return f"RunResult in {self.folder}\nreward {before} before, {after} after: {gain_line}\n{kl}"


def _instead_of(name: str) -> str:
    if name in Seq2SeqPPOConfig.__dataclass_fields__:
        return f"put it into args=Seq2SeqPPOConfig({name}=...)"
    near = did_you_mean(name, Seq2SeqPPO.__dataclass_fields__)
    return f"{near}see help(Seq2SeqPPO)" if near else instead_of(name)


@refusing_unknown(_instead_of)
@dataclass(eq=False, repr=False)
class Seq2SeqPPO:
    """Trains an encoder-decoder with PPO on a reward, and measures what that changed.

    Args:
        model: Hub id, folder, "bundled:tiny-t5" or a loaded encoder-decoder.
        reward: A `ClassifierReward`, `MultiClassifierReward`, another callable in TRL's protocol, or the name or
            YAML file of a reward preset.
        dataset: Hub id, JSONL, JSON, CSV, TSV, parquet or text file, `datasets.Dataset` or list of texts.
        eval_dataset: Held-out prompts, likewise; None: see `recipes.data.load_run_data`.
        args: Settings; None: the defaults, in a folder under `runs/`.
        text_column: Column of the texts, to each of which `prompt_prefix` is prepended.
        missing: What becomes of rows without a text: "error", "skip" or "empty".
        push_to: Hub repository that the finished run folder is uploaded to.
        overwrite: Overwrite the run in the output folder.
        peft_config: Train this adapter (peft's `LoraConfig` ...) instead of the model's own weights.
        held_out_reward: Another reward, likewise, that training never sees; every evaluation measures it.
        echo: Called with each block of text for the reader.
    """

    model: Any
    reward: Any
    dataset: Any
    _: KW_ONLY
    eval_dataset: Any = None
    args: Seq2SeqPPOConfig = None  # type: ignore[assignment]  # filled in below
    text_column: str = "prompt"
    prompt_prefix: str = ""
    missing: str = "error"
    push_to: str | None = None
    overwrite: bool = False
    peft_config: Any = None
    held_out_reward: Any = None
    echo: Callable[[str], None] = say

    def __post_init__(self) -> None:
        name = Path(public_name(self.model)).name.rpartition(":")[2]
        self.args = self.args or Seq2SeqPPOConfig(output_dir=f"runs/{name}")
        self.folder = Path(str(self.args.output_dir))
        self.preset: str | None = None
        if self.args.process_index != 0:  # one voice under `accelerate launch`
            self.echo = lambda text: None

    @classmethod
    def from_preset(cls, name: str, **overrides: Any) -> "Seq2SeqPPO":
        """The run called `name` ("tiny" or "article") with changes.

        Args:
            **overrides: Arguments of this class and fields of `Seq2SeqPPOConfig`. A whole `args` replaces the
                preset's settings. With another `dataset` the preset's `eval_dataset` no longer applies.

        Raises:
            InputError: an unknown preset or override, or `args` together with single fields.
        """
        preset = get_preset(name)
        own = [field.name for field in dataclasses.fields(cls)]
        given = {key: value for key, value in overrides.items() if key in own and value is not None}
        fields = {key: value for key, value in overrides.items() if key not in own}
        known = [*own, *(field.name for field in dataclasses.fields(Seq2SeqPPOConfig) if field.init)]
        for key in (key for key in fields if key not in known):
            step = f"{did_you_mean(key, known)}see help(Seq2SeqPPO) and help(Seq2SeqPPOConfig)"
            raise InputError("an argument of Seq2SeqPPO or a field of Seq2SeqPPOConfig", repr(key), step)
        if "args" in given and fields:
            found = f"args and {', '.join(fields)}"
            raise InputError("either args or single settings", found, "put the settings into args")
        if "args" not in given:
            settings = {**preset.settings_for(fields.get("objective")), **fields}
            settings.setdefault("output_dir", default_output_dir(name, settings.get("seed")))
            given["args"] = Seq2SeqPPOConfig(**settings)
        arguments = {key: getattr(preset, key) for key in own if hasattr(preset, key)}
        if "dataset" in given:
            arguments["eval_dataset"] = None
        recipe = cls(**{**arguments, **given})
        recipe.preset = name
        return recipe

    def run(self, resume_from_checkpoint: str | bool | None = None) -> RunResult:
        """Trains, and leaves the run folder; bad input is refused, before a model is loaded where it alone decides.

        Args:
            resume_from_checkpoint: A checkpoint folder, or True for the last one in the output folder; None: what
                the settings say.
        """
        with advised(self.args), loading_quietly():
            inputs = self._check(resume_from_checkpoint)
            if self.args.process_index != 0:
                return self._train_and_measure(inputs)
            with no_empty_folder(self.folder), writing_run(self.folder):
                return self._train_and_measure(inputs)

    def _train_and_measure(self, inputs: RunInputs) -> RunResult:
        trainer, inputs = self._trainer(inputs)
        self.echo(console.format_plan(run_inputs.plan_lines(self.model, self.args, inputs)))
        if self.overwrite and inputs.checkpoint is None and trainer.is_world_process_zero():
            layout.clear_run(self.folder)
        prompts = len(inputs.data.held_out)
        hidden = bool(self.args.disable_tqdm) or not trainer.is_world_process_zero()
        again = " again, so that before and after are scored by the same code" if inputs.checkpoint else ""
        self.echo(f"\nMeasuring the starting model on {prompts} held-out prompts{again} ...")
        with answers_bar((2 + before_after.BEST_OF) * prompts, hidden=hidden) as bar:
            evaluator = self._evaluator(trainer, inputs, bar)
            before, yardsticks = evaluator.evaluate(), evaluator.yardsticks()
        if trainer.is_world_process_zero():  # now, so that a run that is interrupted can be resumed by it
            self._record(trainer, inputs)
        trainer.train(resume_from_checkpoint=inputs.checkpoint)
        self.echo("Measuring the trained model on the same prompts ...\n")
        with answers_bar(2 * prompts, hidden=hidden) as bar:
            after = self._evaluator(trainer, inputs, bar).evaluate(with_reference=True)
        return self._finish(trainer, inputs, [before, after], yardsticks)

    def dry_run(self) -> None:
        """Loads everything, samples and scores four responses, prints the plan with an estimate of time, and stops."""
        with advised(self.args), loading_quietly():
            inputs = self._check(None, dry=True)
            with no_empty_folder(self.folder):  # which the Trainer makes
                trainer, inputs = self._trainer(inputs)
            evaluator = self._evaluator(trainer, inputs, answers_bar(0, hidden=True))
            shown = inputs.data.train.select(range(min(DRY_RUN_PROMPTS, len(inputs.data.train))))
            prompts = list(shown["prompt"])
            scored = evaluator.sample_and_score(prompts, further_columns(shown))
            read = as_read(prompts, trainer.processing_class, inputs.cuts["limit"])
            for index, (prompt, text) in enumerate(zip(map(console.shortened, read), scored.texts, strict=True)):
                parts = ", ".join(f"{name} {values[index]:+.3f}" for name, values in scored.components.items())
                self.echo(f"prompt: {prompt}\nresponse: {text}\nreward: {scored.total[index]:+.3f} ({parts})\n")
            minutes = run_inputs.estimate_minutes(evaluator, self.args, inputs.data)
            time = f"about {minutes:.1f} minutes: one rollout was timed, and its update is assumed to take as long"
            plan = run_inputs.plan_lines(self.model, self.args, inputs) | {"Time": time}
            if inputs.checkpoint is None and not self.overwrite and layout.holds_run(self.folder):
                plan["Folder"] += ", which holds a run: add --overwrite or --resume_from_checkpoint to train there"
            self.echo(console.format_plan(plan) + "\n\nDry run: nothing was trained or written.")

    def _check(self, resume: str | bool | None, *, dry: bool = False) -> RunInputs:
        """Everything that can be refused without loading a model, cheapest first."""
        resume = resume if resume is not None else self.args.resume_from_checkpoint
        checkpoint = find_checkpoint(self.folder, resume)
        if checkpoint is None and not dry:  # a dry run writes nothing
            layout.refuse_run(self.folder, overwrite=self.overwrite)
        if self.push_to is not None and self.args.process_index == 0:
            check_access(self.push_to)
        check_decided(self.args)
        run_inputs.check_trackers(self.args.report_to)
        if isinstance(self.model, str | Path):
            check_seq2seq_model(resolve(str(self.model)))
        rewards = {"reward": run_inputs.load_reward(self.reward)}
        if checkpoint is not None:
            check_same_run(checkpoint.parent, self._named() | reward_record(rewards["reward"]))
        texts = {key: getattr(self, key) for key in ("text_column", "prompt_prefix", "missing")}
        data = load_run_data(self.dataset, self.eval_dataset, seed=self.args.seed, **texts)
        data = data.checked(resumes=checkpoint is not None)
        check_enough_prompts(len(data.train), self.args, data.train_name)
        if self.held_out_reward is not None:
            rewards["held_out_reward"] = run_inputs.load_reward(self.held_out_reward)
        check_held_out_reward(rewards.get("held_out_reward"), [rewards["reward"]], self.args)
        files = {key: run_inputs.reward_file(getattr(self, key), one, self.folder) for key, one in rewards.items()}
        given = {key: content for key, content in files.items() if content}
        return RunInputs(data, checkpoint=checkpoint, reward_files=given, **rewards)

    def _trainer(self, inputs: RunInputs) -> tuple[Seq2SeqPPOTrainer, RunInputs]:
        """The trainer, and the inputs with what its tokenizer makes of the prompts."""
        set_seed(self.args.seed)
        trainer = Seq2SeqPPOTrainer(
            resolve(str(self.model)) if isinstance(self.model, str | Path) else self.model,
            inputs.reward,
            args=self.args,
            train_dataset=inputs.data.train,
            eval_dataset=inputs.data.held_out,
            callbacks=[LogFileCallback()],
            peft_config=self.peft_config,
            held_out_reward=inputs.held_out_reward,
        )
        room = positions(bare_model(trainer.policy_model)).encoder
        cuts = inputs.data.count_cuts(trainer.processing_class, prompt_limit(trainer.policy_model, self.args))
        return trainer, dataclasses.replace(inputs, cuts=cuts, room=room)

    def _evaluator(self, trainer: Seq2SeqPPOTrainer, inputs: RunInputs, bar: Any) -> Evaluator:
        tokenizer: Any = trainer.processing_class

        def decode(prompts: list[str], *, with_reference: bool, **settings: Any) -> Any:
            settings["reference"] = trainer.reference_logprobs if with_reference else None
            settings |= {"progress": bar.update, "calls": trainer.calls}  # so no graph is captured a second time
            bar.set_description("Generating", refresh=False)
            decoded = decode_prompts(trainer.policy_model, tokenizer, prompts, trainer.args, **settings)
            bar.set_description("Scoring")  # which is what the evaluator does with them, all at once
            return decoded

        def encode(texts: list[str]) -> Any:
            return tokenizer(text_target=texts)["input_ids"]

        penalty = self.args.missing_eos_penalty
        return Evaluator(decode, inputs.judge, encode, inputs.data.as_held_out, self.args.seed, penalty)

    def _finish(
        self, trainer: Seq2SeqPPOTrainer, inputs: RunInputs, sides: list[Evaluation], yardsticks: dict[str, Any]
    ) -> RunResult:
        before, after = sides
        log_ratio = after.sampled.log_ratio
        episodes = [row["episode"] for row in trainer.state.log_history if "episode" in row]
        facts = {
            "kl": None if log_ratio is None else float(log_ratio.mean()),
            "episodes": int(episodes[-1]) if episodes else trainer.state.global_step * self.args.rollout_batch_size,
            "seconds": trainer.train_seconds,  # a resumed run includes those up to its checkpoint
            "seed": self.args.seed,
            "prompt_cuts": inputs.cuts,
        }
        held_out = inputs.data.as_held_out
        read = as_read(held_out.prompts, trainer.processing_class, inputs.cuts["limit"])
        sources = [text.removeprefix(self.prompt_prefix) for text in read]
        facts |= run_inputs.reached_targets(inputs.reward, after.sampled.means())
        metrics = before_after.build_metrics(before, after, sources, yardsticks, facts)
        preset = get_preset(self.preset) if self.preset else None
        if preset and preset.countable and preset.model == self.model:
            texts = [side.sampled.texts for side in sides]
            metrics["counts"] = before_after.count_texts(preset.countable, *texts)
        trainer.save_model(str(self.folder))
        if not trainer.is_world_process_zero():
            return RunResult(metrics, self.folder, trainer)
        rows = before_after.completion_rows(held_out, before, after)
        write_rows(self.folder / layout.HELD_OUT, rows)
        self._record(trainer, inputs)
        # Last but for the card, which reads the other files: a folder that has the metrics is complete.
        write_json(self.folder / layout.METRICS, metrics)
        if series := reward_kl_series(metrics, trainer.state.log_history):
            save_reward_kl(series, self.folder / layout.REWARD_KL)
        write_model_card(self.folder)
        if "counts" in metrics:
            self.echo(console.format_counts(metrics["counts"], len(rows)) + "\n")
        self.echo(console.format_outputs(rows, metrics["warnings"]) + "\n")
        self.echo(console.format_table(metrics))
        end = "\n" if self.push_to else ""
        self.echo(f"\nModel, card, reward curve, completions, metrics and settings: {self.args.output_dir}{end}")
        url = push_to_hub(self.folder, self.push_to, echo=self.echo) if self.push_to else None
        return RunResult(metrics, self.folder, trainer, url)

    def _named(self, reward_files: Collection[str] = ()) -> dict[str, Any]:
        """What the run was given, as `config.yaml` names it."""
        named = {key: recorded_name(getattr(self, key), self.folder) for key in GIVEN_BY_NAME}
        named["model"] = named["model"] or public_name(self.model)
        named |= {key: layout.REWARDS[key] for key in reward_files}
        return {"preset": self.preset, **named, "text_column": self.text_column, "prompt_prefix": self.prompt_prefix}

    def _record(self, trainer: Seq2SeqPPOTrainer, inputs: RunInputs) -> None:
        """Writes `config.yaml`, and copies of the reward files that it names."""
        for key, content in inputs.reward_files.items():
            write_yaml(self.folder / layout.REWARDS[key], content)
        given = self._named(inputs.reward_files) | ({"missing": self.missing} if self.missing != "error" else {})
        given |= {"seed": self.args.seed, **lora_settings(self.peft_config)}
        preset = get_preset(self.preset) if self.preset else None
        made_of = {
            **reward_record(inputs.reward),
            "held_out_rewards": reward_record(inputs.held_out_reward)["rewards"] if inputs.held_out_reward else None,
            "push_to": self.push_to,  # not a setting: running the file again must not upload over the first run
            "license": preset.license if preset and preset.model == self.model else None,
            "language": next((one.language for one in PRESETS.values() if one.dataset == self.dataset), None),
            "train_rows": len(inputs.data.train),
            "rollouts": trainer.args.max_steps,
            "held_out_rows": len(inputs.data.held_out),
            "held_out": inputs.data.eval_name,
            "held_out_warning": inputs.data.warning,
            "epoch_rewards": epoch_rewards(trainer.state.log_history),
            "hardware": hardware(self.args.device, self.args.world_size),
            "precision": precision(self.args, trainer.state.log_history),
            "energy": energy(trainer.callback_handler.callbacks),
        }
        # The file is read on top of a preset, so what that sets is written even at its default.
        read_on = self.preset or ("tiny" if given["model"] == get_preset("tiny").model else "article")
        always = get_preset(read_on).config
        write_yaml(self.folder / layout.CONFIG, configuration(given, self.args, made_of, always))


@contextmanager
def no_empty_folder(folder: Path) -> Iterator[None]:
    """Removes a folder, and those above it, that the block made and left nothing in."""
    absent = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        yield
    finally:
        with suppress(OSError):  # the first that is not empty
            for path in absent:
                path.rmdir()


@contextmanager
def advised(args: Any) -> Iterator[None]:
    """Adds to an error raised inside which of the settings `args` to change; InputError where the disk is full.

    Of memory the error stays the library's own; the advice is a note on it (PEP 678), printed below the traceback.
    """
    try:
        yield
    except (InputError, TooLittleMemoryError):  # say themselves what to do
        raise
    except Exception as error:
        full = next((cause for cause in causes(error) if is_full_disk(cause)), None)
        if full is not None:
            step = "free space there, or choose another output_dir (--output_dir); save_total_limit=1 keeps one "
            step += "checkpoint, and --resume_from_checkpoint resumes from the last complete one"
            raise InputError(f"room on the disk of {args.output_dir}", " ".join(str(full).split()), step) from error
        if is_out_of_memory(error):
            error.add_note(f"Next:     {memory_advice(args)}")
        raise
