"""A stamp that shows whether a card was edited: its last line, an HTML comment, holds the digest of all above it.

A second digest is of what follows the YAML header, which people fill in and keep while the text is rendered again.
"""

import hashlib
import re

_STAMP = re.compile(r"\n<!-- written by trl_rewards_plugin, sha256 ([0-9a-f]{64})(?: ([0-9a-f]{64}))?: [^\n]*-->\n?\Z")
_HEADER = re.compile(r"\A---\n.*?^---\n", re.DOTALL | re.MULTILINE)


def stamped(text: str) -> str:
    """`text` with the stamp as its last line, in place of an old one."""
    body = unstamped(text)
    note = "edit freely, uploads keep what you write"
    digests = f"{_digest(body)} {_digest(with_header(body, ''))}"
    return f"{body}\n<!-- written by trl_rewards_plugin, sha256 {digests}: {note} -->\n"


def unstamped(text: str) -> str:
    """`text` without the stamp, ending in one line break."""
    return _STAMP.sub("", text.replace("\r\n", "\n")).rstrip() + "\n"


def is_untouched(text: str, rendered: str = "") -> bool:
    """Whether `text` is as this package wrote it: stamped and not edited since.

    An empty card is nobody's edit, nor is the beginning of `rendered`, which a kill or a full disk once left.
    """
    found = _STAMP.search(text.replace("\r\n", "\n"))
    return rendered.startswith(text) or (found is not None and found[1] == _digest(unstamped(text)))


def has_untouched_text(text: str) -> bool:
    """Whether all of the card below its header, which it still has, is as this package wrote it."""
    found, body = _STAMP.search(text.replace("\r\n", "\n")), unstamped(text)
    return found is not None and bool(header_of(body)) and found[2] == _digest(with_header(body, ""))


def header_of(card: str) -> str:
    """The YAML header of `card` between its `---` lines, these included; empty if it has none."""
    found = _HEADER.match(card)
    return found[0] if found else ""


def with_header(card: str, header: str) -> str:
    """`card` with `header`, its `---` lines included, in place of its own."""
    return _HEADER.sub(lambda own: header, card)


def _digest(body: str) -> str:
    return hashlib.sha256(body.encode("utf-8")).hexdigest()
