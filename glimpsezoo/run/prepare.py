"""Prepares a run: resolves names, settings, models, data and folders, and checks them all before anything is measured."""

from dataclasses import replace
from itertools import cycle
from pathlib import Path
from typing import Any

from glimpsezoo.conditions.corruptions.published import CorruptedFolders
from glimpsezoo.core.computing import without_compiler
from glimpsezoo.core.protocol import PRECISIONS, Computing, GlimpseModel
from glimpsezoo.data.among import AmongClasses, among, task_among
from glimpsezoo.data.base import ImageData
from glimpsezoo.data.limited import Held, Limited, limited
from glimpsezoo.data.loading import SPLITS, open_data, task_on
from glimpsezoo.errors import GlimpseZooError, did_you_mean
from glimpsezoo.evaluation.store import UnitStore
from glimpsezoo.files import check_inside, check_writable
from glimpsezoo.measures.base import Bench, Measure
from glimpsezoo.measures.calibration import without_thresholds
from glimpsezoo.measures.corrupted import CorruptedMeasure
from glimpsezoo.run.engines.choosing import RAY, reach
from glimpsezoo.run.engines.choosing import chosen as chosen_engine
from glimpsezoo.run.finishing import COMPARISON
from glimpsezoo.run.parse import parse_measures, scopes
from glimpsezoo.run.request import RunRequest
from glimpsezoo.run.updating import check_kept, check_update
from glimpsezoo.run.work import RunWork
from glimpsezoo.specs import DatasetSpec, Task
from glimpsezoo.untrusted import JSON_SIZE, is_number, json_values, read_regular
from glimpsezoo.zoo.arguments import argument_card, split_argument
from glimpsezoo.zoo.cards import RESULT, ROWS, find_card
from glimpsezoo.zoo.hub import PREFIX
from glimpsezoo.zoo.matching import AUTO, matched, references, without_auto
from glimpsezoo.zoo.names import (
    Assignments,
    ModelChoice,
    argument_names,
    build_model,
    choose_model,
    data_folder,
    declared_settings,
    model_name,
    spec_of,
)
from glimpsezoo.zoo.own_data import DataChoice, choose_data
from glimpsezoo.zoo.plugins import registry

STORE = Path("runs", ".units")
FEW = 500  # images for corruptions and attacks, unless --limit is given
HELD = 1 << 27  # values: images of up to this total are held in memory, at four bytes per value
CALIBRATION = 2_000  # at most so many images are used to find thresholds


def prepare(request: RunRequest) -> RunWork:
    """Resolve and check everything that a run needs before anything is measured or written. Raises `GlimpseZooError`."""
    check_options(request)
    reach_workers(request)
    named = [*argument_names(request.models), *references((*request.sets, *request.models))]
    sets = Assignments.parse(request.sets, named, scopes=scopes())
    chosen = choose_data(request.models, request.data, sets.of("data"), request.checkpoint)
    request = replace(request, data=chosen.name)
    _check_split(request, chosen.spec)
    sets.check_all_declared({name: declared_settings(name) for name in request.models})
    measures = parse_measures(request.measures, sets)
    notes: list[str] = []
    sets = _matched(request, chosen, sets, notes)
    choices = [choose_model(name, chosen.name, sets, request.checkpoint) for name in request.models]
    if request.update_card:
        check_update(request, choices)
    data, task = None, _task_without_data(request, chosen, measures)
    if task is None:
        data = _open(request, chosen, request.split, request.limit)
        task = data.task
        notes += [*_some_classes(data, chosen), *_changed_data(request, chosen, choices)]
    computings = _computings(request, notes)
    names = [computing.of(name) for name in _names(choices) for computing in computings]
    choices = [choice for choice in choices for _ in computings]
    models = [build_model(choice, task, checkpoint=request.checkpoint, seed=request.seed) for choice in choices]
    for model, computing in zip(models, cycle(computings), strict=False):
        model.computing = computing
    if request.update_card:
        check_kept(request, chosen, measures, choices, models)
    bench, calibration = None, None
    if data is not None:
        bench = _bench(request, names, models, data, _published(request, measures, task))
        bench.measures = measures = _prepared(measures, bench, notes)
        if any(measure.uses_exits for measure in measures) and any(model.steps > 1 for model in models):
            calibration = _calibration(request, chosen, measures, notes)
    return RunWork(
        request=request,
        measures=measures,
        chosen=chosen,
        names=names,
        choices=choices,
        models=models,
        task=task,
        bench=bench,
        calibration=calibration,
        sets=sets,
        store=UnitStore(STORE) if data is None else store_of(request),
        folder=_output(request),  # which deletes what --force allows it to: after the store is known to answer
        notes=notes,
    )


def reach_workers(request: RunRequest) -> None:
    """Connect to remote workers, unless the run is only planned. Raises `GlimpseZooError` if they cannot measure the models."""
    local = [name for argument in request.models if not (name := split_argument(argument).name).startswith(PREFIX)]
    if not request.dry_run:
        reach(request.engine, request.ray_address, (spec_of(name, find_card(name)).model for name in local))


def images_of(request: RunRequest) -> int:
    """How many images a run of this request measures. Raises `GlimpseZooError`, as `prepare` does."""
    sets = Assignments.parse(request.sets, argument_names(request.models), scopes=scopes())
    chosen = choose_data(request.models, request.data, sets.of("data"), request.checkpoint)
    return len(_open(request, chosen, request.split, request.limit))


def _task_without_data(request: RunRequest, chosen: DataChoice, measures: list[Measure]) -> Task | None:
    """The task, if nothing is measured on the data, so that they are not opened; None if they must be.

    Data that declare their task are opened for cards, whose cost may depend on the images.
    """
    if request.update_card or not all(measure.without_data for measure in measures):
        return None
    if chosen.spec.task is None or request.checkpoint == "none":
        found = task_on(chosen.spec, chosen.name, chosen.settings, data_folder(request.data_dir))
        return found and task_among(found, chosen.classes)
    return None


def _matched(request: RunRequest, chosen: DataChoice, sets: Assignments, notes: list[str]) -> Assignments:
    """The settings with a number for each that is `auto:MODEL`; a note says which."""

    def find_task() -> Task:
        folder = data_folder(request.data_dir)
        return task_on(chosen.spec, chosen.name, chosen.settings, folder) or _open(request, chosen, request.split, None).task

    plain = without_auto(sets)
    found = {name: dict(values) for name, values in plain.scoped.items()}
    for argument in request.models:
        name, own = split_argument(argument)
        model = model_name(name, argument_card(name))
        given = {**sets.of_model([model, name], declared_settings(argument)), **own}
        given = {key: value for key, value in given.items() if value not in {f"{AUTO}{name}", f"{AUTO}{model}"}}  # not of itself
        values, said = matched(given, model, plain, chosen.name, find_task)
        if said:
            found.setdefault(argument, {}).update({key: value for key, value in values.items() if value != given[key]})
            notes += said
    return replace(plain, scoped=found)


def _computings(request: RunRequest, notes: list[str]) -> list[Computing]:
    """How each model computes, one after the other. Without a compiler, a note says that nothing is compiled."""
    compiled = request.compile
    if compiled and (why := without_compiler(request.device)):
        notes.append(f"nothing is compiled, because torch finds no compiler for {request.device.type} ({why})")
        compiled = False
    return [Computing(precision, compiled) for precision in PRECISIONS if precision in request.precisions]


def _bench(
    request: RunRequest, names: list[str], models: list[GlimpseModel[Any]], data: ImageData, published: CorruptedFolders | None
) -> Bench:
    return Bench(
        names=names,
        models=models,
        data=data,
        few=_few(data, request.limit or FEW),
        seed=request.seed,
        device=request.device,
        on_bad_image=request.on_bad_image,
        catalogue=registry(),
        batch_size=request.config.batch_size,
        published=published,
    )


def _prepared(measures: list[Measure], bench: Bench, notes: list[str]) -> list[Measure]:
    """The measures that suit the data. Others become a note, or raise an error if the user asked for them."""
    found = []
    for measure in measures:
        if why := measure.prepare(bench):
            notes.append(f"{why}: not measured")
        else:
            found.append(measure)
    return found


def _published(request: RunRequest, measures: list[Measure], task: Task) -> CorruptedFolders | None:
    """The folders of `--corrupted-dir`, checked for all requested corruptions; None without the option."""
    if request.corrupted_dir is None:
        return None
    corrupted = next((measure for measure in measures if isinstance(measure, CorruptedMeasure)), None)
    if corrupted is None:
        raise GlimpseZooError("--corrupted-dir expects corruptions to be measured: add some to --measure, or leave it out")
    return CorruptedFolders(Path(request.corrupted_dir), task, corrupted.names)


def _few(data: ImageData, images: int) -> ImageData:
    """The images for corruptions and attacks, held in memory if they fit."""
    few, size = limited(data, images), data.task.channels * data.task.image_size[0] * data.task.image_size[1]
    return Held(few) if len(few) * size <= HELD else few


def _check_split(request: RunRequest, described: DatasetSpec) -> None:
    """Raise `GlimpseZooError` if the data do not have the split."""
    splits = tuple(described.splits) or SPLITS
    if request.split not in splits:
        raise GlimpseZooError(f"--split expects one of {', '.join(splits)}, got {request.split!r}: {did_you_mean(request.split, splits)}")


def check_options(request: RunRequest) -> None:
    """Check the options that need neither model nor data. Raises `GlimpseZooError`."""
    engine = chosen_engine(request.engine)
    if request.ray_address and engine.kind != RAY:
        raise GlimpseZooError(
            f"--ray-address expects --engine ray, got {request.ray_address!r} with --engine {request.engine}: name that engine, or leave "
            "the address out"
        )
    if request.limit is not None and request.limit < 1:
        raise GlimpseZooError(f"--limit expects a number of images from 1, got {request.limit}: leave it out to measure all")
    size = request.batch_size
    if size != "auto" and not (is_number(size) and int(size) > 0):
        raise GlimpseZooError(f"--batch-size expects a number of images from 1, or 'auto', got {size!r}: it changes no result")
    if not request.models:
        raise GlimpseZooError("expected a model to measure, got none: try 'glimpsezoo run mgnet', or 'glimpsezoo list models'")
    if request.update_card and any(name.startswith(PREFIX) for name in (*request.models, request.checkpoint or "")):
        raise GlimpseZooError("--update-card expects cards in local folders, got one on the Hub: pull it first, and push it afterwards")
    wrong = [precision for precision in request.precisions if precision not in PRECISIONS]
    if wrong or not request.precisions:
        got = ",".join(request.precisions)
        raise GlimpseZooError(f"--precision expects float32, bf16 or both (float32,bf16), got {got!r}: {did_you_mean(got, PRECISIONS)}")
    if len(set(request.models)) < len(request.models):
        raise GlimpseZooError(
            f"expected each model once, got {' '.join(request.models)}: name each once, or with other settings (MODEL@KEY=VALUE)"
        )


def _names(choices: list[ModelChoice]) -> list[str]:
    """The models' names in results: the card's address or the model's name. Equal addresses are prefixed by their parent folder."""
    names = [choice.called for choice in choices]
    names = [
        "/".join(choice.card.folder.resolve().parts[-2:]) + choice.suffix if choice.card and names.count(name) > 1 else name
        for choice, name in zip(choices, names, strict=True)
    ]
    cards = [(choice.card.folder.resolve(), choice.suffix) for choice in choices if choice.card]
    if len(set(names)) < len(names) or len(set(cards)) < len(cards):
        raise GlimpseZooError(f"expected each model once, got {' '.join(c.name for c in choices)}: two of them are the same")
    return names


def _open(request: RunRequest, chosen: DataChoice, split: str, limit: int | None) -> ImageData:
    """A split of the data, or `limit` of its images. Raises `GlimpseZooError` if it is empty, as nothing would be measured."""
    folder, bad = data_folder(request.data_dir), request.on_bad_image
    data = open_data(chosen.spec, chosen.name, split, chosen.settings, folder, on_bad_image=bad, fresh=request.fresh)
    data = among(data, chosen.classes)
    if not len(data):
        remedy = "add training images" if split == "calibration" else "add some, or choose another --split"
        raise GlimpseZooError(f"expected images in the {split} split of {chosen.shown}, got none: {remedy}")
    return limited(data, limit)


def _some_classes(data: ImageData, chosen: DataChoice) -> list[str]:
    """A note for data that have some of the cards' classes only, or all in another order."""
    whole = data.data if isinstance(data, Limited) else data
    if not isinstance(whole, AmongClasses):
        return []
    if len(whole.numbers) == len(whole.task.classes):
        return [f"{chosen.shown} has the classes in another order: its labels are mapped by name"]
    return [f"{chosen.shown} has {len(whole.numbers):,} of the {len(whole.task.classes):,} classes: predictions are among all of them"]


def _changed_data(request: RunRequest, chosen: DataChoice, choices: list[ModelChoice]) -> list[str]:
    """A warning per card that was trained on this folder when it held other files: the splits may have moved.

    A split of a folder without split folders is every fifth or tenth of its files, so that one more file moves others between splits.
    """
    found, folder = [], data_folder(request.data_dir)
    for card in {choice.card.called: choice.card for choice in choices if choice.card}.values():
        then = card.config.trained.get("data")
        if then is not None and chosen.spec.local and card.config.data.name == chosen.shown:
            now = open_data(chosen.spec, chosen.name, "train", card.config.data.settings, folder, on_bad_image="skip").info.fingerprint
            if now != then:
                found.append(
                    f"warning: {chosen.shown} has changed since {card.called} was trained on it, so that images of its {request.split} "
                    "split may have been trained on: train it again, or keep the test images in a folder of their own (PATH/test)"
                )
    return found


def _calibration(request: RunRequest, chosen: DataChoice, measures: list[Measure], notes: list[str]) -> ImageData | None:
    """The images that thresholds are found on. If unavailable: None and a note, or an error if the user named a measure that needs them."""
    try:
        return _open(request, chosen, "calibration", CALIBRATION)
    except GlimpseZooError as error:
        notes.append(without_thresholds(measures, error))
        return None


def store_of(request: RunRequest) -> UnitStore:
    """Where finished units are kept: in `--store`; else in runs/, which all runs share, or in `--output` if runs/ cannot be written.

    Raises `GlimpseZooError` if that place does not answer or cannot be written.
    """
    if request.store is not None:
        store = UnitStore(request.store)
        store.check(write=not request.dry_run)
        return store
    try:
        check_writable(STORE)
    except GlimpseZooError:
        if request.output is None:
            raise
        return UnitStore(request.output / STORE.name)
    return UnitStore(STORE)


def _output(request: RunRequest) -> Path:
    """The folder for the results. Raises `GlimpseZooError` if it holds another run; with --force, that run's results are deleted."""
    folder = request.output or STORE.parent / request.id
    others = [path for path in folder.glob(f"*/{RESULT}") if _run_id(path) != request.id] if folder.is_dir() else []
    if others and not request.force:
        raise GlimpseZooError(
            f"expected a folder of this run, got {str(folder)!r} with the results of another: choose another --output, or --force"
        )
    check_writable(folder)
    for path in others:
        check_inside(folder, path.parent)
    for path in () if request.dry_run else others:
        path.unlink()
        path.with_name(ROWS).unlink(missing_ok=True)
        (folder / COMPARISON).unlink(missing_ok=True)
    return folder


def _run_id(path: Path) -> str | None:
    """The id of the run that wrote a result; None if the file is not a result."""
    try:
        return json_values(read_regular(path, JSON_SIZE))["run"]["id"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
