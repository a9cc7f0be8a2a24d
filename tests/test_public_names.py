"""The names that other people's code is written against."""

import subprocess
import sys

import pytest

import trl_rewards_plugin


def test_the_list_is_sorted_and_every_name_is_there():
    assert trl_rewards_plugin.__all__ == sorted(trl_rewards_plugin.__all__)
    for name in trl_rewards_plugin.__all__:
        assert getattr(trl_rewards_plugin, name).__name__ == name
    assert set(trl_rewards_plugin.__all__) <= set(dir(trl_rewards_plugin))


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="Seq2SeqDPO"):
        _ = trl_rewards_plugin.Seq2SeqDPO


def test_importing_the_package_imports_nothing_heavy():
    code = (
        "import sys, trl_rewards_plugin; "
        "print([name for name in ('torch', 'transformers', 'trl', 'datasets') if name in sys.modules])"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.strip() == "[]"


def test_ppo_never_imports_rewards():
    code = (
        "import sys, trl_rewards_plugin.ppo.trainer; "
        "print([name for name in sys.modules if name.startswith('trl_rewards_plugin.rewards')])"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.strip() == "[]"
