"""Resolve what users type to objects: `--set` texts, model arguments and names of data. Lower layers get objects, never names.

Imports no torch, so that a name is looked up before anything heavy is loaded; `build_model` imports it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glimpsezoo.data.wordnet import titled
from glimpsezoo.errors import GlimpseZooError, did_you_mean
from glimpsezoo.files import file_name
from glimpsezoo.settings import Settings
from glimpsezoo.specs import DatasetSpec, ModelSpec, Task, load_string
from glimpsezoo.zoo.arguments import argument_card, split_argument
from glimpsezoo.zoo.cards import Card, card_paths, find_card
from glimpsezoo.zoo.plugins import registry, usable
from glimpsezoo.zoo.public_names import public_name
from glimpsezoo.zoo.recipes import recipe_names

if TYPE_CHECKING:
    from glimpsezoo.core.protocol import GlimpseModel


@dataclass(frozen=True)
class Assignments:
    """Parsed `--set` texts."""

    scopes: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Settings of something other than a model, by its name: `data.KEY`."""
    scoped: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Settings of one model, by its name: `MODEL.KEY`."""
    shared: dict[str, Any] = field(default_factory=dict)
    """Settings of every model that has the key: `KEY`."""

    @classmethod
    def parse(cls, texts: Iterable[str], models: Iterable[str], *, scopes: Iterable[str] = ("data",)) -> "Assignments":
        """Sort `key=value` texts by their prefix: one of `models`, one of `scopes`, or none.

        >>> Assignments.parse(["glimpses=4", "data.size=28", "mgnet.alpha=0.5"], ["mgnet"]).scoped
        {'mgnet': {'alpha': '0.5'}}
        """
        found = cls()
        taken = {scope: found.scopes.setdefault(scope, {}) for scope in scopes}
        names = sorted(models, key=len, reverse=True)
        for text in texts:
            key, equals, value = text.partition("=")
            if not equals or not key:
                raise GlimpseZooError(f"--set expects key=value, got {text!r}: try 'glimpsezoo show MODEL' for the keys")
            owner = next((name for name in (*names, *taken) if key.startswith(f"{name}.")), None)
            if owner is None:
                found.shared[key] = value
            elif owner in taken:
                taken[owner][key.removeprefix(f"{owner}.")] = value
            else:
                found.scoped.setdefault(owner, {})[key.removeprefix(f"{owner}.")] = value
        return found

    def of(self, scope: str) -> dict[str, Any]:
        """The settings of a scope."""
        return self.scopes.get(scope, {})

    def of_model(self, names: Iterable[str], declared: Iterable[str]) -> dict[str, Any]:
        """The settings of a model with these names: the shared keys that it declares, and its own keys."""
        known = set(declared)
        found = {key: value for key, value in self.shared.items() if key in known}
        for name in names:
            found |= self.scoped.get(name, {})
        return found

    def check_all_declared(self, declared: Mapping[str, Iterable[str]]) -> None:
        """Raise `GlimpseZooError` for a shared key that no model declares. declared: name of a model -> its keys."""
        known = {key for keys in declared.values() for key in keys}
        for key in self.shared:
            if key not in known:
                who = " or ".join(declared)
                raise GlimpseZooError(
                    f"--set {key} expects a setting of {who}, or data.KEY for the data: {did_you_mean(key.rpartition('.')[2], known)}"
                )


@dataclass(frozen=True)
class ModelChoice:
    """A model argument that is resolved; the model is not built yet."""

    name: str
    """The argument as the user typed it."""
    spec: ModelSpec
    card: Card | None
    """The card with the weights; None for untrained weights and for those of timm."""
    settings: Settings
    changed: dict[str, Any]
    """The settings that differ from the card."""
    own: Mapping[str, Any] = field(default_factory=dict)
    """The settings of this argument alone: what was typed after its `@`."""

    @property
    def own_card(self) -> Card:
        """The card, of a choice that must have one: `choose_model` raises if `checkpoint` is None and there is no card."""
        assert self.card is not None
        return self.card

    @property
    def full_name(self) -> str:
        """The name of the model: `timm:resnet18` for one of a prefix spec."""
        return self.spec.name + str(getattr(self.settings, self.spec.prefix_key)) if self.spec.prefix else self.spec.name

    @property
    def called(self) -> str:
        """The name of the model in results: the card's address or the model's name, with its own settings, if any."""
        return (self.card.called if self.card else self.full_name) + self.suffix

    @property
    def suffix(self) -> str:
        """The own settings as they are typed, with the `@`."""
        return f"@{','.join(f'{key}={value}' for key, value in self.own.items())}" if self.own else ""


def choose_model(name: str, data: str, sets: Assignments, checkpoint: str | None) -> ModelChoice:
    """Find the spec, the card and the settings of a model argument on `data`.

    checkpoint: None takes the card of the argument; 'none' and 'timm' take no card; anything else is the name or the path of a card.
    Raises `GlimpseZooError`.
    """
    argument, own = split_argument(name)
    named = find_card(argument)
    spec, model = spec_of(argument, named), model_name(argument, named)
    card = _trained(argument, model, data, named, checkpoint)
    source = card or named
    values = dict(source.config.config if source else spec.defaults.get(data, {}))
    if spec.prefix:
        values[spec.prefix_key] = model.removeprefix(spec.name)
    schema: type[Settings] = load_string(spec.config)
    own = {key: sets.scoped.get(name, {}).get(key, value) for key, value in own.items()}  # a number in place of auto:MODEL
    changes = {**sets.of_model([model, argument, name], schema.model_fields), **own}
    settings = schema.parse({**values, **changes}, owner=name)
    changed = {}
    if card:
        before, after = schema.parse(values, owner=name).model_dump(), settings.model_dump()
        changed = {key: value for key, value in changes.items() if before[key] != after[key]}
        card = card.at(changed["revision"]) if card.config.released and "revision" in changed else card
    return ModelChoice(name, spec, card and card.located(), settings, changed, own)


def argument_names(arguments: Iterable[str]) -> list[str]:
    """The names that `--set NAME.KEY` accepts for the models of a command: each argument, and the model of each card."""
    named = [split_argument(argument).name for argument in arguments]
    return [name for argument in named for name in (argument, model_name(argument, find_card(argument)))]


def model_name(name: str, card: Card | None) -> str:
    """The name of the model in a model argument: that of the card, or the argument itself."""
    return card.config.model if card else name


def _trained(name: str, model: str, data: str, named: Card | None, checkpoint: str | None) -> Card | None:
    """The card with the weights; None for untrained weights and for those of timm. named: the card that the argument names."""
    if checkpoint in {"none", "timm"}:
        return None
    if checkpoint is None:
        card = named or card_for(name, data)
        if card is None:
            raise GlimpseZooError(_no_card(name, data, spec_of(name, None)))
        return card
    card = card_named(checkpoint)
    if card.config.model != model:
        raise GlimpseZooError(f"--checkpoint expects a card of {model!r}, got {checkpoint!r}, a card of {card.config.model!r}")
    return card


def card_named(checkpoint: str) -> Card:
    """The card that `--checkpoint` names. Raises `GlimpseZooError` if there is none."""
    card = find_card(checkpoint)
    if card is None:
        hint = did_you_mean(checkpoint, card_paths())
        raise GlimpseZooError(f"--checkpoint expects 'none', 'timm', a card or a file of weights, got {checkpoint!r}: {hint}")
    return card


def card_for(model: str, data: str) -> Card | None:
    """The card MODEL.DATA that is taken if the argument names a model, not a card."""
    return find_card(f"{model}.{public_name(data)}")


def declared_settings(name: str) -> list[str]:
    """The `--set` keys of a model argument."""
    return list(load_string(spec_of(split_argument(name).name, argument_card(name)).config).model_fields)


def spec_of(name: str, card: Card | None) -> ModelSpec:
    """The spec of a model argument. card: the card that it names, if any.

    Raises `GlimpseZooError` for a model that no plugin has, and for one that cannot be used on this machine.
    """
    plugins = registry()
    wanted = model_name(name, card)
    if any(wanted == spec.name or (spec.prefix and wanted.startswith(spec.name)) for spec in plugins.all(ModelSpec)):
        return usable(plugins.find(ModelSpec, wanted))
    if card is None:
        named, at, _ = name.partition("@")
        form = " (settings of its own are MODEL@KEY=VALUE)" if at else " (each setting is an option of its own)" if "=" in name else ""
        raise GlimpseZooError(f"expected a model or a card, got {name!r}{form}: {plugins.hint(ModelSpec, named, card_paths())}")
    broken = [plugin.error for plugin in plugins.plugins if plugin.error and plugin.provenance.distribution == card.config.plugin]
    remedy = f"its plugin {card.config.plugin} is broken: {broken[0]}" if broken else f"install its plugin, {card.config.plugin}"
    raise GlimpseZooError(f"card {card.name!r} needs the model {card.config.model!r}, which no installed plugin has: {remedy}")


def _no_card(name: str, data: str, spec: ModelSpec) -> str:
    others = [card for card in card_paths() if card.startswith(f"{file_name(name)}.")]
    have = f" (it has {', '.join(others[:4])}{', ...' if len(others) > 4 else ''})" if others else ""
    got = f"expected a trained card of {name!r} for {data!r}, got none{have}"
    own = find_card(str(Path("runs", "train", file_name(f"{name}.{public_name(data)}"))))
    if own is not None:
        return f"{got}: take the one that you trained by --checkpoint {own.called}"
    return f"{got}: {_training(name, data, spec)}name a card by --checkpoint, or measure it untrained (--checkpoint none)"


def _training(name: str, data: str, spec: ModelSpec) -> str:
    """The command that trains the model on the data: by its recipe, by the first of several, or by a generic one."""
    if not spec.training_step:
        return ""
    wanted = file_name(f"{name}.{public_name(data)}")
    variants = [recipe for recipe in recipe_names(spec) if recipe.startswith(f"{wanted}.")]
    exact = not variants or wanted in recipe_names(spec)
    return f"train one ('glimpsezoo train {f'{name} --data {data}' if exact else variants[0]}'), "


def build_model(choice: ModelChoice, task: Task, *, checkpoint: str | None = None, seed: int = 0) -> "GlimpseModel[Any]":
    """Build the chosen model for `task` and load its weights: in eval mode, on the CPU.

    seed: decides untrained weights. Raises `GlimpseZooError` if the card has another task, or if the weights do not fit.
    """
    import torch

    from glimpsezoo.evaluation.environment import channels_last

    kind: type[GlimpseModel[Any]] = load_string(choice.spec.model)
    if choice.card:
        task = _agreed(choice.card, task)
    torch.manual_seed(seed)
    model = kind.pretrained(choice.settings, task) if checkpoint == "timm" else kind(choice.settings, task)
    if choice.card:
        choice.card.load_into(model, changed=choice.changed)
        model.card = choice.card.config
    channels_last(model)
    return model.eval()


def _agreed(card: Card, task: Task) -> Task:
    """The card's task at the image size of the data. Raises `GlimpseZooError` for other channels or classes."""
    own = card.config.task.task()
    if own.channels != task.channels:
        raise GlimpseZooError(
            f"card {card.name!r} expects images with {own.channels} channel(s), got data with {task.channels}: "
            f"measure it on data like {card.config.data.name}"
        )
    if own.classes != task.classes:
        raise GlimpseZooError(
            f"card {card.name!r} expects data with its {len(own.classes)} classes ({_some(own.classes)}), got {len(task.classes)} "
            f"({_some(task.classes)}): measure it on data with the same classes"
        )
    return replace(own, image_size=task.image_size)


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(map(titled, names[:3])) + (", ..." if len(names) > 3 else "")


def data_spec(name: str) -> DatasetSpec:
    """The spec of a data set, by its name. Raises `GlimpseZooError`; for a folder on this machine, it says how that is named."""
    try:
        return registry().find(DatasetSpec, name)
    except GlimpseZooError:
        if Path(name).is_dir():
            raise GlimpseZooError(f"expected the name of a data set, got {name!r}, a folder: did you mean 'folder:{name}'?") from None
        raise


def data_folder(path: str | Path | None) -> Path | None:
    """The folder that `--data-dir` names. Raises `GlimpseZooError` if it is not a folder."""
    if path is None:
        return None
    if not Path(path).is_dir():
        raise GlimpseZooError(f"--data-dir expects a folder, got {str(path)!r}: name one that is there")
    return Path(path)
