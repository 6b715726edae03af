"""How long a model takes on this device, and how much memory: whole batches, with and without early exits. Never cached.

The model takes the images as the data yield them, at their own size: what it does to them (resizing, cropping, gathering those that are
left) is in the time; reading them, and moving them to the device, is not. Every round has other images, on which all variants are timed
one after the other, so that whatever else the machine does meets all of them.
"""

import statistics
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Annotated, Any, Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field, model_validator
from torch import Tensor

from glimpsezoo.core.exits import ExitRule
from glimpsezoo.core.inference import inference
from glimpsezoo.core.macs import Meter
from glimpsezoo.core.noise import Noise
from glimpsezoo.core.policies import check_without_labels
from glimpsezoo.core.protocol import GlimpseModel
from glimpsezoo.core.rollout import Record, rollout
from glimpsezoo.core.stream import RolloutStream
from glimpsezoo.data.base import ImageData, OnBadImage
from glimpsezoo.data.loading import batches
from glimpsezoo.errors import GlimpseZooError, counted
from glimpsezoo.evaluation.environment import cpu_name, device_name
from glimpsezoo.evaluation.plan import Planned, PlannedFinding
from glimpsezoo.measures.base import Bench, Done, Measure, Update, sections_of
from glimpsezoo.measures.result import Result
from glimpsezoo.measures.shown import Cell, Column, Entry, Layout, Table
from glimpsezoo.measures.stopwatch import peak_memory, seconds_of, threads
from glimpsezoo.measures.threats import ExitRuleUsed
from glimpsezoo.schema import Amount, Count, Positive, Section
from glimpsezoo.settings import Settings

WARM_UP = 2  # rounds that do not count
LEAST = 64  # images that are timed, also one by one: each exits where it may
JOINED = 4  # batches in a stream whose memory is measured

Exits = Literal["none", "leave", "stay", "join"]


class SpeedSettings(Settings):
    """`--set speed.KEY`: what is timed. Early exits have the rule and the target of `--set anytime.KEY`."""

    batches: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)] = (1, 32, 256)
    """Sizes of the batches."""
    repeats: Annotated[int, Field(ge=2)] = 15
    """Rounds that count, each with other images; small batches take as many more as 64 images need."""
    threads: Annotated[int, Field(ge=1)] | None = None
    """Threads of torch; none leaves their number as it is."""

    def rounds(self, size: int) -> int:
        """Rounds that count, of batches of this size."""
        return max(self.repeats, -(-LEAST // size))


class Gain(Section):
    """What early exits gain, over all rounds."""

    time: Amount
    """Images per second over those without early exits."""
    macs: Amount
    """MACs without early exits over MACs with them, of the same images."""
    share: float
    """time / macs: 1 if all saved MACs became saved time."""


class SpeedBatch(Section):
    """Times of the batches of one size."""

    batch: Positive
    """Images in it."""
    exits: Exits
    """Early exits: none; images that exit leave the batch; they stay in it and are computed to the end; or they leave it, and those that
    are left join those of other batches (`RolloutStream`).
    """
    median_ms: Amount
    """Median time."""
    iqr_ms: Amount
    """Interquartile range."""
    images_per_s: Amount
    """Images of all rounds over the time of all rounds."""
    peak_memory: Count | None = None
    """The most that the process took beyond what it held before the batch (weights, images), in bytes. On a GPU: tensors, as torch
    counts them. On a CPU under Linux: resident memory, to some 100 kB. Null on other devices, and in results of older versions.
    """
    gain: Gain | None = None
    """Null without early exits, if MACs are lower bounds, and in results of older versions."""

    @model_validator(mode="before")
    @classmethod
    def _older(cls, values: Any) -> Any:
        """Older versions had `compacted`: true where images that exited left the batch, false without early exits."""
        if isinstance(values, dict) and "compacted" in values:
            values = {**values, "exits": "leave" if values["compacted"] else "none"}
            del values["compacted"]
        return values


class Speed(Section):
    """How long it takes."""

    device: str
    """What computed: its kind and product name."""
    threads: Positive
    """Threads of torch."""
    exit_rule: ExitRuleUsed | None = None
    """The rule of the early exits; null without them, and in results of older versions."""
    batches: tuple[SpeedBatch, ...]
    """By size."""
    peak_memory: Count | None
    """The largest of all batches, in bytes; null where the device cannot tell."""


class SpeedMeasure(Measure):
    """Latency of whole batches. It belongs to this machine and this moment, so it is never stored."""

    record = Speed
    config = SpeedSettings
    settings: SpeedSettings

    @property
    def uses_exits(self) -> bool:
        return True

    def plan(self, bench: Bench) -> Iterator[Planned]:
        for index, model in enumerate(bench.models):
            check_without_labels(model, self.name)
            rule = bench.exit_rule(index, self.asked.sets)
            find = partial(speed_section, model, bench.data, rule, self.settings, on_bad_image=bench.on_bad_image)
            yield PlannedFinding(
                index=index,
                key="speed",
                label="speed",
                passes=6 if rule else 1,  # four variants, and two runs that are counted
                images=sum((self.settings.rounds(size) + WARM_UP) * size for size in self.settings.batches),
                identity=None,
                kind=Speed,
                find=find,
            )

    def section(self, bench: Bench, index: int, done: Done) -> Speed | None:
        return next(iter(sections_of(done, index, Speed)), None)

    def lost(self, known: Speed, update: Update) -> Iterator[str]:
        sizes = sorted({each.batch for each in known.batches} - {*self.settings.batches})
        if sizes:
            yield f"the times of batches of {', '.join(map(str, sizes))}"

    @classmethod
    def columns(cls, results: Sequence[Result], layout: Layout) -> list[Column]:
        """Latency of one image, images per second of the largest batch, and what early exits gain there."""
        if layout != "board":
            return []
        return [
            Column("ms, batch 1", _latency, higher=False),
            Column("images/s", lambda result, _: _throughput(result, "none")),
            Column("images/s, early exits", lambda result, _: _throughput(result, "leave")),
            Column("gain in time / in MACs", _share),
        ]

    @classmethod
    def below(cls, results: Sequence[Result]) -> list[Table]:
        return _tables([(result.model.name, result.speed) for result in results if result.speed])

    @classmethod
    def card_text(cls, result: Result) -> list[str | Table]:
        return ["### Speed", *_tables([(result.model.name, result.speed)])]

    @classmethod
    def tables(cls, entries: Sequence[Entry]) -> dict[str, list[Table]]:
        found = _tables([(entry.name, entry.result.speed) for entry in entries if entry.result.speed])
        return {"Speed": found} if found else {}


def _tables(found: Sequence[tuple[str, Speed]]) -> list[Table]:
    """A table with a row per model, size and variant; none without models."""
    if not found:
        return []
    devices = ", ".join(dict.fromkeys(f"{speed.device}, {counted(speed.threads, 'thread')}" for _, speed in found))
    rules = [f"{name} exits by {rule.rule} {rule.threshold:.3g}" for name, speed in found if (rule := speed.exit_rule)]
    ways = "images leave the batch, stay in it to the end, or leave it and those that are left join those of other batches"
    legend = [f"{'; '.join(rules)}: {ways}"] if rules else []
    caption = ". ".join([f"Time and memory of whole batches on {devices}", *legend])
    headings = ("model", "batch", "exits", "median, ms", "IQR, ms", "images/s", "peak, MB", "gain, time", "gain, MACs", "time / MACs")
    rows = tuple(_row(name, each) for name, speed in found for each in speed.batches)
    return [Table(f"{caption}.", headings, rows, frozenset({"model", "exits"}))]


def _row(name: str, each: SpeedBatch) -> tuple[Cell, ...]:
    peak = None if each.peak_memory is None else each.peak_memory / 1e6
    gains = (each.gain.time, each.gain.macs, each.gain.share) if each.gain else (None, None, None)
    return (
        Cell(name),
        Cell(str(each.batch), each.batch),
        Cell(each.exits),
        *(_number(value, digits) for value, digits in ((each.median_ms, 2), (each.iqr_ms, 2), (each.images_per_s, 0), (peak, 1))),
        *(_number(value, 2) for value in gains),
    )


def _number(value: float | None, digits: int) -> Cell:
    return Cell("") if value is None else Cell(f"{value:.{digits}f}", value)


def _largest(result: Result, exits: Exits) -> SpeedBatch | None:
    """The largest batch that was timed in this way."""
    found = [each for each in result.speed.batches if each.exits == exits] if result.speed else []
    return max(found, key=lambda each: each.batch, default=None)


def _latency(result: Result, _: int) -> Cell:
    found = [each for each in result.speed.batches if each.batch == 1 and each.exits == "none"] if result.speed else []
    return _number(found[0].median_ms if found else None, 2)


def _throughput(result: Result, exits: Exits) -> Cell:
    best = _largest(result, exits)
    return _number(best.images_per_s if best else None, 0)


def _share(result: Result, _: int) -> Cell:
    best = _largest(result, "leave")
    return _number(best.gain.share if best and best.gain else None, 2)


def speed_section(
    model: GlimpseModel[Any],
    data: ImageData,
    rule: ExitRule | None,
    settings: SpeedSettings | None = None,
    *,
    on_bad_image: OnBadImage = "fail",
) -> Speed:
    """Times of images of `data` on the model's device; under `rule` too, if there is one.

    on_bad_image: 'fail' raises `BadImageError`; 'skip' takes the next image instead, and raises `GlimpseZooError` where there is none.
    """
    settings, device = settings or SpeedSettings(), model.device
    with inference(model), threads(settings.threads):
        found = []
        for size in settings.batches:
            timed = _Timed(model, rule)
            images = _in_turn(data, size, on_bad_image)
            found += timed.batches(size, images, settings.rounds(size))
        return Speed(
            device=f"cpu: {cpu_name()}" if device.type == "cpu" else device_name(device),
            threads=torch.get_num_threads(),
            exit_rule=ExitRuleUsed(rule=rule.name, threshold=rule.parameters["threshold"]) if rule else None,
            batches=tuple(found),
            peak_memory=max((each.peak_memory for each in found if each.peak_memory is not None), default=None),
        )


class _Timed:
    """Times one model under one exit rule, or without any."""

    def __init__(self, model: GlimpseModel[Any], rule: ExitRule | None) -> None:
        self.model, self.rule, self.meter = model, rule, Meter(model)

    def batches(self, size: int, images: Iterator[tuple[Tensor, Tensor]], rounds: int) -> list[SpeedBatch]:
        """The batches of one size in every variant. images: batches with their ids."""
        variants = self._variants(size)
        seconds: dict[Exits, list[float]] = {each: [] for each in variants}
        macs, device, batch, noise = [0, 0], self.model.device, torch.empty(0), Noise.of(0, torch.arange(1))
        stream = RolloutStream(self.model, batch_size=size, exit_rule=self.rule)
        for number in range(-WARM_UP, rounds):
            batch, ids = (each.to(device) for each in next(images))
            noise = Noise.of(0, ids)
            for place in range(len(variants)):  # each variant comes first in turn: it meets images that no cache holds yet
                each = variants[(place + number) % len(variants)]
                work = partial(stream.add, batch) if each == "join" else partial(self._run, each, batch, noise)
                seconds[each].append(seconds_of(work, device))
            if number == -1:
                stream.finish()  # those who came in rounds that do not count
            if self.rule and number >= 0:
                macs = [total + self._macs(rule, batch, noise) for total, rule in zip(macs, (None, self.rule), strict=True)]
        last = seconds_of(stream.finish, device) if "join" in variants else 0.0
        total = {each: sum(seconds[each][WARM_UP:]) + (last if each == "join" else 0) for each in variants}
        return [
            _measured(
                each, size, seconds[each][WARM_UP:], total[each],
                peak=peak_memory(partial(self._run, each, batch, noise), device),
                gain=self._gain(total["none"] / total[each], *macs) if each != "none" else None,
            )
            for each in variants
        ]  # fmt: skip

    def _variants(self, size: int) -> tuple[Exits, ...]:
        """A single image has no others to join."""
        if not self.rule:
            return ("none",)
        return ("none", "leave", "stay", "join") if size > 1 else ("none", "leave", "stay")

    def _run(self, exits: Exits, images: Tensor, noise: Noise) -> None:
        if exits != "join":
            rollout(self.model, images, noise=noise, exit_rule=None if exits == "none" else self.rule, compact=exits != "stay")
            return
        stream = RolloutStream(self.model, batch_size=len(images), exit_rule=self.rule)
        for _ in range(JOINED):
            stream.add(images)
        stream.finish()

    def _macs(self, rule: ExitRule | None, images: Tensor, noise: Noise) -> int:
        """MACs that ran."""
        trace = rollout(self.model, images, noise=noise, exit_rule=rule, record=Record(meter=self.meter))
        return int(trace.total_macs().sum())

    def _gain(self, time: float, without: int, macs: int) -> Gain | None:
        """None if the gain in MACs is unknown."""
        if self.meter.missing or not macs:
            return None
        return Gain(time=time, macs=without / macs, share=time / (without / macs))


def _measured(exits: Exits, size: int, seconds: Sequence[float], total: float, *, peak: int | None, gain: Gain | None) -> SpeedBatch:
    low, median, high = statistics.quantiles([1000 * each for each in seconds], n=4)
    throughput = len(seconds) * size / total
    return SpeedBatch(batch=size, exits=exits, median_ms=median, iqr_ms=high - low, images_per_s=throughput, peak_memory=peak, gain=gain)


def _in_turn(data: ImageData, size: int, on_bad_image: OnBadImage) -> Iterator[tuple[Float[Tensor, "B C H W"], Int[Tensor, "B"]]]:
    """Batches of readable images with their ids, in the order of the data; after the last image, the first follows again."""
    images: list[Tensor] = []
    ids: list[Tensor] = []
    while True:
        good = 0
        for batch in batches(data, 0, len(data), size, 0, on_bad_image=on_bad_image):
            good += len(batch.ids)
            images += batch.images.unbind()
            ids += batch.ids.unbind()
            if len(ids) >= size:
                yield torch.stack(images[:size]), torch.stack(ids[:size])
                images, ids = images[size:], ids[size:]
        if not good:
            raise GlimpseZooError(f"expected images that can be read, got none among {len(data)}: mend the data to time a model on them")
