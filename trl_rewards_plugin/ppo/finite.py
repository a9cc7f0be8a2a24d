"""Numbers that are not finite: found before the optimizer step, so that the weights stay good, and told with a place.

Leaves out: rewards, which scoring.py checks one by one, and numbers that are finite but bad (alarms.py).
"""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from trl_rewards_plugin.ppo.rollout import Rollout

POLICY_CAUSE = (
    "the policy's weights have run away (resume from the last checkpoint with a lower learning_rate), or its "
    "checkpoint was damaged"
)
CAUSES = {
    "scores": "a reward, or the penalty for a missing EOS, is not finite",
    "logprobs": POLICY_CAUSE,
    "entropies": POLICY_CAUSE,
    "ref_logprobs": "the reference model's weights are damaged, or it does not know a token that the policy sampled",
    "values": "the critic has run away: resume from the last checkpoint with a lower critic_learning_rate or vf_coef",
}


class NotFiniteError(FloatingPointError):
    """A number of the training is NaN or infinite.

    Attributes:
        row: the response of the rollout that shows it, where one can be told.
    """

    def __init__(self, message: str, row: int | None = None):
        super().__init__(message)
        self.row = row


def check_sampling(broken: Tensor, rows: Tensor) -> None:
    """Refuses a policy that gave the sampler NaN.

    Args:
        broken: (M,) bool, True where a response has had such a token.
        rows: (M,) the responses' row numbers.

    Raises:
        NotFiniteError: with the first such row.
    """
    if broken.any():
        raise NotFiniteError(
            f"the policy's logits are not finite. Likely cause: {POLICY_CAUSE}", int(rows[int(broken.nonzero()[0])])
        )


def check_rollout(rollout: Rollout) -> None:
    """Refuses a rollout with a number that is not finite on a real token.

    Raises:
        NotFiniteError: the field, its likely cause, and the row.
    """
    bad = torch.stack([_broken_rows(getattr(rollout, name), rollout.response_mask) for name in CAUSES]).cpu()
    for (name, cause), rows in zip(CAUSES.items(), bad, strict=True):
        if rows.any():
            raise NotFiniteError(
                f"{name} of the rollout are not finite. Likely cause: {cause}", int(rows.nonzero()[0])
            )


def _broken_rows(values: Tensor, mask: Tensor) -> Tensor:
    """(B,) bool: whether values (B,), or those of (B, T) where the mask is True, are not finite."""
    bad = ~torch.isfinite(values)
    return (bad & mask).any(dim=1) if values.dim() == 2 else bad


def gradient_norm(model: nn.Module, reduce: Callable[[Tensor], Tensor] = lambda sums: sums) -> Tensor:
    """Norm of the gradients, 0-d; 0 without gradients (DeepSpeed keeps its own).

    Args:
        reduce: sums over processes, so that all of them see what is not finite in one.
    """
    gradients = [weight.grad for weight in model.parameters() if weight.grad is not None]
    if not gradients:
        return torch.zeros((), device=next(model.parameters()).device)
    norm = torch.nn.utils.get_total_norm(gradients)
    if isinstance(norm, DTensor):  # FSDP spreads every gradient over the processes
        norm = norm.full_tensor()
    return reduce(norm.float())


def check_gradients(model: nn.Module, norm: float) -> None:
    """Refuses gradients that are not finite.

    Args:
        norm: their `gradient_norm`.

    Raises:
        NotFiniteError: with the name of a parameter.
    """
    if math.isfinite(norm):
        return
    gradients = {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}
    bad = [name for name, gradient in gradients.items() if not bool(torch.isfinite(gradient).all())]
    of = f"of {bad[0]} and {len(bad) - 1} more parameters " if bad else "(its norm overflows) "
    raise NotFiniteError(
        f"the gradient {of}is not finite. Likely cause: learning_rate or the scale of the rewards is too high"
    )


def most_extreme_row(rollout: Rollout, returns: Tensor) -> int:
    """The response of a rollout with the return (B, T) furthest from 0: the likeliest to blow up a loss."""
    sizes = torch.where(rollout.response_mask, returns.abs(), torch.zeros_like(returns))
    return int(sizes.nan_to_num(nan=torch.inf).amax(dim=1).argmax())


class told_with_place(AbstractContextManager[Any]):
    """Adds the step and a prompt to what is raised within about numbers that are not finite. May be entered again.

    Args:
        step: the running step, counted from 1.
        prompt_of: row of the rollout -> its prompt, shown.
        suspect: the row to name where the error names none.
    """

    def __init__(self, step: int, prompt_of: Callable[[int], str], suspect: Callable[[], int] = lambda: 0):
        self.step = step
        self.prompt_of = prompt_of
        self.suspect = suspect

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, FloatingPointError):
            row = getattr(error, "row", None)
            row = self.suspect() if row is None else row
            raise NotFiniteError(
                f"step {self.step}: {error}. Seen at the prompt {self.prompt_of(row)}. The optimizer step was not "
                "taken; the last checkpoint is good",
                row,
            ) from error
