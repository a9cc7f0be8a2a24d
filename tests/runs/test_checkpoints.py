import json
import os

import pytest

from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.runs import checkpoints
from trl_rewards_plugin.runs.checkpoints import damage, find_checkpoint, seal


def test_the_last_whole_checkpoint_is_found(tmp_path):
    for step in (2, 10, 12):
        (tmp_path / f"checkpoint-{step}").mkdir()
    for step in (2, 10):
        (tmp_path / f"checkpoint-{step}" / "trainer_state.json").write_text("{}")
        (tmp_path / f"checkpoint-{step}" / "optimizer.pt").touch()
        seal(tmp_path / f"checkpoint-{step}", {})
    assert find_checkpoint(tmp_path, True).name == "checkpoint-10"
    assert find_checkpoint(tmp_path, "true").name == "checkpoint-10"
    assert find_checkpoint(tmp_path, str(tmp_path / "checkpoint-2")) == tmp_path / "checkpoint-2"
    assert find_checkpoint(tmp_path, None) is None
    assert find_checkpoint(tmp_path, False) is None
    with pytest.raises(InputError, match=r"checkpoint-12: ppo_state\.json"):
        find_checkpoint(tmp_path, str(tmp_path / "checkpoint-12"))
    with pytest.raises(InputError, match=r"another of checkpoint-12, checkpoint-2, checkpoint-10"):
        find_checkpoint(tmp_path, "nowhere")
    with pytest.raises(InputError, match="a complete checkpoint"):
        find_checkpoint(tmp_path / "empty", True)
    with pytest.raises(InputError, match="check the path"):
        find_checkpoint(tmp_path / "empty", "nowhere")


STATE = {"kl_coef": 0.05, "episodes": 8, "epoch_scores": [1.5, 8], "seconds": 2.5, "alarms": {}, "metrics": [{}]}


def sealed(folder):
    folder.mkdir()
    (folder / "trainer_state.json").write_text('{"global_step": 4}')
    (folder / "optimizer.pt").write_bytes(b"state")
    seal(folder, {**STATE, "rewards": [{}]})
    return folder


@pytest.mark.parametrize("name", ["ppo_state.json", "trainer_state.json", "optimizer.pt"])
def test_no_flipped_bit_of_a_checkpoint_is_accepted(tmp_path, name):
    folder = sealed(tmp_path / "checkpoint-4")
    assert damage(folder) is None
    good = (folder / name).read_bytes()
    for place in range(len(good)):
        changed = bytearray(good)
        changed[place] ^= 1 << place % 8
        (folder / name).write_bytes(bytes(changed))
        assert damage(folder) is not None, (place, changed[place])


def test_a_checkpoint_of_an_earlier_version_without_a_checksum_of_its_state_is_still_whole(tmp_path):
    folder = sealed(tmp_path / "checkpoint-4")
    state = json.loads((folder / "ppo_state.json").read_text())
    del state["checksum"]
    (folder / "ppo_state.json").write_text(json.dumps(state))
    assert damage(folder) is None


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names here")
def test_a_pipe_in_place_of_the_state_is_damage_and_no_wait(tmp_path):
    (tmp_path / "checkpoint-1").mkdir()
    os.mkfifo(tmp_path / "checkpoint-1" / "ppo_state.json")
    assert "is missing or cannot be read" in damage(tmp_path / "checkpoint-1")


def published(tmp_path, name, new):
    unfinished = tmp_path / name / "unfinished" / "model"
    unfinished.mkdir(parents=True)
    for file in new:
        (unfinished / file).write_text(file)
    checkpoints.publish_files(unfinished, tmp_path)
    return {path.name for path in tmp_path.iterdir() if path.is_file()}


def test_a_saved_model_replaces_an_earlier_ones_weights_and_nothing_else(tmp_path):
    earlier = ("model-00001-of-00002.safetensors", "model.safetensors.index.json", "model_backup.safetensors")
    for file in (*earlier, "adapter_model.safetensors", "notes.txt"):
        (tmp_path / file).write_text("earlier")
    kept = published(tmp_path, "whole", ["model.safetensors", "config.json"])
    assert kept == {"model.safetensors", "config.json", "model_backup.safetensors", "notes.txt"}


def test_an_adapter_leaves_the_model_beside_it(tmp_path):
    (tmp_path / "model.safetensors").write_text("base")
    kept = published(tmp_path, "adapter", ["adapter_model.safetensors", "adapter_config.json"])
    assert kept == {"model.safetensors", "adapter_model.safetensors", "adapter_config.json"}
    assert (tmp_path / "model.safetensors").read_text() == "base"
