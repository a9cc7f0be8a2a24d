import pytest
import torch
from datasets import Dataset
from transformers.integrations import integration_utils

from tests.recipes.tiny_run import SHORT
from trl_rewards_plugin import LengthReward, MultiClassifierReward
from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.ppo.config import Seq2SeqPPOConfig
from trl_rewards_plugin.recipes.data import RunData, load_run_data
from trl_rewards_plugin.recipes.run_inputs import RunInputs, check_trackers, load_reward, plan_lines, reached_targets
from trl_rewards_plugin.recipes.seq2seq_ppo import Seq2SeqPPO

PROMPTS = Dataset.from_dict({"prompt": ["a prompt"] * 9})
# What a rollout shows in a tracker: the curves.
CURVES = [
    "objective/scores", "rewards/acceptability/mean", "rewards/neutrality/mean", "objective/kl", "objective/entropy",
    "tokens/responses_len_mean",
]  # fmt: skip


def test_a_tracker_that_is_missing_is_named_with_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(integration_utils, "get_available_reporting_integrations", lambda: ["wandb"])
    check_trackers([])
    check_trackers(["wandb", "azure_ml"])
    args = Seq2SeqPPOConfig(output_dir=str(tmp_path), report_to="trackio", use_cpu=True)
    with pytest.raises(
        InputError,
        match=r"the package trackio for report_to.*\nFound:    not installed\nNext:     pip install trackio",
    ):
        Seq2SeqPPO("no such model", "no such reward", "no such data", args=args).run()


@pytest.mark.parametrize(("name", "step"), [("tensorbord", "did you mean 'tensorboard'?"), ("zzz", "or none")])
def test_an_unknown_tracker_is_refused(name, step):
    with pytest.raises(InputError, match=r"tensorboard, trackio, wandb") as caught:
        check_trackers([name])
    assert step in str(caught.value)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of its own dependencies
def test_tensorboard_reads_every_curve_of_every_rollout(tiny_run, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    args = Seq2SeqPPOConfig(output_dir=str(tmp_path), seed=0, report_to="tensorboard", **SHORT)
    recipe = Seq2SeqPPO(tiny_run.model, tiny_run.reward, tiny_run.dataset, args=args, echo=lambda text: None)
    history = [row for row in recipe.run().trainer.state.log_history if "objective/scores" in row]
    (folder,) = (tmp_path / "runs").iterdir()
    events = EventAccumulator(str(folder))
    events.Reload()
    for curve in CURVES:
        seen = events.Scalars(f"train/{curve}")
        assert [event.step for event in seen] == [1, 2]
        assert [event.value for event in seen] == pytest.approx([row[curve] for row in history], rel=1e-6), curve


def test_a_reward_whose_scale_moves_is_refused():
    part = LengthReward(min_length=2, max_length=9)
    load_reward(MultiClassifierReward([part]))
    with pytest.raises(InputError, match="scale stays as it is"):
        load_reward(MultiClassifierReward([part], normalization="zscore"))


def test_constraints_move_no_scale_and_are_taken_but_within_a_combination():
    parts = [LengthReward(max_length=9, name="short"), LengthReward()]
    reward = MultiClassifierReward(parts, constraints={"length": {"min": 2}}, name="inner")
    assert load_reward(reward) is reward
    with pytest.raises(InputError, match="constraints within a combination"):
        load_reward(MultiClassifierReward([reward]))


def test_targets_are_reached_by_the_smaller_of_what_both_ends_leave():
    parts = [LengthReward(max_length=9, name="short"), LengthReward(), LengthReward(unit="characters", name="long")]
    targets = {"length": {"min": 2, "max": 10}, "long": {"min": 20}}
    reward = MultiClassifierReward(parts, constraints=targets)
    assert reached_targets(reward, {"reward": 1.0, "short": 1.0, "length": 9.0, "long": 15.0}) == {
        "targets": {
            "length": {"min": 2.0, "max": 10.0, "mean": 9.0, "slack": 1.0},
            "long": {"min": 20.0, "mean": 15.0, "slack": -5.0},
        }
    }
    unscored = reached_targets(reward, {"length": None, "long": 20.0})["targets"]
    assert (unscored["length"]["slack"], unscored["long"]["slack"]) == (None, 0.0)
    assert reached_targets(MultiClassifierReward(parts), {}) == {}


@pytest.mark.parametrize(
    ("asked", "room", "cut", "step"),
    [
        (8, None, "", "raise max_prompt_length to 24, which cuts at most 10%"),
        (8, 16, "", "raise max_prompt_length to 16, the model's positions"),
        (16, 16, "", "take a model that reads more"),
        (32, 16, "; max_prompt_length 32 is lowered to 16, the model's positions", "take a model that reads more"),
    ],
)
def test_the_plan_says_what_limits_the_prompts_and_advises_what_is_possible(tmp_path, asked, room, cut, step):
    args = Seq2SeqPPOConfig(output_dir=str(tmp_path), max_prompt_length=asked, **SHORT)
    cuts = {"prompts": 8, "cut": 4, "limit": min(asked, room or asked), "kept": 0.5, "for_most": 24}
    data = load_run_data(["a"] * 8, ["b"] * 8)
    plan = plan_lines(
        "a/b", args, RunInputs(data, MultiClassifierReward([LengthReward()]), None, cuts=cuts, room=room)
    )
    assert plan["Cut"].partition("(median)")[2] == cut
    assert plan["Warning"] == f"50% of the prompts are cut: {step}, or shorten them"


@pytest.mark.parametrize(
    ("settings", "saves"),
    [
        ({"save_steps": 0.1, "max_steps": 167, "save_total_limit": 2}, "every 17 rollouts, at most 2 kept"),
        ({"save_steps": 1, "max_steps": 2}, "every 1 rollout"),
        ({"max_steps": 167}, "at the end only"),
        ({"save_strategy": "no", "max_steps": 167}, "save_strategy no"),
    ],
)
def test_the_plan_says_what_one_checks_before_hours_of_training(settings, saves, tmp_path):
    args = Seq2SeqPPOConfig(output_dir=str(tmp_path), learning_rate=3e-5, seed=4, use_cpu=True, **settings)
    data = RunData(PROMPTS, PROMPTS, "own.csv", "1 of 10 rows", "say: ", warning="1 of 1 is also there")
    cuts = {"prompts": 10, "cut": 0, "limit": 64, "kept": None}
    plan = plan_lines("t5", args, RunInputs(data, load_reward(LengthReward()), None, cuts=cuts))
    assert plan["Prompts"] == "9 of own.csv, each prefixed with 'say: '"
    assert plan["Held out"] == "1 of 10 rows; warning: 1 of 1 is also there"
    assert plan["Settings"] == "learning rate 3e-05, KL coefficient 0.05, responses of at most 53 tokens, seed 4"
    assert plan["Saves"] == saves


@pytest.mark.parametrize(
    ("run", "said"),
    [
        ("own", "checkpoint-3"),
        ("other", "other/checkpoint-3, of another run; its weights, optimizer, learning rate, KL coefficient, log"),
        (
            "older",
            "older/checkpoint-3, of another run without config.yaml: its model, reward and data are",
        ),
    ],
)
def test_the_plan_says_what_is_taken_over_from_a_checkpoint_of_another_run(run, said, tmp_path):
    for folder in ("own", "other"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "config.yaml").touch()
    args = Seq2SeqPPOConfig(output_dir=str(tmp_path / "own"), use_cpu=True)
    data = RunData(PROMPTS, PROMPTS, "own.csv", "1 of 10 rows")
    cuts = {"prompts": 10, "cut": 0, "limit": 64, "kept": None}
    checkpoint = tmp_path / run / "checkpoint-3"
    plan = plan_lines("t5", args, RunInputs(data, load_reward(LengthReward()), checkpoint, cuts=cuts))
    assert said in plan["Resume"]
    assert (plan["Resume"] == said) == (run == "own")
    assert plan["Settings"].startswith("learning rate and KL coefficient of the checkpoint, responses")


@pytest.mark.parametrize(("rate", "rollouts", "said"), [(0.0, 5, True), (0.0, 3, False), (1e-5, 5, False)])
def test_the_plan_says_where_the_first_further_rollout_learns_nothing(rate, rollouts, said, tmp_path):
    checkpoint = tmp_path / "checkpoint-3"
    checkpoint.mkdir()
    torch.save({"_last_lr": [rate, rate]}, checkpoint / "scheduler.pt")
    args = Seq2SeqPPOConfig(output_dir=str(tmp_path), use_cpu=True, max_steps=rollouts)
    data = RunData(PROMPTS, PROMPTS, "own.csv", "1 of 10 rows")
    cuts = {"prompts": 10, "cut": 0, "limit": 64, "kept": None}
    plan = plan_lines("t5", args, RunInputs(data, load_reward(LengthReward()), checkpoint, cuts=cuts))
    assert ("learning rate 0, which the first further rollout still has" in plan["Resume"]) == said


@pytest.mark.parametrize(("texts", "warned"), [(["75", " -3.5"], True), (["75", "A cat."], False)])
def test_the_plan_warns_of_texts_that_are_numbers(texts, warned, tmp_path):
    data = load_run_data(texts * 8, ["b"] * 8, prompt_prefix="say: ")
    cuts = {"prompts": 10, "cut": 0, "limit": 64, "kept": None}
    args = Seq2SeqPPOConfig(output_dir=str(tmp_path), use_cpu=True)
    plan = plan_lines("t5", args, RunInputs(data, load_reward(LengthReward()), None, cuts=cuts))
    assert ("these texts are all numbers" in plan["Prompts"]) == warned
