import json
import os
import resource
import signal
import stat
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pyarrow.parquet
import pytest
import yaml

from trl_rewards_plugin.atomic import write_text
from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.runs import writing
from trl_rewards_plugin.runs.layout import is_housekeeping

LONG = "x" * 20_000
WRITERS = {
    "text": lambda path: write_text(path, LONG),
    "json": lambda path: writing.write_json(path, {"long": LONG}),
    "yaml": lambda path: writing.write_yaml(path, {"long": LONG}),
    "log": lambda path: writing.write_log(path, [{"long": LONG}]),
    "table": lambda path: writing.write_table(path, {"numbers": list(range(20_000))}),
}


@contextmanager
def no_room(size=4096):
    """Files above `size` bytes cannot be written, as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)


@pytest.mark.parametrize("kind", WRITERS)
def test_a_full_disk_leaves_the_old_file_and_says_what_to_do(tmp_path, kind):
    path = tmp_path / "file"
    path.write_text("old")
    with no_room(), pytest.raises(InputError, match=rf"room on the disk for {path}\n.*\n.*make room") as error:
        WRITERS[kind](path)
    assert isinstance(error.value.__cause__, OSError)
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("file", "old")]
    WRITERS[kind](path)
    assert path.stat().st_size > 4096


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


def test_contents_are_read_back_as_they_were(tmp_path):
    path, values = tmp_path / "file", {"b": 1, "a": ["\N{SNOWMAN}", 0.5, None]}
    writing.write_json(path, values)
    assert json.loads(path.read_text(encoding="utf-8")) == values
    writing.write_yaml(path, values)
    assert list(yaml.safe_load(path.read_text(encoding="utf-8")).items()) == list(values.items())
    writing.write_log(path, [values])
    writing.append_log(path, [values, {}])
    assert [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] == [values, values, {}]
    writing.write_rows(path, [{"a": 1}, {"b": "x"}])
    assert pyarrow.parquet.read_table(path).to_pylist() == [{"a": 1, "b": None}, {"a": None, "b": "x"}]


def test_what_parquet_and_utf8_cannot_hold_is_written_as_text(tmp_path):
    path = tmp_path / "file"
    writing.write_table(path, {"mixed": [1, "a", None], "lone": ["\ud800", "b", None]})
    assert pyarrow.parquet.read_table(path).to_pydict() == {"mixed": ["1", "a", None], "lone": ["\\ud800", "b", None]}
    write_text(path, "\ud800")
    assert path.read_text() == "\\ud800"


def test_metrics_without_a_number_are_an_error(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        writing.write_json(tmp_path / "metrics.json", {"before": {"reward": float("nan")}})
    assert list(tmp_path.iterdir()) == []


def test_runs_loads_no_heavy_library():
    names = [f"trl_rewards_plugin.runs.{path.stem}" for path in Path(writing.__file__).parent.glob("*.py")]
    heavy = "torch", "transformers", "accelerate", "datasets", "pyarrow", "matplotlib", "huggingface_hub"
    code = (
        f"import importlib, sys; [importlib.import_module(name) for name in {names}]; "
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
