"""Evaluation while training: what is measured, and that the best model and early stopping follow from it."""

from types import SimpleNamespace

import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file
from transformers import AutoModelForSeq2SeqLM, EarlyStoppingCallback

from tests.ppo.test_trainer import dataset, make_trainer, rollout_rows, vowels
from tests.tiny_models import tiny_t5
from trl_rewards_plugin.ppo import decoding
from trl_rewards_plugin.ppo.decoding import Decoded, held_out_metrics
from trl_rewards_plugin.ppo.scoring import Scored
from trl_rewards_plugin.ppo.trainer import Seq2SeqPPOTrainer
from trl_rewards_plugin.rewards import MultiClassifierReward

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
EVERY_STEP = {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 1}
BEST = {**EVERY_STEP, "load_best_model_at_end": True, "metric_for_best_model": "eval_reward", "learning_rate": 5e-3}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_t5(tmp_path_factory.mktemp("models") / "t5")


def best_after_two_steps(completions, trainer_state, **kwargs):
    """Highest after two steps, whatever the policy; the share of vowels leaves training something to learn."""
    return [share - 10.0 * abs(trainer_state.global_step - 2) for share in vowels(completions)]


def adapted(model, folder, reward, **settings):
    """A trainer of a LoRA adapter."""
    from peft import LoraConfig

    plain = make_trainer(model, folder, **settings)
    lora = LoraConfig(task_type="SEQ_2_SEQ_LM", r=2, target_modules=["q", "v"])
    return Seq2SeqPPOTrainer(model, reward, plain.args, dataset(), dataset(5), peft_config=lora)


def evaluations(trainer):
    return [row for row in trainer.state.log_history if "eval_reward" in row]


STILL = {"learning_rate": 1e-30, "kl_coef": 0.0}  # a policy that never moves


def length(completions, **kwargs):
    return [float(len(text)) for text in completions]


class Growing:
    """Its number of calls, of which it has a state: a scale of the user's own that moves in training."""

    __name__ = "growing"

    def __init__(self):
        self.calls = 0

    def __call__(self, completions, **kwargs):
        self.calls += 1
        return [float(self.calls)] * len(completions)

    def state_dict(self):
        return {"calls": self.calls}

    def load_state_dict(self, state):
        self.calls = state["calls"]


def z_scored():
    return MultiClassifierReward([vowels, length], normalization="zscore")


def scheduled():
    return MultiClassifierReward([vowels, length], [1.0, 0.1], weight_schedule={"length": {0.0: 0.0, 1.0: 1.0}})


@pytest.mark.parametrize(
    ("reward", "on_start"),
    [pytest.param(z_scored, True, marks=pytest.mark.slow), (z_scored, False), (scheduled, False), (Growing, True)],
)
def test_a_model_that_does_not_move_is_worth_the_same_in_every_evaluation_and_after_a_resume(
    model, tmp_path, reward, on_start
):
    settings = {**EVERY_STEP, **STILL, "total_episodes": 12, "eval_on_start": on_start}
    trainer = make_trainer(model, tmp_path, reward(), **settings)
    trainer.train()
    values = {row["eval_reward"] for row in evaluations(trainer)}
    assert len(evaluations(trainer)) == 3 + on_start
    assert len(values) == 1
    resumed = make_trainer(model, tmp_path, reward(), **settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert {row["eval_reward"] for row in evaluations(resumed)} == values


def test_the_scale_and_the_weights_of_evaluations_are_in_the_log(model, tmp_path):
    trainer = make_trainer(model, tmp_path, z_scored(), total_episodes=8, eval_strategy="steps", eval_steps=1)
    trainer.train()
    first, second = evaluations(trainer)
    for name in ("scale/vowels/mean", "scale/vowels/std", "scale/length/mean", "scale/length/std"):
        assert first[f"eval_{name}"] == second[f"eval_{name}"]
    assert make_trainer(model, tmp_path, scheduled()).evaluate()["eval_weight/length"] == pytest.approx(0.1)


def ended(completions, completion_ids, **kwargs):
    """1 where a response has its EOS, plus its tokens in hundredths."""
    return [float(1 in ids) + 0.01 * len(ids) for ids in completion_ids]


@pytest.mark.parametrize("decoding", [None, {"num_beams": 2, "do_sample": False}])
def test_an_evaluation_invents_no_eos(model, tmp_path, decoding):
    decoding = decoding and {**decoding, "suppress_tokens": [1]}
    never = make_trainer(model, tmp_path, ended, suppress_tokens=[1], eval_generation_kwargs=decoding)
    metrics = never.evaluate()
    assert metrics["eval_rewards/ended/mean"] == pytest.approx(0.06)
    assert metrics["eval_length"] == 6


def test_completion_ids_of_an_evaluation_are_those_drawn(model, tmp_path):
    seen = []

    def watching(completions, completion_ids, **kwargs):
        seen.append((list(completions), list(completion_ids)))
        return [0.0] * len(completions)

    trainer = make_trainer(model, tmp_path, watching)
    assert trainer.evaluate()["eval_length"] == pytest.approx(sum(map(len, seen[0][1])) / 5)
    for text, ids in zip(*seen[0], strict=True):
        assert len(ids) == 6 or ids[-1] == 1
        assert trainer.processing_class.decode(ids, skip_special_tokens=True) == text


def test_the_penalty_for_a_missing_eos_is_in_an_evaluation_as_in_training(model, tmp_path):
    settings = {"missing_eos_penalty": 2.0, "suppress_tokens": [1]}
    trainer = make_trainer(model, tmp_path, ended, total_episodes=4, **settings)
    metrics = trainer.evaluate()
    assert metrics["eval_reward"] == pytest.approx(metrics["eval_rewards/ended/mean"] - 2.0)
    trainer.train()
    (row,) = rollout_rows(trainer)
    assert metrics["eval_reward"] == pytest.approx(row["objective/scores"])


def test_processes_draw_different_samples_and_one_without_a_prompt_makes_the_same_calls(model, tmp_path, monkeypatch):
    trainer, called = make_trainer(model, tmp_path, response_length=12), []

    def texts_of(process, rows):
        state = SimpleNamespace(process_index=process, num_processes=2)
        monkeypatch.setattr(decoding, "PartialState", lambda: state)
        held_out = Dataset.from_list([{"prompt": "the cat"}] * rows)

        def score(columns, texts, ids, ended):
            called.append(texts)
            return Scored(torch.zeros(len(texts)), {}, {"prompt": columns["prompt"], "completion": texts})

        return decoding.sample_held_out(
            trainer.policy_model, trainer.processing_class, held_out, trainer.args, score, trainer.reference_logprobs
        )

    first, second = (texts_of(process, 8)[1].table["completion"] for process in (0, 1))
    assert len(first) == len(second) == 4
    assert not set(first) & set(second)
    called.clear()
    assert texts_of(1, 1) is None
    assert len(called) == 1


def test_metrics_by_hand():
    table = {"completion": ["a c", [{"role": "assistant", "content": "b"}]]}
    scored = Scored(torch.tensor([1.0, 2.0]), {"rewards/judge/mean": 1.5}, table)
    decoded = Decoded(["a c", "b"], [[5] * 3, [5] * 6], torch.tensor([True, True]), torch.tensor([0.5, 1.0]))
    assert held_out_metrics((decoded, scored, ["say: a b c d", "say: b"])) == pytest.approx(
        {
            "reward": 1.5, "rewards/judge/mean": 1.5, "length": 4.5, "kl": 0.75, "guard/rouge_l_source": 5 / 6,
            "guard/output_length": 1.5, "guard/distinct": 1.0, "guard/not_whole_input": 0.5,
        }
    )  # fmt: skip


def test_guards_compare_with_what_the_model_read(model, tmp_path):
    trainer = make_trainer(model, tmp_path, max_prompt_length=5)  # four words and EOS
    trainer.processing_class.chat_template = (
        "{% for m in messages %}the {{ m['content'] | trim }} {% endfor %}{% if add_generation_prompt %}a{% endif %}"
    )
    long = "the cat sees a dog and a star"
    asked = [long, [{"role": "user", "content": "cat"}, {"role": "user", "content": f" {long}"}]]
    rows = Dataset.from_dict({"prompt": asked[:1]}), Dataset.from_dict({"prompt": asked[1:]})

    def score(columns, texts, ids, ended):
        return Scored(torch.zeros(1), {}, {"prompt": columns["prompt"], "completion": ["the cat sees a"]})

    text, conversation = (
        decoding.sample_held_out(
            trainer.policy_model, trainer.processing_class, row, trainer.args, score, trainer.reference_logprobs
        )
        for row in rows
    )
    assert text[2] == ["the cat sees a"]
    assert conversation[2] == ["the"]  # behind "the cat the"
    metrics = held_out_metrics(text)
    assert metrics["guard/rouge_l_source"] == 1.0
    assert metrics["guard/not_whole_input"] == 0.0


def test_before_the_first_step_the_guards_are_in_the_log_and_the_kl_is_0(model, tmp_path):
    trainer = make_trainer(model, tmp_path, eval_strategy="steps", eval_steps=2, eval_on_start=True, total_episodes=16)
    trainer.train()
    first, *later = evaluations(trainer)
    assert trainer.state.log_history[0] is first
    assert first["step"] == 0
    assert [row["step"] for row in later] == [2, 4]
    assert first["eval_kl"] == pytest.approx(0, abs=1e-5)
    assert {name for name in first if name.startswith("eval_guard/")} == {
        f"eval_guard/{name}" for name in ("rouge_l_source", "output_length", "distinct", "not_whole_input")
    }
    assert all(abs(row["eval_kl"]) > 1e-4 for row in later)


def test_held_out_kl_is_that_of_the_policy_to_the_start_under_an_adapter_too(model, tmp_path):
    trainer = adapted(model, tmp_path, vowels, total_episodes=8, learning_rate=1e-2)
    assert trainer.evaluate()["eval_kl"] == pytest.approx(0, abs=1e-5)
    trainer.train()
    assert abs(trainer.evaluate()["eval_kl"]) > 1e-4


def test_answers_that_were_not_sampled_have_no_kl(model, tmp_path):
    trainer = make_trainer(model, tmp_path, eval_generation_kwargs={"num_beams": 2, "do_sample": False})
    metrics = trainer.evaluate(metric_key_prefix="test")
    assert "test_kl" not in metrics
    assert metrics["test_reward"] == metrics["test_rewards/vowels/mean"]
    assert metrics["test_guard/output_length"] > 0


@pytest.mark.slow
def test_a_run_that_hacks_its_reward_shows_it_in_the_guards(model, tmp_path):
    def one_word(completions, **kwargs):
        return [text.split().count("star") - 0.2 * len(text.split()) for text in completions]

    trainer = make_trainer(
        model, tmp_path, one_word, per_device_train_batch_size=16, total_episodes=16 * 16, learning_rate=5e-2,
        eval_strategy="steps", eval_steps=16, eval_on_start=True, kl_coef=0.0, num_ppo_epochs=4,
    )  # fmt: skip
    trainer.eval_dataset = dataset(40)
    trainer.train()
    before, after = evaluations(trainer)
    assert after["eval_reward"] > before["eval_reward"] + 1
    assert before["eval_guard/distinct"] == 1.0
    assert after["eval_guard/distinct"] < 0.5
    assert after["eval_kl"] > 3


@pytest.mark.parametrize("strategy", ["steps", "best"])
def test_the_best_model_is_loaded_at_the_end_and_is_not_the_last(model, tmp_path, strategy):
    trainer = make_trainer(model, tmp_path, best_after_two_steps, **{**BEST, "save_strategy": strategy})
    trainer.train()
    assert trainer.state.global_step == 6
    assert trainer.state.best_model_checkpoint == str(tmp_path / "checkpoint-2")
    assert trainer.state.best_metric == max(row["eval_reward"] for row in evaluations(trainer))
    own = trainer.policy_model.state_dict()
    for name, value in load_file(tmp_path / "checkpoint-2" / "model.safetensors").items():
        assert torch.equal(own[name], value), name
    trainer.save_model()
    assert torch.equal(
        AutoModelForSeq2SeqLM.from_pretrained(tmp_path).lm_head.weight,
        AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "checkpoint-2").lm_head.weight,
    )
    if strategy == "steps":
        last = load_file(tmp_path / "checkpoint-6" / "model.safetensors")
        assert any(not torch.equal(own[name], value) for name, value in last.items())


def test_the_best_adapter_is_loaded_at_the_end(model, tmp_path):
    trainer = adapted(model, tmp_path, best_after_two_steps, **BEST)
    trainer.train()
    best, last = (load_file(tmp_path / f"checkpoint-{step}" / "adapter_model.safetensors") for step in (2, 6))
    own = {name.replace(".default", ""): value for name, value in trainer.policy_model.state_dict().items()}
    assert all(torch.equal(own[name], value) for name, value in best.items())
    assert not all(torch.equal(own[name], value) for name, value in last.items())


def test_early_stopping_stops_and_leaves_the_best_model(model, tmp_path):
    trainer = make_trainer(
        model, tmp_path, best_after_two_steps, callbacks=[EarlyStoppingCallback(early_stopping_patience=2)], **BEST
    )
    trainer.train()
    assert trainer.state.global_step == 4
    assert len(rollout_rows(trainer)) == 4
    best = load_file(tmp_path / "checkpoint-2" / "model.safetensors")
    assert all(torch.equal(trainer.policy_model.state_dict()[name], value) for name, value in best.items())


def test_a_component_or_a_guard_may_choose_the_best_model_too(model, tmp_path):
    trainer = make_trainer(
        model, tmp_path, **{**BEST, "metric_for_best_model": "eval_guard/rouge_l_source", "total_episodes": 12}
    )
    trainer.train()
    assert trainer.state.best_metric == max(row["eval_guard/rouge_l_source"] for row in evaluations(trainer))
