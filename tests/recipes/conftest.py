"""Keeps `datasets` from writing into the user's cache."""

import pytest

from tests.recipes.tiny_run import TinyRun, make_tiny_run


@pytest.fixture(scope="session", autouse=True)
def _datasets_cache(tmp_path_factory):
    import datasets

    patch = pytest.MonkeyPatch()
    patch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("datasets"))
    yield
    patch.undo()


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory) -> TinyRun:
    return make_tiny_run(tmp_path_factory.mktemp("tiny_run"))
