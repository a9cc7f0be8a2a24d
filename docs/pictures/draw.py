"""Draws clipping.svg by the package's own function, and negative_kl.svg from what examples/negative_kl.py printed.

python docs/pictures/draw.py
"""

from pathlib import Path

import matplotlib.pyplot as plt
import torch

from trl_rewards_plugin.ppo.maths.losses import policy_loss

HERE = Path(__file__).parent
# How the responses were drawn, mean of the summed log-ratio in nats, its standard error.
MEASURED = [
    ("the policy itself", 1.28, 0.09),
    ("top_p=0.9", 1.30, 0.05),
    ("top_k=5", 1.11, 0.10),
    ("num_beams=4", 1.31, 0.04),
    ("num_beams=4, min_new_tokens=20,\nno_repeat_ngram_size=3", -5.45, 0.89),
    ("min_new_tokens=20", -7.81, 0.91),
    ("min_new_tokens=40", -30.33, 1.87),
]


def save(figure: plt.Figure, name: str) -> None:
    figure.tight_layout()
    figure.savefig(HERE / name, facecolor="white", metadata={"Date": None})
    text = "\n".join(line.rstrip() for line in (HERE / name).read_text(encoding="utf-8").splitlines())
    (HERE / name).write_text(text + "\n", encoding="utf-8")


def draw_clipping() -> None:
    ratio = torch.linspace(0.4, 1.6, 241)
    figure, axes = plt.subplots(1, 2, figsize=(7.2, 2.6), sharex=True)
    for axis, advantage in zip(axes, (1.0, -1.0), strict=True):
        logprobs = ratio.log().unsqueeze(0)
        loss, _ = policy_loss(logprobs, torch.zeros_like(logprobs), torch.full_like(logprobs, advantage), 0.2)
        axis.plot(ratio, -advantage * ratio, color="#cbd5e1", lw=2, label="not clipped")
        axis.plot(ratio, loss[0], color="#4f46e5", lw=2, label="policy_loss")
        axis.axvline(1, color="#94a3b8", lw=0.8, ls=":")
        axis.set_title(f"advantage {advantage:+.0f}", fontsize=10)
        axis.set_xlabel("ratio")
    axes[0].set_ylabel("loss of a token")
    axes[0].legend(frameon=False, fontsize=9)
    save(figure, "clipping.svg")


def draw_negative_kl() -> None:
    names, means, errors = zip(*MEASURED, strict=True)
    places = range(len(names))[::-1]
    colours = ["#059669", *("#4f46e5" if mean > 0 else "#dc2626" for mean in means[1:])]
    figure, axis = plt.subplots(figsize=(7.2, 3))
    axis.barh(places, means, xerr=[2 * error for error in errors], color=colours, height=0.6, error_kw={"lw": 1})
    axis.set_yticks(places, names)
    axis.axvline(0, color="#111827", lw=0.8)
    axis.set_xlabel('measured "KL", nats a response (lines: two standard errors)')
    save(figure, "negative_kl.svg")


if __name__ == "__main__":
    plt.rcParams.update({"svg.hashsalt": "docs", "axes.spines.top": False, "axes.spines.right": False})
    draw_clipping()
    draw_negative_kl()
