"""The article's loop as written, on TRL 0.11.4: the part of the benchmarks that runs in the environment of legacy.sh.

    python article_loop.py FOLDER

FOLDER/settings.json names the models, the prompts and the settings. For every empty line on standard input it does
one batch (responses one prompt at a time, two pipelines, `PPOTrainer.step`, `log_stats`) and answers with a line of
JSON: seconds of generation, reward and update, CPU seconds of all, and mean reward. A line that is not empty names a
folder to write the policy to. Leaves out: which batch comes when, and the table.
"""

import json
import resource
import sys
import time
import warnings
from itertools import cycle
from pathlib import Path

import torch
from datasets import Dataset
from transformers import PreTrainedTokenizerFast, pipeline
from trl import AutoModelForSeq2SeqLMWithValueHead, PPOConfig, PPOTrainer

warnings.simplefilter("ignore")
folder = Path(sys.argv[1])
settings = json.loads((folder / "settings.json").read_text())
torch.set_num_threads(settings["threads"])
answers, sys.stdout = sys.stdout, sys.stderr  # what libraries print must not mix with the answers


def load_tokenizer(model: dict) -> PreTrainedTokenizerFast:
    """From the file alone, and what was told beside it."""
    return PreTrainedTokenizerFast(tokenizer_file=str(Path(model["folder"]) / "tokenizer.json"), **model["tokenizer"])


def collator(rows: list) -> dict:
    """A list a column, as in the article."""
    return {key: [row[key] for row in rows] for key in rows[0]}


tokenizer = load_tokenizer(settings["policy"])
prompts = Dataset.from_dict({"query": settings["prompts"]})
prompts = prompts.map(lambda row: {"input_ids": tokenizer.encode(row["query"])})
prompts.set_format(type="torch")
config = PPOConfig(seed=settings["seed"], log_with=None, **settings["ppo"])
model = AutoModelForSeq2SeqLMWithValueHead.from_pretrained(settings["policy"]["folder"])
reference = AutoModelForSeq2SeqLMWithValueHead.from_pretrained(settings["policy"]["folder"])
trainer = PPOTrainer(config, model, reference, tokenizer, dataset=prompts, data_collator=collator)
device = trainer.accelerator.device
judges = [
    pipeline("text-classification", model=judge["folder"], tokenizer=load_tokenizer(judge), device=device)
    for judge in settings["judges"]
]
labels = [judge["label"] for judge in settings["judges"]]
asked = {"top_k": None, "function_to_apply": "none"}
generation = {
    "min_length": -1,
    "top_k": 0.0,
    "top_p": 1.0,
    "do_sample": True,
    "pad_token_id": tokenizer.pad_token_id,
    **settings["generation"],
}


def logit(results: list, label: str) -> float:
    """One label's score."""
    return next(result["score"] for result in results if result["label"] == label)


batches = cycle(trainer.dataloader)
print("ready", file=answers, flush=True)
for line in sys.stdin:
    if line.strip():
        model.pretrained_model.save_pretrained(line.strip())
        print("saved", file=answers, flush=True)
        continue
    batch = next(batches)
    began, cpu_began = time.perf_counter(), time.process_time()
    responses = [trainer.generate(query, **generation).squeeze() for query in batch["input_ids"]]
    batch["response"] = [tokenizer.decode(response, skip_special_tokens=True) for response in responses]
    generated = time.perf_counter()
    rewards = []
    for text in batch["response"]:
        parts = [
            weight * logit(judge(text, **asked), label)
            for judge, label, weight in zip(judges, labels, settings["weights"], strict=True)
        ]
        rewards.append(torch.tensor(sum(parts)))
    scored = time.perf_counter()
    stats = trainer.step(batch["input_ids"], responses, rewards)
    trainer.log_stats(stats, batch, rewards)
    updated = time.perf_counter()
    result = {
        "generation": generated - began,
        "reward": scored - generated,
        "update": updated - scored,
        "cpu": time.process_time() - cpu_began,
        "mean_reward": torch.stack(rewards).mean().item(),
        "tokens": sum(len(response) - 1 for response in responses),  # without the decoder's start
        "peak_memory_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }
    print(json.dumps(result), file=answers, flush=True)
