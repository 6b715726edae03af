"""The loss of AugMix: predictions of an image and of two mixtures of its augmentations should agree.

Hendrycks et al., "AugMix: A Simple Data Processing Method to Improve Robustness and Uncertainty", ICLR 2020, eqs. 1 and 2:
loss = L(p_orig, y) + lambda JS(p_orig; p_augmix1; p_augmix2), where JS is the mean of the KL divergences from the mean of the three.
The first term is the model's own loss. The three predictions come from a rollout of their own, in training mode.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from glimpsezoo.core.noise import Noise
from glimpsezoo.core.protocol import GlimpseModel
from glimpsezoo.core.rollout import rollout
from glimpsezoo.data.augmix import augmixed
from glimpsezoo.zoo.recipes import AugMixRecipe

VIEWS = 0xA06  # fork of an image's noise


def consistency(model: GlimpseModel[Any], images: Float[Tensor, "B C H W"], noise: Noise, how: AugMixRecipe) -> Float[Tensor, ""]:
    """The weighted divergence of the predictions, in nats, averaged over the batch."""
    draws = Noise(noise.keys.cpu()).fork(VIEWS)
    mixed = [augmixed(images, draws.fork(view), severity=how.severity, width=how.width, depth=how.depth) for view in (0, 1)]
    copies = torch.arange(len(images), device=images.device).repeat(3)  # with the same noise, so that only images differ
    trace = rollout(model, torch.cat([images, *mixed]), steps=how.budget, noise=noise.select(copies))
    return how.weight * divergence(trace.logits.unflatten(0, (3, -1)))


def divergence(logits: Float[Tensor, "V B classes"]) -> Float[Tensor, ""]:
    """The Jensen-Shannon divergence of V predictions per image, in nats, averaged over images."""
    log_p = logits.float().log_softmax(2)
    log_mean = log_p.logsumexp(0) - torch.tensor(len(logits)).log()  # [B, classes]
    return (log_p.exp() * (log_p - log_mean)).sum(2).mean()
