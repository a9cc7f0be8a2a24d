"""A Hub cache without the Hub: tiny random models and twenty rows under the real names.

Leaves out: the real models.
"""

import shutil
from pathlib import Path

from datasets import Dataset, load_dataset

from tests.recipes.tiny_run import sentences
from tests.tiny_models import tiny_classifier, tiny_t5

REVISION = "0123456789abcdef0123456789abcdef01234567"
NEWS = "argilla/news-summary"


def snapshot(home: Path, name: str, kind: str = "models") -> Path:
    """The folder in which the Hub cache under `home` keeps the files of `name`."""
    root = home / "hub" / f"{kind}--{name.replace('/', '--')}"
    (root / "refs").mkdir(parents=True)
    (root / "refs" / "main").write_text(REVISION, encoding="utf-8")
    folder = root / "snapshots" / REVISION
    folder.mkdir(parents=True)
    return folder


def news_rows() -> Dataset:
    """Twenty rows in the real columns."""
    rows = [
        {"text": text, "prediction": [{"text": text.split(".")[0], "score": 1.0}], "id": str(index)}
        for index, text in enumerate(sentences(20))
    ]
    return Dataset.from_list(rows)


def article_home(folder: Path) -> Path:
    """An HF_HOME under `folder` with the article's four names, as earlier runs leave them there."""
    home = folder / "home"
    tiny_t5(snapshot(home, "google/flan-t5-small"))
    tiny_classifier(snapshot(home, "textattack/roberta-base-CoLA"), ("LABEL_0", "LABEL_1"))
    sentiment = snapshot(home, "cardiffnlp/twitter-roberta-base-sentiment")
    tiny_classifier(sentiment, ("LABEL_0", "LABEL_1", "LABEL_2"), seed=1)
    source = folder / "news-summary" / "data"
    source.mkdir(parents=True)
    news_rows().to_parquet(source / "train-00000-of-00001.parquet")
    built = folder / "built"
    load_dataset(str(source.parent), cache_dir=str(built))
    # An earlier load_dataset of the Hub id leaves the same files under <owner>___<name>.
    (built_set,) = (path for path in built.iterdir() if path.is_dir() and "news" in path.name)
    shutil.copytree(built_set, home / "datasets" / NEWS.replace("/", "___"))
    return home
