import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet
import pytest

from trl_rewards_plugin.metrics.paired_gain import pairs_by_gain
from trl_rewards_plugin.recipes.before_after import (
    Evaluation,
    Evaluator,
    Scored,
    best_of,
    build_metrics,
    completion_rows,
    count_texts,
    gain,
    mean_scored,
    split_sentences,
    spread_scored,
)
from trl_rewards_plugin.recipes.data import HeldOut
from trl_rewards_plugin.runs.writing import write_rows


class LengthReward:
    """Total = words + 0.5 x capitals; remembers what it was asked."""

    def __init__(self):
        self.calls = []

    def score(self, texts, prompts=None, **columns):
        self.calls.append((list(texts), list(prompts), columns))
        words = np.array([float(len(text.split())) for text in texts])
        capitals = np.array([float(sum(letter.isupper() for letter in text)) for text in texts])
        return SimpleNamespace(total=words + 0.5 * capitals, components={"words": words, "capitals": capitals})


class FakeDecoder:
    """The nth sample of a prompt is its first n words; greedy gives the first word; remembers its settings."""

    def __init__(self):
        self.calls = []

    def __call__(self, prompts, *, greedy, num_samples, seed, with_reference):
        self.calls.append({"greedy": greedy, "num_samples": num_samples, "seed": seed, "ref": with_reference})
        texts = [
            " ".join(prompt.split()[: 1 if greedy else sample + 1])
            for prompt in prompts
            for sample in range(num_samples)
        ]
        ratio = np.full(len(texts), 0.25, dtype=np.float32) if with_reference else None
        ids = [[len(text)] for text in texts]
        ended = np.array([len(text) < 5 for text in texts])
        return SimpleNamespace(texts=texts, ids=ids, ended=ended, log_ratio=ratio)


def encode_lengths(texts):
    return [[len(text)] for text in texts]


@pytest.fixture
def evaluator():
    held_out = HeldOut(["say: A b. C d e.", "say: f g."], ["A b. C d e.", "f g."], {"topic": ["one", "two"]})
    return Evaluator(FakeDecoder(), LengthReward(), encode_lengths, held_out, seed=7, best_of=3)


def test_evaluate_decodes_sampled_and_greedy_with_one_seed(evaluator):
    result = evaluator.evaluate(with_reference=True)
    assert [call["greedy"] for call in evaluator.decode.calls] == [False, True]
    assert {call["seed"] for call in evaluator.decode.calls} == {7}
    assert result.sampled.texts == ["say:", "say:"]
    assert result.sampled.log_ratio.tolist() == [0.25, 0.25]
    assert evaluator.evaluate().sampled.log_ratio is None


def test_rewards_get_the_ids_that_were_drawn_and_a_missing_eos_costs_what_it_costs_in_training(evaluator):
    penalised = replace(evaluator, missing_eos_penalty=0.5)
    # "say:" has 4 letters, which is an EOS here; "say: A" and "say: A b." have none.
    assert penalised.evaluate().sampled.total.tolist() == evaluator.evaluate().sampled.total.tolist()
    difference = evaluator.yardsticks()["best_of_16"]["reward"] - penalised.yardsticks()["best_of_16"]["reward"]
    assert difference == 0.5
    for texts, _, columns in evaluator.reward.calls:
        assert columns["completion_ids"] == [[len(text)] for text in texts]


def test_yardsticks_by_hand(evaluator):
    yardsticks = evaluator.yardsticks()
    # Best of three samples: "say: A b." (3 words, 1 capital) and "say: f g." (3 words).
    assert yardsticks["best_of_16"] == {"reward": 3.25, "words": 3.0, "capitals": 0.5}
    # Sentences "A b." "C d e." "f g.": 2, 3, 2 words and 1, 1, 0 capitals.
    assert yardsticks["sources"] == pytest.approx({"reward": 8 / 3, "words": 7 / 3, "capitals": 2 / 3})


def test_each_text_is_judged_with_its_own_prompt_and_columns(evaluator):
    evaluator.yardsticks()
    (samples, sources) = evaluator.reward.calls
    assert samples[1] == ["say: A b. C d e."] * 3 + ["say: f g."] * 3
    assert samples[2]["topic"] == ["one"] * 3 + ["two"] * 3
    assert sources[0] == ["A b.", "C d e.", "f g."]
    assert sources[2]["topic"] == ["one", "one", "two"]


def scored(texts, **components):
    values = {name: np.array(column, dtype=float) for name, column in components.items()}
    return Scored(texts, sum(values.values()), values)


def make_metrics(after_texts=("a b", "c")):
    before = Evaluation(scored(["a b", "c d"], good=[1, 3], kind=[0, 0]), scored(["a", "c"], good=[2, 2], kind=[0, 0]))
    after = Evaluation(
        scored(list(after_texts), good=[2, 4], kind=[1, -1]), scored(["a", "c"], good=[2, 4], kind=[0, 0])
    )
    yardsticks = {
        "sources": {"reward": 9.0, "good": 8.0, "kind": 1.0},
        "best_of_16": {"reward": 7.0, "good": 6.0, "kind": 1.0},
    }
    facts = {"kl": 1.5, "episodes": 64, "seconds": 2.0, "seed": 3}
    metrics = build_metrics(before, after, ["a b", "x y"], yardsticks, facts)
    # Two prompts are too few for an interval, and what shows these metrics wants one to show.
    metrics["reward_gain"]["ci95"] = [0.0, 2.0]
    metrics["component_gain"]["good"]["ci95"] = [1.0, 1.0]
    metrics["component_gain"]["kind"]["ci95"] = [-1.0, 1.0]
    return metrics


def test_metrics_have_the_keys_that_others_read():
    metrics = make_metrics()
    assert list(metrics) == [
        "before", "after", "before_greedy", "after_greedy", "before_std", "sources", "best_of_16", "reward_gain",
        "component_gain", "guard", "warnings", "kl", "episodes", "seconds", "seed",
    ]  # fmt: skip
    assert set(metrics["reward_gain"]) == {"mean", "ci95", "n"}
    assert {"mean", "ci95"} <= set(metrics["component_gain"]["good"])
    assert all(set(pair) == {"before", "after"} for pair in metrics["guard"].values())
    assert json.loads(json.dumps(metrics, allow_nan=False)) == metrics


def test_metrics_by_hand():
    metrics = make_metrics()
    assert metrics["before"] == {"reward": 2.0, "good": 2.0, "kind": 0.0}
    assert metrics["after"] == {"reward": 3.0, "good": 3.0, "kind": 0.0}
    assert metrics["before_greedy"]["reward"] == 2.0
    assert metrics["after_greedy"]["reward"] == 3.0
    assert metrics["before_std"]["reward"] == pytest.approx(2**0.5)
    # Differences of the totals: 3 - 1 = 2 and 3 - 3 = 0; of "good" 1 and 1; of "kind" 1 and -1.
    assert (metrics["reward_gain"]["mean"], metrics["reward_gain"]["n"]) == (1.0, 2)
    assert (metrics["component_gain"]["good"]["mean"], metrics["component_gain"]["good"]["n"]) == (1.0, 2)
    assert metrics["guard"]["not_whole_input"] == {"before": 0.5, "after": 0.5}
    assert metrics["guard"]["output_length"] == {"before": 2.0, "after": 1.5}
    assert metrics["guard"]["rouge_l_source"] == {"before": 0.5, "after": 0.5}
    assert (metrics["kl"], metrics["episodes"], metrics["seconds"], metrics["seed"]) == (1.5, 64, 2.0, 3)


def test_collapse_shows_in_the_guard():
    assert make_metrics(("same", "same"))["guard"]["distinct"] == {"before": 1.0, "after": 0.5}


def test_greedy_outputs_that_collapse_show_in_the_guard_and_in_a_warning():
    texts = [f"text {index}" for index in range(20)]

    def metrics(greedy):
        sides = (Evaluation(scored(texts, good=range(20)), scored(out, good=range(20))) for out in (texts, greedy))
        return build_metrics(*sides, texts, {"sources": {}, "best_of_16": {}}, {"kl": 0.0})

    found = metrics(["cy cy  cy"] * 10 + ["cy cy cy"] * 9 + ["cy"])
    assert found["guard"]["distinct"] == {"before": 1.0, "after": 1.0}  # sampled
    assert found["guard"]["distinct_greedy"] == {"before": 1.0, "after": 0.1}
    (line,) = found["warnings"]
    assert "2 different texts for 20 different sources (20 before training)" in line
    assert metrics(["a", "b"] + ["c"] * 18)["warnings"] == []
    assert make_metrics()["warnings"] == []


def test_what_anyone_can_count_is_counted_on_both_sides():
    patterns = {"end in a full stop": r"\.$"}
    assert count_texts(patterns, ["a. ", "b", "c", "d"], ["a.", "b.", "c.", "d"]) == {
        "end in a full stop": {"before": 0.25, "after": 0.75}
    }


def test_pairs_are_the_two_best_the_median_and_the_one_that_got_worse():
    afters = (0.5, 4.0, 2.0, 3.0, 1.5, float("nan"))
    rows = [{"before_greedy_reward": 1.0, "after_greedy_reward": after} for after in afters]
    assert {title: rows.index(row) for title, row in pairs_by_gain(rows).items()} == {
        "Best gain (+3.00)": 1, "Second best gain (+2.00)": 3, "Median gain (+1.00)": 2, "Largest loss (-0.50)": 0,
    }  # fmt: skip
    assert list(pairs_by_gain(rows[1:4])) == ["Best gain (+3.00)", "Median gain (+2.00)"]
    assert pairs_by_gain(rows[5:]) == {}


def test_what_got_worse_is_no_gain():
    rows = [{"before_greedy_reward": 1.0, "after_greedy_reward": after} for after in (0.5, 0.75, 0.0)]
    assert list(pairs_by_gain(rows)) == ["Smallest loss (-0.25)", "Median loss (-0.50)", "Largest loss (-1.00)"]
    rows = [{"before_greedy_reward": 1.0, "after_greedy_reward": 1 - 1e-4}] * 3
    assert list(pairs_by_gain(rows)) == ["Best gain (+0.00)", "Median gain (+0.00)"]


def test_gain_is_over_the_prompts_that_were_scored_both_times():
    nan = float("nan")
    assert gain(np.array([1.0, nan, 2.0]), np.array([2.0, 5.0, nan])) == {"mean": 1.0, "ci95": [None, None], "n": 1}
    assert gain(np.array([nan]), np.array([1.0])) == {"mean": None, "ci95": [None, None], "n": 0}


def test_completions_have_every_text_with_its_scores(tmp_path):
    before = Evaluation(scored(["s1", "s2"], good=[1, 2]), scored(["g1", "g2"], good=[3, 4]))
    after = Evaluation(scored(["S1", "S2"], good=[5, 6]), scored(["G1", "G2"], good=[7, 8]))
    rows = completion_rows(HeldOut(["p1", "p2"], ["q1", "q2"]), before, after)
    write_rows(tmp_path / "c.parquet", rows)
    assert pyarrow.parquet.read_table(tmp_path / "c.parquet").to_pylist() == rows
    assert rows[1] == {
        "prompt": "p2", "source": "q2", "before": "s2", "after": "S2", "before_greedy": "g2", "after_greedy": "G2",
        "before_reward": 2.0, "before_good": 2.0, "after_reward": 6.0, "after_good": 6.0,
        "before_greedy_reward": 4.0, "before_greedy_good": 4.0, "after_greedy_reward": 8.0, "after_greedy_good": 8.0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two! Three?", ["One.", "Two!", "Three?"]),
        ('He said "go." Then (they went.) home', ['He said "go."', "Then (they went.)", "home"]),
        ("no end", ["no end"]),
        ("a line\nanother one. third", ["a line", "another one.", "third"]),
        ("version 1.5 is out", ["version 1.5 is out"]),
        ("  \n ", []),
    ],
)
def test_split_sentences(text, expected):
    assert split_sentences(text) == expected


def test_best_of_picks_within_each_prompt():
    assert best_of(np.array([0.0, 2.0, 1.0, -3.0, -1.0, -2.0]), 3).tolist() == [1, 4]
    assert best_of(np.array([np.nan, -5.0]), 2).tolist() == [1]
    with pytest.raises(ValueError, match="B \\* 4"):
        best_of(np.zeros(6), 4)


def test_means_leave_out_what_was_not_scored():
    values = np.array([1.0, np.nan, 3.0])
    assert mean_scored(values) == 2.0
    assert spread_scored(values) == pytest.approx(2**0.5)
    assert mean_scored(np.array([np.nan])) is None
    assert spread_scored(np.array([1.0])) is None
