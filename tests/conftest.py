"""Every test starts from the same random state, and none writes into the user's data set cache."""

import os

import pytest
import torch
from hypothesis import settings

from tests.hub.fixtures import api, finished_run, hub, pytest_collection_modifyitems, run  # noqa: F401

# On a busy machine any example may take long; what must be fast is measured in benchmarks/.
settings.register_profile("busy", deadline=None)
settings.load_profile("busy")

# One thread a test process: two of them share two cores, and sums have one order on every machine.
torch.set_num_threads(1)


def pytest_configure(config):
    """Tests mean the CPU unless they are marked `gpu`: on a GPU bf16 is switched on by itself, and sums differ.

    Said by the environment, before anything looks for a device, it holds in processes that tests start, too.
    """
    if config.getoption("markexpr") != "gpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)
    torch.set_flush_denormal(False)  # the training scripts in examples/assets set it for their whole process


@pytest.fixture(scope="session", autouse=True)
def _datasets_cache(tmp_path_factory):
    import datasets

    patch = pytest.MonkeyPatch()
    patch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("datasets"))
    yield
    patch.undo()


@pytest.fixture(scope="session", autouse=True)
def evaluate_cache(tmp_path_factory):
    """evaluate's caches in a temporary folder. One for the whole session, from its first test on: the scripts that
    evaluate copies are imported from the first folder that it was ever given, in every later test of the process."""
    import evaluate

    folder = tmp_path_factory.mktemp("evaluate")
    patch = pytest.MonkeyPatch()
    patch.setattr(evaluate.config, "HF_MODULES_CACHE", str(folder / "modules"))
    patch.setattr(evaluate.config, "HF_METRICS_CACHE", str(folder / "metrics"))
    yield folder
    patch.undo()


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory):
    """A `TinyRun`: tiny random model and judges with a few prompts."""
    from tests.recipes.tiny_run import make_tiny_run

    return make_tiny_run(tmp_path_factory.mktemp("tiny_run"))
