import logging
import warnings

import pytest
import torch
import transformers
from datasets import Dataset
from torch.utils.data import Dataset as TorchDataset
from transformers import (
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    BertConfig,
    BertModel,
    GenerationConfig,
    MarianConfig,
    MarianMTModel,
    pipeline,
)
from transformers.pipelines import PIPELINE_REGISTRY, REMOVED_TASKS

from tests.recipes.tiny_run import sentences
from tests.tiny_models import tiny_bart, tiny_t5
from trl_rewards_plugin import InputError
from trl_rewards_plugin.pipelines import register, text2text_pipeline, unregister
from trl_rewards_plugin.pipelines.text2text import (
    SummarizationPipeline,
    Text2TextGenerationPipeline,
    TranslationPipeline,
)
from trl_rewards_plugin.ppo.policy.load_policy import load_policy

TEXTS = [text[: 10 + 7 * index] for index, text in enumerate(sentences(9))]
TASKS = ("text2text-generation", "summarization", "translation")
KEYS = dict(zip(TASKS, ("generated_text", "summary_text", "translation_text"), strict=True))


def tiny_marian(folder):
    """Saves a random Marian (pad = decoder start, as in every Marian) with BART's tokenizer; returns the folder."""
    tiny_bart(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    torch.manual_seed(1)
    config = MarianConfig(
        vocab_size=len(tokenizer),
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        max_position_embeddings=128,
        init_std=0.4,
        pad_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
        forced_eos_token_id=2,
    )
    MarianMTModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("seq2seq")
    builders = {"t5": tiny_t5, "bart": tiny_bart, "marian": tiny_marian}
    return {name: str(build(root / name)) for name, build in builders.items()}


@pytest.fixture
def t5(folders):
    return text2text_pipeline(folders["t5"], device="cpu", max_new_tokens=6)


@pytest.fixture
def registered():
    register()
    yield
    unregister()


def by_hand(folder, texts, **settings):
    """Each text through the tokenizer, `generate` and `decode`, one at a time."""
    model, tokenizer = AutoModelForSeq2SeqLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    outputs = []
    for text in texts:
        ids = model.generate(**tokenizer(text, return_tensors="pt"), **settings)
        outputs.append(tokenizer.decode(ids[0], skip_special_tokens=True))
    return outputs


class Rows(TorchDataset):
    def __len__(self):
        return len(TEXTS)

    def __getitem__(self, index):
        return TEXTS[index]


@pytest.mark.parametrize(
    ("name", "task", "settings"),
    [
        ("t5", "text2text-generation", {"max_new_tokens": 6}),
        pytest.param("t5", "summarization", {"max_new_tokens": 5, "num_beams": 3}, marks=pytest.mark.slow),
        ("bart", "summarization", {"max_new_tokens": 6}),
        pytest.param("bart", "text2text-generation", {}, marks=pytest.mark.slow),
        ("marian", "translation", {"max_new_tokens": 6}),
        pytest.param("marian", "translation_en_to_de", {"max_new_tokens": 5, "num_beams": 3}, marks=pytest.mark.slow),
    ],
)
# transformers says so where nothing sets a length; the pipeline leaves that to it.
@pytest.mark.filterwarnings("ignore:Using the model-agnostic default:UserWarning")
def test_the_registered_pipeline_says_what_generate_and_decode_say(registered, folders, name, task, settings):
    expected = by_hand(folders[name], TEXTS, **settings)
    assert len(set(expected)) > 3, "a model that says one thing to all would prove nothing"
    pipe, key = pipeline(task, model=folders[name], device="cpu"), KEYS[task.split("_")[0]]
    assert pipe(TEXTS[0], **settings) == [{key: expected[0]}]
    for batch_size in (1, 8):
        options = {"batch_size": batch_size, **settings}
        assert pipe(TEXTS, **options) == [{key: text} for text in expected]
        assert list(pipe(Rows(), **options)) == [[{key: text}] for text in expected]
        assert list(pipe((text for text in TEXTS), **options)) == [[{key: text}] for text in expected]


def test_text2text_pipeline_needs_no_registry(folders):
    tables = dict(REMOVED_TASKS), dict(PIPELINE_REGISTRY.supported_tasks)
    expected = by_hand(folders["bart"], TEXTS[:2], max_new_tokens=5)
    for task, key in KEYS.items():
        pipe = text2text_pipeline(folders["bart"], task=task, device="cpu")
        assert pipe(TEXTS[:2], max_new_tokens=5) == [{key: text} for text in expected]
    assert (dict(REMOVED_TASKS), dict(PIPELINE_REGISTRY.supported_tasks)) == tables


def test_a_loaded_model_and_a_tokenizer_by_name_or_object(folders):
    model, tokenizer = (
        AutoModelForSeq2SeqLM.from_pretrained(folders["t5"]),
        AutoTokenizer.from_pretrained(folders["t5"]),
    )
    expected = by_hand(folders["t5"], TEXTS[:1], max_new_tokens=5)[0]
    for given in (None, tokenizer, folders["t5"]):
        pipe = text2text_pipeline(model, tokenizer=given, device="cpu")
        assert pipe(TEXTS[0], max_new_tokens=5) == [{"generated_text": expected}]


def test_register_and_unregister_leave_the_tables_as_they_were(registered, folders):
    register()  # a second call changes nothing
    assert not set(TASKS) & set(REMOVED_TASKS)
    unregister()
    assert set(TASKS) <= set(REMOVED_TASKS)
    assert not set(TASKS) & set(PIPELINE_REGISTRY.supported_tasks)
    assert not [task for task in PIPELINE_REGISTRY.supported_tasks if "translation" in task]
    with pytest.raises(KeyError, match="has been removed"):
        pipeline("summarization", model=folders["t5"])
    unregister()  # nothing to take back
    assert len([task for task in REMOVED_TASKS if task in TASKS]) == 3


def test_the_table_of_removed_tasks_comes_back_whole():
    tables = dict(REMOVED_TASKS), dict(PIPELINE_REGISTRY.supported_tasks)
    register("translation_ja_to_en")
    unregister()
    assert (dict(REMOVED_TASKS), dict(PIPELINE_REGISTRY.supported_tasks)) == tables


def test_a_task_that_someone_else_registered_is_left_alone(monkeypatch):
    monkeypatch.setitem(PIPELINE_REGISTRY.supported_tasks, "summarization", {"impl": "someone.elses.Pipeline"})
    removed = dict(REMOVED_TASKS)
    with pytest.raises(InputError, match=r"registered for someone\.elses\.Pipeline"):
        register()
    assert removed == dict(REMOVED_TASKS)
    assert "text2text-generation" not in PIPELINE_REGISTRY.supported_tasks


def test_a_saved_pipeline_carries_no_code_of_ours(registered, folders, tmp_path):
    pipeline("summarization", model=folders["t5"], device="cpu").save_pretrained(tmp_path)
    assert not list(tmp_path.glob("*.py"))
    assert not hasattr(transformers.AutoConfig.from_pretrained(tmp_path), "custom_pipelines")


def test_pairs_of_languages_are_tasks(registered, folders):
    pipe = pipeline("translation_en_to_fr", model=folders["marian"], device="cpu")
    assert isinstance(pipe, TranslationPipeline)
    with pytest.raises(KeyError, match="translation_en_to_nl"):
        pipeline("translation_en_to_nl", model=folders["marian"])
    register("translation_en_to_nl")
    assert pipeline("translation_en_to_nl", model=folders["marian"], device="cpu").task == "translation_en_to_nl"


def test_no_model_means_transformers_4s_default(registered):
    pairs = {"summarization": "sshleifer/distilbart-cnn-12-6", "translation_en_to_de": "google-t5/t5-base"}
    for task, expected in pairs.items():
        _, entry, options = PIPELINE_REGISTRY.check_task(task)
        assert transformers.pipelines.base.get_default_model_and_revision(entry, options)[0] == expected


def test_a_translation_without_languages_and_model_has_no_default_as_it_had_none(registered):
    register("translation_en_to_nl")
    for task in ("translation", "translation_en_to_nl"):
        with pytest.raises(ValueError, match="defaults can't be correctly selected"):
            pipeline(task)


def test_several_outputs_a_text(t5):
    settings = {"num_beams": 3, "num_return_sequences": 2}
    one = t5(TEXTS[0], **settings)
    assert len(one) == 2
    assert one[0] != one[1]
    assert t5(TEXTS[:3], batch_size=3, **settings)[0] == one


def test_columns_tuples_and_empty_lists(t5):
    expected = t5(TEXTS[:2])
    assert t5(tuple(TEXTS[:2])) == expected
    assert t5(Dataset.from_dict({"text": TEXTS[:2]})["text"]) == expected
    assert t5([]) == []
    assert list(t5(text for text in ())) == []


def test_tensors_text_or_both(t5, folders):
    text = t5(TEXTS[0])[0]["generated_text"]
    (tensors,) = t5(TEXTS[0], return_tensors=True)
    assert list(tensors) == ["generated_token_ids"]
    ids = tensors["generated_token_ids"]
    assert AutoTokenizer.from_pretrained(folders["t5"]).decode(ids, skip_special_tokens=True) == text
    (both,) = t5(TEXTS[0], return_tensors=True, return_text=True)
    assert both["generated_text"] == text
    assert torch.equal(both["generated_token_ids"], ids)
    with pytest.raises(InputError, match="return_text=False alone"):
        t5(TEXTS[0], return_text=False)


def test_a_call_beats_the_constructor_beats_the_task_beats_the_model(folders):
    model = AutoModelForSeq2SeqLM.from_pretrained(folders["t5"])
    model.generation_config.max_new_tokens = 3
    # An end of the sequence would hide the length.
    never_ends = {"suppress_tokens": [1]}

    def length(pipe, **settings):
        (record,) = pipe(TEXTS[0], return_tensors=True, **never_ends, **settings)
        (ids,) = record.values()
        return len(ids) - 1  # without the decoder's start token

    assert length(text2text_pipeline(model, task="summarization", device="cpu")) == 3
    model.generation_config.max_new_tokens = None
    model.config.task_specific_params = {"summarization": {"max_length": 5}}
    pipe = text2text_pipeline(model, task="summarization", device="cpu")
    assert length(pipe) == 4
    assert length(pipe, max_length=3) == 2
    assert length(pipe, max_new_tokens=7) == 7
    assert length(pipe, generation_config=GenerationConfig(max_new_tokens=2)) == 2
    built = text2text_pipeline(model, task="summarization", device="cpu", max_new_tokens=6)
    assert length(built) == 6
    assert length(built, max_new_tokens=8) == 8
    assert length(text2text_pipeline(model, device="cpu", max_length=4)) == 3
    assert model.config.task_specific_params == {"summarization": {"max_length": 5}}


@pytest.mark.parametrize(
    ("task", "options", "prefix"),
    [
        ("summarization", {}, "good morning : "),
        ("text2text-generation", {}, ""),
        ("translation_en_to_fr", {}, "book : "),
        ("translation", {"src_lang": "en", "tgt_lang": "fr"}, "book : "),
        ("translation", {}, "look : "),
    ],
)
def test_the_tasks_prefix_goes_in_front(folders, task, options, prefix):
    model = AutoModelForSeq2SeqLM.from_pretrained(folders["t5"])
    specific = {
        "summarization": {"prefix": "good morning : "},
        "translation_en_to_de": {"prefix": "look : "},
        "translation_en_to_fr": {"prefix": "book : "},
    }
    model.config.task_specific_params = specific
    pipe = text2text_pipeline(model, task=task, device="cpu", max_new_tokens=5, **options)
    (expected,) = by_hand(folders["t5"], [prefix + TEXTS[1]], max_new_tokens=5)
    assert list(pipe(TEXTS[1])[0].values()) == [expected]
    assert specific["summarization"] == {"prefix": "good morning : "}


def test_a_translation_without_languages_is_the_models_first_pair_and_says_so(folders, caplog):
    model = AutoModelForSeq2SeqLM.from_pretrained(folders["t5"])
    assert text2text_pipeline(model, task="translation", device="cpu").task == "translation"
    assert "first pair" not in caplog.text
    model.config.task_specific_params = {"summarization": {}, "translation_en_to_de": {}, "translation_en_to_fr": {}}
    assert text2text_pipeline(model, task="translation", device="cpu").task == "translation_en_to_de"
    assert "'translation_en_to_de', the model's first pair" in caplog.text
    named = text2text_pipeline(model, task="translation", device="cpu", src_lang="en", tgt_lang="fr")
    assert named.task == "translation"


def test_the_configs_own_prefix_serves_where_the_task_has_none(folders):
    model = AutoModelForSeq2SeqLM.from_pretrained(folders["t5"])
    model.config.prefix = "look : "
    pipe = text2text_pipeline(model, device="cpu", max_new_tokens=5)
    assert pipe(TEXTS[1])[0]["generated_text"] == by_hand(folders["t5"], ["look : " + TEXTS[1]], max_new_tokens=5)[0]


def test_truncation_only_when_asked_for(t5, folders):
    long = " ".join(TEXTS) * 4
    tokenizer = AutoTokenizer.from_pretrained(folders["t5"])
    tokenizer.model_max_length = 16
    pipe = text2text_pipeline(folders["t5"], tokenizer=tokenizer, device="cpu", max_new_tokens=6)
    words = " ".join(tokenizer.tokenize(long)[:15])  # the end of the text takes the sixteenth place
    assert pipe(long, truncation=True) == t5(words)
    assert pipe(long) == t5(long)
    assert pipe(long) != pipe(long, truncation=True)


def test_spaces_are_cleaned_up_as_decode_does(folders):
    tokenizer = AutoTokenizer.from_pretrained(folders["t5"])
    ids = tokenizer("good morning , moon .", return_tensors="pt")["input_ids"]
    pipe = text2text_pipeline(folders["t5"], device="cpu")
    for given in (None, True, False):
        expected = tokenizer.decode(ids[0], skip_special_tokens=True, clean_up_tokenization_spaces=given)
        (record,) = pipe.postprocess({"output_ids": ids[None]}, clean_up_tokenization_spaces=given)
        assert record == {"generated_text": expected}
    assert pipe.postprocess({"output_ids": ids[None]}, clean_up_tokenization_spaces=True) != pipe.postprocess(
        {"output_ids": ids[None]}, clean_up_tokenization_spaces=False
    )


def test_a_stop_sequence_ends_the_output(t5, caplog):
    whole = t5(TEXTS[0], max_new_tokens=12)[0]["generated_text"].split()
    stop = whole[2]
    stopped = t5(TEXTS[0], max_new_tokens=12, stop_sequence=stop)[0]["generated_text"].split()
    assert stopped == whole[: whole.index(stop) + 1]
    with caplog.at_level(logging.WARNING):
        t5(TEXTS[0], stop_sequence="good morning")
        t5(TEXTS[1], stop_sequence="good morning")
    assert [record.message for record in caplog.records] == [
        "Of stop_sequence 'good morning' only the first of 2 tokens counts."
    ]
    with pytest.raises(InputError, match="at least one token"):
        t5(TEXTS[0], stop_sequence="")


@pytest.mark.parametrize(
    ("task", "settings", "message"),
    [
        ("summarization", {"max_new_tokens": 60}, "A summary may have up to 60 tokens"),
        ("summarization", {"max_length": 60}, "lower max_new_tokens, for example to"),
        ("translation", {"max_new_tokens": 4}, "a translation may have only 4"),
        ("text2text-generation", {"max_new_tokens": 60}, None),
        ("summarization", {"max_new_tokens": 3}, None),
        ("translation", {"max_new_tokens": 60}, None),
    ],
)
def test_lengths_that_look_wrong_are_said_once(folders, caplog, task, settings, message):
    pipe = text2text_pipeline(folders["t5"], task=task, device="cpu", **settings)
    with caplog.at_level(logging.WARNING, logger="trl_rewards_plugin"):
        pipe(TEXTS[2:4], stop_sequence=".")
        pipe(TEXTS[4])
    found = [record.message for record in caplog.records if record.name.startswith("trl_rewards_plugin")]
    assert len(found) == (0 if message is None else 1)
    assert message is None or message in found[0]


def test_a_least_length_above_the_most_is_said(folders, caplog):
    pipe = text2text_pipeline(folders["t5"], device="cpu")
    with caplog.at_level(logging.WARNING, logger="trl_rewards_plugin"):
        pipe.check_inputs(5, *pipe._limits({"min_length": 30, "max_new_tokens": 4}))
    assert "at least 30 tokens cannot fit into at most 4" in caplog.text


def test_a_multilingual_tokenizer_sets_the_languages(folders, monkeypatch):
    """mBART, M2M100 and NLLB tokenizers build their own inputs: source language in, first output token forced."""
    tokenizer = AutoTokenizer.from_pretrained(folders["bart"])
    forced = tokenizer.convert_tokens_to_ids("moon")
    asked = []

    def build(text, *, return_tensors, truncation, src_lang, tgt_lang):
        asked.append((src_lang, tgt_lang))
        encoded = tokenizer(text, return_tensors=return_tensors, truncation=truncation)
        encoded["forced_bos_token_id"] = forced
        return encoded

    monkeypatch.setattr(tokenizer, "_build_translation_inputs", build, raising=False)
    pipe = text2text_pipeline(
        folders["bart"], tokenizer=tokenizer, task="translation_en_to_fr", device="cpu", max_new_tokens=5
    )
    records = pipe(TEXTS[:3], batch_size=3)
    assert all(record["translation_text"].startswith("moon") for record in records)
    pipe(TEXTS[0], src_lang="de", tgt_lang="nl")
    assert asked == [("en", "fr")] * 3 + [("de", "nl")]


@pytest.mark.parametrize("given", [None, 3, {"text": "a"}, [{"role": "user", "content": "a"}], [["a", "b"]]])
def test_inputs_other_than_texts_are_refused(t5, given):
    with pytest.raises(InputError, match="a text, or a list, torch Dataset or generator of texts"):
        t5(given)


def test_a_data_set_with_columns_is_refused_with_what_to_pass(t5):
    with pytest.raises(InputError, match=r"pipe\(dataset\['text'\]\)"):
        t5(Dataset.from_dict({"text": TEXTS}))


def test_a_missing_model_is_refused_with_what_is_there(folders):
    missing = f"{folders['t5']}x"
    with pytest.raises(InputError, match="did you mean") as caught:
        text2text_pipeline(missing)
    assert missing in caught.value.found


def test_a_missing_tokenizer_is_refused_like_a_missing_model(folders):
    for name in ("tokenizer.json", f"{folders['t5']}x"):
        with pytest.raises(InputError, match=r"a folder with a tokenizer[\s\S]*no such file"):
            text2text_pipeline(folders["t5"], tokenizer=name)


def test_a_model_saved_without_its_tokenizer_is_refused(folders, tmp_path):
    AutoModelForSeq2SeqLM.from_pretrained(folders["bart"]).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="a tokenizer beside the model"):
        text2text_pipeline(str(tmp_path))
    with pytest.raises(InputError, match="a tokenizer beside the model"):
        load_policy(str(tmp_path), None)
    AutoTokenizer.from_pretrained(folders["bart"]).save_pretrained(tmp_path)
    assert load_policy(str(tmp_path), None)[1].vocab_size == text2text_pipeline(str(tmp_path)).tokenizer.vocab_size


def test_a_bundled_model_goes_by_its_name(folders):
    assert text2text_pipeline("bundled:tiny-t5").tokenizer.name_or_path.endswith("tiny-t5")
    assert text2text_pipeline(folders["t5"], tokenizer="bundled:tiny-t5").tokenizer.name_or_path.endswith("tiny-t5")


def test_refusals_of_models_and_tasks(folders):
    encoder = BertModel(BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8))
    with pytest.raises(InputError, match="an encoder-decoder model"):
        text2text_pipeline(encoder, tokenizer=folders["t5"])
    nameless = AutoModelForSeq2SeqLM.from_config(transformers.AutoConfig.from_pretrained(folders["t5"]))
    nameless.config.name_or_path = ""
    with pytest.raises(InputError, match="a tokenizer beside"):
        text2text_pipeline(nameless)
    for task in ("sumarization", "translation_en", "text-generation"):
        with pytest.raises(InputError, match=task):
            text2text_pipeline(folders["t5"], task=task)
        with pytest.raises(InputError, match=task):
            register(task)
    assert set(TASKS) <= set(REMOVED_TASKS)


@pytest.mark.filterwarnings("ignore:Using the model-agnostic default:UserWarning")
def test_evaluates_own_evaluator_works_again(registered, folders, evaluate_cache):
    import evaluate

    from trl_rewards_plugin.metrics import GRAMMATICALITY

    rows = Dataset.from_dict({"text": TEXTS[:3], "label": TEXTS[:3]})
    results = evaluate.evaluator("summarization").compute(
        model_or_pipeline=folders["t5"], data=rows, metric=evaluate.load(GRAMMATICALITY, "tiny")
    )
    assert len(results["scores"]) == 3


def test_the_classes_are_transformers_pipelines():
    for subclass in (SummarizationPipeline, TranslationPipeline):
        assert issubclass(subclass, Text2TextGenerationPipeline)
    assert issubclass(Text2TextGenerationPipeline, transformers.Pipeline)


def test_max_length_counts_where_the_model_has_max_new_tokens_of_its_own(folders):
    model = AutoModelForSeq2SeqLM.from_pretrained(folders["t5"])
    model.generation_config.max_new_tokens = 12

    def length(**settings):
        pipe = text2text_pipeline(model, task="summarization", device="cpu")
        ids = pipe(TEXTS[0], return_tensors=True, suppress_tokens=[1], **settings)[0]["summary_token_ids"]
        return len(ids)

    assert length() == 13
    assert length(max_length=8) == 8  # with the decoder's start, as generate counts it
    assert length(max_length=40) == 40


@pytest.mark.parametrize("own", [{"max_length": 40}, {"max_new_tokens": 48, "max_length": 30}, {"min_new_tokens": 2}])
def test_a_length_of_the_call_replaces_the_models_without_a_warning(folders, own, caplog):
    model = AutoModelForSeq2SeqLM.from_pretrained(folders["t5"])
    model.generation_config.update(**own)
    pipe = text2text_pipeline(model, device="cpu", suppress_tokens=[1], return_tensors=True)
    caplog.clear()  # of what loading says
    with caplog.at_level(logging.WARNING), warnings.catch_warnings():
        warnings.simplefilter("error")
        for settings, length in (({"max_new_tokens": 8}, 9), ({"max_length": 8, "min_length": 3}, 8)):
            assert len(pipe(TEXTS[0], **settings)[0]["generated_token_ids"]) == length
    assert [record.message for record in caplog.records] == []


@pytest.mark.parametrize("frozen", [False, True])  # a frozen table may be a computed one, and is tried
def test_a_text_longer_than_the_models_positions_is_refused_with_the_way_out(folders, frozen):
    model = AutoModelForSeq2SeqLM.from_pretrained(folders["bart"]).requires_grad_(not frozen)
    pipe = text2text_pipeline(model, device="cpu", max_new_tokens=2)
    long = " ".join(TEXTS) * (1 + model.config.max_position_embeddings // 10)
    with pytest.raises(InputError, match=r"positions[\s\S]* a text of \d+ tokens[\s\S]*truncation=True") as caught:
        pipe(long)
    assert caught.value.__context__ is None or caught.value.__suppress_context__  # no traceback of two errors
    assert ("out of range" in str(caught.value)) is frozen


def test_what_is_no_text_is_a_type_error_as_it_was(t5):
    with pytest.raises(TypeError, match="a text, or a list"):
        t5(4)
