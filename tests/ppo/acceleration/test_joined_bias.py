"""T5's bias and mask, joined once a pass: transformers' numbers and gradients, with fewer joins."""

import copy
import gc
import json

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import (
    MT5Config,
    MT5ForConditionalGeneration,
    T5Config,
    T5ForConditionalGeneration,
    UMT5Config,
    UMT5ForConditionalGeneration,
)

from trl_rewards_plugin.ppo.acceleration.seam import exchange_modules
from trl_rewards_plugin.ppo.architectures.families import make_deterministic

LAYERS = 3
PADDED = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [0, 0, 0, 0, 0]])
SIZE = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_heads": 2, "num_layers": LAYERS, "vocab_size": 64}


class Joins(TorchDispatchMode):
    """Counts how often a mask is joined to anything."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function is torch.ops.aten.where.self
        return function(*args, **(kwargs or {}))


@pytest.fixture
def plain():
    torch.manual_seed(0)
    model = T5ForConditionalGeneration(T5Config(**SIZE, decoder_start_token_id=0, feed_forward_proj="gated-gelu"))
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    make_deterministic(model)
    model.set_attn_implementation("sdpa")
    return model


@pytest.fixture
def joined(plain):
    model = copy.deepcopy(plain)
    exchange_modules(model)
    return model


def passed(model, mask):
    """Logits and gradients of a pass over three prompts, and how many joins it took."""
    ids = torch.arange(5, 20).view(3, 5)
    model.zero_grad()
    with Joins() as joins:
        logits = model(input_ids=ids, attention_mask=mask, decoder_input_ids=ids[:, :4]).logits
    logits.square().sum().backward()
    return logits, {name: weight.grad for name, weight in model.named_parameters()}, joins.count


@pytest.mark.parametrize("mask", [PADDED, torch.ones_like(PADDED)], ids=["padded", "full"])
@pytest.mark.parametrize("checkpointing", [None, {"use_reentrant": False}, {"use_reentrant": True}])
def test_numbers_and_gradients_are_those_of_transformers(plain, joined, mask, checkpointing):
    for model in (plain, joined):
        model.train()
        if checkpointing is not None:  # by the name since transformers 5.23, or the one before
            enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
            enable(checkpointing)
    (expected, wanted, _), (logits, gradients, _) = passed(plain, mask), passed(joined, mask)
    assert torch.allclose(logits, expected, atol=1e-5, rtol=1e-5)
    for name, gradient in wanted.items():
        assert torch.allclose(gradients[name], gradient, atol=1e-4, rtol=1e-4), name
    assert gradients["decoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"].any()


def test_a_pass_joins_once_where_transformers_joins_in_each_layer(plain, joined):
    (*_, before), (*_, after) = passed(plain, PADDED), passed(joined, PADDED)
    assert before - after == 3 * (LAYERS - 1)  # encoder, decoder, and from the one to the other


@pytest.mark.parametrize("mask", [PADDED, torch.ones_like(PADDED)], ids=["padded", "full"])
@pytest.mark.parametrize("checkpointing", [None, {"use_reentrant": False}, {"use_reentrant": True}])
def test_a_pass_leaves_no_bias_behind(joined, mask, checkpointing):
    joined.train()
    if checkpointing is not None:
        enable = getattr(joined, "activation_checkpointing_enable", None) or joined.gradient_checkpointing_enable
        enable(checkpointing)
    passed(joined, mask)
    gc.collect()
    kept = [one for one in gc.get_objects() if type(one) is torch.Tensor and hasattr(one, "_joined")]
    assert not kept


def test_generation_with_a_cache_gives_the_same_tokens(plain, joined):
    ids = torch.arange(5, 20).view(3, 5)
    settings = {"attention_mask": PADDED[:2], "max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False}
    assert torch.equal(plain.generate(ids[:2], **settings), joined.generate(ids[:2], **settings))


def test_the_saved_config_does_not_know(joined, plain, tmp_path):
    joined.save_pretrained(tmp_path / "joined")
    plain.save_pretrained(tmp_path / "plain")
    found, expected = (json.loads((tmp_path / name / "config.json").read_text()) for name in ("joined", "plain"))
    assert found == expected
    assert T5ForConditionalGeneration.from_pretrained(tmp_path / "joined").config._attn_implementation == "sdpa"


def test_mt5_joins_and_what_has_another_attention_stays_as_it_is():
    mt5, umt5 = MT5ForConditionalGeneration(MT5Config(**SIZE)), UMT5ForConditionalGeneration(UMT5Config(**SIZE))
    eager = MT5ForConditionalGeneration._from_config(MT5Config(**SIZE), attn_implementation="eager")
    for model in (mt5, umt5, eager):
        exchange_modules(model)
    assert mt5.encoder.config._attn_implementation == mt5.config._attn_implementation == "sdpa_joined_bias"
    assert eager.config._attn_implementation == "eager"
    assert umt5.config._attn_implementation in ("sdpa", "eager")
