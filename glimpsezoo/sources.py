"""The source of a package, hashed: what decides an outcome beside its settings."""

import hashlib
import sys
from functools import cache
from pathlib import Path


@cache
def module_hash(name: str) -> str | None:
    """Hash (64 hex digits) of the Python files of a loaded package, or of a module that is a file of its own; None if it has none."""
    module = sys.modules.get(name)
    folders = [Path(folder) for folder in getattr(module, "__path__", ())]
    files = [(path.relative_to(folder).as_posix(), path) for folder in folders for path in folder.rglob("*.py")]
    if not files and getattr(module, "__file__", None):
        path = Path(str(module.__file__))  # type: ignore[union-attr]
        files = [(path.name, path)]
    whole = hashlib.sha256()
    for relative, path in sorted(files):
        content = path.read_bytes()
        whole.update(f"{relative} {len(content)}\n".encode() + content)
    return whole.hexdigest() if files else None
