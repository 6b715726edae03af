"""Model arguments with settings of their own: `NAME@KEY=VALUE,KEY=VALUE`, so that a model may appear several times in a command."""

import os
import re
from pathlib import Path
from typing import NamedTuple

from glimpsezoo.errors import GlimpseZooError
from glimpsezoo.zoo.card_config import CONFIG
from glimpsezoo.zoo.cards import Card, card_paths, find_card

_OWN = re.compile(r"@(?=\w+=)")
_SETTING = re.compile(r"(\w+)=((?:(?!,\w+=).)*),?")  # a value ends where `,KEY=` begins, so it may have commas


class Argument(NamedTuple):
    """A model argument, taken apart."""

    name: str
    """The model or the card."""
    settings: dict[str, str]
    """The settings of this argument alone, as text."""


def split_argument(text: str) -> Argument:
    """The name and the own settings in a model argument. A card of exactly this name or path has none.

    The `@` before `KEY=` begins the settings; that of `hf-hub:OWNER/NAME@REVISION` does not. Raises `GlimpseZooError`.

    >>> split_argument("mgnet@glimpses=2,scale=0.2,0.5")
    Argument(name='mgnet', settings={'glimpses': '2', 'scale': '0.2,0.5'})
    >>> split_argument("hf-hub:me/mine@v1"), split_argument("hf-hub:me/mine@v1@glimpses=2")
    (Argument(name='hf-hub:me/mine@v1', settings={}), Argument(name='hf-hub:me/mine@v1', settings={'glimpses': '2'}))
    """
    found = None if os.path.isfile(Path(text, CONFIG)) or text in card_paths() else _OWN.search(text)
    if found is None:
        return Argument(text, {})
    settings: dict[str, str] = {}
    for key, value in _SETTING.findall(text[found.end() :]):
        if key in settings:
            raise GlimpseZooError(f"expected each setting once, got {key} twice in {text!r}: give one value")
        settings[key] = value
    return Argument(text[: found.start()], settings)


def argument_card(text: str) -> Card | None:
    """The card that a model argument names, if any."""
    return find_card(split_argument(text).name)
