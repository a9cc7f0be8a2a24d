"""The pipeline classes for encoder-decoders that transformers 5 took away, on transformers' own `Pipeline`.

Arguments and outputs are those of transformers 4, up to 4.46: without generation defaults of their own, so that a
pipeline says what `generate` says. Leaves out: chats, building and registering (`__init__.py`).
"""

import logging
import re
from collections.abc import Sequence
from typing import Any

from torch.nn import Embedding
from transformers import Pipeline

from trl_rewards_plugin.errors import InputError

logger = logging.getLogger(__name__)

PAIR = re.compile(r"translation_(?P<src>[^_]+)_to_(?P<tgt>[^_]+)")


class NotATextError(InputError, TypeError):
    """Refused input of a wrong type; a TypeError too, as transformers 4 raised it."""


class Text2TextGenerationPipeline(Pipeline):
    """Texts in, an encoder-decoder's texts out.

    ```python
    pipe = text2text_pipeline("google/flan-t5-small")
    pipe("Translate to German: My name is Wolfgang.", max_new_tokens=20)  # [{"generated_text": "..."}]
    ```

    A call takes one text, a list (or tuple, or column of a data set), a torch `Dataset` or a generator of texts. One
    text gives a list with one dict for each of its `num_return_sequences` outputs; a list of texts a list of dicts, or
    a list of such lists where each text has several outputs; a `Dataset` or generator an iterator over lists. A dict
    has `generated_text` and, if asked for, `generated_token_ids` (`summary_...`, `translation_...` in subclasses).

    Arguments of a call, or for all calls when the pipeline is built:

    - `return_text`: with the text; True, unless `return_tensors` asks for token ids instead. `return_tensors`: with
      the token ids, a tensor (T,) padded to the longest output of its batch.
    - `clean_up_tokenization_spaces`: as in `tokenizer.decode`; None is the tokenizer's own setting.
    - `truncation`: cut inputs to the tokenizer's `model_max_length`; False by default, as in transformers 4.
    - `stop_sequence`: a text whose first token ends the output.
    - `batch_size`, `num_workers`: as in every pipeline.
    - anything else goes to `model.generate`, over the model's task-specific parameters, over its generation config. A
      whole `generation_config` replaces the task-specific parameters.

    The prefix of `config.task_specific_params[task]`, else `config.prefix`, is put in front of each text.

    Raises:
        InputError: a model that is no encoder-decoder, an input that is no text, or an output without text and ids.
    """

    # Everything that generate takes is handled here: transformers' own way changed between releases.
    _pipeline_calls_generate = False
    _load_processor = False
    _load_image_processor = False
    _load_feature_extractor = False
    _load_tokenizer = True

    return_name = "generated"

    def __init__(self, model: Any, *args: Any, task: str = "text2text-generation", **kwargs: Any):
        if not model.config.is_encoder_decoder:
            step = "use transformers' own pipeline('text-generation', model=...)"
            raise InputError("an encoder-decoder model", f"{type(model).__name__}, which is not one", step)
        config = model.config
        specific = (getattr(config, "task_specific_params", None) or {}).get(self._params_key(task, kwargs)) or {}
        self.prefix = specific.get("prefix", getattr(config, "prefix", None)) or ""
        self._task_params = {key: value for key, value in specific.items() if key != "prefix"}
        self._said: set[str] = set()
        super().__init__(model, *args, task=task, **kwargs)

    def _params_key(self, task: str, kwargs: dict[str, Any]) -> str:
        return task

    def _sanitize_parameters(
        self,
        return_tensors: bool | None = None,
        return_text: bool | None = None,
        clean_up_tokenization_spaces: bool | None = None,
        truncation: Any = None,
        stop_sequence: str | None = None,
        **generate_kwargs: Any,
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        # A call's dictionaries are merged over those of the constructor: they hold what was given, and no more.
        preprocess = {} if truncation is None else {"truncation": truncation}
        postprocess = {
            "return_tensors": return_tensors,
            "return_text": return_text,
            "clean_up_tokenization_spaces": clean_up_tokenization_spaces,
        }
        if stop_sequence is not None:
            generate_kwargs["eos_token_id"] = self._first_token(stop_sequence)
        return preprocess, generate_kwargs, {key: value for key, value in postprocess.items() if value is not None}

    def _first_token(self, stop_sequence: str) -> int:
        ids = self.tokenizer.encode(stop_sequence, add_special_tokens=False)
        if not ids:
            raise InputError("a stop_sequence of at least one token", repr(stop_sequence), "leave it out")
        if len(ids) > 1:
            self._say_once(f"Of stop_sequence {stop_sequence!r} only the first of {len(ids)} tokens counts.")
        return int(ids[0])

    def __call__(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        # Columns of data sets and tuples are sequences that transformers would pass on whole.
        if isinstance(inputs, Sequence) and not isinstance(inputs, str):
            inputs = list(inputs)
            if not inputs:
                return []
        results = super().__call__(inputs, *args, **kwargs)
        if isinstance(inputs, list) and all(len(records) == 1 for records in results):
            return [records[0] for records in results]
        return results

    def preprocess(self, inputs: Any, truncation: Any = False, **languages: Any) -> Any:
        """One text to the encoder's inputs, each (1, S)."""
        if not isinstance(inputs, str):
            found = f"{type(inputs).__name__} {str(inputs)[:80]!r}"
            step = "for a data set with columns pass one of them: pipe(dataset['text'])"
            raise NotATextError("a text, or a list, torch Dataset or generator of texts", found, step)
        return self._tokenize(inputs, truncation, **languages)

    def _tokenize(self, text: str, truncation: Any) -> Any:
        encoded = self.tokenizer(self.prefix + text, truncation=truncation, return_tensors="pt")
        # Some tokenizers make them, and no encoder-decoder's generate takes them.
        encoded.pop("token_type_ids", None)
        return encoded

    def _forward(self, model_inputs: Any, **generate_kwargs: Any) -> dict[str, Any]:
        """(B, S) inputs to output ids (B, num_return_sequences, T)."""
        settings = self._settings(generate_kwargs)
        batch, input_length = model_inputs["input_ids"].shape
        self.check_inputs(input_length, *self._limits(settings))
        # transformers' batching makes a list of what is no tensor: the target language, which is the same for all.
        inputs = {key: value[0] if isinstance(value, list) else value for key, value in model_inputs.items()}
        room = _learned_positions(self.model)
        if room is not None and input_length > room:
            raise _too_long(f"a text of {input_length:,} tokens", room)
        try:
            output = self.model.generate(**inputs, **settings)
        except IndexError as error:
            raise _too_long(f"a text of {input_length:,} tokens, and {error}") from None
        ids = getattr(output, "sequences", output)
        return {"output_ids": ids.reshape(batch, -1, ids.shape[-1])}

    def _settings(self, given: dict[str, Any]) -> dict[str, Any]:
        """What goes to `generate`, beside the inputs."""
        if "generation_config" in given:
            return given
        own: dict[str, Any] = dict(self._task_params)
        for one, other in (("max_new_tokens", "max_length"), ("min_new_tokens", "min_length")):
            # The user's one counts: generate would warn of the model's or task's other one, or follow it.
            for asked, silenced in ((one, other), (other, one)):
                if given.get(asked) is not None and given.get(silenced) is None:
                    own[silenced] = None
        if self.model.generation_config.pad_token_id is None and self.tokenizer.pad_token_id is not None:
            own["pad_token_id"] = self.tokenizer.pad_token_id
        return {**own, **given}

    def _limits(self, settings: dict[str, Any]) -> tuple[int, int | None]:
        """Least and most tokens of an output; None where nothing sets a most."""
        config = settings.get("generation_config") or self.model.generation_config
        found = {}
        for end in ("min", "max"):
            names = (f"{end}_new_tokens", f"{end}_length")
            values = [*(settings.get(name) for name in names), *(getattr(config, name) for name in names)]
            found[end] = next((value for value in values if value is not None), None)
        return found["min"] or 0, found["max"]

    def check_inputs(self, input_length: int, min_length: int, max_length: int | None) -> None:
        """Says, once in a pipeline's life, where lengths do not go together."""
        if max_length is not None and max_length < min_length:
            self._say_once(f"Outputs of at least {min_length} tokens cannot fit into at most {max_length}.")

    def _say_once(self, message: str) -> None:
        kind = re.sub(r"\d+", "#", message)
        if kind not in self._said:
            self._said.add(kind)
            logger.warning(message)

    def postprocess(
        self,
        model_outputs: dict[str, Any],
        return_tensors: bool = False,
        return_text: bool | None = None,
        clean_up_tokenization_spaces: bool | None = None,
    ) -> list[dict[str, Any]]:
        """Output ids (1, R, T) to R dicts."""
        with_text = not return_tensors if return_text is None else return_text
        if not (with_text or return_tensors):
            step = "leave return_text out, or set return_tensors=True"
            raise InputError("an output with text or token ids", "return_text=False alone", step)
        records = []
        for ids in model_outputs["output_ids"][0]:
            record: dict[str, Any] = {}
            if with_text:
                record[f"{self.return_name}_text"] = self.tokenizer.decode(
                    ids, skip_special_tokens=True, clean_up_tokenization_spaces=clean_up_tokenization_spaces
                )
            if return_tensors:
                record[f"{self.return_name}_token_ids"] = ids
            records.append(record)
        return records


def _learned_positions(model: Any) -> int | None:
    """Most tokens that the encoder reads; None unless it has a table of learned positions: computed ones may grow."""
    table = getattr(model.get_encoder(), "embed_positions", None)
    if not isinstance(table, Embedding) or not table.weight.requires_grad:
        return None
    return table.num_embeddings - int(getattr(table, "offset", 0))


def _too_long(found: str, room: int | None = None) -> InputError:
    expected = "texts that fit into the model's positions" + (f", {room:,} tokens" if room else "")
    return InputError(expected, found, "pass truncation=True, which reads the beginning, or split the text")


class SummarizationPipeline(Text2TextGenerationPipeline):
    """Summaries, as `summary_text`. See `Text2TextGenerationPipeline`."""

    return_name = "summary"

    def check_inputs(self, input_length: int, min_length: int, max_length: int | None) -> None:
        super().check_inputs(input_length, min_length, max_length)
        if max_length is not None and input_length < max_length:
            found = f"A summary may have up to {max_length} tokens, but an input has only {input_length}."
            step = f"lower max_new_tokens, for example to {max(1, input_length // 2)}"
            self._say_once(f"{found} Where shorter ones are wanted, {step}.")


class TranslationPipeline(Text2TextGenerationPipeline):
    """Translations, as `translation_text`. See `Text2TextGenerationPipeline`.

    Languages come from the task, `translation_XX_to_YY`, or as `src_lang` and `tgt_lang`; models for one pair need
    none. Given when the pipeline is built, they also choose T5's task-specific parameters, whose first pair the task
    "translation" stands for (T5: English to German), as in transformers 4; a log line says so.
    """

    return_name = "translation"

    def __init__(self, model: Any, *args: Any, task: str = "translation", **kwargs: Any):
        specific = getattr(model.config, "task_specific_params", None) or {}
        pair = next((key for key in specific if PAIR.fullmatch(key)), task)
        if task == "translation" != pair and not any(self._languages(task, kwargs)):
            logger.warning(f"The task 'translation' names no languages: taken for {pair!r}, the model's first pair.")
            task = pair
        super().__init__(model, *args, task=task, **kwargs)

    def _params_key(self, task: str, kwargs: dict[str, Any]) -> str:
        src, tgt = self._languages(task, kwargs)
        return f"translation_{src}_to_{tgt}" if src and tgt else task

    @staticmethod
    def _languages(task: str, kwargs: dict[str, Any]) -> tuple[str | None, str | None]:
        if kwargs.get("src_lang") is not None or kwargs.get("tgt_lang") is not None:
            return kwargs.get("src_lang"), kwargs.get("tgt_lang")
        pair = PAIR.fullmatch(task)
        return (pair["src"], pair["tgt"]) if pair else (None, None)

    def _sanitize_parameters(self, *args: Any, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        src, tgt = self._languages(self.task, kwargs)
        named = {"src_lang": src, "tgt_lang": tgt}
        kwargs = {key: value for key, value in kwargs.items() if key not in named}
        preprocess, forward, postprocess = super()._sanitize_parameters(*args, **kwargs)
        preprocess |= {key: value for key, value in named.items() if value is not None}
        return preprocess, forward, postprocess

    def _tokenize(self, text: str, truncation: Any, src_lang: str | None = None, tgt_lang: str | None = None) -> Any:
        # The multilingual tokenizers' own hook for this pipeline: it sets the languages' special tokens.
        build = getattr(self.tokenizer, "_build_translation_inputs", None)
        if build is None:
            return super()._tokenize(text, truncation)
        return build(text, return_tensors="pt", truncation=truncation, src_lang=src_lang, tgt_lang=tgt_lang)

    def check_inputs(self, input_length: int, min_length: int, max_length: int | None) -> None:
        super().check_inputs(input_length, min_length, max_length)
        if max_length is not None and input_length > 0.9 * max_length:
            found = f"An input has {input_length} tokens, and a translation may have only {max_length}."
            self._say_once(f"{found} Raise max_new_tokens if translations are cut off.")
