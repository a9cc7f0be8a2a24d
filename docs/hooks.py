"""What the site's pages take from the code when they are built: the table of settings and the help of each command.

A line `@settings` or `@help COMMAND` of a page is replaced. mkdocs calls `on_page_markdown` (mkdocs.yml, hooks).
Leaves out: docstrings, which mkdocstrings reads.
"""

import dataclasses
import os
import re
import subprocess
import sys

from trl_rewards_plugin import Seq2SeqPPOConfig

_LINE = re.compile(r"^@(settings|help)(?: (\w+))?$", re.MULTILINE)


def on_page_markdown(markdown: str, **_: object) -> str:
    """The page's text with its `@` lines replaced."""
    return _LINE.sub(lambda line: settings() if line[1] == "settings" else command_help(line[2]), markdown)


def settings() -> str:
    """The fields of Seq2SeqPPOConfig as a table: name, default, help."""
    rows = ["| Setting | Default | |", "| --- | --- | --- |"]
    for field in dataclasses.fields(Seq2SeqPPOConfig):
        if field.name in Seq2SeqPPOConfig.__annotations__:  # ours, or another default than transformers'
            text = field.metadata["help"].replace("|", "\\|")
            rows.append(f"| `{field.name}` | `{field.default!r}` | {text} |")
    return "\n".join(rows)


def command_help(command: str) -> str:
    """What `trl-rewards COMMAND --help` prints, as a code block."""
    arguments = [sys.executable, "-m", "trl_rewards_plugin.cli.main", command, "--help"]
    environment = {**os.environ, "COLUMNS": "100", "NO_COLOR": "1"}
    done = subprocess.run(arguments, env=environment, capture_output=True, text=True, check=True)
    return f"```text\n{done.stdout.rstrip()}\n```"
