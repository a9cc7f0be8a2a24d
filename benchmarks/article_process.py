"""Drives the article's loop (article_loop.py) in the environment of legacy.sh, from a benchmark in this one.

Leaves out: the loop itself, and what it is compared with.
"""

import json
import subprocess
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer


def model_and_tokens(folder: Path) -> dict[str, Any]:
    """A model's folder with what its tokenizer's file does not say; transformers 4 does not know the saved class."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return {
        "folder": str(folder),
        "tokenizer": {**tokenizer.special_tokens_map, "model_max_length": tokenizer.model_max_length},
    }


class ArticleLoop:
    """The article's loop in a process of its own, one batch a call."""

    def __init__(self, environment: Path, folder: Path, settings: dict[str, Any]):
        here = Path(__file__).parent
        if not environment.is_dir():
            subprocess.run(["bash", here / "legacy.sh", environment], check=True)
        told = {"threads": torch.get_num_threads(), **settings}
        (folder / "settings.json").write_text(json.dumps(told), encoding="utf-8")
        command = [environment.absolute() / "bin" / "python", here.absolute() / "article_loop.py", folder]
        self.log = (folder / "article_loop.log").open("w+", encoding="utf-8")
        self.process = subprocess.Popen(
            command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True
        )
        self._line()

    def batch(self) -> dict[str, float]:
        """Does one batch; what article_loop.py says of it."""
        return json.loads(self._ask(""))

    def _ask(self, line: str) -> str:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()
        return self._line()

    def _line(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self.log.seek(0)
            raise RuntimeError(f"the article's loop stopped:\n{self.log.read()[-3000:]}")
        return line

    def close(self) -> None:
        """Lets it end."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()

    def save(self, folder: Path) -> None:
        """Writes the policy as it is now."""
        self._ask(str(folder))
