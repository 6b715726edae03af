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
from glimpsezoo.ranks import here
from glimpsezoo.specs import LoggerSpec, load_string
from glimpsezoo.training.folder import CHECKPOINT, load_checkpoint, locked, sweep_lock
from glimpsezoo.training.job import TrainingJob
from glimpsezoo.training.request import TrainingRequest
from glimpsezoo.training.resolve import resolve
from glimpsezoo.training.shared import Share
from glimpsezoo.training.start import chosen_start, load_start
from glimpsezoo.training.target import Target, target_of
from glimpsezoo.training.work import TrainingWork
from glimpsezoo.zoo.card_config import CONFIG, CardData
from glimpsezoo.zoo.cards import CURVE, LOG, Card
from glimpsezoo.zoo.names import data_folder, data_spec
from glimpsezoo.zoo.plugins import registry, usable
from glimpsezoo.zoo.recipes import NOTHING, Recipe


def prepare_training(request: TrainingRequest) -> TrainingWork:
    """Resolve the names and settings, open the data, build the model, and prepare the output folder. Raises `GlimpseZooError`."""
    ranks, (target, start) = here(), _target(request)
    folder = request.output or target.default_folder
    if request.one_of_seeds:
        folder = folder.with_name(f"{folder.name}.seed-{request.seed}")
    if ranks.rank == 0:
        _check_output(request, folder)
    found = resolve(request, target, start)
    recipe, settings, data = found.recipe, found.settings, found.data
    if request.one_of_seeds and not recipe.phase:
        raise GlimpseZooError(f"--seeds expects a recipe that trains, got {NOTHING}")
    assert target.spec.training_step is not None  # ensured by `_target`
    _check_augmix(recipe, target, data)
    training_data, calibration = _open(request, target, data, recipe)
    check_batches(len(training_data), recipe.batch_size, ranks.world)
    torch.manual_seed(recipe.seed)
    kind: type[GlimpseModel[Any]] = load_string(target.spec.model)
    model = kind(settings, training_data.task)
    loaded = load_start(recipe.start, model, trains=bool(recipe.phase)) if recipe.start else None
    if loaded and loaded.folder.resolve() == folder.resolve():  # it would be gone when a training that was killed goes on
        raise GlimpseZooError(
            f"expected another folder than that of the card to start from, got {str(folder)!r} for both: choose another --output"
        )
    job = TrainingJob(
        model=model,
        training_step=load_string(target.spec.training_step),
        recipe=recipe,
        train=_held(training_data, request) if recipe.phase else training_data,
        calibration=calibration,
        folder=folder,
        device=request.device,
        workers=request.workers,
        start=loaded.config.weights.sha256 if loaded and loaded.config.weights else None,
        share=Share(ranks.rank, ranks.world),
    )
    work = TrainingWork(target, job, settings, data, request.data_dir, loaded, said=found.said, recipe_name=found.name)
    if ranks.rank > 0:
        return work
    work.finished = _finished(request, work)
    work.loggers = tuple(usable(registry().find(LoggerSpec, name)) for name in request.loggers)
    if not (request.dry_run or work.finished):
        work.seconds = _prepare_folder(request, job)
    return work


def printed_recipe(request: TrainingRequest) -> str:
    """The recipe that would be used, with all options applied, as the text of a recipe file. Raises `GlimpseZooError`."""
    target, start = _target(request)
    return resolve(request, target, start).printed(target)


def _target(request: TrainingRequest) -> tuple[Target, Card | None]:
    """What is trained on which data, and the card that the user starts from.

    Raises `GlimpseZooError` for a model without a training step.
    """
    start = chosen_start(request)
    target = target_of(request, start)
    if target.spec.training_step is None:
        raise GlimpseZooError(
            f"expected a model that can be trained, got {target.model!r}, for which its plugin has no training step: import a card instead"
        )
    return target, start


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
        facts = calibration.info.inferred
        rule = f" (calibration from {facts.splits['calibration']})" if facts and "calibration" in facts.splits else ""
        raise GlimpseZooError(
            f"expected two images of {data.name} to train on and one to calibrate with, got {len(training_data)} and {len(calibration)}"
            f"{rule}: add images, or choose other data"
        )
    return training_data, calibration


def _held(data: ImageData, request: TrainingRequest) -> ImageData:
    """The training split, held in memory if every process of this machine can hold it."""
    return in_memory(data, request.device, holders=1 if request.device.type == "cuda" else here().local_world)


def check_batches(images: int, batch_size: int, processes: int) -> None:
    """Refuse batches of which some process would get no image."""
    rest = images % batch_size
    smallest, which = (rest, "in the last batch of an epoch") if rest > 1 else (batch_size, "in a batch")
    if min(smallest, images) < processes:
        raise GlimpseZooError(
            f"expected an image of every batch for each of {processes} processes, got {smallest} {which}: choose another --batch-size, or "
            "fewer processes"
        )


def _check_output(request: TrainingRequest, folder: Path) -> None:
    """Refuse a folder that cannot be written, and one with a finished card unless the user asks to train it again.

    Of several seeds, a finished card is looked at later.
    """
    if _has_card(request, folder):
        sweep_lock(folder)
    if _has_card(request, folder) and not request.one_of_seeds:
        raise GlimpseZooError(
            f"expected an output folder without a card, got {str(folder)!r} with one: choose another --output, or --force to train it again"
        )
    check_writable(folder)


def _has_card(request: TrainingRequest, folder: Path) -> bool:
    """Whether the folder has a finished card that stays. A card beside its checkpoint is not finished: its training was killed."""
    return (folder / CONFIG).exists() and not (request.force or request.fresh or (folder / CHECKPOINT).exists())


def _finished(request: TrainingRequest, work: TrainingWork) -> Card | None:
    """The card of this very training, if it is one of several seeds, and finished. Raises `GlimpseZooError` for another card."""
    if not _has_card(request, work.job.folder):
        return None
    card, own = Card.read(work.job.folder), work.config()
    if (card.config.recipe_id, card.config.seed) != (own.recipe_id, own.seed):
        raise GlimpseZooError(
            f"expected no card in {str(card.folder)!r}, or that of this training, got another: choose another --output, or --force to "
            "train it again"
        )
    return card


def _prepare_folder(request: TrainingRequest, job: TrainingJob) -> float:
    """Create the folder, and remove config.json from it: until the training ends, it is not a card.

    A checkpoint in the folder is checked first, and removed with the log if the user starts over. Returns the seconds of training so far.
    """
    state = None if request.fresh else load_checkpoint(job)
    with locked(job.folder), output_to(job.folder):
        for old in (CONFIG, *((CHECKPOINT, LOG, CURVE) if request.fresh else ())):
            (job.folder / old).unlink(missing_ok=True)
    return state["seconds"] if state else 0.0
