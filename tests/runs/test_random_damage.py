"""Files of a run folder damaged at random: card and report end well or in a refusal, never in anything else."""

import json
import random

import pytest
import yaml

from tests.report.folders import write_run
from trl_rewards_plugin.cards.model_card import write_model_card
from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.report.page import write_report

ODD = [
    None,
    [],
    {},
    "x",
    "",
    -1,
    1e308,
    float("inf"),
    10**400,
    True,
    "\ud800",
    "<script>",
    [[[]]],
    {"": None},
    "x" * 9999,
]


def places(values, place=()):
    items = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    for key, value in items:
        yield (*place, key)
        yield from places(value, (*place, key))


def changed(values, draw):
    """`values` with another value somewhere, or one less."""
    *path, last = draw.choice(list(places(values)))
    inner = values
    for key in path:
        inner = inner[key]
    if draw.random() < 0.2:
        del inner[last]
    else:
        inner[last] = draw.choice(ODD)
    return values


@pytest.mark.parametrize("seed", range(5))
def test_damage_is_read_or_refused(tmp_path, seed):
    draw, outcomes = random.Random(seed), set()
    for _ in range(12):
        folder = write_run(tmp_path / "run")
        path = folder / draw.choice(["metrics.json", "config.yaml", "log.jsonl"])
        text = path.read_text()
        if draw.random() < 0.3:
            path.write_text(text[: draw.randrange(len(text))])
        elif path.suffix == ".jsonl":
            path.write_text("".join(json.dumps(changed(json.loads(line), draw)) + "\n" for line in text.splitlines()))
        else:
            values = changed(yaml.safe_load(text), draw)
            path.write_text(json.dumps(values) if path.suffix == ".json" else yaml.safe_dump(values))
        for read in (write_model_card, lambda folder: write_report([folder])):
            try:
                outcomes.add(read(folder).read_text()[-8:-1] != "")
            except InputError:
                outcomes.add("refused")
    assert outcomes == {True, "refused"}
