"""Secrets in the files of an upload: what they look like, one rule a kind, and in which forms a file may hold them.

The formats are those that providers publish for secret scanning. Not taken from detect-secrets, whose last release
(1.5.0, May 2024) finds 23 of the 49 kinds that tests/hub/test_secrets.py pastes and no token of Hugging Face. Escapes
of JSON, YAML, Python and URLs are undone, also nested ones, UTF-16 and UTF-32 are read, and characters without a width
dropped; of parquet all texts and bytes are read, names and metadata too, of pictures the notes. Not found: what is in
the numbers of weights, in compressed or base64-encoded text, or broken over two lines.
"""

import io
import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trl_rewards_plugin.errors import InputError

if TYPE_CHECKING:  # the command line loads this file, and not the Hub's client
    from trl_rewards_plugin.hub.files import UploadFile

# Kind -> literals in lower case, one of which every match holds (so that most rules cost one search), and the format.
_RULES = {
    "a Hugging Face token": (
        b"hf_ api_org_", rb"(?:hf|api_org)_[A-Za-z0-9]{30,}|hf_(?:oauth|jwt|app)_[\w.-]{30,}"
    ),
    "a GitHub token": (b"gho_ ghp_ ghr_ ghs_ ghu_ github_pat_", rb"gh[pousr]_[A-Za-z0-9]{36,}|github_pat_\w{50,}"),
    "an OpenAI, Anthropic or OpenRouter key": (b"sk-", rb"sk-[A-Za-z0-9_-]{32,}"),
    "an AWS key": (
        b"akia asia aws_secret",
        rb"(?:AKIA|ASIA)[0-9A-Z]{16}(?![0-9A-Za-z])|(?i:aws_secret\w*)\W{1,6}[A-Za-z0-9/+]{40}",
    ),
    "a Google key": (b"aiza gocspx- ya29.", rb"AIza[\w-]{35}|GOCSPX-[\w-]{28}|ya29\.[\w-]{50,}"),
    "a Slack token": (
        b"xox xapp- hooks.slack.com",
        rb"xox[abprs]-[0-9A-Za-z-]{10,}|xapp-\d-[\w-]{30,}|hooks\.slack\.com/services/\w+/\w+/\w{20,}",
    ),
    "a GitLab token": (b"glpat- gldt- glrt- glptt-", rb"gl(?:pat|dt|rt|ptt)-[\w-]{20,}"),
    "a PyPI or npm token": (b"pypi-agei npm_", rb"pypi-AgEI[\w-]{50,}|npm_[A-Za-z0-9]{36}"),
    "a Weights & Biases key": (
        b"wandb",
        rb"(?i:wandb_api_key)\W{1,4}[0-9a-f]{40}|wandb_v1_\w{40,}|api\.wandb\.ai[\s\S]{0,80}?password\s+[0-9a-f]{40}",
    ),
    "a private key": (
        b"private putty-user-key", rb"-----BEGIN [A-Z ]*PRIVATE KEY(?: BLOCK)?-----|PuTTY-User-Key-File-\d"
    ),
    "an Azure key": (b"accountkey=", rb"AccountKey=[A-Za-z0-9/+]{86}=="),
    "a Stripe key": (b"_live_", rb"[sr]k_live_[A-Za-z0-9]{20,}"),
    "a SendGrid or Twilio key": (b"sg. sk", rb"SG\.[\w-]{22}\.[\w-]{43}|SK[0-9a-f]{32}(?![0-9A-Za-z])"),
    "a Replicate or Groq key": (b"r8_ gsk_", rb"r8_[A-Za-z0-9]{37}|gsk_[A-Za-z0-9]{40,}"),
    "a DigitalOcean or Databricks token": (b"_v1_ dapi", rb"do[por]_v1_[0-9a-f]{64}|dapi[0-9a-f]{32}"),
    "a Telegram token": (b":aa", rb"\d{8,10}:AA[\w-]{33}"),
    "a signed login (JWT)": (b"eyj", rb"eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{20,}"),
    # One slash: what is left of a URL that was taken for a path.
    "a login in a URL": (b":/", rb"[A-Za-z][A-Za-z0-9+.-]{1,15}:/{1,2}[^\s/:@\"'<>]{1,200}:[^\s/:@\"'<>]{3,200}@"),
    "a login in a header": (b"authorization", rb"(?i:authorization\W{1,5}(?:bearer|basic|token)\s+)[\w.~+/-]{16,}"),
    "a password or key": (
        b"api_key apikey password passwd secret_key _token",
        rb"(?i:\w{0,40}(?:api_?key|password|passwd|secret_key|(?:access|auth|hub)_token))[\"']?\s*[:=]\s*[\"']?"
        rb"[\w+/-]{16,}",
    ),
}  # fmt: skip
SECRETS = {
    kind: (tuple(literals.split(b" ")), re.compile(rb"(?<![A-Za-z0-9])(?:" + pattern + rb")"))
    for kind, (literals, pattern) in _RULES.items()
}
_ESCAPE = re.compile(
    rb"\\u(?P<u>[0-9a-fA-F]{4})|\\U(?P<U>[0-9a-fA-F]{8})|\\x(?P<x>[0-9a-fA-F]{2})|%(?P<p>[0-9a-fA-F]{2})"
    rb"|\\(?P<fold>\r?\n[ \t]*)|\\(?P<c>.)"
)
_DEPTH = 3  # escapes in escapes in escapes: a notebook with JSON in its output


def find_secrets(content: bytes) -> Iterator[tuple[str, int, int]]:
    """Kind, start and end of the secrets in `content`, by kind."""
    folded = content.lower()
    for kind, (literals, pattern) in SECRETS.items():
        if any(literal in folded for literal in literals):
            for match in pattern.finditer(content):
                yield kind, *match.span()


def find_secret(content: bytes, own: str | None = None) -> str | None:
    """The kind of secret in `content`, or None. `own` is the token of this login, which may have any format."""
    found = next((kind for kind, _, _ in find_secrets(content)), None)
    if found is None and own and own.encode() in content:
        return "the token of this login"
    return found


def without_secrets(text: str) -> str:
    """`text` to be shown: secrets in it are replaced by their kind."""
    content, shown, reached = text.encode("utf-8", "surrogatepass"), b"", 0
    for kind, start, end in sorted(find_secrets(content), key=lambda found: found[1]):
        if start >= reached:
            shown += content[reached:start] + f"({kind})".encode()
        reached = max(reached, end)
    return (shown + content[reached:]).decode("utf-8", "surrogatepass")


def forms(file: "UploadFile") -> list[bytes]:
    """The text in `file` as it is, and with everything undone that may hide a word; damaged files are refused."""
    content = searchable(file)
    decoded = content.replace(b"\0", b"")  # ASCII in UTF-16 and UTF-32
    for _ in range(_DEPTH):
        decoded, before = _ESCAPE.sub(_unescaped, decoded), decoded
        if decoded == before:
            break
    for invisible in "\u00ad\u200b\u200c\u200d\u2060\ufeff":  # they have no width
        decoded = decoded.replace(invisible.encode(), b"")
    return [content] if decoded == content else [content, decoded]


def _unescaped(match: re.Match[bytes]) -> bytes:
    digits = match["u"] or match["U"] or match["x"] or match["p"]
    if digits is not None:
        code = int(digits, 16)
        return chr(code).encode("utf-8", "replace") if code < 0x110000 else b" "
    if match["fold"] is not None:
        return b""
    return b" " if match["c"] in b"nrtbfav0eN_LP" else match["c"]


def searchable(file: "UploadFile") -> bytes:
    """The part of a file that can hold text: of weights the header, of parquet and pictures also what is packed."""
    if isinstance(file.content, Path):
        with file.content.open("rb") as stream:
            return stream.read(int.from_bytes(stream.read(8), "little"))
    if file.name.endswith(".parquet"):
        return b"\n".join(_parquet_texts(file.name, file.content))
    if file.name.endswith(".png"):
        return b"\n".join([file.content, *_picture_texts(file.name, file.content)])
    return file.content


def _parquet_texts(name: str, content: bytes) -> Iterator[bytes]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(io.BytesIO(content)) as table:
            schema = table.schema_arrow
            paths = [table.schema.column(index).path for index in range(len(table.schema.names))]
            noted = [table.metadata.metadata, schema.metadata, [field.metadata for field in schema]]
            yield from _texts([schema.names, paths, noted])
            for batch in table.iter_batches(batch_size=1_024):
                yield from _texts(batch.to_pylist())
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        found = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(f"a complete parquet file {name}", found, "write the file again, or leave it out") from error


def _picture_texts(name: str, content: bytes) -> Iterator[bytes]:
    """The notes in a PNG, which may be compressed."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(content)) as picture:
            picture.load()
            return _texts(picture.info)
    except (OSError, ValueError, SyntaxError) as error:
        raise InputError(f"a complete picture {name}", str(error), "draw it again, or remove it") from error


def _texts(value: Any) -> Iterator[bytes]:
    """The texts and bytes anywhere in `value`."""
    if isinstance(value, str):
        yield value.encode("utf-8", "surrogatepass")
    elif isinstance(value, bytes):
        yield value
    elif isinstance(value, dict | list | tuple):
        # A name beside its value: some rules need both.
        for item in itertools.chain(*value.items()) if isinstance(value, dict) else value:
            yield from _texts(item)
