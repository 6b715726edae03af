"""The data of a card: which data a command opens if the user names none, and with which settings."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from glimpsezoo.data.config import DataSettings
from glimpsezoo.errors import GlimpseZooError
from glimpsezoo.measures.result import TrainedOn
from glimpsezoo.settings import Settings
from glimpsezoo.specs import DatasetSpec, Task, load_string
from glimpsezoo.zoo.arguments import split_argument
from glimpsezoo.zoo.card_config import UNKNOWN, CardConfig
from glimpsezoo.zoo.cards import Card, find_card
from glimpsezoo.zoo.names import card_for, data_spec
from glimpsezoo.zoo.public_names import public_name

DEFAULT_DATA = "digits"  # for a model without a card
NO_CARD = ("none", "timm")  # values of --checkpoint that are not cards


@dataclass(frozen=True)
class DataChoice:
    """The data of a command."""

    name: str
    """The name as the user typed it."""
    spec: DatasetSpec
    settings: dict[str, Any]
    """The settings of the cards, overridden by those of the user."""
    classes: tuple[str, ...] | None = None
    """The classes of all cards of the command; None if it has no card, or if they differ. The data may have some of them only."""

    @property
    def shown(self) -> str:
        """The name in results."""
        return public_name(self.name)

    @property
    def recorded(self) -> dict[str, Any]:
        """The settings that change the images, as results record them."""
        return _recorded(_schema(self.spec), self.settings)

    def sized(self, task: Task) -> Task:
        """A card's task at the image size of these settings, if they have one. Raises `GlimpseZooError` for a size that cannot be."""
        size = getattr(_schema(self.spec).parse(self.settings, owner="data"), "size", None)
        return task if size is None else replace(task, image_size=(size, size))


def choose_data(arguments: Iterable[str], data: str | None, given: Mapping[str, Any], checkpoint: str | None = None) -> DataChoice:
    """The data that the models of a command are measured on, and their settings.

    data: the name that the user gave; None takes the data of the cards, or the digits if no card is named. given: `--set data.KEY`.
    Settings that are not given come from the cards: all of them if the cards were trained on these data; otherwise only the image size and
    the channels, if the data support them. Raises `GlimpseZooError` if the cards differ in them.
    """
    other = find_card(checkpoint) if checkpoint is not None and checkpoint not in NO_CARD else None
    named = {name: other or find_card(name) for name in (split_argument(argument).name for argument in arguments)}
    name = data if data is not None else _own_name({argument: card for argument, card in named.items() if card})
    spec, shown = data_spec(name), public_name(name)
    if checkpoint is None:
        named = {argument: card or card_for(argument, name) for argument, card in named.items()}
    cards = {card.called: card.config for card in named.values() if card}
    own = {called: card for called, card in cards.items() if _same(card.data.name, shown)}
    settings = _agreed(
        {called: own_settings(card, name) for called, card in (own or cards).items()}, given, spec, shown, _one_task(cards.values())
    )
    classes = {tuple(card.task.classes) for card in cards.values()}
    return DataChoice(name, spec, {**settings, **given}, classes.pop() if len(classes) == 1 else None)


def own_settings(card: CardConfig, name: str) -> dict[str, Any]:
    """The settings that a data set gets from a card: those of the card except augmentation; for another data set, size and channels."""
    spec = data_spec(name)
    schema = _schema(spec)
    if _same(card.data.name, public_name(name)):
        return {key: value for key, value in card.data.settings.items() if key not in _augmentation(schema)}
    return fitting(spec, card.task.task())


def fitting(spec: DatasetSpec, task: Task) -> dict[str, Any]:
    """The settings with which a data set has the channels and the image size of a task, as far as it has such settings."""
    height, width = task.image_size
    wanted = {"channels": task.channels}
    if height == width and not (spec.task and spec.task.image_size == task.image_size):
        wanted["size"] = height
    return {key: value for key, value in wanted.items() if changes(_schema(spec), key, value)}


def changes(schema: type[Settings], key: str, value: Any) -> bool:
    """Whether the data have this setting, allow this value, and have another default."""
    if key not in schema.model_fields or value == schema.model_fields[key].default:
        return False
    try:
        schema.parse({key: value}, owner="data")
    except GlimpseZooError:
        return False
    return True


def trained_on(card: CardConfig) -> TrainedOn | None:
    """The training of a card as results record it; None if the card does not name its data."""
    if card.data.name == UNKNOWN:
        return None
    try:
        settings = _recorded(_schema(data_spec(card.data.name)), card.data.settings)
    except GlimpseZooError:  # the plugin of the data is not installed
        settings = dict(card.data.settings)
    return TrainedOn(data=card.data.name, settings=settings, image_size=card.task.image_size, recipe=card.recipe_id, seed=card.seed)


def _own_name(cards: Mapping[str, Card]) -> str:
    """The data set that all cards were trained on. Raises `GlimpseZooError` if there is more than one, or if no card names its data."""
    trained = {card.called: card.config.data.name for card in cards.values()}
    names = list(dict.fromkeys(name for name in trained.values() if name != UNKNOWN))
    if len(names) > 1:
        who = ", ".join(f"{called} on {name}" for called, name in trained.items() if name != UNKNOWN)
        differ = f"expected cards that were trained on the same data, got {who}"
        if not _one_task(card.config for card in cards.values()):
            raise GlimpseZooError(f"{differ}: run them one by one")
        raise GlimpseZooError(f"{differ}: name one by --data {names[0]}, or run them one by one")
    if trained and not names:
        raise GlimpseZooError(f"card {next(iter(trained))!r} does not say which data it was trained on: name data by --data")
    return names[0] if names else DEFAULT_DATA


def _one_task(cards: Iterable[CardConfig]) -> bool:
    """Whether one data set can fit all cards: they have the same channels and classes."""
    return len({(card.task.channels, tuple(card.task.classes)) for card in cards}) <= 1


def _agreed(
    own: Mapping[str, Mapping[str, Any]], given: Mapping[str, Any], spec: DatasetSpec, shown: str, one_task: bool
) -> dict[str, Any]:
    """The settings of all cards, without those that the user gave. own: card -> its settings. Raises `GlimpseZooError` if they differ."""
    schema = _schema(spec)
    ignored = {*given, *_access(schema)}
    whole = {called: schema.parse(settings, owner="data").model_dump() for called, settings in own.items()}
    for key in schema.model_fields:
        values = {called: settings[key] for called, settings in whole.items()}
        if key not in ignored and len(set(map(repr, values.values()))) > 1:
            who = ", ".join(f"{called} with data.{key}={str(value).lower()}" for called, value in values.items())
            wanted = next(value for value in values.values() if value is not None)
            choose = f"choose one by --set data.{key}={wanted}, or " if one_task else ""
            raise GlimpseZooError(
                f"expected cards that were trained on {shown} with the same settings, got {who}: {choose}run them one by one"
            )
    return {key: value for key, value in next(iter(own.values()), {}).items() if key not in given}


def _same(own: str, name: str) -> bool:
    """Whether two names mean the same data set, at any revision."""
    return own.partition("@")[0] == name.partition("@")[0]


def _schema(spec: DatasetSpec) -> type[Settings]:
    return load_string(spec.config)


def _augmentation(schema: type[Settings]) -> frozenset[str]:
    return schema.augmentation if issubclass(schema, DataSettings) else frozenset()


def _access(schema: type[Settings]) -> frozenset[str]:
    return schema.access if issubclass(schema, DataSettings) else frozenset()


def _recorded(schema: type[Settings], settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that differ from the defaults and change the measured images."""
    values = schema.parse(settings, owner="data").model_dump(mode="json", exclude_defaults=True)
    return {key: value for key, value in values.items() if key not in _augmentation(schema) | _access(schema)}
