"""SHA-256 of local files. Each file is read once: its digest is cached in the user's folder until the file's metadata change.

The cache has one small file per folder of data, written atomically, so that processes do not disturb each other. If two write at once,
the last one wins, and the digests it did not have are computed again.
"""

import hashlib
import json
import os
import re
import time
from array import array
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from stat import S_ISREG

from glimpsezoo.errors import GlimpseZooError
from glimpsezoo.files import user_folder, write_whole
from glimpsezoo.untrusted import json_values

CACHE = "file-digests"  # the folder's name in the user's folder
VERSION = 2  # of the cache's format
SETTLED = 2.0  # seconds: a younger file could change again without a change of its time stamps
UNREADABLE = "unreadable"  # the digest of a file that is missing or cannot be read
_SHA256 = re.compile("[0-9a-f]{64}")
_again: ContextVar[bool] = ContextVar("hash files again", default=False)

Mark = list[int]  # size, mtime (ns), ctime (ns), inode, device


@contextmanager
def hashed_again(again: bool = True) -> Iterator[None]:
    """Inside, files are hashed even if their digests are cached; the cache is updated."""
    token = _again.set(again)
    try:
        yield
    finally:
        _again.reset(token)


def local_digests(files: Sequence[str]) -> list[str]:
    """The SHA-256 of each of these local files; `UNREADABLE` for a file that cannot be read."""
    by_folder: dict[str, list[str]] = {}
    paths = [os.path.abspath(file) for file in files]
    for path in paths:
        by_folder.setdefault(os.path.dirname(path), []).append(path)
    found: dict[str, str] = {}
    again = _again.get()
    with ThreadPoolExecutor(4) as threads:
        for folder, members in by_folder.items():
            found |= _of_folder(folder, members, threads, again)
    return [found[path] for path in paths]


class Watched:
    """Detects local files that change after a fingerprint was made: their metadata are compared after each read."""

    def __init__(self, files: Sequence[str]) -> None:
        self.marks = array("q", (self._now(file) for file in files))  # 8 bytes per file, of which there may be a million

    def check(self, number: int, file: str) -> None:
        """Raise `GlimpseZooError` if the file with this number has changed, appeared or vanished."""
        if self.marks[number] != self._now(file):
            what = "changed" if os.path.exists(file) else "vanished"
            raise GlimpseZooError(
                f"expected data that stay as they are, got {os.path.basename(file)!r}, which {what} since the command began: put it back "
                "or leave it, then run again; what is finished is kept"
            )

    @staticmethod
    def _now(file: str) -> int:
        return 0 if "://" in file else hash(tuple(_mark(file) or ()))


def _of_folder(folder: str, paths: Sequence[str], threads: ThreadPoolExecutor, again: bool) -> dict[str, str]:
    place = user_folder() / CACHE / hashlib.sha256(os.fsencode(folder)).hexdigest()[:32]
    kept = _read(place)
    marks = {path: _mark(path) for path in paths}
    known = {} if again else {path: kept[os.path.basename(path)] for path in paths if os.path.basename(path) in kept}
    known = {path: digest for path, (mark, digest) in known.items() if mark == marks[path]}
    unknown = [path for path in marks if path not in known]
    hashed = dict(zip(unknown, threads.map(partial(_hashed, trusting=not again), unknown), strict=True))
    now = time.time_ns()
    settled = {
        os.path.basename(path): [mark, digest]
        for path, (mark, digest) in hashed.items()
        if mark is not None and mark == marks[path] and now - max(mark[1], mark[2]) > SETTLED * 1e9
    }
    if settled:
        _keep(place, {**kept, **settled})
    return known | {path: digest for path, (_, digest) in hashed.items()}


def _mark(path: str) -> Mark | None:
    """The metadata by which a changed file is recognised; None if they cannot be read."""
    try:
        stat = os.stat(path)
    except OSError:
        return None
    if not S_ISREG(stat.st_mode):  # a pipe may never end
        return None
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino, stat.st_dev]


def _hashed(path: str, *, trusting: bool) -> tuple[Mark | None, str]:
    """The mark and the digest of a file. The mark is None if the file changed while it was read.

    trusting: whether to take the digest from the file's name if it is in the Hub's cache.
    """
    before = _mark(path)
    if before is None:
        return None, UNREADABLE
    named = _named_by_the_hub(path) if trusting else None
    if named:
        return before, named
    try:
        with open(path, "rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError:
        return None, UNREADABLE
    return (before if _mark(path) == before else None), digest


def _named_by_the_hub(path: str) -> str | None:
    """The SHA-256 in the name that the Hub's client gave a file in its cache; None for other files."""
    from huggingface_hub import constants

    real = Path(path).resolve()
    inside = real.is_relative_to(Path(constants.HF_HUB_CACHE).resolve())
    return real.name if inside and real.parent.name == "blobs" and _SHA256.fullmatch(real.name) else None


def _read(place: Path) -> dict[str, list]:
    """The cached digests of a folder; none if the cache file is damaged or of another version."""
    try:
        content = json_values(place.read_bytes())
    except (OSError, ValueError):
        return {}
    return content["files"] if isinstance(content, dict) and content.get("version") == VERSION else {}


def _keep(place: Path, files: Mapping[str, list]) -> None:
    """Write the cache. If that is not possible, the files are hashed again next time."""
    with suppress(OSError):
        place.parent.mkdir(parents=True, exist_ok=True)
        write_whole(place, json.dumps({"version": VERSION, "files": files}).encode())
