"""The Trainer's hooks for the Hub: each upload is the bare model with its card, in one commit.

The Trainer of transformers uploads all of its output folder, pickles included, in the background after each save.
"""

import warnings
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi
from transformers.trainer_utils import HubStrategy

from trl_rewards_plugin.cards.callback import ModelCardCallback
from trl_rewards_plugin.cards.folder_push import push_to_hub
from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.hub.failures import UploadError
from trl_rewards_plugin.hub.upload import open_repository as open_hub_repository


def open_repository(trainer: Any, token: str | None = None, private: bool | None = None) -> None:
    """For `init_hf_repo`: refuses what would fail after hours of training; creates the repository, `hub_model_id`.

    Refused are no login, or one that may not write there, a public repository where a private one is requested, and a
    strategy that uploads training state; an UploadError says that the Hub cannot be reached.
    """
    args = trainer.args
    if args.hub_strategy not in (HubStrategy.END, HubStrategy.EVERY_SAVE):
        found = f"{HubStrategy(args.hub_strategy).value}, which uploads optimizer states"
        raise InputError("hub_strategy end or every_save", found, "keep checkpoints on disk, and resume from there")
    trainer.push_in_progress = None  # the Trainer waits for it before it returns
    if not trainer.is_world_process_zero():
        return
    trainer.hub_model_id = open_hub_repository(
        HfApi(token=args.hub_token if token is None else token),
        args.hub_model_id or Path(str(args.output_dir)).resolve().name,
        revision=args.hub_revision,
        private=private if private is not None else args.hub_private_repo,
    )


def push_trainer(
    trainer: Any,
    commit_message: str | None = "End of training",
    blocking: bool = True,
    token: str | None = None,
    revision: str | None = None,
    private: bool | None = None,
    **card: Any,
) -> str | None:
    """For `push_to_hub`: saves the model, writes its card, uploads both; the URL of the commit, in the first process.

    `blocking` must be True: the upload is over when this returns. Token, revision and private take precedence over the
    `hub_` settings; `card` is for `create_model_card`: model_name, dataset_name, tags.
    """
    if not blocking:
        step = "call it at the end, when there is nothing left to wait for"
        raise InputError("blocking=True", "blocking=False", step)
    args = trainer.args
    trainer.callback_handler.on_push_begin(args, trainer.state, trainer.control)
    if trainer.hub_model_id is None:
        open_repository(trainer, token=token, private=private)
    trainer.save_model(_internal_call=True)
    if not trainer.is_world_process_zero():
        return None
    trainer.create_model_card(**{"model_name": trainer.hub_model_id, **card})
    return push_to_hub(
        str(args.output_dir),
        trainer.hub_model_id,
        token=token if token is not None else args.hub_token,
        revision=revision or args.hub_revision,
        private=private if private is not None else args.hub_private_repo,
        commit_message=commit_message,
    )


def push_checkpoint(trainer: Any, folder: Path | str) -> None:
    """For `_push_from_checkpoint`: uploads model and card if `hub_strategy` is "every_save". Failing is a warning."""
    if not trainer.is_world_process_zero() or trainer.args.hub_strategy == HubStrategy.END:
        return
    trainer.callback_handler.on_push_begin(trainer.args, trainer.state, trainer.control)
    # The Trainer uploads before it calls its callbacks' on_save.
    ModelCardCallback(trainer).write(Path(folder), model_name=trainer.hub_model_id)
    try:
        message = f"Training in progress, rollout {trainer.state.global_step}"
        where = {"token": trainer.args.hub_token, "revision": trainer.args.hub_revision}
        push_to_hub(folder, trainer.hub_model_id, commit_message=message, **where)
    except (InputError, UploadError) as error:
        reason = " ".join(str(error).split())
        warnings.warn(f"{Path(folder).name} was not uploaded, training continues. {reason}", stacklevel=2)
