"""The bundled models do what their READMEs say, as they are loaded from the package."""

import random

import pyarrow.json
import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from trl_rewards_plugin.assets import asset_path
from trl_rewards_plugin.ppo.config import Seq2SeqPPOConfig
from trl_rewards_plugin.ppo.decoding import decode_prompts
from trl_rewards_plugin.recipes.before_after import split_sentences
from trl_rewards_plugin.recipes.run_presets import get_preset
from trl_rewards_plugin.rewards import MultiClassifierReward


def prompts(name):
    return pyarrow.json.read_json(asset_path("prompts") / f"{name}.jsonl")["prompt"].to_pylist()


def word_edits(left, right):
    """Word-level Levenshtein distance, by the recurrence itself."""
    row = list(range(len(right) + 1))
    for i, word in enumerate(left, start=1):
        previous, row[0] = row[0], i
        for j, other in enumerate(right, start=1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (word != other))
    return row[-1]


def test_prompts_are_split_without_overlap():
    train, heldout = prompts("train"), prompts("heldout")
    assert 380 <= len(train) + len(heldout) <= 440
    assert not set(train) & set(heldout)
    assert all(2 <= len(split_sentences(prompt)) <= 3 for prompt in train + heldout)


def test_most_greedy_outputs_of_the_starting_model_are_a_sentence_of_their_source():
    folder = asset_path("tiny-t5")
    model = AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=torch.float32)
    args = Seq2SeqPPOConfig(output_dir="unused", **get_preset("tiny").config)
    heldout = prompts("heldout")
    texts = decode_prompts(model, AutoTokenizer.from_pretrained(folder), heldout, args, greedy=True).texts
    near = [
        min(word_edits(text.split(), sentence.split()) for sentence in split_sentences(prompt)) <= 2
        for text, prompt in zip(texts, heldout, strict=True)
    ]
    assert sum(near) / len(near) >= 0.6


def test_the_acceptability_judge_prefers_a_sentence_to_its_corrupted_copy():
    """Measured on these 214 pairs: 85 %, standard error 2.5 points; its README has larger measurements."""
    rng = random.Random(0)
    real = [sentence for prompt in prompts("heldout") for sentence in split_sentences(prompt)]
    spoilt = []
    for number, sentence in enumerate(real):
        words = sentence.split()
        place = rng.randrange(len(words) - 1)
        if number % 3 == 0:
            del words[place]
        elif number % 3 == 1:
            words.insert(place, words[place])
        else:
            words[place], words[place + 1] = words[place + 1], words[place]
        spoilt.append(" ".join(words))
    judge = MultiClassifierReward.from_preset("tiny").component("acceptability")
    above = judge.score(real).total > judge.score(spoilt).total
    assert above.float().mean() >= 0.8
    # A judge that calls every copy bad, and the real ones too, would rank as well.
    assert (judge.score(real).total > 0).float().mean() >= 0.85


def test_the_neutrality_judge_tells_a_report_from_praise_and_blame():
    judge = MultiClassifierReward.from_preset("tiny").component("neutrality")
    report, praise, blame = judge.score(
        ["The meeting is on Tuesday.", "I love this place so much!", "I hate this awful place."]
    ).total.tolist()
    assert report > praise
    assert report > blame
