import subprocess
import sys

import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BartConfig,
    BartForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    T5Config,
    T5ForSequenceClassification,
    XLNetConfig,
    XLNetForSequenceClassification,
)

from tests.rewards.judges import TEXTS, judge
from trl_rewards_plugin.rewards import ClassifierReward
from trl_rewards_plugin.rewards.inference.forward import CPU_TOKEN_BUDGET, TOKEN_BUDGET, BatchedForward

CLOSE = {"rtol": 0, "atol": 1e-5}


GPU_ERROR = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
CPU_ERROR = RuntimeError(
    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate "
    "12884901888 bytes. Error code 12 (Cannot allocate memory)"
)


def watched(limit, error=GPU_ERROR, **options):
    """A reward whose model fails with `error` above `limit` padded tokens, and the shapes that it was given."""
    model = AutoModelForSequenceClassification.from_pretrained(judge())
    shapes = []

    def look(_, args, inputs):
        shapes.append(tuple(inputs["input_ids"].shape))
        if inputs["input_ids"].numel() > limit:
            raise error

    model.register_forward_pre_hook(look, with_kwargs=True)
    tokenizer = AutoTokenizer.from_pretrained(judge())
    return ClassifierReward(model, label="good", tokenizer=tokenizer, name="watched", **options), shapes


@pytest.mark.parametrize("error", [GPU_ERROR, CPU_ERROR])
@pytest.mark.parametrize("batch_size", [None, 8])
def test_a_batch_that_does_not_fit_is_halved_and_stays_so(error, batch_size, caplog):
    texts = [letter * 8 for letter in "abcdefgh"]  # 10 tokens each
    reward, shapes = watched(25, error, batch_size=batch_size)
    expected = ClassifierReward(judge(), label="good").score(texts).total
    torch.testing.assert_close(reward.score(texts).total, expected, **CLOSE)
    # 8 texts fail, then 4, and 2 go: 8 x 10 / 2 / 2 = 20 padded tokens.
    assert shapes == [(8, 10), (4, 10)] + [(2, 10)] * 4
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 2
    assert "at most 20 padded tokens" in caplog.text
    shapes.clear()
    reward(texts)
    assert shapes == [(2, 10)] * 4


def test_what_was_scored_before_the_memory_ran_out_is_kept():
    reward, shapes = watched(40)
    texts = ["a" * 30, *(letter * 3 for letter in "abcdefghij")]
    expected = ClassifierReward(judge(), label="good").score(texts).total
    reward._classifier.forward.token_budget = 50
    torch.testing.assert_close(reward.score(texts).total, expected, **CLOSE)
    assert shapes == [(1, 32), (10, 5), (5, 5), (5, 5)]


def test_a_single_text_that_does_not_fit_says_what_to_do():
    reward, _ = watched(25)
    with pytest.raises(torch.OutOfMemoryError) as error:
        reward(["a" * 30])
    assert "one text of 32 tokens" in error.value.__notes__[0]
    assert f"{reward.name!r}: it was called on 1 completion, the first of them 'aaa" in error.value.__notes__[1]


def test_another_error_is_not_taken_for_a_lack_of_memory():
    reward, shapes = watched(25, RuntimeError("shapes differ"))
    with pytest.raises(RuntimeError, match="shapes differ"):
        reward(["a" * 20, "b" * 20])
    assert len(shapes) == 1


REAL_LIMIT = """
import resource, sys, torch
from transformers import AutoTokenizer, RobertaConfig, RobertaForSequenceClassification
from trl_rewards_plugin.rewards import ClassifierReward
config = RobertaConfig.from_pretrained(sys.argv[1], intermediate_size=4096)
model, tokenizer = RobertaForSequenceClassification(config), AutoTokenizer.from_pretrained(sys.argv[1])
reward = ClassifierReward(model, label="good", name="r", tokenizer=tokenizer, batch_size=100_000)
texts = [f"{i:05d} " * 60 for i in range(40)]
alone = reward(texts[:1])
used = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmData")) * 1024
limit = used + 200 * 2**20
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))  # 40 texts of 362 tokens need 240 MB for one tensor of many
assert abs(reward(texts)[0] - alone[0]) < 1e-5
print(reward._classifier.forward.token_budget)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="limits a process's memory as Linux does")
def test_real_memory_of_a_cpu_running_out_halves_the_batch():
    run = subprocess.run([sys.executable, "-c", REAL_LIMIT, str(judge())], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert 0 < int(run.stdout) < 40 * 362
    assert "out of memory" in run.stderr


def test_budgets_of_a_cpu_and_an_accelerator():
    forward = BatchedForward("model", None)
    assert forward._budget(torch.device("cpu"), None) == CPU_TOKEN_BUDGET
    assert forward._budget(torch.device("cuda"), None) == TOKEN_BUDGET
    assert forward._budget(torch.device("cpu"), 4) is None


# --- models that a neighbour's length could reach ---


def alone_and_together(model, tokenizer, texts=TEXTS):
    reward = ClassifierReward(model.eval(), label=1, tokenizer=tokenizer, name="r")
    alone = [reward([text])[0] for text in texts]
    torch.testing.assert_close(torch.tensor(reward(texts)), torch.tensor(alone), **CLOSE)
    return torch.tensor(alone)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("pad_in_config", [True, False])
def test_a_decoder_only_classifier_scores_alone_as_together(side, pad_in_config):
    # Absolute positions: padding in front would move them. No special tokens: the empty text has none at all.
    tokenizer = AutoTokenizer.from_pretrained(judge(), padding_side=side)
    tokenizer.backend_tokenizer.post_processor = None
    config = GPT2Config(
        vocab_size=len(tokenizer), n_positions=600, n_embd=16, n_layer=2, n_head=2, num_labels=2,
        initializer_range=0.3, pad_token_id=tokenizer.pad_token_id if pad_in_config else None,
    )  # fmt: skip
    scores = alone_and_together(GPT2ForSequenceClassification(config), tokenizer)
    assert len(set(scores.tolist())) == len(set(TEXTS))


def test_xlnet_which_reads_the_last_position_is_padded_in_front():
    tokenizer = AutoTokenizer.from_pretrained(judge(), padding_side="left")
    config = XLNetConfig(
        vocab_size=len(tokenizer), d_model=16, n_layer=2, n_head=2, d_inner=32, num_labels=2, initializer_range=0.3,
        pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    alone_and_together(XLNetForSequenceClassification(config), tokenizer)


@pytest.mark.parametrize("family", ["bart", "t5"])
def test_an_encoder_decoder_takes_texts_that_hold_its_end_token(family):
    tokenizer = AutoTokenizer.from_pretrained(judge())
    common = {"vocab_size": len(tokenizer), "num_labels": 2, "d_model": 16, "pad_token_id": 1, "eos_token_id": 2}
    if family == "bart":
        config = BartConfig(
            encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
            encoder_ffn_dim=32, decoder_ffn_dim=32, max_position_embeddings=600, init_std=0.3, **common,
        )  # fmt: skip
        model = BartForSequenceClassification(config)
    else:
        model = T5ForSequenceClassification(
            T5Config(d_kv=8, d_ff=32, num_layers=1, num_heads=2, decoder_start_token_id=1, **common)
        )
    alone_and_together(model, tokenizer, [*TEXTS, "</s>", "a </s> b", "b </s> a", "</s></s> <pad>"])


def test_half_precision_is_near_and_not_the_same():
    full = ClassifierReward(judge(), label="good").score(TEXTS).total
    for dtype in ("bfloat16", "float16"):
        half = ClassifierReward(judge(), label="good", dtype=dtype).score(TEXTS).total
        assert half.dtype == torch.float32
        assert 0 < (half - full).abs().max() < 0.1
