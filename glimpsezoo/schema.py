"""The base class of everything written as JSON: result.json with its sections, and the records beside units of work."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

SCHEMA = 1  # an older one would be read here, and named in docs/reliability.md


def _read_here(version: Any) -> Any:
    if version != SCHEMA or isinstance(version, bool):
        newer = isinstance(version, int) and version > SCHEMA
        what = "which a newer glimpsezoo wrote: update glimpsezoo" if newer else "which no glimpsezoo wrote: make the file again"
        raise ValueError(f"expected version {SCHEMA}, got {version!s:.20}, {what}")
    return version


Version = Annotated[Literal[1], BeforeValidator(_read_here)]
"""The version of a file's keys, which a file carries under `schema` or `format`."""


def why_invalid(error: ValidationError) -> str:
    """What is wrong with a file, on one line. A wrong version explains everything else, so it comes first."""
    errors = error.errors()
    first = next((each for each in errors if each["loc"] in {("schema",), ("format",)}), errors[0])
    text = " ".join(first["msg"].removeprefix("Value error, ").split()) if first["loc"] in {("schema",), ("format",)} else first["msg"]
    where = ".".join(map(str, first["loc"]))
    return f"{where}: {text}" if where else text


Count = Annotated[int, Field(ge=0)]
"""A number of things."""
Positive = Annotated[int, Field(ge=1)]
"""A number of things of which there is at least one; a step, from 1."""
Amount = Annotated[float, Field(ge=0)]
"""A cost, a time, a distance."""
Share = Annotated[float, Field(ge=0, le=1)]
"""A share of a whole, or a probability."""
Difference = Annotated[float, Field(ge=-1, le=1)]
"""The difference of two shares."""


class Section(BaseModel):
    """Base of every record: frozen, without unknown keys, without NaN or infinity. A string literal below a field documents it."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        populate_by_name=True,
        json_schema_serialization_defaults_required=True,
        use_attribute_docstrings=True,
    )

    def to_json(self) -> str:
        """The text of the file: indented, with a newline at its end."""
        return self.model_dump_json(by_alias=True, indent=2) + "\n"
