"""Hides packages from the article's loop (on PYTHONPATH): its old libraries import whatever they find beside them.

datasets and transformers of that time look for torchvision and the like with `find_spec`, and fail on those that are
newer than they are. Leaves out: packages that the loop needs.
"""

import importlib.util
from importlib.machinery import ModuleSpec

HIDDEN = {"torchvision", "torchaudio", "tensorflow", "jax", "flax", "peft", "deepspeed", "bitsandbytes", "timm"}
HIDDEN |= {"onnx", "onnxruntime", "sentence_transformers", "tensorstore", "optax", "jaxlib"}
_find_spec = importlib.util.find_spec


def find_spec(name: str, package: str | None = None) -> ModuleSpec | None:
    """As importlib's; None for a hidden package."""
    return None if name.partition(".")[0] in HIDDEN else _find_spec(name, package)


importlib.util.find_spec = find_spec
