"""Losses of TRL 0.28's DPOTrainer, the last for encoder-decoders, on stored batches: tests compare ours with them.

    bash benchmarks/legacy.sh ENVIRONMENT 0.28.0
    ENVIRONMENT/bin/python benchmarks/dpo_legacy.py > tests/ppo/dpo_trl_0_28.json

The policy is the bundled tiny T5; the reference is the same with every weight times 0.9. Of every pair: the token ids,
both models' log-probabilities of both responses, and the loss, with and without label smoothing.
TRL 0.28 sums an encoder-decoder's log-probabilities without the last column of the batch, which is the EOS of the
longest response. So each batch is given twice: as TRL's collator makes it, and with one more column of padding, behind
which no token is lost. Leaves out: training.
"""

import json
from pathlib import Path

import torch
import transformers
import trl
from datasets import Dataset
from transformers import PreTrainedTokenizerFast, T5ForConditionalGeneration
from trl import DPOConfig, DPOTrainer

TINY = Path(__file__).parents[1] / "trl_rewards_plugin" / "assets" / "tiny-t5"
BETA, REFERENCE_SCALE = 0.1, 0.9
ROWS = [
    {
        "prompt": "The place smells and the owner is rude!",
        "chosen": "It is not clean.",
        "rejected": "I hate this place",
    },
    {"prompt": "Go to a tournament.", "chosen": "Go.", "rejected": "Go to a tournament, and then go to another one."},
    {"prompt": "Is that what you mean?", "chosen": "Is that right?", "rejected": "what"},
    {"prompt": "I could go on and on about the food and the people there.", "chosen": "Food", "rejected": "People."},
]


def make_trainer(label_smoothing: float) -> DPOTrainer:
    """TRL's trainer of the two models."""
    policy, reference = (T5ForConditionalGeneration.from_pretrained(TINY, dtype=torch.float32) for _ in range(2))
    with torch.no_grad():
        for weight in reference.parameters():
            weight.mul_(REFERENCE_SCALE)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(TINY / "tokenizer.json"), pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )
    args = DPOConfig(
        "unused", beta=BETA, label_smoothing=label_smoothing, use_cpu=True, bf16=False, report_to="none", seed=0
    )
    return DPOTrainer(policy, reference, args, train_dataset=Dataset.from_list(ROWS), processing_class=tokenizer)


def losses(trainer: DPOTrainer, batch: dict[str, torch.Tensor]) -> dict:
    """Log-probabilities (P,) of both responses under both models, the losses (P,), and what TRL logs."""
    with torch.no_grad():
        batch = {name: value.clone() for name, value in batch.items()}  # the forward pass writes into it
        policy = trainer.concatenated_forward(trainer.model, {**batch})
        reference = trainer.compute_ref_log_probs({**batch})
        found, _, _ = trainer.dpo_loss(policy["chosen_logps"], policy["rejected_logps"], *reference)
        mean, logged = trainer.get_batch_loss_metrics(trainer.model, {**batch})
    return {
        "chosen_logps": policy["chosen_logps"].tolist(),
        "rejected_logps": policy["rejected_logps"].tolist(),
        "ref_chosen_logps": reference[0].tolist(),
        "ref_rejected_logps": reference[1].tolist(),
        "losses": found.tolist(),
        "loss": mean.item(),
        "logged": {name: logged[name] for name in ("rewards/margins", "rewards/accuracies")},
    }


def main() -> None:
    """Prints the fixture."""
    record: dict = {
        "versions": {"trl": trl.__version__, "transformers": transformers.__version__, "torch": torch.__version__},
        "beta": BETA,
        "reference_scale": REFERENCE_SCALE,
    }
    for smoothing in (0.0, 0.25):
        trainer = make_trainer(smoothing)
        rows = [trainer.train_dataset[row] for row in range(len(ROWS))]
        batch = trainer.data_collator(rows)
        longer = dict(batch)
        for name in ("chosen", "rejected"):
            for kind, fill in (("input_ids", trainer.pad_token_id), ("attention_mask", 0)):
                width = max(batch[f"{side}_{kind}"].shape[1] for side in ("chosen", "rejected")) + 1
                ids = batch[f"{name}_{kind}"]
                longer[f"{name}_{kind}"] = torch.nn.functional.pad(ids, (0, width - ids.shape[1]), value=fill)
        record["rows"] = [{name: row[name] for name in row if name.endswith("_input_ids")} for row in rows]
        record[f"label_smoothing={smoothing}"] = {"padded": losses(trainer, longer), "as_is": losses(trainer, batch)}
    print(json.dumps(record))


if __name__ == "__main__":
    main()
