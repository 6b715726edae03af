"""What is done to the images before the model sees them: nothing, a corruption at a severity, an attack."""

from abc import ABC, abstractmethod
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from glimpsezoo.driver import Choose
from glimpsezoo.noise import Noise
from glimpsezoo.protocol import GlimpseModel


class Condition(ABC):
    """Changes images at the data set's size, in [0, 1] pixels. A function of its parameters, each image's id, and its other arguments.

    name, parameters: identify it in results and in the ids of units: JSON values, everything that changes its outcome (a severity, a
    seed). implementation: the outside library and version that computes it, if any.
    """

    name: str
    implementation: str = ""

    @property
    def parameters(self) -> dict[str, Any]:
        return {}

    @property
    def kind(self) -> type["Condition"]:
        """The class whose source decides the outcome."""
        return type(self)

    @abstractmethod
    def apply(
        self, images: Float[Tensor, "B C H W"], labels: Int[Tensor, "B"], ids: Int[Tensor, "B"], model: GlimpseModel[Any]
    ) -> Float[Tensor, "B C H W"]:
        """The images that the model is to see. What is random in it follows from `ids` (`Noise.of(seed, ids)`), not from the batch.

        `model` (in eval mode) and `labels` are there for attacks, which switch gradients on for themselves.
        """

    def choices(self, images: Float[Tensor, "B C H W"], noise: Noise, model: GlimpseModel[Any]) -> Choose | None:
        """What decides the looks of the run that is measured, in the model's place; None leaves them to the model.

        images: as they were before `apply`. noise: that of the run.
        """
        return None


class Clean(Condition):
    """The images as they are."""

    name = "clean"

    def apply(
        self, images: Float[Tensor, "B C H W"], labels: Int[Tensor, "B"], ids: Int[Tensor, "B"], model: GlimpseModel[Any]
    ) -> Float[Tensor, "B C H W"]:
        return images


class Remembered(Condition):
    """A condition that changes each image once, however often it is asked: for several models, or several runs of one.

    Only for a condition that the model does not enter into, or for one model. Kept in bytes where the images are of 256 levels;
    `forget` lets them go.
    """

    def __init__(self, condition: Condition) -> None:
        self.condition, self.name, self.implementation = condition, condition.name, condition.implementation
        self._changed: dict[tuple[int, ...], Tensor] = {}

    @property
    def parameters(self) -> dict[str, Any]:
        return self.condition.parameters

    @property
    def kind(self) -> type[Condition]:
        return self.condition.kind

    def apply(
        self, images: Float[Tensor, "B C H W"], labels: Int[Tensor, "B"], ids: Int[Tensor, "B"], model: GlimpseModel[Any]
    ) -> Float[Tensor, "B C H W"]:
        key = tuple(ids.tolist())
        if key not in self._changed:
            changed = self.condition.apply(images, labels, ids, model)
            levels = (changed * 255).round().to(torch.uint8)
            self._changed[key] = levels if torch.equal(levels.to(changed) / 255, changed) else changed
        found = self._changed[key].to(images.device)
        return found.to(images) / 255 if found.dtype == torch.uint8 else found

    def choices(self, images: Float[Tensor, "B C H W"], noise: Noise, model: GlimpseModel[Any]) -> Choose | None:
        return self.condition.choices(images, noise, model)

    def forget(self) -> None:
        """Drop all images."""
        self._changed.clear()
