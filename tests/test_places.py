import errno
from types import SimpleNamespace

import huggingface_hub
import pytest
from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError, RepositoryNotFoundError
from transformers import AutoTokenizer, CanineConfig, PerceiverConfig, T5Config

from trl_rewards_plugin import ClassifierReward, Seq2SeqPPO, best_of_n
from trl_rewards_plugin.assets import resolve
from trl_rewards_plugin.errors import (
    InputError,
    nearest,
)
from trl_rewards_plugin.metrics.grammaticality.grammaticality import Grammaticality
from trl_rewards_plugin.pipelines import text2text_pipeline
from trl_rewards_plugin.places import check_hub_name, check_tokenizer_files, near_path, what_to_do
from trl_rewards_plugin.rows import FORMATS
from trl_rewards_plugin.text import is_hub_id


def test_what_every_flag_and_every_file_has_makes_none_near(tmp_path):
    assert nearest("--to", ["--tf32", "-h"]) is None
    assert nearest("--lerning_rate", ["--learning_rate", "-h"]) == "--learning_rate"
    (tmp_path / "q.yaml").touch()
    assert near_path(tmp_path / "rewrd.yaml") is None
    (tmp_path / "reward.yml").touch()
    (tmp_path / "q.csv").touch()
    assert near_path(tmp_path / "rewrd.yaml") == tmp_path / "reward.yml"
    assert near_path(tmp_path / "q.cvs") == tmp_path / "q.csv"
    assert near_path(tmp_path / "nothing" / "q.csv") is None
    (tmp_path / "server.log").touch()
    assert near_path(tmp_path / "serve.yaml") is None
    for name in ("server.yaml", "server.aml"):
        (tmp_path / name).touch()
    assert near_path(tmp_path / "serve.yaml") == tmp_path / "server.yaml"
    for name in ("config.json", "config.yaml"):
        (tmp_path / name).touch()
    assert near_path(tmp_path / "config.yml") == tmp_path / "config.yaml"
    assert near_path(tmp_path / "config") == tmp_path / "config.json"


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


@pytest.mark.parametrize("ending", [*FORMATS, ".py", ".safetensors", ".yaml"])
def test_a_name_with_the_ending_of_a_file_is_no_hub_id(tmp_path, monkeypatch, ending):
    monkeypatch.chdir(tmp_path)
    for name in (f"own{ending}", f"owner/name{ending.upper()}"):
        with pytest.raises(InputError, match="no such file or folder"):
            check_hub_name(name, "a model")
        assert not is_hub_id(name)


def test_a_folder_that_is_not_where_its_neighbours_are_is_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("tiny-seed0", "other"):
        (tmp_path / "runs" / name).mkdir(parents=True)
    error = hidden(LocalEntryNotFoundError("offline"))
    assert what_to_do(error, "check the id", "runs/tiny-seed1").endswith("did you mean runs/tiny-seed0?")
    assert what_to_do(error, "check the id", "runs/zzz").endswith("without 'zzz'; in it: other, tiny-seed0")
    for name in ("google/flan-t5-small", "bert-base-cased", "runs/other"):
        assert what_to_do(error, "check the id", name).startswith("check the network")


def test_an_id_that_is_a_slip_for_a_folder_here_is_refused_at_once_unless_it_is_cached(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    for name in ("runs/full_at8", "data/bart", "google/t5-xxl", "Qwen/Qwen2.5-7B", "user/seed-21", "user/listen"):
        (tmp_path / name).mkdir(parents=True)
    for typed, meant in (
        ("runs/ful_at8", "runs/full_at8"),
        ("data/brat", "data/bart"),
        ("google/T5-xl", "google/t5-xxl"),
    ):
        with pytest.raises(InputError, match=f"did you mean '{meant}'.*hf download {typed}"):
            check_hub_name(typed, "a model")
    (tmp_path / "cache" / "models--google--t5-xl" / "snapshots").mkdir(parents=True)
    for name in ("google/t5-xl", "google/flan-t5-small", "data/bort-large", "facebook/bart", "bort"):
        check_hub_name(name, "a model")
    for name in ("Qwen/Qwen2.5-3B", "user/seed-12", "user/seed-2", "user/silent"):
        check_hub_name(name, "a model")


def test_a_folder_without_a_tokenizer_is_refused_unless_its_tokenizer_needs_no_file(tmp_path):
    T5Config(tokenizer_class="T5Tokenizer").save_pretrained(tmp_path)
    with pytest.raises(InputError, match="a tokenizer beside the model"):
        check_tokenizer_files(str(tmp_path))
    for config in (T5Config(tokenizer_class="ByT5Tokenizer"), CanineConfig(), PerceiverConfig()):
        config.save_pretrained(tmp_path)
        check_tokenizer_files(str(tmp_path))
        assert AutoTokenizer.from_pretrained(tmp_path)("a").input_ids


def test_a_bare_name_that_is_near_to_a_folder_here_is_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mybart").mkdir()
    error = hidden(LocalEntryNotFoundError("offline"))
    for name in ("mybrt", "my_bart"):
        check_hub_name(name, "a model")  # for all we know a model on the Hub
        assert what_to_do(error, "check", name).startswith("did you mean the folder 'mybart'? otherwise check the net")


@pytest.mark.parametrize(
    "take",
    [
        lambda name: Seq2SeqPPO(name, "tiny", ["a"] * 80).dry_run(),
        lambda name: best_of_n(name, "tiny", ["a"]),
        text2text_pipeline,
        lambda name: text2text_pipeline(resolve("bundled:tiny-t5"), tokenizer=name),
        lambda name: ClassifierReward(name, label=1).score(["a"]),
        lambda name: ClassifierReward("bundled:acceptability-judge", label=1, tokenizer=name),
        lambda name: Grammaticality(config_name=name, label=1).download_and_prepare(),
    ],
)
def test_a_file_is_no_model(take):
    folder = resolve("bundled:tiny-t5")
    with pytest.raises(InputError, match=rf"the file {folder}/config.json\nNext:     pass its folder: {folder}"):
        take(f"{folder}/config.json")
