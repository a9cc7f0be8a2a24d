import json
from pathlib import Path

import pytest

from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.hub import files, plan, secrets
from trl_rewards_plugin.hub.files import UploadFile


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
    other = {"notes.md", "prompts.jsonl", "my/config.json", ".env", "data.json"}
    housekeeping = {".writer.lock", ".12-ab.unfinished"}
    for name in taken | state | other | rollouts | housekeeping | {"completions.parquet"}:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    selection = files.select_model(folder)
    assert names(selection) == taken | {"config.json", "model.safetensors"}
    assert selection.left_out["checkpoint-4"] == selection.left_out["value_head.safetensors"] == "training state"
    assert {name for name, reason in selection.left_out.items() if reason == "not a file of a model"} == other
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
        (lambda folder: (write_model(folder) / "model.safetensors").write_bytes(b"12345678cut"), "whole weights"),
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
    folder = write_model(tmp_path / "run", weights=("adapter_model.safetensors",))
    (folder / "config.json").unlink()
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "google/flan-t5-small"}))
    assert names(files.select_model(folder)) == {"adapter_config.json", "adapter_model.safetensors"}
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


@pytest.mark.parametrize("text", ["# A model\nsdk: gradio\n", "---\nlicense: mit\n---\n\nsdk: x\n"])
def test_a_models_card_is_no_space(tmp_path, text):
    (tmp_path / "README.md").write_text(text)
    assert not files.is_space(tmp_path)


def test_secrets_and_paths_of_this_machine_are_refused(tmp_path):
    def check(name, text, own=None):
        secrets.check_content(tmp_path / "run", (UploadFile(name, text.encode()),), own)

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
