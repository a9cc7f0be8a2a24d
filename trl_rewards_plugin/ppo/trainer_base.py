"""What transformers' Trainer must know around the steps of PPO: whole rollouts, two learning rates, progress."""

import copy
import logging
from collections.abc import Iterator, Sized
from contextlib import contextmanager
from typing import Any

import torch
from datasets import Dataset
from torch import nn
from torch.utils.data import RandomSampler, SequentialSampler
from transformers import TrainerControl

from trl_rewards_plugin.ppo.checkpoints.restartable_trainer import RestartableTrainer
from trl_rewards_plugin.ppo.checks import trainable
from trl_rewards_plugin.ppo.checks.inherited_settings import WithoutRefusedMethods
from trl_rewards_plugin.ppo.config import Seq2SeqPPOConfig, count_rollouts
from trl_rewards_plugin.ppo.distributed import Framework
from trl_rewards_plugin.ppo.rollout import Rollout
from trl_rewards_plugin.terminal import say

_logger = logging.getLogger(__name__)


class RolloutTrainer(WithoutRefusedMethods, RestartableTrainer):
    """A Trainer whose every step is one rollout."""

    args: Seq2SeqPPOConfig
    control: TrainerControl
    _own_reference = False  # made from the policy, not passed by the user
    _has_learned = False
    _gradients_seen = False

    def before_update(self, rollout: Rollout) -> None:
        """Refuses the first update of a policy that its reference was not made from."""
        if self._own_reference and not self._has_learned and self._resumed_from is None:
            in_bfloat16 = self.args.bf16 or self._wrapped.core.dtype == torch.bfloat16
            reduce = self.framework(self.model_wrapped).reduce
            trainable.check_same_start(rollout, torch.bfloat16 if in_bfloat16 else torch.float32, reduce)
        if self._trainer_loads and not self._has_learned and self.is_world_process_zero():
            _logger.warning(
                "the weights are sharded: the saved model is not compared with the trained one%s",
                ", nor is each trained part checked for a gradient" if self.is_deepspeed_enabled else "",
            )
        self._has_learned = True

    def after_update(self) -> None:
        """Stops a run in which a part that should learn got no gradient; before the last optimizer step."""
        if not self._gradients_seen and self.state.global_step >= self.args.critic_warmup_steps:
            self._gradients_seen = trainable.check_gradients_arrive(self._wrapped)

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Any:
        """The Trainer's sampler, over as many prompts an epoch as make whole rollouts."""
        sampler = super()._get_train_sampler(train_dataset)
        rows = len(sampler) - len(sampler) % self.args.prompts_per_rollout
        if isinstance(sampler, RandomSampler):
            return RandomSampler(sampler.data_source, num_samples=rows)
        return SequentialSampler(range(rows)) if isinstance(sampler, SequentialSampler) else sampler

    def _get_dataloader(self, *args: Any, **kwargs: Any) -> Any:
        """The Trainer's; in training a batch of responses needs `num_generations` times fewer prompts."""
        if kwargs.get("is_training"):
            kwargs["batch_size"] //= self.args.num_generations
        return super()._get_dataloader(*args, **kwargs)

    def create_optimizer(self, *args: Any) -> torch.optim.Optimizer:
        """The Trainer's optimizer, with the critic in a group of its own where it has its own learning rate."""
        is_new, rate = self.optimizer is None, self.args.critic_learning_rate
        self._made_optimizer |= is_new
        optimizer: torch.optim.Optimizer = super().create_optimizer(*args)
        if is_new and rate is not None:
            critic = {parameter for part in self._wrapped.critic_parts().values() for parameter in part.parameters()}
            for group in list(optimizer.param_groups):
                if own := [parameter for parameter in group["params"] if parameter in critic]:
                    group["params"] = [parameter for parameter in group["params"] if parameter not in critic]
                    optimizer.add_param_group({**group, "params": own, "lr": rate})
        elif not is_new and not self._trainer_loads and not self._has_learned:
            trainable.add_to_optimizer(optimizer, self._wrapped, rate)
        if self.is_world_process_zero() and not self._has_learned:
            say(trainable.what_learns(self._wrapped))
        return optimizer

    def framework(self, model: nn.Module) -> Framework:
        """What the update of a prepared model needs of the Trainer."""
        return Framework(self.accelerator, model, self.optimizer, self.args.max_grad_norm)


@contextmanager
def unchanged_use_cache(config: Any) -> Iterator[None]:
    """The Trainer turns `use_cache` off (or adds it, where encoder and decoder have their own); it would be saved."""
    use_cache = getattr(config, "use_cache", None)
    yield
    if use_cache is None:
        del config.use_cache
    else:
        config.use_cache = use_cache


def with_max_steps(args: Seq2SeqPPOConfig, train_dataset: Sized | None) -> Seq2SeqPPOConfig:
    """A copy of the arguments in which `max_steps` counts the rollouts; the caller's own stays as it is."""
    args = copy.copy(args)
    if args.data_seed is None:  # else the order would depend on torch's random state, of this process and the caller
        args.data_seed = args.seed
    if train_dataset is not None:
        args.max_steps = count_rollouts(args, len(train_dataset))
    return args
