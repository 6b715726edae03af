"""Images of noise: something to count costs on."""

import math

import torch

from glimpsezoo.core.noise import Noise
from glimpsezoo.data.base import DataInfo, Example, ImageData
from glimpsezoo.specs import Task


class NoiseImages(ImageData):
    """Images of uniform noise in [0, 1] of the size that a task declares, all of class 0."""

    def __init__(self, task: Task, images: int, seed: int = 0) -> None:
        self.task, self.images, self.seed = task, images, seed
        self.info = DataInfo(
            name="noise", source="noise", revision=None, fingerprint=f"noise {images} {seed}", split="none", transform="none"
        )

    def __len__(self) -> int:
        return self.images

    def __getitem__(self, index: int) -> Example:
        shape = (self.task.channels, *self.task.image_size)
        pixels = Noise.of(self.seed, torch.tensor([index])).uniform(0, math.prod(shape))
        return Example(pixels.reshape(shape), label=0, id=index, group=index)  # [1, C * H * W] -> [C, H, W]
