"""Every code block of the README and the pages is executed, or says what executes it, or why nothing does."""

import importlib.util
import json
import os
import re
import subprocess
import sys

import pytest

from tests.documentation import PAGES, ROOT, Block, all_blocks, blocks_of
from tests.run_documentation import make_home
from trl_rewards_plugin.ppo.config import Seq2SeqPPOConfig

BLOCKS = all_blocks()


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """What came of each block, from one process for all of them."""
    folder = tmp_path_factory.mktemp("docs")
    (folder / "reader").mkdir()
    environment = {
        **{name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ},
        "HF_HOME": str(make_home(folder)), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT),
        "TRL_EXPERIMENTAL_SILENCE": "1", "TOKENIZERS_PARALLELISM": "false", "MPLBACKEND": "agg",
        "CUDA_VISIBLE_DEVICES": "",
    }  # fmt: skip
    command = [sys.executable, "-m", "tests.run_documentation", str(folder)]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout)


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.executed], ids=lambda block: block.name)
def test_a_block_runs(results, block):
    assert not results[block.name]["error"], results[block.name]["error"]


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.mark], ids=lambda block: block.name)
def test_a_mark_is_true(results, block):
    if block.mark == "compared":
        shown_by = max((one for one in BLOCKS if one.page == block.page and one.line < block.line), key=_line)
        printed = results[shown_by.name]["output"]
        assert block.code.strip() in "\n".join(line.rstrip() for line in printed.splitlines())
    elif named := re.match(r"run by (tests/[\w/]+\.py)", block.mark):
        assert "def test_" in (ROOT / named[1]).read_text(encoding="utf-8")
    else:
        assert block.mark == "refused" or re.fullmatch(r"not run: .{10,}", block.mark), block.mark


def _line(block: Block) -> int:
    return block.line


def test_commands_name_examples_that_are_there():
    named = re.findall(r"\bexamples/[\w/.]*\w", "".join(block.code + block.mark for block in BLOCKS))
    assert named
    for path in named:
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_links_lead_somewhere(name):
    """Those of the site's pages are checked by zensical build --strict."""
    text = (ROOT / name).read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)#:]+)\)", text) + re.findall(r'(?:href|src)="([^"#:]+)"', text)
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_an_unmarked_command_and_an_unknown_language_are_found():
    from tests.run_documentation import run_block

    with pytest.raises(ValueError, match="mark the block"):
        run_block(Block("page.md", 1, "bash", "pip install something\n", ""), {})
    with pytest.raises(ValueError, match="name one of"):
        run_block(Block("page.md", 1, "", "x = 1\n", ""), {})


def test_every_fence_is_seen():
    for page in (page for page in PAGES if page.suffix == ".md"):
        fences = re.findall(r"^ *```", page.read_text(encoding="utf-8"), re.MULTILINE)
        assert len(fences) == 2 * len(blocks_of(page)), page


def test_the_table_of_settings_has_every_field_of_the_config():
    spec = importlib.util.spec_from_file_location("docs_generated", ROOT / "docs" / "generated.py")
    generated = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generated)
    own = set(Seq2SeqPPOConfig.__annotations__) - {"_VALID_DICT_FIELDS"}
    table = generated.settings()
    rows = dict(re.findall(r"^\| `(\w+)`<br>`(.*?)` \|", table, re.MULTILINE))
    assert set(rows) == own
    fields = Seq2SeqPPOConfig.__dataclass_fields__
    assert {name: eval(default) for name, default in rows.items()} == {name: fields[name].default for name in own}
