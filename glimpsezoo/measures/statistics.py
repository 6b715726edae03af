"""Confidence intervals and tests.

Images of one group (one source image) are not independent, so whole groups are resampled. All resampling is a function of the data
and a fixed seed: the same rows give the same interval. Arrays are numpy; n images, T steps, G groups, R resamples.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Annotated, Any, NamedTuple, Self

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from pydantic import AfterValidator, Field, model_validator
from threadpoolctl import threadpool_limits

from glimpsezoo.errors import GlimpseZooError
from glimpsezoo.schema import Positive, Section

LEVEL = 0.95  # of every interval
Z = 1.959963984540054  # the normal quantile of that level, two-sided
RESAMPLES = 10_000
TESTED = 2_500  # how many of these a test of a calibration error uses
BINS = 15  # of the calibration error, of equal width
SEED = 0
ROUNDING = 1e-9  # what a mean of shares may exceed their range by
_CHUNK = 1 << 22  # numbers drawn at once: bounds the memory to about 100 MB


class Estimate(Section):
    """A number with its 95 % interval.

    Proportions have Wilson's interval. If a source image appears several times, and for NLL, the interval is a percentile bootstrap over
    source images; for ECE, it inverts bootstrap tests over source images.
    """

    value: float
    """The number."""
    low: float
    """Lower end of the interval."""
    high: float
    """Upper end of the interval."""
    n: Positive
    """Number of images."""
    groups: Positive
    """Number of independent source images among them."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"expected an interval, got its lower end {self.low} above its upper end {self.high}")
        return self


def _within(least: float, most: float, estimate: Estimate) -> Estimate:
    wrong = [x for x in (estimate.value, estimate.low, estimate.high) if not least - ROUNDING <= x <= most + ROUNDING]
    if wrong:
        raise ValueError(f"expected a number from {least:g} to {most:g}, got {wrong[0]}")
    return estimate


def _bounds(**limits: float) -> dict[str, Any]:
    """What the JSON Schema says of the numbers of an estimate."""
    return {"properties": dict.fromkeys(("value", "low", "high"), limits)}


Rate = Annotated[Estimate, AfterValidator(partial(_within, 0.0, 1.0)), Field(json_schema_extra=_bounds(minimum=0, maximum=1))]
"""An estimate of a share."""
Loss = Annotated[Estimate, AfterValidator(partial(_within, 0.0, np.inf)), Field(json_schema_extra=_bounds(minimum=0))]
"""An estimate of what is not negative."""


def wilson(hits: int, n: int) -> tuple[float, float]:
    """The 95 % interval of a proportion of n independent images (Wilson 1927; Brown, Cai & DasGupta 2001, equation 4).

    >>> low, high = wilson(9, 10)
    >>> round(low, 4), round(high, 4)
    (0.5958, 0.9821)
    """
    share, z2 = hits / n, Z * Z
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z / (1 + z2 / n) * np.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    # For 0 and n hits, a bound is exactly 0 or 1; rounding must not put the value outside its interval.
    return (0.0 if hits == 0 else float(middle - half)), (1.0 if hits == n else float(middle + half))


@lru_cache(maxsize=4096)
def lower_bound(hits: int, n: int, alpha: float) -> float:
    """The one-sided lower bound of a proportion, at confidence 1 - alpha (Clopper & Pearson 1934): the share of which `hits` or more of n
    have the probability alpha.

    >>> round(lower_bound(1000, 1000, 0.001), 6) == round(0.001 ** (1 / 1000), 6)
    True
    """
    if hits == 0:
        return 0.0
    ways = np.concatenate([[0.0], np.log(np.arange(n, 0, -1) / np.arange(1, n + 1)).cumsum()])[hits:]  # log of n over k, k = hits..n
    k = np.arange(hits, n + 1)
    low, high = 0.0, 1.0
    while (middle := (low + high) / 2) not in {low, high}:  # to the last bit
        tail = np.exp(ways + k * np.log(middle) + (n - k) * np.log1p(-middle)).sum()
        low, high = (middle, high) if tail < alpha else (low, middle)
    return low


@dataclass(frozen=True)
class Groups:
    """Which images come from the same source."""

    index: Int[ndarray, "n"]
    """The group of each image, 0 to count - 1."""
    count: int
    """Number of groups."""

    @classmethod
    def of(cls, groups: Int[ndarray, "n"]) -> "Groups":
        """The groups for arbitrary group numbers [n]. Raises `GlimpseZooError` for n = 0."""
        if not len(groups):
            raise GlimpseZooError("expected at least one image to estimate from, got none: measure some")
        names, index = np.unique(groups, return_inverse=True)
        return cls(index.reshape(-1), len(names))

    @property
    def single(self) -> bool:
        """Whether every image is its own group."""
        return self.count == len(self.index)

    def sums(self, columns: Float[ndarray, "n m"]) -> Float[ndarray, "G m"]:
        """Sums over the images of each group."""
        total = np.zeros((self.count, columns.shape[1]))
        np.add.at(total, self.index, columns)
        return total

    def resampled_sums(self, columns: Float[ndarray, "n m"]) -> Float[ndarray, "R m+1"]:
        """Column sums of `RESAMPLES` samples of G groups, drawn with replacement. The last column is the number of images."""
        sums = self.sums(np.column_stack([columns, np.ones(len(columns))]))
        kinds, times = np.unique(sums, axis=0, return_counts=True)
        draw = np.random.default_rng(SEED)
        with threadpool_limits(1, "blas"):  # a second thread saves a fifth of the time here, but waiting for a busy one costs seconds
            if len(kinds) * RESAMPLES <= _CHUNK:  # few distinct groups: draw how often each occurs
                return draw.multinomial(self.count, times / self.count, size=RESAMPLES).astype(float) @ kinds
            step = max(1, _CHUNK // self.count)
            parts = [_drawn_sums(sums, min(step, RESAMPLES - first), draw) for first in range(0, RESAMPLES, step)]
        return np.concatenate(parts)

    def flipped_sums(self, values: Int[ndarray, "n"]) -> Int[ndarray, "R"]:
        """Sums of `values` [n] after the sign of each group's sum was flipped with probability 1/2."""
        sums = self.sums(values[:, None].astype(float))[:, 0].astype(int)
        sizes, times = np.unique(np.abs(sums), return_counts=True)
        kept = np.random.default_rng(SEED).binomial(times, 0.5, size=(RESAMPLES, len(times)))  # for each size, how many keep their sign
        return (2 * kept - times) @ sizes


def _drawn_sums(sums: Float[ndarray, "G m"], resamples: int, draw: np.random.Generator) -> Float[ndarray, "r m"]:
    """Sums of drawn groups, drawn one by one. If all groups differ, this is several times faster than a multinomial draw."""
    groups = len(sums)
    drawn = draw.integers(groups, size=(resamples, groups)) + np.arange(resamples)[:, None] * groups
    weights = np.bincount(drawn.ravel(), minlength=resamples * groups).reshape(resamples, groups)
    return weights.astype(float) @ sums


def percentile_interval(resampled: Float[ndarray, "R"]) -> tuple[float, float]:
    """The 95 % percentile interval of resampled values."""
    low, high = np.quantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def proportion(hits: Bool[ndarray, "n"], groups: Int[ndarray, "n"]) -> Estimate:
    """The share of hits, with Wilson's interval if every image is its own group, else a percentile bootstrap over groups.

    >>> proportion(np.array([True, True, False, True]), np.arange(4)).value
    0.75
    """
    found = Groups.of(groups)
    resampled = None if found.single else found.resampled_sums(hits[:, None].astype(float))
    return _proportion(hits, found, None if resampled is None else resampled[:, 0] / resampled[:, -1])


def _proportion(hits: Bool[ndarray, "n"], groups: Groups, resampled: Float[ndarray, "R"] | None) -> Estimate:
    n, right = len(hits), int(hits.sum())
    if resampled is None:
        low, high = wilson(right, n)
    elif right in {0, n}:  # all resamples are equal: use the groups as independent images
        low, high = wilson(right // n * groups.count, groups.count)
    else:
        low, high = percentile_interval(resampled)
    return Estimate(value=right / n, low=low, high=high, n=n, groups=groups.count)


def mean_share(values: Float[ndarray, "n"], groups: Int[ndarray, "n"]) -> Estimate:
    """The mean of one number per image (such as the share of conditions survived), with a percentile bootstrap over groups.

    >>> mean_share(np.array([0.25, 0.5, 0.75]), np.arange(3)).value
    0.5
    """
    found = Groups.of(groups)
    resampled = found.resampled_sums(values[:, None].astype(float))
    return _mean(values, found, resampled[:, 0] / resampled[:, -1])


@dataclass(frozen=True)
class Scores:
    """Classification scores of n images at T steps."""

    hits: Bool[ndarray, "n T"]
    """Whether the prediction is the label."""
    top5: Bool[ndarray, "n T"]
    """Whether the label is among the five largest logits."""
    nll: Float[ndarray, "n T"]
    """Negative log-likelihood, in nats."""
    confidence: Float[ndarray, "n T"]
    """Probability of the prediction."""


class StepEstimates(NamedTuple):
    """The estimates of one step."""

    top1: Estimate
    """Accuracy."""
    top5: Estimate
    """Share of images with the label among the five largest logits."""
    nll: Estimate
    """Mean negative log-likelihood, in nats."""
    ece: Estimate
    """Expected calibration error."""


def classification(scores: Scores, groups: Int[ndarray, "n"]) -> list[StepEstimates]:
    """The estimates of each of T steps, all from the same resamples."""
    found, steps = Groups.of(groups), scores.hits.shape[1]
    columns = {"nll": scores.nll, "ece": calibration_gaps(scores.confidence, scores.hits).reshape(len(groups), -1)}
    if not found.single:
        columns |= {"top1": scores.hits, "top5": scores.top5}
    resampled = found.resampled_sums(np.column_stack(list(columns.values())).astype(float))
    means = resampled[:, :-1] / resampled[:, -1:]
    ends = np.cumsum([column.shape[1] for column in columns.values()])
    of = dict(zip(columns, np.split(means, ends[:-1], axis=1), strict=True))
    gaps = of["ece"].reshape(len(means), steps, BINS)
    return [
        StepEstimates(
            _proportion(scores.hits[:, t], found, None if found.single else of["top1"][:, t]),
            _proportion(scores.top5[:, t], found, None if found.single else of["top5"][:, t]),
            _mean(scores.nll[:, t], found, of["nll"][:, t]),
            _calibration_error(scores.confidence[:, t], scores.hits[:, t], found, gaps[:, t]),
        )
        for t in range(steps)
    ]


def _mean(values: Float[ndarray, "n"], groups: Groups, resampled: Float[ndarray, "R"]) -> Estimate:
    low, high = percentile_interval(resampled)
    return Estimate(value=float(values.mean(dtype=float)), low=low, high=high, n=len(values), groups=groups.count)


def _calibration_error(
    confidence: Float[ndarray, "n"], hits: Bool[ndarray, "n"], groups: Groups, resampled: Float[ndarray, "R bins"]
) -> Estimate:
    """The calibration error of these images, with an interval for that of the population.

    The value is biased upwards; the interval is widened to contain it. resampled: the mean gap of each bin in each resample.
    """
    gaps = calibration_gaps(confidence[:, None], hits[:, None]).sum((0, 1)) / len(hits)  # [bins]
    low, high = _error_interval(gaps, resampled[:TESTED] - gaps)
    value = float(np.abs(gaps).sum())
    return Estimate(value=value, low=min(low, value), high=max(high, value), n=len(hits), groups=groups.count)


def _error_interval(gaps: Float[ndarray, "bins"], noise: Float[ndarray, "R bins"]) -> tuple[float, float]:
    """The interval of true errors that are compatible with the measured one: inverted bootstrap tests (Carpenter 1999).

    The absolute value of a noisy gap is larger on average than that of the true gap, so percentiles of resampled errors lie above the
    truth: for a calibrated model, they never contain 0. Instead, each candidate error e is tested: gaps that sum to e, plus the bootstrap's
    noise, give a distribution of measured errors; e is kept if the measured error has at least 2.5 % of it on either side. How e is spread
    over the bins is unknown and affects the bias. Three ways are tried, and e is kept if any of them keeps it: like the measured gaps, like
    these minus the contribution of noise to their squares, and like the noise (uniform if all bins have the same size).
    """
    value, tail, variance = np.abs(gaps).sum(), (1 - LEVEL) / 2, noise.var(0)

    def errors(shape: Float[ndarray, "bins"], error: float) -> Float[ndarray, "R"]:
        return np.abs(error * shape + noise).sum(1)

    ends = []
    for spread in (np.abs(gaps), np.sqrt(np.maximum(gaps**2 - variance, 0)), np.sqrt(variance)):
        if (total := spread.sum()) == 0:
            continue
        shape = np.where(gaps < 0, -1, 1) * spread / total
        low = _first(lambda e, shape=shape: bool((errors(shape, e) >= value).mean() >= tail), value)
        high = _first(lambda e, shape=shape: bool((errors(shape, e) <= value).mean() < tail), 3 * value)
        ends.append((low, high))
    by_chance = np.abs(noise).sum(1)
    if (by_chance <= value).mean() < tail:  # below what a calibrated model gives: no error fits, so take those that chance alone gives
        ends.append((0.0, float(np.quantile(by_chance, 1 - tail))))
    return min((low for low, _ in ends), default=0.0), min(1.0, max((high for _, high in ends), default=0.0))


def _first(holds: Callable[[float], bool], most: float) -> float:
    """The smallest number in [0, most] from which on `holds` is true, within `most` / 10,000; `most` if there is none."""
    if holds(0.0):
        return 0.0
    low = 0.0
    for _ in range(14):
        middle = (low + most) / 2
        low, most = (low, middle) if holds(middle) else (middle, most)
    return most


def calibration_gaps(confidence: Float[ndarray, "n T"], hits: Bool[ndarray, "n T"]) -> Float[ndarray, "n T bins"]:
    """Confidence minus hit in the column of its bin ((b - 1) / 15, b / 15]; zero in the other columns."""
    place = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    gaps = np.zeros((*confidence.shape, BINS))
    np.put_along_axis(gaps, place[..., None], (confidence.astype(float) - hits)[..., None], axis=-1)
    return gaps


def calibration_error(confidence: Float[ndarray, "n"], hits: Bool[ndarray, "n"]) -> float:
    """The expected calibration error (Guo et al. 2017, equation 3) with 15 equal bins.

    >>> round(calibration_error(np.array([0.9, 0.9]), np.array([True, False])), 6)
    0.4
    """
    return float(np.abs(calibration_gaps(confidence[:, None], hits[:, None]).sum((0, 1))).sum() / len(hits))


@dataclass(frozen=True)
class Effect:
    """A difference with its 95 % interval."""

    value: float
    """The difference."""
    low: float
    """Lower end of the interval."""
    high: float
    """Upper end of the interval."""
    p: float | None = None
    """One-sided p-value for a difference of this sign; None if images cannot be paired."""


def over_seeds(gains: Int[ndarray, "S n"], groups: Int[ndarray, "n"]) -> Effect:
    """The mean of `gains`, the gain of each of n images in each of S trainings.

    Groups of images are resampled. From three trainings on, trainings are resampled too, and p comes from the same resamples. With fewer,
    the interval is about these trainings only, and p comes from a permutation that flips the signs of whole groups.

    >>> over_seeds(np.array([[1, 0, 1, 0], [1, 1, 0, 0], [1, 0, 0, 1]]), np.arange(4)).value
    0.5
    """
    found, value = Groups.of(groups), float(gains.mean())
    resampled = found.resampled_sums(gains.T.astype(float))
    means = resampled[:, :-1] / resampled[:, -1:]  # [R, S]
    if len(gains) < 3:
        drawn, flipped = means.mean(1), found.flipped_sums(gains.sum(0))
        chance = int((flipped >= abs(gains.sum())).sum())
    else:
        chosen = np.random.default_rng(SEED).integers(len(gains), size=means.shape)
        drawn = np.take_along_axis(means, chosen, axis=1).mean(1)
        chance = int((drawn * np.sign(value) <= 0).sum())
    low, high = percentile_interval(drawn)
    return Effect(value, low, high, (1 + chance) / (1 + RESAMPLES))


def unpaired(a: Estimate, b: Estimate) -> Effect:
    """a minus b for estimates from unpaired images, by the intervals of both (Zou & Donner 2008: MOVER).

    >>> shown = unpaired(Estimate(value=0.9, low=0.8, high=1.0, n=9, groups=9), Estimate(value=0.5, low=0.5, high=0.5, n=9, groups=9))
    >>> round(shown.low, 6), round(shown.high, 6)
    (0.3, 0.5)
    """
    value = a.value - b.value
    below, above = np.hypot(a.value - a.low, b.high - b.value), np.hypot(a.high - a.value, b.value - b.low)
    return Effect(value, float(value - below), float(value + above))


def fair_coin_tail(heads: int, tosses: int) -> float:
    """The probability of at most `heads` heads in `tosses` tosses of a fair coin, in exact integers.

    >>> fair_coin_tail(1, 3)
    0.5
    """
    ways, total = 1, 0
    for k in range(heads + 1):
        total += ways
        ways = ways * (tosses - k) // (k + 1)
    return total / 2**tosses
