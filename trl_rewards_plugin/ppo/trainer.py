"""`Seq2SeqPPOTrainer`: PPO for encoder-decoders as a `transformers.Trainer`.

One step of the host is one rollout: `training_step` collects it (over the accumulation steps) and then updates on
it; the last optimizer step of the update, the schedule, logging, evaluation and saving are the host's. So a
checkpoint always lies between rollouts, and `global_step` and every `*_steps` count rollouts.
Leaves out: the maths (masking, kl, advantages, losses), the update loop (update.py) and what a reward is.
"""

import os
from collections import defaultdict
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, cast

import torch
from accelerate.utils import set_seed
from datasets import Dataset
from torch import Tensor, nn
from torch.utils.data import RandomSampler
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    TrainerCallback,
    TrainerControl,
)
from transformers import trainer as host_module
from transformers.trainer_utils import TrainOutput

from trl_rewards_plugin.assets import resolve
from trl_rewards_plugin.cards.callback import ModelCardCallback
from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.ppo.acceleration.kept_memory import kept_memory
from trl_rewards_plugin.ppo.architectures.families import check_architecture
from trl_rewards_plugin.ppo.checkpoints.restartable_trainer import RestartableTrainer
from trl_rewards_plugin.ppo.checkpoints.state import RunState, frozen_rewards
from trl_rewards_plugin.ppo.classic import ClassicLoop
from trl_rewards_plugin.ppo.config import Seq2SeqPPOConfig, with_max_steps
from trl_rewards_plugin.ppo.decoding import prompt_limit, rules_for
from trl_rewards_plugin.ppo.distributed import (
    backward,
    check_launch,
    load_models_whole,
    weighted_means,
    whole_weights,
    without_sync,
)
from trl_rewards_plugin.ppo.evaluation import answer_prompts, held_out_metrics
from trl_rewards_plugin.ppo.finite import told_with_place
from trl_rewards_plugin.ppo.input_checks import (
    check_dataset,
    check_devices,
    check_reward_funcs,
    check_seq2seq_model,
    check_value_model,
)
from trl_rewards_plugin.ppo.maths.kl import next_kl_coef
from trl_rewards_plugin.ppo.monitoring.alarms import AlarmBell
from trl_rewards_plugin.ppo.monitoring.completions import CompletionLog
from trl_rewards_plugin.ppo.monitoring.progress import CallAtEnd, RolloutProgressCallback
from trl_rewards_plugin.ppo.monitoring.training_curves import TrainingCurvesCallback
from trl_rewards_plugin.ppo.optimizer import split_group
from trl_rewards_plugin.ppo.policy.freezing import freeze
from trl_rewards_plugin.ppo.policy.load_policy import load_policy, load_value_model, policy_and_reference
from trl_rewards_plugin.ppo.policy.output_head import head_is_whole
from trl_rewards_plugin.ppo.policy.policy import PolicyOutput, PolicyWithValueHead, bare_model, score_responses
from trl_rewards_plugin.ppo.policy.prompts import Prompt, PromptCollator, quoted
from trl_rewards_plugin.ppo.policy.sampling import Responses, encode_prompts, sample_responses, sampled_as_scored
from trl_rewards_plugin.ppo.rollout import Rollout, join_rollouts
from trl_rewards_plugin.ppo.scoring import Scored, score_completions
from trl_rewards_plugin.ppo.update import (
    Host,
    Lesson,
    compute_targets,
    critic_statistics,
    rollout_statistics,
    run_update,
)


class Seq2SeqPPOTrainer(ClassicLoop, RestartableTrainer):
    """Trains an encoder-decoder by PPO to please reward functions.

    Args:
        model: Hub id, folder, "bundled:NAME" or `PreTrainedModel` of an encoder-decoder (T5, BART ...). Names are
            loaded in float32. Its dropout is turned off in place, in the modules and not in the config.
        reward_funcs: one reward or several, callables in TRL's protocol.
        args: settings; the defaults of `Seq2SeqPPOConfig` if left out, with the output in "trainer_output".
        train_dataset: rows with a column "prompt", text or conversation; further columns reach the rewards.
        eval_dataset: likewise, for `evaluate()`.
        processing_class: the tokenizer; loaded from `model`'s name if left out.
        ref_model: frozen reference of the KL penalty; a copy of the starting model if left out, and the model with
            its adapter off where `peft_config` is given.
        value_model: Hub id, folder or `PreTrainedModel` of an encoder-decoder for the critic; the value head sits on
            the policy's own decoder if left out.
        callbacks, optimizers: as in `transformers.Trainer`.
        peft_config: wraps the model in an adapter.

    Raises:
        InputError: input that cannot work; before any model is loaded where the input alone decides it.
    """

    args: Seq2SeqPPOConfig
    control: TrainerControl

    def __init__(
        self,
        model: str | os.PathLike[str] | PreTrainedModel | nn.Module,
        reward_funcs: Callable[..., Any] | list[Callable[..., Any]],
        args: Seq2SeqPPOConfig | None = None,
        train_dataset: Dataset | None = None,
        eval_dataset: Dataset | None = None,
        processing_class: PreTrainedTokenizerBase | None = None,
        ref_model: PreTrainedModel | None = None,
        value_model: str | os.PathLike[str] | PreTrainedModel | None = None,
        callbacks: list[TrainerCallback] | None = None,
        optimizers: tuple[Any, ...] = (None, None),
        peft_config: Any | None = None,
    ):
        args = args or Seq2SeqPPOConfig(output_dir="trainer_output")
        model, value_model = resolve(model), resolve(value_model)
        self.reward_funcs = check_reward_funcs(reward_funcs, args.reward_weights)
        self.reward_weights = args.reward_weights or [1.0] * len(self.reward_funcs)
        check_value_model(value_model, args)
        check_devices(args.n_gpu)
        check_launch(args.world_size)
        if train_dataset is not None:
            check_dataset(train_dataset, "train_dataset", args.prompts_per_rollout)
        if eval_dataset is not None:
            check_dataset(eval_dataset, "eval_dataset")
        check_seq2seq_model(model)

        load_models_whole()
        policy, processing_class = load_policy(model, processing_class)
        use_cache = getattr(bare_model(policy).config, "use_cache", None)
        self.rules = rules_for(policy, args)
        check_architecture(bare_model(policy), args, self.rules)
        # The reference's encoder is the policy's own for good where it is frozen and the reference is made from it.
        self._one_encoder = args.frozen_encoder and ref_model is None
        policy, self.ref_model = policy_and_reference(policy, ref_model, peft_config)
        self._reference_sliced = head_is_whole(bare_model(self.ref_model or policy), self.rules)
        freeze(bare_model(policy), encoder=args.frozen_encoder, num_layers_unfrozen=args.num_layers_unfrozen)
        wrapped = PolicyWithValueHead(
            policy,
            has_critic=args.has_critic,
            detach_value_head=args.detach_value_head,
            value_model=load_value_model(value_model, policy),
            sliced=head_is_whole(bare_model(policy), self.rules),
        )
        super().__init__(
            model=wrapped,
            args=with_max_steps(args, train_dataset),
            data_collator=PromptCollator(processing_class, prompt_limit(policy, args)),
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            callbacks=callbacks,
            optimizers=optimizers,
        )
        # The host turned it off, which would have gone into the saved config; where each side has its own, it made it.
        if use_cache is None:
            del wrapped.config.use_cache
        else:
            wrapped.config.use_cache = use_cache
        if self.ref_model is not None:
            self.ref_model.to(self.args.device)
        self._use_progress_bar()
        # Of a last epoch that ends early; the others' are logged as they end.
        self.callback_handler.callbacks.insert(0, CallAtEnd(self._log_epoch_reward))
        self.add_callback(TrainingCurvesCallback())
        self.add_callback(ModelCardCallback(self))
        set_seed(args.seed, device_specific=True)  # processes must not draw the same responses
        self._start_afresh()

    def _start_afresh(self) -> None:
        """State of one training run; what a checkpoint holds of it is loaded over this."""
        self.kl_coef = self.args.kl_coef
        self.episodes = 0
        self._collected: list[Rollout] = []
        self._metrics: dict[str, list[float]] = defaultdict(list)
        self._epoch_scores = (0.0, 0)  # sum and count of this epoch's scores
        self.completions = CompletionLog(self.args, main_process=self.is_world_process_zero())
        self.alarms = AlarmBell(self.args, self.processing_class.decode, speaks=self.is_world_process_zero())

    def train(self, *args: Any, **kwargs: Any) -> TrainOutput:
        """Trains, as `transformers.Trainer.train`; an earlier run that was interrupted leaves nothing behind."""
        self._start_afresh()
        with kept_memory(self.args.device):
            return super().train(*args, **kwargs)

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Any:
        """The host's sampler, over as many prompts an epoch as make whole rollouts."""
        sampler = super()._get_train_sampler(train_dataset)
        if isinstance(sampler, RandomSampler):
            whole = self.args.prompts_per_rollout
            rows = len(sampler.data_source) // whole * whole
            sampler = RandomSampler(sampler.data_source, num_samples=rows)
        return sampler

    def _get_dataloader(self, *args: Any, **kwargs: Any) -> Any:
        """The host's; in training a batch of responses needs `num_generations` times fewer prompts."""
        if kwargs.get("is_training"):
            kwargs["batch_size"] //= self.args.num_generations
        return super()._get_dataloader(*args, **kwargs)

    def _use_progress_bar(self) -> None:
        if not self.args.disable_tqdm:
            self.remove_callback(host_module.DEFAULT_PROGRESS_CALLBACK)
            self.add_callback(RolloutProgressCallback(self.args.batch_size))

    def create_optimizer(self, *args: Any) -> torch.optim.Optimizer:
        """The host's optimizer, with the critic in a group of its own where it has its own learning rate."""
        is_new, rate = self.optimizer is None, self.args.critic_learning_rate
        optimizer: torch.optim.Optimizer = super().create_optimizer(*args)
        if is_new and rate is not None:
            critic = [p for part in self._wrapped.critic_parts().values() for p in part.parameters()]
            split_group(optimizer, critic, rate)
        return optimizer

    # ---- The model and its parts ----

    def reference_logprobs(
        self,
        prompt_ids: Tensor,
        prompt_mask: Tensor,
        response_ids: Tensor,
        encoder_states: Tensor | None = None,
        *,
        copies: int = 1,
    ) -> Tensor:
        """Log-probabilities (B, T) of responses under the frozen reference.

        Args:
            encoder_states: the policy's (B, S, H), read where the reference has the same encoder.
            copies: so many rows side by side have one prompt, which is then encoded once.
        """
        reference, without_adapter = self._wrapped.core, nullcontext()
        if self.ref_model is not None:
            reference = bare_model(self.ref_model)
        else:
            without_adapter = cast(Any, self.policy_model).disable_adapter()
        with without_adapter:
            if self._one_encoder and encoder_states is not None:
                states = encoder_states
            else:
                states = encode_prompts(reference, prompt_ids[::copies], prompt_mask[::copies])
                states = states.repeat_interleave(copies, 0)
            return score_responses(
                reference, prompt_ids, prompt_mask, response_ids, self.rules, states, sliced=self._reference_sliced
            )[0]

    # ---- One step: rollout, then update ----

    def training_step(self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Tensor:
        """Collects a part of the rollout; with the last part, updates on all of it.

        Returns:
            The mean loss of the update, 0-d; 0 while parts are still missing.
        """
        inputs = self._prepare_inputs(inputs)
        with whole_weights(self.model_wrapped, self.accelerator):
            self._collected.append(self.collect(inputs))
        if not self.accelerator.sync_gradients:
            return torch.zeros((), device=self.args.device)
        rollout = join_rollouts(self._collected, self.rules.pad_id)
        self._collected = []
        stats = self.update(rollout, model)
        return torch.tensor(stats["loss/total_avg"], device=self.args.device)

    @torch.no_grad()
    def collect(self, inputs: dict[str, Any]) -> Rollout:
        """Samples `num_generations` responses to each prompt, scores them, and records what the update will need.

        Args:
            inputs: a batch of `PromptCollator`.

        Returns:
            The responses to one prompt side by side.
        """
        copies = self.args.num_generations
        prompt_ids, prompt_mask = (inputs[name].repeat_interleave(copies, 0) for name in ("prompt_ids", "prompt_mask"))
        columns = {
            name: [value for value in values for _ in range(copies)] for name, values in inputs["columns"].items()
        }
        wrapped = self._wrapped
        wrapped.eval()
        with self._told_with_place(columns["prompt"]), self.accelerator.autocast():
            states = encode_prompts(wrapped.core, inputs["prompt_ids"], inputs["prompt_mask"])
            states = states.repeat_interleave(copies, 0)
            responses = sample_responses(
                wrapped.core, prompt_ids, prompt_mask, self.rules, self.args.response_length, encoder_states=states
            )
        scores = self._score(columns, responses.ids, responses.mask).to(prompt_ids.device)
        if self.args.missing_eos_penalty is not None:
            scores = torch.where(responses.ended, scores, scores - self.args.missing_eos_penalty)
        self._metrics["prompts/truncated_share"].append(inputs["truncated"].item() / len(inputs["prompt_ids"]))
        with self._told_with_place(columns["prompt"]):
            return self.record(prompt_ids, prompt_mask, responses, scores, states)

    def _told_with_place(self, prompts: list[Prompt]) -> AbstractContextManager[Any]:
        """Names the step and the prompt where numbers stop being finite."""
        return told_with_place(self.state.global_step + 1, lambda row: quoted(prompts[row]))

    @torch.no_grad()
    def record(
        self, prompt_ids: Tensor, prompt_mask: Tensor, responses: Responses, scores: Tensor, encoder_states: Tensor
    ) -> Rollout:
        """What the update will need of scored responses: the old policy, its values and the reference.

        Args:
            prompt_ids, prompt_mask: (B, S).
            scores: (B,).
            encoder_states: (B, S, H) of the policy's encoder.
        """
        wrapped = self._wrapped
        wrapped.eval()
        with self.accelerator.autocast():
            output = self._old_policy(prompt_ids, prompt_mask, responses, encoder_states)
            ref_logprobs = self.reference_logprobs(
                prompt_ids, prompt_mask, responses.ids, encoder_states, copies=self.args.num_generations
            )
        return Rollout(
            prompt_ids,
            prompt_mask,
            responses.ids,
            responses.mask,
            responses.ended,
            output.logprobs if responses.seen is None else responses.seen.logprobs,
            output.logprobs,
            ref_logprobs,
            output.entropies,
            output.values,
            scores,
            encoder_states if self.args.frozen_encoder else None,
        )

    def _old_policy(
        self, prompt_ids: Tensor, prompt_mask: Tensor, responses: Responses, encoder_states: Tensor
    ) -> PolicyOutput:
        """The policy's view of responses before the update: the sampler's own where that is exact."""
        wrapped, seen = self._wrapped, responses.seen
        if seen is None or not sampled_as_scored(wrapped.core):
            output: PolicyOutput = wrapped(prompt_ids, prompt_mask, responses.ids, self.rules, encoder_states)
            return output
        values = wrapped.values(seen.hidden, prompt_ids, prompt_mask, responses.ids, self.rules)
        return PolicyOutput(seen.logprobs, seen.entropies, values)

    def _score(self, columns: dict[str, list[Any]], response_ids: Tensor, response_mask: Tensor) -> Tensor:
        """Total rewards (B,) of decoded responses, on the CPU; logs their parts."""
        response_ids, response_mask = response_ids.cpu(), response_mask.cpu()
        texts = self.processing_class.batch_decode(response_ids, skip_special_tokens=True)
        ids = [row[mask].tolist() for row, mask in zip(response_ids, response_mask, strict=True)]
        scored = self._score_texts(columns, texts, ids)
        for name, value in scored.metrics.items():
            self._metrics[name].append(value)
        self.completions.add(scored.table)
        return scored.total

    def _score_texts(self, columns: dict[str, list[Any]], texts: list[str], ids: list[list[int]]) -> Scored:
        """The rewards of completions, in training and in evaluation."""
        return score_completions(
            self.reward_funcs,
            self.reward_weights,
            columns["prompt"],
            texts,
            completion_ids=ids,
            columns=columns,
            trainer_state=self.state,
        )

    def update(self, rollout: Rollout, model: nn.Module | None = None) -> dict[str, float]:
        """Learns from a rollout: all optimizer steps of its epochs but the last, which the host takes.

        Args:
            rollout: this process's part.
            model: the prepared model; the trainer's own if left out.

        Returns:
            The statistics that are logged, under TRL's names.
        """
        model = model if model is not None else self.model_wrapped
        model.train()  # gradient checkpointing needs it; dropout is off in either mode
        host = self._host(model)
        targets = compute_targets(rollout, self.args, self.kl_coef, host.reduce)
        stats = rollout_statistics(rollout, targets, self.kl_coef, self.accelerator.gather)
        if self.args.has_critic:
            stats.update(critic_statistics(rollout, targets, host.reduce))
        warming_up = self.state.global_step < self.args.critic_warmup_steps
        lesson = Lesson(self.args, self.rules, self.kl_coef, critic_only=warming_up)
        self.completions.end_rollout(targets.advantages, rollout.response_mask)
        with self.alarms.watching(rollout, targets.returns, self.state.global_step + 1, host.reduce):
            stats.update(run_update(model, rollout, targets, lesson, host))
        scores = self.accelerator.gather(rollout.scores)
        self.episodes += len(scores)
        total, count = self._epoch_scores
        self._epoch_scores = (total + scores.sum().item(), count + len(scores))
        if self.args.adaptive_kl:
            mean_kl = self.accelerator.gather(targets.kl.sum(1)).mean().item()
            self.kl_coef = next_kl_coef(self.kl_coef, mean_kl, self.args.kl_target, len(scores), self.args.kl_horizon)
        for name, value in stats.items():
            self._metrics[name].append(value)
        return stats

    def _host(self, model: nn.Module) -> Host:
        def step() -> None:
            if self.args.max_grad_norm and self.args.max_grad_norm > 0:
                self.accelerator.clip_grad_norm_(model.parameters(), self.args.max_grad_norm)
            self.optimizer.step()
            model.zero_grad()

        return Host(
            backward=partial(backward, self.accelerator),
            step=step,
            clear=lambda: model.zero_grad(set_to_none=True),
            reduce=lambda sums: self.accelerator.reduce(sums, reduction="sum"),
            no_sync=partial(without_sync, self.accelerator, model),
            autocast=self.accelerator.autocast,
            world_size=self.accelerator.num_processes,
        )

    # ---- Logging ----

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds the means of the rollouts since the last log, and the episode count."""
        if "loss" in logs:
            logs["episode"] = self.episodes
            logs.update(
                weighted_means(
                    [(len(values), {name: sum(values) / len(values)}) for name, values in self._metrics.items()]
                )
            )
            self._metrics.clear()
            self.completions.log_rollout(self.state.global_step)
        super().log(logs, start_time)

    def _maybe_log_save_evaluate(self, *args: Any, **kwargs: Any) -> None:
        # Before the host saves: a checkpoint at the end of an epoch must not carry the scores into the next one.
        if float(self.state.epoch).is_integer():
            self._log_epoch_reward()
        super()._maybe_log_save_evaluate(*args, **kwargs)

    def _log_epoch_reward(self) -> None:
        total, count = self._epoch_scores
        if count:
            self._epoch_scores = (0.0, 0)
            should_log = self.control.should_log
            self.log({"epoch_reward": total / count})
            self.control.should_log = should_log  # cleared by any log, and the rollout's own is still to come

    # ---- Evaluation ----

    def evaluate(
        self, eval_dataset: Dataset | None = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Decodes the evaluation prompts, always with the same seed, and scores them.

        Sampled as in training, or by `eval_generation_kwargs`. The random state of training is left as it was, and
        so is what rewards learn from the texts of training (see `frozen_rewards`).

        Returns:
            `eval_reward`, `eval_rewards/<name>/mean`, `eval_length` (tokens), `eval_guard/<name>` (see `guards.py`),
            and, of plainly sampled answers, `eval_kl`: the mean over responses of the summed log-ratio to the
            reference, in nats. It is left out with `eval_generation_kwargs`: those answers are not drawn from the
            policy's distribution, so the mean of their log-ratios is no KL.
        """
        dataset = eval_dataset if eval_dataset is not None else self.eval_dataset
        if dataset is None:
            raise InputError("an eval_dataset", "none", "pass one to the trainer or to evaluate()")
        check_dataset(dataset, "eval_dataset")
        process, processes = self.accelerator.process_index, self.accelerator.num_processes
        rows = dataset.select(range(process, len(dataset), processes))
        answers = None
        with whole_weights(self.model_wrapped, self.accelerator), frozen_rewards(self.reward_funcs):
            if len(rows):
                answers = answer_prompts(
                    self.policy_model,
                    self.processing_class,
                    rows.to_dict(),
                    self.args,
                    self._score_texts,
                    self.reference_logprobs,
                )
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in held_out_metrics(answers).items()}
        self.log(metrics)
        self.completions.log_evaluation({} if answers is None else answers.scored.table, self.state.global_step)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    # ---- Saving, loading: see restart.py ----

    def _run_state(self) -> RunState:
        alarms, metrics = dict(self.alarms.times), dict(self._metrics)
        counters = (self.kl_coef, self.episodes, self._epoch_scores, self.train_seconds)
        return RunState(*counters, alarms, [metrics], rewards=[])

    def _set_run_state(self, state: RunState) -> None:
        self.kl_coef, self.episodes, self._epoch_scores = state.kl_coef, state.episodes, state.epoch_scores
        self.alarms.times.update(state.alarms)
        self._metrics.update(state.metrics[0])

    def create_model_card(
        self,
        model_name: str | None = None,
        dataset_name: str | list[str] | None = None,
        tags: str | list[str] | None = None,
    ) -> None:
        """Writes README.md into the output folder; the arguments as in TRL's trainers."""
        from trl_rewards_plugin.cards.callback import create_model_card

        create_model_card(self, model_name, dataset_name, tags)

    def init_hf_repo(self, token: str | None = None, private: bool | None = None) -> None:
        """Opens the repository that `push_to_hub` asks for; refuses early what could not be uploaded."""
        from trl_rewards_plugin.cards.trainer_push import open_repository

        open_repository(self, token, private)

    def push_to_hub(self, *args: Any, **kwargs: Any) -> Any:
        """Uploads model, tokenizer and card in one commit, as `trl_rewards_plugin.push_to_hub` does."""
        from trl_rewards_plugin.cards.trainer_push import push_trainer

        return push_trainer(self, *args, **kwargs)
