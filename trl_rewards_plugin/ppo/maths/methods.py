"""The tables of methods: estimators of advantages and of the KL, and objectives; needs no torch.

Config choices, rules, help, messages and the update are made from them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

from trl_rewards_plugin.text import listed

if TYPE_CHECKING:
    from torch import Tensor


def _function(module: str, name: str) -> Callable[..., Any]:
    """The function of that name in a module beside this one, which is imported only now."""
    return cast(Callable[..., Any], getattr(import_module(f"trl_rewards_plugin.ppo.maths.{module}"), name))


@dataclass(frozen=True)
class Estimator:
    """One line of the table of advantages."""

    name: str  # of `function`, in advantages.py
    summary: str  # for `--help`
    needs_critic: bool = False  # it reads values
    compares_responses: bool = False  # it judges whole responses against the others to the same prompt
    whitens_by_default: bool = False  # `whiten_advantages` where that is unset
    scales: bool = False  # it takes `scale_rewards` and `reduce`, too

    # rewards (B, T), values (B, T), mask (B, T), gamma, lam -> advantages and returns, where it needs a critic;
    # totals (B,), num_generations -> (B,), where it compares responses;
    # rewards (B, T), mask (B, T), gamma -> (B, T), otherwise.
    @property
    def function(self) -> Callable[..., Any]:
        return _function("advantages", self.name)


ESTIMATORS = {
    "gae": Estimator("gae", "PPO's, with a critic", needs_critic=True, whitens_by_default=True),
    "rloo": Estimator("leave_one_out", "against the mean of the prompt's other responses", compares_responses=True),
    "grpo": Estimator(
        "group_relative", "against the prompt's responses, scaled", compares_responses=True, scales=True
    ),
    "reinforce": Estimator("reward_to_go", "reward to go, without a critic", whitens_by_default=True),
}


def names_of(condition: Callable[[Estimator], bool]) -> str:
    """The estimators that meet a condition, as a list for people: "rloo and grpo"."""
    return listed([name for name, estimator in ESTIMATORS.items() if condition(estimator)])


@dataclass(frozen=True)
class KLEstimator:
    """One line of the table: `function` gives what sampled tokens are charged of their log-ratios, (B, T) both."""

    summary: str  # for `--help`
    function: "Callable[[Tensor], Tensor]"
    in_loss: bool = True  # whether it can be in the loss: its gradient is one of a divergence
    exact: bool = False  # whether the vocabulary is summed over


KL_ESTIMATORS = {
    "k1": KLEstimator("log-ratio of the sampled token: leads to the optimum", lambda ratio: ratio, in_loss=False),
    "k3": KLEstimator("never negative; in the reward it leads elsewhere", lambda ratio: (-ratio).expm1() + ratio),
    "full": KLEstimator("of the whole vocabulary: k1's optimum in fewer rollouts", lambda ratio: ratio, exact=True),
}


@dataclass(frozen=True)
class Objective:
    """One line of the table of objectives.

    In place of advantages an objective that ranks has marks: of totals (B,) and num_generations `mark` makes numbers
    (B,) that are not 0 where a response is learnt from.
    """

    summary: str  # for `--help`
    mark_name: str | None = None  # of `mark`, in objectives.py; None: all responses are learnt from
    responses_per_prompt: int = 1  # that are learnt from, together in one mini-batch
    unused: tuple[str, ...] = ()  # settings that it does not read, refused where they are not at their default

    @property
    def mark(self) -> Callable[..., Any] | None:
        return None if self.mark_name is None else _function("objectives", self.mark_name)


LABELS = ("bradley_terry", "hard")
_ADVANTAGES = (
    *("advantage_estimator", "gamma", "lam", "whiten_rewards", "whiten_advantages", "cliprange", "cliprange_value"),
    *("vf_coef", "critic_learning_rate", "detach_value_head", "critic_warmup_steps", "cliprange_high", "loss_type"),
    *("mask_truncated_completions", "scale_rewards", "multi_objective_aggregation"),
)
_PAIRS = ("beta", "dpo_labels")
OBJECTIVES = {
    "ppo": Objective("clipped, by advantages", unused=_PAIRS),
    "raft": Objective(
        "maximum likelihood of a prompt's best response, arXiv 2304.06767", "mark_best", unused=_ADVANTAGES + _PAIRS
    ),
    "dpo": Objective(
        "a prompt's best response against its worst, arXiv 2305.18290",
        "mark_best_and_worst",
        responses_per_prompt=2,
        unused=(*_ADVANTAGES, "kl_coef", "use_kl_loss", "kl_estimator", "adaptive_kl", "kl_target", "kl_horizon"),
    ),
}

# For people, in help and messages.
RANKING = listed([name for name, objective in OBJECTIVES.items() if objective.mark_name is not None])
COMPARING = names_of(lambda estimator: estimator.compares_responses)
SCALING = names_of(lambda estimator: estimator.scales)
WHITENING = names_of(lambda estimator: estimator.whitens_by_default)
NEED_SEVERAL = f"{COMPARING}, and for {RANKING}"
