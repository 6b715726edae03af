"""Writes TOML, which the standard library only reads, and its values as they are typed on the command line."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

_BARE = re.compile("[A-Za-z0-9_-]+")


def toml_text(values: Mapping[str, Any]) -> str:
    """A document of these values: text, numbers, booleans, lists and tables. A value that is None is left out, as TOML has none.

    >>> print(toml_text({"lr": 0.1, "phase": [{"name": "all", "options": {"stage": 1}}]}))
    lr = 0.1
    <BLANKLINE>
    [[phase]]
    name = "all"
    <BLANKLINE>
    [phase.options]
    stage = 1
    """
    return "\n".join(_lines(values, ())).strip("\n")


def typed(value: Any) -> str:
    """A value as it is typed.

    >>> typed([1, 2.5]), typed(True)
    ('1,2.5', 'true')
    """
    if isinstance(value, list):
        return ",".join(map(typed, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The values in a table and the tables in it, by dotted keys."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _lines(values: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[str]:
    """The lines of a table at `path`: first its own values, then the tables in it."""
    known = {key: value for key, value in values.items() if value is not None}
    inner = {key: value for key, value in known.items() if isinstance(value, Mapping) or _is_tables(value)}
    yield from (f"{_key(key)} = {_value(value)}" for key, value in known.items() if key not in inner)
    for key, value in inner.items():
        name = ".".join(map(_key, (*path, key)))
        for table in [value] if isinstance(value, Mapping) else value:
            yield from ("", f"[{name}]" if isinstance(value, Mapping) else f"[[{name}]]")
            yield from _lines(table, (*path, key))


def _is_tables(value: Any) -> bool:
    return isinstance(value, list | tuple) and bool(value) and all(isinstance(item, Mapping) for item in value)


def _key(key: str) -> str:
    return key if _BARE.fullmatch(key) else _value(key)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_value, value))}]"
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
