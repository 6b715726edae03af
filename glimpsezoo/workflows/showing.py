"""The facts about a model, a data set or a card. Imports torch only if data are opened."""

from collections.abc import Mapping
from typing import Any

from glimpsezoo.errors import GlimpseZooError, did_you_mean
from glimpsezoo.files import file_name
from glimpsezoo.settings import settings_of
from glimpsezoo.specs import DatasetSpec, ModelSpec, Spec, load_string
from glimpsezoo.zoo.cards import Card, card_paths
from glimpsezoo.zoo.plugins import registry
from glimpsezoo.zoo.recipes import Recipe, read_recipe, recipe_names, recipe_text


def assignments(settings: Mapping[str, Any]) -> str:
    """Settings as `--set` takes them, in one line."""
    return ", ".join(f"{key}={value:.6g}" if isinstance(value, float) else f"{key}={value}" for key, value in settings.items())


def card_facts(card: Card) -> dict[str, Any]:
    """The facts about a card that people look for; its config.json has all."""
    from glimpsezoo.zoo.headline import headline

    config, found = card.config, headline(card)
    return {
        "card": config.name,
        "folder": card.folder,
        "model": f"{config.model} ({config.plugin})",
        "settings": assignments(config.config),
        "data": f"{config.data.name} {assignments(config.data.settings)}".rstrip(),
        "classes": list(config.task.classes),
        "top-1": (found.measured if found else "") or "not measured yet",
        "MACs": found.cost if found else "",
        "sha256": config.weights.sha256 if config.weights else "",
        "made by": config.trained.get("command", ""),
    }


def recipe_file(name: str) -> tuple[str, Recipe]:
    """The text of a shipped recipe, and the recipe. Raises `GlimpseZooError` for an unknown name."""
    specs = registry().all(ModelSpec)
    known = {each: spec for spec in specs for each in recipe_names(spec)}
    if file_name(name) not in known:
        raise GlimpseZooError(f"expected a recipe ('glimpsezoo list recipes'), got {name!r}: {did_you_mean(file_name(name), known)}")
    spec = known[file_name(name)]
    return recipe_text(spec, name), read_recipe(spec, name)


def facts_of(name: str, data_dir: str | None, sets: tuple[str, ...]) -> dict[str, Any]:
    """The facts about a model or a data set by what they are called; "settings" is a list of `Setting` as dicts.

    Raises `GlimpseZooError` for an unknown name, and for `data_dir` or `sets` with the name of a model.
    """
    specs: list[Spec] = [*registry().all(ModelSpec), *registry().all(DatasetSpec)]
    kind = next((type(s) for s in specs if s.name == name or (s.prefix and name.startswith(s.name))), None)
    if kind is None:
        known = [*(s.name for s in specs), *card_paths()]
        raise GlimpseZooError(f"expected a model, a data set or a card, got {name!r}: {did_you_mean(name, known)}")
    if kind is ModelSpec:
        if data_dir is not None or sets:
            raise GlimpseZooError(f"--data-dir and --set expect a data set to show, got {name!r}: leave them out")
        return _model_facts(name, registry().find(ModelSpec, name))
    spec = registry().find(DatasetSpec, name)
    facts = _data_facts(name, spec)
    if name == spec.name and (spec.prefix or not (data_dir or sets)):
        return facts
    from glimpsezoo.workflows.describing import describe_data

    settings = {key: facts.pop(key) for key in ("about the settings", "settings")}
    return {**facts, **describe_data(name, data_dir, sets), **settings}


def _model_facts(name: str, spec: ModelSpec) -> dict[str, Any]:
    return {
        "model": name,
        "description": spec.description,
        "paper": spec.paper,
        "from": str(spec.provenance),
        "recipes": ", ".join(recipe_names(spec)),
        "defaults": {data: dict(values) for data, values in spec.defaults.items()},
        **_settings(spec.config),
    }


def _data_facts(name: str, spec: DatasetSpec) -> dict[str, Any]:
    task = spec.task
    return {
        "data": name,
        "description": spec.description,
        "from": str(spec.provenance),
        "license": spec.license,
        "homepage": spec.homepage,
        "image size": f"{task.image_size[0]} x {task.image_size[1]}, {task.channels} channel(s)" if task else "as opened",
        "classes": len(task.classes) if task else "as opened",
        "class names": list(task.classes) if task else [],
        "splits": dict(spec.splits),
        "transform": spec.transform,
        "calibration": spec.calibration,
        **_settings(spec.config),
    }


def _settings(config: str) -> dict[str, Any]:
    """The settings, and the description of their class."""
    about, settings = settings_of(load_string(config))
    return {"about the settings": about, "settings": [setting._asdict() for setting in settings]}
