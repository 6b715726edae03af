"""From what a user asks to a run that is ready: names, settings, models, data and folders, all checked before anything is measured."""

import json
from dataclasses import replace
from pathlib import Path

from glimpsezoo.cards import RESULT, ROWS
from glimpsezoo.corruptions.published import CorruptedFolders
from glimpsezoo.data.base import ImageData
from glimpsezoo.data.config import task_of
from glimpsezoo.data.limited import Held, limited
from glimpsezoo.data.loading import SPLITS, open_data
from glimpsezoo.errors import GlimpseZooError, did_you_mean
from glimpsezoo.hub import PREFIX
from glimpsezoo.measures import Measures, parse_measures, scopes
from glimpsezoo.own_data import DataChoice, choose_data
from glimpsezoo.resolve import (
    Assignments,
    ModelChoice,
    argument_names,
    build_model,
    choose_model,
    data_folder,
    declared_settings,
)
from glimpsezoo.specs import DatasetSpec, Task
from glimpsezoo.store import UnitStore
from glimpsezoo.workflows.findings import check_mce_reference
from glimpsezoo.workflows.measuring import COMPARISON, RunWork
from glimpsezoo.workflows.output import check_writable
from glimpsezoo.workflows.planning import corruptions_apply, without_thresholds
from glimpsezoo.workflows.requests import RunRequest
from glimpsezoo.workflows.updating import check_kept, check_update

STORE = Path("runs", ".units")
FEW = 500  # images that corruptions and attacks are measured on, unless --limit says otherwise
HELD = 1 << 27  # values of images that are held in memory, four bytes each
CALIBRATION = 2_000  # images that thresholds are found on, at most


def prepare(request: RunRequest) -> RunWork:
    """Resolve and check everything that a run needs before anything is measured or written. Raises `GlimpseZooError`."""
    _check(request)
    sets = Assignments.parse(request.sets, argument_names(request.models), scopes=scopes())
    chosen = choose_data(request.models, request.data, sets.of("data"), request.checkpoint)
    request = replace(request, data=chosen.name)
    _check_split(request, chosen.spec)
    sets.check_all_declared({name: declared_settings(name) for name in request.models})
    measures = parse_measures(request.measures, sets)
    choices = [choose_model(name, chosen.name, sets, request.checkpoint) for name in request.models]
    names = _names(choices)
    if request.update_card:
        check_update(request, choices)
    data, task = None, task_of(chosen.spec, chosen.settings)
    if task is None or measures.sections != {"flops"} or request.checkpoint != "none":
        data = _open(request, chosen, request.split, request.limit)
        task = data.task
    models = [build_model(choice, task, checkpoint=request.checkpoint, seed=request.seed) for choice in choices]
    if request.update_card:
        check_kept(request, chosen, measures, choices, models)
    notes: list[str] = []
    if data is not None:
        measures = _suited(measures, data, request.corrupted_dir, notes)
        check_mce_reference(measures.baseline, names, len(task.classes), task.image_size)
    published = _published(request, measures, task) if data is not None else None
    calibration = None
    if data is not None and ("anytime" in measures.sections or measures.attacks) and any(model.steps > 1 for model in models):
        calibration = _calibration(request, chosen, measures, notes)
    return RunWork(
        request=request,
        measures=measures,
        chosen=chosen,
        names=names,
        choices=choices,
        models=models,
        task=task,
        data=data,
        few=_few(data, request.limit or FEW) if data is not None else None,
        calibration=calibration,
        folder=_output(request),
        store=UnitStore(STORE if data is None else _store(request.output)),
        published=published,
        notes=notes,
    )


def _published(request: RunRequest, measures: Measures, task: Task) -> CorruptedFolders | None:
    """`--corrupted-dir`, checked to have all that is asked for."""
    if request.corrupted_dir is None:
        return None
    if not measures.corruptions:
        raise GlimpseZooError("--corrupted-dir expects corruptions to be measured: name them in --measure, or leave it out")
    return CorruptedFolders(Path(request.corrupted_dir), task, [wanted.spec.name for wanted in measures.corruptions])


def _few(data: ImageData, images: int) -> ImageData:
    """The images that corruptions and attacks are measured on; in memory, if they fit there."""
    few, size = limited(data, images), data.task.channels * data.task.image_size[0] * data.task.image_size[1]
    return Held(few) if len(few) * size <= HELD else few


def _suited(measures: Measures, data: ImageData, corrupted_dir: str | None, notes: list[str]) -> Measures:
    """Without corruptions where the images are too small for them, which is an error if the user asked for them."""
    if not measures.corruptions or corrupted_dir is not None or corruptions_apply(data):
        return measures
    height, width = data.task.image_size
    text = f"corruptions are defined for images from 32 px, got {height} x {width}"
    if measures.asked:
        raise GlimpseZooError(f"{text}: leave them out of --measure")
    notes.append(f"{text}: not measured")
    return replace(measures, corruptions=(), sections=measures.sections - {"corruptions"})


def _check_split(request: RunRequest, described: DatasetSpec) -> None:
    """See that the data have the split."""
    splits = tuple(described.splits) or SPLITS
    if request.split not in splits:
        raise GlimpseZooError(f"--split expects one of {', '.join(splits)}, got {request.split!r}: {did_you_mean(request.split, splits)}")


def _check(request: RunRequest) -> None:
    """What needs no model and no data to be seen wrong."""
    if request.limit is not None and request.limit < 1:
        raise GlimpseZooError(f"--limit expects a number of images from 1, got {request.limit}: leave it out to measure all")
    size = request.batch_size
    if size != "auto" and not (size.isdecimal() and int(size) > 0):
        raise GlimpseZooError(f"--batch-size expects a number of images from 1, or 'auto', got {size!r}: it changes no result")
    if not request.models:
        raise GlimpseZooError("expected a model to measure, got none: try 'glimpsezoo run mgnet', or 'glimpsezoo list models'")
    if request.update_card and any(name.startswith(PREFIX) for name in (*request.models, request.checkpoint or "")):
        raise GlimpseZooError("--update-card expects cards in folders of yours, got one on the Hub: pull it first, and push it again")
    if len(set(request.models)) < len(request.models):
        raise GlimpseZooError(f"expected each model once, got {' '.join(request.models)}: name each once")


def _names(choices: list[ModelChoice]) -> list[str]:
    """What each is called in results: the card's address, or the model's name. Addresses that are alike get the folder above, too."""
    names = [choice.card.called if choice.card else choice.full_name for choice in choices]
    names = [
        "/".join(choice.card.folder.resolve().parts[-2:]) if choice.card and names.count(name) > 1 else name
        for choice, name in zip(choices, names, strict=True)
    ]
    cards = [choice.card.folder.resolve() for choice in choices if choice.card]
    if len(set(names)) < len(names) or len(set(cards)) < len(cards):
        raise GlimpseZooError(f"expected each model once, got {' '.join(c.name for c in choices)}: two of them are the same")
    return names


def _open(request: RunRequest, chosen: DataChoice, split: str, limit: int | None) -> ImageData:
    """A split of the data, or a choice of its images. Raises `GlimpseZooError` if it has none: nothing measured is no success."""
    folder, bad = data_folder(request.data_dir), request.on_bad_image
    data = open_data(chosen.spec, chosen.name, split, chosen.settings, folder, on_bad_image=bad, fresh=request.fresh)
    if not len(data):
        remedy = "add training images" if split == "calibration" else "add some, or choose another --split"
        raise GlimpseZooError(f"expected images in the {split} split of {chosen.shown}, got none: {remedy}")
    return limited(data, limit)


def _calibration(request: RunRequest, chosen: DataChoice, measures: Measures, notes: list[str]) -> ImageData | None:
    """What thresholds are found on. None, and a note, where it cannot be had; an error if the user named what needs it."""
    try:
        return _open(request, chosen, "calibration", CALIBRATION)
    except GlimpseZooError as error:
        notes.append(without_thresholds(measures, error))
        return None


def _store(output: Path | None) -> Path:
    """Where finished blocks are kept: in runs/, which all runs share, or in `output` where the working folder cannot be written."""
    try:
        check_writable(STORE)
    except GlimpseZooError:
        if output is None:
            raise
        return output / STORE.name
    return STORE


def _output(request: RunRequest) -> Path:
    """The folder for the results. Refuses one that holds another run, which --force clears away."""
    folder = request.output or STORE.parent / request.id
    others = [path for path in folder.glob(f"*/{RESULT}") if _run_id(path) != request.id] if folder.is_dir() else []
    if others and not request.force:
        raise GlimpseZooError(
            f"expected a folder of this run, got {str(folder)!r} with another's results: choose another --output, or --force"
        )
    check_writable(folder)
    for path in others:
        path.unlink()
        path.with_name(ROWS).unlink(missing_ok=True)
        (folder / COMPARISON).unlink(missing_ok=True)
    return folder


def _run_id(path: Path) -> str | None:
    """The id of the run that wrote a result; None for a file that is no result."""
    try:
        return json.loads(path.read_bytes())["run"]["id"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
