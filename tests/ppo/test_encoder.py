"""The encoder by groups of like length: the same states and gradients as in one pass."""

import pytest
import torch
from transformers import AutoModelForSeq2SeqLM

from tests.tiny_models import tiny_bart
from trl_rewards_plugin.ppo import encoder
from trl_rewards_plugin.ppo.encoder import run_encoder


def prompts(lengths):
    """Random prompts (B, S) of these lengths, padded on the right, and their mask."""
    torch.manual_seed(0)
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    return torch.where(mask, torch.randint(5, 30, mask.shape), 0), mask


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return AutoModelForSeq2SeqLM.from_pretrained(tiny_bart(tmp_path_factory.mktemp("bart"))).eval()


def passes(model, monkeypatch):
    """Shapes of the batches that the encoder is given from now on."""
    shapes, usual = [], encoder._encode
    monkeypatch.setattr(
        encoder, "_encode", lambda model, ids, mask: shapes.append(ids.shape) or usual(model, ids, mask)
    )
    return shapes


LENGTHS = [3, 9, 2, 8, 5, 12, 4, 2]


def test_groups_of_like_length_give_the_states_and_gradients_of_one_pass(model, monkeypatch):
    ids, mask = prompts(LENGTHS)
    whole = run_encoder(model, ids, mask)
    gradients = torch.autograd.grad(whole[mask].square().sum(), list(model.get_encoder().parameters()))
    monkeypatch.setattr(encoder, "_GROUP_TOKENS", 30)
    shapes = passes(model, monkeypatch)
    grouped = run_encoder(model, ids, mask)
    assert shapes == [(3, 3), (3, 8), (2, 12)]  # 30 tokens are 3 rows of 12
    assert grouped.shape == whole.shape
    torch.testing.assert_close(grouped[mask], whole[mask])
    assert grouped.isfinite().all()  # what is read nowhere must not be NaN: 0 x NaN is NaN
    again = torch.autograd.grad(grouped[mask].square().sum(), list(model.get_encoder().parameters()))
    torch.testing.assert_close(again, gradients, atol=1e-4, rtol=1e-4)


def test_a_batch_that_fits_is_one_pass(model, monkeypatch):
    shapes = passes(model, monkeypatch)
    ids, mask = prompts(LENGTHS)
    run_encoder(model, ids, mask)
    assert shapes == [(8, 12)]


def test_a_prompt_longer_than_a_group_is_a_group_of_its_own(model, monkeypatch):
    monkeypatch.setattr(encoder, "_GROUP_TOKENS", 2)
    shapes = passes(model, monkeypatch)
    ids, mask = prompts([3, 5])
    run_encoder(model, ids, mask)
    assert shapes == [(1, 3), (1, 5)]
