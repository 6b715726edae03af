"""A recipe for data that no shipped recipe is for: the training phases of a shipped one, fitted to the data.

Only the plugin knows which phases its model needs, so they come from its own recipes: from the one for images most like these, in
channels and size. What depends on the data is chosen from the data alone, so that several models trained on them can be compared:

    image size     64 px below 5,000 training images, 128 px below 50,000, else 224 px; never larger than the images usually are
    batch size     a power of two from 8 to 128: about a thirty-second of the training images, and an image of every class
    epochs         those of 3,000 steps, but from 30 to 100; the phases share them as in the base
    learning rate  the base's, for another batch size: in proportion with SGD (Goyal et al., 2017), by the square root with Adam and AdamW
    augmentation   crops of at least 8 % of an image and AutoAugment with 500 training images per class or more, else 35 % and distorted
                   colours
    precision      auto: bfloat16 on a GPU, float32 elsewhere
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from glimpsezoo.data.base import ImageData
from glimpsezoo.data.config import AugmentedSettings, task_of
from glimpsezoo.data.images import NaturalImages
from glimpsezoo.data.survey import usual_side
from glimpsezoo.errors import GlimpseZooError, counted
from glimpsezoo.files import file_name
from glimpsezoo.settings import Settings
from glimpsezoo.specs import DatasetSpec, Task, load_string
from glimpsezoo.training.target import Target, split_name
from glimpsezoo.zoo.names import data_spec
from glimpsezoo.zoo.recipes import PhaseRecipe, Recipe, read_recipe, recipe_names, shares

SIDES = ((5_000, 64), (50_000, 128), (math.inf, 224))  # below so many training images, images of this side
SMALLEST = 16  # px
STEPS, EPOCHS = 3_000, (30, 100)
BATCHES, BATCH_SIZES = 32, (8, 128)
MANY = 500  # training images per class
PLAIN = Recipe.parse(  # for a model without recipes
    {
        "batch_size": 64,
        "phase": [
            {"name": "main", "epochs": 1, "optimiser": "adamw", "lr": 1e-3, "weight_decay": 0.05, "schedule": "one-cycle", "clip": 1.0}
        ],
    },
    owner="a recipe",
)


@dataclass(frozen=True)
class Base:
    """The recipe whose training phases are taken."""

    name: str
    """'' if the model has none."""
    recipe: Recipe
    settings: Mapping[str, Any]
    """Of the model, on the recipe's own data."""


@dataclass(frozen=True)
class Generic:
    """A recipe that was made for the data."""

    recipe: Recipe
    base: str
    """The recipe that its training phases come from; '' if the model has none."""
    data: ImageData
    """The training split."""

    def said(self, target: Target, recipe: Recipe) -> str:
        """What was chosen, in one line. recipe: this one with the user's options."""
        like = f"has the training phases of {self.base}" if self.base else "has one training phase"
        classes, side = len(self.data.task.classes), recipe.data.get("size", max(self.data.task.image_size))
        lengths = [phase.epochs for phase in recipe.phase]
        length = f"{counted(sum(filter(None, lengths)), 'epoch')}, " if all(lengths) else ""
        return (
            f"no recipe of {target.model} is for {target.data}: a generic one {like}, fitted to "
            f"{counted(len(self.data), 'training image')} of {counted(classes, 'class')}: {side} x {side} px, "
            f"{length}batches of {recipe.batch_size} "
            "(--print-recipe shows it)"
        )


def has_recipe(target: Target) -> bool:
    """Whether a shipped recipe is for the model on these data, perhaps only as a variant."""
    own = file_name(target.card)
    return any(name == own or name.startswith(f"{own}.") for name in recipe_names(target.spec))


def generic_recipe(target: Target, data: ImageData, given: Mapping[str, Any]) -> Generic:
    """The recipe for a model on data that no recipe of its plugin is for. data: the training split. given: settings of the data."""
    images, classes = len(data), len(data.task.classes)
    chosen = {**_image_size(data, data_spec(target.data), given), **_augmentation(data, data_spec(target.data))}
    chosen = {key: value for key, value in chosen.items() if key not in given}
    task = replace(data.task, image_size=(chosen["size"],) * 2) if "size" in chosen else data.task
    base = _base(target, task)
    batch = _batch_size(images, classes)
    epochs = max(min(max(round(STEPS / -(-images // batch)), EPOCHS[0]), EPOCHS[1]), len(base.recipe.phase))
    lengths = shares(base.recipe.phase, epochs)
    phases = [
        phase.changed({"epochs": length, "steps": None, "lr": _learning_rate(phase, batch / base.recipe.batch_size)}, {})
        for phase, length in zip(base.recipe.phase, lengths, strict=True)
    ]
    values = {"seed": 0, "batch_size": batch, "settings": dict(base.settings), "data": chosen, "phase": tuple(phases)}
    recipe = Recipe.parse(values, owner=f"the generic recipe of {target.model}")
    return Generic(recipe, base.name, data)


def _image_size(data: ImageData, spec: DatasetSpec, given: Mapping[str, Any]) -> dict[str, Any]:
    """The size of images that no data set declares."""
    if spec.task is not None or "size" in given or not isinstance(data, NaturalImages):
        return {}
    wanted = next(side for below, side in SIDES if len(data) < below)
    usual = usual_side(data) or wanted
    return {"size": wanted if usual >= wanted else max(SMALLEST, usual - usual % 4)}


def _augmentation(data: ImageData, spec: DatasetSpec) -> dict[str, Any]:
    """How natural images are augmented, by the number of images of a class."""
    schema: type[Settings] = load_string(spec.config)
    if not issubclass(schema, AugmentedSettings) or len(data) >= MANY * len(data.task.classes):
        return {}  # the defaults are for many images
    return {"crop_area": 0.35, "colours": "distort"}


def _base(target: Target, task: Task) -> Base:
    """The recipe of the plugin that is for images most like these, among those whose model can take them.

    Left out are those that go on from another card, and those that train for robustness.
    """
    found: list[tuple[tuple[Any, ...], Base]] = []
    for name in recipe_names(target.spec):
        recipe = read_recipe(target.spec, name)
        if recipe.start is None and not any(phase.adversarial or phase.augmix for phase in recipe.phase):
            data = split_name(name, target.spec)[1]
            settings = {**target.spec.defaults.get(data, {}), **recipe.settings}
            found.append((_unlike(target, name, task_of(data_spec(data), recipe.data), task), Base(name, recipe, settings)))
    bases = [base for _, base in sorted(found, key=lambda each: each[0])] or [Base("", PLAIN, {})]
    return next((base for base in bases if _fits(base, target, task)), bases[0])


def _unlike(target: Target, name: str, own: Task | None, wanted: Task) -> tuple[bool, float, str]:
    """How far a recipe is from what is wanted. own: the task of its data."""
    other = not name.startswith(f"{file_name(target.model)}.")  # another model of a prefix spec
    if own is None:
        return other, math.inf, name
    side, variant = max(own.image_size), name.removeprefix(f"{file_name(target.model)}.").partition(".")[2]
    octaves = abs(math.log2(max(wanted.image_size) / side))
    unusual = bool(variant) and variant != str(side)  # not the model as it usually is
    return other, round(octaves + unusual + (own.channels != wanted.channels), 3), name


def _fits(base: Base, target: Target, task: Task) -> bool:
    """Whether the model, as the recipe sets it, can be built for these images."""
    prefix = {target.spec.prefix_key: target.model.removeprefix(target.spec.name)} if target.spec.prefix else {}
    try:
        settings = load_string(target.spec.config).parse({**base.settings, **prefix}, owner=target.model)
        load_string(target.spec.model)(settings, task)
    except GlimpseZooError:
        return False
    return True


def _batch_size(images: int, classes: int) -> int:
    wanted = 2 ** round(math.log2(max(images / BATCHES, classes)))
    return max(2, min(max(wanted, BATCH_SIZES[0]), BATCH_SIZES[1], images // 2))


def _learning_rate(phase: PhaseRecipe, factor: float) -> float:
    """For a batch `factor` times as large as that of the base, to two digits."""
    return float(f"{phase.lr * (factor if phase.optimiser == 'sgd' else math.sqrt(factor)):.2g}")
