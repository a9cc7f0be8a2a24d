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


TOKEN = "hf_" + "aB3" * 12
VERBS = (
    ["train", "--model"],
    ["train", "--dataset"],
    ["train", "--reward"],
    ["evaluate"],
    ["score"],
    ["card"],
    ["report"],
)


@pytest.mark.parametrize(
    ("argv", "shown"),
    [
        (["train", "--hub_tokn", TOKEN], "did you mean --hub_token?"),
        (["train", "--hub_tokn", "swordfish"], "did you mean --hub_token?"),
        (["train", "--hub_tokn=swordfish"], "did you mean --hub_token?"),
        (["push", f"https://user:{TOKEN}@huggingface.co/me/x", "me/x"], "a login in a URL"),
        *(([*verb, f"https://user:{TOKEN}@huggingface.co/me/x"], "a login in a URL") for verb in VERBS),
        (["report", "https://user:swordfish@example.org/x"], "a login in a URL"),
        (["push", TOKEN], "a Hugging Face token"),
        (["score", f"{TOKEN}.csv"], "a Hugging Face token"),
        (["train", "--dataset", f"./{TOKEN}.csv"], "a Hugging Face token"),
        (["train", "--learning_rate", TOKEN], "a Hugging Face token"),
        ([TOKEN], "a Hugging Face token"),
    ],
)
def test_a_token_in_the_wrong_place_is_never_printed(tmp_path, monkeypatch, capsys, argv, shown):
    monkeypatch.chdir(tmp_path)
    assert cli.main(argv) == 2
    printed = "".join(capsys.readouterr())
    assert shown in printed
    assert not {TOKEN, "swordfish"} & set(printed.replace("=", " ").split())
    assert TOKEN not in printed
    assert "swordfish" not in printed


def test_control_sequences_in_an_error_do_not_reach_the_terminal(capsys):
    assert cli.main(["score", "\x1b]0;owned\x07\x1b[2J\u202ex.csv"]) == 2
    assert not set("\x1b\x07\u202e") & set(capsys.readouterr().err)
