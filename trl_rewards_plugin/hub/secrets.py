"""What must not become public: access tokens, private keys, paths of this machine.

Patterns: the formats that the providers publish for secret scanning. Leaves out: the numbers in weights.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.hub.files import UploadFile
from trl_rewards_plugin.runs.layout import CARD

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
# Files that could hold a path of this machine; not vocabularies, where "/root/" may be a token.
_MAY_HOLD_PATHS = (
    CARD, "*.yaml", "config.json", "generation_config.json", "adapter_config.json", "tokenizer_config.json",
)  # fmt: skip


def check_content(folder: Path, files: Sequence[UploadFile], own_token: str | None) -> None:
    """Checks `files` of `folder` for what must not become public.

    Raises:
        InputError: a secret, `own_token` included, or a path of this machine.
    """
    places = {f"{path}/" for path in (Path.home(), folder.resolve().parent) if len(path.parts) > 1}
    for file in files:
        content = searchable(file)
        kind = find_secret(content, own_token)
        if kind is not None:
            step = "remove it from the file, and revoke it if anyone else may have seen it"
            raise InputError("files without secrets", f"{kind} in {file.name}", step)
        if any(fnmatch(file.name, pattern) for pattern in _MAY_HOLD_PATHS):
            found = next((place for place in places if place.encode() in content), None)
            if found is not None:
                step = "replace it with a name that others know"
                raise InputError("files without paths of this machine", f"{found} in {file.name}", step)


def find_secret(content: bytes, own: str | None = None) -> str | None:
    """The kind of secret in `content`, or None. `own` is the token of this login, which may have any format."""
    found = next((kind for kind, pattern in SECRETS.items() if pattern.search(content)), None)
    if found is None and own and own.encode() in content:
        return "the token of this login"
    return found


def searchable(file: UploadFile) -> bytes:
    """The part of a file that can hold text: the header of weights, text columns of parquet, else everything."""
    if isinstance(file.content, Path):
        with file.content.open("rb") as stream:
            return stream.read(int.from_bytes(stream.read(8), "little"))
    if file.name.endswith(".parquet"):
        import pyarrow.parquet

        table = pyarrow.parquet.read_table(io.BytesIO(file.content))
        types = zip(table.column_names, table.schema.types, strict=True)
        texts = [name for name, kind in types if str(kind) in ("string", "large_string", "string_view")]
        return "\n".join(str(value) for name in texts for value in table[name].to_pylist()).encode()
    return file.content
