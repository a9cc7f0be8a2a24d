import pickle

from trl_rewards_plugin.errors import InputError


def test_the_message_has_three_labelled_lines():
    error = InputError("one", "two", "do three")
    assert str(error).splitlines()[1:] == ["Expected: one", "Found:    two", "Next:     do three"]


def test_it_crosses_a_process_border_whole():
    error = pickle.loads(pickle.dumps(InputError("one", "two", "do three")))
    assert (error.expected, error.found, error.next_step) == ("one", "two", "do three")
