"""The plots of the report, as lines with their numbers in per cent: one list of figures a question."""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from glimpsezoo.pages.board import Entry, attack_name
from glimpsezoo.pages.plots import Axis, Line, Point, plot, with_legend
from glimpsezoo.pictures.scene import Scene, beside, series
from glimpsezoo.records import Attack, Corruptions, Estimate, Result
from glimpsezoo.tables import cost_text, counted, display_name, eps_text, with_interval

MOST_POINTS = 200  # of a training curve
ACCURACY = "top-1 %"


@dataclass(frozen=True)
class Figure:
    """A plot that is to be drawn. note: what a reader must know of it."""

    title: str
    lines: tuple[Line, ...]
    x: Axis
    y: Axis
    note: str = ""


def colours(entries: Sequence[Entry]) -> dict[str, str]:
    """The colour of every model by name: the same in all plots."""
    return {entry.name: series(k) for k, entry in enumerate(entries)}


def accuracy_against_macs(entries: Sequence[Entry]) -> Iterator[Figure]:
    """For each data set: every step, and dashed the real early exits."""
    colour = colours(entries)
    for data in dict.fromkeys(entry.data for entry in entries):
        lines = []
        for entry in (entry for entry in entries if entry.data == data):
            name, result = entry.name, entry.result
            if result.accuracy:
                points = [_point(result, f"{name}, step {step.step}", step.macs, step.top1) for step in result.accuracy.steps]
                lines.append(Line(f"{name}{_bound(result)}", colour[name], tuple(points)))
            if result.anytime and len(result.anytime.exits) > 1:
                curve = sorted(result.anytime.exits, key=lambda each: each.macs_mean)
                tips = [(f"{name}, {each.rule} {each.threshold:.3g}, {each.steps_mean:.2f} steps", each) for each in curve]
                points = [_point(result, tip, each.macs_mean, each.top1) for tip, each in tips]
                lines.append(Line(f"{name}, early exits{_bound(result)}", colour[name], tuple(points), dashed=True))
        if lines:
            yield Figure(f"Accuracy against cost, {data}", tuple(lines), _macs(lines), Axis(ACCURACY), "Bars are 95 % intervals.")


def robustness_against_budget(entries: Sequence[Entry]) -> Iterator[Figure]:
    """Accuracy under corruptions and under every attack of runs stopped at each step, against their cost."""
    yield from _by_budget("under corruptions", entries, lambda result: result.corruptions)
    for name in dict.fromkeys(attack_name(attack) for entry in entries for attack in entry.result.attacks):
        yield from _by_budget(f"under {name}", entries, partial(_attack_of_name, name))


def _attack_of_name(name: str, result: Result) -> Attack | None:
    return next((attack for attack in result.attacks if attack_name(attack) == name), None)


def _by_budget(what: str, entries: Sequence[Entry], section: Callable[[Result], Corruptions | Attack | None]) -> Iterator[Figure]:
    colour = colours(entries)
    for data in dict.fromkeys(entry.data for entry in entries):
        lines = []
        for entry in (entry for entry in entries if entry.data == data):
            found = section(entry.result)
            if found is None:
                continue
            known = zip(_costs(entry.result), found.by_step, strict=False)  # without costs, there is no point
            points = tuple(_point(entry.result, f"{entry.name}, step {k}", macs, each) for k, (macs, each) in enumerate(known, start=1))
            mark = f" (masking: {entry.result.verdict_on(found)})" if isinstance(found, Attack) else ""
            lines.append(Line(f"{entry.name}{mark}{_bound(entry.result)}", colour[entry.name], points))
        if lines:
            yield Figure(f"Accuracy {what}, {data}", tuple(lines), _macs(lines), Axis(ACCURACY, low=0), "Cost of the clean run.")


def _bound(result: Result) -> str:
    """The mark of a line whose place on the axis of costs is not known."""
    return ", MACs at least" if result.at_least else ""


def _costs(result: Result) -> list[float]:
    """MACs of runs stopped at each step; none if they were not counted."""
    section = result.flops or result.accuracy
    return [step.macs for step in section.steps] if section else []


def attack_curves(entries: Sequence[Entry]) -> Iterator[Figure]:
    """Accuracy by eps, and by steps, where a model was attacked with several by the same attack."""
    for axis in ("eps", "steps"):
        for kind in dict.fromkeys(_kind(attack, axis) for entry in entries for attack in entry.result.attacks):
            found: dict[tuple[str, ...], dict[float, tuple[Attack, Entry]]] = {}
            for entry in entries:
                for attack in entry.result.attacks:
                    if _kind(attack, axis) == kind:
                        found.setdefault(_attacked(entry), {})[getattr(attack, axis)] = (attack, entry)
            several = {model: points for model, points in found.items() if len(points) > 1}
            lines = [_curve(series(k), model[:2], points) for k, (model, points) in enumerate(several.items())]
            if lines:
                by_eps = axis == "eps"
                rest = counted(int(kind.other), "step") if by_eps else f"eps {eps_text(kind.other)} in {kind.space}"
                x = Axis(f"eps in {kind.space}, {kind.norm}" if by_eps else "steps of the attack", low=0)
                note = f"Bars are 95 % intervals; {axis} 0 is the same images without the attack."
                yield Figure(f"Accuracy under {kind.name} by {axis}, {rest}", tuple(lines), x, Axis(ACCURACY, low=0), note)


class _Kind(NamedTuple):
    """What attacks must share to be points of one curve. other: their eps on a curve by steps, their steps on one by eps."""

    name: str
    norm: str
    space: str
    target: str
    path: str
    other: float


def _kind(attack: Attack, axis: str) -> _Kind:
    other = attack.steps if axis == "eps" else attack.eps
    return _Kind(attack.name, attack.norm, attack.space, attack.target, attack.path, other)


def _attacked(entry: Entry) -> tuple[str, ...]:
    """Name and data of a model, and what tells it from others of that name."""
    result = entry.result
    used = result.model.checkpoint
    return display_name(result), entry.data, used.sha256 if used else "", json.dumps(result.model.config, sort_keys=True)


def _curve(colour: str, model: tuple[str, ...], attacks: dict[float, tuple[Attack, Entry]]) -> Line:
    """The attacks by their place on the axis, from the unattacked images at 0 on."""
    ordered = sorted(attacks.items())
    clean = ordered[0][1][0].clean.top1
    points = [Point(0, 100 * clean.value, 100 * clean.low, 100 * clean.high, f"{model[0]}, clean: {with_interval(clean)} %")]
    for place, (attack, entry) in ordered:
        top1, budget = attack.top1, f"eps {eps_text(attack.eps)}, {counted(attack.steps, 'step')}"
        tip = f"{model[0]}, {budget}: {with_interval(top1)} %, masking {entry.result.verdict_on(attack)}"
        points.append(Point(place, 100 * top1.value, 100 * top1.low, 100 * top1.high, tip))
    verdicts = ", ".join(dict.fromkeys(entry.result.verdict_on(attack) for _, (attack, entry) in ordered))
    return Line(f"{model[0]}, {model[1]} (masking: {verdicts})", colour, tuple(points))


def training_curves(name: str, log: Sequence[Mapping[str, Any]]) -> Iterator[Figure]:
    """The losses in a training log, and the accuracy on the calibration split, by the epochs of all phases; nothing of an empty log."""
    lines = list(enumerate(log, start=1))
    names = dict.fromkeys(loss for line in log for loss in line["losses"])
    curves = {loss: _thinned([(at, line["losses"].get(loss)) for at, line in lines]) for loss in names}
    losses = [Line(loss, series(k), points, dots=len(points) == 1) for k, (loss, points) in enumerate(curves.items())]
    if losses:
        yield Figure(f"Training losses of {name}", tuple(losses), Axis("epoch"), Axis("loss"))
    shares = _thinned([(at, line.get("calibration_top1")) for at, line in lines])
    accuracy = tuple(Point(point.x, 100 * point.y) for point in shares)
    if accuracy:
        line = Line("calibration split", series(0), accuracy, dots=len(accuracy) == 1)
        yield Figure(f"Accuracy of {name} while it was trained", (line,), Axis("epoch"), Axis(ACCURACY))


def training_picture(name: str, log: Sequence[Mapping[str, Any]]) -> Scene | None:
    """The training curves beside each other, for where no page has their legend; None for an empty log."""
    drawn = [with_legend(plot(each.title, each.lines, each.x, each.y), each.lines) for each in training_curves(name, log)]
    return beside(drawn) if drawn else None


def _thinned(values: Sequence[tuple[int, object]]) -> tuple[Point, ...]:
    """At most `MOST_POINTS` of the numbers among the values, the last one in any case."""
    good = [Point(at, value) for at, value in values if isinstance(value, int | float) and math.isfinite(value)]
    stride = -(-len(good) // MOST_POINTS) or 1
    return tuple(good[::-stride][::-1])


def _point(result: Result, what: str, macs: float, top1: Estimate) -> Point:
    return Point(
        macs, 100 * top1.value, 100 * top1.low, 100 * top1.high, f"{what}: {with_interval(top1)} % at {cost_text(result, macs)} MACs"
    )


def _macs(lines: Sequence[Line]) -> Axis:
    """Logarithmic where the dearest point costs four times the cheapest or more."""
    costs = [point.x for line in lines for point in line.points if point.x > 0]
    return Axis("MACs an image", logarithmic=bool(costs) and max(costs) >= 4 * min(costs))
