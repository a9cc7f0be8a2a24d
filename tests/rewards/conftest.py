"""What several files of this folder watch."""

import pytest
from transformers import AutoModelForSequenceClassification


@pytest.fixture
def loads(monkeypatch):
    """The arguments with which classifiers are loaded, one entry a load."""
    calls = []
    from_pretrained = AutoModelForSequenceClassification.from_pretrained

    def counted(*args, **kwargs):
        calls.append(args)
        return from_pretrained(*args, **kwargs)

    monkeypatch.setattr(AutoModelForSequenceClassification, "from_pretrained", counted)
    return calls
