from fnmatch import fnmatch
from types import SimpleNamespace

import pytest

from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.hub.upload import push_to_hub


class FakeApi:
    """Remembers what it was asked."""

    def __init__(self):
        self.calls = {}

    def create_repo(self, repo_id, **settings):
        self.calls["create_repo"] = {"repo_id": repo_id, **settings}
        return SimpleNamespace(repo_id=f"me/{repo_id}")

    def upload_folder(self, **settings):
        self.calls["upload_folder"] = settings
        pr = "https://example.invalid/pr/1" if settings["create_pr"] else None
        return SimpleNamespace(commit_url="https://example.invalid/commit/1", pr_url=pr)


def test_a_run_folder_is_uploaded_without_training_state(tmp_path):
    (tmp_path / "config.json").touch()
    api = FakeApi()
    assert push_to_hub(tmp_path, "model", private=True, api=api) == "https://example.invalid/commit/1"
    assert api.calls["create_repo"] == {"repo_id": "model", "private": True, "exist_ok": True}
    upload = api.calls["upload_folder"]
    assert (upload["repo_id"], upload["folder_path"]) == ("me/model", str(tmp_path))

    def ignored(name):
        return any(fnmatch(name, pattern) for pattern in upload["ignore_patterns"])

    assert ignored("checkpoint-3/optimizer.pt")
    assert ignored("training_args.bin")
    assert ignored("value_head.safetensors")
    for name in ("model.safetensors", "README.md", "metrics.json", "reward_curve.png", "completions.parquet"):
        assert not ignored(name)


def test_a_pull_request_is_answered_with_its_address(tmp_path):
    (tmp_path / "adapter_config.json").touch()
    assert push_to_hub(tmp_path, "model", create_pr=True, api=FakeApi()) == "https://example.invalid/pr/1"


def test_a_folder_without_a_model_is_refused_before_anything_is_made(tmp_path):
    api = FakeApi()
    with pytest.raises(InputError, match="output_dir of a run"):
        push_to_hub(tmp_path, "model", api=api)
    assert not api.calls
