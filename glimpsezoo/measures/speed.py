"""How long a model takes on this device: median times of whole batches, with and without early exits. Never cached."""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from glimpsezoo.core.exits import ExitRule
from glimpsezoo.core.noise import Noise
from glimpsezoo.core.protocol import GlimpseModel
from glimpsezoo.core.rollout import rollout
from glimpsezoo.data.base import ImageData, OnBadImage
from glimpsezoo.data.loading import batches
from glimpsezoo.errors import GlimpseZooError, counted
from glimpsezoo.evaluation.environment import device_name
from glimpsezoo.evaluation.jobs import evaluating
from glimpsezoo.evaluation.plan import Planned, PlannedFinding
from glimpsezoo.measures.base import Bench, Done, Measure, sections_of
from glimpsezoo.measures.result import Result
from glimpsezoo.measures.shown import Cell, Column, Entry, Layout, Table
from glimpsezoo.schema import Section

BATCHES = (1, 16, 64)
REPEATS = 15  # after two runs that do not count


class SpeedBatch(Section):
    """Times of one batch."""

    batch: int
    """Images in it."""
    median_ms: float
    """Median time."""
    iqr_ms: float
    """Interquartile range."""
    images_per_s: float
    """By the median."""
    compacted: bool
    """Whether images that exited left the batch."""


class Speed(Section):
    """How long it takes."""

    device: str
    """What computed."""
    threads: int
    """Threads of torch."""
    batches: tuple[SpeedBatch, ...]
    """By size."""
    peak_memory: int | None
    """In bytes; null where the device cannot tell."""


class SpeedMeasure(Measure):
    """Latency of whole batches. It belongs to this machine and this moment, so it is never stored."""

    record = Speed

    def plan(self, bench: Bench) -> Iterator[Planned]:
        for index in range(len(bench.models)):
            find = partial(self._found, bench, index)
            yield PlannedFinding(
                index=index, key="speed", label="speed", passes=REPEATS + 2, images=sum(BATCHES), identity=None, kind=Speed, find=find
            )

    def _found(self, bench: Bench, index: int) -> Speed:
        """Also under the most expensive of its exit rules, if the run has any."""
        rules = bench.exit_rules.get(index)
        return speed_section(bench.models[index], bench.data, rules[-1] if rules else None, on_bad_image=bench.on_bad_image)

    def section(self, bench: Bench, index: int, done: Done) -> Speed | None:
        return next(iter(sections_of(done, index, Speed)), None)

    @classmethod
    def columns(cls, results: Sequence[Result], layout: Layout) -> list[Column]:
        """Latency of one image, and images per second of the largest batch."""
        if layout != "board":
            return []
        return [Column("ms, batch 1", _latency, higher=False), Column("images/s", _throughput)]

    @classmethod
    def footnotes(cls, results: Sequence[Result], layout: Layout) -> list[str]:
        return [f"{result.model.name}: {_speed_text(result.speed)}." for result in results if result.speed]

    @classmethod
    def card_text(cls, result: Result) -> list[str | Table]:
        return ["### Speed", _table(f"On {_device_text(result.speed)}.", [("", result.speed)])]

    @classmethod
    def tables(cls, entries: Sequence[Entry]) -> dict[str, list[Table]]:
        found = [(entry.name, entry.result.speed) for entry in entries if entry.result.speed]
        devices = ", ".join(dict.fromkeys(_device_text(speed) for _, speed in found))
        return {"Speed": [_table(f"Median time of a batch, on {devices}.", found)]} if found else {}


def _table(caption: str, found: Sequence[tuple[str, Speed]]) -> Table:
    """A row per batch."""
    headings = ("model", "batch", "early exits", "median ms", "interquartile range ms", "images/s")
    rows = [
        (Cell(name), Cell(str(each.batch), each.batch), Cell("yes" if each.compacted else "no"),
         Cell(f"{each.median_ms:.2f}", each.median_ms), Cell(f"{each.iqr_ms:.2f}", each.iqr_ms),
         Cell(f"{each.images_per_s:.0f}", each.images_per_s))
        for name, speed in found for each in speed.batches
    ]  # fmt: skip
    return Table(caption, headings, tuple(rows), frozenset({"model", "early exits"}))


def _device_text(speed: Speed) -> str:
    return f"{speed.device} with {counted(speed.threads, 'thread')}"


def _speed_text(speed: Speed) -> str:
    """Median latencies of the batches, with early exits where they were measured."""
    parts = [f"batch {each.batch} {each.median_ms:.3g} ms{' with early exits' if each.compacted else ''}" for each in speed.batches]
    return f"{', '.join(parts)} (median; {_device_text(speed)})"


def _latency(result: Result, _: int) -> Cell:
    found = [each for each in result.speed.batches if each.batch == 1 and not each.compacted] if result.speed else []
    return Cell(f"{found[0].median_ms:.2f}", found[0].median_ms) if found else Cell("")


def _throughput(result: Result, _: int) -> Cell:
    found = [each for each in result.speed.batches if not each.compacted] if result.speed else []
    best = max(found, key=lambda each: each.batch, default=None)
    return Cell(f"{best.images_per_s:.0f}", best.images_per_s) if best else Cell("")


def speed_section(
    model: GlimpseModel[Any],
    data: ImageData,
    rule: ExitRule | None,
    *,
    sizes: Sequence[int] = BATCHES,
    on_bad_image: OnBadImage = "fail",
) -> Speed:
    """Times of the first images of `data` on the model's device; under `rule` too, with images that exit leaving the batch.

    on_bad_image: 'fail' raises `BadImageError`; 'skip' takes the next image instead, and raises `GlimpseZooError` where there is none.
    """
    device = model.device
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    found = []
    with evaluating(model), torch.no_grad():
        for size in sizes:
            images, ids = _first(data, size, on_bad_image)
            images, noise = images.to(device), Noise.of(0, ids.to(device))
            found += [_timed(model, images, noise, each) for each in ([None, rule] if rule else [None])]
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
    return Speed(device=device_name(device), threads=torch.get_num_threads(), batches=tuple(found), peak_memory=peak)


def _first(data: ImageData, size: int, on_bad_image: OnBadImage) -> tuple[Float[Tensor, "B C H W"], Int[Tensor, "B"]]:
    """The first `size` images that can be read, or all of them, and their ids."""
    images, ids = [], []
    for batch in batches(data, 0, len(data), size, 0, on_bad_image=on_bad_image):
        images += batch.images.unbind()
        ids += batch.ids.unbind()
        if len(ids) >= size:
            break
    if not ids:
        raise GlimpseZooError(f"expected images that can be read, got none among {len(data)}: mend the data to time a model on them")
    return torch.stack(images[:size]), torch.stack(ids[:size])


def seconds_of(work: Callable[[], object], device: torch.device) -> float:
    """How long `work` takes on a device that was idle before: an accelerator is waited for, which a call alone does not do."""
    began = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began


def _timed(model: GlimpseModel[Any], images: Tensor, noise: Noise, rule: ExitRule | None) -> SpeedBatch:
    times = [1000 * seconds_of(lambda: rollout(model, images, noise=noise, exit_rule=rule), images.device) for _ in range(REPEATS + 2)]
    low, median, high = statistics.quantiles(times[2:], n=4)
    return SpeedBatch(
        batch=len(images), median_ms=median, iqr_ms=high - low, images_per_s=1000 * len(images) / median, compacted=rule is not None
    )
