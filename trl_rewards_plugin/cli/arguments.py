"""The subcommands' own options, one dataclass each; their help is the flag's help. Leaves out: fields of PPO."""

# No `from __future__ import annotations` here: HfArgumentParser reads the types themselves.
from dataclasses import dataclass, field


@dataclass
class TrainArguments:
    """Which run `trl-rewards train` does."""

    preset: str = field(
        default="tiny",
        metadata={
            "help": "Named run: 'tiny' (bundled models, offline) or 'article' (FLAN-T5-small, from the Hub). "
            "The options below replace parts of it."
        },
    )
    model: str | None = field(
        default=None, metadata={"help": "Encoder-decoder to train: Hub id or folder. Unset: the preset's."}
    )
    reward: str | None = field(
        default=None, metadata={"help": "Reward: name of a reward preset, or a YAML file. Unset: the preset's."}
    )
    dataset: str | None = field(
        default=None,
        metadata={
            "help": "Prompts: Hub id, or a JSONL, JSON, CSV, parquet or text file. Unset: the preset's. Set: the "
            "preset's eval_dataset no longer applies."
        },
    )
    eval_dataset: str | None = field(
        default=None,
        metadata={
            "help": "Held-out prompts, likewise. Unset: the preset's, where dataset is its too; else a validation or "
            "test split (first 100 rows), else a tenth of the rows. The plan says which."
        },
    )
    text_column: str | None = field(default=None, metadata={"help": "Column of the texts. Unset: the preset's."})
    prompt_prefix: str | None = field(
        default=None, metadata={"help": "Put in front of every text. Unset: the preset's."}
    )
    dry_run: bool = field(
        default=False, metadata={"help": "Load everything, score four prompts, print the plan and stop."}
    )
    use_peft: bool = field(
        default=False, metadata={"help": "Train a LoRA adapter and leave the model's own weights as they are."}
    )
    lora_r: int = field(default=16, metadata={"help": "Rank of the adapter."})
    lora_alpha: int = field(default=32, metadata={"help": "Its scale: updates are multiplied by lora_alpha / lora_r."})
    lora_target_modules: list[str] | None = field(
        default=None, metadata={"help": "Matrices that get an adapter. Unset: peft's choice for the architecture."}
    )
    overwrite: bool = field(default=False, metadata={"help": "Give up a run that lies in output_dir."})
    push_to: str | None = field(
        default=None, metadata={"help": "Hub repository (owner/name) to upload the finished run to."}
    )
