import warnings

import pytest
from datasets import Dataset

from tests.cards.test_model_card import front_matter
from tests.recipes.tiny_run import SHORT, sentences
from tests.tiny_models import tiny_t5
from trl_rewards_plugin import Seq2SeqPPOConfig, Seq2SeqPPOTrainer
from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.hub.stamp import is_untouched


def short_words(completions, **kwargs):
    return [-float(len(text)) for text in completions]


def make_trainer(tmp_path, **settings):
    args = Seq2SeqPPOConfig(output_dir=str(tmp_path / "out"), save_steps=1, report_to=[], **(SHORT | settings))
    rows = Dataset.from_dict({"prompt": sentences(16)})
    return Seq2SeqPPOTrainer(str(tiny_t5(tmp_path / "t5")), short_words, args=args, train_dataset=rows)


def test_every_checkpoint_gets_its_card_with_the_curves(tmp_path):
    trainer = make_trainer(tmp_path)
    trainer.train()
    for step in (1, 2):
        folder = tmp_path / "out" / f"checkpoint-{step}"
        card = (folder / "README.md").read_text(encoding="utf-8")
        assert is_untouched(card)
        assert "![Mean training reward" in card
        assert (folder / "reward_curve.png").read_bytes().startswith(b"\x89PNG")
        assert "| short_words | 1 | a function |" in card
        assert "Trained in " in card
        assert str(tmp_path) not in card
        assert "None" not in card


def test_push_to_hub_uploads_the_bare_model_with_its_card(hub, tmp_path):
    trainer = make_trainer(tmp_path, hub_model_id="me/ppo", save_strategy="no")
    url = trainer.push_to_hub(commit_message="My words", tags="mine")
    assert "/me/ppo/commit/" in url
    files = hub.files("me/ppo")
    assert {"README.md", "config.json", "model.safetensors", "tokenizer.json"} <= set(files)
    assert not [name for name in files if name.endswith((".bin", ".pt")) or "value_head" in name]
    assert "mine" in front_matter(files["README.md"].decode())["tags"]
    assert 'name = "me/ppo"' in files["README.md"].decode()
    assert hub.titles("me/ppo") == ["My words"]
    with pytest.raises(InputError, match="blocking=True"):
        trainer.push_to_hub(blocking=False)


def test_args_push_to_hub_uploads_each_save_and_the_end(hub, tmp_path):
    trainer = make_trainer(tmp_path, push_to_hub=True, hub_token=hub.token, hub_private_repo=True)
    assert trainer.hub_model_id == "me/out"
    assert hub.repos["model", "me/out"].private
    trainer.train()
    trainer.save_model()
    assert [title.split(",")[0] for title in hub.titles("me/out")] == [
        "Training in progress", "Training in progress", "Model save",
    ]  # fmt: skip
    files = hub.files("me/out")
    assert not [name for name in files if name.endswith((".bin", ".pt", ".pth")) or "state" in name]
    assert hub.token.encode() not in b"".join(files.values())


def test_a_save_that_cannot_be_uploaded_does_not_stop_training(hub, tmp_path):
    trainer = make_trainer(tmp_path, push_to_hub=True, hub_model_id="me/ppo")
    hub.fail("POST .*commit", 500, times=3)
    with pytest.warns(UserWarning, match="checkpoint-1 was not uploaded, training continues"):
        trainer.train()
    assert len(hub.titles("me/ppo")) == 1


def test_the_end_strategy_uploads_no_saves(hub, tmp_path):
    trainer = make_trainer(tmp_path, push_to_hub=True, hub_strategy="end")
    with warnings.catch_warnings():
        trainer.train()
    assert hub.titles("me/out") == []


def test_an_upload_that_would_fail_is_refused_before_training(hub, tmp_path, monkeypatch):
    with pytest.raises(InputError, match="uploads optimizer states"):
        make_trainer(tmp_path, push_to_hub=True, hub_strategy="all_checkpoints")
    with pytest.raises(InputError, match="permission to write"):
        make_trainer(tmp_path, push_to_hub=True, hub_model_id="someone/ppo")
    hub.create("model", "me/open", private=False)
    with pytest.raises(InputError, match="which exists and is public"):
        make_trainer(tmp_path, push_to_hub=True, hub_model_id="me/open", hub_private_repo=True)
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(InputError, match="hf auth login"):
        make_trainer(tmp_path, push_to_hub=True)


def test_the_card_of_a_finished_run_is_kept(hub, run, tmp_path):
    trainer = make_trainer(tmp_path, hub_model_id="me/ppo", save_strategy="no")
    trainer.args.output_dir = str(run)
    trainer.push_to_hub()
    assert "## Results" in hub.files("me/ppo")["README.md"].decode()
