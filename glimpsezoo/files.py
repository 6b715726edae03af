"""Names of files, atomic writes, the user's folder, and checks that output folders can be written."""

import errno
import hashlib
import os
import re
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path

from glimpsezoo.errors import GlimpseZooError, why_not
from glimpsezoo.processes import is_gone, machine

_PART = re.compile(r"\..+\.(?:([0-9a-f]{8})-(\d+)-[0-9a-f]{8}|[0-9a-f]{32})\.part")  # the second form was written by earlier versions
_ASIDE = "written-aside"
_ASIDE_NAME = re.compile(r"([0-9]+)([.-])(.+)")  # place in the order, what happens to the file, its name
_WRITTEN, _DELETED = ".", "-"
_TRIES = 100  # to replace files while other processes replace them, too: each try ends what another one began
_OLD = 86_400.0  # seconds without a change after which a half-written file of another machine is stale

LONGEST = 200  # bytes of a name: file systems have 255, of which the files beside it need some


def file_name(name: str) -> str:
    """The name of a model or card as the name of a file or folder. A long name ends in a hash.

    >>> file_name("timm:resnet18.digits")
    'timm_resnet18.digits'
    """
    found = name.replace(":", "_").replace("/", "_")
    content = os.fsencode(found)
    if len(content) <= LONGEST:
        return found
    return f"{content[: LONGEST - 9].decode(errors='ignore')}-{hashlib.sha256(content).hexdigest()[:8]}"


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A temporary path to write to. It replaces `path` at the end, so readers see either the old content or the new."""
    sweep(path.parent)
    part = path.with_name(f".{path.name}.{machine()}-{os.getpid()}-{uuid.uuid4().hex[:8]}.part")
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def replace_all(folder: Path, files: Mapping[str, bytes | None]) -> None:
    """Write several files of a folder, or delete those that are None, in order: all of it or nothing, whenever the process is killed.

    From the moment that everything is written aside, `finish_replacing` ends what a killed process began.
    """
    folder.mkdir(parents=True, exist_ok=True)
    finish_replacing(folder)
    aside = folder / f".{_ASIDE}.{machine()}-{os.getpid()}-{uuid.uuid4().hex[:8]}.part"
    sweep(folder)
    try:
        aside.mkdir()
        for number, (name, content) in enumerate(files.items()):
            (aside / f"{number}{_DELETED if content is None else _WRITTEN}{name}").write_bytes(content or b"")
        for tries_left in reversed(range(_TRIES)):
            try:
                os.rename(aside, folder / f".{_ASIDE}")
                break
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST) or not tries_left:
                    raise
            finish_replacing(folder)  # what another process wrote at the same time
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    finish_replacing(folder)


def finish_replacing(folder: Path) -> None:
    """Move the files into place that a killed `replace_all` left aside. Several processes may do so at once."""
    aside = folder / f".{_ASIDE}"
    if aside.is_symlink() or not aside.is_dir():
        return
    names: list[str] = []
    with suppress(FileNotFoundError):  # here and below: another process was quicker
        names = os.listdir(aside)
    for found in sorted(filter(None, map(_ASIDE_NAME.fullmatch, names)), key=lambda found: int(found[1])):
        path, place = aside / found[0], folder / found[3]
        with suppress(FileNotFoundError):
            if found[2] == _WRITTEN:
                os.replace(path, place)
            else:
                place.unlink(missing_ok=True)
                path.unlink()
    try:
        aside.rmdir()
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTEMPTY, errno.EEXIST):  # not there, or another process's already
            raise


def sweep(folder: Path) -> None:
    """Delete the half-written files that killed processes left in a folder. Done once per process, which itself leaves none."""
    _sweep(os.path.abspath(folder))


@lru_cache(1024)
def _sweep(folder: str) -> None:
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            found = _PART.fullmatch(entry.name)
            if found and not entry.is_symlink() and _is_stale(found, entry):
                shutil.rmtree(entry.path) if entry.is_dir() else os.unlink(entry.path)


def _is_stale(found: re.Match[str], entry: os.DirEntry[str]) -> bool:
    """Whether the process that wrote a temporary file is gone, or must be, because the file is old."""
    ended = found[1] is not None and is_gone(found[1], int(found[2]))
    return ended or (time.time() - entry.stat(follow_symlinks=False).st_mtime > _OLD and found[1] != machine())


def write_whole(path: Path, content: bytes) -> None:
    """Write a file atomically."""
    with whole(path) as part:
        part.write_bytes(content)


def user_folder() -> Path:
    """The user's folder: $GLIMPSEZOO_HOME, or ~/.glimpsezoo. Raises `GlimpseZooError` if there is no home folder."""
    if given := os.environ.get("GLIMPSEZOO_HOME"):
        return Path(given)
    try:
        return Path.home() / ".glimpsezoo"
    except RuntimeError:
        raise GlimpseZooError("expected a home folder for files of glimpsezoo, got none: set GLIMPSEZOO_HOME to a folder") from None


def check_inside(folder: Path, path: Path) -> None:
    """Refuse a path in an output folder from which a symbolic link leads out of that folder. Raises `GlimpseZooError`."""
    if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder)):
        raise GlimpseZooError(
            f"expected an output folder whose content is its own, got {str(folder)!r}, in which {path.name!r} is a link that leads out of "
            "it: remove the link, or choose another --output"
        )


def no_link(path: str, flags: int) -> int:
    """Open a file (an opener for `open`), but not through a symbolic link."""
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o666)


def check_writable(folder: Path) -> None:
    """Check that an output folder can be created or written, and leave nothing behind. Raises `GlimpseZooError`."""
    with output_to(folder):
        try_writing(folder)


def try_writing(folder: Path) -> None:
    """Raises `OSError` if a folder can neither be written nor created."""
    there = next(place for place in (folder, *folder.absolute().parents) if os.path.lexists(place))
    tempfile.TemporaryFile(dir=there).close()


@contextmanager
def output_to(folder: Path) -> Iterator[None]:
    """Turn an `OSError` into the `GlimpseZooError` for an output folder that cannot be written."""
    try:
        yield
    except OSError as error:
        raise unwritable(folder, error) from None


def unwritable(folder: Path, error: OSError) -> GlimpseZooError:
    """The error for an output folder that cannot be written."""
    room = "make room, or " if is_full(error) else ""
    return GlimpseZooError(
        f"expected an output folder that can be written, got {str(folder)!r} ({why_not(error)}): {room}choose another --output"
    )


def is_full(error: OSError) -> bool:
    """Whether the disk, or the user's part of it, is full."""
    return error.errno in {errno.ENOSPC, errno.EDQUOT}
