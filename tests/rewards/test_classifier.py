import copy
import json
import pickle
import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertTokenizer, RobertaConfig, RobertaModel

from tests.rewards.judges import TEXTS, judge, sentiment
from tests.tiny_models import tiny_classifier
from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.rewards import ClassifierReward, RewardScores

CLOSE = {"rtol": 0, "atol": 1e-5}


def pipeline_scores(folder, label, inputs, function_to_apply="none", **options):
    classify = transformers.pipeline("text-classification", model=str(folder), device="cpu")
    results = classify(inputs, function_to_apply=function_to_apply, top_k=None, **options)
    return [next(row["score"] for row in rows if row["label"] == label) for rows in results]


def close(found, expected):
    torch.testing.assert_close(torch.tensor(found), torch.tensor(expected), **CLOSE)


# --- values ---


@pytest.mark.parametrize(("folder", "label"), [(judge, "bad"), (judge, "good"), (sentiment, "neutral")])
@pytest.mark.parametrize(
    ("score_type", "function"), [("logit", "none"), ("probability", "softmax"), ("probability", "default")]
)
def test_scores_equal_the_transformers_pipeline(folder, label, score_type, function):
    reward = ClassifierReward(folder(), label=label, score_type=score_type, device="cpu")
    function = None if function == "default" else function
    close(reward(TEXTS), pipeline_scores(folder(), label, TEXTS, function))


def test_multi_label_and_single_label_models_use_a_sigmoid_as_the_pipeline_does():
    for folder in (
        judge("many", ("rude", "kind"), problem_type="multi_label_classification"),
        judge("one", ("kind",)),
    ):
        reward = ClassifierReward(folder, label="kind", score_type="probability")
        close(reward(TEXTS), pipeline_scores(folder, "kind", TEXTS, None))
        log = ClassifierReward(folder, label="kind", score_type="log_probability")
        close(torch.tensor(log(TEXTS)).exp().tolist(), reward(TEXTS))


@pytest.mark.parametrize("folder", [judge, sentiment])
def test_pairs_equal_the_pipeline_on_text_and_text_pair(folder):
    label = "good" if folder is judge else "neutral"
    prompts = ["Is it?", "", "hello", "Why", "no", "x", "other", "y"]
    reward = ClassifierReward(folder(), label=label, pair="prompt")
    # An empty completion stays a pair here; the pipeline, which takes one at a time, would score the prompt alone.
    texts = [text or "-" for text in TEXTS]
    inputs = [{"text": prompt, "text_pair": text} for prompt, text in zip(prompts, texts, strict=True)]
    expected = pipeline_scores(folder(), label, inputs)
    close(reward(texts, prompts), expected)
    close(reward(completions=texts, prompts=[[{"role": "user", "content": prompt}] for prompt in prompts]), expected)
    # The two "hello" have different prompts and are different pairs.
    assert expected[1] != pytest.approx(expected[6], abs=1e-3)
    assert reward([""], ["hello"]) != ClassifierReward(folder(), label=label)(["hello"])


def test_long_texts_are_cut_where_positions_end():
    long = ["x" * 2000, "x" * 600 + "y" * 900]
    reward = ClassifierReward(judge(), label="good")
    assert not hasattr(reward.tokenizer, "model_max_length") or reward.tokenizer.model_max_length > 10**9
    expected = pipeline_scores(judge(), "good", long, truncation=True, max_length=512)
    close(reward(long), expected)
    shorter = ClassifierReward(judge(), label="good", max_length=16)
    close(shorter(long), pipeline_scores(judge(), "good", long, truncation=True, max_length=16))


@pytest.mark.parametrize(("pair", "specials"), [(None, 2), ("prompt", 4)])
def test_a_limit_that_leaves_nothing_of_a_text_is_refused(pair, specials):
    with pytest.raises(InputError, match=f"max_length above {specials}"):
        ClassifierReward(judge(), label="good", pair=pair, max_length=specials)(["a"], ["b"])
    ClassifierReward(judge(), label="good", pair=pair, max_length=specials + 1)(["a"], ["b"])


def test_the_tokenizers_own_limit_holds_as_well(tmp_path):
    folder = tiny_classifier(tmp_path, model_type="bert")
    BertTokenizer.from_pretrained(folder, model_max_length=8).save_pretrained(folder)
    text = ["a b c d e f g h i j k l"]
    expected = pipeline_scores(folder, "acceptable", text, truncation=True, max_length=8)
    close(ClassifierReward(folder, label=1)(text), expected)


ALONE = {}


@settings(max_examples=25, deadline=None)
@given(st.lists(st.text(alphabet="ab é日", max_size=30), max_size=12), st.sampled_from([None, 1, 3]))
def test_order_duplicates_and_neighbours_change_nothing(texts, batch_size):
    alone = ALONE.setdefault("reward", ClassifierReward(judge(), label="good"))
    reward = ALONE.setdefault(batch_size, ClassifierReward(judge(), label="good", batch_size=batch_size))
    for text in texts:
        if text not in ALONE:
            ALONE[text] = alone([text])[0]
    close(reward(texts), [ALONE[text] for text in texts])


def test_a_repeated_text_goes_through_the_model_once():
    reward = ClassifierReward(judge(), label="good", batch_size=2)
    rows = []
    hook = reward.model.register_forward_pre_hook(
        lambda _, args, kwargs: rows.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    reward(["a", "bb", "a", "ccc", "bb"])
    hook.remove()
    assert rows == [2, 1]


# --- TRL's protocol ---


def test_the_calls_of_trl_and_the_short_one_agree():
    reward = ClassifierReward(judge(), label="good")
    plain = reward(TEXTS)
    assert all(type(score) is float for score in plain)
    chat = [[{"role": "assistant", "content": text}] for text in TEXTS]
    prompts = [[{"role": "user", "content": "?"}]] * len(TEXTS)
    extra = {"completion_ids": [[1]] * len(TEXTS), "trainer_state": None, "log_metric": print, "source": TEXTS}
    assert reward(prompts=prompts, completions=chat, **extra) == plain


def test_it_is_a_named_function_and_no_module():
    reward = ClassifierReward(judge(), label="good", name="quality")
    assert reward.__name__ == reward.name == "quality"
    assert not isinstance(reward, torch.nn.Module)
    assert reward.label == "good"
    assert reward.component("quality") is reward
    assert "quality" in repr(reward)
    assert ClassifierReward(judge(), label=1).name == "roberta-bad-good_good"
    with pytest.raises(InputError, match="did you mean 'quality'"):
        reward.component("qualty")


def test_score_gives_the_total_with_its_one_component():
    scores = ClassifierReward(judge(), label="good", name="quality").score(TEXTS)
    assert isinstance(scores, RewardScores)
    assert scores.total.shape == (len(TEXTS),)
    assert scores.total.dtype == torch.float32
    assert scores.total.device.type == "cpu"
    assert list(scores.components) == ["quality"]
    with pytest.raises(AttributeError):
        scores.total = None


def test_no_texts_give_no_scores():
    assert ClassifierReward(judge(), label="good")([]) == []


def test_scores_can_enter_a_loss():
    scale = torch.ones(1, requires_grad=True)
    total = ClassifierReward(judge(), label="good").score(["a"]).total
    (scale * total).sum().backward()
    assert scale.grad.item() == pytest.approx(total.item())


def test_describe_names_what_was_asked_for():
    reward = ClassifierReward(str(judge()), label=1, name="quality", score_type="probability", revision="main")
    assert reward.describe() == [
        {
            "name": "quality",
            "model": str(judge()),
            "label": "good",
            "weight": 1.0,
            "score_type": "probability",
            "revision": "main",
            "pair": None,
        }
    ]


# --- loading ---


def test_only_the_config_is_read_before_the_first_use(tmp_path):
    (tmp_path / "config.json").write_text((judge() / "config.json").read_text())
    reward = ClassifierReward(tmp_path, label="good")
    with pytest.raises(OSError, match=str(tmp_path)):
        reward(["a"])
    shutil.copytree(judge(), tmp_path, dirs_exist_ok=True)
    close(reward(["a"]), ClassifierReward(judge(), label="good")(["a"]))


def test_a_judge_that_was_not_saved_is_refused_as_such(tmp_path):
    with pytest.raises(InputError, match=r"without config\.json\nNext: +pass a folder that save_pretrained\(\) wrote"):
        ClassifierReward(tmp_path, label="good").model  # noqa: B018


def test_a_missing_or_unreachable_model_is_refused_with_a_next_step(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="missing-model"):
        ClassifierReward(tmp_path / "missing-model", label="good")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match="nobody/nothing") as refused:
        ClassifierReward("nobody/nothing", label="good")
    assert "network" in refused.value.next_step
    assert refused.value.found.endswith("in the cached files.")
    assert refused.value.__cause__ is None
    assert refused.value.__suppress_context__

    def refuse(*args, **kwargs):
        raise OSError("We couldn't connect.\nSee ...") from ConnectionError("self-signed certificate")

    monkeypatch.setattr("trl_rewards_plugin.rewards.inference.loading._is_adapter", refuse)
    with pytest.raises(InputError, match=r"couldn't connect\. \(self-signed certificate\)"):
        ClassifierReward("nobody/nothing", label="good")


def test_weights_are_float32_in_eval_mode_unless_asked(tmp_path):
    AutoModelForSequenceClassification.from_pretrained(judge(), dtype=torch.bfloat16).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(judge()).save_pretrained(tmp_path)
    model = ClassifierReward(tmp_path, label="good").model
    assert model.dtype == torch.float32
    assert not model.training
    assert ClassifierReward(tmp_path, label="good", dtype="bfloat16").model.dtype == torch.bfloat16
    assert ClassifierReward(tmp_path, label="good", dtype=torch.bfloat16)(["a"])[0] != 0.0


def test_a_trainers_autocast_does_not_reach_the_judge():
    reward = ClassifierReward(judge(), label="good", device="cpu")
    outside = reward(TEXTS)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert reward(TEXTS) == outside


def test_a_loaded_model_is_used_as_it_is():
    model = AutoModelForSequenceClassification.from_pretrained(judge()).train()
    tokenizer = AutoTokenizer.from_pretrained(judge())
    reward = ClassifierReward(model, label="good", tokenizer=tokenizer, device="cpu")
    expected = ClassifierReward(judge(), label="good")(TEXTS)
    close(reward(TEXTS), expected)
    assert reward.model is model
    assert reward.tokenizer is tokenizer
    assert not model.training
    assert reward.model_id == str(judge())
    # Its weights cannot be loaded from anywhere, so they travel with it.
    close(pickle.loads(pickle.dumps(reward))(TEXTS), expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "tokenizer beside a loaded model"),
        ({"tokenizer": 1, "revision": "main"}, "revision, dtype and offload"),
        ({"tokenizer": 1, "dtype": "float32"}, "revision, dtype and offload"),
    ],
)
def test_what_does_not_fit_a_loaded_model_is_refused(options, message):
    model = AutoModelForSequenceClassification.from_pretrained(judge())
    with pytest.raises(InputError, match=message):
        ClassifierReward(model, label="good", **options)


def test_a_tokenizer_of_its_own_can_be_named():
    expected = ClassifierReward(judge(), label="good")(TEXTS)
    close(ClassifierReward(judge(), label="good", tokenizer=judge())(TEXTS), expected)


def test_a_checkpoint_without_a_trained_head_is_refused(tmp_path):
    config = RobertaConfig.from_pretrained(judge())
    RobertaModel(config, add_pooling_layer=False).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(judge()).save_pretrained(tmp_path)
    with pytest.raises(InputError, match=r"no weights for classifier\.dense\.bias"):
        ClassifierReward(tmp_path, label="good")(["a"])


def test_weights_without_tokenizer_files_are_refused(tmp_path):
    AutoModelForSequenceClassification.from_pretrained(judge()).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="a tokenizer of 5 tokens"):
        ClassifierReward(tmp_path, label="good")(["a"])


def test_a_tokenizer_without_a_pad_token_is_refused():
    tokenizer = AutoTokenizer.from_pretrained(judge())
    tokenizer.pad_token = None
    with pytest.raises(InputError, match="pad token"):
        ClassifierReward(judge(), label="good", tokenizer=tokenizer)(["a"])


def test_a_broken_judge_does_not_become_a_number():
    model = AutoModelForSequenceClassification.from_pretrained(judge())
    model.classifier.out_proj.bias.data[1] = torch.nan
    reward = ClassifierReward(model, label="good", name="broken", tokenizer=AutoTokenizer.from_pretrained(judge()))
    with pytest.raises(RuntimeError, match=r"'broken'.*nan for 2 of 2 texts, first for 'hello'"):
        reward(["hello", "you"])


# --- arguments ---


def test_a_label_is_a_name_or_an_index():
    by_name = ClassifierReward(sentiment(), label="neutral")
    by_index = ClassifierReward(sentiment(), label=1)
    assert by_index.label == "neutral"
    assert by_name(TEXTS) == by_index(TEXTS)


@pytest.mark.parametrize("label", ["Neutrl", "1", 3, -1, True, None, 1.0])
def test_an_unknown_label_is_refused_from_the_config_alone(label):
    with pytest.raises(InputError) as error:
        ClassifierReward(sentiment(), label=label)
    assert "0: 'negative', 1: 'neutral', 2: 'positive'" in error.value.expected
    assert error.value.found == repr(label)
    assert ("did you mean 'neutral'" in error.value.next_step) == (label == "Neutrl")


def test_a_bundled_judge_is_called_as_it_was_given():
    with pytest.raises(InputError, match="a label of bundled:acceptability-judge, by name"):
        ClassifierReward("bundled:acceptability-judge", label="LABEL_1")


def test_a_label_name_that_occurs_twice_needs_its_index(tmp_path):
    config = json.loads((judge() / "config.json").read_text())
    config["id2label"] = {"0": "same", "1": "same"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="index instead"):
        ClassifierReward(tmp_path, label="same")
    assert ClassifierReward(tmp_path, label=1).label == "same"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pair": "completion"}, "pair="),
        ({"score_type": "prob"}, "score_type"),
        ({"batch_size": 0}, "batch_size"),
        ({"batch_size": True}, "batch_size"),
        ({"max_length": 1.5}, "max_length"),
        ({"max_length": 513}, "at most 512"),
        ({"name": "two words"}, "two_words"),
        ({"dtype": "float33"}, "dtype"),
        ({"dtype": ""}, "dtype"),
        ({"dtype": torch.int8}, "dtype"),
    ],
)
def test_a_value_out_of_range_is_refused_when_it_is_built(options, message):
    with pytest.raises(InputError, match=message):
        ClassifierReward(judge(), label="good", **options)


def test_anything_but_a_model_is_refused():
    with pytest.raises(InputError, match="Hub id"):
        ClassifierReward(3, label="good")


def test_probabilities_of_a_regression_model_are_refused():
    folder = judge("regression", ("score",), problem_type="regression")
    assert ClassifierReward(folder, label="score")(["a"])
    with pytest.raises(InputError, match="regression"):
        ClassifierReward(folder, label="score", score_type="probability")


def test_a_pair_needs_prompts():
    with pytest.raises(InputError, match="prompts"):
        ClassifierReward(judge(), label="good", pair="prompt")(["a"])


def test_the_offending_text_is_named():
    with pytest.raises(InputError, match=r"completions\[2\] is NoneType"):
        ClassifierReward(judge(), label="good")(["a", "b", None])


# --- processes and threads ---


def test_a_pickle_holds_no_weights():
    # That it also works in another process is tested in test_multi.py, for two classifiers at once.
    reward = ClassifierReward(judge(), label="good")
    expected = reward(TEXTS)
    pickled = pickle.dumps(reward)
    assert len(pickled) < 20_000
    close(pickle.loads(pickled)(TEXTS), expected)


def test_a_copy_loads_for_itself():
    reward = ClassifierReward(judge(), label="good")
    assert copy.deepcopy(reward)(TEXTS) == reward(TEXTS)


def test_a_tokenizer_that_was_passed_in_is_read_and_left_as_it_is():
    # Others may hold it: another reward, a trainer. What they set for themselves in other threads must not reach us.
    tokenizer = AutoTokenizer.from_pretrained(judge())
    tokenizer.backend_tokenizer.enable_truncation(max_length=3)
    tokenizer.backend_tokenizer.enable_padding(length=4)
    before = tokenizer.backend_tokenizer.to_str()
    reward = ClassifierReward(judge(), label="good", tokenizer=tokenizer)
    close(reward(TEXTS), ClassifierReward(judge(), label="good")(TEXTS))
    assert reward.tokenizer is tokenizer
    assert tokenizer.backend_tokenizer.to_str() == before


def test_threads_load_once_and_agree(loads):
    reward = ClassifierReward(judge(), label="good")
    batches = [[f"{thread} {text}" for text in TEXTS] for thread in range(8)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(reward, batches))
    assert len(loads) == 1
    for scores, texts in zip(found, batches, strict=True):
        assert scores == reward(texts)
