"""What every workflow needs to write things down: a folder that can be written, and the command as it is recorded."""

import shlex
import sys
import tempfile
from pathlib import Path

from glimpsezoo.errors import GlimpseZooError, one_line


def writable(folder: Path) -> Path:
    """Make the folder, and see that files can be written there. Raises `GlimpseZooError`."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise unwritable(folder, error) from None
    return folder


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
