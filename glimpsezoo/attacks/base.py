"""What every attack is: a condition on images that knows the model, built from settings and, where exits matter, an exit rule."""

import math
from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, Generic, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from glimpsezoo.attacks.settings import AttackSettings, in_255ths
from glimpsezoo.attacks.victim import ScanPath, Victim
from glimpsezoo.conditions import Condition
from glimpsezoo.driver import Choose
from glimpsezoo.errors import GlimpseZooError
from glimpsezoo.exits import ExitRule
from glimpsezoo.noise import Noise
from glimpsezoo.protocol import GlimpseModel

ATTACKER, START, RUN = 0xA77AC, 0, 1  # forks: of an image's noise, of the attacker's


A = TypeVar("A", bound=AttackSettings)


class Attack(Condition, Generic[A]):
    """An attack with its settings. exit_rule: of the run that is measured; attacks on the exit need one that reads the logits.

    The attacker knows model and label and draws noise of its own: starts and queries belong to an image and a seed, and the noises
    that it runs a stochastic model with are never those of a measured run (`Noise.of(seed, ids)` with any seed).
    sees_gradients: false for a black box, to which a model's surrogate makes no difference.
    """

    sees_gradients: ClassVar[bool] = True

    def __init__(self, settings: A, exit_rule: ExitRule | None = None) -> None:
        self.settings, self.exit_rule = settings, exit_rule

    @property
    def attacks_the_exit(self) -> bool:
        return self.settings.target == "exit"

    @property
    def evaluations(self) -> int:
        """How many runs of each attacked image are measured: one, unless the settings say how many."""
        return self.settings.evaluations or 1

    @property
    def parameters(self) -> dict[str, Any]:
        rule = self.exit_rule if self.attacks_the_exit else None
        named = None if rule is None else {"name": rule.name, "parameters": rule.parameters}
        return {**self.settings.model_dump(mode="json"), "exit_rule": named}

    def described(self, model: GlimpseModel[Any]) -> dict[str, Any]:
        """What `records.Attack` says of the attack itself, by its keys."""
        settings = self.settings
        names = ("norm", "eps", "space", "steps", "restarts", "eot", "target", "path")
        said = {name: getattr(settings, name) for name in names}
        said |= {"evaluations": self.evaluations, "step_size": settings.step}
        return {"name": self.name, **said, "surrogate": model.surrogate if self.sees_gradients else None}

    def check(self, model: GlimpseModel[Any]) -> None:
        """Raises `GlimpseZooError` for a model that this attack cannot be run on, and for a budget that its images cannot spend."""
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
        self.check(model)
        start, run = attacker_noise(self.settings.seed, ids)
        victim = Victim(
            model,
            images.detach(),
            labels,
            run,
            target=self.settings.target,
            exit_rule=self.exit_rule if self.attacks_the_exit else None,
            frozen=self.settings.path == "frozen",
        )
        with torch.no_grad(), weights_fixed(model):
            return self.perturb(victim.prepared(), start).detach()

    def choices(self, images: Float[Tensor, "B C H W"], noise: Noise, model: GlimpseModel[Any]) -> Choose | None:
        return ScanPath(model, images, noise) if self.settings.path == "frozen" else None

    @abstractmethod
    def perturb(self, victim: Victim, noise: Noise) -> Float[Tensor, "B C H W"]:
        """The victim's images, changed within the budget. noise: of starts and queries. Called with gradients off."""


def attacker_noise(seed: int, ids: Int[Tensor, "B"]) -> tuple[Noise, Noise]:
    """What an attacker draws starts and queries from, and the noise of the runs that it makes of the model; no measured run has either."""
    noise = Noise.of(seed, ids).fork(ATTACKER)
    return noise.fork(START), noise.fork(RUN)


@contextmanager
def weights_fixed(model: GlimpseModel[Any]) -> Iterator[None]:
    """Without gradients of the weights, which would cost time and memory and, where a library calls `backward`, be left in the model."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


def where_right(victim: Victim, noise: Noise, attack: Callable[[Victim, Noise], Tensor]) -> Float[Tensor, "B C H W"]:
    """The images after `attack(victim, noise)` on those that are not wrong already; the others as they are.

    Those of a stochastic model are all attacked: one that is wrong in one run may be right in another.
    """
    if victim.model.stochastic:
        return attack(victim, noise)
    places = (~victim.wrong(victim.images)).nonzero().squeeze(1)
    if not len(places):
        return victim.images
    return victim.images.index_copy(0, places, attack(victim.select(places), noise.select(places)))


def keep_better(
    best: tuple[Tensor, Tensor, Tensor] | None, images: Tensor, success: Float[Tensor, "B"], loss: Float[Tensor, "B"]
) -> tuple[Tensor, Tensor, Tensor]:
    """(images, success, loss), image by image the more successful of `best` and the others; at equal success that of the higher loss."""
    if best is None:
        return images, success, loss
    better = (success > best[1]) | ((success == best[1]) & (loss > best[2]))
    return (
        torch.where(better[:, None, None, None], images, best[0]),
        torch.where(better, success, best[1]),
        torch.where(better, loss, best[2]),
    )
