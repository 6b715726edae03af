"""Accuracy at the last step and at every step, with 95 % intervals: top-1, top-5, negative log-likelihood, calibration error."""

from collections.abc import Callable, Iterator, Sequence

from glimpsezoo.errors import GlimpseZooError, counted
from glimpsezoo.evaluation.rows import Rows
from glimpsezoo.measures.base import Bench, Done, Measure
from glimpsezoo.measures.result import Result
from glimpsezoo.measures.shown import (
    ACCURACY_AXIS,
    Axis,
    Cell,
    Column,
    Entry,
    Figure,
    Layout,
    Line,
    Point,
    accuracy_point,
    macs_axis,
    percent_cell,
)
from glimpsezoo.measures.statistics import Estimate, Loss, Rate, Scores, classification
from glimpsezoo.measures.text import interval, macs_text, percent, with_interval
from glimpsezoo.schema import Amount, Positive, Section


class AccuracyStep(Section):
    """Runs stopped at one step. An image that finished earlier keeps its last prediction and cost, and has no regions in this step."""

    step: Positive
    """Which step."""
    top1: Rate
    """Top-1 accuracy."""
    top5: Rate
    """Top-5 accuracy."""
    nll: Loss
    """Negative log-likelihood, in nats."""
    ece: Rate
    """Expected calibration error."""
    macs: Amount
    """Mean cost per image."""
    regions_mean: Amount
    """Regions per image that were sampled in this step, on average."""


class Accuracy(Section):
    """Accuracy at the last step of every image, then for every step."""

    top1: Rate
    """Share of images whose largest logit is the label's."""
    top5: Rate
    """The same for the five largest logits; for all of them if there are fewer classes."""
    nll: Loss
    """Negative log-likelihood, in nats."""
    ece: Rate
    """Expected calibration error with 15 equal bins."""
    steps: tuple[AccuracyStep, ...]
    """Step by step."""
    ties: int | None = None
    """Images whose prediction rounding may change: two classes have logits closer than rounding can move them. None: unknown."""


def accuracy_section(rows: Rows) -> Accuracy:
    """Accuracy at the last step and at every step, with 95 % intervals. Raises `GlimpseZooError` if there is no row."""
    if not len(rows):
        raise GlimpseZooError("expected at least one measured image, got none: see the errors of the result")
    estimates = classification(Scores(rows.hits, rows.top5, rows.nll, rows.confidence), rows.group)
    macs, regions = rows.macs_by_step.mean(0), rows.regions.mean(0)
    steps = tuple(
        AccuracyStep(step=t + 1, **found._asdict(), macs=float(macs[t]), regions_mean=float(regions[t]))
        for t, found in enumerate(estimates)
    )
    ties = None if (rows.tie < 0).any() else int(rows.tie.sum())
    return Accuracy(**estimates[-1]._asdict(), steps=steps, ties=ties)


class AccuracyMeasure(Measure):
    """Accuracy of the clean images, which every run measures anyway."""

    record = Accuracy
    plain = True

    def section(self, bench: Bench, index: int, done: Done) -> Accuracy | None:
        rows = bench.clean_rows(index)
        return accuracy_section(rows) if rows is not None else None

    @classmethod
    def columns(cls, results: Sequence[Result], layout: Layout) -> list[Column]:
        if layout == "steps":
            return [Column("top-1 %", _at_step(lambda step: percent_cell(step.top1)))]
        nll = Column("NLL", _at_step(lambda step: _plain(step.nll)), higher=False, minor=True)
        if layout == "board":
            ece = Column("ECE %", _at_step(lambda step: percent_cell(step.ece)), higher=False, minor=True)
            return [Column("top-1 %", _at_step(lambda step: percent_cell(step.top1))), nll, ece]
        return [
            Column("top-1 %", _at_step(lambda step: Cell(percent(step.top1)))),
            Column("95 % interval", _at_step(lambda step: Cell(interval(step.top1)))),
            Column("top-5 %", _at_step(lambda step: Cell(percent(step.top5)))),
            nll,
            Column("ECE %", _at_step(lambda step: Cell(percent(step.ece))), higher=False),
        ]

    @classmethod
    def figures(cls, entries: Sequence[Entry]) -> Iterator[Figure]:
        """Accuracy against cost of every step, for each data set."""
        for data in dict.fromkeys(entry.data for entry in entries):
            lines = [_line(k, entry) for k, entry in enumerate(entries) if entry.data == data and entry.result.accuracy]
            if lines:
                yield cost_figure(data, lines)


def _line(series: int, entry: Entry) -> Line:
    """A line through the steps of a model."""
    result, steps = entry.result, entry.result.accuracy.steps
    points = tuple(cost_point(result, step.macs, step.top1, f"{entry.name}, step {step.step}") for step in steps)
    return Line(f"{entry.name}{bound(result)}", series, points)


def cost_figure(data: str, lines: Sequence[Line]) -> Figure:
    """The plot of accuracy against cost on one data set, which several measures draw into."""
    title, note = f"Accuracy against cost, {data}", "Bars are 95 % intervals."
    return Figure("Accuracy against cost", title, tuple(lines), macs_axis(lines), Axis(ACCURACY_AXIS), note)


def cost_point(result: Result, macs: float, top1: Estimate, what: str) -> Point:
    """A point of an accuracy against its cost."""
    return accuracy_point(macs, top1, f"{what}: {with_interval(top1)} % at {macs_text(macs, at_least=result.at_least)} MACs")


def bound(result: Result) -> str:
    """Mark of a line whose place on the axis of costs is only a lower bound."""
    return ", MACs at least" if result.at_least else ""


def measured_text(result: Result) -> str:
    """The images that a result is of, and the kind of its intervals."""
    data = result.data
    size = f"{data.image_size[0]} x {data.image_size[1]}"
    if not result.accuracy:
        return f"{data.name}: {size} px, {counted(data.classes, 'class')}."
    top1 = result.accuracy.top1
    sources = f" of {top1.groups:,} sources (resampled for the intervals)" if top1.groups != top1.n else " (Wilson intervals)"
    line = f"{data.name} {data.split}: {counted(top1.n, 'image')}{sources}, {size} px."
    if data.skipped:
        line += f" {counted(data.skipped, 'unreadable image')} skipped."
    if result.accuracy.ties:
        line += f" Rounding may change the predictions of {counted(result.accuracy.ties, 'image')}."
    for done, count in data.conversions.items():
        line += f" {counted(count, 'image')} {done}."
    return line


def _plain(estimate: Estimate) -> Cell:
    return Cell(f"{estimate.value:.3f}", estimate.value, estimate.low, estimate.high)


def _at_step(cell: Callable[[AccuracyStep], Cell]) -> Callable[[Result, int], Cell]:
    return lambda result, step: cell(result.accuracy.steps[step]) if result.accuracy else Cell("")
