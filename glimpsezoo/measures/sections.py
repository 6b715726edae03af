"""The sections of result.json about the model, the data and failed units of a run."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from glimpsezoo.core.protocol import GlimpseModel
from glimpsezoo.data.base import DataInfo, ImageData
from glimpsezoo.errors import one_line
from glimpsezoo.evaluation.measuring import Unit
from glimpsezoo.evaluation.rows import Measured
from glimpsezoo.measures.result import Checkpoint, Data, Failure, Inferred, Model, TrainedOn
from glimpsezoo.specs import Provenance, Task


def model_section(
    model: GlimpseModel[Any], name: str, provenance: Provenance, checkpoint: Checkpoint | None, trained_on: TrainedOn | None = None
) -> Model:
    """The section about a model, as it was built."""
    return Model(
        name=name,
        plugin=provenance.distribution,
        plugin_version=provenance.version,
        config=model.config.model_dump(mode="json"),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        steps=model.steps,
        policy=model.policy,
        upper_bound=model.follows.needs_labels,
        sees=model.sees,
        checkpoint=checkpoint,
        trained_on=trained_on,
        precision=model.computing.precision,
        compiled=model.computing.compiled,
    )


def data_section(
    data: ImageData, *, skipped: int = 0, conversions: Mapping[str, int] | None = None, settings: Mapping[str, Any] | None = None
) -> Data:
    """The section about the opened split.

    skipped: number of unreadable images. conversions: what was done to stored pixels -> number of images. settings: those that determine
    the images.
    """
    section = _data(data.task, data.info.name, data.info, settings, examples=len(data), skipped=skipped)
    return section.model_copy(update={"conversions": dict(conversions or {})})


def converted(measured: Sequence[Measured]) -> dict[str, int]:
    """The conversions of stored pixels in these units -> number of images."""
    total: Counter[str] = Counter()
    for unit in measured:
        total.update(dict(unit.conversions))
    return dict(sorted(total.items()))


def declared_data_section(name: str, task: Task, settings: Mapping[str, Any] | None = None) -> Data:
    """The section about data that were not opened: only their declared size and classes were used."""
    return _data(task, name, None, settings)


def _data(task: Task, name: str, info: DataInfo | None, settings: Mapping[str, Any] | None, *, examples: int = 0, skipped: int = 0) -> Data:
    return Data(
        name=name,
        source=info.source if info else None,
        revision=info.revision if info else None,
        fingerprint=info.fingerprint if info else None,
        split=info.split if info else None,
        examples=examples,
        skipped=skipped,
        image_size=task.image_size,
        channels=task.channels,
        classes=len(task.classes),
        transform=info.transform if info else None,
        inferred=Inferred(**asdict(info.inferred)) if info and info.inferred else None,
        settings=None if settings is None else dict(settings),
    )


def failures(measure: str, failed: Sequence[Unit]) -> tuple[Failure, ...]:
    """The entries of `errors` for the units of a measure that failed."""
    return tuple(
        Failure(measure=measure, unit=unit.id, images=(unit.start, unit.stop), error=one_line(unit.error))
        for unit in failed
        if unit.error is not None
    )
