"""With an adapter the reference is the model that the run starts from, whichever adapter it is."""

import copy
import re

import pytest
import torch
from peft import (
    AdaLoraConfig,
    IA3Config,
    LoraConfig,
    PrefixTuningConfig,
    PromptEncoderConfig,
    PromptTuningConfig,
    get_peft_model,
)
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from tests.ppo.test_trainer import LORA_TARGETS, dataset, make_trainer, rollout_rows, vowels
from tests.tiny_models import tiny_bart, tiny_t5
from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.ppo.config import Seq2SeqPPOConfig
from trl_rewards_plugin.ppo.trainer import Seq2SeqPPOTrainer

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Input and output embeddings are no longer tied:UserWarning"),
]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    return {"t5": tiny_t5(root / "t5"), "bart": tiny_bart(root / "bart")}


def lora(family, **settings):
    return LoraConfig(task_type="SEQ_2_SEQ_LM", r=2, lora_alpha=8, target_modules=LORA_TARGETS[family], **settings)


def make(model, folder, peft_config=None, ref_model=None, value_model=None, **settings):
    settings = {"total_episodes": 8, "learning_rate": 2e-2, "max_kl": None, **settings}
    args = make_trainer(model, folder, **settings).args
    tokenizer = None if isinstance(model, str) else AutoTokenizer.from_pretrained(model.config._name_or_path)
    return Seq2SeqPPOTrainer(
        model,
        vowels,
        args,
        dataset(),
        processing_class=tokenizer,
        peft_config=peft_config,
        ref_model=ref_model,
        value_model=value_model,
    )


ADAPTERS = {
    "plain": {},
    "pissa": {"init_lora_weights": "pissa"},
    "olora": {"init_lora_weights": "olora"},
    "random": {"init_lora_weights": False},
    "dora": {"use_dora": True},
    "all biases": {"bias": "all"},
    "biases of adapted layers": {"bias": "lora_only"},
}


@pytest.mark.parametrize(
    ("family", "name"),
    [
        ("t5", "plain"),
        *(("bart", name) for name in ADAPTERS),
        *(pytest.param("t5", name, marks=pytest.mark.slow) for name in ("pissa", "olora", "random", "dora")),
    ],
)
def test_the_reference_agrees_with_the_policy_before_the_first_update_and_then_stays(folders, tmp_path, family, name):
    trainer = make(str(folders[family]), tmp_path, lora(family, **ADAPTERS[name]))
    rollout = trainer.collect(next(iter(trainer.get_train_dataloader())))
    real = rollout.response_mask
    torch.testing.assert_close(rollout.logprobs[real], rollout.ref_logprobs[real], atol=1e-4, rtol=0)
    trainer.train()
    assert abs(rollout_rows(trainer)[0]["objective/kl"]) < 1e-3
    after = trainer.reference_logprobs(rollout.prompts, rollout.response_ids)
    torch.testing.assert_close(after[real], rollout.ref_logprobs[real], atol=1e-5, rtol=0)


def test_a_plain_adapter_costs_no_second_copy_of_the_model(folders, tmp_path):
    assert make(str(folders["t5"]), tmp_path, lora("t5")).ref_model is None
    ia3 = IA3Config(task_type="SEQ_2_SEQ_LM", target_modules=["q", "v"], feedforward_modules=[])
    assert make(str(folders["t5"]), tmp_path, ia3).ref_model is None
    assert make(str(folders["t5"]), tmp_path, lora("t5", init_lora_weights=False)).ref_model is not None


@pytest.mark.parametrize("seed", [0, 7])
def test_the_adapter_depends_on_the_seed_and_not_on_the_random_state_of_the_process(folders, tmp_path, seed):
    found = []
    for other in (1, 2):
        torch.manual_seed(other)
        trainer = make(str(folders["t5"]), tmp_path, lora("t5"), seed=seed)
        found.append({name: value for name, value in trainer.model.state_dict().items() if "lora_A" in name})
    assert found[0]
    for name, value in found[0].items():
        assert torch.equal(value, found[1][name]), name


@pytest.mark.parametrize(
    "config",
    [
        PromptTuningConfig(task_type="SEQ_2_SEQ_LM", num_virtual_tokens=3),
        PrefixTuningConfig(task_type="SEQ_2_SEQ_LM", num_virtual_tokens=3),
        PromptEncoderConfig(task_type="SEQ_2_SEQ_LM", num_virtual_tokens=3),
        AdaLoraConfig(task_type="SEQ_2_SEQ_LM", target_modules=["q", "v"], total_step=10),
    ],
    ids=lambda config: type(config).__name__,
)
@pytest.mark.parametrize("given", ["as peft_config", "as model"])
def test_adapters_that_lie_outside_of_the_encoder_decoder_are_refused_by_name(folders, tmp_path, config, given):
    config = copy.deepcopy(config)
    model, peft_config = str(folders["t5"]), config
    if given == "as model":
        model, peft_config = get_peft_model(AutoModelForSeq2SeqLM.from_pretrained(model), config), None
    with pytest.raises(InputError, match=type(config).__name__):
        make(model, tmp_path, peft_config)


@pytest.mark.parametrize(
    ("targets", "found"),
    [
        (["q", "v"], "q, v"),
        (["q_proj", "v_porj"], "v_porj\nNext:     did you mean 'v_proj'?"),
        ("q|v", "Target modules q|v not found"),
        (["self_attn_layer_norm"], "LayerNorm"),
    ],
)
def test_modules_that_no_adapter_can_be_put_on_are_refused_with_the_models_own(folders, tmp_path, targets, found):
    args = Seq2SeqPPOConfig(str(tmp_path / "out"), use_cpu=True, total_episodes=8, per_device_train_batch_size=4)
    config = LoraConfig(task_type="SEQ_2_SEQ_LM", target_modules=targets)
    with pytest.raises(InputError, match=f"Found:    .*{re.escape(found)}") as caught:
        Seq2SeqPPOTrainer(str(folders["bart"]), vowels, args, dataset(), peft_config=config)
    assert "name some of fc1, fc2, k_proj, out_proj, q_proj, v_proj, or leave" in caught.value.next_step
    assert not (tmp_path / "out").exists()


def test_a_config_that_peft_refuses_otherwise_is_refused_in_its_words(folders, tmp_path):
    with pytest.raises(InputError, match=r"that peft accepts\nFound:    `r` should be a .*\nNext:     correct it"):
        make(str(folders["bart"]), tmp_path, LoraConfig(task_type="SEQ_2_SEQ_LM", r=0))


def test_an_adapter_on_an_adapter_is_refused(folders, tmp_path):
    model = get_peft_model(AutoModelForSeq2SeqLM.from_pretrained(folders["t5"]), lora("t5", init_lora_weights=False))
    with pytest.raises(InputError, match="leave peft_config out"):
        make(model, tmp_path, lora("t5"))


def test_a_model_that_changed_after_its_reference_was_made_stops_before_the_first_update(folders, tmp_path):
    trainer = make(str(folders["t5"]), tmp_path)
    with torch.no_grad():
        trainer.policy_model.lm_head.weight.mul_(1.5)
    before = trainer.policy_model.lm_head.weight.clone()
    with pytest.raises(InputError, match="before the first update"):
        trainer.train()
    assert torch.equal(trainer.policy_model.lm_head.weight, before)
    queries = [torch.tensor([5, 6, 1])] * 4
    with pytest.raises(InputError, match="before the first update"):
        trainer.step(queries, trainer.generate(queries), [0.0, 1.0, 2.0, 3.0])


def test_a_reference_of_the_user_s_own_may_differ(folders, tmp_path):
    other = AutoModelForSeq2SeqLM.from_pretrained(folders["t5"])
    with torch.no_grad():
        other.lm_head.weight.mul_(1.5)
    trainer = make(str(folders["t5"]), tmp_path, ref_model=other)
    trainer.train()
    assert rollout_rows(trainer)[0]["objective/kl"] != 0


@pytest.mark.parametrize("role", ["ref_model", "value_model"])
def test_a_further_model_that_shares_weights_with_the_policy_is_refused(folders, tmp_path, role):
    model = AutoModelForSeq2SeqLM.from_pretrained(folders["t5"])
    other = copy.deepcopy(model)
    other.decoder = model.decoder
    with pytest.raises(InputError, match=f"a {role} with weights of its own"):
        make(model, tmp_path, **{role: other})


@pytest.mark.parametrize("has_tokenizer", [True, False])
def test_the_folder_of_an_adapter_is_trained_further(folders, tmp_path, has_tokenizer):
    adapted = get_peft_model(
        AutoModelForSeq2SeqLM.from_pretrained(folders["t5"]), lora("t5", init_lora_weights=False)
    ).eval()
    adapted.save_pretrained(tmp_path / "adapter")
    if has_tokenizer:
        AutoTokenizer.from_pretrained(folders["t5"]).save_pretrained(tmp_path / "adapter")
    trainer = make(str(tmp_path / "adapter"), tmp_path / "run", total_episodes=4)
    ids = {"input_ids": torch.tensor([[3, 4, 1]]), "decoder_input_ids": torch.tensor([[0, 5]])}
    with torch.no_grad():
        torch.testing.assert_close(trainer.policy_model(**ids).logits, adapted(**ids).logits)
    before = {name: one.clone() for name, one in trainer.policy_model.named_parameters()}
    trainer.train()
    changed = {name for name, one in trainer.policy_model.named_parameters() if not torch.equal(one, before[name])}
    assert changed
    assert all("lora_" in name for name in changed)
