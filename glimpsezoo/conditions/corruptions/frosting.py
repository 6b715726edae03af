"""Frost: a random crop of a frosted window over the image.

The photographs of windows come from the distribution imagecorruptions-imaug if it is installed (the extra `frost`); it is
not imported. Otherwise, windows of similar brightness and contrast are drawn. That is a different corruption, and `made_with` says so.
"""

import importlib.util
import math
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFilter
from torch import Tensor

from glimpsezoo.conditions.corruptions.presets import constants
from glimpsezoo.core.noise import Noise

Images = Float[Tensor, "B 3 H W"]
_DISTRIBUTION, _PACKAGE = "imagecorruptions-imaug", "imagecorruptions"
_FILES = ("frost1.png", "frost2.png", "frost3.png", "frost4.jpg", "frost5.jpg")  # the published code never uses the sixth
_SHRUNK = {"224": 1.0, "64": 0.3, "32": 0.2}
_DRAWN_SIZE = (640, 480)  # width, height of a drawn window


def frost(images: Images, severity: int, preset: str, noise: Noise) -> Images:
    """a x + b f, f a random crop of one of five windows."""
    kept, added = constants("frost", severity, preset)
    height, width = images.shape[2:]
    windows = _windows(preset, height, width, made_with())
    crops = []
    for which, down, across in noise.uniform(0, 3).tolist():
        window = windows[int(which * len(windows))]
        top, left = int(down * (window.shape[1] - height)), int(across * (window.shape[2] - width))
        crops.append(window[:, top : top + height, left : left + width])
    return torch.stack(crops).to(images).mul_(added / 255).add_(images, alpha=kept)


def made_with() -> str:
    """Where the windows come from. It is part of the ids of units."""
    if _folder() is None:
        return "frost texture of its own"
    return f"frost photographs of {_DISTRIBUTION} {version(_DISTRIBUTION)}"


def _folder() -> Path | None:
    """The folder of the photographs, if the distribution is installed completely."""
    try:
        version(_DISTRIBUTION)
        spec = importlib.util.find_spec(_PACKAGE)
    except (PackageNotFoundError, ValueError):
        return None
    folders = [Path(place, "frost") for place in (spec.submodule_search_locations or ())] if spec else []
    return next((folder for folder in folders if all((folder / file).is_file() for file in _FILES)), None)


@lru_cache(maxsize=8)
def _windows(preset: str, height: int, width: int, source: str) -> tuple[UInt8[Tensor, "3 h w"], ...]:
    """Five windows, shrunk for small images but larger than height x width. source: `made_with()`, as a key of the cache."""
    folder = _folder()
    pictures = [Image.open(folder / file).convert("RGB") for file in _FILES] if folder else [drawn(number) for number in range(5)]
    windows = []
    for picture in pictures:
        whole = torch.from_numpy(np.array(picture)).permute(2, 0, 1)  # [3, h, w]
        scale = max(_SHRUNK[preset], (height + 1) / picture.height, (width + 1) / picture.width)
        if scale != 1:
            size = (math.ceil(picture.height * scale - 0.5), math.ceil(picture.width * scale - 0.5))
            size = (max(size[0], height + 1), max(size[1], width + 1))
            # No antialiasing, because the published code uses OpenCV's bilinear resize.
            whole = F.interpolate(whole[None].float(), size=size, mode="bilinear")[0].round().to(torch.uint8)
        windows.append(whole.contiguous())
    return tuple(windows)


def drawn(number: int) -> Image.Image:
    """Draw a frosted window: fern-like crystals that grow from random seeds over a cloudy ground. A function of `number`."""
    random = np.random.default_rng([2019, number])
    width, height = _DRAWN_SIZE
    ground = Image.fromarray(random.integers(60, 150, (height // 40, width // 40), dtype=np.uint8))
    ferns = Image.new("L", _DRAWN_SIZE)
    pen = ImageDraw.Draw(ferns)
    for _ in range(120):
        start = (float(random.uniform(0, width)), float(random.uniform(0, height)))
        _grow(pen, random, start, float(random.uniform(0, 2 * math.pi)), float(random.uniform(40, 170)), 3)
    haze = np.asarray(ground.resize(_DRAWN_SIZE, Image.Resampling.BICUBIC), dtype=np.float32)
    sharp, soft = (np.asarray(ferns.filter(ImageFilter.GaussianBlur(radius)), dtype=np.float32) for radius in (0.7, 6))
    light = haze + 0.3 * sharp + 0.25 * soft
    tint = np.array([0.88, 0.97, 1.05], dtype=np.float32)  # ice is a little blue
    return Image.fromarray(np.clip(light[:, :, None] * tint, 0, 255).astype(np.uint8))


def _grow(
    pen: ImageDraw.ImageDraw, random: np.random.Generator, start: tuple[float, float], angle: float, length: float, depth: int
) -> None:
    """Draw a slightly bent needle with shorter needles at 60 degrees on both sides, like the branches of an ice crystal."""
    pieces = max(2, int(length / 9))
    for piece in range(pieces):
        end = (start[0] + math.cos(angle) * length / pieces, start[1] + math.sin(angle) * length / pieces)
        pen.line((start, end), fill=int(random.integers(110, 256)), width=depth)
        if depth > 1:
            left = length * 0.4 * (1 - piece / pieces)
            for side in (-1, 1):
                _grow(pen, random, end, angle + side * math.pi / 3, left, depth - 1)
        angle += float(random.normal(0, 0.08))
        start = end
