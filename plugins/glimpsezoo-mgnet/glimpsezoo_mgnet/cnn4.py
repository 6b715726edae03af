"""The small CNN of MGNet's appendix B as a classifier by itself: a plain feed-forward network, one look at the whole image.

Tan, Dong & Ma, "Multi-Glimpse Network", BMVC 2021, https://arxiv.org/abs/2111.02018, appendix B: four convolutions, global average
pooling and a fully connected layer. 67.889 M MACs at 112 px and ten classes. (The paper's own baseline, "FF-Net", is MGNet with one
glimpse and no downsampling, its fusion and locator included: 67.958 M.)
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from glimpsezoo import Decision, GlimpseModel, Noise, Regions, State, Task
from glimpsezoo_mgnet.backbones import SMALL_CNN, create_backbone
from glimpsezoo_mgnet.config import CNN4Config


@dataclass(frozen=True, kw_only=True)
class CNN4State(State):
    """feature: [B, 128], zero before the look."""

    feature: Float[Tensor, "B width"]


class CNN4(GlimpseModel[CNN4State]):
    """The whole image, once, at its full resolution.

    Raises `GlimpseZooError` for images of fewer than 12 pixels a side.
    """

    steps = 1
    policy = "whole image"
    mean: Tensor
    std: Tensor

    def __init__(self, config: CNN4Config, task: Task) -> None:
        super().__init__()
        self.config, self.task = config, task
        self.backbone, width = create_backbone(SMALL_CNN, task.channels, task.image_size)
        self.head = nn.Linear(width, len(task.classes))
        self.register_buffer("mean", torch.tensor(task.mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(task.std).view(-1, 1, 1), persistent=False)

    def start(self, images: Float[Tensor, "B C H W"], noise: Noise) -> tuple[CNN4State, Decision]:
        state = CNN4State(noise=noise, feature=images.new_zeros(len(images), self.head.in_features))
        return state, Decision.certain(Regions.whole_image(images))

    def sense(self, images: Float[Tensor, "B C H W"], state: CNN4State, regions: Regions) -> Float[Tensor, "N width"]:
        return self.backbone((images[regions.image] - self.mean) / self.std)

    def fuse(self, state: CNN4State, decision: Decision, features: Float[Tensor, "B width"]) -> CNN4State:
        return CNN4State(noise=state.noise, step=state.step, feature=features)

    def classify(self, state: CNN4State) -> Float[Tensor, "B classes"]:
        return self.head(state.feature)
