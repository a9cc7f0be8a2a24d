"""ClassifierReward: one Hugging Face text classifier, one label, as a reward function; needs torch once built."""

from typing import TYPE_CHECKING, Any

from trl_rewards_plugin.assets import is_bundled
from trl_rewards_plugin.errors import InputError, is_out_of_memory
from trl_rewards_plugin.rewards.base import Reward, named_failure
from trl_rewards_plugin.rewards.inference import classifier_rules
from trl_rewards_plugin.rewards.texts import as_texts, called_on, paired_texts, shortened

if TYPE_CHECKING:
    from torch import Tensor


class ClassifierReward(Reward):
    """Score of one label of a text classifier, for TRL's GRPO and RLOO and for our PPO.

    ```python
    reward = ClassifierReward("textattack/roberta-base-CoLA", label="LABEL_1", name="acceptability")
    reward(["The cat sleeps."])  # [2.9], about
    ```

    Only the model's config is read when it is built; tokenizer and weights are loaded on first use. It is pickled
    without the weights and can be called from several threads.

    Args:
        model: Hub id, folder, or a loaded `PreTrainedModel`, which is used where and as it is, in eval mode. A
            PEFT adapter's id or folder is its base model with the adapter merged in.
        label: The label whose score is the reward: its name in the model's config, or its index.
        name: Of letters, digits, `_`, `-`, `.`; by default `<last part of the model's name>_<label>`.
        tokenizer: Name or object; by default the model's own. Required with a loaded model.
        score_type: "logit" (raw), "probability" or "log_probability" (nats). Probabilities are a softmax, or a
            sigmoid where `problem_type` says multi-label or the model has a single label.
        pair: None scores the completion alone, "prompt" the sentence pair (prompt, completion).
        batch_size: Texts in a forward pass; None forms batches of at most 16,384 padded tokens, 768 on a CPU.
            Where either is too large for the memory, the batch is halved, and stays so.
        max_length: Tokens read of a text or pair, the rest is cut off; None is what the model's positions and its
            tokenizer allow, at most 512.
        device: None is this process's own device.
        dtype: None is float32. A `torch.dtype` or its name; "bfloat16" and "float16" halve the weights and run under
            autocast, at scores that differ in the second or third digit.
        revision: Branch, tag or commit of a Hub model.
        offload: Where the weights go after each scoring, so that several rewards need the memory of one: None leaves
            them, "cpu" moves them from the accelerator to the CPU's memory, "disk" drops them, to be loaded again.
        trust_remote_code: Runs the code that a Hub model or folder brings along; without it such a model is refused.

    Attributes:
        model_id: The model's Hub id or folder; `revision` likewise, as it was given.
        is_named: Whether model and tokenizer were given by name, so that a reward file can name them.

    Raises:
        InputError: an unknown label, score type or pair, a value out of range, or a model without readable config.
    """

    def __init__(
        self,
        model: Any,
        *,
        label: str | int,
        name: str | None = None,
        tokenizer: Any = None,
        score_type: str = "logit",
        pair: str | None = None,
        batch_size: int | None = None,
        max_length: int | None = None,
        device: Any = None,
        dtype: Any = None,
        revision: str | None = None,
        offload: str | None = None,
        trust_remote_code: bool = False,
    ):
        classifier_rules.check_arguments(score_type, pair, batch_size, max_length, offload)
        from trl_rewards_plugin.rewards.inference.shared_classifier import SharedClassifier

        self._classifier = SharedClassifier(model, tokenizer, revision, device, dtype, offload, trust_remote_code)
        config, named = self._classifier.config, self._classifier.named
        self.model_id, self.revision, self.is_named = named.name, named.revision, self._classifier.is_named
        shown = model if is_bundled(model) else self.model_id
        self._index = classifier_rules.label_index(config, shown, label, score_type, max_length)
        self._independent = classifier_rules.is_independent(config)
        self.label: str = config.id2label[self._index]
        self.score_type, self.pair, self.batch_size, self.max_length = score_type, pair, batch_size, max_length
        super().__init__(classifier_rules.default_name(self.model_id, self.label) if name is None else name)

    @property
    def model(self) -> Any:
        """The `PreTrainedModel`, in eval mode; loaded on first use."""
        return self._classifier.load()[0]

    @property
    def tokenizer(self) -> Any:
        """Loaded on first use."""
        return self._classifier.load()[1]

    @property
    def forward_key(self) -> tuple[Any, ...]:
        """Equal for two rewards that read their scores off the same logits."""
        return self._classifier.key, self.pair, self.max_length, self.batch_size

    def share(self, same_model: "ClassifierReward", first: "ClassifierReward") -> None:
        """From now on uses the loaded copy of `same_model`, and takes token ids from `first` where these agree."""
        from trl_rewards_plugin.rewards.inference.forward import EncodingMemo

        if self._classifier.key == same_model._classifier.key:
            self._classifier = same_model._classifier
        first._classifier.memo = self._classifier.memo = first._classifier.memo or EncodingMemo()

    def place(self, device: Any) -> None:
        """Runs on `device` from now on, with all that share the model; InputError for a model passed in loaded."""
        self._classifier.place(device)

    def logits(self, texts: list[str], prompts: list[str] | None) -> "Tensor":
        """The model's raw outputs for N texts: (N, L) float32 on the CPU, L labels.

        InputError for pairs without prompts; RuntimeError if the classifier fails, but OSError and OOM pass unchanged.
        """
        if self.pair is None:
            prompts = None
        elif prompts is None:
            expected = f"prompts, since reward {self.name!r} scores (prompt, completion) pairs"
            step = "pass prompts=, one for each completion, or build the reward without pair='prompt'"
            raise InputError(expected, "completions alone", step)
        try:
            return self._classifier.logits(texts, prompts, self.max_length, self.batch_size)
        except OSError:  # of loading, which names the model itself
            raise
        except Exception as error:
            if is_out_of_memory(error):  # stays what it is: trainers and launchers know it
                error.add_note(f"reward {self.name!r}: {called_on(texts)}")
                raise
            with named_failure(self.name, texts):
                raise

    def pick(self, logits: "Tensor", texts: list[str]) -> "Tensor":
        """(N, L) raw outputs -> this reward's score (N,); RuntimeError for NaN or infinity, which must not train."""
        scores = classifier_rules.label_score(logits, self._index, self.score_type, self._independent)
        if broken := (~scores.isfinite()).nonzero().flatten().tolist():
            found = f"{scores[broken[0]].item()} for {len(broken)} of {len(texts)} texts"
            where = f"first for {shortened(texts[broken[0]])}"
            raise RuntimeError(f"reward {self.name!r} ({self.model_id}) gave {found}, {where}")
        return scores

    def _own_scores(self, completions: Any, prompts: Any, columns: dict[str, Any]) -> "Tensor":
        plain = as_texts(completions)
        return self.pick(self.logits(plain, paired_texts(prompts, plain)), plain)

    def entry(self) -> dict[str, Any]:
        classifier = self._classifier
        entry: dict[str, Any] = {"name": self.name, "model": self.model_id}
        entry |= {key: getattr(self, key) for key in ("label", "score_type", "revision", "pair")}
        entry |= {"tokenizer": classifier.tokenizer_name, "max_length": self.max_length}
        entry["dtype"] = None if classifier.dtype is None else str(classifier.dtype).removeprefix("torch.")
        entry["trust_remote_code"] = classifier.named.trust_remote_code or None
        return {key: value for key, value in entry.items() if value is not None}
