"""What the evaluate repository's own test of local modules checks, in a few lines of ours, for all three modules.

Its rules: found as metrics/<name>/ under the working directory, no **kwargs in `_compute`, the examples pass as
doctests with `evaluate.load` pointed at that folder, and there are at least two of them.
"""

import doctest
import importlib
import inspect
import os
import shutil

import evaluate
import pytest

from trl_rewards_plugin import metrics

MODULES = {
    "grammaticality": metrics.GRAMMATICALITY,
    "neutrality": metrics.NEUTRALITY,
    "reward_gain": metrics.REWARD_GAIN,
}

pytestmark = pytest.mark.usefixtures("evaluate_cache")


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
def test_the_module_tells_what_it_is(name):
    config = None if name == "reward_gain" else "tiny"
    module = evaluate.load(MODULES[name], config)
    assert (module.name, module.module_type) == (name, "metric")
    assert isinstance(module, evaluate.Metric)
    assert all(len(text) > 50 for text in (module.description, module.citation, module.inputs_description))
    values = {"predictions": "string"} if config else {"predictions": "float64", "references": "float64"}
    assert {key: feature.dtype for key, feature in module.features.items()} == values
    assert module.inputs_description in module.compute.__doc__
