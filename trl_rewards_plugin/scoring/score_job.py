"""Scores every text of a file, or of standard input, by one reward: what `trl-rewards score` does.

Resumes after the rows that an earlier, interrupted job wrote. Under a launcher each process scores its share and the
first one writes. What only checks needs no torch, hence the imports in functions.
"""

import itertools
import math
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from trl_rewards_plugin.errors import InputError, did_you_mean, nearest
from trl_rewards_plugin.options import option
from trl_rewards_plugin.preset_table import PRESETS
from trl_rewards_plugin.rewards.files.file_content import check_servers, preset_content, reward_names
from trl_rewards_plugin.rewards.texts import PROTOCOL
from trl_rewards_plugin.rows import STDIN, Row, format_of, missing_option, no_rows, read_rows, without_missing
from trl_rewards_plugin.runs.lock import writing_file
from trl_rewards_plugin.scoring.score_output import ScoreOutput, flat, foreign, open_output

SLICE = 512  # rows that a process scores between two writes
CPU_SLICE = 256  # where classifiers run on a CPU: a job there is seen to move; 64 take a quarter more time, 256 4 %
FIRST_SLICE = 32  # so that the bar soon shows how long it will take
TOTAL = "total"


@dataclass(frozen=True)
class ScoreSettings:
    """What `trl-rewards score` does; a field's help is its flag's help."""

    input: str = option(STDIN, "Texts: .txt (one a line), .jsonl, .json, .csv, .tsv or .parquet; - is standard input.")
    reward: str | None = option(None, "Reward: name of a preset, or a YAML file, trusted like a script. Required.")
    output: str | None = option(
        None, "File to write: .jsonl, .csv or .parquet. One that exists is resumed. Unset: JSONL to standard output."
    )
    text_column: str = option("text", "Column of the texts to score.")
    prompt_column: str | None = option(None, "Column of the prompts, for rewards that read them. Unset: no prompts.")
    missing: str = missing_option()
    input_format: str | None = option(
        None, "lines, jsonl, csv, tsv or parquet. Unset: by the input's extension; standard input is read as lines."
    )
    device: str | None = option(None, "Where the classifiers run, such as cpu or cuda:1. Unset: this process's own.")


@dataclass(frozen=True)
class ScoreSummary:
    """What a job did: rows of the output, `earlier` of them of earlier jobs; seconds, loading included."""

    rows: int
    earlier: int
    means: dict[str, float | None]  # of each column over all rows that have a score there, the total first
    stds: dict[str, float | None]  # of n - 1; None for fewer than two
    seconds: float


def score_file(settings: ScoreSettings, checked: tuple[str, ScoreOutput] | None = None) -> ScoreSummary | None:
    """Scores as `settings` say; `checked`: what `check_input` gave, if it ran. None in all processes but the first.

    Each row comes out as it came in, with the further columns `total` and one a component. Refused are settings or
    rows that do not fit, and an output of another job or another writer: where the input is a file, all before a model
    is loaded or anything is written.
    """
    checked, job = checked or check_input(settings), None
    try:
        job = _Job(settings, checked)
        with writing_file(job.output.path) if settings.output is not None and job.index == 0 else nullcontext():
            return job.run()
    except KeyboardInterrupt:
        if settings.output is not None and int(os.environ.get("RANK", 0)) == 0:
            print(f"\n{_kept(settings.output, job)}", file=sys.stderr)
        raise


def _kept(output: str, job: "_Job | None") -> str:
    """What an interrupted job leaves, in a sentence."""
    if job is not None and job.written:
        of = "" if job.count is None else f" of {job.count:,}"
        return f"{job.written:,}{of} texts are in {output}; the same command resumes there"
    # A row may be half written: what is there is not read.
    return f"the same command resumes in {output}" if Path(output).exists() else "nothing was written yet"


def check_input(settings: ScoreSettings) -> tuple[str, ScoreOutput]:
    """The form of the input, and the output; refused is what shows without the reward's models."""
    form = format_of(settings.input, settings.input_format)
    top = first = None  # the first row of the input, and the first that is scored
    if settings.input != STDIN:
        rows = read_rows(settings.input, form, settings.text_column)
        if (top := next(rows, None)) is not None:
            _check_columns(settings, top, 1)
            rows = itertools.chain([top], rows)
        first = next(without_missing(rows, _columns_read(settings), settings.missing, settings.input), None)
        if first is None:
            skipped = sum(1 for _ in read_rows(settings.input, form, settings.text_column))
            raise no_rows(settings.input, skipped)
    if settings.reward is None:
        step = "for example --reward article"
        raise InputError(f"a reward: {', '.join(PRESETS)}, or a .yaml file of your own", "none", step)
    names = reward_names(preset_content(settings.reward))
    if top is not None:
        _check_unscored(settings, top, 1, [TOTAL, *names])
    if first is not None:  # the other rows, and the scores, are compared once the reward is there
        output = open_output(settings.output)  # one of its own, as it counts the rows that it has read
        output.check([first])
        try:
            old = next(output.existing([*_columns_read(settings), TOTAL, *names], repair=False), None)
            if old is not None:
                _check_same(output.path, old, first, 1, _columns_read(settings), [TOTAL, *names])
        except InputError:
            with writing_file(output.path):  # refuses another process that is writing there: a row may be half written
                raise
    output = open_output(settings.output)
    check_servers([settings.reward])
    return form, output


def _columns_read(settings: ScoreSettings) -> list[str]:
    return [name for name in (settings.text_column, settings.prompt_column) if name is not None]


def _check_same(place: Path, old: Row, new: Row | None, number: int, read: list[str], scores: list[str]) -> None:
    """Refuses an output whose row of this `number` is not the scored row `new` of the input."""
    if (
        new is None
        or not old.keys() >= {*new, *scores}
        or any((flat(old[name]) or "") != (flat(new[name]) or "") for name in read)
    ):
        found = f"another text or other columns in its row {number}"
        raise foreign(place, found, "the scores of this input's first rows by this reward")


def _check_columns(settings: ScoreSettings, row: Row, number: int) -> None:
    """Refuses the row of this `number` if it lacks a column that is read; after the first, if `missing` says so."""
    for column, flag in ((settings.text_column, "--text_column"), (settings.prompt_column, "--prompt_column")):
        if column is not None and column not in row and (number == 1 or settings.missing == "error"):
            likely = [name for name in ("output", "completion", "prompt") if name in row] if flag[2] == "t" else []
            meant = nearest(column, row) or next(iter([*likely, *(row if len(row) == 1 else ())]), None)
            step = did_you_mean(column, row) + (f"give {flag} {meant}" if meant else f"give {flag} one of these")
            raise InputError(f"the column {column!r}", f"{', '.join(row)} in row {number}", step)


def _check_unscored(settings: ScoreSettings, row: Row, number: int, columns: list[str]) -> None:
    """Refuses the row of this `number` if it has one of the `columns` that will be added."""
    if taken := [name for name in columns if name in row]:
        texts = [name for name in row if name in ("prompt", "completion", *_columns_read(settings))]
        step = f"keep the texts alone (pandas: table[{texts}]); to resume a job, give it as --output"
        raise InputError("an input without the columns of scores", f"{', '.join(taken)} in row {number}", step)


class _Job:
    def __init__(self, settings: ScoreSettings, checked: tuple[str, ScoreOutput]):
        self.began = time.monotonic()
        self.settings = settings
        self.columns_read = _columns_read(settings)
        self.form, self.output = checked
        self.processes = int(os.environ.get("WORLD_SIZE", 1))
        if settings.input == STDIN and self.processes > 1:
            step = "write it into a file first, so that every process can read its share"
            raise InputError("a file as input of several processes", "standard input", step)
        from accelerate import PartialState

        from trl_rewards_plugin.rewards.combining.running_statistics import Moments

        self.index = PartialState().process_index if self.processes > 1 else 0
        self.reward = _reward(settings)
        self.columns = [TOTAL, *self.reward.component_names()]
        self.slice = min(SLICE, CPU_SLICE) if self.reward.classifiers and self._on_cpu() else SLICE
        self.moments = dict.fromkeys(self.columns, Moments())
        self.count: int | None = None
        self.written = 0
        if settings.input != STDIN:
            # Reads a file to its end, so that its last row is refused before the first is scored.
            self.count = 0
            for batch in _slices(self._rows(), SLICE):
                self.output.check(batch)
                self.count += len(batch)

    def run(self) -> ScoreSummary | None:
        from accelerate.utils import broadcast_object_list, gather_object

        rows, first = self._rows(), self.index == 0
        earlier = self._skip_existing(rows) if first else 0
        if self.processes > 1:
            earlier = broadcast_object_list([earlier])[0]
            rows = rows if first else itertools.islice(rows, earlier, None)
        self.written = earlier
        with tqdm(total=self.count, initial=earlier, unit=" texts", file=sys.stderr, disable=not first) as bar:
            for size in itertools.chain([min(FIRST_SLICE, self.slice)], itertools.repeat(self.slice)):
                if not (batch := list(itertools.islice(rows, size * self.processes))):
                    break
                scored = self._score(batch[self.index * size : (self.index + 1) * size])
                if self.processes > 1:
                    scored = gather_object(scored)
                if first:
                    self.output.append([{**row, **further} for row, further in zip(batch, scored, strict=True)])
                    for further in scored:
                        self._count(further)
                self.written += len(batch)
                bar.update(len(batch))
        if not first:
            return None
        self.output.finish()
        means = {name: seen.mean if seen.count else None for name, seen in self.moments.items()}
        stds = {k: math.sqrt(s.m2 / (s.count - 1)) if s.count > 1 else None for k, s in self.moments.items()}
        return ScoreSummary(self.written, earlier, means, stds, time.monotonic() - self.began)

    def _on_cpu(self) -> bool:
        from trl_rewards_plugin.rewards.inference.devices import as_device, own_device

        return (as_device(self.settings.device) or own_device()).type == "cpu"

    def _rows(self) -> Iterator[Row]:
        rows = self._checked(read_rows(self.settings.input, self.form, self.settings.text_column))
        return without_missing(rows, self.columns_read, self.settings.missing, self.settings.input)

    def _checked(self, rows: Iterator[Row]) -> Iterator[Row]:
        """Refuses a row without the columns that are read, or with one that will be added."""
        for number, row in enumerate(rows, 1):
            _check_columns(self.settings, row, number)
            for column in self.columns_read:
                # A list is taken for chat messages, which the reward itself reads.
                if not isinstance(row.get(column), str | list | None):
                    step = "name the column of the texts, or write these values as texts"
                    raise InputError(f"a text in column {column!r}", f"{row[column]!r} in row {number}"[:200], step)
            _check_unscored(self.settings, row, number, self.columns)
            yield row

    def _skip_existing(self, rows: Iterator[Row]) -> int:
        """Takes from `rows` those that the output holds already, and returns their number."""
        earlier = 0
        for earlier, old in enumerate(self.output.existing([*self.columns_read, *self.columns]), 1):
            new = next(rows, None)
            _check_same(self.output.path, old, new, earlier, self.columns_read, self.columns)
            assert new is not None
            self.written = earlier
            try:
                if earlier == 1:
                    self._check_reward(old, new)
                self._count(old)
            except InputError:
                raise
            except (TypeError, ValueError) as error:
                raise foreign(self.output.path, f"{error} in its row {earlier}") from error
        return earlier

    def _check_reward(self, old: Row, new: Row) -> None:
        """Scores the first row again: other weights or models must not resume the same file."""
        fresh = self._score([new])[0]
        for name in self.columns:
            before, now = _number(old[name]), fresh[name]
            # Another device or dtype moves the last digits.
            if (before is None) != (now is None) or abs((before or 0.0) - (now or 0.0)) > 0.02 * (1 + abs(now or 0.0)):
                found = f"{name} {before} for its first row, where this reward gives {now}"
                raise foreign(self.output.path, found, "the scores by this reward")

    def _score(self, rows: Sequence[Row]) -> list[Row]:
        """The further columns of each row."""
        if not rows:  # the share of a process at the end
            return []
        text, prompt = self.settings.text_column, self.settings.prompt_column
        # Every column of any row: JSON objects need not all have the same.
        names = dict.fromkeys(itertools.chain(*rows))
        columns = {name: [row.get(name) for row in rows] for name in names if name not in PROTOCOL}
        prompts = None if prompt is None else [row[prompt] for row in rows]
        scores = self.reward.score([row[text] for row in rows], prompts, **columns)
        values = {name: column.tolist() for name, column in {TOTAL: scores.total, **scores.components}.items()}
        return [{name: _number(values[name][index]) for name in self.columns} for index in range(len(rows))]

    def _count(self, row: Row) -> None:
        from trl_rewards_plugin.rewards.combining.running_statistics import Moments, merged

        for name, seen in self.moments.items():
            if (value := _number(row[name])) is not None:
                self.moments[name] = merged(seen, Moments(1, value))


def _reward(settings: ScoreSettings) -> Any:
    from trl_rewards_plugin.rewards.multi import MultiClassifierReward

    reward = MultiClassifierReward.from_preset(str(settings.reward))
    for part in reward.classifiers:
        if part.pair is not None and settings.prompt_column is None:
            step = "name the column of the prompts: --prompt_column prompt"
            raise InputError(f"prompts, which reward {part.name!r} reads beside the texts", "no column of them", step)
        if settings.device is not None:
            part.place(settings.device)
    if TOTAL in reward.component_names():
        step = "give that component another name in the reward file"
        raise InputError(f"no component named {TOTAL!r}: that column holds the combined score", repr(TOTAL), step)
    return reward


def _slices(rows: Iterator[Row], size: int) -> Iterator[list[Row]]:
    while batch := list(itertools.islice(rows, size)):
        yield batch


def _number(value: Any) -> float | None:
    """A score as it is written: None for NaN and for an empty field."""
    return None if value is None or math.isnan(float(value)) else float(value)
