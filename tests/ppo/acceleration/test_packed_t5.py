"""T5's encoder without padding: states and gradients of transformers' own, and only where its code is untouched."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import distributed
from torch.distributed import init_device_mesh
from torch.distributed.fsdp import fully_shard
from transformers import AutoModelForSeq2SeqLM

from tests.ppo.architectures.registry import ARCHITECTURES
from tests.tiny_models import tiny_bart, tiny_t5
from trl_rewards_plugin.ppo.acceleration import seam
from trl_rewards_plugin.ppo.acceleration.packed_t5 import encode_packed
from trl_rewards_plugin.ppo.architectures.families import make_deterministic
from trl_rewards_plugin.ppo.architectures.forward_passes import run_encoder

pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.* is deprecated:FutureWarning")

BUILD = {family.name: family.build for family in ARCHITECTURES}


@pytest.fixture
def model(tmp_path):
    return AutoModelForSeq2SeqLM.from_pretrained(tiny_t5(tmp_path)).eval()


def prompts(lengths, vocabulary=30):
    """Random prompts (B, S) of these lengths, padded on the right, and their mask."""
    torch.manual_seed(0)
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    return torch.where(mask, torch.randint(5, vocabulary, mask.shape), 0), mask


@torch.no_grad()
def packed(encoder):
    """Whether prompts long enough for tiny models are read without padding."""
    return seam.encode(encoder, *prompts([256, 256])) is not None


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


def test_so_they_are_with_an_adapter(model):
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules=["q", "v", "wo"], init_lora_weights=False))
    assert packed(model.encoder)
    check_same(adapted.get_base_model().encoder)


def test_short_prompts_of_a_narrow_model_keep_their_padding(model):
    for lengths, pays in (([128, 128], True), ([200, 56], True), ([128, 127], False), ([3, 9], False)):
        assert (seam.encode(model.encoder, *prompts(lengths)) is not None) == pays  # 128 tokens x 32 are 4,096


def test_states_on_padding_are_zero(model):
    ids, mask = prompts([2, 5])
    assert encode_packed(model.encoder, ids, mask)[~mask].eq(0).all()
    mask[:] = False
    assert encode_packed(model.encoder, ids, mask).eq(0).all()


def test_dropout_and_gradient_checkpointing_are_left_to_transformers(model):
    model.train()
    assert not packed(model.encoder)
    make_deterministic(model)
    assert packed(model.encoder)
    model.gradient_checkpointing_enable()
    assert not packed(model.encoder)
    model.eval()
    assert packed(model.encoder)
    model.encoder.dropout.register_forward_hook(lambda *_: None)
    assert not packed(model.encoder)


def test_transformers_own_hooks_that_record_outputs_do_not_count(model):
    ids, _ = prompts([2, 5])
    model(input_ids=ids, decoder_input_ids=ids, output_hidden_states=True, output_attentions=True)
    assert packed(model.encoder)


@pytest.mark.parametrize("kind", ["forward_hook", "forward_pre_hook", "full_backward_hook"])
def test_a_layer_with_a_hook_is_left_to_transformers(model, kind):
    handle = getattr(model.encoder.block[1].layer[0], f"register_{kind}")(lambda *_: None)
    assert not packed(model.encoder)
    handle.remove()
    assert packed(model.encoder)


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


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("change", ["forward", "attention", "block", "compiled", "order"])
def test_a_changed_layer_is_left_to_transformers(model, change):
    block = model.encoder.block[0]
    if change == "forward":
        block.layer[1].forward = block.layer[1].forward
    elif change == "attention":
        block.layer[0].SelfAttention = Doubled(block.layer[0].SelfAttention)
    elif change == "block":
        model.encoder.block[0] = Doubled(block)
    elif change == "order":
        block.layer = torch.nn.ModuleList(reversed(block.layer))
    else:
        block.compile()
    assert not packed(model.encoder)


def test_an_exchanged_norm_is_called(model):
    model.encoder.block[0].layer[1].layer_norm = torch.nn.RMSNorm(32)
    assert packed(model.encoder)
    check_same(model.encoder)


def test_lower_precision_is_left_to_transformers(model):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not packed(model.encoder)
    model.encoder.block[-1].to(torch.bfloat16)
    assert not packed(model.encoder)


@pytest.mark.parametrize("name", ["longt5", "umt5", "switch_transformers"])
def test_relatives_are_left_to_transformers(name):
    assert not packed(BUILD[name]().eval().get_encoder())


def test_other_architectures_are_left_to_transformers(tmp_path):
    assert not packed(AutoModelForSeq2SeqLM.from_pretrained(tiny_bart(tmp_path)).eval().get_encoder())


@pytest.fixture
def process_group(tmp_path):
    """Several processes, of which there is one."""
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


@pytest.mark.usefixtures("process_group")
@pytest.mark.filterwarnings("ignore:FSDP2-wrapped module .* returned a view tensor:UserWarning")
def test_a_sharded_encoder_is_left_to_transformers(model):
    ids, mask = prompts([128, 150])
    plain = run_encoder(model, ids, mask)
    fully_shard(model.encoder.block[0], mesh=init_device_mesh("cpu", (1,)))
    assert not packed(model.encoder)
    torch.testing.assert_close(run_encoder(model, ids, mask)[mask], plain[mask])
