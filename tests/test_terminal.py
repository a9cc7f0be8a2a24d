import io
import os
import subprocess
import sys

import pytest
from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
from transformers.utils import logging as transformers_logging

from trl_rewards_plugin.terminal import loading_quietly, patient_output, say

WORK = """
import sys
from trl_rewards_plugin.terminal import patient_output, say
{}
print("done", file=open(sys.argv[1], "w"))
"""
WAYS = {
    "say": "for _ in range(5): say('x' * 20_000)",
    "print": "with patient_output():\n    for _ in range(5): print('x' * 20_000)",
    "standard error": "with patient_output():\n    for _ in range(5): print('x' * 20_000, file=sys.stderr)",
    "a child": "with patient_output():\n    print('x' * 20_000)\n    import os; os.system('echo hello')",
}


@pytest.mark.parametrize("way", WAYS)
def test_work_is_finished_after_its_reader_has_left(tmp_path, way):
    reader, writer = os.pipe()
    os.close(reader)
    code = WORK.format(WAYS[way])
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "done"],
        stdout=writer,
        stderr=writer if way == "standard error" else subprocess.PIPE,
        check=False,
    )
    os.close(writer)
    assert (tmp_path / "done").exists()
    assert done.returncode == 0
    assert not done.stderr


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is always full")
def test_work_is_finished_when_the_disk_of_its_log_is_full(tmp_path):
    code = WORK.format(WAYS["print"])
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-c", code, tmp_path / "done"], stdout=full, check=False)
    assert (tmp_path / "done").exists()
    assert done.returncode == 0


def test_what_a_terminal_cannot_show_is_escaped(monkeypatch):
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", terminal)
    say("caf\u00e9 \U0001f600")
    assert terminal.buffer.getvalue() == b"caf\\xe9 \\U0001f600\n"
    assert sys.stdout is terminal


def test_control_sequences_are_not_said(capsys):
    say("a\x1b[2J\x1b]0;owned\x07\u202eb\n\tc")
    assert capsys.readouterr().out == "a[2J]0;ownedb\n\tc\n"


def test_without_any_output_nothing_fails(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    say("hello")
    with patient_output():
        assert sys.stdout is None


@pytest.mark.parametrize("hub_shows", [True, False])
def test_bars_of_loading_are_left_out_for_a_while_unless_asked_for(monkeypatch, hub_shows):
    for name in ("TRANSFORMERS_VERBOSITY", "HF_HUB_DISABLE_PROGRESS_BARS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(transformers_logging, "_tqdm_active", True)
    hub = {True: enable_progress_bars, False: disable_progress_bars}
    hub[hub_shows]()
    try:
        with loading_quietly():
            assert not transformers_logging.is_progress_bar_enabled()
            assert are_progress_bars_disabled() is not hub_shows  # a download may take an hour
        assert transformers_logging.is_progress_bar_enabled()
        assert are_progress_bars_disabled() is not hub_shows
        monkeypatch.setenv("TRANSFORMERS_VERBOSITY", "info")
        with loading_quietly():
            assert transformers_logging.is_progress_bar_enabled()
    finally:
        enable_progress_bars()
