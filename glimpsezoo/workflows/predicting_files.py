"""`predict`: a model's predictions for image files and folders, one after the other. A file that is no image does not stop the others."""

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

from glimpsezoo.core.protocol import GlimpseModel
from glimpsezoo.data.config import task_of
from glimpsezoo.data.layout import IgnoredPaths, images_in
from glimpsezoo.data.preprocessing import FittedImage, Preprocessing
from glimpsezoo.errors import GlimpseZooError
from glimpsezoo.measures.calibration import given_rule
from glimpsezoo.measures.catalogue import EXITS
from glimpsezoo.run.parse import scopes
from glimpsezoo.workflows.predicting import Prediction, Predictor, preprocessing_like
from glimpsezoo.zoo.names import Assignments, argument_names, build_model, choose_model, declared_settings
from glimpsezoo.zoo.own_data import choose_data
from glimpsezoo.zoo.plugins import registry

OF_IMAGES = ("size", "crop", "orientation", "background")  # the settings of data that say how a file becomes what a model takes


@dataclass(frozen=True, kw_only=True)
class PredictRequest:
    """The arguments and options of `glimpsezoo predict`, but for the files."""

    model: str
    device: torch.device
    data: str | None = None
    """Whose classes and preprocessing a model without a card has."""
    sets: tuple[str, ...] = ()
    """`--set` texts."""
    checkpoint: str | None = None
    top: int = 5
    seed: int = 0


class FilePrediction(NamedTuple):
    """What is said of one file."""

    file: str
    prediction: Prediction | None
    """None for a file that is no image."""
    error: str = ""
    """Why there is no prediction, in one line."""


def predict_files(predictor: Predictor, files: Iterable[str], batch_size: int) -> Iterator[FilePrediction]:
    """The answers for files, in their order, `batch_size` at a time. Raises `GlimpseZooError` for what concerns all of them."""
    names = iter(files)
    while chunk := list(itertools.islice(names, batch_size)):
        fitted = [(name, _fitted(predictor.transform, name)) for name in chunk]
        found = predictor.answer([image for _, image in fitted if isinstance(image, FittedImage)])
        for name, image in fitted:
            yield FilePrediction(name, None, str(image)) if isinstance(image, GlimpseZooError) else FilePrediction(name, next(found))


def image_files(given: Iterable[str]) -> Iterator[str]:
    """Files as they are given; of a folder, the images that a class folder would have, sorted. Raises `GlimpseZooError` for one without."""
    for name in given:
        if not Path(name).is_dir():
            yield name
            continue
        inside = [str(path) for path in sorted(images_in(Path(name), IgnoredPaths()))]
        if not inside:
            raise GlimpseZooError(f"expected a folder with images, got {name!r} without one: name another")
        yield from inside


def predictor_of(request: PredictRequest) -> Predictor:
    """The model that answers, with its card's preprocessing. Raises `GlimpseZooError`."""
    sets = Assignments.parse(request.sets, argument_names([request.model]), scopes=scopes())
    sets.check_all_declared({request.model: declared_settings(request.model)})
    for scope, values in sets.scopes.items():
        if values and scope not in {"data", EXITS}:
            raise _useless(scope, next(iter(values)))
    rule = given_rule(sets, registry())
    chosen = choose_data([request.model], request.data, sets.of("data"), request.checkpoint)
    choice = choose_model(request.model, chosen.name, sets, request.checkpoint)
    task = choice.card.config.task.task() if choice.card else task_of(chosen.spec, chosen.settings)
    if task is None:
        raise GlimpseZooError(f"expected a card, or data whose classes are known, got {chosen.name!r}: train a card on them")
    task = chosen.sized(task)
    for key in sets.of("data"):
        if key not in OF_IMAGES:
            raise _useless("data", key)
    model: GlimpseModel[Any] = build_model(choice, task, checkpoint=request.checkpoint, seed=request.seed).to(request.device)
    transform = preprocessing_like(chosen.spec, chosen.settings, task)
    return Predictor(model, transform, top=request.top, exit_rule=rule, seed=request.seed)


def _useless(scope: str, key: str) -> GlimpseZooError:
    return GlimpseZooError(f"--set {scope}.{key} does not change predictions: leave it out")


def _fitted(transform: Preprocessing, name: str) -> FittedImage | GlimpseZooError:
    try:
        return transform.fit(name)
    except GlimpseZooError as error:
        return error
