"""The Python interface: models and data by name, measured and shared."""

import copy
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from glimpsezoo.core.computing import without_compiler
from glimpsezoo.core.exits import ExitRule, Fixed
from glimpsezoo.core.feedforward import FeedForward
from glimpsezoo.core.protocol import Computing, GlimpseModel, Precision
from glimpsezoo.data.among import among
from glimpsezoo.data.base import ImageData
from glimpsezoo.data.limited import limited
from glimpsezoo.data.loading import open_data as open_split
from glimpsezoo.data.preprocessing import AnyImage
from glimpsezoo.errors import GlimpseZooError
from glimpsezoo.evaluation.environment import usable_device
from glimpsezoo.evaluation.jobs import Job
from glimpsezoo.evaluation.measuring import EvaluationConfig, run_job
from glimpsezoo.evaluation.rows import Rows
from glimpsezoo.measures.accuracy import Accuracy, accuracy_section
from glimpsezoo.measures.flops import Flops, flops_section
from glimpsezoo.measures.result import NEVER_TRAINED, departure
from glimpsezoo.measures.sections import data_section
from glimpsezoo.workflows.predicting import Prediction, transform_of
from glimpsezoo.workflows.predicting import predict as predict_with
from glimpsezoo.workflows.sharing import from_pretrained, push_to_hub, save_pretrained
from glimpsezoo.zoo.card_config import UNKNOWN
from glimpsezoo.zoo.models import create_model, list_models, load
from glimpsezoo.zoo.names import data_folder, data_spec
from glimpsezoo.zoo.own_data import DEFAULT_DATA, own_settings, trained_on

__all__ = [
    "EvaluationResult",
    "FeedForward",
    "GlimpseModel",
    "create_model",
    "evaluate",
    "list_models",
    "load",
    "open_data",
    "predict",
    "transform_of",
]

# The core only declares these methods, for type checkers, because it must not depend on cards and the Hub.
for _name, _method in {
    "predict": predict_with,
    "from_pretrained": classmethod(from_pretrained),
    "save_pretrained": save_pretrained,
    "push_to_hub": push_to_hub,
}.items():
    setattr(GlimpseModel, _name, _method)


def open_data(name: str, split: str = "test", *, data_dir: str | Path | None = None, **settings: Any) -> ImageData:
    """Open one split of any data set that `--data` takes: `digits`, `folder:photos`, `hf:OWNER/NAME@REVISION`, a plugin's.

    data_dir: a folder to read the data from, as for `--data-dir`. settings: what `--set data.KEY` takes, as text or typed.
    Raises `GlimpseZooError`, as `run` does, for an unknown name, split or setting, and for data that cannot be read.

    >>> import glimpsezoo as gz
    >>> digits = gz.open_data("digits")
    >>> len(digits), digits[0].image.shape, digits.task.classes[:3]
    (2980, torch.Size([1, 64, 64]), ('0', '1', '2'))
    """
    return open_split(data_spec(name), name, split, settings, data_folder(data_dir))


def predict(
    name: str,
    images: AnyImage | Iterable[AnyImage],
    *,
    top: int = 5,
    exit_rule: ExitRule | None = None,
    seed: int = 0,
    batch_size: int = 32,
    device: str | torch.device = "cpu",
) -> list[Prediction]:
    """What the trained model called `name` says of one image or of several: `load(name).predict(images, ...)`.

    To predict more than once, load the model once, and call its method `predict`, which says what images may be.

    >>> import glimpsezoo as gz
    >>> digits = gz.open_data("digits")
    >>> [found.label for found in gz.predict("cnn4.digits", [digits[0].image, digits[10].image])]
    ['0', '2']
    """
    return load(name).to(usable_device(device)).predict(images, top=top, exit_rule=exit_rule, seed=seed, batch_size=batch_size)


@dataclass(frozen=True)
class EvaluationResult:
    """The outcome of `evaluate`."""

    accuracy: Accuracy
    """The section `accuracy` of a result.json."""
    flops: Flops
    """The section `flops` of a result.json."""
    departure: str
    """How the data differ from those that the model was trained on, in words; empty if they do not."""
    rows: Rows = field(repr=False)
    """What the sections are computed from: one row per image."""


def evaluate(
    model: GlimpseModel[Any],
    data: str | ImageData | None = None,
    *,
    split: str | None = None,
    data_dir: str | Path | None = None,
    limit: int | None = None,
    exit_rule: ExitRule | None = None,
    device: str | torch.device | None = None,
    batch_size: int | Literal["auto"] = "auto",
    precision: Precision = "float32",
    compile: bool = False,
) -> EvaluationResult:
    """Measure a model on a data set as `glimpsezoo run` does: accuracy with 95 % intervals and cost, at every step. Nothing is written.

    data: the name of a data set, whose `split` is opened ('test' by default), or a split that is already open (see `open_data`). They may
    have some of the model's classes only; predictions are among all of them. None takes the data of the model's card, or the digits if it
    has no card. Data by name have the settings that `run` gives them: the card's own, if the card was trained on these data.
    data_dir: a folder to read data by name from, as for `--data-dir`. limit: measure a fixed stratified choice of this many images.
    exit_rule: may end the run of an image early; none by default. device: where the model is moved to; None leaves it where it is.
    precision: of convolutions and products, as for `--precision`. compile: measure a copy that is compiled, as for `--compile`.
    Warns if the model was never trained at this image size, and if nothing can be compiled. Raises `GlimpseZooError` for unknown names
    and for data with other classes than the model's, and whatever the model raises.

    >>> import glimpsezoo as gz
    >>> model = gz.load("mgnet.digits")
    >>> whole = gz.evaluate(model, "digits", limit=100)
    >>> early = gz.evaluate(model, "digits", limit=100, exit_rule=gz.Confidence(0.9))
    >>> early.flops.macs.mean < whole.flops.macs.mean
    True
    >>> whole.accuracy.top1.n, [step.step for step in whole.accuracy.steps]
    (100, [1, 2, 3])
    """
    images = among(_opened(model, data, split, data_dir), model.task.classes)
    trained = trained_on(model.card) if model.card else None
    other = departure(model.card.name if model.card else type(model).__name__, trained, data_section(images))
    if NEVER_TRAINED in other:
        warnings.warn(other, stacklevel=2)
    config = EvaluationConfig(batch_size=batch_size, device=usable_device(device) if device is not None else None)
    if compile and (why := without_compiler(config.device or model.device)):
        warnings.warn(f"nothing is compiled: {why}", stacklevel=2)
        compile = False
    with _computing(model, Computing(precision, compile)) as subject:
        found = run_job(Job(subject, type(model).__name__, limited(images, limit), exit_rule=exit_rule or Fixed()), config)
    for unit in found.failed:
        if unit.error is not None:
            raise unit.error
    return EvaluationResult(accuracy_section(found.rows), flops_section(found.rows, found.measured), other, found.rows)


@contextmanager
def _computing(model: GlimpseModel[Any], computing: Computing) -> Iterator[GlimpseModel[Any]]:
    """The model, computing in this way. A compiled one is a copy: its weights are frozen, and those of the model may change."""
    subject = copy.deepcopy(model) if computing.compiled else model
    before, subject.computing = model.computing, computing
    try:
        yield subject
    finally:
        subject.computing = before


def _opened(model: GlimpseModel[Any], data: str | ImageData | None, split: str | None, data_dir: str | Path | None) -> ImageData:
    """The split that is open; or one of the named data, or of the data that the model was trained on."""
    if isinstance(data, ImageData) and data_dir is not None:
        raise GlimpseZooError(f"expected data by name to read from data_dir={str(data_dir)!r}, got data that are open: leave data_dir out")
    if isinstance(data, ImageData):
        if split not in (None, data.info.split):
            raise GlimpseZooError(
                f"expected data by name to open split={split!r}, got the {data.info.split} split, which is open: leave split out"
            )
        return data
    own = model.card.data.name if model.card and model.card.data.name != UNKNOWN else None
    if data is None and model.card and own is None:
        raise GlimpseZooError(f"card {model.card.name!r} does not say which data it was trained on: name them (data=...)")
    name = data or own or DEFAULT_DATA
    return open_data(name, "test" if split is None else split, data_dir=data_dir, **(own_settings(model.card, name) if model.card else {}))
