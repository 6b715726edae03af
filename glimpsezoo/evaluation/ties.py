"""Images whose prediction rounding may decide: their two largest logits are closer than rounding can move them.

How far that is depends on the model and on the image (`glimpsezoo.core.rounding`), and measuring it takes several rollouts. So it is
measured for the images whose two largest logits are closest, `CHUNK` at a time, until none of a chunk is a tie.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from glimpsezoo.core.noise import Noise
from glimpsezoo.core.protocol import GlimpseModel
from glimpsezoo.core.rounding import tolerance

CHUNK = 8
PROBES = 2
EXAMINED = 64  # the most images of a unit that are examined
NO, TIE, UNKNOWN = 0, 1, -1


@dataclass
class Closest:
    """The images of a unit whose two largest logits of the last step are closest."""

    model: GlimpseModel[Any]
    step: int
    """The last step, from 1."""
    seed: int
    known: bool = True
    """False if the rollouts are not those that `tolerance` repeats."""

    def __post_init__(self) -> None:
        self.apart = torch.empty(0)  # the difference of the two largest logits
        self.ids = torch.empty(0, dtype=torch.long)
        self.images: Tensor | None = None

    def add(self, ids: Int[Tensor, "B"], images: Float[Tensor, "B C H W"], logits: Float[Tensor, "B K"]) -> None:
        """Keep those of a batch that are among the closest."""
        if not self.known or logits.shape[1] < 2:
            return
        two = logits.float().topk(2, 1).values
        apart = torch.cat([self.apart.to(two.device), two[:, 0] - two[:, 1]])
        kept = apart.argsort(stable=True)[:EXAMINED]
        self.apart, self.ids = apart[kept], torch.cat([self.ids.to(ids.device), ids])[kept]
        self.images = (images if self.images is None else torch.cat([self.images, images]))[kept]

    def ties(self, ids: Int[ndarray, "n"]) -> Int[ndarray, "n"]:
        """For each image of the unit: `TIE`, `NO`, or `UNKNOWN` if the model does not run as `tolerance` runs it."""
        found: list[int] = []
        try:
            for start in range(0, len(self.ids), CHUNK):
                here = slice(start, start + CHUNK)
                ties = self.ids[here][self._is_tie(here)].tolist()
                found += ties
                if not ties:
                    break
        except Exception:  # a plugin may fail in any way on a copy of its model; its rows do not depend on it
            self.known = False
        return np.where(np.isin(ids, found), TIE, NO) if self.known else np.full(len(ids), UNKNOWN)

    def _is_tie(self, here: slice) -> Tensor:
        assert self.images is not None
        images = self.images[here]
        noise = Noise.of(self.seed, self.ids[here])
        allowed = tolerance(self.model, images, noise, probed_in=images.dtype, probes=PROBES).logits[:, self.step - 1]
        return self.apart[here] <= 2 * allowed  # each of the two logits may move
