"""What must not become public: access tokens, private keys, paths of this machine.

Leaves out: what secrets look like (`secret_rules.py`), and how they are hidden in files (`readable.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.hub.outgoing import UploadFile
from trl_rewards_plugin.hub.readable import forms
from trl_rewards_plugin.hub.secret_rules import find_secrets
from trl_rewards_plugin.runs.layout import CARD

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
        contents = forms(file)
        kind = next((kind for content in contents if (kind := find_secret(content, own_token))), None)
        if kind is not None:
            step = "remove it from the file, and revoke it if anyone else may have seen it"
            raise InputError("files without secrets", f"{kind} in {file.name}", step)
        if any(fnmatch(file.name, pattern) for pattern in _MAY_HOLD_PATHS):
            found = next((place for place in places if any(place.encode() in one for one in contents)), None)
            if found is not None:
                step = "replace it with a name that others know"
                raise InputError("files without paths of this machine", f"{found} in {file.name}", step)


def find_secret(content: bytes, own: str | None = None) -> str | None:
    """The kind of secret in `content`, or None. `own` is the token of this login, which may have any format."""
    found = next((kind for kind, _, _ in find_secrets(content)), None)
    if found is None and own and own.encode() in content:
        return "the token of this login"
    return found
