"""Templates of card texts and pages, for jinja2; and the styles and scripts of the pages."""

from functools import cache
from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined, Template


@cache
def _environment() -> Environment:
    from glimpsezoo.reports.table import markdown

    found = Environment(loader=PackageLoader("glimpsezoo.reports", "templates"), undefined=StrictUndefined, keep_trailing_newline=True)
    found.filters["table"] = markdown
    return found


def template(name: str) -> Template:
    """A template by its file's name."""
    return _environment().get_template(name)


def source(name: str) -> str:
    """The text of a style sheet or a script."""
    return files(__name__).joinpath(name).read_text(encoding="utf-8")
