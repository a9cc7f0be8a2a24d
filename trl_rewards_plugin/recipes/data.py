"""Any data set of texts -> a training set and a held-out set, both with the column "prompt".

Leaves out: streaming and conversations (the trainer takes those; a recipe's evaluation compares plain texts).
"""

import contextlib
import functools
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

import datasets
import huggingface_hub
from datasets import Dataset, DatasetDict
from datasets.exceptions import DatasetNotFoundError
from huggingface_hub.errors import LocalEntryNotFoundError
from pyarrow import ArrowException

from trl_rewards_plugin.assets import bundled_path, is_bundled
from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.metrics.paired_gain import MIN_PAIRS
from trl_rewards_plugin.places import what_to_do
from trl_rewards_plugin.recipes.run_rules import held_out_rows
from trl_rewards_plugin.rewards.texts import PROTOCOL
from trl_rewards_plugin.rows import (
    check_column,
    check_held_out,
    column_texts,
    data_file,
    existing_file,
    from_data_frame,
    prompt_columns,
)
from trl_rewards_plugin.runs.public_names import public_name

DatasetLike: TypeAlias = str | Path | Dataset | DatasetDict | Sequence[str]
Columns: TypeAlias = Mapping[str, Sequence[Any]]  # of a data set, by name, for rewards that read them

EVAL_SPLITS = ("validation", "test")
MAX_EVAL_ROWS = 100
MAX_COUNTED = 10_000
MUCH_CUT = 0.1  # share of prompts; where more are cut, a run warns


@dataclass(frozen=True)
class HeldOut:
    """The prompts to evaluate on: as the model reads them, and without their prefix; and the data set's columns."""

    prompts: list[str]
    sources: list[str]
    columns: Columns = field(default_factory=dict)


@dataclass(frozen=True)
class RunData:
    """What a run trains and is judged on: column "prompt" (prefix included) and every other column of the source."""

    train: Dataset
    held_out: Dataset
    train_name: str  # where the rows come from, in words: held-out ones are never chosen silently
    eval_name: str
    prompt_prefix: str = ""
    drawn: bool = False  # the held-out rows, at random from those of training
    warning: str = ""  # how many of the held-out prompts training sees

    def checked(self, *, resumes: bool = False) -> "RunData":
        """The same, refused if training sees all that is held out; how many prompts it sees is its `warning`.

        Not refused: a run that resumes, which an older version began, and rows drawn from data full of duplicates.
        """
        train, held_out = list(self.train["prompt"]), list(self.held_out["prompt"])
        if not (resumes or self.drawn):
            check_held_out(train, held_out, self.train_name)
        known = set(train)
        seen = sum(text in known for text in held_out)
        warning = f"{seen} of {len(held_out)} held-out prompts are also in the training data"
        return replace(self, warning=warning) if seen else self

    @functools.cached_property
    def as_held_out(self) -> HeldOut:
        prompts = list(self.held_out["prompt"])
        sources = [prompt[len(self.prompt_prefix) :] for prompt in prompts]
        return HeldOut(prompts, sources, further_columns(self.held_out))

    def count_cuts(self, tokenizer: Any, limit: int) -> dict[str, Any]:
        """How many `prompts` are `cut` to `limit` tokens, and the median share of those that is `kept`.

        And a limit `for_most`, which cuts no more than `MUCH_CUT` of them.
        """
        # Of very many training prompts an even part is counted.
        every = math.ceil(len(self.train) / MAX_COUNTED)
        texts = [*self.train["prompt"][::every], *self.held_out["prompt"]]
        lengths = sorted(len(ids) for ids in tokenizer(texts, verbose=False)["input_ids"])
        kept = [limit / length for length in lengths if length > limit]
        median = statistics.median(kept) if kept else None
        for_most = lengths[-1 - int(MUCH_CUT * len(lengths))]
        return {"prompts": len(texts), "cut": len(kept), "limit": limit, "kept": median, "for_most": for_most}


def further_columns(rows: Dataset) -> dict[str, list[Any]]:
    """The columns that rewards get by name: all but those named as the protocol's own arguments."""
    return {name: list(rows[name]) for name in rows.column_names if name not in PROTOCOL}


def load_run_data(
    dataset: DatasetLike,
    eval_dataset: DatasetLike | None = None,
    *,
    text_column: str = "prompt",
    prompt_prefix: str = "",
    missing: str = "error",
    seed: int = 0,
) -> RunData:
    """The data of a run, loaded, split and prefixed.

    A data set is a Hub id, a JSONL, JSON, CSV, TSV, parquet or text file (also "bundled:prompts/train.jsonl"), a
    `datasets.Dataset` or `DatasetDict`, or a list of texts. Held out is, in this order: `eval_dataset`, whole; the
    first 100 rows of a split named `validation` or `test`; a tenth of the rows (at least two), drawn with `seed`.
    `missing` says what becomes of rows without a text (null): "error", "skip" or "empty", see `rows.without_missing`.

    Raises:
        InputError: no such file or column, an empty data set, a row without text, too few rows to hold some out.
    """

    def prompts_of(rows: Dataset, name: str) -> tuple[Dataset, str]:
        """`rows` with the column "prompt" = prefix + text, every other column as it was; and what they are called."""
        if text_column not in rows.column_names:  # else rows of images or sounds are not decoded for nothing
            check_column(text_column, rows[:100], name)
        texts = column_texts(rows[text_column], text_column, missing, name)
        left_out = len(rows) - len(texts)
        rows = rows.select(list(texts)) if left_out else rows
        if text_column != "prompt" or prompt_prefix or missing == "empty":
            # Added before the old one goes: a table without columns would have no rows either.
            added = rows.add_column("new_prompt", [prompt_prefix + text for text in texts.values()])
            others = added.remove_columns("prompt") if "prompt" in rows.column_names else added
            rows = others.rename_column("new_prompt", "prompt")
        return rows, f"{name} ({left_out} without a text left out)" if left_out else name

    splits, name = _load_splits(dataset, text_column), _name(dataset)
    train_split = "train" if "train" in splits else next(iter(splits))
    train, train_name = prompts_of(splits[train_split], name)
    own_split = next((split for split in EVAL_SPLITS if split in splits and split != train_split), None)
    if eval_dataset is not None:
        eval_splits = _load_splits(eval_dataset, text_column)
        eval_rows = next(eval_splits[split] for split in (*EVAL_SPLITS, "train", *eval_splits) if split in eval_splits)
        held_out, eval_name = prompts_of(eval_rows, _name(eval_dataset))
        words = f"all {len(held_out)} rows of {eval_name}"
    elif own_split is not None:
        held_out, eval_name = prompts_of(splits[own_split], f"{name}, split {own_split}")
        rows = min(len(held_out), MAX_EVAL_ROWS)
        words = f"the first {rows} of {len(held_out)} rows of {eval_name}"
        held_out = held_out.select(range(rows))
    else:
        rows = held_out_rows(len(train), name)
        words = f"{rows} of {len(train)} rows of {train_name}, held out at random with seed {seed}"
        train, held_out = train.train_test_split(test_size=rows, seed=seed).values()
    if len(held_out) < MIN_PAIRS:
        words += f" (too few for an interval of the gain, which takes {MIN_PAIRS})"
    return RunData(train, held_out, train_name, words, prompt_prefix, drawn=eval_dataset is None and own_split is None)


def _load_splits(dataset: DatasetLike, text_column: str) -> dict[str, Dataset]:
    """Split name -> rows, nothing renamed yet but a text file's one column."""
    if isinstance(dataset, str | Path):
        return _load_named(str(dataset), text_column)
    if isinstance(dataset, Dataset):
        return {"train": dataset}
    if isinstance(dataset, DatasetDict):
        if not dataset:
            raise InputError("a data set with at least one split", "DatasetDict has none", "give a data set with rows")
        return dict(dataset)
    if isinstance(dataset, Sequence) and all(isinstance(text, str) for text in dataset):
        return {"train": Dataset.from_dict({text_column: list(dataset)})}
    expected = "a data set: a Hub id, a file, a datasets.Dataset or a list of texts"
    made = from_data_frame(dataset) or "Dataset.from_list(rows)"
    step = f"for rows in memory: {made}; for conversations: use Seq2SeqPPOTrainer directly"
    raise InputError(expected, type(dataset).__name__, step)


def _load_named(name: str, text_column: str) -> dict[str, Dataset]:
    """A file as one split; of the Hub all, from the network, an earlier `load_dataset`, or what `hf download` left."""
    path = existing_file(bundled_path(name), "a data file or a Hub id", name) if is_bundled(name) else data_file(name)
    if path is not None:
        try:
            return {"train": Dataset.from_dict(prompt_columns(path, name, text_column))}
        except (ArrowException, UnicodeEncodeError) as error:
            expected, reason = f"values of one type in each column of {name}", str(error).splitlines()[0]
            raise InputError(expected, reason, "fix or remove that column") from error
    try:
        return dict(datasets.load_dataset(name))
    except (ConnectionError, FileNotFoundError, DatasetNotFoundError) as error:
        # datasets looks offline only into its own cache of built Arrow files, not at downloaded repositories.
        with contextlib.suppress(LocalEntryNotFoundError):
            folder = huggingface_hub.snapshot_download(name, repo_type="dataset", local_files_only=True)
            return dict(datasets.load_dataset(folder))
        step = "check the id; for a file, give its path with its ending, such as data/prompts.jsonl"
        expected, reason = f"the data set {name} on the Hub, or in the local cache", str(error).splitlines()[0]
        raise InputError(expected, reason, what_to_do(error, step)) from error


def _name(dataset: DatasetLike) -> str:
    given = "the given texts" if isinstance(dataset, Sequence) else "the given data set"
    return public_name(dataset) if isinstance(dataset, str | Path) else given
