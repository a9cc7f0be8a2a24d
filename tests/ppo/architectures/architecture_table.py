"""Trains every architecture for one step and writes the table of what was found.

    python -m tests.ppo.architectures.architecture_table

puts it between the markers in docs/architectures.md; a test fails where the two differ. "Sampled = scored" is within
1e-4 nats a token, over a padded batch, its short prompts alone, in train mode, with the encoder run before, and by the
reference. "Reloaded" is the
saved model as `from_pretrained` and `generate` see it.
Leaves out: numbers, which would change from machine to machine; the test has the bounds.
"""

import dataclasses
import functools
import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoModelForSeq2SeqLM, PreTrainedModel, PreTrainedTokenizerFast

from tests.ppo.architectures.registry import ARCHITECTURES, Architecture
from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.ppo.architectures.limits import check_architecture
from trl_rewards_plugin.ppo.config import Seq2SeqPPOConfig
from trl_rewards_plugin.ppo.decoding import rules_for
from trl_rewards_plugin.ppo.policy.policy import teacher_forced
from trl_rewards_plugin.ppo.policy.sampling import encode_prompts, sample_responses
from trl_rewards_plugin.ppo.policy.token_rules import TokenRules, token_rules
from trl_rewards_plugin.ppo.policy.token_scores import token_scores
from trl_rewards_plugin.ppo.rollout import Rollout
from trl_rewards_plugin.ppo.trainer import Seq2SeqPPOTrainer

TABLE_FILE = Path(__file__).parents[3] / "docs" / "architectures.md"
BEGIN, END = "<!-- architectures: begin -->", "<!-- architectures: end -->"
PROMPT_LENGTHS = (1, 38, 5, 12, 27, 3, 20, 9)
TOLERANCE = 1e-4
SIDES = ("encoder", "decoder")
# The Trainer's name of gradient checkpointing since transformers 5.23, and the one before.
CHECKPOINTING = next(
    name
    for name in ("activation_checkpointing", "gradient_checkpointing")
    if name in Seq2SeqPPOConfig.__dataclass_fields__
)


@dataclass(frozen=True)
class Finding:
    """What one architecture did.

    Attributes:
        gap: largest difference of the sampler's log-probabilities from teacher forcing's, in nats.
        reference_gap: largest difference of the policy's from the reference's, before training.
        sensitivity: by how much the log-probabilities change with other prompts; no test has power without it.
        lengths: of the sampled responses.
        moved: by how much one update changed the log-probabilities.
        reload_gap: largest difference of what the saved and reloaded model samples with from what the trained policy
            says of it.
        generates: whether the reloaded model's own greedy `generate` writes what greedy sampling writes.
        config_changes: settings that the saved config holds otherwise than the one before.
        untied: whether input and output embeddings are two tensors, before and after.
        refused: which settings are refused.
    """

    gap: float
    reference_gap: float
    sensitivity: float
    lengths: tuple[int, ...]
    moved: float
    reload_gap: float
    generates: bool
    config_changes: dict
    untied: tuple[bool, bool]
    refused: tuple[str, ...]

    @property
    def trained(self) -> bool:
        """Whether one update moved the policy and the saved model is the trained one."""
        return self.moved > 1e-3 and self.reload_gap < TOLERANCE and self.generates


def tokenizer_for(model: PreTrainedModel) -> PreTrainedTokenizerFast:
    """The token 7 is the word w07."""
    rules = token_rules(model)
    names = [f"w{index:02}" for index in range(len(model.get_output_embeddings().weight))]
    tokenizer = Tokenizer(models.WordLevel({name: index for index, name in enumerate(names)}, unk_token=names[3]))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    eos = names[rules.eos_ids[0]]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {eos}", special_tokens=[(eos, rules.eos_ids[0])]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=names[rules.pad_id], eos_token=eos)


def prompts() -> list[str]:
    """Texts of unequal lengths."""
    generator = torch.Generator().manual_seed(0)
    drawn = [torch.randint(4, 33, (length,), generator=generator).tolist() for length in PROMPT_LENGTHS]
    return [" ".join(f"w{index:02}" for index in row) for row in drawn]


def settings(folder: Path, **changed) -> Seq2SeqPPOConfig:
    """One rollout of all prompts, two mini-batches on it."""
    given = {
        "per_device_train_batch_size": len(PROMPT_LENGTHS),
        "total_episodes": len(PROMPT_LENGTHS),
        "num_ppo_epochs": 1,
        "num_mini_batches": 2,
        "learning_rate": 1e-2,
        "response_length": 8,
        "max_prompt_length": 48,
        "report_to": "none",
        "disable_tqdm": True,
        "save_strategy": "no",
        "use_cpu": True,
        **changed,
    }
    return Seq2SeqPPOConfig(output_dir=str(folder), **given)


def variety(completions, **kwargs):
    """Share of different words."""
    return [len(set(text.split())) / max(len(text.split()), 1) for text in completions]


def difference(one: torch.Tensor, other: torch.Tensor, mask: torch.Tensor) -> float:
    return ((one - other).abs() * mask).max().item()


@torch.no_grad()
def scored(model: PreTrainedModel, part: Rollout, rules: TokenRules, *, encode_first: bool = False) -> torch.Tensor:
    """Log-probabilities of a rollout's responses by teacher forcing, in train mode as in the update."""
    model.train()
    prompts = encode_prompts(model, part.prompts) if encode_first else part.prompts
    weights, _ = teacher_forced(model, prompts, part.response_ids, rules)
    model.eval()
    return token_scores(weights, part.response_ids).logprobs


def is_untied(model: PreTrainedModel) -> bool:
    return model.get_input_embeddings().weight is not model.get_output_embeddings().weight


@torch.no_grad()
def generates(model: PreTrainedModel, rollout: Rollout, rules: TokenRules) -> bool:
    """Whether the model's own greedy `generate` writes what greedy sampling does; its forced EOS apart."""
    ours = sample_responses(model, rollout.prompts, rules, 8, greedy=True)
    theirs = model.generate(
        input_ids=rollout.prompt_ids,
        attention_mask=rollout.prompt_mask.long(),
        max_length=None,
        max_new_tokens=8 + len(rules.forced_ids),
        do_sample=False,
        num_beams=1,
        no_repeat_ngram_size=0,
        encoder_no_repeat_ngram_size=0,
        forced_eos_token_id=None,
        bad_words_ids=[[token] for token in rules.never] or None,
    )[:, len(rules.prefix) :]
    width = theirs.shape[1]
    return bool(((ours.ids[:, :width] == theirs) | ~ours.mask[:, :width]).all())


def is_refused(architecture: Architecture, change: Callable[[PreTrainedModel], None], **changed) -> bool:
    """Whether a changed model, or other settings, are refused."""
    model = architecture.build()
    change(model)
    args = settings(Path("unused"), **changed)
    try:
        check_architecture(model, args, rules_for(model, args))
    except InputError:
        return True
    return False


def _no_language(model: PreTrainedModel) -> None:
    model.generation_config.forced_bos_token_id = None


def _other_pad(model: PreTrainedModel) -> None:
    model.config.pad_token_id = 5


def _random_experts(model: PreTrainedModel) -> None:
    if hasattr(model.config, "second_expert_policy"):
        model.config.second_expert_policy = "random"


PROBES: dict[str, tuple[Callable[[PreTrainedModel], None], dict]] = {
    "no target language (`forced_bos_token_id` unset): the policy would have to guess it": (_no_language, {}),
    "prompts that reach its block-sparse attention, which differs in training": (
        lambda model: None,
        {"max_prompt_length": 2**20},
    ),
    '`second_expert_policy` other than "all", which draws experts at random': (_random_experts, {}),
    "a `pad_token_id` other than 0, from which its cache counts positions": (_other_pad, {}),
    "gradient checkpointing, since it is scored through its key-value cache": (
        lambda model: None,
        {CHECKPOINTING: True},
    ),
}


def changes(before: Path, after: Path) -> dict:
    """What two config files hold differently, by name; not what they say of each side, where loading adds a dtype."""
    old, new = (json.loads(file.read_text(encoding="utf-8")) for file in (before, after))
    return {
        name: (old.get(name), new.get(name))
        for name in old | new
        if name not in SIDES and old.get(name) != new.get(name)
    }


@functools.cache
def examine(architecture: Architecture) -> Finding:
    """Loads the architecture from a folder into the trainer, samples, scores, trains one step, saves and reloads."""
    torch.manual_seed(3)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = architecture.build()
        tokenizer, untied = tokenizer_for(model), is_untied(model)
        # A few more tokens end a response, so that some do.
        model.generation_config.eos_token_id = [*token_rules(model).eos_ids, *range(20, 32)]
        model.save_pretrained(folder / "start")
        trainer = Seq2SeqPPOTrainer(
            folder / "start",
            variety,
            settings(folder),
            train_dataset=Dataset.from_dict({"prompt": prompts()}),
            processing_class=tokenizer,
        )
        policy, rules = trainer.policy_model, trainer.rules
        rollout = trainer.collect(trainer.data_collator([{"prompt": prompt} for prompt in prompts()]))
        before = scored(policy, rollout, rules)
        short = rollout.select((rollout.prompt_mask.sum(1) < 15).nonzero()[:, 0])
        others = dataclasses.replace(
            rollout, prompt_ids=rollout.prompt_ids.roll(1, 0), prompt_mask=rollout.prompt_mask.roll(1, 0)
        )
        gap = max(
            difference(rollout.sampled_logprobs, rollout.logprobs, rollout.response_mask),
            difference(rollout.sampled_logprobs, before, rollout.response_mask),
            difference(before, scored(policy, rollout, rules, encode_first=True), rollout.response_mask),
            difference(short.sampled_logprobs, scored(policy, short, rules), short.response_mask),
        )
        trainer.train()
        trainer.save_model(folder / "end")
        reloaded = AutoModelForSeq2SeqLM.from_pretrained(folder / "end").eval()
        drawn = sample_responses(reloaded, rollout.prompts, rules, 8)
        weights, _ = teacher_forced(policy.eval(), rollout.prompts, drawn.ids, rules)
        return Finding(
            gap=gap,
            reference_gap=difference(rollout.logprobs, rollout.ref_logprobs, rollout.response_mask),
            sensitivity=difference(before, scored(policy, others, rules), rollout.response_mask),
            lengths=tuple(rollout.response_mask.sum(1).tolist()),
            moved=difference(before, scored(policy, rollout, rules), rollout.response_mask),
            reload_gap=difference(token_scores(weights, drawn.ids).logprobs, drawn.logprobs, drawn.mask),
            generates=generates(reloaded, rollout, token_rules(reloaded)),
            config_changes=changes(folder / "start" / "config.json", folder / "end" / "config.json"),
            untied=(untied, is_untied(reloaded)),
            refused=tuple(
                what for what, (change, changed) in PROBES.items() if is_refused(architecture, change, **changed)
            ),
        )


def table() -> str:
    """The Markdown table of all architectures."""
    lines = [
        "| Architecture | Example checkpoint | Sampled = scored | Trained, saved, reloaded | Handled | Refused |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for architecture in ARCHITECTURES:
        found = examine(architecture)
        same = "yes" if max(found.gap, found.reference_gap) < TOLERANCE else "no"
        cells = (
            f"`{architecture.name}`",
            f"`{architecture.checkpoint}`",
            same,
            "yes" if found.trained else "no",
            architecture.note,
            "; ".join(found.refused),
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines).replace("|  |", "| |").replace("|  |", "| |")


def written() -> str:
    """The table that the file holds."""
    return TABLE_FILE.read_text(encoding="utf-8").split(BEGIN)[1].split(END)[0].strip()


def write() -> None:
    """Puts the table into the file."""
    text = TABLE_FILE.read_text(encoding="utf-8")
    TABLE_FILE.write_text(text.replace(written(), table()), encoding="utf-8")


if __name__ == "__main__":
    write()
