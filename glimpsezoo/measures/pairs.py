"""Two models on the same images: paired tests, and comparison.json."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Int
from numpy import ndarray
from pydantic import Field

from glimpsezoo.errors import GlimpseZooError
from glimpsezoo.evaluation.rows import Rows
from glimpsezoo.measures.seeds import RecipePair
from glimpsezoo.measures.statistics import RESAMPLES, Groups, fair_coin_tail, percentile_interval
from glimpsezoo.schema import SCHEMA, Count, Difference, Positive, Section, Share, Version

SIGNIFICANT = 0.05  # one-sided


class Pair(Section):
    """Two models on the same images, at their last steps if nothing else is said."""

    a: str
    """Name of the first model."""
    b: str
    """Name of the second model."""
    n: Positive
    """Images."""
    only_a: Count
    """Images that `a` alone classifies correctly."""
    only_b: Count
    """Images that `b` alone classifies correctly."""
    difference: Difference
    """Accuracy of `a` minus accuracy of `b`."""
    low: float
    """Lower end of its 95 % interval, resampled over source images."""
    high: float
    """Upper end of that interval."""
    p: Share
    """One-sided, for the claim that `a` is worse than `b`; 'not significantly worse' is p >= .05."""


class Comparison(Section):
    """comparison.json: every ordered pair of the models of one run."""

    schema_version: Version = Field(default=SCHEMA, alias="schema")
    """Version of these keys."""
    run: str
    """Id of the run."""
    data: str
    """Name of the data set."""
    pairs: tuple[Pair, ...]
    """The comparisons."""
    recipes: tuple[RecipePair, ...] = ()
    """Every ordered pair of recipes of which at least one was measured with several training seeds."""


def paired(a: str, b: str, hits_a: Bool[ndarray, "n"], hits_b: Bool[ndarray, "n"], groups: Int[ndarray, "n"]) -> Pair:
    """Compare models `a` and `b` on the same images: the difference of their accuracies, and whether `a` is worse.

    p is exact (McNemar: a binomial test on the images that only one of them classifies correctly) if every image is its own group;
    otherwise it comes from a permutation test that swaps a and b for whole groups and counts the observed order in (Phipson & Smyth 2010).

    >>> right, wrong = np.ones(5, dtype=bool), np.zeros(5, dtype=bool)
    >>> paired("a", "b", wrong, right, np.arange(5)).p
    0.03125
    """
    found, gain = Groups.of(groups), hits_a.astype(int) - hits_b.astype(int)
    only_a, only_b = int((gain > 0).sum()), int((gain < 0).sum())
    resampled = found.resampled_sums(gain[:, None].astype(float))
    low, high = percentile_interval(resampled[:, 0] / resampled[:, 1])
    if found.single:
        p = fair_coin_tail(only_a, only_a + only_b)
    else:
        p = (1 + int((found.flipped_sums(gain) <= gain.sum()).sum())) / (1 + RESAMPLES)
    difference = float(gain.mean())
    return Pair(a=a, b=b, n=len(gain), only_a=only_a, only_b=only_b, difference=difference, low=low, high=high, p=p)


def every_pair(rows: Mapping[str, Rows]) -> tuple[Pair, ...]:
    """Every ordered pair of models by name, on the images that both were measured on, at their last steps.

    Raises `GlimpseZooError` if two have no image in common or do not agree on its label.
    """
    return tuple(paired_rows(a, rows[a], b, rows[b]) for a in rows for b in rows if a != b)


def paired_rows(a: str, rows_a: Rows, b: str, rows_b: Rows, step: int = -1) -> Pair:
    """`paired` on the images that both were measured on, at a step, from 0; -1 is the last one of each.

    Raises `GlimpseZooError` if they have no image in common or do not agree on its label.
    """
    ids, place_a, place_b = np.intersect1d(rows_a.id, rows_b.id, assume_unique=True, return_indices=True)
    same = np.array_equal(rows_a.label[place_a], rows_b.label[place_b]) and np.array_equal(rows_a.group[place_a], rows_b.group[place_b])
    if not len(ids) or not same:
        what = "other labels or groups" if len(ids) else "none in common"
        raise GlimpseZooError(f"expected {a} and {b} measured on the same images, got {what}: measure both on the same data and split")
    return paired(a, b, rows_a.hits[place_a, step], rows_b.hits[place_b, step], rows_a.group[place_a])


def p_text(pair: Pair | RecipePair) -> str:
    """The test whether `a` is worse than `b`: 'one-sided p = 0.031'."""
    return f"one-sided p = {pair.p:.3f}" if pair.p >= 0.001 else "one-sided p < 0.001"


def pair_text(pair: Pair | RecipePair, macs_a: float | None, macs_b: float | None) -> str:
    """`a` compared with `b`, in a sentence. macs_a, macs_b: mean MACs per image; None where they are not known exactly."""
    worse = f"{'significantly' if pair.p < SIGNIFICANT else 'not significantly'} worse ({p_text(pair)})"
    a, b = (pair.a, pair.b) if isinstance(pair, Pair) else pair.names
    text = (
        f"{a} against {b}: {100 * pair.difference:+.2f} points ({100 * pair.low:+.2f} to {100 * pair.high:+.2f}), "
        f"{'better' if pair.low > 0 else 'not significantly better' if pair.difference > 0 else worse}"
    )
    if isinstance(pair, RecipePair):
        text += f", {100 * pair.share:.0f} % of the variance from training seeds"
    return text + (f", at {macs_a / macs_b:.3g} times its MACs" if macs_a and macs_b else "")
