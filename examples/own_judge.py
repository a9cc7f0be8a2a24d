"""A judge of your own from a CSV file with the columns text and label.

    python examples/own_judge.py my.csv judge distilbert/distilroberta-base    # from an encoder of the Hub
    python examples/own_judge.py                                               # offline, with data to try it on

Without a file it learns to tell whole sentences from cut ones, from the bundled prompts, starting from the bundled
acceptability judge. Leaves out: choosing among epochs, and harder texts. Prints:

    judge: labels cut, whole; accuracy 0.77 on 128 rows kept aside, 0.51 by always guessing the most frequent label
"""

import sys
from pathlib import Path

from trl_rewards_plugin.assets import asset_path
from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.rows import format_of, read_rows


def sentences() -> list[dict[str, str]]:
    """The bundled prompts' last sentences, whole and cut, without the mark that would give them away."""
    prompts = read_rows(str(asset_path("prompts") / "train.jsonl"), "jsonl", "prompt")
    whole = [row["prompt"].rstrip(" .!?").split(". ")[-1] for row in prompts]
    cut = [" ".join(text.split()[: 2 * len(text.split()) // 3]) for text in whole]
    return [{"text": text, "label": label} for label, texts in {"whole": whole, "cut": cut}.items() for text in texts]


def read_labelled(path: str) -> list[dict[str, str]]:
    """The rows of a file, each with a text and a label; anything else is refused."""
    rows = [(row.get("text"), row.get("label"), row) for row in read_rows(path, format_of(path), "text")]
    bad = next((f"row {n}: {row}"[:99] for n, (*pair, row) in enumerate(rows, 1) if None in pair), None)
    if bad or len({label for _, label, _ in rows}) < 2:
        expected = f"the columns text and label in {path}, filled in every row, with two labels or more"
        raise InputError(expected, bad or f"{len(rows)} rows, one label", "rename or fill the columns")
    return [{"text": str(text), "label": str(label)} for text, label, _ in rows]


def main(path: str | None = None, folder: str = "judge", encoder: str | None = None, **settings) -> float:
    """Trains, saves the judge, and returns its accuracy on the fifth of the rows that were kept aside."""
    if Path(folder).is_file() or any(Path(folder).glob("*")):
        raise InputError("a new or empty folder for the judge", f"{folder}, which holds files", "name another one")
    labelled = read_labelled(path) if path else sentences()
    from datasets import Dataset  # torch is loaded after what can be refused
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, Trainer, TrainingArguments

    from trl_rewards_plugin import ClassifierReward

    rows, labels = Dataset.from_list(labelled), sorted({row["label"] for row in labelled})
    tokenizer = AutoTokenizer.from_pretrained(start := encoder or str(asset_path("acceptability-judge")))
    model = AutoModelForSequenceClassification.from_pretrained(
        start, id2label=dict(enumerate(labels)), label2id={label: i for i, label in enumerate(labels)},
        ignore_mismatched_sizes=True, dtype="float32",
    )  # fmt: skip
    encoded = rows.map(lambda row: tokenizer(row["text"], truncation=True, max_length=128))
    encoded = encoded.map(lambda row: {"labels": labels.index(row["label"])}, remove_columns=["text", "label"])
    parts = encoded.train_test_split(0.2, seed=0)
    defaults = {"num_train_epochs": 3, "learning_rate": 1e-4, "per_device_train_batch_size": 16, "report_to": "none"}
    args = TrainingArguments(".", save_strategy="no", dataloader_pin_memory=False, **{**defaults, **settings})
    trainer = Trainer(model, args, train_dataset=parts["train"], processing_class=tokenizer)
    trainer.train()
    trainer.save_model(folder)  # made only now: an interrupted run leaves none
    logits, truth, _ = trainer.predict(parts["test"])
    accuracy = float((logits.argmax(1) == truth).mean())
    print(f"{folder}: labels {', '.join(labels)}; accuracy {accuracy:.2f} on {len(truth)} rows kept aside, ", end="")
    print(f"{max((truth == label).mean() for label in set(truth)):.2f} by always guessing the most frequent label")
    print(ClassifierReward(folder, label=labels[-1])(["The cat sleeps on the mat", "The cat sleeps on"]))
    return accuracy


if __name__ == "__main__":
    try:
        print(__doc__) if {"-h", "--help"} & {*sys.argv} else main(*sys.argv[1:])
    except InputError as error:
        print(f"input refused{error}", file=sys.stderr)
        sys.exit(2)
