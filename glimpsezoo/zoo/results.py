"""result.json with the sections of all registered measures: its type, its schema, and reading it."""

import hashlib
import json
from functools import cache
from pathlib import Path

from pydantic import ValidationError
from pydantic_core import PydanticCustomError

from glimpsezoo.errors import GlimpseZooError, one_line
from glimpsezoo.evaluation.rows import Rows, from_parquet
from glimpsezoo.hashing import is_unchanged
from glimpsezoo.measures.base import Measure
from glimpsezoo.measures.result import Result
from glimpsezoo.measures.result import result_type as with_sections
from glimpsezoo.measures.statistics import ROUNDING
from glimpsezoo.specs import MeasureSpec, load_string
from glimpsezoo.untrusted import JSON_SIZE, ROWS_SIZE, parsed, read_regular
from glimpsezoo.zoo.cards import RESULT, ROWS, Card
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
    """A result.json. Raises pydantic's `ValidationError`, also for one that is not as it was written."""
    result = parsed(result_type(), content)
    if not is_unchanged(content):
        changed = PydanticCustomError("changed", "it has changed since it was written")
        raise ValidationError.from_exception_data("result", [{"type": changed, "loc": ("hashes", "content"), "input": None}])
    return result


def rows_of(folder: Path, result: Result) -> Rows | None:
    """The rows that a result in this folder was made of; None if they are not there.

    Raises `GlimpseZooError` if they are damaged or of another result. A result that is older than hashes is compared with them: the number
    of images, and the accuracy.
    """
    try:
        content = read_regular(folder / ROWS, ROWS_SIZE)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise GlimpseZooError(f"expected a {ROWS} that can be read in {str(folder)!r} ({one_line(error):.120}): check it") from None
    unit = from_parquet(content)
    if unit is None or not _belongs(content, unit.rows, result):
        raise GlimpseZooError(
            f"expected the {ROWS} that the {RESULT} in {'/'.join(folder.parts[-2:])!r} was made of, got one that is damaged or of another "
            f"run: measure it again, or delete {ROWS} to go without tests between models"
        )
    return unit.rows


def _belongs(content: bytes, rows: Rows, result: Result) -> bool:
    if result.hashes is not None:
        return hashlib.sha256(content).hexdigest() == result.hashes.rows
    if result.accuracy is None:
        return True
    top1 = result.accuracy.top1
    return len(rows) == top1.n and abs(float(rows.hits[:, -1].mean()) - top1.value) < ROUNDING


def evidence(card: Card) -> Result | None:
    """The card's result.json; None if there is none measured with these very weights."""
    path = card.folder / RESULT
    try:
        result = read_result(read_regular(path, JSON_SIZE)) if path.is_file() else None
    except (OSError, ValidationError):
        return None
    return result if result and is_of(card, result) else None


def is_of(card: Card, result: Result) -> bool:
    """Whether the result was measured with the card's very weights."""
    used = result.model.checkpoint
    return used is not None and card.config.weights is not None and used.sha256 == card.config.weights.sha256


def result_schema() -> str:
    """The JSON Schema of result.json, as `docs/result.schema.json` holds it for the built-in measures."""
    schema = result_type().model_json_schema(by_alias=True, mode="serialization")
    return json.dumps({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}, indent=2) + "\n"
