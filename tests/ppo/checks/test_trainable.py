"""What should learn does: else the trainer refuses the policy, mends the optimizer, or stops at the first update."""

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, T5ForConditionalGeneration

from tests.ppo.test_trainer import dataset, make_trainer, vowels, weights
from tests.tiny_models import tiny_t5
from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.ppo.trainer import Seq2SeqPPOTrainer

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Input and output embeddings are no longer tied:UserWarning"),
]
LORA = {"task_type": "SEQ_2_SEQ_LM", "r": 2, "target_modules": ["q", "v"]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_t5(tmp_path_factory.mktemp("models") / "t5")


@pytest.fixture
def model(folder):
    return AutoModelForSeq2SeqLM.from_pretrained(folder)


def make(model, folder, output, peft_config=None, optimizer=None, value_model=None, **settings):
    settings = {"total_episodes": 4, "num_ppo_epochs": 1, "num_mini_batches": 1, **settings}
    args = make_trainer(str(folder), output, **settings).args
    return Seq2SeqPPOTrainer(
        model,
        vowels,
        args,
        dataset(),
        processing_class=AutoTokenizer.from_pretrained(folder),
        peft_config=peft_config,
        optimizers=(optimizer, None),
        value_model=value_model,
    )


def test_a_merged_adapter_leaves_a_frozen_model_which_is_refused(model, folder, tmp_path):
    merged = get_peft_model(model, LoraConfig(**LORA)).merge_and_unload()
    with pytest.raises(InputError, match="of its weights are frozen") as caught:
        make(merged, folder, tmp_path)
    assert "requires_grad_(True)" in caught.value.next_step
    make(merged.requires_grad_(True), folder, tmp_path)


def test_a_frozen_model_is_refused(model, folder, tmp_path):
    with pytest.raises(InputError, match="a policy with trainable weights"):
        make(model.requires_grad_(False), folder, tmp_path)


def test_an_adapter_loaded_for_inference_is_refused_and_one_loaded_to_train_is_not(model, folder, tmp_path):
    get_peft_model(model, LoraConfig(**LORA)).save_pretrained(tmp_path / "adapter")
    base = AutoModelForSeq2SeqLM.from_pretrained(folder)
    with pytest.raises(InputError, match="is_trainable=True"):
        make(PeftModel.from_pretrained(base, tmp_path / "adapter"), folder, tmp_path)
    base = AutoModelForSeq2SeqLM.from_pretrained(folder)
    make(PeftModel.from_pretrained(base, tmp_path / "adapter", is_trainable=True), folder, tmp_path)


@pytest.mark.parametrize("settings", [{"freeze_encoder": True}, {"num_layers_unfrozen": 1}], ids=str)
def test_an_adapter_in_parts_that_are_frozen_is_refused(model, folder, tmp_path, settings):
    with pytest.raises(InputError, match="in frozen parts"):
        make(model, folder, tmp_path, LoraConfig(**LORA), **settings)


def test_an_adapter_of_the_decoder_alone_goes_with_a_frozen_encoder(model, folder, tmp_path):
    make(model, folder, tmp_path, LoraConfig(**LORA | {"target_modules": r"decoder.*\.(q|v)"}), freeze_encoder=True)


@pytest.mark.parametrize("rate", [None, 0.5])
def test_the_critic_joins_an_optimizer_that_was_made_without_it(model, folder, tmp_path, caplog, rate):
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    trainer = make(
        model, folder, tmp_path, optimizer=optimizer, critic_learning_rate=rate, lr_scheduler_type="constant"
    )
    trainer.train()
    assert trainer.model.value_head.weight.abs().max() > 0
    assert "held no weights of the critic" in caplog.text
    assert [group["lr"] for group in trainer.optimizer.param_groups] == pytest.approx([1e-3, rate or 1e-3])


def test_the_own_loop_takes_an_optimizer_too(model, folder, tmp_path):
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    trainer = make(model, folder, tmp_path, optimizer=optimizer)
    queries = [torch.tensor([5, 6, 1])] * 4
    before = weights(trainer)
    trainer.step(queries, trainer.generate(queries), [0.0, 1.0, 2.0, 3.0])
    assert not torch.equal(before["value_head.weight"], trainer.model.value_head.weight)


def test_an_optimizer_made_before_the_adapter_is_refused(model, folder, tmp_path):
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    trainer = make(model, folder, tmp_path, LoraConfig(**LORA), optimizer=optimizer)
    with pytest.raises(InputError, match="lora_A"):
        trainer.train()


def test_before_the_first_step_it_is_said_once_which_part_learns_and_how_many_weights(model, folder, tmp_path, capsys):
    trainer = make(model, folder, tmp_path, freeze_encoder=True)
    trainer.train()
    decoder = sum(p.numel() for p in model.decoder.parameters() if p.requires_grad)
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("learning: "))
    assert line.startswith(f"learning: value_head ({model.config.d_model + 1:,} weights), output matrix")
    assert f"decoder ({decoder:,} weights)" in line
    assert line.endswith("frozen: embeddings, encoder")


class CutEncoder(T5ForConditionalGeneration):
    """Its decoder reads states that are cut off from the encoder."""

    def forward(self, encoder_outputs=None, **kwargs):
        encoder_outputs = encoder_outputs or self.get_encoder()(
            input_ids=kwargs["input_ids"], attention_mask=kwargs["attention_mask"]
        )
        encoder_outputs.last_hidden_state = encoder_outputs.last_hidden_state.detach()
        return super().forward(encoder_outputs=encoder_outputs, **kwargs)


def test_a_part_without_a_gradient_stops_the_run_at_the_first_update(folder, tmp_path):
    trainer = make(CutEncoder.from_pretrained(folder), folder, tmp_path)
    with pytest.raises(InputError, match="none in: encoder"):
        trainer.train()
    assert trainer.state.global_step == 0


def test_a_value_model_that_is_cut_off_stops_the_run(model, folder, tmp_path):
    trainer = make(model, folder, tmp_path, value_model=AutoModelForSeq2SeqLM.from_pretrained(folder))
    norm = trainer.model.value_model.get_decoder().final_layer_norm
    norm.register_forward_hook(lambda module, inputs, output: output.detach())
    with pytest.raises(InputError, match="none in: value_model"):
        trainer.train()


def test_the_policy_may_wait_for_the_critic(model, folder, tmp_path):
    trainer = make(model, folder, tmp_path, critic_warmup_steps=1, total_episodes=8)
    trainer.train()
    assert trainer.state.global_step == 2
