"""From the names in a request to a recipe, settings and data; nothing is built or written."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glimpsezoo.data.loading import open_data, task_on
from glimpsezoo.errors import GlimpseZooError
from glimpsezoo.settings import Settings
from glimpsezoo.specs import DatasetSpec, Task, load_string
from glimpsezoo.training.generic import Generic, generic_recipe, has_recipe
from glimpsezoo.training.request import TrainingRequest
from glimpsezoo.training.start import settings_of_start
from glimpsezoo.training.target import Target, recipe_of
from glimpsezoo.zoo.card_config import CardData
from glimpsezoo.zoo.cards import Card
from glimpsezoo.zoo.matching import matched, references
from glimpsezoo.zoo.names import Assignments, data_folder, data_spec
from glimpsezoo.zoo.public_names import public_name
from glimpsezoo.zoo.recipes import Recipe


@dataclass(frozen=True)
class Resolved:
    """What a training is done with."""

    recipe: Recipe
    """With all options applied."""
    settings: Settings
    """Of the model."""
    data: CardData
    """With their settings."""
    name: str
    """Of the recipe: a recipe of the plugin, the user's file, or 'generic'."""
    said: tuple[str, ...] = ()
    """What was chosen for the user, one line each."""

    def printed(self, target: Target) -> str:
        """The recipe as a file that `--recipe` takes, with every setting of the model and of the data that applies."""
        own = {key: value for key, value in self.settings.model_dump(mode="json").items() if key != target.spec.prefix_key}
        defaults = {key: field.get_default(call_default_factory=True) for key, field in type(self.settings).model_fields.items()}
        own = {key: "none" if value is None and defaults[key] is not None else value for key, value in own.items()}
        whole = self.recipe.model_copy(update={"settings": own, "data": self.data.settings})
        whole.model_fields_set.update({"settings", "data"})
        lines = [f"# {line}" for line in (f"{target.model} on {self.data.name}", *self.said)]
        return "\n".join([*lines, "", whole.to_toml()])


def resolve(request: TrainingRequest, target: Target, start: Card | None) -> Resolved:
    """The recipe, the settings of the model and those of the data.

    Where several give a value, the last one wins: the model's defaults for the data, the card that the user starts from, the recipe, and
    the options. Raises `GlimpseZooError`.
    """
    spec = target.spec
    schema: type[Settings] = load_string(spec.config)
    names = [request.model, target.model]
    sets = Assignments.parse(request.sets, [*names, *references(request.sets)], scopes=("data", "train"))
    sets.check_all_declared({target.model: schema.model_fields})
    of_model, of_data = settings_of_start(start, target)
    recipe, generic = _recipe(request, target, {**of_data, **sets.of("data")})
    recipe = _with_options(recipe, request, sets.of("train"))
    data = _card_data(target.data, data_spec(target.data), {**of_data, **recipe.data, **sets.of("data")})
    prefix = {spec.prefix_key: target.model.removeprefix(spec.name)} if spec.prefix else {}
    values = {**spec.defaults.get(target.data, {}), **of_model, **recipe.settings, **prefix}
    own, said = matched(
        {**values, **sets.of_model(names, schema.model_fields)},
        target.model,
        sets,
        target.data,
        lambda: _task(request, target, data.settings),
    )
    name = Path(request.recipe_file).name if request.recipe_file else "generic" if generic else target.card
    said = (*([generic.said(target, recipe)] if generic else []), *said)
    return Resolved(recipe, schema.parse(own, owner=target.model), data, name, said)


def _recipe(request: TrainingRequest, target: Target, given: Mapping[str, Any]) -> tuple[Recipe, Generic | None]:
    """The recipe that the request names, the one of the target, or a generic one for the data."""
    if request.recipe_file is not None or has_recipe(target):
        return recipe_of(request, target), None
    spec = data_spec(target.data)
    training = open_data(spec, target.data, "train", given, data_folder(request.data_dir), fresh=request.fresh)
    if len(training) < 2:
        raise GlimpseZooError(f"expected two images of {target.data} to train on, got {len(training)}: add images, or choose other data")
    generic = generic_recipe(target, training, given)
    return generic.recipe, generic


def _with_options(recipe: Recipe, request: TrainingRequest, sets: Mapping[str, Any]) -> Recipe:
    """The recipe with `--epochs`, `--lr`, `--batch-size` and `--seed`, then `--set train.KEY`."""
    for option, key in (("epochs", "epochs"), ("epochs", "steps"), ("lr", "lr"), ("batch_size", "batch_size"), ("seed", "seed")):
        if getattr(request, option) is not None and key in sets:
            raise GlimpseZooError(f"expected either --{option.replace('_', '-')} or --set train.{key}, got both: leave one out")
    recipe = recipe.scaled(epochs=request.epochs, lr=request.lr)
    whole = {"batch_size": request.batch_size, "seed": request.seed}
    return recipe.override({**sets, **{key: str(value) for key, value in whole.items() if value is not None}})


def _task(request: TrainingRequest, target: Target, settings: dict[str, Any]) -> Task:
    spec, folder = data_spec(target.data), data_folder(request.data_dir)
    return task_on(spec, target.data, settings, folder) or open_data(spec, target.data, "train", settings, folder).task


def _card_data(name: str, spec: DatasetSpec, given: dict[str, Any]) -> CardData:
    """The data set and its settings as the card keeps them: values instead of text."""
    schema: type[Settings] = load_string(spec.config)
    return CardData(name=public_name(name), settings=schema.parse(given, owner="data").model_dump(mode="json", include=set(given)))
