"""Whether a run uses CUDA graphs, by its settings and its device; where it does not, the log says why, once.

Leaves out: what graphs do (static_calls.py) and how they are made (graphs.py).
"""

import logging
from typing import Any

from torch import nn

from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.ppo.acceleration import graphs
from trl_rewards_plugin.ppo.acceleration.static_calls import StaticCalls
from trl_rewards_plugin.ppo.config import Seq2SeqPPOConfig

_logger = logging.getLogger(__name__)


def static_calls(args: Seq2SeqPPOConfig, model: nn.Module) -> StaticCalls:
    """How a model's forward and backward passes run under a config.

    Raises:
        InputError: `cuda_graphs=True` where there can be none.
    """
    maker, reason = graphs.maker_for(args.device), _why_not(args)
    if args.cuda_graphs and (reason or maker is None):
        raise InputError(
            "a single process on a CUDA device, without gradient checkpointing, for cuda_graphs=True",
            reason or f"the device {args.device}",
            "leave cuda_graphs out: graphs are used where they can be",
        )
    if maker is not None and reason and args.cuda_graphs is None:
        _logger.info("CUDA graphs are off: %s", reason)
    exact = not args.bf16 and next(model.parameters()).element_size() == 4
    return StaticCalls(
        None if reason else maker,
        tolerance=1e-3 if exact else 0.1,
        fixed=args.device.type == "cuda" and args.world_size == 1,
    )


def _why_not(args: Any) -> str | None:
    """What stands against graphs, in words."""
    checkpointing = any(getattr(args, name, False) for name in ("activation_checkpointing", "gradient_checkpointing"))
    against = {
        "cuda_graphs=False": args.cuda_graphs is False,
        "several processes": args.world_size > 1 or bool(args.deepspeed) or bool(args.fsdp),
        "gradient checkpointing": checkpointing,
    }
    return next((reason for reason, holds in against.items() if holds), None)
