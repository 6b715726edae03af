"""What a training request means: names, recipe and settings, checked before torch is loaded and before any data are opened."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glimpsezoo.data.config import AugmentedSettings
from glimpsezoo.errors import GlimpseZooError
from glimpsezoo.files import check_writable
from glimpsezoo.settings import Settings
from glimpsezoo.specs import DatasetSpec, load_string
from glimpsezoo.training.request import TrainingRequest
from glimpsezoo.training.start import chosen_start, settings_of_start
from glimpsezoo.training.target import Target, recipe_of, target_of
from glimpsezoo.zoo.card_config import CONFIG, CardData
from glimpsezoo.zoo.cards import Card
from glimpsezoo.zoo.names import Assignments, data_spec, public_name
from glimpsezoo.zoo.recipes import Recipe


@dataclass(frozen=True)
class Resolved:
    """A training request with its names replaced by what they mean."""

    target: Target
    folder: Path
    """For the card."""
    recipe: Recipe
    settings: Settings
    """Settings of the model."""
    data: CardData


def resolve(request: TrainingRequest) -> Resolved:
    """Look up every name, and check the recipe, the settings and the output folder. Raises `GlimpseZooError`."""
    start = chosen_start(request)
    target = target_of(request, start)
    data_spec(target.data)
    folder = request.output or target.usual_output
    _check_output(request, folder)
    if target.spec.training_step is None:
        raise GlimpseZooError(
            f"expected a model that can be trained, got {target.model!r}, for which its plugin has no training step: import a card instead"
        )
    recipe, settings, data = _settings(request, target, start)
    _check_augmix(recipe, target, data)
    return Resolved(target, folder, recipe, settings, data)


def _settings(request: TrainingRequest, target: Target, start: Card | None) -> tuple[Recipe, Settings, CardData]:
    """The recipe, the settings of the model and those of the data.

    Where several give a value, the last one wins: the model's defaults for the data, the card that the user starts from, the recipe, and
    `--set`.
    """
    spec = target.spec
    schema: type[Settings] = load_string(spec.config)
    names = [request.model, target.model]
    sets = Assignments.parse(request.sets, names, scopes=("data", "train"))
    sets.check_all_declared({target.model: schema.model_fields})
    recipe = recipe_of(request, target).override(sets.of("train") | ({"seed": str(request.seed)} if request.seed is not None else {}))
    prefix = {spec.prefix_key: target.model.removeprefix(spec.name)} if spec.prefix else {}
    own = sets.of_model(names, schema.model_fields)
    of_model, of_data = settings_of_start(start, target)
    values = {**spec.defaults.get(target.data, {}), **of_model, **recipe.settings, **prefix, **own}
    settings = schema.parse(values, owner=target.model)
    data = _card_data(target.data, data_spec(target.data), {**of_data, **recipe.data, **sets.of("data")})
    return recipe, settings, data


def _card_data(name: str, spec: DatasetSpec, given: dict[str, Any]) -> CardData:
    """The data set and its settings as the card keeps them: values instead of text."""
    schema: type[Settings] = load_string(spec.config)
    return CardData(name=public_name(name), settings=schema.parse(given, owner="data").model_dump(mode="json", include=set(given)))


def _check_augmix(recipe: Recipe, target: Target, data: CardData) -> None:
    """Refuse AugMix on images whose colours the data set's own augmentation changes, some of them as the corruptions do."""
    config = load_string(data_spec(target.data).config).parse(data.settings, owner="data")
    if isinstance(config, AugmentedSettings) and config.colours != "keep" and any(phase.augmix and phase.augment for phase in recipe.phase):
        raise GlimpseZooError(
            f"AugMix expects images whose colours training does not change otherwise, got colours={config.colours}: "
            "leave them to AugMix by --set data.colours=keep"
        )


def _check_output(request: TrainingRequest, folder: Path) -> None:
    """Refuse a folder that cannot be written, and one with a finished card unless the user asks to train it again."""
    if (folder / CONFIG).exists() and not (request.force or request.fresh):
        raise GlimpseZooError(
            f"expected an output folder without a card, got {str(folder)!r} with one: choose another --output, or --force to train it again"
        )
    check_writable(folder)
