"""Per-step thresholds: their rule, and how they are found for a budget."""

from collections.abc import Callable

import pytest
import torch
from glimpsezoo_gfnet.exits import StepConfidence, thresholds_for
from torch import Tensor

from glimpsezoo import GlimpseZooError, Record, rollout


def test_every_step_has_its_own_threshold_in_a_run(small: Callable, images: Tensor) -> None:
    model = small().requires_grad_(False)
    confidence = rollout(model, images, record=Record(every_step=True)).logits_by_step().softmax(2).amax(2)  # [B, 3]
    thresholds = (float(confidence[:, 0].median()), float(confidence[:, 1].min()), 0.0)
    last = rollout(model, images, exit_rule=StepConfidence(thresholds)).last_step
    expected = [1 if confidence[k, 0] >= thresholds[0] else 2 for k in range(6)]
    assert last.tolist() == expected
    assert sorted(set(expected)) == [1, 2]
    assert StepConfidence(thresholds).parameters == {"step 1": thresholds[0], "step 2": thresholds[1], "step 3": 0.0}


def test_steps_beyond_the_thresholds_let_no_image_exit() -> None:
    assert StepConfidence((0.0,)).exits(torch.zeros(2, 2, 3)).tolist() == [False, False]
    with pytest.raises(GlimpseZooError, match="got none"):
        StepConfidence(())


@pytest.mark.parametrize("budget", [0.05, 0.5, 1.0, 1.95])
def test_a_budgets_shares_of_images_stop_at_each_step(budget: float) -> None:
    confidence = torch.rand(500, 4, generator=torch.Generator().manual_seed(0))
    rule = StepConfidence(thresholds_for(confidence, budget))
    stopped, left = [], list(range(500))
    for step in range(4):  # one image at a time, by the rule's own thresholds
        leaving = [k for k in left if confidence[k, step] >= rule.thresholds[step]]
        left = [k for k in left if k not in leaving]
        stopped.append(len(leaving))
    shares = [budget**step / sum(budget**k for k in (1, 2, 3, 4)) for step in (1, 2, 3, 4)]
    assert stopped[:3] == [int(500 * share) for share in shares[:3]]
    assert sum(stopped) == 500


def test_a_share_of_no_image_has_a_threshold_that_none_reaches() -> None:
    thresholds = thresholds_for(torch.ones(3, 3), 0.01)
    assert thresholds == (1.0, 2.0, 0.0)
