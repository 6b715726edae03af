"""Hashes of everything that decides an outcome: source code, weights, units of work."""

import hashlib
import json
import sys
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glimpsezoo.errors import GlimpseZooError
from glimpsezoo.untrusted import json_values

if TYPE_CHECKING:
    from torch import Tensor

PACKAGE = __name__.partition(".")[0]
DECIDING = ("core", "data", "conditions", "evaluation")  # the folders of this package that decide what is measured per image


def unit_id(identity: Mapping[str, Any], start: int, stop: int) -> str:
    """The id of a unit: a hash (32 hex digits) of `identity` (JSON values) and of its images start..stop-1."""
    text = json.dumps({**identity, "images": [start, stop]}, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def content_hash(found: Mapping[str, Any]) -> str:
    """Hash (64 hex digits) of the content of a result.json, whatever its layout, without the place in it for this hash."""
    whole = {**found, "hashes": {**(found.get("hashes") or {}), "content": None}}
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()


def is_unchanged(content: bytes | str) -> bool:
    """Whether the text of a result.json is what was written. Results that are older than hashes do not tell, and pass."""
    try:
        found = json_values(content)
        known = (found.get("hashes") or {}).get("content")
        return known is None or known == content_hash(found)
    except (ValueError, AttributeError):  # no result at all
        return False


def sha256_of(path: Path) -> str:
    """The hash (64 hex digits) of a file's content."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def weights_hash(tensors: "Mapping[str, Tensor]") -> str:
    """Hash (64 hex digits) of named tensors on any device: names, types, shapes and values."""
    import torch

    whole = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        whole.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        plain = tensor.detach().cpu().clone(memory_format=torch.contiguous_format)  # `contiguous` may keep a stride of 0
        whole.update(plain.reshape(-1).view(torch.uint8).numpy().data)
    return whole.hexdigest()


@cache
def core_hash() -> str:
    """Hash (64 hex digits) of the code of this package that decides an outcome, without reports and commands."""
    root = Path(__file__).parent
    return _hash_of([(path.relative_to(root).as_posix(), path) for folder in DECIDING for path in (root / folder).rglob("*.py")])


def source_hash(kind: type) -> str:
    """Hash (64 hex digits) of the code behind a class: its whole package, with those of the classes above it, or `core_hash` for a class
    of this one.

    Raises `GlimpseZooError` for a class without a source file (typed into an interpreter), because its code would be unknown.
    """
    package = kind.__module__.partition(".")[0]
    if package == PACKAGE:
        return core_hash()
    own = module_hash(package) or module_hash(kind.__module__)
    if own is None:
        raise GlimpseZooError(f"expected a class from a source file, got {kind.__name__} without one: measure it without a store")
    above = [module_hash(name) or "" for name in packages_behind([kind]) if name != package]
    return hashlib.sha256("".join([own, *above]).encode()).hexdigest() if above else own


def packages_behind(kinds: Iterable[type]) -> list[str]:
    """The packages that classes and the classes above them come from, without this one, torch and Python's own."""
    found = {above.__module__.partition(".")[0] for kind in kinds for above in kind.__mro__}
    return sorted(found - sys.stdlib_module_names - {"torch", PACKAGE})


@cache
def module_hash(name: str) -> str | None:
    """Hash (64 hex digits) of the Python files of a loaded package or of a single-file module; None if it has no files."""
    module = sys.modules.get(name)
    folders = [Path(folder) for folder in getattr(module, "__path__", ())]
    files = [(path.relative_to(folder).as_posix(), path) for folder in folders for path in folder.rglob("*.py")]
    if not files and getattr(module, "__file__", None):
        path = Path(str(module.__file__))  # type: ignore[union-attr]
        files = [(path.name, path)]
    return _hash_of(files) if files else None


def _hash_of(files: Iterable[tuple[str, Path]]) -> str:
    """Hash of files: their names relative to a folder, and their contents."""
    whole = hashlib.sha256()
    for relative, path in sorted(files):
        content = path.read_bytes()
        whole.update(f"{relative} {len(content)}\n".encode() + content)
    return whole.hexdigest()
