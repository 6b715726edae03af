"""Trainings of one recipe that differ only in their seed: which cards they are."""

import hashlib
import json
import re
from pathlib import PurePath
from typing import Any

from glimpsezoo.zoo.card_config import CardConfig

_SEED = re.compile(r"\.seed-\d+$")  # of a card's name


def without_seed(name: str) -> str:
    """The name that the cards of a recipe share.

    >>> without_seed("mgnet.digits.seed-3"), without_seed("mgnet.digits")
    ('mgnet.digits', 'mgnet.digits')
    """
    return _SEED.sub("", name)


def training_seed(card: CardConfig) -> int:
    """The seed that a card was trained with; recipes leave out the default, 0."""
    return int(_recipe(card).get("seed", 0))


def shared_recipe(card: CardConfig) -> dict[str, Any]:
    """The recipe without the seed, and without the start, as each seed may start from its own card."""
    return {key: value for key, value in _recipe(card).items() if key not in {"seed", "start"}}


def recipe_id(card: CardConfig) -> str | None:
    """A hash of everything that trainings of one recipe share; None if the card does not tell its recipe.

    Of the card that a training started from, that is the name without its seed.
    """
    if not _recipe(card):
        return None
    start = without_seed(PurePath(str(_recipe(card).get("start") or "")).name)
    told = [card.model, card.config, card.data.model_dump(mode="json"), shared_recipe(card), start]
    return hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _recipe(card: CardConfig) -> dict[str, Any]:
    found = card.trained.get("recipe")
    return found if isinstance(found, dict) else {}
