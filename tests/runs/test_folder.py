from pathlib import Path

import pyarrow.parquet
import pytest
import yaml

from tests.recipes.test_before_after import scored
from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.ppo.config import Seq2SeqPPOConfig
from trl_rewards_plugin.ppo.monitoring.completions import write_completions
from trl_rewards_plugin.recipes.before_after import Evaluation, HeldOut
from trl_rewards_plugin.runs import folder as run_folder
from trl_rewards_plugin.runs.checkpoints import seal
from trl_rewards_plugin.runs.settings import chosen_fields


def test_a_folder_with_a_run_is_refused_unless_overwritten(tmp_path):
    run_folder.refuse_run(tmp_path / "new", overwrite=False)
    (tmp_path / "notes.txt").touch()
    run_folder.refuse_run(tmp_path, overwrite=False)
    (tmp_path / "checkpoint-4").mkdir()
    (tmp_path / "metrics.json").touch()
    with pytest.raises(InputError, match=r"checkpoint-4, metrics\.json"):
        run_folder.refuse_run(tmp_path, overwrite=False)
    run_folder.refuse_run(tmp_path, overwrite=True)
    with pytest.raises(InputError, match=r"the file .*notes\.txt"):
        run_folder.refuse_run(tmp_path / "notes.txt", overwrite=True)
    write_completions(tmp_path / "completions", {"prompt": ["x"]}, 1)
    (tmp_path / "log.jsonl").touch()
    assert run_folder.holds_run(tmp_path) == ["checkpoint-4", "completions", "log.jsonl", "metrics.json"]
    run_folder.clear_run(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_the_last_whole_checkpoint_is_found(tmp_path):
    for step in (2, 10, 12):
        (tmp_path / f"checkpoint-{step}").mkdir()
    for step in (2, 10):
        (tmp_path / f"checkpoint-{step}" / "trainer_state.json").write_text("{}")
        (tmp_path / f"checkpoint-{step}" / "optimizer.pt").touch()
        seal(tmp_path / f"checkpoint-{step}", {})
    assert Path(run_folder.find_checkpoint(tmp_path, True)).name == "checkpoint-10"
    assert Path(run_folder.find_checkpoint(tmp_path, "true")).name == "checkpoint-10"
    assert run_folder.find_checkpoint(tmp_path, str(tmp_path / "checkpoint-2")).endswith("checkpoint-2")
    assert run_folder.find_checkpoint(tmp_path, None) is None
    assert run_folder.find_checkpoint(tmp_path, False) is None
    with pytest.raises(InputError, match=r"checkpoint-12: ppo_state\.json"):
        run_folder.find_checkpoint(tmp_path, str(tmp_path / "checkpoint-12"))
    with pytest.raises(InputError, match="give one of checkpoint-10, checkpoint-12, checkpoint-2"):
        run_folder.find_checkpoint(tmp_path, "nowhere")
    with pytest.raises(InputError, match="a whole checkpoint"):
        run_folder.find_checkpoint(tmp_path / "empty", True)
    with pytest.raises(InputError, match="check the path"):
        run_folder.find_checkpoint(tmp_path / "empty", "nowhere")


def test_configuration_has_what_differs_from_the_defaults(tmp_path):
    args = Seq2SeqPPOConfig(
        output_dir=str(tmp_path / "here"), learning_rate=0.5, seed=3, save_strategy="no", hub_token="secret",
        use_cpu=True, reward_weights=[1.0],
    )  # fmt: skip
    fields = chosen_fields(args)
    assert fields == {"learning_rate": 0.5, "save_strategy": "no", "use_cpu": True, "reward_weights": [1.0]}
    assert chosen_fields(args, ["gamma", "seed"]) == {**fields, "gamma": 1.0}
    run_folder.write_yaml(tmp_path / "c.yaml", fields)
    assert yaml.safe_load((tmp_path / "c.yaml").read_text(encoding="utf-8")) == fields


def test_metrics_without_a_number_are_an_error(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        run_folder.write_json(tmp_path / "metrics.json", {"before": {"reward": float("nan")}})


def test_completions_have_every_text_with_its_scores(tmp_path):
    before = Evaluation(scored(["s1", "s2"], good=[1, 2]), scored(["g1", "g2"], good=[3, 4]))
    after = Evaluation(scored(["S1", "S2"], good=[5, 6]), scored(["G1", "G2"], good=[7, 8]))
    rows = run_folder.completion_rows(HeldOut(["p1", "p2"], ["q1", "q2"]), before, after)
    run_folder.write_completions(tmp_path / "c.parquet", rows)
    assert pyarrow.parquet.read_table(tmp_path / "c.parquet").to_pylist() == rows
    assert rows[1] == {
        "prompt": "p2", "source": "q2", "before": "s2", "after": "S2", "before_greedy": "g2", "after_greedy": "G2",
        "before_reward": 2.0, "before_good": 2.0, "after_reward": 6.0, "after_good": 6.0,
        "before_greedy_reward": 4.0, "before_greedy_good": 4.0, "after_greedy_reward": 8.0, "after_greedy_good": 8.0,
    }  # fmt: skip
