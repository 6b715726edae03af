"""What is done to the images before the model sees them: nothing, a corruption at a severity, an attack."""

from abc import ABC, abstractmethod
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor

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

    @abstractmethod
    def apply(
        self, images: Float[Tensor, "B C H W"], labels: Int[Tensor, "B"], ids: Int[Tensor, "B"], model: GlimpseModel[Any]
    ) -> Float[Tensor, "B C H W"]:
        """The images that the model is to see. What is random in it follows from `ids` (`Noise.of(seed, ids)`), not from the batch.

        `model` (in eval mode) and `labels` are there for attacks, which switch gradients on for themselves.
        """


class Clean(Condition):
    """The images as they are."""

    name = "clean"

    def apply(
        self, images: Float[Tensor, "B C H W"], labels: Int[Tensor, "B"], ids: Int[Tensor, "B"], model: GlimpseModel[Any]
    ) -> Float[Tensor, "B C H W"]:
        return images
