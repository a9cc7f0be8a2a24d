"""The language-model term: its loss and gradient are those of transformers' own cross-entropy on reference texts."""

import pytest
import torch
from datasets import Dataset
from transformers import AutoTokenizer

from tests.ppo.test_trainer import vowels
from tests.pretend_graph import PretendGraphs
from tests.tiny_models import tiny_bart, tiny_t5
from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.ppo.config import Seq2SeqPPOConfig
from trl_rewards_plugin.ppo.policy.prompts import tokenize_references
from trl_rewards_plugin.ppo.policy.token_rules import TokenRules
from trl_rewards_plugin.ppo.trainer import Seq2SeqPPOTrainer

ROWS = [
    {"prompt": "the cat", "reference": "a black cat ."},
    {"prompt": "a big dog eats old fish near the river .", "reference": "a dog eats ."},
    {"prompt": "snow", "reference": "it is cold"},
    {"prompt": "she reads a long book", "reference": "she reads"},
]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    return {"t5": tiny_t5(root / "t5"), "bart": tiny_bart(root / "bart")}


def make_trainer(model, folder, rows=ROWS, **settings):
    settings = {
        "per_device_train_batch_size": 4, "response_length": 8, "learning_rate": 1e-3, "max_steps": 2, "seed": 3,
        "num_ppo_epochs": 1, "report_to": "none", "disable_tqdm": True, "save_strategy": "no", "sft_coef": 0.5,
        "use_cpu": True, "max_unended_share": None, **settings,
    }  # fmt: skip
    args = Seq2SeqPPOConfig(output_dir=str(folder), **settings)
    return Seq2SeqPPOTrainer(str(model), vowels, args, train_dataset=Dataset.from_list(rows))


def updated(trainer, rows=ROWS):
    """The statistics and gradients of an update by one mini-batch."""
    trainer.create_optimizer_and_scheduler(num_training_steps=2)
    torch.manual_seed(0)
    rollout = trainer.collect(trainer.data_collator(rows))
    stats = trainer.update(rollout)
    gradients = {n: p.grad.clone() for n, p in trainer.model.named_parameters() if p.grad is not None}
    return stats, gradients


@pytest.mark.parametrize("family", ["t5", "bart"])
def test_the_loss_and_its_gradient_are_those_of_transformers(folders, tmp_path, family):
    # Whatever the rollout's temperature and forbidden tokens: the text may hold any token.
    rules = {"temperature": 0.7, "suppress_tokens": [20, 21, 22], "min_new_tokens": 5}
    with_term = make_trainer(folders[family], tmp_path, **rules)
    stats, gradients = updated(with_term)
    plain_stats, plain = updated(make_trainer(folders[family], tmp_path, sft_coef=0.0, **rules))

    model = make_trainer(folders[family], tmp_path).policy_model
    tokenizer = with_term.processing_class
    inputs = tokenizer([row["prompt"] for row in ROWS], return_tensors="pt", padding=True, return_token_type_ids=False)
    labels = tokenizer(text_target=[row["reference"] for row in ROWS], return_tensors="pt", padding=True)
    labels = labels["input_ids"].masked_fill(labels["attention_mask"] == 0, -100)
    loss = model(**inputs, labels=labels).loss
    loss.backward()
    assert stats["loss/sft_avg"] == pytest.approx(loss.item(), rel=1e-5)
    assert stats["loss/total_avg"] == pytest.approx(plain_stats["loss/total_avg"] + 0.5 * loss.item(), rel=1e-4)
    for name, weight in model.named_parameters():
        expected = plain[f"policy.{name}"] + 0.5 * weight.grad
        assert torch.allclose(gradients[f"policy.{name}"], expected, atol=1e-5), name


def test_texts_become_responses_without_what_the_decoder_starts_with(folders):
    tokenizer = AutoTokenizer.from_pretrained(folders["bart"])
    bos, eos, pad = (tokenizer.convert_tokens_to_ids(token) for token in ("<s>", "</s>", "<pad>"))
    words = tokenizer(text_target=["the cat", "snow"])["input_ids"]
    assert words[1][0] == bos
    ids, mask = tokenize_references(["the cat", "snow"], tokenizer, TokenRules(eos, (eos,), pad), 8)
    assert ids.tolist() == [words[0], words[1] + [pad]]
    assert mask.sum(1).tolist() == [4, 3]
    forced = TokenRules(eos, (eos,), pad, forced_ids=(bos,))
    assert tokenize_references(["the cat"], tokenizer, forced, 8)[0].tolist() == [words[0][1:]]
    cut, mask = tokenize_references(["the cat", "snow"], tokenizer, forced, 1)
    assert cut.tolist() == [words[0][1:2], words[1][1:2]]  # no EOS behind a text that was cut
    assert mask.all()
    assert tokenize_references(["snow"], tokenizer, forced, 40, multiple=16)[0].shape == (1, 16)
    with pytest.raises(InputError, match="target language"):
        tokenize_references(["snow"], tokenizer, TokenRules(eos, (eos,), pad, forced_ids=(pad,)), 40)


def test_micro_batches_and_accumulation_change_nothing(folders, tmp_path):
    rows = ROWS * 2
    whole = updated(make_trainer(folders["t5"], tmp_path, rows, per_device_train_batch_size=8), rows)
    parts = updated(
        make_trainer(folders["t5"], tmp_path, rows, per_device_train_batch_size=2, gradient_accumulation_steps=4), rows
    )
    assert parts[0]["loss/sft_avg"] == pytest.approx(whole[0]["loss/sft_avg"], rel=1e-5)
    for name, gradient in whole[1].items():
        assert torch.allclose(gradient, parts[1][name], atol=1e-5), name


def test_the_term_alone_teaches_the_references(folders, tmp_path):
    rows = [{**row, "reference": "she reads a book"} for row in ROWS]
    settings = {"sft_coef": 1000.0, "learning_rate": 1e-2, "num_ppo_epochs": 4, "max_steps": 20}
    trainer = make_trainer(folders["t5"], tmp_path, rows, **settings)
    trainer.train()
    losses = [row["loss/sft_avg"] for row in trainer.state.log_history if "loss/sft_avg" in row]
    assert losses[-1] < 0.5 < 4 < losses[0]


def test_the_critic_s_warm_up_leaves_the_policy_alone(folders, tmp_path):
    trainer = make_trainer(folders["t5"], tmp_path, critic_warmup_steps=1, max_steps=1)
    before = {name: value.clone() for name, value in trainer.model.named_parameters()}
    trainer.train()
    changed = {name for name, value in trainer.model.named_parameters() if not torch.equal(value, before[name])}
    assert changed == {"value_head.weight", "value_head.bias"}
    assert "loss/sft_avg" not in trainer.state.log_history[0]


@pytest.mark.parametrize("settings", [{}, {"objective": "dpo", "num_generations": 2, "freeze_encoder": True}], ids=str)
def test_a_training_by_graphs_is_the_same_training(folders, tmp_path, monkeypatch, settings):
    def trained(maker):
        monkeypatch.setattr("trl_rewards_plugin.ppo.acceleration.static_calls.maker_for", lambda device: maker)
        trainer = make_trainer(folders["t5"], tmp_path, **settings)
        trainer.train()
        return trainer, {name: value.clone() for name, value in trainer.model.named_parameters()}

    maker = PretendGraphs()
    (by_graphs, found), (_, expected) = trained(maker), trained(None)
    assert not by_graphs.calls.eager
    assert maker.replays > 0
    for name, value in expected.items():
        assert torch.allclose(found[name], value, atol=1e-4), name


def test_a_resumed_run_ends_with_the_same_weights_bit_for_bit(folders, tmp_path):
    straight = make_trainer(folders["t5"], tmp_path / "a", save_strategy="steps", save_steps=1)
    straight.train()
    resumed = make_trainer(folders["t5"], tmp_path / "b")
    resumed.train(resume_from_checkpoint=str(tmp_path / "a" / "checkpoint-1"))
    for name, value in straight.model.named_parameters():
        assert torch.equal(value, resumed.model.get_parameter(name)), name


@pytest.mark.parametrize(
    ("rows", "settings", "message"),
    [
        ([{"prompt": "snow"}] * 4, {}, r"column 'reference' of reference texts.*\n.*the columns \['prompt'\]"),
        (ROWS, {"sft_column": "summary"}, "column 'summary' of reference texts"),
        ([*ROWS[:3], {"prompt": "snow", "reference": " "}], {}, "' ' in row 3"),
        ([*ROWS[:3], {"prompt": "snow", "reference": None}], {}, "None in row 3"),
        (ROWS, {"sft_coef": 0.0, "sft_column": "summary"}, "sft_column left out: sft_coef=0 does not use it"),
        (ROWS, {"sft_coef": -1.0}, "sft_coef 0 or more"),
    ],
)
def test_references_that_are_missing_or_not_used_are_refused(folders, tmp_path, rows, settings, message):
    with pytest.raises(InputError, match=message):
        make_trainer(folders["t5"], tmp_path, rows, **settings)


def test_the_classic_step_has_no_references(folders, tmp_path):
    with pytest.raises(InputError, match="step with sft_coef=0"):
        make_trainer(folders["t5"], tmp_path).step([], [], [])
