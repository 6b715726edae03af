"""Files that are written whole or not at all, and where the user's own lie."""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from glimpsezoo.errors import GlimpseZooError


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A path to write to, which takes the place of `path` at the end: readers see the old content or the new, never a part."""
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def write_whole(path: Path, content: bytes) -> None:
    """Write a file as `whole` does."""
    with whole(path) as part:
        part.write_bytes(content)


def user_folder() -> Path:
    """The user's own folder: $GLIMPSEZOO_HOME, or ~/.glimpsezoo. Raises `GlimpseZooError` for a user without a home."""
    if given := os.environ.get("GLIMPSEZOO_HOME"):
        return Path(given)
    try:
        return Path.home() / ".glimpsezoo"
    except RuntimeError:
        raise GlimpseZooError("expected a home folder to keep things in, got none: set GLIMPSEZOO_HOME to a folder of yours") from None
