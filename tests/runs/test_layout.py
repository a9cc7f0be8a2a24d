import pytest

from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.ppo.monitoring.completions import write_completions
from trl_rewards_plugin.runs.layout import clear_run, holds_run, refuse_run


def test_a_folder_with_a_run_is_refused_unless_overwritten(tmp_path):
    refuse_run(tmp_path / "new", overwrite=False)
    (tmp_path / "notes.txt").touch()
    refuse_run(tmp_path, overwrite=False)
    (tmp_path / "checkpoint-4").mkdir()
    (tmp_path / "metrics.json").touch()
    with pytest.raises(InputError, match=r"checkpoint-4, metrics\.json"):
        refuse_run(tmp_path, overwrite=False)
    refuse_run(tmp_path, overwrite=True)
    with pytest.raises(InputError, match=r"the file .*notes\.txt"):
        refuse_run(tmp_path / "notes.txt", overwrite=True)
    write_completions(tmp_path / "completions", {"prompt": ["x"]}, 1)
    (tmp_path / "log.jsonl").touch()
    assert holds_run(tmp_path) == ["checkpoint-4", "completions", "log.jsonl", "metrics.json"]
    clear_run(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
