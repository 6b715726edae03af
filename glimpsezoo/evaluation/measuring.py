"""Measures jobs. Accuracy, cost and exits come out of the same trace.

    job = Job(model, "mgnet", data)
    found = run_job(job, store=UnitStore(folder))
    accuracy_section(found.rows), flops_section(found.rows, found.measured)

The store keeps each unit as soon as it is complete: an interrupted run loses at most the unit that was being measured.
"""

import dataclasses
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from glimpsezoo.conditions.base import BrokenConditionError, Clean, Condition
from glimpsezoo.core.exits import Fixed
from glimpsezoo.core.inference import evaluating, inference
from glimpsezoo.core.macs import MacTable, meter_of
from glimpsezoo.core.noise import Noise
from glimpsezoo.core.protocol import PHASES
from glimpsezoo.core.rollout import Record, rollout
from glimpsezoo.data.base import Batch, ImageData, OnBadImage
from glimpsezoo.data.wordnet import titled
from glimpsezoo.errors import GlimpseZooError
from glimpsezoo.evaluation.environment import channels_last, device_name
from glimpsezoo.evaluation.jobs import Job, Span, identity_of, spans_of
from glimpsezoo.evaluation.memory import BatchSize, Parts
from glimpsezoo.evaluation.reading import Loading, Reader
from glimpsezoo.evaluation.rows import Measured, PaperCosts, Rows, StoredUnit
from glimpsezoo.evaluation.store import UnitStore
from glimpsezoo.evaluation.ties import Closest
from glimpsezoo.hashing import unit_id

_POLL = 0.5  # seconds between checks for units that another process is measuring
Known = Mapping[str, StoredUnit | Exception]
"""By the ids of units: the content, or why a unit failed."""
_NOTHING: Known = {}


@dataclass(frozen=True)
class EvaluationConfig:
    """How to measure. Only the seed affects the outcome."""

    batch_size: BatchSize = "auto"
    device: torch.device | None = None
    """The model is moved there, and its convolutions become channels-last; None leaves it where it is."""
    workers: int = 0
    """Processes that decode images."""
    seed: int = 0
    on_bad_image: OnBadImage = "fail"
    """'fail' raises `BadImageError`; 'skip' leaves the image out and records it."""
    fresh: bool = False
    """Whether stored units are ignored."""


@dataclass(frozen=True)
class Unit:
    """One unit of a job, images start..stop-1: finished or failed."""

    start: int
    stop: int
    id: str
    """Name in the store; '' without a store."""
    content: StoredUnit | None = None
    """The rows; None if the unit failed."""
    reused: bool = False
    """Whether it was already in the store."""
    error: Exception | None = None
    """Why the unit failed."""


@dataclass(frozen=True)
class Evaluation:
    """All units of a job."""

    rows: Rows
    """Rows of the finished units, in the order of the data."""
    measured: tuple[Measured, ...]
    """One entry per finished unit."""
    failed: tuple[Unit, ...]
    done: int
    """Number of units that were measured now."""
    reused: int
    """Number of units that were already in the store."""


def run_job(
    job: Job,
    config: EvaluationConfig | None = None,
    store: UnitStore | None = None,
    *,
    on_images: Callable[[int], None] | None = None,
    known: Known = _NOTHING,
) -> Evaluation:
    """Measure all units of a job. on_images: called after every batch with the number of images finished so far. known: what others have
    measured of it for this run, by the ids of units.

    Raises `GlimpseZooError` for errors that the user can fix, and if no image could be measured. Any other error fails only its unit, and
    is kept in `failed`.
    """
    units = sorted(run_units(job, config, store, on_images=on_images, known=known), key=lambda unit: unit.start)
    finished = [unit for unit in units if unit.content is not None]
    contents = [unit.content for unit in finished if unit.content is not None]
    rows = Rows.concatenate([Rows.empty(job.budget), *(content.rows for content in contents)])
    if len(np.unique(rows.id)) != len(rows):
        raise GlimpseZooError(f"expected a unique id for every example of {job.data.info.name}, got an id twice: correct the ids")
    reused = sum(unit.reused for unit in finished)
    failed = tuple(unit for unit in units if unit.content is None)
    if not len(rows) and not failed:
        raise GlimpseZooError(_nothing(job.data, [line for content in contents for line in content.measured.skipped]))
    return Evaluation(rows, tuple(content.measured for content in contents), failed, len(finished) - reused, reused)


def run_units(
    job: Job,
    config: EvaluationConfig | None = None,
    store: UnitStore | None = None,
    *,
    on_images: Callable[[int], None] | None = None,
    known: Known = _NOTHING,
    spans: Sequence[Span] | None = None,
    reader: Reader | None = None,
) -> Iterator[Unit]:
    """Yield every unit of a job as soon as it is finished. Stored units are reused; units that another process is measuring are awaited.

    known: as in `run_job`. spans: the units to take, if not all. reader: reads the images; one that is kept goes on where it was.
    """
    config = config or EvaluationConfig()
    _check(job, config)
    if config.device is not None:
        job.model.to(config.device)
    channels_last(job.model)
    with evaluating(job.model):
        yield from _RunningJob(job, config, store, on_images or (lambda _: None), known, reader or Reader()).units(spans)


def stored_unit(name: str, config: EvaluationConfig, store: UnitStore | None) -> StoredUnit | None:
    """A unit in the store; None if there is none, or if it is to be measured again."""
    unit = store.read(name) if store and not config.fresh else None
    return None if unit and unit.measured.skipped and config.on_bad_image == "fail" else unit  # measuring again raises the error


class _Seen(NamedTuple):
    """What a unit keeps of a batch until its rows are made, which takes many small operations: once per unit, not once per batch."""

    ids: Int[Tensor, "B"]
    groups: Int[Tensor, "B"]
    labels: Int[Tensor, "B"]
    logits: Float[Tensor, "B T C"]
    regions: Int[Tensor, "B T"]
    macs: MacTable
    finite: Bool[Tensor, ""]
    """Whether all pixels are that the model saw."""


def _rows_of(seen: Sequence[_Seen], job: Job) -> Rows:
    """The rows of all batches of a job. Raises FloatingPointError if logits are not finite."""
    ids, groups, labels, logits, regions, tables, finite = zip(*seen, strict=True)
    macs, label = MacTable.concatenate(tables), torch.cat(labels)
    log_p = torch.cat(logits).float().log_softmax(-1)  # [N, T, C]
    best, order = log_p.topk(min(5, log_p.shape[-1]), -1)  # [N, T, 5]
    target = label[:, None, None].to(order.device)  # [N, 1, 1]
    nll = -log_p.gather(2, target.expand(-1, log_p.shape[1], 1)).squeeze(2)  # [N, T]
    if not nll.isfinite().all():
        given = "" if all(finite) else f", because the images are not, as {_called(job.condition)} gave them"
        raise FloatingPointError(f"the model's logits are not finite{given}")
    ran = macs.stopped_at(log_p.shape[1], classify_every_step=job.exit_rule.reads)
    by_phase = torch.stack([ran[phase] for phase in PHASES], 1)  # [N, 5]
    columns = {
        "id": torch.cat(ids),
        "group": torch.cat(groups),
        "label": label,
        "prediction": order[:, :, 0],
        "confidence": best[:, :, 0].exp(),
        "nll": nll,
        "top5": (order == target).any(-1),
        "macs_by_step": macs.by_step(),
        "regions": torch.cat(regions),
        "macs": by_phase.sum(1),
        "macs_by_phase": by_phase,
        "exit_step": macs.last_step,
    }
    return Rows(**{name: column.cpu().numpy() for name, column in columns.items()})


class _RunningJob:
    """One job in progress."""

    def __init__(
        self, job: Job, config: EvaluationConfig, store: UnitStore | None, on_images: Callable[[int], None], known: Known, reader: Reader
    ) -> None:
        self.job, self.config, self.store, self.on_images, self.known, self.reader = job, config, store, on_images, known, reader
        self.device = job.model.device
        self.parts = Parts.of(config.batch_size, job.data.task, self.device)
        self.until = 0  # where the last unit ends that is asked for
        self.meter = meter_of(job.model)
        self.identity = identity_of(job, config.seed) if store else {}
        self.images = 0  # number of images in finished units
        costs = [job.model.paper_macs(step) for step in range(1, job.budget + 1)]
        printed = [cost for cost in costs if cost is not None]
        whole = len(printed) == len(costs)
        self.paper = PaperCosts(convention=printed[0].convention, by_step=tuple(cost.value for cost in printed)) if whole else None

    def units(self, spans: Sequence[Span] | None) -> Iterator[Unit]:
        waiting = spans_of(self.job) if spans is None else list(spans)
        self.until = max((stop for _, stop in waiting), default=0)
        while waiting:
            busy = []
            for start, stop in waiting:
                if unit := self._take(start, stop):
                    self.images += stop - start
                    self.on_images(self.images)
                    yield unit
                else:
                    busy.append((start, stop))
            if len(busy) == len(waiting):
                time.sleep(_POLL)
            waiting = busy

    def _take(self, start: int, stop: int) -> Unit | None:
        """One unit, from the store or measured now; None while another process is measuring it."""
        name = unit_id(self.identity, start, stop) if self.store else ""
        if (found := self.known.get(name)) is not None:
            failed = isinstance(found, Exception)
            return Unit(start, stop, name, error=found) if failed else Unit(start, stop, name, found)
        if content := stored_unit(name, self.config, self.store):
            return Unit(start, stop, name, content, reused=True)
        with self._claim(name) as mine:
            if not mine:
                return None
            if content := stored_unit(name, self.config, self.store):  # another process finished it just before it was claimed
                return Unit(start, stop, name, content, reused=True)
            try:
                content = self._measured(start, stop)
            except Exception as error:  # a plugin may fail in any way: only this unit fails
                if isinstance(error, GlimpseZooError) and not isinstance(error, BrokenConditionError):
                    raise
                return Unit(start, stop, name, error=error)
            if self.store:
                self.store.write(name, content)
            return Unit(start, stop, name, content)

    def _claim(self, name: str) -> AbstractContextManager[bool]:
        return self.store.claim(name) if self.store else nullcontext(True)

    def _measured(self, start: int, stop: int) -> StoredUnit:
        while True:
            try:
                return self._once(start, stop)
            except (MemoryError, RuntimeError) as error:
                self.parts.halve(error)

    def _once(self, start: int, stop: int) -> StoredUnit:
        began = time.perf_counter()
        seen, skipped, conversions = list[_Seen](), [], Counter[str]()
        self.closest = Closest(self.job.model, self.job.budget, self.config.seed, known=self._repeatable())
        how = Loading(self.parts.size, self.config.workers, self.config.on_bad_image)
        for batch in self.reader.unit(self.job.data, start, stop, how, until=self.until):
            skipped += batch.skipped
            conversions.update(dict(batch.conversions))
            if len(batch.ids):
                seen.append(self._batch(batch))
                self.on_images(self.images + sum(len(each.ids) for each in seen))
        rows = _rows_of(seen, self.job) if seen else Rows.empty(self.job.budget)
        rows = dataclasses.replace(rows, tie=self.closest.ties(rows.id))
        measured = Measured(
            device=device_name(self.device),
            batch_size=self.parts.size,
            workers=self.config.workers,
            seconds=time.perf_counter() - began,
            uncounted=tuple(sorted(self.meter.uncounted)),
            paper_macs=self.paper,
            skipped=tuple(skipped),
            conversions=tuple(sorted(conversions.items())),
            missing=tuple(sorted(self.meter.missing)),
        )
        return StoredUnit(rows, measured)

    def _repeatable(self) -> bool:
        """Whether a plain rollout of the model does what the job does: ties are counted for clean images without exits."""
        job = self.job
        plain = isinstance(job.condition, Clean) and isinstance(job.exit_rule, Fixed)
        return plain and job.model.computing == type(job.model.computing)()

    def _batch(self, batch: Batch) -> _Seen:
        model, ids = self.job.model, batch.ids.to(self.device)
        before = batch.images.to(self.device)
        noise = Noise.of(self.config.seed, ids) if model.stochastic else Noise(ids)  # which nothing reads
        labels = batch.labels.to(self.device)
        images = self.job.condition.apply(before, labels, ids, model)
        with inference(model):
            trace = rollout(
                model,
                images,
                steps=self.job.steps,
                exit_rule=self.job.exit_rule,
                policy=model.follows.told(noise, labels),
                choose=self.job.condition.choices(before, noise, model),
                noise=noise,
                record=Record(every_step=True, meter=self.meter),
            )
        assert trace.macs is not None
        self.closest.add(ids, images, trace.logits)
        # What came from a worker holds a file descriptor as long as it is kept.
        ids, groups, labels = batch.ids.clone(), batch.groups.clone(), batch.labels.clone()
        return _Seen(ids, groups, labels, trace.logits_by_step(), trace.regions_by_step(), trace.macs, images.isfinite().all())


def _called(condition: Condition) -> str:
    """A condition in a message.

    >>> _called(Clean())
    'clean'
    """
    severity = condition.parameters.get("severity")
    return condition.name if severity is None else f"{condition.name}:{severity}"


def _nothing(data: ImageData, skipped: list[str]) -> str:
    """Why no image was measured: there are none, or none can be read."""
    split = f"the {data.info.split} split of {data.info.name}"
    if not skipped:
        return f"expected images in {split}, got none: add some, or choose another split"
    return f"expected images that can be read in {split}, got none among {len(skipped)} (the first: {skipped[0]}): repair them"


def _check(job: Job, config: EvaluationConfig) -> None:
    if config.batch_size != "auto" and config.batch_size < 1:
        raise GlimpseZooError(f"expected a batch size of at least 1, or 'auto', got {config.batch_size}")
    if not 1 <= job.budget <= job.model.steps:
        raise GlimpseZooError(f"expected a budget of 1 to {job.model.steps} steps for {job.name}, got {job.steps}")
    own, asked = job.model.task, job.data.task
    if own.classes != asked.classes:
        wanted, got = (f"{len(task.classes)} classes ({', '.join(map(titled, task.classes[:3]))}, ...)" for task in (own, asked))
        raise GlimpseZooError(f"expected data of the model's {wanted}, got {got}: measure it on data with these classes")
