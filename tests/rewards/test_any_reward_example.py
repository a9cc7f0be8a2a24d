import runpy
from pathlib import Path

from trl_rewards_plugin.rewards import MultiClassifierReward

SCRIPT = Path(__file__).parents[2] / "examples" / "any_reward.py"


def test_the_example_scores_and_saves(tmp_path, capsys):
    runpy.run_path(str(SCRIPT))["main"](str(tmp_path / "mine.yaml"))
    lines = capsys.readouterr().out.splitlines()
    totals = [float(line.split()[0]) for line in lines[:3]]
    # The jumbled sentence is the worst.
    assert min(totals) == totals[1]
    saved = MultiClassifierReward.from_preset(tmp_path / "mine.yaml")
    assert saved.component_names() == ["acceptability", "neutrality", "length", "rougeL_summary"]
