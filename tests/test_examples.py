"""Each example runs on the bundled models, cut short, and prints what its docstring shows; so do the settings' files.

examples/assets has tests of its own (tests/assets). `tiny_policy.py` is no example but what four of them share.
"""

import ast
import importlib
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from trl_rewards_plugin.assets import asset_path
from trl_rewards_plugin.cards.folder_push import plan_push
from trl_rewards_plugin.pipelines import text2text_pipeline
from trl_rewards_plugin.recipes.run_presets import get_preset

EXAMPLES = Path(__file__).parents[1] / "examples"
SCRIPTS = sorted(path.stem for path in EXAMPLES.glob("*.py") if path.stem != "tiny_policy")
CONFIGS = sorted((EXAMPLES / "configs").glob("*.yaml"))
TRL = {"max_steps": 2, "per_device_train_batch_size": 8, "use_cpu": True}
SMALL = {"per_device_train_batch_size": 8, "num_mini_batches": 1, "num_ppo_epochs": 1, "response_length": 6}
# TRL uses names that the newest transformers deprecates, and says that its PPO and its online DPO are experimental.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.* is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning:trl"),
]
# What makes a run short. Each prints the lines of the pattern.
RUNS = {
    "any_reward": ({"path": "mine.yaml"}, r"(?s)[+-]\d\.\d\d  The cat sleeps on the sofa\.  .*Saved mine\.yaml"),
    "best_of_n": ({"prompts": 2, "n": 2}, r"best of 2: mean reward [+-]\d"),
    "classic_loop": ({"epochs": 1, "batch_size": 4, "rows": 8}, r"epoch 0: mean reward -?\d.*, KL "),
    "grpo": (TRL, r"rewards/neutrality/mean: .* -> "),
    "lora": (
        {**SMALL, "max_steps": 1, "max_prompt_length": 16, "use_cpu": True},
        r"\d\d,\d{3} of \d,\d{3},\d{3} weights learn: mean reward [+-]\d",
    ),
    "negative_kl": ({"folder": str(asset_path("tiny-t5")), "most": 4}, r"the policy itself +\+0\.00 "),
    "online_dpo": (TRL, r"objective/scores: .* -> "),
    "own_judge": (
        {"max_steps": 2, "use_cpu": True},
        r"labels cut, whole; accuracy 0\.\d+ on \d+ rows kept aside, 0\.\d+ by always",
    ),
    "preference_pairs": (
        {"prompts": 16, "n": 4, "max_steps": 2, "use_cpu": True},
        r"1\d pairs, \d ties: mean reward [+-]\d\.\d\d -> [+-]\d",
    ),
    "ranked_samples": (
        {"per_device_train_batch_size": 8, "num_ppo_epochs": 1, "response_length": 6, "max_steps": 2, "use_cpu": True},
        r"raft: .*\ndpo: .*\nppo with references: mean reward .*, KL .*, cross-entropy \d.\d\d -> ",
    ),
    "rloo": (TRL, r"rewards/brevity/mean: .* -> "),
    "seq2seq_ppo": ({**SMALL, "max_steps": 2, "use_cpu": True}, r"mean reward of a rollout: [+-]\d.* at last"),
    "targets": (
        {**SMALL, "num_train_epochs": 0.05, "response_length": 6, "use_cpu": True},
        r"words at most 8.5: mean \d.*, m(et|issed) by \d",
    ),
    "trl_ppo": ({"total_episodes": 16, "per_device_train_batch_size": 8, "use_cpu": True}, r"scores: .* -> "),
}
SLOW = {
    "targets", "grpo", "preference_pairs", "ranked_samples", "rloo", "online_dpo", "trl_ppo", "lora", "own_judge",
    "negative_kl",
}  # fmt: skip


@pytest.fixture
def example(tmp_path, monkeypatch):
    """Imports an example by name, in an empty working directory."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.chdir(tmp_path)
    imported = []

    def load(name):
        imported.append(name)
        return importlib.import_module(name)

    yield load
    for name in imported:
        del sys.modules[name]


LABELLED = [
    (None, "no such file"),
    ("text,label\na,b\nc,d\n", "Found:    full, which holds files"),
    ("text,lable\na,b\n", "row 1: {'text': 'a', 'lable': 'b'}"),
    ("text,label\na,b\n", "two labels or more"),
]


@pytest.mark.parametrize(("content", "said"), LABELLED)
def test_own_judge_refuses_a_file_before_torch_is_loaded(tmp_path, content, said):
    if content is not None:
        (tmp_path / "my.csv").write_text(content, encoding="utf-8")
    folder = tmp_path / "full"
    folder.mkdir()
    if "full" in said:
        (folder / "config.json").write_text("{}", encoding="utf-8")
    done = run_without_torch("own_judge", "my.csv", "full", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("input refused\nExpected: ")
    assert said in done.stderr


def run_without_torch(name, *arguments, cwd):
    program = "import runpy, sys; sys.modules['torch'] = None; runpy.run_path(sys.argv.pop(1), None, '__main__')"
    line = [sys.executable, "-c", program, str(EXAMPLES / f"{name}.py"), *arguments]
    return subprocess.run(line, capture_output=True, text=True, check=False, cwd=cwd)


def test_own_judge_says_how_to_run_it(tmp_path):
    assert "python examples/own_judge.py my.csv judge" in run_without_torch("own_judge", "--help", cwd=tmp_path).stdout


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n in SLOW)) for n in SCRIPTS])
def test_an_example_runs_and_prints_what_it_says(name, example, tmp_path, capsys):
    if name == "trl_ppo":
        pytest.importorskip("trl.experimental.ppo", reason="TRL removed its PPOTrainer in 1.13", exc_type=ImportError)
    settings, printed = RUNS[name]
    example(name).main(**settings)
    assert re.search(printed, capsys.readouterr().out)
    if name == "own_judge":
        assert [path.name for path in tmp_path.iterdir()] == ["judge"]
    if name == "lora":
        text2text_pipeline("runs/lora/merged")  # refuses a model without its tokenizer
        card = plan_push("runs/lora/merged", "me/merged").card
        assert "library_name: transformers" in card
        assert "adapter" not in card


@pytest.mark.parametrize("name", SCRIPTS)
def test_an_example_is_short_and_shows_how_to_run_it_and_what_it_prints(name):
    text = (EXAMPLES / f"{name}.py").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 75
    docstring = text.split('"""')[1]
    assert f"python examples/{name}.py" in docstring
    assert "prints" in docstring.lower()
    assert re.search(r"^    .*\d\.\d\d", docstring, re.MULTILINE)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_file_of_settings_is_taken_by_the_command_above_it(path):
    from trl_rewards_plugin.cli.train import build_recipe

    (command,) = re.findall(r"^# +(trl-rewards train .*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    arguments = shlex.split(command)[2:]
    assert f"examples/configs/{path.name}" in arguments
    arguments = [argument.replace("examples/", f"{EXAMPLES}/") for argument in arguments]
    recipe, _ = build_recipe([*arguments, "--use_cpu"])
    assert recipe.folder == Path("runs", path.stem)


def test_the_default_job_in_python_has_the_settings_of_the_command():
    tree = ast.parse((EXAMPLES / "seq2seq_ppo.py").read_text(encoding="utf-8"))
    assigned = {ast.unparse(node.targets[0]): node.value for node in ast.walk(tree) if isinstance(node, ast.Assign)}
    given = ast.literal_eval(assigned["defaults"])
    preset = get_preset("tiny").config
    assert given == {name: preset[name] for name in given}
