"""Tables of results: one set of columns, and a writer for each format: terminal, Markdown, CSV and LaTeX (HTML is in html.py)."""

import csv
import io
import re
from collections.abc import Iterable, Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from glimpsezoo import escaping
from glimpsezoo.escaping import Markdown
from glimpsezoo.measures.accuracy import measured_text
from glimpsezoo.measures.base import Measure
from glimpsezoo.measures.result import Result, at_least_text, by_text
from glimpsezoo.measures.shown import Cell, Column, Entry, Layout, Table
from glimpsezoo.measures.text import macs_text
from glimpsezoo.zoo.results import measure_classes

LONG_WORD = 20  # of a name: what is longer may be folded anywhere


def columns_of(results: Sequence[Result], layout: Layout) -> list[Column]:
    """All columns of the measures that at least one result fills, in the order of result.json. A verdict follows the column it is about."""
    found: list[Column] = []
    for kind in measure_classes().values():
        for column in _filled(kind, results, layout) if kind.plain or layout != "details" else ():
            places = [k for k, other in enumerate(found) if other.heading == column.after]
            found.insert(places[0] + 1 if places else len(found), column)
    return found


def _filled(kind: type[Measure], results: Sequence[Result], layout: Layout) -> list[Column]:
    """The columns of a measure that at least one result fills."""
    places = [(result, step) for result in results for step in (range(_steps(result)) if layout != "board" else (-1,)) if _steps(result)]
    return [column for column in kind.columns(results, layout) if any(column.cell(*place).text for place in places)]


def step_table(results: Sequence[Result]) -> Table:
    """One row per step of each model. If only accuracy and cost were measured, accuracy is shown in detail."""
    plain = not any(_filled(kind, results, "steps") for kind in measure_classes().values() if not kind.plain)
    shown = columns_of(results, "details" if plain else "steps")
    if not plain:
        shown.sort(key=lambda column: column.last)
    rows = []
    for result in results:
        for step in range(_steps(result)):
            cells = [column.cell(result, step) for column in shown]
            rows.append((Cell("" if step else result.display_name), Cell(str(step + 1), step + 1), *cells))
        if not _steps(result):  # '-': nothing was measured by step
            rows.append((Cell(result.display_name), Cell("failed" if result.errors else "-"), *(Cell("") for _ in shown)))
    return Table("", ("model", "step", *(column.heading for column in shown)), tuple(rows), frozenset({"model"}))


def _steps(result: Result) -> int:
    """The largest number of steps that any section of the result has values for."""
    sections = [getattr(result, name) for name in measure_classes()]
    several = [each for section in sections for each in (section if isinstance(section, tuple) else (section,)) if each is not None]
    by_step = [getattr(each, key) for each in several for key in ("steps", "by_step") if hasattr(each, key)]
    return max((len(each) for each in by_step if isinstance(each, tuple)), default=0)


def board_columns(entries: Sequence[Entry]) -> list[Column]:
    """The columns of a leaderboard: the measures at the last step, then the model's parameters and steps."""
    parameters = Column(
        "parameters", lambda result, _: Cell(macs_text(result.model.parameters), result.model.parameters), higher=False, minor=True
    )
    steps = Column("steps", lambda result, _: Cell(str(result.model.steps), result.model.steps), higher=False, minor=True)
    return [*columns_of([entry.result for entry in entries], "board"), parameters, steps]


def board(entries: Sequence[Entry]) -> Table:
    """One row per model, at its last step."""
    shown = board_columns(entries)
    rows = tuple((Cell(entry.name), Cell(entry.data), *(column.cell(entry.result, -1) for column in shown)) for entry in entries)
    words = frozenset({"model", "data", *(column.heading for column in shown if column.words)})
    return Table("", ("model", "data", *(column.heading for column in shown)), rows, words)


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


def print_results(results: Sequence[Result], console: Console) -> None:
    """Print the table of steps, at most 100 columns wide, with its footnotes."""
    table = step_table(results)
    in_detail = "95 % interval" in table.headings or len(table.headings) < 6
    console.print(terminal(table, console.width, first_width=30 if in_detail else 20))
    for below in (each for kind in measure_classes().values() for each in kind.below(results)):
        console.print(terminal(below, console.width, first_width=20 if below.headings[0] == "model" else None))
    at_least = [f"{at_least_text(result)}." for result in results if result.at_least]
    for line in [*footnotes(results, "steps"), *at_least]:
        console.print(Text(line, style="dim"))


def terminal(table: Table, room: int, *, first_width: int | None = 30) -> RichTable:
    """The table for a terminal of this width, `room`. The heading of the first column with intervals names their level.

    Where the terminal is too narrow, an interval goes below its number, and names are broken behind a point or a comma, as far as that is
    enough; no number is cut off.
    first_width: the first column is at most as wide in any case; None leaves that to the terminal.
    """
    drawn = RichTable(title=Text(table.caption) if table.caption else None, box=None, pad_edge=False, show_edge=False, header_style="bold")
    words = [place == 0 or heading in table.words for place, heading in enumerate(table.headings)]
    headings = _explained(table)
    columns = [[row[place].text for row in table.rows] for place in range(len(headings))]
    wide = [max(map(cell_len, [*heading.split("\n"), *column])) for heading, column in zip(headings, columns, strict=True)]
    wide[0] = min(wide[0], first_width or wide[0])
    least = [_longest(heading, column, words=each) for heading, column, each in zip(headings, columns, words, strict=True)]
    widths = _fitting(wide, least, room - 2 * (len(headings) - 1))
    for place, heading in enumerate(headings):
        style, justify = ("cyan" if place == 0 else ""), ("left" if place == 0 or (words[place] and place > 1) else "right")
        text = Text(_broken(heading, widths[place], words=False))
        drawn.add_column(text, style=style, justify=justify, overflow="fold", max_width=widths[place])
    for row in zip(*columns, strict=True):
        drawn.add_row(*(Text(_broken(text, width, words=each)) for text, width, each in zip(row, widths, words, strict=True)))
    return drawn


def _explained(table: Table) -> list[str]:
    """The headings, with lines of their own; the first one of intervals names their level."""
    bounded = [any(row[place].low is not None and "(" in row[place].text for row in table.rows) for place in range(len(table.headings))]
    first = bounded.index(True) if True in bounded else None
    return [f"{heading} (95 %)" if place == first else heading.replace(", ", ",\n") for place, heading in enumerate(table.headings)]


def _pieces(text: str, *, words: bool) -> list[str]:
    """What a text may be broken into: words and parts of names, or a number and its interval.

    >>> _pieces("mgnet.digits", words=True), _pieces("98.8 (98.1-99.4)", words=False)
    (['mgnet.', 'digits'], ['98.8 ', '(98.1-99.4)'])
    """
    return re.split(r"(?<=[\s.,:/@])" if words else r"(?<=\s)(?=\()", text)


def _longest(heading: str, column: Sequence[str], *, words: bool) -> int:
    """The width that no piece of a column exceeds; very long words are folded."""
    most = LONG_WORD if words else max(map(cell_len, column), default=0)
    pieces = [piece for text in column for piece in _pieces(text, words=words)]
    return max([*map(cell_len, heading.split()), min(most, max((cell_len(piece.rstrip()) for piece in pieces), default=0))])


def _fitting(wide: Sequence[int], least: Sequence[int], room: int) -> list[int]:
    """Widths of columns that fit into a room, if possible: as few columns as possible are narrowed, those first that gain most."""
    widths = list(wide)
    for place in sorted(range(len(wide)), key=lambda place: least[place] - wide[place]):
        widths[place] = max(1, min(wide[place], max(least[place], wide[place] - max(0, sum(widths) - room))))
    return widths


def _broken(text: str, width: int, *, words: bool) -> str:
    """A text in lines of at most this width, if its pieces allow that."""
    lines = [""]
    for piece in _pieces(text, words=words):
        if lines[-1] and cell_len((lines[-1] + piece).rstrip()) > width:
            lines.append("")
        lines[-1] += piece
    return "\n".join(line.rstrip() for line in lines)


def markdown(table: Table) -> Markdown:
    """A Markdown table."""
    written = _in_a_cell if table.markdown else escaping.markdown
    lines = [_row(map(written, table.headings)), _row("---" if heading in table.words else "---:" for heading in table.headings)]
    return Markdown("\n".join([*lines, *(_row(written(cell.text) for cell in row) for row in table.rows)]))


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _in_a_cell(text: str) -> str:
    """Markdown, escaped for a cell of a table."""
    return text.replace("|", "\\|")


def comma_separated(table: Table) -> str:
    """CSV with unrounded numbers; the ends of 95 % intervals, and whether a number is only an upper bound, have separate columns."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    places = range(len(table.headings))
    bounded = {place for place in places if any(row[place].low is not None for row in table.rows)}
    marked = {place for place in places if any(row[place].at_most for row in table.rows)}
    headings = list[str]()
    for place, heading in enumerate(table.headings):
        headings += [heading, *([f"{heading} low", f"{heading} high"] if place in bounded else [])]
        headings += [f"{heading} is an upper bound"] if place in marked else []
    writer.writerow(map(escaping.cell, headings))
    for row in table.rows:
        line: list[object] = []
        for place, cell in enumerate(row):
            line.append(escaping.cell(cell.text) if table.headings[place] in table.words else cell.value)
            line += [cell.low, cell.high] if place in bounded else []
            line += ["yes" if cell.at_most else "no" if cell.text else ""] if place in marked else []
        writer.writerow(line)
    return file.getvalue()


def latex(table: Table, comments: Sequence[str] = ()) -> str:
    """A LaTeX tabular (package booktabs), with comments below."""
    spec = "".join("l" if heading in table.words else "r" for heading in table.headings)
    lines = [f"\\begin{{tabular}}{{{spec}}}", "\\toprule", _latex_row(table.headings), "\\midrule"]
    lines += [_latex_row(cell.text for cell in row) for row in table.rows]
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}", *(f"% {escaping.latex_comment(text)}" for text in comments)]) + "\n"


def _latex_row(cells: Iterable[str]) -> str:
    return " & ".join(map(escaping.latex, cells)) + r" \\"
