"""The gallery: what the shipped models do with images that their own rows chose."""

from functools import cache

from generating.checkout import called, card_link, cards
from generating.markdown import joined
from generating.models import EMBEDDED, drawable
from glimpsezoo.escaping import html
from glimpsezoo.reports.pictures.layout import in_words, panel
from glimpsezoo.reports.pictures.scene import beside, framed
from glimpsezoo.reports.pictures.svg import svg_file
from glimpsezoo.reports.pictures.traced import Traced
from glimpsezoo.workflows.comparing import read_runs
from glimpsezoo.workflows.reporting import traces_of
from glimpsezoo.zoo.cards import Card
from glimpsezoo.zoo.results import evidence

KINDS = 4  # right early, right late, wrong, flipped by a corruption


def pages() -> dict[str, str]:
    return {"gallery/index.md": page()}


def pictures() -> dict[str, str]:
    """SVG by its path below docs/."""
    return {
        f"gallery/{picture_of(card, k)}": svg_file(framed(beside([panel(traced) for traced in alike])))
        for card in looking()
        for k, alike in enumerate(traces(card), 1)
    }


def picture_of(card: Card, number: int) -> str:
    return f"{called(card)}.{number}.svg"


def looking() -> list[Card]:
    """The first card of each model that looks more than once at images that need no network."""
    plain = [card for card in cards() if drawable(card) and called(card) == f"{card.config.model}.{EMBEDDED}"]
    return [card for card in plain if (result := evidence(card)) and result.model.steps > 1]


@cache
def _traces(folder: str) -> tuple[Traced, ...]:
    (measured,) = read_runs([folder]).measured
    return tuple(traces_of(measured, KINDS, None, []))


def traces(card: Card) -> list[list[Traced]]:
    """The traces of a card; those of one image together."""
    found: dict[str, list[Traced]] = {}
    for traced in _traces(str(card.folder)):
        found.setdefault(traced.image, []).append(traced)
    return list(found.values())


def page() -> str:
    return joined(
        "# Gallery",
        "Where the models look on handwritten digits, and what they say after each look. Numbers stand beside the regions, a thin path "
        "leads from look to look, and below are the glimpses as the model saw them.",
        "Nobody picked these images by eye: each was drawn at random from the test images of its kind, and says of how many. "
        "`glimpsezoo report` shows the same of any measured model ([pictures](../pictures.md)).",
        *(section(card) for card in looking()),
    )


def section(card: Card) -> str:
    figures = [figure(card, k, alike) for k, alike in enumerate(traces(card), 1)]
    return joined(f"## {called(card)}", f"The card: {card_link(card)}.", '<div class="gallery">\n' + "\n".join(figures) + "\n</div>")


def figure(card: Card, number: int, alike: list[Traced]) -> str:
    words, said = " ".join(map(in_words, alike)), " ".join(f"{traced.chosen}." for traced in alike)
    wide = ' class="wide"' if len(alike) > 1 else ""
    return f'<figure{wide}><img src="{picture_of(card, number)}" alt="{html(words)}"><figcaption>{html(said)}</figcaption></figure>'
