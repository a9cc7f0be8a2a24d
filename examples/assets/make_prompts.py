"""Makes the bundled prompts: passages of two or three consecutive short sentences from UD English EWT.

Held-out prompts come from held-out documents only (`corpus.is_held_out`), training prompts from the rest. The sentence
filter and `split_sentences` live here and the tiny T5 is trained with them, so a passage means the same to both.
Leaves out: labels, and any judgement of what the sentences say.

    python examples/assets/make_prompts.py --documents DATA/documents/ewt.jsonl --out FOLDER
"""

import argparse
import json
import random
import re
from collections.abc import Iterator
from pathlib import Path

from corpus import Document, read_documents, split_documents

from trl_rewards_plugin.assets import write_checksums

LEAST_WORDS, MOST_WORDS = 4, 16  # white-space words of one sentence
MOST_CHARACTERS = 260  # of one passage: at most some 85 pieces of the tiny T5
MOST_A_DOCUMENT = 3  # passages

_END = re.compile(r"""[.!?]["'”\u2019)]*$""")
_START = re.compile(r"""^["'“\u2018(]?[A-Za-z]""")
_BORDER = re.compile(r"""(?<=[.!?])(["'”\u2019)]*)\s+""")
_NOT_PROSE = re.compile(
    r"https?:|www\.|\.com\b|\.org\b|\.net\b|\.gov\b|@|[<>|=_*#\\{}\[\]~^+]|--|\d[-.]\d{3}|\s[.,;:!?](?:\s|$)|\.\.|[!?]{4}"
    r"|^(from|to|cc|subject|date|sent|re|fw|fwd|tel|phone|fax|e-?mail)\b\.?\s*:|\S{21}",
    re.IGNORECASE,
)

README = """# Prompts

{train} training and {held_out} held-out passages for demonstration and tests; nothing else.

Each row of `train.jsonl` and `heldout.jsonl` is `{{"prompt": passage, "id": document}}`. A passage is two or three
consecutive sentences of one paragraph, each of {least} to {most} words, joined by one space. Sentences that are no
prose (addresses, headers, tables, mostly capitals or digits, no final punctuation) are skipped. No sentence is in two
passages, and a document gives at most {a_document} passages. Held-out passages come from documents that none of the
bundled models was trained on.

Origin: Universal Dependencies English EWT (weblogs, newsgroups, e-mail, reviews and answers of the English Web
Treebank), https://github.com/UniversalDependencies/UD_English-EWT, by Natalia Silveira, Timothy Dozat, Marie-Catherine
de Marneffe, Samuel Bowman, Miriam Connor, John Bauer, Christopher Manning, Nathan Schneider and other contributors.
Licence: CC BY-SA 4.0, https://creativecommons.org/licenses/by-sa/4.0/. These prompts are excerpts of it, selected and
joined as described above, and are under the same licence.

Made by `python examples/assets/make_prompts.py --documents DATA/documents/ewt.jsonl --out FOLDER --seed {seed}`.
"""


def is_prose(sentence: str) -> bool:
    """True for a sentence of 4 to 16 words that begins with a letter, ends in . ! or ? and reads like running text."""
    if not LEAST_WORDS <= len(sentence.split()) <= MOST_WORDS or _NOT_PROSE.search(sentence):
        return False
    if not (_START.search(sentence) and _END.search(sentence)) or not _is_balanced(sentence):
        return False
    letters = [character for character in sentence if character.isalpha()]
    capitals = sum(character.isupper() for character in letters)
    signs = sum(not (character.isalpha() or character.isspace()) for character in sentence)
    return capitals <= 0.25 * len(letters) and signs <= 0.15 * len(sentence)


def _is_balanced(sentence: str) -> bool:
    return sentence.count('"') % 2 == 0 and sentence.count("(") == sentence.count(")")


def split_sentences(passage: str) -> list[str]:
    """The sentences of a passage: it is cut at white space behind . ! or ? and any closing quotes or brackets.

    Every bundled prompt splits into exactly the sentences it was made of.
    """
    return _BORDER.sub(r"\1\n", passage.strip()).split("\n")


def passages(document: Document) -> Iterator[list[str]]:
    """Every run of 2 or 3 consecutive, different prose sentences in a paragraph that `split_sentences` can undo."""
    for paragraph in document.paragraphs:
        tidy = [" ".join(sentence.split()) for sentence in paragraph]
        for count in (2, 3):
            for start in range(len(tidy) - count + 1):
                run = tidy[start : start + count]
                if all(map(is_prose, run)) and len(set(run)) == count and split_sentences(" ".join(run)) == run:
                    yield run


def draw_prompts(documents: list[Document], count: int, seed: int) -> list[dict[str, str]]:
    """`count` prompts in random order; documents take turns, and no sentence is used twice.

    Raises:
        SystemExit: the documents hold fewer passages than that.
    """
    rng = random.Random(seed)
    documents = sorted(documents, key=lambda document: document.id)
    rng.shuffle(documents)
    choices = {document.id: [run for run in passages(document) if len(" ".join(run)) <= MOST_CHARACTERS]
               for document in documents}  # fmt: skip
    rows: list[dict[str, str]] = []
    used: set[str] = set()
    for _ in range(MOST_A_DOCUMENT):
        for document in documents:
            free = [run for run in choices[document.id] if used.isdisjoint(run)]
            if free and len(rows) < count:
                longer = rng.choice((2, 3))
                run = rng.choice([run for run in free if len(run) == longer] or free)
                used.update(run)
                rows.append({"prompt": " ".join(run), "id": document.id})
    if len(rows) < count:
        raise SystemExit(f"Expected: documents with {count} passages\nFound: {len(rows)}\nNext: pass more documents")
    rng.shuffle(rows)
    return rows


def write_rows(rows: list[dict[str, str]], path: Path) -> None:
    """One JSON object a line."""
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    path.write_text("".join(lines), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=Path, required=True, help="ewt.jsonl")
    parser.add_argument("--out", type=Path, required=True, help="folder for the prompts")
    parser.add_argument("--train", type=int, default=320, help="training prompts (default %(default)s)")
    parser.add_argument("--held-out", type=int, default=96, help="held-out prompts (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--smoke", action="store_true", help="8 + 4 prompts, to check that the script works")
    options = parser.parse_args()
    counts = {"train": 8, "held_out": 4} if options.smoke else {"train": options.train, "held_out": options.held_out}

    training, held_out = split_documents(read_documents(options.documents))
    options.out.mkdir(parents=True, exist_ok=True)
    write_rows(draw_prompts(training, counts["train"], options.seed), options.out / "train.jsonl")
    write_rows(draw_prompts(held_out, counts["held_out"], options.seed), options.out / "heldout.jsonl")
    words = {"least": LEAST_WORDS, "most": MOST_WORDS, "a_document": MOST_A_DOCUMENT}
    readme = README.format(**counts, **words, seed=options.seed)
    (options.out / "README.md").write_text(readme, encoding="utf-8")
    write_checksums(options.out)
    print(f"{counts['train']} training and {counts['held_out']} held-out prompts in {options.out}")


if __name__ == "__main__":
    main()
