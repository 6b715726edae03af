"""The anytime curve: thresholds from calibration, points from real exits, area and cost at equal accuracy by hand."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from toy_evaluation import MadeUp, model_of
from toy_models import Peek

from glimpsezoo.core.exits import Confidence, Entropy, Margin, Patience, ThresholdRule
from glimpsezoo.errors import GlimpseZooError
from glimpsezoo.evaluation.jobs import Job
from glimpsezoo.evaluation.measuring import EvaluationConfig, run_job
from glimpsezoo.measures.anytime import Anytime, AnytimePoint, ImageOutcomes, area, equal_accuracy, point, stops
from glimpsezoo.measures.calibration import Calibration, calibrate
from glimpsezoo.measures.statistics import Estimate

SKIPS = EvaluationConfig(on_bad_image="skip")
SCORE = np.array([[0.9, 0.95], [0.6, 0.7], [0.4, 0.9], [0.2, 0.5]])
HITS = np.array([[True, True], [True, True], [False, True], [False, False]])
MACS = np.tile(np.array([10, 30]), (4, 1))
FOUND = Calibration(Confidence, SCORE, HITS, MACS)


def test_the_outcome_of_a_threshold_is_that_of_the_first_step_which_reaches_it() -> None:
    assert FOUND.outcome(0.5) == (0.75, (10 + 10 + 30 + 30) / 4)
    assert FOUND.outcome(0.2) == (0.5, 10.0)
    assert FOUND.outcome(0.91) == (0.75, 30.0)  # no image exits: all run to the last step


def test_candidates_rise_in_cost_whichever_way_the_rule_points() -> None:
    falling = Calibration(Entropy, 1 - SCORE, HITS, MACS)
    for each in (FOUND, falling):
        costs = [each.outcome(threshold)[1] for threshold in each.candidates()]
        assert costs == sorted(costs)
        assert costs[0] == 10
    assert falling.outcome(0.5) == FOUND.outcome(0.5)


def test_a_target_is_met_as_cheaply_or_as_accurately_as_it_can_be() -> None:
    assert FOUND.reaching(0.75) == 0.5  # between .4, where the third image would exit wrong, and .6; .75 costs more
    assert FOUND.within(20) == 0.5
    assert FOUND.within(10) == pytest.approx(0.2)
    with pytest.raises(GlimpseZooError, match=r"got 0\.9: it reaches 0\.7500 at most"):
        FOUND.reaching(0.9)
    with pytest.raises(GlimpseZooError, match=r"got 5 MACs per image: it takes 10 at least"):
        FOUND.within(5)


def test_a_patience_is_never_none() -> None:
    assert Calibration(Patience, np.array([[0.0, 1.0, 2.0]]), np.ones((1, 3), bool), np.array([[1, 2, 3]])).candidates() == [1.0]


@pytest.mark.parametrize("rule", [Confidence, Margin, Entropy, Patience])
def test_what_calibration_foresees_is_what_a_real_run_does(rule: type[ThresholdRule]) -> None:
    """On the same images, simulated exits and costs equal those of real, compacted runs."""
    model, data = model_of(Peek, steps=4), MadeUp()
    found = calibrate(model, data, rule)
    tried = found.spread(4)
    assert tried
    for threshold in tried:
        real = point(rule.name, threshold, run_job(Job(model, "toy", data, exit_rule=rule(threshold))).rows)
        assert (real.top1.value, real.macs_mean) == pytest.approx(found.outcome(threshold), abs=1e-9)
        assert sum(real.exits) == pytest.approx(1)
        assert real.steps_mean == pytest.approx(sum(step * share for step, share in enumerate(real.exits, 1)))


def test_images_that_cannot_be_read_are_left_out_of_calibration_or_stop_it() -> None:
    model = model_of(Peek, steps=3)
    found, whole = calibrate(model, MadeUp(bad=(0, 5)), Confidence, SKIPS), calibrate(model, MadeUp(), Confidence)
    assert len(found.hits) == len(whole.hits) - 2
    np.testing.assert_allclose(found.score, np.delete(whole.score, (0, 5), axis=0), rtol=1e-5)
    with pytest.raises(GlimpseZooError, match="row 0 is no image"):
        calibrate(model, MadeUp(bad=(0, 5)), Confidence)
    with pytest.raises(GlimpseZooError, match=r"expected calibration images of .* that can be read, got none among 33: add images"):
        calibrate(model, MadeUp(bad=tuple(range(33))), Confidence, SKIPS)


def test_a_batch_without_an_image_that_can_be_read_is_passed_over() -> None:
    assert len(calibrate(model_of(Peek, steps=3), MadeUp(bad=(4, 5, 6, 7)), Confidence, replace(SKIPS, batch_size=4)).hits) == 29


def test_a_rule_of_one_step_has_no_threshold() -> None:
    model = model_of(Peek, steps=1)
    assert calibrate(model, MadeUp(), Confidence).spread(5) == []
    only = point("fixed", 1.0, run_job(Job(model, "toy", MadeUp())).rows)
    assert (only.rule, only.threshold, only.exits) == ("fixed", 1.0, (1.0,))
    assert area([only]) == only.top1.value


def test_the_curve_holds_the_stops_at_a_fixed_step() -> None:
    """Stops derived from the whole run equal runs with fewer steps."""
    model, data = model_of(Peek, steps=3), MadeUp()
    found = stops(run_job(Job(model, "toy", data)).rows)
    assert [(each.rule, each.threshold) for each in found] == [("fixed", 1.0), ("fixed", 2.0), ("fixed", 3.0)]
    for each in found[:-1]:
        alone = point("fixed", each.threshold, run_job(Job(model, "toy", data, steps=int(each.threshold))).rows)
        assert (each.top1, each.macs_mean, each.steps_mean) == (alone.top1, alone.macs_mean, alone.steps_mean)
        assert each.exits == pytest.approx([float(look == each.threshold) for look in (1, 2, 3)])
    anytime = Anytime(curve=(at(5, 0.5), *found), area=0.5, calibrated_on="calibration", equal_accuracy=None)
    assert anytime.exits == (anytime.curve[0], found[-1])


def at(macs: float, top1: float) -> AnytimePoint:
    value = Estimate(value=top1, low=0, high=1, n=100, groups=100)
    return AnytimePoint(rule="confidence", threshold=0.5, top1=value, macs_mean=macs, steps_mean=1, exits=(1.0,))


def test_the_area_is_the_mean_over_the_costs_that_a_curve_spans() -> None:
    curve = [at(40, 0.9), at(10, 0.5), at(20, 0.7)]
    assert area(curve) == pytest.approx(((0.5 + 0.7) / 2 * 10 + (0.7 + 0.9) / 2 * 20) / 30)


def run_of(macs: float, top1: float, n: int = 100) -> ImageOutcomes:
    """The first images are correct in every run; a more accurate run gets the same images and further ones right."""
    ids = np.arange(n)
    return ImageOutcomes(ids, ids, ids < round(top1 * n), np.full(n, macs))


def test_equal_accuracy_is_read_off_between_points() -> None:
    curve = [run_of(40, 0.9), run_of(10, 0.5), run_of(20, 0.7)]
    assert equal_accuracy(curve, "cnn", run_of(100, 0.8)).macs_ratio == pytest.approx(0.3)
    assert equal_accuracy(curve, "cnn", run_of(100, 0.7)).macs_ratio == pytest.approx(0.2)
    assert equal_accuracy(curve, "cnn", run_of(100, 0.4)).macs_ratio == pytest.approx(0.1)
    assert equal_accuracy(curve, "cnn", run_of(100, 0.95)).macs_ratio is None
    dips = [run_of(10, 0.5), run_of(20, 0.9), run_of(40, 0.8)]
    assert equal_accuracy(dips, "cnn", run_of(100, 0.85)).macs_ratio == pytest.approx(0.1875)


def test_images_are_matched_by_their_ids() -> None:
    curve, order = [run_of(10, 0.5), run_of(40, 0.9)], np.random.default_rng(0).permutation(100)
    mixed = [ImageOutcomes(each.id[order], each.group[order], each.hits[order], each.macs[order]) for each in curve]
    fewer = run_of(100, 0.8).at(np.arange(50, 100))  # 30 of these are right
    assert equal_accuracy(mixed, "cnn", run_of(100, 0.7)) == equal_accuracy(curve, "cnn", run_of(100, 0.7))
    assert equal_accuracy(mixed, "cnn", fewer).macs_ratio == pytest.approx((10 + 30 * 30 / 40) / 100)


def drawn(n: int, seed: int, wanted: float = 0.8, copies: int = 1) -> tuple[list[ImageOutcomes], ImageOutcomes]:
    """Runs at three costs and a baseline, on images of random difficulty: the expected accuracies are .5, .7 and .9."""
    draw = np.random.default_rng(seed)
    hard, noise = (np.repeat(values, copies) for values in (draw.random(n // copies), draw.random(n // copies)))
    ids = np.arange(n)
    curve = [ImageOutcomes(ids, ids // copies, hard < share, np.full(n, cost)) for cost, share in ((10, 0.5), (20, 0.7), (40, 0.9))]
    return curve, ImageOutcomes(ids, ids // copies, noise < wanted, np.full(n, 100))


def test_the_interval_of_the_ratio_covers_the_true_one() -> None:
    """The true ratio is .3, halfway between two points."""
    inside = []
    for seed in range(60):
        curve, reference = drawn(600, seed, copies=1 + 3 * (seed % 2))
        each = equal_accuracy(curve, "cnn", reference)
        assert each.low is not None
        inside.append(each.low <= 0.3 and (each.high is None or each.high >= 0.3))
    assert np.mean(inside) >= 0.9


def test_copies_of_an_image_do_not_narrow_the_interval_of_the_ratio() -> None:
    alone, repeated = (equal_accuracy(curve, "cnn", base) for curve, base in (drawn(100, 0), drawn(400, 0, copies=4)))
    assert repeated.macs_ratio == pytest.approx(alone.macs_ratio)
    assert (repeated.low, repeated.high) == pytest.approx((alone.low, alone.high), abs=0.03)


def test_a_curve_that_some_samples_do_not_reach_has_no_upper_end() -> None:
    curve, reference = drawn(200, 3, wanted=0.88)
    found = equal_accuracy(curve, "cnn", reference)
    assert found.high is None
    assert found.low is not None
    assert found.reached is not None
    assert 0.3 < found.reached < 0.975
    never = equal_accuracy([run_of(10, 0.2)], "cnn", run_of(100, 0.9))
    assert (never.macs_ratio, never.low, never.high, never.reached) == (None, None, None, 0.0)


def test_a_budget_in_macs_is_refused_where_costs_are_lower_bounds() -> None:
    with pytest.raises(GlimpseZooError, match="_fft_r2c without one"):
        replace(FOUND, missing=("_fft_r2c",)).within(20)


def test_scores_by_hand() -> None:
    logits = torch.log(torch.tensor([[[0.7, 0.2, 0.1], [0.1, 0.6, 0.3]]]))
    assert Confidence.score(logits).item() == pytest.approx(0.6)
    assert Margin.score(logits).item() == pytest.approx(0.3)
    p = np.array([0.1, 0.6, 0.3])
    assert Entropy.score(logits).item() == pytest.approx(-(p * np.log(p)).sum(), abs=1e-6)
    assert Patience.score(logits).item() == 0
    assert Patience.score(logits[:, [0, 1, 1]]).item() == 1
    assert Patience.score(logits[:, [1, 0, 1]]).item() == 0


@pytest.mark.parametrize(("rule", "threshold"), [(Margin, 1.5), (Entropy, -1), (Entropy, float("nan")), (Patience, 0), (Patience, 1.5)])
def test_thresholds_that_make_no_sense(rule: type[ThresholdRule], threshold: float) -> None:
    with pytest.raises(GlimpseZooError, match="got"):
        rule(threshold)
