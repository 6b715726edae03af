"""Text that accompanies tables of results: footnotes."""

from collections.abc import Sequence

from glimpsezoo.measures.accuracy import measured_text
from glimpsezoo.measures.result import Result, by_text
from glimpsezoo.measures.shown import Layout
from glimpsezoo.zoo.results import measure_classes


def footnotes(results: Sequence[Result], layout: Layout) -> list[str]:
    """What was measured, then the footnotes of each measure."""
    return [*measured_lines(results), *(line for kind in measure_classes().values() for line in kind.footnotes(results, layout))]


def measured_lines(results: Sequence[Result]) -> list[str]:
    """What was measured, by model if that differs, and which models were trained on other data."""
    subjects = [result for result in results if result.accuracy] or results[:1]
    found = by_text(subjects, [measured_text(result) for result in subjects])
    lines = [f"{models.removeprefix(' of ')}: {text}" if models else text for text, models in found.items()]
    lines[-1] += " One multiply-accumulate is one MAC; FLOPs are two times that."
    return [*lines, *(f"{result.departure}." for result in results if result.departure)]
