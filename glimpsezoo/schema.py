"""The base class of everything written as JSON: result.json with its sections, and the records beside units of work."""

from pydantic import BaseModel, ConfigDict

SCHEMA = 1


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
