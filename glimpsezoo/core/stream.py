"""Rollouts of a stream of batches: images of several batches that take the same step take it together.

When images exit, a batch shrinks, and a step of few images costs nearly what one of many costs. Here those that are left wait for more of
their kind, so that saved MACs are saved time at small batches, too. (Serving systems call it continuous batching, at the granularity of an
iteration: Yu et al., Orca, OSDI 2022.)
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from glimpsezoo.core.batched import join
from glimpsezoo.core.computing import computed
from glimpsezoo.core.exits import ExitRule, Fixed
from glimpsezoo.core.noise import Noise
from glimpsezoo.core.protocol import GlimpseModel
from glimpsezoo.core.rollout import ChosenBy, Classified, Present, Rollout, budget_of
from glimpsezoo.errors import GlimpseZooError


class RolloutStream:
    """Classifies images that come in batches of any size, and says which are done.

    Every image takes the steps that it takes in `rollout`. It takes each of them as soon as `batch_size` images wait for this step, all at
    once, so at most steps * (batch_size - 1) images wait after `add`. Nothing waits after `finish`, which may be called at any time, for
    example when no image came for a millisecond. The noise of an image is that of its place in the stream under `seed`.

    >>> import glimpsezoo as gz
    >>> model = gz.create_model("cnn4", task=gz.Task((28, 28), 1, ("odd", "even")))
    >>> stream = gz.RolloutStream(model, batch_size=4)
    >>> [done.index.tolist() for done in stream.add(torch.zeros(3, 1, 28, 28))]
    []
    >>> [done.index.tolist() for done in stream.add(torch.zeros(2, 1, 28, 28))]
    [[0, 1, 2, 3, 4]]
    """

    def __init__(
        self,
        model: GlimpseModel[Any],
        *,
        batch_size: int,
        steps: int | None = None,
        exit_rule: ExitRule | None = None,
        seed: int = 0,
    ) -> None:
        """steps and exit_rule: as for `rollout`. Raises `GlimpseZooError` for a budget or a batch size out of range."""
        if batch_size < 1:
            raise GlimpseZooError(f"expected a batch size of 1 or more, got {batch_size}")
        self.model, self.batch_size, self.seed = model, batch_size, seed
        self._run = Rollout(model, ChosenBy(model, model.follows), budget_of(model, steps), exit_rule or Fixed())
        self._waiting: list[list[Present]] = [[] for _ in range(self._run.budget)]  # by the steps that they have taken
        self._count = 0

    def add(self, images: Float[Tensor, "B C H W"]) -> list[Classified]:
        """Take images [B, C, H, W] in [0, 1]. Returns those that are done now, of this batch or of earlier ones."""
        index = torch.arange(self._count, self._count + len(images), device=images.device)
        noise = Noise.of(self.seed, index) if self.model.stochastic else Noise(index)  # which nothing reads
        self._count += len(images)
        with computed(self.model, images.device) as self._run.model:
            if len(images):
                self._waiting[0].append(self._run.start(images, noise, index))
            self._step(self.batch_size)
        return self._done()

    def finish(self) -> list[Classified]:
        """All images that still wait. The stream may go on afterwards."""
        with computed(self.model, self.model.device) as self._run.model:
            self._step(1)
        return self._done()

    def _step(self, least: int) -> None:
        """Every step for which this many images wait, from the first to the last."""
        for taken, parts in enumerate(self._waiting):
            if sum(len(part.rows) for part in parts) < least:
                continue
            self._waiting[taken] = []
            staying = self._run.step(parts[0] if len(parts) == 1 else join(parts))
            if staying is not None:
                self._waiting[taken + 1].append(staying)

    def _done(self) -> list[Classified]:
        self._run.looks.clear()  # a stream does not say where it looked
        done, self._run.stopped = self._run.stopped, []
        return done
