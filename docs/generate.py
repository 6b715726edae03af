"""Writes what the site tells from the code and the cards: docs/reference/, models/, plugins/, cards/, comparisons/ and gallery/.

    python docs/generate.py

A page or a section for every command, hook, result key, data set, corruption, attack, exit rule and setting, for every model and plugin
of this checkout, for every card in zoo_cards/ and for every data set that a card was measured on; and a gallery of traces. These folders
hold nothing else: what is no longer generated is removed.
"""

from pathlib import Path

from generating import comparisons, gallery, models, python_api, reference
from generating.markdown import joined

DOCS = Path(__file__).parent
FOLDERS = ("reference", "models", "plugins", "cards", "comparisons", "gallery")
MADE = "<!-- Written by docs/generate.py: change the code or the card, and run that. -->"


def generated() -> dict[str, str]:
    """The text of every page by its path below docs/."""
    pages = reference.pages() | python_api.pages() | models.pages() | comparisons.pages() | gallery.pages()
    return {path: f"{joined(MADE, text)}\n" for path, text in pages.items()}


def pictures() -> dict[str, str]:
    """Every picture beside these pages: SVG by its path below docs/."""
    return models.pictures() | comparisons.pictures() | gallery.pictures()


def write() -> None:
    """Write all of it, and remove what is not generated any more."""
    content = generated() | pictures()
    for path in [path for folder in FOLDERS for path in (DOCS / folder).glob("*")]:
        if path.relative_to(DOCS).as_posix() not in content:
            path.unlink()
    for name, text in content.items():
        (DOCS / name).parent.mkdir(exist_ok=True)
        (DOCS / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write()
