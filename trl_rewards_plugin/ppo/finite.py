"""Non-finite numbers (NaN, infinity): found before the optimizer step, reported with the step and the prompt."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from trl_rewards_plugin.ppo.maths.masking import Reduce, alone
from trl_rewards_plugin.ppo.rollout import Rollout

_LOWER = "resume from the last checkpoint with a lower"
_DIVERGED = f"the policy's weights have diverged ({_LOWER} learning_rate), or its checkpoint was damaged"
_CAUSES = {
    "scores": "a reward, or the penalty for a missing EOS, is not finite",
    "logprobs": _DIVERGED,
    "entropies": _DIVERGED,
    "ref_logprobs": "the reference model's weights are damaged, or it does not know a token that the policy sampled",
    "values": f"the critic has diverged: {_LOWER} critic_learning_rate or vf_coef",
}


class NotFiniteError(FloatingPointError):
    """A number in training is NaN or infinite; `row` is the response of the rollout that shows it, where known."""

    def __init__(self, message: str, row: int | None = None):
        super().__init__(message)
        self.row = row


def check_sampling(broken: Tensor, rows: Tensor) -> None:
    """Refuses a policy whose logits gave the sampler NaN: `broken` (M,) bool, of the responses `rows` (M,)."""
    if broken.any():
        row = int(rows[int(broken.nonzero()[0])])
        raise NotFiniteError(f"the policy's logits are not finite. Likely cause: {_DIVERGED}", row)


def check_rollout(rollout: Rollout) -> None:
    """Refuses a rollout with a non-finite number on a real token: names the field, its likely cause, and the row."""
    found = [~torch.isfinite(getattr(rollout, name)) for name in _CAUSES]
    broken = [(bad & rollout.response_mask).any(dim=1) if bad.dim() == 2 else bad for bad in found]
    for (name, cause), rows in zip(_CAUSES.items(), torch.stack(broken).cpu(), strict=True):
        if rows.any():
            message = f"{name} of the rollout are not finite. Likely cause: {cause}"
            raise NotFiniteError(message, int(rows.nonzero()[0]))


def gradient_norm(model: nn.Module, reduce: Reduce = alone) -> Tensor:
    """Norm of the gradients, 0-d, over processes so that all see what is non-finite in one; 0 where none are kept."""
    gradients = [weight.grad for weight in model.parameters() if weight.grad is not None]
    if not gradients:
        return torch.zeros((), device=next(model.parameters()).device)
    norm = torch.nn.utils.get_total_norm(gradients)
    if isinstance(norm, DTensor):  # FSDP shards every gradient over the processes
        norm = norm.full_tensor()
    return reduce(norm.float())


def check_gradients(model: nn.Module, norm: float) -> None:
    """Refuses non-finite gradients, whose `gradient_norm` is given; names a parameter."""
    if math.isfinite(norm):
        return
    gradients = {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}
    bad = [name for name, gradient in gradients.items() if not bool(torch.isfinite(gradient).all())]
    of = f"of {bad[0]} and {len(bad) - 1} more parameters " if bad else "(its norm overflows) "
    if not bad and math.isnan(norm):  # read after the update, when that mini-batch's gradients are gone
        of = "of a mini-batch "
    cause = "learning_rate or the scale of the rewards is too high"
    raise NotFiniteError(f"the gradient {of}is not finite. Likely cause: {cause}")


def most_extreme_row(rollout: Rollout, returns: Tensor) -> int:
    """The response of a rollout with the return (B, T) furthest from 0, the likeliest to overflow a loss."""
    sizes = torch.where(rollout.response_mask, returns.abs(), torch.zeros_like(returns))
    return int(sizes.nan_to_num(nan=torch.inf).amax(dim=1).argmax())


@contextmanager
def locate_non_finite(
    step: int, prompt_of: Callable[[int], str], suspect: Callable[[], int] = lambda: 0
) -> Iterator[None]:
    """Adds the step, from 1, and the prompt of the error's row, or of `suspect()`, to errors raised within."""
    try:
        yield
    except FloatingPointError as error:
        row = getattr(error, "row", None)
        row = suspect() if row is None else row
        after = "The optimizer step was not taken; the last checkpoint is good"
        raise NotFiniteError(f"step {step}: {error}. Seen at the prompt {prompt_of(row)}. {after}", row) from error
