"""Validated settings: what `--set key=value` reaches. A plugin's config is a frozen pydantic model derived from `Settings`."""

import inspect
import re
from collections.abc import Collection, Mapping
from types import NoneType, UnionType
from typing import Any, NamedTuple, Self, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError

from glimpsezoo.errors import GlimpseZooError, did_you_mean


class Settings(BaseModel):
    """Base of every config. Values may come as text from the command line; a comma separates the items of a tuple.

    Numbers are finite, in every config: infinity and NaN pass most ranges and would be met much later.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)

    @classmethod
    def parse(cls, values: Mapping[str, Any], *, owner: str) -> Self:
        """Build from `values`; `owner` (a model or 'data') names in errors whose keys they are.

        Raises `GlimpseZooError`, one line: the key, what was expected, what was got, and the nearest known keys.
        """
        unknown = [key for key in values if key not in cls.model_fields]
        if unknown:
            hint = did_you_mean(unknown[0], cls.model_fields)
            raise GlimpseZooError(f"{owner} has no setting {unknown[0]!r}: {hint}")
        try:
            return cls.model_validate({key: cls._from_text(key, value) for key, value in values.items()})
        except ValidationError as error:
            first = error.errors()[0]
            message = " ".join(first["msg"].removeprefix("Value error, ").split())
            if not first["loc"]:  # a rule about several settings
                raise GlimpseZooError(f"settings of {owner}: {message}") from None
            key = str(first["loc"][0])
            if isinstance(values.get(key), str):  # as it was typed
                raise GlimpseZooError(f"--set {key}={values[key]} for {owner}: {message}") from None
            got = "" if first["type"] == "missing" else f", got {first['input']!r}"
            raise GlimpseZooError(f"{'.'.join(map(str, first['loc']))} of {owner}: {message}{got}") from None

    @classmethod
    def _from_text(cls, key: str, value: Any) -> Any:
        """Text as pydantic takes it: 'none' where None may stand, and the items of a tuple apart."""
        if not isinstance(value, str):
            return value
        annotation = cls.model_fields[key].annotation
        allowed = get_args(annotation) if get_origin(annotation) in {Union, UnionType} else (annotation,)
        if NoneType in allowed and value.lower() in {"none", "null"}:
            return None
        tuples = [kind for kind in allowed if get_origin(kind) is tuple]
        others = len(allowed) - len(tuples) - (NoneType in allowed)
        if tuples and ("," in value or not others):
            return tuple(part.strip() for part in value.split(","))
        return value


class NoSettings(Settings):
    """For what has no settings of its own."""


class Setting(NamedTuple):
    """One key of a config, as users read of it. type: as they think of it; the items of an array are separated by commas."""

    key: str
    type: str
    default: Any
    required: bool
    meaning: str


def settings_of(config: type[BaseModel]) -> tuple[str, list[Setting]]:
    """What is said of a config as a whole, and its settings. Their meanings are the fields' descriptions, or stand in its docstring."""
    schema = config.model_json_schema()
    required = schema.get("required", [])
    about, meanings = "", {}
    for kind in reversed(config.__mro__):  # a derived config says only what it adds
        if issubclass(kind, BaseModel) and kind not in {BaseModel, Settings}:
            about, said = explained(kind.__doc__ or "", config.model_fields)
            meanings |= said
    settings = [
        Setting(key, _type(value), value.get("default"), key in required, value.get("description") or meanings.get(key, ""))
        for key, value in schema.get("properties", {}).items()
    ]
    return about, settings


def explained(docstring: str, names: Collection[str]) -> tuple[str, dict[str, str]]:
    """What a docstring says of the whole, and of each name: `name: text.`, or `one, other: text.`, up to the next or a blank line.

    >>> explained("A box. side: its length in px. red, green: shares.", ["side", "red", "green"])
    ('A box.', {'side': 'its length in px.', 'red': 'shares.', 'green': 'shares.'})
    """
    one = f"`?(?:{'|'.join(map(re.escape, names))})`?" if names else r"(?!)"
    start = re.compile(rf"(?:^|(?<=[.;)] ))({one}(?:, {one})*): ")
    about: list[str] = []
    meanings: dict[str, str] = {}
    for paragraph in inspect.cleandoc(docstring).split("\n\n"):
        lead, *said = start.split(" ".join(paragraph.split()))
        shared = lead if meanings and said else ""  # what opens a later paragraph is said of each name in it
        about += [lead.strip()] if lead and not shared else []
        for keys, text in zip(said[::2], said[1::2], strict=True):
            meanings |= {key.strip("`"): shared + text.rstrip(" ;") for key in keys.split(", ")}
    return " ".join(about), meanings


def _type(value: Mapping[str, Any]) -> str:
    """A JSON Schema's type in words."""
    if "enum" in value or "const" in value:
        return "|".join(map(str, value.get("enum", [value.get("const")])))
    if "anyOf" in value:
        return " or ".join(_type(option) for option in value["anyOf"]).replace("null", "none")
    if "$ref" in value:
        return "table"
    if "prefixItems" in value:
        return ",".join(_type(item) for item in value["prefixItems"])
    if value.get("type") == "array" and "items" in value:
        return f"{_type(value['items'])},..."
    return str(value.get("type", "?")).replace("null", "none")
