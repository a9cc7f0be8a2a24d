"""Whole runs of every adapter and critic: they start at KL 0, resume bit for bit, and save what they trained."""

import pytest
import torch
from peft import LoraConfig, PeftModel
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from tests.ppo.test_trainer import LORA_TARGETS, dataset, make_trainer, rollout_rows, vowels, weights
from tests.tiny_models import tiny_bart, tiny_t5
from trl_rewards_plugin.ppo.trainer import Seq2SeqPPOTrainer

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Input and output embeddings are no longer tied:UserWarning"),
]
WAYS = {
    "plain": None,
    "value_model": None,
    "lora": {},
    "lora_bias": {"bias": "all"},
    "pissa": {"init_lora_weights": "pissa"},
}
FAST = {("t5", "lora_bias"), ("bart", "pissa")}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    return {"t5": tiny_t5(root / "t5"), "bart": tiny_bart(root / "bart")}


def logits(model):
    ids = torch.arange(2, 12).unsqueeze(0)
    with torch.no_grad():
        return model.eval()(input_ids=ids, decoder_input_ids=ids.flip(1)).logits


@pytest.mark.parametrize(
    ("family", "way"),
    [
        pytest.param(family, way, marks=[] if (family, way) in FAST else pytest.mark.slow)
        for family in ("t5", "bart")
        for way in WAYS
    ],
)
def test_a_whole_run_starts_at_kl_0_resumes_bit_for_bit_and_saves_what_it_trained(folders, tmp_path, family, way):
    source, settings = folders[family], WAYS[way]

    def make(output):
        steps = {"total_episodes": 8, "num_ppo_epochs": 1, "num_mini_batches": 1, "learning_rate": 1e-2}
        args = make_trainer(str(source), output, save_strategy="steps", save_steps=1, max_kl=None, **steps).args
        adapter = {} if settings is None else {"r": 2, "target_modules": LORA_TARGETS[family], **settings}
        return Seq2SeqPPOTrainer(
            AutoModelForSeq2SeqLM.from_pretrained(source),
            vowels,
            args,
            dataset(),
            processing_class=AutoTokenizer.from_pretrained(source),
            value_model=str(source) if way == "value_model" else None,
            peft_config=None if settings is None else LoraConfig(task_type="SEQ_2_SEQ_LM", **adapter),
        )

    whole = make(tmp_path / "whole")
    before = weights(whole)
    whole.train()
    first, second = rollout_rows(whole)
    assert abs(first["objective/kl"]) < 1e-4 < abs(second["objective/kl"])
    after = weights(whole)
    assert any(not torch.equal(value, before[name]) for name, value in after.items())

    resumed = make(tmp_path / "resumed")
    resumed.train(resume_from_checkpoint=tmp_path / "whole" / "checkpoint-1")
    for name, value in weights(resumed).items():
        assert torch.equal(value, after[name]), name

    whole.save_model(tmp_path / "saved")
    if settings is None:
        loaded = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "saved")
    else:
        loaded = PeftModel.from_pretrained(AutoModelForSeq2SeqLM.from_pretrained(source), tmp_path / "saved")
    assert torch.allclose(logits(loaded), logits(whole.policy_model), atol=1e-5)
