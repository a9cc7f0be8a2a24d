"""The configs of examples/accelerate are ones that `accelerate launch` takes, and say how they were tried."""

from pathlib import Path

import pytest
from accelerate.commands.config.config_args import load_config_from_file

CONFIGS = sorted((Path(__file__).parents[1] / "examples" / "accelerate").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_config_is_read_and_says_how_to_launch_it_and_where_it_was_run(path):
    config = load_config_from_file(str(path))
    assert config.num_processes == 2
    header = path.read_text(encoding="utf-8").split("compute_environment")[0]
    assert f"accelerate launch --config_file examples/accelerate/{path.name} examples/" in header
    assert "# Run: " in header
    assert "Not run: " in header


def test_there_is_one_for_each_way():
    assert [path.stem for path in CONFIGS] == ["ddp", "deepspeed_zero2", "deepspeed_zero3", "fsdp"]
