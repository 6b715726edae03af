"""The loss of MGNet: equations 6 to 8 and appendix B."""

from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from glimpsezoo import Record, Settings, TrainingPhase, rollout
from glimpsezoo_mgnet.model import MGNet, MGNetState


class PhaseOptions(Settings):
    """Options of a training phase of MGNet."""

    size_penalty: float | None = Field(None, ge=0, allow_inf_nan=False, strict=True)
    """Replaces the model's setting, so that regions can learn first where to be and then to be small."""
    sizes_anew: bool = False
    """Start the training phase with regions of the middle size. If a card's sizes are at the end of their range, the sigmoid of equation 4
    is saturated and passes no gradient."""


def mgnet_step(
    model: MGNet, images: Float[Tensor, "B C H W"], labels: Int[Tensor, "B"], phase: TrainingPhase
) -> dict[str, Float[Tensor, ""]]:
    """The two weighted terms of equation 6, and appendix B's penalty on the size of the glimpse-regions.

    global: (1 - alpha) times the cross-entropy of F_t, averaged over the glimpses (equation 7). glimpse: alpha times that of h_t
    (equation 8). size: `size_penalty` times ||a^s - a_min||, averaged over the regions that the locator chose. Terms that the settings
    make zero are left out.

    The options of the training phase are `PhaseOptions`. Raises `GlimpseZooError` for other options.
    """
    config, options = model.config, PhaseOptions.parse(phase.options, owner=f"training phase {phase.name!r}")
    size_penalty = config.size_penalty if options.size_penalty is None else options.size_penalty
    if options.sizes_anew and phase.step == 0:
        with torch.no_grad():
            for parameter in model.locator.parameters():
                parameter[0] = 0  # the row of a^s
    steps = rollout(model, images, noise=phase.noise, record=Record(every_step=True, states=True)).looks
    losses = {"global": (1 - config.alpha) * _mean_cross_entropy(torch.cat([cast(Tensor, step.logits) for step in steps]), labels)}
    if model.glimpse_classifier is not None:
        features = torch.cat([cast(MGNetState, step.state).feature for step in steps])  # [T B, c]
        losses["glimpse"] = config.alpha * _mean_cross_entropy(model.glimpse_classifier(features), labels)
    if size_penalty > 0 and model.policy == "learned" and len(steps) > 1:
        size = torch.cat([step.decision.regions.scale for step in steps[1:]])  # [B (T - 1)]
        losses["size"] = size_penalty * (size - config.scale[0]).abs().mean()  # the norm of a single number is its absolute value
    return losses


def _mean_cross_entropy(logits: Float[Tensor, "TB classes"], labels: Int[Tensor, "B"]) -> Float[Tensor, ""]:
    """The mean over images and glimpses. logits: those of the first glimpse, then those of the second, and so on."""
    return F.cross_entropy(logits, labels.repeat(len(logits) // len(labels)))
