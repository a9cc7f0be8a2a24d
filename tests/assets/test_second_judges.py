"""The benchmark that asks other judges about a run: here the bundled ones, about outputs made up."""

import runpy
import sys
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from trl_rewards_plugin.assets import asset_path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "second_judges.py"
WHOLE = ["The cat sat on the mat.", "We called the office on Monday.", "He went home after the long meeting."] * 3
SPOILT = ["Cat the on sat the mat mat.", "Called we office the on on.", "Went the after home he long long."] * 3


@pytest.fixture
def figures(tmp_path, monkeypatch, capsys):
    """Runs the script on a run with these columns: (decoding, name) -> the words of its line."""

    def run(columns, *flags):
        pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "completions.parquet")
        judges = {"--acceptability": "acceptability-judge", "--sentiment": "sentiment-judge"}
        given = [word for flag, name in judges.items() for word in (flag, str(asset_path(name)))]
        monkeypatch.setattr(sys, "argv", ["second_judges.py", str(tmp_path), *given, *flags])
        runpy.run_path(str(SCRIPT), run_name="__main__")
        lines = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]
        return {(decoding, name): rest for _, decoding, name, *rest in lines}

    return run


def test_it_prints_gains_of_sampled_and_greedy_outputs_and_what_the_sources_get(figures):
    columns = {"source": [f"{text} It rained." for text in WHOLE], "before": SPOILT, "after": WHOLE}
    found = figures({**columns, "before_greedy": WHOLE, "after_greedy": WHOLE})
    names = ("reward", "acceptability", "neutrality", "acceptable", "neutral")
    assert set(found) == {(decoding, name) for decoding in ("sampled", "greedy") for name in names}
    sources, before, after, gain = map(float, found["sampled", "acceptability"][:4])
    assert sources == after  # the sources' first sentences
    assert gain == pytest.approx(after - before, abs=0.0011)
    assert gain > 0
    assert 0 <= float(found["sampled", "acceptable"][1]) <= float(found["sampled", "acceptable"][2]) <= 1
    assert found["greedy", "reward"][3:] == ["+0.000", "none:", "all", "alike"]


def test_it_draws_more_samples_from_the_starting_and_the_trained_model(figures, tmp_path):
    model = AutoModelForSeq2SeqLM.from_pretrained(asset_path("tiny-t5"))
    AutoTokenizer.from_pretrained(asset_path("tiny-t5")).save_pretrained(tmp_path)
    model.save_pretrained(tmp_path)  # as if nothing had been learnt
    (tmp_path / "config.yaml").write_text("model: bundled:tiny-t5\nseed: 0\nresponse_length: 8\n", encoding="utf-8")
    greedy = {"before_greedy": WHOLE[:2], "after_greedy": WHOLE[:2]}
    kept = {"before": SPOILT[:2], "after": WHOLE[:2]}  # not read
    columns = {"prompt": WHOLE[:2], "source": WHOLE[:2], **kept, **greedy}
    found = figures(columns, "--samples", "3")
    assert found["sampled", "reward"][1] == found["sampled", "reward"][2]
    share = float(found["sampled", "acceptable"][1])
    assert share * 6 == pytest.approx(round(share * 6), abs=0.004)  # of 2 prompts' 3 samples
    assert found["sampled", "reward"][3:] == found["greedy", "reward"][3:] == ["+0.000", "none:", "all", "alike"]
    model.lm_head.weight.data.zero_()  # every token is as likely
    model.save_pretrained(tmp_path)
    spoilt = figures(columns, "--samples", "3")["sampled", "reward"]
    assert spoilt[1] == found["sampled", "reward"][1]
    assert float(spoilt[3]) < 0
