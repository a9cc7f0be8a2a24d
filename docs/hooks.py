"""What the site's pages take from the code when they are built: the table of settings and the help of each command.

A line `@settings` or `@help COMMAND` of a page is replaced. mkdocs calls `on_page_markdown` (mkdocs.yml, hooks).
Leaves out: docstrings, which mkdocstrings reads.
"""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

CONFIG = Path(__file__).parents[1] / "trl_rewards_plugin" / "ppo" / "config.py"
_LINE = re.compile(r"^@(settings|help)(?: (\w+))?$", re.MULTILINE)


def on_page_markdown(markdown: str, **_: object) -> str:
    """The page's text with its `@` lines replaced."""
    return _LINE.sub(lambda line: settings() if line[1] == "settings" else command_help(line[2]), markdown)


def settings() -> str:
    """The fields of Seq2SeqPPOConfig as a table: name, default, help."""
    (config,) = [
        node
        for node in ast.parse(CONFIG.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef) and node.name == "Seq2SeqPPOConfig"
    ]
    rows = ["| Setting | Default | |", "| --- | --- | --- |"]
    for node in config.body:
        call = node.value if isinstance(node, ast.AnnAssign) else None
        if isinstance(call, ast.Call):
            given = {keyword.arg: ast.literal_eval(keyword.value) for keyword in _literals(call)}
            text = given["metadata"]["help"].replace("|", "\\|")
            rows.append(f"| `{ast.unparse(node.target)}` | `{given['default']!r}` | {text} |")
    return "\n".join(rows)


def _literals(call: ast.Call) -> list[ast.keyword]:
    """The keywords of a `field`, without `choices`, which are names and stand in the help."""
    for keyword in call.keywords:
        if isinstance(keyword.value, ast.Dict):
            pairs = zip(keyword.value.keys, keyword.value.values, strict=True)
            kept = [(key, value) for key, value in pairs if ast.literal_eval(key) == "help"]
            keyword.value = ast.Dict([key for key, _ in kept], [value for _, value in kept])
    return call.keywords


def command_help(command: str) -> str:
    """What `trl-rewards COMMAND --help` prints, as a code block."""
    arguments = [sys.executable, "-m", "trl_rewards_plugin.cli.main", command, "--help"]
    environment = {**os.environ, "COLUMNS": "100", "NO_COLOR": "1"}
    done = subprocess.run(arguments, env=environment, capture_output=True, text=True, check=True)
    return f"```text\n{done.stdout.rstrip()}\n```"
