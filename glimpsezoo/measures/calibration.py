"""Thresholds of early exits, chosen on the calibration split.

A threshold is chosen by simulating exits on calibration images, for which all steps are run. Its effect is then measured on the reported
split, where images that exit leave the batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from pydantic import Field, model_validator
from torch import Tensor

from glimpsezoo.core.exits import ExitRule, ThresholdRule
from glimpsezoo.core.inference import inference
from glimpsezoo.core.macs import Meter, meter_of
from glimpsezoo.core.noise import Noise
from glimpsezoo.core.protocol import GlimpseModel
from glimpsezoo.core.rollout import Record, rollout
from glimpsezoo.data.base import Batch, ImageData
from glimpsezoo.data.loading import batches
from glimpsezoo.errors import GlimpseZooError
from glimpsezoo.evaluation.jobs import Job, identity_of
from glimpsezoo.evaluation.measuring import EvaluationConfig
from glimpsezoo.evaluation.memory import Parts
from glimpsezoo.evaluation.plan import PlannedFinding
from glimpsezoo.hashing import module_hash
from glimpsezoo.measures.catalogue import EXITS
from glimpsezoo.schema import Section
from glimpsezoo.settings import Settings
from glimpsezoo.specs import ExitRuleSpec, load_string

if TYPE_CHECKING:  # base imports this module
    from glimpsezoo.measures.base import Catalogue, Measure, Sets

CANDIDATES = 400  # thresholds to try; between neighbours, the share of exits changes by about 1/400


class NoCalibrationError(GlimpseZooError):
    """There is no calibration image to find thresholds on."""


class ExitSettings(Settings):
    """`--set anytime.KEY`: the exit rule and its thresholds, found on the calibration split unless `threshold` is given."""

    rule: str = "confidence"
    """An exit rule with a threshold: see 'glimpsezoo list exit-rules'."""
    points: int = Field(5, ge=1, le=100)
    """Number of thresholds of the curve; their costs are evenly spread."""
    accuracy: float | None = Field(None, ge=0, le=1)
    """One more point: the cheapest threshold with this top-1 accuracy in [0, 1] on the calibration split; attacks on exits and the times of
    early exits use it too.
    """
    macs: float | None = Field(None, gt=0)
    """One more point instead: the most accurate threshold with at most this many MACs per image."""
    threshold: float | None = None
    """One more point instead: this threshold."""

    @model_validator(mode="after")
    def _one_target(self) -> "ExitSettings":
        given = [key for key in ("accuracy", "macs", "threshold") if getattr(self, key) is not None]
        if len(given) > 1:
            raise ValueError(f"expected one of accuracy, macs and threshold, got {' and '.join(given)}: name one target")
        return self

    @property
    def target(self) -> bool:
        """Whether the user asked for one more point."""
        return any(each is not None for each in (self.accuracy, self.macs, self.threshold))

    def chosen(self, found: "Calibration") -> float | None:
        """The threshold that the user's target asks for. Raises `GlimpseZooError` if the rule cannot reach it."""
        if self.accuracy is not None:
            return found.reaching(self.accuracy)
        return found.within(self.macs) if self.macs is not None else self.threshold


def exit_settings(sets: "Sets", catalogue: "Catalogue") -> tuple[ExitSettings, type[ThresholdRule]]:
    """`--set anytime.KEY`, and the class of the exit rule. Raises `GlimpseZooError`."""
    settings = ExitSettings.parse(sets.of(EXITS), owner=EXITS)
    rule = load_string(catalogue.find(ExitRuleSpec, settings.rule).rule)
    if not issubclass(rule, ThresholdRule):
        raise GlimpseZooError(f"anytime.rule expects a rule with a threshold, got {settings.rule!r}: try 'confidence'")
    return settings, rule


def given_rule(sets: "Sets", catalogue: "Catalogue") -> ThresholdRule | None:
    """The exit rule at the threshold that `--set` names, for a command that does not calibrate; None if nothing is set."""
    given = sets.of(EXITS)
    settings, rule = exit_settings(sets, catalogue)
    if not given:
        return None
    others = [key for key in given if key not in {"rule", "threshold"}]
    if others or settings.threshold is None:
        got = f"{EXITS}.{others[0]}" if others else f"{EXITS}.rule alone"
        raise GlimpseZooError(f"expected the threshold of an exit rule, got {got}: add one, for example --set {EXITS}.threshold=0.9")
    return rule(settings.threshold)


class CalibrationRecord(Section):
    """A `Calibration` as the store keeps it."""

    score: list[list[float]]
    """The exit rule's score, per image and step."""
    hits: list[list[bool]]
    """Whether the prediction is the label, per image and step."""
    macs: list[list[int]]
    """Cost of a run stopped at that step, per image and step."""
    missing: tuple[str, ...]
    """Operations without a formula."""

    def calibration(self, rule: type[ThresholdRule]) -> "Calibration":
        arrays = (np.array(self.score, np.float32), np.array(self.hits, bool), np.array(self.macs, np.int64))
        return Calibration(rule, *arrays, missing=self.missing)


@dataclass(frozen=True)
class Calibration:
    """Score, correctness and cost of n calibration images for stops at each of T steps."""

    rule: type[ThresholdRule]
    """The exit rule that produced the scores."""
    score: Float[ndarray, "n T"]
    """The exit rule's score at that step."""
    hits: Bool[ndarray, "n T"]
    """Whether the prediction is the label."""
    macs: Int[ndarray, "n T"]
    """Cost of a run stopped at that step."""
    missing: tuple[str, ...] = ()
    """Operations without a formula that may hold products; with any of them, `macs` are lower bounds."""

    def to_record(self) -> CalibrationRecord:
        return CalibrationRecord(score=self.score.tolist(), hits=self.hits.tolist(), macs=self.macs.tolist(), missing=self.missing)

    def candidates(self) -> list[float]:
        """Up to `CANDIDATES` thresholds in the order of rising cost, midway between the scores of steps before the last.

        Midway, so that rounding differences between batches or devices change no exit. If a rule rejects such a number (a patience is an
        integer), the score itself is used.
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
        except GlimpseZooError:  # such as a patience of 0 steps
            return False
        return True

    def outcome(self, threshold: float) -> tuple[float, float]:
        """Top-1 accuracy and mean MACs on the calibration images at `threshold`."""
        sure = self.score <= threshold if self.rule.falling else self.score >= threshold
        sure[:, -1] = True
        last, rows = sure.argmax(1), np.arange(len(sure))  # the first step that is sure enough
        return float(self.hits[rows, last].mean()), float(self.macs[rows, last].mean())

    def spread(self, points: int) -> list[float]:
        """At most `points` thresholds, evenly spread by mean MACs from the cheapest to the most expensive, in the order of rising cost."""
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
        """The most accurate threshold with at most this many MACs per image.

        Raises `GlimpseZooError` if all cost more, or if their cost is unknown.
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
                f"expected a budget that the {self.rule.name} rule can keep, got {macs:g} MACs per image: it takes {least:.0f} at least"
            )
        return max(cheap, key=lambda threshold: outcomes[threshold])


def calibrate(model: GlimpseModel[Any], data: ImageData, rule: type[ThresholdRule], config: EvaluationConfig | None = None) -> Calibration:
    """Run all steps of the model on `data`, a calibration split, and record score, correctness and cost of a stop at each step.

    Raises `BadImageError` for an image that cannot be read, unless such images are skipped; `NoCalibrationError` if no image is left.
    """
    config, meter, found = config or EvaluationConfig(), meter_of(model), list[tuple[Tensor, Tensor, Tensor]]()
    parts = Parts.of(config.batch_size, data.task, model.device)
    with inference(model):
        for batch in batches(data, 0, len(data), parts.size, config.workers, on_bad_image=config.on_bad_image):
            found += parts.over(len(batch.ids), partial(_stops, model, batch, rule, config.seed, meter))
    if not found:
        raise NoCalibrationError(
            f"expected calibration images of {data.info.name} that can be read, got none among {len(data)}: add images to its training data"
        )
    scores, hits, costs = (torch.cat(columns).cpu().numpy() for columns in zip(*found, strict=True))
    return Calibration(rule, scores, hits, costs, missing=tuple(sorted(meter.missing)))


def _stops(
    model: GlimpseModel[Any], batch: Batch, rule: type[ThresholdRule], seed: int, meter: Meter, part: slice
) -> tuple[Float[Tensor, "b T"], Bool[Tensor, "b T"], Int[Tensor, "b T"]]:
    """What a stop at each step would be: its score, whether it is right, and its cost."""
    images, labels, ids = (tensor[part].to(model.device) for tensor in (batch.images, batch.labels, batch.ids))
    noise = Noise.of(seed, ids)
    trace = rollout(model, images, noise=noise, policy=model.follows.told(noise, labels), record=Record(every_step=True, meter=meter))
    assert trace.macs is not None
    logits, steps = trace.logits_by_step().float(), range(1, trace.steps + 1)
    scores = torch.stack([rule.score(logits[:, :t]) for t in steps], 1)
    costs = [torch.as_tensor(sum(trace.macs.stopped_at(t, classify_every_step=True).values())) for t in steps]
    return scores, logits.argmax(-1) == labels[:, None], torch.stack(costs, 1)


def calibration_plan(
    model: GlimpseModel[Any], name: str, index: int, data: ImageData, rule: type[ThresholdRule], config: EvaluationConfig
) -> PlannedFinding:
    """Calibration as a piece of work that the store keeps, so that it is never done twice."""
    code = [module_hash(rule.__module__), module_hash(__name__)]
    identity = {**identity_of(Job(model, name, data), config.seed), "calibration": [rule.name, code]}
    if config.on_bad_image == "skip":  # a record that leaves images out is none where each must be read
        identity["on_bad_image"] = config.on_bad_image

    def find() -> CalibrationRecord:
        return calibrate(model, data, rule, config).to_record()

    return PlannedFinding(
        index=index, key="calibration", label="calibration", images=len(data), identity=identity, kind=CalibrationRecord, find=find
    )


def rule_without_loss(found: Calibration) -> ExitRule | None:
    """The exit rule at the cheapest threshold that loses no accuracy against running every step, on the calibration split.

    If every threshold loses some, the most expensive one is taken. None if no image exits at any threshold.
    """
    try:
        return found.rule(found.reaching(float(found.hits[:, -1].mean())))
    except GlimpseZooError:
        tried = found.candidates()
        return found.rule(tried[-1]) if tried else None


def without_thresholds(measures: "Sequence[Measure]", error: GlimpseZooError) -> str:
    """The note of a run without thresholds of early exits. Raises `GlimpseZooError` if the user named a measure that needs them.

    measures: those of the run. error: why there are no thresholds.
    """
    named = next((what for measure in measures if (what := measure.insists_on_exits)), "")
    if named:
        raise GlimpseZooError(f"{named} needs thresholds of early exits: {error}; or measure without exits (--measure quick)") from None
    return f"no thresholds of early exits, and so no anytime curve: {error}"
