"""From what users type to objects: `--set` texts, model arguments and data names. Below this, nothing knows names."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from glimpsezoo.cards import Card, all_cards, find_card
from glimpsezoo.errors import GlimpseZooError, did_you_mean
from glimpsezoo.plugins import registry
from glimpsezoo.protocol import GlimpseModel
from glimpsezoo.settings import Settings
from glimpsezoo.specs import DatasetSpec, ModelSpec, Task, load_string


@dataclass(frozen=True)
class Assignments:
    """Parsed `--set` texts: for the data (`data.KEY`), the recipe (`train.KEY`), one model (`MODEL.KEY`) or every model that knows it."""

    data: dict[str, Any] = field(default_factory=dict)
    train: dict[str, Any] = field(default_factory=dict)
    scoped: dict[str, dict[str, Any]] = field(default_factory=dict)
    shared: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def parse(cls, texts: Iterable[str], models: Iterable[str]) -> "Assignments":
        """Sort `key=value` texts by whom they address; `models` are the model arguments of the command.

        >>> Assignments.parse(["glimpses=4", "data.size=28", "mgnet.alpha=0.5"], ["mgnet"]).scoped
        {'mgnet': {'alpha': '0.5'}}
        """
        found = cls()
        scopes = {"data": found.data, "train": found.train}
        names = sorted(models, key=len, reverse=True)
        for text in texts:
            key, equals, value = text.partition("=")
            if not equals or not key:
                raise GlimpseZooError(f"--set expects key=value, got {text!r}")
            owner = next((name for name in (*names, *scopes) if key.startswith(f"{name}.")), None)
            if owner is None:
                found.shared[key] = value
            elif owner in scopes:
                scopes[owner][key.removeprefix(f"{owner}.")] = value
            else:
                found.scoped.setdefault(owner, {})[key.removeprefix(f"{owner}.")] = value
        return found

    def of_model(self, name: str, declared: Iterable[str]) -> dict[str, Any]:
        """What reaches one model: the shared keys that it declares, and its own."""
        known = set(declared)
        return {key: value for key, value in self.shared.items() if key in known} | self.scoped.get(name, {})

    def check_all_declared(self, declared: Mapping[str, Iterable[str]]) -> None:
        """Raise `GlimpseZooError` for a shared key that no model declares. declared: model name -> its keys."""
        known = {key for keys in declared.values() for key in keys}
        for key in self.shared:
            if key not in known:
                who = " or ".join(declared)
                raise GlimpseZooError(f"--set {key}: {who} has no such setting: {did_you_mean(key, known)} (data.KEY reaches the data)")


@dataclass(frozen=True)
class ModelChoice:
    """A model argument, resolved but not built. name: as the user typed it. settings: validated. changed: what differs from the card."""

    name: str
    spec: ModelSpec
    card: Card | None
    settings: Settings
    changed: dict[str, Any]

    @property
    def full_name(self) -> str:
        """The model's own name, `timm:resnet18` for one of a prefix spec."""
        return self.spec.name + str(getattr(self.settings, self.spec.prefix_key)) if self.spec.prefix else self.spec.name


def choose_model(name: str, data: str, sets: Assignments, checkpoint: str | None) -> ModelChoice:
    """Find spec, card and settings of a model argument measured on `data`.

    checkpoint: None takes the card; 'none' and 'timm' take none; anything else is a card's name or path. Raises `GlimpseZooError`.
    """
    card = find_card(name)
    spec = _spec_of(name, card)
    model_name = card.config.model if card else name
    if checkpoint in {"none", "timm"}:
        stored = card.config.config if card else {}
        card = None
    else:
        if checkpoint is not None:
            card = find_card(checkpoint)
            if card is None:
                raise GlimpseZooError(f"--checkpoint expects 'none', 'timm' or a card, got {checkpoint!r}: {_nearest(checkpoint)}")
            if card.config.model != model_name:
                raise GlimpseZooError(f"--checkpoint {checkpoint} is a card of {card.config.model!r}, not of {model_name!r}")
        elif card is None:
            card = find_card(f"{name}.{data}")
            if card is None:
                raise GlimpseZooError(_no_card(name, data))
        stored = card.config.config
    values = {**(stored or spec.defaults.get(data, {}))}
    if spec.prefix:
        values[spec.prefix_key] = model_name.removeprefix(spec.name)
    schema: type[Settings] = load_string(spec.config)
    changes = sets.of_model(name, schema.model_fields)
    settings = schema.parse({**values, **changes}, owner=name)
    before = schema.parse(values, owner=name).model_dump() if card else {}
    changed = {key: value for key, value in changes.items() if card and before[key] != settings.model_dump()[key]}
    return ModelChoice(name, spec, card, settings, changed)


def declared_settings(name: str) -> list[str]:
    """The `--set` keys of a model argument."""
    return list(load_string(_spec_of(name, find_card(name)).config).model_fields)


def _spec_of(name: str, card: Card | None) -> ModelSpec:
    if card is None:
        known = [spec.name for spec in registry().all(ModelSpec) if not spec.prefix]
        if "." in name and not any(spec.prefix and name.startswith(spec.name) for spec in registry().all(ModelSpec)):
            raise GlimpseZooError(f"expected a model or a card, got {name!r}: {_nearest(name, known)}")
        return registry().find(ModelSpec, name)
    try:
        return registry().find(ModelSpec, card.config.model)
    except GlimpseZooError:
        raise GlimpseZooError(
            f"card {card.name!r} needs the model {card.config.model!r}, which no installed plugin has: pip install {card.config.plugin}"
        ) from None


def _nearest(name: str, known: Iterable[str] = ()) -> str:
    return did_you_mean(name, [*known, *(card.name for card in all_cards())])


def _no_card(name: str, data: str) -> str:
    others = [card.name for card in all_cards() if card.config.model == name]
    have = f"; it has {', '.join(others)}" if others else ""
    return (
        f"no trained card of {name!r} for {data!r}{have}: train one ('glimpsezoo train {name} --data {data}'), "
        "import one ('glimpsezoo import'), name one by --checkpoint, or measure it untrained with --checkpoint none"
    )


def build_model(choice: ModelChoice, task: Task, *, checkpoint: str | None = None, seed: int = 0) -> GlimpseModel[Any]:
    """Build the chosen model for `task` and load its weights; in eval mode, on the CPU.

    Untrained weights are a function of `seed`. Raises `GlimpseZooError` if card and task do not agree, or the weights do not fit.
    """
    kind: type[GlimpseModel[Any]] = load_string(choice.spec.model)
    if choice.card:
        task = _agreed(choice.card, task)
    torch.manual_seed(seed)
    if checkpoint == "timm":
        return kind.pretrained(choice.settings, task).eval()
    model = kind(choice.settings, task)
    if choice.card:
        choice.card.load_into(model, changed=choice.changed)
    return model.eval()


def _agreed(card: Card, task: Task) -> Task:
    """The card's task at the data's image size, if they ask for the same channels and classes."""
    own = card.config.task.task()
    if own.channels != task.channels:
        raise GlimpseZooError(f"card {card.name!r} takes images of {own.channels} channel(s), the data have {task.channels}")
    if own.classes != task.classes:
        raise GlimpseZooError(
            f"card {card.name!r} tells {len(own.classes)} classes apart ({_some(own.classes)}), the data have {len(task.classes)} "
            f"({_some(task.classes)}): measure it on data of its own classes"
        )
    return replace(own, image_size=task.image_size)


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def data_spec(name: str) -> DatasetSpec:
    """The spec that answers for a data set's name."""
    return registry().find(DatasetSpec, name)


def data_folder(path: str | None) -> Path | None:
    """`--data-dir`, checked. Raises `GlimpseZooError` if it is no folder."""
    if path is None:
        return None
    if not Path(path).is_dir():
        raise GlimpseZooError(f"--data-dir expects a folder, got {path!r}, which is none")
    return Path(path)
