"""Token scores agree with torch's own log-softmax, gradients included; draws come in proportion."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.ppo.chi_square import p_value
from trl_rewards_plugin.ppo.policy.token_scores import draw_tokens, entropies, token_scores


@given(seed=st.integers(0, 2**16), scale=st.sampled_from([0.1, 1.0, 30.0]), blocked=st.integers(0, 5))
def test_values_and_gradients_are_those_of_log_softmax(seed, scale, blocked):
    generator = torch.Generator().manual_seed(seed)
    weights = torch.randn(2, 3, 9, generator=generator, dtype=torch.float64) * scale
    weights[..., :blocked] = -torch.inf
    ids = torch.randint(blocked, 9, (2, 3), generator=generator)
    upstream = torch.randn(2, 3, generator=generator, dtype=torch.float64)
    anchor = weights + torch.randn(2, 3, 9, generator=generator, dtype=torch.float64)
    ours, theirs = weights.clone().requires_grad_(), weights.clone().requires_grad_()
    scores = token_scores(ours, ids, anchor)
    logs = theirs.log_softmax(-1)[..., blocked:]
    expected = (
        logs.gather(-1, ids.unsqueeze(-1) - blocked).squeeze(-1),
        -(logs.exp() * logs).sum(-1),
        (logs.exp() * (logs - anchor.log_softmax(-1)[..., blocked:])).sum(-1),
    )
    for found, wanted in zip(scores, expected, strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-7, rtol=1e-7)
        for parts in (found, wanted):
            (parts * upstream).sum().backward(retain_graph=True)
        torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-7, rtol=1e-7)
    torch.testing.assert_close(token_scores(weights, ids).logprobs, expected[0].detach(), atol=1e-7, rtol=1e-7)


def test_by_hand():
    weights = torch.tensor([[[0.0, 0.0, -torch.inf], [1.0986123, 0.0, -torch.inf]]])  # 1/2, 1/2; 3/4, 1/4
    scores = token_scores(weights, torch.tensor([[0, 1]]))
    assert scores.logprobs.tolist() == [pytest.approx([-0.6931472, -1.3862944])]
    assert scores.entropies.tolist() == [pytest.approx([0.6931472, 0.5623351])]


def test_the_exact_kl_by_hand():
    # From 3/4, 1/4 to 1/2, 1/2: 3/4 log 3/2 + 1/4 log 1/2; and of a distribution to itself exactly 0.
    weights = torch.tensor([[[1.0986123, 0.0, -torch.inf]]])
    even = torch.tensor([[[7.0, 7.0, -torch.inf]]])
    assert token_scores(weights, torch.tensor([[0]]), even).kl.item() == pytest.approx(0.1308121, abs=1e-6)
    assert token_scores(weights, torch.tensor([[0]]), weights.clone()).kl.item() == 0.0


def test_the_sum_over_tokens_has_the_mean_of_the_whole_responses_log_ratio():
    """All 9 responses of two tokens counted out: the mean of their exact token KLs is the KL of responses."""
    first, ref_first = torch.randn(2, 1, 1, 3).unbind()
    second, ref_second = torch.randn(2, 3, 1, 3).unbind()
    nothing = torch.zeros(3, 1, dtype=torch.long)
    of_tokens = token_scores(first, nothing[:1], ref_first).kl + token_scores(second, nothing, ref_second).kl  # (3, 1)
    logprobs = first.log_softmax(-1)[0, 0].unsqueeze(1) + second.log_softmax(-1)[:, 0]
    ref_logprobs = ref_first.log_softmax(-1)[0, 0].unsqueeze(1) + ref_second.log_softmax(-1)[:, 0]
    expected = (logprobs.exp() * (logprobs - ref_logprobs)).sum()
    torch.testing.assert_close((first.softmax(-1)[0, 0] * of_tokens[:, 0]).sum(), expected)


def test_a_token_that_is_not_allowed_is_finite_and_pulls_at_nothing():
    weights = torch.tensor([[[0.0, 0.0, -torch.inf]]], requires_grad=True)
    logprobs = token_scores(weights, torch.tensor([[2]])).logprobs
    assert torch.isfinite(logprobs).all()
    assert logprobs.item() < -1e37
    logprobs.sum().backward()
    assert weights.grad.tolist() == [[[0.0, 0.0, 0.0]]]


def test_an_unlikely_token_keeps_its_log_probability():
    """Its probability is no float32 any more; its logarithm is."""
    weights = torch.tensor([[[0.0, -500.0]]])
    scores = token_scores(weights, torch.tensor([[1]]))
    assert scores.logprobs.item() == pytest.approx(-500.0)
    assert scores.entropies.item() == 0.0


def test_nan_is_not_hidden():
    scores = token_scores(torch.tensor([[[0.0, torch.nan]]]), torch.tensor([[0]]))
    assert scores.logprobs.isnan().all()
    assert scores.entropies.isnan().all()


def test_shapes_are_checked():
    with pytest.raises(ValueError, match="token_ids"):
        token_scores(torch.zeros(1, 2, 3), torch.zeros(1, 3, dtype=torch.long))


def test_autocast_does_not_round_entropies():
    weights = torch.tensor([[[20.0, 0.3, -1.7, -torch.inf]]])  # all but certain: in bfloat16 it would say 0.05 nats
    exact = token_scores(weights, torch.tensor([[0]]))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = token_scores(weights, torch.tensor([[0]]))
        sampled = entropies(weights.log_softmax(-1), weights.softmax(-1))
    assert exact.entropies.item() < 1e-6
    torch.testing.assert_close(cast, exact)
    torch.testing.assert_close(sampled, exact.entropies, atol=1e-6, rtol=0)


@pytest.mark.parametrize("vocabulary", [2, 300])
def test_tokens_come_in_proportion_to_their_probabilities(vocabulary):
    torch.manual_seed(0)
    draws = 20_000
    logprobs = (2 * torch.randn(vocabulary)).log_softmax(-1)
    tokens = draw_tokens(logprobs.exp().expand(draws, -1))
    counts = tokens[:, 0].bincount(minlength=vocabulary)
    assert tokens.shape == (draws, 1)
    assert p_value(counts, logprobs.double().exp() * draws) > 1e-3


def test_rows_are_drawn_independently():
    torch.manual_seed(0)
    rows = torch.tensor([[0.5, 0.5], [0.5, 0.5]]).repeat(2000, 1)
    first, second = draw_tokens(rows)[:, 0].view(-1, 2).unbind(1)
    assert abs((first == second).float().mean().item() - 0.5) < 0.05


@given(
    allowed=st.lists(st.integers(0, 399), min_size=1, max_size=4, unique=True),
    sizes=st.lists(st.floats(-80, 0), min_size=4, max_size=4),
    seed=st.integers(0, 2**32),
)
def test_a_token_that_is_not_allowed_is_never_drawn(allowed, sizes, seed):
    torch.manual_seed(seed)
    weights = torch.full((400,), -torch.inf)
    weights[allowed] = torch.tensor(sizes[: len(allowed)])
    tokens = draw_tokens(weights.softmax(-1).expand(64, -1))
    assert set(tokens[:, 0].tolist()) <= set(allowed)


@pytest.mark.parametrize("vocabulary", [5, 300])
def test_of_nan_some_token_is_drawn_so_that_the_sampler_can_report_it(vocabulary):
    tokens = draw_tokens(torch.full((3, vocabulary), torch.nan))
    assert ((tokens >= 0) & (tokens < vocabulary)).all()


def test_a_uniform_number_of_zero_draws_no_forbidden_token(monkeypatch):
    monkeypatch.setattr(torch, "rand_like", torch.zeros_like)
    assert draw_tokens(torch.tensor([[0.0, 0.0, 1.0]])).tolist() == [[2]]


def test_a_rare_token_is_drawn_as_often_as_it_is_likely(monkeypatch):
    # The likely token's time is 1. The rare one comes first where its own is below p: a share of 1 - exp(-p) of the
    # uniform numbers, those above exp(-p), which float32 cannot tell from 1.
    p = 1e-9
    for rare, token in ((1 - p / 2, 1), (1 - 2 * p, 0)):
        uniform = torch.tensor([[torch.e**-1, rare]], dtype=torch.float64)
        monkeypatch.setattr(torch, "rand_like", lambda like, dtype=None, drawn=uniform: drawn.to(dtype or like.dtype))
        assert draw_tokens(torch.tensor([[1.0 - p, p]])).tolist() == [[token]]
