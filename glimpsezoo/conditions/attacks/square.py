"""Square Attack: random search over squares, without gradients.

Andriushchenko, Croce, Flammarion & Hein, "Square Attack: a query-efficient black-box adversarial attack via random search", ECCV 2020:
algorithm 1 with the proposals of algorithms 2 (Linf) and 3 (L2). Here the squares are drawn per image, from its noise, and may lie at
every place that contains them. The authors' code never draws the last row and column of places, which matters in small images.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from glimpsezoo.conditions.attacks.ball import lengths
from glimpsezoo.conditions.attacks.base import RightOnly
from glimpsezoo.conditions.attacks.settings import SquareSettings
from glimpsezoo.conditions.attacks.victim import Victim, margin
from glimpsezoo.core.noise import Noise

_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # the queries, of 10,000, after which the area of the squares halves
_TINY = 1e-12


def side(query: int, settings: SquareSettings, height: int, width: int) -> int:
    """The side in pixels of the squares in a query (from 0), for images of this size.

    The schedule is the paper's for 10,000 queries; `rescale` compresses it to the number of queries.
    """
    position = query * 10_000 / settings.steps if settings.rescale else query
    share = settings.p_init / 2 ** sum(position > place for place in _HALVINGS)
    return min(max(round((share * height * width) ** 0.5), 1), height, width)


class Square(RightOnly[SquareSettings]):
    """Keeps a change if it lowers the margin of the label (for a stochastic model, the mean margin over `eot` runs).

    Images that a deterministic model already misclassifies are not changed, and no image is queried after its first error.
    """

    name = "square"
    sees_gradients = False

    def _attacked(self, victim: Victim, noise: Noise) -> Float[Tensor, "B C H W"]:
        best, best_margin = victim.images, victim.images.new_full((len(victim),), torch.inf)
        for restart in range(self.settings.restarts):
            found, its_margin = self._search(victim, noise.fork(restart), restart * (self.settings.steps + 1))
            better = its_margin < best_margin
            best = torch.where(better[:, None, None, None], found, best)
            best_margin = torch.where(better, its_margin, best_margin)
        return best

    def _search(self, victim: Victim, noise: Noise, first_query: int) -> tuple[Float[Tensor, "B C H W"], Float[Tensor, "B"]]:
        """The images with the lowest margins, and these margins."""
        settings, (height, width) = self.settings, victim.images.shape[2:]
        start, propose = (_stripes, _square) if settings.norm == "Linf" else (_bumps, _moved_bump)
        images = start(victim.images, settings.eps, noise)
        margins = self._margin(victim, images, first_query)
        for query in range(settings.steps - 1):
            # For a stochastic model, an image may be right again in the next run, so the search continues to the end.
            rows = torch.arange(len(images), device=images.device) if victim.model.stochastic else (margins >= 0).nonzero().squeeze(1)
            if not len(rows):
                break
            here = victim.select(rows)
            tried = propose(images[rows], here.images, settings.eps, side(query, settings, height, width), noise.select(rows), query + 1)
            found = self._margin(here, tried, first_query + query + 1)
            better = found < margins[rows]
            images = images.index_copy(0, rows, torch.where(better[:, None, None, None], tried, images[rows]))
            margins = margins.index_copy(0, rows, torch.where(better, found, margins[rows]))
        return images, margins

    def _margin(self, victim: Victim, images: Float[Tensor, "B C H W"], query: int) -> Float[Tensor, "B"]:
        runs = self.settings.eot
        total = [margin(victim.logits(images, run), victim.labels) for run in range(query * runs, (query + 1) * runs)]
        return torch.stack(total).mean(0)


def _signs(draws: Float[Tensor, "B n"]) -> Float[Tensor, "B n"]:
    return torch.where(draws < 0.5, -1.0, 1.0)


def _corner(draws: Float[Tensor, "B 2"], height: int, width: int, square: int) -> Int[Tensor, "B 2"]:
    """Row and column of the top left pixel. Every place that contains the whole square is equally likely."""
    return (draws * draws.new_tensor([height - square + 1, width - square + 1])).long()


def _stripes(clean: Float[Tensor, "B C H W"], eps: float, noise: Noise) -> Float[Tensor, "B C H W"]:
    """Linf: vertical stripes of one pixel."""
    batch, channels, _, width = clean.shape
    stripes = _signs(noise.uniform(0, channels * width)).view(batch, channels, 1, width).to(clean)
    return (clean + eps * stripes).clamp(0, 1)


def _square(
    images: Float[Tensor, "B C H W"], clean: Float[Tensor, "B C H W"], eps: float, square: int, noise: Noise, query: int
) -> Float[Tensor, "B C H W"]:
    """Linf: one square with one sign per channel, at the edge of the budget."""
    batch, channels, height, width = clean.shape
    draws = noise.uniform(query, 2 + channels)
    rows, columns = _window(_corner(draws[:, :2], height, width, square), square)
    inside = torch.zeros(batch, height, width, dtype=torch.bool, device=clean.device)
    inside[torch.arange(batch, device=clean.device)[:, None, None], rows, columns] = True
    edge = (clean + eps * _signs(draws[:, 2:]).view(batch, channels, 1, 1).to(clean)).clamp(0, 1)
    return torch.where(inside[:, None], edge, images)


def _window(corner: Int[Tensor, "B 2"], square: int) -> tuple[Int[Tensor, "B s 1"], Int[Tensor, "B 1 s"]]:
    """Rows and columns of the pixels of a square, given its corner in each image."""
    pixel = torch.arange(square, device=corner.device)
    return (corner[:, 0, None] + pixel)[:, :, None], (corner[:, 1, None] + pixel)[:, None, :]


def _bump(height: int, width: int) -> Float[Tensor, "{height} {width}"]:
    """Eq. 2: a pyramid. Its rings, from the outermost to the middle, add 1 / (n + 1 - k)^2 for k = 0, 1, ..., n = floor(height / 2)."""
    middle = height // 2
    away = torch.maximum((torch.arange(height) - middle).abs()[:, None], (torch.arange(width) - width // 2).abs()[None])
    rings = torch.stack([(away <= middle - k) / (middle + 1 - k) ** 2 for k in range(middle + 1)])
    return rings.sum(0)


def _eta(square: int) -> Float[Tensor, "{square} {square}"]:
    """Eq. 3: two bumps side by side, one up and one down, with norm 1."""
    half = square // 2
    both = torch.cat([_bump(square, half), -_bump(square, square - half)], 1) if half else -_bump(square, square)
    return both / both.norm().clamp(min=_TINY)


def _bumps(clean: Float[Tensor, "B C H W"], eps: float, noise: Noise) -> Float[Tensor, "B C H W"]:
    """L2: a 5 x 5 tiling of bumps with random signs, one per bump and channel."""
    batch, channels, height, width = clean.shape
    tile = max(1, min(height, width) // 5)
    across, down = width // tile, height // tile
    draws = noise.uniform(0, channels * down * across + 1)
    signs = _signs(draws[:, 1:]).view(batch, channels, down, across).to(clean)
    eta = _turned(_eta(tile).to(clean), draws[:, 0])  # [B, s, s]
    delta = torch.zeros_like(clean)
    # [B, C, down, 1, across, 1] x [B, 1, 1, s, 1, s]: each tile's sign times the bump
    tiles = signs[:, :, :, None, :, None] * eta[:, None, None, :, None, :]
    delta[:, :, : down * tile, : across * tile] = tiles.flatten(4, 5).flatten(2, 3)
    return _scaled(clean, delta, eps)


def _turned(eta: Float[Tensor, "s s"], draws: Float[Tensor, "B"]) -> Float[Tensor, "B s s"]:
    """The bump for each image, transposed with probability one half."""
    return torch.where((draws < 0.5)[:, None, None], eta, eta.mT)


def _scaled(clean: Float[Tensor, "B C H W"], delta: Float[Tensor, "B C H W"], eps: float) -> Float[Tensor, "B C H W"]:
    """Scale the change to length eps, then clip to [0, 1]."""
    return (clean + delta * (eps / lengths(delta, "L2").clamp(min=_TINY))).clamp(0, 1)


def _moved_bump(
    images: Float[Tensor, "B C H W"], clean: Float[Tensor, "B C H W"], eps: float, square: int, noise: Noise, query: int
) -> Float[Tensor, "B C H W"]:
    """L2: erase the change in one window, and spend its length, with the unused rest of the budget, in another window."""
    batch, channels, height, width = clean.shape
    square = min(max(square, 3), height, width)
    draws = noise.uniform(query, 5 + channels)
    image = torch.arange(batch, device=clean.device)[:, None, None]
    delta = (images - clean).movedim(1, 3)  # [B, H, W, C], so that windows are gathered by (image, row, column)
    to, away = (_window(_corner(draws[:, at : at + 2], height, width, square), square) for at in (0, 2))
    left = (eps**2 - delta.square().sum((1, 2, 3))).clamp(min=0)  # [B]
    either = torch.zeros(batch, height, width, 1, dtype=torch.bool, device=clean.device)
    either[image, to[0], to[1]] = True
    either[image, away[0], away[1]] = True
    spend = ((delta * either).square().sum((1, 2)) + left[:, None] / channels).sqrt()  # [B, C]
    old = delta[image, to[0], to[1]]  # [B, s, s, C]
    bump = _turned(_eta(square).to(clean), draws[:, 4])[:, :, :, None] * _signs(draws[:, 5:]).to(clean)[:, None, None, :]
    new = bump + old / old.square().sum((1, 2), keepdim=True).sqrt().clamp(min=_TINY)
    new = new / new.square().sum((1, 2), keepdim=True).sqrt().clamp(min=_TINY) * spend[:, None, None, :]
    delta = delta.index_put((image, away[0], away[1]), torch.zeros_like(new)).index_put((image, to[0], to[1]), new)
    return _scaled(clean, delta.movedim(3, 1), eps)
