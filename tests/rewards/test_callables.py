import math

import numpy
import pytest
import torch

from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.rewards import MultiClassifierReward


def returning(value):
    def odd(completions, **kwargs):
        return value

    return odd


@pytest.mark.parametrize(
    "value",
    [[1, 2.5], (True, 2.5), torch.tensor([1.0, 2.5]), numpy.array([1.0, 2.5]), [numpy.float32(1), torch.tensor(2.5)]],
)
def test_every_usual_form_of_a_list_of_numbers_is_read(value):
    assert MultiClassifierReward([returning(value)])(["a", "b"]) == [1.0, 2.5]


@pytest.mark.parametrize(
    ("value", "found"), [([1.0], "1"), ([1.0] * 3, "3"), (None, "a NoneType"), (1.0, "a float"), ("ab", "2")]
)
def test_a_wrong_count_is_refused_with_the_name(value, found):
    with pytest.raises(
        InputError, match=rf"2 scores from reward 'odd'[\s\S]*{found}, for the comp[\s\S]*'first text'"
    ):
        MultiClassifierReward([returning(value)])(["first text", "b"])


@pytest.mark.parametrize("value", [math.inf, -math.inf, 1e39, "1.0", "high", [1.0], object()])
def test_what_is_no_finite_number_is_refused_with_the_offending_text(value):
    with pytest.raises(InputError, match=r"from reward 'odd'[\s\S]*for 'the second'"):
        MultiClassifierReward([returning([1.0, value])])(["a", "the second"])


def test_what_a_reward_raises_is_not_a_score():
    def failing(completions, **kwargs):
        return [1.0 / len(text) for text in completions]

    with pytest.raises(RuntimeError, match=r"'failing' raised ZeroDivisionError.*2 completions.*'ab'") as error:
        MultiClassifierReward([failing])(["ab", ""])
    assert isinstance(error.value.__cause__, ZeroDivisionError)


def test_a_failure_without_any_text_is_told_as_well():
    with pytest.raises(RuntimeError, match="no texts at all"):
        MultiClassifierReward([lambda: []])([])


class Scorer:
    def __call__(self, completions, **kwargs):
        return [7.0] * len(completions)


class AsyncScorer:
    async def __call__(self, completions, **kwargs):
        return [7.0] * len(completions)


async def async_reward(completions, **kwargs):
    return [7.0] * len(completions)


def test_a_callable_object_is_named_by_its_class():
    assert MultiClassifierReward([Scorer()]).score(["a"]).components["Scorer"].tolist() == [7.0]
    assert MultiClassifierReward([lambda completions, **_: [1.0]]).component_names() == ["lambda"]
    assert "Scorer" in repr(MultiClassifierReward([Scorer()]))


@pytest.mark.parametrize("reward", [async_reward, AsyncScorer()])
def test_async_functions_are_refused(reward):
    with pytest.raises(InputError, match="async function"):
        MultiClassifierReward([reward])
