"""How training varies natural images: a random resized crop, a flip, and colours."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import torch
from PIL import Image

from glimpsezoo.data.config import AugmentedSettings

DISTORTION = 0.5  # largest relative change of brightness, contrast and saturation


class Augmentation:
    """A training image, as a function of the image and what it is an augmentation of.

    The defaults are those that ImageNet classifiers, MGNet's among them, are usually trained with. For the pyramid's on ImageNet
    (appendix A.6.2): crop_area 0.85, crop_aspect 2, interpolation "random", colours "distort".
    """

    def __init__(self, size: tuple[int, int], config: AugmentedSettings) -> None:
        self.size, self.config = size, config

    def __call__(self, image: Image.Image, key: tuple[object, ...]) -> Image.Image:
        """Another view of `image` at the task's size; the same for the same seed and `key`."""
        with _seeded((self.config.seed, *key)):
            return self._chosen_crop()(image)

    def _chosen_crop(self) -> Callable[[Image.Image], Image.Image]:
        if self.config.interpolation == "bilinear":
            return self._transforms[0]
        return self._transforms[int(torch.randint(len(self._transforms), ()))]

    @cached_property
    def _transforms(self) -> list[Callable[[Any], Any]]:
        from torchvision.transforms import InterpolationMode as Mode
        from torchvision.transforms import v2

        aspect, config = self.config.crop_aspect, self.config
        colours = {
            "autoaugment": [v2.AutoAugment(v2.AutoAugmentPolicy.IMAGENET)],
            "distort": [v2.ColorJitter(DISTORTION, DISTORTION, DISTORTION)],
            "keep": [],
        }[config.colours]
        modes = [Mode.BILINEAR] if config.interpolation == "bilinear" else [Mode.BILINEAR, Mode.NEAREST, Mode.BICUBIC, Mode.BOX]
        crops = [v2.RandomResizedCrop(self.size, scale=(config.crop_area, 1.0), ratio=(1 / aspect, aspect), interpolation=m) for m in modes]
        return [v2.Compose([crop, v2.RandomHorizontalFlip(), *colours]) for crop in crops]


@contextmanager
def _seeded(key: tuple[object, ...]) -> Iterator[None]:
    """Torch's draws on the CPU are a function of `key` inside, and undisturbed outside."""
    state = torch.default_generator.get_state()
    digest = hashlib.blake2b("/".join(map(str, key)).encode(), digest_size=7).digest()
    torch.default_generator.manual_seed(int.from_bytes(digest, "big"))
    try:
        yield
    finally:
        torch.default_generator.set_state(state)
