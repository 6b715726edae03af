"""The two feed-forward baselines of Ranzato (2014), section 4.1: one look at the whole image.

`ranzato-fc`: one hidden layer on the whole image, or on the down-sampled one (table 3). `ranzato-conv`: two stages of a 5 x 5 convolution
and 2 x 2 max-pooling, a fully connected layer, the output. The convolutions are valid: the paper's speed-ups agree with no other.
The paper does not name the convolutional network's nonlinearity: rectified units, as in all its other networks.
"""

from abc import abstractmethod
from dataclasses import dataclass, replace

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from glimpsezoo import Decision, GlimpseModel, GlimpseZooError, Noise, PaperMacs, Regions, State, Task, TrainingPhase, rollout
from glimpsezoo_ranzato.config import ConvolutionalConfig, FullyConnectedConfig
from glimpsezoo_ranzato.model import OneHidden, Pixels, down_sampled


@dataclass(frozen=True, kw_only=True)
class LogitState(State):
    """logits: of the one look."""

    logits: Float[Tensor, "B classes"]


class OneLook(GlimpseModel[LogitState]):
    """A network that sees the image once: `outputs` is all it computes. macs: of one image, linear and convolutional layers, no biases."""

    steps = 1
    macs: int

    @abstractmethod
    def outputs(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B classes"]:
        """Logits of the whole image."""

    def start(self, images: Float[Tensor, "B C H W"], noise: Noise) -> tuple[LogitState, Decision]:
        state = LogitState(noise=noise, logits=images.new_zeros(len(images), len(self.task.classes)))
        return state, Decision.certain(Regions.whole_image(images))

    def sense(self, images: Float[Tensor, "B C H W"], state: LogitState, regions: Regions) -> Float[Tensor, "N classes"]:
        return self.outputs(images)[regions.image]

    def fuse(self, state: LogitState, decision: Decision, features: Float[Tensor, "B classes"]) -> LogitState:
        return replace(state, logits=features)

    def classify(self, state: LogitState) -> Float[Tensor, "B classes"]:
        return state.logits

    def paper_macs(self, step: int) -> PaperMacs:
        return PaperMacs("paper", self.macs)


class FullyConnected(OneLook):
    """Equation 1 on the whole image, or on the down-sampled one."""

    def __init__(self, config: FullyConnectedConfig, task: Task) -> None:
        super().__init__()
        self.config, self.task = config, task
        height, width = task.image_size
        if config.low_size is not None:
            if config.low_size > min(height, width):
                raise GlimpseZooError(
                    f"ranzato-fc: expected low_size to fit into images of {height} x {width} px, got {config.low_size}: set a smaller one"
                )
            height = width = config.low_size
            self.sees = "lowres"
        self.pixels = Pixels(task)
        self.network = OneHidden(task.channels * height * width, config.hidden, len(task.classes))
        self.macs = self.network.macs

    def outputs(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B classes"]:
        if self.config.low_size is not None:
            images = down_sampled(images, self.config.low_size)
        return self.network(self.pixels(images)).logits


class Convolutional(OneLook):
    """Section 4.1's best classifier: 5 x 5 x 64, pool, 5 x 5 x 64, pool, 128 units, classes. Raises for images below 16 px."""

    def __init__(self, config: ConvolutionalConfig, task: Task) -> None:
        super().__init__()
        self.config, self.task = config, task
        first = [side - 4 for side in task.image_size]  # a valid 5 x 5 convolution
        second = [side // 2 - 4 for side in first]
        last = [side // 2 for side in second]
        if min(last) < 1:
            height, width = task.image_size
            raise GlimpseZooError(f"ranzato-conv: expected images of at least 16 x 16 px, got {height} x {width}: choose larger images")
        filters, hidden, classes = config.filters, config.hidden, len(task.classes)
        inputs = filters * last[0] * last[1]
        self.pixels = Pixels(task)
        self.first = nn.Conv2d(task.channels, filters, 5)
        self.second = nn.Conv2d(filters, filters, 5)
        self.head = OneHidden(inputs, hidden, classes)
        kernels = 25 * filters * (task.channels * first[0] * first[1] + filters * second[0] * second[1])
        self.macs = kernels + self.head.macs

    def outputs(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B classes"]:
        x = self.pixels(images).unflatten(1, images.shape[1:])  # [B, C * H * W] -> [B, C, H, W]
        x = F.max_pool2d(self.first(x).relu(), 2)
        x = F.max_pool2d(self.second(x).relu(), 2)
        return self.head(x.flatten(1)).logits


def training_step(
    model: GlimpseModel[LogitState], images: Float[Tensor, "B C H W"], labels: Int[Tensor, "B"], phase: TrainingPhase
) -> dict[str, Tensor]:
    """Cross-entropy in nats (equation 10)."""
    trace = rollout(model, images, noise=phase.noise)
    return {"cross_entropy": F.cross_entropy(trace.logits, labels)}
