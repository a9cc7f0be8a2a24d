"""T5's decoder token by token: the logits and hidden states of transformers' pass over the whole response."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForSeq2SeqLM

from tests.ppo.architectures.registry import ARCHITECTURES
from tests.tiny_models import tiny_bart, tiny_t5
from trl_rewards_plugin.ppo.acceleration.t5_decoder import T5Decoder
from trl_rewards_plugin.ppo.architectures.determinism import make_deterministic
from trl_rewards_plugin.ppo.architectures.forward_passes import CachedDecoder, run_encoder

BATCH, WIDTH, STEPS = 3, 7, 40  # 40 steps reach into the logarithmic part of T5's distances

pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.* is deprecated:FutureWarning")

BUILD = {family.name: family.build for family in ARCHITECTURES}


@pytest.fixture
def model(tmp_path):
    return AutoModelForSeq2SeqLM.from_pretrained(tiny_t5(tmp_path)).eval()


def case():
    """Prompts of unlike length (B, S), their mask, and what the decoder reads (B, T)."""
    torch.manual_seed(0)
    mask = torch.arange(WIDTH) < torch.tensor([WIDTH, 2, 4])[:, None]
    ids = torch.where(mask, torch.randint(5, 30, mask.shape), 0)
    return ids, mask, torch.randint(5, 30, (BATCH, STEPS))


def read(decoder, tokens):
    """Logits (B, T, V) and hidden states (B, T, H) of the tokens (B, T), one by one."""
    logits, hidden = zip(*(decoder.step(token) for token in tokens.split(1, dim=1)), strict=True)
    return torch.cat(logits, dim=1), torch.cat(hidden, dim=1)


@torch.no_grad()
def check_same(model, atol=1e-4, rtol=1e-4):
    assert T5Decoder.fits(model)
    ids, mask, tokens = case()
    states = run_encoder(model, ids, mask)
    stepwise = read(T5Decoder(model, states, mask, STEPS), tokens)
    whole = model(
        encoder_outputs=(states,), attention_mask=mask.long(), decoder_input_ids=tokens, output_hidden_states=True
    )
    torch.testing.assert_close(stepwise, (whole.logits, whole.decoder_hidden_states[-1]), atol=atol, rtol=rtol)


def test_the_numbers_are_transformers_own(model):
    assert T5Decoder.fits(model)
    check_same(model)


@pytest.mark.parametrize("scales", [True, False])
@pytest.mark.parametrize("name", ["t5", "mt5"])
def test_so_they_are_where_the_config_asks_to_scale_what_the_output_matrix_gets(name, scales):
    model = BUILD[name]().eval()
    model.config.scale_decoder_outputs = scales  # mT5 does not read it
    check_same(model)


def test_so_they_are_with_an_adapter(model):
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules=["q", "v", "wo"], init_lora_weights=False))
    check_same(adapted.get_base_model())


def test_in_fewer_bits_they_are_close(model):
    model.to(torch.bfloat16)
    check_same(model, atol=0.1, rtol=0.1)
    model.float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        check_same(model, atol=0.1, rtol=0.1)


@torch.no_grad()
def test_rows_that_leave_do_not_touch_the_others(model):
    ids, mask, tokens = case()
    states = run_encoder(model, ids, mask)
    whole, _ = read(T5Decoder(model, states, mask, STEPS), tokens)
    for decoder in (T5Decoder(model, states, mask, STEPS), CachedDecoder(model, states, mask)):
        read(decoder, tokens[:, :5])
        rows = torch.tensor([2, 0])
        decoder.keep(rows)
        rest, _ = read(decoder, tokens[rows, 5:])
        torch.testing.assert_close(rest, whole[rows, 5:])


def test_what_it_does_not_compute_is_left_to_transformers(model, tmp_path):
    assert not T5Decoder.fits(AutoModelForSeq2SeqLM.from_pretrained(tiny_bart(tmp_path / "bart")))
    assert not T5Decoder.fits(model.to(torch.float16))
    model.float().train()
    assert not T5Decoder.fits(model)
    make_deterministic(model)
    assert T5Decoder.fits(model)
    model.decoder.block[0].register_forward_hook(lambda *_: None)
    assert not T5Decoder.fits(model)


def test_a_subclass_may_compute_its_logits_otherwise(model):
    model.__class__ = type("Mine", (type(model),), {})
    assert not T5Decoder.fits(model)


@torch.no_grad()
def test_a_prompt_without_tokens_gives_transformers_numbers(model):
    ids, mask, tokens = case()
    mask[1] = False
    states = run_encoder(model, ids, mask)
    stepwise = [
        read(kind, tokens) for kind in (T5Decoder(model, states, mask, STEPS), CachedDecoder(model, states, mask))
    ]
    torch.testing.assert_close(*stepwise, atol=1e-4, rtol=1e-4)
