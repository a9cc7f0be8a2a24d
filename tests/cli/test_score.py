import json
import subprocess
import sys

import pytest

from trl_rewards_plugin.cli.main import main
from trl_rewards_plugin.rewards import presets

TEXTS = ["The cat sleeps.", "naïve 日本語", "", "hello"]


def command(*arguments, **options):
    line = [sys.executable, "-m", "trl_rewards_plugin.cli.main", "score", *arguments]
    return subprocess.run(line, capture_output=True, text=True, encoding="utf-8", check=False, **options)


@pytest.mark.slow
def test_standard_input_to_standard_output():
    done = command("--reward", "tiny", input="\n".join(TEXTS) + "\n")
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["text"] for row in rows] == TEXTS
    assert [row["total"] for row in rows] == pytest.approx(presets.tiny.score(TEXTS).total.tolist(), abs=1e-5)
    assert "4 texts, " in done.stderr
    assert "texts/s" in done.stderr  # the progress bar
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_closed_pipe_is_not_an_error():
    line = f'"{sys.executable}" -m trl_rewards_plugin.cli.main score --reward tiny --input-format jsonl | head -1'
    lines = "".join(json.dumps({"text": f"text {number}"}) + "\n" for number in range(1_100))
    done = subprocess.run(line, shell=True, capture_output=True, text=True, check=False, input=lines)
    assert done.stdout.count("\n") == 1
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr


def test_both_spellings_a_config_file_and_a_summary(tmp_path, capsys):
    (tmp_path / "in.jsonl").write_text("".join(json.dumps({"line": text}) + "\n" for text in TEXTS))
    (tmp_path / "score.yaml").write_text("reward: tiny\ntext_column: nothing\n")
    flags = ["--config", str(tmp_path / "score.yaml"), "--text_column", "line", "--device", "cpu"]
    assert main(["score", str(tmp_path / "in.jsonl"), *flags, "--output", str(tmp_path / "out.csv")]) == 0
    told = capsys.readouterr()
    assert told.out == ""
    assert "4 texts in" in told.err
    mean = presets.tiny.score(TEXTS).total.mean().item()
    assert f"total {mean:.4f}" in told.err
    assert main(["score", "--input", str(tmp_path / "in.jsonl"), *flags, "--output", str(tmp_path / "out.csv")]) == 0
    assert "4 of them before" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a.jsonl", "--rewrad", "tiny"], "did you mean --reward"),
        (["a.jsonl", "--input", "b.jsonl"], "one input"),
        (["a.jsonl", "--reward", "tinny"], "the file a.jsonl"),
        (["a.jsonl", "--config", "none.yaml"], "no file"),
        (["a.jsonl", "b.jsonl"], "b.jsonl"),
    ],
)
def test_typos_are_refused_with_a_hint(capsys, monkeypatch, tmp_path, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert main(["score", *arguments]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "message"), [("rewrad: tiny", "did you mean 'reward'"), ("reward: [3]", "reward in")]
)
def test_a_config_file_that_does_not_fit_is_refused(capsys, tmp_path, content, message):
    (tmp_path / "score.yaml").write_text(content)
    assert main(["score", "a.jsonl", "--config", str(tmp_path / "score.yaml")]) == 2
    assert message in capsys.readouterr().err


def test_a_terminal_without_any_input_gets_a_next_step(capsys, monkeypatch):
    class Terminal:
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stdin", Terminal())
    assert main(["score", "--reward", "tiny"]) == 2
    assert "give a file, or pipe texts in" in capsys.readouterr().err
