"""The identity of a split: a hash of its source and of everything that changes its pixels."""

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from glimpsezoo.data.digests import local_digests
from glimpsezoo.settings import Settings


def fingerprint(content: str, split: str, transform: str, config: Settings, *, ignore: Iterable[str] = ()) -> str:
    """Hash (32 hex digits) of the source's content, the split, the transform and the settings, without those in `ignore`."""
    settings: dict[str, Any] = config.model_dump(mode="json", exclude=set(ignore))
    text = json.dumps([content, split, transform, settings], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def file_digest(files: Sequence[str], root: Path | None = None) -> str:
    """Hash of the content of these files in order, and of their names relative to `root` if it is given.

    A file on the Hub counts by the hash that the Hub reports. For LFS files that is the SHA-256, so a copy on disk has the same digest.
    """
    names = [os.path.relpath(file, root) if root else "" for file in files]
    local = iter(local_digests([file for file in files if "://" not in file]))
    digests = [_remote_digest(file) if "://" in file else next(local) for file in files]
    return hashlib.sha256(json.dumps(list(zip(names, digests, strict=True))).encode()).hexdigest()


def _remote_digest(file: str) -> str:
    """The hash that the Hub reports for a file; other remote files are read for their SHA-256."""
    if file.startswith("hf://"):
        from huggingface_hub import HfFileSystem

        info = HfFileSystem().info(file)
        return info["lfs"]["sha256"] if info["lfs"] else info["blob_id"]
    import fsspec

    with fsspec.open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()  # pyright: ignore[reportArgumentType]
