"""Validated settings: what `--set key=value` reaches. A plugin's config is a frozen pydantic model derived from `Settings`."""

from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Any, Self, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError

from glimpsezoo.errors import GlimpseZooError, did_you_mean


class Settings(BaseModel):
    """Base of every config. Values may come as text from the command line; a comma separates the items of a tuple."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

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
