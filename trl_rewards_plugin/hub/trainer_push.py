"""The trainer's way to the Hub: `push_to_hub()` and `args.push_to_hub`, through the one door (`upload.py`).

The host uploads whatever lies in its output folder, pickles included, and after each save in the background; here
each upload is the bare model with its card, in one commit. Leaves out: everything but the host's own hooks.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from transformers.trainer_utils import HubStrategy

from trl_rewards_plugin.cards.callback import ModelCardCallback
from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.hub.failures import UploadError
from trl_rewards_plugin.hub.remote import Repository, check_login, check_private, read_state
from trl_rewards_plugin.hub.upload import prepare, push_to_hub, repeated


def open_repository(trainer: Any, token: str | None = None, private: bool | None = None) -> None:
    """For `init_hf_repo`: refuses what would fail after hours of training, and makes the repository.

    Sets `trainer.hub_model_id`.

    Raises:
        InputError: nobody is logged in, or not someone who may write there; a public repository where a private one
            is wanted; or a strategy that uploads training state.
        UploadError: the Hub cannot be reached.
    """
    args = trainer.args
    if args.hub_strategy not in (HubStrategy.END, HubStrategy.EVERY_SAVE):
        raise InputError(
            "hub_strategy end or every_save",
            f"{HubStrategy(args.hub_strategy).value}, which uploads optimizer states",
            "keep checkpoints on disk, and resume from there",
        )
    trainer.push_in_progress = None  # the host waits for it before it returns
    if not trainer.is_world_process_zero():
        return
    from huggingface_hub import HfApi

    api = HfApi(token=token if token is not None else args.hub_token)
    name = args.hub_model_id or Path(str(args.output_dir)).resolve().name

    def make() -> str:
        repository = Repository(check_login(api, name)[0], "model", args.hub_revision)
        state, hidden = read_state(api, repository), private if private is not None else args.hub_private_repo
        check_private(repository, state, hidden)
        prepare(api, repository, state, hidden)
        return repository.repo_id

    trainer.hub_model_id = repeated(make, name)


def push_trainer(
    trainer: Any,
    commit_message: str | None = "End of training",
    blocking: bool = True,
    token: str | None = None,
    revision: str | None = None,
    private: bool | None = None,
    **card: Any,
) -> str | None:
    """For `push_to_hub`: saves the model, writes its card, uploads both.

    Args:
        trainer: Ours.
        commit_message: First line of the commit.
        blocking: Must be True: the upload is over when this returns.
        token, revision, private: Stronger than `hub_token`, `hub_revision`, `hub_private_repo` of the settings.
        **card: For `create_model_card`: model_name, dataset_name, tags.

    Returns:
        The URL of the commit; None in processes other than the first.

    Raises:
        InputError, UploadError: see `push_to_hub`.
    """
    if not blocking:
        raise InputError(
            "blocking=True", "blocking=False", "call it at the end, when there is nothing left to wait for"
        )
    args = trainer.args
    trainer.callback_handler.on_push_begin(args, trainer.state, trainer.control)
    if trainer.hub_model_id is None:
        open_repository(trainer, token=token, private=private)
    trainer.save_model(_internal_call=True)
    if not trainer.is_world_process_zero():
        return None
    folder = Path(str(args.output_dir))
    trainer.create_model_card(**{"model_name": trainer.hub_model_id, **card})
    return push_to_hub(
        folder,
        trainer.hub_model_id,
        token=token if token is not None else args.hub_token,
        revision=revision or args.hub_revision,
        private=private if private is not None else args.hub_private_repo,
        commit_message=commit_message,
    )


def push_checkpoint(trainer: Any, folder: Path | str) -> None:
    """For `_push_from_checkpoint`: uploads a checkpoint's model and card where `hub_strategy` is "every_save".

    A failed upload is a warning: training is worth more, and the next save or the end brings what is missing.
    """
    if not trainer.is_world_process_zero() or trainer.args.hub_strategy == HubStrategy.END:
        return
    trainer.callback_handler.on_push_begin(trainer.args, trainer.state, trainer.control)
    # The host uploads before its callbacks hear of the save.
    ModelCardCallback(trainer).write(Path(folder), model_name=trainer.hub_model_id)
    try:
        push_to_hub(
            folder,
            trainer.hub_model_id,
            token=trainer.args.hub_token,
            revision=trainer.args.hub_revision,
            commit_message=f"Training in progress, rollout {trainer.state.global_step}",
        )
    except (InputError, UploadError) as error:
        told = " ".join(str(error).split())
        warnings.warn(f"{Path(folder).name} was not uploaded, training goes on. {told}", stacklevel=2)
