"""A plot on a page, with links that save it as SVG and its data as CSV. The files are in the links: no network, no server, no script."""

import re
from urllib.parse import quote

from glimpsezoo.measures.shown import Cell, Figure, Line, Table
from glimpsezoo.reports.html import Html, element, named
from glimpsezoo.reports.pictures.svg import svg_file, svg_part
from glimpsezoo.reports.plots import plot, swatch, with_legend
from glimpsezoo.reports.table import comma_separated

_PLAIN = " !$'()*+,-./:;=?@_~"  # letters besides those of words that need no escape in a data URI


def plotted(name: str, figure: Figure, *, files: bool = True) -> Html:
    """The plot. name: unique on the page. files: whether it can be saved."""
    scene = plot(figure.title, figure.lines, figure.x, figure.y)
    legend = [element("li", _mark(f"{name}-{k}", line), named(line.name)) for k, line in enumerate(figure.lines)]
    caption = element("figcaption", element("strong", named(figure.title)), ". " if figure.note else "", figure.note)
    saved = _saved(figure) if files else Html("")
    drawn = Html(svg_part(scene, name))
    return element("figure", caption, drawn, element("ul", *legend, class_="legend"), saved, class_="plot")


def _saved(figure: Figure) -> Html:
    scene = with_legend(plot(figure.title, figure.lines, figure.x, figure.y), figure.lines)
    svg = file_link("SVG", "image/svg+xml", f"{figure.title}.svg", svg_file(scene))
    return element(
        "p", "Save: ", svg, " ", file_link("data as CSV", "text/csv", f"{figure.title}.csv", figure_data(figure)), class_="files"
    )


def file_link(said: str, kind: str, name: str, content: str) -> Html:
    """A link that saves a file with this content."""
    plain = re.sub(r"[^\w.]+", "-", name.lower()).strip("-.")
    return element("a", said, href=f"data:{kind};charset=utf-8,{quote(content, safe=_PLAIN)}", download=plain, aria_label=f"{said}: {name}")


def figure_data(figure: Figure) -> str:
    """The points of all lines as CSV, unrounded, with the ends of intervals."""
    rows = tuple(
        (Cell(line.name), Cell("", point.x), Cell("", point.y, point.low, point.high)) for line in figure.lines for point in line.points
    )
    return comma_separated(Table("", ("line", figure.x.label, figure.y.label), rows, frozenset({"line"})))


def _mark(name: str, line: Line) -> Html:
    return element("span", Html(svg_part(swatch(line), name)), aria_hidden="true")
