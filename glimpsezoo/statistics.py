"""Intervals and tests: how far a measured number can be trusted.

Images of one group (one source image) are not independent, so whole groups are resampled. All resampling is a function of the data
and a fixed seed: the same rows give the same interval. Arrays are numpy; n images, T steps, G groups, R resamples.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from threadpoolctl import threadpool_limits

from glimpsezoo.records import Estimate, Pair

LEVEL = 0.95  # of every interval
Z = 1.959963984540054  # the normal quantile of that level, two-sided
RESAMPLES = 10_000
BINS = 15  # of the calibration error, of equal width
SEED = 0
_CHUNK = 1 << 22  # numbers drawn at once: bounds the memory to about 100 MB


def wilson(hits: int, n: int) -> tuple[float, float]:
    """The 95 % interval of a proportion of n independent images (Wilson 1927; Brown, Cai & DasGupta 2001, equation 4).

    >>> low, high = wilson(9, 10)
    >>> round(low, 4), round(high, 4)
    (0.5958, 0.9821)
    """
    share, z2 = hits / n, Z * Z
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z / (1 + z2 / n) * np.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    # At the ends the bound is exactly 0 or 1; rounding must not push the value outside its interval.
    return (0.0 if hits == 0 else float(middle - half)), (1.0 if hits == n else float(middle + half))


@dataclass(frozen=True)
class Groups:
    """Which images belong together. index: [n] each image's group, 0 to count - 1."""

    index: Int[ndarray, "n"]
    count: int

    @classmethod
    def of(cls, groups: Int[ndarray, "n"]) -> "Groups":
        """From any group numbers [n]."""
        names, index = np.unique(groups, return_inverse=True)
        return cls(index.reshape(-1), len(names))

    @property
    def single(self) -> bool:
        """Whether every image is a group of its own."""
        return self.count == len(self.index)

    def sums(self, columns: Float[ndarray, "n m"]) -> Float[ndarray, "G m"]:
        """Sums over the images of each group."""
        total = np.zeros((self.count, columns.shape[1]))
        np.add.at(total, self.index, columns)
        return total

    def resampled_sums(self, columns: Float[ndarray, "n m"], seed: int = SEED) -> Float[ndarray, "R m+1"]:
        """Column sums of `RESAMPLES` samples of G groups drawn with replacement; the last column of the answer counts the images."""
        sums = self.sums(np.column_stack([columns, np.ones(len(columns))]))
        kinds, times = np.unique(sums, axis=0, return_counts=True)
        draw = np.random.default_rng(seed)
        with threadpool_limits(1, "blas"):  # a second thread gains a fifth here, and waiting for a busy one costs seconds
            if len(kinds) * RESAMPLES <= _CHUNK:  # few groups, or many alike: draw how often each kind comes
                return draw.multinomial(self.count, times / self.count, size=RESAMPLES).astype(float) @ kinds
            step = max(1, _CHUNK // self.count)
            parts = [_drawn_sums(sums, min(step, RESAMPLES - first), draw) for first in range(0, RESAMPLES, step)]
        return np.concatenate(parts)

    def flipped_sums(self, values: Int[ndarray, "n"], seed: int = SEED) -> Int[ndarray, "R"]:
        """Sums of `values` [n] with the sign of every group's sum flipped or kept by a fair coin."""
        sums = self.sums(values[:, None].astype(float))[:, 0].astype(int)
        sizes, times = np.unique(np.abs(sums), return_counts=True)
        kept = np.random.default_rng(seed).binomial(times, 0.5, size=(RESAMPLES, len(times)))  # of each size, how many count as plus
        return (2 * kept - times) @ sizes


def _drawn_sums(sums: Float[ndarray, "G m"], resamples: int, draw: np.random.Generator) -> Float[ndarray, "r m"]:
    """Draw group after group and count: where no two groups are alike, several times as quick as a multinomial draw."""
    groups = len(sums)
    drawn = draw.integers(groups, size=(resamples, groups)) + np.arange(resamples)[:, None] * groups
    weights = np.bincount(drawn.ravel(), minlength=resamples * groups).reshape(resamples, groups)
    return weights.astype(float) @ sums


def _interval(resampled: Float[ndarray, "R"]) -> tuple[float, float]:
    low, high = np.quantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def proportion(hits: Bool[ndarray, "n"], groups: Int[ndarray, "n"]) -> Estimate:
    """The share of hits: Wilson's interval if every image is a group of its own, else a percentile bootstrap over groups.

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
    elif right in {0, n}:  # no resample differs: as if each group were one independent image
        low, high = wilson(right // n * groups.count, groups.count)
    else:
        low, high = _interval(resampled)
    return Estimate(value=right / n, low=low, high=high, n=n, groups=groups.count)


def mean_share(shares: Float[ndarray, "n"], groups: Int[ndarray, "n"]) -> Estimate:
    """The mean of shares in [0, 1], one an image (of conditions survived, say), with a percentile bootstrap over groups.

    >>> mean_share(np.array([0.25, 0.5, 0.75]), np.arange(3)).value
    0.5
    """
    found = Groups.of(groups)
    resampled = found.resampled_sums(shares[:, None].astype(float))
    return _mean(shares, found, resampled[:, 0] / resampled[:, -1])


@dataclass(frozen=True)
class Scores:
    """How n images fared at T steps. hits, top5: right or not. nll: in nats. confidence: the predicted class's probability."""

    hits: Bool[ndarray, "n T"]
    top5: Bool[ndarray, "n T"]
    nll: Float[ndarray, "n T"]
    confidence: Float[ndarray, "n T"]


class StepEstimates(NamedTuple):
    """The estimates of one step."""

    top1: Estimate
    top5: Estimate
    nll: Estimate
    ece: Estimate


def classification(scores: Scores, groups: Int[ndarray, "n"]) -> list[StepEstimates]:
    """Estimates for each of T steps, all from the same resamples."""
    found, steps = Groups.of(groups), scores.hits.shape[1]
    columns = {"nll": scores.nll, "ece": calibration_gaps(scores.confidence, scores.hits).reshape(len(groups), -1)}
    if not found.single:
        columns |= {"top1": scores.hits, "top5": scores.top5}
    resampled = found.resampled_sums(np.column_stack(list(columns.values())).astype(float))
    means = resampled[:, :-1] / resampled[:, -1:]
    ends = np.cumsum([column.shape[1] for column in columns.values()])
    of = dict(zip(columns, np.split(means, ends[:-1], axis=1), strict=True))
    eces = np.abs(of["ece"].reshape(len(means), steps, BINS)).sum(2)
    return [
        StepEstimates(
            _proportion(scores.hits[:, t], found, None if found.single else of["top1"][:, t]),
            _proportion(scores.top5[:, t], found, None if found.single else of["top5"][:, t]),
            _mean(scores.nll[:, t], found, of["nll"][:, t]),
            _calibration_error(scores.confidence[:, t], scores.hits[:, t], found, eces[:, t]),
        )
        for t in range(steps)
    ]


def _mean(values: Float[ndarray, "n"], groups: Groups, resampled: Float[ndarray, "R"]) -> Estimate:
    low, high = _interval(resampled)
    return Estimate(value=float(values.mean(dtype=float)), low=low, high=high, n=len(values), groups=groups.count)


def _calibration_error(
    confidence: Float[ndarray, "n"], hits: Bool[ndarray, "n"], groups: Groups, resampled: Float[ndarray, "R"]
) -> Estimate:
    """The interval is widened to hold the value: an absolute value grows when resampled, so that its percentiles lie high."""
    value, (low, high) = calibration_error(confidence, hits), _interval(resampled)
    return Estimate(value=value, low=min(low, value), high=max(high, value), n=len(hits), groups=groups.count)


def calibration_gaps(confidence: Float[ndarray, "n T"], hits: Bool[ndarray, "n T"]) -> Float[ndarray, "n T bins"]:
    """Confidence less hit, in the column of its bin ((b - 1) / 15, b / 15]; zero in the others."""
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


def paired(a: str, b: str, hits_a: Bool[ndarray, "n"], hits_b: Bool[ndarray, "n"], groups: Int[ndarray, "n"], seed: int = SEED) -> Pair:
    """Models `a` and `b` on the same images: the difference of their accuracies, and whether `a` is worse.

    p is exact (McNemar: a binomial on the images that one alone gets right) if every image is a group of its own; else from a
    permutation that swaps a and b for whole groups, with the observed order counted in (Phipson & Smyth 2010).

    >>> right, wrong = np.ones(5, dtype=bool), np.zeros(5, dtype=bool)
    >>> paired("a", "b", wrong, right, np.arange(5)).p
    0.03125
    """
    found, gain = Groups.of(groups), hits_a.astype(int) - hits_b.astype(int)
    only_a, only_b = int((gain > 0).sum()), int((gain < 0).sum())
    resampled = found.resampled_sums(gain[:, None].astype(float), seed)
    low, high = _interval(resampled[:, 0] / resampled[:, 1])
    if found.single:
        p = fair_coin_tail(only_a, only_a + only_b)
    else:
        p = (1 + int((found.flipped_sums(gain, seed) <= gain.sum()).sum())) / (1 + RESAMPLES)
    difference = float(gain.mean())
    return Pair(a=a, b=b, n=len(gain), only_a=only_a, only_b=only_b, difference=difference, low=low, high=high, p=p)


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
