"""What is done to images before the model sees them: nothing, a corruption at a severity, or an attack."""

from abc import ABC, abstractmethod
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from glimpsezoo.core.noise import Noise
from glimpsezoo.core.protocol import GlimpseModel
from glimpsezoo.core.rollout import Choose
from glimpsezoo.errors import GlimpseZooError


class BrokenConditionError(GlimpseZooError):
    """A condition gave what is no batch of images. It fails the unit that is measured, as other faults of a plugin do."""


class Condition(ABC):
    """Changes images at the data set's size, with pixels in [0, 1]. A function of its parameters, its arguments and each image's id."""

    name: str
    """Identifies it in results and in the ids of units, with `parameters`."""
    implementation: str = ""
    """The external library and version that computes it, if any."""

    @property
    def parameters(self) -> dict[str, Any]:
        """Everything that changes its outcome, such as a severity or a seed, as JSON values."""
        return {}

    @property
    def kind(self) -> type["Condition"]:
        """The class whose source code decides the outcome."""
        return type(self)

    @abstractmethod
    def apply(
        self, images: Float[Tensor, "B C H W"], labels: Int[Tensor, "B"], ids: Int[Tensor, "B"], model: GlimpseModel[Any]
    ) -> Float[Tensor, "B C H W"]:
        """The images that the model will see. Randomness must derive from `ids` (`Noise.of(seed, ids)`), not from the batch.

        `model` (in eval mode) and `labels` are for attacks, which enable gradients themselves.
        """

    def choices(self, images: Float[Tensor, "B C H W"], noise: Noise, model: GlimpseModel[Any]) -> Choose | None:
        """A function that replaces the model's own decisions in the measured run; None leaves them to the model.

        images: as they were before `apply`. noise: of the measured run.
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
    """Caches the images of a condition, for several models or several runs of one model.

    Use it only for one model, or for a condition that does not depend on the model. Images with 256 levels are kept as bytes. `forget`
    drops them all.
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

    def forget_these(self, ids: Int[Tensor, "B"]) -> None:
        """Drop the images of one batch."""
        self._changed.pop(tuple(ids.tolist()), None)

    def forget(self) -> None:
        """Drop all images."""
        self._changed.clear()
