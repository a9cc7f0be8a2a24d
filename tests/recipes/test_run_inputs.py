import pytest
from transformers.integrations import integration_utils

from tests.recipes.tiny_run import SHORT
from trl_rewards_plugin import LengthReward, MultiClassifierReward
from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.ppo.config import Seq2SeqPPOConfig
from trl_rewards_plugin.recipes.run_inputs import check_trackers, load_reward
from trl_rewards_plugin.recipes.seq2seq_ppo import Seq2SeqPPO

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
