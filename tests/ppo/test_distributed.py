"""What the update asks of accelerate, where there is no launcher to try it with."""

from types import SimpleNamespace

import pytest
import torch
from accelerate.utils import DistributedType

from trl_rewards_plugin.ppo.distributed import Framework


def test_deepspeed_whose_engine_is_not_where_accelerate_kept_it_is_an_error():
    renamed = SimpleNamespace(
        distributed_type=DistributedType.DEEPSPEED,
        autocast=None,
        gather=None,
        num_processes=1,
        backward=lambda loss: None,  # by it alone each gradient would be divided by the accumulation steps
    )
    with pytest.raises(AttributeError, match="deepspeed_engine_wrapped"):
        Framework(renamed, None, None, None).backward(torch.ones(()))
