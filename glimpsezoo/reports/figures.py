"""The plots of a report: the figures of all measures, merged by title, and training curves."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from glimpsezoo.measures.shown import ACCURACY_AXIS, Axis, Entry, Figure, Line, Point, macs_axis
from glimpsezoo.reports.pictures.scene import Scene, beside
from glimpsezoo.reports.plots import plot, with_legend
from glimpsezoo.zoo.results import measure_classes

MOST_POINTS = 200  # per training curve


def figures(entries: Sequence[Entry]) -> list[Figure]:
    """The figures of all measures. Figures with the same title are merged, and their lines are sorted by model."""
    found: dict[str, Figure] = {}
    for kind in measure_classes().values():
        for figure in kind.figures(entries):
            known = found.get(figure.title)
            found[figure.title] = _merged(known, figure) if known else figure
    return list(found.values())


def _merged(one: Figure, other: Figure) -> Figure:
    lines = tuple(sorted([*one.lines, *other.lines], key=lambda line: line.series))
    return replace(one, lines=lines, x=macs_axis(lines) if one.x.label == macs_axis(lines).label else one.x)


def training_curves(name: str, log: Sequence[Mapping[str, Any]]) -> Iterator[Figure]:
    """Losses and calibration accuracy of a training log, by epoch across all training phases. Yields nothing for an empty log."""
    lines = list(enumerate(log, start=1))
    names = dict.fromkeys(loss for line in log for loss in line["losses"])
    curves = {loss: _thinned([(at, line["losses"].get(loss)) for at, line in lines]) for loss in names}
    losses = [Line(loss, k, points, dots=len(points) == 1) for k, (loss, points) in enumerate(curves.items())]
    if losses:
        yield Figure("Training", f"Training losses of {name}", tuple(losses), Axis("epoch"), Axis("loss"))
    shares = _thinned([(at, line.get("calibration_top1")) for at, line in lines])
    accuracy = tuple(Point(point.x, 100 * point.y) for point in shares)
    if accuracy:
        line = Line("calibration split", 0, accuracy, dots=len(accuracy) == 1)
        yield Figure("Training", f"Accuracy of {name} while it was trained", (line,), Axis("epoch"), Axis(ACCURACY_AXIS))


def training_picture(name: str, log: Sequence[Mapping[str, Any]]) -> Scene | None:
    """The training curves side by side, each with its legend, for use outside a page; None for an empty log."""
    drawn = [with_legend(plot(each.title, each.lines, each.x, each.y), each.lines) for each in training_curves(name, log)]
    return beside(drawn) if drawn else None


def _thinned(values: Sequence[tuple[int, object]]) -> tuple[Point, ...]:
    """At most `MOST_POINTS` of the finite values, always including the last one."""
    good = [Point(at, value) for at, value in values if isinstance(value, int | float) and math.isfinite(value)]
    stride = -(-len(good) // MOST_POINTS) or 1
    return tuple(good[::-stride][::-1])
