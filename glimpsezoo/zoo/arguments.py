"""Model arguments with settings of their own: `NAME@KEY=VALUE,KEY=VALUE`, so that a model may appear several times in a command."""

import os
from pathlib import Path
from typing import NamedTuple

from glimpsezoo.errors import GlimpseZooError
from glimpsezoo.zoo.card_config import CONFIG
from glimpsezoo.zoo.cards import Card, card_paths, find_card
from glimpsezoo.zoo.hub import PREFIX


class Argument(NamedTuple):
    """A model argument, taken apart."""

    name: str
    """The model or the card."""
    settings: dict[str, str]
    """The settings of this argument alone, as text."""


def split_argument(text: str) -> Argument:
    """The name and the own settings in a model argument. A card of exactly this name or path has none.

    After the `@` of `hf-hub:OWNER/NAME@REVISION` is a revision; settings may follow after another one. Raises `GlimpseZooError`.

    >>> split_argument("mgnet@glimpses=2,scale=0.2,0.5")
    Argument(name='mgnet', settings={'glimpses': '2', 'scale': '0.2,0.5'})
    >>> split_argument("hf-hub:me/mine@v1")
    Argument(name='hf-hub:me/mine@v1', settings={})
    """
    name, at, after = text.rpartition("@")
    if not at or (text.startswith(PREFIX) and "=" not in after) or os.path.isfile(Path(text, CONFIG)) or text in card_paths():
        return Argument(text, {})
    settings: dict[str, str] = {}
    key = ""
    for part in after.split(","):
        before, equals, value = part.partition("=")
        if equals and before:
            key = before.strip()
            if key in settings:
                raise GlimpseZooError(f"expected each setting once, got {key} twice in {text!r}: give one value")
            settings[key] = value.strip()
        elif key:
            settings[key] += f",{part.strip()}"  # another item of the value before
        else:
            raise GlimpseZooError(f"expected MODEL@KEY=VALUE, got {text!r}: give the settings of this model as in {name}@glimpses=2")
    return Argument(name, settings)


def argument_card(text: str) -> Card | None:
    """The card that a model argument names, if any."""
    return find_card(split_argument(text).name)
