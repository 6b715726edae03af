"""Validated settings, which `--set key=value` reaches. A plugin's config is a frozen pydantic model derived from `Settings`."""

from collections.abc import Iterable, Mapping
from types import NoneType, UnionType
from typing import Any, Literal, NamedTuple, Self, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError

from glimpsezoo.errors import GlimpseZooError, did_you_mean


class Settings(BaseModel):
    """Base of every config. Values may come as text from the command line; a comma separates the items of a tuple.

    A string literal below a field documents it: `glimpsezoo show` and the reference print it.
    Numbers must be finite: infinity and NaN would pass most ranges and fail only much later.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False, use_attribute_docstrings=True)

    @classmethod
    def parse(cls, values: Mapping[str, Any], *, owner: str) -> Self:
        """Build from `values`. `owner` is what errors call the owner of the keys: a model, or 'data'.

        Raises `GlimpseZooError`, one line: the key, what was expected, what was got, and the nearest known keys.
        """
        cls.check_keys(values, owner=owner)
        try:
            return cls._validated(values)
        except ValidationError as error:
            raise cls._refused(error.errors()[0], values, owner) from None

    @classmethod
    def check(cls, values: Mapping[str, Any], *, owner: str) -> None:
        """Raise `GlimpseZooError`, as `parse` does, for a key or a value that is wrong whatever the other settings are."""
        cls.check_keys(values, owner=owner)
        try:
            cls._validated(values)
        except ValidationError as error:
            for each in error.errors():
                if each["loc"] and each["loc"][0] in values:
                    raise cls._refused(each, values, owner) from None

    @classmethod
    def _validated(cls, values: Mapping[str, Any]) -> Self:
        return cls.model_validate({key: cls._from_text(key, value) for key, value in values.items()})

    @staticmethod
    def _refused(found: Mapping[str, Any], values: Mapping[str, Any], owner: str) -> GlimpseZooError:
        message = " ".join(found["msg"].removeprefix("Value error, ").split())
        if not found["loc"]:  # a rule about several settings
            return GlimpseZooError(f"settings of {owner}: {message}")
        key = str(found["loc"][0])
        if isinstance(values.get(key), str):  # as it was typed
            return GlimpseZooError(f"--set {key}={values[key]} for {owner}: {message}")
        got = "" if found["type"] == "missing" else f", got {found['input']!r}"
        return GlimpseZooError(f"{'.'.join(map(str, found['loc']))} of {owner}: {message}{got}")

    @classmethod
    def check_keys(cls, keys: Iterable[str], *, owner: str) -> None:
        """Raise `GlimpseZooError` for a key that is not a setting."""
        unknown = [key for key in keys if key not in cls.model_fields]
        if unknown:
            raise GlimpseZooError(f"{owner} has no setting {unknown[0]!r}: {did_you_mean(unknown[0], cls.model_fields)}")

    @classmethod
    def _from_text(cls, key: str, value: Any) -> Any:
        """Convert text to what pydantic accepts: 'none' to None where the type allows None, '1' to a literal 1, and a comma-separated list
        to a tuple.
        """
        if not isinstance(value, str):
            return value
        annotation = cls.model_fields[key].annotation
        allowed = get_args(annotation) if get_origin(annotation) in {Union, UnionType} else (annotation,)
        if NoneType in allowed and value.lower() in {"none", "null"}:
            return None
        literals = [member for kind in allowed if get_origin(kind) is Literal for member in get_args(kind)]
        if named := [member for member in literals if str(member) == value]:
            return named[0]
        tuples = [kind for kind in allowed if get_origin(kind) is tuple]
        others = len(allowed) - len(tuples) - (NoneType in allowed)
        if tuples and ("," in value or not others):
            return tuple(part.strip() for part in value.split(","))
        return value


class NoSettings(Settings):
    """The config of anything without settings."""


class Setting(NamedTuple):
    """One key of a config, as users read about it."""

    key: str
    type: str
    """In words; commas separate the items of an array."""
    default: Any
    required: bool
    meaning: str


def settings_of(config: type[BaseModel]) -> tuple[str, list[Setting]]:
    """The docstring of a config, and its settings with their descriptions.

    A field that a derived config overrides keeps its parent's description unless it has its own.
    """
    schema = config.model_json_schema()
    required = schema.get("required", [])
    meanings: dict[str, str] = {}
    for kind in reversed(config.__mro__):
        if issubclass(kind, BaseModel):
            meanings |= {key: _one_line(field.description) for key, field in kind.model_fields.items() if field.description}
    settings = [
        Setting(key, _type(value), value.get("default"), key in required, meanings.get(key, ""))
        for key, value in schema.get("properties", {}).items()
    ]
    return _one_line(config.__doc__ or ""), settings


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _type(value: Mapping[str, Any]) -> str:
    """The type of a JSON Schema in words."""
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
