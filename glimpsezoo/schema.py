"""The base class of everything written as JSON: result.json with its sections, and the records beside units of work."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

SCHEMA = 1

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
