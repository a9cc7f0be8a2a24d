"""A Trainer whose saves survive a kill and whose resumed runs end as uninterrupted ones, and its doors to the Hub."""

import dataclasses
import logging
import os
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any, cast

from accelerate.utils import gather_object
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase, Trainer, TrainerState
from transformers.trainer_utils import TrainOutput

from trl_rewards_plugin.cards.callback import create_model_card, open_repository, push_checkpoint, push_trainer
from trl_rewards_plugin.ppo.checkpoints import state as saved
from trl_rewards_plugin.ppo.checkpoints.state import RunState
from trl_rewards_plugin.ppo.checks.saved_model import check_saved, fingerprint
from trl_rewards_plugin.ppo.distributed import check_sharding
from trl_rewards_plugin.ppo.monitoring.run_log import RunLog
from trl_rewards_plugin.ppo.policy.policy import PolicyWithValueHead
from trl_rewards_plugin.ppo.policy.token_rules import TokenRules
from trl_rewards_plugin.runs import checkpoints as folders
from trl_rewards_plugin.runs.layout import TRAINER_STATE, UNFINISHED, checkpoint_name
from trl_rewards_plugin.runs.lock import writing_run

_logger = logging.getLogger(__name__)


class RestartableTrainer(Trainer):
    """A `transformers.Trainer` whose checkpoints are whole or absent and hold all that the next rollout depends on."""

    processing_class: PreTrainedTokenizerBase
    rules: TokenRules
    reward_funcs: list[Callable[..., Any]]
    run_log: RunLog
    kl_coef: float
    _evaluation_states: dict[str, Any]  # in which rewards are evaluated; see `frozen_rewards`
    _checkpointing = False
    _resumed_from: Path | None = None
    _seconds_before = 0.0  # of training, up to the checkpoint that this run resumes
    _began: float | None = None  # while it trains
    _made_optimizer = False  # and was not passed one

    @property
    def policy_model(self) -> nn.Module:
        """The `PreTrainedModel` or `PeftModel` that is trained and saved."""
        return self._wrapped.policy

    @property
    def _wrapped(self) -> PolicyWithValueHead:
        return cast(PolicyWithValueHead, self.accelerator.unwrap_model(self.model))

    @property
    def train_seconds(self) -> float:
        """Seconds of training so far, in a resumed run including those up to its checkpoint."""
        return self._seconds_before + (0.0 if self._began is None else time.perf_counter() - self._began)

    # ---- Resuming ----

    def train(
        self, resume_from_checkpoint: str | os.PathLike[str] | bool | None = None, *args: Any, **kwargs: Any
    ) -> TrainOutput:
        """Trains, as `transformers.Trainer.train`.

        `resume_from_checkpoint` is a folder, or True for the last intact one in `output_dir`; damaged ones are skipped
        with a warning that names them.

        Raises:
            InputError: the folder given is damaged, none is intact, or another process trains in `output_dir`.
        """
        check_sharding(self.accelerator)
        if self._made_optimizer:  # of an earlier run, whose state the next one must not begin with
            self.optimizer = self.lr_scheduler = cast(Any, None)
        self._seconds_before = 0.0
        output_dir = Path(cast(str, self.args.output_dir))
        with writing_run(output_dir) if self.is_world_process_zero() else nullcontext():
            if self.args.should_save:
                folders.remove_unfinished(output_dir)
            folder = folders.find_checkpoint(output_dir, resume_from_checkpoint, quiet=not self.args.should_save)
            if folder is not None:
                self._resume_run_state(folder)
                if self.args.should_save:  # a kill may have come between the last save and its removal of the oldest
                    best = TrainerState.load_from_json(str(folder / TRAINER_STATE)).best_model_checkpoint
                    folders.rotate(output_dir, self.args.save_total_limit, {folder, Path(best or "")})
            elif self.args.should_save and (found := folders.checkpoints(output_dir)):
                message = "%s holds %s of an earlier run, and this run starts afresh"
                _logger.warning(message, output_dir, found[-1].name)
            self._resumed_from = folder
            saved.reward_states(self.reward_funcs)  # refused now rather than at the first save
            self._began = time.perf_counter()
            try:
                return super().train(None if folder is None else str(folder), *args, **kwargs)
            finally:
                self._seconds_before, self._began = self.train_seconds, None

    def _resume_run_state(self, folder: Path) -> None:
        state = saved.load_run_state(folder)
        earlier, processes = len(state.rewards), self.accelerator.num_processes
        if earlier != processes and self.accelerator.process_index == 0:
            message = "%s was saved by %d processes and is resumed by %d: the run continues, but not as it would have"
            _logger.warning(message, folder, earlier, processes)
        own = self.accelerator.process_index % earlier
        saved.restore_rewards(self.reward_funcs, state.rewards[own])
        self._evaluation_states = state.evaluation_rewards[own] if state.evaluation_rewards else {}
        self._seconds_before, self.kl_coef = state.seconds, state.kl_coef
        self.run_log.restore(state, state.metrics[own])

    def set_initial_training_values(self, *args: Any) -> tuple[Any, ...]:
        """The Trainer's, except that a finished run is not trained for another step."""
        epochs, steps_per_epoch, *others = super().set_initial_training_values(*args)
        if self._resumed_from is not None:
            step = TrainerState.load_from_json(str(self._resumed_from / TRAINER_STATE)).global_step
            if step >= others[-1]:
                epochs = min(epochs, step // steps_per_epoch)
                self._load_rng_state(str(self._resumed_from))  # the Trainer would with the first batch
        return epochs, steps_per_epoch, *others

    @property
    def _trainer_loads(self) -> bool:
        """Sharded weights are saved and loaded by the Trainer, in a form of its own."""
        return bool(self.is_fsdp_enabled or self.is_deepspeed_enabled)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        if self._trainer_loads:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        else:
            self._load_weights(Path(resume_from_checkpoint))

    def _load_best_model(self) -> None:
        if self._trainer_loads:
            super()._load_best_model()
        else:  # the Trainer would look for its wrapper's parameter names, find none and only warn
            self._load_weights(Path(cast(str, self.state.best_model_checkpoint)))

    def _load_weights(self, folder: Path) -> None:
        saved.restore_weights(self._wrapped, folder)
        saved.check_fingerprint(folder, self._fingerprint())

    def _fingerprint(self) -> list[float]:
        return fingerprint(self.policy_model, self.rules).amax(1).tolist()

    # ---- Saving ----

    def _get_output_dir(self, trial: Any) -> str:
        folder = super()._get_output_dir(trial)
        return os.path.join(folder, UNFINISHED) if self._checkpointing else folder

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        output_dir = Path(self._get_output_dir(trial))
        name = checkpoint_name(self.state.global_step)
        unfinished, folder = output_dir / UNFINISHED / name, output_dir / name
        state = RunState(
            kl_coef=self.kl_coef,
            seconds=self.train_seconds,
            **self.run_log.counters(),
            metrics=gather_object([self.run_log.own_metrics()]),
            rewards=gather_object([saved.reward_states(self.reward_funcs)]),
            evaluation_rewards=gather_object([self._evaluation_states]),
        )
        self._checkpointing = True
        try:
            with folders.cleared_on_failure(output_dir) if self.args.should_save else nullcontext():
                super()._save_checkpoint(model, trial)
        finally:
            self._checkpointing = False
        best = output_dir / checkpoint_name(self.state.best_global_step)
        if best == folder or best.is_dir():  # the Trainer looked for it beside the temporary name
            self.state.best_model_checkpoint = str(best)
        self.accelerator.wait_for_everyone()  # each process has written its own random state
        if self.args.should_save:
            known = {} if self._trainer_loads else {"fingerprint": self._fingerprint()}
            with folders.cleared_on_failure(output_dir):
                self.state.save_to_json(str(unfinished / TRAINER_STATE))
                folders.seal(unfinished, {**dataclasses.asdict(state), **known}, folders.next_number(output_dir))
            folders.publish(unfinished, folder)
            keep = {folder, Path(self.state.best_model_checkpoint or "")}
            folders.rotate(output_dir, self.args.save_total_limit, keep)
            folders.remove_unfinished(output_dir)
        self.accelerator.wait_for_everyone()
        if self.args.push_to_hub:
            self._push_from_checkpoint(str(folder))

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        if not self._checkpointing:  # not while it has its temporary name
            push_checkpoint(self, checkpoint_folder)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        """Writes policy and tokenizer as `from_pretrained` (or peft) reads them; in a checkpoint the critic, too."""
        if not self.args.should_save:
            return
        place = Path(output_dir or cast(str, self.args.output_dir))
        folder = place if self._checkpointing else place / UNFINISHED / "model"
        if not self._checkpointing:
            with suppress(OSError):  # what a killed save left; that it cannot be removed is no reason to save nothing
                folders.remove_unfinished(place)
        folder.mkdir(parents=True, exist_ok=True)
        policy = None if state_dict is None else saved.policy_state(self._wrapped, state_dict)
        with nullcontext() if self._checkpointing else folders.cleared_on_failure(place):
            cast(Any, self.policy_model).save_pretrained(folder, state_dict=policy)
            saved.mark_untied_embeddings(self._wrapped.core, folder)
            self.processing_class.save_pretrained(folder)
            if self._checkpointing:
                saved.save_critic(folder, self._wrapped.state_dict() if state_dict is None else state_dict)
            else:
                folders.publish_files(folder, place)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Writes model and tokenizer, as `transformers.Trainer.save_model`, and reads them again.

        Raises:
            InputError: the saved model is not the trained one. The files stay.
        """
        super().save_model(output_dir, _internal_call)
        if self.args.should_save and not _internal_call and not self._trainer_loads:
            check_saved(Path(output_dir or cast(str, self.args.output_dir)), self.policy_model, self.rules)

    # ---- The Hub ----

    def create_model_card(
        self,
        model_name: str | None = None,
        dataset_name: str | list[str] | None = None,
        tags: str | list[str] | None = None,
    ) -> None:
        """Writes README.md into the output folder; the arguments as in TRL's trainers."""
        create_model_card(self, model_name, dataset_name, tags)

    def init_hf_repo(self, token: str | None = None, private: bool | None = None) -> None:
        """Opens the repository that `push_to_hub` asks for; refuses early what could not be uploaded."""
        open_repository(self, token, private)

    def push_to_hub(self, *args: Any, **kwargs: Any) -> Any:
        """Uploads model, tokenizer and card in one commit, as `trl_rewards_plugin.push_to_hub` does."""
        return push_trainer(self, *args, **kwargs)
