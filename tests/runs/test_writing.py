import json
import resource
import signal
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
