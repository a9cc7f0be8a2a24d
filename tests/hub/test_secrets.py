"""The kinds and places are those of a scan that people ran against the package; tokens are put together here, so that
no scanner takes this file for a leak."""

import io
import json
import random
import string
import struct
import time

import numpy
import pyarrow
import pyarrow.parquet
import pytest
import yaml
from PIL import Image, PngImagePlugin

from trl_rewards_plugin.errors import InputError
from trl_rewards_plugin.hub.files import UploadFile, read_file
from trl_rewards_plugin.hub.plan import check_content
from trl_rewards_plugin.hub.secret_search import SECRETS, find_secret, forms, searchable, without_secrets

_RANDOM = random.Random(1)
WORD = string.ascii_letters + string.digits
HEX, DIGITS, URL = "0123456789abcdef", string.digits, WORD + "-_"


def made(start, count, letters=WORD):
    return start + "".join(_RANDOM.choice(letters) for _ in range(count))


BLOCK = "-----BEGIN {} PRIVATE " + "KEY{}-----\n" + "x" * 64
EXAMPLES = {
    "a Hugging Face token": [made("hf_", 34), made("api_org_", 34), made("hf_oauth_eyJhb.", 80)],
    "a GitHub token": [made("ghp_", 36), made("gho_", 36), made("ghs_", 36), made("github_pat_", 82)],
    "an OpenAI, Anthropic or OpenRouter key": [
        made("sk-", 48), made("sk-proj-", 74, URL), made("sk-svcacct-", 74), made("sk-ant-api03-", 95),
        made("sk-or-v1-", 64, HEX),
    ],
    "an AWS key": [
        made("AKIA", 16, string.ascii_uppercase), made("ASIA", 16, string.ascii_uppercase),
        made("aws_secret_access_key = ", 40, WORD + "/+"),
    ],
    "a Google key": [made("AIza", 35, URL), made("GOCSPX-", 28, URL), made("ya29.", 120, URL)],
    "a Slack token": [
        made("xoxb-123456789012-", 24), made("xapp-1-A123-", 64, HEX),
        made("https://hooks.slack." + "com/services/T12345678/B12345678/", 24),
    ],
    "a GitLab token": [made("glpat-", 20), made("gldt-", 20)],
    "a PyPI or npm token": [made("pypi-" + "AgEIcHlwaS5vcmc", 150), made("npm_", 36)],
    "a Weights & Biases key": [
        made("WANDB_API_KEY=", 40, HEX), made("wandb_api_key: ", 40, HEX), made('"WANDB_API_KEY": "', 40, HEX),
        made("machine api.wandb.ai\n  login user\n  password ", 40, HEX), made("wandb_v1_", 40),
    ],
    "a private key": [
        BLOCK.format("OPENSSH", ""), BLOCK.format("RSA", ""), BLOCK.format("PGP", " BLOCK"),
        "PuTTY-User-Key-" + "File-3: ssh-ed25519",
    ],
    "an Azure key": [made("AccountKey=", 86) + "=="],
    "a Stripe key": [made("sk_live_", 24)],
    "a SendGrid or Twilio key": [made(made("SG.", 22) + ".", 43), made("SK", 32, HEX)],
    "a Replicate or Groq key": [made("r8_", 37), made("gsk_", 52)],
    "a DigitalOcean or Databricks token": [made("dop_v1_", 64, HEX), made("dapi", 32, HEX)],
    "a Telegram token": [made("1234567890:AA", 33)],
    "a signed login (JWT)": [made("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.", 43)],
    "a login in a URL": ["https://user:" + "hunter2secret@example.com/data"],
    "a login in a header": [made("Authorization: Bearer ", 40)],
    "a password or key": [made("COHERE_API_KEY=", 40), "password: " + "correcthorsebattery"],
}  # fmt: skip
TOKEN = EXAMPLES["a Hugging Face token"][0]


def found_in(name, content):
    return next((kind for form in forms(UploadFile(name, content)) if (kind := find_secret(form))), None)


def test_every_kind_has_an_example():
    assert set(EXAMPLES) == set(SECRETS)


@pytest.mark.parametrize(("kind", "secret"), [(kind, secret) for kind, them in EXAMPLES.items() for secret in them])
def test_each_kind_is_found_alone_and_amid_text(kind, secret):
    assert find_secret(secret.encode()) == kind
    assert find_secret(f"note:\t{secret},\n".encode()) == kind
    assert secret not in without_secrets(f"--hub_tokn {secret} is unknown")


@pytest.mark.parametrize(
    "text",
    ["hf_hub_download", "shf_" + "a" * 34, "ask-" + "a" * 40, "the eos_token: </s>", "", "hub_token: <HUB_TOKEN>",
     "http://127.0.0.1:8080/a@b", "passwords are long; tokenization", "api_key=os.environ['X']"],
)  # fmt: skip
def test_ordinary_words_are_not_secrets(text):
    assert find_secret(text.encode()) is None
    assert without_secrets(text) == text


def test_the_token_of_this_login_is_found_whatever_its_format():
    assert find_secret(b"password: swordfish!", own="swordfish!") == "the token of this login"


NOTEBOOK = json.dumps({"cells": [{"outputs": [{"text": json.dumps({"login": "token\n" + TOKEN})}]}]})


@pytest.mark.parametrize(
    "content",
    [
        json.dumps({"a": TOKEN}),
        json.dumps({"a": "x\n" + TOKEN}),
        json.dumps("a\t" + TOKEN),
        json.dumps(["é" + chr(10) + TOKEN]),
        NOTEBOOK,
        json.dumps({"cells": [NOTEBOOK]}),
        yaml.safe_dump({"a": "é \t" + TOKEN}),
        f'a: "{TOKEN[:20]}\\\n  {TOKEN[20:]}"',
        "%20" + TOKEN,
        "?q=%0A" + TOKEN,
        "".join(f"\\u{ord(letter):04x}" for letter in TOKEN),
        "".join(f"\\x{ord(letter):02X}" for letter in TOKEN),
        f"https://u:{TOKEN}@huggingface.co",
        TOKEN[:8] + "\N{SOFT HYPHEN}\N{ZERO WIDTH SPACE}" + TOKEN[8:],
        TOKEN.encode("utf-16"),
        TOKEN.encode("utf-16-be"),
        TOKEN.encode("utf-32"),
        ("é\n" + TOKEN).encode("latin-1"),
    ],
)
def test_a_token_is_found_in_every_form_in_which_people_paste_it(content):
    assert found_in("a.json", content.encode() if isinstance(content, str) else content) is not None


CHAT = [{"role": "user", "content": TOKEN}]
COLUMNS = {
    "text": pyarrow.array([TOKEN]),
    "list": pyarrow.array([[["x", TOKEN]]]),
    "chat": pyarrow.array([CHAT]),
    "chat as JSON": pyarrow.array([json.dumps({"a": "x\n" + TOKEN})]),
    "binary": pyarrow.array([TOKEN.encode()]),
    "dictionary": pyarrow.array([TOKEN]).dictionary_encode(),
    "map": pyarrow.array([[("key", TOKEN)]], pyarrow.map_(pyarrow.string(), pyarrow.string())),
    "large": pyarrow.array([TOKEN], pyarrow.large_string()),
}


SECRET_ROW = {"region": ["eu-central-1"], "aws_secret_access_key": ["wJalr" + 35 * "x"], "other": ["y"]}


def as_parquet(table, tmp_path):
    pyarrow.parquet.write_table(table, tmp_path / "completions.parquet", compression="zstd")
    return (tmp_path / "completions.parquet").read_bytes()


@pytest.mark.parametrize(
    "table",
    [
        *(pyarrow.table({"note": column}) for column in COLUMNS.values()),
        pyarrow.table({TOKEN: [1]}),
        pyarrow.table({"a": [{TOKEN: 1}]}),
        pyarrow.table({"a": [1]}).replace_schema_metadata({"note": TOKEN}),
        pyarrow.table({"a": [1]}, pyarrow.schema([pyarrow.field("a", pyarrow.int64(), metadata={"note": TOKEN})])),
    ],
)
def test_a_token_is_found_anywhere_in_a_parquet_file(tmp_path, table):
    assert found_in("completions.parquet", as_parquet(table, tmp_path)) == "a Hugging Face token"


@pytest.mark.parametrize("rows", [SECRET_ROW, {"settings": [{key: cells[0] for key, cells in SECRET_ROW.items()}]}])
def test_a_key_that_only_its_name_tells_is_found_beside_other_columns(tmp_path, rows):
    assert found_in("completions.parquet", as_parquet(pyarrow.table(rows), tmp_path)) == "an AWS key"


def test_a_key_that_only_its_name_tells_is_found_in_notes(tmp_path):
    notes = {key: cells[0] for key, cells in SECRET_ROW.items()}
    table = pyarrow.table({"a": [1]}).replace_schema_metadata(notes)
    assert found_in("completions.parquet", as_parquet(table, tmp_path)) == "an AWS key"
    information, content = PngImagePlugin.PngInfo(), io.BytesIO()
    for key, text in notes.items():
        information.add_text(key, text, zip=True)
    Image.new("RGB", (1, 1)).save(content, "PNG", pnginfo=information)
    assert found_in("reward_curve.png", content.getvalue()) == "an AWS key"


@pytest.mark.parametrize("packed", [False, True])
def test_a_token_is_found_in_the_notes_of_a_picture(tmp_path, packed):
    notes = PngImagePlugin.PngInfo()
    notes.add_text("note", TOKEN, zip=packed)
    Image.fromarray(numpy.zeros((2, 2), dtype="uint8")).save(tmp_path / "curve.png", pnginfo=notes)
    assert found_in("curve.png", (tmp_path / "curve.png").read_bytes()) == "a Hugging Face token"


@pytest.mark.parametrize("name", ["completions.parquet", "reward_curve.png"])
@pytest.mark.parametrize("content", [b"", b"PAR1garbagePAR1", b"\x89PNG\r\n\x1a\n"])
def test_what_cannot_be_searched_is_refused(tmp_path, name, content):
    with pytest.raises(InputError, match=name):
        check_content(tmp_path, [UploadFile(name, content)], None)


def test_of_weights_the_header_is_read(tmp_path):
    header = json.dumps({"__metadata__": {"note": "hello"}}).encode()
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + b"numbers")
    assert searchable(read_file(tmp_path, "a.safetensors")) == header


def test_a_large_vocabulary_is_searched_in_seconds():
    words = {f"\u0120{_RANDOM.random()}\\n": number for number in range(100_000)}
    content = json.dumps({"vocab": words}).encode()
    start = time.process_time()
    assert found_in("tokenizer.json", content) is None
    assert time.process_time() - start < 20, f"{len(content):,} bytes"
