"""Several judges of one question as one part: combinations within combinations, in Python and in reward files."""

import pickle

import pytest
import yaml

from tests.rewards.judges import judge
from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.rewards import ClassifierReward, LengthReward, MultiClassifierReward

TEXTS = ["a b", "a b c d", "a"]
PARTS = [{"function": "length", "name": "one"}, {"function": "length", "name": "two", "max_length": 2}]


def ensemble(**settings):
    how = {"aggregation": "mean_minus_std", "name": "judges", **settings}
    return MultiClassifierReward([LengthReward(name="one"), LengthReward(max_length=2, name="two")], **how)


def test_an_ensemble_is_a_reward_like_any_other():
    reward = ensemble(disagreement_coef=0.5)
    # 2 and 1: mean 1.5, deviation 0.5; 4 and 0: 2 and 2; 1 and 1 agree.
    scores = reward.score(TEXTS)
    assert scores.total.tolist() == [1.25, 1.0, 1.0] == reward(TEXTS) == pickle.loads(pickle.dumps(reward))(TEXTS)
    assert {name: values.tolist() for name, values in scores.components.items()} == {
        "one": [2.0, 4.0, 1.0],
        "two": [1.0, 0.0, 1.0],
    }
    assert reward.component("two")(TEXTS) == [1.0, 0.0, 1.0]
    assert ensemble().score(TEXTS).total.tolist() == [1.0, 0.0, 1.0]
    assert ensemble(aggregation="minimum").score(TEXTS).total.tolist() == [1.0, 0.0, 1.0]


def test_it_is_one_part_of_a_combination_which_logs_each_judge():
    logged = {}
    reward = MultiClassifierReward([ensemble(), LengthReward()], {"judges": 2.0, "length": 1.0})
    assert reward(TEXTS, log_metric=logged.__setitem__) == [4.0, 4.0, 3.0]
    assert logged["rewards/judges/mean"] == pytest.approx(2 / 3)
    assert logged["rewards/judges/one/mean"] == pytest.approx(7 / 3)


def test_classifiers_of_an_ensemble_share_their_model():
    labels = [ClassifierReward(judge(), label=label, name=label) for label in ("good", "bad")]
    reward = MultiClassifierReward(labels, aggregation="mean_minus_std", disagreement_coef=0.0)
    parts = reward.score(["the cat"]).components
    assert reward(["the cat"]) == pytest.approx([(parts["good"].item() + parts["bad"].item()) / 2])
    assert labels[0].model is labels[1].model
    outer = MultiClassifierReward([reward, ClassifierReward(judge(), label="good", name="again")])
    assert [part.name for part in outer.classifiers] == ["good", "bad", "again"]
    assert outer.classifiers[2].model is labels[0].model


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"disagreement_coef": -1.0}, "at least 0"),
        ({"disagreement_coef": "1"}, "at least 0"),
        ({"disagreement_coef": 1.0, "aggregation": "minimum"}, "aggregation='mean_minus_std'"),
        ({"weights": [1.0, -1.0]}, "weights of at least 0 for mean_minus_std"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, said):
    with pytest.raises(InputError, match=said):
        ensemble(**settings)


def written(path, **content):
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def test_a_reward_file_names_another_as_a_part(tmp_path):
    written(tmp_path / "judges.yaml", aggregation="mean_minus_std", disagreement_coef=0.5, rewards=PARTS)
    parts = [{"combination": "judges.yaml", "weight": 2.0}, {"function": "length", "only_if": {"judges": 1.1}}]
    reward = MultiClassifierReward.from_preset(written(tmp_path / "reward.yaml", rewards=parts))
    assert reward.component_names() == ["judges", "length"]
    # 2 x 1.25 + 2, 2 x 1 and nothing behind the gate, 2 x 1.
    assert reward.score(TEXTS).total.tolist() == [4.5, 2.0, 2.0]
    parts[0]["name"] = "agreed"
    parts.pop()
    renamed = MultiClassifierReward.from_preset(written(tmp_path / "renamed.yaml", rewards=parts))
    assert renamed.component_names() == ["agreed"]
    ensemble(disagreement_coef=0.5).save_preset(tmp_path / "saved.yaml")
    saved = MultiClassifierReward.from_preset(tmp_path / "saved.yaml")
    assert saved.score(TEXTS).total.tolist() == [1.25, 1.0, 1.0]
    for whole in (reward, renamed, MultiClassifierReward([saved, LengthReward()])):
        whole.save_preset(tmp_path / "whole.yaml")
        again = MultiClassifierReward.from_preset(tmp_path / "whole.yaml")
        assert again.component_names() == whole.component_names()
        assert again.score(TEXTS).total.equal(whole.score(TEXTS).total)
        with pytest.raises(InputError, match="another path than that of a part"):
            MultiClassifierReward([again]).save_preset(tmp_path / "whole.yaml")


def test_an_ensemble_that_has_learnt_is_saved_before_what_it_is_part_of(tmp_path):
    form = MultiClassifierReward([LengthReward()], normalization="zscore", name="form")
    form.save_preset(tmp_path / "form.yaml")
    whole = MultiClassifierReward([form, LengthReward(name="words")])
    whole(["a", "a b c"])
    with pytest.raises(InputError, match=r"form\.save_preset\('form\.yaml'\)"):
        whole.save_preset(tmp_path / "whole.yaml")
    form.save_preset(tmp_path / "form.yaml")
    whole.save_preset(tmp_path / "whole.yaml")
    assert MultiClassifierReward.from_preset(tmp_path / "whole.yaml").score(["a b c d e"]).total.tolist() == [8.0]


def test_a_file_within_a_file_is_trusted_no_more_than_that(tmp_path):
    written(tmp_path / "code.yaml", rewards=[{"function": "package.that.is.not.imported"}])
    outer = written(tmp_path / "outer.yaml", rewards=[{"combination": "code.yaml"}])
    with pytest.raises(InputError, match="run no code of their own"):
        MultiClassifierReward.from_preset(outer, allow_code=False)


def test_a_key_or_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(InputError, match="no file"):
        MultiClassifierReward.from_preset(written(tmp_path / "a.yaml", rewards=[{"combination": "judge.yaml"}]))
    with pytest.raises(InputError, match="only the keys combination, name"):
        MultiClassifierReward.from_preset(
            written(tmp_path / "b.yaml", rewards=[{"combination": "a.yaml", "label": "good"}])
        )
