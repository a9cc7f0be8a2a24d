"""The encoder by groups of like length: the same states and gradients as in one pass."""

import pytest
import torch
from torch import distributed
from torch.distributed import init_device_mesh
from torch.distributed.fsdp import fully_shard
from transformers import AutoModelForSeq2SeqLM

from tests.tiny_models import tiny_bart, tiny_t5
from trl_rewards_plugin.ppo.architectures import encoder
from trl_rewards_plugin.ppo.architectures.encoder import run_encoder


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


@pytest.fixture
def process_group(tmp_path):
    """Several processes, of which there is one."""
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


@pytest.mark.usefixtures("process_group")
def test_of_several_processes_each_makes_one_pass(model, monkeypatch):
    monkeypatch.setattr(encoder, "_GROUP_TOKENS", 30)
    shapes = passes(model, monkeypatch)
    ids, mask = prompts(LENGTHS)
    run_encoder(model, ids, mask)
    assert shapes == [(8, 12)]


@pytest.mark.usefixtures("process_group")
@pytest.mark.filterwarnings("ignore:FSDP2-wrapped module .* returned a view tensor:UserWarning")
def test_a_t5_whose_layers_gather_their_weights_is_run_by_transformers(tmp_path, monkeypatch):
    model = AutoModelForSeq2SeqLM.from_pretrained(tiny_t5(tmp_path)).eval()
    ids, mask = prompts([3, 5])
    plain = run_encoder(model, ids, mask)
    shapes = passes(model, monkeypatch)
    fully_shard(model.encoder.block[0], mesh=init_device_mesh("cpu", (1,)))
    torch.testing.assert_close(run_encoder(model, ids, mask)[mask], plain[mask])
    assert shapes == [(2, 5)]
