"""Templates of card texts and pages, for jinja2; and the styles and scripts of the pages."""

from functools import cache
from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from glimpsezoo import escaping

_WRITERS = {".md.jinja": escaping.markdown, ".html.jinja": lambda value: escaping.html(value if isinstance(value, str) else str(value))}


@cache
def _environment(ending: str) -> Environment:
    """The environment of the templates with this ending. All values are escaped where they are written, as the medium asks."""
    from glimpsezoo.reports.table import markdown

    found = Environment(
        loader=PackageLoader("glimpsezoo.reports", "templates"),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        finalize=_WRITERS[ending],
    )
    found.filters |= {"table": markdown, "code": escaping.code, "fenced": escaping.fenced}
    return found


def template(name: str) -> Template:
    """A template by its file's name, NAME.md.jinja or NAME.html.jinja."""
    return _environment(name[name.index(".") :]).get_template(name)


def source(name: str) -> str:
    """The text of a style sheet or a script."""
    return files(__name__).joinpath(name).read_text(encoding="utf-8")
