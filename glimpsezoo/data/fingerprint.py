"""The identity of a split: a hash of its source and of everything that changes its pixels."""

import hashlib
import json
import os
import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from glimpsezoo.files import user_folder, write_whole
from glimpsezoo.settings import Settings

_SHA256 = re.compile("[0-9a-f]{64}")
CACHE = "file-digests"  # folder in the user's own


def fingerprint(content: str, split: str, transform: str, config: Settings, *, ignore: Iterable[str] = ()) -> str:
    """Hash (32 hex digits) of the source's content, the split, the transform and the settings, less those in `ignore`."""
    settings: dict[str, Any] = config.model_dump(mode="json", exclude=set(ignore))
    text = json.dumps([content, split, transform, settings], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def file_digest(files: Sequence[str], root: Path | None = None) -> str:
    """Hash of the content of these files in order, and of their names below `root` where one is given.

    A file of the Hub counts by the SHA-256 that the Hub has of it, so that a copy of it on disk has the same digest. Local files are
    read once: the result is kept in the user's folder until a size or time of change differs.
    """
    names = [os.path.relpath(file, root) if root else "" for file in files]
    if any("://" in file for file in files):
        return _joined(names, map(_one_digest, files))
    marks = [(os.path.abspath(file), stat.st_size, stat.st_mtime_ns) for file in files for stat in [os.stat(file)]]
    kept = _cache_folder() / hashlib.sha256(json.dumps([marks, names]).encode()).hexdigest()
    if kept.is_file():
        return kept.read_text(encoding="ascii")
    with ThreadPoolExecutor(4) as threads:
        digest = _joined(names, threads.map(_one_digest, files))
    _keep(kept, digest)
    return digest


def _joined(names: Iterable[str], digests: Iterable[str]) -> str:
    return hashlib.sha256(json.dumps(list(zip(names, digests, strict=True))).encode()).hexdigest()


def _one_digest(file: str) -> str:
    """SHA-256 of a file's content, local or remote; read only where neither the Hub nor its cache, which names files so, tells it."""
    if file.startswith("hf://"):
        from huggingface_hub import HfFileSystem

        info = HfFileSystem().info(file)
        return info["lfs"]["sha256"] if info["lfs"] else info["blob_id"]
    kept = Path(file).resolve() if "://" not in file else None
    if kept and kept.parent.name == "blobs" and _SHA256.fullmatch(kept.name):
        return kept.name
    import fsspec

    with fsspec.open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()  # pyright: ignore[reportArgumentType]


def _cache_folder() -> Path:
    return user_folder() / CACHE


def _keep(path: Path, digest: str) -> None:
    """Where the folder cannot be written, the files are hashed again next time."""
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, digest.encode("ascii"))
