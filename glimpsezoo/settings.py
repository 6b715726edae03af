"""Validated settings: what `--set key=value` reaches. A plugin's config is a frozen pydantic model derived from `Settings`."""

from collections.abc import Mapping
from typing import Any, Self

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
            return cls.model_validate({k: cls._from_text(k, v) for k, v in values.items()})
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(str(part) for part in first["loc"]) or owner
            raise GlimpseZooError(f"--set {key}={first['input']} for {owner}: {first['msg'].removeprefix('Value error, ')}") from None

    @classmethod
    def _from_text(cls, key: str, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        if "tuple" in str(cls.model_fields[key].annotation):
            return tuple(part.strip() for part in value.split(","))
        return None if value.lower() in {"none", "null"} and "None" in str(cls.model_fields[key].annotation) else value


class NoSettings(Settings):
    """For what has no settings of its own."""
