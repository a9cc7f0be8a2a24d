import subprocess
import sys

import pytest

from trl_rewards_plugin.cli import main as cli


def test_help_lists_the_commands(capsys):
    assert cli.main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in cli.COMMANDS)
    assert cli.main([]) == 2


def test_version(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("trl-rewards ")


@pytest.mark.parametrize(("word", "step"), [("trian", "did you mean 'train'?"), ("zzz", "see trl-rewards --help")])
def test_an_unknown_command_is_refused_without_a_traceback(capsys, word, step):
    assert cli.main([word]) == 2
    err = capsys.readouterr().err
    assert "Traceback" not in err
    assert f"Found:    '{word}'" in err
    assert step in err


def test_ctrl_c_is_no_traceback(capsys, monkeypatch):
    def interrupt(arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_dispatch", interrupt)
    assert cli.main(["train"]) == 130
    assert "interrupted" in capsys.readouterr().err


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from trl_rewards_plugin.cli.main import main; main(['--help']); "
        "sys.exit(any(name in sys.modules for name in ('torch', 'transformers', 'datasets', 'trl', 'numpy')))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0
