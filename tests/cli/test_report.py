import subprocess
import sys

from tests.report.folders import write_run
from trl_rewards_plugin.cli.main import main


def test_a_real_run_becomes_a_page(finished_run, tmp_path, capsys):
    assert main(["report", str(finished_run), "--output", str(tmp_path / "page.html")]) == 0
    assert capsys.readouterr().out == f"Page: {tmp_path / 'page.html'}\n"
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    for title in ("Reward", "acceptability", "neutrality", "KL to the reference", "Entropy", "Response length"):
        assert f"<figcaption>{title}</figcaption>" in page


def test_the_page_lies_in_the_run_folder_or_here(tmp_path, monkeypatch, capsys):
    one, two = write_run(tmp_path / "one"), write_run(tmp_path / "two")
    monkeypatch.chdir(tmp_path)
    assert main(["report", str(one)]) == 0
    assert (one / "report.html").is_file()
    assert main(["report", "one", "two"]) == 0
    assert capsys.readouterr().out == f"Page: {one / 'report.html'}\nPage: report.html\n"
    assert (tmp_path / "report.html").is_file()
    assert not (two / "report.html").exists()


def test_refusals_have_three_parts(tmp_path, capsys):
    folder = write_run(tmp_path / "one")
    for argv, step in (
        ([], "see trl-rewards report --help"),
        ([str(tmp_path / "on")], f"did you mean '{folder}'?"),
        ([str(tmp_path)], f"give one or more of the runs in it: {folder}"),
        ([str(folder), "--output", "page.pdf"], "such as report.html"),
        ([str(folder), "--outptu", "x"], "did you mean --output?"),
        ([str(folder), "--output", str(tmp_path)], "such as report.html"),
    ):
        assert main(["report", *argv]) == 2
        err = capsys.readouterr().err
        assert "Expected: " in err
        assert step in err


def test_a_report_needs_no_torch(tmp_path):
    folder = write_run(tmp_path / "one")
    code = (
        "import sys\nfrom trl_rewards_plugin.cli.main import main\n"
        f"sys.exit(main(['report', {str(folder)!r}]) or 'torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
