"""The trainer on tiny random T5 and BART: what it logs, saves, resumes and evaluates."""

import dataclasses
import json

import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file
from transformers import AutoModelForSeq2SeqLM, BartForConditionalGeneration, TrainerCallback

from tests.tiny_models import tiny_bart, tiny_t5
from trl_rewards_plugin.cards.callback import ModelCardCallback
from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.ppo.config import Seq2SeqPPOConfig
from trl_rewards_plugin.ppo.policy.prompts import EncodedPrompts
from trl_rewards_plugin.ppo.scoring import RewardError
from trl_rewards_plugin.ppo.trainer import Seq2SeqPPOTrainer

# peft asks transformers by the old name.
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
# The host's field changed its name in transformers 5.23.
ACTIVATION_CHECKPOINTING = next(
    name
    for name in ("activation_checkpointing", "gradient_checkpointing")
    if name in Seq2SeqPPOConfig.__dataclass_fields__
)
SENTENCES = [
    "the cat",
    "a big dog eats old fish near the river .",
    "snow",
    "she reads a long book",
    "we go home now .",
]


def dataset(rows=16):
    return Dataset.from_list([{"prompt": SENTENCES[row % 5], "rank": row} for row in range(rows)])


def vowels(completions, **kwargs):
    """Share of vowels: something that a policy over words can learn."""
    return [sum(letter in "aeiou" for letter in text) / max(len(text), 1) for text in completions]


def make_trainer(
    model, folder, reward=vowels, rows=16, callbacks=None, peft_config=None, value_model=None, **settings
):
    settings = {
        "per_device_train_batch_size": 4,
        "response_length": 6,
        "learning_rate": 1e-3,
        "total_episodes": 24,
        "num_ppo_epochs": 2,
        "num_mini_batches": 2,
        "report_to": "none",
        "disable_tqdm": True,
        "seed": 3,
        "save_strategy": "no",
        **settings,
    }
    return Seq2SeqPPOTrainer(
        model,
        reward,
        Seq2SeqPPOConfig(output_dir=str(folder), **settings),
        train_dataset=dataset(rows),
        eval_dataset=dataset(5),
        callbacks=callbacks,
        peft_config=peft_config,
        value_model=value_model,
    )


def rollout_rows(trainer):
    return [row for row in trainer.state.log_history if "objective/scores" in row]


def weights(trainer):
    return {name: value.clone() for name, value in trainer.model.state_dict().items()}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    return {"t5": tiny_t5(root / "t5"), "bart": tiny_bart(root / "bart")}


@pytest.mark.parametrize("family", ["t5", "bart"])
def test_before_the_first_update_kl_is_0_and_the_ratio_1(folders, tmp_path, family):
    trainer = make_trainer(
        folders[family], tmp_path, total_episodes=4, num_ppo_epochs=1, num_mini_batches=1, response_length=12
    )
    trainer.train()
    (row,) = rollout_rows(trainer)
    assert abs(row["objective/kl"]) / row["tokens/responses_len_mean"] < 1e-5
    assert row["val/ratio"] == pytest.approx(1.0, abs=1e-4)
    assert row["val/ratio_first"] == pytest.approx(1.0, abs=1e-4)
    assert row["val/sampling_gap"] < 1e-4


def test_the_sampling_gap_is_what_the_first_mini_batch_finds(folders, tmp_path):
    trainer = make_trainer(folders["t5"], tmp_path, total_episodes=4, num_ppo_epochs=1, num_mini_batches=1)
    rollout = trainer.collect(next(iter(trainer.get_train_dataloader())))
    assert torch.equal(rollout.sampled_logprobs, rollout.logprobs)
    shifted = dataclasses.replace(rollout, sampled_logprobs=rollout.sampled_logprobs - 0.25)
    assert trainer.update(shifted, trainer.model_wrapped)["val/sampling_gap"] == pytest.approx(0.25, abs=1e-4)


class DoubledBart(BartForConditionalGeneration):
    """Its logits are not what its output matrix gives."""

    def forward(self, *args, **kwargs):
        output = super().forward(*args, **kwargs)
        output.logits = 2 * output.logits
        return output


def test_a_reference_of_another_class_speaks_for_itself(folders, tmp_path):
    plain = make_trainer(folders["bart"], tmp_path)
    other = DoubledBart.from_pretrained(folders["bart"])
    trainer = Seq2SeqPPOTrainer(str(folders["bart"]), vowels, plain.args, dataset(), ref_model=other)
    ids = torch.tensor([[5, 6, 2]])
    responses = torch.tensor([[7, 8, 2]])
    found = trainer.reference_logprobs(EncodedPrompts(ids, ids > 0), responses)
    inputs = {"input_ids": ids, "decoder_input_ids": torch.tensor([[2, 7, 8]])}
    with torch.no_grad():
        logits = BartForConditionalGeneration.from_pretrained(folders["bart"])(**inputs).logits
    logits[..., trainer.rules.never] = -torch.inf
    torch.testing.assert_close(found, (2 * logits).log_softmax(-1).gather(-1, responses[..., None])[..., 0])


def test_every_prompt_is_encoded_once_by_policy_and_reference_for_all_its_responses(folders, tmp_path):
    trainer = make_trainer(folders["t5"], tmp_path, advantage_estimator="rloo", num_generations=2)
    rows = {"policy": [], "reference": []}
    for name, model in (("policy", trainer._wrapped.core), ("reference", trainer.ref_model)):
        encoder = model.get_encoder()
        encoder.register_forward_hook(lambda *parts, name=name: rows[name].append(len(parts[-1][0])))
    batch = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
    rollout = trainer.collect(batch)
    prompts = len(rollout) // 2
    assert rows == {"policy": [prompts], "reference": [prompts]}
    alone = trainer.reference_logprobs(rollout.prompts, rollout.response_ids)
    torch.testing.assert_close(rollout.ref_logprobs, alone)


def test_micro_batches_hold_prompts_of_like_length(folders, tmp_path):
    trainer = make_trainer(
        folders["t5"], tmp_path, per_device_train_batch_size=1, gradient_accumulation_steps=4, num_mini_batches=1
    )
    widths = []

    def note(module, inputs):
        if torch.is_grad_enabled():
            widths.append(inputs[0].ids.shape[1])

    trainer.model.register_forward_pre_hook(note)
    trainer.train()
    mini_batches = [widths[at : at + 4] for at in range(0, len(widths), 4)]
    assert all(part == sorted(part) for part in mini_batches)
    assert any(part[0] < part[-1] for part in mini_batches)


def words_with_s(completions, **kwargs):
    """Share of words that begin with an s."""
    return [sum(word.startswith("s") for word in text.split()) / max(len(text.split()), 1) for text in completions]


@pytest.mark.parametrize(("family", "learning_rate"), [("t5", 2e-2), ("bart", 3e-3)])
def test_it_learns_what_the_reward_asks_for(folders, tmp_path, family, learning_rate):
    trainer = make_trainer(
        folders[family],
        tmp_path,
        words_with_s,
        per_device_train_batch_size=16,
        total_episodes=320,
        learning_rate=learning_rate,
        num_ppo_epochs=4,
        kl_coef=0.0,
    )
    trainer.train()
    rewards = [row["objective/scores"] for row in rollout_rows(trainer)]
    assert len(rewards) == 20
    assert sum(rewards[-5:]) / 5 > sum(rewards[:5]) / 5 + 0.1
    assert rollout_rows(trainer)[-1]["objective/kl"] > 0.1


def test_accumulated_parts_make_one_rollout_and_every_number_is_logged(folders, tmp_path):
    seen = []

    def counting(prompts, completions, completion_ids, rank, trainer_state, log_metric, **kwargs):
        seen.append((len(prompts), len(completion_ids), rank, trainer_state.global_step))
        log_metric("rewards/vowels", 0.5)
        return vowels(completions)

    trainer = make_trainer(folders["t5"], tmp_path, counting, gradient_accumulation_steps=2, total_episodes=16)
    trainer.train()
    assert [(prompts, ids, step) for prompts, ids, _, step in seen] == [(4, 4, 0), (4, 4, 0), (4, 4, 1), (4, 4, 1)]
    assert sorted(rank for _, _, ranks, _ in seen for rank in ranks) == list(range(16))
    rows = rollout_rows(trainer)
    assert [row["episode"] for row in rows] == [8, 16]
    expected = {
        "objective/kl",
        "objective/entropy",
        "objective/non_score_reward",
        "objective/rlhf_reward",
        "policy/approxkl_avg",
        "policy/clipfrac_avg",
        "policy/entropy_avg",
        "loss/policy_avg",
        "loss/value_avg",
        "val/clipfrac_avg",
        "val/ratio",
        "val/ratio_var",
        "val/num_eos_tokens",
        "prompts/truncated_share",
        "rewards/vowels",
        "rewards/counting/mean",
    }
    assert expected <= set(rows[0])
    epochs = [row["epoch_reward"] for row in trainer.state.log_history if "epoch_reward" in row]
    assert epochs == pytest.approx([sum(row["objective/scores"] for row in rows) / 2])


@pytest.mark.parametrize("accumulation", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_a_stopped_and_resumed_run_ends_with_the_same_weights_bit_for_bit(folders, tmp_path, accumulation):
    settings = {
        "gradient_accumulation_steps": accumulation,
        "per_device_train_batch_size": 4 // accumulation,
        "total_episodes": 20,
        "rows": 12,
        "adaptive_kl": True,
    }
    saving = {"save_strategy": "steps", "save_steps": 1}
    straight = make_trainer(folders["t5"], tmp_path / "straight", **settings, **saving)
    straight.train()
    for step in (1, 3, 4):  # within an epoch of three rollouts, at its end, and within the next
        resumed = make_trainer(folders["t5"], tmp_path / f"resumed{step}", **settings)
        resumed.train(resume_from_checkpoint=str(tmp_path / "straight" / f"checkpoint-{step}"))
        assert resumed.state.global_step == 5
        for name, value in weights(straight).items():
            assert torch.equal(value, weights(resumed)[name]), (step, name)
        assert resumed.kl_coef == straight.kl_coef
        for ours, theirs in zip(resumed.state.log_history, straight.state.log_history, strict=True):
            timing = {"train_runtime", "train_samples_per_second", "train_steps_per_second", "train_loss"}
            assert {k: v for k, v in ours.items() if k not in timing} == {
                k: v for k, v in theirs.items() if k not in timing
            }


def test_a_checkpoint_that_lacks_a_part_is_refused(folders, tmp_path):
    trainer = make_trainer(folders["t5"], tmp_path, save_strategy="steps", save_steps=3)
    trainer.train()
    (tmp_path / "checkpoint-3" / "trainer_state.json").unlink()
    with pytest.raises(InputError, match=r"trainer_state\.json"):
        make_trainer(folders["t5"], tmp_path).train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))


@pytest.mark.parametrize("family", ["t5", "bart"])
def test_what_is_saved_is_the_bare_policy_with_its_own_config(folders, tmp_path, family):
    original = json.loads((folders[family] / "config.json").read_text())
    trainer = make_trainer(folders[family], tmp_path, total_episodes=8, save_strategy="steps", save_steps=1)
    trainer.train()
    trainer.save_model()
    saved = json.loads((tmp_path / "config.json").read_text())
    for key in ("use_cache", "dropout_rate", "dropout", "attention_dropout"):
        assert saved.get(key) == original.get(key)
    names = {path.name for path in tmp_path.iterdir() if path.is_file()}
    assert "value_head.safetensors" not in names
    assert not any(name.endswith(".bin") for name in names)
    assert (tmp_path / "checkpoint-1" / "value_head.safetensors").is_file()
    again, info = AutoModelForSeq2SeqLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    for name, value in trainer.policy_model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
    tied = again.get_input_embeddings().weight.data_ptr() == again.get_output_embeddings().weight.data_ptr()
    assert tied == (family == "bart")


def test_a_checkpoint_that_stores_fp16_is_trained_in_float32(folders, tmp_path):
    half = AutoModelForSeq2SeqLM.from_pretrained(folders["t5"], dtype=torch.float16)
    half.save_pretrained(tmp_path / "half")
    from transformers import AutoTokenizer

    AutoTokenizer.from_pretrained(folders["t5"]).save_pretrained(tmp_path / "half")
    assert make_trainer(tmp_path / "half", tmp_path).policy_model.dtype == torch.float32


def test_evaluation_repeats_itself_and_leaves_training_alone(folders, tmp_path):
    with_evaluation = make_trainer(folders["t5"], tmp_path / "a", eval_strategy="steps", eval_steps=1)
    with_evaluation.train()
    without = make_trainer(folders["t5"], tmp_path / "b")
    without.train()
    for name, value in weights(without).items():
        assert torch.equal(value, weights(with_evaluation)[name])
    logged = [row for row in with_evaluation.state.log_history if "eval_reward" in row]
    assert len(logged) == 6
    metrics = with_evaluation.evaluate()
    assert metrics["eval_reward"] == logged[-1]["eval_reward"] == metrics["eval_rewards/vowels/mean"]
    assert metrics["eval_length"] > 0


def test_evaluation_may_decode_in_any_way(folders, tmp_path):
    trainer = make_trainer(
        folders["bart"], tmp_path, eval_generation_kwargs={"num_beams": 2, "do_sample": False, "max_new_tokens": 3}
    )
    assert trainer.evaluate()["eval_length"] <= 3


def test_the_best_checkpoint_is_loaded_at_the_end(folders, tmp_path):
    trainer = make_trainer(
        folders["t5"],
        tmp_path,
        eval_strategy="steps",
        eval_steps=1,
        save_strategy="steps",
        save_steps=1,
        load_best_model_at_end=True,
        metric_for_best_model="eval_reward",
        greater_is_better=True,
        learning_rate=5e-3,
    )
    trainer.train()
    best = load_file(f"{trainer.state.best_model_checkpoint}/model.safetensors")
    for name, value in best.items():
        assert torch.equal(trainer.policy_model.state_dict()[name], value)


def test_a_kl_stop_ends_the_update_and_unlearns_the_mini_batch_that_showed_it(folders, tmp_path):
    stopped = make_trainer(folders["t5"], tmp_path, early_stop_kl=1e-9, total_episodes=4, num_mini_batches=1)
    stopped.train()
    one = make_trainer(folders["t5"], tmp_path, total_episodes=4, num_ppo_epochs=1, num_mini_batches=1)
    one.train()
    assert rollout_rows(stopped)[0]["val/optimizer_steps"] == 1.0
    # The first pass has a KL of 0 and is learnt from; the second shows the move and leaves no trace.
    for name, value in weights(one).items():
        assert torch.equal(value, weights(stopped)[name])


def test_micro_batches_do_not_change_the_update(folders, tmp_path):
    ends = []
    for micro, accumulation in ((8, 1), (2, 4)):
        trainer = make_trainer(
            folders["t5"],
            tmp_path,
            per_device_train_batch_size=micro,
            gradient_accumulation_steps=accumulation,
            num_mini_batches=1,
            num_ppo_epochs=1,
            optim="sgd",
            learning_rate=0.1,
        )
        batches = [trainer.data_collator([trainer.train_dataset[row] for row in range(8)])]
        torch.manual_seed(5)
        rollout = trainer.collect(batches[0])
        trainer.create_optimizer()
        trainer.model_wrapped, trainer.optimizer = trainer.accelerator.prepare(trainer.model, trainer.optimizer)
        trainer.update(rollout)
        ends.append({name: p.grad.clone() for name, p in trainer.model.named_parameters() if p.grad is not None})
    assert ends[0].keys() == ends[1].keys()
    for name, gradient in ends[0].items():
        assert torch.allclose(gradient, ends[1][name], atol=1e-6), name


def test_several_rewards_are_weighted_and_named(folders, tmp_path):
    def length(completions, **kwargs):
        return [float(len(text)) for text in completions]

    trainer = make_trainer(folders["t5"], tmp_path, [vowels, length], total_episodes=4, reward_weights=[2.0, -0.5])
    trainer.train()
    (row,) = rollout_rows(trainer)
    expected = 2.0 * row["rewards/vowels/mean"] - 0.5 * row["rewards/length/mean"]
    assert row["objective/scores"] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("settings", [{"logging_steps": 1}, {"logging_steps": 3}])
def test_the_train_loss_of_a_resumed_run_is_that_of_the_whole_run(folders, tmp_path, settings):
    settings = {"save_strategy": "steps", "save_steps": 2, "total_episodes": 16, **settings}
    straight = make_trainer(folders["t5"], tmp_path, **settings)
    expected = straight.train()
    every = [row["loss/total_avg"] for row in rollout_rows(straight)]
    if settings["logging_steps"] == 1:
        assert expected.training_loss == pytest.approx(sum(every) / 4)
    for checkpoint in ("checkpoint-2", "checkpoint-4"):
        resumed = make_trainer(folders["t5"], tmp_path / "resumed", **settings)
        found = resumed.train(resume_from_checkpoint=str(tmp_path / checkpoint))
        assert found.training_loss == found.metrics["train_loss"] == pytest.approx(expected.training_loss)
        assert resumed.state.log_history[-1]["train_loss"] == pytest.approx(expected.training_loss)


def test_a_missing_eos_costs_what_was_asked(folders, tmp_path):
    def zero(completions, **kwargs):
        return [0.0] * len(completions)

    trainer = make_trainer(folders["t5"], tmp_path, zero, total_episodes=4, missing_eos_penalty=1.5, response_length=1)
    trainer.train()
    (row,) = rollout_rows(trainer)
    assert row["objective/scores"] == pytest.approx(-1.5 * (4 - row["val/num_eos_tokens"]) / 4)


def test_a_reward_that_fails_stops_the_run_at_the_last_good_checkpoint(folders, tmp_path):
    def breaks(completions, trainer_state, **kwargs):
        if trainer_state.global_step == 2:
            raise OSError("judge gone")
        return vowels(completions)

    trainer = make_trainer(folders["t5"], tmp_path, breaks, save_strategy="steps", save_steps=1)
    with pytest.raises(RewardError, match="'breaks' raised OSError: judge gone"):
        trainer.train()
    assert (tmp_path / "checkpoint-2").is_dir()
    assert not (tmp_path / "checkpoint-3").exists()


def test_a_loss_that_is_not_finite_stops_the_run(folders, tmp_path):
    trainer = make_trainer(folders["t5"], tmp_path, lambda completions, **kw: [1e38] * len(completions))
    with pytest.raises(FloatingPointError, match="lower learning_rate"):
        trainer.train()


def test_conversations_reach_the_rewards_as_messages(folders, tmp_path):
    seen = []

    def reward(prompts, completions, **kwargs):
        seen.extend(completions)
        return [float(len(completion[0]["content"])) for completion in completions]

    trainer = make_trainer(folders["t5"], tmp_path, reward, total_episodes=4)
    trainer.processing_class.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    trainer.train_dataset = Dataset.from_list([{"prompt": [{"role": "user", "content": "the cat"}]}] * 4)
    trainer.train()
    assert seen[0][0]["role"] == "assistant"


LORA_TARGETS = {"t5": ["q", "v"], "bart": ["q_proj", "v_proj"]}


def make_adapted(model, family, folder, **settings):
    """A trainer of a LoRA adapter of rank 1."""
    from peft import LoraConfig

    args = make_trainer(model, folder, **settings).args
    lora = LoraConfig(task_type="SEQ_2_SEQ_LM", r=1, target_modules=LORA_TARGETS[family])
    return Seq2SeqPPOTrainer(str(model), vowels, args, dataset(), peft_config=lora)


@pytest.mark.filterwarnings("ignore:Input and output embeddings are no longer tied:UserWarning")  # nor were they
@pytest.mark.parametrize("family", ["t5", "bart"])
def test_an_adapter_is_trained_and_the_reference_is_the_model_without_it(folders, tmp_path, family):
    from peft import PeftModel

    trainer = make_adapted(folders[family], family, tmp_path, learning_rate=1e-2, total_episodes=12)
    start = weights(trainer)
    share = {True: 0, False: 0}
    for parameter in trainer.model.parameters():
        share[parameter.requires_grad] += parameter.numel()
    assert share[True] / sum(share.values()) < 0.02
    trainer.train()
    rows = rollout_rows(trainer)
    assert abs(rows[0]["objective/kl"]) < 1e-4
    assert rows[-1]["objective/kl"] != 0
    moved = {name for name, value in weights(trainer).items() if not torch.equal(value, start[name])}
    assert all("lora" in name or name.startswith("value_head") for name in moved)
    assert {name for name in start if "lora_B" in name} <= moved
    trainer.save_model()
    assert (tmp_path / "adapter_model.safetensors").is_file()
    assert not (tmp_path / "model.safetensors").exists()
    again = PeftModel.from_pretrained(AutoModelForSeq2SeqLM.from_pretrained(folders[family]), tmp_path)
    assert again.state_dict().keys() == trainer.policy_model.state_dict().keys()
    # Merged and saved it is a plain model again; T5's with an output matrix of its own, as before.
    merged = again.merge_and_unload()
    merged.save_pretrained(tmp_path / "merged")
    plain = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "merged")
    embeddings = plain.get_input_embeddings().weight
    assert torch.equal(plain.lm_head.weight, embeddings) == (family == "bart")
    prefix = list(trainer.rules.prefix)
    inputs = {"input_ids": torch.tensor([[5, 6, 1]]), "decoder_input_ids": torch.tensor([[*prefix, 7, 8]])}
    with torch.no_grad():
        trained = trainer.policy_model.eval()(**inputs).logits
        torch.testing.assert_close(plain(**inputs).logits, trained, atol=1e-5, rtol=1e-4)
        before = AutoModelForSeq2SeqLM.from_pretrained(folders[family])(**inputs).logits
    assert (trained - before).abs().max() > 1e-3


@pytest.mark.parametrize("kind", ["lora", "rloo"])
def test_an_adapter_s_run_and_one_without_a_critic_resume_bit_for_bit(folders, tmp_path, kind):
    settings = {"save_strategy": "steps", "save_steps": 2, "total_episodes": 12, "learning_rate": 1e-2}
    if kind == "rloo":
        settings.update(advantage_estimator="rloo", num_generations=2, adaptive_kl=True)

    def make(folder):
        trainer = (
            make_adapted(folders["bart"], "bart", folder, **settings)
            if kind == "lora"
            else make_trainer(folders["bart"], folder, **settings)
        )
        trainer.remove_callback(ModelCardCallback)  # takes longer than the training here
        return trainer

    straight = make(tmp_path / "straight")
    start = weights(straight)
    straight.train()
    resumed = make(tmp_path / "resumed")
    resumed.train(resume_from_checkpoint=str(tmp_path / "straight" / "checkpoint-2"))
    assert resumed.state.global_step == straight.state.global_step == 3
    ends = weights(straight)
    assert any(not torch.equal(value, start[name]) for name, value in ends.items())
    for name, value in weights(resumed).items():
        assert torch.equal(value, ends[name]), name
    assert rollout_rows(resumed) == rollout_rows(straight)


def test_the_callers_arguments_stay_as_they_were(folders, tmp_path):
    args = Seq2SeqPPOConfig(
        output_dir=str(tmp_path), per_device_train_batch_size=4, total_episodes=18, report_to="none"
    )
    trainer = Seq2SeqPPOTrainer(folders["t5"], vowels, args, train_dataset=dataset())
    assert args.max_steps == -1
    assert trainer.args.max_steps == 5  # ceil(18 / 4)


def test_the_progress_bar_is_one_line_of_episode_reward_kl_length_and_time(folders, tmp_path, capsys):
    make_trainer(folders["t5"], tmp_path, disable_tqdm=False, total_episodes=8).train()
    last = capsys.readouterr().err.replace("\n", "").split("\r")[-1]
    for part in ("episode 8/8", "reward ", "kl ", "length ", "left]"):
        assert part in last


def test_every_rollout_is_whole_where_accumulation_does_not_divide_the_epoch(folders, tmp_path):
    trainer = make_trainer(
        folders["t5"], tmp_path, gradient_accumulation_steps=2, rows=20, num_mini_batches=8, num_ppo_epochs=1,
        total_episodes=40,
    )  # fmt: skip
    trainer.train()
    assert [row["episode"] for row in rollout_rows(trainer)] == [8, 16, 24, 32, 40]


class Heard(TrainerCallback):
    """What a tracker hears, in order."""

    def __init__(self):
        self.calls = []

    def on_log(self, args, state, control, logs=None, **kwargs):
        self.calls.append("epoch_reward" if "epoch_reward" in logs else "log")

    def on_train_end(self, *_, **__):
        self.calls.append("end")


def test_a_last_epoch_that_ends_early_has_its_mean_too_before_trackers_close(folders, tmp_path):
    heard = Heard()
    trainer = make_trainer(folders["t5"], tmp_path, total_episodes=24, callbacks=[heard])  # an epoch and a half
    trainer.train()
    assert heard.calls.count("epoch_reward") == 2
    assert heard.calls[-2:] == ["epoch_reward", "end"]


def test_the_order_of_prompts_hangs_on_the_seed_alone(folders, tmp_path):
    orders = []

    def recording(completions, rank, **kwargs):
        orders[-1].extend(rank)
        return vowels(completions)

    for state in (1, 2):
        trainer = make_trainer(folders["t5"], tmp_path, recording, total_episodes=16)
        torch.manual_seed(state)
        orders.append([])
        trainer.train()
    assert orders[0] == orders[1]
    assert sorted(orders[0]) == list(range(16))


def test_a_run_that_failed_leaves_nothing_to_the_next(folders, tmp_path):
    calls = []

    def fails_once(completions, **kwargs):
        calls.append(1)
        if len(calls) == 2:
            raise OSError("judge gone")
        return vowels(completions)

    trainer = make_trainer(folders["t5"], tmp_path, fails_once, gradient_accumulation_steps=2, total_episodes=8)
    with pytest.raises(RewardError):
        trainer.train()
    trainer.train()
    assert [row["episode"] for row in rollout_rows(trainer)] == [8]


@pytest.mark.parametrize(
    "settings",
    [
        {"kl_estimator": "k3", "whiten_rewards": True, "whiten_advantages": False},
        {"bf16": True, "use_cpu": True},
        {ACTIVATION_CHECKPOINTING: True},
    ],
    ids=["k3 and whitening", "bf16", "checkpointing"],
)
@pytest.mark.parametrize("family", ["t5", "bart"])
def test_every_mode_trains(folders, tmp_path, family, settings):
    trainer = make_trainer(folders[family], tmp_path, total_episodes=8, **settings)
    start = weights(trainer)
    trainer.train()
    assert any(not torch.equal(value, start[name]) for name, value in weights(trainer).items())
    assert rollout_rows(trainer)[0]["val/ratio_first"] == pytest.approx(1.0, abs=0.02 if "bf16" in settings else 1e-4)


def test_checkpointing_gives_the_same_gradients(folders, tmp_path):
    ends = []
    for settings in ({}, {ACTIVATION_CHECKPOINTING: True}):
        trainer = make_trainer(folders["bart"], tmp_path, total_episodes=8, **settings)
        trainer.train()
        ends.append(weights(trainer))
    for name, value in ends[0].items():
        assert torch.allclose(value, ends[1][name], atol=1e-5), name


def test_a_trained_adapter_that_is_passed_in_is_the_starting_model(folders, tmp_path):
    from peft import LoraConfig, get_peft_model

    base = AutoModelForSeq2SeqLM.from_pretrained(folders["t5"])
    policy = get_peft_model(base, LoraConfig(task_type="SEQ_2_SEQ_LM", r=2, init_lora_weights=False))
    trainer = make_trainer(policy, tmp_path, total_episodes=4)
    trainer.train()
    assert abs(rollout_rows(trainer)[0]["objective/kl"]) < 1e-5


def test_the_card_says_what_it_is_told(folders, tmp_path):
    trainer = make_trainer(folders["t5"], tmp_path, total_episodes=4)
    trainer.create_model_card(model_name="polite", dataset_name="user/prompts", tags="demo")
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "# polite" in card
    assert "user/prompts" in card
    assert "- demo" in card
    assert "- ppo" in card


def test_the_value_head_may_learn_at_a_rate_of_its_own_also_after_a_resume(folders, tmp_path):
    settings = {
        "learning_rate": 1e-3, "critic_learning_rate": 1e-2, "save_strategy": "steps", "save_steps": 2,
        "lr_scheduler_type": "constant",
    }  # fmt: skip
    straight = make_trainer(folders["t5"], tmp_path, **settings)
    straight.train()
    head = {id(parameter) for parameter in straight.model.value_head.parameters()}
    rates = {
        id(parameter) in head: group["lr"]
        for group in straight.optimizer.param_groups
        for parameter in group["params"]
    }
    assert rates == {True: 1e-2, False: 1e-3}
    resumed = make_trainer(folders["t5"], tmp_path / "resumed", **settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    for name, value in weights(straight).items():
        assert torch.equal(value, weights(resumed)[name]), name


class _StopAfter(TrainerCallback):
    def __init__(self, steps):
        self.steps = steps

    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop = state.global_step >= self.steps


def test_a_run_stopped_by_a_callback_can_be_resumed_from_the_last_checkpoint(folders, tmp_path):
    settings = {"save_strategy": "steps", "save_steps": 1}
    make_trainer(folders["t5"], tmp_path, callbacks=[_StopAfter(2)], **settings).train()
    resumed = make_trainer(folders["t5"], tmp_path, **settings)
    resumed.train(resume_from_checkpoint=True)
    assert resumed.state.global_step == 6
    assert resumed.episodes == 24
