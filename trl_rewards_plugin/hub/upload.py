"""The only door to the network that writes: a run folder to a Hub repository. Leaves out: what is in the folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trl_rewards_plugin.errors import InputError

# Training state is large and of no use to a reader; *.bin and *.pt are pickles, which can run code when loaded.
IGNORED = ("checkpoint-*", "checkpoint-*/**", "*.bin", "*.pt", "*.pth", "value_head.safetensors", "runs/**")


def push_to_hub(
    folder: Path | str,
    repo_id: str,
    *,
    private: bool | None = None,
    token: str | None = None,
    create_pr: bool = False,
    api: Any = None,
) -> str:
    """Uploads a run folder, without checkpoints and training state.

    Args:
        folder: The run folder.
        repo_id: `owner/name`; made if it does not exist.
        private: Of a new repository; None: what the owner's settings say.
        token: Of the Hub; None: the one that is logged in.
        create_pr: Open a pull request instead of committing.
        api: A client with `create_repo` and `upload_folder` as in `huggingface_hub.HfApi`.

    Returns:
        The URL of the commit or pull request.

    Raises:
        InputError: the folder holds no model.
    """
    folder = Path(folder)
    if not any((folder / name).is_file() for name in ("config.json", "adapter_config.json")):
        raise InputError(
            "a folder with a saved model or adapter", f"no config.json in {folder}", "give the output_dir of a run"
        )
    if api is None:
        from huggingface_hub import HfApi

        api = HfApi(token=token)
    repo = api.create_repo(repo_id, private=private, exist_ok=True)
    done = api.upload_folder(
        repo_id=getattr(repo, "repo_id", repo_id),
        folder_path=str(folder),
        commit_message="Upload of a PPO run by trl_rewards_plugin",
        ignore_patterns=list(IGNORED),
        create_pr=create_pr,
    )
    return str(getattr(done, "pr_url", None) or getattr(done, "commit_url", done))
