"""Looks for access tokens and private keys in what is about to be made public. Leaves out: weights, which are numbers.

Patterns: the forms that the providers publish for their own secret scanning.
"""

from __future__ import annotations

import re
from pathlib import Path

_PATTERNS = {
    "a Hugging Face token": rb"(?:hf|api_org)_[A-Za-z0-9]{30,}",
    "a GitHub token": rb"gh[pousr]_[A-Za-z0-9]{36,}|github_pat_\w{50,}",
    "an OpenAI or Anthropic key": rb"sk-(?:ant-|proj-)?[A-Za-z0-9_-]{32,}",
    "an AWS key": rb"(?:AKIA|ASIA)[0-9A-Z]{16}(?![0-9A-Za-z])",
    "a Google key": rb"AIza[\w-]{35}",
    "a Slack token": rb"xox[abprs]-[0-9A-Za-z-]{10,}",
    "a GitLab token": rb"glpat-[\w-]{20,}",
    "a PyPI or npm token": rb"pypi-AgEI[\w-]{50,}|npm_[A-Za-z0-9]{36}",
    "a Weights & Biases key": rb"(?i:wandb_api_key)\W{1,4}[0-9a-f]{40}",
    "a private key": rb"-----BEGIN [A-Z ]*PRIVATE KEY-----",
}
SECRETS = {kind: re.compile(rb"(?<![A-Za-z0-9])(?:" + pattern + rb")") for kind, pattern in _PATTERNS.items()}


def find_secret(content: bytes, own: str | None = None) -> str | None:
    """What kind of secret is in `content`; None if none is. `own` is this login's token, known letter by letter."""
    if own and own.encode() in content:
        return "the token of this login"
    return next((kind for kind, pattern in SECRETS.items() if pattern.search(content)), None)


def readable(content: Path | bytes) -> bytes:
    """What of a file can hold words: of weights their header, of parquet its text, of anything else all."""
    if isinstance(content, bytes):
        return content
    if content.suffix == ".safetensors":
        with content.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            return file.read(length)
    if content.suffix == ".parquet":
        import pyarrow
        import pyarrow.parquet

        table = pyarrow.parquet.read_table(content)
        texts = [name for name, kind in zip(table.column_names, table.schema.types, strict=True) if _is_text(kind)]
        return "\n".join(str(value) for name in texts for value in table[name].to_pylist()).encode()
    return content.read_bytes()


def _is_text(kind: object) -> bool:
    return str(kind) in ("string", "large_string", "string_view")
