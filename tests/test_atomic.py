import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from trl_rewards_plugin.atomic import write_text
from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.rewards.files.file_content import write_preset_file
from trl_rewards_plugin.runs.layout import is_housekeeping

LONG = "x" * 20_000


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_device_is_written_to_directly():
    with pytest.raises(InputError, match="room on the disk for /dev/full"):
        write_text(Path("/dev/full"), LONG)
    write_text(Path(os.devnull), LONG)
    assert Path(os.devnull).is_char_device()


def test_a_writer_that_is_killed_leaves_the_old_file_and_nothing_that_looks_like_one_of_the_run(tmp_path):
    path = tmp_path / "completions_00001.parquet"
    path.write_text("old")
    code = (
        "import os, sys; from pathlib import Path; from trl_rewards_plugin.atomic import replacing\n"
        "with replacing(Path(sys.argv[1])) as unfinished:\n"
        "    unfinished.write_text('half of the ne'); os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", code, path], check=False).returncode == -signal.SIGKILL
    assert path.read_text() == "old"
    assert list(tmp_path.glob("*.parquet")) == [path]
    (left,) = (file for file in tmp_path.iterdir() if file != path)
    assert is_housekeeping(left.name)


def test_a_file_keeps_its_permissions_and_a_new_one_gets_the_usual_ones(tmp_path):
    old, new, usual = tmp_path / "old", tmp_path / "new", tmp_path / "usual"
    old.touch()
    old.chmod(0o640)
    usual.touch()
    for path in (old, new):
        write_text(path, "x")
    assert stat.S_IMODE(old.stat().st_mode) == 0o640
    assert new.stat().st_mode == usual.stat().st_mode


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "elsewhere" / "file")
    write_text(link, "x")
    assert link.is_symlink()
    assert (tmp_path / "elsewhere" / "file").read_text() == "x"


def test_places_that_cannot_be_written_to_are_named(tmp_path):
    with pytest.raises(InputError, match=f"the folder {tmp_path}"):
        write_text(tmp_path, "x")
    with pytest.raises(InputError, match=r"a place where .* can be written\nFound:    No such file or directory"):
        write_text(tmp_path / "missing" / "file", "x")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names here")
def test_a_pipe_that_nobody_reads_is_an_error_and_no_wait(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match=r"a place where .*pipe can be written"):
        write_text(tmp_path / "pipe", "x")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    write_text(tmp_path / "pipe", "x")
    assert os.read(reader, 10) == b"x"
    os.close(reader)


def test_reward_files_are_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "reward.yaml"
    write_preset_file(path, {"rewards": []})
    old = path.read_text()
    monkeypatch.setattr(os, "replace", lambda *names: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(InputError, match=f"room on the disk for {path}"):
        write_preset_file(path, {"rewards": [], "name": "new"})
    assert [file.read_text() for file in tmp_path.iterdir()] == [old]
