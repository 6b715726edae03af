"""The board as Markdown, CSV and LaTeX. Names are quoted as each format asks."""

import csv
import io
from collections.abc import Iterable, Sequence

from glimpsezoo.pages.board import Column, Entry, columns, mean_macs
from glimpsezoo.records import Pair
from glimpsezoo.tables import pair_text

_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{letter: f"\\{letter}" for letter in "&%$#_{}"},
}


def markdown(entries: Sequence[Entry], pairs: Sequence[Pair]) -> str:
    """A table, and a line for each pair."""
    shown = columns(entries)
    lines = [_row(column.heading for column in shown), _row("---" if column.words else "---:" for column in shown)]
    lines += [_row(_markdown(column.cell(entry).text) for column in shown) for entry in entries]
    said = [f"- {_markdown(text)}" for text in pair_texts(entries, pairs)]
    return "\n".join([*lines, *([""] if said else []), *said]) + "\n"


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _markdown(text: str) -> str:
    text = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;")
    return "".join(f"\\{letter}" if letter in "\\|`*_[]#" else letter for letter in text)


def comma_separated(entries: Sequence[Entry]) -> str:
    """A line a model; numbers unrounded, with the ends of their 95 % interval in columns of their own."""
    shown, file = columns(entries), io.StringIO()
    bounded = [column for column in shown if any(column.cell(entry).low is not None for entry in entries)]
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([name for column in shown for name in _headings(column, column in bounded)])
    for entry in entries:
        row: list[object] = []
        for column in shown:
            cell = column.cell(entry)
            row.append(_harmless(cell.text) if column.words else cell.value)
            row += [cell.low, cell.high] if column in bounded else []
        writer.writerow(row)
    return file.getvalue()


def _headings(column: Column, bounded: bool) -> list[str]:
    return [column.heading, *([f"{column.heading} low", f"{column.heading} high"] if bounded else [])]


def _harmless(text: str) -> str:
    """Spreadsheets run what begins like a formula."""
    return f"'{text}" if text[:1] in {"=", "+", "-", "@"} else text


def latex(entries: Sequence[Entry], pairs: Sequence[Pair]) -> str:
    """A tabular (package booktabs), with the pairs as comments below."""
    shown = columns(entries)
    spec = "".join("l" if column.words else "r" for column in shown)
    lines = [f"\\begin{{tabular}}{{{spec}}}", "\\toprule", _latex_row(column.heading for column in shown), "\\midrule"]
    lines += [_latex_row(column.cell(entry).text for column in shown) for entry in entries]
    lines += ["\\bottomrule", "\\end{tabular}", *(f"% {' '.join(text.split())}" for text in pair_texts(entries, pairs))]
    return "\n".join(lines) + "\n"


def _latex_row(cells: Iterable[str]) -> str:
    return " & ".join("".join(_LATEX.get(letter, letter) for letter in " ".join(cell.split())) for cell in cells) + r" \\"


def pair_texts(entries: Sequence[Entry], pairs: Sequence[Pair]) -> list[str]:
    """A sentence for every pair, each first-named model against the later ones."""
    names = [entry.name for entry in entries]
    macs = {entry.name: None if entry.result.at_least else mean_macs(entry.result) for entry in entries}
    return [pair_text(pair, macs[pair.a], macs[pair.b]) for pair in pairs if names.index(pair.a) < names.index(pair.b)]
