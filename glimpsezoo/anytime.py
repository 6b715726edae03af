"""Accuracy against cost: thresholds from the calibration split, points from real early exits, and what a curve is worth.

A threshold is chosen by what it would do on calibration images, all of whose steps are known. What it does do is then measured: images
that exit leave the batch, on the split that is reported.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from glimpsezoo.cost import Meter
from glimpsezoo.data.base import ImageData, OnBadImage
from glimpsezoo.data.loading import batches
from glimpsezoo.driver import Record, rollout
from glimpsezoo.errors import GlimpseZooError
from glimpsezoo.evaluation import auto_batch_size, evaluating
from glimpsezoo.exits import ExitRule, Fixed, ThresholdRule
from glimpsezoo.noise import Noise
from glimpsezoo.protocol import GlimpseModel
from glimpsezoo.records import AnytimePoint, EqualAccuracy
from glimpsezoo.statistics import LEVEL, Groups, proportion
from glimpsezoo.store import Rows

_ROUNDING = 1e-12  # of means of the same numbers, added in another order
CANDIDATES = 400  # thresholds that are tried; more change a share of exits by less than a four-hundredth


class NoCalibrationError(GlimpseZooError):
    """There is no image to find thresholds on."""


@dataclass(frozen=True)
class Calibration:
    """How n calibration images fare under a rule.

    score, hits, macs: [n, T], of runs stopped at each step. rule: the exit rule that produced the scores. missing: operations that may
    hold products and have no formula; with any of them, `macs` are lower bounds.
    """

    rule: type[ThresholdRule]
    score: Float[ndarray, "n T"]
    hits: Bool[ndarray, "n T"]
    macs: Int[ndarray, "n T"]
    missing: tuple[str, ...] = ()

    def candidates(self) -> list[float]:
        """Thresholds in the order of rising cost, up to `CANDIDATES`: midway between scores that were reached before the last step.

        Midway, so that rounding (another batch, another device) lets no image exit elsewhere; where a rule takes no such number
        (a patience is whole), the score itself.
        """
        scores = np.unique(self.score[:, :-1]).astype(float)
        if not len(scores):
            return []
        places = np.unique(np.linspace(0, len(scores) - 1, min(len(scores), CANDIDATES)).round().astype(int))
        less_sure = np.append(scores[1:], scores[-1] * (1 + 1e-6)) if self.rule.falling else np.append(scores[0] * (1 - 1e-6), scores[:-1])
        choices = [(float(scores[place] + less_sure[place]) / 2, float(scores[place])) for place in places]
        found = [middle if self._allowed(middle) else score for middle, score in choices]
        found = [threshold for threshold in found if self._allowed(threshold)]
        return found[::-1] if self.rule.falling else found

    def _allowed(self, threshold: float) -> bool:
        try:
            self.rule(threshold)
        except GlimpseZooError:  # a patience of no look
            return False
        return True

    def outcome(self, threshold: float) -> tuple[float, float]:
        """Top-1 accuracy and mean MACs on the calibration images at `threshold`."""
        sure = self.score <= threshold if self.rule.falling else self.score >= threshold
        sure[:, -1] = True
        last, rows = sure.argmax(1), np.arange(len(sure))  # the first step that is sure enough
        return float(self.hits[rows, last].mean()), float(self.macs[rows, last].mean())

    def spread(self, points: int) -> list[float]:
        """At most `points` thresholds whose mean MACs lie evenly between the cheapest and the dearest, in the order of rising cost."""
        tried = self.candidates()
        if not tried:
            return []
        costs = np.array([self.outcome(threshold)[1] for threshold in tried])
        wanted = np.linspace(costs.min(), costs.max(), points)
        places = {int(np.abs(costs - cost).argmin()) for cost in wanted}
        return [tried[place] for place in sorted(places)]

    def reaching(self, accuracy: float) -> float:
        """The cheapest threshold with at least this top-1 accuracy. Raises `GlimpseZooError` if none has it."""
        outcomes = {threshold: self.outcome(threshold) for threshold in self.candidates()}
        good = [threshold for threshold, (top1, _) in outcomes.items() if top1 >= accuracy]
        if not good:
            best = max((top1 for top1, _ in outcomes.values()), default=0.0)
            raise GlimpseZooError(
                f"expected an accuracy that the {self.rule.name} rule reaches on the calibration split, got {accuracy:g}: "
                f"it reaches {best:.4f} at most"
            )
        return min(good, key=lambda threshold: outcomes[threshold][1])

    def within(self, macs: float) -> float:
        """The most accurate threshold of at most so many MACs an image.

        Raises `GlimpseZooError` if all cost more, and if nobody knows what they cost.
        """
        if self.missing:
            raise GlimpseZooError(
                f"a budget in MACs expects a model whose operations all have a formula, got {', '.join(self.missing)} without one: "
                "ask for an accuracy or a threshold instead"
            )
        outcomes = {threshold: self.outcome(threshold) for threshold in self.candidates()}
        cheap = [threshold for threshold, (_, cost) in outcomes.items() if cost <= macs]
        if not cheap:
            least = min((cost for _, cost in outcomes.values()), default=0.0)
            raise GlimpseZooError(
                f"expected a budget that the {self.rule.name} rule can keep, got {macs:g} MACs an image: it takes {least:.0f} at least"
            )
        return max(cheap, key=lambda threshold: outcomes[threshold])


@torch.no_grad()
def calibrate(
    model: GlimpseModel[Any], data: ImageData, rule: type[ThresholdRule], *, seed: int = 0, on_bad_image: OnBadImage = "fail"
) -> Calibration:
    """Let the model take all its steps on `data`, a calibration split, and note score, outcome and cost of stopping at each.

    on_bad_image: 'fail' raises `BadImageError`; 'skip' leaves the image out. Raises `NoCalibrationError` where there is no image left.
    """
    meter, scores, hits, costs = Meter(model), [], [], []
    with evaluating(model):
        for batch in batches(data, 0, len(data), auto_batch_size(data.task, model.device), 0, on_bad_image=on_bad_image):
            if not len(batch.ids):
                continue
            images, noise = batch.images.to(model.device), Noise.of(seed, batch.ids.to(model.device))
            trace = rollout(model, images, noise=noise, record=Record(every_step=True, meter=meter))
            assert trace.macs is not None
            logits = trace.logits_by_step().float()
            steps = range(1, trace.steps + 1)
            stopped = [sum(trace.macs.stopped_at(t, classify_every_step=True).values()) for t in steps]
            scores.append(torch.stack([rule.score(logits[:, :t]) for t in steps], 1))
            hits.append(logits.argmax(-1) == batch.labels.to(model.device)[:, None])
            costs.append(torch.stack([torch.as_tensor(cost) for cost in stopped], 1))
    if not scores:
        raise NoCalibrationError(
            f"expected calibration images of {data.info.name} that can be read, got none among {len(data)}: add images to its training data"
        )
    arrays = (torch.cat(parts).cpu().numpy() for parts in (scores, hits, costs))
    return Calibration(rule, *arrays, missing=tuple(sorted(meter.missing)))


def point(rule: ExitRule, rows: Rows) -> AnytimePoint:
    """What a run under `rule` gave. The fixed rule stands at the threshold of its budget, in steps."""
    return AnytimePoint(
        rule=rule.name,
        threshold=rule.parameters.get("threshold", float(rows.steps)),
        top1=proportion(rows.hits[:, -1], rows.group),
        macs_mean=float(rows.macs.mean()),
        steps_mean=float(rows.exit_step.mean()),
        exits=tuple(float((rows.exit_step == step).mean()) for step in range(1, rows.steps + 1)),
    )


def stops(rows: Rows) -> list[AnytimePoint]:
    """What the same run gives if all images stop at step 1, 2, ...: the fixed rule, up to the whole run. rows: of the whole run."""
    found = []
    for step in range(1, rows.steps):
        last = np.minimum(rows.exit_step, step)  # who is done sooner stops sooner
        found.append(
            AnytimePoint(
                rule=Fixed.name,
                threshold=float(step),
                top1=proportion(rows.hits[:, step - 1], rows.group),
                macs_mean=float(rows.macs_by_step[:, step - 1].mean()),
                steps_mean=float(last.mean()),
                exits=tuple(float((last == look).mean()) for look in range(1, rows.steps + 1)),
            )
        )
    return [*found, point(Fixed(), rows)]


def area(curve: Sequence[AnytimePoint]) -> float:
    """The area under accuracy against MACs over the width of the curve (trapezoidal): the mean accuracy over the budgets it spans."""
    macs, top1 = _by_cost(curve)
    width = macs[-1] - macs[0]
    return float(((top1[1:] + top1[:-1]) / 2 * np.diff(macs)).sum() / width) if width else float(top1.max())


@dataclass(frozen=True)
class Outcome:
    """How n images fared in one run, and at which cost. id, group: of the images."""

    id: Int[ndarray, "n"]
    group: Int[ndarray, "n"]
    hits: Bool[ndarray, "n"]
    macs: Int[ndarray, "n"]

    @classmethod
    def of(cls, rows: Rows) -> "Outcome":
        """At the images' last looks."""
        return cls(rows.id, rows.group, rows.hits[:, -1], rows.macs)

    @classmethod
    def stopped(cls, rows: Rows) -> "list[Outcome]":
        """Of all images stopped at step 1, 2, ..., and of the whole run. rows: of the whole run."""
        early = [cls(rows.id, rows.group, rows.hits[:, step], rows.macs_by_step[:, step]) for step in range(rows.steps - 1)]
        return [*early, cls.of(rows)]

    def at(self, ids: Int[ndarray, "m"]) -> "Outcome":
        """Of these images, in the order of their ids."""
        order = np.argsort(self.id)
        place = order[np.searchsorted(self.id[order], ids)]
        return Outcome(self.id[place], self.group[place], self.hits[place], self.macs[place])


def equal_accuracy(curve: Sequence[Outcome], baseline: str, reference: Outcome) -> EqualAccuracy:
    """The cost at which `curve` first has the baseline's accuracy, linear between points, as a share of the baseline's MACs.

    curve: one outcome for each point. reference: the outcome of the baseline. All are taken on the images that they have in common, and
    the interval is a percentile bootstrap over source images, which are drawn for all runs at once. A sample whose curve does not reach
    the baseline's accuracy counts as an infinite ratio: with more than 2.5 % of them, the interval has no upper end.
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
    """The ratio of each sample; infinite where the curve does not reach the baseline. Columns: accuracy and MACs of each run, it last."""
    pairs = means.reshape(len(means), -1, 2)  # [R, K + 1, 2]
    top1, macs, wanted, price = pairs[:, :-1, 0], pairs[:, :-1, 1], pairs[:, -1:, 0], pairs[:, -1, 1]
    order = np.lexsort((top1, macs), axis=1)  # by cost, then by accuracy
    macs, top1 = np.take_along_axis(macs, order, 1), np.take_along_axis(top1, order, 1)
    top1 = np.maximum.accumulate(top1, axis=1)  # who can afford more may still stop early
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
