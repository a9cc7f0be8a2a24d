"""What is trained is what is saved, and what is resumed is what was saved."""

import pytest
import torch
from peft import LoraConfig
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, MarianConfig, MarianMTModel, T5ForConditionalGeneration

from tests.ppo.test_trainer import LORA_TARGETS, dataset, make_trainer, vowels, weights
from tests.tiny_models import tiny_bart, tiny_t5
from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.ppo.trainer import Seq2SeqPPOTrainer

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Input and output embeddings are no longer tied:UserWarning"),
]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    return {"t5": tiny_t5(root / "t5"), "bart": tiny_bart(root / "bart")}


def make(model, source, output, peft_config=None, **settings):
    settings = {
        "total_episodes": 8,
        "num_ppo_epochs": 1,
        "num_mini_batches": 1,
        "learning_rate": 1e-2,
        "max_kl": None,
        "save_strategy": "steps",
        "save_steps": 1,
        **settings,
    }
    args = make_trainer(str(source), output, **settings).args
    tokenizer = AutoTokenizer.from_pretrained(source)
    return Seq2SeqPPOTrainer(model, vowels, args, dataset(), processing_class=tokenizer, peft_config=peft_config)


def lora(family, targets=None, **settings):
    return LoraConfig(task_type="SEQ_2_SEQ_LM", r=2, target_modules=targets or LORA_TARGETS[family], **settings)


class ForgetsItsNorm(T5ForConditionalGeneration):
    """Saves neither this norm nor its tied embeddings under this name, as Marian its positions."""

    _keys_to_ignore_on_save = (r"decoder\.final_layer_norm", r"encoder\.embed_tokens")


def test_weights_that_a_model_does_not_save_do_not_learn(folders, tmp_path):
    trainer = make(ForgetsItsNorm.from_pretrained(folders["t5"]), folders["t5"], tmp_path)
    before = weights(trainer)
    trainer.train()
    after = weights(trainer)
    assert torch.equal(
        after["policy.decoder.final_layer_norm.weight"], before["policy.decoder.final_layer_norm.weight"]
    )
    assert not torch.equal(after["policy.shared.weight"], before["policy.shared.weight"])


def test_marian_s_positions_do_not_learn_and_the_rest_is_saved(folders, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(folders["t5"])
    sizes = {f"{side}_{name}": 1 for side in ("encoder", "decoder") for name in ("layers", "attention_heads")}
    sizes |= {f"{side}_ffn_dim": 16 for side in ("encoder", "decoder")}
    special = {"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0, "forced_eos_token_id": None}
    vocabulary = {"vocab_size": max(tokenizer.get_vocab().values()) + 1, "tie_word_embeddings": True}
    config = MarianConfig(d_model=16, max_position_embeddings=64, **sizes, **special, **vocabulary)
    MarianMTModel(config).save_pretrained(tmp_path / "marian")
    model = MarianMTModel.from_pretrained(tmp_path / "marian")
    positions = {name: value.clone() for name, value in model.state_dict().items() if "embed_positions" in name}
    trainer = make(model, folders["t5"], tmp_path / "run")
    trainer.train()
    trainer.save_model()  # which reads it again
    assert len(positions) == 2
    for name, value in positions.items():
        assert torch.equal(model.state_dict()[name], value)


def test_a_save_that_is_not_the_trained_model_is_reported(folders, tmp_path, monkeypatch):
    trainer = make(AutoModelForSeq2SeqLM.from_pretrained(folders["t5"]), folders["t5"], tmp_path)
    state = {name: value.clone() for name, value in trainer.policy_model.state_dict().items()}
    state["lm_head.weight"] *= 2
    save = trainer.policy_model.save_pretrained
    monkeypatch.setattr(trainer.policy_model, "save_pretrained", lambda folder, **_: save(folder, state_dict=state))
    with pytest.raises(InputError, match="differ from it"):
        trainer.save_model()


def test_an_adapter_whose_base_is_not_the_named_one_is_reported(folders, tmp_path):
    model = AutoModelForSeq2SeqLM.from_pretrained(folders["bart"])
    with torch.no_grad():
        model.get_decoder().layers[0].fc1.weight.mul_(3)
    trainer = make(model, folders["bart"], tmp_path, lora("bart"))
    with pytest.raises(InputError, match="merge_and_unload"):
        trainer.save_model()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"targets": ["q_proj", "k_proj"]}, "k_proj"),
        ({"lora_alpha": 64}, "lora_alpha"),
        ({"use_rslora": True}, "use_rslora"),
    ],
    ids=str,
)
def test_a_checkpoint_of_another_adapter_is_refused(folders, tmp_path, change, named):
    def trainer(config):
        return make(AutoModelForSeq2SeqLM.from_pretrained(folders["bart"]), folders["bart"], tmp_path, config)

    trainer(lora("bart")).train()
    with pytest.raises(InputError, match="a checkpoint of this adapter") as caught:
        trainer(lora("bart", **change)).train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))
    assert named in caught.value.found


@pytest.mark.parametrize("adapter", ["pissa_niter_2", "olora", False], ids=str)
def test_an_adapter_of_any_beginning_resumes_as_the_unbroken_run(folders, tmp_path, adapter):
    ends = []
    for other in (10, 99):
        torch.manual_seed(other)
        model = AutoModelForSeq2SeqLM.from_pretrained(folders["bart"])
        trainer = make(model, folders["bart"], tmp_path, lora("bart", init_lora_weights=adapter))
        trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-1") if ends else None)
        ends.append(weights(trainer))
    for name, value in ends[0].items():
        torch.testing.assert_close(ends[1][name], value, atol=1e-6, rtol=0, msg=name)


@pytest.mark.parametrize("cause", ["another base model", "another seed"])
def test_a_resume_on_weights_that_differ_below_the_adapter_is_refused(folders, tmp_path, cause):
    def trainer(**settings):
        config = lora("bart", init_lora_weights="pissa_niter_2")
        model = AutoModelForSeq2SeqLM.from_pretrained(folders["bart"])
        if settings and cause == "another base model":
            model.load_state_dict(AutoModelForSeq2SeqLM.from_pretrained(other).state_dict())
            settings = {}
        return make(model, folders["bart"], tmp_path, config, **settings)

    other = tiny_bart(tmp_path / "other", seed=1)
    trainer().train()
    with pytest.raises(InputError, match="the policy that"):
        trainer(seed=77).train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))
