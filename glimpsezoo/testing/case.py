"""What a rule works on, a model with some images, and what it gives, a finding."""

import math
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from glimpsezoo.cards import Card
from glimpsezoo.driver import Record, rollout
from glimpsezoo.exits import ExitRule
from glimpsezoo.noise import Noise
from glimpsezoo.protocol import GlimpseModel
from glimpsezoo.specs import Task
from glimpsezoo.testing.rounding import Tolerance, tolerance
from glimpsezoo.testing.runs import Run

Numbers = Mapping[str, Any]
Status = Literal["ok", "failed", "refused", "skipped"]
IMAGES = 8  # enough for images to differ in what is done to them; every rule runs some rollouts of them


class Outcome(NamedTuple):
    """What a rule gives: its numbers, and what is wrong with them, or why there is nothing to check."""

    numbers: Numbers
    problem: str = ""
    skipped: str = ""


@dataclass(frozen=True)
class Finding:
    """What one rule found of a model.

    rule: its stable name. sentence: what it asks. numbers: what it measured. message: what is wrong, why the model refuses (which some
    rules allow), or why there was nothing to check.
    """

    rule: str
    sentence: str
    status: Status
    numbers: Numbers = field(default_factory=dict)
    message: str = ""

    @property
    def passed(self) -> bool:
        """Whether nothing is wrong."""
        return self.status != "failed"

    @property
    def measured(self) -> str:
        """The numbers as a line of text."""
        return ", ".join(f"{name} {_text(value)}" for name, value in self.numbers.items())

    def __str__(self) -> str:
        status = "FAILED" if self.status == "failed" else self.status
        return f"{status:<8}{self.rule:<14}" + ": ".join(part for part in (self.message, self.measured) if part)

    def to_json(self) -> dict[str, Any]:
        """As JSON takes it: numbers that are not finite become text."""
        numbers = {name: str(v) if isinstance(v, float) and not math.isfinite(v) else v for name, v in self.numbers.items()}
        return {"rule": self.rule, "sentence": self.sentence, "status": self.status, "message": self.message, "numbers": numbers}


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


@dataclass(frozen=True)
class Case:
    """A model, in eval mode, with images [B, C, H, W] of its task, and the card that it was loaded from, if any."""

    model: GlimpseModel[Any]
    images: Float[Tensor, "B C H W"]
    card: Card | None = None

    @classmethod
    def of(cls, model: GlimpseModel[Any], images: Float[Tensor, "B C H W"] | None = None, card: Card | None = None) -> "Case":
        """A copy of `model`, with made-up images unless some are given; the model itself is left as it is."""
        images = made_images(model.task) if images is None else images
        return cls(deepcopy(model).eval(), images.to(model.device), card)

    def noise(self, seed: int = 0) -> Noise:
        return Noise.of(seed, torch.arange(len(self.images), device=self.images.device))

    def run(
        self,
        rows: Int[Tensor, "n"] | None = None,
        *,
        seed: int = 0,
        steps: int | None = None,
        exit_rule: ExitRule | None = None,
        compact: bool = True,
        every_step: bool = True,
    ) -> Run:
        """Roll the model out on the images `rows` (all of them by default), in that order."""
        rows = torch.arange(len(self.images), device=self.images.device) if rows is None else rows
        trace = rollout(
            self.model, self.images[rows], noise=self.noise(seed).select(rows), steps=steps, exit_rule=exit_rule, compact=compact,
            record=Record(every_step=every_step),
        )  # fmt: skip
        return Run.of(trace, rows, every_step=every_step)

    def rebuilt(self, *, seed: int = 0, task: Task | None = None) -> "Case":
        """The same kind of model for another task, with other weights, and images of that task."""
        task = task or self.model.task
        torch.manual_seed(seed)
        model = type(self.model)(self.model.config, task).to(self.model.device).eval()
        return Case(model, made_images(task, len(self.images)).to(self.images) if task != self.model.task else self.images)

    @cached_property
    def tolerance(self) -> Tolerance:
        """What rounding may change of the case's runs. Raises whatever a model raises that does not run in double precision."""
        return tolerance(self.model, self.images, self.noise())

    @cached_property
    def doubled(self) -> "Case":
        """In double precision."""
        return replace(self, model=deepcopy(self.model).double(), images=self.images.double())

    @cached_property
    def exact(self) -> "Case | None":
        """In double precision, if everything is computed in it."""
        twin = self.doubled
        try:
            logits = rollout(deepcopy(twin.model), twin.images, noise=twin.noise()).logits
        except Exception:  # a plugin's model may fail in any way; what is wrong is for the rule float64 to say
            return None
        return twin if logits.dtype == torch.float64 else None


def made_images(task: Task, count: int = IMAGES) -> Float[Tensor, "{count} C H W"]:
    """Images of coarse blocks with fine grain, every one different, the same every time.

    >>> made_images(Task((20, 30), 3, ("a", "b"))).shape
    torch.Size([8, 3, 20, 30])
    """
    noise, (height, width) = Noise.of(0, torch.arange(count)), task.image_size
    blocks = noise.uniform(0, task.channels * 16).view(count, task.channels, 4, 4)
    grain = noise.uniform(1, task.channels * height * width).view(count, task.channels, height, width)
    return 0.8 * F.interpolate(blocks, size=task.image_size) + 0.2 * grain
