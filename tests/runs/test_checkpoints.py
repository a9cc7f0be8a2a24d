import pytest

from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.runs.checkpoints import find_checkpoint, seal


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
    with pytest.raises(InputError, match="a whole checkpoint"):
        find_checkpoint(tmp_path / "empty", True)
    with pytest.raises(InputError, match="check the path"):
        find_checkpoint(tmp_path / "empty", "nowhere")
