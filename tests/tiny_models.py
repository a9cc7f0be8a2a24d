"""Tiny random models with their tokenizers, built offline and saved to a folder, for any test that needs one.

The weights are wide (standard deviation 0.3 and the like), so that different texts get clearly different logits.
Leaves out: models that judge or write anything sensible; those are the bundled assets.
"""

import string
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertForSequenceClassification,
    BertTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForSequenceClassification,
    RobertaTokenizer,
    T5Config,
    T5ForConditionalGeneration,
)

_WORD_LINES = (
    "a and are at bad big black blue book boy by car cat city cold come cup day dog door down eat fish fly food for "
    "from game garden girl give go good great green happy has he her high him his home house in is it keep kind know "
    "lake like little long look love make man milk moon more morning music my near new night no not of old on one "
    "open or our out over park people play rain read red river road run sad sea see she sing sit sky sleep slow small "
    "snow some song speak star stone sun table take talk tell that the they this time to town train tree two under up "
    "very walk warm was water way we well white who wind with woman wood work write yes you : . , ! ?"
)
WORDS = _WORD_LINES.split()


def tiny_classifier(
    folder: Path | str,
    labels: tuple[str, ...] = ("unacceptable", "acceptable"),
    problem_type: str | None = None,
    model_type: str = "roberta",
    seed: int = 0,
) -> Path:
    """Saves a random sequence classifier with these `labels` and its tokenizer; returns the folder.

    "roberta": every byte is a token, so any text can be told from any other; 514 positions and a tokenizer without
    a model_max_length, as the article's classifiers have. "bert": WordPiece over WORDS and letters, 512 positions.
    """
    folder = Path(folder)
    common = {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "initializer_range": 0.3,
        "id2label": dict(enumerate(labels)),
        "label2id": {label: index for index, label in enumerate(labels)},
        "problem_type": problem_type,
    }
    torch.manual_seed(seed)
    model: PreTrainedModel
    if model_type == "roberta":
        specials = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
        letters = sorted(pre_tokenizers.ByteLevel.alphabet())
        vocab = {token: index for index, token in enumerate(specials + letters)}
        RobertaTokenizer(vocab=vocab, merges=[]).save_pretrained(folder)
        model = RobertaForSequenceClassification(
            RobertaConfig(vocab_size=len(vocab), max_position_embeddings=514, type_vocab_size=1, **common)
        )
    elif model_type == "bert":
        specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        letters = list(string.ascii_lowercase + string.digits + string.punctuation)
        pieces = dict.fromkeys(specials + letters + [f"##{letter}" for letter in letters] + WORDS)
        vocab = {token: index for index, token in enumerate(pieces)}
        BertTokenizer(vocab=vocab, model_max_length=512).save_pretrained(folder)
        model = BertForSequenceClassification(BertConfig(vocab_size=len(vocab), **common))
    else:
        raise ValueError(f"model_type must be 'roberta' or 'bert', not {model_type!r}")
    model.save_pretrained(folder)
    return folder


def tiny_t5(folder: Path | str, seed: int = 0) -> Path:
    """Saves a random T5 (pad = decoder start = 0, eos = 1) with a tokenizer over WORDS; returns the folder.

    As in FLAN-T5 the feed-forward is gated and the `lm_head` is a tensor of its own.
    """
    folder = Path(folder)
    tokenizer = _word_tokenizer(["<pad>", "</s>", "<unk>"], "$A </s>")
    tokenizer.save_pretrained(folder)
    torch.manual_seed(seed)
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=32,
        d_kv=8,
        d_ff=64,
        num_layers=2,
        num_heads=4,
        feed_forward_proj="gated-gelu",
        pad_token_id=0,
        eos_token_id=1,
        decoder_start_token_id=0,
    )
    model = T5ForConditionalGeneration(config)
    # transformers 5 ties every new T5; two different tensors in the checkpoint untie it.
    model.lm_head.weight = torch.nn.Parameter(0.2 * torch.randn(len(tokenizer), config.d_model))
    model.save_pretrained(folder)
    return folder


def tiny_bart(folder: Path | str, seed: int = 0) -> Path:
    """Saves a random BART (bos 0, pad 1, eos = decoder start = 2) with a tokenizer over WORDS; returns the folder."""
    folder = Path(folder)
    tokenizer = _word_tokenizer(["<s>", "<pad>", "</s>", "<unk>"], "<s> $A </s>")
    tokenizer.save_pretrained(folder)
    torch.manual_seed(seed)
    config = BartConfig(
        vocab_size=len(tokenizer),
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        max_position_embeddings=128,
        init_std=0.2,
        bos_token_id=0,
        pad_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=2,
        forced_eos_token_id=2,
    )
    BartForConditionalGeneration(config).save_pretrained(folder)
    return folder


def _word_tokenizer(specials: list[str], template: str) -> PreTrainedTokenizerFast:
    """One token a word or mark of WORDS, <unk> for any other; `template` says where the special tokens go."""
    vocab = {token: index for index, token in enumerate(specials + WORDS)}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=template, special_tokens=[(token, vocab[token]) for token in specials]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        bos_token="<s>" if "<s>" in vocab else None,
        model_max_length=128,
    )
