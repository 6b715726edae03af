"""How training augments natural images: a random resized crop, a flip, and changed colours."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import torch
from PIL import Image

from glimpsezoo.data.config import AugmentedSettings

DISTORTION = 0.5  # the largest relative change of brightness, contrast and saturation


class Augmentation:
    """Augments an image to `size` (height, width).

    The defaults of the settings are the usual ones for ImageNet classifiers, MGNet among them. For the pyramid models on ImageNet
    (appendix A.6.2): crop_area 0.85, crop_aspect 2, interpolation "random", colours "distort".
    """

    def __init__(self, size: tuple[int, int], config: AugmentedSettings) -> None:
        self.size, self.config = size, config

    def __call__(self, image: Image.Image, key: tuple[object, ...]) -> Image.Image:
        """An augmented view of `image`, determined by the seed of the settings and `key`."""
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
    """Seed torch's CPU generator by `key`, and restore its state afterwards."""
    state = torch.default_generator.get_state()
    digest = hashlib.blake2b("/".join(map(str, key)).encode(), digest_size=7).digest()
    torch.default_generator.manual_seed(int.from_bytes(digest, "big"))
    try:
        yield
    finally:
        torch.default_generator.set_state(state)
