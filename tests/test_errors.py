import json
import pickle

import pytest
import torch

from trl_rewards_plugin.errors import (
    InputError,
    NoAnswerError,
    check_choice,
    did_you_mean,
    is_out_of_memory,
    nearest,
    reward_failure,
)
from trl_rewards_plugin.rewards.base import named_failure


def test_the_message_has_three_labelled_lines():
    error = InputError("one", "two", "do three")
    assert str(error).splitlines()[1:] == ["Expected: one", "Found:    two", "Next:     do three"]


def test_nothing_found_is_said_in_words():
    assert InputError("one", "", "do three").found == "nothing"


def test_it_crosses_a_process_border_whole():
    for kind in (InputError, NoAnswerError):
        error = pickle.loads(pickle.dumps(kind("one", "two", "do three")))
        assert (type(error), error.expected, error.found, error.next_step) == (kind, "one", "two", "do three")


@pytest.mark.parametrize(
    ("word", "found"),
    [("tinny", "tiny"), ("TINY", "tiny"), ("Artikle", "article"), ("art", "article"), ("xyz", None), (7, None)],
)
def test_the_nearest_word_whatever_its_case(word, found):
    assert nearest(word, ["tiny", "article"]) == found


def test_the_start_of_one_known_word_alone_means_that_word():
    flags = ["--preset", "--resume_from_checkpoint", "--resume-from-checkpoint"]
    assert nearest("--resume", flags) == "--resume_from_checkpoint"
    assert nearest("eval", ["eval_steps_are_many", "eval_strategy_too"]) is None
    assert nearest("re", ["resume_from_checkpoint"]) is None


def test_the_known_word_is_given_as_it_is_written():
    assert nearest("neutral", ["NEUTRAL", "Positive"]) == "NEUTRAL"


def test_a_choice_that_does_not_exist_is_refused_with_the_nearest_one():
    check_choice("preset", "tiny", {"tiny": 1})
    with pytest.raises(InputError) as caught:
        check_choice("preset", "tinny", ["tiny", "article"], "choose one")
    error = caught.value
    assert (error.expected, error.found) == ("preset as one of tiny, article", "'tinny'")
    assert error.next_step == "did you mean 'tiny'? choose one"
    with pytest.raises(InputError) as caught:
        check_choice("seed", 3, [1, 2])
    assert caught.value.next_step == "use one of these"


def test_the_start_of_a_next_step_may_be_empty():
    assert did_you_mean("tinny", ["tiny"]) + "use one" == "did you mean 'tiny'? use one"
    assert did_you_mean("xyz", ["tiny"]) + "use one" == "use one"
    assert did_you_mean("label_1", ["LABEL_0", "LABEL_1"]) == "did you mean 'LABEL_1'? "


def test_a_message_stays_readable_whatever_was_found():
    error = InputError("a name", "x" * 100_000, "shorten it")
    assert len(str(error)) < 2_200
    assert str(error).endswith("...\nNext:     shorten it")
    assert len(error.found) == 100_000


def test_which_errors_mean_that_the_memory_was_too_small():
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory."))
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"))
    assert is_out_of_memory(RuntimeError("could not create a primitive"))
    with pytest.raises(RuntimeError) as error:
        torch.empty(2**60)
    assert is_out_of_memory(error.value)
    assert not is_out_of_memory(RuntimeError("shapes differ"))


def test_only_what_a_file_of_the_users_raised_is_told_by_its_line():
    def failure(call):
        with pytest.raises(RuntimeError) as caught, named_failure("own", ["a text"]):
            call()
        return reward_failure(caught.value)

    def full():
        raise MemoryError

    for call in (lambda: 1 / 0, lambda: json.loads("{")):
        assert "test_errors.py" in failure(call).found
    for call in (lambda: nearest("a", 3), lambda: torch.nn.Linear(1, "a")):
        assert failure(call) is None  # raised in this package, in a library
    assert failure(full) is None  # has advice of its own
    library = RuntimeError("reward 'own' raised ValueError: 3")
    library.__cause__ = ValueError(3)
    assert reward_failure(library) is None
