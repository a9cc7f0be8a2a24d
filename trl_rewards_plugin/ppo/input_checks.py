"""Models, tokenizers, rewards and datasets that `Seq2SeqPPOTrainer` refuses, most before it loads a model."""

import inspect
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, IterableDataset
from torch import nn
from transformers import MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING, AutoConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.trainer_utils import align_special_tokens
from transformers.utils import find_adapter_config_file

from trl_rewards_plugin.errors import InputError, check_no_model, nearest
from trl_rewards_plugin.places import check_model_name, what_to_do
from trl_rewards_plugin.ppo.config import Seq2SeqPPOConfig
from trl_rewards_plugin.ppo.config_rules import check_held_out_asked
from trl_rewards_plugin.ppo.distributed import check_launch
from trl_rewards_plugin.ppo.policy.policy import bare_model
from trl_rewards_plugin.rows import from_data_frame
from trl_rewards_plugin.runs.layout import check_saved_model
from trl_rewards_plugin.runs.reward_description import describe_reward

_EXAMPLES = "for example google/flan-t5-small or facebook/bart-base"


def check_inputs(model: Any, value_model: Any, args: Seq2SeqPPOConfig, train_dataset: Any, eval_dataset: Any) -> None:
    """Refuses what can be refused before a model is loaded; rewards are checked by `check_reward_funcs`."""
    if value_model is not None:
        if not args.has_critic:
            setting = "objective" if args.ranks else "advantage_estimator"
            expected = f"no value_model with {setting}={getattr(args, setting)!r}, which has no critic"
            step = "leave value_model out, or train by PPO with advantage_estimator='gae'"
            raise InputError(expected, f"a {type(value_model).__name__}", step)
        if args.detach_value_head:
            expected = "detach_value_head=False with a value_model, whose decoder shares nothing with the policy"
            raise InputError(expected, "detach_value_head=True", "leave one of the two out")
        check_seq2seq_model(value_model)
    check_devices(args.n_gpu)
    check_launch(args.world_size)
    if train_dataset is not None:
        check_dataset(train_dataset, "train_dataset", args.prompts_per_rollout)
    if train_dataset is not None and args.sft_coef:
        column = args.sft_column
        expected = f"train_dataset with the column {column!r} of reference texts, for sft_coef"
        if column not in train_dataset.column_names:
            step = "name its column with sft_column, or leave sft_coef out"
            raise InputError(expected, f"the columns {train_dataset.column_names}", step)
        for row, text in enumerate(train_dataset[column]):
            if not isinstance(text, str) or not text.strip():
                step = f"drop such rows: dataset.filter(lambda row: row[{column!r}])"
                raise InputError(f"{expected}, none of them empty", f"{text!r} in row {row}", step)
    if eval_dataset is not None:
        check_dataset(eval_dataset, "eval_dataset")
    check_seq2seq_model(model)


def check_seq2seq_model(model: str | os.PathLike[str] | nn.Module) -> None:
    """Refuses what is not an encoder-decoder of text; given a name, only the configuration is read, no weights.

    InputError where a name leads to no model, or one has no decoder or no encoder, reads no text, or is in float16.
    """
    if isinstance(model, str | os.PathLike):
        config = read_model_config(str(model))
        shown = f"{model} (model_type {config.model_type})"
        reads_text = type(config) in MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING
    else:
        bare = bare_model(model)
        if not isinstance(bare, PreTrainedModel):
            raise InputError("a Hub id, a folder or a PreTrainedModel", type(model).__name__, f"pass one, {_EXAMPLES}")
        if bare.dtype == torch.float16:
            raise InputError(
                "a model in float32", "one in float16", "call model.float() first; T5 and others overflow in fp16"
            )
        if not bare.can_generate():
            raise InputError("a model that generates text", type(bare).__name__, "load it with AutoModelForSeq2SeqLM")
        config, shown = bare.config, type(bare).__name__
        reads_text = bare.main_input_name == "input_ids"
    found, step = f"{shown}, which is not one", f"pass one, {_EXAMPLES}"
    if not config.is_encoder_decoder:
        step += "; for decoder-only models use TRL's GRPOTrainer or RLOOTrainer with the same reward"
        raise InputError("an encoder-decoder model", found, step)
    if not reads_text:
        raise InputError("an encoder-decoder that reads text and writes text", found, step)


def adapter_base(name: str) -> str | None:
    """The model that a PEFT adapter, a folder or in the Hub's cache, was trained on; None for a whole model."""
    path = None if Path(name, "config.json").is_file() else find_adapter_config_file(name, local_files_only=True)
    if path is None:
        return None
    base = json.loads(Path(path).read_text(encoding="utf-8")).get("base_model_name_or_path")
    if not base:
        step = "set base_model_name_or_path there, or load the adapter and pass the PeftModel"
        raise InputError(f"an adapter that names its base model in {path}", repr(base), step)
    return str(base)


def read_model_config(name: str) -> Any:
    """The configuration of a model by its name, a folder or on the Hub; of an adapter that of its base."""
    check_model_name(name, "a folder with a model, or the id of one on the Hub")
    check_saved_model(Path(name))
    base = adapter_base(name)
    try:
        return AutoConfig.from_pretrained(base or name)
    except (OSError, ValueError) as error:
        found = f"{name!r}: {str(error).splitlines()[0]}"
        step = what_to_do(error, f"check the spelling, {_EXAMPLES}", name)
        raise InputError("a folder with a model, or the id of one on the Hub", found, step) from error


def check_reference(ref_model: Any, policy: nn.Module) -> None:
    """Refuses a reference that is not a loaded encoder-decoder, or is the policy itself."""
    if isinstance(ref_model, str | os.PathLike):
        step = "load it with AutoModelForSeq2SeqLM.from_pretrained"
        raise InputError("a loaded ref_model", repr(str(ref_model)), step)
    check_seq2seq_model(ref_model)
    if bare_model(ref_model) is bare_model(policy):
        raise InputError("a ref_model of its own", "the policy itself", "leave ref_model out: a copy is made")
    check_no_shared_weights(ref_model, "ref_model", policy)


def check_no_shared_weights(model: nn.Module, role: str, policy: nn.Module) -> None:
    """Refuses a further model that holds tensors of the policy: it would be frozen, or would move, with it."""
    own = {parameter.data_ptr() for parameter in policy.parameters()} - {0}  # 0: without memory of their own
    if shared := [name for name, parameter in model.named_parameters() if parameter.data_ptr() in own]:
        found = f"one that shares {shared[0]} and {len(shared) - 1} others with the policy"
        step = "pass copy.deepcopy(model), or load it again with from_pretrained"
        raise InputError(f"a {role} with weights of its own", found, step)


def check_trained_dtype(model: nn.Module) -> None:
    """Refuses trainable weights that are not float32: bfloat16 rounds steps of Adam away."""
    found = {str(parameter.dtype) for parameter in model.parameters() if parameter.requires_grad} - {"torch.float32"}
    if found:
        step = "call model.float() first; bf16=True still computes in bfloat16"
        raise InputError("trainable weights in float32", ", ".join(sorted(found)), step)


def agree_on_tokens(policy: nn.Module, processing_class: PreTrainedTokenizerBase) -> None:
    """Sets EOS, pad and BOS of a model's configs to a tokenizer's that fits, as the Trainer does before training."""
    model = bare_model(policy)
    if processing_class.pad_token_id is None:
        expected = "a tokenizer with a pad token, to read prompts of several lengths at once"
        step = "set tokenizer.pad_token to the token that the model was trained with"
        raise InputError(expected, "tokenizer.pad_token=None", step)
    largest = max(processing_class.get_vocab().values())
    # FSMT has a vocabulary for each language, and its tokenizer has both.
    two = getattr(model.config, "tgt_vocab_size", None) is not None
    rows = max(embedding_rows(model)) if two else min(embedding_rows(model))
    if largest >= rows:
        found = f"one with token {largest} ({processing_class.convert_ids_to_tokens(largest)!r})"
        step = "call model.resize_token_embeddings(len(tokenizer)), or pass the model's own tokenizer"
        expected = f"a tokenizer of the {rows} tokens that {type(model).__name__} has embeddings for"
        raise InputError(expected, found, step)
    align_special_tokens(model, processing_class)


def embedding_rows(model: PreTrainedModel) -> tuple[int, int]:
    """For how many tokens a model has input embeddings, and output embeddings."""
    whole: Any = model
    return len(whole.get_input_embeddings().weight), len(whole.get_output_embeddings().weight)


def check_devices(n_gpu: int) -> None:
    """Refuses several visible GPUs without a launcher, which would mean `nn.DataParallel`."""
    if n_gpu > 1:
        step = "start with `accelerate launch`, or set CUDA_VISIBLE_DEVICES=0"
        raise InputError("one GPU per process", f"{n_gpu} visible GPUs and no launcher", step)


def check_reward_funcs(
    reward_funcs: Any, weights: Sequence[float] | None, one_by_one: bool = False
) -> list[Callable[..., Any]]:
    """The rewards as a list, after their types, names and weights are checked.

    InputError where one is a model or async, two have one name, weights are not one each, or there are too few.
    """
    rewards = list(reward_funcs) if isinstance(reward_funcs, list | tuple) else [reward_funcs]
    if not rewards:
        raise InputError("at least one reward", "an empty list", "pass a callable as reward_funcs")
    if one_by_one and len(rewards) == 1:
        step = "pass the parts of a combination: [reward.component(name) for name in reward.component_names()]"
        raise InputError("several rewards for multi_objective_aggregation='normalize_then_sum'", "one", step)
    for reward in rewards:
        check_no_model(reward, "reward callables in TRL's protocol")
        if any(map(inspect.iscoroutinefunction, (reward, type(reward).__call__))):
            found = f"{reward_name(reward)!r}, an async function"
            step = "wrap it: MultiClassifierReward([it]) runs async functions together"
            raise InputError("reward callables that return their values", found, step)
    names = [reward_name(reward) for reward in rewards]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        step = "give one of them another __name__ (or name=..., for a ClassifierReward)"
        raise InputError("rewards with different names", f"two named {twice[0]!r}", step)
    if weights is not None and len(weights) != len(rewards):
        expected = f"{len(rewards)} reward_weights, one per reward ({', '.join(names)})"
        raise InputError(expected, f"{len(weights)}: {list(weights)}", "pass one weight for each reward, or none")
    return rewards


def check_held_out_reward(held_out: Any, rewards: Sequence[Any], args: Seq2SeqPPOConfig) -> list[Callable[..., Any]]:
    """The held-out reward in a list, empty if None; refused: one of `rewards`, a moving scale, none if asked for."""
    check_held_out_asked(args, held_out)
    if held_out is None:
        return []
    (reward,) = check_reward_funcs([held_out], None)
    name, seen = reward_name(reward), [judge for each in rewards for judge in _judges(each)]
    if all(judge in seen for judge in _judges(reward)):
        step = "pass another judge, for example one trained on other data"
        raise InputError("a held_out_reward that training does not see", f"{name}, which it does", step)
    if getattr(reward, "state_dict", dict)():
        raise InputError("a held_out_reward on a fixed scale", f"{name} on a running one", "set mean and scale")
    return [reward]


def _judges(reward: Any) -> list[Any]:
    """What a reward's scores come from: of each part its model, function or metric with its settings, or itself."""
    if parts := getattr(reward, "rewards", None):
        return [judge for part in parts for judge in _judges(part)]
    described = describe_reward(reward)[0]
    judge = {key: value for key, value in described.items() if key not in ("name", "weight", "score_type")}
    return [judge if any(map(judge.get, ("model", "function", "metric"))) else reward]


def reward_name(reward: Callable[..., Any]) -> str:
    """The name of a reward in logs: its `__name__`, else its class's."""
    return getattr(reward, "__name__", None) or type(reward).__name__


def check_dataset(dataset: Any, role: str, smallest: int = 1) -> None:
    """Refuses a dataset without prompts, or with fewer than `smallest`; `role` is its name in messages."""
    if not isinstance(dataset, Dataset):
        rows = from_data_frame(dataset) or "Dataset.from_list([{'prompt': 'summarize: ...'}])"
        step = f"build one, for example datasets.{rows}"
        if isinstance(dataset, Mapping):
            wanted = ("train",) if role == "train_dataset" else ("validation", "test", "eval")
            split = next((name for name in (*wanted, *dataset) if name in dataset), wanted[0])
            several = "" if role == "train_dataset" else ", and call evaluate() with each of the others"
            step = f"pass dataset[{split!r}]{several}"
        elif isinstance(dataset, IterableDataset):
            step = f"pass rows in memory, since epochs have a length: Dataset.from_list(list({role}.take(1000)))"
        raise InputError(f"{role} as a datasets.Dataset", type(dataset).__name__, step)
    if "prompt" not in dataset.column_names:
        named = nearest("prompt", dataset.column_names) or [*dataset.column_names, "text"][0]
        step = f"rename one: dataset.rename_column({named!r}, 'prompt')"
        raise InputError(f"{role} with a column 'prompt'", f"the columns {dataset.column_names}", step)
    if len(dataset) == 0:
        raise InputError(f"{role} with at least {smallest} rows", "an empty dataset", "check how it was loaded")
    if len(dataset) < smallest:
        step = "lower per_device_train_batch_size or gradient_accumulation_steps, or add prompts"
        raise InputError(f"{role} with at least one rollout of prompts, {smallest}", f"{len(dataset)} rows", step)
    for row, prompt in enumerate(dataset["prompt"]):
        if not isinstance(prompt, str | list):
            expected = f"a text or a conversation in every row of {role}'s column 'prompt'"
            step = "drop such rows: dataset.filter(lambda row: row['prompt'] is not None)"
            raise InputError(expected, f"{prompt!r} in row {row}", step)
