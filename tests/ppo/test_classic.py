"""The classic loop on the trainer: the article's lines, the same update as train(), and what is refused."""

import pytest
import torch
from accelerate.utils import DistributedType
from datasets import Dataset

from tests.ppo.architectures.architecture_table import tokenizer_for
from tests.ppo.architectures.test_families import BY_NAME, exact_first_token, p_value
from tests.tiny_models import tiny_bart, tiny_t5
from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.ppo.classic import CLASSIC_NAMES
from trl_rewards_plugin.ppo.config import Seq2SeqPPOConfig
from trl_rewards_plugin.ppo.trainer import Seq2SeqPPOTrainer

PROMPTS = ["the cat", "a big dog eats old fish near the river .", "snow", "she reads a long book"]


def vowels(texts):
    return [sum(letter in "aeiou" for letter in text) / max(len(text), 1) for text in texts]


def reward(completions, **kwargs):
    return vowels(completions)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    return {"t5": tiny_t5(root / "t5"), "bart": tiny_bart(root / "bart")}


def make_trainer(model, folder, *, rows=8, **settings):
    settings = {
        "per_device_train_batch_size": 4,
        "response_length": 6,
        "learning_rate": 1e-3,
        "max_steps": 4,
        "num_ppo_epochs": 2,
        "num_mini_batches": 2,
        "report_to": "none",
        "disable_tqdm": True,
        "save_strategy": "no",
        **settings,
    }
    data = Dataset.from_list([{"prompt": PROMPTS[row % 4], "row": row} for row in range(rows)])
    args = Seq2SeqPPOConfig(output_dir=str(folder), **settings)
    return Seq2SeqPPOTrainer(model, reward, args, train_dataset=data)


@pytest.mark.parametrize("family", ["t5", "bart"])
def test_the_article_s_loop_runs_and_learns(folders, tmp_path, family):
    trainer = make_trainer(folders[family], tmp_path)
    tokenizer = trainer.processing_class
    before = {name: value.detach().clone() for name, value in trainer.model.named_parameters()}
    kwargs = {"min_length": -1, "top_k": 0.0, "top_p": 1.0, "do_sample": True, "max_new_tokens": 5}
    for _ in range(2):
        for batch in trainer.dataloader:
            responses = [trainer.generate(query, **kwargs).squeeze() for query in batch["input_ids"]]
            texts = [tokenizer.decode(response, skip_special_tokens=True) for response in responses]
            scores = [torch.tensor(score) for score in vowels(texts)]
            stats = trainer.step(batch["input_ids"], responses, scores)
            trainer.log_stats(stats, {**batch, "response": texts}, scores)
    assert trainer.state.global_step == 4
    assert {name for name, value in trainer.model.named_parameters() if not torch.equal(value, before[name])}
    log = trainer.state.log_history
    assert len(log) == 4
    assert set(CLASSIC_NAMES) <= set(log[0])
    assert {"ppo/learning_rate", "time/ppo/total", "env/reward_mean", "env/reward_std"} <= set(log[0])
    assert abs(log[0]["objective/kl"]) < 1e-4
    assert log[-1]["objective/kl"] != 0
    assert log[0]["env/reward_mean"] == pytest.approx(log[0]["ppo/mean_scores"])
    assert [row["ppo/learning_rate"] for row in log] == pytest.approx([1e-3, 7.5e-4, 5e-4, 2.5e-4])


def test_the_dataloader_yields_lists_of_every_column_and_another_order_each_pass(folders, tmp_path):
    trainer = make_trainer(folders["t5"], tmp_path, rows=10)
    first, second = ([row for batch in trainer.dataloader for row in batch["row"]] for _ in range(2))
    assert len(first) == 8  # whole rollouts
    assert first != second
    again = make_trainer(folders["t5"], tmp_path, rows=10)
    assert first == [row for batch in again.dataloader for row in batch["row"]]
    batch = next(iter(trainer.dataloader))
    assert set(batch) == {"prompt", "row", "query", "input_ids"}
    for ids, text in zip(batch["input_ids"], batch["query"], strict=True):
        assert ids.dim() == 1
        assert ids.tolist() == trainer.processing_class(text)["input_ids"]


@pytest.mark.parametrize("family", ["t5", "bart"])
def test_one_step_is_the_update_of_a_rollout(folders, tmp_path, family):
    """What train() learns from a rollout, step() learns from its tokens; a leading decoder start changes nothing."""
    trained = make_trainer(folders[family], tmp_path, max_steps=1)
    trained.prepare_steps()
    torch.manual_seed(5)
    rollout = trained.collect(next(iter(trained.get_train_dataloader())))
    torch.manual_seed(6)
    trained.update(rollout, trained.model_wrapped)
    trained.framework(trained.model_wrapped).step()
    queries = [ids[mask] for ids, mask in zip(rollout.prompt_ids, rollout.prompt_mask, strict=True)]
    answers = [ids[mask] for ids, mask in zip(rollout.response_ids, rollout.response_mask, strict=True)]
    start = torch.tensor(trained.rules.prefix)
    for prefix in (start[:0], start):
        classic = make_trainer(folders[family], tmp_path, max_steps=1)
        classic.prepare_steps()
        torch.manual_seed(6)
        classic.step(queries, [torch.cat([prefix, answer]) for answer in answers], rollout.scores.tolist())
        for name, value in trained.model.named_parameters():
            torch.testing.assert_close(classic.model.get_parameter(name), value, atol=1e-5, rtol=1e-5, msg=name)


@pytest.mark.parametrize("family", ["t5", "bart"])
def test_a_response_of_eos_alone_and_a_single_row_are_steps_too(folders, tmp_path, family):
    trainer = make_trainer(folders[family], tmp_path)
    eos = torch.tensor(trainer.rules.eos_ids[:1])
    query = torch.tensor(trainer.processing_class("the cat")["input_ids"])
    stats = trainer.step([query], [eos], [1.0])
    assert stats["tokens/responses_len_mean"] == 1.0
    stats = trainer.step([query], [eos[0]], [torch.tensor(1.0)])  # what squeeze() makes of it
    assert stats["tokens/responses_len_mean"] == 1.0


def test_what_lies_behind_the_first_eos_is_no_part_of_a_response(folders, tmp_path):
    trainer = make_trainer(folders["t5"], tmp_path)
    answer = torch.tensor([7, 8, trainer.rules.eos_ids[0], 9, 9])
    stats = trainer.step([answer[:2]], [answer], [1.0])
    assert stats["tokens/responses_len_mean"] == 3.0


@pytest.mark.parametrize("family", ["t5", "bart", "m2m_100"])
def test_first_tokens_of_a_padded_batch_are_drawn_from_the_exact_softmax(folders, tmp_path, family):
    """Pearson's test; 3,000 draws a prompt also tell one prompt's distribution from the other's."""
    model = BY_NAME[family].build()
    args = Seq2SeqPPOConfig(output_dir=str(tmp_path), report_to="none", temperature=1.5)
    trainer = Seq2SeqPPOTrainer(model, reward, args, processing_class=tokenizer_for(model))
    queries = [torch.tensor([5, 6, trainer.rules.eos_ids[0]]), torch.arange(8, 20)]
    draws = 3000
    drawn = trainer.generate(queries * draws, batch_size=500, max_new_tokens=1)
    exact = [exact_first_token(trainer.policy_model, query, trainer.rules) for query in queries]
    for place, (own, other) in enumerate([exact, exact[::-1]]):
        counts = torch.bincount(torch.cat(drawn[place::2]), minlength=len(own))
        assert not counts[own == 0].any()
        assert p_value(counts, draws * own) > 1e-3  # of true hypotheses one in a thousand fails; the seed is fixed
        assert p_value(counts, draws * other) < 1e-6


@pytest.mark.parametrize("family", ["t5", "bart"])
def test_under_bf16_the_first_pass_of_a_step_finds_the_old_policy(folders, tmp_path, family):
    """What is recorded and what is learnt from are computed alike, the encoder's part included."""
    trainer = make_trainer(folders[family], tmp_path, bf16=True, use_cpu=True, num_ppo_epochs=1, num_mini_batches=1)
    queries = [torch.tensor(trainer.processing_class(text)["input_ids"]) for text in PROMPTS]
    responses = trainer.generate(queries)
    lone = [
        trainer.record_rows([query], [response], [0.0]) for query, response in zip(queries, responses, strict=True)
    ]
    for part in lone:
        with torch.no_grad(), trainer.accelerator.autocast():
            again = trainer.model(part.prompts, part.response_ids, trainer.rules)
        assert torch.equal(again.logprobs, part.logprobs)


@pytest.mark.parametrize("kind", [DistributedType.FSDP, DistributedType.DEEPSPEED])
def test_a_launch_that_spreads_the_weights_is_refused(folders, tmp_path, monkeypatch, kind):
    trainer = make_trainer(folders["t5"], tmp_path)
    monkeypatch.setattr(trainer.accelerator.state, "distributed_type", kind)
    with pytest.raises(InputError, match=rf"Found: +{kind.value}"):
        trainer.generate(IDS)
    with pytest.raises(InputError, match=r"call train\(\)"):
        trainer.step([IDS], [IDS], [1.0])


def test_a_loop_of_its_own_length_needs_a_schedule(folders, tmp_path):
    args = {"per_device_train_batch_size": 1, "report_to": "none", "output_dir": str(tmp_path)}
    query, answer = torch.tensor([5, 6]), torch.tensor([7, 8])
    trainer = Seq2SeqPPOTrainer(folders["t5"], reward, Seq2SeqPPOConfig(**args))
    with pytest.raises(InputError, match="constant"):
        trainer.step([query], [answer], [1.0])
    with pytest.raises(InputError, match="a train_dataset"):
        _ = trainer.dataloader
    trainer = Seq2SeqPPOTrainer(folders["t5"], reward, Seq2SeqPPOConfig(lr_scheduler_type="constant", **args))
    assert trainer.step([query], [answer], [1.0])["ppo/learning_rate"] == trainer.args.learning_rate


def test_log_stats_writes_the_batch_where_completions_are_logged(folders, tmp_path):
    trainer = make_trainer(folders["t5"], tmp_path, log_completions=True)
    query = torch.tensor([5, 6])
    stats = trainer.step([query], [torch.tensor([7, 8])], [1.0])
    trainer.log_stats(stats, {"query": ["the cat"], "response": ["a dog"]}, [1.0])
    (file,) = (tmp_path / "completions").iterdir()
    assert file.name == "completions_00001.parquet"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_beams": 4}, "leave num_beams out"),
        ({"top_p": 0.9}, "leave top_p out"),
        ({"temperature": 0.5}, r"Seq2SeqPPOConfig\(temperature"),
        ({"min_length": 20}, r"Seq2SeqPPOConfig\(min_new_tokens"),
        ({"length_sampler": len}, "without length_sampler"),
        ({"generate_ref_response": True}, "without generate_ref_response"),
        ({"return_prompt": True}, "without return_prompt"),
        ({"max_new_tokens": 0}, "max_new_tokens of at least 1"),
        ({"magic": 1}, "leave magic out"),
    ],
)
def test_generation_that_step_could_not_score_is_refused_by_name(folders, tmp_path, settings, message):
    trainer = make_trainer(folders["t5"], tmp_path)
    with pytest.raises(InputError, match=message):
        trainer.generate(torch.tensor([5, 6]), **settings)


IDS = torch.tensor([5, 6])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (([IDS], [IDS], [1.0, 2.0]), "'scores': 2"),
        (([], [], []), "at least one"),
        (([IDS], [IDS], [float("nan")]), "nan at 0"),
        (([IDS], [IDS[:0]], [1.0]), "responses as 1-D tensors"),
        (([IDS], [[5, 6]], [1.0]), "list at 0"),
        (([IDS.view(1, 2)], [IDS], [1.0]), "queries as 1-D tensors"),
        (([IDS], [IDS], [1.0], [IDS]), "without response_masks"),
    ],
)
def test_rows_that_do_not_fit_together_are_refused(folders, tmp_path, rows, message):
    trainer = make_trainer(folders["t5"], tmp_path)
    with pytest.raises(InputError, match=message):
        trainer.step(*rows)


def test_groups_must_be_whole(folders, tmp_path):
    trainer = make_trainer(folders["t5"], tmp_path, advantage_estimator="rloo", num_generations=2)
    with pytest.raises(InputError, match="groups of num_generations=2"):
        trainer.step([IDS], [IDS], [1.0])
    trainer.step([IDS, IDS], [IDS, IDS + 1], [1.0, 2.0])


@pytest.mark.parametrize("family", ["t5", "bart"])
def test_a_step_takes_the_penalty_for_a_missing_eos_as_train_does(folders, tmp_path, family):
    settings = {"missing_eos_penalty": 2.0, "response_length": 2, "lr_scheduler_type": "constant", "max_steps": 1}
    trained = make_trainer(folders[family], tmp_path / "train", **settings)
    collected, update = [], trained.update

    def watching(rollout, model=None):
        collected.append((rollout, torch.get_rng_state()))
        return update(rollout, model)

    trained.update = watching
    trained.train()
    ((rollout, random_state),) = collected
    assert not rollout.ended.all()

    own = make_trainer(folders[family], tmp_path / "step", **settings)
    queries = [ids[mask] for ids, mask in zip(rollout.prompt_ids, rollout.prompt_mask, strict=True)]
    responses = [ids[mask] for ids, mask in zip(rollout.response_ids, rollout.response_mask, strict=True)]
    plain = vowels(own.processing_class.batch_decode(responses, skip_special_tokens=True))
    torch.set_rng_state(random_state)
    stats = own.step(queries, responses, plain)
    assert stats["ppo/mean_scores"] == pytest.approx(rollout.scores.mean().item(), abs=1e-6)
    for name, value in trained.model.state_dict().items():
        torch.testing.assert_close(own.model.state_dict()[name], value, atol=1e-5, rtol=0)


def test_with_several_generations_the_loader_repeats_prompts_and_kl_is_0_before_the_first_update(folders, tmp_path):
    settings = {"advantage_estimator": "rloo", "num_generations": 2, "num_ppo_epochs": 1, "num_mini_batches": 1}
    trainer = make_trainer(folders["t5"], tmp_path, rows=4, **settings)
    batches = list(trainer.dataloader)
    assert [batch["row"][0::2] == batch["row"][1::2] for batch in batches] == [True, True]
    assert sorted(row for batch in batches for row in batch["row"]) == [0, 0, 1, 1, 2, 2, 3, 3]
    queries = batches[0]["input_ids"]
    stats = trainer.step(queries, trainer.generate(queries), [0.0, 1.0, 2.0, 3.0])
    assert abs(stats["objective/kl"]) < 1e-4


@pytest.mark.parametrize("order", [(0, 1, 0, 1), (0, 1, 2, 3), (0, 0, 0, 1)])
def test_responses_in_a_group_must_be_to_one_prompt(folders, tmp_path, order):
    trainer = make_trainer(folders["t5"], tmp_path, advantage_estimator="rloo", num_generations=2)
    prompts = [torch.tensor([5 + place, 6, 1]) for place in range(4)]
    queries = [prompts[place] for place in order]
    with pytest.raises(InputError, match="another query at"):
        trainer.step(queries, trainer.generate(queries), [0.0, 1.0, 2.0, 3.0])


@pytest.mark.parametrize("settings", [{}, {"gradient_accumulation_steps": 2}, {"per_device_train_batch_size": 6}])
def test_a_data_set_smaller_than_a_batch_is_refused_and_yields_no_empty_loop(folders, tmp_path, settings):
    with pytest.raises(InputError, match="at least one rollout of prompts"):
        make_trainer(folders["t5"], tmp_path, rows=3, **settings)
