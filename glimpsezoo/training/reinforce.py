"""What models that are trained by a reward share: Monte Carlo samples of each image, returns, and the REINFORCE term (Williams, 1992)."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from glimpsezoo.core.noise import Noise
from glimpsezoo.training.job import TrainingPhase


class Samples(NamedTuple):
    """A batch in which each image stands M times, one after the other, with draws of its own."""

    images: Float[Tensor, "BM C H W"]
    labels: Int[Tensor, "BM"]
    noise: Noise


def monte_carlo(images: Float[Tensor, "B C H W"], labels: Int[Tensor, "B"], noise: Noise, samples: int) -> Samples:
    """`samples` (M) copies of every image with its label, and independent noise for each copy."""
    repeats = torch.arange(len(images), device=images.device).repeat_interleave(samples)  # [B M]
    number = torch.arange(samples, device=images.device).repeat(len(images))
    return Samples(images[repeats], labels[repeats], noise.select(repeats).fork(number))


def returns(rewards: Float[Tensor, "B T"], discount: float = 1.0) -> Float[Tensor, "B T"]:
    """The return of every step: the sum of its reward and the later ones, each `discount` times less for every step that it is later.

    >>> returns(torch.tensor([[0.0, 0.0, 1.0]]), 0.5).tolist()
    [[0.25, 0.5, 1.0]]
    """
    later, found = torch.zeros_like(rewards[:, 0]), []
    for reward in rewards.flip(1).unbind(1):
        later = reward + discount * later
        found.append(later)
    return torch.stack(found[::-1], 1)


def standardised(values: Float[Tensor, "B T"], phase: TrainingPhase, epsilon: float) -> Float[Tensor, "B T"]:
    """The values less their mean, divided by their standard deviation plus epsilon, over the images of the whole batch and all steps."""
    if phase.share.world == 1:
        return (values - values.mean()) / (values.std() + epsilon)
    flat = values.flatten()
    gap = values - phase.mean(flat)
    count = phase.share.total(flat.new_tensor(float(len(flat))))
    deviation = (phase.mean(gap.flatten().square()) * count / (count - 1)).sqrt()
    return gap / (deviation + epsilon)


def reinforce(log_prob: Float[Tensor, "B *T"], advantage: Float[Tensor, "B *T"]) -> Float[Tensor, ""]:
    """A term whose gradient is that of the negative expected return; its value has no meaning. Summed over steps, averaged over images.

    log_prob: of the choices, in nats, with a gradient in the policy. advantage: the return less a baseline; no gradient passes through it.
    """
    return -(advantage.detach() * log_prob).reshape(len(log_prob), -1).sum(1).mean()
