"""Random changes of an image: the effect of plain noise of the same size, which a real attack must exceed."""

from collections.abc import Callable
from typing import get_args

from jaxtyping import Float
from torch import Tensor

from glimpsezoo.conditions.attacks.ball import direction, project, random_start
from glimpsezoo.conditions.attacks.base import RightOnly, keep_better
from glimpsezoo.conditions.attacks.settings import Draws, Norm, RandomSettings
from glimpsezoo.conditions.attacks.victim import Victim, margin_loss, queried
from glimpsezoo.conditions.corruptions.draws import normal
from glimpsezoo.core.noise import Noise


class RandomNoise(RightOnly[RandomSettings]):
    """The worst of `steps` random changes per image: one that is misclassified if there is any, else the one with the lowest margin.

    Threat model: Linf or L2 of length eps. The attacker queries the model and knows the label; no draw depends on an answer. Images that
    a deterministic model already misclassifies are not changed.
    """

    name = "random"
    sees_gradients = False

    def _attacked(self, victim: Victim, noise: Noise) -> Float[Tensor, "B C H W"]:
        settings, best = self.settings, None
        kinds = get_args(Draws) if settings.draws == "mixed" else (settings.draws,)
        for draw in range(settings.steps):
            tried = DRAWN[kinds[draw % len(kinds)]](victim.images, settings.norm, settings.eps, noise.fork(draw))
            loss, success = queried(victim, tried, margin_loss, first_run=draw * settings.eot, runs=settings.eot)
            best = keep_better(best, tried, success, loss)
        assert best is not None
        return best[0]


def _corners(clean: Float[Tensor, "B C H W"], norm: Norm, eps: float, noise: Noise) -> Float[Tensor, "B C H W"]:
    """The edge of the budget: eps up or down at every value in Linf, a uniform direction of length eps in L2."""
    return project(clean + eps * direction(_normal(clean, noise), norm), clean, norm, eps)


def _gaussian(clean: Float[Tensor, "B C H W"], norm: Norm, eps: float, noise: Noise) -> Float[Tensor, "B C H W"]:
    """Gaussian noise, projected. Its standard deviation is eps / 2 in Linf; in L2, its expected squared length is eps^2."""
    size = eps / 2 if norm == "Linf" else eps / clean[0].numel() ** 0.5
    return project(clean + size * _normal(clean, noise), clean, norm, eps)


def _normal(clean: Float[Tensor, "B C H W"], noise: Noise) -> Float[Tensor, "B C H W"]:
    return normal(noise, 0, *clean.shape[1:]).to(clean)


DRAWN: dict[Draws, Callable[[Tensor, Norm, float, Noise], Tensor]] = {
    "corners": _corners,
    "uniform": random_start,
    "gaussian": _gaussian,
}
