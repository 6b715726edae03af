"""Exit rules: pure functions of the logits of the steps so far."""

import pytest
import torch
from torch import Tensor
from toy_models import Peek, batch_of_images, toy

from glimpsezoo.core.exits import Confidence, ExitRule, Fixed
from glimpsezoo.core.rollout import rollout
from glimpsezoo.errors import GlimpseZooError


def logits_of(*probabilities: float) -> Tensor:
    """Logits [B, 1, 2] of two classes; the first class has these probabilities."""
    p = torch.tensor(probabilities)
    return torch.stack([p.log(), (1 - p).log()], 1)[:, None]


def test_an_image_exits_once_its_largest_probability_reaches_the_threshold() -> None:
    assert Confidence(0.9).exits(logits_of(0.95, 0.85, 0.05, 0.5)).tolist() == [True, False, True, False]
    assert Confidence(0.75).exits(torch.tensor([[[0.0, 0.0, 0.0, 0.0]]])).tolist() == [False]
    assert Confidence(0.25).exits(torch.tensor([[[0.0, 0.0, 0.0, 0.0]]])).tolist() == [True]  # the threshold itself counts


def test_confidence_reads_the_last_step() -> None:
    logits = torch.cat([logits_of(0.99, 0.5), logits_of(0.5, 0.99)], 1)
    assert Confidence(0.9).exits(logits).tolist() == [False, True]


def test_an_image_without_a_probability_goes_on() -> None:
    assert Confidence(0.0).exits(torch.full((1, 1, 3), float("nan"))).tolist() == [False]


@pytest.mark.parametrize("threshold", [-0.1, 1.1, float("nan"), float("inf")])
def test_a_threshold_is_a_probability(threshold: float) -> None:
    with pytest.raises(GlimpseZooError, match=r"a probability in \[0, 1\], got"):
        Confidence(threshold)


def test_a_rule_is_identified_by_its_name_and_parameters() -> None:
    assert (Confidence(1).name, Confidence(1).parameters) == ("confidence", {"threshold": 1.0})
    assert (Fixed().name, Fixed().parameters, Fixed().reads) == ("fixed", {}, False)


def test_the_fixed_rule_exits_nobody() -> None:
    assert Fixed().exits(torch.zeros(3, 2, 5)).tolist() == [False] * 3


class Agreement(ExitRule):
    """As soon as two steps agree."""

    name = "agreement"

    def exits(self, logits: Tensor) -> Tensor:
        classes = logits.argmax(-1)
        return (classes[:, -1] == classes[:, -2]) if classes.shape[1] > 1 else torch.zeros(len(logits), dtype=torch.bool)


def test_a_rule_sees_the_steps_so_far_of_the_images_still_in_the_batch() -> None:
    model, images = toy(Peek), batch_of_images(80)
    with torch.no_grad():
        trace = rollout(model, images, exit_rule=Agreement())
        classes = torch.stack([rollout(model, images, steps=t).logits.argmax(-1) for t in (1, 2, 3, 4)], 1)
    agree = classes[:, 1:] == classes[:, :-1]
    expected = torch.where(agree.any(1), agree.int().argmax(1) + 2, 4)
    assert trace.last_step.tolist() == expected.tolist()
    assert len(expected.unique()) > 1
