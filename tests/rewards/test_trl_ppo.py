"""A real run of TRL's own PPOTrainer, the last of which is in TRL 1.12, with a reward as its reward model."""

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from tests.rewards.judges import judge, sentiment
from tests.rewards.tiny_causal import PROMPTS, prompts, tiny_causal
from trl_rewards_plugin.rewards import ClassifierReward, MultiClassifierReward

pytest.importorskip(
    "trl.experimental.ppo",
    reason="TRL removed its PPOTrainer in 1.13; CI runs this on TRL 1.12.0",
    exc_type=ImportError,
)

# TRL uses names that the newest transformers deprecates, and says that its PPO is experimental.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.* is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning:trl"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(tiny_causal(tmp_path_factory.mktemp("causal")))


def combined():
    good = ClassifierReward(judge(), label="good", name="quality")
    neutral = ClassifierReward(sentiment(), label="neutral", name="neutrality", pair="prompt")
    return MultiClassifierReward([good, neutral], [1.0, 0.5], name="both")


@pytest.mark.parametrize("how", ["prompts", "response_template", "text"])
def test_what_it_logs_is_the_rewards_score_of_its_responses(folder, tmp_path, how):
    from trl.experimental.ppo import PPOConfig, PPOTrainer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    mark = " speak :" if how == "response_template" else ""
    texts = [prompt + mark for prompt in PROMPTS]
    data = prompts().map(lambda row: {"input_ids": tokenizer(row["prompt"] + mark)["input_ids"]})
    data = data.remove_columns(["prompt", "topic"])
    good = ClassifierReward(judge(), label="good", name="quality")
    reward = good if how == "text" else combined()
    options = {
        "prompts": {"prompts": list(data["input_ids"])},
        "response_template": {"response_template": mark.strip()},
        "text": {"part": "text"},
    }
    reward_model = reward.as_reward_model(tokenizer, **options[how])
    seen = []
    reward_model.backbone.register_forward_pre_hook(lambda _, args, inputs: seen.append(inputs), with_kwargs=True)
    args = PPOConfig(
        output_dir=str(tmp_path), total_episodes=16, per_device_train_batch_size=8, num_ppo_epochs=1,
        response_length=6, stop_token="eos", temperature=1.0, learning_rate=1e-2, report_to=[], use_cpu=True,
        bf16=False, logging_steps=1, save_strategy="no", num_sample_generations=0, disable_tqdm=True, seed=0,
    )  # fmt: skip
    trainer = PPOTrainer(
        args=args,
        processing_class=tokenizer,
        model=AutoModelForCausalLM.from_pretrained(folder),
        ref_model=None,
        reward_model=reward_model,
        value_model=AutoModelForSequenceClassification.from_pretrained(f"{folder}/value"),
        train_dataset=data,
    )
    trainer.train()
    logged = [entry["objective/scores"] for entry in trainer.state.log_history if "objective/scores" in entry]
    assert len(logged) == len(seen) == 2
    for step, inputs in enumerate(seen):
        rows = [ids[mask.bool()] for ids, mask in zip(inputs["input_ids"], inputs["attention_mask"], strict=True)]
        decoded = tokenizer.batch_decode(rows, skip_special_tokens=True)
        if how == "text":
            expected = reward.score(decoded).total
        else:
            # Every prompt once a batch, in the data loader's order; none but "the ..." is the start of another.
            queries = [max((text for text in texts if full.startswith(text)), key=len) for full in decoded]
            assert sorted(queries) == sorted(texts)
            responses = [full[len(query) :].strip() for full, query in zip(decoded, queries, strict=True)]
            expected = reward.score(responses, queries).total
        assert logged[step] == pytest.approx(expected.mean().item(), rel=0, abs=1e-5)
        assert expected.std() > 0.01


def test_its_scores_reach_the_last_token_of_each_response(folder):
    from trl.experimental.utils import get_reward

    tokenizer = AutoTokenizer.from_pretrained(folder)
    reward = combined()
    queries = tokenizer(["the cat is", "my book"], padding=True, return_tensors="pt")["input_ids"]
    responses = torch.tensor([tokenizer("big and red </s>")["input_ids"], [*tokenizer("old </s>")["input_ids"], 1, 1]])
    model = reward.as_reward_model(tokenizer, prompts=queries)
    _, scores, ends = get_reward(model, torch.cat([queries, responses], 1), 1, queries.shape[1])
    expected = reward.score(["big and red", "old"], ["the cat is", "my book"]).total
    torch.testing.assert_close(scores, expected, rtol=0, atol=1e-5)
    assert ends.tolist() == [6, 4]
