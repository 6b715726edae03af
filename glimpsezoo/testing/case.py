"""The input of a rule, a model with some images, and its output, a finding."""

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

from glimpsezoo.core.exits import ExitRule
from glimpsezoo.core.noise import Noise
from glimpsezoo.core.protocol import GlimpseModel
from glimpsezoo.core.rollout import Record, rollout
from glimpsezoo.core.rounding import Tolerance, tolerance
from glimpsezoo.specs import Task
from glimpsezoo.testing.runs import ComparedRollout
from glimpsezoo.training.job import TrainingStep
from glimpsezoo.zoo.cards import Card
from glimpsezoo.zoo.recipes import PhaseRecipe

Numbers = Mapping[str, Any]
Status = Literal["ok", "failed", "refused", "skipped"]
IMAGES = 8  # enough that images are treated differently; every rule runs several rollouts of them


class RuleResult(NamedTuple):
    """What a rule returns."""

    numbers: Numbers
    """What it measured."""
    problem: str = ""
    """What is wrong, if anything."""
    skipped: str = ""
    """Why there was nothing to check, if so."""


@dataclass(frozen=True)
class Finding:
    """What one rule found about a model."""

    rule: str
    """The stable name of the rule."""
    sentence: str
    """What the rule requires."""
    status: Status
    numbers: Numbers = field(default_factory=dict)
    """What the rule measured."""
    message: str = ""
    """What is wrong, why the model refuses (which some rules allow), or why there was nothing to check."""

    @property
    def passed(self) -> bool:
        """Whether the rule did not fail."""
        return self.status != "failed"

    @property
    def measured(self) -> str:
        """The numbers as a line of text."""
        return ", ".join(f"{name} {_text(value)}" for name, value in self.numbers.items())

    def __str__(self) -> str:
        status = "FAILED" if self.status == "failed" else self.status
        return f"{status:<8}{self.rule:<14}" + ": ".join(part for part in (self.message, self.measured) if part)

    def to_json(self) -> dict[str, Any]:
        """JSON values: infinite numbers and NaN become text."""
        numbers = {name: str(v) if isinstance(v, float) and not math.isfinite(v) else v for name, v in self.numbers.items()}
        return {"rule": self.rule, "sentence": self.sentence, "status": self.status, "message": self.message, "numbers": numbers}


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


class Training(NamedTuple):
    """How a model is trained."""

    step: TrainingStep
    """Its training step."""
    phases: tuple[PhaseRecipe, ...]
    """The training phases of one of its recipes."""


@dataclass(frozen=True)
class Case:
    """What a rule checks."""

    model: GlimpseModel[Any]
    """In eval mode."""
    images: Float[Tensor, "B C H W"]
    """Images of its task, in [0, 1]."""
    card: Card | None = None
    """The card from which it was loaded, if any."""
    training: Training | None = None
    """How it is trained, if it is."""

    @classmethod
    def of(
        cls,
        model: GlimpseModel[Any],
        images: Float[Tensor, "B C H W"] | None = None,
        card: Card | None = None,
        training: Training | None = None,
    ) -> "Case":
        """A case with a copy of `model`, and with made-up images unless some are given."""
        images = made_images(model.task) if images is None else images
        return cls(deepcopy(model).eval(), images.to(model.device), card, training)

    def noise(self, seed: int = 0) -> Noise:
        """The noise of the images."""
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
    ) -> ComparedRollout:
        """Run the model on the images `rows` (all by default), in this order."""
        rows = torch.arange(len(self.images), device=self.images.device) if rows is None else rows
        trace = rollout(
            self.model, self.images[rows], noise=self.noise(seed).select(rows), steps=steps, exit_rule=exit_rule, compact=compact,
            record=Record(every_step=every_step),
        )  # fmt: skip
        return ComparedRollout.of(trace, rows, every_step=every_step)

    def rebuilt(self, *, seed: int = 0, task: Task | None = None) -> "Case":
        """A case with the same class of model, other weights and possibly another task, with images of that task."""
        task = task or self.model.task
        torch.manual_seed(seed)
        model = type(self.model)(self.model.config, task).to(self.model.device).eval()
        return Case(model, made_images(task, len(self.images)).to(self.images) if task != self.model.task else self.images)

    @cached_property
    def tolerance(self) -> Tolerance:
        """How much rounding may change runs of this case. Raises whatever a model raises that cannot run in double precision."""
        return tolerance(self.model, self.images, self.noise())

    @cached_property
    def doubled(self) -> "Case":
        """This case in double precision."""
        return replace(self, model=deepcopy(self.model).double(), images=self.images.double())

    @cached_property
    def exact(self) -> "Case | None":
        """This case in double precision, if the model computes everything in it."""
        twin = self.doubled
        try:
            logits = rollout(deepcopy(twin.model), twin.images, noise=twin.noise()).logits
        except Exception:  # a plugin's model may fail in any way; the rule float64 reports how
            return None
        return twin if logits.dtype == torch.float64 else None


def made_images(task: Task, count: int = IMAGES) -> Float[Tensor, "{count} C H W"]:
    """Images of coarse blocks with fine grain, all different, and the same in every call.

    >>> made_images(Task((20, 30), 3, ("a", "b"))).shape
    torch.Size([8, 3, 20, 30])
    """
    noise, (height, width) = Noise.of(0, torch.arange(count)), task.image_size
    blocks = noise.uniform(0, task.channels * 16).view(count, task.channels, 4, 4)
    grain = noise.uniform(1, task.channels * height * width).view(count, task.channels, height, width)
    return 0.8 * F.interpolate(blocks, size=task.image_size) + 0.2 * grain
