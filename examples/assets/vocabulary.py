"""Cuts a BERT's word-piece vocabulary, which is half of a small model, to the pieces that its texts need.

A word whose piece is gone falls back on smaller pieces, down to single characters, so ordinary text never becomes
[UNK]. Leaves out: learning new pieces; only rows of the old embedding are kept.
"""

from collections import Counter
from collections.abc import Iterable

import torch
from transformers import BertTokenizer, PreTrainedModel, PreTrainedTokenizerBase

COMMON_WORDS = 1500  # of BERT's own order, which from the first whole word on is by frequency
COMMON_ENDINGS = 300  # word-internal pieces, in the same order
LAST_LATIN = 0x24F  # characters up to here are kept, seen or not
PUNCTUATION = range(0x2010, 0x2070)  # dashes, curly quotes, ellipsis
SPECIAL_ROLES = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")


def cut_vocabulary(
    tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel, texts: Iterable[str], size: int, positions: int
) -> PreTrainedTokenizerBase:
    """The tokenizer with at most `size` pieces; `model` loses the other embedding rows, in place.

    Positions are cut to the first `positions`, and both configurations say so.
    """
    pieces = choose_pieces(tokenizer, texts, size)
    old = tokenizer.get_vocab()
    rows = torch.tensor([old[piece] for piece in pieces])
    embeddings = model.base_model.embeddings
    embeddings.word_embeddings = _kept_rows(embeddings.word_embeddings, rows)
    embeddings.word_embeddings.padding_idx = pieces.index(tokenizer.pad_token)
    positions = min(positions, model.config.max_position_embeddings)
    embeddings.position_embeddings = _kept_rows(embeddings.position_embeddings, torch.arange(positions))
    embeddings.position_ids = embeddings.position_ids[:, :positions].clone()
    embeddings.token_type_ids = embeddings.token_type_ids[:, :positions].clone()
    model.config.vocab_size = len(pieces)
    model.config.pad_token_id = pieces.index(tokenizer.pad_token)
    model.config.max_position_embeddings = positions
    vocabulary = {piece: row for row, piece in enumerate(pieces)}
    return BertTokenizer(vocab=vocabulary, do_lower_case=True, model_max_length=positions)


def choose_pieces(tokenizer: PreTrainedTokenizerBase, texts: Iterable[str], size: int) -> list[str]:
    """Special tokens, characters and BERT's commonest pieces, then the pieces most frequent in `texts`."""
    old = tokenizer.get_vocab()
    order = sorted(old, key=old.__getitem__)
    kept = [getattr(tokenizer, role) for role in SPECIAL_ROLES]
    kept += [piece for piece in order if _is_plain_character(piece)]
    words = [piece for piece in order if piece[0].isalpha() and len(piece) > 1]
    endings = [piece for piece in order if piece.startswith("##") and piece[2:].isalpha() and len(piece) > 3]
    kept += words[:COMMON_WORDS] + endings[:COMMON_ENDINGS]
    counts = Counter(piece for text in texts for piece in tokenizer.tokenize(text))
    kept += sorted(counts, key=lambda piece: (-counts[piece], old[piece]))
    return list(dict.fromkeys(kept))[:size]


def _is_plain_character(piece: str) -> bool:
    character = piece[2:] if piece.startswith("##") else piece
    return len(character) == 1 and (ord(character) <= LAST_LATIN or ord(character) in PUNCTUATION)


def _kept_rows(table: torch.nn.Embedding, rows: torch.Tensor) -> torch.nn.Embedding:
    return torch.nn.Embedding.from_pretrained(table.weight.detach()[rows].clone(), freeze=False)
