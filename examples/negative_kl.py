"""Why a "KL" can be below 0: the same two models, responses drawn in other ways than the formula thinks.

    python examples/negative_kl.py runs/tiny-seed0

The folder is the default job's. Prints the mean over held-out prompts and its standard error, in nats a response:

    the policy itself                                                        +1.28 +- 0.09
    top_k=5                                                                  +1.11 +- 0.10
    num_beams=4, do_sample=False                                             +1.31 +- 0.04
    num_beams=4, do_sample=False, min_new_tokens=20, no_repeat_ngram_size=3  -5.45 +- 0.89
    min_new_tokens=20                                                        -7.81 +- 0.91
"""

import sys

import torch
from datasets import load_dataset
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from trl_rewards_plugin.assets import asset_path
from trl_rewards_plugin.ppo.maths.masking import first_eos_mask

BEAMS = {"num_beams": 4, "do_sample": False}
WAYS = [{}, {"top_k": 5}, BEAMS, {**BEAMS, "min_new_tokens": 20, "no_repeat_ngram_size": 3}, {"min_new_tokens": 20}]
PURE = {"do_sample": True, "top_k": 0, "top_p": 1.0, "num_beams": 1, "max_new_tokens": 40}


@torch.no_grad()
def logprobs(model, inputs, responses):
    """(B, T): what `model` gives to each token of `responses`, by teacher forcing."""
    start = torch.full_like(responses[:, :1], model.config.decoder_start_token_id)
    logits = model(**inputs, decoder_input_ids=torch.cat([start, responses[:, :-1]], dim=1)).logits
    return logits.log_softmax(-1).gather(-1, responses.unsqueeze(-1)).squeeze(-1)


def main(folder: str, most: int = 96) -> dict[str, float]:
    """Prints and returns the mean summed log-ratio of each way."""
    tokenizer = AutoTokenizer.from_pretrained(asset_path("tiny-t5"))
    reference = AutoModelForSeq2SeqLM.from_pretrained(asset_path("tiny-t5"), dtype=torch.float32).eval()
    policy = AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=torch.float32).eval()
    rows = load_dataset("json", data_files=str(asset_path("prompts") / "heldout.jsonl"), split="train")
    prompts, means = rows["prompt"][:most], {}
    for way in WAYS:
        torch.manual_seed(0)
        ratios = []
        for first in range(0, len(prompts), 32):
            batch = prompts[first : first + 32]
            inputs = tokenizer(batch, return_tensors="pt", padding=True, return_token_type_ids=False)
            responses = policy.generate(**inputs, **{**PURE, **way})[:, 1:]
            difference = logprobs(policy, inputs, responses) - logprobs(reference, inputs, responses)
            ratios += (difference * first_eos_mask(responses, [tokenizer.eos_token_id])).sum(1).tolist()
        name = ", ".join(f"{key}={value}" for key, value in way.items()) or "the policy itself"
        means[name] = sum(ratios) / len(ratios)
        print(f"{name:<72} {means[name]:+.2f} +- {torch.tensor(ratios).std() / len(ratios) ** 0.5:.2f}")
    return means


if __name__ == "__main__":
    main(*sys.argv[1:])
