"""The two feed-forward baselines of Ranzato (2014), section 4.1: one look at the whole image.

`ranzato-fc`: one hidden layer on the whole image, or on the down-sampled one (table 3). `ranzato-conv`: two stages of a 5 x 5 convolution
and 2 x 2 max-pooling, a fully connected layer, the output. The convolutions are valid: only these match the paper's speed-ups.
The paper does not name the convolutional network's nonlinearity. Rectified units are used, as in all its other networks.
"""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from glimpsezoo import FeedForward, FeedForwardState, GlimpseZooError, Normalise, PaperMacs, Task, thumbnail
from glimpsezoo_ranzato.config import ConvolutionalConfig, FullyConnectedConfig
from glimpsezoo_ranzato.model import OneHidden


class Baseline(FeedForward):
    """A baseline whose `features` are its logits, so that sense is all of its cost."""

    policy = "learned"  # what the results of these models have always said, although no place is chosen
    macs: int
    """MACs per image as the paper counts them: linear and convolutional layers, without biases."""

    def __init__(self, config: FullyConnectedConfig | ConvolutionalConfig, task: Task) -> None:
        super().__init__(config, task)
        self.normalise = Normalise(task)

    def prepared(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C h w"]:
        return self.normalise(images)

    def classify(self, state: FeedForwardState) -> Float[Tensor, "B classes"]:
        return state.features

    def paper_macs(self, step: int) -> PaperMacs:
        return PaperMacs("paper", self.macs)


class FullyConnected(Baseline):
    """Equation 1 on the whole image, or on the down-sampled one."""

    def __init__(self, config: FullyConnectedConfig, task: Task) -> None:
        super().__init__(config, task)
        height, width = task.image_size
        if config.low_size is not None:
            if config.low_size > min(height, width):
                raise GlimpseZooError(
                    f"ranzato-fc: expected low_size to fit into images of {height} x {width} px, got {config.low_size}: set a smaller one"
                )
            height = width = config.low_size
            self.sees = "lowres"
        self.network = OneHidden(task.channels * height * width, config.hidden, len(task.classes))
        self.macs = self.network.macs

    def prepared(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C h w"]:
        low_size = self.config.low_size
        return self.normalise(images if low_size is None else thumbnail(images, (low_size, low_size), "pixels"))

    def features(self, images: Float[Tensor, "B C h w"]) -> Float[Tensor, "B classes"]:
        return self.network(images.flatten(1)).logits


class Convolutional(Baseline):
    """Section 4.1's best classifier: 5 x 5 x 64, pool, 5 x 5 x 64, pool, 128 units, classes.

    Raises `GlimpseZooError` for images with a side below 16 pixels.
    """

    def __init__(self, config: ConvolutionalConfig, task: Task) -> None:
        super().__init__(config, task)
        first = [side - 4 for side in task.image_size]  # a valid 5 x 5 convolution
        second = [side // 2 - 4 for side in first]
        last = [side // 2 for side in second]
        if min(last) < 1:
            height, width = task.image_size
            raise GlimpseZooError(f"ranzato-conv: expected images of at least 16 x 16 px, got {height} x {width}: choose larger images")
        filters, hidden, classes = config.filters, config.hidden, len(task.classes)
        inputs = filters * last[0] * last[1]
        self.first = nn.Conv2d(task.channels, filters, 5)
        self.second = nn.Conv2d(filters, filters, 5)
        self.head = OneHidden(inputs, hidden, classes)
        kernels = 25 * filters * (task.channels * first[0] * first[1] + filters * second[0] * second[1])
        self.macs = kernels + self.head.macs

    def features(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B classes"]:
        x = F.max_pool2d(self.first(images).relu(), 2)
        x = F.max_pool2d(self.second(x).relu(), 2)
        return self.head(x.flatten(1)).logits
