"""What every workflow needs to write things down: a folder that can be written, and the command as it is recorded."""

import shlex
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from glimpsezoo.errors import GlimpseZooError, one_line
from glimpsezoo.resolve import public_name


def check_writable(folder: Path) -> None:
    """See that a folder can be made, or written if it is there; nothing is left behind. Raises `GlimpseZooError`."""
    with output_to(folder):
        there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
        tempfile.TemporaryFile(dir=there).close()


@contextmanager
def output_to(folder: Path) -> Iterator[None]:
    """What the system refuses to write there, as one line. Raises `GlimpseZooError`."""
    try:
        yield
    except OSError as error:
        raise unwritable(folder, error) from None


def unwritable(folder: Path, error: OSError) -> GlimpseZooError:
    """The error for an output folder that cannot be written."""
    why = error.strerror or one_line(error)
    return GlimpseZooError(f"expected an output folder that can be written, got {str(folder)!r} ({why}): choose another --output")


def command_line() -> str:
    """The command as a user would repeat it, without what it says of this machine: see `published_word`."""
    return shlex.join(["glimpsezoo", *(published_word(word) for word in sys.argv[1:])])


def published_word(word: str) -> str:
    """A word of a command as it may be published: data as `public_name` has them, and paths as they were typed if they lead down from
    the working directory; any other by its last part.

    >>> published_word("--data=folder:/home/me/faces"), published_word("-o/home/me/out"), published_word("out/first")
    ('--data=folder:faces', '-oout', 'out/first')
    """
    end = word.find("=") + 1 if word.startswith("--") else 2 if word.startswith("-") else 0
    option, value = word[:end], word[end:]
    data = public_name(value)
    if data != value:
        return option + data
    for start in sorted({0, value.find("=") + 1, value.rfind(":") + 1}, reverse=True):  # behind the key of --set, or a prefix
        path = value[start:]
        if (path.startswith(("/", "~")) and not path.startswith("//")) or ".." in Path(path).parts:
            return option + value[:start] + Path(path).expanduser().resolve().name
    return word
