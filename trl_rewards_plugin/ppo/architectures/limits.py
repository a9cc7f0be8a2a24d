"""How long prompts and responses may be, and which models and settings an architecture cannot follow."""

from typing import Any, NamedTuple

from transformers import PreTrainedModel

from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.ppo.architectures.families import family_of
from trl_rewards_plugin.ppo.config import Seq2SeqPPOConfig
from trl_rewards_plugin.ppo.policy.token_rules import TokenRules


class Positions(NamedTuple):
    """Most tokens that each side of a model takes; None where any length will do."""

    encoder: int | None
    decoder: int | None


def positions(model: Any) -> Positions:
    """Of a model, or of anything with its `config`."""
    return Positions(_positions_of(model, "encoder"), _positions_of(model, "decoder"))


def _positions_of(model: Any, side: str) -> int | None:
    config = _config_of(model, side)
    names = (f"max_{side}_position_embeddings", "max_position_embeddings")
    found: list[int] = [value for name in names if (value := getattr(config, name, None)) is not None]
    if not found:
        return None
    family = family_of(config)
    after_pad = config.pad_token_id + 1 if family.positions_after_pad else 0
    return found[0] - after_pad - (family.positions_ahead if side == "decoder" else 0)


def _config_of(model: Any, side: str) -> Any:
    own = getattr(model.config, side, None)  # where the two sides have their own (T5Gemma, BERT2BERT)
    return model.config if own is None else own.get_text_config()


def check_architecture(model: PreTrainedModel, args: Seq2SeqPPOConfig, rules: TokenRules) -> None:
    """Refuses a model whose sampled policy could not be scored, and settings that its architecture cannot follow.

    InputError for responses beyond its positions, gradient checkpointing if scored token by token, or by its family.
    """
    name, room = type(model).__name__, positions(model).decoder
    if room is not None and args.response_length > room - len(rules.forced_ids):
        expected = f"response_length of at most {room - len(rules.forced_ids)}, the positions of {name}"
        raise InputError(expected, f"response_length={args.response_length}", "lower response_length")
    encoder_config = _config_of(model, "encoder")
    family_of(encoder_config).check(encoder_config, args, name)
    if args.checkpoints_activations and family_of(model.config).scored_token_by_token:
        expected = f"no gradient checkpointing with {name}, which is scored through its key-value cache"
        step = "switch it off and lower per_device_train_batch_size"
        raise InputError(expected, "gradient checkpointing switched on", step)
