"""What each of several processes does for test_two_processes.py; one process runs it too, to compare with.

    accelerate launch --config_file examples/accelerate/ddp.yaml -m tests.ppo.two_processes FOLDER

FOLDER holds `model` and the `rollout.pt` that one process stored; each process writes `rank<number>.pt` into it.
Leaves out: judging (test_two_processes.py).
"""

import dataclasses
import random
import sys
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoTokenizer, T5ForConditionalGeneration

from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.ppo.config import Seq2SeqPPOConfig
from trl_rewards_plugin.ppo.rollout import Rollout
from trl_rewards_plugin.ppo.trainer import Seq2SeqPPOTrainer
from trl_rewards_plugin.ppo.update import compute_advantages, compute_token_rewards

ROLLOUT = 16  # responses on all processes
SAMPLES = 2048  # responses on all processes, for the comparison in distribution
TEXTS = ["the cat", "a big dog eats old fish near the river .", "snow", "she reads a long book", "we go home now ."]


class Centred:
    """Share of vowels, less its running mean: each process has a state of its own."""

    __name__ = "centred"

    def __init__(self):
        self.count, self.mean = 0, 0.0

    def __call__(self, completions, **kwargs):
        shares = [sum(letter in "aeiou" for letter in text) / max(len(text), 1) for text in completions]
        for share in shares:
            self.count += 1
            self.mean += (share - self.mean) / self.count
        return [share - self.mean for share in shares]

    def state_dict(self):
        return {"count": self.count, "mean": self.mean}

    def load_state_dict(self, state):
        self.count, self.mean = state["count"], state["mean"]


class StoredRollout(Seq2SeqPPOTrainer):
    """Learns from this process's rows of a rollout that was stored, in place of what it would sample."""

    stored: Rollout

    def before_update(self, rollout):
        """Nothing: the stored reference is another model's on purpose."""

    def collect(self, inputs: dict[str, Any]) -> Rollout:
        process, processes = self.accelerator.process_index, self.accelerator.num_processes
        part = self.stored.select(torch.arange(len(self.stored)).chunk(processes)[process])
        if self.args.sft_coef:
            part = dataclasses.replace(part, target_ids=part.response_ids, target_mask=part.response_mask)
        reduce = self.framework(self.model_wrapped).reduce
        _, rewards = compute_token_rewards(part, self.args, self.kl_coef, reduce)
        targets = compute_advantages(part, rewards, self.args, reduce)
        self.advantages = [row[mask] for row, mask in zip(targets.advantages, part.response_mask, strict=True)]
        return part


def make_trainer(
    folder: Path, output_dir: str, processes: int, kind=Seq2SeqPPOTrainer, rows=48, model=None, **settings
):
    settings = {
        "per_device_train_batch_size": ROLLOUT // processes,
        "response_length": 6,
        "learning_rate": 1e-3,
        "num_ppo_epochs": 2,
        "num_mini_batches": 2,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
        "seed": 3,
        **settings,
    }
    data = Dataset.from_list([{"prompt": TEXTS[row % 5]} for row in range(rows)])
    args = Seq2SeqPPOConfig(output_dir=str(folder / output_dir), **settings)
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    model = model or str(folder / "model")
    return kind(model, Centred(), args, data, eval_dataset=data.select(range(7)), processing_class=tokenizer)


def weights(trainer: Seq2SeqPPOTrainer) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in trainer._wrapped.state_dict().items()}


WHITENED = {"whiten_rewards": True, "adaptive_kl": True}
OBJECTIVES: dict[str, dict[str, Any]] = {
    "raft": {"objective": "raft", "num_generations": 4},
    "dpo": {"objective": "dpo", "num_generations": 4, "beta": 2.0},
    "ppo and references": {"sft_coef": 0.5, "sft_column": "prompt"},
}


def one_update(folder: Path, processes: int, **settings) -> dict[str, Any]:
    """An update on the stored rollout: one optimizer step, over micro-batches of 2, with everything whitened."""
    trainer = make_trainer(
        folder,
        f"update{processes}",
        processes,
        StoredRollout,
        num_ppo_epochs=1,
        num_mini_batches=1,
        max_steps=1,
        optim="sgd",  # Adam would divide gradients of 1e-9 by themselves
        learning_rate=0.1,
        **(settings or WHITENED),
    )
    trainer.stored = Rollout(**torch.load(folder / "rollout.pt"))
    trainer.train()
    logged = next(row for row in trainer.state.log_history if "objective/scores" in row)
    return {
        "advantages": trainer.advantages,
        "logged": logged,
        "kl_coef": trainer.kl_coef,
        "weights": weights(trainer),
    }


def sample(folder: Path, processes: int) -> torch.Tensor:
    """First tokens of this process's share of responses to one prompt."""
    trainer = make_trainer(
        folder, "sampled", processes, per_device_train_batch_size=SAMPLES // processes, rows=SAMPLES
    )
    inputs = trainer.data_collator([{"prompt": "the cat"}] * (SAMPLES // processes))
    return trainer.collect(inputs).response_ids[:, 0]


def full_run(folder: Path, output_dir: str, processes: int, resume: str | bool | None = None) -> dict[str, Any]:
    """Training with evaluation and checkpoints, two rollouts past the end of an epoch."""
    trainer = make_trainer(
        folder,
        output_dir,
        processes,
        gradient_accumulation_steps=2,
        per_device_train_batch_size=ROLLOUT // processes // 2,
        max_steps=5,
        save_strategy="steps",
        save_steps=2,
        eval_strategy="steps",
        eval_steps=2,
        adaptive_kl=True,
        critic_warmup_steps=1,
    )
    trainer.train(resume_from_checkpoint=resume)
    metrics = trainer.evaluate()
    trainer.save_model()
    return {
        "weights": weights(trainer),
        "log": trainer.state.log_history,
        "metrics": metrics,
        "reward": trainer.reward_funcs[0].state_dict(),
        "draws": (random.random(), torch.rand(3)),
    }


class CutEncoder(T5ForConditionalGeneration):
    """Its decoder reads states that are cut off from the encoder."""

    def forward(self, encoder_outputs=None, **kwargs):
        if encoder_outputs is None:
            encoder_outputs = self.get_encoder()(kwargs["input_ids"], kwargs["attention_mask"])
        encoder_outputs.last_hidden_state = encoder_outputs.last_hidden_state.detach()
        return super().forward(encoder_outputs=encoder_outputs, **kwargs)


def refusals(folder: Path, processes: int) -> dict[str, str]:
    """What the checks around the first update and of the saved model say, of runs that they must stop."""
    settings = {"num_ppo_epochs": 1, "num_mini_batches": 1, "max_steps": 1}
    moved = make_trainer(folder, "moved", processes, **settings)
    with torch.no_grad():
        moved.policy_model.lm_head.weight[5] += 1
    cut = make_trainer(folder, "cut", processes, model=CutEncoder.from_pretrained(folder / "model"), **settings)
    forgets = make_trainer(folder, "forgets", processes, **settings)
    save, state = forgets.policy_model.save_pretrained, {**forgets.policy_model.state_dict()}
    state["lm_head.weight"] = 2 * state["lm_head.weight"]
    forgets.policy_model.save_pretrained = lambda path, **_: save(path, state_dict=state)
    found = {}
    for name, call in (("moved", moved.train), ("cut", cut.train), ("forgets", forgets.save_model)):
        try:
            call()
            found[name] = ""
        except InputError as error:
            found[name] = error.found
    return found


def main() -> None:
    from accelerate import PartialState

    folder, state = Path(sys.argv[1]), PartialState(cpu=True)
    processes = state.num_processes
    torch.set_num_threads(1)
    found = {
        "processes": processes,
        "update": one_update(folder, processes),
        "objectives": {name: one_update(folder, processes, **settings) for name, settings in OBJECTIVES.items()},
        "sample": sample(folder, processes),
        "run": full_run(folder, "run", processes),
        "refusals": refusals(folder, processes),
    }
    checkpoint = str(folder / "run" / "checkpoint-2")
    found["resumed"] = full_run(folder, "resumed", processes, resume=checkpoint)
    torch.save(found, folder / f"rank{state.process_index}.pt")


def store_rollout(folder: Path) -> None:
    """Stores the rollout that one process collects, with values and a KL that are not zero."""
    trainer = make_trainer(folder, "stored", 1)
    rollout = trainer.collect(trainer.data_collator([{"prompt": TEXTS[row % 5]} for row in range(ROLLOUT)]))
    noise = torch.randn(3, *rollout.values.shape)
    rollout = dataclasses.replace(
        rollout, values=noise[0], ref_logprobs=rollout.ref_logprobs + 0.1 * noise[1], scores=2 * rollout.scores
    )
    torch.save(
        {field.name: getattr(rollout, field.name) for field in dataclasses.fields(rollout)}, folder / "rollout.pt"
    )


if __name__ == "__main__":
    main()
