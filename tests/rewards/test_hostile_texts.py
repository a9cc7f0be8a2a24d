"""Texts that nobody would write, in number; processes, threads, and the memory that they take."""

import multiprocessing
import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.rewards.judges import TEXTS, judge, sentiment
from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.rewards import ClassifierReward, MultiClassifierReward

CLOSE = {"rtol": 0, "atol": 1e-5}


def pair(**options):
    good = ClassifierReward(judge(), label="good", name="quality", **options)
    neutral = ClassifierReward(sentiment(), label="neutral", name="neutrality", **options)
    return MultiClassifierReward([good, neutral], [1.0, 0.5])


def hostile_texts(count=10_000):
    """Edge cases by hand, then random texts of every Unicode plane, lone surrogates among them."""
    chance = random.Random(0)
    texts = ["", " ", "\n", "\t\r\n", "\0", "\x00" * 50, "\x7f\x80\x9f", "\ufeff", "\ufffe", "\uffff", "\u200b" * 9]
    texts += ["a" * 100_000, "🙂" * 100_000, " " * 100_000, "word " * 20_000, "\ud800" * 100_000, "é" * 99_999 + "!"]
    texts += ["\ud800", "a\udfffb", "\udc00\ud800", "\ud83d\ude42", "e" + "\u0301" * 500, "👩\u200d👩\u200d👧\u200d👦"]
    texts += [
        "\u05e9\u05dc\u05d5\u05dd",
        "مرحبا بالعالم",
        "\u202eabc\u202c",
        "\u2066\u05e2\u05d1\u2069 abc",
        "[CLS] [SEP] <s> </s> <pad>",
    ]
    texts += [chr(code) for code in range(256)]
    texts += [chr(plane << 16 | offset) for plane in range(17) for offset in range(0, 0x10000, 0x155)]
    while len(texts) < count:
        plane = chance.randrange(17)
        texts.append("".join(chr(plane << 16 | chance.randrange(0x10000)) for _ in range(chance.randrange(1, 12))))
    return texts


@pytest.mark.slow
def test_ten_thousand_hostile_texts_have_finite_scores():
    texts = hostile_texts()
    assert len(texts) == 10_000
    assert {ord(text[0]) >> 16 for text in texts if text} == set(range(17))
    reward = pair()
    scores = reward.score(texts)
    for values in (scores.total, *scores.components.values()):
        assert values.shape == (10_000,)
        assert values.isfinite().all()
    chosen = random.Random(1).sample(range(10_000), 60) + list(range(28))
    alone = torch.tensor([reward([texts[index]])[0] for index in chosen])
    torch.testing.assert_close(scores.total[chosen], alone, **CLOSE)
    # Padded as second text of a pair they have one too.
    sample = [texts[index] for index in chosen]
    assert ClassifierReward(judge(), label="good", pair="prompt").score(sample, sample[::-1]).total.isfinite().all()


@pytest.mark.parametrize("item", [None, 3, 1.5, b"bytes", ["a"], {"content": "a"}, [{"role": "user"}], float("nan")])
def test_invalid_texts_are_refused_with_their_index(item):
    with pytest.raises(InputError, match=r"completions\[1\]"):
        pair()(["fine", item])


REWARDS = {}


@settings(max_examples=25, deadline=None)
@given(st.lists(st.text(st.characters(codec=None), max_size=12), max_size=10), st.randoms(), st.integers(1, 5))
def test_order_duplicates_and_batch_size_change_nothing(texts, chance, batch_size):
    reward = REWARDS.setdefault(None, pair())
    other = REWARDS.setdefault(batch_size, pair(batch_size=batch_size))
    expected = dict(zip(texts, reward(texts), strict=True))
    shuffled = texts + [chance.choice(texts) for _ in range(4) if texts]
    chance.shuffle(shuffled)
    found = torch.tensor(other(shuffled))
    torch.testing.assert_close(found, torch.tensor([expected[text] for text in shuffled]), **CLOSE)


@pytest.mark.slow
def test_a_spawned_process_gives_equal_scores():
    reward = pair()
    expected = reward(TEXTS)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(reward, (TEXTS,)) == pytest.approx(expected, abs=1e-5)


def test_eight_threads_at_once_give_equal_scores():
    reward = pair()
    batches = [[f"{thread} {text}" for text in TEXTS] for thread in range(8)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(reward, batches))
    assert found == [reward(texts) for texts in batches]


PEAK = """
import resource, sys
from trl_rewards_plugin.rewards import ClassifierReward
reward = ClassifierReward(sys.argv[1], label="good")
peaks = []
for count in (12_288, 24_576):
    texts = [f"{number} " * 4 for number in range(count)]
    assert len(reward(texts)) == count
    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
print(peaks[1] - peaks[0])
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in KiB on Linux")
def test_peak_memory_does_not_grow_with_the_number_of_texts():
    run = subprocess.run([sys.executable, "-c", PEAK, str(judge())], capture_output=True, text=True, check=True)
    # The 12,288 further texts and their scores are 3 MB; their token ids would be 60.
    assert int(run.stdout) < 8 * 1024
