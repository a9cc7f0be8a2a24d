import json
import struct

import pyarrow
import pyarrow.parquet
import pytest

from trl_rewards_plugin.hub.files import UploadFile, read_file
from trl_rewards_plugin.hub.secrets import SECRETS, find_secret, searchable

# Put together here, so that no scanner takes this file for a leak.
EXAMPLES = {
    "a Hugging Face token": "hf_" + "aB3" * 11 + "x",
    "a GitHub token": "ghp_" + "a1" * 18,
    "an OpenAI or Anthropic key": "sk-" + "proj-" + "a1-_" * 10,
    "an AWS key": "AKIA" + "ABCD" * 4,
    "a Google key": "AIza" + "a1B-_" * 7,
    "a Slack token": "xoxb-" + "1234567890-abc",
    "a GitLab token": "glpat-" + "a1" * 10,
    "a PyPI or npm token": "npm_" + "a1" * 18,
    "a Weights & Biases key": "WANDB_API_KEY=" + "0a" * 20,
    "a private key": "-----BEGIN RSA " + "PRIVATE KEY-----",
}


def test_every_kind_has_an_example():
    assert set(EXAMPLES) == set(SECRETS)


@pytest.mark.parametrize("kind", EXAMPLES)
def test_each_kind_is_found_amid_text(kind):
    assert find_secret(f'"key": "{EXAMPLES[kind]}",'.encode()) == kind
    assert find_secret(EXAMPLES[kind].encode()) == kind


@pytest.mark.parametrize("text", ["hf_hub_download", "shf_" + "a" * 34, "ask-" + "a" * 40, "the eos_token: </s>", ""])
def test_ordinary_words_are_not_secrets(text):
    assert find_secret(text.encode()) is None


def test_the_token_of_this_login_is_found_whatever_its_format():
    assert find_secret(b"password: swordfish!", own="swordfish!") == "the token of this login"


def test_weights_are_read_by_their_header_and_parquet_by_its_text(tmp_path):
    header = json.dumps({"__metadata__": {"note": "hello"}}).encode()
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + b"numbers")
    assert searchable(read_file(tmp_path / "a.safetensors", "a.safetensors")) == header
    table = pyarrow.table({"prompt": ["one", "two"], "score": [1.0, 2.0]})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    assert searchable(read_file(tmp_path / "a.parquet", "a.parquet")) == b"one\ntwo"
    assert searchable(UploadFile("a.txt", b"as it is")) == b"as it is"
