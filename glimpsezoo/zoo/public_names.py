"""What cards and results record of a command: its names and paths, without those of this machine and without tokens."""

import shlex
import sys
from collections.abc import Iterable
from pathlib import Path

from glimpsezoo.escaping import line
from glimpsezoo.evaluation.places import without_credentials
from glimpsezoo.specs import DatasetSpec
from glimpsezoo.zoo.plugins import registry


def public_name(data: str) -> str:
    """The name of a data set in cards and results. A folder on this machine is reduced to the last part of its path.

    >>> public_name("folder:/home/me/photos"), public_name("hf:me/photos")
    ('folder:photos', 'hf:me/photos')
    """
    for spec in registry().all(DatasetSpec):
        if spec.local and data.startswith(spec.name):
            return spec.name + Path(data.removeprefix(spec.name)).expanduser().resolve().name
    return data


def command_line(words: Iterable[str] | None = None) -> str:
    """The command of this process for cards and results, without tokens, and without paths of this machine: see `published_word`.

    words: what says the same without a file that the command reads.
    """
    return shlex.join(["glimpsezoo", *(line(published_word(word)) for word in (sys.argv[1:] if words is None else words))])


def published_word(word: str) -> str:
    """A word of a command without paths of this machine: data as in `public_name`; paths below the working directory as they were typed;
    other paths reduced to their last part. URLs are without credentials.

    >>> published_word("--data=folder:/home/me/faces"), published_word("-o/home/me/out"), published_word("out/first")
    ('--data=folder:faces', '-oout', 'out/first')
    >>> published_word("s3://key:secret@bucket/units"), published_word("file:///home/me/units")
    ('s3://bucket/units', 'file:units')
    """
    end = word.find("=") + 1 if word.startswith("--") else 2 if word.startswith("-") else 0
    option, value = word[:end], without_credentials(word[end:])
    if value.startswith("file:"):
        return f"{option}file:{Path(value).name}"
    data = public_name(value)
    if data != value:
        return option + data
    for start in sorted({0, value.find("=") + 1, value.rfind(":") + 1}, reverse=True):  # after the key of --set, or after a prefix
        path = value[start:]
        if (path.startswith(("/", "~")) and not path.startswith("//")) or ".." in Path(path).parts:
            return option + value[:start] + Path(path).expanduser().resolve().name
    return option + value
