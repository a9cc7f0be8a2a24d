"""The Trainer's hooks for cards and the Hub: a card in every checkpoint, and each upload one commit of model and card.

The Trainer of transformers uploads all of its output folder, pickles included, in the background after each save.
"""

import dataclasses
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi
from transformers import TrainerCallback
from transformers.trainer_utils import HubStrategy

from trl_rewards_plugin.atomic import write_text
from trl_rewards_plugin.cards.card_data import card_data_from_trainer
from trl_rewards_plugin.cards.folder_push import push_to_hub
from trl_rewards_plugin.cards.model_card import generate_model_card, render_model_card
from trl_rewards_plugin.charts.curves import save_reward_curve
from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.hub import upload
from trl_rewards_plugin.hub.failures import UploadError
from trl_rewards_plugin.runs.layout import CARD, REWARD_CURVE, checkpoint_name, is_finished_run


class ModelCardCallback(TrainerCallback):
    """Writes the model card into each checkpoint.

    Args:
        trainer: The trainer that it is a callback of; ours, or one of TRL's own.
    """

    def __init__(self, trainer: Any):
        self.trainer = trainer
        self._started: float | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._started = time.perf_counter()

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        folder = Path(str(args.output_dir)) / checkpoint_name(state.global_step)
        if args.should_save and folder.is_dir():
            self.write(folder)

    def write(self, folder: Path, **changes: Any) -> None:
        """Writes card and curves so far into `folder`; `changes` are fields of `RewardModelCardData`."""
        history = self.trainer.state.log_history
        if any("objective/scores" in row for row in history):
            save_reward_curve(history, folder / REWARD_CURVE)
        data = card_data_from_trainer(self.trainer)
        if data.seconds is None and self._started is not None:
            changes = {"seconds": time.perf_counter() - self._started, **changes}
        if (folder / REWARD_CURVE).is_file():  # it shows what the table of the log would
            changes = {"curve": REWARD_CURVE, "log": (), **changes}
        write_text(folder / CARD, render_model_card(dataclasses.replace(data, **changes)))


def create_model_card(
    trainer: Any,
    model_name: str | None = None,
    dataset_name: str | Sequence[str] | None = None,
    tags: str | Sequence[str] | None = None,
) -> None:
    """For the trainer's `create_model_card`: writes README.md, with the curves, into its output folder.

    If the folder holds a finished run, its card is rendered again, which has the results that a trainer lacks.
    """
    if not trainer.is_world_process_zero():
        return
    folder = Path(str(trainer.args.output_dir))
    folder.mkdir(parents=True, exist_ok=True)
    dataset = dataset_name if isinstance(dataset_name, str) else ", ".join(dataset_name or ())
    given = {"model_name": model_name, "dataset": dataset, "tags": [tags] if isinstance(tags, str) else tags}
    changes: dict[str, Any] = {key: value for key, value in given.items() if value}
    if is_finished_run(folder):
        write_text(folder / CARD, generate_model_card(folder, **changes))
    else:
        ModelCardCallback(trainer).write(folder, **changes)


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
    if trainer.is_world_process_zero():
        trainer.hub_model_id = upload.open_repository(
            HfApi(token=args.hub_token if token is None else token),
            args.hub_model_id or Path(str(args.output_dir)).resolve().name,
            revision=args.hub_revision,
            private=args.hub_private_repo if private is None else private,
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
        token=args.hub_token if token is None else token,
        revision=revision or args.hub_revision,
        private=args.hub_private_repo if private is None else private,
        commit_message=commit_message,
    )


def push_checkpoint(trainer: Any, folder: Path | str) -> None:
    """For `_push_from_checkpoint`: uploads model and card if `hub_strategy` is "every_save". Failing is a warning."""
    args, name = trainer.args, trainer.hub_model_id
    if not trainer.is_world_process_zero() or args.hub_strategy == HubStrategy.END:
        return
    trainer.callback_handler.on_push_begin(args, trainer.state, trainer.control)
    # The Trainer uploads before it calls its callbacks' on_save.
    ModelCardCallback(trainer).write(Path(folder), model_name=name)
    message = f"Training in progress, rollout {trainer.state.global_step}"
    try:
        push_to_hub(folder, name, commit_message=message, token=args.hub_token, revision=args.hub_revision)
    except (InputError, UploadError) as error:
        reason = " ".join(str(error).split())
        warnings.warn(f"{Path(folder).name} was not uploaded, training continues. {reason}", stacklevel=2)
