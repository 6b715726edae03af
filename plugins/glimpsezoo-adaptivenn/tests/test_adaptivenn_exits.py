"""Exits by the value: which images are finished, what they pay, and how thresholds are found for a budget."""

from collections.abc import Callable

import pytest
import torch
from glimpsezoo_adaptivenn.exits import thresholds_for, values_of
from glimpsezoo_adaptivenn.model import AdaptiveNN
from torch import Tensor

from glimpsezoo import Meter, Noise, Record, find_policy, rollout

Make = Callable[..., AdaptiveNN]


def test_an_image_is_finished_once_its_value_is_at_most_the_threshold_of_the_step(small: Make, images: Tensor) -> None:
    values = values_of(small(), images)  # [6, 2]
    assert values.unique().numel() == 12
    thresholds = (float(values[:, 0].sort().values[1]), float(values[:, 1].median()))
    model = small(exits=thresholds).requires_grad_(False)
    trace = rollout(model, images, record=Record(meter=Meter(model)))
    expected = []
    for first, second in values.tolist():
        expected.append(1 if first <= thresholds[0] else 2 if second <= thresholds[1] else 3)
    assert trace.last_step.tolist() == expected
    assert set(expected) == {1, 2, 3}
    whole = rollout(small().requires_grad_(False), images, record=Record(every_step=True)).logits_by_step()
    for k, step in enumerate(expected):
        torch.testing.assert_close(trace.logits[k], whole[k, step - 1], atol=1e-5, rtol=1e-4)
    assert trace.macs is not None
    classified = trace.macs.classify
    assert (classified > 0).sum(1).tolist() == [1] * 6  # no prediction before the last step
    torch.testing.assert_close(values_of(model, images), values)  # exits do not hide later values


def test_steps_without_a_threshold_and_training_let_no_image_exit(small: Make, images: Tensor) -> None:
    assert rollout(small(exits=(9.0,)), images).last_step.tolist() == [1] * 6
    assert rollout(small(exits=(-9.0,)), images).last_step.tolist() == [3] * 6
    assert rollout(small(exits=(9.0,)).train(), images).last_step.tolist() == [3] * 6


def test_an_oracle_compares_its_looks_with_the_models_own_also_where_that_would_exit(small: Make, images: Tensor, labels: Tensor) -> None:
    model, noise = small(exits=(9.0, 9.0)).requires_grad_(False), Noise.of(0, torch.arange(6))
    oracle = find_policy("oracle").told(noise, labels)
    assert rollout(model.following(oracle), images, noise=noise, policy=oracle).last_step.tolist() == [3] * 6


@pytest.mark.parametrize("budget", [0.05, 0.5, 1.0, 1.95])
def test_a_budgets_shares_of_images_stop_at_each_step(budget: float) -> None:
    values = torch.randn(500, 3, generator=torch.Generator().manual_seed(0))
    thresholds = thresholds_for(values, budget)
    stopped, left = [], list(range(500))
    for step in range(3):  # one image at a time, by the model's rule
        leaving = [k for k in left if values[k, step] <= thresholds[step]]
        left = [k for k in left if k not in leaving]
        stopped.append(len(leaving))
    shares = [budget**step / sum(budget**k for k in (1, 2, 3, 4)) for step in (1, 2, 3, 4)]
    assert stopped == [int(500 * share) for share in shares[:3]]


def test_a_share_of_no_image_has_a_threshold_below_all() -> None:
    first, second = thresholds_for(torch.tensor([[0.2, 0.3], [0.1, 0.1]]), 9.0)
    assert first < 0.1
    assert second < 0.1
