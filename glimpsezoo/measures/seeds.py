"""Two recipes that were trained with several seeds, on the same images: the difference of their accuracies, for new seeds and new images.

A recipe's accuracy varies with the training seed and with the images. Both have to be in the variance of a difference (Bouthillier et al.,
"Accounting for variance in machine learning benchmarks", MLSys 2021, section 3): an interval over images alone is about these weights, not
about the recipes. Every training saw the same images, so seeds and images are crossed, and the seeds are nested in the recipe. The
variance of the difference d is estimated from its components, as in a two-way layout with random effects:

    var d = I + sum over the recipes of max(0, T - X)
    I: of the mean over seeds, over images (whole groups if several images come from one source)
    T: of the accuracies of the seeds, over their number
    X: of seed by image, which is in both I and T

I has the degrees of freedom of the images and T those of the seeds; those of the sum are Satterthwaite's (1946, equation 17), so that the
interval is d plus and minus Student's t times the standard error. The tests check by simulation that it covers 95 % with two to five seeds.
Arrays are numpy; n images, S seeds.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from pydantic import Field

from glimpsezoo.errors import GlimpseZooError, counted
from glimpsezoo.evaluation.rows import Rows
from glimpsezoo.measures.statistics import LEVEL, Effect, Estimate, Groups, Z
from glimpsezoo.schema import Section


class RecipePair(Section):
    """Two recipes on the same images, at the last steps of their models, over several training seeds."""

    a: str
    """Name of the first recipe: that of its cards, without a seed."""
    b: str
    """Name of the second recipe."""
    seeds_a: tuple[int, ...]
    """Training seeds of `a`. One seed alone is taken to vary as those of the other recipe do."""
    seeds_b: tuple[int, ...]
    """Training seeds of `b`."""
    n: int
    """Images."""
    difference: float
    """Mean accuracy of `a` over its seeds minus that of `b`."""
    low: float
    """Lower end of its 95 % interval, for new seeds and new images."""
    high: float
    """Upper end of that interval."""
    p: float
    """One-sided, for the claim that `a` is worse than `b`; 'not significantly worse' is p >= .05."""
    share: float = Field(ge=0, le=1)
    """Share of the variance of the difference that is due to the training seeds."""

    @property
    def names(self) -> tuple[str, str]:
        """Both recipes in words, with the number of their seeds."""
        a, b = (f"{name} ({counted(len(seeds), 'training seed')})" for name, seeds in ((self.a, self.seeds_a), (self.b, self.seeds_b)))
        return a, b


class _Components(NamedTuple):
    """Of the accuracies of one recipe's trainings."""

    seed: float
    """Variance of a training's accuracy on these images."""
    crossed: float
    """The part of it that is of seed by image."""
    seeds: int


def between_recipes(a: Float[ndarray, "S n"], b: Float[ndarray, "R n"], groups: Int[ndarray, "n"]) -> tuple[Effect, float]:
    """Mean accuracy of `a` minus that of `b`, which were trained with S and R seeds, and the share of its variance that is the seeds'.

    a, b: whether each training classifies each image correctly, 0 or 1, or the mean of that over noise seeds. p is for the claim that `a`
    is worse. Raises `GlimpseZooError` for no image, and if both have one seed: that is `pairs.paired`.

    >>> draw = np.random.default_rng(0)
    >>> better, worse = 1.0 * (draw.random((3, 1000)) < 0.9), 1.0 * (draw.random((3, 1000)) < 0.8)
    >>> effect, _ = between_recipes(better, worse, np.arange(1000))
    >>> 0 < effect.low < 0.1 < effect.high < 0.2
    True
    """
    if len(a) == len(b) == 1:
        raise GlimpseZooError("expected several seeds of a recipe, got one of each: compare them image by image")
    found = Groups.of(groups)
    value = float(a.mean() - b.mean())
    parts = [_components(each, found) for each in (a, b) if len(each) > 1]
    if len(parts) == 1:  # the single training varies as those of the other recipe do, and adds no degree of freedom
        (only,), factor = parts, 1 + 1 / parts[0].seeds
        terms = [(only.seed * factor, only.crossed * factor, only.seeds - 1)]
    else:
        terms = [(each.seed / each.seeds, each.crossed / each.seeds, each.seeds - 1) for each in parts]
    images = _over_groups(a.mean(0) - b.mean(0), found)
    own = sum(max(0.0, seed - crossed) for seed, crossed, _ in terms)
    variance = images + own
    if variance == 0:
        return Effect(value, value, value, 1.0 if value >= 0 else 0.0), 0.0
    freedom = variance**2 / (images**2 / max(1, found.count - 1) + sum(seed**2 / df for seed, _, df in terms))
    half = student_quantile((1 + LEVEL) / 2, freedom) * math.sqrt(variance)
    return Effect(value, value - half, value + half, student(value / math.sqrt(variance), freedom)), own / variance


def _components(hits: Float[ndarray, "S n"], groups: Groups) -> _Components:
    """The variance of the accuracy between seeds, and that part of it which is of seed by image."""
    accuracy = hits.mean(1)
    rest = hits - hits.mean(0) - (accuracy - accuracy.mean())[:, None]  # [S, n]
    crossed = sum(_over_groups(each, groups) for each in rest) / (len(hits) - 1)
    return _Components(float(accuracy.var(ddof=1)), crossed, len(hits))


def _over_groups(values: Float[ndarray, "n"], groups: Groups) -> float:
    """The variance of the mean of `values` over images, whole groups of which are independent."""
    if groups.count < 2:
        return 0.0
    sums = groups.sums((values - values.mean())[:, None])[:, 0]
    return float((sums**2).sum() * groups.count / (groups.count - 1) / len(values) ** 2)


def mean_over_seeds(several: Sequence[Estimate]) -> Estimate:
    """The mean accuracy of a recipe's trainings, with an interval for new seeds and new images.

    The variance over images is that of the trainings' own intervals, which counts seed by image twice: the interval is a little wide.
    """
    values = np.array([each.value for each in several])
    seeds = float(values.var(ddof=1)) / len(values)
    images = float(np.mean([((each.high - each.low) / 2 / Z) ** 2 for each in several]))
    variance, value, first = seeds + images, float(values.mean()), several[0]
    freedom = variance**2 / (images**2 / max(1, first.groups - 1) + seeds**2 / (len(values) - 1)) if variance else 1.0
    half = student_quantile((1 + LEVEL) / 2, freedom) * math.sqrt(variance)
    return Estimate(value=value, low=max(0.0, value - half), high=min(1.0, value + half), n=first.n, groups=first.groups)


_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(64)


def student(t: float, freedom: float) -> float:
    """The distribution function of Student's t, for any number of degrees of freedom.

    >>> round(student(12.706205, 1), 6), round(student(-2.0, 7.5), 6)
    (0.975, 0.041448)
    """
    angle = math.atan(t / math.sqrt(freedom))
    powers = np.exp((freedom - 1) * np.log(np.cos(angle / 2 * (_NODES + 1))))
    scale = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.sqrt(math.pi)
    return min(1.0, max(0.0, 0.5 + scale * angle / 2 * float(powers @ _WEIGHTS)))


def student_quantile(share: float, freedom: float) -> float:
    """The value below which Student's t lies with this probability, above 1/2.

    >>> round(student_quantile(0.975, 4), 4), round(student_quantile(0.975, 1e6), 4)
    (2.7764, 1.96)
    """
    low, high = 0.0, 1.0
    while student(high, freedom) < share:
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if student(middle, freedom) < share else (low, middle)
    return high


@dataclass(frozen=True)
class Trainings:
    """A recipe with the rows of its trainings."""

    name: str
    rows: Mapping[int, Sequence[Rows]]
    """Training seed -> its rows, one for each noise seed."""


def recipe_pair(a: Trainings, b: Trainings) -> RecipePair:
    """Two recipes on the images that all of their trainings were measured on, at the last steps. Noise seeds of a training are averaged.

    Raises `GlimpseZooError` if they have no image in common or do not agree on its label.
    """
    every = [rows for each in (a, b) for several in each.rows.values() for rows in several]
    ids = reduce(lambda known, rows: np.intersect1d(known, rows.id, assume_unique=True), every[1:], np.sort(every[0].id))
    places = {id(rows): np.argsort(rows.id)[np.searchsorted(np.sort(rows.id), ids)] for rows in every}
    about = [np.stack([rows.label[places[id(rows)]], rows.group[places[id(rows)]]]) for rows in every]
    if not len(ids) or any(not np.array_equal(about[0], each) for each in about):
        what = "other labels or groups" if len(ids) else "none in common"
        raise GlimpseZooError(
            f"expected {a.name} and {b.name} measured on the same images, got {what}: measure both on the same data and split"
        )

    def hits(trainings: Trainings) -> Float[ndarray, "S n"]:
        return np.stack([np.mean([rows.hits[places[id(rows)], -1] for rows in several], axis=0) for several in trainings.rows.values()])

    effect, share = between_recipes(hits(a), hits(b), about[0][1])
    assert effect.p is not None
    return RecipePair(
        a=a.name,
        b=b.name,
        seeds_a=tuple(a.rows),
        seeds_b=tuple(b.rows),
        n=len(ids),
        difference=effect.value,
        low=effect.low,
        high=effect.high,
        p=effect.p,
        share=share,
    )
