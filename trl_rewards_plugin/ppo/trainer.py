"""`Seq2SeqPPOTrainer`: PPO for encoder-decoders as a `transformers.Trainer`, whose step is one rollout.

    collect   rollout: encode, sample, score, and record the old policy, its values and the reference
    update    token rewards, advantages, epochs of updates, log

The last optimizer step of the update, the schedule, logging, evaluation and saving are the Trainer's. So a checkpoint
always lies between rollouts, and `global_step` and every `*_steps` count rollouts.
Leaves out: the maths (maths/), the epochs of updates (update.py), and what a reward is.
"""

import os
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from accelerate.utils import set_seed
from datasets import Dataset
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback
from transformers import trainer as transformers_trainer
from transformers.trainer_utils import TrainOutput

from trl_rewards_plugin.assets import resolve
from trl_rewards_plugin.cards.callback import ModelCardCallback
from trl_rewards_plugin.charts.series import OTHER_PROMPTS
from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.ppo.acceleration.kept_memory import kept_memory
from trl_rewards_plugin.ppo.acceleration.static_calls import static_calls
from trl_rewards_plugin.ppo.architectures.limits import check_architecture
from trl_rewards_plugin.ppo.checkpoints.state import frozen_rewards
from trl_rewards_plugin.ppo.classic import ClassicLoop
from trl_rewards_plugin.ppo.config import Seq2SeqPPOConfig
from trl_rewards_plugin.ppo.decoding import held_out_metrics, prompt_limit, rules_for, sample_held_out
from trl_rewards_plugin.ppo.distributed import gathered_weights, load_unsharded
from trl_rewards_plugin.ppo.finite import locate_non_finite
from trl_rewards_plugin.ppo.input_checks import check_dataset, check_held_out_reward, check_inputs, check_reward_funcs
from trl_rewards_plugin.ppo.maths.kl import next_kl_coef
from trl_rewards_plugin.ppo.maths.masking import rows_of_ids
from trl_rewards_plugin.ppo.maths.methods import KL_ESTIMATORS
from trl_rewards_plugin.ppo.monitoring.alarms import find_held_out_alarm
from trl_rewards_plugin.ppo.monitoring.callbacks import CallAtEnd, RolloutProgressCallback, TrainingCurvesCallback
from trl_rewards_plugin.ppo.monitoring.out_of_memory import enough_memory
from trl_rewards_plugin.ppo.monitoring.run_log import RunLog, critic_statistics, rollout_statistics
from trl_rewards_plugin.ppo.policy.exact_kl import ExactKL
from trl_rewards_plugin.ppo.policy.load_policy import add_value_head, load_policy, policy_and_reference
from trl_rewards_plugin.ppo.policy.output_head import Anchor, head_is_whole
from trl_rewards_plugin.ppo.policy.policy import PolicyOutput, bare_model, policy_scores, reference_scores
from trl_rewards_plugin.ppo.policy.prompts import EncodedPrompts, PromptCollator, quoted, tokenize_references
from trl_rewards_plugin.ppo.policy.sampling import Responses, encode_prompts, sample_responses, sampled_as_scored
from trl_rewards_plugin.ppo.rollout import Rollout, join_rollouts
from trl_rewards_plugin.ppo.scoring import Scored, less_eos_penalty, score_completions, with_held_out
from trl_rewards_plugin.ppo.trainer_base import unchanged_use_cache, with_max_steps
from trl_rewards_plugin.ppo.update import UpdateContext, compute_advantages, compute_token_rewards, run_update


class Seq2SeqPPOTrainer(ClassicLoop):
    """Trains an encoder-decoder by PPO to please reward functions.

    Args:
        model: Hub id, folder, "bundled:NAME" or `PreTrainedModel` of an encoder-decoder (T5, BART ...). Names are
            loaded in float32. Its dropout is turned off in place, in the modules and not in the config.
        reward_funcs: one reward or several, callables in TRL's protocol.
        args: settings; the defaults of `Seq2SeqPPOConfig` if left out, with the output in "trainer_output".
        train_dataset: rows with a column "prompt", text or conversation; further columns reach the rewards.
        eval_dataset: likewise, for `evaluate()`.
        processing_class: the tokenizer; loaded from `model`'s name if left out.
        ref_model: frozen reference of the KL penalty. If left out, the model that the run starts from: a copy, or the
            model with its adapter off where `peft_config` is given and that is the same.
        value_model: Hub id, folder or `PreTrainedModel` of the critic; if left out it shares the policy's decoder.
        callbacks, optimizers: as in `transformers.Trainer`.
        peft_config: wraps the model in an adapter.
        held_out_reward: a reward that training never sees, on a fixed scale; every evaluation measures it.

    Raises:
        InputError: input that cannot work; before any model is loaded where the input alone decides it.
    """

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
        held_out_reward: Callable[..., Any] | None = None,
    ):
        args = args or Seq2SeqPPOConfig(output_dir="trainer_output")
        model, value_model = resolve(model), resolve(value_model)
        self.reward_funcs = check_reward_funcs(reward_funcs, args.reward_weights, args.normalizes_each_reward)
        self.reward_weights = args.reward_weights or [1.0] * len(self.reward_funcs)
        self.held_out_rewards = check_held_out_reward(held_out_reward, self.reward_funcs, args)
        check_inputs(model, value_model, args, train_dataset, eval_dataset)

        load_unsharded()
        policy, processing_class = load_policy(model, processing_class)
        self.rules = rules_for(policy, args, processing_class)
        self.calls = static_calls(args, policy)
        check_architecture(bare_model(policy), args, self.rules)
        self._own_reference = ref_model is None
        self._shares_encoder = args.frozen_encoder and self._own_reference  # which is made from the policy
        policy, self.ref_model = policy_and_reference(policy, ref_model, peft_config, args.seed, self.rules)
        self._reference_sliced = head_is_whole(bare_model(self.ref_model or policy), self.rules)
        wrapped = add_value_head(policy, value_model, args, self.rules)
        with unchanged_use_cache(wrapped.config):
            collator = PromptCollator(processing_class, prompt_limit(policy, args), self.calls.widths.prompt)
            datasets = {"train_dataset": train_dataset, "eval_dataset": eval_dataset, "data_collator": collator}
            more = {"processing_class": processing_class, "callbacks": callbacks, "optimizers": optimizers}
            super().__init__(wrapped, with_max_steps(args, train_dataset), **datasets, **more)
        if self.ref_model is not None:
            self.ref_model.to(self.args.device)
        exact = KL_ESTIMATORS[args.kl_estimator].exact
        reference = bare_model(self.ref_model or wrapped.core)
        self.exact_kl = ExactKL(wrapped.core, reference, self.rules, args) if exact else None
        if not args.disable_tqdm:
            self.remove_callback(transformers_trainer.DEFAULT_PROGRESS_CALLBACK)
            self.add_callback(RolloutProgressCallback(self.args.batch_size))
        # Of a last epoch that ends early; the others' rewards are logged as they end.
        self.callback_handler.callbacks.insert(0, CallAtEnd(self._log_epoch_reward))
        self.add_callback(TrainingCurvesCallback())
        self.add_callback(ModelCardCallback(self))
        set_seed(args.seed, device_specific=True)  # processes must not draw the same responses
        self._evaluation_states = {}
        self._start_run()

    def _start_run(self) -> None:
        """State of one training run; what a checkpoint holds of it is loaded over this."""
        self.kl_coef = self.args.initial_kl_coef
        self._parts: list[Rollout] = []
        self.run_log = RunLog(self.args, self.processing_class.decode)

    def train(self, *args: Any, **kwargs: Any) -> TrainOutput:
        """Trains, as `transformers.Trainer.train`; an earlier run that was interrupted leaves nothing behind."""
        self._start_run()
        with kept_memory(self.args.device):
            output = super().train(*args, **kwargs)
        return output._replace(training_loss=output.metrics["train_loss"])

    @property
    def episodes(self) -> int:
        """Responses trained on so far, on all processes."""
        return self.run_log.episodes

    # ---- Rollout, token rewards, advantages, epochs of updates, log ----

    def training_step(self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Tensor:
        """Collects a part of the rollout; with the last part, learns from all of it; returns its mean loss, 0-d."""
        inputs = self._prepare_inputs(inputs)
        with gathered_weights(self.model_wrapped, self.accelerator):
            self._parts.append(self.collect(inputs))
        if not self.accelerator.sync_gradients:
            return torch.zeros((), device=self.args.device)
        rollout = join_rollouts(self._parts, self.rules.pad_id)
        self._parts = []
        self.before_update(rollout)
        with enough_memory(self.args, "the update"):
            stats = self.update(rollout, model)
        self.after_update()
        return torch.tensor(stats["loss/total_avg"], device=self.args.device)

    @torch.no_grad()
    def collect(self, inputs: dict[str, Any]) -> Rollout:
        """Samples, scores and records a `PromptCollator` batch: `num_generations` responses a prompt, side by side."""
        copies, core = self.args.num_generations, self._wrapped.core
        prompts = EncodedPrompts(inputs["prompt_ids"], inputs["prompt_mask"])
        self.run_log.add_metrics({"prompts/truncated_share": inputs["truncated"].item() / len(prompts)})
        columns = {name: [one for one in values for _ in range(copies)] for name, values in inputs["columns"].items()}
        self._wrapped.eval()
        with locate_non_finite(self.state.global_step + 1, lambda row: quoted(columns["prompt"][row])):
            with enough_memory(self.args, "sampling"), self.accelerator.autocast():
                prompts = encode_prompts(core, prompts, self.calls).repeat(copies)
                responses = sample_responses(core, prompts, self.rules, self.args.response_length, calls=self.calls)
            texts = self.processing_class.batch_decode(responses.ids.cpu(), skip_special_tokens=True)
            ids = rows_of_ids(responses.ids, responses.mask)
            scored = self._score(columns, texts, ids, responses.ended)  # rewards say themselves where memory runs out
            self.run_log.add_metrics(scored.metrics)
            self.run_log.completions.add(scored.table)
            with enough_memory(self.args, "the old policy and the reference"):
                rollout = self.record(prompts, responses, scored.total.to(self.args.device))
        if self.args.normalizes_each_reward:
            rollout = replace(rollout, reward_scores=scored.by_reward)
        if self.args.sft_coef:  # the language-model term
            texts, multiple = columns[self.args.sft_column], self.calls.widths.response
            found = tokenize_references(texts, self.processing_class, self.rules, self.args.response_length, multiple)
            target_ids, target_mask = (tensor.to(self.args.device) for tensor in found)
            rollout = replace(rollout, target_ids=target_ids, target_mask=target_mask)
        return rollout

    def _score(
        self, columns: dict[str, list[Any]], texts: list[str], ids: list[list[int]], ended: Tensor, held_out: Any = ()
    ) -> Scored:
        """The rewards of completions, less the penalty for a missing EOS; beside them those of `held_out`."""
        shared: dict[str, Any] = {"completion_ids": ids, "columns": columns, "trainer_state": self.state}
        scored = score_completions(self.reward_funcs, self.reward_weights, columns["prompt"], texts, **shared)
        for reward in held_out:
            judged = score_completions([reward], [1.0], columns["prompt"], texts, **shared, may_be_missing=True)
            scored = with_held_out(scored, judged)
        return replace(scored, total=less_eos_penalty(scored.total, ended, self.args.missing_eos_penalty))

    @torch.no_grad()
    def record(self, prompts: EncodedPrompts, responses: Responses, scores: Tensor) -> Rollout:
        """What the update will need of responses with scores (B,) to prompts with the encoder's states."""
        self._wrapped.eval()
        with self.accelerator.autocast():
            found = self._reference_scores(prompts, responses.ids, self.args.num_generations)
            reference = None if self.exact_kl is None else Anchor(self.exact_kl.reference, found["features"])
            output = self._old_policy(prompts, responses, reference)
        return Rollout(
            prompt_ids=prompts.ids,
            prompt_mask=prompts.mask,
            response_ids=responses.ids,
            response_mask=responses.mask,
            ended=responses.ended,
            sampled_logprobs=output.logprobs if responses.logprobs is None else responses.logprobs,
            logprobs=output.logprobs,
            ref_logprobs=found["logprobs"],
            entropies=output.entropies,
            values=output.values,
            scores=scores,
            encoder_states=prompts.states if self.args.frozen_encoder else None,
            exact_kl=output.kl,
            anchor_features=(reference if reference and self.args.use_kl_loss else output).features,
        )

    def _old_policy(self, prompts: EncodedPrompts, responses: Responses, reference: Anchor | None) -> PolicyOutput:
        """The policy's scores of responses before the update: the sampler's own where those are exact."""
        wrapped, logprobs, entropies, hidden = self._wrapped, responses.logprobs, responses.entropies, responses.hidden
        enough = reference is None and sampled_as_scored(wrapped.core)
        if logprobs is None or entropies is None or hidden is None or not enough:
            return policy_scores(self.calls, wrapped, prompts, responses.ids, self.rules, reference)
        return PolicyOutput(logprobs, entropies, wrapped.values(hidden, prompts, responses.ids, self.rules))

    def reference_logprobs(self, prompts: EncodedPrompts, response_ids: Tensor, *, copies: int = 1) -> Tensor:
        """Log-probabilities (B, T) of responses (B, T) to B prompts under the frozen reference.

        States of the prompts are the policy's, used where the reference has the same encoder; else `copies` rows side
        by side have one prompt, which is encoded once.
        """
        return self._reference_scores(prompts, response_ids, copies)["logprobs"]

    def _reference_scores(self, prompts: EncodedPrompts, response_ids: Tensor, copies: int) -> dict[str, Tensor]:
        reference = bare_model(self.ref_model or self.policy_model)
        adapted: Any = self.policy_model
        with nullcontext() if self.ref_model is not None else adapted.disable_adapter():
            if not self._shares_encoder or prompts.states is None:
                own = prompts.select(slice(None, None, copies))
                prompts = encode_prompts(reference, own, self.calls).repeat(copies)
            how = (self._reference_sliced, self.exact_kl is not None)
            return reference_scores(self.calls, reference, prompts, response_ids, self.rules, *how)

    def update(self, rollout: Rollout, model: nn.Module | None = None) -> dict[str, float]:
        """Learns from this process's part of a rollout: all optimizer steps but the last, which the Trainer takes.

        Returns the statistics that are logged, under TRL's names. `model` is prepared, the trainer's own if left out.
        """
        model = model if model is not None else self.model_wrapped
        model.train()  # gradient checkpointing needs it; dropout is off in either mode
        args, step, framework = self.args, self.state.global_step, self.framework(model)
        reduce, gather = framework.reduce, framework.gather

        kl, rewards = compute_token_rewards(rollout, args, self.kl_coef, reduce)
        batch = compute_advantages(rollout, rewards, args, reduce)

        anchor_head = None if self.exact_kl is None else self.exact_kl.keep()
        context = UpdateContext(args, self.rules, framework, step < args.critic_warmup_steps, self.calls, anchor_head)
        how: Any = {"in_reward": not args.use_kl_loss, "num_generations": args.num_generations}
        stats = rollout_statistics(rollout, kl, self.kl_coef, gather, **how)
        self.run_log.completions.end_rollout(batch.advantages, batch.response_mask)
        with self.run_log.alarms.watching(batch, stats, step + 1):
            stats |= run_update(model, batch, self.kl_coef, context)

        if args.has_critic:
            stats |= critic_statistics(batch, reduce)
        scores = gather(rollout.scores)
        self.run_log.add_rollout(stats, scores)
        if args.adaptive_kl and not context.critic_only:
            mean_kl = stats["objective/kl"]
            self.kl_coef = next_kl_coef(self.kl_coef, mean_kl, args.kl_target, len(scores), args.kl_horizon)
        return stats

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds the means of the rollouts since the last log, and the episode count."""
        if "train_loss" in logs and self.run_log.total_loss is not None:  # the Trainer's is that of the resumed part
            logs["train_loss"] = self.run_log.total_loss / max(self.state.global_step, 1)
        if "loss" in logs:
            logs.update(self.run_log.take_means())
            self.run_log.completions.log_rollout(self.state.global_step)
        super().log(logs, start_time)

    def _maybe_log_save_evaluate(self, *args: Any, **kwargs: Any) -> None:
        # Before the Trainer saves: a checkpoint at the end of an epoch must not carry its scores into the next one.
        if float(self.state.epoch).is_integer():
            self._log_epoch_reward()
        super()._maybe_log_save_evaluate(*args, **kwargs)

    def _log_epoch_reward(self) -> None:
        reward = self.run_log.take_epoch_reward()
        if reward is not None:
            should_log = self.control.should_log
            self.log({"epoch_reward": reward})
            self.control.should_log = should_log  # cleared by any log, and the rollout's own is still to come

    # ---- Evaluation ----

    def evaluate(
        self, eval_dataset: Dataset | None = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Decodes the evaluation prompts, always with the same seed, and scores them.

        Sampled as in training, or by `eval_generation_kwargs`. The random state of training is left as it was, and
        so is what rewards learn from the texts of training. Their scale and weights are those of the first evaluation,
        over a resume too, so that `eval_reward` can choose among checkpoints.

        Returns:
            `eval_reward` (less `missing_eos_penalty`, as in training), `eval_rewards/<name>/mean`, `eval_length` in
            tokens, `eval_guard/<name>` (see `guard_metrics`), and, of plain samples, `eval_kl`: the mean over
            responses of the summed log-ratio to the reference, in nats. It is left out with `eval_generation_kwargs`,
            whose responses are not the policy's, so that their mean log-ratio would be no KL.
            With a `held_out_reward` also `eval_held_out_reward` and `eval_held_out_rewards/<name>/mean`.
        """
        dataset = eval_dataset if eval_dataset is not None else self.eval_dataset
        if dataset is None:
            raise InputError("an eval_dataset", "none", "pass one to the trainer or to evaluate()")
        check_dataset(dataset, "eval_dataset")
        held_out = self.held_out_rewards
        frozen, also_frozen = frozen_rewards(self.reward_funcs, self._evaluation_states), frozen_rewards(held_out, {})
        with gathered_weights(self.model_wrapped, self.accelerator), frozen, also_frozen:
            score = partial(self._score, held_out=held_out)
            model, tokenizer = self.policy_model, self.processing_class
            samples = sample_held_out(model, tokenizer, dataset, self.args, score, self.reference_logprobs, self.calls)
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in held_out_metrics(samples).items()}
        others = self.eval_dataset is not None and dataset is not self.eval_dataset
        self.log({**metrics, OTHER_PROMPTS: True} if others else metrics)
        table = {} if samples is None else samples[1].table
        self.run_log.completions.log_evaluation(table, self.state.global_step)
        if held_out and not others and metric_key_prefix == "eval":
            alarms, prompts = find_held_out_alarm(self.state.log_history, table), table.get("prompt", ["?"])
            self.run_log.alarms.raise_alarms(alarms, self.state.global_step, lambda row: quoted(prompts[row]))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics
