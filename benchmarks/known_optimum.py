"""How close does training come to the optimum that is known exactly?

    python benchmarks/known_optimum.py --out known_optimum
    python benchmarks/known_optimum.py --estimators rloo --tokens 1 --seeds 0 --out quick
    python benchmarks/known_optimum.py --legacy ENVIRONMENT

A tiny random T5 answers 4 prompts by one or two of 4 words, so every response can be counted out. Of reward minus
beta times KL to the starting model the optimum is then known:

    policy(y | x)  is proportional to  reference(y | x) exp(reward(x, y) / beta)

(Ziegler et al., arXiv 1909.08593, section 2.2). The script trains by every estimator with the KL penalty as k1 in the
reward, exactly over the vocabulary ("full"), as k3 in the reward, and as k3 or exactly in the loss alone. It prints
the total variation distance to that optimum, the mean over prompts, and how many rollouts it took to come within some
distances; it writes every number and the distance after each rollout to known_optimum.json, and the curves as a
picture. All settings are the same for all estimators.
With `--legacy` TRL 0.11.4's PPOTrainer, which the classic tutorials use, gets the same problems in an environment of
its own (made by legacy.sh where the folder is not there yet).
Leaves out: text; the words mean nothing, and the reward is a table of random numbers.
"""

import argparse
import json
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor
from tqdm import tqdm
from transformers import (
    PreTrainedTokenizerFast,
    PrinterCallback,
    T5Config,
    T5ForConditionalGeneration,
    TrainerCallback,
)

from trl_rewards_plugin import Seq2SeqPPOConfig, Seq2SeqPPOTrainer
from trl_rewards_plugin.ppo.checkpoints.state import mark_untied_embeddings
from trl_rewards_plugin.ppo.maths.methods import ESTIMATORS
from trl_rewards_plugin.ppo.policy.policy import teacher_forced
from trl_rewards_plugin.ppo.policy.prompts import EncodedPrompts
from trl_rewards_plugin.ppo.policy.token_rules import token_rules

PROMPTS, WORDS, BETA, LEARNING_RATE = 4, 4, 0.5, 1e-2
SPECIAL = ("<pad>", "</s>", "<unk>")
PENALTIES = {
    "k1 in the reward": {"kl_estimator": "k1"},
    "full": {"kl_estimator": "full"},
    "k3 in the reward": {"kl_estimator": "k3"},
    "k3 in the loss": {"kl_estimator": "k3", "use_kl_loss": True},
    "full in the loss": {"kl_estimator": "full", "use_kl_loss": True},
}
REASONS = {
    "full": "the same optimum, and the policy's move within a rollout is charged as it happens, so that no step "
    "overshoots; near the optimum only the noise between prompts is left, which a baseline per prompt removes",
    "full in the loss": "of one token its gradient is the right one, but advantages that are whitened or standardised "
    "(all but rloo) weigh the reward anew; of more tokens, what a token does to the KL of later ones is left out",
    "k1 in the reward": "its own gradient has mean 0, so nothing is lost where rewards carry none: the optimum itself",
    "k3 in the reward": "its own gradient, which is that of KL(reference || policy), is lost in a reward; what is "
    "left, with rho = reference / policy, is beta (log rho - rho), which falls again where rho is above 1: an answer "
    "that has become rarer than under the reference is driven out",
    "k3 in the loss": "its gradient is that of KL(reference || policy), whose optimum is beta reference / (lambda - "
    "reward); and whitened or standardised advantages (all but rloo) weigh the reward anew against the penalty",
}
RESPONSES, EPOCHS = 256, 4  # of a rollout; over each of them
ROLLOUTS = {1: 100, 2: 300}
REACHED = 0.05  # total variation that counts as the optimum
DISTANCES = (0.1, REACHED, 0.03, 0.02, 0.01)  # to count rollouts to


@dataclass(frozen=True)
class Problem:
    """Rewards of every response to every prompt: (PROMPTS, WORDS) or (PROMPTS, WORDS, WORDS)."""

    tokens: int
    rewards: Tensor

    def __call__(self, completions: list[str], prompts: list[str], **_) -> list[float]:
        """The reward function: looks each response up."""
        rows = [int(prompt.removeprefix("p")) for prompt in prompts]
        words = [[int(word.removeprefix("w")) for word in text.split()] for text in completions]
        return [self.rewards[row, *answer].item() for row, answer in zip(rows, words, strict=True)]

    __name__ = "table"


def make_problem(tokens: int, seed: int) -> Problem:
    """Standard normal rewards."""
    generator = torch.Generator().manual_seed(seed)
    return Problem(tokens, torch.randn(PROMPTS, *[WORDS] * tokens, generator=generator))


def make_model(seed: int) -> tuple[T5ForConditionalGeneration, PreTrainedTokenizerFast]:
    """A random T5 whose answers are neither alike nor certain."""
    names = [*SPECIAL, *(f"p{row}" for row in range(PROMPTS)), *(f"w{word}" for word in range(WORDS))]
    core = Tokenizer(models.WordLevel({name: row for row, name in enumerate(names)}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    core.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=8
    )
    torch.manual_seed(seed)
    config = T5Config(
        vocab_size=len(names),
        d_model=32,
        d_kv=16,
        d_ff=64,
        num_layers=1,
        num_decoder_layers=1,
        num_heads=2,
        dropout_rate=0.0,
        initializer_factor=0.2,
        tie_word_embeddings=False,
        decoder_start_token_id=0,
    )
    return T5ForConditionalGeneration(config), tokenizer


@torch.no_grad()
def answer_logprobs(model, tokenizer, rules, tokens: int) -> Tensor:
    """log pi(answer | prompt) of every answer, by teacher forcing: (PROMPTS, WORDS ** tokens)."""
    first = len(SPECIAL) + PROMPTS
    encoded = tokenizer([f"p{row}" for row in range(PROMPTS)], return_tensors="pt")
    total = torch.zeros(PROMPTS, 1)
    for step in range(tokens):
        # Every prefix of `step` words, then all words that may follow it.
        prefixes = torch.cartesian_prod(*[torch.arange(WORDS)] * step).reshape(-1, step) if step else None
        count = WORDS**step
        responses = torch.full((count, step + 1), first)
        if prefixes is not None:
            responses[:, :step] = prefixes + first
        rows = torch.arange(PROMPTS).repeat_interleave(count)
        log_weights, _ = teacher_forced(
            model,
            EncodedPrompts(encoded["input_ids"][rows], encoded["attention_mask"][rows].bool()),
            responses.repeat(PROMPTS, 1),
            rules,
        )
        following = log_weights[:, -1].log_softmax(-1)[:, first : first + WORDS].view(PROMPTS, count, WORDS)
        total = (total.unsqueeze(-1) + following).view(PROMPTS, -1)
    return total


def optimum(reference: Tensor, rewards: Tensor, beta: float) -> Tensor:
    """softmax(log reference + reward / beta) over the answers: (PROMPTS, answers)."""
    return (reference + rewards.flatten(1) / beta).softmax(-1)


def total_variation(left: Tensor, right: Tensor) -> float:
    """0.5 * sum |left - right|, the mean over prompts."""
    return (0.5 * (left - right).abs().sum(-1)).mean().item()


class Distance(TrainerCallback):
    """Keeps the distance to the optimum after every rollout."""

    def __init__(self, measure):
        self.measure, self.curve = measure, []

    def on_step_end(self, *_, **__):
        """Measures the policy of this moment."""
        self.curve.append(self.measure())


def train(estimator: str, penalty: str, tokens: int, seed: int) -> dict:
    """One run by an estimator; the distances before training and after every rollout."""
    settings = {
        "advantage_estimator": estimator,
        "learning_rate": LEARNING_RATE,
        **PENALTIES[penalty],
        "kl_coef": BETA,
        "num_generations": 8,
        "per_device_train_batch_size": RESPONSES,
        "num_ppo_epochs": EPOCHS,
        "max_steps": ROLLOUTS[tokens],
    }
    return {"estimator": estimator, "penalty": penalty, **train_towards(optimum, settings, tokens, seed)}


def train_towards(end: Callable[[Tensor, Tensor, float], Tensor], settings: dict, tokens: int, seed: int) -> dict:
    """One run with these settings; the distances before training and after every rollout to where it should end.

    Args:
        end: log reference (PROMPTS, answers), rewards, BETA -> the distribution (PROMPTS, answers).
    """
    problem = make_problem(tokens, seed)
    model, tokenizer = make_model(seed)
    with tempfile.TemporaryDirectory() as folder:
        args = Seq2SeqPPOConfig(
            output_dir=folder,
            num_mini_batches=1,
            response_length=tokens,
            max_unended_share=None,  # EOS is no word: every answer has as many tokens as it may
            suppress_tokens=list(range(len(SPECIAL) + PROMPTS)),
            seed=seed,
            report_to="none",
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
            use_cpu=True,
            **settings,
        )
        rows = [{"prompt": f"p{row}"} for row in range(PROMPTS)] * (args.prompts_per_rollout // PROMPTS)
        trainer = Seq2SeqPPOTrainer(
            model, problem, args, train_dataset=Dataset.from_list(rows), processing_class=tokenizer
        )
        reference = answer_logprobs(model, tokenizer, trainer.rules, tokens)
        best = end(reference, problem.rewards, BETA)

        def measure() -> float:
            return total_variation(answer_logprobs(model, tokenizer, trainer.rules, tokens).exp(), best)

        distance = Distance(measure)
        trainer.add_callback(distance)
        trainer.remove_callback(PrinterCallback)
        before = measure()
        trainer.train()
    return {
        "tokens": tokens,
        "seed": seed,
        "before": before,
        "after": distance.curve[-1],
        "curve": distance.curve,
    }


def train_legacy(tokens: int, seed: int, environment: Path) -> dict:
    """One run of TRL 0.11.4's PPOTrainer on the same problem; only the distance after training is known."""
    here = Path(__file__).parent
    if not environment.is_dir():
        subprocess.run(["bash", here / "legacy.sh", environment], check=True)
    problem, (model, tokenizer) = make_problem(tokens, seed), make_model(seed)
    first = len(SPECIAL) + PROMPTS
    rules = token_rules(model, suppressed=tuple(range(first)))
    reference = answer_logprobs(model, tokenizer, rules, tokens)
    best = optimum(reference, problem.rewards, BETA)
    # As transformers 5 builds it, its output matrix is the embedding, unscaled: transformers 4 has no such T5.
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model.save_pretrained(folder / "model")
        mark_untied_embeddings(model, folder / "model")
        tokenizer.save_pretrained(folder / "model")
        settings = {
            "rewards": problem.rewards.tolist(),
            "first_word": first,
            "tokens": tokens,
            "seed": seed,
            "beta": BETA,
            "learning_rate": LEARNING_RATE,
            "batch_size": RESPONSES,
            "ppo_epochs": EPOCHS,
            "rollouts": ROLLOUTS[tokens],
        }
        (folder / "problem.json").write_text(json.dumps(settings), encoding="utf-8")
        command = [environment / "bin" / "python", "-W", "ignore", here / "known_optimum_legacy.py", folder]
        done = subprocess.run(command, cwd=folder, stderr=subprocess.PIPE, text=True)
        run = {"estimator": "TRL 0.11.4", "penalty": "k1 in the reward", "tokens": tokens, "seed": seed}
        run["before"] = total_variation(reference.exp(), best)
        if done.returncode:  # it never trains the first token, so of one token there is nothing left to average
            return {**run, "error": done.stderr.strip().splitlines()[-1]}
        trained = T5ForConditionalGeneration.from_pretrained(folder / "trained")
    after = answer_logprobs(trained, tokenizer, rules, tokens).exp()
    return {**run, "after": total_variation(after, best)}


def rollouts_to(distance: float, curves: list[list[float]]) -> float | None:
    """Rollouts until a curve is first within the distance, the mean over curves; None where one never is."""
    counts = [next((at for at, value in enumerate(curve, 1) if value <= distance), None) for curve in curves]
    return None if None in counts else statistics.mean(counts)


def table(runs: list[dict]) -> str:
    """Distances after training, the mean and the largest over seeds, and rollouts to some distances."""
    counted = "".join(f"{f'to {distance}':>8}" for distance in DISTANCES)
    lines = [f"{'estimator':<11}{'penalty':<18}{'tokens':>6}{'before':>9}{'after':>9}{'largest':>9}{counted}  reached"]
    groups: dict[tuple, list[dict]] = {}
    for run in runs:
        groups.setdefault((run["estimator"], run["penalty"], run["tokens"]), []).append(run)
    for (estimator, penalty, tokens), group in groups.items():
        if "error" in group[0]:
            lines.append(f"{estimator:<11}{penalty:<18}{tokens:>6}  {group[0]['error']}")
            continue
        before, after = (statistics.mean(run[name] for run in group) for name in ("before", "after"))
        largest = max(run["after"] for run in group)
        verdict = "yes" if after < REACHED else "no"
        curves = [run["curve"] for run in group if "curve" in run]
        counts = [rollouts_to(distance, curves) if curves else None for distance in DISTANCES]
        counted = "".join(f"{'-':>8}" if count is None else f"{count:>8.1f}" for count in counts)
        numbers = f"{before:>9.3f}{after:>9.3f}{largest:>9.3f}{counted}"
        lines.append(f"{estimator:<11}{penalty:<18}{tokens:>6}{numbers}  {verdict}")
    lines += [f"{penalty}: {reason}" for penalty, reason in REASONS.items() if any(penalty in key for key in groups)]
    return "\n".join(lines)


def draw(runs: list[dict], path: Path) -> None:
    """Distance after every rollout: one panel a length, one line a run."""
    matplotlib.use("Agg")
    from matplotlib import pyplot

    lengths = sorted({run["tokens"] for run in runs})
    figure, axes = pyplot.subplots(1, len(lengths), figsize=(6 * len(lengths), 4), squeeze=False, sharey=True)
    colours = {name: f"C{number}" for number, name in enumerate(ESTIMATORS)}
    styles = dict(zip(PENALTIES, ("-", ":", "--", "-.", (0, (1, 4))), strict=True))
    for axis, tokens in zip(axes[0], lengths, strict=True):
        for run in runs:
            if run["tokens"] == tokens and "curve" in run:
                label = f"{run['estimator']}, {run['penalty']}"
                known = label in axis.get_legend_handles_labels()[1]
                axis.plot(
                    run["curve"],
                    color=colours[run["estimator"]],
                    linestyle=styles[run["penalty"]],
                    linewidth=1,
                    label="_" if known else label,
                )
        axis.axhline(REACHED, color="grey", linewidth=0.8)
        axis.set(title=f"responses of {tokens} token{'s' * (tokens > 1)}", xlabel="rollouts", yscale="log")
    axes[0][0].set_ylabel("total variation distance to the optimum")
    figure.tight_layout(rect=(0, 0, 0.83, 1))
    figure.legend(*axes[0][0].get_legend_handles_labels(), fontsize=7, loc="center right")
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def main() -> None:
    """Trains, prints the table, writes JSON and picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--estimators", nargs="*", choices=ESTIMATORS, default=list(ESTIMATORS), help="may be none")
    parser.add_argument("--penalties", nargs="+", choices=PENALTIES, default=list(PENALTIES))
    parser.add_argument("--tokens", nargs="+", type=int, choices=ROLLOUTS, default=list(ROLLOUTS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--legacy", type=Path, help="folder of an environment with TRL 0.11.4, to run that too")
    parser.add_argument("--out", type=Path, default=Path("known_optimum"), help="folder of JSON and picture")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    cases = [
        (estimator, penalty, tokens, seed)
        for tokens in args.tokens
        for penalty in args.penalties
        for estimator in args.estimators
        for seed in args.seeds
    ]
    began = time.monotonic()
    runs = [train(*case) for case in tqdm(cases, desc="runs")]
    if args.legacy:
        runs += [train_legacy(tokens, seed, args.legacy.absolute()) for tokens in args.tokens for seed in args.seeds]
    print(table(runs))
    record = {
        "runs": runs,
        "beta": BETA,
        "torch": torch.__version__,
        "device": "cpu",
        "seconds": round(time.monotonic() - began, 1),
    }
    (args.out / "known_optimum.json").write_text(json.dumps(record), encoding="utf-8")
    draw(runs, args.out / "known_optimum.png")


if __name__ == "__main__":
    main()
