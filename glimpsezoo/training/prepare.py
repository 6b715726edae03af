"""From a request to a training that is ready to run: everything is resolved and checked before the first step."""

from pathlib import Path
from typing import Any

import torch

from glimpsezoo.core.protocol import GlimpseModel
from glimpsezoo.data.base import ImageData
from glimpsezoo.data.config import AugmentedSettings
from glimpsezoo.data.loading import batches_per_epoch, open_data
from glimpsezoo.data.memory import in_memory
from glimpsezoo.errors import GlimpseZooError
from glimpsezoo.files import check_writable, output_to
from glimpsezoo.settings import Settings
from glimpsezoo.specs import DatasetSpec, LoggerSpec, load_string
from glimpsezoo.training.folder import CHECKPOINT, load_checkpoint, locked
from glimpsezoo.training.job import TrainingJob
from glimpsezoo.training.request import TrainingRequest
from glimpsezoo.training.start import chosen_start, load_start, settings_of_start
from glimpsezoo.training.target import Target, recipe_of, target_of
from glimpsezoo.training.work import TrainingWork
from glimpsezoo.zoo.card_config import CONFIG, CardData
from glimpsezoo.zoo.cards import CURVE, LOG, Card
from glimpsezoo.zoo.names import Assignments, data_folder, data_spec, public_name
from glimpsezoo.zoo.plugins import registry, usable
from glimpsezoo.zoo.recipes import Recipe


def prepare_training(request: TrainingRequest) -> TrainingWork:
    """Resolve the names and settings, open the data, build the model, and prepare the output folder. Raises `GlimpseZooError`."""
    start = chosen_start(request)
    target = target_of(request, start)
    folder = request.output or target.usual_output
    _check_output(request, folder)
    if target.spec.training_step is None:
        raise GlimpseZooError(
            f"expected a model that can be trained, got {target.model!r}, for which its plugin has no training step: import a card instead"
        )
    recipe, settings, data = _settings(request, target, start)
    _check_augmix(recipe, target, data)
    training_data, calibration = _open(request, target, data, recipe)
    torch.manual_seed(recipe.seed)
    kind: type[GlimpseModel[Any]] = load_string(target.spec.model)
    model = kind(settings, training_data.task)
    loaded = load_start(recipe.start, model) if recipe.start else None
    job = TrainingJob(
        model=model,
        training_step=load_string(target.spec.training_step),
        recipe=recipe,
        train=in_memory(training_data, request.device),
        calibration=calibration,
        folder=folder,
        device=request.device,
        workers=request.workers,
        start=loaded.config.weights.sha256 if loaded and loaded.config.weights else None,
    )
    if not request.dry_run:
        _prepare_folder(request, job)
    loggers = tuple(usable(registry().find(LoggerSpec, name)) for name in request.loggers)
    return TrainingWork(target, job, settings, data, request.data_dir, loaded, loggers=loggers)


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


def _open(request: TrainingRequest, target: Target, data: CardData, recipe: Recipe) -> tuple[ImageData, ImageData]:
    """The training and the calibration split. Raises `GlimpseZooError` if one has too few images."""
    spec, folder = data_spec(target.data), data_folder(request.data_dir)
    training_data, calibration = (
        open_data(spec, target.data, split, data.settings, folder, fresh=request.fresh) for split in ("train", "calibration")
    )
    if batches_per_epoch(training_data, recipe.batch_size) == 0 or len(calibration) == 0:
        raise GlimpseZooError(
            f"expected two images of {data.name} to train on and one to calibrate with, got {len(training_data)} and {len(calibration)}: "
            "add images, or choose other data"
        )
    return training_data, calibration


def _check_output(request: TrainingRequest, folder: Path) -> None:
    """Refuse a folder that cannot be written, and one with a finished card unless the user asks to train it again."""
    if (folder / CONFIG).exists() and not (request.force or request.fresh):
        raise GlimpseZooError(
            f"expected an output folder without a card, got {str(folder)!r} with one: choose another --output, or --force to train it again"
        )
    check_writable(folder)


def _prepare_folder(request: TrainingRequest, job: TrainingJob) -> None:
    """Create the folder, and remove config.json from it: until the training ends, it is not a card.

    A checkpoint in the folder is checked first, and removed with the log if the user starts over.
    """
    if not request.fresh:
        load_checkpoint(job)
    with locked(job.folder), output_to(job.folder):
        for old in (CONFIG, *((CHECKPOINT, LOG, CURVE) if request.fresh else ())):
            (job.folder / old).unlink(missing_ok=True)
