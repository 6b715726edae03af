"""PGD with another aim than the label: what attacks on adaptive computation have in common."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from glimpsezoo.conditions.attacks.ball import random_start
from glimpsezoo.conditions.attacks.base import Attack, keep_better
from glimpsezoo.conditions.attacks.gradient import stepped
from glimpsezoo.conditions.attacks.settings import PGDSettings
from glimpsezoo.conditions.attacks.victim import Objective, Victim, probe
from glimpsezoo.core.noise import Noise
from glimpsezoo.core.protocol import GlimpseModel
from glimpsezoo.errors import GlimpseZooError

P = TypeVar("P", bound=PGDSettings)


class Aimed(Attack[P]):
    """PGD on the objectives of a subclass. It keeps the iterate with the most success, and of those the one with the highest loss.

    The clean image is a candidate, so the attack never has less success than no attack, as far as the attacker's runs show. Where the
    gradient is zero, because choices are hard and nothing replaces them, a step goes from the best image so far in a random direction.
    """

    @abstractmethod
    def objectives(self, model: GlimpseModel[Any]) -> Sequence[Objective]:
        """What to raise: with several, each in turn. Their successes must be comparable."""

    def check(self, model: GlimpseModel[Any]) -> None:
        if model.steps == 1:
            raise GlimpseZooError(f"{self.name}: expected a model of several steps, got one of a single step: leave this attack out")
        super().check(model)

    def passes(self, model: GlimpseModel[Any], number: int = 0) -> float:
        return len(self.objectives(model)) * super().passes(model, number)

    def perturb(self, victim: Victim, noise: Noise) -> Float[Tensor, "B C H W"]:
        best = None
        for objective in self.objectives(victim.model):
            best = keep_better(best, *climb(victim, noise, objective, self.settings))
        assert best is not None
        return best[0]


def climb(victim: Victim, noise: Noise, objective: Objective, settings: PGDSettings) -> tuple[Tensor, Tensor, Tensor]:
    """The best images [B, C, H, W] on the way, their success [B] and their loss [B]."""
    start, run = probe(victim, victim.images, objective, runs=settings.eot), 0
    best = keep_better(None, victim.images, start.success, start.loss)
    for restart in range(settings.restarts):
        images, own = victim.images, noise.fork(restart)
        if settings.random_start:
            images = random_start(images, settings.norm, settings.eps, own)
        for step in range(settings.steps + 1):
            run += settings.eot
            found = probe(victim, images, objective, first_run=run, runs=settings.eot)
            best = keep_better(best, images, found.success, found.loss)
            if step < settings.steps:
                images = stepped(victim, *_led(images, found.gradient, best[0], own, step), settings)
    return best


def _led(images: Tensor, gradient: Tensor, best: Tensor, noise: Noise, step: int) -> tuple[Tensor, Tensor]:
    """Where to step from, and which way: along the gradient, or from the best image in a random direction where there is no gradient."""
    lost = (gradient == 0).flatten(1).all(1)[:, None, None, None]  # [B, 1, 1, 1]
    if not lost.any():
        return images, gradient
    way = noise.uniform(step + 1, images[0].numel()).to(images).view_as(images) - 0.5  # the random start has the draws of step 0
    return torch.where(lost, best, images), torch.where(lost, way, gradient)
