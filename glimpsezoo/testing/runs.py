"""Rollouts in a form that can be compared: by image, up to the effect of rounding."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from glimpsezoo.core.rollout import Trace
from glimpsezoo.core.rounding import Tolerance, excess, region_table


@dataclass(frozen=True)
class ComparedRollout:
    """A rollout sorted by image, so that runs in another order or another batch can be compared with it."""

    image: Int[Tensor, "n"]
    """The number of each image in the case, ascending."""
    logits: Float[Tensor, "n T classes"]
    steps: Int[Tensor, "n T"]
    """The step of each of the logits."""
    last_step: Int[Tensor, "n"]
    places: tuple[Tensor, ...] = ()
    """Per step, [N, 5]: the regions as `region_table` returns them. N differs between steps."""

    @classmethod
    def of(cls, trace: Trace, numbers: Int[Tensor, "n"], *, every_step: bool) -> "ComparedRollout":
        """Sort a trace. numbers: of its images, in its order. every_step: whether each step was classified, or only the last."""
        order = numbers.argsort()
        logits = trace.logits_by_step() if every_step else trace.logits[:, None]
        last = trace.last_step[order]
        steps = torch.minimum(torch.arange(1, logits.shape[1] + 1, device=last.device), last[:, None]) if every_step else last[:, None]
        return cls(numbers[order], logits[order], steps, last, tuple(region_table(look, numbers) for look in trace.looks))

    def only(self, numbers: Int[Tensor, "m"]) -> "ComparedRollout":
        """Only these images."""
        mine = torch.isin(self.image, numbers)
        kept = (rows[torch.isin(rows[:, 0].long(), numbers)] for rows in self.places)
        return ComparedRollout(
            self.image[mine], self.logits[mine], self.steps[mine], self.last_step[mine], tuple(rows for rows in kept if len(rows))
        )

    def until(self, steps: int) -> "ComparedRollout":
        """What a run of fewer steps should be, with only its last step classified."""
        last = self.last_step.clamp(max=steps)
        return ComparedRollout(self.image, self.logits[:, steps - 1 : steps], last[:, None], last, self.places[:steps])

    def excess(self, other: "ComparedRollout", allowed: Tolerance) -> float:
        """The largest difference of the logits, as a share of what rounding explains."""
        if self.steps.shape != other.steps.shape:
            return math.inf
        return excess(self.logits, other.logits, allowed.logits[self.image[:, None], self.steps - 1])

    def elsewhere(self, other: "ComparedRollout", allowed: Tolerance) -> Int[Tensor, "n"]:
        """Per image, the number of steps with other regions than in `other`, or that only one of the two took."""
        steps = max(len(self.places), len(other.places))
        mine, theirs = (run.places + (run.logits.new_zeros(0, 5),) * (steps - len(run.places)) for run in (self, other))
        counts = [
            sum(not _near(a, b, number, allowed.places[number, step]) for step, (a, b) in enumerate(zip(mine, theirs, strict=True)))
            for number in self.image.tolist()
        ]
        return torch.tensor(counts, device=self.image.device)

    def changed(self, other: "ComparedRollout") -> int:
        """The number of predictions that differ, over all images and steps."""
        return int((self.logits.argmax(2) != other.logits.argmax(2)).sum()) if self.logits.shape == other.logits.shape else len(self.image)


def _near(a: Tensor, b: Tensor, number: int, allowed: Tensor) -> bool:
    """Whether the regions of image `number` are the same in both, within the tolerance."""
    a, b = a[a[:, 0] == number], b[b[:, 0] == number]
    return bool(allowed.isinf()) or (a.shape == b.shape and bool((a[:, 1] == b[:, 1]).all() and ((a - b).abs() <= allowed).all()))
