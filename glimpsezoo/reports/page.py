"""The report: one page with all results of some models. It works offline."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from glimpsezoo.errors import counted
from glimpsezoo.measures.costs import uncounted
from glimpsezoo.measures.pairs import Pair
from glimpsezoo.measures.result import at_least_text
from glimpsezoo.measures.shown import Cell, Column, Entry, Figure, Line
from glimpsezoo.measures.text import macs_text
from glimpsezoo.reports.figures import figures, training_curves
from glimpsezoo.reports.flip import trace_figure
from glimpsezoo.reports.html import Html, captioned, element, join, page, scrolling, table
from glimpsezoo.reports.pictures.svg import svg_part
from glimpsezoo.reports.pictures.traced import Traced
from glimpsezoo.reports.plots import plot, swatch
from glimpsezoo.reports.table import board, board_columns
from glimpsezoo.reports.templates import source
from glimpsezoo.reports.text import footnotes, pair_texts
from glimpsezoo.zoo.results import measure_classes

_NAME = Column("model", lambda result, _: Cell(result.display_name), words=True)
_DATA = Column("data", lambda result, _: Cell(result.data.name), words=True)
FEW = 6  # up to so many paired tests are shown unfolded
LARGEST = 2_900_000  # bytes of a page: below 3 MB


@dataclass(frozen=True)
class Reported:
    """The content of a report."""

    entries: Sequence[Entry]
    """One per model."""
    pairs: Sequence[Pair]
    """Paired tests."""
    traces: Sequence[Traced] = ()
    """Of a few images per model."""
    notes: Sequence[str] = ()
    """Which traces are missing, and why."""


def report_page(reported: Reported) -> str:
    """The page, below 3 MB. Traces that would exceed that are left out, and the page says so."""
    sections = _sections(reported)

    def whole(traces: Sequence[Html], *left_out: str) -> str:
        """The page with these traces; all other sections are reused."""
        return _page(reported, {**sections, "traces": _Section("Where they look", _traces(traces, [*reported.notes, *left_out]))})

    room, figures = LARGEST - len(whole([]).encode()), []
    for number, traced in enumerate(reported.traces):
        figure = trace_figure(traced, f"trace-{number}")
        room -= len(figure.encode())
        if room < 0:
            break
        figures.append(figure)
    missing = len(reported.traces) - len(figures)
    return whole(figures, *([f"{counted(missing, 'trace')} left out: the page would be larger than 3 MB"] if missing else []))


class _Section(NamedTuple):
    """A section of the page."""

    title: str
    """Its heading."""
    content: Html
    """Empty if there is nothing to show."""


def _page(reported: Reported, sections: Mapping[str, _Section]) -> str:
    """The leaderboard, then every section that has content."""
    entries, shown = reported.entries, {key: section for key, section in sections.items() if section.content}
    names = {"leaderboard": "Leaderboard", **{key: section.title for key, section in shown.items()}}
    contents = [element("a", title, href=f"#{key}") for key, title in names.items()]
    data = ", ".join(dict.fromkeys(entry.data for entry in entries))
    title = f"{counted(len(entries), 'model')} on {data}"
    parts = [_leaderboard(entries, reported.pairs)]
    for key, (heading, content) in shown.items():
        parts.append(element("section", element("h2", heading, id=f"{key}-title"), content, id=key, aria_labelledby=f"{key}-title"))
    body = join(
        element("a", "Skip to the leaderboard", href="#leaderboard", class_="skip"),
        element("header", element("h1", title), element("nav", *contents, class_="contents", aria_label="Contents")),
        element("main", *parts),
    )
    return page(f"glimpsezoo report: {title}", body, source("board.js"))


def _sections(reported: Reported) -> dict[str, _Section]:
    """All sections in order: figures and tables of the measures, traces (still empty), training curves, environment."""
    entries, parts = reported.entries, dict[str, list[Html]]()
    for figure in figures(entries):
        parts.setdefault(figure.section, []).append(_figure(f"figure-{len(parts)}-{len(parts.get(figure.section, ()))}", figure))
    parts = {heading: [element("div", *drawn, class_="plots")] for heading, drawn in parts.items()}
    for kind in measure_classes().values():
        for heading, tables in kind.tables(entries).items():
            parts.setdefault(heading, []).extend(map(table, tables))
    curves = [figure for entry in entries for figure in training_curves(entry.name, entry.training)]
    drawn = [_figure(f"training-{number}", figure) for number, figure in enumerate(curves)]
    return {
        **{_key(heading): _Section(heading, join(*content)) for heading, content in parts.items()},
        "traces": _Section("Where they look", Html("")),
        "training": _Section("Training", element("div", *drawn, class_="plots") if drawn else Html("")),
        "environment": _Section("Environment and commands", join(*(_environment(entry) for entry in entries))),
    }


def _key(heading: str) -> str:
    """The anchor of a section on the page."""
    return heading.lower().replace(" ", "-")


def _leaderboard(entries: Sequence[Entry], pairs: Sequence[Pair]) -> Html:
    """A table with buttons in its head that sort it, and a text field that filters it."""
    shown = [_NAME, _DATA, *board_columns(entries)]
    head = [
        element("th", element("button", column.heading, type="button"), scope="col", class_=_kind(column), data_first=_first(column))
        for column in shown
    ]
    table_of_all = board(entries)
    rows = [
        element("tr", *(_board_cell(column, cell, first=k == 0) for k, (column, cell) in enumerate(zip(shown, row, strict=True))))
        for row in table_of_all.rows
    ]
    caption = "At each model's last step, with 95 % intervals. A button in the head sorts by its column."
    whole = element("table", captioned(caption), element("thead", element("tr", *head)), element("tbody", *rows), id="board")
    search = element("input", type="search", id="filter", autocomplete="off", aria_controls="board")
    words = element("label", "Show only rows with ", search)
    status = element("span", counted(len(entries), "model"), id="count", role="status", class_="note")
    return element(
        "section",
        element("h2", "Leaderboard", id="leaderboard-title"),
        element("div", words, status, class_="filter"),
        scrolling(whole, "Leaderboard"),
        *(element("p", text, class_="note") for text in _board_notes(entries)),
        *_paired(entries, pairs),
        id="leaderboard",
        aria_labelledby="leaderboard-title",
    )


def _kind(column: Column) -> str | None:
    return "words" if column.words else None


def _first(column: Column) -> str:
    """The sort direction of the first press, which puts the best on top."""
    return "descending" if column.higher and not column.words else "ascending"


def _board_cell(column: Column, cell: Cell, *, first: bool) -> Html:
    number, bracket, rest = cell.text.partition(" (")
    said: str = cell.text
    if column.verdict:
        said = element("span", cell.text, class_=f"verdict {cell.text.rstrip('?').replace(' ', '-')}")
    elif bracket and not column.words:  # an interval stands below its number
        said = join(number, " ", element("span", f"({rest}", class_="beside"))
    tag, scope = ("th", "row") if first else ("td", None)
    return element(tag, said, scope=scope, class_=_kind(column), data_value=cell.value)


def _board_notes(entries: Sequence[Entry]) -> Iterator[str]:
    yield from footnotes([entry.renamed for entry in entries], "board")
    yield from (f"{at_least_text(entry.renamed)}." for entry in entries if entry.result.at_least)


def _paired(entries: Sequence[Entry], pairs: Sequence[Pair]) -> Iterator[Html]:
    texts = pair_texts(entries, pairs)
    if texts:
        listed = element("ul", *(element("li", text) for text in texts))
        yield element("details", element("summary", f"Paired tests, image by image ({len(texts)})"), listed, open=len(texts) <= FEW)


def _figure(name: str, figure: Figure) -> Html:
    scene = plot(figure.title, figure.lines, figure.x, figure.y)
    legend = [element("li", _mark(f"{name}-{k}", line), line.name) for k, line in enumerate(figure.lines)]
    caption = element("figcaption", element("strong", figure.title), ". " if figure.note else "", figure.note)
    return element("figure", caption, Html(svg_part(scene, name)), element("ul", *legend, class_="legend"), class_="plot")


def _mark(name: str, line: Line) -> Html:
    return element("span", Html(svg_part(swatch(line), name)), aria_hidden="true")


def _traces(traces: Sequence[Html], notes: Sequence[str]) -> Html:
    shown = [element("div", *traces, class_="traces")] if traces else []
    return join(*shown, *(element("p", f"{note}.", class_="note") for note in notes))


def _environment(entry: Entry) -> Html:
    result, env = entry.result, entry.result.environment
    used = result.model.checkpoint
    facts = {
        "parameters": macs_text(result.model.parameters),
        "weights": f"{used.uri}, sha256 {used.sha256}" if used else "untrained",
        "plugin": f"{result.model.plugin} {result.model.plugin_version}",
        "settings": ", ".join(f"{key}={value}" for key, value in result.model.config.items()),
        "data": f"{entry.data}, {result.data.source or 'not opened'}, fingerprint {result.data.fingerprint or 'none'}",
        "seed": str(result.run.seed),
        "started": result.run.started.isoformat(timespec="seconds"),
        "status": result.run.status + "".join(f"; {failure.error}" for failure in result.errors),
        "machine": f"{env.platform}, {env.cpu}, {env.device}, {counted(env.threads, 'thread')}",
        "packages": ", ".join([f"python {env.python}", *(f"{name} {version}" for name, version in env.packages.items())]),
        "commit": env.commit or "installed from a wheel",
        "not counted as MACs": ", ".join(uncounted(result)),
        "MACs are lower bounds for": ", ".join(result.missing),
    }
    listed = [element("li", element("strong", f"{key}: "), value) for key, value in facts.items() if value]
    return element("details", element("summary", entry.name), element("pre", result.run.command), element("ul", *listed))
