"""Names of files, atomic writes, the user's folder, and checks that output folders can be written."""

import hashlib
import os
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from glimpsezoo.errors import GlimpseZooError, one_line

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
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


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
    """Check that a folder can be created or written, and leave nothing behind. Raises `GlimpseZooError`."""
    with output_to(folder):
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
    why = error.strerror or one_line(error)
    return GlimpseZooError(f"expected an output folder that can be written, got {str(folder)!r} ({why}): choose another --output")
