"""Text that accompanies tables of results: footnotes and paired tests."""

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from glimpsezoo.measures.accuracy import measured_text
from glimpsezoo.measures.costs import mean_macs
from glimpsezoo.measures.pairs import Comparison, Pair, pair_text
from glimpsezoo.measures.result import Result, by_text
from glimpsezoo.measures.shown import Entry, Layout
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


def pair_texts(entries: Sequence[Entry], pairs: Sequence[Pair]) -> list[str]:
    """One sentence per pair; each model is compared with those after it."""
    names = [entry.name for entry in entries]
    macs = {entry.name: None if entry.result.at_least else mean_macs(entry.result) for entry in entries}
    return [pair_text(pair, macs[pair.a], macs[pair.b]) for pair in pairs if names.index(pair.a) < names.index(pair.b)]


def print_comparison(comparison: Comparison | None, results: Sequence[Result], console: Console) -> None:
    """Print one line per pair of models of a run; each model is compared with those after it."""
    if comparison is None:
        return
    names = [result.model.name for result in results]
    macs = {result.model.name: mean_macs(result) for result in results if not result.at_least}
    for pair in comparison.pairs:
        if names.index(pair.a) < names.index(pair.b):
            console.print(Text(pair_text(pair, macs.get(pair.a), macs.get(pair.b))))
