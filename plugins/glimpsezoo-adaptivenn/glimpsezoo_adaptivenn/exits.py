"""Exits of the paper: an image is finished once the value of its state is low, because looking on would gain little.

The value net predicts the sum of the later rewards, which are decreases of the loss in nats (training.py), so a threshold is a gain that is
not worth another look. The setting `exits` has one per step. The model applies them in `locate`, as a choice of no region: no classifier
runs before an image's last step. They are no `ExitRule`, because those read logits.

They are from the paper; the release has none. That images with low values stop is in the caption of its extended data figure 4 c. The
supplement (section 4.1) that says how thresholds are chosen was not at hand, so `thresholds_for` is a guess: shares of the images
proportional to a^t stop at step t, as in "Glance and Focus" (Wang et al., 2020) of the same group.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from glimpsezoo import Record, budget_thresholds, find_policy, rollout
from glimpsezoo_adaptivenn.model import AdaptiveNN


def values_of(model: AdaptiveNN, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B fixations"]:
    """The value of each state after which there is a choice, in nats, on the way of the learned policy without exits."""
    whole = model.following(find_policy("learned"))
    whole.config = whole.config.model_copy(update={"exits": ()})
    with torch.no_grad():
        trace = rollout(whole, images, record=Record(states=True))
        return torch.cat([model.value(look.state.map, index) for index, look in enumerate(trace.looks[:-1])], 1)  # type: ignore[union-attr]


def thresholds_for(values: Float[Tensor, "n fixations"], budget: float) -> tuple[float, ...]:
    """For the setting `exits`: thresholds with which shares proportional to budget^t of the images stop at step t, the rest at the last.

    values: of n calibration images, see `values_of`. The smaller the budget, the earlier the exits. Where no image is to stop, the
    threshold is below all values.

    >>> thresholds_for(torch.tensor([[0.3, 0.1], [0.1, 0.2], [0.2, 0.4], [0.4, 0.3]]), budget=1.0)
    (0.1..., 0.1...)
    """
    return tuple(-threshold for threshold in budget_thresholds(-values, budget))
