"""Writes what the site tells from the code and the cards: docs/reference/, models/, plugins/ and cards/.

    python docs/generate.py

A page or a section for every command, hook, result key, data set, corruption, attack, exit rule and setting, for every model and plugin
of this checkout, and for every card in zoo_cards/. These four folders hold nothing else: what is no longer generated is removed.
"""

from pathlib import Path

from generating import models, python_api, reference
from generating.markdown import joined

DOCS = Path(__file__).parent
FOLDERS = ("reference", "models", "plugins", "cards")
MADE = "<!-- Written by docs/generate.py: change the code or the card, and run that. -->"


def generated() -> dict[str, str]:
    """The text of every page by its path below docs/."""
    return {path: f"{joined(MADE, text)}\n" for path, text in (reference.pages() | python_api.pages() | models.pages()).items()}


def write() -> None:
    """Write all of it, and remove what is not generated any more."""
    content = generated() | models.pictures()
    for path in [path for folder in FOLDERS for path in (DOCS / folder).glob("*")]:
        if path.relative_to(DOCS).as_posix() not in content:
            path.unlink()
    for name, text in content.items():
        (DOCS / name).parent.mkdir(exist_ok=True)
        (DOCS / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write()
