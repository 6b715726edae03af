"""HTML elements, which escape all text that is not of type `Html`, and the frame of a page: its style and its security policy.

The policy lets a page load nothing and run only its own script (identified by hash), so that injected markup could do no harm.
"""

import base64
import hashlib
import re
from typing import Any

from glimpsezoo.escaping import Html, html
from glimpsezoo.measures.shown import Cell, Table
from glimpsezoo.reports.pictures.scene import DARK, LIGHT
from glimpsezoo.reports.pictures.svg import colour_classes
from glimpsezoo.reports.templates import source, template

_EMPTY = {"input", "meta", "br", "wbr"}
UNBROKEN = 30  # letters of a name that stay on one line


def element(tag: str, *children: str, **attributes: Any) -> Html:
    """An element. Children are escaped unless they are `Html`; attributes are always escaped.

    'class_' becomes class, 'aria_label' aria-label. True gives an attribute without a value; None and False leave it out.

    >>> element("p", "1 < 2", class_="note", hidden=True)
    '<p class="note" hidden>1 &lt; 2</p>'
    """
    said = []
    for name, value in attributes.items():
        if value is not None and value is not False:
            key = name.rstrip("_").replace("_", "-")
            said.append(f" {key}" if value is True else f' {key}="{html(str(value))}"')
    content = join(*children)
    return Html(f"<{tag}{''.join(said)}>" + ("" if tag in _EMPTY else f"{content}</{tag}>"))


def join(*children: str) -> Html:
    """The children concatenated, each escaped unless it is `Html`."""
    return Html("".join(html(child) for child in children))


def named(text: str) -> Html:
    """Text that may break at spaces and after the dots of names, but not within a word or a number, which otherwise break at a hyphen.

    A word that is too long for a phone may break anywhere.

    >>> named("pyramid-m3.digits at 0.5")
    '<span class="whole">pyramid-m3.</span><wbr>digits at 0.5'
    """
    found = []
    for spaced in re.split(r"(\s+)", text):
        words = re.split(r"(?<=[^\d]\.)|(?<=\.)(?=[^\d])", spaced)
        kept = (element("span", word, class_="whole") if "-" in word and len(word) <= UNBROKEN else html(word) for word in words)
        found.append("<wbr>".join(kept))
    return Html("".join(found))


def table(found: Table) -> Html:
    """A table that scrolls sideways. The first cell of each row is its heading. If `found.folded` is set, the table is folded under it."""
    kinds = ["words" if heading in found.words else None for heading in found.headings]
    head = element(
        "tr", *(element("th", named(heading), scope="col", class_=kind) for heading, kind in zip(found.headings, kinds, strict=True))
    )
    body = []
    for first, *rest in found.rows:
        cells = [_cell(cell, kind) for cell, kind in zip(rest, kinds[1:], strict=True)]
        body.append(element("tr", element("th", named(first.text), scope="row"), *cells))
    whole = scrolling(element("table", captioned(found.caption), element("thead", head), element("tbody", *body)), found.caption)
    return element("details", element("summary", named(found.folded)), whole) if found.folded else whole


def _cell(cell: Cell, kind: str | None) -> Html:
    """A cell, shaded in proportion to its value if it belongs to a heat map."""
    if cell.heat and cell.value is not None:
        return element("td", cell.text, class_="heat", style=f"--share:{cell.value / 100:.3f}")
    return element("td", cell.text, class_=kind)


def captioned(text: str) -> Html:
    """A table's caption, which stays visible while the table scrolls."""
    return element("caption", element("span", named(text)))


def scrolling(content: Html, label: str) -> Html:
    """Content that may be wider than a phone: it scrolls by touch, or by keyboard once it has the focus."""
    return element("div", content, class_="scroll", role="region", aria_label=label, tabindex=0)


def page(title: str, body: Html, script: str) -> str:
    """A complete HTML page."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return template("page.html.jinja").render(title=title, body=body, script=Html(script), style=Html(style_sheet()), digest=Html(digest))


def style_sheet() -> str:
    """The style sheet, with the colours of light and dark mode."""
    variables = [f"{{{''.join(f'--{role}:{value};' for role, value in colours.items())}}}" for colours in (LIGHT, DARK)]
    roles = colour_classes({role: f"var(--{role})" for role in LIGHT})
    return f":root{variables[0]}@media(prefers-color-scheme:dark){{:root{variables[1]}}}{roles}{source('page.css')}"
