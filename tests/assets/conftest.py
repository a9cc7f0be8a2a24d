"""The scripts of examples/assets as modules, for all tests in this folder."""

import pytest

from tests.assets.made_up import SCRIPTS


@pytest.fixture
def scripts(monkeypatch):
    """Makes the modules beside the scripts importable."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
