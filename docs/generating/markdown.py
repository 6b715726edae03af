"""Blocks of Markdown, and the table of settings that several pages have."""

import re
from collections.abc import Callable, Iterable
from textwrap import dedent
from typing import Any

from glimpsezoo.measures.text import eps_text
from glimpsezoo.settings import NoSettings, Setting, settings_of
from glimpsezoo.specs import load_string


def joined(*blocks: str) -> str:
    """Blocks with a blank line between them, without the empty ones."""
    return "\n\n".join(block.strip() for block in blocks if block.strip())


def code(text: str, language: str = "") -> str:
    return f"```{language}\n{text}\n```" if text else ""


def table(headings: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table; nothing without rows."""
    names, lines = list(headings), [row_text(map(cell, row)) for row in rows]
    return "\n".join([row_text(names), row_text("---" for _ in names), *lines]) if lines else ""


def row_text(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def prose(docstring: str) -> str:
    """A docstring as Markdown: a list stands between blank lines, and what is indented, equations, is text."""
    listed = re.sub(r"^((?![- ]).+)\n(?=- )|^([- ].*)\n(?=[^-\s])", r"\1\2\n\n", docstring, flags=re.MULTILINE)
    return re.sub(r"(?:^ {4}.*\n?)+", lambda found: code(dedent(found[0]).strip(), "text") + "\n", listed, flags=re.MULTILINE)


def slug(heading: str) -> str:
    """The anchor of a heading."""
    return re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", heading.lower()).strip())


def settings_table(config: str | type, *, prefix: str = "", keep: Callable[[Setting], bool] = lambda setting: True) -> str:
    """A table of settings, below what is said of them all."""
    kind = load_string(config) if isinstance(config, str) else config
    about, settings = settings_of(kind)
    rows = [(f"`{prefix}{s.key}`", s.type, default_text(s), meaning_text(s)) for s in settings if keep(s)]
    return joined("" if kind is NoSettings else about, table(("setting", "type", "default", "meaning"), rows))


def default_text(setting: Setting) -> str:
    if setting.key in {"eps", "step_size"} and setting.default is not None:  # lengths are usually written in 255ths
        return f"`{eps_text(setting.default)}`"
    return "required" if setting.required else f"`{shown(setting.default)}`"


def meaning_text(setting: Setting) -> str:
    return "fixed" if setting.type == shown(setting.default) else setting.meaning


def shown(value: Any) -> str:
    """A value as `--set` takes it."""
    if isinstance(value, list | tuple):
        return ",".join(map(shown, value))
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return f"{value:.6g}" if isinstance(value, float) else str(value)
