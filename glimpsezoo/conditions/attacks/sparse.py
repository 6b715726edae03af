"""An attack on few pixels: an L0 budget, by random search.

Croce, Andriushchenko, Singh, Flammarion & Hein, "Sparse-RS: a versatile framework for query-efficient sparse black-box adversarial
attacks", AAAI 2022: algorithm 1 for L0. The k pixels have colours in {0, 1}^C; each query gives some of them up for others, with new
colours, and keeps the change if it does not raise the margin. Here the share that is exchanged falls linearly to one pixel over the
queries, rather than by the paper's table.
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from glimpsezoo.conditions.attacks.base import RightOnly, keep_better
from glimpsezoo.conditions.attacks.settings import SparseSettings
from glimpsezoo.conditions.attacks.victim import Victim, margin_loss, queried
from glimpsezoo.core.noise import Noise
from glimpsezoo.core.protocol import GlimpseModel
from glimpsezoo.errors import GlimpseZooError

SHARE = 0.3  # of the pixels, that the first query exchanges: alpha_init of the paper


class Sparse(RightOnly[SparseSettings]):
    """Sparse-RS on the margin.

    Threat model: at most eps pixels of an image change, in all channels and by any amount. The attacker queries the model and knows the
    label. Images that a deterministic model already misclassifies are not changed.
    """

    name = "sparse"
    sees_gradients = False

    def check(self, model: GlimpseModel[Any]) -> None:
        super().check(model)
        most = model.task.image_size[0] * model.task.image_size[1] // 2
        if self.settings.eps > most:
            raise GlimpseZooError(f"sparse: expected eps of at most {most} pixels, half of those of an image, got {self.settings.eps}")

    def _attacked(self, victim: Victim, noise: Noise) -> Float[Tensor, "B C H W"]:
        best = None
        for restart in range(self.settings.restarts):
            best = keep_better(best, *self._search(victim, noise.fork(restart), restart * self.settings.steps * self.settings.eot))
        assert best is not None
        return best[0]

    def _search(self, victim: Victim, noise: Noise, first_run: int) -> tuple[Tensor, Tensor, Tensor]:
        """The images, their success and their loss."""
        settings, channels, size = self.settings, victim.images.shape[1], victim.images[0, 0].numel()
        pixels = noise.uniform(0, size).argsort(1)[:, : settings.eps]  # [B, k]
        colours = _colours(noise, 0, settings.eps, channels).to(victim.images)
        start = paint(victim.images, pixels, colours)
        best = (start, *self._queried(victim, start, first_run))
        for query in range(1, settings.steps):
            # For a stochastic model, an image may be right again in the next run, so the search continues to the end.
            done = torch.zeros_like(best[1], dtype=torch.bool) if victim.model.stochastic else best[1] == 1
            rows = (~done).nonzero().squeeze(1)
            if not len(rows):
                break
            here, count = victim.select(rows), max(1, round(SHARE * settings.eps * (1 - query / settings.steps)))
            tried = _exchanged(pixels[rows], colours[rows], noise.select(rows), query, count, size)
            images = paint(here.images, *tried)
            success, loss = self._queried(here, images, first_run + query * settings.eot)
            better = loss >= best[2][rows]
            kept = rows[better]
            for whole, part in zip((pixels, colours, *best), (*tried, images, success, loss), strict=True):
                whole[kept] = part[better]
        return best

    def _queried(self, victim: Victim, images: Float[Tensor, "B C H W"], first_run: int) -> tuple[Tensor, Tensor]:
        """Success and loss."""
        loss, success = queried(victim, images, margin_loss, first_run=first_run, runs=self.settings.eot)
        return success, loss


def paint(clean: Float[Tensor, "B C H W"], pixels: Int[Tensor, "B k"], colours: Float[Tensor, "B k C"]) -> Float[Tensor, "B C H W"]:
    """The images with these pixels, numbered row by row, in these colours."""
    channels = clean.shape[1]
    where = pixels[:, None].expand(-1, channels, -1)  # [B, C, k]
    return clean.flatten(2).scatter(2, where, colours.mT).view_as(clean)


def _colours(noise: Noise, query: int, k: int, channels: int) -> Float[Tensor, "B k C"]:
    """Corners of the colour cube."""
    return noise.fork(1).uniform(query, k * channels).view(-1, k, channels).round()


def _exchanged(
    pixels: Int[Tensor, "B k"], colours: Float[Tensor, "B k C"], noise: Noise, query: int, count: int, size: int
) -> tuple[Int[Tensor, "B k"], Float[Tensor, "B k C"]]:
    """`count` random pixels replaced by others that are not among them, in new colours. Pixels are at most half of those of an image."""
    k, channels = colours.shape[1:]
    given_up = noise.fork(2).uniform(query, k).argsort(1)[:, :count]  # [B, count]: places among the k
    taken = noise.uniform(query, size).scatter(1, pixels, 2.0).argsort(1)[:, :count]  # [B, count]: those in use come last
    fresh = _colours(noise, query, count, channels).to(colours)
    return pixels.scatter(1, given_up, taken), colours.scatter(1, given_up[:, :, None].expand(-1, -1, channels), fresh)
