"""`trl-rewards train --preset article` in a process of its own, without network, from a temporary Hub cache.

The cache holds tiny random models and twenty rows under the four real names. Leaves out: the real models.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import datasets
import huggingface_hub
import pytest
from datasets import load_dataset

from tests.stand_ins import NEWS, article_home, news_rows, snapshot
from trl_rewards_plugin.recipes.data import load_run_data

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def home(tmp_path):
    """An HF_HOME with the four names, as earlier runs leave them there."""
    return article_home(tmp_path)


def test_files_that_hf_download_left_serve_as_well(tmp_path, monkeypatch):
    data = snapshot(tmp_path, NEWS, "datasets") / "data"
    data.mkdir()
    news_rows().to_parquet(data / "train-00000-of-00001.parquet")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(ConnectionError):
        load_dataset(NEWS)
    assert len(load_run_data(NEWS, text_column="text").train) == 18


@pytest.mark.slow
def test_the_article_runs_offline_from_the_cache(home, tmp_path):
    folder = tmp_path / "run"
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ}
    environment = {
        **kept, "HF_HOME": str(home), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY),
    }  # fmt: skip
    command = [sys.executable, "-m", "trl_rewards_plugin.cli.main", "train", "--preset", "article", "--max_steps", "2"]
    result = subprocess.run(
        [*command, "--output_dir", str(folder), "--use_cpu"],
        env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "2 of 20 rows of argilla/news-summary, held out at random with seed 0" in result.stdout
    assert "1 x acceptability + 0.5 x neutrality" in result.stdout
    assert "Warning" not in result.stderr
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["episodes"] == 16
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "base_model: google/flan-t5-small" in card
    assert "pipeline_tag: summarization" in card
    assert "- argilla/news-summary" in card
