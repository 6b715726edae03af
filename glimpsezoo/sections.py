"""From rows to the sections of result.json and the pairs of comparison.json: pure functions, and FLOPs without a data set."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from glimpsezoo.data.base import DataInfo, Example, ImageData
from glimpsezoo.errors import GlimpseZooError, one_line
from glimpsezoo.evaluation import Block, EvaluationConfig, Job, evaluate
from glimpsezoo.noise import Noise
from glimpsezoo.protocol import PHASES, GlimpseModel
from glimpsezoo.records import (
    Accuracy,
    AccuracyStep,
    Checkpoint,
    Data,
    Failure,
    Flops,
    FlopsStep,
    Inferred,
    Model,
    Pair,
    PaperCost,
    Phases,
    Spread,
    TrainedOn,
)
from glimpsezoo.specs import Provenance, Task
from glimpsezoo.statistics import Scores, classification, paired
from glimpsezoo.store import Measured, Rows


def accuracy_section(rows: Rows) -> Accuracy:
    """Accuracy at the last look and at every step, with 95 % intervals. Raises `GlimpseZooError` if there is no row."""
    _some(rows)
    estimates = classification(Scores(rows.hits, rows.top5, rows.nll, rows.confidence), rows.group)
    macs, regions = rows.macs_by_step.mean(0), rows.regions.mean(0)
    steps = tuple(
        AccuracyStep(step=t + 1, **found._asdict(), macs=float(macs[t]), regions_mean=float(regions[t]))
        for t, found in enumerate(estimates)
    )
    return Accuracy(**estimates[-1]._asdict(), steps=steps)


def flops_section(rows: Rows, measured: Sequence[Measured], *, images: str = "data") -> Flops:
    """The cost of what ran, an image: MACs, and FLOPs as two times their mean. Raises `GlimpseZooError` if there is no row.

    measured: of the units that the rows come from. The paper's cost is the mean over the images' last looks.
    """
    _some(rows)
    p50, p95 = np.quantile(rows.macs, [0.5, 0.95])
    mean, printed = float(rows.macs.mean()), measured[0].paper_macs
    paper = None
    if printed is not None:
        value = float(np.array(printed.by_step)[rows.exit_step - 1].mean())
        paper = PaperCost(convention=printed.convention, value=value)
    return Flops(
        n=len(rows),
        images="noise" if images == "noise" else "data",
        macs=Spread(mean=mean, p50=float(p50), p95=float(p95), max=float(rows.macs.max())),
        flops_mean=2 * mean,
        paper_macs=paper,
        phases=Phases(**dict(zip(PHASES, rows.macs_by_phase.mean(0).tolist(), strict=True))),
        steps=tuple(FlopsStep(step=t + 1, macs=macs) for t, macs in enumerate(rows.macs_by_step.mean(0).tolist())),
        uncounted=tuple(sorted({name for unit in measured for name in unit.uncounted})),
        missing=missing_operations(measured),
    )


def missing_operations(measured: Sequence[Measured]) -> tuple[str, ...]:
    """The operations without a formula that may hold products, of all these units: with any, their MACs are lower bounds."""
    return tuple(sorted({name for unit in measured for name in unit.missing}))


def _some(rows: Rows) -> None:
    if not len(rows):
        raise GlimpseZooError("expected at least one measured image, got none: see the errors of the result")


class NoiseImages(ImageData):
    """Images of uniform noise in [0, 1] of the size that a task declares, all of class 0: something to count costs on."""

    def __init__(self, task: Task, images: int, seed: int = 0) -> None:
        self.task, self.images, self.seed = task, images, seed
        self.info = DataInfo(
            name="noise", source="noise", revision=None, fingerprint=f"noise {images} {seed}", split="none", transform="none"
        )

    def __len__(self) -> int:
        return self.images

    def __getitem__(self, index: int) -> Example:
        shape = (self.task.channels, *self.task.image_size)
        pixels = Noise.of(self.seed, torch.tensor([index])).uniform(0, int(np.prod(shape)))
        return Example(pixels.reshape(shape), label=0, id=index, group=index)  # [1, C * H * W] -> [C, H, W]


def flops_of(model: GlimpseModel[Any], *, images: int = 8, config: EvaluationConfig | None = None) -> Flops:
    """The `flops` section without a data set, on a few images of noise of the size that the model's task declares.

    A model whose cost depends on what it sees costs on noise what noise makes it look at: the section says that it was noise.
    """
    found = evaluate(Job(model, type(model).__name__, NoiseImages(model.task, images)), config)
    if found.failed and found.failed[0].error:
        raise found.failed[0].error
    return flops_section(found.rows, found.measured, images="noise")


def compare(rows: Mapping[str, Rows]) -> tuple[Pair, ...]:
    """Every ordered pair of models by name, on the images that both were measured on, at their last looks.

    Raises `GlimpseZooError` if two have no image in common or do not agree on its label.
    """
    return tuple(_pair(a, rows[a], b, rows[b]) for a in rows for b in rows if a != b)


def _pair(a: str, rows_a: Rows, b: str, rows_b: Rows) -> Pair:
    ids, place_a, place_b = np.intersect1d(rows_a.id, rows_b.id, assume_unique=True, return_indices=True)
    same = np.array_equal(rows_a.label[place_a], rows_b.label[place_b]) and np.array_equal(rows_a.group[place_a], rows_b.group[place_b])
    if not len(ids) or not same:
        what = "other labels or groups" if len(ids) else "none in common"
        raise GlimpseZooError(f"expected {a} and {b} measured on the same images, got {what}: measure both on the same data and split")
    return paired(a, b, rows_a.hits[place_a, -1], rows_b.hits[place_b, -1], rows_a.group[place_a])


def model_section(
    model: GlimpseModel[Any], name: str, provenance: Provenance, checkpoint: Checkpoint | None, trained_on: TrainedOn | None = None
) -> Model:
    """The model under its name, as it was built."""
    return Model(
        name=name,
        plugin=provenance.distribution,
        plugin_version=provenance.version,
        config=model.config.model_dump(mode="json"),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        steps=model.steps,
        policy=model.policy,
        sees=model.sees,
        checkpoint=checkpoint,
        trained_on=trained_on,
    )


def data_section(
    data: ImageData, *, skipped: int = 0, conversions: Mapping[str, int] | None = None, settings: Mapping[str, Any] | None = None
) -> Data:
    """The split as it was opened.

    skipped: images that could not be read. conversions: what was done to stored pixels -> of how many. settings: what was set and decides
    its images.
    """
    section = _data(data.task, data.info.name, data.info, settings, examples=len(data), skipped=skipped)
    return section.model_copy(update={"conversions": dict(conversions or {})})


def converted(measured: Sequence[Measured]) -> dict[str, int]:
    """What was done to stored pixels -> of how many images of these units."""
    total: Counter[str] = Counter()
    for unit in measured:
        total.update(dict(unit.conversions))
    return dict(sorted(total.items()))


def declared_data_section(name: str, task: Task, settings: Mapping[str, Any] | None = None) -> Data:
    """A data set that was never opened, of which only the declared size and classes were used."""
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


def failures(measure: str, failed: Sequence[Block]) -> tuple[Failure, ...]:
    """The entries of `errors` for the units of a measure that failed."""
    return tuple(
        Failure(measure=measure, unit=block.id, images=(block.start, block.stop), error=one_line(block.error))
        for block in failed
        if block.error is not None
    )
