import torch
from transformers import AutoTokenizer

from tests.tiny_models import tiny_t5
from trl_rewards_plugin.ppo.policy.prompts import EncodedPrompts, as_read


class SlowTokenizer:
    """One token a word and an end; it does not say where in the text a token lies."""

    is_fast = False

    def __call__(self, text, truncation=False, max_length=None, **options):
        words = text.split()
        return {"input_ids": [*(words[: max_length - 1] if truncation else words), "</s>"]}

    def decode(self, ids, skip_special_tokens):
        assert skip_special_tokens
        return " ".join(ids[:-1])


def test_a_cut_prompt_is_the_start_of_its_own_text(tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(tiny_t5(tmp_path))
    texts = ["the  cat  sleeps  on  the  mat .", "the  cat"]
    assert as_read(texts, tokenizer, 4) == ["the  cat  sleeps", "the  cat"]


def test_a_tokenizer_without_places_decodes_what_it_kept():
    assert as_read(["a b  c d", "a  b"], SlowTokenizer(), 3) == ["a b", "a  b"]


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
