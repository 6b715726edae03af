"""A rollout of one image as it is shown: where the model looked, what it saw, and what it made of it, step by step."""

from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, UInt8
from numpy import ndarray
from torch import Tensor

from glimpsezoo.attacks.base import Attack
from glimpsezoo.conditions import Clean, Condition
from glimpsezoo.cost import Meter
from glimpsezoo.driver import Look, Record, Trace, rollout
from glimpsezoo.evaluation import evaluating
from glimpsezoo.exits import ExitRule, Fixed
from glimpsezoo.noise import Noise
from glimpsezoo.pictures.seen import glimpses_seen, pixels_of
from glimpsezoo.protocol import GlimpseModel
from glimpsezoo.regions import Regions


@dataclass(frozen=True)
class Glimpse:
    """One region. number: from 1, in the order of looking. parent: its parent's number, 0 for none.

    left, top, side: in shares of the image's width and height. views: what the model saw, finest first where there are several.
    """

    number: int
    parent: int
    left: float
    top: float
    side: float
    views: tuple[UInt8[ndarray, "h w 3"], ...] = field(repr=False)


@dataclass(frozen=True)
class TracedLook:
    """One step: its regions, and the prediction after it with its probability. right: None where no label is known."""

    step: int
    glimpses: tuple[Glimpse, ...]
    prediction: str
    confidence: float
    right: bool | None


@dataclass(frozen=True)
class Subject:
    """An image to be traced. image: [C, H, W] in [0, 1]. label: None if unknown. id: what its noise belongs to."""

    name: str
    image: Float[Tensor, "C H W"]
    label: int | None
    id: int


@dataclass(frozen=True)
class Viewing:
    """Who looks, at what is done to the images, until when. condition_name: what readers call it ('fog 3')."""

    model: GlimpseModel[Any]
    model_name: str
    condition: Condition = field(default_factory=Clean)
    condition_name: str = "clean"
    exit_rule: ExitRule = field(default_factory=Fixed)
    seed: int = 0


@dataclass(frozen=True)
class Traced:
    """What a model did with an image. pixels: the image that it was shown. label: its class's name. steps: the budget.

    rule: the exit rule in words, '' without one. macs: of what ran. note: what a reader must know of the condition. at_least: whether the
    MACs are a lower bound.
    """

    model: str
    image: str
    condition: str
    label: str | None
    pixels: UInt8[ndarray, "H W 3"] = field(repr=False)
    looks: tuple[TracedLook, ...]
    steps: int
    rule: str
    macs: int
    note: str = ""
    at_least: bool = False

    @property
    def exit(self) -> str:
        """When the looking ended, and why."""
        last = self.looks[-1].step
        if last == self.steps:
            return f"took all {last} steps" if last > 1 else "takes one look"
        return f"exit after step {last} of {self.steps}" + (f" ({self.rule})" if self.rule else " (no further region was chosen)")


def trace_image(viewing: Viewing, subject: Subject) -> Traced:
    """Let the model look at one image (on its own device, in eval mode), as a measured run of it would.

    An attack on an image without a label is aimed at what the model says of the clean image.
    """
    model, device = viewing.model, viewing.model.device
    before, ids = subject.image[None].to(device), torch.tensor([subject.id], device=device)
    noise, meter = Noise.of(viewing.seed, ids), Meter(model)
    with evaluating(model):
        label, note = subject.label, ""
        if label is None and isinstance(viewing.condition, Attack):
            with torch.no_grad():
                label = int(rollout(model, before, noise=noise).logits.argmax())
            note = "without a label, the attack is aimed at what the model says of the clean image"
        images = viewing.condition.apply(before, torch.tensor([label or 0], device=device), ids, model)
        with torch.no_grad():
            trace = rollout(
                model,
                images,
                exit_rule=viewing.exit_rule,
                choose=viewing.condition.choices(before, noise, model),
                noise=noise,
                record=Record(every_step=True, states=True, meter=meter),
            )
            looks = _looks(model, images, noise, trace, subject.label)
    assert trace.macs is not None
    classes = model.task.classes
    return Traced(
        model=viewing.model_name,
        image=subject.name,
        condition=viewing.condition_name,
        label=None if subject.label is None else classes[subject.label],
        pixels=pixels_of(images[0]),
        looks=looks,
        steps=trace.steps,
        rule=" ".join([viewing.exit_rule.name, *(f"{value:.3g}" for value in viewing.exit_rule.parameters.values())])
        if viewing.exit_rule.reads
        else "",
        macs=int(sum(trace.macs.stopped_at(trace.steps, classify_every_step=trace.rule_reads).values())),
        note=note,
        at_least=bool(meter.missing),
    )


def _looks(model: GlimpseModel[Any], images: Tensor, noise: Noise, trace: Trace, label: int | None) -> tuple[TracedLook, ...]:
    state, _ = model.start(images, noise)
    found, ordinal = [], 0
    for step, look in enumerate(trace.looks, start=1):
        regions = look.decision.regions
        views = glimpses_seen(model, images, state, regions)
        glimpses = tuple(_glimpse(regions, k, ordinal + k + 1, tuple(views[k])) for k in range(len(regions)))
        found.append(_look(step, look, glimpses, model.task.classes, label))
        ordinal += len(regions)
        assert look.state is not None
        state = look.state
    return tuple(found)


def _glimpse(regions: Regions, k: int, number: int, views: tuple[ndarray, ...]) -> Glimpse:
    (x, y), side = regions.centre[k].tolist(), float(regions.scale[k])
    return Glimpse(number, int(regions.parent[k]) + 1, (x + 1 - side) / 2, (y + 1 - side) / 2, side, views)


def _look(step: int, look: Look, glimpses: tuple[Glimpse, ...], classes: tuple[str, ...], label: int | None) -> TracedLook:
    assert look.logits is not None
    confidence, prediction = look.logits[0].float().softmax(0).max(0)
    right = None if label is None else int(prediction) == label
    return TracedLook(step, glimpses, classes[int(prediction)], float(confidence), right)
