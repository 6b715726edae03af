"""What is trained on which data, and by which recipe."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from glimpsezoo.errors import GlimpseZooError, did_you_mean, why_not
from glimpsezoo.files import file_name
from glimpsezoo.specs import DatasetSpec, LoggerSpec, ModelSpec
from glimpsezoo.training.request import TrainingRequest
from glimpsezoo.untrusted import TOML_SIZE, read_regular
from glimpsezoo.zoo.card_config import UNKNOWN
from glimpsezoo.zoo.cards import Card
from glimpsezoo.zoo.early import check_keys
from glimpsezoo.zoo.names import Assignments, data_spec
from glimpsezoo.zoo.own_data import DEFAULT_DATA
from glimpsezoo.zoo.plugins import registry, usable
from glimpsezoo.zoo.public_names import public_name
from glimpsezoo.zoo.recipes import Recipe, find_recipe, read_recipe, recipe_names
from glimpsezoo.zoo.recipes import check_keys as recipe_keys


@dataclass(frozen=True)
class Target:
    """What is trained on which data, by name."""

    spec: ModelSpec
    card: str
    """MODEL.DATA[.VARIANT], the name of the card."""
    model: str
    """Full name of the model: `timm:resnet18` for one of a prefix spec."""
    data: str
    """Name of the data set as the user typed it."""

    @property
    def default_folder(self) -> Path:
        """The output folder if the user names none."""
        return default_folder(self.card)


def default_folder(card: str) -> Path:
    """Where `train` writes a card unless the user names a folder."""
    return Path("runs", "train", file_name(card))


def target_of_recipe(name: str) -> Target | None:
    """The target of a recipe's full name, MODEL.DATA[.VARIANT]; None if no plugin has such a recipe."""
    for spec in registry().all(ModelSpec):
        if file_name(name) in recipe_names(spec):
            model, data = split_name(name, spec)
            return Target(spec, model + name[len(model) :], model, data)
    return None


def check_names(model: str, data: str | None, recipe: str | None, sets: Iterable[str], loggers: Iterable[str] = ()) -> None:
    """Look up all names in a `train` command before torch is loaded, so that a typing error is found at once. Raises `GlimpseZooError`."""
    found = target_of_recipe(model)
    spec, name, data = (found.spec, found.model, data or found.data) if found else (registry().find(ModelSpec, model), model, data)
    if data is not None:
        data_spec(data)
    if recipe is not None:
        read_recipe_file(recipe, spec, name)
    for logger in loggers:
        usable(registry().find(LoggerSpec, logger))
    given = Assignments.parse(sets, [model, name], scopes=("data", "train"))
    recipe_keys(given.of("train"))
    check_keys([name], data or DEFAULT_DATA, given)


def target_of(request: TrainingRequest, start: Card | None) -> Target:
    """The target of MODEL with --data, or of a recipe's full name. start: the card that the user starts from; its data are the default.

    Raises `GlimpseZooError` for an unknown model, and if --data contradicts the recipe's name.
    """
    target = target_of_recipe(request.model)
    if target is None:
        own = start.config.data.name if start and start.config.data.name != UNKNOWN else DEFAULT_DATA
        spec, data = registry().find(ModelSpec, request.model), request.data or own
        return Target(spec, f"{request.model}.{public_name(data)}", request.model, data)
    if request.data not in {None, target.data}:
        raise GlimpseZooError(
            f"expected --data {target.data}, the data of the recipe {request.model!r}, got {request.data!r}: leave --data out"
        )
    return target


def split_name(recipe: str, spec: ModelSpec) -> tuple[str, str]:
    """The model and the data set in MODEL.DATA[.VARIANT].

    The model names of a prefix spec may contain dots, so the first part that names a data set ends the model's name. Recipe files have
    `_` instead of the colons of the model's name, so both names are equally long.
    """
    if not spec.prefix:
        return spec.name, recipe.removeprefix(f"{spec.name}.").split(".")[0]
    parts, known = recipe.split("."), {data.name for data in registry().all(DatasetSpec)}
    place = next((place for place, part in enumerate(parts) if part in known), len(parts) - 1)
    return spec.name + ".".join(parts[:place])[len(spec.name) :], parts[place]


def recipe_of(request: TrainingRequest, target: Target) -> Recipe:
    """The recipe that the request names, or the one of the target. Raises `GlimpseZooError`."""
    if request.recipe_file is None:
        return find_recipe(target.spec, target.card)
    return read_recipe_file(request.recipe_file, target.spec, target.model)


def read_recipe_file(file: str, spec: ModelSpec, model: str) -> Recipe:
    """A TOML file of the user's, or another recipe of the model. Raises `GlimpseZooError`."""
    path, known = Path(file), recipe_names(spec)
    if file in known and not path.is_file():
        return read_recipe(spec, file)
    try:
        return Recipe.from_toml(read_regular(path, TOML_SIZE).decode("utf-8"), name=path.name)
    except (OSError, UnicodeDecodeError) as error:
        hint = did_you_mean(file, known)
        raise GlimpseZooError(
            f"--recipe expects a TOML file, or a recipe of {model}, got {file!r} ({why_not(error):.100}): {hint}"
        ) from None
