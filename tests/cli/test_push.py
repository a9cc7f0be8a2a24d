import os
import subprocess
import sys

import pytest

from trl_rewards_plugin.cli.main import main


def test_a_process_of_its_own_pushes_and_repeats(hub, run, tmp_path):
    environment = os.environ | {
        "HF_ENDPOINT": hub.url, "HF_TOKEN": hub.token, "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_OFFLINE": "0", "HF_DEBUG": "0",
    }  # fmt: skip
    command = [sys.executable, "-m", "trl_rewards_plugin.cli.main", "push", str(run), "me/model", "--private"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "model me/model: 11 files, " in done.stdout
    assert "100%" in done.stderr  # the progress bar
    assert hub.repos["model", "me/model"].private
    again = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert again.returncode == 0
    assert "Nothing to upload" in again.stdout
    assert len(hub.titles("me/model")) == 1
    files = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    for place in (done.stdout, done.stderr, again.stdout, again.stderr, files.decode(errors="replace")):
        assert hub.token not in place


def test_dry_run_lists_and_sends_nothing(hub, run, capsys):
    assert main(["push", "--dry_run", str(run), "me/model", "--include-completions"]) == 0
    out = capsys.readouterr().out
    assert "model.safetensors" in out
    assert "completions.parquet  " in out
    assert "nothing was sent" in out
    assert hub.requests == []


def test_dry_run_says_whose_a_repository_without_an_owner_would_be(hub, run, capsys):
    assert main(["push", "--dry_run", str(run), "model"]) == 0
    assert "model would be a repository of whoever is logged in" in capsys.readouterr().out


def test_dry_run_shows_the_card_as_it_will_be_uploaded(hub, run, capsys):
    assert main(["push", "--dry_run", str(run), "me/model"]) == 0
    shown = capsys.readouterr().out
    assert main(["push", str(run), "me/model"]) == 0
    assert hub.files("me/model")["README.md"].decode() in shown


def test_no_control_sequence_of_a_name_or_an_edited_card_reaches_the_terminal(run, capsys):
    (run / "notes\x1b]0;owned\x07.txt").touch()
    card = (run / "README.md").read_text(encoding="utf-8")
    (run / "README.md").write_text(card.replace("## Limitations", "## Mine \x1b[2J\u202e"), encoding="utf-8")
    assert main(["push", "--dry_run", str(run), "me/model", "--include-completions"]) == 0
    assert not set("\x1b\x07\u202e") & set(capsys.readouterr().out)


def test_dry_run_finds_the_token_of_this_login_whatever_its_format(hub, run, capsys, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "swordfish")
    with (run / "config.yaml").open("a") as file:
        file.write("note: swordfish\n")
    assert main(["push", "--dry_run", str(run), "me/model"]) == 2
    assert "the token of this login in " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("what", "code", "message"),
    [
        (401, 2, "hf auth login"),
        (403, 2, "permission to write to me/model"),
        (404, 2, "check owner, name and revision"),
        (409, 1, "was changed by someone else"),
        (429, 1, "too many requests"),
        (500, 1, "run the same again"),
        ("drop", 1, "cannot be reached, or the connection was lost"),
    ],
)
def test_exit_code_and_message_of_each_failure(hub, run, capsys, what, code, message):
    hub.fail("POST .*commit", what)
    assert main(["push", str(run), "me/model"]) == code
    err = capsys.readouterr().err
    assert message in err
    assert "Traceback" not in err
    assert hub.token not in err


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["run"], "trl-rewards push RUN user/name"),
        ([], "trl-rewards push RUN user/name"),
        (["me/model", "run"], "is not a folder"),
        ([".", "me/model", "--privat"], "did you mean --private?"),
        ([".", "me/model"], "no config.json in ."),
        (["--metric", "grammaticalty", "me/x"], "did you mean 'grammaticality'?"),
        (["--metric", "zzz", "me/x"], "give one of these"),
        (["--metric", "fluncy", "me/x"], "did you mean 'fluency'?"),
        (["--metric", "grammaticality"], "trl-rewards push --metric NAME user/name"),
        (["run", "me/model", "--overwrite-card", "false"], "flags such as --overwrite-card take no value"),
        (["--revision"], "expected one argument"),
    ],
)
def test_wrong_arguments_are_refused_with_the_next_step(tmp_path, monkeypatch, capsys, argv, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fluency").mkdir()
    (tmp_path / "fluency" / "app.py").touch()
    assert main(["push", *argv]) == 2
    assert message in capsys.readouterr().err


def test_a_metric_of_the_package_becomes_a_space(hub, capsys):
    assert main(["push", "--metric", "grammaticality", "me/grammaticality"]) == 0
    assert "Space me/grammaticality: " in capsys.readouterr().out
    assert {"README.md", "app.py", "grammaticality.py", "requirements.txt"} <= set(
        hub.files("me/grammaticality", kind="space")
    )


def test_pushing_needs_no_torch():
    code = (
        "import sys; from trl_rewards_plugin.cli.main import main; main(['push', '.', 'me/x', '--dry-run']); "
        "sys.exit(any(name in sys.modules for name in ('torch', 'transformers', 'trl')))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0
