"""A visible square anywhere in the image, with any content: the question for models that look locally.

The adversarial patch (Brown et al., "Adversarial patch", 2017) as an attack on one image, as in Karmon, Zoran & Goldberg, "LaVAN: localized
and visible adversarial noise", ICML 2018. A model that looks at a few places can miss the square, or be drawn to it; so the place is a part
of the attack.
"""

from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from glimpsezoo.conditions.attacks.ball import direction
from glimpsezoo.conditions.attacks.base import RightOnly, keep_better
from glimpsezoo.conditions.attacks.looks import check_locates, mean_centres
from glimpsezoo.conditions.attacks.settings import PatchSettings
from glimpsezoo.conditions.attacks.victim import Victim, margin_loss, probe
from glimpsezoo.core.noise import Noise
from glimpsezoo.core.protocol import GlimpseModel


class Patch(RightOnly[PatchSettings]):
    """PGD on the margin within a square, at several random places, of which the worst counts per image.

    Threat model: one square of the share eps of the area changes, to any values in [0, 1]. The attacker knows the model and the label, and
    chooses places without regard to where the model looks. Images that a deterministic model already misclassifies are not changed.
    """

    name = "patch"

    def corners(self, victim: Victim, noise: Noise, square: int) -> Int[Tensor, "B restarts 2"]:
        """The upper left pixels of the squares to try, as (row, column). square: their side in pixels."""
        return blind_corners(victim, noise, square, self.settings.restarts)

    def _attacked(self, victim: Victim, noise: Noise) -> Float[Tensor, "B C H W"]:
        settings, (height, width), best = self.settings, victim.images.shape[2:], None
        square = side(settings.eps, height, width)
        for number, corner in enumerate(self.corners(victim, noise, square).unbind(1)):
            mask = covered(corner, square, height, width)
            first_run = number * (settings.steps + 1) * settings.eot
            best = self._painted(victim, noise.fork(number), mask, first_run, best)
        assert best is not None
        return best[0]

    def _painted(
        self,
        victim: Victim,
        noise: Noise,
        mask: Bool[Tensor, "B 1 H W"],
        first_run: int,
        best: tuple[Tensor, Tensor, Tensor] | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The best of `best` and of the iterates of PGD from random content within the mask."""
        settings, clean = self.settings, victim.images
        content = noise.uniform(1, clean[0].numel()).to(clean).view_as(clean)
        images = torch.where(mask, content, clean)
        for step in range(settings.steps + 1):
            found = probe(victim, images, margin_loss, first_run=first_run + step * settings.eot, runs=settings.eot)
            best = keep_better(best, images, found.success, found.loss)
            moved = (images + settings.step * direction(found.gradient, "Linf")).clamp(0, 1)
            images = torch.where(mask, moved, clean)
        assert best is not None
        return best


class AwarePatch(Patch):
    """The same number of places, chosen by the glimpses of the clean image: on those of one step after the other, and in the end as far
    from all of them as possible.

    Threat model: as `Patch`, and the attacker knows where the model looks.
    """

    name = "patch-aware"

    def check(self, model: GlimpseModel[Any]) -> None:
        super().check(model)
        check_locates(self.name, model)

    def corners(self, victim: Victim, noise: Noise, square: int) -> Int[Tensor, "B restarts 2"]:
        return aware_corners(victim, square, self.settings.restarts)


def side(share: float, height: int, width: int) -> int:
    """The side in pixels of the largest square of at most this share of the area, at least one pixel.

    >>> side(0.05, 64, 64), side(0.0001, 28, 28)
    (14, 1)
    """
    return min(max(int((share * height * width) ** 0.5), 1), height, width)


def covered(corner: Int[Tensor, "B 2"], square: int, height: int, width: int) -> Bool[Tensor, "B 1 H W"]:
    """The pixels of a square with this upper left pixel, as (row, column)."""
    rows, columns = (torch.arange(size, device=corner.device) - corner[:, each, None] for each, size in ((0, height), (1, width)))
    inside = [(place >= 0) & (place < square) for place in (rows, columns)]  # [B, H], [B, W]
    return (inside[0][:, :, None] & inside[1][:, None, :])[:, None]


def blind_corners(victim: Victim, noise: Noise, square: int, count: int) -> Int[Tensor, "B count 2"]:
    """Random places within the image."""
    room = torch.tensor([size - square + 1 for size in victim.images.shape[2:]], device=victim.images.device)
    return (noise.uniform(0, 2 * count).view(-1, count, 2) * room).long()


def aware_corners(victim: Victim, square: int, count: int) -> Int[Tensor, "B count 2"]:
    """On the glimpses of the clean image, step after step from the second on, and in the end the place furthest from all of them.

    A step with several glimpses counts as their mean centre; one without any, as the middle of the image.
    """
    with torch.no_grad():
        centre, seen = (each[:, 1:] for each in mean_centres(victim.without_exits().trace(victim.images)))  # [B, T - 1, 2], as (x, y)
    size = torch.tensor(victim.images.shape[2:], device=centre.device)  # (H, W)
    room = size - square
    on = ((centre.flip(2) + 1) / 2 * size - square / 2).round().long().clamp(min=0).minimum(room)  # [B, T - 1, 2], as (row, column)
    anywhere = torch.cartesian_prod(*(torch.arange(int(each) + 1, device=centre.device) for each in room))  # [P, 2]
    middles = 2 * (anywhere + square / 2) / size - 1  # [P, 2], as (y, x) in [-1, 1]
    away = torch.cdist(middles.expand(len(centre), -1, -1), centre.flip(2).to(middles))  # [B, P, T - 1]
    away = away.masked_fill(~seen[:, None], torch.inf).amin(2)  # [B, P]
    tried = [on[:, number % on.shape[1]] for number in range(max(1, count - 1))]
    furthest = [anywhere[away.argmax(1)]] if count > 1 else []
    return torch.stack([*tried, *furthest], 1)
