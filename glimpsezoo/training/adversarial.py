"""Adversarial training: the images that a training step is given, changed to raise its loss.

Madry et al., "Towards Deep Learning Models Resistant to Adversarial Attacks", ICLR 2018, eq. 2.1: min over the weights of the mean over
images of the max over changes within the budget of the loss. `worst_images` looks for the max by PGD before the step.
Shafahi et al., "Adversarial Training for Free!", NeurIPS 2019, algorithm 1: each batch is replayed m times, and the gradient that updates
the weights also updates the change, which the next batch starts with (`freely_changed`, `learn_change`).

What is attacked is the cross-entropy of the prediction after the last look, as by the attacks that are measured, not the loss of the
training step: that may have terms whose values mean nothing (REINFORCE), and search for places, or update a moving baseline, at every
call. For the same reason PGD runs the model in eval mode: batch norms keep their statistics, nothing is dropped, and gradients are not
scaled as training scales them. With the free method, the gradient is that of the training step, with everything that training does to it.

Where the gradient goes is `path`. The default is "detached": the changed image is looked at where the model would look, but the gradient
does not pass through where that is. Each step moves the next looks anyway, and so the true gradient misleads: a few steps that ignore it
find worse images (docs/robustness.md).
"""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from glimpsezoo.conditions.attacks.ball import direction, project, random_start
from glimpsezoo.conditions.attacks.base import weights_fixed
from glimpsezoo.conditions.attacks.victim import ScanPath, as_given
from glimpsezoo.core.inference import evaluating
from glimpsezoo.core.noise import Noise
from glimpsezoo.core.protocol import GlimpseModel
from glimpsezoo.core.rollout import Choose, rollout
from glimpsezoo.zoo.recipes import AdversarialRecipe

START = 0xAD5  # fork of an image's noise
CHANGE = "free adversarial change"  # in the memory of a training
PER_IMAGE = {CHANGE}  # what that memory has of every image of a batch: each process keeps it of its own images


def worst_images(
    model: GlimpseModel[Any], images: Float[Tensor, "B C H W"], labels: Int[Tensor, "B"], noise: Noise, how: AdversarialRecipe
) -> Float[Tensor, "B C H W"]:
    """Images within the budget around `images` on which the last iterate of PGD ends. noise: of the training step."""
    choose: dict[str, Choose | None] = {"free": None, "detached": as_given}
    path = ScanPath(model, images, noise) if how.path == "frozen" else choose[how.path]
    found = random_start(images, how.norm, how.eps, noise.fork(START))
    with evaluating(model), weights_fixed(model):
        for _ in range(how.steps):
            given = found.requires_grad_()
            logits = rollout(model, given, steps=how.budget, choose=path, noise=noise).logits
            (gradient,) = torch.autograd.grad(F.cross_entropy(logits, labels, reduction="sum"), given)
            found = project(given.detach() + how.step * direction(gradient, how.norm), images, how.norm, how.eps)
    return found


def freely_changed(images: Float[Tensor, "B C H W"], memory: dict[str, Tensor], how: AdversarialRecipe) -> Float[Tensor, "B C H W"]:
    """The images with the change of the last replay, which a smaller batch has a part of. They get a gradient, for `learn_change`."""
    kept = memory.get(CHANGE)
    if kept is None or len(kept) < len(images):
        kept = memory[CHANGE] = torch.zeros_like(images)
    return (images + kept[: len(images)].clamp(-how.eps, how.eps)).clamp(0, 1).requires_grad_()


def learn_change(gradient: Float[Tensor, "B C H W"], memory: dict[str, Tensor], how: AdversarialRecipe) -> None:
    """Step up the gradient of the loss that the weights are updated by, within the budget."""
    kept = memory[CHANGE]
    moved = kept[: len(gradient)] + how.step * gradient.sign()
    memory[CHANGE] = torch.cat([moved.clamp(-how.eps, how.eps), kept[len(gradient) :]])
