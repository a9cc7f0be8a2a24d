import contextlib
import time

import pytest
import yaml
from packaging.version import Version

from trl_rewards_plugin.cli.main import main
from trl_rewards_plugin.yaml_text import load_yaml


def bomb(first, join):
    """Each line holds the one above several times."""
    lines = [f"a0: &a0 {first}"]
    return "\n".join(lines + [f"a{i}: &a{i} {join(f'*a{i - 1}')}" for i in range(1, 40)])


HOSTILE = {
    "references": bomb("[x, x, x]", lambda one: f"[{', '.join([one] * 9)}]"),
    "merged keys": "\n".join(
        ["a0: &a0 {k: 1}", *(f"a{i}: &a{i} {{<<: [*a{i - 1}, *a{i - 1}, *a{i - 1}]}}" for i in range(1, 30))]
    ),
    "deep lists": "rewards: " + "[" * 100_000,
    "deep mappings": "rewards: " + "{a: " * 5_000 + "}" * 5_000,
    "deep blocks": "\n".join(" " * level + "a:" for level in range(2_000)),
    "itself": "rewards: &a [*a]",
    "a tag that runs code": "rewards: !!python/object/apply:os.system ['touch PWNED']",
    "a date that is none": "rewards: 2024-06-31",
    "a NUL": "rewards:\x00",
    "an unhashable key": "? [a]\n: b\n? {c: d}\n: e",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_yaml_ends_in_an_error_within_a_second(name):
    # From 6.0.4 on PyYAML itself merges a key that was merged before only once.
    is_harmless = name == "merged keys" and Version(yaml.__version__) >= Version("6.0.4")
    start = time.process_time()
    with contextlib.nullcontext() if is_harmless else pytest.raises(yaml.YAMLError):
        load_yaml(HOSTILE[name])
    assert time.process_time() - start < 1


def test_ordinary_references_and_merges_are_read():
    assert load_yaml("a: &a {x: 1}\nb: {<<: *a, y: 2}\nc: [*a, *a]") == {
        "a": {"x": 1}, "b": {"x": 1, "y": 2}, "c": [{"x": 1}, {"x": 1}],
    }  # fmt: skip


@pytest.mark.parametrize("flag", ["--config", "--reward"])
@pytest.mark.parametrize("content", [*(text.encode() for text in HOSTILE.values()), b"reward: tin\xe9\n", b"", b"- a"])
def test_commands_refuse_it_in_three_parts(tmp_path, monkeypatch, capsys, flag, content):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.txt").write_text("hello\n")
    (tmp_path / "r.yaml").write_bytes(content)
    assert main(["score", "t.txt", flag, "r.yaml"]) == 2
    error = capsys.readouterr().err
    assert "Expected:" in error
    assert "Next:" in error
    assert len(error) < 2_000
    assert not (tmp_path / "PWNED").exists()
