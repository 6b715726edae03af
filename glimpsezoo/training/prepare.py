"""From a request to a training that is ready to run: everything is resolved and checked before the first step."""

import torch

from glimpsezoo.data.base import ImageData
from glimpsezoo.data.loading import batches_per_epoch, open_data
from glimpsezoo.data.memory import in_memory
from glimpsezoo.errors import GlimpseZooError
from glimpsezoo.evaluation.environment import find_device
from glimpsezoo.files import output_to
from glimpsezoo.specs import load_string
from glimpsezoo.training.folder import CHECKPOINT, load_checkpoint, locked
from glimpsezoo.training.job import TrainingJob
from glimpsezoo.training.request import TrainingRequest
from glimpsezoo.training.resolve import Resolved, resolve
from glimpsezoo.training.start import load_start
from glimpsezoo.training.work import TrainingWork
from glimpsezoo.zoo.card_config import CONFIG
from glimpsezoo.zoo.cards import CURVE, LOG
from glimpsezoo.zoo.names import data_folder, data_spec


def prepare_training(request: TrainingRequest) -> TrainingWork:
    """Resolve the names and settings, open the data, build the model, and prepare the output folder. Raises `GlimpseZooError`."""
    found = resolve(request)
    device = find_device(request.device)
    training_data, calibration = _open(request, found)
    torch.manual_seed(found.recipe.seed)
    model = load_string(found.target.spec.model)(found.settings, training_data.task)
    loaded = load_start(found.recipe.start, model) if found.recipe.start else None
    job = TrainingJob(
        model=model,
        training_step=load_string(str(found.target.spec.training_step)),
        recipe=found.recipe,
        train=in_memory(training_data, device),
        calibration=calibration,
        folder=found.folder,
        device=device,
        workers=request.workers,
        start=loaded.config.weights.sha256 if loaded and loaded.config.weights else None,
    )
    _prepare_folder(request, job)
    return TrainingWork(found.target, job, found.settings, found.data, request.data_dir, loaded)


def _open(request: TrainingRequest, found: Resolved) -> tuple[ImageData, ImageData]:
    """The training and the calibration split. Raises `GlimpseZooError` if one has too few images."""
    name, spec, folder = found.target.data, data_spec(found.target.data), data_folder(request.data_dir)
    training_data, calibration = (
        open_data(spec, name, split, found.data.settings, folder, fresh=request.fresh) for split in ("train", "calibration")
    )
    if batches_per_epoch(training_data, found.recipe.batch_size) == 0 or len(calibration) == 0:
        raise GlimpseZooError(
            f"expected two images of {found.data.name} to train on and one to calibrate with, got {len(training_data)} and "
            f"{len(calibration)}: add images, or choose other data"
        )
    return training_data, calibration


def _prepare_folder(request: TrainingRequest, job: TrainingJob) -> None:
    """Create the folder, and remove config.json from it: until the training ends, it is not a card.

    A checkpoint in the folder is checked first, and removed with the log if the user starts over.
    """
    if not request.fresh:
        load_checkpoint(job)
    with locked(job.folder), output_to(job.folder):
        for old in (CONFIG, *((CHECKPOINT, LOG, CURVE) if request.fresh else ())):
            (job.folder / old).unlink(missing_ok=True)
