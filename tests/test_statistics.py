"""Intervals and tests, checked against scipy's independent implementations."""

from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from glimpsezoo.measures import statistics
from glimpsezoo.measures.pairs import paired
from glimpsezoo.measures.statistics import Groups, Scores, calibration_error, classification, fair_coin_tail, proportion, wilson

pytestmark = pytest.mark.repository

rng = np.random.default_rng(7)
N = 300
SINGLE = np.arange(N) + 1000
FIVES = np.repeat(np.arange(N // 5), 5) * 3  # five images per source image


def correlated_hits(share: float, seed: int) -> np.ndarray:
    """Hits [N] that mostly agree within a group."""
    draw = np.random.default_rng(seed)
    group = np.repeat(draw.random(N // 5) < share, 5)
    return np.where(draw.random(N) < 0.8, group, draw.random(N) < share)


@pytest.mark.parametrize(("hits", "n"), [(0, 7), (7, 7), (1, 3), (489, 500), (49_999, 50_000)])
def test_wilson_is_scipys(hits: int, n: int) -> None:
    expected = stats.binomtest(hits, n).proportion_ci(method="wilson")
    assert wilson(hits, n) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_proportion_of_independent_images_has_wilsons_interval() -> None:
    hits = correlated_hits(0.7, 1)
    found = proportion(hits, SINGLE)
    assert (found.low, found.high) == wilson(int(hits.sum()), N)
    assert (found.value, found.n, found.groups) == (hits.mean(), N, N)


@pytest.fixture(params=["by kind", "one by one"])
def both_ways_to_draw(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "one by one":
        monkeypatch.setattr(statistics, "_CHUNK", 1 << 16)


@pytest.mark.usefixtures("both_ways_to_draw")
def test_proportion_of_grouped_images_is_resampled_by_group() -> None:
    hits = correlated_hits(0.7, 2)
    uneven = np.sort(np.random.default_rng(0).integers(0, 80, N))  # groups of different sizes: a ratio of two sums
    for groups in (FIVES, uneven):
        found = proportion(hits, groups)
        sums = [np.array([hits[groups == g].sum() for g in np.unique(groups)]), np.array([(groups == g).sum() for g in np.unique(groups)])]
        expected = stats.bootstrap(
            sums,
            lambda s, c, axis: s.sum(axis) / c.sum(axis),
            paired=True,
            vectorized=True,
            n_resamples=20_000,
            method="percentile",
            random_state=np.random.default_rng(1),
        ).confidence_interval
        assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.004)
        assert found.groups == len(np.unique(groups))
    assert proportion(hits, FIVES).high - proportion(hits, FIVES).low > 1.5 * (wilson(210, N)[1] - wilson(210, N)[0])


@pytest.mark.parametrize("right", [True, False])
def test_grouped_images_that_are_all_alike_still_leave_doubt(right: bool) -> None:
    found = proportion(np.full(N, right), FIVES)
    assert (found.low, found.high) == wilson(N // 5 * right, N // 5)
    assert found.high - found.low > 0.05


def test_order_of_images_and_names_of_groups_do_not_matter() -> None:
    hits, order = correlated_hits(0.6, 3), rng.permutation(N)
    assert proportion(hits[order], FIVES[order]) == proportion(hits, FIVES)
    assert proportion(hits, FIVES * 7 + 1) == proportion(hits, FIVES)


def test_resamples_are_the_same_however_few_are_drawn_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    groups, columns = Groups.of(FIVES), rng.random((N, 2))
    monkeypatch.setattr(statistics, "_CHUNK", 100_000)
    whole = groups.resampled_sums(columns)
    monkeypatch.setattr(statistics, "_CHUNK", 999)
    np.testing.assert_allclose(groups.resampled_sums(columns), whole, rtol=1e-12)
    assert len(whole) == statistics.RESAMPLES
    assert (whole[:, -1] == N).all()  # groups of one size: every resample has as many images


def naive_ece(confidence: np.ndarray, hits: np.ndarray) -> float:
    total = 0.0
    for b in range(15):
        inside = [i for i, c in enumerate(confidence) if b / 15 < c <= (b + 1) / 15]
        if inside:
            total += len(inside) * abs(float(np.mean(hits[inside])) - float(np.mean(confidence[inside])))
    return total / len(hits)


def scores(steps: int = 2) -> Scores:
    confidence = rng.uniform(0.1, 1, (N, steps))
    hits = rng.random((N, steps)) < confidence**2
    return Scores(hits, hits | (rng.random((N, steps)) < 0.3), rng.exponential(1.0, (N, steps)), confidence)


def test_calibration_error_is_that_of_a_plain_loop() -> None:
    found = scores()
    for t in range(2):
        assert calibration_error(found.confidence[:, t], found.hits[:, t]) == pytest.approx(
            naive_ece(found.confidence[:, t], found.hits[:, t])
        )
    # 2/15 belongs to the bin below it, with 1.5/15; 1 belongs to the last bin.
    assert calibration_error(np.array([2 / 15, 1.5 / 15]), np.array([True, False])) == pytest.approx((13 / 15 - 1.5 / 15) / 2)
    assert calibration_error(np.array([1.0, 14.5 / 15]), np.array([False, True])) == pytest.approx((1 - 0.5 / 15) / 2)
    # Errors of opposite sign in two bins do not cancel.
    assert calibration_error(np.array([0.5, 0.9]), np.array([True, False])) == pytest.approx(0.7)


@pytest.mark.usefixtures("both_ways_to_draw")
@pytest.mark.parametrize("groups", [SINGLE, FIVES], ids=["single", "fives"])
def test_classification_estimates_every_step_with_scipys_intervals(groups: np.ndarray) -> None:
    found = scores()
    estimates = classification(found, groups)
    members = [np.flatnonzero(groups == g) for g in np.unique(groups)]
    draw = np.random.default_rng(3)
    drawn = [np.concatenate([members[g] for g in draw.integers(len(members), size=len(members))]) for _ in range(1500)]
    for t, step in enumerate(estimates):
        nll = [found.nll[rows, t].mean() for rows in drawn]
        assert step.nll.value == pytest.approx(found.nll[:, t].mean())
        assert (step.nll.low, step.nll.high) == pytest.approx(tuple(np.quantile(nll, [0.025, 0.975])), abs=0.02)
        assert step.ece.value == pytest.approx(naive_ece(found.confidence[:, t], found.hits[:, t]))
        assert step.ece.low < step.ece.value <= step.ece.high
        assert step.top1.value == found.hits[:, t].mean()
        assert step.top5.value == found.top5[:, t].mean()
        alone = proportion(found.hits[:, t], groups)
        assert (step.top1.low, step.top1.high) == pytest.approx((alone.low, alone.high), abs=0.006)
        assert {e.groups for e in step} == {len(members)}


def test_the_interval_of_a_calibration_error_holds_it() -> None:
    confidence = np.repeat([[0.5], [0.9]], N // 2, 0)
    hits = np.concatenate([np.arange(N // 2) % 2 == 0, np.arange(N // 2) % 10 > 0])[:, None]
    (step,) = classification(Scores(hits, hits, confidence, confidence), SINGLE)
    assert step.ece.value == pytest.approx(0, abs=1e-12)  # every resample has a larger error
    assert step.ece.low <= step.ece.value < step.ece.high


# (hit rate at confidence c, expected error over the bins)
CALIBRATED = (lambda c: c, 0.0)
OVERCONFIDENT = (lambda c: 0.9 * c, 0.06)  # for confidences from .2 to 1
IN_WAVES = (lambda c: np.clip(c + 0.08 * np.sin(12 * c), 0, 1), 0.0505)


@pytest.mark.parametrize("model", [CALIBRATED, OVERCONFIDENT, IN_WAVES], ids=["calibrated", "overconfident", "in waves"])
@pytest.mark.parametrize(("n", "copies"), [(300, 1), pytest.param(1500, 1, marks=pytest.mark.slow), (1000, 5)])
def test_the_interval_of_a_calibration_error_covers_that_of_the_population(
    model: tuple[Callable[[np.ndarray], np.ndarray], float], n: int, copies: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Percentiles of resampled errors never cover the 0 of a calibrated model, as the absolute value of noise is not 0."""
    monkeypatch.setattr(statistics, "RESAMPLES", 400)
    right, truth = model
    draw, covered, trials = np.random.default_rng(n + copies), 0, 150
    for _ in range(trials):
        confidence = np.repeat(draw.uniform(0.2, 1, n // copies), copies)
        hits = np.repeat(draw.random(n // copies), copies) < right(confidence)
        (step,) = classification(Scores(*(each[:, None] for each in (hits, hits, confidence, confidence))), np.arange(n) // copies)
        covered += step.ece.low <= truth <= step.ece.high
    assert covered >= 0.9 * trials


@pytest.mark.parametrize(("confidence", "wrong"), [(1.0, 20), (0.97, 20), (1.0, 18)])
def test_no_end_of_an_interval_is_beyond_the_worst_calibration_error(confidence: float, wrong: int) -> None:
    """A model that is sure and wrong, as on data that it was not trained for."""
    hits = np.arange(20)[:, None] >= wrong
    (step,) = classification(Scores(hits, hits, np.full((20, 1), confidence), np.full((20, 1), confidence)), np.arange(20))
    assert 0 <= step.ece.low <= step.ece.value <= step.ece.high <= 1


def test_the_interval_of_a_calibration_error_shrinks_around_it() -> None:
    draw = np.random.default_rng(0)
    widths = []
    for n in (300, 4800):
        confidence = draw.uniform(0.2, 1, (n, 1))
        hits = draw.random((n, 1)) < 0.8 * confidence
        (step,) = classification(Scores(hits, hits, confidence, confidence), np.arange(n))
        assert step.ece.low > 0.02  # the error is .12
        widths.append(step.ece.high - step.ece.low)
    assert widths[1] < 0.4 * widths[0]


@pytest.mark.parametrize(("heads", "tosses"), [(0, 0), (0, 5), (3, 10), (10, 10), (480, 1000), (9_800, 20_000)])
def test_fair_coin_tail_is_scipys(heads: int, tosses: int) -> None:
    expected = stats.binom.cdf(heads, tosses, 0.5)
    assert fair_coin_tail(heads, tosses) == pytest.approx(expected, rel=1e-9)


def test_pair_of_independent_images_is_mcnemars_exact_test() -> None:
    a, b = rng.random(N) < 0.8, rng.random(N) < 0.9
    found = paired("a", "b", a, b, SINGLE)
    only_a, only_b = int((a & ~b).sum()), int((~a & b).sum())
    assert (found.only_a, found.only_b, found.n) == (only_a, only_b, N)
    assert found.p == pytest.approx(stats.binomtest(only_a, only_a + only_b, alternative="less").pvalue)
    assert found.difference == pytest.approx(a.mean() - b.mean())
    half = 1.96 * np.std(a.astype(float) - b) / np.sqrt(N)
    assert (found.low, found.high) == pytest.approx((found.difference - half, found.difference + half), abs=0.006)
    other = paired("b", "a", b, a, SINGLE)
    assert other.difference == -found.difference
    assert other.p > 0.5 > found.p


def test_pair_of_grouped_images_swaps_whole_groups() -> None:
    a, b = correlated_hits(0.75, 4), correlated_hits(0.85, 5)
    found = paired("a", "b", a, b, FIVES)
    sums = [hits.reshape(-1, 5).sum(1) for hits in (a, b)]
    expected = stats.permutation_test(
        sums,
        lambda x, y, axis: x.sum(axis) - y.sum(axis),
        permutation_type="samples",
        vectorized=True,
        alternative="less",
        n_resamples=20_000,
        rng=np.random.default_rng(2),
    )
    assert found.p == pytest.approx(expected.pvalue, abs=0.015)
    assert found.p > 2 * paired("a", "b", a, b, SINGLE).p  # fewer groups than images: less evidence
    interval = stats.bootstrap(
        [sums[0] - sums[1]],
        lambda d, axis: d.mean(axis) / 5,
        method="percentile",
        n_resamples=20_000,
        vectorized=True,
        rng=np.random.default_rng(0),
    ).confidence_interval
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), abs=0.006)


def test_a_pair_that_never_differs_is_not_significantly_worse() -> None:
    hits = correlated_hits(0.5, 6)
    for groups in (SINGLE, FIVES):
        found = paired("a", "b", hits, hits, groups)
        assert (found.p, found.difference, found.only_a, found.only_b) == (1.0, 0.0, 0, 0)


def test_the_smallest_p_of_a_permutation_counts_the_observed_order() -> None:
    wrong, right = np.zeros(N, dtype=bool), np.ones(N, dtype=bool)
    assert paired("a", "b", wrong, right, FIVES).p == pytest.approx(1 / (1 + statistics.RESAMPLES))
    assert paired("a", "b", right, wrong, FIVES).p == 1.0
