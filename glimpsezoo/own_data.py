"""A card knows its data: which data a command opens where the user does not say, and which settings they then have."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from glimpsezoo.cards import UNKNOWN, Card, CardConfig, find_card
from glimpsezoo.data.config import DataSettings, SizedSettings
from glimpsezoo.errors import GlimpseZooError
from glimpsezoo.records import TrainedOn
from glimpsezoo.resolve import card_for, data_spec, public_name
from glimpsezoo.settings import Settings
from glimpsezoo.specs import DatasetSpec, load_string

DEFAULT_DATA = "digits"  # of a model without a card
NO_CARD = ("none", "timm")  # what --checkpoint takes beside cards


@dataclass(frozen=True)
class DataChoice:
    """The data of a command. name: as `open_data` takes it. settings: the cards' own, and over them what the user set."""

    name: str
    spec: DatasetSpec
    settings: dict[str, Any]

    @property
    def shown(self) -> str:
        """The name as results have it."""
        return public_name(self.name)

    @property
    def recorded(self) -> dict[str, Any]:
        """The settings that decide the images, as results have them."""
        return _recorded(_schema(self.spec), self.settings)


def choose_data(arguments: Iterable[str], data: str | None, given: Mapping[str, Any], checkpoint: str | None = None) -> DataChoice:
    """The data that models are measured on, and their settings.

    data: what the user named; None takes the cards' own, or the digits where no card is named. given: `--set data.KEY`. A setting that
    is not given is the card's own if the data are. Other data come in the size that the card was trained at, if they can.
    Raises `GlimpseZooError` for cards that do not agree.
    """
    other = find_card(checkpoint) if checkpoint is not None and checkpoint not in NO_CARD else None
    named = {argument: other or find_card(argument) for argument in arguments}
    name = data if data is not None else _own_name({argument: card for argument, card in named.items() if card})
    spec, shown = data_spec(name), public_name(name)
    if checkpoint is None:
        named = {argument: card or card_for(argument, name) for argument, card in named.items()}
    cards = {card.called: card.config for card in named.values() if card}
    own = {called: card for called, card in cards.items() if _same(card.data.name, shown)}
    settings = _agreed({called: own_settings(card, name) for called, card in (own or cards).items()}, spec, given)
    return DataChoice(name, spec, {**settings, **given})


def own_settings(card: CardConfig, name: str) -> dict[str, Any]:
    """What a card's data set, or another one of that `name`, has by the card: its settings but for the augmentation, or its size."""
    spec = data_spec(name)
    schema = _schema(spec)
    if _same(card.data.name, public_name(name)):
        return {key: value for key, value in card.data.settings.items() if key not in _augmentation(schema)}
    height, width = card.task.image_size
    if not issubclass(schema, SizedSettings) or height != width or (spec.task and spec.task.image_size == (height, width)):
        return {}
    try:
        schema.parse({"size": height}, owner="data")
    except GlimpseZooError:
        return {}  # these data do not come in that size
    return {"size": height}


def trained_on(card: CardConfig) -> TrainedOn | None:
    """What results say of a card's training data; None if the card does not know them."""
    if card.data.name == UNKNOWN:
        return None
    try:
        settings = _recorded(_schema(data_spec(card.data.name)), card.data.settings)
    except GlimpseZooError:  # its plugin is not here
        settings = dict(card.data.settings)
    return TrainedOn(data=card.data.name, settings=settings, image_size=card.task.image_size)


def _own_name(cards: Mapping[str, Card]) -> str:
    """The data set that all cards were trained on."""
    trained = {card.called: card.config.data.name for card in cards.values()}
    names = list(dict.fromkeys(name for name in trained.values() if name != UNKNOWN))
    if len(names) > 1:
        who = ", ".join(f"{called} on {name}" for called, name in trained.items() if name != UNKNOWN)
        apart = f"expected cards that were trained on the same data, got {who}"
        if len({(card.config.task.channels, tuple(card.config.task.classes)) for card in cards.values()}) > 1:
            raise GlimpseZooError(f"{apart}: run them one by one")  # no data are for all of them
        raise GlimpseZooError(f"{apart}: name one by --data {names[0]}, or run them one by one")
    if trained and not names:
        raise GlimpseZooError(f"card {next(iter(trained))!r} does not say which data it was trained on: name data by --data")
    return names[0] if names else DEFAULT_DATA


def _agreed(own: Mapping[str, Mapping[str, Any]], spec: DatasetSpec, given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that the cards have in common, less those that were given. own: card -> its settings."""
    schema = _schema(spec)
    ignored = {*given, *_access(schema)}
    whole = {called: schema.parse(settings, owner="data").model_dump() for called, settings in own.items()}
    for key in schema.model_fields:
        values = {called: settings[key] for called, settings in whole.items()}
        if key not in ignored and len(set(map(repr, values.values()))) > 1:
            who = ", ".join(f"{called} with data.{key}={str(value).lower()}" for called, value in values.items())
            wanted = next(value for value in values.values() if value is not None)
            raise GlimpseZooError(
                f"expected cards that were trained on {spec.name} alike, got {who}: name one by --set data.{key}={wanted}, "
                "or run them one by one"
            )
    return {key: value for key, value in next(iter(own.values()), {}).items() if key not in given}


def _same(own: str, name: str) -> bool:
    """Whether two names are of one data set, at any revision."""
    return own.partition("@")[0] == name.partition("@")[0]


def _schema(spec: DatasetSpec) -> type[Settings]:
    return load_string(spec.config)


def _augmentation(schema: type[Settings]) -> frozenset[str]:
    return schema.augmentation if issubclass(schema, DataSettings) else frozenset()


def _access(schema: type[Settings]) -> frozenset[str]:
    return schema.access if issubclass(schema, DataSettings) else frozenset()


def _recorded(schema: type[Settings], settings: Mapping[str, Any]) -> dict[str, Any]:
    """What differs from the data set's defaults and decides the images that are measured."""
    values = schema.parse(settings, owner="data").model_dump(mode="json", exclude_defaults=True)
    return {key: value for key, value in values.items() if key not in _augmentation(schema) | _access(schema)}
