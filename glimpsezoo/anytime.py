"""Accuracy against cost: thresholds from the calibration split, points from real early exits, and what a curve is worth.

A threshold is chosen by what it would do on calibration images, all of whose steps are known. What it does do is then measured: images
that exit leave the batch, on the split that is reported.
"""

from collections.abc import Sequence
from dataclasses import dataclass
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
from glimpsezoo.exits import ExitRule, ThresholdRule
from glimpsezoo.noise import Noise
from glimpsezoo.protocol import GlimpseModel
from glimpsezoo.records import AnytimePoint, EqualAccuracy
from glimpsezoo.statistics import proportion
from glimpsezoo.store import Rows

CANDIDATES = 400  # thresholds that are tried; more change a share of exits by less than a four-hundredth


@dataclass(frozen=True)
class Calibration:
    """How n calibration images fare under a rule. score, hits, macs: [n, T], of runs stopped at each step. rule: whose scores."""

    rule: type[ThresholdRule]
    score: Float[ndarray, "n T"]
    hits: Bool[ndarray, "n T"]
    macs: Int[ndarray, "n T"]

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
        """The most accurate threshold of at most so many MACs an image. Raises `GlimpseZooError` if all cost more."""
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

    on_bad_image: 'fail' raises `BadImageError`; 'skip' leaves the image out, and raises `GlimpseZooError` where none is left.
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
        raise GlimpseZooError(f"expected calibration images that can be read, got none among {len(data)}: mend the calibration split")
    return Calibration(rule, *(torch.cat(parts).cpu().numpy() for parts in (scores, hits, costs)))


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


def area(curve: Sequence[AnytimePoint]) -> float:
    """The area under accuracy against MACs over the width of the curve (trapezoidal): the mean accuracy over the budgets it spans."""
    macs, top1 = _by_cost(curve)
    width = macs[-1] - macs[0]
    return float(((top1[1:] + top1[:-1]) / 2 * np.diff(macs)).sum() / width) if width else float(top1.max())


def equal_accuracy(curve: Sequence[AnytimePoint], baseline: str, top1: float, macs: float) -> EqualAccuracy:
    """The cost at which `curve` first has the baseline's accuracy, linear between points, as a share of the baseline's MACs."""
    costs, reached = _by_cost(curve)
    reached = np.maximum.accumulate(reached)  # who can afford more may still stop early
    if reached[-1] < top1:
        return EqualAccuracy(baseline=baseline, macs_ratio=None)
    after = int((reached >= top1).argmax())
    if after == 0:
        return EqualAccuracy(baseline=baseline, macs_ratio=float(costs[0] / macs))
    share = (top1 - reached[after - 1]) / (reached[after] - reached[after - 1])
    return EqualAccuracy(baseline=baseline, macs_ratio=float((costs[after - 1] + share * (costs[after] - costs[after - 1])) / macs))


def _by_cost(curve: Sequence[AnytimePoint]) -> tuple[Float[ndarray, "k"], Float[ndarray, "k"]]:
    ordered = sorted(curve, key=lambda each: (each.macs_mean, each.top1.value))
    return np.array([each.macs_mean for each in ordered]), np.array([each.top1.value for each in ordered])
