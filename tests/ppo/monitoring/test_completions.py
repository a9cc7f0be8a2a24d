import sys
from types import SimpleNamespace

import pyarrow.parquet
import pytest
import torch

from tests.ppo.test_trainer import make_trainer
from tests.tiny_models import tiny_t5
from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.ppo.config import Seq2SeqPPOConfig
from trl_rewards_plugin.ppo.monitoring import completions


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_t5(tmp_path_factory.mktemp("models") / "t5")


def test_tables_are_joined_row_by_row():
    joined = completions.join_tables([{"prompt": ["a"], "x": [1]}, {}, {"prompt": ["b", "c"], "y": [2, 3]}])
    assert joined == {"prompt": ["a", "b", "c"], "x": [1, None, None], "y": [None, 2, 3]}


def test_the_file_has_trls_name_and_columns(tmp_path):
    conversation = [{"role": "user", "content": "hi"}]
    table = {"prompt": [conversation], "completion": ["ho"], "judge": [None], "advantage": [0.5]}
    path = completions.write_completions(tmp_path, table, 12)
    assert path == tmp_path / "completions_00012.parquet"
    assert pyarrow.parquet.read_table(path).to_pylist() == [
        {"step": 12, "prompt": conversation, "completion": "ho", "judge": None, "advantage": 0.5}
    ]


@pytest.mark.parametrize("values", [["x", 1], [torch.tensor(1.0), "y"], [{1, 2}, "z"]])
def test_what_a_reward_logs_may_be_of_mixed_kinds(tmp_path, values):
    path = completions.write_completions(tmp_path, {"prompt": ["a", "b"], "extra": [*values[:1], None]}, 1)
    assert pyarrow.parquet.read_table(path).column("extra").to_pylist()[1] is None
    path = completions.write_completions(tmp_path, {"prompt": ["a", "b"], "extra": values}, 1)
    assert pyarrow.parquet.read_table(path).column("extra").to_pylist() == [str(value) for value in values]


def test_the_table_in_the_console_is_cut_to_what_was_asked(capsys):
    table = {
        "prompt": ["one [bold]", "two " * 200, "three"],
        "completion": [[{"role": "assistant", "content": "ho"}], "", "x"],
        "judge": [0.126, None, 1.0],
        "words": ["many", 2, 3],
    }
    completions.print_completions(table, "Step 3", 2)
    text = capsys.readouterr().out
    for part in ("Step 3", "one [bold]", "assistant: ho", "0.13", "many", "two two", "..."):
        assert part in text
    assert "three" not in text
    assert max(map(len, text.splitlines())) <= 80
    completions.print_completions(table, "Step 3")
    assert "three" in capsys.readouterr().out


def letters(completions, log_extra, **kwargs):
    log_extra("words", [len(text.split()) for text in completions])
    return [float(len(text)) for text in completions]


def test_a_run_logs_the_last_rollout_and_the_held_out_prompts(model, tmp_path, capsys):
    trainer = make_trainer(
        model, tmp_path, letters, log_completions=True, num_completions_to_print=2, total_episodes=16,
        gradient_accumulation_steps=2, per_device_train_batch_size=2, logging_steps=2, eval_strategy="steps",
        eval_steps=4,
    )  # fmt: skip
    trainer.train()
    files = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.parquet"))
    assert files == [
        "completions/completions_00002.parquet",
        "completions/completions_00004.parquet",
        "eval_completions/completions_00004.parquet",
    ]
    table = pyarrow.parquet.read_table(tmp_path / files[1]).to_pylist()
    assert list(table[0]) == ["step", "prompt", "completion", "letters", "words", "advantage"]
    assert [row["step"] for row in table] == [4] * 4
    for row in table:
        assert row["letters"] == len(row["completion"])
        assert row["words"] == len(row["completion"].split())
    held_out = pyarrow.parquet.read_table(tmp_path / files[2]).to_pylist()
    assert [row["prompt"] for row in held_out] == trainer.eval_dataset["prompt"][:]
    (logged,) = [row for row in trainer.state.log_history if "eval_reward" in row]
    assert logged["eval_reward"] == pytest.approx(sum(row["letters"] for row in held_out) / 5)
    shown = capsys.readouterr().out
    assert "Step 2" in shown
    assert "Held-out prompts after step 4" in shown


def test_the_advantage_of_a_response_is_the_mean_over_its_tokens(model, tmp_path):
    log = completions.CompletionLog(Seq2SeqPPOConfig(output_dir=str(tmp_path), report_to="none", log_completions=True))
    log.add({"prompt": ["a", "b"], "completion": ["x", "y"]})
    mask = torch.tensor([[True, True, False], [True, True, True]])
    log.end_rollout(torch.tensor([[1.0, 2.0, 9.0], [-3.0, 0.0, 0.0]]), mask)
    log.log_rollout(1)
    log.log_rollout(2)  # logged once
    (path,) = (tmp_path / "completions").iterdir()
    assert pyarrow.parquet.read_table(path).column("advantage").to_pylist() == [1.5, -1.0]


def test_nothing_is_kept_or_written_unasked(model, tmp_path, capsys):
    trainer = make_trainer(model, tmp_path, letters, total_episodes=4, eval_strategy="steps", eval_steps=1)
    trainer.train()
    assert not list(tmp_path.rglob("*.parquet"))
    assert "Held-out" not in capsys.readouterr().out


def test_none_are_printed_where_none_are_asked_for(model, tmp_path, capsys):
    trainer = make_trainer(
        model, tmp_path, letters, log_completions=True, num_completions_to_print=0, total_episodes=8
    )
    trainer.train()
    assert list(tmp_path.rglob("*.parquet"))
    assert "Step" not in capsys.readouterr().out


def test_a_number_of_completions_to_print_that_makes_no_sense_is_refused(tmp_path):
    with pytest.raises(InputError, match="num_completions_to_print 0 or more"):
        Seq2SeqPPOConfig(output_dir=str(tmp_path), report_to="none", num_completions_to_print=-1)


def logged_to(tmp_path, trackers):
    args = SimpleNamespace(
        output_dir=tmp_path, log_completions=True, num_completions_to_print=0, report_to=trackers, process_index=0
    )  # fmt: skip
    log = completions.CompletionLog(args)
    conversation = [{"role": "user", "content": "hi"}]
    log.log_batch({"prompt": [conversation], "completion": ["ho"], "judge": [0.5]}, 3)


def test_trackers_get_the_table_that_trls_trainers_write(tmp_path, monkeypatch):
    seen = []
    for name, run in (("wandb", None), ("trackio", None)):
        backend = SimpleNamespace(run=run, Table=lambda dataframe: dataframe, log=seen.append)
        monkeypatch.setitem(sys.modules, name, backend)
    logged_to(tmp_path, [])
    logged_to(tmp_path, ["wandb"])  # no run of it was begun
    assert seen == []
    logged_to(tmp_path, ["wandb", "trackio"])
    sys.modules["wandb"].run = "begun"
    logged_to(tmp_path, ["wandb"])
    for table in seen:
        assert list(table) == ["completions"]
        assert table["completions"].to_dict("records") == [
            {"step": 3, "prompt": "user: hi", "completion": "ho", "judge": 0.5}
        ]
    assert len(seen) == 2


def test_trackio_takes_the_table(tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path))
    trackio = pytest.importorskip("trackio")
    trackio.init(project="watch", embed=False)
    logged_to(tmp_path, ["trackio"])
    trackio.finish()
    assert list(tmp_path.rglob("*.parquet"))
