import webbrowser
from pathlib import Path

import pytest

from tests.cards.test_model_card import write_run
from trl_rewards_plugin.cli.main import main


@pytest.fixture
def folder(tmp_path):
    write_run(tmp_path, dataset="owner/texts")
    return tmp_path


def test_the_card_is_rendered_again(folder, capsys):
    assert main(["card", str(folder)]) == 0
    assert capsys.readouterr().out == f"Card: {folder / 'README.md'}\n"
    assert "## Results" in (folder / "README.md").read_text(encoding="utf-8")


def test_a_page_is_written_or_shown(folder, capsys, monkeypatch):
    shown = []
    monkeypatch.setattr(webbrowser, "open", lambda url: bool(shown.append(url)))
    assert main(["card", str(folder), "--preview", str(folder / "card.html")]) == 0
    page = (folder / "card.html").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    assert shown == []
    capsys.readouterr()
    assert main(["card", str(folder), "--preview"]) == 0
    out = capsys.readouterr().out
    assert "no browser found" in out
    assert Path(shown[0].removeprefix("file://")).read_text(encoding="utf-8") == page


def test_a_page_that_could_not_be_written_is_refused_before_the_card_is(folder, capsys):
    assert main(["card", str(folder), "--preview", str(folder)]) == 2
    assert f"the folder {folder}" in capsys.readouterr().err
    assert main(["card", str(folder), "--preview", str(folder / "pages" / "card.html")]) == 2
    assert f"no folder {folder / 'pages'}" in capsys.readouterr().err
    assert not (folder / "README.md").exists()


def test_an_edited_card_is_kept(folder, capsys):
    (folder / "README.md").write_text("# Mine\n")
    assert main(["card", str(folder)]) == 2
    assert "--overwrite-card" in capsys.readouterr().err
    assert main(["card", str(folder), "--overwrite_card"]) == 0
    assert "# Mine" not in (folder / "README.md").read_text(encoding="utf-8")


def test_a_folder_without_a_run_is_refused(tmp_path, capsys):
    assert main(["card", str(tmp_path)]) == 2
    assert "give the output_dir of a finished run" in capsys.readouterr().err
    assert main(["card", str(tmp_path / "run")]) == 2
    assert f"{tmp_path / 'run'}, which is not a folder" in capsys.readouterr().err
    assert main(["card"]) == 2
    assert "RUN" in capsys.readouterr().err
