"""Accuracy against cost: points from real early exits and from stops at a fixed step, and summaries of the curve."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from glimpsezoo.core.exits import ExitRule, ThresholdRule
from glimpsezoo.errors import counted
from glimpsezoo.escaping import markdown
from glimpsezoo.evaluation.plan import Planned, evaluation_of
from glimpsezoo.evaluation.rows import Rows
from glimpsezoo.measures.accuracy import bound, cost_figure, cost_point
from glimpsezoo.measures.base import Asked, Bench, Catalogue, Done, Measure, Update
from glimpsezoo.measures.calibration import ExitSettings, exit_settings
from glimpsezoo.measures.costs import cost_text, missing_operations
from glimpsezoo.measures.result import Result, missing_text
from glimpsezoo.measures.shown import Cell, Column, Entry, Figure, Layout, Line, Table
from glimpsezoo.measures.statistics import LEVEL, Groups, Rate, proportion
from glimpsezoo.measures.text import interval, percent
from glimpsezoo.schema import Amount, Section, Share

FIXED = "fixed"  # name of the rule that stops all images at one step
_ROUNDING = 1e-12  # tolerance for means of the same numbers that are summed in another order


class AnytimePoint(Section):
    """An exit rule at one threshold, or all images stopped at one step."""

    rule: str
    """Name of the exit rule; 'fixed' stops all images at step `threshold`."""
    threshold: float
    """In the unit of the rule; for 'fixed', the step."""
    top1: Rate
    """Top-1 accuracy at the exits."""
    macs_mean: Amount
    """Mean MACs per image."""
    steps_mean: Amount
    """Mean number of steps per image."""
    exits: tuple[Share, ...]
    """The share of images with the last step 1, 2, ..."""


class EqualAccuracy(Section):
    """The cost at which this model reaches the accuracy of a feed-forward model."""

    baseline: str
    """Name of the feed-forward model."""
    macs_ratio: Amount | None
    """This model's MACs at the baseline's accuracy, over the baseline's MACs; null if the accuracy is never reached."""
    low: Amount | None = None
    """Lower end of its 95 % interval, resampled over source images; null in results of older versions."""
    high: Amount | None = None
    """Upper end; null if fewer than 97.5 % of the samples reach that accuracy, so that the ratio has no upper bound."""
    reached: Share | None = None
    """The share of samples that reach that accuracy; null in results of older versions."""
    missing: tuple[str, ...] = ()
    """Operations of either model without a formula; with any of them, there is no ratio."""


class Anytime(Section):
    """Accuracy against cost, from real early exits and from stops at a fixed step."""

    curve: tuple[AnytimePoint, ...]
    """The last point is the whole run without a rule. The points of rule 'fixed' before it stop all images earlier (none in results of
    earlier versions).
    """
    area: Share
    """The area under the early exits and the whole run over their range of budgets, as a mean accuracy."""
    calibrated_on: str
    """The split that the thresholds were found on."""
    equal_accuracy: EqualAccuracy | None
    """Null if the run has no baseline."""

    @property
    def exits(self) -> tuple[AnytimePoint, ...]:
        """The early exits and the whole run, without the stops at a fixed step."""
        return (*(each for each in self.curve[:-1] if each.rule != FIXED), self.curve[-1])


class AnytimeMeasure(Measure):
    """The curve of an exit rule at several thresholds, of stops at a fixed step and of the whole run."""

    record = Anytime

    settings: ExitSettings
    """Settings of `--set anytime.KEY`."""
    rule: type[ThresholdRule]
    """The exit rule of the curve."""

    @classmethod
    def scopes(cls, name: str, catalogue: Catalogue) -> list[str]:
        return [name]

    @classmethod
    def of(cls, asked: Asked) -> "AnytimeMeasure | None":
        settings, rule = exit_settings(asked.sets, asked.catalogue)
        if not asked.texts:
            return None
        found = cls(asked, settings)
        found.rule = rule
        return found

    @property
    def uses_exits(self) -> bool:
        return True

    @property
    def insists_on_exits(self) -> str:
        return self.name if self.asked.explicit else ""

    def rules(self, bench: Bench, index: int) -> list[ExitRule]:
        """The rule at every threshold of a model's curve, including the user's target; empty without calibration."""
        found = bench.calibrations.get(index)
        if found is None:
            return []
        chosen = self.settings.chosen(found)
        thresholds = [*found.spread(self.settings.points), *([chosen] if chosen is not None else [])]
        return [self.rule(threshold) for threshold in dict.fromkeys(thresholds)]

    def plan(self, bench: Bench) -> Iterator[Planned]:
        for index in range(len(bench.models)):
            bench.exit_rules[index] = self.rules(bench, index)
            for rule in bench.exit_rules[index]:
                threshold = rule.parameters["threshold"]
                job = bench.job(index, bench.data, rule=rule)
                yield evaluation_of(job, index=index, key=threshold, label=f"{rule.name} {threshold:.3g}", seed=bench.seed)

    def section(self, bench: Bench, index: int, done: Done) -> Anytime | None:
        """The curve, its area, and the cost compared with the run's most accurate feed-forward model."""
        whole, mine = bench.clean_rows(index), done.get(index, {})
        if whole is None:
            return None
        found = [(rule, mine[rule.parameters["threshold"]].rows) for rule in bench.exit_rules.get(index, ())]
        exits = [(rule, rows) for rule, rows in found if len(rows)]
        *early, last = stops(whole)
        points = [point(rule.name, rule.parameters["threshold"], rows) for rule, rows in exits]
        outcomes = [ImageOutcomes.of(rows) for _, rows in exits] + ImageOutcomes.stopped(whole)
        baseline = _baseline(bench, index)
        return Anytime(
            curve=(*points, *early, last),
            area=area([*points, last]),
            calibrated_on="calibration",
            equal_accuracy=None if baseline is None else self._equal(bench, index, baseline, outcomes, done),
        )

    def _equal(self, bench: Bench, index: int, baseline: int, outcomes: "Sequence[ImageOutcomes]", done: Done) -> EqualAccuracy:
        """The cost at equal accuracy; without a ratio if either cost is only a lower bound."""
        measured = [
            unit for each in (index, baseline) for found in (bench.clean[each], *done.get(each, {}).values()) for unit in found.measured
        ]
        name = bench.names[baseline]
        if missing := missing_operations(measured):
            return EqualAccuracy(baseline=name, macs_ratio=None, missing=missing)
        return equal_accuracy(outcomes, name, ImageOutcomes.of(bench.clean[baseline].rows))

    def lost(self, known: Anytime, update: Update) -> Iterator[str]:
        points = self.settings.points + self.settings.target
        exits = [each for each in known.curve if each.rule != FIXED]
        if any(each.rule != self.settings.rule for each in exits):
            yield f"early exits by {exits[0].rule}"
        elif len(exits) > points:
            yield f"{counted(len(exits), 'point')} of the anytime curve, of which {points} would be measured"
        if known.equal_accuracy and not update.baseline:
            yield f"the comparison with {known.equal_accuracy.baseline}, which is not measured beside it"

    @classmethod
    def columns(cls, results: Sequence[Result], layout: Layout) -> list[Column]:
        return [Column("anytime mean %", _area, minor=True)] if layout == "board" else []

    @classmethod
    def footnotes(cls, results: Sequence[Result], layout: Layout) -> list[str]:
        if layout == "board":
            return []
        return [anytime_text(result) for result in results if result.anytime and len(result.anytime.exits) > 1]

    @classmethod
    def card_text(cls, result: Result) -> list[str | Table]:
        found: Anytime = result.anytime
        if len(found.curve) == 1:
            return []
        headings = ("exit rule", "threshold", "top-1 %", "95 % interval", "steps", "MACs/image")
        rows = tuple(_curve_row(result, each) for each in found.curve)
        told = f"Thresholds from the {markdown(found.calibrated_on)} split; images that exit leave the batch."
        fixed = " *fixed*: all images stop at that step." if len(found.curve) > len(found.exits) else ""
        return ["### With early exits", Table("", headings, rows, frozenset(headings)), f"{told}{fixed}"]

    @classmethod
    def figures(cls, entries: Sequence[Entry]) -> Iterator[Figure]:
        """Dashed lines for real early exits, drawn into the accuracy measure's figure of all steps."""
        for data in dict.fromkeys(entry.data for entry in entries):
            those = [(k, entry) for k, entry in enumerate(entries) if entry.data == data and entry.result.anytime]
            lines = [_line(k, entry) for k, entry in those if len(entry.result.anytime.exits) > 1]
            if lines:
                yield cost_figure(data, lines)


def _baseline(bench: Bench, index: int) -> int | None:
    """The most accurate feed-forward model of the run that computes as this one does; None if the model is feed-forward itself."""
    if bench.feed_forward(index):
        return None
    alike = [each for each in bench.clean if bench.models[each].computing == bench.models[index].computing]
    others = [(float(rows.hits[:, -1].mean()), each) for each in alike if bench.feed_forward(each) and (rows := bench.clean_rows(each))]
    return max(others, key=lambda pair: pair[0])[1] if others else None


def _area(result: Result, _: int) -> Cell:
    found = result.anytime
    return Cell(f"{100 * found.area:.1f}", 100 * found.area) if found and len(found.exits) > 1 else Cell("")


def _curve_row(result: Result, each: AnytimePoint) -> tuple[Cell, ...]:
    """The cells of a point. Thresholds have many digits, as those of a confident model differ only in the last ones."""
    cost = cost_text(result, each.macs_mean)
    texts = (each.rule, f"{each.threshold:.8g}", percent(each.top1), interval(each.top1), f"{each.steps_mean:.2f}", cost)
    return tuple(map(Cell, texts))


def _line(series: int, entry: Entry) -> Line:
    curve = sorted(entry.result.anytime.exits, key=lambda each: each.macs_mean)
    tips = [f"{entry.name}, {each.rule} {each.threshold:.3g}, {each.steps_mean:.2f} steps" for each in curve]
    points = tuple(cost_point(entry.result, each.macs_mean, each.top1, tip) for each, tip in zip(curve, tips, strict=True))
    return Line(f"{entry.name}, early exits{bound(entry.result)}", series, points, dashed=True)


def anytime_text(result: Result) -> str:
    """A one-sentence summary of a model's anytime curve."""
    found: Anytime = result.anytime
    first, last = found.exits[0], found.exits[-1]
    cheap, dear = (cost_text(result, each.macs_mean) for each in (first, last))
    text = (
        f"{result.model.name} with {first.rule} exits: {percent(first.top1)} % at {cheap} MACs to "
        f"{percent(last.top1)} % at {dear}, mean {100 * found.area:.1f} %"
    )
    return f"{text}; {_equal_text(found.equal_accuracy)}." if found.equal_accuracy else f"{text}."


def _equal_text(equal: EqualAccuracy) -> str:
    """The relative cost of the baseline's accuracy, with its interval."""
    if equal.missing:
        return f"no ratio to the MACs of {equal.baseline}, for {missing_text(equal.missing)}"
    reached = equal.reached or 0.0
    if equal.macs_ratio is None:
        said = f" ({100 * reached:.2g} % of the samples reach it)" if reached else ""
        return f"no point of the curve has the accuracy of {equal.baseline}{said}"
    text = f"as accurate as {equal.baseline} at {equal.macs_ratio:.3g} times its MACs"
    if equal.low is None:
        return text
    if equal.high is None:
        return f"{text} ({equal.low:.3g} or more: {100 * (1 - reached):.2g} % of the samples never reach it)"
    return f"{text} ({equal.low:.3g} to {equal.high:.3g})"


def point(rule: str, threshold: float, rows: Rows) -> AnytimePoint:
    """The point of a run under an exit rule."""
    return AnytimePoint(
        rule=rule,
        threshold=threshold,
        top1=proportion(rows.hits[:, -1], rows.group),
        macs_mean=float(rows.macs.mean()),
        steps_mean=float(rows.exit_step.mean()),
        exits=tuple(float((rows.exit_step == step).mean()) for step in range(1, rows.steps + 1)),
    )


def stops(rows: Rows) -> list[AnytimePoint]:
    """The points of the fixed rule: all images stop at step 1, 2, ..., up to the whole run. rows: of the whole run."""
    found = []
    for step in range(1, rows.steps):
        last = np.minimum(rows.exit_step, step)  # images that finish earlier stop earlier
        found.append(
            AnytimePoint(
                rule=FIXED,
                threshold=float(step),
                top1=proportion(rows.hits[:, step - 1], rows.group),
                macs_mean=float(rows.macs_by_step[:, step - 1].mean()),
                steps_mean=float(last.mean()),
                exits=tuple(float((last == look).mean()) for look in range(1, rows.steps + 1)),
            )
        )
    return [*found, point(FIXED, float(rows.steps), rows)]


def area(curve: Sequence[AnytimePoint]) -> float:
    """The trapezoidal area under accuracy against MACs, over the width of the curve: the mean accuracy over its budgets."""
    macs, top1 = _by_cost(curve)
    width = macs[-1] - macs[0]
    return float(((top1[1:] + top1[:-1]) / 2 * np.diff(macs)).sum() / width) if width else float(top1.max())


@dataclass(frozen=True)
class ImageOutcomes:
    """Correctness and cost of n images in one run."""

    id: Int[ndarray, "n"]
    """Ids of the images."""
    group: Int[ndarray, "n"]
    """Their source images."""
    hits: Bool[ndarray, "n"]
    """Whether the prediction is the label."""
    macs: Int[ndarray, "n"]
    """Cost per image."""

    @classmethod
    def of(cls, rows: Rows) -> "ImageOutcomes":
        """The outcome at each image's last step."""
        return cls(rows.id, rows.group, rows.hits[:, -1], rows.macs)

    @classmethod
    def stopped(cls, rows: Rows) -> "list[ImageOutcomes]":
        """The outcomes of stops at step 1, 2, ..., up to the whole run. rows: of the whole run."""
        early = [cls(rows.id, rows.group, rows.hits[:, step], rows.macs_by_step[:, step]) for step in range(rows.steps - 1)]
        return [*early, cls.of(rows)]

    def at(self, ids: Int[ndarray, "m"]) -> "ImageOutcomes":
        """The outcome of these images, in the order of their ids."""
        order = np.argsort(self.id)
        place = order[np.searchsorted(self.id[order], ids)]
        return ImageOutcomes(self.id[place], self.group[place], self.hits[place], self.macs[place])


def equal_accuracy(curve: Sequence[ImageOutcomes], baseline: str, reference: ImageOutcomes) -> EqualAccuracy:
    """The cost at which `curve` first reaches the baseline's accuracy, over the baseline's MACs. The curve is linear between its points.

    curve: one outcome per point. reference: the outcome of the baseline. Only the images that all of them have are used. The interval is a
    percentile bootstrap over source images, with the same samples for all runs. If a sample's curve does not reach the baseline's accuracy,
    its ratio is infinite: with more than 2.5 % of such samples, the interval has no upper end.
    """
    ids = reduce(np.intersect1d, [each.id for each in curve], reference.id)
    runs = [each.at(ids) for each in (*curve, reference)]
    columns = np.stack([values for run in runs for values in (run.hits, run.macs)], 1).astype(float)  # [n, 2 (K + 1)]
    found = _ratios(columns.mean(0, keepdims=True))[0]
    resampled = Groups.of(runs[-1].group).resampled_sums(columns)
    ratios = _ratios(resampled[:, :-1] / resampled[:, -1:])
    reached = float(np.isfinite(ratios).mean())
    low = float(np.quantile(ratios, (1 - LEVEL) / 2, method="lower"))
    high = float(np.quantile(ratios, (1 + LEVEL) / 2, method="higher"))
    return EqualAccuracy(
        baseline=baseline,
        macs_ratio=float(found) if np.isfinite(found) else None,
        low=low if np.isfinite(low) else None,
        high=high if np.isfinite(high) else None,
        reached=reached,
    )


def _ratios(means: Float[ndarray, "R c"]) -> Float[ndarray, "R"]:
    """The ratio of each sample, infinite if the baseline is not reached. Columns: accuracy and MACs per run, the baseline last."""
    pairs = means.reshape(len(means), -1, 2)  # [R, K + 1, 2]
    top1, macs, wanted, price = pairs[:, :-1, 0], pairs[:, :-1, 1], pairs[:, -1:, 0], pairs[:, -1, 1]
    order = np.lexsort((top1, macs), axis=1)  # by cost, then by accuracy
    macs, top1 = np.take_along_axis(macs, order, 1), np.take_along_axis(top1, order, 1)
    top1 = np.maximum.accumulate(top1, axis=1)  # a larger budget allows all cheaper points
    reaching = top1 >= wanted - _ROUNDING
    after = reaching.argmax(1)
    before, row = np.maximum(after - 1, 0), np.arange(len(means))
    rise = top1[row, after] - top1[row, before]
    share = np.divide(wanted[:, 0] - top1[row, before], rise, out=np.ones(len(means)), where=rise > 0).clip(0, 1)
    cost = macs[row, before] + share * (macs[row, after] - macs[row, before])
    return np.where(reaching.any(1), cost / price, np.inf)


def _by_cost(curve: Sequence[AnytimePoint]) -> tuple[Float[ndarray, "k"], Float[ndarray, "k"]]:
    ordered = sorted(curve, key=lambda each: (each.macs_mean, each.top1.value))
    return np.array([each.macs_mean for each in ordered]), np.array([each.top1.value for each in ordered])


def exit_point(result: Result, threshold: float) -> AnytimePoint | None:
    """The point of the confidence rule at a threshold; None if the curve does not have it."""
    points = result.anytime.curve if result.anytime else ()
    return next((each for each in points if (each.rule, each.threshold) == ("confidence", threshold)), None)
