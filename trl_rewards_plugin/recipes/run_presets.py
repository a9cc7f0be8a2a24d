"""Named runs: the model, reward, data and settings of `--preset NAME`. Leaves out: running them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any

from trl_rewards_plugin.errors import check_choice
from trl_rewards_plugin.ppo.maths.methods import OBJECTIVES
from trl_rewards_plugin.runs.public_names import public_name


@dataclass(frozen=True)
class Preset:
    """A named run: arguments of `Seq2SeqPPO`, and in `config` fields of `Seq2SeqPPOConfig`."""

    name: str
    model: str
    reward: str
    dataset: str
    config: Mapping[str, Any]
    license: str  # of the model, as the Hub writes it
    language: str  # of the texts, likewise
    eval_dataset: str | None = None
    text_column: str = "prompt"
    prompt_prefix: str = ""
    # What anyone can count in outputs of this model -> the regular expression that finds it.
    countable: Mapping[str, str] | None = None

    def settings_for(self, objective: str | None) -> Mapping[str, Any]:
        """`config` without what `objective` does not use, so that it need not be unset by whoever asks for it."""
        unused = OBJECTIVES[objective].unused if objective in OBJECTIVES else ()
        return {key: value for key, value in self.config.items() if key not in unused}


def _settings(**own: Any) -> Mapping[str, Any]:
    # The completions are for `trl-rewards report`; the progress bar has the screen.
    return MappingProxyType({"log_completions": True, "num_completions_to_print": 0, "seed": 0, **own})


_TINY = Preset(
    name="tiny",
    model="bundled:tiny-t5",
    reward="tiny",
    dataset="bundled:prompts/train.jsonl",
    eval_dataset="bundled:prompts/heldout.jsonl",
    config=_settings(
        num_train_epochs=3.2,  # 16 rollouts
        per_device_train_batch_size=64,
        per_device_eval_batch_size=96,
        num_ppo_epochs=2,
        num_mini_batches=2,
        learning_rate=1.5e-4,
        critic_learning_rate=3e-3,
        response_length=40,
        max_prompt_length=128,
        kl_coef=0.05,
        save_steps=10,
        save_total_limit=1,
    ),
    license="cc-by-sa-4.0",
    language="en",
    # The first is the flaw that the model was taught on purpose: assets/tiny-t5/README.md.
    countable=MappingProxyType(
        {
            "trail off with a stray like, so or well": r"\b(like|so|well)$",
            "end with . ! or ?": r"[.!?][\"')\]\u201d\u2019]*$",
        }
    ),
)

_ARTICLE = Preset(
    name="article",
    model="google/flan-t5-small",
    reward="article",
    dataset="argilla/news-summary",
    text_column="text",
    prompt_prefix="summarize: ",
    config=_settings(
        num_train_epochs=5.0,
        # A rollout of 8 prompts: small enough for a 20-row excerpt, and the article's own scale.
        per_device_train_batch_size=8,
        per_device_eval_batch_size=16,
        num_ppo_epochs=4,
        num_mini_batches=1,
        learning_rate=2e-5,
        response_length=64,
        max_prompt_length=512,
        save_steps=0.1,  # of the run
        save_total_limit=2,  # should the last one be damaged
    ),
    license="apache-2.0",
    language="en",
)

PRESETS: Mapping[str, Preset] = MappingProxyType({preset.name: preset for preset in (_TINY, _ARTICLE)})


def neutral_settings(model: str) -> dict[str, Any]:
    """The article's settings, prompts as long as `model` has positions; InputError for no such encoder-decoder."""
    from trl_rewards_plugin.ppo.architectures.limits import positions
    from trl_rewards_plugin.ppo.input_checks import check_seq2seq_model, read_model_config

    check_seq2seq_model(model)
    room = positions(SimpleNamespace(config=read_model_config(model))).encoder
    return {**_ARTICLE.config, **({"max_prompt_length": room} if room else {})}


def get_preset(name: str) -> Preset:
    """The preset called `name`; an unknown one is refused."""
    check_choice("preset", name, PRESETS, "use one of these, or give model, reward and dataset")
    return PRESETS[name]


def default_output_dir(name: str, seed: int | None) -> str:
    """`runs/<name>-seed<seed>`, of a preset or of a model that is given; the Trainer's default seed is 42."""
    return f"runs/{Path(public_name(name)).name}-seed{42 if seed is None else seed}"
