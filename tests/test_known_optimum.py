"""The optimum that is known exactly: its formula by hand, and that training reaches it."""

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

import pytest
import torch

REPOSITORY = Path(__file__).parents[1]
SCRIPT = REPOSITORY / "benchmarks" / "known_optimum.py"
REACHED = 0.05


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    import known_optimum

    return known_optimum


def test_the_optimum_by_hand(script):
    # Of two answers, likely 3 to 1, the second is worth log 3 more at beta 1: then both are alike.
    reference = torch.tensor([[0.75, 0.25]]).log()
    rewards = torch.tensor([[0.0, 1.0986123]])
    best = script.optimum(reference, rewards, 1.0)
    torch.testing.assert_close(best, torch.tensor([[0.5, 0.5]]))
    assert script.total_variation(reference.exp(), best) == pytest.approx(0.25)


def test_no_policy_has_more_reward_minus_kl_than_the_optimum(script):
    reference = torch.randn(3, 5).log_softmax(-1)
    rewards = torch.randn(3, 5)

    def worth(policy):
        return (policy * (rewards - 0.7 * (policy.log() - reference))).sum(-1)

    best = worth(script.optimum(reference, rewards, 0.7))
    # It is known in closed form: beta log E_reference exp(reward / beta).
    torch.testing.assert_close(best, 0.7 * (reference + rewards / 0.7).logsumexp(-1))
    for _ in range(100):
        assert (worth(torch.randn(3, 5).softmax(-1)) <= best + 1e-6).all()


def test_all_answers_are_counted_once(script):
    from trl_rewards_plugin.ppo.policy.token_rules import token_rules

    model, tokenizer = script.make_model(0)
    suppressed = tuple(range(len(script.SPECIAL) + script.PROMPTS))
    logprobs = script.answer_logprobs(model, tokenizer, token_rules(model, suppressed=suppressed), 2)
    assert logprobs.shape == (script.PROMPTS, script.WORDS**2)
    torch.testing.assert_close(logprobs.exp().sum(-1), torch.ones(script.PROMPTS))


def test_rollouts_to_a_distance_are_those_until_a_curve_is_first_within_it(script):
    assert script.rollouts_to(0.1, [[0.3, 0.1, 0.2], [0.05]]) == 1.5
    assert script.rollouts_to(0.1, [[0.3, 0.1], [0.2]]) is None


@pytest.mark.slow
@pytest.mark.parametrize("estimator", ["rloo"])  # gae and grpo: benchmarks/README.md
def test_the_exact_kl_needs_half_of_k1_s_rollouts(script, estimator):
    """To within 0.03 of the optimum; see benchmarks/README.md for the other distances, and for reinforce."""
    curves = {
        penalty: [script.train(estimator, penalty, 1, seed)["curve"] for seed in range(3)]
        for penalty in ("k1 in the reward", "full")
    }
    k1, full = (script.rollouts_to(0.03, curves[penalty]) for penalty in ("k1 in the reward", "full"))
    assert full <= k1 / 2, curves


def test_the_best_of_n_by_hand(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    import known_optimum_objectives as script

    # The worst of two, likely 3 to 1, is the best of 4 samples only where all are it: (3/4)^4.
    best = script.best_of_n(torch.tensor([[0.75, 0.25]]).log(), torch.tensor([[0.0, 1.0]]))
    torch.testing.assert_close(best, torch.tensor([[0.75**4, 1 - 0.75**4]]))


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["dpo", "raft", "raft, one rollout"])
def test_every_objective_that_ranks_reaches_its_end_with_three_seeds(monkeypatch, objective):
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    import known_optimum_objectives as script

    runs = script.main([objective], [0, 1, 2])
    assert min(run["before"] for run in runs) > 5 * REACHED
    assert max(run["after"] for run in runs) < REACHED


@pytest.mark.slow
def test_every_estimator_reaches_the_optimum_with_three_seeds(tmp_path):
    # Two processes side by side; one thread each, so that their sums have one order.
    pairs = {"critic_or_none": ("gae", "reinforce"), "compared": ("rloo", "grpo")}
    processes = [
        subprocess.Popen(
            [
                sys.executable,
                SCRIPT,
                "--penalties",
                "k1 in the reward",
                "--estimators",
                *pair,
                "--out",
                tmp_path / name,
            ],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        for name, pair in pairs.items()
    ]
    outputs = [process.communicate(timeout=1500)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    for name, pair in pairs.items():
        runs = json.loads((tmp_path / name / "known_optimum.json").read_text(encoding="utf-8"))["runs"]
        for estimator in pair:
            for tokens in (1, 2):
                group = [run for run in runs if (run["estimator"], run["tokens"]) == (estimator, tokens)]
                assert [run["seed"] for run in group] == [0, 1, 2]
                assert min(run["before"] for run in group) > 5 * REACHED
                assert statistics.mean(run["after"] for run in group) < REACHED, outputs
        assert (tmp_path / name / "known_optimum.png").stat().st_size > 10_000
