"""HTML whose text is escaped unless it says that it is HTML, and the frame of a page: its style, and a policy that lets nothing else in.

A page loads nothing and runs only its own script (by its hash), so that even markup that slipped through could not do anything.
"""

import base64
import hashlib
from collections.abc import Container
from typing import Any

from glimpsezoo.pictures.scene import DARK, LIGHT
from glimpsezoo.pictures.svg import clean, colour_classes

_EMPTY = {"input", "meta", "br"}


class Html(str):
    """Text that is HTML already."""


def element(tag: str, *children: str, **attributes: Any) -> Html:
    """An element: children that are no `Html` are escaped, and attributes always.

    'class_' is class, 'aria_label' is aria-label; True is an attribute without a value, None and False are none at all.

    >>> element("p", "1 < 2", class_="note", hidden=True)
    '<p class="note" hidden>1 &lt; 2</p>'
    """
    said = []
    for name, value in attributes.items():
        if value is not None and value is not False:
            key = name.rstrip("_").replace("_", "-")
            said.append(f" {key}" if value is True else f' {key}="{clean(str(value))}"')
    content = join(*children)
    return Html(f"<{tag}{''.join(said)}>" + ("" if tag in _EMPTY else f"{content}</{tag}>"))


def join(*children: str) -> Html:
    """Children one after the other, escaped unless they are `Html`."""
    return Html("".join(child if isinstance(child, Html) else clean(child) for child in children))


def table(caption: str, headings: list[str], rows: list[list[str]], words: Container[str] = ()) -> Html:
    """A table that can be scrolled sideways; the first cell of each row is its heading. words: headings of columns without numbers."""
    kinds = ["words" if heading in words else None for heading in headings]
    head = element("tr", *(element("th", heading, scope="col", class_=kind) for heading, kind in zip(headings, kinds, strict=True)))
    body = []
    for first, *rest in rows:
        cells = [_cell(content, kind) for content, kind in zip(rest, kinds[1:], strict=True)]
        body.append(element("tr", element("th", first, scope="row"), *cells))
    whole = element("table", captioned(caption), element("thead", head), element("tbody", *body))
    return scrolling(whole, caption)


def _cell(content: str, kind: str | None) -> Html:
    return content if isinstance(content, Html) and content.startswith("<td") else element("td", content, class_=kind)


def captioned(text: str) -> Html:
    """A table's caption, which stays in sight where the table is scrolled."""
    return element("caption", element("span", text))


def scrolling(content: Html, label: str) -> Html:
    """What may be wider than a phone: scrolled by touch, or by the keyboard where it has the focus."""
    return element("div", content, class_="scroll", role="region", aria_label=label, tabindex=0)


def page(title: str, body: Html, script: str) -> str:
    """A whole page."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )
    head = join(
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", title),
        Html(f"<style>{style_sheet()}</style>"),
    )
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>{body}\n<script>{script}</script></body></html>\n'


def style_sheet() -> str:
    """Colours of both modes, and how everything looks."""
    variables = [f"{{{''.join(f'--{role}:{value};' for role, value in colours.items())}}}" for colours in (LIGHT, DARK)]
    roles = colour_classes({role: f"var(--{role})" for role in LIGHT})
    return f":root{variables[0]}@media(prefers-color-scheme:dark){{:root{variables[1]}}}{roles}{_STYLE}"


_STYLE = """
*{box-sizing:border-box}
html{color-scheme:light dark}
body{margin:0 auto;max-width:1280px;padding:16px;background:var(--paper);color:var(--ink);
  font:16px/1.5 system-ui,-apple-system,'Segoe UI',Roboto,sans-serif;overflow-wrap:anywhere}
h1{font-size:1.6rem;line-height:1.2;margin:.5em 0}
h2{font-size:1.25rem;margin:2em 0 .4em;padding-top:.4em;border-top:1px solid var(--rule)}
h3{font-size:1rem;margin:1.2em 0 .3em}
a{color:var(--s0)}
.note,figcaption,caption{color:var(--muted);font-size:.875rem}
caption{text-align:left;padding-bottom:6px}
caption span{display:inline-block;position:sticky;left:0;max-width:min(64rem,calc(100vw - 40px))}
.skip{position:absolute;left:-999px}.skip:focus{position:static}
nav.contents{display:flex;flex-wrap:wrap;gap:4px 16px;font-size:.9rem}
nav.contents a{padding:4px 0}
table{border-collapse:collapse;font-size:.875rem;font-variant-numeric:tabular-nums}
th,td{padding:5px 10px;text-align:right;border-bottom:1px solid var(--rule);white-space:nowrap;overflow-wrap:normal}
th:first-child,td.words,th.words{text-align:left}
tbody th{font-weight:600;max-width:16rem;white-space:normal;overflow-wrap:anywhere;min-width:9rem}
thead th{white-space:normal;min-width:5rem;vertical-align:bottom}#board thead th{min-width:0}#board th,#board td{padding:5px 7px}
.beside{display:block;color:var(--muted);font-size:.8rem}
th button{all:unset;cursor:pointer;font-weight:600;padding:4px 2px}
th button::after{content:' \\2195';color:var(--muted)}
th[aria-sort=ascending] button::after{content:' \\2191';color:inherit}
th[aria-sort=descending] button::after{content:' \\2193';color:inherit}
:focus-visible{outline:3px solid var(--s0)!important;outline-offset:2px}
.scroll{overflow-x:auto;max-width:100%;margin:8px 0}
.filter{display:flex;flex-wrap:wrap;gap:8px 16px;align-items:center;margin:12px 0}
input[type=search]{font:inherit;padding:8px;min-width:0;width:16rem;max-width:100%;border:1px solid var(--muted);border-radius:6px;
  background:var(--paper);color:var(--ink)}
button.plain,.slides button{font:inherit;padding:8px 14px;border:1px solid var(--muted);border-radius:6px;background:var(--paper);
  color:var(--ink);cursor:pointer}
.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,420px),1fr));gap:16px}
figure{margin:8px 0;min-width:0}
figure.plot>svg{width:100%;height:auto;max-width:560px;display:block}
svg text{font-family:system-ui,-apple-system,'Segoe UI',Roboto,sans-serif}
.legend{list-style:none;margin:4px 0;padding:0;display:flex;flex-wrap:wrap;gap:2px 16px;font-size:.875rem}
.legend svg{width:24px;height:10px;margin-right:6px;vertical-align:middle}
.verdict{font-weight:600}.verdict.ok{color:var(--good)}.verdict.suspect{color:var(--s1)}.verdict.unreliable{color:var(--bad)}
td.heat{position:relative;isolation:isolate}
td.heat::before{content:'';position:absolute;inset:1px;z-index:-1;background:var(--s3);opacity:calc(var(--share)*.6)}
pre{background:color-mix(in srgb,var(--rule) 40%,var(--paper));padding:10px;border-radius:6px;overflow-x:auto;white-space:pre-wrap;
  font-size:.875rem}
code,pre{font-family:ui-monospace,Menlo,Consolas,monospace}
details{margin:6px 0}summary{cursor:pointer;padding:4px 0}
.traces{display:flex;flex-wrap:wrap;gap:24px}
.traces figure{flex:0 1 460px;max-width:100%}
.traces svg{width:100%;height:auto;display:block}
.bar{position:sticky;top:0;z-index:1;display:flex;flex-wrap:wrap;gap:8px 16px;align-items:center;padding:8px 0;background:var(--paper);
  border-bottom:1px solid var(--rule)}
[hidden]{display:none!important}
@media(max-width:480px){body{padding:12px}th,td{padding:4px 7px}}
"""
