"""The real client over real HTTP to the Hub on loopback."""

import json
import re
import shutil

import pytest
import torch
import yaml
from huggingface_hub import ModelCard

from tests.cards.test_model_card import front_matter
from trl_rewards_plugin import push_to_hub
from trl_rewards_plugin.cards.folder_push import plan_push
from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.hub import remote
from trl_rewards_plugin.hub.failures import UploadError
from trl_rewards_plugin.hub.files import UploadFile
from trl_rewards_plugin.hub.remote import Changes, Repository, State, find_changes, read_state
from trl_rewards_plugin.hub.stamp import is_untouched, stamped
from trl_rewards_plugin.hub.upload import upload


def writes(hub):
    """Requests that changed something, or sent content."""
    return [path for method, path, _ in hub.requests if method in ("POST", "PUT") and "validate-yaml" not in path]


def test_push_then_again_then_after_a_change(hub, api, run):
    said = []
    url = push_to_hub(run, "me/model", api=api, echo=said.append)
    head = read_state(api, Repository("me/model")).head
    assert url == f"{hub.url}/me/model/commit/{head}"
    assert said[0].startswith("model me/model: 11 files, ")
    assert "checkpoint-2  (training state)" in said[0]
    assert hub.titles("me/model") == ["Add README.md, config.json, config.yaml and 8 more"]
    files = hub.files("me/model")
    assert files["model.safetensors"] == (run / "model.safetensors").read_bytes()
    assert not {"completions.parquet", "value_head.safetensors", "training_args.bin"} & set(files)

    hub.requests.clear()
    assert push_to_hub(run, "model", api=api) == url  # the owner is who is logged in
    assert writes(hub) == []

    metrics = json.loads((run / "metrics.json").read_text())
    (run / "metrics.json").write_text(json.dumps({**metrics, "kl": 9.0}))
    push_to_hub(run, "me/model", api=api)
    assert hub.titles("me/model")[1:] == ["Update README.md, metrics.json"]
    assert b"9.000" in hub.files("me/model")["README.md"]


def test_the_card_on_the_hub_has_its_own_name_and_no_prompts_of_the_user(hub, api, run):
    local = (run / "README.md").read_text(encoding="utf-8")
    prompts = [row["text"] for row in front_matter(local)["widget"]]
    push_to_hub(run, "me/model", api=api)
    card = hub.files("me/model")["README.md"].decode()
    assert 'name = "me/model"' in card
    assert front_matter(card)["model-index"][0]["name"] == "me/model"
    assert all(prompt in local and prompt not in card for prompt in prompts)
    assert (run / "README.md").read_text(encoding="utf-8") == local
    push_to_hub(run, "me/model", api=api, include_completions=True)
    assert prompts[0] in hub.files("me/model")["README.md"].decode()
    assert hub.files("me/model")["completions.parquet"] == (run / "completions.parquet").read_bytes()


def test_a_pushed_model_loads_back_and_gives_equal_outputs(hub, api, run, tmp_path):
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    push_to_hub(run, "me/model", api=api, private=True)
    assert hub.repos["model", "me/model"].private
    cache = {"cache_dir": tmp_path / "cache", "token": hub.token}
    inputs = AutoTokenizer.from_pretrained("me/model", **cache)("the dog sees a cat", return_tensors="pt")
    outputs = [
        AutoModelForSeq2SeqLM.from_pretrained(name, **settings).generate(**inputs, max_new_tokens=8)
        for name, settings in ((run, {}), ("me/model", cache))
    ]
    assert torch.equal(*outputs)


def test_what_is_meant_to_be_private_does_not_go_to_a_public_repository(hub, api, run):
    push_to_hub(run, "me/model", api=api)
    hub.requests.clear()
    with pytest.raises(InputError, match=r"which exists and is public[\s\S]*leave out --private"):
        push_to_hub(run, "me/model", api=api, private=True)
    assert writes(hub) == []
    push_to_hub(run, "me/hidden", api=api, private=True)
    hub.requests.clear()
    for private in (True, False, None):
        push_to_hub(run, "me/hidden", api=api, private=private)
    assert writes(hub) == []


def test_the_bytes_that_were_checked_are_the_bytes_that_are_sent(hub, api, run):
    checked = (run / "config.yaml").read_bytes()
    plan = plan_push(run, "me/model")
    (run / "config.yaml").write_text(f"note: {hub.token}\n")
    upload(api, plan, echo=lambda text: None)
    assert hub.files("me/model")["config.yaml"] == checked


@pytest.mark.parametrize("moment", ["before they are hashed", "while they are sent"])
def test_weights_that_are_written_during_the_upload_do_not_arrive(hub, api, run, monkeypatch, moment):
    def write_weights(*args):
        (run / "model.safetensors").write_bytes(b"half written")

    create = api.create_commit

    def write_then_create(**settings):
        write_weights()
        return create(**settings)

    if moment == "while they are sent":
        monkeypatch.setattr(api, "create_commit", write_then_create)
    with pytest.raises(InputError, match=r"model\.safetensors as it was checked"):
        push_to_hub(run, "me/model", api=api, echo=write_weights if "before" in moment else lambda text: None)
    assert hub.files("me/model") == {}


@pytest.mark.parametrize("left", [0, 40])
def test_a_torn_card_of_a_run_is_rendered_again(run, left):
    whole = plan_push(run, "me/model").files
    (run / "README.md").write_text((run / "README.md").read_text(encoding="utf-8")[:left], encoding="utf-8")
    assert plan_push(run, "me/model").files == whole


# ---- Branches, pull requests, old weights ----


def test_a_branch_is_made_and_main_left_alone(hub, api, run):
    push_to_hub(run, "me/model", api=api)
    (run / "metrics.json").write_text((run / "metrics.json").read_text() + "\n")
    push_to_hub(run, "me/model", api=api, revision="next")
    assert hub.titles("me/model", "next")[1:] == ["Update metrics.json"]
    assert len(hub.titles("me/model")) == 1
    hub.requests.clear()
    push_to_hub(run, "me/model", api=api, revision="next")
    assert writes(hub) == []


def test_a_branch_of_a_new_repository(hub, api, run):
    push_to_hub(run, "me/model", api=api, revision="next")
    assert hub.files("me/model") == {}
    assert "model.safetensors" in hub.files("me/model", "next")


def test_a_pull_request_is_opened_once(hub, api, run):
    from huggingface_hub import HfApi

    push_to_hub(run, "me/model", api=api)
    (run / "metrics.json").write_text((run / "metrics.json").read_text() + "\n")
    other = HfApi(endpoint=hub.url, token=hub.other_token)
    url = push_to_hub(run, "me/model", api=other, create_pr=True)
    assert url == f"{hub.url}/me/model/discussions/1"
    assert len(hub.titles("me/model")) == 1
    hub.requests.clear()
    assert push_to_hub(run, "me/model", api=other, create_pr=True) == url
    assert writes(hub) == []
    with pytest.raises(InputError, match="leave out revision"):
        push_to_hub(run, "me/model", api=api, create_pr=True, revision="next")


def test_weights_that_would_be_loaded_instead_are_removed(hub, api, run):
    push_to_hub(run, "me/model", api=api)
    hub.put("me/model", "model-00001-of-00002.safetensors", b"old")
    hub.put("me/model", "notes.md", b"theirs")
    push_to_hub(run, "me/model", api=api)
    assert hub.titles("me/model")[-1] == "Remove model-00001-of-00002.safetensors"
    assert "notes.md" in hub.files("me/model")


def test_the_message_says_what_changed():
    files = [UploadFile(f"{letter}.json", b"") for letter in "abcde"]
    told = Changes(files[:1], files[1:], ["model.bin"]).summary()
    assert told == "Add a.json; update b.json, c.json, d.json and 1 more; remove model.bin"
    assert not Changes([], [], [])


def test_files_are_compared_as_git_and_lfs_do(tmp_path):
    (tmp_path / "a").write_bytes(b"hello\n")
    # git hash-object and sha256sum of "hello\n"
    digests = {
        "git": "ce013625030ba8dba906f756967f9e9ca394464a",
        "lfs": "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03",
    }
    for content in (b"hello\n", tmp_path / "a"):
        files = [UploadFile(name, content) for name in digests]
        assert not find_changes(files, State("x", True, digests))
    assert find_changes([UploadFile("git", b"other")], State("x", True, digests)).updated


# ---- The card that a person edited ----


def test_a_card_edited_on_the_hub_is_never_overwritten_unasked(hub, api, run):
    push_to_hub(run, "me/model", api=api)
    theirs = hub.files("me/model")["README.md"].replace(b"## Limitations", b"## What we found")
    hub.put("me/model", "README.md", theirs)
    with pytest.raises(InputError, match="--overwrite-card"):
        push_to_hub(run, "me/model", api=api)
    assert hub.files("me/model")["README.md"] == theirs
    push_to_hub(run, "me/model", api=api, create_pr=True)
    assert hub.files("me/model")["README.md"] == theirs
    push_to_hub(run, "me/model", api=api, overwrite_card=True)
    assert is_untouched(hub.files("me/model")["README.md"].decode())


def test_a_card_edited_locally_is_uploaded_as_it_is(hub, api, run):
    mine = (run / "README.md").read_text(encoding="utf-8").replace("## Limitations", "## What I found")
    (run / "README.md").write_text(mine, encoding="utf-8")
    said = []
    push_to_hub(run, "me/model", api=api, echo=said.append, include_completions=True)
    assert hub.files("me/model")["README.md"].decode() == mine
    assert "edited by hand" in said[0]
    hub.requests.clear()
    push_to_hub(run, "me/model", api=api, include_completions=True)
    assert writes(hub) == []


EDITED = "## What I found"


def without(card, *starts):
    """`card` without the lines that begin with one of `starts`."""
    return "".join(line for line in card.splitlines(keepends=True) if not line.startswith(starts))


def test_prompts_of_ones_own_in_an_edited_card_are_refused_wherever_they_stand(hub, api, run):
    card = (run / "README.md").read_text(encoding="utf-8").replace("## Limitations", EDITED)
    places = {"widget": ("- text:",), "code": ("text = ",), "quote": ("> ",), "tables": ("| ",)}
    clean = without(card, *(start for starts in places.values() for start in starts))
    (run / "README.md").write_text(clean, encoding="utf-8")
    push_to_hub(run, "me/model", api=api)
    assert EDITED in hub.files("me/model")["README.md"].decode()
    for kept in places:
        starts = [start for place, found in places.items() if place != kept for start in found]
        (run / "README.md").write_text(without(card, *starts), encoding="utf-8")
        with pytest.raises(InputError, match=r"edited by hand[\s\S]*--include-completions") as refused:
            push_to_hub(run, "me/model", api=api)
        assert refused.value.expected == "a card without prompts of your own"


def test_a_filled_in_header_is_pushed_with_a_card_that_shows_no_prompts(hub, api, run):
    whole = (run / "README.md").read_text(encoding="utf-8")
    filled = whole.replace("# license: apache-2.0 (unknown here: fill in)", "license: mit\nlanguage: de")
    (run / "README.md").write_text(filled, encoding="utf-8")
    push_to_hub(run, "me/model", api=api)
    first = hub.files("me/model")["README.md"].decode()
    assert (ModelCard(first).data.license, ModelCard(first).data.language) == ("mit", "de")
    assert ModelCard(first).data.get("widget") is None
    assert "## Sample outputs" in whole
    assert "## Sample outputs" not in first
    hub.requests.clear()
    push_to_hub(run, "me/model", api=api)
    assert writes(hub) == []
    stale = re.sub("value: .*", "value: 0.7597", filled)
    (run / "README.md").write_text(stale.replace("Held-out prompt 1", "Mine"), encoding="utf-8")
    moved = run.rename(run.with_name("moved"))
    push_to_hub(moved, "me/model", api=api)
    assert hub.files("me/model")["README.md"].decode() == first


def test_an_edited_card_may_show_prompts_of_a_public_data_set(hub, api, run):
    config = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    (run / "config.yaml").write_text(yaml.safe_dump(config | {"dataset": "owner/texts"}), encoding="utf-8")
    card = (run / "README.md").read_text(encoding="utf-8").replace("## Limitations", EDITED)
    (run / "README.md").write_text(card, encoding="utf-8")
    push_to_hub(run, "me/model", api=api)
    assert hub.files("me/model")["README.md"].decode() == card


def test_the_card_of_a_checkpoint_gets_the_repositorys_name(hub, api, run):
    folder = run / "checkpoint-2"
    card = '---\ntags: [trl]\n---\n# old\n\n```python\nname = "old"  # this\npipe = text2text_pipeline("old")\n```\n'
    (folder / "README.md").write_text(stamped(card))
    push_to_hub(folder, "me/other", api=api)
    found = hub.files("me/other")["README.md"].decode()
    assert is_untouched(found)
    assert found.startswith('---\ntags: [trl]\n---\n# other\n\n```python\nname = "me/other"  # this\n')
    assert 'text2text_pipeline("me/other")' in found
    assert not {"optimizer.pt", "value_head.safetensors", "trainer_state.json"} & set(hub.files("me/other"))
    asked = stamped(card.replace("tags", "# license: apache-2.0\ntags"))
    for edit in ("# license: apache-2.0", "license: mit"):
        (folder / "README.md").write_text(asked.replace("# license: apache-2.0", edit))
        plan = plan_push(folder, "me/third", token=None)
        named = f'---\n{edit}\ntags: [trl]\n---\n# third\n\n```python\nname = "me/third"  # this\n'
        assert plan.card.startswith(named)
        assert "edited by hand" not in plan.format()
        assert is_untouched(plan.card) is edit.startswith("#")


def test_a_run_without_its_card_gets_one_and_a_mere_model_is_refused(hub, api, run):
    (run / "README.md").unlink()
    push_to_hub(run, "me/model", api=api)
    assert "README.md" in hub.files("me/model")
    (run / "metrics.json").unlink()
    with pytest.raises(InputError, match=r"a model with its card, README\.md"):
        push_to_hub(run, "me/model", api=api)


# ---- A metric as a Space ----


@pytest.fixture
def metric(tmp_path):
    folder = tmp_path / "kindness"
    folder.mkdir()
    (folder / "README.md").write_text(
        "---\ntitle: Kindness\nemoji: X\ncolorFrom: blue\ncolorTo: green\nsdk: gradio\n---\n# Kindness\n"
    )
    for name in ("app.py", "requirements.txt", "kindness.py"):
        (folder / name).write_text(f"# {name}\n")
    return folder


def test_a_metric_becomes_a_space(hub, api, metric):
    url = push_to_hub(metric, "me/kindness", api=api)
    assert "/spaces/me/kindness/commit/" in url
    files = hub.files("me/kindness", kind="space")
    assert set(files) == {"README.md", "app.py", "kindness.py", "requirements.txt"}
    hub.requests.clear()
    assert push_to_hub(metric, "me/kindness", api=api) == url
    assert writes(hub) == []
    hub.put("me/kindness", "README.md", files["README.md"] + b"\nMine.\n", kind="space")
    with pytest.raises(InputError, match="--overwrite-card"):
        push_to_hub(metric, "me/kindness", api=api)


# ---- Refused before anything is sent ----


def test_the_error_without_a_login_says_how_to_log_in(hub, api, run, monkeypatch):
    from huggingface_hub import HfApi

    monkeypatch.delenv("HF_TOKEN")
    for token, found in ((None, "no token"), ("hf_" + "z" * 34, "does not accept"), (hub.read_token, "read-only")):
        with pytest.raises(InputError, match=rf"{found}[\s\S]*hf auth login[\s\S]*notebook_login") as refused:
            push_to_hub(run, "me/model", api=HfApi(endpoint=hub.url, token=token))
        assert str(token) not in str(refused.value)
    assert writes(hub) == []


def test_the_error_without_permission_says_where_one_may_write(hub, api, run):
    with pytest.raises(InputError, match=r"permission to write to someone/model[\s\S]*--create-pr"):
        push_to_hub(run, "someone/model", api=api)
    assert writes(hub) == []
    push_to_hub(run, "our-team/model", api=api)
    assert hub.titles("our-team/model")


@pytest.mark.parametrize("name", ["a/b/c", "me/x y", "me/.x", "-", "me/" + "x" * 100])
def test_invalid_repository_names_are_refused(hub, api, run, name):
    with pytest.raises(InputError, match="a repository as owner/name"):
        push_to_hub(run, name, api=api)
    assert hub.requests == []


def test_a_secret_stops_the_upload(hub, api, run):
    with (run / "config.yaml").open("a") as file:
        file.write(f"note: {hub.token}\n")
    with pytest.raises(InputError, match=r"a Hugging Face token in README\.md") as refused:
        push_to_hub(run, "me/model", api=api)
    assert hub.token not in str(refused.value)
    assert hub.requests == []


def test_metadata_that_the_hub_refuses_leave_the_repository_unchanged(hub, api, run):
    push_to_hub(run, "me/model", api=api)
    before = hub.files("me/model")
    card = (run / "README.md").read_text(encoding="utf-8").replace("library_name:", "licence: mit\nlibrary_name:")
    (run / "README.md").write_text(card, encoding="utf-8")
    (run / "model.safetensors").write_bytes((run / "checkpoint-1" / "model.safetensors").read_bytes())
    with pytest.raises(InputError, match="licence"):
        push_to_hub(run, "me/model", api=api, include_completions=True)
    assert hub.files("me/model") == before


# ---- When the Hub or the network fails ----

STEPS = ("GET .*whoami", "POST .*create$", "POST .*validate-yaml", "POST .*preupload", "POST .*batch", "PUT .*large",
         "POST .*commit")  # fmt: skip


@pytest.mark.parametrize(
    ("step", "what"),
    [*((step, "drop") for step in STEPS), *(("POST .*commit", code) for code in (408, 429, 500, 503))],
)
def test_a_transient_failure_is_retried(hub, api, run, step, what):
    hub.fail(step, what, times=1)
    push_to_hub(run, "me/model", api=api)
    assert len(hub.titles("me/model")) == 1
    assert hub.waits


@pytest.mark.parametrize("step", ["GET .*whoami", "PUT .*large", "POST .*commit"])
@pytest.mark.parametrize(
    ("what", "error", "message"),
    [
        (401, InputError, "hf auth login"),
        (403, InputError, "permission to write to me/model"),
        (404, InputError, "check owner, name and revision"),
        (409, UploadError, "someone else"),
        (429, UploadError, "too many requests"),
        (500, UploadError, "run the same again"),
        (503, UploadError, "run the same again"),
        (418, UploadError, "refuses the request"),
        ("drop", UploadError, "cannot be reached, or the connection was lost"),
    ],
)
def test_a_lasting_failure_is_reported_and_the_repository_is_unchanged(hub, api, run, step, what, error, message):
    push_to_hub(run, "me/model", api=api)
    before, titles = hub.files("me/model"), hub.titles("me/model")
    shutil.copy(run / "checkpoint-1" / "model.safetensors", run / "model.safetensors")
    hub.fail(step, what)
    with pytest.raises(error, match=message) as failed:
        push_to_hub(run, "me/model", api=api)
    assert hub.token not in str(failed.value)
    assert (hub.files("me/model"), hub.titles("me/model")) == (before, titles)
    hub.faults.clear()
    push_to_hub(run, "me/model", api=api)
    assert hub.titles("me/model")[1:] == ["Update model.safetensors"]


@pytest.mark.parametrize("step", ["GET .*whoami", "PUT .*large", "POST .*commit"])
def test_a_stalled_hub_times_out(hub, api, run, step, monkeypatch):
    monkeypatch.setattr(remote, "TIMEOUT", 0.05)
    hub.fail(step, "stall")
    with pytest.raises(UploadError, match="cannot be reached, or the connection was lost"):
        push_to_hub(run, "me/model", api=api)
    assert hub.files("me/model") == {} if ("model", "me/model") in hub.repos else True


@pytest.mark.parametrize("step", ["GET .*whoami", "POST .*preupload", "POST .*batch", "PUT .*large", "POST .*commit"])
def test_a_hub_that_says_nothing_is_left_soon(hub, api, run, step, monkeypatch):
    monkeypatch.setattr(remote, "TIMEOUT", 0.05)
    monkeypatch.setattr(remote, "SILENCE", 0.01)
    hub.fail(step, "stall")
    with pytest.raises(UploadError, match="cannot be reached, or the connection was lost"):
        push_to_hub(run, "me/model", api=api)
    assert len(hub.waits) == 1


@pytest.mark.parametrize("step", ["GET .*whoami", "PUT .*large", "POST .*commit"])
def test_the_hub_is_obeyed_that_asks_to_wait_a_little_and_left_if_it_asks_for_an_hour(hub, api, run, step):
    hub.fail(step, 429, times=1, Retry_After="7")
    push_to_hub(run, "me/model", api=api)
    assert max(hub.waits) in (7.0, 8.0)  # the client adds a second
    hub.waits.clear()
    shutil.copy(run / "checkpoint-1" / "model.safetensors", run / "model.safetensors")
    hub.fail(step, 429, Retry_After="3600")
    with pytest.raises(UploadError, match=r"too many requests[\s\S]*wait 3,600 seconds"):
        push_to_hub(run, "me/model", api=api)
    assert hub.waits == []
    hub.faults.clear()
    hub.fail(step, 429, Retry_After="50")
    with pytest.raises(UploadError, match=r"too many requests[\s\S]*wait 50 seconds"):
        push_to_hub(run, "me/model", api=api)
    assert sum(hub.waits) <= 120


def test_a_commit_whose_answer_is_lost_is_not_made_twice(hub, api, run):
    hub.fail("POST .*commit", "drop", times=1, after=True)
    push_to_hub(run, "me/model", api=api)
    assert len(hub.titles("me/model")) == 1


def test_a_pull_request_whose_answer_is_lost_is_not_opened_twice(hub, api, run):
    push_to_hub(run, "me/model", api=api)
    (run / "metrics.json").write_text((run / "metrics.json").read_text() + "\n")
    hub.fail("POST .*commit", "drop", times=1, after=True)
    assert push_to_hub(run, "me/model", api=api, create_pr=True).endswith("/discussions/1")
    assert len(hub.repos["model", "me/model"].requests) == 1


def test_offline_mode_is_reported(hub, api, run, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match="HF_HUB_OFFLINE"):
        push_to_hub(run, "me/model", api=api)
    assert hub.waits == []


def test_errors_that_are_not_the_networks_are_not_reworded(hub, api, run, monkeypatch):
    def broken(*args, **kwargs):
        raise KeyError("a mistake of ours")

    monkeypatch.setattr(api, "create_commit", broken)
    with pytest.raises(KeyError, match="a mistake of ours"):
        push_to_hub(run, "me/model", api=api)


def test_a_failure_crosses_a_process_border():
    import pickle

    error = pickle.loads(pickle.dumps(UploadError("found", "step")))
    assert (error.found, error.next_step) == ("found", "step")


def test_the_time_limit_is_only_for_the_upload(hub, api, run):
    from huggingface_hub import get_session

    push_to_hub(run, "me/model", api=api)
    assert get_session().timeout.read is None
    get_session().timeout = 5.0
    with remote.patient_client(remote.Watch()):
        assert get_session().timeout.read == 5.0


def test_a_new_branch_with_the_same_files_needs_no_commit(hub, api, run):
    push_to_hub(run, "me/model", api=api)
    said = []
    push_to_hub(run, "me/model", api=api, revision="second", echo=said.append)
    assert "up to date" in said[-1]
    assert hub.files("me/model", "second") == hub.files("me/model")


@pytest.mark.parametrize("revision", ["../x", "a b", "\ud800", "-x", "x" * 300, ""])
def test_a_branch_that_no_repository_can_have_is_refused_first(hub, api, run, revision):
    with pytest.raises(InputError, match="the name of a branch"):
        push_to_hub(run, "me/model", api=api, revision=revision)
    assert ("model", "me/model") not in hub.repos


def test_weights_that_are_removed_meanwhile_are_named(hub, api, run):
    def remove(text):
        (run / "model.safetensors").unlink(missing_ok=True)

    with pytest.raises(InputError, match=r"model\.safetensors as it was checked"):
        push_to_hub(run, "me/model", api=api, echo=remove)
