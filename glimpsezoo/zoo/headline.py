"""The numbers of a card for `list` and `show`: read from its result.json without loading any measure, which would import torch."""

from pydantic import BaseModel, ConfigDict, ValidationError

from glimpsezoo.hashing import is_unchanged
from glimpsezoo.measures.statistics import Rate
from glimpsezoo.measures.text import interval, macs_text, percent
from glimpsezoo.schema import Amount
from glimpsezoo.untrusted import JSON_SIZE, parsed, read_regular
from glimpsezoo.zoo.cards import RESULT, Card


class _Loose(BaseModel):
    """Reads a few keys and ignores the others."""

    model_config = ConfigDict(extra="ignore")


class _Weights(_Loose):
    sha256: str


class _Model(_Loose):
    checkpoint: _Weights | None


class _Data(_Loose):
    name: str
    split: str | None


class _Accuracy(_Loose):
    top1: Rate


class _Spread(_Loose):
    mean: Amount


class _Cost(_Loose):
    macs: _Spread


class Headline(_Loose):
    """Accuracy and cost of a card, as its evidence has them."""

    model: _Model
    data: _Data
    accuracy: _Accuracy | None = None
    flops: _Cost | None = None
    missing: tuple[str, ...] = ()

    @property
    def measured(self) -> str:
        """Top-1 accuracy with its interval, and on what; '' if it was not measured."""
        if self.accuracy is None:
            return ""
        return f"{percent(self.accuracy.top1)} % ({interval(self.accuracy.top1)}) on {self.data.name} {self.data.split}"

    @property
    def cost(self) -> str:
        """MACs per image; '' if they were not counted."""
        return f"{macs_text(self.flops.macs.mean, at_least=bool(self.missing))} per image" if self.flops else ""


def headline(card: Card) -> Headline | None:
    """None if the card has no result measured with these very weights."""
    path = card.folder / RESULT
    try:
        content = read_regular(path, JSON_SIZE) if path.is_file() else None
        found = None if content is None else parsed(Headline, content)
    except (OSError, ValidationError):
        return None
    used = found.model.checkpoint if found and content and is_unchanged(content) else None
    return found if used and card.config.weights and used.sha256 == card.config.weights.sha256 else None
