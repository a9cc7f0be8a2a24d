"""The whole job in one object: check, load, measure, train, measure again, write the run folder.

Leaves out: the training loop (`ppo/`), the judging (`rewards/`), what the files look like (`run_folder.py`,
`report.py`, `cards/model_card.py`).
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import set_seed

from trl_rewards_plugin.assets import resolve
from trl_rewards_plugin.cards.model_card import write_model_card
from trl_rewards_plugin.cards.push import push_to_hub
from trl_rewards_plugin.charts.curves import save_reward_curve
from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.hub.upload import check_access
from trl_rewards_plugin.nearest import suggestion
from trl_rewards_plugin.ppo.config import Seq2SeqPPOConfig
from trl_rewards_plugin.ppo.decoding import decode_prompts
from trl_rewards_plugin.ppo.input_checks import check_seq2seq_model
from trl_rewards_plugin.ppo.monitoring.progress import answers_bar
from trl_rewards_plugin.ppo.trainer import Seq2SeqPPOTrainer
from trl_rewards_plugin.recipes import console as report
from trl_rewards_plugin.recipes.adapters import lora_settings
from trl_rewards_plugin.recipes.advice import advised
from trl_rewards_plugin.recipes.before_after import (
    BEST_OF,
    Evaluation,
    Evaluator,
    HeldOut,
    RunFacts,
    Yardsticks,
    build_metrics,
    score_texts,
)
from trl_rewards_plugin.recipes.best_of_n import as_scorer
from trl_rewards_plugin.recipes.data import RunData, further_columns, load_run_data
from trl_rewards_plugin.recipes.run_presets import get_preset
from trl_rewards_plugin.recipes.trackers import check_trackers
from trl_rewards_plugin.runs import folder as run_folder
from trl_rewards_plugin.runs.facts import energy, hardware
from trl_rewards_plugin.runs.log_file import LogFileCallback
from trl_rewards_plugin.runs.public_names import public_name
from trl_rewards_plugin.runs.record import aggregation_of, configuration, describe_reward, given_name, told_reward

SAMPLES_SHOWN = 3
DRY_RUN_PROMPTS = 4
# Keys of metrics.json and columns of completions.parquet that a component of this name would overwrite.
RESERVED_NAMES = ("reward", "greedy", "greedy_reward")
_ARGUMENTS = (
    "model", "reward", "dataset", "eval_dataset", "text_column", "prompt_prefix", "push_to", "overwrite",
    "peft_config", "echo",
)  # fmt: skip


def say(text: str) -> None:
    """Prints at once: in a pipe the plan must not arrive after the progress bar, which is on standard error."""
    print(text, flush=True)


@dataclass(frozen=True)
class RunResult:
    """A finished run.

    Attributes:
        metrics: What `metrics.json` holds.
        folder: The run folder.
        trainer: The trainer, with the trained `policy_model`.
        url: Where it was uploaded, if it was.
    """

    metrics: dict[str, Any]
    folder: Path
    trainer: Seq2SeqPPOTrainer
    url: str | None = None


@dataclass(frozen=True)
class _Inputs:
    """Checked inputs; no model is loaded yet."""

    data: RunData
    reward: Any
    checkpoint: str | None


class Seq2SeqPPO:
    """Teaches an encoder-decoder by PPO what a reward prefers, and measures what that changed.

    Args:
        model: Hub id, folder, "bundled:tiny-t5" or a loaded encoder-decoder.
        reward: A `ClassifierReward`, `MultiClassifierReward`, another callable in TRL's protocol, or the name or
            YAML file of a reward preset.
        dataset: Hub id, JSONL, JSON, CSV, parquet or text file, `datasets.Dataset` or list of texts.
        eval_dataset: Held-out prompts, likewise; None: see `recipes.data.load_run_data`.
        args: Settings; None: the defaults, in a folder under `runs/`.
        text_column: Column of the texts.
        prompt_prefix: Put in front of every text.
        push_to: Hub repository that the finished run folder is uploaded to.
        overwrite: Give up a run that lies in the output folder.
        peft_config: Train this adapter (peft's `LoraConfig` ...) instead of the model's own weights.
        echo: Called with each block of text for the reader.
    """

    def __init__(
        self,
        model: Any,
        reward: Any,
        dataset: Any,
        *,
        eval_dataset: Any = None,
        args: Seq2SeqPPOConfig | None = None,
        text_column: str = "prompt",
        prompt_prefix: str = "",
        push_to: str | None = None,
        overwrite: bool = False,
        peft_config: Any = None,
        echo: Callable[[str], None] = say,
    ):
        self.model = model
        self.reward = reward
        self.dataset = dataset
        self.eval_dataset = eval_dataset
        self.args = args or Seq2SeqPPOConfig(output_dir=f"runs/{Path(public_name(model)).name.rpartition(':')[2]}")
        self.text_column = text_column
        self.prompt_prefix = prompt_prefix
        self.push_to = push_to
        self.overwrite = overwrite
        self.peft_config = peft_config
        # One voice under `accelerate launch`.
        self.echo: Callable[[str], None] = echo if self.args.process_index == 0 else (lambda text: None)
        self.preset: str | None = None
        self.folder = Path(str(self.args.output_dir))

    @classmethod
    def from_preset(cls, name: str, **overrides: Any) -> Seq2SeqPPO:
        """The run called `name` ("tiny" or "article") with changes.

        Args:
            name: A preset.
            **overrides: Arguments of this class and fields of `Seq2SeqPPOConfig`. A whole `args` replaces the
                preset's settings. With another `dataset` the preset's `eval_dataset` no longer applies.

        Raises:
            InputError: an unknown preset or override, or `args` together with single fields.
        """
        preset = get_preset(name)
        fields = {key: value for key, value in overrides.items() if key not in (*_ARGUMENTS, "args")}
        _refuse_unknown(fields)
        args = overrides.get("args")
        if args is not None and fields:
            raise InputError(
                "either args or single settings", f"args and {', '.join(fields)}", "put the settings into args"
            )
        settings = {**preset.config, **fields}
        settings.setdefault("output_dir", default_output_dir(name, settings.get("seed")))
        arguments = {key: getattr(preset, key) for key in _ARGUMENTS if hasattr(preset, key)}
        if overrides.get("dataset") is not None:
            arguments["eval_dataset"] = None
        arguments |= {key: value for key, value in overrides.items() if key in _ARGUMENTS and value is not None}
        recipe = cls(**arguments, args=args if args is not None else Seq2SeqPPOConfig(**settings))
        recipe.preset = name
        return recipe

    def run(self, resume_from_checkpoint: str | bool | None = None) -> RunResult:
        """Trains, and leaves the run folder.

        Args:
            resume_from_checkpoint: A checkpoint folder, or True for the last one in the output folder; None: what
                the settings say.

        Raises:
            InputError: bad input; before any model is loaded where the input alone decides it.
        """
        with advised(self.args):
            return self._run(resume_from_checkpoint)

    def _run(self, resume: str | bool | None) -> RunResult:
        inputs = self._check(resume)
        held_out = inputs.data.as_held_out()
        self.echo(report.format_plan(self._plan(inputs)))
        trainer = self._trainer(inputs)
        if self.overwrite and inputs.checkpoint is None and trainer.is_world_process_zero():
            run_folder.clear_run(self.folder)
        prompts = len(held_out.prompts)
        hidden = bool(self.args.disable_tqdm) or not trainer.is_world_process_zero()
        self.echo(f"\nMeasuring the starting model on {prompts} held-out prompts ...")
        with answers_bar((2 + BEST_OF) * prompts, hidden=hidden) as bar:
            evaluator = self._evaluator(trainer, inputs.reward, held_out, bar.update)
            before, yardsticks = evaluator.evaluate(), evaluator.yardsticks()
        trainer.train(resume_from_checkpoint=inputs.checkpoint)
        self.echo("Measuring the trained model on the same prompts ...\n")
        with answers_bar(2 * prompts, hidden=hidden) as bar:
            evaluator = self._evaluator(trainer, inputs.reward, held_out, bar.update)
            after = evaluator.evaluate(with_reference=True)
        return self._finish(trainer, inputs, before, after, yardsticks)

    def dry_run(self) -> None:
        """Loads everything, answers and scores four prompts, tells the plan with an estimate of time, and stops."""
        with advised(self.args):
            self._dry_run()

    def _dry_run(self) -> None:
        inputs = self._check(None, dry=True)
        existed = self.folder.exists()
        trainer = self._trainer(inputs)
        if not existed and self.folder.is_dir() and not any(self.folder.iterdir()):
            self.folder.rmdir()  # the host makes it when it starts; a dry run leaves nothing
        train = inputs.data.train
        four = train.select(range(min(DRY_RUN_PROMPTS, len(train))))
        shown = list(four["prompt"])
        evaluator = self._evaluator(trainer, inputs.reward, inputs.data.as_held_out())
        decoded = evaluator.decode(shown, greedy=False, num_samples=1, seed=self.args.seed, with_reference=False)
        scored = score_texts(inputs.reward, decoded.texts, shown, further_columns(four))
        for index, (prompt, text) in enumerate(zip(shown, scored.texts, strict=True)):
            parts = ", ".join(f"{name} {values[index]:+.3f}" for name, values in scored.components.items())
            self.echo(f"prompt: {prompt}\nanswer: {text}\nreward: {scored.total[index]:+.3f} ({parts})\n")
        minutes = self._estimate_minutes(evaluator, inputs)
        words = (
            f"about {minutes:.1f} minutes: an estimate from one timed rollout, with its update counted as long again"
        )
        self.echo(report.format_plan(self._plan(inputs) | {"Time": words}))
        self.echo("\nDry run: nothing was trained or written.")

    def _check(self, resume: str | bool | None, *, dry: bool = False) -> _Inputs:
        """Everything that can be refused without loading a model, cheapest first."""
        resume = resume if resume is not None else self.args.resume_from_checkpoint
        checkpoint = run_folder.find_checkpoint(self.folder, resume)
        if checkpoint is None and not dry:  # a dry run writes nothing
            run_folder.refuse_run(self.folder, overwrite=self.overwrite)
        self._check_settings()
        if isinstance(self.model, str | Path):
            check_seq2seq_model(str(resolve(str(self.model))))
        data = load_run_data(
            self.dataset,
            self.eval_dataset,
            text_column=self.text_column,
            prompt_prefix=self.prompt_prefix,
            seed=self.args.seed,
        )
        if len(data.train) < self.args.prompts_per_rollout:
            raise InputError(
                f"at least one rollout of prompts ({self.args.prompts_per_rollout})",
                f"{len(data.train)} in {data.train_name}",
                "lower per_device_train_batch_size or gradient_accumulation_steps, or give more prompts",
            )
        return _Inputs(data, self._load_reward(), checkpoint)

    def _check_settings(self) -> None:
        """Refuses settings of the trainer alone that this recipe decides itself."""
        if self.push_to is not None and self.args.process_index == 0:
            check_access(self.push_to)
        if self.args.push_to_hub:
            raise InputError(
                "push_to as the way to the Hub",
                "push_to_hub=True, which uploads before the card and the metrics are there",
                "use push_to (--push_to user/name)",
            )
        check_trackers(self.args.report_to)
        if self.args.reward_weights is not None:
            raise InputError(
                "weights inside the one reward of a run",
                f"reward_weights={self.args.reward_weights}",
                "set the weights in MultiClassifierReward, or in the reward file",
            )

    def _load_reward(self) -> Any:
        reward = as_scorer(self.reward)
        if getattr(reward, "state_dict", dict)():
            raise InputError(
                "a reward whose scale stays as it is, so that before and after can be compared",
                f"normalization='zscore' in {reward.name}",
                "set a fixed mean and scale, or train with Seq2SeqPPOTrainer, which keeps the running one",
            )
        for part in describe_reward(reward):
            if part["name"] in RESERVED_NAMES:
                step = "give the reward another name=..."
                raise InputError(f"a reward not called {', '.join(RESERVED_NAMES)}", repr(part["name"]), step)
        return reward

    def _trainer(self, inputs: _Inputs) -> Seq2SeqPPOTrainer:
        set_seed(self.args.seed)
        return Seq2SeqPPOTrainer(
            str(resolve(str(self.model))) if isinstance(self.model, str | Path) else self.model,
            inputs.reward,
            args=self.args,
            train_dataset=inputs.data.train,
            eval_dataset=inputs.data.held_out,
            callbacks=[LogFileCallback()],
            peft_config=self.peft_config,
        )

    def _evaluator(
        self,
        trainer: Seq2SeqPPOTrainer,
        reward: Any,
        held_out: HeldOut,
        progress: Callable[[int], Any] = lambda count: None,
    ) -> Evaluator:
        def decode(prompts: list[str], *, with_reference: bool, **settings: Any) -> Any:
            reference = trainer.reference_logprobs if with_reference else None
            model, tokenizer = trainer.policy_model, trainer.processing_class
            settings |= {"reference": reference, "progress": progress}
            return decode_prompts(model, tokenizer, prompts, trainer.args, **settings)

        return Evaluator(decode, reward, held_out, seed=self.args.seed)

    def _rollouts(self, rows: int) -> int:
        """Rollouts that training will take over `rows` prompts."""
        if self.args.max_steps > 0:
            return int(self.args.max_steps)
        episodes = self.args.total_episodes or self.args.num_train_epochs * rows * self.args.num_generations
        return math.ceil(episodes / self.args.rollout_batch_size)

    def _plan(self, inputs: _Inputs) -> dict[str, str]:
        args, data = self.args, inputs.data
        rollouts = self._rollouts(len(data.train))
        updates = rollouts * args.num_ppo_epochs * args.num_mini_batches
        plan = {
            "Model": public_name(self.model),
            "Reward": report.format_reward(describe_reward(inputs.reward), aggregation_of(inputs.reward)),
            "Prompts": f"{len(data.train)} of {data.train_name}",
            "Held out": data.eval_name,
            "Training": f"{rollouts} rollouts of {args.rollout_batch_size} responses, {args.num_ppo_epochs} epochs of "
            f"{args.num_mini_batches} mini-batches on each: {updates} updates",
            "Folder": str(args.output_dir),
        }
        return plan | ({"Resume": Path(inputs.checkpoint).name} if inputs.checkpoint else {})

    def _estimate_minutes(self, evaluator: Evaluator, inputs: _Inputs) -> float:
        train, size = inputs.data.train, self.args.rollout_batch_size
        batch = train.select([row // self.args.num_generations for row in range(size)])
        started = time.perf_counter()
        prompts = list(batch["prompt"])
        decoded = evaluator.decode(prompts, greedy=False, num_samples=1, seed=self.args.seed, with_reference=False)
        score_texts(inputs.reward, decoded.texts, prompts, further_columns(batch))
        seconds = time.perf_counter() - started
        # Evaluation: sampled and greedy, before and after, and the samples of the best-of yardstick.
        evaluation = (4 + BEST_OF) * len(inputs.data.held_out) / size
        return (2 * self._rollouts(len(train)) + evaluation) * seconds / 60

    def _finish(
        self,
        trainer: Seq2SeqPPOTrainer,
        inputs: _Inputs,
        before: Evaluation,
        after: Evaluation,
        yardsticks: Yardsticks,
    ) -> RunResult:
        held_out = inputs.data.as_held_out()
        log_ratio = after.sampled.log_ratio
        episodes = [row["episode"] for row in trainer.state.log_history if "episode" in row]
        facts = RunFacts(
            kl=None if log_ratio is None else float(log_ratio.mean()),
            episodes=int(episodes[-1]) if episodes else trainer.state.global_step * self.args.rollout_batch_size,
            seconds=trainer.train_seconds,
            seed=self.args.seed,
        )
        metrics = build_metrics(before, after, yardsticks, held_out.sources, facts)
        trainer.save_model(str(self.folder))
        url = None
        if trainer.is_world_process_zero():
            rows = run_folder.completion_rows(held_out, before, after)
            self._write(trainer, inputs, metrics, rows)
            self.echo(report.format_table(metrics))
            shown = rows[:SAMPLES_SHOWN]
            self.echo(f"\nHeld-out prompts 1 to {len(shown)}, sampled (reward in brackets):\n")
            self.echo(report.format_samples(shown))
            self.echo(f"\nModel, card, reward curve, completions, metrics and settings: {self.args.output_dir}")
            if self.push_to:
                self.echo("")
                url = push_to_hub(self.folder, self.push_to, echo=self.echo)
        return RunResult(metrics, self.folder, trainer, url)

    def _write(
        self, trainer: Seq2SeqPPOTrainer, inputs: _Inputs, metrics: Mapping[str, Any], rows: list[dict[str, Any]]
    ) -> None:
        folder = self.folder
        log_history = trainer.state.log_history
        components = list(metrics["component_gain"])
        run_folder.write_completions(folder / run_folder.COMPLETIONS, rows)
        run_folder.write_yaml(folder / run_folder.CONFIG, self._configuration(trainer, inputs))
        save_reward_curve(log_history, folder / run_folder.CURVE, components)
        # The metrics come last but for the card, which reads the others: a folder that has them is complete.
        run_folder.write_json(folder / run_folder.METRICS, metrics)
        write_model_card(folder)

    def _configuration(self, trainer: Seq2SeqPPOTrainer, inputs: _Inputs) -> dict[str, Any]:
        log_history = trainer.state.log_history
        preset = get_preset(self.preset) if self.preset else None
        given = {
            "preset": self.preset,
            "model": public_name(self.model),
            "reward": given_name(self.reward),
            "dataset": given_name(self.dataset),
            "eval_dataset": given_name(self.eval_dataset),
            "text_column": self.text_column,
            "prompt_prefix": self.prompt_prefix,
            "seed": self.args.seed,
            **lora_settings(self.peft_config),
        }
        made_of = {
            **told_reward(inputs.reward),
            "push_to": self.push_to,  # not a setting: who runs the file again must not upload over the first run
            "train_rows": len(inputs.data.train),
            "held_out_rows": len(inputs.data.held_out),
            "held_out": inputs.data.eval_name,
            "epoch_rewards": [row["epoch_reward"] for row in log_history if "epoch_reward" in row],
            "hardware": hardware(self.args.device, self.args.world_size),
            "energy": energy(trainer.callback_handler.callbacks),
            "license": preset.license if preset and preset.model == self.model else None,
            "language": preset.language if preset and preset.dataset == self.dataset else None,
        }
        return configuration(given, self.args, made_of)


def default_output_dir(preset: str, seed: int | None) -> str:
    """`runs/<preset>-seed<seed>`; the host's seed is 42 where nothing sets one."""
    return f"runs/{preset}-seed{42 if seed is None else seed}"


def _refuse_unknown(fields: Mapping[str, Any]) -> None:
    known = [*_ARGUMENTS, *(field.name for field in dataclasses.fields(Seq2SeqPPOConfig) if field.init)]
    for name in fields:
        if name not in known:
            step = suggestion(name, known, "see help(Seq2SeqPPO) and help(Seq2SeqPPOConfig)")
            raise InputError("an argument of Seq2SeqPPO or a field of Seq2SeqPPOConfig", repr(name), step)
