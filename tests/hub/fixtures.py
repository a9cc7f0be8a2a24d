"""The Hub on loopback, a client for it, and folders to push; tests/conftest.py hands them to every test."""

import time

import pytest

from tests.hub.loopback import Hub


def pytest_collection_modifyitems(items):
    """The client's own HTTP calls are deprecated by its HTTP library, which is no fault of ours."""
    for item in items:
        if "hub" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning"))


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A fresh Hub, whose token is logged in; waits between tries take no time and are remembered in `hub.waits`."""
    import huggingface_hub
    from huggingface_hub import constants

    server = Hub()
    server.waits = []
    monkeypatch.setattr(time, "sleep", server.waits.append)
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    # The loopback Hub stores large files itself; Xet's storage is another service.
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setenv("HF_TOKEN", server.token)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    huggingface_hub.close_session()
    yield server
    huggingface_hub.close_session()
    server.close()


@pytest.fixture
def api(hub):
    from huggingface_hub import HfApi

    return HfApi(endpoint=hub.url, token=hub.token)


@pytest.fixture(scope="session")
def finished_run(tiny_run, tmp_path_factory):
    """The folder of a real run of tiny random models, with a checkpoint."""
    from tests.recipes.tiny_run import SHORT
    from trl_rewards_plugin import Seq2SeqPPO, Seq2SeqPPOConfig

    folder = tmp_path_factory.mktemp("runs") / "finished"
    args = Seq2SeqPPOConfig(output_dir=str(folder), seed=0, save_steps=1, **SHORT)
    Seq2SeqPPO(tiny_run.model, tiny_run.reward, tiny_run.dataset, args=args, echo=lambda text: None).run()
    return folder


@pytest.fixture
def run(finished_run, tmp_path):
    """A copy of it that a test may change."""
    import shutil

    return shutil.copytree(finished_run, tmp_path / "run")
