"""BibTeX of what a run stands on. Leaves out: the base model, the judges and the data, whose pages tell their own."""

from __future__ import annotations

from trl_rewards_plugin.cards.card_data import RewardModelCardData

PPO = """@article{schulman2017ppo,
  title  = {Proximal Policy Optimization Algorithms},
  author = {Schulman, John and Wolski, Filip and Dhariwal, Prafulla and Radford, Alec and Klimov, Oleg},
  year   = {2017},
  note   = {arXiv:1707.06347}
}"""
TRL = """@software{vonwerra2020trl,
  title  = {{TRL: Transformer Reinforcement Learning}},
  author = {von Werra, Leandro and Belkada, Younes and Tunstall, Lewis and Beeching, Edward and Thrush, Tristan and
            Lambert, Nathan and Huang, Shengyi and Rasul, Kashif and Gallou{\\'e}dec, Quentin},
  url    = {https://github.com/huggingface/trl},
  year   = {2020}
}"""


def citations(data: RewardModelCardData) -> str:
    """The algorithm and TRL, in one block."""
    algorithm = data.paper.get("citation") or (PPO if data.algorithm == "PPO" else "")
    # A fence inside would end the block; no BibTeX holds one.
    entries = [entry.strip().replace("```", "") for entry in (algorithm, TRL) if entry]
    return "```bibtex\n" + "\n\n".join(entries) + "\n```"
