import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from tests.rewards.judges import TEXTS, judge, sentiment
from trl_rewards_plugin.rewards import ClassifierReward, MultiClassifierReward
from trl_rewards_plugin.rewards.inference import forward
from trl_rewards_plugin.rewards.inference.forward import EncodingMemo, encode, fingerprint, padded
from trl_rewards_plugin.rewards.texts import valid_unicode


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("naïve 日本語 🙂", "naïve 日本語 🙂"),
        ("a\ud800b", "a�b"),
        ("\udc00", "�"),
        ("\ud83d\ude42", "🙂"),
    ],
)
def test_lone_surrogates_become_the_replacement_character_and_pairs_their_character(text, expected):
    assert valid_unicode(text) == expected


@given(st.text(st.characters(codec=None)))
def test_whatever_python_calls_a_text_becomes_one_that_can_be_encoded(text):
    clean = valid_unicode(text)
    clean.encode()
    assert valid_unicode(clean) == clean


def test_padding_by_hand():
    encoded = {"input_ids": [[5, 6, 7], [8], [9, 9]], "attention_mask": [[1, 1, 1], [1], [1, 1]]}
    behind = padded(encoded, [1, 0], {"input_ids": 3}, left=False)
    assert behind["input_ids"].tolist() == [[8, 3, 3], [5, 6, 7]]
    assert behind["attention_mask"].tolist() == [[1, 0, 0], [1, 1, 1]]
    before = padded(encoded, [1, 2], {"input_ids": 3}, left=True)
    assert before["input_ids"].tolist() == [[3, 8], [9, 9]]
    assert before["input_ids"].dtype == torch.int64


@pytest.mark.parametrize("folder", [judge, sentiment])
def test_padding_is_the_tokenizers_own(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder())
    encoded = encode(tokenizer, [(text, "why ?") for text in TEXTS], 20)
    fills = {"input_ids": tokenizer.pad_token_id, "token_type_ids": tokenizer.pad_token_type_id}
    own = tokenizer(["why ?"] * len(TEXTS), TEXTS, truncation=True, max_length=20, padding=True, return_tensors="pt")
    ours = padded(encoded, range(len(TEXTS)), fills, left=False)
    assert ours.keys() == own.keys()
    assert all(torch.equal(ours[key], own[key]) for key in own)


def test_a_text_without_any_token_becomes_one_special_token():
    tokenizer = AutoTokenizer.from_pretrained(judge())
    tokenizer.backend_tokenizer.post_processor = None
    encoded = encode(tokenizer, [("", None), ("a", None)], 20)
    assert encoded["input_ids"][0] == [tokenizer.bos_token_id]
    assert encoded["attention_mask"] == [[1], [1]]
    tokenizer.bos_token = tokenizer.eos_token = None
    assert encode(tokenizer, [("", None)], 20)["input_ids"] == [[tokenizer.pad_token_id]]


# --- the memo ---


@pytest.fixture
def calls(monkeypatch):
    counted = []

    def count(*args):
        counted.append(args)
        return encode(*args)

    monkeypatch.setattr(forward, "encode", count)
    return counted


ROWS = [("a", None), ("b", None)]


def test_tokenizers_that_agree_encode_once(calls):
    one, two = AutoTokenizer.from_pretrained(judge()), AutoTokenizer.from_pretrained(judge())
    two(["a long text"], truncation=True, max_length=3, padding=True)  # what an earlier call set does not count
    memo = EncodingMemo()
    first = memo.encode(one, fingerprint(one), ROWS, 10)
    assert memo.encode(two, fingerprint(two), list(ROWS), 10) == first == encode(two, ROWS, 10)
    assert len(calls) == 1


@pytest.mark.parametrize(("rows", "length"), [([("a", None)], 10), ([("a", "p"), ("b", "p")], 10), (ROWS, 3)])
def test_other_texts_prompts_or_lengths_are_encoded_again(calls, rows, length):
    tokenizer, memo = AutoTokenizer.from_pretrained(judge()), EncodingMemo()
    memo.encode(tokenizer, fingerprint(tokenizer), ROWS, 10)
    assert memo.encode(tokenizer, fingerprint(tokenizer), rows, length) == encode(tokenizer, rows, length)
    assert len(calls) == 2


def test_tokenizers_that_differ_do_not_share(calls):
    plain = AutoTokenizer.from_pretrained(judge())
    spaced = AutoTokenizer.from_pretrained(judge(), add_prefix_space=True)
    front = AutoTokenizer.from_pretrained(judge(), truncation_side="left")
    wordpiece = AutoTokenizer.from_pretrained(sentiment())
    prints = [fingerprint(one) for one in (plain, spaced, front, wordpiece)]
    assert len(set(prints)) == 4
    memo = EncodingMemo()
    for tokenizer, one in zip((plain, spaced, front, wordpiece), prints, strict=True):
        assert memo.encode(tokenizer, one, ROWS, 10) == encode(tokenizer, ROWS, 10)
    assert len(calls) == 4


def test_a_slow_tokenizer_has_no_fingerprint_and_shares_nothing(calls):
    assert fingerprint(object()) is None
    tokenizer, memo = AutoTokenizer.from_pretrained(judge()), EncodingMemo()
    assert memo.encode(tokenizer, None, ROWS, 10) == memo.encode(tokenizer, None, ROWS, 10)
    assert len(calls) == 2


def test_the_memo_crosses_processes_empty_and_serves_threads():
    tokenizer, memo = AutoTokenizer.from_pretrained(judge()), EncodingMemo()
    one = fingerprint(tokenizer)
    memo.encode(tokenizer, one, [("secret text", None)], 10)
    assert b"secret" not in pickle.dumps(memo)
    rows = [[(f"{thread} {text}", None) for text in TEXTS] for thread in range(8)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda mine: memo.encode(tokenizer, one, mine, 20), rows))
    assert found == [encode(tokenizer, mine, 20) for mine in rows]


def test_a_combination_tokenizes_once_for_classifiers_that_read_alike(calls):
    kinds = judge(), judge("other", seed=3), sentiment()
    rewards = [ClassifierReward(folder, label=1, name=f"r{index}") for index, folder in enumerate(kinds)]
    components = MultiClassifierReward(rewards).score(TEXTS).components
    assert len(calls) == 2  # once for the two of RoBERTa, once for BERT
    for index, folder in enumerate(kinds):
        alone = ClassifierReward(folder, label=1).score(TEXTS).total
        torch.testing.assert_close(components[f"r{index}"], alone, rtol=0, atol=1e-5)
