"""Spoils real sentences the way a bad generator does: the negatives of an acceptability judge.

Leaves out: finding out whether a spoilt sentence happens to be fine still; a few are (a dropped adverb).
"""

import random
from collections.abc import Callable, Sequence

FUNCTION_WORDS = (
    "a an the of to in on at by for from with about into over and or but if that which who is are was were be been "
    "has have had do does did will would can could should not no he she it they we you his her its their this these"
)
NUMBERS = (("is", "are"), ("was", "were"), ("has", "have"), ("does", "do"), ("this", "these"), ("that", "those"))
AGREEMENT = {word: other for pair in NUMBERS for word, other in (pair, reversed(pair))}
TRAILING = ("like", "so", "well", "and", "but", "the", "of", "to", "then", "you know", "I mean")
END_MARKS = ".!?"
TRIES = 20

Spoil = Callable[[list[str], random.Random, Sequence[str]], list[str]]


def corrupt(sentence: str, rng: random.Random, words: Sequence[str], kinds: dict[str, float] | None = None) -> str:
    """One spoilt copy of `sentence`, which has one word or more; `words` is where a random word comes from.

    In half the copies the end mark stays at the end, so that a mark in mid-sentence is no sure sign.
    """
    kinds = kinds or WEIGHTS
    for _ in range(TRIES):
        kind = rng.choices(list(kinds), list(kinds.values()))[0]
        body = sentence.rstrip(END_MARKS) if rng.random() < 0.5 else sentence
        if not body.strip():
            body = sentence
        spoilt = " ".join(SPOILS[kind](body.split(), rng, words)) + sentence[len(body) :]
        if spoilt.split() != sentence.split():
            return spoilt
    return " ".join(double(sentence.split(), rng, words))  # "no no no no" stays the same whatever is swapped


def drop(tokens: list[str], rng: random.Random, words: Sequence[str]) -> list[str]:
    """One word is missing."""
    at = rng.randrange(len(tokens))
    return tokens[:at] + tokens[at + 1 :]


def double(tokens: list[str], rng: random.Random, words: Sequence[str]) -> list[str]:
    """One word comes twice."""
    at = rng.randrange(len(tokens))
    return [*tokens[: at + 1], *tokens[at:]]


def swap_adjacent(tokens: list[str], rng: random.Random, words: Sequence[str]) -> list[str]:
    """Two neighbours change places."""
    at = rng.randrange(max(len(tokens) - 1, 1))
    return [*tokens[:at], *reversed(tokens[at : at + 2]), *tokens[at + 2 :]]


def swap_any(tokens: list[str], rng: random.Random, words: Sequence[str]) -> list[str]:
    """Two words change places."""
    left, right = rng.randrange(len(tokens)), rng.randrange(len(tokens))
    swapped = list(tokens)
    swapped[left], swapped[right] = tokens[right], tokens[left]
    return swapped


def shuffle(tokens: list[str], rng: random.Random, words: Sequence[str]) -> list[str]:
    """All words in a random order."""
    return rng.sample(tokens, len(tokens))


def cut_end(tokens: list[str], rng: random.Random, words: Sequence[str]) -> list[str]:
    """The end is missing: one word to half of them."""
    return tokens[: -rng.randint(1, max(len(tokens) // 2, 1))]


def repeat_span(tokens: list[str], rng: random.Random, words: Sequence[str]) -> list[str]:
    """Two to four words come twice or, as in a loop, more often."""
    at = rng.randrange(len(tokens))
    span = tokens[at : at + rng.randint(2, 4)]
    return tokens[:at] + span * rng.choice((2, 2, 3, 4)) + tokens[at + len(span) :]


def replace_function_word(tokens: list[str], rng: random.Random, words: Sequence[str]) -> list[str]:
    """One function word becomes another; nothing happens where there is none."""
    function_words = FUNCTION_WORDS.split()
    places = [at for at, token in enumerate(tokens) if token.lower() in function_words]
    replaced = list(tokens)
    if places:
        replaced[rng.choice(places)] = rng.choice(function_words)
    return replaced


def replace_word(tokens: list[str], rng: random.Random, words: Sequence[str]) -> list[str]:
    """One word becomes a random one."""
    replaced = list(tokens)
    replaced[rng.randrange(len(tokens))] = rng.choice(words)
    return replaced


def garble_word(tokens: list[str], rng: random.Random, words: Sequence[str]) -> list[str]:
    """One word is joined from the beginning of itself and the end of a random one."""
    at, other = rng.randrange(len(tokens)), rng.choice(words)
    garbled = list(tokens)
    garbled[at] = tokens[at][: rng.randint(1, len(tokens[at]))] + other[len(other) // 2 :]
    return garbled


def exchange_agreement(tokens: list[str], rng: random.Random, words: Sequence[str]) -> list[str]:
    """One word takes another number or tense: is and are, dog and dogs, called and calling; or nothing happens."""
    exchanged = list(tokens)
    places = [at for at, word in enumerate(tokens) if word.lower() in AGREEMENT or (word.isalpha() and len(word) > 3)]
    if places:
        at = rng.choice(places)
        word = tokens[at]
        for ending, other in (("ed", "ing"), ("ing", "ed"), ("s", ""), ("", "s")):
            if word.endswith(ending):
                exchanged[at] = AGREEMENT.get(word.lower(), word.removesuffix(ending) + other)
                break
    return exchanged


def trail_off(tokens: list[str], rng: random.Random, words: Sequence[str]) -> list[str]:
    """One to three words too many at the end, as of a generator that does not stop."""
    return [*tokens, *(rng.choice((*TRAILING, rng.choice(tokens))) for _ in range(rng.choice((1, 1, 2, 3))))]


def degenerate(tokens: list[str], rng: random.Random, words: Sequence[str]) -> list[str]:
    """Next to nothing: empty, a lone mark, or one word over and over."""
    return rng.choice(([], ["."], [rng.choice(tokens)] * rng.randint(2, 12)))


SPOILS: dict[str, Spoil] = {
    "drop": drop,
    "double": double,
    "swap_adjacent": swap_adjacent,
    "swap_any": swap_any,
    "shuffle": shuffle,
    "cut_end": cut_end,
    "repeat_span": repeat_span,
    "replace_function_word": replace_function_word,
    "replace_word": replace_word,
    "garble_word": garble_word,
    "exchange_agreement": exchange_agreement,
    "trail_off": trail_off,
    "degenerate": degenerate,
}
MEASURED = ("drop", "double", "swap_adjacent", "swap_any")  # the kinds that a judge's ranking is measured on
WEIGHTS = {
    "drop": 0.26,
    "double": 0.14,
    "swap_adjacent": 0.16,
    "swap_any": 0.14,
    "shuffle": 0.02,
    "cut_end": 0.07,
    "repeat_span": 0.05,
    "replace_function_word": 0.05,
    "replace_word": 0.05,
    "garble_word": 0.04,
    "exchange_agreement": 0.08,
    "trail_off": 0.06,
    "degenerate": 0.02,
}
