"""The rollout of one image, for display: where the model looked, what it saw and what it predicted, step by step."""

from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, UInt8
from numpy import ndarray
from torch import Tensor

from glimpsezoo.conditions.attacks.base import Attack
from glimpsezoo.conditions.base import Clean, Condition
from glimpsezoo.core.exits import ExitRule, Fixed
from glimpsezoo.core.inference import evaluating
from glimpsezoo.core.macs import Meter
from glimpsezoo.core.noise import Noise
from glimpsezoo.core.protocol import GlimpseModel
from glimpsezoo.core.regions import Regions
from glimpsezoo.core.rollout import Look, Record, Trace, rollout
from glimpsezoo.data.wordnet import english
from glimpsezoo.reports.pictures.seen import glimpses_seen, pixels_of


@dataclass(frozen=True)
class Glimpse:
    """One sampled region."""

    number: int
    """From 1, in the order of sampling."""
    parent: int
    """Number of the parent; 0 for none."""
    left: float
    """As a share of the image's width."""
    top: float
    """As a share of the image's height."""
    width: float
    """As a share of the image's width."""
    height: float
    """As a share of the image's height."""
    views: tuple[UInt8[ndarray, "h w 3"], ...] = field(repr=False)
    """What the model saw; if at several scales, the finest first."""


@dataclass(frozen=True)
class TracedLook:
    """One step and the prediction after it."""

    step: int
    """From 1."""
    glimpses: tuple[Glimpse, ...]
    """The regions of the step."""
    prediction: str
    """Name of the predicted class."""
    confidence: float
    """Its probability."""
    right: bool | None
    """Whether the prediction is the label; None if the label is unknown."""


@dataclass(frozen=True)
class Subject:
    """An image to trace."""

    name: str
    """As readers see it."""
    image: Float[Tensor, "C H W"]
    """In [0, 1]."""
    label: int | None
    """None if unknown."""
    id: int
    """Key of the image's noise."""
    chosen: str = ""
    """How it was chosen, in words; '' if the user named it."""


@dataclass(frozen=True)
class Viewing:
    """Which model is traced, under which condition and exit rule."""

    model: GlimpseModel[Any]
    model_name: str
    """As readers see it."""
    condition: Condition = field(default_factory=Clean)
    condition_name: str = "clean"
    """As readers see it, such as 'fog 3'."""
    exit_rule: ExitRule = field(default_factory=Fixed)
    seed: int = 0
    """Of the model's noise."""


@dataclass(frozen=True)
class Traced:
    """What a model did with an image."""

    model: str
    """Name of the model."""
    image: str
    """Name of the image."""
    condition: str
    """Name of the condition."""
    label: str | None
    """Name of the image's class; None if unknown."""
    pixels: UInt8[ndarray, "H W 3"] = field(repr=False)
    """The image as the model got it."""
    looks: tuple[TracedLook, ...]
    """One entry per step."""
    steps: int
    """Budget of steps."""
    rule: str
    """The exit rule in words; '' without one."""
    macs: int
    """MACs that ran."""
    note: str = ""
    """A caveat about the condition."""
    chosen: str = ""
    """How the image was chosen, in words; '' if the user named it."""
    at_least: bool = False
    """Whether `macs` is a lower bound."""

    @property
    def exit(self) -> str:
        """The last step, and why the model stopped there."""
        last = self.looks[-1].step
        if last == self.steps:
            return f"took all {last} steps" if last > 1 else "takes one look"
        return f"exit after step {last} of {self.steps}" + (f" ({self.rule})" if self.rule else " (no further region was chosen)")


def trace_image(viewing: Viewing, subject: Subject) -> Traced:
    """Trace one image exactly as a measured run would process it: on the model's device, in eval mode.

    Without a label, an attack targets the model's prediction on the clean image.
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
                policy=None if subject.label is None else model.follows.told(noise, ids.new_tensor([subject.label])),
                choose=viewing.condition.choices(before, noise, model),
                noise=noise,
                record=Record(every_step=True, states=True, meter=meter),
            )
            looks = _looks(model, images, noise, trace, subject.label)
    classes = model.task.classes
    return Traced(
        model=viewing.model_name,
        image=subject.name,
        condition=viewing.condition_name,
        label=None if subject.label is None else english(classes[subject.label]),
        pixels=pixels_of(images[0]),
        looks=looks,
        steps=trace.steps,
        rule=" ".join([viewing.exit_rule.name, *(f"{value:.3g}" for value in viewing.exit_rule.parameters.values())])
        if viewing.exit_rule.reads
        else "",
        macs=int(trace.total_macs()),
        note=note,
        chosen=subject.chosen,
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
    (x, y), (width, height) = regions.centre[k].tolist(), regions.half[k].tolist()
    return Glimpse(number, int(regions.parent[k]) + 1, (x + 1 - width) / 2, (y + 1 - height) / 2, width, height, views)


def _look(step: int, look: Look, glimpses: tuple[Glimpse, ...], classes: tuple[str, ...], label: int | None) -> TracedLook:
    assert look.logits is not None
    confidence, prediction = look.logits[0].float().softmax(0).max(0)
    right = None if label is None else int(prediction) == label
    return TracedLook(step, glimpses, english(classes[int(prediction)]), float(confidence), right)
