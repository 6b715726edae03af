"""The Python interface: list, load, make and measure models."""

import fnmatch
import warnings
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from glimpsezoo.cards import UNKNOWN, card_paths
from glimpsezoo.data.base import ImageData
from glimpsezoo.data.limited import limited
from glimpsezoo.data.loading import open_data
from glimpsezoo.errors import GlimpseZooError
from glimpsezoo.evaluation import EvaluationConfig, Job
from glimpsezoo.evaluation import evaluate as evaluate_job
from glimpsezoo.exits import ExitRule, Fixed
from glimpsezoo.own_data import DEFAULT_DATA, own_settings, trained_on
from glimpsezoo.plugins import registry
from glimpsezoo.protocol import GlimpseModel
from glimpsezoo.records import NEVER_TRAINED, Accuracy, Flops, departure
from glimpsezoo.resolve import Assignments, build_model, choose_model, data_spec
from glimpsezoo.sections import accuracy_section, data_section, flops_section
from glimpsezoo.specs import ModelSpec, Task
from glimpsezoo.store import Rows


def list_models(pattern: str = "*") -> list[str]:
    """The names of trained cards (`mgnet.digits`) and of the models that plugins have (`mgnet`, `timm:NAME`), sorted.

    pattern: with wildcards (*, ?, [abc]).

    >>> import glimpsezoo as gz
    >>> "cnn4.digits" in gz.list_models("cnn4*")
    True
    """
    names = [spec.name + ("NAME" if spec.prefix else "") for spec in registry().all(ModelSpec)]
    return sorted(name for name in {*names, *card_paths()} if fnmatch.fnmatchcase(name, pattern))


def load(name: str, *, data: str | None = None, **settings: Any) -> GlimpseModel[Any]:
    """A trained model in eval mode, on the CPU, for images of the size that it was trained on.

    name: a card (`mgnet.digits`), a card's folder, or a model, of which the card for `data` (the digits) is taken. settings: what `--set`
    takes, where it does not contradict the weights. Raises `GlimpseZooError` if there is no such card, or its weights are not as they
    should.

    >>> import torch, glimpsezoo as gz
    >>> model = gz.load("mgnet.digits")
    >>> gz.rollout(model, torch.zeros(2, 1, 64, 64)).logits.shape
    torch.Size([2, 10])
    """
    choice = choose_model(name, data or DEFAULT_DATA, Assignments(scoped={name: settings}), None)
    assert choice.card is not None  # or it would have raised
    return build_model(choice, choice.card.config.task.task())


def create_model(name: str, *, task: Task | None = None, data: str | None = None, seed: int = 0, **settings: Any) -> GlimpseModel[Any]:
    """An untrained model in eval mode, on the CPU, for a `task`, or for the one that the data set `data` declares.

    seed: decides the weights. settings: what `--set` takes; what is left out has the model's defaults for `data`.
    Raises `GlimpseZooError` for an unknown name or setting, and if neither a task nor data that declare one are given.

    >>> import glimpsezoo as gz
    >>> model = gz.create_model("mgnet", data="digits", glimpses=2)
    >>> model.steps
    2
    """
    task = task or (data_spec(data).task if data else None)
    if task is None:
        raise GlimpseZooError(f"expected a task, or the name of data that declare one, got {data!r}: give create_model a task")
    return build_model(choose_model(name, data or "", Assignments(scoped={name: settings}), "none"), task, seed=seed)


@dataclass(frozen=True)
class EvaluationResult:
    """What `evaluate` measured: the sections `accuracy` and `flops` of a result.json, and the rows they come from, one an image.

    departure: what the data have of their own beside those that the model was trained on; '' if nothing.
    """

    accuracy: Accuracy
    flops: Flops
    departure: str
    rows: Rows = field(repr=False)


def evaluate(
    model: GlimpseModel[Any],
    data: str | ImageData | None = None,
    *,
    split: str = "test",
    limit: int | None = None,
    exit_rule: ExitRule | None = None,
    device: str | torch.device | None = None,
    batch_size: int | Literal["auto"] = "auto",
) -> EvaluationResult:
    """Measure a model on a data set: accuracy with 95 % intervals and cost, for every step, as `glimpsezoo run` does; nothing is written.

    data: a data set's name, of which `split` is opened, or a split that is open; None is the data of the model's card, or the digits for
    a model without one. Data by name have the settings that `run` gives them: the card's own if the data are. limit: a fixed stratified
    choice of so many images.
    exit_rule: ends an image's looking early; none by default. device: the model is moved there; None leaves it where it is.
    Warns of a size that the model was never trained at. Raises `GlimpseZooError` for unknown names and for data of other classes than the
    model's, and whatever the model raises.

    >>> import glimpsezoo as gz
    >>> model = gz.load("mgnet.digits")
    >>> whole = gz.evaluate(model, "digits", limit=100)
    >>> early = gz.evaluate(model, "digits", limit=100, exit_rule=gz.Confidence(0.9))
    >>> early.flops.macs.mean < whole.flops.macs.mean
    True
    >>> whole.accuracy.top1.n, [step.step for step in whole.accuracy.steps]
    (100, [1, 2, 3])
    """
    images = data if isinstance(data, ImageData) else _opened(model, data, split)
    trained = trained_on(model.card) if model.card else None
    other = departure(model.card.name if model.card else type(model).__name__, trained, data_section(images))
    if NEVER_TRAINED in other:
        warnings.warn(other, stacklevel=2)
    job = Job(model, type(model).__name__, limited(images, limit), exit_rule=exit_rule or Fixed())
    config = EvaluationConfig(batch_size=batch_size, device=torch.device(device) if device is not None else None)
    found = evaluate_job(job, config)
    for block in found.failed:
        if block.error is not None:
            raise block.error
    return EvaluationResult(accuracy_section(found.rows), flops_section(found.rows, found.measured), other, found.rows)


def _opened(model: GlimpseModel[Any], data: str | None, split: str) -> ImageData:
    """A split of the data by name, or of the model's own."""
    own = model.card.data.name if model.card and model.card.data.name != UNKNOWN else None
    if data is None and model.card and own is None:
        raise GlimpseZooError(f"card {model.card.name!r} does not say which data it was trained on: name them (data=...)")
    name = data or own or DEFAULT_DATA
    return open_data(data_spec(name), name, split, own_settings(model.card, name) if model.card else {})
