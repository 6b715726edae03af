"""result.json with the sections of all registered measures: its type, its schema, and reading it."""

import json
from functools import cache

from pydantic import ValidationError

from glimpsezoo.measures.base import Measure
from glimpsezoo.measures.result import Result
from glimpsezoo.measures.result import result_type as with_sections
from glimpsezoo.specs import MeasureSpec, load_string
from glimpsezoo.untrusted import JSON_SIZE, parsed, read_regular
from glimpsezoo.zoo.cards import RESULT, Card
from glimpsezoo.zoo.plugins import registry


def measure_specs() -> list[MeasureSpec]:
    """All measures, in the order of result.json."""
    return registry().all(MeasureSpec)


def measure_class(spec: MeasureSpec) -> type[Measure]:
    """Raises `GlimpseZooError` if it cannot be imported."""
    return load_string(spec.measure)


def measure_classes() -> dict[str, type[Measure]]:
    """All measures by name, in the order of result.json."""
    return {spec.name: measure_class(spec) for spec in measure_specs()}


def result_type() -> type[Result]:
    """`Result` with the sections of all registered measures."""
    return _result_type(tuple(measure_specs()))


@cache
def _result_type(specs: tuple[MeasureSpec, ...]) -> type[Result]:
    sections = {}
    for spec in specs:
        kind = measure_class(spec)
        sections[spec.name] = (kind.record | None if kind.empty is None else kind.record, kind.empty, spec.description)
    return with_sections(sections)


def read_result(content: bytes | str) -> Result:
    """A result.json. Raises pydantic's `ValidationError`."""
    return parsed(result_type(), content)


def evidence(card: Card) -> Result | None:
    """The card's result.json; None if there is none measured with these very weights."""
    path = card.folder / RESULT
    try:
        result = read_result(read_regular(path, JSON_SIZE)) if path.is_file() else None
    except (OSError, ValidationError):
        return None
    used = result.model.checkpoint if result else None
    return result if used and card.config.weights and used.sha256 == card.config.weights.sha256 else None


def result_schema() -> str:
    """The JSON Schema of result.json, as `docs/result.schema.json` holds it for the built-in measures."""
    schema = result_type().model_json_schema(by_alias=True, mode="serialization")
    return json.dumps({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}, indent=2) + "\n"
