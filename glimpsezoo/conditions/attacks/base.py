"""The base of all attacks: a condition that uses the model, built from settings and, for attacks on the exit, an exit rule."""

import math
from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, Generic, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from glimpsezoo.conditions.attacks.settings import AttackSettings, in_255ths
from glimpsezoo.conditions.attacks.victim import ScanPath, Victim
from glimpsezoo.conditions.base import Condition, Remembered
from glimpsezoo.core.exits import ExitRule
from glimpsezoo.core.noise import Noise
from glimpsezoo.core.policies import check_without_labels
from glimpsezoo.core.protocol import GlimpseModel
from glimpsezoo.core.rollout import Choose
from glimpsezoo.errors import GlimpseZooError

ATTACKER, START, RUN = 0xA77AC, 0, 1  # forks of an image's noise, and of the attacker's


A = TypeVar("A", bound=AttackSettings)


class Attack(Condition, Generic[A]):
    """An attack with its settings. exit_rule: of the measured run; attacks on the exit need one that reads the logits.

    The attacker knows the model and the label. Starts and queries are a function of the image's id and a seed. The noise with which the
    attacker runs a stochastic model is never that of a measured run (`Noise.of(seed, ids)` with any seed).
    """

    sees_gradients: ClassVar[bool] = True
    """False for a black-box attack, for which a model's surrogate makes no difference."""

    aims_at_looks: ClassVar[bool] = False
    """Whether its target is where the model looks, which a result then says."""

    def __init__(self, settings: A, exit_rule: ExitRule | None = None) -> None:
        self.settings, self.exit_rule = settings, exit_rule

    @property
    def attacks_the_exit(self) -> bool:
        """Whether its target is the prediction at the exit."""
        return self.settings.target == "exit"

    @property
    def any_step(self) -> bool:
        """Whether an image counts as right only if it is right at every step."""
        return self.settings.target == "any-step"

    @property
    def evaluations(self) -> int:
        """The number of measured runs per attacked image: one, unless the settings give another."""
        return self.settings.evaluations or 1

    def rounds(self) -> list[Remembered]:
        """The attack in rounds of growing budget, each of which goes on with the images of the one before; by default one."""
        return [Remembered(self)]

    def passes(self, model: GlimpseModel[Any], number: int = 0) -> float:
        """What the round `number`, from 0, costs per image, in forward passes; a gradient costs as much as two."""
        settings = self.settings
        return settings.steps * settings.restarts * settings.eot * (3.0 if self.sees_gradients else 1.0)

    @property
    def parameters(self) -> dict[str, Any]:
        rule = self.exit_rule if self.attacks_the_exit else None
        named = None if rule is None else {"name": rule.name, "parameters": rule.parameters}
        return {**self.settings.model_dump(mode="json"), "exit_rule": named}

    def described(self, model: GlimpseModel[Any]) -> dict[str, Any]:
        """The keys and values of the result's record that describe the attack itself."""
        settings = self.settings
        names = ("norm", "eps", "space", "steps", "restarts", "eot", "target", "path")
        said = {name: getattr(settings, name) for name in names}
        said |= {"evaluations": self.evaluations, "step_size": settings.step}
        return {"name": self.name, **said, "surrogate": model.surrogate if self.sees_gradients else None}

    def check(self, model: GlimpseModel[Any]) -> None:
        """Raise `GlimpseZooError` for a model that this attack cannot handle, and for a budget larger than its images allow."""
        check_without_labels(model, self.name, "leave this attack out")
        size, settings = (model.task.channels, *model.task.image_size), self.settings
        grey = math.sqrt(math.prod(size)) / 2
        if settings.norm == "L2" and settings.space == "pixels" and settings.eps > grey:
            raise GlimpseZooError(
                f"{self.name}: expected eps of at most {grey:.3g} in L2, which makes any image of {' x '.join(map(str, size))} values "
                f"plain grey, got {settings.eps:g}{in_255ths(settings.eps)}"
            )
        if self.attacks_the_exit and (self.exit_rule is None or not self.exit_rule.reads):
            got = "none" if self.exit_rule is None else repr(self.exit_rule.name)
            raise GlimpseZooError(
                f"{self.name}: target=exit expects an exit rule that reads the logits, got {got}: give one such as confidence"
            )

    def apply(
        self, images: Float[Tensor, "B C H W"], labels: Int[Tensor, "B"], ids: Int[Tensor, "B"], model: GlimpseModel[Any]
    ) -> Float[Tensor, "B C H W"]:
        return self._applied(images, labels, ids, model, self.perturb)

    def _applied(
        self,
        images: Float[Tensor, "B C H W"],
        labels: Int[Tensor, "B"],
        ids: Int[Tensor, "B"],
        model: GlimpseModel[Any],
        perturb: Callable[[Victim, Noise], Tensor],
    ) -> Float[Tensor, "B C H W"]:
        self.check(model)
        start, run = attacker_noise(self.settings.seed, ids)
        victim = Victim(
            model,
            images.detach(),
            labels,
            run,
            target=self.settings.target,
            exit_rule=self.exit_rule if self.attacks_the_exit else None,
            path=self.settings.path,
        )
        with torch.no_grad(), weights_fixed(model):
            return perturb(victim.prepared(), start).detach()

    def choices(self, images: Float[Tensor, "B C H W"], noise: Noise, model: GlimpseModel[Any]) -> Choose | None:
        return ScanPath(model, images, noise) if self.settings.path == "frozen" else None

    @abstractmethod
    def perturb(self, victim: Victim, noise: Noise) -> Float[Tensor, "B C H W"]:
        """The victim's images, changed within the budget. noise: for starts and queries. Called with gradients disabled."""


def attacker_noise(seed: int, ids: Int[Tensor, "B"]) -> tuple[Noise, Noise]:
    """The noise for starts and queries, and the noise for the attacker's runs of the model. No measured run uses either."""
    noise = Noise.of(seed, ids).fork(ATTACKER)
    return noise.fork(START), noise.fork(RUN)


@contextmanager
def weights_fixed(model: GlimpseModel[Any]) -> Iterator[None]:
    """Disable gradients of the weights, which cost time and memory and would stay in the model if a library called `backward`."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


class RightOnly(Attack[A]):
    """An attack that changes only the images that are classified correctly.

    A stochastic model is attacked on all images, because an image that is wrong in one run may be right in another.
    """

    def perturb(self, victim: Victim, noise: Noise) -> Float[Tensor, "B C H W"]:
        if victim.model.stochastic:
            return self._attacked(victim, noise)
        places = (~victim.wrong(victim.images)).nonzero().squeeze(1)
        if not len(places):
            return victim.images
        return victim.images.index_copy(0, places, self._attacked(victim.select(places), noise.select(places)))

    @abstractmethod
    def _attacked(self, victim: Victim, noise: Noise) -> Float[Tensor, "B C H W"]:
        """As `perturb`, for the images to change."""


def keep_better(
    best: tuple[Tensor, Tensor, Tensor] | None, images: Tensor, success: Float[Tensor, "B"], loss: Float[Tensor, "B"]
) -> tuple[Tensor, Tensor, Tensor]:
    """(images, success, loss): per image, the more successful of `best` and the new one; at equal success, the one with the higher loss."""
    if best is None:
        return images, success, loss
    better = (success > best[1]) | ((success == best[1]) & (loss > best[2]))
    return (
        torch.where(better[:, None, None, None], images, best[0]),
        torch.where(better, success, best[1]),
        torch.where(better, loss, best[2]),
    )
