"""The worst case: per image, the worst over an ensemble of attacks that suits the model.

After AutoAttack (Croce & Hein, ICML 2020), with what glimpse models need. The members are APGD on the margin and on the cross entropy, each
with three gradients if the model has a locator, and then Square. Every step of an attack also moves the next glimpses, and so changes the
function of which it took the gradient; this is why the gradient that takes the glimpses as given (detached) often leads further than the
true one. A plugin adds stand-ins for a model: `GlimpseModel.stand_ins`.

The margin rather than the difference of logits ratio: APGD in Linf uses the sign of the gradient, which the ratio's scale does not change,
and the margin is defined for two classes as well.

Members run one after the other, on the images that are still right, so a fragile model costs little. They run in rounds: each has twice the
iterations of the one before, and other random starts. What the last round took is what tells whether the attack has converged.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from glimpsezoo.conditions.attacks.apgd import Ascent
from glimpsezoo.conditions.attacks.ball import random_start
from glimpsezoo.conditions.attacks.base import Attack
from glimpsezoo.conditions.attacks.looks import locates
from glimpsezoo.conditions.attacks.settings import APGDSettings, Path, SquareSettings, WorstCaseSettings
from glimpsezoo.conditions.attacks.square import Square
from glimpsezoo.conditions.attacks.victim import Objective, Victim, cross_entropy, margin_loss
from glimpsezoo.conditions.base import Remembered
from glimpsezoo.core.exits import ExitRule
from glimpsezoo.core.noise import Noise
from glimpsezoo.core.protocol import GlimpseModel

JUDGED_BY = 5  # runs of a stochastic model that decide whether an image is wrong
EOT = 4  # runs per gradient of a stochastic model, unless the settings give more


class Member(NamedTuple):
    """An attack of the ensemble."""

    name: str
    """As results have it."""
    model: GlimpseModel[Any]
    """The model that it searches on: the attacked one or a stand-in."""
    path: Path
    """How its gradient treats the glimpses."""
    objective: Objective | None
    """What APGD raises; None for Square."""


def members(model: GlimpseModel[Any], path: Path = "free", *, first: bool = True) -> Iterator[Member]:
    """The ensemble for a model, in the order in which the attacks run.

    path: other than 'free', all members have this one. first: whether it is the first round. Later ones leave out frozen glimpses and
    Square, because longer runs of these add almost nothing to what the others find.
    """
    paths: tuple[Path, ...] = (path,)
    if path == "free" and locates(model):
        paths = ("detached", "free", "frozen") if first else ("detached", "free")
    for name, objective in (("apgd-margin", margin_loss), ("apgd-ce", cross_entropy)):
        for each in paths:
            yield Member(f"{name} {each}" if locates(model) else name, model, each, objective)
    for stand_in in model.stand_ins():
        yield Member(f"apgd-margin on {stand_in.surrogate}", stand_in, path, margin_loss)
    if first:
        yield Member("square", model, path, None)


class WorstCase(Attack[WorstCaseSettings]):
    """All rounds of the ensemble. before: the same attack with one round less, whose images it goes on with; made anew if there is none."""

    name = "worst-case"

    def __init__(self, settings: WorstCaseSettings, exit_rule: ExitRule | None = None, before: Remembered | None = None) -> None:
        super().__init__(settings, exit_rule)
        self.before = before

    def rounds(self) -> list[Remembered]:
        found: list[Remembered] = []
        for number in range(1, self.settings.rounds + 1):
            settings = self.settings.model_copy(update={"rounds": number})
            found.append(Remembered(WorstCase(settings, self.exit_rule, found[-1] if found else None)))
        return found

    def passes(self, model: GlimpseModel[Any], number: int = 0) -> float:
        """As if half of the images were right to the end."""
        gradients = sum(3 if member.objective else 1 for member in members(model, self.settings.path, first=number == 0))
        return 0.5 * (self.settings.steps << number) * gradients * self._eot(model)

    def described(self, model: GlimpseModel[Any]) -> dict[str, Any]:
        names = [member.name for member in members(model, self.settings.path)]
        return {**super().described(model), "eot": self._eot(model), "members": names}

    def _eot(self, model: GlimpseModel[Any]) -> int:
        return max(self.settings.eot, EOT) if model.stochastic else 1

    def apply(
        self, images: Float[Tensor, "B C H W"], labels: Int[Tensor, "B"], ids: Int[Tensor, "B"], model: GlimpseModel[Any]
    ) -> Float[Tensor, "B C H W"]:
        if self.settings.rounds == 1:
            begun = images
        else:
            before = self.before or self.rounds()[-2]
            begun = before.apply(images, labels, ids, model)
            before.forget_these(ids)
        return self._applied(images, labels, ids, model, partial(self.perturb, begun=begun))

    def perturb(self, victim: Victim, noise: Noise, begun: Float[Tensor, "B C H W"] | None = None) -> Float[Tensor, "B C H W"]:
        """The last round. begun: the images that the rounds before found."""
        number = self.settings.rounds
        best = victim.images if begun is None else begun
        success = wrong_in(victim, best)
        for place, member in enumerate(members(victim.model, self.settings.path, first=number == 1)):
            rows = (success < 1).nonzero().squeeze(1)
            if not len(rows):
                break
            here = victim.select(rows)
            tried = self._search(member, here, noise.select(rows).fork(number).fork(place), number)
            found = wrong_in(here, tried)
            better = rows[found > success[rows]]
            best = best.index_copy(0, better, tried[found > success[rows]])
            success = success.index_copy(0, rows, torch.maximum(found, success[rows]))
        return best

    def _search(self, member: Member, victim: Victim, noise: Noise, number: int) -> Float[Tensor, "B C H W"]:
        settings, eot = self.settings, self._eot(victim.model)
        victim = replace(victim, model=member.model, path=member.path, scan=None).prepared()
        steps = settings.steps << (number - 1)
        common = {"norm": settings.norm, "eps": settings.eps, "steps": steps, "eot": eot}
        if member.objective is None:
            return Square(SquareSettings.parse(common, owner=self.name)).perturb(victim, noise)
        start = random_start(victim.images, settings.norm, settings.eps, noise)
        first_run = JUDGED_BY + steps * eot * 10 * number
        ascent = Ascent(victim, start, member.objective, APGDSettings.parse(common, owner=self.name), first_run)
        return ascent.run(until_wrong=not victim.model.stochastic)[0]


def wrong_in(victim: Victim, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B"]:
    """The share of the attacker's runs in which the prediction is wrong: 0 or 1 for a deterministic model."""
    runs = JUDGED_BY if victim.model.stochastic else 1
    return torch.stack([victim.wrong(images, -1 - run) for run in range(runs)]).float().mean(0)
