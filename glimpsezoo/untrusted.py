"""Reads files that anybody may have written: only regular ones, and only up to limits that no honest file reaches.

All JSON and TOML that is not part of an installed package is read here. docs/security.md lists the limits.
"""

import errno
import json
import os
import re
import stat
import tomllib
import zipfile
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

from glimpsezoo.errors import GlimpseZooError, counted, why_not

MB = 10**6
JSON_SIZE = 128 * MB  # bytes of a JSON text, or of a training log
TOML_SIZE = MB
IMAGE_SIZE = 512 * MB  # bytes of an image file
ROWS_SIZE = 2048 * MB  # bytes of the rows of a result
DEPTH = 100  # of lists and tables in each other
DIGITS = 300  # of a number; all such fit into a float
README_SIZE, ALIASES = 16 * MB, 50  # of a README of a data set, and references in its YAML
ROWS = 10**8  # of a Parquet file
UNPACKED, RATIO = 10**9, 100  # what unpacks to more bytes than this, and to more times its size, is refused

_QUOTED = re.compile(  # of TOML; what is not closed reaches to the end, so that nothing is looked at twice
    r'"""(?:[^\\]|\\.)*?(?:"""|\Z)|\'\'\'.*?(?:\'\'\'|\Z)|"(?:[^"\\\n]|\\.)*+"?|\'[^\'\n]*+\'?|#[^\n]*+', re.DOTALL
)
_ALIAS = re.compile(r"(?<=[\s,\[:-])\*[\w-]")  # of YAML
_LONG_KEY = re.compile(rf"(?<![\w.-])(?:[\w-]++[ \t]*+\.[ \t]*+){{{DEPTH}}}")

M = TypeVar("M", bound=BaseModel)


class ExcessError(ValueError):
    """A text that exceeds a limit."""


def read_regular(path: Path | str, most: int) -> bytes:
    """The content of a regular file of at most `most` bytes: never of a pipe, a device or a socket, which may not end.

    Raises `OSError` for a file that cannot be read, is of another kind, or is larger.
    """
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))  # opening a pipe would wait
    try:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, f"it is {_kind(found.st_mode)}, not a file", os.fspath(path))
        if found.st_size > most:
            raise OSError(errno.EFBIG, f"it has {_size(found.st_size)}, and {_size(most)} are the most", os.fspath(path))
        with os.fdopen(handle, "rb", closefd=False) as stream:
            return stream.read()
    finally:
        os.close(handle)


def _kind(mode: int) -> str:
    """What a path that is not a file is."""
    kinds = (("a folder", stat.S_ISDIR), ("a pipe", stat.S_ISFIFO), ("a socket", stat.S_ISSOCK))
    return next((name for name, is_kind in kinds if is_kind(mode)), "a device")


def _size(size: int) -> str:
    return f"{size / MB:,.0f} MB"


def json_values(content: bytes | str) -> Any:
    """The values of a JSON text. Raises `ValueError` for what is not JSON, or exceeds the limits of this module."""
    _check_size(content, JSON_SIZE)
    try:
        values = json.loads(content, parse_int=_whole_number)
    except RecursionError:
        raise ExcessError(_too_deep()) from None
    _check_depth(values)
    return values


def parsed(kind: type[M], content: bytes | str) -> M:
    """A record of a JSON text. Raises pydantic's `ValidationError`, also for what `json_values` refuses."""
    try:
        json_values(content)
    except ExcessError as error:
        problem = PydanticCustomError("too_much", "{why}", {"why": str(error)})
        raise ValidationError.from_exception_data(kind.__name__, [InitErrorDetails(type=problem, input=None)]) from None
    except ValueError:
        pass  # pydantic says better what is wrong
    return kind.model_validate_json(content)


def toml_values(text: str) -> dict[str, Any]:
    """The values of a TOML text. Raises `ValueError` for what is not TOML, or exceeds the limits of this module."""
    _check_size(text, TOML_SIZE)
    if _LONG_KEY.search(_QUOTED.sub("q", text)):  # the parser takes time and memory that grow with the square of a key's length
        raise ExcessError(_too_deep())
    try:
        values = tomllib.loads(text)
    except RecursionError:
        raise ExcessError(_too_deep()) from None
    _check_depth(values)
    return values


def read_toml(path: Path) -> dict[str, Any]:
    """The values of a TOML file. Raises `OSError` and `ValueError`."""
    return toml_values(read_regular(path, TOML_SIZE).decode("utf-8"))


def toml_of(option: str, path: Path) -> dict[str, Any]:
    """The values of the TOML file that an option names. Raises `GlimpseZooError`."""
    try:
        return read_toml(path)
    except (OSError, ValueError) as error:
        why = why_not(error)
        raise GlimpseZooError(f"{option} expects a TOML file, got {str(path)!r} ({why:.120}): correct it, or name another") from None


def front_matter(readme: Path) -> str:
    """The YAML that begins a README; '' if there is none.

    Raises `GlimpseZooError` if it cannot be read, or repeats parts of itself again and again, which libraries write out.
    """
    try:
        head, end, _ = read_regular(readme, README_SIZE).decode("utf-8", "replace").removeprefix("---").partition("\n---")
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise GlimpseZooError(f"expected a README of a data set in {str(readme)!r}, got none that can be read ({why_not(error)})") from None
    if (count := len(_ALIAS.findall(head))) > ALIASES:
        raise GlimpseZooError(f"expected at most {ALIASES} references (*NAME) in the YAML of {str(readme)!r}, got {count}: write them out")
    return head if end else ""


def check_parquet(meta: Any) -> None:
    """Refuse a Parquet file whose rows or columns would take very much more memory than the file. meta: Arrow's. Raises `ValueError`."""
    if meta.num_rows > ROWS:
        raise ExcessError(f"{meta.num_rows:,} rows, and {ROWS:,} are the most")
    for group in map(meta.row_group, range(meta.num_row_groups)):
        columns = [group.column(place) for place in range(group.num_columns)]
        _check_unpacked(sum(each.total_compressed_size for each in columns), sum(each.total_uncompressed_size for each in columns))


def check_zip(path: Path) -> None:
    """Refuse a ZIP file, as torch writes checkpoints, that would unpack to very much more than it is. Raises `ValueError`."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            _check_unpacked(path.stat().st_size, sum(entry.file_size for entry in archive.infolist()))


def _check_unpacked(packed: int, unpacked: int) -> None:
    if unpacked > UNPACKED and unpacked > RATIO * packed:
        raise ExcessError(f"{_size(packed)} that unpack to {_size(unpacked)}, more than {RATIO} times as much")


def is_number(text: str) -> bool:
    """Whether a text is a whole number from 0. Of one with very many digits, `int` would raise an error."""
    return text.isdecimal() and len(text) <= DIGITS


def _whole_number(text: str) -> int:
    if len(text) > DIGITS:
        raise ExcessError(f"a number of {counted(len(text), 'digit')}, more than {DIGITS}")
    return int(text)


def _check_size(content: bytes | str, most: int) -> None:
    if len(content) > most:
        raise ExcessError(f"more than {_size(most)}")


def _check_depth(values: Any) -> None:
    """Refuse deep nesting, and numbers that TOML lets through."""
    level = [values]
    for _ in range(DEPTH + 1):
        if not level:
            return
        inner = [each.values() if isinstance(each, dict) else each for each in level if isinstance(each, dict | list)]
        level = [value for some in inner for value in some]
        if any(type(value) is int and abs(value) >= 10**DIGITS for value in level):
            raise ExcessError(f"a number of more than {DIGITS} digits")
    raise ExcessError(_too_deep())


def _too_deep() -> str:
    return f"lists and tables nested more than {DEPTH} deep"
