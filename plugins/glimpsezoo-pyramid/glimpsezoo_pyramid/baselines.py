"""The fully convolutional baselines BL_i of the pyramid paper, for images of any size: one look at the whole image.

BL_i is the feature extraction module of M_i followed by global average pooling, two fully connected layers in the place of
aggregation and merging, and the classification module (tables 1 to 5).
"""

from typing import ClassVar

from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from glimpsezoo import FeedForward, GlimpseZooError, Normalise, PaperMacs, Task, TrainingPhase, thumbnail
from glimpsezoo_pyramid.architectures import IMAGENET_M1, IMAGENET_M2, M1, M2, M3, Architecture
from glimpsezoo_pyramid.config import BaselineConfig, BaselineOptions
from glimpsezoo_pyramid.modules import SLOPE, feature_layers, initialise


class Baseline(FeedForward):
    """A fully convolutional network with one of the architectures of tables 1 to 5."""

    architecture: ClassVar[Architecture]
    """Set by subclasses."""

    def __init__(self, config: BaselineConfig, task: Task) -> None:
        super().__init__(config, task)
        smallest, side = self.architecture.smallest_side(), min(self.input_size(task.image_size))
        if side < smallest:
            raise GlimpseZooError(
                f"expected images of {smallest} px or more for bl of {self.architecture.name}, got {side}: set resolution"
            )
        f = self.architecture.width
        self.normalise = Normalise(task)
        self.features = feature_layers(self.architecture, task.channels)
        self.hidden = nn.Sequential(nn.Linear(f, f), nn.LeakyReLU(SLOPE), nn.Linear(f, f), nn.LeakyReLU(SLOPE))
        self.classification = nn.Linear(f, len(task.classes))
        initialise(self)

    def input_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """The (height, width) in pixels to which an image of `size` is resized."""
        return size if self.config.resolution is None else (self.config.resolution,) * 2

    def prepared(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C h w"]:
        return self.resized(images, self.input_size((images.shape[2], images.shape[3])))

    def resized(self, images: Float[Tensor, "B C H W"], size: tuple[int, int]) -> Float[Tensor, "B C h w"]:
        """The images as `features` takes them, at `size` (height, width)."""
        return self.normalise(thumbnail(images, size))

    def head(self, features: Float[Tensor, "B f h w"]) -> Float[Tensor, "B classes"]:
        return self.classification(self.hidden(features.mean((2, 3))))

    def paper_macs(self, step: int) -> PaperMacs:
        """The cost of the tables' layers at the task's image size. (The paper's totals round output sizes; these are exact.)"""
        f, size = self.architecture.width, self.input_size(self.task.image_size)
        macs = self.architecture.feature_macs(self.task.channels, *size) + 2 * f * f + f * len(self.task.classes)
        return PaperMacs("convolutions and linear layers", macs)


def training_step(
    model: Baseline, images: Float[Tensor, "B C H W"], labels: Int[Tensor, "B"], phase: TrainingPhase
) -> dict[str, Float[Tensor, ""]]:
    """Cross-entropy of the labels (appendix A.5.2), at the training phase's own resolution if it has one, else at the model's."""
    resolution = BaselineOptions.parse(phase.options, owner=f"training phase {phase.name!r}").resolution
    pixels = model.prepared(images) if resolution is None else model.resized(images, (resolution, resolution))
    return {"cross_entropy": F.cross_entropy(model.head(model.features(pixels)), labels)}


class Baseline1(Baseline):
    """BL1 of table 3: receptive field 3 x 3."""

    architecture = M1


class Baseline2(Baseline):
    """BL2 of table 2: receptive field 8 x 8."""

    architecture = M2


class Baseline3(Baseline):
    """BL3 of table 1: receptive field 20 x 20."""

    architecture = M3


class BaselineImageNet1(Baseline):
    """BL1 of table 5: receptive field 18 x 18."""

    architecture = IMAGENET_M1


class BaselineImageNet2(Baseline):
    """BL2 of table 4: receptive field 38 x 38."""

    architecture = IMAGENET_M2
