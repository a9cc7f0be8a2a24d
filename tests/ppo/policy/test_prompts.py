from transformers import AutoTokenizer

from tests.tiny_models import tiny_t5
from trl_rewards_plugin.ppo.policy.prompts import as_read


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
