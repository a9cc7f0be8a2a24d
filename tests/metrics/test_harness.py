"""What the evaluate repository's own test of local modules checks, in a few lines of ours, for all three modules.

Its rules: found as metrics/<name>/ under the working directory, no **kwargs in `_compute`, the examples pass as
doctests with `evaluate.load` pointed at that folder, and there are at least two of them.
"""

import doctest
import functools
import http.server
import importlib
import inspect
import os
import shutil
import threading

import evaluate
import pytest

from trl_rewards_plugin import metrics

MODULES = {
    "grammaticality": metrics.GRAMMATICALITY,
    "neutrality": metrics.NEUTRALITY,
    "reward_gain": metrics.REWARD_GAIN,
}


@pytest.fixture
def script(request, tmp_path, monkeypatch):
    """The imported script of the module, from metrics/<name>/ under a working directory of its own."""
    name = request.param
    shutil.copytree(MODULES[name], tmp_path / "metrics" / name)
    monkeypatch.chdir(tmp_path)
    real_load = evaluate.load
    monkeypatch.setattr(evaluate, "load", lambda path, *rest: real_load(os.path.join("metrics", path), *rest))
    factory = evaluate.loading.evaluation_module_factory
    return importlib.import_module(factory(os.path.join("metrics", name), module_type="metric").module_path)


@pytest.mark.parametrize("script", MODULES, indirect=True)
def test_the_examples_run_and_compute_takes_no_surplus_keywords(script):
    main_class = evaluate.loading.import_main_class(script.__name__)
    assert main_class.__module__ == script.__name__, "an imported class would be taken for the module's own"
    kinds = {parameter.kind for parameter in inspect.signature(main_class._compute).parameters.values()}
    assert inspect.Parameter.VAR_KEYWORD not in kinds
    results = doctest.testmod(script, raise_on_error=True)
    assert results.failed == 0
    assert results.attempted > 1


@pytest.mark.parametrize("name", MODULES)
def test_the_module_describes_itself(name):
    config = None if name == "reward_gain" else "tiny"
    module = evaluate.load(MODULES[name], config)
    assert (module.name, module.module_type) == (name, "metric")
    assert isinstance(module, evaluate.Metric)
    assert all(len(text) > 50 for text in (module.description, module.citation, module.inputs_description))
    values = {"predictions": "string"} if config else {"predictions": "float64", "references": "float64"}
    assert {key: feature.dtype for key, feature in module.features.items()} == values
    assert module.inputs_description in module.compute.__doc__


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A server on loopback where evaluate looks for Spaces; the folder that it serves as one called `name`."""
    serve = functools.partial(_Quiet, directory=str(tmp_path / "hub"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), serve) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        place = f"http://127.0.0.1:{server.server_port}/{{path}}/{{revision}}/{{name}}"
        monkeypatch.setattr(evaluate.config, "HUB_EVALUATE_URL", place)
        monkeypatch.setattr(evaluate.config, "HF_UPDATE_DOWNLOAD_COUNTS", False)
        monkeypatch.setattr(evaluate.config, "DOWNLOADED_EVALUATE_PATH", str(tmp_path / "downloads"))
        yield lambda name: tmp_path / "hub" / name / "main"
        server.shutdown()


@pytest.mark.parametrize("name", MODULES)
def test_a_pushed_folder_loads_from_its_repository(hub, name):
    shutil.copytree(MODULES[name], hub(f"user/{name}"))
    config = None if name == "reward_gain" else "tiny"
    module = evaluate.load(f"user/{name}", config)
    given = {"predictions": [1.0], "references": [0.5]} if config is None else {"predictions": ["The cat sleeps."]}
    assert module.compute(**given) == evaluate.load(MODULES[name], config).compute(**given)
