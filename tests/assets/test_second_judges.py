"""The benchmark that asks other judges about a run: here the bundled ones, about outputs made up."""

import runpy
import sys
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from trl_rewards_plugin.assets import asset_path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "second_judges.py"
WHOLE = ["The cat sat on the mat.", "We called the office on Monday.", "He went home after the long meeting."] * 3
SPOILT = ["Cat the on sat the mat mat.", "Called we office the on on.", "Went the after home he long long."] * 3


def test_it_prints_gains_of_sampled_and_greedy_outputs_and_what_the_sources_get(tmp_path, monkeypatch, capsys):
    columns = {"source": [f"{text} It rained." for text in WHOLE], "before": SPOILT, "after": WHOLE}
    columns |= {"before_greedy": WHOLE, "after_greedy": WHOLE}
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "completions.parquet")
    command = ["second_judges.py", tmp_path, "--acceptability", asset_path("acceptability-judge")]
    monkeypatch.setattr(sys, "argv", [*map(str, command), "--sentiment", str(asset_path("sentiment-judge"))])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    lines = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]
    found = {(decoding, name): rest for _, decoding, name, *rest in lines}
    names = ("reward", "acceptability", "neutrality", "acceptable", "neutral")
    assert set(found) == {(decoding, name) for decoding in ("sampled", "greedy") for name in names}
    sources, before, after, gain = map(float, found["sampled", "acceptability"][:4])
    assert sources == after  # the sources' first sentences
    assert gain == pytest.approx(after - before, abs=0.0011)
    assert gain > 0
    assert 0 <= float(found["sampled", "acceptable"][1]) <= float(found["sampled", "acceptable"][2]) <= 1
    assert found["greedy", "reward"][3:] == ["+0.000", "none:", "all", "alike"]
