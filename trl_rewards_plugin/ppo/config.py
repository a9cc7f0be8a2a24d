"""Every setting of `Seq2SeqPPOTrainer` that transformers' Trainer lacks or means otherwise, with its rule and help."""

# ruff: noqa: RUF009  (`option` returns a dataclass field)
import math
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import torch
from transformers import TrainingArguments

from trl_rewards_plugin.errors import did_you_mean, refusing_unknown
from trl_rewards_plugin.options import option
from trl_rewards_plugin.ppo import config_rules as rules
from trl_rewards_plugin.ppo.checks.inherited_settings import check_inherited, check_prepared
from trl_rewards_plugin.ppo.config_rules import ALARMS, DerivedSettings, check_fields, check_together
from trl_rewards_plugin.ppo.maths import methods
from trl_rewards_plugin.ppo.maths.methods import ESTIMATORS, KL_ESTIMATORS, LABELS, OBJECTIVES


def _listed(table: dict[str, Any]) -> str:
    return ", ".join(f"{name} ({one.summary})" for name, one in table.items())


def instead_of(name: str) -> str:
    """The next step for a `name` that is no setting."""
    known = [field.name for field in fields(Seq2SeqPPOConfig) if field.init]
    return rules.HINTS.get(name, f"{did_you_mean(name, known)}see help(Seq2SeqPPOConfig)").replace("{}", "")


@refusing_unknown(instead_of)
@dataclass
class Seq2SeqPPOConfig(TrainingArguments, DerivedSettings):
    """Arguments of `Seq2SeqPPOTrainer`: those of `transformers.TrainingArguments`, and PPO's.

    One step of the Trainer is one rollout: `max_steps`, `logging_steps`, `eval_steps` and `save_steps` count rollouts
    of `rollout_batch_size` episodes. Names are those of TRL's `PPOConfig` where it has them.

    Raises:
        InputError: a setting that cannot be scored exactly, or numbers that do not fit together.
    """

    # Defaults of transformers' Trainer that differ, with the reason in the help.
    learning_rate: rules.NotNegative = option(3e-6, "Initial learning rate; the default is that of TRL's PPO.")
    adam_epsilon: float = option(1e-5, "Epsilon of Adam; 1e-5 as in the PPO papers (arXiv 2403.17031), not 1e-8.")
    logging_steps: float = option(1, "Log every N rollouts; 1, because the reward of every rollout matters.")
    bf16: bool | None = option(None, "bfloat16 autocast. Unset: on if the GPU supports it in hardware, else float32.")
    dataloader_pin_memory: bool = option(
        False, "Off: prompts are a few kilobytes, and the Trainer warns without a GPU."
    )
    remove_unused_columns: bool = option(False, "Off, because columns of the dataset are passed to the rewards.")
    logging_nan_inf_filter: bool = option(False, "Off, because the Trainer's default hides a loss that is NaN.")
    dataloader_drop_last: bool = option(True, "On, so that every rollout has `rollout_batch_size` episodes.")

    # Those of its settings that have a rule here.
    per_device_train_batch_size: rules.Count = option(8, "Responses that each process samples and scores at a time.")
    num_train_epochs: rules.Positive = option(3.0, "Passes over the prompts.")
    gradient_accumulation_steps: rules.Count = option(1, "Batches of responses that each process adds to a rollout.")
    warmup_steps: rules.NotNegative = option(0, "Rollouts of linear warm-up; below 1, their share of all.")
    max_steps: rules.Rollouts = option(-1, "Rollouts to train on, instead of num_train_epochs. -1: unset.")

    # What is learnt; then PPO, with TRL's names.
    objective: str = option(
        "ppo", f"{_listed(OBJECTIVES)}; what each converges to: ppo/maths/objectives.py.", choices=list(OBJECTIVES)
    )
    total_episodes: rules.CountOrNone = option(
        None, "Responses to train on. Unset: num_train_epochs x prompts x num_generations."
    )
    num_ppo_epochs: rules.Count = option(4, "Passes over each rollout.")
    num_mini_batches: rules.Count = option(1, "Optimizer steps in one pass over a rollout.")
    response_length: rules.Count = option(53, "Maximum tokens of a response, EOS included.")
    temperature: rules.Positive = option(
        1.0, "Sampling temperature; 1.0, so that sampling from the saved model reproduces the trained policy."
    )
    missing_eos_penalty: rules.Penalty = option(
        None, "Subtracted from the score of a response that has no EOS. Positive."
    )
    kl_coef: rules.NotNegativeOrNone = option(
        None,
        "Weight of the KL penalty, in the token rewards (by which raft ranks) or in the loss. "
        "Unset: 0.05, and 0 for dpo, where beta is the weight.",
    )
    kl_estimator: str = option("k1", f"{_listed(KL_ESTIMATORS)}; see maths/kl.py.", choices=list(KL_ESTIMATORS))
    use_kl_loss: bool = option(
        False, "Put the KL penalty into the loss (as GRPO does, with k3) instead of the token rewards."
    )
    cliprange: rules.Positive = option(0.2, "Clip range of the policy's ratio.")
    cliprange_high: rules.PositiveOrNone = option(None, "Clip range above 1, as in DAPO with 0.28. Unset: cliprange.")
    cliprange_value: rules.Positive = option(0.2, "Clip range of the value.")
    vf_coef: rules.NotNegative = option(0.1, "Weight of the value loss.")
    gamma: rules.Fraction = option(1.0, "Discount factor.")
    lam: rules.Fraction = option(0.95, "Lambda of generalised advantage estimation.")
    whiten_rewards: bool = option(False, "Scale token rewards to variance 1, mean kept.")

    # With the names of TRL's GRPOConfig.
    scale_rewards: str = option(
        "group",
        "Which standard deviation grpo divides by: the group's, the batch's or none.",
        choices=["group", "batch", "none"],
    )
    multi_objective_aggregation: str = option(
        "sum_then_normalize",
        "normalize_then_sum (GDPO): each reward in its group's deviations, in which kl_coef and missing_eos_penalty "
        "count, too; then by batch.",
        choices=["sum_then_normalize", "normalize_then_sum"],
    )
    loss_type: str = option(
        "dapo",
        "Policy and KL loss: mean over tokens (dapo), or mean of per-response means (grpo).",
        choices=["dapo", "grpo"],
    )
    mask_truncated_completions: bool = option(False, "Responses without EOS count in the baseline, not in the loss.")
    entropy_coef: rules.NotNegative = option(0.0, "Weight of an entropy bonus in the loss, per token.")

    # Ours.
    beta: rules.Positive = option(0.1, "Weight of the KL to the reference in dpo, TRL's name and default.")
    dpo_labels: str = option(
        "bradley_terry",
        "Which response dpo prefers: the best with probability sigmoid(difference of the scores), which leads to the "
        "KL-regularised optimum at beta, or always (hard), as in TRL, which leads to the best response alone.",
        choices=list(LABELS),
    )
    sft_coef: rules.NotNegative = option(
        0.0,
        "Weight of the language-model term added to the loss: the cross-entropy of a prompt's reference text, in nats "
        "per token (PPO-ptx, arXiv 2203.02155). 0: none.",
    )
    sft_column: str = option(
        "reference",
        "Column of the training data with the reference texts for sft_coef; truncated to response_length tokens.",
    )
    advantage_estimator: str = option(
        "gae", f"{_listed(ESTIMATORS)}; see ppo/maths/advantages.py.", choices=list(ESTIMATORS)
    )
    num_generations: rules.Count = option(
        1, f"Responses to each prompt of a rollout; at least 2 for {methods.NEED_SEVERAL}."
    )
    whiten_advantages: bool | None = option(
        None,
        f"Scale advantages to mean 0 and variance 1 over the rollout. Unset: on for {methods.WHITENING}, "
        f"off for {methods.COMPARING}, which centre them by prompt.",
    )
    critic_learning_rate: rules.PositiveOrNone = option(
        None,
        "Learning rate of the value head, which starts at 0 and has further to go than the policy. "
        "Unset: learning_rate.",
    )
    detach_value_head: bool = option(False, "Let the value loss train only the value head, not the policy.")
    critic_warmup_steps: rules.CountOrZero = option(
        0, "Rollouts at the start from which only the critic learns (arXiv 2307.04964)."
    )
    freeze_encoder: bool = option(
        False,
        "Train the decoder alone, with its cross-attention. A prompt's encoder states are then "
        "computed once per rollout; embeddings that it shares with the decoder stay as they are.",
    )
    num_layers_unfrozen: rules.CountZeroOrNone = option(
        None,
        "Train only the last N layers of the decoder, what lies above them, and the value head; "
        "implies freeze_encoder. Unset: all layers.",
    )
    adaptive_kl: bool = option(False, "Adapt the KL coefficient towards `kl_target`.")
    kl_target: rules.Positive = option(6.0, "Target of the adaptive KL, in nats per response.")
    kl_horizon: rules.Count = option(10_000, "Horizon of the adaptive KL, in episodes.")
    early_stop_kl: rules.PositiveOrNone = option(
        None,
        "End a rollout's update once the mean approximate KL to the old policy, in nats per token, "
        "is above this; the mini-batch that showed it is discarded.",
    )
    reward_weights: rules.Weights = option(None, "One weight for each of `reward_funcs`. Unset: 1.0 each.")
    min_new_tokens: rules.CountOrZero = option(0, "EOS is not allowed before this many tokens.")
    max_prompt_length: rules.Count = option(512, "Longer prompts are cut on the right; their share is logged.")
    suppress_tokens: list[int] | None = option(None, "Token ids that are never sampled.")
    top_k: int | None = option(None, "Only 0 (off) is accepted: a truncated distribution cannot be scored.")
    top_p: float | None = option(None, "Only 1.0 (off) is accepted: a truncated distribution cannot be scored.")
    generation_kwargs: dict[str, Any] | str | None = option(
        None, "Further generation settings for rollouts; only neutral values can be scored exactly."
    )
    max_kl: rules.PositiveOrNone = option(
        50.0, "Alarm `kl` above this mean KL to the reference, in nats per response. None: no alarm."
    )
    min_entropy: rules.PositiveOrNone = option(
        0.05, "Alarm `entropy` below this mean entropy, in nats per token. None: no alarm."
    )
    max_unended_share: rules.Share = option(
        0.95, "Alarm `unended_responses` above this share of responses without EOS. None: no alarm."
    )
    stop_on: list[str] | None = option(
        None,
        "Alarms that stop the run instead of warning. Non-finite numbers always stop it.",
        choices=list(ALARMS),
    )
    cuda_graphs: bool | None = option(
        None, "Replay sampling and update as CUDA graphs, which changes no number. Unset: wherever possible."
    )
    log_completions: bool = option(
        False,
        "At every log, print completions with their scores and write them to completions/ and "
        "eval_completions/ in the output folder, one parquet file per step.",
    )
    num_completions_to_print: rules.CountZeroOrNone = option(
        5, "Completions to print, 0 for none; the files hold all. None prints all."
    )
    eval_generation_kwargs: dict[str, Any] | str | None = option(
        None, "Settings for `generate` during evaluation; all are allowed. Unset: sample as in training."
    )

    _VALID_DICT_FIELDS: ClassVar[list[str]] = [
        *TrainingArguments._VALID_DICT_FIELDS,
        "generation_kwargs",
        "eval_generation_kwargs",
    ]

    def __post_init__(self) -> None:
        self.bf16_by_itself = False
        if self.bf16 is None:
            on_gpu = not self.use_cpu and torch.cuda.is_available()
            self.bf16 = self.bf16_by_itself = on_gpu and torch.cuda.is_bf16_supported(including_emulation=False)
        check_fields(self, Seq2SeqPPOConfig)
        check_inherited(self)
        super().__post_init__()
        check_prepared(self)
        check_together(self, Seq2SeqPPOConfig)


def count_rollouts(args: Seq2SeqPPOConfig, prompts: int) -> int:
    """Rollouts of training on this many prompts."""
    if args.max_steps > 0:
        return int(args.max_steps)
    episodes = args.total_episodes or args.num_train_epochs * prompts * args.num_generations
    return math.ceil(episodes / args.batch_size)
