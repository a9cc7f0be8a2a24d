"""T5 without padding: states, logits and gradients of transformers' own, and only where its code is untouched."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import distributed
from torch.distributed import init_device_mesh
from torch.distributed.fsdp import fully_shard
from transformers import AutoModelForSeq2SeqLM

from tests.ppo.architectures.registry import ARCHITECTURES
from tests.tiny_models import tiny_t5
from trl_rewards_plugin.ppo.acceleration.packed_t5 import (
    decode_packed,
    encode_packed,
    has_plain_decoder,
    is_plain_t5,
    runs_packed,
)
from trl_rewards_plugin.ppo.architectures.determinism import make_deterministic
from trl_rewards_plugin.ppo.architectures.forward_passes import run_decoder, run_encoder
from trl_rewards_plugin.ppo.policy.encoded_prompts import EncodedPrompts

pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.* is deprecated:FutureWarning")

LONG = torch.ones(2, 256, dtype=torch.bool)  # prompts long enough for tiny models of width 16
BUILD = {family.name: family.build for family in ARCHITECTURES}


@pytest.fixture
def model(tmp_path):
    return AutoModelForSeq2SeqLM.from_pretrained(tiny_t5(tmp_path)).eval()


def prompts(lengths, vocabulary=30):
    """Random prompts (B, S) of these lengths, padded on the right, and their mask."""
    torch.manual_seed(0)
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    return torch.where(mask, torch.randint(5, vocabulary, mask.shape), 0), mask


def packed(encoder):
    """Whether the encoder is run without padding."""
    return is_plain_t5(encoder) and runs_packed(encoder, LONG)


def own_states(encoder, ids, mask):
    return encoder(input_ids=ids, attention_mask=mask.long()).last_hidden_state


def check_same(encoder, lengths=(3, 9, 2, 40, 9)):
    """States and every parameter's gradient of the packed pass against transformers' own."""
    ids, mask = prompts(lengths)
    trained = [parameter for parameter in encoder.parameters() if parameter.requires_grad]
    states, gradients = [], []
    for encode in (encode_packed, own_states):
        of_tokens = encode(encoder, ids, mask)[mask]
        weight = torch.randn(of_tokens.shape, generator=torch.Generator().manual_seed(0))
        states.append(of_tokens.detach())
        gradients.append(torch.autograd.grad((of_tokens * weight).sum(), trained))
    torch.testing.assert_close(*states)
    torch.testing.assert_close(*gradients, atol=1e-4, rtol=1e-4)


def test_states_and_gradients_are_transformers_own(model):
    assert packed(model.encoder)
    check_same(model.encoder)


@pytest.mark.parametrize("name", ["t5", "mt5"])
def test_so_they_are_for_each_kind_of_feed_forward(name):
    model = BUILD[name]().eval()
    assert packed(model.encoder)
    check_same(model.encoder)


def own_logits(model, states, mask, inputs):
    outputs = model(
        encoder_outputs=(states,), attention_mask=mask.long(), decoder_input_ids=inputs, output_hidden_states=True
    )
    return outputs.logits, outputs.decoder_hidden_states[-1]


def check_same_decoder(model):
    """Logits, hidden states and gradients of the packed pass against transformers' own, the encoder's states too."""
    assert has_plain_decoder(model)
    ids, mask = prompts([3, 9, 2, 40, 9])
    inputs = torch.randint(5, 30, (5, 40), generator=torch.Generator().manual_seed(1))
    states = own_states(model.encoder, ids, mask).detach().requires_grad_()
    learning = [*(part for part in model.decoder.parameters() if part.requires_grad), states]
    found, gradients = [], []
    for decode in (decode_packed, own_logits):
        outputs = decode(model, states, mask, inputs)
        generator = torch.Generator().manual_seed(0)
        total = sum((output * torch.randn(output.shape, generator=generator)).sum() for output in outputs)
        found.append([output.detach() for output in outputs])
        gradients.append(torch.autograd.grad(total, learning))
    torch.testing.assert_close(*found, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(*gradients, atol=1e-3, rtol=1e-4)


def test_the_decoders_logits_and_gradients_are_transformers_own(model):
    assert has_plain_decoder(model)
    check_same_decoder(model)
    model.config.scale_decoder_outputs = True
    check_same_decoder(model)


@pytest.mark.parametrize("scales", [True, False])
@pytest.mark.parametrize("name", ["t5", "mt5"])
def test_so_they_are_for_each_family(name, scales):
    model = BUILD[name]().eval()
    model.config.scale_decoder_outputs = scales  # mT5 does not read it
    check_same_decoder(model)


def test_so_they_are_with_an_adapter_and_with_a_frozen_bias(model):
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules=["q", "v", "wo"], init_lora_weights=False))
    check_same_decoder(adapted.get_base_model())


def test_short_prompts_of_a_narrow_model_keep_their_padding(model):
    for lengths, pays in (([128, 128], True), ([200, 56], True), ([128, 127], False), ([3, 9], False)):
        _, mask = prompts(lengths)
        assert runs_packed(model, mask) == runs_packed(model.encoder, mask) == pays  # 128 tokens x 32 are 4,096


def test_run_encoder_takes_this_way_where_it_can(model, monkeypatch):
    ids, mask = prompts([128, 150])
    taken = []
    monkeypatch.setattr(
        "trl_rewards_plugin.ppo.acceleration.packed_t5.encode_packed",
        lambda *given: taken.append(given) or encode_packed(*given),
    )
    run_encoder(model, ids, mask)
    assert len(taken) == 1
    run_encoder(model.to(torch.bfloat16), ids, mask)
    assert len(taken) == 1


def test_run_decoder_takes_this_way_where_it_can(model, monkeypatch):
    ids, mask = prompts([128, 150])
    taken = []
    monkeypatch.setattr(
        "trl_rewards_plugin.ppo.acceleration.packed_t5.decode_packed",
        lambda *given: taken.append(given) or decode_packed(*given),
    )
    run_decoder(model, EncodedPrompts(ids, mask), ids)
    assert len(taken) == 1
    model.decoder.block[0].register_forward_hook(lambda *_: None)
    run_decoder(model, EncodedPrompts(ids, mask), ids)
    assert len(taken) == 1


def test_padding_is_zero(model):
    ids, mask = prompts([2, 5])
    assert encode_packed(model.encoder, ids, mask)[~mask].eq(0).all()


def test_an_adapter_is_no_hindrance(model):
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules=["q", "v", "wo"], init_lora_weights=False))
    assert packed(model.encoder)
    check_same(adapted.get_base_model().encoder)


def test_training_is_none_once_dropout_is_off(model):
    model.train()
    assert not is_plain_t5(model.encoder)
    make_deterministic(model)
    assert packed(model.encoder)
    model.gradient_checkpointing_enable()
    assert not is_plain_t5(model.encoder)
    model.eval()
    assert is_plain_t5(model.encoder)


def test_transformers_hooks_that_record_outputs_are_none(model):
    ids, _ = prompts([2, 5])
    model(input_ids=ids, decoder_input_ids=ids, output_hidden_states=True, output_attentions=True)
    assert all(map(is_plain_t5, (model.encoder, model.decoder)))


@pytest.mark.parametrize("kind", ["forward_hook", "forward_pre_hook", "full_backward_hook"])
def test_a_hook_makes_it_another(model, kind):
    handle = getattr(model.encoder.block[1].layer[0], f"register_{kind}")(lambda *_: None)
    assert not is_plain_t5(model.encoder)
    assert is_plain_t5(model.decoder)
    handle.remove()
    assert is_plain_t5(model.encoder)


def test_a_forward_pass_of_its_own_makes_it_another(model):
    norm = model.encoder.final_layer_norm
    norm.forward = norm.forward
    assert not is_plain_t5(model.encoder)


def test_an_exchanged_part_makes_it_another(model):
    model.encoder.block[0].layer[1].layer_norm = torch.nn.RMSNorm(32)
    assert not is_plain_t5(model.encoder)


class Doubled(torch.nn.Module):
    """Stands around a module, answers for it, and doubles what it says."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def __getattr__(self, name):
        return super().__getattr__(name) if name == "inner" else getattr(self.inner, name)

    def forward(self, *args, **kwargs):
        output, *others = self.inner(*args, **kwargs)
        return 2 * output, *others


def test_a_wrapped_attention_makes_it_another(model):
    layer = model.encoder.block[0].layer[0]
    layer.SelfAttention = Doubled(layer.SelfAttention)
    assert not is_plain_t5(model.encoder)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_a_wrapped_or_compiled_block_makes_it_another(model):
    model.encoder.block[0] = Doubled(model.encoder.block[0])
    assert not is_plain_t5(model.encoder)
    model.decoder.block[0].compile()
    assert not is_plain_t5(model.decoder)


def test_dropouts_are_asked_one_by_one(model):
    model.encoder.block[0].train()
    assert not is_plain_t5(model.encoder)
    model.decoder.dropout.register_forward_hook(lambda *_: None)
    assert not is_plain_t5(model.decoder)


def test_prompts_without_tokens_have_no_states(model):
    ids, mask = prompts([2, 5])
    mask[:] = False
    assert encode_packed(model.encoder, ids, mask).eq(0).all()


def test_fewer_bits_are_left_to_transformers(model):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not packed(model.encoder)
    model.encoder.block[-1].to(torch.bfloat16)
    assert not packed(model.encoder)


@pytest.mark.parametrize("name", ["longt5", "umt5", "switch_transformers"])
def test_relatives_are_left_to_transformers(name):
    relative = BUILD[name]()
    assert not any(map(is_plain_t5, (relative.get_encoder(), relative.get_decoder())))


@pytest.fixture
def process_group(tmp_path):
    """Several processes, of which there is one."""
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


@pytest.mark.usefixtures("process_group")
@pytest.mark.filterwarnings("ignore:FSDP2-wrapped module .* returned a view tensor:UserWarning")
def test_a_sharded_t5_is_left_to_transformers(model):
    ids, mask = prompts([128, 150])
    plain = run_encoder(model, ids, mask)
    fully_shard(model.encoder.block[0], mesh=init_device_mesh("cpu", (1,)))
    assert not is_plain_t5(model.encoder)
    torch.testing.assert_close(run_encoder(model, ids, mask)[mask], plain[mask])
