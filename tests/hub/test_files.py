import json
import os
from pathlib import Path

import pytest

from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.hub import files, plan
from trl_rewards_plugin.hub.files import UploadFile
from trl_rewards_plugin.hub.remote import Repository


def write_model(folder, weights=("model.safetensors",), **config):
    import numpy as np
    from safetensors.numpy import save_file

    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    for name in weights:
        save_file({"weight": np.zeros(2)}, folder / name)
    return folder


def names(selection):
    return {file.name for file in selection.files}


def test_a_model_is_uploaded_and_state_data_and_notes_stay_local(tmp_path):
    folder = write_model(tmp_path / "run")
    taken = {"README.md", "LICENSE", "tokenizer.json", "metrics.json", "config.yaml", ".eval_results/x.yaml"}
    state = {"training_args.bin", "optimizer.pt", "scheduler.pt", "rng_state.pth", "rng_state_0.pth",
             "trainer_state.json", "ppo_state.json", "value_head.safetensors", "pytorch_model.bin",
             "checkpoint-4/model.safetensors", "checkpoint-4/sub/optimizer.pt", "runs/events"}  # fmt: skip
    rollouts = {"completions/completions_00001.parquet", "completions/completions_00002.parquet"}
    other = {
        "notes.md",
        "prompts.jsonl",
        "my/config.json",
        ".env",
        "data.json",
        "LICENSE.internal-notes",
        ".git/config",
    }
    housekeeping = {".writer.lock", ".12-ab.unfinished"}
    for name in taken | state | other | rollouts | housekeeping | {"completions.parquet"}:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    selection = files.select_model(folder)
    assert names(selection) == taken | {"config.json", "model.safetensors"}
    assert selection.left_out["checkpoint-4"] == selection.left_out["value_head.safetensors"] == "training state"
    assert {name for name, reason in selection.left_out.items() if reason == "not a file of a model"} == {
        "notes.md", "prompts.jsonl", "my", ".env", "data.json", "LICENSE.internal-notes", ".git",
    }  # fmt: skip
    assert selection.left_out["completions"] == "prompts and outputs of every rollout"
    assert not (rollouts | housekeeping) & selection.left_out.keys()
    assert "--include-completions" in selection.left_out["completions.parquet"]
    assert "completions.parquet" in names(files.select_model(folder, include_completions=True))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: folder.mkdir(), "output_dir of a run"),
        (lambda folder: write_model(folder, weights=()), "weights as safetensors"),
        (lambda folder: write_model(folder, weights=("value_head.safetensors",)), "weights as safetensors"),
        (lambda folder: (write_model(folder) / "config.json").write_text("{"), "JSON in config.json"),
        (lambda folder: (write_model(folder) / "model.safetensors").write_bytes(b"12345678cut"), "complete weights"),
        (
            lambda folder: (write_model(folder) / "model.safetensors.index.json").write_text(
                json.dumps({"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}})
            ),
            "no model-2.safetensors",
        ),
    ],
)
def test_a_model_that_could_not_be_loaded_again_is_refused(tmp_path, make, message):
    make(tmp_path / "run")
    with pytest.raises(InputError, match=message):
        files.select_model(tmp_path / "run")


@pytest.mark.parametrize("base", ["/home/someone/t5", "./t5", "t5"])
def test_an_adapter_of_a_base_that_nobody_else_has_is_refused(tmp_path, base):
    refuse_base(tmp_path, base)


@pytest.mark.parametrize("place", ["", "run"])
def test_an_adapter_of_a_folder_that_reads_like_a_hub_id_is_refused(tmp_path, monkeypatch, place):
    monkeypatch.chdir(tmp_path)
    (tmp_path / place / "data" / "bart").mkdir(parents=True)
    refuse_base(tmp_path, "data/bart")


def test_an_adapter_of_a_model_that_its_run_names_by_a_path_is_refused(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("model: ../../data/bart\nseed: 0\n")
    refuse_base(tmp_path, "data/bart")


def refuse_base(tmp_path, base):
    folder = write_model(tmp_path / "run", weights=("adapter_model.safetensors",))
    (folder / "config.json").unlink()
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "google/flan-t5-small"}))
    assert names(files.select_model(folder)) >= {"adapter_config.json", "adapter_model.safetensors"}
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": base}))
    with pytest.raises(InputError, match="base model others can load"):
        files.select_model(folder)


def test_a_metric_folder_must_be_whole(tmp_path):
    folder = tmp_path / "kindness"
    folder.mkdir()
    (folder / "README.md").write_text("---\ntitle: Kindness\nsdk: gradio\n---\n# Kindness\n")
    assert files.is_space(folder)
    with pytest.raises(InputError, match=r"no app\.py, requirements\.txt, kindness\.py"):
        files.select_space(folder)
    for name in ("app.py", "requirements.txt", "kindness.py", "__pycache__/x.pyc", ".cache"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    selection = files.select_space(folder)
    assert names(selection) == {"README.md", "app.py", "kindness.py", "requirements.txt"}
    assert set(selection.left_out) == {"__pycache__", ".cache"}


def test_a_space_takes_the_modules_that_its_scripts_import_and_nothing_else(tmp_path):
    folder = tmp_path / "kindness"
    sources = {
        "README.md": "---\nsdk: gradio\n---\n",
        "requirements.txt": "",
        "app.py": "import os, words\nfrom parts import first\n",
        "kindness.py": "from .shared import scale\n\ndef late():\n    import parts.third as third\n",
        "words.py": "import deeper.inside\n",
        "shared.py": "", "deeper/__init__.py": "", "deeper/inside.py": "from . import beside\n",
        "deeper/beside.py": "", "parts/__init__.py": "", "parts/first.py": "", "parts/third.py": "",
    }  # fmt: skip
    private = ("customers.csv", "dump.sql", "notes.txt", "pytorch_model.bin", "x.safetensors", "os.csv", "unused.py")
    for name, source in (sources | dict.fromkeys((*private, "parts/second.py"), "")).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(source)
    selection = files.select_space(folder)
    assert names(selection) == set(sources)
    assert set(selection.left_out) == {*private, "parts/second.py"}
    (folder / "words.py").write_text("def")
    with pytest.raises(InputError, match=r"Python in words\.py"):
        files.select_space(folder)


def test_weights_are_taken_by_standard_name_or_if_the_index_lists_them(tmp_path):
    shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    folder = write_model(tmp_path / "run", weights=(*shards, "private-experiment.safetensors"))
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": dict(zip("ab", shards, strict=True))}))
    selection = files.select_model(folder)
    assert names(selection) == {"config.json", index.name, *shards}
    assert "neither the standard names" in selection.left_out["private-experiment.safetensors"]
    for weights in ({"a": "../private.safetensors"}, ["a"], {}, {"a": "data.csv"}, None):
        index.write_text(json.dumps({"weight_map": weights}))
        with pytest.raises(InputError, match="a list of the weights beside it"):
            files.select_model(folder)


# ---- Links and other things that are no plain files ----


@pytest.fixture
def outside(tmp_path):
    """A file outside of the folder that is uploaded."""
    (tmp_path / "diary.txt").write_text("private")
    return tmp_path / "diary.txt"


@pytest.mark.parametrize(
    "name", ["LICENSE", "vocab.json", "README.md", "model.safetensors", "config.json", ".eval_results/x.yaml",
             "completions.parquet"],
)  # fmt: skip
def test_a_link_out_of_the_folder_is_refused_by_name(tmp_path, outside, name):
    folder = write_model(tmp_path / "run")
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(outside)
    with pytest.raises(InputError, match=rf"Found:    {name}, a link to {outside}"):
        files.select_model(folder, include_completions=True)


def test_a_link_out_of_a_space_is_refused_by_name(tmp_path, outside):
    folder = tmp_path / "kindness"
    folder.mkdir()
    for name in ("README.md", "requirements.txt", "kindness.py"):
        (folder / name).touch()
    (folder / "app.py").symlink_to(outside)
    with pytest.raises(InputError, match=r"app\.py, a link to"):
        files.select_space(folder)


def test_links_inside_the_folder_and_inside_the_hubs_cache_are_followed(tmp_path):
    folder = write_model(tmp_path / "run")
    (folder / "vocab.txt").symlink_to("config.json")
    assert "vocab.txt" in names(files.select_model(folder))
    cache = tmp_path / "models--me--x"
    blobs, snapshot = cache / "blobs", cache / "snapshots" / "0123abc"
    snapshot.mkdir(parents=True)
    write_model(blobs)
    for name in ("config.json", "model.safetensors"):
        (blobs / name).rename(blobs / f"digest-{name}")
        (snapshot / name).symlink_to(f"../../blobs/digest-{name}")
    assert names(files.select_model(snapshot)) == {"config.json", "model.safetensors"}
    (snapshot / "LICENSE").symlink_to(folder / "config.json")
    with pytest.raises(InputError, match="LICENSE, a link to"):
        files.select_model(snapshot)


def test_a_linked_folder_stays_local(tmp_path, outside):
    folder = write_model(tmp_path / "run")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "x.yaml").touch()
    (folder / ".eval_results").symlink_to(tmp_path / "other")
    (folder / "loop").symlink_to(folder)
    selection = files.select_model(folder)
    assert names(selection) == {"config.json", "model.safetensors"}
    assert set(selection.left_out) == {".eval_results", "loop"}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (os.mkfifo, r"merges\.txt, which is not a regular file"),
        (lambda path: path.symlink_to("/dev/zero"), r"merges\.txt, a link to /dev/zero"),
        (lambda path: path.symlink_to(path.name), "a link to nothing"),
        (lambda path: path.symlink_to("missing"), "a link to nothing"),
    ],
)
def test_pipes_devices_and_broken_links_are_refused_at_once(tmp_path, make, message):
    make(write_model(tmp_path / "run") / "merges.txt")
    with pytest.raises(InputError, match=message):
        files.select_model(tmp_path / "run")


@pytest.mark.parametrize("content", [b"caf\xe9", b"[1]", b"[" * 10_000])
def test_a_damaged_config_is_refused(tmp_path, content):
    (write_model(tmp_path / "run") / "config.json").write_bytes(content)
    with pytest.raises(InputError, match=r"in config\.json"):
        files.select_model(tmp_path / "run")


def test_weights_that_change_after_the_check_are_refused(tmp_path):
    folder = write_model(tmp_path / "run")
    (weights,) = (file for file in files.select_model(folder).files if file.name == "model.safetensors")
    (folder / "model.safetensors").write_bytes(b"half written")
    with pytest.raises(InputError, match=r"model\.safetensors as it was checked"):
        _ = weights.operation


@pytest.mark.parametrize("text", ["# A model\nsdk: gradio\n", "---\nlicense: mit\n---\n\nsdk: x\n"])
def test_a_models_card_is_no_space(tmp_path, text):
    (tmp_path / "README.md").write_text(text)
    assert not files.is_space(tmp_path)


def test_secrets_and_paths_of_this_machine_are_refused(tmp_path):
    def check(name, text, own=None):
        plan.check_content(tmp_path / "run", (UploadFile(name, text.encode()),), own)

    check("README.md", "Nothing to see.")
    with pytest.raises(InputError, match=r"a Hugging Face token in config\.yaml"):
        check("config.yaml", "hub_token: hf_" + "a" * 34)
    with pytest.raises(InputError, match=r"the token of this login in metrics\.json"):
        check("metrics.json", "swordfish", own="swordfish")
    with pytest.raises(InputError, match=r"without paths of this machine[\s\S]*in README\.md"):
        check("README.md", f"Read {tmp_path}/data.jsonl")
    with pytest.raises(InputError, match="without paths of this machine"):
        check("config.yaml", f"deepspeed: {Path.home()}/ds.json")
    check("tokenizer.json", f"a piece such as {Path.home()}/x")


@pytest.mark.parametrize("card", ["---\n- a list\n---\n", "---\na: [\n---\n", "---\nmodel-index: 3\n---\n"])
def test_a_card_that_cannot_be_read_is_refused(card):
    with pytest.raises(InputError, match="metadata can be parsed"):
        plan.check_card(card)


@pytest.mark.parametrize(
    ("size", "told"), [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (999_960, "1.0 MB"), (3.2e9, "3.2 GB")]
)
def test_sizes(size, told):
    assert plan.format_size(int(size)) == told


def test_a_link_to_a_folder_is_refused_by_name(tmp_path):
    folder = write_model(tmp_path / "run")
    (folder / "vocab.txt").symlink_to(".")
    with pytest.raises(InputError, match=r"vocab\.txt, which is not a regular file"):
        files.select_model(folder)


def test_a_file_too_large_to_be_searched_is_refused_unread(tmp_path):
    folder = write_model(tmp_path / "run")
    with (folder / "vocab.txt").open("wb") as stream:
        stream.truncate(1 << 36)
    with pytest.raises(InputError, match=r"at most 200,000,000 bytes in vocab\.txt\nFound:    68,719,476,736 bytes"):
        files.select_model(folder)


def test_a_secret_in_a_files_name_is_found_and_not_shown(tmp_path):
    name = ".eval_results/hf_" + "x" * 34 + ".yaml"
    with pytest.raises(InputError, match=r"a Hugging Face token in .*eval_results") as error:
        plan.check_content(tmp_path, (UploadFile(name, b"a: 1"),), None)
    assert "x" * 34 not in str(error.value)
    selected = files.Selection((), {name: "not a file of a model"})
    plan_ = plan.UploadPlan(Repository("me/x"), [UploadFile("README.md", b"# x")], selected.left_out)
    assert "x" * 34 not in plan_.format()


def test_a_card_that_nests_too_deeply_is_refused(tmp_path):
    with pytest.raises(InputError, match="a card whose metadata can be parsed"):
        plan.check_card("---\na: " + "[" * 5000 + "\n---\n# x\n")
