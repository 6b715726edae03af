"""The anytime curve: thresholds from calibration, points from real exits, area and cost at equal accuracy by hand."""

import numpy as np
import pytest
import torch
from made_up import MadeUp, model_of
from toys import Peek

from glimpsezoo.anytime import Calibration, area, calibrate, equal_accuracy, point
from glimpsezoo.errors import GlimpseZooError
from glimpsezoo.evaluation import Job, evaluate
from glimpsezoo.exits import Confidence, Entropy, Fixed, Margin, Patience, ThresholdRule
from glimpsezoo.records import AnytimePoint, Estimate

SCORE = np.array([[0.9, 0.95], [0.6, 0.7], [0.4, 0.9], [0.2, 0.5]])
HITS = np.array([[True, True], [True, True], [False, True], [False, False]])
MACS = np.tile(np.array([10, 30]), (4, 1))
FOUND = Calibration(Confidence, SCORE, HITS, MACS)


def test_the_outcome_of_a_threshold_is_that_of_the_first_step_which_reaches_it() -> None:
    assert FOUND.outcome(0.5) == (0.75, (10 + 10 + 30 + 30) / 4)
    assert FOUND.outcome(0.2) == (0.5, 10.0)
    assert FOUND.outcome(0.91) == (0.75, 30.0)  # nobody: all go to the end, sure or not


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
    with pytest.raises(GlimpseZooError, match=r"got 5 MACs an image: it takes 10 at least"):
        FOUND.within(5)


def test_a_patience_is_never_none() -> None:
    assert Calibration(Patience, np.array([[0.0, 1.0, 2.0]]), np.ones((1, 3), bool), np.array([[1, 2, 3]])).candidates() == [1.0]


@pytest.mark.parametrize("rule", [Confidence, Margin, Entropy, Patience])
def test_what_calibration_foresees_is_what_a_real_run_does(rule: type[ThresholdRule]) -> None:
    """On the same images: the simulated exits and costs are those of compacted runs."""
    model, data = model_of(Peek, steps=4), MadeUp()
    found = calibrate(model, data, rule)
    tried = found.spread(4)
    assert tried
    for threshold in tried:
        real = point(rule(threshold), evaluate(Job(model, "toy", data, exit_rule=rule(threshold))).rows)
        assert (real.top1.value, real.macs_mean) == pytest.approx(found.outcome(threshold), abs=1e-9)
        assert sum(real.exits) == pytest.approx(1)
        assert real.steps_mean == pytest.approx(sum(step * share for step, share in enumerate(real.exits, 1)))


def test_images_that_cannot_be_read_are_left_out_of_calibration_or_stop_it() -> None:
    model = model_of(Peek, steps=3)
    found, whole = calibrate(model, MadeUp(bad=(0, 5)), Confidence, on_bad_image="skip"), calibrate(model, MadeUp(), Confidence)
    assert len(found.hits) == len(whole.hits) - 2
    np.testing.assert_allclose(found.score, np.delete(whole.score, (0, 5), axis=0), rtol=1e-5)
    with pytest.raises(GlimpseZooError, match="row 0 is no image"):
        calibrate(model, MadeUp(bad=(0, 5)), Confidence)
    with pytest.raises(GlimpseZooError, match=r"expected calibration images that can be read, got none among 33: mend"):
        calibrate(model, MadeUp(bad=tuple(range(33))), Confidence, on_bad_image="skip")


def test_a_batch_without_an_image_that_can_be_read_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("glimpsezoo.anytime.auto_batch_size", lambda *_: 4)
    assert len(calibrate(model_of(Peek, steps=3), MadeUp(bad=(4, 5, 6, 7)), Confidence, on_bad_image="skip").hits) == 29


def test_a_rule_of_one_step_has_no_threshold() -> None:
    model = model_of(Peek, steps=1)
    assert calibrate(model, MadeUp(), Confidence).spread(5) == []
    only = point(Fixed(), evaluate(Job(model, "toy", MadeUp())).rows)
    assert (only.rule, only.threshold, only.exits) == ("fixed", 1.0, (1.0,))
    assert area([only]) == only.top1.value


def at(macs: float, top1: float) -> AnytimePoint:
    value = Estimate(value=top1, low=0, high=1, n=100, groups=100)
    return AnytimePoint(rule="confidence", threshold=0.5, top1=value, macs_mean=macs, steps_mean=1, exits=(1.0,))


def test_area_and_equal_accuracy() -> None:
    curve = [at(40, 0.9), at(10, 0.5), at(20, 0.7)]
    assert area(curve) == pytest.approx(((0.5 + 0.7) / 2 * 10 + (0.7 + 0.9) / 2 * 20) / 30)
    assert equal_accuracy(curve, "cnn", 0.8, 100).macs_ratio == pytest.approx(0.3)
    assert equal_accuracy(curve, "cnn", 0.4, 100).macs_ratio == pytest.approx(0.1)
    assert equal_accuracy(curve, "cnn", 0.95, 100).macs_ratio is None
    dips = [at(10, 0.5), at(20, 0.9), at(40, 0.8)]
    assert equal_accuracy(dips, "cnn", 0.85, 100).macs_ratio == pytest.approx(0.1875)


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
