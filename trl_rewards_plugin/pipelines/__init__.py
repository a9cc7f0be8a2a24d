"""Text2text generation, summarization and translation as transformers pipelines, which transformers 5 took away.

`text2text_pipeline(model)` builds one at once; `register()` brings back `pipeline("summarization", model=...)` and its
two sisters until `unregister()`. Importing this module changes nothing. Leaves out: the classes (`text2text.py`).
"""

from typing import Any

import transformers.pipelines as hf_pipelines
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from trl_rewards_plugin.assets import resolve
from trl_rewards_plugin.errors import InputError, check_choice
from trl_rewards_plugin.pipelines.text2text import (
    PAIR,
    SummarizationPipeline,
    Text2TextGenerationPipeline,
    TranslationPipeline,
)
from trl_rewards_plugin.places import check_model_name, check_tokenizer_files, what_to_do

_CLASSES: dict[str, type[Text2TextGenerationPipeline]] = {
    "text2text-generation": Text2TextGenerationPipeline,
    "summarization": SummarizationPipeline,
    "translation": TranslationPipeline,
}
# The pairs of T5's task-specific parameters. transformers 5 looks tasks up by their exact name.
_T5_PAIRS = ("translation_en_to_de", "translation_en_to_fr", "translation_en_to_ro")
# transformers 4's defaults where no model is named; the other tasks had none, and raised.
_T5 = ("google-t5/t5-base", "a9723ea")
_DEFAULT_MODELS = {"summarization": ("sshleifer/distilbart-cnn-12-6", "a4f8f3e"), "text2text-generation": _T5}
_DEFAULT_MODELS |= dict.fromkeys(_T5_PAIRS, _T5)

_taken_off: dict[str, str] = {}  # what `register` took off transformers' table of removed tasks, for `unregister`


def text2text_pipeline(
    model: Any,
    *,
    task: str = "text2text-generation",
    tokenizer: Any = None,
    dtype: Any = "auto",
    revision: str | None = None,
    token: str | bool | None = None,
    trust_remote_code: bool = False,
    model_kwargs: dict[str, Any] | None = None,
    **kwargs: Any,
) -> Any:
    """A pipeline for an encoder-decoder; transformers' registry is not touched.

    Args:
        model: Hub id, folder, "bundled:NAME", or a loaded model.
        task: "text2text-generation", "summarization", "translation" or "translation_XX_to_YY".
        tokenizer: Name or object; by default the model's own. Required with a loaded model that does not say where it
            was loaded from.
        dtype, revision, token, trust_remote_code, model_kwargs: Of the model's `from_pretrained`. "auto" is the dtype
            that the checkpoint was saved in.
        **kwargs: `device`, `batch_size`, and arguments of every call: see `Text2TextGenerationPipeline`.

    Raises:
        InputError: an unknown task, a model that is not there or no encoder-decoder, or a loaded model without a
            tokenizer.
    """
    pipeline_class = _class_of(task)
    source = {"revision": revision, "token": token, "trust_remote_code": trust_remote_code}
    name = resolve(str(model)) if not hasattr(model, "config") else model.config.name_or_path
    if not hasattr(model, "config"):
        expected = "a folder with an encoder-decoder, or the id of one on the Hub"
        model = _load(AutoModelForSeq2SeqLM, name, expected, **{"dtype": dtype, **source, **(model_kwargs or {})})
    if tokenizer is None and not name:
        expected = "a tokenizer beside a model that was not loaded by name"
        raise InputError(expected, "the model alone", "pass tokenizer=")
    if tokenizer is None or isinstance(tokenizer, str):
        expected = "a folder with a tokenizer, or the id of one on the Hub"
        name = resolve(tokenizer) or name
        check_tokenizer_files(name)
        tokenizer = _load(AutoTokenizer, name, expected, **source)
    return pipeline_class(model, tokenizer=tokenizer, task=task, **kwargs)


def _load(auto_class: Any, name: str, expected: str, **options: Any) -> Any:
    check_model_name(name, expected)
    try:
        return auto_class.from_pretrained(name, **options)
    except OSError as error:
        found = f"{name!r}: {str(error).splitlines()[0]}"
        raise InputError(expected, found, what_to_do(error, "check the spelling", name)) from error


def register(*tasks: str) -> None:
    """Brings back `pipeline(task, model=...)` for text2text-generation, summarization and translation.

    Args:
        *tasks: Further names of the form `translation_XX_to_YY`: transformers 5 looks a task up by its exact name.
            T5's pairs (English to German, French and Romanian) are there without being named.

    Raises:
        InputError: a name of another form, or a task that someone else has registered. Nothing is changed then.
    """
    classes = {task: _class_of(task) for task in (*_CLASSES, *_T5_PAIRS, *tasks)}
    registry = hf_pipelines.PIPELINE_REGISTRY
    for task, pipeline_class in classes.items():
        if task in registry.supported_tasks and registry.supported_tasks[task]["impl"] is not pipeline_class:
            found = registry.supported_tasks[task]["impl"]
            raise InputError(f"the task {task!r} free to register", f"registered for {found}", "keep that one")
    for task, pipeline_class in classes.items():
        if task in registry.supported_tasks:
            continue
        registry.register_pipeline(task, pipeline_class, pt_model=AutoModelForSeq2SeqLM, type="text")
        model = _DEFAULT_MODELS.get(task)
        registry.supported_tasks[task]["default"] = {} if model is None else {"model": model}
        # Else a copy of this file is saved as custom code beside every pipeline's model.
        del pipeline_class._registered_impl
    removed = hf_pipelines.REMOVED_TASKS
    _taken_off.update({task: removed.pop(task) for task in _CLASSES if task in removed})


def unregister() -> None:
    """Takes back what `register` did."""
    supported = hf_pipelines.PIPELINE_REGISTRY.supported_tasks
    for task in [task for task, entry in supported.items() if entry["impl"] in _CLASSES.values()]:
        del supported[task]
    hf_pipelines.REMOVED_TASKS.update(_taken_off)
    _taken_off.clear()


def _class_of(task: str) -> type[Text2TextGenerationPipeline]:
    if PAIR.fullmatch(task):
        return TranslationPipeline
    check_choice("task", task, _CLASSES, "use one of these, or translation_XX_to_YY")
    return _CLASSES[task]
