"""Names of files, folders and Hub ids: what a wrong one was meant to be, and what to do where one can't be loaded."""

import difflib
import errno
import re
from pathlib import Path

from trl_rewards_plugin.errors import InputError, causes, is_unreached, kinds_of, nearest
from trl_rewards_plugin.text import DATA_FILES

# Of bytes or of code points.
_TOKENIZER_WITHOUT_FILES = re.compile(r'"(tokenizer_class|model_type)"\s*:\s*"(ByT5|Canine|Perceiver)', re.IGNORECASE)


def check_hub_name(name: str, expected: str) -> None:
    """Refuses what is meant as a path and is not there, so that no Hub is asked for it.

    Such a `name` begins or ends as paths do, has more parts than a Hub id or the ending of a file, lies beside a file
    of the same stem ("news.cvs" beside "news.csv"), or in a folder here with another but for one slip
    ("runs/ful" for "runs/full"), unless the Hub's cache has it: "google/t5-xl" is not to be lost to a "google/t5-xxl".
    """
    path = Path(name).expanduser()
    if path.exists():
        return
    near = near_path(path)
    is_path = name.startswith((".", "~", "/")) or name.endswith(("/", "\\")) or name.count("/") > 1
    mistyped = near is not None and bool(path.suffix) and near.is_file() and near.stem == path.stem
    if is_path or mistyped or path.suffix.lower() in DATA_FILES:
        raise missing_file(expected, f"{name!r}: no such file or folder", path)
    slips = (one for one in path.parent.glob("*") if "/" in name and is_slip(path.name, one.name))
    if (meant := min(slips, default=None)) and not in_cache(name):
        step = f"did you mean '{meant}'? if not, to get that id from the Hub: hf download {name}"
        raise InputError(expected, f"{name!r}: neither in the folder {path.parent} here nor in the Hub's cache", step)


def check_model_name(name: str, expected: str) -> None:
    """As `check_hub_name`, of a model or tokenizer, which is a folder: a file here is refused as well."""
    path = Path(name).expanduser()
    if path.is_file():
        step = "pass the folder that save_pretrained() wrote, or a Hub id"
        if holds_model(path.parent):
            step = f"pass its folder: {path.parent}"
        raise InputError(expected, f"the file {name}", step)
    check_hub_name(name, expected)


def holds_model(folder: Path) -> bool:
    """Whether a model or an adapter was saved in `folder`."""
    return any((folder / name).is_file() for name in ("config.json", "adapter_config.json"))


def check_tokenizer_files(name: str) -> None:
    """Refuses the folder of a whole model without a tokenizer, in whose place transformers makes one without words.

    Such a folder is what `save_pretrained` of the model alone leaves. A name on the Hub is left to the Hub, and some
    tokenizers need no file.
    """
    files = [path.name for path in Path(name).glob("*")]
    if "config.json" not in files or any(re.search(r"tokenizer|vocab|\.(model|spm)$", file) for file in files):
        return
    if not _TOKENIZER_WITHOUT_FILES.search(Path(name, "config.json").read_text("utf-8", "replace")):
        step = f"save it there as well: AutoTokenizer.from_pretrained(the base model).save_pretrained({name!r})"
        raise InputError("a tokenizer beside the model", f"{name} without one", step)


def missing_file(expected: str, found: str, path: Path) -> InputError:
    """The error for the missing `path`, with what was probably meant."""
    near = near_path(path)
    return InputError(expected, found, "check the path" if near is None else f"did you mean '{near}'?")


def near_path(path: Path) -> Path | None:
    """The file or folder beside the missing `path` that was probably meant: of the same stem, else of a near one.

    That one has a like ending too (.yml for .yaml), which alone says nothing: most files of a folder have it.
    """
    siblings = sorted(path.parent.iterdir(), reverse=True) if path.parent.is_dir() else []
    siblings.sort(key=lambda one: difflib.SequenceMatcher(None, path.suffix, one.suffix).ratio())
    like = [one for one in siblings if one.stem == path.stem or nearest(path.suffix, [one.suffix]) is not None]
    by_stem = {one.stem: one for one in like}  # the last of a stem counts
    near = nearest(path.stem, by_stem)
    return None if near is None else by_stem[near]


def is_slip(typed: str, meant: str) -> bool:
    """Whether they differ at most by one letter or by two swapped neighbours; other digits name another variant."""
    if re.findall(r"\d", typed) != re.findall(r"\d", meant):
        return False
    short, long = sorted((typed.casefold(), meant.casefold()), key=len)
    same = next((at for at, (one, other) in enumerate(zip(short, long, strict=False)) if one != other), len(short))
    short, long = short[same:], long[same:]
    return long[1:] in (short, short[1:]) or long == short[1::-1] + short[2:]


def in_cache(name: str) -> bool:
    """Whether the Hub's cache holds a model, a data set or a metric of this id."""
    from huggingface_hub import constants

    folders = (f"{kind}s--{name.replace('/', '--')}" for kind in ("model", "dataset", "space"))
    return any(Path(constants.HF_HUB_CACHE, folder, "snapshots").is_dir() for folder in folders)


def what_to_do(error: BaseException, otherwise: str, name: str | None = None) -> str:
    """The next step where a model or data set could not be loaded, by the cause that the library's error hides.

    `otherwise` is for where all points to a wrong name; `name`, what was asked for, may have been meant as a folder.
    """
    if name is not None and (mistyped := _mistyped_folder(name)):
        return mistyped if "/" in name else f"{mistyped} otherwise {what_to_do(error, otherwise)}"
    kinds = kinds_of(error)  # the libraries' HTTP clients vary
    if "GatedRepoError" in kinds or "gated" in str(error):
        return "ask for access on its page on the Hub, then log in: hf auth login"
    if any(getattr(cause, "errno", None) == errno.ENOSPC for cause in causes(error)):
        return "make room on the disk, or point HF_HOME to another one"
    if "trust_remote_code" in str(error):
        return "if you trust the code that it brings along, pass trust_remote_code=True (true in a reward file)"
    if "RepositoryNotFoundError" in kinds:
        return f"{otherwise}; if it is private, log in: hf auth login"
    if is_unreached(error):
        return "check the network; without one, download it where there is one (hf download ID) and pass the folder"
    return otherwise


def _mistyped_folder(name: str) -> str | None:
    """The next step where `name` does not exist, but the folder that it would lie in does: "runs/tiny-seed1"."""
    path = Path(name).expanduser()
    if path.exists() or not path.parent.is_dir():
        return None
    siblings = sorted(folder.name for folder in path.parent.iterdir() if folder.is_dir())
    near = nearest(path.name, siblings)
    if path.parent == Path():  # the id of a model as well
        return None if near is None else f"did you mean the folder {near!r}?"
    if near is not None:
        return f"{path.parent} is a folder here without {path.name!r}: did you mean {path.parent / near}?"
    shown = ", ".join(siblings[:5]) + (" ..." if siblings[5:] else "")
    return f"{path.parent} is a folder here without {path.name!r}; in it: {shown or 'no folder'}"
