"""A stamp that shows whether a card was edited: its last line, an HTML comment, holds the digest of all above it."""

import hashlib
import re

_STAMP = re.compile(r"\n<!-- written by trl_rewards_plugin, sha256 ([0-9a-f]{64}): [^\n]*-->\n?\Z")


def stamped(text: str) -> str:
    """`text` with the stamp as its last line, in place of an old one."""
    body = unstamped(text)
    note = "edit freely, uploads then leave this card alone"
    return f"{body}\n<!-- written by trl_rewards_plugin, sha256 {_digest(body)}: {note} -->\n"


def unstamped(text: str) -> str:
    """`text` without the stamp, ending in one line break."""
    return _STAMP.sub("", text.replace("\r\n", "\n")).rstrip() + "\n"


def is_untouched(text: str, rendered: str = "") -> bool:
    """Whether `text` is as this package wrote it: stamped and not edited since.

    An empty card is nobody's edit, nor is the beginning of `rendered`, which a kill or a full disk once left.
    """
    found = _STAMP.search(text.replace("\r\n", "\n"))
    return rendered.startswith(text) or (found is not None and found[1] == _digest(unstamped(text)))


def _digest(body: str) -> str:
    return hashlib.sha256(body.encode("utf-8")).hexdigest()
