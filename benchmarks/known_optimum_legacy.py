"""The part of known_optimum.py that runs in the environment of legacy.sh: TRL 0.11.4's PPOTrainer on one problem.

    python known_optimum_legacy.py FOLDER

FOLDER/problem.json holds the rewards of every answer and the settings, FOLDER/model the starting model with its
tokenizer; the trained model is written to FOLDER/trained. Leaves out: measuring it.
"""

import json
import sys
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerFast
from trl import AutoModelForSeq2SeqLMWithValueHead, PPOConfig, PPOTrainer

folder = Path(sys.argv[1])
problem = json.loads((folder / "problem.json").read_text())
rewards = torch.tensor(problem["rewards"])
model = AutoModelForSeq2SeqLMWithValueHead.from_pretrained(str(folder / "model"))
reference = AutoModelForSeq2SeqLMWithValueHead.from_pretrained(str(folder / "model"))
tokenizer = PreTrainedTokenizerFast(  # the saved class has a name that transformers 4 does not know
    tokenizer_file=str(folder / "model" / "tokenizer.json"), pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
)
config = PPOConfig(
    seed=problem["seed"],
    learning_rate=problem["learning_rate"],
    batch_size=problem["batch_size"],
    mini_batch_size=problem["batch_size"],
    ppo_epochs=problem["ppo_epochs"],
    init_kl_coef=problem["beta"],
    adap_kl_ctrl=False,
)
optimizer = torch.optim.Adam(model.parameters(), lr=config.learning_rate, eps=1e-5)
schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=problem["rollouts"])
trainer = PPOTrainer(config, model, reference, tokenizer, optimizer=optimizer, lr_scheduler=schedule)
generation = {
    "max_new_tokens": problem["tokens"],
    "do_sample": True,
    "top_k": 0,
    "top_p": 1.0,
    "suppress_tokens": list(range(problem["first_word"])),
}
rows = torch.arange(len(rewards)).repeat(problem["batch_size"] // len(rewards))
queries = [torch.tensor(tokenizer(f"p{row}")["input_ids"]) for row in rows]
for _ in range(problem["rollouts"]):
    with torch.no_grad():
        responses = trainer.generate(queries, batch_size=len(queries), return_prompt=False, **generation)
    scores = []
    for row, response in zip(rows, responses, strict=True):
        words = [token - problem["first_word"] for token in response.tolist() if token >= problem["first_word"]]
        scores.append(rewards[row][tuple(words)])
    trainer.step(queries, responses, scores)
model.pretrained_model.save_pretrained(folder / "trained")
