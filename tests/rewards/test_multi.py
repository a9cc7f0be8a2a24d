import json
import math
import pickle
import subprocess
import sys

import numpy
import pytest
import torch
import transformers
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from tests.rewards.judges import TEXTS, judge, sentiment
from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.rewards import ClassifierReward, MultiClassifierReward, RewardScores

CLOSE = {"rtol": 0, "atol": 1e-5}


def length(completions, **kwargs):
    return [float(len(completion)) for completion in completions]


def only_long(prompts, completions, **kwargs):
    return [1.0 if len(completion) > 10 else None for completion in completions]


def pair(**options):
    good = ClassifierReward(judge(), label="good", name="quality")
    neutral = ClassifierReward(sentiment(), label="neutral", name="neutrality")
    return MultiClassifierReward([good, neutral], [1.0, 0.5], **options)


# --- values ---


def test_the_total_is_the_weighted_sum_of_pipeline_logits():
    logits = []
    for folder, label in ((judge(), "good"), (sentiment(), "neutral")):
        classify = transformers.pipeline("text-classification", model=str(folder), device="cpu")
        results = classify(TEXTS, function_to_apply="none", top_k=None)
        logits.append([next(row["score"] for row in rows if row["label"] == label) for rows in results])
    expected = 1.0 * torch.tensor(logits[0]) + 0.5 * torch.tensor(logits[1])
    scores = pair().score(TEXTS)
    assert isinstance(scores, RewardScores)
    torch.testing.assert_close(scores.total, expected, **CLOSE)
    torch.testing.assert_close(scores.components["quality"], torch.tensor(logits[0]), **CLOSE)
    torch.testing.assert_close(scores.components["neutrality"], torch.tensor(logits[1]), **CLOSE)
    assert pair()(TEXTS) == scores.total.tolist()


def test_weights_default_to_one_each():
    both = MultiClassifierReward([length, only_long])
    assert both.weights == [1.0, 1.0]
    assert both(["a" * 11, "ab"]) == [12.0, 2.0]


def test_numpys_numbers_are_weights_too():
    weights = MultiClassifierReward([length], [numpy.float32(0.5)]).weights
    assert weights == [0.5]
    assert type(weights[0]) is float


def test_callables_and_classifiers_mix():
    reward = MultiClassifierReward([ClassifierReward(judge(), label="good", name="quality"), length], [1, 2])
    scores = reward.score(["hello"])
    expected = ClassifierReward(judge(), label="good")(["hello"])[0] + 2 * 5
    assert scores.total.item() == pytest.approx(expected, abs=1e-5)
    assert scores.components["length"].tolist() == [5.0]
    assert reward.rewards[1] is length


def test_none_and_nan_are_left_out_as_in_trl():
    def never(completions, **kwargs):
        return [math.nan] * len(completions)

    total = MultiClassifierReward([length, only_long, never], [1, 10, 5]).score(["a" * 11, "ab"]).total
    assert total.tolist() == [21.0, 2.0]
    scores = MultiClassifierReward([only_long, never]).score(["a" * 11, "ab"])
    assert scores.total[0] == 1.0
    assert scores.total[1].isnan()
    assert scores.components["only_long"][1].isnan()


def test_no_texts_give_no_scores():
    assert pair()([]) == []


# --- one copy, one forward pass ---


def test_rewards_on_one_model_share_the_copy_and_the_forward_pass(loads):
    labels = ("negative", "neutral", "positive")
    rewards = [ClassifierReward(sentiment(), label=label, name=label) for label in labels]
    rewards.append(ClassifierReward(sentiment(), label=1, score_type="probability", name="share"))
    multi = MultiClassifierReward(rewards)
    forwards = []
    hook = rewards[0].model.register_forward_hook(lambda *args: forwards.append(1))
    scores = multi.score(["a", "b"])
    hook.remove()
    assert len(loads) == len(forwards) == 1
    assert all(reward.model is rewards[0].model for reward in rewards)
    for reward in rewards:
        alone = ClassifierReward(sentiment(), label=reward.label, score_type=reward.score_type).score(["a", "b"])
        torch.testing.assert_close(scores.components[reward.name], alone.total, **CLOSE)


def test_one_model_read_in_two_ways_is_loaded_once_and_run_twice():
    alone = ClassifierReward(judge(), label="good", name="alone")
    paired = ClassifierReward(judge(), label="good", name="paired", pair="prompt")
    scores = MultiClassifierReward([alone, paired]).score(["hello"], ["who?"]).components
    assert alone.model is paired.model
    torch.testing.assert_close(scores["alone"], ClassifierReward(judge(), label="good").score(["hello"]).total)
    fresh = ClassifierReward(judge(), label="good", pair="prompt").score(["hello"], ["who?"])
    torch.testing.assert_close(scores["paired"], fresh.total)


def test_different_weights_stay_apart():
    one, two = pair().rewards
    assert one.model is not two.model
    half = ClassifierReward(judge(), label="good", name="half", dtype="bfloat16")
    full = ClassifierReward(judge(), label="good", name="full")
    MultiClassifierReward([half, full])
    assert (half.model.dtype, full.model.dtype) == (torch.bfloat16, torch.float32)


def test_a_loaded_model_is_shared_by_its_identity():
    model = AutoModelForSequenceClassification.from_pretrained(judge())
    tokenizer = AutoTokenizer.from_pretrained(judge())
    bad, good = (ClassifierReward(model, label=label, name=label, tokenizer=tokenizer) for label in ("bad", "good"))
    assert bad.forward_key == good.forward_key
    forwards = []
    model.register_forward_hook(lambda *args: forwards.append(1))
    MultiClassifierReward([bad, good])(["a"])
    assert forwards == [1]


# --- TRL's protocol ---


def test_a_call_as_trl_makes_it_logs_the_components():
    metrics, columns = {}, {}
    seen = {}

    def spy(prompts, completions, completion_ids, topic, **kwargs):
        seen.update(prompts=prompts, completions=completions, topic=topic, extra=sorted(kwargs))
        return [0.5, None]

    reward = MultiClassifierReward([length_of_chat, spy, never_scores], [2.0, 1.0, 1.0])
    chat = [[{"role": "assistant", "content": text}] for text in ("hello", "hi")]
    prompts = [[{"role": "user", "content": "greet"}]] * 2
    total = reward(
        prompts=prompts,
        completions=chat,
        completion_ids=[[1], [2]],
        trainer_state=None,
        log_metric=metrics.__setitem__,
        log_extra=columns.__setitem__,
        topic=["a", "b"],
    )
    assert total == [10.5, 4.0]
    assert seen["prompts"] is prompts
    assert seen["completions"] is chat
    assert seen["topic"] == ["a", "b"]
    assert seen["extra"] == ["log_extra", "log_metric", "trainer_state"]
    means = {name: value for name, value in metrics.items() if name.endswith("/mean")}
    assert means == {"rewards/length_of_chat/mean": 3.5, "rewards/spy/mean": 0.5}
    assert columns["length_of_chat"] == [5.0, 2.0]
    assert columns["spy"][0] == 0.5
    assert all(math.isnan(value) for value in columns["never_scores"])


def length_of_chat(completions, **kwargs):
    return [len(messages[-1]["content"]) for messages in completions]


def never_scores(completions, **kwargs):
    return [None] * len(completions)


def test_columns_reach_the_callables_through_score_too():
    def copies(completions, source, **kwargs):
        return [float(text == one) for text, one in zip(completions, source, strict=True)]

    assert MultiClassifierReward([copies]).score(["a", "b"], source=["a", "c"]).total.tolist() == [1.0, 0.0]


def test_a_column_may_have_the_name_of_an_argument_of_ours():
    def copies(completions, texts, **kwargs):
        return [float(text == one) for text, one in zip(completions, texts, strict=True)]

    both = MultiClassifierReward([copies, ClassifierReward(judge(), label="good", name="quality")], [1.0, 0.0])
    assert both(completions=["a", "b"], prompts=["", ""], texts=["a", "c"], columns=[1, 2]) == [1.0, 0.0]
    assert both.component("copies")(completions=["a"], texts=["a"]) == [1.0]
    assert len(both.component("quality")(completions=["a"], texts=["a"])) == 1


def test_names_and_components():
    reward = pair()
    assert reward.__name__ == reward.name == "quality_neutrality"
    assert pair(name="both").__name__ == "both"
    assert not isinstance(reward, torch.nn.Module)
    assert reward.component("neutrality") is reward.rewards[1]
    assert reward.component("neutrality").__name__ == "neutrality"
    mixed = MultiClassifierReward([length, only_long], [3, 1])
    part = mixed.component("length")
    assert part.__name__ == "length"
    assert part(completions=["abc"], prompts=["p"]) == [3.0]  # unweighted
    assert part.component("length") is part
    assert "length" in repr(mixed)
    with pytest.raises(InputError, match="did you mean 'length'"):
        mixed.component("lenght")


def test_a_component_says_what_of_the_combination_it_leaves_out(caplog):
    reward = pair(only_if={"quality": {"neutrality": 0.0}}, clip={"quality": (-1, 1)}, name="both")
    reward.component("neutrality")
    assert not caplog.records
    assert reward.component("quality") is reward.rewards[0]
    assert "component('quality') gives raw scores: clip, only_if of both left out" in caplog.text


def test_a_total_never_goes_by_the_name_of_a_part():
    metrics, columns = {}, {}
    one = MultiClassifierReward([length], [3.0])
    assert one.name == "length_total"
    assert one(["ab"], log_metric=metrics.__setitem__, log_extra=columns.__setitem__) == [6.0]
    assert (metrics, columns) == ({"rewards/length/mean": 2.0}, {"length": [2.0]})
    with pytest.raises(InputError, match="'length'"):
        MultiClassifierReward([length, only_long], name="length")


def test_a_combination_can_be_part_of_another():
    inner = MultiClassifierReward([length], [2.0], name="inner")
    assert MultiClassifierReward([inner, only_long], [1.0, 1.0])(["abc"]) == [6.0]


def test_describe_has_a_row_for_each_component():
    rows = MultiClassifierReward([ClassifierReward(judge(), label=1, name="quality"), length], [1, 0.25]).describe()
    assert [(row["name"], row["label"], row["weight"]) for row in rows] == [
        ("quality", "good", 1.0),
        ("length", None, 0.25),
    ]
    assert [row["model"] for row in rows] == [str(judge()), None]
    assert list(rows[0])[:7] == list(rows[1])[:7]
    assert rows[1]["function"] == f"{__name__}.length"


OTHER_PROCESS = """
import json, pickle, sys
reward = pickle.load(open(sys.argv[1], "rb"))
shared = reward.rewards[0].model is reward.rewards[2].model
print(json.dumps([reward(json.loads(sys.argv[2])), shared]))
"""


def test_it_crosses_into_another_process_and_still_shares(tmp_path):
    bad = ClassifierReward(judge(), label="bad", name="bad")
    reward = MultiClassifierReward([*pair().rewards, bad], [1.0, 0.5, -0.25])
    expected = reward(TEXTS)
    path = tmp_path / "reward.pickle"
    path.write_bytes(pickle.dumps(reward))
    command = [sys.executable, "-c", OTHER_PROCESS, str(path), json.dumps(TEXTS)]
    found, shared = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    torch.testing.assert_close(torch.tensor(found), torch.tensor(expected), **CLOSE)
    assert shared


# --- refusals ---


@pytest.mark.parametrize(
    ("rewards", "weights", "message"),
    [
        ([], None, "one or more rewards"),
        (length, None, "one or more rewards"),
        ([length, length], None, "length more than once"),
        ([length, only_long], [1.0], "2 weights"),
        ([length], [1.0, 2.0], "1 weights"),
        ([length], 1.0, "list of numbers"),
        ([length], {"long": 1.0}, "did you mean 'length'"),
        ([length, only_long], {}, "a weight for 'length', 'only_long'"),
        ([length], [math.nan], "finite"),
        ([length], [math.inf], "finite"),
        ([length], ["1"], "finite"),
        ([length], [True], "finite"),
        ([length, length], [1.0, 2.0], "length more than once"),
        ([torch.nn.Linear(1, 1)], None, "wrap it: ClassifierReward"),
        (["org/model"], None, "wrap it: ClassifierReward"),
        ([3], None, "a reward function"),
    ],
)
def test_what_does_not_fit_is_refused_when_it_is_built(rewards, weights, message):
    with pytest.raises(InputError, match=message):
        MultiClassifierReward(rewards, weights)


def test_a_failing_classifier_is_reported_with_its_name_and_a_text():
    one, two = pair().rewards
    two.model.classifier.forward = None
    with pytest.raises(RuntimeError, match=r"'neutrality' raised TypeError.*2 completions.*'ab'") as error:
        MultiClassifierReward([one, two])(["ab", "c"])
    assert isinstance(error.value.__cause__, TypeError)


def test_two_classifiers_of_one_name_are_refused_before_anything_is_loaded(tmp_path):
    (tmp_path / "config.json").write_text((judge() / "config.json").read_text())
    rewards = [ClassifierReward(tmp_path, label="good") for _ in range(2)]
    with pytest.raises(InputError, match="more than once"):
        MultiClassifierReward(rewards)


def test_a_count_of_prompts_that_differs_is_refused():
    with pytest.raises(InputError, match="2 prompts, one for each"):
        MultiClassifierReward([length])(["a", "b"], ["p"])


def test_prompts_that_a_pair_needs_are_asked_for_by_name():
    with pytest.raises(InputError, match="'faithful'"):
        MultiClassifierReward([ClassifierReward(judge(), label=1, name="faithful", pair="prompt")])(["a"])


def test_scores_become_a_table():
    def total(completions, **kwargs):
        return [None if text == "" else 2.0 for text in completions]

    def words(completions, **kwargs):
        return [float(len(text.split())) for text in completions]

    table = MultiClassifierReward([words]).score(["a b", ""]).to_pandas()
    assert list(table.columns) == ["total", "words"]
    assert table.to_dict("list") == {"total": [2.0, 0.0], "words": [2.0, 0.0]}
    table = MultiClassifierReward([words, total]).score(["a b", ""]).to_pandas()
    assert table["total_total"].tolist() == [4.0, 0.0]
    assert table["total"].isna().tolist() == [False, True]
