"""The output matrix in slices says what the model says, and keeps no logits of B x T x V."""

import copy

import pytest
import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from tests.tiny_models import tiny_bart, tiny_t5
from trl_rewards_plugin.ppo.architectures.families import make_deterministic
from trl_rewards_plugin.ppo.policy.output_head import Anchor, OutputHead, head_is_whole, score_in_slices
from trl_rewards_plugin.ppo.policy.policy import score_responses, teacher_forced
from trl_rewards_plugin.ppo.policy.prompts import tokenize_prompts
from trl_rewards_plugin.ppo.policy.token_rules import token_rules

PROMPTS = ["the cat", "a big dog eats old fish near the river ."]


@pytest.fixture(params=[tiny_t5, tiny_bart], ids=["t5", "bart"])
def case(request, tmp_path):
    folder = request.param(tmp_path)
    model = AutoModelForSeq2SeqLM.from_pretrained(folder)
    make_deterministic(model)
    if hasattr(model, "final_logits_bias"):
        model.final_logits_bias.normal_()
    rules = token_rules(model, temperature=0.7, min_new_tokens=3)
    batch, _ = tokenize_prompts(PROMPTS, AutoTokenizer.from_pretrained(folder), 32)
    responses = torch.randint(5, 20, (2, 7))
    return model, rules, batch, responses


def test_slices_give_the_model_s_own_numbers_and_gradients(case, monkeypatch):
    model, rules, batch, responses = case
    assert head_is_whole(model, rules)
    monkeypatch.setattr("trl_rewards_plugin.ppo.policy.policy.score_in_slices", small_slices)
    found = []
    for sliced in (False, True):
        model.zero_grad()
        (logprobs, entropies, _), hidden, _ = score_responses(model, batch, responses, rules, sliced=sliced)
        (logprobs * torch.arange(7.0)).sum().backward()
        gradients = {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}
        found.append((logprobs, entropies, hidden, gradients))
    (logprobs, entropies, hidden, gradients), sliced = found
    torch.testing.assert_close(sliced[0], logprobs)
    torch.testing.assert_close(sliced[1], entropies)
    torch.testing.assert_close(sliced[2], hidden)
    assert gradients.keys() == sliced[3].keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(sliced[3][name], gradient, atol=1e-5, rtol=1e-4, msg=name)


def small_slices(head, features, token_ids, rules, anchor):
    """Two steps at a time, or one where there is an anchor."""
    return score_in_slices(head, features, token_ids, rules, anchor, slice_size=2 * len(token_ids) * 48)


def test_the_exact_kl_is_that_of_all_logits_under_temperature_and_token_rules(case):
    model, rules, batch, responses = case
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    features = score_responses(other, batch, responses, rules, sliced=True)[2]
    logs, ref_logs = (teacher_forced(each, batch, responses, rules)[0].log_softmax(-1) for each in (model, other))
    allowed = logs > -torch.inf
    assert 0 < allowed.sum() < allowed.numel()
    terms = logs.exp() * (logs - ref_logs.detach()).masked_fill(~allowed, 0.0)
    expected, weights, found = terms.sum(-1), torch.arange(7.0), []
    for slice_size in (2 * len(responses) * 48, 2**25):
        anchor = Anchor(OutputHead(other), features)
        own = score_responses(model, batch, responses, rules, sliced=True)[2]
        kl = score_in_slices(OutputHead(model), own, responses, rules, anchor, slice_size).kl
        torch.testing.assert_close(kl, expected)
        found.append(torch.autograd.grad((kl * weights).sum(), list(model.parameters()), allow_unused=True))
    found.append(torch.autograd.grad((expected * weights).sum(), list(model.parameters()), allow_unused=True))
    for *ours, theirs in zip(*found, strict=True):
        for gradient in ours:
            assert (gradient is None) == (theirs is None)
            if theirs is not None:
                torch.testing.assert_close(gradient, theirs, atol=1e-5, rtol=1e-4)
    assert all(parameter.grad is None for parameter in other.parameters())


def test_no_tensor_of_all_logits_is_made_or_kept(case, monkeypatch):
    model, rules, batch, responses = case
    vocabulary = OutputHead(model).matrix.weight.shape[0]
    everything = responses.numel() * vocabulary
    monkeypatch.setattr(
        "trl_rewards_plugin.ppo.policy.policy.score_in_slices",
        lambda *arguments: score_in_slices(*arguments, slice_size=2 * vocabulary),
    )
    kept = []

    def keep(tensor):
        kept.append(tensor.numel())
        return tensor

    features = score_responses(model, batch, responses, rules, sliced=True)[2].detach()
    for sliced, anchor in ((True, None), (True, Anchor(OutputHead(model), features)), (False, None)):
        kept.clear()
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            score_responses(model, batch, responses, rules, sliced=sliced, anchor=anchor)
        weights = {parameter.numel() for parameter in model.parameters()}
        assert (max(size for size in kept if size not in weights) >= everything) == (not sliced)


def test_a_head_that_is_not_the_whole_story_is_seen(case):
    model, rules, _, _ = case
    forward = model.forward

    def doubled(*args, **kwargs):
        outputs = forward(*args, **kwargs)
        outputs.logits = outputs.logits * 2
        return outputs

    model.forward = doubled
    assert not head_is_whole(model, rules)
