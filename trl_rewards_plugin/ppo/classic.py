"""The classic loop of TRL up to 0.11, for those who write their own: `dataloader`, `generate`, `step`, `log_stats`.

    for batch in trainer.dataloader:
        responses = trainer.generate(batch["input_ids"])
        texts = tokenizer.batch_decode(responses, skip_special_tokens=True)
        stats = trainer.step(batch["input_ids"], responses, reward(texts))
        trainer.log_stats(stats, {**batch, "response": texts}, scores)

`step` learns by the same `update` as `train`. Leaves out: saving, evaluation and callbacks between steps, which are up
to the loop (`save_model`, `evaluate`), and settings under which the sampled policy would not be the scored one.
"""

import math
import time
from collections.abc import Sequence
from typing import Any

import torch
from accelerate.utils import DistributedType
from torch import Tensor
from torch.utils.data import DataLoader
from transformers.trainer_utils import align_special_tokens

from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.ppo.config_rules import check_sampling_settings
from trl_rewards_plugin.ppo.decoding import prompt_limit
from trl_rewards_plugin.ppo.maths.masking import first_eos_mask, has_eos
from trl_rewards_plugin.ppo.policy.prompts import EncodedPrompts, padded_rows, prompt_text
from trl_rewards_plugin.ppo.policy.sampling import Responses, encode_prompts, sample_responses
from trl_rewards_plugin.ppo.rollout import Rollout, join_rollouts
from trl_rewards_plugin.ppo.scoring import less_eos_penalty
from trl_rewards_plugin.ppo.trainer_base import RolloutTrainer

# The names that dashboards of the classic trainer read, and ours for the same numbers.
_OBJECTIVES, _LENGTHS = ("kl", "kl_coef", "entropy"), ("queries_len_mean", "responses_len_mean")
_MEANS = ("loss/policy", "loss/value", "loss/total", "policy/entropy", "policy/approxkl", "policy/clipfrac")
CLASSIC_NAMES = {
    **{f"objective/{name}": f"objective/{name}" for name in _OBJECTIVES},
    **{f"tokens/{name}": f"tokens/{name}" for name in _LENGTHS},
    **{f"ppo/{name}": f"{name}_avg" for name in _MEANS},
    **{f"ppo/val/{name}": f"val/{name}" for name in ("error", "var_explained")},
    "ppo/mean_scores": "objective/scores",
    "ppo/std_scores": "objective/scores_std",
    "ppo/mean_non_score_reward": "objective/non_score_reward",
    "ppo/policy/ratio": "val/ratio",
}
REFUSED = {
    "length_sampler": "leave it out: a length that is drawn elsewhere is not the policy's; max_new_tokens cuts",
    "generate_ref_response": "evaluate() compares with the reference; or call trainer.ref_model.generate",
    "return_prompt": "a decoder's output does not hold the prompt",
}


class ClassicLoop(RolloutTrainer):
    """A Trainer that has the four parts of the classic loop, beside its own `train`."""

    _dataloader: DataLoader[Any] | None = None
    _prepared_optimizer: Any = None

    @property
    def dataloader(self) -> DataLoader[Any]:
        """Batches of one rollout's prompts, shuffled anew by seed in every pass: dicts of lists.

        Each prompt is there `num_generations` times, side by side, as `step` wants it: `input_ids` (1-D, without
        padding), `query` (the text), and every column of the data set.
        """
        if self.train_dataset is None:
            raise InputError("a train_dataset, whose prompts the dataloader yields", "none", "pass one to the trainer")
        if self._dataloader is None:
            seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
            random, size = torch.Generator().manual_seed(seed), self.args.local_batch_size // self.args.num_generations
            loader: DataLoader[Any] = DataLoader(
                self.train_dataset, size, shuffle=True, generator=random, collate_fn=self._queries, drop_last=True
            )
            self._dataloader = self.accelerator.prepare(loader)
        return self._dataloader

    def _refuse_sharding(self) -> None:
        """Refuses launches that shard weights or optimizer, which only `train` prepares for."""
        kind = self.accelerator.distributed_type
        if kind in (DistributedType.FSDP, DistributedType.DEEPSPEED):
            expected = "one process or DDP (examples/accelerate/ddp.yaml) for generate() and step()"
            step = "launch with ddp.yaml, or call train(), which runs under FSDP2 and DeepSpeed too"
            raise InputError(expected, kind.value, step)

    def _queries(self, rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
        rows = [row for row in rows for _ in range(self.args.num_generations)]
        columns = {name: [row[name] for row in rows] for name in rows[0]}
        texts = [prompt_text(prompt, self.processing_class) for prompt in columns["prompt"]]
        limit = prompt_limit(self.policy_model, self.args)
        ids = self.processing_class(texts, truncation=True, max_length=limit)["input_ids"]
        return {**columns, "query": texts, "input_ids": [torch.tensor(row) for row in ids]}

    def generate(
        self, query_tensor: Tensor | Sequence[Tensor], *, batch_size: int | None = None, **generation: Any
    ) -> Any:
        """Samples one response to each query from the distribution that `step` will score.

        Args:
            query_tensor: one 1-D tensor of prompt ids, or a list of them.
            batch_size: queries at a time; `per_device_train_batch_size` if left out.
            **generation: `max_new_tokens` (`response_length` if left out), and settings that change nothing, such as
                `do_sample=True` or `top_p=1.0`.

        Returns:
            Response ids without the decoder start, EOS included: one 1-D tensor, or a list of them.

        Raises:
            InputError: no 1-D tensors, a setting that `step` could not score exactly, or sharded weights.
        """
        queries = [query_tensor] if isinstance(query_tensor, Tensor) else list(query_tensor)
        self._refuse_sharding()
        _check_tensors("queries", queries)
        length, size = self._checked_generation(generation), batch_size or self.args.micro_batch_size
        core = self._wrapped.eval().core
        found: list[Tensor] = []
        for start in range(0, len(queries), size):
            prompts = self._padded(queries[start : start + size])
            with self.accelerator.autocast():
                responses = sample_responses(core, prompts, self.rules, length)
            found += [row[real] for row, real in zip(responses.ids, responses.mask, strict=True)]
        return found[0] if isinstance(query_tensor, Tensor) else found

    def _checked_generation(self, generation: dict[str, Any]) -> int:
        """Maximum new tokens, after all else is found to change nothing."""
        asked = dict(generation)
        length = asked.pop("max_new_tokens", self.args.response_length)
        for name in asked.keys() & REFUSED.keys():
            if asked.pop(name) is not False:
                raise InputError(f"generate without {name}", f"{name}={generation[name]!r}", REFUSED[name])
        # Values of a tokenizer's ids, and of the classic loop's lower bounds, that have no effect.
        rules = self.rules
        neutral = {"pad_token_id": (None, rules.pad_id), "eos_token_id": (None, *rules.eos_ids, list(rules.eos_ids))}
        lower = {"min_length": (None, -1, 0), "min_new_tokens": (None, rules.min_new_tokens)}
        check_sampling_settings(asked, {**neutral, **lower, "temperature": (None, rules.temperature)})
        if not isinstance(length, int) or length < 1:
            raise InputError("max_new_tokens of at least 1", repr(length), "leave it out for response_length")
        return length

    def step(
        self,
        queries: Sequence[Tensor],
        responses: Sequence[Tensor],
        scores: Sequence[float | Tensor],
        response_masks: None = None,
    ) -> dict[str, Any]:
        """One PPO step on scored responses: `num_ppo_epochs` of updates, then one step of the schedule.

        The old log-probabilities are recomputed. The first call prepares model and optimizer as `train()` does.
        Returns the statistics of the step, under the classic names.

        Args:
            queries: N 1-D tensors of prompt ids.
            responses: N 1-D tensors of response ids; a leading decoder start and all behind the first EOS are dropped.
            scores: N numbers; `missing_eos_penalty` is subtracted from those of responses without EOS, as in `train`.

        Raises:
            InputError: counts that differ, tensors or scores that cannot be learnt from, or sharded weights.
        """
        if response_masks is not None:
            raise InputError("step without response_masks", "masks", "leave them out: every token up to EOS counts")
        if self.args.sft_coef:
            step = "leave sft_coef out, or call train()"
            raise InputError("step with sft_coef=0, as it gets no reference texts", str(self.args.sft_coef), step)
        self._refuse_sharding()
        if self.args.normalizes_each_reward:
            step = "call train(), or leave multi_objective_aggregation out"
            raise InputError("sum_then_normalize, as step() gets one score per response", "normalize_then_sum", step)
        began, size = time.perf_counter(), self.args.micro_batch_size
        prompts, own, numbers = self._checked_rows(queries, responses, scores)
        self.prepare_steps()
        chunks = [slice(at, at + size) for at in range(0, len(prompts), size)]
        parts = [self.record_rows(prompts[chunk], own[chunk], numbers[chunk]) for chunk in chunks]
        recorded = time.perf_counter()
        rollout = join_rollouts(parts, self.rules.pad_id)
        self.before_update(rollout)
        found = self.update(rollout)
        self.after_update()
        self.framework(self.model_wrapped).step()  # the last one, which the Trainer would take
        self.run_log.take_means()  # the caller has them
        schedule: Any = self.lr_scheduler
        stats = {classic: found[ours] for classic, ours in CLASSIC_NAMES.items() if ours in found}
        stats["ppo/learning_rate"] = schedule.get_last_lr()[0]
        schedule.step()
        self.state.global_step += 1
        ended = time.perf_counter()
        times = {"forward_pass": recorded - began, "optimize_step": ended - recorded, "total": ended - began}
        return {**stats, **{f"time/ppo/{name}": seconds for name, seconds in times.items()}}

    def _checked_rows(
        self, queries: Sequence[Tensor], responses: Sequence[Tensor], scores: Sequence[float | Tensor]
    ) -> tuple[list[Tensor], list[Tensor], list[float]]:
        counts = {"queries": len(queries), "responses": len(responses), "scores": len(scores)}
        if len(set(counts.values())) > 1 or not len(queries):
            expected = "equal numbers of queries, responses and scores, at least one"
            raise InputError(expected, str(counts), "pass one of each per row")
        _check_tensors("queries", queries)
        copies = self.args.num_generations
        groups = f"responses in groups of num_generations={copies}, one prompt's side by side"
        step = "pass each query num_generations times, as trainer.dataloader yields them"
        if len(queries) % copies:
            raise InputError(groups, f"{len(queries)} responses", step)
        for place, query in enumerate(queries):
            first = place - place % copies
            if not torch.equal(query.cpu(), queries[first].cpu()):
                raise InputError(groups, f"another query at {place} than at {first}", step)
        plain = [response.reshape(-1) if isinstance(response, Tensor) else response for response in responses]
        _check_tensors("responses", plain)
        numbers = [float(score) for score in scores]
        for place, number in enumerate(numbers):
            if not math.isfinite(number):
                raise InputError("finite scores", f"{number} at {place}", "leave such rows out")
        start = list(self.rules.prefix)  # of the decoder. EOS alone stays: BART starts with its EOS
        size = len(start)
        own = [row[size:] if len(row) > size and row[:size].tolist() == start else row for row in plain]
        return list(queries), own, numbers

    def record_rows(self, queries: list[Tensor], responses: list[Tensor], scores: list[float]) -> Rollout:
        """Scored responses as a part of a rollout."""
        prompts, padded = self._padded(queries), self._padded(responses)
        ids, mask = padded.ids, first_eos_mask(padded.ids, self.rules.eos_ids) & padded.mask
        ids = torch.where(mask, ids, self.rules.pad_id)
        ended = has_eos(ids, mask, self.rules.eos_ids)
        with self.accelerator.autocast():  # as the update encodes
            prompts = encode_prompts(self._wrapped.core, prompts)
        totals = less_eos_penalty(torch.tensor(scores, device=ids.device), ended, self.args.missing_eos_penalty)
        rollout: Rollout = self.record(prompts, Responses(ids, mask, ended), totals)
        return rollout

    def _padded(self, rows: list[Tensor]) -> EncodedPrompts:
        return padded_rows([row.to(self.args.device) for row in rows], self.rules.pad_id)

    def prepare_steps(self) -> None:
        """Model, optimizer and schedule, as the Trainer makes them in `train()`; once."""
        if self._prepared_optimizer is not None and self.optimizer is self._prepared_optimizer:
            return
        if self.state.global_step > 0:
            found = "step() after train(), whose schedule has ended"
            step = "make a new trainer with model=trainer.policy_model"
            raise InputError("step() in a trainer that has not run train()", found, step)
        constant = str(self.args.lr_scheduler_type).rpartition(".")[2].lower().startswith("constant")
        if self.args.max_steps <= 0 and not constant:
            expected = "max_steps, total_episodes with a train_dataset, or a constant schedule"
            expected += ": the learning rate falls to 0 over the steps to come"
            step = "set max_steps to the steps of your loop, or lr_scheduler_type='constant'"
            raise InputError(expected, "neither", step)
        align_special_tokens(self.model, self.processing_class)
        self.create_optimizer_and_scheduler(num_training_steps=self.args.max_steps)
        self.model_wrapped, self.optimizer = self.accelerator.prepare(self.model, self.optimizer)
        self._prepared_optimizer = self.optimizer

    def log_stats(self, stats: dict[str, Any], batch: dict[str, list[Any]], rewards: Sequence[float | Tensor]) -> None:
        """Logs statistics with `env/reward_mean` and `env/reward_std`; `log_completions` shows the batch, too."""
        values = [float(reward) for reward in rewards]
        spread = torch.tensor(values)
        own = {"env/reward_mean": spread.mean().item(), "env/reward_std": spread.std(correction=0).item()}
        self.log({**stats, **own})  # before the table: it is what opens a tracker
        if "query" in batch and "response" in batch:
            table = {"prompt": batch["query"], "completion": batch["response"], "reward": values}
            self.run_log.completions.log_batch(table, self.state.global_step)


def _check_tensors(role: str, rows: Sequence[Any]) -> None:
    """Refuses rows that are not 1-D tensors of token ids, or are empty."""
    for place, row in enumerate(rows):
        if not isinstance(row, Tensor) or row.dim() != 1 or len(row) == 0 or row.is_floating_point():
            found = f"{tuple(row.shape)} {row.dtype}" if isinstance(row, Tensor) else type(row).__name__
            expected = f"{role} as 1-D tensors of token ids, at least one each"
            raise InputError(expected, f"{found} at {place}", "pass a list of tensors")
