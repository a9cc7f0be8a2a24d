import errno
from types import SimpleNamespace

import pytest
from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError, RepositoryNotFoundError

from trl_rewards_plugin.unreachable import what_to_do


def hidden(cause):
    """`cause` as libraries hand it on."""
    try:
        try:
            raise cause
        except Exception as error:
            raise OSError("We could not get it") from error
    except OSError as error:
        return error


def answered(kind, status):
    return hidden(kind("no", response=SimpleNamespace(status_code=status, headers={}, request=None)))


@pytest.mark.parametrize(
    ("error", "step"),
    [
        (answered(GatedRepoError, 403), "ask for access on its page on the Hub, then log in: hf auth login"),
        (ValueError("'a/b' is a gated dataset on the Hub."), "ask for access on its page"),
        (answered(RepositoryNotFoundError, 401), "check the id; if it is private, log in"),
        (hidden(LocalEntryNotFoundError("offline")), "check the network; without one"),
        (hidden(ConnectionRefusedError("no route")), "check the network; without one"),
        (hidden(TimeoutError()), "check the network; without one"),
        (hidden(OSError(errno.ENOSPC, "No space left on device")), "make room on the disk"),
    ],
)
def test_the_step_fits_the_cause(error, step):
    assert what_to_do(error, "check the id").startswith(step)


def test_a_wrong_name_is_the_last_guess():
    assert what_to_do(ValueError("odd"), "check the id") == "check the id"


def test_a_folder_that_is_not_where_its_neighbours_are_is_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("tiny-seed0", "other"):
        (tmp_path / "runs" / name).mkdir(parents=True)
    error = hidden(LocalEntryNotFoundError("offline"))
    assert what_to_do(error, "check the id", "runs/tiny-seed1").endswith("did you mean runs/tiny-seed0?")
    assert what_to_do(error, "check the id", "runs/zzz").endswith("without 'zzz'; in it: other, tiny-seed0")
    for name in ("google/flan-t5-small", "bert-base-cased", "runs/other"):
        assert what_to_do(error, "check the id", name).startswith("check the network")
