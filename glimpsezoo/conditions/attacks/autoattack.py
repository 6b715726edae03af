"""AutoAttack: an ensemble of attacks without settings, computed by its authors' code (the package pyautoattack).

Croce & Hein, "Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free attacks", ICML 2020.

Standard: APGD on the cross entropy, then APGD on the targeted difference of logits ratio and FAB for each of the nine most likely other
classes, then Square with 5,000 queries. Each attack gets the images that are still classified correctly. Rand, for stochastic models: APGD
on the cross entropy and on the ratio, with gradients averaged over 20 runs.

Departures, so that the outcome of an image does not depend on its batch: the components are called one by one, random starts are drawn
from the image's noise, and Square is this package's (the authors' changes all images of a batch by the same squares).
"""

import logging
from collections.abc import Callable, Iterator
from importlib import metadata
from itertools import count
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from glimpsezoo.conditions.attacks.ball import lengths, random_start
from glimpsezoo.conditions.attacks.base import Attack, keep_better
from glimpsezoo.conditions.attacks.settings import AutoAttackSettings, RandomisedAutoAttackSettings, SquareSettings
from glimpsezoo.conditions.attacks.square import Square
from glimpsezoo.conditions.attacks.victim import Victim
from glimpsezoo.core.noise import Noise
from glimpsezoo.core.protocol import GlimpseModel
from glimpsezoo.errors import GlimpseZooError

TARGETS = 9  # classes for the targeted attacks
QUERIES = 5000
ROUNDING = 1e-6  # share of the budget by which float arithmetic may exceed it

_log = logging.getLogger(__name__)
_log.addHandler(logging.NullHandler())  # the library's warnings are about what the verdict on attacks measures
S = TypeVar("S", bound=AutoAttackSettings)
Attempt = Callable[[Victim, Noise], Tensor]


class _Ensemble(Attack[S]):
    """What both versions have in common."""

    @property
    def implementation(self) -> str:  # type: ignore[override]
        try:
            return f"pyautoattack {metadata.version('pyautoattack')}"
        except metadata.PackageNotFoundError:
            return ""

    def check(self, model: GlimpseModel[Any]) -> None:
        super().check(model)
        if not self.implementation:
            raise GlimpseZooError(
                f"{self.name}: expected the package pyautoattack, which is not installed: pip install 'pyautoattack>=0.2,<0.3'"
            )
        if len(model.task.classes) < 4:
            raise GlimpseZooError(f"{self.name}: expected four classes or more, got {len(model.task.classes)}: use apgd-ce and square")

    def _apgd(self, kind: str, victim: Victim, **settings: Any) -> Any:
        """The library's `APGDAttack` or `APGDAttack_targeted`."""
        from pyautoattack import autopgd_base  # an optional dependency

        own = self.settings
        attack = getattr(autopgd_base, kind)(
            _Classifier(victim),
            n_iter=own.steps,
            norm=own.norm,
            eps=own.eps,
            eot_iter=own.eot,
            device=victim.images.device,
            logger=_log,
            **settings,
        )
        attack.init_hyperparam(victim.images)
        return attack

    def _run(self, attack: Any, victim: Victim, noise: Noise) -> Float[Tensor, "B C H W"]:
        start = random_start(victim.images, self.settings.norm, self.settings.eps, noise)
        with torch.random.fork_rng(devices=[]):  # it also draws a start that is not used
            return attack.attack_single_run(victim.images, victim.labels, x_init=start)[3]

    def _within(self, victim: Victim, images: Float[Tensor, "B C H W"]) -> Tensor:
        size = lengths(images - victim.images, self.settings.norm).flatten()
        return size <= self.settings.eps * (1 + ROUNDING) + ROUNDING / 10


class _Classifier:
    """A rollout as a function images -> logits, as the library expects. Each call of a stochastic model gets other noise."""

    def __init__(self, victim: Victim) -> None:
        self.victim, self.runs = victim, count()

    def __call__(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B classes"]:
        logits = self.victim.logits(images, next(self.runs))
        return logits + 0 * images.flatten(1).sum(1, keepdim=True)  # a zero gradient if the logits have none


class AutoAttack(_Ensemble[AutoAttackSettings]):
    """The standard version, for deterministic models. Images that are already misclassified are not changed."""

    name = "autoattack"

    def passes(self, model: GlimpseModel[Any], number: int = 0) -> float:
        """As if half of the images were right to the end. A step of FAB takes two forward passes and a gradient."""
        targets, steps = min(TARGETS, len(model.task.classes) - 1), self.settings.steps
        return 0.5 * (3 * steps * (1 + targets) + 4 * steps * targets + QUERIES)

    def check(self, model: GlimpseModel[Any]) -> None:
        super().check(model)
        if model.stochastic:
            raise GlimpseZooError("autoattack: expected a deterministic model, got one that draws its glimpses: use autoattack-rand")

    def perturb(self, victim: Victim, noise: Noise) -> Float[Tensor, "B C H W"]:
        images = victim.images
        for number, attempt in enumerate(self._attempts(victim)):
            rows = (~victim.wrong(images)).nonzero().squeeze(1)
            if not len(rows):
                break
            here = victim.select(rows)  # every attempt begins at the clean images
            tried = attempt(here, noise.select(rows).fork(number))
            hit = here.wrong(tried) & self._within(here, tried)
            images = images.index_copy(0, rows[hit], tried[hit])
        return images

    def _attempts(self, victim: Victim) -> Iterator[Attempt]:
        targets = range(2, min(TARGETS, len(victim.model.task.classes) - 1) + 2)  # 2: the second most likely class
        yield lambda here, noise: self._run(self._apgd("APGDAttack", here, loss="ce"), here, noise)
        for kind in (self._targeted_apgd, self._targeted_fab):
            for target in targets:
                yield lambda here, noise, kind=kind, target=target: kind(here, noise, target)
        square = {"norm": self.settings.norm, "eps": self.settings.eps, "steps": QUERIES, "rescale": False}
        yield Square(SquareSettings.parse(square, owner="square")).perturb

    def _targeted_apgd(self, victim: Victim, noise: Noise, target: int) -> Float[Tensor, "B C H W"]:
        attack = self._apgd("APGDAttack_targeted", victim)
        attack.y_target = victim.logits(victim.images).sort(1).indices[:, -target]
        return self._run(attack, victim, noise)

    def _targeted_fab(self, victim: Victim, noise: Noise, target: int) -> Float[Tensor, "B C H W"]:
        """FAB begins at the image itself, so it needs no noise."""
        from pyautoattack.fab_pt import FABAttack_PT

        own = self.settings
        attack = FABAttack_PT(_Classifier(victim), norm=own.norm, n_iter=own.steps, eps=own.eps, targeted=True, device=victim.images.device)
        attack.target_class = target
        return attack.attack_single_run(victim.images, victim.labels, is_targeted=True)


class RandomisedAutoAttack(_Ensemble[RandomisedAutoAttackSettings]):
    """The version for stochastic models. Of the image and the results of both attacks, it keeps the one that is wrong in most runs."""

    name = "autoattack-rand"

    def passes(self, model: GlimpseModel[Any], number: int = 0) -> float:
        return 2 * super().passes(model, number) + 3 * self.settings.eot  # two attacks, and what judges three images

    def perturb(self, victim: Victim, noise: Noise) -> Float[Tensor, "B C H W"]:
        best = keep_better(None, victim.images, *self._judged(victim, victim.images))
        for number, loss in enumerate(("ce", "dlr")):
            images = self._run(self._apgd("APGDAttack", victim, loss=loss), victim, noise.fork(number))
            best = keep_better(best, images, *self._judged(victim, images))
        return best[0]

    def _judged(self, victim: Victim, images: Float[Tensor, "B C H W"]) -> tuple[Float[Tensor, "B"], Float[Tensor, "B"]]:
        """Success and cross entropy, averaged over runs."""
        logits = torch.stack([victim.logits(images, run) for run in range(self.settings.eot)])  # [runs, B, C]
        loss = F.cross_entropy(logits.flatten(0, 1), victim.labels.repeat(len(logits)), reduction="none").view(len(logits), -1)
        return (logits.argmax(2) != victim.labels).float().mean(0), loss.mean(0)
