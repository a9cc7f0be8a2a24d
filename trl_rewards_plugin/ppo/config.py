"""Every knob of `Seq2SeqPPOTrainer`, once, beside its type, default and help.

Leaves out: knobs of the host that keep their meaning (they are inherited), and derived numbers (properties).
"""

import copy
import math
from collections.abc import Sized
from dataclasses import dataclass, field
from typing import Any, ClassVar, cast

import torch
from transformers import TrainingArguments

from trl_rewards_plugin.errors import InputError

ADVANTAGE_ESTIMATORS = ("gae", "rloo", "grpo", "reinforce")
ALARMS = ("kl", "entropy", "equal_responses", "unended_responses")

# What generation settings must be for softmax(logits / temperature) to be the sampled distribution.
NEUTRAL_GENERATION: dict[str, tuple[Any, ...]] = {
    "num_beams": (None, 1),
    "num_beam_groups": (None, 1),
    "do_sample": (None, True),
    "top_k": (None, 0),
    "top_p": (None, 1.0),
    "min_p": (None, 0.0),
    "typical_p": (None, 1.0),
    "epsilon_cutoff": (None, 0.0),
    "eta_cutoff": (None, 0.0),
    "repetition_penalty": (None, 1.0),
    "encoder_repetition_penalty": (None, 1.0),
    "no_repeat_ngram_size": (None, 0),
    "encoder_no_repeat_ngram_size": (None, 0),
    "length_penalty": (None, 1.0),
    "penalty_alpha": (None, 0.0),
    "guidance_scale": (None, 1.0),
    "forced_bos_token_id": (None,),
    "forced_eos_token_id": (None,),
    "bad_words_ids": (None,),
}
# Generation settings that have a field of their own here.
FIELD_INSTEAD = {
    "temperature": "temperature",
    "max_new_tokens": "response_length",
    "max_length": "response_length",
    "min_new_tokens": "min_new_tokens",
    "min_length": "min_new_tokens",
    "suppress_tokens": "suppress_tokens",
}


@dataclass
class Seq2SeqPPOConfig(TrainingArguments):
    """Arguments of `Seq2SeqPPOTrainer`: those of `transformers.TrainingArguments`, and PPO's.

    One step of the host is one rollout: `max_steps`, `logging_steps`, `eval_steps` and `save_steps` count rollouts
    of `rollout_batch_size` episodes. Names are those of TRL's `PPOConfig` where it has them.

    Raises:
        InputError: a setting that cannot be scored exactly, or numbers that do not fit together.
    """

    # Host defaults that differ, with the reason in the help.
    learning_rate: float = field(
        default=3e-6, metadata={"help": "Initial learning rate; the default is that of TRL's PPO."}
    )
    adam_epsilon: float = field(
        default=1e-5, metadata={"help": "Epsilon of Adam; 1e-5 as in the PPO papers (arXiv 2403.17031), not 1e-8."}
    )
    logging_steps: float = field(
        default=1, metadata={"help": "Log every so many rollouts; 1, because the reward of every rollout matters."}
    )
    bf16: bool | None = field(
        default=None,
        metadata={"help": "bfloat16 autocast. Unset: on where the GPU has it in hardware, else float32."},
    )
    dataloader_pin_memory: bool = field(
        default=False, metadata={"help": "Off: prompts are a few kilobytes, and the host warns without a GPU."}
    )
    remove_unused_columns: bool = field(
        default=False, metadata={"help": "Off, because columns of the dataset are passed to the rewards."}
    )
    logging_nan_inf_filter: bool = field(
        default=False, metadata={"help": "Off, because the host's default hides a loss that is NaN."}
    )
    dataloader_drop_last: bool = field(
        default=True, metadata={"help": "On, so that every rollout has `rollout_batch_size` episodes."}
    )

    # PPO, with TRL's names.
    total_episodes: int | None = field(
        default=None, metadata={"help": "Responses to train on. Unset: num_train_epochs x prompts x num_generations."}
    )
    num_ppo_epochs: int = field(default=4, metadata={"help": "Passes over each rollout."})
    num_mini_batches: int = field(default=1, metadata={"help": "Optimizer steps in one pass over a rollout."})
    response_length: int = field(default=53, metadata={"help": "Most tokens of a response, EOS included."})
    temperature: float = field(
        default=1.0,
        metadata={"help": "Sampling temperature; 1.0, so that sampling from the saved model is the trained policy."},
    )
    missing_eos_penalty: float | None = field(
        default=None, metadata={"help": "Subtracted from the score of a response that has no EOS. Positive."}
    )
    kl_coef: float = field(
        default=0.05, metadata={"help": "Weight of the KL penalty, in the token rewards or in the loss."}
    )
    kl_estimator: str = field(
        default="k1",
        metadata={
            "help": "k1 leads to the KL-regularised optimum; k3 (never negative), in the reward, does not; see kl.py.",
            "choices": ["k1", "k3"],
        },
    )
    use_kl_loss: bool = field(
        default=False,
        metadata={"help": "Put the KL penalty into the loss (as GRPO does, with k3) instead of the token rewards."},
    )
    cliprange: float = field(default=0.2, metadata={"help": "Clip range of the policy's ratio."})
    cliprange_value: float = field(default=0.2, metadata={"help": "Clip range of the value."})
    vf_coef: float = field(default=0.1, metadata={"help": "Weight of the value loss."})
    gamma: float = field(default=1.0, metadata={"help": "Discount factor."})
    lam: float = field(default=0.95, metadata={"help": "Lambda of generalised advantage estimation."})
    whiten_rewards: bool = field(default=False, metadata={"help": "Scale token rewards to variance 1, mean kept."})

    # Ours.
    advantage_estimator: str = field(
        default="gae",
        metadata={
            "help": "gae (PPO's, with a critic), or without a critic: reinforce (reward to go), rloo or grpo "
            "(against the other responses to the prompt); see ppo/maths/advantages.py.",
            "choices": list(ADVANTAGE_ESTIMATORS),
        },
    )
    num_generations: int = field(
        default=1, metadata={"help": "Responses to each prompt of a rollout; rloo and grpo compare at least 2."}
    )
    whiten_advantages: bool | None = field(
        default=None,
        metadata={
            "help": "Scale advantages to mean 0 and variance 1 over the rollout. Unset: on for gae and reinforce, "
            "off for rloo and grpo, which centre them by prompt."
        },
    )
    critic_learning_rate: float | None = field(
        default=None,
        metadata={
            "help": "Learning rate of the value head, which starts at 0 and has further to go than the policy. "
            "Unset: learning_rate."
        },
    )
    detach_value_head: bool = field(
        default=False, metadata={"help": "The value loss trains the value head alone and leaves the policy be."}
    )
    critic_warmup_steps: int = field(
        default=0, metadata={"help": "Rollouts at the start from which only the critic learns (arXiv 2307.04964)."}
    )
    freeze_encoder: bool = field(
        default=False,
        metadata={
            "help": "Train the decoder alone, with its cross-attention. What the encoder says of a prompt is then "
            "computed once a rollout; embeddings that it shares with the decoder stay as they are."
        },
    )
    num_layers_unfrozen: int | None = field(
        default=None,
        metadata={
            "help": "Train only the last so many layers of the decoder, what lies above them, and the value head; "
            "implies freeze_encoder. Unset: all layers."
        },
    )
    adaptive_kl: bool = field(default=False, metadata={"help": "Adapt the KL coefficient towards `kl_target`."})
    kl_target: float = field(default=6.0, metadata={"help": "Target of the adaptive KL, in nats a response."})
    kl_horizon: int = field(default=10_000, metadata={"help": "Horizon of the adaptive KL, in episodes."})
    early_stop_kl: float | None = field(
        default=None,
        metadata={
            "help": "End a rollout's update once the mean approximate KL to the old policy, in nats a token, "
            "is above this; the mini-batch that showed it is not learnt from."
        },
    )
    reward_weights: list[float] | None = field(
        default=None, metadata={"help": "One weight for each of `reward_funcs`. Unset: 1.0 each."}
    )
    min_new_tokens: int = field(default=0, metadata={"help": "EOS is not allowed before so many tokens."})
    max_prompt_length: int = field(
        default=512, metadata={"help": "Longer prompts are cut on the right; their share is logged."}
    )
    suppress_tokens: list[int] | None = field(default=None, metadata={"help": "Token ids that are never sampled."})
    top_k: int | None = field(
        default=None, metadata={"help": "Only 0 (off) is accepted: a truncated distribution cannot be scored."}
    )
    top_p: float | None = field(
        default=None, metadata={"help": "Only 1.0 (off) is accepted: a truncated distribution cannot be scored."}
    )
    generation_kwargs: dict[str, Any] | str | None = field(
        default=None, metadata={"help": "Further settings of rollouts; only neutral values can be scored exactly."}
    )
    max_kl: float | None = field(
        default=50.0,
        metadata={"help": "Alarm `kl` above this mean KL to the reference, in nats a response. None: no alarm."},
    )
    min_entropy: float | None = field(
        default=0.05, metadata={"help": "Alarm `entropy` below this mean entropy, in nats a token. None: no alarm."}
    )
    max_unended_share: float | None = field(
        default=0.95,
        metadata={"help": "Alarm `unended_responses` above this share of responses without EOS. None: no alarm."},
    )
    stop_on: list[str] | None = field(
        default=None,
        metadata={
            "help": "Alarms that stop the run instead of warning. Numbers that are not finite always stop it.",
            "choices": list(ALARMS),
        },
    )
    log_completions: bool = field(
        default=False,
        metadata={
            "help": "At every log print completions with their scores, and write them to completions/ and "
            "eval_completions/ in the output folder, one parquet file a step."
        },
    )
    num_completions_to_print: int | None = field(
        default=5, metadata={"help": "Completions to print, 0 for none; the files hold all. None prints all."}
    )
    eval_generation_kwargs: dict[str, Any] | str | None = field(
        default=None,
        metadata={"help": "Settings of `generate` during evaluation, any of them. Unset: sample as in training."},
    )

    _VALID_DICT_FIELDS: ClassVar[list[str]] = [
        *TrainingArguments._VALID_DICT_FIELDS,
        "generation_kwargs",
        "eval_generation_kwargs",
    ]

    def __post_init__(self) -> None:
        if self.fp16:
            raise InputError(
                "float32 or bf16",
                "fp16=True",
                "leave fp16 out: T5 overflows in it; bf16 is switched on by itself where the GPU has it",
            )
        if self.bf16 is None:
            self.bf16 = (
                not self.use_cpu
                and torch.cuda.is_available()
                and torch.cuda.is_bf16_supported(including_emulation=False)
            )
        if self.whiten_advantages is None:
            self.whiten_advantages = self.advantage_estimator in ("gae", "reinforce")
        super().__post_init__()
        self._check_ranges()
        self._check_estimator()
        self._check_generation()
        if self.local_batch_size % self.num_mini_batches:
            raise InputError(
                "num_mini_batches that divides this process's rollout "
                "(per_device_train_batch_size x gradient_accumulation_steps)",
                f"num_mini_batches={self.num_mini_batches} for {self.local_batch_size} episodes",
                f"choose num_mini_batches among the divisors of {self.local_batch_size}",
            )

    def _check_ranges(self) -> None:
        rules = [
            ("per_device_train_batch_size", self.per_device_train_batch_size >= 1, "at least 1"),
            ("temperature", self.temperature > 0, "above 0"),
            ("response_length", self.response_length >= 1, "at least 1"),
            ("max_prompt_length", self.max_prompt_length >= 1, "at least 1"),
            ("min_new_tokens", 0 <= self.min_new_tokens < self.response_length, "from 0 to below response_length"),
            ("num_ppo_epochs", self.num_ppo_epochs >= 1, "at least 1"),
            ("num_mini_batches", self.num_mini_batches >= 1, "at least 1"),
            ("total_episodes", self.total_episodes is None or self.total_episodes >= 1, "at least 1, or unset"),
            ("cliprange", self.cliprange > 0, "above 0"),
            ("cliprange_value", self.cliprange_value > 0, "above 0"),
            ("gamma", 0 <= self.gamma <= 1, "from 0 to 1"),
            ("lam", 0 <= self.lam <= 1, "from 0 to 1"),
            ("kl_coef", self.kl_coef >= 0, "0 or more"),
            ("kl_target", self.kl_target > 0, "above 0"),
            ("kl_horizon", self.kl_horizon >= self.batch_size, "of at least one rollout's episodes"),
            (
                "critic_learning_rate",
                self.critic_learning_rate is None or self.critic_learning_rate > 0,
                "above 0, or unset",
            ),
            ("vf_coef", self.vf_coef >= 0, "0 or more"),
            (
                "reward_weights",
                all(math.isfinite(weight) for weight in self.reward_weights or ()),
                "of finite numbers, or unset",
            ),
            (
                "max_steps",
                self.max_steps <= 0 or self.total_episodes is None,
                "unset where total_episodes is given: both say when to stop",
            ),
            (
                "advantage_estimator",
                self.advantage_estimator in ADVANTAGE_ESTIMATORS,
                f"one of {', '.join(ADVANTAGE_ESTIMATORS)}",
            ),
            ("num_generations", self.num_generations >= 1, "at least 1"),
            ("critic_warmup_steps", self.critic_warmup_steps >= 0, "0 or more"),
            (
                "num_layers_unfrozen",
                self.num_layers_unfrozen is None or self.num_layers_unfrozen >= 0,
                "0 or more, or unset",
            ),
            ("kl_estimator", self.kl_estimator in ("k1", "k3"), "'k1' or 'k3'"),
            (
                "missing_eos_penalty",
                self.missing_eos_penalty is None or self.missing_eos_penalty >= 0,
                "0 or more, or unset: it is subtracted",
            ),
            ("early_stop_kl", self.early_stop_kl is None or self.early_stop_kl > 0, "above 0, or unset"),
            ("max_kl", self.max_kl is None or self.max_kl > 0, "above 0, or None"),
            ("min_entropy", self.min_entropy is None or self.min_entropy > 0, "above 0, or None"),
            (
                "max_unended_share",
                self.max_unended_share is None or 0 <= self.max_unended_share < 1,
                "from 0 to below 1, or None",
            ),
            ("stop_on", set(self.stop_on or ()) <= set(ALARMS), f"of names among {', '.join(ALARMS)}"),
            (
                "num_completions_to_print",
                self.num_completions_to_print is None or self.num_completions_to_print >= 0,
                "0 or more, or None for all",
            ),
        ]
        for name, holds, expected in rules:
            if not holds:
                raise InputError(f"{name} {expected}", f"{name}={getattr(self, name)!r}", f"change {name}")

    def _check_estimator(self) -> None:
        """Refuses settings that the advantage estimator would ignore, or that teach nothing."""
        compares = self.advantage_estimator in ("rloo", "grpo")
        rules = [
            ("num_generations", not compares or self.num_generations >= 2, "at least 2 for rloo and grpo"),
            (
                "num_generations",
                self.per_device_train_batch_size % self.num_generations == 0,
                f"that divides per_device_train_batch_size ({self.per_device_train_batch_size} responses)",
            ),
            ("gamma", not compares or self.gamma == 1, "1 for rloo and grpo, which judge whole responses"),
            (
                "kl_estimator",
                not self.use_kl_loss or self.kl_estimator == "k3",
                "'k3' with use_kl_loss: the gradient of k1 is 0 on average, so in the loss it teaches nothing",
            ),
        ]
        if not self.has_critic:
            none = f"unset: {self.advantage_estimator} has no critic"
            rules += [
                ("critic_learning_rate", self.critic_learning_rate is None, none),
                ("detach_value_head", not self.detach_value_head, none),
                ("critic_warmup_steps", self.critic_warmup_steps == 0, none),
            ]
        for name, holds, expected in rules:
            if not holds:
                raise InputError(f"{name} {expected}", f"{name}={getattr(self, name)!r}", f"change {name}")

    def _check_generation(self) -> None:
        """Refuses by name what would make the sampled policy differ from the scored one."""
        for name in ("generation_kwargs", "eval_generation_kwargs"):
            if not isinstance(getattr(self, name), dict | None):
                raise InputError(f"{name} as a mapping", repr(getattr(self, name)), 'write for example {"top_k": 0}')
        asked = {**cast(dict[str, Any], self.generation_kwargs or {}), "top_k": self.top_k, "top_p": self.top_p}
        for name, value in asked.items():
            if name in FIELD_INSTEAD:
                raise InputError(
                    f"{FIELD_INSTEAD[name]} as a field of the config",
                    f"generation_kwargs with {name}={value!r}",
                    f"set Seq2SeqPPOConfig({FIELD_INSTEAD[name]}=...) instead",
                )
            if name not in NEUTRAL_GENERATION:
                raise InputError(
                    "generation settings known to leave the sampled distribution as it is",
                    f"{name}={value!r}",
                    f"leave {name} out; evaluation may use it through eval_generation_kwargs",
                )
            if value not in NEUTRAL_GENERATION[name]:
                raise InputError(
                    f"{name} left out or neutral ({NEUTRAL_GENERATION[name][-1]!r}), because PPO must score the "
                    "very distribution that it samples from",
                    f"{name}={value!r}",
                    f"leave {name} out; to sharpen sampling lower `temperature`; evaluation may use {name} "
                    "through eval_generation_kwargs",
                )

    @property
    def has_critic(self) -> bool:
        """Whether the advantage estimator needs values."""
        return self.advantage_estimator == "gae"

    @property
    def frozen_encoder(self) -> bool:
        """Whether the encoder is left as it is, by either setting that says so."""
        return self.freeze_encoder or self.num_layers_unfrozen is not None

    @property
    def prompts_per_rollout(self) -> int:
        """Prompts of a rollout on all processes; each gets `num_generations` responses."""
        return self.batch_size // self.num_generations

    # TRL's names for derived numbers, here read-only.
    @property
    def micro_batch_size(self) -> int:
        """Episodes that one process generates and scores at a time."""
        return int(self.per_device_train_batch_size)

    @property
    def local_batch_size(self) -> int:
        """Episodes of a rollout on one process."""
        return int(self.per_device_train_batch_size * self.gradient_accumulation_steps)

    @property
    def batch_size(self) -> int:
        """Episodes of a rollout on all processes."""
        return self.local_batch_size * int(self.world_size)

    rollout_batch_size = batch_size

    @property
    def local_mini_batch_size(self) -> int:
        """Episodes of one optimizer step on one process."""
        return self.local_batch_size // self.num_mini_batches

    @property
    def mini_batch_size(self) -> int:
        """Episodes of one optimizer step on all processes."""
        return self.batch_size // self.num_mini_batches

    @property
    def num_total_batches(self) -> int | None:
        """Rollouts that `total_episodes` makes; None while it is unset."""
        return None if self.total_episodes is None else math.ceil(self.total_episodes / self.batch_size)


def with_max_steps(args: Seq2SeqPPOConfig, train_dataset: Sized | None) -> Seq2SeqPPOConfig:
    """A copy of the arguments in which `max_steps` counts the rollouts; the caller's own stays as it is."""
    args = copy.copy(args)
    if args.data_seed is None:
        # Else the order would hang on torch's random state, which differs between processes and between callers.
        args.data_seed = args.seed
    if args.max_steps <= 0 and train_dataset is not None:
        episodes = args.total_episodes or args.num_train_epochs * len(train_dataset) * args.num_generations
        args.max_steps = math.ceil(episodes / args.batch_size)
    return args
