"""Attacks that follow the gradient with a fixed step size: FGSM, PGD, and PGD as in the MGNet paper.

Goodfellow, Shlens & Szegedy, "Explaining and harnessing adversarial examples", ICLR 2015; Madry et al., "Towards deep learning models
resistant to adversarial attacks", ICLR 2018. In L2 the sign is replaced by the unit vector.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from jaxtyping import Float
from torch import Tensor

from glimpsezoo.conditions.attacks.ball import direction, project, random_start
from glimpsezoo.conditions.attacks.base import Attack, keep_better
from glimpsezoo.conditions.attacks.settings import FGSMSettings, PaperPGDSettings, PGDSettings
from glimpsezoo.conditions.attacks.victim import Victim, cross_entropy, probe
from glimpsezoo.core.noise import Noise
from glimpsezoo.core.protocol import GlimpseModel


class FGSM(Attack[FGSMSettings]):
    """One step of length eps along the gradient of the cross entropy."""

    name = "fgsm"

    def perturb(self, victim: Victim, noise: Noise) -> Float[Tensor, "B C H W"]:
        settings = self.settings
        gradient = probe(victim, victim.images, cross_entropy, runs=settings.eot).gradient
        moved = victim.images + settings.step * direction(gradient, settings.norm)
        return project(moved, victim.images, settings.norm, settings.eps)


class PGD(Attack[PGDSettings]):
    """Steps along the gradient of the cross entropy, each projected into the budget. The result is the last iterate, as in the paper.

    With several restarts, the one that is wrong in most runs is kept per image, and among those the one with the highest loss.
    """

    name = "pgd"

    def perturb(self, victim: Victim, noise: Noise) -> Float[Tensor, "B C H W"]:
        settings, best = self.settings, None
        for restart in range(settings.restarts):
            first_run = restart * (settings.steps + 1) * settings.eot
            images = self._once(victim, noise.fork(restart), first_run)
            if settings.restarts == 1:
                return images
            found = probe(victim, images, cross_entropy, first_run=first_run + settings.steps * settings.eot, runs=settings.eot)
            best = keep_better(best, images, found.success, found.loss)
        assert best is not None
        return best[0]

    def _once(self, victim: Victim, noise: Noise, first_run: int) -> Float[Tensor, "B C H W"]:
        settings = self.settings
        images = random_start(victim.images, settings.norm, settings.eps, noise) if settings.random_start else victim.images
        for step in range(settings.steps):
            found = probe(victim, images, cross_entropy, first_run=first_run + step * settings.eot, runs=settings.eot)
            images = stepped(victim, images, found.gradient, settings)
        return images


def stepped(
    victim: Victim, images: Float[Tensor, "B C H W"], gradient: Float[Tensor, "B C H W"], settings: PGDSettings
) -> Float[Tensor, "B C H W"]:
    """One step up the gradient, projected into the budget."""
    return project(images + settings.step * direction(gradient, settings.norm), victim.images, settings.norm, settings.eps)


class PaperPGD(Attack[PaperPGDSettings]):
    """PGD as in Tan, Dong & Ma (BMVC 2021, section 4.1.3), to compare with their numbers. It masks gradients: do not measure with it.

    It works in units of normalised pixels, (pixel - mean) / std, without a random start or clipping to [0, 1], and with the gradients of
    training (`training_gradients`). A step of length 1 in these units is std in pixels, per channel.
    """

    name = "pgd-paper"

    def perturb(self, victim: Victim, noise: Noise) -> Float[Tensor, "B C H W"]:
        settings, clean = self.settings, victim.images
        std = clean.new_tensor(victim.model.task.std)[:, None, None]  # [C, 1, 1]
        delta = clean.new_zeros(clean.shape)  # in units of normalised pixels
        with _gradients_of_training(victim.model):
            for step in range(settings.steps):
                found = probe(victim, clean + delta * std, cross_entropy, first_run=step * settings.eot, runs=settings.eot)
                delta = (delta + settings.step * found.gradient.sign()).clamp(-settings.eps, settings.eps)
        return clean + delta * std


@contextmanager
def _gradients_of_training(model: GlimpseModel[Any]) -> Iterator[None]:
    before = model.training_gradients
    model.training_gradients = True
    try:
        yield
    finally:
        model.training_gradients = before
