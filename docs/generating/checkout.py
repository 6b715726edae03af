"""What this checkout has: its plugins and what they register, and its cards."""

from functools import cache
from pathlib import Path
from typing import TypeVar

from glimpsezoo.files import file_name
from glimpsezoo.specs import ModelSpec, Spec
from glimpsezoo.zoo.card_config import CONFIG
from glimpsezoo.zoo.cards import Card
from glimpsezoo.zoo.plugins import registry

ROOT = Path(__file__).parents[2]
T = TypeVar("T", bound=Spec)


def plugins() -> list[Path]:
    """The folders of this checkout's plugins."""
    return sorted(path.parent for path in (ROOT / "plugins").glob("*/README.md"))


def ours(kind: type[T]) -> list[T]:
    """The specs of a kind that the core and the plugins of this checkout register, whatever else is installed."""
    known = {"glimpsezoo", *(folder.name for folder in plugins())}
    return [spec for spec in registry().all(kind) if distribution(spec) in known]


def distribution(spec: Spec) -> str:
    return spec.provenance.distribution if spec.provenance else ""


@cache
def cards() -> list[Card]:
    """The cards of this checkout in order of their names, also those whose weights it does not have, and those within a plugin."""
    homes = (ROOT / "zoo_cards", ROOT / "benchmarks" / "cards", *ROOT.glob("plugins/*/*/zoo_cards"))
    found = (folder for home in homes for folder in home.iterdir() if (folder / CONFIG).is_file())
    return [Card.read(folder) for folder in sorted(found, key=lambda folder: folder.name)]


def spec_of(card: Card) -> ModelSpec:
    return registry().find(ModelSpec, card.config.model)


def cards_of(spec: ModelSpec) -> list[Card]:
    return [card for card in cards() if spec_of(card) is spec]


def called(card: Card) -> str:
    """The name of a card's folder. It tells the seeds of one recipe apart, whose cards have one name."""
    return card.folder.name


def card_link(card: Card) -> str:
    """A link to its page, from a page in another folder."""
    return f"[{called(card)}](../cards/{called(card)}.md)"


def page_of(spec: Spec) -> str:
    return f"{file_name(spec.name).rstrip('_')}.md"
