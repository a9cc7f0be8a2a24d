"""What secrets look like: one rule a kind, by the formats that the providers publish for secret scanning.

Kept here rather than taken from detect-secrets, whose last release (1.5.0, May 2024) finds 23 of the 49 kinds that
tests/hub/test_secrets.py pastes and no token of Hugging Face. Leaves out: in what form a file holds them
(`readable.py`).
"""

import re
from collections.abc import Iterator

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
