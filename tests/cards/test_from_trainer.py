from types import SimpleNamespace

import pytest
import torch
from datasets import Dataset
from huggingface_hub import ModelCard

from tests.cards.test_model_card import front_matter, headings, python_blocks
from tests.hub.loopback import check_metadata
from tests.recipes.tiny_run import sentences
from tests.tiny_models import word_tokenizer
from trl_rewards_plugin import MultiClassifierReward, generate_model_card
from trl_rewards_plugin.cards.card_data import card_data_from_trainer, picked
from trl_rewards_plugin.runs import record


def tiny_trainer(tmp_path, **more):
    config = SimpleNamespace(_name_or_path="google/flan-t5-small", is_encoder_decoder=True)
    return SimpleNamespace(
        policy_model=SimpleNamespace(config=config),
        args=SimpleNamespace(output_dir=str(tmp_path / "run"), seed=9),
        state=SimpleNamespace(log_history=[{"epoch_reward": 0.5}, {"loss": 1.0, "step": 3}, {"train_runtime": 90.0}]),
        **more,
    )  # fmt: skip


def test_the_card_of_a_trainer_without_results(tmp_path):
    trainer = tiny_trainer(tmp_path)
    card = generate_model_card(trainer)
    assert front_matter(card)["base_model"] == "google/flan-t5-small"
    assert "Trained in 1.5 minutes.\nMean reward by epoch: 0.500." in card
    assert "| 3 | 1.0000 |" in card
    assert headings(card) == ["Usage", "Training", "Limitations", "Reproduce", "Citation"]
    trainer.policy_model.config._name_or_path = str(tmp_path)
    assert "base_model" not in front_matter(generate_model_card(trainer))
    assert str(tmp_path) not in generate_model_card(trainer)


def test_rewards_have_their_weights_and_no_paths(tmp_path):
    def short(completions, **kwargs):
        return [0.0 for _ in completions]

    class Judges:
        def describe(self):
            parts = {"a": "owner/a", "b": f"{tmp_path}/b"}
            return [{"name": name, "weight": 2.0, "model": model, "revision": None} for name, model in parts.items()]

    module = SimpleNamespace(config=SimpleNamespace(_name_or_path="owner/reward-model"))
    trainer = tiny_trainer(
        tmp_path, reward_funcs=[Judges(), short, module], reward_weights=torch.tensor([0.5, 3.0, 1.0])
    )
    rewards = card_data_from_trainer(trainer).rewards
    assert [(part["name"], part["weight"], part.get("model")) for part in rewards] == [
        ("a", 1.0, "owner/a"), ("b", 1.0, "b"), ("short", 3.0, None),
        ("owner/reward-model", 1.0, "owner/reward-model"),
    ]  # fmt: skip
    trainer = tiny_trainer(tmp_path, reward_funcs=short)
    assert card_data_from_trainer(trainer).rewards == [{"name": "short", "weight": 1.0}]


def test_the_aggregation_of_a_combination_is_kept(tmp_path):
    def short(completions, **kwargs):
        return [0.0 for _ in completions]

    def long(completions, **kwargs):
        return [1.0 for _ in completions]

    combined = MultiClassifierReward([short, long], [1.0, 2.0], aggregation="minimum")
    data = card_data_from_trainer(tiny_trainer(tmp_path, reward_funcs=[combined]))
    assert data.aggregation == "minimum"
    assert [part["name"] for part in data.rewards] == ["short", "long"]
    # Beside others a trainer adds it up with them as one number.
    data = card_data_from_trainer(tiny_trainer(tmp_path, reward_funcs=[combined, short], reward_weights=[0.5, 1.0]))
    assert data.aggregation == "weighted_sum"
    assert [(part["name"], part["weight"]) for part in data.rewards] == [("short_long", 0.5), ("short", 1.0)]


def test_the_scale_of_evaluations_is_read_from_the_log(tmp_path):
    trainer = tiny_trainer(tmp_path)
    trainer.state.log_history += [
        {"eval_scale/short/mean": 1.0, "eval_scale/short/std": 2.0, "step": 2},
        {"eval_scale/inner/long/mean": 3.0, "eval_scale/inner/long/std": 4.0, "step": 2},
    ]
    assert card_data_from_trainer(trainer).evaluation_scales == {"short": (1.0, 2.0), "inner/long": (3.0, 4.0)}


def test_a_hub_data_set_is_recognized_by_its_files(tmp_path):
    rows = Dataset.from_dict({"prompt": ["a"]})
    rows.info.download_checksums = {"hf://datasets/owner/texts@abc/data/train.parquet": {}}
    data = card_data_from_trainer(tiny_trainer(tmp_path, train_dataset=rows))
    assert (data.dataset, data.train_rows) == ("owner/texts", 1)


def test_energy_is_what_codecarbon_measured(tmp_path):
    measured = SimpleNamespace(
        tracker=SimpleNamespace(final_emissions_data=SimpleNamespace(energy_consumed=0.5, emissions=0.2))
    )
    handler = SimpleNamespace(callbacks=[SimpleNamespace(), measured])
    card = generate_model_card(tiny_trainer(tmp_path, callback_handler=handler))
    assert "Energy: 0.5 kWh" in card
    assert front_matter(card)["co2_eq_emissions"]["emissions"] == 200.0


def test_rows_of_the_log_are_picked_evenly():
    assert picked(range(100), 4) == [0, 33, 66, 99]
    assert picked(range(3), 8) == [0, 1, 2]


def test_the_commit_is_of_a_checkout_that_knows_the_file(tmp_path):
    import subprocess

    def git(*arguments):
        who = ("-c", "user.name=a", "-c", "user.email=secret@example.com")
        subprocess.run(["git", *who, *arguments], cwd=tmp_path, check=True, capture_output=True)

    (tmp_path / "package").mkdir()
    file = tmp_path / "package" / "code.py"
    file.touch()
    assert record._checkout_commit(file) is None
    git("init")
    assert record._checkout_commit(file) is None
    git("add", ".")
    git("commit", "-m", "x")
    commit = record._checkout_commit(file)
    assert len(commit) == 40
    file.write_text("changed")
    assert record._checkout_commit(file) in (commit, f"{commit} with changes")


def tiny_llama(folder):
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = word_tokenizer(["<pad>", "</s>", "<unk>"], "$A")
    tokenizer.padding_side = "left"
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=128, pad_token_id=0, eos_token_id=1, bos_token_id=None,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def short_words(completions, **kwargs):
    return [-float(len(text)) for text in completions]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("algorithm", ["GRPO", "RLOO", "DPO"])
def test_a_run_of_trls_own_trainers_gets_a_card(tmp_path, monkeypatch, capsys, algorithm):
    import trl

    model = tiny_llama(tmp_path / "llama")
    folder = tmp_path / "trained"
    common = {
        "output_dir": str(folder),
        "max_steps": 1,
        "use_cpu": True,
        "bf16": False,
        "report_to": [],
        "logging_steps": 1,
    }
    texts = sentences(8)
    if algorithm == "DPO":
        args = trl.DPOConfig(**common, learning_rate=2e-4)
        rows = Dataset.from_dict({"prompt": texts, "chosen": texts, "rejected": texts[::-1]})
        trainer = trl.DPOTrainer(model, args=args, train_dataset=rows)
    else:
        settings = {"num_generations": 2, "max_completion_length": 4, "per_device_train_batch_size": 2}
        args = getattr(trl, f"{algorithm}Config")(**common, **settings, learning_rate=2e-4)
        rows = Dataset.from_dict({"prompt": texts})
        trainer = getattr(trl, f"{algorithm}Trainer")(model, short_words, args=args, train_dataset=rows)
    trainer.train()
    trainer.save_model()
    card = generate_model_card(trainer, license="mit")
    found = front_matter(card)
    assert check_metadata(card, "model") == []
    assert found["tags"][:2] == ["trl", algorithm.lower()]
    assert found["license"] == "mit"
    assert "licence" not in card
    assert f"fine-tuned with {algorithm} (TRL)" in card
    assert "| `learning_rate` | `0.0002` |" in card
    assert "Data: 8 prompts." in card
    assert trainer._paper["citation"].splitlines()[0] in card
    assert "None" not in card
    assert str(tmp_path) not in card
    assert ModelCard(card).data.tags
    if algorithm != "DPO":
        assert "| short_words | 1 | a function |" in card
        assert "| Step | Reward |" in card
    monkeypatch.chdir(folder)
    exec(compile(python_blocks(card)[0], "README.md", "exec"), {})
    assert capsys.readouterr().out
