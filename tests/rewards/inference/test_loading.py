import io
import json
import shutil

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from transformers.integrations import deepspeed

from tests.rewards.judges import TEXTS, judge
from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.rewards import ClassifierReward, MultiClassifierReward
from trl_rewards_plugin.rewards.inference.loading import Source, load_classifier


class Zero3:
    """What transformers asks a trainer's DeepSpeed config before it loads a model."""

    def is_zero3(self):
        return True


def test_a_judge_is_loaded_whole_beside_a_trainer_under_zero3():
    expected = ClassifierReward(judge(), label="good")(TEXTS)
    config = Zero3()
    deepspeed.set_hf_deepspeed_config(config)
    try:
        # Spread over processes, its weights would have no elements here.
        assert ClassifierReward(judge(), label="good")(TEXTS) == expected
        assert deepspeed.is_deepspeed_zero3_enabled()  # as the trainer left it
    finally:
        deepspeed.unset_hf_deepspeed_config()


def test_no_deepspeed_config_is_made_where_there_was_none():
    load_classifier(Source(str(judge())), None, None)
    assert not deepspeed.is_deepspeed_zero3_enabled()


# --- PEFT adapters ---


@pytest.fixture
def adapter(tmp_path):
    """Saves a LoRA adapter of the judge with a head of its own for so many labels; the model and the folder."""

    def make(labels):
        torch.manual_seed(1)
        options = {"num_labels": labels, "ignore_mismatched_sizes": True}
        model = AutoModelForSequenceClassification.from_pretrained(judge(), **options)
        config = LoraConfig(task_type="SEQ_CLS", r=2, init_lora_weights=False)
        adapted = get_peft_model(model, config).eval()
        adapted.save_pretrained(tmp_path / "adapter")
        return adapted, tmp_path / "adapter"

    return make


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
@pytest.mark.parametrize(("labels", "label"), [(2, "good"), (3, "LABEL_1")])
@pytest.mark.parametrize("own_tokenizer", [True, False])
def test_the_folder_of_an_adapter_is_its_base_with_the_adapter(adapter, labels, label, own_tokenizer):
    adapted, folder = adapter(labels)
    tokenizer = AutoTokenizer.from_pretrained(judge())
    if own_tokenizer:
        tokenizer.save_pretrained(folder)
    reward = ClassifierReward(folder, label=label, device="cpu")
    with torch.no_grad():
        expected = [adapted(**tokenizer(text, return_tensors="pt")).logits[0, 1].item() for text in ["a", "a cat"]]
    assert reward(["a", "a cat"]) == pytest.approx(expected, abs=1e-5)
    assert reward.model_id == str(folder)


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
def test_an_adapter_without_a_head_on_a_base_without_one_is_refused(tmp_path):
    adapted = get_peft_model(
        AutoModelForSequenceClassification.from_pretrained(judge()), LoraConfig(r=2, target_modules=["query"])
    )
    shutil.copytree(judge(), tmp_path / "base")
    (tmp_path / "base" / "model.safetensors").unlink()
    AutoModelForSequenceClassification.from_pretrained(judge()).roberta.save_pretrained(tmp_path / "base")
    adapted.peft_config["default"].base_model_name_or_path = str(tmp_path / "base")
    adapted.save_pretrained(tmp_path / "adapter")
    with pytest.raises(InputError, match="no weights for classifier"):
        ClassifierReward(tmp_path / "adapter", label=1)(["a"])


# --- judges that bring their own code ---

CODE = """
import torch
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

class LongConfig(PreTrainedConfig):
    model_type = "long-text"

class LongModel(PreTrainedModel):
    config_class = LongConfig
    def __init__(self, config):
        super().__init__(config)
        self.words = torch.nn.Embedding(300, 2)
        self.post_init()
    def get_input_embeddings(self):
        return self.words
    def forward(self, input_ids, attention_mask=None, **kwargs):
        return SequenceClassifierOutput(logits=(self.words(input_ids) * attention_mask[..., None]).sum(1))
"""
CONFIG = {
    "model_type": "long-text",
    "architectures": ["LongModel"],
    "auto_map": {"AutoConfig": "code.LongConfig", "AutoModelForSequenceClassification": "code.LongModel"},
    "id2label": {"0": "short", "1": "long"},
    "pad_token_id": 1,
}


@pytest.fixture
def own_code(tmp_path, monkeypatch):
    folder = tmp_path / "own"
    AutoTokenizer.from_pretrained(judge()).save_pretrained(folder)
    (folder / "code.py").write_text(CODE)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    from safetensors.torch import save_file

    save_file({"words.weight": torch.ones(300, 2)}, folder / "model.safetensors", {"format": "pt"})
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    return folder


def test_a_judge_with_its_own_code_is_refused_without_a_question(own_code, capsys):
    with pytest.raises(InputError, match="pass trust_remote_code=True"):
        ClassifierReward(own_code, label="long")
    assert capsys.readouterr().out == ""


def test_a_judge_with_its_own_code_runs_where_it_is_trusted(own_code, tmp_path):
    reward = ClassifierReward(own_code, label="long", trust_remote_code=True, device="cpu")
    assert reward(["a", "abc"]) == [3.0, 5.0]  # with the two special tokens
    MultiClassifierReward([reward]).save_preset(tmp_path / "r.yaml")
    assert "trust_remote_code: true" in (tmp_path / "r.yaml").read_text()
    assert MultiClassifierReward.from_preset(tmp_path / "r.yaml")(["abc"]) == [5.0]
    with pytest.raises(InputError, match="run no code of their own"):
        MultiClassifierReward.from_preset(tmp_path / "r.yaml", allow_code=False)
