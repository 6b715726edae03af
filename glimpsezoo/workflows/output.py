"""What every workflow needs to write things down: a folder that can be written, and the command as it is recorded."""

import shlex
import sys
import tempfile
from pathlib import Path

from glimpsezoo.errors import GlimpseZooError, one_line


def check_writable(folder: Path) -> None:
    """See that a folder can be made, or written if it is there; nothing is left behind. Raises `GlimpseZooError`."""
    there = next(place for place in (folder, *folder.parents) if place.exists())
    try:
        tempfile.TemporaryFile(dir=there).close()
    except OSError as error:
        raise unwritable(folder, error) from None


def unwritable(folder: Path, error: OSError) -> GlimpseZooError:
    """What a user reads whose folder cannot be written."""
    why = error.strerror or one_line(error)
    return GlimpseZooError(f"expected an output folder that can be written, got {str(folder)!r} ({why}): choose another --output")


def command_line() -> str:
    """The command as a user would repeat it, paths by their base names."""
    return shlex.join(["glimpsezoo", *(_public(word) for word in sys.argv[1:])])


def _public(word: str) -> str:
    """A word of the command without the folders of this machine: 'folder:/home/me/faces' becomes 'folder:faces'."""
    for start in sorted({0, word.find("=") + 1, word.find(":") + 1}):
        text = word[start:]
        if "/" in text and (text.startswith(("/", "./", "../")) or Path(text).exists()):
            return word[:start] + Path(text).resolve().name
    return word
