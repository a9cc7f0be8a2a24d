"""Real full disks: a small tmpfs under card, report, scores, checkpoints and the files of a finished run."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.recipes.tiny_run import SHORT, sentences
from trl_rewards_plugin import Seq2SeqPPO, Seq2SeqPPOConfig
from trl_rewards_plugin.cli.main import main
from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.rows import read_rows
from trl_rewards_plugin.runs.checkpoints import checkpoints, damage
from trl_rewards_plugin.runs.layout import is_finished_run

pytestmark = pytest.mark.slow


class Disk:
    """A file system of its own of `size` bytes at `path`."""

    def __init__(self, path: Path):
        self.path = path
        path.mkdir()

    def resize(self, size: int) -> None:
        subprocess.run(["mount", "-o", f"remount,size={size}", self.path], check=True)

    def fill(self) -> None:
        """Takes all room that is left."""
        self.resize(max(shutil.disk_usage(self.path).used, 4096))

    def mount(self, size: int = 1 << 30) -> bool:
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", self.path]
        return subprocess.run(command, check=False, capture_output=True).returncode == 0


@pytest.fixture
def disk(tmp_path):
    found = Disk(tmp_path / "disk")
    if shutil.which("mount") is None or not found.mount():
        pytest.skip("file systems cannot be mounted here")
    yield found
    subprocess.run(["umount", found.path], check=True)


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("command", [["card", "--overwrite-card"], ["report"]])
def test_card_and_report_stay_as_they_were(disk, finished_run, capsys, command):
    folder = shutil.copytree(finished_run, disk.path / "run", ignore=shutil.ignore_patterns("checkpoint-*"))
    assert main([*command, str(folder)]) == 0
    (folder / "README.md").write_text("# Mine\n")
    before = contents(folder)
    disk.fill()
    capsys.readouterr()
    assert main([*command, str(folder)]) == 2
    assert "Expected: room on the disk for" in capsys.readouterr().err
    assert contents(folder) == before


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_scores_go_on_where_the_disk_was_full(disk, tiny_run, tmp_path, capsys, kind):
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join(sentences(2000)))
    whole, output = tmp_path / f"whole.{kind}", disk.path / f"scores.{kind}"
    assert main(["score", str(texts), "--reward", tiny_run.reward, "--output", str(whole)]) == 0
    disk.resize(32 * 1024)
    capsys.readouterr()
    assert main(["score", str(texts), "--reward", tiny_run.reward, "--output", str(output)]) == 2
    assert "Expected: room on the disk for" in capsys.readouterr().err
    disk.resize(1 << 30)
    assert main(["score", str(texts), "--reward", tiny_run.reward, "--output", str(output)]) == 0
    found, expected = (list(read_rows(str(path), kind, "text")) for path in (output, whole))
    assert [row["text"] for row in found] == [row["text"] for row in expected]
    # Other batches, other last digits.
    totals = ([float(row["total"]) for row in rows] for rows in (found, expected))
    assert next(totals) == pytest.approx(next(totals), abs=1e-4)


def train(tiny_run, folder, resume=None):
    args = Seq2SeqPPOConfig(
        output_dir=str(folder), seed=0, save_steps=1, resume_from_checkpoint=resume, log_completions=True, **SHORT
    )
    inputs = tiny_run.model, tiny_run.reward, tiny_run.dataset
    return Seq2SeqPPO(*inputs, args=args, overwrite=resume is None, echo=lambda text: None).run()


@pytest.fixture(scope="module")
def whole_run(tiny_run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "run"
    train(tiny_run, folder)
    return folder


@pytest.mark.parametrize("missing", [1, 3, 10, 30, 0.1, 0.2, 0.5, 0.8])
def test_a_training_leaves_nothing_torn_and_goes_on_once_there_is_room(disk, whole_run, tiny_run, missing):
    """`missing` is in pages, or the share of all that a run writes."""
    pages = sum(-(-path.stat().st_size // 4096) for path in whole_run.rglob("*") if path.is_file())
    disk.resize(4096 * (pages - missing if missing >= 1 else int(pages * (1 - missing))))
    folder = disk.path / "run"
    with pytest.raises(InputError, match="room on the disk"):
        train(tiny_run, folder)
    assert [damage(checkpoint) for checkpoint in checkpoints(folder)] == [None] * len(checkpoints(folder))
    assert [name for name in contents(disk.path) if "unfinished" in name] == []
    assert not is_finished_run(folder) or json.loads((folder / "metrics.json").read_text())
    disk.resize(1 << 30)
    train(tiny_run, folder, resume="true" if checkpoints(folder) else None)
    assert is_finished_run(folder)
    assert (folder / "model.safetensors").read_bytes() == (whole_run / "model.safetensors").read_bytes()
