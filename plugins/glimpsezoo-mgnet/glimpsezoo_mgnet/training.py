"""The losses: of MGNet (equations 6 to 8 and appendix B) and of the plain small CNN."""

from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from glimpsezoo import Record, Settings, TrainingPhase, rollout
from glimpsezoo_mgnet.cnn4 import CNN4
from glimpsezoo_mgnet.model import MGNet, MGNetState


class PhaseOptions(Settings):
    """Options of a phase of MGNet's training.

    size_penalty: stands for the setting: regions may first learn where to be, and then to be small. sizes_anew: regions begin the phase
    with the middle size. In a card whose sizes have come to an end of their range, the sigmoid of equation 4 lets no gradient through.
    """

    size_penalty: float | None = Field(None, ge=0, allow_inf_nan=False, strict=True)
    sizes_anew: bool = False


def mgnet_step(
    model: MGNet, images: Float[Tensor, "B C H W"], labels: Int[Tensor, "B"], phase: TrainingPhase
) -> dict[str, Float[Tensor, ""]]:
    """Equation 6 as its two weighted terms, and appendix B's penalty on the size of the glimpse-regions.

    global: (1 - alpha) times the mean over the glimpses of the cross entropy of F_t (equation 7). glimpse: alpha times that of h_t
    (equation 8). size: `size_penalty` times ||a^s - a_min||, the mean over the regions that the locator chose. Terms that are zero by
    the settings are left out.

    A phase's options are `PhaseOptions`; raises `GlimpseZooError` for others.
    """
    config, options = model.config, PhaseOptions.parse(phase.options, owner=f"phase {phase.name!r}")
    size_penalty = config.size_penalty if options.size_penalty is None else options.size_penalty
    if options.sizes_anew and phase.step == 0:
        with torch.no_grad():
            for parameter in model.locator.parameters():
                parameter[0] = 0  # the row of a^s
    looks = rollout(model, images, noise=phase.noise, record=Record(every_step=True, states=True)).looks
    losses = {"global": (1 - config.alpha) * _mean_cross_entropy([cast(Tensor, look.logits) for look in looks], labels)}
    if model.glimpse_classifier is not None:
        logits = [model.glimpse_classifier(cast(MGNetState, look.state).feature) for look in looks]
        losses["glimpse"] = config.alpha * _mean_cross_entropy(logits, labels)
    if size_penalty > 0 and config.policy == "learned" and len(looks) > 1:
        size = torch.cat([look.decision.regions.scale for look in looks[1:]])  # [B (T - 1)]
        losses["size"] = size_penalty * (size - config.scale[0]).abs().mean()  # the norm of one number is its size
    return losses


def cnn4_step(
    model: CNN4, images: Float[Tensor, "B C H W"], labels: Int[Tensor, "B"], phase: TrainingPhase
) -> dict[str, Float[Tensor, ""]]:
    """Cross entropy."""
    return {"cross_entropy": F.cross_entropy(rollout(model, images, noise=phase.noise).logits, labels)}


def _mean_cross_entropy(logits: list[Tensor], labels: Int[Tensor, "B"]) -> Float[Tensor, ""]:
    """Over images and glimpses: `logits` holds [B, classes] for each of T glimpses."""
    return torch.stack([F.cross_entropy(each, labels) for each in logits]).mean()
