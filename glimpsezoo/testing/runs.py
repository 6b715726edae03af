"""Rollouts as they are compared: by image, and with what rounding may change."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from glimpsezoo.driver import Trace
from glimpsezoo.testing.rounding import Tolerance, excess, places


@dataclass(frozen=True)
class Run:
    """A rollout as two of them are compared: by image, whatever the order and the company it was in.

    image: [n] each image's number in the case, ascending. logits: [n, T, classes]. steps: [n, T], at which step each of them was made.
    last_step: [n]. places: of each step [N, 5], one row a region, as `places` gives them.
    """

    image: Int[Tensor, "n"]
    logits: Float[Tensor, "n T classes"]
    steps: Int[Tensor, "n T"]
    last_step: Int[Tensor, "n"]
    places: tuple[Tensor, ...] = ()  # N differs from step to step

    @classmethod
    def of(cls, trace: Trace, numbers: Int[Tensor, "n"], *, every_step: bool) -> "Run":
        """numbers: of the trace's images, in its order. every_step: whether each step was classified, or only the last."""
        order = numbers.argsort()
        logits = trace.logits_by_step() if every_step else trace.logits[:, None]
        last = trace.last_step[order]
        steps = torch.minimum(torch.arange(1, logits.shape[1] + 1, device=last.device), last[:, None]) if every_step else last[:, None]
        return cls(numbers[order], logits[order], steps, last, tuple(places(look, numbers) for look in trace.looks))

    def only(self, numbers: Int[Tensor, "m"]) -> "Run":
        """Of these images alone."""
        mine = torch.isin(self.image, numbers)
        kept = (rows[torch.isin(rows[:, 0].long(), numbers)] for rows in self.places)
        return Run(self.image[mine], self.logits[mine], self.steps[mine], self.last_step[mine], tuple(rows for rows in kept if len(rows)))

    def until(self, steps: int) -> "Run":
        """What a run of fewer steps gives, of which only the last is classified."""
        last = self.last_step.clamp(max=steps)
        return Run(self.image, self.logits[:, steps - 1 : steps], last[:, None], last, self.places[:steps])

    def excess(self, other: "Run", allowed: Tolerance) -> float:
        """The largest difference of the logits as a share of what rounding explains."""
        if self.steps.shape != other.steps.shape:
            return math.inf
        return excess(self.logits, other.logits, allowed.logits[self.image[:, None], self.steps - 1])

    def elsewhere(self, other: "Run", allowed: Tolerance) -> Int[Tensor, "n"]:
        """How many looks of each image were at other places than those of `other`, or taken by one alone."""
        steps = max(len(self.places), len(other.places))
        mine, theirs = (run.places + (run.logits.new_zeros(0, 5),) * (steps - len(run.places)) for run in (self, other))
        counts = [
            sum(not _near(a, b, number, allowed.places[number, step]) for step, (a, b) in enumerate(zip(mine, theirs, strict=True)))
            for number in self.image.tolist()
        ]
        return torch.tensor(counts, device=self.image.device)

    def changed(self, other: "Run") -> int:
        """How many predictions are others, over all images and steps."""
        return int((self.logits.argmax(2) != other.logits.argmax(2)).sum()) if self.logits.shape == other.logits.shape else len(self.image)


def _near(a: Tensor, b: Tensor, number: int, allowed: Tensor) -> bool:
    """Whether the regions of image `number` are the same in both, to what is allowed."""
    a, b = a[a[:, 0] == number], b[b[:, 0] == number]
    return bool(allowed.isinf()) or (a.shape == b.shape and bool((a[:, 1] == b[:, 1]).all() and ((a - b).abs() <= allowed).all()))
