"""What is refused before anything is loaded, and the three parts of each message."""

import pytest
import torch
from datasets import Dataset, DatasetDict
from pandas import DataFrame
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel, T5Model

from tests.tiny_models import tiny_bart, tiny_classifier, tiny_t5
from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.ppo.config import Seq2SeqPPOConfig
from trl_rewards_plugin.ppo.input_checks import check_dataset, check_devices, check_reward_funcs, check_seq2seq_model
from trl_rewards_plugin.ppo.trainer import Seq2SeqPPOTrainer


def reward(completions, **kwargs):
    return [0.0] * len(completions)


async def later(completions, **kwargs):
    return [0.0] * len(completions)


def config(**settings):
    return Seq2SeqPPOConfig(output_dir="unused", report_to="none", **settings)


def rows(count, column="prompt"):
    return Dataset.from_list([{column: "the cat"}] * count) if count else Dataset.from_dict({column: []})


def splits(name):
    return DatasetDict({name: rows(2)})


def refused(call):
    with pytest.raises(InputError) as caught:
        call()
    return caught.value


@pytest.mark.parametrize(
    ("call", "expected", "found", "next_step"),
    [
        (lambda: config(fp16=True), "T5 overflows", "fp16=True", "leave fp16 out"),
        (
            lambda: config(num_beams=4),
            "an argument of Seq2SeqPPOConfig",
            "'num_beams'",
            "decodes with eval_generation_kw",
        ),
        (lambda: config(lerning_rate=1), "an argument of", "'lerning_rate'", "did you mean 'learning_rate'? see help"),
        (lambda: config(top_p=0.9), "top_p left out or neutral (1.0)", "top_p=0.9", "leave top_p out"),
        (lambda: config(top_k=50), "top_k left out or neutral (0)", "top_k=50", "leave top_k out"),
        (lambda: config(generation_kwargs={"num_beams": 4}), "num_beams left out", "num_beams=4", "eval_generation_k"),
        (
            lambda: config(generation_kwargs={"no_repeat_ngram_size": 3}),
            "neutral (0)",
            "size=3",
            "lower `temperature`",
        ),
        (lambda: config(generation_kwargs={"temperature": 0.5}), "temperature as a field", "0.5", "(temperature=...)"),
        (
            lambda: config(generation_kwargs={"top_k": 50}),
            "top_k left out or neutral",
            "top_k=50",
            "eval_generation_k",
        ),
        (lambda: config(generation_kwargs={"magic": 1}), "known to leave", "magic=1", "leave magic out"),
        (lambda: config(temperature=0.0), "temperature above 0", "temperature=0.0", "change temperature"),
        (lambda: config(kl_estimator="full", whiten_rewards=True), "off with kl_estimator='full'", "True", "whiten"),
        (
            lambda: config(kl_estimator="k2"),
            "one of k1, k3, full",
            "kl_estimator='k2'",
            "set kl_estimator to one of these",
        ),
        (
            lambda: config(advantage_estimator="ppo"),
            "one of gae, rloo",
            "advantage_estimator='ppo'",
            "set advantage_estimator to one of these",
        ),
        (lambda: config(advantage_estimator="rloo"), "at least 2 for rloo", "num_generations=1", "change num_gener"),
        (
            lambda: config(num_generations=0),
            "num_generations at least 1",
            "num_generations=0",
            "change num_generations",
        ),
        (
            lambda: config(num_generations=3),
            "divides per_device_train_batch_size (8",
            "num_generations=3",
            "change num",
        ),
        (
            lambda: config(advantage_estimator="grpo", num_generations=2, gamma=0.9),
            "1 for rloo and grpo",
            "gamma=0.9",
            "change gamma",
        ),
        (
            lambda: config(multi_objective_aggregation="normalize_then_sum"),
            "for grpo alone",
            "multi_objective_aggregation='normalize_then_sum'",
            "change multi_objective_aggregation",
        ),
        (
            lambda: config(advantage_estimator="rloo", num_generations=2, scale_rewards="none"),
            "'group', as grpo alone scales",
            "scale_rewards='none'",
            "change scale_rewards",
        ),
        (
            lambda: config(
                advantage_estimator="grpo",
                num_generations=2,
                scale_rewards="batch",
                multi_objective_aggregation="normalize_then_sum",
            ),
            "'group'",
            "scale_rewards='batch'",
            "change scale_rewards",
        ),
        (lambda: config(loss_type="bnpo"), "one of dapo, grpo", "loss_type='bnpo'", "set loss_type to one of these"),
        (lambda: config(cliprange_high=0.0), "above 0, or unset", "cliprange_high=0.0", "change cliprange_high"),
        (lambda: config(entropy_coef=-0.1), "0 or more", "entropy_coef=-0.1", "change entropy_coef"),
        (
            lambda: config(use_kl_loss=True),
            "gradient of k1 is 0 on average",
            "kl_estimator='k1'",
            "change kl_estimator",
        ),
        (
            lambda: config(advantage_estimator="reinforce", critic_learning_rate=0.1),
            "reinforce has no critic",
            "critic_learning_rate=0.1",
            "change critic_learning_rate",
        ),
        (
            lambda: config(advantage_estimator="reinforce", critic_warmup_steps=1),
            "reinforce has no critic",
            "critic_warmup_steps=1",
            "change critic_warmup_steps",
        ),
        (
            lambda: config(advantage_estimator="reinforce", detach_value_head=True),
            "reinforce has no critic",
            "detach_value_head=True",
            "change detach_value_head",
        ),
        (lambda: config(critic_warmup_steps=-1), "0 or more", "critic_warmup_steps=-1", "change critic_warmup_steps"),
        (lambda: config(num_layers_unfrozen=-1), "0 or more, or unset", "unfrozen=-1", "change num_layers_unfrozen"),
        (lambda: config(missing_eos_penalty=-1.0), "it is subtracted", "missing_eos_penalty=-1.0", "change missing"),
        (lambda: config(min_new_tokens=53), "below response_length", "min_new_tokens=53", "change min_new_tokens"),
        (
            lambda: config(per_device_train_batch_size=8, num_mini_batches=3),
            "num_mini_batches that divides",
            "num_mini_batches=3 for 8 episodes",
            "divisors of 8",
        ),
        (lambda: config(vf_coef=-1.0), "vf_coef 0 or more", "vf_coef=-1.0", "change vf_coef"),
        (
            lambda: config(kl_horizon=4, adaptive_kl=True),
            "one rollout's episodes",
            "kl_horizon=4",
            "change kl_horizon",
        ),
        (lambda: config(reward_weights=[float("nan")]), "finite numbers", "[nan]", "change reward_weights"),
        (lambda: config(max_steps=3, total_episodes=9), "both say when to stop", "max_steps=3", "change max_steps"),
        (lambda: config(generation_kwargs="top_k"), "generation_kwargs as a mapping", "'top_k'", "write for example"),
        (lambda: check_reward_funcs(later, None), "return their values", "'later', an async", "MultiClassifier"),
        (
            lambda: check_dataset(Dataset.from_list([{"prompt": "a"}, {"prompt": None}]), "eval_dataset"),
            "every row of eval_dataset",
            "None in row 1",
            "dataset.filter",
        ),
        (lambda: check_devices(2), "one GPU per process", "2 visible GPUs", "accelerate launch"),
        (lambda: check_reward_funcs([], None), "at least one reward", "an empty list", "pass a callable"),
        (lambda: check_reward_funcs("user/judge", None), "reward callables", "str 'user/judge'", "ClassifierReward("),
        (lambda: check_reward_funcs(torch.nn.Linear(1, 1), None), "reward callables", "Linear", "ClassifierReward("),
        (lambda: check_reward_funcs([reward, reward], None), "different names", "two named 'reward'", "name"),
        (lambda: check_reward_funcs([reward], [1.0, 2.0]), "1 reward_weights", "2: [1.0, 2.0]", "one weight for each"),
        (lambda: check_dataset(DataFrame(), "train_dataset"), "datasets.Dataset", "DataFrame", "from_pandas(df)"),
        (lambda: check_dataset(["the cat"], "train_dataset"), "datasets.Dataset", "list", "from_list"),
        (
            lambda: check_dataset(splits("train"), "train_dataset"),
            "a datasets.Dataset",
            "DatasetDict",
            "dataset['train']",
        ),
        (
            lambda: check_dataset(splits("test"), "eval_dataset"),
            "a datasets.Dataset",
            "DatasetDict",
            "dataset['test']",
        ),
        (lambda: check_dataset(splits("my"), "train_dataset"), "datasets.Dataset", "DatasetDict", "dataset['my']"),
        (lambda: check_dataset({"a": rows(2)}, "eval_dataset"), "a datasets.Dataset", "dict", "call evaluate() with"),
        (
            lambda: check_dataset(rows(2).to_iterable_dataset(), "train_dataset"),
            "a datasets.Dataset",
            "IterableDataset",
            "rows in memory",
        ),
        (
            lambda: check_dataset(rows(2, "prompts"), "train_dataset"),
            "column 'prompt'",
            "prompts",
            "rename_column('prompts'",
        ),
        (
            lambda: check_dataset(rows(0), "train_dataset", 4),
            "at least 4 rows",
            "an empty dataset",
            "how it was loaded",
        ),
        (
            lambda: check_dataset(rows(3), "train_dataset", 4),
            "one rollout of prompts, 4",
            "3 rows",
            "lower per_device",
        ),
    ],
)
def test_each_message_says_what_was_expected_found_and_what_to_do(call, expected, found, next_step):
    error = refused(call)
    assert expected in error.expected
    assert found in error.found
    assert next_step in error.next_step
    for part in (error.expected, error.found, error.next_step):
        assert part in str(error)


def test_neutral_generation_settings_are_accepted():
    config(top_p=1.0, top_k=0, generation_kwargs={"num_beams": 1, "do_sample": True, "repetition_penalty": 1.0})


def test_a_folder_that_is_no_model_is_refused(tmp_path):
    error = refused(lambda: check_seq2seq_model(tmp_path))
    assert "without config.json" in error.found


def test_a_decoder_only_model_is_refused_by_its_config_alone(tmp_path):
    GPT2Config(n_layer=1, n_head=1, n_embd=8, vocab_size=16).save_pretrained(tmp_path)  # no weights are there to load
    error = refused(lambda: check_seq2seq_model(str(tmp_path)))
    assert "gpt2" in error.found
    assert "GRPOTrainer" in error.next_step


def test_loaded_models_are_checked_too(tmp_path):
    decoder = GPT2LMHeadModel(GPT2Config(n_layer=1, n_head=1, n_embd=8, vocab_size=16))
    assert "GPT2LMHeadModel" in refused(lambda: check_seq2seq_model(decoder)).found
    half = AutoModelForSeq2SeqLM.from_pretrained(tiny_t5(tmp_path), dtype=torch.float16)
    assert "float16" in refused(lambda: check_seq2seq_model(half)).found
    assert "Linear" in refused(lambda: check_seq2seq_model(torch.nn.Linear(1, 1))).found


def test_what_cannot_be_trained_or_generate_is_refused(tmp_path):
    assert "T5Model" in refused(lambda: check_seq2seq_model(T5Model.from_pretrained(tiny_t5(tmp_path)))).found
    brain = AutoModelForSeq2SeqLM.from_pretrained(tmp_path, dtype=torch.bfloat16)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    error = refused(lambda: Seq2SeqPPOTrainer(brain, reward, config(), processing_class=tokenizer))
    assert "bfloat16" in error.found
    error = refused(lambda: Seq2SeqPPOTrainer(brain.float(), reward, config(), ref_model="google/flan-t5-small"))
    assert "loaded ref_model" in error.expected


def test_a_response_longer_than_the_positions_is_refused(tmp_path):
    settings = config(response_length=200)
    error = refused(lambda: Seq2SeqPPOTrainer(tiny_bart(tmp_path), reward, settings))
    assert "at most 128" in error.expected


def test_a_name_that_is_nowhere_is_refused(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    error = refused(lambda: check_seq2seq_model("nobody/no-such-model"))
    assert "'nobody/no-such-model'" in error.found
    assert "hf download" in error.next_step  # offline nobody can tell a slip from a model not fetched yet


def test_a_classifier_is_no_policy(tmp_path):
    assert "not one" in refused(lambda: check_seq2seq_model(str(tiny_classifier(tmp_path)))).found


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        ({"reward_funcs": "judge"}, "'judge'"),
        ({"train_dataset": rows(3)}, "3 rows"),
        ({"train_dataset": rows(0)}, "empty"),
        ({"train_dataset": rows(8, "text")}, "['text']"),
        ({"eval_dataset": rows(0)}, "empty"),
        ({"value_model": "critic", "args": {"advantage_estimator": "reinforce"}}, "str"),
        ({"value_model": "critic", "args": {"detach_value_head": True}}, "detach_value_head=True"),
    ],
)
def test_the_trainer_refuses_before_it_looks_at_the_model(arguments, found):
    settings = {"reward_funcs": reward, "train_dataset": rows(8), **arguments}
    settings["args"] = config(**settings.get("args", {}))
    error = refused(lambda: Seq2SeqPPOTrainer("no/model/is/looked/at", **settings))
    assert found in error.found


def test_evaluating_without_a_dataset_is_refused(tmp_path):
    trainer = Seq2SeqPPOTrainer(tiny_t5(tmp_path), reward, config())
    assert "eval_dataset" in refused(trainer.evaluate).expected


def test_a_model_built_in_memory_needs_its_tokenizer(tmp_path):
    model = AutoModelForSeq2SeqLM.from_pretrained(tiny_t5(tmp_path))
    model.config._name_or_path = ""
    assert "processing_class" in refused(lambda: Seq2SeqPPOTrainer(model, reward, config())).expected


def test_the_reference_must_not_be_the_policy(tmp_path):
    model = AutoModelForSeq2SeqLM.from_pretrained(tiny_t5(tmp_path))
    error = refused(lambda: Seq2SeqPPOTrainer(model, reward, config(), ref_model=model))
    assert "the policy itself" in error.found


def test_derived_numbers_are_read_only_properties():
    args = config(per_device_train_batch_size=8, gradient_accumulation_steps=2, num_mini_batches=4, total_episodes=33)
    assert (args.micro_batch_size, args.local_batch_size, args.batch_size) == (8, 16, 16)
    assert (args.local_mini_batch_size, args.mini_batch_size, args.num_total_batches) == (4, 4, 3)
    assert config().num_total_batches is None
    with pytest.raises(AttributeError):
        args.batch_size = 3
