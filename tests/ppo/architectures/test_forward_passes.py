"""Decoders that read token by token: rows that leave the batch do not touch the others."""

import pytest
import torch

from tests.ppo.architectures.registry import ARCHITECTURES
from trl_rewards_plugin.ppo.architectures.families import make_deterministic
from trl_rewards_plugin.ppo.architectures.forward_passes import CachedDecoder, run_encoder

BUILD = {family.name: family.build for family in ARCHITECTURES}


def read(decoder, tokens):
    """Logits (B, T, V) of the tokens (B, T), one by one."""
    return torch.cat([decoder.step(token)[0] for token in tokens.split(1, dim=1)], dim=1)


@pytest.mark.parametrize("name", ["t5", "bart"])
@torch.no_grad()
def test_rows_that_leave_do_not_touch_the_others(name):
    model = BUILD[name]()
    make_deterministic(model)
    torch.manual_seed(0)
    mask = torch.arange(7) < torch.tensor([7, 2, 4])[:, None]
    ids, tokens = torch.randint(4, 33, mask.shape).where(mask, 0), torch.randint(4, 33, (3, 12))
    states = run_encoder(model, ids, mask)
    whole = read(CachedDecoder(model, states, mask), tokens)
    decoder = CachedDecoder(model, states, mask)
    read(decoder, tokens[:, :5])
    rows = torch.tensor([2, 0])
    decoder.keep(rows)
    torch.testing.assert_close(read(decoder, tokens[rows, 5:]), whole[rows, 5:])
