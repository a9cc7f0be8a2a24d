"""Tokenizer, policy, reference and judge agree on tokens at the door; rollouts, evaluation and saves follow."""

import pytest
import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, T5Config, T5ForConditionalGeneration

from tests.ppo.test_trainer import dataset, make_trainer, vowels
from tests.tiny_models import tiny_bart, tiny_classifier, tiny_t5, word_tokenizer
from trl_rewards_plugin import ClassifierReward
from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.ppo.decoding import rules_for
from trl_rewards_plugin.ppo.trainer import Seq2SeqPPOTrainer


def small_t5(vocabulary, **ids):
    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2, "decoder_start_token_id": 0}
    return T5ForConditionalGeneration(T5Config(vocab_size=vocabulary, **sizes, **ids))


def make(model, tokenizer, folder, ref_model=None, value_model=None):
    args = make_trainer(str(tiny_t5(folder / "any")), folder, total_episodes=4).args
    return Seq2SeqPPOTrainer(
        model, vowels, args, dataset(), processing_class=tokenizer, ref_model=ref_model, value_model=value_model
    )


@pytest.mark.parametrize("case", ["other EOS", "pad is EOS", "no BOS"])
def test_rollouts_evaluation_and_the_saved_model_end_at_the_same_tokens(tmp_path, case):
    tokenizer = word_tokenizer(["<pad>", "<s>", "</s>", "<unk>"], "<s> $A </s>")
    if case == "pad is EOS":
        tokenizer.pad_token = "</s>"
    if case == "no BOS":
        tokenizer.bos_token = None
    model = small_t5(len(tokenizer), pad_token_id=0, eos_token_id=1 if case == "other EOS" else 2)
    trainer = make(model, tokenizer, tmp_path)
    rules = trainer.rules
    assert tokenizer.eos_token_id in rules.eos_ids
    assert rules.pad_id == tokenizer.pad_token_id
    trainer.train()
    assert trainer.rules == rules == rules_for(trainer.policy_model, trainer.args, trainer.processing_class)
    trainer.save_model(str(tmp_path / "saved"))
    saved = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "saved").generation_config
    ends = saved.eos_token_id if isinstance(saved.eos_token_id, list) else [saved.eos_token_id]
    assert set(ends) == set(rules.eos_ids)
    assert saved.pad_token_id == rules.pad_id


@pytest.mark.parametrize("token", ["zebra", "<ORG>"])
def test_tokens_that_were_added_without_resizing_the_model_are_refused(tmp_path, token):
    tokenizer = word_tokenizer(["<pad>", "</s>", "<unk>"], "$A </s>")
    model = small_t5(len(tokenizer), pad_token_id=0, eos_token_id=1)
    tokenizer.add_tokens([token], special_tokens=token.startswith("<"))
    with pytest.raises(InputError, match="resize_token_embeddings") as caught:
        make(model, tokenizer, tmp_path)
    assert repr(token) in caught.value.found
    model.resize_token_embeddings(len(tokenizer))
    make(model, tokenizer, tmp_path)


def test_a_tokenizer_of_a_larger_model_is_refused(tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(tiny_bart(tmp_path / "bart"))
    with pytest.raises(InputError, match="the model's own tokenizer"):
        make(small_t5(len(tokenizer) - 1, pad_token_id=0, eos_token_id=1), tokenizer, tmp_path)


def test_a_tokenizer_without_a_pad_token_is_refused(tmp_path):
    tokenizer = word_tokenizer(["<pad>", "</s>", "<unk>"], "$A </s>")
    tokenizer.pad_token = None
    with pytest.raises(InputError, match="with a pad token"):
        make(small_t5(len(tokenizer), pad_token_id=0, eos_token_id=1), tokenizer, tmp_path)


def test_ids_that_the_tokenizer_does_not_have_are_never_sampled(tmp_path):
    tokenizer = word_tokenizer(["<pad>", "</s>", "<unk>"], "$A </s>")
    known = len(tokenizer)
    model = small_t5(known + 200, pad_token_id=0, eos_token_id=1)
    trainer = make(model, tokenizer, tmp_path)
    responses = trainer.generate([torch.tensor([5, 6, 1])] * 50)
    assert max(int(response.max()) for response in responses) < known
    rollout = trainer.collect(next(iter(trainer.get_train_dataloader())))
    torch.testing.assert_close(rollout.logprobs, rollout.ref_logprobs, atol=1e-4, rtol=0)


@pytest.mark.parametrize("more", [-1, 8])
def test_a_reference_of_another_vocabulary_is_refused(tmp_path, more):
    tokenizer = word_tokenizer(["<pad>", "</s>", "<unk>"], "$A </s>")
    policy, other = (small_t5(len(tokenizer) + extra, pad_token_id=0, eos_token_id=1) for extra in (0, more))
    with pytest.raises(InputError, match="a ref_model with embeddings"):
        make(policy, tokenizer, tmp_path, ref_model=other)


@pytest.mark.parametrize("kind", ["roberta", "bert"])
def test_a_judge_whose_tokenizer_has_tokens_of_no_embedding_is_refused(tmp_path, kind):
    folder = tiny_classifier(tmp_path / "judge", model_type=kind)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["zebra"])
    tokenizer.save_pretrained(folder)
    with pytest.raises(InputError, match="zebra"):
        ClassifierReward(str(folder), label="acceptable")(["the zebra"])
