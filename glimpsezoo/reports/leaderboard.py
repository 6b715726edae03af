"""The leaderboard of a report: a table that can be sorted, filtered and saved."""

from collections.abc import Iterator, Sequence

from glimpsezoo.errors import counted
from glimpsezoo.measures.pairs import Pair
from glimpsezoo.measures.result import at_least_text
from glimpsezoo.measures.seeds import RecipePair
from glimpsezoo.measures.shown import Cell, Column, Entry
from glimpsezoo.reports.html import Html, captioned, element, join, named, scrolling
from glimpsezoo.reports.paired import pair_texts
from glimpsezoo.reports.plotted import file_link
from glimpsezoo.reports.table import board, board_columns, comma_separated, footnotes

_NAME = Column("model", lambda result, _: Cell(result.display_name), words=True)
_DATA = Column("data", lambda result, _: Cell(result.data.name), words=True)
FEW = 6  # up to so many paired tests are shown unfolded


def leaderboard(entries: Sequence[Entry]) -> Html:
    """A table with buttons in its head that sort it, and a text field that filters it."""
    shown = [_NAME, _DATA, *board_columns(entries)]
    table = board(entries)
    alike = len({entry.data for entry in entries}) < 2  # then the page's title names the data
    places = sorted((k for k, column in enumerate(shown) if column is not _DATA or not alike), key=lambda k: shown[k].minor)
    heads = [
        element("th", element("button", named(column.heading), type="button"), scope="col", class_=_kind(column), data_first=_first(column))
        for column in (shown[place] for place in places)
    ]
    rows = [element("tr", *(_cell(shown[place], row[place], first=place == 0) for place in places)) for row in table.rows]
    caption = "At each model's last step, with 95 % intervals. A button in the head sorts by its column."
    whole = element("table", captioned(caption), element("thead", element("tr", *heads)), element("tbody", *rows), id="board")
    search = element("input", type="search", id="filter", autocomplete="off", aria_controls="board")
    words = element("label", "Show only rows with ", search)
    status = element("span", counted(len(entries), "model"), id="count", role="status", class_="note")
    saved = file_link("Save as CSV", "text/csv", "leaderboard.csv", comma_separated(table))
    return join(
        element("div", words, status, saved, class_="filter"),
        scrolling(whole, "Leaderboard"),
        *(element("p", text, class_="note") for text in _notes(entries)),
    )


def _kind(column: Column) -> str | None:
    return "words" if column.words else None


def _first(column: Column) -> str:
    """The sort direction of the first press, which puts the best on top."""
    return "descending" if column.higher and not column.words else "ascending"


def _cell(column: Column, cell: Cell, *, first: bool) -> Html:
    number, bracket, rest = cell.text.partition(" (")
    said: str = cell.text
    if column.verdict:
        said = element("span", cell.text, class_=f"verdict {cell.text.rstrip('?').replace(' ', '-')}")
    elif bracket and not column.words:  # an interval stands below its number
        said = join(number, " ", element("span", f"({rest}", class_="beside"))
    elif first:
        said = named(cell.text)
    tag, scope = ("th", "row") if first else ("td", None)
    return element(tag, said, scope=scope, class_=_kind(column), data_value=cell.value)


def _notes(entries: Sequence[Entry]) -> Iterator[str]:
    yield from footnotes([entry.renamed for entry in entries], "board")
    yield from (f"{at_least_text(entry.renamed)}." for entry in entries if entry.result.at_least)


def paired_tests(entries: Sequence[Entry], pairs: Sequence[Pair], recipes: Sequence[RecipePair] = ()) -> Html:
    """A sentence per pair of models; folded if there are many, nothing without any."""
    texts = pair_texts(entries, pairs, recipes)
    if not texts:
        return Html("")
    listed = element("ul", *(element("li", named(text)) for text in texts))
    return element("details", element("summary", f"Paired tests, image by image ({len(texts)})"), listed, open=len(texts) <= FEW)
