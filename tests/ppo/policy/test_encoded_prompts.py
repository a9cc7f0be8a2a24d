"""EncodedPrompts: rows are repeated, selected and moved together, with and without encoder states."""

import torch

from trl_rewards_plugin.ppo.policy.encoded_prompts import EncodedPrompts


def test_ids_mask_and_states_are_repeated_and_selected_together():
    ids = torch.tensor([[5, 6], [7, 0]])
    prompts = EncodedPrompts(ids, ids > 0, ids.unsqueeze(-1).float())
    twice = prompts.repeat(2)
    assert len(twice) == 4
    assert twice.ids[:, 0].tolist() == twice.states[:, 0, 0].tolist() == [5, 5, 7, 7]
    again = twice.select(slice(None, None, 2))
    assert torch.equal(again.ids, ids)
    assert torch.equal(again.mask, ids > 0)
    assert torch.equal(twice.select(torch.tensor([2])).states, prompts.states[1:])


def test_prompts_that_were_not_encoded_stay_without_states():
    ids = torch.tensor([[5, 6]])
    prompts = EncodedPrompts(ids, ids > 0)
    assert prompts.repeat(2).select(slice(1)).to(torch.device("cpu")).states is None
    assert prompts.with_states(ids.unsqueeze(-1)).with_states(None) == prompts
