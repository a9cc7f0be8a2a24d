import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import evaluate
import pyarrow.parquet
import pytest
import yaml

from tests.documentation import ROOT, blocks_of
from tests.recipes.tiny_run import SHORT, sentences
from tests.tiny_models import tiny_bart
from trl_rewards_plugin import Seq2SeqPPO, terminal
from trl_rewards_plugin.cli import main as cli
from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.metrics.paired_gain import paired_gain
from trl_rewards_plugin.pipelines import text2text_pipeline
from trl_rewards_plugin.recipes.evaluate import compare, evaluation_inputs
from trl_rewards_plugin.recipes.evaluate.evaluation_inputs import read_outputs

ROUGE = str(Path(__file__).parents[1] / "metrics" / "rouge_here")
GAIN = str(Path(__file__).parents[2] / "trl_rewards_plugin" / "metrics" / "reward_gain")

pytestmark = pytest.mark.usefixtures("evaluate_cache")


@pytest.fixture(autouse=True)
def _loud(monkeypatch):
    """The command turns warnings and logs down for its process, which is pytest's own here."""
    monkeypatch.setattr(terminal, "silence_libraries", lambda: None)


@pytest.fixture(autouse=True)
def _offline(monkeypatch):
    """A metric that is not here would be looked for on the Hub."""
    monkeypatch.setattr(evaluate.config, "HF_EVALUATE_OFFLINE", True)


def rows_of(path):
    return pyarrow.parquet.read_table(path).to_pylist()


def result_of(folder):
    return json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))


@pytest.fixture
def pairs(tmp_path):
    """A file with two columns of outputs and their sources."""
    path = tmp_path / "pairs.jsonl"
    rows = [
        {
            "output": "The cat sleeps.",
            "old": "cat the sleeps the",
            "text": "The cat sleeps on the mat.",
            "best": "A cat.",
        },
        {"output": "I went home.", "old": "I went home.", "text": "I went home early.", "best": "I went."},
        {"output": "", "old": "went I", "text": "He went.", "best": "He went."},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_two_files_of_outputs_by_hand(pairs, tmp_path, capsys):
    folder = tmp_path / "out"
    argv = ["evaluate", str(pairs), "--compare", str(pairs), "--compare_column", "old", "--dataset", str(pairs)]
    argv += ["--text-column", "text", "--metrics", ROUGE, "--output_dir", str(folder)]
    assert cli.main(argv) == 0
    out = capsys.readouterr().out
    result = result_of(folder)
    # ROUGE-L F1 by hand: 3 of 3 and 6 words 2/3; 3 and 4 words 6/7; 0. Before: longest common subsequences of "cat
    # the sleeps the" with its source: "the sleeps the" 3, of 4 and 6 words 3/5; 6/7; "went" 1 of 2 and 2 words 1/2.
    after, before = [2 / 3, 6 / 7, 0.0], [3 / 5, 6 / 7, 1 / 2]
    row = result["metrics"]["rouge_here rougeL"]
    assert row["after"] == pytest.approx(sum(after) / 3)
    assert row["before"] == pytest.approx(sum(before) / 3)
    expected = paired_gain(before, after)
    assert row["gain"]["reward_gain"] == pytest.approx(expected["reward_gain"])
    assert row["gain"]["ci95"] == pytest.approx(expected["ci95"])
    assert row["gain"]["share_improved"] == pytest.approx(1 / 3)
    assert result["n"] == 3
    assert (result["after"], result["before"]) == ("pairs.jsonl (column output)", "pairs.jsonl (column old)")
    assert result["decoding"] is None
    line = next(line for line in out.splitlines() if line.startswith("rouge_here"))
    assert line.split()[2:5] == ["0.652", "0.508", "-0.144"]
    assert line.split()[-1] == "33%"
    assert (folder / "distributions.png").read_bytes().startswith(b"\x89PNG")
    table = rows_of(folder / "outputs.parquet")
    assert [row["after"] for row in table] == ["The cat sleeps.", "I went home.", ""]
    assert [row["before rouge_here rougeL"] for row in table] == pytest.approx(before)


def test_rouge_needs_no_hub_and_a_bar_that_is_missed_is_an_exit_code(pairs, tmp_path, capsys):
    argv = ["evaluate", str(pairs), "--compare", str(pairs), "--compare_column", "old", "--metrics", "rouge"]
    argv += ["--dataset", str(pairs), "--text_column", "text", "--overwrite", "--output_dir", str(tmp_path / "out")]
    assert cli.main([*argv, "--fail_under", "rougeL=0.5"]) == 0
    # The means of three outputs, as by hand above: 0.508.
    assert result_of(tmp_path / "out")["metrics"]["rougeL"]["after"] == pytest.approx(0.508, abs=1e-3)
    assert "rougeL: not distinguishable from before: fewer than 5 pairs" in capsys.readouterr().out
    assert cli.main([*argv, "--fail-under", "rougeL=0.6", "rougeL=0.9", "--fail-under", "rouge1=0"]) == 3
    reasons = ["rougeL is 0.508, under 0.6", "rougeL is 0.508, under 0.9"]
    assert capsys.readouterr().err.endswith("".join(f"trl-rewards: failed: {reason}\n" for reason in reasons))
    result = result_of(tmp_path / "out")
    assert result["bars"] == ["rougeL at least 0.6", "rougeL at least 0.9", "rouge1 at least 0"]
    assert result["failed"] == reasons
    assert cli.main([*argv, "--fail-under", "rouge=0.6"]) == 2
    assert "'rouge', which is not one of them" in capsys.readouterr().err
    assert result_of(tmp_path / "out") == result


def test_what_is_worse_fails_and_what_cannot_be_told_apart_does_not():
    settings = compare.EvaluationSettings(fail_if_worse=True, fail_under=["reward=0.5"])
    worse, unclear = {"n": 9, "ci95": [-0.2, -0.1]}, {"n": 9, "ci95": [-0.2, 0.1]}
    rows = {"tiny reward": {"after": None, "gain": unclear}, "length": {"after": 1.0, "gain": worse}}
    told = compare.failed({"metrics": rows}, settings)
    assert told == ["tiny reward is -, under 0.5", "length: worse than before: the interval of its gain excludes 0"]
    rows["words"] = rows["length"]
    assert compare.failed({"metrics": rows}, settings)[1:] == [
        "length, words: worse than before: the interval of its gain excludes 0"
    ]
    few = rows["tiny reward"] = {"after": 0.5, "gain": {"n": 1, "ci95": [None, None], "reward_gain": -1.0}}
    assert len(compare.failed({"metrics": rows}, settings)) == 1
    (reason,) = compare.failed({"metrics": {"tiny reward": few}}, settings)
    assert reason.endswith("none can be found worse")


def test_worse_in_every_pair_by_the_same_and_worse_by_rising_fail_and_so_does_what_cannot_be_compared():
    equal = {"n": 40, "ci95": [None, None], "reward_gain": -1.0}
    risen, fallen = ({"n": 9, "ci95": ends} for ends in ([0.1, 0.2], [-0.2, -0.1]))
    settings = compare.EvaluationSettings(fail_if_worse=True, lower_is_better=["toxicity", "perplexity"])
    rows = {"exact_match": {"gain": equal}, "toxicity": {"gain": risen}, "a perplexity": {"gain": fallen}}
    assert compare.failed({"metrics": rows}, settings) == [
        "exact_match: worse than before: all pairs moved equally",
        "toxicity: worse (higher) than before: the interval of its gain excludes 0",
    ]
    with pytest.raises(InputError, match="a row of the table in lower_is_better: exact_match"):
        compare.failed({"metrics": {"exact_match": {"gain": equal}}}, settings)
    (reason,) = compare.failed({"metrics": {"bleu": {"after": 0.3}}}, compare.EvaluationSettings(fail_if_worse=True))
    assert "none can be found worse" in reason


def test_a_row_is_named_as_it_stands_in_the_file_where_others_are_skipped(tmp_path):
    path = tmp_path / "outputs.jsonl"
    path.write_text('{"output": "a"}\n{"output": null}\n{"output": 3}\n', encoding="utf-8")
    with pytest.raises(InputError, match="3 in row 3"):
        read_outputs(str(path), "output", "skip")


def measured(self, *args):
    raise AssertionError("the outputs were made or measured before the names were checked")


@pytest.mark.parametrize(
    ("metrics", "flags", "step"),
    [
        (["rouge"], ["--fail-under", "rougel=0.2"], "did you mean 'rougeL'?"),
        (["rouge", "tiny"], ["--fail-under", "bleu=0.3"], "name one in full"),
        (["tiny"], ["--lower-is-better", "toxicity"], "name one in full"),
        (["grammaticality", "neutrality"], ["--fail-under", "share_above=0"], "name one in full"),
    ],
)
def test_a_name_of_no_row_is_refused_before_anything_is_made_or_measured(
    pairs, tmp_path, capsys, monkeypatch, metrics, flags, step
):
    monkeypatch.setattr(compare, "outputs_of", measured)
    argv = ["evaluate", str(pairs), "--dataset", str(pairs), "--text_column", "text", "--metrics", *metrics, *flags]
    assert cli.main([*argv, "--output_dir", str(tmp_path / "out")]) == 2
    assert step in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_rows_that_are_known_beforehand_are_those_that_come(tiny_run, pairs, tmp_path, monkeypatch):
    known = []
    for module in (compare, evaluation_inputs):
        monkeypatch.setattr(module, "check_names", lambda settings, rows: known.append(list(rows)))
    argv = ["evaluate", str(pairs), "--dataset", str(pairs), "--text_column", "text"]
    argv += ["--overwrite", "--output_dir", str(tmp_path / "out"), "--metrics", "rouge", "tiny", "grammaticality"]
    for further, times in ([], 3), ([tiny_run.reward], 2):
        known.clear()
        assert cli.main([*argv, *further]) == 0
        assert known == [list(result_of(tmp_path / "out")["metrics"])] * times


def test_a_name_that_only_the_result_can_tell_is_refused_before_anything_is_written(pairs, tmp_path, capsys):
    argv = ["evaluate", str(pairs), "--dataset", str(pairs), "--text_column", "text", "--metrics", ROUGE]
    argv += ["--output_dir", str(tmp_path / "out")]
    assert cli.main([*argv, "--fail-under", "rougel=0.2"]) == 2
    assert "did you mean 'rougeL'?" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert cli.main([*argv, "--fail-under", "rougeL=0.2"]) == 0


def test_the_references_are_named_where_a_metric_compares_with_them(pairs, tmp_path, capsys):
    def printed(*flags):
        argv = ["evaluate", str(pairs), "--dataset", str(pairs), "--text_column", "text", "--overwrite", *flags]
        assert cli.main([*argv, "--output_dir", str(tmp_path / "out")]) == 0
        return capsys.readouterr().out, result_of(tmp_path / "out")["references"]

    out, saved = printed("--metrics", "rouge")
    assert re.search(r"^References +the prompts$", out, re.M)
    assert saved == "the prompts"
    out, saved = printed("--metrics", "rouge", "--reference_column", "best")
    assert re.search(r"^References +column 'best'$", out, re.M)
    assert saved == "column 'best'"
    out, saved = printed("--metrics", "grammaticality")
    assert "References" not in out
    assert saved is None


def test_a_column_of_references(pairs, tmp_path):
    argv = ["evaluate", str(pairs), "--dataset", str(pairs), "--text_column", "text", "--reference_column", "best"]
    assert cli.main([*argv, "--metrics", ROUGE, "--output_dir", str(tmp_path / "out")]) == 0
    result = result_of(tmp_path / "out")
    # "The cat sleeps." and "A cat.": 1 of 3 and 2 words, 2/5; "I went home." and "I went.": 4/5; nothing: 0.
    assert result["metrics"]["rouge_here rougeL"]["after"] == pytest.approx((2 / 5 + 4 / 5) / 3)
    assert result["references"] == "column 'best'"


def test_references_may_stand_beside_the_outputs(pairs, tmp_path, capsys):
    argv = ["evaluate", str(pairs), "--reference_column", "best", "--metrics", "rouge", "--rows", "2"]
    assert cli.main([*argv, "--output_dir", str(tmp_path / "out")]) == 0
    assert result_of(tmp_path / "out")["metrics"]["rougeL"]["after"] == pytest.approx((2 / 5 + 4 / 5) / 2)
    assert re.search(r"^Outputs .*\nReferences +column 'best'$", capsys.readouterr().out, re.M)


def test_rows_in_the_same_order_may_have_the_prefix_in_front(tmp_path):
    names = [str(tmp_path / name) for name in ("new.csv", "old.csv", "prompts.csv")]
    for name, prompt in zip(names, ("fix: a b", "a  b", "a b"), strict=True):
        Path(name).write_text(f"prompt,output\n{prompt},a\n", encoding="utf-8")
    argv = ["evaluate", names[0], "--compare", names[1], "--dataset", names[2], "--metrics", "rouge"]
    assert cli.main([*argv, "--prompt_prefix", "fix: ", "--output_dir", str(tmp_path / "out")]) == 0
    assert cli.main([*argv, "--output_dir", str(tmp_path / "other")]) == 0  # another model's prefix
    for prompt in ("a c", "''"):
        Path(names[1]).write_text(f"prompt,output\n{prompt},a\n".replace("''", ""), encoding="utf-8")
        assert cli.main([*argv, "--missing", "empty", "--output_dir", str(tmp_path / "third")]) == 2


def test_results_go_to_a_folder_of_the_name_of_the_file(pairs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["evaluate", "pairs.jsonl", "--metrics", "rouge", "--reference_column", "best"]) == 0
    assert result_of(tmp_path / "evaluations" / "pairs")["n"] == 3


def test_a_file_alone_by_our_metrics(pairs, tmp_path, capsys):
    assert cli.main(["evaluate", str(pairs), "--output-dir", str(tmp_path / "out")]) == 0
    captured = capsys.readouterr()
    result = result_of(tmp_path / "out")
    assert list(result["metrics"]) == [
        "grammaticality", "grammaticality share_above", "neutrality", "neutrality share_above"
    ]  # fmt: skip
    assert result["before"] is None
    row = result["metrics"]["grammaticality"]
    assert "gain" not in row
    assert row["quartiles"][0] <= row["after"] <= row["quartiles"][4]
    assert "median" in captured.out
    assert "score above the metric's threshold: 0.5 for probabilities" in " ".join(captured.out.split())
    assert "judge of the preset tiny" in captured.out
    assert "Metrics" in captured.err, "a bar on standard error"


def test_lines_of_a_text_file_are_outputs_empty_ones_too(tmp_path):
    path = tmp_path / "outputs.txt"
    path.write_text("The cat sleeps.\n\nI went home.\n", encoding="utf-8")
    argv = ["evaluate", str(path), "--metrics", "grammaticality", "--output_dir", str(tmp_path / "out")]
    assert cli.main(argv) == 0
    assert [row["after"] for row in rows_of(tmp_path / "out" / "outputs.parquet")] == [
        "The cat sleeps.",
        "",
        "I went home.",
    ]


def test_a_reward_file_is_a_metric(tiny_run, pairs, tmp_path):
    argv = ["evaluate", str(pairs), "--metrics", tiny_run.reward, "--output_dir", str(tmp_path / "out")]
    assert cli.main(argv) == 0
    found = {name: row["after"] for name, row in result_of(tmp_path / "out")["metrics"].items()}
    total, acceptability, neutrality = found.values()
    assert list(found) == ["two-judges reward", "two-judges acceptability", "two-judges neutrality"]
    assert total == pytest.approx(acceptability + 0.5 * neutrality, abs=1e-5)


def test_arguments_of_metrics(tiny_run, pairs, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "110")  # lines are wrapped to the terminal's width
    judge = str(Path(tiny_run.reward).parent / "acceptability")
    arguments = {"grammaticality": {"config_name": judge, "label": "unacceptable", "score_type": "logit"}}
    argv = ["evaluate", str(pairs), "--metrics", "grammaticality", "--metric-kwargs", json.dumps(arguments)]
    assert cli.main([*argv, "--output_dir", str(tmp_path / "out")]) == 0
    shown = "grammaticality (judge: acceptability, label: unacceptable, score_type: logit)"
    assert re.search(rf"^Metrics +{re.escape(shown)}$", capsys.readouterr().out, re.M)
    recorded = (tmp_path / "out" / "evaluation.json").read_text(encoding="utf-8")
    assert json.loads(recorded)["metric_kwargs"]["grammaticality"]["label"] == "unacceptable"
    assert str(tmp_path) not in recorded
    assert str(Path(judge).parent) not in recorded
    assert cli.main(["report", str(tmp_path / "out"), "--output", str(tmp_path / "r.html")]) == 0
    assert shown in (tmp_path / "r.html").read_text(encoding="utf-8")
    from trl_rewards_plugin import ClassifierReward

    texts = [row["after"] for row in rows_of(tmp_path / "out" / "outputs.parquet")]
    scores = [row["after grammaticality"] for row in rows_of(tmp_path / "out" / "outputs.parquet")]
    assert scores == pytest.approx(ClassifierReward(judge, label="unacceptable")(texts), abs=1e-6)


def test_no_secret_and_no_path_in_the_arguments_of_metrics_is_recorded():
    token = "hf_" + "a" * 34
    given = {
        "token": "mine",
        "hub_token": token,
        "headers": {"api_key": "k"},
        "note": [f"by {token}"],
        "max_tokens": 3,
    }
    arguments = {"rouge": given, "perplexity": {"model_id": "file:/home/someone/judge"}}
    settings = evaluation_inputs.EvaluationSettings(model="tiny", metrics=[*arguments], metric_kwargs=arguments)
    inputs = evaluation_inputs.EvaluationInputs(settings)
    inputs.data_name = inputs.references = None
    recorded = inputs.describe()
    assert recorded["metric_kwargs"]["rouge"] == {
        "token": "(secret)", "hub_token": "(secret)", "headers": {"api_key": "(secret)"},
        "note": ["by (a Hugging Face token)"], "max_tokens": 3,
    }  # fmt: skip
    assert recorded["metric_kwargs"]["perplexity"] == {"model_id": "judge"}
    assert recorded["measured_by"] == inputs.plan()["Metrics"]
    assert not any(part in recorded["measured_by"] for part in (token, "mine", "someone", "'k'"))


def test_two_models_on_a_data_set(tiny_run, tmp_path, capsys):
    bart = str(tiny_bart(tmp_path / "bart"))
    argv = ["evaluate", tiny_run.model, "--compare", bart, "--dataset", tiny_run.dataset, "--rows", "5"]
    argv += ["--metrics", ROUGE, "--max-new-tokens", "6", "--batch-size", "3", "--output-dir", str(tmp_path / "out")]
    assert cli.main(argv) == 0
    table = rows_of(tmp_path / "out" / "outputs.parquet")
    prompts = sentences(40)[:5]
    assert [row["prompt"] for row in table] == prompts
    for side, model in (("after", tiny_run.model), ("before", bart)):
        records = text2text_pipeline(model)(prompts, max_new_tokens=6)
        assert [row[side] for row in table] == [record["generated_text"] for record in records]
    captured = capsys.readouterr()
    assert "the first 5 of 40 rows of prompts.jsonl" in captured.out
    assert "Outputs of" in captured.err
    assert result_of(tmp_path / "out")["decoding"] == {"max_new_tokens": 6, "seed": 0}


def test_sampling_depends_on_the_seed_alone(tiny_run, tmp_path):
    def outputs(seed, name):
        argv = ["evaluate", tiny_run.model, "--dataset", tiny_run.dataset, "--rows", "4", "--max_new_tokens", "6"]
        argv += ["--sample", "--seed", str(seed), "--metrics", ROUGE, "--output_dir", str(tmp_path / name)]
        assert cli.main(argv) == 0
        return [row["after"] for row in rows_of(tmp_path / name / "outputs.parquet")]

    first = outputs(1, "a")
    assert outputs(1, "b") == first
    assert outputs(2, "c") != first
    assert result_of(tmp_path / "a")["decoding"]["do_sample"] is True


@pytest.mark.slow
def test_a_run_folder_brings_its_prompts_and_its_starting_model(tmp_path):
    run, folder = tmp_path / "run", tmp_path / "out"
    settings = {**SHORT, "max_steps": 1, "per_device_train_batch_size": 16}
    recipe = Seq2SeqPPO.from_preset("tiny", output_dir=str(run), echo=lambda text: None, **settings)
    recipe.run()
    argv = ["evaluate", str(run), "--metrics", "tiny", "--batch_size", "96", "--output_dir", str(folder)]
    assert cli.main(argv) == 0
    result, claim = result_of(folder), json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    assert (result["before"], result["n"]) == ("bundled:tiny-t5", 96)
    # The run decoded the same prompts greedily, by its own sampler.
    row = result["metrics"]["tiny reward"]
    assert row["after"] == pytest.approx(claim["after_greedy"]["reward"], abs=1e-4)
    assert row["before"] == pytest.approx(claim["before_greedy"]["reward"], abs=1e-4)
    alone = ["evaluate", str(run), "--compare", "none", "--rows", "2", "--metrics", "tiny"]
    assert cli.main([*alone, "--output_dir", str(tmp_path / "alone")]) == 0
    assert result_of(tmp_path / "alone")["before"] is None


def test_a_config_file_and_stronger_flags(pairs, tmp_path, monkeypatch):
    path = tmp_path / "evaluate.yaml"
    values = {"model": str(pairs), "metrics": ["grammaticality"], "rows": 2, "metric_kwargs": {"grammaticality": {}}}
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    seen = []
    monkeypatch.setattr(compare, "evaluate_outputs", lambda inputs: seen.append(inputs.settings) or {})
    assert cli.main(["evaluate", "--config", str(path), "--rows", "3", "--output-dir", "x"]) == 0
    (settings,) = seen
    assert (settings.model, settings.metrics, settings.rows, settings.output_dir) == (
        str(pairs), ["grammaticality"], 3, "x"
    )  # fmt: skip
    assert settings.metric_kwargs == {"grammaticality": {}}
    assert settings.batch_size == 16


def test_help_says_every_option(capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(["evaluate", "--help"])
    assert caught.value.code == 0
    out = capsys.readouterr().out
    assert all(flag in out for flag in ("--compare", "--metric-kwargs", "--metric_kwargs", "--config"))
    assert "(default: ['grammaticality', 'neutrality'])" in out


@pytest.mark.parametrize(
    ("argv", "found", "step"),
    [
        (["--metrics", "gramaticality"], "'gramaticality'", "did you mean 'grammaticality'?"),
        (["--metrics", "./no-such-module"], "no-such-module", "check the path"),
        (["--metrics", "grammaticality", "grammaticality"], "grammaticality grammaticality", "once"),
        (["--metrics", GAIN], "reward_gain, whose predictions", "name another metric"),
        (["--metrics", ROUGE], "only predictions", "--dataset"),
        (
            ["--metrics", "grammaticality", "--metric-kwargs", '{"gramaticality": {}}'],
            "'gramaticality'",
            "did you mean",
        ),
        (
            ["--metric-kwargs", '{"neutrality": {"score_typ": "logit"}}'],
            "'score_typ'",
            "did you mean 'score_type'?",
        ),
        (["--metric-kwargs", '{"neutrality": {"score_type": "logits"}}'], "'logits'", "use one of these"),
        (["--metric-kwargs", '{"neutrality": {"predictions": []}}'], "'predictions'", "see what its compute takes"),
        (
            ["--metric-kwargs", '{"neutrality": {"config_name": "/no/such/judge", "label": 1}}'],
            "'/no/such/judge': ",
            "check the path",
        ),
        (["--metric-kwargs", "{bad"], "invalid JSON", "--help"),
        (["--metric-kwargs", "[1]"], "a JSON object", "--help"),
        (["--model", "other"], "and --model other", "leave one of them out"),
        (["--output_colum", "x"], "--output_colum", "did you mean --output_column?"),
        (["--output_column", "outptu"], "output", "did you mean 'output'?"),
        (["--compare", "pairs.jsonl"], "no such file", "check the path"),
        (["--compare", "EMPTY.txt"], "an empty file", "with rows"),
        (["--compare", "BROKEN.jsonl"], "Expecting value at column 12", "fix that line"),
        (["--compare", "HOLES.jsonl"], "none in row 2", "''"),
        (["--compare", "SHORT.txt"], "2 in ", "same prompts"),
        (
            ["--compare", "JUDGE", "--dataset", "PAIRS", "--text_column", "text"],
            "which is not one",
            "google/flan-t5-small",
        ),
        (["--dataset", "bundled:prompts/heldout.jsonl"], "96", "same prompts"),
        (["--dataset", "PAIRS", "--text_column", "text", "--reference_column", "bets"], "old", "did you mean 'best'?"),
        (["--metrics", "acceptability"], "'acceptability'", "--metrics tiny, or --metrics grammaticality"),
        (["--metrics", "politeness"], "'politeness'", "it is a row of polite"),
        (["--metrics", "rougeL"], "'rougeL'", "it is a row of rouge"),
        (["--metrics", "rouge,tiny"], "'rouge,tiny'", "with spaces: --metrics rouge tiny"),
        (["OTHER.jsonl"], "OTHER.jsonl", "--compare OTHER.jsonl"),
        (["--fail-under", "rougeL>=0.3"], "'rougeL>=0.3'", "for example"),
        (["--fail-under", "rougeL=0.2,reward=-0.5"], "rougeL=0.2,reward=-0.5", "separate with spaces"),
        (["--fail-under", "rougeL", "=", "0.2"], "'rougeL'", "none around ="),
        (["--fail-under", "rougeL =0.2"], "'rougeL =0.2'", "none around ="),
        (["--lower-is-better", "toxicity,perplexity"], "toxicity,perplexity", "with spaces"),
        (["--fail-if-worse", "--compare", "PAIRS", "--compare_column", "old"], "3", "more rows"),
        (["--fail-under", "reward"], "'reward'", "--fail-under reward=0.5"),
        (["--fail-under", "reward=much"], "'reward=much'", "--fail-under reward=0.5"),
        (["--fail-if-worse"], "nothing to compare with", "--compare"),
        (["--rows", "0"], "0", "leave rows out"),
        (["--rows", "many"], "many", "--help"),
        (["--preset", "tinny"], "'tinny'", "did you mean 'tiny'?"),
        (["--config", "TYPO.yaml"], "'metrisc'", "did you mean 'metrics'?"),
        (["--config", "KIND.yaml"], "'two'", "--help"),
        (["--output_dir", "DONE"], "evaluation.json in", "overwrite"),
        (["--output_dir", "EMPTY.txt"], "EMPTY.txt", "choose another output_dir"),
    ],
)
def test_refusals_have_three_parts_and_exit_code_2(tiny_run, pairs, tmp_path, capsys, argv, found, step):
    files = {
        "EMPTY.txt": "", "BROKEN.jsonl": '{"output": "a"}\n{"output": \n', "SHORT.txt": "a\nb\n",
        "HOLES.jsonl": '{"output": "a"}\n{"output": null}\n',
        "TYPO.yaml": "metrisc: [a]\n", "KIND.yaml": "rows: two\n",
    }  # fmt: skip
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    (tmp_path / "DONE").mkdir()
    (tmp_path / "DONE" / "evaluation.json").write_text("{}", encoding="utf-8")
    places = {"PAIRS": str(pairs), "JUDGE": str(Path(tiny_run.reward).parent / "acceptability")}
    places |= {name: str(tmp_path / name) for name in (*files, "DONE")}
    common = [] if "--output_dir" in argv else ["--output_dir", str(tmp_path / "out")]
    assert cli.main(["evaluate", str(pairs), *common, *(places.get(part, part) for part in argv)]) == 2
    err = capsys.readouterr().err
    expected_line, found_line, next_line = err.strip().splitlines()[-3:]
    assert expected_line.startswith("Expected: ")
    assert found in found_line
    assert step in next_line
    assert "Traceback" not in err
    assert not (tmp_path / "out").exists()


def test_an_earlier_evaluation_is_replaced_when_asked(pairs, tmp_path):
    folder = tmp_path / "out"
    argv = ["evaluate", str(pairs), "--dataset", str(pairs), "--text_column", "text", "--metrics", ROUGE]
    argv += ["--output_dir", str(folder)]
    assert cli.main(argv) == 0
    assert cli.main([*argv, "--rows", "2"]) == 2
    assert cli.main([*argv, "--rows", "2", "--overwrite"]) == 0
    assert result_of(folder)["n"] == 2


def test_the_workflow_of_the_page_measures_its_example_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = blocks_of(ROOT / "docs" / "how-to" / "ci.md")
    for line in blocks[0].code.splitlines():
        name, row = line.split(maxsplit=1)
        Path(name).write_text(f"{row}\n" * 5, encoding="utf-8")
    (workflow,) = [yaml.safe_load(block.code) for block in blocks if block.language == "yaml"]
    steps = [step.get("run", "") for step in workflow["jobs"]["outputs"]["steps"]]
    commands = [shlex.split(step) for step in steps if step.startswith("trl-rewards")]
    assert [cli.main(command[1:]) for command in commands] == [0, 0]
    assert result_of(tmp_path / "evaluation")["references"] == "column 'reference'"
    assert Path("report.html").stat().st_size


def test_importing_the_command_is_cheap():
    code = "import sys, trl_rewards_plugin.cli.measure; sys.exit('torch' in sys.modules or 'datasets' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0
